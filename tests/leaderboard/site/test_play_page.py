"""The page that plays an entry's recording: from the hub alone, as text, in a real browser."""

from __future__ import annotations

import json
import re

import pytest

from nhzoo.leaderboard.site.builder import play_page
from tests.publishing.test_report import browser, drawn, frame, until  # noqa: F401


def recording(
    title: str = "mine on smoke-v1, game 3", agent: str = "mine", game: int = 3, key: str = "j"
) -> bytes:
    """Two screens of a made-up game, in the form that nhzoo records."""
    about = {"agent": agent, "protocol": "smoke-v1", "game": game, "steps": 1}
    about |= {"windows": [[0, 1]]}
    about |= {"steps_per_second": 8, "end": "<b>died</b>", "scores": [[0, 0]], "keys": {key: key}}
    head = {"version": 2, "width": 80, "height": 24, "title": title, "nhzoo": about}
    events = [
        [0, "o", "\x1b[2J\x1b[1;1Hhello \x1b[0;31mworld"],
        [0.125, "i", key],
        [0.125, "o", "\x1b[2;1Hsecond"],
        [0.125, "m", "<i>the end</i>"],
    ]
    return "\n".join(map(json.dumps, [head, *events])).encode() + b"\n"


def test_it_asks_nobody_but_the_hub():
    page = play_page()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert "default-src &#39;none&#39;" in policy
    assert "connect-src https://huggingface.co https://*.hf.co" in policy
    assert not re.findall(r'(?:src|href)="(?!data:|https://huggingface\.co)', page)
    assert play_page() == page


@pytest.mark.slow
@pytest.mark.browser
def test_a_game_is_played_from_the_hub(browser, hub, tmp_path):  # noqa: F811
    hub.add("you/mine", {"replay.cast": recording("<img src=x onerror=alert(1)>")})
    hub.add("you/broken", {"replay.cast": b"not a recording"})
    path = tmp_path / "play.html"
    path.write_text(play_page(hub.url))
    complaints = []
    tab = browser.new_page(reduced_motion="reduce")
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))
    tab.goto(path.as_uri() + "?entry=you/mine")
    until(tab, lambda: drawn(tab)[:1] and drawn(tab)[0].startswith("hello world"))
    assert tab.inner_text("h1") == "<img src=x onerror=alert(1)>"
    assert tab.get_attribute("#entry", "href") == f"{hub.url}/you/mine"
    tab.click("#last")
    assert frame(tab) == 1
    assert drawn(tab)[1].startswith("second")
    assert "<b>died</b>" in tab.inner_text("#status")
    for query in ("?entry=you/none", "?entry=you/broken", "?entry=../../x", "?entry=//evil/x", ""):
        tab.goto(path.as_uri() + query)
        until(tab, lambda: "There is no game to show" in tab.inner_text("#status"))
    assert complaints == []
    tab.close()


@pytest.mark.slow
@pytest.mark.browser
def test_two_entries_are_played_side_by_side(browser, hub, tmp_path):  # noqa: F811
    hub.add("you/mine", {"replay.cast": recording()})
    hub.add("you/other", {"replay.cast": recording("<b>other</b>", "<i>other</i>", key="k")})
    hub.add("you/elsewhere", {"replay.cast": recording(game=4)})
    path = tmp_path / "play.html"
    path.write_text(play_page(hub.url))
    complaints = []
    tab = browser.new_page(reduced_motion="reduce")
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.goto(path.as_uri() + "?entry=you/mine&beside=you/other")
    until(tab, lambda: tab.get_attribute("#beside", "data-ready") == "0-1")
    said = tab.inner_text("#beside-first-difference")
    assert said == "First difference at step 1: j on the left, k on the right."
    assert not tab.is_visible("#player") and tab.is_visible("#beside")
    assert tab.inner_text("h1") == "mine on smoke-v1, game 3 · <b>other</b>"
    assert "<i>other</i>" in tab.inner_text("#beside-choice-1")
    tab.goto(path.as_uri() + "?entry=you/mine&beside=you/elsewhere")
    until(tab, lambda: "There is no game to show" in tab.inner_text("#status"))
    assert "the one is of game 3 of smoke-v1, the other of game 4" in tab.inner_text("#status")
    tab.goto(path.as_uri() + "?entry=you/mine&beside=../x")
    until(tab, lambda: "There is no game to show" in tab.inner_text("#status"))
    assert complaints == []
    tab.close()
