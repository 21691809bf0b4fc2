"""A board's agents against each other: the matrix of its best, and one game side by side."""

from __future__ import annotations

import json
import re

import pytest

from nhzoo import evaluate
from nhzoo.envs.protocols import get_protocol
from nhzoo.evaluation.matrix import compare_all
from nhzoo.leaderboard.board import Board
from nhzoo.leaderboard.site import pairs
from nhzoo.leaderboard.site.builder import build_board
from tests.evaluation.test_comparison import write
from tests.leaderboard.site.test_site import (
    board_row,
    played,  # noqa: F401
    view,  # noqa: F401
)
from tests.publishing.test_report import (
    axe_violations,
    browser,  # noqa: F401
    until,
)

SMOKE = get_protocol("smoke-v1")


@pytest.fixture(scope="module")
def site(played, tmp_path_factory):  # noqa: F811
    """Two agents with the keys of their games; their scores are said, as a board would."""
    other = tmp_path_factory.mktemp("pairs") / "random"
    evaluate("random", SMOKE, episodes=4, workers=1, out=other, batch=4)
    rows = [
        board_row(folder, name, mean, protocol="smoke-v1", rank=rank)
        for rank, (folder, name, mean) in enumerate(
            ((played, "tiny-agent", 10.0), (other, "random", 5.0)), 1
        )
    ]
    out = tmp_path_factory.mktemp("site") / "site"
    build_board(Board(tuple(rows), (), ()), out, workers=1)
    return out


def test_the_matrix_is_that_of_the_comparison(tmp_path):
    scores = {"good": 400, "fair": 200, "fair-too": 190, "poor": 10}
    folders = {
        name: write(tmp_path / name, [mean + (i * 37) % 90 for i in range(60)])
        for name, mean in scores.items()
    }
    lite = get_protocol("monk-lite-v1")
    rows = [board_row(folders[name], name, rank=i + 1) for i, name in enumerate(scores)]
    rows.append(board_row(tmp_path / "gone", "gone", rank=9))  # cannot be read: left out
    found = pairs.pairs_of(rows, lite, {})
    assert found.path == ""
    expected = compare_all(list(folders.values()))
    assert [name for name, _ in found.lines] == [one.label for one in expected.agents]
    win = expected.win(0, 3)
    cell = found.lines[0][1][3]
    assert cell["share"] == f"{100 * win.estimate:.0f}" and cell["better"] == "wins"
    assert found.lines[3][1][0]["better"] == "loses" and found.lines[1][1][1] is None
    assert len(found.rest) == len(expected.unsettled)
    assert pairs.pairs_of(rows[:1], lite, {}) is None


def test_only_the_best_rows_are_compared():
    rows = [board_row(None, f"agent-{i}", rank=i + 1) for i in range(pairs.MOST + 5)]
    rows.insert(0, board_row(None, "said", rank=None))
    chosen = pairs.best(rows, get_protocol("monk-lite-v1"))
    assert [row.agent for row in chosen] == [f"agent-{i}" for i in range(pairs.MOST)]


def test_the_protocols_page_has_the_matrix_and_leads_to_the_games(site):
    text = (site / "protocols" / "smoke-v1.html").read_text()
    assert "Who beats whom" in text and "1 tiny-agent" in text
    assert 'href="../protocols/smoke-v1-beside.html"' in text
    assert "Who beats whom" not in (site / "protocols" / "monk-v1.html").read_text()
    page = (site / "protocols" / "smoke-v1-beside.html").read_text()
    games = json.loads(re.search(r'id="beside-casts">(.*?)</script>', page, re.S)[1])
    assert [one["game"] for one in games] == [0, 0]
    for one in games:
        assert (site / "protocols" / one["src"]).is_file()
    # Game 0 is among those of the agents' own pages.
    for name in ("tiny-agent", "random"):
        assert 'data-game="0"' in (site / "agents" / f"{name}.html").read_text()


@pytest.mark.slow
@pytest.mark.browser
def test_two_games_are_read_from_their_files(view, site, browser):  # noqa: F811
    tab = view("protocols/smoke-v1-beside.html")
    until(tab, lambda: tab.get_attribute("#beside", "data-ready") == "0-1")
    assert int(tab.get_attribute("#beside", "data-first")) > 0
    tab.select_option("#beside-choice-0", "1")
    until(tab, lambda: tab.get_attribute("#beside", "data-ready") == "1-1")
    assert "No difference" in tab.text_content("#beside-first-difference")
    for name in ("smoke-v1", "smoke-v1-beside"):
        tab = browser.new_page(bypass_csp=True, viewport={"width": 390, "height": 844})
        tab.goto((site / "protocols" / f"{name}.html").as_uri())
        assert axe_violations(tab) == []
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        tab.close()
