"""What makes a score worth something: stolen weights, claims, names, authors; INTEGRITY.md."""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from nhzoo.envs.protocols import get_protocol
from nhzoo.errors import CheckFailed, InputError
from nhzoo.evaluation.results import read_episodes
from nhzoo.leaderboard import claims as names
from nhzoo.leaderboard import kinship, maintaining
from nhzoo.leaderboard.board import as_csv, as_json, entry_claims, read_board
from nhzoo.leaderboard.checks import check, name_problems
from nhzoo.leaderboard.claims import candidate_of
from nhzoo.leaderboard.entry_checks import Known, identity, training_problems
from nhzoo.leaderboard.submission import NAME
from nhzoo.leaderboard.submitting import make
from nhzoo.policy.checkpoint import Sampling, load_entry, save_entry
from nhzoo.policy.config import LAYERS, PolicyConfig
from nhzoo.policy.network import Policy
from nhzoo.publishing import bundle
from nhzoo.runtime import files, pool
from tests import ROOT
from tests.conftest import make_entry
from tests.helpers import fuzz_submissions as fuzz
from tests.helpers.fuzz_submissions import PROTOCOLS, Altered
from tests.leaderboard.test_board import row

AGENTS = ROOT / "agents"
PAGE = ROOT / "leaderboard" / "INTEGRITY.md"
NHZOO = [sys.executable, "-m", "nhzoo"]

# The client's own upload calls its transport in a way that is going out of use.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


# Weights


def variant(original: Path, folder: Path, change, training: dict | None = None) -> Path:
    """An entry made of another's weights by `change`, its self-test its own."""
    entry = load_entry(original)
    with torch.no_grad():
        change(entry.policy)
    parity = safetensors.torch.load_file(original / "parity.safetensors")
    probe = {name: array.numpy() for name, array in parity.items() if name != "logits"}
    said = entry.config["training"] if training is None else training
    save_entry(folder, entry.policy, Sampling(0.9), said, "mine", "# mine\n", probe)
    return folder


def noise(share: float):
    """Adds noise of a share of each tensor's spread."""

    def change(policy: Policy) -> None:
        generator = torch.Generator().manual_seed(7)
        for tensor in policy.parameters():
            spread = tensor.std(correction=0)
            tensor += share * spread * torch.randn(tensor.shape, generator=generator)

    return change


def reordered(policy: Policy) -> None:
    """The units of the core in another order: another file, the same function."""
    order = torch.randperm(policy.config.hidden, generator=torch.Generator().manual_seed(3))
    for name in (
        "join",
        *(f"{gate}{i}" for gate in ("forget", "input", "candidate") for i in range(LAYERS)),
    ):
        layer = getattr(policy, name)
        layer.weight.copy_(layer.weight[order])
        layer.bias.copy_(layer.bias[order])
        if name != "join":
            layer.weight.copy_(layer.weight[:, order])
    for layer in (policy.head, policy.query, policy.offer):
        layer.weight.copy_(layer.weight[:, order])


def known(*folders: Path) -> list[Known]:
    return [Known(folder.name, load_entry(folder), None) for folder in folders]


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return make_entry(tmp_path_factory.mktemp("zoo") / "original")


def test_a_line_of_metadata_and_a_temperature_hide_nothing(original, tmp_path):
    copy = shutil.copytree(original, tmp_path / "copy")
    tensors = safetensors.torch.load_file(copy / "model.safetensors")
    data = safetensors.torch.save(tensors, {"made": "by me"})
    files.atomic_write(copy / "model.safetensors", data)
    config = files.read_json(copy / "config.json")
    config["sampling"]["temperature"] *= 0.97
    files.atomic_write(copy / "config.json", files.dump_json(config))
    stolen, others = load_entry(copy), known(original)
    assert stolen.revision != others[0].entry.revision  # the hash of the file says: another
    assert kinship.tensor_hash(stolen.policy) == kinship.tensor_hash(others[0].entry.policy)
    assert identity(stolen, others) == (["its weights are those of original"], [])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda policy: policy.scale_logits(0.97), "are those of original, but for a little"),
        (noise(0.01), "are those of original, but for a little"),
        (noise(0.2), "were made of those of original"),
        (reordered, "were made of those of original"),
        (lambda policy: (reordered(policy), noise(0.1)(policy)), "were made of those of original"),
        (lambda policy: policy.scale_logits(3.0), "are those of original, but for a little"),
    ],
)
def test_changed_copies_are_known_again(original, tmp_path, change, match):
    copy = load_entry(variant(original, tmp_path / "copy", change))
    (problem,), _ = identity(copy, known(original))
    assert match in problem, problem


def test_what_two_networks_say_of_the_same_screens_tells(original, tmp_path):
    """Where no weight is in its place: the same function is the same agent."""
    folder = fuzz_screens(tmp_path)
    one = load_entry(original).policy
    same = load_entry(variant(original, tmp_path / "same", reordered)).policy
    sharp = load_entry(variant(original, tmp_path / "sharp", lambda p: p.scale_logits(0.5))).policy
    other = load_entry(make_entry(tmp_path / "other", seed=9)).policy
    assert kinship.compare(one, same).distance > 0.3
    for copy in (same, sharp):
        assert kinship.like_logits(one, copy, folder) > 0.999_99
    assert kinship.like_logits(one, other, folder) < 0.9
    problems, _ = identity(load_entry(tmp_path / "same"), known(original), folder)
    assert problems[0].startswith("its weights are those of original, but for a little")


def fuzz_screens(tmp_path: Path) -> list[kinship.Screens]:
    """Screens as a game may show them, of two games."""
    chance = np.random.default_rng(0)
    return [
        (
            chance.integers(32, 127, (20, 24, 80)).astype(np.uint8),
            chance.integers(0, 16, (20, 24, 80)).astype(np.int8),
            np.tile(np.array([5, 40], np.uint8), (20, 1)),
            chance.integers(32, 127, 20).astype(np.uint8),
        )
        for _ in range(2)
    ]


def test_others_are_not_taken_for_copies(original, tmp_path):
    others = [make_entry(tmp_path / f"seed-{i}", seed=i) for i in range(1, 4)]
    others.append(make_entry(tmp_path / "larger", params=40_000))
    for one in others:
        rest = known(original, *(folder for folder in others if folder is not one))
        assert identity(load_entry(one), rest, fuzz_screens(tmp_path)) == ([], [])


def test_an_agent_may_go_on_from_anothers_weights_if_it_says_so(original, tmp_path):
    def start(folder: Path) -> dict:
        return {"start": {"entry": "x", "weights_sha256": load_entry(folder).revision}}

    child = variant(original, tmp_path / "child", noise(0.2), start(original))
    zoo = known(original)
    assert identity(load_entry(child), zoo) == (
        [], ["went on from the weights of original, as it says"]
    )  # fmt: skip
    silent = load_entry(variant(original, tmp_path / "silent", noise(0.2)))
    assert "does not name these as its training.start" in identity(silent, zoo)[0][0]
    other = make_entry(tmp_path / "other", seed=5)
    liar = load_entry(variant(original, tmp_path / "liar", noise(0.2), start(other)))
    assert "were made of those of original" in identity(liar, [*zoo, *known(other)])[0][0]
    # To say so makes no copy an agent of one's own.
    copy = load_entry(variant(original, tmp_path / "copy", noise(0.005), start(original)))
    assert "are those of original" in identity(copy, zoo)[0][0]
    # Nor does the start of the agent that was taken stand for that agent.
    family = known(original, child)
    second = load_entry(variant(child, tmp_path / "second", noise(0.1), start(original)))
    assert "were made of those of child" in identity(second, family)[0][0]
    third = load_entry(variant(child, tmp_path / "third", noise(0.1), start(child)))
    assert identity(third, family)[0] == []
    sibling = load_entry(
        variant(original, tmp_path / "s", lambda p: noise(0.2)(p), start(original))
    )
    assert identity(load_entry(original), family)[0] == [
        "its weights are those of original"
    ] and identity(load_entry(original), known(child)) == ([], [])
    assert sibling.revision == load_entry(child).revision or identity(sibling, family)[0] == []


def test_the_limits_lie_between_what_the_zoo_shows():
    """Agents and their starts on one side, all others on the other; figures of INTEGRITY.md."""
    zoo = {p.parent.name: load_entry(p.parent) for p in sorted(AGENTS.glob("*/config.json"))}
    related, others = [], []
    for a, b in itertools.combinations(zoo, 2):
        ours = kinship.lineage(zoo[b].config) == {zoo[a].revision}
        found = kinship.compare(zoo[b].policy, zoo[a].policy)
        (related if ours else others).append(found)
    assert len(related) == 3
    assert all(one.kin and not one.same for one in related)
    assert (
        min(one.correlation for one in related) > 0.98 and min(one.units for one in related) > 0.97
    )
    assert min(one.distance for one in related) > 2 * kinship.SAME_WEIGHTS
    assert not any(one.kin for one in others)
    assert max(one.correlation for one in others) < 0.26 and max(one.units for one in others) < 0.73
    for name, entry in zoo.items():
        rest = [Known(other, one, None) for other, one in zoo.items() if other != name]
        problems, notes = identity(entry, rest)
        assert problems == [] and bool(notes) == name.startswith("ks-")
        assert training_problems(AGENTS / name, entry.config, rest) == []


@pytest.mark.slow
def test_the_zoo_disagrees_on_screens_but_for_agents_and_their_starts():
    result = ROOT / "leaderboard/results/bc-lstm-483k/monk-lite-v1"
    games = kinship.first_screens(result, read_episodes(result), get_protocol("monk-lite-v1"))
    assert len(games) == kinship.GAMES
    wanted = ("bc-lstm-30k", "ks-lstm-30k", "bc-lstm-100k", "ks-lstm-100k", "bc-lstm-300k")
    zoo = {name: load_entry(AGENTS / name) for name in wanted}
    for a, b in itertools.combinations(zoo, 2):
        alike = kinship.like_logits(zoo[a].policy, zoo[b].policy, games)
        if kinship.lineage(zoo[b].config) == {zoo[a].revision}:
            assert 0.99 < alike < kinship.SAME_LOGITS
        else:
            assert alike < 0.9


def test_every_entry_of_the_zoo_stands_on_the_board():
    """So whoever takes its weights or its name meets it there, whatever the protocol."""
    agents = {row.agent for row in read_board(ROOT / "leaderboard", AGENTS).rows}
    assert {path.parent.name for path in AGENTS.glob("*/config.json")} <= agents


# A submission, whole


@pytest.fixture(scope="module")
def fuzz_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzz")
    os.environ["FUZZ_ROOT"] = os.fspath(root)
    fuzz.base.cache_clear()
    yield root
    del os.environ["FUZZ_ROOT"]
    fuzz.base.cache_clear()


@pytest.fixture
def quick(monkeypatch):
    """Games are replayed, audited and looked at in this process."""
    monkeypatch.setattr(pool, "run_tasks", fuzz.in_process)


def copy_of(kind: str, tmp_path: Path) -> Altered:
    original = fuzz.base(kind)
    return Altered(shutil.copytree(original, tmp_path / original.name), random.Random(0))


@pytest.fixture
def net(fuzz_root, tmp_path, quick) -> Altered:
    return copy_of("net", tmp_path)


def refused(altered: Altered, match: str, rows=(), **options) -> None:
    for asked in (None, "auto"):  # whatever tier is asked for
        report = check(candidate_of(altered.folder, PROTOCOLS), rows, asked, **options)
        assert not report.ok and report.tier == ""
        assert any(match in problem for problem in report.problems), report.problems


@pytest.mark.slow
def test_stolen_weights_are_refused_across_protocols_and_files(net, tmp_path):
    agents = tmp_path / "agents"
    shutil.copytree(net.folder / "entry", agents / "victim")
    weights = load_entry(agents / "victim").revision
    elsewhere = row("victim-monk-v1", 1, 0, 2, agent="victim", protocol="monk-v1", sha256=weights)
    refused(net, "its weights are those of victim-monk-v1, on the board already", [elsewhere])
    # Another file on the board, other metadata or another temperature: the tensors tell.
    accepted = replace(elsewhere, sha256="0" * 64, entry=agents / "victim")
    refused(net, "its weights are those of victim-monk-v1", [accepted])
    refused(net, "its weights are those of victim", agents=agents)
    shutil.copytree(agents / "victim", tmp_path / "own/net")  # as `nhzoo train --out agents/net`
    own = check(candidate_of(net.folder, PROTOCOLS), (), "auto", tmp_path / "own")
    assert own.tier == "audited"
    reorder = variant(agents / "victim", tmp_path / "moved/victim", reordered)
    refused(net, "its weights were made of those of victim", agents=reorder.parent)
    clean = check(candidate_of(net.folder, PROTOCOLS), (), "auto")
    assert clean.tier == "audited" and len(clean.tensors_sha256) == 64


@pytest.mark.slow
def test_one_agent_may_stand_on_several_boards_if_its_account_is_one(net):
    candidate = replace(candidate_of(net.folder, PROTOCOLS), author="hf:her")
    first = row("net-monk-v1", 1, 0, 2, agent="net", protocol="monk-v1", author="hf:her")
    first = replace(first, sha256=candidate.weights, entry=net.folder / "entry")
    assert check(candidate, [first], "auto").tier == "audited"
    for author in ("", "hf:him", "github:her"):
        report = check(replace(candidate, author=author), [first], "auto")
        assert report.tier == "" and "on the board already" in report.problems[0]


@pytest.mark.slow
def test_the_hub_is_asked_for_entries_of_the_same_size(hub, net, monkeypatch, tmp_path):
    from nhzoo.hub import upload

    for user, repo in (("alice", "nhzoo/victim"), ("bob", "bob/first")):
        monkeypatch.setenv("HF_TOKEN", f"hf_{user}")
        place = shutil.copytree(net.folder / "entry", tmp_path / repo)
        upload.push(bundle.gather(place, repo))
    candidate = candidate_of(net.folder, PROTOCOLS)
    report = check(candidate, on_hub=True)
    assert report.problems == ["its weights are those of hf://nhzoo/victim"]
    assert any("hf://bob/first has these weights" in note for note in report.notes)
    assert check(candidate).tier == "replayed"


# Claims


def claiming(net: Altered, **training) -> None:
    """The entry's own config and the manifest say the same, whatever it is."""
    path = net.folder / "entry/config.json"
    config = files.read_json(path)
    config["training"] |= training
    config |= {name: training.pop(name) for name in list(training) if name in config}
    files.atomic_write(path, files.dump_json(config))
    value = files.read_json(net.folder / NAME)
    kind, claims = entry_claims(config)
    value |= {"kind": kind, "claims": vars(claims)}
    files.atomic_write(net.folder / NAME, files.dump_json(value))
    net.seal(summary=False)
    value = files.read_json(net.folder / NAME)
    value["entry"]["config_sha256"] = value["files"]["entry/config.json"]
    value["sha256"] = files.content_hash(value)
    files.atomic_write(net.folder / NAME, files.dump_json(value))


PLAYED = {"steps": 1e4, "games": 16, "time": 32, "unrolls": 2}
RECIPE = {"batch": 4, "time": 64, "accumulate": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("training", "match"),
    [
        ({"flops": 1000.0, "samples": 1}, "its 1 samples take"),
        ({"flops": 1.0, "samples": 5_000_000}, "training FLOPs; its 5,000,000 samples take"),
        ({"flops": 1e12, "samples": "many"}, "is no number"),
        (
            {"method": "bc", "flops": 1e9, "samples": 200, "updates": 100, "recipe": RECIPE},
            "training FLOPs; 100 such updates take",
        ),
        (
            {"method": "bc", "samples": 200, "updates": 100, "recipe": RECIPE},
            "says 200 samples; 100 such updates are of 25,600",
        ),
        ({"method": "bc", "updates": 100, "recipe": {"batch": 4}}, "its recipe has no batch"),
        ({"method": "impala", "updates": 9, "recipe": {"games": 1}}, "its recipe has no games"),
        (
            {"method": "impala", "updates": 9, "recipe": PLAYED | {"value_warmup": "x"}},
            "is none of `nhzoo train impala`",
        ),
        (
            {"method": "impala", "updates": 9, "recipe": PLAYED | {"params": 20_000}, "flops": 9e6},
            "training FLOPs; 9 such updates take",
        ),
        ({"train_flops_per_frame": 10}, "10 FLOPs a frame; its widths give"),
    ],
)
def test_claims_that_contradict_themselves_are_refused(net, training, match):
    claiming(net, **training)
    refused(net, match)


@pytest.mark.slow
def test_what_contradicts_itself_is_not_made(net, fuzz_root, tmp_path):
    cheap = shutil.copytree(fuzz_root / "tiny", tmp_path / "cheap")
    config = files.read_json(cheap / "config.json")
    config["training"] = {"flops": 1000.0, "samples": 1}
    files.atomic_write(cheap / "config.json", files.dump_json(config))
    with pytest.raises(CheckFailed, match=r"cheap/config\.json: says 1000 training FLOPs"):
        make(
            fuzz_root / "net-result", tmp_path / "out", "me", "MIT", os.fspath(cheap),
            protocols=PROTOCOLS,
        )  # fmt: skip


def test_claims_that_fit_are_the_authors_word(net):
    shape = PolicyConfig.from_dict(files.read_json(net.folder / "entry/config.json")["policy"])
    flops = float(100 * (256 * shape.train_flops + shape.update_flops))
    claiming(net, method="bc", flops=flops, samples=25_000, updates=100, recipe=RECIPE)
    assert check(candidate_of(net.folder, PROTOCOLS), (), "auto").tier == "audited"


def test_the_cost_of_a_start_and_the_curve_are_held_against_what_is_known(original, tmp_path):
    zoo = known(original)
    zoo[0].entry.config["training"]["flops"] = 5e11
    config = files.read_json(original / "config.json")
    start = {"weights_sha256": zoo[0].entry.revision, "flops": 1.0}
    config["training"] = {"start": start}
    assert (
        "its start took 1.0 FLOPs; it took 500000000000.0"
        in training_problems(original, config, zoo)[0]
    )
    start["flops"] = 5e11
    assert training_problems(original, config, zoo) == []
    folder = shutil.copytree(original, tmp_path / "curved")
    files.atomic_write(
        folder / "curve.csv", b"samples,flops,train_loss,validation_loss\n100,1e12,1,\n"
    )
    config["training"] = {"samples": 50, "flops": 1e12}
    assert "its curve.csv ends with" in training_problems(folder, config)[0]
    config["training"] = {"samples": 100, "flops": 1e12}
    assert training_problems(folder, config) == []


def test_the_board_the_export_and_the_page_say_whose_word_it_is(tmp_path):
    said = row("a", 2, 1, 3, flops=1e12, samples=5.0, contact="her", author="hf:her", licence="MIT")
    board = read_board(ROOT / "leaderboard", AGENTS)
    document = as_json(replace(board, rows=(said, *board.rows)))
    assert document["rows"][0]["as_said"] == "flops samples kind contact licence"
    assert document["rows"][0]["author"] == "hf:her" and document["lines"] == len(board.log)
    assert as_csv(board).splitlines()[0].endswith(",author,as_said")
    from nhzoo.leaderboard.site.agents import _card, _row_facts
    from nhzoo.leaderboard.site.page import board_table

    heads = board_table("x", [replace(board.rows[0], flops=1e12)])["head"]
    assert "Training FLOPs, as said" in heads and "Samples, as said" in heads
    shown = _card(files.read_json(AGENTS / "ks-lstm-30k/config.json")) + _row_facts(said)
    for figure in ("Training FLOPs", "Samples seen", "Began as", "Contact", "Licence"):
        assert f"{figure}, as said" in dict(shown)
        assert figure not in dict(shown)
    assert ("Account", "hf:her") in shown


# Names and authors


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("bc-Istm-483k", "bc-lstm-483k"), ("bc-1stm-483k", "bc-lstm-483k"),
        ("bclstm483k", "bc-lstm-483k"), ("bdstm-483k", "bc-lstm-483k"),
        ("scr1pted", "scripted"), ("scrlpted", "scripted"), ("autoascencl", "autoascend"),
        ("AUTOASCEND", "autoascend"), ("autoa5cend", "autoascend"), ("rand0m", "random"),
        ("randorn", "random"), ("ran.dom", "random"), ("bc-lstm-3OOk", "bc-lstm-300k"),
        ("irnpala-lstm-30k", "impala-lstm-30k"), ("lmpala-lstm-30k", "impala-lstm-30k"),
        ("frequency", "frequency"), ("NHz00", "nhzoo"), ("vvalker", "walker"),
    ],
)  # fmt: skip
def test_names_that_look_alike_are_one(name, taken):
    assert names.skeleton(name) == names.skeleton(taken)


def test_names_that_are_taken_are_refused(net):
    candidate = candidate_of(net.folder, PROTOCOLS)
    rows = read_board(ROOT / "leaderboard", AGENTS).rows
    posing = ("bc-Istm-483k", "scr1pted", "autoascencl", "frequencv", "nhz00", "ks-lstm-1OOk")
    for name in posing:
        wanted = [] if name == "frequencv" else [name]
        assert bool(name_problems(replace(candidate, agent=name), rows)) == bool(wanted)
    for name in ("deeper-monk", "bc-lstm-64k", "lstm", "random-forest"):
        assert name_problems(replace(candidate, agent=name), rows, AGENTS) == []
    (problem,) = name_problems(replace(candidate, agent="bc-lstm-3Ok"), (), AGENTS)
    assert "bc-lstm-30k is an entry of the zoo's" in problem


def test_no_two_names_of_the_zoo_look_alike():
    rows = read_board(ROOT / "leaderboard", AGENTS).rows
    taken = {row.agent for row in rows}
    assert len({names.skeleton(name) for name in taken}) == len(taken)


def test_a_contact_is_a_word_and_an_account_the_author(net):
    """Her name and her contact in a manifest of his."""
    hers = row("her", 1, 0, 2, agent="net", contact="me", author="hf:her")
    for author in ("", "hf:him", "github:her"):
        candidate = replace(candidate_of(net.folder, PROTOCOLS), author=author)
        report = check(candidate, [hers])
        assert report.tier == "" and "choose another name" in report.problems[0]
    candidate = replace(candidate, agent="another", author="hf:him")
    assert any("gives the contact of her" in n for n in check(candidate, [hers]).notes)
    mine = replace(candidate_of(net.folder, PROTOCOLS), author="hf:her")
    assert check(mine, [hers]).tier == "replayed"
    assert not check(mine, [hers]).notes
    unseen = replace(hers, author="")  # nobody saw whose it was: nobody can follow
    assert check(mine, [unseen]).tier == ""


def test_the_account_is_in_the_log_and_shown(net, tmp_path):
    place = maintaining.Checkout(tmp_path / "checkout")
    place.leaderboard.mkdir(parents=True)
    with pytest.raises(InputError, match="--author"):
        maintaining.from_account(candidate_of(net.folder, PROTOCOLS), "me")
    candidate = maintaining.from_account(candidate_of(net.folder, PROTOCOLS), "github:her")
    report = check(candidate, (), "auto")
    target = place.leaderboard / "submissions" / candidate.id
    shutil.copytree(net.folder, target)
    candidate = replace(candidate, folder=target)
    trace = target / "traces/0.xz"
    whole = trace.read_bytes()
    trace.write_bytes(b"")  # after the check
    with pytest.raises(CheckFailed, match="was changed since it was checked"):
        maintaining.accept(place, candidate, report, "first")
    trace.write_bytes(whole)
    line = maintaining.accept(place, candidate, report, "first")
    assert line.facts["files_sha256"] == report.files_sha256
    assert line.facts["author"] == "github:her"
    assert line.facts["tensors_sha256"] == report.tensors_sha256


# The page


def test_every_test_that_the_page_names_is_there():
    page = PAGE.read_text()
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page))
    assert len(named) > 20
    for path, test in named:
        assert re.search(rf"^def {test}\(", (ROOT / path).read_text(), re.M), f"{path}::{test}"
    for number in range(1, 9):
        assert f"| I{number} |" in page
    for other in ("README.md", "leaderboard/SUBMITTING.md"):
        assert "INTEGRITY.md" in (ROOT / other).read_text()
