#!/usr/bin/env python3
"""Writes tests/fixtures/megatron_router/ and megatron_choice/: transformers' model with Megatron-Core's own router.

    python scripts/make_megatron_router_fixtures.py      needs torch, transformers and megatron-core

One tiny Mixtral whose every gate is followed by Megatron-Core's TopKRouter.routing: it chooses the experts, weighs
them, computes the losses and puts their gradients into backward, scaled by 1 / accumulation steps as Megatron-Core's
schedule has it. For each of a folder's RUNS six steps of two accumulation steps, of several documents each:
  config.json, model.safetensors, train.yaml   as make_hf_fixtures.py has them
  uneven.jsonl, even.jsonl     the documents: of several lengths, padded under a mask; and all of one length
  expected.json                {"runs": [{"name", "data", "settings": mixtune's keys, "steps": [figures]}], versions};
                               of a run whose experts have a bias "expert_bias" too, a list for each layer, after the
                               last step
  expected.safetensors         of each run NAME.grad.* (the gates', first step, before clipping) and NAME.weight.*

What Megatron-Core averages over accumulation steps mixtune has as docs/router.md says, and both are the same only for:
  z-loss, global_aux_loss      accumulation steps of as many tokens, padding not counted: here all are of TOKENS
  seq_aux_loss                 documents of one length, as many in each accumulation step: Megatron-Core divides by the
                               square of the padded batch's mean length. So runs with it have even.jsonl
  sinkhorn                     accumulation steps without padding, which would be balanced with the tokens: even.jsonl
  expert bias                  the same: padding would be counted
Weights and data are redrawn until no router's choice is close, and until the same training in fp64 (but for what
transformers and Megatron-Core always compute in fp32) has norms within MAX_NORM_ERROR: Adam makes much of gradients
that are nothing but rounding. One thread, fp32.
"""
import functools
import json
import pathlib
import platform
import shutil

import megatron.core
import safetensors.torch
import torch
import transformers
from megatron.core import parallel_state
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.transformer.moe import moe_utils
from megatron.core.transformer.moe.router import TopKRouter
from megatron.core.transformer.transformer_config import TransformerConfig

import make_hf_fixtures as hf

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "fixtures"
ACCUMULATION, DOCUMENTS, TOKENS = 2, 6, 84  # of a step; of an accumulation step
MIN_LENGTH, MAX_LENGTH = 5, 24
MAX_NORM_ERROR = 5e-5

hf.STEPS = 6
# Layers, experts, k, accumulation steps and documents are all different numbers: none can stand for another.
FIXTURE = hf.Fixture(
    "",
    dict(hidden_size=16, intermediate_size=2, num_hidden_layers=4, num_local_experts=5, num_experts_per_tok=3,
         num_key_value_heads=1, vocab_size=24, router_aux_loss_coef=0.0),
    dict(max_steps=hf.STEPS, per_device_train_batch_size=DOCUMENTS, gradient_accumulation_steps=ACCUMULATION,
         weight_decay=0.1), masked=0.3)


def balancing(**coefficients):
    return dict(moe_router_load_balancing_type=list(coefficients), moe_aux_loss_coeff=list(coefficients.values()))


RUNS = {"megatron_router": [
    ("aux_loss", "uneven", balancing(aux_loss=0.1)),
    ("global_aux_loss", "uneven", balancing(global_aux_loss=0.1)),
    ("z_loss", "uneven", dict(moe_z_loss_coeff=0.01)),
    ("aux_and_z_loss", "uneven", balancing(aux_loss=0.2) | dict(moe_z_loss_coeff=0.02)),
    ("seq_aux_loss", "even", balancing(seq_aux_loss=0.1)),
    ("all", "even", balancing(aux_loss=0.05, seq_aux_loss=0.1, global_aux_loss=0.15) | dict(moe_z_loss_coeff=0.01)),
], "megatron_choice": [
    ("sinkhorn", "even", dict(moe_router_load_balancing_type=["sinkhorn"])),
    ("sinkhorn_top1_and_z", "even",
     dict(moe_router_load_balancing_type=["sinkhorn"], moe_router_topk=1, moe_z_loss_coeff=0.01)),
    ("expert_bias", "even",
     dict(moe_router_load_balancing_type=["none"], moe_router_score_function="sigmoid",
          moe_router_enable_expert_bias=True, moe_router_bias_update_rate=0.03)),
]}


# The data ------------------------------------------------------------------------------------------------------------


def draw_lengths(data, generator):
    if data == "even":
        return [TOKENS // DOCUMENTS] * DOCUMENTS
    while True:
        lengths = torch.randint(MIN_LENGTH, MAX_LENGTH + 1, (DOCUMENTS,), generator=generator)
        if lengths.sum() == TOKENS:
            return lengths.tolist()


def draw_documents(data, generator):
    """Of each step the documents of each forward."""

    def draw_document(length):
        ids = torch.randint(3, FIXTURE.model["vocab_size"], (length,), generator=generator)
        masked = torch.rand(length, generator=generator) < FIXTURE.masked
        masked[-1] = False
        return ids, ids.masked_fill(masked, -100)

    return [[[draw_document(length) for length in draw_lengths(data, generator)] for _ in range(ACCUMULATION)]
            for _ in range(hf.STEPS)]


# Megatron-Core's routers inside transformers' model ------------------------------------------------------------------


def routing_type(settings):
    """A list, of losses; by itself what is none."""
    types = settings.get("moe_router_load_balancing_type", ["none"])
    return types[0] if types[0] in ("none", "sinkhorn") else types


def top_k(settings):
    return settings.get("moe_router_topk", FIXTURE.model["num_experts_per_tok"])


def make_router(layer, settings):
    shape = FIXTURE.model
    config = TransformerConfig(
        num_layers=shape["num_hidden_layers"], hidden_size=shape["hidden_size"], num_attention_heads=4,
        num_moe_experts=shape["num_local_experts"], moe_router_topk=top_k(settings),
        moe_router_load_balancing_type=routing_type(settings),
        moe_router_score_function=settings.get("moe_router_score_function", "softmax"),
        moe_router_enable_expert_bias=settings.get("moe_router_enable_expert_bias", False),
        moe_aux_loss_coeff=settings.get("moe_aux_loss_coeff", 0.0), moe_z_loss_coeff=settings.get("moe_z_loss_coeff"),
        add_bias_linear=False)
    groups = ProcessGroupCollection()
    groups.tp = groups.cp = groups.tp_cp = groups.tp_dp_cp = torch.distributed.group.WORLD
    router = TopKRouter(config, groups)
    router.set_layer_number(layer + 1)
    return router


class Routers:
    """Puts a router of Megatron-Core behind each gate of the model; `mask` is of the forward that runs."""

    def __init__(self, model, settings):
        self.mask, self.gaps = None, []
        self.routers = [make_router(i, settings) for i in range(model.config.num_hidden_layers)]
        for layer, router in zip(model.model.layers, self.routers):
            self.put_behind(layer.mlp.gate, router)

    def put_behind(self, gate, router):
        k = router.topk

        def forward(hidden):
            batch, length = self.mask.shape
            logits = torch.nn.functional.linear(hidden.reshape(-1, gate.hidden_dim), gate.weight)
            self.gaps.append(self.gap(self.ranks(logits[self.mask.flatten()].detach(), router), k))
            by_position = logits.view(batch, length, -1).transpose(0, 1).contiguous()  # [length, batch, experts]
            padding = None if self.mask.all() else ~self.mask.T
            probs, chosen = router.routing(by_position, padding)
            probs, chosen = (x.view(length, batch, -1).transpose(0, 1).flatten(0, 1) for x in (probs, chosen))
            experts = chosen.nonzero()[:, 1].view(-1, k)
            return logits, probs.gather(1, experts), experts

        gate.forward = forward

    @staticmethod
    def ranks(logits, router):
        """What experts are chosen by, as steep as logits. Rounding may decide which round of Sinkhorn's is the last:
        that may choose no others."""
        if router.expert_bias is not None:
            return 4 * (logits.sigmoid() + router.expert_bias)
        if router.routing_type != "sinkhorn":
            return logits
        ranks = [moe_utils.sinkhorn(logits, tol).log() for tol in (0.9e-4, 1e-4, 1.1e-4)]
        chosen = [each.topk(router.topk, dim=-1).indices.sort(dim=-1).values for each in ranks]
        if not all(torch.equal(chosen[1], each) for each in chosen):
            raise hf.Redraw
        return ranks[1]

    @staticmethod
    def gap(ranks, k):
        top = ranks.topk(k + 1, dim=-1).values
        gap = (top[:, k - 1] - top[:, k]).min().item()
        if gap < hf.MIN_ROUTER_GAP:
            raise hf.Redraw
        return gap

    def begin_step(self):
        moe_utils.clear_aux_losses_tracker()
        for router in self.routers:
            router.reset_global_aux_loss_tracker()

    def move_bias(self, rate):
        """As Megatron-LM's finalize_model_grads does after each step."""
        for router in self.routers:
            tokens, bias = router.local_tokens_per_expert, router.expert_bias
            bias.copy_(moe_utils.get_updated_expert_bias(tokens[None], bias[None], rate)[0])
            tokens.zero_()

    @staticmethod
    def losses():
        """{Megatron-Core's name: sum over the layers, mean over the step's forwards}, without coefficients."""
        tracked = moe_utils.get_moe_layer_wise_logging_tracker()
        return {name: entry["values"].double().sum().item() / ACCUMULATION for name, entry in tracked.items()}


TRACKED = {"aux_loss": "load_balancing_loss", "seq_aux_loss": "seq_load_balancing_loss",
           "global_aux_loss": "global_load_balancing_loss"}


# Training ------------------------------------------------------------------------------------------------------------


def forward(model, routers, documents, targets):
    ids, labels, mask = hf.pad(documents)
    routers.mask = mask.bool()
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    losses = hf.token_losses(logits, labels, "none")
    (losses.sum() / targets).backward()
    return losses.double().sum().item()


def train(model, settings, steps):
    """The steps' figures, the tensors to compare, and the closest choice of a router."""
    settings_of_training = hf.BASE_TRAIN | FIXTURE.train
    routers = Routers(model, settings)
    optimizer, schedule = hf.make_optimizer(model, settings_of_training)
    parameters = dict(model.named_parameters())
    moe_utils.get_moe_layer_wise_logging_tracker().clear()
    moe_utils.MoEAuxLossAutoScaler.set_loss_scale(torch.ones(1) / ACCUMULATION)
    coefficients = dict(zip(settings.get("moe_router_load_balancing_type", []), settings.get("moe_aux_loss_coeff", [])))
    rate = settings.get("moe_router_bias_update_rate")
    records, tensors = [], {}
    for step, forwards in enumerate(steps, 1):
        documents = [document for part in forwards for document in part]
        targets = sum(int((labels[1:] != -100).sum()) for _, labels in documents)
        optimizer.zero_grad()
        routers.begin_step()
        lm_loss = sum(forward(model, routers, part, targets) for part in forwards) / targets
        if step == 1:
            gates = {name: p.grad for name, p in parameters.items() if name.endswith("mlp.gate.weight")}
            tensors |= hf.prefixed("grad", hf.hub_tensors(model, gates))
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings_of_training["max_grad_norm"], foreach=False)
        tracked = Routers.losses()
        balance = {kind: tracked[TRACKED[kind]] for kind in coefficients}
        parts = {"aux_loss": sum(balance.values())} if balance else {}
        loss = lm_loss + sum(coefficients[kind] * value for kind, value in balance.items())
        if "moe_z_loss_coeff" in settings:
            parts["z_loss"] = tracked["z_loss"]
            loss += settings["moe_z_loss_coeff"] * tracked["z_loss"]
        records.append(dict(step=step, loss=loss, lm_loss=lm_loss) | parts
                       | dict(grad_norm=norm.item(), learning_rate=schedule.get_last_lr()[0],
                              tokens=sum(len(ids) for ids, _ in documents)))
        optimizer.step()
        schedule.step()
        if rate is not None:
            routers.move_bias(rate)
    tensors |= hf.prefixed("weight", hf.hub_tensors(model, parameters))
    bias = {"expert_bias": [router.expert_bias.tolist() for router in routers.routers]} if rate is not None else {}
    return dict(steps=records) | bias, tensors, min(routers.gaps)


def check_norms(records, exact):
    for step, other in zip(records, exact):
        if abs(step["grad_norm"] / other["grad_norm"] - 1) > MAX_NORM_ERROR:
            raise hf.Redraw


def make(name, seed):
    generator = torch.Generator().manual_seed(seed)
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    hf.save_checkpoint(FIXTURE, hf.draw_model(FIXTURE, generator), folder)
    steps = {data: draw_documents(data, generator) for data in ("uneven", "even")}
    runs, tensors, gaps = [], {}, []
    for run, data, settings in RUNS[name]:
        figures, made, gap = train(hf.load_checkpoint(folder), settings, steps[data])
        check_norms(figures["steps"], train(hf.load_checkpoint(folder).double(), settings, steps[data])[0]["steps"])
        runs.append(dict(name=run, data=data, settings=settings) | figures)
        tensors |= hf.prefixed(run, made)
        gaps.append(gap)
    for data in {data for _, data, _ in RUNS[name]}:
        hf.write_documents(folder / f"{data}.jsonl", steps[data])
    hf.write_settings(FIXTURE, folder)
    safetensors.torch.save_file(tensors, folder / "expected.safetensors")
    versions = {"python": platform.python_version(), "torch": torch.__version__,
                "transformers": transformers.__version__, "megatron-core": megatron.core.__version__}
    expected = dict(versions=versions, seed=seed, min_router_gap=min(gaps), runs=runs)
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    return expected


def main():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    torch.cuda.current_device = lambda: "cpu"  # where TopKRouter keeps its counts
    parallel_state.get_tensor_and_data_parallel_group = lambda **_: torch.distributed.group.WORLD
    for name in RUNS:
        expected = hf.first_clear(name, functools.partial(make, name))
        print(f"{name}: seed {expected['seed']}, router gap {expected['min_router_gap']:.1e}")
        for run in expected["runs"]:
            print(f"{run['name']:19}", " ".join(f"{s['loss']:.5f}/{s['grad_norm']:.4f}" for s in run["steps"]))


if __name__ == "__main__":
    main()
