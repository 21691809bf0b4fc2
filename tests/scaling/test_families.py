"""Cubic profiles, the coupled surface, regret, and the choice of a law by held-out budgets."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from nhzoo.scaling.backtest import chosen_loss
from nhzoo.scaling.cost import proportional
from nhzoo.scaling.families.coupled import coupled_losses, fit_coupled
from nhzoo.scaling.families.predicting import predict, regret
from nhzoo.scaling.fitting import Fit, fit, read_fit, write_fit
from nhzoo.scaling.forecasting import forecast, read_forecast, write_forecast
from nhzoo.scaling.intervals import LawInterval
from nhzoo.scaling.laws import surface_of
from nhzoo.scaling.parametric import variable_projection
from nhzoo.scaling.runs import select
from tests.helpers.synthetic_laws import Truth, runs

COST = proportional(6)
OPINIONS = ("vp", "parabola", "cubic", "coupled")
TARGET = 1e15


def fitted(truth: Truth, noise: float = 0.0, seed: int = 0, **options) -> Fit:
    options = {"methods": OPINIONS, "cost": COST, "resamples": 50} | options
    return fit(runs(truth, noise, seed=seed), **options)


@pytest.mark.parametrize("coupling", [0.7, 1.0, 2.0])
def test_without_noise_the_coupled_surface_is_the_truth(coupling):
    truth = Truth(0.25, 0.40, coupling=coupling)
    found = fitted(truth)
    size, loss = truth.optimum(TARGET)
    assert found.law("coupled").estimate.theta[5] == pytest.approx(np.log(coupling), abs=1e-3)
    assert found.size("coupled", TARGET).value == pytest.approx(size, rel=1e-3)
    assert found.loss("coupled", TARGET).value == pytest.approx(loss, rel=1e-4)
    assert found.exponent("coupled").value == pytest.approx(truth.exponent, abs=1e-3)


def test_a_cubic_follows_the_lopsided_profile_that_biases_the_parabola():
    for truth, bias in ((Truth(0.60, 0.25), 0.15), (Truth(0.25, 0.40, coupling=2.0), 0.10)):
        found = fitted(truth)
        size = np.log(truth.optimum(TARGET)[0])
        off = {n: abs(np.log(found.size(n, TARGET).value) - size) for n in ("parabola", "cubic")}
        assert off["parabola"] > bias
        assert off["cubic"] < 0.35 * off["parabola"]


def test_the_covariance_of_the_coupled_surface_is_that_of_many_tables():
    truth = Truth(0.25, 0.40, coupling=2.0)
    thetas, stated = [], []
    for seed in range(40):
        points = select(runs(truth, 0.003, seed=seed)).points
        start = variable_projection(points.params, points.samples, points.loss)
        found = fit_coupled(points.params, points.samples, points.loss, start)
        thetas.append(found.theta)
        stated.append(np.sqrt(np.diag(found.covariance)))
    seen, said = np.std(thetas, axis=0), np.median(stated, axis=0)
    assert (np.abs(np.log(said / seen)) < 0.5)[[0, 3, 4, 5]].all()


def test_too_few_rows_have_no_coupled_surface():
    points = select(runs(Truth(), sizes=4)[:9], duplicates="all").all_points
    start = variable_projection(points.params, points.samples, points.loss)
    assert fit_coupled(points.params, points.samples, points.loss, start) is None
    assert coupled_losses(np.array([0.3, 0, 0, -1, -1, 0.0]), 1.0, 1.0) == pytest.approx(2.3)


def test_held_out_budgets_choose_the_law_that_gives_the_loss():
    coupled = fitted(Truth(0.25, 0.40, coupling=2.0), 0.003, resamples=400)
    said = forecast(coupled, TARGET)
    assert said.loss.value == pytest.approx(coupled.loss("coupled", TARGET).value)
    top = next(test for test in coupled.holdouts if test.left_out == 1)
    assert abs(top.coupled_error) < abs(top.surface_error)
    additive = fitted(Truth(0.25, 0.40), 0.003, methods=("vp", "parabola"))
    assert all(test.coupled_error is None for test in additive.holdouts)


def test_a_law_that_fits_best_is_not_chosen_for_that():
    found = fitted(Truth(), 0.005)
    losses = {n: LawInterval(v, v - 0.1, v + 0.1) for n, v in zip("abc", (1, 2, 3), strict=True)}
    named = dict(zip(("vp", "frontier", "coupled"), losses.values(), strict=True))
    tests = [t for t in found.holdouts if None not in (t.frontier_error, t.coupled_error)]
    errors = {
        "vp": sum(abs(t.surface_error) for t in tests),
        "frontier": sum(abs(t.frontier_error) for t in tests),
        "coupled": sum(abs(t.coupled_error) for t in tests),
    }
    best = min(errors, key=errors.get)
    whole = LawInterval(9.0, 0.0, 9.0)
    assert chosen_loss(found.holdouts, named, whole).value == named[best].value
    assert chosen_loss((), named, whole) == whole


def test_the_regret_of_a_size_is_the_compute_that_the_best_size_saves():
    truth = Truth(0.34, 0.28)
    found = fitted(truth)

    def short_of(share: float, loss: float) -> float:
        return truth.optimum(share * TARGET)[1] - loss

    for times in (0.25, 0.5, 2.0, 4.0):
        size = times * truth.optimum(TARGET)[0]
        reached = truth.loss(size, TARGET / 6 / size)
        share = optimize.brentq(short_of, 0.1, 1.0, args=(reached,))
        wasted = regret(surface_of(found.laws), TARGET, size, COST)
        assert wasted == pytest.approx(1 - share, abs=0.005)
    assert regret(surface_of(found.laws), TARGET, truth.optimum(TARGET)[0], COST) < 1e-3


def test_a_forecast_tells_one_run_from_the_mean_of_many_and_keeps_both(tmp_path):
    found = fitted(Truth(), 0.01)
    said = forecast(found, TARGET, params=4_000_000)
    assert said.mean_loss.high - said.mean_loss.low < said.loss.high - said.loss.low
    assert said.mean_loss.low <= said.loss.value <= said.mean_loss.high
    assert 0 < said.regret < 0.5
    assert any("fewer FLOPs" in warning for warning in said.warnings)
    write_forecast(tmp_path / "forecast.json", said)
    assert read_forecast(tmp_path / "forecast.json") == said


def test_a_fit_with_every_opinion_is_read_back(tmp_path):
    found = fitted(Truth(), 0.01)
    write_fit(tmp_path / "fit.json", found)
    again = read_fit(tmp_path / "fit.json")
    for method in OPINIONS:
        assert again.size(method, TARGET) == found.size(method, TARGET)
    both = predict(again.laws, TARGET, COST, 0.9)
    assert set(both.sizes) == set(OPINIONS)
    assert both.size.low <= min(size.low for size in both.sizes.values())
