"""Unrolls: T steps of several games that an actor plays, in one piece of memory.

An unroll has T + 1 frames: the last gives the value after the last step, and is the first of the
next unroll again. The learner computes logits and values anew from the features that are stored and
the core's state before the first frame.

A game that ends in a death is followed by the first frame of the next. One that is cut short (step
cap, no progress) is followed by its own last frame, at which nothing is pressed (`valid` is 0):
the value of that frame is what the game would still have been worth.

Rewards are the score, scaled or clipped, and extras that promise more of it. Evaluation knows
nothing of this: it counts the score alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from nhzoo.policy.config import LAYERS
from nhzoo.policy.features import Features
from nhzoo.runtime.arrays import Array, arrays_in, memory_layout
from nhzoo.training.rl.config import CLIPPED

MOST = 10.0
"""Of a scaled reward, either sign."""
_MEMORY = 2_000_000.0  # steps that the mean square looks back
_PRIOR = 1_000.0  # steps of a mean square of 1 to begin with


class RewardScale:
    """Divides rewards by the running root mean square of the discounted return, or clips them.

    Scaled: the return of each game is followed, R <- gamma R + r, from its first step; its mean
    square over the last two million steps gives the scale, and what is beyond +-10 is cut off (as
    in Hambro et al., "Dungeons and Data", arXiv 2211.00539, hackrl). Clipped: to [-1, 1], unscaled.
    """

    def __init__(self, kind: str, discount: float) -> None:
        self.kind, self.discount = kind, discount
        self.mean_square, self.steps = 1.0, 0.0
        self._returns: dict[int, Array] = {}  # by actor: float64 [games]

    @property
    def scale(self) -> float:
        """What rewards are divided by."""
        return 1.0 if self.kind == CLIPPED else float(self.mean_square**0.5)

    def see(self, actor: int, rewards: Array, valid: Array, first: Array) -> None:
        """Take in an unroll of one actor, [T, B] each; `first` is True where a game begins."""
        running = self._returns.get(actor)
        if running is None or len(running) != rewards.shape[1]:
            running = np.zeros(rewards.shape[1])
        total = 0.0
        for reward, counted, begins in zip(rewards, valid, first, strict=True):
            running = np.where(begins, 0.0, running)
            running = np.where(counted, self.discount * running + reward, running)
            total += float((running[counted] ** 2).sum())
        self._returns[actor] = running
        count = int(valid.sum())
        weight = min(self.steps + _PRIOR, _MEMORY)
        self.mean_square = (self.mean_square * weight + total) / (weight + count)
        self.steps += count

    def apply(self, rewards: Tensor) -> Tensor:
        """What the learner sees of rewards."""
        if self.kind == CLIPPED:
            return rewards.clamp(-1.0, 1.0)
        return (rewards / self.scale).clamp(-MOST, MOST)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs, as plain JSON."""
        returns = {str(actor): running.tolist() for actor, running in self._returns.items()}
        return {"mean_square": self.mean_square, "steps": self.steps, "returns": returns}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.mean_square, self.steps = state["mean_square"], state["steps"]
        self._returns = {int(k): np.array(v) for k, v in state["returns"].items()}


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
        """Arrays that lie in `buffer`, of `unroll_layout(...).itemsize` bytes."""
        memory = np.frombuffer(buffer, np.uint8)
        arrays = arrays_in(memory, unroll_layout(time, games, hidden))
        features = Features(**{name: arrays.pop(name) for name in vars(Features.empty(0))})
        return cls(features, **arrays)  # type: ignore[arg-type]

    @classmethod
    def empty(cls, time: int, games: int, hidden: int) -> Unroll:
        """Arrays in memory of their own."""
        size = unroll_layout(time, games, hidden).itemsize
        return cls.within(bytearray(size), time, games, hidden)

    @property
    def arrays(self) -> dict[str, Array]:
        """All of them by name, those of the features as well."""
        mine = ("first", "valid", "actions", "log_probs", "rewards", "died", "state")
        return vars(self.features) | {name: getattr(self, name) for name in mine}

    def frame(self, t: int) -> Features:
        """The features of frame t, [B, ...], to read or to write."""
        return Features(**{name: array[t] for name, array in vars(self.features).items()})


def joined(unrolls: Sequence[Unroll]) -> dict[str, Array]:
    """The arrays of some unrolls side by side, games along axis 1. Copies."""
    parts = [unroll.arrays for unroll in unrolls]
    return {name: np.concatenate([part[name] for part in parts], 1) for name in parts[0]}


def unroll_layout(time: int, games: int, hidden: int) -> np.dtype[Any]:
    """How the arrays of an unroll lie in its memory."""
    steps, frames = (time, games), (time + 1, games)
    like = vars(Features.empty(0))
    return memory_layout(
        [
            *((name, array.dtype, (*frames, *array.shape[1:])) for name, array in like.items()),
            ("first", bool, frames),
            ("valid", bool, steps),
            ("actions", np.uint8, steps),
            ("log_probs", np.float32, steps),
            ("rewards", np.float32, steps),
            ("died", bool, steps),
            ("state", np.float32, (LAYERS, games, hidden)),
        ],
        _ALIGNED,
    )
