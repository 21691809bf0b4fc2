"""Files on systems that are not the developer's: no locks, no chmod, an odd umask, no home."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
import warnings
from pathlib import Path

import pytest

from nhzoo.data import catalog, download
from nhzoo.errors import CheckFailed, InputError, Notice
from nhzoo.evaluation import results
from nhzoo.runtime import files
from tests import ROOT


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF])
def test_without_locks_the_work_goes_on_and_that_is_said_once(code, tmp_path, monkeypatch):
    def refuse(handle, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    monkeypatch.setattr(files, "_warned", [])
    said = f"{tmp_path}: cannot be locked .*{os.strerror(code)}"
    with pytest.warns(Notice, match=said), files.lock(tmp_path):
        pass
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with files.lock(tmp_path), files.lock_file(tmp_path / "a file"):
            files.atomic_write(tmp_path / "a file", b"content")
    assert (tmp_path / "a file").read_bytes() == b"content"


def test_a_lock_that_another_holds_is_still_one(tmp_path):
    busy = pytest.raises(InputError, match="another process is at work")
    with files.lock(tmp_path), busy, files.lock(tmp_path):
        pass
    part = tmp_path / "file.part"
    with open(part, "ab") as held:
        assert files.flock(held.fileno(), part, wait=False)
        with pytest.raises(InputError, match="another process is downloading it"):
            download.download("http://127.0.0.1:9/file", tmp_path / "file")


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_the_umask_decides_who_reads_what_is_written(umask, tmp_path, monkeypatch):
    def refuse(path, mode, **options):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)

    monkeypatch.setattr(os, "chmod", refuse)
    before = os.umask(umask)
    try:
        files.atomic_write(tmp_path / "folder" / "file", b"content")
    finally:
        os.umask(before)
    assert (tmp_path / "folder" / "file").stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_full_disk_names_its_file(tmp_path, monkeypatch):
    (tmp_path / "episodes.jsonl").symlink_to("/dev/full")
    monkeypatch.setattr(results, "write_trace", lambda *arguments, **options: None)
    with pytest.raises(OSError, match="No space left") as met, results.GameLog(tmp_path) as log:
        log.add({"index": 0}, b"")
    assert met.value.filename == str(tmp_path / "episodes.jsonl")


@pytest.mark.parametrize("value", ["", "relative/folder"])
def test_an_xdg_variable_that_is_no_path_counts_as_unset(value, tmp_path, monkeypatch):
    for name in ("NHZOO_CACHE", "NHZOO_DATA"):
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.cache_folder() == tmp_path / ".cache" / "nhzoo"
    assert catalog.data_folder() == tmp_path / ".local" / "share" / "nhzoo"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert files.cache_folder() == tmp_path / "elsewhere" / "nhzoo"


def test_a_user_without_a_home_has_a_private_folder(tmp_path, monkeypatch):
    def none():
        raise RuntimeError("Could not determine home directory.")

    for name in ("NHZOO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", none)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/of/a/worker")
    own = tmp_path / f"nhzoo-{os.getuid()}-cache"
    assert files.cache_folder() == own / ".cache" / "nhzoo"
    own.chmod(0o777)  # anybody could put something there
    monkeypatch.setattr(files, "is_private", lambda folder: False)
    with pytest.raises(InputError, match=r"no home folder .*; set HOME or NHZOO_CACHE"):
        files.cache_folder()


def test_a_clone_has_the_bytes_that_were_committed(tmp_path):
    """Whatever the user's git does to line ends elsewhere: the log is hashed."""
    attributes = ROOT / ".gitattributes"
    if not attributes.exists():
        pytest.skip("no checkout")

    def git(*arguments):
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
            check=True,
            capture_output=True,
        )

    origin = tmp_path / "origin"
    git("init", "-q", str(origin))
    log = (ROOT / "leaderboard" / "log.jsonl").read_bytes()
    (origin / "log.jsonl").write_bytes(log)
    (origin / ".gitattributes").write_bytes(attributes.read_bytes())
    git("-C", str(origin), "add", ".")
    git("-C", str(origin), "commit", "-q", "-m", "a log")
    git("clone", "-q", "-c", "core.autocrlf=true", str(origin), str(tmp_path / "clone"))
    assert (tmp_path / "clone" / "log.jsonl").read_bytes() == log


def test_a_log_with_other_line_ends_is_told_from_one_that_was_changed(tmp_path):
    from nhzoo.leaderboard.board_log import read_log

    log = (ROOT / "leaderboard" / "log.jsonl").read_bytes()
    (tmp_path / "log.jsonl").write_bytes(log.replace(b"\n", b"\r\n"))
    with pytest.raises(CheckFailed, match=r"line 1: ends with CR LF.*core\.autocrlf"):
        read_log(tmp_path)
