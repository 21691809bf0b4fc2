"""The state of a run on disk: all that a resume needs, the save before it, and the curve.

Both are complete at any moment, whatever kills the process; a sum over the bytes shows what a
failing disk has done to them. Rank 0 alone reads and writes.

The curve of a run is `log.jsonl`, a line a report, and with the extra `tensorboard` the same for
TensorBoard. Its records are written here, at once: when the disk is full, the thread of
TensorBoard's own writer prints a traceback, and `flush` waits for it for ever.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from nhzoo.errors import InputError, refusal
from nhzoo.evaluation.loss import Loss
from nhzoo.runtime import files


@dataclass
class Progress:
    """What a running training reports: `loss` is the mean since the last report.

    It and the gradient's norm are None where nothing was learnt since.

    `metrics`: what else there is to say, by name, as numbers.
    """

    update: int
    updates: int | None
    frames: int
    flops: float
    loss: float | None
    lr: float
    grad_norm: float | None
    frames_per_second: float
    seconds: float
    validation: Loss | None = None
    metrics: dict[str, float] = field(default_factory=dict)


class TrainingLog:
    """Appends to the log of a run that goes on after `update`; later lines are dropped."""

    def __init__(self, folder: Path, update: int) -> None:
        self._path = folder / "log.jsonl"
        with files.saving(self._path):
            _cut(self._path, update)
            self._lines = open(self._path, "a")
            found = importlib.util.find_spec("tensorboard") is not None
            self._events = _Events(folder / "tensorboard", update) if found else None

    def write(self, report: Progress) -> None:
        """One report, on the disk when this returns."""
        row = asdict(report)
        names = ("loss", "lr", "grad_norm", "frames_per_second")
        scalars = {f"train/{name}": row[name] for name in names if row[name] is not None}
        validation, metrics = row.pop("validation"), row.pop("metrics")
        row |= metrics
        scalars |= {f"train/{name}": value for name, value in metrics.items()}
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
            if self._events:
                self._events.write(report.update, scalars)

    def close(self) -> None:
        """Close both files."""
        with files.saving(self._path):
            try:
                self._lines.close()
            finally:
                if self._events:
                    self._events.close()


class _Events:
    """The events of a run for TensorBoard, in a file of their own for each time it is resumed."""

    def __init__(self, folder: Path, update: int) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        folder.mkdir(exist_ok=True)
        self._file = open(folder / f"events.out.tfevents.{time.time():.0f}.{os.getpid()}", "wb")
        self._record = RecordWriter(self._file)
        self._add(file_version="brain.Event:2")
        # Hides what a killed run left.
        restarted = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._add(step=update + 1, session_log=restarted)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """On the disk when this returns."""
        values = [self._summary.Value(tag=k, simple_value=v) for k, v in scalars.items()]
        self._add(step=step, summary=self._summary(value=values))
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _add(self, **parts: Any) -> None:
        self._record.write(self._event(wall_time=time.time(), **parts).SerializeToString())


def _cut(path: Path, update: int) -> None:
    """Drop the lines that a killed run wrote after its last saved state."""
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
        kept = [line for line in lines if json.loads(line)["update"] <= update]
        files.atomic_write(path, "".join(line + "\n" for line in kept).encode())


STATE = "state.safetensors"
BEFORE = "state.before.safetensors"


@dataclass
class RunState:
    """Tensors by name, and the rest as plain JSON."""

    tensors: dict[str, torch.Tensor]
    counters: dict[str, Any]

    @classmethod
    def of(
        cls, groups: Mapping[str, Mapping[str, torch.Tensor]], counters: dict[str, Any]
    ) -> RunState:
        """From groups of tensors, see `group`."""
        tensors = {f"{group}.{k}": v for group, named in groups.items() for k, v in named.items()}
        return cls(tensors, counters)

    def group(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors called `prefix`.something, by that something."""
        start = f"{prefix}."
        return {k.removeprefix(start): v for k, v in self.tensors.items() if k.startswith(start)}


def check_config(folder: Path, config: Mapping[str, Any], free: Collection[str] = ()) -> None:
    """Keep in `folder` what is asked for; InputError where it holds a run of other options.

    Those in `free` may have become others, and are kept as they are now.
    """
    path = folder / "run.json"
    before = files.read_json(path) if path.exists() else None
    if before == config:
        return
    if before is not None:
        changed = sorted(k for k, v in config.items() if before.get(k) != v and k not in free)
        if changed or before.keys() != config.keys():
            raise InputError(
                f"{folder}: holds a run with another {', '.join(changed) or 'version'}; "
                "give the same options to go on, or another --run"
            )
    with files.saving(path):
        files.atomic_write(path, files.dump_json(config))


def write_state(folder: Path, state: RunState) -> None:
    """Write a state, complete or not at all, and keep the one before."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in state.tensors.items()}
    counters = json.dumps(state.counters)
    about = {"counters": counters, "crc32": str(_checksum(tensors, counters))}
    with files.saving(folder / STATE):
        files.atomic_write(folder / STATE, safetensors.torch.save(tensors, about), folder / BEFORE)


def read_state(folder: Path, say: Callable[[str], None]) -> RunState | None:
    """The last state saved in `folder`; where that is damaged, the one before, and `say` so."""
    latest, before = folder / STATE, folder / BEFORE
    if not latest.exists():  # killed between two renames, or nothing saved yet
        return _read(before) if before.exists() else None
    try:
        return _read(latest)
    except InputError as error:
        if not before.exists():
            raise
        state = _read(before)
        os.replace(before, latest)  # the damaged file shall not become the one that is kept
        say(f"{error}; went back to the state before it")
        return state


@contextlib.contextmanager
def restoring(folder: Path) -> Iterator[None]:
    """What goes wrong inside it is an InputError: the run cannot be resumed from its state."""
    try:
        yield
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{folder}: cannot go on from its state ({reason}); delete it to start anew"
        ) from None


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """What an optimizer remembers of each parameter, as tensors called <number>.<name>."""
    return {
        f"{number}.{name}": torch.as_tensor(value)
        for number, moments in optimizer.state_dict()["state"].items()
        for name, value in moments.items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]
) -> None:
    """The inverse of `optimizer_state`; hyperparameters stay as they are."""
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for label, tensor in tensors.items():
        number, name = label.split(".", 1)
        moments.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})


def _read(path: Path) -> RunState:
    try:
        with safetensors.safe_open(path, "pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if int(about["crc32"]) != _checksum(tensors, about["counters"]):
            raise ValueError("its bytes have changed")
        return RunState(tensors, json.loads(about["counters"]))
    except OSError as error:  # of a disk or its permissions: the state itself may be sound
        raise InputError(f"{path}: cannot be read: {refusal(error)}") from None
    except (safetensors.SafetensorError, LookupError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path}: cannot go on from it ({reason}); delete it to start anew"
        ) from None


def _checksum(tensors: Mapping[str, torch.Tensor], counters: str) -> int:
    total = zlib.crc32(counters.encode())
    for name in sorted(tensors):
        flat = np.ascontiguousarray(tensors[name].reshape(-1).view(torch.uint8).numpy())
        total = zlib.crc32(flat.data, zlib.crc32(name.encode(), total))
    return total
