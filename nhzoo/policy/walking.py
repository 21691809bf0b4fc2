"""Map search: where the hero has been, and what lies in each direction on a shortest path.

An agent carries a `Recall` from screen to screen: the keys pressed last, and for each cell of the
present level for how many turns the hero has stood there. With it, `direction_features` walks
breadth first over the map as it is shown and says of each of the eight directions which kinds of
place lie that way on a shortest path, and how far. All comes from what a terminal shows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nhzoo.policy.config import COLS, COMPASS, DIRECTIONS, HISTORY, RAY, RING, TARGETS
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
RECALL = PRAYED + 3
"""uint16 [1912], what is carried of a game: cells, level, turn, the hero's cell, the latest keys,
of `memory` the latest kills (cell and turn of each) and the turn of the last prayer, and the turn
that was shown last and for how many screens it has been no other.

A cell holds the turns spent on it (15 bits) and whether the hero has stood on it or beside it.
"""
_BESIDE, _SPENT = 0x8000, 0x7FFF
_MOST_TURNS = 20  # that one key adds

MOVES = "kulnjbhy"
"""The keys of the eight directions, north first, clockwise."""
STEP = np.array([-WIDTH, 1 - WIDTH, 1, 1 + WIDTH, WIDTH, WIDTH - 1, -1, -WIDTH - 1]).astype(
    np.uint64
)
"""From a cell's number to its neighbours'; unsigned, so that numba makes plain loops of it."""

FRONTIER, ITEM, BEING, DOWN, UP, DOOR, UNVISITED, DEAD_END, FRESH, LOOKED, WORN = range(TARGETS)
"""What is looked for: a cell beside unseen rock; a thing, a door, any cell, not yet stood on; a
creature; stairs; a dead end; a cell by a wall or rock stood on for less than 5, 10 or 25 turns."""
_ENOUGH = 12  # turns after which a dead end is none


# What a cell of the map is to somebody who walks.
_OPEN, _DOOR, _ROCK, _WALL, _THING, _BEING, _SHUT = 1, 2, 4, 8, 16, 32, 64
_BROWN = 3
THINGS = ')[="(%!?/+$*'
_KIND_BITS = 24  # where a kind begins in `survey`'s grid
NOT_YET = 1 << 16  # the distance of a cell that is not reached yet
_BLANKS = np.uint64(0x2020202020202020)
_NO_WAY = (2, 6, 10, 14)  # colours of "#" that is a tree or iron bars


def _cells() -> Array:
    """int32 [256 x 16]: `survey`'s `grid` by character and colour."""
    table = np.zeros((256, 16), np.uint8)
    table[ord(" ")] = _ROCK
    for char in "|-":
        table[ord(char)] = _WALL
        table[ord(char), _BROWN] = _OPEN | _DOOR
    for char in ".#{_\\><":
        table[ord(char)] = _OPEN
    table[ord("#"), list(_NO_WAY)] = 0
    for char in THINGS:
        table[ord(char)] = _OPEN | _THING
    table[ord("+"), _BROWN] = _OPEN | _DOOR | _SHUT
    for char in "@&;:'~abcdefghijklmnopqrstuvwxyz":
        table[ord(char)] = table[ord(char.upper())] = _OPEN | _BEING
    kinds = table.reshape(-1).astype(np.int32)
    rock, wall, can_walk = (kinds & bit > 0 for bit in (_ROCK, _WALL, _OPEN))
    return kinds << _KIND_BITS | can_walk << 16 | wall << 8 | rock


def symbols(edges: list[int]) -> Array:
    """uint8 [256]: 1 + how many edges a number has reached."""
    return (1 + np.searchsorted(edges, np.arange(256), side="right")).astype(np.uint8)


def _directions() -> Array:
    table = np.full(256, -1, np.int8)
    for direction, key in enumerate(MOVES):
        table[ord(key)] = table[ord(key.upper())] = direction
    return table


ROW_STEP = np.array([-1, -1, 0, 1, 1, 1, 0, -1], np.int64)
COL_STEP = np.array([0, 1, 1, 1, 0, -1, -1, -1], np.int64)
_REACH = 2
_NEAR = 2 * _REACH + 1  # cells on a side of what is round the next cells of all directions


def _around() -> Array:
    """int64 [8, 9]: for each direction the ring round its next cell, from itself on, and that."""
    ring = (np.arange(DIRECTIONS)[:, None] + np.arange(RING)) % DIRECTIONS
    down = np.column_stack([ROW_STEP[ring], np.zeros(DIRECTIONS, np.int64)]) + ROW_STEP[:, None]
    right = np.column_stack([COL_STEP[ring], np.zeros(DIRECTIONS, np.int64)]) + COL_STEP[:, None]
    return (down + _REACH) * _NEAR + right + _REACH


_AROUND = _around()
_KIND = _cells()
_UNLIT = int(_KIND[16 * ord(" ")])
_FOOTPRINT = symbols([3, 6, 11, 21, 41, 81])
DISTANCE = symbols([2, 3, 4, 5, 7, 10, 15, 25])
DIRECTION = _directions()


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
    """`push_key` for n games: recall [n, 1912], keys [n]."""
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
        recall[LEVEL], recall[TURN], recall[PLACE] = level, turn & 0xFFFF, cell
    passed = min(_MOST_TURNS, (turn - int(recall[TURN])) & 0xFFFF)
    before = int(recall[PLACE])
    spent = min(_SPENT, (int(recall[before]) & _SPENT) + passed)
    recall[before] = (int(recall[before]) & _BESIDE) | spent
    recall[TURN], recall[PLACE] = turn & 0xFFFF, cell
    if recall[cell] & _SPENT == 0:
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
            out[k * size + j] = _footprint(recall, place(y, x)) if inside else 0


@kernels.njit()
def _footprint(recall: Array, cell: Any) -> int:
    spent = int(recall[cell]) & _SPENT
    return _FOOTPRINT[min(255, spent)] if spent else 0


@kernels.njit()
def survey(chars: Array, colors: Array, grid: Array, distance: Array) -> None:
    """The map's cells, into `grid` and `distance`, int32 [1886] both, whose borders stay 0.

    `grid`: the kind of a cell, and below it what it adds to the numbers of rocks, walls and open
    cells round a cell, a byte each. `distance`: `NOT_YET` where one can walk, else 0.
    """
    eights = chars.view(np.uint64)
    for y in range(TOP, BOTTOM):
        for eight in range(COLS // 8):
            cell = np.uint64(place(y, 8 * eight))
            at = np.uint64(y * COLS + 8 * eight)
            if eights[at >> np.uint64(3)] == _BLANKS:
                for x in range(np.uint64(8)):
                    grid[cell + x] = _UNLIT
                    distance[cell + x] = 0
                continue
            for x in range(np.uint64(8)):
                kind = np.uint64(chars[at + x]) * np.uint64(16) + np.uint64(colors[at + x] & 15)
                grid[cell + x] = _KIND[kind]
                distance[cell + x] = (_KIND[kind] >> 16 & 1) * NOT_YET


@kernels.njit()
def direction_features(
    chars: Array,
    colors: Array,
    row: int,
    col: int,
    recall: Array,
    scratch: Array,
    compass: Array,
    here: Array,
) -> None:
    """The direction features of the hero: `compass` uint8 [8 x 43] and `here` uint8 [5].

    `scratch`: int32 [4 x 1886], zeros at first. Doors cannot be passed diagonally; creatures,
    closed doors, traps, water and boulders block the way.
    """
    grid, distance, ways, queue = scratch[0], scratch[1], scratch[2], scratch[3]
    survey(chars, colors, grid, distance)
    found_at = np.full(TARGETS, -1, np.int64)
    found = np.zeros(TARGETS, np.int64)
    start = np.uint64(place(row, col))
    distance[start] = ways[start] = 0
    queue[0] = start
    head, tail = np.uint64(0), np.uint64(1)
    while head < tail:
        cell = np.uint64(queue[head])
        head += np.uint64(1)
        far, way, kind = distance[cell], ways[cell], grid[cell] >> _KIND_BITS
        spent = int(recall[cell]) & _SPENT
        at_start = cell == start
        passable = at_start or not kind & (_BEING | _SHUT)
        around = 0
        for d in range(DIRECTIONS):
            around += grid[cell + STEP[d]]
        rock, walls, sides = around & 255, around >> 8 & 255, around >> 16 & 255
        unseen = False
        if rock:
            for d in range(DIRECTIONS):
                to = cell + STEP[d]
                unseen |= (grid[to] & 1) > (recall[to] >> 15)
        if passable:
            for d in range(DIRECTIONS):
                to = cell + STEP[d]
                if distance[to] <= far:
                    continue
                if d % 2 and (kind | grid[to] >> _KIND_BITS) & _DOOR:
                    continue
                first = 1 << d if at_start else way
                if distance[to] == NOT_YET:
                    distance[to], ways[to] = far + 1, first
                    queue[tail] = to
                    tail += np.uint64(1)
                else:
                    ways[to] |= first
        if at_start:
            here[0], here[1], here[2] = 1 + rock, 1 + walls, 1 + sides
            here[3], here[4] = 1 + _footprint(recall, cell), 1 + unseen
            continue
        if kind & _BEING:
            _hit(BEING, far, way, found_at, found)
            continue
        if spent == 0:
            _hit(UNVISITED, far, way, found_at, found)
            if kind & _THING:
                _hit(ITEM, far, way, found_at, found)
            if kind & _DOOR:
                _hit(DOOR, far, way, found_at, found)
        y, x = position(int(cell))
        if chars[y * COLS + x] == 62:
            _hit(DOWN, far, way, found_at, found)
        elif chars[y * COLS + x] == 60:
            _hit(UP, far, way, found_at, found)
        if unseen:
            _hit(FRONTIER, far, way, found_at, found)
        if sides <= 1 and spent < _ENOUGH:
            _hit(DEAD_END, far, way, found_at, found)
        if rock + walls:
            if spent < 5:
                _hit(FRESH, far, way, found_at, found)
            if spent < 10:
                _hit(LOOKED, far, way, found_at, found)
            if spent < 25:
                _hit(WORN, far, way, found_at, found)
    for d in range(DIRECTIONS):
        out = compass[d * COMPASS : (d + 1) * COMPASS]
        for target in range(TARGETS):
            seen = found[target] >> d & 1
            out[target] = DISTANCE[min(255, found_at[target])] if seen else 0
    _beside(chars, colors, row, col, recall, queue, compass)


@kernels.njit()
def _hit(target: int, far: int, way: int, found_at: Array, found: Array) -> None:
    """Cells come in order of distance: the nearest of a kind, and all ways to those as near."""
    if found_at[target] < 0:
        found_at[target] = far
    if found_at[target] == far:
        found[target] |= way


@kernels.njit()
def _char(chars: Array, y: int, x: int) -> int:
    """1 + printable character of a map cell, 0 outside."""
    if not (TOP <= y < BOTTOM and 0 <= x < COLS):
        return 0
    char = int(chars[y * COLS + x]) - 32
    return char + 1 if 0 <= char < 96 else 1


@kernels.njit()
def _beside(
    chars: Array, colors: Array, row: int, col: int, recall: Array, near: Array, compass: Array
) -> None:
    """What `direction_features` says but for the targets. `near`: int32 [50] to work in."""
    for k in range(_NEAR * _NEAR):
        y, x = row + k // _NEAR - _REACH, col + k % _NEAR - _REACH
        near[k] = _char(chars, y, x)
        inside = near[k] > 0
        near[_NEAR * _NEAR + k] = _footprint(recall, place(y, x)) if inside else 0
    latest = DIRECTION[recall[KEYS]]
    for d in range(DIRECTIONS):
        out = compass[d * COMPASS + TARGETS : (d + 1) * COMPASS]
        down, right = ROW_STEP[d], COL_STEP[d]
        y, x = row + down, col + right
        next_to = _AROUND[d, DIRECTIONS]
        out[0] = near[next_to]
        out[1] = (colors[y * COLS + x] & 15) + 1 if near[next_to] else 0
        out[2] = near[_NEAR * _NEAR + next_to]
        for r in range(RING):
            out[3 + r] = near[_AROUND[d, r]]
            out[3 + RING + r] = near[_NEAR * _NEAR + _AROUND[d, r]]
        for k in range(2, RAY + 1):
            out[1 + 2 * RING + k] = _char(chars, row + k * down, col + k * right)
        turns = out[2 + 2 * RING + RAY :]
        turns[:4] = 0
        moves = 0
        for k in range(HISTORY):
            before = DIRECTION[recall[KEYS + k]]
            if before >= 0 and moves < 3:
                turns[moves] = 1 + ((d - before) & 7)
                moves += 1
        if latest >= 0:
            turns[3] = 1 + ((d - latest) & 7)
        turns[4], turns[5] = 1 + d % 2, 1 + d
