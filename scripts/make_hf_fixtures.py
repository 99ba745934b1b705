#!/usr/bin/env python3
"""Writes tests/fixtures/hf/NAME/: what transformers computes on tiny Mixtrals, for mixtune to be compared with.

    python scripts/make_hf_fixtures.py [NAME ...]      needs torch and transformers, versions as in PINNED

Each folder is a run that mixtune can repeat:
  config.json, *.safetensors   the checkpoint
  train.jsonl                  the documents, tokenized (labels unshifted, -100 is not trained); a forward has
                               per_device_train_batch_size of them, padded to the longest, under an attention mask
  train.yaml                   the settings, less the three paths
  expected.json                every step's figures, greedy generation, versions
  expected.safetensors         by Hugging Face tensor name: grad.* (first step, summed over its forwards, before
                               clipping), exp_avg.*, exp_avg_sq.*, weight.* (after the last step); and `logits` of the
                               first forward's tokens, less padding, or of the last 64 of them

loss = sum of token losses / targets of the whole step + router_aux_loss_coef * mean over the step's forwards of the
auxiliary loss. Weights and data are redrawn until no router's choice is close (MIN_ROUTER_GAP), so that rounding cannot
change it. One thread, fp32, eager attention and experts, torch's AdamW; the same versions on the same kind of CPU give
the same bytes.
"""
import copy
import dataclasses
import json
import pathlib
import platform
import shutil
import sys

import safetensors.torch
import torch
import transformers

PINNED = {"transformers": "5.23.0", "torch": "2.15.0"}
OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "hf"
STEPS, NEW_TOKENS, LOGITS = 5, 12, 64
MIN_ROUTER_GAP, MIN_TOKEN_GAP = 1e-4, 1e-3


@dataclasses.dataclass(frozen=True)
class Fixture:
    name: str
    model: dict  # over BASE_MODEL
    train: dict  # over BASE_TRAIN, in mixtune's keys
    masked: float = 0.0  # share of labels that are -100
    lengths: tuple = (9, 60)  # of documents
    prompts: tuple = (1, 5, 20)  # lengths
    dialect: int = 4  # of config.json: transformers 4's or 5's
    layout: str = "hub"  # or "packed", as transformers 5 holds the experts in memory
    max_shard_size: str = "1GB"
    dtype: torch.dtype = torch.float32


BASE_MODEL = dict(
    vocab_size=96, hidden_size=32, intermediate_size=16, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=None, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=128,
    rope_theta=1e6, rms_norm_eps=1e-5, sliding_window=None, tie_word_embeddings=False, router_aux_loss_coef=0.02)

BASE_TRAIN = dict(
    max_steps=STEPS, packing=False, shuffle=False, max_seq_length=64, per_device_train_batch_size=1,
    gradient_accumulation_steps=1, learning_rate=1e-3, lr_scheduler_type="linear", warmup_steps=0, weight_decay=0.0,
    adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-8, max_grad_norm=1.0, save_dtype="fp32", save_steps=0)

FIXTURES = [
    Fixture("plain", {}, {}),
    # A top-1 router without auxiliary loss: its exact gradient is zero. Epsilon keeps Adam from following the noise.
    Fixture("top1", dict(num_experts_per_tok=1, num_key_value_heads=1, head_dim=16, router_aux_loss_coef=0.0),
            dict(lr_scheduler_type="constant", weight_decay=0.1, adam_epsilon=1e-5, max_grad_norm=1000.0)),
    Fixture("top3_window", dict(num_local_experts=6, num_experts_per_tok=3, num_key_value_heads=4, sliding_window=7,
                                rope_theta=1e4, intermediate_size=12, router_aux_loss_coef=0.1),
            dict(gradient_accumulation_steps=2, lr_scheduler_type="cosine", warmup_steps=2, learning_rate=3e-3),
            masked=0.3),
    Fixture("tied", dict(num_local_experts=5, hidden_size=48, num_attention_heads=6, num_key_value_heads=3,
                         intermediate_size=8, tie_word_embeddings=True, rms_norm_eps=1e-6, router_aux_loss_coef=0.0),
            dict(gradient_accumulation_steps=3, lr_scheduler_type="constant_with_warmup", warmup_steps=3,
                 weight_decay=0.01, adam_beta1=0.8, adam_beta2=0.95, adam_epsilon=1e-6, max_grad_norm=0.5),
            masked=0.6),
    Fixture("packed", dict(num_local_experts=8, intermediate_size=8, rope_theta=5e5, head_dim=4, vocab_size=64,
                           rms_norm_eps=1e-2),
            dict(lr_scheduler_type="cosine", max_grad_norm=0.1, weight_decay=0.1), masked=0.1, dialect=5,
            layout="packed"),
    Fixture("sharded_bf16", dict(hidden_size=40, num_attention_heads=2, head_dim=24, num_local_experts=3,
                                 num_key_value_heads=1, vocab_size=70),
            dict(gradient_accumulation_steps=2, learning_rate=5e-4, max_grad_norm=1000.0), dialect=5,
            max_shard_size="20KB", dtype=torch.bfloat16),
    # Documents of different lengths in one forward: padding counts neither in the loss nor in the auxiliary loss.
    Fixture("padded", dict(hidden_size=16, intermediate_size=4, vocab_size=32, num_key_value_heads=1),
            dict(per_device_train_batch_size=3, gradient_accumulation_steps=2), masked=0.3, lengths=(3, 40)),
    # Positions far beyond those that angles in bf16 tell apart.
    Fixture("long", dict(hidden_size=16, intermediate_size=4, vocab_size=24, num_key_value_heads=1,
                         max_position_embeddings=2048, rope_theta=1e4),
            dict(max_seq_length=2048), lengths=(1200, 2000), prompts=(5, 1500)),
]


class Redraw(Exception):
    """This seed makes a close choice somewhere: rounding would decide it."""


# The checkpoint ------------------------------------------------------------------------------------------------------


def draw_model(fixture, generator):
    """Weights of a size that makes logits, routing and gradients lively."""
    settings = BASE_MODEL | fixture.model
    theta = settings.pop("rope_theta")
    config = transformers.MixtralConfig(
        **settings, rope_parameters={"rope_type": "default", "rope_theta": theta}, architectures=["MixtralForCausalLM"])
    model = transformers.MixtralForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.empty_like(weight).normal_(generator=generator)
            if weight.dim() == 1:
                weight.copy_(1 + 0.1 * noise)
            else:
                weight.copy_(noise * (2 if "mlp.gate" in name else 1) / weight.shape[-1] ** 0.5)
    return model.to(fixture.dtype)


def hub_tensors(model, tensors):
    """{parameter name: tensor} of the model in memory -> {name on the hub: tensor}."""
    hub = {}
    for name, tensor in tensors.items():
        stem = name.replace(".mlp.", ".block_sparse_moe.")
        if name.endswith("gate_up_proj"):
            half = model.config.intermediate_size
            for e, both in enumerate(tensor):
                hub[stem.replace("gate_up_proj", f"{e}.w1.weight")] = both[:half]
                hub[stem.replace("gate_up_proj", f"{e}.w3.weight")] = both[half:]
        elif name.endswith("down_proj"):
            for e, down in enumerate(tensor):
                hub[stem.replace("down_proj", f"{e}.w2.weight")] = down
        else:
            hub[stem] = tensor
    return {name: tensor.detach().clone().contiguous() for name, tensor in hub.items()}


def config_json(fixture, model):
    config = model.config.to_diff_dict() | {"dtype": str(fixture.dtype).removeprefix("torch.")}
    for key in ("architectures", "rope_parameters", *(BASE_MODEL.keys() - {"rope_theta"})):
        config[key] = getattr(model.config, key)  # also where it is transformers' default
    if fixture.dialect == 4:
        config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
        config["torch_dtype"] = config.pop("dtype")
    return json.dumps(dict(sorted(config.items())), indent=2) + "\n"


def save_checkpoint(fixture, model, folder):
    if fixture.layout == "packed":
        weights = {name: weight.detach() for name, weight in model.named_parameters()}
        safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        model.save_pretrained(folder, max_shard_size=fixture.max_shard_size)
        (folder / "generation_config.json").unlink()
        on_disk = {}
        for path in folder.glob("*.safetensors"):
            on_disk |= safetensors.torch.load_file(path)
        hub = hub_tensors(model, dict(model.named_parameters()))
        assert on_disk.keys() == hub.keys() and all(torch.equal(on_disk[name], hub[name]) for name in hub)
    (folder / "config.json").write_text(config_json(fixture, model))


def load_checkpoint(folder):
    model = transformers.MixtralForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager")
    model.train()
    return model


# The data ------------------------------------------------------------------------------------------------------------


def draw_documents(fixture, generator):
    """Of each step the documents of each forward."""
    vocab = (BASE_MODEL | fixture.model)["vocab_size"]
    train = BASE_TRAIN | fixture.train

    def draw_document():
        length = int(torch.randint(fixture.lengths[0], fixture.lengths[1] + 1, (), generator=generator))
        ids = torch.randint(3, vocab, (length,), generator=generator)
        masked = torch.rand(length, generator=generator) < fixture.masked
        masked[-1] = False  # a document without a target would be dropped
        return ids, ids.masked_fill(masked, -100)

    return [[[draw_document() for _ in range(train["per_device_train_batch_size"])]
             for _ in range(train["gradient_accumulation_steps"])] for _ in range(STEPS)]


def pad(documents):
    """ids, labels and mask [documents, longest]; of one document no mask."""
    longest = max(len(ids) for ids, _ in documents)
    ids, labels = torch.zeros(len(documents), longest, dtype=torch.long), torch.full((len(documents), longest), -100)
    mask = torch.zeros(len(documents), longest, dtype=torch.long)
    for row, (document, document_labels) in enumerate(documents):
        ids[row, :len(document)], labels[row, :len(document)], mask[row, :len(document)] = document, document_labels, 1
    return ids, labels, mask if len(documents) > 1 else None


def write_documents(path, steps):
    with path.open("w") as lines:
        for ids, labels in (document for step in steps for part in step for document in part):
            lines.write(json.dumps({"input_ids": ids.tolist(), "labels": labels.tolist()}) + "\n")


def write_settings(fixture, folder):
    settings = BASE_TRAIN | fixture.train
    settings["router_aux_loss_coef"] = (BASE_MODEL | fixture.model)["router_aux_loss_coef"]
    lines = [f"{key}: {json.dumps(value) if not isinstance(value, str) else value}" for key, value in settings.items()]
    (folder / "train.yaml").write_text(
        "# model_name_or_path, train_file and output_dir come from the command line.\n" + "\n".join(lines) + "\n")


# The reference -------------------------------------------------------------------------------------------------------


def check_router(model, router_logits, mask=None):
    """The smallest gap between an expert that was chosen and one that was not, for tokens that are no padding."""
    k = model.config.num_experts_per_tok
    logits = torch.stack(router_logits)
    top = (logits if mask is None else logits[:, mask.flatten().bool()]).topk(k + 1, dim=-1).values
    gap = (top[..., k - 1] - top[..., k]).min().item()
    if gap < MIN_ROUTER_GAP:
        raise Redraw
    return gap


def token_losses(logits, labels, reduction):
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction=reduction)


def forward(model, documents, targets, forwards, coefficient):
    """Backward of the documents' share of the step's loss; their sum of token losses, and their auxiliary loss."""
    ids, labels, mask = pad(documents)
    out = model(input_ids=ids, attention_mask=mask, output_router_logits=True, use_cache=False)
    gap = check_router(model, out.router_logits, mask)
    losses = token_losses(out.logits, labels, "none")
    (losses.sum() / targets + coefficient * out.aux_loss / forwards).backward()
    return losses.double().sum().item(), out.aux_loss.item(), gap


def check_transformers_loss(model, documents, coefficient):
    """transformers' own loss of a forward is what `forward` takes it to be."""
    ids, labels, mask = pad(documents)
    with torch.no_grad():
        out = model(input_ids=ids, attention_mask=mask, labels=labels, output_router_logits=True, use_cache=False)
        lm_loss = token_losses(out.logits, labels, "mean")
    torch.testing.assert_close(out.loss, lm_loss + coefficient * out.aux_loss)


def make_optimizer(model, train):
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    norms = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": train["weight_decay"]}, {"params": norms, "weight_decay": 0.0}],
        lr=train["learning_rate"], betas=(train["adam_beta1"], train["adam_beta2"]), eps=train["adam_epsilon"],
        foreach=False)
    schedule = transformers.get_scheduler(train["lr_scheduler_type"], optimizer, train["warmup_steps"], STEPS)
    return optimizer, schedule


def train_reference(fixture, model, steps):
    train = BASE_TRAIN | fixture.train
    coefficient = model.config.router_aux_loss_coef
    optimizer, schedule = make_optimizer(model, train)
    parameters = dict(model.named_parameters())
    check_transformers_loss(model, steps[0][0], coefficient)
    records, tensors, gaps = [], {}, []
    for step, forwards in enumerate(steps, 1):
        documents = [document for part in forwards for document in part]
        targets = sum(int((labels[1:] != -100).sum()) for _, labels in documents)
        optimizer.zero_grad()
        parts = [forward(model, part, targets, len(forwards), coefficient) for part in forwards]
        if step == 1:
            tensors |= prefixed("grad", hub_tensors(model, {name: p.grad for name, p in parameters.items()}))
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), train["max_grad_norm"], foreach=False)
        lm_loss = sum(loss for loss, _, _ in parts) / targets
        aux_loss = sum(aux for _, aux, _ in parts) / len(parts)
        gaps += [gap for _, _, gap in parts]
        records.append(dict(step=step, loss=lm_loss + coefficient * aux_loss, lm_loss=lm_loss, aux_loss=aux_loss,
                            grad_norm=norm.item(), learning_rate=schedule.get_last_lr()[0], target_tokens=targets,
                            tokens=sum(len(ids) for ids, _ in documents)))
        optimizer.step()
        schedule.step()
    for moment in ("exp_avg", "exp_avg_sq"):
        tensors |= prefixed(moment, hub_tensors(model, {n: optimizer.state[p][moment] for n, p in parameters.items()}))
    tensors |= prefixed("weight", hub_tensors(model, parameters))
    return records, tensors, min(gaps)


def prefixed(prefix, tensors):
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def greedy(model, prompt):
    """transformers' greedy continuation, checked against forwards without a cache."""
    config = transformers.GenerationConfig(
        do_sample=False, max_new_tokens=NEW_TOKENS, bos_token_id=1, eos_token_id=None, pad_token_id=0)
    model.eval()
    out = model.generate(prompt[None], attention_mask=torch.ones_like(prompt[None]), generation_config=config)[0]
    with torch.no_grad():
        logits = model(input_ids=out[None, :-1], output_router_logits=True, use_cache=False)
    model.train()
    check_router(model, logits.router_logits)
    last = logits.logits[0, len(prompt) - 1:].topk(2).values
    tokens = out[len(prompt):]
    if (last[:, 0] - last[:, 1]).min() < MIN_TOKEN_GAP or (tokens == model.config.eos_token_id).any():
        raise Redraw
    assert torch.equal(logits.logits[0, len(prompt) - 1:].argmax(-1), tokens)
    return {"prompt": prompt.tolist(), "tokens": tokens.tolist()}


def make(fixture, seed):
    generator = torch.Generator().manual_seed(seed)
    folder = OUT / fixture.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_checkpoint(fixture, draw_model(fixture, generator), folder)
    model = load_checkpoint(folder)
    steps = draw_documents(fixture, generator)
    prompts = [torch.randint(3, model.config.vocab_size, (n,), generator=generator) for n in fixture.prompts]
    continuations = [greedy(model, prompt) for prompt in prompts]
    ids, _, mask = pad(steps[0][0])
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.flatten(0, 1)
    logits = logits[-LOGITS:] if mask is None else logits[mask.flatten().bool()][-LOGITS:]
    records, tensors, gap = train_reference(fixture, copy.deepcopy(model), steps)

    write_documents(folder / "train.jsonl", steps)
    write_settings(fixture, folder)
    safetensors.torch.save_file({"logits": logits.contiguous()} | tensors, folder / "expected.safetensors")
    versions = {"python": platform.python_version(), "torch": torch.__version__,
                "transformers": transformers.__version__, "safetensors": safetensors.__version__}
    expected = dict(versions=versions, seed=seed, min_router_gap=gap, steps=records, greedy=continuations)
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    return expected


def first_clear(name, make):
    """make(seed), of the first seed whose choices are all clear. From then on torch gives the same bits each time."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.utils.logging.disable_progress_bar()
    for seed in range(100):
        try:
            return make(seed)
        except Redraw:
            continue
    sys.exit(f"{name}: no seed below 100 keeps every choice clear")


def main():
    for module in (transformers, torch):
        pinned = PINNED[module.__name__]
        if module.__version__.split("+")[0] != pinned:
            sys.exit(f"{module.__name__} is {module.__version__}, the fixtures need {pinned}; to move, change PINNED")
    for fixture in FIXTURES:
        if len(sys.argv) > 1 and fixture.name not in sys.argv[1:]:
            continue
        expected = first_clear(fixture.name, lambda seed, fixture=fixture: make(fixture, seed))
        size = sum(path.stat().st_size for path in (OUT / fixture.name).iterdir())
        norms = " ".join(f"{record['grad_norm']:.3f}" for record in expected["steps"])
        print(f"{fixture.name}: seed {expected['seed']}, router gap {expected['min_router_gap']:.1e}, {size:,} bytes, "
              f"gradient norms {norms}")


if __name__ == "__main__":
    main()
