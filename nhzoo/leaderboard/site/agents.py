"""The pages of agents: description, results, how to load one, and games to watch."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from nhzoo.agents.registry import read_config
from nhzoo.errors import NhzooError
from nhzoo.evaluation.statistics import summary_ci95
from nhzoo.leaderboard.board import TIERS, Row
from nhzoo.leaderboard.site.charts import learning_curve
from nhzoo.leaderboard.site.games import RULE, Recorded
from nhzoo.leaderboard.site.page import KINDS, TIER_TEXT, Page, agent_path, command, section
from nhzoo.leaderboard.submission import ENTRY_FOLDER, read_manifest
from nhzoo.publishing.html import count, interval, number, table, text
from nhzoo.publishing.learning_curve import read_curve
from nhzoo.publishing.report import (
    Result,
    about_game,
    causes_table,
    doubts,
    embed,
    ends_table,
    facts_list,
    player,
    result_charts,
    summary_cards,
)
from nhzoo.runtime import files

_LONGEST_COMMAND = 2_000


def agent_page(
    row: Row, result: Result, games: Sequence[Recorded], others: Sequence[Row], ranked: int
) -> Page:
    """The page of a row. `others` are rows of the same agent, `ranked` how many are on its board.

    The figures are computed from the games themselves.
    """
    config, wrong = _config(row)
    parts = [_status(row), *(_warning(line) for line in [*wrong, *doubts(result)])]
    parts.append(f'<dl class="cards">{summary_cards(result.summary)}</dl>')
    parts.append(_watch(games, row))
    curve, said = _curve(row)
    figures = result_charts(result) + curve + ends_table(result.rows)
    parts += [_warning(line) for line in said]
    parts.append(
        section("charts", "How the games went", f'<div class="charts small">{figures}</div>')
    )
    if row.roles:
        parts.append(section("roles", "By role", _roles(row)))
    parts.append(section("deaths", "Causes of death", causes_table(result.rows)))
    if config:
        parts.append(section("training", "What it is", f'<dl class="facts">{_card(config)}</dl>'))
    parts.append(section("commands", "Load, measure, train", _commands(row, config)))
    facts = _row_facts(row) + facts_list(result, sum(game.windows is not None for game in games))
    parts.append(
        section("facts", "What was measured, and where", f'<dl class="facts">{facts}</dl>')
    )
    return Page(
        agent_path(row),
        f"{row.agent} on {row.protocol} · nhzoo leaderboard",
        f'{text(row.agent)} <span class="on">on</span> '
        f'<a class="quiet" href="../protocols/{text(row.protocol)}.html">{text(row.protocol)}</a>',
        _lead(row, config, others, ranked),
        "".join(parts),
        here="index.html",
        kicker=f'<p class="kicker">Agent, {KINDS.get(row.kind, "other")} · '
        f'<span class="tier tier-{TIERS.index(row.tier)}">{row.tier}</span></p>',
        scripts=("tables.js", "player.js", "copy.js"),
    )


def _lead(row: Row, config: dict[str, Any], others: Sequence[Row], ranked: int) -> str:
    place = f"Rank {row.rank} of {count(ranked, 'agent')}" if row.rank else "Not ranked"
    share = f", {100 * row.normalized:.1f} % of AutoAscend's" if row.normalized else ""
    said = (
        f"<p>{place}: mean score <b>{number(row.summary['mean_score'])}</b> "
        f"(95 % interval {interval(summary_ci95(row.summary))}){share}, over "
        f"{count(row.summary['episodes'], 'game')}.</p>"
    )
    if isinstance(config.get("description"), str) and config["description"]:
        said = f"<p>{text(config['description'][:300].rstrip('.'))}.</p>{said}"
    if others:
        links = ", ".join(
            f'<a href="../{text(agent_path(one))}">{text(one.protocol)}</a>' for one in others
        )
        said += f"<p>The same agent on {links}.</p>"
    return said


def _status(row: Row) -> str:
    if row.status == "removed":
        return _warning(f"This row was removed from the board: {row.reason}")
    if row.status == "rescored" and row.claimed:
        first = number(row.claimed["mean_score"])
        return _warning(
            f"This row was rescored, to {number(row.summary['mean_score'])}: {row.reason}. What "
            f"follows is of its games as they were accepted, with {first}."
        )
    if row.reason:
        return _warning(row.reason)
    if row.tier == TIERS[0]:
        return _warning(f"Reported: {TIER_TEXT[row.tier]}")
    return ""


def _warning(words: str) -> str:
    return f'<p class="warning">{text(words)}</p>' if words else ""


def _watch(games: Sequence[Recorded], row: Row) -> str:
    shown = [game for game in games if game.windows is not None]
    missing = "".join(
        _warning(f"Game {game.wanted.game['index']} cannot be shown: {game.reason}")
        for game in games
        if game.windows is None
    )
    if not shown:
        why = '<p class="note">There is no game to watch: this row came without its keys.</p>'
        return section("player-title", "Games to watch", missing or why)
    value = [
        {
            "game": one.wanted.game["index"],
            "about": about_game(one.wanted.game, one.windows or ()),
            "died": one.wanted.game["end_status"] == "death",
            "src": f"../{one.wanted.path}",
        }
        for one in shown
    ]
    choices = [
        (one.wanted.game["index"], f"{one.wanted.label}: {number(one.wanted.game['score'])}")
        for one in shown
    ]
    script = f'<script type="application/json" id="casts">{embed(value)}</script>'
    body = player(choices, str(value[0]["about"])) + missing + script
    return section("player-title", "Games to watch", body, RULE)


def _config(row: Row) -> tuple[dict[str, Any], list[str]]:
    if row.entry is None:
        return {}, []
    try:
        return read_config(row.entry), []
    except NhzooError as error:
        return {}, [f"Its config.json cannot be used: {error.args[0] if error.args else error}"]


def _curve(row: Row) -> tuple[str, list[str]]:
    if row.entry is None:
        return "", []
    try:
        return learning_curve(read_curve(files.inside(row.entry, "curve.csv"))), []
    except NhzooError as error:
        return "", [f"There is no learning curve: {error}"]


def _card(config: dict[str, Any]) -> str:
    """What the entry says of itself, as far as it is of the kind expected."""
    training, sampling = _dict(config.get("training")), _dict(config.get("sampling"))
    loss = _dict(training.get("validation"))
    policy = _dict(config.get("policy"))
    facts = [
        ("Architecture", config.get("architecture")),
        ("Parameters", config.get("params")),
        ("Units of its core", policy.get("hidden")),
        (
            "Method, as said",
            {"bc": "behavioural cloning", "impala": "IMPALA"}.get(str(training.get("method"))),
        ),
        ("Learnt from, as said", training.get("data")),
        ("Samples seen, as said", training.get("samples")),
        ("Of them unique, as said", training.get("unique_samples")),
        ("Training FLOPs, as said", training.get("flops")),
        ("Training seconds, as said", training.get("seconds")),
        ("Device, as said", training.get("device")),
        ("Held-out loss, as said", loss.get("loss")),
        ("Held-out accuracy, as said", loss.get("accuracy")),
        ("Temperature", sampling.get("temperature")),
        ("Patience, screens", sampling.get("patience")),
        ("Began as, as said", _dict(training.get("start")).get("entry")),
        ("Held to, as said", _dict(training.get("teacher")).get("entry")),
    ]
    return _facts(facts)


def _row_facts(row: Row) -> str:
    sizes = [
        ("Training FLOPs, as said", row.flops),
        ("Samples, as said", row.samples),
        ("Held-out loss, as said", row.held_out_loss),
    ]
    return _facts(
        [
            ("Tier", f"{row.tier}. {TIER_TEXT[row.tier]}"),
            ("Date", row.date),
            ("Account", row.author or ("" if _is_own(row) else "not seen by a maintainer")),
            ("Contact, as said", row.contact),
            ("Licence, as said", row.licence),
            ("Commit", row.revision if row.sha256 else ""),
            *(sizes if row.entry is None else []),
        ]
    )


def _facts(facts: Sequence[tuple[str, object]]) -> str:
    def shown(value: object) -> str:
        if isinstance(value, float) and (abs(value) >= 1e6 or value != value):
            return f"{value:.3e}"
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
        return str(value)[:300]

    return "".join(
        f"<dt>{name}</dt><dd>{text(shown(value))}</dd>"
        for name, value in facts
        if isinstance(value, (str, int, float)) and value != ""
    )


def _commands(row: Row, config: dict[str, Any]) -> str:
    """What to type, as far as it is known; whatever others wrote is quoted anew, word by word."""
    source, parts = _source(row), []
    if source:
        code = (
            'import nhzoo\n\nif __name__ == "__main__":  # evaluate() starts worker processes\n'
            f"    agent = nhzoo.load({source!r})\n"
            f"    result = nhzoo.evaluate(agent, {row.protocol!r}, episodes=16, workers=2)\n"
            '    print(result.result["summary"]["mean_score_ci95"])'
        )
        again = ("nhzoo", "evaluate", source, "--protocol", row.protocol, "--out", "results/again")
        run = f"{shlex.join(('nhzoo', 'watch', source))}\n{shlex.join(again)}"
        parts += ["<h3>Load it</h3>", command(code)]
        parts += ["<h3>Watch it, measure it again</h3>", command(run)]
    check = ["nhzoo", "verify", "/".join(("leaderboard", *_place(row)))]
    if row.sha256 and source:
        check += ["--audit", source]
    parts += ["<h3>Check this very result</h3>", command(shlex.join(check))]
    made = _training_command(config)
    if made:
        parts += ["<h3>Train it again</h3>", command(made)]
    return "".join(parts)


def _source(row: Row) -> str:
    """How `nhzoo.load` finds the agent: a name of the zoo, a place on the hub, a folder; or ""."""
    if _is_own(row):
        return row.agent if row.entry is not None or not row.sha256 else ""
    try:
        pointer = read_manifest(row.folder).entry
    except NhzooError:
        return ""
    if pointer is None:
        return ""
    if pointer.source == ENTRY_FOLDER:
        return "/".join(("leaderboard", *_place(row), ENTRY_FOLDER))
    return pointer.source.removeprefix("agents/")


def _training_command(config: dict[str, Any]) -> str:
    made = _dict(config.get("training")).get("command")
    if not isinstance(made, str) or len(made) > _LONGEST_COMMAND:
        return ""
    try:
        words = shlex.split(made)
    except ValueError:
        return ""
    return shlex.join(words) if words[:2] == ["nhzoo", "train"] else ""


def _place(row: Row) -> tuple[str, ...]:
    """Its folder below leaderboard/: results/AGENT/PROTOCOL or submissions/ID."""
    return row.folder.parts[-3 if _is_own(row) else -2 :]


def _is_own(row: Row) -> bool:
    """Whether its folder is results/AGENT/PROTOCOL, not submissions/ID."""
    return row.folder.parent.parent.name == "results"


def _roles(row: Row) -> str:
    body = []
    for role, found in sorted(row.roles.items(), key=lambda item: -item[1]["mean_score"]):
        body.append(
            f'<tr><th scope="row">{text(role)}</th><td>{found["games"]:,}</td>'
            f"<td>{number(found['mean_score'])}</td><td>{interval(summary_ci95(found))}</td>"
            f"<td>{100 * found['mean_progression']:.2f} %</td></tr>"
        )
    head = ("<Role", "Games", "Mean score", "95 % interval", "Progression")
    return table("By role", head, body, sortable=True)


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
