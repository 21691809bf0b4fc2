"""The scripted agent: what it does in situations made by hand, and in real games."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nle import nethack

from nhzoo import evaluate
from nhzoo.agents import base
from nhzoo.agents.base import RandomAgent
from nhzoo.agents.loading import load
from nhzoo.agents.scripted import ScriptedAgent
from nhzoo.data import stats as dataset_stats
from nhzoo.envs.actions import ACTION_KEYS
from nhzoo.envs.protocols import get_protocol

KINDS = {".": 19, "#": 21, ">": 24, "+": 15, "'": 13, "|": 1, "-": 2}
MONSTERS = {nethack.permonst(i).mname: i for i in range(nethack.NUMMONS)}
HERO = MONSTERS["human"]
NEWT, EYE = MONSTERS["newt"], MONSTERS["floating eye"]


def screen(rows, message="", cursor=None, put=None, **stats):
    """A map with the hero "@" on it; `put` has glyphs by (row, column)."""
    glyphs = np.full((21, 79), nethack.GLYPH_CMAP_OFF, np.int16)
    blstats = np.zeros(27, np.int64)
    values = {"hp": 15, "max": 15, "depth": 1, "strength": 1, "turn": 10, "hunger": 1} | stats
    for place, name in ((10, "hp"), (11, "max"), (12, "depth"), (18, "strength")):
        blstats[place] = values[name]
    blstats[20], blstats[21], blstats[24] = values["turn"], values["hunger"], values["depth"]
    for i, row in enumerate(rows, 5):
        for j, char in enumerate(row, 30):
            if char == "@":
                blstats[:2] = j, i
            glyphs[i, j] = HERO if char == "@" else nethack.GLYPH_CMAP_OFF + KINDS.get(char, 0)
    for (i, j), glyph in (put or {}).items():
        glyphs[5 + i, 30 + j] = glyph
    chars = np.full((24, 80), 32, np.uint8)
    chars[0, : len(message)] = list(message.encode())
    at = (blstats[1] + 1, blstats[0]) if cursor is None else cursor
    return {
        "tty_chars": chars[None],
        "tty_cursor": np.array([at], np.uint8),
        "glyphs": glyphs[None],
        "blstats": blstats[None],
    }


def keys(*screens, uniform=0.5):
    """The keys it presses on one screen after another of a game."""
    agent = ScriptedAgent()
    state = agent.initial_state(1)
    pressed = []
    for shown in screens:
        action, state = agent.act(shown, state, np.array([uniform]))
        pressed.append(chr(ACTION_KEYS[action[0]]))
    return "".join(pressed)


ROOM = ["-----", "|...|", "|.@.|", "|...|", "-----"]


def question(text):
    return screen(ROOM, text, cursor=(0, len(text)))


@pytest.mark.slow
def test_it_answers_what_is_asked():
    assert keys(question("You see here a newt.--More--")) == "\r"
    assert keys(question("Are you sure you want to pray? [yn] (n)")) == "y"
    assert keys(question("What do you want to eat? [fg or ?*]")) == "f"
    assert keys(question("What do you want to drink? [- or ?*]")) == "\x1b"
    assert keys(question("There is a newt corpse here; eat it? [ynq] (n)")) == "n"
    assert keys(question("Call a scroll labeled FOOBIE:")) == "\x1b"
    assert keys(screen(ROOM, cursor=(7, 12))) == "\x1b"  # a menu


@pytest.mark.slow
def test_it_fights_what_is_beside_it_and_spares_what_is_peaceful():
    room = screen(ROOM, put={(1, 3): NEWT})
    assert keys(room) == "u"
    asked = "Really attack the peaceful newt? [yn] (n)"
    question = screen(ROOM, asked, cursor=(0, len(asked)), put={(1, 3): NEWT})
    assert keys(room, question) == "u\x1b"
    assert keys(room, question, room)[2] != "u"
    hit = screen(ROOM, put={(1, 3): NEWT}, hp=14)
    assert keys(room, question, room, hit)[3] == "u"
    assert keys(screen(ROOM, put={(1, 3): nethack.GLYPH_PET_OFF + NEWT})) != "u"


@pytest.mark.parametrize("uniform", [*np.arange(8) / 1000, 0.5])
def test_it_never_touches_a_floating_eye(uniform):
    corridor = screen(["#@#####"], put={(0, 2): EYE})
    assert keys(corridor, uniform=uniform) != "l"


def test_it_looks_after_itself():
    assert keys(screen(ROOM, hp=5, turn=400), question("want to pray? [yn] (n)")) == "\xf0y"
    assert keys(screen(ROOM, hp=5, turn=200)) == "q"  # too early for a prayer
    none = screen(ROOM, "You don't have anything to drink.", hp=5, turn=201)
    assert keys(screen(ROOM, hp=5, turn=200), none)[1] != "q"
    assert keys(screen(ROOM, hp=10)) == "s"
    assert keys(screen(ROOM, hunger=2)) == "e"


def test_it_goes_where_it_has_not_been_and_down_when_it_is_strong():
    assert keys(screen(["-----   ", "|.@.'###", "-----   "])) == "l"
    assert keys(screen(["---+-", "|...|", "|.@.|", "-----"])) == "u"  # then north: no door is
    assert keys(screen(["---+-", "|..@|", "|...|", "-----"])) == "k"  # entered aslant
    way = ["--------", "|@.....|", "|.....>|", "--------"]
    assert keys(screen(way, strength=2)) in "ln"
    stairs = screen(["-----", "|.>@|", "-----"], strength=2)
    there = screen(["-----", "|.@.|", "-----"], strength=2, turn=11)
    assert keys(stairs, there) == "h>"
    weak = screen(["-----", "|.@.|", "-----"], turn=11)
    assert keys(stairs, weak)[1] != ">"
    locked = screen(["-----", "|..@+", "-----"], "This door is locked.", turn=11)
    asked = question("In what direction?")
    assert keys(screen(["-----", "|..@+", "-----"]), locked, asked) == "l\x04l"


def test_it_searches_where_nothing_is_left_and_elsewhere_after_a_while():
    dead_end = [screen(["#####@"], turn=10)]
    for turn in range(11, 60):
        dead_end.append(screen(["#####@"], turn=turn))
    pressed = keys(*dead_end)
    assert pressed.count("s") > 8
    assert "h" in pressed


def test_it_gets_out_of_whatever_takes_no_time():
    pressed = keys(*[question("A riddle:")] * 40)
    assert {"\x1b", "\r", "s"} <= set(pressed)


@pytest.mark.slow
def test_its_games_do_not_depend_on_the_batch_and_are_better_than_random():
    protocol = replace(get_protocol("smoke-v1"), id="scripted-test")
    one, four = (
        evaluate(load("scripted"), protocol, 4, 1, batch=batch).episodes for batch in (1, 4)
    )
    assert one == four
    assert not any(row["end_status"] in ("crashed", "stalled") for row in one)
    random = evaluate(RandomAgent(), protocol, 4, 1, batch=4).episodes
    assert min(row["score"] for row in one) > max(row["score"] for row in random)


@pytest.mark.slow
def test_the_frequency_agent_presses_keys_as_often_as_the_expert_did():
    counted = dataset_stats.statistics("autoascend-monk-v1").actions
    pressed = tuple(zip(base._KEYS, base._COUNTS, strict=True))
    assert pressed == tuple((row.key, row.count) for row in counted)
    uniform = (np.arange(100_000) + 0.5) / 100_000
    agent = load("frequency")
    keys = ACTION_KEYS[agent.act({}, agent.initial_state(len(uniform)), uniform)[0]]
    for row in counted:
        assert (keys == row.key).mean() == pytest.approx(row.share, abs=1e-5)
