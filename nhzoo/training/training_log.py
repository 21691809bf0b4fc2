"""The curve of a run: `log.jsonl`, a line a report, and the same for TensorBoard.

TensorBoard's files are written here and not by its writer, whose thread prints a traceback of its
own and may wait for ever when the disk is full.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from nhzoo.evaluation.loss import Loss
from nhzoo.runtime import files


@dataclass
class Progress:
    """What a running training reports: `loss` is the mean since the last report.

    `news`: what else there is to say, by name, as numbers.
    """

    update: int
    updates: int | None
    frames: int
    flops: float
    loss: float
    lr: float
    grad_norm: float
    frames_per_second: float
    seconds: float
    validation: Loss | None = None
    news: dict[str, float] = field(default_factory=dict)


class TrainingLog:
    """Appends to the log of a run that goes on after `update`; later lines are dropped."""

    def __init__(self, folder: Path, update: int) -> None:
        self._path = folder / "log.jsonl"
        with files.saving(self._path):
            _cut(self._path, update)
            self._lines = open(self._path, "a")
            events = folder / "tensorboard"
            events.mkdir(exist_ok=True)
            name = f"events.out.tfevents.{time.time():.0f}.{os.getpid()}"
            self._events = open(events / name, "wb")
            self._record = RecordWriter(self._events)
            self._add(Event(file_version="brain.Event:2"))
            restarted = SessionLog(status=SessionLog.START)  # hides what a killed run left
            self._add(Event(step=update + 1, session_log=restarted))

    def write(self, report: Progress) -> None:
        """One report, on the disk when this returns."""
        row = asdict(report)
        scalars = {
            f"train/{name}": row[name] for name in ("loss", "lr", "grad_norm", "frames_per_second")
        }
        validation, news = row.pop("validation"), row.pop("news")
        row |= news
        scalars |= {f"train/{name}": value for name, value in news.items()}
        if validation:
            row |= {
                "validation_loss": validation["loss"],
                "validation_accuracy": validation["accuracy"],
            }
            scalars |= {
                "validation/loss": validation["loss"],
                "validation/accuracy": validation["accuracy"],
            }
        with files.saving(self._path):
            self._lines.write(json.dumps(row) + "\n")
            self._lines.flush()
            values = [Summary.Value(tag=name, simple_value=v) for name, v in scalars.items()]
            self._add(Event(step=report.update, summary=Summary(value=values)))
            self._events.flush()

    def close(self) -> None:
        """Close both files."""
        with files.saving(self._path):
            try:
                self._lines.close()
            finally:
                self._events.close()

    def _add(self, event: Any) -> None:
        event.wall_time = time.time()
        self._record.write(event.SerializeToString())


def _cut(path: Path, update: int) -> None:
    """Drop the lines that a killed run wrote after its last saved state."""
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
        kept = [line for line in lines if json.loads(line)["update"] <= update]
        files.atomic_write(path, "".join(line + "\n" for line in kept).encode())
