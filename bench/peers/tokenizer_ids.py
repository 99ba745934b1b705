#!/usr/bin/env python3
"""Compares mixtune's ids with those of PyPI's tokenizers, and the time that both take on the same texts.

Needs transformers 5, tokenizers, sentencepiece, protobuf and numpy, and build/bench/tokenizer_speed:

    python bench/peers/tokenizer_ids.py BUILD [--lines 1000000] [--fuzz 100000] [--seed 1] [--json OUT]

The tokenizer.json is made by transformers from tests/fixtures/tokenizer/tokenizer.model, Mixtral's, and two special
tokens and a word are added; in a second form it is as Mixtral's hub page has it, with Prepend and Replace.
"""

import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import numpy
import tokenizers
from transformers import AutoTokenizer

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SPECIAL = ["<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>"]


def make_json(folder):
    (folder / "config.json").write_text('{"model_type": "mixtral", "architectures": ["MixtralForCausalLM"]}')
    model = folder / "tokenizer.model"
    model.write_bytes((ROOT / "tests/fixtures/tokenizer/tokenizer.model").read_bytes())
    whole = json.loads(AutoTokenizer.from_pretrained(folder).backend_tokenizer.to_str())
    model.unlink()
    base = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    pieces = len(whole["model"]["vocab"])
    whole["added_tokens"] += [
        {"id": pieces, "content": "<|im_start|>", **base},
        {"id": pieces + 1, "content": "<|im_end|>", **base | {"rstrip": True}},
        {"id": pieces + 2, "content": "wonderful", **base | {"special": False, "normalized": True}},
    ]
    return whole


def as_hub(whole):
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    steps = [{"type": "Prepend", "prepend": "\u2581"}, space]
    return {**whole, "normalizer": {"type": "Sequence", "normalizers": steps}, "pre_tokenizer": None}


def words():
    """English: the quickstart's definitions and the documentation."""
    found = []
    with open(ROOT / "examples/quickstart/train.jsonl") as file:
        for line in file:
            found += json.loads(line).values()
    for path in sorted(ROOT.glob("docs/*.md")):
        found += path.read_text().splitlines()
    return found


def code():
    lines = []
    for path in sorted([*ROOT.glob("src/*/*.cpp"), *ROOT.glob("scripts/*.py")]):
        lines += path.read_text().splitlines(keepends=True)
    return lines


def pick(choose, low, high):
    return chr(choose.randint(low, high))


class Texts:
    """Lines of many kinds, the same for a seed."""

    def __init__(self, seed):
        self.choose = random.Random(seed)
        self.words, self.code = words(), code()
        self.kinds = [self.english, self.program, self.cjk, self.scripts, self.emoji, self.marks, self.runs]
        self.kinds += [self.special, self.controls, self.mixed]

    def english(self):
        count = self.choose.choice([1, 2, 3, 3, 200] if self.choose.random() < 0.01 else [1, 2, 3])
        return " ".join(self.choose.choice(self.words) for _ in range(count))

    def program(self):
        at = self.choose.randrange(len(self.code))
        return "".join(self.code[at : at + self.choose.randint(1, 8)])

    def cjk(self):
        ranges = [(0x3041, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x3000, 0x303F)]
        return "".join(pick(self.choose, *self.choose.choice(ranges)) for _ in range(self.choose.randint(1, 60)))

    def scripts(self):
        ranges = [(0x400, 0x4FF), (0x590, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0xC0, 0x24F)]
        low, high = self.choose.choice(ranges)
        word = lambda: "".join(pick(self.choose, low, high) for _ in range(self.choose.randint(1, 9)))
        return " ".join(word() for _ in range(self.choose.randint(1, 12)))

    def emoji(self):
        ranges = [(0x1F300, 0x1FAFF), (0x1F1E6, 0x1F1FF), (0x2600, 0x27BF), (0x1D400, 0x1D7FF)]
        join = self.choose.choice(["", "\u200d", " ", "\ufe0f"])
        return join.join(pick(self.choose, *self.choose.choice(ranges)) for _ in range(self.choose.randint(1, 20)))

    def marks(self):
        letters = "aeiounsxAEIOU "
        return "".join(self.choose.choice(letters) + pick(self.choose, 0x300, 0x36F) for _ in range(self.choose.randint(1, 25)))

    def runs(self):
        runs = [c * self.choose.randint(1, 40) for c in self.choose.choices(" \n\t\r-=aA.0\u2581\u00a0", k=self.choose.randint(1, 8))]
        return "".join(runs) + self.choose.choice(["", "end", " end "])

    def special(self):
        names = [*SPECIAL, "<s", "/s>", "<|im_", "wonderful", " ", "  ", "\n", "\n\n", "x", "[INST]", "<0x0A>", "\u2581"]
        return "".join(self.choose.choice(names) for _ in range(self.choose.randint(1, 14)))

    def controls(self):
        """What looks like broken text, and is not: U+FFFD, noncharacters, BOMs, controls, the edges of UTF-8's sizes."""
        odd = "\ufffd\ufeff\ufffe\uffff\x00\x01\x1b\x7f\x80\x85\u07ff\u0800\ud7ff\ue000\U00010000\U0010ffff\u2028"
        return "".join(self.choose.choice(odd + "ab ") for _ in range(self.choose.randint(1, 30)))

    def mixed(self):
        return self.choose.choice(["", " ", "\n"]).join(self.choose.choice(self.kinds[:-1])() for _ in range(3))

    def fuzz(self):
        """Any characters."""
        size = self.choose.choice([1, 3, 10, 40, 200])
        top = self.choose.choice([0x7F, 0xFF, 0x7FF, 0xFFFF, 0x10FFFF])
        points = (self.choose.randint(0, top) for _ in range(size))
        return "".join(chr(p) for p in points if not 0xD800 <= p < 0xE000)

    def lines(self, count):
        return [self.choose.choice(self.kinds)() for _ in range(count)]


def write_texts(texts, path):
    with open(path, "wb") as file:
        for text in texts:
            data = text.encode()
            file.write(len(data).to_bytes(4, "little") + data)


def read_ids(path):
    numbers = numpy.fromfile(path, dtype=numpy.int32)
    lists, at = [], 0
    while at < len(numbers):
        count = int(numbers[at])
        lists.append(numbers[at + 1 : at + 1 + count])
        at += 1 + count
    return lists


def ours(program, folder, texts_file, mode, threads):
    out = folder / "ids"
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [program, str(folder), str(texts_file), str(out), mode]
    seconds = float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    return read_ids(out), seconds


def theirs(folder, texts, mode):
    """Batches of encodings, which hold the ids."""
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = mode == "plain"
    for at in range(0, len(texts), 20000):
        yield tokenizer.encode_batch_fast(texts[at : at + 20000], add_special_tokens=False)


def compare(name, program, folder, texts, texts_file, mode):
    mine, _ = ours(program, folder, texts_file, mode, 2)
    differ, ids, at = 0, 0, 0
    for batch in theirs(folder, texts, mode):
        for encoding in batch:
            other = encoding.ids
            ids += len(other)
            if mine[at].tolist() != other:
                differ += 1
                if differ <= 5:
                    print("  ", ascii(texts[at]), mine[at].tolist(), other)
            at += 1
    print(f"{name}, {mode}: {len(texts)} lines, {ids} ids, {differ} lines differ", flush=True)
    if differ or at != len(mine):
        sys.exit(1)
    return {"lines": len(texts), "ids": ids, "differ": differ}


def measure(program, folder, texts, texts_file):
    """Of 1, 2, 4, ... threads, the megabytes of text a second of both."""
    size, rows, threads = sum(len(text.encode()) for text in texts), {}, 1
    while threads <= len(os.sched_getaffinity(0)):
        mine = min(ours(program, folder, texts_file, "plain", threads)[1] for _ in range(3))
        command = [sys.executable, __file__, "--time", str(folder), str(texts_file)]
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "true", "RAYON_NUM_THREADS": str(threads)}
        their = float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
        print(f"{threads} threads, {size / 1e6:.1f} MB: mixtune {size / mine / 1e6:.1f} MB/s, tokenizers {size / their / 1e6:.1f} MB/s")
        rows[f"{threads} threads"] = {"mixtune": round(size / mine / 1e6, 2), "tokenizers": round(size / their / 1e6, 2)}
        threads *= 2
    return rows


def time_theirs(folder, texts_file):
    data, texts, at = open(texts_file, "rb").read(), [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        texts.append(data[at + 4 : at + 4 + size].decode())
        at += 4 + size
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        for _ in theirs(pathlib.Path(folder), texts, "plain"):
            pass
        times.append(time.perf_counter() - begin)
    print(min(times))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--lines", type=int, default=1000000)
    parser.add_argument("--fuzz", type=int, default=100000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    program = arguments.build / "bench" / "tokenizer_speed"
    print("tokenizers", tokenizers.__version__)
    made = Texts(arguments.seed)
    texts, fuzz = made.lines(arguments.lines), [made.fuzz() for _ in range(arguments.fuzz)]
    plain, same = [made.english() for _ in range(50000)], {}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        whole = make_json(folder)
        files = {"lines": texts, "fuzz": fuzz, "english": plain}
        for file, content in files.items():
            write_texts(content, folder / file)
        forms = [("as transformers writes it", whole, "special"), ("as the hub has it", as_hub(whole), "plain")]
        for form, content, mode in forms:
            (folder / "tokenizer.json").write_text(json.dumps(content))
            same[f"{form}, lines, {mode}"] = compare(f"{form}, lines", program, folder, texts, folder / "lines", mode)
            for either in ("special", "plain"):
                fuzzed = compare(f"{form}, fuzz", program, folder, fuzz, folder / "fuzz", either)
                same[f"{form}, fuzz, {either}"] = fuzzed
        print("English:")
        speed = measure(program, folder, plain, folder / "english")
    if arguments.json:
        report = {"tokenizers": tokenizers.__version__, "same ids": same, "megabytes a second of English": speed}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "--time":
        time_theirs(*sys.argv[2:])
    else:
        main()
