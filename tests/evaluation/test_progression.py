"""BALROG's progression. Run with `pytest tests/evaluation/test_progression.py`."""

import hashlib
import re
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from nhzoo.evaluation.progression import (
    DEPTH_PROGRESSION,
    EXPERIENCE_LEVEL_PROGRESSION,
    MAX_DEPTH,
    MAX_EXPERIENCE_LEVEL,
    progression,
)

DEPTHS = range(MAX_DEPTH + 1)
LEVELS = range(MAX_EXPERIENCE_LEVEL + 1)


@pytest.mark.parametrize(
    ("depth", "level", "expected"),
    [
        (1, 1, 0.0),
        (2, 1, 0.015392269075361172),
        (1, 2, 0.01847840456172601),
        (5, 8, 0.07453595273884014),  # the level counts
        (10, 8, 0.12558597019922987),  # the depth counts
        (15, 12, 0.33264942385807844),  # the README example of nle-progress: 33%
        (50, 1, 0.8067964442444019),
        (1, 30, 0.7804561949196475),
        (50, 30, 0.8067964442444019),
    ],
)
def test_known_values(depth: int, level: int, expected: float) -> None:
    assert progression(depth, level) == expected


def test_no_figure_of_the_table_changed() -> None:
    # Computed from a copy of the figures read elsewhere (nethackers), not from this module.
    table = repr((DEPTH_PROGRESSION[1:], EXPERIENCE_LEVEL_PROGRESSION[1:]))
    expected = "33ff6bd549f64ab1737ec768471abcdf38c5448e197577b7ce779286d026ef50"
    assert hashlib.sha256(table.encode()).hexdigest() == expected


def test_a_game_that_never_started_is_zero() -> None:
    assert progression(0, 0) == 0.0
    assert progression(0, 1) == progression(1, 0) == 0.0


def test_each_milestone_alone_never_lowers_it() -> None:
    by_depth = [progression(depth, 0) for depth in DEPTHS]
    by_level = [progression(0, level) for level in LEVELS]
    assert all(a <= b for a, b in pairwise(by_depth))
    assert all(a <= b for a, b in pairwise(by_level))
    # From the second level to the end of the table every step counts.
    assert all(a < b for a, b in pairwise(by_depth[1:51]))
    assert all(a < b for a, b in pairwise(by_level[1:]))


def test_it_is_the_larger_of_the_two_and_below_a_win() -> None:
    for depth in DEPTHS:
        for level in LEVELS:
            value = progression(depth, level)
            assert value == max(progression(depth, 0), progression(0, level))
            assert 0.0 <= value < 1.0


def test_depths_past_the_table_count_as_its_last() -> None:
    assert progression(51, 1) == progression(53, 1) == progression(50, 1)


@pytest.mark.parametrize(("depth", "level"), [(1, 1), (50, 14), (53, 30)])
def test_an_ascension_is_one(depth: int, level: int) -> None:
    assert progression(depth, level, ascended=True) == 1.0


def test_numbers_out_of_blstats_give_a_plain_float() -> None:
    blstats = np.zeros(27, dtype=np.int64)
    blstats[12], blstats[18] = 4, 3
    value = progression(blstats[12], blstats[18])
    assert type(value) is float
    assert value == 0.021221378364235505


@pytest.mark.parametrize("ascended", [False, True])
@pytest.mark.parametrize(
    ("depth", "level", "message"),
    [
        (-1, 1, "max_depth must be from 0 to 53, not -1"),
        (54, 1, "max_depth must be from 0 to 53, not 54"),
        (1, -1, "max_experience_level must be from 0 to 30, not -1"),
        (1, 31, "max_experience_level must be from 0 to 30, not 31"),
    ],
)
def test_impossible_input_is_refused(depth: int, level: int, message: str, ascended: bool) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        progression(depth, level, ascended=ascended)


def test_a_fractional_depth_is_refused() -> None:
    with pytest.raises(TypeError):
        progression(2.5, 1)  # type: ignore[arg-type]


def test_the_largest_depth_is_what_nle_can_build() -> None:
    spec = find_spec("nle")
    assert spec is not None and spec.origin is not None
    dungeons = (Path(spec.origin).parent / "nethackdir/dat/dungeon.def").read_text()
    # "(base, random)" is base to base + random - 1 levels; Gehennom is below the Dungeons of Doom.
    sizes = re.findall(
        r'^DUNGEON:\s*"(?:The Dungeons of Doom|Gehennom)"\s+"."\s+\((\d+),\s*(\d+)\)',
        dungeons,
        flags=re.MULTILINE,
    )
    assert len(sizes) == 2
    assert sum(int(base) + int(random) - 1 for base, random in sizes) == MAX_DEPTH
