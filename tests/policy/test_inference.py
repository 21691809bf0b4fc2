"""Playing a step in few calls: the policy's own numbers, row by row."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch

from nhzoo.agents.base import cumulative
from nhzoo.agents.loading import load
from nhzoo.envs.actions import TTY
from nhzoo.envs.game import Game
from nhzoo.envs.protocols import GameSpec
from nhzoo.policy import features, inference, memory
from nhzoo.policy.config import LAYERS, PolicyConfig
from nhzoo.policy.inference import Inference, choose
from nhzoo.policy.network import Policy, to_tensors
from tests.conftest import make_entry, random_keys


def screens(steps: int, games: int) -> list[dict]:
    """Observations [games, ...] of games that are played side by side."""
    played = [Game(TTY) for _ in range(games)]
    seen = []
    for number, game in enumerate(played):
        game.start(GameSpec(core=70 + number, disp=7))
        game.skip_opening()
    for step in range(steps):
        rows = [game.observation for game in played]
        seen.append({name: np.stack([row[name] for row in rows]) for name in TTY})
        for number, game in enumerate(played):
            if not game.over:
                game.step(random_keys(steps, number)[step])
    for game in played:
        game.close()
    return seen


def noise(games: int, seed: int) -> dict:
    """Screens of anything at all."""
    random = np.random.default_rng(seed)
    cursor = np.stack([random.integers(0, 24, games), random.integers(0, 80, games)], 1)
    return {
        "tty_chars": random.integers(0, 256, (games, 24, 80)).astype(np.uint8),
        "tty_colors": random.integers(0, 32, (games, 24, 80)).astype(np.int8),
        "tty_cursor": cursor.astype(np.uint8),
    }


@pytest.mark.parametrize("params", [10_000, 20_000, 300_000, 1_000_000])
def test_a_step_gives_what_the_policy_gives(params):
    """Of every width that has a path of its own: under eight columns, eights, eights and a rest."""
    policy = Policy(PolicyConfig.for_params(params), torch.Generator().manual_seed(1)).eval()
    fast = Inference(policy, 3)
    recall = features.no_recall(3)
    states = [np.zeros((3, policy.config.hidden), np.float32)] * LAYERS
    for seen in [*screens(120, 3), *(noise(3, seed) for seed in range(20))]:
        encoded = features.encode(*(seen[name] for name in TTY), recall)
        with torch.no_grad():
            before = torch.from_numpy(np.stack(states))
            logits, after = policy(to_tensors(encoded, 1, 3), before)
        got, states = fast.step(encoded, states)
        for expected, found in zip((logits[0], *after), (got, *states), strict=True):
            np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 5, 16, 20, 64])
def test_a_row_is_the_same_bits_in_every_place_beside_any_others(batch, shared_entry):
    agent, alone = load(shared_entry), load(shared_entry)
    seen, state = noise(64, 0), agent.initial_state(64)
    for part in state[:-1]:
        part[:] = np.random.default_rng(1).normal(size=part.shape)
    agent._batch = batch
    found: dict[int, bytes] = {}
    for order in range(6):
        rows = np.random.default_rng(order).permutation(64)[:batch]
        observation = {name: array[rows] for name, array in seen.items()}
        logits, after = agent.logits(observation, tuple(part[rows] for part in state))
        for at, row in enumerate(rows):
            bits = b"".join(array[at].tobytes() for array in (logits, *after))
            assert found.setdefault(row, bits) == bits
    alone._batch = 1  # games do not depend on the batch at all
    for row, bits in found.items():
        observation = {name: array[[row]] for name, array in seen.items()}
        logits, after = alone.logits(observation, tuple(part[[row]] for part in state))
        assert b"".join(array[0].tobytes() for array in (logits, *after)) == bits


def test_rows_that_are_no_games_are_let_be(shared_entry):
    agent, other = load(shared_entry), load(shared_entry)
    uniform = np.random.default_rng(0).random(6)
    state, expected = agent.initial_state(6), other.initial_state(6)
    state[0][1] = 7
    for step, rows in enumerate(([0, 3, 4], [4], None, [0, 1, 2, 3, 4, 5])):
        seen = noise(6, step)
        agent.rows = rows
        before = [part.copy() for part in state]
        actions, after = agent.act(seen, state, uniform)
        wanted, expected = other.act(seen, expected, uniform)
        for a, b in zip(state, before, strict=True):
            assert a.tobytes() == b.tobytes()
        if step == 0:
            assert actions[[0, 3, 4]].tolist() == wanted[[0, 3, 4]].tolist()
            assert agent.last_logits[3].tobytes() == other.last_logits[3].tobytes()
            assert (after[0][1] == 7).all()
        state = after
        if step == 1:
            assert actions[4] == wanted[4]
            assert state[-1][4].tobytes() == expected[-1][4].tobytes()


def sample(logits, uniform, temperature):
    """What `choose` is to give, in numpy's words."""
    if temperature == 0:
        return logits.argmax(-1)
    sums = cumulative(logits, temperature)
    chosen = (sums > uniform[:, None]).argmax(-1)
    chosen[uniform >= sums[:, -1]] = sums.shape[-1] - 1  # rounding may leave the last below 1
    return chosen


def test_choosing_is_sampling():
    """The keys of a plain softmax, or a neighbour's within 1e-12 of the boundary between them."""
    random = np.random.default_rng(0)
    edges = [0.0, np.nextafter(1.0, 0.0), 0.5]
    for temperature in (1.0, 0.8, 0.05, 3.0, 0):
        for scale in (0.1, 3.0, 40.0):
            logits = (scale * random.normal(size=(4_000, 121))).astype(np.float32)
            uniform = np.concatenate([edges, random.random(4_000 - len(edges))])
            chosen, plain = (
                choose(logits, uniform, temperature),
                sample(logits, uniform, temperature),
            )
            other = np.flatnonzero(chosen != plain)
            assert len(other) <= 1  # the largest number below 1
            if len(other):
                sums = cumulative(logits[other], temperature)
                assert np.abs(sums - uniform[other, None]).min() < 1e-12
    for bad in (np.nan, np.inf, -np.inf):
        logits[3, 5] = bad
        for temperature in (1.0, 0):
            with pytest.raises(ValueError, match="logits are not finite"):
                choose(logits, uniform, temperature)


def test_gates_at_their_limits_are_numbers_and_what_is_none_stays_none():
    gates = np.array([[-200, 200, -200, 200, -200, -200, 200, 200, 3, 3, 3, 3]], np.float32)
    before, after = np.ones((1, 4), np.float32), np.empty((1, 4), np.float32)
    x = np.zeros((1, 4), np.float32)
    inference._remember(gates, np.zeros(12, np.float32), before, after, x)
    np.testing.assert_allclose(after, [[2, 1, 3, 2]])
    assert (x == after).all()
    assert np.isnan(inference._relu(np.float32(np.nan)))
    for place in (0, 4, 8):
        gates = np.zeros((1, 12), np.float32)
        gates[0, place] = np.nan
        inference._remember(gates, np.zeros(12, np.float32), before, after, x)
        assert np.isnan(after[0, 0])


def test_an_agent_that_has_played_travels_without_its_buffers(tmp_path):
    agent = load(make_entry(tmp_path / "e"))
    fresh = len(pickle.dumps(agent))
    agent.act(noise(8, 0), agent.initial_state(8), np.full(8, 0.5))
    assert len(pickle.dumps(agent)) < 1.1 * fresh
    again = pickle.loads(pickle.dumps(agent))
    expected, _ = agent.logits(noise(8, 1), agent.initial_state(8))
    found, _ = again.logits(noise(8, 1), again.initial_state(8))
    np.testing.assert_array_equal(found, expected)


def test_patience_warms_an_agent_that_stands_still(tmp_path):
    """Twice the temperature after n screens of one turn, three times after 2 n."""
    folder = make_entry(tmp_path / "agent")
    config = json.loads((folder / "config.json").read_text())
    config["sampling"] = {"temperature": 0.8, "patience": 3}
    patient = load(folder)
    (folder / "config.json").write_text(json.dumps(config))
    agent = load(folder)
    assert agent.entry.sampling.patience == 3
    screens = {"tty_chars": np.full((1, 24, 80), 32, np.uint8)}
    screens["tty_colors"] = np.zeros((1, 24, 80), np.int8)
    screens["tty_cursor"] = np.zeros((1, 2), np.uint8)
    states = agent.initial_state(1), patient.initial_state(1)
    hotter = []
    for turn in (7, 7, 7, 7, 7, 7, 7, 8, 8):
        line = f"Dlvl:1 $:0 HP:9(9) Pw:1(1) AC:4 Xp:1/0 T:{turn}".encode()
        screens["tty_chars"][0, 23, : len(line)] = np.frombuffer(line, np.uint8)
        agent.act(screens, states[0], np.array([0.5]))
        _, other = patient.act(screens, states[1], np.array([0.5]))
        hotter.append(float(np.median(patient.last_logits / agent.last_logits)))
        states = other, other  # of the same past
    assert hotter == pytest.approx([1, 1, 1, 2, 2, 2, 3, 1, 1], rel=1e-5)


def test_patience_is_not_at_an_end_after_a_very_long_wait(tmp_path):
    """The count of screens stops at 65,535; nothing wraps round to a division by zero."""
    folder = make_entry(tmp_path / "agent")
    config = json.loads((folder / "config.json").read_text())
    config["sampling"] = {"temperature": 1.0, "patience": 1}
    (folder / "config.json").write_text(json.dumps(config))
    agent, screens = load(folder), noise(1, 0)
    state = agent.initial_state(1)
    state[-1][:, memory.STILL] = 65_535
    agent.act(screens, state, np.array([0.5]))
    assert np.isfinite(agent.last_logits).all()
    assert np.abs(agent.last_logits).max() < 0.01


def test_more_games_than_the_buffers_hold_are_refused(shared_entry):
    policy, seen = load(shared_entry).entry.policy, noise(40, 3)
    encoded = features.encode(*(seen[name] for name in TTY), features.no_recall(40))
    fast = Inference(policy, 1)
    for n in (40, 0):
        with pytest.raises(ValueError, match=f"{n} games, of 1 to 1"):
            fast.step(encoded, [np.zeros((n, policy.config.hidden), np.float32)] * LAYERS)
