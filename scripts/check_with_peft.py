#!/usr/bin/env python3
"""Checks that PEFT takes adapters that mixtune wrote, and computes what mixtune computes.

    python scripts/check_with_peft.py BASE ADAPTER...      needs torch, transformers 5 and PEFT >= 0.20

Loads each adapter over BASE with PEFT, in fp32, and compares the logits of random tokens with those of build/mixtune (or
$MIXTUNE): of `mixtune generate` with the adapter beside the base, and of transformers with what `mixtune merge` writes.
They must agree to TOLERANCE of the largest one (or of 1), and differ from the base's. PEFT may neither miss a tensor nor
find one too many. Exit status 1 when anything differs.
"""
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import warnings

import peft
import safetensors.torch
import torch
import transformers

PROGRAM = os.environ.get("MIXTUNE", str(pathlib.Path(__file__).resolve().parent.parent / "build" / "mixtune"))
TOLERANCE = 1e-5
TOKENS = 48


def open_model(folder):
    return transformers.MixtralForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def random_tokens(model):
    return torch.randint(3, model.config.vocab_size, (TOKENS,), generator=torch.Generator().manual_seed(1))


def logits_of(model):
    with torch.no_grad():
        return model.eval()(input_ids=random_tokens(model)[None]).logits[0]


def run_mixtune(*arguments):
    """Its stderr, and whether it succeeded."""
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True)
    return done.stderr.strip(), done.returncode == 0


def merged(base, adapter):
    with tempfile.TemporaryDirectory() as scratch:
        out = str(pathlib.Path(scratch) / "merged")
        said, good = run_mixtune("merge", base, adapter, out, "--dtype", "fp32")
        if not good:
            raise SystemExit(f"{adapter}: mixtune merge failed: {said}")
        return logits_of(open_model(out))


def beside(base, adapter, tokens):
    with tempfile.TemporaryDirectory() as scratch:
        logits = str(pathlib.Path(scratch) / "logits.safetensors")
        said, good = run_mixtune("generate", adapter, "--base", base, "--ids", ",".join(map(str, tokens.tolist())),
                                 "--max-new-tokens", "1", "--precision", "fp32", "--logits", logits)
        if not good:
            raise SystemExit(f"{adapter}: mixtune generate failed: {said}")
        return safetensors.torch.load_file(logits)["logits"]


def check(base, adapter):
    model = open_model(base)
    before, tokens = logits_of(model), random_tokens(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(missing|unexpected).*keys.*")
        want = logits_of(peft.PeftModel.from_pretrained(model, adapter))
    bound, change = TOLERANCE * max(1.0, want.abs().max().item()), (want - before).abs().max().item()
    errors = {how: (got - want).abs().max().item()
              for how, got in (("merged", merged(base, adapter)), ("beside the base", beside(base, adapter, tokens)))}
    good = max(errors.values()) <= bound < change
    print(f"{adapter}: {'good' if good else 'BAD'}: logits differ by "
          + ", ".join(f"{error:.1e} {how}" for how, error in errors.items())
          + f" (bound {bound:.1e}), the adapter changes them by {change:.1e}")
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
