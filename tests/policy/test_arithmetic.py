"""Arithmetic of one order: the same bits in every place, batch and vector width, on every make."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import safetensors.numpy
import torch

from nhzoo.errors import NhzooError
from nhzoo.policy import arithmetic, checkpoint, features
from nhzoo.policy.inference import Inference
from tests import ROOT

AGENTS = ROOT / "agents"

# SHA-256 of the logits in play of three entries on their parity inputs. They are the same on Intel
# and AMD, with AVX-512, AVX2 or neither: a machine that fails here plays other games than the rest.
LOGITS = {
    "bc-lstm-100k": "f6c5320cca45b3573bc17cf4fed5b4eb9298bc3c55db0372abd19429c803f667",
    "bc-lstm-483k": "8b58430f8f99fa05f5c02a42e84e8f934f3b9d1cd73216eabb05a9a61c1404f7",
    "bc-lstm-1m": "d4a42313c62fa1c9cd59839b3353ff1f1b2ab93f54da00348de00fbda0f180c9",
}

PROCESSORS = {
    "AVX2": ("haswell", "+sse4.2,+popcnt,+avx,+avx2,+fma,+bmi,+bmi2,+f16c"),
    "no FMA": ("nehalem", "+sse4.2,+popcnt"),
}
"""What numba is told to compile for. This machine runs all of it, whatever it has besides."""


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def product(a: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """`a` [n, inputs] times the transpose of `weight` [outputs, inputs]."""
    shape = arithmetic.panels_of(len(weight)), a.shape[1], arithmetic.LANES
    panels = np.zeros(shape, np.float32)
    arithmetic.pack(weight, panels, 0)
    given = np.zeros((arithmetic.padded(len(a)), a.shape[1]), np.float32)
    given[: len(a)] = a
    out = np.empty((len(given), len(weight)), np.float32)
    arithmetic.multiply(given, panels, out, len(a))
    return out[: len(a)]


def logits(name: str) -> str:
    """The digest of an entry's logits in play on its parity input."""
    folder = AGENTS / name
    policy = checkpoint.load_entry(folder).policy
    parity = safetensors.numpy.load((folder / "parity.safetensors").read_bytes())
    return hashlib.sha256(checkpoint._play(policy, parity).tobytes()).hexdigest()


def keep_encoded(folder: Path) -> None:
    """Keep what the parity inputs are encoded as: for another processor that takes 10 s to compile.

    They are whole numbers, which every processor computes alike.
    """
    folder.mkdir()
    for name in LOGITS:
        parity = safetensors.numpy.load((AGENTS / name / "parity.safetensors").read_bytes())
        screens = [parity[part] for part in checkpoint._PARITY_INPUT]
        version = checkpoint.load_entry(AGENTS / name).policy.config.preprocessing
        encoded = vars(features.encode_games(*screens, version))
        assert all(array.dtype.kind in "iub" for array in encoded.values())
        np.savez(folder / digest_of(screens), **encoded)


def take_encoded(folder: str) -> None:
    """Have `encode_games` give what is kept in a folder."""

    def kept(*given: Any) -> features.Features:
        *screens, _ = given  # the last is the version
        with np.load(Path(folder, digest_of(screens))) as arrays:
            return features.Features(**arrays)

    features.encode_games = kept


def digest_of(arrays: Sequence[np.ndarray]) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest() + ".npz"


def rounded(value: Fraction) -> np.float32:
    """A rational number to the nearest float32, ties to even, without rounding twice."""
    near = np.float32(float(value))
    around = (np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf)))
    return min(around, key=lambda c: (abs(Fraction(float(c)) - value), c.view(np.int32) & 1))


def test_an_element_is_one_chain_of_fused_multiply_adds():
    a, weight = random(3, 29), random(21, 29, seed=1)
    found = product(a, weight)
    for row in range(3):
        for column in range(21):
            total = np.float32(0)
            for k in range(29):
                exact = Fraction(float(a[row, k])) * Fraction(float(weight[column, k]))
                total = rounded(exact + Fraction(float(total)))
            assert found[row, column] == total


@pytest.mark.parametrize("inputs", [1, 45, 187])
@pytest.mark.parametrize("outputs", [1, 16, 35, 348])
def test_products_are_products(inputs, outputs):
    a, weight = random(19, inputs), random(outputs, inputs, seed=1)
    exact = a.astype(np.float64) @ weight.T.astype(np.float64)
    np.testing.assert_allclose(product(a, weight), exact, rtol=1e-4, atol=1e-4)


def test_layers_are_packed_side_by_side_and_rows_keep_their_bits_beside_any_others():
    a, first, second = random(40, 33), random(5, 33, seed=1), random(30, 33, seed=2)
    panels = np.zeros((arithmetic.panels_of(35), 33, arithmetic.LANES), np.float32)
    arithmetic.pack(first, panels, 0)
    arithmetic.pack(second, panels, 5)
    out = np.empty((40, 35), np.float32)
    arithmetic.multiply(a, panels, out, 40)
    assert out[:, :5].tobytes() == product(a, first).tobytes()
    assert out[:, 5:].tobytes() == product(a, second).tobytes()
    whole = product(a, second)
    for n in range(1, 18):
        for start in (0, 3, 23):
            some = slice(start, start + n)
            assert product(a[some], second).tobytes() == whole[some].tobytes()
    wild = a.copy()
    wild[1::2] = np.nan
    assert product(wild, second)[::2].tobytes() == whole[::2].tobytes()


@numba.njit
def exponentials(single, double):
    for i in range(len(single)):
        single[i] = arithmetic.exp32(single[i])
    for i in range(len(double)):
        double[i] = arithmetic.exp64(double[i])


def test_exponentials_are_within_two_units_in_the_last_place():
    single = np.linspace(-87, 80, 300_001).astype(np.float32)
    double = -np.linspace(0, 700, 300_001)
    exact = np.exp(single.astype(np.float64)), np.exp(double.astype(np.longdouble))
    exponentials(single, double)
    for found, wanted in zip((single, double), exact, strict=True):
        assert (np.abs(found - wanted) <= 2 * np.spacing(found)).all()
    odd = np.array([np.nan, -np.inf, np.inf, 0], np.float32)
    far = np.array([np.nan, -np.inf, 0.0])
    exponentials(odd, far)
    assert np.isnan([odd[0], far[0]]).all() and odd[3] == far[2] == 1
    assert 0 < odd[1] < 2e-38 and 5e34 < odd[2] < 6e34 and 0 < far[1] < 1e-300


@pytest.mark.parametrize("name", LOGITS)
def test_an_entry_gives_the_same_bits_on_every_machine(name):
    assert logits(name) == LOGITS[name]


@pytest.mark.slow
@pytest.mark.parametrize("processor", PROCESSORS)
def test_other_processors_compute_the_same(processor, tmp_path):
    cpu, features = PROCESSORS[processor]
    code = (
        "import json, sys; from nhzoo.policy import arithmetic; "
        "from tests.policy import test_arithmetic as t; "
        "t.take_encoded(sys.argv[1]); found = {name: t.logits(name) for name in t.LOGITS}; "
        "print(json.dumps([arithmetic.ROWS, arithmetic.probe(), found]))"
    )
    keep_encoded(tmp_path / "encoded")
    env = os.environ | {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features}
    env |= {"NUMBA_CACHE_DIR": str(tmp_path / "compiled"), "MKL_CBWR": "COMPATIBLE"}

    command = [sys.executable, "-c", code, tmp_path / "encoded"]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [4, arithmetic.DIGEST, LOGITS]


def test_a_machine_that_computes_otherwise_plays_no_network(shared_entry):
    policy = checkpoint.load_entry(shared_entry).policy
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormal numbers")
    arithmetic.check.cache_clear()
    try:
        with pytest.raises(NhzooError, match=r"gives other bits than fma-chain-1 .*flush_denormal"):
            Inference(policy, 2)
    finally:
        torch.set_flush_denormal(False)
    Inference(policy, 2)
