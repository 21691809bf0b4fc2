from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from nhzoo.errors import CheckFailed, InputError
from nhzoo.runtime import files
from nhzoo.scaling import cost
from nhzoo.scaling.sweeps.plan import center_of_text, plan_sweep, read_plan, write_plan
from nhzoo.scaling.sweeps.rates import best_rates, fit_rates, grade_rates, read_rates, write_rates
from nhzoo.training.config import peak_rate
from nhzoo.training.run_table import RunRow, write_rows
from tests.helpers.commands import run

N, D = -0.35, -0.1


def best(params: float, samples: float) -> float:
    return 0.6 * params**N * samples**D * math.exp(1.5)


def table(budgets=(1e11, 3e11, 1e12), sizes=(1, 2, 4, 8), factors=(0.5, 1, 2), noise=0.0):
    """Cells at so many times a rate that is somewhat off the best one; 3 % of loss a factor e."""
    random = np.random.default_rng(0)
    rows = []
    for budget in budgets:
        for size in sizes:
            params = round(10_000 * size * (budget / 1e11) ** 0.5)
            samples = round(budget / 6 / params)
            for factor in factors:
                lr = best(params, samples) * 1.2 * factor
                off = math.log(lr / best(params, samples))
                loss = 0.5 * (1 + 0.03 * off**2 + noise * random.normal())
                name = f"r-{budget:g}-{params}-lr{factor:g}"
                rows.append(RunRow(name, params, samples, budget, loss, budget, lr=lr))
    return rows


def test_a_law_is_found_again_with_its_exponents():
    law = fit_rates(table())
    assert law.theta[1:] == pytest.approx((N, D), abs=1e-6)
    assert law.rms < 1e-6 and len(law.cells) == 12
    noisy = fit_rates(table(noise=5e-4))
    for name, truth in (("n", N), ("d", D)):
        found = noisy.parameter(name)
        assert found.low < truth < found.high
        assert found.high - found.low < 0.4
    rate = noisy.rate(1e6, 1e7)
    assert rate.low < best(1e6, 1e7) < rate.high


def test_the_best_rate_of_a_cell_lies_between_the_three_that_are_nearest():
    rows = table(budgets=(1e11,), sizes=(1,), factors=(0.02, 0.5, 1, 2, 50))
    rows[0], rows[-1] = (replace(row, loss=3.0) for row in (rows[0], rows[-1]))  # no parabola there
    (cell,), findings = best_rates(rows)
    assert not findings
    assert cell.value == pytest.approx(best(cell.params, cell.samples))
    assert cell.loss == pytest.approx(0.5)
    assert cell.curvature == pytest.approx(0.5 * 0.03)
    doubled = [*rows, *(replace(row, run_id=f"{row.run_id}-s1") for row in rows)]
    assert best_rates(doubled)[0] == [cell]  # seeds are averaged


def test_cells_that_say_little_are_named_and_left_out():
    rows = table()
    edge = [row for row in rows if not row.run_id.endswith("lr0.5") or row.params != 10_000]
    short = [row for row in edge if not (row.params == 20_000 and row.run_id.endswith("lr2"))]
    cells, findings = best_rates([*short, *table((1e11,), (1,), (0.25,))][:-1])
    assert {finding.code for finding in findings} == {"too_few_rates"}
    assert len(cells) == 10
    high = table(budgets=(1e11,), sizes=(1,), factors=(2, 4, 8))
    _, (finding,) = best_rates(high)
    assert (finding.code, finding.level) == ("edge_rate", "error")
    assert "add a lower one" in str(finding)
    with pytest.raises(InputError, match="1 cells have a best learning rate; a law needs 4"):
        fit_rates(table(budgets=(1e11,), sizes=(1,)))
    with pytest.raises(InputError, match="several sizes and several samples"):
        fit_rates([replace(row, samples=row.params) for row in table()])


def test_a_frozen_law_is_graded_further_out(tmp_path):
    law = fit_rates(table(noise=5e-4), "runs.jsonl")
    path = tmp_path / "rates.json"
    write_rates(path, law)
    assert read_rates(path) == law
    with pytest.raises(CheckFailed, match="is frozen already"):
        write_rates(path, law)
    (grade,) = grade_rates(law, table(budgets=(1e13,), sizes=(2,)), "larger.jsonl")
    assert grade.hit and 0 <= grade.cost < 0.01
    off = [replace(row, lr=row.lr * 30) for row in table(budgets=(1e13,), sizes=(2,))]
    (missed,) = grade_rates(law, off, "larger.jsonl")
    assert not missed.hit and missed.cost > 0.1
    with pytest.raises(InputError, match=r"larger.jsonl: no cell has a best learning rate"):
        grade_rates(law, off[:2], "larger.jsonl")
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | {"rms": 0.0}))
    with pytest.raises(InputError, match="was changed after it was written"):
        read_rates(path)
    path.write_text("{}")
    with pytest.raises(InputError, match="not a law of a hyperparameter"):
        read_rates(path)


def test_a_law_of_the_batch_is_found_beside_rates_that_differ():
    rows = []
    for row in table(budgets=(1e11, 1e12), sizes=(1, 4, 16), factors=(1,)):
        middle = best(row.params, row.samples) * 1e5
        for factor in (0.25, 1, 4):
            batch = max(1, round(middle * factor * 1.3))
            loss = 0.5 * (1 + 0.03 * math.log(batch / middle) ** 2)
            name = f"{row.run_id}-b{batch}"
            rows.append(replace(row, run_id=name, batch=batch, loss=loss))
            worse = row.lr * 3  # a learning rate that hides no batch
            rows.append(replace(row, run_id=f"{name}-x", batch=batch, loss=2 * loss, lr=worse))
    law = fit_rates(rows, column="batch")
    assert law.column == "batch" and len(law.cells) == 6
    assert law.theta[1:] == pytest.approx((N, D), abs=0.05)
    with pytest.raises(InputError, match="0 cells have a best horizon"):
        fit_rates(rows, column="horizon")
    with pytest.raises(InputError, match="--optimum depth: give lr, batch, horizon"):
        fit_rates(rows, column="depth")


def test_the_largest_budget_is_held_out_and_forecast():
    law = fit_rates(table(noise=5e-4))
    assert len(law.holdouts) == 4
    assert all(held.samples > 0 and 0 <= held.cost < 0.02 for held in law.holdouts)
    assert sum(held.hit for held in law.holdouts) >= 3
    # One rate for all costs more than the law's, as sizes span a factor of eight.
    assert np.mean([h.cost for h in law.holdouts]) < np.mean(
        [h.constant_cost for h in law.holdouts]
    )
    assert fit_rates(table(budgets=(1e11, 3e11))).holdouts == ()  # one budget carries no law


def test_a_plan_gives_its_cells_what_laws_say_is_best(tmp_path):
    rates = fit_rates(table(noise=5e-4))
    batches = replace(rates, column="batch", theta=(math.log(7.6), 0.0, 0.0))
    horizons = replace(rates, column="horizon", theta=(math.log(1e9), 0.0, 0.0))
    options = {"center_name": "100000@1e12", "sizes": 3, "seeds": 1}
    center, six = center_of_text("100000@1e12"), cost.proportional(6)
    plan = plan_sweep([1e12], center, six, laws=[rates, batches, horizons], **options)
    for cell in plan.cells:
        assert cell.lr == pytest.approx(rates.rate(cell.params, cell.samples).value, rel=0.01)
        assert (cell.batch, cell.horizon) == (8, cell.samples // 8)
    write_plan(tmp_path / "plan.json", plan)
    assert read_plan(tmp_path / "plan.json") == plan
    several = plan_sweep([1e12], center, six, laws=[rates], rates=(1, 2), **options)
    lows, highs = several.cells[::2], several.cells[1::2]
    for low, high in zip(lows, highs, strict=True):
        assert high.lr == pytest.approx(2 * low.lr, rel=0.01)
    with pytest.raises(InputError, match="two laws are of the same column"):
        plan_sweep([1e12], center, six, laws=[rates, rates], **options)


def test_a_law_frozen_before_there_were_columns_is_read(tmp_path):
    law = fit_rates(table(noise=5e-4))
    value = law.as_json()
    for name in ("column", "holdouts", "sha256"):
        del value[name]
    for cell in value["cells"]:
        cell["lr"] = cell.pop("value")
    path = tmp_path / "old.json"
    path.write_bytes(files.dump_json(files.seal(value)))
    assert read_rates(path) == replace(law, holdouts=())


def test_a_plan_trains_its_cells_at_several_rates(tmp_path):
    plan = plan_sweep(
        [1e12, 3e12],
        center_of_text("100000@1e12"),
        cost.proportional(6),
        center_name="100000@1e12",
        sizes=3,
        rates=(0.5, 2),
    )
    plain = plan_sweep(
        [1e12, 3e12], center_of_text("100000@1e12"), cost.proportional(6),
        center_name="100000@1e12", sizes=3,
    )  # fmt: skip
    assert len(plan.cells) == 2 * len(plain.cells)
    assert all(cell.lr is None for cell in plain.cells)
    for cell in plan.cells:
        factor = float(cell.run_id.rpartition("-lr")[2])
        assert cell.lr == pytest.approx(peak_rate(cell.params) * factor, rel=0.01)
    write_plan(tmp_path / "plan.json", plan)
    assert read_plan(tmp_path / "plan.json") == plan
    with pytest.raises(InputError, match="--rates"):
        plan_sweep([1e12], center_of_text("1e5@1e12"), plan.cost, center_name="x", rates=(-1,))


def test_the_command_line(tmp_path):
    rows = table(noise=5e-4)
    for name, some in (("runs", rows), ("larger", table(budgets=(1e13,), sizes=(2,)))):
        write_rows(tmp_path / f"{name}.jsonl", some)
    frozen = tmp_path / "rates.json"
    done = run("sweep", "rates", tmp_path / "runs.jsonl", "-o", frozen)
    assert done.returncode == 0
    assert "lr ~ params^-0.3" in done.stdout
    value = json.loads(run("sweep", "rates", tmp_path / "runs.jsonl", "--json").stdout)
    assert value["n"]["low"] < N < value["n"]["high"]
    graded = run("sweep", "rates", tmp_path / "larger.jsonl", "--grade", frozen, "--json")
    assert [grade["hit"] for grade in json.loads(graded.stdout)["grades"]] == [True]
    assert "forecast" in run("sweep", "rates", tmp_path / "larger.jsonl", "--grade", frozen).stdout
    law = tmp_path / "lr.json"
    assert run("fit", tmp_path / "runs.jsonl", "--optimum", "lr", "-o", law).returncode == 0
    assert json.loads(law.read_text())["theta"] == json.loads(frozen.read_text())["theta"]
    words = ("--budgets", "1e12", "--center", "1e5@1e12", "--cost", "6", "--optimum", law)
    planned = json.loads(run("sweep", "plan", *words, "--json").stdout)
    assert all(cell["lr"] > 0 for cell in planned["cells"])
    for words, code, says in (
        (("runs.jsonl", "-o", frozen), 1, "is frozen already"),
        (("runs.jsonl", "-o", frozen, "--grade", frozen), 2, "either --grade or -o"),
        (("runs.jsonl", "--only", "no-*"), 2, "0 cells have a best learning rate"),
    ):
        failed = run("sweep", "rates", tmp_path / words[0], *words[1:])
        assert failed.returncode == code
        assert says in failed.stderr and len(failed.stderr.strip().splitlines()) == 1
