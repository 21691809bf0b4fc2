"""What games died of, how they ended, roles."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nhzoo.evaluation import results
from nhzoo.evaluation.outcomes import (
    MAX_CAUSE,
    breakdown,
    cause_group,
    role_of_character,
    row_role,
)
from tests import ROOT


@pytest.mark.parametrize(
    ("cause", "group"),
    [
        ("killed by a jackal", "jackal"),
        ("killed by an Uruk-hai", "Uruk-hai"),
        ("killed by a falling rock", "falling rock"),
        ("killed by a falling rock trap", "falling rock trap"),
        ("killed by a jackal, while sleeping", "jackal"),
        ("killed by an invisible dwarf lord", "dwarf lord"),
        ("killed by a hallucinogen-distorted watch captain", "watch captain"),
        ("killed by a chameleon imitating a mastodon", "chameleon"),
        ("killed by a kitten called Fluffy of Doom", "kitten"),
        ("killed by the ghost of Frans", "ghost"),
        ("killed by Ms. Sipaliwini; the shopkeeper", "shopkeeper"),
        ("killed by the wrath of Chih Sung-tzu", "wrath of a god"),
        ("killed by a water elemental of Chih Sung-tzu", "minion of a god"),
        ("killed by the Angel of Huan Ti", "minion of a god"),
        ("killed by the high priest of Huan Ti", "high priest"),
        ("killed by the Wizard of Yendor", "Wizard of Yendor"),
        ("killed by a bolt of fire", "bolt of fire"),
        ("killed by a gas spore's explosion", "gas spore's explosion"),
        ("killed by kicking a wall", "kicking a wall"),
        ("poisoned by a rotted large kobold corpse", "rotted food"),
        ("poisoned by a rotted glob of gray ooze", "rotted food"),
        ("poisoned by a soldier ant", "poisoned"),
        ("petrified by a cockatrice", "petrified"),
        ("choked on a food ration", "choked"),
        ("died of starvation", "starved"),
        ("drowned in a moat", "drowned"),
        ("quit", "quit"),
        ("escaped", "escaped"),
        ("", "unknown"),
    ],
)
def test_causes(cause, group):
    assert cause_group(cause) == group


def test_ends_that_are_no_deaths():
    assert cause_group("", "stalled") == "stalled"
    assert cause_group("", "step_cap") == "step cap"
    assert cause_group("", "crashed") == "crashed"
    assert cause_group("ascended", "ascended") == "ascended"
    assert cause_group("bot raised KeyError: 'x'", "crashed") == "agent failed"
    assert cause_group("NLE ended its process with exit code 1", "crashed") == "NLE failed"
    assert cause_group("the game took more than 5 s", "stalled") == "agent out of time"


@given(st.text(), st.sampled_from(results.END_STATUSES))
def test_any_cause_has_a_short_group(cause, end_status):
    group = cause_group(cause, end_status)
    assert 0 < len(group) <= MAX_CAUSE
    assert group == cause_group(f"  {cause} ", end_status)


def test_every_cause_that_occurs_has_a_name():
    """The real results and the expert's games: nothing is left as a sentence."""
    games = []
    for path in (ROOT / "leaderboard" / "results").glob("*/*/episodes.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        games += [(row["cause"], row["end_status"]) for row in rows]
    for path in (ROOT / "nhzoo" / "data" / "bundled").glob("*/games.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        games += [(row["death"], row.get("end_status") or "death") for row in rows]
    groups = {cause_group(cause, status) for cause, status in games}
    for group in groups:
        assert not group.startswith(("a ", "an ", "the ", "killed", "poisoned by"))
        assert len(group) < 30
    assert "unknown" not in groups


def row(cause="killed by a newt", end_status="death", score=10.0, **changes):
    return {
        "cause": cause,
        "end_status": end_status,
        "score": score,
        "character": "mon-hum-neu-mal",
        "progression": 0.5,
        "turns": 100,
        "max_depth": 2,
    } | changes


def test_breakdown_by_hand():
    rows = [
        row(),
        row(score=20.0),
        row("", "stalled", 0.0, character="@"),
        row("quit", score=4.0, character="@", role="Val", max_depth=9),
    ]
    found = breakdown(rows)
    assert found.games == 4
    assert found.end_statuses == {"death": 3, "stalled": 1}
    assert [(c.cause, c.games, c.share, c.mean_score) for c in found.causes] == [
        ("newt", 2, 0.5, 15.0),
        ("quit", 1, 0.25, 4.0),
        ("stalled", 1, 0.25, 0.0),
    ]
    assert [(r.role, r.games, r.max_depth) for r in found.roles] == [
        ("Mon", 2, 2),
        ("Val", 1, 9),
        ("unknown", 1, 2),
    ]
    assert found.roles[0].mean_score.estimate == found.roles[0].median_score == 15
    assert found.survival is not None
    assert (found.survival.times, found.survival.alive) == ([100], [0.25])
    assert found.survival.censored == [100]  # the stalled one
    told = breakdown(rows, role_of=lambda row: "Wiz")
    assert [r.role for r in told.roles] == ["Mon", "Val", "Wiz"]
    json.dumps(told.as_json(), allow_nan=False)
    empty = breakdown([])
    assert (empty.games, empty.causes, empty.roles, empty.survival) == (0, [], [], None)


def test_roles():
    assert role_of_character("mon-hum-neu-mal") == "Mon"
    assert role_of_character("val") == "Val"
    assert role_of_character("@") is None
    assert row_role(row(character="@")) is None
    assert row_role(row(role="Sam")) == "Sam"
    assert row_role(row(role=7)) == "Mon"
