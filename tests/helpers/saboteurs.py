"""Agents that break things in the worker they play in."""

from __future__ import annotations

import os
import time

import numpy as np

from nhzoo.agents.base import RandomAgent
from nhzoo.envs import game as envs
from nhzoo.envs.actions import ACTION_KEYS
from nhzoo.envs.protocols import get_protocol


class Killer(RandomAgent):
    """NLE dies under it at one step of game 1, as its C code may."""

    name = "killer"

    def __init__(self, at: int) -> None:
        self.at = at

    def initial_state(self, batch):
        core, at, start = get_protocol("smoke-v1").game(1).core, self.at, envs.Game.start

        def killing(game, spec, ttyrec=None):
            start(game, spec, ttyrec)
            press, pressed = game.press, iter(range(10**6))

            def die(key):
                if next(pressed) == at:
                    os._exit(1)
                press(key)

            if spec.core == core:
                game.press = die

        if start.__module__ == "nhzoo.envs.game":
            envs.Game.start = killing


class Raiser(RandomAgent):
    """Raises, or answers nonsense, in game 2, whatever games are beside it."""

    name = "raiser"

    def __init__(self, answer: object = None) -> None:
        self.answer = answer
        stream = get_protocol("smoke-v1").uniforms(2)
        self.moment = [stream.random() for _ in range(40)][-1]

    def act(self, observation, state, uniform):
        actions, state = super().act(observation, state, uniform)
        hit = uniform == self.moment
        if hit.any():
            if self.answer is None:
                raise RuntimeError("out of\nideas")
            return np.where(hit, self.answer, actions), state
        return actions, state


class Hanger(Raiser):
    """Does not come back from that step of game 2; or its process ends there, without a word."""

    name, observation_keys = "hanger", ("tty_cursor",)

    def act(self, observation, state, uniform):
        if (uniform == self.moment).any():
            os._exit(self.answer) if self.answer else time.sleep(1000)
        return super().act(observation, state, uniform)


class Vandal(RandomAgent):
    """Plays as the random agent does, but writes over all that it is given."""

    name, observation_keys = "vandal", ("blstats", "tty_chars", "glyphs")

    def initial_state(self, batch):
        return np.zeros((batch, 3))

    def act(self, observation, state, uniform):
        actions, _ = super().act(observation, None, uniform)
        for array in observation.values():
            array[...] = array.max() + 1
        state[...] = uniform[:, None]
        uniform[...] = 0.25
        return actions, state


class Typist(RandomAgent):
    """Types the same keys in every game, then searches for ever."""

    name, blind, observation_keys = "typist", False, ("tty_cursor",)

    def __init__(self, keys: bytes) -> None:
        listed = ACTION_KEYS.tolist()
        self.actions = np.array([listed.index(key) for key in keys + b"s"])

    def initial_state(self, batch):
        return np.zeros(batch, np.int64)

    def act(self, observation, state, uniform):
        at = np.minimum(state, len(self.actions) - 1)
        return self.actions[at], state + 1


class Stubborn(RandomAgent):
    """Raises at once, in every game."""

    name, blind, observation_keys = "stubborn", False, ("tty_cursor",)

    def act(self, observation, state, uniform):
        raise ValueError("no")
