"""Child processes end with their parent, whatever they run, and their end is never overlooked."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import spawn
from pathlib import Path

import pytest

from nhzoo.runtime import children, processes, scratch
from nhzoo.runtime.children import Child, wait
from nhzoo.runtime.pool import Crashed, run_tasks
from tests import ROOT


class Stuck:
    """A task that never comes back from its item, and notes its process before."""

    slots = 1

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def start(self, key, item):
        self._item = item

    def advance(self, mark):
        mark(0, 0, 0)
        (self._folder / f"pid-{os.getpid()}").touch()
        if self._item == "loop":
            while True:
                pass
        if self._item == "C":
            ctypes.PyDLL(None).sleep(1_000)  # with Python's lock held: no thread of ours runs
        time.sleep(1_000)


SCRIPT = """
import sys, threading
from nhzoo.runtime.pool import run_tasks
from tests.runtime.test_children import Stuck
if __name__ == "__main__":
    def work():
        for _ in run_tasks(Stuck, (sys.argv[1],), [(0, "loop"), (1, "C"), (2, "sleep")], 3):
            pass
    threading.Thread(target=work).start() if sys.argv[2] == "thread" else work()
"""


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def within(seconds: float, condition) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def stuck(folder: Path, where: str) -> tuple[subprocess.Popen, list[int]]:
    """A process whose three workers are all in the midst of what does not end."""
    (folder / "main.py").write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "tmp")}
    (folder / "tmp").mkdir()
    words = [sys.executable, folder / "main.py", folder, where]
    process = subprocess.Popen(words, env=environment)
    assert within(100, lambda: len(list(folder.glob("pid-*"))) == 3 or process.poll() is not None)
    return process, [int(found.name[4:]) for found in folder.glob("pid-*")]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["main", "thread"])
def test_nothing_is_left_of_a_killed_process_and_its_stuck_workers(tmp_path, where):
    process, pids = stuck(tmp_path, where)
    (root,) = (tmp_path / "tmp").glob("nhzoo-*")
    assert len(list(root.glob("*/*"))) == 3
    process.kill()
    process.wait()
    assert within(5, lambda: all(map(gone, pids)))
    assert within(5, lambda: not list(root.iterdir()))


STOPPED = """
import sys, time
from multiprocessing import spawn
from nhzoo.runtime.children import Child
if __name__ == "__main__":
    spawn.set_executable(sys.argv[1])
    child = Child(print, ())
    print(child.pid, flush=True)
    time.sleep(1_000)
"""


def test_a_child_that_was_stopped_as_it_started_ends_with_its_parent(tmp_path):
    """It never got as far as to ask the kernel for that."""
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nkill -STOP $$\n")
    program.chmod(0o755)
    (tmp_path / "main.py").write_text(STOPPED)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    words = [sys.executable, tmp_path / "main.py", program]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        pid = int(process.stdout.readline())
        stat = Path(f"/proc/{pid}/stat")
        assert within(30, lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")
        process.kill()
    assert within(5, lambda: gone(pid))
    assert within(5, lambda: not list(tmp_path.glob("nhzoo-*/*")))


@pytest.mark.slow
def test_what_is_left_without_its_guard_goes_with_the_next_start(tmp_path, monkeypatch):
    process, pids = stuck(tmp_path, "main")
    guards = [pid for pid in children_of(process.pid) if b"pidfd_open" in command(pid)]
    for pid in (*guards, process.pid):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    assert len(guards) == 1 and within(5, lambda: all(map(gone, pids)))
    (root,) = (tmp_path / "tmp").glob("nhzoo-*")
    assert list(root.iterdir())
    scratch.sweep(root)
    assert not list(root.iterdir())


def children_of(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in listed for child in path.read_text().split()]


def command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_folders_are_removed_by_owner_and_age(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = processes.own_name().split("-")
    theirs = f"{name[0]}-{ended.pid}-{processes._started(ended.pid)}"
    (tmp_path / theirs / "in it").mkdir(parents=True)
    (tmp_path / processes.own_name()).mkdir()
    (tmp_path / f"{name[0]}-{os.getpid()}-1").mkdir()  # a process of before had our number
    for folder in ("01234567-1-1", "01234567-1-2", "a user's"):
        (tmp_path / folder).mkdir()
    for folder in ("01234567-1-2", "a user's"):
        os.utime(tmp_path / folder, (1, 1))
    scratch.sweep(tmp_path)
    left = {theirs, processes.own_name(), "01234567-1-1", "a user's"}
    assert {path.name for path in tmp_path.iterdir()} == left
    ended.communicate()
    assert processes.wait_for_end(ended.pid, 5)
    scratch.sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == left - {theirs}


def stubborn(channel):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel.send("begun")
    time.sleep(1_000)


STUBBORN = """
import sys
from nhzoo.runtime.children import Child, wait
from tests.runtime.test_children import stubborn
if __name__ == "__main__":
    child = Child(stubborn, ())
    while not child.messages():
        wait([child], 1)
    print(child.pid)
    raise SystemExit(3)
"""


def test_a_process_ends_though_its_child_does_not_heed_sigterm(tmp_path):
    (tmp_path / "main.py").write_text(STUBBORN)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    words = [sys.executable, tmp_path / "main.py"]
    with subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            pid = int(process.stdout.readline())
            assert process.wait(60) == 3
        finally:
            os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
    assert gone(pid) and not list(tmp_path.glob("nhzoo-*/*"))


def test_a_child_that_cannot_be_noted_is_not_left_running(monkeypatch):
    started = []

    def full(folder, pid):
        started.append((folder, pid))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(scratch, "note_child", full)
    with pytest.raises(OSError, match="No space"):
        Child(stubborn, ())
    ((folder, pid),) = started
    assert gone(pid) and not folder.exists()


def test_a_child_that_nobody_refers_to_any_more_ends():
    child = Child(echo, ())
    pid, folder = child.pid, child.folder
    del child
    gc.collect()
    assert gone(pid) and not folder.exists()


def test_other_threads_start_processes_with_the_main_script_meanwhile(monkeypatch):
    """Ours do without it."""
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__file__", "/script.py", raising=False)
    monkeypatch.setattr(main, "__spec__", None)
    others, real = [], children._data_of_any

    def look(name):
        if name == "another":
            return real(name)
        thread = threading.Thread(
            target=lambda: others.append(spawn.get_preparation_data("another"))
        )
        thread.start()
        thread.join()
        return real(name)

    monkeypatch.setattr(children, "_data_of_any", look)
    child = Child(echo, ())
    try:
        child.send("here")
        assert said_by(child) == ["here"]
    finally:
        child.close()
    assert [data["init_main_from_path"] for data in others] == ["/script.py"]


def said_by(child: Child) -> list:
    while not (said := child.messages()) and not child.ended:
        wait([child], 10)
    return said


def echo(channel):
    while True:
        channel.send(channel.next())


def test_a_child_outlives_the_thread_that_started_it():
    """The kernel would kill it with that thread."""
    started: list[Child] = []
    thread = threading.Thread(target=lambda: started.append(Child(echo, ())))
    thread.start()
    thread.join()
    (child,) = started
    try:
        child.send("still there?")
        assert said_by(child) == ["still there?"]
    finally:
        child.close()
    assert not child.folder.exists()


class Litter:
    """Starts a process that goes on for long and holds all that it can, then ends its own."""

    slots = 1

    def __init__(self, how: str, folder: str) -> None:
        self._how, self._folder = how, Path(folder)

    def start(self, key, item):
        self._key = key

    def advance(self, mark):
        mark(self._key, 0, 0)
        if self._how == "fork":
            pid = os.fork()
            if pid == 0:
                time.sleep(300)
            (self._folder / f"pid-{pid}").touch()
        else:
            os.system(f"sleep 300 & touch {self._folder}/pid-$!")
        os._exit(7)


@pytest.mark.parametrize("how", ["fork", "os.system"])
def test_a_workers_end_is_seen_though_a_process_of_its_own_goes_on(tmp_path, how):
    began = time.monotonic()
    found = dict(run_tasks(Litter, (how, str(tmp_path)), [(0, None)], 1))
    pids = [int(path.name[4:]) for path in tmp_path.glob("pid-*")]
    left = [pid for pid in pids if not gone(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert found == {0: Crashed(7, 0.0, 0.0)}
    assert len(left) == 2  # tried twice
    assert time.monotonic() - began < 200


@pytest.mark.slow
def test_a_large_item_for_a_hung_worker_does_not_hold_the_others_up(tmp_path):
    large = bytes(1 << 23)  # more than a socket takes by itself
    items = [(0, "sleep"), (1, large), (2, large)]
    found = dict(run_tasks(Slow, (), items, 1, slots=2, hang_seconds=1.5))
    assert found == {0: Crashed(None, 0.0, 0.0), 1: len(large), 2: len(large)}


class Slow:
    """Takes one item at a time, though it is handed two."""

    slots = 1

    def start(self, key, item):
        self._held = key, item

    def advance(self, mark):
        key, item = self._held
        mark(key, 0, 0)
        if item == "sleep":
            time.sleep(1_000)
        return [(key, len(item))]
