"""Forecasts, their grades, sweep plans, figures, and the commands of all these."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from nhzoo.cli.app import cli
from nhzoo.errors import CheckFailed, InputError
from nhzoo.runtime import files
from nhzoo.scaling import fitting, grading, returns
from nhzoo.scaling import forecasting as forecasts
from nhzoo.scaling.backtest import worst_error
from nhzoo.scaling.cost import proportional
from nhzoo.scaling.fitting import read_fit, write_fit
from nhzoo.scaling.forecasting import compute_for
from nhzoo.scaling.grading import read_forecasts, write_grade
from nhzoo.scaling.runs import select
from nhzoo.scaling.sweeps import plan as sweep_plan
from nhzoo.training.run_table import RunRow
from tests import ROOT
from tests.helpers.synthetic_laws import Truth, runs
from tests.training.test_run_table import ROW

TRUTH = Truth(0.31, 0.37)


@pytest.fixture(scope="module")
def fit():
    rows = [
        replace(r, mean_return=80 * r.loss**-1.8, se_return=2.0) for r in runs(TRUTH, 0.005, seed=3)
    ]
    return fitting.fit(rows)


@pytest.fixture(scope="module")
def said(fit):
    return forecasts.forecast(fit, 1e15)


def call(*arguments):
    done = CliRunner().invoke(cli, [str(a) for a in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return done.exception, done
    return None, done


def write_table(path: Path, rows) -> Path:
    names = ("run_id", "params", "samples", "flops", "loss", "flops_budget", "seed")
    lines = [json.dumps({name: getattr(row, name) for name in names}) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


# Forecasts


def test_a_forecast_holds_the_truth_and_states_the_union(said):
    size, loss = TRUTH.optimum(1e15)
    assert said.params_interval.low <= size <= said.params_interval.high
    assert said.loss.low <= loss <= said.loss.high
    assert said.loss.value == pytest.approx(loss, rel=0.02)
    assert said.params * said.samples * 6 == pytest.approx(1e15, rel=1e-3)
    for method in ("vp", "parabola"):
        assert said.params_interval.low <= said.sizes[method].low
        assert said.params_interval.high >= said.sizes[method].high
    for method in ("vp", "frontier"):
        assert said.loss.low <= said.losses[method].low * (1 + 1e-6)  # of a size with three digits
    assert said.ret.low <= 80 * loss**-1.8 <= said.ret.high
    assert said.extrapolation == pytest.approx(10, rel=1e-3)
    value = said.as_json()
    assert list(value)[:6] == ["flops", "params", "samples", "loss", "return", "warnings"]
    assert set(value["loss"]) == {"value", "low", "high"}


def test_baselines_are_frozen_with_it(said):
    _, loss = TRUTH.optimum(1e15)
    assert said.baselines.power_law < 0.97 * loss  # without a floor it is too optimistic
    assert said.baselines.last_loss > loss
    assert said.baselines.last_size > loss


def test_a_forecast_is_kept_under_its_hash(said, tmp_path):
    path = tmp_path / "forecast.json"
    forecasts.write_forecast(path, said)
    assert forecasts.read_forecast(path) == said
    with pytest.raises(InputError, match="never changed"):
        forecasts.write_forecast(path, said)
    path.write_text(path.read_text().replace('"warnings": [', '"warnings": ["x", ', 1))
    with pytest.raises(InputError, match="was changed after it was written"):
        forecasts.read_forecast(path)
    for text in ("{}", '{"schema": 1, "sha256": "0"}'):
        path.write_text(text)
        with pytest.raises(InputError):
            forecasts.read_forecast(path)


def test_what_the_data_cannot_carry_is_refused_with_the_reason(fit):
    for flops in (1e30, 2e16):
        with pytest.raises(CheckFailed, match="times the largest budget"):
            forecasts.forecast(fit, flops)
    far = forecasts.forecast(fit, 1e30, force=True)
    assert all(math.isfinite(x) for x in vars(far.loss).values())
    assert any("extrapolation" in w for w in far.warnings)
    with pytest.raises(CheckFailed, match="has no law"):
        forecasts.forecast(fitting.fit(runs(TRUTH, 0.01)[:14]), 1e15)
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="--flops"):
            forecasts.forecast(fit, bad)
    with pytest.raises(CheckFailed):
        forecasts.forecast(fit, 1.0)


def test_repeated_data_warns_widens_and_refuses(fit, said):
    samples = said.samples
    once = forecasts.forecast(fit, 1e15, data_limit=2 * samples)
    assert once.loss == said.loss
    assert once.data_limit.epochs == pytest.approx(0.5)
    often = forecasts.forecast(fit, 1e15, data_limit=samples / 8)
    assert any("data_exhausted" in w for w in often.warnings)
    assert often.loss.high > said.loss.high
    assert often.loss.value == said.loss.value
    assert often.data_limit.effective_samples < samples
    assert often.data_limit.reached_at < 1e15
    assert often.data_limit.params_at_4_epochs == pytest.approx(2 * said.params, rel=0.01)
    with pytest.raises(CheckFailed, match="16 is the most"):
        forecasts.forecast(fit, 1e15, data_limit=samples / 20)
    forecasts.forecast(fit, 1e15, data_limit=samples / 20, force=True)


def test_data_may_be_seen_so_often_and_the_size_follows(fit, said):
    once = forecasts.forecast(fit, 1e15, data_limit=said.samples / 3, epochs=1)
    assert once.params == pytest.approx(3 * said.params, rel=0.01)
    assert once.data_limit.epochs <= 1
    assert once.loss.value > said.loss.value
    assert any("instead of" in w for w in once.warnings)
    free = forecasts.forecast(fit, 1e15, data_limit=3 * said.samples, epochs=1)
    assert (free.params, free.loss) == (said.params, said.loss)
    with pytest.raises(InputError, match="--data-limit"):
        forecasts.forecast(replace(fit, unique_limit=None), 1e15, epochs=1)
    with pytest.raises(InputError, match="--epochs"):
        forecasts.forecast(fit, 1e15, data_limit=1e6, epochs=0)
    with pytest.raises(InputError, match="give one of them"):
        forecasts.forecast(fit, 1e15, params=10**6, epochs=1)


def test_another_size_costs_what_the_surface_says(fit, said):
    other = forecasts.forecast(fit, 1e15, params=4 * said.params)
    ratio = TRUTH.loss(4 * said.params, said.samples / 4) / TRUTH.optimum(1e15)[1]
    assert other.loss.value / said.loss.value == pytest.approx(ratio, rel=0.01)
    assert any("size" in w for w in other.warnings)


def test_the_return_of_a_size_that_is_off_goes_through_its_loss(fit, said):
    """80 L^-1.8 is the truth for every size; the law against compute knows the best size alone."""
    assert set(said.returns) == {"compute", "loss"}
    low, high = sorted(interval.value for interval in said.returns.values())
    assert low <= said.ret.value <= high
    by_width = {name: math.log(i.high / i.low) ** -2 for name, i in said.returns.items()}
    mean = sum(w * math.log(said.returns[name].value) for name, w in by_width.items())
    assert math.log(said.ret.value) == pytest.approx(mean / sum(by_width.values()))
    params = 8 * said.params
    other = forecasts.forecast(fit, 1e15, params=params)
    assert set(other.returns) == {"loss"}
    truth = 80 * TRUTH.loss(params, 1e15 / 6 / params) ** -1.8
    assert other.ret.value == pytest.approx(truth, rel=0.02)
    assert other.ret.value < 0.9 * said.ret.value
    assert other.ret.low <= truth <= other.ret.high
    near = forecasts.forecast(fit, 1e15, params=round(1.01 * said.params))
    assert set(near.returns) == {"compute", "loss"}
    blind = replace(fit, returns=tuple(law for law in fit.returns if law.of == "compute"))
    other = forecasts.forecast(blind, 1e15, params=params)
    assert other.ret is None and any(w.startswith("return: none") for w in other.warnings)
    assert forecasts.forecast(blind, 1e15).ret is not None


def test_forecasts_frozen_before_still_read_and_keep_their_grades():
    known = {f.name: f for f in read_forecasts(ROOT / "leaderboard" / "forecasts")}
    assert {"once-5e13", "four-times-6e13"} <= set(known)
    said = known["once-5e13"]
    assert set(said.forecast.returns) == {"compute", "loss"}
    assert said.forecast.ret.value == pytest.approx(said.forecast.returns["compute"].value)
    assert said.status in ("hit", "missed")


def test_holdouts_forecast_the_top_and_widen(fit):
    assert {h.left_out for h in fit.holdouts} == {1, 2}
    nearest = fit.holdouts[0]
    assert abs(nearest.loss_error) < 0.02
    assert abs(nearest.power_law_error) > abs(nearest.loss_error)
    assert worst_error(fit.holdouts, 1e9) == max(abs(h.loss_error) for h in fit.holdouts)
    assert worst_error((), 10) == 0.0


def test_the_value_is_that_of_the_method_that_did_better_on_what_was_held_out(fit):
    frontier, surface = (
        replace(
            fit,
            holdouts=tuple(replace(h, surface_error=a, frontier_error=b) for h in fit.holdouts),
        )
        for a, b in ((0.02, -0.01), (-0.01, 0.02))
    )
    by = {
        name: forecasts.forecast(f, 1e15) for name, f in (("frontier", frontier), ("vp", surface))
    }
    for name, said in by.items():
        assert said.loss.value == pytest.approx(said.losses[name].value, rel=1e-6)
    assert by["vp"].loss.value != by["frontier"].loss.value
    nothing = forecasts.forecast(replace(fit, holdouts=()), 1e15)
    assert nothing.loss.value == pytest.approx(nothing.losses["frontier"].value, rel=1e-6)


# Grades


def result_of(said, **changes):
    row = RunRow("next", said.params, said.samples, said.flops, said.loss.value * 1.005)
    return replace(row, **changes)


def test_a_grade_tells_hits_misses_and_baselines(said):
    hit = grading.grade(said, result_of(said, mean_return=said.ret.value * 1.1))
    assert hit.hit and hit.loss.hit and hit.ret.hit and hit.beats_baselines
    assert hit.loss.error == pytest.approx(1 / 1.005 - 1)
    assert set(hit.baselines) == {"last_size", "power_law", "last_loss"}
    miss = grading.grade(said, result_of(said, loss=said.loss.high * 1.2))
    assert not miss.hit
    assert miss.ret is None
    assert {"loss", "return", "baselines", "hit", "beats_baselines"} <= set(miss.as_json())
    with pytest.raises(CheckFailed, match="give the run that was trained for it"):
        grading.grade(said, result_of(said, flops=said.flops / 2))
    other = grading.grade(said, result_of(said, params=2 * said.params))
    assert any("params" in w for w in other.warnings)
    from tests.training.test_run_table import ROW  # and with it torch

    early = replace(
        ROW, params=said.params, samples=said.samples, flops=said.flops, loss=0.4, checkpoint=True
    )
    assert any("checkpoint" in w for w in grading.grade(said, early).warnings)


def test_returns_come_from_a_result_folder(said, tmp_path):
    summary = {"mean_score": said.ret.value, "mean_score_ci95": [1.0, 2.0]}
    (tmp_path / "result.json").write_text(json.dumps({"summary": summary}))
    found = grading.grade(said, result_of(said), tmp_path)
    assert found.ret.hit
    assert found.return_ci95 == (1.0, 2.0)
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(InputError, match="mean_score"):
        grading.grade(said, result_of(said), tmp_path)


def test_runs_are_found_by_table_and_name_alone_or_as_an_entry(said, tmp_path):
    table = write_table(tmp_path / "runs.jsonl", [result_of(said), *runs(TRUTH)[:3]])
    assert grading.find_run(f"{table}:next", said.flops).run_id == "next"
    with pytest.raises(InputError, match="no row has run_id 'nobody'"):
        grading.find_run(f"{table}:nobody", 1e15)
    with pytest.raises(InputError, match="name one as"):
        grading.find_run(str(table), 1e15)
    alone = write_table(tmp_path / "one.jsonl", [result_of(said)])
    assert grading.find_run(str(alone), 1e15).params == said.params
    entry = ROOT / "agents" / "bc-lstm-100k"
    row = grading.find_run(str(entry), 1e12)
    config = json.loads((entry / "config.json").read_text())
    assert row.loss == config["training"]["validation"]["loss"]
    with pytest.raises(InputError):
        grading.find_run(str(tmp_path), 1e15)


# Plans


def test_a_plan_is_centred_distinct_and_drops_what_cannot_be_trained():
    centre = sweep_plan.center_of_text("200000@1e13^0.5")
    plan = sweep_plan.plan_sweep(
        sweep_plan.parse_budgets("1e12:1e14:5"),
        centre,
        proportional(6),
        center_name="a test",
        unique_samples=1e7,
    )
    assert len(plan.budgets) == 5
    names = [cell.run_id for cell in plan.cells]
    assert len(set(names)) == len(names)
    assert all(cell.epochs <= 4 for cell in plan.cells)
    assert all(cell.samples >= 500 * 256 for cell in plan.cells)
    assert any("seen" in cell.reason for cell in plan.dropped)
    assert any("10,000" in cell.reason for cell in plan.dropped)
    seeded = [cell for cell in plan.cells if cell.seed > 0]
    assert {cell.flops for cell in seeded} == {plan.budgets[0], plan.budgets[2]}
    assert len(seeded) == 4
    top = sorted({c.params for c in plan.cells if c.flops == 1e14})
    assert all(1.9 < b / a < 2.1 for a, b in pairwise(top))
    for cell in plan.cells:
        assert cell.samples == pytest.approx(cell.flops / 6 / cell.params, rel=1e-5)


def test_plans_follow_a_fit_and_a_ledgers_speed(fit, tmp_path):
    from tests.training.test_run_table import ROW  # and with it torch

    rows = [
        replace(ROW, run_id=f"{n}", params=n, flops=6e9 * n, seconds=60.0, checkpoint=False)
        for n in (20_000, 100_000, 500_000)
    ]
    plan = sweep_plan.plan_sweep(
        [1e13], sweep_plan.center_of_fit(fit), fit.cost, center_name="fit", rows=rows
    )
    middle = plan.cells[3]
    assert middle.params == pytest.approx(TRUTH.optimum(1e13)[0], rel=0.15)
    assert middle.seconds == pytest.approx(middle.flops / (1e8 * middle.params), rel=0.05)
    assert plan.seconds == pytest.approx(sum(c.seconds for c in plan.cells))
    path = tmp_path / "plan.json"
    sweep_plan.write_plan(path, plan)
    assert sweep_plan.read_plan(path) == plan
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 5', 1))
    with pytest.raises(InputError, match="was changed"):
        sweep_plan.read_plan(path)


@pytest.mark.parametrize("text", ["", "1e12;1e13", "1e14:1e12:3", "1e12:1e13:0", "1:2:3:4"])
def test_budgets_that_are_none(text):
    with pytest.raises(InputError, match="--budgets"):
        sweep_plan.parse_budgets(text)


@pytest.mark.parametrize("text", ["", "5", "a@b", "0@1e12", "1e5@1e12^x", "1e5@-1"])
def test_centres_that_are_none(text):
    with pytest.raises(InputError, match="--center"):
        sweep_plan.center_of_text(text)


def test_a_plan_without_cells_is_refused():
    with pytest.raises(InputError, match="no cell of the sweep can be trained"):
        sweep_plan.plan_sweep(
            [1e6], sweep_plan.center_of_text("1e5@1e12"), proportional(6), center_name="x"
        )


# Reinforcement learning


def test_intrinsic_performance_finds_the_exponent_whatever_the_returns_scale():
    x, y, rows = 0.7, 0.45, []
    random = np.random.default_rng(1)
    for flops in np.geomspace(1e12, 1e15, 7):
        for step in 2.0 ** np.arange(-4, 5):
            n = 2e5 * (flops / 3e13) ** (y / (x + y)) * step
            d = flops / 8 / n
            lost = (2e5 / n) ** x + (3e13 / 8 / 2e5 / d) ** y
            performance = lost ** (-(x + y) / (x * y)) * np.exp(0.05 * random.standard_normal())
            rows.append(
                RunRow(
                    f"r{len(rows)}", round(n), round(d), flops, 1.0, flops, mean_return=performance
                )
            )
    points = select(rows, duplicates="all").all_points
    found = returns.fit_intrinsic(points, resamples=60)
    assert found.exponent.value == pytest.approx(y / (x + y), abs=0.05)
    assert found.exponent.low < found.exponent.value < found.exponent.high
    bent = replace(points, mean_return=np.log1p(points.mean_return) ** 3)
    again = returns.intrinsic_performance(bent)
    seen = returns.intrinsic_performance(points)
    assert np.nanmax(np.abs(np.log(again / seen))) < 0.6  # but for how steps are interpolated
    with pytest.raises(InputError, match="4 budgets of 4 sizes"):
        returns.fit_intrinsic(points.take(points.flops < 3e12))


def test_laws_of_the_return_itself():
    rows = [replace(r, mean_return=1 / r.loss, loss=1.0) for r in runs(TRUTH, 0.003, seed=1)]
    fit = fitting.fit(rows, metric="return")
    assert fit.exponent("vp").value == pytest.approx(TRUTH.exponent, abs=0.02)
    with pytest.raises(InputError, match="mean_return"):
        fitting.fit(runs(TRUTH), metric="return")


def curves(sizes, noise=0.03, prefix="impala", start=None, seeds=2, moments=6):
    """Learning curves as the trainer writes them: rows of one run after each doubling."""
    random = np.random.default_rng(0)
    rows = []
    for n, seed in ((n, seed) for n in sizes for seed in range(seeds)):
        luck = noise * random.standard_normal()
        for k in range(moments):
            d = 2e7 / 2 ** (moments - 1 - k)
            worse = (n / 1e5) ** -0.5 + (d / 3e7) ** -0.4
            score = 3e3 / worse * np.exp(luck + noise / 2 * random.standard_normal())
            rows.append(
                replace(
                    ROW, run_id=f"{prefix}-{n}-{seed}", params=n, samples=int(d), flops=8 * n * d,
                    flops_budget=None, loss=1 / score, mean_return=score, se_return=0.02 * score,
                    kind="rl", checkpoint=k < moments - 1, seed=seed, start=start,
                    unique_samples=int(d),
                )
            )  # fmt: skip
    return rows


SIZES = 30_000, 60_000, 120_000, 300_000, 1_000_000


@pytest.mark.slow
def test_learning_curves_are_fitted_whole_by_run(tmp_path):
    rows = curves(SIZES)
    fit = fitting.fit(rows, resamples=60)
    assert fit.kind == "rl" and len(fit.points) == len(rows)  # moments on the way as well
    assert fit.options["resampling"] == "runs"
    (law,) = fit.returns  # none against a loss that is one over the return
    assert law.of == "compute" and 0.1 < law.slope_interval.low < law.slope < 0.3
    assert law.dof == len(SIZES) * 2 - 2
    assert fit.intrinsic.exponent.low < 0.4 / 0.9 < fit.intrinsic.exponent.high
    lucky = fitting.fit(curves(SIZES, 0.3), resamples=50)
    assert "intrinsic_noise" in [d.code for d in lucky.diagnostics]
    path = tmp_path / "fit.json"
    write_fit(path, fit)
    again = read_fit(path)
    assert (again.intrinsic, again.returns) == (fit.intrinsic, fit.returns)
    few = fitting.fit(curves(SIZES[1:4]), resamples=60)
    assert few.intrinsic is None and few.law("vp") is not None
    (said,) = [d for d in few.diagnostics if d.code == "no_intrinsic"]
    assert "4 sizes at 4 moments of their runs (there are 3)" in said.message
    two = fitting.fit(curves(SIZES, seeds=1)[:12], resamples=50)
    assert two.returns == ()  # of two runs none is sure


@pytest.mark.slow
def test_runs_from_scratch_and_from_entries_do_not_mix(tmp_path):
    rows = curves(SIZES) + curves(SIZES, prefix="ks", start="bc-lstm-100k")
    (found,) = [d for d in fitting.fit(rows, resamples=50).diagnostics if d.code == "starts_mixed"]
    assert found.level == "error" and "bc-lstm-100k: 60, scratch: 60" in found.message
    table = tmp_path / "runs.jsonl"
    table.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))
    assert call("fit", table, "--strict", "--resamples", 50)[1].exit_code == 1
    for only in ("impala-*", "ks-*"):
        _, done = call("fit", table, "--only", only, "--strict", "--resamples", 60)
        assert done.exit_code == 0, done.stderr
        assert "intrinsic performance: N ~ C^" in done.stdout
        assert "return against compute" in done.stdout


def line(slope, noise=0.0):
    """Runs whose best return is 100 at 1e12 FLOPs and grows as C^slope."""
    random = np.random.default_rng(2)
    return [
        replace(
            row, mean_return=100 * (row.flops / 1e12) ** slope * np.exp(noise * random.normal())
        )
        for row in runs(TRUTH, 0.005, seed=3)
    ]


def test_the_compute_that_a_return_takes():
    fit = fitting.fit(line(0.25))
    said = compute_for(fit, 127_000, force=True)
    assert said.flops == pytest.approx(1e12 * 1270**4, rel=1e-6)
    assert said.warnings[0].startswith("extrapolation: ")
    assert said.beyond == pytest.approx(127_000 / fit.points.mean_return.max())
    noisy = fitting.fit(line(0.25, 0.2))
    law = next(law for law in noisy.returns if law.of == "compute")
    said = compute_for(noisy, 1_000)
    assert said.low < said.flops < said.high
    at = [law.at(math.log(x), noisy.options["interval"]) for x in (said.low, said.high)]
    assert at[0].high == pytest.approx(math.log(1_000))
    assert at[1].low == pytest.approx(math.log(1_000))
    unsure = compute_for(fitting.fit(line(0.15, 0.2)), 1e4, force=True)
    assert unsure.high is None and math.isfinite(unsure.low)
    falling = replace(fit, returns=(replace(law, slope=-0.25),))
    with pytest.raises(CheckFailed, match=r"the return grows as C\^-0.25"):
        compute_for(falling, 1e4)
    with pytest.raises(CheckFailed, match="no cheaper run reached"):
        compute_for(fitting.fit(line(-0.25)), 1e4)
    with pytest.raises(CheckFailed, match="no law of return against compute"):
        compute_for(fitting.fit(runs(TRUTH)), 1e4)
    for nonsense in (0, -5, math.nan):
        with pytest.raises(InputError, match="--return"):
            compute_for(fit, nonsense)


def test_a_return_beyond_a_hundred_times_the_data_is_refused_with_where_it_ends(tmp_path):
    fit = fitting.fit(line(0.25))  # budgets up to 1e14
    most = 100 * (1e16 / 1e12) ** 0.25
    assert compute_for(fit, 0.999 * most).extrapolation == pytest.approx(100, rel=0.01)
    with pytest.raises(CheckFailed, match=r"100 times is the most, which is a return of 1,000;"):
        compute_for(fit, 1.001 * most)
    path = tmp_path / "fit.json"
    write_fit(path, fit)
    error, _ = call("forecast", path, "--return", 127_000)
    assert isinstance(error, CheckFailed) and error.exit_code == 1
    assert "\n" not in str(error) and "--force" in str(error)
    assert call("forecast", path, "--return", 127_000, "--force")[1].exit_code == 0
    with pytest.raises(CheckFailed, match=r"100 times or 1e\+16 FLOPs is the most"):
        forecasts.forecast(fit, 2e16)


def test_the_command_that_says_it(tmp_path):
    path = tmp_path / "fit.json"
    write_fit(path, fitting.fit(line(0.25, 0.1)))
    _, done = call("forecast", path, "--return", 127_000, "--force", "--json")
    value = json.loads(done.stdout)
    assert done.exit_code == 0
    assert value["flops"]["low"] < value["flops"]["value"] < value["flops"]["high"]
    _, done = call("forecast", path, "--return", 127_000, "--force")
    assert "times its FLOPs" in done.stdout and "extrapolation" in done.stderr
    for words in ((), ("--flops", 1e15, "--return", 1), ("--return", 1, "--epochs", 2)):
        error, _ = call("forecast", path, *words)
        assert isinstance(error, InputError)


# The ledger of forecasts


def test_every_forecast_stays_with_what_came_of_it(fit, said, tmp_path):
    assert read_forecasts(tmp_path / "none") == []
    first, again, other = (tmp_path / name / "forecast.json" for name in ("b-1", "a-2", "c-3"))
    later = {**said.as_json(), "created": "2999-01-01T00:00:00+00:00"}
    later["sha256"] = files.content_hash(later)
    for path in (first, again, other):
        path.parent.mkdir()
    forecasts.write_forecast(first, said)
    again.write_bytes(files.dump_json(later))
    forecasts.write_forecast(other, forecasts.forecast(fit, 3e14))
    found = {f.name: f for f in read_forecasts(tmp_path)}
    assert [f.name for f in read_forecasts(tmp_path)][-1] == "a-2"
    assert (found["b-1"].superseded_by, found["b-1"].status) == ("a-2", "superseded")
    assert found["a-2"].status == found["c-3"].status == "open"
    # A graded one is not superseded, and its grade is not written over.
    hit = grading.grade(said, result_of(said))
    write_grade(tmp_path / "b-1" / "grade.json", hit)
    write_grade(tmp_path / "b-1" / "grade.json", hit)
    assert {f.name: f.status for f in read_forecasts(tmp_path)}["b-1"] == "hit"
    miss = grading.grade(said, result_of(said, loss=said.loss.high * 2))
    with pytest.raises(InputError, match="another grade"):
        write_grade(tmp_path / "b-1" / "grade.json", miss)
    write_grade(tmp_path / "c-3" / "grade.json", miss)
    with pytest.raises(InputError, match=r"c-3.*grade of another forecast"):
        read_forecasts(tmp_path)


def test_a_changed_grade_is_noticed(said, tmp_path):
    (tmp_path / "x").mkdir()
    forecasts.write_forecast(tmp_path / "x" / "forecast.json", said)
    path = tmp_path / "x" / "grade.json"
    write_grade(path, grading.grade(said, result_of(said, loss=said.loss.high * 2)))
    assert read_forecasts(tmp_path)[0].status == "missed"
    path.write_text(path.read_text().replace('"hit": false', '"hit": true'))
    with pytest.raises(InputError, match="changed"):
        read_forecasts(tmp_path)


# Figures


@pytest.mark.slow
def test_figures_are_drawn_the_same_again(fit, said, tmp_path):
    pytest.importorskip("matplotlib")
    from nhzoo.scaling.plots import plot_fit

    first = plot_fit(fit, tmp_path / "a", [said])
    assert len(first) == 14
    plot_fit(fit, tmp_path / "b", [said])
    for path in first:
        assert path.stat().st_size > 5_000
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


# Commands


def test_the_commands_in_a_row(tmp_path):
    table = write_table(tmp_path / "runs.jsonl", runs(TRUTH, 0.005, seed=3))
    fitted, frozen = tmp_path / "fit.json", tmp_path / "forecast.json"
    error, done = call("fit", table, "-o", fitted)
    assert error is None and done.exit_code == 0, done.output
    assert "vp" in done.stdout and "frontier" in done.stdout and "held out" in done.stdout
    error, done = call("fit", table, "--json")
    value = json.loads(done.stdout)
    again = json.loads(fitted.read_text())
    assert value["estimates"] == again["estimates"]
    error, done = call("forecast", fitted, "--flops", "1e15", "-o", frozen, "--json")
    value = json.loads(done.stdout)
    assert value == json.loads(frozen.read_text())
    row = RunRow("next", value["params"], value["samples"], 1e15, value["loss"]["high"] * 1.5)
    mine = write_table(tmp_path / "next.jsonl", [row])
    error, done = call("grade", frozen, mine)
    assert done.exit_code == 0 and "power law" in done.stdout
    kept = tmp_path / "grade.json"
    error, done = call("grade", frozen, f"{mine}:next", "--json", "--strict", "-o", kept)
    assert json.loads(kept.read_text())["forecast_sha256"] == value["sha256"]
    assert done.exit_code == 1
    assert json.loads(done.stdout)["hit"] is False
    plan = tmp_path / "plan.json"
    error, done = call(
        *("sweep", "plan", "--budgets", "1e13,1e14", "--center", fitted, "--cost", "6"),
        *("--unique", "1e9", "-o", plan),
    )
    assert error is None and done.exit_code == 0, done.output
    assert sweep_plan.read_plan(plan).cells


def test_refusals_have_the_contracts_exit_codes(tmp_path):
    table = write_table(tmp_path / "runs.jsonl", runs(TRUTH, 0.005, seed=3))
    fitted = tmp_path / "fit.json"
    call("fit", table, "-o", fitted)
    error, _ = call("forecast", fitted, "--flops", "1e30")
    assert isinstance(error, CheckFailed) and error.exit_code == 1
    error, _ = call("forecast", fitted, "--flops", "nan")
    assert isinstance(error, InputError) and error.exit_code == 2
    error, _ = call("fit", tmp_path / "nothing.csv")
    assert isinstance(error, InputError)
    few = write_table(tmp_path / "few.jsonl", runs(TRUTH)[:7])
    error, done = call("fit", few, "-o", tmp_path / "few.json", "--json")
    assert done.exit_code == 1
    assert {d["code"] for d in json.loads(done.stdout)["diagnostics"]} >= {"too_few_budgets"}
    error, _ = call("forecast", tmp_path / "few.json", "--flops", "1e13")
    assert isinstance(error, CheckFailed)
    flawed = runs(TRUTH, 0.005, seed=3)
    flawed[20] = replace(flawed[20], loss=0.01)
    table = write_table(tmp_path / "flawed.jsonl", flawed)
    assert call("fit", table)[1].exit_code == 0
    assert call("fit", table, "--strict", "--resamples", 50)[1].exit_code == 1
    error, _ = call("fit", table, "--cost", "cheap")
    assert isinstance(error, InputError)
