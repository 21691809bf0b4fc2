"""Tables of runs from surfaces that are known, for tests and benchmarks of scaling laws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nhzoo.training.run_table import RunRow

BUDGETS = tuple(np.geomspace(1e12, 1e14, 5))


@dataclass(frozen=True)
class Truth:
    """L = E + (u^p + v^p)^(1/p), u = A N^-alpha, v = B D^-beta; for p = 1 it is in the family.

    A and B are such that at 1e13 FLOPs (6ND) the additive optimum is at 2e5 parameters with a
    reducible loss of 0.3.
    """

    alpha: float = 0.34
    beta: float = 0.28
    floor: float = 0.3
    coupling: float = 1.0

    @property
    def a(self) -> float:
        return 0.3 * self.beta / (self.alpha + self.beta) * 2e5**self.alpha

    @property
    def b(self) -> float:
        return 0.3 * self.alpha / (self.alpha + self.beta) * (1e13 / 6 / 2e5) ** self.beta

    @property
    def exponent(self) -> float:
        return self.beta / (self.alpha + self.beta)

    def loss(self, n, d):
        p = self.coupling
        u, v = self.a * n**-self.alpha, self.b * d**-self.beta
        return self.floor + (u**p + v**p) ** (1 / p)

    def optimum(self, flops: float) -> tuple[float, float]:
        """(N, L) at the optimum of a budget, by search."""
        n = np.geomspace(1e2, 1e12, 20_001)
        for _ in range(3):
            value = self.loss(n, flops / 6 / n)
            i = int(np.clip(value.argmin(), 1, len(n) - 2))
            n = np.geomspace(n[i - 1], n[i + 1], 2_001)
        value = self.loss(n, flops / 6 / n)
        return float(n[value.argmin()]), float(value.min())


def runs(
    truth: Truth,
    noise: float = 0.0,
    seed: int = 0,
    *,
    budgets=BUDGETS,
    sizes: int = 7,
    step: float = 2.0,
    offset: float = 1.0,
    drift: float = 1.0,
    fixed: bool = False,
    seeds: int = 1,
    between: float = 0.0,
    ruler: float = 0.0,
) -> list[RunRow]:
    """One row a run: `sizes` in factors of `step` round the optimum of each budget (x `offset`).

    `between`: relative error that all rows of one seed share. `ruler`: that all rows share, as they
    are measured on the same games, which `loss_se` states.
    """
    random = np.random.default_rng(seed)
    apart = np.random.default_rng([seed, 1])
    shared = np.exp(ruler * apart.standard_normal() + between * apart.standard_normal(seeds))
    rows = []
    middle = truth.optimum(budgets[len(budgets) // 2])[0]
    for k, flops in enumerate(budgets):
        centre = middle if fixed else truth.optimum(flops)[0]
        centre *= offset * drift ** (k / max(1, len(budgets) - 1))
        for i in range(sizes):
            n = round(centre * step ** (i - (sizes - 1) / 2))
            for s in range(seeds):
                loss = float(
                    truth.loss(n, flops / 6 / n) * np.exp(noise * random.standard_normal())
                )
                loss *= float(shared[s])
                samples = round(flops / 6 / n)
                rows.append(
                    RunRow(
                        f"{flops:.3g}-{n}-{s}",
                        n,
                        samples,
                        float(flops),
                        loss,
                        flops_budget=float(flops),
                        loss_se=ruler * loss if ruler else None,
                        seed=s,
                    )
                )
    return rows
