"""The scripted agent: rules of thumb, a baseline that a network should beat.

It fights what is beside it, prays and drinks when it is about to die, rests, eats, explores each
level to its end, looks for what is hidden, and goes down when it is strong enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from nle import nethack

from nhzoo.envs.actions import ACTION_KEYS
from nhzoo.policy.screen_text import has
from nhzoo.runtime import kernels

Array = np.ndarray[Any, Any]

_ROWS, _COLS = 21, 79
_DIRECTIONS = np.frombuffer(b"kulnjbhy", np.uint8)  # north, then clockwise: odd ones are diagonal
_DY, _DX = np.array([-1, -1, 0, 1, 1, 1, 0, -1]), np.array([0, 1, 1, 1, 0, -1, -1, -1])
_ENTER, _ESCAPE, _YES, _NO, _SEARCH, _EAT, _DRINK, _DOWN = (ord(key) for key in "\r\x1bynseq>")
_PRAY, _KICK = ord("p") | 128, ord("d") & 31
_ACTION = np.full(256, list(ACTION_KEYS).index(_ESCAPE))  # that for a key that no action presses
_ACTION[ACTION_KEYS[::-1]] = np.arange(len(ACTION_KEYS))[::-1]  # the first of those that press it

# Terrain is numbered as NetHack's symbols of the map; 0 is not known.
_CMAP, _KINDS = nethack.GLYPH_CMAP_OFF, 65
_DOORS, _CLOSED, _FLOOR = (13, 14, 15, 16), 15, 19
_STAIRS = (24, 26)  # down; the second a ladder
_PASSABLE = np.zeros(_KINDS, np.bool_)
_PASSABLE[[*range(12, 17), *range(19, 32), 33, 35, 36, *range(42, 64)]] = True
_GOLD = nethack.GLYPH_OBJ_OFF + next(
    i for i in range(nethack.NUM_OBJECTS) if nethack.OBJ_NAME(nethack.objclass(i)) == "gold piece"
)
_MONSTERS, _INVISIBLE = nethack.NUMMONS, nethack.GLYPH_INVIS_OFF
_NAMES = [nethack.permonst(i).mname for i in range(_MONSTERS)]
_HARMLESS = {"floating eye", "blue jelly", "spotted jelly", "gas spore", "acid blob"}  # if not hit
_LEFT_ALONE = np.array([name in _HARMLESS or name.endswith(" mold") for name in _NAMES])

_MORE, _ATTACK, _PRAYING, _STOP, _WHERE, _WHAT, _EAT_IT, _LOCKED, _WHAMM, _NONE = (
    np.frombuffer(text, np.uint8)
    for text in (
        *(b"--More--", b"Really attack", b"want to pray", b"Stop eating", b"direction?"),
        *(b"want to", b"eat it?", b"is locked", b"WHAMM", b"You don't have any"),
    )
)

# Numbers kept of a game: `_GOAL` is the cell it meant to step on (negative: to attack).
_LEVEL, _TURN, _STUCK, _HEALTH, _GOAL, _HEADING, _KICKS, _SPOT, _PRAYED, _ATE, _DRANK = range(11)


class Screen(NamedTuple):
    """The observations that the agent uses, each array [batch, ...]; see NLE."""

    tty_chars: Array
    tty_cursor: Array
    glyphs: Array
    blstats: Array


class State(NamedTuple):
    """The agent's memory, each array [batch, ...]; it is changed in place."""

    terrain: Array  # uint8 [21, 79]
    shut: Array  # int32 [21, 79]: until which turn a cell is not tried again
    visited: Array  # bool [21, 79]
    searched: Array  # int32 [21, 79]: how often something hidden was looked for beside a cell
    peaceful: Array  # bool [monsters]: kinds that asked whether to be attacked
    numbers: Array  # int64 [11]


class ScriptedAgent:
    """An agent of rules of thumb, see the module. When stuck, or rarely, it moves at random."""

    name, revision = "scripted", "1"
    observation_keys = Screen._fields

    def initial_state(self, batch: int) -> State:
        """A state that knows nothing yet."""
        map_types = (np.uint8, np.int32, np.bool_, np.int32)
        terrain, shut, visited, searched = (
            np.zeros((batch, _ROWS, _COLS), kind) for kind in map_types
        )
        peaceful, numbers = np.zeros((batch, _MONSTERS), np.bool_), np.zeros((batch, 11), np.int64)
        numbers[:, _LEVEL], numbers[:, _PRAYED] = -1, -700  # the first prayer is safe from turn 300
        return State(terrain, shut, visited, searched, peaceful, numbers)

    def act(
        self, observation: Mapping[str, Array], state: State, uniform: Array
    ) -> tuple[Array, State]:
        """See `Agent.act`."""
        keys = np.empty(len(uniform), np.uint8)
        _choose(Screen(*(observation[name] for name in Screen._fields)), state, uniform, keys)
        return _ACTION[keys], state


@kernels.njit()
def _choose(screen: Screen, state: State, uniform: Array, keys: Array) -> None:
    for b in range(len(keys)):
        seen = Screen(
            screen.tty_chars[b], screen.tty_cursor[b], screen.glyphs[b], screen.blstats[b]
        )
        known = State(
            *(state.terrain[b], state.shut[b], state.visited[b]),
            *(state.searched[b], state.peaceful[b], state.numbers[b]),
        )
        keys[b] = _key(seen, known, uniform[b])


@kernels.njit()
def _key(seen: Screen, known: State, uniform: float) -> int:
    """The key to press in one game."""
    numbers, message = known.numbers, seen.tty_chars[0]
    stats = seen.blstats  # at nethack.NLE_BL_X and so on
    x, y, health, most, depth = stats[0], stats[1], stats[10], stats[11], stats[12]
    strength, turn, hunger, level = stats[18], stats[20], stats[21], stats[23] * 100 + stats[24]
    numbers[_STUCK] = numbers[_STUCK] + 1 if turn == numbers[_TURN] else 0
    numbers[_TURN] = turn
    goal, numbers[_GOAL] = numbers[_GOAL], 0
    if numbers[_STUCK] > 12:  # whatever this is, out of it
        keys = np.array([_ESCAPE, _ENTER, _SEARCH, _DIRECTIONS[int(uniform * 8)]])
        return int(keys[numbers[_STUCK] % 4])
    if seen.tty_cursor[0] != y + 1 or seen.tty_cursor[1] != x:
        return _answer(seen, known, goal)
    if numbers[_LEVEL] != level:
        numbers[_LEVEL], goal = level, 0
        known.terrain[:], known.shut[:], known.searched[:] = 0, 0, 0
        known.visited[:], known.peaceful[:] = False, False
    if goal > 0 and goal != y * _COLS + x:
        known.shut[goal // _COLS, goal % _COLS] = turn + 20  # it could not be entered
    if health < numbers[_HEALTH]:
        known.peaceful[:] = False  # somebody is not
    numbers[_HEALTH] = health
    known.visited[y, x] = True
    company = _look(seen, known, y, x)

    dying = health < 6 or health * 7 <= most  # as gods see it
    if (dying or hunger >= 3) and turn - numbers[_PRAYED] > 1000:
        numbers[_PRAYED] = turn
        return _PRAY
    if has(message, _NONE):
        numbers[_ATE] = numbers[_DRANK] = turn + 100
    if dying and turn >= numbers[_DRANK]:
        return _DRINK
    for d in range(8):
        i, j = y + _DY[d], x + _DX[d]
        if _hostile(seen, known, i, j) and _open(known, y, x, d, turn):
            numbers[_HEADING], numbers[_GOAL] = d, -(i * _COLS + j)
            return int(_DIRECTIONS[d])
    numbers[_KICKS] += 1
    if not (has(message, _LOCKED) or has(message, _WHAMM)):
        numbers[_KICKS] = 0
    elif numbers[_KICKS] < 40:
        return _KICK
    if hunger >= 2 and turn >= numbers[_ATE]:
        return _EAT
    if health * 4 < most * 3 and not company:
        return _SEARCH

    ready = strength > depth or hunger >= 3 or turn > 700 * depth
    if ready and known.terrain[y, x] in _STAIRS:
        return _DOWN
    d = int(uniform * 1000)
    if d > 7 or not _open(known, y, x, d, turn) or _spared(seen, known, y + _DY[d], x + _DX[d]):
        begun = numbers[_SPOT] == y * _COLS + x and known.searched[y, x] % 8 > 0
        d = 8 if begun else _way(seen, known, ready)
    if 0 <= d < 8:
        numbers[_HEADING], numbers[_GOAL] = d, (y + _DY[d]) * _COLS + x + _DX[d]
        return int(_DIRECTIONS[d])
    numbers[_SPOT] = y * _COLS + x
    known.searched[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] += 1
    return _SEARCH


@kernels.njit()
def _answer(seen: Screen, known: State, goal: int) -> int:
    """The key for a question, a menu or a text that waits."""
    row, col = seen.tty_cursor
    message = seen.tty_chars[0]
    if col >= 8 and has(seen.tty_chars[row, col - 8 : col], _MORE):
        known.numbers[_GOAL] = goal
        return _ENTER
    if row == 0 and has(message, _ATTACK) and goal < 0:
        glyph = seen.glyphs[-goal // _COLS, -goal % _COLS]
        if 0 <= glyph < _MONSTERS:
            known.peaceful[glyph] = True
    elif row == 0 and (has(message, _PRAYING) or has(message, _STOP)):
        return _YES
    elif row == 0 and has(message, _WHERE):
        return int(_DIRECTIONS[known.numbers[_HEADING]])
    elif row == 0 and has(message, _EAT_IT):
        return _NO
    elif row == 0 and has(message, _WHAT):  # What do you want to eat? [fg or ?*]
        for start in range(len(message) - 1):
            if message[start] == ord("[") and message[start + 1] >= ord("A"):
                return int(message[start + 1])
    return _ESCAPE


@kernels.njit()
def _look(seen: Screen, known: State, y: int, x: int) -> bool:
    """Take the map in; whether anything hostile is to be seen."""
    company = False
    for i in range(_ROWS):
        for j in range(_COLS):
            kind = seen.glyphs[i, j] - _CMAP
            if 0 < kind < _KINDS:
                known.terrain[i, j] = kind
            elif kind != 0:
                if known.terrain[i, j] == 0:
                    known.terrain[i, j] = _FLOOR  # with something on it
                company = company or (_hostile(seen, known, i, j) and (i != y or j != x))
    return company


@kernels.njit()
def _hostile(seen: Screen, known: State, y: int, x: int) -> bool:
    if not (0 <= y < _ROWS and 0 <= x < _COLS):
        return False
    glyph = seen.glyphs[y, x]
    if 0 <= glyph < _MONSTERS:
        return not (_LEFT_ALONE[glyph] or known.peaceful[glyph])
    return bool(glyph == _INVISIBLE)


@kernels.njit()
def _spared(seen: Screen, known: State, y: int, x: int) -> bool:
    """Whether somebody is there who is not to be attacked, and no pet."""
    return 0 <= seen.glyphs[y, x] < _MONSTERS and not _hostile(seen, known, y, x)


@kernels.njit()
def _open(known: State, y: int, x: int, d: int, turn: int) -> bool:
    """Whether one may step from (y, x) in direction d, as far as is known."""
    i, j = y + _DY[d], x + _DX[d]
    if not (0 <= i < _ROWS and 0 <= j < _COLS and known.shut[i, j] <= turn):
        return False
    to = known.terrain[i, j]
    doors = to in _DOORS or known.terrain[y, x] in _DOORS
    return bool(_PASSABLE[to] and not (d % 2 and doors))


@kernels.njit()
def _way(seen: Screen, known: State, ready: bool) -> int:
    """The first step of a way to what is best: a direction, 8 for none needed, -1 without.

    Best are the stairs for who is ready, then what is new, then where something may be hidden.
    """
    x, y, turn = seen.blstats[0], seen.blstats[1], seen.blstats[20]
    first = np.full((_ROWS, _COLS), -1, np.int8)
    far = np.empty((_ROWS, _COLS), np.int16)
    queue = np.empty((_ROWS * _COLS, 2), np.uint8)
    queue[0, 0], queue[0, 1], first[y, x], far[y, x] = y, x, 8, 0
    begin, end, best, cost = 0, 1, -1, 1 << 20
    while begin < end:
        i, j = int(queue[begin, 0]), int(queue[begin, 1])
        begin += 1
        here, begun = known.terrain[i, j], first[i, j]
        if ready and here in _STAIRS:
            return int(begun)
        around = unknown = 0
        for d in range(8):
            to_i, to_j = i + _DY[d], j + _DX[d]
            if not (0 <= to_i < _ROWS and 0 <= to_j < _COLS):
                continue
            kind = known.terrain[to_i, to_j]
            if not _PASSABLE[kind]:
                unknown += kind == 0
                continue
            around += 1
            if first[to_i, to_j] >= 0 or known.shut[to_i, to_j] > turn:
                continue
            if d % 2 and (kind in _DOORS or here in _DOORS):
                continue
            if _spared(seen, known, to_i, to_j):
                continue
            first[to_i, to_j] = d if begun == 8 else begun
            far[to_i, to_j] = far[i, j] + 1
            queue[end, 0], queue[end, 1] = to_i, to_j
            end += 1
        new = not known.visited[i, j] and (unknown > 0 or here == _CLOSED)
        if begun < 8 and (new or seen.glyphs[i, j] == _GOLD or _hostile(seen, known, i, j)):
            if not ready:
                return int(begun)
            price = far[i, j] - 10_000
        elif around < 8:
            price = far[i, j] + known.searched[i, j] // 8 * 10 - 40 * (around < 2)
        else:
            continue
        if price < cost:
            best, cost = begun, price
    return int(best)
