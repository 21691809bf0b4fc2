"""Detecting copied weights: identical, changed a little, reordered, or trained on.

No hash of a file tells that: one line of metadata makes another file. So tensors are compared, and
units whatever their order, and what two networks make of the same screens. The limits lie between
what was measured of the zoo's own entries (leaderboard/INTEGRITY.md): clones of one expert that
were trained each by itself, and agents that went on from another's weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nhzoo.envs.actions import TTY
from nhzoo.envs.game import Episode, Game
from nhzoo.envs.protocols import Protocol
from nhzoo.evaluation import results
from nhzoo.policy import features
from nhzoo.policy.network import Policy, to_tensors
from nhzoo.runtime.pool import OneByOne, run_items

Array = npt.NDArray[Any]

SAME_WEIGHTS = 0.05
"""Distance of two sets of weights over the length of one, below which they are one agent's.

Kickstarted agents of the zoo are 0.14 to 0.18 from their start; a change of all logits by a
temperature of 0.97 is below 0.02.
"""

SAME_LOGITS = 0.9997
"""Cosine of the logits of a few games, from which on two networks play as one.

The zoo's agents and their starts: 0.930 to 0.9991. A copy with noise of 1 % of each tensor's
spread: 0.9999.
"""

KIN_WEIGHTS = 0.8
"""Correlation of two sets of weights from which on one is made of the other.

An agent and its start: 0.986 and more; two that began from one seed: 0.25; others: 0.05 at most.
"""

KIN_UNITS = 0.85
"""The same for units, each beside the one most like it (median): 0.976 and more; others 0.73."""

KIN_LOGITS = 0.98
"""The same for logits. Clones of one expert: 0.88 at most; a copy with noise of 10 %: 0.988."""

GAMES, STEPS = 8, 256
_SECONDS = 120.0

Screens = tuple[Array, Array, Array, Array]
"""Of one game: characters, colours [T, 24, 80], cursors [T, 2], the keys before [T]; all uint8."""


@dataclass(frozen=True)
class Likeness:
    """How alike two networks are. `distance` and `correlation` are of all weights, in order.

    They are infinite and 0 where tensors differ in shape. `logits` is None before games were seen.
    """

    identical: bool
    distance: float
    correlation: float
    units: float
    logits: float | None = None

    @property
    def same(self) -> bool:
        """Whether they are one agent, at another temperature at most."""
        near = self.identical or self.distance < SAME_WEIGHTS
        return near or (self.logits or 0.0) > SAME_LOGITS

    @property
    def kin(self) -> bool:
        """Whether one is made of the other."""
        near = self.correlation > KIN_WEIGHTS or self.units > KIN_UNITS
        return self.same or near or (self.logits or 0.0) > KIN_LOGITS

    @property
    def words(self) -> str:
        """The figures, for a line."""
        logits = "" if self.logits is None else f", logits {self.logits:.4f}"
        return f"weights correlate by {self.correlation:.3f}, units {self.units:.3f}{logits}"


def tensor_hash(policy: Policy) -> str:
    """SHA-256 of the tensors: sorted names, types, shapes and bytes; no metadata."""
    digest = hashlib.sha256()
    for name, array in _arrays(policy).items():
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def compare(one: Policy, other: Policy) -> Likeness:
    """How alike two networks are by their weights."""
    mine, theirs = _arrays(one), _arrays(other)
    distance, correlation = float("inf"), 0.0
    if _shapes(mine) == _shapes(theirs):
        x, y = (
            np.concatenate([a.ravel() for a in w.values()], dtype=float) for w in (mine, theirs)
        )
        length = np.linalg.norm(y)
        distance = float(np.linalg.norm(x - y) / length) if length else float((x != y).any())
        x, y = x - x.mean(), y - y.mean()
        correlation = _ratio(float(x @ y), np.linalg.norm(x) * np.linalg.norm(y))
    identical = distance == 0 and tensor_hash(one) == tensor_hash(other)
    return Likeness(identical, distance, correlation, _units(mine, theirs))


def like_logits(one: Policy, other: Policy, games: Sequence[Screens]) -> float:
    """Cosine of the logits of two networks on the same games; 0 without games.

    Each screen's logits are centred: what is added to all of them changes no key. A common factor,
    which a temperature undoes, does not count either.
    """
    dot = ours = theirs = 0.0
    for screens in games:
        x, y = (_logits(policy, screens) for policy in (one, other))
        dot += float((x * y).sum())
        ours += float((x * x).sum())
        theirs += float((y * y).sum())
    return _ratio(dot, (ours * theirs) ** 0.5)


def first_screens(folder: Path, rows: Sequence[results.Row], protocol: Protocol) -> list[Screens]:
    """The first screens of the first games of a result, replayed; without those that do not."""
    items = [(row["index"], results.read_trace(folder, row["index"])) for row in rows[:GAMES]]
    found = []
    for _, screens in run_items(ScreensTask, (protocol,), items, 1, hang_seconds=_SECONDS):
        if isinstance(screens, tuple):
            found.append(screens)
    return found


class ScreensTask(OneByOne):
    """Replays the beginning of games: an item is a game's keys, a result its `Screens`."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol, self._episode = protocol, Episode(Game(TTY))

    def start(self, key: Any, item: bytes) -> None:
        """Take one game."""
        super().start(key, (key, item))

    def work(self, item: tuple[int, bytes]) -> Screens | None:
        """Its first screens, None of a game without any."""
        (index, keys), protocol, episode = item, self._protocol, self._episode
        episode.start(protocol.game(index), protocol.step_cap, protocol.no_progress)
        seen, before, found = episode.game.observation, 0, []
        begun = len(episode.game.keys)
        for key in keys[begun : begun + STEPS]:
            found.append((*(seen[name].copy() for name in TTY), np.uint8(before)))
            if episode.step(key):
                break
            before = key
        if not found:
            return None
        chars, colors, cursor, previous = (np.stack(part) for part in zip(*found, strict=True))
        return chars, colors, cursor, previous


def lineage(config: Mapping[str, Any]) -> set[str]:
    """SHA-256s of the weights that an entry says it went on from: `training.start`."""
    training = config.get("training")
    start = training.get("start") if isinstance(training, dict) else None
    named = start.get("weights_sha256") if isinstance(start, dict) else None
    return {named} if isinstance(named, str) else set()


def _arrays(policy: Policy) -> dict[str, Array]:
    held = policy.state_dict()
    return {name: np.ascontiguousarray(held[name].numpy()) for name in sorted(held)}


def _shapes(weights: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in weights.items()}


def _units(mine: Mapping[str, Array], theirs: Mapping[str, Array]) -> float:
    """Median over their units of the correlation with the unit of mine that is most like it.

    A unit is what it adds to the logits of the 121 keys: no order of units, and no factor, changes
    that, and units that are added do not hide it.
    """
    x, y = (_columns(weights["head.weight"]) for weights in (mine, theirs))
    return float(np.median((y.T @ x).max(axis=1)))


def _columns(head: Array) -> Array:
    centred = head.astype(float) - head.mean(axis=0, dtype=float)
    lengths = np.linalg.norm(centred, axis=0)
    return np.asarray(centred / np.where(lengths > 0, lengths, 1.0))


@torch.no_grad()
def _logits(policy: Policy, screens: Screens) -> Array:
    chars, colors, cursor, previous = (part[:, None] for part in screens)
    encoded = features.encode_games(chars, colors, cursor, previous, policy.config.preprocessing)
    time = len(previous)
    logits, _ = policy(to_tensors(encoded, time, 1), policy.initial_state(1))
    found = logits.numpy().astype(float)
    return np.asarray(found - found.mean(axis=-1, keepdims=True))


def _ratio(part: Any, whole: Any) -> float:
    return float(part) / float(whole) if whole else 0.0
