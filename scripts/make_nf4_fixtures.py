#!/usr/bin/env python3
"""Writes tests/fixtures/nf4/: a tiny Mixtral in bitsandbytes' 4 bits, and what bitsandbytes makes of it.

    python scripts/make_nf4_fixtures.py      needs torch, safetensors and bitsandbytes, on the CPU

  config.json, model.safetensors   the folder, as transformers 4 writes one: every nn.Linear but the head is in NF4,
                                   each expert's and the router's too
  expected.safetensors             of each of those X: "X", as dequantize_4bit gives it; "X.given", what was quantised;
                                   and "dynamic_map", create_dynamic_map's
  blockwise.safetensors            numbers, and the codes and absmax that quantize_blockwise makes of blocks of 256

A checkpoint has one type and one kind of statistics; here each tensor has its own (CASES), so that one small folder has
all. A row of w2 is no whole number of blocks: bitsandbytes 0.50.2's kernel for CPUs takes other blocks' absmax then,
and its plain PyTorch implementation is called instead.
"""
import json
import pathlib
import shutil

import bitsandbytes
import bitsandbytes.functional as bnb
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
import safetensors.torch
import torch

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "nf4"
HIDDEN, FFN, EXPERTS, VOCAB, HEADS, KV_HEADS = 64, 32, 2, 24, 4, 1
CONFIG = dict(
    architectures=["MixtralForCausalLM"], model_type="mixtral", hidden_size=HIDDEN, intermediate_size=FFN,
    num_hidden_layers=1, num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, num_local_experts=EXPERTS,
    num_experts_per_tok=2, vocab_size=VOCAB, max_position_embeddings=128, rope_theta=10000.0, rms_norm_eps=1e-5,
    hidden_act="silu", sliding_window=None, tie_word_embeddings=False, router_aux_loss_coef=0.02,
    initializer_range=0.02, torch_dtype="bfloat16", transformers_version="4.57.0", bos_token_id=1, eos_token_id=2,
    quantization_config=dict(
        quant_method="bitsandbytes", _load_in_4bit=True, _load_in_8bit=False, load_in_4bit=True, load_in_8bit=False,
        bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype="bfloat16",
        bnb_4bit_quant_storage="uint8", llm_int8_enable_fp32_cpu_offload=False, llm_int8_has_fp16_weight=False,
        llm_int8_skip_modules=None, llm_int8_threshold=6.0))
BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32
LAYER = "model.layers.0."
ATTENTION, MOE = LAYER + "self_attn.", LAYER + "block_sparse_moe."


def ties(shape, generator):
    """Numbers between two codes, and their neighbours, in blocks whose absmax is 1."""
    codes = bnb.get_4bit_type("nf4", device="cpu")
    middles = (codes[:-1] + codes[1:]) / 2
    two, minus_two = torch.full_like(middles, 2), torch.full_like(middles, -2)
    some = torch.cat([middles, middles.nextafter(two), middles.nextafter(minus_two), codes])
    block = torch.cat([some, torch.zeros(64 - len(some) - 1), torch.ones(1)])[:64]
    return block.repeat(shape[0] * shape[1] // 64).reshape(shape)


def outliers(shape, generator):
    x = torch.randn(shape, generator=generator)
    x.view(-1)[::97] *= 1000
    return x


def zero_blocks(shape, generator):
    x = torch.randn(shape, generator=generator) * 0.02
    x.view(-1)[64:192] = 0
    return x


def normal(shape, generator):
    return torch.randn(shape, generator=generator) * 0.02


def tiny(shape, generator):
    return torch.randn(shape, generator=generator) * 1e-6


# of each tensor: the shape, what it is drawn by, its type, the bits of its statistics, the type of its storage
CASES = {
    ATTENTION + "q_proj.weight": ([HIDDEN, HIDDEN], outliers, BF16, 8, torch.uint8),
    ATTENTION + "k_proj.weight": ([HIDDEN // 4, HIDDEN], ties, F32, 32, torch.uint8),
    ATTENTION + "v_proj.weight": ([HIDDEN // 4, HIDDEN], zero_blocks, F16, 8, torch.uint8),
    ATTENTION + "o_proj.weight": ([HIDDEN, HIDDEN], normal, BF16, 8, BF16),
    MOE + "gate.weight": ([EXPERTS, HIDDEN], normal, BF16, 8, torch.uint8),
    MOE + "experts.0.w1.weight": ([FFN, HIDDEN], normal, BF16, 8, torch.uint8),
    MOE + "experts.0.w2.weight": ([HIDDEN, FFN], normal, BF16, 32, torch.uint8),
    MOE + "experts.0.w3.weight": ([FFN, HIDDEN], zero_blocks, BF16, 32, torch.uint8),
    MOE + "experts.1.w1.weight": ([FFN, HIDDEN], normal, F16, 32, torch.uint8),
    MOE + "experts.1.w2.weight": ([HIDDEN, FFN], tiny, F16, 8, torch.uint8),
    MOE + "experts.1.w3.weight": ([FFN, HIDDEN], outliers, F32, 8, torch.uint8),
}


def dequantised(codes, state):
    if state.shape[-1] % state.blocksize == 0:
        return bnb.dequantize_4bit(codes, state)
    absmax = bnb.dequantize_blockwise(state.absmax, state.state2) + state.offset if state.nested else state.absmax
    return _dequantize_4bit_compute(codes.flatten(), absmax, state.code, state.blocksize, state.shape, state.dtype)


def quantised(name, case, generator):
    shape, draw, dtype, bits, storage = case
    given = draw(shape, generator).to(dtype)
    codes, state = bnb.quantize_4bit(given, blocksize=64, compress_statistics=bits == 8, quant_type="nf4",
                                     quant_storage=storage)
    parts = {name: codes} | {f"{name}.{key}": part for key, part in state.as_dict(packed=True).items()}
    return parts, {name: dequantised(codes, state), name + ".given": given}


def blockwise(generator):
    """Blocks of 256 with numbers of all sizes, and with those between two codes."""
    codes = bnb.create_dynamic_map()
    middles = (codes[:-1] + codes[1:]) / 2
    sizes = torch.randn(2048, generator=generator) * 10.0 ** torch.randint(-7, 0, (2048,), generator=generator)
    x = torch.cat([torch.randn(2048, generator=generator) * 0.01, sizes, middles, torch.ones(1), torch.zeros(256),
                   torch.rand(77, generator=generator)])
    quantised, state = bnb.quantize_blockwise(x, blocksize=256)
    return {"x": x, "codes": quantised, "absmax": state.absmax}


def main():
    generator = torch.Generator().manual_seed(20261130)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    model = {"model.embed_tokens.weight": normal([VOCAB, HIDDEN], generator).to(BF16),
             "lm_head.weight": normal([VOCAB, HIDDEN], generator).to(BF16)}
    for norm in ("model.norm.weight", LAYER + "input_layernorm.weight", LAYER + "post_attention_layernorm.weight"):
        model[norm] = torch.ones(HIDDEN, dtype=BF16)
    expected = {"dynamic_map": bnb.create_dynamic_map()}
    for name, case in CASES.items():
        parts, values = quantised(name, case, generator)
        model |= parts
        expected |= values
    for name, tensors in (("model", model), ("expected", expected), ("blockwise", blockwise(generator))):
        metadata = {"format": "pt", "bitsandbytes": bitsandbytes.__version__, "torch": torch.__version__}
        tensors = {key: tensor.clone().contiguous() for key, tensor in tensors.items()}
        safetensors.torch.save_file(tensors, OUT / f"{name}.safetensors", metadata=metadata)
    (OUT / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")


if __name__ == "__main__":
    main()
