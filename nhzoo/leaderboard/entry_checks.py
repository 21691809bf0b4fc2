"""Checks of a submission's weights: against all other entries, and against its claims."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nhzoo.agents import registry
from nhzoo.errors import InputError
from nhzoo.hub import client
from nhzoo.hub.repos import organisation
from nhzoo.leaderboard import kinship
from nhzoo.leaderboard.board import BoardRow
from nhzoo.leaderboard.claims import Candidate, holds
from nhzoo.leaderboard.kinship import Likeness
from nhzoo.leaderboard.submission import ENTRY_FOLDER, read_manifest
from nhzoo.policy.checkpoint import Entry, load_entry
from nhzoo.policy.config import PolicyConfig
from nhzoo.publishing.learning_curve import read_curve
from nhzoo.runtime import files
from nhzoo.training.rl.config import ImpalaConfig, run_flops

LEAST_SEEN = 0.5
"""Share of an update's frames that have to be samples: rows are padded where a game ends."""


@dataclass(frozen=True)
class Known:
    """An entry that was there before. `row` is None of one of the zoo's that has no row."""

    name: str
    entry: Entry
    row: BoardRow | None


def known_entries(
    candidate: Candidate, board: Sequence[BoardRow], agents: Path | None
) -> tuple[list[Known], list[str]]:
    """The zoo's entries and those of the board's rows, but for the subject's own; and notes."""
    found: dict[Path, Known] = {}
    notes: list[str] = []
    for name, folder, row in _folders(candidate, board, agents):
        try:
            place = registry.pull_entry(folder).folder if isinstance(folder, str) else folder
            if place.resolve() not in found:
                found[place.resolve()] = Known(name, load_entry(place), row)
        except InputError as error:
            notes.append(f"not held against the weights of {name}: {error}")
    return list(found.values()), notes


def is_same_author(candidate: Candidate, row: BoardRow) -> bool:
    """Whether a row is ours and so is the subject, or both came from one account."""
    ours = row.folder.parent.parent.name == "results"
    if candidate.manifest is None:
        return ours
    return not ours and bool(row.author) and row.author == candidate.author


def _folders(
    candidate: Candidate, board: Sequence[BoardRow], agents: Path | None
) -> Iterator[tuple[str, Path | str, BoardRow | None]]:
    """Name, place (a folder, or a reference on the hub) and row of what was there before."""
    for row in board:
        own = row.agent == candidate.agent and is_same_author(candidate, row)
        if row.id == candidate.id or own or not row.sha256:
            continue
        if row.entry is not None:
            yield row.id, row.entry, row
            continue
        try:
            pointer = read_manifest(row.folder).entry
        except InputError:
            continue
        if pointer is not None and pointer.source != ENTRY_FOLDER:
            yield row.id, pointer.source, row
    for config in sorted(agents.glob("*/config.json")) if agents else ():
        name = config.parent.name
        if name == candidate.agent and (
            candidate.manifest is None or holds(config.parent, candidate)
        ):
            continue  # what is submitted, in the checkout where it was made
        yield name, config.parent, next((r for r in board if r.agent == name), None)


def identity(
    entry: Entry, known: Sequence[Known], games: Sequence[kinship.Screens] = ()
) -> tuple[list[str], list[str]]:
    """Problems and notes: of weights that are another entry's, or made of them and do not say so.

    An agent may go on from another's weights where `training.start` names these by their hash, and
    they are the ones that it is most like.
    """
    alike: list[tuple[Likeness, Known]] = []
    for other in known:
        if entry.revision in kinship.lineage(other.entry.config):
            continue  # that one says it went on from this
        found = kinship.compare(entry.policy, other.entry.policy)
        if games:
            logits = kinship.like_logits(entry.policy, other.entry.policy, games)
            found = replace(found, logits=logits)
        if found.kin:
            alike.append((found, other))
    copies = [(found, other) for found, other in alike if found.same]
    if copies:
        found, other = copies[0]
        how = "" if found.identical else f", but for a little ({found.words})"
        return [f"its weights are those of {other.name}{how}"], []
    if not alike:
        return [], []
    found, other = max(alike, key=lambda one: (one[0].correlation, one[0].units))
    if other.entry.revision in _ancestors(entry, known):
        return [], [f"went on from the weights of {other.name}, as it says"]
    return [
        f"its weights were made of those of {other.name} ({found.words}), and its config.json does "
        "not name these as its training.start"
    ], []


def on_the_hub(candidate: Candidate, entry: Entry, most: int = 20) -> tuple[list[Known], list[str]]:
    """Entries of the same size that the hub lists as nhzoo's; and notes.

    Who was first there is not known from that: only those of the zoo's own organisation are held
    against a submission, the others are noted.
    """
    source = (
        candidate.manifest.entry.source if candidate.manifest and candidate.manifest.entry else ""
    )
    own = source.removeprefix("hf://").partition("@")[0]
    params, found, notes = entry.config["params"], [], []
    try:
        listed = [one for one in client.list_entries() if one.params == params and one.repo != own]
    except InputError as error:
        return [], [f"not held against entries on the hub: {error}"]
    for one in listed[:most]:
        name = f"hf://{one.repo}"
        try:
            known = Known(name, load_entry(registry.pull_entry(name).folder), None)
        except InputError as error:
            notes.append(f"not held against the weights of {name}: {error}")
            continue
        if one.repo.partition("/")[0] == organisation():
            found.append(known)
        elif identity(entry, [known])[0]:
            notes.append(f"{name} has these weights, or such made of them: who was first?")
    if len(listed) > most:
        notes.append(f"of {len(listed)} entries of this size on the hub {most} were looked at")
    return found, notes


def _ancestors(entry: Entry, known: Sequence[Known]) -> set[str]:
    """The weights that an entry says it went on from, and those that these did, where known."""
    configs = {other.entry.revision: other.entry.config for other in known}
    found, new = set(), kinship.lineage(entry.config)
    while new:
        found |= new
        new = {one for name in new if name in configs for one in kinship.lineage(configs[name])}
        new -= found
    return found


def training_problems(
    folder: Path, config: Mapping[str, Any], known: Sequence[Known] = ()
) -> list[str]:
    """Where what an entry says of its training contradicts itself, or an entry that it names.

    FLOPs follow from its sizes, its recipe and its updates, and are never less than its samples
    cost; samples from updates; the cost of its start from that entry. What is not said cannot be
    held against anything: the board shows all of it as said.
    """
    shape = PolicyConfig.from_dict(config.get("policy"))
    training = files.as_object(config.get("training"))
    found = []
    if config.get("train_flops_per_frame") != shape.train_flops:
        found.append(
            f"says that training takes {config.get('train_flops_per_frame')!r} FLOPs a frame; its "
            f"widths give {shape.train_flops:,}"
        )
    for name in ("flops", "samples", "updates"):
        value = training.get(name)
        if value is not None and not (_is_number(value) and 0 < value < 1e40):
            return [*found, f"says that its {name} are {str(value)[:40]!a}, which is no number"]
    flops, samples = training.get("flops"), training.get("samples")
    if flops and samples and flops < samples * shape.train_flops * (1 - 1e-9):
        found.append(
            f"says {flops:.4g} training FLOPs; its {samples:,} samples take {shape.train_flops:,} "
            f"each, {samples * shape.train_flops:.4g} in all"
        )
    start = files.as_object(training.get("start"))
    teacher = files.as_object(training.get("teacher"))
    by_weights = {other.entry.revision: other.entry for other in known}
    for name, said in (("start", start), ("teacher", teacher)):
        named = by_weights.get(str(said.get("weights_sha256")))
        cost = files.as_object(named.config.get("training")).get("flops") if named else None
        if cost is not None and said.get("flops") != cost:
            found.append(f"says that its {name} took {said.get('flops')!r} FLOPs; it took {cost!r}")
    of_teacher = by_weights.get(str(teacher.get("weights_sha256")))
    found += _recipe_problems(training, shape, bool(teacher), of_teacher)
    curve = read_curve(files.inside(folder, "curve.csv"))
    last = curve.rows[-1] if curve else None
    if last and samples and (last[0] != samples or not _near(last[1], flops)):
        found.append("says other samples or FLOPs than its curve.csv ends with")
    return found


def _recipe_problems(
    training: Mapping[str, Any], shape: PolicyConfig, taught: bool, teacher: Entry | None
) -> list[str]:
    """Where FLOPs and samples are not those of so many updates of the recipe."""
    recipe, updates = files.as_object(training.get("recipe")), training.get("updates")
    flops, samples = training.get("flops"), training.get("samples")
    if not recipe or not updates:
        return []
    names = ("batch", "time", "accumulate")
    if training.get("method") == "impala":
        names = ("games", "time", "unrolls")
    sizes = [recipe.get(name) for name in names]
    if not all(type(size) is int and 0 < size < 1 << 20 for size in sizes):
        return [f"its recipe has no {', '.join(names)}"]
    frames = updates
    for size in sizes:
        assert isinstance(size, int)
        frames *= size
    least: float = frames * shape.train_flops + shape.update_flops * updates
    exact = training.get("method") == "bc"
    if training.get("method") == "impala":
        other = teacher.policy.config if teacher else None
        try:
            config = ImpalaConfig(**recipe)
            least = run_flops(config, shape, other, updates)
        except (TypeError, ValueError, AttributeError, OverflowError, InputError):
            return ["its recipe is none of `nhzoo train impala`"]
        exact = not taught or teacher is not None
    found = []
    if flops and not (_near(flops, least) if exact else flops >= least * (1 - 1e-6)):
        found.append(f"says {flops:.4g} training FLOPs; {updates:,} such updates take {least:.4g}")
    if samples and not LEAST_SEEN * frames <= samples <= frames:
        found.append(f"says {samples:,} samples; {updates:,} such updates are of {frames:,}")
    return found


def _near(one: Any, other: Any) -> bool:
    return bool(one and other and math.isclose(one, other, rel_tol=1e-5))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
