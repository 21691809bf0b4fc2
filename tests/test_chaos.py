"""A few signals at random moments; `python -m tests.chaos --signals 200` sends many."""

from __future__ import annotations

import random

import pytest

from tests import chaos


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    return chaos.prepare(tmp_path_factory.mktemp("chaos") / "given")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", chaos.CASES, ids=lambda case: case.name)
def test_a_disturbed_command_comes_to_the_same(case, given, tmp_path):
    report = chaos.Report()
    expected = chaos.undisturbed(case, given, tmp_path / "undisturbed")
    draw = random.Random(case.name)
    chaos.disturb(case, given, tmp_path, 3, draw, expected, report)
    assert not report.wrong
    assert sum(report.sent.values()) == 3
