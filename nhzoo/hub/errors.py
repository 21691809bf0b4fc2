"""Errors of the hub and of the connection, each in one line: what failed and what to do."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nhzoo.errors import InputError, refusal
from nhzoo.hub.repos import Ref

HUB = "the hub"
"""What a failure is about that is of no repository."""


class NotThere(InputError):
    """The hub has no such thing, or could not be asked: it may be somewhere else."""


class Untrusted(InputError):
    """The hub answers what no hub should; told from within the client, so not yet of what."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}; not trusted: check HF_ENDPOINT")


def endpoint() -> str:
    """Where the hub is."""
    # Read here as well: the client looks at it but once, when it is imported.
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def is_offline() -> bool:
    """Whether the user wants no request to be made."""
    from huggingface_hub import constants

    return bool(constants.is_offline_mode())


def utilities() -> Any:
    """The client's helpers: it has no types for what it makes available there."""
    return importlib.import_module("huggingface_hub.utils")


@contextlib.contextmanager
def speaking_of(what: Ref | str, writing: bool = False) -> Iterator[None]:
    """Whatever goes wrong in the client, as one line about `what`."""
    try:
        yield
    except Untrusted as error:
        raise InputError(f"{what}: {error}") from error
    except InputError:
        raise
    except Exception as error:
        told = _line(error, what, writing)
        kind = NotThere if _is_absence(error) else InputError
        raise kind(f"{what}: {without_secrets(told)}") from error


def without_secrets(text: str) -> str:
    """A line without tokens, passwords in addresses and what signs an address."""
    text = re.sub(r"(?i)\b(bearer|basic) .*", r"\1 ***", text)
    text = re.sub(r"\bhf_\w{16,}", "hf_***", text)
    text = re.sub(r"://[^/\s@]*@", "://***@", text)
    return re.sub(r"(https?://[^\s?]+)\?\S+", r"\1?***", text)


def _line(error: BaseException, what: Ref | str, writing: bool) -> str:
    """What happened and what to do about it."""
    where = endpoint()
    causes = chain(error)
    for each in causes:  # what caused a failure says more than the failure
        if isinstance(each, InputError):  # one of our own checks, within the client
            return str(each)
        if is_named(each, "OfflineModeIsEnabled"):
            if writing or what == HUB:
                return "has to be asked, and HF_HUB_OFFLINE is set; run again without that"
            return "is not in the cache and HF_HUB_OFFLINE is set; fetch it once without that"
        if is_named(each, "FileMetadataError"):
            return f"{where} does not answer as the hub does; check HF_ENDPOINT and the proxy"
        if is_named(each, "GatedRepoError"):
            page = what.url if isinstance(what, Ref) else where
            return f"is gated: ask for access on {page}, then log in (hf auth login, or HF_TOKEN)"
        if is_named(each, "RepositoryNotFoundError"):
            hint = "check the name, or log in (hf auth login, or HF_TOKEN)"
            return f"there is no such repository on {where}, or it is private; {hint}"
        if is_named(each, "RevisionNotFoundError"):
            return "there is no such revision, or no longer; check it on the hub"
        if is_named(each, "RemoteEntryNotFoundError"):
            return "there is no such file on the hub"
        status = status_of(each)
        if status is not None:
            return _status_line(status, each, where, writing)
    if cause := obstacle(error):
        return cause
    if any(isinstance(each, utilities().httpx.UnsupportedProtocol) for each in causes):
        return f"HF_ENDPOINT is {where}, no address that begins with https:// or http://"
    for each in causes:
        if _is_transport(each):
            reason = (str(each) or type(each).__name__).splitlines()[0]
            return f"no connection to {where}, or it was lost ({reason}); run again to resume"
    if is_named(error, "RevisionResolutionError", "LocalEntryNotFoundError"):
        offline = "HF_HUB_OFFLINE is set" if is_offline() else f"{where} cannot be reached"
        return f"is not in the cache and {offline}; fetch it once with a connection"
    if isinstance(error, OSError) and error.errno is not None:
        what_file = f"{error.filename}: " if error.filename else ""
        return f"{what_file}{refusal(error)}; then run again"
    if "Consistency check" in str(error):
        return "the connection ended before the file did; run again"
    reason = (str(error).splitlines() or [""])[0]
    return f"{where} gave an answer that makes no sense ({type(error).__name__}: {reason[:200]})"


def _is_absence(error: BaseException) -> bool:
    names = ("OfflineModeIsEnabled", "RepositoryNotFoundError", "RevisionResolutionError")
    return not is_named(error, "GatedRepoError") and any(
        is_named(each, *names) or _is_transport(each) or (status_of(each) or 0) >= 500
        for each in chain(error)
    )


def _status_line(status: int, error: BaseException, where: str, writing: bool) -> str:
    said = str(getattr(error, "server_message", "") or "").splitlines()
    message = f" ({said[0][:200]})" if said else ""
    seconds = seconds_to_wait(error.response) if hasattr(error, "response") else 0
    pause = f"{seconds} seconds" if seconds else ""
    if status == 401:
        return f"{where} wants to know who asks{message}; log in (hf auth login, or HF_TOKEN)"
    if status == 403:
        if writing:
            return f"this account or token has no right to write it{message}; see --repo and --pr"
        return f"this account or token has no right to read it{message}; log in as one that has"
    if status == 412:
        return f"somebody changed it meanwhile{message}; run again"
    if status == 429:
        return f"{where} has had too many requests; wait {pause or 'a while'} and run again"
    if status >= 500:
        then = f"in {pause}" if pause else "later"
        return f"{where} is in trouble (status {status}); run again {then}"
    return f"{where} refused (status {status}){message}; check the names and rights"


def seconds_to_wait(response: Any) -> int:
    """How long an answer asks us to wait before we ask again; 0 when it does not."""
    if response.status_code not in (429, 500, 502, 503, 504):
        return 0
    after = response.headers.get("retry-after", "").strip()
    limit = re.search(r"\bt\s*=\s*([0-9]{1,12})", response.headers.get("ratelimit", ""))
    told = int(after) if re.fullmatch(r"[0-9]{1,12}", after) else 0
    return max(told, int(limit[1]) if limit and response.status_code == 429 else 0)


def is_named(error: BaseException, *names: str) -> bool:
    """Whether it is one of the client's errors of these names."""
    from huggingface_hub import errors

    return any(isinstance(error, getattr(errors, name)) for name in names)


def status_of(error: BaseException) -> int | None:
    """The HTTP status that the hub answered with; None when it did not answer."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    return status if is_named(error, "HfHubHTTPError") and isinstance(status, int) else None


def _is_transport(error: BaseException) -> bool:
    httpx = utilities().httpx
    return isinstance(error, (httpx.TransportError, ConnectionError))


_AUTHORITIES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES)
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")


def obstacle(error: BaseException) -> str:
    """The cause in the settings and its remedy, told by the types of the errors; "" for others.

    Values are not shown but for paths: a proxy's address may hold a password.
    """
    for each in chain(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({each.verify_message}); {_authorities()}"
        if isinstance(each, ssl.SSLError) and each.library in ("X509", "PEM"):
            return f"certificate authorities cannot be read ({each.reason}); {_authorities()}"
        if isinstance(each, OSError) and each.errno in _NO_FILE and _not_there():
            return f"certificate authorities cannot be read ({each.strerror}); {_authorities()}"
        if isinstance(each, ImportError) and "socksio" in (each.name or str(each)):
            return (
                f"the proxy in {_proxy('socks')} speaks SOCKS, for which a package is missing: "
                "pip install socksio"
            )
        address = any(text in str(each) for text in ("unknown url type", "proxy URL"))
        if (address or type(each).__name__ == "InvalidURL") and (name := _proxy("")):
            return f"the proxy in {name} cannot be used for it; give http://host:port, or unset it"
    return ""


def chain(error: BaseException | None) -> list[BaseException]:
    """An error and what led to it, the outermost first."""
    found: list[BaseException] = []
    while error is not None and len(found) < 20:
        found.append(error)
        within = next((each for each in error.args if isinstance(each, BaseException)), None)
        before = None if error.__suppress_context__ else error.__context__
        error = error.__cause__ or within or before
    return found


def _not_there() -> tuple[str, str] | None:
    """A variable that names certificate authorities where there are none."""
    for name in _AUTHORITIES:
        path = os.environ.get(name)
        if path and not (Path(path).is_dir() if name.endswith("DIR") else Path(path).is_file()):
            return name, path
    return None


def _authorities() -> str:
    wrong = _not_there()
    if wrong:
        kind = "folder" if wrong[0].endswith("DIR") else "file"
        return f"{wrong[0]} names {wrong[1]}, which is no {kind}: correct or unset it"
    named = next((name for name in _AUTHORITIES if os.environ.get(name)), None)
    if named:
        return f"{named} names {os.environ[named]}: correct or unset it"
    return "name those of your network in SSL_CERT_FILE"


def _proxy(scheme: str) -> str:
    """The variable with a proxy of that scheme; for "" one that is no address of plain HTTP."""
    for name in (each for upper in _PROXIES for each in (upper, upper.lower())):
        value = os.environ.get(name)
        if not value:
            continue
        try:
            parts = urlsplit(value if "://" in value else f"http://{value}")
            plain = parts.scheme in ("http", "https") and (parts.port or True)
        except ValueError:
            return "" if scheme else name
        if parts.scheme.startswith(scheme) if scheme else not plain:
            return name
    return ""
