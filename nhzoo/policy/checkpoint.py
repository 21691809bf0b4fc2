"""Zoo entries on disk: config.json, model.safetensors, parity.safetensors, README.md.

An entry may come from anyone, so nothing in it is trusted: sizes are bounded, shapes are compared
before memory is taken, no pickle is read, and the self-test (a fixed input and the outputs it must
give) runs at every load.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import safetensors.torch
import torch

from nhzoo.envs.actions import ACTION_KEYS
from nhzoo.errors import InputError
from nhzoo.policy import arithmetic, features
from nhzoo.policy.config import ARCHITECTURE, LAYERS, READABLE, PolicyConfig
from nhzoo.policy.inference import Inference
from nhzoo.policy.network import Policy, to_tensors
from nhzoo.runtime import files

SCHEMA = 1
MAX_WEIGHTS = 4 << 30
MAX_PARITY = 4 * files.MEGABYTE
MAX_PARITY_FRAMES = 64
PARITY_RTOL = 1e-4
_PARITY_INPUT = {
    "chars": np.dtype(np.uint8),
    "colors": np.dtype(np.int8),
    "cursor": np.dtype(np.uint8),
    "previous": np.dtype(np.uint8),
}

ACTION_TABLE = hashlib.sha256(ACTION_KEYS.tobytes()).hexdigest()
"""SHA-256 of the 121 keys in action order: an entry trained for another table is refused."""


@dataclass(frozen=True)
class Sampling:
    """How an agent samples: `temperature` divides the logits; 0 takes the largest (greedy).

    With `patience` n > 0, the temperature is doubled when the game turn has not changed for n
    screens, tripled after 2 n, and so on: a network outside the demonstrated states could repeat
    one action for ever. Actions less than `min_p` times as probable as the most probable one, at
    that temperature, are never chosen (min-p sampling, arXiv 2407.01082): in a game of 15,000
    decisions even the least probable key is pressed.
    """

    temperature: float = 1.0
    patience: int = 0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if self.temperature != 0 and not 1e-3 <= self.temperature <= 100:
            raise InputError(f"temperature {self.temperature}: give 0, or 0.001 to 100")
        if not 0 <= self.patience <= 100_000:
            raise InputError(f"patience {self.patience}: give 0 (for ever) to 100,000 screens")
        if not 0 <= self.min_p <= 1:
            raise InputError(f"min_p {self.min_p}: give 0 (all actions) to 1 (the most probable)")


@dataclass(frozen=True)
class Entry:
    """A loaded zoo entry. `revision` is the SHA-256 of its weights file."""

    name: str
    policy: Policy
    sampling: Sampling
    config: dict[str, Any]
    revision: str


def save_entry(
    folder: Path,
    policy: Policy,
    sampling: Sampling,
    training: Mapping[str, Any],
    description: str,
    card: str,
    probe: Mapping[str, np.ndarray[Any, Any]],
) -> None:
    """Write a zoo entry.

    `probe` is the input of the self-test: chars, colors, cursor, previous [T, B, ...].
    """
    config = {
        "schema_version": SCHEMA,
        "library": "nhzoo",
        "architecture": ARCHITECTURE,
        "description": description,
        "params": policy.config.params,
        "train_flops_per_frame": policy.config.train_flops,
        "policy": policy.config.to_dict(),
        "preprocessing_version": policy.config.preprocessing,
        "action_table_sha256": ACTION_TABLE,
        "sampling": asdict(sampling),
        "training": dict(training),
    }
    policy.eval()
    played = hashlib.sha256(_play(policy, probe).tobytes()).hexdigest()
    config["numerics"] = {"name": arithmetic.NUMERICS, "logits_sha256": played}
    weights = {name: tensor.contiguous() for name, tensor in policy.state_dict().items()}
    parity = {name: np.ascontiguousarray(probe[name]) for name in _PARITY_INPUT}
    parity["logits"] = _probe(policy, probe)
    files.atomic_write(folder / "model.safetensors", safetensors.torch.save(weights))
    files.atomic_write(folder / "parity.safetensors", safetensors.numpy.save(parity))
    files.atomic_write(folder / "README.md", card.encode())
    files.atomic_write(folder / "config.json", files.dump_json(config))


def load_entry(folder: Path) -> Entry:
    """Read a zoo entry and run its self-test; InputError states in one line what is wrong."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    where = folder / "config.json"
    config = files.read_json(files.inside(folder, "config.json"))
    for field, wanted in (
        ("schema_version", (SCHEMA,)),
        ("architecture", (ARCHITECTURE,)),
        ("preprocessing_version", READABLE),
        ("action_table_sha256", (ACTION_TABLE,)),
    ):
        if config.get(field) not in wanted or isinstance(config.get(field), bool):
            raise InputError(
                f"{where}: {field} is {config.get(field)!r:.80}, this version of nhzoo reads "
                f"{' or '.join(map(repr, wanted))}"
            )
    try:
        shape = PolicyConfig.from_dict(config.get("policy"), config["preprocessing_version"])
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if config.get("params") != shape.params:
        raise InputError(
            f"{where}: params is {config.get('params')!r:.80}, its widths give {shape.params}"
        )
    if shape.params * 4 > MAX_WEIGHTS:
        raise InputError(f"{where}: {shape.params:,} parameters are more than can be loaded")
    sampling = _sampling(config.get("sampling"), where)
    limit = 4 * shape.params + files.MEGABYTE
    data = files.read_bounded(files.inside(folder, "model.safetensors"), limit)
    policy = _policy(shape, data, folder / "model.safetensors")
    numerics = _numerics(config.get("numerics"), where)
    _self_test(policy, files.inside(folder, "parity.safetensors"), numerics)
    return Entry(folder.resolve().name, policy, sampling, config, hashlib.sha256(data).hexdigest())


def _sampling(value: object, where: Path) -> Sampling:
    if not isinstance(value, dict) or not _is_number(value.get("temperature")):
        raise InputError(f"{where}: sampling needs a temperature")
    patience, min_p = value.get("patience", 0), value.get("min_p", 0.0)
    if isinstance(patience, bool) or not isinstance(patience, int):
        raise InputError(f"{where}: sampling's patience is a whole number")
    if not _is_number(min_p):
        raise InputError(f"{where}: sampling's min_p is a number")
    try:
        return Sampling(float(value["temperature"]), patience, float(min_p))
    except OverflowError:  # an integer of hundreds of digits
        raise InputError(f"{where}: the temperature is too large") from None
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _numerics(value: object, where: Path) -> str:
    """SHA-256 of the logits in play that the entry states; "" in entries from before they did."""
    if value is None:
        return ""
    if not isinstance(value, dict) or set(value) != {"name", "logits_sha256"}:
        raise InputError(f"{where}: numerics needs exactly name and logits_sha256")
    if value["name"] != arithmetic.NUMERICS:
        raise InputError(
            f"{where}: numerics are {str(value['name'])[:50]!a}, this version of nhzoo computes "
            f"{arithmetic.NUMERICS!r}"
        )
    digest = value["logits_sha256"]
    if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise InputError(f"{where}: numerics: logits_sha256 is no SHA-256")
    return digest


def _policy(config: PolicyConfig, data: bytes, where: Path) -> Policy:
    """Build the policy from weights whose names, shapes, types and values are checked first."""
    with torch.device("meta"):
        policy = Policy(config)
    wanted = {name: list(tensor.shape) for name, tensor in policy.state_dict().items()}
    try:
        tensors = safetensors.deserialize(data)  # type: ignore[no-untyped-call]
        shapes = {name: list(info["shape"]) for name, info in tensors}
        types = {info["dtype"] for _, info in tensors}
        if shapes != wanted:
            names = sorted(
                name
                for name in shapes.keys() | wanted.keys()
                if shapes.get(name) != wanted.get(name)
            )
            raise InputError(
                f"{where}: tensor {names[0]!r} has shape {shapes.get(names[0])}, "
                f"the config gives {wanted.get(names[0])}"
            )
        if types != {"F32"}:
            raise InputError(f"{where}: holds {', '.join(sorted(types))}, float32 is needed")
        weights = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise InputError(f"{where}: not valid safetensors ({str(error).splitlines()[0]})") from None
    for name, tensor in weights.items():
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{where}: tensor {name!r} holds NaN or infinite values")
    policy.load_state_dict(weights, assign=True)
    return policy.requires_grad_(False).eval()


def _self_test(policy: Policy, path: Path, numerics: str) -> None:
    """Run the training's forward pass and the code that plays on the fixed input."""
    try:
        parity = safetensors.numpy.load(files.read_bounded(path, MAX_PARITY))
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path}: not valid safetensors ({str(error).splitlines()[0]})") from None
    if set(parity) != {*_PARITY_INPUT, "logits"}:
        raise InputError(f"{path}: needs exactly {', '.join(_PARITY_INPUT)} and logits")
    shape = parity["previous"].shape
    expected = {
        "chars": (*shape, 24, 80),
        "colors": (*shape, 24, 80),
        "cursor": (*shape, 2),
        "previous": shape,
    }
    if len(shape) != 2 or not 1 <= math.prod(shape) <= MAX_PARITY_FRAMES:
        raise InputError(
            f"{path}: previous has shape {shape}; time x batch of at most {MAX_PARITY_FRAMES} "
            "frames is needed"
        )
    for name, dtype in _PARITY_INPUT.items():
        if parity[name].shape != expected[name] or parity[name].dtype != dtype:
            raise InputError(f"{path}: {name} has the wrong shape or type")
    wanted, played = parity["logits"], _play(policy, parity)
    for logits in (_probe(policy, parity), played):
        if wanted.shape != logits.shape or not np.isfinite(wanted).all():
            raise InputError(f"{path}: logits have the wrong shape or are not finite")
        off = np.abs(logits - wanted) / np.maximum(np.abs(wanted), 1.0)
        if not float(off.max(initial=0.0)) <= PARITY_RTOL:  # NaN fails too
            raise InputError(
                f"{path}: the self-test fails: outputs differ by {float(off.max()):.1e} "
                f"(allowed {PARITY_RTOL:.0e}), so the weights are not the published ones"
            )
    if numerics and hashlib.sha256(played.tobytes()).hexdigest() != numerics:
        raise InputError(
            f"{path}: the self-test fails: the logits in play are other bits than config.json "
            "states, so the weights are not the published ones"
        )


@torch.no_grad()
def _probe(policy: Policy, probe: Mapping[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    time, batch = probe["previous"].shape
    encoded = _features(policy, probe)
    logits, _ = policy(to_tensors(encoded, time, batch), policy.initial_state(batch))
    return np.ascontiguousarray(logits.numpy())


def _features(policy: Policy, probe: Mapping[str, np.ndarray[Any, Any]]) -> features.Features:
    chars, colors, cursor, previous = (probe[name] for name in _PARITY_INPUT)
    return features.encode_games(chars, colors, cursor, previous, policy.config.preprocessing)


def _play(policy: Policy, probe: Mapping[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Logits of the same input, float32 [T, B, 121], by the code that plays."""
    time, batch = probe["previous"].shape
    encoded = vars(_features(policy, probe))
    player = Inference(policy, batch)
    states = [np.zeros((batch, policy.config.hidden), np.float32)] * LAYERS
    logits = []
    for t in range(time):
        step = features.Features(**{name: array[t] for name, array in encoded.items()})
        found, states = player.step(step, states)
        logits.append(found)
    return np.stack(logits)
