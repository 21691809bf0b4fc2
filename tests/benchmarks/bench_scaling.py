"""How often the 90 % intervals of scaling laws hold the truth, and the CPU time that fits take.

python tests/benchmarks/bench_scaling.py              # 400 tables a surface: 2 minutes
python tests/benchmarks/bench_scaling.py 100 steep    # 100 of the surfaces so named
python tests/benchmarks/bench_scaling.py 200 shared   # errors that all rows share
make bench                                            # 40 tables of two surfaces
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import numpy as np

from nhzoo.scaling.cost import proportional
from nhzoo.scaling.families.predicting import predict
from nhzoo.scaling.fitting import fit
from nhzoo.scaling.intervals import CommonError
from nhzoo.scaling.laws import LossLaw, SizeLaw, fit_laws, surface_of
from nhzoo.scaling.parametric import variable_projection
from nhzoo.scaling.runs import select
from tests.helpers.synthetic_laws import Truth, runs

TARGET = 1e15  # ten times the largest budget
SURFACES = {
    # name: (truth, design, relative noise)
    "chinchilla .34/.28, 1 %": (Truth(0.34, 0.28), {}, 0.01),
    "tuyls .25/.40, 1 %": (Truth(0.25, 0.40), {}, 0.01),
    "equal .35/.35, 0.5 %": (Truth(0.35, 0.35), {}, 0.005),
    "steep .60/.25, 1 %": (Truth(0.60, 0.25), {}, 0.01),
    "tuyls, drifting x3, 0.5 %": (Truth(0.25, 0.40), {"drift": 3.0}, 0.005),
    "no floor, 5 x 9, 0.5 %": (Truth(0.30, 0.33, floor=0.0), {"sizes": 9}, 0.005),
    "OUT OF FAMILY: coupled p = 2, 0.5 %": (Truth(0.25, 0.40, coupling=2.0), {}, 0.005),
}


def coverage(
    truth: Truth, design: dict, noise: float, tables: int
) -> dict[str, tuple[float, float]]:
    """Share of intervals that hold the truth, and their median width in logs, by quantity."""
    size, loss = (np.log(x) for x in truth.optimum(TARGET))
    exponent = np.log(truth.optimum(1e13 * 10)[0] / truth.optimum(1e13 / 10)[0]) / np.log(100)
    cost = proportional(6)
    held: dict[str, list[tuple[bool, float]]] = {}
    for number in range(tables):
        points = select(runs(truth, noise, seed=number, **design)).points
        opinions = ("vp", "parabola", "cubic", "coupled")
        laws = fit_laws(points, methods=opinions, resamples=400, seed=number).laws
        found = {}
        for law in laws:
            if isinstance(law, SizeLaw):
                found[f"{law.method} exponent"] = (law.slope(1e13, cost, 0.9), exponent, False)
                found[f"{law.method} size"] = (law.size(TARGET, cost, 0.9), size, True)
            if isinstance(law, LossLaw):
                found[f"{law.method} loss"] = (law.loss(TARGET, cost, 0.9), loss, True)
        usual = [law for law in laws if law.method not in ("cubic", "coupled")]
        both = predict(usual, TARGET, cost, 0.9)
        found["forecast size (union)"] = (both.size, size, True)
        # What is forecast is one run, so the truth has a run's noise as well.
        run = loss + noise * np.random.default_rng([1, number]).standard_normal()
        found["forecast loss (union, one run)"] = (both.loss, run, True)
        for name, (interval, value, logs) in found.items():
            if interval is None:
                held.setdefault(name, []).append((False, np.nan))
                continue
            low, high = interval.low, interval.high
            if logs:
                low, high = np.log(low), np.log(high)
            held.setdefault(name, []).append((bool(low <= value <= high), high - low))
    return {
        name: (float(np.mean([h for h, _ in pairs])), float(np.nanmedian([w for _, w in pairs])))
        for name, pairs in held.items()
    }


SHARED = {
    # name: design of `runs`
    "shared ruler, 3 %": {"ruler": 0.03},
    "shared seeds, 3 of 2 %": {"seeds": 3, "between": 0.02, "sizes": 5},
    "not shared, 3 seeds": {"seeds": 3, "sizes": 5},
}
"""Tables whose rows share an error: that of the games they are measured on, or of their seeds."""


def coverage_of_shared(design: dict, tables: int, noise: float = 0.01) -> dict[str, list[float]]:
    """Coverage and width without and with the common error, by quantity."""
    truth, cost = Truth(0.34, 0.28), proportional(6)
    _, loss = truth.optimum(TARGET)
    held: dict[str, list[tuple[bool, float, bool, float]]] = {}
    for number in range(tables):
        points = select(runs(truth, noise, seed=number, **design)).points
        laws = fit_laws(points, resamples=400, seed=number).laws
        alone = [replace(law, common=CommonError()) for law in laws]
        random = np.random.default_rng([2, number])  # of a run with a seed and games of its own
        spread = np.hypot(noise, np.hypot(design.get("ruler", 0), design.get("between", 0)))
        run = loss * np.exp(spread * random.standard_normal())
        pairs = {
            "floor, surface": (truth.floor, lambda laws: surface_of(laws).parameter(0, 0.9)),
            "loss, surface": (loss, lambda laws: surface_of(laws).loss(TARGET, cost, 0.9)),
            "loss, frontier": (loss, lambda laws: laws[-1].loss(TARGET, cost, 0.9)),
            "forecast of one run": (run, lambda laws: predict(laws, TARGET, cost, 0.9).loss),
        }
        for name, (value, of) in pairs.items():
            found = [of(chosen) for chosen in (alone, laws)]
            if None not in found:
                held.setdefault(name, []).append(
                    tuple(x for i in found for x in (i.low <= value <= i.high, i.high - i.low))
                )
    return {name: [float(x) for x in np.mean(rows, 0)] for name, rows in held.items()}


def test_coverage_of_errors_that_rows_share(note, benchmark):
    for name, design in SHARED.items():
        found = coverage_of_shared(design, tables=20)
        note(name, {quantity: 100 * with_it for quantity, (_, _, with_it, _) in found.items()}, "%")
    points = select(runs(Truth(), 0.01, ruler=0.03)).points
    benchmark(lambda: fit_laws(points, resamples=0))


def test_coverage_of_ninety_per_cent_intervals(note, benchmark):
    for name in ("chinchilla .34/.28, 1 %", "OUT OF FAMILY: coupled p = 2, 0.5 %"):
        found = coverage(*SURFACES[name], tables=40)
        note(name, {quantity: 100 * share for quantity, (share, _) in found.items()}, "% held")
    points = select(runs(Truth(), 0.01)).points
    benchmark(lambda: variable_projection(points.params, points.samples, points.loss))


def test_speed_of_fits(note, benchmark):
    def clustered() -> None:
        fit_laws(shared, resamples=400)

    rows = runs(Truth(), 0.01, sizes=7)
    points = select(rows).points
    names = tuple(f"run {i % 7}" for i in range(len(points)))
    shared = type(points)(**{**vars(points), "run": names})
    began = time.process_time()
    clustered()
    note("400 resamples of runs, surface and parabolas", {"s": time.process_time() - began}, "s")
    began = time.process_time()
    fit(rows)
    note("fit of 35 runs, hold-outs, windows and all", {"s": time.process_time() - began}, "s")
    benchmark(lambda: variable_projection(points.params, points.samples, points.loss))


def main(tables: int, name_part: str) -> None:
    points = select(runs(Truth(), 0.01)).points
    began = time.process_time()
    for _ in range(20):
        variable_projection(points.params, points.samples, points.loss)
    print(f"VP fit of {len(points)} runs: {(time.process_time() - began) / 20 * 1e3:.1f} ms")
    names = tuple(f"run {i % 7}" for i in range(len(points)))
    shared = type(points)(**{**vars(points), "run": names})
    for resampled, what in ((points, "rows"), (shared, "runs")):
        began = time.process_time()
        fit_laws(resampled, resamples=400)
        print(f"400 resamples of {what}: {time.process_time() - began:.2f} s")
    for name, design in SHARED.items():
        if name_part in name:
            print(f"\n{name} ({tables} tables): without, with the common error")
            for quantity, (before, narrow, after, wide) in coverage_of_shared(
                design, tables
            ).items():
                print(
                    f"  {quantity:22s} {100 * before:5.1f} % of width {narrow:.3f}, "
                    f"{100 * after:5.1f} % of width {wide:.3f}",
                    flush=True,
                )
    for name, (truth, design, noise) in SURFACES.items():
        if name_part not in name:
            continue
        began = time.process_time()
        found = coverage(truth, design, noise, tables)
        print(f"\n{name} ({tables} tables, {time.process_time() - began:.0f} s)")
        for quantity, (share, width) in found.items():
            print(f"  {quantity:32s} {100 * share:5.1f} %   width {width:.3f}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400, "".join(sys.argv[2:3]))
