#!/usr/bin/env python3
"""The peer's side of bench/cpu_step, which see: transformers' training step on the CPU.

    cpu_step.py data TOKENIZER TEXT.jsonl OUT.jsonl STEPS     documents of exactly SEQUENCE tokens, ROWS a step
    cpu_step.py step CHECKPOINT DATA.jsonl IMPLEMENTATION     one JSON object: every step's loss and tokens/s
    cpu_step.py report CHECKPOINT COMMAND MIXTUNE_VERSION NAME=FILE...      FILE: what `step` printed, or metrics.jsonl
"""
import datetime
import json
import os
import pathlib
import platform
import statistics
import sys
import time

ROWS, SEQUENCE, WARMUP = 8, 256, 5


def data(tokenizer, text, out, steps):
    """The example's text, end to end, cut into documents of one length: so that no side gains by packing."""
    import sentencepiece
    encode = sentencepiece.SentencePieceProcessor(model_file=tokenizer).encode
    records = map(json.loads, open(text, encoding="utf-8"))
    stream = [token for r in records for token in [1, *encode(f"{r['input']}: {r['output']}"), 2]]
    documents = int(steps) * ROWS
    assert len(stream) >= documents * SEQUENCE, "not enough text for that many steps"
    with open(out, "w", encoding="utf-8") as lines:
        for d in range(documents):
            lines.write(json.dumps({"input_ids": stream[d * SEQUENCE:(d + 1) * SEQUENCE]}) + "\n")


def step(checkpoint, tokens, implementation):
    """fp32, sdpa attention, auxiliary loss, clipping, fused AdamW: transformers and torch at their best."""
    import torch
    import transformers
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    model = transformers.MixtralForCausalLM.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="sdpa", experts_implementation=implementation)
    assert model.config._experts_implementation == implementation
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0, fused=True)
    documents = torch.tensor([json.loads(line)["input_ids"] for line in open(tokens, encoding="utf-8")])
    losses, speeds = [], []
    for ids in documents.split(ROWS):
        start = time.perf_counter()
        loss = model(input_ids=ids, labels=ids, output_router_logits=True, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        speeds.append(ids.numel() / (time.perf_counter() - start))
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    print(json.dumps({"losses": losses, "tokens_per_second": speeds, "versions": versions}))


def flops_per_token(c):
    """Model FLOPs of forward and backward, causal attention counted half (docs/design.md, section 6)."""
    h, q, kv = c["hidden_size"], c["num_attention_heads"] * c["head_dim"], c["num_key_value_heads"] * c["head_dim"]
    layer = h * (q + 2 * kv) + q * SEQUENCE + q * h + 3 * c["num_experts_per_tok"] * h * c["intermediate_size"]
    return 6 * (c["num_hidden_layers"] * layer + h * c["vocab_size"])


def read_run(path):
    """Losses, speeds and versions, from what `step` printed or from mixtune's metrics.jsonl."""
    if not path.endswith("metrics.jsonl"):
        run = json.loads(pathlib.Path(path).read_text())
        return run["losses"], run["tokens_per_second"], run["versions"]
    steps = [s for s in map(json.loads, open(path, encoding="utf-8")) if "tokens_per_second" in s and "loss" in s]
    return [s["loss"] for s in steps], [s["tokens_per_second"] for s in steps], {}


def machine():
    cpu = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    return {"cpu": cpu, "cores": os.cpu_count(), "threads": int(os.environ["OMP_NUM_THREADS"]),
            "system": platform.platform()}


def report(checkpoint, command, version, *runs):
    """The median step of each side over all its runs, warm-up left out; JSON to standard output, a table beside it."""
    losses, speeds, versions = {}, {}, {"mixtune": version}
    for run in runs:
        name, path = run.split("=", 1)
        losses[name], run_speeds, run_versions = read_run(path)
        speeds.setdefault(name, []).append(run_speeds[WARMUP:])
        versions |= run_versions
    gflops = flops_per_token(json.loads((pathlib.Path(checkpoint) / "config.json").read_text())) / 1e9
    figures = {}
    for name, several in speeds.items():
        median = statistics.median(speed for one in several for speed in one)
        figures[name] = {"tokens_per_second": round(median), "model_gflops": round(median * gflops, 1),
                         "each_run": [round(statistics.median(one)) for one in several],
                         "first_loss": losses[name][0], "last_loss": losses[name][-1]}
    best = max(figures["eager"]["tokens_per_second"], figures["grouped_mm"]["tokens_per_second"])
    ratio = round(figures["mixtune"]["tokens_per_second"] / best, 3)
    print(json.dumps({
        "what": f"training step, fp32, {ROWS} documents of {SEQUENCE} tokens, AdamW, clipping, auxiliary loss",
        "date": datetime.date.today().isoformat(), "machine": machine(), "versions": versions, "command": command,
        "timed_steps_a_run": len(speeds["mixtune"][0]), "figures": figures, "ratio_to_better_peer": ratio}, indent=2))
    for name, f in figures.items():
        print(f"{name:12} {f['tokens_per_second']:7,} tokens/s  {f['model_gflops']:6} GFLOP/s  runs {f['each_run']}  "
              f"loss {f['first_loss']:.5f} -> {f['last_loss']:.5f}", file=sys.stderr)
    print(f"mixtune / better peer: {ratio}", file=sys.stderr)


if __name__ == "__main__":
    {"data": data, "step": step, "report": report}[sys.argv[1]](*sys.argv[2:])
