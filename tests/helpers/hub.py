"""A hub on loopback for the real, unmodified client: models, datasets, Spaces, in memory.

`with Hub() as hub:` and point HF_ENDPOINT to `hub.url`; by hand, `python -m tests.helpers.hub`. It
speaks what the client needs to create, preupload, commit, upload and download (LFS, not Xet: set
HF_HUB_DISABLE_XET=1 to push), list, resolve and open pull requests. Large and binary files go by
LFS and are served from another host name, as on the real hub. Tokens are `hf_<user>`; a user writes
in their own namespace and in those of `orgs`. Whatever goes wrong on a network goes wrong on
request: see `Hub.fail`. Every request is kept in `Hub.requests`.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import re
import socket
import threading
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

LARGE = 10_000_000
PAGE = 1_000  # paths listed at once
_LFS_SUFFIXES = (".safetensors", ".xz", ".gz", ".zip", ".bin", ".pkl", ".pt")
_ID = r"(?P<id>[\w.-]+/[\w.-]+)"
_KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}


@dataclass(frozen=True)
class Blob:
    """A file's content; `size` is what the hub says of it."""

    data: bytes
    lfs: bool = False
    claimed: int | None = None

    @property
    def size(self) -> int:
        return len(self.data) if self.claimed is None else self.claimed

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def oid(self) -> str:
        """The git hash of what git would hold: the content, or the LFS pointer."""
        held = self.data
        if self.lfs:
            text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\n"
            held = f"{text}size {self.size}\n".encode()
        return hashlib.sha1(b"blob %d\0" % len(held) + held).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid


@dataclass(frozen=True)
class Commit:
    sha: str
    parent: str | None
    title: str
    files: dict[str, Blob]


@dataclass
class Repo:
    id: str
    kind: str = "model"
    private: bool = False
    gated: bool = False
    sdk: str | None = None
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    discussions: list[dict[str, Any]] = field(default_factory=list)

    @property
    def head(self) -> Commit:
        return self.commits[self.refs["main"]]

    def commit(self, ref: str, files: dict[str, Blob], title: str, parent: str | None) -> Commit:
        listed = sorted((path, blob.oid) for path, blob in files.items())
        text = json.dumps([self.id, parent, title, listed, len(self.commits)])
        made = Commit(hashlib.sha1(text.encode()).hexdigest(), parent, title, files)
        self.commits[made.sha] = made
        self.refs[ref] = made.sha
        return made

    def find(self, revision: str) -> Commit | None:
        return self.commits.get(self.refs.get(revision, revision))

    def card(self, commit: Commit) -> dict[str, Any]:
        readme = commit.files.get("README.md", Blob(b"")).data.decode("utf-8", "replace")
        head = re.match(r"---\n(.*?)\n---\n", readme, re.S)
        try:
            found = yaml.safe_load(head[1]) if head else {}
        except yaml.YAMLError:
            found = {}
        return found if isinstance(found, dict) else {}


@dataclass
class Fault:
    """What happens to requests whose "METHOD /path" matches, `times` times."""

    pattern: str
    status: int = 0  # answer this
    body: bytes = b"{}"  # with this
    headers: Mapping[str, str] = field(default_factory=dict)  # of that answer, or of the usual one
    cut: int | None = None  # send so many bytes of the body, then hang up
    delay: float = 0.0  # seconds before answering
    times: int = 1


class Hub:
    """The hub, while the `with` block lasts."""

    def __init__(self, orgs: Mapping[str, list[str]] | None = None, port: int = 0) -> None:
        self.orgs = {"nhzoo": ["alice"]} if orgs is None else orgs
        self.repos: dict[tuple[str, str], Repo] = {}
        self.renamed: dict[tuple[str, str], str] = {}
        self.objects: dict[str, bytes] = {}  # of LFS, by SHA-256
        self.served: dict[str, bytes] = {}  # instead of the object or blob of that ETag
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.authorized: list[str] = []  # those that brought a token
        self.ranges: list[str] = []  # the parts that were asked for
        self.foreign: list[str] = []  # asked of it as of a proxy: meant for another host
        self.lock = threading.RLock()
        self.connections: set[socket.socket] = set()
        self._up = True
        handler = type("BoundHandler", (Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Hub:
        arguments = {"poll_interval": 0.01}
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs=arguments)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Go down: connections are refused from now on."""
        if not self._up:
            return
        self._up = False
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for connection in [*self.connections]:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def add(
        self,
        id: str,
        files: Mapping[str, bytes | Blob],
        kind: str = "model",
        title: str = "first",
        ref: str = "main",
        **options: Any,
    ) -> Commit:
        """Put a commit of exactly these files into a repository, made when it is not there."""
        repo = self.repos.setdefault((kind, id), Repo(id, kind, **options))
        blobs = {
            path: data if isinstance(data, Blob) else Blob(data, _is_lfs(path, len(data)))
            for path, data in files.items()
        }
        for blob in blobs.values():
            self.objects[blob.sha256] = blob.data
        return repo.commit(ref, blobs, title, repo.refs.get(ref))

    def fail(self, pattern: str, **options: Any) -> None:
        """Break requests that match (a regular expression for "METHOD /path")."""
        self.faults.append(Fault(pattern, **options))

    def rename(self, kind: str, id: str, new: str) -> None:
        """Move a repository; its old name redirects."""
        repo = self.repos.pop((kind, id))
        repo.id = new
        self.repos[kind, new] = repo
        self.renamed[kind, id] = new

    def may_write(self, user: str | None, id: str) -> bool:
        owner = id.partition("/")[0]
        return user is not None and (user == owner or user in self.orgs.get(owner, []))


def _is_lfs(path: str, size: int) -> bool:
    return size > 0 and (size >= LARGE or path.endswith(_LFS_SUFFIXES))


class _Refuse(Exception):
    def __init__(self, status: int, code: str = "", message: str = "", **more: Any) -> None:
        self.status, self.code, self.message, self.more = status, code, message, more


class _Answered(Exception):
    """The answer was sent already."""


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    fault: Fault | None = None

    def setup(self) -> None:
        super().setup()
        self.hub.connections.add(self.connection)

    def finish(self) -> None:
        self.hub.connections.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle()

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def do_CONNECT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self._body()
        hub, path = self.hub, urllib.parse.unquote(self.path.partition("?")[0])
        if self.command == "CONNECT" or not self.path.startswith("/"):
            hub.foreign.append(f"{self.command} {self.path}")
            return self._send(502, b"only loopback is contacted")
        request = f"{self.command} {path}"
        with hub.lock:
            hub.requests.append(request)
            if self.headers.get("Authorization"):
                hub.authorized.append(request)
            self.fault = next(
                (f for f in hub.faults if f.times > 0 and re.search(f.pattern, request)), None
            )
            if self.fault:
                self.fault.times -= 1
        if self.fault and self.fault.delay:
            time.sleep(self.fault.delay)
        if self.fault and self.fault.status:
            return self._send(self.fault.status, self.fault.body)
        try:
            self._route(path, body)
        except _Refuse as refused:
            headers = {"X-Error-Message": refused.message} if refused.message else {}
            headers |= {"X-Error-Code": refused.code} if refused.code else {}
            document = {"error": refused.message or refused.code, **refused.more}
            self._send(refused.status, json.dumps(document).encode(), headers)
        except _Answered:
            pass
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _route(self, path: str, body: bytes) -> None:
        for methods, pattern, name in _ROUTES:
            found = re.fullmatch(pattern, path)
            if found and self.command in methods:
                with self.hub.lock:
                    answer = getattr(self, name)(body, **found.groupdict())
                if answer is not None:
                    self._send(200, json.dumps(answer).encode())
                return
        raise _Refuse(404, "", "no such endpoint")

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(
        self,
        status: int,
        data: bytes,
        headers: Mapping[str, str] | None = None,
        length: int | None = None,
    ) -> None:
        self.send_response(status)
        # Pages of other sites may read what is public, as on the real hub.
        kind = {"Content-Type": "application/json", "Access-Control-Allow-Origin": "*"}
        broken = self.fault.headers if self.fault else {}
        for name, value in {**kind, **(headers or {}), **broken}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.fault.cut if self.fault else None
        with contextlib.suppress(OSError):
            self.wfile.write(data if cut is None else data[:cut])
        if cut is not None or (length is not None and length != len(data)):
            self.close_connection = True

    @property
    def query(self) -> dict[str, str]:
        return dict(urllib.parse.parse_qsl(self.path.partition("?")[2], keep_blank_values=True))

    @property
    def user(self) -> str | None:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given and not re.fullmatch(r"hf_\w+", given):
            raise _Refuse(401, "", "Invalid credentials in Authorization header")
        return given.removeprefix("hf_") or None

    def _repo(self, kind: str, id: str, write: bool = False, content: bool = False) -> Repo:
        new = self.hub.renamed.get((kind, id))
        if new:
            self._send(307, b"", {"Location": self.path.replace(id, new, 1)})
            raise _Answered
        repo = self.hub.repos.get((kind, id))
        may = self.hub.may_write(self.user, id)
        if repo is None or (repo.private and not may):
            raise _Refuse(404 if self.user else 401, "RepoNotFound", "Repository not found")
        if content and repo.gated and not may:
            status = 403 if self.user else 401
            raise _Refuse(status, "GatedRepo", f"Access to {id} is restricted")
        if write and not may:
            raise _Refuse(403, "", "you have no right to write here")
        return repo

    def _commit(self, repo: Repo, revision: str) -> Commit:
        commit = repo.find(urllib.parse.unquote(revision))
        if commit is None:
            raise _Refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def whoami(self, body: bytes) -> Any:
        if self.user is None:
            raise _Refuse(401, "", "Invalid username or password.")
        orgs = [{"name": org} for org, users in self.hub.orgs.items() if self.user in users]
        return {"type": "user", "name": self.user, "orgs": orgs, "auth": {}}

    def create(self, body: bytes) -> Any:
        wanted = json.loads(body)
        kind = wanted.get("type", "model")
        id = f"{wanted.get('organization') or self.user}/{wanted['name']}"
        if not self.hub.may_write(self.user, id):
            raise _Refuse(403 if self.user else 401, "", f"no rights in {id.partition('/')[0]}")
        prefix = "" if kind == "model" else f"{kind}s/"
        url = f"{self.hub.url}/{prefix}{id}"
        if (kind, id) in self.hub.repos:
            raise _Refuse(409, "", "You already created this repo", url=url)
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        repo = Repo(id, kind, private, sdk=wanted.get("sdk"))
        repo.commit("main", {".gitattributes": Blob(b"*.safetensors lfs\n")}, "initial", None)
        self.hub.repos[kind, id] = repo
        return {"url": url, "name": id}

    def validate_yaml(self, body: bytes) -> Any:
        errors = []
        head = re.match(r"---\n(.*?)\n---\n", json.loads(body)["content"], re.S)
        try:
            card = yaml.safe_load(head[1]) if head else {}
            for model in card.get("model-index", []):
                for result in model["results"]:
                    assert result["task"]["type"] and result["dataset"]["type"]
                    assert result["dataset"]["name"]
                    assert all("type" in m and "value" in m for m in result["metrics"])
        except (yaml.YAMLError, KeyError, AssertionError, TypeError, AttributeError) as error:
            errors = [{"message": f"not a valid card: {error!r}"}]
        if errors:
            self._send(400, json.dumps({"errors": errors, "warnings": []}).encode())
            return None
        return {"errors": [], "warnings": []}

    def list_repos(self, body: bytes, kinds: str) -> Any:
        wanted, found = self.query, []
        kind = _KINDS[kinds]
        tags = [v for k, v in urllib.parse.parse_qsl(self.path.partition("?")[2]) if k == "filter"]
        for repo in self.hub.repos.values():
            seen = not repo.private or self.hub.may_write(self.user, repo.id)
            info = self._info(repo, repo.head)
            if repo.kind != kind or not seen or not set(tags) <= set(info["tags"]):
                continue
            if wanted.get("author") in (None, repo.id.partition("/")[0]):
                found.append(info)
        start, limit = int(wanted.get("skip", 0)), int(wanted.get("limit", PAGE))
        page = found[start : start + limit]
        more = {**wanted, "skip": str(start + limit)}
        self._page(page, more if start + limit < len(found) else None)

    def _page(self, page: list[Any], more: dict[str, str] | None) -> None:
        url = f"{self.hub.url}{self.path.partition('?')[0]}?{urllib.parse.urlencode(more or {})}"
        self._send(200, json.dumps(page).encode(), {"Link": f'<{url}>; rel="next"'} if more else {})

    def _info(self, repo: Repo, commit: Commit) -> dict[str, Any]:
        card = repo.card(commit)
        library = card.get("library_name")
        tags = [*card.get("tags", []), *([library] if library else [])]
        return {
            "id": repo.id,
            "modelId": repo.id,
            "sha": commit.sha,
            "private": repo.private,
            "gated": "manual" if repo.gated else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": tags,
            "library_name": library,
            "pipeline_tag": card.get("pipeline_tag"),
            "cardData": card,
            "lastModified": "2026-01-01T00:00:00.000Z",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "siblings": [{"rfilename": path} for path in commit.files],
            "sdk": repo.sdk,
        }

    def info(self, body: bytes, kinds: str, id: str, revision: str = "main") -> Any:
        repo = self._repo(_KINDS[kinds], id)
        return self._info(repo, self._commit(repo, revision))

    def tree(self, body: bytes, kinds: str, id: str, revision: str) -> None:
        repo = self._repo(_KINDS[kinds], id, content=True)
        listed = []
        for path, blob in sorted(self._commit(repo, revision).files.items()):
            row: dict[str, Any] = {"type": "file", "path": path, "size": blob.size, "oid": blob.oid}
            if blob.lfs:
                row["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": 130}
            listed.append(row)
        start = int(self.query.get("cursor", 0))
        more = {**self.query, "cursor": str(start + PAGE)}
        self._page(listed[start : start + PAGE], more if start + PAGE < len(listed) else None)

    def preupload(self, body: bytes, kinds: str, id: str, revision: str) -> Any:
        repo = self._repo(_KINDS[kinds], id, write="create_pr" not in self.query)
        held = self._commit(repo, revision).files
        return {
            "files": [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if _is_lfs(file["path"], file["size"]) else "regular",
                    "shouldIgnore": False,
                    "oid": held[file["path"]].etag if file["path"] in held else None,
                }
                for file in json.loads(body)["files"]
            ]
        }

    def lfs_batch(self, body: bytes, kinds: str | None, id: str) -> Any:
        self._repo(_KINDS[kinds or "models"], id)
        if self.user is None:
            raise _Refuse(401, "", "log in to upload")
        objects = []
        for wanted in json.loads(body)["objects"]:
            row = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.objects:
                upload = f"{self.hub.url}/_lfs/{wanted['oid']}"
                verify = {"href": f"{self.hub.url}/_verify"}
                row |= {"actions": {"upload": {"href": upload}, "verify": verify}}
            objects.append(row)
        return {"transfer": "basic", "objects": objects}

    def lfs_put(self, body: bytes, oid: str) -> Any:
        if hashlib.sha256(body).hexdigest() != oid:
            raise _Refuse(400, "", "the object is not what it was said to be")
        self.hub.objects[oid] = body
        return {}

    def lfs_verify(self, body: bytes) -> Any:
        wanted = json.loads(body)
        if len(self.hub.objects.get(wanted["oid"], b"")) != wanted["size"]:
            raise _Refuse(404, "", "the object did not arrive")
        return {}

    def commit(self, body: bytes, kinds: str, id: str, revision: str) -> Any:
        pull = "create_pr" in self.query
        repo = self._repo(_KINDS[kinds], id, write=not pull)
        if self.user is None:
            raise _Refuse(401, "", "log in to commit")
        parent = self._commit(repo, revision)
        files, title, description = dict(parent.files), "", ""
        for line in body.splitlines():
            item = json.loads(line)
            key, value = item["key"], item["value"]
            if key == "header":
                title, description = value["summary"], value.get("description", "")
                if value.get("parentCommit") not in (None, parent.sha):
                    raise _Refuse(412, "", "A commit has happened since. Please refresh and retry")
            elif key == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]))
            elif key == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    raise _Refuse(400, "", f"{value['path']}: its content was not uploaded")
                files[value["path"]] = Blob(self.hub.objects[value["oid"]], lfs=True)
            elif key == "deletedFile" and files.pop(value["path"], None) is None:
                raise _Refuse(404, "EntryNotFound", "A file with this name doesn't exist")
        number = len(repo.discussions) + 1
        ref = f"refs/pr/{number}" if pull else urllib.parse.unquote(revision)
        made = repo.commit(ref, files, title, parent.sha)
        url = f"{self.hub.url}/{'' if kinds == 'models' else kinds + '/'}{id}"
        if pull:
            repo.discussions.append(
                {
                    "num": number,
                    "title": title,
                    "description": description,
                    "author": {"name": self.user},
                    "isPullRequest": True,
                    "status": "open",
                    "createdAt": "2026-01-01T00:00:00.000Z",
                    "repo": {"name": id, "type": repo.kind},
                }
            )
        return {
            "success": True,
            "commitOid": made.sha,
            "commitUrl": f"{url}/commit/{made.sha}",
            "pullRequestUrl": f"{url}/discussions/{number}" if pull else None,
        }

    def discussions(self, body: bytes, kinds: str, id: str) -> Any:
        found = self._repo(_KINDS[kinds], id).discussions
        wanted = self.query
        if "author" in wanted:
            found = [row for row in found if row["author"]["name"] == wanted["author"]]
        if wanted.get("status") in ("open", "closed"):
            found = [row for row in found if row["status"] == wanted["status"]]
        return {"discussions": found, "count": len(found), "start": 0, "numClosedDiscussions": 0}

    def discussion(self, body: bytes, kinds: str, id: str, number: str) -> Any:
        found = [
            row for row in self._repo(_KINDS[kinds], id).discussions if row["num"] == int(number)
        ]
        if not found:
            raise _Refuse(404, "", "no such discussion")
        more = {"changes": {"base": "refs/heads/main"}, "filesWithConflicts": [], "events": []}
        return found[0] | more

    def resolve(self, body: bytes, kinds: str | None, id: str, revision: str, path: str) -> None:
        repo = self._repo(_KINDS[kinds or "models"], id, content=True)
        commit = self._commit(repo, revision)
        blob = commit.files.get(path)
        if blob is None:
            raise _Refuse(404, "EntryNotFound", f"{path} is not in the repository")
        headers = {"X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes"}
        if blob.lfs:
            headers["X-Linked-Size"] = str(blob.size)
            headers["X-Linked-ETag"] = f'"{blob.sha256}"'
            where = f"http://localhost:{self.hub.port}/_lfs/{blob.sha256}?size={blob.size}"
            return self._send(302, b"", {**headers, "Location": where})
        headers["ETag"] = f'"{blob.oid}"'
        self._content(blob.oid, blob.data, headers, blob.size)

    def lfs_get(self, body: bytes, oid: str) -> None:
        if self.headers.get("Authorization"):
            raise _Refuse(400, "", "the token was sent to the storage")
        data = self.hub.objects.get(oid)
        if data is None:
            raise _Refuse(404, "", "no such object")
        self._content(oid, data, {"ETag": f'"{oid}"'}, int(self.query.get("size", len(data))))

    def _content(self, etag: str, data: bytes, headers: dict[str, str], size: int) -> None:
        data = self.hub.served.get(etag, data)
        length = None if size == len(data) or etag in self.hub.served else size
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            return self._send(200, data, headers, length)
        self.hub.ranges.append(wanted[0])
        start = int(wanted[1])
        end = min(int(wanted[2] or len(data) - 1), len(data) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
        return self._send(206, data[start : end + 1], headers)


_API = rf"/api/(?P<kinds>models|datasets|spaces)/{_ID}"
_PAGE = rf"/(?:(?P<kinds>datasets|spaces)/)?{_ID}"
_ROUTES = [
    (("GET",), r"/api/whoami-v2", "whoami"),
    (("POST",), r"/api/repos/create", "create"),
    (("POST",), r"/api/validate-yaml", "validate_yaml"),
    (("GET",), r"/api/(?P<kinds>models|datasets|spaces)", "list_repos"),
    (("GET",), _API, "info"),
    (("GET",), rf"{_API}/revision/(?P<revision>.+)", "info"),
    (("GET",), rf"{_API}/tree/(?P<revision>.+)", "tree"),
    (("POST",), rf"{_API}/preupload/(?P<revision>.+)", "preupload"),
    (("POST",), rf"{_API}/commit/(?P<revision>.+)", "commit"),
    (("GET",), rf"{_API}/discussions", "discussions"),
    (("GET",), rf"{_API}/discussions/(?P<number>\d+)", "discussion"),
    (("POST",), rf"{_PAGE}\.git/info/lfs/objects/batch", "lfs_batch"),
    (("PUT",), r"/_lfs/(?P<oid>\w+)", "lfs_put"),
    (("GET", "HEAD"), r"/_lfs/(?P<oid>\w+)", "lfs_get"),
    (("POST",), r"/_verify", "lfs_verify"),
    (
        ("GET", "HEAD"),
        rf"{_PAGE}/resolve/(?P<revision>refs/pr/\d+|[^/]+)/(?P<path>.+)",
        "resolve",
    ),
]


def main() -> None:
    parser = argparse.ArgumentParser(description="A hub on loopback, empty, until Ctrl-C.")
    parser.add_argument("--port", type=int, default=7080)
    parser.add_argument("--user", default="alice", help="member of the organisation nhzoo")
    options = parser.parse_args()
    hub = Hub({"nhzoo": [options.user]}, options.port)
    with hub, contextlib.suppress(KeyboardInterrupt):
        print(
            f"export HF_ENDPOINT={hub.url} HF_TOKEN=hf_{options.user} HF_HUB_DISABLE_XET=1",
            flush=True,
        )
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main()
