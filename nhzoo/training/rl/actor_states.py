"""Where actors stand, as tensors and plain JSON for the state of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from nhzoo.training.rl.actors import ActorState

_ARRAYS = ("first", "core", "recall")


def pack_states(states: Mapping[int, ActorState]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors by name, and the rest."""
    tensors: dict[str, torch.Tensor] = {}
    rest: dict[str, Any] = {}
    for number, state in states.items():
        arrays = {name: getattr(state, name) for name in _ARRAYS}
        arrays |= {f"frame.{name}": array for name, array in state.frame.items()}
        arrays["recall"] = state.recall.view(np.int16)
        arrays["actions"] = np.array(bytearray(b"".join(state.actions)), np.uint8)
        tensors |= {f"{number}.{name}": torch.from_numpy(a) for name, a in arrays.items()}
        rest[str(number)] = {
            "started": state.started,
            "random": state.random,
            "numbers": state.numbers,
            "lengths": [len(actions) for actions in state.actions],
            "cut": state.cut,
        }
    return tensors, rest


def unpack_states(
    tensors: Mapping[str, torch.Tensor], rest: Mapping[str, Any]
) -> dict[int, ActorState]:
    """The inverse of `pack_states`."""
    states = {}
    for number, held in rest.items():
        mine = {
            name.removeprefix(f"{number}."): tensor.numpy()
            for name, tensor in tensors.items()
            if name.startswith(f"{number}.")
        }
        ends = np.cumsum(held["lengths"]).tolist()
        actions, begins = mine["actions"].tobytes(), [0, *ends][: len(ends)]
        states[int(number)] = ActorState(
            held["started"],
            held["random"],
            held["numbers"],
            [actions[begin:end] for begin, end in zip(begins, ends, strict=True)],
            held["cut"],
            mine["first"],
            mine["core"],
            mine["recall"].view(np.uint16),
            {k.removeprefix("frame."): v for k, v in mine.items() if k.startswith("frame.")},
        )
    return states
