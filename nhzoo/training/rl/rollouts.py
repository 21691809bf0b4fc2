"""Unrolls: what an actor plays for a learner, T steps of several games in one piece of memory.

An unroll has T + 1 frames: the last gives the value after the last step, and is the first of the
next unroll again. The learner computes logits and values anew from the features that are stored and
the core's state before the first frame.

A game that ends in a death is followed by the first frame of the next. One that is cut short (step
cap, no progress) is followed by its own last frame, at which nothing is pressed (`valid` is 0):
the value of that frame is what the game would still have been worth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nhzoo.policy.features import Features
from nhzoo.policy.network import LAYERS

Array = np.ndarray[Any, Any]
_ALIGNED = 64


@dataclass(frozen=True)
class Finished:
    """A game that an actor has played to its end. `score` is the game's own, whatever the rewards.

    `cut`: it was cut short.
    """

    score: float
    steps: int
    depth: int
    cut: bool


@dataclass
class Unroll:
    """T steps of B games.

    `features` [T + 1, B, ...]. `first` bool [T + 1, B]: the first frame of a game, before which
    state and recall are empty. `valid` bool [T, B]: something was pressed. `actions` uint8 [T, B]
    and the natural logarithms of the probabilities with which they were chosen, `log_probs` float32
    [T, B]. `rewards` float32 [T, B], unscaled. `died` bool [T, B]: the step ended the game for
    good. `state` float32 [3, B, hidden]: the core's before frame 0.

    `actor` and `version` say who played with which weights; `finished` which games ended;
    `started` how many the actor has begun so far.
    """

    features: Features
    first: Array
    valid: Array
    actions: Array
    log_probs: Array
    rewards: Array
    died: Array
    state: Array
    actor: int = 0
    version: int = 0
    started: int = 0
    finished: list[Finished] = field(default_factory=list)

    @classmethod
    def within(cls, buffer: Any, time: int, games: int, hidden: int) -> Unroll:
        """Arrays that lie in `buffer`, of `unroll_bytes` bytes."""
        memory = np.frombuffer(buffer, np.uint8)
        arrays, at = {}, 0
        for name, shape, dtype in _layout(time, games, hidden):
            size = math.prod(shape) * dtype.itemsize
            arrays[name] = memory[at : at + size].view(dtype).reshape(shape)
            at += -(-size // _ALIGNED) * _ALIGNED
        names = [name for name in vars(Features.empty(0)) if name in arrays]
        features = Features(**{name: arrays.pop(name) for name in names})
        return cls(features, **arrays)  # type: ignore[arg-type]

    @classmethod
    def empty(cls, time: int, games: int, hidden: int) -> Unroll:
        """Arrays in memory of their own."""
        return cls.within(bytearray(unroll_bytes(time, games, hidden)), time, games, hidden)

    @property
    def arrays(self) -> dict[str, Array]:
        """All of them by name, those of the features as well."""
        mine = ("first", "valid", "actions", "log_probs", "rewards", "died", "state")
        return vars(self.features) | {name: getattr(self, name) for name in mine}

    def frame(self, t: int) -> Features:
        """The features of frame t, [B, ...], to read or to write."""
        return Features(**{name: array[t] for name, array in vars(self.features).items()})


def unroll_bytes(time: int, games: int, hidden: int) -> int:
    """How much memory an unroll takes."""
    sizes = (math.prod(shape) * dtype.itemsize for _, shape, dtype in _layout(time, games, hidden))
    return sum(-(-size // _ALIGNED) * _ALIGNED for size in sizes)


def joined(unrolls: Sequence[Unroll]) -> dict[str, Array]:
    """The arrays of some unrolls side by side, games along axis 1. Copies."""
    parts = [unroll.arrays for unroll in unrolls]
    return {name: np.concatenate([part[name] for part in parts], 1) for name in parts[0]}


def _layout(time: int, games: int, hidden: int) -> list[tuple[str, tuple[int, ...], np.dtype[Any]]]:
    like = vars(Features.empty(0))
    return [
        *((name, (time + 1, games, *array.shape[1:]), array.dtype) for name, array in like.items()),
        ("first", (time + 1, games), np.dtype(bool)),
        ("valid", (time, games), np.dtype(bool)),
        ("actions", (time, games), np.dtype(np.uint8)),
        ("log_probs", (time, games), np.dtype(np.float32)),
        ("rewards", (time, games), np.dtype(np.float32)),
        ("died", (time, games), np.dtype(bool)),
        ("state", (LAYERS, games, hidden), np.dtype(np.float32)),
    ]
