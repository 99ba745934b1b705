#!/usr/bin/env python3
"""scripts/send_metrics.py with stand-ins for wandb and mlflow: what they are called with.

    python3 tests/scripts/send_metrics_test.py
"""
import contextlib
import importlib.util
import io
import json
import math
import os
import pathlib
import sys
import tempfile
import types
import unittest
from unittest import mock

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "send_metrics.py"
spec = importlib.util.spec_from_file_location("send_metrics", SCRIPT)
send_metrics = importlib.util.module_from_spec(spec)
spec.loader.exec_module(send_metrics)


def step(number, **more):
    return json.dumps({"step": number, "total_steps": 9, "loss": 4.0 - number} | more) + "\n"


def fake(*functions):
    """A module of which every call is in `calls`: (function, positional, named)."""
    module = types.SimpleNamespace(calls=[])

    def recorder(name):
        return lambda *positional, **named: module.calls.append((name, positional, named))

    for name in functions:
        setattr(module, name, recorder(name))
    return module


class SendMetrics(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.run_folder = pathlib.Path(folder.name) / "run1"
        self.run_folder.mkdir()
        self.metrics = self.run_folder / "metrics.jsonl"
        self.wandb = fake("init", "log", "finish")
        self.mlflow = fake("set_experiment", "start_run", "log_params", "log_metrics", "end_run")
        modules = mock.patch.dict(sys.modules, {"wandb": self.wandb, "mlflow": self.mlflow})
        modules.start()
        self.addCleanup(modules.stop)

    def send(self, *arguments):
        send_metrics.main([arguments[0], str(self.run_folder), *arguments[1:]])

    def logged(self):
        return [(named["step"], *positional) for name, positional, named in self.wandb.calls if name == "log"]

    def test_sends_each_number_under_its_name(self):
        self.metrics.write_text(
            step(0, rank_tokens=[30, 34], plans="abc", grad_norm=None)
            + '{"step":0,"eval_loss":2.5,"milliseconds":7}\n{"step":0,"eval_chat_loss":1.5,"milliseconds":8}\n')
        self.send("wandb")
        (first, numbers), *evaluations = self.logged()
        self.assertEqual(first, 0)
        self.assertTrue(math.isnan(numbers.pop("grad_norm")))
        self.assertEqual(numbers, {"loss": 4.0, "rank_tokens/0": 30, "rank_tokens/1": 34})
        self.assertEqual(evaluations, [(0, {"eval_loss": 2.5, "eval_milliseconds": 7}),
                                       (0, {"eval_chat_loss": 1.5, "eval_chat_milliseconds": 8})])

    def test_names_the_run_and_sends_its_settings(self):
        self.metrics.write_text(step(1))
        (self.run_folder / "config.resolved.yaml").write_text(
            'seed: 1\nsplit: null\ntrain_file: ["a.jsonl"]\nlr_scheduler_type: linear\n')
        settings = {"seed": 1, "split": None, "train_file": ["a.jsonl"], "lr_scheduler_type": "linear"}
        with mock.patch.dict(os.environ):
            os.environ.pop("WANDB_MODE", None)
            self.send("wandb", "--project=tries")
        self.assertEqual(self.wandb.calls[0],
                         ("init", (), {"project": "tries", "name": "run1", "config": settings, "mode": "offline"}))
        self.assertEqual(self.wandb.calls[-1][0], "finish")
        self.send("mlflow", "--name=first")
        self.assertEqual(self.mlflow.calls, [
            ("set_experiment", ("mixtune",), {}), ("start_run", (), {"run_name": "first"}),
            ("log_params", (settings,), {}), ("log_metrics", ({"loss": 3.0},), {"step": 1}), ("end_run", (), {})])

    def test_leaves_out_what_is_no_record(self):
        self.metrics.write_text("{}\n[1]\nnull\n\n{\"step\":\"1\"}\n" + step(1) + "{\"step\":2,\"lo\n" + step(3)[:-3])
        self.send("wandb")
        self.assertEqual([number for number, _ in self.logged()], [1])

    def test_follows_a_run_that_grows_and_is_cut(self):
        self.metrics.write_text(step(1) + step(2) + step(3)[:10])
        contents = [step(1) + step(2) + step(3) + step(4),  # the line is whole now
                    step(1) + step(2),  # goes on from step 2
                    step(1) + step(2) + step(3, longer=1) + step(4) + step(5),
                    step(1) + step(2) + step(3) + step(4) + step(5) + step(6, longer=1) + step(7)]  # cut in between

        def wait(_):
            if not contents:
                raise KeyboardInterrupt
            self.metrics.write_text(contents.pop(0))

        with mock.patch.object(send_metrics.time, "sleep", wait):
            self.send("wandb", "--follow")
        self.assertEqual([number for number, _ in self.logged()], [1, 2, 3, 4, 5, 6, 7])
        self.assertEqual(self.wandb.calls[-1][0], "finish")

    def refusal(self, tracker):
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors), self.assertRaises(SystemExit) as end:
            self.send(tracker)
        self.assertEqual(end.exception.code, 2)
        return errors.getvalue().splitlines()[-1]

    def test_refuses_what_cannot_be_sent(self):
        self.assertIn("metrics.jsonl is no file; name the output folder", self.refusal("wandb"))
        self.metrics.write_text(step(1))
        with mock.patch.dict(sys.modules, {"mlflow": None}):
            self.assertIn("pip install mlflow", self.refusal("mlflow"))


if __name__ == "__main__":
    unittest.main()
