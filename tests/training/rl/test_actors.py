"""Actors: what they play the learner recomputes; dying ones cost only what was in flight."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from nhzoo.envs.game import EpisodeResult
from nhzoo.errors import InputError
from nhzoo.policy.config import PolicyConfig
from nhzoo.policy.features import Features
from nhzoo.policy.network import MOVE_ACTIONS, Policy
from nhzoo.training.rl.actors import (
    Actor,
    ActorConfig,
    InlineActorPool,
    pack_states,
    take_weights,
    unpack_states,
    weights_of,
)
from nhzoo.training.rl.config import RewardShaping
from nhzoo.training.rl.envs import TrainEnvConfig
from nhzoo.training.rl.remote_actors import ProcessActorPool
from nhzoo.training.rl.rollouts import RewardScale, joined

SHAPE = PolicyConfig.for_params(20_000)
WALK = ActorConfig(SHAPE, TrainEnvConfig("tiny-walk"), games=4, time=20, seed=1)
NETHACK = replace(WALK, world=TrainEnvConfig(step_cap=45, no_progress=30))


def policy(seed=0):
    made = Policy(SHAPE, torch.Generator().manual_seed(seed))
    made.head.weight.data *= 5  # opinions
    made.head.bias.data[MOVE_ACTIONS] += 4  # mostly to walk
    return made


def unrolls_of(config, count, state=None, weights=None):
    actor = Actor(0, config, state)
    actor.load(weights_of(policy()) if weights is None else weights, 0)
    played = [actor.play(config.empty()) for _ in range(count)]
    return actor, played


def same(a, b):
    assert a.finished == b.finished
    for name, array in a.arrays.items():
        np.testing.assert_array_equal(array, b.arrays[name], err_msg=name)


@pytest.mark.parametrize(
    "config", [WALK, replace(WALK, world=TrainEnvConfig("tiny-memory")), NETHACK]
)
@pytest.mark.slow
def test_the_learner_computes_the_probabilities_that_the_actor_chose_by(config):
    """Games begin and are cut short within these unrolls, and the state goes on over their ends."""
    network = policy()
    _, played = unrolls_of(config, 4)
    begun = 0
    for unroll in played:
        arrays = joined([unroll])
        inputs = {n: torch.from_numpy(arrays[n]) for n in vars(unroll.features)}
        not_first = torch.from_numpy(~arrays["first"]).float()
        x, direction_embedding, _ = network.encode_sequence(
            inputs, torch.from_numpy(arrays["state"]), not_first
        )
        chances = (
            network.logits(inputs, x, direction_embedding)[:-1].log_softmax(-1).detach().numpy()
        )
        wanted = np.take_along_axis(chances, arrays["actions"][..., None].astype(int), -1)[..., 0]
        np.testing.assert_allclose(arrays["log_probs"], wanted, atol=2e-5)
        begun += arrays["first"][1:].sum()
    assert begun > 0


def test_unrolls_follow_on_each_other_and_a_cut_game_shows_its_last_frame():
    _, played = unrolls_of(WALK, 8)
    for before, after in pairwise(played):
        for name, array in vars(before.features).items():
            np.testing.assert_array_equal(array[-1], getattr(after.features, name)[0])
        np.testing.assert_array_equal(before.first[-1], after.first[0])
    whole = {
        name: np.concatenate([u.arrays[name][: WALK.time] for u in played])
        for name in ("first", "valid", "died", "rewards")
    }
    first, valid, died = whole["first"], whole["valid"], whole["died"]
    assert died.any() and not valid.all()
    np.testing.assert_array_equal(first[1:], (died | ~valid)[:-1])  # a game begins after its end
    assert (whole["rewards"] == died).all()
    for row in range(WALK.games):
        starts = np.flatnonzero(first[:, row])
        for begin, end in pairwise(starts):
            steps = valid[begin:end, row].sum()
            assert steps <= 12
            assert valid[end - 1, row] == died[end - 1, row]
            assert died[end - 1, row] or steps == 12
    games = [game for unroll in played for game in unroll.finished]
    assert sum(game.cut for game in games) == (~valid).sum() or not valid[-1].all()
    assert sum(game.score for game in games) == whole["rewards"].sum()


@pytest.mark.slow
@pytest.mark.parametrize("config", [WALK, NETHACK])
def test_an_actor_goes_on_to_the_same_bits(config):
    _, whole = unrolls_of(config, 6)
    for stop in (0, 1, 3):
        actor, _ = unrolls_of(config, stop)
        tensors, rest = pack_states({0: actor.state()})
        actor.close()
        _, rest_played = unrolls_of(config, 6 - stop, unpack_states(tensors, rest)[0])
        for a, b in zip(whole[stop:], rest_played, strict=True):
            same(a, b)


def test_games_that_do_not_go_as_they_went_are_begun_anew():
    """As on another machine type, where seeds give other dungeons."""
    actor, _ = unrolls_of(WALK, 2)
    state = actor.state()
    state.actions = [bytes(40)] * WALK.games  # longer than any game
    again, played = unrolls_of(WALK, 2, state)
    assert played[0].first[0].all()
    assert again.state().started > state.started


def test_new_weights_are_played_with():
    first, second = weights_of(policy(0)), weights_of(policy(3))
    actor, _ = unrolls_of(WALK, 0, weights=first)
    actor.load(second, 1)
    fresh, (wanted,) = unrolls_of(WALK, 1, weights=second)
    found = actor.play(WALK.empty())
    same(found, wanted)
    assert (found.version, wanted.version) == (1, 0)
    copied = policy(0)
    take_weights(copied, second)
    np.testing.assert_array_equal(weights_of(copied), second)
    assert fresh.number == 0


def test_processes_play_what_an_actor_here_plays():
    weights = weights_of(policy())
    inline = [InlineActorPool(WALK, 1, {}), ProcessActorPool(WALK, 1, {})]
    found = []
    for pool in inline:
        pool.publish(weights, 0)
        unrolls = []
        for _ in range(5):
            (unroll,) = pool.collect(1)
            unrolls.append((joined([unroll]), list(unroll.finished)))
            pool.release()
        found.append(unrolls)
    state = inline[1].states()[0]
    assert len(state.actions) == WALK.games
    for pool in inline:
        pool.close()
    for (a, games), (b, others) in zip(*found, strict=True):
        assert games == others
        for name, array in a.items():
            np.testing.assert_array_equal(array, b[name])


def test_more_actors_than_cores_are_refused():
    with pytest.raises(InputError, match=r"--actors 1000: this machine has \d+ cores"):
        ProcessActorPool(WALK, 1_000, {})


def test_rewards_are_scaled_by_the_root_mean_square_of_the_discounted_return():
    random = np.random.default_rng(0)
    rewards = random.normal(3, 2, (40, 2))
    ended = random.random((40, 2)) < 0.1
    first = np.concatenate([[[True, True]], ended[:-1]])
    valid = random.random((40, 2)) < 0.9
    scale = RewardScale("scaled", 0.9)
    for t in range(0, 40, 8):
        part = slice(t, t + 8)
        scale.see(0, rewards[part], valid[part], first[part])
        held = scale.state()
        scale = RewardScale("scaled", 0.9)
        scale.restore(held)
    total = 0.0
    for row in range(2):
        held = 0.0
        for t in range(40):
            if valid[t, row]:
                held = 0.9 * held + rewards[t, row]
                total += held**2
            held *= not ended[t, row]
    count = valid.sum()
    assert scale.scale == pytest.approx(((1_000 + total) / (1_000 + count)) ** 0.5)
    assert scale.apply(torch.tensor([1e9, -1e9, scale.scale])).tolist() == pytest.approx(
        [10, -10, 1]
    )
    before = scale.state()
    for _ in range(2):  # as another actor does that took the place of one that died
        scale.restore(before)
        scale.see(0, np.full((1, 2), 7.0), np.ones((1, 2), bool), np.ones((1, 2), bool))
        assert scale.state()["returns"] == {"0": [7.0, 7.0]}
    clipped = RewardScale("clipped", 0.9)
    assert clipped.apply(torch.tensor([50.0, -3.0, 0.5])).tolist() == [1, -1, 0.5]


def test_extras_sum_to_nothing_over_a_game():
    """With a discount of 1 a whole game brings minus its first potential, whatever was done."""
    potential = RewardShaping.parse("depth=50,level=20")
    path = [(1, 1), (2, 1), (3, 2), (3, 2)]
    held = [potential.of(EpisodeResult(max_depth=d, max_experience_level=v)) for d, v in path]
    steps = [after - before for before, after in zip(held, [*held[1:], 0.0], strict=True)]
    assert sum(steps) == -held[0] == -70
    assert RewardShaping.parse("").of(EpisodeResult(max_depth=9)) == 0
    for text in ("gold=3", "depth", "depth=nan", "depth=1,depht=2"):
        with pytest.raises(InputError, match=r"--extras .*depth, level"):
            RewardShaping.parse(text)


def test_nethacks_rewards_are_the_score_and_the_extras():
    plain, _ = unrolls_of(NETHACK, 3)[1], None
    extra_world = replace(NETHACK.world, extras="depth=50", discount=1.0)
    extra = unrolls_of(replace(NETHACK, world=extra_world), 3)[1]
    for a, b in zip(plain, extra, strict=True):
        np.testing.assert_array_equal(a.actions, b.actions)
        assert a.finished == b.finished  # scores know nothing of it
        np.testing.assert_array_equal(b.rewards[b.died], -50)  # all that depth had promised
        np.testing.assert_array_equal(a.rewards[~b.died & (b.rewards == a.rewards)] % 1, 0)


def test_frames_are_views():
    unroll = WALK.empty()
    unroll.frame(3).crop[:] = 7
    assert (unroll.features.crop[3] == 7).all()
    assert isinstance(unroll.frame(0), Features)
