"""The lifetime of processes: a child ends with its parent, and which processes still live.

A child is killed by the kernel when its parent ends, by SIGKILL too, whatever code it runs then.
What a process leaves on the disk is named after it, so that a later one can tell whose it was.
This module imports the standard library alone: bots' processes use it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

_Result = TypeVar("_Result")
_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG = 1, 2
_LOOK_SECONDS = 0.25  # between two looks at the parent, where the kernel does not watch it
_starts: tuple[int, SimpleQueue[Any]] | None = None


def end_with(parent: int) -> None:
    """Have this process killed when its parent, the process `parent`, ends. Call it first.

    On Linux the kernel sends SIGKILL, in the middle of foreign code too; elsewhere a thread looks
    at the parent. The kernel means the *thread* that started this process: see `from_lasting`.
    """
    if not _killed_by_kernel():
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it ended before the kernel was told
        os._exit(1)


def keep_handles() -> None:
    """Let no program that this process starts inherit its files and sockets (but 0, 1 and 2).

    `os.system("... &")` of foreign code would hold them open after this process's end.
    """
    with contextlib.suppress(OSError):  # no such folder: leave them
        for name in os.listdir("/dev/fd"):
            if int(name) > 2:
                with contextlib.suppress(OSError):
                    os.set_inheritable(int(name), False)


def from_lasting(start: Callable[[], _Result]) -> _Result:
    """Call `start`, which starts a process, in a thread that lasts as long as this process."""
    global _starts
    if threading.current_thread() is threading.main_thread():
        return start()
    if _starts is None or _starts[0] != os.getpid():
        # No executor of Python's: these take nothing more once the main thread has no more to do.
        starts: SimpleQueue[Any] = SimpleQueue()
        try:
            threading.Thread(target=_start_all, args=(starts,), daemon=True).start()
        except RuntimeError:  # from Python 3.12 on there are no new ones once the main one ended
            return start()
        _starts = os.getpid(), starts
    future: Future[_Result] = Future()
    _starts[1].put((start, future))
    return future.result()


def _start_all(starts: SimpleQueue[Any]) -> None:
    while True:
        start, future = starts.get()
        try:
            future.set_result(start())
        except BaseException as error:
            future.set_exception(error)


def watch_end(pid: int) -> int | None:
    """A file descriptor that can be read once the process `pid` has ended; None: not to be had.

    Unlike a pipe, no other process can hold it open.
    """
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # not Linux, or one of before 5.3
        return None


def wait_for_end(pid: int, seconds: float) -> bool:
    """Wait for the end of any process of this machine; whether it has ended."""
    deadline = time.monotonic() + seconds
    handle = watch_end(pid)
    if handle is not None:
        try:
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            return bool(poll.poll(max(0.0, seconds) * 1_000))
        finally:
            os.close(handle)
    while _exists(pid):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.01)
    return True


def identity(pid: int) -> str:
    """The number of a living process and when it was started: of no other until the next boot."""
    return f"{pid}-{_started(pid)}"


def own_name() -> str:
    """A name for what this process leaves on the disk: of no other process, now or later."""
    return f"{_machine()}-{identity(os.getpid())}"


NAME = r"[0-9a-f]{8}-[0-9]{1,10}-[0-9]{1,20}"
"""What an `own_name` matches."""


def has_ended(name: str) -> bool | None:
    """Whether the process of an `own_name` has ended; None when it is another machine's."""
    machine, pid, started = name.split("-")
    if machine != _machine():
        return None
    return not _exists(int(pid)) or _started(int(pid)) != int(started)


def _killed_by_kernel() -> bool:
    """Ask the kernel to kill this process with its parent; whether it will."""
    if sys.platform != "linux":
        return False
    held = ctypes.c_int(0)
    with contextlib.suppress(OSError, AttributeError):
        prctl = ctypes.CDLL(None).prctl
        prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
        prctl(_PR_GET_PDEATHSIG, ctypes.byref(held))
    return held.value == signal.SIGKILL


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def _exists(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return _stat(pid)[:1] not in (["Z"], ["X"])


def _started(pid: int) -> int:
    """When a process was started, in clock ticks since the machine was; 0 where not known."""
    fields = _stat(pid)
    return int(fields[19]) if len(fields) > 19 else 0


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the third, the state, on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


@functools.cache
def _machine() -> str:
    """Where process numbers mean the same: this machine since its start, or this container."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
