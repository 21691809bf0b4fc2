"""Takeover: one agent begins a game, another plays on from where that has brought it.

A clone meets situations that its expert never gets into, and no demonstration shows the way out of
them. Here the expert does: the clone plays a number of steps that is drawn for each game, the
expert the next few thousand, and only what the expert pressed is to be learnt (as in DAgger, Ross,
Gordon and Bagnell 2011, arXiv 1011.0686, but with the expert in control: an expert that plans many
steps ahead cannot label single states of somebody else's game).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nhzoo.agents.base import Agent, Array, traits
from nhzoo.errors import InputError

DONE = "has played its steps after the takeover"
"""The failure by which a game ends that is over for no other reason."""


@dataclass(frozen=True)
class Takeover:
    """When the expert takes over, in steps: before `within`, evenly drawn, and for `steps`."""

    within: int = 8_000
    steps: int = 3_000

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 1 <= value <= 100_000:
                raise InputError(f"takeover {name}: must be 1 to 100,000 steps, is {value:,}")

    def begin(self, uniform: float) -> int:
        """The expert's first step in the game whose first uniform is `uniform`."""
        return int(uniform * self.within)


class TakeoverAgent:
    """Plays one game at a time with `first`, then with `expert`. State: see `initial_state`."""

    max_batch = 1
    limits: Mapping[str, Any] | None

    def __init__(self, first: Agent, expert: Agent, takeover: Takeover) -> None:
        self.first, self.expert, self.takeover = first, expert, takeover
        about, after = traits(expert), traits(first)
        if about.blind:
            raise InputError(f"agent {about.name!r}: sees nothing of the game that it takes over")
        self.name = f"{about.name}-after-{after.name}"
        self.revision = "-".join(part for part in (about.revision, after.revision) if part) or None
        self.observation_keys = tuple(
            dict.fromkeys((*about.observation_keys, *after.observation_keys))
        )
        self.limits = about.limits
        self._done = False

    @property
    def failure(self) -> str | None:
        """See `AgentTraits`."""
        return DONE if self._done else traits(self.expert).failure or traits(self.first).failure

    @property
    def timed_out(self) -> bool:
        """See `AgentTraits`."""
        return not self._done and (traits(self.expert).timed_out or traits(self.first).timed_out)

    def initial_state(self, batch: int) -> dict[str, Any]:
        """Both agents' states; int64 [batch]: the step, and that at which the expert begins."""
        return {
            "first": self.first.initial_state(batch),
            "expert": self.expert.initial_state(batch),
            "step": np.zeros(batch, np.int64),
            "begin": np.zeros(batch, np.int64),
        }

    def act(
        self, observation: Mapping[str, Array], state: dict[str, Any], uniform: Array
    ) -> tuple[Array, dict[str, Any]]:
        """See `Agent.act`; the batch is 1. Action -1: the game ends here, see `failure`."""
        state = dict(state)
        step = int(state["step"][0])
        if step == 0:
            state["begin"] = np.array([self.takeover.begin(float(uniform[0]))])
        begin = int(state["begin"][0])
        self._done = step >= begin + self.takeover.steps
        state["step"] = state["step"] + 1
        if self._done:
            return np.array([-1]), state
        name = "first" if step < begin else "expert"
        action, state[name] = getattr(self, name).act(observation, state[name], uniform)
        return action, state

    def end_game(self) -> None:
        """See `AgentTraits`."""
        traits(self.expert).end_game()
        traits(self.first).end_game()
