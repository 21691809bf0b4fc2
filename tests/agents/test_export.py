"""Entries as bots of nethackers: the same keys as the agent, in nhzoo and in nethackers' arena."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nhzoo import evaluate, verify
from nhzoo.agents.export import export_bot
from nhzoo.agents.loading import load
from nhzoo.envs.actions import ACTION_KEYS
from nhzoo.envs.game import Episode, Game
from nhzoo.envs.protocols import get_protocol
from nhzoo.errors import InputError
from nhzoo.evaluation import results
from tests import ROOT
from tests.conftest import make_entry

SHORT = replace(get_protocol("smoke-v1"), step_cap=60)


@pytest.fixture(scope="module")
def exported(shared_entry, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("bots") / "bot"
    export_bot(shared_entry, "nethackers", out)
    return out


def keys_of_the_agent(entry: Path, index: int) -> bytes:
    """Game `index` of SHORT as the agent plays it, drawing as an exported bot says it does."""
    first = SHORT.uniforms(index).random()
    key = random.Random(int(first * 2**53)).getrandbits(128)
    stream = np.random.Generator(np.random.Philox(key=key))
    agent, episode = load(entry), Episode(Game())
    episode.start(SHORT.game(index), SHORT.step_cap, SHORT.no_progress)
    state, over = agent.initial_state(1), False
    while not over:
        seen = {name: episode.game.observation[name][None] for name in agent.observation_keys}
        actions, state = agent.act(seen, state, stream.random(1))
        over = episode.step(int(ACTION_KEYS[actions[0]]))
    return bytes(episode.game.keys)


@pytest.mark.slow
def test_it_presses_the_keys_of_the_agent(exported, shared_entry, tmp_path):
    out = tmp_path / "result"
    played = evaluate(load(exported), SHORT, 2, 1, out)
    assert [row["end_status"] for row in played.episodes] == ["step_cap"] * 2
    keys = [results.read_trace(out, index) for index in range(2)]
    assert keys == [keys_of_the_agent(shared_entry, index) for index in range(2)]
    assert keys[0] != keys[1]
    assert len(set(keys[0])) > 10  # it draws
    assert verify(out, 1).mismatched == [0, 1]  # cut short: the protocol's own cap is longer


@pytest.mark.slow
def test_greedy_it_plays_the_agents_games(tmp_path):
    entry, out = make_entry(tmp_path / "greedy", seed=3, temperature=0.0), tmp_path / "bot"
    export_bot(entry, "nethackers", out)
    mine = evaluate(load(entry), SHORT, 2, 1, batch=1).episodes
    assert evaluate(load(out), SHORT, 2, 1).episodes == mine


def test_a_bot_is_whole_and_nothing_is_written_over(exported, shared_entry, tmp_path):
    for path in shared_entry.iterdir():
        assert (exported / "tiny-agent" / path.name).read_bytes() == path.read_bytes()
    with pytest.raises(InputError, match="is not empty"):
        export_bot(shared_entry, "nethackers", exported)
    with pytest.raises(InputError, match="--as minihack: known is nethackers"):
        export_bot(shared_entry, "minihack", tmp_path / "x")
    for code in ("random", "scripted", "autoascend", "my.module:make_agent", exported):
        with pytest.raises(InputError, match="is code and has no weights"):
            export_bot(code, "nethackers", tmp_path / "x")
    with pytest.raises(InputError, match="'nobody': is no entry"):
        export_bot("nobody", "nethackers", tmp_path / "x")
    broken = make_entry(tmp_path / "broken")
    (broken / "parity.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"parity\.safetensors"):
        export_bot(broken, "nethackers", tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("nethackers") is None, reason="the extra `expert` is not installed"
)
def test_the_arena_of_nethackers_plays_it(exported, tmp_path):
    from nethackers.hub.validate import _validated_manifest
    from nethackers.solution_root import check_solution_root

    assert check_solution_root(exported) is None
    manifest = json.loads((exported / "nethackers.solution.json").read_text())
    assert _validated_manifest(manifest)["entrypoint"] == "bot.py"
    found = tmp_path / "results.json"
    games = json.dumps([[0, "mon-hum-neu-mal"], [0, "mon-hum-neu-mal"], [1, "val-dwa-law-fem"]])
    command = [sys.executable, "-m", "nethackers.arena.run", "--solution", exported]
    command += ["--batch", games, "--max-steps", "200", "--max-parallel-evals", "1"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [*command, "--out", found],
        check=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": path},
        cwd=tmp_path,
    )
    played = json.loads(found.read_text())
    assert [(game["status"], game["error"]) for game in played] == [("completed", None)] * 3
    for game in played:
        del game["wall_seconds"]
    assert played[0] == played[1] != played[2]
