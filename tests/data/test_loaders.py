"""Processes that read data: one order of batches for any number, and no wait for the dead."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from contextlib import closing

import numpy as np
import pytest

from nhzoo.data import loaders, packing
from nhzoo.data.batches import Streams
from nhzoo.data.loaders import BUFFERS, LoaderPool
from nhzoo.errors import InputError, NhzooError, Stopped

BATCHES = 40
"""Enough for streams to end a game in the middle of a batch, and to begin another."""


@pytest.fixture(scope="module")
def games(small_set, tmp_path_factory):
    return packing.pack(small_set, workers=2, cache=tmp_path_factory.mktemp("packed")).games


@pytest.fixture(scope="module")
def streams(games):
    """Of 10 steps and 5 rows; the options of a part and a shard are free."""
    return functools.partial(Streams, games, 10, 5, 10, 3)


def same(found, expected):
    (batch, rows), (other, others) = found, expected
    assert rows == others
    assert batch.valid == other.valid
    assert batch.inputs.keys() == other.inputs.keys()
    for name, array in other.inputs.items():
        np.testing.assert_array_equal(batch.inputs[name], array, err_msg=name)
    np.testing.assert_array_equal(batch.actions, other.actions)
    np.testing.assert_array_equal(batch.first, other.first)


def pid(pool, place=0):
    return pool._loaders[place].child.pid


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 16])
def test_batches_are_the_same_whatever_the_number(streams, count):
    alone = streams()
    with closing(LoaderPool(streams, count)) as pool:
        for _ in range(BATCHES):
            same(pool.next(), alone.next())
        assert len(pool._loaders) == min(count, 5)
    assert alone._taken > 2  # games that streams have taken after their first


@pytest.mark.slow
def test_a_share_of_several_trainers_is_read_in_parts_too(games):
    share = functools.partial(Streams, games, 12, 6, 10, 3, shard=(1, 2))
    alone = share()
    with closing(LoaderPool(share, 2)) as pool:
        for _ in range(12):
            same(pool.next(), alone.next())


@pytest.mark.slow
def test_reading_goes_on_where_a_state_was_taken(streams):
    alone = streams()
    for _ in range(7):
        alone.next()
    state = alone.state()
    with closing(LoaderPool(streams, 2)) as pool:
        for _ in range(3):
            pool.next()
        for _ in range(2):  # the second time with processes that run
            pool.restore(state)
            again = streams()
            again.restore(state)
            for _ in range(9):
                same(pool.next(), again.next())


@pytest.mark.slow
def test_one_that_is_killed_is_replaced_and_no_bit_is_lost(streams):
    alone, said = streams(), []
    with closing(LoaderPool(streams, 2, said.append)) as pool:
        for number in range(20):
            if number in (5, 6, 12):
                os.kill(pid(pool, number % 2), signal.SIGKILL)
            same(pool.next(), alone.next())
    assert 1 <= len(said) <= 3  # one that is killed twice as it starts is told once
    assert said[0] == "data loader 1 has ended (killed by SIGKILL): another takes its place"


@pytest.mark.slow
def test_one_that_is_stopped_is_not_waited_for_without_a_limit(streams, monkeypatch):
    alone, said = streams(), []

    def say(line):
        monkeypatch.undo()  # the other takes its time to start
        said.append(line)

    with closing(LoaderPool(streams, 2, say)) as pool:
        same(pool.next(), alone.next())
        monkeypatch.setattr(loaders, "HANG_SECONDS", 1.0)
        held = pid(pool)
        os.kill(held, signal.SIGSTOP)
        for _ in range(BUFFERS + 2):  # at first what it has read already
            same(pool.next(), alone.next())
        assert said == ["data loader 0 has said nothing for 1 s: another takes its place"]
        assert pid(pool) != held


@pytest.mark.slow
def test_processes_that_keep_dying_end_the_run_in_one_line(streams, monkeypatch):
    monkeypatch.setattr(loaders, "MOST_DEATHS", 1)
    monkeypatch.setattr(loaders, "_serve", _die)
    with (
        closing(LoaderPool(streams, 1)) as pool,
        pytest.raises(NhzooError, match=r"no data: 2 processes.*exit code 3.*the same command"),
    ):
        pool.next()


def _die(*args):
    os._exit(3)


@pytest.mark.slow
def test_what_a_process_cannot_read_is_said(games, tmp_path):
    damaged = []
    for path in games:
        copy = tmp_path / path.name
        copy.write_bytes(path.read_bytes())
        damaged.append(copy)
    streams = functools.partial(Streams, damaged, 4, 2, 10, 3)
    with closing(LoaderPool(streams, 2)) as pool:
        for path in damaged:
            whole = path.read_bytes()
            path.write_bytes(whole[:40] + bytes(100) + whole[140:])
        with pytest.raises(InputError, match=str(tmp_path)):
            pool.next()


@pytest.mark.slow
def test_stop_ends_a_wait_and_close_ends_the_processes(streams):
    pool = LoaderPool(streams, 1)
    pool.next()
    born = pid(pool)
    os.kill(born, signal.SIGSTOP)
    threading.Timer(0.3, pool.stop).start()
    began = time.monotonic()
    with pytest.raises(Stopped):
        functools.reduce(lambda *_: pool.next(), range(BUFFERS + 2))
    pool.close()
    assert time.monotonic() - began < 60
    with pytest.raises(ProcessLookupError):
        os.kill(born, 0)
