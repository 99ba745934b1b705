#!/usr/bin/env python3
"""Checks that llama.cpp's converter finds in exported folders what it looks for: every tensor has a name in GGUF.

    python scripts/check_gguf_names.py FOLDER...      needs gguf (0.19 was tried)

Reads config.json, the index and the headers of the weights, no weights. Does what convert_hf_to_gguf.py does with the
names of a MixtralForCausalLM: puts the experts of a layer together, then asks gguf's TensorNameMap. Exit status 1 where
a tensor has no name, an expert is missing, a shape is not its config's, or a file that the converter opens is not there.
"""
import json
import pathlib
import re
import struct
import sys

import gguf

EXPERT = re.compile(r"model\.layers\.(\d+)\.block_sparse_moe\.experts\.(\d+)\.(w[123])\.weight")


def read_headers(folder):
    """Shapes of all tensors, by name."""
    index = folder / "model.safetensors.index.json"
    files = set(json.loads(index.read_text())["weight_map"].values()) if index.exists() else {"model.safetensors"}
    shapes = {}
    for file in files:
        with open(folder / file, "rb") as stream:
            header = json.loads(stream.read(struct.unpack("<Q", stream.read(8))[0]))
        for name, entry in header.items():
            if name != "__metadata__":
                shapes[name] = tuple(entry["shape"])
    return shapes


def with_experts_together(shapes, config, faults):
    """The names and shapes that the converter maps; experts of a layer are one tensor with one dimension more."""
    together, experts = {}, {}
    for name, shape in shapes.items():
        if match := EXPERT.fullmatch(name):
            layer, expert, matrix = match.groups()
            experts.setdefault((int(layer), matrix), {})[int(expert)] = shape
        else:
            together[name] = shape
    wanted = set(range(config["num_local_experts"]))
    for layer in range(config["num_hidden_layers"]):
        for matrix in ("w1", "w2", "w3"):
            found = experts.pop((layer, matrix), {})
            if set(found) != wanted or len(set(found.values())) != 1:
                faults.append(f"layer {layer}: {matrix} of experts {sorted(found)}, of shapes {set(found.values())}")
                continue
            together[f"layers.{layer}.feed_forward.experts.{matrix}.weight"] = (len(found), *found[0])
    faults += [f"layer {layer}: {matrix} of a layer too many" for layer, matrix in experts]
    return together


def gguf_shapes(config):
    """What shapes a model of this configuration has, by the end of the GGUF name."""
    hidden, ffn, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads, experts = config["num_attention_heads"], config["num_local_experts"]
    head_dim = config.get("head_dim") or hidden // heads
    kv = config["num_key_value_heads"] * head_dim
    return {"token_embd": (vocab, hidden), "output": (vocab, hidden), "output_norm": (hidden,),
            "attn_norm": (hidden,), "ffn_norm": (hidden,), "attn_q": (heads * head_dim, hidden), "attn_k": (kv, hidden),
            "attn_v": (kv, hidden), "attn_output": (hidden, heads * head_dim), "ffn_gate_inp": (experts, hidden),
            "ffn_gate_exps": (experts, ffn, hidden), "ffn_up_exps": (experts, ffn, hidden),
            "ffn_down_exps": (experts, hidden, ffn)}


def check(folder):
    """Lines about what is wrong with a folder."""
    faults = []
    config = json.loads((folder / "config.json").read_text())
    if config.get("architectures") != ["MixtralForCausalLM"]:
        faults.append(f"config.json: architectures is {config.get('architectures')}")
    if not any((folder / name).exists() for name in ("tokenizer.model", "tokenizer.json")):
        faults.append("neither tokenizer.model nor tokenizer.json")
    layers = config["num_hidden_layers"]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, layers)
    wanted = gguf_shapes(config)
    mapped = {}
    for name, shape in with_experts_together(read_headers(folder), config, faults).items():
        new = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if new is None:
            faults.append(f"{name} has no name in GGUF")
            continue
        mapped[new] = name
        if shape != wanted.get(new.removesuffix(".weight").split(".")[-1]):
            faults.append(f"{name} has shape {shape}")
    expected = layers * (len(wanted) - 3) + 3 - bool(config.get("tie_word_embeddings"))
    if len(mapped) != expected:
        faults.append(f"{len(mapped)} tensors in GGUF, of {expected}")
    print(f"{folder}: {len(mapped)} tensors in GGUF, {len(faults)} faults")
    return [f"{folder}: {fault}" for fault in faults]


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    faults = [fault for folder in sys.argv[1:] for fault in check(pathlib.Path(folder))]
    print(*faults, sep="\n", end="\n" if faults else "")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
