"""Entries on disk: what loads, and every way in which a folder can be unusable."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nhzoo
from nhzoo.agents import registry
from nhzoo.agents.base import PolicyAgent, set_row
from nhzoo.agents.loading import load
from nhzoo.errors import InputError
from nhzoo.policy import checkpoint
from nhzoo.policy.arithmetic import NUMERICS
from nhzoo.policy.inference import choose
from tests.conftest import make_entry


def one_line(folder) -> str:
    with pytest.raises(InputError) as caught:
        checkpoint.load_entry(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.slow
def test_an_entry_loads_without_the_compiler_of_torch(shared_entry):
    code = (
        "import pathlib, sys; from nhzoo.policy import checkpoint as checkpoints\n"
        "checkpoints.load_entry(pathlib.Path(sys.argv[1]))\n"
        "assert not {'torch._dynamo', 'sympy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, shared_entry], check=True)


def test_an_entry_has_the_contracts_files_and_loads(entry):
    assert sorted(path.name for path in entry.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "parity.safetensors",
    ]
    loaded = checkpoint.load_entry(entry)
    assert loaded.config["params"] == sum(p.numel() for p in loaded.policy.parameters())
    assert loaded.name == "tiny-agent"
    assert len(loaded.revision) == 64


def test_load_by_name_by_folder_and_from_code(entry, monkeypatch):
    assert isinstance(nhzoo.load(entry), PolicyAgent)
    monkeypatch.setenv("NHZOO_AGENTS", os.fspath(entry.parent))
    assert nhzoo.load("tiny-agent").revision == nhzoo.load(entry).revision
    assert "tiny-agent" in [agent.name for agent in nhzoo.list_agents()]
    assert nhzoo.load("nhzoo.agents.base:RandomAgent").name == "random"
    for bad in (
        "no-such-agent",
        "nhzoo.agents.base:nothing",
        "no.module:x",
        "math:floor",
        "hf://a/b",
    ):
        with pytest.raises(InputError):
            nhzoo.load(bad)


def test_every_entry_of_the_zoo_loads_and_passes_its_self_test():
    entries = [agent for agent in registry.list_agents() if agent.path]
    for agent in entries:
        assert checkpoint.load_entry(agent.path).config["params"] == agent.params


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema_version": 99}, "schema_version is 99"),
        ({"schema_version": None}, "schema_version"),
        ({"architecture": "transformer"}, "architecture"),
        ({"preprocessing_version": 0}, "preprocessing_version"),
        ({"action_table_sha256": "0"}, "action_table"),
        ({"policy": {}}, "policy config"),
        ({"policy": [1, 2]}, "policy config"),
        ({"params": 5}, "params is 5"),
        ({"sampling": {"temperature": -1}}, "temperature"),
        ({"sampling": {"temperature": "hot"}}, "temperature"),
        ({"sampling": {"temperature": 10**400}}, "temperature is too large"),
        ({"schema_version": "1" * 9_000}, "1" * 79 + ", this version"),
        ({"params": 10**3_000}, "0" * 79 + ", its widths"),
        ({"numerics": []}, "numerics needs exactly name and logits_sha256"),
        ({"numerics": {"name": "x-9", "logits_sha256": "0" * 64}}, "numerics are 'x-9', this ver"),
        ({"numerics": {"name": NUMERICS, "logits_sha256": ""}}, "logits_sha256 is no SHA-256"),
        ({"numerics": {"name": NUMERICS, "logits_sha256": "0" * 64}}, "other bits than config"),
        ({"sampling": None}, "temperature"),
        ({"sampling": {"temperature": 1, "patience": -1}}, "patience"),
        ({"sampling": {"temperature": 1, "patience": 1.5}}, "patience"),
        ({"sampling": {"temperature": 1, "patience": True}}, "patience"),
        ({"sampling": {"temperature": 1, "patience": 10**9}}, "patience"),
    ],
)
def test_configs_that_do_not_fit(entry, change, reason):
    edit_config(entry, **change)
    assert reason in one_line(entry)


def test_huge_widths_are_refused_before_memory_is_taken(entry):
    policy = json.loads((entry / "config.json").read_text())["policy"]
    from nhzoo.policy.config import PolicyConfig

    policy["hidden"] = policy["crop"] = 1 << 14
    edit_config(entry, policy=policy, params=PolicyConfig.from_dict(policy).params)
    assert "more than can be loaded" in one_line(entry)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": NaN}', '{"a": 1, "a": 2}', "[" * 100_000])
def test_configs_that_are_not_json(entry, text):
    (entry / "config.json").write_text(text)
    assert "config.json" in one_line(entry)


def test_missing_files_are_named(entry):
    for name in ("parity.safetensors", "model.safetensors", "config.json"):
        (entry / name).unlink()
        assert f"{name}: no such file" in one_line(entry)
    assert "no such folder" in one_line(entry / "nothing")


def test_truncated_and_hostile_weights(entry):
    path = entry / "model.safetensors"
    whole = path.read_bytes()
    header = int.from_bytes(whole[:8], "little")
    for data in (
        b"",
        whole[:7],
        whole[:-1],
        whole[: header // 2],
        whole + b"trailing",
        (1 << 62).to_bytes(8, "little") + whole[8:],
        b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.",
        whole[:8] + whole[8:].replace(b'"F32"', b'"F64"'),
        whole[:8] + whole[8:].replace(b"[0,", b"[1,", 1),
    ):
        path.write_bytes(data)
        assert "model.safetensors" in one_line(entry)


def resave(entry, **changes):
    path = entry / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    tensors.update({name.replace("__", "."): value for name, value in changes.items()})
    path.write_bytes(safetensors.numpy.save({k: v for k, v in tensors.items() if v is not None}))


def test_wrong_tensors_are_named(entry):
    resave(entry, head__bias=np.zeros(7, np.float32))
    assert "'head.bias' has shape [7], the config gives [121]" in one_line(entry)
    resave(entry, head__bias=None)
    assert "'head.bias' has shape None" in one_line(entry)
    resave(entry, head__bias=np.zeros(121, np.float64))
    assert "F64" in one_line(entry)
    resave(entry, head__bias=np.full(121, np.nan, np.float32))
    assert "NaN" in one_line(entry)
    resave(entry, head__bias=np.zeros(121, np.float32), extra=np.zeros(3, np.float32))
    assert "'extra'" in one_line(entry)


def test_the_self_test_catches_other_weights(entry):
    tensors = safetensors.numpy.load_file(entry / "model.safetensors")
    resave(entry, head__bias=tensors["head.bias"] + np.float32(0.01))
    assert "self-test fails" in one_line(entry)


def test_a_parity_file_that_tests_nothing_is_refused(entry):
    path = entry / "parity.safetensors"
    parity = safetensors.numpy.load_file(path)
    empty = {name: array[:0] for name, array in parity.items()}
    for bad in (
        {},
        {"logits": parity["logits"]},
        empty,
        parity | {"chars": parity["chars"][:1]},
        parity | {"chars": parity["chars"].astype(np.int32)},
        parity | {"logits": np.full_like(parity["logits"], np.nan)},
    ):
        path.write_bytes(safetensors.numpy.save(bad))
        assert "parity.safetensors" in one_line(entry)


def test_links_that_leave_the_folder_are_refused(entry, tmp_path):
    outside = tmp_path / "elsewhere.safetensors"
    (entry / "model.safetensors").rename(outside)
    (entry / "model.safetensors").symlink_to(outside)
    assert "points outside" in one_line(entry)
    (entry / "config.json").unlink()
    (entry / "config.json").symlink_to("/etc/passwd")
    assert "points outside" in one_line(entry)


@pytest.mark.slow
@given(data=st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_mutated_entries_give_one_line_or_the_same_agent(shared_entry, tmp_path_factory, data):
    import shutil

    folder = tmp_path_factory.mktemp("mutant") / "x"
    shutil.copytree(shared_entry, folder)
    path = folder / data.draw(
        st.sampled_from(["config.json", "model.safetensors", "parity.safetensors"])
    )
    content = bytearray(path.read_bytes())
    start = data.draw(st.integers(0, min(len(content), 4_000) - 1))
    content[start : start + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=30))
    path.write_bytes(content)
    message = ""
    try:
        checkpoint.load_entry(folder)
    except InputError as error:
        message = str(error)
    assert "\n" not in message
    shutil.rmtree(folder)


def test_sampling_takes_the_first_action_whose_cumulative_probability_exceeds_the_uniform():
    logits = np.log(np.array([[0.2, 0.5, 0.3]] * 5))
    uniform = np.array([0.0, 0.1999, 0.2001, 0.6999, 0.999999])
    assert choose(logits, uniform, 1.0).tolist() == [0, 0, 1, 1, 2]
    assert choose(logits, uniform, 0).tolist() == [1] * 5
    edge = np.nextafter(1.0, 0.0)
    random = np.random.default_rng(0).normal(size=(2_000, 121)).astype(np.float32)
    assert choose(random, np.full(2_000, edge), 1.0).max() <= 120
    with pytest.raises(ValueError, match="not finite"):
        choose(np.array([[0.0, np.nan]]), np.array([0.5]), 1.0)


def test_sampled_frequencies_are_the_probabilities():
    logits = np.array([[0.0, 1.0, -1.0, 0.5]])
    probabilities = np.exp(logits[0]) / np.exp(logits[0]).sum()
    uniform = np.random.default_rng(1).random(20_000)
    counts = np.bincount(choose(np.repeat(logits, 20_000, 0), uniform, 1.0), minlength=4)
    np.testing.assert_allclose(counts / 20_000, probabilities, atol=0.015)


def test_rows_do_not_depend_on_their_neighbours(tmp_path):
    """At a fixed batch size, a row's logits are the same bits whatever the other rows hold."""
    agent = load(make_entry(tmp_path / "e", params=300_000))
    random = np.random.default_rng(0)

    def observation(seed):
        r = np.random.default_rng(seed)
        return {
            "tty_chars": r.integers(32, 127, (16, 24, 80)).astype(np.uint8),
            "tty_colors": r.integers(0, 16, (16, 24, 80)).astype(np.int8),
            "tty_cursor": np.stack([r.integers(0, 24, 16), r.integers(0, 80, 16)], 1).astype(
                np.uint8
            ),
        }

    torch.set_num_threads(1)
    base, other = observation(1), observation(2)
    state = agent.initial_state(16)
    logits, _ = agent.logits(base, state)
    for row in range(16):
        to = int(random.integers(0, 16))
        for name in base:
            other[name][to] = base[name][row]
        moved, _ = agent.logits(other, state)
        np.testing.assert_array_equal(moved[to], logits[row])


def test_set_row_reaches_every_array():
    state = {"a": np.zeros((3, 2)), "b": [np.ones(3), (torch.zeros(3, 1),)], "c": None}
    fresh = {
        "a": np.full((1, 2), 7.0),
        "b": [np.array([8.0]), (torch.full((1, 1), 9.0),)],
        "c": None,
    }
    set_row(state, 1, fresh)
    assert state["a"].tolist() == [[0, 0], [7, 7], [0, 0]]
    assert state["b"][0].tolist() == [1, 8, 1]
    assert state["b"][1][0].tolist() == [[0], [9], [0]]
    with pytest.raises(TypeError):
        set_row({"a": 3}, 0, {"a": 4})
