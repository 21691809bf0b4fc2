"""Rewards that agents learn from: the score, scaled or clipped, and extras that promise more of it.

Evaluation knows nothing of this: it counts the score alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from nhzoo.envs.game import EpisodeResult
from nhzoo.errors import InputError

Array = np.ndarray[Any, Any]

SCALED, CLIPPED = "scaled", "clipped"
KINDS = (SCALED, CLIPPED)
EXTRAS = ("depth", "level")
"""What can be a potential: the deepest level reached, the hero's experience level."""

MOST = 10.0
"""Of a scaled reward, either sign."""
_MEMORY = 2_000_000.0  # steps that the mean square looks back
_PRIOR = 1_000.0  # steps of a mean square of 1 to begin with


@dataclass(frozen=True)
class Potential:
    """Extras by potentials: a step from s to s' brings gamma P(s') - P(s) besides its score.

    Ng, Harada, Russell 1999: for any P with P = 0 where a game has ended this leaves the best
    policies the best. `weights` are points of score for one level of each of `EXTRAS`.
    """

    weights: tuple[tuple[str, float], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Potential:
        """From "depth=50,level=20"; "" is none."""
        weights: dict[str, float] = {}
        for part in text.split(",") if text else ():
            name, _, value = part.partition("=")
            try:
                weights[name] = float(value)
            except ValueError:
                weights[name] = float("nan")
            if name not in EXTRAS or not np.isfinite(weights[name]):
                raise InputError(
                    f"--extras {text}: give points for any of {', '.join(EXTRAS)}, "
                    "for example depth=50,level=20"
                )
        return cls(tuple(sorted(weights.items())))

    def of(self, result: EpisodeResult) -> float:
        """P of where a game stands, in points."""
        held = {"depth": result.max_depth, "level": result.max_experience_level}
        return sum(weight * held[name] for name, weight in self.weights)


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
        held = self._returns.get(actor)
        if held is None or len(held) != rewards.shape[1]:
            held = np.zeros(rewards.shape[1])
        total = 0.0
        for reward, counted, begins in zip(rewards, valid, first, strict=True):
            held = np.where(begins, 0.0, held)
            held = np.where(counted, self.discount * held + reward, held)
            total += float((held[counted] ** 2).sum())
        self._returns[actor] = held
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
        returns = {str(actor): held.tolist() for actor, held in self._returns.items()}
        return {"mean_square": self.mean_square, "steps": self.steps, "returns": returns}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.mean_square, self.steps = state["mean_square"], state["steps"]
        self._returns = {int(k): np.array(v) for k, v in state["returns"].items()}
