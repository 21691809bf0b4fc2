"""The surface by Hoffmann's approach 3: Huber's loss of log residuals, L-BFGS from many starts.

The objective is a SUM and its tolerance tight, for with the mean L-BFGS stops early (Besiroglu et
al. 2024, arXiv 2404.10102).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import optimize

from nhzoo.scaling.parametric import EXPONENTS, Surface, variable_projection

Array = npt.NDArray[np.float64]
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
