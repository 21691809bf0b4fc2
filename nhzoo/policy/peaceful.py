"""Peaceful and tame creatures, as an agent's own list of monsters told them apart.

A peaceful creature looks like a hostile one. `/M` lists all monsters in view, by place, with
"peaceful" or "tame" before their names; AutoAscend asks whenever it sees a new one, and attacks
none of these. The list is gone from the screen when the decision is made, so a recall keeps it,
and follows each creature from screen to screen by its letter.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nhzoo.policy.config import COLS, ROWS
from nhzoo.policy.memory import BOTTOM, FRIENDS, MOST_FRIENDS, TOP, TURN, WIDTH, place, position
from nhzoo.policy.screen_text import begins, has, number
from nhzoo.runtime import kernels

Array = np.ndarray[Any, Any]

TAME = 0x100
"""Added to a creature's letter: it is a pet, with whom the hero changes places."""

_TITLE = np.frombuffer(b"All monsters currently shown on the map", np.uint8)
_PEACEFUL = np.frombuffer(b"peaceful ", np.uint8)
_TAME = np.frombuffer(b"tame ", np.uint8)
_ANGRY = np.frombuffer(b" gets angry!", np.uint8)
_FORGOTTEN = 20  # turns after which a creature that is out of sight is one no more
_FARTHEST = 2  # cells that one moves from screen to screen


@kernels.njit()
def note_list(chars: Array, recall: Array) -> None:
    """Take the list of monsters from a screen, uint8 [1920], that shows one.

    Its lines read "<column,row>  letter  name"; columns count from 1.
    """
    if has(chars[:COLS], _ANGRY):
        recall[FRIENDS : FRIENDS + 3 * MOST_FRIENDS] = 0
        return
    if not begins(chars[:COLS], 0, _TITLE):
        return
    recall[FRIENDS : FRIENDS + 3 * MOST_FRIENDS] = 0
    known = 0
    for row in range(2, ROWS - 1):
        line = chars[row * COLS : (row + 1) * COLS]
        at = 0
        while at < 8 and line[at] == 32:
            at += 1
        if line[at] != 60:  # "<"
            break
        column = number(line, at + 1)
        while at < 12 and line[at] != 44:  # ","
            at += 1
        height = number(line, at + 1)
        while at < 12 and line[at] != 62:  # ">"
            at += 1
        letter, name = int(line[at + 3]), at + 6
        tame = begins(line, name, _TAME)
        if not tame and not begins(line, name, _PEACEFUL):
            continue
        y, x = height + TOP, column - 1
        if known < MOST_FRIENDS and TOP <= y < BOTTOM and 0 <= x < COLS:
            recall[FRIENDS + 3 * known] = place(y, x)
            recall[FRIENDS + 3 * known + 1] = letter + TAME * tame
            recall[FRIENDS + 3 * known + 2] = recall[TURN]
            known += 1


@kernels.njit()
def follow(chars: Array, recall: Array) -> None:
    """Find each creature again on a map, uint8 [1920]: where it was, or near by."""
    for k in range(MOST_FRIENDS):
        cell = int(recall[FRIENDS + 3 * k])
        if not cell:
            continue
        letter = int(recall[FRIENDS + 3 * k + 1]) & 0xFF
        found = _near(chars, cell, letter, recall)
        if found:
            recall[FRIENDS + 3 * k] = found
            recall[FRIENDS + 3 * k + 2] = recall[TURN]
        elif (int(recall[TURN]) - int(recall[FRIENDS + 3 * k + 2])) & 0xFFFF > _FORGOTTEN:
            recall[FRIENDS + 3 * k] = 0


@kernels.njit()
def _near(chars: Array, cell: int, letter: int, recall: Array) -> int:
    """The nearest cell that shows the letter and is no other creature's; 0 for none."""
    row, col = position(cell)
    for far in range(_FARTHEST + 1):
        for y in range(row - far, row + far + 1):
            for x in range(col - far, col + far + 1):
                if max(abs(y - row), abs(x - col)) != far:
                    continue
                if not (TOP <= y < BOTTOM and 0 <= x < COLS) or chars[y * COLS + x] != letter:
                    continue
                if far == 0 or not friend_at(recall, place(y, x)):
                    return int(place(y, x))
    return 0


@kernels.njit()
def friend_at(recall: Array, cell: int) -> int:
    """The letter of the peaceful or tame creature that is remembered on a cell; 0 for none."""
    for k in range(MOST_FRIENDS):
        if recall[FRIENDS + 3 * k] == cell:
            return int(recall[FRIENDS + 3 * k + 1])
    return 0


assert WIDTH * (BOTTOM - TOP + 2) < 1 << 16  # cells are kept in 16 bits
