"""Actors as processes of this machine: unrolls in shared memory, replaced when they die.

Each actor has two unrolls' worth of memory: it plays into one while the learner reads the other. An
actor whose process dies, or that says nothing for long, is replaced by one that begins new games;
what it was playing is lost and nothing else. An actor may be killed or stopped at any moment, so
the learner shares nothing with it on which either could wait: see `nhzoo.runtime.channels`.

Weights are shared without a lock, which a dead reader would hold for ever. There are two places.
The writer fills the one that is not the newest, between two counts, and then calls it the newest. A
reader copies the newest and looks at the counts again: when the writer has come to that place
meanwhile, the copy is torn and is made again. A sum over the copy finds what the counts do not, on
a CPU that shows stores to other cores in another order.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from typing import Any

import numpy as np
import torch

from nhzoo.errors import InputError, NhzooError, Stopped
from nhzoo.runtime.channels import Channel
from nhzoo.runtime.children import Child, how_it_ended, wait
from nhzoo.training.rl.actors import Actor, ActorConfig, ActorState, most_started
from nhzoo.training.rl.rollouts import Unroll, unroll_layout

Array = np.ndarray[Any, Any]

_TRIES = 8
_BEGUN, _ENDED, _VERSION, _SUM = range(4)


class SharedWeights:
    """`size` float32 and the number of their version, in memory of `context` (multiprocessing).

    It can be an argument of a process that is being spawned.
    """

    def __init__(self, context: Any, size: int) -> None:
        self._hold(context.RawArray("q", 9), context.RawArray("f", 2 * size))
        self._marks[:, _VERSION] = -1

    def __getstate__(self) -> tuple[Any, Any]:
        return self._memory

    def __setstate__(self, memory: tuple[Any, Any]) -> None:
        self._hold(*memory)

    def write(self, weights: Array, version: int) -> None:
        """Make these the newest. One process alone may write."""
        place = 1 - int(self._newest[0])
        marks = self._marks[place]
        marks[_BEGUN] += 1
        self._weights[place][:] = weights
        marks[_VERSION] = version
        marks[_SUM] = _sum(self._weights[place], version)
        marks[_ENDED] = marks[_BEGUN]
        self._newest[0] = place

    def read(self, known: int) -> tuple[Array, int] | None:
        """A copy of the newest weights and their version.

        None where that is `known`, or when every copy was torn: the writer was faster each time.
        """
        for _ in range(_TRIES):
            place = int(self._newest[0])
            marks = self._marks[place]
            ended, version, total = (int(marks[name]) for name in (_ENDED, _VERSION, _SUM))
            if version == known:
                return None
            weights = self._copy(place)
            if int(marks[_BEGUN]) == ended and _sum(weights, version) == total:
                return weights, version
        return None

    def _copy(self, place: int) -> Array:
        return np.array(self._weights[place])

    def _hold(self, marks: Any, weights: Any) -> None:
        self._memory = marks, weights
        counts = np.frombuffer(marks, np.int64)
        self._newest, self._marks = counts[:1], counts[1:].reshape(2, 4)
        self._weights = np.frombuffer(weights, np.float32).reshape(2, -1)


def _sum(weights: Array, version: int) -> int:
    return zlib.crc32(weights.data, version & 0xFFFFFFFF)


BUFFERS = 2
HANG_SECONDS = 300.0
"""An actor that has been asked and says nothing for so long is replaced."""
START_SECONDS = 600.0
"""What one may take to begin: games that are resumed are played again first."""
STOP_SECONDS = 20.0
"""How long actors may take to tell where they stand once the run was asked to stop."""
MOST_DEATHS = 10
"""Of actors one after another, without an unroll in between."""
_LOOK = 0.25  # seconds from one look at signals and limits to the next
_AWAY = 10.0  # of the learner's own: what it takes longer than this does not count for actors
_STATE = "state"


@dataclass(eq=False)
class _ActorHandle:
    """One actor as the learner sees it. `pending`: buffers that it is to play into.

    `given` is where it began, until its first unroll has come. `heard`: when it last sent anything,
    or was asked while it owed nothing.
    """

    number: int
    child: Child
    buffers: list[Unroll]
    started: int
    given: ActorState | None
    pending: int = 0
    telling: bool = False
    heard: float = field(default_factory=time.monotonic)

    @property
    def limit(self) -> float:
        """Seconds that it may say nothing."""
        return START_SECONDS if self.given else HANG_SECONDS


class ProcessActorPool:
    """`actors` processes, each with a core of its own at best."""

    def __init__(
        self,
        config: ActorConfig,
        actors: int,
        states: dict[int, ActorState],
        stop: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        cores = len(os.sched_getaffinity(0))
        if actors > cores:
            raise InputError(
                f"--actors {actors}: this machine has {cores} cores for them; give at most {cores}"
            )
        self._config, self._stop, self._say = config, stop, say
        self._context = multiprocessing.get_context("spawn")
        self._weights = SharedWeights(self._context, config.policy.params)
        self._ready: list[tuple[_ActorHandle, int, Unroll]] = []
        self._out: list[tuple[_ActorHandle, int]] = []  # handed out and not released yet
        self._answers: dict[int, ActorState] = {}
        self._deaths = 0
        self._begun = False
        self._looked = time.monotonic()
        self._hands: list[_ActorHandle] = []
        try:
            for number in range(actors):
                state = states.get(number) or ActorState.new_games(0)
                self._hands.append(self._spawn(number, state))
        except BaseException:
            self.close()
            raise

    def publish(self, weights: Array, version: int) -> None:
        """See `actors.ActorPool`."""
        self._weights.write(weights, version)
        if not self._begun:
            self._begun = True
            for hand in self._hands:
                self._ask_all(hand)

    def collect(self, count: int) -> list[Unroll]:
        """See `actors.ActorPool`."""
        while len(self._ready) < count:
            if self._stop():
                raise Stopped
            self._listen()
        taken, self._ready = self._ready[:count], self._ready[count:]
        self._out += [(hand, index) for hand, index, _ in taken]
        return [unroll for _, _, unroll in taken]

    def release(self) -> None:
        """See `actors.ActorPool`."""
        for hand, index in self._out:
            if hand in self._hands:
                self._ask(hand, index)
        self._out = []

    def states(self) -> dict[int, ActorState]:
        """See `actors.ActorPool`."""
        self._answers = {}
        playing = [hand for hand in self._hands if not hand.given]
        for hand in playing:
            if not hand.pending:
                hand.heard = time.monotonic()
            hand.telling = True
            hand.child.send(_STATE)
        stopping: float | None = None
        while waited := [hand for hand in playing if hand.telling and hand in self._hands]:
            now = time.monotonic()
            if stopping is None and self._stop():
                stopping = now
            if stopping is not None and now - stopping > STOP_SECONDS:
                for hand in waited:
                    self._say(
                        f"actor {hand.number} does not tell within {STOP_SECONDS:g} s where it "
                        "stands: it begins new games when the run is resumed"
                    )
                break
            self._listen()
        states = {}
        for hand in self._hands:
            states[hand.number] = (
                self._answers.get(hand.number)
                or hand.given
                or ActorState.new_games(self._after(hand))
            )
        return states

    def close(self) -> None:
        """See `actors.ActorPool`."""
        for hand in self._hands:
            hand.child.close()
        self._hands = []

    def _listen(self) -> None:
        """Take in what actors say; replace those that are gone, or silent for too long."""
        wait([hand.child for hand in self._hands], _LOOK)
        now = time.monotonic()
        # While this process was stopped, or did something else, nobody listened to the actors.
        away = max(0.0, now - self._looked - _AWAY)
        self._looked = now
        for hand in list(self._hands):
            hand.heard = min(now, hand.heard + away)
            ended = hand.child.ended  # before what it said: that is all of it then
            for message in hand.child.messages():
                hand.heard = now
                self._hear(hand, message)
            if ended:
                self._replace(hand, f"has ended ({how_it_ended(hand.child.exit_code)})")
            elif (hand.pending or hand.telling) and now - hand.heard > hand.limit:
                self._replace(hand, f"has said nothing for {hand.limit:g} s")

    def _hear(self, hand: _ActorHandle, message: tuple[str, Any]) -> None:
        kind, content = message
        if kind == "error":
            raise NhzooError(f"actor {hand.number}: {content}")
        if kind == _STATE:
            self._answers[hand.number], hand.telling = content, False
            return
        index, about = content
        unroll = hand.buffers[index]
        for name, value in about.items():
            setattr(unroll, name, value)
        hand.started, hand.pending, hand.given = unroll.started, hand.pending - 1, None
        self._ready.append((hand, index, unroll))
        self._deaths = 0

    def _replace(self, hand: _ActorHandle, why: str) -> None:
        hand.child.close()
        self._deaths += 1
        if self._deaths > MOST_DEATHS:
            raise NhzooError(
                f"no actors left: {self._deaths} ended one after another (the last {why}); the "
                "same command resumes from the last saved state"
            )
        self._say(f"actor {hand.number} {why}: another takes its place, with new games")
        fresh = self._spawn(hand.number, ActorState.new_games(self._after(hand)))
        self._hands[self._hands.index(hand)] = fresh
        if self._begun:
            self._ask_all(fresh)

    def _after(self, hand: _ActorHandle) -> int:
        """A number of games that it has not begun more of, whatever it was playing."""
        return hand.started + most_started(self._config, BUFFERS)

    def _ask_all(self, hand: _ActorHandle) -> None:
        for index in range(BUFFERS):
            self._ask(hand, index)

    def _ask(self, hand: _ActorHandle, index: int) -> None:
        if not hand.pending and not hand.telling:
            hand.heard = time.monotonic()
        hand.pending += 1
        hand.child.send(index)

    def _spawn(self, number: int, state: ActorState) -> _ActorHandle:
        config = self._config
        shape = config.time, config.games, config.policy.hidden
        size = unroll_layout(*shape).itemsize
        memory = [self._context.RawArray("b", size) for _ in range(BUFFERS)]
        with _signals_held():
            child = Child(_serve, (number, config, state), (self._weights, memory))
        buffers = [Unroll.within(buffer, *shape) for buffer in memory]
        return _ActorHandle(number, child, buffers, state.started, state)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Processes that are started meanwhile never see SIGINT and SIGTERM: stopping is the learner's
    to handle, and Ctrl-C in a terminal goes to all of them. A `Child` is ended with SIGKILL.
    """
    resource_tracker.ensure_running()  # which would let the signals through as it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(
    channel: Channel,
    weights: SharedWeights,
    memory: list[Any],
    number: int,
    config: ActorConfig,
    state: ActorState,
) -> None:
    """The life of an actor's process. It ends when the learner closes its end of the channel."""
    torch.set_num_threads(1)
    shape = config.time, config.games, config.policy.hidden
    buffers = [Unroll.within(buffer, *shape) for buffer in memory]
    requests: deque[int] = deque()
    with contextlib.suppress(EOFError):
        try:
            actor = Actor(number, config, state)
            while True:
                for message in channel.receive() if requests else [channel.next()]:
                    if message == _STATE:  # before all that is still to be played
                        _say(channel, _STATE, actor.state())
                    else:
                        requests.append(message)
                if requests:
                    _load(actor, weights)
                    unroll = actor.play(buffers[requests[0]])
                    about = {k: getattr(unroll, k) for k in _ABOUT}
                    _say(channel, "unroll", (requests.popleft(), about))
        except (NhzooError, ValueError) as error:
            _say(channel, "error", str(error).splitlines()[0])


def _say(channel: Channel, kind: str, content: Any) -> None:
    channel.send((kind, content))
    channel.drain()  # the learner reads, or is stopped, or is gone and its end closed


def _load(actor: Actor, weights: SharedWeights) -> None:
    """The newest weights that can be read; those of before where that fails."""
    limit = time.monotonic() + START_SECONDS
    while True:
        newer = weights.read(actor.version)
        if newer:
            actor.load(*newer)
        if actor.version >= 0:
            return
        if time.monotonic() > limit:
            raise NhzooError(f"no whole weights could be read in {START_SECONDS:g} s")
        time.sleep(0.001)


_ABOUT = ("actor", "version", "started", "finished")
