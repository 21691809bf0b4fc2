"""Scripted bots, each made by a function: one that plays, and bad ones."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time

import numpy as np


class Walker:
    """Walks at random; what it draws comes from both global generators."""

    observation_keys = ("blstats", "tty_chars")

    def reset(self, observation):
        self.steps = 0

    def act(self, observation):
        assert observation["blstats"].shape == (27,)
        assert observation["tty_chars"].shape == (24, 80)
        self.steps += 1
        return np.int64((random.randrange(8) + np.random.randint(8)) % 8)


def make_agent():
    return Walker()


class Blind:
    observation_keys = ()

    def reset(self, observation):
        assert observation == {}

    act = staticmethod(lambda observation: 1)


def blind():
    return Blind()


class Bad(Walker):
    """Misbehaves on its third step, in the way that it is told."""

    def __init__(self, trouble):
        self.trouble = trouble

    def act(self, observation):
        action = super().act(observation)
        return action if self.steps != 3 else self.trouble(action, observation)


def _raise(action, observation):
    raise ValueError("no\nidea \x1b[31m" + "what to do " * 100)


def _exit_python(action, observation):
    sys.exit("enough")


def _huge(action, observation):
    return 500


def _text(action, observation):
    return "jump"


def _sleep(action, observation):
    time.sleep(1000)


def _exit(action, observation):
    os._exit(3)


def _kill(action, observation):
    os.kill(os.getpid(), 9)


def raises():
    return Bad(_raise)


def exits_python():
    return Bad(_exit_python)


def huge():
    return Bad(_huge)


def text():
    return Bad(_text)


def sleeps():
    return Bad(_sleep)


def exits():
    return Bad(_exit)


def killed():
    return Bad(_kill)


class Rude(Walker):
    """Plays the walker's game, but writes over what it is shown, prints and forks."""

    def __init__(self):
        self.seen = None

    def reset(self, observation):
        super().reset(observation)
        for array in observation.values():
            array.fill(1)
        print("stdout is mine")
        sys.stdout.flush()
        os.write(1, b"so is file 1\n")

    def act(self, observation):
        if self.seen is not None:
            assert self.seen[0].tobytes() == self.seen[1]  # nobody writes over what it keeps
        if self.steps == 2:
            os.fork()  # two of it answer from here on
        if self.steps == 4:
            subprocess.Popen(["sleep", "1000"])
        action = super().act(observation)
        observation["tty_chars"][:] = 7
        self.seen = observation["tty_chars"], observation["tty_chars"].tobytes()
        return action


def rude():
    return Rude()


class Closing(Walker):
    """Leaves a mark when it is closed."""

    def close(self):
        with open(os.environ["NHZOO_TEST_MARKS"], "a") as file:
            file.write("closed\n")


def closing():
    return Closing()


class Pacer(Walker):
    """Goes to and fro."""

    def act(self, observation):
        """West or east, in turn; sooner or later between two squares only."""
        self.steps += 1
        return (1, 3)[self.steps % 2]


def pacer():
    """A bot that goes nowhere."""
    return Pacer()


def player():
    """The walker as a blocking player."""

    def play(env):
        walker = Walker()
        walker.reset(env.observation)
        while True:
            env.step(walker.act(env.observation))

    play.observation_keys = Walker.observation_keys
    return play


def quitter():
    """A blocking player that stops in the middle."""
    return lambda env: env.step(0)


def unmade():
    raise RuntimeError("there is no bot today")


def thing():
    return 3
