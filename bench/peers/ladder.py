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
import sys

from side_by_side import in_own_process, print_peer
from transformers_step import SHAPE, Work, device_of, flops_per_token, measure, shape_of, versions

PEERS = ["eager", "grouped_mm"]


def work_of(args):
    return Work(shape=shape_of(args.model_config, args.layers), tokens=args.tokens, accumulate=args.accumulate,
                steps=args.steps, document_tokens=min(args.sequence_length, args.tokens), settle=args.settle,
                device=device_of(args.device))


def workload_of(work):
    """What the ladder compares with its own."""
    import torch
    return {"device": torch.cuda.get_device_name() if work.device == "cuda" else "CPU", "ranks": 1,
            "tokens": work.tokens, "accumulate": work.accumulate, "document_tokens": work.document_tokens,
            "balanced": False, "max_grad_norm": 0, "model": {key: work.shape[key] for key in SHAPE}}


def row_of(work, name, turns):
    row = {"name": f"transformers {name}", "peer": True,
           "versions": ", ".join(f"{program} {version}" for program, version in versions().items())}
    failed = [turn["failed"] for turn in turns if "failed" in turn]
    if failed:
        return row | {"skipped": failed[0]}
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
        return print_peer(lambda: measure(work, args.peer))
    turns = {name: [] for name in PEERS}
    for _ in range(args.rounds):
        for name in PEERS:
            turns[name].append(in_own_process(name))
            print(f"{name}: {turns[name][-1]}", file=sys.stderr)
    rows = [row_of(work, name, turns[name]) for name in PEERS]
    pathlib.Path(args.out).write_text(json.dumps({"workload": workload_of(work), "rounds": args.rounds,
                                                  "steps": args.steps, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
