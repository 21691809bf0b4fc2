"""Actors on a Ray cluster: one learner, actors on any of its machines.

Each actor is asked for two unrolls at a time, with a reference to the newest weights, of which each
machine keeps one copy. An actor whose process or machine is gone is replaced by one that begins new
games, wherever there is room; what it was playing is lost and nothing else.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nhzoo.actors import Actor, ActorConfig, ActorState
from nhzoo.errors import InputError, NhzooError
from nhzoo.unrolls import Unroll

Array = np.ndarray[Any, Any]

IN_FLIGHT = 2
PATIENCE = 300.0
"""Seconds in which at least one actor must have an unroll ready."""
_ANSWER = 10.0  # seconds for the cluster's address to answer
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


class RemoteActor:
    """What runs in the cluster."""

    def __init__(
        self, number: int, config: ActorConfig, state: ActorState | None, started: int
    ) -> None:
        torch.set_num_threads(1)
        self._actor = Actor(number, config, state, started)

    def play(self, weights: Array, version: int) -> Unroll:
        """An unroll with these weights, or with later ones that came before."""
        if version >= self._actor.version:
            self._actor.load(weights, version)
        return self._actor.play(self._actor.config.empty())

    def state(self) -> ActorState:
        """Where it stands."""
        return self._actor.state()


@dataclass(eq=False)
class _Hand:
    number: int
    handle: Any
    started: int


class RayCrew:
    """`actors` Ray actors of one CPU each, on the cluster at `address` ("auto": the one here)."""

    def __init__(
        self, config: ActorConfig, actors: int, states: dict[int, ActorState], address: str
    ) -> None:
        self._ray: Any = connect(address)
        cores = int(self._ray.cluster_resources().get("CPU", 0))
        if actors > cores:
            raise InputError(
                f"--actors {actors}: the cluster at {address} has {cores} CPUs; give at most "
                f"{cores}, or add machines"
            )
        self._config = config
        self._remote = self._ray.remote(num_cpus=1, max_restarts=0)(RemoteActor)
        self._hands = {n: self._make(n, states.get(n), 0) for n in range(actors)}
        self._pending: dict[Any, _Hand] = {}  # unrolls asked for, in order
        self._owed: list[_Hand] = []  # whose unrolls were handed out
        self._weights: Any = None
        self._version = -1

    def publish(self, weights: Array, version: int) -> None:
        """See `actors.Crew`."""
        first = self._weights is None
        self._weights, self._version = self._ray.put(weights), version
        if first:
            for hand in self._hands.values():
                for _ in range(IN_FLIGHT):
                    self._ask(hand)

    def collect(self, count: int) -> list[Unroll]:
        """See `actors.Crew`."""
        unrolls: list[Unroll] = []
        while len(unrolls) < count:
            ready, _ = self._ray.wait(self._oldest(), num_returns=1, timeout=PATIENCE)
            if not ready:
                raise NhzooError(
                    f"no actors left: none of {len(self._hands)} has played anything for "
                    f"{PATIENCE:g} s (the cluster has {self._free()} CPUs free); the same command "
                    "goes on from the last saved state"
                )
            hand = self._pending.pop(ready[0])
            try:
                unroll = self._ray.get(ready[0])
            except self._ray.exceptions.RayTaskError as error:
                reason = str(error.cause).splitlines()[0]
                raise NhzooError(f"actor {hand.number}: {reason}") from None
            except self._ray.exceptions.RayError:
                self._replace(hand)
                continue
            hand.started = unroll.started
            self._owed.append(hand)
            unrolls.append(unroll)
        return unrolls

    def release(self) -> None:
        """See `actors.Crew`."""
        for hand in self._owed:
            if self._hands[hand.number] is hand:
                self._ask(hand)
        self._owed = []

    def states(self) -> dict[int, ActorState]:
        """See `actors.Crew`."""
        told = {}
        asked = {n: hand.handle.state.remote() for n, hand in self._hands.items()}
        ready, _ = self._ray.wait(list(asked.values()), num_returns=len(asked), timeout=PATIENCE)
        for number, reference in asked.items():
            if reference in ready:
                try:
                    told[number] = self._ray.get(reference)
                except self._ray.exceptions.RayError:
                    continue  # it is gone, as `collect` will find out
        return told

    def close(self) -> None:
        """See `actors.Crew`."""
        for hand in self._hands.values():
            self._ray.kill(hand.handle)

    def _oldest(self) -> list[Any]:
        """The first unroll that is due of each actor: those of one actor are to come in order."""
        due: dict[int, Any] = {}
        for reference, hand in self._pending.items():
            due.setdefault(id(hand), reference)
        return list(due.values())

    def _replace(self, gone: _Hand) -> None:
        self._ray.kill(gone.handle)  # it may only have been out of reach
        self._pending = {ref: hand for ref, hand in self._pending.items() if hand is not gone}
        fresh = self._make(gone.number, None, gone.started + self._config.games)
        self._hands[gone.number] = fresh
        for _ in range(IN_FLIGHT):
            self._ask(fresh)

    def _make(self, number: int, state: ActorState | None, started: int) -> _Hand:
        started = state.started if state else started
        return _Hand(number, self._remote.remote(number, self._config, state, started), started)

    def _ask(self, hand: _Hand) -> None:
        self._pending[hand.handle.play.remote(self._weights, self._version)] = hand

    def _free(self) -> int:
        return int(self._ray.available_resources().get("CPU", 0))


def connect(address: str) -> Any:
    """The module `ray`, connected to the cluster at `address`; InputError when none answers."""
    try:
        import ray
    except ImportError:
        raise InputError("--cluster needs Ray: pip install 'nhzoo[cluster]'") from None
    if ray.is_initialized():
        return ray
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    try:
        if colon and port.isdigit():  # Ray itself tries for minutes
            _greet(host.strip("[]"), int(port))
        ray.init(address=address, log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"--cluster {address}: no Ray cluster answers ({reason}); give the address that "
            "`ray start --head` said, or auto"
        ) from None
    return ray


def _greet(host: str, port: int) -> None:
    """OSError or ValueError unless something there speaks HTTP/2, as Ray's services do."""
    with socket.create_connection((host, port), _ANSWER) as peer:
        if os.environ.get("RAY_USE_TLS", "0") != "0":
            return
        peer.sendall(_PREFACE)
        if peer.recv(9)[3:4] != b"\x04":  # its settings come first
            raise ValueError("what listens there is none")
