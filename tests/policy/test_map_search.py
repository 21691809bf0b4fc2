"""Recalls and the compass, against plain Python that does the same the long way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nhzoo.envs.game import Episode, Game
from nhzoo.envs.protocols import get_protocol
from nhzoo.policy import features, map_search, memory
from nhzoo.policy.config import COMPASS, HERE_OF_MAP
from nhzoo.policy.screen_text import bottom_line

MAP = """
  ------      -----
  |....|      |..>|
  |.@..+######....|
  |..d.|      |.$.|
  ---.--      --|--
     #          #
     ####     ###
        `#####^
"""
OPEN = ("floor", "thing", "door", "shut", "being")
DELTA = [(-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)]


def screen(text: str, level: int = 1, turn: int = 1):
    """Characters, colours (doors brown) and the place of "@" of a drawn map, its top at row 3."""
    chars, colors = np.full((24, 80), 32, np.uint8), np.full((24, 80), 7, np.uint8)
    for y, line in enumerate(text.strip("\n").splitlines(), 3):
        chars[y, : len(line)] = np.frombuffer(line.encode(), np.uint8)
    colors[chars == ord("+")] = 3
    status = f"Dlvl:{level} $:0 HP:15(15) Pw:4(4) AC:4 Xp:1/1 T:{turn}".encode()
    chars[23, : len(status)] = np.frombuffer(status, np.uint8)
    at = np.argwhere(chars[:22] == ord("@"))[0]
    return chars.reshape(-1), colors.reshape(-1), int(at[0]), int(at[1])


def look(chars, colors, row, col, recall):
    compass, here = np.zeros(8 * COMPASS, np.uint8), np.zeros(HERE_OF_MAP, np.uint8)
    scratch = np.zeros((4, memory.CELLS), np.int32)
    map_search.direction_features(chars, colors, row, col, recall, scratch, compass, here)
    return compass.reshape(8, COMPASS), here


def remember(chars, row, col, recall):
    level, turn = bottom_line(chars)[:2]
    return memory.remember(chars, row, col, level, turn, recall)


def turns(recall, y, x):
    return int(recall[memory.place(y, x)]) & 0x7FFF


def kind(chars, colors, y, x):
    if not (1 <= y < 22 and 0 <= x < 80):
        return "edge"
    char, color = chr(chars[y * 80 + x]), colors[y * 80 + x] & 15
    if char == " ":
        return "rock"
    if char in "|-":
        return "door" if color == 3 else "wall"
    if char == "+" and color == 3:
        return "shut"
    if char == "#" and color in (2, 6, 10, 14):
        return "no way"
    if char in ".#{_\\><":
        return "floor"
    if char in ')[="(%!?/+$*':
        return "thing"
    return "being" if char.isalpha() or char in "@&;:'~" else "no way"


def directions_to(chars, colors, row, col, recall, wanted):
    """(distance, first steps on shortest paths) to the nearest cell that `wanted` accepts."""
    kinds = {(y, x): kind(chars, colors, y, x) for y in range(0, 23) for x in range(-1, 81)}
    distance, first, frontier = {(row, col): 0}, {(row, col): set()}, [(row, col)]
    while frontier:
        following = []
        for y, x in frontier:
            if (y, x) != (row, col) and kinds[y, x] in ("being", "shut"):
                continue
            for d, (dy, dx) in enumerate(DELTA):
                to = y + dy, x + dx
                if kinds[to] not in OPEN:
                    continue
                if dy and dx and {kinds[y, x], kinds[to]} & {"door", "shut"}:
                    continue
                if to not in distance:
                    distance[to], first[to] = distance[y, x] + 1, set()
                    following.append(to)
                if distance[to] == distance[y, x] + 1:
                    first[to] |= {d} if (y, x) == (row, col) else first[y, x]
        frontier = following
    found = [cell for cell in distance if cell != (row, col) and wanted(cell, kinds)]
    if not found:
        return None, set()
    nearest = min(distance[cell] for cell in found)
    return nearest, set().union(*(first[c] for c in found if distance[c] == nearest))


def beside(cell):
    return [(cell[0] + dy, cell[1] + dx) for dy, dx in DELTA]


def checks(chars, recall):
    """What each kind of target is, in words of plain Python."""

    def fresh(limit):
        return lambda cell, kinds: (
            kinds[cell] != "being"
            and any(kinds[to] in ("rock", "wall") for to in beside(cell))
            and turns(recall, *cell) < limit
        )

    def char(wanted):
        return lambda cell, kinds: chars[cell[0] * 80 + cell[1]] == ord(wanted)

    def new(*wanted):
        return lambda cell, kinds: kinds[cell] in wanted and turns(recall, *cell) == 0

    def unseen(cell, kinds):
        return kinds[cell] != "being" and any(
            kinds[to] == "rock" and not int(recall[memory.place(*to)]) & 0x8000
            for to in beside(cell)
        )

    return {
        map_search.FRONTIER: unseen,
        map_search.ITEM: new("thing"),
        map_search.BEING: lambda cell, kinds: kinds[cell] == "being",
        map_search.DOWN: char(">"),
        map_search.UP: char("<"),
        map_search.DOOR: new("door", "shut"),
        map_search.UNVISITED: lambda cell, kinds: (
            kinds[cell] != "being" and turns(recall, *cell) == 0
        ),
        map_search.DEAD_END: lambda cell, kinds: (
            kinds[cell] != "being"
            and sum(kinds[to] in OPEN for to in beside(cell)) <= 1
            and turns(recall, *cell) < 12
        ),
        map_search.FRESH: fresh(5),
        map_search.LOOKED: fresh(10),
        map_search.WORN: fresh(25),
    }


def assert_right(chars, colors, row, col, recall):
    compass, _ = look(chars, colors, row, col, recall)
    for target, wanted in checks(chars, recall).items():
        far, ways = directions_to(chars, colors, row, col, recall, wanted)
        shown = {d for d in range(8) if compass[d, target]}
        assert shown == ways, target
        edges = [2, 3, 4, 5, 7, 10, 15, 25]
        if far is not None:
            assert {int(v) for v in compass[:, target] if v} == {1 + sum(e <= far for e in edges)}


@pytest.mark.slow
def test_the_compass_points_along_shortest_paths():
    chars, colors, row, col = screen(MAP)
    recall = features.no_recall(1)[0]
    assert remember(chars, row, col, recall)
    assert_right(chars, colors, row, col, recall)
    compass, here = look(chars, colors, row, col, recall)
    east = memory.MOVES.index("l")
    assert (
        compass[east, map_search.DOOR] == 3
    )  # three steps: past two cells, straight into the door
    assert {d for d in range(8) if compass[d, map_search.DOOR]} == {east, memory.MOVES.index("u")}
    assert not compass[:, map_search.DOWN].any()  # behind the closed door
    assert compass[memory.MOVES.index("n"), map_search.BEING] == 1
    assert here.tolist() == [1, 1, 9, 2, 1]  # neither rock nor wall beside it, eight ways open


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.6))
@settings(max_examples=25, deadline=None)
def test_any_map_is_walked_as_plain_python_would(seed, density):
    random = np.random.default_rng(seed)
    chars = np.full((24, 80), 32, np.uint8)
    some = np.frombuffer(b'.#|-+><$d@`^} "', np.uint8)
    part = random.choice(some, (22, 80))
    chars[:22] = np.where(random.random((22, 80)) < density, part, ord("."))
    colors = random.choice(np.array([2, 3, 7, 11], np.uint8), 24 * 80)
    row, col = int(random.integers(1, 22)), int(random.integers(0, 80))
    chars[row, col] = ord("@")
    recall = features.no_recall(1)[0]
    spent = random.integers(0, 30, memory.CELLS) * (random.random(memory.CELLS) < 0.5)
    recall[: memory.CELLS] = spent + 0x8000 * (random.random(memory.CELLS) < 0.3)
    assert_right(chars.reshape(-1), colors, row, col, recall)


def test_turns_go_to_the_cell_they_were_spent_on_and_a_level_is_forgotten_when_it_is_left():
    recall = features.no_recall(1)[0]
    chars, _, row, col = screen("@..", turn=10)
    remember(chars, row, col, recall)
    assert turns(recall, row, col) == 1
    chars, _, row, col = screen("@..", turn=15)  # five turns in one place
    remember(chars, row, col, recall)
    assert turns(recall, row, col) == 6
    chars, _, _, _ = screen(".@.", turn=16)
    remember(chars, row, col + 1, recall)
    assert turns(recall, row, col) == 7
    assert turns(recall, row, col + 1) == 1
    assert turns(recall, row, col + 2) == 0
    assert int(recall[memory.place(row + 1, col + 2)]) & 0x8000  # beside it
    chars, _, row, col = screen(".@.", level=2, turn=17)
    remember(chars, row, col, recall)
    assert recall[: memory.CELLS].astype(bool).sum() == 9  # itself and its neighbours
    assert turns(recall, row, col) == 1


@pytest.mark.parametrize(("row", "col"), [(0, 5), (22, 5), (23, 79), (255, 255), (5, 80), (4, 0)])
def test_a_cursor_that_is_not_on_the_hero_is_nothing_to_remember(row, col):
    chars, _, _, _ = screen("..@")
    recall = features.no_recall(1)[0]
    assert not remember(chars, row, col, recall)
    assert not recall[: memory.VERSION].any()


def test_keys_are_recalled_latest_first_and_turn_the_compass():
    recall = features.no_recall(1)[0]
    for key in b"lks5j":
        memory.push_key(recall, key)
    assert bytes(recall[memory.KEYS : memory.KILLS].astype(np.uint8)) == b"j5skl\0\0\0"
    chars, colors, row, col = screen("...\n.@.\n...")
    remember(chars, row, col, recall)
    compass, _ = look(chars, colors, row, col, recall)
    south = compass[memory.MOVES.index("j"), -7:-1].tolist()
    assert south == [1, 5, 3, 1, 1, 5]  # on; back from k; a right angle from l; on; straight; fifth


def test_many_games_are_pressed_like_one():
    """And nothing else of what is recalled moves."""
    recall = np.arange(3 * memory.RECALL, dtype=np.uint16).reshape(3, -1)
    alone = recall.copy()
    for keys in (b"abc", b"def"):
        memory.push_keys(recall, np.frombuffer(keys, np.uint8))
        for game, key in zip(alone, keys, strict=True):
            memory.push_key(game, key)
    assert (recall == alone).all()


def test_a_level_explored_by_a_player_who_goes_where_the_compass_points():
    """In a real game: the way to the nearest unseen rock, step by step, reveals more of the map."""
    episode = Episode(Game())
    episode.start(get_protocol("smoke-v1").game(1), 2_000, 1_000)
    observation, recall = episode.game.observation, features.no_recall(1)
    known = lambda: int((observation["tty_chars"][1:22] != 32).sum())  # noqa: E731
    before, random = known(), np.random.default_rng(0)
    for _ in range(120):
        seen = features.encode(
            observation["tty_chars"][None],
            observation["tty_colors"][None],
            observation["tty_cursor"][None],
            recall,
        )
        ways = np.flatnonzero(seen.compass[0, :, map_search.FRONTIER])
        if not len(ways):
            ways = np.flatnonzero(seen.compass[0, :, map_search.UNVISITED])
        key = ord(memory.MOVES[random.choice(ways)]) if len(ways) else ord(" ")
        if episode.step(key):
            break
        memory.push_key(recall[0], key)
    assert known() > before + 40
    assert (recall[0, : memory.CELLS] & 0x7FFF).astype(bool).sum() > 15
