"""How often nominal 95 % intervals hold the truth, for scores as heavy-tailed as NetHack's.

A list of real scores is taken as the whole population; samples of n games are drawn from it with
replacement, and it is counted how often each interval holds the population's value.

python tests/benchmarks/bench_statistics.py           # 1,000 samples, 1,000 resamples: 20 minutes
make bench                                            # 100 samples of the smaller sizes
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable

import numpy as np

from nhzoo.data.traces import open_traces
from nhzoo.evaluation import statistics
from nhzoo.evaluation.comparison import _test, _verdict
from tests import ROOT

RESULTS = ROOT / "leaderboard" / "results"
SIZES = (8, 32, 128, 1024)
METHODS = ("bca", "percentile", "t", "bootstrap-t")


def populations() -> dict[str, np.ndarray]:
    """Score lists by name. The lognormal is worse than they: skewness 5.6, theirs 2.1 and 1.6."""
    found = {}
    for agent in ("bc-lstm-1m", "random"):
        lines = (RESULTS / agent / "monk-lite-v1" / "episodes.jsonl").read_text().splitlines()
        found[agent] = np.array([json.loads(line)["score"] for line in lines], float)
    expert = [t.score for t in open_traces("autoascend-monk-v1").traces if t.score is not None]
    found["autoascend"] = np.array(expert, float)
    quantiles = (np.arange(20_000) + 0.5) / 20_000
    from scipy import stats

    found["lognormal"] = 500 * np.exp(stats.norm.ppf(quantiles))
    return found


def coverage(
    population: np.ndarray, n: int, statistic: str, method: str, samples: int, resamples: int
) -> tuple[float, float, float, float]:
    """(share that holds the truth, too low, too high, median width over the truth)."""
    truth = statistics.estimate(population, statistic)
    random = np.random.default_rng(n)
    low, high, width = 0, 0, []
    for number in range(samples):
        drawn = random.choice(population, n)
        ends = statistics.ci95(drawn, statistic, method, seed=number, resamples=resamples)
        ends = ends or (statistics.estimate(drawn, statistic),) * 2  # of equal scores
        low += ends[1] < truth
        high += ends[0] > truth
        width.append(ends[1] - ends[0])
    relative = float(np.median(width)) / truth if truth else float("nan")
    return 1 - (low + high) / samples, low / samples, high / samples, relative


def one_sample(samples: int, resamples: int, sizes: Iterable[int]) -> None:
    print("mean: coverage (interval below the truth, above it; median width / truth)")
    for name, population in populations().items():
        for n in sizes:
            row = []
            for method in METHODS:
                hit, low, high, width = coverage(population, n, "mean", method, samples, resamples)
                row.append(f"{method} {hit:6.1%} ({low:.1%}, {high:.1%}; {width:.2f})")
            print(f"{name:12s} n={n:5d}  " + "  ".join(row), flush=True)
    print("median and interquartile mean: coverage")
    for name, population in populations().items():
        for n in (n for n in sizes if n <= 128):
            row = []
            for statistic in ("median", "iqm"):
                for method in ("bca", "percentile"):
                    hit, *_, width = coverage(population, n, statistic, method, samples, resamples)
                    row.append(f"{statistic} {method} {hit:6.1%} ({width:.2f})")
            print(f"{name:12s} n={n:5d}  " + "  ".join(row), flush=True)


def correlated(population: np.ndarray, n: int, random: np.random.Generator) -> list[np.ndarray]:
    """Two score lists of n games with the same mean and a rank correlation of about a half."""
    scores = np.sort(population)
    common, *own = (random.normal(size=n) for _ in range(3))
    from scipy import stats

    uniforms = [stats.norm.cdf((common + other) / 2**0.5) for other in own]
    return [scores[(u * len(scores)).astype(int)] for u in uniforms]


def two_samples(samples: int, sizes: Iterable[int]) -> None:
    print("differences of mean scores where there is none: coverage, p < 0.05, false verdicts")
    kinds: dict[str, Callable[..., statistics.Interval]] = {
        "paired": statistics.paired_difference,
        "unpaired": statistics.unpaired_difference,
    }
    people = populations()
    # The same mean and another shape: half the spread.
    people["autoascend, spreads 2:1"] = people["autoascend"]
    for name, population in people.items():
        for n in sizes:
            row = []
            for kind, between in kinds.items():
                random = np.random.default_rng(n)
                hits = small = wrong = 0
                for _ in range(samples):
                    if kind == "paired":
                        a, b = correlated(population, n, random)
                    else:
                        a, b = random.choice(population, n), random.choice(population, n)
                    if name.endswith("2:1"):
                        b = (b + population.mean()) / 2
                    interval = between(a, b)
                    p, _ = _test(a, b, kind == "paired")
                    low, high = interval.ends or (interval.estimate,) * 2
                    hits += low <= 0 <= high
                    small += p < 0.05
                    wrong += _verdict(interval, p) != "not settled"
                row.append(
                    f"{kind} {hits / samples:6.1%}, {small / samples:5.1%}, {wrong / samples:5.1%}"
                )
            print(f"{name:24s} n={n:5d}  " + "   ".join(row), flush=True)


def ratios(samples: int, sizes: Iterable[int]) -> None:
    print("ratio of an agent's mean to AutoAscend's, of 171 games: coverage")
    people = populations()
    expert = people["autoascend"]
    for name in ("bc-lstm-1m", "autoascend"):
        for n in sizes:
            random, hits = np.random.default_rng(n), 0
            truth = people[name].mean() / expert.mean()
            for number in range(samples):
                drawn = random.choice(people[name], n), random.choice(expert, len(expert))
                interval = statistics.ratio_of_means(*drawn, seed=number)
                hits += interval.low <= truth <= interval.high
            print(f"{name:12s} n={n:5d}  {hits / samples:.1%}", flush=True)


def power(samples: int) -> None:
    print("games_to_settle asks for 80 %: verdicts with so many games, difference 20 %")
    for name in ("bc-lstm-1m", "autoascend"):
        population = populations()[name]
        for kind in ("paired", "unpaired"):
            random, found = np.random.default_rng(1), 0
            more = population * 1.2
            if kind == "paired":
                a, b = correlated(population, 100_000, random)
                spreads = [float((1.2 * a - b).std())]
            else:
                spreads = [float(more.std()), float(population.std())]
            n = statistics.games_to_settle(population.mean() * 0.2, *spreads)
            assert n is not None
            for _ in range(samples):
                if kind == "paired":
                    a, b = correlated(population, n, random)
                    interval = statistics.paired_difference(1.2 * a, b)
                else:
                    a, b = random.choice(population, n), random.choice(population, n)
                    interval = statistics.unpaired_difference(1.2 * a, b)
                p, _ = _test(1.2 * a, b, kind == "paired")
                found += _verdict(interval, p) == "a scores higher"
            print(f"{name:12s} {kind:8s} n={n:5d}  {found / samples:.1%}", flush=True)


def test_coverage(capsys):
    """A small run: the whole table is printed by running this file."""
    with capsys.disabled():
        print()
        one_sample(100, 1_000, (8, 32, 128))


if __name__ == "__main__":
    parts = sys.argv[1:] or ["one", "two", "ratio", "power"]
    began = time.perf_counter()
    if "one" in parts:
        one_sample(1_000, 1_000, SIZES)
    if "two" in parts:
        two_samples(500, (8, 32, 128))
    if "ratio" in parts:
        ratios(500, (8, 32, 128))
    if "power" in parts:
        power(300)
    print(f"{time.perf_counter() - began:.0f} s")
