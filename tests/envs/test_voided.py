"""Only ordinary games count: explore mode, wizard mode and games that are left score nothing."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from nle import nethack

from nhzoo import evaluate, verify
from nhzoo.data.catalog import open_result
from nhzoo.data.traces import Diverged, open_traces, replay
from nhzoo.envs import nle_library
from nhzoo.envs.actions import ACTION_KEYS, TTY
from nhzoo.envs.game import Episode, Game
from nhzoo.envs.gym import NetHackEnv
from nhzoo.envs.protocols import get_protocol
from nhzoo.evaluation import results
from nhzoo.evaluation.auditing import audit
from nhzoo.evaluation.evaluator import _crashed
from nhzoo.evaluation.outcomes import breakdown
from nhzoo.evaluation.recording import record
from nhzoo.evaluation.verification import VerifyTask
from nhzoo.leaderboard.rerun import fresh_protocol
from nhzoo.publishing.asciicast import Cast, CastItem, CastTask
from nhzoo.publishing.report import write_report
from nhzoo.runtime import files
from nhzoo.runtime.pool import Crashed
from nhzoo.training.rl.envs import TrainEnvConfig
from tests import ROOT
from tests.conftest import read_rows
from tests.helpers.bots.pool import without_processes
from tests.helpers.saboteurs import Typist

SMOKE = get_protocol("smoke-v1")
EXPLORE = b"#exploremode\r\ry"
WALK = b"hjklyubn"
DONE_HUP = 2  # in program_state


@pytest.fixture
def episode():
    played = Episode(Game(TTY))
    yield played
    played.game.close()


def begin(episode: Episode, index: int = 0) -> None:
    episode.start(SMOKE.game(index), SMOKE.step_cap, SMOKE.no_progress)


@pytest.mark.parametrize(
    "keys",
    [
        EXPLORE,
        b"#exploremode\r y",  # the warning dismissed by a space
        b"#exploremode\r\x1by",
        b"#exploremode\r\rY",
        b"#EXPLOREMODE\r\ry",
        b"20#exploremode\r\ry",  # after a count
        b"n20#exploremode\r\ry",
        b"m#exploremode\r\r\ry",  # after a prefix
        b"#exploremode\r\rn" + EXPLORE,  # at the second try
        b"i\x1b" + EXPLORE,  # out of a menu
        WALK + EXPLORE,
    ],
)
def test_explore_mode_voids_the_game_at_its_key(episode, keys):
    begin(episode)
    assert set(keys) <= set(ACTION_KEYS.tolist())
    first = keys.lower().rindex(b"y") + 1
    assert episode.play(keys + WALK) == first
    result = episode.result
    assert (result.end_status, result.cause) == ("voided", "explore mode")
    assert (result.score, result.steps) == (0.0, first)
    assert episode.game.keys.endswith(keys[:first])


def test_one_key_at_a_time_is_the_same_and_the_next_game_is_ordinary(episode):
    begin(episode)
    ends = [episode.step(key) for key in WALK + EXPLORE]
    assert ends == [False] * (len(ends) - 1) + [True]
    alone = episode.result
    begin(episode)
    assert not episode.game.voided
    episode.play(WALK + EXPLORE + WALK)
    assert episode.result == alone
    begin(episode)
    assert episode.play(WALK * 3) == 24 and not episode.result.end_status


def test_the_step_cap_does_not_save_the_score(episode):
    episode.start(SMOKE.game(0), len(WALK + EXPLORE), SMOKE.no_progress)
    episode.play(WALK + EXPLORE)
    assert episode.result.end_status == "voided"
    episode.start(SMOKE.game(0), len(WALK + EXPLORE) - 1, SMOKE.no_progress)
    episode.play(WALK + EXPLORE)
    assert episode.result.end_status == "step_cap"


@pytest.mark.parametrize(
    "keys",
    [
        b"#exploremode\r\rn",
        b"#exploremode\r\r\x1b",
        b"S",
        b"#save\ry",
        b"O",
        b"#options\r",
        b"!",
        b"#shell\r",
        b"#suspend\r",
        b"#panic\ry",
        b"#wizwish\r",
        b"#levelchange\r",
        b"#vision\r",
        b"#quit\rn",
    ],
)
def test_what_nle_has_shut_off_or_was_declined_leaves_the_game_ordinary(episode, keys):
    begin(episode)
    assert episode.play(keys) == len(keys)
    assert not episode.result.end_status and not episode.game.voided
    assert episode.play(b"\x1b" + WALK) == 1 + len(WALK)


def test_quitting_is_a_death_as_before(episode):
    begin(episode)
    episode.play(b"#quit\ry" + WALK)
    assert (episode.result.end_status, episode.result.cause) == ("death", "quit")


def test_wizard_mode_is_told_by_its_own_flag(episode, monkeypatch):
    """Keys cannot enter it; NLE's own option can."""
    init = nethack.Nethack.__init__
    monkeypatch.setattr(
        nethack.Nethack, "__init__", lambda self, *a, **k: init(self, *a, **k, wizard=True)
    )
    begin(episode)
    assert episode.step(ord("s"))
    assert (episode.result.end_status, episode.result.cause) == ("voided", "wizard mode")


def test_a_game_that_is_saved_is_voided(episode):
    begin(episode)
    episode.play(WALK)
    episode.game.flags.program[DONE_HUP] = 1  # as when its terminal is lost: it saves at once
    assert episode.play(WALK) == 1
    assert episode.game.done and not episode.result.score
    saved = episode.game.xlogfile.parent / "save"
    assert any(saved.iterdir())  # NetHack did save it
    assert (episode.result.end_status, episode.result.cause) == ("voided", "saved")
    begin(episode)  # and nothing of it is restored
    assert episode.play(WALK) == len(WALK) and not episode.result.end_status


def test_the_program_state_is_the_one_that_nle_shows(episode):
    """NLE: gameover, panicking, exiting, in_moveloop, in_impossible, something_worth_saving."""
    begin(episode)
    shown, live = episode.game.observation["program_state"], episode.game.flags.program
    assert (shown[0], shown[5]) == (live[0], live[4]) == (0, 1)
    for key in b"#quit\ry":
        episode.game.step(key)
    assert not episode.game.done
    assert (shown[0], shown[5]) == (live[0], live[4]) == (1, 0)


def test_an_nle_of_another_layout_is_refused(episode, monkeypatch):
    monkeypatch.setattr(nle_library, "_FLAGS_AT_START", {0: 1, 1: 1})
    with pytest.raises(RuntimeError, match=r"flags in another order: install nle 1\.3"):
        begin(episode)


def test_the_environment_takes_its_rewards_back():
    env = NetHackEnv()
    env.reset(options={"protocol": "monk-lite-v1", "episode": 0})
    listed = ACTION_KEYS.tolist()
    rewards, ended = [], False
    for key in b"hhhh" + EXPLORE:  # there is something to kill in the west
        assert not ended
        _, reward, terminated, truncated, info = env.step(listed.index(key))
        rewards.append(reward)
        ended = terminated or truncated
    assert (terminated, truncated, info["end_status"]) == (True, False, "voided")
    assert any(rewards[:-1]) and sum(rewards) == 0
    env.close()


def test_an_actor_learns_that_the_game_is_over():
    rows = {
        "tty_chars": np.zeros((24, 80), np.uint8),
        "tty_colors": np.zeros((24, 80), np.int8),
        "tty_cursor": np.zeros(2, np.uint8),
    }
    world = TrainEnvConfig().make(0, rows)
    world.begin(0)
    listed = ACTION_KEYS.tolist()
    rewards = [world.step(listed.index(key)) for key in WALK + EXPLORE]
    assert world.terminated and not world.truncated and sum(rewards) == 0
    world.begin(0)
    assert not world.replay(bytes(listed.index(key) for key in WALK + EXPLORE)) and world.terminated
    world.close()


@pytest.fixture(scope="module")
def cheated(tmp_path_factory):
    """Two games of an agent that goes into explore mode, as evaluated."""
    folder = tmp_path_factory.mktemp("cheated") / "typist"
    evaluate(Typist(WALK + EXPLORE), "smoke-v1", episodes=2, workers=1, out=folder)
    return folder


@pytest.mark.slow
def test_an_evaluation_voids_it_and_verify_agrees(cheated):
    for row in read_rows(cheated):
        assert (row["end_status"], row["cause"]) == ("voided", "explore mode")
        assert row["score"] == row["progression"] == 0 and row["steps"] == len(WALK + EXPLORE)
        assert results.read_trace(cheated, row["index"]).endswith(WALK + EXPLORE)
    summary = json.loads((cheated / "result.json").read_text())["summary"]
    assert (summary["mean_score"], summary["voided"], summary["crashed"]) == (0.0, 2, 0)
    assert verify(cheated, workers=1).ok
    assert audit(cheated, Typist(WALK + EXPLORE), workers=1).ok
    assert breakdown(read_rows(cheated)).end_statuses == {"voided": 2}


def forge(folder, index: int, keys: bytes | None = None, **claims) -> None:
    """Claim something else of a game, its summary too."""
    rows = read_rows(folder)
    rows[index] |= claims
    if keys is not None:
        results.write_trace(folder, index, keys)
        rows[index] |= {"keys": len(keys), "sha256": results.hashlib.sha256(keys).hexdigest()}
    files.atomic_write(folder / "episodes.jsonl", files.dump_jsonl(rows))
    result = json.loads((folder / "result.json").read_text())
    result["summary"] |= results.summarize(rows)
    files.atomic_write(folder / "result.json", files.dump_json(result))


@pytest.mark.parametrize(
    "claims",
    [
        {"score": 183_173.0},
        {"score": 3.0, "end_status": "death", "cause": "quit"},
        {"end_status": "step_cap", "cause": ""},
        {"end_status": "crashed", "cause": "agent raised ValueError"},
        {"progression": 0.01},
    ],
)
def test_a_forged_row_is_refused(cheated, tmp_path, claims):
    folder = shutil.copytree(cheated, tmp_path / "forged")
    forge(folder, 1, **claims)
    report = verify(folder, workers=1)
    assert report.mismatched == [1] and "replayed" in report.reasons[1]


def test_keys_beyond_the_voiding_one_are_refused(cheated, tmp_path):
    """As a result of before this rule would hold them: with a score, at the step cap."""
    folder = shutil.copytree(cheated, tmp_path / "old")
    keys = results.read_trace(folder, 0)
    longer = keys + b"s" * (SMOKE.step_cap - len(WALK + EXPLORE))
    forge(folder, 0, longer, score=9_000.0, steps=SMOKE.step_cap, end_status="step_cap", cause="")
    report = verify(folder, workers=1)
    assert report.mismatched == [0]
    assert report.reasons[0] == f"the game ends at key {len(keys)} of {len(longer):,}"


def test_a_rerun_voids_it_too(tmp_path, monkeypatch):
    without_processes(monkeypatch)
    fresh = fresh_protocol("smoke-v1", "0" * 64, "1" * 64, 1)
    folder = tmp_path / "fresh"
    done = evaluate(Typist(EXPLORE), fresh, workers=1, out=folder)
    assert [row["end_status"] for row in done.episodes] == ["voided"]
    assert verify(folder, workers=1, protocol=fresh).ok


def test_an_agent_that_dies_after_it_has_not_crashed():
    """Its process may end before the game is reported: the keys say what the game had come to."""
    begun = Episode(Game(()))
    begin(begun)
    keys = bytes(begun.game.keys) + WALK + EXPLORE
    begun.game.close()
    crash = Crashed(1, 0.0, 0.0, keys, foreign=True)
    result, _ = _crashed(SMOKE, 0, crash)
    assert (result.end_status, result.score) == ("voided", 0.0)


def test_pages_and_recordings_show_it(cheated, tmp_path):
    row = read_rows(cheated)[0]
    cast = CastTask(100).work(CastItem(cheated, SMOKE, False, "typist", row))
    assert isinstance(cast, Cast) and "voided: explore mode" in cast.text
    page = write_report(cheated, tmp_path / "page.html", workers=1).read_text()
    assert "voided" in page


def test_a_voided_game_is_no_demonstration(cheated, tmp_path, monkeypatch):
    without_processes(monkeypatch)
    short = replace(SMOKE, step_cap=200)
    folder = tmp_path / "set"
    report = record(Typist(WALK + EXPLORE), short, 2, folder, workers=1)
    assert (report.games, report.voided, report.mean_score) == (0, [0, 1], None)
    assert not (folder / "games.jsonl").exists() and not (folder / ".recording").exists()
    with pytest.raises(Exception, match="holds no game"):
        open_result(cheated)


def test_a_trace_set_with_such_a_game_is_refused():
    trace = min(open_traces("autoascend-monk-v1").traces, key=lambda trace: trace.length)
    keys = trace.keys()
    game = Game()
    game.start(trace.spec)
    game.skip_opening()
    begun = len(game.keys)
    game.close()
    changed = keys[:begun] + EXPLORE + keys[begun:]
    monkey = replace(trace, length=len(changed), frame_hashes=())
    object.__setattr__(monkey, "keys", lambda: changed)
    message = f"no ordinary game from key {begun + len(EXPLORE)} on: explore mode"
    with pytest.raises(Diverged, match=message):
        list(replay(monkey, game))


@pytest.mark.slow
def test_no_result_of_before_the_rule_holds_such_a_game():
    """Why the protocols keep their ids. What types the command is replayed; all the rest cannot.

    No key that an action presses deletes a typed character, and control keys are passed over.
    """
    listed = set(ACTION_KEYS.tolist())
    assert not listed & {0, 8, 21, 127}  # what NLE's prompt deletes with
    typed = re.compile(rb"[^ -~]*".join(bytes((c,)) for c in b"exploremode"), re.IGNORECASE)
    games, suspects = 0, []
    for path in sorted((ROOT / "leaderboard").glob("re*/*/*/episodes.jsonl")):
        for row in results.read_episodes(path.parent):
            keys = results.read_trace(path.parent, row["index"])
            games += 1
            assert set(keys) <= listed and row["end_status"] != "voided"
            assert row["end_status"] != "death" or row["cause"]  # it was ended, and not left
            if typed.search(keys):
                suspects.append((path.parent, row))
    assert games >= 3_584
    for folder, row in suspects:
        protocol = get_protocol(results.read_result(folder)[1].id)
        assert VerifyTask(folder, protocol, True).work(row) is None, (folder, row["index"])
