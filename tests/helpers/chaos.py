"""Signals at random moments over long commands: `python -m tests.helpers.chaos --signals 200`.

A command is run until it ends, while SIGKILL and SIGSTOP (then SIGCONT or SIGKILL) come to it and
its children. Each run that a signal ended is followed by the same command again. At last what is
promised to be the same bytes must be those of a run that nobody disturbed. After every run nothing
may be left of it after five seconds: no process, and no folder among the temporary files. The
process that sees to that is spared; `test_children` kills it.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nhzoo.policy.config import PolicyConfig
from nhzoo.scaling import cost as training_cost
from nhzoo.scaling.sweeps.plan import Cell, Plan, write_plan
from tests import ROOT
from tests.conftest import make_entry, record

LEFT_SECONDS = 5.0
RUN_SECONDS = 900.0  # far more than a run takes: what hangs is a failure
_MARK = "NHZOO_CHAOS"


@dataclass(frozen=True)
class Case:
    """A command; `promised` says which files of its folder are the same bytes in every run."""

    name: str
    words: Callable[[Path, Path], list[object]]
    promised: tuple[str, ...]


def _flops(params: int, updates: int) -> float:
    shape = PolicyConfig.for_params(params)
    return float(f"{updates * (shape.train_flops * 256 + shape.update_flops):.4g}")


CASES = (
    Case(
        "evaluate",
        lambda given, to: [
            *("evaluate", given / "tiny-agent", "--protocol", "smoke-v1", "--episodes", 6),
            *("--workers", 2, "--out", to / "out"),
        ],
        ("out/episodes.jsonl", "out/traces/*.xz"),
    ),
    Case(
        "data record",
        lambda given, to: [
            *("data", "record", "random", "--protocol", "smoke-v1", "--episodes", 6),
            *("--workers", 2, "--name", "chaos", "--out", to / "set"),
        ],
        ("set/games.jsonl", "set/keys/*.xz"),
    ),
    Case(
        "data pack",
        lambda given, to: ["data", "pack", given / "traces", "--workers", 2],
        ("cache/frames/*/*",),
    ),
    Case(
        "train bc",
        lambda given, to: [
            *("train", "bc", "--data", given / "traces", "--params", 12_000),
            *("--flops", _flops(12_000, 240), "--streams", 16, "--save-every", 20),
            *("--run", to / "run", "--out", to / "agent", "--workers", 2),
        ],
        ("agent/model.safetensors",),
    ),
    Case(
        "sweep run",
        lambda given, to: [
            *("sweep", "run", given / "plan.json", "--data", given / "traces", "--jobs", 2),
            *("--ledger", to / "runs.jsonl", "--out", to / "entries", "--runs", to / "runs"),
        ],
        ("entries/*/model.safetensors",),
    ),
)


@dataclass
class Report:
    """What was done, and what went wrong. Past the moment `until` no more signals are sent."""

    until: float = math.inf
    sent: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def prepare(folder: Path) -> Path:
    """What the commands are given: an entry, demonstrations, a plan."""
    make_entry(folder / "tiny-agent")
    record(folder / "traces", games=8, steps=600)
    cells = tuple(
        Cell(f"tiny-{n}", 12_000, _flops(12_000, 40), 0, seed, None, None)
        for n, seed in enumerate((0, 1))
    )
    cost = training_cost.proportional(6)
    write_plan(
        folder / "plan.json", Plan("tiny", "given", (cells[0].flops,), cells, (), cost, None, None)
    )
    return folder


def promised(case: Case, folder: Path) -> dict[str, str]:
    """The hashes of what is promised, by path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for pattern in case.promised
        for path in sorted(folder.glob(pattern))
    }


def undisturbed(case: Case, given: Path, folder: Path) -> dict[str, str]:
    """Run a command in peace; what it comes to."""
    with _started(case, given, folder) as process:
        code = process.wait(RUN_SECONDS)
    assert code == 0, f"{case.name}: exit code {code} without any signal"
    found = promised(case, folder)
    assert found, f"{case.name} wrote nothing"
    return found


def disturb(
    case: Case,
    given: Path,
    folder: Path,
    signals: int,
    draw: random.Random,
    expected: dict[str, str],
    report: Report,
    first: float = 10.0,
) -> None:
    """Send `signals` signals to a command while it runs, again and again if need be.

    In each run the first comes within so many seconds: one that has ended by then is run again.
    """
    number, left = 0, signals
    while True:
        number += 1
        to = folder / str(number)
        while True:  # the same command until it is done
            code, left = _run(case, given, to, left, draw, report, first)
            report.ends[f"{case.name}: {code}"] += 1
            if code == 0:
                break
            if code not in (-signal.SIGKILL, 1, 2, 130):
                report.wrong.append(f"{case.name}: exit code {code}")
            if left <= 0 and code > 0 and report.ends[f"{case.name}: {code}"] > 20:
                report.wrong.append(f"{case.name}: does not go on")
                return
        found = promised(case, to)
        if found != expected:
            differing = {p for p in found | expected if found.get(p) != expected.get(p)}
            report.wrong.append(f"{case.name}: other bytes in {sorted(differing)}")
        litter = [str(path) for path in to.rglob("*.tmp")]
        if litter:
            report.wrong.append(f"{case.name}: left {litter}")
        if left <= 0 or time.monotonic() > report.until:
            return


def _run(
    case: Case,
    given: Path,
    to: Path,
    left: int,
    draw: random.Random,
    report: Report,
    first: float,
) -> tuple[int, int]:
    """One run of the command under signals; its exit code, and how many signals are left."""
    with _started(case, given, to) as process:
        until = time.monotonic() + RUN_SECONDS
        stopped: list[tuple[float, int]] = []
        due = time.monotonic() + draw.uniform(0.0, first)
        while process.poll() is None:
            if time.monotonic() > until:
                report.wrong.append(f"{case.name}: hangs, with {_marked(to)}")
                process.kill()
                break
            now = time.monotonic()
            for pause in [pause for pause in stopped if pause[0] <= now]:
                stopped.remove(pause)
                _send(pause[1], draw.choice((signal.SIGCONT, signal.SIGCONT, signal.SIGKILL)))
            if left > 0 and due <= now < report.until:
                due = now + draw.uniform(0.0, 1.5)
                held = {pid for _, pid in stopped}
                targets = [pid for pid in _marked(to) if pid not in held and not _guards(pid)]
                if targets:
                    # A parent that is killed has to begin again: less often, or nothing gets done.
                    children = [pid for pid in targets if pid != process.pid]
                    if not children and draw.random() < 0.8:
                        continue  # wait for those that it is about to start
                    alone = not children or draw.random() < 0.15
                    chosen = process.pid if alone else draw.choice(children)
                    odds = (1, 2) if alone else (1, 1)
                    sent = draw.choices((signal.SIGKILL, signal.SIGSTOP), odds)[0]
                    if chosen in targets and _send(chosen, sent):
                        left -= 1
                        who = "parent" if chosen == process.pid else "child"
                        report.sent[f"{case.name}: {sent.name} to a {who}"] += 1
                        if sent == signal.SIGSTOP:
                            stopped.append((now + draw.uniform(0.0, 2.0), chosen))
            time.sleep(0.01)
        for _, pid in stopped:
            _send(pid, signal.SIGCONT)
        code = process.wait()
    deadline = time.monotonic() + LEFT_SECONDS
    while (rest := _rest(to)) and time.monotonic() < deadline:
        time.sleep(0.02)
    if rest:
        report.wrong.append(f"{case.name}: after {LEFT_SECONDS} s there are still {rest}")
    return code, left


@contextlib.contextmanager
def _started(case: Case, given: Path, to: Path) -> Iterator[subprocess.Popen[bytes]]:
    temporary = to / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        _MARK: str(to),
        "TMPDIR": str(temporary),
        "NHZOO_CACHE": str(to / "cache"),
        "NUMBA_CACHE_DIR": os.environ.get("NUMBA_CACHE_DIR") or str(given.parent / "numba"),
        "PYTHONPATH": str(ROOT),
    }
    words = [sys.executable, "-m", "nhzoo", *map(str, case.words(given, to))]
    with open(to / "stderr", "ab") as log:
        process = subprocess.Popen(
            words, env=environment, stdout=subprocess.DEVNULL, stderr=log, stdin=subprocess.DEVNULL
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def _send(pid: int, number: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


def _marked(to: Path) -> list[int]:
    """The processes of a run, by their environment."""
    mark, found = f"{_MARK}={to}".encode(), []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
    return sorted(found)


def _guards(pid: int) -> bool:
    """Whether it removes what a killed process leaves: without it, that is for the next start."""
    with contextlib.suppress(OSError):
        return b"os.pidfd_open" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return True


def _rest(to: Path) -> list[str]:
    """What is left of a run that has ended."""
    found = []
    for pid in _marked(to):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
            found.append(f"{pid}: {words[:120].decode(errors='replace')}")
    others = ("nhzoo-", "torchinductor_")  # the parent of our folders; what torch keeps, as a cache
    folders = [path for path in (to / "tmp").glob("*") if not path.name.startswith(others)]
    folders += (to / "tmp").glob("nhzoo-*/*")
    return found + [str(path) for path in folders]


def main() -> None:
    """Run it and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signals", type=int, default=200, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one command")
    parser.add_argument("--minutes", type=float, default=60, help="begin no new signals after that")
    options = parser.parse_args()
    cases = [case for case in CASES if options.only in (None, case.name)]
    report = Report(time.monotonic() + 60 * options.minutes)
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        given = prepare(Path(temporary) / "given")
        for number, case in enumerate(cases):
            share = options.signals // len(cases) + (number < options.signals % len(cases))
            folder = Path(temporary) / case.name.replace(" ", "-")
            expected = undisturbed(case, given, folder / "undisturbed")
            draw = random.Random(f"{options.seed}: {case.name}")
            disturb(case, given, folder, share, draw, expected, report)
            print(f"{case.name}: done, {len(report.wrong)} wrong so far", flush=True)
            logs = folder.glob("*/stderr")
            traces = sum(log.read_bytes().count(b"Traceback") for log in logs)
            print(f"  tracebacks: {traces}", flush=True)
    for name, count in sorted((report.sent + report.ends).items()):
        print(f"{count:5} {name}")
    for line in report.wrong:
        print(f"WRONG {line}")
    sys.exit(bool(report.wrong))


if __name__ == "__main__":
    main()
