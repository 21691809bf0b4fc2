from __future__ import annotations

import math

import numpy as np
import pytest

from nhzoo.agents.base import RandomAgent
from nhzoo.agents.loading import load
from nhzoo.agents.scripted import ScriptedAgent
from nhzoo.data import packing
from nhzoo.data.batches import count_frames
from nhzoo.data.frames import GameFrames
from nhzoo.errors import InputError
from nhzoo.evaluation import loss
from nhzoo.evaluation.loss import measure_loss, measure_parts


@pytest.fixture(scope="module")
def games(small_set, tmp_path_factory):
    return packing.pack(small_set, workers=1, cache=tmp_path_factory.mktemp("packed")).games


@pytest.fixture
def short_ranges(monkeypatch):
    """Ranges that games of 600 steps reach, one of them across the batches of 64 steps."""
    monkeypatch.setattr(loss, "STEPS", (0, 10, 100, 450, 100_000))
    monkeypatch.setattr(loss, "EARLY", 100)


def test_losses_by_step_are_those_of_games_cut_there(games, shared_entry, short_ranges):
    agent = load(shared_entry)
    sums = measure_parts(agent, games)
    parts = sums.by_step()
    assert list(parts) == [(0, 10), (10, 100), (100, 450), (450, 100_000)]
    assert sum(part.frames for part in parts.values()) == sums.whole.frames == count_frames(games)
    for steps, part in ((10, parts[0, 10]), (100, sums.early), (None, sums.whole)):
        alone = measure_loss(agent.entry.policy, games, steps)
        assert part.frames == alone.frames
        assert (part.loss, part.accuracy) == pytest.approx((alone.loss, alone.accuracy), rel=1e-6)
        assert part.loss_se == pytest.approx(alone.loss_se, rel=1e-4)
    total = sum(part.loss * part.frames for part in parts.values())
    assert sums.whole.loss == pytest.approx(total / sums.whole.frames)


def test_answers_to_questions_are_a_line_of_their_own(games, shared_entry, monkeypatch):
    asked = 0
    for path in games:
        game = GameFrames(path)
        top = game.read(0, game.length)["tty_chars"][:, 0]
        asked += sum(b"? [" in line.tobytes() for line in top)
    sums = measure_parts(load(shared_entry), games)
    assert sum(part.frames for part in sums.by_question().values()) == asked
    monkeypatch.setattr(loss, "QUESTIONS", {"every line": (b"",)})
    monkeypatch.setattr(loss, "_question_kinds", lambda screens: np.zeros(len(screens), int))
    every = measure_parts(load(shared_entry), games)
    assert every.by_question()["every line"].loss == pytest.approx(every.whole.loss)


def test_commands_are_told_by_where_the_expert_gives_them(games, shared_entry, monkeypatch):
    monkeypatch.setattr(loss, "COMMANDS", {"north": ord("k")})
    found = measure_parts(load(shared_entry), games).by_command()
    keys = [game.read(0, game.length)["keys"] for game in map(GameFrames, games)]
    presses = int(sum((part == ord("k")).sum() for part in keys))
    assert found["north"].presses == presses > 0
    uniform = math.log(121)
    assert found["north"].loss == pytest.approx(uniform, abs=1)  # it is not trained
    others = count_frames(games) - presses
    assert found["north"].elsewhere == pytest.approx(others / 121 / presses, rel=0.7)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("There is a newt corpse here; eat it? [ynq] (n)", "eat it?"),
        ("There are 2 newt corpses here; eat one? [ynq] (n)", "eat it?"),
        ("Are you sure you want to pray? [yn] (n)", "pray?"),
        ('"Hello stranger, who are you?" - Croesus', "vault guard"),
        ("Really attack the watchman? [yn] (n)", "other questions"),
        ("What do you want to wield? [- a or ?*]", "other questions"),
        ("You see here a scroll labeled READ ME.", None),
        ("You read: who was here?", None),
    ],
)
def test_kinds_of_questions(line, kind):
    screens = np.full((2, 24, 80), 32, np.uint8)
    screens[0, 0, : len(line)] = np.frombuffer(line.encode(), np.uint8)
    screens[1, 1, : len(line)] = np.frombuffer(line.encode(), np.uint8)  # not the top line
    names = [*loss.QUESTIONS, None]
    assert [names[i] for i in loss._question_kinds(screens)] == [kind, None]


def test_the_random_agent_has_the_same_loss_at_every_step(games, short_ranges):
    sums = measure_parts(RandomAgent(), games)
    for part in (sums.whole, sums.early, *sums.by_step().values()):
        assert (part.loss, part.accuracy) == pytest.approx((math.log(121), 1 / 121))
        assert part.loss_se is None
    assert sums.whole.frames == count_frames(games)
    assert sums.early.frames == count_frames(games, 100)


def test_an_agent_without_probabilities_is_refused(games):
    with pytest.raises(InputError, match="gives actions, not probabilities"):
        measure_parts(ScriptedAgent(), games)
