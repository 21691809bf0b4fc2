"""Compiled code is kept where that is possible, used only when it is whole, and made anew else."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numba
import pytest

from nhzoo import files, kernels

ROOT = Path(__file__).parents[1]


def double_plus(x, y):
    return 2 * x + y


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Nothing is decided yet, and the places that are tried are the test's own."""
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setenv("NHZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    kernels.folder.cache_clear()
    yield tmp_path
    kernels.folder.cache_clear()


def compiled():
    return kernels.njit()(double_plus)


def test_code_is_compiled_once_and_then_read(fresh):
    first = compiled()
    assert first(1, 2) == 4
    assert first(1.5, 2.0) == 5.0
    kept = list((fresh / "cache" / f"kernels-{os.getuid()}").iterdir())
    assert len(kept) == 2
    again = compiled()
    assert (again(1, 2), again(1.5, 2.0)) == (4, 5.0)
    assert sum(again.stats.cache_hits.values()) == 2
    assert not again.stats.cache_misses


@pytest.mark.parametrize("damage", ["empty", "cut", "zeros", "other code", "a folder"])
def test_broken_code_is_compiled_anew(fresh, damage):
    compiled()(1, 2)
    (path,) = (fresh / "cache" / f"kernels-{os.getuid()}").iterdir()
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
    assert not list((fresh / "cache" / f"kernels-{os.getuid()}").iterdir())


def test_the_users_choice_comes_first_and_what_others_can_write_last(fresh, monkeypatch):
    own = f"kernels-{os.getuid()}"

    def chosen():
        kernels.folder.cache_clear()
        return kernels.folder()

    assert chosen() == fresh / "cache" / own
    (fresh / "cache" / own).chmod(0o777)
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


def test_a_change_is_noticed_where_it_matters(tmp_path, monkeypatch):
    """In a kernel that is called from another module, and in a constant; nowhere else."""
    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / "madeup"
    package.mkdir()
    texts = {
        "__init__": "",
        "a": "import numba\nfrom madeup import b\nfrom madeup.c import SIZE\n",
        "b": "import numba\nimport numpy as np\nfrom madeup import d\nTABLE = np.arange(d.N)\n",
        "c": "SIZE = 3\n",
        "d": "N = 4\n",
    }

    def stamp(**changed):
        for name, text in (texts | changed).items():
            (package / f"{name}.py").write_text(text)
        for name in [name for name in sys.modules if name.partition(".")[0] == "madeup"]:
            monkeypatch.delitem(sys.modules, name)
        importlib.invalidate_caches()
        importlib.import_module("madeup.a")
        kernels._stamps.pop("madeup.a", None)
        return kernels._stamp("madeup.a")

    before = stamp()
    assert stamp() == before
    assert stamp(c="def helper():\n    return 1\n\n\nSIZE = 3\n") == before
    stamps = {
        stamp(b=texts["b"] + "# another callee"),
        stamp(c="SIZE = 12\n"),
        stamp(d="N = 15\n"),
        before,
    }
    assert len(stamps) == 4


@pytest.mark.slow
def test_stamps_are_the_same_in_every_process():
    """Or nothing that is kept would ever be found."""
    code = (
        "from nhzoo import kernels, features, inference, scripted, demonstrations, frames\n"
        "print(*(kernels._stamp(m.__name__) for m in (features, inference, scripted, frames)))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=cwd
        ).stdout
        for cwd in (ROOT, "/")
    }
    assert len(said) == 1


def test_a_read_only_install_without_a_home_compiles(tmp_path):
    """In a container: nothing of the package can be written, and there is no home."""
    code = (
        "import numba\n"
        "from nhzoo import kernels, walking\n"
        "print(walking.position(5), kernels.folder())"
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
