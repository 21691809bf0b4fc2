"""Watch an agent play, in a terminal, in colour."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

import numpy as np

from nhzoo.agents.base import Agent, traits
from nhzoo.agents.bots import BotAgent
from nhzoo.envs.actions import ACTION_KEYS, TTY, key_name
from nhzoo.envs.game import Episode, EpisodeResult, Game
from nhzoo.envs.protocols import Protocol
from nhzoo.envs.terminal import RESET, render
from nhzoo.runtime.console import unread

Array = np.ndarray[Any, Any]

_HOME, _CLEAR = "\x1b[H", "\x1b[2J"


def watch(
    agent: Agent,
    protocol: Protocol,
    index: int,
    steps_per_second: float = 8.0,
    max_steps: int | None = None,
    stream: TextIO | None = None,
) -> EpisodeResult:
    """Play one game of a protocol and draw every step; 0 steps per second is as fast as it goes.

    A zoo entry presses the keys that it presses in an evaluation; an agent whose arithmetic depends
    on the batch may not, as the batch is 1 here. It is drawn on standard output if not on `stream`,
    until nobody looks any more.
    """
    stream = sys.stdout if stream is None else stream
    about = traits(agent, "agent")
    names = tuple(dict.fromkeys((*about.observation_keys, *TTY)))
    episode = Episode(Game(names))
    episode.start(protocol.game(index), protocol.step_cap, protocol.no_progress)
    uniforms = protocol.uniforms(index)
    state = agent.initial_state(1)
    live = episode.game.observation
    title = f"{about.name} · {protocol.id} game {index}"
    stream.write(_CLEAR)
    try:
        over = False
        while not over and episode.result.steps != max_steps and not unread():
            began = time.monotonic()
            observation = {name: live[name][None].copy() for name in names}
            actions, state = agent.act(observation, state, np.array([uniforms.random()]))
            result = episode.result
            if actions[0] < 0:  # a bot that has failed
                result.end_status, result.cause = "crashed", traits(agent).failure or ""
                break
            key = int(ACTION_KEYS[int(actions[0])])
            status = f"step {result.steps:,}  score {result.score:,.0f}  key {key_name(key)}"
            screen = render(*(live[name] for name in TTY))
            stream.write(f"{_HOME}{screen}\n{title}  {status}\x1b[K\n")
            stream.flush()
            over = episode.step(key)
            if steps_per_second > 0:
                time.sleep(max(0.0, 1 / steps_per_second - (time.monotonic() - began)))
    finally:
        stream.write(RESET)
        stream.flush()
        episode.game.close()
        if isinstance(agent, BotAgent):
            agent.close()
    return episode.result
