"""Bots: agents that are ordinary code, each game in a process of its own.

A bot is an object with `reset(observation)` and `act(observation) -> int` (an index into NLE's
ACTIONS) and perhaps `close()`, or a blocking player: a callable `play(env)` that calls
`env.step(index)` until that raises `GameEnded`. Its code may print, leak, hang or die: it runs in
a child that is forked anew for each game from a template in which its imports are already made.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from nhzoo.agents.bot_process import (
    ACTION,
    ACTIONS,
    ALIGNED,
    CLOSE_SECONDS,
    END,
    FAILED,
    FORK,
    KILL,
    START_SECONDS,
    TEXT,
    BotEnv,
    BotSource,
    GameEnded,
    new_block,
    one_line,
    receive,
    send,
)
from nhzoo.errors import InputError
from nhzoo.runtime import processes
from nhzoo.runtime.arrays import Array, memory_layout

__all__ = ["ACTIONS", "CHALLENGE_KEYS", "BotAgent", "BotEnv", "BotSource", "GameEnded", "one_line"]

CHALLENGE_KEYS = (
    *("glyphs", "chars", "colors", "specials", "blstats", "message"),
    *("inv_glyphs", "inv_strs", "inv_letters", "inv_oclasses"),
    *("tty_chars", "tty_colors", "tty_cursor", "misc"),
)
"""The observations that NetHackChallenge offers: what a bot sees unless it declares others."""

STEP_SECONDS = 60.0
_REPLY_SECONDS = 30.0  # for a template to say how its child has ended
_SPARE_SECONDS = 0.5
_SINGLE_THREADED = ("OPENBLAS", "OMP", "MKL", "NUMEXPR", "NUMBA")


class _Template:
    """A running template process, seen from the parent's side."""

    def __init__(self, source: BotSource, name: str) -> None:
        self.control, theirs = socket.socketpair()
        settings = asdict(source)
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            "from nhzoo.agents.bot_process import template; "
            f"template({theirs.fileno()}, {os.getpid()}, {settings!r})"
        )
        threads = {f"{library}_NUM_THREADS": "1" for library in _SINGLE_THREADED}
        self.process = processes.from_lasting(
            lambda: subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=os.environ | threads | {"PYTHONHASHSEED": "0"},
                start_new_session=True,  # no signal of the terminal's reaches it
            )
        )
        theirs.close()
        try:
            kind, value, text = receive(self.control, START_SECONDS)
        except (TimeoutError, EOFError) as error:
            late = isinstance(error, TimeoutError)
            kind, text = FAILED, "its import takes too long" if late else "its process died"
        if kind != ACTION:
            self.close()
            raise InputError(f"agent {name!r}: {one_line(text)}")
        self.forks = bool(value)

    def fork(self) -> socket.socket:
        """Start the process of a game; the parent's end of its connection. OSError: it is gone."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                socket.send_fds(self.control, [FORK], [theirs.fileno()])
        except OSError:
            ours.close()
            raise
        return ours

    def end(self, kill: bool) -> int | None:
        """End the game's process; its exit code. None: the template is of no use any more."""
        if self.forks:
            with contextlib.suppress(OSError, TimeoutError, EOFError):
                self.control.sendall(KILL if kill else END)
                return receive(self.control, CLOSE_SECONDS + _REPLY_SECONDS)[1]
        return None

    def close(self, kill: bool = True) -> int:
        """End the template and the game that it may be playing; its exit code."""
        self.control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            # Told by the closed connection, it ends its child before itself.
            self.process.wait(_SPARE_SECONDS if kill else CLOSE_SECONDS)
        with contextlib.suppress(OSError):
            if self.process.returncode is None:
                os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait()


class BotAgent:
    """A bot as an `Agent` that plays one game at a time, each in a fresh process under limits.

    A state is int64 [1]: 0 before a game, then the number of the game that is being played. The
    global generators of `random` and numpy are seeded from the game's first uniform, so bots that
    draw from these press the same keys in the same game; so is Python's string hashing fixed.

    When the bot fails, `act` returns action -1, `failure` says why, and `timed_out` whether it was
    for want of time. Processes start when they are first needed: until then it can be pickled.
    """

    max_batch = 1
    _template: _Template | None
    _finalizer: weakref.finalize[..., Any]
    _connection: socket.socket | None

    def __init__(
        self,
        source: BotSource,
        name: str,
        revision: str | None = None,
        observation_keys: Iterable[str] | None = None,
        step_seconds: float = STEP_SECONDS,
        game_seconds: float | None = None,
    ) -> None:
        if step_seconds <= 0 or (game_seconds is not None and game_seconds <= 0):
            raise InputError(f"agent {name!r}: a time limit must be more than 0 seconds")
        self.source, self.name, self.revision = source, name, revision
        self.observation_keys = tuple(
            CHALLENGE_KEYS if observation_keys is None else observation_keys
        )
        self.step_seconds, self.game_seconds = step_seconds, game_seconds
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    @property
    def limits(self) -> dict[str, float | None]:
        """The time limits: results under others are other results."""
        return {"step_seconds": self.step_seconds, "game_seconds": self.game_seconds}

    def initial_state(self, batch: int) -> Array:
        """The state before a game: zeros, int64 [batch]."""
        return np.zeros(batch, np.int64)

    def act(
        self, observation: Mapping[str, Array], state: Array, uniform: Array
    ) -> tuple[Array, Array]:
        """See `Agent.act`; the batch is 1. Action -1: the bot has failed, see `failure`."""
        if len(uniform) != 1 or state[0] not in (0, self._handle):
            raise ValueError("a bot plays one game at a time, in a batch of one")
        arrays = {name: observation[name][0] for name in self.observation_keys}
        if state[0] == 0:
            self._begin(arrays, int(uniform[0] * 2**53))
        action = self._ask(arrays) if self.failure is None else -1
        return np.array([action]), np.array([self._handle])

    def end_game(self) -> None:
        """End the current game: call the bot's close() and end its process."""
        self._end(kill=False)

    def close(self) -> None:
        """End all processes; the next game starts them again."""
        self._end(kill=True)
        if self._template is not None:
            self._finalizer()
            self._template = None

    def probe(self) -> tuple[str, ...] | None:
        """Make the bot once, as a trial: the observations it declares, None without any.

        InputError when its code cannot be imported or makes no bot.
        """
        connection = self._connect({}, 0, probe=True)
        try:
            kind, _, text = receive(connection, START_SECONDS)
        except (TimeoutError, EOFError):
            kind, text = FAILED, "died when it was made"
        self.close()
        if kind == FAILED:
            raise InputError(f"agent {self.name!r}: it {one_line(text)}")
        try:
            keys = json.loads(text)
            return None if keys is None else tuple(str(key) for key in keys)
        except (ValueError, TypeError):
            raise InputError(f"agent {self.name!r}: it wrote where only nhzoo may") from None

    def _forget(self) -> None:
        self._template = self._connection = None
        self._handle = 0
        self._thought = 0.0
        self.failure: str | None = None
        self.timed_out = False

    def _begin(self, arrays: Mapping[str, Array], seed: int) -> None:
        self._end(kill=False)
        self._handle += 1
        self._thought = 0.0
        self.failure, self.timed_out = None, False
        self._connect(arrays, seed, probe=False)

    def _connect(self, arrays: Mapping[str, Array], seed: int, probe: bool) -> socket.socket:
        fields = [(name, array.dtype.str, array.shape) for name, array in arrays.items()]
        for again in (True, False):
            if self._template is None:
                self._template = _Template(self.source, self.name)
                self._finalizer = weakref.finalize(self, self._template.close)
            try:
                self._connection = self._template.fork()
                break
            except OSError:  # somebody killed the template: a new one will do
                self.close()
                if not again:
                    raise
        assert self._connection is not None
        self._data, self._arrays = new_block(memory_layout(fields, ALIGNED))
        with contextlib.suppress(OSError):  # it is gone: the next answer will not come
            setup = {"seed": seed, "probe": probe, "layout": fields}
            send(self._connection, TEXT, json.dumps(setup))
        return self._connection

    def _ask(self, arrays: Mapping[str, Array]) -> int:
        assert self._connection is not None
        began = time.monotonic()
        seconds = self.step_seconds
        if self.game_seconds is not None:
            seconds = min(seconds, self.game_seconds - self._thought)
        try:
            self._connection.settimeout(max(1e-3, seconds))
            for name, array in arrays.items():
                self._arrays[name][...] = array
            self._connection.sendall(self._data)
            kind, action, text = receive(self._connection, seconds)
        except TimeoutError:
            limit = self.step_seconds
            reason = f"bot gave no answer within {limit:,g} s"
            if seconds < limit:
                reason = f"bot took more than {self.game_seconds:,g} s"
            return self._fail(reason, timed_out=True)
        except (EOFError, OSError):
            return self._died()
        self._thought += time.monotonic() - began
        if kind != ACTION:
            return self._fail(f"bot {text}")
        if not 0 <= action < ACTIONS:
            return self._fail(f"bot returned {action}, not an action index from 0 to {ACTIONS - 1}")
        return int(action)

    def _died(self) -> int:
        code = self._end(kill=False)
        if code is not None and code < 0:
            # Who killed it may be about to kill this process too: then it was not the game's end.
            time.sleep(_SPARE_SECONDS)
        return self._fail(f"bot's process died (exit code {code})")

    def _fail(self, reason: str, timed_out: bool = False) -> int:
        self.failure = one_line(reason)
        self.timed_out = timed_out
        self._end(kill=timed_out)
        return -1

    def _end(self, kill: bool) -> int | None:
        """End the current game's process, if there is one; its exit code."""
        if self._connection is None:
            return None
        self._connection.close()
        self._connection = None
        template = self._template
        assert template is not None
        code = template.end(kill)
        if code is None:
            self._finalizer.detach()
            self._template = None
            code = template.close(kill)
        return code
