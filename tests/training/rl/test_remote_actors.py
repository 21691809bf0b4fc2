"""Actors held or killed at the worst moments: nobody waits for them without a limit."""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.spawn
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nhzoo.errors import NhzooError, Stopped
from nhzoo.runtime.channels import Channel
from nhzoo.training.rl import remote_actors
from nhzoo.training.rl.actors import (
    Actor,
    ActorState,
    most_started,
    pack_states,
    unpack_states,
    weights_of,
)
from nhzoo.training.rl.envs import TrainEnvConfig
from nhzoo.training.rl.impala import ImpalaRun
from nhzoo.training.rl.remote_actors import ProcessActorPool, SharedWeights
from tests.training.rl.test_actors import WALK, policy
from tests.training.rl.test_impala import TINY, lines

LONG = 120.0  # seconds that no wait of these tests takes


def state_of(pid):
    """R, S, T (stopped), Z or, of a process that is gone, nothing."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def until(true, limit=LONG):
    deadline = time.monotonic() + limit
    while not true():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.02)


def _once():
    """Whether this is the first actor of its test that asks."""
    try:
        os.close(os.open(os.environ["HELD"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _held_reading(*arguments):
    """Stops in the middle of its copy of the weights."""
    copy = SharedWeights._copy

    def half(self, place):
        copied = copy(self, place)
        if _once():
            os.kill(os.getpid(), signal.SIGSTOP)
        return copied

    SharedWeights._copy = half
    remote_actors._serve(*arguments)


def _held_speaking(*arguments):
    """Stops in the middle of the message that its first unroll is played."""
    send = Channel.send

    def half(self, message):
        if message[0] == "unroll" and _once():
            data = bytes(1_000)
            self._socket.send(len(data).to_bytes(8, "little") + data[:300])
            os.kill(os.getpid(), signal.SIGSTOP)
        send(self, message)

    Channel.send = half
    remote_actors._serve(*arguments)


def _held_telling(*arguments):
    """Stops when it is asked for its state, having told nothing of it."""
    state = Actor.state

    def held(self):
        if _once():
            os.kill(os.getpid(), signal.SIGSTOP)
        return state(self)

    Actor.state = held
    remote_actors._serve(*arguments)


@pytest.fixture(autouse=True)
def _held(tmp_path, monkeypatch):
    monkeypatch.setenv("HELD", os.fspath(tmp_path / "held"))


@contextmanager
def pool_of(monkeypatch, serve=None, actors=1, stop=lambda: False, **limits):
    """A pool, and what it says. Limits hold until it has replaced an actor: that one must start."""
    said = []
    if serve:
        monkeypatch.setattr(remote_actors, "_serve", serve)
    before = {name: getattr(remote_actors, name) for name in limits}

    def say(line):
        said.append(line)
        for name, value in before.items():
            monkeypatch.setattr(remote_actors, name, value)

    pool = ProcessActorPool(WALK, actors, {}, stop, say)
    pool.limit = lambda: [monkeypatch.setattr(remote_actors, *item) for item in limits.items()]
    try:
        yield pool, said
    finally:
        pool.close()


def pid(pool, number=0):
    return pool._hands[number].child.pid


@pytest.mark.slow
def test_an_actor_killed_while_it_reads_the_weights_holds_up_nobody(monkeypatch):
    """The other actor plays on with new weights, and the killed one is replaced."""
    actors = min(2, len(os.sched_getaffinity(0)))
    weights = weights_of(policy())
    with pool_of(monkeypatch, _held_reading, actors) as (pool, said):
        pool.publish(weights, 0)
        pids = [hand.child.pid for hand in pool._hands]
        until(lambda: any(state_of(p) == "T" for p in pids))
        held = next(n for n, p in enumerate(pids) if state_of(p) == "T")
        for version in range(1, 4):
            pool.publish(weights + version, version)
        if actors == 2:
            for _ in range(6):
                (unroll,) = pool.collect(1)
                assert unroll.actor != held
                pool.release()
            assert unroll.version == 3
        os.kill(pids[held], signal.SIGKILL)
        replaced = None
        while not replaced:
            (unroll,) = pool.collect(1)
            replaced = unroll if unroll.actor == held else None
            pool.release()
        assert replaced.version == 3 and replaced.first[0].all()
        assert replaced.started > most_started(WALK, remote_actors.BUFFERS)
        assert said == [
            f"actor {held} has ended (killed by SIGKILL): another takes its place, with new games"
        ]
        assert set(pool.states()) == set(range(actors))


@pytest.mark.slow
def test_an_actor_stopped_in_the_middle_of_a_message_is_replaced(monkeypatch):
    with pool_of(monkeypatch, _held_speaking, START_SECONDS=0.5) as (pool, said):
        pool.publish(weights_of(policy()), 0)
        held = pid(pool)
        until(lambda: state_of(held) == "T")
        pool.limit()
        (unroll,) = pool.collect(1)
        assert unroll.first[0].all() and unroll.started > most_started(WALK, 2)
        assert said == [
            "actor 0 has said nothing for 0.5 s: another takes its place, with new games"
        ]
        assert pid(pool) != held and state_of(held) == ""


@pytest.mark.slow
def test_states_do_not_wait_for_an_actor_that_is_stopped(monkeypatch):
    """It owes no unroll: only what it is asked here."""
    with pool_of(monkeypatch, _held_telling, HANG_SECONDS=0.5) as (pool, said):
        pool.publish(weights_of(policy()), 0)
        unrolls = pool.collect(2)
        started = unrolls[-1].started
        pool.limit()
        (state,) = pool.states().values()
        assert (state.numbers, state.started) == ([], started + most_started(WALK, 2))
        assert len(said) == 1 and "actor 0 has said nothing for 0.5 s" in said[0]
        pool.release()
        assert pool.collect(1)[0].started > state.started
        assert len(pool.states()[0].numbers) == WALK.games


@pytest.mark.slow
def test_a_stop_ends_the_waits(monkeypatch):
    stopping = []
    monkeypatch.setattr(remote_actors, "STOP_SECONDS", 0.5)
    with pool_of(monkeypatch, stop=lambda: bool(stopping)) as (pool, said):
        pool.publish(weights_of(policy()), 0)
        for number in (signal.SIGTERM, signal.SIGINT):  # to all processes, as Ctrl-C: not for them
            os.kill(pid(pool), number)
        pool.collect(2)
        assert not said
        os.kill(pid(pool), signal.SIGSTOP)
        pool.release()
        stopping.append(signal.SIGTERM)
        began = time.monotonic()
        with pytest.raises(Stopped):
            pool.collect(1)
        (state,) = pool.states().values()
        assert time.monotonic() - began < remote_actors.HANG_SECONDS / 3
        assert not state.numbers
        assert len(said) == 1 and "actor 0 does not tell within 0.5 s where it stands" in said[0]


def test_an_actor_that_has_not_begun_stands_where_it_was_to_begin(monkeypatch):
    """A stop does not wait for games that are being played again, nor loses them."""
    actor = Actor(0, WALK)
    actor.load(weights_of(policy()), 0)
    actor.play(WALK.empty())
    state = actor.state()
    actor.close()
    with closing(ProcessActorPool(WALK, 1, {0: state}, lambda: True)) as pool:
        pool.publish(weights_of(policy()), 0)
        assert pool.states() == {0: state}


def test_a_process_that_is_stopped_as_it_is_born_does_not_hold_the_learner(tmp_path):
    """Games of a state fill the pipe through which a child gets its arguments."""
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nkill -STOP $$\n")
    script.chmod(0o755)
    state = ActorState.new_games(0)
    state.actions = [bytes([row]) * 200_000 for row in range(WALK.games)]
    before = multiprocessing.spawn.get_executable()
    multiprocessing.spawn.set_executable(os.fspath(script))
    try:
        with closing(ProcessActorPool(WALK, 1, {0: state})) as pool:
            born = pid(pool)
            pool.publish(weights_of(policy()), 0)
            until(lambda: state_of(born) == "T")
            assert pool._hands[0].child._channel.unsent > 0
        assert state_of(born) == ""
    finally:
        multiprocessing.spawn.set_executable(before)


@pytest.mark.slow
def test_no_actors_left(monkeypatch):
    monkeypatch.setattr(remote_actors, "MOST_DEATHS", 1)
    monkeypatch.setattr(remote_actors, "_serve", _die)
    pool = ProcessActorPool(WALK, 1, {})
    try:
        pool.publish(weights_of(policy()), 0)
        with pytest.raises(NhzooError, match=r"no actors left: 2 ended.*exit code 3"):
            pool.collect(1)
    finally:
        pool.close()


def _die(*args):
    os._exit(3)


@pytest.mark.slow
def test_what_an_actor_raises_is_said():
    config = replace(WALK, world=TrainEnvConfig("chess"))
    pool = ProcessActorPool(config, 1, {})
    try:
        pool.publish(weights_of(policy()), 0)
        with pytest.raises(NhzooError, match=r"actor 0: --world chess"):
            pool.collect(1)
    finally:
        pool.close()


@pytest.mark.slow
def test_what_the_learner_itself_stood_still_for_does_not_count(monkeypatch):
    monkeypatch.setattr(remote_actors, "_LOOK", 0.01)
    with pool_of(monkeypatch) as (pool, said):
        pool.publish(weights_of(policy()), 0)
        pool.collect(2)
        pool.release()
        hand = pool._hands[0]
        os.kill(hand.child.pid, signal.SIGSTOP)
        hand.child.messages()
        pool._looked -= 1_000.0  # as when the learner was stopped for so long
        hand.heard -= 1_000.0
        pool._listen()
        assert pool._hands == [hand] and not said
        hand.heard -= remote_actors.HANG_SECONDS
        pool._listen()
        assert pool._hands != [hand] and len(said) == 1


def test_states_of_new_games_are_kept():
    states = {3: ActorState.new_games(17)}
    found = unpack_states(*pack_states(states))
    assert found[3].started == 17 and found[3].numbers == [] and found[3].actions == []
    actor = Actor(3, WALK, found[3])
    assert actor.state().numbers == [17, 18, 19, 20]
    actor.close()


def shared(size=1_000):
    made = SharedWeights(multiprocessing.get_context("spawn"), size)
    made.write(np.zeros(size, np.float32), 0)
    return made


def test_weights_that_are_written_while_they_are_read_are_read_again(monkeypatch):
    held, times = shared(), []

    def torn(place):
        copied = np.array(held._weights[place])
        if len(times) < 3:  # the writer comes to this place again in the middle
            times.append(place)
            for _ in range(2):
                version = int(held._marks[:, 2].max()) + 1
                held.write(np.full(1_000, version, np.float32), version)
            copied[500:] = held._weights[place][500:]
        return copied

    monkeypatch.setattr(held, "_copy", torn)
    weights, version = held.read(-1)
    assert len(times) == 3 and version == 6
    np.testing.assert_array_equal(weights, np.full(1_000, 6, np.float32))
    assert held.read(6) is None
    monkeypatch.setattr(held, "_copy", lambda place: np.arange(1_000, dtype=np.float32))
    assert held.read(-1) is None  # bytes that are torn though the counts are in order


def test_a_writer_that_stands_still_does_not_hold_readers():
    held = shared()
    held.write(np.full(1_000, 1, np.float32), 1)

    class Still:
        def __array__(self, *given, **named):
            assert held.read(-1)[1] == 1  # in the middle of writing
            return np.full(1_000, 2, np.float32)

    held.write(Still(), 2)
    assert held.read(1)[1] == 2


_TRAIN = """
import sys
from dataclasses import replace
from pathlib import Path
from nhzoo.training.rl import remote_actors as process_actors
from nhzoo.training.loop import DivergenceDetector
from nhzoo.training.rl.training import train_impala
from nhzoo.training.loop import Interrupted
from tests.training.rl.test_impala import TINY
process_actors.STOP_SECONDS = 1.0
if __name__ == "__main__":
    config = replace(TINY, steps=1e9, inline=False, actors=1, save_every=1000)
    # A high loss is saved as well.
    DivergenceDetector.see = lambda self, loss, norm: setattr(self, "high", 1)
    try:
        train_impala(config, Path(sys.argv[1]), say=lambda line: print(line, flush=True))
    except Interrupted as stop:
        print(stop)
        sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_whose_only_actor_is_stopped_ends_when_asked_to_with_its_state(tmp_path, number):
    folder, script = tmp_path / "run", tmp_path / "script.py"
    script.write_text(_TRAIN)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}
    process = subprocess.Popen(
        [sys.executable, os.fspath(script), os.fspath(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env,
    )  # fmt: skip
    try:
        log = folder / "log.jsonl"
        until(
            lambda: (
                process.poll() is not None
                or (log.exists() and len(log.read_text().splitlines()) > 2)
            )
        )
        assert process.poll() is None, process.communicate()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        actors = [p for p in children if b"spawn_main" in Path(f"/proc/{p}/cmdline").read_bytes()]
        assert len(actors) == 1
        os.kill(int(actors[0]), signal.SIGSTOP)
        time.sleep(1.0)  # the learner takes what has been played, then waits
        process.send_signal(number)
        out, errors = process.communicate(timeout=LONG)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert errors == ""
    silent, stopped = out.splitlines()
    assert silent.startswith("actor 0 does not tell within 1 s where it stands")
    update = int(re.fullmatch(r"stopped after update (\d+); the same command resumes", stopped)[1])
    assert state_of(actors[0]) == ""
    with closing(ImpalaRun(replace(TINY, save_every=1000), folder)) as run:
        assert run.counters.update == update > 0
        assert run.counters.frames <= update * TINY.time * TINY.games
        assert run.pool._actors[0].state().started > WALK.games
    assert json.loads(log.read_text().splitlines()[-1])["update"] <= update
    assert lines(folder)[0]["update"] == TINY.log_every
