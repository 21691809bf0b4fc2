"""What a killed process had begun: nothing is left of it, or the next start removes it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nhzoo import board_log, files, maintaining, processes, rerun, scratch
from nhzoo.errors import InputError
from tests.test_board import place_of

ROOT = Path(__file__).parents[1]


def started(script: str, folder: Path) -> subprocess.Popen:
    """A process that runs `script` until it says "now", in a session of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, folder],
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "now\n"
    return process


def killed(script: str, folder: Path) -> None:
    """Kill the process of `script`, and all that it has started, when it says "now"."""
    with started(script, folder) as process:
        os.killpg(process.pid, signal.SIGKILL)


WRITER = """
import sys, time
from pathlib import Path
from nhzoo import files
{before}
with files.atomic_writer(Path(sys.argv[1]) / "a file") as file:
    file.write(bytes(1000))
    file.flush()
    print("now", flush=True)
    time.sleep(1000)
"""


def test_a_killed_writer_leaves_nothing(tmp_path):
    (tmp_path / "a file").write_bytes(b"of before")
    killed(WRITER.format(before=""), tmp_path)
    if not files._can_link(tmp_path, tmp_path.stat().st_dev):
        files.sweep(tmp_path)  # this file system has no files without a name
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]
    assert (tmp_path / "a file").read_bytes() == b"of before"


def test_where_files_have_names_a_writers_file_goes_when_the_writer_has_ended(tmp_path):
    script = WRITER.format(before="files._can_link = lambda *_: False")
    with started(script, tmp_path) as process:
        (left,) = tmp_path.glob(".*.tmp")
        foreign = tmp_path / f".b.{'0' * 8}-1-1.01234567.tmp"  # of another machine
        foreign.touch()
        files.sweep(tmp_path, older_than=3_600)
        assert left.exists()  # it is at work
        process.kill()
    files.sweep(tmp_path, older_than=3_600)
    assert list(tmp_path.iterdir()) == [foreign]
    os.utime(foreign, (1, 1))
    files.sweep(tmp_path, older_than=3_600)
    assert not list(tmp_path.iterdir())


def test_without_files_that_have_no_name_the_same_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_linkable", {})

    def refuse(*arguments, **options):
        raise OSError(errno.EPERM, "not here")

    monkeypatch.setattr(os, "link", refuse)
    files.atomic_write(tmp_path / "a file", b"one")
    files.atomic_write(tmp_path / "a file", b"two", keep=tmp_path / "before")
    assert (tmp_path / "a file").read_bytes() == b"two"
    assert (tmp_path / "before").read_bytes() == b"one"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_a_killed_process_prepared_goes_with_the_next_try(tmp_path):
    script = """
import sys, time
from pathlib import Path
from nhzoo import files
with files.temporary_folder(Path(sys.argv[1]) / "x") as folder:
    (folder / "part").touch()
    print("now", flush=True)
    time.sleep(1000)
"""
    killed(script, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    (tmp_path / ".mine.tmp").mkdir()
    with files.temporary_folder(tmp_path / "x") as folder:
        assert len(list(tmp_path.iterdir())) == 2
        (folder / "whole").mkdir()
        os.rename(folder / "whole", tmp_path / "x")
    files.sweep(tmp_path)  # not what somebody else calls so
    assert {path.name for path in tmp_path.iterdir()} == {".mine.tmp", "x"}


VECTOR = """
import sys, time
import gymnasium
import nhzoo
if __name__ == "__main__":
    envs = gymnasium.make_vec("nhzoo/Monk-v1", num_envs=3, vectorization_mode="async")
    envs.reset(seed=1)
    {after}
"""


@pytest.mark.slow
def test_environments_that_were_never_closed_leave_nothing_after_the_next_start(tmp_path):
    killed(VECTOR.format(after="print('now', flush=True); time.sleep(1000)"), tmp_path)
    (root,) = tmp_path.glob("nhzoo-*")
    assert len(list(root.glob("*/nle*"))) == 3
    assert len(list(tmp_path.iterdir())) == 1  # nothing beside our own place
    until = time.monotonic() + 10
    while not all(processes.has_ended(path.name) for path in root.iterdir()):
        assert time.monotonic() < until
    scratch.sweep(root)
    assert not list(root.iterdir())


def test_a_secret_that_did_not_come_into_the_log_is_taken_up_again(tmp_path, monkeypatch):
    place, secret = place_of(tmp_path, "random"), tmp_path / "secret"
    with monkeypatch.context() as patch:

        def full(*arguments, **options):
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(board_log.files, "atomic_write", full)
        with pytest.raises(OSError, match="No space"):
            maintaining.commit(place, secret, "a month")
    drawn = rerun.read_secret(secret)
    line = maintaining.commit(place, secret, "a month")
    assert (
        line.facts["commitment"]
        == rerun.commitment(drawn)
        == rerun.commitment(rerun.read_secret(secret))
    )
    with pytest.raises(InputError, match="never written over"):
        maintaining.commit(place, secret, "another month")


@pytest.mark.parametrize("content", ["", "0123abc", "0" * 63])
def test_a_secret_that_was_cut_short_is_drawn_anew(content, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text(content)
    secret.chmod(0o600)
    assert rerun.new_secret(secret) == rerun.read_secret(secret)


@pytest.mark.parametrize(
    ("content", "mode"), [("0" * 64, 0o644), ("", 0o604), ("my notes", 0o600), ("g" * 64, 0o600)]
)
def test_no_other_file_becomes_a_secret(content, mode, tmp_path):
    """Nor one that others could have put there, or have read."""
    secret = tmp_path / "secret"
    secret.write_text(content)
    secret.chmod(mode)
    with pytest.raises(InputError, match="never written over"):
        rerun.new_secret(secret)
    assert secret.read_text() == content
