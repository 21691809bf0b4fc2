"""Running a sweep: each cell is a repeatable job, on this machine or on a Ray cluster.

A job trains one network and gives back its rows and its entry, so that nothing need be shared but
what the driver writes: the table of runs and the entries. A job whose process or machine is gone is
tried again; on the same machine it resumes from its saved state. What the table holds
already is not trained again. On one machine the driver packs the games, and again when their cache
is lost; on a cluster each job does, for its machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from nhzoo.errors import InputError, NhzooError
from nhzoo.runtime import files
from nhzoo.runtime.cluster import connect
from nhzoo.runtime.pool import Crashed, OneByOne, run_tasks
from nhzoo.scaling.sweeps.plan import BATCH, Cell, Plan
from nhzoo.training.run_table import LedgerRow, RunRow, append_row, parse_row, read_runs

_MOST_LOSSES = 3  # of the packed games, one after another, without a finished run in between
_TRIES = 4  # of a job on a cluster after its machine was lost, each perhaps on another
_SILENT_SECONDS = 6 * 3_600.0
"""For a job: between two reports, of many updates or all held-out games."""
_ENTRY_LIMIT = 4 << 30
_Recipe = TypeVar("_Recipe")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Recipe:
    """What all cells of a sweep have in common.

    `folder`: where runs keep their state while they train, on the machine that trains them.
    """

    data: str
    folder: str
    temperature: float = 1.0
    threads: int = 1
    workers: int = 1
    validation: str = ""


@dataclass(frozen=True)
class Games:
    """Packed games, of the splits "train" and "validation"."""

    training: tuple[Path, ...]
    held_out: tuple[Path, ...]


@dataclass(frozen=True)
class Lost:
    """The result of a job whose packed games are gone or damaged, with the reason."""

    reason: str


@dataclass(frozen=True)
class Outcome:
    """The result of a job: its rows of the table of runs, the last of the finished run; files."""

    rows: list[dict[str, Any]]
    entry: dict[str, bytes]


def run_sweep(
    plan: Plan,
    recipe: Recipe,
    ledger: Path,
    entries: Path,
    jobs: int = 1,
    cluster: str | None = None,
    progress: Callable[[RunRow], None] = lambda row: None,
) -> list[RunRow]:
    """Train every cell that `ledger` lacks; returns the rows of the whole plan, cheapest first.

    `jobs` processes on this machine; or, with `cluster` (an address, or "auto"), as many Ray tasks
    as that has room for. Entries go to `entries`/<run id>. `progress` is told of each finished run.
    InputError when the ledger holds another run of a cell's name; NhzooError when a job fails.
    """
    done = finished_rows(plan, ledger)
    todo = [cell for cell in plan.cells if cell.run_id not in done]
    for row in done.values():
        progress(row)
    remote = on_cluster(train_cell, todo, recipe, recipe.threads, cluster) if cluster else None
    for cell, outcome in remote or _here(todo, recipe, jobs):
        for name in sorted(outcome.entry, key=lambda name: name == "config.json"):  # that last
            files.atomic_write(files.inside(entries / cell.run_id, name), outcome.entry[name])
        for number, values in enumerate(outcome.rows, 1):
            new = parse_row(values, f"{cell.run_id}, row {number}")
            assert isinstance(new, LedgerRow)
            append_row(ledger, new)  # last: a cell in the table has its entry
            if not new.checkpoint:
                done[cell.run_id] = new
                progress(new)
    return [done[cell.run_id] for cell in plan.cells]


def finished_rows(plan: Plan, ledger: Path) -> dict[str, RunRow]:
    """Of the cells of `plan` that `ledger` holds: the row of the finished run, by run id."""
    if not ledger.exists() or not ledger.stat().st_size:
        return {}
    cells = {cell.run_id: cell for cell in plan.cells}
    found: dict[str, RunRow] = {}
    for row in read_runs(ledger):
        cell = cells.get(row.run_id)
        if cell is None or (isinstance(row, LedgerRow) and row.checkpoint):
            continue
        near = abs(row.params / cell.params - 1) < 0.05
        same = row.flops_budget == cell.flops and row.seed == cell.seed
        tuned = cell.lr in (None, row.lr) and cell.batch in (None, row.batch)
        if not near or not same or not tuned:
            raise InputError(
                f"{ledger}: {row.run_id} is another run than the plan's; plan the sweep with "
                "another --prefix"
            )
        found[row.run_id] = row
    return found


def pack(recipe: Recipe) -> Games:
    """Pack the games of a recipe that are not in the cache, on `workers` processes."""
    from nhzoo.data import packing

    def split(data: str, wanted: str) -> tuple[Path, ...]:
        found = packing.pack(data, workers=recipe.workers).exportable
        games = tuple(path for path, _, split, _ in found if split == wanted)
        if not games:
            raise InputError(f"{data}: no usable game in split {wanted!r}")
        return games

    held_out = recipe.validation or recipe.data
    return Games(split(recipe.data, "train"), split(held_out, "validation"))


def train_cell(
    cell: Cell,
    recipe: Recipe,
    packed: Games | None = None,
    heartbeat: Callable[[], None] = lambda: None,
) -> Outcome:
    """The job: train one cell to its end, resuming from the state in `folder` if there is one."""
    from nhzoo.policy.checkpoint import Sampling
    from nhzoo.training.config import BCConfig
    from nhzoo.training.outputs import train_and_publish

    packed = packed or pack(recipe)
    config = BCConfig(
        data=recipe.data,
        validation=recipe.validation,
        params=cell.params,
        flops=cell.flops,
        seed=cell.seed,
        threads=recipe.threads,
        lr=cell.lr or 0.0,
        horizon=cell.horizon or 0,
        batch=cell.batch or BATCH,
    )
    folder = Path(recipe.folder) / cell.run_id
    command = (
        f"nhzoo train bc --data {recipe.data} --params {cell.params} --flops {cell.flops:g} "
        f"{f'--validation {recipe.validation} ' if recipe.validation else ''}"
        f"{f'--lr {cell.lr:g} ' if cell.lr else ''}"
        f"{f'--batch {cell.batch} ' if cell.batch else ''}"
        f"{f'--horizon {cell.horizon} ' if cell.horizon else ''}"
        f"--seed {cell.seed} --threads {recipe.threads} --temperature {recipe.temperature:g} "
        f"--run build/runs/{cell.run_id} --out agents/{cell.run_id}"
    )
    rows: list[dict[str, Any]] = []
    train_and_publish(
        config,
        list(packed.training),
        list(packed.held_out),
        folder / "run",
        folder / cell.run_id,
        Sampling(recipe.temperature),
        command,
        append=lambda row: rows.append(asdict(row)),
        progress=lambda _: heartbeat(),
    )
    paths = sorted(path for path in (folder / cell.run_id).iterdir() if path.is_file())
    return Outcome(rows, {path.name: files.read_bounded(path, _ENTRY_LIMIT) for path in paths})


class CellTask(OneByOne):
    """One cell after another, in a process of its own."""

    def __init__(self, recipe: Recipe, packed: Games) -> None:
        self._recipe, self._packed = recipe, packed

    def work(self, item: Cell) -> Outcome | Lost:
        """Train it."""
        try:
            return train_cell(item, self._recipe, self._packed, self.heartbeat)
        except (InputError, OSError) as error:
            if all(map(_is_whole, (*self._packed.training, *self._packed.held_out))):
                raise
            return Lost(str(error))


def _is_whole(path: Path) -> bool:
    from nhzoo.data.frames import GameFrames

    try:
        GameFrames(path).check()
    except InputError:
        return False
    return True


def _here(cells: Sequence[Cell], recipe: Recipe, jobs: int) -> Iterator[tuple[Cell, Outcome]]:
    losses = 0
    packed: Games | None = None
    while cells:
        before, packed = packed, pack(recipe)
        if before not in (None, packed):
            raise NhzooError(
                f"{recipe.data}: its games changed while the sweep ran, and what has begun was "
                "trained on those of before; restore them, or begin with other --runs"
            )
        again: list[Cell] = []
        for key, outcome in run_tasks(
            CellTask, (recipe, packed), enumerate(cells), jobs, hang_seconds=_SILENT_SECONDS
        ):
            assert isinstance(key, int)
            if isinstance(outcome, Lost):
                losses += 1
                if losses > _MOST_LOSSES:
                    raise NhzooError(f"{cells[key].run_id}: {outcome.reason}, again and again")
                pack(recipe)  # now: others are still reading
                again.append(cells[key])
                continue
            if isinstance(outcome, Crashed):
                hung = f"said nothing for {_SILENT_SECONDS / 3_600:g} hours"
                how = hung if outcome.exit_code is None else f"ended ({outcome.exit_code})"
                raise NhzooError(
                    f"{cells[key].run_id}: its process twice {how}; the others are in the table, "
                    "run again to resume"
                )
            losses = 0
            yield cells[key], outcome
        cells = again


def on_cluster(
    train: Callable[[Cell, _Recipe], _Result],
    cells: Sequence[Cell],
    recipe: _Recipe,
    cpus: int,
    address: str,
) -> Iterator[tuple[Cell, _Result]]:
    """Each cell with train(cell, recipe), as Ray tasks of so many CPUs; as they finish."""
    ray = connect(address)
    job = ray.remote(num_cpus=cpus, max_retries=_TRIES, retry_exceptions=False)(train)
    pending = {job.remote(cell, recipe): cell for cell in cells}
    while pending:
        # Without a limit: jobs may queue for days, and Ray says nothing of those that stand still.
        (ready,), _ = ray.wait(list(pending), num_returns=1)
        cell = pending.pop(ready)
        try:
            outcome = ray.get(ready)
        except ray.exceptions.RayError as error:
            reason = str(getattr(error, "cause", None) or error).splitlines()[0]
            raise NhzooError(
                f"{cell.run_id}: {reason}; the others are in the table, run again to resume"
            ) from None
        yield cell, outcome
