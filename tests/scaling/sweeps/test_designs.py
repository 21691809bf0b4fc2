"""Designs: what a plan would tell of a forecast, and the runs that tell most for their FLOPs."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from nhzoo.errors import InputError
from nhzoo.scaling.cost import proportional
from nhzoo.scaling.fitting import Fit, fit, write_fit
from nhzoo.scaling.sweeps.designs import next_runs, score
from nhzoo.scaling.sweeps.plan import center_of_fit, plan_sweep, read_plan, write_plan
from tests.helpers.commands import run as nhzoo
from tests.helpers.synthetic_laws import Truth, runs

COST = proportional(6)


@pytest.fixture(scope="module")
def fitted() -> Fit:
    return fit(runs(Truth(), 0.01), cost=COST, holdout=0, resamples=50)


def grid(fitted: Fit, **options):
    """The centred grid of the fit's own budgets."""
    budgets = [budget.label for budget in fitted.budgets]
    return plan_sweep(
        budgets, center_of_fit(fitted), COST, center_name="fit", seeds=1, any_size=True, **options
    )


def test_the_same_runs_again_divide_the_errors_by_the_root_of_two(fitted):
    rows = fitted.points
    again = [
        replace(grid(fitted).cells[0], params=int(n), samples=int(d), flops=float(c), run_id=f"{i}")
        for i, (n, d, c) in enumerate(zip(rows.params, rows.samples, rows.budget, strict=True))
    ]
    found = score(replace(grid(fitted), cells=tuple(again)), fitted)
    for name in ("size", "loss"):
        now, after, alone = (getattr(part, name) for part in (found.now, found.after, found.alone))
        assert alone == pytest.approx(now, rel=1e-4)
        assert after == pytest.approx(now / math.sqrt(2), rel=1e-4)


def test_what_is_expected_now_is_the_error_that_the_fit_states(fitted):
    found = score(grid(fitted), fitted)
    law = fitted.law("vp")
    # Huber's covariance counts outliers for less, so the two differ by some per cent.
    stated = law.size(found.now.flops, COST, 0.9)
    width = math.log(stated.high / stated.value) / law.estimate.reach(0.9)
    assert found.now.size == pytest.approx(width, rel=0.15)


def test_chosen_runs_are_worth_more_than_a_centred_grid_of_as_many_flops_and_runs(fitted):
    found = score(grid(fitted), fitted)
    assert found.best.size < found.after.size < found.now.size
    assert found.best.loss < found.after.loss < found.now.loss
    for tighten, name in (("size", "size"), ("loss", "loss")):
        only = next_runs(fitted, found.spent, runs=found.runs, tighten=tighten).after[-1]
        assert getattr(only, name) <= getattr(found.best, name) * 1.001


def test_chosen_runs_keep_to_what_may_be_spent_and_are_not_in_the_table(fitted):
    found = next_runs(fitted, 3e13, runs=9, prefix="more")
    cells = found.plan.cells
    assert found.plan.flops <= 3e13 and 0 < len(cells) <= 9
    assert len({cell.run_id for cell in cells}) == len(cells)
    rows = fitted.points
    for cell in cells:
        same = (np.abs(np.log(rows.params / cell.params)) < 0.01) & (rows.budget == cell.flops)
        assert not (same & (rows.seed == cell.seed)).any()
        assert cell.samples == pytest.approx(cell.flops / 6 / cell.params, rel=1e-3)
    errors = [found.now.size, *(step.size for step in found.after)]
    assert errors == sorted(errors, reverse=True)


def test_a_new_budget_comes_as_a_whole_profile(fitted):
    found = next_runs(fitted, 1e16, runs=8, budgets=[1e15])
    new = [cell for cell in found.plan.cells if cell.flops == 1e15]
    assert len({cell.params for cell in new}) >= 5
    assert found.after[-1].loss < next_runs(fitted, 1e16, runs=8).after[-1].loss


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"flops": 1e9}, "pays for no run; the cheapest that would help takes 1e\\+12"),
        ({"flops": math.nan}, "--flops nan: must be"),
        ({"flops": 1e13, "runs": 0}, "--runs 0"),
        ({"flops": 1e13, "tighten": "all"}, "--tighten all: give both, size, loss"),
        ({"flops": 1e13, "target": -1.0}, "--target -1.0"),
        ({"flops": 1e13, "prefix": "a/b"}, "--prefix 'a/b'"),
    ],
)
def test_what_cannot_be_planned_is_refused(fitted, options, reason):
    with pytest.raises(InputError, match=reason):
        next_runs(fitted, **options)


def test_a_fit_without_a_surface_says_what_it_needs():
    parabolas = fit(runs(Truth(), 0.01), methods=["parabola"], cost=COST, holdout=0, resamples=50)
    with pytest.raises(InputError, match="no surface to plan by"):
        next_runs(parabolas, 1e13)


def test_the_commands_write_a_plan_and_score_it(fitted, tmp_path):
    write_fit(tmp_path / "fit.json", fitted)
    write_plan(tmp_path / "grid.json", grid(fitted))
    said = nhzoo("sweep", "next", tmp_path / "fit.json", "--flops", "3e13", "-o", tmp_path / "n")
    assert said.returncode == 0, said.stderr
    assert "--window 16" in said.stderr
    assert len(read_plan(tmp_path / "n").cells) <= 12
    scored = nhzoo("sweep", "score", tmp_path / "grid.json", tmp_path / "fit.json", "--json")
    document = json.loads(scored.stdout)
    assert document["after"]["size"] < document["now"]["size"]
    table = nhzoo("sweep", "score", tmp_path / "grid.json", tmp_path / "fit.json").stdout
    assert "with the runs of sweep next" in table
