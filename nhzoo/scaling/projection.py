"""Variable projection of many surfaces at once: separable least squares in batches.

L = E + A exp(-alpha u) + B exp(-beta v) is linear in E, A and B once the exponents are given (Golub
and Pereyra 1973). One call solves B problems that share rows and differ in what the rows count for:
the resamples of a bootstrap, the starts of a search, or values at which E is held.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]

EXPONENTS = (0.02, 2.0)
HUBER = 1.345
"""Huber's threshold in robust standard deviations: 95 % efficient for normal noise."""

SUPPORTS = np.array(
    [[1, 1, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], bool
)
"""Which of E, A and B are not zero, the full one first."""

_GENTLY = 1e-7  # first damping where the start is near the end
_FEW = 4  # problems
_FLAT = 1e-13  # of a column's length: what is left of it then is rounding


@dataclass(frozen=True)
class Problems:
    """B problems of n rows: least squares of relative residuals.

    `u`, `v` [n]: centred ln N and ln D; `loss` [n]; `root` [B, n]: square roots of what rows count
    for; `floor` [B]: E where it is held, or None.
    """

    u: Array
    v: Array
    loss: Array
    root: Array
    floor: Array | None = None

    def take(self, places: Places) -> Problems:
        """Some of the problems."""
        floor = None if self.floor is None else self.floor[places]
        return replace(self, root=self.root[places], floor=floor)

    def columns(self, ln_exponents: Array) -> Array:
        """What E, A and B multiply [B, 3, n], of (ln alpha, ln beta) [B, 2]."""
        scale = self.root / self.loss
        alpha, beta = np.exp(ln_exponents).T[:, :, None]
        return np.stack([scale, scale * np.exp(-alpha * self.u), scale * np.exp(-beta * self.v)], 1)

    @property
    def target(self) -> Array:
        """What the columns are to sum to, [B, n]."""
        if self.floor is None:
            return self.root
        return self.root * (1 - self.floor[:, None] / self.loss)


@dataclass(frozen=True)
class Solution:
    """`exponents` [B, 2], `linear` [B, 3] (E, A, B of centred columns), `cost` [B]."""

    exponents: Array
    linear: Array
    cost: Array

    def fitted(self, problems: Problems) -> Array:
        """The loss of each row, [B, n]."""
        alpha, beta = self.exponents.T[:, :, None]
        floor, a, b = self.linear.T[:, :, None]
        return np.asarray(floor + a * np.exp(-alpha * problems.u) + b * np.exp(-beta * problems.v))


def refine(problems: Problems, start: Array, steps: int = 100, damped_by: float = 1e-3) -> Solution:
    """Levenberg-Marquardt in (ln alpha, ln beta), with Kaufman's (1975) projected Jacobian.

    `start` [B, 2]: alpha and beta. Each problem goes on until its own step or gain is nothing, for
    `steps` at most. `damped_by`: the first damping.
    """
    low, high = np.log(EXPONENTS)
    place = np.clip(np.log(start), low, high)
    damping = np.full(len(place), damped_by)
    columns, linear, basis, rest, cost = _at(problems, place)
    both = np.stack([problems.u, problems.v])
    active = np.arange(len(place))
    for _ in range(steps):
        if not len(active):
            break
        pull = linear[active, 1:] * np.exp(place[active])
        slope = columns[active, 1:] * pull[:, :, None] * both
        used = basis[active]
        slope -= (slope @ used.transpose(0, 2, 1)) @ used
        hessian = slope @ slope.transpose(0, 2, 1)
        gradient = (slope @ rest[active][:, :, None])[:, :, 0]
        diagonal, cross = hessian[:, [0, 1], [0, 1]], hessian[:, 0, 1]
        ridge = diagonal + 1e-30
        ended = np.zeros(len(active), bool)
        trying = np.arange(len(active))
        for _ in range(12):
            mine = active[trying]
            (a, d), b = (diagonal[trying] + damping[mine, None] * ridge[trying]).T, cross[trying]
            p, q = gradient[trying].T
            step = np.stack([b * q - d * p, b * p - a * q], 1) / (a * d - b * b)[:, None]
            new = np.clip(place[mine] + np.clip(step, -0.7, 0.7), low, high)
            tried = _at(problems.take(mine), new)
            better = tried[-1] <= cost[mine]
            here = mine[better]
            shift = np.abs(new - place[mine]).max(1)[better]
            gain = (cost[mine] - tried[-1])[better]
            for kept, found in zip((columns, linear, basis, rest, cost), tried, strict=True):
                kept[here] = found[better]
            place[here] = new[better]
            damping[here] = np.maximum(damping[here] / 8, 1e-12)
            ended[trying[better]] = (shift < 1e-12) | (
                (shift < 1e-7) & (gain <= 1e-14 * cost[here])
            )
            trying = trying[~better]
            if not len(trying):
                break
            damping[active[trying]] = np.maximum(damping[active[trying]] * 8, 1e-9)
        ended[trying] = True
        active = active[~ended]
    return Solution(np.exp(place), linear, cost)


def reweighted(
    problems: Problems, found: Solution, given: Array, rounds: int, steps: int = 100
) -> tuple[Solution, Array]:
    """Huber's estimate: refitted with outliers counting less until nothing moves.

    `given` [B, n] is what rows count for by themselves. Of many rounds each needs few `steps`, for
    the weights change as well. With the solutions come Huber's weights.
    """
    exponents, linear, cost = (x.copy() for x in (found.exponents, found.linear, found.cost))
    huber = np.ones_like(given)
    dof = np.maximum(0, np.round(given.sum(1)) - 5)
    active = np.arange(len(given))
    for _ in range(rounds):
        now = Solution(exponents[active], linear[active], cost[active])
        residuals = np.abs(1 - now.fitted(problems) / problems.loss)
        scale = _scale(residuals, given[active], dof[active])
        noisy = scale >= 1e-10
        active, residuals, scale = active[noisy], residuals[noisy], scale[noisy]
        if not len(active):
            break
        huber[active] = np.minimum(1.0, HUBER * scale[:, None] / np.maximum(residuals, 1e-300))
        root = np.sqrt(given[active] * huber[active])
        one = replace(problems.take(active), root=root)
        again = refine(one, exponents[active], steps, _GENTLY)
        moved = np.abs(np.log(again.exponents / exponents[active])).max(1) >= 1e-8
        exponents[active], linear[active] = again.exponents, again.linear
        cost[active] = again.cost
        active = active[moved]
        if not len(active):
            break
    return Solution(exponents, linear, cost), huber


def _scale(size: Array, weights: Array, dof: Array) -> Array:
    """Robust standard deviations: the (weighted) median absolute residual, for n - 5 of n."""
    order = np.argsort(size, axis=1)
    cumulative = np.cumsum(np.take_along_axis(weights, order, 1), 1)
    total = cumulative[:, -1]
    middle = order[np.arange(len(size)), (cumulative < total[:, None] / 2).sum(1)]
    median = size[np.arange(len(size)), middle]
    return np.asarray(1.4826 * median * np.sqrt(total / np.maximum(1.0, dof)))


def _at(problems: Problems, place: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Columns, coefficients, an orthonormal basis of the columns used, residuals and cost."""
    columns, target = problems.columns(place), problems.target
    full = SUPPORTS[0] if problems.floor is None else SUPPORTS[3]
    linear, basis = _solve(columns, target, full)
    bound = np.flatnonzero((linear < 0).any(1))
    if len(bound):  # a feasible optimum without bounds is the optimum
        best = np.full(len(bound), np.inf)
        linear[bound], basis[bound] = 0.0, 0.0
        for support in SUPPORTS[1:]:
            if (support & ~full).any() or (support == full).all():
                continue
            found, base = _solve(columns[bound], target[bound], support)
            rest = target[bound] - _weighted(found, columns[bound])
            cost = np.einsum("bn,bn->b", rest, rest)
            cost[(found < 0).any(1)] = np.inf
            better = cost < best
            best[better] = cost[better]
            linear[bound[better]], basis[bound[better]] = found[better], base[better]
    rest = target - _weighted(linear, columns)
    if problems.floor is not None:
        linear = np.column_stack([problems.floor, linear[:, 1:]])
    return columns, linear, basis, rest, np.einsum("bn,bn->b", rest, rest)


def _weighted(linear: Array, columns: Array) -> Array:
    return np.asarray((linear[:, None, :] @ columns)[:, 0])


def _solve(columns: Array, target: Array, support: Mask) -> tuple[Array, Array]:
    """Least squares on some of the columns: coefficients and basis.

    Of few problems by LAPACK's QR; of many by Gram and Schmidt, which runs over all at once.
    """
    used = np.flatnonzero(support)
    basis = np.zeros_like(columns)
    if len(columns) <= _FEW:
        q, r = np.linalg.qr(columns[:, used].transpose(0, 2, 1))
        left = np.abs(np.einsum("bii->bi", r))
        if (left > _FLAT * np.sqrt((r**2).sum(1))).all():
            basis[:, used] = q.transpose(0, 2, 1)
            linear = np.zeros((len(columns), 3))
            linear[:, used] = np.linalg.solve(r, basis[:, used] @ target[:, :, None])[:, :, 0]
            return linear, basis
    upper = np.zeros((len(columns), 3, 3))
    for i, k in enumerate(used):
        column = columns[:, k]
        length = np.einsum("bn,bn->b", column, column)
        for _ in range(2 if i else 0):  # twice is enough, to rounding
            for j in used[:i]:
                share = np.einsum("bn,bn->b", basis[:, j], column)
                column = column - share[:, None] * basis[:, j]
                upper[:, j, k] += share
        left = np.sqrt(np.einsum("bn,bn->b", column, column))
        good = left > _FLAT * np.sqrt(length)
        upper[:, k, k] = np.where(good, left, np.inf)
        basis[:, k] = column / upper[:, k, k, None]
    linear = (basis @ target[:, :, None])[:, :, 0]
    for i in range(len(used))[::-1]:
        k = used[i]
        for j in used[i + 1 :]:
            linear[:, k] -= upper[:, k, j] * linear[:, j]
        linear[:, k] /= upper[:, k, k]
    return linear, basis
