"""The process of a bot, on the inside: it receives the observations of one game, sends actions.

A template process makes the bot's imports once and forks a child for every game. A game's two
ends talk over a socket: observations cross as one block of bytes, answers as a small struct. None
of this imports torch or NLE.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import operator
import os
import random
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nhzoo.runtime import processes
from nhzoo.runtime.arrays import Array, Field, arrays_in, memory_layout

ACTIONS = 121
"""Actions of NetHackChallenge: a bot's answer is an index below this."""

START_SECONDS = 600.0  # for a bot's imports; a first compilation may be among them
CLOSE_SECONDS = 1.0  # for a bot's close() before its process is killed
_MAX_TEXT = 4_000
_SHOWN = 200
_HEADER = struct.Struct("<Bi")  # kind, then an action or the length of a text
ACTION, TEXT, FAILED = 0, 1, 2
FORK, END, KILL = b"f", b"e", b"k"
ALIGNED = 16  # bytes; compiled code refuses arrays that are not


class GameEnded(Exception):
    """Raised in a blocking player when its game is over: it should return."""


@dataclass(frozen=True)
class BotSource:
    """The source of a bot: `function` of `module` makes it, once a game, without arguments.

    `folder` goes first on sys.path; the function `prepare` of the module, if any, is called once
    in the template, so that what it imports is there in every game.
    """

    module: str
    function: str = "make_agent"
    folder: str | None = None
    prepare: str | None = None


class BotEnv:
    """A game as a bot sees it. `observation` is the latest; its arrays are the bot's own copies."""

    def __init__(self, connection: socket.socket, fields: Iterable[Field]) -> None:
        self._connection = connection
        self._layout = memory_layout(fields, ALIGNED)
        self._pid = os.getpid()
        self.ended = False
        self.observation: dict[str, Array] = {}

    def step(self, action: Any) -> dict[str, Array]:
        """Press the key of action index `action`; the next observation. Raises GameEnded."""
        try:
            index = operator.index(action)
        except TypeError:
            index = -1
        if not 0 <= index < ACTIONS:
            self.fail(f"returned {_shown(action)}, not an action index from 0 to {ACTIONS - 1}")
        else:
            self._tell(ACTION, index)
        return self.observe()

    def observe(self) -> dict[str, Array]:
        """Wait for the next observation."""
        data, arrays = new_block(self._layout)  # the bot may keep and change those of earlier steps
        filled = 0
        while filled < len(data):
            got = 0
            if not self.ended:
                with contextlib.suppress(OSError):
                    got = self._connection.recv_into(data[filled:], 0, socket.MSG_WAITALL)
            if not got:
                self.ended = True
                raise GameEnded
            filled += got
        self.observation = arrays
        return arrays

    def fail(self, reason: str) -> None:
        """End the game as failed: `reason` follows the word "bot"."""
        if not self.ended:
            self._tell(FAILED, reason)
        self.ended = True

    def _tell(self, kind: int, value: int | str) -> None:
        if os.getpid() != self._pid:  # the bot has forked: one of the two may answer
            os._exit(0)
        try:
            send(self._connection, kind, value)
        except OSError:
            self.ended = True


def new_block(layout: np.dtype[Any]) -> tuple[memoryview, dict[str, Array]]:
    """New bytes and the arrays of an observation over them: writable, with no other reference."""
    data = np.zeros(layout.itemsize, np.uint8)
    return data.data, arrays_in(data, layout)


def _perform(bot: Any, env: BotEnv) -> None:
    """Play one game with a bot or a blocking player."""
    observation = env.observe()
    if not hasattr(bot, "act"):
        bot(env)
        env.fail("stopped before its game was over")
        return
    try:
        bot.reset({name: array.copy() for name, array in observation.items()})
        while True:
            observation = env.step(bot.act(observation))
    finally:
        if hasattr(bot, "close"):
            bot.close()


def _play(connection: socket.socket, make: Callable[[], Any]) -> None:
    """The life of a process that plays one game; the game's first message says what it sees."""
    setup = json.loads(receive(connection, START_SECONDS)[2])
    connection.settimeout(None)
    random.seed(setup["seed"])
    np.random.seed(setup["seed"] & 0xFFFFFFFF)
    env = BotEnv(connection, setup["layout"])
    try:
        bot = make()
        if not (callable(bot) or (hasattr(bot, "reset") and hasattr(bot, "act"))):
            raise TypeError(f"{_shown(bot)} is not a bot: no reset and act")
        if setup["probe"]:
            keys = getattr(bot, "observation_keys", None)
            send(connection, TEXT, json.dumps(None if keys is None else list(keys)))
            return
        _perform(bot, env)
    except BaseException as error:  # of foreign code; SystemExit too
        if not env.ended:
            env.fail(f"raised {_named(error)}")


def template(control: int, parent: int, settings: dict[str, Any]) -> None:
    """Run a template process: it imports the bot's code and forks a child for each game."""
    processes.end_with(parent)
    processes.keep_handles()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(2, 1)  # stdout belongs to whoever wants JSON there
    connection = socket.socket(fileno=control)
    try:
        if settings["folder"]:
            sys.path.insert(0, settings["folder"])
        module = importlib.import_module(settings["module"])
        if settings["prepare"]:
            getattr(module, settings["prepare"])()
        make = getattr(module, settings["function"])
    except BaseException as error:
        send(connection, FAILED, _named(error))
        return
    # A fork beside other threads may inherit their locks: such a process plays one game itself.
    forks = _is_alone()
    send(connection, ACTION, int(forks))
    os.register_at_fork(before=_remember_self, after_in_child=_die_with_forker)
    gc.freeze()  # the children share these pages as long as nothing touches them
    child = 0
    while True:
        _await_command(connection, child)
        command, handles = b"", list[int]()
        with contextlib.suppress(OSError):
            command, handles, _, _ = socket.recv_fds(connection, 1, 1)
        if command == FORK:
            os.set_inheritable(handles[0], False)
            game = socket.socket(fileno=handles[0])
            child = os.fork() if forks else 0
            if forks:
                with contextlib.suppress(OSError):
                    os.setpgid(child, child)  # in both, whichever comes first
            if child == 0:
                connection.close()
                _play(game, make)
                with contextlib.suppress(Exception):
                    sys.stdout.flush()
                os._exit(0)
            game.close()
            continue
        code = _end(child, 0.0 if command != END else CLOSE_SECONDS) if child else 0
        child = 0
        if not command:
            return
        send(connection, ACTION, code)


def _is_alone() -> bool:
    """Whether this process has one thread; False where that cannot be known."""
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:  # no /proc
        return False


def _await_command(connection: socket.socket, child: int) -> None:
    """Wait for the next command. When the game's process ends before, end what it has forked.

    Such a process holds the game's socket, by whose end the other side knows.
    """
    ended = processes.watch_end(child) if child else None
    if ended is None:
        return
    try:
        poll = select.poll()  # no select(): a handle of 1,024 or more is out of its range
        for handle in (connection.fileno(), ended):
            poll.register(handle, select.POLLIN)
        if all(handle == ended for handle, _ in poll.poll()):
            with contextlib.suppress(OSError):
                os.killpg(child, signal.SIGKILL)  # not yet reaped, so the number is still its own
    finally:
        os.close(ended)


def _end(child: int, patience: float) -> int:
    """End a game's process and all it has forked; its exit code."""
    deadline = time.monotonic() + patience
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() >= deadline:
            break
        time.sleep(0.001)
    with contextlib.suppress(OSError):
        os.killpg(child, signal.SIGKILL)  # not yet reaped, so the number is still its own
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


_forker = 0


def _remember_self() -> None:
    global _forker
    _forker = os.getpid()


def _die_with_forker() -> None:
    processes.end_with(_forker)


def send(connection: socket.socket, kind: int, value: int | str) -> None:
    """Send one message: an action index or a text."""
    if isinstance(value, str):
        text = value.encode(errors="replace")[:_MAX_TEXT]
        connection.sendall(_HEADER.pack(kind, len(text)) + text)
    else:
        connection.sendall(_HEADER.pack(kind, value))


def receive(connection: socket.socket, seconds: float) -> tuple[int, int, str]:
    """Receive one message: kind, action, text. TimeoutError when late, EOFError at the end."""
    deadline = time.monotonic() + seconds
    kind, value = _HEADER.unpack(_receive_bytes(connection, _HEADER.size, deadline))
    if kind == ACTION:
        return kind, value, ""
    if not 0 <= value <= _MAX_TEXT:
        raise EOFError  # nothing of ours: foreign code has written to the socket
    return kind, -1, _receive_bytes(connection, value, deadline).decode(errors="replace")


def _receive_bytes(connection: socket.socket, size: int, deadline: float) -> bytes:
    data = b""
    while len(data) < size:
        connection.settimeout(max(1e-3, deadline - time.monotonic()))
        try:
            part = connection.recv(size - len(data))
        except TimeoutError:
            raise
        except OSError:
            raise EOFError from None
        if not part:
            raise EOFError
        data += part
    return data


def _named(error: BaseException) -> str:
    """An exception of foreign code in words; its own may fail, too."""
    name = type(error).__name__
    try:
        return f"{name}: {error}" if str(error) else name
    except Exception:
        return name


def _shown(value: Any) -> str:
    try:
        return one_line(repr(value), 60)
    except Exception:
        return f"an object of {type(value).__name__}"


def one_line(text: str, length: int = _SHOWN) -> str:
    """`text` on one line of at most `length` characters, all printable."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[:_MAX_TEXT]).split())
    return line if len(line) <= length else line[: length - 3] + "..."
