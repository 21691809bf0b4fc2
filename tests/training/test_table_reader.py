"""Tables of runs as people's tools write them: read as they are meant, or refused with a remedy."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import zlib
from dataclasses import asdict

import pytest

from nhzoo.errors import InputError
from nhzoo.training import table_reader
from nhzoo.training.run_table import LedgerRow, RunRow, read_runs
from tests import ROOT

ROWS = [
    RunRow("r0", 1017959646, 16372620204, 1e20, 2.5545, 1e20),
    RunRow("r1", 6795600349, 245256722, 1e19, 5.0056, 1e19),
    RunRow("r2", 174943053, 9526909689, 1e19, 2.94083, 1e19),
]
HEAD = ("run_id", "params", "samples", "flops", "loss", "flops_budget")
PLAIN = "\n".join(
    [",".join(HEAD)]
    + [f"{r.run_id},{r.params},{r.samples},{r.flops},{r.loss},{r.flops_budget}" for r in ROWS]
    + [""]
)
RECORDS = [{name: getattr(row, name) for name in HEAD} for row in ROWS]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS)


def edited(line: int, column: str, value: str) -> str:
    """PLAIN with one cell, as it stands in the file, changed; line 1 is the header."""
    lines = PLAIN.splitlines()
    cells = lines[line - 1].split(",")
    cells[HEAD.index(column)] = value
    lines[line - 1] = ",".join(cells)
    return "\n".join(lines) + "\n"


def semicolons(text: str) -> str:
    return text.replace(",", ";").replace(".", ",")


READ = {
    "plain": PLAIN,
    "no end of the last line": PLAIN.rstrip(),
    "byte order mark": "\ufeff" + PLAIN,
    "CRLF": PLAIN.replace("\n", "\r\n"),
    "CR": PLAIN.replace("\n", "\r"),
    "UTF-16": PLAIN.encode("utf-16"),
    "UTF-16, big end first": b"\xfe\xff" + PLAIN.encode("utf-16-be"),
    "UTF-32": PLAIN.encode("utf-32"),
    "gzip": gzip.compress(PLAIN.encode()),
    "gzip in two parts": gzip.compress(PLAIN[:70].encode()) + gzip.compress(PLAIN[70:].encode()),
    "semicolons": PLAIN.replace(",", ";"),
    "tabs": PLAIN.replace(",", "\t"),
    "bars": PLAIN.replace(",", "|"),
    "decimal commas": semicolons(PLAIN),
    "decimal commas in quotes": '"'
    + semicolons(PLAIN).replace("\n", '"\n"').replace(";", '","')[:-1],
    "spaces after commas": PLAIN.replace(",", ", "),
    "Excel's first line": "sep=,\n" + PLAIN,
    "comments above": "# exported\n#by a tool\n" + PLAIN,
    "blank lines": "\n" + PLAIN.replace("\n", "\n\n"),
    "rows of nothing": PLAIN + ",,,,,\n,,,,,\n",
    "an empty last column": PLAIN.replace("\n", ",\n"),
    "an index column": "".join(f"{i or ''},{x}\n" for i, x in enumerate(PLAIN.splitlines())),
    "capitals": PLAIN.replace("run_id", "Run ID").replace("flops,", "FLOPs,"),
    "units": PLAIN.replace("flops,", "flops (FLOP),").replace("loss,", "loss [nats],"),
    "thousands": edited(2, "params", '"1,017,959,646"'),
    "thousands beside them": edited(2, "params", '"1,017,959,646"').replace(
        "245256722", '"245,256,722"'
    ),
    "thin spaces": edited(2, "params", "1\u202f017\u202f959\u202f646"),
    "underscores": edited(2, "params", "1_017_959_646"),
    "whole numbers as floats": edited(2, "params", "1017959646.0"),
    "exponents": edited(2, "params", "1.017959646E+09"),
    "JSON Lines": LINES,
    "JSON Lines, CRLF": LINES.replace("\n", "\r\n"),
    "JSON Lines with a mark": "\ufeff" + LINES,
    "JSON Lines with commas": LINES.replace("}\n", "},\n"),
    "JSON Lines with text for numbers": LINES.replace("1017959646", '"1017959646.0"'),
    "one object": (LINES.splitlines()[0], ROWS[:1]),
    "JSON array": json.dumps(RECORDS),
    "JSON array, indented": json.dumps(RECORDS, indent=2),
    "JSON columns": json.dumps(
        {name: {str(i): r[name] for i, r in enumerate(RECORDS)} for name in HEAD}
    ),
    "JSON lists": json.dumps({name: [r[name] for r in RECORDS] for name in HEAD}),
    "JSON, split": json.dumps(
        {"columns": HEAD, "index": [0, 1, 2], "data": [list(r.values()) for r in RECORDS]}
    ),
    "JSON, table": json.dumps({"schema": {"fields": []}, "data": RECORDS}),
    "JSON with a line separator in text": LINES.replace("}", ', "note": "a\u2028b"}'),
}


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "txt"])
def test_what_has_one_meaning_is_read(tmp_path, name, suffix):
    """A file is told by what it holds, whatever its name."""
    content, rows = READ[name] if isinstance(READ[name], tuple) else (READ[name], ROWS)
    table = tmp_path / f"runs.{suffix}"
    table.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert read_runs(table) == rows


ONE = "run_id,params,samples,flops,loss\na,10,20,30,1\n"
REFUSED = {
    "one comma, three digits": (
        edited(2, "params", '"1,234"'),
        r"line 2, column params: '1,234' may be thousands or a fraction; write numbers without",
    ),
    "a point of thousands beside decimal commas": (
        semicolons(PLAIN).replace("174943053", "1.234"),
        r"line 4, column params: '1\.234' may be thousands or a fraction",
    ),
    "both conventions": (
        edited(2, "loss", '"2,55"'),
        r"line 2, column loss: '2,55' has a decimal comma and .* \(line 3, column loss\) has not",
    ),
    "decimal commas between commas": (
        PLAIN.replace("2.5545", "2,5545"),
        r"line 2: has 7 cells and the header 6; quote text and numbers that hold ','",
    ),
    "a unit": (
        edited(3, "params", "6796M"),
        r"line 3, column params: must be a number, is '6796M'",
    ),
    "a percent sign": (edited(3, "loss", "5.0%"), r"line 3, column loss: .* percent sign"),
    "a scaled header": (
        PLAIN.replace("params", "params (M)"),
        r"column params: is missing; is 'params \(M\)' meant\? .* in plain numbers",
    ),
    "bits": (PLAIN.replace("loss", "loss (bits)"), r"column loss: is missing"),
    "infinite": (edited(3, "loss", "inf"), r"line 3, column loss: must be finite, is 'inf'"),
    "too large": (edited(3, "flops", "1e400"), r"line 3, column flops: must be finite, is '1e400'"),
    "negative": (
        edited(3, "loss", "-1"),
        r"line 3, column loss: must be larger than zero",
    ),
    "zero": (edited(4, "loss", "0"), r"line 4, column loss: must be larger than zero"),
    "no id": (edited(4, "run_id", ""), r"line 4, column run_id: is missing"),
    "two columns": (PLAIN.replace("flops_budget", "Loss"), r"line 1, column loss: 2 columns have"),
    "a quotation mark": (edited(3, "run_id", '"r1'), r"line 3: a quotation mark is opened"),
    "a comment below": (PLAIN + "# end\n", r"line 5: begins with #; comments stand above"),
    "a NUL": (edited(3, "run_id", "r\0"), r"line 3: holds a NUL character; save"),
    "a NUL in JSON": (LINES + "\0", r"line 4: holds a NUL"),
    "nothing": ("", r"is empty; a table of runs has"),
    "blanks": ("\n \n", r"is empty"),
    "a header alone": (",".join(HEAD), r"holds no row"),
    "no header": (PLAIN.partition("\n")[2], r"column run_id: is missing"),
    "a spreadsheet": (b"PK\x03\x04", r"a spreadsheet; export it as CSV"),
    "Parquet": (b"PAR1", r"is Parquet; export it as CSV"),
    "cut gzip": (gzip.compress(PLAIN.encode())[:-20], r"gzip data is cut off"),
    "damaged gzip": (b"\x1f\x8b" + bytes(40), r"is damaged gzip"),
    "damaged UTF-16": (b"\xff\xfea", r"is damaged utf-16 text; save it as UTF-8"),
    "no text": (b"run_id,\x81\n", r"line 1: byte 0x81 is not UTF-8; save"),
    "cut JSON": (LINES + '{"run_id": "x", "par', r"line 4: is cut off; correct or remove it"),
    "no JSON": (LINES + "{run_id: 3}\n", r"line 4: is not valid JSON"),
    "a key twice": ('{"run_id": "a", "run_id": "b"}\n' + LINES, r"line 1: .*a key is repeated"),
    "a number for an object": (LINES + "3\n", r"line 4: a JSON object is needed"),
    "an array of numbers": ("[1, 2]", r"row 1: a JSON object is needed"),
    "columns of two lengths": (json.dumps({"run_id": ["a"], "loss": [1, 2]}), r"orient='records'"),
    "deep": ("[" * 100_000, r"is not valid JSON"),
    "an index of rows": (json.dumps({"r0": RECORDS[0], "r1": {"loss": 1}}), r"orient='records'"),
    "a huge number": (LINES.replace("1017959646", "1" * 400), r"line 1, column params: .* finite"),
    "a huger number": (LINES.replace("1017959646", "1" * 9_000), r"line 1: is not valid JSON"),
    "a long value": (edited(2, "params", "x" * 10_000), r"is 'x{59}\.\.\.$"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_mean_two_things_or_nothing_is_refused_in_a_line(tmp_path, name):
    content, says = REFUSED[name]
    table = tmp_path / "runs.csv"
    table.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=says) as error:
        read_runs(table)
    assert str(error.value).startswith(str(table)) and "\n" not in str(error.value)


@pytest.mark.parametrize("missing", ["", "NaN", "nan", "NA", "#N/A", "None", "null", "-", "<NA>"])
def test_values_that_are_missing_are_said_and_skipped_where_asked(tmp_path, missing):
    table = tmp_path / "runs.csv"
    table.write_text(edited(3, "loss", missing))
    with pytest.raises(InputError, match=r"line 3, column loss: is missing.*--skip-incomplete"):
        read_runs(table)
    assert read_runs(table, said := []) == [ROWS[0], ROWS[2]]
    assert said == [f"{table}, line 3, column loss: is missing"]
    table.write_text(edited(3, "flops_budget", missing))
    assert [row.flops_budget for row in read_runs(table)] == [1e20, None, 1e19]


@pytest.mark.parametrize("value", ["null", "NaN", None])
def test_missing_values_of_json(tmp_path, value):
    record = json.dumps(RECORDS[1] | {"loss": "here"})
    record = record.replace('"here"', value) if value else record.replace('"loss": "here", ', "")
    table = tmp_path / "runs.jsonl"
    table.write_text(record + "\n" + LINES)  # the first row may lack a column that others have
    with pytest.raises(InputError, match="line 1, column loss: is missing"):
        read_runs(table)
    assert read_runs(table, []) == ROWS


def test_ids_that_are_numbers_are_their_digits(tmp_path):
    table = tmp_path / "runs.jsonl"
    records = [r | {"run_id": i} for r, i in zip(RECORDS, (0, 7.0, 1.5), strict=True)]
    table.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert [row.run_id for row in read_runs(table)] == ["0", "7", "1.5"]


def test_windows_text_is_read_and_said(tmp_path):
    table = tmp_path / "runs.csv"
    table.write_bytes(edited(3, "run_id", "mod\u00e8le").encode("cp1252"))
    assert read_runs(table, notes=(notes := []))[1].run_id == "mod\u00e8le"
    assert notes == [f"{table}, line 3: is not UTF-8, and was read as Windows-1252"]


def test_a_decimal_comma_of_three_digits_follows_its_file(tmp_path):
    table = tmp_path / "runs.csv"
    table.write_text(semicolons(PLAIN.replace("2.5545", "2.554")))
    assert [row.loss for row in read_runs(table)] == [2.554, 5.0056, 2.94083]


def as_pandas(rows: list[dict[str, object]]) -> str:
    """What `pandas.read_json(lines=True).to_csv()` makes of rows: an index, NaN, floats."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns: dict[str, list[object]] = {}
    for name in names:
        cells = [row.get(name) for row in rows]
        known = [cell for cell in cells if cell is not None]
        gaps = len(known) < len(cells)
        whole = all(isinstance(cell, int) and not isinstance(cell, bool) for cell in known)
        truth = all(isinstance(cell, bool) for cell in known)
        if gaps and known and (truth or whole):
            cells = [None if cell is None else float(cell) for cell in cells]
        columns[name] = ["" if cell is None else cell for cell in cells]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["", *names])
    writer.writerows([i, *cells] for i, cells in enumerate(zip(*columns.values(), strict=True)))
    return text.getvalue()


def test_our_own_table_comes_back_from_pandas(tmp_path):
    ours = ROOT / "training" / "runs.jsonl"
    records = [json.loads(line) for line in ours.read_text().splitlines()]
    table = tmp_path / "runs.csv"
    table.write_text(as_pandas(records))
    assert ",2.0," in table.read_text() and ",0.0," in table.read_text()
    rows = read_runs(ours)
    assert read_runs(table) == rows
    assert any(isinstance(row, LedgerRow) for row in rows)
    table.write_text(table.read_text().replace(",,", ",nan,").replace(",,", ",nan,"))
    assert read_runs(table) == rows


def test_a_run_that_has_ended_no_game_has_no_loss(tmp_path):
    from tests.training.test_run_table import ROW

    record = asdict(ROW) | {"kind": "rl", "loss": None, "mean_return": None}
    table = tmp_path / "runs.jsonl"
    table.write_text(json.dumps(record) + "\n")
    assert read_runs(table)[0].loss is None
    assert read_runs(table, said := [])[0].loss is None and not said
    table.write_text(json.dumps(record | {"kind": "bc"}) + "\n")
    with pytest.raises(InputError, match="line 1, column loss: is missing"):
        read_runs(table)


def test_bombs_do_not_unfold(tmp_path, monkeypatch):
    monkeypatch.setattr(table_reader, "_LIMIT", 1 << 20)
    table = tmp_path / "runs.csv.gz"
    table.write_bytes(gzip.compress(PLAIN.encode() + b"," * (1 << 22)))
    with pytest.raises(InputError, match="unpacks to more than the 1,048,576 bytes"):
        read_runs(table)
    nested = zlib.compress(bytes(1 << 16))
    table.write_bytes(b"\x1f\x8b" + nested)
    with pytest.raises(InputError, match="gzip"):
        read_runs(table)
    table.write_text("run_id" + ",x" * 2_000 + "\n")
    with pytest.raises(InputError, match="line 1: has more than 1,000 columns"):
        read_runs(table)
    monkeypatch.setattr(table_reader, "MOST_ROWS", 2)
    for text in (PLAIN, LINES, json.dumps(RECORDS), READ["JSON columns"]):
        table.write_text(text)
        with pytest.raises(InputError, match="more than 2 rows; keep one row a run"):
            read_runs(table)


CASES = ROOT.parent / "shared" / "cases" / "tables"
REFUSALS = {
    "dup_header.csv": "line 1, column loss",
    "empty.csv": "is empty",
    "empty_ids.csv": "line 2, column run_id",
    "half.jsonl": "line 124: is cut off",
    "headeronly.csv": "holds no row",
    "huge_flops.csv": "line 2, column flops",
    "inf_loss.csv": "line 5, column loss",
    "neg_loss.csv": "line 5, column loss",
    "nul.csv": "line 7",
    "overflow.csv": "line 2, column flops",
    "percent.csv": "line 2, column loss",
    "quote_unclosed.csv": "line 7",
    "units.csv": "line 2, column params",
    "zero_loss.csv": "line 5, column loss",
}
SKIPPED = {"NA_loss.csv", "empty_loss.csv", "hashNA.csv", "mixedkeys.jsonl", "nan.jsonl"}
SKIPPED |= {"nan_loss.csv", "null.jsonl"}


@pytest.mark.skipif(not CASES.is_dir(), reason="the collected tables are not on this machine")
def test_collected_tables():
    right = read_runs(CASES / "ok.csv")
    for path in sorted(CASES.iterdir()):
        if path.name in REFUSALS:
            with pytest.raises(InputError, match=REFUSALS[path.name]):
                read_runs(path)
            continue
        if path.name in SKIPPED:
            with pytest.raises(InputError, match=r"line \d, column loss: is missing"):
                read_runs(path)
        rows = read_runs(path, said := [])
        assert len(said) == (path.name in SKIPPED), path
        assert len(rows) == len(right) - len(said), path
        losses = {round(row.loss, 5) for row in rows}
        assert losses <= {round(row.loss, 5) for row in right} or path.name == "sci.csv", path
        assert math.isclose(rows[-1].params, right[-1].params, rel_tol=2e-2), path
