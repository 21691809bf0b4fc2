"""The table of runs: anybody's is read, ours is whole, many append at once."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, fields, replace

import pytest

from nhzoo.errors import InputError
from nhzoo.policy.config import PolicyConfig, flop_model, flop_model_hash
from nhzoo.training.run_table import (
    LedgerRow,
    RunRow,
    append_row,
    config_hash,
    parse_row,
    read_runs,
)
from tests import ROOT

ROW = LedgerRow(
    run_id="a",
    params=10,
    samples=20,
    flops=3e9,
    loss=1.5,
    kind="bc",
    checkpoint=False,
    updates=5,
    accuracy=0.5,
    validation_frames=7,
    batch=1,
    time=2,
    accumulate=3,
    data="set",
    data_sha256="00",
    config_hash="11",
    git_revision=None,
    seconds=1.0,
    energy_joules=None,
    machine="x86_64",
    cpu="a CPU",
    device="cpu",
    precision="fp32",
    threads=1,
    world_size=1,
    torch="2",
)
COLUMNS = [
    *("run_id", "params", "samples", "flops", "loss", "flops_budget", "loss_se", "mean_return"),
    *("se_return", "n_episodes", "unique_samples", "kind", "lr", "lr_tuned", "seed", "width"),
    *("depth", "horizon", "flop_model_hash"),
]


def test_the_projects_own_table_is_sound():
    rows = read_runs(ROOT / "training" / "runs.jsonl")
    assert len(rows) >= 11
    by_trainer = [row for row in rows if isinstance(row, LedgerRow)]
    names = [(row.run_id, row.config_hash, row.updates, row.checkpoint) for row in by_trainer]
    assert len(set(names)) == len(names)
    for row in by_trainer:
        frames = row.updates * row.batch * row.time * row.accumulate
        assert row.samples <= frames
        if row.start is None:  # every update costs the same, a whole number
            assert row.flops % row.updates == 0  # (a start may begin with the value's alone)
        ends = [r for r in by_trainer if r.run_id == row.run_id and not r.checkpoint]
        assert ends, f"{row.run_id} has checkpoints and no end"


def test_the_contracts_columns_are_all_there_and_first():
    assert [field.name for field in fields(RunRow)] == [*COLUMNS, "batch"]
    assert [field.name for field in fields(LedgerRow)][: len(COLUMNS)] == COLUMNS


def test_a_row_comes_back_as_it_was(tmp_path):
    table = tmp_path / "runs.jsonl"
    assert append_row(table, ROW)
    assert read_runs(table) == [ROW]
    assert not append_row(table, replace(ROW, seconds=99.0))  # the same run, ended once more
    assert append_row(table, replace(ROW, checkpoint=True, updates=2))
    assert append_row(table, replace(ROW, config_hash="22"))
    assert [row.seconds for row in read_runs(table)] == [1.0] * 3


def test_a_table_of_somebody_elses_is_read(tmp_path):
    table = tmp_path / "runs.CSV"
    table.write_text(
        "loss,run_id,params,samples,flops,lr_tuned,their_own,seed,mean_return\n"
        "2.5,x,1e6,2000000,6e12,true,what,,12\n"
        "2.4,y,1000000.0,3000000,9E12,0,,3,\n"
    )
    x, y = read_runs(table)
    assert type(x) is RunRow
    assert (x.params, x.flops, x.lr_tuned, x.seed, x.mean_return) == (10**6, 6e12, True, None, 12.0)
    assert (y.lr_tuned, y.seed, y.mean_return) == (False, 3, None)
    lines = tmp_path / "runs.jsonl"
    lines.write_text('{"run_id":"x","params":1e6,"samples":2,"flops":3,"loss":4,"more":[1]}\n')
    assert read_runs(lines) == [RunRow("x", 10**6, 2, 3.0, 4.0)]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("params", None),
        ("params", 1.5),
        ("params", 0),
        ("params", True),
        ("samples", -3),
        ("flops", "many"),
        ("loss", "nan"),
        ("loss", [1]),
        ("run_id", True),
        ("run_id", [1]),
        ("lr_tuned", "perhaps"),
        ("seed", 0.5),
        ("checkpoint", None),
        ("world_size", ""),
        ("schema_version", 99),
    ],
)
def test_what_cannot_be_read_is_named_by_row_and_column(tmp_path, column, value):
    table = tmp_path / "runs.jsonl"
    rows = [asdict(ROW), asdict(ROW) | {column: value}]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=rf"runs\.jsonl, line 2, column {column}"):
        read_runs(table)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("run_id,params\n", "holds no row"),
        ("run_id,run_id\na,b\n", "line 1, column run_id: 2 columns have that name"),
        ("run_id,params,samples,flops,loss\na,1,2,3\n", "line 2: has 4 cells and the header 5"),
        ("run_id,params,samples,flops,loss\na,1,2,3,4,5\n", "line 2: has 6 cells"),
        ("run_id,params,samples,flops\na,1,2,3\n", "column loss: is missing"),
        ('run_id,params,samples,flops,loss\n"a,1,2,3,4\n', "line 2: a quotation mark is opened"),
    ],
)
def test_csv_tables_that_are_none(tmp_path, text, says):
    table = tmp_path / "runs.csv"
    table.write_text(text)
    with pytest.raises(InputError, match=says):
        read_runs(table)


_APPEND = """
import json, sys
from pathlib import Path
from nhzoo.training.run_table import LedgerRow, append_row
row = json.loads(sys.argv[3])
for i in range(20):
    append_row(Path(sys.argv[1]), LedgerRow(**row | {"run_id": f"{sys.argv[2]}-{i}"}))
"""


def test_trainings_that_end_at_once_lose_no_row(tmp_path):
    table = tmp_path / "runs.jsonl"
    table.write_text('{"run_id":"old","params":1,"samples":2,"flops":3,"loss":4}')  # no newline
    command = [sys.executable, "-c", _APPEND, str(table)]
    row = json.dumps(asdict(ROW))
    running = [subprocess.Popen([*command, str(number), row]) for number in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    names = [row.run_id for row in read_runs(table)]
    assert names[0] == "old"
    assert sorted(names[1:]) == sorted(f"{n}-{i}" for n in range(3) for i in range(20))
    assert [path.name for path in tmp_path.iterdir()] == ["runs.jsonl"]


def test_a_damaged_table_is_named_and_not_touched(tmp_path):
    table = tmp_path / "runs.jsonl"
    table.write_text('{"run_id":"x"}\n{"half')
    with pytest.raises(InputError, match="line 2"):
        append_row(table, ROW)
    assert table.read_text() == '{"run_id":"x"}\n{"half'


def test_hashes_name_what_they_should(monkeypatch):
    assert config_hash({"a": 1, "b": 2}) == config_hash({"b": 2, "a": 1}) != config_hash({"a": 1})
    model = flop_model()
    assert model == flop_model() != flop_model_hash("other", 1, {})
    counted = PolicyConfig.train_flops.fget
    monkeypatch.setattr(PolicyConfig, "train_flops", property(lambda c: counted(c) + 1))
    assert flop_model() != model


def test_reading_needs_no_torch():
    code = (
        "import sys, nhzoo.training.run_table\n"
        "assert not {'torch', 'nle', 'numba'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_text_stands_for_numbers_only_where_it_is_one():
    row = {name: str(value) for name, value in asdict(ROW).items() if value is not None}
    assert parse_row(row, "here") == ROW
