"""Verification: replay every game of a result from its seeds and keys, without the agent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nhzoo.envs.actions import ACTION_KEYS
from nhzoo.envs.game import Episode, EpisodeResult, Game
from nhzoo.envs.protocols import Protocol
from nhzoo.errors import InputError, NhzooError
from nhzoo.evaluation import results, statistics
from nhzoo.runtime.console import ProgressCallback, no_progress
from nhzoo.runtime.pool import OneByOne, run_items

_GAME_SECONDS = 600.0  # for 100,000 steps at most: only what never ends takes that long
_ACTIONS = bytes(sorted(set(ACTION_KEYS.tolist())))
_SLOTS = 2  # one game to replay, one that waits, so that a worker never does


@dataclass
class Verification:
    """The result of a verification. `reasons` names, by game index, what is wrong with a mismatch.

    `problems` are those of the result as a whole: a summary that its games do not give, or that
    there is no score. `faults` are those of `results.faults`: games may be true and have crashed.
    """

    protocol: str
    agent: str
    episodes: int
    verified: int = 0
    mismatched: list[int] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    faults: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything was reproduced."""
        return not self.mismatched and not self.problems


class VerifyTask(OneByOne):
    """Replays the games of a result; an item is a row of `episodes.jsonl`."""

    def __init__(self, folder: Path, protocol: Protocol, exempt: bool) -> None:
        self._folder, self._protocol, self._exempt = folder, protocol, exempt
        self._episode = Episode(Game(()))

    def work(self, item: results.Row) -> str | None:
        """None when the replayed game agrees with its row, else what differs."""
        return step_through(self._episode, self._folder, self._protocol, self._exempt, item)


def step_through(
    episode: Episode,
    folder: Path,
    protocol: Protocol,
    exempt: bool,
    row: results.Row,
    observe: Callable[[int | None], object] | None = None,
) -> str | None:
    """Replay the game of a row; what differs from the row, None when they agree.

    `observe` is called with each key of the agent when the screen after it is there, and first,
    with None, before his first key.
    """
    index = row["index"]
    try:
        if row["end_status"] == "crashed" and row["keys"] == row["turns"] == 0:  # NLE did
            crashed = EpisodeResult(end_status="crashed", cause=row["cause"])
            return _different(row, results.episode_row(protocol, index, crashed, b""))
        keys = results.read_trace(folder, index)
        episode.start(protocol.game(index), protocol.step_cap, protocol.no_progress)
        opening = bytes(episode.game.keys)
        if not keys.startswith(opening):
            return "the trace does not begin with the keys that dismiss the opening text"
        keys_of_agent = keys[len(opening) :]
        strange = keys_of_agent.translate(None, _ACTIONS)
        if strange:
            return f"key {strange[0]} is pressed, which no action presses"
        if observe is not None:
            observe(None)
        pressed = len(opening) + episode.play(keys_of_agent, observe=observe)
        if pressed < len(keys):
            return f"the game ends at key {pressed:,} of {len(keys):,}"
        if not episode.result.end_status:
            status = row["end_status"]
            may_give_up = status == "crashed" or (status == "stalled" and exempt)
            if not (may_give_up and row["cause"]):
                return f"the game goes on after the {len(keys):,} keys of its trace"
            # When an agent failed only it can say; up to there, the game has to be the same.
            episode.result.end_status, episode.result.cause = status, row["cause"]
        return _different(row, results.episode_row(protocol, index, episode.result, keys))
    except NhzooError as error:
        return str(error)


def _different(row: results.Row, replayed: results.Row) -> str | None:
    wrong = [
        f"{n} is {row.get(n)!r}, replayed {v!r}" for n, v in replayed.items() if row.get(n) != v
    ]
    if "role" in row and "role" not in replayed:
        wrong.append(f"role is {row['role']!r}, and the protocol draws none")
    return "; ".join(wrong) or None


def verify(
    folder: str | Path,
    workers: int | None = None,
    progress: ProgressCallback = no_progress,
    stop_at_first: bool = False,
    protocol: Protocol | None = None,
) -> Verification:
    """Replay every game of a result folder and compare everything that it claims.

    With `stop_at_first` it ends at the first game that differs. Give `protocol` for games of an
    unregistered protocol. A game from which NLE does not return differs as well.
    """
    folder = Path(folder)
    result, protocol, rows = results.read_result(folder, protocol)
    report = Verification(protocol.id, str(result.get("agent")), len(rows))
    report.problems = summary_problems(result, rows)
    report.faults = results.faults(rows)
    report.problems += [reason for reason in (results.no_score(rows),) if reason]
    indices = [row["index"] for row in rows]
    first, step = _shard(result.get("shard"))
    if indices != list(range(first, first + step * len(rows), step)):
        which = f"0 to {len(rows) - 1}" if step == 1 else f"those of its shard {result['shard']}"
        report.problems.append(f"the games are not {which}: some were left out")
    longest_first = sorted(rows, key=lambda row: -row["keys"])  # no core waits long at the end
    items = [(row["index"], row) for row in longest_first]
    args = (folder, protocol, result.get("exempt") is True)
    for index, reason in run_items(VerifyTask, args, items, workers, _SLOTS, _GAME_SECONDS):
        if reason is None:
            report.verified += 1
        else:
            report.reasons[index] = reason
        progress(report.verified + len(report.reasons), len(rows))
        if stop_at_first and report.reasons:
            break
    report.reasons = dict(sorted(report.reasons.items()))
    report.mismatched = list(report.reasons)
    return report


def _shard(shard: Any) -> tuple[int, int]:
    """The first game of a shard "i/n" and the distance to the next; (0, 1) for no shard."""
    if shard is None:
        return 0, 1
    try:
        return results.parse_shard(str(shard))
    except InputError:
        return 0, 1


def summary_problems(result: Mapping[str, Any], rows: list[results.Row]) -> list[str]:
    """Differences between the summary of a result.json and the summary of its games."""
    claimed = result.get("summary")
    if not isinstance(claimed, dict):
        return ["result.json has no summary"]
    given = results.summarize(rows)
    claimed = results.completed(claimed, given)
    before = _written_before(rows)
    return [
        f"result.json: {name} is {claimed.get(name)!r}, its games give {value!r}"
        for name, value in given.items()
        if not results.same(claimed.get(name), value)
        and not (name in before and results.same(claimed.get(name), before[name]))
    ]


def _written_before(rows: list[results.Row]) -> dict[str, Any]:
    """What versions of nhzoo before 0.2 wrote of too few games, or of equal scores: still right."""
    scores = [float(row["score"]) for row in rows]
    found: dict[str, Any] = {"std_score": 0.0} if len(rows) == 1 else {}
    if len(rows) < statistics.LEAST_VALUES or len(set(scores)) == 1:
        ends = statistics.resampled_mean_ci95(scores) or (scores[0], scores[0])
        found["mean_score_ci95"] = list(ends)
    return found
