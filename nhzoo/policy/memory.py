"""Memory of events that the screen no longer shows: kills, by place and turn, and prayers.

A corpse may be eaten while it is fresh, and a god be asked for help when the last prayer is long
ago; neither is on the screen. Messages say when it happened, the bottom line says at which turn.
What the bottom line says of hunger and health is put into symbols here as well.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from nhzoo.policy import walking
from nhzoo.policy.config import COLS, COMPASS, DIRECTIONS
from nhzoo.policy.walking import KEYS, KILLS, MEMORIES, PLACE, PRAYED, SHOWN, STILL
from nhzoo.runtime import kernels

Array = np.ndarray[Any, Any]

_KILL = np.frombuffer(b"You kill ", np.uint8)
_PRAYER = np.frombuffer(b"You begin praying", np.uint8)
_MISSILE = 10  # cells that one flies
_FRESH = 30  # turns for which a corpse is surely safe
_MOST = 1 << 12  # turns that are told apart
_AGE = walking.symbols([5, 15, 30, 45, 60, 100])
_SINCE = np.array([100, 500, 800, 1_000, 1_200])
_THING = np.isin(np.arange(256), np.frombuffer(walking.THINGS.encode(), np.uint8))


@kernels.njit()
def note(chars: Array, turn: int, recall: Array) -> None:
    """Update `recall` from the top line of a screen, uint8 [1920], and whether time passes."""
    if turn >= 0 and (turn & 0xFFFF) != recall[SHOWN]:
        recall[SHOWN], recall[STILL] = turn & 0xFFFF, 0
    elif recall[STILL] < 0xFFFF:
        recall[STILL] += 1
    if turn < 0 or (chars[0] == 32 and chars[1] == 32):
        return
    if _says(chars, _PRAYER):
        recall[PRAYED] = max(1, turn & 0xFFFF)
    if not _says(chars, _KILL):
        return
    direction = -1
    for k in range(4):  # keys that dismiss messages may have come after the blow
        direction = walking.DIRECTION[recall[KEYS + k]]
        if direction >= 0:
            break
    if direction < 0 or recall[PLACE] == 0:
        return
    cell = _fallen(chars, int(recall[PLACE]), direction)
    if recall[KILLS] != cell:
        for k in range(2 * MEMORIES - 1, 1, -1):
            recall[KILLS + k] = recall[KILLS + k - 2]
    recall[KILLS], recall[KILLS + 1] = cell & 0xFFFF, turn & 0xFFFF


@numba.njit(nogil=True)
def _fallen(chars: Array, hero: int, direction: int) -> int:
    """Where a kill in a direction fell: at the first thing that lies there, or beside the hero.

    Daggers are thrown, and may lie on the corpse.
    """
    y, x = walking.position(hero)
    down, right = walking.ROW_STEP[direction], walking.COL_STEP[direction]
    for k in range(1, _MISSILE + 1):
        v, u = y + k * down, x + k * right
        if not (walking.TOP <= v < walking.BOTTOM and 0 <= u < COLS):
            break
        if _THING[chars[v * COLS + u]]:
            return int(walking.place(v, u))
    return int(walking.place(y + down, x + right))


@kernels.njit()
def _says(chars: Array, words: Array) -> bool:
    for x in range(COLS - len(words)):
        if chars[x] == words[0]:
            k = 1
            while k < len(words) and chars[x + k] == words[k]:
                k += 1
            if k == len(words):
                return True
    return False


@kernels.njit()
def vitals(turn: int, health: int, most: int, hunger: int, recall: Array, here: Array) -> None:
    """The symbols of `HERE`; the hero need not be seen, questions hide it."""
    here[0], here[1] = 0, 1 + hunger
    here[2] = here[3] = 0
    if turn < 0:
        return
    for k in range(MEMORIES):
        if recall[KILLS + 2 * k] == recall[PLACE] and recall[PLACE]:
            here[0] = _AGE[min(255, _since(turn, recall[KILLS + 2 * k + 1]))]
            break
    if recall[PRAYED]:
        here[2] = 1 + np.searchsorted(_SINCE, _since(turn, recall[PRAYED]), side="right")
    else:  # gods do not help in the first turns
        here[2] = 7 + (turn >= 200) + (turn >= 300)
    here[3] = 8
    for symbol, share in enumerate((7, 5, 3, 2)):
        if here[3] == 8 and health * share < most:
            here[3] = 2 + symbol
    if health < 6:
        here[3] = 1
    elif here[3] == 8 and health < most:
        here[3] = 6 + (3 * health > 2 * most)


@kernels.njit()
def fresh(chars: Array, turn: int, recall: Array, scratch: Array, compass: Array) -> None:
    """The last symbol of each direction of the compass: how far it is to a corpse that is fresh.

    `scratch` is what `walking.direction_features` has left there.
    """
    nearest, ways = -1, 0
    for k in range(MEMORIES):
        cell = int(recall[KILLS + 2 * k])
        if not cell or _since(turn, recall[KILLS + 2 * k + 1]) > _FRESH:
            continue
        y, x = walking.position(cell)
        far = scratch[1, cell]
        if not _THING[chars[y * COLS + x]] or not 0 < far < walking.NOT_YET:
            continue
        if nearest < 0 or far < nearest:
            nearest, ways = far, 0
        if far == nearest:
            ways |= scratch[2, cell]
    for d in range(DIRECTIONS):
        seen = nearest >= 0 and ways >> d & 1
        compass[(d + 1) * COMPASS - 1] = walking.DISTANCE[min(255, nearest)] if seen else 0


@kernels.njit()
def _since(turn: int, then: int) -> int:
    return min(_MOST, (turn - int(then)) & 0xFFFF)
