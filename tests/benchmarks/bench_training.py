"""Training: our network against that of the paper, at equal size, and how near the machine's limit.

make bench    # or: pytest tests/benchmarks/bench_training.py

The paper's LSTM agent (Tuyls et al., arXiv 2307.09423, versions 1 and 2) is rebuilt here from its
published description: encoders of fixed size, of which most of the FLOPs are convolutions over the
whole screen, and a fusion, an LSTM and a head that alone grow with its size.
"""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nhzoo.data import packing
from nhzoo.data.batches import read_games
from nhzoo.training import bc
from nhzoo.training.config import BCConfig

HIDDEN, TIME, BATCH = 256, 32, 8


def convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ELU()
    )


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(convolution(width, width), convolution(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class PaperLSTM(nn.Module):
    """Whole screens in: tty_chars, tty_colors [T, B, 24, 80], tty_cursor, previous action."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.message = nn.Sequential(nn.Linear(80 * 256, 64), nn.ELU(), nn.Linear(64, 64), nn.ELU())
        self.lines = nn.Sequential(
            nn.Conv1d(2, 32, 8, stride=4), nn.ELU(), nn.Conv1d(32, 64, 4), nn.ELU(), nn.Flatten()
        )
        self.status = nn.Sequential(nn.Linear(2304, 128), nn.ELU(), nn.Linear(128, 128), nn.ELU())
        self.chars, self.colors = nn.Embedding(256, 16), nn.Embedding(128, 16)
        blocks: list[nn.Module] = []
        for inputs, outputs in ((32, 16), (16, 32)):
            blocks += [
                nn.Conv2d(inputs, outputs, 3, padding=1),
                nn.MaxPool2d(3, 2),
                Residual(outputs),
                Residual(outputs),
            ]
        self.dungeon = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(2432, 512), nn.ELU())
        widths = (32, 16, 16, 16, 16, 8)
        layers = [convolution(a, b) for a, b in pairwise(widths)]
        self.crop = nn.Sequential(*layers, nn.Flatten())
        self.fusion = nn.Sequential(
            nn.Linear(1473, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.core = nn.LSTM(hidden, hidden)
        self.head, self.baseline = nn.Linear(hidden, 121), nn.Linear(hidden, 1)

    def forward(
        self, screens: dict[str, Tensor], previous: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        time_, batch = previous.shape
        chars = screens["tty_chars"].flatten(0, 1).long()
        colors = screens["tty_colors"].flatten(0, 1).long() & 127
        top = nn.functional.one_hot(chars[:, 0], 256).float().flatten(1)
        bottom = chars[:, 22:].flatten(1).float()
        digits = ((bottom >= 48) & (bottom <= 57)).float()
        lines = torch.stack([(bottom - 32) / 96, digits * (bottom - 47) / 10], 1)
        cells = torch.cat([self.chars(chars), self.colors(colors)], -1).movedim(-1, 1)
        padded = nn.functional.pad(cells, (4, 4, 4, 4))
        rows, cols = screens["tty_cursor"].flatten(0, 1).long().unbind(-1)
        offsets = torch.arange(9)
        around = padded.movedim(1, -1)[
            torch.arange(len(rows))[:, None, None],
            (rows[:, None] + offsets)[:, :, None],
            (cols[:, None] + offsets)[:, None, :],
        ].movedim(-1, 1)
        joined = torch.cat(
            [
                self.message(top),
                self.status(self.lines(lines)),
                self.dungeon(cells[:, :, 1:22]),
                nn.functional.one_hot(previous.flatten(), 121).float(),
                self.crop(around),
            ],
            1,
        )
        y, state = self.core(self.fusion(joined).view(time_, batch, -1), state)
        return self.head(y), state


@pytest.fixture(scope="session")
def games() -> list[Path]:
    return packing.pack("autoascend-monk-v1", split="validation").games


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def paper_training(games: list[Path], updates: int):
    """A function that trains the paper's network for some updates and returns their frames."""
    network = PaperLSTM(HIDDEN)
    core = sum(
        p.numel()
        for part in ("fusion", "core", "head", "baseline")
        for p in getattr(network, part).parameters()
    )
    assert core == 9 * HIDDEN**2 + 1605 * HIDDEN + 122  # the paper's N
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    batches = [batch for batch, _ in read_games(games, BATCH, TIME, TIME * updates, "screens")]
    zeros = torch.zeros(1, BATCH, HIDDEN)

    def train() -> float:
        state, frames = (zeros, zeros), 0
        for batch in batches[:updates]:
            screens = {k: torch.from_numpy(v) for k, v in batch.inputs.items()}
            actions = torch.from_numpy(batch.actions)
            previous = torch.cat([torch.zeros(1, BATCH, dtype=torch.long), actions[:-1]]).clamp(0)
            logits, state = network(screens, previous, state)
            loss = nn.functional.cross_entropy(
                logits.flatten(0, 1), actions.flatten(), ignore_index=-1
            )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 4.0)
            optimizer.step()
            state = state[0].detach(), state[1].detach()
            frames += TIME * BATCH
        return frames

    return train, sum(p.numel() for p in network.parameters())


def our_training(games: list[Path], folder: Path, params: int, batch: int, time_: int):
    config = BCConfig(
        data="x", params=params, flops=1e18, batch=batch, time=time_, streams=8 * batch
    )
    run = bc.Run(config, games, folder)

    def train(updates: int = 20) -> float:
        for _ in range(updates):
            run.step()
        return updates * batch * time_

    return train, run


def gemm_rate() -> float:
    """FLOP/s of one thread in the product of two 1024 x 1024 matrices, the best of ten."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    best = 0.0
    for _ in range(10):
        began = time.perf_counter()
        a @ b
        best = max(best, 2 * 1024**3 / (time.perf_counter() - began))
    return best


def test_training_against_the_papers_network(games, tmp_path, side_by_side):
    """Frames per second of training, one thread: at equal total size, and equal batches."""
    theirs, params = paper_training(games, 2)
    ours, _ = our_training(games, tmp_path, params, BATCH, TIME)
    side_by_side(f"frames/s of training, {params:,} parameters", 3, nhzoo=ours, paper=theirs)


def test_model_flops_utilization(games, tmp_path, note):
    """FLOPs of training per second against the machine's matrix product, by size."""
    for params in (30_000, 100_000, 300_000, 1_000_000, 3_000_000):
        train, run = our_training(games, tmp_path / str(params), params, 4, 64)
        train(10)
        best, peak = 0.0, 0.0
        for _ in range(3):
            peak = max(peak, gemm_rate())
            began = time.perf_counter()
            frames = train(20)
            best = max(best, frames / (time.perf_counter() - began))
        shape = run.policy.config
        flops = best * (shape.train_flops + shape.update_flops / (4 * 64))
        note(
            f"training {params:,} parameters",
            {
                "frames/s": best,
                "FLOPs a frame": shape.train_flops,
                "GFLOP/s": flops / 1e9,
                "GEMM GFLOP/s": peak / 1e9,
                "MFU %": 100 * flops / peak,
            },
            "one thread, B = 4, T = 64",
        )
