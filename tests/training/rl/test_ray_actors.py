"""Actors on a Ray cluster of two machines, both of them here, of which one dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from nhzoo.errors import InputError, NhzooError, Stopped
from nhzoo.runtime import cluster as ray_cluster
from nhzoo.runtime.cluster import connect
from nhzoo.training.rl import ray_actors
from nhzoo.training.rl.impala import FROM_SCRATCH, ImpalaRun
from nhzoo.training.rl.training import train_impala
from tests.training.rl.test_impala import TINY

ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    home = tmp_path_factory.mktemp("home")  # where Ray puts its token
    os.environ |= {"HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    os.environ |= {"PYTHONPATH": os.pathsep.join([os.getcwd(), before.get("PYTHONPATH", "")])}
    # Ray's workers are of niceness 15, which starves them on a machine with other work.
    os.environ |= {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.second = made.add_node(num_cpus=1)
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()
        os.environ.clear()
        os.environ |= before


def test_a_machine_dies_and_training_goes_on(cluster, tmp_path):
    config = replace(TINY, inline=False, cluster=cluster.address, actors=2, steps=1e9)
    with closing(ImpalaRun(config, tmp_path)) as run:
        for _ in range(6):
            run.step()
        assert {hand.number for hand in run.pool._pending.values()} == {0, 1}
        run.save()
        lost = run.counters.update
        cluster.remove_node(cluster.second)
        for _ in range(10):  # with the actor that is left
            run.step()
        assert run.counters.update == lost + 10
        cluster.add_node(num_cpus=1)
        seen = set()
        while len(seen) < 2:  # with a new one
            seen |= {unroll.actor for unroll in run.pool.collect(1)}
            run.pool.release()
    run_again = train_impala(replace(config, steps=40 * 20), tmp_path)
    assert run_again.updates == 20
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["update"] == 20 and rows[0]["update"] > 6  # it went on


def test_more_actors_than_the_cluster_has_cpus(cluster, tmp_path):
    config = replace(TINY, inline=False, cluster=cluster.address, actors=50)
    with pytest.raises(InputError, match=r"--actors 50: the cluster at .* has 2 CPUs"):
        ImpalaRun(config, tmp_path)


def test_no_actors_left(cluster, tmp_path, monkeypatch):
    config = replace(TINY, inline=False, cluster=cluster.address, actors=1)
    with closing(ImpalaRun(config, tmp_path)) as run:
        run.step()
        monkeypatch.setattr(ray_actors, "PATIENCE", 0.01)
        monkeypatch.setattr(run.pool._ray, "wait", lambda *given, **named: ([], []))
        with pytest.raises(NhzooError, match="no actors left: none of 1 has played"):
            run.step()
        monkeypatch.undo()


def run_on(run):
    for _ in range(4):  # what had been played already
        run.step()


def test_a_stop_ends_the_waits_and_who_is_silent_is_replaced(cluster, tmp_path, monkeypatch):
    """The only actor's process is stopped in the middle of what it plays."""
    config = replace(TINY, inline=False, cluster=cluster.address, actors=1)
    stopping, said = [], []
    with closing(
        ImpalaRun(config, tmp_path, FROM_SCRATCH, said.append, lambda: bool(stopping))
    ) as run:
        run.step()
        (hand,) = run.pool._hands.values()
        os.kill(ray.get(hand.handle.__ray_call__.remote(lambda self: os.getpid())), signal.SIGSTOP)
        monkeypatch.setattr(ray_actors, "STOP_SECONDS", 0.5)
        stopping.append(signal.SIGTERM)
        with pytest.raises(Stopped):
            run_on(run)
        began = time.monotonic()
        (state,) = run.pool.states().values()
        assert time.monotonic() - began < ray_actors.PATIENCE / 3
        assert state.numbers == [] and state.started > hand.started
        assert len(said) == 1 and "actor 0 does not tell where it stands" in said[0]
        stopping.clear()
        hand.heard -= ray_actors.PATIENCE
        run.step()
        assert said[1] == (
            "actor 0 has said nothing for 300 s: another takes its place, with new games"
        )
        assert run.pool._hands[0] is not hand


def test_an_address_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(InputError, match=r"--cluster 127.0.0.1:\d+: no Ray cluster answers"):
        connect(f"127.0.0.1:{port}")


def test_what_listens_and_is_not_ray(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray_cluster, "_ANSWER_SECONDS", 0.3)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(InputError, match=r"no Ray cluster answers \(timed out\)"),
    ):
        connect(f"127.0.0.1:{silent.getsockname()[1]}")
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as web:
        threading.Thread(target=web.handle_request).start()
        with pytest.raises(InputError, match="what listens there is none"):
            connect(f"127.0.0.1:{web.server_port}")
