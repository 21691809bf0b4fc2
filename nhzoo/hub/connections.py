"""What in the user's own settings keeps a connection from being made, and what to do about it."""

from __future__ import annotations

import errno
import os
import ssl
import urllib.error
from pathlib import Path
from urllib.parse import urlsplit

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
        within = error.reason if isinstance(error, urllib.error.URLError) else None
        if not isinstance(within, BaseException):
            within = None if error.__suppress_context__ else error.__context__
        error = error.__cause__ or within
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
