#!/usr/bin/env python3
"""Checks with TensorBoard itself that a run's event files have what its metrics.jsonl has, of each step once.

    python scripts/check_with_tensorboard.py OUTPUT_DIR...      needs tensorboard (2.21 was tried)

Reads `runs` of each folder as TensorBoard does, and compares every number. Exit status 1 where one is missing, is
another, or is there without a record.
"""
import json
import math
import pathlib
import re
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

NAMES = {
    "lm_loss": "lm loss",
    "grad_norm": "grad-norm",
    "learning_rate": "learning-rate",
    "model_tflops": "throughput",
    "eval_loss": "lm loss validation",
    "eval_perplexity": "lm loss validation ppl",
}
NOT_SHOWN = {"step", "total_steps", "plans", "layer_expert_tokens"}


def as_float(number):
    return struct.unpack("f", struct.pack("f", number))[0]


def without_name(record):
    """The record with the fields of a set that has no name, and what follows its tags: "/chat", or nothing."""
    names = [re.fullmatch("eval_(.+)_loss", field) for field in record]
    name = next((found[1] for found in names if found), None)
    if name is None:
        return record, ""
    return {field.replace(f"eval_{name}_", "eval_", 1): number for field, number in record.items()}, f"/{name}"


def expected_scalars(record):
    """(tag, number) of a record; a number that JSON lacks is None."""
    record, end = without_name(record)
    yield from ((tag + end, number) for tag, number in scalars_of(record))


def scalars_of(record):
    for name, value in record.items():
        if name in NOT_SHOWN:
            continue
        if isinstance(value, list):
            yield from ((f"{name}/{i}", number) for i, number in enumerate(value))
        elif name == "milliseconds":
            yield ("eval_milliseconds", value) if "eval_loss" in record else ("iteration-time", value / 1000)
        else:
            yield NAMES.get(name, name), value


def same(found, wanted):
    if wanted is None:
        return not math.isfinite(found)
    return math.isclose(found, as_float(wanted), rel_tol=1e-6)


def check(folder):
    expected = {}
    with open(folder / "metrics.jsonl") as lines:
        for record in map(json.loads, lines):
            for tag, number in expected_scalars(record):
                expected.setdefault(tag, []).append((record["step"], number))
    accumulator = EventAccumulator(str(folder / "runs"), size_guidance={"scalars": 0})
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    faults = [f"{tag} is shown, and in no record" for tag in tags if tag not in expected]
    count = 0
    for tag, points in expected.items():
        found = accumulator.Scalars(tag) if tag in tags else []
        if [event.step for event in found] != [step for step, _ in points]:
            faults.append(f"{tag} has {len(found)} steps, of {len(points)}, or others")
            continue
        faults += [
            f"{tag}, step {step}: {event.value} is shown, {number} was recorded"
            for event, (step, number) in zip(found, points)
            if not same(event.value, number)
        ]
        count += len(points)
    print(f"{folder}: {count} numbers of {len(expected)} tags, {len(faults)} faults")
    for fault in faults[:20]:
        print(f"  {fault}")
    return not faults


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(0 if all([check(pathlib.Path(folder)) for folder in sys.argv[1:]]) else 1)
