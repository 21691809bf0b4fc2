"""The first page and the pages of protocols: rules and board, by role where drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from nhzoo.envs.protocols import Protocol, get_protocol
from nhzoo.leaderboard.board import RANKED, Board, Row, ranked
from nhzoo.leaderboard.site.page import (
    Page,
    agent_path,
    board_table,
    filter_bar,
    from_markdown,
    reference_table,
    section,
    tier_list,
)
from nhzoo.leaderboard.site.scaling import Laws, score_charts
from nhzoo.publishing.html import count, number, text

_REFERENCES: Final = (
    "As published, each under a protocol of its own: other limits, another NLE, other seeds. None "
    "is ranked, and none stands beside a score above."
)


def index_page(board: Board, laws: Laws) -> Page:
    """The first page: who is best, how sure that is, how it scales."""
    boards = by_protocol(board.rows)
    parts = [_highlights(board, boards), filter_bar(board.rows)] if board.rows else []
    for protocol, rows in boards.items():
        parts.append(
            section(
                f"board-{protocol}",
                protocol,
                board_table(f"Board of {protocol}", rows),
                what(get_protocol(protocol), "protocols/"),
            )
        )
    if board.rows:
        csv = '<a href="board.csv">All of it as CSV</a>.'
        parts.append(f'<p class="note">{RANKS} {csv}</p>{tier_list()}')
    else:
        parts.append('<p class="note">There is no result yet.</p>')
    without = [text(name) for name in ORDER if name not in boards and name in RANKED]
    if without and boards:
        parts.append(f'<p class="note">No result yet under {", ".join(without)}.</p>')
    main = max(boards, key=lambda name: sum(bool(row.flops) for row in boards[name]), default="")
    figures = score_charts(
        [r for r in boards.get(main, []) if r.status != "removed"], laws, paper=False
    )
    if figures:
        more = 'More, with the fit and the forecasts: <a href="scaling.html">how it scales</a>.'
        inner = f'<div class="charts">{figures}</div>'
        parts.append(section("scaling", f"Score against compute and size, {main}", inner, more))
    if board.references:
        parts.append(
            section(
                "references", "From the literature", reference_table(board.references), _REFERENCES
            )
        )
    return Page(
        "index.html",
        "nhzoo leaderboard: NetHack agents, every game replayed",
        "NetHack agents, every game replayed",
        "Who plays NetHack best, how sure that is, and what it took. Scores are not believed here: "
        "each key press of a ranked game is kept, and was pressed again.",
        "".join(parts),
        scripts=("tables.js", "filter.js"),
    )


def _highlights(board: Board, boards: dict[str, list[Row]]) -> str:
    """The best agent with its games one tap away, and the board in figures."""
    counted = [row for row in board.rows if row.rank is not None]
    if not counted:
        return ""
    games = sum(int(row.summary["episodes"]) for row in counted)
    steps = sum(row.summary["episodes"] * row.summary["mean_steps"] for row in counted)
    best = next((rows[0] for rows in boards.values() if rows and rows[0].rank), None)
    cards = [_named("Best", best)] if best is not None else []
    learnt = (row for rows in boards.values() for row in rows if row.kind in ("bc", "rl"))
    neural = next((row for row in learnt if row.rank), None)
    if neural is not None and neural is not best:
        cards.append(_named("Best that learnt,", neural))
    cards.append(f"<div><dt>Rows ranked</dt><dd>{len(counted):,}</dd></div>")
    cards.append(f"<div><dt>Games replayed</dt><dd>{games:,}</dd></div>")
    cards.append(f"<div><dt>Keys pressed again</dt><dd>{steps / 1e6:,.1f}M</dd></div>")
    return f'<dl class="cards few">{"".join(cards)}</dl>'


def _named(what: str, row: Row) -> str:
    page = text(agent_path(row))
    return (
        f'<div class="wide"><dt>{what} on {text(row.protocol)}</dt>'
        f'<dd><a href="{page}">{text(row.agent)}</a>'
        f"<small>{number(row.summary['mean_score'])} points, "
        f'<a href="{page}#player-title">watch it play</a></small></dd></div>'
    )


ORDER: Final = ("monk-v1", "allroles-v1", "monk-lite-v1", "smoke-v1")
_PROTOCOL_PARTS: Final = ("What is fixed", "Reading a result")
RANKS: Final = (
    "Ranked by mean score. A rank is 1 + the number of agents whose whole interval lies above, so "
    "agents that do not separate share one. Bars: the 95 % interval (BCa bootstrap) and the mean, "
    "on a square-root scale from 0. Press a column&rsquo;s heading to sort by it."
)


def protocols_page(board: Board, document: str) -> Page:
    """All protocols, and what `document` (PROTOCOLS.md) says they have in common."""
    items = []
    for name in ORDER:
        protocol = get_protocol(name)
        rows = len(ranked_rows(board.rows, name))
        said = f"{count(rows, 'agent')} ranked" if name in RANKED else "a check, it ranks nobody"
        items.append(
            f'<li><h2><a href="protocols/{name}.html">{name}</a></h2>'
            f"<p>{count(protocol.games, 'game')} as <code>{text(protocol.character)}</code>, "
            "at most "
            f'{protocol.step_cap:,} steps.</p><p class="note">{said}</p></li>'
        )
    return Page(
        "protocols.html",
        "Protocols · nhzoo leaderboard",
        "Protocols",
        "A protocol is a frozen, versioned evaluation: the character, the seeds, the limits, the "
        "clock. Whatever would change a score changes its name.",
        f'<ul class="tiles">{"".join(items)}</ul>' + from_markdown(document, _PROTOCOL_PARTS),
    )


def protocol_pages(board: Board, protocol: Protocol) -> list[Page]:
    """The page of a protocol, and one for each role where it draws roles."""
    rows = by_protocol(board.rows).get(protocol.id, [])
    game = protocol.game(0)
    facts = [
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
    listed = "".join(f"<dt>{name}</dt><dd>{text(value)}</dd>" for name, value in facts)
    fixed = section("fixed", "What it fixes", f'<dl class="facts">{listed}</dl>')
    parts = []
    # Of rows that were replayed: what others merely report may name any number of roles.
    roles = sorted({role for row in rows if row.rank is not None for role in row.roles})
    links = "".join(
        f'<li><a href="{protocol.id}-{_slug(role)}.html">{text(role)}</a></li>' for role in roles
    )
    chips = f'<nav aria-label="Roles"><ul class="chips">{links}</ul></nav>' if roles else ""
    if rows:
        inner = chips + filter_bar(rows) + board_table(f"Board of {protocol.id}", rows, "../")
        parts.append(section("board", "Board", inner + tier_list(), RANKS))
    else:
        parts.append('<p class="note">No result yet under this protocol.</p>')
    pages = [
        Page(
            f"protocols/{protocol.id}.html",
            f"{protocol.id} · nhzoo leaderboard",
            text(protocol.id),
            _for(protocol),
            "".join(parts) + fixed,
            here="protocols.html",
            kicker='<p class="kicker">Protocol</p>',
            scripts=("tables.js", "filter.js"),
        )
    ]
    for role in roles:
        mine = ranked(rows, protocol.id, role)
        if not mine:
            continue
        inner = chips + filter_bar(mine)
        inner += board_table(f"{protocol.id}, {role}", mine, "../", role) + tier_list()
        pages.append(
            Page(
                f"protocols/{protocol.id}-{_slug(role)}.html",
                f"{protocol.id}, {role} · nhzoo leaderboard",
                f'{text(protocol.id)} <span class="on">as</span> {text(role)}',
                "Ranked by the games of this role alone. "
                f'<a href="{protocol.id}.html">All roles</a>.',
                section("board", "Board", inner, RANKS),
                here="protocols.html",
                kicker='<p class="kicker">Protocol</p>',
                scripts=("tables.js", "filter.js"),
            )
        )
    return pages


def _for(protocol: Protocol) -> str:
    return {
        "smoke-v1": "A check that everything runs. Its scores rank nobody.",
        "monk-lite-v1": "For development, on a laptop.",
        "monk-v1": "The figure to publish.",
        "allroles-v1": "The same, for agents that play any role.",
    }.get(protocol.id, "")


def _slug(role: str) -> str:
    return "".join(char for char in role.lower() if char.isascii() and char.isalnum()) or "role"


def ranked_rows(rows: Sequence[Row], protocol: str) -> list[Row]:
    """Those of a protocol that have a rank."""
    return [row for row in rows if row.protocol == protocol and row.rank is not None]


def by_protocol(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of each protocol that has any, as a board shows them: ranked first, removed last."""
    found = {}
    for protocol in sorted({row.protocol for row in rows}, key=_place):
        mine = [row for row in rows if row.protocol == protocol]
        ranks = [row for row in mine if row.rank is not None]
        rest = [row for row in mine if row.rank is None]
        rest.sort(key=lambda row: (row.status == "removed", -row.summary["mean_score"], row.id))
        found[protocol] = ranks + rest
    return found


def _place(protocol: str) -> tuple[int, str]:
    return (ORDER.index(protocol) if protocol in ORDER else len(ORDER), protocol)


def what(protocol: Protocol, root: str) -> str:
    """One sentence of what a protocol is, with the way to its page."""
    character = (
        "a character drawn for each game"
        if protocol.character == "@"
        else (f"<code>{text(protocol.character)}</code>")
    )
    return (
        f"{count(protocol.games, 'game')} as {character}, at most {protocol.step_cap:,} steps "
        f"each, stalled after {protocol.no_progress:,} without a turn. "
        f'<a href="{root}{text(protocol.id)}.html">What it fixes</a>.'
    )
