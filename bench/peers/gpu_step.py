#!/usr/bin/env python3
"""A training step of Mixtral's shape on one GPU: mixtune beside transformers, one after the other, in one run.

    gpu_step.py --mixtune build/mixtune --layers 2 --sequence-length 4096 --tokens 16384 --mode forward-backward \\
                [--peers eager,grouped_mm,grouped_mm+compile] [--json FILE] [-- more flags for 'mixtune bench']

The peers' convention (docs/design.md, section 6): documents of exactly --sequence-length tokens, random weights and
tokens, bf16 weights, gradients and optimizer state, no clipping, five seconds of steps before the timed ones, the median
of 20. Model FLOPs are those of `mixtune bench step`.
"""
import argparse

from side_by_side import in_own_process, mixtune_step, print_peer, report
from transformers_step import MIXTRAL_8X7B, Work, flops_per_token, measure

PEERS_CONVENTION = ["--precision", "bf16", "--gradient_dtype", "bf16", "--optimizer_state_dtype", "bf16",
                    "--master_weights", "none"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixtune", required=True)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--sequence-length", type=int, default=4096)
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--mode", choices=["forward", "forward-backward", "step"], default="step")
    parser.add_argument("--peers", default="eager,grouped_mm,grouped_mm+compile")
    parser.add_argument("--json")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("more", nargs="*")
    args = parser.parse_args()
    work = Work(shape=dict(MIXTRAL_8X7B, num_hidden_layers=args.layers), tokens=args.tokens,
                document_tokens=args.sequence_length, mode=args.mode)
    if args.peer:
        return print_peer(lambda: measure(work, args.peer))

    figures = {"mixtune": mixtune_step(args.mixtune, [
        "--layers", args.layers, "--sequence-length", args.sequence_length, "--tokens", args.tokens, "--mode", args.mode,
        *PEERS_CONVENTION, *args.more])}
    for name in filter(None, args.peers.split(",")):
        figures[f"transformers {name}"] = in_own_process(name)
    flops = flops_per_token(work) * args.tokens
    for figure in figures.values():
        if "milliseconds" in figure:
            figure["model_tflops"] = flops / figure["milliseconds"] / 1e9
    report(figures, lambda f: f"{f['milliseconds']:9.2f} ms {f['model_tflops']:7.1f} TFLOP/s", args.json,
           layers=args.layers, tokens=args.tokens, sequence_length=args.sequence_length, mode=args.mode)


if __name__ == "__main__":
    main()
