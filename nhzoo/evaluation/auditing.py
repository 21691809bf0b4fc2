"""The audit: whether an agent played these games. Every key is recomputed.

Sampling is seeded and arithmetic has one order on every machine, so a game of a protocol has one
legal trace for each agent. The agent plays along the recorded game, its own key beside the recorded
one, and continues from the recorded one. Every key must be the agent's own.

Results from before `arithmetic` (they name no numerics) were computed by a BLAS whose rounding
depended on the processor. In these alone a network's key may differ where the uniform lies within
1e-4 of the boundary between two actions; no new result can be audited that way, see
`nhzoo.leaderboard.checks`.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nhzoo.agents.base import Agent, PolicyAgent, cumulative
from nhzoo.agents.loading import load_with_traits
from nhzoo.envs.actions import ACTION_KEYS
from nhzoo.envs.protocols import Protocol
from nhzoo.errors import InputError
from nhzoo.evaluation import results
from nhzoo.evaluation.playing import PlayTask, run_games
from nhzoo.policy import arithmetic
from nhzoo.runtime.console import ProgressCallback, no_progress
from nhzoo.runtime.pool import Crashed

TOLERANCE = 1e-4
"""How far from an action's interval a uniform may lie, in probability, without numerics."""

NEEDED = 0.999
"""Share of keys that have to be the agent's own to the letter, without numerics."""


@dataclass
class Audit:
    """The result of an audit.

    `keys` of the agent's in all, `matched` the same, `near` others that rounding explains, `wrong`
    the first key of each game (index: step) that nothing explains. `exact`: the result names its
    numerics, so no rounding is an explanation.
    """

    agent: str
    exact: bool = True
    keys: int = 0
    matched: int = 0
    near: int = 0
    wrong: dict[int, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        """The share of keys that matched."""
        return self.matched / self.keys if self.keys else 0.0

    @property
    def ok(self) -> bool:
        """Whether these are the agent's games."""
        share = 1.0 if self.exact else NEEDED
        return not self.wrong and not self.problems and self.share >= share


@dataclass
class _Count:
    """Of one game."""

    keys: int = 0
    matched: int = 0
    near: int = 0
    wrong: int | None = None  # the first step


class AuditTask(PlayTask):
    """Plays along recorded games: an item is a game's keys, a result a `_Count`."""

    def __init__(self, agent: Agent, protocol: Protocol, batch: int, exact: bool = True) -> None:
        super().__init__(agent, protocol, batch)
        self._exact = exact
        self._scripts: dict[int, bytes] = {}
        self._counts: dict[int, _Count] = {}

    def start(self, key: Hashable, item: bytes) -> None:
        """Put the recorded game `key` into a free slot."""
        super().start(key, item)
        assert isinstance(key, int)
        self._scripts[key], self._counts[key] = item, _Count()

    def _play(self, slot: int, actions: Sequence[int]) -> bool:
        return any(self._step(slot, action) for action in actions)

    def _step(self, slot: int, action: int) -> bool:
        index, episode = self._index[slot], self._episodes[slot]
        assert index is not None
        script, count, at = self._scripts[index], self._counts[index], len(episode.game.keys)
        if at >= len(script):  # it ends within the opening text: no game at all
            count.wrong = 1
            return True
        key = script[at]
        if count.keys != episode.result.steps:  # begun anew, to be played alone
            count = self._counts[index] = _Count()
        count.keys += 1
        if ACTION_KEYS[action] == key:
            count.matched += 1
        elif isinstance(self._agent, PolicyAgent):
            uniform = float(self._uniform[slot])
            if not self._exact and _near(self._agent, slot, uniform, key):
                count.near += 1
            elif count.wrong is None:
                count.wrong = count.keys
            self._agent.press(self._state, slot, key)
        elif count.wrong is None:
            count.wrong = count.keys
        return episode.step(key) or at + 1 == len(script)

    def _finish(self, slot: int, failure: str = "") -> tuple[int, Any]:
        index, _ = super()._finish(slot)
        count = self._counts.pop(index)
        del self._scripts[index]
        if failure and count.wrong is None:
            count.wrong = count.keys + 1
        return index, count


def audit(
    folder: Path,
    agent: str | Path | Agent,
    workers: int | None = None,
    progress: ProgressCallback = no_progress,
    protocol: Protocol | None = None,
) -> Audit:
    """Recompute every key of a result with `agent`. `verify` checks that the games replay.

    Give `protocol` for games of an unregistered protocol.
    """
    result, protocol, rows = results.read_result(folder, protocol)
    player, about = load_with_traits(agent)
    numerics = result.get("numerics")
    report = Audit(about.name, numerics is not None or not isinstance(player, PolicyAgent))
    weights = player.entry.revision if isinstance(player, PolicyAgent) else None
    if result.get("weights_sha256") != weights:
        report.problems.append(f"the result is of other weights than those of {about.name}")
    if numerics not in (None, arithmetic.NUMERICS):
        raise InputError(
            f"{folder}: its numerics are {str(numerics)[:50]!a}; this version of nhzoo computes "
            f"{arithmetic.NUMERICS}: audit it with the version that wrote it"
        )
    batch = result.get("batch")
    if not isinstance(batch, int) or not 1 <= batch <= 1024:
        raise InputError(f"{folder}: result.json names no usable batch")
    items = [(row["index"], results.read_trace(folder, row["index"])) for row in rows]
    done = 0
    played = sorted((item for item in items if item[1]), key=lambda item: -len(item[1]))
    args = (player, protocol, batch, report.exact)
    for index, count in run_games(AuditTask, args, played, workers or os.cpu_count() or 1):
        if index is None:
            continue
        assert isinstance(index, int)
        done += 1
        if isinstance(count, Crashed):
            report.wrong[index] = int(count.b)
        else:
            report.keys += count.keys
            report.matched += count.matched
            report.near += count.near
            if count.wrong is not None:
                report.wrong[index] = count.wrong
        progress(done, len(played))
    report.wrong = dict(sorted(report.wrong.items()))
    return report


def _near(agent: PolicyAgent, slot: int, uniform: float, key: int) -> bool:
    """Whether another machine's rounding may have led the agent to `key` instead."""
    assert agent.last_logits is not None
    logits = agent.last_logits[slot]
    presses = np.flatnonzero(key == ACTION_KEYS)
    sampling = agent.entry.sampling
    if sampling.temperature == 0:
        return bool(logits[presses].max(initial=-np.inf) >= logits.max() - TOLERANCE)
    upper = cumulative(logits[None], sampling.temperature, sampling.min_p)[0]
    lower = np.concatenate([[0.0], upper[:-1]])
    reached = (lower[presses] - TOLERANCE <= uniform) & (uniform <= upper[presses] + TOLERANCE)
    return bool(reached.any())
