"""Provenance: the code's revision, the machine, the energy used."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
"""The folder of the package; in a checkout, `CHECKOUT` is the one around it."""
CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else None

POWERCAP = Path("/sys/class/powercap")


def git_revision() -> str | None:
    """The commit that this package's code is at, "-dirty" if it was changed; None elsewhere."""
    if _git(PACKAGE, "rev-parse", "--show-toplevel") != str(PACKAGE.parent):
        return None  # installed, perhaps into a folder of another project's checkout
    revision = _git(PACKAGE, "rev-parse", "HEAD")
    changed = _git(PACKAGE, "status", "--porcelain", "--untracked-files=no", "--", str(PACKAGE))
    return f"{revision}-dirty" if revision and changed else revision


def cpu_name() -> str:
    """The CPU's model, as far as the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


class EnergyMeter:
    """Joules taken by the CPU packages of the whole machine (RAPL), where they can be read.

    Counters begin anew after some tens of minutes at the least; `taken` is to be called more often.
    """

    def __init__(self, root: Path = POWERCAP) -> None:
        zones = [zone for zone in root.glob("intel-rapl:*") if zone.name.count(":") == 1]
        self._zones = sorted(zones)
        self._last = self._read()

    def taken(self) -> float | None:
        """Since the last call; None where it is not known."""
        before, self._last = self._last, self._read()
        if before is None or self._last is None:
            return None
        pairs = zip(before, self._last, strict=True)
        return (
            sum((now - old if now >= old else now + r - old) for (old, r), (now, _) in pairs) / 1e6
        )

    def _read(self) -> list[tuple[int, int]] | None:
        """Each package's microjoules, and where they begin anew."""
        try:
            return [
                (
                    int((zone / "energy_uj").read_text()),
                    int((zone / "max_energy_range_uj").read_text()),
                )
                for zone in self._zones
            ] or None
        except (OSError, ValueError):
            return None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",  # as Python has paths, whatever the locale
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
