"""Actors as processes of this machine: unrolls in shared memory, small messages through pipes.

Each actor has two unrolls' worth of memory: it plays into one while the learner reads the other. An
actor whose process dies, or that says nothing for long, is replaced by one that begins new games;
what it was playing is lost and nothing else.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np
import torch

from nhzoo.actors import Actor, ActorConfig, ActorState
from nhzoo.errors import InputError, NhzooError
from nhzoo.unrolls import Unroll, unroll_bytes

Array = np.ndarray[Any, Any]

BUFFERS = 2
HANG_SECONDS = 300.0
"""An actor that has been asked and says nothing for so long is killed."""
START_SECONDS = 600.0
"""What one may take to begin: games that are gone on with are played again first."""
MOST_DEATHS = 10
"""Of actors one after another, without an unroll in between."""


@dataclass(eq=False)
class _Hand:
    """One actor as the learner sees it. `asked`: buffers that it is to play into."""

    number: int
    process: Any
    connection: Connection
    buffers: list[Unroll]
    folder: str
    started: int
    asked: int = 0
    spoken: bool = False
    heard: float = field(default_factory=time.monotonic)


class ProcessCrew:
    """`actors` processes, each with a core of its own at best."""

    def __init__(self, config: ActorConfig, actors: int, states: dict[int, ActorState]) -> None:
        cores = len(os.sched_getaffinity(0))
        if actors > cores:
            raise InputError(
                f"--actors {actors}: this machine has {cores} cores for them; give at most {cores}"
            )
        self._config = config
        self._context = multiprocessing.get_context("spawn")
        size = config.policy.params
        self._lock = self._context.Lock()
        self._version = self._context.RawValue("q", -1)
        self._shared = self._context.RawArray("f", size)
        self._weights = np.frombuffer(self._shared, np.float32)
        self._root = tempfile.mkdtemp(prefix="nhzoo-")
        self._ready: list[tuple[_Hand, int, Unroll]] = []
        self._out: list[tuple[_Hand, int]] = []  # handed out and not released yet
        self._told: dict[int, ActorState] = {}
        self._deaths = 0
        self._begun = False
        self._hands: list[_Hand] = []
        self._hands += [self._spawn(n, states.get(n), 0) for n in range(actors)]

    def publish(self, weights: Array, version: int) -> None:
        """See `actors.Crew`."""
        with self._lock:
            self._weights[:] = weights
            self._version.value = version
        if not self._begun:
            self._begun = True
            for hand in self._hands:
                self._ask_all(hand)

    def collect(self, count: int) -> list[Unroll]:
        """See `actors.Crew`."""
        while len(self._ready) < count:
            self._listen()
        taken, self._ready = self._ready[:count], self._ready[count:]
        self._out += [(hand, index) for hand, index, _ in taken]
        return [unroll for _, _, unroll in taken]

    def release(self) -> None:
        """See `actors.Crew`."""
        for hand, index in self._out:
            if hand in self._hands:
                self._ask(hand, index)
        self._out = []

    def states(self) -> dict[int, ActorState]:
        """See `actors.Crew`."""
        self._told = {}
        asked = list(self._hands)
        for hand in asked:
            self._send(hand, "state")
        while any(hand in self._hands and hand.number not in self._told for hand in asked):
            self._listen()
        return self._told

    def close(self) -> None:
        """See `actors.Crew`."""
        for hand in self._hands:
            hand.process.kill()
            hand.process.join()
            hand.connection.close()
        self._hands = []
        shutil.rmtree(self._root, ignore_errors=True)

    def _listen(self) -> None:
        """Take in what actors say; replace those that are gone."""
        connections = {hand.connection: hand for hand in self._hands}
        spoken = wait(list(connections), timeout=HANG_SECONDS / 10)
        for connection in spoken:
            hand = connections[connection]  # type: ignore[index]
            try:
                self._hear(hand, hand.connection.recv())
            except (EOFError, OSError):  # killed, perhaps in the middle of a message
                self._replace(hand)
        now = time.monotonic()
        for hand in list(self._hands):
            limit = HANG_SECONDS if hand.spoken else START_SECONDS
            if hand.asked and now - hand.heard > limit:
                self._replace(hand)

    def _hear(self, hand: _Hand, message: tuple[str, Any]) -> None:
        kind, said = message
        hand.heard, hand.spoken = time.monotonic(), True
        if kind == "error":
            raise NhzooError(f"actor {hand.number}: {said}")
        if kind == "state":
            self._told[hand.number] = said
            return
        index, about = said
        unroll = hand.buffers[index]
        for name, value in about.items():
            setattr(unroll, name, value)
        hand.started, hand.asked = unroll.started, hand.asked - 1
        self._ready.append((hand, index, unroll))
        self._deaths = 0

    def _replace(self, hand: _Hand) -> None:
        hand.process.kill()
        hand.process.join()
        hand.connection.close()
        shutil.rmtree(hand.folder, ignore_errors=True)
        position = self._hands.index(hand)
        self._deaths += 1
        if self._deaths > MOST_DEATHS:
            raise NhzooError(
                f"no actors left: {self._deaths} ended one after another (the last with exit code "
                f"{hand.process.exitcode}); the same command goes on from the last saved state"
            )
        fresh = self._spawn(hand.number, None, hand.started + self._config.games)
        self._hands[position] = fresh
        if self._begun:
            self._ask_all(fresh)

    def _ask_all(self, hand: _Hand) -> None:
        for index in range(BUFFERS):
            self._ask(hand, index)

    def _ask(self, hand: _Hand, index: int) -> None:
        if not hand.asked:
            hand.heard = time.monotonic()
        hand.asked += 1
        self._send(hand, index)

    def _send(self, hand: _Hand, what: int | str) -> None:
        with contextlib.suppress(OSError):  # it has died; `_listen` will find out
            hand.connection.send(what)

    def _spawn(self, number: int, state: ActorState | None, started: int) -> _Hand:
        config = self._config
        shape = config.time, config.games, config.policy.hidden
        memory = [self._context.RawArray("b", unroll_bytes(*shape)) for _ in range(BUFFERS)]
        started = state.started if state else started
        ours, theirs = self._context.Pipe()
        folder = tempfile.mkdtemp(dir=self._root)
        shared = self._shared, self._version, self._lock
        process = self._context.Process(
            target=_serve,
            args=(theirs, number, config, state, started, memory, shared, folder),
            daemon=True,
        )
        process.start()
        theirs.close()
        buffers = [Unroll.within(held, *shape) for held in memory]
        return _Hand(number, process, ours, buffers, folder, started)


def _serve(
    connection: Connection,
    number: int,
    config: ActorConfig,
    state: ActorState | None,
    started: int,
    memory: list[Any],
    shared: tuple[Any, Any, Any],
    folder: str,
) -> None:
    """The life of an actor's process. It ends when the learner closes its end of the pipe."""
    for ignored in (signal.SIGINT, signal.SIGTERM):  # stopping is the learner's to handle
        signal.signal(ignored, signal.SIG_IGN)
    torch.set_num_threads(1)
    tempfile.tempdir = folder  # NLE leaves folders behind when it is killed
    os.dup2(2, 1)  # stdout is the learner's
    weights, version, lock = shared
    shape = config.time, config.games, config.policy.hidden
    buffers = [Unroll.within(held, *shape) for held in memory]
    held = np.frombuffer(weights, np.float32)
    with contextlib.suppress(EOFError, OSError):
        try:
            actor = Actor(number, config, state, started)
            while True:
                asked = connection.recv()
                if asked == "state":
                    connection.send(("state", actor.state()))
                    continue
                with lock:
                    actor.load(held, version.value)
                unroll = actor.play(buffers[asked])
                about = {k: getattr(unroll, k) for k in _ABOUT}
                connection.send(("unroll", (asked, about)))
        except (NhzooError, ValueError) as error:
            connection.send(("error", str(error).splitlines()[0]))
    shutil.rmtree(folder, ignore_errors=True)


_ABOUT = ("actor", "version", "started", "finished")
