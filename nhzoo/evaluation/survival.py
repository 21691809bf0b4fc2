"""How long games last when not every game was seen to its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_Z95 = 1.959963984540054


@dataclass(frozen=True)
class Survival:
    """A survival curve: one entry for each time at which something died.

    From `times[i]` on, up to the next, a fraction `alive[i]` is alive, with a 95 % interval from
    `low[i]` to `high[i]`; `at_risk[i]` were watched just before and `deaths[i]` of them died.
    Before `times[0]` all are alive. `censored` are the times at which others went out of sight.
    """

    times: list[float]
    at_risk: list[int]
    deaths: list[int]
    alive: list[float]
    low: list[float]
    high: list[float]
    censored: list[float]
    end: float

    @property
    def median(self) -> float | None:
        """The first time at which half or fewer are alive; None when it never came to that."""
        for time, alive in zip(self.times, self.alive, strict=True):
            if alive <= 0.5 + 1e-12:
                return time
        return None


def kaplan_meier(times: Sequence[float], died: Sequence[bool]) -> Survival:
    """The product-limit estimate (Kaplan & Meier 1958, doi 10.2307/2281868).

    `times[i]` is how long i was watched, `died[i]` whether that ended with its death; otherwise it
    is censored, and a censoring at the time of a death counts as just after it. The interval is
    Greenwood's variance on the log(-log) scale, so it stays within 0 and 1; where the estimate is 0
    that has no value, and the interval is given as the last one's, reaching down to 0.
    """
    time, event = np.asarray(times, np.float64), np.asarray(died, bool)
    if time.shape != event.shape or time.ndim != 1 or not len(time):
        raise ValueError("as many times as outcomes are needed, at least one")
    curve = Survival([], [], [], [], [], [], sorted(time[~event].tolist()), float(time.max()))
    alive, variance = 1.0, 0.0
    for moment in np.unique(time[event]).tolist():
        at_risk = int(np.count_nonzero(time >= moment))
        deaths = int(np.count_nonzero((time == moment) & event))
        alive *= 1 - deaths / at_risk
        low, high = 0.0, curve.high[-1] if curve.high else 1.0
        if deaths < at_risk:
            variance += deaths / (at_risk * (at_risk - deaths))
            spread = _Z95 * np.sqrt(variance) / abs(np.log(alive))
            low, high = float(alive ** np.exp(spread)), float(alive ** np.exp(-spread))
        else:
            alive = 0.0
        curve.times.append(moment)
        curve.at_risk.append(at_risk)
        curve.deaths.append(deaths)
        curve.alive.append(alive)
        curve.low.append(low)
        curve.high.append(high)
    return curve
