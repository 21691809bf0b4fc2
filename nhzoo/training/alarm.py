"""Tells a training that is beyond help: no finite loss, or one that has exploded and stays so."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from nhzoo.envs.game import ACTION_KEYS
from nhzoo.errors import CheckFailed

TIMES = 3.0
UPDATES = 30
_UNIFORM = math.log(len(ACTION_KEYS))
_MEMORY = 200.0  # updates that the running mean looks back


class Alarm:
    """Watches the loss of every update.

    A loss has exploded when for 30 updates in a row it is above three times its running mean and
    above that of guessing (ln 121 = 4.80): one hard stretch of a game is neither. The mean waits
    while the loss is that high.
    """

    def __init__(self) -> None:
        self.mean: float | None = None
        self.high = 0  # updates in a row

    def see(self, loss: float, grad_norm: float) -> str | None:
        """Take in an update; the reason to stop, if it is one."""
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            return f"the loss is {loss:.4g} and the gradient's norm {grad_norm:.4g}"
        if self.mean is not None and loss > max(_UNIFORM, TIMES * self.mean):
            self.high += 1
            if self.high < UPDATES:
                return None
            return f"the loss, {self.mean:.3g} before, was {loss:.3g} or so for {UPDATES} updates"
        self.high = 0
        self.mean = loss if self.mean is None else self.mean + (loss - self.mean) / _MEMORY
        return None

    def check(self, update: int, loss: float, grad_norm: float, folder: Path) -> None:
        """`see`, with a reason as CheckFailed; `folder` keeps the states of the run."""
        reason = self.see(loss, grad_norm)
        if reason:
            raise CheckFailed(
                f"update {update}: {reason}; the state of before is kept in {folder}, "
                "a smaller --lr with another --run may help"
            )

    def state(self) -> dict[str, Any]:
        """What a resumed run needs, as plain JSON."""
        return {"mean": self.mean, "high": self.high}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.mean, self.high = state["mean"], state["high"]
