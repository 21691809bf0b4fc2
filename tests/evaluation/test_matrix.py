"""Many results compared: win probabilities with intervals, pairs that separate, games to go."""

from __future__ import annotations

import json
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nhzoo.errors import InputError
from nhzoo.evaluation.comparison import compare
from nhzoo.evaluation.matrix import compare_all, holm, win_probability
from tests.evaluation.test_comparison import write
from tests.helpers.commands import run


@pytest.mark.parametrize(("won", "games"), [(0, 8), (3, 8), (64, 128), (128, 128), (1, 1)])
def test_the_interval_of_a_share_is_wilsons(won, games):
    found = win_probability(won / games, games)
    expected = stats.binomtest(won, games).proportion_ci(0.95, "wilson")
    assert found.estimate == won / games
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@given(share=st.floats(0, 1), games=st.integers(1, 5000))
def test_the_interval_has_width_and_turns_round(share, games):
    found, other = win_probability(share, games), win_probability(1 - share, games)
    assert 0 <= found.low < found.high <= 1
    assert found.low - 1e-9 <= share <= found.high + 1e-9
    assert (1 - other.high, 1 - other.low) == pytest.approx((found.low, found.high), abs=1e-9)


@pytest.mark.parametrize("paired", [True, False])
def test_the_interval_holds_the_probability_as_often_as_it_says(paired):
    """Scores that are 0, 1 or 2, so that there are ties: P(win) is 0.55, ties as half."""
    rng = np.random.default_rng(0)
    a = rng.choice(3, (2000, 40), p=[0.3, 0.3, 0.4])
    b = rng.choice(3, (2000, 40), p=[0.4, 0.3, 0.3])
    truth = 0.3 * 0.4 + 0.4 * 0.7 + 0.5 * (0.3 * 0.4 + 0.3 * 0.3 + 0.4 * 0.3)
    left, right = (a, b) if paired else (a[:, :, None], b[:, None, :])
    shares = ((left > right) + 0.5 * (left == right)).reshape(2000, -1).mean(axis=1)
    held = [(i := win_probability(share, 40)).low <= truth <= i.high for share in shares]
    assert np.mean(held) >= 0.94


def test_p_values_are_adjusted_as_holm_does():
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, and never falling.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_adjusted_p_values_are_never_smaller_and_keep_their_order(values):
    found = holm(values)
    assert all(p <= q <= 1 for p, q in zip(values, found, strict=True))
    order = np.argsort(values, kind="stable")
    assert all(np.diff(np.array(found)[order]) >= 0)


@pytest.fixture
def three(tmp_path):
    rng = np.random.default_rng(1)
    base = rng.lognormal(5, 0.5, 60).round()
    better = base * 2
    close = (base + rng.normal(2, 40, 60)).round()
    return [write(tmp_path / name, scores) for name, scores in (("low", base), ("mid", close))] + [
        write(tmp_path / "high", better)
    ]


def test_pairs_are_those_of_the_comparison_of_two(three):
    found = compare_all(three)
    assert found.agents[0].label == "high" and {one.games for one in found.agents} == {60}
    assert [(pair.a, pair.b) for pair in found.pairs] == [(0, 1), (0, 2), (1, 2)]
    folders = {one.label: one.folder for one in found.agents}
    for pair in found.pairs:
        a, b = (folders[found.agents[i].label] for i in (pair.a, pair.b))
        two = compare(a, b)
        assert (pair.difference, pair.p_value) == (two.difference["mean"], two.p_value)
        assert pair.wins == two.wins and pair.win.estimate == two.wins.share
        assert pair.paired and pair.p_adjusted >= pair.p_value
    assert found.win(0, 1).estimate == pytest.approx(1 - found.win(1, 0).estimate)
    assert found.win(0, 1).low == pytest.approx(1 - found.win(1, 0).high)
    assert found.win(1, 1) is None


def test_what_separates_and_what_would_settle_the_rest(three):
    found = compare_all(three)
    first, second, third = found.pairs
    assert first.settled and second.settled and first.more_games == 0
    assert not third.settled and third.verdict == "not settled"
    needed = compare(*(found.agents[i].folder for i in (1, 2))).power.paired
    assert third.more_games == max(1, needed - 60)
    assert found.unsettled == (third,)
    document = json.loads(json.dumps(found.as_json(), allow_nan=False))
    matrix = document["win_probability"]
    assert matrix[0][0] is None and len(matrix) == 3
    assert matrix[1][0]["estimate"] == pytest.approx(1 - matrix[0][1]["estimate"])


def test_the_order_of_the_folders_does_not_matter(three):
    found = {
        compare_all(order).as_json()["pairs"][0]["win"]["low"] for order in permutations(three)
    }
    assert len(found) == 1


def test_a_pair_that_separates_alone_may_not_among_many(tmp_path):
    """Seven results: of 21 pairs, one with p = 0.01 does not stand out."""
    rng = np.random.default_rng(3)
    base = rng.lognormal(5, 0.3, 40).round()
    folders = [write(tmp_path / f"same{i}", np.roll(base, i)) for i in range(6)]
    noise = rng.normal(0, 1, 40)
    other = (base + (noise - noise.mean()) / noise.std() + 0.4).round(2)  # t = 2.5
    folders.append(write(tmp_path / "other", other))
    alone = compare(folders[0], folders[-1])
    assert 0.003 < alone.p_value < 0.05 and alone.verdict != "not settled"
    found = compare_all(folders)
    assert not any(pair.settled for pair in found.pairs)


def test_results_that_cannot_be_compared_are_refused(three, tmp_path):
    other = write(tmp_path / "other", [1] * 8, protocol="smoke-v1")
    with pytest.raises(InputError, match=r"low played monk-lite-v1 and .*other smoke-v1"):
        compare_all([*three, other])
    with pytest.raises(InputError, match="two or more"):
        compare_all(three[:1])


def test_games_of_other_machines_are_not_paired(three, tmp_path):
    other = write(tmp_path / "arm", range(30), machine="aarch64")
    found = compare_all([*three, other])
    apart = [pair for pair in found.pairs if not pair.paired]
    assert len(apart) == 3 and {pair.games for pair in apart} == {30}
    assert found.notes == ("3 of 6 pairs are of games that are not paired",)


def test_two_results_of_one_agent_are_told_apart(tmp_path):
    folders = [write(tmp_path / name, [1, 2, 3], agent="same") for name in ("first", "second")]
    folders.append(write(tmp_path / "other", [1, 2, 2]))
    labels = {one.label for one in compare_all(folders).agents}
    assert labels == {str(folders[0]), str(folders[1]), "other"}


def test_the_command_prints_the_matrix_and_the_games_to_go(three):
    done = run("compare", *three)
    assert done.returncode == 0, done.stderr
    assert "2 of 3 pairs separate" in done.stdout
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert ["agent", "1", "2", "3"] in rows
    (line,) = (row for row in rows if row[0] == "1 high")
    assert line[1] == "-" and line[2].startswith("100 [94, 100]")
    assert json.loads(run("compare", *three, "--json").stdout)["pairs"][0]["settled"] is True
    for arguments, words in (((*three, "--no-worse", "5%"), "two results"), (three[:1], "two or")):
        refused = run("compare", *arguments)
        assert refused.returncode == 2 and words in refused.stderr
        assert refused.stderr.count("\n") == 1
