#!/usr/bin/env python3
"""Writes tests/fixtures/lora/: training LoRA adapters with PEFT in transformers' model.

    python scripts/make_lora_fixtures.py      needs torch, transformers 5 and PEFT

The base is tests/fixtures/hf/plain. For each of RUNS six steps of two forwards, of several padded documents each:
  NAME/                  the adapter that the run begins with, A and B drawn, by the hub's names
  train.jsonl, train.yaml      the documents and the settings, less the paths
  expected.json          {"runs": [{"name", "settings": mixtune's keys, "steps": [figures]}], versions}
  expected.safetensors   of each run, by the names of an adapter's file, NAME.grad.* (first step, summed over its
                         forwards, before clipping) and NAME.weight.* (after the last step)

transformers holds the experts packed; PEFT would give w1 and w3 one A then, or a pair of twice the rank. So the experts'
weights are put into a Linear for each projection (Experts, below), which must not change the model's logits; all pairs
are PEFT's own lora.Linear of a Linear, lora.Embedding of the embedding, and of gates its ParamWrapper of the parameter.
The base is frozen but for what modules_to_save has PEFT train whole; where the gates are frozen, the auxiliary loss still
pulls the adapters through the hidden states that the gates see. That the adapter's folder means to PEFT what is trained here is checked
with PeftModel.from_pretrained. Adapters and data are redrawn until no router's choice is close. One thread, fp32.
"""
import json
import platform
import shutil

import peft
import safetensors.torch
import torch
import transformers
from peft.optimizers import create_loraplus_optimizer

import make_hf_fixtures as hf

FIXTURES = hf.OUT.parent
BASE, OUT = FIXTURES / "hf" / "plain", FIXTURES / "lora"
ACCUMULATION, DOCUMENTS, COEFFICIENT = 2, 4, 0.3

hf.STEPS = 6
FIXTURE = hf.Fixture(
    "lora", dict(router_aux_loss_coef=COEFFICIENT),
    dict(max_steps=hf.STEPS, per_device_train_batch_size=DOCUMENTS, gradient_accumulation_steps=ACCUMULATION,
         learning_rate=4e-3, lr_scheduler_type="cosine", warmup_steps=2, weight_decay=0.1, max_grad_norm=0.5,
         save_steps=hf.STEPS),
    masked=0.2, lengths=(4, 30))
BASICS = dict(lora_r=8, router_aux_loss_coef=COEFFICIENT)
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "w1", "w2", "w3"]
RUNS = [
    ("all_linear", BASICS | dict(lora_alpha=20, use_rslora=False, lora_target_modules=ALL)),
    ("rslora", BASICS | dict(lora_alpha=7, use_rslora=True, lora_target_modules=["q_proj", "v_proj"])),
    ("loraplus", BASICS | dict(lora_r=2, lora_alpha=5, use_rslora=False, lora_target_modules=ALL,
                               loraplus_lr_ratio=5)),
    ("whole", BASICS | dict(lora_alpha=20, use_rslora=False, lora_target_modules=["o_proj", "w1", "w2", "w3"],
                            modules_to_save=["gate", "lm_head", "embed_tokens", "norm"])),
    ("head", BASICS | dict(lora_alpha=20, use_rslora=False, lora_target_modules=["v_proj", "lm_head"])),
    ("gate", BASICS | dict(lora_alpha=20, use_rslora=False, lora_target_modules=["q_proj", "gate"])),
    ("embedding", BASICS | dict(lora_alpha=20, use_rslora=False, lora_target_modules=["v_proj", "embed_tokens"],
                                loraplus_lr_ratio=5, lr_groups=dict(embeddings="1e-3"))),
]


# The model -----------------------------------------------------------------------------------------------------------


class Experts(torch.nn.ModuleList):
    """The experts of a layer, with a Linear for each projection."""

    def __init__(self, packed):
        super().__init__(self.expert(*weights) for weights in zip(packed.gate_up_proj.data, packed.down_proj.data))

    @staticmethod
    def expert(gate_up, down):
        w1, w3 = gate_up.chunk(2)
        expert = torch.nn.ModuleDict()
        for name, weight in (("w1", w1), ("w2", down), ("w3", w3)):
            expert[name] = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
            expert[name].weight.data.copy_(weight)
        return expert

    def forward(self, hidden, chosen, weights):
        out = torch.zeros_like(hidden)
        for e, expert in enumerate(self):
            token, place = torch.where(chosen == e)
            x = hidden[token]
            y = expert["w2"](torch.nn.functional.silu(expert["w1"](x)) * expert["w3"](x))
            out.index_add_(0, token, y * weights[token, place, None])
        return out


class Holder(torch.nn.Module):
    """Without a configuration of its own: PEFT takes the modules as they are, and converts no names."""

    def __init__(self, model):
        super().__init__()
        self.model = model


def hub_name(parameter):
    """base_model.model.MODULE.lora_A.weight of a parameter's name within Holder; of a whole weight MODULE.weight, and
    its gate below mlp, as PEFT has it."""
    if ".modules_to_save." in parameter:
        return "base_model." + parameter.replace(".modules_to_save.default", "")
    return "base_model." + parameter.replace(".mlp.", ".block_sparse_moe.").replace(".default", "")


def adapted_model(settings):
    model = hf.load_checkpoint(BASE)
    probe = torch.arange(3, 60)[None]
    before = model(input_ids=probe).logits
    for layer in model.model.layers:
        layer.mlp.experts = Experts(layer.mlp.experts)
    torch.testing.assert_close(model(input_ids=probe).logits, before, rtol=0, atol=1e-5)
    peft.inject_adapter_in_model(
        peft.LoraConfig(r=settings["lora_r"], lora_alpha=settings["lora_alpha"], use_rslora=settings["use_rslora"],
                        lora_dropout=0.0, target_modules=[m for m in settings["lora_target_modules"] if m != "gate"],
                        target_parameters=["gate.weight"] if "gate" in settings["lora_target_modules"] else None,
                        modules_to_save=settings.get("modules_to_save")), Holder(model))
    pairs = {hub_name("model." + name): p for name, p in model.named_parameters() if p.requires_grad}
    whole = [name for name in pairs if ".lora_" not in name]
    assert all(name.removesuffix(".weight").endswith(tuple(settings.get("modules_to_save", ()))) for name in whole)
    return model, pairs


def draw_adapter(pairs, generator):
    with torch.no_grad():
        for name, factor in pairs.items():
            if ".lora_" not in name:
                factor.add_(0.02 * torch.randn(factor.shape, generator=generator))
                continue
            size = factor.shape[1] ** -0.5 if ".lora_A." in name else 0.1
            factor.copy_(size * torch.randn(factor.shape, generator=generator))


def save_adapter(settings, pairs, folder):
    folder.mkdir()
    config = dict(peft_type="LORA", task_type="CAUSAL_LM", base_model_name_or_path="tests/fixtures/hf/plain",
                  r=settings["lora_r"], lora_alpha=settings["lora_alpha"], use_rslora=settings["use_rslora"],
                  target_modules=settings["lora_target_modules"], lora_dropout=0.0, bias="none", inference_mode=True)
    if "modules_to_save" in settings:
        config["modules_to_save"] = settings["modules_to_save"]
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    save({name: factor.detach().contiguous() for name, factor in pairs.items()}, folder / "adapter_model.safetensors")


def save(tensors, path):
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)


def check_with_peft(model, settings, folder):
    """PEFT reads the folder beside transformers' own model, and computes what is trained here. Its rslora of experts is
    another, but no run has that."""
    assert not (settings["use_rslora"] and "w1" in settings["lora_target_modules"])
    ids = torch.arange(3, 60)[None]
    loaded = peft.PeftModel.from_pretrained(hf.load_checkpoint(BASE), folder)
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=ids).logits, model(input_ids=ids).logits, rtol=0, atol=1e-5)


# Training ------------------------------------------------------------------------------------------------------------


def make_optimizer(model, settings, run):
    """LoRA+'s where B has a rate of its own, PEFT's then, which has one for the embedding's pair."""
    if "loraplus_lr_ratio" not in run:
        return hf.make_optimizer(model, settings)
    optimizer = create_loraplus_optimizer(
        model, torch.optim.AdamW, lr=settings["learning_rate"], loraplus_lr_ratio=run["loraplus_lr_ratio"],
        loraplus_lr_embedding=float(run.get("lr_groups", {}).get("embeddings", 0)),
        loraplus_weight_decay=settings["weight_decay"], betas=(settings["adam_beta1"], settings["adam_beta2"]),
        eps=settings["adam_epsilon"], foreach=False)
    schedule = transformers.get_scheduler(settings["lr_scheduler_type"], optimizer, settings["warmup_steps"], hf.STEPS)
    return optimizer, schedule


def train(model, pairs, steps, run):
    """The steps' figures, the tensors to compare, and the closest choice of a router."""
    settings = hf.BASE_TRAIN | FIXTURE.train
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    model.router_aux_loss_coef = COEFFICIENT
    hf.check_transformers_loss(model, steps[0][0], COEFFICIENT)
    optimizer, schedule = make_optimizer(model, settings, run)
    records, tensors, gaps = [], {}, []
    for step, forwards in enumerate(steps, 1):
        documents = [document for part in forwards for document in part]
        targets = sum(int((labels[1:] != -100).sum()) for _, labels in documents)
        optimizer.zero_grad()
        parts = [hf.forward(model, part, targets, len(forwards), COEFFICIENT) for part in forwards]
        assert all(factor.grad is not None for factor in pairs.values())  # Adam passes over what has none
        if step == 1:
            tensors |= {f"grad.{name}": factor.grad.clone() for name, factor in pairs.items()}
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings["max_grad_norm"], foreach=False)
        lm_loss = sum(loss for loss, _, _ in parts) / targets
        aux_loss = sum(aux for _, aux, _ in parts) / len(parts)
        gaps += [gap for _, _, gap in parts]
        records.append(dict(step=step, loss=lm_loss + COEFFICIENT * aux_loss, lm_loss=lm_loss, aux_loss=aux_loss,
                            grad_norm=norm.item(), learning_rate=schedule.get_last_lr()[0],
                            tokens=sum(len(ids) for ids, _ in documents)))
        optimizer.step()
        schedule.step()
    for name, p in model.named_parameters():
        assert name not in frozen or torch.equal(p, frozen[name])
    tensors |= {f"weight.{name}": factor.detach().contiguous() for name, factor in pairs.items()}
    return records, tensors, min(gaps)


def make(seed):
    generator = torch.Generator().manual_seed(seed)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    steps = hf.draw_documents(FIXTURE, generator)
    runs, tensors, gaps = [], {}, []
    for name, settings in RUNS:
        model, pairs = adapted_model(settings)
        draw_adapter(pairs, generator)
        save_adapter(settings, pairs, OUT / name)
        check_with_peft(model, settings, OUT / name)
        records, made, gap = train(model, pairs, steps, settings)
        runs.append(dict(name=name, settings=settings, steps=records))
        tensors |= hf.prefixed(name, made)
        gaps.append(gap)
    hf.write_documents(OUT / "train.jsonl", steps)
    hf.write_settings(FIXTURE, OUT)
    save(tensors, OUT / "expected.safetensors")
    versions = {"python": platform.python_version(), "torch": torch.__version__,
                "transformers": transformers.__version__, "peft": peft.__version__}
    expected = dict(versions=versions, seed=seed, min_router_gap=min(gaps), runs=runs)
    (OUT / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    return expected


def main():
    expected = hf.first_clear(FIXTURE.name, make)
    print(f"seed {expected['seed']}, router gap {expected['min_router_gap']:.1e}")
    for run in expected["runs"]:
        print(f"{run['name']:12}", " ".join(f"{step['loss']:.5f}/{step['grad_norm']:.4f}" for step in run["steps"]))


if __name__ == "__main__":
    main()
