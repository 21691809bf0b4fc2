"""The coupled surface L = E + (u^p + v^p)^(1/p), u = A N^-alpha, v = B D^-beta.

With p = 1 it is the additive surface. With p > 1 the larger of the two terms counts for more: what
size lacks is not mended by data, as where a network can use only so much of them (Videau et al.
2026). One parameter more than the surface has, so it needs more rows and says less of each; it is a
third opinion where surface and frontier differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize

from nhzoo.scaling.parametric import Surface

Array = npt.NDArray[np.float64]

COUPLINGS = (0.4, 5.0)
"""Bounds of p: beyond them the surface is that of a bound, to what runs can tell."""
LEAST_POINTS = 10
_STARTS = (0.7, 1.0, 2.0)


@dataclass(frozen=True)
class Coupled:
    """A fitted coupled surface. `theta` is (E, ln A, ln B, ln alpha, ln beta, ln p).

    `covariance` [6, 6] of theta, `rms` of relative residuals over `dof` degrees of freedom.
    """

    theta: Array
    covariance: Array
    rms: float
    dof: int


def coupled_losses(theta: Array, params: Array | float, samples: Array | float) -> Array:
    """L of each theta ([..., 6]) at sizes and samples that broadcast."""
    floor, ln_a, ln_b, ln_alpha, ln_beta, ln_p = np.moveaxis(np.asarray(theta, np.float64), -1, 0)
    p = np.exp(ln_p)
    u = p * (ln_a - np.exp(ln_alpha) * np.log(params))
    v = p * (ln_b - np.exp(ln_beta) * np.log(samples))
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(floor + np.exp(np.logaddexp(u, v) / p), np.float64)


def as_surface(theta: Array) -> Array:
    """The additive surface [B, 5] whose optimum at each budget is that of the coupled ones [B, 6].

    u^p + v^p is least where u and v with p-fold exponents and p-th powers of A and B sum to least.
    """
    _, ln_a, ln_b, ln_alpha, ln_beta, ln_p = theta.T
    p = np.exp(ln_p)
    return np.stack([0 * ln_a, p * ln_a, p * ln_b, ln_alpha + ln_p, ln_beta + ln_p], 1)


def fit_coupled(params: Array, samples: Array, loss: Array, start: Surface) -> Coupled | None:
    """Fit by least squares of relative residuals, weighted as Huber's fit `start` weighs rows.

    None where rows are too few, or the start has a coefficient on its bound.
    """
    if len(loss) < LEAST_POINTS or not np.isfinite(start.theta).all():
        return None
    middle_n, middle_d = np.log(params).mean(), np.log(samples).mean()
    n, d = np.log(params) - middle_n, np.log(samples) - middle_d
    root = np.sqrt(start.weights)

    def terms(place: Array) -> tuple[Array, Array, Array]:
        _, ln_a, ln_b, ln_alpha, ln_beta, ln_p = place
        p = np.exp(ln_p)
        u = p * (ln_a - np.exp(ln_alpha) * n)
        v = p * (ln_b - np.exp(ln_beta) * d)
        both = np.logaddexp(u, v)
        return u - both, v - both, both / p  # logs of the shares of u^p and v^p, ln of the sum

    def residuals(place: Array) -> Array:
        return np.asarray(root * (1 - (place[0] + np.exp(terms(place)[2])) / loss))

    def jacobian(place: Array) -> Array:
        of_u, of_v, ln_sum = terms(place)
        p = np.exp(place[5])
        size, data = np.exp(of_u), np.exp(of_v)
        reducible = np.exp(ln_sum)
        # d ln sum / d ln p: the shares' entropy over p, as ln u = (of_u + both) / p.
        entropy = -(size * of_u + data * of_v) / p
        slopes = [
            np.ones_like(n),
            reducible * size,
            reducible * data,
            -reducible * size * np.exp(place[3]) * n,
            -reducible * data * np.exp(place[4]) * d,
            -reducible * entropy,
        ]
        return np.asarray(-(root / loss)[:, None] * np.stack(slopes, 1))

    low, high = np.log(COUPLINGS)
    bounds = (
        np.array([0.0, -np.inf, -np.inf, np.log(0.01), np.log(0.01), low]),
        np.array([float(loss.min()), np.inf, np.inf, np.log(4.0), np.log(4.0), high]),
    )
    base = start.theta.copy()
    base[1] -= start.alpha * middle_n
    base[2] -= start.beta * middle_d
    base[0] = np.clip(base[0], 1e-9, 0.999 * float(loss.min()))
    found = []
    for p in _STARTS:
        place = np.array([*base, np.log(p)])
        place[1:3] -= np.log(2) * (1 / p - 1)  # the same sum where u = v
        place[3:5] = np.clip(place[3:5], np.log(0.011), np.log(3.9))
        found.append(
            optimize.least_squares(residuals, place, jacobian, bounds, x_scale="jac", max_nfev=200)
        )
    best = min(found, key=lambda one: float(one.cost))
    theta = np.asarray(best.x, np.float64)
    dof = len(loss) - 6
    square = float((residuals(theta) ** 2).sum())
    inliers = max(0.1, float((start.weights >= 1).mean()))
    influence = start.weights * (1 - (theta[0] + np.exp(terms(theta)[2])) / loss)
    variance = float((influence**2).sum()) / dof / inliers**2
    slopes = -jacobian(theta) / root[:, None]
    edge = 1e-3
    free = (theta > bounds[0] + edge) & (theta < bounds[1] - edge)
    free[0] = True  # a floor on its bound would make the rest too sure
    moved = np.eye(6)  # from coefficients of centred logs to those of plain ones
    alpha, beta = np.exp(theta[3:5])
    moved[1, 3], moved[2, 4] = alpha * middle_n, beta * middle_d
    part = slopes[:, free]
    norms = np.sqrt((part**2).sum(0)) + 1e-300
    inverse = np.linalg.pinv((part / norms).T @ (part / norms), rcond=1e-14, hermitian=True)
    covariance = np.zeros((6, 6))
    covariance[np.ix_(free, free)] = variance * inverse / np.outer(norms, norms)
    plain = theta.copy()
    plain[1] += alpha * middle_n
    plain[2] += beta * middle_d
    return Coupled(plain, moved @ covariance @ moved.T, (square / dof) ** 0.5, dof)
