"""Recordings of games as asciicast v2: a trace, replayed and checked, to watch in a browser.

A recording has one event a step. It draws only the cells that changed, so a game of ten thousand
steps is a few hundred kilobytes of text. asciinema plays it as it is, and so does the report.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from nle import nethack

from nhzoo.envs.actions import TTY, key_name
from nhzoo.envs.game import Episode, Game
from nhzoo.envs.protocols import Protocol
from nhzoo.envs.terminal import COLUMNS, ROWS, Painter
from nhzoo.errors import InputError
from nhzoo.evaluation.results import Row
from nhzoo.evaluation.verification import step_through
from nhzoo.runtime.console import clean
from nhzoo.runtime.pool import OneByOne

Array = np.ndarray[Any, Any]

STEPS_PER_SECOND: Final = 8
MAX_STEPS: Final = 6_000
"""Steps that a recording shows at most: the first quarter and the last three."""

MAX_PACKED: Final = 300_000
"""Bytes of a recording, deflated. A game above it is recorded again with fewer steps."""

_YEAR = re.compile(r"^\s*\|\s+(\d{4})\s+\|\s*$")  # of a tombstone: the wall clock's


@dataclass(frozen=True)
class Cast:
    """One game's recording; `windows` are the steps it shows.

    `packed` is an asciicast v2 file, deflated (zlib format): the same bytes every time.
    """

    game: int
    packed: bytes
    steps: int
    windows: tuple[tuple[int, int], ...]

    @property
    def text(self) -> str:
        """The asciicast v2 file."""
        return zlib.decompress(self.packed).decode()


def windows_of(steps: int, max_steps: int) -> tuple[tuple[int, int], ...]:
    """Which steps are shown, as (first, last): all, or the start and three times as much end.

    Step s is the screen after the agent's s-th key; step 0 is what it saw first.
    """
    if max_steps < 2:
        raise InputError(f"max_steps {max_steps}: at least 2 are needed")
    if steps <= max_steps:
        return ((0, steps),)
    head = max(1, max_steps // 4)
    return ((0, head), (steps - (max_steps - head) + 1, steps))


def key_bytes(key: int) -> str:
    """What a terminal sends for a key: meta keys are an escape and the key without its top bit."""
    return chr(key) if key < 128 else f"\x1b{chr(key - 128)}"


@dataclass
class _Recorder:
    """What is recorded of one game while it is replayed."""

    game: Game
    windows: tuple[tuple[int, int], ...]
    painter: Painter = field(default_factory=Painter)
    events: list[tuple[float, str, str]] = field(default_factory=list)
    keys: set[int] = field(default_factory=set)
    step: int = -1
    shown: int = 0
    depth: int = 1
    level: int = 1
    skipping: bool = False
    first_score: int = 0
    scores: list[tuple[int, int]] = field(default_factory=list)

    def take(self, key: int | None) -> None:
        """Record the screen after a key (None: the first screen)."""
        game = self.game
        self.step += 1
        if not any(first <= self.step <= last for first, last in self.windows):
            self.skipping = True
            self._milestones(None)
            return
        time = self.shown / STEPS_PER_SECOND
        if self.skipping:
            self.skipping = False
            left_out = f"steps {self.windows[0][1] + 1:,} to {self.step - 1:,} are left out"
            self.events.append((time, "m", left_out))
        if key is not None:
            self.keys.add(key)
            self.events.append((time, "i", key_bytes(key)))
        chars, colors, cursor = (game.observation[name] for name in TTY)
        if game.over:
            chars = _without_year(chars)
        drawn = self.painter.draw(chars, colors, cursor)
        self.events.append((time, "o", drawn if self.shown else f"\x1b[2J{drawn}"))
        if not game.over:
            self._score(int(game.observation["blstats"][nethack.NLE_BL_SCORE]))
        self.shown += 1
        self._milestones(time)

    def _score(self, total: int) -> None:
        """Note the score where it changes: the status line on the screen has no room for it."""
        if not self.shown:
            self.first_score = total
        score = total - self.first_score
        if not self.scores or self.scores[-1][1] != score:
            self.scores.append((self.shown, score))

    def _milestones(self, time: float | None) -> None:
        """Mark the first time a depth or level is reached; at no time, only note that it was."""
        if self.game.over:
            return
        blstats = self.game.observation["blstats"]
        depth = int(blstats[nethack.NLE_BL_DEPTH])
        level = int(blstats[nethack.NLE_BL_XP])
        if time is not None and depth > self.depth:
            self.events.append((time, "m", f"depth {depth}"))
        if time is not None and level > self.level:
            self.events.append((time, "m", f"experience level {level}"))
        self.depth, self.level = max(depth, self.depth), max(level, self.level)

    def end(self, text: str) -> None:
        """Mark how the game ended."""
        self.events.append(((self.shown - 1) / STEPS_PER_SECOND, "m", text))

    def lines(self, header: dict[str, Any]) -> str:
        """The asciicast: a header, one event a line."""
        written = [json.dumps(header)]
        written += [json.dumps([round(time, 3), *rest]) for time, *rest in self.events]
        return "\n".join(written) + "\n"


def _without_year(chars: Array) -> Array:
    """A closing screen, the year of a tombstone blanked: the clock would change the recording."""
    masked = np.array(chars)
    for row in masked:
        found = _YEAR.match(bytes(row).decode("latin-1").split("\0")[0])
        if found:
            row[found.start(1) : found.end(1)] = ord(" ")
    return masked


class CastItem(NamedTuple):
    """A game to record: of which result folder, under which protocol, by which agent, its row."""

    folder: Path
    protocol: Protocol
    exempt: bool
    agent: str
    row: Row


class CastTask(OneByOne):
    """Verifies games, and records them on the way; an item is a `CastItem`."""

    def __init__(self, max_steps: int = MAX_STEPS, max_packed: int | None = None) -> None:
        self._max_steps, self._max_packed = max_steps, max_packed or MAX_PACKED
        self._game = Game(TTY)

    def work(self, item: CastItem) -> Cast | str:
        """The game's Cast, or the reason why there is none."""
        steps, max_steps = item.row["steps"], self._max_steps
        if steps < 1:
            return "no step of it was kept"
        while True:
            recorder = _Recorder(self._game, windows_of(steps, max_steps))
            differs = step_through(Episode(self._game), *item[:3], item.row, recorder.take)
            if differs is not None:
                return differs
            recorder.end(end_text(item.row))
            text = recorder.lines(_header(item, recorder))
            cast = Cast(item.row["index"], zlib.compress(text.encode(), 9), steps, recorder.windows)
            if len(cast.packed) <= self._max_packed or max_steps < 64:
                return cast
            max_steps = min(steps, max_steps) // 2


def _header(item: CastItem, recorder: _Recorder) -> dict[str, Any]:
    agent, steps, game = clean(item.agent), item.row["steps"], item.row["index"]
    title = f"{agent} on {item.protocol.id}, game {game}"
    if len(recorder.windows) > 1:
        (_, head), (tail, _) = recorder.windows
        title += f": steps 0 to {head:,} and {tail:,} to {steps:,}"
    return {
        "version": 2,
        "width": COLUMNS,
        "height": ROWS,
        "title": title,
        "env": {"TERM": "xterm-256color"},
        "nhzoo": {
            "agent": agent,
            "protocol": item.protocol.id,
            "game": game,
            "steps": steps,
            "windows": recorder.windows,
            "steps_per_second": STEPS_PER_SECOND,
            "end": end_text(item.row),
            "scores": recorder.scores,
            "keys": {key_bytes(key): key_name(key) for key in sorted(recorder.keys)},
        },
    }


STATUS_TEXT: Final = {
    "death": "died",
    "ascended": "ascended",
    "step_cap": "step cap reached",
    "stalled": "stalled",
    "crashed": "crashed",
    "voided": "voided",
}


def end_text(row: Row) -> str:
    """How a game ended, in words: "killed by a jackal", "stalled"."""
    cause, status = clean(row["cause"]), row["end_status"]
    if status == "death" and cause:
        return cause
    text = STATUS_TEXT[status]
    return f"{text}: {cause}" if cause and status != "ascended" else text
