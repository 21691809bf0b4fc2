"""Reports: recordings that show the real game, and a page that needs nothing but itself."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from contextlib import contextmanager
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import numpy as np
import pyte
import pytest

from nhzoo import evaluate
from nhzoo.envs.actions import TTY
from nhzoo.envs.game import Episode, EpisodeResult, Game
from nhzoo.envs.protocols import get_protocol
from nhzoo.envs.terminal import Painter
from nhzoo.errors import CheckFailed, InputError
from nhzoo.evaluation import results
from nhzoo.publishing import asciicast, charts
from nhzoo.publishing.asciicast import MAX_STEPS, Cast, CastItem, CastTask, windows_of
from nhzoo.publishing.report import choose_games, write_report
from nhzoo.runtime import files
from tests.conftest import read_rows

SMOKE = get_protocol("smoke-v1")
HOSTILE = "<script>alert(1)</script>\"'&"


@pytest.fixture(scope="module")
def played(shared_entry, tmp_path_factory) -> Path:
    """Three games of the debug-size agent. Tests that damage it work on a copy."""
    folder = tmp_path_factory.mktemp("reported") / "result"
    evaluate(shared_entry, SMOKE, episodes=3, workers=1, out=folder, batch=3)
    return folder


@pytest.fixture(scope="module")
def page(played, tmp_path_factory) -> Path:
    return write_report(played, tmp_path_factory.mktemp("page") / "report.html", workers=1)


@pytest.fixture
def copied(played, tmp_path) -> Path:
    return Path(shutil.copytree(played, tmp_path / "result"))


def screens(folder: Path, row: dict) -> list[list[str]]:
    """The game's screens as text, from replaying it here; the last is before closing screens."""
    game = Game(TTY)
    episode = Episode(game)
    episode.start(SMOKE.game(row["index"]), SMOKE.step_cap, SMOKE.no_progress)
    keys = results.read_trace(folder, row["index"])[len(game.keys) :]
    seen = [shown(game)]
    for key in keys:
        game.step(key)
        seen.append(shown(game))
    game.close()
    return seen


def shown(game: Game) -> list[str]:
    lines = (bytes(line).decode("latin-1") for line in game.observation["tty_chars"])
    return ["".join(char if " " <= char < "\x7f" else " " for char in line) for line in lines]


def record_cast(folder, row, agent="agent", max_steps=MAX_STEPS) -> Cast:
    cast = CastTask(max_steps).work(CastItem(folder, SMOKE, False, agent, row))
    assert isinstance(cast, Cast), cast
    return cast


def events(text: str) -> list[list]:
    return [json.loads(line) for line in text.splitlines()[1:]]


def on_a_terminal(text: str) -> list[list[str]]:
    """What a terminal emulator shows after each output of a recording."""
    screen = pyte.Screen(80, 24)
    stream = pyte.Stream(screen)
    seen = []
    for _, kind, data in events(text):
        if kind == "o":
            stream.feed(data)
            seen.append(list(screen.display))
    return seen


@pytest.mark.slow
def test_a_recording_shows_every_screen_of_the_game(played):
    for row in sorted(read_rows(played), key=lambda row: row["steps"])[:2]:
        cast = record_cast(played, row)
        assert on_a_terminal(cast.text) == screens(played, row)
        assert cast.windows == ((0, row["steps"]),)
        assert cast.steps == row["steps"]


def test_colours_and_cursor_reach_a_terminal():
    random = np.random.default_rng(0)
    painter, screen = Painter(), pyte.Screen(80, 24)
    stream = pyte.Stream(screen)
    names = {1: "red", 2: "green", 3: "brown", 4: "blue", 5: "magenta", 6: "cyan", 7: "white"}
    chars = np.full((24, 80), 32, np.uint8)
    colors = np.zeros((24, 80), np.int8)
    for _ in range(30):
        where = random.random((24, 80)) < 0.1
        chars[where] = random.integers(0, 256, where.sum())
        colors[where] = random.integers(0, 32, where.sum())
        cursor = np.array([random.integers(24), random.integers(80)], np.uint8)
        stream.feed(painter.draw(chars, colors, cursor))
        assert (screen.cursor.y, screen.cursor.x) == tuple(cursor)
        for y in range(24):
            for x in range(80):
                cell, color = screen.buffer[y][x], int(colors[y, x])
                plain = chr(chars[y, x]) if 32 < chars[y, x] < 127 else " "
                assert cell.data == plain
                assert cell.reverse == bool(color & 16)
                if plain != " " and 0 < color & 15 < 8:
                    assert cell.fg == names[color & 15]
                elif plain != " ":
                    assert cell.fg.startswith("bright")
        assert painter.draw(chars, colors, cursor) == ""


@pytest.mark.slow
def test_a_recording_is_an_asciicast_with_steps_and_keys(played):
    row = read_rows(played)[0]
    text = record_cast(played, row, agent="tiny").text
    header = json.loads(text.splitlines()[0])
    assert (header["version"], header["width"], header["height"]) == (2, 80, 24)
    assert header["title"] == "tiny on smoke-v1, game 0"
    found = events(text)
    times = [time for time, _, _ in found]
    assert times == sorted(times)
    assert [time for time, kind, _ in found if kind == "o"] == [
        round(step / 8, 3) for step in range(row["steps"] + 1)
    ]
    typed = [data for _, kind, data in found if kind == "i"]
    keys = results.read_trace(played, 0)[-row["steps"] :]
    assert typed == [asciicast.key_bytes(key) for key in keys]
    names = header["nhzoo"]["keys"]
    assert [names[data] for data in typed] == [asciicast.key_name(key) for key in keys]
    scores = header["nhzoo"]["scores"]
    assert scores[0] == [0, 0]
    assert scores[-1][1] == row["score"]
    assert [data for _, kind, data in found if kind == "m"][-1] == asciicast.end_text(row)


@pytest.mark.slow
def test_a_recording_is_the_same_every_time(played):
    row = read_rows(played)[1]
    first, second = (record_cast(played, row) for _ in range(2))
    assert first == second
    assert first.packed == second.packed


@pytest.mark.slow
def test_a_long_game_keeps_its_start_and_its_end(played):
    row = max(read_rows(played), key=lambda row: row["steps"])
    cast = record_cast(played, row, max_steps=80)
    steps = row["steps"]
    assert cast.windows == ((0, 20), (steps - 59, steps))
    everything = screens(played, row)
    assert on_a_terminal(cast.text) == everything[:21] + everything[-60:]
    header = json.loads(cast.text.splitlines()[0])
    assert f"steps 0 to 20 and {steps - 59:,} to {steps:,}" in header["title"]
    assert f"steps 21 to {steps - 60:,} are left out" in [e[2] for e in events(cast.text)]


def test_a_recording_that_is_too_large_is_cut_down(played, monkeypatch):
    row = max(read_rows(played), key=lambda row: row["steps"])
    whole = len(record_cast(played, row).packed)
    monkeypatch.setattr(asciicast, "MAX_PACKED", whole // 2)
    assert len(record_cast(played, row).packed) <= whole // 2


def test_a_game_that_its_agent_gave_up_is_shown_up_to_there(copied):
    game = Game(TTY)
    episode = Episode(game)
    episode.start(SMOKE.game(0), SMOKE.step_cap, SMOKE.no_progress)
    for key in results.read_trace(copied, 0)[len(game.keys) :][:30]:
        episode.step(key)
    episode.result.end_status, episode.result.cause = "crashed", "ValueError:\x1b[2J no"
    results.write_trace(copied, 0, bytes(game.keys))
    row = results.episode_row(SMOKE, 0, episode.result, bytes(game.keys))
    game.close()
    cast = record_cast(copied, row)
    assert cast.steps == 30
    assert events(cast.text)[-1][1:] == ["m", "crashed: ValueError:?[2J no"]
    assert on_a_terminal(cast.text) == screens(copied, row)


def test_windows():
    assert windows_of(5, 10) == ((0, 5),)
    assert windows_of(10, 10) == ((0, 10),)
    assert windows_of(11, 8) == ((0, 2), (6, 11))
    for steps in range(3, 40):
        (_, head), (tail, last) = windows_of(steps, 2)
        assert head < tail <= last == steps
    with pytest.raises(InputError, match="max_steps"):
        windows_of(5, 1)


def test_the_year_of_a_tombstone_is_not_recorded():
    lines = [
        "    /    IN    \\",
        "   |     54 Au     |",
        "   |  newt 2031    |",
        "  |      2026      |  ",
    ]
    rows = np.array([list(line.ljust(80).encode()) for line in lines], np.uint8)
    kept = [bytes(row).decode().rstrip() for row in asciicast._without_year(rows)]
    assert kept[:3] == lines[:3]
    assert kept[3] == "  |                |"


@pytest.mark.parametrize("field", ["score", "turns", "steps", "cause"])
def test_a_game_that_went_otherwise_is_not_shown(copied, field):
    rows = read_rows(copied)
    rows[0][field] = rows[0][field] + (" " if field == "cause" else 1)
    reason = CastTask().work(CastItem(copied, SMOKE, False, "agent", rows[0]))
    assert isinstance(reason, str) and field in reason
    files.atomic_write(copied / "episodes.jsonl", files.dump_jsonl(rows))
    if field == "score":
        with pytest.raises(CheckFailed, match="game 0 cannot be shown"):
            write_report(copied, workers=1)


# --- the page -------------------------------------------------------------------------------------


class Reader(HTMLParser):
    """Notes every tag and attribute of a page, and fails on tags that do not match."""

    VOID = frozenset({"meta", "link", "input", "br", "option"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes)
        self.found.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self._open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def check_page(path: Path) -> Reader:
    """What holds for every page."""
    text = path.read_text("utf-8")
    reader = Reader(text)
    assert len(text) < 1_500_000
    assert not re.search(r"https?:|//cdn|@import|url\(", text)
    for tag, attributes in reader.found:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        assert attributes.get("href", "#")[:1] == "#" or attributes["href"] == "data:,"
        assert "src" not in attributes
        assert tag not in ("iframe", "object", "embed", "form", "base")
    ids = [attributes["id"] for _, attributes in reader.found if "id" in attributes]
    assert [tag for tag, _ in reader.found].count("script") == 1 + ("player" in ids)
    assert ("player" in ids) == ("casts" in ids)
    assert len(ids) == len(set(ids))
    for _, attributes in reader.found:
        for named in ("aria-labelledby", "aria-describedby"):
            assert attributes.get(named, ids[0]) in ids
    assert "nan" not in text.lower().split()
    return reader


def embedded(path: Path) -> list[dict]:
    (text,) = re.findall(
        r'<script type="application/json" id="casts">(.*?)</script>', path.read_text()
    )
    return json.loads(text)


def test_the_page_is_whole_and_the_same_every_time(played, page, tmp_path):
    check_page(page)
    again = write_report(played, tmp_path / "again.html", workers=2)
    assert again.read_bytes() == page.read_bytes()
    summary = json.loads((played / "result.json").read_text())["summary"]
    words = " ".join(Reader(page.read_text()).words)
    assert "tiny-agent" in words
    assert f"{summary['max_depth']}" in words
    assert "smoke-v1" in words
    assert "no: the same command gives the same bytes" in words


def test_the_page_carries_the_recordings(played, page):
    rows = {row["index"]: row for row in read_rows(played)}
    found = embedded(page)
    assert [cast["game"] for cast in found] == list(choose_games(list(rows.values())))
    import base64
    import zlib

    for cast in found:
        text = zlib.decompress(base64.b64decode(cast["data"])).decode()
        assert text == record_cast(played, rows[cast["game"]], agent="tiny-agent").text


def test_games_can_be_named(played, tmp_path):
    seen = []
    path = write_report(
        played, tmp_path / "r.html", games=[2, 0], workers=1, progress=lambda *n: seen.append(n)
    )
    assert [cast["game"] for cast in embedded(path)] == [2, 0]
    assert seen == [(1, 2), (2, 2)]
    with pytest.raises(InputError, match="no game 7"):
        write_report(played, tmp_path / "r.html", games=[7])


def test_it_is_written_into_the_folder(copied):
    assert write_report(copied, games=[0], workers=1) == copied / "report.html"


def synthetic(folder: Path, games: list[dict], agent: str = "made-up", **more) -> Path:
    """A result folder of games that nobody played."""
    base = {"end_status": "death", "turns": 10, "depth": 1, "max_depth": 1, "experience_level": 1}
    rows = []
    for index, game in enumerate(games):
        known_names = EpisodeResult().__dict__.keys() - {"role"}  # which is in rows when drawn
        extra = {name: game[name] for name in game.keys() - known_names}
        known = {name: game[name] for name in game.keys() - extra.keys()}
        row = results.episode_row(SMOKE, index, EpisodeResult(**(base | known)), b"")
        rows.append(row | extra)
    result = {"schema_version": 1, "agent": agent, "protocol": SMOKE.id, **more}
    result["summary"] = results.summarize(rows)
    files.atomic_write(folder / "episodes.jsonl", files.dump_jsonl(rows))
    files.atomic_write(folder / "result.json", files.dump_json(result))
    return folder


CRASH = {"end_status": "crashed", "cause": HOSTILE, "turns": 0, "depth": 0, "max_depth": 0}
ODD = {
    "one game": [{"score": 5.0}],
    "all zero": [{}] * 5,
    "all crashed": [CRASH] * 4,
    "no deaths": [{"end_status": "stalled", "score": 10.0**k} for k in range(7)],
    "below zero": [{"score": -3.0}, {"score": 0.5}, {"score": 4e15}],
    "deep": [{"max_depth": 7 * k, "score": 700.0 * k, "turns": 4**k} for k in range(8)],
    "won": [{"end_status": "ascended", "score": 3e6}],
    "causes": [{"cause": f"killed by {HOSTILE}{k % 20}, while praying"} for k in range(8)],
}


@pytest.mark.parametrize("games", ODD.values(), ids=ODD)
def test_odd_results_are_reported(games, tmp_path):
    folder = synthetic(tmp_path / "result", games, HOSTILE)
    reader = check_page(write_report(folder))
    assert HOSTILE in "".join(reader.words)
    assert "No game has a step to watch" in "".join(reader.words)
    scored = CRASH not in games
    assert len([1 for tag, _ in reader.found if tag == "figure"]) == 3 + scored
    assert ("no score: all of them crashed" in "".join(reader.words)) is not scored


def test_names_from_outside_are_text(tmp_path):
    more = dict.fromkeys(
        ("revision", "device", "batch", "machine", "system", "workers", "params"), HOSTILE
    )
    more["versions"] = {HOSTILE: HOSTILE}
    more["limits"] = {"step_seconds": HOSTILE}
    games = [{"cause": f"\x1b[31m{HOSTILE}", "role": HOSTILE}]
    reader = check_page(write_report(synthetic(tmp_path / "r", games, HOSTILE, **more)))
    assert "\x1b" not in "".join(reader.words)


def test_roles_and_grouped_causes(tmp_path):
    games = [{"role": role, "score": 10.0} for role in ("Valkyrie", "Monk", "Monk")]
    games[0]["cause"], games[1]["cause"] = "killed by a newt", "killed by a newt, while fainted"
    words = Reader(write_report(synthetic(tmp_path / "r", games)).read_text()).words
    text = "|".join(words)
    assert "Monk|2|10|–|" in text
    assert "Valkyrie|1|10" in text
    assert "killed by a newt|2|66.7%" in text
    assert "not known|1|33.3%" in text


def test_what_does_not_fit_together_is_said(tmp_path):
    folder = synthetic(tmp_path / "r", [{"score": 5.0}, {"score": 7.0}])
    result = json.loads((folder / "result.json").read_text())
    result["summary"]["mean_score"] = 1e6
    files.atomic_write(folder / "result.json", files.dump_json(result))
    rows = read_rows(folder)
    rows[1]["index"] = 4
    files.atomic_write(folder / "episodes.jsonl", files.dump_jsonl(rows))
    words = "".join(Reader(write_report(folder).read_text()).words)
    assert "mean_score is 1000000.0; its games give 6.0" in words
    assert "some were left out" in words


def test_a_shard_is_not_short_of_games(tmp_path):
    folder = synthetic(tmp_path / "r", [{"score": 5.0}, {"score": 7.0}], shard="1/2")
    rows = read_rows(folder)
    rows[0]["index"], rows[1]["index"] = 1, 3
    files.atomic_write(folder / "episodes.jsonl", files.dump_jsonl(rows))
    text = "|".join(Reader(write_report(folder).read_text()).words)
    assert "left out" not in text
    assert "Shard|1/2" in text


def test_best_median_and_worst():
    def rows(*scores, **more):
        return [
            {"index": i, "score": s, "keys": 9, "steps": 9} | more for i, s in enumerate(scores)
        ]

    assert choose_games(rows(5, 1, 9, 3)) == {2: "Best", 3: "Median", 1: "Worst"}
    assert choose_games(rows(4, 4, 4)) == {0: "Best", 1: "Median", 2: "Worst"}
    assert choose_games(rows(4, 8)) == {1: "Best", 0: "Median, worst"}
    assert choose_games(rows(4)) == {0: "Best, median, worst"}
    assert choose_games(rows(4, 5, keys=0)) == {}


def test_unusable_results_are_one_line(copied, tmp_path):
    def refused(match: str, kind: type[Exception] = InputError) -> None:
        with pytest.raises(kind, match=match) as caught:
            write_report(copied, workers=1)
        assert "\n" not in str(caught.value)
        assert not (copied / "report.html").exists()

    with pytest.raises(InputError, match="no such result folder"):
        write_report(tmp_path / "nowhere")
    game = next(iter(choose_games(read_rows(copied))))
    trace = copied / "traces" / f"{game}.xz"
    kept = trace.read_bytes()
    trace.write_bytes(kept[:20])
    refused(f"{game}.xz: ")
    trace.unlink()
    refused(f"{game}.xz: no such file")
    trace.write_bytes(files.compress_xz(b"q"))
    refused(f"game {game} cannot be shown", CheckFailed)
    result = (copied / "result.json").read_text()
    for text, match in (("{", "not valid JSON"), ('{"schema_version": 9}', "schema version")):
        (copied / "result.json").write_text(text)
        refused(match)
    (copied / "result.json").unlink()
    refused("no result.json")
    (copied / "result.json").write_text(result)
    (copied / "episodes.jsonl").write_text("")
    refused("lists no game")


def test_every_score_is_in_one_bin():
    random = np.random.default_rng(0)
    for size in (1, 2, 50, 3000):
        scores = np.exp(random.normal(5, 3, size)).round().tolist()
        scores += [0.0, 1.0, 10.0, 10.0**5, 10 ** (7 / 5)][: size % 7]
        scale = charts.LogScale.of(scores)
        bars = scale.bars(scores)
        assert sum(bar.games for bar in bars) == len(scores)
        assert all(0 <= bar.left < bar.right <= 1 + 1e-9 for bar in bars)
        for score in scores:
            place = scale.at(score)
            near = [b for b in bars if b.left - 1e-9 <= place <= b.right + 1e-9]
            assert any(bar.games for bar in near)


def test_steps_of_an_axis_are_round():
    for span, most, step in ((128, 4, 50), (1, 4, 0.5), (7, 4, 2), (26_526, 4, 10_000), (0, 4, 1)):
        assert charts.nice_step(span, most) == pytest.approx(step)


# --- in a browser ---------------------------------------------------------------------------------

_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, from the system."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
    if not found:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=list(_FLAGS))
        yield running
        running.close()


@contextmanager
def opened(browser):
    """Opens addresses; fails when a page complains or asks for what does not begin with `own`."""
    tabs, complaints = [], []

    def open_page(url: str, own: str, width: int, scheme: str):
        tab = browser.new_page(
            viewport={"width": width, "height": 844}, color_scheme=scheme, reduced_motion="reduce"
        )
        tabs.append(tab)
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))
        tab.on("request", lambda r: r.url.startswith((own, "data:,")) or complaints.append(r.url))
        tab.goto(url)
        return tab

    yield open_page
    for tab in tabs:
        tab.close()
    assert complaints == []


@pytest.fixture
def view(browser):
    """Opens a report, which may ask for nothing but itself."""
    with opened(browser) as open_page:

        def open_report(path: Path, width: int = 1200, scheme: str = "light"):
            return open_page(path.as_uri(), path.as_uri(), width, scheme)

        yield open_report


def drawn(tab) -> list[str]:
    return tab.eval_on_selector_all("#screen > div", "lines => lines.map(l => l.textContent)")


def frame(tab) -> int:
    return int(tab.get_attribute("#terminal", "data-frame"))


def until(tab, holds) -> None:
    """Wait for it; the page's policy forbids what the browser's own waiting would evaluate."""
    for _ in range(400):
        if holds():
            return
        tab.wait_for_timeout(25)
    pytest.fail("waited in vain")


def seek(tab, to: int) -> None:
    tab.eval_on_selector(
        "#seek", "(bar, to) => { bar.value = to; bar.dispatchEvent(new Event('input')); }", to
    )


@pytest.mark.slow
@pytest.mark.browser
def test_the_player_shows_the_game(view, page, played):
    tab = view(page)
    rows = {row["index"]: row for row in read_rows(played)}
    for number, cast in enumerate(embedded(page)):
        game = cast["game"]
        if number:
            tab.click(f".choices [data-game='{game}']")
        tab.wait_for_selector(f"#player[data-ready='{game}']")
        expected = screens(played, rows[game])
        last = len(expected) - 1
        for step in (0, 1, last, 5, 201, last // 2, last - 1, 199, 400):
            seek(tab, min(step, last))
            assert frame(tab) == min(step, last)
            assert drawn(tab) == expected[frame(tab)]
        tab.click("#last")
        assert frame(tab) == last
        assert drawn(tab) == expected[last]
        status = tab.inner_text("#status")
        assert f"Step {rows[game]['steps']:,} of {rows[game]['steps']:,}" in status
        assert asciicast.end_text(rows[game]) in status
        assert f"score {rows[game]['score']:,.0f} ·" in status
        keys = results.read_trace(played, game)
        assert tab.inner_text("#key") == asciicast.key_name(keys[-1])
        assert " ".join(expected[last][23].split()) in tab.inner_text("#bottom")


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """The same games by the random agent."""
    folder = tmp_path_factory.mktemp("beside") / "random"
    evaluate("random", SMOKE, episodes=3, workers=1, out=folder, batch=3)
    return folder


def test_two_results_are_shown_side_by_side(played, other, tmp_path):
    text = write_report(played, tmp_path / "page.html", [1], 1, beside=other).read_text()
    casts = json.loads(re.search(r'id="beside-casts">(.*?)</script>', text, re.S)[1])
    assert [cast["game"] for cast in casts] == [1, 1]
    assert [cast["label"].partition(":")[0] for cast in casts] == ["tiny-agent", "random"]
    assert "Side by side: game 1" in text and "firstDifference" in text
    alone = write_report(played, tmp_path / "alone.html", [1], 1).read_text()
    assert "Side by side" not in alone and "firstDifference" not in alone


def test_results_without_a_game_in_common_have_no_side_by_side(played, tmp_path):
    lite = tmp_path / "lite"
    evaluate("random", "monk-lite-v1", episodes=1, workers=1, out=lite)
    with pytest.raises(InputError, match=r"--beside .*lite: played monk-lite-v1, not smoke-v1"):
        write_report(played, tmp_path / "page.html", [1], 1, beside=lite)
    few = tmp_path / "few"
    evaluate("random", SMOKE, episodes=1, workers=1, out=few)
    with pytest.raises(InputError, match=r"--beside .*few: has none of the games 2; name one"):
        write_report(played, tmp_path / "page.html", [2], 1, beside=few)


def lines_of(tab, side: int) -> list[str]:
    lines = tab.eval_on_selector_all(
        f"#beside-screen-{side} > div", "lines => lines.map(l => l.textContent)"
    )
    return [line.rstrip() for line in lines]


@pytest.mark.slow
@pytest.mark.browser
def test_two_games_move_by_one_slider_and_the_first_difference_is_marked(
    view, played, other, tmp_path
):
    rows = [read_rows(folder)[1] for folder in (played, other)]
    keys = [
        results.read_trace(folder, 1)[-row["steps"] :]
        for folder, row in zip((played, other), rows, strict=True)
    ]
    expected = next(i for i, (a, b) in enumerate(zip(*keys, strict=False), 1) if a != b)
    seen = [screens(folder, row) for folder, row in zip((played, other), rows, strict=True)]
    tab = view(write_report(played, tmp_path / "page.html", [1], 1, beside=other))
    until(tab, lambda: tab.get_attribute("#beside", "data-ready") == "0-1")
    assert tab.get_attribute("#beside", "data-first") == str(expected)
    said = tab.text_content("#beside-first-difference")
    assert f"First difference at step {expected}:" in said and "on the right" in said
    tab.click("#beside-jump")
    assert tab.get_attribute("#beside", "data-step") == str(expected)
    assert "differs" in tab.get_attribute("#beside-status-0", "class")
    for side in (0, 1):
        assert lines_of(tab, side) == [line.rstrip() for line in seen[side][expected]], side
    tab.eval_on_selector(
        "#beside-seek", "(bar) => { bar.value = 3; bar.dispatchEvent(new Event('input')); }"
    )
    assert tab.text_content("#beside-step").startswith("Step 3 of ")
    for side in (0, 1):
        assert lines_of(tab, side) == [line.rstrip() for line in seen[side][3]], side
    # The last step of the longer game: the other keeps its last screen and says how it ended.
    tab.click("#beside-end")
    for side, row in enumerate(rows):
        assert asciicast.end_text(row) in tab.text_content(f"#beside-status-{side}")
    # An agent beside itself does not differ.
    tab.select_option("#beside-choice-1", "0")
    until(tab, lambda: tab.get_attribute("#beside", "data-ready") == "0-0")
    assert "No difference" in tab.text_content("#beside-first-difference")
    assert tab.is_disabled("#beside-jump")


@pytest.mark.slow
@pytest.mark.browser
def test_axe_finds_nothing_in_two_games(browser, played, other, tmp_path):
    path = write_report(played, tmp_path / "page.html", [1], 1, beside=other)
    tab = browser.new_page(bypass_csp=True)
    tab.goto(path.as_uri())
    until(tab, lambda: tab.get_attribute("#beside", "data-ready") == "0-1")
    assert axe_violations(tab) == []
    tab.close()


@pytest.mark.browser
def test_a_windowed_recording_counts_real_steps(view, played, tmp_path, monkeypatch):
    row = max(read_rows(played), key=lambda row: row["steps"])
    monkeypatch.setattr(asciicast, "MAX_PACKED", 4_000)  # workers are spawned: record it here
    from nhzoo.publishing import report

    def here(task, args, items, workers):
        return [(key, task(*args).work(item)) for key, item in items]

    monkeypatch.setattr(report, "run_items", here)
    tab = view(write_report(played, tmp_path / "r.html", games=[row["index"]]))
    tab.wait_for_selector("#player[data-ready]")
    expected = screens(played, row)
    windows = json.loads(tab.evaluate("document.getElementById('casts').textContent"))[0]
    found = re.findall(r"0 to ([\d,]+) and ([\d,]+)", windows["about"])[0]
    head, tail = (int(number.replace(",", "")) for number in found)
    for at, step in ((head, head), (head + 1, tail), (head + 3, tail + 2)):
        seek(tab, at)
        assert tab.inner_text("#status").startswith(f"Step {step:,} of")
        assert drawn(tab) == expected[step]
    assert "are left out" in tab.text_content("#marks")


@pytest.mark.browser
def test_it_plays_and_stops(view, page):
    tab = view(page)
    tab.wait_for_selector("#player[data-ready]")
    tab.select_option("#speed", "60")
    tab.click("#play")
    assert tab.inner_text("#play") == "Pause"
    until(tab, lambda: frame(tab) > 20)
    tab.click("#play")
    stopped = frame(tab)
    tab.wait_for_timeout(200)
    assert frame(tab) == stopped
    tab.select_option("#speed", "1000")
    tab.click("#play")
    until(tab, lambda: tab.inner_text("#play") == "Play")
    assert frame(tab) == int(tab.get_attribute("#seek", "max"))
    tab.click("#play")  # from the start again
    tab.click("#play")
    assert frame(tab) < int(tab.get_attribute("#seek", "max"))
    tab.select_option("#marks", index=1)
    assert tab.input_value("#marks") == ""


@pytest.mark.browser
def test_the_keyboard_is_enough(view, page):
    tab = view(page)
    tab.wait_for_selector("#player[data-ready]")
    tab.focus("#terminal")
    last = int(tab.get_attribute("#seek", "max"))
    for key, expected in (
        *(("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("Shift+ArrowRight", 51)),
        *(("Home", 0), ("ArrowLeft", 0), ("End", last), ("ArrowRight", last), ("Home", 0)),
        *(("d", last), ("Shift+ArrowLeft", last - 50)),
    ):
        tab.keyboard.press(key)
        assert frame(tab) == expected
    before = tab.input_value("#speed")
    tab.keyboard.press("+")
    assert int(tab.input_value("#speed")) > int(before)
    tab.keyboard.press("-")
    tab.keyboard.press("-")
    assert int(tab.input_value("#speed")) < int(before)
    tab.keyboard.press("Space")
    assert tab.inner_text("#play") == "Pause"
    tab.keyboard.press("Space")
    assert tab.inner_text("#play") == "Play"
    tab.focus("#play")
    tab.keyboard.press("Enter")
    assert tab.inner_text("#play") == "Pause"
    tab.keyboard.press("Space")  # the button's own key: once, not twice
    assert tab.inner_text("#play") == "Play"
    tab.focus("#seek")
    tab.keyboard.press("Home")
    tab.keyboard.press("ArrowRight")
    assert frame(tab) == 1


@pytest.mark.browser
def test_the_table_sorts_and_leads_to_the_player(view, page, played):
    tab = view(page)
    tab.wait_for_selector("#player[data-ready]")
    rows = read_rows(played)
    read = "rows => rows.map(r => Number(r.cells[{}].textContent.replaceAll(',', '')))"
    body = "table.sortable tbody tr"
    for column, name in ((1, "score"), (2, "turns"), (3, "steps")):
        head = tab.locator("table.sortable th").nth(column)
        values = sorted(row[name] for row in rows)
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "descending"
        assert tab.eval_on_selector_all(body, read.format(column)) == values[::-1]
        head.locator("button").press("Enter")
        assert head.get_attribute("aria-sort") == "ascending"
        assert tab.eval_on_selector_all(body, read.format(column)) == values
    assert tab.locator("th[aria-sort]").count() == 1
    game = embedded(page)[-1]["game"]
    tab.click(f"table [data-game='{game}']")
    tab.wait_for_selector(f"#player[data-ready='{game}']")
    assert tab.evaluate("document.activeElement.id") == "terminal"


@pytest.mark.browser
def test_a_recording_can_be_saved(view, page, played):
    tab = view(page)
    tab.wait_for_selector("#player[data-ready]")
    game = embedded(page)[0]["game"]
    with tab.expect_download() as saved:
        tab.click("#save")
    assert saved.value.suggested_filename == f"smoke-v1-game-{game}.cast"
    row = next(row for row in read_rows(played) if row["index"] == game)
    expected = record_cast(played, row, agent="tiny-agent").text
    assert Path(saved.value.path()).read_text() == expected


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1200])
def test_the_page_fits_and_does_not_jump(view, page, width, scheme):
    tab = view(page, width, scheme)
    tab.evaluate(
        "() => { window.shift = 0; new PerformanceObserver(list => list.getEntries().forEach("
        "e => { window.shift += e.value; })).observe({type: 'layout-shift', buffered: true}); }"
    )
    tab.wait_for_selector("#player[data-ready]")
    tab.click("#last")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    if width >= 390:
        inner = tab.evaluate("(t => [t.scrollWidth, t.clientWidth])(document.all.terminal)")
        assert inner[0] <= inner[1]
    for step in range(0, 400, 40):
        seek(tab, step)
    assert tab.evaluate("window.shift") < 0.05
    tab.check("#large")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
@pytest.mark.browser
def test_hostile_names_do_nothing(view, copied, tmp_path):
    result = json.loads((copied / "result.json").read_text())
    result["agent"] = HOSTILE + "<img src=x onerror=alert(2)>"
    files.atomic_write(copied / "result.json", files.dump_json(result))
    for path in (
        write_report(copied, workers=1),
        write_report(synthetic(tmp_path / "r", ODD["causes"], HOSTILE)),
    ):
        tab = view(path)
        assert HOSTILE in tab.inner_text("h1")
        assert tab.locator("h1 script, h1 img").count() == 0
        tab.wait_for_timeout(200)


def axe_violations(tab) -> list[tuple[str, list[str]]]:
    """What axe-core complains of in a page that was opened with `bypass_csp`."""
    if importlib.util.find_spec("axe_playwright_python") is None:
        pytest.skip("axe-playwright-python, which carries axe-core, is not installed")
    folder = Path(str(resources.files("axe_playwright_python")))
    (axe,) = folder.rglob("axe.min.js")
    tab.add_script_tag(path=str(axe))
    found = tab.evaluate("axe.run()")["violations"]
    return [(v["id"], [n["html"][:120] for n in v["nodes"][:3]]) for v in found]


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser, page, tmp_path, scheme):
    odd = write_report(synthetic(tmp_path / "r", ODD["deep"], HOSTILE))
    for path in (page, odd):
        tab = browser.new_page(color_scheme=scheme, bypass_csp=True)
        tab.goto(path.as_uri())
        if path == page:
            tab.wait_for_selector("#player[data-ready]")
        assert axe_violations(tab) == []
        tab.close()
