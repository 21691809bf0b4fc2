"""Memory: what an agent carries from screen to screen, all from what a terminal shows.

A recall holds the keys pressed last, for each cell of the present level for how many turns the hero
has stood there, the latest kills by place and turn, and the turn of the last prayer. A corpse may
be eaten while it is fresh, and a god be asked for help when the last prayer is long ago; neither is
on the screen. Messages say when it happened, the bottom line says at which turn. What the bottom
line says of hunger and health is put into symbols here as well.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from nhzoo.policy.config import COLS, DIRECTIONS, HISTORY
from nhzoo.policy.screen_text import begins, find, has
from nhzoo.runtime import kernels

Array = np.ndarray[Any, Any]

TOP, BOTTOM = 1, 22  # screen rows of the map
WIDTH = COLS + 2  # of a map with a border, so that a cell's neighbours need no check
CELLS = (BOTTOM - TOP + 2) * WIDTH

MEMORIES = 6  # kills on this level

LEVEL, TURN, PLACE, KEYS = CELLS, CELLS + 1, CELLS + 2, CELLS + 3
KILLS = KEYS + HISTORY
PRAYED = KILLS + 2 * MEMORIES
SHOWN, STILL = PRAYED + 1, PRAYED + 2
NAMES = PRAYED + 3
CORPSE, CORPSE_PLACE = NAMES + MEMORIES, NAMES + MEMORIES + 1
FRIENDS = CORPSE_PLACE + 1
MOST_FRIENDS = 8
VERSION = FRIENDS + 3 * MOST_FRIENDS
RECALL = VERSION + 1
"""uint16 [1945], what is carried of a game: cells, level, turn, the hero's cell, the latest keys,
the latest kills (cell and turn of each), the turn of the last prayer, the turn that was shown
last and for how many screens it has been no other; hashes of the names of what was killed, and of
the corpse that lies where the hero stands, with that cell; cell, letter and turn of each peaceful
or tame creature, see `peaceful`; and the version of the features that are made of all this.

A cell holds the turns spent on it (15 bits) and whether the hero has stood on it or beside it.
"""
_BESIDE, SPENT = 0x8000, 0x7FFF
_MOST_TURNS = 20  # that one key adds
_TOP_LINES = 3  # where it is said what lies here
_PENDING = 0xFFFF  # as a corpse's cell: where the hero will be seen next
NAMED = 4
"""Version of the features from which on kills have names and creatures may be peaceful."""

MOVES = "kulnjbhy"
"""The keys of the eight directions, north first, clockwise."""
ROW_STEP = np.array([-1, -1, 0, 1, 1, 1, 0, -1], np.int64)
COL_STEP = np.array([0, 1, 1, 1, 0, -1, -1, -1], np.int64)
STEP = (ROW_STEP * WIDTH + COL_STEP).astype(np.uint64)
"""From a cell's number to its neighbours'; unsigned, so that numba makes plain loops of it."""

THINGS = ')[="(%!?/+$*'
THING = np.isin(np.arange(256), np.frombuffer(THINGS.encode(), np.uint8))
_KILL = np.frombuffer(b"You kill ", np.uint8)
_PRAYER = np.frombuffer(b"You begin praying", np.uint8)
_THE, _EATEN, _CORPSE, _SEE, _EAT, _THERE, _THINGS, _END, _NOTHING, _EATING, _IS_KILLED = (
    np.frombuffer(text, np.uint8)
    for text in (
        *(b"the ", b"partly eaten ", b" corpse", b"You see here a", b"eat it?", b"There is a"),
        *(b"Things that are here:", b"(end)", b"You see no objects here", b"You finish eating"),
        b" is killed",
    )
)
_MISSILE = 10  # cells that one flies
_MOST = 1 << 12  # turns that are told apart


def symbols(edges: list[int]) -> Array:
    """uint8 [256]: 1 + how many edges a number has reached."""
    return (1 + np.searchsorted(edges, np.arange(256), side="right")).astype(np.uint8)


def _directions() -> Array:
    table = np.full(256, -1, np.int8)
    for direction, key in enumerate(MOVES):
        table[ord(key)] = table[ord(key.upper())] = direction
    return table


DIRECTION = _directions()
_FOOTPRINT = symbols([3, 6, 11, 21, 41, 81])
_AGE = symbols([5, 15, 30, 45, 60, 100])
_SINCE = np.array([100, 500, 800, 1_000, 1_200])


@kernels.njit()
def place(row: int, col: int) -> int:
    """The number of a map cell."""
    return (row - TOP + 1) * WIDTH + col + 1


@kernels.njit()
def position(cell: int) -> tuple[int, int]:
    """Row and column on the screen of a map cell: the inverse of `place`."""
    return cell // WIDTH - 1 + TOP, cell % WIDTH - 1


@kernels.njit()
def push_key(recall: Array, key: int) -> None:
    """Put a key in front of those pressed last."""
    for k in range(HISTORY - 1, 0, -1):
        recall[KEYS + k] = recall[KEYS + k - 1]
    recall[KEYS] = key


def push_keys(recall: Array, keys: Array) -> None:
    """`push_key` for n games: recall [n, 1945], keys [n]."""
    last = KEYS + HISTORY - 1
    recall[:, KEYS + 1 : last + 1] = recall[:, KEYS:last].copy()
    recall[:, KEYS] = keys


@kernels.njit()
def remember(chars: Array, row: int, col: int, level: int, turn: int, recall: Array) -> bool:
    """Bring `recall` up to this screen, uint8 [1920]; True when the cursor is on the hero.

    Another level than the last wipes what was known. Turns go to the cell on which they were spent.
    """
    if not (TOP <= row < BOTTOM and col < COLS) or chars[row * COLS + col] != 64:  # "@"
        return False
    if level < 0 or turn < 0:
        return False
    cell = place(row, col)
    if level != recall[LEVEL]:
        recall[:CELLS] = 0
        recall[KILLS : KILLS + 2 * MEMORIES] = 0
        recall[CORPSE_PLACE:VERSION] = 0
        recall[LEVEL], recall[TURN], recall[PLACE] = level, turn & 0xFFFF, cell
    passed = min(_MOST_TURNS, (turn - int(recall[TURN])) & 0xFFFF)
    before = int(recall[PLACE])
    spent = min(SPENT, (int(recall[before]) & SPENT) + passed)
    recall[before] = (int(recall[before]) & _BESIDE) | spent
    recall[TURN], recall[PLACE] = turn & 0xFFFF, cell
    if recall[cell] & SPENT == 0:
        recall[cell] |= 1
    recall[cell] |= _BESIDE
    for d in range(DIRECTIONS):
        recall[cell + np.int64(STEP[d])] |= _BESIDE
    return True


@kernels.njit()
def footprints(recall: Array, row: int, col: int, size: int, out: Array) -> None:
    """How long the hero has stood on the cells of a window, into `out` uint8 [size x size]."""
    for k in range(size):
        y = row - size // 2 + k
        for j in range(size):
            x = col - size // 2 + j
            inside = TOP <= y < BOTTOM and 0 <= x < COLS
            out[k * size + j] = footprint(recall, place(y, x)) if inside else 0


@kernels.njit()
def footprint(recall: Array, cell: Any) -> int:
    """The symbol for how long the hero has stood on a cell."""
    spent = int(recall[cell]) & SPENT
    return _FOOTPRINT[min(255, spent)] if spent else 0


@kernels.njit()
def note(chars: Array, turn: int, recall: Array) -> None:
    """Update `recall` from the top line of a screen, uint8 [1920], and whether time passes."""
    if turn >= 0 and (turn & 0xFFFF) != recall[SHOWN]:
        recall[SHOWN], recall[STILL] = turn & 0xFFFF, 0
    elif recall[STILL] < 0xFFFF:
        recall[STILL] += 1
    if turn < 0 or (chars[0] == 32 and chars[1] == 32):
        return
    message = chars[: COLS - 1]
    if has(message, _PRAYER):
        recall[PRAYED] = max(1, turn & 0xFFFF)
    if not has(message, _KILL):
        return
    direction = -1
    for k in range(4):  # keys that dismiss messages may have come after the blow
        direction = DIRECTION[recall[KEYS + k]]
        if direction >= 0:
            break
    if direction < 0 or recall[PLACE] == 0:
        return
    named = recall[VERSION] >= NAMED
    if not named or _thrown(recall):
        cell = _fallen(chars, int(recall[PLACE]), direction)
    else:
        cell = int(recall[PLACE] + np.int64(STEP[direction]))
    if named:
        fell(recall, cell, turn, name_at(message, find(message, _KILL) + len(_KILL)))
        return
    if recall[KILLS] != cell:
        for k in range(2 * MEMORIES - 1, 1, -1):
            recall[KILLS + k] = recall[KILLS + k - 2]
    recall[KILLS], recall[KILLS + 1] = cell & 0xFFFF, turn & 0xFFFF


@kernels.njit()
def fell(recall: Array, cell: int, turn: int, name: int) -> None:
    """Remember that something of that name, as a hash, was killed on a cell.

    Not where the latest kill was of that name on that cell: of two corpses the first may be the
    one that is found.
    """
    if recall[KILLS] == cell and recall[NAMES] == name:
        return
    for k in range(2 * MEMORIES - 1, 1, -1):
        recall[KILLS + k] = recall[KILLS + k - 2]
    for k in range(MEMORIES - 1, 0, -1):
        recall[NAMES + k] = recall[NAMES + k - 1]
    recall[KILLS], recall[KILLS + 1] = cell & 0xFFFF, turn & 0xFFFF
    recall[NAMES] = name


@numba.njit(nogil=True)
def _thrown(recall: Array) -> bool:
    """Whether the key that gave the latest direction was for a missile: "t", item, direction."""
    for k in range(4):
        if DIRECTION[recall[KEYS + k]] >= 0:
            return bool(recall[KEYS + k + 2] == 116 or recall[KEYS + k + 1] == 102)
    return False


@kernels.njit()
def name_at(line: Array, at: int) -> int:
    """A hash, 1 to 65535, of the name at a place: to a "!", ".", " corpse" or " is killed"."""
    if begins(line, at, _THE):
        at += len(_THE)
    if begins(line, at, _EATEN):
        at += len(_EATEN)
    value = 0x811C
    while at < len(line) and line[at] != 33 and line[at] != 46:
        if line[at] == 32 and (begins(line, at, _CORPSE) or begins(line, at, _IS_KILLED)):
            break
        value = ((value ^ int(line[at])) * 0x0193) & 0xFFFFFF
        at += 1
    return max(1, (value ^ value >> 16) & 0xFFFF)


@kernels.njit()
def look(chars: Array, on_hero: bool, recall: Array) -> None:
    """Update `recall` from what a screen, uint8 [1920], says of a corpse where the hero stands."""
    found = -1
    for row in range(_TOP_LINES):  # behind "There is a doorway here.", say
        line = chars[row * COLS : (row + 1) * COLS]
        at = find(line, _SEE)
        if at >= 0:
            found = _corpse(line, at + len(_SEE))
            break
        if row == 0 and begins(line, 0, _THERE) and has(line, _EAT):
            found = _corpse(line, len(_THERE))
            break
        at = find(line, _THINGS)
        if at >= 0:
            found = _listed(chars, row + 1, at)
            break
    if found >= 0 or has(chars[:COLS], _NOTHING):
        recall[CORPSE] = max(0, found)
        recall[CORPSE_PLACE] = recall[PLACE] if on_hero else _PENDING
    elif on_hero and recall[CORPSE_PLACE] == _PENDING:
        recall[CORPSE_PLACE] = recall[PLACE]
    elif on_hero and recall[CORPSE_PLACE] != recall[PLACE]:
        recall[CORPSE] = 0
    if recall[CORPSE] and has(chars[:COLS], _EATING):
        for k in range(MEMORIES):
            if recall[KILLS + 2 * k] == recall[PLACE] and recall[NAMES + k] == recall[CORPSE]:
                recall[KILLS + 2 * k] = 0
        recall[CORPSE] = 0


@numba.njit(nogil=True)
def _listed(chars: Array, row: int, column: int) -> int:
    """The hash of the first corpse in a list of things, from a row and column on; 0 for none."""
    while row < BOTTOM:
        line = chars[row * COLS : (row + 1) * COLS]
        if begins(line, column, _END):
            break
        if line[column] == 97 and (line[column + 1] == 32 or line[column + 1] == 110):  # "a", "an"
            found = _corpse(line, column + 1)
            if found:
                return found
        row += 1
    return 0


@numba.njit(nogil=True)
def _corpse(line: Array, at: int) -> int:
    """The hash of the corpse's name behind the "a" of "a newt corpse"; 0 when it is no corpse."""
    at += 2 if line[at] == 110 else 1
    stop = at
    while stop < len(line) and line[stop] != 46 and line[stop] != 40:  # "." and "("
        if begins(line, stop, _CORPSE):
            return name_at(line, at)
        stop += 1
    return 0


@numba.njit(nogil=True)
def _age_here(turn: int, recall: Array) -> int:
    """The symbol for a corpse where the hero stands: its age, 8 when unknown, 9 for a kill alone.

    A corpse is as old as the kill of its name there, the oldest of several: AutoAscend eats none
    that it has not seen fall, and not the newest of two.
    """
    there = recall[CORPSE_PLACE] == recall[PLACE] or recall[CORPSE_PLACE] == _PENDING
    named = recall[CORPSE] > 0 and there
    symbol = 8 if named else 0
    for k in range(MEMORIES):
        if recall[KILLS + 2 * k] != recall[PLACE] or not recall[PLACE]:
            continue
        if named and recall[NAMES + k] == recall[CORPSE]:
            symbol = int(_AGE[min(255, since(turn, recall[KILLS + 2 * k + 1]))])
        elif not named:
            symbol = 9
    return symbol


@numba.njit(nogil=True)
def _fallen(chars: Array, hero: int, direction: int) -> int:
    """Where a kill in a direction fell: at the first thing that lies there, or beside the hero.

    Daggers are thrown, and may lie on the corpse.
    """
    y, x = position(hero)
    down, right = ROW_STEP[direction], COL_STEP[direction]
    for k in range(1, _MISSILE + 1):
        v, u = y + k * down, x + k * right
        if not (TOP <= v < BOTTOM and 0 <= u < COLS):
            break
        if THING[chars[v * COLS + u]]:
            return int(place(v, u))
    return int(place(y + down, x + right))


@kernels.njit()
def vitals(turn: int, health: int, most: int, hunger: int, recall: Array, here: Array) -> None:
    """The symbols of `HERE`; the hero need not be seen, questions hide it."""
    here[0], here[1] = 0, 1 + hunger
    here[2] = here[3] = 0
    if turn < 0:
        return
    if recall[VERSION] >= NAMED:
        here[0] = _age_here(turn, recall)
    for k in range(MEMORIES if recall[VERSION] < NAMED else 0):
        if recall[KILLS + 2 * k] == recall[PLACE] and recall[PLACE]:
            here[0] = _AGE[min(255, since(turn, recall[KILLS + 2 * k + 1]))]
            break
    if recall[PRAYED]:
        here[2] = 1 + np.searchsorted(_SINCE, since(turn, recall[PRAYED]), side="right")
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
def since(turn: int, then: int) -> int:
    """Turns since `then`, of which 16 bits are known."""
    return min(_MOST, (turn - int(then)) & 0xFFFF)
