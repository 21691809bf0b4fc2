"""NetHack games that are fully seeded, with a fixed clock and each step counted once.

`Game` is one NLE process image stepped by raw keys; `Episode` adds limits and the score. NLE 1.3.0
by itself ignores `reset(seed=)`, halves its no-progress timeout, reports an abort as a death, lets
the wall clock into a seeded game through `ubirthday`, keeps a record file from game to game and
hands out buffers that it overwrites.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from nle import nethack
from nle.nethack import nethack as nle_nethack

from nhzoo.envs.actions import TTY
from nhzoo.envs.nle_library import EXPLORE, WIZARD, Flags, Library
from nhzoo.envs.protocols import GameSpec
from nhzoo.errors import InputError
from nhzoo.runtime import scratch

Array = np.ndarray[Any, Any]

SPACE, ESCAPE = 32, 27
_GAME_OVER = 0  # program_state
_IN_MOVELOOP = 3
_IN_GETLIN, _WAITS_FOR_SPACE = 2, 3  # internal
MAX_DISMISSALS = 1000
"""Keys that an opening, or closing screens, may take before something must be wrong."""

FINAL = ("death", "ascended", "voided")
"""End statuses after which there is no further game; others cut one short."""

_ACCOUNTING = ("blstats", "program_state", "internal")
_SCORE, _TIME = nethack.NLE_BL_SCORE, nethack.NLE_BL_TIME
_DEPTH, _LEVEL = nethack.NLE_BL_DEPTH, nethack.NLE_BL_XP
_EXTRAORDINARY = WIZARD | EXPLORE


class Game:
    """One NetHack game at a time, stepped by raw keys; its keys are recorded as a trace.

    `observation` maps each name to the array that NLE writes into: read it before the next step,
    copy to keep. `rows` gives NLE arrays of the caller's for some names: of its shapes, contiguous.
    `faster=False` leaves NLE as it is: the same screens, at its own speed.
    Not thread-safe. Errors of the C side end the process: run it in a worker where that matters.
    """

    press: Callable[[int], object]
    """Press a key (0 to 255) and no more: NLE's own function, for loops that keep the trace."""

    flags: Flags
    """What NetHack itself knows of the game that was started."""

    def __init__(
        self,
        observation_keys: Iterable[str] = TTY,
        rows: Mapping[str, Array] | None = None,
        faster: bool = True,
    ) -> None:
        self._faster = faster
        self._names = tuple(dict.fromkeys((*observation_keys, *_ACCOUNTING)))
        self._rows = dict(rows or {})
        self._nle: nethack.Nethack | None = None
        self._player = ""
        self._ttyrec: Path | None = None
        self.observation: dict[str, Array] = {}
        self.spec: GameSpec | None = None
        self.keys = bytearray()
        _games.add(self)

    def start(self, spec: GameSpec, ttyrec: Path | None = None) -> None:
        """Begin the game of `spec`, independent of earlier games.

        `ttyrec` is a file that the game is recorded into (version 3, bz2); whole after `close`.
        """
        if self._nle is None or spec.name != self._player or ttyrec or self._ttyrec:
            self._open(spec.name, ttyrec)
        nle = self._nle
        assert nle is not None
        _empty(nle._vardir)
        nle.set_initial_seeds(spec.core, spec.disp, False, spec.lgen)
        with self._library.loading():
            nle._pynethack.reset()
        global _played
        _played += len(self.keys)
        self.flags = self._library.prepare(spec.ubirthday, _played)
        self.press = nle._pynethack.step
        self.spec = spec
        self.keys.clear()

    @property
    def started(self) -> bool:
        """A game was started in this process, and not closed."""
        return self._nle is not None and self.spec is not None

    def step(self, key: int) -> None:
        """Press one key (0 to 255)."""
        assert self._nle is not None, "start a game first"
        self.keys.append(key)
        self.press(key)

    @property
    def done(self) -> bool:
        """NetHack has ended, closing screens and all: no key can be pressed any more."""
        return self._nle is not None and bool(self._nle._pynethack.done())

    @property
    def over(self) -> bool:
        """NetHack has ended the game; its closing screens may still wait for keys."""
        return bool(self.observation["program_state"][_GAME_OVER]) or self.done

    @property
    def voided(self) -> str:
        """Why the game is voided, in words; "" for an ordinary game. Read from NetHack's flags."""
        if self._nle is None:
            return ""
        modes = self.flags.modes[0]
        if modes & _EXTRAORDINARY:
            return "wizard mode" if modes & WIZARD else "explore mode"
        return "saved" if self.done and self.flags.saved else ""

    @property
    def role(self) -> str:
        """The role of the hero ("Mon") before his first decision; "" where no glyphs are observed.

        Each role is a monster of its own ("priestess"), and a hero looks like the one of his role.
        """
        if "glyphs" not in self.observation:
            return ""
        x, y = self.observation["blstats"][:2]  # NLE_BL_X, NLE_BL_Y
        monster = nethack.glyph_to_mon(int(self.observation["glyphs"][y, x]))
        return str(nethack.permonst(monster).mname)[:3].title()

    @property
    def in_normal_game(self) -> bool:
        """Blstats are meaningful (they are zero before a game and after its closing screens)."""
        return self._nle is not None and bool(self._nle.in_normal_game())

    def skip_opening(self) -> None:
        """Dismiss the opening text; these keys are in the trace and are not the agent's."""
        for _ in range(MAX_DISMISSALS):
            if self.done or self.observation["program_state"][_IN_MOVELOOP]:
                return
            # A scare monster scroll picked up on turn 0 asks for a name: a space never ends that.
            self.step(ESCAPE if self.observation["internal"][_IN_GETLIN] else SPACE)
        raise RuntimeError(f"game {self.spec} did not start within {MAX_DISMISSALS} keys")

    def close_out(self) -> tuple[str, bool]:
        """Dismiss the closing screens, outside the trace. Returns (cause of the end, ascended)."""
        nle = self._nle
        assert nle is not None
        for _ in range(MAX_DISMISSALS):
            if self.done:
                break
            waits = self.observation["internal"][_WAITS_FOR_SPACE]
            nle.step(SPACE if waits else ESCAPE)
        return _cause(Path(nle._vardir)), nle.how_done() == nethack.ASCENDED

    @property
    def xlogfile(self) -> Path:
        """NetHack's own log: one line when the game's closing screens have been dismissed."""
        assert self._nle is not None, "start a game first"
        return Path(self._nle._vardir) / "xlogfile"

    def close(self) -> None:
        """Free the game's library image and its temporary folder."""
        if self._nle is not None:
            self._finalizer.detach()
            self._nle.close()
            self._nle = None
            self.observation = {}

    def _leave(self) -> None:
        """In a process that was forked: its folder, files and memory are the parent's to close."""
        if self._nle is not None:
            self._finalizer.detach()
            self._nle._finalizer.detach()
            self._nle._tempdir._finalizer.detach()
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._nle))  # not even at the end
            self._nle = None
            self.observation = {}

    def _open(self, player: str, ttyrec: Path | None) -> None:
        self.close()
        names = self._names
        if player.endswith("@"):  # a role is drawn, see `role`
            names = tuple(dict.fromkeys((*names, "glyphs")))
        with _folders_in_scratch():
            self._nle = nethack.Nethack(
                observation_keys=names,
                playername=player,
                ttyrec=os.fspath(ttyrec) if ttyrec else None,
                fix_moon_phase=True,
            )
        self._player, self._ttyrec = player, ttyrec
        self.observation = dict(zip(names, self._nle._obs, strict=True)) | self._rows
        if self._rows:  # it is one of many games
            self._nle._pynethack.set_buffers(**self.observation)
        self._library = Library(self._nle.dlpath, bool(self._rows), self._faster)
        # Not a method of self, so that a forgotten Game is still closed when it is collected.
        self._finalizer = weakref.finalize(self, self._nle.close)


_games: weakref.WeakSet[Game] = weakref.WeakSet()
_played = 0  # steps of this process's earlier games


def _after_fork() -> None:
    global _opening
    _opening = threading.Lock()  # another thread may have held it
    for game in list(_games):
        game._leave()


os.register_at_fork(after_in_child=_after_fork)
_opening = threading.Lock()


@contextlib.contextmanager
def _folders_in_scratch() -> Iterator[None]:
    """What NLE makes meanwhile for its files is found, and removed, when its process is killed."""

    def folder(prefix: str) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix=prefix, dir=scratch.own_folder())

    with _opening:
        nle_nethack.tempfile = SimpleNamespace(**vars(tempfile) | {"TemporaryDirectory": folder})
        try:
            yield
        finally:
            nle_nethack.tempfile = tempfile


def _empty(folder: str) -> None:
    """Undo what earlier games left in NetHack's folder: high scores, logs, level files."""
    for entry in os.scandir(folder):
        if entry.name == "save":
            for saved in os.scandir(entry.path):
                os.unlink(saved.path)
        elif entry.name in ("perm", "record", "logfile", "xlogfile"):
            if entry.stat().st_size:
                os.truncate(entry.path, 0)
        elif entry.name != "nhdat":
            os.unlink(entry.path)


def _cause(folder: Path) -> str:
    """How NetHack's own log says the game ended ("killed by a jackal"), "" when it says nothing."""
    lines = (folder / "xlogfile").read_text(errors="replace").splitlines()
    fields = dict(field.partition("=")[::2] for field in lines[-1].split("\t")) if lines else {}
    return fields.get("death", "")


@dataclass
class EpisodeResult:
    """The result of one game. `depth` and `experience_level` are the last values in the game.

    `score` is the sum of NLE's score reward: the in-game score before the step that ended the game
    (NLE's reward of that step is 0). `end_status` is death, ascended, step_cap, stalled, crashed or
    voided: the last key made it a game that does not count, with a score of 0. `role` is known
    where it is drawn.
    """

    score: float = 0.0
    steps: int = 0
    turns: int = 0
    depth: int = 0
    max_depth: int = 0
    experience_level: int = 0
    max_experience_level: int = 0
    end_status: str = ""
    cause: str = ""
    role: str = ""


class Episode:
    """A game under a protocol's limits, with its score. Steps and score are counted here alone."""

    def __init__(self, game: Game) -> None:
        self.game = game
        self.result = EpisodeResult()
        self.step_cap = self.no_progress = 0
        self._first_score = 0
        self._unchanged = 0

    def start(self, spec: GameSpec, step_cap: int, no_progress: int) -> None:
        """Begin a game, up to its first decision."""
        self.game.start(spec)
        self.game.skip_opening()
        self.step_cap, self.no_progress = step_cap, no_progress
        # A memoryview gives Python's own integers, several times faster than an array does.
        self._blstats = self.game.observation["blstats"].data
        self._state = self.game.observation["program_state"].data
        self._modes = self.game.flags.modes
        self._unchanged = 0
        self._first_score = self._blstats[_SCORE]
        turns, depth, level = self._blstats[_TIME], self._blstats[_DEPTH], self._blstats[_LEVEL]
        self.result = EpisodeResult(0.0, 0, turns, depth, depth, level, level)
        self.result.role = self.game.role if spec.character == "@" else ""

    def step(self, key: int) -> bool:
        """Press the agent's key; True when the episode is over and `result` final."""
        self.play((key,))
        return bool(self.result.end_status)

    def play(
        self,
        keys: Sequence[int],
        note: Callable[[int], object] | None = None,
        observe: Callable[[int], object] | None = None,
    ) -> int:
        """Press the agent's keys until one ends the episode; returns how many were pressed.

        `note` is called with each key before it is pressed, as NLE may end the process, and
        `observe` when the screen after it is there. Closing screens are dismissed after that.
        """
        game, result, blstats, state = self.game, self.result, self._blstats, self._state
        note, press, no_progress = note or bytearray().append, game.press, self.no_progress
        if observe is not None:
            press = functools.partial(_press_and_observe, press, observe)
        modes = self._modes
        turns, unchanged, score = result.turns, self._unchanged, blstats[_SCORE]
        depth, deepest = result.depth, result.max_depth
        level, highest = result.experience_level, result.max_experience_level
        pressed, stopped = 0, False
        try:
            for key in keys[: self.step_cap - result.steps]:
                note(key)
                press(key)
                pressed += 1
                if state[_GAME_OVER] or modes[0] & _EXTRAORDINARY:
                    stopped = True
                    break
                score, depth, level = blstats[_SCORE], blstats[_DEPTH], blstats[_LEVEL]
                if depth > deepest:
                    deepest = depth
                if level > highest:
                    highest = level
                if blstats[_TIME] != turns:
                    turns, unchanged = blstats[_TIME], 0
                else:
                    unchanged += 1
                    if unchanged >= no_progress:
                        break
        except RuntimeError:  # NetHack had ended with the key before, without closing screens
            if not game.done:
                raise
        if state[_GAME_OVER] and game.in_normal_game:  # the last step counts, but for its score
            turns, depth, level = blstats[_TIME], blstats[_DEPTH], blstats[_LEVEL]
            deepest, highest = max(deepest, depth), max(highest, level)
        game.keys.extend(keys[:pressed])
        self._unchanged = unchanged
        result.score, result.steps = float(score - self._first_score), result.steps + pressed
        result.turns, result.depth, result.max_depth = turns, depth, deepest
        result.experience_level, result.max_experience_level = level, highest
        if stopped or game.done:
            result.cause = game.voided
            if result.cause:
                result.end_status, result.score = "voided", 0.0
            else:
                result.cause, ascended = game.close_out()
                result.end_status = "ascended" if ascended else "death"
        elif result.steps >= self.step_cap:
            result.end_status = "step_cap"
        elif unchanged >= no_progress:
            result.end_status = "stalled"
        return pressed


def _press_and_observe(
    press: Callable[[int], object], observe: Callable[[int], object], key: int
) -> None:
    press(key)
    observe(key)


def blank(names: Iterable[str], games: int) -> dict[str, Array]:
    """Zeros [games, ...] for each observation: row i is for `Game` number i to write into."""
    described, arrays = nethack.OBSERVATION_DESC, {}
    for name in names:
        if name not in described:
            raise InputError(f"NLE has no observation {name!r}; it has {', '.join(described)}")
        arrays[name] = np.zeros((games, *described[name]["shape"]), described[name]["dtype"])
    return arrays
