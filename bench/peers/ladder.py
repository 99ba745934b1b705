#!/usr/bin/env python3
"""Rows of peers for `mixtune bench ladder --peers FILE`: transformers' training step with its loop over experts (eager)
and with grouped_mm, each a process of its own, by turns.

    ladder.py OUT.json [--model-config FILE] [--layers 2] [--tokens 8192] [--sequence-length 4096] ...

The flags are those of the ladder and have its defaults (--sequence-length is no longer than --tokens). On the CPU set
OMP_NUM_THREADS to the threads that `mixtune doctor` names.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys

from transformers_step import MIXTRAL_8X7B, Work, flops_per_token, measure, versions

PEERS = ["eager", "grouped_mm"]
SHAPE = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
         "num_key_value_heads", "head_dim", "num_local_experts", "num_experts_per_tok"]


def shape_of(args):
    """The keys of a config.json; what it lacks has transformers' default, as in mixtune."""
    import transformers
    shape = json.loads(pathlib.Path(args.model_config).read_text()) if args.model_config else MIXTRAL_8X7B
    known = [*MIXTRAL_8X7B, "rope_parameters", "sliding_window", "tie_word_embeddings"]
    given = {key: shape[key] for key in known if key in shape}
    config = transformers.MixtralConfig(**given, num_hidden_layers=args.layers)
    sizes = {key: getattr(config, key) for key in SHAPE}
    return dict(given, **dict(sizes, head_dim=sizes["head_dim"] or config.hidden_size // config.num_attention_heads))


def work_of(args):
    import torch
    return Work(shape=shape_of(args), tokens=args.tokens, accumulate=args.accumulate, steps=args.steps,
                document_tokens=min(args.sequence_length, args.tokens), settle=args.settle,
                device="cuda" if args.device != "cpu" and torch.cuda.is_available() else "cpu")


def workload_of(work):
    """What the ladder compares with its own."""
    import torch
    return {"device": torch.cuda.get_device_name() if work.device == "cuda" else "CPU", "ranks": 1,
            "tokens": work.tokens, "accumulate": work.accumulate, "document_tokens": work.document_tokens,
            "balanced": False, "max_grad_norm": 0, "model": {key: work.shape[key] for key in SHAPE}}


def take_turn(name):
    """This script again, with one peer: its milliseconds and bytes, or why there are none."""
    run = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--peer", name], stdout=subprocess.PIPE, text=True)
    if run.returncode != 0:
        return {"skipped": f"exit {run.returncode}"}
    return json.loads(run.stdout.splitlines()[-1])


def one_peer(work, name):
    try:
        milliseconds, peak = measure(work, name)
    except Exception as error:  # out of memory, a backend that is missing: the others go on
        return {"skipped": f"{type(error).__name__}: {error}"[:200]}
    return {"milliseconds": milliseconds, "peak_bytes": peak}


def row_of(work, name, turns):
    row = {"name": f"transformers {name}", "peer": True,
           "versions": ", ".join(f"{program} {version}" for program, version in versions().items())}
    skipped = [turn for turn in turns if "skipped" in turn]
    if skipped:
        return row | skipped[0]
    rounds = [turn["milliseconds"] for turn in turns]
    middle = statistics.median_high(rounds)
    tokens_per_second = work.tokens * work.accumulate / middle * 1e3
    return row | {"milliseconds": middle, "rounds_milliseconds": rounds, "tokens_per_second": tokens_per_second,
                  "model_tflops": tokens_per_second * flops_per_token(work) / 1e12, "peak_bytes": turns[0]["peak_bytes"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--model-config")
    parser.add_argument("--device", default="auto")
    for flag, value in (("--layers", 2), ("--tokens", 8192), ("--sequence-length", 4096), ("--accumulate", 1),
                        ("--steps", 20), ("--rounds", 3)):
        parser.add_argument(flag, type=int, default=value)
    parser.add_argument("--settle", type=float, default=5)
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    args = parser.parse_args()
    work = work_of(args)
    if args.peer:
        return print(json.dumps(one_peer(work, args.peer)))
    turns = {name: [] for name in PEERS}
    for _ in range(args.rounds):
        for name in PEERS:
            turns[name].append(take_turn(name))
            print(f"{name}: {turns[name][-1]}", file=sys.stderr)
    rows = [row_of(work, name, turns[name]) for name in PEERS]
    pathlib.Path(args.out).write_text(json.dumps({"workload": workload_of(work), "rounds": args.rounds,
                                                  "steps": args.steps, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
