"""Peaceful and tame creatures, as an agent's own list of monsters told them apart.

A peaceful creature looks like a hostile one. `/M` lists all monsters in view, by place, with
"peaceful" or "tame" before their names; AutoAscend asks whenever it sees a new one, and attacks
none of these. The list is gone from the screen when the decision is made, so a recall keeps it,
and follows each creature from screen to screen by its letter.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nhzoo.policy.config import COLS, DIRECTIONS, ROWS
from nhzoo.policy.memory import (
    BOTTOM,
    COL_STEP,
    FRIENDS,
    MOST_FRIENDS,
    PLACE,
    ROW_STEP,
    TOP,
    TURN,
    WIDTH,
    fell,
    name_at,
    place,
    position,
)
from nhzoo.policy.screen_text import begins, find, has, number
from nhzoo.runtime import kernels

Array = np.ndarray[Any, Any]

TAME = 0x100
"""Added to a creature's letter: it is a pet, with whom the hero changes places."""

_TITLE = np.frombuffer(b"All monsters currently shown on the map", np.uint8)
_PEACEFUL = np.frombuffer(b"peaceful ", np.uint8)
_TAME = np.frombuffer(b"tame ", np.uint8)
_ANGRY = np.frombuffer(b" gets angry!", np.uint8)
_KILLED = np.frombuffer(b" is killed!", np.uint8)
_THE_ONE = np.frombuffer(b"The ", np.uint8)
_SEEN_FALLING = 8  # cells from the hero
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
def note_others_kill(chars: Array, turn: int, recall: Array) -> None:
    """Remember what somebody else has killed, by "The newt is killed!", on a screen, uint8 [1920].

    Pets do that, mostly, and a corpse of it lies beside one. Which pet it was is not said: all food
    beside dogs, cats, horses and known pets is taken for it, the nearest to the hero last. What it
    is is seen by its name when he stands there.
    """
    line = chars[: COLS - 1]
    at = find(line, _KILLED)
    if at < 0 or turn < 0:
        return
    while at > 0 and not begins(line, at, _THE_ONE):
        at -= 1
    if not begins(line, at, _THE_ONE):
        return
    name = name_at(line, at + len(_THE_ONE))
    row, col = position(int(recall[PLACE]))
    for far in range(_SEEN_FALLING, -1, -1):
        for y in range(max(TOP, row - far), min(BOTTOM, row + far + 1)):
            for x in range(max(0, col - far), min(COLS, col + far + 1)):
                if max(abs(y - row), abs(x - col)) != far or chars[y * COLS + x] != 37:  # "%"
                    continue
                if _beside_pet(chars, y, x, recall):
                    fell(recall, int(place(y, x)), turn, name)


@kernels.njit()
def _beside_pet(chars: Array, row: int, col: int, recall: Array) -> bool:
    """Whether beside a cell there is a pet, or what pets are mostly."""
    for d in range(DIRECTIONS):
        y, x = row + ROW_STEP[d], col + COL_STEP[d]
        if not (TOP <= y < BOTTOM and 0 <= x < COLS):
            continue
        char = chars[y * COLS + x]
        if char in (100, 102, 117) or friend_at(recall, int(place(y, x))) >= TAME:  # d, f, u
            return True
    return False


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
