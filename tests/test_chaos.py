"""A few signals at random moments; `python -m tests.helpers.chaos --signals 200` sends many."""

from __future__ import annotations

import random

import pytest

from tests.helpers import chaos, commands

SIGNALS = 2


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    return chaos.prepare(tmp_path_factory.mktemp("chaos") / "given")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", chaos.CASES, ids=lambda case: case.name)
def test_a_disturbed_command_comes_to_the_same(case, given, tmp_path, monkeypatch):
    report = chaos.Report()
    calm = tmp_path / "undisturbed"
    monkeypatch.setenv("NHZOO_CACHE", str(calm / "cache"))
    done = commands.run(*case.words(given, calm))
    assert done.returncode == 0, done.stderr
    expected = chaos.promised(case, calm)
    assert expected
    draw = random.Random(case.name)
    chaos.disturb(case, given, tmp_path, SIGNALS, draw, expected, report, first=4.0)
    assert not report.wrong
    assert sum(report.sent.values()) == SIGNALS
