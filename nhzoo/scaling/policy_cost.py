"""The exact training cost of nhzoo's own policies, as scaling laws use it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from nhzoo.policy.network import PolicyConfig
from nhzoo.scaling import training_cost
from nhzoo.scaling.training_cost import Cost
from nhzoo.training import outputs
from nhzoo.training.run_table import LedgerRow, RunRow

SAMPLES_PER_UPDATE = 256


def policy_cost(rows: Sequence[RunRow] = ()) -> Cost:
    """FLOPs a frame of each size, forward and backward, and the optimizer's share.

    An update costs the same however many frames it is of: as many as the median of `rows`.
    """
    updates = [r.batch * r.time * r.accumulate for r in rows if isinstance(r, LedgerRow)]
    each = median(updates or [SAMPLES_PER_UPDATE])
    return training_cost.from_function(
        lambda n: PolicyConfig.for_params(n).train_flops,
        10_000,
        500_000_000,
        per_update=lambda n: PolicyConfig.for_params(n).update_flops,
        samples_per_update=each,
        origin=f"nhzoo's policies, every layer and the optimizer, {each:g} frames an update",
    )


def is_ours(rows: Sequence[RunRow]) -> bool:
    """Whether all rows count FLOPs as this version of nhzoo does."""
    return bool(rows) and {row.flop_model_hash for row in rows} == {outputs.flop_model()}
