#!/usr/bin/env python3
"""Writes tests/fixtures/router.json: what Megatron-Core's own router functions make of a few tokens' logits.

Needs megatron-core (0.16.1) and torch. Running it twice gives the same bytes:

    python scripts/make_router_fixtures.py tests/fixtures/router.json

`losses` has load-balancing losses and the z-loss with their gradients in float64 logits; a sequence loss is that of
documents by themselves, their mean. A loss over several accumulation steps has the logits of each in turn.
"""

import json
import sys

import torch
from megatron.core.transformer.moe.moe_utils import (
    compute_routing_scores_for_aux_loss,
    switch_load_balancing_loss_func,
    z_loss_func,
)


def numbers(tensor):
    return [float(x) for x in tensor.detach().flatten()]


def switch(logits, k, counts=None, counted=1):
    """The loss of one layer; `counts` of earlier steps, `counted` their number with this one."""
    chosen, scores = compute_routing_scores_for_aux_loss(logits, k, "softmax")
    tokens = chosen.sum(dim=0)
    if counts is not None:
        tokens = (tokens + counts) / counted
    tokens_in_all, experts = logits.shape
    return switch_load_balancing_loss_func(
        probs=scores, tokens_per_expert=tokens, total_num_tokens=tokens_in_all, topk=k, num_experts=experts,
        moe_aux_loss_coeff=1.0), chosen.sum(dim=0)


def sequence(logits, k, offsets):
    documents = [switch(logits[a:b], k)[0] for a, b in zip(offsets, offsets[1:])]
    return sum(documents) / len(documents)


def losses(tokens, experts, k, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = (2 * torch.randn(tokens, experts, generator=generator)).double().requires_grad_()
    other = (2 * torch.randn(tokens, experts, generator=generator)).double()
    offsets = [0, 1, tokens // 2, tokens]
    earlier = switch(other, k)[1]
    made = {"z": z_loss_func(logits, 1.0), "aux_loss": switch(logits, k)[0],
            "global_aux_loss": switch(logits, k, earlier, 2)[0], "seq_aux_loss": sequence(logits, k, offsets)}
    return {"experts": experts, "k": k, "logits": numbers(logits), "doc_offsets": offsets,
            "earlier_counts": numbers(earlier),
            "values": {name: float(loss) for name, loss in made.items()},
            "gradients": {name: numbers(torch.autograd.grad(loss, logits, retain_graph=True)[0])
                          for name, loss in made.items()}}


def main():
    made = {"losses": [losses(12, 4, 2, 1), losses(9, 6, 3, 2), losses(7, 5, 1, 3)]}
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(made, file, separators=(",", ":"))
        file.write("\n")


main()
