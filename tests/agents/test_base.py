"""What an agent may say of itself, and that one function asks."""

from __future__ import annotations

import ast
import sys
from dataclasses import fields

import pytest

from nhzoo.agents.base import AgentTraits, RandomAgent, traits
from nhzoo.agents.bots import BotAgent, BotSource
from nhzoo.envs.actions import TTY
from tests import ROOT

NAMES = {field.name for field in fields(AgentTraits)}


class Plain:
    def initial_state(self, batch):
        return None

    def act(self, observation, state, uniform):
        return [0] * len(uniform), state


def test_an_agent_that_says_nothing_has_the_defaults():
    found = traits(Plain())
    assert (found.name, found.revision, found.observation_keys) == ("Plain", None, TTY)
    assert (found.best_batch, found.max_batch) == (16, sys.maxsize)
    assert not (found.blind or found.rows or found.timed_out)
    assert found.limits is found.failure is found.end_game() is None
    assert traits(Plain(), "package.module:make").name == "package.module:make"


def test_what_an_agent_says_is_taken():
    agent = Plain()
    given = {
        "name": "mine",
        "revision": 3,
        "observation_keys": ["blstats"],
        "best_batch": 8,
        "max_batch": 9,
        "rows": None,
        "limits": {"step_seconds": 1.0},
        "failure": "it broke",
        "timed_out": True,
        "end_game": list,
    }
    for name, value in given.items():
        setattr(agent, name, value)
    found = traits(agent, "package.module:make")
    given |= {"observation_keys": ("blstats",), "rows": True}
    assert {name: getattr(found, name) for name in given} == given
    assert {*given, "blind"} == NAMES


@pytest.mark.parametrize("keys", [(), TTY])
def test_only_an_agent_that_observes_nothing_is_blind(keys):
    agent = RandomAgent()
    agent.observation_keys = keys
    assert traits(agent).blind == (keys == ())


def test_a_bots_failure_is_the_latest():
    agent = BotAgent(BotSource("module"), "bot")
    assert (traits(agent).max_batch, traits(agent).failure) == (1, None)
    agent.failure, agent.timed_out = "too slow", True
    assert (traits(agent).failure, traits(agent).timed_out) == ("too slow", True)


def test_no_other_module_probes_an_agent():
    """But for bots, which are no agents: their process, and what their module makes."""
    own = [ROOT / "nhzoo" / "agents" / name for name in ("base.py", "bot_process.py", "loading.py")]
    for path in sorted({*(ROOT / "nhzoo").rglob("*.py")} - {*own}):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
                asked = node.args[1]
                assert not (isinstance(asked, ast.Constant) and asked.value in NAMES), (
                    f"{path}:{node.lineno}: use nhzoo.agents.base.traits"
                )
