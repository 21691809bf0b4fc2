"""Compiled code is kept where that is possible, used only when it is whole, and made anew else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numba
import pytest
from numba.core.dispatcher import Dispatcher

from nhzoo.runtime import files, kernels
from tests import ROOT


def double_plus(x, y):
    return 2 * x + y


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Nothing is decided yet, and the places that are tried are the test's own."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setenv("NHZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    kernels.folder.cache_clear()
    yield tmp_path
    kernels.folder.cache_clear()


def kept(fresh):
    return sorted((fresh / "cache").glob(f"kernels-{os.getuid()}/*/*"))


def compiled():
    return kernels.njit()(double_plus)


def test_code_is_compiled_once_and_then_read(fresh):
    first = compiled()
    assert first(1, 2) == 4
    assert first(1.5, 2.0) == 5.0
    assert len(kept(fresh)) == 2
    again = compiled()
    assert (again(1, 2), again(1.5, 2.0)) == (4, 5.0)
    assert sum(again.stats.cache_hits.values()) == 2
    assert not again.stats.cache_misses


@pytest.mark.parametrize("damage", ["empty", "cut", "zeros", "other code", "a folder"])
def test_broken_code_is_compiled_anew(fresh, damage):
    compiled()(1, 2)
    (path,) = kept(fresh)
    whole = path.read_bytes()
    if damage == "a folder":
        path.unlink()
        path.mkdir()
    else:
        broken = {"empty": b"", "cut": whole[:-9], "zeros": bytes(len(whole)), "other code": b"x"}
        path.write_bytes(broken[damage])
    again = compiled()
    assert again(1, 2) == 4
    assert sum(again.stats.cache_misses.values()) == 1
    if damage != "a folder":
        third = compiled()
        assert third(3, 4) == 10
        assert sum(third.stats.cache_hits.values()) == 1


def test_a_full_disk_stops_no_compiled_function(fresh, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    assert compiled()(1, 2) == 4
    assert not kept(fresh)


def test_the_users_choice_comes_first_and_what_others_can_write_last(fresh, monkeypatch):
    own = f"kernels-{os.getuid()}"

    def chosen():
        kernels.folder.cache_clear()
        return kernels.folder().parent

    assert chosen() == fresh / "cache" / own
    kernels.folder().chmod(0o770)
    private = fresh / f"nhzoo-{os.getuid()}-cache" / own
    assert chosen() == private
    assert private.parent.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("NHZOO_CACHE", "/proc/nowhere")
    monkeypatch.setattr(tempfile, "tempdir", str(fresh / "of a worker"))
    assert chosen() == private  # in workers as well
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(fresh / "named"))
    assert chosen() == fresh / "named" / own


def test_where_nothing_can_be_written_code_is_compiled_in_memory_and_that_is_said(
    fresh, monkeypatch
):
    monkeypatch.setenv("NHZOO_CACHE", "/proc/nowhere")

    def none():
        raise PermissionError(1, "no such thing", "/tmp")

    monkeypatch.setattr(files, "private_folder", none)
    with pytest.warns(UserWarning, match="every start takes up to a minute longer: .* NHZOO_CACHE"):
        assert compiled()(1, 2) == 4
    assert kernels.folder() is None


def test_a_private_folder_is_nobody_elses(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir(0o700)
    assert files.is_private(folder)
    (tmp_path / "link").symlink_to(folder)
    assert not files.is_private(tmp_path / "link")
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    assert not files.is_private(folder)


def in_a_copy(folder, code):
    """What a program prints that imports the copy of the package in `folder`."""
    env = os.environ | {"PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": "", "NHZOO_CACHE": "kept"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.slow
def test_what_changes_while_a_process_runs_is_not_taken_for_what_it_runs(tmp_path):
    """As after a `git pull` under a running job, of which nothing must be left."""
    shutil.copytree(ROOT / "nhzoo", tmp_path / "nhzoo", ignore=shutil.ignore_patterns("bundled"))
    (tmp_path / "nhzoo" / "inner.py").write_text(INNER)
    (tmp_path / "nhzoo" / "outer.py").write_text(OUTER)
    use = "import nhzoo.outer\nprint(nhzoo.outer.twice(1), nhzoo.outer.twice.stats.cache_hits)"
    pull = "import pathlib\npathlib.Path('nhzoo/inner.py').write_text('# new\\n' + NEW)\n"
    job = f"NEW = {INNER.replace('10', '30')!r}\nimport nhzoo.outer\n{pull}{use}"
    assert in_a_copy(tmp_path, job)[0] == "22"
    (folder,) = (tmp_path / "kept").iterdir()
    assert not [path for version in folder.iterdir() for path in version.iterdir()]
    first, again = (in_a_copy(tmp_path, use) for _ in range(2))
    assert (first[0], again[0]) == ("62", "62")  # the callee has changed, in another file
    assert (first[1], "1}" in again[-1]) == ("Counter()", True)
    (tmp_path / "nhzoo" / "cli" / "app.py").write_text("# other code, of which nothing is compiled")
    assert "1}" in in_a_copy(tmp_path, use)[-1]


INNER = """
from nhzoo.runtime import kernels


@kernels.njit()
def more(x):
    return x + 10
"""

OUTER = """
from nhzoo.runtime import kernels
from nhzoo.inner import more


@kernels.njit()
def twice(x):
    return 2 * more(x)
"""


def test_functions_of_one_line_and_name_are_told_apart(fresh, monkeypatch):
    """In anybody's code, as in AutoAscend's process; and again when it is read."""
    monkeypatch.setattr(Dispatcher, "enable_caching", Dispatcher.enable_caching)
    kernels.adopt()

    def plus(number):
        return numba.njit(lambda x: x + number, cache=True)

    hits = []
    for _ in range(2):
        pair = [numba.njit(f, cache=True) for f in (lambda x: x + 1, lambda x: x + 2)]
        made = [*pair, plus(3), plus(4)]
        assert [function(10) for function in made] == [11, 12, 13, 14]
        hits.append(sum(sum(function.stats.cache_hits.values()) for function in made))
    assert hits == [0, 4]
    assert len(kept(fresh)) == 4


def test_code_without_a_source_file_is_compiled_in_memory(fresh):
    for number in (1, 2):
        names = {}
        exec(compile(f"def typed(x): return x + {number}", "<stdin>", "exec"), names)
        assert kernels.njit()(names["typed"])(1) == 1 + number
    assert not (fresh / "cache").exists()


@pytest.fixture
def shared(fresh, monkeypatch):
    """A folder that others can enter, unlike those of tests."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setenv("NHZOO_CACHE", f"{folder}/cache")
        yield Path(folder)


@pytest.mark.parametrize(
    ("mode", "used"), [(0o755, True), (0o1777, True), (0o775, False), (0o757, False)]
)
def test_a_folder_whose_parent_others_can_write_to_is_passed_over(shared, mode, used):
    (shared / "cache").mkdir()
    (shared / "cache").chmod(mode)
    assert (shared / "cache" in kernels.folder().parents) == used
    kernels.folder.cache_clear()
    shared.chmod(0o700)  # nobody else gets that far
    assert shared / "cache" in kernels.folder().parents


def test_a_folder_whose_parent_is_somebody_elses_is_passed_over(shared, monkeypatch):
    real, cache = os.stat, shared / "cache"
    assert cache in kernels.folder().parents
    kernels.folder.cache_clear()

    def foreign(path, **options):
        found = real(path, **options)
        if os.fspath(path) != str(cache):
            return found
        return os.stat_result((*found[:4], os.getuid() + 1, *found[5:]))

    monkeypatch.setattr(os, "stat", foreign)
    assert cache not in kernels.folder().parents


def test_what_was_open_to_others_is_not_trusted_again(fresh):
    """A folder of 0755 in which, under umask 0, there are files that all can write to."""
    place = kernels.folder()
    assert place.stat().st_mode & 0o777 == 0o700
    place.chmod(0o755)
    kernels.folder.cache_clear()
    assert fresh / "cache" not in kernels.folder().parents


def test_the_code_of_versions_that_nobody_uses_is_removed(fresh):
    compiled()(1, 2)
    versions = kernels.folder().parent
    for name, days in {"unused": 31, "other": 29}.items():
        (versions / name).mkdir()
        (versions / name / "code").write_bytes(b"x")
        os.utime(versions / name, 2 * (time.time() - days * 86400,))
    os.utime(kernels.folder(), (0, 0))
    assert len(list(versions.iterdir())) == 3
    kernels.folder.cache_clear()
    assert kernels.folder().parent == versions
    assert {path.name for path in versions.iterdir()} == {"other", kernels.folder().name}
    assert len(kept(fresh)) == 2


@pytest.mark.slow
def test_a_read_only_install_without_a_home_compiles(tmp_path):
    """In a container: nothing of the package can be written, and there is no home."""
    code = (
        "import numba\n"
        "from nhzoo.runtime import kernels; from nhzoo.policy import memory\n"
        "print(memory.position(5), kernels.folder().parent)"
    )
    enter = (
        f"mount --bind {ROOT} {ROOT} && mount -o remount,bind,ro {ROOT} && "
        f"exec {sys.executable} -c '{code}'"
    )
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in ("NHZOO_CACHE", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME")
    }
    env |= {"HOME": "/proc/nowhere", "TMPDIR": str(tmp_path)}
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", enter], env=env, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == str(
        tmp_path / f"nhzoo-{os.getuid()}-cache" / f"kernels-{os.getuid()}"
    )
