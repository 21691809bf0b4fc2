"""The determinism study: deep games replayed in three passes that should not differ in anything.

    python -m tests.helpers.determinism                         # 128 games of autoascend-monk-v1
    python -m tests.helpers.determinism leaderboard/results/autoascend/monk-lite-v1

Between them the passes cover two wall clocks a month apart, one worker and two, forward and
reverse order. Every 1,000th frame, a checksum of all frames until then and the score are compared,
with each other and with what was recorded; of a game that differs, the first differing frame is
found and shown.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nle import nethack

from nhzoo.data.traces import HASH_EVERY, Diverged, Trace, frame_hash, open_traces, replay
from nhzoo.envs.actions import TTY
from nhzoo.envs.game import Game
from nhzoo.evaluation import results
from nhzoo.runtime.pool import OneByOne, run_tasks

MONTH = 31 * 86_400

SHIM = """
#define _GNU_SOURCE
#include <stdlib.h>
#include <time.h>
#include <sys/time.h>
static struct timespec shifted(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    now.tv_sec += atol(getenv("CLOCK_AHEAD"));
    return now;
}
time_t time(time_t *t) { time_t now = shifted().tv_sec; if (t) *t = now; return now; }
int gettimeofday(struct timeval *restrict tv, void *restrict tz) {
    struct timespec now = shifted();
    if (tv) { tv->tv_sec = now.tv_sec; tv->tv_usec = now.tv_nsec / 1000; }
    return 0;
}
"""
"""Shows every C library of a process, NLE's among them, a clock that is so many seconds ahead."""


@dataclass(frozen=True)
class Pass:
    """One way of replaying. `ubirthday` makes other games, to test the study."""

    ahead: int
    workers: int
    backwards: bool
    ubirthday: int | None = None

    def __str__(self) -> str:
        clock = f"clock {self.ahead // 86_400} days ahead" if self.ahead else "clock as it is"
        order = "reverse" if self.backwards else "forward"
        return f"{clock}, {self.workers} worker{'s' * (self.workers > 1)}, {order} order"


PASSES = (Pass(0, 2, False), Pass(MONTH, 2, True), Pass(MONTH, 1, False))


@dataclass(frozen=True)
class Replayed:
    """What a game came to. `seen` has an entry for each frame that was looked at.

    That is its hash, and a checksum of all frames before it where only some were looked at; or its
    lines. `checksum` is of all frames.
    """

    seen: tuple[str, ...]
    checksum: int
    score: int
    steps: int
    error: str
    clock: int


class StudyTask(OneByOne):
    """Replays games; an item is (trace, first frame, last frame, whether hashes do)."""

    def __init__(self) -> None:
        self._game = Game(TTY)

    def work(self, item: tuple[Trace, range, bool]) -> Replayed:
        trace, wanted, hashed = item
        seen, checksum, steps, score, error = [], 0, 0, 0, ""
        stop = trace.length if wanted.step > 1 else wanted[-1]
        try:
            for frame, _ in replay(trace, self._game):
                if not steps:
                    blstats, state = frame["blstats"].data, frame["program_state"].data
                if not state[0]:  # a tombstone shows the year
                    score = blstats[nethack.NLE_BL_SCORE]
                    if steps in wanted:
                        shown = frame_hash(frame) if hashed else text_of(frame)
                        seen.append(f"{shown} {checksum}" if wanted.step > 1 else shown)
                    for name in TTY:
                        checksum = zlib.crc32(frame[name].data, checksum)
                steps += 1
                if steps > stop:
                    break
        except Diverged as diverged:
            error = str(diverged)
        return Replayed(tuple(seen), checksum, score, steps, error, ctypes.CDLL(None).time(None))


def text_of(frame: Any) -> str:
    return "\n".join(bytes(line).decode("latin-1").rstrip() for line in frame["tty_chars"])


@contextmanager
def clock(ahead: int) -> Iterator[None]:
    """Processes that are started meanwhile see a clock that is ahead."""
    if not ahead:
        yield
        return
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise FileNotFoundError("no C compiler to build the clock with")
    with tempfile.TemporaryDirectory() as folder:
        source, shim = Path(folder, "clock.c"), Path(folder, "clock.so")
        source.write_text(SHIM)
        subprocess.run([compiler, "-shared", "-fPIC", "-o", shim, source], check=True)
        os.environ |= {"LD_PRELOAD": os.fspath(shim), "CLOCK_AHEAD": str(ahead)}
        try:
            yield
        finally:
            del os.environ["LD_PRELOAD"], os.environ["CLOCK_AHEAD"]


def run(
    way: Pass, traces: Sequence[Trace], wanted: range | None = None, hashed: bool = True
) -> list[Replayed]:
    """Replay games in one way; the frames `wanted` are looked at, every 1,000th by default."""
    items = []
    for index, trace in enumerate(traces):
        if way.ubirthday is not None:
            spec = replace(trace.spec, ubirthday=way.ubirthday)
            trace = replace(trace, spec=spec, frame_hashes=(), score=None)
        frames = range(0, trace.length, HASH_EVERY) if wanted is None else wanted
        items.append((index, (trace, frames, hashed)))
    if way.backwards:
        items.reverse()
    found: dict[int, Replayed] = {}
    with clock(way.ahead):
        for key, result in run_tasks(StudyTask, (), items, way.workers):
            assert isinstance(key, int) and isinstance(result, Replayed), result
            found[key] = result
    return [found[index] for index in range(len(traces))]


def difference(trace: Trace, ways: Sequence[Pass], seen: Sequence[tuple[str, ...]]) -> str:
    """The first frame of a game that is not the same in two passes, and what it shows in each.

    `seen` are the hashes of every 1,000th frame in both.
    """
    at = HASH_EVERY * _first_unequal(*seen)
    frames = range(max(0, at - HASH_EVERY), min(trace.length, at + 1))
    hashes = [run(way, [trace], frames)[0].seen for way in ways]
    at = frames[min(_first_unequal(*hashes), len(frames) - 1)]
    shown = [run(way, [trace], range(at, at + 1), hashed=False)[0].seen for way in ways]
    lines = []
    for pair in zip(
        *(screens[0].split("\n") if screens else [] for screens in shown), strict=False
    ):
        if pair[0] != pair[1]:
            lines += [f"    {line!r}" for line in pair]
    lines = lines or ["    its characters are the same in both, or one game has ended"]
    return "\n".join([f"  first at frame {at:,}; {ways[0]}, then {ways[1]}:", *lines])


def _first_unequal(a: Sequence[str], b: Sequence[str]) -> int:
    """The first place in which two sequences differ, perhaps because one of them ends there."""
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(min(a, b, key=len))
    )


def study(traces: Sequence[Trace], passes: Sequence[Pass] = PASSES) -> dict[str, str]:
    """Replay games in every way; the games that differ, and how."""
    differing: dict[str, str] = {}
    outcomes = []
    for way in passes:
        began = time.monotonic()
        outcomes.append(run(way, traces))
        seconds = time.monotonic() - began
        clocks = [replayed.clock for replayed in outcomes[-1]]
        assert abs(min(clocks) - time.time() - way.ahead) < seconds + 60, "the clock did not shift"
        total = sum(replayed.steps for replayed in outcomes[-1])
        hashes = sum(len(replayed.seen) for replayed in outcomes[-1])
        print(f"{way}: {total:,} steps, {hashes:,} hashes, {seconds:.0f} s", flush=True)
    for index, trace in enumerate(traces):
        first, *others = [outcome[index] for outcome in outcomes]
        for way, other in zip(passes[1:], others, strict=True):
            if replace(other, clock=0) != replace(first, clock=0):
                both = first.seen, other.seen
                differing[trace.game] = difference(trace, (passes[0], way), both)
        if first.error and trace.game not in differing:
            differing[trace.game] = f"  not as recorded: {first.error}"
    return differing


def traces_of(source: str) -> list[Trace]:
    """The games of a trace set or of a result folder."""
    folder = Path(source)
    if not (folder / "result.json").exists():
        return list(open_traces(source).traces)
    _, protocol, rows = results.read_result(folder)
    return [
        Trace(
            game=str(row["index"]),
            spec=protocol.game(row["index"]),
            length=row["keys"],
            sha256=row["sha256"],
            score=row["score"],
            split="",
            frame_hashes=(),
            path=results.trace_path(folder, row["index"]),
            end_status=row["end_status"],
        )
        for row in rows
        if row["keys"]
    ]


def main(source: str = "autoascend-monk-v1", games: str = "128") -> int:
    """Run the study, print what came of it; 1 when a game differs."""
    traces = traces_of(source)[: int(games)]
    mean = sum(trace.length for trace in traces) / len(traces)
    print(f"{source}: {len(traces)} games of {mean:,.0f} keys on average", flush=True)
    differing = study(traces)
    for game, how in differing.items():
        print(f"game {game} differs\n{how}")
    print(f"{len(traces) - len(differing)} of {len(traces)} games are the same in every pass")
    return int(bool(differing))


if __name__ == "__main__":
    # Workers know nothing of a program's own module, so what they give back is of the one imported.
    from tests.helpers import determinism

    sys.exit(determinism.main(*sys.argv[1:]))
