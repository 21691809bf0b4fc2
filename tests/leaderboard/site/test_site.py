"""The site: static, whole, the same every time, safe from what it shows, usable in a browser."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import threading
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
import yaml
from jinja2 import UndefinedError

from nhzoo import evaluate
from nhzoo.cli.app import cli
from nhzoo.envs.protocols import PROTOCOLS, get_protocol
from nhzoo.errors import InputError
from nhzoo.evaluation import results
from nhzoo.hub.repos import SITE, kind_of
from nhzoo.leaderboard.board import TIERS, Board, BoardRow, Reference, ranked
from nhzoo.leaderboard.board_log import LogLine
from nhzoo.leaderboard.site import games as site_games
from nhzoo.leaderboard.site.builder import build, build_board, server
from nhzoo.leaderboard.site.documents import from_markdown
from nhzoo.leaderboard.site.games import record, shown_games
from nhzoo.leaderboard.site.page import Scale, templates
from nhzoo.leaderboard.site.scaling import Laws, read_laws
from nhzoo.publishing.report import read
from nhzoo.runtime import files
from nhzoo.scaling.grading import FrozenForecast
from tests import ROOT
from tests.conftest import read_rows
from tests.publishing.test_report import (  # noqa: F401
    HOSTILE,
    axe_violations,
    browser,
    frame,
    opened,
    seek,
    synthetic,
    until,
)

SMOKE = get_protocol("smoke-v1")
DOCUMENTS = {
    "PROTOCOLS.md": "# x\n\n## What is fixed\n\n**All.** See [a file](nhzoo/x.py).\n",
    "SUBMITTING.md": f"# x\n\n{HOSTILE}\n\n```sh\nnhzoo submit DIR\n```\n\n|a|\n|---|\n|1|\n",
}


def summary(mean: float, width: float = 0.1, games: int = 128) -> dict:
    ends = [mean * (1 - width), mean * (1 + width)]
    names = ("median_score", "iqm_score", "std_score", "mean_turns", "mean_steps", "mean_depth")
    more = dict.fromkeys(names, mean) | {"max_depth": 3, "mean_experience_level": 2.0}
    more |= {"mean_progression": 0.02, "ascensions": 0, "crashed": 0}
    return {"episodes": games, "mean_score": mean, "mean_score_ci95": ends, **more}


def board_row(folder: Path, agent: str, mean: float = 100.0, **more) -> BoardRow:
    values = {
        "id": re.sub(r"[^a-z0-9]+", "-", agent.lower()).strip("-") or "x",
        "agent": agent,
        "protocol": "monk-lite-v1",
        "tier": "replayed",
        "status": "listed",
        "reason": "",
        "rank": None,
        "summary": summary(mean),
        "claimed": None,
        "normalized": mean / 10_000,
        "roles": {},
        "params": None,
        "flops": None,
        "samples": None,
        "held_out_loss": None,
        "kind": "bot",
        "date": "2026-11-01",
        "revision": "",
        "sha256": "",
        "contact": "",
        "licence": "",
        "folder": folder,
        "entry": None,
    }
    return BoardRow(**values | more)


@pytest.fixture(scope="module")
def played(shared_entry, tmp_path_factory) -> Path:
    """Four games of the debug-size agent."""
    folder = tmp_path_factory.mktemp("board") / "results" / "tiny-agent" / "smoke-v1"
    evaluate(shared_entry, SMOKE, episodes=4, workers=1, out=folder, batch=4)
    return folder


@pytest.fixture(scope="module")
def made_up(tmp_path_factory) -> Path:
    """Games that nobody played, with a hostile cause."""
    games = [{"score": 10.0 * k, "cause": f"killed by {HOSTILE}"} for k in range(8)]
    return synthetic(tmp_path_factory.mktemp("made-up") / "result", games, HOSTILE)


@pytest.fixture(scope="module")
def board(played, made_up, shared_entry) -> Board:
    """Every kind of row there is, with hostile words wherever somebody else writes them."""
    learnt = {"kind": "bc", "flops": 1e12, "params": 20_000, "samples": 1e6, "held_out_loss": 0.6}
    rows = [
        board_row(played, "tiny-agent", 1_400.0, entry=shared_entry, **learnt),
        board_row(made_up, "big", 1_500.0, **learnt | {"flops": 1e13, "params": 1_000_000}),
        board_row(made_up, "expert", 9_000.0),
        board_row(made_up, "rescored", 50.0, status="rescored", claimed=summary(77.0),
                  reason=f"counted twice {HOSTILE}"),
        board_row(made_up, "all-roles", 300.0, protocol="allroles-v1", roles={
            "Val": {"games": 5, "mean_progression": 0.1} | summary(500.0),
            "Tou": {"games": 3, "mean_progression": 0.1} | summary(20.0),
        }),
        board_row(made_up, "other-roles", 100.0, protocol="allroles-v1", roles={
            "Tou": {"games": 3, "mean_progression": 0.1} | summary(90.0),
        }),
    ]  # fmt: skip
    placed = ranked(rows, "monk-lite-v1") + ranked(rows, "allroles-v1")
    placed += [
        board_row(made_up, HOSTILE, 1e6, id="hostile", tier="reported", contact=HOSTILE,
                  licence=HOSTILE, revision=HOSTILE, date=HOSTILE),
        board_row(made_up, "removed", 2e6, status="removed", reason=HOSTILE),
    ]  # fmt: skip
    reference = Reference(
        HOSTILE, "mean score", 5_218.0, "", "1,024", HOSTILE, HOSTILE, "javascript:0", ""
    )
    log = tuple(
        LogLine(
            i, "2026-11-01T00:00:00Z", event, row, HOSTILE, {"tier": HOSTILE}, "0" * 64, "1" * 64
        )
        for i, (event, row) in enumerate([("accept", "big"), ("remove", "removed"), ("commit", "")])
    )
    return Board(tuple(placed), (reference,), log)


@pytest.fixture(scope="module")
def site(board, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site") / "site"
    build_board(board, out, documents=DOCUMENTS, workers=1)
    return out


class Links(HTMLParser):
    """Every tag of a page, its ids and where its links lead."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.feed(path.read_text("utf-8"))
        self.ids = [a["id"] for _, a in self.tags if "id" in a]

    def handle_starttag(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes)
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words.append(data)

    def leads_to(self) -> list[str]:
        return [a[n] for _, a in self.tags for n in ("href", "src") if n in a]


def pages(site: Path) -> list[Path]:
    """All pages but the one that plays entries of the hub, which asks it: see test_play_page."""
    assert (site / "play.html").is_file()
    return sorted(set(site.rglob("*.html")) - {site / "play.html"})


def test_every_link_leads_somewhere_and_nothing_is_asked_of_others(site):
    read_pages = {path: Links(path) for path in pages(site)}
    assert len(read_pages) == 5 + 8 + 4 + 2  # fixed, agents, protocols, roles
    for path, page in read_pages.items():
        assert len(page.ids) == len(set(page.ids)), path
        for link in page.leads_to():
            if link.startswith("https://") or link == "data:,":
                continue
            target, fragment = urldefrag(link)
            full = (path.parent / unquote(target)).resolve() if target else path.resolve()
            assert full.is_file(), f"{path.name}: {link}"
            assert site.resolve() in full.parents
            if fragment:
                assert fragment in read_pages[site / full.relative_to(site.resolve())].ids
        loaded = [a for t, a in page.tags if t in ("script", "img") or (t == "link")]
        assert not any(str(a.get("src", a.get("href", ""))).startswith("http") for a in loaded)


def test_pages_hold_no_markup_from_outside_and_a_strict_policy(site):
    for path in pages(site):
        page = Links(path)
        for tag, attributes in page.tags:
            assert not any(name.startswith("on") or name == "style" for name in attributes)
            assert tag not in ("iframe", "object", "embed", "base", "img")
            assert not str(attributes.get("href", "")).startswith("javascript:")
        policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
        assert "default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy
        inline = [a for t, a in page.tags if t == "script" and "src" not in a]
        assert all(a["type"] == "application/json" for a in inline)
        assert "<script>alert" not in path.read_text()
        assert not {"nan", "inf"} & set(" ".join(page.words).split())
    assert HOSTILE in "".join(Links(site / "agents/hostile.html").words)
    assert HOSTILE in "".join(Links(site / "index.html").words)


def test_what_is_not_ranked_stays_visible_with_its_reason(site):
    text = (site / "index.html").read_text()
    rows = re.findall(r"<tr data-kind.*?</tr>", text, re.S)
    by_status = {s: [r for r in rows if f'data-status="{s}"' in r] for s in ("removed", "rescored")}
    assert len(rows) == 8
    (gone,), (changed,) = by_status["removed"], by_status["rescored"]
    assert "Removed:" in gone and "alert(1)" in gone and 'class="gone"' in gone
    assert "Rescored; first 77:" in changed and "counted twice" in changed
    assert rows[-1] is gone or rows.index(gone) > rows.index(changed)
    order = [re.search(r"agents/([\w-]+)\.html", row)[1] for row in rows]
    assert order == [
        "all-roles",
        "other-roles",
        "expert",
        "big",
        "tiny-agent",
        "rescored",
        "hostile",
        "removed",
    ]
    reported = next(row for row in rows if "agents/hostile" in row)
    assert '<td data-value="">' in reported.partition("<th")[0]
    assert all(f'id="tier-{tier}"' in text for tier in TIERS)
    assert "rescored, to 50" in "".join(Links(site / "agents/rescored.html").words)
    assert "removed from the board" in "".join(Links(site / "agents/removed.html").words)


def test_roles_have_boards_of_their_own(site):
    tourists = (site / "protocols/allroles-v1-tou.html").read_text()
    order = re.findall(r'<th scope="row"><a href="\.\./agents/([\w-]+)', tourists)
    assert order == ["other-roles", "all-roles"]
    valkyries = (site / "protocols/allroles-v1-val.html").read_text()
    assert "other-roles" not in valkyries


def test_the_same_board_gives_the_same_bytes_and_games_are_kept(board, site, monkeypatch):
    before = {p: p.read_bytes() for p in site.rglob("*") if p.is_file()}
    (site / "agents" / "old.html").write_text("left by an earlier build")
    (site / "agents" / "games" / "old").mkdir()
    (site / "agents" / "games" / "old" / "1.js").write_text("the same")
    monkeypatch.setattr(
        site_games, "run_items", lambda task, args, items, workers: iter(items and 1 / 0)
    )
    built = build_board(board, site, documents=DOCUMENTS, workers=1)
    assert {p: p.read_bytes() for p in site.rglob("*") if p.is_file()} == before
    assert built.page_bytes + built.game_bytes == sum(map(len, before.values()))
    assert built.games > 0 and not built.missing


def test_other_folders_are_not_touched(board, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        build_board(board, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_games_are_chosen_by_the_rule(tmp_path):
    deaths = ["killed by a newt"] * 3 + ["killed by a jackal"] * 2 + ["died of starvation"] * 2
    folder = synthetic(
        tmp_path / "r", [{"score": 10.0 * k, "cause": c, "steps": 5} for k, c in enumerate(deaths)]
    )
    rows = [row | {"keys": 5} for row in read_rows(folder)]
    files.atomic_write(folder / "episodes.jsonl", files.dump_jsonl(rows))
    for index in range(7):
        results.write_trace(folder, index, b"qqqqq")
    found = {one.row["index"]: one.label for one in shown_games("x", read(folder))}
    assert found == {6: "Best", 3: "Median", 0: "Worst", 1: "Typical death (newt)"}
    results.trace_path(folder, 6).unlink()
    assert 6 not in {one.row["index"] for one in shown_games("x", read(folder))}


def test_a_game_that_cannot_be_shown_does_not_stop_the_site(played, made_up, tmp_path):
    folder = Path(shutil.copytree(played, tmp_path / "r"))
    rows = read_rows(folder)
    best = max(rows, key=lambda row: (row["score"], -row["index"]))
    best["score"] += 1
    files.atomic_write(folder / "episodes.jsonl", files.dump_jsonl(rows))
    board = Board((board_row(folder, "liar", sha256="f" * 64),), (), ())
    built = build_board(board, tmp_path / "site", workers=1)
    assert len(built.missing) == 1 and "score" in built.missing[0]
    text = (tmp_path / "site/agents/liar.html").read_text()
    assert f"Game {best['index']} cannot be shown" in text
    recorded = record(shown_games("y", read(made_up)), tmp_path / "site", 1)
    assert recorded == []


def test_long_games_are_thinned_and_the_page_says_so(played, tmp_path, monkeypatch):
    monkeypatch.setattr(site_games, "TOTAL", 80_000)  # 20,000 bytes each, the least

    def here(task, args, items, workers):
        return [(key, task(*args).work(item)) for key, item in items]

    monkeypatch.setattr(site_games, "run_items", here)
    monkeypatch.setattr(site_games, "MAX_STEPS", 60)
    built = build_board(Board((board_row(played, "tiny"),), (), ()), tmp_path / "s")
    assert built.games and built.game_bytes < 4 * 30_000
    text = (tmp_path / "s/agents/tiny.html").read_text()
    assert "Shown are steps 0 to 15 and" in text


def forecast(name: str, status: str, **more) -> FrozenForecast:
    """As far as the site looks at one."""
    from types import SimpleNamespace

    from nhzoo.scaling.intervals import LawInterval

    said = SimpleNamespace(
        flops=5e12, params=100_000, samples=10**7, loss=LawInterval(0.5, 0.45, 0.55),
        ret=LawInterval(1_000.0, 700.0, 1_500.0), created="2026-11-01T00:00:00", sha256="a" * 64,
    )  # fmt: skip
    grade = None
    if status in ("hit", "missed"):
        grade = {"hit": status == "hit", "loss": {"observed": 0.52}, "return": {"observed": 900.0}}
    return FrozenForecast(name, said, "later" if status == "superseded" else None, grade)  # type: ignore[arg-type]


def test_forecasts_stand_in_the_ledger_and_the_charts(board, tmp_path):
    kinds = ("open", "hit", "missed", "superseded")
    laws = Laws(forecasts=[forecast(f"f-{kind}-{HOSTILE}", kind) for kind in kinds])
    build_board(replace(board, rows=board.rows[2:4]), tmp_path / "s", laws, workers=1)
    text = (tmp_path / "s/scaling.html").read_text()
    for kind in kinds:
        assert f'<b class="status-{kind}">' in text
        assert f'<g class="mark {kind}">' in text
    assert text.count('<g class="mark came">') >= 4
    assert "0.500 [0.450, 0.550]" in text and "<td>0.520</td>" in text and "<td>900</td>" in text
    assert "superseded before it was graded</b> (by later)" in text


def test_laws_are_read_where_they_are_and_damaged_ones_left_out(tmp_path, capsys):
    (tmp_path / "fits").mkdir()
    (tmp_path / "fits" / "fit.json").write_text('{"schema": 1, "sha256": "no"}')
    (tmp_path / "forecasts" / "one").mkdir(parents=True)
    (tmp_path / "forecasts" / "one" / "forecast.json").write_text("{")
    assert read_laws(tmp_path, None, None) == Laws()
    said = capsys.readouterr().err
    assert "fit.json" in said and "forecast.json" in said


@pytest.mark.slow
def test_the_papers_points_are_only_there_when_asked_for(board, tmp_path):
    paper = tmp_path / "published"
    paper.mkdir()
    rows = ["run_id,params,samples,flops,loss,mean_return", "theirs,30000000,1000,1e15,0.4,2000"]
    (paper / "nethack_isoflop.csv").write_text("\n".join(rows) + "\n")
    for out, published in ((tmp_path / "with", paper), (tmp_path / "without", None)):
        build_board(board, out, read_laws(tmp_path, None, published), workers=1)
    assert "theirs" in (tmp_path / "with/scaling.html").read_text()
    assert "theirs" not in (tmp_path / "with/index.html").read_text()
    for path in pages(tmp_path / "without"):
        assert "theirs" not in path.read_text() and "no licence" not in path.read_text()


def test_the_scale_of_intervals_has_room_and_keeps_order():
    scale = Scale.of([summary(m) for m in (0.0, 3.0, 900.0, 15_000.0)])
    places = [scale.at(score) for score in (-5, 0, 3, 900, 15_000, 16_500, 1e9)]
    assert places == sorted(places) and places[0] == 0 and places[-1] == 1
    ticks = scale.ticks()
    assert ticks[0] == 0 and len(ticks) >= 3
    assert all(scale.at(b) - scale.at(a) >= 0.15 for a, b in pairwise(ticks))
    assert Scale.of([]).ticks()[0] == 0


def test_markdown_is_text_with_a_little_structure():
    source = (
        "# Title\n\nA <b>word</b> [in](docs/x.md) [out](https://example.org) [bad](javascript:x)\n"
        "\n"
        "![pixel](https://example.org/x.png)\n\n## One\n\n|a|\n|---|\n|1|\n\n## Two\n\n`code`\n"
    )
    html = from_markdown(source)
    assert "Title" not in html and "<b>" not in html and "<img" not in html
    assert 'href="https://example.org"' in html and "docs/x.md" not in html
    assert '<th scope="col"' in html
    assert not re.search(r'href="(?!https)', html)
    two = from_markdown(source, ("Two",))
    assert "code" in two and "One" not in two and "word" not in two


def test_a_heading_in_a_block_of_code_begins_no_section():
    source = "## One\n\n```\n## Two\n```\n\nlast\n\n## Three\n"
    html = from_markdown(source, ("One",))
    assert "<code>## Two\n</code>" in html and "last" in html and "Three" not in html


def test_what_is_put_into_a_page_is_text_and_nothing_is_forgotten():
    made = templates().from_string('<p title="{{ x }}">{{ x }}</p>')
    assert made.render(x="<b>'\x1b\"") == '<p title="&lt;b&gt;&#39;?&#34;">&lt;b&gt;&#39;?&#34;</p>'
    with pytest.raises(UndefinedError):
        templates().get_template("submit.html").render(path="submit.html", root="")


def test_what_a_page_says_to_load_is_python_that_asks_for_games_there_are(site):
    page = (site / "agents/tiny-agent.html").read_text()
    code = unescape(re.search(r"<code>(import nhzoo.*?)</code>", page, re.S)[1])
    calls = {call.func.attr: call for call in ast.walk(ast.parse(code)) if is_method(call)}
    assert [ast.literal_eval(argument) for argument in calls["load"].args] == ["tiny-agent"]
    asked = {keyword.arg: ast.literal_eval(keyword.value) for keyword in calls["evaluate"].keywords}
    assert asked["episodes"] == SMOKE.games == 8


def is_method(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)


def test_a_command_of_others_is_only_ever_a_training():
    from nhzoo.leaderboard.site.agents import _training_command

    def shown(made: object) -> str:
        return _training_command({"training": {"command": made}})

    assert shown("nhzoo train bc --description 'a b'") == "nhzoo train bc --description 'a b'"
    assert shown("nhzoo train bc; rm -rf ~") == "nhzoo train 'bc;' rm -rf '~'"
    for made in (
        "rm -rf ~",
        "nhzoo push x",
        "nhzoo train 'open",
        7,
        None,
        "nhzoo train " + "x" * 9_999,
    ):
        assert shown(made) == ""


def test_the_site_holds_only_what_the_hub_takes(site):
    paths = [path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()]
    assert all(SITE.limit(path) for path in paths)
    with pytest.raises(InputError, match="hf://spaces"):  # so that none is pushed by mistake
        kind_of(site)


def test_the_workflow_builds_without_secrets_and_deploys_from_main_alone():
    path = ROOT / ".github" / "workflows" / "leaderboard.yml"
    jobs = yaml.safe_load(path.read_text())["jobs"]
    steps = [step.get("run", "") for step in jobs["build"]["steps"]]
    assert "nhzoo leaderboard build --out leaderboard/site" in steps
    assert "secrets" not in str(jobs["build"]) and "refs/heads/main" in jobs["deploy"]["if"]
    pushed = shlex.split(jobs["deploy"]["steps"][-1]["run"])
    assert pushed[:4] == ["nhzoo", "push", "leaderboard/site", "--repo"]
    assert pushed[4].startswith("hf://spaces/")


def test_an_empty_board_has_a_site(tmp_path):
    built = build_board(Board((), (), ()), tmp_path / "s")
    assert built.rows == 0 and (tmp_path / "s/index.html").is_file()
    assert "no result yet" in (tmp_path / "s/index.html").read_text()
    with pytest.raises(InputError, match=r"no index\.html"):
        server(tmp_path)


def test_the_command_builds_from_a_leaderboards_folder(made_up, tmp_path):
    from click.testing import CliRunner

    leaderboard = tmp_path / "leaderboard"
    shutil.copytree(made_up, leaderboard / "results" / "made-up" / "smoke-v1")
    arguments = ["--out", tmp_path / "s", "--results", leaderboard, "--agents", tmp_path / "none"]
    ran = CliRunner().invoke(cli, ["leaderboard", "build", *map(str, arguments), "--json"])
    assert ran.exit_code == 0, ran.output
    document = json.loads(ran.stdout)
    assert document["rows"] == 1 and document["games"] == 0
    assert (tmp_path / "s" / "agents" / "made-up-smoke-v1.html").is_file()
    with pytest.raises(InputError, match="no such folder"):
        build(tmp_path / "nowhere", tmp_path / "t")


# --- in a browser ---------------------------------------------------------------------------------


@pytest.fixture
def view(browser, site):  # noqa: F811
    """Opens pages of the site, which may ask for nothing but its files."""
    with opened(browser) as open_page:

        def open_part(path: str, width: int = 1280, scheme: str = "light", base: str = ""):
            own = base or site.as_uri() + "/"
            return open_page(own + path, own, width, scheme)

        yield open_part


def column(tab, board: str, number: int) -> list[str]:
    read_cell = f"rows => rows.filter(r => !r.hidden).map(r => r.cells[{number}].textContent)"
    return tab.eval_on_selector_all(f"section:has(> #board-{board}) tbody tr", read_cell)


@pytest.mark.browser
def test_boards_sort_by_every_column(view):
    tab = view("index.html")
    heads = tab.locator("section:has(> #board-monk-lite-v1) thead th")
    assert heads.count() == 13
    for i in range(heads.count()):
        button = heads.nth(i).locator("button")
        button.press("Enter")
        first = heads.nth(i).get_attribute("aria-sort")
        button.click()
        assert {first, heads.nth(i).get_attribute("aria-sort")} == {"ascending", "descending"}
        assert tab.locator("section:has(> #board-monk-lite-v1) th[aria-sort]").count() == 1
    score = heads.nth(2)
    score.locator("button").click()
    order = [name.split()[0] for name in column(tab, "monk-lite-v1", 1)]
    assert [n[:5] for n in order[:3]] == ["remov", "<scri", "exper"]
    params = heads.nth(8)
    assert params.inner_text() == "Parameters"
    for _ in range(2):  # what is not known is last, whichever way
        params.locator("button").click()
        assert column(tab, "monk-lite-v1", 9)[-1] == "–"
        assert "–" not in column(tab, "monk-lite-v1", 9)[:2]


@pytest.mark.browser
def test_boards_are_filtered(view):
    tab = view("index.html")
    said = tab.locator(".filters output")
    assert said.inner_text() == "8 of 8 rows shown"
    tab.get_by_label("Find").fill("tiny")
    assert said.inner_text() == "1 of 8 rows shown"
    assert len(column(tab, "monk-lite-v1", 1)) == 1
    tab.get_by_role("button", name="Clear").click()
    tab.get_by_label("Kind").select_option("bc")
    assert said.inner_text() == "2 of 8 rows shown"
    tab.get_by_label("Parameters, at most").select_option("100000")
    assert said.inner_text() == "1 of 8 rows shown"
    tab.get_by_role("button", name="Clear").click()
    tab.get_by_label("Tier, at least").select_option("1")
    assert said.inner_text() == "7 of 8 rows shown"
    tab.get_by_label("Removed rows").uncheck()
    assert said.inner_text() == "6 of 8 rows shown"
    tab.get_by_label("Find").fill("alert(1)")  # a reason is found as well
    assert said.inner_text() == "1 of 8 rows shown"
    tab.get_by_label("Find").fill("no such thing")
    assert said.inner_text() == "0 of 8 rows shown"


@pytest.mark.browser
def test_what_a_tier_means_is_one_tap_away(view):
    tab = view("index.html", width=390)
    meaning = tab.locator("#tier-replayed + dd")
    assert not meaning.is_visible()
    tab.locator("tbody a[href='#tier-replayed']").first.click()
    until(tab, meaning.is_visible)


@pytest.mark.browser
@pytest.mark.parametrize("served", [False, True], ids=["from a disk", "served"])
def test_games_are_played_from_their_own_files(view, site, played, served):
    running = server(site) if served else None
    if running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{running.server_port}/" if running else ""
    try:
        tab = view("agents/tiny-agent.html", base=base)
        assert tab.locator("script[src*='games/']").count() <= 1  # the others wait
        rows = {row["index"]: row for row in read_rows(played)}
        for button in tab.locator(".choices [data-game]").all():
            game = int(button.get_attribute("data-game"))
            button.click()
            tab.wait_for_selector(f"#player[data-ready='{game}']")
            last = int(tab.get_attribute("#seek", "max"))
            assert last == rows[game]["steps"]
            seek(tab, last // 2)
            assert frame(tab) == last // 2
            tab.click("#last")
            assert frame(tab) == last
            assert f"Step {rows[game]['steps']:,} of" in tab.inner_text("#status")
        tab.click("#first")
        tab.select_option("#speed", "200")
        tab.click("#play")
        until(tab, lambda: frame(tab) > 20)
        tab.click("#play")
        assert tab.locator("#screen .c7, #screen .c15").count() > 0
    finally:
        if running:
            running.shutdown()
            running.server_close()


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_pages_fit_and_axe_finds_nothing(browser, site, width, scheme):  # noqa: F811
    tab = browser.new_page(
        viewport={"width": width, "height": 844}, color_scheme=scheme, bypass_csp=True
    )
    for path in pages(site):
        tab.goto(path.as_uri())
        if "tiny" in path.name:
            tab.wait_for_selector("#player[data-ready]")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, path.name
        tab.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert axe_violations(tab) == [], path.name
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, path.name
    tab.close()


@pytest.mark.browser
def test_no_page_complains_or_asks_anything_of_others(view, site):
    for path in pages(site):
        view(path.relative_to(site).as_posix()).close()


@pytest.mark.browser
def test_the_keyboard_reaches_what_the_pointer_does(view):
    tab = view("index.html")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    seen = []
    for _ in range(40):
        tab.keyboard.press("Tab")
        seen.append(tab.evaluate("document.activeElement.outerHTML.slice(0, 60)"))
        outline = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", seen[-1]
    joined = " ".join(seen)
    for needed in ('name="find"', 'name="kind"', "board-box", "agents/"):
        assert needed in joined


@pytest.mark.browser
@pytest.mark.slow
def test_a_thousand_rows_stay_usable(browser, made_up, tmp_path):  # noqa: F811
    """Structure only; `tests/benchmarks/bench_site.py` says how long it takes."""
    rows = thousand(made_up)
    built = build_board(Board(tuple(rows), (), ()), tmp_path / "s", workers=1)
    assert built.rows == 1_000 and len(pages(tmp_path / "s")) == built.pages
    assert (tmp_path / "s/index.html").stat().st_size < 1_500_000
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.goto((tmp_path / "s/index.html").as_uri())
    body = "section:has(> #board-monk-lite-v1) tbody tr"
    assert tab.locator(body).count() == 1_000
    tab.locator("section:has(> #board-monk-lite-v1) thead button").nth(2).click()
    scores = tab.eval_on_selector_all(
        body, "rows => rows.map(r => Number(r.cells[2].dataset.value))"
    )
    assert scores == sorted(scores, reverse=True)
    tab.get_by_label("Find").fill("agent-77")
    assert tab.locator(".filters output").inner_text() == "11 of 1,000 rows shown"
    tab.close()


def thousand(folder: Path) -> list[BoardRow]:
    """1,000 rows of agents that are not there."""
    rows = []
    for k in range(1_000):
        learnt = {"params": 10_000 * (1 + k), "flops": 1e12 * (1 + k), "samples": 1e6 * (1 + k)}
        learnt |= {"held_out_loss": 0.4 + 0.3 / (1 + k), "kind": ("bc", "rl")[k % 2]}
        more = learnt if k % 3 else {}
        more |= {"tier": TIERS[1 + k % 3], "revision": f"{k:040x}", "sha256": f"{k:064x}"}
        rows.append(board_row(folder, f"agent-{k}", 10.0 + (k * 7919) % 5_000, **more))
    return ranked(rows, "monk-lite-v1")


@pytest.mark.slow
def test_every_protocol_has_a_page(site):
    assert {p.stem for p in (site / "protocols").glob("*.html")} >= set(PROTOCOLS)
