"""All of a checkout, repository by repository: what a maintainer publishes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from nhzoo.errors import InputError
from nhzoo.hub_push import Plan, Pushed, Step, gather
from nhzoo.hub_refs import organisation
from nhzoo.traces import BUNDLED, bundled_names

SPACE = "leaderboard"


def everything(
    root: Path, org: str | None = None, say: Step = lambda text: None
) -> list[partial[Plan]]:
    """What makes the plan of each repository: entries, datasets, results, then the site.

    An entry's results are those of its name. The site is there once it was built.
    """
    owner = org or organisation()
    agents, played, site = root / "agents", root / "leaderboard" / "results", root / "leaderboard"
    if not agents.is_dir():
        raise InputError(f"{root}: is no checkout (it has no agents/); give its folder")
    found: list[partial[Plan]] = []
    for path in sorted(agents.iterdir()):
        if (path / "config.json").is_file():
            own = sorted(p.parent for p in (played / path.name).glob("*/result.json"))
            found.append(partial(_gather, path, f"{owner}/{path.name}", tuple(own), say))
    for name in bundled_names():
        found.append(partial(_gather, BUNDLED / name, f"{owner}/{name}", (), say))
    if any(played.glob("*/*/result.json")):
        found.append(partial(_gather, played, f"{owner}/results", (), say))
    if (site / "site" / "index.html").is_file():
        found.append(partial(_gather, site / "site", f"hf://spaces/{owner}/{SPACE}", (), say))
    return found


def line(done: Plan | Pushed) -> str:
    """One line on a repository: what was sent to it, or would be."""
    plan = done.plan if isinstance(done, Pushed) else done
    if plan.is_done:
        return f"{plan.ref.at(None)}: as it is ({len(plan.files)} files)"
    names = [
        f"{sign}{path}"
        for sign, paths in (("+", plan.added), ("~", plan.changed), ("-", plan.removed))
        for path in paths
    ]
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    new = "" if plan.exists or isinstance(done, Pushed) else ", a new repository"
    at = f" -> {done.ref.revision}" if isinstance(done, Pushed) else ""
    return f"{plan.ref.at(None)}{at}{new}: {shown}"


def as_json(done: Plan | Pushed) -> dict[str, Any]:
    """The same as a JSON object."""
    if isinstance(done, Pushed):
        return done.plan.as_json() | {"source": str(done.ref), "made": done.made}
    return done.as_json() | {"source": str(done.ref), "made": False}


def _gather(path: Path, repo: str, played: tuple[Path, ...], say: Step) -> Plan:
    say(repo)
    return gather(path, repo, played)
