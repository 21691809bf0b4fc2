"""Where to go: around, by the hero's place and the number of the step."""

from __future__ import annotations


def direction(blstats, steps):
    return int(blstats[0] * 7 + blstats[1] * 3 + steps // 5 + steps * steps // 11) % 8
