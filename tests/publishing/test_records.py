"""Results for other programs: each read back by what it is for."""

from __future__ import annotations

import json

import pytest

from nhzoo.errors import CheckFailed, InputError
from nhzoo.evaluation.results import read_result, summarize
from nhzoo.evaluation.statistics import ci95
from nhzoo.publishing.records import SCHEMA, evaluation_record, game_rows, write_parquet
from nhzoo.training.run_table import read_runs
from tests import ROOT
from tests.evaluation.test_comparison import write
from tests.helpers.commands import run

RESULT = ROOT / "leaderboard" / "results" / "bc-lstm-483k" / "monk-lite-v1"
RUNS = ROOT / "training" / "runs.jsonl"
PUBLISHED = ROOT / "tests" / "helpers" / "schemas" / f"every_eval_ever-{SCHEMA}.json"


def validate(record: dict) -> None:
    """Against the published JSON schema."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(PUBLISHED.read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.Draft7Validator(schema).validate(record)


def test_a_record_is_valid_and_says_what_the_result_says():
    record = evaluation_record(RESULT, "somebody", "third_party", created=1.8e9)
    validate(record)
    validate(json.loads(json.dumps(record, allow_nan=False)))
    assert record["schema_version"] == SCHEMA
    summary = summarize(read_result(RESULT)[2])
    mean, median, progression = record["evaluation_results"]
    assert mean["score_details"]["score"] == summary["mean_score"]
    ends = mean["score_details"]["uncertainty"]["confidence_interval"]
    assert [ends["lower"], ends["upper"]] == summary["mean_score_ci95"]
    assert ends["confidence_level"] == 0.95
    assert mean["score_details"]["uncertainty"]["num_samples"] == 128
    assert median["score_details"]["score"] == summary["median_score"]
    scores = [row["score"] for row in read_result(RESULT)[2]]
    ends = median["score_details"]["uncertainty"]["confidence_interval"]
    assert (ends["lower"], ends["upper"]) == ci95(scores, "median")
    assert progression["score_details"]["score"] == summary["mean_progression"]
    assert progression["metric_config"]["max_score"] == 1.0
    assert "score_type" not in mean["metric_config"]  # a continuous one needs a maximum
    model = record["model_info"]
    assert (model["id"], model["name"]) == ("nhzoo/bc-lstm-483k", "bc-lstm-483k")
    assert model["additional_details"]["model_availability"] == "open_weights"
    assert mean["generation_config"]["generation_args"] == {"temperature": 0.8}
    assert record["source_metadata"]["source_organization_name"] == "somebody"
    assert record["evaluation_id"] == "nhzoo-monk-lite-v1/nhzoo_bc-lstm-483k/1800000000"


@pytest.mark.parametrize("scores", [[5], [5, 7], [3] * 8, list(range(20))], ids=len)
def test_records_of_few_or_equal_scores_are_valid_and_claim_no_interval_there_is_not(
    scores, tmp_path
):
    record = evaluation_record(write(tmp_path / "mine", scores))
    validate(record)
    assert record["model_info"]["id"] == "unknown/mine"
    uncertainty = record["evaluation_results"][0]["score_details"]["uncertainty"]
    assert ("confidence_interval" in uncertainty) == (len(set(scores)) > 1)
    if len(scores) == 2:
        assert uncertainty["confidence_interval"]["method"] == "Student's t"
        assert "num_bootstrap_samples" not in uncertainty


def test_an_agent_of_the_hub_is_named_as_there(tmp_path):
    source = "hf://org/name@0123"
    record = evaluation_record(write(tmp_path / "mine", [1, 2, 3], source=source))
    validate(record)
    assert record["model_info"]["id"] == "org/name"
    assert record["model_info"]["additional_details"]["source"] == source


def test_what_the_schema_does_not_know_is_found():
    """The check itself: a record with a field too many, or one missing, is not valid."""
    jsonschema = pytest.importorskip("jsonschema")
    record = evaluation_record(RESULT)
    for broken in (
        record | {"more": 1},
        {name: value for name, value in record.items() if name != "model_info"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            validate(broken)


def test_games_that_all_crashed_are_no_record(tmp_path):
    folder = write(tmp_path / "mine", [0, 0])
    rows = (folder / "episodes.jsonl").read_text().replace("death", "crashed")
    (folder / "episodes.jsonl").write_text(rows)
    with pytest.raises(CheckFailed, match="all 2 games crashed"):
        evaluation_record(folder)


def test_the_command_writes_a_record(tmp_path):
    path = tmp_path / "record.json"
    arguments = ("export", RESULT, "--as", "every-eval-ever", "--out", path)
    done = run(*arguments, "--evaluator", "me", "--relationship", "first_party", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(path.read_text())
    validate(record)
    assert json.loads(done.stdout)["evaluation_id"] == record["evaluation_id"]
    refused = run("export", tmp_path, "--as", "every-eval-ever", "--out", path)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1


# --- Parquet --------------------------------------------------------------------------------------


def test_games_are_read_back_by_pyarrow_and_pandas(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "games.parquet"
    done = run("export", RESULT, "--as", "parquet", "--out", path)
    assert done.returncode == 0 and "128 rows" in done.stdout, done.stderr
    rows = read_result(RESULT)[2]
    table = parquet.read_table(path)
    assert table.num_rows == 128
    assert table["score"].to_pylist() == [row["score"] for row in rows]
    assert table["core"].to_pylist() == [row["core"] for row in rows]
    assert set(table["agent"].to_pylist()) == {"bc-lstm-483k"}
    assert {str(field.type) for field in table.schema} <= {"string", "int64", "double", "bool"}
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(path)
    assert frame["score"].mean() == summarize(rows)["mean_score"]
    assert frame["end_status"].value_counts().sum() == 128


def test_runs_are_read_back_with_their_numbers(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "runs.parquet"
    assert run("export", RUNS, "--as", "parquet", "--out", path).returncode == 0
    rows = read_runs(RUNS)
    table = parquet.read_table(path)
    for name in ("run_id", "params", "samples", "flops", "loss"):
        assert table[name].to_pylist() == [getattr(row, name) for row in rows], name


def test_what_cannot_be_a_table_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="nothing to write"):
        write_parquet([{"a": None}], tmp_path / "x.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'nhzoo\[parquet\]'"):
        write_parquet(game_rows(RESULT), tmp_path / "x.parquet")
