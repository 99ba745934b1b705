#!/usr/bin/env python3
"""Writes tests/fixtures/eight_bit/: training in 8-bit precision, emulated inside transformers' model.

    python scripts/make_eight_bit_fixtures.py      needs torch and transformers

One tiny Mixtral whose dimensions no block of a scale divides, and whose activations and weights are large and small by
turns along the hidden dimension, so that it matters which elements share a scale; and one run of it for each of
mixtune's settings:
  config.json, model.safetensors, train.jsonl, train.yaml   as make_hf_fixtures.py has them
  expected.json                {"runs": [{"name", "settings": mixtune's keys, "steps": [figures]}], versions}

The layers' matrix products, forward and backward, multiply operands that were cast to torch's float8 types and back, as
docs/eight-bit.md defines it; all else is fp32. The routing weight multiplies before the cast. Query, key and value are
one product. Weights and data are redrawn until no router's choice is close.
"""
import json
import pathlib
import platform
import shutil

import safetensors
import torch
import transformers

import make_hf_fixtures as hf

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "eight_bit"
E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
CALM = 0.2  # of make_hf_fixtures' weights: one rounding that falls the other way must not change much
ALL = 0  # rows or columns share one scale

hf.STEPS, hf.MIN_ROUTER_GAP = 6, 1e-4
FIXTURE = hf.Fixture(
    "eight_bit",
    dict(hidden_size=136, intermediate_size=132, num_attention_heads=4, head_dim=34, num_key_value_heads=2,
         num_local_experts=3, vocab_size=64, num_hidden_layers=1, max_position_embeddings=512),
    dict(max_steps=hf.STEPS, max_seq_length=256, learning_rate=5e-6, gradient_accumulation_steps=3), lengths=(200, 256), masked=0.2,
    dtype=torch.bfloat16)


def draw_model(generator):
    model = hf.draw_model(FIXTURE, generator)
    hidden = model.config.hidden_size
    sizes = torch.exp2(torch.where(torch.arange(hidden) // 34 % 2 == 0, 6.0, -6.0)).to(FIXTURE.dtype)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "mlp.gate" not in name:
                weight *= CALM
        for layer in model.model.layers:
            for norm in (layer.input_layernorm, layer.post_attention_layernorm):
                norm.weight *= sizes
            attention, moe = layer.self_attn, layer.mlp
            for weight in (attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight, moe.gate.weight,
                           moe.experts.gate_up_proj):
                weight /= sizes
    return model


class Numerics:
    """Of each product's operands the blocks that share a scale, and their type."""

    def __init__(self, scaling, power_of_two):
        self.scaling, self.power_of_two = scaling, power_of_two

    def blocks(self, product, operand):
        if self.scaling == "tensor":
            return ALL, ALL
        length = 32 if self.scaling == "mx" else 128
        if self.scaling == "block" and operand == "right":
            return length, length
        along_columns = product == "forward" or (product == "data" and operand == "left")
        return (1, length) if along_columns else (length, 1)

    def cast(self, x, product, operand):
        kind = E5M2 if self.scaling == "tensor" and product != "forward" and operand == "left" else E4M3
        largest = torch.finfo(kind).max
        rows, columns = (size if size else max(whole, 1) for size, whole in zip(self.blocks(product, operand), x.shape))
        padded = torch.nn.functional.pad(x, (0, -x.shape[1] % columns, 0, -x.shape[0] % rows))
        tiles = padded.reshape(padded.shape[0] // rows, rows, padded.shape[1] // columns, columns)
        amax = tiles.abs().amax(dim=(1, 3), keepdim=True)
        if self.power_of_two:
            mantissa, exponent = torch.frexp(amax / largest)  # amax / largest = mantissa * 2^exponent, in [1/2, 1)
            scale = torch.exp2((exponent - (mantissa == 0.5).int()).float())
        else:
            scale = (amax.double() / largest).float()
        scale = torch.where(amax == 0, torch.ones_like(scale), scale)
        narrow = (tiles / scale).clamp(-largest, largest).to(kind)
        return (narrow.float() * scale).reshape(padded.shape)[: x.shape[0], : x.shape[1]]


def product_of(numerics):
    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight):
            ctx.save_for_backward(x, weight)
            return numerics.cast(x, "forward", "left") @ numerics.cast(weight, "forward", "right").T

        @staticmethod
        def backward(ctx, dy):
            x, weight = ctx.saved_tensors
            dx = numerics.cast(dy, "data", "left") @ numerics.cast(weight, "data", "right")
            dweight = numerics.cast(dy, "weight", "left").T @ numerics.cast(x, "weight", "right")
            return dx, dweight

    return Product.apply


def emulate(model, numerics):
    """Has the layers' products done in 8 bits."""
    product = product_of(numerics)

    def flat(x, weight):
        return product(x.flatten(0, -2), weight).unflatten(0, x.shape[:-1])

    def patch_attention(attention):
        projections = [attention.q_proj, attention.k_proj, attention.v_proj]
        last = {}

        def part(i):
            def forward(x):
                if i == 0:
                    sizes = [p.weight.shape[0] for p in projections]
                    last["parts"] = flat(x, torch.cat([p.weight for p in projections])).split(sizes, dim=-1)
                return last["parts"][i]

            return forward

        for i, projection in enumerate(projections):
            projection.forward = part(i)
        attention.o_proj.forward = lambda x: flat(x, attention.o_proj.weight)

    def patch_experts(experts):
        def forward(x, chosen, weights):
            out = torch.zeros_like(x)
            for e in range(len(experts.down_proj)):
                token, slot = torch.where(chosen == e)
                if len(token) == 0:
                    continue
                gate, up = product(x[token], experts.gate_up_proj[e]).chunk(2, dim=-1)
                act = torch.nn.functional.silu(gate) * up * weights[token, slot, None]
                out = out.index_add(0, token, product(act, experts.down_proj[e]))
            return out

        experts.forward = forward

    for layer in model.model.layers:
        patch_attention(layer.self_attn)
        patch_experts(layer.mlp.experts)
    return model


RUNS = [
    ("mxfp8", dict(precision="mxfp8"), Numerics("mx", True)),
    ("fp8_block", dict(precision="fp8"), Numerics("block", True)),
    ("fp8_block_fp32_scales", dict(precision="fp8", fp8_power_of_two_scales=False), Numerics("block", False)),
    ("fp8_tensor", dict(precision="fp8", fp8_scaling="tensor"), Numerics("tensor", True)),
    ("fp8_tensor_fp32_scales", dict(precision="fp8", fp8_scaling="tensor", fp8_power_of_two_scales=False),
     Numerics("tensor", False)),
    ("fp32", dict(precision="fp32"), None),
]


def make(seed):
    generator = torch.Generator().manual_seed(seed)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    hf.save_checkpoint(FIXTURE, draw_model(generator), OUT)
    steps = hf.draw_documents(FIXTURE, generator)
    runs, gaps = [], []
    for name, settings, numerics in RUNS:
        model = hf.load_checkpoint(OUT)
        if numerics:
            emulate(model, numerics)
        records, _, gap = hf.train_reference(FIXTURE, model, steps)
        runs.append(dict(name=name, settings=settings, steps=records))
        gaps.append(gap)
    hf.write_documents(OUT / "train.jsonl", steps)
    hf.write_settings(FIXTURE, OUT)
    versions = {"python": platform.python_version(), "torch": torch.__version__,
                "transformers": transformers.__version__, "safetensors": safetensors.__version__}
    expected = dict(versions=versions, seed=seed, min_router_gap=min(gaps), runs=runs)
    (OUT / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    return expected


def main():
    expected = hf.first_clear(FIXTURE.name, make)
    print(f"seed {expected['seed']}, router gap {expected['min_router_gap']:.1e}")
    for run in expected["runs"]:
        print(f"{run['name']:24}", " ".join(f"{step['loss']:.5f}/{step['grad_norm']:.4f}" for step in run["steps"]))


if __name__ == "__main__":
    main()
