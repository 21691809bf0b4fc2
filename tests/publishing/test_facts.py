"""What `nhzoo info` says: facts of an entry in groups, and commands that parse and fit it."""

from __future__ import annotations

import json
import shlex
import shutil

import pytest

from nhzoo.cli.app import cli
from nhzoo.errors import InputError
from nhzoo.publishing.facts import facts_of
from tests import ROOT
from tests.helpers.commands import run

ZOO = sorted(path.parent.name for path in (ROOT / "agents").glob("*/config.json"))


@pytest.mark.parametrize("agent", [*ZOO, "random", "scripted", "autoascend"])
def test_the_commands_of_every_agent_parse(agent):
    found = facts_of(agent)
    assert next(iter(found.groups)) == "Agent" and found.commands
    for line in found.commands.values():
        words = shlex.split(line)
        assert words[0] == "nhzoo"
        group = cli
        while hasattr(group, "commands"):
            word, group = words[1], group.commands[words[1]]
            words = words[1:]
            assert word == words[0]
        group.make_context(words[0], words[1:])


def test_facts_are_those_of_the_config_and_the_scores_of_the_card():
    found = facts_of("bc-lstm-483k")
    config = json.loads((ROOT / "agents" / "bc-lstm-483k" / "config.json").read_text())
    assert found.groups["Network"]["parameters"] == config["params"]
    assert found.groups["Training"]["samples"] == config["training"]["samples"]
    loss = config["training"]["validation"]["loss"]
    assert found.groups["Training"]["held-out loss"].startswith(f"{loss:.3f} ")
    assert found.groups["Scores"]["monk-lite-v1"] == "2,238.4 [1,865.5, 2,756.9] of 128 games"
    assert found.commands["its training"] == config["training"]["command"]
    assert "--split validation" in found.commands["its held-out loss"]
    assert found.as_json() == config | {
        "name": "bc-lstm-483k",
        "path": str(ROOT / "agents" / "bc-lstm-483k"),
        "where": "bundled",
        "loss": loss,
        "scores": found.as_json()["scores"],
        "commands": found.commands,
    }


def test_an_entry_elsewhere_is_named_as_it_was_given(tmp_path):
    folder = tmp_path / "my agent"
    shutil.copytree(ROOT / "agents" / "bc-lstm-30k", folder)
    found = facts_of(str(folder))
    assert found.listed.name == "my agent"
    assert shlex.split(found.commands["watch it play"]) == ["nhzoo", "watch", str(folder)]
    score = shlex.split(found.commands["its score on monk-lite-v1"])
    assert score[2] == str(folder) and score[-1] == "results/my agent-monk-lite-v1"


def test_what_is_no_agent_is_refused():
    with pytest.raises(InputError, match="is no entry"):
        facts_of("nobody")


def test_info_prints_groups_and_commands():
    lines = run("info", "bc-lstm-30k").stdout.splitlines()
    cells = [line.split("\t") for line in lines]
    assert {len(row) for row in cells} == {3}
    groups = list(dict.fromkeys(row[0] for row in cells))
    assert groups == ["Agent", "Network", "Training", "Scores", "Reproduce it"]
    assert ["Reproduce it", "watch it play", "nhzoo watch bc-lstm-30k"] in cells
