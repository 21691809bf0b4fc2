"""Temporary files: one folder per process, removed when the process ends.

It is `nhzoo-<user>-cache/<process>/` among the system's temporary files. A process removes its
own at its end. `guard` starts a small process that does so when this one is killed. What is left
all the same is removed by the next process that needs such a folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from multiprocessing import heap, util
from pathlib import Path

from nhzoo.runtime import files, processes

_CLEAR_SECONDS = 5.0
_CHILD = ".child"
_MEMORY = "/dev/shm"
_lock = threading.Lock()
_own: tuple[int, Path] | None = None
_settled = False
_guarded: tuple[int, subprocess.Popen[bytes]] | None = None


def new_folder(prefix: str = "") -> Path:
    """A new empty folder that only this user can read; `remove` it when it is not needed."""
    return Path(tempfile.mkdtemp(prefix=prefix, dir=own_folder()))


@contextlib.contextmanager
def temporary() -> Iterator[Path]:
    """A `new_folder` that is removed at the end."""
    folder = new_folder()
    try:
        yield folder
    finally:
        remove(folder)


def own_folder() -> Path:
    """The folder of this process. Called for the first time, remove those of ended processes."""
    global _own
    with _lock:
        if _own is None or _own[0] != os.getpid() or not _own[1].is_dir():
            try:
                root = files.private_folder()
                sweep(root)
                path = root / processes.own_name()
                path.mkdir(0o700, exist_ok=True)
            except OSError:  # somebody has taken the name
                path = Path(tempfile.mkdtemp(prefix="nhzoo-"))
            files.hold(path)  # until this process ends
            _own = os.getpid(), path
            # Of multiprocessing, for atexit is not called in processes that it has forked.
            util.Finalize(None, remove, (path,), exitpriority=-1)
        return _own[1]


def settle(folder: Path) -> None:
    """Make `folder`, which another process removes, this process's own and Python's default."""
    global _own, _settled
    _own, _settled = (os.getpid(), folder), True
    tempfile.tempdir = os.fspath(folder)


def remove(folder: Path) -> None:
    """Remove a folder and all in it, if it is there."""
    shutil.rmtree(folder, ignore_errors=True)


def sweep(root: Path) -> None:
    """Remove the folders of processes that have ended."""
    with contextlib.suppress(OSError):
        for path in root.iterdir():
            own = re.fullmatch(processes.NAME, path.name)
            if own and files.is_left(path, path.name, files.FOREIGN_SECONDS):
                remove(path)


def guard() -> None:
    """Have the folder of this process removed when it is killed, by a process of its own."""
    global _guarded
    own = own_folder()
    with _lock:
        if _guarded is not None and _guarded[0] == os.getpid() and _guarded[1].poll() is None:
            return
        if _settled or not hasattr(os, "pidfd_open"):
            return  # another process removes it; or this system cannot tell of a process's end
        command = [sys.executable, "-I", "-S", "-c", _GUARD, str(os.getpid()), os.fspath(own)]
        with contextlib.suppress(OSError):  # no process to be had: the next start will remove it
            guarding = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # no signal of the terminal's reaches it
                cwd="/",
            )
            _guarded = os.getpid(), guarding
            util.Finalize(None, _dismiss, (guarding,), exitpriority=-2)


def note_child(folder: Path, pid: int) -> None:
    """Have the guard kill the child `pid` too, as long as `folder` is there.

    The kernel does that for a child that got as far as to ask for it, see `processes.end_with`; one
    that is stopped as it starts never does.
    """
    (folder / f"{processes.identity(pid)}{_CHILD}").touch()


_GUARD = f"""
import os, select, shutil, signal, sys, time
for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(ignored, signal.SIG_IGN)
pid, folder = int(sys.argv[1]), sys.argv[2]
try:
    handle = os.pidfd_open(pid)
    if os.getppid() == pid:
        select.select([handle], [], [])
except OSError:
    pass
for place, _, names in os.walk(folder):
    for name in names:
        if name.endswith("{_CHILD}"):
            child, started = name.removesuffix("{_CHILD}").split("-")
            try:
                with open("/proc/" + child + "/stat") as file:
                    same = file.read().rpartition(")")[2].split()[19] == started
                if same:
                    os.kill(int(child), signal.SIGKILL)
            except (OSError, ValueError, IndexError):
                pass
until = time.monotonic() + {_CLEAR_SECONDS}
while os.path.lexists(folder) and time.monotonic() < until:  # its children may still be writing
    shutil.rmtree(folder, ignore_errors=True)
    time.sleep(0.02)
"""


def _dismiss(guarding: subprocess.Popen[bytes]) -> None:
    guarding.kill()
    guarding.wait()


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # another thread may have held it


os.register_at_fork(after_in_child=_after_fork)


class _Places:
    """Where Python makes shared memory. It would make a folder that outlives a kill."""

    def __iter__(self) -> Iterator[str]:
        if os.path.isdir(_MEMORY):
            yield _MEMORY
        yield os.fspath(own_folder())  # as that of many containers is small


vars(heap)["Arena"]._dir_candidates = _Places()
