"""Selection of the rows that a law is fitted to: budgets, duplicates, the window.

Everything is float64: 6 x params x samples leaves int64 above 9.2e18.

Diagnostics say what is wrong with a table of runs or with what was fitted to it, by name.
Codes are stable: scripts may look for them. `error` means that what is named cannot be trusted (its
budget was left out, or its law not fitted), `warning` that it is worth less than it looks, `note`
that a reader should know. The rules of each code are where it is raised.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nhzoo.errors import InputError
from nhzoo.training.run_table import LedgerRow, RunRow

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Diagnostic:
    """One finding: what, how bad, where, the figure that it rests on, and what to do."""

    code: str
    level: Level
    where: str
    value: float | None
    message: str
    remedy: str

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"{self.level}: {self.code}{place}: {self.message}; {self.remedy}"


Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Points:
    """Columns of n rows, [n] float64 each, NaN where a row has no value.

    `budget` is the nominal compute that groups rows, `flops` what was really spent, `row` the row's
    number in the table (the first is 1).
    """

    run: tuple[str, ...]
    row: Array
    params: Array
    samples: Array
    flops: Array
    budget: Array
    loss: Array
    loss_se: Array
    mean_return: Array
    se_return: Array
    unique: Array
    lr: Array
    seed: Array
    horizon: Array

    def __len__(self) -> int:
        return len(self.run)

    def take(self, index: Mask | npt.NDArray[np.intp]) -> Points:
        """The rows that a mask or a list of positions names."""
        places = np.flatnonzero(index) if index.dtype == bool else index
        columns = {f.name: getattr(self, f.name)[places] for f in fields(self) if f.name != "run"}
        return Points(run=tuple(self.run[int(i)] for i in places), **columns)

    @property
    def clusters(self) -> npt.NDArray[np.intp]:
        """Which rows are of one run: [n], numbers from 0."""
        return np.unique(np.array(self.run), return_inverse=True)[1]

    def as_json(self) -> dict[str, list[Any]]:
        """The columns as JSON lists, null where a row has no value."""
        result: dict[str, list[Any]] = {"run": list(self.run)}
        for field in fields(self):
            if field.name != "run":
                column = getattr(self, field.name).tolist()
                result[field.name] = [None if math.isnan(x) else x for x in column]
        return result

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Points:
        """The inverse; KeyError, TypeError or ValueError for what is none."""
        value = {"horizon": [None] * len(value["run"])} | value  # fits of before have none
        columns = {f.name: floats(value[f.name]) for f in fields(cls) if f.name != "run"}
        points = cls(run=tuple(str(run) for run in value["run"]), **columns)
        if any(len(column) != len(points) for column in columns.values()):
            raise ValueError("columns of unequal length")
        return points


def floats(values: Sequence[Any]) -> Array:
    """A float64 array of JSON numbers, NaN for null."""
    return np.array([math.nan if x is None else float(x) for x in values], np.float64)


Duplicates = Literal["auto", "all", "best"]
Metric = Literal["loss", "return"]

WINDOW = 8.0
LEAST_SIZES = 4

_SAME_SIZE = 0.01  # sizes nearer than that (ln) are one
_SAME_BUDGET = 0.05  # FLOPs nearer than that (ln) are one budget where none is named
_STREAMS_BEFORE = 512  # of runs of our trainer whose rows name no horizon
_SPENT = 0.05  # FLOPs may differ so much from their budget before that is said


@dataclass(frozen=True)
class Budget:
    """One isoFLOP profile: its label, what became of it, and the rows that are fitted.

    `flops` is the geometric mean of what the fitted rows spent. `status`: used, edge_optimum or
    too_few_sizes.
    """

    label: float
    flops: float
    sizes: int
    status: str
    best_params: float
    best_loss: float
    low_params: float
    high_params: float


@dataclass(frozen=True)
class Selection:
    """The rows to fit (`points`), every row read (`all_points`), the budgets, and the reasons.

    `profiles` is False for a table that has no isoFLOP profiles: all its rows are fitted then, and
    methods that need profiles do not apply.
    """

    points: Points
    all_points: Points
    budgets: tuple[Budget, ...]
    profiles: bool
    flop_models: tuple[str, ...]
    kinds: tuple[str, ...]
    diagnostics: tuple[Diagnostic, ...]

    @property
    def used(self) -> tuple[Budget, ...]:
        """The budgets whose rows are fitted."""
        return tuple(budget for budget in self.budgets if budget.status == "used")


def select(
    rows: Sequence[RunRow],
    *,
    window: float = WINDOW,
    duplicates: Duplicates = "auto",
    only: str = "*",
    flop_model: str | None = None,
    checkpoints: bool = False,
    metric: Metric = "loss",
    where: str = "the table",
) -> Selection:
    """Choose the rows to fit.

    Rows: run_id matches the pattern `only`; FLOPs counted by `flop_model` (a hash) if given;
    moments of our trainer's runs before their end only with `checkpoints`, but for kind rl, whose
    rate does not fall. Of each budget: sizes
    within a factor `window` of its best, at least four, the best not the smallest or the largest
    (Porian et al. 2024, arXiv 2406.19146, drop these budgets as well). Duplicates, rows of one size
    and budget: `auto` keeps the learning rate that does best and of it every seed, one row a seed;
    `best` the lowest loss; `all` all. A table without profiles is fitted whole.
    `metric` return: what is fitted as loss is 1 / mean_return, of rows that have one above 0.
    """
    found: list[Diagnostic] = []
    if not (math.isfinite(window) and window > 1):
        raise InputError(f"--window {window}: must be larger than 1")
    chosen = [(n, r) for n, r in enumerate(rows, 1) if fnmatchcase(r.run_id, only)]
    if not chosen:
        raise InputError(f"{where}: no run_id is like {only!r}; mend --only")
    if flop_model is not None:
        models = Counter(row.flop_model_hash or "none" for _, row in chosen)
        chosen = [(n, r) for n, r in chosen if (r.flop_model_hash or "none") == flop_model]
        if not chosen:
            raise InputError(
                f"{where}: no row has flop_model_hash {flop_model!r}; there are {_counts(models)}"
            )
    late = [(n, r) for n, r in chosen if not _early(r)]
    if not checkpoints and late and len(late) < len(chosen):
        found.append(
            Diagnostic(
                "checkpoints_left_out",
                "note",
                "",
                len(chosen) - len(late),
                f"{len(chosen) - len(late)} rows were measured before their run's learning rate "
                "had fallen, and are left out",
                "--checkpoints takes them in",
            )
        )
        chosen = late
    models = Counter(row.flop_model_hash or "none" for _, row in chosen)
    if len(models) > 1:
        found.append(
            Diagnostic(
                "flop_model_changed",
                "error",
                "column flop_model_hash",
                len(models),
                f"FLOPs were counted in {len(models)} ways ({_counts(models)}), which do not "
                "compare",
                "choose one with --flop-model",
            )
        )
    kinds = Counter(row.kind or "bc" for _, row in chosen)
    if len(kinds) > 1:
        found.append(
            Diagnostic(
                "kinds_mixed",
                "error",
                "column kind",
                len(kinds),
                f"cloned and reinforcement-learnt runs in one table ({_counts(kinds)})",
                "fit one kind at a time",
            )
        )
    starts = Counter((r.start or "scratch") if isinstance(r, LedgerRow) else "" for _, r in chosen)
    if "rl" in kinds and len(starts) > 1 and "scratch" in starts:
        found.append(
            Diagnostic(
                "starts_mixed",
                "error",
                "column start",
                len(starts),
                f"runs from scratch and from entries in one table ({_counts(starts)}), whose laws "
                "differ",
                "fit them side by side: --only 'impala-*' and --only 'ks-*'",
            )
        )
    if metric == "return":
        scored = [(n, r) for n, r in chosen if r.mean_return is not None and r.mean_return > 0]
        if not scored:
            raise InputError(f"{where}, column mean_return: no row has one above 0")
        chosen = [(n, replace(r, loss=1 / (r.mean_return or 1.0), loss_se=None)) for n, r in scored]
    chosen, without = _with_loss(chosen, where)
    found += without
    points = _points(chosen, where)
    points, label_notes = _with_budgets(points)
    found += label_notes
    budgets, mask = _windows(points, window)
    in_profiles = sum(b.sizes >= LEAST_SIZES for b in budgets)
    named = any(row.flops_budget is not None for _, row in chosen)
    profiles = named or in_profiles * 2 > len(budgets)
    kept, duplicate_notes = _without_duplicates(points, duplicates if profiles else "all")
    found += duplicate_notes
    if len(kept) < len(points):
        budgets, mask = _windows(kept, window)
    if profiles:
        found += [_budget_diagnostic(b) for b in budgets if b.status != "used"]
    else:
        found.append(
            Diagnostic(
                "no_profiles",
                "warning",
                "column flops_budget",
                len(budgets),
                "the rows are not grouped by compute, so only the surface can be fitted, to all",
                "plan runs at equal FLOPs with nhzoo sweep plan, and name their flops_budget",
            )
        )
    return Selection(
        points=kept.take(mask) if profiles else kept,
        all_points=points,
        budgets=budgets if profiles else (),
        profiles=profiles,
        flop_models=tuple(sorted(models)),
        kinds=tuple(sorted(kinds)),
        diagnostics=tuple(found),
    )


def _with_loss(
    rows: Sequence[tuple[int, RunRow]], where: str
) -> tuple[list[tuple[int, RunRow]], list[Diagnostic]]:
    """Without the runs that learnt by playing and had no score yet."""
    kept = [(n, row) for n, row in rows if row.loss is not None]
    if not kept:
        raise InputError(f"{where}, column loss: no row has one; train until games have ended")
    if len(kept) == len(rows):
        return kept, []
    return kept, [
        Diagnostic(
            "no_loss",
            "note",
            "column loss",
            len(rows) - len(kept),
            f"{len(rows) - len(kept)} rows have no loss, as no game of theirs had ended with a "
            "score, and are left out",
            "train longer",
        )
    ]


def _early(row: RunRow) -> bool:
    """Measured before the end of a schedule that decides what a run comes to."""
    return isinstance(row, LedgerRow) and row.checkpoint and row.kind != "rl"


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in sorted(counter.items()))


def _points(rows: Sequence[tuple[int, RunRow]], where: str) -> Points:
    """Rows as columns; InputError names the row whose values make no sense in a law."""
    for number, row in rows:
        place = f"{where}, row {number}"
        if row.loss is None or row.loss <= 0:
            raise InputError(f"{place}, column loss: must be larger than zero, is {row.loss!r}")
        for name in ("flops_budget", "loss_se", "se_return", "unique_samples"):
            value = getattr(row, name)
            if value is not None and value < 0:
                raise InputError(f"{place}, column {name}: must not be negative, is {value!r}")

    def column(name: str) -> Array:
        values = [getattr(row, name) for _, row in rows]
        return np.array([math.nan if v is None else float(v) for v in values], np.float64)

    budget = column("flops_budget")
    budget[budget == 0] = math.nan
    return Points(
        run=tuple(row.run_id for _, row in rows),
        row=np.array([number for number, _ in rows], np.float64),
        budget=budget,
        unique=column("unique_samples"),
        horizon=np.array([_horizon(row) for _, row in rows], np.float64),
        **{
            name: column(name)
            for name in (
                *("params", "samples", "flops", "loss", "loss_se", "mean_return", "se_return"),
                *("lr", "seed"),
            )
        },
    )


def _horizon(row: RunRow) -> float:
    """Steps that state was carried; NaN where it is not known."""
    if row.horizon is not None:
        return float(row.horizon)
    ours = isinstance(row, LedgerRow) and row.kind == "bc"
    return row.samples / _STREAMS_BEFORE if ours else math.nan


def _with_budgets(points: Points) -> tuple[Points, list[Diagnostic]]:
    """Name the budget of rows that name none: one that is near, or that of their neighbours."""
    budget = points.budget.copy()
    named = np.isfinite(budget)
    labels = np.unique(budget[np.isfinite(budget)])
    missing = np.isnan(budget)
    if len(labels):
        distance = np.abs(np.log(points.flops[missing, None] / labels))
        nearest = distance.argmin(1)
        near = distance.min(1) <= _SAME_BUDGET
        budget[np.flatnonzero(missing)[near]] = labels[nearest[near]]
    rest = np.flatnonzero(np.isnan(budget))
    start = -math.inf
    group: list[int] = []
    for i in [*rest[np.argsort(points.flops[rest])], -1]:
        if i >= 0 and math.log(points.flops[i]) - start <= 2 * _SAME_BUDGET:
            group.append(int(i))
            continue
        if group:
            budget[group] = float(f"{np.exp(np.log(points.flops[group]).mean()):.3g}")
        if i >= 0:
            group, start = [int(i)], math.log(points.flops[i])
    found = []
    off = np.where(named, np.abs(points.flops / budget - 1), 0.0)
    if (off > _SPENT).any():
        worst = int(off.argmax())
        found.append(
            Diagnostic(
                "flops_mismatch",
                "warning",
                f"row {int(points.row[worst])}",
                float(points.flops[worst] / budget[worst]),
                f"{int((off > _SPENT).sum())} rows spent more than 5 % more or less than their "
                f"flops_budget, at worst x{points.flops[worst] / budget[worst]:.2f}",
                "fits use what was spent; train to the budget itself",
            )
        )
    return replace(points, budget=budget), found


def _groups(points: Points) -> list[npt.NDArray[np.intp]]:
    """Positions of the rows of each size and budget."""
    order = np.lexsort((points.params, points.budget))
    same = (np.diff(points.budget[order]) == 0) & (
        np.diff(np.log(points.params[order])) <= _SAME_SIZE
    )
    return np.split(order, np.flatnonzero(~same) + 1)


def _without_duplicates(points: Points, how: Duplicates) -> tuple[Points, list[Diagnostic]]:
    keep = np.ones(len(points), bool)
    exact: set[tuple[object, ...]] = set()
    columns = (points.run, points.params, points.samples, points.flops, points.loss)
    for i, key in enumerate(zip(*columns, strict=True)):
        keep[i] = key not in exact
        exact.add(key)
    same = int((~keep).sum())
    found = []
    if same:
        found.append(
            Diagnostic(
                "exact_duplicate",
                "warning",
                f"row {int(points.row[~keep][0])}",
                same,
                f"{same} rows repeat another row",
                "they are left out; remove them from the table",
            )
        )
    points = points.take(keep)
    if how == "all":
        return points, found
    keep = np.zeros(len(points), bool)
    for group in _groups(points):
        loss = points.loss[group]
        if how == "best":
            keep[group[loss.argmin()]] = True
            continue
        rates = np.nan_to_num(points.lr[group], nan=-1.0)
        means = {rate: loss[rates == rate].mean() for rate in np.unique(rates)}
        group = group[rates == min(means, key=lambda rate: means[rate])]
        seeds = points.seed[group]
        for seed in np.unique(seeds):
            rows = group[(seeds == seed) | (np.isnan(seeds) & np.isnan(seed))]
            keep[rows[points.loss[rows].argmin()]] = True
    left_out = int((~keep).sum())
    if left_out:
        found.append(
            Diagnostic(
                "duplicates",
                "note",
                f"row {int(points.row[~keep][0])}",
                left_out,
                f"{left_out} rows have the size and budget of another and a worse learning rate "
                "or a higher loss, and are left out",
                "--duplicates all keeps them",
            )
        )
    return points.take(keep), found


def _windows(points: Points, window: float) -> tuple[tuple[Budget, ...], Mask]:
    mask = np.zeros(len(points), bool)
    budgets = []
    groups = _groups(points)
    for label in np.unique(points.budget):
        mine = [group for group in groups if points.budget[group[0]] == label]
        size = np.array([np.exp(np.log(points.params[g]).mean()) for g in mine])
        loss = np.array([points.loss[g].mean() for g in mine])
        best = int(loss.argmin())
        inside = np.abs(np.log(size / size[best])) <= math.log(window) + _SAME_SIZE
        rows = np.concatenate([g for g, i in zip(mine, inside, strict=True) if i])
        status = "used"
        if len(mine) >= 3 and best in (0, len(mine) - 1):
            status = "edge_optimum"
        elif inside.sum() < LEAST_SIZES:
            status = "too_few_sizes"
        if status == "used":
            mask[rows] = True
        budgets.append(
            Budget(
                label=float(label),
                flops=float(np.exp(np.log(points.flops[rows]).mean())),
                sizes=int(inside.sum()),
                status=status,
                best_params=float(size[best]),
                best_loss=float(loss[best]),
                low_params=float(size[inside].min()),
                high_params=float(size[inside].max()),
            )
        )
    return tuple(budgets), mask


def _budget_diagnostic(budget: Budget) -> Diagnostic:
    where = f"budget {budget.label:.4g}"
    if budget.status == "edge_optimum":
        end = "smallest" if budget.best_params <= budget.low_params else "largest"
        return Diagnostic(
            "edge_optimum",
            "error",
            where,
            budget.best_params,
            f"the {end} size, {budget.best_params:,.0f}, is the best, so where the optimum lies is "
            "not known; the budget is left out",
            f"add {'smaller' if end == 'smallest' else 'larger'} sizes at this budget",
        )
    return Diagnostic(
        "too_few_sizes",
        "error",
        where,
        budget.sizes,
        f"{budget.sizes} sizes in the window, {LEAST_SIZES} are the least; the budget is left out",
        "add sizes within a factor of 8 of the best, in steps of 2",
    )
