"""What is wrong with a table of runs or with what was fitted to it, by name.

Codes are stable: scripts may look for them. `error` means that what is named cannot be trusted (its
budget was left out, or its law not fitted), `warning` that it is worth less than it looks, `note`
that a reader should know. The rules of each code are where it is raised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Diagnostic:
    """One finding: what, how bad, where, the figure that it rests on, and what to do."""

    code: str
    level: Level
    where: str
    value: float | None
    message: str
    remedy: str

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"{self.level}: {self.code}{place}: {self.message}; {self.remedy}"
