"""Watch an agent play, in a terminal, in colour: alone, or two side by side on the same game."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TextIO

import numpy as np

from nhzoo.agents.base import Agent, traits
from nhzoo.agents.bots import BotAgent
from nhzoo.envs.actions import ACTION_KEYS, TTY, key_name
from nhzoo.envs.game import Episode, EpisodeResult, Game
from nhzoo.envs.protocols import Protocol
from nhzoo.envs.terminal import COLUMNS, RESET, ROWS, render
from nhzoo.errors import InputError
from nhzoo.runtime.console import clean, unread

_HOME, _CLEAR, _LINE_END = "\x1b[H", "\x1b[2J", "\x1b[K"
_MARK = "\x1b[7m"
_GAP = 2  # columns between two screens


@dataclass(frozen=True)
class Difference:
    """The first key at which two agents on the same game part; `keys` are both, "" for none."""

    step: int
    keys: tuple[str, str]


class _Player:
    """One agent in one game; `key` is the one it is about to press, -1 when there is none."""

    def __init__(self, agent: Agent, protocol: Protocol, index: int) -> None:
        self.agent = agent
        self.name = clean(traits(agent, "agent").name)
        self._names = tuple(dict.fromkeys((*traits(agent).observation_keys, *TTY)))
        self._episode = Episode(Game(self._names))
        self._episode.start(protocol.game(index), protocol.step_cap, protocol.no_progress)
        self._uniforms = protocol.uniforms(index)
        self._state = agent.initial_state(1)
        self.over, self.key = False, -1

    @property
    def result(self) -> EpisodeResult:
        return self._episode.result

    def think(self) -> None:
        """Have the agent choose its next key; a bot that has failed ends its game instead."""
        if self.over:
            return
        live = self._episode.game.observation
        observation = {name: live[name][None].copy() for name in self._names}
        uniform = np.array([self._uniforms.random()])
        actions, self._state = self.agent.act(observation, self._state, uniform)
        if actions[0] < 0:
            self.result.end_status, self.over, self.key = "crashed", True, -1
            self.result.cause = traits(self.agent).failure or ""
            return
        self.key = int(ACTION_KEYS[int(actions[0])])

    def press(self) -> None:
        """Press that key."""
        if not self.over:
            self.over = self._episode.step(self.key)
            if self.over:
                self.key = -1

    def screen(self) -> list[str]:
        """The terminal's lines, in colour."""
        observation = self._episode.game.observation
        return render(*(observation[name] for name in TTY)).split("\n")

    def status(self) -> str:
        """The step, the score, and the next key or how the game ended."""
        result = self.result
        key = f"key {key_name(self.key)}" if self.key >= 0 else result.end_status or "stopped"
        return f"step {result.steps:,}  score {result.score:,.0f}  {key}"

    def close(self) -> None:
        self._episode.game.close()
        if isinstance(self.agent, BotAgent):
            self.agent.close()


def watch(
    agent: Agent,
    protocol: Protocol,
    index: int,
    steps_per_second: float = 8.0,
    max_steps: int | None = None,
    stream: TextIO | None = None,
    seconds: float | None = None,
) -> EpisodeResult:
    """Play one game of a protocol and draw every step; 0 steps per second is as fast as it goes.

    A zoo entry presses the keys that it presses in an evaluation; an agent whose arithmetic depends
    on the batch may not, as the batch is 1 here. It is drawn on standard output if not on `stream`,
    until nobody looks any more, or for so many seconds.
    """
    player = _Player(agent, protocol, index)
    title = f"{player.name} · {protocol.id} game {index}"

    def draw() -> str:
        screen = "\n".join(player.screen())
        return f"{screen}\n{title}  {player.status()}{_LINE_END}\n"

    _play([player], draw, steps_per_second, max_steps, stream or sys.stdout, seconds)
    return player.result


def watch_beside(
    agents: tuple[Agent, Agent],
    protocol: Protocol,
    index: int,
    steps_per_second: float = 8.0,
    max_steps: int | None = None,
    stream: TextIO | None = None,
) -> tuple[tuple[EpisodeResult, EpisodeResult], Difference | None]:
    """Two agents on the same game, step by step, with the first key at which they part marked.

    The screens stand beside each other where the terminal has room, else below each other;
    InputError where it has room for neither. A game that has ended keeps its last screen.
    """
    stream = stream or sys.stdout
    beside = _is_beside(stream)
    players = [_Player(agent, protocol, index) for agent in agents]
    differs: list[Difference] = []

    def draw() -> str:
        if not differs and players[0].key != players[1].key:
            keys = [key_name(player.key) if player.key >= 0 else "" for player in players]
            differs.append(Difference(players[0].result.steps + 1, (keys[0], keys[1])))
        heads = [f"{player.name}  {player.status()}" for player in players]
        screens = [player.screen() for player in players]
        if beside:
            lines = [_joined(heads[0].ljust(COLUMNS)[:COLUMNS], heads[1])]
            lines += [_joined(a, b) for a, b in zip(*screens, strict=True)]
        else:
            lines = [heads[0], *screens[0], heads[1], *screens[1]]
        lines.append(f"{protocol.id} game {index}: {difference_text(differs, players)}")
        return "".join(f"{line}{_LINE_END}\n" for line in lines)

    _play(players, draw, steps_per_second, max_steps, stream, None)
    return (players[0].result, players[1].result), differs[0] if differs else None


def difference_text(differs: Sequence[Difference], players: Sequence[_Player]) -> str:
    """The line below two games."""
    if not differs:
        return "the same keys so far"
    first = differs[0]
    pressed = " · ".join(
        f"{player.name} {key or 'has ended'}"
        for player, key in zip(players, first.keys, strict=True)
    )
    return f"{_MARK}first difference at step {first.step:,}: {pressed}{RESET}"


def _is_beside(stream: TextIO) -> bool:
    """Whether two screens stand beside each other, rather than one below the other."""
    if not stream.isatty():
        return True
    columns, lines = shutil.get_terminal_size()
    wide, high = 2 * COLUMNS + _GAP, 2 * (ROWS + 1) + 2
    if columns >= wide and lines > ROWS + 2:
        return True
    if columns >= COLUMNS and lines >= high:
        return False
    raise InputError(
        f"this terminal has {columns} columns and {lines} lines; two games take {wide} columns, or "
        f"{high} lines: enlarge it, make its letters smaller, or write a page with "
        "nhzoo report RESULT --beside RESULT"
    )


def _joined(left: str, right: str) -> str:
    return f"{left}{' ' * _GAP}{right}"


def _play(
    players: Sequence[_Player],
    draw: Callable[[], str],
    steps_per_second: float,
    max_steps: int | None,
    stream: TextIO,
    seconds: float | None,
) -> None:
    began = time.monotonic()
    stream.write(_CLEAR)
    steps = 0
    try:
        while steps != max_steps and not unread():
            now = time.monotonic()
            if seconds is not None and now - began >= seconds:
                break
            for player in players:
                player.think()
            stream.write(f"{_HOME}{draw()}")
            stream.flush()
            for player in players:
                player.press()
            steps += 1
            if all(player.over for player in players):
                break
            if steps_per_second > 0:
                time.sleep(max(0.0, 1 / steps_per_second - (time.monotonic() - now)))
    finally:
        stream.write(RESET)
        stream.flush()
        for player in players:
            player.close()
