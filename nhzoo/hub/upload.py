"""Pushing folders to the hub: show what would change, then make one commit of it, or none.

Only the files in the list of the folder's kind are sent (see `contents`). The same folder
again makes no commit. A commit stands on the one it was compared with, or fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nhzoo.errors import InputError
from nhzoo.hub import client
from nhzoo.hub.errors import endpoint
from nhzoo.hub.repos import PREFIXES, RESULTS, Contents, Ref


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


def compare(plan: Plan) -> Plan:
    """The plan beside what the hub holds now."""
    found = client.find_repo(plan.ref)
    if found is None:
        return replace(plan, exists=False, added=tuple(plan.files))
    listed = client.list_files(found.ref, plan.contents.max_files)
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
        made = client.create(plan.ref, private)
        plan = replace(plan, ref=made, added=tuple(plan.files))
    elif private and not plan.private:
        raise InputError(f"{plan.ref}: exists and is public; make it private on {plan.ref.url}")
    if plan.is_done:
        return Pushed(plan, plan.ref, plan.ref.url, False)
    if pull_request and (open_already := _proposed(plan, title)):
        return open_already
    sent = {path: plan.files[path] for path in (*plan.added, *plan.changed)}
    done = client.commit(plan.ref, sent, plan.removed, title, pull_request, plan.checked)
    return Pushed(plan, done.ref, done.url, True, done.pull_request)


def _proposed(plan: Plan, title: str) -> Pushed | None:
    """An open pull request with just these files: a second one would say nothing new."""
    for number in reversed(client.open_pull_requests(plan.ref, title)):
        listed = client.list_files(plan.ref.at(f"refs/pr/{number}"), plan.contents.max_files)
        same = all(
            path in listed and listed[path].is_same(data) for path, data in plan.files.items()
        )
        if same and not any(path in listed for path in plan.removed):
            url = f"{endpoint()}/{PREFIXES[plan.ref.kind]}{plan.ref.repo}/discussions/{number}"
            return Pushed(plan, plan.ref.at(f"refs/pr/{number}"), url, False, url)
    return None
