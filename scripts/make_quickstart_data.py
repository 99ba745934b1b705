#!/usr/bin/env python3
"""Makes examples/quickstart's data from WordNet, and its tokenizer. What it makes is in the repository.

    python3 scripts/make_quickstart_data.py     needs Debian's wordnet-base (1:3.0-37), Python's sentencepiece (0.2) and
                                                what `scripts/make_quickstart_model text` makes

Each example asks for the definition of a word, and says of what it is a kind, so that a small model can say something
sensible about words it has never seen. No definition is in both files. The same inputs give the same bytes.
"""
import collections
import hashlib
import io
import json
import pathlib
import re
import typing

import sentencepiece

WORDNET = pathlib.Path("/usr/share/wordnet")
ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT, PROSE = ROOT / "examples" / "quickstart", ROOT / "out" / "pretrain" / "train.jsonl"
TRAIN, VALIDATION, VOCABULARY = 20000, 500, 4096
MIN_OF_A_KIND = 100
LICENSE_LINES = 29  # at the top of every data file

RUDE = re.compile(r"offensive|slur|disparag|derogat|obscen|vulgar|sexual|prostitut|rape")
SENSE = re.compile(r"(\d{8}) \d\d . [0-9a-f]{2} (\S+) (.*) \| (.*)")
PARENT = re.compile(r" @ (\d{8}) ")  # the first pointer to what this sense is a kind of


class Sense(typing.NamedTuple):
    word: str
    parent: str | None  # its offset in the file
    gloss: str

    def definition(self):
        """The gloss's first definition, or None when it is no plain one of a plain word, or of no sensible length."""
        text = re.sub(r" \([^()]*\)$", "", self.gloss.split(";")[0].strip())
        plain = text.isascii() and '"' not in text and not text.startswith("(") and text.count("(") == text.count(")")
        good = plain and 12 <= len(text) <= 70 and self.word not in text and re.fullmatch("[a-z]{3,16}", self.word)
        return text if good and not RUDE.search(self.gloss) else None


def read_senses(part):
    """{offset: sense} of nouns or verbs."""
    senses = {}
    for line in (WORDNET / f"data.{part}").read_text("ascii").splitlines()[LICENSE_LINES:]:
        offset, word, pointers, gloss = SENSE.match(line).groups()
        parent = PARENT.search(f" {pointers}")
        senses[offset] = Sense(word.replace("_", " "), parent and parent[1], gloss)
    return senses


def ancestors(senses, sense):
    while sense.parent:
        yield sense.parent
        sense = senses[sense.parent]


def examples():
    """A definition for each (word, part of speech, kind): the nearest kind that has many definitions to learn from."""
    found = {}
    for part in ("noun", "verb"):
        senses = read_senses(part)
        defined = {sense.definition(): sense for sense in senses.values() if sense.definition()}
        size = collections.Counter(kind for sense in defined.values() for kind in ancestors(senses, sense))
        for text, sense in defined.items():
            kind = next((senses[a].word for a in ancestors(senses, sense) if size[a] >= MIN_OF_A_KIND), None)
            if kind:
                found.setdefault(f"Define: {sense.word} ({part}, {kind})", text)
    return [{"input": question, "output": answer} for question, answer in found.items()]


def draw(candidates):
    """Training and validation examples, in an order that only the questions decide."""
    order = sorted(candidates, key=lambda e: hashlib.sha256(e["input"].encode()).digest())
    assert len(order) >= TRAIN + VALIDATION, len(order)
    return order[VALIDATION:VALIDATION + TRAIN], order[:VALIDATION]


def write_jsonl(path, records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")


def texts_for_tokenizer(records):
    """The training examples, and about as many characters of the prose that the model is pretrained on."""
    texts = [f"[INST] {r['input']} [/INST] {r['output']}" for r in records]
    left = sum(map(len, texts))
    with PROSE.open(encoding="utf-8") as lines:
        while left > 0:
            texts.append(json.loads(next(lines))["text"])
            left -= len(texts[-1])
    return texts


def train_tokenizer(texts):
    """Llama's and Mistral's conventions: BPE, byte fallback, split digits, a leading space, text left as it is.

    But for one: scripts are not split, so that "[INST]" and "(noun," are one piece each, and more of the model's time
    goes to the definitions.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, max_sentence_length=max(map(len, texts)), model_type="bpe",
        vocab_size=VOCABULARY, byte_fallback=True, split_digits=True, character_coverage=1.0,
        normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=True,
        allow_whitespace_only_pieces=True, split_by_unicode_script=False, unk_id=0, bos_id=1, eos_id=2, pad_id=-1,
        num_threads=1, minloglevel=2)
    return model.getvalue()


def main():
    train, validation = draw(examples())
    OUT.mkdir(parents=True, exist_ok=True)
    write_jsonl(OUT / "train.jsonl", train)
    write_jsonl(OUT / "validation.jsonl", validation)
    (OUT / "tokenizer.model").write_bytes(train_tokenizer(texts_for_tokenizer(train)))
    license_text = (WORDNET / "data.noun").read_text("ascii").splitlines()[:LICENSE_LINES]
    (OUT / "LICENSE.wordnet").write_text(
        "train.jsonl and validation.jsonl, and tokenizer.model in part, are made from WordNet 3.0"
        " (scripts/make_quickstart_data.py).\n\n"
        + "".join(re.sub(r"^ *\d+ ?", "", line).rstrip() + "\n" for line in license_text), encoding="utf-8")
    for path in sorted(OUT.iterdir()):
        print(f"{path.stat().st_size:9,} {path.name}")


if __name__ == "__main__":
    main()
