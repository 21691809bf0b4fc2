"""The versions that are declared, tested, installed: they agree, and `doctor` tells when not."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from nhzoo.cli import doctor
from tests import ROOT
from tests.helpers.commands import run

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOW = (ROOT / ".github" / "workflows" / "tests.yml").read_text()


def declared():
    lists = (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    return [Requirement(line) for lines in lists for line in lines]


def pins(name):
    lines = (ROOT / name).read_text().splitlines()
    split = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(package): Version(version) for package, version in split}


def test_the_lowest_versions_that_are_declared_are_those_that_are_tested():
    lowest = pins("constraints-lowest.txt")
    for package in declared():
        (bound,) = (bound for bound in package.specifier if bound.operator in (">=", "=="))
        least = Version(bound.version.removesuffix(".*"))
        tested = lowest[canonicalize_name(package.name)]
        assert tested == least, f"{package.name}: {least} is declared and {tested} tested"
    assert {canonicalize_name(package.name) for package in declared()} == set(lowest)


def test_what_the_set_up_installs_is_declared():
    usual = pins("constraints.txt")
    for package in declared():
        name = canonicalize_name(package.name)
        assert name not in usual or usual[name] in package.specifier, package


def test_ci_tests_each_python_and_the_lowest_versions():
    pythons = SpecifierSet(PROJECT["requires-python"])
    tested = re.search(r"python: \[(.*)\]", WORKFLOW)[1].replace('"', "").split(", ")
    assert tested == ["3.11", "3.12", "3.13"]
    assert all(python in pythons for python in tested) and "3.10" not in pythons
    assert "make test-lowest" in WORKFLOW
    makefile = (ROOT / "Makefile").read_text()
    assert f"PYTHONS ?= {' '.join(tested)}\n" in makefile


@pytest.fixture
def installed(monkeypatch):
    """A function that pretends a package has another version, or with None that it is not there."""
    real = importlib.metadata.version

    def pretend(package, version):
        def found(name):
            if name != package:
                return real(name)
            if version is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return version

        monkeypatch.setattr(doctor, "version", found)

    return pretend


@pytest.mark.parametrize(
    ("package", "version", "says"),
    [
        ("numba", "0.61.2", "0.61.2 is not supported: pip install 'numba>="),
        ("llvmlite", "0.44.0", "0.44.0 is not supported: pip install 'llvmlite>="),
        ("matplotlib", "3.8.4", "3.8.4 is not supported: pip install 'matplotlib>="),  # an extra's
        ("nle", "1.2.0", "1.2.0 is not supported: pip install 'nle==1.3.*'"),
        ("torch", None, "not installed: pip install 'torch>="),
    ],
)
def test_doctor_names_what_is_too_old_or_missing(installed, package, version, says):
    installed(package, version)
    done = run("doctor")
    assert done.returncode == 1
    (line,) = (line for line in done.stdout.splitlines() if package in line.split("\t")[1])
    assert line.startswith("WRONG") and says in line
    assert "missing or too old" in done.stderr


def test_doctor_is_content_with_what_is_declared(installed):
    assert all(finding.ok for finding in doctor._packages())
    installed("matplotlib", None)  # nobody has to have an extra
    assert all(finding.ok for finding in doctor._packages())
    installed("torch", "2.13.0+cpu")
    assert all(finding.ok for finding in doctor._packages())
    installed("torch", "3.0.0rc1")
    assert all(finding.ok for finding in doctor._packages())
