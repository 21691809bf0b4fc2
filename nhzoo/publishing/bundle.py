"""The files that are published of a folder, with card and recording; and of a whole checkout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from nhzoo.data.traces import BUNDLED, bundled_names
from nhzoo.errors import InputError
from nhzoo.evaluation import results
from nhzoo.hub import client
from nhzoo.hub.repos import ENTRY, PREFIXES, SITE, Ref, kind_of, local_files, organisation, parse
from nhzoo.hub.upload import Plan, Pushed
from nhzoo.publishing.card_facts import Facts, Replay, read_facts
from nhzoo.publishing.cards import eval_results, model_card
from nhzoo.publishing.dataset_cards import dataset_files
from nhzoo.runtime import files

Step = Callable[[str], None]
"""Called with what is being done."""

SPACE = "leaderboard"

_SPACE_CARD = """---
title: nhzoo leaderboard
sdk: static
app_file: index.html
license: apache-2.0
---
Neural NetHack agents, every game replayed. Made by `nhzoo leaderboard build`.
"""


def gather(
    folder: Path,
    repo: str | None = None,
    played: Sequence[Path] = (),
    say: Step = lambda text: None,
    default_owner: str | None = None,
) -> Plan:
    """All that `folder` comes to as a repository, its card included; the hub is not asked.

    Without `repo` it is the folder's name in `default_owner`, or else of the user logged in.
    `played` are result folders of an entry: their scores go into the card, their games beside it,
    and the median game of the longest is recorded. A site has to be sent to a Space by name.
    """
    is_site = repo is not None and repo.startswith(f"hf://{PREFIXES['space']}")
    contents = SITE if is_site else kind_of(folder)
    name = folder.resolve().name
    if repo is None:
        repo = f"{default_owner or client.whoami()}/{name}"
    try:
        ref = parse(repo, contents.kind)
    except InputError as error:
        raise InputError(f"{error} (--repo, or the name of the folder {folder})") from None
    if ref.kind != contents.kind:
        raise InputError(f"{ref}: {folder} is a {contents.what} and goes to a {contents.kind}")
    if ref.revision:
        raise InputError(f"{ref}: pushes go to main; give the name without @{ref.revision}")
    if contents is ENTRY:
        payload, weights = _entry_files(folder, ref, played, say)
        return Plan(ref, contents, payload, {"model.safetensors": weights})
    if played:
        raise InputError(f"{folder}: results go with an entry, and this is a {contents.what}")
    found: dict[str, Path | bytes] = {**local_files(folder, contents)}
    if contents is SITE:
        found.setdefault("README.md", _SPACE_CARD.encode())
    else:
        found |= dataset_files(folder, contents, ref)
    return Plan(ref, contents, dict(sorted(found.items())))


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


def _entry_files(
    folder: Path, ref: Ref, played: Sequence[Path], say: Step
) -> tuple[dict[str, Path | bytes], str]:
    """An entry's files: what it holds, its results, the card and what the hub reads of it.

    And the SHA-256 of the weights that passed the self-test.
    """
    from nhzoo.policy.checkpoint import load_entry

    payload: dict[str, Path | bytes] = {**local_files(folder, ENTRY)}
    say("self-test")
    weights = load_entry(folder).revision
    facts = read_facts(folder, ref.repo, played)
    for result in played:
        protocol = results.read_result(result)[1].id
        for name in ("result.json", "episodes.jsonl"):
            payload[f"results/{protocol}/{name}"] = files.inside(result, name)
    if "replay.cast" not in payload and (result_folder := _most_games(facts, played)):
        say("recording a game")
        cast, replay = record_replay(result_folder)
        payload["replay.cast"] = cast
        facts = replace(facts, replay=replay)
    for path in [path for path in payload if path.startswith(".eval_results/")]:
        del payload[path]
    payload |= eval_results(facts)
    payload["README.md"] = model_card(facts).encode()
    for path, data in payload.items():
        limit = ENTRY.limit(path)
        assert limit is not None, path
        if isinstance(data, bytes) and len(data) > limit:
            raise InputError(
                f"{folder}: {path} would be {len(data):,} bytes, {limit:,} are allowed"
            )
    return dict(sorted(payload.items())), weights


def _most_games(facts: Facts, played: Sequence[Path]) -> Path | None:
    """The result folder with the most games of those that have their keys."""
    whole = [path for path in played if any((path / "traces").glob("*.xz"))]
    games = {path: len(results.read_episodes(path)) for path in whole}
    return max(games, key=lambda path: games[path], default=None)


def record_replay(result: Path) -> tuple[bytes, Replay]:
    """The median game of a result as an asciicast, replayed and checked, and what the card says."""
    from nhzoo.publishing.asciicast import Cast, end_text
    from nhzoo.publishing.report import choose_games, record_games

    _, protocol, rows = results.read_result(result)
    chosen = choose_games(rows)
    game = next((g for g, name in chosen.items() if "median" in name.lower()), None)
    if game is None:
        raise InputError(f"{result}: has no game to show")
    (cast,) = record_games(result, [game], 1)
    assert isinstance(cast, Cast)
    row = next(row for row in rows if row["index"] == game)
    return cast.text.encode(), Replay(game, protocol.id, end_text(row))
