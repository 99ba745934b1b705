#!/usr/bin/env python3
"""Writes tests/fixtures/capacity.json: which tokens Megatron-Core's own function drops, and the gradient through it.

Needs megatron-core (0.16.1) and torch. Running it twice gives the same bytes:

    python scripts/make_capacity_fixtures.py tests/fixtures/capacity.json

Megatron-Core leaves equals to torch.topk, which promises no order of them (on a CPU it keeps others than the earliest
of a list of ones, so that `position` drops what it will). While its function runs, topk is a stable sort here: of
equals the earliest come first, as the documentation of `position` has it.
"""

import json
import sys
from unittest import mock

import torch
from megatron.core.transformer.moe.moe_utils import (
    apply_router_token_dropping,
    get_capacity,
    topk_routing_with_score_function,
)


def stable_topk(scores, k, dim, sorted):  # noqa: A002, as torch names it
    values, places = torch.sort(scores, dim=dim, descending=True, stable=True)
    return values.narrow(dim, 0, k), places.narrow(dim, 0, k)


def numbers(tensor):
    return [float(x) for x in tensor.detach().flatten()]


def case(tokens, experts, k, factor, policy, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(tokens, experts, generator=generator)
    logits += torch.linspace(1.5, 0, experts)  # the first experts get more than their share
    logits = logits.double().requires_grad_()
    coefficients = torch.randn(tokens, experts, generator=generator).double()
    chosen, choice = topk_routing_with_score_function(logits, k)
    with mock.patch.object(torch, "topk", stable_topk):
        probabilities, kept = apply_router_token_dropping(chosen, choice, k, factor, policy)
    (probabilities * coefficients).sum().backward()
    return {"experts": experts, "k": k, "factor": factor, "policy": policy, "logits": numbers(logits),
            "capacity": min(tokens, get_capacity(tokens * k, experts, factor)),
            "kept": [int(x) for x in kept.flatten()], "probabilities": numbers(probabilities),
            "coefficients": numbers(coefficients), "gradient": numbers(logits.grad)}


def main():
    made = []
    for seed, (tokens, experts, k, factor) in enumerate(
            [(12, 4, 2, 1.0), (13, 5, 2, 0.6), (9, 6, 3, 1.25), (11, 3, 1, 0.5), (8, 2, 2, 0.3), (10, 4, 2, 3.0)]):
        made += [case(tokens, experts, k, factor, policy, seed) for policy in ("probs", "position")]
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump({"drops": made}, file, separators=(",", ":"))
        file.write("\n")


main()
