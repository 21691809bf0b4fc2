"""Map search: what lies in each direction on a shortest path, and how far.

`direction_features` walks breadth first over the map as it is shown, and says of each of the eight
directions which kinds of place lie that way on a shortest path. Where the hero has been, and what
he has killed, is in the `memory` of the game.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nhzoo.policy.config import COLS, COMPASS, DIRECTIONS, HISTORY, RAY, RING, TARGETS
from nhzoo.policy.memory import (
    BOTTOM,
    COL_STEP,
    DIRECTION,
    FRIENDS,
    KEYS,
    KILLS,
    MEMORIES,
    MOST_FRIENDS,
    ROW_STEP,
    SPENT,
    STEP,
    THING,
    THINGS,
    TOP,
    footprint,
    place,
    position,
    since,
    symbols,
)
from nhzoo.runtime import kernels

Array = np.ndarray[Any, Any]

FRONTIER, ITEM, BEING, DOWN, UP, DOOR, UNVISITED, DEAD_END, FRESH, LOOKED, WORN = range(TARGETS)
"""What is looked for: a cell beside unseen rock; a thing, a door, any cell, not yet stood on; a
creature; stairs; a dead end; a cell by a wall or rock stood on for less than 5, 10 or 25 turns."""
_ENOUGH = 12  # turns after which a dead end is none
_FRESH = 30  # turns for which a corpse is surely safe


# What a cell of the map is to somebody who walks.
_OPEN, _DOOR, _ROCK, _WALL, _THING, _BEING, _SHUT = 1, 2, 4, 8, 16, 32, 64
_BROWN = 3
_KIND_BITS = 24  # where a kind begins in `survey`'s grid
_TAME = 0x100  # see `peaceful`
_NOT_YET = 1 << 16  # the distance of a cell that is not reached yet
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
DISTANCE = symbols([2, 3, 4, 5, 7, 10, 15, 25])


@kernels.njit()
def survey(chars: Array, colors: Array, grid: Array, distance: Array) -> None:
    """The map's cells, into `grid` and `distance`, int32 [1886] both, whose borders stay 0.

    `grid`: the kind of a cell, and below it what it adds to the numbers of rocks, walls and open
    cells round a cell, a byte each. `distance`: `_NOT_YET` where one can walk, else 0.
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
                distance[cell + x] = (_KIND[kind] >> 16 & 1) * _NOT_YET


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
    for k in range(MOST_FRIENDS):
        friend = int(recall[FRIENDS + 3 * k])
        if friend and grid[friend] >> _KIND_BITS & _BEING:
            stays = 0 if recall[FRIENDS + 3 * k + 1] >= _TAME else _SHUT  # pets give way
            grid[friend] = grid[friend] & 0xFFFFFF | (_OPEN | stays) << _KIND_BITS
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
        spent = int(recall[cell]) & SPENT
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
                if distance[to] == _NOT_YET:
                    distance[to], ways[to] = far + 1, first
                    queue[tail] = to
                    tail += np.uint64(1)
                else:
                    ways[to] |= first
        if at_start:
            here[0], here[1], here[2] = 1 + rock, 1 + walls, 1 + sides
            here[3], here[4] = 1 + footprint(recall, cell), 1 + unseen
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
        near[_NEAR * _NEAR + k] = footprint(recall, place(y, x)) if inside else 0
    latest = DIRECTION[recall[KEYS]]
    for d in range(DIRECTIONS):
        out = compass[d * COMPASS + TARGETS : (d + 1) * COMPASS]
        down, right = ROW_STEP[d], COL_STEP[d]
        y, x = row + down, col + right
        next_to = _AROUND[d, DIRECTIONS]
        out[0] = near[next_to]
        out[1] = (colors[y * COLS + x] & 15) + 1 if near[next_to] else 0
        if near[next_to] and _is_friend(recall, place(y, x), near[next_to]):
            out[1] = 1
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


@kernels.njit()
def _is_friend(recall: Array, cell: int, char: int) -> bool:
    """Whether a peaceful or tame creature of this letter, 1 + printable, is known on a cell."""
    for k in range(MOST_FRIENDS):
        if recall[FRIENDS + 3 * k] == cell:
            return bool((recall[FRIENDS + 3 * k + 1] & 0xFF) - 31 == char)
    return False


@kernels.njit()
def corpse_features(chars: Array, turn: int, recall: Array, scratch: Array, compass: Array) -> None:
    """The last symbol of each direction of the compass: how far it is to a corpse that is fresh.

    `scratch` is what `direction_features` has left there.
    """
    nearest, ways = -1, 0
    for k in range(MEMORIES):
        cell = int(recall[KILLS + 2 * k])
        if not cell or since(turn, recall[KILLS + 2 * k + 1]) > _FRESH:
            continue
        y, x = position(cell)
        far = scratch[1, cell]
        if not THING[chars[y * COLS + x]] or not 0 < far < _NOT_YET:
            continue
        if nearest < 0 or far < nearest:
            nearest, ways = far, 0
        if far == nearest:
            ways |= scratch[2, cell]
    for d in range(DIRECTIONS):
        seen = nearest >= 0 and ways >> d & 1
        compass[(d + 1) * COMPASS - 1] = DISTANCE[min(255, nearest)] if seen else 0
