"""The first page of the site: the boards of all protocols."""

from __future__ import annotations

from typing import Final

from nhzoo.envs.protocols import get_protocol
from nhzoo.leaderboard.board import RANKED, Board, Row
from nhzoo.leaderboard.site.page import Page, section
from nhzoo.leaderboard.site.protocols import ORDER, RANKS, by_protocol, what
from nhzoo.leaderboard.site.scaling import Laws, score_charts
from nhzoo.leaderboard.site.tables import (
    agent_path,
    board_table,
    filter_bar,
    reference_table,
    tier_list,
)
from nhzoo.publishing.html import number, text

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
