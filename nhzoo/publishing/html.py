"""Pages from templates: what is put into one is text, and only Markup is markup."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from nhzoo.runtime.console import clean
from nhzoo.runtime.system import PACKAGE

TEMPLATES: Final = PACKAGE / "publishing" / "templates"


def environment(*folders: Path) -> Environment:
    """An environment for templates of `folders` and of this room; a name not given is an error."""
    env = Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    env.filters |= {"number": number, "interval": interval, "count": count}
    return env


def _finalize(value: object) -> str:
    """What goes into a page: markup as it is, anything else as text without controls."""
    return value if isinstance(value, Markup) else clean(str(value))


@cache
def _templates() -> Environment:
    return environment()


def render(template: str, **values: Any) -> str:
    """A template of this room, filled in."""
    return _templates().get_template(template).render(values)


def asset(name: str) -> Markup:
    """A style sheet or script of the folder `assets`."""
    return Markup((PACKAGE / "publishing" / "assets" / name).read_text("utf-8"))


def single_file(*scripts: str, connect: str = "") -> dict[str, str]:
    """What `page.html` needs to be one file: style, script, and a policy that allows no others.

    `scripts` are assets; `connect` names hosts that the page may ask, by default none.
    """
    script = Markup("").join(map(asset, scripts))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    policy += f"connect-src {connect}; " if connect else ""
    policy += f"script-src 'sha256-{digest}'"
    return {"policy": policy, "style": asset("report.css"), "script": script}


def text(value: object) -> Markup:
    """Anything as the text of an element or of a quoted attribute: no markup, no controls."""
    return escape(clean(str(value)))


def number(value: float) -> str:
    """1,234 or 56.7 or 8.91: fewer decimals the larger it is, none when it is whole."""
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:,.{0 if abs(value) >= 1_000 else 1 if abs(value) >= 10 else 2}f}"


def interval(ends: tuple[float, float] | None) -> str:
    """The ends of an interval, "12.3 to 45.6"; a dash where there is none."""
    return "–" if ends is None else f"{number(ends[0])} to {number(ends[1])}"


def count(amount: int, noun: str, nouns: str = "") -> str:
    """An amount and its noun: "1 game", "2 games", "0 crashes"."""
    return f"{amount:,} {noun if amount == 1 else nouns or noun + 's'}"
