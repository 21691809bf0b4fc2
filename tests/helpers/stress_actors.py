"""Kills and stops the processes of a real training run at random moments, and resumes it.

python -m tests.helpers.stress_actors [--signals 40] [--kills 10] [--world tiny-walk] [--seed 0]

The run is `nhzoo train impala` with two actors and a policy of 20,000 parameters. Actors get
SIGKILL, SIGSTOP with SIGCONT later, or SIGSTOP for good; the learner SIGSTOP with SIGCONT, and at
the end of each life SIGKILL, SIGTERM or SIGINT. Checked: how each life ends, that it leaves no
process and no folder after 5 seconds, that the run ends at the update it is to end at, and that
its curve goes on without a jump. Exit code 1 when something of that does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from tests import ROOT

GAMES, TIME = 4, 10
LIFE, END, LEFT = 240.0, 90.0, 5.0  # seconds: to get going, to end when asked to, to be gone
ENTROPY = 0.25  # nats: what the mean entropy may change by from report to report as a run resumes
OWN = f"nhzoo-{os.getuid()}-cache"  # of this user, with a folder for each process
TORCH = f"torchinductor_{getpass.getuser()}"  # not ours
LAUNCHER = """
from nhzoo.cli import app as cli; from nhzoo.training.rl import remote_actors as process_actors
process_actors.HANG_SECONDS, process_actors.START_SECONDS = 4.0, 60.0
process_actors.STOP_SECONDS = 6.0
if __name__ == "__main__":
    cli.main()
"""


class Fault(Exception):
    """Something that must hold does not."""


class Learner:
    """One life of the run."""

    def __init__(self, folder: Path, world: str, steps: float, life: int) -> None:
        self.folder, self.mark = folder, f"{folder.name}-{life}"
        self.temporary = folder / "tmp"
        self.temporary.mkdir(exist_ok=True)
        (folder / "launcher.py").write_text(LAUNCHER)
        options = {
            "world": world, "steps": steps, "params": 20_000, "actors": 2, "games": GAMES,
            "time": TIME, "unrolls": 1, "save-every": 25, "lr": 1e-4, "warmup": 1,
            "step-cap": 300, "no-progress": 100, "run": folder / "run", "out": folder / "agent",
        }  # fmt: skip
        words = [f"--{name}={value}" for name, value in options.items()]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([os.fspath(ROOT), os.environ.get("PYTHONPATH", "")]),
            "TMPDIR": os.fspath(self.temporary),
            "NHZOO_STRESS": self.mark,
        }
        self.output = folder / f"life-{life}.txt"
        with open(self.output, "wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, folder / "launcher.py", "train", "impala", *words],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment,
            )  # fmt: skip

    def all(self) -> dict[int, bytes]:
        """Processes of this life, by the mark in their environment, and their command lines."""
        found = {}
        for path in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if not path.name.isdecimal() or int(path.name) == os.getpid():
                    continue
                if f"NHZOO_STRESS={self.mark}\0".encode() in (path / "environ").read_bytes():
                    found[int(path.name)] = (path / "cmdline").read_bytes()
        return found

    def actors(self) -> list[int]:
        return [pid for pid, words in self.all().items() if b"spawn_main" in words]

    def rows(self) -> list[dict[str, float]]:
        with contextlib.suppress(OSError):
            lines = (self.folder / "run" / "log.jsonl").read_text().splitlines()
            return [json.loads(line) for line in lines if line.endswith("}")]
        return []

    def until(self, true, seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            if self.process.poll() is not None:
                raise Fault(f"ended with {self.process.returncode}, waiting for {what}")
            if time.monotonic() > deadline:
                raise Fault(f"not within {seconds:g} s: {what}")
            time.sleep(0.05)

    def end(self, expected: set[int], seconds: float) -> float:
        """Wait for its end; nothing may be left of it. The seconds that it took."""
        began = time.monotonic()
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Fault(f"has not ended {seconds:g} s after it was asked to") from None
        took = time.monotonic() - began
        if code not in expected:
            raise Fault(f"exit code {code}, not of {sorted(expected)}")
        deadline = time.monotonic() + LEFT
        while left := [*self.all(), *self.folders()]:
            if time.monotonic() > deadline:
                raise Fault(f"left after {LEFT:g} s: {left}")
            time.sleep(0.05)
        if b"Traceback" in self.output.read_bytes():
            raise Fault("a traceback")
        return took

    def folders(self) -> list[str]:
        """What is in the folder of temporary files, but for the empty one of this user."""
        found = [*(self.temporary / OWN).glob("*")]
        found += [p for p in self.temporary.iterdir() if p.name not in (OWN, TORCH)]
        partial = [*(self.folder / "run").glob(".*.tmp")]
        return [os.fspath(path) for path in found] + (
            [os.fspath(p) for p in partial] if self.process.returncode != -signal.SIGKILL else []
        )

    def kill_all(self) -> None:
        for pid in [self.process.pid, *self.all()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def send(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def disturb(learner: Learner, signals: int, rng: random.Random, counts: Counter[str]) -> None:
    """Send `signals` signals to actors at random moments, and stop the learner at times."""
    sent, began = 0, time.monotonic()
    while sent < signals:
        time.sleep(rng.uniform(0.05, 3.0))
        if learner.process.poll() is not None:
            raise Fault(f"ended with {learner.process.returncode}")
        if time.monotonic() - began > LIFE:
            raise Fault(f"only {sent} signals sent in {LIFE:g} s")
        if rng.random() < 0.15:
            send(learner.process.pid, signal.SIGSTOP)
            time.sleep(rng.uniform(0.05, 2.0))
            send(learner.process.pid, signal.SIGCONT)
            counts["learner STOP+CONT"] += 1
        actors = learner.actors()
        if not actors:
            continue
        pid, kind = rng.choice(actors), rng.choice(["KILL", "STOP", "STOP+CONT", "STOP+CONT"])
        done = send(pid, signal.SIGKILL) if kind == "KILL" else send(pid, signal.SIGSTOP)
        if kind == "STOP+CONT":
            time.sleep(rng.uniform(0.01, 1.5))
            send(pid, signal.SIGCONT)
        sent += done
        counts[f"actor {kind}"] += done


def check_curve(rows: list[dict[str, float]], boundaries: list[int]) -> dict[str, float]:
    """That the log is that of one run: counters rise as they must, no jump where it was resumed."""
    updates = [row["update"] for row in rows]
    if updates != sorted(set(updates)):
        raise Fault(f"updates of the log are not in order: {updates}")
    for name in ("frames", "games", "seconds", "flops"):
        values = [row[name] for row in rows]
        if values != sorted(values):
            raise Fault(f"{name} of the log falls: {values}")
    for a, b in itertools.pairwise(rows):
        span = (b["update"] - a["update"]) * GAMES * TIME
        if not 0.5 * span <= b["frames"] - a["frames"] <= span:
            raise Fault(f"frames of updates {a['update']} to {b['update']}: not of so many steps")
        if b["games"] - a["games"] > b["frames"] - a["frames"] + 2 * GAMES:
            raise Fault(f"more games than steps after update {a['update']}")
        for name in ("loss", "grad_norm", "entropy", "reward_scale"):
            if not np.isfinite(b[name]):
                raise Fault(f"{name} at update {b['update']} is {b[name]}")
    changes = {b["update"]: abs(b["entropy"] - a["entropy"]) for a, b in itertools.pairwise(rows)}
    over = [
        change
        for update, change in changes.items()
        if any(update - 50 <= at < update for at in boundaries)
    ]
    within = [change for update, change in changes.items() if change not in over]
    if over and max(over) > max(ENTROPY, 2 * max(within, default=0.0)):
        raise Fault(f"entropy jumps by {max(over):.3f} where the run was resumed")
    lr = {row["lr"] for row in rows[1:]}
    if len(lr) != 1:
        raise Fault(f"learning rates {lr}")
    return {
        "rows": len(rows), "largest_entropy_change_at_resume": max(over, default=0.0),
        "largest_entropy_change_elsewhere": max(within, default=0.0),
    }  # fmt: skip


def saved_update(folder: Path) -> int:
    from nhzoo.training.run_state import read_state

    state = read_state(folder / "run", lambda line: None)
    return state.counters["update"] if state else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--signals", type=int, default=40)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--world", default="tiny-walk")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=30.0, help="end by then, as a fault")
    given = parser.parse_args()
    rng, counts = random.Random(given.seed), Counter[str]()
    folder = Path(tempfile.mkdtemp(prefix="stress-"))
    deadline = time.monotonic() + 60 * given.minutes
    boundaries: list[int] = []
    asked: list[float] = []  # seconds from SIGTERM or SIGINT to the end
    learner = None
    try:
        for life in range(given.kills):
            learner = Learner(folder, given.world, 1e9, life)
            if time.monotonic() > deadline:
                raise Fault(f"not done in {given.minutes:g} minutes")
            before = saved_update(folder)
            if life % 4 == 3:  # as it starts
                time.sleep(rng.uniform(0.0, 12.0))
            else:
                at = max((int(row["update"]) for row in learner.rows()), default=0)
                learner.until(
                    lambda at=at, it=learner: any(row["update"] > at for row in it.rows()),
                    LIFE, "a report",
                )  # fmt: skip
                left = given.signals - sum(n for kind, n in counts.items() if "actor" in kind)
                lives = sum(other % 4 != 3 for other in range(life, given.kills))
                disturb(learner, -(-left // lives), rng, counts)
            number = [
                signal.SIGKILL,
                signal.SIGTERM,
                signal.SIGKILL,
                signal.SIGKILL,
                signal.SIGINT,
            ][life % 5]
            stopped = sum(b"spawn_main" in w for w in learner.all().values())
            send(learner.process.pid, number)
            if number == signal.SIGKILL:
                learner.end({-signal.SIGKILL}, END)
            else:  # -number: before it has taken over what a signal does
                asked.append(learner.end({130, 128 + number, -number}, END))
            counts[f"learner {signal.Signals(number).name[3:]}"] += 1
            after = saved_update(folder)
            if after < before:
                raise Fault(f"the saved state went back from update {before} to {after}")
            if number != signal.SIGKILL and life % 4 != 3 and rows_end(learner) > after:
                raise Fault(f"reports to update {rows_end(learner)}, saved at {after}")
            boundaries.append(after)
            print(
                f"life {life}: {signal.Signals(number).name}, {stopped} actors, saved at {after}",
                flush=True,
            )
        last = boundaries[-1] + 200
        # Of every update at most GAMES * TIME steps; the run's own count of updates decides.
        learner = Learner(folder, given.world, last * GAMES * TIME, given.kills)
        disturbing = max(0, given.signals - sum(n for k, n in counts.items() if "actor" in k))
        if disturbing:
            disturb(learner, disturbing, rng, counts)
        learner.end({0}, LIFE)
        rows = learner.rows()
        if rows[-1]["update"] != last or saved_update(folder) != last:
            raise Fault(f"the run ended at update {rows[-1]['update']}, not {last}")
        found = check_curve(rows, boundaries)
        replaced = Counter[str]()
        for path in folder.glob("life-*.txt"):
            text = path.read_text(errors="replace")
            replaced["ended"] += len(re.findall(r"actor \d has ended", text))
            replaced["silent"] += len(re.findall(r"actor \d has said nothing", text))
            replaced["not told"] += len(re.findall(r"does not tell within", text))
        print(json.dumps({
            "signals": dict(counts), "lines": dict(replaced), "updates": last, **found,
            "seconds_to_end_when_asked": [round(s, 1) for s in asked],
        }))  # fmt: skip
    except Fault as fault:
        print(f"FAULT: {fault}\n{folder}: kept; signals so far {dict(counts)}", file=sys.stderr)
        if learner:
            print(learner.output.read_text(errors="replace")[-2000:], file=sys.stderr)
            print(learner.all(), file=sys.stderr)
        return 1
    finally:
        if learner:
            learner.kill_all()
    shutil.rmtree(folder)
    return 0


def rows_end(learner: Learner) -> int:
    return int(max((row["update"] for row in learner.rows()), default=0))


if __name__ == "__main__":
    sys.exit(main())
