#!/usr/bin/env python3
"""Sends what a run records to Weights & Biases or MLflow: scripts/send_metrics.py wandb|mlflow OUTPUT_DIR

Reads metrics.jsonl and config.resolved.yaml of a run, while it trains too (--follow), and makes one run of the tracker.
Needs Python's wandb or mlflow. docs/other-trackers.md has the names that numbers get there.
"""
import argparse
import json
import math
import os
import pathlib
import re
import sys
import time

NO_NUMBERS = {"step", "total_steps"}
SECONDS_BETWEEN_LOOKS = 5


class Wandb:
    def __init__(self, project, name, settings):
        import wandb
        self.wandb = wandb
        wandb.init(project=project, name=name, config=settings, mode=os.environ.get("WANDB_MODE", "offline"))

    def send(self, step, numbers):
        self.wandb.log(numbers, step=step)

    def finish(self):
        self.wandb.finish()


class Mlflow:
    def __init__(self, project, name, settings):
        import mlflow
        self.mlflow = mlflow
        mlflow.set_experiment(project)
        mlflow.start_run(run_name=name)
        mlflow.log_params(settings)

    def send(self, step, numbers):
        self.mlflow.log_metrics(numbers, step=step)

    def finish(self):
        self.mlflow.end_run()


def read_settings(path):
    """{key: value} of a config.resolved.yaml, which has a line for each; {} where there is none."""
    settings = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        key, colon, text = line.partition(": ")
        if colon and re.fullmatch(r"\w+", key):
            try:
                settings[key] = json.loads(text)
            except ValueError:
                settings[key] = text
    return settings


def whole_lines(path, follow):
    """The file's lines, those that come later too; all of them again where it was cut, as a run does that goes on."""
    place = 0
    while True:
        with path.open("rb") as file:
            file.seek(max(place - 1, 0))
            if place > 0 and file.read(1) != b"\n":
                place = file.seek(0)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                place += len(line)
                yield line
        if not follow:
            return
        time.sleep(SECONDS_BETWEEN_LOOKS)


def parsed(line):
    """(step, record) of a line; None where it is no record."""
    try:
        record = json.loads(line)
        return (record["step"], record) if type(record["step"]) is int else None
    except (ValueError, TypeError, KeyError):
        return None


def evaluated(record):
    """What the names of an evaluation's numbers begin with: "eval_", "eval_chat_"; None where it is a step's record."""
    found = (re.fullmatch("(eval_(?:.+_)?)loss", name) for name in record)
    return next((match[1] for match in found if match), None)


def numbers_of(record):
    """{name: number}: a list's are NAME/0, NAME/1, ...; what was not finite, null in the file, is NaN."""
    numbers, prefix = {}, evaluated(record) or ""
    for name, value in record.items():
        name = prefix + name if name == "milliseconds" else name
        parts = [(f"{name}/{i}", part) for i, part in enumerate(value)] if isinstance(value, list) else [(name, value)]
        for part, number in parts:
            if part not in NO_NUMBERS and (number is None or type(number) in (int, float)):
                numbers[part] = math.nan if number is None else number
    return numbers


def send(tracker, lines):
    """Sends each step and each evaluation once."""
    last = {}
    for step, record in filter(None, map(parsed, lines)):
        kind = evaluated(record)
        if step > last.get(kind, -1):
            tracker.send(step, numbers_of(record))
            last[kind] = step


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tracker", choices=["wandb", "mlflow"])
    parser.add_argument("output_dir", type=pathlib.Path)
    parser.add_argument("--follow", action="store_true", help="go on until Ctrl-C, with what the run still records")
    parser.add_argument("--project", default="mixtune", help="or experiment (default: %(default)s)")
    parser.add_argument("--name", help="of the run there (default: the folder's)")
    options = parser.parse_args(arguments)
    metrics = options.output_dir / "metrics.jsonl"
    if not metrics.is_file():
        parser.error(f"{metrics} is no file; name the output folder of a run that has begun")
    settings = read_settings(options.output_dir / "config.resolved.yaml")
    name = options.name or options.output_dir.resolve().name
    try:
        tracker = (Wandb if options.tracker == "wandb" else Mlflow)(options.project, name, settings)
    except ImportError as error:
        parser.error(f"{error}; pip install {options.tracker}")
    try:
        send(tracker, whole_lines(metrics, options.follow))
    except KeyboardInterrupt:
        pass  # what was sent stays
    tracker.finish()


if __name__ == "__main__":
    main()
