"""One game, few games, equal scores: figures that cannot be had are null, everywhere."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from nhzoo.cli.app import cli
from nhzoo.envs.protocols import get_protocol
from nhzoo.errors import InputError
from nhzoo.evaluation import results, statistics
from nhzoo.evaluation.expert import normalize_scores
from nhzoo.evaluation.loss import _standard_error
from nhzoo.evaluation.outcomes import breakdown, kaplan_meier
from nhzoo.evaluation.verification import summary_problems
from nhzoo.leaderboard.board import claimed_summary, ranked
from nhzoo.leaderboard.site.page import board_table, templates
from nhzoo.policy.config import PolicyConfig
from nhzoo.policy.network import Policy
from nhzoo.publishing.report import characters, summary_cards
from nhzoo.runtime import files
from nhzoo.scaling.sweeps.measuring import with_return
from nhzoo.training.rl.config import ImpalaConfig
from nhzoo.training.rl.impala import WarmStart
from nhzoo.training.rl.objectives import Critic
from nhzoo.training.rl.training import RLResult, played_row
from tests.evaluation.test_comparison import row as game
from tests.evaluation.test_comparison import write
from tests.leaderboard.test_board import row as board_row
from tests.training.test_run_table import ROW

LITE = get_protocol("monk-lite-v1")


def rows_of(*scores: float) -> list[dict]:
    return [game("monk-lite-v1", i, float(score)) for i, score in enumerate(scores)]


def test_whole_numbers_of_a_summary_are_exact():
    assert results.same([0.1 + 0.2, 3], [0.3, 3])
    for claimed in (3 + 1e-9, True, "3", None):
        assert not results.same(claimed, 3 if claimed is not True else 1)


def test_the_summary_of_one_game_or_of_equal_scores_has_no_interval():
    one, equal = results.summarize(rows_of(127)), results.summarize(rows_of(*[127] * 9))
    assert one["mean_score_ci95"] is None and one["std_score"] is None
    assert equal["mean_score_ci95"] is None and equal["std_score"] == 0
    json.dumps(one, allow_nan=False)
    few = results.summarize(rows_of(1, 2, 3))["mean_score_ci95"]
    assert few == pytest.approx([2 - 2.484138, 2 + 2.484138], abs=1e-5)  # Student's t


@pytest.mark.parametrize("scores", [(127,), (127,) * 9, (1, 2, 3)])
def test_results_of_before_stay_valid_and_others_do_not_become_so(scores):
    rows = rows_of(*scores)
    given = results.summarize(rows) | {"env_steps_per_second": 1.0}
    ends = statistics.resampled_mean_ci95(scores) or (127.0, 127.0)
    before = given | {"mean_score_ci95": list(ends)}
    if len(scores) == 1:
        before["std_score"] = 0.0
    for summary in (given, before):
        assert summary_problems({"summary": summary}, rows) == []
        assert claimed_summary({"summary": summary}, LITE, LITE)["episodes"] == len(rows)
    wrong = [{"mean_score_ci95": [120.0, 130.0]}, {"std_score": 1.5}]
    for change in wrong:
        assert summary_problems({"summary": given | change}, rows)
    if given["mean_score_ci95"] is not None:
        assert summary_problems({"summary": given | {"mean_score_ci95": None}}, rows)


def test_summaries_are_told_from_what_is_none():
    good = results.summarize(rows_of(1, 5, 9, 9, 7))
    for change in (
        {"mean_score_ci95": [1]},
        {"mean_score_ci95": ["1", 9]},
        {"mean_score_ci95": [50, 60]},
        {"std_score": None},
        {"mean_score": None},
    ):
        with pytest.raises(InputError, match="no usable summary"):
            claimed_summary({"summary": good | change}, LITE, LITE)
    del good["mean_score_ci95"]
    with pytest.raises(InputError, match="no usable summary"):
        claimed_summary({"summary": good}, LITE, LITE)


def test_a_row_without_an_interval_has_no_rank_and_a_dash():
    sure = board_row("sure", 20, 10, 30)
    lucky = board_row("lucky", 99, 99, 99)
    lucky = replace(lucky, summary=lucky.summary | {"mean_score_ci95": None})
    found = ranked([sure, lucky], "monk-lite-v1")
    assert {row.id: row.rank for row in found} == {"sure": 1, "lucky": None}
    summary = results.summarize(rows_of(127))
    table = board_table("a board", [replace(lucky, summary=summary)])
    page = templates().get_template("boards.html").module.board(table)
    assert "127 to 127" not in page and "–</td>" in page


def test_pages_and_roles_of_one_game():
    rows = rows_of(127)
    assert ("Mean score", "127", "95 % –") in summary_cards(results.summarize(rows))
    assert characters(rows)[0][3] == "–"
    (role,) = breakdown(rows).roles
    assert role.mean_score == statistics.Interval(127, None, None)
    ratio = normalize_scores([127.0], "Mon").ratio
    assert ratio.estimate > 0 and ratio.ends is None


def test_tables_of_one_game_have_a_dash(tmp_path):
    a, b = write(tmp_path / "a", [127]), write(tmp_path / "b", [5])
    said = CliRunner().invoke(cli, ["compare", str(a), str(b)])
    assert said.exit_code == 0 and "127.0 -" in said.output and "127.0 [" not in said.output
    value = json.loads(CliRunner().invoke(cli, ["compare", str(a), str(b), "--json"]).stdout)
    assert value["difference"]["mean"] == {"estimate": 122.0, "low": None, "high": None}


@pytest.mark.parametrize("died", [[True], [True, True], [False, True], [True] * 3])
def test_survival_of_few_has_intervals_with_a_width(died):
    curve = kaplan_meier([5.0 + i for i in range(len(died))], died)
    assert all(low < high for low, high in zip(curve.low, curve.high, strict=True))


def test_standard_errors_of_one_game_or_of_equal_ones_are_not_known(tmp_path):
    assert _standard_error(np.array([3.0]), np.array([2.0])) is None
    assert _standard_error(np.array([3.0, 6.0]), np.array([2.0, 4.0])) is None
    assert _standard_error(np.array([3.0, 7.0]), np.array([2.0, 4.0])) > 0
    for scores in ((127,), (127, 127)):
        summary = results.summarize(rows_of(*scores))
        files.atomic_write(tmp_path / "result.json", files.dump_json({"summary": summary}))
        row = with_return(ROW, tmp_path)
        assert (row.mean_return, row.se_return, row.n_episodes) == (127, None, len(scores))


@pytest.mark.parametrize(
    ("scores", "loss", "mean"),
    [([], None, None), ([0.0], None, 0.0), ([0.5], 2.0, 0.5), ([30.0, 50.0], 1 / 40, 40.0)],
)
def test_a_run_whose_games_have_not_ended_has_no_loss(scores, loss, mean):
    policy = Policy(PolicyConfig.for_params(10_000))
    played = RLResult(
        policy=policy,
        config=ImpalaConfig(steps=1_000, params=10_000),
        finished=True,
        updates=3,
        frames=10,
        flops=1e9,
        seconds=1.0,
        energy_joules=None,
        device=torch.device("cpu"),
        critic=Critic(policy.config.hidden),
        warm_start=WarmStart(),
        games=len(scores),
        scores=scores,
    )
    row = played_row(played, "a run")
    assert (row.loss, row.mean_return) == (loss, mean)


def test_a_table_of_few_runs_gives_laws_and_says_so(tmp_path):
    from tests.helpers.synthetic_laws import Truth, runs

    lines = ["run_id,params,samples,flops,loss,flops_budget"]
    lines += [
        f"g{i % 3},{r.params},{r.samples},{r.flops},{r.loss},{r.flops_budget}"
        for i, r in enumerate(runs(Truth(), 0.01))
    ]
    table = tmp_path / "runs.csv"
    table.write_text("\n".join(lines) + "\n")
    fit = [str(table), "-o", str(tmp_path / "fit.json"), "--resamples", "50"]
    done = CliRunner().invoke(cli, ["fit", *fit])
    assert done.exit_code == 0, done.output
    assert "error: too_few_clusters (column run_id): 35 rows come from 3 runs" in done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("vp")]
    assert line.split("\t")[1].endswith(" -") and "[" not in line
    assert CliRunner().invoke(cli, ["fit", *fit, "--strict"]).exit_code == 1
    said = CliRunner().invoke(cli, ["forecast", str(tmp_path / "fit.json"), "--flops", "1e15"])
    assert said.exit_code != 0
