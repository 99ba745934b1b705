#!/usr/bin/env python3
"""A training step of Mixtral's shape on one GPU: mixtune beside transformers, one after the other, in one run.

    gpu_step.py --mixtune build/mixtune --layers 2 --sequence-length 4096 --tokens 16384 --mode forward-backward \\
                [--peers eager,grouped_mm,grouped_mm+compile] [--json FILE] [-- more flags for 'mixtune bench']

The peers' convention (docs/design.md, section 6): documents of exactly --sequence-length tokens, random weights and
tokens, bf16 weights, gradients and optimizer state, no clipping, five seconds of steps before the timed ones, the median
of 20. Model FLOPs are those of `mixtune bench step`.
"""
import argparse
import datetime
import json
import pathlib
import subprocess
import sys
import tempfile

from transformers_step import MIXTRAL_8X7B, Work, flops_per_token, measure, versions

PEERS_CONVENTION = ["--precision", "bf16", "--gradient_dtype", "bf16", "--optimizer_state_dtype", "bf16",
                    "--master_weights", "none"]


def work_of(args):
    return Work(shape=dict(MIXTRAL_8X7B, num_hidden_layers=args.layers), tokens=args.tokens,
                document_tokens=args.sequence_length, mode=args.mode)


def one_peer(args, name):
    try:
        milliseconds, peak = measure(work_of(args), name)
    except Exception as error:  # out of memory, a backend that is missing: the others go on
        return {"failed": f"{type(error).__name__}: {error}"[:200]}
    return {"milliseconds": milliseconds, "peak_bytes": peak}


def mixtune(args):
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "bench.json"
        subprocess.run([args.mixtune, "bench", "step", "--layers", str(args.layers), "--sequence-length",
                        str(args.sequence_length), "--tokens", str(args.tokens), "--mode", args.mode, "--json", str(out),
                        *PEERS_CONVENTION, *args.more], check=True, stdout=sys.stderr)
        return json.loads(out.read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixtune", required=True)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--sequence-length", type=int, default=4096)
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--mode", choices=["forward", "forward-backward", "step"], default="step")
    parser.add_argument("--peers", default="eager,grouped_mm,grouped_mm+compile")
    parser.add_argument("--json")
    parser.add_argument("more", nargs="*")
    args = parser.parse_args()

    figures = {"mixtune": mixtune(args)}
    peers = [name for name in args.peers.split(",") if name]
    for name in peers:  # a process each, so that none inherits another's memory
        command = [sys.executable, __file__, "--peer-only", name, *sys.argv[1:]]
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        figures[f"transformers {name}"] = (json.loads(run.stdout.splitlines()[-1]) if run.returncode == 0
                                           else {"failed": f"exit {run.returncode}"})
    flops = flops_per_token(work_of(args)) * args.tokens
    for figure in figures.values():
        if "milliseconds" in figure:
            figure["model_tflops"] = flops / figure["milliseconds"] / 1e9
    for name, figure in figures.items():
        print(f"{name:34}" + (f"{figure['milliseconds']:9.2f} ms {figure['model_tflops']:7.1f} TFLOP/s"
                              if "milliseconds" in figure else f"  {figure['failed']}"))
    if args.json:
        report = {"date": datetime.date.today().isoformat(), "layers": args.layers, "tokens": args.tokens,
                  "sequence_length": args.sequence_length, "mode": args.mode, "figures": figures}
        pathlib.Path(args.json).write_text(json.dumps(report, indent=2) + "\n")


def peer_only():
    """--peer-only NAME before the other flags: one peer in this process, its figures as the last line."""
    name = sys.argv[2]
    del sys.argv[1:3]
    parser = argparse.ArgumentParser()
    for flag in ("--mixtune", "--peers", "--json"):
        parser.add_argument(flag)
    for flag, value in (("--layers", 2), ("--sequence-length", 4096), ("--tokens", 16384)):
        parser.add_argument(flag, type=int, default=value)
    parser.add_argument("--mode", default="step")
    parser.add_argument("more", nargs="*")
    figure = one_peer(parser.parse_args(), name)
    figure["versions"] = versions()
    print(json.dumps(figure))


if __name__ == "__main__":
    peer_only() if sys.argv[1:2] == ["--peer-only"] else main()
