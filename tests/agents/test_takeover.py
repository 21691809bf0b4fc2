"""Takeover: who plays which step, what is to be learnt of it, and that it replays."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from nhzoo.agents.base import FrequencyAgent, RandomAgent
from nhzoo.agents.loading import load
from nhzoo.agents.scripted import ScriptedAgent
from nhzoo.agents.takeover import DONE, Takeover, TakeoverAgent
from nhzoo.data import packing
from nhzoo.data.batches import Streams, count_frames, read_games
from nhzoo.data.frames import GameFrames, field_layout, write_game
from nhzoo.data.traces import open_traces, replay
from nhzoo.envs.actions import ACTION_KEYS, ACTION_OF_KEY, TTY
from nhzoo.envs.game import Game
from nhzoo.envs.protocols import get_protocol
from nhzoo.errors import InputError
from nhzoo.evaluation.playing import PlayTask
from nhzoo.evaluation.recording import record
from tests.agents.test_bots import needs_autoascend
from tests.helpers.bots.pool import without_processes
from tests.helpers.commands import run

MONKS = replace(get_protocol("monk-v1"), step_cap=2_000)
SHORT = Takeover(within=300, steps=120)


def rows_of(folder):
    return [json.loads(line) for line in (folder / "games.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def taken(tmp_path_factory):
    """Six games that a random agent begins and the scripted one plays on."""
    folder = tmp_path_factory.mktemp("sets") / "taken"
    with pytest.MonkeyPatch.context() as patch:
        without_processes(patch)
        report = record(
            ScriptedAgent(), MONKS, 6, folder, workers=1, held_out=0.3,
            after=RandomAgent(), takeover=SHORT,
        )  # fmt: skip
    assert report.games == 6
    return folder, report


def test_each_plays_its_steps_with_the_game_as_the_other_left_it(taken):
    folder, report = taken
    protocol = replace(MONKS, id="data:taken", games=6)
    rows = rows_of(folder)
    game = Game()
    for index, (row, trace) in enumerate(zip(rows, open_traces(folder).traces, strict=True)):
        uniforms = protocol.uniforms(index).random(1_000)
        begin = int(uniforms[0] * 300)
        dismissed = row["keys"] - row["env_steps"]
        assert sum(1 for _ in replay(trace, game)) == row["keys"]  # like any other
        keys = trace.keys()[dismissed:]
        random = RandomAgent().act({}, None, uniforms)[0]
        played = min(begin, len(keys))
        assert keys[:played] == bytes(ACTION_KEYS[random[:played]].tolist())
        assert row["after"] == "random@1" and row["agent"].startswith("scripted@")
        assert row["takeover"] == {"within": 300, "steps": 120}
        if row["env_steps"] <= begin:
            assert (row["split"], row["expert_from"]) == ("unused", row["keys"])
        else:
            assert row["expert_from"] == trace.expert_from == dismissed + begin
            assert row["env_steps"] <= begin + 120
            if row["end_status"] == "step_cap":
                assert row["env_steps"] == begin + 120 and row["death"] == ""
        assert trace.limited
    assert "step_cap" in {row["end_status"] for row in rows}
    assert report.unused == sum(row["split"] == "unused" for row in rows)
    assert report.mean_score is None  # no score of any of these is an agent's


def test_only_the_expert_is_learnt_from(taken, tmp_path):
    folder, _ = taken
    report = packing.pack(folder, workers=1, cache=tmp_path)
    used = [path for path in report.games if "unused" not in GameFrames(path).meta["split"]]
    assert used
    for path in used:
        game = GameFrames(path)
        actions = np.concatenate([part.actions[:, 0] for part, _ in read_games([path], 1, 64)])
        keys = game.read(0, game.length)["keys"]
        assert (actions[: game.expert_from] == -1).all()
        expected = ACTION_OF_KEY[keys[game.expert_from :]]
        np.testing.assert_array_equal(actions[game.expert_from : game.length], expected)
    streams = Streams(used, 4, 2, 16, seed=1)
    learnt = sum(int((streams.next()[0].actions >= 0).sum()) for _ in range(400))
    assert learnt > 0
    assert count_frames(used) == sum(GameFrames(path).length for path in used)


def test_reading_begins_not_long_before_what_is_learnt(taken, tmp_path, monkeypatch):
    folder, _ = taken
    games = packing.pack(folder, workers=1, cache=tmp_path).games
    late = max(games, key=lambda path: GameFrames(path).expert_from)
    begin = GameFrames(late).expert_from
    monkeypatch.setattr("nhzoo.data.batches._BEFORE", 40)
    streams = Streams([late], 2, 2, 16)
    positions = []
    for _ in range(200):
        streams.next()
        positions += [
            p for p, fresh in zip(streams._position, streams._fresh, strict=True) if fresh
        ]
        positions += streams._begin[1:].tolist()
    assert begin > 56
    assert max(positions) <= GameFrames(late).length
    assert (begin - 40) // 16 * 16 in positions


@pytest.mark.parametrize("value", [-1, 4, 10**30, "x", None])
def test_packed_games_that_say_nonsense_of_it_are_refused(tmp_path, value):
    path = tmp_path / "game.frames"
    frame = {name: np.zeros(*field_layout(name)) for name in TTY}
    write_game(path, [(frame, ord("k"))] * 3, TTY, {"expert_from": value})
    with pytest.raises(InputError, match="not a whole packed game"):
        GameFrames(path)


def test_a_game_ends_when_the_steps_are_over():
    agent = TakeoverAgent(RandomAgent(), FrequencyAgentThatSees(), Takeover(5, 3))
    state = agent.initial_state(1)
    for step in range(4 + 3):
        action, state = agent.act({}, state, np.array([0.99]))
        assert action[0] >= 0 and agent.failure is None, step
    action, _ = agent.act({}, state, np.array([0.5]))
    assert (action[0], agent.failure, agent.timed_out) == (-1, DONE, False)


class FrequencyAgentThatSees(FrequencyAgent):
    observation_keys = ("blstats",)


@pytest.mark.parametrize("options", [{"within": 0}, {"steps": 0}, {"within": 10**6}])
def test_takeovers_that_cannot_be(options):
    with pytest.raises(InputError, match="takeover"):
        Takeover(**options)


def test_who_sees_nothing_takes_nothing_over():
    with pytest.raises(InputError, match="'frequency': sees nothing"):
        TakeoverAgent(RandomAgent(), FrequencyAgent(), SHORT)


def test_an_entry_of_another_action_table_is_one_line(entry, tmp_path):
    config = json.loads((entry / "config.json").read_text())
    name = next(key for key in config if "action" in key)
    (entry / "config.json").write_text(json.dumps(config | {name: "0" * 64}))
    done = run(
        *("data", "record", "scripted", "--protocol", "smoke-v1", "--episodes", 1),
        *("--after", entry, "--out", tmp_path / "set"),
    )
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "action" in line and str(entry) in line
    assert not (tmp_path / "set" / "games.jsonl").exists()


def test_a_line_that_names_a_key_beyond_the_game_is_refused(taken, tmp_path):
    folder, _ = taken
    row = rows_of(folder)[0]
    for value in (row["keys"] + 1, -1, True, "5"):
        (tmp_path / "games.jsonl").write_text(json.dumps(row | {"expert_from": value}) + "\n")
        with pytest.raises(InputError, match="'expert_from' is no key of the game"):
            open_traces(tmp_path)


@pytest.mark.slow
@needs_autoascend
def test_autoascend_takes_over_in_the_middle_of_a_game(shared_entry):
    protocol = replace(get_protocol("monk-v1"), id="data:mid-game", step_cap=1_000)
    agent = TakeoverAgent(load(shared_entry), load("autoascend"), Takeover(400, 300))
    task = PlayTask(agent, protocol, 1)
    task.start(0, None)
    finished = []
    while not finished:
        finished = [item for item in task.advance(lambda *_: None) if item[0] is not None]
    ((_, (result, keys)),) = finished
    begin = int(protocol.uniforms(0).random() * 400)
    assert begin > 0
    assert result.end_status == "step_cap", result.cause
    assert result.steps == begin + 300
    assert keys[-300:].startswith(b"\x1b\x1b\x18")  # ESC ESC, then who am I
    agent.expert.close()
