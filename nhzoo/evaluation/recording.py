"""Recording: an agent's games become a trace set to train on.

Game i of a recording has the seeds of "nhzoo:data:<name>:<i>": no protocol has these, so what is
learnt from the set can be measured on any. Games are played like an evaluation's, then replayed
for the hashes of their frames, and enter the set together when all are done. What is unfinished
waits in `.recording/`.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Container
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from nhzoo.agents.base import Agent, AgentTraits
from nhzoo.agents.loading import load_with_traits
from nhzoo.agents.takeover import Takeover, TakeoverAgent
from nhzoo.data.traces import HASH_EVERY, MAX_KEYS, Trace, frame_hash, is_trace_set, replay
from nhzoo.envs.actions import TTY
from nhzoo.envs.game import Episode, Game
from nhzoo.envs.protocols import Protocol, get_protocol
from nhzoo.errors import CheckFailed, InputError
from nhzoo.evaluation import evaluator, results
from nhzoo.evaluation.evaluator import Progress
from nhzoo.evaluation.playing import LOOPED
from nhzoo.evaluation.results import Row
from nhzoo.runtime import files
from nhzoo.runtime.pool import OneByOne, run_items

EXPERT_SEEDS = range(1_000_000, 3_000_000)
"""Core seeds of expert games recorded elsewhere; no recording may have them."""

MAX_EPISODES = 100_000


@dataclass
class RecordReport:
    """The result of a recording. `games` counts all of it that the set holds, `played` this call's.

    `without_keys` are games in which not one key was pressed: the agent or NLE failed at once. They
    cannot be in a trace set. Games that were `voided` are left out as well: nobody is to learn from
    them. `broken` counts games that the agent's failure ended; `failures` the games of this call by
    the reason of such an end. `capped` and `looped` count games that `max_steps` and `max_loop`
    ended, `unused` those that ended before a takeover; `mean_score` is over those recorded without
    any of this.
    """

    folder: Path
    name: str
    games: int = 0
    played: int = 0
    keys: int = 0
    validation: int = 0
    broken: int = 0
    capped: int = 0
    looped: int = 0
    unused: int = 0
    mean_score: float | None = None
    without_keys: list[int] = field(default_factory=list)
    voided: list[int] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)


def record(
    agent: str | Path | Agent,
    protocol: str | Protocol,
    episodes: int,
    folder: str | Path,
    name: str | None = None,
    workers: int | None = None,
    held_out: float = 0.1,
    progress: Callable[[str, Progress], None] = lambda stage, progress: None,
    max_steps: int | None = None,
    max_loop: int | None = None,
    after: str | Path | Agent | None = None,
    takeover: Takeover | None = None,
) -> RecordReport:
    """Record games 0 to `episodes` - 1 of an agent into the trace set `name`.

    Character and limits are the protocol's, seeds those of the recording (`name` is by default the
    folder's). Games that the set already holds are not played again, and rows of other origin are
    kept as they are; run again to resume after an interruption. About `held_out` of the games are
    of the split "validation", decided by the game's name alone. Games that are played now end after
    `max_steps`, or in a loop of `max_loop` (see `Protocol`), if these are given, and say so in
    their lines; those that are there stay as they are. With `after`, that agent begins each game
    and `agent` takes over (see `Takeover`): a line says from which key on it is to be learnt. Games
    that end before are of the split "unused".
    `progress` is told the stage, "play" or "replay", and how far it is. InputError when the set
    holds other games of these names, or games of this recording by another agent, or another
    version of it, or under another protocol.
    """
    folder = Path(folder)
    name = folder.resolve().name if name is None else name
    if not files.is_plain_name(name, 64):
        raise InputError(f"recording {name!r}: a name is of letters, digits, '.', '_' and '-'")
    if not 1 <= episodes <= MAX_EPISODES:
        raise InputError(
            f"recording {name}: 1 to {MAX_EPISODES:,} episodes can be recorded, not {episodes:,}"
        )
    if not 0 <= held_out <= 1:
        raise InputError(f"recording {name}: held_out is a share from 0 to 1, not {held_out}")
    base = get_protocol(protocol)
    if max_steps is not None and not 1 <= max_steps < base.step_cap:
        raise InputError(
            f"recording {name}: max_steps {max_steps:,}: give 1 to {base.step_cap - 1:,}, or none: "
            f"{base.id} itself stops a game after {base.step_cap:,} steps"
        )
    if max_loop is not None and not _LEAST_LOOP <= max_loop < base.step_cap:
        raise InputError(
            f"recording {name}: max_loop {max_loop:,}: give {_LEAST_LOOP} to "
            f"{base.step_cap - 1:,}, or none"
        )
    limits: dict[str, Any] = {"max_steps": max_steps, "max_loop": max_loop}
    games = replace(base, id=f"data:{name}", games=episodes, max_loop=max_loop)
    games = replace(games, step_cap=max_steps or base.step_cap)
    for index in range(episodes):
        spec = games.game(index)
        if spec.core in EXPERT_SEEDS or spec.disp in EXPERT_SEEDS:
            raise InputError(f"recording {name}: game {index} has an expert game's seed; rename it")
    player, about = load_with_traits(agent)
    label = _label(about)
    if after is not None:
        first, about_first = load_with_traits(after)
        takeover = takeover or Takeover()
        player = TakeoverAgent(first, player, takeover)
        limits |= {"after": _label(about_first), "takeover": asdict(takeover)}
    origin = {"name": name, "agent": label, "protocol": base.id}
    work = folder / ".recording"
    if folder.exists() and not (is_trace_set(folder) or work.exists()) and any(folder.iterdir()):
        raise InputError(f"{folder}: holds something that is no trace set; give another --out")
    with files.lock(folder):
        return _record(player, games, folder, origin, held_out, workers, progress, limits)


def _record(
    player: Agent,
    games: Protocol,
    folder: Path,
    origin: dict[str, str],
    held_out: float,
    workers: int | None,
    progress: Callable[[str, Progress], None],
    limits: dict[str, Any],
) -> RecordReport:
    name, episodes, work = origin["name"], games.games, folder / ".recording"
    files.sweep(folder)
    files.sweep(folder / "keys")
    own, others = _existing(folder, games, origin, held_out, limits)
    missing = [index for index in range(episodes) if index not in own]
    report = RecordReport(folder, name)
    if missing:
        _open_work(work, origin | {"held_out": held_out} | limits)
        skip = [index for index in range(episodes) if index in own]
        done = evaluator.evaluate(
            player,
            games,
            episodes,
            workers,
            work / "games",
            progress=lambda state: progress("play", state),
            skip=skip,
        )
        rows = {row["index"]: row for row in done.episodes if row["index"] in set(missing)}
        ends = [row | {"death": row["cause"]} for row in rows.values()]
        report.failures = dict(Counter(row["cause"] for row in ends if _broken(row)))
        report.without_keys = [index for index, row in rows.items() if not row["keys"]]
        report.voided = [index for index, row in rows.items() if _voided(row)]
        rows = {index: row for index, row in rows.items() if row["keys"] and not _voided(row)}
        found = _replayed(work, games, rows, workers, progress)
        for index, row in rows.items():
            line = _line(games, row, found[index], origin, _split(name, index, held_out))
            line |= {part: limit for part, limit in limits.items() if limit is not None}
            if limits.get("takeover"):
                line |= _taken_over(games, row, Takeover(**limits["takeover"]))
            own[index] = files.dump_json(line, indent=None)
            keys = results.read_trace(work / "games", index)
            files.atomic_write(folder / "keys" / f"{index}.xz", files.compress_xz(keys))
        report.played = len(rows)
        if rows:
            lines = [*others, *(own[index] for index in sorted(own))]
            files.atomic_write(folder / "games.jsonl", b"".join(lines))
    _remove_work(work, own)
    return _summed(report, own)


def _label(about: AgentTraits) -> str:
    """How lines name an agent: name@revision."""
    return f"{about.name}@{about.revision}" if about.revision else about.name


def _taken_over(games: Protocol, row: Row, takeover: Takeover) -> dict[str, Any]:
    """From which key on a game is the expert's; it is of no use where it ended before."""
    begin = takeover.begin(float(games.uniforms(row["index"]).random()))
    dismissed = row["keys"] - row["steps"]  # NLE's, of the opening text
    if row["steps"] <= begin:
        return {"expert_from": row["keys"], "split": "unused"}
    return {"expert_from": dismissed + begin}


def _split(name: str, index: int, held_out: float) -> str:
    """The split of a game, decided before it is played: by its name and nothing that happens."""
    digest = hashlib.sha256(f"nhzoo:data:{name}:{index}:split".encode()).digest()
    return "validation" if int.from_bytes(digest[:8], "big") < held_out * 2**64 else "train"


def _existing(
    folder: Path,
    games: Protocol,
    origin: dict[str, str],
    held_out: float,
    limits: dict[str, int | None],
) -> tuple[dict[int, bytes], list[bytes]]:
    """The lines of games.jsonl: this recording's by index, and those of other origin in order.

    Games whose keys are lost are left out, to be played again.
    """
    path = folder / "games.jsonl"
    own: dict[int, bytes] = {}
    others: list[bytes] = []
    if not path.exists():
        return own, others
    names = {str(index) for index in range(games.games)}
    for number, line in enumerate(files.read_bounded(path, 64 * files.MEGABYTE).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        row = files.parse_json(line, where)
        index = _own_index(row, games)
        if index is not None:
            for part in ("agent", "protocol"):
                if row.get(part) != origin[part]:
                    raise InputError(
                        f"{where}: a game of recording {origin['name']} by another {part} "
                        f"({row.get(part)!r}, now {origin[part]!r}); give another folder"
                    )
            lacking = [part for part in _SUMMED if part not in row]
            if lacking:
                raise InputError(f"{where}: field {lacking[0]!r} is missing; delete the line")
            if row["split"] not in ("unused", _split(origin["name"], index, held_out)):
                raise InputError(
                    f"{where}: was recorded with another share of held-out games; give the same "
                    "--held-out"
                )
            if _has_keys(folder, index, row["sha256"]):
                own[index] = line + b"\n"
            for part, limit in limits.items():
                if index not in own and row.get(part) != limit:
                    raise InputError(
                        f"{where}: the keys of game {index} are lost, and it was recorded "
                        f"{_limit(part, row.get(part))}; record it again like that first"
                    )
        elif isinstance(row, dict) and str(row.get("game")) in names:
            raise InputError(
                f"{where}: the set holds another game {row['game']}; give another folder"
            )
        else:
            others.append(line + b"\n")
    return own, others


def _limit(part: str, limit: object) -> str:
    option = "--" + part.replace("_", "-")
    return f"without {option}" if limit is None else f"with {option} {limit}"


def _has_keys(folder: Path, index: int, sha256: object) -> bool:
    """Whether the keys of a recorded game are there; a game that lost them is played again."""
    try:
        data = files.read_bounded(folder / "keys" / f"{index}.xz", 16 * files.MEGABYTE)
        keys = files.decompress_xz(data, MAX_KEYS, str(index))
    except InputError:
        return False
    return hashlib.sha256(keys).hexdigest() == sha256


def _own_index(row: Any, games: Protocol) -> int | None:
    """Which game of this recording a row is of; also of those beyond the number asked for."""
    if not isinstance(row, dict) or not isinstance(row.get("game"), int):
        return None
    index, seeds = row["game"], row.get("seeds")
    if index < 0 or isinstance(index, bool) or not isinstance(seeds, dict):
        return None
    spec = replace(games, games=index + 1).game(index)
    return index if (seeds.get("core"), seeds.get("disp")) == (spec.core, spec.disp) else None


def _open_work(work: Path, settings: dict[str, Any]) -> None:
    """Begin an unfinished recording, or make sure that the one that is there is the same."""
    path = work / "recording.json"
    if work.exists() and not path.exists():
        shutil.rmtree(work)  # its removal was cut short
    if not path.exists():
        files.atomic_write(path, files.dump_json(settings))
        return
    files.sweep(work)
    before = files.read_json(path)
    for part, value in settings.items():
        if before.get(part) != value:
            raise InputError(
                f"{work}: an unfinished recording with another {part} ({before.get(part)!r}, now "
                f"{value!r}); finish that one first, or delete the folder"
            )


def _remove_work(work: Path, own: Container[int]) -> None:
    """Unless it holds games that are not in the set yet: more may have been asked for before.

    The settings go first: without them the rest is waste.
    """
    log = work / "games" / "episodes.jsonl"
    if log.exists() and (work / "recording.json").exists():
        whole = files.read_bounded(log, 64 * files.MEGABYTE)
        for line in whole[: whole.rfind(b"\n") + 1].splitlines():
            row = files.parse_json(line, str(log))
            if row["keys"] and not _voided(row) and row["index"] not in own:
                return
    (work / "recording.json").unlink(missing_ok=True)
    if work.exists():
        shutil.rmtree(work)


def _voided(row: Row) -> bool:
    return bool(row["end_status"] == "voided")


def _replayed(
    work: Path,
    games: Protocol,
    rows: dict[int, Row],
    workers: int | None,
    progress: Callable[[str, Progress], None],
) -> dict[int, dict[str, Any]]:
    """Role and frame hashes of each game, found by replaying it; each is kept when it is known."""
    found: dict[int, dict[str, Any]] = {}
    for index, row in rows.items():
        path = work / "replayed" / f"{index}.json"
        if path.exists():
            known = files.read_json(path, 16 * files.MEGABYTE)
            if known.get("sha256") == row["sha256"]:
                found[index] = known
    if (work / "replayed").exists():
        files.sweep(work / "replayed")
    state = Progress(len(found), len(rows), 0, 0.0)
    began = time.monotonic()
    progress("replay", state)
    items = [(index, row) for index, row in rows.items() if index not in found]
    args = (work / "games", games)
    for key, result in run_items(HashTask, args, items, workers):
        if isinstance(result, str):
            raise CheckFailed(f"game {key}: replayed, {result}")
        found[key] = result
        files.atomic_write(work / "replayed" / f"{key}.json", files.dump_json(result))
        state.done += 1
        state.steps += rows[key]["steps"]
        state.seconds = time.monotonic() - began
        progress("replay", state)
    return found


class HashTask(OneByOne):
    """Replays games that were played; an item is a row of an evaluation."""

    def __init__(self, folder: Path, games: Protocol) -> None:
        self._folder, self._games = folder, games
        self._game = Game((*TTY, "glyphs"))

    def work(self, item: Row) -> dict[str, Any]:
        """A game's sha256, role and frame_hashes; Diverged when it does not go as played."""
        index, row = item["index"], item
        spec = self._games.game(index)
        Episode(self._game).start(spec, 1, 1)
        role = self._game.role
        trace = Trace(
            game=str(index),
            spec=spec,
            length=row["keys"],
            sha256=row["sha256"],
            score=row["score"],
            split="",
            frame_hashes=(),
            path=results.trace_path(self._folder, index),
            end_status=row["end_status"],
        )
        hashes = [
            frame_hash(frame)
            for step, (frame, _) in enumerate(replay(trace, self._game))
            if step % HASH_EVERY == 0 and not self._game.over
        ]
        return {"sha256": row["sha256"], "role": role, "frame_hashes": hashes}


def _line(
    games: Protocol, row: Row, found: dict[str, Any], origin: dict[str, str], split: str
) -> dict[str, Any]:
    """One row of games.jsonl."""
    spec = games.game(row["index"])
    return {
        "game": row["index"],
        "seeds": {"core": spec.core, "disp": spec.disp, "reseed": False, "lgen": spec.lgen},
        "character": spec.character,
        "playername": spec.name,
        "fix_moon_phase": True,
        "ubirthday": spec.ubirthday,
        "keys": row["keys"],
        "sha256": row["sha256"],
        "env_steps": row["steps"],
        "env_score": row["score"],
        "turns": row["turns"],
        "maxlvl": row["max_depth"],
        "role": found["role"],
        "end_status": row["end_status"],
        "death": row["cause"],
        "agent": origin["agent"],
        "protocol": origin["protocol"],
        "split": split,
        "frame_hashes": found["frame_hashes"],
    }


def _broken(row: dict[str, Any]) -> bool:
    return row["end_status"] in _BROKEN and row["death"] not in ("", LOOPED)


def _summed(report: RecordReport, own: dict[int, bytes]) -> RecordReport:
    rows = [files.parse_json(line, "games.jsonl") for line in own.values()]
    report.games = len(rows)
    report.keys = sum(row["keys"] for row in rows)
    report.validation = sum(row["split"] == "validation" for row in rows)
    report.broken = sum(_broken(row) for row in rows)
    limited = [row for row in rows if any(row.get(part) is not None for part in _LIMITS)]
    report.capped = sum(
        row["end_status"] == "step_cap" and row.get("max_steps") is not None for row in limited
    )
    report.looped = sum(row["death"] == LOOPED for row in limited)
    report.unused = sum(row["split"] == "unused" for row in rows)
    scores = [row["env_score"] for row in rows if row not in limited]
    report.mean_score = sum(scores) / len(scores) if scores else None
    return report


_LIMITS = ("max_steps", "max_loop", "takeover")
_LEAST_LOOP = 10
_BROKEN = ("stalled", "crashed")
_SUMMED = ("keys", "sha256", "split", "death", "end_status", "env_score")
