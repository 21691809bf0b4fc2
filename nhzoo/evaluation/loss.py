"""Cross-entropy and accuracy of an agent on demonstrations: of all keys, by step, by question.

Clones die early, while an expert's games are long: most keys of a game lie where a clone seldom
comes. So the first `EARLY` steps of each game are told apart from all.
"""

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
from nhzoo.data.frames import frames_in
from nhzoo.envs.actions import ACTION_KEYS, ACTION_OF_KEY
from nhzoo.errors import InputError
from nhzoo.policy.network import Policy
from nhzoo.runtime.console import ProgressCallback, no_progress

Array = np.ndarray[Any, Any]

BATCH = 8
TIME = 64

EARLY = 20_000
"""Steps of a game, from its first, within which agents of the zoo play most of theirs."""
STEPS = (0, 1_000, 2_000, 4_000, 8_000, 13_000, EARLY, 30_000, 50_000, 75_000)
"""Where each range of steps begins; the last has no end."""
QUESTIONS = {
    "eat it?": (b"eat it? [", b"eat one? ["),
    "pray?": (b"want to pray? [",),
    "vault guard": (b"Hello stranger, who are you?",),
    "other questions": (b"? [",),
}
"""Kinds of keys by the screen's top line: a key is of the first kind whose text stands there."""
COMMANDS = {"eat": ord("e"), "pray": 0x80 | ord("p")}
"""Commands that kill clones where the expert does not give them. It answers the questions that
follow with yes: it decides before it asks for them."""


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


@dataclass(frozen=True)
class CommandLoss:
    """`loss`: nats of the expert's `presses` of a command.

    `elsewhere`: presses that the agent makes where the expert makes none, for each of the expert's.
    """

    loss: float
    presses: int
    elsewhere: float


@dataclass(frozen=True)
class LossSums:
    """Sums over the keys of games, from which losses of any part follow.

    `steps` float64 [games, ranges of `STEPS`, 3] and `questions` [games, `QUESTIONS`, 3]: nats,
    keys with the largest logit, keys. `commands` [games, `COMMANDS`, 3]: nats of the expert's
    presses, their number, and the presses that the agent makes elsewhere on average.
    """

    steps: Array
    questions: Array
    commands: Array
    unscored: int = 0

    @property
    def whole(self) -> Loss:
        """Of every key."""
        return self._loss(self.steps, self.unscored)

    @property
    def early(self) -> Loss:
        """Of the first `EARLY` steps of each game."""
        return self._loss(self.steps[:, : STEPS.index(EARLY)])

    def by_step(self) -> dict[tuple[int, int | None], Loss]:
        """The loss of each range of steps [from, to) that has keys; None ends the last."""
        found = {
            ends: self._loss(self.steps[:, i : i + 1])
            for i, ends in enumerate(zip(STEPS, (*STEPS[1:], None), strict=True))
        }
        return {ends: loss for ends, loss in found.items() if loss.frames}

    def by_question(self) -> dict[str, Loss]:
        """The loss of the answers to each kind of question that was asked."""
        found = {name: self._loss(self.questions[:, i : i + 1]) for i, name in enumerate(QUESTIONS)}
        return {name: loss for name, loss in found.items() if loss.frames}

    def by_command(self) -> dict[str, CommandLoss]:
        """How well the agent gives each command when the expert does, and only then."""
        found = {}
        for name, (nats, presses, elsewhere) in zip(COMMANDS, self.commands.sum(0), strict=True):
            if presses:
                found[name] = CommandLoss(
                    float(nats / presses), int(presses), float(elsewhere / presses)
                )
        return found

    def _loss(self, sums: Array, unscored: int = 0) -> Loss:
        nats, correct, keys = sums.sum(1).T
        count = max(1.0, keys.sum())
        return Loss(
            loss=float(nats.sum() / count),
            accuracy=float(correct.sum() / count),
            frames=int(keys.sum()),
            games=len(sums),
            unscored=unscored,
            loss_se=_standard_error(nats, keys),
        )


@torch.no_grad()
def measure_sums(
    policy: Policy,
    games: Sequence[Path],
    max_frames: int | None = None,
    progress: Callable[[int], None] = lambda frames: None,
    batch: int = BATCH,
    questions: bool = False,
) -> LossSums:
    """Sums over every key of packed `games`, state carried from the first frame of each.

    `max_frames` limits the frames taken of each game, from its start; `batch` games are read side
    by side. Without `questions` those are not told apart, which saves reading the screens.
    """
    device = policy.head.weight.device
    state = policy.initial_state(batch)
    steps = np.zeros((len(games), len(STEPS), 3))
    by_kind = np.zeros((len(games), len(QUESTIONS), 3))
    commands = np.zeros((len(games), len(COMMANDS), 3))
    given = [int(ACTION_OF_KEY[key]) for key in COMMANDS.values()]
    begin = np.zeros(batch, np.int64)  # the step of each row's game at which `part` begins
    frames = unscored = 0
    policy.eval()
    screens = read_games(games, batch, TIME, max_frames, "screens") if questions else None
    for part, rows in read_games(
        games, batch, TIME, max_frames, version=policy.config.preprocessing
    ):
        state = zero_first(state, part.first)
        begin[part.first] = 0
        inputs = {name: tensor.to(device) for name, tensor in tensors_of(part).items()}
        logits, state = policy(inputs, state)
        target = torch.from_numpy(part.actions).to(device)
        known = target >= 0
        logits, target = logits[known].double(), target[known]
        nats = torch.nn.functional.cross_entropy(logits, target, reduction="none")
        found = torch.stack([nats, logits.argmax(-1) == target, torch.ones_like(nats)], 1)
        values, mask = found.cpu().numpy(), known.cpu().numpy()
        game = np.broadcast_to(rows, mask.shape)[mask]
        step = (begin + np.arange(len(mask))[:, None])[mask]
        np.add.at(steps, (game, np.searchsorted(STEPS, step, "right") - 1), values)
        if screens is not None:
            kind = _question_kinds(next(screens)[0].inputs["tty_chars"][mask])
            np.add.at(by_kind, (game[kind >= 0], kind[kind >= 0]), values[kind >= 0])
            chances, targets = logits.softmax(-1).cpu().numpy(), target.cpu().numpy()
            for i, action in enumerate(given):
                pressed = targets == action
                rows_of = np.stack(
                    [values[:, 0] * pressed, pressed, chances[:, action] * ~pressed], 1
                )
                np.add.at(commands, (game, i), rows_of)
        begin += len(mask)
        frames += len(target)
        unscored += part.valid - len(target)
        progress(frames)
    return LossSums(steps, by_kind, commands, unscored)


def measure_loss(
    policy: Policy,
    games: Sequence[Path],
    max_frames: int | None = None,
    progress: Callable[[int], None] = lambda frames: None,
    batch: int = BATCH,
) -> Loss:
    """Mean over every key of packed `games`, see `measure_sums`."""
    return measure_sums(policy, games, max_frames, progress, batch).whole


def _question_kinds(screens: Array) -> Array:
    """Which of `QUESTIONS` is on the top line of screens uint8 [n, 24, 80]: [n], -1 for none."""
    kinds = np.full(len(screens), -1)
    top = screens[:, 0]
    for i in np.flatnonzero((top == ord("?")).any(1)):
        line = top[i].tobytes()
        for kind, texts in enumerate(QUESTIONS.values()):
            if any(text in line for text in texts):
                kinds[i] = kind
                break
    return kinds


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
    progress: ProgressCallback = no_progress,
) -> Loss:
    """Measure the loss of an agent with known probabilities: a zoo entry, or the random agent.

    Logits are taken as the network gives them, at temperature 1, whatever the agent plays at.
    """
    return measure_parts(agent, games, progress, questions=False).whole


def measure_parts(
    agent: Agent,
    games: Sequence[Path],
    progress: ProgressCallback = no_progress,
    questions: bool = True,
) -> LossSums:
    """As `measure_agent`: the sums of which its loss, by step and by question, is made.

    Answers to questions are told apart for entries with a network only.
    """
    total = count_frames(games)
    if type(agent) is RandomAgent:  # FrequencyAgent is another
        return _random_sums(games)
    if not isinstance(agent, PolicyAgent):
        raise InputError("this agent gives actions, not probabilities, so it has no loss")
    found = measure_sums(
        agent.entry.policy, games, None, lambda n: progress(n, total), questions=questions
    )
    if not found.whole.frames:
        raise InputError("these games hold no key that an action presses, so there is no loss")
    return found


def _random_sums(games: Sequence[Path]) -> LossSums:
    """Of an agent that presses every key with one probability."""
    lengths = np.array([frames_in(path) for path in games])[:, None]
    keys = np.diff(np.minimum(np.array([*STEPS, np.iinfo(np.int64).max]), lengths))
    chance = 1 / len(ACTION_KEYS)
    sums = np.stack([-math.log(chance) * keys, chance * keys, keys], -1)
    none = [np.zeros((len(games), len(kinds), 3)) for kinds in (QUESTIONS, COMMANDS)]
    return LossSums(sums, none[0], none[1])
