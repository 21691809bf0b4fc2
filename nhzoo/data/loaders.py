"""Processes that read batches of demonstrations ahead: the same batches, whatever their number.

A policy's features cost more to make than a GPU takes to learn from them. Each process follows all
streams (`Streams`) and reads its part of the rows of every batch into shared memory, a few batches
ahead. One that is killed is replaced by another, which reads what was lost again.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nhzoo.data.batches import Batch, Streams
from nhzoo.errors import NhzooError, Stopped
from nhzoo.policy.features import Features
from nhzoo.runtime.arrays import arrays_in, memory_layout
from nhzoo.runtime.channels import Channel
from nhzoo.runtime.children import Child, how_it_ended, wait
from nhzoo.runtime.pool import WorkerError

Array = np.ndarray[Any, Any]
MakeStreams = Callable[..., Streams]
"""Makes the streams of a run, or with `part` = (i, n) those rows of them."""

BUFFERS = 4
"""Batches that there is memory for."""
HANG_SECONDS = 300.0
"""A process that owes a batch and says nothing while it is waited for so long is replaced."""
MOST_DEATHS = 10
"""Of processes one after another, without a part of a batch in between."""
_LOOK = 0.25  # seconds from one look at limits to the next
_ALIGNMENT = 64


@dataclass(eq=False)
class _Loader:
    """One process. It has read its part of the first `done` batches; `valid`: of those to come."""

    number: int
    child: Child
    done: int
    valid: deque[int] = field(default_factory=deque)
    waited: float = 0.0


class LoaderPool:
    """`loaders` processes (at most one a row) that read the batches of `streams()`.

    They are started by the first `next`. `say` hears of those that were replaced.
    """

    def __init__(
        self, streams: MakeStreams, loaders: int, say: Callable[[str], None] = lambda line: None
    ) -> None:
        self._make, self._say = streams, say
        self._streams = streams()  # stands behind the batch that was handed out last
        self._shape = self._streams.shape
        self._count = min(loaders, self._shape[1])
        self._layout = _layout(*self._shape)
        context = multiprocessing.get_context("spawn")
        self._memory = context.RawArray("b", BUFFERS * self._layout.itemsize)
        self._buffers = _buffers(self._memory, self._layout)
        self._loaders: list[_Loader] = []
        self._taken = self._deaths = 0
        self._closing = threading.Event()

    def next(self) -> tuple[Batch, slice]:
        """The next batch and its streams; its arrays are overwritten after the next call.

        `Stopped` once `stop` was called, from another thread perhaps.
        """
        if not self._loaders:
            self._loaders = [self._spawn(number, self._taken) for number in range(self._count)]
        for loader in self._loaders:
            loader.child.send(self._taken + BUFFERS)
        while any(not loader.valid for loader in self._loaders):
            self._listen()
        valid = sum(loader.valid.popleft() for loader in self._loaders)
        seen, actions = self._buffers[self._taken % BUFFERS]
        first, rows = self._streams.skip()
        self._taken += 1
        return Batch(dict(vars(seen)), actions, first, valid), rows

    def restore(self, state: dict[str, Any]) -> None:
        """Read on from where `state` (of `Streams`) was taken."""
        self.close()
        self._closing.clear()
        self._streams.restore(state)

    def stop(self) -> None:
        """Let nobody wait in `next` any more."""
        self._closing.set()

    def close(self) -> None:
        """End the processes."""
        self.stop()
        for loader in self._loaders:
            loader.child.close()
        self._loaders = []
        self._taken = 0

    def _listen(self) -> None:
        """Take in what the processes say; replace those that are gone, or silent for too long."""
        if self._closing.is_set():
            raise Stopped
        began = time.monotonic()
        wait([loader.child for loader in self._loaders], _LOOK)
        # What this process stood still for does not count.
        passed = min(time.monotonic() - began, 2 * _LOOK)
        for place, loader in enumerate(self._loaders):
            ended = loader.child.ended  # before what it said: that is all of it then
            for said in loader.child.messages():
                if isinstance(said, NhzooError):
                    raise said
                loader.done += 1
                loader.valid.append(said)
                loader.waited, self._deaths = 0.0, 0
            loader.waited += 0.0 if loader.valid else passed
            if ended:
                self._replace(place, f"has ended ({how_it_ended(loader.child.exit_code)})")
            elif loader.waited > HANG_SECONDS:
                self._replace(place, f"has said nothing for {HANG_SECONDS:g} s")

    def _replace(self, place: int, why: str) -> None:
        lost = self._loaders[place]
        lost.child.close()
        self._deaths += 1
        if self._deaths > MOST_DEATHS:
            raise NhzooError(
                f"no data: {self._deaths} processes that load it ended one after another (the last "
                f"{why}); the same command resumes from the last saved state"
            )
        self._say(f"data loader {lost.number} {why}: another takes its place")
        fresh = self._spawn(lost.number, lost.done)
        fresh.valid = lost.valid
        fresh.child.send(self._taken + BUFFERS)
        self._loaders[place] = fresh

    def _spawn(self, number: int, done: int) -> _Loader:
        """A process that goes on behind the first `done` batches."""
        make, state = self._make, self._streams.state()
        args = make, (number, self._count), self._shape, state, self._taken, done
        return _Loader(number, Child(_serve, args, (self._memory,)), done)


def _layout(time: int, rows: int) -> np.dtype[Any]:
    """Of a batch in memory."""
    fields = [
        (name, like.dtype, (time, rows, *like.shape[2:]))
        for name, like in vars(Features.empty(0, 0)).items()
    ]
    return memory_layout([*fields, ("actions", np.int64, (time, rows))], _ALIGNMENT)


def _buffers(memory: Any, layout: np.dtype[Any]) -> list[tuple[Features, Array]]:
    """Features and actions of each batch that there is memory for."""
    parts = np.frombuffer(memory, np.uint8).reshape(BUFFERS, layout.itemsize)
    buffers = []
    for part in parts:
        arrays = arrays_in(part, layout)
        actions = arrays.pop("actions")
        buffers.append((Features(**arrays), actions))
    return buffers


def _serve(
    channel: Channel,
    memory: Any,
    make: MakeStreams,
    part: tuple[int, int],
    shape: tuple[int, int],
    state: dict[str, Any],
    at: int,
    done: int,
) -> None:
    """The life of a process: it reads batches `done` and on, up to the number it was told last.

    `state` is that of the streams behind batch `at`. It ends with the trainer, or by its SIGKILL.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # stopping is the trainer's to handle
    try:
        streams = make(part=part)
        streams.restore(state)
        buffers = _buffers(memory, _layout(*shape))
        for _ in range(at, done):
            streams.skip()
        limit = 0
        while True:
            while done >= limit:
                limit = channel.next()
            batch, _ = streams.next(buffers[done % BUFFERS])
            done += 1
            _tell(channel, batch.valid)
    except EOFError:  # nobody waits for it any more
        return
    except NhzooError as error:
        _tell(channel, error)
    except Exception as error:
        reason = f"in a process that loads data: {type(error).__name__}: {error}"
        _tell(channel, WorkerError(reason, traceback.format_exc()))


def _tell(channel: Channel, message: Any) -> None:
    channel.send(message)
    channel.drain()  # the trainer reads, or is stopped, or is gone and its end closed
