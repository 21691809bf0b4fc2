"""Submissions: made in one command, judged without their author's code, and hard to cheat with."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import random
import shutil
import signal
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nhzoo import evaluate, load
from nhzoo.agents.base import RandomAgent
from nhzoo.envs.actions import ACTION_KEYS
from nhzoo.envs.game import Episode, Game
from nhzoo.errors import CheckFailed, InputError
from nhzoo.evaluation import auditing, results, verification
from nhzoo.hub.client import author_of
from nhzoo.hub.repos import parse
from nhzoo.hub.upload import push
from nhzoo.leaderboard import board, checks
from nhzoo.leaderboard import claims as submission_claims
from nhzoo.leaderboard.checks import check
from nhzoo.leaderboard.claims import candidate_of
from nhzoo.leaderboard.submission import NAME, read_manifest, read_submission
from nhzoo.leaderboard.submitting import from_hub, make, to_hub
from nhzoo.publishing.bundle import gather
from nhzoo.runtime import files, pool
from tests.conftest import make_entry, read_rows
from tests.helpers import fuzz_submissions as fuzz
from tests.helpers.commands import run
from tests.helpers.fuzz_submissions import FUZZ, PROTOCOLS, Altered
from tests.leaderboard.test_board import ROOT, row

# The client's own upload calls its transport in a way that is going out of use.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture(scope="module")
def fuzz_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzz")
    os.environ["FUZZ_ROOT"] = os.fspath(root)
    yield root
    del os.environ["FUZZ_ROOT"]
    fuzz.base.cache_clear()


@pytest.fixture
def quick(monkeypatch):
    """Games are replayed and audited in this process."""
    monkeypatch.setattr(pool, "run_tasks", fuzz.in_process)


@pytest.fixture
def bot(fuzz_root, tmp_path, quick) -> Altered:
    """A true submission of the random agent's, to be altered."""
    return copy_of("bot", tmp_path)


@pytest.fixture
def net(fuzz_root, tmp_path, quick) -> Altered:
    """A true submission of a network of debug size, to be altered."""
    return copy_of("net", tmp_path)


def copy_of(kind: str, tmp_path: Path) -> Altered:
    original = fuzz.base(kind)
    return Altered(shutil.copytree(original, tmp_path / original.name), random.Random(0))


def judged(altered: Altered, rows=(), **options) -> checks.Report:
    return check(candidate_of(altered.folder, PROTOCOLS), rows, **options)


def refused(altered: Altered, match: str, rows=(), **options) -> None:
    report = judged(altered, rows, **options)
    assert not report.ok and report.tier == ""
    assert any(match in problem for problem in report.problems), report.problems


def result_of(altered: Altered, **changes) -> None:
    path = altered.folder / "result.json"
    files.atomic_write(path, files.dump_json(files.read_json(path) | changes))


def manifest_of(altered: Altered, **changes) -> None:
    path = altered.folder / NAME
    files.atomic_write(path, files.dump_json(files.read_json(path) | changes))


@pytest.mark.slow
def test_a_true_submission_is_replayed_and_audited(bot, net):
    report = judged(bot)
    assert (report.ok, report.tier, report.problems) == (True, "replayed", [])
    assert "not asked for" in report.reasons["audited"]
    report = judged(net, audit="auto")
    assert (report.ok, report.tier, report.asked) == (True, "audited", "audited")
    assert json.dumps(report.as_json())
    manifest = read_manifest(net.folder)
    assert manifest.entry.source == "entry" and manifest.claims.params > 10_000
    assert manifest.id == net.folder.name and len(manifest.files) == 10
    with pytest.raises(InputError, match="points to no weights"):
        judged(bot, audit="auto")


@pytest.mark.slow
def test_what_would_be_refused_is_not_made(fuzz_root, quick, tmp_path):
    out = tmp_path / "out"
    few = evaluate(RandomAgent(), FUZZ, 2, workers=1, out=tmp_path / "few").folder

    def fails(kind: type[Exception], match: str, result: Path, **options) -> None:
        with pytest.raises(kind, match=match):
            make(result, out, "me", "MIT", protocols=PROTOCOLS, **options)
        assert not out.exists() or not any(out.iterdir())

    fails(CheckFailed, "1 of the 3 games of fuzz-v1 are missing", few)
    fails(InputError, "no such result folder|result.json", tmp_path / "nothing")
    fails(InputError, "agent", few, name="<b>")
    fails(CheckFailed, "is the name of an agent of nhzoo's", few, reported_only=True)
    net_result = fuzz_root / "net-result" if fuzz.base("net") else few
    other = make_entry(tmp_path / "other", seed=5)
    fails(CheckFailed, "was not played by the weights", net_result, entry=os.fspath(other))
    fails(InputError, "is no entry", net_result, entry="nobody")
    fails(InputError, "push it first", net_result, entry=os.fspath(fuzz_root / "tiny"), on_hub=True)
    damaged = shutil.copytree(net_result, tmp_path / "damaged")
    (damaged / "traces" / "1.xz").unlink()
    fails(InputError, "no such file", damaged, entry=os.fspath(fuzz_root / "tiny"))
    told = make(few, out, "me", "MIT", protocols=PROTOCOLS, reported_only=True, name="told")
    assert not (told / "traces").exists()
    report = check(candidate_of(told, PROTOCOLS))
    assert (report.ok, report.tier) == (True, "reported")


def test_every_altered_byte_is_noticed(bot):
    for path in sorted(p for p in bot.folder.rglob("*") if p.is_file()):
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b"0", b"1", 1) if b"0" in whole else whole[:-1])
        with pytest.raises((CheckFailed, InputError)):
            candidate_of(bot.folder, PROTOCOLS)
        path.write_bytes(whole)
    assert judged(bot).ok
    path = bot.folder / NAME  # and those that no JSON reader sees
    path.write_bytes(path.read_bytes().replace(b"\n", b"\n ", 1))
    with pytest.raises(CheckFailed, match="was changed after"):
        candidate_of(bot.folder, PROTOCOLS)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"core": 1}, "its seeds are not the protocol's"),
        ({"disp": 1}, "its seeds are not the protocol's"),
        ({"character": "val-hum-law-fem"}, "its character is not"),
        ({"score": 1e6}, "score is 1000000.0, replayed"),
        ({"turns": 999}, "turns is 999"),
        ({"max_depth": 9}, "max_depth is 9"),
        ({"end_status": "ascended", "cause": "ascended"}, "end_status is 'ascended'"),
        ({"bonus": 1}, "a field that no row has"),
        ({"role": "Val"}, "a field that no row has"),
        ({"cause": "x\x1b[2J"}, "not a line of text"),
        ({"steps": 1 << 40}, "counts cannot be"),
    ],
)
def test_a_better_game_that_was_not_played_is_refused(bot, changes, match):
    rows = bot.rows()
    rows[1] |= changes
    bot.write_rows(rows)
    bot.seal(summary=True)
    refused(bot, match)


def test_summaries_games_and_shards_have_to_be_whole(bot):
    rows = bot.rows()
    bot.write_rows(rows[:2])
    bot.seal(summary=True)
    refused(bot, "1 of the 3 games of fuzz-v1 are missing")
    refused(bot, "traces/2.xz is of no game")
    bot.write_rows(rows)
    summary = files.read_json(bot.folder / "result.json")["summary"]
    bot.seal(summary=True)
    result_of(bot, summary=summary | {"mean_score": 1e6})
    bot.seal(summary=False)
    refused(bot, "mean_score is 1000000.0")
    result_of(bot, summary=summary | results.summarize(rows) | {"elo": 3000})
    bot.seal(summary=False)
    refused(bot, "its summary has a field that none has")
    bot.seal(summary=True)
    result_of(bot, summary=summary | results.summarize(rows), shard="0/1")
    bot.seal(summary=False)
    refused(bot, "one shard")
    result_of(bot, shard=None, machine="<img src=x>")
    bot.seal(summary=False)
    refused(bot, "'machine' is no plain value")
    result_of(bot, machine="x86_64", device="\u202egpu")
    bot.seal(summary=False)
    refused(bot, "'device' is no plain value")
    bot.write_rows([rows[0], rows[0]])
    bot.seal(summary=False)
    with pytest.raises(InputError, match="listed twice"):
        candidate_of(bot.folder, PROTOCOLS)


def test_keys_that_no_action_presses_are_refused(bot):
    """NLE takes any byte; an agent has 121 keys."""
    rows = bot.rows()
    path = bot.folder / "traces" / "0.xz"
    keys = bytearray(lzma.decompress(path.read_bytes()))
    assert 0 not in set(ACTION_KEYS.tolist())
    keys[-1] = 0
    path.write_bytes(files.compress_xz(bytes(keys)))
    rows[0]["sha256"] = hashlib.sha256(keys).hexdigest()
    bot.write_rows(rows)
    bot.seal(summary=True)
    refused(bot, "key 0 is pressed, which no action presses")


def test_a_game_that_nle_does_not_come_back_from_is_refused(tmp_path, monkeypatch):
    whole = ROOT / "leaderboard/results/bc-lstm-1m/monk-lite-v1"
    row = max(read_rows(whole), key=lambda r: r["keys"])
    folder = tmp_path / "long"
    results.write_trace(folder, row["index"], results.read_trace(whole, row["index"]))
    files.atomic_write(folder / "episodes.jsonl", files.dump_jsonl([row]))
    shutil.copy(whole / "result.json", folder)
    monkeypatch.setattr(verification, "_GAME_SECONDS", 0.05)
    report = verification.verify(folder, 1)
    assert report.reasons == {row["index"]: "NLE did not come back from a step"}


@pytest.mark.parametrize(
    "name", ["notes.txt", "bot.py", "entry/bot.py", "traces/x.xz", "entry/a/b"]
)
def test_files_that_no_submission_has_are_refused(net, name):
    path = net.folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"raise SystemExit")
    net.seal(summary=False)
    with pytest.raises(InputError, match=r"is no file of a submission|no file of a submission"):
        candidate_of(net.folder, PROTOCOLS)


def test_links_lead_nowhere(bot, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("{}")
    for name in ("result.json", "traces", "submission.json"):
        path = bot.folder / name
        moved = tmp_path / "moved"
        shutil.move(path, moved)
        path.symlink_to(moved)
        with pytest.raises(InputError, match=r"is a link|points outside"):
            candidate_of(bot.folder, PROTOCOLS)
        path.unlink()
        shutil.move(moved, path)
    assert judged(bot).ok


def test_no_code_is_run_for_any_tier(net, tmp_path, monkeypatch):
    """Neither a module by name, nor a bot in a folder, nor pickled weights."""
    marker = tmp_path / "ran"
    monkeypatch.syspath_prepend(os.fspath(tmp_path))
    (tmp_path / "evil.py").write_text(f"open({os.fspath(marker)!r}, 'w')\n")
    folder = tmp_path / "botfolder"
    folder.mkdir()
    (folder / "bot.py").write_text(f"open({os.fspath(marker)!r}, 'w')\n")
    for name in ("evil:make", os.fspath(folder), "random", "autoascend"):
        with pytest.raises(
            (InputError, CheckFailed), match=r"is code and has no weights|other weights"
        ):
            judged(net, audit=name)
    assert not marker.exists()
    value = files.read_json(net.folder / NAME)
    for source in ("evil:make", "/etc", "agents/x", "hf://a/b", "hf://a/b@main", "entry/..", "."):
        value["entry"]["source"] = source
        value["sha256"] = files.content_hash(value)
        files.atomic_write(net.folder / NAME, files.dump_json(value))
        with pytest.raises(InputError, match=r"entry\.source is"):
            read_manifest(net.folder)


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("agent", "<script>", "agent is"),
        ("agent", "\u0430gent", "agent is"),  # a Cyrillic a
        ("agent", "../x", "agent is"),
        ("contact", "me\u202e", "contact"),
        ("contact", "<img src=x onerror=alert(1)>", "contact"),
        ("contact", "", "contact"),
        ("contact", "x" * 201, "contact"),
        ("licence", "MIT; rm", "licence"),
        ("code", "javascript:alert(1)", "code is"),
        ("id", "../../x", "id is"),
        ("protocol", "monk-v9", "no protocol"),
        ("date", "2026-13-01", "date"),
        ("kind", "god", "kind"),
        ("reported_only", 1, "reported_only"),
        ("claims", {"params": -1}, "claims"),
        (
            "claims",
            {"params": 1.5, "flops": None, "samples": None, "held_out_loss": None},
            "params",
        ),
        ("files", {"../x": "0" * 64}, "no file of a submission"),
        ("description", "\x1b]0;x\x07", "description"),
        ("schema_version", 2, "schema_version"),
        ("more", 1, "more"),
        ("m\n\u202e", 1, r"field m\\n\\u202e is missing or not known"),
        ("kind", ["bc"], r"kind is \['bc'\]"),
        ("claims", {"params": 1}, "claims is not all there"),
        ("contact", "\ud800", "not valid"),
    ],
)
def test_manifests_are_read_strictly(bot, field, value, match):
    held = files.read_json(bot.folder / NAME) | {field: value}
    held["sha256"] = files.content_hash(held)
    files.atomic_write(bot.folder / NAME, files.dump_json(held))
    with pytest.raises(InputError, match=match) as told:
        candidate_of(bot.folder, PROTOCOLS)
    assert str(told.value).isascii() and str(told.value).isprintable()


@pytest.mark.slow
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_no_value_in_a_manifest_or_result_is_more_than_refused(bot, data):
    """Hypothesis replaces a value anywhere; sealed again, it is refused, or it is a plain one."""
    names = (NAME, "result.json", "episodes.jsonl", "evaluation.json")
    saved = {name: (bot.folder / name).read_bytes() for name in names}
    name = data.draw(st.sampled_from(names))
    value = bot.rows() if name == "episodes.jsonl" else json.loads(saved[name])
    holder = value
    while True:
        keys = sorted(holder) if isinstance(holder, dict) else range(len(holder))
        key = data.draw(st.sampled_from(list(keys)))
        if not (isinstance(holder[key], (dict, list)) and holder[key]) or data.draw(st.booleans()):
            break
        holder = holder[key]
    before = holder[key]
    leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
    holder[key] = data.draw(
        leaf | st.lists(leaf, max_size=3) | st.dictionaries(st.text(max_size=5), leaf, max_size=3)
    )
    try:
        text = json.dumps(value)
        if name == "episodes.jsonl":
            bot.write_rows(value)
        else:
            (bot.folder / name).write_text(text)
        if data.draw(st.booleans()):
            try:
                bot.seal(summary=False)
            except fuzz.UNABLE:
                return
        ok, said = False, ""
        try:
            ok = judged(bot).ok
        except (InputError, CheckFailed) as error:
            said = str(error)
        assert "\n" not in said
        if ok and holder[key] != before:
            assert not fuzz.is_true(bot.folder, fuzz.base("bot"))
    finally:
        for kept, data_before in saved.items():
            (bot.folder / kept).write_bytes(data_before)


@pytest.mark.slow
def test_a_few_hundred_altered_submissions(fuzz_root, quick):
    """What `python -m tests.helpers.fuzz_submissions 20000` does, for another few."""
    old = signal.getsignal(signal.SIGALRM)
    try:
        outcomes, findings = fuzz.run(1_000_000, 300, fuzz_root)
    finally:
        signal.signal(signal.SIGALRM, old)
    assert not findings
    assert outcomes["refused"] > 200 and outcomes["accepted"] > 3


# Attempts to be first with a bad agent


def hand_in(net: Altered, index: int, result, keys: bytes) -> None:
    """Another game in place of one of the network's, everything else made to fit."""
    rows = net.rows()
    rows[index] = results.episode_row(FUZZ, index, result, keys)
    results.write_trace(net.folder, index, keys)
    net.write_rows(rows)
    net.seal(summary=True)


@pytest.mark.slow
def test_the_best_of_several_tries_replays_and_is_not_audited(net, fuzz_root):
    agent = load(fuzz_root / "tiny")
    lucky = replace(FUZZ, id="fuzz-again")
    spec = FUZZ.game(0)
    episode = Episode(Game(agent.observation_keys))
    episode.start(spec, FUZZ.step_cap, FUZZ.no_progress)
    state, stream, over = agent.initial_state(1), lucky.uniforms(0), False
    while not over:
        seen = {name: episode.game.observation[name][None] for name in agent.observation_keys}
        actions, state = agent.act(seen, state, np.array([stream.random()]))
        over = episode.step(int(ACTION_KEYS[actions[0]]))
    hand_in(net, 0, episode.result, bytes(episode.game.keys))
    assert judged(net).tier == "replayed"
    refused(net, "game 0: entry presses another key at its step", audit="auto")


def test_games_that_are_given_up_are_not_audited(net, fuzz_root):
    """Who stops while he is ahead says that his agent failed."""
    episode = Episode(Game(()))
    keys = results.read_trace(net.folder, 1)
    episode.start(FUZZ.game(1), FUZZ.step_cap, FUZZ.no_progress)
    part = keys[len(episode.game.keys) : len(keys) - 10]
    episode.play(part)
    episode.result.end_status, episode.result.cause = "crashed", "agent raised ValueError"
    hand_in(net, 1, episode.result, bytes(episode.game.keys))
    report = judged(net)
    assert report.tier == "replayed" and any("the agent failed" in note for note in report.notes)
    refused(net, "1 games were given up", audit="auto")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"temperature": 0.5}, "another temperature"),
        ({"patience": 7}, "another patience"),
        ({"params": 10}, "another number of parameters"),
        ({"weights_sha256": "0" * 64}, "other weights than those that it points to"),
        ({"weights_sha256": None}, "other weights than those that it points to"),
    ],
)
def test_what_played_is_what_is_published(net, changes, match):
    result_of(net, **changes)
    (net.folder / "evaluation.json").unlink()
    net.seal(summary=False)
    refused(net, match, audit="auto")


def test_claims_are_those_of_the_entry(net):
    value = files.read_json(net.folder / NAME)
    value["claims"] |= {"flops": 1.0}
    value["sha256"] = files.content_hash(value)
    files.atomic_write(net.folder / NAME, files.dump_json(value))
    refused(net, "claims another training than the entry's")  # whatever tier is asked for
    refused(net, "claims another training than the entry's", audit="auto")
    value["claims"] |= {"params": 5}
    value["sha256"] = files.content_hash(value)
    files.atomic_write(net.folder / NAME, files.dump_json(value))
    refused(net, "claims another number of parameters")


def test_a_bot_does_not_pass_for_a_network(bot):
    for changes, match in (
        ({"kind": "bc"}, "points to no weights"),
        (
            {"claims": {"params": 5, "flops": None, "samples": None, "held_out_loss": None}},
            "a size",
        ),
    ):
        held = files.read_json(fuzz.base("bot") / NAME) | changes
        held["sha256"] = files.content_hash(held)
        files.atomic_write(bot.folder / NAME, files.dump_json(held))
        refused(bot, match)


def lite(tmp_path: Path, name: str) -> submission_claims.Candidate:
    """Games of bc-lstm-1m, in somebody's name."""
    folder = tmp_path / name
    shutil.copytree(ROOT / "leaderboard/results/bc-lstm-1m/monk-lite-v1", folder)
    path = folder / "result.json"
    claims = {"weights_sha256": None, "params": None}
    files.atomic_write(path, files.dump_json(files.read_json(path) | claims))
    (folder / "evaluation.json").unlink()
    package = make(folder, tmp_path / "made", "me", "MIT", name=name)
    return candidate_of(package)


@pytest.mark.slow
def test_the_games_of_others_are_known_again(tmp_path, monkeypatch):
    """As they are, under another name; one of them among others; with a key put in."""
    monkeypatch.setattr(checks, "_head", cache(checks._head))  # once a game
    rows = board.read_board(ROOT / "leaderboard", ROOT / "agents").rows
    stolen = lite(tmp_path, "mine")
    never = pytest.fail

    def replay(*arguments):
        never("not worth replaying")

    report = check(stolen, rows, replay=replay)
    assert any("are those of bc-lstm-1m-monk-lite-v1" in p for p in report.problems)
    copied, alike = checks._copies(stolen, rows)
    assert "game 0 and 126 more" in copied[0] and not alike
    changed = [r | {"sha256": "0" * 64} for r in stolen.rows]
    copied, alike = checks._copies(replace(stolen, rows=changed), rows)
    assert not copied and "go as those of bc-lstm-1m-monk-lite-v1" in alike[0]
    other = [r | {"sha256": "0" * 64, "turns": r["turns"] + 1} for r in stolen.rows]
    copied, alike = checks._copies(replace(stolen, rows=other), rows)
    assert not copied and "the same first keys" in alike[0]
    for mine in rows:  # and no honest agent is taken for another
        if mine.protocol == "monk-lite-v1":
            own = submission_claims.own_candidate(mine.folder)
            assert checks._copies(own, rows) == ([], [])


def test_names_on_the_board_are_taken(bot):
    taken = [
        row("a", 1, 0, 2, agent="Deep-Monk", contact="her"),
        row("b", 1, 0, 2, agent="bot", contact="somebody else"),
    ]
    refused(bot, "bot is on the board already, from somebody else", taken)
    candidate = candidate_of(bot.folder, PROTOCOLS)
    for name in ("deepmonk", "DEEP_MONK", "deep.m0nk", "autoascend", "Auto-Ascend", "random"):
        posing = replace(candidate, agent=name)
        assert checks.name_problems(posing, taken), name
    assert not checks.name_problems(replace(candidate, agent="deeper-monk"), taken)


def test_the_same_weights_are_one_agent(net):
    weights = candidate_of(net.folder, PROTOCOLS).weights
    other = row("old", 1, 0, 2, protocol=FUZZ.id, sha256=weights, folder=net.folder)
    refused(net, "its weights are those of old", [other])


def test_no_key_is_forgiven_and_a_result_without_numerics_is_not_audited(net, monkeypatch):
    """Each choice among keys is another game: a few hundred are the best of very many tries."""
    found = auditing.Audit("entry", keys=1_000_000, matched=999_999)
    with monkeypatch.context() as patch:
        patch.setattr(auditing, "audit", lambda *arguments: found)
        refused(net, "of the keys are entry's", audit="auto")
    for name in ("result.json", "evaluation.json"):
        facts = files.read_json(net.folder / name)
        del facts["numerics"]
        files.atomic_write(net.folder / name, files.dump_json(facts))
    net.seal(summary=False)
    report = judged(net, audit="auto")
    assert (report.tier, report.problems) == ("replayed", [])
    assert "names no numerics" in report.reasons["audited"]


# The hub


@pytest.fixture
def results_repo(hub, monkeypatch, tmp_path, fuzz_root):
    """A hub with the zoo's dataset of results, and bob, who may only propose."""
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    played = evaluate(RandomAgent(), "smoke-v1", workers=1, out=tmp_path / "smoke").folder
    root = tmp_path / "results"
    shutil.copytree(played, root / "old" / "smoke-v1")
    push(gather(root, "nhzoo/results"))
    monkeypatch.setenv("HF_TOKEN", "hf_bob")
    return played


@pytest.mark.slow
def test_a_submission_goes_to_the_hub_and_is_checked_there(hub, results_repo, tmp_path):
    package = make(results_repo, tmp_path / "made", "bob", "MIT", name="bobs")
    done = to_hub(package)
    assert done.made and done.pull_request.endswith("/datasets/nhzoo/results/discussions/1")
    assert to_hub(package).made is False
    repo = hub.repos["dataset", "nhzoo/results"]
    assert f"{package.name}/smoke-v1/{NAME}" in repo.find("refs/pr/1").files
    ref = parse("hf://datasets/nhzoo/results@refs/pr/1")
    fetched = from_hub(ref, tmp_path / "here")
    assert fetched.name == package.name
    assert fuzz.contents(fetched) == fuzz.contents(package)
    assert read_submission(fetched).rows == read_submission(package).rows
    root = ["--root", os.fspath(tmp_path / "nowhere")]
    checking = ["leaderboard", "check", str(ref), "--json", *root]
    done = run(*checking)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["tier"] == "replayed" and not any("account" in note for note in report["notes"])
    assert author_of(ref) == "bob"
    done = run(*checking, "--author", "hf:alice")
    assert done.returncode == 1 and "the pull request is hf:bob's" in done.stderr
    with pytest.raises(InputError, match="is no pull request"):
        author_of(parse("hf://datasets/nhzoo/results"))
    repo.discussions[0]["author"] = {"name": "deleted"}
    with pytest.raises(InputError, match="names no account"):
        author_of(ref)
    with pytest.raises(InputError, match="refs/pr/N"):
        from_hub(parse("hf://datasets/nhzoo/results"), tmp_path / "x")
    proposed = dict(repo.find("refs/pr/1").files)
    strange = next(path for path in proposed if path.endswith("traces/0.xz"))
    for number, changes in enumerate(
        [
            {"old/smoke-v1/result.json": b"{}"},  # another's score
            {"eval.yaml": b"x"},
            {"x/bot.py": b"x"},
            {f"{package.name}/smoke-v1/bot.py": b"x"},
            {"old/smoke-v1/traces/0.xz": None},
            {strange: bytes(5 << 20)},
        ]
    ):
        held = {path: data for path, data in (proposed | changes).items() if data is not None}
        hub.add("nhzoo/results", held, kind="dataset", ref=f"refs/pr/{number + 2}")
        with pytest.raises((CheckFailed, InputError)):
            from_hub(ref.at(f"refs/pr/{number + 2}"), tmp_path / f"pr-{number}")
        assert not (tmp_path / f"pr-{number}").exists()


@pytest.mark.slow
def test_weights_go_to_the_hub_by_reference(hub, fuzz_root, tmp_path, monkeypatch):
    from nhzoo.hub import upload
    from nhzoo.publishing import bundle

    fuzz.base("net")
    monkeypatch.setenv("HF_TOKEN", "hf_bob")
    upload.push(bundle.gather(fuzz_root / "tiny", "bob/tiny"))
    package = make(
        fuzz_root / "net-result", tmp_path / "made", "bob", "MIT", "hf://bob/tiny", "n",
        on_hub=True, protocols=PROTOCOLS,
    )  # fmt: skip
    pointer = read_manifest(package).entry
    assert parse(pointer.source).pinned and not (package / "entry").exists()
    report = check(candidate_of(package, PROTOCOLS), audit="auto", workers=1)
    assert (report.tier, report.problems) == ("audited", [])


def test_the_command_line(tmp_path):
    played = tmp_path / "played"
    evaluate(RandomAgent(), "smoke-v1", workers=1, out=played)
    command = ["submit", played, "--contact", "me", "--licence", "MIT", "--name", "mine"]
    done = run(*command, "--to", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    folder = json.loads(done.stdout)["folder"]
    checking = ["leaderboard", "check", folder, "--root", tmp_path]
    done = run(*checking)
    assert (done.returncode, done.stdout.split()[1]) == (0, "replayed"), done.stderr
    done = run(*command, "--to", tmp_path / "out")
    assert done.returncode == 2 and "is there already" in done.stderr
    (Path(folder) / "traces" / "0.xz").write_bytes(b"")
    done = run(*checking)
    assert done.returncode == 1 and "its SHA-256 is not the one" in done.stderr
    done = run("leaderboard", "check", tmp_path)
    assert done.returncode == 2 and "submission.json" in done.stderr
    done = run(*command[:-2], "--to", tmp_path / "other")
    assert done.returncode == 1 and "random is the name of an agent" in done.stderr
