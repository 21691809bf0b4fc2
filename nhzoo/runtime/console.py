"""The console output: live progress on stderr, tables and JSON on stdout."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import textwrap
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from nhzoo.errors import Notice

_PLAIN_SECONDS = 15.0
_PROSE = 40  # characters from which on a cell is text that may be wrapped
_muted = False


class _Output(io.FileIO):
    """Standard output or error, which may not be read to its end.

    When the reader of a pipe is gone (`nhzoo list | head -1`), the rest is dropped and the command
    ends with the exit code of what it did. A disk that is full is an error, once and by name;
    standard error is the last thing to fail.
    """

    unread = False

    def __init__(self, handle: int) -> None:
        super().__init__(handle, "w", closefd=False)

    def write(self, data: Any) -> int:
        """Write, or drop."""
        if not self.unread:
            try:
                return super().write(data)
            except OSError as error:
                self.unread = True
                if self.fileno() == 1 and not isinstance(error, BrokenPipeError):
                    error.filename = "standard output"
                    raise
        return memoryview(data).nbytes


def open_streams() -> None:
    """Make standard input, output and error safe to use; for a process that is a command.

    One that is closed gives and takes nothing, so that no file of ours gets its number; characters
    that an encoding lacks become "?"; and warnings of nhzoo are a line.
    """
    for handle, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(handle)
        except OSError:
            spare = os.open(os.devnull, os.O_RDWR)
            os.dup2(spare, handle)
            if spare != handle:
                os.close(spare)
            os.set_inheritable(handle, True)
        stream = getattr(sys, name)
        if handle == 0:
            sys.stdin = stream or open(handle, closefd=False)
            continue
        if stream is not None:
            stream.flush()
        lines = stream is None or stream.line_buffering or stream.write_through
        wrapped = io.TextIOWrapper(
            io.BufferedWriter(_Output(handle)),
            encoding=getattr(stream, "encoding", None) or "utf-8",
            errors="replace" if handle == 1 else "backslashreplace",
            line_buffering=lines,
        )
        setattr(sys, name, wrapped)
    default = warnings.showwarning

    def show(message: Any, category: Any, *where: Any, **more: Any) -> None:
        if issubclass(category, Notice):
            say(f"nhzoo: {message}")
        else:
            default(message, category, *where, **more)

    warnings.showwarning = show


def unread() -> bool:
    """Whether nobody reads standard output any more."""
    return bool(getattr(getattr(getattr(sys.stdout, "buffer", None), "raw", None), "unread", False))


def mute(silent: bool = True) -> None:
    """Print nothing more in this process: of many processes at one work, one speaks."""
    global _muted
    _muted = silent


ProgressCallback = Callable[[float, float], None]
"""Called with how much is done and how much there is in all: 0 where that is not known."""


def no_progress(done: float, total: float) -> None:
    """A `ProgressCallback` that does nothing."""


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


def print_table(
    head: Sequence[str], rows: Sequence[Sequence[Any]], optional: Sequence[str] = ()
) -> None:
    """A table on a terminal, tab-separated lines elsewhere. Numbers to the right.

    No number is ever cut or broken: where the terminal is too narrow, the columns `optional` go,
    last first, and then each row is a block of lines, one a column. Only long text is wrapped.
    """
    texts = [[_text(value) for value in row] for row in rows]
    if not _on_terminal():
        for line in ([*head], *texts):
            print("\t".join(line))
        return
    shown = list(range(len(head)))
    width = shutil.get_terminal_size().columns
    dropped: list[str] = []
    widths = _widths(head, texts, width)
    for name in reversed(optional):
        if _fits(shown, widths, width):
            break
        dropped.insert(0, name)
        shown = [column for column in shown if head[column] not in dropped]
    if not _fits(shown, widths, width):
        _print_blocks(head, texts, width)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold")
    for column in shown:
        numeric = all(isinstance(row[column], (int, float)) or row[column] is None for row in rows)
        prose = _is_prose(texts, column)
        table.add_column(
            head[column] if prose else Text(textwrap.fill(head[column], widths[column])),
            justify="right" if numeric and rows else "left",
            no_wrap=not prose,
            overflow="fold",
            min_width=widths[column],
        )
    for line in texts:
        table.add_row(*(Text(line[column]) for column in shown))
    Console(width=width).print(table)
    if dropped:
        say(f"not shown at this width: {', '.join(dropped)}; --json has all")


def print_groups(groups: Mapping[str, Mapping[str, Any]], commands: Mapping[str, str]) -> None:
    """Facts under headings, then commands by what each is for; tab-separated off a terminal.

    A command is one line, to be copied, however long.
    """
    if not _on_terminal():
        for group, facts in (*groups.items(), ("Reproduce it", commands)):
            for name, value in facts.items():
                print("\t".join((group, name, _text(value))))
        return
    width = shutil.get_terminal_size().columns
    label = max((len(name) for facts in groups.values() for name in facts), default=0)
    for group, facts in groups.items():
        _print_heading(group)
        names = [f"  {name:{label}}" for name in facts]
        _print_blocks(names, [[_text(value) for value in facts.values()]], width)
        print()
    _print_heading("Reproduce it")
    for purpose, command in commands.items():
        print(f"  {clean(purpose)}:\n    {clean(command)}")


def _print_heading(text: str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console().print(Text(clean(text), style="bold"))


def _on_terminal() -> bool:
    return sys.stdout.isatty()


def _is_prose(texts: Sequence[Sequence[str]], column: int) -> bool:
    """Whether a column holds text that may be wrapped, at words."""
    return any(len(line[column]) > _PROSE for line in texts)


def _widths(head: Sequence[str], texts: Sequence[Sequence[str]], width: int) -> list[int]:
    """The least width of each column: whole cells, or the longest words of prose."""
    found = []
    for column, name in enumerate(head):
        cells = [line[column] for line in texts]
        if _is_prose(texts, column):
            cells = [word for cell in cells for word in cell.split()]
            longest = min(max(map(len, cells), default=0), _PROSE)
            longest = max(longest, min(_PROSE // 2, width // 3))
        else:
            longest = max(map(len, cells), default=0)
        found.append(max([longest, 1, *map(len, name.split())]))
    return found


def _fits(columns: Sequence[int], widths: Sequence[int], width: int) -> bool:
    """Whether a table of these columns fits, with a border and two spaces a column."""
    return sum(widths[column] + 3 for column in columns) + 1 <= width


def _print_blocks(head: Sequence[str], texts: Sequence[Sequence[str]], width: int) -> None:
    """Each row as lines of a column's name and its value, beside it or below."""
    label = max(map(len, head), default=0) + 2
    for number, line in enumerate(texts):
        if number:
            print()
        for name, value in zip(head, line, strict=True):
            if len(value) <= width - label:
                print(f"{name:{label}}{value}".rstrip())
                continue
            if name:
                print(name.rstrip())
            lines = [value]
            if len(value) > _PROSE:
                lines = textwrap.wrap(
                    value, max(width - 2, 1), break_long_words=False, break_on_hyphens=False
                )
            for part in lines:
                print(f"  {part}" if len(part) <= width - 2 else part)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return clean(str(value))
    if isinstance(value, int) or abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.4g}"
