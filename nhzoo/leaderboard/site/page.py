"""The parts that all pages of the site share: frame, navigation, tables, relative links.

Every page is text, a style sheet and scripts beside it; none asks anything of another host. What
comes from outside is text in a page, never markup.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import Template
from typing import Any, Final

from nhzoo import __version__
from nhzoo.evaluation.results import fault_lines
from nhzoo.evaluation.statistics import summary_ci95
from nhzoo.hub.repos import HUB_URL as HUB
from nhzoo.hub.repos import ORGANISATION
from nhzoo.leaderboard.board import TIERS, Reference, Row
from nhzoo.leaderboard.board_log import LogLine
from nhzoo.publishing.charts import nice_step, short
from nhzoo.publishing.html import asset, heading, interval, number, table, text

STYLES: Final = ("report.css", "site.css")
SCRIPTS: Final = ("tables.js", "filter.js", "player.js", "copy.js")
NAVIGATION: Final = (
    ("index.html", "Leaderboard"),
    ("scaling.html", "Scaling"),
    ("protocols.html", "Protocols"),
    ("log.html", "Log"),
    ("submit.html", "Submit"),
)

# `file:` is for pages opened from a disk: some browsers do not count that as 'self'.
POLICY: Final = (
    "default-src 'none'; img-src data:; style-src 'self' file:; script-src 'self' file:; "
    "base-uri 'none'; form-action 'none'"
)


@dataclass(frozen=True)
class Page:
    """One page. `heading`, `lead` and `body` are markup, `title` is text.

    `here` is the page of the navigation that it belongs to, `scripts` are those it needs.
    """

    path: str
    title: str
    heading: str
    lead: str
    body: str
    here: str = ""
    kicker: str = ""
    scripts: tuple[str, ...] = ("tables.js",)
    footer: str = ""

    def write(self) -> bytes:
        """The file."""
        root = "../" * self.path.count("/")
        links = "".join(
            f'<li><a href="{root}{path}"{_current(path, self)}>{name}</a></li>'
            for path, name in NAVIGATION
        )
        scripts = "".join(f'<script src="{root}{name}" defer></script>' for name in self.scripts)
        page = Template(asset("site.html")).substitute(
            policy=text(POLICY),
            title=text(self.title),
            root=root,
            links=links,
            kicker=self.kicker,
            heading=self.heading,
            lead=f'<div class="lead">{self.lead}</div>' if self.lead else "",
            body=self.body,
            footer=self.footer,
            version=text(__version__),
            hub=text(f"{HUB}/{ORGANISATION}"),
            scripts=scripts,
        )
        return page.encode()


def _current(path: str, page: Page) -> str:
    if path == page.path:
        return ' aria-current="page"'
    return ' aria-current="true"' if path == page.here else ""


def style() -> str:
    """The style sheet of the site: a report's, and what only the site has."""
    return "\n".join(asset(name) for name in STYLES)


def section(id: str, title: str, body: str, note: str = "") -> str:
    """A part of a page under a heading of its own; `title` is text, the rest markup."""
    said = f'<p class="note">{note}</p>' if note else ""
    return f'<section><h2 id="{id}">{text(title)}</h2>{said}{body}</section>'


def command(words: str) -> str:
    """Something to type, with a button that copies it (`copy.js` shows it)."""
    return (
        f'<div class="command"><pre tabindex="0"><code>{text(words)}</code></pre>'
        '<button type="button" data-copy hidden>Copy</button></div>'
    )


def from_markdown(source: str, sections: tuple[str, ...] | None = None) -> str:
    """A document of the repository as markup, without its title; no HTML of its own is let through.

    Links into the repository lose their target: the site does not hold those files. With
    `sections`, only what stands under these headings.
    """
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    source = re.sub(r"\A# .*\n", "", source.lstrip())
    if sections is not None:
        parts = re.split(r"^(?=## )", source, flags=re.M)
        source = "\n".join(p for p in parts if p.partition("\n")[0][3:].strip() in sections)
    html = str(parser.render(source))
    html = re.sub(r'<a href="(?!https://)[^"]*">(.*?)</a>', r"\1", html, flags=re.S)
    html = html.replace("<a href=", '<a rel="noopener" href=')
    html = html.replace("<pre>", '<pre tabindex="0">').replace("<thead>\n<tr>", "<thead><tr>")
    html = re.sub(r'<th(?: style="text-align:\w+")?>', '<th scope="col" class="t">', html)
    html = re.sub(r'<td(?: style="text-align:\w+")?>', '<td class="t">', html)
    html = re.sub(r"<img [^>]*>", "", html)
    number = 0

    def boxed(found: re.Match[str]) -> str:
        nonlocal number
        number += 1
        name = f'role="region" aria-label="Table {number}" tabindex="0"'
        return f'<div class="box" {name}>{found[0]}</div>'

    html = re.sub(r"<table>.*?</table>", boxed, html, flags=re.S)
    return f'<div class="prose">{html}</div>'


KINDS: Final = {
    "bc": "cloned",
    "rl": "learnt by playing",
    "bot": "program",
    "other": "other",
}
TIER_TEXT: Final = {
    "reported": "Somebody says so. Listed as claimed, never ranked.",
    "replayed": (
        "Every game was replayed here, key by key, without the agent, and came to the score. Who "
        "pressed the keys is not known from that."
    ),
    "audited": (
        "Replayed, and every key is what the published weights would have pressed: computed anew."
    ),
    "re-run": (
        "The weights were played by us, on seeds drawn after the submission from a secret whose "
        "hash had been published before."
    ),
}
_CHECKED: Final = {
    "P": "read in the paper",
    "C": "read in published code or data",
    "M": "measured again by us",
    "2": "second hand",
}
"""How a published figure was read: the codes of `references.json`."""

_NONE: Final = '<td data-value="">&ndash;</td>'
_BAR: Final = 120
"""Width of the bar of an interval, in units of its view box."""


@dataclass(frozen=True)
class Scale:
    """The common scale of a board's intervals: places go with the square root of the score.

    Scores go over four powers of ten with zero among them. A straight scale would show one agent,
    and a logarithmic one has no zero.
    """

    top: float

    @classmethod
    def of(cls, summaries: Iterable[Mapping[str, Any]]) -> Scale:
        """A scale that has room for all intervals."""
        tops = [(summary_ci95(one) or (0.0, float(one["mean_score"])))[1] for one in summaries]
        return cls(max([1.0, *tops]))

    def at(self, score: float) -> float:
        """The place of a score, 0 to 1."""
        return math.sqrt(min(1.0, max(0.0, score / self.top)))

    def ticks(self) -> list[float]:
        """Round scores, with room between them."""
        step = nice_step(self.top, 4)
        wanted = [step / 20, step / 4, *(step * i for i in range(1, 5))]
        found: list[float] = [0.0]
        for value in wanted:
            if value <= self.top and self.at(value) - self.at(found[-1]) >= 0.17:
                found.append(value)
        return found

    def bar(self, summary: Mapping[str, Any]) -> str:
        """An interval and its mean as a bar; the numbers stand beside it."""
        ends = ""
        if known := summary_ci95(summary):
            low, high = (_BAR * self.at(value) for value in known)
            width = max(1.0, high - low)
            ends = f'<rect x="{low:.1f}" y="3" width="{width:.1f}" height="6"/>'
        mean = _BAR * self.at(summary["mean_score"])
        return (
            f'<svg class="interval" viewBox="0 0 {_BAR} 12" preserveAspectRatio="none" '
            f'aria-hidden="true"><path d="M0 6H{_BAR}"/>'
            f'{ends}<rect class="at" x="{mean - 1:.1f}" y="0" width="2" height="12"/></svg>'
        )

    def axis(self) -> str:
        """The scale itself, for the column's head."""
        marks = "".join(
            f'<text x="{_BAR * self.at(value):.1f}" y="9" text-anchor="'
            f'{"start" if not value else "middle" if self.at(value) < 0.93 else "end"}">'
            f"{short(value)}</text>"
            for value in self.ticks()
        )
        return f'<svg class="scale" viewBox="0 0 {_BAR} 12" aria-hidden="true">{marks}</svg>'


def tier_list(id_prefix: str = "tier") -> str:
    """What each tier means, one tap away."""
    items = "".join(
        f'<div><dt id="{id_prefix}-{tier}">{_badge(tier)}</dt><dd>{TIER_TEXT[tier]}</dd></div>'
        for tier in TIERS
    )
    return (
        f'<details class="tiers"><summary>What the tiers mean</summary><dl>{items}</dl></details>'
    )


def filter_bar(rows: Sequence[Row]) -> str:
    """What boards of the page are filtered by; `filter.js` shows it."""
    kinds = "".join(
        f'<option value="{kind}">{name}</option>'
        for kind, name in KINDS.items()
        if any(row.kind == kind for row in rows)
    )
    tiers = "".join(f'<option value="{i}">{tier}</option>' for i, tier in enumerate(TIERS))
    sizes = "".join(f'<option value="{10**k}">{short(10.0**k)}</option>' for k in range(5, 9))
    return (
        '<details class="filters" hidden open><summary>Filter</summary>'
        '<form id="filters" role="search" aria-label="Filter the boards">'
        '<label>Find <input type="search" name="find" placeholder="agent, date, revision" '
        'autocomplete="off" spellcheck="false"></label>'
        f'<label>Kind <select name="kind"><option value="">any</option>{kinds}</select></label>'
        f'<label>Tier, at least <select name="tier">{tiers}</select></label>'
        '<label>Parameters, at most <select name="size"><option value="">any</option>'
        f"{sizes}</select></label>"
        '<label class="check"><input type="checkbox" name="gone" checked> Removed rows</label>'
        '<button type="button" data-reset>Clear</button>'
        '<output aria-live="polite"></output></form></details>'
    )


def board_table(name: str, rows: Sequence[Row], root: str = "", role: str | None = None) -> str:
    """The board of one protocol, best first; with `role`, of that role's games."""
    chosen = [(row, row.summary if role is None else row.roles[role]) for row in rows]
    scale = Scale.of(summary for _, summary in chosen)
    head = ["Rank", "<Agent", "Score", "95 % interval", "", "<Tier", "Of AutoAscend"]
    head += ["Progression", "Games" if role else "Depth", "Parameters"]
    head += ["Training FLOPs, as said", "Samples, as said", "<Date", "<Revision"]
    cells = "".join(
        f'<td class="drawn">{scale.axis()}</td>' if not title else heading(title, True)
        for title in head
    )
    body = "".join(_board_row(row, summary, scale, root, role) for row, summary in chosen)
    return (
        f'<div class="box board-box" role="region" aria-label="{text(name)}" tabindex="0">'
        f'<table class="sortable board"><caption class="unseen">{text(name)}</caption>'
        f"<thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _board_row(
    row: Row, summary: Mapping[str, Any], scale: Scale, root: str, role: str | None
) -> str:
    ends = summary_ci95(summary)
    low = "" if ends is None else ends[0]
    rank = f'<td data-value="{row.rank}">{row.rank}</td>' if row.rank else _NONE
    depth = summary["games"] if role else f"{summary['mean_depth']:.2f}"
    share = None if role else row.normalized
    size = f' data-size="{row.params}"' if row.params else ""
    claimed = row.claimed["mean_score"] if row.claimed and not role else None
    return (
        f'<tr data-kind="{text(row.kind)}" data-tier="{TIERS.index(row.tier)}" '
        f'data-status="{text(row.status)}"{size}{" class=gone" if row.status == "removed" else ""}>'
        f'{rank}<th scope="row"><a href="{root}{text(agent_path(row))}">{text(row.agent)}</a>'
        f'<small class="kind">{KINDS.get(row.kind, "other")}</small>{_status(row, claimed)}'
        f"{'' if role else _faults(row)}</th>"
        f'<td data-value="{summary["mean_score"]}">{number(summary["mean_score"])}</td>'
        f'<td data-value="{low}">{interval(ends)}</td>'
        f'<td class="drawn">{scale.bar(summary)}</td>'
        f'<td class="t" data-value="{TIERS.index(row.tier)}"><a class="quiet" '
        f'href="#tier-{row.tier}">{_badge(row.tier)}</a></td>'
        f"{_cell(share, lambda x: f'{100 * x:.1f} %')}"
        f"{_cell(summary.get('mean_progression'), lambda x: f'{100 * x:.2f} %')}"
        f"<td>{depth}</td>"
        f"{_cell(row.params, short)}"
        f"{_cell(row.flops, lambda x: f'{x:.1e}'.replace('e+', 'e'))}"
        f"{_cell(row.samples, _samples)}"
        f'<td class="t">{text(row.date or "–")}</td>'
        f'<td class="t mono" title="{text(row.revision)}">{text(row.revision[:8] or "–")}</td>'
        "</tr>"
    )


def _status(row: Row, claimed: float | None) -> str:
    if row.status == "removed":
        return f'<span class="why"><b>Removed:</b> {text(row.reason)}</span>'
    if row.status == "altered":
        return f'<span class="why"><b>Altered:</b> {text(row.reason)}</span>'
    if row.status == "rescored":
        said = f"; first {number(claimed)}" if claimed is not None else ""
        return f'<span class="why"><b>Rescored{said}:</b> {text(row.reason)}</span>'
    if row.reason:
        return f'<span class="why">{text(row.reason)}</span>'
    return ""


def _faults(row: Row) -> str:
    """Games that were not played to an end; the agent's page says which, and why."""
    lines = fault_lines(row.summary.get("faults", ()), row.summary["episodes"])
    return "".join(
        f'<span class="why" title="{text(line)}">{text(line.partition(" (")[0])}</span>'
        for line in lines
    )


def _cell(value: Any, shown: Callable[[Any], str]) -> str:
    return _NONE if value is None else f'<td data-value="{value}">{shown(value)}</td>'


def _samples(value: float) -> str:
    return f"{value / 1e6:,.1f}M" if value >= 1e6 else f"{value:,.0f}"


def _badge(tier: str) -> str:
    return f'<span class="tier tier-{TIERS.index(tier)}">{tier}</span>'


def agent_path(row: Row) -> str:
    """The page of a row, from the site's root."""
    return f"agents/{row.id}.html"


def reference_table(references: Sequence[Reference]) -> str:
    """Published figures, by source and protocol of their own; none is ranked."""
    groups: dict[tuple[str, ...], list[Reference]] = {}
    for one in references:
        groups.setdefault((one.source, one.url, one.protocol, one.checked), []).append(one)
    body = []
    for (_, _, protocol, checked), group in groups.items():
        how = ", ".join(_CHECKED.get(code, code) for code in checked.split(", ") if code)
        body.append(
            f'<tr class="group"><th colspan="4" scope="colgroup">{_source(group[0])}'
            f"<small>{text(protocol)}{f' ({text(how)})' if how else ''}</small></th></tr>"
        )
        body += [
            f'<tr><th scope="row">{text(one.agent)}</th><td class="t">{text(one.metric)}</td>'
            f"<td>{number(one.value)}{f' {text(one.interval)}' if one.interval else ''}</td>"
            f"<td>{text(one.games or '–')}</td></tr>"
            for one in group
        ]
    return table("Published figures", ("<Agent", "<Metric", "Figure", "Games"), body)


def _source(one: Reference) -> str:
    if not one.url.startswith("https://"):
        return text(one.source)
    return f'<a href="{text(one.url)}" rel="noopener">{text(one.source)}</a>'


def log_table(lines: Sequence[LogLine], pages: Mapping[str, str]) -> str:
    """The log, newest first. `pages` leads from the id of a row to its page."""
    body = []
    for line in reversed(lines):
        who = text(line.id or "–")
        if line.id in pages:
            who = f'<a href="{text(pages[line.id])}">{who}</a>'
        facts = [
            (name.replace("_", " "), value)
            for name, value in line.facts.items()
            if _is_plain(value) and name not in ("agent", "protocol")  # the row's id names them
        ]
        said = "".join(f"<div><dt>{text(n)}</dt><dd>{text(_plain(v))}</dd></div>" for n, v in facts)
        body.append(
            f'<tr><td>{line.number}</td><td class="t">{text(line.date.replace("T", " "))}</td>'
            f'<td class="t"><span class="event event-{text(line.event)}">{text(line.event)}</span>'
            f'</td><td class="t long">{who}</td><td class="t long">{text(line.reason)}</td>'
            f'<td class="t long">{f"<dl class=pairs>{said}</dl>" if said else ""}</td>'
            f'<td class="t mono" title="{text(line.sha256)}">{text(line.sha256[:10])}</td></tr>'
        )
    head = ("Line", "<Date (UTC)", "<Event", "<Row", "<Reason", "<Facts", "<SHA-256")
    return table("The log, newest first", head, body, sortable=True)


def _is_plain(value: object) -> bool:
    return isinstance(value, (str, int, float, bool)) and 0 < len(str(value)) <= 128


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.6g}"
    shown = str(value)
    return f"{shown[:12]}…" if re.fullmatch(r"[0-9a-f]{40,}", shown) else shown
