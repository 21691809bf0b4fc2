"""What a policy that plays is held to besides its rewards: a teacher, or demonstrations.

Kickstarting (Schmitt et al., arXiv 1803.03835): KL(teacher || policy) of every frame that was
played. A policy that starts as its teacher forgets what it cannot yet reach by itself unless it is
held to it (Wolczyk et al., arXiv 2402.02868). Demonstrations beside play are the other way (as in
Hambro et al., arXiv 2211.00539, and in spirit Ball et al., RLPD, arXiv 2302.02948).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nhzoo.data.batches import Streams
from nhzoo.policy.network import Policy
from nhzoo.training.feed import Feed
from nhzoo.training.rl.rollouts import Unroll

Array = np.ndarray[Any, Any]

_STREAMS = 64  # for each row of a batch of demonstrations


class Teacher:
    """A frozen policy that reads what the actors saw, with a state of its own for every game.

    The learner runs it, so that actors are not slowed; unrolls of one actor come in order, and
    one that begins anew begins with first frames, so the states are the right ones.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy.requires_grad_(False).eval()
        self._states: dict[int, Tensor] = {}  # by actor: [3, games, hidden]

    @torch.no_grad()
    def logits(
        self, unrolls: Sequence[Unroll], inputs: Mapping[str, Tensor], going_on: Tensor
    ) -> Tensor:
        """Logits [T, B, 121] of the first T frames of some unrolls side by side."""
        rows, time = going_on.shape[1], len(going_on) - 1
        games = rows // len(unrolls)
        found = []
        for k, unroll in enumerate(unrolls):  # one after another: two may be of one actor
            part = slice(k * games, (k + 1) * games)
            seen = {name: tensor[:time, part].contiguous() for name, tensor in inputs.items()}
            before = self._states.get(unroll.actor)
            if before is None or before.shape[1] != games:
                before = self.policy.initial_state(games)
            x, bearings, after = self.policy.read(seen, before, going_on[:time, part])
            self._states[unroll.actor] = after
            found.append(self.policy.answer(seen, x, bearings))
        return torch.cat(found, 1)

    def state(self) -> dict[str, Tensor]:
        """What a resumed run needs, by actor."""
        return {str(actor): state for actor, state in self._states.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`."""
        device = self.policy.head.weight.device
        self._states = {int(actor): held.to(device) for actor, held in state.items()}


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(teacher || student) of logits [..., 121] and logarithms of probabilities: [...]."""
    expected = teacher.log_softmax(-1)
    return (expected.exp() * (expected - student)).sum(-1)


class Demonstrations:
    """Batches of demonstrations beside play, states carried as in behavioural cloning."""

    def __init__(
        self,
        games: Sequence[Path],
        policy: Policy,
        batch: int,
        time: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self._policy, self._games = policy, [path.stem for path in games]
        streams = batch * _STREAMS
        self._feed = Feed(
            lambda: Streams(games, streams, batch, time, seed),
            device,
            2 if device.type == "cuda" else 0,
        )
        self._state = policy.initial_state(streams)

    def loss(self) -> Tensor:
        """Mean cross-entropy of the next batch."""
        batch = self._feed.next()
        state = self._state[:, batch.rows] * batch.going_on[None, :, None]
        logits, state = self._policy(batch.inputs, state)
        self._state[:, batch.rows] = state.detach()
        loss = nn.functional.cross_entropy(
            logits.flatten(0, 1), batch.actions.flatten(), ignore_index=-1, reduction="sum"
        )
        return loss / max(1, batch.targets)

    def state(self) -> tuple[Tensor, dict[str, Any]]:
        """What a resumed run needs: carried states, and the place in the data as plain JSON."""
        return self._state, {"games": self._games, "streams": self._feed.streams.state()}

    def restore(self, state: Tensor, place: dict[str, Any]) -> None:
        """The inverse of `state`; ValueError for other games."""
        if place["games"] != self._games:
            raise ValueError("its demonstrations were other games")
        self._state.copy_(state)
        self._feed.streams.restore(place["streams"])
        self._feed.restart()

    def close(self) -> None:
        """End the thread that reads ahead."""
        self._feed.close()
