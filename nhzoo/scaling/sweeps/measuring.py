"""Runs measured anew: their loss on other games, their return.

A run's own held-out loss is of few games, so part of what it says is chance that other games would
not share. More games say the same of a run more surely; which games is the same for all runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from nhzoo.data.batches import count_frames
from nhzoo.errors import InputError, NhzooError
from nhzoo.evaluation.loss import Loss
from nhzoo.runtime import files
from nhzoo.runtime.pool import Crashed, OneByOne, run_tasks
from nhzoo.training.run_table import LedgerRow, RunRow

_GAMES_AT_ONCE = 16


def measure_runs(
    rows: Sequence[LedgerRow],
    entries: Path,
    games: Sequence[Path],
    results: Path | None = None,
    protocol: str = "monk-lite-v1",
    workers: int = 1,
    done: Mapping[str, LedgerRow] | None = None,
    progress: Callable[[LedgerRow], None] = lambda row: None,
    steps: int | None = None,
) -> list[LedgerRow]:
    """`rows` with the loss of `entries`/<run id> on packed `games`, its standard error, its return.

    The loss is of the first `steps` steps of each game, or of all. The return is the mean score of
    `results`/<run id>/`protocol`, where that is. What `done` holds is not measured again.
    InputError where a run has no entry, or `done` is of other games.
    """
    have = done or {}
    frames = count_frames(games, steps)
    for row in have.values():
        if row.validation_frames != frames:
            raise InputError(
                f"{row.run_id}: was measured on {row.validation_frames:,} keys, these games have "
                f"{frames:,}; write to another table"
            )
    todo = []
    for number, row in enumerate(rows):
        if row.run_id not in have:
            if not (entries / row.run_id / "config.json").is_file():
                raise InputError(f"{entries / row.run_id}: no zoo entry of that run; train it")
            todo.append((number, entries / row.run_id))
    found: dict[int, LedgerRow] = {
        number: have[row.run_id] for number, row in enumerate(rows) if row.run_id in have
    }
    for key, outcome in run_tasks(_LossTask, (tuple(games), steps), todo, workers):
        assert isinstance(key, int)
        if isinstance(outcome, Crashed):
            raise NhzooError(f"{rows[key].run_id}: its process ended twice; run again to resume")
        found[key] = replace(
            rows[key],
            loss=outcome.loss,
            loss_se=outcome.loss_se,
            accuracy=outcome.accuracy,
            validation_frames=outcome.frames + outcome.unscored,
        )
        progress(found[key])
    if results is not None:
        for key, row in found.items():
            found[key] = with_return(row, results / row.run_id / protocol)
    return [found[number] for number in range(len(rows))]


def last_rows(rows: Sequence[RunRow], only: str = "*") -> list[LedgerRow]:
    """The row at the end of each run that `only`, a pattern, names; the newest of each name."""
    found: dict[str, LedgerRow] = {}
    for row in rows:
        if isinstance(row, LedgerRow) and not row.checkpoint and fnmatchcase(row.run_id, only):
            found[row.run_id] = row
    if not found:
        raise InputError(f"no finished run of ours is named {only!r}; see the table's run_id")
    return list(found.values())


def with_return(row: LedgerRow, result: Path) -> LedgerRow:
    """`row` with the mean score of a result folder and its standard error; as it is without one.

    Of games that all crashed there is none either.
    """
    path = result / "result.json"
    if not path.is_file():
        return row
    summary: Any = files.read_json(path, 16 * files.MEGABYTE).get("summary")
    try:
        if summary["mean_score"] is None:
            return row
        mean, episodes = float(summary["mean_score"]), int(summary["episodes"])
        se = float(summary["std_score"]) / episodes**0.5 or None if episodes > 1 else None
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        raise InputError(f"{path}: has no summary of games; evaluate it again") from None
    return replace(row, mean_return=mean, se_return=se, n_episodes=episodes)


class _LossTask(OneByOne):
    """One entry after another, in a process of its own."""

    def __init__(self, games: tuple[Path, ...], steps: int | None) -> None:
        import torch

        torch.set_num_threads(1)
        self._games, self._steps = games, steps

    def work(self, item: Path) -> Loss:
        """The loss of the entry's policy."""
        from nhzoo.evaluation.loss import measure_loss
        from nhzoo.policy.checkpoint import load_entry

        policy = load_entry(item).policy
        return measure_loss(
            policy, self._games, self._steps, lambda _: self.heartbeat(), _GAMES_AT_ONCE
        )
