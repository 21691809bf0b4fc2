"""The value of where a game stands, read off a policy's core; kept beside an entry, not in it.

`critic.safetensors` is an optional file of an entry's folder: what plays does not read it, what
trains on does. Its two tensors are `weight` [1, hidden] and `bias` [1], float32.
"""

from __future__ import annotations

from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from nhzoo.errors import InputError
from nhzoo.runtime import files

FILE = "critic.safetensors"


class Critic(nn.Module):
    """Expected scaled return of what a core has read; 0 to begin with."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, hidden))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """[T, B] of [T, B, hidden]."""
        return nn.functional.linear(x, self.weight, self.bias)[..., 0]


def save_critic(folder: Path, critic: Critic) -> None:
    """Write it into an entry's folder."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in critic.state_dict().items()}
    files.atomic_write(folder / FILE, safetensors.torch.save(tensors))


def load_critic(folder: Path, critic: Critic) -> bool:
    """Read it, where an entry has one; False where it has none. InputError for one of no use."""
    path = files.inside(folder, FILE)
    if not path.exists():
        return False
    limit = 4 * sum(tensor.numel() for tensor in critic.parameters()) + files.MEGABYTE
    try:
        held = safetensors.torch.load(files.read_bounded(path, limit))
        if not all(bool(torch.isfinite(tensor).all()) for tensor in held.values()):
            raise ValueError("holds NaN or infinite values")
        critic.load_state_dict(held)
    except (safetensors.SafetensorError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: cannot be used ({str(error).splitlines()[0]})") from None
    return True
