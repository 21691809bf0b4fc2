"""The one replayer: NLE stepped through a trace, without the agent."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from nle import nethack

from nhzoo.data.traces import HASH_EVERY, Trace
from nhzoo.envs.game import TTY, Game
from nhzoo.errors import CheckFailed

SCORE_SLACK = 10
"""Points by which a recorded score may be off before a game counts as diverged.

4 of the 93 expert games are recorded 3 to 7 points below the sum of NLE's rewards, although every
screen and the step of the death agree.
"""

GOES_ON = ("step_cap", "stalled", "crashed")
"""End statuses of games that were broken off: no key ended them."""

Frame = Mapping[str, np.ndarray[Any, Any]]


class Diverged(CheckFailed):
    """The game did not go as recorded: another machine type, another NLE build, or a bad trace."""


def frame_hash(frame: Frame) -> str:
    """16 hexadecimal digits for what the terminal shows: characters, colours, cursor."""
    digest = hashlib.sha256()
    for name in TTY:
        digest.update(np.ascontiguousarray(frame[name]).tobytes())
    return digest.hexdigest()[:16]


def replay(trace: Trace, game: Game) -> Iterator[tuple[Frame, int]]:
    """Give (frame, key) for every key of `trace`: what the player saw, and pressed next.

    The frame's arrays are NLE's own: copy to keep. The recorded frame hashes, the step on which the
    game ends and the score are checked on the way; Diverged names the first that differs, or the
    key with which the game stops being an ordinary one (see `Game.voided`). The last item is given
    before the checks of the end are made, so run the iterator out. Closing screens are not hashed:
    the tombstone shows the year of the wall clock.
    """
    keys = trace.keys()
    game.start(trace.spec)
    frame = game.observation
    blstats = frame["blstats"]
    first_score = int(blstats[nethack.NLE_BL_SCORE])
    score = first_score
    for step, key in enumerate(keys):
        if step % HASH_EVERY == 0 and not game.over:
            recorded = trace.frame_hashes[step // HASH_EVERY :][:1]
            if recorded and recorded[0] != frame_hash(frame):
                raise Diverged(f"game {trace.game}: the screen before key {step} differs")
        yield frame, key
        game.step(key)
        if game.voided:
            raise Diverged(
                f"game {trace.game}: is no ordinary game from key {step + 1} on: {game.voided}"
            )
        if game.done and step + 1 < len(keys):
            raise Diverged(f"game {trace.game}: ended at key {step + 1} of {len(keys)}")
        if not game.over:
            score = int(blstats[nethack.NLE_BL_SCORE])
    if trace.score is not None:
        if game.over and trace.end_status in GOES_ON:
            raise Diverged(f"game {trace.game}: is over, recorded as {trace.end_status}")
        if not game.over and trace.end_status not in GOES_ON:
            raise Diverged(f"game {trace.game}: went on after its last key")
        if abs(score - first_score - trace.score) > SCORE_SLACK:
            reached = score - first_score
            raise Diverged(f"game {trace.game}: score {reached}, recorded {trace.score:g}")
