"""Cells that are anybody's commands: each trains one network and writes one row of the table.

A command is split into words as a shell would do it and run without one. In its words {params},
{samples}, {flops}, {seed}, {lr}, {batch}, {horizon} and {run_id} are what the plan asks for, {row}
is the file that the row is to be written to, as JSON, and {folder} one that stays for this run: a
command that is killed is started again and may resume from what it has left there. A row needs a
loss; size, samples and FLOPs are the plan's where it does not say otherwise.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nhzoo.errors import InputError, NhzooError
from nhzoo.runtime import files
from nhzoo.runtime.pool import Crashed, OneByOne, run_tasks
from nhzoo.scaling.forecasting import Forecast
from nhzoo.scaling.sweeps.plan import Cell, Plan
from nhzoo.scaling.sweeps.running import finished_rows, on_cluster
from nhzoo.training.run_table import RunRow, append_row, parse_row

_TRIES = 3  # of a command that is killed
_LOOK_SECONDS = 1.0
_SAID = 2_000  # bytes at the end of a log that its last line is looked for in
_PLACES = (
    *("run_id", "params", "samples", "flops", "seed"),
    *("lr", "batch", "horizon", "row", "folder"),
)
# The command ends with the process that waits for it, whatever ends that.
_START = (
    "import os, sys; from nhzoo.runtime.processes import end_with; end_with(int(sys.argv[1])); "
    "os.execvp(sys.argv[2], sys.argv[2:])"
)


@dataclass(frozen=True)
class Command:
    """A command line with places to fill in; `folder`: where the runs have theirs."""

    text: str
    folder: str

    def __post_init__(self) -> None:
        words = self.words(Cell("run", 1, 1.0, 1, 0, None, None))
        if f"{Path(self.folder) / 'run' / 'row.json'}" not in " ".join(words):
            raise InputError(
                f"--command {self.text}: says nowhere that it is to write its row to {{row}}"
            )
        if shutil.which(words[0]) is None:
            raise InputError(f"--command {self.text}: there is no command {words[0]!r} here")

    def words(self, cell: Cell) -> list[str]:
        """The words of the command line of a cell."""
        folder = Path(self.folder) / cell.run_id
        values: dict[str, Any] = {name: getattr(cell, name, None) for name in _PLACES}
        values |= {name: getattr(cell, name) or 0 for name in ("lr", "batch", "horizon")}
        values |= {"row": folder / "row.json", "folder": folder}
        try:
            words = [word.format(**values) for word in shlex.split(self.text)]
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            places = ", ".join(f"{{{name}}}" for name in _PLACES)
            raise InputError(
                f"--command {self.text}: cannot be filled in ({error}); it may hold {places}; "
                "write other braces twice"
            ) from None
        if not words:
            raise InputError("--command: is empty")
        return words


def run_commands(
    plan: Plan,
    command: Command,
    ledger: Path,
    jobs: int = 1,
    cluster: str | None = None,
    progress: Callable[[RunRow], None] = lambda row: None,
) -> list[RunRow]:
    """Run the command of every cell that `ledger` lacks; the rows of the whole plan.

    `jobs` at a time on this machine, or as many as a Ray cluster has room for. A command that is
    killed is tried again; NhzooError when one fails, with the last line that it said.
    """
    done = finished_rows(plan, ledger)
    todo = [cell for cell in plan.cells if cell.run_id not in done]
    for row in done.values():
        progress(row)
    found = on_cluster(run_cell, todo, command, 1, cluster) if cluster else None
    for cell, values in found or _here(todo, command, jobs):
        row = _row(cell, values)
        append_row(ledger, row)
        done[cell.run_id] = row
        progress(row)
    return [done[cell.run_id] for cell in plan.cells]


def run_cell(
    cell: Cell, command: Command, heartbeat: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Run the command of one cell to its end, unless it was before; the row that it wrote."""
    words = command.words(cell)
    folder = Path(command.folder) / cell.run_id
    row, log = folder / "row.json", folder / "command.log"
    folder.mkdir(parents=True, exist_ok=True)
    tries = 0
    while not row.exists():
        tries += 1
        with open(log, "ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-c", _START, str(os.getpid()), *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
            code = _wait(process, heartbeat)
        if code == 0 and not row.exists():
            raise NhzooError(f"{cell.run_id}: its command has ended and written no {row}")
        if code > 0 or (code < 0 and tries == _TRIES):
            how = f"exit code {code}" if code > 0 else f"killed {tries} times, signal {-code}"
            raise NhzooError(f"{cell.run_id}: its command failed ({how}): {_last(log)}; see {log}")
    return files.read_json(row, files.MEGABYTE)


def run_next(forecast: Forecast, command: Command, run_id: str, seed: int = 0) -> RunRow:
    """Train with a command what a forecast names; the row of the table of runs."""
    size, samples = forecast.params, round(forecast.samples)
    cell = Cell(run_id, size, forecast.flops, samples, seed, None, None)
    return _row(cell, run_cell(cell, command))


class CommandTask(OneByOne):
    """One command after another, each watched by a process of its own."""

    def __init__(self, command: Command) -> None:
        self._command = command

    def work(self, item: Cell) -> dict[str, Any]:
        """The row that it wrote."""
        return run_cell(item, self._command, self.heartbeat)


def _here(
    cells: Sequence[Cell], command: Command, jobs: int
) -> Iterator[tuple[Cell, dict[str, Any]]]:
    for key, values in run_tasks(CommandTask, (command,), enumerate(cells), jobs):
        assert isinstance(key, int)
        if isinstance(values, Crashed):
            raise NhzooError(f"{cells[key].run_id}: its process ended twice; run again to resume")
        yield cells[key], values


def _wait(process: subprocess.Popen[bytes], heartbeat: Callable[[], None]) -> int:
    while True:
        try:
            return process.wait(_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            heartbeat()


def _row(cell: Cell, values: dict[str, Any]) -> RunRow:
    """The row of the table: what the command wrote, and which cell it is."""
    given = {name: value for name, value in values.items() if name != "schema_version"}
    asked = {"params": cell.params, "samples": cell.samples, "flops": cell.flops}
    asked |= {name: getattr(cell, name) for name in ("lr", "batch", "horizon")}
    own = {"run_id": cell.run_id, "flops_budget": cell.flops, "seed": cell.seed}
    row = parse_row(asked | given | own, f"{cell.run_id}: its row")
    if abs(row.params / cell.params - 1) >= 0.05:
        raise InputError(
            f"{cell.run_id}: its row says {row.params:,} parameters, the plan {cell.params:,}"
        )
    return row


def _last(log: Path) -> str:
    """The last line that a command said."""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - _SAID))
        lines = file.read().decode(errors="replace").split("\n")
    shown = [line for line in map(str.strip, lines) if line]
    return shown[-1][:200] if shown else "it said nothing"
