"""A page for the Space that plays any entry's recording: `play.html?entry=org/name`.

It fetches `replay.cast` from the hub and from nowhere else; what comes is shown as text only.
"""

from __future__ import annotations

import base64
import hashlib
from string import Template
from typing import Final

from nhzoo.hub.refs import SITE
from nhzoo.publishing.html import asset, text

NAME: Final = "play.html"


def play_page(hub: str = SITE) -> str:
    """The page. It asks `hub` alone, and where that keeps its files."""
    script = asset("player.js") + asset("play.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    sources = f"{hub} https://*.hf.co https://*.huggingface.co"
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; connect-src {sources}; "
        f"script-src 'sha256-{digest}'"
    )
    player = Template(asset("player.html")).substitute(choices="", about="")
    return Template(asset("play.html")).substitute(
        policy=text(policy), style=asset("report.css"), player=player, hub=text(hub), script=script
    )
