"""The plan of an isoFLOP sweep: budgets x sizes, centred on a law, with cost and time.

Sizes go in steps of 2 round the optimum of each budget, so that every profile is centred: on a
fixed ladder the parabola's exponent has three times the error. What cannot be trained well (data
seen more than 4 times, too few updates, sizes that are not built) is dropped, and said so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nhzoo import __version__
from nhzoo.errors import InputError
from nhzoo.runtime import files
from nhzoo.scaling.cost import Cost
from nhzoo.scaling.diagnostics import MANY_EPOCHS
from nhzoo.scaling.families.predicting import best_size
from nhzoo.scaling.fitting import Fit
from nhzoo.scaling.sweeps.rates import RateLaw
from nhzoo.training.config import peak_rate
from nhzoo.training.run_table import LedgerRow, RunRow

SCHEMA = 1
SIZES = (10_000, 500_000_000)
LEAST_UPDATES = 500
SAMPLES_PER_UPDATE = 256
BATCH = 4
"""Games in a batch by the trainer's default."""

SEEDS = 3
"""Of one cell of two budgets, which tell what seeds differ by."""
_SEEDED_BUDGETS = 2


@dataclass(frozen=True)
class Cell:
    """One run. `lr`, `batch` and `horizon` are left to the rules of training where they are None.

    `seconds` is None where the ledger has no measured speed; `epochs` None where it is not known
    how many unique samples there are.
    """

    run_id: str
    params: int
    flops: float
    samples: int
    seed: int
    epochs: float | None
    seconds: float | None
    lr: float | None = None
    batch: int | None = None
    horizon: int | None = None


@dataclass(frozen=True)
class Dropped:
    """A cell that is not trained, and why."""

    params: int
    flops: float
    reason: str


@dataclass(frozen=True)
class Plan:
    """A sweep. `cells` come cheapest first; the same options give the same plan."""

    prefix: str
    center: str
    budgets: tuple[float, ...]
    cells: tuple[Cell, ...]
    dropped: tuple[Dropped, ...]
    cost: Cost
    unique_samples: float | None
    speed: str | None
    version: str = __version__

    @property
    def flops(self) -> float:
        """Of all cells."""
        return sum(cell.flops for cell in self.cells)

    @property
    def seconds(self) -> float | None:
        """Of all cells, one after another."""
        known = [cell.seconds for cell in self.cells if cell.seconds is not None]
        return sum(known) if len(known) == len(self.cells) else None

    def as_json(self) -> dict[str, Any]:
        """The file's content."""
        value = {
            "schema": SCHEMA,
            "nhzoo": self.version,
            "prefix": self.prefix,
            "center": self.center,
            "budgets": list(self.budgets),
            "cells": [asdict(cell) for cell in self.cells],
            "dropped": [asdict(cell) for cell in self.dropped],
            "total_flops": self.flops,
            "total_seconds": self.seconds,
            "unique_samples": self.unique_samples,
            "speed": self.speed,
            "cost": self.cost.as_json(),
        }
        return files.seal(value)


def plan_sweep(
    budgets: Sequence[float],
    center: Callable[[float], float],
    cost: Cost,
    *,
    center_name: str,
    sizes: int = 7,
    step: float = 2.0,
    unique_samples: float | None = None,
    rows: Sequence[RunRow] = (),
    prefix: str = "sweep",
    rates: Sequence[float] = (),
    any_size: bool = False,
    seeds: int = SEEDS,
    laws: Sequence[RateLaw] = (),
) -> Plan:
    """Plan `sizes` sizes, a factor `step` apart, around center(flops) at each budget.

    `rows`: a ledger, for the speed of its latest machine. `rates`: each cell is trained at so many
    times the learning rate of the rule for its size. `laws`: of the best learning rate, batch or
    horizon, which each cell gets. `any_size`: they are not nhzoo's networks, so
    its limits of sizes and updates do not count. The most central cell of the lowest
    and of the middle budget gets so many `seeds`. InputError when no cell is left.
    """
    budgets = sorted(set(budgets))
    if not budgets or not all(math.isfinite(c) and c > 0 for c in budgets):
        raise InputError("--budgets: give FLOPs larger than zero")
    if not (1 <= sizes <= 99 and 1.05 <= step <= 100):
        raise InputError("--sizes must be 1 to 99 and --step 1.05 to 100")
    if not 1 <= seeds <= 99:
        raise InputError(f"--seeds {seeds}: must be 1 to 99")
    checked_prefix(prefix)
    if not all(math.isfinite(rate) and 0 < rate <= 1_000 for rate in rates):
        raise InputError("--rates: give factors of the rule's learning rate, such as 0.5,1,2")
    rate, speed = _speed(rows)
    seeded = {budgets[0], budgets[len(budgets) // 2]} if len(budgets) >= _SEEDED_BUDGETS else set()
    cells: list[Cell] = []
    dropped: list[Dropped] = []
    for flops in budgets:
        middle, kept = center(flops), []
        if not (math.isfinite(middle) and 0 < middle < 1e18):
            raise InputError(f"--center {center_name}: gives no size at {flops:.3g} FLOPs")
        for i in range(sizes):
            params = rounded(middle * step ** (i - (sizes - 1) / 2))
            samples = float(cost.samples(flops, max(1, params)))
            epochs = None if unique_samples is None else samples / unique_samples
            reason = reason_against(params, samples, epochs, any_size)
            if reason:
                dropped.append(Dropped(params, flops, reason))
                continue
            name = f"{prefix}-{short(flops)}-{params}-s0"
            seconds = flops / rate(params) if rate else None
            cell = Cell(name, params, flops, int(samples), 0, epochs, seconds)
            kept.append(_tuned(cell, laws))
        cells += _at_rates(kept, rates)
        if kept and flops in seeded:
            central = min(kept, key=lambda cell: abs(math.log(cell.params / middle)))
            for seed in range(1, seeds):
                again = replace(central, run_id=f"{central.run_id[:-1]}{seed}", seed=seed)
                cells += _at_rates([again], rates)
    if not cells:
        reasons = "; ".join(sorted({cell.reason for cell in dropped}))
        raise InputError(f"no cell of the sweep can be trained: {reasons}")
    return Plan(
        prefix,
        center_name,
        tuple(budgets),
        tuple(sorted(cells, key=lambda cell: (cell.flops, cell.seed, cell.params, cell.lr or 0))),
        tuple(dropped),
        cost,
        unique_samples,
        speed,
    )


def _tuned(cell: Cell, laws: Sequence[RateLaw]) -> Cell:
    """The cell with what laws say is best for it; a horizon is no longer than the run."""
    if len({law.column for law in laws}) < len(laws):
        raise InputError("--optimum: two laws are of the same column; give one of each")
    found: dict[str, float] = {}
    for law in laws:
        said = law.rate(cell.params, cell.samples)
        if said is None:
            raise InputError(f"--optimum {law.source}: the law says nothing of {cell.run_id}")
        found[law.column] = said.value
    lr = found.get("lr")
    batch = max(1, round(found["batch"])) if "batch" in found else None
    most = cell.samples // (batch or BATCH)
    horizon = max(1, min(round(found["horizon"]), most)) if "horizon" in found else None
    return replace(cell, lr=lr and float(f"{lr:.3g}"), batch=batch, horizon=horizon)


def _at_rates(cells: Sequence[Cell], rates: Sequence[float]) -> list[Cell]:
    """Each cell at so many times the rate of the rule; by the rule itself where there are none."""
    if not rates:
        return list(cells)
    return [
        replace(
            cell,
            run_id=f"{cell.run_id}-lr{rate:g}",
            lr=float(f"{(cell.lr or peak_rate(cell.params)) * rate:.3g}"),
        )
        for cell in cells
        for rate in rates
    ]


def center_of_fit(fit: Fit) -> Callable[[float], float]:
    """The optimal size that a fit gives at a budget; nan where it gives none."""
    return lambda flops: best_size(fit.laws, flops, fit.cost)


def center_of_text(text: str) -> Callable[[float], float]:
    """A stated centre: "100000@1e12" or "100000@1e12^0.5" (params, FLOPs, exponent, 0.5)."""
    try:
        params, _, rest = text.partition("@")
        flops, _, exponent = rest.partition("^")
        n, c, a = float(params), float(flops), float(exponent or 0.5)
    except ValueError:
        n = c = a = math.nan
    if not (0 < n < math.inf and 0 < c < math.inf and -5 < a < 5):
        raise InputError(
            f"--center {text}: give a fit's file, or PARAMS@FLOPS^EXPONENT: 100000@1e12^0.5"
        )
    return lambda at: float(np.exp(min(700.0, math.log(n) + a * math.log(at / c))))


def parse_budgets(text: str, option: str = "--budgets") -> list[float]:
    """A list, 1e12,3e12,1e13, or a range, 1e12:1e14:5: five, evenly spaced in logs."""
    try:
        if ":" in text:
            low, high, count = text.split(":")
            places = int(count)
            if not (0 < float(low) <= float(high) < math.inf and 1 <= places <= 99):
                raise ValueError
            return [float(f"{c:.3g}") for c in np.geomspace(float(low), float(high), places)]
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} {text}: give 1e12,3e12,1e13 or 1e12:1e14:5") from None


def parse_rates(text: str) -> list[float]:
    """Factors of the learning rate, 0.5,1,2; "" is none."""
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise InputError(f"--rates {text}: give factors, such as 0.5,1,2") from None


def checked_prefix(prefix: str) -> None:
    """InputError for what cannot begin the name of a run."""
    if not files.is_plain_name(prefix, 64):
        raise InputError(f"--prefix {prefix!r}: letters, digits, '.', '_' and '-' only")


def write_plan(path: Path, plan: Plan) -> None:
    """Write a plan to its file, atomically."""
    files.atomic_write(path, files.dump_json(plan.as_json()))


def read_plan(path: Path) -> Plan:
    """Read a plan from its file; InputError if it is damaged or was changed by hand."""
    plan = files.read_sealed(
        path, 16 * files.MEGABYTE, SCHEMA, _plan_of, "a plan", "nhzoo sweep plan"
    )
    names = [cell.run_id for cell in plan.cells]
    if len(set(names)) != len(names) or not all(files.is_plain_name(name) for name in names):
        raise InputError(f"{path}: its run ids are not plain and distinct names")
    return plan


def _plan_of(value: dict[str, Any]) -> Plan:
    return Plan(
        str(value["prefix"]),
        str(value["center"]),
        tuple(float(c) for c in value["budgets"]),
        tuple(_cell(cell) for cell in value["cells"]),
        tuple(Dropped(**cell) for cell in value["dropped"]),
        Cost.from_json(value["cost"]),
        value["unique_samples"],
        value["speed"],
        str(value["nhzoo"]),
    )


def _cell(values: dict[str, Any]) -> Cell:
    """A cell of a file, which may have been made by anybody."""
    cell = Cell(**values)
    whole = (cell.params, cell.seed)
    if not all(isinstance(n, int) and 0 <= n < 1 << 30 for n in whole) or not (
        isinstance(cell.run_id, str) and isinstance(cell.flops, float) and cell.flops > 0
    ):
        raise ValueError(f"the cell {str(cell.run_id)[:64]!r} has no usable size, FLOPs or seed")
    for given in (cell.batch, cell.horizon):
        if given is not None and not (isinstance(given, int) and 0 < given < 1 << 30):
            raise ValueError(f"the cell {cell.run_id[:64]!r} has no usable batch or horizon")
    if cell.lr is not None and not (isinstance(cell.lr, float) and 0 < cell.lr < math.inf):
        raise ValueError(f"the cell {cell.run_id[:64]!r} has no usable learning rate")
    return cell


def reason_against(params: int, samples: float, epochs: float | None, any_size: bool) -> str:
    """Why a cell is not trained; "" for one that is."""
    if params < 1 or samples < 1:
        return "the budget buys less than one parameter or sample; give a larger one"
    if not any_size and not SIZES[0] <= params <= SIZES[1]:
        return (
            f"nhzoo's networks have {SIZES[0]:,} to {SIZES[1]:,} parameters; choose other budgets, "
            "or --cost k for a trainer of your own"
        )
    if epochs is not None and epochs > MANY_EPOCHS:
        return (
            f"data would be seen {epochs:.1f} times, {MANY_EPOCHS:g} is the most; record more data "
            "or take smaller budgets"
        )
    if not any_size and samples < LEAST_UPDATES * SAMPLES_PER_UPDATE:
        return (
            f"fewer than {LEAST_UPDATES} updates of {SAMPLES_PER_UPDATE} samples; take larger "
            "budgets or smaller sizes"
        )
    return ""


def rounded(value: float) -> int:
    """A size in three digits."""
    power: int = 10 ** max(0, math.floor(math.log10(max(value, 1))) - 2)
    return round(value / power) * power


def short(flops: float) -> str:
    """1e12, 3.16e13: fit for a name."""
    mantissa, _, exponent = f"{flops:.2e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _speed(rows: Sequence[RunRow]) -> tuple[Callable[[int], float] | None, str | None]:
    """FLOPs a second of a size on the machine of the ledger's last row, and what it rests on."""
    ours = [r for r in rows if isinstance(r, LedgerRow) and r.seconds > 0 and not r.checkpoint]
    if not ours:
        return None, None
    last = ours[-1]
    machine = (last.cpu, last.device, last.precision, last.threads, last.world_size)
    same = [r for r in ours if (r.cpu, r.device, r.precision, r.threads, r.world_size) == machine]
    same = [r for r in same if r.flop_model_hash == last.flop_model_hash]
    x = np.log([r.params for r in same])
    y = np.log([r.flops / r.seconds for r in same])
    slope = 0.0
    if len(same) >= 3 and np.ptp(x) > math.log(4):
        slope = float(np.clip(np.polyfit(x, y, 1)[0], 0.0, 1.0))
    level = float(np.median(y - slope * x))
    text = f"{len(same)} runs on {last.cpu} ({last.device}, {last.threads} threads each)"
    # Beyond the sizes measured the speed stays what it was at the end of them.
    low, high = float(x.min()), float(x.max())
    return lambda n: math.exp(level + slope * min(max(math.log(n), low), high)), text
