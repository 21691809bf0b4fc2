"""Folders to the hub: what would change, then one commit of exactly that, or none.

Only the files in the list of the folder's kind are sent (see `hub_contents`). The same folder
again makes no commit. A commit stands on the one it was compared with, or fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nhzoo import files, hub, play_page, results
from nhzoo.card_facts import Facts, Replay, read_facts
from nhzoo.cards import eval_results, model_card
from nhzoo.dataset_cards import dataset_files
from nhzoo.errors import InputError
from nhzoo.hub_contents import ENTRY, RESULTS, SITE, Contents, kind_of, local_files
from nhzoo.hub_errors import endpoint
from nhzoo.hub_refs import PREFIXES, Ref, parse

Step = Callable[[str], None]
"""Called with what is being done."""

_SPACE_CARD = """---
title: nhzoo leaderboard
sdk: static
app_file: index.html
license: apache-2.0
---
Neural NetHack agents, every game replayed. Made by `nhzoo leaderboard build`.
"""


@dataclass(frozen=True)
class Plan:
    """A folder beside its repository. `exists` is None when the hub was not asked.

    `ref` is pinned to the commit that was compared. `added` and `changed` would be sent, `removed`
    deleted, `same` left alone; files that are none of ours are not mentioned. `checked` are the
    SHA-256 of files that have passed a test, and are sent as that or not at all.
    """

    ref: Ref
    contents: Contents
    files: Mapping[str, Path | bytes]
    checked: Mapping[str, str] = field(default_factory=dict)
    exists: bool | None = None
    private: bool = False
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    @property
    def same(self) -> tuple[str, ...]:
        """What the hub has already."""
        return tuple(p for p in self.files if p not in self.added and p not in self.changed)

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to send."""
        return bool(self.exists) and not (self.added or self.changed or self.removed)

    def size(self, path: str) -> int:
        """Bytes of one of `files`."""
        data = self.files[path]
        return len(data) if isinstance(data, bytes) else data.stat().st_size

    def as_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return {
            "repo": self.ref.repo,
            "kind": self.contents.kind,
            "revision": self.ref.revision,
            "exists": self.exists,
            "files": [{"path": path, "size": self.size(path)} for path in self.files],
            "added": self.added,
            "changed": self.changed,
            "removed": self.removed,
        }


@dataclass(frozen=True)
class Pushed:
    """What came of a push: the commit that holds it, and whether this call made it."""

    plan: Plan
    ref: Ref
    url: str
    made: bool
    pull_request: str | None = None


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
        repo = f"{default_owner or hub.whoami()}/{name}"
    try:
        ref = parse(repo, contents.kind)
    except InputError as error:
        raise InputError(f"{error} (--repo, or the name of the folder {folder})") from None
    if ref.kind != contents.kind:
        raise InputError(f"{ref}: {folder} is a {contents.what} and goes to a {contents.kind}")
    if ref.revision:
        raise InputError(f"{ref}: pushes go to main; give the name without @{ref.revision}")
    if contents is ENTRY:
        held, weights = _entry_files(folder, ref, played, say)
        return Plan(ref, contents, held, {"model.safetensors": weights})
    if played:
        raise InputError(f"{folder}: results go with an entry, and this is a {contents.what}")
    found: dict[str, Path | bytes] = {**local_files(folder, contents)}
    if contents is SITE:
        found.setdefault("README.md", _SPACE_CARD.encode())
        found.setdefault(play_page.NAME, play_page.play_page().encode())
    else:
        found |= dataset_files(folder, contents, ref)
    return Plan(ref, contents, dict(sorted(found.items())))


def compare(plan: Plan) -> Plan:
    """The plan beside what the hub holds now."""
    found = hub.find(plan.ref)
    if found is None:
        return replace(plan, exists=False, added=tuple(plan.files))
    listed = hub.list_files(found.ref, plan.contents.max_files)
    added = [path for path in plan.files if path not in listed]
    changed = [
        path
        for path, data in plan.files.items()
        if path in listed and not listed[path].is_same(data)
    ]
    removed = [path for path in listed if path not in plan.files and _is_stale(plan, path)]
    return replace(
        plan,
        ref=found.ref,
        exists=True,
        private=found.private,
        added=tuple(added),
        changed=tuple(changed),
        removed=tuple(removed),
    )


def _is_stale(plan: Plan, path: str) -> bool:
    """Whether an earlier push must have put a file there that this one does not have.

    What is not in the list stays, and so do the results of others.
    """
    if plan.contents.limit(path) is None:
        return False
    if plan.contents is not RESULTS:
        return True
    return "/" in path and _result_of(path) in {_result_of(mine) for mine in plan.files}


def _result_of(path: str) -> tuple[str, ...]:
    return tuple(path.split("/")[:2])


def push(plan: Plan, pull_request: bool = False, private: bool = False) -> Pushed:
    """Make the hub hold the plan's files: one commit, or a pull request with it.

    A pull request with results leaves the card of the results to those whose they are.
    """
    if pull_request and plan.contents is RESULTS:
        kept = {path: data for path, data in plan.files.items() if "/" in path}
        plan = replace(plan, files=kept, exists=None)
    if plan.exists is None:
        plan = compare(plan)
    title = f"{plan.contents.what} {plan.ref.name} by nhzoo"
    if not plan.exists:
        if pull_request:
            raise InputError(
                f"{plan.ref}: there is no such repository to open a pull request in; push without "
                "--pr to make it"
            )
        # The new repository has a first commit of the hub's own.
        made = hub.create(plan.ref, private)
        plan = replace(plan, ref=made, added=tuple(plan.files))
    elif private and not plan.private:
        raise InputError(f"{plan.ref}: exists and is public; make it private on {plan.ref.url}")
    if plan.is_done:
        return Pushed(plan, plan.ref, plan.ref.url, False)
    if pull_request and (open_already := _proposed(plan, title)):
        return open_already
    sent = {path: plan.files[path] for path in (*plan.added, *plan.changed)}
    done = hub.commit(plan.ref, sent, plan.removed, title, pull_request, plan.checked)
    return Pushed(plan, done.ref, done.url, True, done.pull_request)


def _proposed(plan: Plan, title: str) -> Pushed | None:
    """An open pull request with just these files: a second one would say nothing new."""
    for number in reversed(hub.open_pull_requests(plan.ref, title)):
        listed = hub.list_files(plan.ref.at(f"refs/pr/{number}"), plan.contents.max_files)
        same = all(
            path in listed and listed[path].is_same(data) for path, data in plan.files.items()
        )
        if same and not any(path in listed for path in plan.removed):
            url = f"{endpoint()}/{PREFIXES[plan.ref.kind]}{plan.ref.repo}/discussions/{number}"
            return Pushed(plan, plan.ref.at(f"refs/pr/{number}"), url, False, url)
    return None


def _entry_files(
    folder: Path, ref: Ref, played: Sequence[Path], say: Step
) -> tuple[dict[str, Path | bytes], str]:
    """An entry's files: what it holds, its results, the card and what the hub reads of it.

    And the SHA-256 of the weights that passed the self-test.
    """
    from nhzoo.checkpoints import load_entry

    held: dict[str, Path | bytes] = {**local_files(folder, ENTRY)}
    say("self-test")
    weights = load_entry(folder).revision
    facts = read_facts(folder, ref.repo, played)
    for result in played:
        protocol = results.read_result(result)[1].id
        for name in ("result.json", "episodes.jsonl"):
            held[f"results/{protocol}/{name}"] = files.inside(result, name)
    if "replay.cast" not in held and (result_folder := _most_games(facts, played)):
        say("recording a game")
        cast, replay = record_replay(result_folder)
        held["replay.cast"] = cast
        facts = replace(facts, replay=replay)
    for path in [path for path in held if path.startswith(".eval_results/")]:
        del held[path]
    held |= eval_results(facts)
    held["README.md"] = model_card(facts).encode()
    for path, data in held.items():
        limit = ENTRY.limit(path)
        assert limit is not None, path
        if isinstance(data, bytes) and len(data) > limit:
            raise InputError(
                f"{folder}: {path} would be {len(data):,} bytes, {limit:,} are allowed"
            )
    return dict(sorted(held.items())), weights


def _most_games(facts: Facts, played: Sequence[Path]) -> Path | None:
    """The result folder with the most games of those that have their keys."""
    whole = [path for path in played if any((path / "traces").glob("*.xz"))]
    games = {path: len(results.read_episodes(path)) for path in whole}
    return max(games, key=lambda path: games[path], default=None)


def record_replay(result: Path) -> tuple[bytes, Replay]:
    """The median game of a result as an asciicast, replayed and checked, and what the card says."""
    from nhzoo.casts import Cast, end_text
    from nhzoo.report import choose_games, record_games

    _, protocol, rows = results.read_result(result)
    chosen = choose_games(rows)
    game = next((g for g, name in chosen.items() if "median" in name.lower()), None)
    if game is None:
        raise InputError(f"{result}: has no game to show")
    (cast,) = record_games(result, [game], 1)
    assert isinstance(cast, Cast)
    row = next(row for row in rows if row["index"] == game)
    return cast.text.encode(), Replay(game, protocol.id, end_text(row))
