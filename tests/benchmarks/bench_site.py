"""The site: how long it takes to build, to show its first table, to sort and filter 1,000 rows.

make bench    # or: pytest tests/benchmarks/bench_site.py
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from nhzoo.envs.protocols import PROTOCOLS
from nhzoo.leaderboard.board import Board
from nhzoo.leaderboard.site.builder import build, build_board, server
from tests import ROOT
from tests.leaderboard.site.test_site import made_up, thousand  # noqa: F401
from tests.publishing.test_report import browser  # noqa: F401

HEAD = "table.board thead button"
FIRST_TABLE = """new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {
  const table = document.querySelector('table.board');
  done(table.getBoundingClientRect().height && performance.now()); })))"""
SORT = """button => new Promise(done => { const began = performance.now(); button.click();
  document.body.offsetHeight;
  requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - began))); })"""
FILTER = """(input, words) => new Promise(done => { const began = performance.now();
  input.value = words; input.dispatchEvent(new Event('input', { bubbles: true }));
  document.body.offsetHeight;
  requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - began))); })"""


def looked_at(browser, site: Path) -> dict[str, float]:  # noqa: F811
    """Milliseconds in Chromium, from a server on this machine; best of three."""
    running = server(site)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    found: dict[str, list[float]] = {}
    for _ in range(3):
        tab = browser.new_page(viewport={"width": 1280, "height": 900}, bypass_csp=True)
        tab.goto(f"http://127.0.0.1:{running.server_port}/index.html")
        found.setdefault("first table shown, ms", []).append(tab.evaluate(FIRST_TABLE))
        button = tab.locator(HEAD).nth(2)
        found.setdefault("sorted, ms", []).append(button.evaluate(SORT))
        words = tab.get_by_label("Find").evaluate(FILTER, "7")
        found.setdefault("filtered, ms", []).append(words)
        tab.close()
    running.shutdown()
    running.server_close()
    return {name: min(values) for name, values in found.items()}


@pytest.mark.browser
def test_a_thousand_rows(browser, made_up, tmp_path, note):  # noqa: F811
    began = time.perf_counter()
    built = build_board(Board(tuple(thousand(made_up)), (), ()), tmp_path / "s", workers=1)
    values = {"built, s": time.perf_counter() - began, **looked_at(browser, tmp_path / "s")}
    values |= {"index.html, kB": (tmp_path / "s/index.html").stat().st_size / 1e3}
    values |= {"all pages, kB": built.page_bytes / 1e3}
    note("1,000 synthetic rows", values, "")


@pytest.mark.browser
def test_this_repository(browser, tmp_path, note):  # noqa: F811
    began = time.perf_counter()
    built = build(ROOT / "leaderboard", tmp_path / "s", ROOT / "agents", ROOT / "training")
    first = time.perf_counter() - began
    began = time.perf_counter()
    build(ROOT / "leaderboard", tmp_path / "s", ROOT / "agents", ROOT / "training")
    values = {"built, s": first, "built again, s": time.perf_counter() - began}
    values |= looked_at(browser, tmp_path / "s")
    values |= {"all pages, kB": built.page_bytes / 1e3, "games, kB": built.game_bytes / 1e3}
    note(f"this repository, {built.rows} rows, {len(PROTOCOLS)} protocols", values, "")
