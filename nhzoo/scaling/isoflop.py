"""isoFLOP profiles: loss against size at equal compute, and laws through their minima.

The parabola of ln L in ln N is Hoffmann's approach 2 (arXiv 2203.15556, sec. 3.2), `argmin` what
Tuyls et al. (arXiv 2307.09423) fit, the trained size that did best; `joint` gives all budgets one
curvature and one line of vertices. A parabola's vertex is biased by what the profile has of higher
order, the exponent only when the grid drifts off centre (Czech et al. 2026, arXiv 2603.22339).

Functions take resampling weights [B, n]: B fits at once, the first usually of ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.intp]

FLOORS = np.geomspace(0.02, 1.5, 120)
"""Exponents that `frontier` tries."""

_BEYOND = 0.5  # a resampled vertex may leave the sizes by this share of their ln range


@dataclass(frozen=True)
class Profiles:
    """Parabolas of B resamples in m budgets.

    `vertex` [B, m] is ln N_opt, `minimum` [B, m] the ln L there, NaN where a parabola has no
    minimum near the sizes. `vertex_var`, `minimum_var` [m] by the delta method from residuals
    pooled over budgets (`dof` degrees of freedom), `curvature`, `curvature_se` [m] of the first.
    """

    compute: Array
    vertex: Array
    minimum: Array
    vertex_var: Array
    minimum_var: Array
    curvature: Array
    curvature_se: Array
    coefficients: Array
    centre: Array
    sd: float
    dof: int


def parabolas(
    params: Array, loss: Array, compute: Array, budget: Labels, weights: Array | None = None
) -> Profiles:
    """Fit ln L = p0 + p1 x + p2 x^2, x = ln N, in each budget (numbers from 0), for each resample.

    `compute` [n] is what was spent; a budget's is the geometric mean of its rows.
    """
    x, y = np.log(params), np.log(loss)
    w = np.ones((1, len(x))) if weights is None else weights
    m = int(budget.max()) + 1
    shape = (len(w), m)
    vertex, minimum = np.full(shape, np.nan), np.full(shape, np.nan)
    coefficients, centre = np.full((m, 3), np.nan), np.zeros(m)
    inverse, square, dof = np.full((m, 3, 3), np.nan), 0.0, 0
    spent = np.zeros(m)
    for k in range(m):
        mine = budget == k
        spent[k] = np.log(compute[mine]).mean()
        centre[k] = x[mine].mean()
        z = x[mine] - centre[k]
        design = np.stack([np.ones_like(z), z, z**2], 1)
        sizes = np.unique(np.round(z, 6))
        place = np.searchsorted(sizes, np.round(z, 6))
        present = np.zeros((len(w), len(sizes)), bool)
        for i, j in enumerate(place):
            present[:, j] |= w[:, mine][:, i] > 0
        enough = present.sum(1) >= 3
        gram = np.einsum("bi,ij,ik->bjk", w[:, mine], design, design)
        moment = np.einsum("bi,ij,i->bj", w[:, mine], design, y[mine])
        gram[~enough] = np.eye(3)
        found = np.linalg.solve(gram, moment[..., None])[..., 0]
        base, slope, bend = found.T
        with np.errstate(divide="ignore", invalid="ignore"):
            top = -slope / (2 * bend)
            value = base - slope**2 / (4 * bend)
        reach = _BEYOND * np.ptp(z)
        good = enough & (bend > 0) & (top >= z.min() - reach) & (top <= z.max() + reach)
        vertex[good, k], minimum[good, k] = top[good] + centre[k], value[good]
        if enough[0]:
            coefficients[k] = found[0]
            inverse[k] = np.linalg.inv(gram[0])
            rest = y[mine] - design @ found[0]
            square += float(w[0, mine] @ rest**2)
            dof += int(w[0, mine].sum()) - 3
    variance = square / dof if dof > 0 else np.nan
    base, slope, bend = coefficients.T
    with np.errstate(divide="ignore", invalid="ignore"):
        to_vertex = np.stack([np.zeros(m), -1 / (2 * bend), slope / (2 * bend**2)], 1)
        to_minimum = np.stack([np.ones(m), -slope / (2 * bend), slope**2 / (4 * bend**2)], 1)
    return Profiles(
        compute=np.exp(spent),
        vertex=vertex,
        minimum=minimum,
        vertex_var=variance * np.einsum("mi,mij,mj->m", to_vertex, inverse, to_vertex),
        minimum_var=variance * np.einsum("mi,mij,mj->m", to_minimum, inverse, to_minimum),
        curvature=bend,
        curvature_se=np.sqrt(variance * inverse[:, 2, 2]),
        coefficients=coefficients,
        centre=centre,
        sd=float(np.sqrt(variance)),
        dof=max(0, dof),
    )


LEAST_CUBIC = 5
"""Sizes of a profile that a cubic needs."""


def cubics(params: Array, loss: Array, budget: Labels) -> tuple[Array, Array, float, int]:
    """The minima of cubics of ln L in ln N: ln N [m], variances [m], residual sd and its dof.

    A cubic follows a lopsided profile, whose parabola's vertex is biased; it needs five sizes, and
    less noise. NaN where a profile has fewer, or no minimum near its sizes.
    """
    x, y = np.log(params), np.log(loss)
    m = int(budget.max()) + 1
    vertex, spread = np.full(m, np.nan), np.full(m, np.nan)
    square, dof = 0.0, 0
    for k in range(m):
        mine = budget == k
        centre = x[mine].mean()
        z = x[mine] - centre
        if len(np.unique(np.round(z, 2))) < LEAST_CUBIC:
            continue
        design = np.stack([z**i for i in range(4)], 1)
        p, *_ = np.linalg.lstsq(design, y[mine])
        square += float(((y[mine] - design @ p) ** 2).sum())
        dof += len(z) - 4
        turns = np.roots([3 * p[3], 2 * p[2], p[1]])
        turns = np.real(turns[np.abs(np.imag(turns)) < 1e-9])
        reach = _BEYOND * np.ptp(z)
        bends = 2 * p[2] + 6 * p[3] * turns
        good = (bends > 0) & (turns >= z.min() - reach) & (turns <= z.max() + reach)
        if not good.any():
            continue
        top, bend = float(turns[good][0]), float(bends[good][0])
        slope = -np.array([0.0, 1.0, 2 * top, 3 * top**2]) / bend
        vertex[k] = top + centre
        spread[k] = slope @ np.linalg.inv(design.T @ design) @ slope
    variance = square / dof if dof > 0 else np.nan
    return vertex, spread * variance, float(np.sqrt(variance)), max(1, dof)


def power_law(
    compute: Array, values: Array, variances: Array, weighted: bool = False
) -> tuple[Array, Array, float]:
    """Least squares of `values` [B, m] (logs) on ln C: theta [B, 2], covariance [2, 2], chi2.

    theta is (value at ln C0 of `centre_of`, slope); NaN values are left out, and theta is NaN where
    fewer than two are left. `weighted` by 1 / `variances`; plain otherwise, as Hoffmann et al. do:
    a vertex of few points and little curvature has a variance that is itself a guess. The
    covariance is that of given variances, widened where the scatter about the line (chi2 over its
    degrees of freedom) exceeds what they allow nine times in ten.
    """
    z = np.log(compute) - centre_of(compute)
    known = np.isfinite(values) & np.isfinite(variances)
    weight = known / np.where(np.isfinite(variances), variances, 1.0) if weighted else known * 1.0
    y = np.where(known, values, 0.0)
    s0, s1, s2 = (weight @ z**k for k in range(3))
    t0, t1 = (weight * y).sum(1), (weight * y) @ z
    determinant = s0 * s2 - s1**2
    good = determinant > 1e-9 * np.maximum(s0 * s2, 1e-300)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(good, (s0 * t1 - s1 * t0) / determinant, np.nan)
        level = (t0 - slope * s1) / s0
    theta = np.stack([level, slope], 1)
    if not good[0]:
        return theta, np.full((2, 2), np.nan), np.nan
    design = np.stack([np.ones_like(z), z], 1)
    pull = np.linalg.inv(np.array([[s0[0], s1[0]], [s1[0], s2[0]]])) @ (design.T * weight[0])
    spread = np.where(known[0], variances, 0.0)
    used = int(known[0].sum())
    rest = (y[0] - design @ theta[0])[known[0]]
    chi2 = float((rest**2 / spread[known[0]]).sum()) / (used - 2) if used > 2 else np.nan
    most = float(stats.chi2.ppf(0.9, used - 2)) / (used - 2) if used > 2 else np.inf
    return theta, (pull * spread) @ pull.T * (chi2 if chi2 > most else 1.0), chi2


def centre_of(compute: Array) -> float:
    """The ln C at which `power_law` states its level."""
    return float(np.log(compute).mean())


def argmin(
    params: Array, loss: Array, compute: Array, budget: Labels
) -> tuple[Array, Array, Array]:
    """The trained size that did best in each budget: ln N [m], ln L [m], compute [m]."""
    best = [
        int(np.flatnonzero(budget == k)[loss[budget == k].argmin()])
        for k in range(int(budget.max()) + 1)
    ]
    return np.log(params[best]), np.log(loss[best]), compute[best]


def joint(
    params: Array, loss: Array, compute: Array, budget: Labels, weights: Array | None = None
) -> tuple[Array, float]:
    """One curvature and one line of vertices for all budgets: theta [B, 2] as `power_law`'s, ln C0.

    ln L = c_budget + k (ln N - n0 - a (ln C - ln C0))^2, linear in (k, k n0, k a) once the rest is
    taken into the budgets' own constants.
    """
    x, y = np.log(params), np.log(loss)
    w = np.ones((1, len(x))) if weights is None else weights
    m = int(budget.max()) + 1
    spent = np.array([np.log(compute[budget == k]).mean() for k in range(m)])
    x0 = float(spent.mean())
    shift = x.mean()
    z = x - shift
    dummies = (budget[:, None] == np.arange(m)).astype(float)
    design = np.column_stack([z**2, z, z * (spent[budget] - x0), dummies])
    gram = np.einsum("bi,ij,ik->bjk", w, design, design) + 1e-12 * np.eye(m + 3)
    moment = np.einsum("bi,ij,i->bj", w, design, y)
    k, p, q = np.linalg.solve(gram, moment[..., None])[:, :3, 0].T
    with np.errstate(divide="ignore", invalid="ignore"):
        level = np.where(k > 0, -p / (2 * k) + shift, np.nan)
        slope = np.where(k > 0, -q / (2 * k), np.nan)
    return np.stack([level, slope], 1), x0


def frontier(compute: Array, minima: Array, variances: Array) -> Array:
    """L_opt(C) = E + k C^-g through minima (ln L, [B, m]): theta [B, 3] = (E, ln k, ln g).

    Least squares of relative residuals with weights 1 / `variances` [m]; E, k >= 0 in closed form
    for each g of a grid, then a parabola through the three lowest. NaN minima are left out; theta
    is NaN where fewer than three are left, or where no k > 0 fits.
    """
    x = np.log(compute)
    x0 = x.mean()
    known = np.isfinite(minima) & np.isfinite(variances)
    weight = np.where(known, 1 / np.where(known, variances, 1.0), 0.0)
    y = np.exp(np.where(known, minima, 0.0))
    root = np.sqrt(weight) / y
    enough = known.sum(1) >= 3
    coefficients, cost = _floors(root, weight, x - x0, FLOORS)
    best = np.clip(cost.argmin(1), 1, len(FLOORS) - 2)
    rows = np.arange(len(minima))
    step = np.log(FLOORS[1] / FLOORS[0])
    exponent = np.log(FLOORS[best])
    for _ in range(6):  # each halves the distance to the neighbours
        trial = exponent[:, None] + step * np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
        values = np.concatenate(
            [_floors(root, weight, x - x0, np.exp(t))[1] for t in trial.T[:, :, None]], axis=1
        )
        exponent = trial[rows, values.argmin(1)]
        step /= 2
    trial = exponent[:, None] + step * np.array([-1.0, 0.0, 1.0])
    left, middle, right = (
        _floors(root, weight, x - x0, np.exp(t)[:, None])[1][:, 0] for t in trial.T
    )
    bend = left - 2 * middle + right
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = np.where(bend > 0, 0.5 * (left - right) / bend, 0.0)
    exponent = exponent + step * np.clip(shift, -1, 1)
    exponent = np.clip(exponent, *np.log(FLOORS[[0, -1]]))
    coefficients, _ = _floors(root, weight, x - x0, np.exp(exponent)[:, None])
    floor, k = coefficients[:, 0].T
    with np.errstate(divide="ignore"):
        theta = np.stack([floor, np.log(k) + np.exp(exponent) * x0, exponent], 1)
    theta[~enough | ~(k > 0)] = np.nan
    return theta


def _floors(root: Array, weight: Array, x: Array, exponents: Array) -> tuple[Array, Array]:
    """(E, k) >= 0 of E + k exp(-g x) for each g: [B, G, 2] and costs [B, G].

    `root` [B, m] is sqrt(weight) / y, so that residuals are relative; `exponents` [G] or [B, G].
    """
    g = np.atleast_2d(exponents)
    falling = np.exp(-g[..., None] * x)  # [1 or B, G, m]
    target = np.sqrt(weight)
    ones, falls = root[:, None, :], root[:, None, :] * falling
    a, b, c = (ones * ones).sum(-1), (ones * falls).sum(-1), (falls * falls).sum(-1)
    p, q = (ones * target[:, None]).sum(-1), (falls * target[:, None]).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        determinant = a * c - b * b
        floor, k = (c * p - b * q) / determinant, (a * q - b * p) / determinant
        no_floor = ~((floor >= 0) & np.isfinite(floor))
        k = np.where(no_floor, q / c, k)
        floor = np.where(no_floor, 0.0, floor)
        flat = ~(k >= 0)
        floor, k = np.where(flat, p / a, floor), np.where(flat, 0.0, k)
    residual = floor[..., None] * ones + k[..., None] * falls - target[:, None]
    return np.stack(np.broadcast_arrays(floor, k), -1), (residual**2).sum(-1)


def bare_power_law(compute: Array, minima: Array) -> tuple[float, float]:
    """(ln k, g) of L = k C^-g through minima (ln L, [m]): a baseline, and too optimistic."""
    good = np.isfinite(minima)
    slope, level = np.polyfit(np.log(compute[good]), minima[good], 1)
    return float(level), float(-slope)
