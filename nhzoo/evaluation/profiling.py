"""What an agent costs: time of a step by batch size, memory, and its speed beside raw NLE.

An agent plays as in an evaluation, in one worker process and one thread. Right after, the keys that
it pressed are pressed once more in the same process by NLE alone, so that other work on the machine
slows both.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nhzoo.agents.base import Agent, Array, traits
from nhzoo.agents.loading import load_with_traits
from nhzoo.envs.game import Game
from nhzoo.envs.protocols import Protocol, get_protocol
from nhzoo.errors import InputError
from nhzoo.evaluation.playing import PlayTask
from nhzoo.evaluation.results import environment
from nhzoo.runtime.pool import OneByOne, run_items
from nhzoo.runtime.system import cpu_name

BATCHES = (1, 4, 16, 64)
_RAW_KEYS = 10_000  # pressed by NLE alone
_LEAST_WARM = 10


@dataclass(frozen=True)
class BatchProfile:
    """One batch size. `calls` of `act` were timed, each for a step of `batch` games.

    `p50_ms` and `p99_ms` are milliseconds of such a call. (A blind agent plays one game, and a call
    is for the next `batch` steps of it.) `steps_per_second` counts all that an evaluation's worker
    does, `raw_steps_per_second` NLE alone with the same keys and observations, and `share` is the
    former by the latter. `memory_mb` is the proportional share (PSS) in MB, 1e6 bytes, of the
    worker and of the processes of a bot; elsewhere than on Linux the worker's largest resident set.
    """

    batch: int
    calls: int
    p50_ms: float
    p99_ms: float
    steps_per_second: float
    raw_steps_per_second: float
    share: float
    memory_mb: float


@dataclass(frozen=True)
class Profile:
    """The profile of an agent. `load` is the machine's load average when it was made."""

    agent: str
    revision: str | None
    protocol: str
    cpu: str
    cores: int
    load: float
    environment: dict[str, Any]
    batches: list[BatchProfile]

    def as_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)


def profile(
    agent: str | Path | Agent,
    protocol: str | Protocol = "monk-lite-v1",
    batches: Sequence[int] | None = None,
    calls: int = 300,
    progress: Callable[[float, float], None] = lambda done, total: None,
) -> Profile:
    """Time `calls` steps of the agent for each batch size (default: 1, 4, 16 and 64).

    `agent` is what `nhzoo.load` takes, or an agent that can be pickled. It plays the first games of
    the protocol, from their begin. Default sizes above its `max_batch`, or above the protocol's
    number of games, are left out. InputError for a size that is asked for and cannot be played,
    and for an agent that fails.
    """
    protocol = get_protocol(protocol)
    loaded, about = load_with_traits(agent)
    most = 1 if about.blind else min(about.max_batch, protocol.games)
    sizes = [size for size in BATCHES if size <= most] if batches is None else list(batches)
    wrong = [size for size in sizes if not 1 <= size <= most]
    if wrong or not sizes or calls < 1:
        raise InputError(
            f"batch {wrong}, {calls} steps: give 1 step or more, and batches from 1 to {most:,} "
            f"for {about.name} on {protocol.id}"
        )
    found = []
    for done, size in enumerate(sizes):
        progress(done, len(sizes))
        # A process for each size: its memory is of that size alone.
        for _, outcome in run_items(_ProfileTask, (loaded, protocol, calls), [(0, size)], 1):
            if not isinstance(outcome, BatchProfile):
                raise InputError(f"{about.name}, batch {size}: {outcome}")
            found.append(outcome)
    progress(len(sizes), len(sizes))
    return Profile(
        about.name,
        about.revision,
        protocol.id,
        cpu_name(),
        os.cpu_count() or 1,
        os.getloadavg()[0],
        environment(),
        found,
    )


class _Timed:
    """An agent whose calls of `act` are timed; all else is the agent's own."""

    def __init__(self, agent: Agent, seconds: list[float]) -> None:
        vars(self).update(_agent=agent, _seconds=seconds)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._agent, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._agent, name, value)

    def initial_state(self, batch: int) -> Any:
        return self._agent.initial_state(batch)

    def act(
        self, observation: Mapping[str, Array], state: Any, uniform: Array
    ) -> tuple[Array, Any]:
        began = time.perf_counter()
        answer: tuple[Array, Any] = self._agent.act(observation, state, uniform)
        self._seconds.append(time.perf_counter() - began)
        return answer


class _ProfileTask(OneByOne):
    """Profiles batch sizes."""

    def __init__(self, agent: Agent, protocol: Protocol, calls: int) -> None:
        self._agent, self._protocol, self._calls = agent, protocol, calls

    def work(self, item: int) -> BatchProfile | str:
        """The profile of one batch size; why there is none, if the agent fails."""
        seconds: list[float] = []
        player = _Player(_Timed(self._agent, seconds), self._protocol, item, self.heartbeat)
        while len(seconds) < max(_LEAST_WARM, self._calls // 10) and not player.failure:
            player.advance()
        seconds.clear()
        steps, began = player.steps, time.perf_counter()
        while len(seconds) < self._calls and not player.failure:
            player.advance()
        if player.failure:
            return f"game {player.failure}"
        rate = (player.steps - steps) / (time.perf_counter() - began)
        memory = _memory_mb()
        raw = player.raw_rate(traits(self._agent).observation_keys)
        p50, p99 = (1e3 * float(p) for p in np.percentile(seconds, (50, 99)))
        batch = player.rows
        return BatchProfile(batch, len(seconds), p50, p99, rate, raw, rate / raw, memory)


class _Player:
    """Games of a protocol, played as by an evaluation's worker, one beginning as another ends."""

    def __init__(
        self, agent: Any, protocol: Protocol, batch: int, alive: Callable[[], None]
    ) -> None:
        self._task, self._protocol = PlayTask(agent, protocol, batch), protocol
        self._alive = alive
        self._ended: list[tuple[int, bytes]] = []
        self._ended_steps = 0
        self._next, self._playing = 0, set[int]()
        self.rows = self._task.rows
        self.failure = ""
        for _ in range(batch):
            self._begin()

    @property
    def steps(self) -> int:
        """All that were played so far."""
        under_way = sum(episode.result.steps for _, episode in self._task.games())
        return self._ended_steps + under_way

    def advance(self) -> None:
        """A step of every game."""
        for index, outcome in self._task.advance(lambda *_: self._alive()):
            if index is None:
                continue
            result, keys = outcome
            if result.end_status == "crashed":
                self.failure = f"{index}: {result.cause}"
            assert isinstance(index, int)
            self._ended.append((index, keys))
            self._ended_steps += result.steps
            self._playing.discard(index)
            self._begin()

    def raw_rate(self, names: Sequence[str]) -> float:
        """Keys a second of NLE alone, in the games that were played."""
        played = [(index, bytes(episode.game.keys)) for index, episode in self._task.games()]
        game, pressed, seconds = Game(names, faster=False), 0, 0.0
        for index, keys in [*played, *self._ended]:
            if pressed > _RAW_KEYS:
                break
            game.start(self._protocol.game(index))
            press = game.press
            # The last key may have ended the game, and its closing screens are not in the trace.
            keys = keys[: _RAW_KEYS - pressed + 1]
            began = time.perf_counter()
            for key in keys:
                press(key)
            seconds += time.perf_counter() - began
            pressed += len(keys)
            self._alive()
        game.close()
        return pressed / seconds

    def _begin(self) -> None:
        """Begin a game of those that nobody plays at the moment."""
        while self._next % self._protocol.games in self._playing:
            self._next += 1
        index = self._next % self._protocol.games
        self._playing.add(index)
        self._task.start(index, None)
        self._next += 1


def _memory_mb() -> float:
    """What this process and those that it has started hold in memory, in MB."""
    total, left = 0, [os.getpid()]
    try:
        while left:
            process = Path(f"/proc/{left.pop()}")
            for line in (process / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += 1_024 * int(line.split()[1])
            for children in process.glob("task/*/children"):
                left += map(int, children.read_text().split())
    except OSError:  # not Linux, or a process that has just ended
        unit = 1 if sys.platform == "darwin" else 1_024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return total / 1e6
