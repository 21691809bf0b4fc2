"""The pool: whatever happens to a worker, every item comes back exactly once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from nhzoo.errors import InputError, NhzooError
from nhzoo.runtime import children
from nhzoo.runtime import pool as workers
from nhzoo.runtime.pool import Crashed, OneByOne, WorkerError, left_behind, run_items, run_tasks
from tests import ROOT


class Squares:
    """Squares numbers, two at a time; some of them are trouble."""

    slots = 2

    def __init__(self, trouble: dict[int, str], folder: str):
        self._held: list[tuple[int, int]] = []
        self._trouble, self._folder = trouble, Path(folder)
        if trouble.get(-1) == "exit at once":
            os._exit(3)

    def start(self, key, item):
        self._held.append((key, item))

    def advance(self, mark):
        key, item = self._held.pop(0)
        mark(key, item, 7)
        trouble = self._trouble.get(key)
        once = self._folder / str(key)
        if trouble and (trouble.startswith("always") or not once.exists()):
            once.touch()
            left_behind(key).write_bytes(b"as far as it came")
            if "hang" in trouble:
                time.sleep(60)
            if "exit" in trouble:
                os._exit(1)
            if "kill" in trouble:
                os.kill(os.getpid(), signal.SIGKILL)
            if "input" in trouble:
                raise InputError("bad item")
            if "bug" in trouble:
                raise ZeroDivisionError("oops")
            if "cut file" in trouble:
                raise EOFError("Ran out of input")
        yield key, item * item
        yield None, "news"


def run(trouble, tmp_path, workers=2, items=12):
    results = {}
    for key, result in run_tasks(
        Squares, (trouble, str(tmp_path)), [(i, i) for i in range(items)], workers, slots=2
    ):
        if key is None:
            assert result == "news"
        else:
            assert key not in results
            results[key] = result
    return results


GOOD = {i: i * i for i in range(12)}


def test_every_item_comes_back_once(tmp_path):
    assert run({}, tmp_path, workers=1) == GOOD
    assert run({}, tmp_path, workers=3) == GOOD
    assert run({}, tmp_path, items=0) == {}


@pytest.mark.slow
def test_a_worker_that_dies_once_costs_only_time(tmp_path):
    assert run({3: "once exit", 5: "once kill", 0: "once exit"}, tmp_path) == GOOD


def test_an_item_that_always_takes_its_worker_down_is_given_back(tmp_path):
    results = run({4: "always exit"}, tmp_path)
    assert results.pop(4) == Crashed(1, 4.0, 7.0, b"as far as it came")
    assert results == {i: i * i for i in range(12) if i != 4}


@pytest.mark.slow
def test_errors_of_a_task_reach_the_caller(tmp_path):
    with pytest.raises(InputError, match="bad item"):
        run({2: "always input"}, tmp_path)
    with pytest.raises(NhzooError, match="ZeroDivisionError: oops"):
        run({2: "always bug"}, tmp_path)
    with pytest.raises(NhzooError, match="EOFError: Ran out of input"):
        run({2: "always cut file"}, tmp_path)
    with pytest.raises(NhzooError, match=r"before they have begun \(the last with exit code 3\)"):
        run({-1: "exit at once"}, tmp_path)


SCRIPT = """
import numpy as np
import nhzoo

class Mine:
    name = "mine"
    observation_keys = ("blstats",)

    def initial_state(self, batch):
        return None

    def act(self, observation, state, uniform):
        return np.zeros(len(uniform), int), None

print(nhzoo.evaluate(Mine(), "smoke-v1", episodes=2, workers=2).result["agent"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["standard input", "a file"])
def test_an_agent_of_the_main_script_plays_wherever_that_script_is(way, tmp_path):
    """In a notebook too: there is no file that a worker could import, and no guard."""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    with open(path) as script:
        done = subprocess.run(
            [sys.executable, "-" if way == "standard input" else str(path)],
            stdin=script,
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
    assert (done.stdout, done.stderr) == ("mine\n", "")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the kernel's client
def test_an_agent_of_a_notebook_plays(tmp_path):
    """In a real kernel, where nbclient and ipykernel are installed; both games are replayed."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    define, _, _ = SCRIPT.partition("print(")
    play = """
result = nhzoo.evaluate(Mine(), "smoke-v1", episodes=2, workers=2, out="result")
print(result.result["agent"], nhzoo.verify("result", workers=2).ok)
"""
    cells = [nbformat.v4.new_code_cell(text) for text in (define, play)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=600).execute(cwd=str(tmp_path))
    assert [one["text"] for one in notebook.cells[1].outputs] == ["mine True\n"]


@pytest.mark.slow
def test_workers_end_when_their_parent_is_killed(tmp_path):
    script = textwrap.dedent(
        f"""
        import sys, time
        from nhzoo.runtime.pool import run_tasks
        from tests.runtime.test_pool import Sleeper
        if __name__ == "__main__":
            for _ in run_tasks(Sleeper, ({str(tmp_path)!r},), [(0, 0), (1, 1)], 2):
                pass
        """
    )
    path = tmp_path / "main_script.py"
    path.write_text(script)
    root = ROOT
    process = subprocess.Popen([sys.executable, path], env=os.environ | {"PYTHONPATH": str(root)})
    while len(list(tmp_path.glob("pid-*"))) < 2:
        time.sleep(0.05)
        assert process.poll() is None
    process.kill()
    process.wait()
    pids = [int(found.name[4:]) for found in tmp_path.glob("pid-*")]
    for _ in range(100):
        if not any(alive(pid) for pid in pids):
            break
        time.sleep(0.1)
    assert not any(alive(pid) for pid in pids)


class Sleeper:
    slots = 1

    def __init__(self, folder):
        (Path(folder) / f"pid-{os.getpid()}").touch()

    def start(self, key, item):
        pass

    def advance(self, mark):
        time.sleep(0.1)
        return []


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.slow
def test_an_item_that_holds_its_worker_up_is_blamed_like_one_that_kills_it(tmp_path):
    results = {}
    trouble = {3: "always hang", 5: "hang"}
    for key, result in run_tasks(
        Squares, (trouble, str(tmp_path)), [(i, i) for i in range(8)], 2, 2, hang_seconds=2
    ):
        if key is not None:
            results[key] = result
    assert results.pop(3) == Crashed(None, 3.0, 7.0, b"as far as it came")
    assert str(Crashed(None, 0, 0)) == "NLE did not come back from a step"
    assert results == {i: i * i for i in range(8) if i != 3}


class Together:
    """Foreign code that works on three items at once; one of them is trouble."""

    slots = 3

    def __init__(self, trouble: str):
        self._held: list[int] = []
        self._trouble = trouble

    def start(self, key, item):
        self._held.append(key)

    def advance(self, mark):
        held, self._held = self._held, []
        mark(-1, 0, 0) if len(held) > 1 else mark(held[0], 1, 2, 1)
        if 4 in held:
            left_behind(4).write_bytes(b"so far")
            if self._trouble == "hang":
                time.sleep(60)
            os._exit(5)
        return [(key, -key) for key in held]


@pytest.mark.slow
@pytest.mark.parametrize(("trouble", "code"), [("hang", None), ("exit", 5)])
def test_what_foreign_code_does_is_put_down_to_the_item_with_which_it_does_it_alone(trouble, code):
    items = [(i, i) for i in range(7)]
    found = dict(run_tasks(Together, (trouble,), items, 2, 3, foreign_seconds=1.5))
    crashed = found.pop(4)
    assert crashed == Crashed(code, 1.0, 2.0, b"so far", foreign=True, seconds=1.5)
    says = "ended its process with exit code 5" if code else "gave no answer within 1.5 s"
    assert str(crashed) == f"agent {says}"
    assert found == {i: -i for i in range(7) if i != 4}


class Spoils(OneByOne):
    """Writes into all of its process's sockets, and goes on."""

    def work(self, item):
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                    os.write(int(name), (4).to_bytes(8, "little") + b"junk")
        time.sleep(1_000)


def test_an_item_whose_code_writes_into_the_workers_socket_is_blamed(monkeypatch):
    monkeypatch.setattr(children, "_DEAF_SECONDS", 0.1)
    found = dict(run_tasks(Spoils, (), [(0, None)], 1))
    assert found == {0: Crashed(-signal.SIGKILL, 0.0, 0.0)}


class Halves(OneByOne):
    """Halves numbers; 1 ends its process."""

    def work(self, item):
        if item == 1:
            os._exit(4)
        return item / 2


@pytest.mark.slow
def test_an_item_that_takes_its_worker_down_gives_the_reason():
    found = dict(run_items(Halves, (), enumerate([0, 1, 2]), 1))
    assert found == {0: 0.0, 1: "NLE ended its process with exit code 4", 2: 1.0}


class Stops(OneByOne):
    """Stops its own process."""

    def work(self, item):
        os.kill(os.getpid(), signal.SIGSTOP)


@pytest.mark.slow
def test_a_worker_that_is_stopped_does_not_hold_who_gave_no_limit(monkeypatch):
    monkeypatch.setattr(workers, "ITEM_SECONDS", 0.5)
    assert dict(run_tasks(Stops, (), [(0, None)], 1)) == {0: Crashed(None, 0.0, 0.0)}


def test_an_item_of_hours_can_tell_that_it_gets_on():
    class Long(OneByOne):
        def work(self, item):
            for _ in range(item):
                self.heartbeat()
            return "done"

    marks, task = [], Long()
    task.start(7, 2)
    assert task.advance(lambda *mark: marks.append(mark)) == [(7, "done")]
    assert marks == [(7, 0, 0)] * 3


def test_an_error_that_only_the_worker_can_make_is_told_in_its_words():
    class Own(NhzooError):
        pass

    class Raises(OneByOne):
        def work(self, item):
            raise Own("of my own")

    with pytest.raises(WorkerError, match=r"^of my own$") as caught:
        list(run_tasks(Raises, (), [(0, None)], 1))
    assert "Own" in caught.value.trace


class Two(NhzooError):
    def __init__(self, what, why):
        super().__init__(f"{what}: {why}")


class RaisesTwo(OneByOne):
    def work(self, item):
        raise Two("this", "that")


def test_an_error_that_is_not_made_of_its_message_alone_is_told():
    with pytest.raises(WorkerError, match=r"^this: that$"):
        list(run_tasks(RaisesTwo, (), [(0, None)], 1))
