"""A look at the site: its files over HTTP, to this machine alone."""

from __future__ import annotations

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from nhzoo.errors import InputError


class _Handler(SimpleHTTPRequestHandler):
    """Files of one folder; no lists of folders, no log, nothing kept by the browser."""

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def list_directory(self, path: Any) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def server(site: Path, port: int = 0) -> ThreadingHTTPServer:
    """A server of a site on 127.0.0.1 (`server_port`: where); the caller lets it serve."""
    if not (site / "index.html").is_file():
        raise InputError(f"{site}: has no index.html; build it with nhzoo leaderboard build")
    handler = partial(_Handler, directory=str(site))
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise InputError(f"--port {port}: {error.strerror}; give another, or 0") from None
