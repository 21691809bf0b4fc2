"""Ways of sampling, tried on games of no protocol."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from nhzoo.agents.base import cumulative
from nhzoo.envs.protocols import PROTOCOLS, seeds_of
from nhzoo.errors import InputError
from nhzoo.evaluation import tuning
from nhzoo.policy import inference
from nhzoo.policy.checkpoint import Sampling, load_entry
from tests.helpers.commands import run


@pytest.fixture
def short(monkeypatch):
    games = replace(tuning.TUNING, step_cap=60)
    monkeypatch.setattr(tuning, "TUNING", games)
    return games


def test_its_games_are_no_protocols():
    assert tuning.TUNING.id not in PROTOCOLS
    assert tuning.TUNING.game(0).core == seeds_of("nhzoo:tuning-v1:0")[0]
    ranked = {PROTOCOLS[name].game(k).core for name in PROTOCOLS for k in range(8)}
    assert not ranked & {tuning.TUNING.game(k).core for k in range(1024)}


def test_improbable_actions_are_left_out():
    logits = np.log(np.array([[0.5, 0.3, 0.15, 0.04, 0.01]], np.float32))
    uniform = np.linspace(0, 0.9999, 500)

    def drawn(min_p, temperature=1.0):
        many = np.repeat(logits, len(uniform), 0)
        return set(inference.choose(many, uniform, temperature, min_p).tolist())

    assert drawn(0.0) == {0, 1, 2, 3, 4}
    assert drawn(0.1) == {0, 1, 2}  # of those at least a tenth of 0.5
    assert drawn(0.1, temperature=2.0) == {0, 1, 2, 3, 4}  # after the temperature
    assert drawn(1.0) == {0}
    sums = cumulative(logits, 1.0, 0.1)[0]
    assert np.allclose(sums, [0.5 / 0.95, 0.8 / 0.95, 1, 1, 1])
    for u in uniform:
        expected = int(np.searchsorted(sums, u, side="right"))
        assert inference.choose(logits, np.array([u]), 1.0, 0.1).tolist() == [expected]


@pytest.mark.parametrize("min_p", [-0.1, 1.1, float("nan")])
def test_a_cut_off_is_a_share(min_p):
    with pytest.raises(InputError, match="min_p"):
        Sampling(1.0, 0, min_p)


@pytest.mark.parametrize("min_p", ["0.1", True, None, [], 2])
def test_a_strangers_cut_off_is_checked(entry, min_p):
    folder = entry
    config = json.loads((folder / "config.json").read_text())
    config["sampling"]["min_p"] = min_p
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="min_p"):
        load_entry(folder)
    del config["sampling"]["min_p"]  # entries from before it was there
    (folder / "config.json").write_text(json.dumps(config))
    assert load_entry(folder).sampling.min_p == 0


def test_samplings_play_the_same_games(short, tmp_path):
    found = tuning.tune(
        "bc-lstm-100k", [Sampling(0.65), Sampling(0.65, 0, 1.0)], 2, tmp_path / "out", workers=1
    )
    assert [one.sampling.min_p for one in found] == [0.0, 1.0]
    first, second = found
    assert first.ahead is None and second.ahead is not None
    difference = second.mean_score.estimate - first.mean_score.estimate
    assert second.ahead.estimate == pytest.approx(difference)
    rows = [
        (tmp_path / "out" / tuning.label(one.sampling) / "episodes.jsonl").read_text().splitlines()
        for one in found
    ]
    cores = [[json.loads(row)["core"] for row in part] for part in rows]
    assert cores[0] == cores[1] == [short.game(k).core for k in range(2)]
    keys = [[json.loads(row)["sha256"] for row in part] for part in rows]
    assert keys[0] != keys[1]


def test_what_has_no_sampling_is_not_tuned(tmp_path):
    with pytest.raises(InputError, match="no zoo entry"):
        tuning.tune("random", [Sampling()], 1, tmp_path)


@pytest.mark.slow
def test_the_command(tmp_path):
    command = ["tune", "bc-lstm-30k", "--games", "1", "--min-p", "0.9", "--out", str(tmp_path)]
    document = json.loads(run(*command, "--json").stdout)
    assert [one["sampling"]["min_p"] for one in document["tuned"]] == [0.0, 0.9]
    assert "ahead of the first" in run(*command).stdout
