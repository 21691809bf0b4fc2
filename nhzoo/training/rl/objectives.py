"""The losses of training by playing: V-trace, the critic, a teacher, demonstrations.

V-trace: targets for values and advantages for actions, off-policy.

Espeholt et al., "IMPALA" (arXiv 1802.01561, section 4.1). What was played with the policy mu is
weighed for the policy pi by truncated ratios of the probabilities of what was pressed:

    rho_t = min(rho_bar, pi/mu),  c_t = lambda min(c_bar, pi/mu),
    delta_t = rho_t (r_t + gamma_t V(x_{t+1}) - V(x_t)),
    v_t = V(x_t) + delta_t + gamma_t c_t (v_{t+1} - V(x_{t+1})).

On policy and with bars of 1 or more v_t is the n-step return. `rho_bar` decides what the values
converge to, `c_bar` how fast.

The critic is the value of where a game stands, read off a policy's core. It is kept beside an
entry, not in it: `critic.safetensors` is an optional file of an entry's folder: what plays does not
read it, what trains on does. Its tensors, float32, are `weight` [1, hidden] and `bias` [1]; with a
hidden layer `inner.weight` [width, hidden] and `inner.bias` [width] too, and `weight` [1, width].

Kickstarting (Schmitt et al., arXiv 1803.03835): KL(teacher || policy) of every frame that was
played. A policy that starts as its teacher forgets what it cannot yet reach by itself unless it is
held to it (Wolczyk et al., arXiv 2402.02868). Demonstrations beside play are the other way (as in
Hambro et al., arXiv 2211.00539, and in spirit Ball et al., RLPD, arXiv 2302.02948).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from nhzoo.data.batches import Streams
from nhzoo.errors import InputError
from nhzoo.policy.network import Policy, scan
from nhzoo.runtime import files
from nhzoo.training.feed import Prefetcher
from nhzoo.training.rl.rollouts import Unroll


@dataclass(frozen=True)
class VTrace:
    """`targets` of the values and `advantages` of what was pressed: [T, B], without gradient."""

    targets: Tensor
    advantages: Tensor


@torch.no_grad()
def vtrace(
    log_ratios: Tensor,
    discounts: Tensor,
    rewards: Tensor,
    values: Tensor,
    bootstrap: Tensor,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
    lam: float = 1.0,
) -> VTrace:
    """V-trace of unrolls of T steps, [T, B] each but for `bootstrap` [B], the value of frame T.

    `log_ratios`: ln pi - ln mu of what was pressed. `discounts`: 0 where the step ended the game.
    A step to be left out, which nothing shall reach through, has the discount 0 and its own value
    as its reward: its target is that value, its advantage 0.
    """
    ratios = log_ratios.exp()
    rho, c = ratios.clamp(max=rho_bar), lam * ratios.clamp(max=c_bar)
    following = torch.cat([values[1:], bootstrap[None]])
    delta = rho * (rewards + discounts * following - values)
    carry = discounts * c
    last = torch.zeros_like(bootstrap)
    corrections = scan(carry.flip(0), delta.flip(0), last).flip(0)  # from the last step back
    targets = values + corrections
    after = torch.cat([targets[1:], bootstrap[None]])
    return VTrace(targets, rho * (rewards + discounts * after - values))


FILE = "critic.safetensors"
_MOST_BYTES = 64 * files.MEGABYTE


class Critic(nn.Module):
    """Expected scaled return of what a core has read; 0 to begin with.

    With `width` a hidden layer of so many rectified units lies between.
    """

    def __init__(
        self, hidden: int, width: int = 0, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.inner = nn.Linear(hidden, width) if width else None
        if self.inner:
            nn.init.kaiming_uniform_(self.inner.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(self.inner.bias)
        self.weight = nn.Parameter(torch.zeros(1, width or hidden))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """[T, B] of [T, B, hidden]."""
        read = torch.relu(self.inner(x)) if self.inner else x
        return nn.functional.linear(read, self.weight, self.bias)[..., 0]


def save_critic(folder: Path, critic: Critic) -> None:
    """Write it into an entry's folder."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in critic.state_dict().items()}
    files.atomic_write(folder / FILE, safetensors.torch.save(tensors))


def load_critic(folder: Path, critic: Critic) -> bool:
    """Read it; False where an entry has none of that width. InputError for one of no use."""
    path = files.inside(folder, FILE)
    if not path.exists():
        return False
    try:
        tensors = safetensors.torch.load(files.read_bounded(path, _MOST_BYTES))
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
            raise ValueError("holds NaN or infinite values")
        if "weight" in tensors and tensors["weight"].shape != critic.weight.shape:
            return False
        critic.load_state_dict(tensors)
    except (safetensors.SafetensorError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: cannot be used ({str(error).splitlines()[0]})") from None
    return True


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
        self, unrolls: Sequence[Unroll], inputs: Mapping[str, Tensor], not_first: Tensor
    ) -> Tensor:
        """Logits [T, B, 121] of the first T frames of some unrolls side by side."""
        rows, time = not_first.shape[1], len(not_first) - 1
        games = rows // len(unrolls)
        found = []
        for k, unroll in enumerate(unrolls):  # one after another: two may be of one actor
            part = slice(k * games, (k + 1) * games)
            seen = {name: tensor[:time, part].contiguous() for name, tensor in inputs.items()}
            before = self._states.get(unroll.actor)
            if before is None or before.shape[1] != games:
                before = self.policy.initial_state(games)
            x, direction_embedding, after = self.policy.encode_sequence(
                seen, before, not_first[:time, part]
            )
            self._states[unroll.actor] = after
            found.append(self.policy.logits(seen, x, direction_embedding))
        return torch.cat(found, 1)

    def state(self) -> dict[str, Tensor]:
        """What a resumed run needs, by actor."""
        return {str(actor): state for actor, state in self._states.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`."""
        device = self.policy.head.weight.device
        self._states = {int(actor): tensor.to(device) for actor, tensor in state.items()}


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
        self._feed = Prefetcher(
            lambda: Streams(games, streams, batch, time, seed, version=policy.config.preprocessing),
            device,
            2 if device.type == "cuda" else 0,
        )
        self._state = policy.initial_state(streams)

    def loss(self) -> Tensor:
        """Mean cross-entropy of the next batch."""
        batch = self._feed.next()
        state = self._state[:, batch.rows] * batch.not_first[None, :, None]
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
