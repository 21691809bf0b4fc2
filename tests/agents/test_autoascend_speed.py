"""AutoAscend made faster: part for part what it was, and in the end the same keys."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from nhzoo.agents import autoascend
from nhzoo.agents.loading import load
from nhzoo.data.traces import open_traces
from nhzoo.envs.protocols import get_protocol
from tests import ROOT
from tests.agents.test_bots import needs_autoascend, play

pytestmark = needs_autoascend


@pytest.mark.slow
def test_each_part_gives_what_the_original_gives():
    command = [sys.executable, "-m", "tests.helpers.autoascend_parts"]
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[::2] == [
        *("same_exploring", "same_levels", "same_items", "same_names"),
        *("same_screens", "same_sets", "same_remembered_items", "same_monsters"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("index", "steps"), [(9, 700), pytest.param(39, 1_500, marks=pytest.mark.slow)]
)
def test_games_are_played_as_they_were_recorded(index, steps):
    """Key for key; the games were recorded by AutoAscend as it comes."""
    agent = load("autoascend")
    protocol = replace(get_protocol("monk-v1"), id="data:autoascend-monk-v1", step_cap=steps)
    result, keys = play(agent, protocol, index)
    agent.close()
    assert (agent.failure, result.steps) == (None, steps)
    recorded = next(t for t in open_traces("autoascend-monk-v1").traces if t.game == str(index))
    assert keys == recorded.keys()[: len(keys)]


@pytest.mark.slow
def test_another_version_is_left_as_it_is():
    """The parts were held against one version: no other gets them."""
    code = (
        "import json, sys; from nhzoo.agents import autoascend; "
        "autoascend.version = lambda name: '0.38'; autoascend.prepare(); "
        "from autoascend import agent, utils; "
        "print(json.dumps([agent.Agent.step.__module__, utils.isin.__module__]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert json.loads(done.stdout) == ["autoascend.agent", "autoascend.utils"], done.stderr


def test_only_what_it_looks_at_crosses_to_its_process():
    names = load("autoascend").observation_keys
    assert names == autoascend.OBSERVATIONS
    assert {"glyphs", "tty_chars", "inv_strs"} <= set(names)
    assert not {"chars", "colors", "tty_colors"} & set(names)
