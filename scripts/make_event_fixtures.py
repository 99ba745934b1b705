#!/usr/bin/env python3
"""Writes tests/fixtures/events/: an event file of TensorBoard's own library, for src/metrics's tests to match.

Needs tensorboard (2.21) and its protobuf. Running it twice gives the same bytes:

    python scripts/make_event_fixtures.py tests/fixtures/events
"""

import pathlib
import sys

from tensorboard.compat.proto.event_pb2 import Event, SessionLog, SourceMetadata
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


def scalars(wall_time, step, values):
    return Event(
        wall_time=wall_time,
        step=step,
        summary=Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values]),
    )


EVENTS = [
    Event(wall_time=1764450000.25, file_version="brain.Event:2", source_metadata=SourceMetadata(writer="mixtune")),
    Event(wall_time=1764450000.5, step=5, session_log=SessionLog(status=SessionLog.START)),
    scalars(1764450001.125, 5, [("lm loss", 3.25), ("learning-rate", 1e-5), ("a", 0.0), ("b", -0.0)]),
    scalars(1764450002.0, 1 << 40, [("nan", float("nan")), ("inf", float("inf")), ("-inf", float("-inf"))]),
    scalars(1764450003.0, 0, [("x" * 300, 1e-42), ("Maß", 16777216.0)]),
    scalars(1764450004.0, 128, []),
]


def main(folder):
    with open(pathlib.Path(folder) / "few", "wb") as file:
        writer = RecordWriter(file)
        for event in EVENTS:
            writer.write(event.SerializeToString())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
