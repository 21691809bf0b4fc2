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
from typing import Any, Final

import numpy as np
from nle import nethack

from nhzoo.envs.actions import TTY, key_name
from nhzoo.envs.game import Episode, Game
from nhzoo.envs.protocols import GameSpec, Protocol
from nhzoo.envs.terminal import COLUMNS, ROWS, Painter
from nhzoo.errors import CheckFailed, InputError
from nhzoo.evaluation.results import Row
from nhzoo.evaluation.verification import VerifyTask
from nhzoo.runtime.console import clean

Array = np.ndarray[Any, Any]

STEPS_PER_SECOND: Final = 8
MAX_STEPS: Final = 6_000
"""Steps that a recording shows at most: the first quarter and the last three."""

MAX_PACKED: Final = 300_000
"""Bytes of a recording, deflated. A game above it is recorded again with fewer steps."""

_YEAR = re.compile(r"^\s*\|\s+(\d{4})\s+\|\s*$")  # of a tombstone: the wall clock's


@dataclass(frozen=True)
class Cast:
    """One game's recording. `text` is an asciicast v2 file; `windows` are the steps it shows."""

    game: int
    text: str
    steps: int
    windows: tuple[tuple[int, int], ...]

    @property
    def whole(self) -> bool:
        """Whether every step is shown."""
        return len(self.windows) == 1

    def packed(self) -> bytes:
        """The text, deflated (zlib format): the same bytes every time."""
        return zlib.compress(self.text.encode(), 9)


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

    windows: tuple[tuple[int, int], ...]
    painter: Painter = field(default_factory=Painter)
    events: list[tuple[float, str, str]] = field(default_factory=list)
    keys: set[int] = field(default_factory=set)
    step: int = -1
    shown: int = 0
    depth: int = 1
    level: int = 1
    gone_dark: bool = False
    first_score: int = 0
    scores: list[tuple[int, int]] = field(default_factory=list)

    def take(self, game: Game, key: int | None) -> None:
        """Record the screen after a key (None: the first screen)."""
        self.step += 1
        if not any(first <= self.step <= last for first, last in self.windows):
            self.gone_dark = True
            self._milestones(None, game)
            return
        time = self.shown / STEPS_PER_SECOND
        if self.gone_dark:
            self.gone_dark = False
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
        self._milestones(time, game)

    def _score(self, total: int) -> None:
        """Note the score where it changes: the status line on the screen has no room for it."""
        if not self.shown:
            self.first_score = total
        score = total - self.first_score
        if not self.scores or self.scores[-1][1] != score:
            self.scores.append((self.shown, score))

    def _milestones(self, time: float | None, game: Game) -> None:
        """Mark the first time a depth or level is reached; at no time, only note that it was."""
        if game.over:
            return
        blstats = game.observation["blstats"]
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


class _RecordedGame(Game):
    """A game that records every screen after its opening."""

    def __init__(self) -> None:
        super().__init__(TTY)
        self.reel: _Recorder | None = None
        self._rolling = False

    def start(self, spec: GameSpec, ttyrec: Path | None = None) -> None:
        self._rolling = False
        super().start(spec, ttyrec)
        self._bare, self.press = self.press, self._film

    def skip_opening(self) -> None:
        super().skip_opening()
        self._rolling = True
        if self.reel:
            self.reel.take(self, None)

    def _film(self, key: int) -> None:
        self._bare(key)
        if self._rolling and self.reel:
            self.reel.take(self, key)


class CastTask(VerifyTask):
    """Verifies games of a result, and records them on the way. An item is a row."""

    def __init__(
        self,
        folder: Path,
        protocol: Protocol,
        exempt: bool,
        agent: str,
        max_steps: int,
        max_packed: int | None = None,
    ) -> None:
        super().__init__(folder, protocol, exempt)
        self._game = _RecordedGame()
        self._episode = Episode(self._game)
        self._agent, self._max_steps, self._max_packed = clean(agent), max_steps, max_packed

    def aim(self, folder: Path, protocol: Protocol, exempt: bool, agent: str) -> None:
        """Go on with another result: a copy of NLE's library is dear, and one serves for all."""
        self._folder, self._protocol, self._exempt = folder, protocol, exempt
        self._agent = clean(agent)

    def work(self, item: Row) -> Any:
        """The game's Cast, or the reason why there is none (str)."""
        max_steps = self._max_steps
        most = self._max_packed or MAX_PACKED
        while True:
            cast = self._record(item, max_steps)
            if isinstance(cast, str) or len(cast.packed()) <= most or max_steps < 64:
                return cast
            max_steps = min(item["steps"], max_steps) // 2

    def _record(self, row: Row, max_steps: int) -> Cast | str:
        if row["steps"] < 1:
            return "no step of it was kept"
        reel = self._game.reel = _Recorder(windows_of(row["steps"], max_steps))
        reason = super().work(row)
        if reason is not None:
            return str(reason)
        reel.end(end_text(row))
        return Cast(row["index"], reel.lines(self._header(row, reel)), row["steps"], reel.windows)

    def _header(self, row: Row, reel: _Recorder) -> dict[str, Any]:
        steps = row["steps"]
        title = f"{self._agent} on {self._protocol.id}, game {row['index']}"
        if len(reel.windows) > 1:
            (_, head), (tail, _) = reel.windows
            title += f": steps 0 to {head:,} and {tail:,} to {steps:,}"
        return {
            "version": 2,
            "width": COLUMNS,
            "height": ROWS,
            "title": title,
            "env": {"TERM": "xterm-256color"},
            "nhzoo": {
                "agent": self._agent,
                "protocol": self._protocol.id,
                "game": row["index"],
                "steps": steps,
                "windows": reel.windows,
                "steps_per_second": STEPS_PER_SECOND,
                "end": end_text(row),
                "scores": reel.scores,
                "keys": {key_bytes(key): key_name(key) for key in sorted(reel.keys)},
            },
        }


_STATUS_TEXT: Final = {
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
    text = _STATUS_TEXT[status]
    return f"{text}: {cause}" if cause and status != "ascended" else text


def record_cast(
    folder: Path,
    row: Row,
    protocol: Protocol,
    agent: str = "agent",
    exempt: bool = False,
    max_steps: int = MAX_STEPS,
) -> Cast:
    """The recording of one game of a result folder, replayed in this process.

    CheckFailed when the game does not go as its row says. The C side of NLE may end the process:
    where that matters, run `CastTask` in a worker.
    """
    outcome = CastTask(folder, protocol, exempt, agent, max_steps).work(row)
    if isinstance(outcome, str):
        raise no_recording(folder, row["index"], outcome)
    assert isinstance(outcome, Cast)
    return outcome


def no_recording(folder: Path, game: int, reason: str) -> CheckFailed:
    """The error for a game that cannot be shown."""
    return CheckFailed(f"{folder}: game {game} cannot be shown: {reason}")
