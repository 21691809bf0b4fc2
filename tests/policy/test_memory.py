"""What is remembered of kills and prayers: from messages, and beside the games it is taken from."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nhzoo.data import packing
from nhzoo.data.batches import read_games
from nhzoo.envs.actions import ACTION_KEYS
from nhzoo.policy import features, memory
from nhzoo.policy.config import HERE, HERE_OF_MAP, HERE_SYMBOLS
from nhzoo.policy.screen_text import FAINTING, HUNGRY, NOT_HUNGRY, SATIATED, WEAK, bottom_line

AGE, HUNGER, PRAYER, HEALTH = range(HERE_OF_MAP, HERE)


def screen(top="", turn=100, level=1, hero=(5, 5), things=(), hp=(15, 15), hunger=""):
    """One screen, its cursor on the hero: for `features.encode`."""
    chars = np.full((1, 24, 80), 32, np.uint8)
    chars[0, 2:9, 1:30] = ord(".")
    for y, x, char in things:
        chars[0, y, x] = ord(char)
    chars[0, *hero] = ord("@")
    status = f"Dlvl:{level} $:0 HP:{hp[0]}({hp[1]}) Pw:4(4) AC:4 Xp:1/1 T:{turn} {hunger}"
    for row, line in ((0, top), (23, status)):
        chars[0, row, : len(line)] = np.frombuffer(line.encode(), np.uint8)
    return chars, np.full((1, 24, 80), 7, np.int8), np.array([hero], np.uint8)


def see(recall, **what):
    found = features.encode(*screen(**what), recall)
    return found.here[0], found.compass[0, :, -1]


@pytest.mark.parametrize(
    ("word", "hunger"),
    [
        ("", NOT_HUNGRY),
        ("Satiated", SATIATED),
        ("Hungry Burdened", HUNGRY),
        ("Weak", WEAK),
        ("Fainting", FAINTING),
        ("Burdened", NOT_HUNGRY),
        ("Stun Hallu", NOT_HUNGRY),
    ],
)
def test_the_bottom_line_in_numbers(word, hunger):
    chars = screen(turn=812, level=3, hp=(7, 21), hunger=word)[0].reshape(-1)
    assert bottom_line(chars) == (3, 812, 7, 21, hunger)
    assert see(features.no_recall(1), hunger=word)[0][HUNGER] == 1 + hunger


@given(text=st.binary(min_size=80, max_size=80))
def test_any_bottom_line_is_read(text):
    chars = np.full(1920, 32, np.uint8)
    chars[-80:] = np.frombuffer(text, np.uint8)
    assert all(-1 <= number < 10 << 24 for number in bottom_line(chars))


@pytest.mark.parametrize("version", [3, 4])
def test_a_kill_is_remembered_by_place_and_turn_and_ages(version):
    recall = features.no_recall(1, version)
    see(recall, turn=100)
    memory.push_key(recall[0], ord("l"))
    _, fresh = see(recall, top="You kill the newt!", turn=101, things=[(5, 6, "%")])
    assert [memory.MOVES[d] for d in np.flatnonzero(fresh)] == ["l"]
    assert fresh.max() == 1  # next to it
    for turn, age in ((102, 1), (110, 2), (125, 3), (140, 4), (150, 5), (190, 6), (220, 7)):
        top = "You see here a newt corpse." if turn == 102 else ""
        here, fresh = see(recall, top=top, turn=turn, hero=(5, 6))
        assert here[AGE] == age
        assert not fresh.any()  # it is here
    _, fresh = see(recall, turn=130, hero=(5, 9), things=[(5, 6, "%")])
    assert {memory.MOVES[d] for d in np.flatnonzero(fresh)} == {"h", "y", "b"}  # all as short
    _, fresh = see(recall, turn=132, hero=(5, 9), things=[(5, 6, "%")])
    assert not fresh.any()  # 31 turns old
    assert see(recall, turn=133, level=2, hero=(5, 6))[0][AGE] == 0  # another level


def test_what_was_killed_with_a_missile_fell_where_a_thing_lies():
    recall = features.no_recall(1)
    see(recall, turn=100)
    for key in b"tal":
        memory.push_key(recall[0], key)
    _, fresh = see(recall, top="You kill the jackal!", turn=101, things=[(5, 9, ")")])
    assert fresh[memory.MOVES.index("l")] == 4  # cells
    top = "There is a doorway here.  You see here a jackal corpse."
    assert see(recall, top=top, turn=104, hero=(5, 9))[0][AGE] == 1


def killed(recall, name, turn, key="l"):
    """The hero at (5, 5) kills something beside him."""
    memory.push_key(recall[0], ord(key))
    see(recall, top=f"You kill the {name}!", turn=turn, things=[(5, 6, "%")])


def test_an_old_corpse_is_not_as_young_as_what_was_killed_on_it():
    """Grid bugs leave nothing: who eats the newt below, killed 80 turns before, is poisoned."""
    recall = features.no_recall(1)
    see(recall, turn=100)
    killed(recall, "newt", 101)
    killed(recall, "grid bug", 180)
    top = "You see here a newt corpse."
    assert see(recall, top=top, turn=181, hero=(5, 6))[0][AGE] == 6
    assert see(recall, turn=182, hero=(5, 6))[0][AGE] == 6  # known as long as he stands there
    v3 = features.no_recall(1, 3)
    see(v3, turn=100)
    killed(v3, "newt", 101)
    killed(v3, "grid bug", 180)
    assert see(v3, top=top, turn=181, hero=(5, 6))[0][AGE] == 1


def test_of_two_of_a_kind_the_older_counts():
    recall = features.no_recall(1)
    see(recall, turn=100)
    killed(recall, "jackal", 101)
    killed(recall, "jackal", 150)
    top = "You see here a jackal corpse."
    assert see(recall, top=top, turn=151, hero=(5, 6))[0][AGE] == 5


@pytest.mark.parametrize(
    ("top", "age"),
    [
        ("You see here a jackal corpse.", 8),  # nobody knows how old it is
        ("You see here a partly eaten newt corpse.", 1),
        ("You see here 2 newt corpses.", 9),
        ("You see here a newt.", 9),
        ("You see here an arrow.", 9),
        ("You see no objects here.", 9),
        ("The little dog eats a newt corpse.", 9),
        ("", 9),
        ("There is an altar here.", 9),
    ],
)
def test_what_lies_here_is_told_by_its_name(top, age):
    recall = features.no_recall(1)
    see(recall, turn=100)
    killed(recall, "newt", 101)
    assert see(recall, top=top, turn=103, hero=(5, 6))[0][AGE] == age


def test_a_corpse_in_a_list_of_things_is_found():
    recall = features.no_recall(1)
    see(recall, turn=100)
    killed(recall, "acid blob", 101)
    chars, colors, _ = screen(turn=102, hero=(5, 6))
    for row, text in enumerate(
        ["There is a doorway here.", "", "Things that are here:", "a dagger", "an acid blob corpse"]
    ):
        chars[0, row, 41 : 41 + len(text)] = np.frombuffer(text.encode(), np.uint8)
    features.encode(chars, colors, np.array([[6, 49]], np.uint8), recall)
    assert see(recall, turn=102, hero=(5, 6))[0][AGE] == 1


@pytest.mark.parametrize(
    ("top", "things", "age"),
    [
        ("The little dog bites the newt.  The newt is killed!", [(4, 8, "d"), (4, 9, "%")], 1),
        ("The newt is killed!", [(4, 9, "%")], 8),  # by nobody who is seen
        ("The jackal is killed!", [(4, 8, "d"), (4, 9, "%")], 8),  # this is a newt's
        ("The gnome zombie is destroyed!", [(4, 8, "d"), (4, 9, "%")], 8),  # old as soon as it fell
    ],
)
def test_what_a_pet_has_killed_lies_beside_it(top, things, age):
    recall = features.no_recall(1)
    see(recall, turn=100)
    see(recall, top=top, turn=101, things=things)
    here = see(recall, top="You see here a newt corpse.", turn=104, hero=(4, 9))[0]
    assert here[AGE] == age


def test_what_is_eaten_is_gone():
    recall = features.no_recall(1)
    see(recall, turn=100)
    killed(recall, "newt", 101)
    see(recall, top="You see here a newt corpse.", turn=102, hero=(5, 6))
    see(recall, top="You finish eating the newt corpse.", turn=104, hero=(5, 6))
    top = "You see here a newt corpse."
    assert see(recall, top=top, turn=105, hero=(5, 6))[0][AGE] == 8  # another


def test_a_question_hides_the_hero_and_not_what_is_known_of_his_cell():
    recall = features.no_recall(1)
    see(recall, turn=100)
    memory.push_key(recall[0], ord("l"))
    see(recall, top="You kill the newt!", turn=101)
    see(recall, top="You see here a newt corpse.", turn=102, hero=(5, 6))
    chars, colors, _ = screen(top="There is a newt corpse here; eat it? [ynq] (n)", turn=102)
    found = features.encode(chars, colors, np.array([[0, 47]], np.uint8), recall)
    assert found.here[0, :HERE_OF_MAP].tolist() == [0] * HERE_OF_MAP
    assert found.here[0, AGE] == 1


def test_prayers_are_remembered():
    recall = features.no_recall(1)
    assert [see(recall, turn=turn)[0][PRAYER] for turn in (100, 250, 400)] == [7, 8, 9]
    see(recall, top="You begin praying to Chih Sung-tzu.", turn=400)
    since = [see(recall, turn=400 + n)[0][PRAYER] for n in (1, 100, 500, 900, 1_000, 5_000)]
    assert since == [1, 2, 3, 4, 5, 6]
    assert see(recall, turn=800, level=4)[0][PRAYER] == 2  # on another level as well


@pytest.mark.parametrize(
    ("hp", "symbol"),
    [
        ((5, 15), 1),
        ((6, 50), 2),
        ((9, 50), 3),
        ((15, 50), 4),
        ((24, 50), 5),
        ((30, 50), 6),
        ((49, 50), 7),
        ((50, 50), 8),
    ],
)
def test_health(hp, symbol):
    assert see(features.no_recall(1), hp=hp)[0][HEALTH] == symbol


@given(tops=st.lists(st.text("You kilbegnpray !%", max_size=79), max_size=4))
def test_any_message_is_taken(tops):
    recall = features.no_recall(1)
    for n, top in enumerate(tops):
        here, _ = see(recall, top=top, turn=n)
        assert (here <= HERE_SYMBOLS).all()
        memory.push_key(recall[0], ord("j"))


@pytest.mark.slow
def test_it_tells_what_the_expert_goes_by():
    """AutoAscend eats what it has just killed, and prays when the last prayer is long ago."""
    eaten: Counter[bool] = Counter()
    prayed: list[int] = []
    games = packing.pack("autoascend-monk-v1", split="validation", most=4).games
    pages = read_games(games, 1, 64, 20_000), read_games(games, 1, 64, 20_000, "screens")
    for (seen, _), (shown, _) in zip(*pages, strict=True):
        keys = ACTION_KEYS[seen.actions[:, 0]]
        for t in range(seen.valid):
            top = bytes(shown.inputs["tty_chars"][t, 0, 0])
            here = seen.inputs["here"][t, 0]
            if b"corpse here; eat it?" in top and keys[t] == ord("y"):
                eaten[bool(1 <= here[AGE] <= 4)] += 1
            if b"you want to pray?" in top and keys[t] == ord("y"):
                prayed.append(int(here[PRAYER]))
    assert eaten[True] > 50
    assert eaten[True] > 8 * eaten[False]
    assert len(prayed) > 3
    assert np.mean([symbol in (4, 5, 6, 9) for symbol in prayed]) > 0.9
