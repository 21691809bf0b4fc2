"""The text of a screen: its bottom line as numbers, and what a line says."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from nhzoo.policy.config import COLS, ROWS
from nhzoo.runtime import kernels

Array = np.ndarray[Any, Any]

SATIATED, NOT_HUNGRY, HUNGRY, WEAK, FAINTING = range(5)


@kernels.njit()
def bottom_line(chars: Array) -> tuple[int, int, int, int, int]:
    """Level, turn, hit points and the most of them, hunger, of a screen, uint8 [1920].

    -1 for a number that is not shown; what is shown as `Dlvl:1 $:0 HP:14(16) ... T:81 Hungry`.
    """
    first = (ROWS - 1) * COLS
    level = turn = health = most = -1
    for k in range(first + 2, first + COLS - 1):
        if chars[k] != 58:  # ":"
            continue
        one, two = chars[k - 2], chars[k - 1]
        if two == 84:  # "T:", the last
            turn = number(chars, k + 1)
            return level, turn, health, most, _hunger(chars, k + 1)
        if one == 118 and two == 108:  # "Dlvl:"
            level = number(chars, k + 1)
        elif one == 72 and two == 80:  # "HP:"
            health = number(chars, k + 1)
            at = k + 1
            while at < first + COLS and chars[at] != 40 and chars[at] != 32:
                at += 1
            if at < first + COLS - 1 and chars[at] == 40:
                most = number(chars, at + 1)
    return level, turn, health, most, NOT_HUNGRY


@kernels.njit()
def begins(line: Array, at: int, text: Array) -> bool:
    """Whether a text stands at a place of a line of characters; both uint8."""
    if at + len(text) > len(line):
        return False
    same = True
    for k in range(len(text)):
        same &= line[at + k] == text[k]
    return same


@kernels.njit()
def find(line: Array, text: Array) -> int:
    """Where a text begins in a line of characters; -1 for nowhere. Both uint8."""
    for at in range(len(line) - len(text) + 1):
        if line[at] == text[0] and begins(line, at, text):
            return at
    return -1


@kernels.njit()
def has(line: Array, text: Array) -> bool:
    """Whether a line of characters has a text in it; both uint8."""
    return bool(find(line, text) >= 0)


@kernels.njit()
def number(line: Array, at: int) -> int:
    """The number whose first digit stands at a place of a line, uint8; 0 for none."""
    value = 0
    while at < len(line) and 48 <= line[at] <= 57 and value < 1 << 24:
        value = value * 10 + int(line[at]) - 48
        at += 1
    return value


@numba.njit(nogil=True)
def _hunger(chars: Array, at: int) -> int:
    """By the first two letters of a word after the turn."""
    for k in range(at, ROWS * COLS - 1):
        one, two = chars[k], chars[k + 1]
        if chars[k - 1] != 32:
            continue
        if one == 83 and two == 97:
            return SATIATED
        if one == 72 and two == 117:
            return HUNGRY
        if one == 87 and two == 101:
            return WEAK
        if one == 70 and two == 97:
            return FAINTING
    return NOT_HUNGRY
