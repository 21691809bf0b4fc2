"""Protocols: frozen, versioned evaluations. A score means something only beside a protocol id.

Game i of a protocol is decided by SHA-256 of ``nhzoo:<protocol id>:<i>`` and so are the uniforms
by which an agent samples, so each game has one legal trace per agent.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from dataclasses import dataclass, field

import numpy as np

from nhzoo.errors import InputError

UBIRTHDAY = 1_000_000_000
"""The clock value (seconds) that protocols write into NetHack's `ubirthday` after a reset."""


_ROLES = {
    "archeologist": ("human dwarf gnome", "lawful neutral"),
    "barbarian": ("human orc", "neutral chaotic"),
    "caveman": ("human dwarf gnome", "lawful neutral"),
    "healer": ("human gnome", "neutral"),
    "knight": ("human", "lawful"),
    "monk": ("human", "lawful neutral chaotic"),
    "priest": ("human elf", "lawful neutral chaotic"),
    "rogue": ("human orc", "chaotic"),
    "ranger": ("human elf gnome orc", "neutral chaotic"),
    "samurai": ("human", "lawful"),
    "tourist": ("human", "neutral"),
    "valkyrie": ("human dwarf", "lawful neutral"),
    "wizard": ("human elf gnome orc", "neutral chaotic"),
}
_ALIGNMENTS = {
    "human": "lawful neutral chaotic",
    "elf": "chaotic",
    "dwarf": "lawful",
    "gnome": "neutral",
    "orc": "chaotic",
}


@functools.cache
def _is_character(text: str) -> bool:
    """Whether NetHack has such a hero; of parts that are not named it draws one that fits."""
    parts = text.lower().split("-")
    for role, (races, alignments) in _ROLES.items():
        genders = ["female"] if role == "valkyrie" else ["male", "female"]
        for race in races.split():
            possible = set(alignments.split()) & set(_ALIGNMENTS[race].split())
            for hero in itertools.product([role], [race], genders, possible):
                fits = [[len(p) > 2 and word.startswith(p) for word in hero] for p in parts]
                if all(map(any, fits)) and all(
                    sum(column) < 2 for column in zip(*fits, strict=True)
                ):
                    return any(fit[0] for fit in fits)
    return False


@dataclass(frozen=True)
class GameSpec:
    """Everything that decides a game before its first key: seeds, character, clock.

    `core` and `disp` seed NetHack's two random number generators; `lgen` gives the level generator
    one of its own (None: levels come from core). `ubirthday` is in seconds since 1970. `character`
    is "@", drawn, or a role and what else is wanted of race, gender and alignment, by their first
    letters: InputError for others, of which NetHack would draw any.
    """

    core: int
    disp: int
    lgen: int | None = None
    character: str = "mon-hum-neu-mal"
    playername: str | None = None
    ubirthday: int = UBIRTHDAY

    def __post_init__(self) -> None:
        if self.playername is None and self.character != "@" and not _is_character(self.character):
            raise InputError(
                f"character {self.character!r}: NetHack has no such hero; give @ for any, or role, "
                "race, gender and alignment that go together, as mon-hum-neu-mal"
            )

    @property
    def name(self) -> str:
        """The player's name option; by NLE's convention it carries the character."""
        return self.playername or f"Agent-{self.character}"


@dataclass(frozen=True)
class Protocol:
    """One frozen evaluation: character, number of games, limits, and a rule for the seeds.

    `step_cap` counts the agent's keys; a game is `stalled` when the game turn has not changed for
    `no_progress` of them. `max_loop`, which no published protocol has, also ends a game that goes
    on without going anywhere: for so many keys the hero was on three squares at most, and neither
    score, experience, gold nor greatest hit points have changed.
    """

    id: str
    character: str
    games: int
    step_cap: int
    no_progress: int
    max_loop: int | None = field(default=None, kw_only=True)

    def game(self, index: int) -> GameSpec:
        """The `GameSpec` of game `index` (0 <= index < games)."""
        if not 0 <= index < self.games:
            raise InputError(f"{self.id} has games 0 to {self.games - 1}, there is no game {index}")
        core, disp = seeds_of(f"nhzoo:{self.id}:{index}")
        return GameSpec(core=core, disp=disp, character=self.character)

    def uniforms(self, index: int) -> np.random.Generator:
        """The sampling stream of game `index`: its t-th `.random()` decides step t."""
        return action_stream(f"nhzoo:{self.id}:{index}:actions")


def seeds_of(text: str) -> tuple[int, int]:
    """Core and display seed, 63 bits each, from SHA-256 of `text`."""
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1, int.from_bytes(digest[8:16], "big") >> 1


def action_stream(text: str) -> np.random.Generator:
    """Float64 uniforms from Philox, keyed by the first 16 bytes of SHA-256 (big-endian)."""
    digest = hashlib.sha256(text.encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "big")))


PROTOCOLS = {
    protocol.id: protocol
    for protocol in (
        Protocol("smoke-v1", "mon-hum-neu-mal", 8, 2_000, 1_000),
        Protocol("monk-lite-v1", "mon-hum-neu-mal", 128, 100_000, 1_000),
        Protocol("monk-v1", "mon-hum-neu-mal", 1_024, 100_000, 1_000),
        Protocol("allroles-v1", "@", 4_096, 100_000, 1_000),
    )
}


def get_protocol(protocol: str | Protocol) -> Protocol:
    """Return the protocol with that id."""
    if isinstance(protocol, Protocol):
        return protocol
    try:
        return PROTOCOLS[protocol]
    except KeyError:
        known = ", ".join(PROTOCOLS)
        raise InputError(f"unknown protocol {protocol!r}; known are {known}") from None
