#!/usr/bin/env python3
"""A training step of LoRA and of QLoRA of Mixtral's shape, rank 16 on attention and on every expert: transformers with
PEFT, and mixtune beside it where --mixtune names one, each a process of its own, by turns.

    lora_step.py --layers 4 --tokens 8192 --sequence-length 4096 [--mixtune build/mixtune] [--json FILE] [--rounds 2]
                 [--peers lora,lora+checkpointing,qlora,qlora+checkpointing] [-- more flags for 'mixtune bench step']

Random weights and tokens, documents of exactly --sequence-length tokens; forward, backward, the gradient's norm clipped
to 1 and AdamW; no dropout, no auxiliary loss; bf16 on a GPU (the pairs fp32 in PEFT, with fp32 masters in mixtune), fp32
on the CPU. Experts are computed by grouped_mm; PEFT has their pairs by target_parameters: a pair of rank 16 for each
expert and parameter, so that w1 and w3 share their A. "+checkpointing": every layer is computed again in backward.
"qlora" of the peers is what load_in_4bit makes of Mixtral: attention's projections in 4 bits, the packed experts as they
are (PEFT 0.21 has no pairs for a parameter that bitsandbytes holds in 4 bits); mixtune's has the experts in 4 bits too.
The memory is what PyTorch had allocated at most; of mixtune it is the device's, as CUDA counts it. The file is written
after each measurement; "milliseconds" is the median of the rounds.
"""
import argparse
import functools
import importlib.util
import os
import statistics

from side_by_side import in_own_process, mixtune_step, print_peer, report, write
from transformers_step import Work, device_of, make_model, make_step, measure_step, shape_of

RANK, ALPHA, CLIP = 16, 32, 1
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
EXPERTS = ["gate_up_proj", "down_proj"]
PEERS = ["lora", "lora+checkpointing", "qlora", "qlora+checkpointing"]


def in_four_bits(linear):
    """The projection as bitsandbytes has it: NF4, doubly quantised."""
    import bitsandbytes
    made = bitsandbytes.nn.Linear4bit(linear.in_features, linear.out_features, bias=False, device="meta",
                                      compute_dtype=linear.weight.dtype, quant_type="nf4")
    made.weight = bitsandbytes.nn.Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4")
    return made.to(linear.weight.device)


def quantise(model):
    """What load_in_4bit does: transformers' packed experts stay as they are."""
    for layer in model.model.layers:
        for name in ATTENTION:
            setattr(layer.self_attn, name, in_four_bits(getattr(layer.self_attn, name)))
    model.is_loaded_in_4bit = True  # PEFT asks for it


def make_adapters(work, adapter, checkpointing):
    import peft
    import torch
    model = make_model(work, "grouped_mm")
    if adapter == "qlora":
        quantise(model)
    model = peft.get_peft_model(model, peft.LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=ATTENTION, target_parameters=[f"mlp.experts.{name}" for name in EXPERTS],
        task_type="CAUSAL_LM"))
    check_pairs(work, model)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    if work.device == "cuda":  # what it was made of does not count
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return model


def check_pairs(work, model):
    """PEFT only warns of experts that it did not find. Its w1 and w3 share their A."""
    c = work.shape
    hidden, ffn, experts = c["hidden_size"], c["intermediate_size"], c["num_local_experts"]
    query, kv = c["num_attention_heads"] * c["head_dim"], c["num_key_value_heads"] * c["head_dim"]
    sides = 2 * (hidden + query) + 2 * (hidden + kv) + experts * (hidden + 2 * ffn + ffn + hidden)
    pairs = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if pairs != c["num_hidden_layers"] * RANK * sides:
        raise RuntimeError(f"PEFT has {pairs} elements of pairs, not those of attention and of every expert")


def measure(work, name):
    adapter, _, checkpointing = name.partition("+")
    return measure_step(work, make_step(work, make_adapters(work, adapter, bool(checkpointing))))


def versions_of_adapters():
    import peft
    import torch
    return {"peft": peft.__version__, "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"}


def mixtune(args, work, adapter):
    flags = ["--adapter", adapter, "--lora_r", RANK, "--layers", args.layers, "--tokens", args.tokens,
             "--sequence-length", args.sequence_length, "--steps", args.steps, "--settle", args.settle, "--clip", CLIP,
             "--device", work.device, "--precision", "bf16" if work.device == "cuda" else "fp32"]
    if args.model_config:
        flags += ["--model-config", args.model_config]
    figure = mixtune_step(args.mixtune, [*flags, *args.more])
    return figure | {"peak_bytes": figure["device_bytes"]}


def with_round(before, measure_once, tokens):
    """What the rounds before found, and one more; a peer that failed once is not asked again."""
    if before and "failed" in before:
        return before
    now = measure_once()
    if "failed" in now:
        return now
    rounds = [*(before["rounds_milliseconds"] if before else []), now["milliseconds"]]
    median = statistics.median(rounds)
    return now | {"milliseconds": median, "tokens_per_second": 1e3 * tokens / median, "rounds_milliseconds": rounds}


def line_of(figure, tokens):
    peak = figure["peak_bytes"]
    return (f"{1e3 * tokens / figure['milliseconds']:9.0f} tokens/s {figure['milliseconds']:9.2f} ms" +
            (f" {peak / 2**30:7.1f} GiB" if peak else ""))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixtune")
    parser.add_argument("--model-config", help="config.json of the shape; default: Mixtral 8x7B's")
    parser.add_argument("--device", default="auto")
    for flag, value in (("--layers", 4), ("--tokens", 8192), ("--sequence-length", 4096), ("--steps", 20),
                        ("--rounds", 2)):
        parser.add_argument(flag, type=int, default=value)
    parser.add_argument("--settle", type=float, default=5)
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--json")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("more", nargs="*")
    args = parser.parse_args()
    peers = args.peers.split(",")
    if unknown := set(peers) - set(PEERS):
        parser.error(f"--peers: {', '.join(sorted(unknown))}; use some of {', '.join(PEERS)}")
    if args.tokens % args.sequence_length:
        parser.error("--tokens: must be a multiple of --sequence-length")
    work = Work(shape=shape_of(args.model_config, args.layers), tokens=args.tokens, steps=args.steps, settle=args.settle,
                document_tokens=args.sequence_length, device=device_of(args.device), clip=CLIP)
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # as their users need it near the limit
    if args.peer:
        return print_peer(lambda: measure(work, args.peer), versions_of_adapters())
    if importlib.util.find_spec("bitsandbytes") is None:
        print("bitsandbytes is not installed: no QLoRA of transformers and PEFT")
        peers = [name for name in peers if not name.startswith("qlora")]

    measured = {}  # name: a function that measures it
    for adapter in dict.fromkeys(name.partition("+")[0] for name in args.peers.split(",")):
        if args.mixtune:
            measured[f"mixtune {adapter}"] = functools.partial(mixtune, args, work, adapter)
        for name in peers:
            if name.partition("+")[0] == adapter:
                measured[f"transformers, PEFT {name}"] = functools.partial(in_own_process, name)
    figures = {}
    facts = dict(layers=args.layers, tokens=args.tokens, sequence_length=args.sequence_length, rank=RANK, clip=CLIP,
                 steps=args.steps, rounds=args.rounds)
    for _ in range(args.rounds):
        for name, measure_once in measured.items():
            figures[name] = with_round(figures.get(name), measure_once, args.tokens)
            write(figures, args.json, **facts)
    report(figures, lambda figure: line_of(figure, args.tokens), args.json, **facts)


if __name__ == "__main__":
    main()
