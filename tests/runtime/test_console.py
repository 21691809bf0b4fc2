"""Tables on a terminal: whatever its width, every number is whole."""

from __future__ import annotations

import contextlib
import io
import json
import re

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from nhzoo.cli.app import cli
from nhzoo.cli.evaluate import print_scores, score_row
from nhzoo.cli.scaling.fit import _show_fit
from nhzoo.evaluation.results import read_result, summarize
from nhzoo.evaluation.statistics import score_text
from nhzoo.publishing.facts import facts_of
from nhzoo.runtime import console
from nhzoo.scaling import fitting
from tests import ROOT
from tests.helpers.synthetic_laws import Truth, runs

RESULTS = ROOT / "leaderboard" / "results"
WIDTHS = (40, 60, 80, 100, 200)


def shown(capsys, monkeypatch, width, *table) -> str:
    """What a terminal of this width is shown of a table."""
    monkeypatch.setattr(console, "_on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    capsys.readouterr()
    console.print_table(*table)
    out, err = capsys.readouterr()
    missing = err.partition(": ")[2].partition(";")[0].split(", ") if err else []
    head, rows, optional = (*table, ())[:3]
    kept = [i for i, name in enumerate(head) if name not in missing]
    assert set(missing) <= set(optional)
    check(out, [[console._text(row[i]) for i in kept] for row in rows], width)
    return out


def check(out: str, rows: list[list[str]], width: int) -> None:
    """Cells short enough to be no prose are whole, each in one line; nothing is cut."""
    assert "\u2026" not in out
    lines = out.splitlines()
    for row in rows:
        for cell in row:
            if len(cell) <= console._PROSE:
                assert any(cell in line for line in lines), (width, cell, out)
            for word in cell.split():
                if len(word) <= console._PROSE:
                    assert word in out, (width, word, out)
    longest = max((len(c) for r in rows for c in r if len(c) <= console._PROSE), default=0)
    words = max((len(w) for r in rows for c in r for w in c.split()), default=0)
    assert max(map(len, lines), default=0) <= max(width, longest, words)


def captured(monkeypatch, *calls) -> list[tuple]:
    """The tables that functions print."""
    tables: list[tuple] = []
    with monkeypatch.context() as patch:
        patch.setattr(console, "print_table", lambda *table: tables.append(table))
        for call in calls:
            call()
    assert tables
    return tables


def command(*words: str):
    def call() -> None:
        done = CliRunner().invoke(cli, list(words))
        assert done.exit_code == 0, (words, done.output, done.exception)

    return call


def result(name: str) -> None:
    said, _, rows = read_result(RESULTS / name / "monk-lite-v1")
    summary = summarize(rows) | {"env_steps_per_second": 12345.678}
    print_scores([score_row(said | {"summary": summary}, rows)])


FIT = ROOT / "training" / "sweeps" / "iso1" / "fit.json"
FORECAST = ROOT / "leaderboard" / "forecasts" / "once-5e13" / "forecast.json"
CALLS = {
    "list": command("list"),
    "data list": command("data", "list"),
    "compare": command(
        "compare", str(RESULTS / "bc-lstm-1m/monk-lite-v1"), str(RESULTS / "random/monk-lite-v1")
    ),
    "compare many": command(
        "compare",
        *(f"{RESULTS}/{name}/monk-lite-v1" for name in ("scripted", "random", "bc-lstm-1m")),
    ),
    "evaluate": lambda: [result(name) for name in ("autoascend", "bc-lstm-483k", "random")],
    "fit": lambda: _show_fit(fitting.fit(runs(Truth(), 0.01), resamples=50)),
    "forecast": command("forecast", str(FIT), "--flops", "5e13"),
    "grade": command("grade", str(FORECAST), f"{ROOT}/training/runs.jsonl:bc-lstm-1410k"),
    "leaderboard log": command("leaderboard", "log", "--root", str(ROOT)),
    "sweep plan": command(
        "sweep", "plan", "--budgets", "3e11:1e13:5", "--center", "100000@1e12", "--unique", "1e6"
    ),
}


def test_facts_in_groups_are_whole_at_any_width_and_commands_are_one_line(capsys, monkeypatch):
    found = facts_of("bc-lstm-1m")
    monkeypatch.setattr(console, "_on_terminal", lambda: True)
    rows = [[console._text(v) for v in facts.values()] for facts in found.groups.values()]
    for width in WIDTHS:
        monkeypatch.setenv("COLUMNS", str(width))
        capsys.readouterr()
        console.print_groups(found.groups, found.commands)
        out = capsys.readouterr().out
        facts, _, commands = out.partition("Reproduce it")
        check(facts, rows, width)
        lines = commands.splitlines()
        assert all(f"    {command}" in lines for command in found.commands.values())


@pytest.mark.parametrize("name", CALLS)
def test_no_command_crops_a_number_at_any_width(name, capsys, monkeypatch):
    for table in captured(monkeypatch, CALLS[name]):
        for width in WIDTHS:
            shown(capsys, monkeypatch, width, *table)


def test_the_headline_is_whole_at_80_columns(capsys, monkeypatch):
    (table,) = captured(monkeypatch, lambda: result("autoascend"))
    out = shown(capsys, monkeypatch, 80, *table)
    assert "15,595.8 [13,453.0, 18,172.0]" in out


def test_columns_go_before_rows_become_blocks(capsys, monkeypatch):
    (table,) = captured(monkeypatch, lambda: result("autoascend"))
    full, fewer, blocks = (shown(capsys, monkeypatch, w, *table) for w in (200, 125, 60))
    assert "steps/s" in full and "┃" in full
    assert "steps/s" not in fewer and "┃" in fewer
    assert "┃" not in blocks and re.search(r"^steps/s +12,346$", blocks, re.M)


def test_elsewhere_tables_are_lines_of_tabs(capsys, monkeypatch):
    monkeypatch.setattr(console, "_on_terminal", lambda: False)
    monkeypatch.setenv("COLUMNS", "10")
    console.print_table(("a", "b"), [(1234567, "x" * 50), (None, 0.5)], ("b",))
    assert capsys.readouterr().out == f"a\tb\n1,234,567\t{'x' * 50}\n-\t0.5\n"


CELL = st.one_of(
    st.none(),
    st.integers(-(10**15), 10**15),
    st.floats(-1e9, 1e9),
    st.text("abc 12,.[]%", max_size=90).map(lambda text: " ".join(text.split())),
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(1, 6).flatmap(
        lambda n: st.lists(st.tuples(*[CELL] * n), min_size=1, max_size=4),
    ),
    st.sampled_from([20, 40, 60, 80, 100, 200]),
)
def test_any_table_is_whole_at_any_width(rows, width):
    head = [f"column {i} [95 %]" for i in range(len(rows[0]))]
    text = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(text):
        patch.setattr(console, "_on_terminal", lambda: True)
        patch.setenv("COLUMNS", str(width))
        console.print_table(head, rows)
    check(text.getvalue(), [[console._text(cell) for cell in row] for row in rows], width)


def test_scores_without_an_interval_have_a_dash():
    assert score_text({"mean_score": 127.0, "mean_score_ci95": None}) == "127.0 -"
    old = json.loads('{"mean_score": 127.0, "mean_score_ci95": [127.0, 127.0]}')
    assert score_text(old) == "127.0 -"
    assert score_text(old | {"mean_score_ci95": [1, 200]}) == "127.0 [1.0, 200.0]"
