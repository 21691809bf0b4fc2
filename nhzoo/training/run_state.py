"""All that a run needs to go on, in one file, and the file of the save before it.

Both are complete at any moment, whatever kills the process; a sum over the bytes shows what a
failing disk has done to them. Rank 0 alone reads and writes.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from nhzoo.errors import InputError, refusal
from nhzoo.runtime import files

STATE = "state.safetensors"
BEFORE = "state.before.safetensors"


@dataclass
class RunState:
    """Tensors by name, and the rest as plain JSON."""

    tensors: dict[str, torch.Tensor]
    counters: dict[str, Any]

    def group(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors called `prefix`.something, by that something."""
        start = f"{prefix}."
        return {k.removeprefix(start): v for k, v in self.tensors.items() if k.startswith(start)}


def claim(folder: Path, config: Mapping[str, Any], free: Collection[str] = ()) -> None:
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


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """What an optimizer remembers of each parameter, as tensors called <number>.<name>."""
    held = optimizer.state_dict()["state"]
    return {
        f"{number}.{name}": torch.as_tensor(value)
        for number, moments in held.items()
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
