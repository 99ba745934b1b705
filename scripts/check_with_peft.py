#!/usr/bin/env python3
"""Checks that PEFT takes an adapter that mixtune wrote, and computes what the merged model computes.

    python scripts/check_with_peft.py BASE ADAPTER...      needs torch, transformers 5 and PEFT >= 0.20

Loads each adapter over BASE with PEFT, in fp32, runs build/mixtune (or $MIXTUNE) merge, loads the result with
transformers, and compares the logits of random tokens: they must agree to TOLERANCE of the largest one (or of 1), and
differ from the base's. PEFT may neither miss a tensor nor find one too many. Exit status 1 when anything differs.
"""
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import warnings

import peft
import torch
import transformers

PROGRAM = os.environ.get("MIXTUNE", str(pathlib.Path(__file__).resolve().parent.parent / "build" / "mixtune"))
TOLERANCE = 1e-5
TOKENS = 48


def open_model(folder):
    return transformers.MixtralForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def logits_of(model):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, model.config.vocab_size, (1, TOKENS), generator=generator)
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits[0]


def merged(base, adapter):
    with tempfile.TemporaryDirectory() as scratch:
        out = str(pathlib.Path(scratch) / "merged")
        done = subprocess.run([PROGRAM, "merge", base, adapter, out, "--dtype", "fp32"], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{adapter}: mixtune merge failed: {done.stderr.strip()}")
        return logits_of(open_model(out))


def check(base, adapter):
    before = logits_of(open_model(base))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(missing|unexpected).*keys.*")
        want = logits_of(peft.PeftModel.from_pretrained(open_model(base), adapter))
    got = merged(base, adapter)
    bound = TOLERANCE * max(1.0, want.abs().max().item())
    error, change = (got - want).abs().max().item(), (want - before).abs().max().item()
    good = error <= bound < change
    print(f"{adapter}: {'good' if good else 'BAD'}: logits differ by {error:.1e} (bound {bound:.1e}), "
          f"the adapter changes them by {change:.1e}")
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", metavar="BASE")
    parser.add_argument("adapters", metavar="ADAPTER", nargs="+")
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    sys.exit(0 if all([check(arguments.base, adapter) for adapter in arguments.adapters]) else 1)


if __name__ == "__main__":
    main()
