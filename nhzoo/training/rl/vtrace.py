"""V-trace: targets for values and advantages for actions, off-policy.

Espeholt et al., "IMPALA" (arXiv 1802.01561, section 4.1). What was played with the policy mu is
weighed for the policy pi by truncated ratios of the probabilities of what was pressed:

    rho_t = min(rho_bar, pi/mu),  c_t = lambda min(c_bar, pi/mu),
    delta_t = rho_t (r_t + gamma_t V(x_{t+1}) - V(x_t)),
    v_t = V(x_t) + delta_t + gamma_t c_t (v_{t+1} - V(x_{t+1})).

On policy and with bars of 1 or more v_t is the n-step return. `rho_bar` decides what the values
converge to, `c_bar` how fast.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class VTrace:
    """`targets` of the values and `advantages` of what was pressed: [T, B], without gradient."""

    targets: Tensor
    advantages: Tensor


@torch.no_grad()
def vtrace(
    log_ratios: Tensor,
    discounts: Tensor,
    rewards: Tensor,
    values: Tensor,
    bootstrap: Tensor,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
    lam: float = 1.0,
) -> VTrace:
    """V-trace of unrolls of T steps, [T, B] each but for `bootstrap` [B], the value of frame T.

    `log_ratios`: ln pi - ln mu of what was pressed. `discounts`: 0 where the step ended the game.
    A step to be left out, which nothing shall reach through, has the discount 0 and its own value
    as its reward: its target is that value, its advantage 0.
    """
    ratios = log_ratios.exp()
    rho, c = ratios.clamp(max=rho_bar), lam * ratios.clamp(max=c_bar)
    following = torch.cat([values[1:], bootstrap[None]])
    delta = rho * (rewards + discounts * following - values)
    carry = discounts * c
    corrections = torch.empty_like(values)
    correction = torch.zeros_like(bootstrap)
    for t in range(len(values) - 1, -1, -1):
        correction = delta[t] + carry[t] * correction
        corrections[t] = correction
    targets = values + corrections
    after = torch.cat([targets[1:], bootstrap[None]])
    return VTrace(targets, rho * (rewards + discounts * after - values))
