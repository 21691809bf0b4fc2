"""Laws of loss and size against compute, fitted by several methods, each with its uncertainty.

Methods: `vp` (variable projection of the surface, the default), `huber` (Hoffmann's approach 3),
`parabola` (per-budget parabolas and a power law), `joint` (one curvature for all), `argmin` (the
sizes that did best; for reproduction only). `frontier` is L_opt(C) = E + k C^-g through the
parabolas' minima; a bare power law for the loss is too optimistic and only a baseline.

`predict` says what a set of laws says of a budget, beside naive baselines. The surface is wrong
where size and data interact, the parabola where profiles are lopsided; they err in different
directions, so a forecast states the union of their intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from nhzoo.scaling import intervals, isoflop
from nhzoo.scaling.cost import Cost
from nhzoo.scaling.intervals import (
    RESAMPLES,
    Estimate,
    LawInterval,
    exponential,
    resampled_pairs,
    resampled_runs,
    union,
)
from nhzoo.scaling.isoflop import Profiles, bare_power_law
from nhzoo.scaling.parametric import LEAST_POINTS, Surface, losses, parametric, variable_projection
from nhzoo.scaling.runs import Points

Array = npt.NDArray[np.float64]

METHODS = ("vp", "parabola", "huber", "joint", "argmin")
DEFAULT_METHODS = ("vp", "parabola")
LEAST_BUDGETS = 3
FRONTIER_BUDGETS = 4

_SIZES = np.linspace(np.log(1e2), np.log(1e14), 800)
"""ln N among which an optimum on a cost that is not proportional is looked for."""


@dataclass(frozen=True)
class Law:
    """One method's law. `form`: surface, line (ln N_opt on ln C) or frontier (L_opt on C).

    Parameters of a surface: (E, ln A, ln B, ln alpha, ln beta); of a line: ln N_opt at ln C0 =
    `centre`, exponent; of a frontier: (E, ln k, ln g). `noise` is the relative residual standard
    deviation, `points` how many rows (or minima) were fitted.
    """

    method: str
    form: str
    spread: Estimate
    noise: float
    points: int
    centre: float = 0.0

    def ln_size(self, theta: Array, flops: float, cost: Cost) -> Array:
        """Log N_opt at a budget, of parameters [B, p]; NaN of a frontier."""
        if self.form == "frontier":
            return np.full(len(theta), np.nan)
        if self.form == "line":
            return np.asarray(theta[:, 0] + theta[:, 1] * (np.log(flops) - self.centre))
        return optimum(theta, flops, cost)

    def ln_loss(self, theta: Array, flops: float, cost: Cost) -> Array:
        """Log L at the optimum of a budget; NaN of a line."""
        if self.form == "line":
            return np.full(len(theta), np.nan)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            if self.form == "frontier":
                falling = np.exp(theta[:, 1] - np.exp(theta[:, 2]) * np.log(flops))
                return np.asarray(np.log(theta[:, 0] + falling))
            size = np.exp(np.clip(optimum(theta, flops, cost), -600, 600))
            return np.asarray(np.log(losses(theta, size, cost.samples(flops, size))))

    def exponent(self, theta: Array, flops: float, cost: Cost) -> Array:
        """Slope d ln N_opt / d ln C at a budget: constant where cost is proportional to size."""
        if self.form == "line":
            return np.asarray(theta[:, 1])
        if self.form == "frontier":
            return np.full(len(theta), np.nan)
        if cost.factor is not None:
            alpha, beta = np.exp(theta[:, 3]), np.exp(theta[:, 4])
            return np.asarray(beta / (alpha + beta))
        ends = (optimum(theta, flops * factor, cost) for factor in (3.0, 1 / 3.0))
        high, low = ends
        return np.asarray((high - low) / (2 * np.log(3.0)))

    def size(self, flops: float, cost: Cost, level: float) -> LawInterval | None:
        """N_opt at a budget."""
        return exponential(
            self.spread.interval(lambda theta: self.ln_size(theta, flops, cost), level)
        )

    def loss(
        self, flops: float, cost: Cost, level: float, one_run: bool = False
    ) -> LawInterval | None:
        """L_opt at a budget, as a law; for `one_run` the interval holds the residual scatter."""
        noise = self.noise if one_run else 0.0
        return exponential(
            self.spread.interval(lambda theta: self.ln_loss(theta, flops, cost), level, noise)
        )

    def slope(self, flops: float, cost: Cost, level: float) -> LawInterval | None:
        """The exponent of N_opt at a budget."""
        return self.spread.interval(lambda theta: self.exponent(theta, flops, cost), level)

    def parameter(self, place: int, level: float) -> LawInterval | None:
        """One of its parameters, as they are listed above."""
        return self.spread.interval(lambda theta: theta[:, place], level)


def optimum(theta: Array, flops: float, cost: Cost) -> Array:
    """Log N that minimises the surface on cost(N) D = C: theta [B, 5] to [B].

    In closed form where the cost is k N D: G (C/k)^(beta/(alpha+beta)), G = (alpha A / beta B)
    ^(1/(alpha+beta)) (Hoffmann et al. 2022, eq. 4); else the lowest of a grid and a parabola
    through its neighbours.
    """
    _, ln_a, ln_b, ln_alpha, ln_beta = theta.T
    alpha, beta = np.exp(ln_alpha), np.exp(ln_beta)
    if cost.factor is not None:
        with np.errstate(invalid="ignore"):
            gain = (ln_alpha + ln_a - ln_beta - ln_b) / (alpha + beta)
            place = gain + beta / (alpha + beta) * np.log(flops / cost.factor)
        return np.asarray(np.where(np.isfinite(place), place, np.nan))
    ln_d = np.log(flops) - np.log(cost.of(np.exp(_SIZES)))
    with np.errstate(over="ignore", invalid="ignore"):
        size = np.exp(ln_a[:, None] - alpha[:, None] * _SIZES)
        data = np.exp(ln_b[:, None] - beta[:, None] * ln_d)
        value = size + data
    value = np.where(np.isfinite(value), value, np.inf)
    best = value.argmin(1)
    inside = (best > 0) & (best < len(_SIZES) - 1)
    best = np.clip(best, 1, len(_SIZES) - 2)
    rows = np.arange(len(theta))
    with np.errstate(invalid="ignore", divide="ignore"):
        left, middle, right = (np.log(value[rows, best + i]) for i in (-1, 0, 1))
        bend = left - 2 * middle + right
        shift = np.where(bend > 0, 0.5 * (left - right) / bend, 0.0)
    step = _SIZES[1] - _SIZES[0]
    return np.asarray(np.where(inside, _SIZES[best] + step * np.clip(shift, -1, 1), np.nan))


@dataclass(frozen=True)
class Laws:
    """The laws fitted to one choice of points. `resampling`: runs, or pairs (rows in budgets)."""

    laws: tuple[Law, ...]
    surface: Surface | None
    profiles: Profiles | None
    resampling: str
    vertex_scatter: float

    def __getitem__(self, method: str) -> Law:
        for law in self.laws:
            if law.method == method:
                return law
        raise KeyError(method)

    def __contains__(self, method: object) -> bool:
        return any(law.method == method for law in self.laws)


def fit_laws(
    points: Points,
    *,
    profiles: bool = True,
    methods: Sequence[str] = DEFAULT_METHODS,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Laws:
    """Fit the methods that the points can carry; `resamples` 0: no draws, so fewer intervals.

    The surface needs 7 points and, in profiles, 3 budgets; lines need 3 budgets; the frontier 4.
    What cannot be fitted is left out. Where several rows are of one run and there are less than
    five runs, laws have no interval.
    """
    labels, budget = np.unique(points.budget, return_inverse=True)
    runs = points.clusters
    clustered = intervals.clustered(runs)
    few = intervals.too_few(runs)
    random = np.random.default_rng(seed)
    weights = np.ones((1, len(points)))
    if resamples and len(points) and not few:
        if clustered:
            drawn = resampled_runs(runs, resamples, random)
        else:
            drawn = resampled_pairs(
                budget if profiles else np.zeros_like(budget), resamples, random
            )
        weights = np.concatenate([weights, drawn])
    dof = int(runs.max()) if clustered else len(points) - 5
    found: list[Law] = []
    surface = None
    enough = len(points) >= LEAST_POINTS and (not profiles or len(labels) >= LEAST_BUDGETS)
    enough = enough and min(np.ptp(np.log(points.params)), np.ptp(np.log(points.samples))) > 0.7
    if enough and {"vp", "huber"} & set(methods):
        surface = variable_projection(points.params, points.samples, points.loss)
        if "vp" in methods:
            found.append(_surface_law("vp", surface, points, weights[1:], clustered, dof))
        if "huber" in methods:
            fit = parametric(points.params, points.samples, points.loss)
            found.append(_surface_law("huber", fit, points, weights[1:], True, dof))
    fitted, scatter = None, np.nan
    if profiles and len(labels) >= LEAST_BUDGETS:
        fitted = isoflop.parabolas(points.params, points.loss, points.flops, budget, weights)
        lines, scatter = _lines(fitted, points, budget, weights, methods, clustered, dof, random)
        found += lines
    if few:
        found = [replace(law, spread=Estimate(law.spread.theta, law.spread.dof)) for law in found]
    order = {name: i for i, name in enumerate((*METHODS, "frontier"))}
    return Laws(
        tuple(sorted(found, key=lambda law: order[law.method])),
        surface,
        fitted,
        "runs" if clustered else "pairs",
        scatter,
    )


def _surface_law(
    method: str, fit: Surface, points: Points, weights: Array, draw: bool, dof: int
) -> Law:
    spread = Estimate(fit.theta, fit.dof, covariance=fit.covariance)
    if draw and len(weights):
        draws = np.full((len(weights), 5), np.nan)
        for i, w in enumerate(weights):
            held = w > 0
            n, d, y = points.params[held], points.samples[held], points.loss[held]
            if len(np.unique(n)) < 3 or held.sum() < LEAST_POINTS:
                continue
            if method == "vp":
                start = (fit.alpha, fit.beta)
                again = variable_projection(n, d, y, weights=w[held], start=start, rounds=6)
            else:
                again = parametric(n, d, y, weights=w[held], start=fit.theta)
            draws[i] = again.theta
        spread = Estimate(fit.theta, dof, draws=draws)
    return Law(method, "surface", spread, fit.rms, len(points))


def _lines(
    fitted: Profiles,
    points: Points,
    budget: npt.NDArray[np.intp],
    weights: Array,
    methods: Sequence[str],
    clustered: bool,
    dof: int,
    random: np.random.Generator,
) -> tuple[list[Law], float]:
    """Laws through the profiles' vertices and minima."""
    found: list[Law] = []
    centre = isoflop.centre_of(fitted.compute)
    usable = np.isfinite(fitted.vertex[0]) & np.isfinite(fitted.vertex_var)
    budgets, drawn = int(usable.sum()), len(weights) > 1
    scatter = np.nan
    if budgets >= LEAST_BUDGETS:
        theta, covariance, scatter = isoflop.power_law(
            fitted.compute, np.where(usable, fitted.vertex, np.nan), fitted.vertex_var
        )
        if "parabola" in methods:
            if clustered and drawn:
                spread = Estimate(theta[0], dof, draws=theta[1:])
            else:
                spread = Estimate(theta[0], fitted.dof, covariance=covariance)
            found.append(Law("parabola", "line", spread, fitted.sd, len(points), centre))
    if "joint" in methods:
        both, x0 = isoflop.joint(points.params, points.loss, points.flops, budget, weights)
        if np.isfinite(both[0]).all():
            spread = Estimate(both[0], dof, draws=both[1:] if drawn else None)
            found.append(Law("joint", "line", spread, fitted.sd, len(points), x0))
    if "argmin" in methods:
        best = [_argmin_line(points, budget, w > 0) for w in (weights if drawn else weights[:1])]
        line = np.array(best)
        spread = Estimate(line[0], max(1, dof), draws=line[1:] if drawn else None)
        found.append(Law("argmin", "line", spread, fitted.sd, budgets, centre))
    known = int(np.isfinite(fitted.minimum[0]).sum())
    if known >= FRONTIER_BUDGETS:
        minima = fitted.minimum
        if not clustered and drawn:
            # Minima of few points resampled spread too far; their own variances are near the truth.
            deviation = np.sqrt(np.where(np.isfinite(minima[0]), fitted.minimum_var, np.nan))
            noise = random.standard_normal((len(weights) - 1, len(deviation))) * deviation
            minima = np.concatenate([minima[:1], minima[0] + noise])
        laws = isoflop.frontier(fitted.compute, minima, fitted.minimum_var)
        if np.isfinite(laws[0]).all():
            free = max(1, fitted.dof if not clustered else dof)
            spread = Estimate(laws[0], free, draws=laws[1:] if drawn else None)
            found.append(Law("frontier", "frontier", spread, fitted.sd, known))
    return found, scatter


def _argmin_line(
    points: Points, budget: npt.NDArray[np.intp], held: npt.NDArray[np.bool_]
) -> Array:
    present = np.unique(budget[held])
    if len(present) < 2:
        return np.full(2, np.nan)
    numbers = np.searchsorted(present, budget[held])
    sizes, _, _ = isoflop.argmin(
        points.params[held], points.loss[held], points.flops[held], numbers
    )
    spent = np.array([np.log(points.flops[budget == k]).mean() for k in present])
    middle = np.array([np.log(points.flops[budget == k]).mean() for k in np.unique(budget)]).mean()
    slope, level = np.polyfit(spent - middle, sizes, 1)
    return np.array([level, slope])


SIZE_METHODS = ("vp", "parabola")
LOSS_METHODS = ("frontier", "vp")
FALLBACKS = ("huber", "joint", "argmin")


@dataclass(frozen=True)
class Prediction:
    """Size and loss at a budget; `sizes`, `losses` of each method. None where none can say."""

    size: LawInterval | None
    loss: LawInterval | None
    sizes: dict[str, LawInterval]
    losses: dict[str, LawInterval]


def predict(laws: Sequence[Law], flops: float, cost: Cost, level: float) -> Prediction:
    """Size from the surface and the parabolas, loss from the frontier and the surface.

    The first of these that is there gives the value, all give the interval (other methods only
    where neither is there). Loss intervals are of one more run: they hold the residual scatter.
    """
    sizes: dict[str, LawInterval] = {}
    found: dict[str, LawInterval] = {}
    for law in laws:
        size = law.size(flops, cost, level)
        loss = law.loss(flops, cost, level, one_run=True)
        if size is not None:
            sizes[law.method] = size
        if loss is not None:
            found[law.method] = loss
    return Prediction(_union(sizes, SIZE_METHODS), _union(found, LOSS_METHODS), sizes, found)


def best_size(laws: Sequence[Law], flops: float, cost: Cost) -> float:
    """The size of `predict` alone, without its interval; NaN where none can say."""
    by_method = {law.method: law for law in laws if law.form != "frontier"}
    for name in (*SIZE_METHODS, *FALLBACKS):
        if name in by_method:
            law = by_method[name]
            size = float(law.ln_size(law.spread.theta[None], flops, cost)[0])
            if np.isfinite(size):
                return float(np.exp(min(size, 700.0)))
    return float("nan")


def _union(found: dict[str, LawInterval], methods: Sequence[str]) -> LawInterval | None:
    names = [name for name in methods if name in found]
    names = names or [name for name in FALLBACKS if name in found][:1]
    if not names:
        return None
    return union([found[name] for name in names], found[names[0]].value)


@dataclass(frozen=True)
class Baselines:
    """Naive forecasts of the loss, as baselines.

    `last_size`: the size that was best at the last budget, trained longer (on the surface).
    `power_law`: k C^-g through the minima, without a floor. `last_loss`: the last budget's loss.
    """

    last_size: float | None
    power_law: float | None
    last_loss: float | None


def baselines(
    laws: Sequence[Law], compute: Array, vertices: Array, minima: Array, flops: float, cost: Cost
) -> Baselines:
    """Of the budgets' `compute`, ln N `vertices` and ln L `minima`, [m] each, finite."""
    if not len(compute):
        return Baselines(None, None, None)
    last = int(compute.argmax())
    surface = next((law for law in laws if law.form == "surface"), None)
    kept = None
    if surface is not None:
        size = float(np.exp(vertices[last]))
        kept = float(losses(surface.spread.theta, size, cost.samples(flops, size)))
    bare = None
    if len(compute) >= 2:
        level, exponent = bare_power_law(compute, minima)
        bare = float(np.exp(level - exponent * np.log(flops)))
    return Baselines(kept, bare, float(np.exp(minima[last])))
