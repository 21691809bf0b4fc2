"""What a killed process had begun: nothing is left of it, or the next start removes it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from multiprocessing import heap
from pathlib import Path

import pytest

from nhzoo.errors import InputError
from nhzoo.leaderboard import board_log, maintaining, rerun
from nhzoo.runtime import files, processes, scratch
from tests import ROOT
from tests.leaderboard.test_board import place_of


def started(script: str, folder: Path) -> subprocess.Popen:
    """A process that runs `script` until it says "now", in a session of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, folder],
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder)},
        stdin=subprocess.PIPE,
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
from nhzoo.runtime import files
with files.atomic_writer(Path(sys.argv[1]) / "a file") as file:
    file.write(bytes(1000))
    file.flush()
    print("now", flush=True)
    time.sleep(1000)
"""


def test_a_killed_writer_leaves_nothing_after_the_next_start(tmp_path):
    (tmp_path / "a file").write_bytes(b"of before")
    killed(WRITER, tmp_path)
    files.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]
    assert (tmp_path / "a file").read_bytes() == b"of before"


def test_a_writers_file_goes_when_the_writer_has_ended(tmp_path):
    with started(WRITER, tmp_path) as process:
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


ELSEWHERE = """
import sys, time
from pathlib import Path
from nhzoo.runtime import files, processes, scratch
processes._machine = lambda: "01234567"
with files.temporary_folder(Path(sys.argv[1]) / "x") as folder:
    (folder / "part").touch()
    scratch.new_folder("part")
    print("now", flush=True)
    time.sleep(1000)
"""


def test_what_a_living_process_of_another_machine_holds_stays_however_old(tmp_path):
    with started(ELSEWHERE, tmp_path) as process:
        (prepared,) = tmp_path.glob(".x.*.tmp")
        (own,) = tmp_path.glob("nhzoo-*/01234567-*")
        for path in (*prepared.iterdir(), *own.iterdir(), prepared, own):
            os.utime(path, (1, 1))
        files.sweep(tmp_path, older_than=3_600)
        scratch.sweep(own.parent)
        assert len(list(prepared.iterdir())) == len(list(own.iterdir())) == 1
        process.kill()
    (own / "in use").touch()  # where there are no locks, that much is to be seen
    os.utime(own, (1, 1))
    files.sweep(tmp_path, older_than=3_600)
    scratch.sweep(own.parent)
    assert own.exists() and not prepared.exists()
    os.utime(own / "in use", (1, 1))
    scratch.sweep(own.parent)
    assert not own.exists()


UNNAMED = """
import sys
from nhzoo.runtime import files, scratch
def taken():
    raise PermissionError
files.private_folder = taken
assert scratch.new_folder().is_dir()
print("now", flush=True)
sys.stdin.read()
"""


def test_where_somebody_else_has_the_name_nothing_is_left_either(tmp_path):
    with started(UNNAMED, tmp_path) as process:
        assert len(list(tmp_path.iterdir())) == 1
        process.communicate("")
    assert process.returncode == 0 and not list(tmp_path.iterdir())


def test_shared_memory_that_has_no_other_place_goes_with_its_process(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "_MEMORY", str(tmp_path / "no such"))
    arena = heap.Arena(4_096)
    place = os.readlink(f"/proc/self/fd/{arena.fd}")
    assert place.startswith(f"{scratch.own_folder()}/")


def test_the_file_of_before_can_be_kept(tmp_path):
    files.atomic_write(tmp_path / "a file", b"one")
    files.atomic_write(tmp_path / "a file", b"two", keep=tmp_path / "before")
    assert (tmp_path / "a file").read_bytes() == b"two"
    assert (tmp_path / "before").read_bytes() == b"one"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_a_killed_process_prepared_goes_with_the_next_try(tmp_path):
    script = """
import sys, time
from pathlib import Path
from nhzoo.runtime import files
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
