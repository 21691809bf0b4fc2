"""NetHack games that do what they say: seeded, clock pinned, counted once a step.

`Game` is one NLE process image stepped by raw keys; `Episode` adds limits and the score;
`NetHackEnv` is the Gymnasium environment on top. NLE 1.3.0 by itself ignores `reset(seed=)`, halves
its no-progress timeout, reports an abort as a death, lets the wall clock into a seeded game through
`ubirthday`, keeps a record file from game to game and hands out buffers that it overwrites.
"""

from __future__ import annotations

import ctypes
import inspect
import os
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from nle import nethack
from nle.env.base import NLE_SPACE_ITEMS
from nle.env.tasks import NetHackChallenge

from nhzoo.errors import InputError
from nhzoo.protocols import GameSpec, get_protocol

ACTION_KEYS = np.array([int(action) for action in nethack.ACTIONS], dtype=np.uint8)
"""uint8 [121]: the key that each action of NetHackChallenge presses (118 are distinct)."""

TTY = ("tty_chars", "tty_colors", "tty_cursor")
"""The observations that a terminal shows, and all that nhzoo's policies read."""

SPACE, ESCAPE = 32, 27
_GAME_OVER = 0  # program_state
_IN_MOVELOOP = 3
_IN_GETLIN, _WAITS_FOR_SPACE = 2, 3  # internal
_MAX_DISMISSALS = 1000
_ACCOUNTING = ("blstats", "program_state", "internal")
_RTLD_NOLOAD = 0x4

_libc = ctypes.CDLL(None)
_libc.dlopen.restype = _libc.dlsym.restype = ctypes.c_void_p
_libc.dlopen.argtypes = [ctypes.c_char_p, ctypes.c_int]
_libc.dlsym.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
_libc.dlclose.argtypes = [ctypes.c_void_p]


class Game:
    """One NetHack game at a time, stepped by raw keys; its trace is taken as it is played.

    `observation` maps each name to NLE's own buffer: read it before the next step, copy to keep.
    Not thread-safe. Errors of the C side end the process: run it in a worker where that matters.
    """

    def __init__(self, observation_keys: Iterable[str] = TTY) -> None:
        self._names = tuple(dict.fromkeys((*observation_keys, *_ACCOUNTING)))
        self._nle: nethack.Nethack | None = None
        self._player = ""
        self._ttyrec: Path | None = None
        self.observation: dict[str, np.ndarray[Any, Any]] = {}
        self.spec: GameSpec | None = None
        self.keys = bytearray()
        self.done = False

    def start(self, spec: GameSpec, ttyrec: Path | None = None) -> None:
        """Begin the game that `spec` decides; nothing of earlier games reaches it.

        `ttyrec` is a file that the game is recorded into (version 3, bz2); whole after `close`.
        """
        if self._nle is None or spec.name != self._player or ttyrec or self._ttyrec:
            self._open(spec.name, ttyrec)
        nle = self._nle
        assert nle is not None
        _empty(Path(nle._vardir))
        nle.set_initial_seeds(spec.core, spec.disp, False, spec.lgen)
        nle.reset()
        _set_ubirthday(nle.dlpath, spec.ubirthday)
        self.spec = spec
        self.keys.clear()
        self.done = False

    def step(self, key: int) -> None:
        """Press one key (0 to 255)."""
        assert self._nle is not None, "start a game first"
        self.keys.append(key)
        _, self.done = self._nle.step(key)

    @property
    def over(self) -> bool:
        """NetHack has ended the game; its closing screens may still wait for keys."""
        return bool(self.done or self.observation["program_state"][_GAME_OVER])

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
        for _ in range(_MAX_DISMISSALS):
            if self.done or self.observation["program_state"][_IN_MOVELOOP]:
                return
            # A scare monster scroll picked up on turn 0 asks for a name: a space never ends that.
            self.step(ESCAPE if self.observation["internal"][_IN_GETLIN] else SPACE)
        raise RuntimeError(f"game {self.spec} did not start within {_MAX_DISMISSALS} keys")

    def close_out(self) -> tuple[str, bool]:
        """Dismiss the closing screens, outside the trace. Returns (cause of the end, ascended)."""
        nle = self._nle
        assert nle is not None
        for _ in range(_MAX_DISMISSALS):
            if self.done:
                break
            waits = self.observation["internal"][_WAITS_FOR_SPACE]
            _, self.done = nle.step(SPACE if waits else ESCAPE)
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

    def _open(self, player: str, ttyrec: Path | None) -> None:
        self.close()
        names = self._names
        if player.endswith("@"):  # a role is drawn, see `role`
            names = tuple(dict.fromkeys((*names, "glyphs")))
        self._nle = nethack.Nethack(
            observation_keys=names,
            playername=player,
            ttyrec=os.fspath(ttyrec) if ttyrec else None,
            fix_moon_phase=True,
        )
        self._player, self._ttyrec = player, ttyrec
        self.observation = dict(zip(names, self._nle._obs, strict=True))
        # Not a method of self, so that a forgotten Game is still closed when it is collected.
        self._finalizer = weakref.finalize(self, self._nle.close)


def _empty(folder: Path) -> None:
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


def _set_ubirthday(library: str, value: int) -> None:
    """Write the C variable `ubirthday` of one loaded NetHack; every reset sets it to the clock.

    It decides shopkeepers' names, prices of glass, kinds of ants (NetHack-LE/nle issue 129).
    """
    handle = _libc.dlopen(library.encode(), os.RTLD_LAZY | _RTLD_NOLOAD)
    symbol = _libc.dlsym(handle, b"ubirthday") if handle else None
    if not symbol:
        raise RuntimeError("this NLE build does not export ubirthday: its clock cannot be pinned")
    ctypes.c_long.from_address(symbol).value = value
    _libc.dlclose(handle)  # or NLE's next reset would find the library still loaded, and exit


def _cause(folder: Path) -> str:
    """How NetHack's own log says the game ended ("killed by a jackal"), "" when it says nothing."""
    lines = (folder / "xlogfile").read_text(errors="replace").splitlines()
    fields = dict(field.partition("=")[::2] for field in lines[-1].split("\t")) if lines else {}
    return fields.get("death", "")


@dataclass
class EpisodeResult:
    """What one game came to. `depth` and `experience_level` are the last seen, in game.

    `score` is the sum of NLE's score reward: the in-game score before the step that ended the game
    (NLE's reward of that step is 0). `end_status` is death, ascended, step_cap, stalled or crashed.
    `role` is known where it is drawn.
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
    """A game under a protocol's limits, with its score. The one place where these are counted."""

    def __init__(self, game: Game) -> None:
        self.game = game
        self.result = EpisodeResult()
        self.step_cap = self.no_progress = 0
        self._first_score = 0.0
        self._unchanged = 0

    def start(self, spec: GameSpec, step_cap: int, no_progress: int) -> None:
        """Begin a game and stand before its first decision."""
        self.game.start(spec)
        self.game.skip_opening()
        self.step_cap, self.no_progress = step_cap, no_progress
        self.result = EpisodeResult()
        self._unchanged = 0
        self._first_score = float(self.game.observation["blstats"][nethack.NLE_BL_SCORE])
        self._observe(score=True)
        self.result.role = self.game.role if spec.character == "@" else ""

    def step(self, key: int) -> bool:
        """Press the agent's key; True when the episode is over and `result` final."""
        game, result = self.game, self.result
        turns = result.turns
        game.step(key)
        result.steps += 1
        over = game.over
        if not over or game.in_normal_game:
            self._observe(score=not over)
        self._unchanged = self._unchanged + 1 if result.turns == turns else 0
        if over:
            result.cause, ascended = game.close_out()
            result.end_status = "ascended" if ascended else "death"
        elif result.steps >= self.step_cap:
            result.end_status = "step_cap"
        elif self._unchanged >= self.no_progress:
            result.end_status = "stalled"
        return bool(result.end_status)

    def _observe(self, score: bool) -> None:
        blstats, result = self.game.observation["blstats"], self.result
        if score:
            result.score = float(blstats[nethack.NLE_BL_SCORE]) - self._first_score
        result.turns = int(blstats[nethack.NLE_BL_TIME])
        result.depth = int(blstats[nethack.NLE_BL_DEPTH])
        result.experience_level = int(blstats[nethack.NLE_BL_XP])
        result.max_depth = max(result.max_depth, result.depth)
        result.max_experience_level = max(result.max_experience_level, result.experience_level)


class NetHackEnv(gymnasium.Env[dict[str, np.ndarray[Any, Any]], np.int64]):
    """NetHackChallenge's interface (121 keys, nothing skipped) on games that are really seeded.

    `reset(seed=s)` decides the whole game, and the whole sequence of later `reset()` games.
    `reset(options={"protocol": id, "episode": i})` plays exactly that game of a protocol, under its
    limits; `options={"game": GameSpec(...)}` any game. A death is `terminated`, a capped or stalled
    game `truncated`; `info["end_status"]` names which. Observations are copies.
    """

    metadata = {"render_modes": ["ansi", "human"], "render_fps": 42}  # noqa: RUF012

    def __init__(
        self,
        character: str = "mon-hum-neu-mal",
        step_cap: int = 100_000,
        no_progress: int = 1_000,
        observation_keys: Iterable[str] | None = None,
        render_mode: str | None = None,
    ) -> None:
        names = tuple(observation_keys or _challenge_keys())
        spaces = dict(NLE_SPACE_ITEMS)
        self.observation_space = gymnasium.spaces.Dict({name: spaces[name] for name in names})
        self.action_space = gymnasium.spaces.Discrete(len(ACTION_KEYS))
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise InputError(f"render_mode {render_mode!r}: choose ansi or human")
        self.render_mode = render_mode
        self._names = names
        self._character, self._limits = character, (step_cap, no_progress)
        # tty_* for render()
        self._episode = Episode(Game(dict.fromkeys((*names, *TTY))))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
        """Begin a game. See the class for `options`."""
        super().reset(seed=seed)
        spec, limits = self._choose(options or {})
        self._episode.start(spec, *limits)
        return self._observation(), self._info()

    def step(
        self, action: Any
    ) -> tuple[dict[str, np.ndarray[Any, Any]], float, bool, bool, dict[str, Any]]:
        """Press the key of `action` (index in ACTION_KEYS). The reward is the score's increase."""
        before = self._episode.result.score
        self._episode.step(int(ACTION_KEYS[int(action)]))
        result = self._episode.result
        terminated = result.end_status in ("death", "ascended")
        truncated = bool(result.end_status) and not terminated
        return self._observation(), result.score - before, terminated, truncated, self._info()

    @property
    def trace(self) -> tuple[GameSpec, bytes]:
        """What decided the current game, and the raw keys that NLE has received since."""
        spec = self._episode.game.spec
        assert spec is not None, "reset first"
        return spec, bytes(self._episode.game.keys)

    def render(self) -> str | None:  # type: ignore[override]
        """The screen with ANSI colours: returned for "ansi", printed for "human"."""
        screen = nethack.tty_render(*(self._episode.game.observation[name] for name in TTY))
        if self.render_mode == "ansi":
            return str(screen)
        if self.render_mode == "human":
            print(screen)
        return None

    def close(self) -> None:
        """Free the game."""
        self._episode.game.close()

    def _choose(self, options: Mapping[str, Any]) -> tuple[GameSpec, tuple[int, int]]:
        unknown = set(options) - {"protocol", "episode", "game"}
        if unknown:
            raise InputError(f"reset options {sorted(unknown)}: known are protocol, episode, game")
        if "protocol" in options:
            protocol = get_protocol(options["protocol"])
            spec = protocol.game(int(options.get("episode", 0)))
            return spec, (protocol.step_cap, protocol.no_progress)
        if "episode" in options:
            raise InputError("reset option episode: needs the option protocol beside it")
        if "game" in options:
            return options["game"], self._limits
        core, disp = (int(seed) for seed in self.np_random.integers(0, 2**63, size=2))
        return GameSpec(core=core, disp=disp, character=self._character), self._limits

    def _observation(self) -> dict[str, np.ndarray[Any, Any]]:
        live = self._episode.game.observation
        return {name: live[name].copy() for name in self._names}

    def _info(self) -> dict[str, Any]:
        spec = self._episode.game.spec
        assert spec is not None
        info = asdict(self._episode.result)
        info["end_status"] = info["end_status"] or None
        return info | {"core": spec.core, "disp": spec.disp, "character": spec.character}


def _challenge_keys() -> tuple[str, ...]:
    """The observations that NLE's NetHackChallenge offers by default."""
    default = inspect.signature(NetHackChallenge.__init__).parameters["observation_keys"].default
    return tuple(default)
