"""The client of the hub: resolve, list, fetch one file, commit; one line for every failure.

`HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME`, `HF_HUB_OFFLINE` and what `hf auth login` stored mean what
they mean to every user of the hub. The client is imported when it is first needed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nhzoo.errors import InputError
from nhzoo.hub.errors import HUB, is_named, is_offline, speaking_of, status_of, utilities
from nhzoo.hub.guard import client
from nhzoo.hub.repos import Ref
from nhzoo.runtime.console import ProgressCallback, no_progress

_BLOCK = 1 << 20


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub lists it: `sha256` for large ones, `oid` (git's hash) for the others."""

    path: str
    size: int
    oid: str | None
    sha256: str | None

    def is_same(self, data: Path | bytes) -> bool:
        """Whether a local file, or these bytes, are what the hub holds."""
        size = len(data) if isinstance(data, bytes) else data.stat().st_size
        if size != self.size:
            return False
        if self.sha256:
            return _digest(data, hashlib.sha256()) == self.sha256
        return self.oid is None or _digest(data, _git_hash(size)) == self.oid


@dataclass(frozen=True)
class Found:
    """A repository that is there. `ref` is pinned to the commit that its revision meant."""

    ref: Ref
    private: bool


@dataclass(frozen=True)
class Committed:
    """What came of a commit; `pull_request` is its address, where one was opened."""

    ref: Ref
    url: str
    pull_request: str | None


@dataclass(frozen=True)
class Remote:
    """An entry that the hub lists."""

    repo: str
    params: int | None
    downloads: int
    modified: str
    tags: tuple[str, ...]


def whoami() -> str:
    """The user whose token is in use."""
    with speaking_of(HUB):
        try:
            return str(client().whoami()["name"])
        except Exception as error:
            if is_named(error, "LocalTokenNotFoundError") or status_of(error) == 401:
                raise InputError(
                    "not logged in to the hub: run `hf auth login`, or set HF_TOKEN; or name the "
                    "repository with --repo"
                ) from None
            raise


def find_repo(ref: Ref) -> Found | None:
    """Look a repository up on the hub, to write in it; None when there is none."""
    api = client()
    with speaking_of(ref, writing=True):
        try:
            info = api.repo_info(ref.repo, repo_type=ref.kind, revision=ref.revision)
        except Exception as error:
            if is_named(error, "RepositoryNotFoundError") and not is_named(error, "GatedRepoError"):
                return None
            raise
        return Found(ref.at(str(info.sha)), bool(info.private))


def resolve(ref: Ref) -> Ref:
    """The reference, pinned: asked of the hub, or of the cache when that cannot be reached.

    A pinned one is returned as it is, without a request.
    """
    if ref.pinned:
        return ref
    api = client()
    with speaking_of(ref):
        revision = api.resolve_revision(
            ref.repo, repo_type=ref.kind, revision=ref.revision, local_files_only=is_offline()
        )
        pinned = ref.at(str(revision.resolved))
        if not pinned.pinned:
            raise InputError(f"{ref}: the hub gave {pinned.revision!r} for a commit; not trusted")
        return pinned


def list_files(ref: Ref, limit: int) -> dict[str, RemoteFile]:
    """Every file of a revision by path; InputError when they, or folders, are more than `limit`."""
    from huggingface_hub.hf_api import RepoFile

    found: dict[str, RemoteFile] = {}
    folders = 0
    with speaking_of(ref):
        for item in client().list_repo_tree(
            ref.repo, repo_type=ref.kind, revision=ref.revision, recursive=True
        ):
            if isinstance(item, RepoFile):
                sha256 = item.lfs.sha256 if item.lfs else None
                found[item.path] = RemoteFile(item.path, int(item.size), item.blob_id, sha256)
            else:
                folders += 1
            if max(len(found), folders) > limit:
                raise InputError(
                    f"{ref}: lists more than {limit:,} files, which one of ours does not have; "
                    "check the name"
                )
    return found


def fetch(ref: Ref, file: RemoteFile, progress: ProgressCallback = no_progress) -> Path:
    """A file of a pinned revision, in the hub's cache, checked against its size and hash.

    What is there already is not asked for again. What fails the check is deleted.
    """
    with speaking_of(f"{ref}: {file.path}"):
        place = client().hf_hub_download(
            ref.repo,
            file.path,
            repo_type=ref.kind,
            revision=ref.revision,
            tqdm_class=_meter(f"{ref}: {file.path}", file.size, progress),
        )
        path = Path(place)
        if not file.is_same(path):
            _delete_cached(path)
            raise InputError(
                f"{ref}: {file.path} is not what the hub lists (size or hash differ); what came "
                "was deleted: run again, or do not trust it"
            )
        return path


def _delete_cached(path: Path) -> None:
    """Delete a file of the cache and what it is a link to, but nothing outside."""
    from huggingface_hub import constants

    with contextlib.suppress(OSError):
        blob, cache = path.resolve(), Path(constants.HF_HUB_CACHE).resolve()
        path.unlink()
        if cache in blob.parents:
            blob.unlink(missing_ok=True)


def cached_files(ref: Ref) -> dict[str, RemoteFile]:
    """Every file of a pinned revision as the hub's cache remembers it; no request is made.

    {} where it remembers no list: what lies there may then be a part. The cache names contents by
    their hash, so those that are there can still be checked.
    """
    from huggingface_hub import constants, get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=ref.repo, repo_type=ref.kind)
    try:
        listed = get_cached_repo_tree(
            ref.repo, repo_type=ref.kind, revision=ref.revision, cache_dir=constants.HF_HUB_CACHE
        )
    except CachedRepoTreeNotFoundError:
        return {}
    found = {}
    for item in listed:
        path = folder / "snapshots" / str(ref.revision) / item.path
        blob = os.path.basename(os.readlink(path)) if path.is_symlink() else ""
        sha256 = blob if re.fullmatch(r"[0-9a-f]{64}", blob) else None
        oid = blob if re.fullmatch(r"[0-9a-f]{40}", blob) else None
        found[item.path] = RemoteFile(item.path, int(item.size), oid, sha256)
    return found


def create(ref: Ref, private: bool) -> Ref:
    """Make a repository; the reference at its first commit."""
    api = client()
    with speaking_of(ref, writing=True):
        api.create_repo(
            ref.repo,
            repo_type=ref.kind,
            private=private,
            exist_ok=True,
            space_sdk="static" if ref.kind == "space" else None,
        )
        info = api.repo_info(ref.repo, repo_type=ref.kind)
        return ref.at(str(info.sha))


def commit(
    ref: Ref,
    added: Mapping[str, Path | bytes],
    removed: Sequence[str],
    message: str,
    pull_request: bool = False,
    checked: Mapping[str, str] | None = None,
) -> Committed:
    """One commit on top of the pinned `ref`, or a pull request with it: all of it or nothing.

    `checked` are the SHA-256 that files had when they were found to be good. InputError when one of
    them is another now, or when somebody else has changed the branch since.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    operations: list[Any] = [
        CommitOperationAdd(path, data if isinstance(data, bytes) else os.fspath(data))
        for path, data in added.items()
    ]
    for operation in operations:  # it has read the file, and what is uploaded has this hash
        wanted = (checked or {}).get(operation.path_in_repo)
        if wanted and operation.upload_info.sha256.hex() != wanted:
            raise InputError(
                f"{ref}: {operation.path_in_repo} has changed since it was checked; run again"
            )
    operations += [CommitOperationDelete(path) for path in removed]
    with speaking_of(ref, writing=True):
        done = client().create_commit(
            ref.repo,
            operations,
            commit_message=message,
            repo_type=ref.kind,
            parent_commit=ref.revision,
            create_pr=pull_request,
        )
        return Committed(ref.at(str(done.oid)), str(done.commit_url), done.pr_url)


def open_pull_requests(ref: Ref, title: str) -> list[int]:
    """The numbers of this user's open pull requests of that title, newest last; ten at most."""
    with speaking_of(ref):
        author = whoami()
        found = [
            discussion.num
            for discussion in client().get_repo_discussions(
                ref.repo,
                repo_type=ref.kind,
                author=author,
                discussion_type="pull_request",
                discussion_status="open",
            )
            if discussion.title == title and discussion.status in ("open", "draft")
        ]
        return sorted(found)[-10:]


def author_of(ref: Ref) -> str:
    """The account that opened the pull request of a revision refs/pr/N."""
    found = re.fullmatch(r"refs/pr/(\d{1,9})", ref.revision or "")
    if found is None:
        raise InputError(f"{ref}: is no pull request (refs/pr/N)")
    with speaking_of(ref):
        opened = client().get_discussion_details(ref.repo, int(found[1]), repo_type=ref.kind)
        author = str(opened.author)
        if (
            author == "deleted"
            or not opened.is_pull_request
            or not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}", author, re.A)
        ):
            raise InputError(f"{ref}: the hub names no account that opened it")
        return author


def list_entries(owner: str | None = None, limit: int = 1_000) -> list[Remote]:
    """Repositories whose card says `library_name: nhzoo`, as far as this user may see them."""
    with speaking_of(HUB):
        found = client().list_models(filter="nhzoo", author=owner, limit=limit, full=True)
        return [_remote(info) for info in found]


def _remote(info: Any) -> Remote:
    tags = tuple(str(tag) for tag in (info.tags or ())[:50])
    params = next((int(t[7:]) for t in tags if re.fullmatch(r"params:\d{1,15}", t)), None)
    modified = info.last_modified
    return Remote(
        str(info.id),
        params,
        int(info.downloads or 0),
        modified.date().isoformat() if modified else "",
        tags,
    )


def _git_hash(size: int) -> Any:
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def _digest(data: Path | bytes, digest: Any) -> str:
    if isinstance(data, bytes):
        digest.update(data)
    else:
        with open(data, "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return str(digest.hexdigest())


def _meter(what: str, size: int, progress: ProgressCallback) -> Any:
    """A progress bar for the client that shows none, but ends a download of more than was listed.

    What comes through Xet is told as it reaches the disk, and as it arrives, which may be more.
    """

    class Meter(utilities().tqdm):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options | {"disable": True})
            self._hold(int(self.total or 0))

        def _hold(self, count: int) -> None:
            if count > size:
                raise InputError(
                    f"{what}: {count:,} bytes come, the hub lists {size:,}; not fetched: do not "
                    "trust it"
                )

        def update(self, n: float | None = 1) -> None:
            self.n += int(n or 0)
            self._hold(int(self.n))
            progress(self.n, size)

        def update_transfer(self, count: float) -> None:
            pass

        def set_transfer_postfix_str(self, *arguments: Any, **options: Any) -> None:
            pass

    return Meter
