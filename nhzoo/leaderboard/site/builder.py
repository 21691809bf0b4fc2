"""Building the site of a leaderboard: static pages, which need no network and no server.

What is built depends on the board's files alone: the same files give the same bytes.

`play.html?entry=org/name` is a page for the Space that plays any entry's recording, with
`&beside=org/name` another's on the same game beside it. It fetches `replay.cast` from the hub and
from nowhere else; what comes is shown as text only.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from nhzoo.envs.protocols import PROTOCOLS
from nhzoo.errors import InputError
from nhzoo.hub.repos import HUB_URL
from nhzoo.leaderboard.board import Board, BoardRow, as_csv, read_board
from nhzoo.leaderboard.board_log import LogLine, head
from nhzoo.leaderboard.site.agents import agent_page
from nhzoo.leaderboard.site.boards import index_page, protocol_pages, protocols_page, ranked_rows
from nhzoo.leaderboard.site.documents import from_markdown
from nhzoo.leaderboard.site.games import Recording, record, shown_games
from nhzoo.leaderboard.site.page import SCRIPTS, Page, agent_path, style, templates
from nhzoo.leaderboard.site.pairs import beside_page, best, pairs_of
from nhzoo.leaderboard.site.scaling import Laws, read_laws, scaling_page
from nhzoo.publishing.html import asset, single_file
from nhzoo.publishing.report import read
from nhzoo.runtime import files
from nhzoo.runtime.console import ProgressCallback, no_progress

PLAY_PAGE: Final = "play.html"


def play_page(hub: str = HUB_URL) -> str:
    """The page. It asks `hub` alone, and where that keeps its files."""
    hosts = f"{hub} https://*.hf.co https://*.huggingface.co"
    values = single_file("player.js", "beside.js", "play.js", connect=hosts)
    return templates().get_template(PLAY_PAGE).render(values, hub=hub)


_MOST_TEXT: Final = files.MEGABYTE


@dataclass(frozen=True)
class Built:
    """What a build came to; bytes are of the files as they lie there."""

    folder: Path
    pages: int
    rows: int
    games: int
    page_bytes: int
    game_bytes: int
    missing: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def build(
    leaderboard: Path,
    out: Path,
    agents: Path | None = None,
    training: Path | None = None,
    published: Path | None = None,
    workers: int | None = None,
    progress: ProgressCallback = no_progress,
) -> Built:
    """Build the site of a leaderboard folder in `out`, which is new, empty or an earlier site.

    `agents` holds the zoo's entries, `training` fits, `published` the paper's table of runs, which
    has no licence: a site with it is not to be published. `progress` gets the number of games
    recorded, and how many there are. InputError for files that cannot be read.
    """
    board = read_board(leaderboard, agents)
    laws = read_laws(leaderboard, training, published)
    documents = {name: _document(leaderboard / name) for name in ("PROTOCOLS.md", "SUBMITTING.md")}
    return build_board(board, out, laws, documents, workers, progress)


def build_board(
    board: Board,
    out: Path,
    laws: Laws | None = None,
    documents: dict[str, str] | None = None,
    workers: int | None = None,
    progress: ProgressCallback = no_progress,
) -> Built:
    """The same of a board that was read; `documents` are Markdown by the name of their file."""
    documents, laws = documents or {}, laws or Laws()
    _check_out(out)
    played = {row.id: read(row.folder) for row in board.rows}
    compared = {row.id for one in PROTOCOLS.values() for row in best(board.rows, one)}
    shown = [
        game
        for row in board.rows
        if row.status not in ("removed", "altered")
        for game in shown_games(row.id, played[row.id], row.id in compared)
    ]
    recorded: dict[str, list[Recording]] = {row.id: [] for row in board.rows}
    for one in record(shown, out, workers, progress):
        recorded[one.game.row_id].append(one)
    pages = [index_page(board, laws), scaling_page(board.rows, laws), _log(board)]
    pages += [_submit(documents), protocols_page(board, documents.get("PROTOCOLS.md", ""))]
    for row in board.rows:
        others = [one for one in board.rows if one.id != row.id and _same_agent(one, row)]
        on_board = len(ranked_rows(board.rows, row.protocol))
        pages.append(agent_page(row, played[row.id], recorded[row.id], others, on_board))
    for protocol in PROTOCOLS.values():
        pairs = pairs_of(board.rows, protocol, recorded)
        pages += protocol_pages(board, protocol, pairs)
        if (page := beside_page(board.rows, protocol, recorded)) is not None:
            pages.append(page)
    written = {page.path: page.write() for page in pages}
    written["site.css"] = style().encode()
    written[PLAY_PAGE] = play_page().encode()
    written["board.csv"] = as_csv(board).encode()
    pin = {"lines": len(board.log), "sha256": head(board.log)}
    written["head.json"] = files.dump_json(pin)
    written |= {name: asset(name).encode() for name in SCRIPTS}
    for path, data in written.items():
        files.atomic_write(out / path, data, sync=False)
    recordings = [one for group in recorded.values() for one in group]
    paths = {one.game.path for one in recordings if one.windows}
    _clean(out, {*written, *paths})
    return Built(
        out,
        len(pages),
        len(board.rows),
        len(paths),
        sum(map(len, written.values())),
        sum((out / path).stat().st_size for path in paths),
        tuple(
            f"{one.game.row_id}, game {one.game.row['index']}: {one.reason}"
            for one in recordings
            if not one.windows
        ),
        board.warnings,
    )


def _check_out(out: Path) -> None:
    """Old pages are deleted, so what is not a site of ours is not touched; a new one is marked."""
    index, mark = out / "index.html", b'<meta name="generator" content="nhzoo leaderboard">'
    if not out.is_dir() or not any(out.iterdir()):
        page = Page(index.name, "base.html", {"title": "Being built"})
        files.atomic_write(index, page.write(), sync=False)
    elif not index.is_file() or mark not in files.read_bounded(index, 64 * files.MEGABYTE):
        raise InputError(f"--out {out}: holds other files than a site of ours; give a new folder")


def _clean(out: Path, wanted: set[str]) -> None:
    """Delete what an earlier build left."""
    for parent, folders, names in os.walk(out, topdown=False):
        for name in names:
            path = Path(parent) / name
            if path.relative_to(out).as_posix() not in wanted:
                path.unlink()
        for name in folders:
            folder = Path(parent) / name
            if not folder.is_symlink() and not any(folder.iterdir()):
                folder.rmdir()


def _document(path: Path) -> str:
    if not path.is_file():
        return ""
    return files.read_bounded(path, _MOST_TEXT).decode("utf-8", "replace")


def _same_agent(one: BoardRow, other: BoardRow) -> bool:
    if one.sha256 or other.sha256:
        return one.sha256 == other.sha256
    return one.agent == other.agent and one.folder.parent == other.folder.parent


def _log(board: Board) -> Page:
    values = {
        "log": [(line, _log_facts(line)) for line in board.log],
        "pages": {row.id: agent_path(row) for row in board.rows},
        "head": head(board.log) if board.log else "",
    }
    return Page("log.html", "log.html", values)


def _log_facts(line: LogLine) -> list[tuple[str, str]]:
    """The words and numbers of a line but for those that the row's id names; hashes are cut."""

    def shown(value: str | float) -> str:
        if isinstance(value, float):
            return f"{value:,.6g}"
        return re.sub(r"^([0-9a-f]{12})[0-9a-f]{28,}$", r"\1…", str(value))

    return [
        (name.replace("_", " "), shown(value))
        for name, value in line.facts.items()
        if isinstance(value, (str, int, float)) and 0 < len(str(value)) <= 128
        if name not in ("agent", "protocol")
    ]


def _submit(documents: dict[str, str]) -> Page:
    source = documents.get("SUBMITTING.md") or (
        "Evaluate, check, send:\n\n```sh\nnhzoo evaluate mine --protocol monk-lite-v1 --out "
        "results/mine\nnhzoo verify results/mine\nnhzoo submit results/mine --to FOLDER\n```\n"
    )
    return Page("submit.html", "submit.html", {"document": from_markdown(source)})


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
