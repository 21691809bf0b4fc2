"""Compiled kernels for AutoAscend: sets of glyphs as tables, and its arithmetic on a level.

Arrays of a level are [21, 79]: glyphs and objects int16, counts and distances int32, marks bool. A
set of glyphs is bool [65536], so that any int16, -1 too, selects a place in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from nhzoo.runtime import kernels

Array = np.ndarray[Any, Any]

GLYPHS = 1 << 16
SWALLOWED, PET, KEEPER = 8, 16, 32
"""Bits of what `see` returns."""


@kernels.njit()
def search_priority(
    objects: Array,
    walkable: Array,
    distance: Array,
    counts: Array,
    stone: Array,
    wall: Array,
    door: Array,
) -> Array:
    """How much a square is worth searching: float32, -inf where it is not.

    Rounded as the original rounds: each term is added in float64 to the float32 so far.
    """
    rows, columns = objects.shape
    worth = np.empty((rows, columns), np.float32)
    for y in range(rows):
        for x in range(columns):
            worth[y, x] = -np.inf
            if not walkable[y, x] or distance[y, x] == -1:
                continue
            stones, walls, ways = 0, 0, 0
            for py in range(max(y - 1, 0), min(y + 2, rows)):
                for px in range(max(x - 1, 0), min(x + 2, columns)):
                    if py == y and px == x:
                        continue
                    stones += stone[objects[py, px]]
                    walls += wall[objects[py, px]]
                    if py == y or px == x:
                        ways += walkable[py, px]
            if stones == 0 and walls == 0:
                continue
            searched = np.int64(counts[y, x])
            found = np.float32(-1.0 - np.float64(np.int32(searched * searched * 2)))
            if door[objects[y, x]] and stones > 3:
                found = np.float32(np.float64(found) + 250.0)
            if ways <= 1:
                found = np.float32(np.float64(found) + 250.0)
            worth[y, x] = found
    return worth


@kernels.njit()
def unseen_beside(
    seen: Array, glyphs: Array, opened: Array, most: int, stone: Array, closed: Array
) -> Array:
    """bool: squares beside one that was never seen, or straight beside a door to be opened."""
    rows, columns = glyphs.shape
    beside = np.zeros((rows, columns), np.bool_)
    for y in range(rows):
        for x in range(columns):
            glyph = glyphs[y, x]
            unseen = stone[glyph] and not seen[y, x]
            door = closed[glyph] and opened[y, x] < most
            if not unseen and not door:
                continue
            for py in range(max(y - 1, 0), min(y + 2, rows)):
                for px in range(max(x - 1, 0), min(x + 2, columns)):
                    straight = py == y or px == x
                    if (py != y or px != x) and (unseen or straight):
                        beside[py, px] = True
    return beside


@kernels.njit()
def trap_searches(
    y: int,
    x: int,
    offset: int,
    was_on: Array,
    objects: Array,
    counts: Array,
    specials: Array,
    traps: Array,
    pile: int,
) -> int:
    """How often to search here for traps beside (y, x)."""
    rows, columns = objects.shape
    most = 0
    for ny in range(max(y - 1, 0), min(y + 2, rows)):
        for nx in range(max(x - 1, 0), min(x + 2, columns)):
            if (ny == y and nx == x) or was_on[ny, nx] or traps[objects[ny, nx]]:
                continue
            searched = 0
            for py in range(max(ny - 1, 0), min(ny + 2, rows)):
                for px in range(max(nx - 1, 0), min(nx + 2, columns)):
                    searched += counts[py, px]
            wanted = offset - searched
            if specials[ny, nx] & pile:
                wanted += 4
            most = max(most, wanted)
    return most


@kernels.njit()
def looked_up(glyphs: Array, table: Array) -> Array:
    """Where there is a glyph of a set."""
    found = np.empty(glyphs.shape, np.bool_)
    for y in range(glyphs.shape[0]):
        for x in range(glyphs.shape[1]):
            found[y, x] = table[glyphs[y, x]]
    return found


def table(*sets: Iterable[int]) -> Array:
    """Bool [65536]: the glyphs (int16) that are in one of the sets."""
    table = np.zeros(GLYPHS, np.bool_)
    for members in sets:
        table[np.fromiter(members, np.int64)] = True
    return table


@kernels.njit()
def see(glyphs: Array, kinds: Array, walkable: Array, seen: Array, objects: Array) -> int:
    """Note what is on the screen; the kinds of all glyphs on it, as bits."""
    every = 0
    for y in range(glyphs.shape[0]):
        for x in range(glyphs.shape[1]):
            every |= kinds[glyphs[y, x]]
    if every & SWALLOWED:  # swallowed: nothing of the level is seen
        return every
    for y in range(glyphs.shape[0]):
        for x in range(glyphs.shape[1]):
            glyph = glyphs[y, x]
            kind = kinds[glyph]
            if kind & 7:
                seen[y, x] = True
            if kind & 1:
                walkable[y, x] = True
                objects[y, x] = glyph
            if kind & 2 and objects[y, x] == -1:
                walkable[y, x] = True
            if kind & 4:
                objects[y, x] = glyph
                walkable[y, x] = False
    return every


@kernels.njit()
def touch(
    y: int, x: int, glyphs: Array, stone: Array, walkable: Array, seen: Array, objects: Array
) -> None:
    """Solid stone beside the hero is known to be stone."""
    for ny in range(max(y - 1, 0), min(y + 2, glyphs.shape[0])):
        for nx in range(max(x - 1, 0), min(x + 2, glyphs.shape[1])):
            if (ny != y or nx != x) and stone[glyphs[ny, nx]]:
                seen[ny, nx] = True
                objects[ny, nx] = glyphs[ny, nx]
                walkable[ny, nx] = False


def kinds(*groups: Iterable[Iterable[int]]) -> Array:
    """int64 [65536]: bit i of a glyph is whether it is in a set of group i."""
    kinds = np.zeros(GLYPHS, np.int64)
    for bit, group in enumerate(groups):
        kinds[table(*group)] |= 1 << bit
    return kinds


@kernels.njit()
def moved(before: Array, peaceful: Array, hostile: Array, glyphs: Array, now: Array) -> Any:
    """Whether it is sure which monsters are peaceful, and where these are.

    It is when each of them is like one that was two squares away or nearer, all such being of one
    mind. `hostile` marks all monsters of before, `now` those of now.
    """
    rows, columns = glyphs.shape
    friends = np.zeros((rows, columns), np.bool_)
    for y in range(rows):
        for x in range(columns):
            if not now[y, x]:
                continue
            friend, foe = False, False
            for py in range(max(y - 2, 0), min(y + 3, rows)):
                for px in range(max(x - 2, 0), min(x + 3, columns)):
                    if before[py, px] == glyphs[y, x]:
                        friend |= peaceful[py, px]
                        foe |= hostile[py, px] and not peaceful[py, px]
            if friend == foe:
                return False, friends
            friends[y, x] = friend
    return True, friends


@kernels.njit()
def seen_items(
    counts: Array, glyphs: Array, specials: Array, covered: Array, pile: int, doubts: Array
) -> list[tuple[int, bool]]:
    """Where things are remembered that nothing covers, and whether a pile is seen if it is one.

    Elsewhere no doubts are left.
    """
    found = []
    for y in range(glyphs.shape[0]):
        for x in range(glyphs.shape[1]):
            if counts[y, x] != 0 and not covered[glyphs[y, x]]:
                piled = specials[y, x] & pile > 0
                found.append((y * glyphs.shape[1] + x, (counts[y, x] >= 2) == piled))
            else:
                doubts[y, x] = 0
    return found
