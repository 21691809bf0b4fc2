"""Evaluation: an agent plays the games of a protocol; every game is kept with all its keys.

Games are keyed by index and decided by it alone, each has its own sampling stream, and networks
compute the same bits in every batch on every processor (`arithmetic`); other agents compute on
batches of one fixed size. So results do not depend on how many workers there were, in which order
games ended, or what was interrupted in between.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nhzoo.agents.base import Agent, AgentTraits, PolicyAgent
from nhzoo.agents.loading import load_with_traits
from nhzoo.envs.game import EpisodeResult
from nhzoo.envs.protocols import Protocol, get_protocol
from nhzoo.errors import InputError
from nhzoo.evaluation import results
from nhzoo.evaluation.playing import AGENT_SECONDS, PlayTask, StateTask, run_games
from nhzoo.policy import arithmetic
from nhzoo.runtime import files
from nhzoo.runtime.pool import Crashed, run_items


@dataclass
class Progress:
    """The progress of an evaluation. `steps` counts those of games played in this call."""

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


def evaluate(
    agent: str | Path | Agent,
    protocol: str | Protocol,
    episodes: int | None = None,
    workers: int | None = None,
    out: str | Path | None = None,
    batch: int | None = None,
    progress: Callable[[Progress], None] = lambda progress: None,
    skip: Sequence[int] = (),
    shard: str | None = None,
    agent_seconds: float = AGENT_SECONDS,
) -> Evaluation:
    """Play games 0 to `episodes` - 1 of a protocol (all by default) and measure them.

    With `out`, games are written there as they end, and a second call resumes where the first
    stopped. `agent` is what `nhzoo.load` takes, or an agent that can be pickled. A worker plays
    `batch` games at once: by default the agent's `best_batch`, at most its `max_batch`. Games in
    `skip` are left out: another result has them. A `shard` "i/n" plays only the games whose index
    is i modulo n; see `results.merge`.

    When an agent takes longer than `agent_seconds` for a step, its games are restarted, each by
    itself; a game in which that happens twice is recorded as crashed. Bots have their own limits.
    """
    protocol = get_protocol(protocol)
    episodes = protocol.games if episodes is None else episodes
    if not 1 <= episodes <= protocol.games:
        raise InputError(f"{protocol.id} has {protocol.games} games; {episodes} were asked for")
    workers = os.cpu_count() or 1 if workers is None else workers
    if workers < 1 or (batch is not None and batch < 1):
        raise InputError("at least one worker and a batch of one are needed")
    loaded, about = load_with_traits(agent)  # once: workers get this one
    batch = min(about.best_batch if batch is None else batch, about.max_batch)
    identity = _identity(loaded, about, protocol, batch)
    first, step = results.parse_shard(shard) if shard else (0, 1)
    wanted = [index for index in range(first, episodes, step) if index not in skip]
    if not wanted and not skip:
        raise InputError(f"shard {shard}: {episodes} games leave none for it")
    folder = Path(out) if out is not None else None
    with files.lock(folder) if folder else contextlib.nullcontext():
        args = loaded, protocol, batch
        return _evaluate(args, identity, wanted, workers, folder, shard, progress, agent_seconds)


def _evaluate(
    args: tuple[Agent, Protocol, int],
    identity: dict[str, Any],
    wanted: list[int],
    workers: int,
    folder: Path | None,
    shard: str | None,
    progress: Callable[[Progress], None],
    agent_seconds: float,
) -> Evaluation:
    protocol = args[1]
    rows = _resume(folder, identity) if folder else {}
    todo = [index for index in wanted if index not in rows]
    state = Progress(len(wanted) - len(todo), len(wanted), 0, 0.0)
    state.scores = [rows[index]["score"] for index in wanted if index in rows]
    began, ended_steps = time.monotonic(), 0
    progress(state)
    items = [(index, None) for index in todo]
    with results.GameLog(folder) as log:
        for index, outcome in run_games(PlayTask, args, items, workers, agent_seconds):
            if index is None:
                state.steps += outcome
            else:
                assert isinstance(index, int)
                if isinstance(outcome, Crashed):
                    outcome = _crashed(protocol, index, outcome)
                result, keys = outcome
                row = rows[index] = results.episode_row(protocol, index, result, keys)
                ended_steps += result.steps
                state.done += 1
                state.scores.append(row["score"])
                log.add(row, keys)
            state.seconds = time.monotonic() - began
            progress(state)
    done = [rows[index] for index in sorted(rows)]
    speed = ended_steps / max(1e-9, time.monotonic() - began)
    summary = results.summarize(done) | {"env_steps_per_second": speed if todo else None}
    # Clocks decide how such games end, so playing them again need not give the same bytes.
    exempt = identity["limits"] is not None
    result_file = {"schema_version": results.SCHEMA, **identity, "exempt": exempt}
    result_file |= {"shard": shard, "workers": workers}
    result_file["summary"] = summary
    if folder:
        _finish(folder, result_file, done, bool(todo))
    return Evaluation(result_file, done, folder)


def _crashed(protocol: Protocol, index: int, crash: Crashed) -> tuple[EpisodeResult, bytes]:
    """A game that NLE or the agent ended, kept as what it had scored, with the keys until then."""
    keys = crash.left.rstrip(b"\0")  # no action presses key 0
    if not crash.foreign:  # the last key is the one that NLE did not survive
        keys = keys[:-1]
    result = EpisodeResult(score=crash.a, steps=int(crash.b))
    if keys:
        for _, found in run_items(StateTask, (protocol,), [(index, (index, keys))], 1):
            if isinstance(found, EpisodeResult):
                result = found
    if not result.end_status:  # it may have ended before the agent took the process with it
        result.end_status, result.cause = "crashed", str(crash)
    return result, keys


def _identity(agent: Agent, about: AgentTraits, protocol: Protocol, batch: int) -> dict[str, Any]:
    """What a result is of: two results are of the same thing when these agree."""
    entry = agent.entry if isinstance(agent, PolicyAgent) else None
    return {
        "agent": about.name,
        "revision": about.revision,
        "source": agent.source if isinstance(agent, PolicyAgent) else None,
        "weights_sha256": entry.revision if entry else None,
        "params": entry.policy.config.params if entry else None,
        "temperature": entry.sampling.temperature if entry else None,
        "patience": (entry.sampling.patience or None) if entry else None,
        "min_p": (entry.sampling.min_p or None) if entry else None,
        "protocol": protocol.id,
        "device": "cpu",
        "batch": batch,
        "limits": about.limits,
        "numerics": arithmetic.NUMERICS if entry else None,
        **results.environment(),
    }


def _resume(folder: Path, identity: dict[str, Any]) -> dict[int, results.Row]:
    """The finished games that `folder` holds, after making sure that they are of the same agent."""
    path = folder / "evaluation.json"
    files.sweep(folder)
    files.sweep(folder / "traces")
    if path.exists():
        before = files.read_json(path)
        # The same weights from another commit, or from a folder, are the same agent.
        free = {"source"} | (results.FREE if identity["numerics"] else set())
        identity |= {name: before[name] for name in free if name in before}
        differing = [name for name in identity if before.get(name) != identity[name]]
        if differing:
            name = differing[0]
            was, now = before.get(name), identity[name]
            if isinstance(was, dict) and isinstance(now, dict):  # versions, limits
                part = next(part for part in was | now if was.get(part) != now.get(part))
                name, was, now = f"{name}.{part}", was.get(part), now.get(part)
            raise InputError(
                f"{folder}: holds a result with another {name} ({was!r}, now {now!r}); "
                "give another --out"
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
        summary, kept = result["summary"], before["summary"]
        summary["env_steps_per_second"] = kept["env_steps_per_second"]
        if results.same(
            results.completed(kept, summary), summary
        ):  # it may be older: its bytes stay
            result["summary"] = kept
        result["workers"] = before["workers"]
    files.atomic_write(path, files.dump_json(result))
