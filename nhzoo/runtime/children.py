"""Child processes that may be killed, stopped or hung at any moment.

A child ends with the process that started it. Its own end is told by the kernel: not by a pipe,
which a program that the child has started may hold open for longer.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import select
import signal
import threading
import time
from collections.abc import Callable, Collection
from multiprocessing import spawn, util
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import cloudpickle

from nhzoo.runtime import channels, processes, scratch
from nhzoo.runtime.channels import Channel

_LOOK_SECONDS = 0.05  # between looks at children, where the kernel does not tell of their end
_DEAF_SECONDS = 10.0  # for a child that has closed its channel to end by itself
_KILL_SECONDS = 10.0  # for the kernel to end one, unless a broken disk holds it


class Child:
    """A process that runs `target(channel, *shared, *args)`.

    `target` and `args` are pickled here; `shared` may hold what only a process that is being
    started can be given, such as shared memory. `folder` is the child's for temporary things, and
    goes with `close`, or with this object, or with this process. In the child SIGINT is ignored and
    standard output is standard error.
    """

    def __init__(
        self, target: Callable[..., None], args: tuple[Any, ...], shared: tuple[Any, ...] = ()
    ) -> None:
        scratch.guard()
        call = cloudpickle.dumps((target, args))
        self.folder = scratch.new_folder()
        self._channel, theirs = Channel.pair()
        self._listening = True
        self._deaf = 0.0
        self._end: int | None = None
        self.broke_off = False
        """Whether it was killed for it has closed its channel, or spoilt it, and gone on."""
        self._process = multiprocessing.get_context("spawn").Process(
            target=_live, args=(theirs, os.getpid(), os.fspath(self.folder), shared)
        )
        self._process.daemon = True
        try:
            processes.from_lasting(self._start)
            theirs.close()
            assert self._process.pid is not None
            self.pid: int = self._process.pid
            self._end = processes.watch_end(self.pid)
            scratch.note_child(self.folder, self.pid)
            # Not as an argument: what a pipe does not hold, one that is stopped never takes.
            self._channel.send(call)
        except BaseException:
            theirs.close()
            _finish(self._process, self._end, self._channel, self.folder)
            raise
        # At this process's end, before Python would send it SIGTERM, which it may not heed, and
        # wait for its end without a limit.
        held = self._process, self._end, self._channel, self.folder
        self._finish = util.Finalize(self, _finish, held, exitpriority=10)

    def _start(self) -> None:
        """Start it, and have it leave the program's main script alone.

        Python has a new process run that script first, for what may be defined there. A notebook or
        standard input is no file to be run, and a script without a guard would begin all over. What
        is defined there is in `call`.
        """
        _thread.starts_ours = True
        try:
            self._process.start()
        finally:
            _thread.starts_ours = False

    @property
    def ended(self) -> bool:
        """Whether it has ended; then nothing is left of it in the table of processes."""
        if self._process.exitcode is not None:
            return True
        return self._end is not None and _can_read(self._end)

    @property
    def exit_code(self) -> int:
        """Of one that has ended; minus the signal that killed it."""
        code = self._process.exitcode
        return -signal.SIGKILL if code is None else code  # somebody else has asked for it before

    def send(self, message: Any) -> None:
        """Send a message: what the child does not take yet, it gets in calls of `wait`."""
        self._channel.send(message)

    def messages(self) -> list[Any]:
        """What it has said since, message by message; what was begun and not finished, later."""
        if self._listening:
            try:
                return self._channel.receive()
            except EOFError:
                self._listening, self._deaf = False, time.monotonic()
        elif self._is_deaf and not self.ended:  # foreign code has closed all that it could
            self.broke_off = True
            self._process.kill()
        return []

    @property
    def _is_deaf(self) -> bool:
        return not self._listening and time.monotonic() - self._deaf > _DEAF_SECONDS

    def kill(self) -> None:
        """Kill it and wait for its end."""
        _kill(self._process, self._end)

    def close(self) -> None:
        """Kill it, and remove what is left of it."""
        self._finish()
        self._listening, self._end = False, None


def wait(children: Collection[Child], seconds: float | None) -> None:
    """Wait until one of the children says something or has ended, at most so many seconds."""
    deadline = None if seconds is None else time.monotonic() + seconds
    ends: list[Channel | int] = [child._channel for child in children if child._listening]
    ends += [child._end for child in children if child._end is not None]
    blind = [child for child in children if child._end is None or not child._listening]
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        step = left
        if blind:
            step = _LOOK_SECONDS if left is None else min(left, _LOOK_SECONDS)
        if channels.wait(ends, step) or step == left or any(child.ended for child in blind):
            return
        if any(child._is_deaf for child in blind):
            return


def _kill(process: SpawnProcess, end: int | None) -> None:
    if process.pid is None or process.exitcode is not None or (end is not None and _can_read(end)):
        return
    process.kill()
    processes.wait_for_end(process.pid, _KILL_SECONDS)
    process.join(0)  # nothing is left of it in the table of processes


def _finish(process: SpawnProcess, end: int | None, channel: Channel, folder: Path) -> None:
    _kill(process, end)
    channel.close()
    if end is not None:
        os.close(end)
    scratch.remove(folder)


def how_it_ended(exit_code: int) -> str:
    """A process, in words."""
    if exit_code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"


_thread = threading.local()
_data_of_any = spawn.get_preparation_data


def _preparation_data(name: str) -> dict[str, Any]:
    """What Python tells a new process; to ours nothing of the main script, see `Child._start`."""
    data = _data_of_any(name)
    if getattr(_thread, "starts_ours", False):
        for of_main in ("init_main_from_name", "init_main_from_path"):
            data.pop(of_main, None)
    return data


vars(spawn)["get_preparation_data"] = _preparation_data


def _can_read(handle: int) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(0))


def _live(channel: Channel, parent: int, folder: str, shared: tuple[Any, ...]) -> None:
    """The life of a child, from before its own code is imported."""
    processes.end_with(parent)
    processes.keep_handles()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    scratch.settle(Path(folder))  # NLE leaves folders behind when it is killed
    with contextlib.suppress(OSError):
        os.dup2(2, 1)  # stdout is the parent's: foreign code that prints must not spoil its JSON
    try:
        call = channel.next()
    except EOFError:  # it is not wanted any more
        return
    target, args = pickle.loads(call)
    target(channel, *shared, *args)
