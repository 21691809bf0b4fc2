"""Arms compared: known truths are found, pairs sharpen the difference, bad input is one line."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from nhzoo.errors import InputError
from nhzoo.runtime import files
from nhzoo.scaling.arms.comparing import compare_arms
from nhzoo.training.run_table import read_arms
from tests.helpers.commands import run as nhzoo
from tests.helpers.synthetic_laws import Truth, runs

OLD, NEW = Truth(0.34, 0.28), Truth(0.34, 0.28, floor=0.285)
FLOPS = 1e15
GAIN = 2.006
"""Of NEW at FLOPS: OLD's budget must be that much larger, by search on both truths."""


def table(truth, table: int, arm: int, shared: float = 0.01, own: float = 0.004):
    """Cells of one size and seed in every arm, whose errors are shared but for a part."""
    rows = runs(truth)
    common, mine = (
        np.random.default_rng([table, which]).standard_normal(len(rows)) for which in (99, arm)
    )
    noise = np.exp(shared * common + own * mine)
    return [replace(row, loss=row.loss * x) for row, x in zip(rows, noise, strict=True)]


def test_the_gain_of_the_truth_is_what_the_test_says():
    assert OLD.optimum(FLOPS * GAIN)[1] == pytest.approx(NEW.optimum(FLOPS)[1], rel=1e-4)


def test_without_noise_the_difference_and_the_gain_are_the_truth():
    found = compare_arms({"old": runs(OLD), "new": runs(NEW)}, budgets=[FLOPS])
    old, new = found.at[FLOPS]
    assert new.difference.value == pytest.approx(
        NEW.optimum(FLOPS)[1] / OLD.optimum(FLOPS)[1] - 1, abs=1e-4
    )
    assert new.gain == pytest.approx(GAIN, rel=0.01)
    assert (old.difference, old.gain, new.best) == (None, 1.0, 1.0)
    other = compare_arms({"old": runs(OLD), "new": runs(NEW)}, budgets=[FLOPS], baseline="new")
    back = other.at[FLOPS][0].gain
    assert NEW.optimum(FLOPS * back)[1] == pytest.approx(OLD.optimum(FLOPS)[1], rel=1e-3)


@pytest.mark.slow
def test_ninety_per_cent_intervals_hold_the_truth_nine_times_in_ten():
    truth = NEW.optimum(FLOPS)[1] / OLD.optimum(FLOPS)[1] - 1
    held, alike = [], []
    for number in range(30):
        found = compare_arms(
            {"old": table(OLD, number, 0), "new": table(NEW, number, 1)}, budgets=[FLOPS]
        )
        line = found.at[FLOPS][1]
        held.append(
            (
                line.difference.low <= truth <= line.difference.high,
                (line.gain_low or 0) <= GAIN <= (line.gain_high or np.inf),
            )
        )
        alike.append(found.pairings[0].correlation)
    assert (np.mean(held, 0) >= 0.8).all()
    assert np.mean(alike) == pytest.approx(0.01**2 / (0.01**2 + 0.004**2), abs=0.08)


def test_pairs_make_the_difference_sharper_and_its_sign_sure():
    paired = compare_arms({"old": table(OLD, 0, 0), "new": table(NEW, 0, 1)}, budgets=[FLOPS])
    apart = compare_arms(
        {"old": table(OLD, 0, 0), "new": [replace(r, seed=7) for r in table(NEW, 0, 1)]},
        budgets=[FLOPS],
    )
    widths = [
        found.at[FLOPS][1].difference.high - found.at[FLOPS][1].difference.low
        for found in (paired, apart)
    ]
    assert widths[0] < 0.6 * widths[1]
    assert paired.at[FLOPS][1].best > apart.at[FLOPS][1].best
    assert apart.pairings[0].pairs == 0
    assert "independent" in apart.notes[0]


def test_of_alike_arms_none_is_best_and_their_chances_sum_to_one():
    tables = {str(k): table(OLD, 3, k, shared=0.0, own=0.01) for k in range(3)}
    chances = [line.best for line in compare_arms(tables, budgets=[1e13]).at[1e13]]
    assert sum(chances) == pytest.approx(1)
    assert max(chances) < 0.95


def test_a_gain_has_no_end_where_the_baseline_may_never_get_there():
    low = Truth(0.34, 0.28, floor=0.15)
    tables = {"old": table(OLD, 0, 0), "low": table(low, 0, 1)}
    line = compare_arms(tables, budgets=[1e16]).at[1e16][1]
    assert line.difference.high < 0
    assert (line.gain, line.gain_high) == (None, None)


def bad_tables():
    many = {str(n): runs(OLD) for n in range(21)}
    twice = [replace(row, run_id="one") for row in runs(OLD)]
    return [
        ({"old": runs(OLD)}, {}, "has one arm"),
        (many, {}, "name a column that groups runs"),
        ({"old": runs(OLD), "new": runs(NEW)[:6]}, {}, "new: .* too few for a law"),
        ({"old": runs(OLD), "new": twice}, {}, "several rows are of one run"),
        ({"old": runs(OLD), "new": runs(NEW)}, {"baseline": "x"}, "there are old, new"),
        ({"old": runs(OLD), "new": runs(NEW)}, {"budgets": [1e20]}, "100 times the largest"),
    ]


@pytest.mark.parametrize(("tables", "options", "reason"), bad_tables())
def test_what_cannot_be_compared_is_refused(tables, options, reason):
    with pytest.raises(InputError, match=reason):
        compare_arms(tables, **options)


@pytest.fixture
def two_arms(tmp_path):
    """A table with a column of its own that names the arms."""
    rows = [
        asdict(replace(row, run_id=f"{arm}-{row.run_id}")) | {"architecture": arm}
        for k, (arm, truth) in enumerate({"old": OLD, "new": NEW}.items())
        for row in table(truth, 0, k)
    ]
    path = tmp_path / "runs.jsonl"
    path.write_bytes(files.dump_jsonl(rows))
    return path


def test_the_command_compares_the_arms_that_a_column_names(two_arms, tmp_path):
    figure = tmp_path / "arms.svg"
    shown = nhzoo(
        *("fit", two_arms, "--by", "architecture", "--at", "1e13,1e15"),
        *("--figure", figure, "-o", tmp_path / "arms.json", "--json"),
    )
    assert shown.returncode == 0, shown.stderr
    document = json.loads(shown.stdout)
    assert document == json.loads((tmp_path / "arms.json").read_text())
    assert [part["flops"] for part in document["at"]] == [1e13, 1e15]
    assert document["at"][1]["arms"][1]["difference"]["high"] < 0
    assert document["pairings"][0]["pairs"] >= 30
    assert figure.read_text().count("<svg") == 1
    table = nhzoo("fit", two_arms, "--by", "architecture").stdout
    assert "against old" in table and "paired runs" in table


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--by", "architectur"], "has no column 'architectur'; is 'architecture' meant?"),
        (["--by", "kind"], "column kind: is missing; name the arm of each row"),
        (["--by", "architecture", "--only", "old*"], "has one arm, 'old'"),
        (["--by", "architecture", "--only", "x*"], "no run_id is like 'x*'"),
        (["--by", "architecture", "--at", "soon"], "--at soon: give"),
        (["--by", "architecture", "--figure", "arms.gif"], "arms.gif: figures are"),
        (["--baseline", "old"], "go with --by"),
    ],
)
def test_bad_options_are_one_line(two_arms, options, reason):
    said = nhzoo("fit", two_arms, *options)
    assert said.returncode == 2
    assert reason in said.stderr and said.stderr.count("\n") == 1


def test_arms_keep_the_order_of_the_table(two_arms):
    assert list(read_arms(two_arms, "architecture")) == ["old", "new"]
