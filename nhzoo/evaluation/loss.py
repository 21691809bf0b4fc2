"""Cross-entropy and accuracy of an agent on demonstrations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nhzoo.agents.base import Agent, PolicyAgent, RandomAgent
from nhzoo.data.batches import Batch, count_frames, read_games
from nhzoo.envs.actions import ACTION_KEYS
from nhzoo.errors import InputError
from nhzoo.policy.network import Policy

Array = np.ndarray[Any, Any]

BATCH = 8
TIME = 64


@dataclass
class Loss:
    """`loss` is nats per key, `accuracy` the share of keys that had the largest logit.

    `unscored` keys belong to no action of the agent's interface, so no probability is defined.
    `loss_se` is the standard error of `loss` for other games of the same player: keys of one game
    are alike, so games are what counts. None below two games.
    """

    loss: float
    accuracy: float
    frames: int
    games: int
    unscored: int = 0
    loss_se: float | None = None


def tensors_of(batch: Batch) -> dict[str, torch.Tensor]:
    """The policy's input for a batch of demonstrations."""
    return {name: torch.from_numpy(array) for name, array in batch.inputs.items()}


def zero_first(state: torch.Tensor, first: Array) -> torch.Tensor:
    """The state with the rows zeroed that start a game."""
    return state * torch.from_numpy(~first)[None, :, None].to(state.device)


@torch.no_grad()
def measure_loss(
    policy: Policy,
    games: Sequence[Path],
    max_frames: int | None = None,
    progress: Callable[[int], None] = lambda frames: None,
    batch: int = BATCH,
) -> Loss:
    """Mean over every key of packed `games`, state carried from the first frame of each.

    `max_frames` limits the frames taken of each game, from its start; `batch` games are read side
    by side.
    """
    device = policy.head.weight.device
    state = policy.initial_state(batch)
    total = correct = 0.0
    frames = unscored = 0
    by_game = np.zeros((2, len(games)))
    policy.eval()
    for part, rows in read_games(games, batch, TIME, max_frames):
        state = zero_first(state, part.first)
        inputs = {name: tensor.to(device) for name, tensor in tensors_of(part).items()}
        logits, state = policy(inputs, state)
        target = torch.from_numpy(part.actions).to(device)
        known = target >= 0
        logits, target = logits[known].double(), target[known]
        nats = torch.nn.functional.cross_entropy(logits, target, reduction="none")
        total += float(nats.sum())
        game = np.broadcast_to(rows, part.actions.shape)[known.cpu().numpy()]
        np.add.at(by_game[0], game, nats.cpu().numpy())
        np.add.at(by_game[1], game, 1)
        correct += int((logits.argmax(-1) == target).sum())
        frames += len(target)
        unscored += part.valid - len(target)
        progress(frames)
    return Loss(
        loss=total / max(1, frames),
        accuracy=correct / max(1, frames),
        frames=frames,
        games=len(games),
        unscored=unscored,
        loss_se=_standard_error(*by_game),
    )


def _standard_error(nats: Array, keys: Array) -> float | None:
    """Of sum(nats) / sum(keys), games [n] drawn at random: a ratio's, to first order.

    None below two games, and where all have one loss: how games differ is not known then.
    """
    count = int((keys > 0).sum())
    if count < 2:
        return None
    off = nats - keys * (nats.sum() / keys.sum())
    return float(np.sqrt(count / (count - 1) * (off**2).sum()) / keys.sum()) or None


def measure_agent(
    agent: Agent,
    games: Sequence[Path],
    progress: Callable[[int, int], None] = lambda frames, total: None,
) -> Loss:
    """Measure the loss of an agent with known probabilities: a zoo entry, or the random agent.

    Logits are taken as the network gives them, at temperature 1, whatever the agent plays at.
    """
    total = count_frames(games)
    if isinstance(agent, PolicyAgent):
        found = measure_loss(agent.entry.policy, games, None, lambda n: progress(n, total))
        if not found.frames:
            raise InputError("these games hold no key that an action presses, so there is no loss")
        return found
    if isinstance(agent, RandomAgent):
        chance = 1 / len(ACTION_KEYS)
        return Loss(-math.log(chance), chance, total, len(games))
    raise InputError("this agent gives actions, not probabilities, so it has no loss")
