"""Limits on the hub's client: timeouts, where the token goes, what answers may hold.

The client believes the hub. We do not: an answer may name a file outside the cache, ask for a wait
of a year, unfold to more than memory holds, or send us and the token somewhere else.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from nhzoo import __version__
from nhzoo.errors import InputError
from nhzoo.hub.errors import Untrusted, endpoint, seconds_to_wait, utilities
from nhzoo.hub.repos import HUB_URL

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as dead."""

LONGEST_WAIT = 30
"""Seconds that the hub may have us wait before a request is tried again; for more, we give up."""

LARGEST_ANSWER = 256 << 20
"""Bytes of an answer that is not a file: a page of a list, what a repository is."""

_SHA = re.compile(r"[0-9a-f]{40}")


def client() -> HfApi:
    """The client, quiet, guarded, and told what a renamed repository is."""
    import huggingface_hub

    utils = utilities()

    class Client(huggingface_hub.HfApi):
        def repo_info(self, repo_id: str, **options: Any) -> Any:
            found = super().repo_info(repo_id, **options)
            name = getattr(found, "id", repo_id)
            if name != repo_id:
                raise InputError(f"{repo_id}: was renamed to {name}; use that if you trust it")
            return found

    if not (os.environ.get("HF_DEBUG") or os.environ.get("HF_HUB_VERBOSITY")):
        utils.logging.set_verbosity_error()
    if not os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS"):
        utils.disable_progress_bars()  # it warns when the variable has decided already
    _check_token(huggingface_hub.get_token())
    _guard()
    return Client(endpoint=endpoint(), library_name="nhzoo", library_version=__version__)


def _check_token(token: str | None) -> None:
    """A token that fits in no header would be shown by the error that comes of it."""
    if token and not re.fullmatch(r"[!-~]+", token):
        raise InputError(
            "the token for the hub has characters that no token has; set HF_TOKEN anew, or run "
            "`hf auth login`"
        )


def _guard() -> None:
    """Have every session watched: the client makes a new one whenever a connection was lost."""
    utils = utilities()
    make = importlib.import_module("huggingface_hub.utils._http")._GLOBAL_CLIENT_FACTORY
    if not hasattr(make, "watched"):
        utils.set_client_factory(_Watched(make))


class _Watched:
    """What makes sessions, with our checks before each request and after each answer."""

    watched = True

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def __call__(self) -> Any:
        session = self._make()
        session.event_hooks["request"].append(_check_request)
        session.event_hooks["response"].append(_check_answer)
        return session


def _check_request(request: Any) -> None:
    """Set a limit to its patience, where the client sets none, and keep the token at home."""
    limits = dict(request.extensions.get("timeout") or {})
    for part, seconds in (("connect", 10.0), ("read", TIMEOUT), ("write", TIMEOUT)):
        if limits.get(part) is None:
            limits[part] = seconds
    request.extensions["timeout"] = limits
    if not _is_ours(request):
        return
    request.headers["Accept-Encoding"] = "identity"
    if "authorization" in request.headers and not _is_hub(str(request.url)):
        raise Untrusted(f"the token is wanted at {request.url.host}, which is not the hub")


def _is_ours(request: Any) -> bool:
    """Whether it is made for us: the session is shared with whatever else uses the client."""
    return str(request.headers.get("user-agent", "")).startswith("nhzoo/")


def _is_hub(url: str) -> bool:
    """Whether the token may go there: the hub that the user has named, or the public one."""
    asked = _origin(url)
    for hub in (endpoint(), HUB_URL, "https://hf.co"):
        known = _origin(hub)
        if asked in (known, ("https", known[1], 443)):
            return True
    return False


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    with contextlib.suppress(ValueError):
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
        return parts.scheme, (parts.hostname or "").lower(), port
    return "", "", 0


def _check_answer(response: Any) -> None:
    """End a request whose answer would harm; the client must not even begin to read it."""
    request, headers = response.request, response.headers
    where = request.url.host
    commit = headers.get("x-repo-commit")
    names = [headers.get("x-linked-etag"), headers.get("etag")] if request.method == "HEAD" else []
    # The client makes names of files of these.
    if (commit and not _SHA.fullmatch(commit)) or any(name and _escapes(name) for name in names):
        raise Untrusted(f"{where} gives a hash that is none but a path")
    if seconds_to_wait(response) > LONGEST_WAIT:
        response.read()
        utilities().hf_raise_for_status(response)  # what the client does after its last try
    if request.url.path.startswith("/api/") and _is_ours(request):
        if headers.get("content-encoding", "identity") != "identity":
            raise Untrusted(f"{where} packs its answer, which was not asked for")
        response.stream = _bounded(response.stream, str(where))


def _escapes(etag: str) -> bool:
    name = etag.lstrip("W/").strip('"')
    return name.startswith("/") or len(name) > 255 or bool(re.search(r"(^|/)\.\.(/|$)|\\|\0", name))


def _bounded(stream: Any, where: str) -> Any:
    """A stream that ends with an error when more comes of it than any answer has."""

    class Bounded(utilities().httpx.SyncByteStream):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            size = 0
            for block in stream:
                size += len(block)
                if size > LARGEST_ANSWER:
                    raise Untrusted(f"{where} does not end its answer")
                yield block

        def close(self) -> None:
            stream.close()

    return Bounded()
