"""Which runs tighten a forecast most for their FLOPs, and what a plan would tighten it to.

A run adds information on the surface's parameters: the square of how its relative loss moves with
them, over the variance of one run (Fisher). From that follows the error that the forecast of the
optimal size and its loss would have, before any run is trained. `next_runs` adds runs one by one,
each the one that lowers the forecast's variances most for what it costs (sequential optimal design;
Chaloner and Verdinelli 1995). It holds where the surface's form does: so runs stay within the
fit's window of the optimum, at budgets that the fit has, or come as a whole profile of a new one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nhzoo.errors import InputError
from nhzoo.scaling.fitting import Fit
from nhzoo.scaling.laws import SurfaceLaw, surface_of
from nhzoo.scaling.parametric import slopes
from nhzoo.scaling.sweeps.plan import Cell, Plan, checked_prefix, reason_against, rounded, short

Array = npt.NDArray[np.float64]

TARGETS = ("both", "size", "loss")
MOST_RUNS = 12
_SAME = 0.1  # a size nearer (ln) to one that was trained is that one
_PROFILE = 5  # sizes of a new budget, in steps of 2


@dataclass(frozen=True)
class Expected:
    """Standard deviations that a forecast would have: of ln N_opt and ln L_opt at `flops`."""

    flops: float
    size: float
    loss: float


@dataclass(frozen=True)
class Score:
    """A plan judged before it is run: the forecast's errors `now`, `after` it, and by it `alone`.

    `alone` is None where its runs cannot carry a surface. `best`: after the runs that `next_runs`
    would choose for as many FLOPs and as many runs.
    """

    runs: int
    spent: float
    now: Expected
    after: Expected
    alone: Expected | None
    best: Expected


@dataclass(frozen=True)
class NextRuns:
    """The runs to add, as a plan, and the forecast's errors before and after each of them."""

    plan: Plan
    now: Expected
    after: tuple[Expected, ...]


class _Information:
    """What is known of the surface's parameters, and with it of a forecast at `target` FLOPs."""

    def __init__(self, fit: Fit, target: float) -> None:
        self.law, self.fit, self.target = _surface(fit), fit, target
        theta = self.law.estimate.theta
        low, high = np.log([0.02 * 1.001, 2.0 / 1.001])
        inside = (theta[3:] > low) & (theta[3:] < high)
        self.free = np.array([True, *np.isfinite(theta[1:3]), *inside])
        self.noise = max(self.law.noise, 1e-6)
        step = np.diag(np.full(5, 1e-4))
        self.gradients = []
        for quantity in (self.law.ln_size, self.law.ln_loss):
            ahead, back = (quantity(t, target, fit.cost) for t in (theta + step, theta - step))
            self.gradients.append((np.asarray(ahead - back) / 2e-4)[self.free])
        if not all(np.isfinite(g).all() for g in self.gradients):
            raise InputError(
                f"--target {target:.3g}: the fit's surface has no optimum there; give another"
            )

    def rows(self, params: Array, samples: Array) -> Array:
        """How the relative loss of runs moves with the parameters, over one run's error: [n, p]."""
        _, ln_a, ln_b, ln_alpha, ln_beta = self.law.estimate.theta
        n, d = np.log(params), np.log(samples)
        loss = self.law.at(params, samples)
        size = np.exp(ln_a - math.exp(ln_alpha) * n) / loss
        data = np.exp(ln_b - math.exp(ln_beta) * d) / loss
        found = slopes(1 / loss, size, data, n, d, self.law.estimate.theta)
        return np.asarray(found[:, self.free] / self.noise)

    def expected(self, covariance: Array) -> Expected:
        """The forecast's errors with parameters of that covariance."""
        size, loss = (math.sqrt(max(0.0, float(g @ covariance @ g))) for g in self.gradients)
        return Expected(self.target, size, loss)

    def inverse(self, rows: Array) -> Array:
        """The covariance that rows give; scaled, as parameters differ by orders."""
        norms = np.sqrt((rows**2).sum(0)) + 1e-300
        scaled = rows / norms
        return np.asarray(np.linalg.pinv(scaled.T @ scaled, rcond=1e-14) / np.outer(norms, norms))


def _surface(fit: Fit) -> SurfaceLaw:
    law = surface_of(fit.laws)
    if law is None:
        codes = ", ".join(sorted({d.code for d in fit.errors})) or "no method vp"
        raise InputError(
            f"the fit has no surface to plan by ({codes}); fit at least 3 budgets of 4 sizes with "
            "--methods vp,parabola"
        )
    return law


def score(plan: Plan, fit: Fit, target: float | None = None) -> Score:
    """What the runs of a plan would do for a forecast at `target` (10 times the largest budget)."""
    target = _target(fit, target)
    known = _Information(fit, target)
    have = known.rows(fit.points.params, fit.points.samples)
    params = np.array([cell.params for cell in plan.cells], np.float64)
    new = known.rows(params, np.array([cell.samples for cell in plan.cells], np.float64))
    alone = None
    enough = len(np.unique(np.round(np.log(params), 1))) >= 3 and len(set(plan.budgets)) >= 3
    if enough and len(params) > 5:
        alone = known.expected(known.inverse(new))
    chosen = next_runs(fit, plan.flops * 1.0001, target=target, runs=len(plan.cells))
    return Score(
        len(plan.cells),
        plan.flops,
        known.expected(known.inverse(have)),
        known.expected(known.inverse(np.concatenate([have, new]))),
        alone,
        chosen.after[-1],
    )


def next_runs(
    fit: Fit,
    flops: float,
    *,
    target: float | None = None,
    runs: int = MOST_RUNS,
    tighten: str = "both",
    budgets: Sequence[float] = (),
    prefix: str = "next",
) -> NextRuns:
    """Choose runs of `flops` in all, `runs` at most, that tighten a forecast at `target` most.

    `target`: by default 10 times the largest budget. `tighten`: the size, the loss or both.
    `budgets`: new budgets that may be added, as profiles of five sizes. What a run costs is the
    share of the FLOPs and of the runs that are left. InputError where no run can
    be afforded or the fit has no surface.
    """
    if not (math.isfinite(flops) and flops > 0):
        raise InputError(f"--flops {flops}: must be a number larger than zero")
    if not 1 <= runs <= 10_000:
        raise InputError(f"--runs {runs}: must be 1 to 10,000")
    if tighten not in TARGETS:
        raise InputError(f"--tighten {tighten}: give {', '.join(TARGETS)}")
    checked_prefix(prefix)
    target = _target(fit, target)
    known = _Information(fit, target)
    covariance = known.inverse(known.rows(fit.points.params, fit.points.samples))
    now = known.expected(covariance)
    labels = [budget.label for budget in fit.budgets if budget.status == "used"]
    choices = [[cell] for label in labels for cell in _cells(fit, known.law, label)]
    for new in budgets:
        if not any(abs(math.log(new / label)) < 0.05 for label in labels):
            choices.append(_cells(fit, known.law, new, profile=True))
    choices = [cells for cells in choices if cells]
    wanted = {"both": (0, 1), "size": (0,), "loss": (1,)}[tighten]
    chosen: list[Cell] = []
    after: list[Expected] = []
    left = flops
    while True:
        best, most = None, 0.0
        for cells in choices:
            cost = sum(cell.flops for cell in cells)
            if cost > left or len(chosen) + len(cells) > runs:
                continue
            tried = _with(known, covariance, cells)
            gain = sum(_gained(known.gradients[k], covariance, tried) for k in wanted)
            worth = gain / (cost / left + len(cells) / (runs - len(chosen)))
            if worth > most:
                best, most = (cells, tried), worth
        if best is None:
            break
        cells, covariance = best
        left -= sum(cell.flops for cell in cells)
        chosen += cells
        after += [known.expected(covariance)] * len(cells)
        if len(cells) > 1:  # the new budget is one of the fit's from here on
            choices = [other for other in choices if other is not cells]
            choices += [[cell] for cell in _cells(fit, known.law, cells[0].flops)]
    if not chosen:
        least = min((sum(cell.flops for cell in cells) for cells in choices), default=math.nan)
        raise InputError(
            f"--flops {flops:.3g}: pays for no run; the cheapest that would help takes {least:.3g}"
        )
    cells = _named(fit, chosen, prefix)
    places = tuple(sorted({cell.flops for cell in cells}))
    plan = Plan(
        *(prefix, f"most for a forecast at {target:.3g}", places, tuple(cells), ()),
        *(fit.cost, fit.unique_limit, None),
    )
    return NextRuns(plan, now, tuple(after))


def _target(fit: Fit, target: float | None) -> float:
    if target is None:
        return 10 * fit.largest
    if not (math.isfinite(target) and target > 0):
        raise InputError(f"--target {target}: must be a number of FLOPs larger than zero")
    return target


def _gained(gradient: Array, before: Array, after: Array) -> float:
    """The share of a variance that is gone, in logs: two runs that halve it are worth two ln 2."""
    return math.log(float(gradient @ before @ gradient) / float(gradient @ after @ gradient))


def _with(known: _Information, covariance: Array, cells: Sequence[Cell]) -> Array:
    """The covariance with some runs more."""
    params, samples = (np.array([getattr(c, n) for c in cells], np.float64) for n in _COLUMNS)
    for row in known.rows(params, samples):
        pulled = covariance @ row
        covariance = covariance - np.outer(pulled, pulled) / (1 + float(row @ pulled))
    return covariance


_COLUMNS = ("params", "samples")


def _cells(fit: Fit, law: SurfaceLaw, flops: float, profile: bool = False) -> list[Cell]:
    """Runs that a budget may get: sizes round its optimum, those trained already among them."""
    middle = float(law.ln_size(law.estimate.theta[None], flops, fit.cost)[0])
    reach = int(2 * math.log2(float(fit.options["window"])) + 1e-9)
    steps = [k * math.log(2) / 2 for k in range(-reach, reach + 1)]
    if profile:
        steps = [(k - (_PROFILE - 1) / 2) * math.log(2) for k in range(_PROFILE)]
    trained = np.unique(fit.points.params[np.abs(np.log(fit.points.budget / flops)) < 0.01])
    sizes = [rounded(math.exp(middle + float(step))) for step in steps]
    near = np.log(trained) - middle
    ours = [int(n) for n, off in zip(trained, near, strict=True) if abs(off) <= steps[-1]]
    sizes = [n for n in sizes if not any(abs(math.log(n / m)) < _SAME for m in ours)]
    found = []
    for params in [*ours, *sizes]:
        samples = float(fit.cost.samples(flops, params))
        epochs = samples / fit.unique_limit if fit.unique_limit else None
        if not reason_against(params, samples, epochs, fit.flop_model is None):
            found.append(Cell("", params, flops, int(samples), 0, epochs, None))
    return [] if profile and len(found) < _PROFILE else found


def _named(fit: Fit, cells: Sequence[Cell], prefix: str) -> list[Cell]:
    """The runs with names, and with seeds that their cells do not have yet."""
    params = np.concatenate([fit.points.params, fit.others.params])
    budgets = np.concatenate([fit.points.budget, fit.others.budget])
    taken: dict[tuple[int, float], int] = {}
    found = []
    for cell in cells:
        key = (cell.params, cell.flops)
        there = np.abs(np.log(params / cell.params)) + np.abs(np.log(budgets / cell.flops)) < 0.02
        seed = taken.setdefault(key, int(there.sum()))
        taken[key] += 1
        name = f"{prefix}-{short(cell.flops)}-{cell.params}-s{seed}"
        values = (cell.params, cell.flops, cell.samples, seed, cell.epochs, None)
        found.append(Cell(name, *values))
    return sorted(found, key=lambda cell: (cell.flops, cell.seed, cell.params))
