from __future__ import annotations

import subprocess

import pytest

from nhzoo.runtime import system
from nhzoo.runtime.system import EnergyMeter, cpu_name, git_revision


def commit(folder):
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    for words in (("init", "-q"), ("add", "."), (*identity, "commit", "-q", "-m", "x")):
        subprocess.run(["git", "-C", folder, *words], check=True)
    head = subprocess.run(["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True)
    return head.stdout.decode().strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout that holds the package, here one file."""
    code = tmp_path / "work" / "nhzoo" / "provenance.py"
    code.parent.mkdir(parents=True)
    code.write_text("")
    monkeypatch.setattr(system, "PACKAGE", code.parent)
    return code


def test_the_revision_of_a_checkout_and_whether_it_was_changed(checkout):
    assert git_revision() is None
    head = commit(checkout.parents[1])
    assert git_revision() == head
    (checkout.parents[1] / "notes").write_text("not code")
    assert git_revision() == head
    checkout.write_text("changed")
    assert git_revision() == f"{head}-dirty"


def test_installed_into_another_projects_checkout_it_has_no_revision(checkout):
    commit(checkout.parents[2])
    assert git_revision() is None


def test_without_git_there_is_no_revision(checkout, monkeypatch):
    commit(checkout.parents[1])
    monkeypatch.setenv("PATH", "")
    assert git_revision() is None


def test_energy_is_summed_over_packages_and_past_the_counters_end(tmp_path):
    def write(zone, joules):
        folder = tmp_path / zone
        folder.mkdir(exist_ok=True)
        (folder / "energy_uj").write_text(f"{joules * 1_000_000}\n")
        (folder / "max_energy_range_uj").write_text("100000000\n")

    write("intel-rapl:0", 10)
    write("intel-rapl:1", 90)
    write("intel-rapl:1:0", 5)  # a part of a package
    meter = EnergyMeter(tmp_path)
    write("intel-rapl:0", 12)
    write("intel-rapl:1", 20)
    assert meter.taken() == pytest.approx(2 + 30)
    assert meter.taken() == 0
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    assert meter.taken() is None


def test_energy_that_cannot_be_read_is_unknown(tmp_path):
    assert EnergyMeter(tmp_path).taken() is None


def test_the_cpu_has_a_name():
    assert cpu_name()
