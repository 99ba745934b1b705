#!/usr/bin/env python3
"""Writes tests/fixtures/schedules.json: learning rates of transformers' and Megatron-Core's schedules, step by step.

Needs transformers (5.24), megatron-core (0.16.1) and torch. Running it twice gives the same bytes:

    python scripts/make_schedule_fixtures.py tests/fixtures/schedules.json

A case has the keys as mixtune's configuration has them, the steps of the run, and the learning rate of each of them.
"""

import json
import sys

import torch
import transformers
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

RUNS = [(0, 1), (0, 7), (3, 12), (5, 5), (9, 4), (10, 100)]  # warm-up, total

HUGGING_FACE = [
    ("constant", {}),
    ("constant_with_warmup", {}),
    ("linear", {}),
    ("cosine", {}),
    ("cosine", {"num_cycles": 1.25}),
    ("cosine_with_restarts", {}),
    ("cosine_with_restarts", {"num_cycles": 3}),
    ("inverse_sqrt", {}),
    ("inverse_sqrt", {"timescale": 40}),
    ("polynomial", {}),
    ("polynomial", {"lr_end": 1e-5, "power": 2.5}),
    ("cosine_with_min_lr", {"min_lr": 2e-6}),
    ("cosine_with_min_lr", {"min_lr_rate": 0.1, "num_cycles": 1.5}),
    ("cosine_warmup_with_min_lr", {"min_lr": 2e-6}),
    ("cosine_warmup_with_min_lr", {"min_lr_rate": 0.1, "warmup_lr_rate": 0.05, "num_cycles": 1}),
]
STAGES = [  # warm-up, total, settings of warmup_stable_decay
    (0, 1, {"num_decay_steps": 1}),
    (0, 9, {"num_decay_steps": 9}),
    (3, 12, {"num_decay_steps": 4}),
    (3, 12, {"num_decay_steps": 4, "num_stable_steps": 2}),
    (5, 30, {"num_decay_steps": 10, "min_lr_ratio": 0.1, "decay_type": "linear"}),
    (5, 30, {"num_decay_steps": 10, "min_lr_ratio": 0.1, "warmup_type": "cosine", "decay_type": "1-sqrt"}),
    (5, 30, {"num_decay_steps": 10, "warmup_type": "1-sqrt", "decay_type": "cosine", "num_cycles": 1.5}),
    (10, 100, {"num_decay_steps": 0, "min_lr_ratio": 0.25}),
]
# Megatron-Core's settings, and what says the same in mixtune.
MEGATRON = [
    (dict(lr_decay_style="linear", min_lr=0.0), "linear", {}),
    (dict(lr_decay_style="linear", min_lr=3e-6), "polynomial", {"lr_end": 3e-6}),
    (dict(lr_decay_style="cosine", min_lr=0.0), "cosine", {}),
    (dict(lr_decay_style="cosine", min_lr=3e-6), "cosine_with_min_lr", {"min_lr": 3e-6}),
    (dict(lr_decay_style="inverse-square-root", min_lr=0.0), "inverse_sqrt", {}),
    (dict(lr_decay_style="constant", min_lr=0.0), "constant_with_warmup", {}),
]
MEGATRON += [
    (dict(lr_decay_style="WSD", min_lr=0.0, wsd_decay_steps=8, lr_wsd_decay_style=style), "warmup_stable_decay",
     {"num_decay_steps": 8, "decay_type": ours})
    for style, ours in [("linear", "linear"), ("cosine", "cosine"), ("minus_sqrt", "1-sqrt"),
                        ("exponential", "exponential")]
]


def case(of, peak, run, name, settings, rates):
    warmup, total = run
    config = {"learning_rate": peak, "lr_scheduler_type": name, "warmup_steps": warmup}
    if settings:
        config["lr_scheduler_kwargs"] = settings
    return {"of": of, "config": config, "total": total, "rates": rates}


def of_hugging_face(peak, run, name, settings):
    warmup, total = run
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    schedule = transformers.get_scheduler(name, optimizer, warmup, total, settings)
    rates = []
    for step in range(total):
        if step > 0:
            optimizer.step()
            schedule.step()
        rates.append(float(schedule.get_last_lr()[0]))
    return case("transformers", peak, run, name, settings, rates)


def of_megatron(peak, run, theirs, name, settings):
    warmup, total = run
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    schedule = OptimizerParamScheduler(optimizer, init_lr=0.0, max_lr=peak, lr_warmup_steps=warmup,
                                       lr_decay_steps=total, start_wd=0.0, end_wd=0.0, wd_incr_steps=total,
                                       wd_incr_style="constant", **theirs)
    rates = []
    for _ in range(total):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        schedule.step(1)
    return case("megatron-core", peak, run, name, settings, rates)


def main():
    cases = [of_hugging_face(5e-5, run, name, settings) for name, settings in HUGGING_FACE for run in RUNS]
    cases += [of_hugging_face(3e-4, (warmup, total), "warmup_stable_decay", settings)
              for warmup, total, settings in STAGES]
    cases += [of_megatron(3e-5, (5, 30), *each) for each in MEGATRON]
    with open(sys.argv[1], "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(each) for each in cases) + "\n]\n")


main()
