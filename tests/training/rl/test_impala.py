"""IMPALA: it learns what can be learnt, goes on to the same bits, says in one line what fails."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch

from nhzoo.agents.loading import load
from nhzoo.data import packing
from nhzoo.errors import CheckFailed, InputError, NhzooError
from nhzoo.policy import checkpoint
from nhzoo.policy.checkpoint import load_entry
from nhzoo.policy.config import LAYERS, PolicyConfig
from nhzoo.training import loop, run_table
from nhzoo.training.rl import training
from nhzoo.training.rl.actors import InlineActorPool
from nhzoo.training.rl.config import (
    ALL,
    PLAY_IN,
    VALUE,
    ImpalaConfig,
    run_flops,
    update_flops,
)
from nhzoo.training.rl.impala import ImpalaRun
from nhzoo.training.rl.objectives import Critic, load_critic, save_critic
from nhzoo.training.rl.training import load_warm_start, train_impala
from tests.conftest import make_entry
from tests.helpers import commands

TINY = ImpalaConfig(
    steps=12 * 4 * 10,
    params=20_000,
    world="tiny-walk",
    inline=True,
    actors=2,
    games=4,
    time=10,
    unrolls=1,
    log_every=2,
    save_every=5,
)
NETHACK = replace(TINY, world="nethack", step_cap=60, no_progress=40)


def lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def steady(folder):
    """The log without what a clock decides."""
    timed = ("frames_per_second", "seconds", "waited")
    return [{k: v for k, v in row.items() if k not in timed} for row in lines(folder)]


def assert_same_weights(a, b):
    for module in ("policy", "critic"):
        held = getattr(b, module).state_dict()
        for name, tensor in getattr(a, module).state_dict().items():
            np.testing.assert_array_equal(tensor, held[name], err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world", "advantages", "steps"),
    [("tiny-walk", "scaled", 140_000), ("tiny-memory", "raw", 250_000)],
)
def test_tiny_worlds_are_solved_to_their_optimum(tmp_path, world, advantages, steps):
    """The best mean return is 1; who only walks about reaches 0.03 to 0.3, who forgets 0.5."""
    config = replace(
        TINY, world=world, advantages=advantages, steps=steps, actors=1, games=32, time=16,
        lr=3e-3, entropy_cost=3e-3, discount=0.95, log_every=50, save_every=10_000,
    )  # fmt: skip
    played = train_impala(config, tmp_path)
    assert len(played.scores) == 256
    assert played.mean_score > 0.97


@pytest.mark.slow
@pytest.mark.parametrize("config", [TINY, NETHACK])
def test_interrupted_anywhere_it_ends_with_the_same_bits(tmp_path, config):
    whole = train_impala(config, tmp_path / "whole")
    for stop in (1, 7):
        folder = tmp_path / f"stopped-{stop}"
        with closing(ImpalaRun(config, folder)) as run:
            for _ in range(stop):
                run.step()
            run.save()
        resumed = train_impala(config, folder)
        assert_same_weights(whole, resumed)
        assert (resumed.frames, resumed.games, resumed.scores) == (
            whole.frames,
            whole.games,
            whole.scores,
        )
        assert steady(folder)[-1] == steady(tmp_path / "whole")[-1]


@pytest.mark.slow
def test_more_steps_prolong_a_run(tmp_path):
    whole = train_impala(replace(TINY, steps=2 * TINY.steps), tmp_path / "whole")
    train_impala(TINY, tmp_path / "run")
    assert_same_weights(whole, train_impala(replace(TINY, steps=2 * TINY.steps), tmp_path / "run"))
    with pytest.raises(InputError, match="another lr"):
        train_impala(replace(TINY, lr=0.1), tmp_path / "run")


_TRAIN = """
import sys
from dataclasses import replace
from pathlib import Path
from nhzoo.training.rl.training import train_impala
from tests.training.rl.test_impala import TINY
if __name__ == "__main__":
    train_impala(replace(TINY, steps=1e9, inline=False, actors=1, save_every=2), Path(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_goes_on(tmp_path, number):
    folder, script = tmp_path / "run", tmp_path / "script.py"
    script.write_text(_TRAIN)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}
    process = subprocess.Popen(
        [sys.executable, os.fspath(script), os.fspath(folder)],
        stderr=subprocess.PIPE, text=True, env=env,
    )  # fmt: skip
    while not (folder / "state.safetensors").exists():
        time.sleep(0.05)
        assert process.poll() is None, process.stderr.read()
    time.sleep(1)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode != 0
    assert number == signal.SIGKILL or "the same command resumes" in errors
    config = replace(TINY, inline=False, actors=1, save_every=2, steps=1e9)
    with closing(ImpalaRun(config, folder)) as run:
        before = run.counters.update, run.episodes
        assert before[0] > 0
        (unroll,) = run.pool.collect(1)
        assert not unroll.first[0].all()  # the games go on where they were
        run.pool.release()
        run.step()
        assert run.counters.update == before[0] + 1


@pytest.mark.slow
def test_a_teacher_is_left_at_first_and_its_state_goes_on(tmp_path):
    entry = make_entry(tmp_path / "teacher", seed=4)
    config = replace(TINY, params=0, start=str(entry), teacher=str(entry), lr=1e-9, half_life=100)
    held = load_warm_start(config, [])
    with closing(ImpalaRun(config, tmp_path / "run", held)) as run:
        for _ in range(6):  # games begin, end and are cut on the way
            run.step()
            assert run._sums["teacher_kl"][-1] == pytest.approx(0, abs=1e-6)
        run.save()
    with closing(ImpalaRun(config, tmp_path / "run", held)) as run:
        run.step()
        assert run._sums["teacher_kl"][-1] == pytest.approx(0, abs=1e-6)
    assert config.faded(0.5, 0, 0) == 0.5
    assert config.faded(0.5, 100, 0) == 0.25
    assert config.faded(0.5, 10**9, 0) == pytest.approx(0.05)


@pytest.mark.slow
def test_a_policy_comes_near_its_teacher(tmp_path):
    entry = make_entry(tmp_path / "teacher", seed=4)
    config = replace(TINY, teacher=str(entry), teacher_cost=10.0, lr=3e-3, warmup=1, steps=40 * 40)
    with closing(ImpalaRun(config, tmp_path / "run", load_warm_start(config, []))) as run:
        for _ in range(40):
            run.step()
        kls = run._sums["teacher_kl"]
    assert np.mean(kls[-5:]) < 0.7 * np.mean(kls[:5])


@pytest.mark.slow
def test_demonstrations_beside_play_resume_exactly(small_set, tmp_path):
    games = packing.pack(small_set, split="train", workers=1).games
    config = replace(
        TINY, demonstrations="small", demonstration_batch=2, demonstration_time=8, steps=400
    )
    held = load_warm_start(config, games)
    whole = train_impala(config, tmp_path / "whole", held)
    with closing(ImpalaRun(config, tmp_path / "run", held)) as run:
        for _ in range(4):
            run.step()
        assert 4 < run._sums["demonstration_loss"][-1] < 6
        run.save()
    assert_same_weights(whole, train_impala(config, tmp_path / "run", held))


def test_the_value_alone_is_learnt_at_first(tmp_path):
    config = replace(TINY, value_warmup=3, warmup=1, lr=0.01)
    with closing(ImpalaRun(config, tmp_path)) as run:
        before = {k: v.clone() for k, v in run.policy.state_dict().items()}
        for _ in range(3):
            run.step()
        for name, tensor in run.policy.state_dict().items():
            np.testing.assert_array_equal(tensor, before[name])
        assert float(run.critic.bias.detach().abs()) > 0
        run.step()
        assert (run.policy.head.weight != before["head.weight"]).any()


def test_games_are_played_in_before_anything_is_learnt_and_the_run_goes_on_there(tmp_path):
    teacher = str(make_entry(tmp_path / "teacher", seed=5))
    config = replace(TINY, play_in=4, value_warmup=2, warmup=1, lr=0.01, teacher=teacher)
    held = load_warm_start(config, [])
    whole = train_impala(config, tmp_path / "whole", held)
    with closing(ImpalaRun(config, tmp_path / "run", held)) as run:
        before = [tensor.detach().clone() for tensor in run._parameters]
        for _ in range(3):
            run.step()
        assert run.counters.frames > 0 and run.scale.steps > 0 and not run.counters.losses
        run.save()
    with closing(ImpalaRun(config, tmp_path / "run", held)) as run:
        run.step()
        for tensor, old in zip(run._parameters, before, strict=True):
            np.testing.assert_array_equal(tensor.detach(), old)
        assert run.flops == run_flops(config, *run._sizes, 4)
        run.step()
        assert len(run.counters.losses) == 1
        run.save()
    assert_same_weights(whole, train_impala(config, tmp_path / "run", held))
    first = lines(tmp_path / "whole")[0]
    assert (first["update"], first["loss"], first["grad_norm"]) == (2, None, None)


def test_a_rate_that_falls_belongs_to_its_steps(tmp_path):
    config = replace(TINY, final_lr=0.1, play_in=2, value_warmup=3, warmup=2)
    rates = [config.rate(update) / config.lr for update in range(config.updates)]
    assert rates[2:4] == pytest.approx([0.5, 1], rel=0.15)
    assert rates[5] < rates[6]  # rises once more
    assert all(a > b for a, b in pairwise(rates[6:]))
    assert rates[-1] == pytest.approx(0.1, abs=1 / (config.updates - 2))
    assert replace(TINY, warmup=1).rate(10**6) == TINY.lr
    with closing(ImpalaRun(config, tmp_path)):
        pass
    with pytest.raises(InputError, match="another steps"):
        ImpalaRun(replace(config, steps=2 * config.steps), tmp_path)


def test_costs_fade_by_steps_or_by_updates():
    config = replace(TINY, half_life=100.0, floor=0.25, value_warmup=5, play_in=5)
    assert [config.faded(2.0, steps, 0) for steps in (0, 100, 10_000)] == [2.0, 1.0, 0.5]
    config = replace(config, decay=0.5)
    assert [config.faded(2.0, 10**9, update) for update in (0, 10, 11, 99)] == [2.0, 2.0, 1.0, 0.5]


def test_a_frozen_encoder_does_not_move_and_the_rest_does(tmp_path):
    config = replace(TINY, freeze="encoder", critic_hidden=5, warmup=1, lr=0.01)
    with closing(ImpalaRun(config, tmp_path / "run")) as run:
        before = {name: tensor.clone() for name, tensor in run.policy.state_dict().items()}
        run.step()
        frozen = {id(parameter) for parameter in run.policy.encoder_parameters()}
        for name, parameter in run.policy.named_parameters():
            same = bool((parameter == before[name]).all())
            assert same or id(parameter) not in frozen, name
        assert (run.policy.forget0.weight != before["forget0.weight"]).any()
        assert len(frozen) + len(run._parameters) == len(
            [*run.policy.parameters(), *run.critic.parameters()]
        )
        run.save()
    whole = train_impala(config, tmp_path / "whole")
    assert_same_weights(whole, train_impala(config, tmp_path / "run"))


def test_a_critic_of_another_width_is_begun_anew(tmp_path):
    entry = make_entry(tmp_path / "entry", seed=4)
    hidden = load_entry(entry).policy.config.hidden
    critic = Critic(hidden, 3, torch.Generator().manual_seed(1))
    save_critic(entry, critic)
    config = replace(TINY, params=0, start=str(entry), critic_hidden=3)
    kept = load_warm_start(config, []).critic
    np.testing.assert_array_equal(kept.inner.weight.detach(), critic.inner.weight.detach())
    assert load_warm_start(replace(config, critic_hidden=0), []).critic is None
    assert load_warm_start(replace(config, critic_hidden=4), []).critic is None


def test_a_teacher_waits_for_the_value_and_the_run_goes_on_there(tmp_path):
    start, teacher = (str(make_entry(tmp_path / f"entry-{n}", seed=n)) for n in (4, 5))
    config = replace(
        TINY, params=0, start=start, teacher=teacher, value_warmup=4, warmup=5, lr=0.01
    )
    held = load_warm_start(config, [])
    shape = held.start.policy.config
    with closing(ImpalaRun(config, tmp_path / "run", held)) as run:
        before = run.policy.head.weight.detach().clone()
        for _ in range(3):
            run.step()
        assert run.flops == 3 * update_flops(config, shape, shape, VALUE)
        assert run._sums["teacher_kl"][-1] > 0.01
        run.save()
    whole = train_impala(config, tmp_path / "whole", held)
    with closing(ImpalaRun(config, tmp_path / "run", held)) as run:
        run.step()
        np.testing.assert_array_equal(run.policy.head.weight.detach(), before)
        assert run.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * 4 / 5)
        run.step()
        assert run.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 / 5)
        moved = (run.policy.head.weight.detach() - before).abs().max()
        assert 0 < moved < 0.003  # Adam's first step is the rate
        run.save()
    resumed = train_impala(config, tmp_path / "run", held)
    assert_same_weights(whole, resumed)
    assert (
        whole.flops
        == resumed.flops
        == 4 * update_flops(config, shape, shape, VALUE)
        + (config.updates - 4) * update_flops(config, shape, shape)
    )


def test_an_entry_is_gone_on_with_at_the_temperature_at_which_it_samples(tmp_path):
    entry = str(make_entry(tmp_path / "cool", seed=4, temperature=0.25))
    config = replace(TINY, params=0, start=entry, teacher=entry)
    held = load_warm_start(config, [])
    with closing(ImpalaRun(config, tmp_path / "run", held)) as run:
        (unroll,) = run.pool.collect(1)
        inputs = {name: torch.from_numpy(array) for name, array in vars(unroll.features).items()}
        not_first = torch.from_numpy(~unroll.first).float()
        policy = held.start.policy
        x, direction_embedding, _ = policy.encode_sequence(
            inputs, torch.from_numpy(unroll.state), not_first
        )
        chances = (
            (policy.logits(inputs, x, direction_embedding)[:-1] / 0.25).log_softmax(-1).detach()
        )
        wanted = chances.gather(-1, torch.from_numpy(unroll.actions).long()[..., None])[..., 0]
        np.testing.assert_allclose(unroll.log_probs, wanted, atol=2e-5)
        run.step()
        assert run._sums["teacher_kl"][-1] == pytest.approx(0, abs=1e-6)


def test_the_loss_is_what_plain_loops_make_of_each_game(tmp_path):
    """Games of an unroll taken apart: a death is worth nothing more, a cut its last frame."""
    config = replace(
        TINY, time=30, games=6, actors=1, value_cost=0.7, entropy_cost=0.2, discount=0.9,
        advantages="raw",
    )  # fmt: skip
    random = np.random.default_rng(0)
    with closing(ImpalaRun(config, tmp_path)) as run:
        run.critic.weight.data[:] = torch.from_numpy(random.normal(0, 0.3, run.critic.weight.shape))
        (unroll,) = run.pool.collect(1)
        unroll.rewards[:] = random.normal(size=unroll.rewards.shape) * unroll.valid
        unroll.log_probs += random.normal(0, 0.5, unroll.log_probs.shape)  # another's
        assert unroll.died.any() and not unroll.valid.all()
        batch = {name: torch.from_numpy(array) for name, array in unroll.arrays.items()}
        _, parts = run._loss(batch, [unroll])
        found = [float(part) for part in parts[:3]]
        inputs = {name: batch[name] for name in vars(unroll.features)}
        x, direction_embedding, _ = run.policy.encode_sequence(
            inputs, batch["state"], (~batch["first"]).float()
        )
        chances = (
            run.policy.logits(inputs, x, direction_embedding)
            .log_softmax(-1)
            .double()
            .detach()
            .numpy()
        )
        values = run.critic(x).double().detach().numpy()
    policy_loss = value_loss = entropy = 0.0
    count = 0
    for b in range(config.games):
        begin = 0
        for t in range(config.time):
            over, cut = unroll.died[t, b], not unroll.valid[t, b]
            if not (over or cut or t == config.time - 1):
                continue
            end = t if cut else t + 1  # steps of this game: begin to end, without end
            after = 0.0 if over else values[end, b]
            worth, next_value = after, after
            for s in range(end - 1, begin - 1, -1):
                log_prob = chances[s, b, unroll.actions[s, b]]
                rho = min(1.0, np.exp(log_prob - unroll.log_probs[s, b]))
                reward = min(10.0, max(-10.0, unroll.rewards[s, b] / run.scale.scale))
                advantage = rho * (reward + 0.9 * worth - values[s, b])
                policy_loss -= log_prob * advantage
                delta = rho * (reward + 0.9 * next_value - values[s, b])
                worth = values[s, b] + delta + 0.9 * rho * (worth - next_value)
                next_value = values[s, b]
                value_loss += 0.5 * (worth - values[s, b]) ** 2
                entropy -= (np.exp(chances[s, b]) * chances[s, b]).sum()
                count += 1
            begin = t + 1
    assert count == unroll.valid.sum()
    wanted = [policy_loss / count, value_loss / count, entropy / count]
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_what_a_run_comes_to(tmp_path):
    config = replace(NETHACK, checkpoints="1", extras="depth=50")
    rows = []
    played = train_impala(
        config, tmp_path / "run", checkpoint=lambda p: rows.append(
            training.played_row(p, "agent"))
    )  # fmt: skip
    rows.append(training.played_row(played, "agent"))
    assert [row.checkpoint for row in rows] == [True, False]
    assert rows[1].kind == "rl" and rows[1].samples == played.frames
    assert rows[1].depth == LAYERS
    assert rows[1].flops == played.updates * update_flops(config, played.policy.config)
    assert rows[1].mean_return == played.mean_score
    table = tmp_path / "runs.jsonl"
    for row in rows:
        assert run_table.append_row(table, row)
    assert run_table.read_runs(table) == rows
    folder = tmp_path / "agent"
    training.publish_played(
        *(played, folder, checkpoint.Sampling(), "debug", "nhzoo train impala"),
        tmp_path / "run" / "log.jsonl",
    )
    agent = load(folder)  # plays without its critic
    critic = Critic(agent.entry.policy.config.hidden)
    assert load_critic(folder, critic)
    assert_same_weights(replace(played, critic=critic), played)
    about = agent.entry.config["training"]
    assert (about["method"], about["extras"]) == ("impala", "depth=50")
    assert "depth=50" in (folder / "README.md").read_text()
    again = replace(TINY, params=0, start=str(folder))
    held = load_warm_start(again, [])
    np.testing.assert_array_equal(held.critic.weight.detach(), played.critic.weight.detach())
    (folder / "critic.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"critic.safetensors: cannot be used"):
        load_warm_start(again, [])
    (folder / "critic.safetensors").unlink()
    assert load_warm_start(again, []).critic is None
    assert checkpoint.load_entry(folder).config["params"] == played.policy.config.params


def test_a_step_costs_what_its_parts_cost():
    shape, other = PolicyConfig.for_params(20_000), PolicyConfig.for_params(100_000)
    steps, frames = 4 * 10, 4 * 11
    plain = (
        steps * shape.forward_flops
        + frames * (shape.train_flops + 6 * shape.hidden)
        + 16 * (shape.params + shape.hidden + 1)
    )
    assert update_flops(TINY, shape) == plain
    assert update_flops(TINY, shape, other) == plain + steps * other.forward_flops
    config = replace(TINY, demonstrations="x", demonstration_batch=2, demonstration_time=8)
    assert update_flops(config, shape) == plain + 16 * shape.train_flops
    assert update_flops(config, shape, phase=VALUE) == (
        (steps + frames) * shape.forward_flops + 4 * frames * shape.hidden + 16 * (shape.hidden + 1)
    )
    assert update_flops(config, shape, other, PLAY_IN) == steps * (
        shape.forward_flops + other.forward_flops
    )
    hidden = replace(TINY, critic_hidden=7)
    value, critic = 2 * 7 * (shape.hidden + 1), 7 * (shape.hidden + 2) + 1
    assert update_flops(hidden, shape) == plain + 3 * frames * (value - 2 * shape.hidden) + 16 * (
        critic - shape.hidden - 1
    )
    assert sum(p.numel() for p in Critic(shape.hidden, 7).parameters()) == critic
    frozen = replace(TINY, freeze="encoder")
    assert update_flops(frozen, shape) == (
        plain - frames * (shape.train_flops - shape.core_train_flops) - 16 * shape.encoder_params
    )
    phased = replace(TINY, play_in=2, value_warmup=3)
    parts = [update_flops(phased, shape, None, phase) for phase in (PLAY_IN, VALUE, ALL)]
    assert run_flops(phased, shape, None, 7) == 2 * parts[0] + 3 * parts[1] + 2 * parts[2]
    assert run_flops(phased, shape, None, 1) == parts[0]


def test_a_diverging_loss_stops_the_run_and_the_last_state_is_safe(tmp_path):
    with closing(ImpalaRun(TINY, tmp_path)) as run:
        run.step()
        run.save()
        run.critic.bias.data[:] = float("nan")
        with pytest.raises(CheckFailed, match="update 1: the loss is nan"):
            run.step()
    with closing(ImpalaRun(TINY, tmp_path)) as run:
        assert run.counters.update == 1
        run.counters.alarm.mean = 0.1
        run.save = lambda: pytest.fail("a state whose loss explodes was saved")
        run.counters.updates, run.config = 100, replace(TINY, save_every=1, value_cost=1e9)
        run.critic.bias.data[:] = 1e3
        with pytest.raises(CheckFailed, match=r"was .* or so for 30 updates"):
            loop.Loop(run, None, print, print, print).go([])
    with closing(ImpalaRun(TINY, tmp_path)) as run:
        assert run.counters.update == 1


def test_actors_end_when_the_first_weights_cannot_be_published(tmp_path, monkeypatch):
    closed = []

    def fail(self, weights, version):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(InlineActorPool, "publish", fail)
    monkeypatch.setattr(InlineActorPool, "close", lambda pool: closed.append(pool))
    with pytest.raises(OSError, match="No space"):
        ImpalaRun(TINY, tmp_path)
    assert len(closed) == 1


@pytest.mark.parametrize("actors", [{"inline": True, "actors": 2}, {"inline": False, "actors": 1}])
@pytest.mark.slow
def test_a_rate_at_which_nothing_is_learnt_ends_in_a_line(tmp_path, actors):
    config = replace(TINY, lr=1e15, warmup=1, save_every=1_000, steps=1e6, **actors)
    with pytest.raises(NhzooError, match=r"diverged|not finite|the loss") as error:
        train_impala(config, tmp_path)
    assert "\n" not in str(error.value) and "--lr" in str(error.value)


def test_teachers_that_cannot_be_used(tmp_path):
    entry = make_entry(tmp_path / "teacher")
    config = json.loads((entry / "config.json").read_text())
    for field, value in (("architecture", "other-lstm"), ("action_table_sha256", "0" * 64)):
        (entry / "config.json").write_text(json.dumps(config | {field: value}))
        with pytest.raises(InputError, match=f"--teacher .*: {field} is") as error:
            load_warm_start(replace(TINY, teacher=str(entry)), [])
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"--start .nobody.: is no entry"):
        load_warm_start(replace(TINY, params=0, start="nobody"), [])


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"steps": float("nan")},
        {"params": 0},
        {"params": 5},
        {"start": "x"},
        {"actors": 0},
        {"games": 0},
        {"time": 0},
        {"discount": 1.5},
        {"lr": 0.0},
        {"rewards": "squared"},
        {"advantages": "none"},
        {"world": "chess"},
        {"extras": "gold=1"},
        {"cluster": "auto"},
        {"floor": 2.0},
        {"final_lr": 1.5},
        {"decay": 1.5},
        {"freeze": "core"},
        {"critic_hidden": -1},
        {"play_in": -1},
        {"play_in": 10**6},
        {"half_life": 0.0},
        {"checkpoints": "2,3"},
        {"entropy_cost": float("inf")},
    ],
)
def test_options_that_cannot_be(options):
    with pytest.raises(InputError):
        replace(TINY, **options)


def test_the_command_line(tmp_path):
    common = ("--params", 20_000, "--world", "tiny-walk", "--games", 4, "--time", 8)
    where = ("--run", tmp_path / "run", "--out", tmp_path / "agent")
    run = partial(commands.run, "train", "impala", *common, "--steps", 200)
    done = run("--inline", *where, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["kind"] == "rl"
    assert "nhzoo train impala" in (tmp_path / "agent" / "README.md").read_text()
    for words, wanted in (
        (("--actors", 1_000), "--actors 1000: this machine has"),
        (("--teacher", "nobody"), "--teacher 'nobody': is no entry"),
        (("--inline", "--extras", "gold=1"), "--extras gold=1"),
    ):
        done = run(*where[2:], "--run", tmp_path / "other", *words)
        assert done.returncode == 2
        (line,) = done.stderr.strip().splitlines()
        assert wanted in line


def test_torchrun_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(training.distributed, "world", lambda: 2)
    with pytest.raises(InputError, match="one learner"):
        train_impala(TINY, tmp_path)


def test_the_policy_reads_a_game_that_begins_within_a_batch_as_if_alone():
    from nhzoo.policy.features import Features
    from nhzoo.policy.network import Policy, to_tensors

    random = np.random.default_rng(0)
    policy = Policy(PolicyConfig.for_params(20_000), torch.Generator().manual_seed(0))
    features = Features.empty(6, 2)
    for array in vars(features).values():
        array[:] = random.integers(0, 2, array.shape)
    inputs = to_tensors(features, 6, 2)
    not_first = torch.ones(6, 2)
    not_first[4] = 0
    state = torch.randn(3, 2, policy.config.hidden)
    x, direction_embedding, after = policy.encode_sequence(inputs, state, not_first)
    late = {name: tensor[4:] for name, tensor in inputs.items()}
    logits, alone = policy({k: v.contiguous() for k, v in late.items()}, policy.initial_state(2))
    found = policy.logits(inputs, x, direction_embedding)[4:].detach()
    torch.testing.assert_close(found, logits.detach(), rtol=0, atol=1e-6)
    torch.testing.assert_close(after, alone)
