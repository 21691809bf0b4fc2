"""The pool of worker processes. A worker that dies is replaced; the parent continues.

A `Task` lives inside a worker and holds up to `slots` items at once. The parent hands items out one
by one, collects results as they come, and replaces a worker that died: a kill from outside costs
only time, an item that took its worker down is tried once more and then given back as `Crashed`.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import pickle
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cloudpickle

from nhzoo.errors import NhzooError
from nhzoo.runtime import scratch
from nhzoo.runtime.channels import Channel
from nhzoo.runtime.children import Child, wait

Key = Hashable
_OUTSIDE = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP}
_MARK_SIZE = 8
_LEFT = ".left"
_MAX_LEFT = 1 << 22
ITEM_SECONDS = 3_600.0
"""For one item, or until the next mark: replaying the longest game takes minutes."""
_START_SECONDS = 600.0  # for a worker to be ready, when there is a limit for what it does
_MAX_IDLE_DEATHS = 10  # of workers, one after another, without a finished item between
_MAX_UNREADY = 2  # that end by themselves, one after another, before they have marked an item


class Task(Protocol):
    """What a worker does. Built in the worker, from picklable arguments."""

    slots: int
    """How many items it works on at once."""

    def start(self, key: Key, item: Any) -> None:
        """Take one item; called only while a slot is free."""

    def advance(self, mark: Callable[..., None]) -> Iterable[tuple[Key, Any]]:
        """Work for a moment; give (key, result) of finished items, (None, progress) for news.

        Call `mark(number, a, b)` before touching item `number` in a way that may kill the process:
        should it die, that item is the one to blame, and (a, b) is what is known of it. What it
        has written to the file `left_behind(number)` until then is handed on as well. A fourth
        argument, 1, says that it is foreign code that runs then. With number -1 none is to blame.
        """


def left_behind(number: int) -> Path:
    """The file of a worker whose bytes are handed on, should item `number` kill it."""
    return scratch.own_folder() / f"{number}{_LEFT}"


class OneByOne:
    """A task that works through one item at a time: subclasses have `work`."""

    slots = 1
    heartbeat: Callable[[], None]
    """For `work` to tell that its item still gets on, where one may take hours."""

    def start(self, key: Key, item: Any) -> None:
        """Take one item; its key is the number that is blamed when it kills the process."""
        self._held = key, item

    def advance(self, mark: Callable[..., None]) -> Iterable[tuple[Key, Any]]:
        """Do the work of the item that is held."""
        key, item = self._held
        assert isinstance(key, int)
        self.heartbeat = functools.partial(mark, key, 0, 0)
        self.heartbeat()
        return [(key, self.work(item))]

    def work(self, item: Any) -> Any:
        """The result for one item."""
        raise NotImplementedError


class WorkerError(NhzooError):
    """Code that ran in a worker raised; `trace` is its traceback."""

    def __init__(self, reason: str, trace: str = "") -> None:
        super().__init__(reason)
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return WorkerError, (str(self), self.trace)


@dataclass(frozen=True)
class Crashed:
    """The result of an item that took its worker down twice, or held it up.

    `exit_code` is None for one that was `hung`: what ran did not come back, for so many `seconds`.
    """

    exit_code: int | None
    a: float
    b: float
    left: bytes = b""
    foreign: bool = False
    seconds: float = 0.0

    def __str__(self) -> str:
        if self.exit_code is not None:
            who = "agent" if self.foreign else "NLE"
            return f"{who} ended its process with exit code {self.exit_code}"
        if self.foreign:
            return f"agent gave no answer within {self.seconds:,g} s"
        return "NLE did not come back from a step"


def run_items(
    make_task: Callable[..., OneByOne],
    args: tuple[Any, ...],
    items: Iterable[tuple[int, Any]],
    workers: int | None = None,
    slots: int = 1,
    hang_seconds: float | None = None,
) -> Iterator[tuple[int, Any]]:
    """Work through (number, item) pairs; gives (number, result) in the order of finishing.

    As `run_tasks`, on a process for each CPU if `workers` says no other number. The result of an
    item that took its worker down is text: the reason.
    """
    cpus = workers or os.cpu_count() or 1
    for key, result in run_tasks(make_task, args, items, cpus, slots, hang_seconds):
        assert isinstance(key, int)
        yield key, str(result) if isinstance(result, Crashed) else result


@dataclass
class _Worker:
    child: Child
    mark: Any
    in_flight: dict[Key, Any] = field(default_factory=dict)
    marks: float = 0.0  # how often it had marked an item when that was last looked at
    looked: float = field(default_factory=time.monotonic)
    hung: bool = False


def run_tasks(
    make_task: Callable[..., Task],
    args: tuple[Any, ...],
    items: Iterable[tuple[Key, Any]],
    workers: int,
    slots: int = 1,
    hang_seconds: float | None = None,
    foreign_seconds: float | None = None,
) -> Iterator[tuple[Key, Any]]:
    """Work through `items`, (key, item) pairs, on `workers` processes.

    Gives (key, result) in the order of finishing and (None, progress) in between. Integer keys are
    what `mark` refers to. `slots` is the number of items each worker is handed at once. A worker
    that has marked an item and then nothing for `hang_seconds` (None: `ITEM_SECONDS`) is killed,
    and the item blamed; one in which foreign code, or what nobody is to blame for, takes
    `foreign_seconds` (None: it has limits of its own, so the longer of those two), as well. Where
    nobody is to blame the items are worked on again, each alone in its worker.
    """
    queue = deque(items)
    # Classes of a notebook or a script go as they are: a worker has no such script to import.
    work: bytes = cloudpickle.dumps((make_task, args))
    alone: set[Key] = set()
    blamed: dict[Key, int] = {}
    pool: list[_Worker] = []
    dead: list[_Worker] = []
    idle_deaths = unready = 0
    now = time.monotonic()
    hang_seconds = hang_seconds or ITEM_SECONDS
    interval = min(hang_seconds, foreign_seconds or hang_seconds) / 8
    try:
        open_items = len(queue)
        pool = [_spawn(work) for _ in range(min(workers, open_items))]
        while open_items:
            for worker in pool:
                _hand_out(worker, queue, slots, alone)
            wait([worker.child for worker in pool], interval)
            now, polled = time.monotonic(), now
            # What this process stood still for does not count: it may have been stopped.
            _kill_hung(pool, hang_seconds, foreign_seconds, max(0.0, now - polled - interval))
            for position, worker in enumerate(pool):
                ended = worker.child.ended  # before what it said: that is all of it then
                for key, result in _heard(worker):
                    if key is not None:
                        del worker.in_flight[key]
                        open_items -= 1
                        idle_deaths = 0
                    yield key, result
                if not ended:
                    continue
                code = worker.child.exit_code
                number, a, b = worker.mark[:3]
                guilty = int(number)
                left = _read_left(worker.child.folder / f"{guilty}{_LEFT}")
                worker.child.close()
                idle_deaths += 1
                own_end = worker.hung or worker.child.broke_off or code not in _OUTSIDE
                foreign = bool(worker.mark[4])
                if worker.hung and not worker.marks:  # it has not marked anything yet
                    raise NhzooError("a worker process does not get ready: what it loads hangs")
                unready = 0 if worker.mark[3] else unready + (own_end and not worker.hung)
                if unready >= _MAX_UNREADY:
                    raise NhzooError(
                        f"worker processes end before they have begun (the last {_how(code)}); "
                        "what they wrote to standard error says why"
                    )
                if own_end and guilty not in worker.in_flight:
                    alone |= worker.in_flight.keys()
                elif own_end:
                    blamed[guilty] = blamed.get(guilty, 0) + 1
                    if foreign:
                        alone.add(guilty)
                    if blamed[guilty] > 1:
                        del worker.in_flight[guilty]
                        open_items -= 1
                        idle_deaths = 0
                        by = None if worker.hung else code
                        yield guilty, Crashed(by, a, b, left, foreign, foreign_seconds or 0.0)
                if idle_deaths >= _MAX_IDLE_DEATHS:
                    hint = "out of memory? try fewer of them" if code == -signal.SIGKILL else ""
                    raise NhzooError(
                        f"{idle_deaths} worker processes ended one after another, and no item was "
                        f"finished (the last {_how(code)})" + (f": {hint}" if hint else "")
                    )
                queue.extendleft(reversed(worker.in_flight.items()))
                worker.in_flight.clear()
                if queue:
                    pool[position] = _spawn(work)
                else:
                    dead.append(worker)
            for worker in dead:
                pool.remove(worker)
            dead.clear()
    finally:
        for worker in pool:
            worker.child.close()


def _how(code: int) -> str:
    """How a process ended, by its exit code."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
    return f"with exit code {code}"


def _spawn(work: bytes) -> _Worker:
    mark = multiprocessing.get_context("spawn").RawArray("d", _MARK_SIZE)
    mark[0] = -1
    return _Worker(Child(_serve, (work,), (mark,)), mark)


def _kill_hung(
    pool: list[_Worker], hang_seconds: float, foreign_seconds: float | None, away: float
) -> None:
    """Kill the workers that have been at one thing for longer than that may take."""
    now = time.monotonic()
    for worker in pool:
        worker.looked += away
        number, count, foreign = worker.mark[0], worker.mark[3], worker.mark[4]
        limit = hang_seconds
        if number < 0 or foreign:
            limit = foreign_seconds or max(hang_seconds, ITEM_SECONDS)
        if not count:
            limit = max(limit, _START_SECONDS)
        if count != worker.marks or not worker.in_flight:
            worker.marks, worker.looked = count, now
        elif now - worker.looked > limit and not worker.hung:
            worker.hung = True
            worker.child.kill()


def _read_left(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_MAX_LEFT)
    except OSError:
        return b""


def _hand_out(worker: _Worker, queue: deque[tuple[Key, Any]], slots: int, alone: Set[Key]) -> None:
    while queue and len(worker.in_flight) < slots:
        if worker.in_flight and (queue[0][0] in alone or worker.in_flight.keys() & alone):
            return
        key, item = queue.popleft()
        worker.in_flight[key] = item
        worker.child.send((key, item))


def _heard(worker: _Worker) -> Iterator[tuple[Key, Any]]:
    for key, result, error in worker.child.messages():
        if error is not None:
            raise error
        yield key, result


def _serve(channel: Channel, mark: Any, work: bytes) -> None:
    """The life of a worker."""
    marks = memoryview(mark).cast("B").cast("d")  # faster to write to

    def note(number: int, a: float, b: float, foreign: int = 0) -> None:
        marks[0], marks[1], marks[2], marks[4] = number, a, b, foreign
        marks[3] += 1

    try:
        make_task, args = pickle.loads(work)
        task: Task = make_task(*args)
        held, asked = 0, deque[tuple[Key, Any]]()
        while True:
            if held < task.slots:
                try:
                    asked += channel.receive() if held or asked else [channel.next()]
                except EOFError:  # nobody waits for it any more
                    return
            while asked and held < task.slots:
                task.start(*asked.popleft())
                held += 1
            for key, result in task.advance(note):
                held -= key is not None
                _tell(channel, (key, result, None))
            mark[0] = -1
    except Exception as error:
        trace = traceback.format_exc()
        told: NhzooError = WorkerError(
            f"in a worker process: {type(error).__name__}: {error}", trace
        )
        if isinstance(error, NhzooError):
            try:
                told = pickle.loads(pickle.dumps(error))
            except Exception:  # of a script or a notebook, or not made of its message alone
                told = WorkerError(str(error), trace)
        _tell(channel, (None, None, told))


def _tell(channel: Channel, message: Any) -> None:
    channel.send(message)
    channel.drain()
