"""Evaluate a policy of your own, in plain PyTorch, under a protocol of nhzoo.

An agent is two methods: the state of a batch of games, and the actions of a batch of screens. It
may come from anywhere (Stable-Baselines3: put `model.predict` into `act`). Its only randomness is
`uniform`, so that the same games come out again on any number of workers.

    python own_policy.py --protocol smoke-v1 --episodes 4
"""

import argparse

import numpy as np
import torch
from torch import nn

import nhzoo


class OwnAgent:
    """A small convolutional network that was never trained."""

    name, revision = "own-policy", "1"
    observation_keys = ("tty_chars", "tty_cursor")

    def __init__(self, actions=121):
        torch.manual_seed(0)
        self.embed, self.look = nn.Embedding(256, 8), nn.Conv2d(8, 16, 5, stride=4)
        self.head = nn.Linear(16 * 5 * 19, actions)

    def initial_state(self, batch):
        """One row a game; it remembers how many steps it has played."""
        return np.zeros(batch, np.int64)

    @torch.no_grad()
    def act(self, observation, state, uniform):
        """Action indices, int [B], and the next state."""
        cells = self.embed(torch.from_numpy(observation["tty_chars"]).long())
        features = torch.relu(self.look(cells.permute(0, 3, 1, 2))).flatten(1)
        chances = self.head(features).double().softmax(-1).cumsum(-1).numpy()
        return (chances > uniform[:, None]).argmax(-1), state + 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--protocol", default="smoke-v1")
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    played = nhzoo.evaluate(OwnAgent(), options.protocol, options.episodes, options.workers)
    summary = played.result["summary"]
    print(f"mean score {summary['mean_score']:.1f}, 95 % interval {summary['mean_score_ci95']}")
