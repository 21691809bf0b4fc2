"""The first minutes on a GPU: one command that checks, times and trains, and keeps what it found.

    python3 training/gpu_check.py --site .gpu/site.tar.xz --out "$OUT"

Each part is a process of its own with a time limit, at which it is killed. `results.json` is
written anew whenever a part has found something, and `report.md` after each part. Nothing is
downloaded. `--device cpu --quick` rehearses all parts without a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
DATA = "autoascend-monk-v1"
FLOPS = 1e18  # a budget that no part comes to the end of
Found = Iterator[dict[str, Any]]


@dataclass(frozen=True)
class Plan:
    """What the parts do. `batch` and `time` are those of an update that is timed or trained."""

    sizes: tuple[int, ...] = (300_000, 3_000_000, 30_000_000, 100_000_000, 500_000_000)
    batch: int = 256
    time: int = 64
    product: int = 8_192
    seconds: float = 2.5  # of timing one size, and half of timing one number of loaders
    loaders: tuple[int, ...] = (1, 2, 4, 8, 16)
    games: tuple[int, ...] = (8, 32, 64, 200)
    played: float = 60.0
    cell: int = 3_000_000
    minutes: float = 1.25


FULL = Plan()
QUICK = Plan(
    sizes=(30_000, 300_000),
    batch=4,
    time=16,
    product=512,
    seconds=0.5,
    loaders=(1, 2),
    games=(1,),
    played=5.0,
    cell=30_000,
    minutes=0.1,
)


@dataclass(frozen=True)
class Check:
    """One run of the script: `out` is for what is kept, `work` for what is not."""

    device: str
    plan: Plan
    out: Path
    work: Path

    @functools.cached_property
    def results(self) -> dict[str, Any]:
        """What the parts before have found, by part."""
        path = self.out / "results.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def games(self, split: str) -> list[Path]:
        """The packed games of a split: as many as there was time for."""
        from nhzoo.data.packing import pack

        return pack(DATA, split=split, most=self.results["pack"][f"{split}_games"]).games

    def config(self, params: int, precision: str = "fp32", **others: Any) -> Any:
        """A run of cloning on the device that is checked."""
        from nhzoo.training.config import BCConfig

        plan = self.plan
        budget = {} if "minutes" in others else {"flops": FLOPS, "streams": plan.batch}
        return BCConfig(
            **{"data": DATA, "params": params, "batch": plan.batch, "time": plan.time},
            **{"device": self.device, "precision": precision},
            **(budget | others),
        )


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def wait(device: Any) -> None:
    """Wait for the device to have done what it was given."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rate(work: Callable[[], object], device: Any, seconds: float) -> float:
    """Calls a second, after three that do not count."""
    for _ in range(3):
        work()
    wait(device)
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(5):
            work()
        calls += 5
        wait(device)
    return calls / (time.perf_counter() - began)


def machine(check: Check) -> Found:
    """What it is, and how fast a matrix product and a copy are."""
    import numba
    import numpy as np
    import torch

    import nhzoo
    from nhzoo.runtime.system import cpu_name, git_revision
    from nhzoo.training.distributed import pick_device
    from nhzoo.training.outputs import device_name

    device, plan = pick_device(check.device), check.plan
    torch.set_num_threads(1)
    yield {
        "device": device_name(device),
        "cpu": f"{cores()} x {cpu_name()}",
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "numba": numba.__version__,
        "numpy": np.__version__,
        "nhzoo": f"{nhzoo.__version__} ({git_revision() or 'no checkout'})",
    }
    n = plan.product
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in "ab")
        yield {f"{name}_product": 2 * n**3 * rate(lambda a=a, b=b: a @ b, device, plan.seconds / 5)}
    held = torch.empty(n * n, device=device)
    copies = rate(held.clone, device, plan.seconds / 5)
    yield {"copied_bytes_per_second": 2 * held.nbytes * copies}
    if device.type == "cuda":
        pinned = torch.empty(n * n).pin_memory()
        sent = rate(lambda: held.copy_(pinned, non_blocking=True), device, plan.seconds / 5)
        yield {"sent_bytes_per_second": held.nbytes * sent}


def pack(check: Check) -> Found:
    """Replay bundled games into frames on all cores, more and more of them; compile the readers."""
    from nhzoo.data import packing
    from nhzoo.data.batches import Streams

    for most in check.plan.games:
        for split in ("validation", "train"):
            began = time.monotonic()
            report = packing.pack(DATA, split=split, workers=cores(), most=most)
            if report.refused:
                raise SystemExit(f"{DATA}: refused {report.refused}")
            yield {f"{split}_games": most, f"{split}_frames": report.frames}
            if report.packed == len(report.games):
                yield {"frames_per_second": report.frames / (time.monotonic() - began)}
        if most == check.plan.games[0]:
            began = time.monotonic()
            Streams(report.games, check.plan.batch, check.plan.batch, check.plan.time).next()
            yield {"compiling_seconds": time.monotonic() - began}


def tests(check: Check) -> Found:
    """The tests that need a GPU."""
    found = check.work / "tests.xml"
    found.unlink(missing_ok=True)
    paths = ["tests/training/test_gpu.py", "tests/policy/test_network.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-o", "addopts=", "-W", "default"]
    command += ["-p", "no:cacheprovider", f"--junitxml={found}", *paths]
    code = subprocess.run(command, cwd=ROOT).returncode
    suite = ElementTree.parse(found).getroot().find("testsuite")
    if suite is None:
        raise SystemExit(f"pytest ended with exit code {code} and no report")
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    failed = [
        f"{case.get('name')}: {(case.find(kind).get('message') or '')[:200]}"
        for case in suite.iter("testcase")
        for kind in ("failure", "error")
        if case.find(kind) is not None
    ]
    yield counts | {"failed": failed}


class Again:
    """A feed that gives one batch again and again."""

    def __init__(self, feed: Any) -> None:
        self._batch, self._feed = feed.next(), feed

    def next(self) -> Any:
        """See `feed.Prefetcher`."""
        return self._batch

    def close(self) -> None:
        """See `feed.Prefetcher`."""
        self._feed.close()


def sizes(check: Check) -> Found:
    """Updates of one batch that lies on the device: forward, backward, clipping, optimizer."""
    import torch

    from nhzoo.training import bc

    games, plan = check.games("validation"), check.plan
    frames = plan.batch * plan.time
    for params in plan.sizes:
        for precision in ("fp32", "bf16"):
            folder = check.work / "sizes" / f"{params}-{precision}"
            shutil.rmtree(folder, ignore_errors=True)
            run: Any = bc.Run(check.config(params, precision), games, folder, loaders=0)
            if run.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            run.feed = Again(run.feed)
            updates = rate(run.step, run.device, plan.seconds)
            run.check()  # the losses are numbers
            shape = run.policy.config
            flops = updates * (shape.train_flops * frames + shape.update_flops)
            measured = {
                "params": shape.params,
                "frames_per_second": updates * frames,
                "ms_an_update": 1e3 / updates,
                "flops_per_second": flops,
                "mfu": flops / check.results["machine"][f"{precision}_product"],
            }
            if run.device.type == "cuda":
                measured["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
            run.close()
            del run
            yield {f"{params} {precision}": measured}


def feed(check: Check) -> Found:
    """Batches on the device a second, by the number of processes that read."""
    import torch

    from nhzoo.data.batches import Streams
    from nhzoo.training.distributed import pick_device
    from nhzoo.training.feed import Prefetcher

    torch.set_num_threads(1)  # as a training does
    games, plan, device = check.games("train"), check.plan, pick_device(check.device)
    make = functools.partial(Streams, games, plan.batch, plan.batch, plan.time)
    for count in plan.loaders:
        began = time.monotonic()
        with contextlib.closing(Prefetcher(make, device, 2, count)) as prefetcher:
            for _ in range(3):  # the others are compiled and their games are open then
                prefetcher.next()
            ready = time.monotonic() - began
            frames, began = 0, time.monotonic()
            while time.monotonic() - began < 2 * plan.seconds:
                frames += prefetcher.next().valid
            wait(device)
            taken = time.monotonic() - began
        yield {str(count): {"frames_per_second": frames / taken, "start_seconds": ready}}


def impala(check: Check) -> Found:
    """A minute of playing, the learner on the device and an actor on each core but one."""
    import torch

    from nhzoo.training.rl.config import ImpalaConfig
    from nhzoo.training.rl.impala import ImpalaRun

    actors = max(1, cores() - 1)
    given = {"params": 300_000, "actors": actors, "device": check.device}
    config = ImpalaConfig(steps=1e12, **given)
    folder = check.work / "impala"
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(0)
    with contextlib.closing(ImpalaRun(config, folder)) as run:
        run.step()  # actors have started and compiled
        run.metrics()
        before, updates, began = run.counters.frames, run.counters.update, time.monotonic()
        while (taken := time.monotonic() - began) < check.plan.played:
            run.step()
        yield given | {
            "steps_per_second": (run.counters.frames - before) / taken,
            "updates_per_second": (run.counters.update - updates) / taken,
            "loss": float(run.counters.losses[-1]),
            **run.metrics(),
        }


def train(check: Check) -> Found:
    """Train the cell to a held-out loss; its entry and its row are among what is kept."""
    from dataclasses import asdict

    from nhzoo.policy.checkpoint import Sampling
    from nhzoo.training import outputs
    from nhzoo.training.run_table import append_row

    plan = check.plan
    config = check.config(plan.cell, "bf16", minutes=plan.minutes, log_every=50)
    folder = check.work / "train"
    shutil.rmtree(folder, ignore_errors=True)
    entry = check.work / f"bc-{'gpu' if check.device != 'cpu' else 'cpu'}-check"
    command = f"nhzoo train bc --params {plan.cell} --minutes {plan.minutes} --batch {plan.batch} "
    command += f"--time {plan.time} --precision bf16 --device {check.device}"
    row = outputs.train_and_publish(
        *(config, check.games("train"), check.games("validation"), folder, entry, Sampling()),
        command,
        append=functools.partial(append_row, check.out / "rows.jsonl"),
        progress=lambda found: print(f"update {found.update}: {found.loss:.4f}", flush=True),
    )
    assert row is not None
    kept = ("params", "loss", "accuracy", "samples", "flops", "seconds", "updates", "run_id")
    yield {name: value for name, value in asdict(row).items() if name in kept}
    with tarfile.open(check.out / "entry.tar.gz", "w:gz") as archive:
        archive.add(entry, entry.name)


PARTS: dict[str, tuple[Callable[[Check], Found], float]] = {
    "machine": (machine, 30),
    "pack": (pack, 90),
    "tests": (tests, 80),
    "sizes": (sizes, 90),
    "train": (train, 125),
    "feed": (feed, 60),
    "impala": (impala, 90),
}
"""Each part and its limit in seconds. All together end when the minutes are over."""
REHEARSED = 3  # times these limits, on a machine that has other work


def setup(bundle: Path | None, site: Path) -> None:
    """Lay what this Python lacks into a folder of its own."""
    if bundle is None:
        return
    try:
        with tarfile.open(bundle) as archive:
            archive.extractall(site, filter="data")
    except (OSError, tarfile.TarError) as error:
        raise SystemExit(f"--site {bundle}: {error}; `make gpu-bundle` makes it") from None


def run_part(name: str, check: Check, options: list[str], limit: float) -> None:
    """Run a part as a process and keep what it finds, until it ends or its time is over."""
    found = check.work / f"{name}.json"
    found.unlink(missing_ok=True)
    environ = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(check.work / "site"), str(ROOT)]),
        "NHZOO_CACHE": str(check.work / "cache"),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
    }
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    began = time.monotonic()
    command = [sys.executable, __file__, "--part", name, *options]
    with (check.out / "log.txt").open("a") as log:
        log.write(f"--- {name}\n")
        log.flush()
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=environ, start_new_session=True
        )
        status = ""
        while not status:
            left = limit - (time.monotonic() - began)
            try:
                code = process.wait(max(0.0, min(1.0, left)))
                status = "done" if code == 0 else f"failed: exit code {code}, see log.txt"
            except subprocess.TimeoutExpired:
                status = "" if left > 0 else f"killed at its limit of {limit:.0f} s"
            if status:  # its children too
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)
            so_far = json.loads(found.read_text()) if found.exists() else {}
            so_far |= {"status": status or "running", "seconds": time.monotonic() - began}
            if status or so_far.keys() != check.results.get(name, {}).keys():
                check.results[name] = so_far
                write(check.out / "results.json", json.dumps(check.results, indent=1))
    write(check.out / "report.md", report(check.results))
    print(f"{name}: {status} ({check.results[name]['seconds']:.0f} s)", flush=True)


def write(path: Path, text: str) -> None:
    """Complete or not at all."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text)
    fresh.replace(path)


def report(results: dict[str, Any]) -> str:
    """What was found, as Markdown."""
    lines = ["# GPU check", "", "| part | outcome | seconds |", "|---|---|---:|"]
    lines += [f"| {k} | {v['status']} | {v['seconds']:.0f} |" for k, v in results.items()]
    if found := results.get("machine"):
        lines += ["", *(f"- {name}: {short(value)}" for name, value in found.items())]
    if found := results.get("tests"):
        lines += ["", f"Tests: {json.dumps({k: v for k, v in found.items() if k != 'status'})}"]
    if found := measured(results, "sizes"):
        columns = "parameters | precision | frames/s | ms an update | TFLOP/s | MFU | peak GB"
        lines += ["", f"| {columns} |", "|---:|---|---:|---:|---:|---:|---:|"]
        for name, row in found.items():
            numbers = f"{row['frames_per_second']:,.0f} | {row['ms_an_update']:.2f}"
            numbers += f" | {row['flops_per_second'] / 1e12:.3g} | {row['mfu']:.1%}"
            numbers += f" | {row.get('peak_gb', 0):.1f}"
            lines += [f"| {row['params']:,} | {name.split()[1]} | {numbers} |"]
    if found := measured(results, "feed"):
        lines += ["", "| loaders | frames/s | seconds to the third batch |", "|---:|---:|---:|"]
        for name, row in found.items():
            numbers = f"{row['frames_per_second']:,.0f} | {row['start_seconds']:.1f}"
            lines += [f"| {name} | {numbers} |"]
    for part in ("pack", "train", "impala"):
        if found := results.get(part):
            shown = ", ".join(f"{name} {short(value)}" for name, value in found.items())
            lines += ["", f"{part}: {shown}"]
    return "\n".join(lines) + "\n"


def measured(results: dict[str, Any], part: str) -> dict[str, Any]:
    """What a part found of each thing that it timed."""
    return {name: row for name, row in results.get(part, {}).items() if isinstance(row, dict)}


def short(value: Any) -> str:
    """A number in few digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> int:
    """Run all parts, or one of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for what is kept")
    parser.add_argument("--work", type=Path, help="folder for the rest (default: build/gpu-check)")
    parser.add_argument("--site", type=Path, help="what this Python lacks, of `make gpu-bundle`")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="a rehearsal at debug sizes")
    parser.add_argument("--minutes", type=float, help="for all parts together (default: 8)")
    parser.add_argument("--parts", default=",".join(PARTS), help="only these")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    began = time.monotonic()
    work = (given.work or ROOT / "build" / "gpu-check").resolve()
    check = Check(given.device, QUICK if given.quick else FULL, given.out.resolve(), work)
    for folder in (check.out, work):
        folder.mkdir(parents=True, exist_ok=True)
    if given.part:
        so_far: dict[str, Any] = {}
        for found in PARTS[given.part][0](check):
            so_far |= found
            write(work / f"{given.part}.json", json.dumps(so_far))
        return 0
    parts = given.parts.split(",")
    if unknown := [name for name in parts if name not in PARTS]:
        parser.error(f"--parts {unknown[0]}: choose from {', '.join(PARTS)}")
    setup(given.site, work / "site")
    print(f"setup: done ({time.monotonic() - began:.0f} s)", flush=True)
    options = ["--out", str(check.out), "--work", str(work), "--device", given.device]
    options += ["--quick"] if given.quick else []
    slack = REHEARSED if given.quick else 1
    for name in parts:
        left = (given.minutes or 8.0 * slack) * 60 - (time.monotonic() - began)
        run_part(name, check, options, max(0.0, min(PARTS[name][1] * slack, left)))
    print((check.out / "report.md").read_text())
    return 0 if all(check.results[name]["status"] == "done" for name in parts) else 1


if __name__ == "__main__":
    sys.exit(main())
