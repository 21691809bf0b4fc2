"""The files of training/examples run, at debug size, as their first lines say."""

from __future__ import annotations

import os
import subprocess
import sys
from argparse import Namespace
from importlib import util

import pytest
import torch

from nhzoo.agents.loading import load
from nhzoo.evaluation.evaluator import evaluate
from tests import ROOT

EXAMPLES = ROOT / "training" / "examples"


def imported(name: str):
    spec = util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_ppo_moves_every_part_of_an_agents_network(shared_entry, capsys):
    agent = load(shared_entry)
    assert agent.module is agent.module is not agent.entry.policy
    before = agent.entry.policy.state_dict()
    options = Namespace(
        agent=shared_entry, updates=2, num_envs=3, time=8, epochs=2, lr=1e-3, seed=0
    )
    policy = imported("ppo_finetune").main(options)
    after = policy.state_dict()
    assert all(bool(torch.isfinite(tensor).all()) for tensor in after.values())
    for part in ("head.weight", "forget0.weight", "join.weight", "tables.message"):
        assert (after[part] != before[part]).any(), part
    assert capsys.readouterr().out.count("entropy") == 2


def test_generalized_advantages_are_discounted_sums_within_a_game():
    ppo = imported("ppo_finetune")
    rewards = torch.tensor([[1.0], [2.0], [4.0]])
    values, ended = torch.zeros(3, 1), torch.tensor([[0.0], [1.0], [0.0]])
    found = ppo.advantages(rewards, values, torch.tensor([8.0]), ended)
    carry = ppo.DISCOUNT * ppo.LAMBDA
    assert found[:, 0].tolist() == pytest.approx([1 + carry * 2, 2, 4 + ppo.DISCOUNT * 8])


@pytest.mark.slow
def test_a_policy_of_ones_own_is_evaluated():
    command = [sys.executable, EXAMPLES / "own_policy.py", "--episodes", "1", "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("mean score ")


@pytest.mark.slow
def test_a_bot_that_sees_text_plays(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(os.fspath(EXAMPLES))
    played = evaluate("text_bot:make_agent", "smoke-v1", 1, 1, tmp_path / "out")
    assert played.result["summary"]["crashed"] == 0
    assert played.result["summary"]["mean_steps"] > 10
    bot = imported("text_bot")
    assert "You play NetHack" in bot.PROMPT and bot.ask("x\n\n What? [yn] (n)\n", 1) == "no"
