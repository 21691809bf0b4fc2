"""The policy network: table embeddings, map and direction encoders, a core of minimal LSTMs.

The compass is what lies in each of the eight directions, read by one set of weights for all eight;
what it gives enters the core, and gives the keys of the eight moves their logits together with what
the core says. So do the letters that a question offers to the keys of these letters. The core is
three layers of minimal LSTM, each adding to what it reads.

`PolicyConfig.for_params(n)` gives every width. The whole network scales, encoders too: a law in
which only the core is counted measures the encoders (Tuyls et al. leave theirs out of N).

The minimal LSTM of Feng et al., "Were RNNs All We Needed?" (arXiv 2410.01201, section 3.2): gates
and candidates depend on the input alone,

    f, i = sigmoid(W_f x), sigmoid(W_i x);  h_t = (f h_{t-1} + i W_h x) / (f + i).

An LSTM's four products with its own past, a step at a time, become three with the input, all steps
at once; what is left to do in order is an addition.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nhzoo.envs.actions import ACTION_KEYS, TTY
from nhzoo.policy import features as seen
from nhzoo.policy import memory
from nhzoo.policy.config import GATES, LAYERS, PREPROCESSING, TABLES, PolicyConfig
from nhzoo.policy.features import Features
from nhzoo.policy.table_sums import symbol_sum, table_sum
from nhzoo.runtime import kernels

Array = np.ndarray[Any, Any]


def scan(keep: Tensor, new: Tensor, state: Tensor) -> Tensor:
    """All h_t = keep_t h_{t-1} + new_t, [T, B, width], from h_{-1} = `state` [B, width].

    On a CPU step by step in compiled code, elsewhere in log2 T parallel passes. Half precision is
    computed in float32: the state adds up what it gets over thousands of steps.
    """
    dtype = keep.dtype
    if dtype in (torch.bfloat16, torch.float16):
        keep, new, state = keep.float(), new.float(), state.float()
    steps = keep.device.type == "cpu" and keep.dtype == torch.float32
    result: Tensor = (_Scan if steps else _ParallelScan).apply(keep, new, state)  # type: ignore[no-untyped-call]
    return result.to(dtype)


class _ParallelScan(torch.autograd.Function):
    """The same by doubling (Hillis and Steele 1986): after pass n a step knows 2^n before it."""

    @staticmethod
    def forward(ctx: Any, keep: Tensor, new: Tensor, state: Tensor) -> Tensor:
        out = _doubling(keep, torch.cat([torch.addcmul(new[:1], keep[:1], state), new[1:]]))
        ctx.save_for_backward(keep, out, state)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradient of `new` is a scan too, from the last step to the first."""
        keep, out, state = ctx.saved_tensors
        later = torch.cat([keep[1:], torch.zeros_like(keep[:1])])
        total = _doubling(later.flip(0), grads[0].flip(0)).flip(0)
        before = torch.cat([state[None], out[:-1]])
        return total * before, total, total[0] * keep[0]


def _doubling(keep: Tensor, new: Tensor) -> Tensor:
    """All h_t = keep_t h_{t-1} + new_t from h_{-1} = 0."""
    reach = 1
    while reach < len(new):
        new = torch.cat([new[:reach], torch.addcmul(new[reach:], keep[reach:], new[:-reach])])
        keep = torch.cat([keep[:reach], keep[reach:] * keep[:-reach]])
        reach *= 2
    return new


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, keep: Tensor, new: Tensor, state: Tensor) -> Tensor:
        keep, new, state = keep.contiguous(), new.contiguous(), state.contiguous()
        out = torch.empty_like(new)
        _forward(_flat(keep), _flat(new), state.detach().numpy().reshape(-1), _flat(out))
        ctx.save_for_backward(keep, out, state)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keep, out, state = ctx.saved_tensors
        grad = grads[0].contiguous()
        keep_grad, new_grad = torch.empty_like(keep), torch.empty_like(keep)
        state_grad = torch.zeros_like(state)
        _backward(
            _flat(grad),
            _flat(keep),
            _flat(out),
            state.numpy().reshape(-1),
            _flat(keep_grad),
            _flat(new_grad),
            state_grad.numpy().reshape(-1),
        )
        return keep_grad, new_grad, state_grad


def _flat(tensor: Tensor) -> Array:
    return tensor.detach().numpy().reshape(len(tensor), -1)


@kernels.njit()
def _forward(keep: Array, new: Array, state: Array, out: Array) -> None:
    before = state
    for t in range(len(out)):
        for k in range(np.uint64(len(state))):
            out[t, k] = keep[t, k] * before[k] + new[t, k]
        before = out[t]


@kernels.njit()
def _backward(
    grad: Array,
    keep: Array,
    out: Array,
    state: Array,
    keep_grad: Array,
    new_grad: Array,
    state_grad: Array,
) -> None:
    """`state_grad` holds what h of a step gets from later ones, in the end the first state."""
    for t in range(len(out) - 1, -1, -1):
        before = out[t - 1] if t else state
        total = new_grad[t]
        for k in range(np.uint64(len(state))):
            total[k] = grad[t, k] + state_grad[k]
        for k in range(np.uint64(len(state))):
            keep_grad[t, k] = total[k] * before[k]
        for k in range(np.uint64(len(state))):
            state_grad[k] = total[k] * keep[t, k]


MOVE_ACTIONS = np.array([list(ACTION_KEYS).index(ord(key)) for key in memory.MOVES])
"""int64 [8]: the actions of the eight moves, in the compass's order."""

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
LETTER_ACTIONS = np.array([list(ACTION_KEYS).index(ord(letter)) for letter in _LETTERS])
"""int64 [52]: the actions that press the letters."""

EPSILON = 1e-6


class Policy(nn.Module):
    """The recurrent policy network: features of screens in, action logits out."""

    crop: nn.Linear
    map: nn.Linear
    join: nn.Linear
    head: nn.Linear
    query: nn.Linear
    offer: nn.Linear

    def __init__(self, config: PolicyConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.dropout = 0.0  # of what the encoders give, in training mode only

        scales = (0.5, 0.3, 0.3, 0.1, 0.5, 0.3, 0.3, 0.1, 0.3)
        layouts = (
            seen.CROP_LAYOUT,
            seen.MAP_LAYOUT,
            None,  # hashes are rows
            seen.status_layout(config.status_rows),
            seen.CURSOR_LAYOUT,
            seen.CHOICES_LAYOUT,
            seen.RECENT_LAYOUT,
            seen.COMPASS_LAYOUT,
            seen.HERE_LAYOUT,
        )
        self.tables = nn.ParameterDict()
        for name, layout, scale, (rows, width, _) in zip(
            TABLES, layouts, scales, config._tables(), strict=True
        ):
            entries = torch.empty(rows, width)
            if not entries.is_meta:  # what has only shapes: arithmetic loads the compiler of torch
                entries = entries.normal_(generator=generator) * scale
            self.tables[name] = nn.Parameter(entries)
            if layout:  # no parameters, and not in checkpoints: they follow from the preprocessing
                self.register_buffer(f"{name}_places", torch.from_numpy(layout.places), False)
                self.register_buffer(f"{name}_rows", torch.from_numpy(layout.rows), False)
        self.patch_bias = nn.Parameter(torch.zeros(config.patch))
        self.compass_bias = nn.Parameter(torch.zeros(config.compass))
        self.bearing = _linear(config.compass, config.compass, generator)
        for inputs, outputs, name in config._linears():
            scale = 0.1 if name in ("head", "query", "offer") else 1.0
            setattr(self, name, _linear(inputs, outputs, generator, scale))
        for layer in range(LAYERS):  # remember by default
            nn.init.constant_(getattr(self, f"forget{layer}").bias, 1.0)
            nn.init.constant_(getattr(self, f"input{layer}").bias, -1.0)
        self.register_buffer("moves", torch.from_numpy(MOVE_ACTIONS), False)
        self.register_buffer("letters", torch.from_numpy(LETTER_ACTIONS), False)

    def encoder_parameters(self) -> list[nn.Parameter]:
        """Those of what gives the core its input; `PolicyConfig.encoder_params` in number."""
        layers = self.bearing, self.crop, self.map, self.join
        parameters = [parameter for layer in layers for parameter in layer.parameters()]
        return [*self.tables.values(), self.patch_bias, self.compass_bias, *parameters]

    def initial_state(self, batch: int) -> Tensor:
        """The state at the start of a game: zeros, [3, batch, hidden]."""
        return self.head.weight.new_zeros(LAYERS, batch, self.config.hidden)

    def forward(self, features: Mapping[str, Tensor], state: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [T, B, 121] and the state after T steps, of features [T, B, ...]."""
        x, direction_embedding, state = self.encode_sequence(features, state)
        return self.logits(features, x, direction_embedding), state

    def encode_sequence(
        self, features: Mapping[str, Tensor], state: Tensor, not_first: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What heads read, [T, B, hidden], what lies which way, and the state after T steps.

        `not_first`, float32 [T, B]: 0 at the first frame of a game, which remembers nothing of the
        one before it; else 1.
        """
        direction_embedding = self._direction_embedding(features)
        x, state = self.run_core(self.encode(features, direction_embedding), state, not_first)
        return x, direction_embedding, state

    @torch.no_grad()
    def scale_logits(self, temperature: float) -> None:
        """Divide all logits by a temperature, for good: in the layers that they are linear in."""
        for layer in (self.head, self.query, self.offer):
            for parameter in layer.parameters():
                parameter.div_(temperature)

    def logits(
        self, features: Mapping[str, Tensor], x: Tensor, direction_embedding: Tensor
    ) -> Tensor:
        """Logits [T, B, 121] of what `encode_sequence` gave."""
        logits = self.head(x)
        toward = (direction_embedding @ self.query(x)[..., None])[..., 0]
        offered = features["choices"] * self.offer(x)
        logits = logits.index_add(-1, self.moves, toward)
        answered: Tensor = logits.index_add(-1, self.letters, offered)
        return answered

    def run_core(
        self, x: Tensor, state: Tensor, not_first: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The core: of what was encoded, [T, B, hidden], what heads read; and the next state."""
        reached = []
        for layer, before in enumerate(state):
            read = nn.functional.rms_norm(x, x.shape[-1:], eps=EPSILON)
            gates = [getattr(self, f"{gate}{layer}") for gate in GATES]
            together = nn.functional.linear(  # one large product is faster than three
                read, torch.cat([g.weight for g in gates]), torch.cat([g.bias for g in gates])
            )
            opened, candidate = torch.split(together, [2 * x.shape[-1], x.shape[-1]], -1)
            forget, write = torch.sigmoid(opened).chunk(2, -1)
            share = write / (forget + write)
            keep = 1 - share if not_first is None else (1 - share) * not_first[..., None]
            y = scan(keep, share * candidate, before)
            reached.append(y[-1])
            x = x + y
        return x, torch.stack(reached)

    def encode(self, features: Mapping[str, Tensor], direction_embedding: Tensor) -> Tensor:
        """The core's input: [T, B, hidden]."""
        message = features["message"]
        words = torch.where(message < 0, message, message % len(self.tables["message"]))
        patches = self._sum(features["map"].flatten(-2), "map", self.patch_bias, relu=True)
        joined = torch.cat(
            [
                torch.relu(self.crop(self._sum(features["crop"].flatten(-2), "crop").flatten(-2))),
                torch.relu(self.map(patches.flatten(-2))),
                table_sum(self.tables["message"], words, relu=True),
                self._sum(features["status"], "status", relu=True).flatten(-2),
                self._sum(features["cursor"], "cursor").flatten(-2),
                self._sum(features["choices"], "choices").flatten(-2),
                self._sum(features["recent"], "recent").flatten(-2),
                self._sum(features["here"], "here").flatten(-2),
                direction_embedding.flatten(-2),
            ],
            dim=-1,
        )
        joined = nn.functional.dropout(joined, self.dropout, self.training)
        return torch.relu(self.join(joined))

    def _direction_embedding(self, features: Mapping[str, Tensor]) -> Tensor:
        """What each direction has to offer: [T, B, 8, compass], by the same weights for each."""
        symbols = features["compass"].flatten(-2)
        read = self._sum(symbols, "compass", self.compass_bias, relu=True)
        return torch.relu(self.bearing(read))

    def _sum(
        self, symbols: Tensor, name: str, bias: Tensor | None = None, relu: bool = False
    ) -> Tensor:
        places, rows = self.get_buffer(f"{name}_places"), self.get_buffer(f"{name}_rows")
        return symbol_sum(self.tables[name], symbols, places, rows, bias, relu)


class ScreenReader:
    """What a policy reads of `games` games that go on side by side, for training of your own.

    Call `read` with every screen, `press` with every key, and `restart` where a game has begun. For
    the network of a loaded agent give its `config.preprocessing`.
    """

    def __init__(self, games: int, preprocessing: int = PREPROCESSING) -> None:
        self._recall = seen.no_recall(games, preprocessing)

    def read(self, observation: Mapping[str, Array]) -> dict[str, Tensor]:
        """The input of `Policy.forward`, [1, games, ...], of NLE's observations [games, ...]."""
        chars, colors, cursor = (observation[name] for name in TTY)
        encoded = seen.encode(chars, colors, cursor, self._recall)
        return to_tensors(encoded, 1, len(self._recall))

    def press(self, actions: Array) -> None:
        """Note the actions, int [games], that were chosen on the screens read last."""
        memory.push_keys(self._recall, ACTION_KEYS[actions])

    def restart(self, games: Array) -> None:
        """Forget the games that bool [games] marks: read next are their first screens."""
        self._recall[games, : memory.VERSION] = 0


def to_tensors(features: Features, time: int, batch: int) -> dict[str, Tensor]:
    """Features of time x batch frames, or of [time, batch], as tensors [time, batch, ...]."""
    return {
        name: torch.from_numpy(array).view(time, batch, *like.shape[2:])
        for (name, array), like in zip(
            vars(features).items(), vars(Features.empty(0, 0)).values(), strict=True
        )
    }


def _linear(
    inputs: int, outputs: int, generator: torch.Generator | None, scale: float = 1.0
) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    if not layer.weight.is_meta:
        bound = scale * math.sqrt(3 / inputs)
        layer.weight.data = torch.rand(outputs, inputs, generator=generator) * (2 * bound) - bound
    nn.init.zeros_(layer.bias)
    return layer
