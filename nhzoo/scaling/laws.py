"""Laws of loss and size against compute, fitted by several methods, each with its uncertainty.

Methods: `vp` (variable projection of the surface, the default), `huber` (Hoffmann's approach 3),
`parabola` (per-budget parabolas and a power law), `joint` (one curvature for all), `argmin` (the
sizes that did best; for reproduction only). `frontier` is L_opt(C) = E + k C^-g through the
parabolas' minima; a bare power law for the loss is too optimistic and only a baseline.

`families.predicting` says what a set of laws says of a budget. `cubic` (profiles of third order)
and `coupled` (a surface whose terms interact) are further opinions, on request.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nhzoo.scaling import intervals, isoflop
from nhzoo.scaling.cost import Cost
from nhzoo.scaling.families import coupled
from nhzoo.scaling.intervals import (
    RESAMPLES,
    CommonError,
    Estimate,
    LawInterval,
    common_error,
    exponential,
    resampled_pairs,
    resampled_runs,
)
from nhzoo.scaling.isoflop import Profiles
from nhzoo.scaling.parametric import (
    LEAST_POINTS,
    Surface,
    parametric,
    resampled,
    variable_projection,
)
from nhzoo.scaling.parametric import losses as surface_loss
from nhzoo.scaling.runs import Points, floats

Array = npt.NDArray[np.float64]

METHODS = ("vp", "parabola", "cubic", "coupled", "huber", "joint", "argmin")
DEFAULT_METHODS = ("vp", "parabola")
LEAST_BUDGETS = 3
FRONTIER_BUDGETS = 4

_SIZES = np.linspace(np.log(1e2), np.log(1e14), 800)
"""ln N among which an optimum on a cost that is not proportional is looked for."""


@dataclass(frozen=True)
class Law:
    """One method's law: its `parameters`, `estimate`d from so many `points` (rows, or minima).

    `noise` is the relative residual standard deviation; `common` the error that all rows share,
    which scales the loss and with it E and the coefficients.
    """

    method: str
    estimate: Estimate
    noise: float
    points: int
    common: CommonError = field(default=CommonError(), kw_only=True)

    form: ClassVar[str]
    parameters: ClassVar[tuple[str, ...]]

    def parameter(self, place: int, level: float) -> LawInterval | None:
        """One of its `parameters`, as it is estimated."""
        name = self.parameters[place]
        scale = self.estimate.theta[place] if name == "E" else float(name in ("A", "B", "k"))
        noise = abs(scale) * self._shared(level)
        return self.estimate.interval(lambda theta: theta[:, place], level, noise)

    def _shared(self, level: float) -> float:
        """The common error, in standard deviations of the estimate's own reach."""
        return self.common.reach(level) / self.estimate.reach(level)

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""

        def plain(rows: Array | None) -> Any:
            if rows is None:
                return None
            return [[x if math.isfinite(x) else None for x in row] for row in rows.tolist()]

        return {
            "method": self.method,
            "form": self.form,
            "theta": plain(self.estimate.theta[None])[0],
            "dof": self.estimate.dof,
            "covariance": plain(self.estimate.covariance),
            "draws": plain(self.estimate.draws),
            "noise": self.noise,
            "points": self.points,
            "centre": 0.0,
            "common": asdict(self.common),
        }


class SizeLaw(Law, ABC):
    """A law that says which size is best."""

    @abstractmethod
    def ln_size(self, theta: Array, flops: float, cost: Cost) -> Array:
        """Log N_opt at a budget, of parameters [B, p]."""

    @abstractmethod
    def exponent(self, theta: Array, flops: float, cost: Cost) -> Array:
        """Slope d ln N_opt / d ln C at a budget, of parameters [B, p]."""

    def size(self, flops: float, cost: Cost, level: float) -> LawInterval | None:
        """N_opt at a budget."""
        return exponential(
            self.estimate.interval(lambda theta: self.ln_size(theta, flops, cost), level)
        )

    def slope(self, flops: float, cost: Cost, level: float) -> LawInterval | None:
        """The exponent of N_opt at a budget."""
        return self.estimate.interval(lambda theta: self.exponent(theta, flops, cost), level)


class LossLaw(Law, ABC):
    """A law that says which loss the best size reaches."""

    @abstractmethod
    def ln_loss(self, theta: Array, flops: float, cost: Cost) -> Array:
        """Log L at the optimum of a budget, of parameters [B, p]."""

    def loss(
        self, flops: float, cost: Cost, level: float, one_run: bool = False
    ) -> LawInterval | None:
        """L_opt at a budget, as a law; for `one_run` the interval holds the residual scatter."""
        noise = math.hypot(self.noise if one_run else 0.0, self._shared(level))
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            return exponential(
                self.estimate.interval(lambda theta: self.ln_loss(theta, flops, cost), level, noise)
            )


@dataclass(frozen=True)
class SurfaceLaw(SizeLaw, LossLaw):
    """L(N, D) = E + A N^-alpha + B D^-beta; all but E are estimated as logarithms."""

    form = "surface"
    parameters = ("E", "A", "B", "alpha", "beta")

    def at(self, params: Array | float, samples: Array | float) -> Array:
        """The loss of sizes trained on so many samples."""
        return surface_loss(self.estimate.theta, params, samples)

    def ln_size(self, theta: Array, flops: float, cost: Cost) -> Array:
        """See `SizeLaw`."""
        return optimum(theta, flops, cost)

    def exponent(self, theta: Array, flops: float, cost: Cost) -> Array:
        """See `SizeLaw`: constant where cost is proportional to size."""
        if cost.factor is not None:
            alpha, beta = np.exp(theta[:, 3]), np.exp(theta[:, 4])
            return np.asarray(beta / (alpha + beta))
        high, low = (optimum(theta, flops * factor, cost) for factor in (3.0, 1 / 3.0))
        return np.asarray((high - low) / (2 * np.log(3.0)))

    def ln_loss(self, theta: Array, flops: float, cost: Cost) -> Array:
        """See `LossLaw`."""
        size = np.exp(np.clip(optimum(theta, flops, cost), -600, 600))
        return np.asarray(np.log(surface_loss(theta, size, cost.samples(flops, size))))


@dataclass(frozen=True)
class CoupledLaw(SizeLaw, LossLaw):
    """L(N, D) = E + (u^p + v^p)^(1/p): see `families.coupled`; all but E are logarithms."""

    form = "coupled"
    parameters = ("E", "A", "B", "alpha", "beta", "p")

    def ln_size(self, theta: Array, flops: float, cost: Cost) -> Array:
        """See `SizeLaw`."""
        return optimum(coupled.as_surface(theta), flops, cost)

    def exponent(self, theta: Array, flops: float, cost: Cost) -> Array:
        """See `SizeLaw`."""
        high, low = (self.ln_size(theta, flops * factor, cost) for factor in (3.0, 1 / 3.0))
        return np.asarray((high - low) / (2 * np.log(3.0)))

    def ln_loss(self, theta: Array, flops: float, cost: Cost) -> Array:
        """See `LossLaw`."""
        size = np.exp(np.clip(self.ln_size(theta, flops, cost), -600, 600))
        return np.asarray(np.log(coupled.coupled_losses(theta, size, cost.samples(flops, size))))


@dataclass(frozen=True)
class LineLaw(SizeLaw):
    """ln N_opt on ln C: a line through ln N at ln C = `centre`, its slope the exponent."""

    centre: float

    form = "line"
    parameters = ("params_at_centre", "exponent")

    def ln_size(self, theta: Array, flops: float, cost: Cost) -> Array:
        """See `SizeLaw`."""
        return np.asarray(theta[:, 0] + theta[:, 1] * (np.log(flops) - self.centre))

    def exponent(self, theta: Array, flops: float, cost: Cost) -> Array:
        """See `SizeLaw`."""
        return np.asarray(theta[:, 1])

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return super().as_json() | {"centre": self.centre}


@dataclass(frozen=True)
class FrontierLaw(LossLaw):
    """L_opt(C) = E + k C^-gamma; k and gamma are estimated as logarithms."""

    form = "frontier"
    parameters = ("E", "k", "gamma")

    def ln_loss(self, theta: Array, flops: float, cost: Cost) -> Array:
        """See `LossLaw`."""
        falling = np.exp(theta[:, 1] - np.exp(theta[:, 2]) * np.log(flops))
        return np.asarray(np.log(theta[:, 0] + falling))


def law_from_json(value: dict[str, Any]) -> Law:
    """The inverse of `Law.as_json`; ValueError, KeyError or TypeError where it is no law."""

    def rows(name: str) -> Array | None:
        if value[name] is None:
            return None
        return np.array([floats(row) for row in value[name]], np.float64)

    theta, form = floats(value["theta"]), _FORMS.get(value["form"])
    if form is None or len(theta) != len(form.parameters):
        raise ValueError(f"law {value['method']}")
    estimate = Estimate(theta, int(value["dof"]), rows("covariance"), rows("draws"))
    own: dict[str, Any] = {"centre": float(value["centre"])} if form is LineLaw else {}
    common = CommonError(**value.get("common", {}))  # fits of before have none
    return form(
        *(str(value["method"]), estimate, float(value["noise"]), int(value["points"])),
        **own,
        common=common,
    )


_FORMS: dict[str, type[Law]] = {
    law.form: law for law in (SurfaceLaw, CoupledLaw, LineLaw, FrontierLaw)
}


def surface_of(laws: Iterable[Law]) -> SurfaceLaw | None:
    """The first surface among some laws."""
    return next((law for law in laws if isinstance(law, SurfaceLaw)), None)


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
    if enough and {"vp", "huber", "coupled"} & set(methods):
        surface = variable_projection(points.params, points.samples, points.loss)
        if "vp" in methods:
            found.append(_surface_law("vp", surface, points, weights[1:], clustered, dof))
        if "coupled" in methods and not clustered:
            third = coupled.fit_coupled(points.params, points.samples, points.loss, surface)
            if third is not None:
                estimate = Estimate(third.theta, third.dof, covariance=third.covariance)
                found.append(CoupledLaw("coupled", estimate, third.rms, len(points)))
        if "huber" in methods:
            fit = parametric(points.params, points.samples, points.loss)
            found.append(_surface_law("huber", fit, points, weights[1:], True, dof))
    fitted, scatter = None, np.nan
    if profiles and len(labels) >= LEAST_BUDGETS:
        fitted = isoflop.parabolas(points.params, points.loss, points.flops, budget, weights)
        lines, scatter = _lines(fitted, points, budget, weights, methods, clustered, dof, random)
        found += lines
    if few:
        found = [
            replace(law, estimate=Estimate(law.estimate.theta, law.estimate.dof)) for law in found
        ]
    noise = surface.rms if surface is not None else np.nan if fitted is None else fitted.sd
    sizes = np.round(np.log(points.params), 2)
    cell = np.unique(np.stack([points.budget, sizes]), axis=1, return_inverse=True)[1]
    common = common_error(cell, points.loss, points.loss_se, points.seed, noise)
    found = [replace(law, common=common) if isinstance(law, LossLaw) else law for law in found]
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
) -> SurfaceLaw:
    estimate = Estimate(fit.theta, fit.dof, covariance=fit.covariance)
    if draw and len(weights):
        n, d, y = points.params, points.samples, points.loss
        if method == "vp":
            draws = resampled(n, d, y, weights, (fit.alpha, fit.beta))
        else:
            draws = np.full((len(weights), 5), np.nan)
            for i, w in enumerate(weights):
                k = w > 0
                if len(np.unique(n[k])) >= 3 and k.sum() >= LEAST_POINTS:
                    draws[i] = parametric(n[k], d[k], y[k], weights=w[k], start=fit.theta).theta
        estimate = Estimate(fit.theta, dof, draws=draws)
    return SurfaceLaw(method, estimate, fit.rms, len(points))


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
            estimate = Estimate(theta[0], fitted.dof, covariance=covariance)
            if clustered and drawn:
                estimate = _with_draws(theta, dof)
            found.append(LineLaw("parabola", estimate, fitted.sd, len(points), centre))
    if "cubic" in methods and not clustered:
        tops, spread, sd, free = isoflop.cubics(points.params, points.loss, budget)
        if np.isfinite(tops).sum() >= LEAST_BUDGETS:
            theta, covariance, _ = isoflop.power_law(fitted.compute, tops[None], spread)
            estimate = Estimate(theta[0], free, covariance=covariance)
            found.append(LineLaw("cubic", estimate, sd, len(points), centre))
    if "joint" in methods:
        both, x0 = isoflop.joint(points.params, points.loss, points.flops, budget, weights)
        if np.isfinite(both[0]).all():
            found.append(LineLaw("joint", _with_draws(both, dof), fitted.sd, len(points), x0))
    if "argmin" in methods:
        best = np.array([_argmin_line(points, budget, w > 0) for w in weights])
        estimate = _with_draws(best, max(1, dof))
        found.append(LineLaw("argmin", estimate, fitted.sd, budgets, centre))
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
            found.append(FrontierLaw("frontier", _with_draws(laws, free), fitted.sd, known))
    return found, scatter


def _with_draws(rows: Array, dof: int) -> Estimate:
    """The parameters of the first row [p]; those of the others, if there are any, are draws."""
    return Estimate(rows[0], dof, draws=rows[1:] if len(rows) > 1 else None)


def _argmin_line(
    points: Points, budget: npt.NDArray[np.intp], drawn: npt.NDArray[np.bool_]
) -> Array:
    present = np.unique(budget[drawn])
    if len(present) < 2:
        return np.full(2, np.nan)
    numbers = np.searchsorted(present, budget[drawn])
    sizes, _, _ = isoflop.argmin(
        points.params[drawn], points.loss[drawn], points.flops[drawn], numbers
    )
    spent = np.array([np.log(points.flops[budget == k]).mean() for k in present])
    middle = np.array([np.log(points.flops[budget == k]).mean() for k in np.unique(budget)]).mean()
    slope, level = np.polyfit(spent - middle, sizes, 1)
    return np.array([level, slope])
