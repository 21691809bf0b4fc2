"""The key-frequency agent: the least that imitation could learn, and what learning must beat."""

from __future__ import annotations

import numpy as np

from nhzoo.agents import RandomAgent
from nhzoo.envs import ACTION_KEYS

KEYS = (
    b" s5lhb:M/kjy\x1bn,ut\re#\\\xe5a.cDdmfB"
    b"qNJWvEirIgwOXzopHULSCxVTKAPGFQ"
    b"$YR\xf0Z\x04>-\xec<\xef\x18@102\xf14+38796"
)
# fmt: off
COUNTS = (
    1229387, 872177, 539038, 520205, 519973, 393761, 371835, 320914, 318321, 288682, 288205,
    276611, 263521, 255321, 244036, 241922, 234220, 178340, 163335, 133858, 83914, 83070, 75193,
    52832, 13327, 8447, 6071, 6034, 5891, 5800, 5488, 5282, 5164, 5157, 5016, 4813, 4628, 4475,
    4441, 4363, 4251, 4243, 4214, 4164, 3663, 3519, 3260, 3255, 3236, 3064, 3049, 2817, 2640,
    2488, 2464, 2426, 2283, 2272, 2193, 2181, 1708, 1664, 1614, 1595, 1401, 929, 780, 775, 742,
    297, 189, 171, 171, 92, 58, 24, 19, 4, 3, 3, 3, 2, 2, 1,
)
# fmt: on
"""How often AutoAscend pressed each of `KEYS` in `autoascend-monk-v1`, all 171 games."""


class FrequencyAgent(RandomAgent):
    """Presses each key as often as the expert did, whatever it sees."""

    name, revision = "frequency", "1"

    def __init__(self) -> None:
        shares = np.zeros(len(ACTION_KEYS))
        actions = ACTION_KEYS.tolist()
        for key, count in zip(KEYS, COUNTS, strict=True):
            shares[actions.index(key)] = count  # the first of the actions that press it
        self._sums = np.cumsum(shares / shares.sum())
