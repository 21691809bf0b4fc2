"""Benchmarks: speeds side by side in one run, reported as ratios, never asserted."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable

import pytest

_REPORT: list[tuple[str, dict[str, float], str]] = []


@pytest.fixture
def side_by_side(request, benchmark):
    """Time several callables in turns, best of `rounds` each; each returns how much it did.

    The first is also what pytest-benchmark records; rates and ratios to the last go into its
    `extra_info` and are printed at the end.
    """

    def run(unit: str, rounds: int, **contestants: Callable[[], float]) -> dict[str, float]:
        rates = dict.fromkeys(contestants, 0.0)
        for work in contestants.values():
            work()  # compile, fill the page cache
        for _ in range(rounds):
            for name, work in contestants.items():
                gc.collect()
                began = time.perf_counter()
                amount = work()
                rates[name] = max(rates[name], amount / (time.perf_counter() - began))
        benchmark.pedantic(next(iter(contestants.values())), rounds=1)
        benchmark.extra_info.update(rates, load=os.getloadavg()[0])
        _REPORT.append((request.node.name, rates, unit))
        return rates

    return run


@pytest.fixture
def note():
    """Print a figure that is no speed at the end: note(test, {name: value}, unit)."""
    return lambda name, values, unit: _REPORT.append((name, values, unit))


def pytest_terminal_summary(terminalreporter):
    for name, values, unit in _REPORT:
        terminalreporter.write_sep("-", f"{name} ({unit})")
        last = list(values.values())[-1]
        for contestant, value in values.items():
            ratio = f"{value / last:9.2f}x" if last and len(values) > 1 else ""
            terminalreporter.write_line(f"  {contestant:32s} {value:14,.1f} {ratio}")
    if _REPORT:
        load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
        terminalreporter.write_line(f"load average {load}; {os.cpu_count()} CPUs")
