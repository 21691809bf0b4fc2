"""Names of things on the hub: `hf://org/name@revision`, `hf://datasets/org/name`, bare names."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace

from nhzoo.errors import InputError

ORGANISATION = "nhzoo"
"""Whose repositories bare names mean."""

SITE = "https://huggingface.co"
PREFIXES = {"model": "", "dataset": "datasets/", "space": "spaces/"}

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_SHA = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Ref:
    """A repository, and a revision of it: branch, tag, commit or refs/pr/N; None is main."""

    repo: str
    kind: str = "model"
    revision: str | None = None

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        return f"hf://{PREFIXES[self.kind]}{self.repo}{at}"

    @property
    def owner(self) -> str:
        """The user or organisation."""
        return self.repo.partition("/")[0]

    @property
    def name(self) -> str:
        """The name without the owner."""
        return self.repo.partition("/")[2]

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit: the same bytes for ever."""
        return self.revision is not None and _SHA.fullmatch(self.revision) is not None

    @property
    def url(self) -> str:
        """The page of the repository on the public hub."""
        return f"{SITE}/{PREFIXES[self.kind]}{self.repo}"

    def at(self, revision: str | None) -> Ref:
        """The same repository at another revision."""
        return replace(self, revision=revision)


def organisation() -> str:
    """Whose repositories bare names mean: $NHZOO_ORG, else the project's."""
    name = os.environ.get("NHZOO_ORG") or ORGANISATION
    if not _is_segment(name):
        raise InputError(f"NHZOO_ORG={name!r}: is not the name of an organisation")
    return name


def is_name(text: str) -> bool:
    """Whether a bare text can be the name of a repository, with a revision or without."""
    name, _, revision = text.partition("@")
    return _is_segment(name) and (not revision or _is_revision(revision))


def parse(text: str, kind: str = "model") -> Ref:
    """`hf://[datasets/|spaces/]org/name[@revision]`, or the same without hf:// or org.

    `kind` is meant by a text that does not say, without hf://. InputError for whatever could be no
    name: nothing of it may reach a path or an address.
    """
    rest = text.removeprefix("hf://")
    kind = "model" if rest != text else kind
    for known, prefix in PREFIXES.items():
        if prefix and rest.startswith(prefix):
            kind, rest = known, rest.removeprefix(prefix)
            break
    repo, at, revision = rest.partition("@")
    parts = repo.split("/")
    if len(parts) == 1 and not text.startswith("hf://"):
        parts = [organisation(), *parts]
    if len(parts) != 2 or not all(map(_is_segment, parts)) or (at and not _is_revision(revision)):
        raise InputError(
            f"{text[:200]!r} names nothing on the hub: give a name, org/name or hf://org/name, "
            "and @revision if need be"
        )
    return Ref("/".join(parts), kind, revision or None)


def _is_segment(text: str) -> bool:
    """What the hub allows, but for names that begin with "_" or end in a way of its own."""
    plain = _SEGMENT.fullmatch(text) is not None
    return plain and not re.search(r"--|\.\.|[.-]$|\.git$|\.lock$", text)


def _is_revision(text: str) -> bool:
    plain = _REVISION.fullmatch(text) is not None
    return plain and not re.search(r"\.\.|//|/\.|[./]$|\.lock(/|$)", text)
