"""A worker of `nhzoo.envs.vector`: many games, which NLE writes into memory that is shared."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from nle import nethack

from nhzoo.envs.actions import ACTION_KEYS
from nhzoo.envs.game import FINAL, Episode, Game
from nhzoo.errors import NhzooError
from nhzoo.runtime.arrays import arrays_in, memory_layout
from nhzoo.runtime.channels import Channel

NOTHING = -1
"""In place of an action: the game is left alone. In place of a row: none is in hand."""

STATUSES = ("", *FINAL, "step_cap", "stalled", "crashed")
"""How a game has ended, by the number that is shared; 0 while it is being played."""

NUMBERS = (
    "score",
    "steps",
    "turns",
    "depth",
    "max_depth",
    "experience_level",
    "max_experience_level",
)
"""What is shared of each game's result, in this order, before its status."""

STATUS = len(NUMBERS)
_ALIGNED = 64


def layout(names: Iterable[str], games: int, workers: int) -> np.dtype[Any]:
    """How what is shared lies in memory: observations, actions, numbers, who is stepped."""
    described = nethack.OBSERVATION_DESC
    return memory_layout(
        [
            *((n, described[n]["dtype"], (games, *described[n]["shape"])) for n in names),
            ("actions", np.int64, (games,)),
            ("numbers", np.int64, (STATUS + 1, games)),
            ("in_hand", np.int64, (workers,)),
        ],
        _ALIGNED,
    )


def serve(
    channel: Channel,
    memory: Any,
    number: int,
    rows: range,
    names: Sequence[str],
    num_envs: int,
    workers: int,
) -> None:
    """The life of a worker. It ends when its parent closes its end of the channel.

    It is sent (number, {row: game to begin}), and presses the keys of `actions` in its other games.
    It answers (number, causes of ended games, roles of begun ones, error or None).
    """
    arrays = arrays_in(np.frombuffer(memory, np.uint8), layout(names, num_envs, workers))
    games = {row: Episode(Game(names, {name: arrays[name][row] for name in names})) for row in rows}
    keys, numbers, in_hand = ACTION_KEYS.tolist(), arrays["numbers"], arrays["in_hand"]
    with contextlib.suppress(EOFError):
        while True:
            asked, begins = channel.next()
            causes: dict[int, str] = {}
            roles: dict[int, str] = {}
            actions = arrays["actions"].tolist()
            try:
                for row, episode in games.items():
                    in_hand[number] = row
                    if row in begins:
                        game = begins[row]
                        episode.start(game.spec, game.step_cap, game.no_progress)
                        roles[row] = episode.result.role
                    elif actions[row] == NOTHING:
                        continue
                    elif episode.step(keys[actions[row]]):
                        causes[row] = episode.result.cause
                    result = episode.result
                    numbers[:, row] = (
                        result.score,
                        result.steps,
                        result.turns,
                        result.depth,
                        result.max_depth,
                        result.experience_level,
                        result.max_experience_level,
                        STATUSES.index(result.end_status),
                    )
                in_hand[number] = NOTHING
            except (NhzooError, RuntimeError) as error:
                channel.send((asked, causes, roles, str(error).splitlines()[0]))
            else:
                channel.send((asked, causes, roles, None))
            channel.drain()  # the parent reads, or is stopped, or is gone and its end closed
