"""`nhzoo ...` as a test runs it: in this process where the process itself is not what is tested."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

from nhzoo.cli import app
from nhzoo.errors import Notice

NHZOO = (sys.executable, "-m", "nhzoo")


def start(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, which costs an import of torch."""
    words = [*NHZOO, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, **options)


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command here, with file descriptors 1 and 2 of its own, so workers' words are caught.

    What it changes of this process is put back: streams, signals, filters of warnings, threads.
    """
    words = ["nhzoo", *map(str, arguments)]
    kept = {name: getattr(sys, name) for name in ("argv", "stdin", "stdout", "stderr")}
    terminate = signal.getsignal(signal.SIGTERM)
    with contextlib.ExitStack() as stack:
        if cwd:
            stack.enter_context(contextlib.chdir(cwd))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("default", Notice)  # a line on stderr
        files = {number: stack.enter_context(tempfile.TemporaryFile()) for number in (1, 2)}
        saved = {number: os.dup(number) for number in files}
        try:
            for number, file in files.items():
                kept["stdout" if number == 1 else "stderr"].flush()
                os.dup2(file.fileno(), number)
            sys.argv = words
            sys.stdin = stack.enter_context(open(os.devnull))
            sys.stdout = open(1, "w", closefd=False, encoding="utf-8")
            sys.stderr = open(2, "w", closefd=False, encoding="utf-8")
            code = _ended()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            vars(sys).update(kept)
            signal.signal(signal.SIGTERM, terminate)
            for number, copy in saved.items():
                os.dup2(copy, number)
                os.close(copy)
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(1)
        texts = []
        for file in files.values():
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess(words, code, *texts)


def _ended() -> int:
    """The exit code of `main`."""
    try:
        app.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
