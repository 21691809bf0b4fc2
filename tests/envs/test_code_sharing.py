"""Copies of NLE's library at places that agree in the low halves of their addresses."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from nhzoo.envs import code_sharing
from nhzoo.envs.actions import TTY
from nhzoo.envs.game import Game, blank
from nhzoo.envs.nle_library import DLPATH
from nhzoo.envs.protocols import GameSpec

MAPS = Path("/proc/self/maps")
LIBRARY = str(Path(DLPATH).resolve())  # maps know no links


def codes() -> list[int]:
    lines = [line for line in MAPS.read_text().splitlines() if LIBRARY in line and "r-xp" in line]
    return [int(line.split("-")[0], 16) for line in lines]


def reserved() -> list[str]:
    """Address space that nobody may touch, of a gigabyte and more."""
    found = []
    for line in MAPS.read_text().splitlines():
        low, high = (int(part, 16) for part in line.split()[0].split("-"))
        if "---p" in line and high - low >= 1 << 30:
            found.append(line)
    return found


@pytest.mark.skipif(platform.machine() != "x86_64", reason="elsewhere nothing is placed")
def test_games_side_by_side_agree_in_the_low_32_bits_of_their_code_and_leave_nothing_else():
    before, others = reserved(), set(codes())
    arrays = blank(TTY, 4)
    games = [Game(TTY, {name: arrays[name][i] for name in TTY}) for i in range(4)]
    for core in (1, 2):  # a reset loads the library anew
        for game in games:
            game.start(GameSpec(core=core, disp=1))
        mine = set(codes()) - others
        assert len(mine) == 4
        assert len({address % (1 << 32) for address in mine}) == 1
        assert reserved() == before
    games[1].close()
    games[1].start(GameSpec(core=3, disp=1))  # into the place that is free again
    assert set(codes()) - others == mine
    for game in games:
        game.close()


def test_where_no_place_can_be_had_games_start_all_the_same(monkeypatch):
    row = {name: array[0] for name, array in blank(TTY, 1).items()}
    for name, value in (("_fill", lambda low, size: False), ("_PLACES", 0)):
        monkeypatch.setattr(code_sharing, name, value)
        game = Game(TTY, row)
        game.start(GameSpec(core=1, disp=1))
        game.close()


def test_a_place_is_found_in_the_first_gap_that_holds_it():
    first, apart = code_sharing._FIRST, code_sharing._APART
    assert code_sharing._free_place([(0x1000, first + 50)], 100) == 0
    assert code_sharing._free_place([(0x1000, first + 100)], 100) == first
    taken = [(0x1000, first), (first + 100, first + apart), (first + apart + 100, first << 1)]
    assert code_sharing._free_place(taken, 100) == first + 2 * apart
    assert code_sharing._free_place([], 100) == 0


def test_the_gap_that_the_stack_grows_into_is_none():
    stack = next(line for line in MAPS.read_text().splitlines() if line.endswith("[stack]"))
    low = int(stack.split("-")[0], 16)
    assert all(high < low for _, high in code_sharing._gaps())
