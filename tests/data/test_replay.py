"""Replays: deep expert games, screen by screen, under another clock."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from nhzoo.data.traces import Diverged, bundled_names, frame_hash, open_traces, replay
from nhzoo.envs.actions import TTY
from nhzoo.envs.game import Game
from nhzoo.errors import InputError

DEEP = ("1000000", "1000001", "1000020")  # 38 to 57 thousand keys; the clock shows in each


def run_out(trace, game=None) -> int:
    return sum(1 for _ in replay(trace, game or Game()))


HELD_OUT_MONKS = {
    *("1000001", "1000015", "1000026", "1000051", "2000028"),
    *("2000030", "2000031", "2000051", "2000062"),
}
"""Fixed before anything was trained: they never move, whatever is added to the dataset."""


@pytest.mark.parametrize("name", bundled_names())
def test_a_bundled_set_is_whole(name):
    traces = open_traces(name).traces
    splits = {"validation"} if name.endswith("-validation") else {"train", "validation"}
    assert {trace.split for trace in traces} == splits
    assert len({trace.sha256 for trace in traces}) == len(traces)
    for trace in traces:
        assert hashlib.sha256(trace.keys()).hexdigest() == trace.sha256
        assert -(-trace.length // 1000) - len(trace.frame_hashes) in (0, 1)  # none of a tombstone


def test_the_monk_set_is_large_and_its_held_out_games_stay():
    traces = open_traces("autoascend-monk-v1")
    assert sum(trace.length for trace in traces.traces) == 8_116_997
    assert {trace.game for trace in traces.select("validation")} == HELD_OUT_MONKS


@pytest.mark.parametrize("name", bundled_names())
def test_seeds_of_recorded_games_are_their_own(name):
    """By the contract's rule, distinct, no protocol's, none of the range of other expert data."""
    from nhzoo.envs.protocols import PROTOCOLS, seeds_of

    specs = [trace.spec for trace in open_traces(name).traces]
    assert len({spec.core for spec in specs}) == len(specs)
    played = {
        protocol.game(i).core for protocol in PROTOCOLS.values() for i in range(protocol.games)
    }
    assert played.isdisjoint(spec.core for spec in specs)
    recorded = [trace for trace in open_traces(name).traces if trace.agent is not None]
    assert recorded
    for trace in recorded:
        seeds = trace.spec.core, trace.spec.disp
        assert seeds == seeds_of(f"nhzoo:data:{name}:{trace.game}")
        assert not any(1_000_000 <= seed < 3_000_000 for seed in seeds)


def test_a_short_expert_game_replays_with_its_hashes():
    traces = open_traces("autoascend-monk-v1").traces
    shortest = min(traces, key=lambda trace: trace.length)
    assert run_out(shortest) == shortest.length


def test_another_seed_or_clock_or_key_diverges():
    shortest = min(open_traces("autoascend-monk-v1").traces, key=lambda trace: trace.length)
    for other in (
        replace(shortest, spec=replace(shortest.spec, core=5)),
        replace(shortest, score=shortest.score + 100),
        replace(shortest, frame_hashes=(*shortest.frame_hashes[:2], "0" * 16)),
    ):
        with pytest.raises(Diverged, match=shortest.game):
            run_out(other)
    with pytest.raises(InputError, match="SHA-256"):
        run_out(replace(shortest, sha256="0" * 64))
    with pytest.raises(InputError, match="keys"):
        run_out(replace(shortest, length=shortest.length + 1))


_DIGEST = """
import hashlib, sys, time
from nhzoo.envs.game import Game
from nhzoo.data.traces import frame_hash, replay
from nhzoo.data.traces import open_traces
traces = {trace.game: trace for trace in open_traces("autoascend-monk-v1").traces}
for name in sys.argv[1:]:
    digest, game = hashlib.sha256(), Game()
    for frame, key in replay(traces[name], game):
        if not game.over:  # the tombstone shows the year
            digest.update(frame_hash(frame).encode())
    print(name, digest.hexdigest())
print(int(time.time()), file=sys.stderr)
"""

_SHIM = """
#include <stddef.h>
#include <time.h>
#include <sys/time.h>
time_t time(time_t *t) { time_t now = 951868800; if (t) *t = now; return now; }
int gettimeofday(struct timeval *tv, void *tz) {
    if (tv) { tv->tv_sec = 951868800; tv->tv_usec = 0; } return 0; }
"""


@pytest.mark.slow
def test_deep_expert_games_replay_screen_by_screen_under_a_faked_clock(tmp_path):
    """Every screen of three deep games, now and on a leap day in 2000 with another moon."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("no C compiler to build the clock shim with")
    source, shim = tmp_path / "clock.c", tmp_path / "clock.so"
    source.write_text(_SHIM)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", shim, source], check=True)
    digests = []
    for preload in ({}, {"LD_PRELOAD": os.fspath(shim)}):
        done = subprocess.run(
            [sys.executable, "-c", _DIGEST, *DEEP],
            env=os.environ | preload,
            capture_output=True,
            text=True,
            check=True,
        )
        digests.append(done.stdout)
    assert digests[0] == digests[1]
    assert digests[0].count("\n") == len(DEEP)


@pytest.mark.slow
def test_without_the_pin_a_deep_game_shows_other_screens():
    """The test above would mean nothing if the clock did not matter: unpinned, it does."""
    traces = {trace.game: trace for trace in open_traces("autoascend-monk-v1").traces}
    differing = 0
    for name in DEEP:
        other = replace(traces[name].spec, ubirthday=1_000_000_000)
        frames = zip(
            replay(replace(traces[name], frame_hashes=()), Game()),
            _lenient(replace(traces[name], spec=other, frame_hashes=(), score=None)),
            strict=False,
        )
        differing += any(frame_hash(a[0]) != b for a, b in frames)
    assert differing == len(DEEP)


def _lenient(trace):
    game = Game(TTY)
    try:
        for frame, _ in replay(trace, game):
            yield frame_hash(frame)
    except Diverged:
        return


@pytest.mark.slow
def test_games_of_the_shared_folder_replay_too(expert_monk):
    traces = open_traces(expert_monk)
    for trace in sorted(traces.traces, key=lambda trace: trace.length)[:3]:
        assert run_out(trace) == trace.length


BAD = {
    "seeds": {"seeds": {"core": -1, "disp": 1, "reseed": False, "lgen": None}},
    "huge seed": {"seeds": {"core": 1 << 70, "disp": 1, "reseed": False, "lgen": None}},
    "reseeded": {"seeds": {"core": 1, "disp": 1, "reseed": True, "lgen": None}},
    "path": {"game": "../../etc/passwd"},
    "no keys": {"keys": 0},
    "clock": {"ubirthday": "now"},
    "moon": {"fix_moon_phase": False},
    "options": {"character": "mon,wizard:yes"},
    "player": {"playername": "x,playmode:debug"},
    "score": {"env_score": "lots"},
    "hashes": {"frame_hashes": "abc"},
    "boolean": {"keys": True},
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD.keys())
def test_unusable_trace_sets_give_one_clear_line(small_set, tmp_path, change):
    import json

    folder = tmp_path / "bad"
    shutil.copytree(small_set, folder)
    lines = (folder / "games.jsonl").read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | change)
    (folder / "games.jsonl").write_text("\n".join(lines))
    with pytest.raises(InputError) as caught:
        open_traces(folder)
    assert "\n" not in str(caught.value)
    assert "game 2" in str(caught.value)


def test_damaged_keys_are_named(small_set, tmp_path):
    folder = tmp_path / "bad"
    shutil.copytree(small_set, folder)
    path = folder / "keys" / "0.xz"
    whole = path.read_bytes()
    for damaged, reason in (
        (whole[:-9], "truncated"),
        (b"not xz at all", "not valid xz"),
        (whole + b"more", "after the xz data"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=reason):
            open_traces(folder).traces[0].keys()
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        open_traces(folder).traces[0].keys()
    path.symlink_to("/etc/hostname")
    with pytest.raises(InputError, match="outside"):
        open_traces(folder).traces[0].keys()
    assert open_traces(folder).traces[1].keys()  # the rest stays usable
