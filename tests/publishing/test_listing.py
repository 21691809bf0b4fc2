"""The list of agents: best first under one protocol, each figure as its source has it."""

from __future__ import annotations

import json
import shutil

import pytest

from nhzoo.errors import InputError
from nhzoo.publishing import listing
from nhzoo.publishing.listing import KnownScore, ranked
from nhzoo.runtime import files
from tests import ROOT
from tests.helpers.commands import run

RESULTS = ROOT / "leaderboard" / "results"


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch, tmp_path):
    monkeypatch.setenv("NHZOO_CACHE", str(tmp_path / "cache"))


def test_scores_are_those_of_the_results_and_the_best_comes_first():
    agents = ranked("monk-lite-v1")
    means = [agent.scores["monk-lite-v1"].mean for agent in agents]
    assert means == sorted(means, reverse=True) and len(means) > 15
    assert agents[0].name == "autoascend" and agents[-1].name == "random"
    for agent in agents:
        for protocol, score in agent.scores.items():
            summary = json.loads((RESULTS / agent.name / protocol / "result.json").read_text())[
                "summary"
            ]
            given = [score.mean, score.low, score.high, score.games]
            measured = [summary["mean_score"], *summary["mean_score_ci95"], summary["episodes"]]
            assert given == pytest.approx(measured, abs=0.01), (agent.name, protocol)
    few = ranked("monk-v1")
    known = ["monk-v1" in agent.scores for agent in few]
    assert known == sorted(known, reverse=True) and 0 < sum(known) < len(few)
    assert {agent.where for agent in agents} == {"bundled", "code"}


def test_other_orders_put_the_smallest_first_and_what_is_not_known_last():
    by_loss = [agent.loss for agent in ranked(order="loss")]
    known = [loss for loss in by_loss if loss is not None]
    assert len(known) >= 7 and by_loss[: len(known)] == sorted(known)
    sizes = [agent.params for agent in ranked(order="size")]
    assert sizes[0] == min(size for size in sizes if size) and sizes[-1] is None
    names = [agent.name for agent in ranked(order="name")]
    assert names == sorted(names)
    with pytest.raises(InputError, match="choose one of score"):
        ranked(order="luck")
    with pytest.raises(InputError, match="unknown protocol"):
        ranked("monk-v9")


CARD = """---
model-index:
- name: mine
  results:
  - task: {{type: reinforcement-learning}}
    dataset: {{name: x, type: x, config: {protocol}, args: {args}}}
    metrics:
    - {{type: mean_score, value: {value}}}
---
Mine.
"""


def test_an_entrys_own_results_go_before_its_card_and_strange_cards_say_nothing(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("NHZOO_AGENTS", str(tmp_path))
    folder = tmp_path / "mine"
    folder.mkdir()
    shutil.copy(ROOT / "agents" / "bc-lstm-30k" / "config.json", folder)

    def mine():
        (agent,) = [agent for agent in ranked() if agent.name == "mine"]
        assert agent.where == str(tmp_path) and agent.params == 29_997
        return agent.scores

    assert mine() == {}
    for card, scores in (
        (
            CARD.format(protocol="monk-v1", value=99_000, args="{games: 7}"),
            {"monk-v1": KnownScore(99_000.0, None, None, 7)},
        ),
        (CARD.format(protocol="monk-v1", value=".nan", args="{}"), {}),
        (CARD.format(protocol="monk-v1", value="12", args="3"), {}),
        (CARD.format(protocol="[monk-v1]", value="12", args="[]"), {}),
        (CARD.format(protocol="monk-v9", value="12", args="{}"), {}),
        (CARD.format(protocol="monk-v1", value="many", args="{}"), {}),
        ("---\nmodel-index: 3\n---\n", {}),
        ("---\n{[\n---\n", {}),
        ("---\nmodel-index: " + 2_000 * "[" + "\n---\n", {}),
        ("no head", {}),
    ):
        (folder / "README.md").write_text(card)
        assert mine() == scores, card[:80]
    (folder / "README.md").write_text(CARD.format(protocol="smoke-v1", value=5, args="{}"))
    summary = {"mean_score": 7.0, "mean_score_ci95": [6.0, 9.0], "episodes": 8}
    result = {"protocol": "smoke-v1", "summary": summary}
    files.atomic_write(folder / "results" / "x" / "result.json", files.dump_json(result))
    files.atomic_write(folder / "results" / "y" / "result.json", b"[]")
    assert mine() == {"smoke-v1": KnownScore(7.0, 6.0, 9.0, 8)}


def test_the_command_lists_them_in_that_order(monkeypatch):
    listed = run("list", "--sort", "size", "--json")
    agents = json.loads(listed.stdout)["agents"]
    assert [agent["name"] for agent in agents] == [a.name for a in ranked(order="size")]
    assert {"name", "path", "params", "description", "where", "loss", "scores"} == set(agents[0])
    lines = run("list", "--protocol", "monk-v1").stdout.splitlines()
    head, first = lines[0].split("\t"), lines[1].split("\t")
    assert head[:4] == ["name", "score", "95 %", "protocol"] and first[3] == "monk-v1"
    wrong = run("list", "--protocol", "monk-v9")
    assert wrong.returncode == 2 and "unknown protocol" in wrong.stderr
    monkeypatch.setattr(listing, "CHECKOUT", None)  # as installed from a wheel
    code = {agent.name: agent.scores for agent in ranked() if agent.where == "code"}
    assert code["random"] == {}
