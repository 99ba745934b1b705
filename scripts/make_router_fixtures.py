#!/usr/bin/env python3
"""Writes tests/fixtures/router.json: what Megatron-Core's own router functions make of a few tokens' logits.

Needs megatron-core (0.16.1) and torch. Running it twice gives the same bytes:

    python scripts/make_router_fixtures.py tests/fixtures/router.json

`losses` has load-balancing losses and the z-loss with their gradients in float64 logits; a sequence loss is that of
documents by themselves, their mean. A loss over several accumulation steps has the logits of each in turn.

`scores` has the weights of all experts, 0 of those that are not chosen, and the gradient of their sum, each times its
number in `dweights`.

`biased` has the same of sigmoids with an expert bias, the bias that Megatron-Core makes of these tokens at `rate`, and
the tokens of each expert that its losses count.

`sinkhorn` has the same of the choice that TopKRouter makes in training by sinkhorn(), whose result is `balanced`. No
two of a token's are close, nor is the change of a round to the one that ends it.
"""

import json
import sys

import torch
from megatron.core import parallel_state
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.transformer.moe.moe_utils import (
    compute_routing_scores_for_aux_loss,
    get_updated_expert_bias,
    sinkhorn,
    switch_load_balancing_loss_func,
    topk_routing_with_score_function,
    z_loss_func,
)
from megatron.core.transformer.moe.router import TopKRouter
from megatron.core.transformer.transformer_config import TransformerConfig


def numbers(tensor):
    return [float(x) for x in tensor.detach().flatten()]


def switch(logits, k, function, counts=None, counted=1):
    """The loss of one layer; `counts` of earlier steps, `counted` their number with this one."""
    chosen, scores = compute_routing_scores_for_aux_loss(logits, k, function)
    tokens = chosen.sum(dim=0)
    if counts is not None:
        tokens = (tokens + counts) / counted
    tokens_in_all, experts = logits.shape
    return switch_load_balancing_loss_func(
        probs=scores, tokens_per_expert=tokens, total_num_tokens=tokens_in_all, topk=k, num_experts=experts,
        moe_aux_loss_coeff=1.0), chosen.sum(dim=0)


def sequence(logits, k, function, offsets):
    documents = [switch(logits[a:b], k, function)[0] for a, b in zip(offsets, offsets[1:])]
    return sum(documents) / len(documents)


def logits_of(tokens, experts, generator):
    return (2 * torch.randn(tokens, experts, generator=generator)).double().requires_grad_()


def losses(tokens, experts, k, seed, function="softmax"):
    generator = torch.Generator().manual_seed(seed)
    logits = logits_of(tokens, experts, generator)
    other = (2 * torch.randn(tokens, experts, generator=generator)).double()
    offsets = [0, 1, tokens // 2, tokens]
    earlier = switch(other, k, function)[1]
    made = {"z": z_loss_func(logits, 1.0), "aux_loss": switch(logits, k, function)[0],
            "global_aux_loss": switch(logits, k, function, earlier, 2)[0],
            "seq_aux_loss": sequence(logits, k, function, offsets)}
    return {"experts": experts, "k": k, "function": function, "logits": numbers(logits), "doc_offsets": offsets,
            "earlier_counts": numbers(earlier),
            "values": {name: float(loss) for name, loss in made.items()},
            "gradients": {name: numbers(torch.autograd.grad(loss, logits, retain_graph=True)[0])
                          for name, loss in made.items()}}


def scores(tokens, experts, k, seed, function, pre_softmax=False, scaling=None):
    generator = torch.Generator().manual_seed(seed)
    logits = logits_of(tokens, experts, generator)
    dweights = torch.randn(tokens, experts, generator=generator).double()
    weights, _ = topk_routing_with_score_function(
        logits, k, use_pre_softmax=pre_softmax, scaling_factor=scaling, score_function=function)
    gradient = torch.autograd.grad((weights * dweights).sum(), logits)[0]
    return {"experts": experts, "k": k, "function": function, "pre_softmax": pre_softmax, "scaling": scaling or 1.0,
            "logits": numbers(logits), "weights": numbers(weights), "dweights": numbers(dweights),
            "gradient": numbers(gradient)}


def biased(tokens, experts, k, seed, scaling=None, rate=1e-3):
    generator = torch.Generator().manual_seed(seed)
    logits = logits_of(tokens, experts, generator)
    dweights = torch.randn(tokens, experts, generator=generator).double()
    bias = 0.3 * torch.randn(experts, generator=generator)
    weights, chosen = topk_routing_with_score_function(
        logits, k, scaling_factor=scaling, score_function="sigmoid", expert_bias=bias)
    gradient = torch.autograd.grad((weights * dweights).sum(), logits)[0]
    counts = chosen.sum(dim=0).float()
    counted = compute_routing_scores_for_aux_loss(logits, k, "sigmoid")[0].sum(dim=0)
    assert not torch.equal(counts, counted.float())
    return {"experts": experts, "k": k, "function": "sigmoid", "scaling": scaling or 1.0, "logits": numbers(logits),
            "weights": numbers(weights), "dweights": numbers(dweights), "gradient": numbers(gradient),
            "bias": numbers(bias), "rate": rate, "counts": numbers(counts), "loss_counts": numbers(counted),
            "updated": numbers(get_updated_expert_bias(counts.clone()[None], bias[None], rate))}


def sinkhorn_router(experts, k):
    config = TransformerConfig(
        num_layers=1, hidden_size=4, num_attention_heads=1, num_moe_experts=experts, moe_router_topk=k,
        moe_router_load_balancing_type="sinkhorn", add_bias_linear=False)
    groups = ProcessGroupCollection()
    groups.tp = groups.cp = groups.tp_cp = groups.tp_dp_cp = torch.distributed.group.WORLD
    return TopKRouter(config, groups).train()


def is_close(logits, balanced, k):
    """Whether rounding might choose others: the last round's change depends on which is the last."""
    tighter, wider = (sinkhorn(logits.float(), tol=tol) for tol in (0.9e-4, 1.1e-4))
    top = balanced.topk(k + 1, dim=1).values.log()
    return not torch.equal(tighter, wider) or (top[:, k - 1] - top[:, k]).min() < 1e-3


def sinkhorn_scores(tokens, experts, k, seed, uneven):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(tokens, experts, generator=generator) + uneven * torch.randn(experts, generator=generator)
    logits = logits.double().requires_grad_()
    dweights = torch.randn(tokens, experts, generator=generator).double()
    weights, chosen = sinkhorn_router(experts, k).sinkhorn_load_balancing(logits)
    gradient = torch.autograd.grad((weights * dweights).sum(), logits)[0]
    balanced = sinkhorn(logits.detach().float())
    assert not is_close(logits.detach(), balanced, k), seed
    assert not torch.equal(chosen, torch.zeros_like(chosen).scatter(1, logits.topk(k, dim=1).indices, True))
    return {"experts": experts, "k": k, "function": "sigmoid" if k == 1 else "softmax", "pre_softmax": k > 1,
            "logits": numbers(logits), "weights": numbers(weights), "dweights": numbers(dweights),
            "gradient": numbers(gradient), "balanced": numbers(balanced),
            "chosen": [int(x) for x in chosen.flatten()]}


def in_one_process():
    """For get_updated_expert_bias, which adds up over ranks."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    torch.cuda.current_device = lambda: "cpu"  # where TopKRouter keeps its counts
    parallel_state.get_tensor_and_data_parallel_group = lambda **_: torch.distributed.group.WORLD


def main():
    in_one_process()
    made = {"losses": [losses(12, 4, 2, 1), losses(9, 6, 3, 2), losses(7, 5, 1, 3), losses(9, 6, 3, 4, "sigmoid"),
                       losses(7, 5, 1, 5, "sigmoid")],
            "scores": [scores(5, 4, 2, 6, "softmax"), scores(5, 6, 3, 7, "softmax", scaling=2.5),
                       scores(5, 6, 3, 8, "softmax", True), scores(5, 6, 1, 9, "softmax", True, 1.5),
                       scores(5, 6, 3, 10, "sigmoid"), scores(5, 6, 1, 11, "sigmoid"),
                       scores(5, 8, 2, 12, "sigmoid", True, 2.5)],
            "biased": [biased(9, 6, 3, 13), biased(8, 5, 1, 14, 2.5), biased(12, 4, 2, 15, rate=0.01)],
            "sinkhorn": [sinkhorn_scores(40, 6, 2, 17, 1.0), sinkhorn_scores(33, 5, 1, 18, 1.5),
                         sinkhorn_scores(24, 8, 3, 20, 0.5)]}
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(made, file, separators=(",", ":"))
        file.write("\n")


main()
