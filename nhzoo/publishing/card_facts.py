"""The facts of a model card: read from an entry's files and its results."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nhzoo.envs.protocols import Protocol, get_protocol
from nhzoo.errors import InputError
from nhzoo.evaluation import results
from nhzoo.evaluation.statistics import ends_text
from nhzoo.hub.repos import ORGANISATION
from nhzoo.publishing.learning_curve import Curve, read_curve
from nhzoo.runtime import files

KEPT = "<!-- What stands below this line is kept when the card is written again. -->"


@dataclass(frozen=True)
class Score:
    """What the games of one protocol came to, computed from the games themselves."""

    protocol: Protocol
    result: Mapping[str, Any]  # what result.json holds
    summary: Mapping[str, Any]
    share: str  # of AutoAscend's mean score, "" where there is none

    @property
    def all_games(self) -> bool:
        """Whether every game of the protocol was played."""
        return bool(self.summary["episodes"] == self.protocol.games)


@dataclass(frozen=True)
class Replay:
    """The recording beside the card: which game it is, in words."""

    game: int
    protocol: str
    end: str


@dataclass(frozen=True)
class Facts:
    """What a card is written from. `repo` is org/name on the hub."""

    name: str
    repo: str
    config: Mapping[str, Any]
    scores: tuple[Score, ...] = ()
    curve: Curve | None = None
    replay: Replay | None = None
    kept: str = ""
    license: str = "apache-2.0"


def read_facts(folder: Path, repo: str | None = None, played: Sequence[Path] = ()) -> Facts:
    """The facts of an entry, and of result folders of it (by default, those in `results/`).

    InputError for a result that is not of these weights.
    """
    name = folder.resolve().name
    config = files.read_json(files.inside(folder, "config.json"))
    inner = sorted((folder / "results").glob("*/result.json"))
    with files.open_regular(files.inside(folder, "model.safetensors")) as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    scores: dict[str, Score] = {}
    for result in [*(path.parent for path in inner), *played]:
        score = read_score(result, weights)
        scores[score.protocol.id] = score
    text = read_card(folder)
    license = re.match(r"---\n(?s:.*?)^license: ([\w.-]{1,40})$", text, re.M)
    return Facts(
        name,
        repo or f"{ORGANISATION}/{name}",
        config,
        tuple(sorted(scores.values(), key=lambda score: -score.protocol.games)),
        read_curve(files.inside(folder, "curve.csv")),
        _read_replay(files.inside(folder, "replay.cast")),
        kept_text(text),
        license[1] if license else Facts.license,
    )


def read_card(folder: Path) -> str:
    """A folder's README.md; "" when there is none."""
    readme = files.inside(folder, "README.md")
    if not readme.is_file():
        return ""
    return files.read_bounded(readme, files.MEGABYTE).decode("utf-8", "replace")


def kept_text(card: str) -> str:
    """What of a card is its author's own: all below the line, or all, where there is no line."""
    _, line, below = card.partition(KEPT)
    return (below if line else re.sub(r"\A---\n(?s:.*?)^---$", "", card, flags=re.M)).strip()


def read_score(folder: Path, weights: str) -> Score:
    """What the games of a result folder came to; InputError when they are of other weights."""
    from nhzoo.evaluation.expert import normalize_rows

    result, protocol, rows = results.read_result(folder)
    if result.get("weights_sha256") != weights:
        raise InputError(f"{folder}: is of other weights than this entry's; evaluate it anew")
    results.need_score(rows, folder)
    ratio = normalize_rows(rows).ratio
    share = f"{100 * ratio.estimate:.1f} % {ends_text(ratio.ends, '.1f', 100)}" if ratio else ""
    return Score(protocol, result, results.summarize(rows), share)


def _read_replay(path: Path) -> Replay | None:
    if not path.is_file():
        return None
    with files.open_regular(path) as file:
        line = file.readline(files.MEGABYTE)
    header = files.parse_json(line, str(path))
    about = files.as_object(files.as_object(header).get("nhzoo"))
    game, protocol = about.get("game"), about.get("protocol")
    if not isinstance(game, int) or not isinstance(protocol, str):
        raise InputError(f"{path}: is no recording of nhzoo; delete it")
    return Replay(game, get_protocol(protocol).id, str(about.get("end", "")))
