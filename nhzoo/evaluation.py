"""Evaluation: an agent plays the games of a protocol, and every game is kept as it was played.

Games are keyed by index and decided by it alone, agents compute on batches of one fixed size, and
each game has its own sampling stream: so results do not depend on how many workers there were, in
which order games ended, or what was interrupted in between.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nhzoo import files, results
from nhzoo.agents import Agent, PolicyAgent, load, set_row
from nhzoo.envs import ACTION_KEYS, TTY, Episode, EpisodeResult, Game
from nhzoo.errors import InputError
from nhzoo.protocols import Protocol, get_protocol
from nhzoo.workers import Crashed, run_tasks

BATCH = 16
"""Games that one worker plays at once: the network's batch, padded when fewer are left."""

_NEWS_SECONDS = 0.5
_Mark = Callable[[int, float, float], None]


@dataclass
class Progress:
    """What a running evaluation reports. `steps` counts those of games played in this call."""

    done: int
    total: int
    steps: int
    seconds: float
    scores: list[float] = field(default_factory=list)


@dataclass
class Evaluation:
    """A finished evaluation; `result` is what `result.json` holds, `episodes` one row a game."""

    result: dict[str, Any]
    episodes: list[results.Row]
    folder: Path | None


class PlayTask:
    """Plays up to `batch` games at once with one copy of the agent, in a worker process."""

    def __init__(self, agent: Agent, protocol: Protocol, batch: int) -> None:
        torch.set_num_threads(1)
        self.slots = batch
        self._agent = agent
        self._protocol = protocol
        names = tuple(getattr(self._agent, "observation_keys", TTY))
        self._episodes = [Episode(Game(names)) for _ in range(batch)]
        self._index: list[int | None] = [None] * batch
        self._uniforms: list[np.random.Generator | None] = [None] * batch
        self._uniform = np.full(batch, 0.5)
        self._state = self._agent.initial_state(batch)
        self._observation = {name: np.zeros(0) for name in names}
        self._steps, self._told = 0, time.monotonic()

    def start(self, key: Hashable, item: Any) -> None:
        """Put game `key` into a free slot."""
        assert isinstance(key, int)
        slot = self._index.index(None)
        self._index[slot] = key
        self._uniforms[slot] = None  # begun in advance(), where a crash is attributed

    def advance(self, mark: _Mark) -> Iterable[tuple[Hashable, Any]]:
        """One step in every game. Results are (EpisodeResult, keys); news is a number of steps."""
        active = [slot for slot, index in enumerate(self._index) if index is not None]
        for slot in active:
            if self._uniforms[slot] is None:
                self._begin(slot, mark)
            self._observe(slot)
        mark(-1, 0, 0)  # what happens in the agent is no game's fault
        actions, self._state = self._agent.act(self._observation, self._state, self._uniform)
        finished = []
        for slot in active:
            index, episode = self._index[slot], self._episodes[slot]
            assert index is not None
            mark(index, episode.result.score, episode.result.steps)
            action = int(actions[slot])
            if action < 0:
                _give_up(self._agent, episode.result)
            if action < 0 or episode.step(int(ACTION_KEYS[action])):
                finished.append((index, (episode.result, bytes(episode.game.keys))))
                self._index[slot] = None
                if hasattr(self._agent, "end_game"):
                    self._agent.end_game()
        self._steps += len(active)
        if time.monotonic() - self._told > _NEWS_SECONDS:
            finished.append((None, self._steps))  # type: ignore[arg-type]
            self._steps, self._told = 0, time.monotonic()
        return finished

    def _begin(self, slot: int, mark: _Mark) -> None:
        index, protocol = self._index[slot], self._protocol
        assert index is not None
        mark(index, 0, 0)
        self._episodes[slot].start(protocol.game(index), protocol.step_cap, protocol.no_progress)
        self._uniforms[slot] = protocol.uniforms(index)
        set_row(self._state, slot, self._agent.initial_state(1))

    def _observe(self, slot: int) -> None:
        live = self._episodes[slot].game.observation
        for name, batch in self._observation.items():
            if not batch.size:
                shape = (self.slots, *live[name].shape)
                batch = self._observation[name] = np.zeros(shape, live[name].dtype)
            batch[slot] = live[name]
        stream = self._uniforms[slot]
        assert stream is not None
        self._uniform[slot] = stream.random()


def _give_up(agent: Agent, result: EpisodeResult) -> None:
    """End a game for which the agent gave action -1: it failed, or its time is up."""
    result.end_status = "stalled" if getattr(agent, "timed_out", False) else "crashed"
    result.cause = getattr(agent, "failure", None) or "the agent gave no action"


def evaluate(
    agent: str | Path | Agent,
    protocol: str | Protocol,
    episodes: int | None = None,
    workers: int | None = None,
    out: str | Path | None = None,
    batch: int = BATCH,
    progress: Callable[[Progress], None] = lambda progress: None,
    skip: Sequence[int] = (),
) -> Evaluation:
    """Play games 0 to `episodes` - 1 of a protocol (all by default) and measure them.

    With `out`, games are written there as they end and a second call goes on where the first
    stopped. `agent` is what `nhzoo.load` takes, or an agent that can be pickled; an agent's
    `max_batch` bounds the batch. Games in `skip` are left out: they are somewhere else already.
    """
    protocol = get_protocol(protocol)
    episodes = protocol.games if episodes is None else episodes
    if not 1 <= episodes <= protocol.games:
        raise InputError(f"{protocol.id} has {protocol.games} games; {episodes} were asked for")
    workers = os.cpu_count() or 1 if workers is None else workers
    if workers < 1 or batch < 1:
        raise InputError("at least one worker and a batch of one are needed")
    source: str | Agent = str(agent) if isinstance(agent, (str, Path)) else agent
    loaded = load(source) if isinstance(source, str) else source  # once: workers get this one
    batch = min(batch, getattr(loaded, "max_batch", batch))
    identity = _identity(source, loaded, protocol, batch)
    folder = Path(out) if out is not None else None
    rows = _resume(folder, identity) if folder else {}
    asked = [index for index in range(episodes) if index not in skip]
    todo = [index for index in asked if index not in rows]
    state = Progress(len(asked) - len(todo), len(asked), 0, 0.0)
    state.scores = [rows[index]["score"] for index in asked if index in rows]
    began, ended_steps = time.monotonic(), 0
    progress(state)
    items = [(index, None) for index in todo]
    log = open(folder / "episodes.jsonl", "ab") if folder else None
    try:
        for index, outcome in run_tasks(
            PlayTask, (loaded, protocol, batch), items, workers, slots=_slots(batch, workers, todo)
        ):
            if index is None:
                state.steps += outcome
            else:
                assert isinstance(index, int)
                result, keys = _crashed(outcome) if isinstance(outcome, Crashed) else outcome
                row = rows[index] = results.episode_row(protocol, index, result, keys)
                ended_steps += result.steps
                state.done += 1
                state.scores.append(row["score"])
                if folder and log:
                    results.write_trace(folder, index, keys)
                    log.write(files.dump_json(row, indent=None))
                    log.flush()
                    os.fsync(log.fileno())
            state.seconds = time.monotonic() - began
            progress(state)
    finally:
        if log:
            log.close()
    done = [rows[index] for index in sorted(rows)]
    speed = ended_steps / max(1e-9, time.monotonic() - began)
    summary = results.summarize(done) | {"env_steps_per_second": speed if todo else None}
    # Clocks decide how such games end, so playing them again need not give the same bytes.
    exempt = identity["limits"] is not None
    result_file = {"schema_version": results.SCHEMA, **identity, "exempt": exempt}
    result_file["workers"] = workers
    result_file["summary"] = summary
    if folder:
        _finish(folder, result_file, done, bool(todo))
    return Evaluation(result_file, done, folder)


def _slots(batch: int, workers: int, todo: list[int]) -> int:
    """How many games a worker holds: no more than leaves every worker something to do."""
    return min(batch, max(1, -(-len(todo) // workers)))


def _crashed(crash: Crashed) -> tuple[EpisodeResult, bytes]:
    cause = f"NLE ended its process with exit code {crash.exit_code}"
    result = EpisodeResult(end_status="crashed", cause=cause)
    return result, b""


def _identity(source: str | Agent, agent: Agent, protocol: Protocol, batch: int) -> dict[str, Any]:
    """What a result is of: two results are of the same thing when these agree."""
    entry = agent.entry if isinstance(agent, PolicyAgent) else None
    name = str(getattr(agent, "name", source if isinstance(source, str) else type(agent).__name__))
    return {
        "agent": name,
        "revision": getattr(agent, "revision", None),
        "weights_sha256": entry.revision if entry else None,
        "params": entry.policy.config.params if entry else None,
        "temperature": entry.sampling.temperature if entry else None,
        "protocol": protocol.id,
        "device": "cpu",
        "batch": batch,
        "limits": getattr(agent, "limits", None),
        **results.environment(),
    }


def _resume(folder: Path, identity: dict[str, Any]) -> dict[int, results.Row]:
    """The finished games that `folder` holds, after making sure that they are of the same agent."""
    path = folder / "evaluation.json"
    files.sweep(folder)
    files.sweep(folder / "traces")
    if path.exists():
        before = files.read_json(path)
        differing = [name for name in identity if before.get(name) != identity[name]]
        if differing:
            name = differing[0]
            raise InputError(
                f"{folder}: holds a result with another {name} ({before.get(name)!r}, now "
                f"{identity[name]!r}); give another --out"
            )
    elif folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: is not empty and holds no evaluation; give another --out")
    else:
        files.atomic_write(path, files.dump_json(identity))
    log = folder / "episodes.jsonl"
    if not log.exists():
        return {}
    whole = files.read_bounded(log, 64 * files.MEGABYTE)
    whole = whole[: whole.rfind(b"\n") + 1]  # a kill may have left half a line
    kept: dict[int, results.Row] = {}
    for number, line in enumerate(whole.splitlines(), 1):
        row = files.parse_json(line, f"{log}, line {number}")
        results.check_row(row, f"{log}, line {number}")
        if _trace_is_whole(folder, row):
            kept[row["index"]] = row
    files.atomic_write(log, files.dump_jsonl(kept.values()))
    return kept


def _trace_is_whole(folder: Path, row: results.Row) -> bool:
    try:
        keys = results.read_trace(folder, row["index"])
    except InputError:
        return False
    return bool(hashlib.sha256(keys).hexdigest() == row["sha256"])


def _finish(folder: Path, result: dict[str, Any], rows: list[results.Row], played: bool) -> None:
    """Sort the games, write the summary. A call that played nothing keeps the measured speed."""
    files.atomic_write(folder / "episodes.jsonl", files.dump_jsonl(rows))
    path = folder / "result.json"
    if not played and path.exists():
        before = files.read_json(path)
        result["summary"]["env_steps_per_second"] = before["summary"]["env_steps_per_second"]
        result["workers"] = before["workers"]
    files.atomic_write(path, files.dump_json(result))
