"""Fixtures that many tests share: a debug-size policy, a short recorded game, the shared data."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

# Each test process and what it starts compute in one thread: `make test` runs two at a time.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
import torch

from nhzoo.envs.actions import ACTION_KEYS
from nhzoo.envs.game import Game
from nhzoo.envs.protocols import GameSpec
from nhzoo.policy import checkpoint
from nhzoo.policy.config import PolicyConfig
from nhzoo.policy.network import Policy
from nhzoo.runtime import files
from tests.helpers.hub import Hub

# The hub's client reads these when it is imported: no test asks the real hub by accident.
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_TELEMETRY="1")
for _name in ("HF_ENDPOINT", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HOME", "HF_HUB_CACHE"):
    os.environ.pop(_name, None)

# Compiled code outlives the test run, as a user's does: compiling takes a minute.
os.environ.setdefault("NUMBA_CACHE_DIR", os.fspath(files.cache_folder()))

torch.set_num_threads(1)

# What a machine may lack, by the words of a skip, and how to get it.
LACKING = {
    "chromium": "Chromium (Debian: chromium)",
    "playwright": "the dev extra (playwright)",
    "axe": "the dev extra (axe-playwright-python)",
    "could not import": "the dev extra",
    "expert` is not": "the extra `expert`",
    "cuda": "a CUDA device",
    "compiler": "a C compiler (Debian: gcc)",
    "mounted": "the right to mount a file system",
    "shared": "the shared data (NHZOO_SHARED)",
    "published": "the shared data (NHZOO_SHARED)",
}


def pytest_terminal_summary(terminalreporter):
    """What was not tested here, by what this machine lacks."""
    skips = terminalreporter.stats.get("skipped", [])
    reasons = [str(skip.longrepr[2]).removeprefix("Skipped: ") for skip in skips]
    lacks = (
        next((lack for word, lack in LACKING.items() if word in reason.lower()), reason)
        for reason in reasons
    )
    for lack, count in Counter(lacks).most_common():
        terminalreporter.write_line(f"not tested here, for want of {lack}: {count}")


SHARED = Path(os.environ.get("NHZOO_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Packed frames of tests go to a folder of the test run, shared by its tests."""
    base = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("NHZOO_CACHE", os.fspath(base))


@pytest.fixture(autouse=True)
def _only_loopback(monkeypatch, request):
    """Whatever would leave this machine fails its test."""
    if request.node.get_closest_marker("cluster"):
        return  # Ray's nodes go by this machine's own address
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            assert address[0] in ("127.0.0.1", "::1"), f"a test contacts {address}"
        return connect(self, address)

    look_up = socket.getaddrinfo

    def guarded_look_up(host, *arguments, **options):
        here = host in ("::1", "localhost", "", None) or str(host).startswith("127.0.0.1")
        assert here, f"a test looks up {host}"
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_look_up)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub of the test's own, with the real client pointed to it, here and in subprocesses.

    The client's caches are new; its waits between tries take no time. Subprocesses have the hub as
    their proxy as well, so that it hears of whatever they want from other hosts.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    home = tmp_path / "hf-home"
    with Hub() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setenv("HF_HOME", str(home))
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("NHZOO_CACHE", str(tmp_path / "nhzoo-cache"))
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            monkeypatch.setenv(name, served.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "127.0.0.1,localhost")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        impatient = SimpleNamespace(**vars(time) | {"sleep": lambda seconds: None})
        for module in ("utils._http", "file_download"):
            monkeypatch.setattr(f"huggingface_hub.{module}.time", impatient)
        close_session()
        yield served
        close_session()
    assert not served.foreign


def content(folder: Path) -> dict[str, bytes]:
    """The files of a folder, as they are put on a hub."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def tiny(hub, shared_entry):
    """nhzoo/tiny on the hub: an entry of debug size."""
    return hub.add("nhzoo/tiny", content(shared_entry))


@pytest.fixture
def offline(monkeypatch):
    """A function after which HF_HUB_OFFLINE is set, as if it had been from the start."""

    def go():
        from huggingface_hub import constants

        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    return go


@pytest.fixture(scope="session")
def expert_monk() -> Path:
    """The folder of expert games that developers and CI see and users do not."""
    folder = SHARED / "data" / "expert-monk"
    if not folder.is_dir():
        pytest.skip("the shared expert data is not on this machine")
    return folder


def random_keys(count: int, seed: int = 0) -> bytes:
    """Keys of a player who presses anything, but mostly moves."""
    random = np.random.default_rng(seed)
    moves = np.frombuffer(b"hjklyubn", np.uint8)
    any_key = random.choice(ACTION_KEYS, count)
    return bytes(np.where(random.random(count) < 0.8, random.choice(moves, count), any_key))


def record(folder: Path, games: int, steps: int) -> Path:
    """Write a trace set of `games` short games; every second one is held out."""
    game = Game()
    rows = []
    for number in range(games):
        spec = GameSpec(core=50 + number, disp=7, ubirthday=1_700_000_000 + number)
        game.start(spec)
        for key in random_keys(steps, number):
            game.step(key)
            if game.over:
                break
        keys = bytes(game.keys)
        files.atomic_write(folder / "keys" / f"{number}.xz", files.compress_xz(keys))
        rows.append(
            {
                "game": number,
                "seeds": {"core": spec.core, "disp": spec.disp, "reseed": False, "lgen": None},
                "character": spec.character,
                "playername": spec.name,
                "fix_moon_phase": True,
                "ubirthday": spec.ubirthday,
                "keys": len(keys),
                "sha256": hashlib.sha256(keys).hexdigest(),
                "split": "validation" if number % 2 else "train",
            }
        )
    game.close()
    files.atomic_write(folder / "games.jsonl", files.dump_jsonl(rows))
    return folder


@pytest.fixture(scope="session")
def small_set(tmp_path_factory) -> Path:
    """A trace set of four games of about 600 steps."""
    return record(tmp_path_factory.mktemp("traces") / "small", games=4, steps=600)


def make_entry(folder: Path, seed: int = 0, params: int = 20_000, temperature: float = 1.0) -> Path:
    """An untrained zoo entry of debug size."""
    policy = Policy(PolicyConfig.for_params(params), torch.Generator().manual_seed(seed))
    random = np.random.default_rng(seed)
    probe = {
        "chars": random.integers(32, 127, (3, 2, 24, 80)).astype(np.uint8),
        "colors": random.integers(0, 16, (3, 2, 24, 80)).astype(np.int8),
        "cursor": np.array([[[5, 40], [22, 79]]] * 3, np.uint8),
        "previous": random.integers(0, 256, (3, 2)).astype(np.uint8),
    }
    checkpoint.save_entry(
        folder, policy, checkpoint.Sampling(temperature), {}, "untrained", "# a card\n", probe
    )
    return folder


@pytest.fixture
def entry(tmp_path) -> Path:
    """A fresh debug-size entry that a test may damage."""
    return make_entry(tmp_path / "tiny-agent")


@pytest.fixture(scope="session")
def shared_entry(tmp_path_factory) -> Path:
    """A debug-size entry that tests only read."""
    return make_entry(tmp_path_factory.mktemp("entries") / "tiny-agent")


def read_rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]
