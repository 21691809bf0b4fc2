"""What the command line prints: live progress on stderr, tables and JSON on stdout."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

_PLAIN_SECONDS = 15.0
_muted = False


def mute(silent: bool = True) -> None:
    """Print nothing more in this process: of many processes at one work, one speaks."""
    global _muted
    _muted = silent


class LiveProgress:
    """A progress bar on a terminal, a line now and then elsewhere. Always on stderr."""

    def __init__(self, title: str, unit: str) -> None:
        self._title, self._unit = title, unit
        self._bar: Any = None
        self._task: Any = None
        self._last = time.monotonic()

    def __enter__(self) -> LiveProgress:
        if sys.stderr.isatty() and not _muted:
            from rich import progress
            from rich.console import Console

            self._bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[unit]}"),
                progress.TimeElapsedColumn(),
                progress.TextColumn("left"),
                progress.TimeRemainingColumn(),
                progress.TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=1, unit=self._unit, note="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, done: float, total: float, note: str = "") -> None:
        """Show how far it is, and a few words."""
        if self._bar:
            self._bar.update(self._task, completed=done, total=total, note=note)
        elif time.monotonic() - self._last > _PLAIN_SECONDS:
            self._last = time.monotonic()
            say(f"{self._title}: {done:,.0f}/{total:,.0f} {self._unit} {note}")


def clean(text: str) -> str:
    """Text from outside, without control characters or what cannot be encoded."""
    if text.isprintable():
        return text
    plain = text.encode("utf-8", "replace").decode()
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in plain)


def key_name(key: int) -> str:
    """A key as a person would write it: "j", "^D", "M-q", "Esc"."""
    named = {27: "Esc", 13: "Enter", 10: "^J", 32: "Space", 127: "Del"}
    if key >= 128:
        return f"M-{key_name(key - 128)}"
    return named.get(key) or (chr(key) if key > 32 else f"^{chr(key + 64)}")


def say(text: str) -> None:
    """A message to the user, on stderr."""
    if not _muted:
        print(clean(text), file=sys.stderr, flush=True)


def show(text: str) -> None:
    """A line of a report, on stdout."""
    if not _muted:
        print(clean(text))


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    if not _muted:
        print(json.dumps(value, indent=2, allow_nan=False))


def print_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table on a terminal, tab-separated lines elsewhere. Numbers to the right."""
    texts = [[_text(value) for value in row] for row in rows]
    if not sys.stdout.isatty():
        for line in ([*head], *texts):
            print("\t".join(line))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold")
    for column, name in enumerate(head):
        numeric = all(isinstance(row[column], (int, float)) or row[column] is None for row in rows)
        table.add_column(name, justify="right" if numeric and rows else "left")
    for line in texts:
        table.add_row(*map(Text, line))
    Console().print(table)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return clean(str(value))
    if isinstance(value, int) or abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def score_text(summary: dict[str, Any]) -> str:
    """A mean score and its interval, as tables show it."""
    low, high = summary["mean_score_ci95"]
    return f"{summary['mean_score']:,.1f} [{low:,.1f}, {high:,.1f}]"
