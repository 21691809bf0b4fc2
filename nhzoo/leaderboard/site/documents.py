"""Documents of the repository as parts of pages: Markdown, rendered by rules of the site's own.

No HTML in a document is let through, and no image; a link leads to https or nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup

_TITLE: Final = 3  # tokens of a heading: its start, its text, its end


def from_markdown(source: str, sections: tuple[str, ...] | None = None) -> Markup:
    """A document as markup, without its title.

    Links into the repository lose their target: the site does not hold those files. With
    `sections`, only what stands under these headings.
    """
    parser = MarkdownIt("commonmark", {"html": False}, renderer_cls=_Renderer).enable("table")
    tokens = parser.parse(source)
    if tokens and tokens[0].type == "heading_open" and tokens[0].tag == "h1":
        tokens = tokens[_TITLE:]
    if sections is not None:
        tokens = _under(tokens, sections)
    written = parser.renderer.render(tokens, parser.options, {"tables": 0, "links": []})
    return Markup('<div class="prose">{}</div>').format(Markup(written))


def _under(tokens: Sequence[Token], sections: tuple[str, ...]) -> list[Token]:
    """The tokens of some sections, their headings included."""
    kept, inside = [], False
    for i, token in enumerate(tokens):
        if token.type == "heading_open" and token.tag == "h2":
            inside = tokens[i + 1].content in sections
        if inside:
            kept.append(token)
    return kept


class _Renderer(RendererHTML):
    """The rules: each is named for the token that it renders."""

    def link_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        leads_out = str(tokens[idx].attrGet("href")).startswith("https://")
        env["links"].append(leads_out)
        if not leads_out:
            return ""
        tokens[idx].attrSet("rel", "noopener")
        return self.renderToken(tokens, idx, options, env)

    def link_close(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        return self.renderToken(tokens, idx, options, env) if env["links"].pop() else ""

    def image(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        return ""

    def fence(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        return _scrolls(super().fence(tokens, idx, options, env))

    def code_block(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        return _scrolls(super().code_block(tokens, idx, options, env))

    def table_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        env["tables"] += 1
        name = f'role="region" aria-label="Table {env["tables"]}" tabindex="0"'
        return f'<div class="box" {name}>{self.renderToken(tokens, idx, options, env)}'

    def table_close(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        return f"{self.renderToken(tokens, idx, options, env)}</div>"

    def th_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        return '<th scope="col" class="t">'

    def td_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        return '<td class="t">'


def _scrolls(block: str) -> str:
    """A block of code that the keyboard reaches, since it may be wider than the page."""
    return block.replace("<pre>", '<pre tabindex="0">', 1)
