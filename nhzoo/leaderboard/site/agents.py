"""The pages of agents: description, results, how to load one, and games to watch."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from nhzoo.agents.registry import read_config
from nhzoo.errors import NhzooError
from nhzoo.evaluation.statistics import summary_ci95
from nhzoo.leaderboard.board import TIERS, BoardRow
from nhzoo.leaderboard.site.charts import learning_curve
from nhzoo.leaderboard.site.games import RULE, Recording
from nhzoo.leaderboard.site.page import TIER_TEXT, Page, agent_path
from nhzoo.leaderboard.submission import ENTRY_FOLDER, read_manifest
from nhzoo.publishing.html import number
from nhzoo.publishing.learning_curve import read_curve
from nhzoo.publishing.report import (
    Result,
    causes,
    doubts,
    ends,
    facts_list,
    player_game,
    result_charts,
    summary_cards,
)
from nhzoo.runtime import files

_LONGEST_COMMAND = 2_000


def agent_page(
    row: BoardRow,
    result: Result,
    recordings: Sequence[Recording],
    others: Sequence[BoardRow],
    ranked: int,
) -> Page:
    """The page of a row. `others` are rows of the same agent, `ranked` how many are on its board.

    The figures are computed from the games themselves.
    """
    config, wrong = _config(row)
    curve, no_curve = _curve(row)
    source = _source(row)
    casts = [
        player_game(one.game.row, one.game.label, one.windows, src=f"../{one.game.path}")
        for one in recordings
        if one.windows
    ]
    description = config.get("description")
    values = {
        "row": row,
        "ranked": ranked,
        "ends95": summary_ci95(row.summary),
        "description": description[:300].rstrip(".") if isinstance(description, str) else "",
        "others": others,
        "warnings": [*_status(row), *wrong, *doubts(result)],
        "cards": summary_cards(result.summary),
        "casts": casts,
        "missing": [(one.game.row["index"], one.reason) for one in recordings if not one.windows],
        "rule": RULE,
        "charts": result_charts(result) + ([curve] if curve else []),
        "ends": ends(result.rows),
        "no_curve": no_curve,
        "roles": [
            (role, found, summary_ci95(found))
            for role, found in sorted(row.roles.items(), key=lambda it: -it[1]["mean_score"])
        ],
        "causes": causes(result.rows),
        "card": _card(config),
        "source": source,
        "protocol": result.protocol,
        "commands": _commands(row, source, config),
        "facts": _row_facts(row) + facts_list(result, len(casts)),
    }
    return Page(agent_path(row), "agent.html", values)


def _status(row: BoardRow) -> list[str]:
    if row.status == "removed":
        return [f"This row was removed from the board: {row.reason}"]
    if row.status == "rescored" and row.claimed:
        first = number(row.claimed["mean_score"])
        return [
            f"This row was rescored, to {number(row.summary['mean_score'])}: {row.reason}. What "
            f"follows is of its games as they were accepted, with {first}."
        ]
    if row.reason:
        return [row.reason]
    return [f"Reported: {TIER_TEXT[row.tier]}"] if row.tier == TIERS[0] else []


def _config(row: BoardRow) -> tuple[dict[str, Any], list[str]]:
    if row.entry is None:
        return {}, []
    try:
        return read_config(row.entry), []
    except NhzooError as error:
        return {}, [f"Its config.json cannot be used: {error.args[0] if error.args else error}"]


def _curve(row: BoardRow) -> tuple[Markup | None, str]:
    """The learning curve as a figure, or why there is none."""
    if row.entry is None:
        return None, ""
    try:
        return learning_curve(read_curve(files.inside(row.entry, "curve.csv"))), ""
    except NhzooError as error:
        return None, f"There is no learning curve: {error}"


def _card(config: dict[str, Any]) -> list[tuple[str, str]]:
    """What the entry says of itself, as far as it is of the kind expected."""
    training, sampling = (
        files.as_object(config.get("training")),
        files.as_object(config.get("sampling")),
    )
    loss = files.as_object(training.get("validation"))
    policy = files.as_object(config.get("policy"))
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
        ("Least share of the best action", sampling.get("min_p")),
        ("Began as, as said", files.as_object(training.get("start")).get("entry")),
        ("Held to, as said", files.as_object(training.get("teacher")).get("entry")),
    ]
    return _facts(facts)


def _row_facts(row: BoardRow) -> list[tuple[str, str]]:
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


def _facts(facts: Sequence[tuple[str, object]]) -> list[tuple[str, str]]:
    def shown(value: object) -> str:
        if isinstance(value, float) and (abs(value) >= 1e6 or value != value):
            return f"{value:.3e}"
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
        return str(value)[:300]

    return [
        (name, shown(value))
        for name, value in facts
        if isinstance(value, (str, int, float)) and value != ""
    ]


def _commands(row: BoardRow, source: str, config: dict[str, Any]) -> list[tuple[str, str]]:
    """What to type, as far as it is known; whatever others wrote is quoted anew, word by word."""
    found = []
    if source:
        again = ("nhzoo", "evaluate", source, "--protocol", row.protocol, "--out", "results/again")
        run = f"{shlex.join(('nhzoo', 'watch', source))}\n{shlex.join(again)}"
        found.append(("Watch it, measure it again", run))
    check = ["nhzoo", "verify", "/".join(("leaderboard", *_place(row)))]
    if row.sha256 and source:
        check += ["--audit", source]
    found.append(("Check this very result", shlex.join(check)))
    if command := _training_command(config):
        found.append(("Train it again", command))
    return found


def _source(row: BoardRow) -> str:
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
    command = files.as_object(config.get("training")).get("command")
    if not isinstance(command, str) or len(command) > _LONGEST_COMMAND:
        return ""
    try:
        words = shlex.split(command)
    except ValueError:
        return ""
    return shlex.join(words) if words[:2] == ["nhzoo", "train"] else ""


def _place(row: BoardRow) -> tuple[str, ...]:
    """Its folder below leaderboard/: results/AGENT/PROTOCOL or submissions/ID."""
    return row.folder.parts[-3 if _is_own(row) else -2 :]


def _is_own(row: BoardRow) -> bool:
    """Whether its folder is results/AGENT/PROTOCOL, not submissions/ID."""
    return row.folder.parent.parent.name == "results"
