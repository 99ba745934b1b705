#!/usr/bin/env python3
"""Writes tests/fixtures/tokenizer_folders/: what transformers makes of folders of tokenizers, for src/data's tests to match.

Needs transformers 5, tokenizers, sentencepiece and protobuf. Running it twice gives the same bytes:

    python scripts/make_tokenizer_folder_fixtures.py tests/fixtures/tokenizer_folders

small.json is a tokenizer.json of the quickstart's tokenizer.model, cut to its first pieces. Each folder of folders.json
has its files beside either of the two; `tokenizer.json` there replaces keys of small.json. A case is a text, its ids,
and where they differ those that it has where special tokens' names are only text.
"""

import copy
import importlib.metadata
import json
import pathlib
import sys
import tempfile

from transformers import AutoTokenizer

MODEL = pathlib.Path(__file__).resolve().parent.parent / "examples" / "quickstart" / "tokenizer.model"
LONG = 900  # pieces of small.json, before those of one character
CONFIG = {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"]}

TEXTS = [
    "",
    " ",
    "Hello, world!",
    " one",
    "  two  ",
    "\n\nlines\n",
    "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|> user  <|im_end|>  x",
    "a <|im_end|> b<|im_end|>c",
    "<|im_end|><|im_end|>",
    "<|im_end|>\n \n<|im_start|>\u00a0\u3000x",
    "<|im_end",
    "<s>a</s> b",
    " <s> a </s>",
    "x<s>y <s>z",
    "<unk>a<unk>",
    "\u2581under \u2581 line<|im_end|>\u2581",
    "na\u00efve \u65e5\u672c\u8a9e \U0001f917 e\u0301",
    "word woord theword words word.",
    "tabs\t\tand\r\nends",
    "a" * 20,
]


def token(content, **flags):
    base = {"content": content, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    return {**base, "special": True, **flags}


BASE = {str(i): token(name) for i, name in enumerate(["<unk>", "<s>", "</s>"])}


def chatml(pieces, **flags):
    tokens = {pieces: token("<|im_end|>", **flags), pieces + 1: token("<|im_start|>")}
    return {**BASE, **{str(i): t for i, t in tokens.items()}}


def config(**keys):
    return {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "LlamaTokenizer", **keys}


def model_folders(pieces):
    """Folders with tokenizer.model."""
    added = {"<|im_end|>": pieces, "<|im_start|>": pieces + 1}
    yield "bare", {}
    yield "config alone", {"tokenizer_config.json": config()}
    yield "not legacy", {"tokenizer_config.json": config(legacy=False)}
    chat = {"added_tokens_decoder": chatml(pieces), "eos_token": "<|im_end|>"}
    yield "chatml", {"tokenizer_config.json": config(**chat), "added_tokens.json": added}
    yield "chatml not legacy", {"tokenizer_config.json": config(**chat, legacy=False)}
    yield "eos is an object", {"tokenizer_config.json": config(**chat | {"eos_token": {"__type": "AddedToken", **token("<|im_end|>")}})}
    for name, flags in [
        ("lstrip", {"lstrip": True}),
        ("rstrip", {"rstrip": True}),
        ("both strips, not special", {"lstrip": True, "rstrip": True, "special": False}),
        ("normalized", {"normalized": True}),
        ("not special", {"special": False}),
    ]:
        yield name, {"tokenizer_config.json": config(added_tokens_decoder=chatml(pieces, **flags))}
        yield name + ", not legacy", {"tokenizer_config.json": config(added_tokens_decoder=chatml(pieces, **flags), legacy=False)}
    yield "added_tokens.json", {"added_tokens.json": added}
    yield "added_tokens.json with a map", {
        "added_tokens.json": added,
        "special_tokens_map.json": {"eos_token": "<|im_end|>"},
    }
    yield "a word", {"added_tokens.json": {"word": pieces, "<|im_end|>": pieces + 1}}


def json_folders(pieces):
    """Folders with tokenizer.json, as keys that replace those of small.json."""
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    double = {"type": "Replace", "pattern": {"Regex": "\\A\u2581"}, "content": "\u2581\u2581"}
    prepend = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, space]}

    def metaspace(scheme, split):
        return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": split}

    def tokens(**flags):
        words = [token("<unk>"), token("<s>"), token("</s>"), token("<|im_end|>", **flags), token("<|im_start|>")]
        return [{"id": i, **t} for i, t in zip([0, 1, 2, pieces, pieces + 1], words)]

    normalizers = {
        "prepend": {"normalizer": prepend, "pre_tokenizer": None},
        "as transformers 5 writes it": {
            "normalizer": {"type": "Sequence", "normalizers": [space, double]},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [metaspace("always", False)]},
        },
        "space alone": {"normalizer": space, "pre_tokenizer": None},
    }
    for scheme in ["always", "first", "never"]:
        for split in [False, True]:
            name = f"metaspace {scheme}{', split' if split else ''}"
            normalizers[name] = {"normalizer": None, "pre_tokenizer": metaspace(scheme, split)}
    for name, keys in normalizers.items():
        yield name, keys | {"added_tokens": tokens()}
        for flag in ["lstrip", "rstrip", "normalized"]:
            yield f"{name}, {flag}", keys | {"added_tokens": tokens(**{flag: True})}
        both = {"lstrip": True, "rstrip": True, "normalized": True, "special": False}
        yield f"{name}, all flags", keys | {"added_tokens": tokens(**both)}
    every = [{"id": t["id"], **token(t["content"], normalized=True)} for t in tokens()]
    yield "all normalized", normalizers["prepend"] | {"added_tokens": every}
    words = [*tokens()[:3], {"id": pieces, **token("word", special=False)}, {"id": pieces + 1, **token("wo rd", special=False, normalized=True)}]
    yield "words", normalizers["prepend"] | {"added_tokens": words}


def expected(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    plain = AutoTokenizer.from_pretrained(folder, split_special_tokens=True)
    cases = []
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        as_text = plain(text, add_special_tokens=False).input_ids
        cases.append([text, ids, *([as_text] if as_text != ids else [])])
    return {"size": len(tokenizer), "bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "cases": cases}


def make(files, copied):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "config.json").write_text(json.dumps(CONFIG))
        for file, content in {**copied, **files}.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            (folder / file).write_bytes(data)
        return expected(name)


def cut(whole):
    """The first pieces and those of one character, and the merges that they need."""
    small = copy.deepcopy(whole)
    kept = [piece for piece, i in whole["model"]["vocab"].items() if i < LONG or len(piece) == 1]
    vocab = {piece: i for i, piece in enumerate(kept)}
    merges = [m for m in whole["model"]["merges"] if all(piece in vocab for piece in [*m, "".join(m)])]
    small["model"] |= {"vocab": vocab, "merges": merges}
    return small


def main(out):
    for package in ("transformers", "tokenizers", "sentencepiece"):
        print(package, importlib.metadata.version(package))
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "config.json").write_text(json.dumps(CONFIG))
        (folder / "tokenizer.model").write_bytes(MODEL.read_bytes())
        whole = AutoTokenizer.from_pretrained(name)
    small = cut(json.loads(whole.backend_tokenizer.to_str()))
    (out / "small.json").write_text(json.dumps(small, ensure_ascii=False, separators=(",", ":"), indent=None) + "\n")

    folders = []
    for name, files in model_folders(len(whole)):
        folders.append({"name": f"tokenizer.model: {name}", "files": files, **make(files, {"tokenizer.model": MODEL.read_bytes()})})
    for name, keys in json_folders(len(small["model"]["vocab"])):
        files = {"tokenizer_config.json": config(), "tokenizer.json": keys}
        made = make(files | {"tokenizer.json": small | keys}, {})
        folders.append({"name": f"tokenizer.json: {name}", "files": files, **made})
    lines = ",\n".join(json.dumps(f, ensure_ascii=True, separators=(",", ":")) for f in folders)
    (out / "folders.json").write_text(f"[\n{lines}\n]\n")
    print(f"{out}: {len(folders)} folders, {sum(len(f['cases']) for f in folders)} cases")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
