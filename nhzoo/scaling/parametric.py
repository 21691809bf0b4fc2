"""The surface L(N, D) = E + A N^-alpha + B D^-beta (Hoffmann et al. 2022, arXiv 2203.15556, eq. 2).

`variable_projection` is the default estimator: given (alpha, beta) the rest is linear, so E, A and
B are found by non-negative least squares inside a two-dimensional search (Golub and Pereyra 1973;
for scaling laws Czech et al. 2026, arXiv 2603.22339). It needs no starting values.

Hoffmann's approach 3 is Huber's loss of log residuals, L-BFGS from many starts. The objective is a
SUM and its tolerance tight, for with the mean L-BFGS stops early (Besiroglu et al. 2024, arXiv
2404.10102).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize

Array = npt.NDArray[np.float64]

EXPONENTS = (0.02, 2.0)
LEAST_POINTS = 7
HUBER = 1.345
"""Huber's threshold in robust standard deviations: 95 % efficient for normal noise."""

_GRID = np.geomspace(0.05, 1.2, 22)
_SUPPORTS: tuple[tuple[int, ...], ...] = ((0, 1, 2), (0, 1), (0, 2), (1, 2), (0,), (1,), (2,))


@dataclass(frozen=True)
class Surface:
    """A fitted surface. `weights` [n] are 1 for a point that fits, less for an outlier.

    `residuals` [n] are relative: (L - fit) / L. `covariance` [5, 5] is that of `theta`.
    """

    floor: float
    a: float
    b: float
    alpha: float
    beta: float
    weights: Array
    residuals: Array
    covariance: Array
    dof: int
    objective: float

    @property
    def theta(self) -> Array:
        """(E, ln A, ln B, ln alpha, ln beta): what covariances and draws are of."""
        with np.errstate(divide="ignore"):
            logs = np.log([self.a, self.b, self.alpha, self.beta])
        return np.array([self.floor, *logs])

    @property
    def rms(self) -> float:
        """Relative residuals, root mean square, over degrees of freedom, outliers downweighted."""
        square = float((self.weights * self.residuals**2).sum())
        return float((square / max(1, self.dof)) ** 0.5)

    @property
    def at_bound(self) -> tuple[str, ...]:
        """The parameters that ended on a bound."""
        names = [
            n for n, value in zip("EAB", (self.floor, self.a, self.b), strict=True) if not value
        ]
        low, high = EXPONENTS
        for name, value in (("alpha", self.alpha), ("beta", self.beta)):
            if value <= low * 1.001 or value >= high / 1.001:
                names.append(name)
        return tuple(names)


def losses(theta: Array, params: Array | float, samples: Array | float) -> Array:
    """L of each theta ([..., 5], see `Surface.theta`) at sizes and samples that broadcast."""
    floor, ln_a, ln_b, ln_alpha, ln_beta = np.moveaxis(np.asarray(theta, np.float64), -1, 0)
    with np.errstate(over="ignore"):
        size = np.exp(ln_a - np.exp(ln_alpha) * np.log(params))
        data = np.exp(ln_b - np.exp(ln_beta) * np.log(samples))
    return np.asarray(floor + size + data, np.float64)


@dataclass(frozen=True)
class _Problem:
    """Least squares of relative residuals; `u`, `v`: centred ln N, ln D; `root`: sqrt(weights)."""

    u: Array
    v: Array
    loss: Array
    root: Array

    def columns(self, exponents: Array) -> Array:
        shape = np.ones((len(self.u), 3))
        shape[:, 1] = np.exp(-exponents[0] * self.u)
        shape[:, 2] = np.exp(-exponents[1] * self.v)
        return shape * (self.root / self.loss)[:, None]


def variable_projection(
    params: Array,
    samples: Array,
    loss: Array,
    *,
    weights: Array | None = None,
    robust: bool = True,
    start: tuple[float, float] | None = None,
    rounds: int = 30,
) -> Surface:
    """Fit the surface by least squares of relative residuals, or Huber's loss of them.

    `params`, `samples`, `loss`: [n], positive. `weights` [n]: what each point counts for (2 is as
    two such points). `robust`: points whose residual exceeds 1.345 robust standard deviations (from
    the median absolute one) weigh less, reweighted until nothing moves. `start`: (alpha, beta), to
    skip the search.
    """
    n, d, y = (np.asarray(column, np.float64) for column in (params, samples, loss))
    given = np.ones(len(y)) if weights is None else np.asarray(weights, np.float64)
    shift_n, shift_d = np.log(n).mean(), np.log(d).mean()
    problem = _Problem(np.log(n) - shift_n, np.log(d) - shift_d, y, np.sqrt(given))
    starts = [np.array(start)] if start else _search(problem)
    fits = [_refine(problem, s) for s in starts]
    exponents, linear, _ = min(fits, key=lambda fit: float(fit[2] @ fit[2]))
    huber = np.ones(len(y))
    dof = max(0, round(float(given.sum())) - 5)
    for _ in range(rounds if robust else 0):
        relative = 1 - problem.columns(exponents) @ linear * _inverse(problem.root)
        scale = _scale(relative, given, dof)
        if scale < 1e-10:
            break
        huber = np.minimum(1.0, HUBER * scale / np.maximum(np.abs(relative), 1e-300))
        weighted = _Problem(problem.u, problem.v, y, np.sqrt(given * huber))
        before = exponents
        exponents, linear, _ = _refine(weighted, exponents)
        if np.abs(np.log(exponents / before)).max() < 1e-8:
            break
    shape = np.stack([np.ones(len(y)), np.exp(-exponents[0] * problem.u)], 1)
    shape = np.column_stack([shape, np.exp(-exponents[1] * problem.v)])
    relative = 1 - shape @ linear / y
    floor, scaled_a, scaled_b = (float(c) for c in linear)
    alpha, beta = (float(e) for e in exponents)
    return Surface(
        floor=floor,
        a=scaled_a * float(np.exp(alpha * shift_n)),
        b=scaled_b * float(np.exp(beta * shift_d)),
        alpha=alpha,
        beta=beta,
        weights=huber,
        residuals=relative,
        covariance=_covariance(
            problem, exponents, linear, relative, given, huber, dof, shift_n, shift_d
        ),
        dof=dof,
        objective=float((given * huber * relative**2).sum()),
    )


def _inverse(root: Array) -> Array:
    return np.divide(1.0, root, out=np.zeros_like(root), where=root > 0)


def _scale(residuals: Array, weights: Array, dof: int) -> float:
    """Robust standard deviation: the (weighted) median absolute residual, for n - 5 of n."""
    size = np.abs(residuals)
    order = np.argsort(size)
    cumulative = np.cumsum(weights[order])
    median = float(size[order][np.searchsorted(cumulative, cumulative[-1] / 2)])
    return float(1.4826 * median * (cumulative[-1] / max(1.0, float(dof))) ** 0.5)


def _search(problem: _Problem) -> list[Array]:
    """The lowest few local minima of the grid of exponents, each a start."""
    scale = problem.root / problem.loss
    target = problem.root
    left = np.exp(-_GRID[:, None] * problem.u) * scale
    right = np.exp(-_GRID[:, None] * problem.v) * scale
    m = len(_GRID)
    gram = np.empty((m, m, 3, 3))
    gram[..., 0, 0] = scale @ scale
    gram[..., 0, 1] = gram[..., 1, 0] = (left @ scale)[:, None]
    gram[..., 0, 2] = gram[..., 2, 0] = right @ scale
    gram[..., 1, 1] = (left * left).sum(1)[:, None]
    gram[..., 2, 2] = (right * right).sum(1)
    gram[..., 1, 2] = gram[..., 2, 1] = left @ right.T
    moment = np.empty((m, m, 3))
    moment[..., 0] = scale @ target
    moment[..., 1] = (left @ target)[:, None]
    moment[..., 2] = right @ target
    best = np.full((m, m), np.inf)
    for support in _SUPPORTS:
        pick = np.ix_(support, support)
        part = gram[..., pick[0], pick[1]]
        ridge = 1e-13 * np.trace(part, axis1=-2, axis2=-1)[..., None, None] * np.eye(len(support))
        found = np.linalg.solve(part + ridge, moment[..., support][..., None])[..., 0]
        cost = target @ target - (found * moment[..., support]).sum(-1)
        best = np.where((found >= 0).all(-1), np.minimum(best, cost), best)
    padded = np.pad(best, 1, constant_values=np.inf)
    around = np.min(
        [
            padded[1 + i : 1 + i + m, 1 + j : 1 + j + m]
            for i in (-1, 0, 1)
            for j in (-1, 0, 1)
            if i or j
        ],
        axis=0,
    )
    minima = np.argwhere(best <= around)
    minima = minima[np.argsort(best[tuple(minima.T)])][:3]
    return [np.array([_GRID[i], _GRID[j]]) for i, j in minima]


def _solve(columns: Array, target: Array) -> tuple[Array, tuple[int, ...]]:
    """Non-negative least squares of three columns, by trying every support."""
    best, cost, support = np.zeros(3), np.inf, _SUPPORTS[-1]
    for chosen in _SUPPORTS:
        part = columns[:, chosen]
        found = np.asarray(np.linalg.lstsq(part, target, rcond=None)[0], np.float64)
        if (found < 0).any():
            continue
        if chosen == (0, 1, 2):  # a feasible optimum without bounds is the optimum
            return found, chosen
        rest = target - part @ found
        if rest @ rest < cost:
            cost, support = float(rest @ rest), chosen
            best = np.zeros(3)
            best[list(chosen)] = found
    return best, support


def _refine(problem: _Problem, start: Array) -> tuple[Array, Array, Array]:
    """Levenberg-Marquardt in (ln alpha, ln beta), with Kaufman's (1975) projected Jacobian.

    Gives exponents [2], linear coefficients [3] of centred columns, and weighted residuals [n].
    """
    low, high = np.log(EXPONENTS)
    target = problem.root
    place = np.clip(np.log(start), low, high)
    damping = 1e-3

    def at(place: Array) -> tuple[Array, Array, tuple[int, ...], Array, float]:
        columns = problem.columns(np.exp(place))
        linear, support = _solve(columns, target)
        rest = target - columns @ linear
        return columns, linear, support, rest, float(rest @ rest)

    columns, linear, support, rest, cost = at(place)
    for _ in range(100):
        alpha, beta = np.exp(place)
        slope = np.stack(
            [
                columns[:, 1] * linear[1] * alpha * problem.u,
                columns[:, 2] * linear[2] * beta * problem.v,
            ],
            1,
        )
        basis = np.linalg.qr(columns[:, support])[0]
        slope -= basis @ (basis.T @ slope)
        hessian, gradient = slope.T @ slope, slope.T @ rest
        diagonal = np.diag(hessian) + 1e-30
        moved = False
        for _ in range(12):
            step = -np.linalg.solve(hessian + damping * np.diag(diagonal), gradient)
            new = np.clip(place + np.clip(step, -0.7, 0.7), low, high)
            tried = at(new)
            if tried[-1] <= cost:
                moved = True
                break
            damping = max(damping * 8, 1e-9)
        if not moved:
            break
        shift = float(np.abs(new - place).max())
        gain = cost - tried[-1]
        place, (columns, linear, support, rest, cost) = new, tried
        damping = max(damping / 8, 1e-12)
        if shift < 1e-12 or (shift < 1e-7 and gain <= 1e-14 * cost):
            break
    return np.exp(place), linear, rest


def _covariance(
    problem: _Problem,
    exponents: Array,
    linear: Array,
    relative: Array,
    given: Array,
    huber: Array,
    dof: int,
    shift_n: float,
    shift_d: float,
) -> Array:
    """Of theta, by the delta method; of Huber's estimate after Huber (1981), eq. 7.6.4.

    A parameter on a bound counts as fixed, but E: at zero it would make the rest too sure.
    """
    alpha, beta = exponents
    size = linear[1] * np.exp(-alpha * problem.u) / problem.loss
    data = linear[2] * np.exp(-beta * problem.v) / problem.loss
    slopes = np.stack(
        [
            1 / problem.loss,
            size,
            data,
            -alpha * (problem.u + shift_n) * size,
            -beta * (problem.v + shift_d) * data,
        ],
        1,
    )
    low, high = EXPONENTS
    free = [
        True,
        bool(linear[1] > 0),
        bool(linear[2] > 0),
        bool(linear[1] > 0 and low * 1.001 < alpha < high / 1.001),
        bool(linear[2] > 0 and low * 1.001 < beta < high / 1.001),
    ]
    result = np.zeros((5, 5))
    if dof < 1:
        return np.full((5, 5), np.nan)
    influence = huber * relative
    inliers = float((given * (huber >= 1)).sum() / given.sum())
    variance = float((given * influence**2).sum()) / dof / max(inliers, 0.1) ** 2
    part = slopes[:, free] * np.sqrt(given)[:, None]
    norms = np.sqrt((part**2).sum(0)) + 1e-300
    inverse = np.linalg.pinv((part / norms).T @ (part / norms), rcond=1e-14, hermitian=True)
    result[np.ix_(free, free)] = variance * inverse / np.outer(norms, norms)
    return result


def condition(surface: Surface, params: Array, samples: Array, loss: Array) -> float:
    """Condition number of the scaled five-parameter problem: how collinear the design is."""
    size = surface.a * params**-surface.alpha / loss
    data = surface.b * samples**-surface.beta / loss
    n, d = np.log(params), np.log(samples)
    part = np.stack([1 / loss, size, data, (n - n.mean()) * size, (d - d.mean()) * data], 1)
    part = part / (np.sqrt((part**2).sum(0)) + 1e-300)
    return float(np.linalg.cond(part))


Objective = Callable[[Array], tuple[float, Array]]


def parametric(
    params: Array,
    samples: Array,
    loss: Array,
    *,
    weights: Array | None = None,
    delta: float = 1e-3,
    start: Array | None = None,
) -> Surface:
    """Hoffmann's approach 3: sum of Huber's loss (threshold `delta`) of log residuals.

    Starts: the surface of `variable_projection`, and a grid as in the paper but coarser (32), or
    `start` (theta) alone. Its `covariance` is NaN: intervals come from resampling runs.
    """
    n, d, y = (np.log(np.asarray(column, np.float64)) for column in (params, samples, loss))
    given = np.ones(len(y)) if weights is None else np.asarray(weights, np.float64)

    def objective(place: Array) -> tuple[float, Array]:
        ln_e, ln_a, ln_b, alpha, beta = place
        terms = np.stack([np.full(len(y), ln_e), ln_a - alpha * n, ln_b - beta * d])
        top = terms.max(0)
        shares = np.exp(terms - top)
        total = shares.sum(0)
        rest = top + np.log(total) - y
        shares /= total
        inside = np.abs(rest) <= delta
        value = np.where(inside, rest**2 / 2, delta * (np.abs(rest) - delta / 2))
        pull = given * np.clip(rest, -delta, delta)
        gradient = shares @ pull
        slopes = np.array([-(pull * shares[1] * n).sum(), -(pull * shares[2] * d).sum()])
        # In units of delta^2, so that L-BFGS's own tolerances mean something.
        return float((given * value).sum()) / delta**2, np.array([*gradient, *slopes]) / delta**2

    if start is None:
        projected = variable_projection(params, samples, loss, weights=weights)
        floor = max(projected.floor, 1e-3 * float(np.exp(y.min())))
        first = [np.log(floor), *projected.theta[1:3], projected.alpha, projected.beta]
        starts = [np.nan_to_num(np.array(first), neginf=-20.0)]
        for alpha in (0.2, 0.8):
            for beta in (0.2, 0.8):
                for share in (0.1, 0.3, 0.6, 0.9):
                    for part in (0.3, 0.7):
                        excess = np.exp(y.mean()) * (1 - share)
                        starts.append(
                            np.array(
                                [
                                    y.min() + np.log(share),
                                    np.log(excess * part) + alpha * n.mean(),
                                    np.log(excess * (1 - part)) + beta * d.mean(),
                                    alpha,
                                    beta,
                                ]
                            )
                        )
    else:
        floor = max(float(start[0]), 1e-6 * float(np.exp(y.min())))
        starts = [np.array([np.log(floor), start[1], start[2], *np.exp(start[3:])])]
    centre = np.array([0.0, -n.mean(), -d.mean()])
    found = []
    for place in starts:  # centred, which makes the valley rounder
        shifted = place.copy()
        shifted[1] += place[3] * centre[1]
        shifted[2] += place[4] * centre[2]
        found.append(_lbfgs(objective, shifted, centre))
    best = min(found, key=lambda place: objective(place)[0])
    ln_e, ln_a, ln_b, alpha, beta = (float(value) for value in best)
    fitted = np.exp(ln_e) + np.exp(ln_a - alpha * n) + np.exp(ln_b - beta * d)
    relative = 1 - fitted / np.exp(y)
    return Surface(
        floor=float(np.exp(ln_e)),
        a=float(np.exp(ln_a)),
        b=float(np.exp(ln_b)),
        alpha=alpha,
        beta=beta,
        weights=np.minimum(1.0, delta / np.maximum(np.abs(relative), 1e-300)),
        residuals=relative,
        covariance=np.full((5, 5), np.nan),
        dof=max(0, len(y) - 5),
        objective=objective(best)[0] * delta**2,
    )


def _lbfgs(objective: Objective, start: Array, centre: Array) -> Array:
    """L-BFGS on coefficients of centred ln N, ln D, begun anew until nothing is gained."""

    def moved(place: Array) -> Array:
        result = place.copy()
        result[1] -= place[3] * centre[1]
        result[2] -= place[4] * centre[2]
        return result

    def shifted(place: Array) -> tuple[float, Array]:
        value, gradient = objective(moved(place))
        gradient = gradient.copy()
        gradient[3] -= gradient[1] * centre[1]
        gradient[4] -= gradient[2] * centre[2]
        return value, gradient

    bounds = [(None, None)] * 3 + [EXPONENTS] * 2
    value = np.inf
    for _ in range(6):
        done = optimize.minimize(
            shifted,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"ftol": 1e-13, "gtol": 1e-10, "maxiter": 2_000, "maxfun": 20_000},
        )
        start = done.x
        if value - done.fun <= 1e-9 * abs(done.fun):
            break
        value = done.fun
    return moved(start)
