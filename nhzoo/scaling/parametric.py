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
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import optimize

from nhzoo.scaling.projection import EXPONENTS, SUPPORTS, Problems, Solution, refine, reweighted

Array = npt.NDArray[np.float64]

LEAST_POINTS = 7

_GRID = np.geomspace(0.05, 1.2, 22)


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
    problem = Problems(np.log(n) - shift_n, np.log(d) - shift_d, y, np.sqrt(given)[None])
    starts = np.array([start]) if start else _search(problem)
    found = refine(problem.take(np.zeros(len(starts), np.intp)), starts)
    best = [int(found.cost.argmin())]
    solved = Solution(found.exponents[best], found.linear[best], found.cost[best])
    huber = np.ones(len(y))
    dof = max(0, round(float(given.sum())) - 5)
    if robust:
        solved, weighed = reweighted(problem, solved, given[None], rounds, steps=2)
        huber = weighed[0]
    exponents, linear = solved.exponents[0], solved.linear[0]
    relative = 1 - solved.fitted(problem)[0] / y
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


def resampled(
    params: Array, samples: Array, loss: Array, weights: Array, start: tuple[float, float]
) -> Array:
    """Theta of each resample [B, 5], of `weights` [B, n]; NaN for too few rows or sizes."""
    shift_n, shift_d = np.log(params).mean(), np.log(samples).mean()
    sizes = np.unique(params, return_inverse=True)[1]
    drawn = weights > 0
    held = np.stack([drawn[:, sizes == k].any(1) for k in range(int(sizes.max()) + 1)], 1)
    enough = (held.sum(1) >= 3) & (drawn.sum(1) >= LEAST_POINTS)
    theta = np.full((len(weights), 5), np.nan)
    if enough.any():
        given = weights[enough]
        u, v = np.log(params) - shift_n, np.log(samples) - shift_d
        problems = Problems(u, v, loss, np.sqrt(given))
        solved, _ = reweighted(
            problems, refine(problems, np.tile(start, (len(given), 1))), given, rounds=6
        )
        alpha, beta = solved.exponents.T
        with np.errstate(divide="ignore"):
            theta[enough] = np.stack(
                [
                    solved.linear[:, 0],
                    np.log(solved.linear[:, 1]) + alpha * shift_n,
                    np.log(solved.linear[:, 2]) + beta * shift_d,
                    np.log(alpha),
                    np.log(beta),
                ],
                1,
            )
    return theta


_GRID_OF_FLOORS = 17


def floor_profile(
    surface: Surface,
    params: Array,
    samples: Array,
    loss: Array,
    reach: float,
    spread: float = 1.0,
) -> tuple[float, float, Array]:
    """The ends of the floor's profile likelihood interval, and theta [2, 5] refitted at them.

    At each E the other parameters are fitted anew, with the weights of `surface`. E is inside while
    the sum of squares is less than `reach`^2 (a quantile of t) residual variances above its least.
    `spread`: what that variance is to be multiplied by. The ends are 0 and the lowest loss where
    rows set none.
    """
    shift_n, shift_d = np.log(params).mean(), np.log(samples).mean()
    problem = Problems(
        np.log(params) - shift_n, np.log(samples) - shift_d, loss, np.sqrt(surface.weights)[None]
    )
    start = np.array([[surface.alpha, surface.beta]])

    def held(floors: Array) -> Solution:
        many = problem.take(np.zeros(len(floors), np.intp))
        return refine(replace(many, floor=floors), np.repeat(start, len(floors), 0), steps=30)

    influence = surface.weights * surface.residuals
    inliers = max(0.1, float((surface.weights >= 1).mean()))
    variance = spread * float((influence**2).sum()) / max(1, surface.dof) / inliers**2
    most = reach * variance**0.5

    def excess(floors: Array) -> Array:
        """Square roots of what the sums of squares exceed the least by."""
        return np.asarray(np.sqrt(np.maximum(held(floors).cost - surface.objective, 0.0)))

    ends = []
    top = 0.999 * float(loss.min())
    for last in (0.0, max(top, surface.floor)):
        edges = np.linspace(surface.floor, last, _GRID_OF_FLOORS)
        for _ in range(2):  # the second within the step in which the end lies
            over = excess(edges) - most
            beyond = np.flatnonzero(over > 0)
            if not len(beyond) or beyond[0] == 0:
                break
            inner, outer = beyond[0] - 1, beyond[0]
            edge, step = edges[inner], edges[outer] - edges[inner]
            last = float(edge + step * over[inner] / (over[inner] - over[outer]))
            edges = np.linspace(edge, edge + step, _GRID_OF_FLOORS)
        ends.append(last)
    solved = held(np.array(ends))
    alpha, beta = solved.exponents.T
    with np.errstate(divide="ignore"):
        a, b = np.log(solved.linear[:, 1]), np.log(solved.linear[:, 2])
    logs = np.log(solved.exponents).T
    theta = np.stack([np.array(ends), a + alpha * shift_n, b + beta * shift_d, *logs], 1)
    return ends[0], ends[1], theta


def _search(problem: Problems) -> Array:
    """The lowest few local minima of the grid of exponents, each a start."""
    target = problem.root[0]
    scale = target / problem.loss
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
    for used in SUPPORTS:
        support = np.flatnonzero(used)
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
    return _GRID[minima]


def _covariance(
    problem: Problems,
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
    if dof < 1:
        return np.full((5, 5), np.nan)
    pull = _pull(
        1 / problem.loss, size, data, problem.u + shift_n, problem.v + shift_d, alpha, beta, given
    )
    return _variance(relative, given, huber, dof) * pull @ pull.T


def _variance(relative: Array, given: Array, huber: Array, dof: int) -> float:
    """Of one relative residual: outliers counted for less."""
    influence = huber * relative
    inliers = float((given * (huber >= 1)).sum() / given.sum())
    return float((given * influence**2).sum()) / max(1, dof) / max(inliers, 0.1) ** 2


def slopes(floor: Array, size: Array, data: Array, ln_n: Array, ln_d: Array, theta: Array) -> Array:
    """How the relative loss of rows moves with theta: [n, 5].

    `floor`, `size` and `data` [n] are 1, A N^-alpha and B D^-beta over the loss.
    """
    alpha, beta = np.exp(theta[3:])
    return np.stack([floor, size, data, -alpha * ln_n * size, -beta * ln_d * data], 1)


def _pull(
    floor: Array,
    size: Array,
    data: Array,
    ln_n: Array,
    ln_d: Array,
    alpha: float,
    beta: float,
    given: Array,
) -> Array:
    """How theta moves with the relative error of each row, [5, n]: least squares' influence."""
    theta = np.array([0.0, 0.0, 0.0, np.log(alpha), np.log(beta)])
    low, high = EXPONENTS
    grows, falls = bool((size > 0).any()), bool((data > 0).any())
    free = [
        True,
        grows,
        falls,
        bool(grows and low * 1.001 < alpha < high / 1.001),
        bool(falls and low * 1.001 < beta < high / 1.001),
    ]
    part = slopes(floor, size, data, ln_n, ln_d, theta)[:, free] * np.sqrt(given)[:, None]
    norms = np.sqrt((part**2).sum(0)) + 1e-300
    inverse = np.linalg.pinv((part / norms).T @ (part / norms), rcond=1e-14, hermitian=True)
    pull = np.zeros((5, len(size)))
    pull[free] = (inverse @ (part / norms).T) / norms[:, None]
    return pull


def influence(surface: Surface, params: Array, samples: Array, loss: Array) -> tuple[Array, float]:
    """How theta moves with the relative error of each row, [5, n], and that error's variance.

    Their product over rows, pull @ pull.T x variance, is the surface's covariance; of two surfaces
    whose rows share errors it is what the surfaces share.
    """
    ln_n, ln_d = np.log(params), np.log(samples)
    size = surface.a * np.exp(-surface.alpha * ln_n) / loss
    data = surface.b * np.exp(-surface.beta * ln_d) / loss
    given = np.ones(len(loss))
    pull = _pull(1 / loss, size, data, ln_n, ln_d, surface.alpha, surface.beta, given)
    return pull, _variance(surface.residuals, given, surface.weights, surface.dof)


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
