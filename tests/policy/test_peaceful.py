"""Which creatures are peaceful: read from the game's own list, followed over the map."""

from __future__ import annotations

import numpy as np
import pytest

from nhzoo.data.traces import open_traces
from nhzoo.envs.game import Game
from nhzoo.policy import features, memory, peaceful
from nhzoo.policy.config import COMPASS, CROP, CROP_CELLS, TARGETS
from nhzoo.policy.map_search import BEING
from tests.policy.test_memory import screen, see

EAST = memory.MOVES.index("l")
COLOR = TARGETS + 1  # of the next cell, in a direction's symbols


def show_list(recall, *lines, turn=100):
    """The list of monsters, on a screen of its own."""
    chars, colors, _ = screen(turn=turn)
    chars[:] = 32
    for row, text in enumerate(("All monsters currently shown on the map:", "", *lines)):
        chars[0, row, : len(text)] = np.frombuffer(text.encode(), np.uint8)
    features.encode(chars, colors, np.array([[23, 8]], np.uint8), recall)


def seen_beside(recall, letter, turn=101, place=(5, 6)):
    """What is told of the east when a creature stands there: its colour, how far a monster is."""
    chars, colors, cursor = screen(turn=turn, hero=(5, 5), things=[(*place, letter)])
    colors[0, place[0], place[1]] = 3
    found = features.encode(chars, colors, cursor, recall)
    crop = found.crop[0, 1].reshape(CROP, CROP)
    down, right = place[0] - 5 + CROP // 2, place[1] - 5 + CROP // 2
    east = found.compass[0, EAST]
    assert east.shape == (COMPASS,) and found.crop.shape == (1, 3, CROP_CELLS)
    return int(crop[down, right]), int(east[COLOR]), int(east[BEING])


def test_the_screens_of_this_test_are_the_games():
    """Columns of the list count from 1; its rows are those of the map, below the top line."""
    trace = open_traces("autoascend-monk-v1").traces[0]
    game = Game()
    game.start(trace.spec)
    checked = 0
    chars, cursor = game.observation["tty_chars"], game.observation["tty_cursor"]
    hero = (-1, -1)
    for key in trace.keys()[:3000]:
        text = [bytes(line).decode("latin-1") for line in chars]
        if text[0].startswith("All monsters currently shown on the map:"):
            (own,) = (line for line in text if "human monk called" in line)
            column, row = own[own.index("<") + 1 : own.index(">")].split(",")
            assert hero == (int(row) + memory.TOP, int(column) - 1)
            checked += 1
        elif chars[cursor[0], cursor[1]] == ord("@"):
            hero = int(cursor[0]), int(cursor[1])
        game.press(key)
    game.close()
    assert checked > 10


def test_a_peaceful_creature_is_told_from_a_hostile_one():
    recall = features.no_recall(1)
    see(recall, turn=100, hero=(5, 5))
    assert seen_beside(recall, "h") == (4, 4, 1)  # hostile, for all that is known
    show_list(recall, " <6,4>  @  human monk called Agent", " <7,4>  h  peaceful dwarf")
    assert seen_beside(recall, "h") == (1, 1, 0)
    # It moves, and is followed; another creature that comes is no friend.
    assert seen_beside(recall, "h", 102, place=(4, 6))[0] == 1
    assert seen_beside(recall, "o", 103)[0] == 4
    assert recall[0, memory.FRIENDS]  # for a while
    for turn in range(104, 140):
        see(recall, turn=turn, hero=(5, 5))
    assert not recall[0, memory.FRIENDS]
    assert seen_beside(recall, "h", 141) == (4, 4, 1)


def test_the_list_replaces_what_was_known_and_anger_ends_it():
    recall = features.no_recall(1)
    see(recall, turn=100, hero=(5, 5))
    show_list(recall, "  <7,4>  h  peaceful dwarf", " <12,8>  d  tame little dog")
    assert peaceful.friend_at(recall[0], memory.place(5, 6)) == ord("h")
    assert peaceful.friend_at(recall[0], memory.place(9, 11)) == ord("d") + peaceful.TAME
    show_list(recall, "  <7,4>  h  dwarf")
    assert not recall[0, memory.FRIENDS : memory.VERSION].any()
    show_list(recall, "  <7,4>  @  peaceful watchman")
    see(recall, top="The watchman gets angry!", turn=103, hero=(5, 5))
    assert not recall[0, memory.FRIENDS : memory.VERSION].any()


def test_another_level_has_other_creatures_and_earlier_agents_know_none():
    recall = features.no_recall(1)
    see(recall, turn=100, hero=(5, 5))
    show_list(recall, "  <7,4>  h  peaceful dwarf")
    see(recall, turn=101, level=2, hero=(5, 5))
    assert not recall[0, memory.FRIENDS : memory.VERSION].any()
    old = features.no_recall(1, 3)
    see(old, turn=100, hero=(5, 5))
    show_list(old, "  <7,4>  h  peaceful dwarf")
    assert seen_beside(old, "h") == (4, 4, 1)


@pytest.mark.parametrize(
    "line", ["<", "<99,99>  h  peaceful", "<,>h", "x" * 80, "<7,4>" + " " * 70]
)
def test_any_line_is_read_without_harm(line):
    recall = features.no_recall(1)
    see(recall, turn=100, hero=(5, 5))
    show_list(recall, line)
    assert not recall[0, memory.FRIENDS : memory.VERSION].any()


def test_more_than_can_be_kept_are_left_out():
    recall = features.no_recall(1)
    see(recall, turn=100, hero=(5, 5))
    show_list(recall, *(f" <{k + 10},4>  h  peaceful dwarf" for k in range(20)))
    kept = recall[0, memory.FRIENDS : memory.VERSION].reshape(memory.MOST_FRIENDS, 3)
    assert kept[:, 0].all() and len(set(kept[:, 0].tolist())) == memory.MOST_FRIENDS
