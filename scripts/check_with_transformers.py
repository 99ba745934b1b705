#!/usr/bin/env python3
"""Checks that transformers opens mixtune's checkpoints and computes what mixtune computes: logits and greedy tokens.

    python scripts/check_with_transformers.py [--prompts FILE] CHECKPOINT...      needs torch, transformers >= 5.17

Runs build/mixtune (or $MIXTUNE) on a few prompts of each checkpoint, in fp32: random tokens, or the untrained
beginnings of the first records of FILE, which `mixtune preprocess` writes. Logits must agree to TOLERANCE of the
largest one (or of 1). Greedy tokens must be the same up to the first place where transformers' own two best logits are
closer than twice that. Exit status 1 when anything differs.
"""
import argparse
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import safetensors.torch
import torch
import transformers

PROGRAM = os.environ.get("MIXTUNE", str(pathlib.Path(__file__).resolve().parent.parent / "build" / "mixtune"))
TOLERANCE = 1e-5
PROMPT_LENGTHS = (1, 7, 40)
FILE_PROMPTS = 8
NEW_TOKENS = 24


def open_checkpoint(folder):
    model, info = transformers.MixtralForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager",
        output_loading_info=True)
    wrong = {kind: names for kind, names in info.items() if names}
    if wrong:
        raise SystemExit(f"{folder}: transformers does not take it as it is: {wrong}")
    return model.eval()


def ask_mixtune(folder, prompt):
    """The prompt's logits [T, V], and the tokens that follow it."""
    with tempfile.TemporaryDirectory() as scratch:
        logits = pathlib.Path(scratch) / "logits.safetensors"
        done = subprocess.run(
            [PROGRAM, "generate", folder, "--ids", ",".join(map(str, prompt)), "--max-new-tokens", str(NEW_TOKENS),
             "--precision", "fp32", "--logits", str(logits)], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{folder}: mixtune generate failed: {done.stderr.strip()}")
        tokens = [int(word) for word in done.stdout.replace(",", " ").split()]
        return safetensors.torch.load_file(logits)["logits"], tokens


def ask_transformers(model, prompt):
    """The same, and how far ahead the best of each step's logits was."""
    ids = torch.tensor([prompt])
    config = transformers.GenerationConfig(
        do_sample=False, max_new_tokens=NEW_TOKENS, eos_token_id=model.config.eos_token_id, pad_token_id=0,
        output_logits=True, return_dict_in_generate=True)
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0]
        out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    best = torch.cat(out.logits).topk(2).values
    return logits, out.sequences[0, len(prompt):].tolist(), (best[:, 0] - best[:, 1]).tolist()


def compare(folder, model, prompt):
    logits, tokens = ask_mixtune(folder, prompt)
    want_logits, want_tokens, lead = ask_transformers(model, prompt)
    bound = TOLERANCE * max(1.0, want_logits.abs().max().item())
    error = (logits - want_logits).abs().max().item()
    clear = next((i for i, gap in enumerate(lead) if gap < 2 * bound), len(want_tokens))
    same_tokens = tokens[:clear] == want_tokens[:clear] and (clear < len(want_tokens) or len(tokens) == clear)
    print(f"{folder}: {len(prompt)} tokens: logits differ by {error:.1e} (bound {bound:.1e}), "
          f"greedy tokens {'agree' if same_tokens else 'DIFFER'} ({clear} of {len(want_tokens)} compared)")
    if not same_tokens:
        print(f"  mixtune      {tokens}\n  transformers {want_tokens}")
    return error <= bound and same_tokens


def prompts_of_file(path):
    with open(path, encoding="utf-8") as lines:
        for record in map(json.loads, itertools.islice(lines, FILE_PROMPTS)):
            untrained = itertools.takewhile(lambda label: label == -100, record["labels"])
            yield [id for id, _ in zip(record["input_ids"], untrained)]


def random_prompts(vocab_size):
    generator = torch.Generator().manual_seed(1)
    for length in PROMPT_LENGTHS:
        yield torch.randint(3, vocab_size, (length,), generator=generator).tolist()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", metavar="FILE")
    parser.add_argument("checkpoints", metavar="CHECKPOINT", nargs="+")
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    good = True
    for folder in arguments.checkpoints:
        model = open_checkpoint(folder)
        prompts = prompts_of_file(arguments.prompts) if arguments.prompts else random_prompts(model.config.vocab_size)
        for prompt in prompts:
            good &= compare(folder, model, prompt)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
