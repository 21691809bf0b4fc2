"""Actors on a Ray cluster: one learner, actors on any of its machines.

Each actor is asked for two unrolls at a time, with a reference to the newest weights, of which each
machine keeps one copy. An actor whose process or machine is gone is replaced by one that begins new
games, wherever there is room; what it was playing is lost and nothing else. The same is done with
one that is silent for long while others play.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from nhzoo.errors import InputError, NhzooError, Stopped
from nhzoo.runtime.cluster import connect
from nhzoo.training.rl.actors import Actor, ActorConfig, ActorState, most_started
from nhzoo.training.rl.rollouts import Unroll

Array = np.ndarray[Any, Any]

IN_FLIGHT = 2
PATIENCE = 300.0
"""Seconds in which one actor at least must have an unroll ready. Who has none is replaced."""
STOP_SECONDS = 20.0
"""How long actors may take to tell where they stand once the run was asked to stop."""
_LOOK = 0.25  # seconds from one look at signals and limits to the next


class RemoteActor:
    """What runs in the cluster."""

    def __init__(self, number: int, config: ActorConfig, state: ActorState) -> None:
        torch.set_num_threads(1)
        self._actor = Actor(number, config, state)

    def play(self, weights: Array, version: int) -> Unroll:
        """An unroll with these weights, or with later ones that came before."""
        if version >= self._actor.version:
            self._actor.load(weights, version)
        return self._actor.play(self._actor.config.empty())

    def state(self) -> ActorState:
        """Where it stands."""
        return self._actor.state()


@dataclass(eq=False)
class _ActorHandle:
    """An actor. `given` is where it began, until its first unroll has come."""

    number: int
    handle: Any
    started: int
    given: ActorState | None
    heard: float = field(default_factory=time.monotonic)


class RayActorPool:
    """`actors` Ray actors of one CPU each, on the cluster at `address` ("auto": the one here)."""

    def __init__(
        self,
        config: ActorConfig,
        actors: int,
        states: dict[int, ActorState],
        address: str,
        stop: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._ray: Any = connect(address)
        cores = int(self._ray.cluster_resources().get("CPU", 0))
        if actors > cores:
            raise InputError(
                f"--actors {actors}: the cluster at {address} has {cores} CPUs; give at most "
                f"{cores}, or add machines"
            )
        self._config, self._stop, self._say = config, stop, say
        self._remote = self._ray.remote(num_cpus=1, max_restarts=0)(RemoteActor)
        self._hands = {
            n: self._make(n, states.get(n) or ActorState.new_games(0)) for n in range(actors)
        }
        self._pending: dict[Any, _ActorHandle] = {}  # unrolls asked for, in order
        self._owed: list[_ActorHandle] = []  # whose unrolls were handed out
        self._weights: Any = None
        self._version = -1

    def publish(self, weights: Array, version: int) -> None:
        """See `actors.ActorPool`."""
        first = self._weights is None
        self._weights, self._version = self._ray.put(weights), version
        if first:
            for hand in self._hands.values():
                for _ in range(IN_FLIGHT):
                    self._ask(hand)

    def collect(self, count: int) -> list[Unroll]:
        """See `actors.ActorPool`."""
        unrolls: list[Unroll] = []
        limit = time.monotonic() + PATIENCE
        while len(unrolls) < count:
            self._replace_silent()
            ready, _ = self._ray.wait(self._oldest(), num_returns=1, timeout=_LOOK)
            if not ready:
                if self._stop():
                    raise Stopped
                if time.monotonic() < limit:
                    continue
                raise NhzooError(
                    f"no actors left: none of {len(self._hands)} has played anything for "
                    f"{PATIENCE:g} s (the cluster has {self._free()} CPUs free); the same command "
                    "resumes from the last saved state"
                )
            hand = self._pending.pop(ready[0])
            try:
                unroll = self._ray.get(ready[0], timeout=PATIENCE)
            except self._ray.exceptions.RayTaskError as error:
                reason = str(error.cause).splitlines()[0]
                raise NhzooError(f"actor {hand.number}: {reason}") from None
            except self._ray.exceptions.RayError:
                self._replace(hand, "has ended, or its machine")
                continue
            hand.started, hand.given, hand.heard = unroll.started, None, time.monotonic()
            limit = hand.heard + PATIENCE
            self._owed.append(hand)
            unrolls.append(unroll)
        return unrolls

    def release(self) -> None:
        """See `actors.ActorPool`."""
        for hand in self._owed:
            if self._hands[hand.number] is hand:
                self._ask(hand)
        self._owed = []

    def states(self) -> dict[int, ActorState]:
        """See `actors.ActorPool`."""
        states = {
            n: hand.given or ActorState.new_games(self._after(hand))
            for n, hand in self._hands.items()
        }
        requests = {h.handle.state.remote(): h for h in self._hands.values() if not h.given}
        limit, stopping = time.monotonic() + PATIENCE, False
        ready: list[Any] = []
        while len(ready) < len(requests) and time.monotonic() < limit:
            if not stopping and self._stop():
                stopping, limit = True, min(limit, time.monotonic() + STOP_SECONDS)
            ready, _ = self._ray.wait(list(requests), num_returns=len(requests), timeout=_LOOK)
        for reference, hand in requests.items():
            state = None
            if reference in ready:
                with contextlib.suppress(self._ray.exceptions.RayError):
                    state = self._ray.get(reference, timeout=STOP_SECONDS)
            if state:
                states[hand.number] = state
            else:
                self._say(
                    f"actor {hand.number} does not tell where it stands: it begins new games when "
                    "the run is resumed from here"
                )
        return states

    def close(self) -> None:
        """See `actors.ActorPool`."""
        for hand in self._hands.values():
            self._ray.kill(hand.handle)

    def _oldest(self) -> list[Any]:
        """The first unroll that is due of each actor: those of one actor are to come in order."""
        due: dict[int, Any] = {}
        for reference, hand in self._pending.items():
            due.setdefault(id(hand), reference)
        return list(due.values())

    def _replace_silent(self) -> None:
        """Replace who was to play long ago and has not, which is not noticed while others play."""
        now = time.monotonic()
        first = {id(hand): ref for ref, hand in reversed(self._pending.items())}
        for hand in list(self._hands.values()):
            if now - hand.heard <= PATIENCE or id(hand) not in first:
                continue
            hand.heard = now
            done, _ = self._ray.wait([first[id(hand)]], num_returns=1, timeout=0)
            if not done and not hand.given:  # who has not begun may be waiting for room
                self._replace(hand, f"has said nothing for {PATIENCE:g} s")

    def _replace(self, gone: _ActorHandle, why: str) -> None:
        self._ray.kill(gone.handle)  # it may only have been out of reach
        self._say(f"actor {gone.number} {why}: another takes its place, with new games")
        self._pending = {ref: hand for ref, hand in self._pending.items() if hand is not gone}
        fresh = self._make(gone.number, ActorState.new_games(self._after(gone)))
        self._hands[gone.number] = fresh
        for _ in range(IN_FLIGHT):
            self._ask(fresh)

    def _after(self, hand: _ActorHandle) -> int:
        """A number of games that it has not begun more of, whatever it was playing."""
        return hand.started + most_started(self._config, IN_FLIGHT)

    def _make(self, number: int, state: ActorState) -> _ActorHandle:
        handle = self._remote.remote(number, self._config, state)
        return _ActorHandle(number, handle, state.started, state)

    def _ask(self, hand: _ActorHandle) -> None:
        if not any(other is hand for other in self._pending.values()):
            hand.heard = time.monotonic()
        self._pending[hand.handle.play.remote(self._weights, self._version)] = hand

    def _free(self) -> int:
        return int(self._ray.available_resources().get("CPU", 0))
