"""Trace sets as Minari datasets, read back by Minari."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nhzoo import evaluate
from nhzoo.data import minari_export
from nhzoo.data.minari_export import dataset_id, export_minari
from nhzoo.data.traces import open_traces, replay
from nhzoo.envs.actions import ACTION_KEYS, TTY
from nhzoo.envs.game import Game
from nhzoo.errors import InputError
from tests.conftest import read_rows
from tests.helpers.commands import run

minari = pytest.importorskip("minari", exc_type=ImportError)
pytest.importorskip("h5py")


@pytest.fixture(scope="module")
def exported(small_set, tmp_path_factory):
    root = tmp_path_factory.mktemp("minari") / "sets"
    return export_minari(small_set, root, games=2)


def test_minari_reads_it_back(exported, small_set, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(exported.root))
    data = minari.load_dataset(exported.name)
    traces = open_traces(small_set).traces[:2]
    assert data.total_episodes == exported.games == 2
    assert data.total_steps == exported.steps == sum(trace.length for trace in traces)
    game = Game(TTY)
    for trace, episode in zip(traces, data.iterate_episodes(), strict=True):
        keys = np.frombuffer(trace.keys(), np.uint8)
        assert np.array_equal(ACTION_KEYS[episode.actions], keys)
        for step, (frame, _) in enumerate(replay(trace, game)):
            for name in TTY:
                assert np.array_equal(episode.observations[name][step], frame[name])
        last = [episode.observations[name][-1] for name in TTY]
        assert all(np.array_equal(a, game.observation[b]) for a, b in zip(last, TTY, strict=True))
        ended = bool(episode.terminations[-1]), bool(episode.truncations[-1])
        assert ended == (game.over, not game.over)
        assert not episode.terminations[:-1].any() and not episode.truncations[:-1].any()
    game.close()
    options = [one["options"] for one in data.storage.get_episode_metadata([0, 1])]
    assert [int(one["core"]) for one in options] == [trace.spec.core for trace in traces]
    assert [one["game"] for one in options] == [trace.game for trace in traces]


def test_rewards_sum_to_the_score_of_a_result(tmp_path, monkeypatch):
    evaluate("scripted", "smoke-v1", episodes=3, workers=1, out=tmp_path / "result")
    rows = read_rows(tmp_path / "result")
    assert max(row["score"] for row in rows) > 0
    found = export_minari(tmp_path / "result", tmp_path / "sets")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(found.root))
    episodes = list(minari.load_dataset(found.name).iterate_episodes())
    assert [np.sum(one.rewards) for one in episodes] == [row["score"] for row in rows]
    ends = [row["end_status"] == "death" for row in rows]
    assert [bool(one.terminations[-1]) for one in episodes] == ends


def test_its_environment_is_recovered(exported, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(exported.root))
    env = minari.load_dataset(exported.name).recover_environment()
    observation, _ = env.reset(seed=1)
    assert set(observation) == set(TTY) and env.action_space.n == 121
    env.close()


def test_the_command_says_how_to_read_it(small_set, tmp_path, monkeypatch):
    out = tmp_path / "sets"
    done = run("export", small_set, "--as", "minari", "--games", "1", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["games"] == 1 and found["root"] == str(out)
    assert (out / found["name"]).is_dir()
    again = run("export", small_set, "--as", "minari", "--games", "1", "--out", out)
    assert again.returncode == 2 and "is there already" in again.stderr


def test_half_a_dataset_is_not_left(small_set, tmp_path, monkeypatch):
    monkeypatch.setattr(minari_export, "ACTION_OF_KEY", np.full(256, -1))
    with pytest.raises(InputError, match=r"key \d+ at step 1 is no action"):
        export_minari(small_set, tmp_path / "sets")
    assert not list((tmp_path / "sets").rglob("*.hdf5"))


def test_a_full_disk_is_said_before_work_begins(small_set, tmp_path, monkeypatch):
    usage = minari_export.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(minari_export.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match="give fewer games by --games"):
        export_minari(small_set, tmp_path / "sets")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("autoascend-monk-v1", "nhzoo/autoascend-monk-v1"),
        ("mine", "nhzoo/mine-v0"),
        ("odd name.1", "nhzoo/odd-name-1-v0"),
    ],
)
def test_names_have_a_version(name, expected):
    assert dataset_id(name) == expected


def test_without_minari_the_remedy_is_said(small_set, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "minari", None)
    with pytest.raises(InputError, match=r"pip install 'nhzoo\[minari\]'"):
        export_minari(small_set, tmp_path / "sets")
