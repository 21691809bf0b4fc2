"""Standard output and error that are closed, full, unread or of another encoding."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import click
import pytest

from nhzoo.cli import app
from tests.conftest import SHARED  # noqa: F401  (the hub's settings)

NHZOO = f"{sys.executable} -m nhzoo"


def shell(command, **more):
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=env | more, errors="replace"
    )


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_changes_no_exit_code():
    for unbuffered in ("", "1"):
        done = shell(f"{NHZOO} list | true; echo ${{PIPESTATUS[0]}}", PYTHONUNBUFFERED=unbuffered)
        assert (done.stdout, done.stderr) == ("0\n", "")
    failed = shell(f"{NHZOO} verify nowhere 2>&1 | true; echo ${{PIPESTATUS[0]}}")
    assert (failed.stdout, failed.stderr) == ("2\n", "")
    watched = shell(f"{NHZOO} watch random --speed 0 | head -n 1 >/dev/null; echo $PIPESTATUS")
    assert watched.stdout == "0\n"
    assert "stopped : score 0" in watched.stderr


def test_closed_streams_take_nothing_and_stop_nothing():
    done = shell(f"{NHZOO} list >&-; echo $?; {NHZOO} bogus 2>&-; echo $?")
    assert (done.stdout, done.stderr) == ("0\n2\n", "")
    assert shell(f"{NHZOO} list <&- >&- 2>&-").returncode == 0


def test_a_full_disk_behind_a_stream_is_told_where_it_can_be():
    done = shell(f"{NHZOO} list >/dev/full; echo $?; {NHZOO} bogus 2>/dev/full; echo $?")
    assert done.stdout == "2\n2\n"
    assert re.fullmatch("nhzoo: standard output: No space left on device; make .*\n", done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_output_in_another_encoding_lacks_characters_and_nothing_else(encoding):
    done = subprocess.run(
        [sys.executable, "-m", "nhzoo", "watch", "random", "--speed", "0", "--max-steps", "1"],
        capture_output=True,
        encoding=encoding,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 0, done.stderr
    middle = "?" if encoding == "ascii" else "\u00b7"
    assert f"random {middle} smoke-v1 game 0" in done.stdout


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (EOFError("Ran out of input"), 2, "EOFError: Ran out of input (a bug?"),
        (KeyboardInterrupt(), 130, "stopped; the same command"),
        (BrokenPipeError(32, "Broken pipe"), 2, "BrokenPipeError: Broken pipe"),
        (OSError(28, "No space left on device", "/a/file"), 2, "/a/file: No space left on device"),
        (MemoryError(), 2, "not enough memory"),
        (SystemExit(7), 7, ""),
    ],
    ids=lambda value: type(value).__name__,
)
def test_click_does_not_tell_of_errors_in_our_place(error, code, says, monkeypatch, capsys):
    """It takes EOFError, of a file that was cut, for Ctrl-C, and ends with 1 at a broken pipe."""

    @click.command()
    def broken():
        raise error

    monkeypatch.setitem(app.cli.commands, "broken", broken)
    monkeypatch.setattr(sys, "argv", ["nhzoo", "broken"])
    if isinstance(error, SystemExit):
        with pytest.raises(SystemExit):
            app._run(debug=False)
        return
    assert app._run(debug=False) == code
    said = capsys.readouterr().err
    assert says in said
    assert len(said.splitlines()) == 1
