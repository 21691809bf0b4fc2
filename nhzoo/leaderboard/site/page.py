"""What all pages of the site share: the frame, the navigation, links that work from a disk.

Every page is text, a style sheet and scripts beside it; none asks anything of another host. What
comes from outside is text in a page, never markup.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from string import Template
from typing import Final

from nhzoo import __version__
from nhzoo.hub.refs import ORGANISATION
from nhzoo.hub.refs import SITE as HUB
from nhzoo.publishing.html import asset, text

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
