"""The first page and the pages of protocols: rules and board, by role where drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from nhzoo.envs.protocols import Protocol, get_protocol
from nhzoo.leaderboard.board import RANKED, Board, BoardRow, ranked
from nhzoo.leaderboard.site.documents import from_markdown
from nhzoo.leaderboard.site.page import Page, board_table, reference_groups
from nhzoo.leaderboard.site.pairs import Pairs
from nhzoo.leaderboard.site.scaling import Laws, score_charts
from nhzoo.publishing.html import count

PURPOSES: Final = {
    "monk-v1": "The figure to publish.",
    "allroles-v1": "The same, for agents that play any role.",
    "monk-lite-v1": "For development, on a laptop.",
    "smoke-v1": "A check that everything runs. Its scores rank nobody.",
}
"""What each protocol is for, in the order in which pages show them."""

_PROTOCOL_PARTS: Final = ("What is fixed", "Reading a result")


def index_page(board: Board, laws: Laws) -> Page:
    """The first page: who is best, how sure that is, how it scales."""
    boards = by_protocol(board.rows)
    main = max(boards, key=lambda name: sum(bool(row.flops) for row in boards[name]), default="")
    shown = [row for row in boards.get(main, []) if row.status != "removed"]
    values = {
        "rows": board.rows,
        "boards": {
            get_protocol(name): board_table(f"Board of {name}", rows)
            for name, rows in boards.items()
        },
        "without": [name for name in PURPOSES if name not in boards and name in RANKED],
        "charts": score_charts(shown, laws, paper=False),
        "charted": main,
        "references": reference_groups(board.references),
    }
    return Page("index.html", "index.html", values | _highlights(board, boards))


def _highlights(board: Board, boards: dict[str, list[BoardRow]]) -> dict[str, Any]:
    """The best agents, and the board in figures."""
    counted = [row for row in board.rows if row.rank is not None]
    games = sum(int(row.summary["episodes"]) for row in counted)
    steps = sum(row.summary["episodes"] * row.summary["mean_steps"] for row in counted)
    best = next((rows[0] for rows in boards.values() if rows and rows[0].rank), None)
    named = [("Best", best)] if best is not None else []
    learnt = (row for rows in boards.values() for row in rows if row.kind in ("bc", "rl"))
    neural = next((row for row in learnt if row.rank), None)
    if neural is not None and neural is not best:
        named.append(("Best that learnt,", neural))
    totals = [
        ("Rows ranked", f"{len(counted):,}"),
        ("Games replayed", f"{games:,}"),
        ("Keys pressed again", f"{steps / 1e6:,.1f}M"),
    ]
    return {"best": named, "totals": totals if counted else []}


def protocols_page(board: Board, document: str) -> Page:
    """All protocols, and what `document` (PROTOCOLS.md) says they have in common."""
    protocols = []
    for name in PURPOSES:
        rows = len(ranked_rows(board.rows, name))
        note = f"{count(rows, 'agent')} ranked" if name in RANKED else "a check, it ranks nobody"
        protocols.append((get_protocol(name), note))
    values = {"protocols": protocols, "document": from_markdown(document, _PROTOCOL_PARTS)}
    return Page("protocols.html", "protocols.html", values)


def protocol_pages(board: Board, protocol: Protocol, pairs: Pairs | None = None) -> list[Page]:
    """The page of a protocol with its `pairs`, and one for each role where it draws roles."""
    rows = by_protocol(board.rows).get(protocol.id, [])
    # Of rows that were replayed: what others merely report may name any number of roles.
    roles = sorted({role for row in rows if row.rank is not None for role in row.roles})
    values: dict[str, Any] = {
        "protocol": protocol,
        "about": PURPOSES.get(protocol.id, ""),
        "role": None,
        "roles": {role: f"{protocol.id}-{_slug(role)}.html" for role in roles},
        "rows": rows,
        "table": board_table(f"Board of {protocol.id}", rows),
        "fixed": _fixed(protocol),
        "pairs": pairs,
    }
    pages = [Page(f"protocols/{protocol.id}.html", "protocol.html", values)]
    for role, name in values["roles"].items():
        if of_role := ranked(rows, protocol.id, role):
            table = board_table(f"{protocol.id}, {role}", of_role, role)
            own = {"role": role, "rows": of_role, "table": table}
            pages.append(Page(f"protocols/{name}", "protocol.html", values | own))
    return pages


def _fixed(protocol: Protocol) -> list[tuple[str, str]]:
    game = protocol.game(0)
    return [
        ("Character", "drawn for each game" if protocol.character == "@" else protocol.character),
        ("Games", f"{protocol.games:,}, numbered from 0"),
        ("Steps, at most", f"{protocol.step_cap:,} keys of the agent"),
        ("Stalled after", f"{protocol.no_progress:,} steps without a game turn"),
        ("Interface", "NetHackChallenge of NLE 1.3: 121 keys, menus and questions not skipped"),
        (
            "Seeds of game i",
            f"SHA-256 of nhzoo:{protocol.id}:i: core from bytes 0 to 7, display 8 to 15",
        ),
        ("Game 0", f"core {game.core}, display {game.disp}"),
        (
            "Sampling",
            f"Philox keyed by SHA-256 of nhzoo:{protocol.id}:i:actions, one number a step",
        ),
        ("Clock", f"ubirthday {game.ubirthday:,}, the phase of the moon fixed"),
        ("Score", "NLE's in-game score; crashed and stalled games count with what they had"),
        ("Voided", "a game that enters explore or wizard mode, or is left, ends with score 0"),
    ]


def _slug(role: str) -> str:
    return "".join(char for char in role.lower() if char.isascii() and char.isalnum()) or "role"


def ranked_rows(rows: Sequence[BoardRow], protocol: str) -> list[BoardRow]:
    """Those of a protocol that have a rank."""
    return [row for row in rows if row.protocol == protocol and row.rank is not None]


def by_protocol(rows: Sequence[BoardRow]) -> dict[str, list[BoardRow]]:
    """Rows of each protocol that has any, as a board shows them: ranked first, removed last."""
    order = [*PURPOSES, *sorted({row.protocol for row in rows} - PURPOSES.keys())]
    return {
        protocol: sorted((row for row in rows if row.protocol == protocol), key=_place)
        for protocol in order
        if any(row.protocol == protocol for row in rows)
    }


def _place(row: BoardRow) -> tuple[Any, ...]:
    """Ranked rows keep their order (sorting is stable), the others go by score."""
    if row.rank is not None:
        return (False,)
    return (True, row.status == "removed", -row.summary["mean_score"], row.id)
