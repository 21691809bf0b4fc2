"""Many NetHack games side by side: `gymnasium.make_vec("nhzoo/Monk-v1", num_envs=64)`.

A few worker processes hold many games each, which NLE writes straight into memory that is shared
with this process. Which game begins where is decided here, so it depends neither on the number of
workers nor on what becomes of one.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from nle import nethack

from nhzoo.envs.actions import ACTION_KEYS, TTY
from nhzoo.envs.game import FINAL
from nhzoo.envs.gym import NetHackEnv, draw_game, whole_number
from nhzoo.envs.protocols import GameSpec, Protocol, get_protocol
from nhzoo.envs.vector_worker import NOTHING, NUMBERS, STATUS, STATUSES, layout, serve
from nhzoo.errors import InputError, NhzooError, Notice
from nhzoo.runtime.arrays import Array, arrays_in
from nhzoo.runtime.children import Child, wait

_STATUS_NAMES = np.array([None, *STATUSES[1:]], object)
_CRASHED = STATUSES.index("crashed")
_SCORE = NUMBERS.index("score")
_LOOK = 1.0  # seconds from one look at limits to the next
_HANG_SECONDS = 300.0  # for a worker to press a key in each of its games
_START_SECONDS = 600.0  # and before its first answer
_MOST_DEATHS = 10  # of workers in one place, one after another, without an answer in between


@dataclass(frozen=True)
class _Next:
    """A game to begin. `number`: the protocol's, or how many of its seed come before."""

    spec: GameSpec
    step_cap: int
    no_progress: int
    protocol: str | None
    number: int


class _Seeded:
    """The games of one seed, as `NetHackEnv` plays them after `reset(seed=...)`."""

    def __init__(self, seed: int | None, character: str, limits: tuple[int, int]) -> None:
        self.random, self.seed = seeding.np_random(seed)
        self._character, self._limits = character, limits
        self._begun = 0

    def next(self) -> _Next:
        game = draw_game(self.random, self._character)
        self._begun += 1
        return _Next(game, *self._limits, None, self._begun - 1)


class _InOrder:
    """The games of a protocol from `first` on, and from 0 again after the last."""

    def __init__(self, protocol: Protocol, first: int) -> None:
        protocol.game(first)  # which says what is wrong with the number
        self._protocol, self._next = protocol, first

    def next(self) -> _Next:
        protocol, number = self._protocol, self._next
        self._next = (number + 1) % protocol.games
        limits = protocol.step_cap, protocol.no_progress
        return _Next(protocol.game(number), *limits, protocol.id, number)


@dataclass
class _Worker:
    """One process. `rows` are its sub-environments; `asked` is when it was last sent something."""

    number: int
    rows: range
    child: Child
    asked: float = 0.0
    answered: bool = False
    deaths: int = 0


class NetHackVectorEnv(gymnasium.vector.VectorEnv[dict[str, Array], Array, Array]):
    """`num_envs` games of `NetHackEnv`, stepped by `workers` processes (default: one a CPU core).

    `reset(seed=s)` decides every game, those that begin by autoreset too: sub-environment i plays
    the games that `gymnasium.make` plays after `reset(seed=s + i)` and each `reset()` that follows.
    (So take seeds that are `num_envs` or more apart, or give a list of seeds, one each.)
    `reset(options={"protocol": id, "episode": first})` plays that protocol's games in order, under
    its limits: sub-environment i begins with game first + i, and whichever ends takes the next one,
    the lowest first; after the last game comes game 0. `options={"reset_mask": bool [num_envs]}`
    resets some: alone, each to the next game of what it is playing, or with a seed or a protocol.

    Infos hold what `NetHackEnv` gives, as arrays [num_envs], and name the game that each is in by
    `protocol` and `game`, its number there; or None, and how many games of its seed came before.
    `autoreset_mode` is Gymnasium's: "NextStep", "SameStep" or "Disabled".
    Observations are copies; with `copy=False` views of what the next step overwrites.

    A worker that ends, or hangs for 5 minutes, is replaced, and a `Notice` says so. Its games end:
    `truncated`, with no reward, `info["end_status"]` "crashed", and `cause`; the observation is
    what is there of it. They begin again from the start when they are reset by autoreset; that in
    which NLE itself ended the process does not, the next comes in its place.
    """

    def __init__(
        self,
        num_envs: int = 1,
        character: str = "mon-hum-neu-mal",
        step_cap: int = 100_000,
        no_progress: int = 1_000,
        observation_keys: Iterable[str] | None = None,
        render_mode: str | None = None,
        *,
        workers: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        copy: bool = True,
    ) -> None:
        self._workers: list[_Worker] = []
        self.num_envs = whole_number(num_envs, "num_envs")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        count = min(self.num_envs, cores or 1) if workers is None else workers
        if self.num_envs < 1 or not 1 <= whole_number(count, "workers") <= self.num_envs:
            raise InputError(
                f"num_envs {num_envs}, workers {workers}: give 1 or more, and no more workers "
                "than environments"
            )
        if render_mode not in (None, "ansi"):
            raise InputError(f"render_mode {render_mode!r}: vector environments know ansi alone")
        try:
            self._mode = AutoresetMode(autoreset_mode)
        except ValueError:
            known = ", ".join(mode.value for mode in AutoresetMode)
            raise InputError(f"autoreset_mode {autoreset_mode!r}: choose from {known}") from None
        single = NetHackEnv(character, step_cap, no_progress, observation_keys, render_mode)
        self.metadata = {"render_modes": ["ansi"], "autoreset_mode": self._mode}
        self.render_mode = render_mode
        self.single_observation_space = single.observation_space
        self.single_action_space = single.action_space
        self.observation_space = batch_space(single.observation_space, self.num_envs)
        self.action_space = batch_space(single.action_space, self.num_envs)
        self._copy = copy
        self._names: tuple[str, ...] = tuple(single.observation_space.spaces)  # type: ignore[attr-defined]
        self._game = character, (step_cap, no_progress)
        rows = range(self.num_envs)
        self._seeded = [_Seeded(None, *self._game) for _ in rows]
        self._sources: list[_Seeded | _InOrder] = list(self._seeded)
        self._current: list[_Next | None] = [None for _ in rows]
        self._again: dict[int, _Next] = {}
        self._lost: dict[int, str] = {}
        """Sub-environments whose game was lost and not yet told of, and why."""
        self._causes, self._roles = (np.full(self.num_envs, "", object) for _ in range(2))
        self._asked, self._ready = 0, False
        self._lines: list[str] = []
        self._shown = tuple(dict.fromkeys((*self._names, *TTY)))  # TTY is for `render`
        self._count = count
        placed = layout(self._shown, self.num_envs, count)
        self._memory = multiprocessing.get_context("spawn").RawArray("b", placed.itemsize)
        self._arrays = arrays_in(np.frombuffer(self._memory, np.uint8), placed)
        self._numbers, self._actions = self._arrays["numbers"], self._arrays["actions"]
        for number in range(count):
            first, end = (self.num_envs * n // count for n in (number, number + 1))
            rows = range(first, end)
            self._workers.append(_Worker(number, rows, self._spawn(number, rows)))

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """Begin a game in every sub-environment. See the class for `seed` and `options`."""
        self._check_open()
        chosen, in_order = self._choose(options or {})
        seeds = self._seeds(seed)
        for row in chosen:
            self._lost.pop(row, None)
            if seeds[row] is not None:
                self._seeded[row] = _Seeded(seeds[row], *self._game)
            elif in_order is None and "reset_mask" in (options or {}):
                continue  # with the next of the games that it is playing
            self._sources[row] = in_order or self._seeded[row]
            self._again.pop(row, None)
        self._begin(chosen)
        self._tell()
        return self._observation(), self._infos()

    def step(self, actions: Any) -> tuple[dict[str, Array], Array, Array, Array, dict[str, Any]]:
        """Press a key in every game: `actions`, integers [num_envs], are indices in ACTION_KEYS.

        Rewards are float64 [num_envs], the scores' increases; the flags bool [num_envs].
        """
        keys = self._keys(actions)
        before = self._numbers.copy()
        over = np.flatnonzero(before[STATUS])
        if over.size and self._mode is AutoresetMode.DISABLED:
            raise InputError(
                f"step: the game of sub-environment {over[0]} has ended; call reset with the "
                "option reset_mask first"
            )
        begun = [row for row in over.tolist() if row not in self._lost]
        keys[over] = NOTHING
        keys[list(self._lost)] = NOTHING
        before[:, begun] = 0
        self._actions[:] = keys
        self._exchange({row: self._next(row) for row in begun})
        for row, why in self._lost.items():
            self._numbers[:, row], self._causes[row] = before[:, row], why
            self._numbers[STATUS, row] = _CRASHED
        self._lost.clear()
        status = self._numbers[STATUS]
        rewards = (self._numbers[_SCORE] - before[_SCORE]).astype(np.float64)
        terminated = (status > 0) & (status <= len(FINAL))
        truncated = status > len(FINAL)
        final: dict[str, Any] = {}
        if self._mode is AutoresetMode.SAME_STEP and status.any():
            ended = np.flatnonzero(status).tolist()
            final = self._final(ended)
            self._begin(ended)
        self._tell()
        return self._observation(), rewards, terminated, truncated, final | self._infos()

    def render(self) -> tuple[str, ...] | None:  # type: ignore[override]
        """The screens with ANSI colours, one each, where `render_mode` is "ansi"."""
        self._check_begun("render")
        if self.render_mode is None:
            return None
        screens = zip(*(self._arrays[name] for name in TTY), strict=True)
        return tuple(str(nethack.tty_render(*screen)) for screen in screens)

    def close_extras(self, **kwargs: Any) -> None:
        """End the worker processes; nothing of them is left."""
        for worker in self._workers:
            worker.child.close()
        self._workers = []

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The seed of each sub-environment."""
        return tuple(source.seed for source in self._seeded)

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """What draws the seeded games of each sub-environment."""
        return tuple(source.random for source in self._seeded)

    def _choose(self, options: Mapping[str, Any]) -> tuple[list[int], _InOrder | None]:
        """Which sub-environments are reset, and the games to play in order."""
        unknown = set(options) - {"protocol", "episode", "reset_mask"}
        if unknown:
            raise InputError(
                f"reset options {sorted(unknown)}: known are protocol, episode, reset_mask"
            )
        if "episode" in options and "protocol" not in options:
            raise InputError("reset option episode: needs the option protocol beside it")
        chosen = list(range(self.num_envs))
        if "reset_mask" in options:
            mask = np.asarray(options["reset_mask"])
            if mask.dtype != np.bool_ or mask.shape != (self.num_envs,) or not mask.any():
                raise InputError(
                    f"reset option reset_mask: give bool [{self.num_envs}], some of them True"
                )
            chosen = np.flatnonzero(mask).tolist()
        if len(chosen) < self.num_envs and not self._ready:
            raise InputError("reset option reset_mask: no games are being played; reset all first")
        if "protocol" not in options:
            return chosen, None
        first = whole_number(options.get("episode", 0), "reset option episode")
        return chosen, _InOrder(get_protocol(options["protocol"]), first)

    def _seeds(self, seed: int | Sequence[int | None] | None) -> Sequence[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if not isinstance(seed, Sequence | np.ndarray):
            first = whole_number(seed, "seed")
            return [first + row for row in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise InputError(f"seed: give one number, or {self.num_envs} of them")
        return [None if one is None else whole_number(one, "seed") for one in seed]

    def _keys(self, actions: Any) -> Array:
        """Actions that are some, int64 [num_envs]."""
        self._check_begun("step")
        keys = np.asarray(actions)
        if keys.shape != (self.num_envs,) or keys.dtype.kind not in "iu":
            raise InputError(
                f"actions: give whole numbers [{self.num_envs}], not {keys.dtype} {keys.shape}"
            )
        wrong = (keys < 0) | (keys >= len(ACTION_KEYS))
        if wrong.any():
            raise InputError(
                f"action {keys[wrong][0]}: give an index from 0 to {len(ACTION_KEYS) - 1}"
            )
        return keys.astype(np.int64)

    def _next(self, row: int) -> _Next:
        return self._again.pop(row, None) or self._sources[row].next()

    def _begin(self, rows: Iterable[int]) -> None:
        """Begin games, whatever becomes of workers meanwhile."""
        left = list(rows)
        self._actions[:] = NOTHING
        while left:
            self._exchange({row: self._next(row) for row in left})
            left = [row for row in left if self._lost.pop(row, None)]

    def _exchange(self, begins: Mapping[int, _Next]) -> None:
        """Have the workers begin these games, and press the keys in `_actions` elsewhere.

        What was lost with a worker is in `_lost` then.
        """
        self._asked += 1
        self._ready = False  # unless this comes to its end
        asked = []
        for row, game in begins.items():
            self._current[row], self._causes[row], self._roles[row] = game, "", ""
            self._numbers[STATUS, row] = 0
        for worker in self._workers:
            mine = {row: begins[row] for row in worker.rows if row in begins}
            if mine or (self._actions[worker.rows.start : worker.rows.stop] >= 0).any():
                worker.child.send((self._asked, mine))
                worker.asked = time.monotonic()
                asked.append(worker)
        looked = time.monotonic()
        while asked:
            wait([worker.child for worker in asked], _LOOK)
            now = time.monotonic()
            away = max(0.0, now - looked - 2 * _LOOK)  # this process was stopped
            looked = now
            for worker in list(asked):
                worker.asked += away
                ended = worker.child.ended  # before what it said: that is all of it then
                limit = _HANG_SECONDS if worker.answered else _START_SECONDS
                if self._heard(worker):
                    asked.remove(worker)
                elif ended or now - worker.asked > limit:
                    asked.remove(worker)
                    self._replace(worker, None if ended else limit)
        self._ready = True

    def _heard(self, worker: _Worker) -> bool:
        """Whether it has answered what it was last asked."""
        for number, causes, roles, error in worker.child.messages():
            if error:
                raise NhzooError(f"worker {worker.number}: {error}")
            if number != self._asked:
                continue  # of a step that was interrupted
            for row, cause in causes.items():
                self._causes[row] = cause
            for row, role in roles.items():
                self._roles[row] = role
            worker.answered, worker.deaths = True, 0
            return True
        return False

    def _replace(self, worker: _Worker, silent: float | None) -> None:
        """Put another in the place of one that has ended, or is `silent` for so many seconds.

        What is lost with it is noted.
        """
        worker.child.kill()
        code, old = worker.child.exit_code, worker.child.pid
        how = f"said nothing for {silent:g} s" if silent else _how(code)
        blamed = int(self._arrays["in_hand"][worker.number])
        outside = not silent and code in (-signal.SIGKILL, -signal.SIGTERM)
        worker.child.close()
        worker.deaths += 1
        if worker.deaths > _MOST_DEATHS:
            raise NhzooError(
                f"{worker.deaths} worker processes ended one after another (the last {how}); "
                "what they wrote to standard error says why, or give fewer num_envs"
            )
        for row in worker.rows:
            if self._numbers[STATUS, row]:
                continue  # it had ended before; the status is what a worker writes last
            self._lost[row] = f"its process {how}"
            game = self._current[row]
            if game is not None and (outside or row != blamed):
                self._again[row] = game
        worker.child, worker.answered = self._spawn(worker.number, worker.rows), False
        games = f"its {len(worker.rows)} games end as truncated"
        self._lines.append(
            f"worker {worker.number} (process {old}) {how}: {games}, process {worker.child.pid} "
            "takes its place"
        )

    def _tell(self) -> None:
        lines, self._lines = self._lines, []
        for line in lines:
            warnings.warn(line, Notice, stacklevel=3)

    def _spawn(self, number: int, rows: range) -> Child:
        self._arrays["in_hand"][number] = NOTHING
        # The shape, and not the layout: dtypes come out of a pickle with formats that NLE refuses.
        shape = self._shown, self.num_envs, self._count
        return Child(serve, (number, rows, *shape), (self._memory,))

    def _observation(self) -> dict[str, Array]:
        live = self._arrays
        return {name: live[name].copy() if self._copy else live[name] for name in self._names}

    def _infos(self) -> dict[str, Any]:
        """What is known of each game, and beside it a mask that says that it is known."""
        numbers = self._numbers.copy()
        infos: dict[str, Any] = dict(zip(NUMBERS, numbers, strict=False))
        infos["score"] = infos["score"].astype(np.float64)
        infos["end_status"] = _STATUS_NAMES[numbers[STATUS]]
        infos["cause"], infos["role"] = self._causes.copy(), self._roles.copy()
        games = [game for game in self._current if game is not None]
        for name, kind in (("core", np.int64), ("disp", np.int64), ("character", object)):
            infos[name] = np.array([getattr(game.spec, name) for game in games], kind)
        infos["protocol"] = np.array([game.protocol for game in games], object)
        infos["game"] = np.array([game.number for game in games], np.int64)
        return infos | {f"_{name}": np.ones(self.num_envs, np.bool_) for name in infos}

    def _final(self, rows: Collection[int]) -> dict[str, Any]:
        """The last observations and infos of games that ended in a step that begins others."""
        observation, infos = self._observation(), self._infos()
        final: dict[str, Any] = {}
        for row in rows:
            seen = {name: array[row].copy() for name, array in observation.items()}
            known = {name: value[row] for name, value in infos.items() if name[0] != "_"}
            final = self._add_info(final, {"final_obs": seen, "final_info": known}, row)
        return final

    def _check_open(self) -> None:
        if self.closed:
            raise InputError("this vector environment is closed; make another")

    def _check_begun(self, what: str) -> None:
        self._check_open()
        if not self._ready:
            raise InputError(f"{what}: no games are being played; call reset first")


def _how(code: int) -> str:
    """How a process ended, by its exit code."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
