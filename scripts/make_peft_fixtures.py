#!/usr/bin/env python3
"""Writes tests/fixtures/peft/NAME/: adapters as PEFT saves them, and the weights' deltas as PEFT computes them.

    python scripts/make_peft_fixtures.py      needs torch, transformers 5 and a PEFT of one of the versions in CASES

Makes the folders of the PEFT that is installed; run it once with each version (`pip install --target DIR peft==0.18.1`,
then PYTHONPATH=DIR). All are of the model in tests/fixtures/hf/plain, with random A and B.
  adapter_config.json, adapter_model.safetensors   what save_pretrained wrote (of `hub`: what it is given to load)
  expected.safetensors                             get_delta_weight's values, by the hub's names of the weights; and
                                                   the weights that are trained whole
"""
import json
import pathlib
import shutil

import peft
import safetensors.torch
import torch
import transformers
from peft.utils import ModulesToSaveWrapper

FIXTURES = pathlib.Path(__file__).resolve().parent.parent / "tests" / "fixtures"
BASE = FIXTURES / "hf" / "plain"
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]

# By the version of PEFT: what LoraConfig is given beside BASICS.
CASES = {
    "0.18.1": {
        "packed_old": dict(target_modules=["q_proj", "o_proj"], target_parameters=EXPERTS,
                           rank_pattern={"layers.1.self_attn.q_proj": 3}, alpha_pattern={"o_proj": 5})},
    "0.20.0": {
        "packed": dict(target_modules=["v_proj"], target_parameters=EXPERTS, use_rslora=True),
        "one_parameter": dict(target_modules=["k_proj"], target_parameters=["gate_up_proj", "mlp.gate.weight"])},
    "0.21.2": {
        "whole": dict(target_modules=["q_proj"], modules_to_save=["gate", "lm_head", "embed_tokens", "norm"]),
        "no_pairs": dict(target_modules="dummy-target-modules", modules_to_save=["gate", "model.norm"]),
        "gate": dict(target_modules=["o_proj", "gate"]),
        "embedding": dict(target_modules=["k_proj", "embed_tokens"], rank_pattern={"embed_tokens": 3},
                          alpha_pattern={"embed_tokens": 5}),
        "head": dict(target_modules=["v_proj", "lm_head"], rank_pattern={"lm_head": 3}),
        "double_rank": dict(target_modules=["q_proj", "w1", "w2", "w3"]),
        "attention": dict(target_modules=ATTENTION, use_rslora=True,
                          rank_pattern={r"layers\.1\.self_attn\.(q|k)_proj": 2, "o_proj": 6},
                          alpha_pattern={"^model.layers.0.self_attn.q_proj": 32})}}
BASICS = dict(r=4, lora_alpha=8, task_type="CAUSAL_LM")
HUB_VERSION = "0.21.2"


def base_model():
    return transformers.MixtralForCausalLM.from_pretrained(BASE, dtype=torch.float32)


def randomise(model):
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)


def deltas(model):
    """get_delta_weight of every wrapper, by the hub's name of each weight that it changes; and each weight that is
    trained whole."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, ModulesToSaveWrapper):
            name = name.removeprefix("base_model.model.").replace(".mlp.", ".block_sparse_moe.")
            found[f"{name}.weight"] = module.modules_to_save["default"].weight.detach().clone()
        if not hasattr(module, "get_delta_weight"):
            continue
        delta = module.get_delta_weight("default").detach()
        name = name.removeprefix("base_model.model.").replace(".base_layer", "").replace(".mlp.", ".block_sparse_moe.")
        if delta.dim() == 2:
            found[f"{name}.weight"] = delta
            continue
        rows = delta.shape[1] // 2
        for expert, part in enumerate(delta):
            if module.parameter_name == "gate_up_proj":
                found[f"{name}.{expert}.w1.weight"] = part[:rows]
                found[f"{name}.{expert}.w3.weight"] = part[rows:]
            else:
                found[f"{name}.{expert}.w2.weight"] = part
    return {name: value.contiguous() for name, value in found.items()}


def save(tensors, path):
    safetensors.torch.save_file(tensors, path)
    path.chmod(0o644)


def make(name, settings):
    out = FIXTURES / "peft" / name
    model = peft.get_peft_model(base_model(), peft.LoraConfig(**BASICS, **settings))
    randomise(model)
    finish(model, out)


def finish(model, out):
    shutil.rmtree(out, ignore_errors=True)
    model.save_pretrained(out)
    (out / "README.md").unlink(missing_ok=True)
    config = json.loads((out / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "tests/fixtures/hf/plain"
    for key in ("target_modules", "target_parameters"):
        if isinstance(config.get(key), list):
            config[key].sort()  # sets
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (out / "adapter_model.safetensors").chmod(0o644)
    save(deltas(model), out / "expected.safetensors")


def hub_tensors(settings, shapes):
    """Pairs of every expert, as PEFT and transformers 4 name them."""
    generator = torch.Generator().manual_seed(8)
    tensors = {}
    for name, (rows, columns) in shapes.items():
        module = "base_model.model." + name.removesuffix(".weight")
        for factor, shape in (("A", (settings["r"], columns)), ("B", (rows, settings["r"]))):
            tensors[f"{module}.lora_{factor}.weight"] = torch.randn(shape, generator=generator) * 0.2
    return tensors


def make_hub():
    """A file with a pair for each expert, which PEFT converts as it loads."""
    out = FIXTURES / "peft" / "hub"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    settings = dict(BASICS, target_modules=["q_proj", "w1", "w2", "w3", "gate"])
    with safetensors.safe_open(BASE / "model.safetensors", "pt") as base:
        shapes = {name: base.get_slice(name).get_shape() for name in base.keys()
                  if any(f".{module}." in name for module in settings["target_modules"])}
    config = dict(settings, peft_type="LORA", base_model_name_or_path="tests/fixtures/hf/plain", lora_dropout=0.05,
                  bias="none", inference_mode=True)
    tensors = hub_tensors(settings, shapes)
    # PEFT >= 0.20 has no dropout of experts: it is given the same without.
    (out / "adapter_config.json").write_text(json.dumps(dict(config, lora_dropout=0.0)))
    save(tensors, out / "adapter_model.safetensors")
    model = peft.PeftModel.from_pretrained(base_model(), out)
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    save(deltas(model), out / "expected.safetensors")
    finish(model, FIXTURES / "peft" / "block_diagonal")  # the same, as PEFT holds it then


def main():
    cases = CASES.get(peft.__version__)
    if not cases:
        raise SystemExit(f"PEFT {peft.__version__} makes no fixture; these do: {', '.join(CASES)}")
    for name, settings in cases.items():
        make(name, settings)
    if peft.__version__ == HUB_VERSION:
        make_hub()


if __name__ == "__main__":
    main()
