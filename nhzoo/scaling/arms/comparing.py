"""Laws of several arms (methods, data sets, networks) side by side, at budgets of one's choice.

Each arm has a surface of its own. Runs of two arms are paired where their size, budget and seed
are the same: what such runs share (the order of the data, the games they are measured on) makes
their residuals alike and cancels in the difference. How alike they are is estimated (Zellner 1962,
seemingly unrelated regressions), so unpaired runs, or pairs that share nothing, cost nothing.

The compute-equivalent gain of an arm is the factor by which the baseline's budget must grow to
reach the arm's loss. Its interval is that of Fieller (1954): every factor at which the two losses
do not differ by more than their difference is uncertain; it has no end where the baseline's floor
may lie above the arm's loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from nhzoo import __version__
from nhzoo.errors import InputError
from nhzoo.runtime import files
from nhzoo.scaling import intervals
from nhzoo.scaling.cost import Cost, from_rows
from nhzoo.scaling.intervals import LawInterval
from nhzoo.scaling.laws import FrontierLaw, LossLaw, SurfaceLaw, fit_laws, surface_of
from nhzoo.scaling.parametric import Surface, influence
from nhzoo.scaling.runs import Points, select
from nhzoo.training.run_table import RunRow

Array = npt.NDArray[np.float64]

SCHEMA = 1
MOST_ARMS = 20
_SAME_SIZE = 0.05  # sizes of two arms nearer than that (ln) are one
_LEAST_PAIRS = 5  # for a correlation
_DRAWS = 20_000
_FARTHEST = 1e6  # gains beyond have no end
_FACTORS = np.linspace(-math.log(_FARTHEST), math.log(_FARTHEST), 121)
"""Logs of the factors of the baseline's budget among which a gain is looked for."""


@dataclass(frozen=True)
class Arm:
    """One arm: the rows fitted, its surface, and how its parameters move with each row's error.

    `pull` [5, n] and `variance` (of a row's relative error): see `parametric.influence`.
    """

    name: str
    points: Points
    surface: Surface
    law: SurfaceLaw
    frontier: FrontierLaw | None
    cost: Cost
    pull: Array
    variance: float

    def ln_loss(self, flops: float) -> tuple[float, Array]:
        """Log L at the optimum of a budget, and its slope in the surface's parameters [5]."""
        theta, cost = self.law.estimate.theta, self.cost
        deviation = np.sqrt(np.maximum(np.diag(self.surface.covariance), 0.0))
        step = np.diag(np.clip(1e-3 * deviation, 1e-7, 1e-3))
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            value = float(self.law.ln_loss(theta[None], flops, cost)[0])
            ahead, back = (self.law.ln_loss(t, flops, cost) for t in (theta + step, theta - step))
            slope = (ahead - back) / (2 * np.diag(step))
        return value, np.where((deviation > 0) & np.isfinite(slope), slope, 0.0)


@dataclass(frozen=True)
class ArmAt:
    """An arm at a budget. `difference`: its loss over the baseline's, less one.

    `best` is the probability that no arm has a lower loss. `gain` is the compute-equivalent gain:
    its `low` or `high` end is None where there is none, its value None where the baseline never
    reaches the loss. `by_frontier` is the difference by the laws of the profiles' minima.
    """

    arm: str
    params: float | None
    loss: LawInterval
    difference: LawInterval | None
    best: float
    gain: float | None
    gain_low: float | None
    gain_high: float | None
    by_frontier: float | None


@dataclass(frozen=True)
class Pairing:
    """Two arms: how many of their runs are paired, and the correlation of these runs' errors."""

    arms: tuple[str, str]
    pairs: int
    correlation: float


@dataclass(frozen=True)
class Comparison:
    """Arms compared at some budgets: `at` holds, for each, a line for each arm."""

    column: str
    baseline: str
    interval: float
    source: str
    rows: dict[str, int]
    exponents: dict[str, LawInterval | None]
    pairings: tuple[Pairing, ...]
    at: dict[float, tuple[ArmAt, ...]]
    notes: tuple[str, ...]
    arms: tuple[Arm, ...] = ()
    covariances: Array | None = None
    version: str = __version__

    def as_json(self) -> dict[str, Any]:
        """As a JSON object, sealed by its hash."""
        value = {
            "schema": SCHEMA,
            "nhzoo": self.version,
            "source": self.source,
            "column": self.column,
            "baseline": self.baseline,
            "interval": self.interval,
            "rows": self.rows,
            "exponents": {n: None if i is None else asdict(i) for n, i in self.exponents.items()},
            "pairings": [asdict(pairing) for pairing in self.pairings],
            "at": [
                {"flops": flops, "arms": [asdict(line) for line in lines]}
                for flops, lines in self.at.items()
            ],
            "notes": list(self.notes),
        }
        return files.seal(value)


def compare_arms(
    tables: Mapping[str, Sequence[RunRow]],
    *,
    column: str = "arm",
    baseline: str | None = None,
    budgets: Sequence[float] = (),
    cost: Callable[[Sequence[RunRow]], Cost | None] = lambda rows: None,
    interval: float = intervals.LEVEL,
    seed: int = 0,
    source: str = "the table",
    **options: Any,
) -> Comparison:
    """Fit each arm's surface and compare them; `tables` are the rows of each arm.

    `baseline`: the arm that others are held against (default: the first). `budgets`: FLOPs to
    compare at (default: the largest that all arms have, and 10 times it). `options` choose rows:
    see `runs.select`. InputError for one arm, for an arm that cannot be fitted, and for tables of
    several rows to a run.
    """
    if len(tables) < 2:
        only = next(iter(tables), "none")
        raise InputError(
            f"{source}, column {column}: has one arm, {only!r}; a comparison needs two or more, "
            "so name a column with several values"
        )
    if len(tables) > MOST_ARMS:
        raise InputError(
            f"{source}, column {column}: has {len(tables)} different values, {MOST_ARMS} arms are "
            "the most; name a column that groups runs"
        )
    if baseline is not None and baseline not in tables:
        raise InputError(f"--baseline {baseline}: is no arm; there are {', '.join(tables)}")
    if not 0.5 <= interval < 1:
        raise InputError(f"--interval {interval}: must be from 0.5 to below 1")
    notes: list[str] = []
    arms = []
    for name, rows in tables.items():
        arms.append(_arm(name, rows, cost(rows), f"{source}, {column} {name}", seed, options))
    base = next(arm for arm in arms if arm.name == (baseline or arms[0].name))
    common = min(float(arm.points.flops.max()) for arm in arms)
    places = list(budgets) or [common, 10 * common]
    if not all(math.isfinite(c) and c > 0 for c in places):
        raise InputError("--at: give FLOPs larger than zero, such as 1e13,1e14")
    most = 100 * common
    if max(places) > most:
        raise InputError(
            f"--at {max(places):.3g}: is more than 100 times the largest budget that all arms "
            f"have ({common:.3g}); {most:.3g} is the most"
        )
    shared, pairings = _covariances(arms)
    for pairing in pairings:
        if pairing.pairs < _LEAST_PAIRS:
            notes.append(
                f"{pairing.arms[0]} and {pairing.arms[1]} have {pairing.pairs} runs of one size, "
                "budget and seed, so their errors count as independent and the difference is less "
                "certain than it could be; train the arms on the same cells with the same seeds"
            )
    return Comparison(
        column,
        base.name,
        interval,
        source,
        {arm.name: len(arm.points) for arm in arms},
        {arm.name: _exponent(arm, interval) for arm in arms},
        pairings,
        {float(c): _at(arms, base, float(c), shared, interval, seed) for c in places},
        tuple(notes),
        tuple(arms),
        shared,
    )


def difference_at(found: Comparison, flops: float) -> tuple[ArmAt, ...]:
    """The arms at another budget, without their gains (for figures)."""
    assert found.covariances is not None
    base = next(arm for arm in found.arms if arm.name == found.baseline)
    return _at(found.arms, base, flops, found.covariances, found.interval, gains=False)


def _arm(
    name: str,
    rows: Sequence[RunRow],
    cost: Cost | None,
    where: str,
    seed: int,
    options: dict[str, Any],
) -> Arm:
    chosen = select(rows, where=where, **options)
    points = chosen.points
    if intervals.clustered(points.clusters):
        raise InputError(
            f"{where}: several rows are of one run ({points.run[0]}), and arms are compared by "
            "runs; keep the last row of each run, or give each its own run_id"
        )
    found = fit_laws(points, profiles=chosen.profiles, methods=("vp", "parabola"), seed=seed)
    law = surface_of(found.laws)
    if found.surface is None or law is None or found.surface.dof < 1:
        reasons = [d for d in chosen.diagnostics if d.level == "error"]
        why = f" ({reasons[0].message})" if reasons else ""
        raise InputError(
            f"{where}: {len(points)} of its {len(rows)} rows can be fitted, too few for a "
            f"law{why}; an arm needs 3 budgets of 4 sizes or more, with the best size in the middle"
        )
    pull, variance = influence(found.surface, points.params, points.samples, points.loss)
    frontier = next((one for one in found.laws if isinstance(one, FrontierLaw)), None)
    shown = cost or from_rows(points.params, points.samples, points.flops)
    return Arm(name, points, found.surface, law, frontier, shown, pull, variance)


def _exponent(arm: Arm, level: float) -> LawInterval | None:
    middle = float(np.exp(np.log(arm.points.flops).mean()))
    return arm.law.slope(middle, arm.cost, level)


def _pairs(one: Points, other: Points) -> tuple[list[int], list[int]]:
    """Positions of the runs of one size, budget and seed in both arms; each run at most once."""
    left, right, taken = [], [], set()
    for i in range(len(one)):
        near = np.abs(np.log(other.params / one.params[i]))
        same = (np.abs(np.log(other.budget / one.budget[i])) < _SAME_SIZE) & (
            np.nan_to_num(other.seed, nan=-1.0) == np.nan_to_num(one.seed[i], nan=-1.0)
        )
        order = np.argsort(np.where(same, near, np.inf))
        free = [int(j) for j in order if same[j] and near[j] < _SAME_SIZE and int(j) not in taken]
        if free:
            taken.add(free[0])
            left.append(i)
            right.append(free[0])
    return left, right


def _covariances(arms: Sequence[Arm]) -> tuple[Array, tuple[Pairing, ...]]:
    """The covariance of all arms' parameters, [arms, arms, 5, 5], and how arms are paired."""
    count = len(arms)
    result = np.zeros((count, count, 5, 5))
    pairings = []
    for i, one in enumerate(arms):
        result[i, i] = one.surface.covariance
        for j in range(i + 1, count):
            other = arms[j]
            left, right = _pairs(one.points, other.points)
            alike = 0.0
            if len(left) >= _LEAST_PAIRS:
                a, b = (
                    (arm.surface.weights * arm.surface.residuals)[places]
                    for arm, places in ((one, left), (other, right))
                )
                scale = math.sqrt(float(a @ a) * float(b @ b))
                alike = float(np.clip(a @ b / scale, 0.0, 0.999)) if scale > 0 else 0.0
            spread = alike * math.sqrt(one.variance * other.variance)
            result[i, j] = spread * one.pull[:, left] @ other.pull[:, right].T
            result[j, i] = result[i, j].T
            pairings.append(Pairing((one.name, other.name), len(left), alike))
    return result, tuple(pairings)


def _at(
    arms: Sequence[Arm],
    base: Arm,
    flops: float,
    shared: Array,
    level: float,
    seed: int = 0,
    gains: bool = True,
) -> tuple[ArmAt, ...]:
    said = [arm.ln_loss(flops) for arm in arms]
    values = np.array([value for value, _ in said])
    slopes = np.array([slope for _, slope in said])
    spread = np.einsum("ip,ijpq,jq->ij", slopes, shared, slopes)
    dof = min(arm.surface.dof for arm in arms)
    reach = float(stats.t.ppf(0.5 + level / 2, dof))
    chances = _chances(values, spread, dof, seed)
    place = next(i for i, arm in enumerate(arms) if arm is base)
    lines = []
    for i, arm in enumerate(arms):
        size = arm.law.size(flops, arm.cost, level)
        own = reach * math.sqrt(max(0.0, spread[i, i]))
        loss = LawInterval(*(math.exp(x) for x in (values[i], values[i] - own, values[i] + own)))
        difference: LawInterval | None = None
        gain: tuple[float | None, float | None, float | None] = (1.0, 1.0, 1.0)
        if i != place:
            variance = spread[i, i] + spread[place, place] - 2 * spread[i, place]
            off, wide = values[i] - values[place], reach * math.sqrt(max(0.0, variance))
            difference = LawInterval(*(math.expm1(x) for x in (off, off - wide, off + wide)))
            parts = (shared[i, i], shared[place, place], shared[i, place])
            gain = (None, None, None) if not gains else _gain(arm, base, flops, *parts, reach)
        lines.append(
            ArmAt(
                arm.name,
                None if size is None else size.value,
                loss,
                difference,
                float(chances[i]),
                *gain,
                _by_frontier(arm, base, flops) if i != place else None,
            )
        )
    return tuple(lines)


def _chances(values: Array, spread: Array, dof: int, seed: int) -> Array:
    """The probability of each arm that it is the lowest, of draws that keep what arms share."""
    random = np.random.default_rng(seed)
    left, size, _ = np.linalg.svd((spread + spread.T) / 2, hermitian=True)
    root = left * np.sqrt(size)
    heavy = np.sqrt(dof / random.chisquare(dof, (_DRAWS, 1)))
    draws = values + heavy * (random.standard_normal((_DRAWS, len(values))) @ root.T)
    return np.bincount(draws.argmin(1), minlength=len(values)) / _DRAWS


def _gain(
    arm: Arm, base: Arm, flops: float, own: Array, its: Array, both: Array, reach: float
) -> tuple[float | None, float | None, float | None]:
    """The factor of the baseline's FLOPs at which it reaches the arm's loss, and its ends."""
    value, slope = arm.ln_loss(flops)
    above = float(slope @ own @ slope)
    cross = slope @ both
    off, wide = np.empty((2, len(_FACTORS)))
    for i, factor in enumerate(_FACTORS):
        level, its_slope = base.ln_loss(flops * math.exp(factor))
        variance = above + float(its_slope @ its @ its_slope) - 2 * float(cross @ its_slope)
        off[i], wide[i] = value - level, reach * math.sqrt(max(0.0, variance))
    return _crossing(off), _crossing(off + wide), _crossing(off - wide)


def _crossing(off: Array) -> float | None:
    """The factor at which a curve that rises with it passes zero; None where it does not."""
    above = np.flatnonzero((off[:-1] <= 0) & (off[1:] > 0))
    if not len(above):
        return None
    i = int(above[0])
    share = off[i] / (off[i] - off[i + 1])
    return math.exp(_FACTORS[i] + share * (_FACTORS[i + 1] - _FACTORS[i]))


def _by_frontier(arm: Arm, base: Arm, flops: float) -> float | None:
    laws: list[LossLaw | None] = [arm.frontier, base.frontier]
    if laws[0] is None or laws[1] is None:
        return None
    one, other = (
        float(law.ln_loss(law.estimate.theta[None], flops, cost)[0])
        for law, cost in ((laws[0], arm.cost), (laws[1], base.cost))
    )
    return math.expm1(one - other)
