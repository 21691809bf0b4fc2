"""The board: its log, its tiers and ranks, what it exports; re-runs on fresh seeds."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nhzoo.envs.protocols import get_protocol
from nhzoo.errors import CheckFailed, InputError
from nhzoo.evaluation import results
from nhzoo.leaderboard import board_log, maintaining, rerun
from nhzoo.leaderboard.board import (
    COLUMNS,
    Board,
    BoardRow,
    as_csv,
    as_json,
    claimed_summary,
    entry_claims,
    ranked,
    read_board,
)
from nhzoo.leaderboard.board_log import digest, whole_digest
from nhzoo.runtime import files
from tests import ROOT
from tests.conftest import read_rows
from tests.helpers.commands import run

LEADERBOARD = ROOT / "leaderboard"


def row(id: str, mean: float, low: float, high: float, **changes) -> BoardRow:
    summary = {"episodes": 128, "mean_score": mean, "mean_score_ci95": [low, high]}
    values = {
        "id": id, "agent": id, "protocol": "monk-lite-v1", "tier": "replayed", "status": "listed",
        "reason": "", "rank": None, "summary": summary, "claimed": None, "normalized": None,
        "roles": {}, "params": None, "flops": None, "samples": None, "held_out_loss": None,
        "kind": "bc", "date": "2026-11-22", "revision": "", "sha256": "", "contact": "",
        "licence": "", "folder": Path("x"), "entry": None,
    }  # fmt: skip
    return BoardRow(**values | changes)


def place_of(tmp_path: Path, *agents: str) -> maintaining.Checkout:
    """A checkout of the test's own, with results of ours and no log."""
    place = maintaining.Checkout(tmp_path / "checkout")
    for agent in agents:
        name = f"results/{agent}/monk-lite-v1"
        shutil.copytree(LEADERBOARD / name, place.leaderboard / name)
        if (ROOT / "agents" / agent).is_dir():
            shutil.copytree(ROOT / "agents" / agent, place.agents / agent)
    return place


def accepted(place: maintaining.Checkout, id: str, tier: str = "replayed", **facts) -> None:
    """As `accept` writes it, without the replay."""
    folder = place.row(id).folder
    facts = {"tier": tier, "digest": digest(folder), "files_sha256": whole_digest(folder)} | facts
    board_log.append(place.leaderboard, "accept", id, "for a test", facts)


def test_training_flops_are_those_of_the_start_as_well():
    training = {"method": "impala", "flops": 2e12, "start": {"entry": "bc", "flops": 1e12}}
    kind, claims = entry_claims({"params": 10, "training": training})
    assert (kind, claims.flops) == ("rl", 3e12)
    for start in (None, {}, [1], *({"flops": bad} for bad in ("1e12", -1e12, 10**400, True))):
        training["start"] = start
        assert entry_claims({"training": training})[1].flops == 2e12


def test_ranks_are_shared_by_those_that_do_not_separate():
    """A and B overlap, B and C overlap, A and C do not: C has one agent clearly above it."""
    a, b, c = row("a", 30, 25, 35), row("b", 22, 16, 28), row("c", 14, 10, 18)
    others = [row("said", 99, 98, 100, tier="reported"), row("gone", 99, 98, 100, status="removed")]
    found = {r.id: r.rank for r in ranked([c, b, *others, a], "monk-lite-v1")}
    assert found == {"a": 1, "b": 1, "c": 2}
    assert list(found) == ["a", "b", "c"]  # best mean first
    many = [replace(a, id=f"a{i}") for i in range(5)]  # one agent, as often as it likes
    assert {r.id: r.rank for r in ranked([c, b, *many], "monk-lite-v1")} == {
        **{r.id: 1 for r in many}, "b": 1, "c": 2
    }  # fmt: skip
    assert ranked([a], "monk-v1") == []
    assert ranked([replace(a, protocol="smoke-v1")], "smoke-v1") == []


def test_ranks_by_role_are_of_that_roles_games():
    def roles(mean: float) -> dict:
        return {"Mon": {"mean_score": mean, "mean_score_ci95": [mean - 1, mean + 1]}}

    rows = [
        row("a", 30, 29, 31, protocol="allroles-v1", roles=roles(5)),
        row("b", 20, 19, 21, protocol="allroles-v1", roles=roles(9)),
        row("c", 10, 9, 11, protocol="allroles-v1"),
    ]
    assert [r.id for r in ranked(rows, "allroles-v1")] == ["a", "b", "c"]
    assert [(r.id, r.rank) for r in ranked(rows, "allroles-v1", "Mon")] == [("b", 1), ("a", 2)]


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 10), st.floats(0, 10)), max_size=12))
def test_ranks_behave(spread):
    """Nobody is placed above one that is clearly better; the best mean is first; order is free."""
    rows = [row(f"r{i}", m, m - a, m + b) for i, (m, a, b) in enumerate(spread)]
    found = ranked(rows, "monk-lite-v1")
    assert {r.id: r.rank for r in ranked(rows[::-1], "monk-lite-v1")} == {
        r.id: r.rank for r in found
    }
    for upper in found:
        for lower in found:
            if upper.summary["mean_score_ci95"][0] > lower.summary["mean_score_ci95"][1]:
                assert upper.rank < lower.rank
    assert not found or min(r.rank for r in found) == 1 == found[0].rank


@pytest.fixture
def log(tmp_path) -> Path:
    for number in range(4):
        facts = {"tier": "replayed", "digest": "0" * 64}
        board_log.append(tmp_path, "accept", f"row-{number}", f"reason {number}", facts)
    return tmp_path


def test_the_log_grows_and_keeps_its_heads(log):
    lines = board_log.read_log(log)
    assert [line.number for line in lines] == [0, 1, 2, 3]
    kept = board_log.head(lines)
    board_log.append(log, "remove", "row-1", "withdrawn", {})
    later = board_log.read_log(log)
    assert later[:4] == lines and board_log.holds(later, kept)
    assert not board_log.holds(later, "1" * 64)
    with pytest.raises(InputError, match="--reason"):
        board_log.append(log, "remove", "row-1", "a\nb", {})


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.replace(b"reason", b"raison"),
        lambda line: line.replace(b"replayed", b"audited"),
        lambda line: line.replace(b": ", b":", 1),
        lambda line: line.replace(b"2026-", b"2025-").replace(b"2027-", b"2025-"),
        lambda line: line + b" ",
        lambda line: b"",
        lambda line: line[:-1],
    ],
)
def test_altering_any_line_of_the_log_is_noticed(log, number, change):
    path = log / board_log.NAME
    lines = path.read_bytes().splitlines()
    altered = change(lines[number])
    assert altered != lines[number]
    lines[number] = altered
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises((CheckFailed, InputError), match=f"line {number + 1}"):
        board_log.read_log(log)


def test_lines_that_are_sealed_again_moved_or_left_out_are_noticed(log):
    path = log / board_log.NAME
    whole = path.read_bytes()
    lines = whole.splitlines()
    value = json.loads(lines[1]) | {"reason": "another"}
    value["sha256"] = files.content_hash(value)
    forged = files.dump_json(value, indent=None).rstrip(b"\n")
    for altered in (
        [lines[0], forged, *lines[2:]],
        [lines[0], lines[2], lines[1], lines[3]],
        [*lines[:2], lines[3]],
        lines[1:],
    ):
        path.write_bytes(b"\n".join(altered) + b"\n")
        with pytest.raises(CheckFailed, match="does not follow"):
            board_log.read_log(log)
    path.write_bytes(whole[:-1])
    with pytest.raises(CheckFailed, match="cut off"):
        board_log.read_log(log)
    kept = board_log.head(board_log.read_log(log)) if path.write_bytes(whole) else ""
    assert board_log.read_pin(log) == (4, kept)


def test_the_end_of_the_log_cannot_be_cut(log):
    """A line that is gone is missed, whether the pin is left, cut as well, or taken away."""
    path, pin = log / board_log.NAME, log / board_log.PIN
    lines, pinned = path.read_bytes().splitlines(), pin.read_bytes()
    for kept in (lines[:3], lines[:1], []):
        path.write_bytes(b"".join(line + b"\n" for line in kept))
        with pytest.raises(CheckFailed, match=r"has not the 4 lines that head\.json counts"):
            board_log.read_log(log)
        with pytest.raises(CheckFailed, match="has not the 4 lines"):
            board_log.append(log, "remove", "row-1", "withdrawn", {})
    path.unlink()
    with pytest.raises(CheckFailed, match="has not the 4 lines"):
        board_log.read_log(log)
    path.write_bytes(b"\n".join(lines[:3]) + b"\n")
    pin.unlink()
    with pytest.raises(CheckFailed, match=r"head\.json: is missing"):
        board_log.read_log(log)
    for odd in (b"{}", b'{"lines": -1, "sha256": "0"}', b'{"lines": true, "sha256": "0"}'):
        pin.write_bytes(odd)
        with pytest.raises(CheckFailed, match="needs exactly"):
            board_log.read_log(log)
    pin.write_bytes(pinned)  # a kill between the two files leaves a line more: nothing is lost
    path.write_bytes(b"\n".join(lines) + b"\n")
    before = pin.read_bytes()
    board_log.append(log, "remove", "row-1", "withdrawn", {})
    pin.write_bytes(before)
    assert len(board_log.read_log(log)) == 5
    board_log.append(log, "remove", "row-2", "withdrawn", {})
    assert board_log.read_pin(log) == (6, board_log.head(board_log.read_log(log)))


def test_the_log_of_the_repository_is_pinned_and_only_grew():
    """Whoever cuts or rewrites both files leaves the earlier ones in the repository's history."""
    log = board_log.read_log(LEADERBOARD)
    assert board_log.read_pin(LEADERBOARD) == (len(log), board_log.head(log))
    now = (LEADERBOARD / board_log.NAME).read_bytes()
    for revision in git("log", "--format=%H", "--", "leaderboard/log.jsonl").split():
        before = git("show", f"{revision.decode()}:leaderboard/log.jsonl")
        assert now.startswith(before), f"the log of {revision.decode()} is not its beginning"


def git(*words: str) -> bytes:
    """What git says of the checkout; nothing outside one."""
    if not (ROOT / ".git").exists():
        return b""
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=True).stdout


def test_rows_are_what_the_log_says(tmp_path):
    place = place_of(tmp_path, "bc-lstm-100k", "scripted")
    ids = ["bc-lstm-100k-monk-lite-v1", "scripted-monk-lite-v1"]
    assert [(r.id, r.tier, r.rank) for r in place.board().rows] == [
        (id, "reported", None) for id in ids
    ]
    for id in ids:
        accepted(place, id)
    first = {r.id: r for r in place.board().rows}
    assert [first[id].rank for id in ids] == [2, 1]
    clone = first[ids[0]]
    assert (clone.kind, clone.params, clone.entry) == ("bc", 99_998, place.agents / "bc-lstm-100k")
    assert clone.held_out_loss == pytest.approx(0.577, abs=1e-3)
    assert first[ids[1]].kind == "bot" and first[ids[1]].sha256 == ""
    maintaining.remove(place, ids[1], "withdrawn")
    gone = place.row(ids[1])
    assert (gone.status, gone.reason, gone.rank) == ("removed", "withdrawn", None)
    assert place.row(ids[0]).rank == 1
    accepted(place, ids[1])  # again
    assert place.row(ids[1]).rank == 1


ALTERATIONS = {
    "a game": lambda folder: patched(folder / "episodes.jsonl", b'"score": ', b'"score":  '),
    "a trace": lambda folder: (folder / "traces/7.xz").write_bytes(files.compress_xz(b"hjkl")),
    "a trace less": lambda folder: (folder / "traces/7.xz").unlink(),
    "a file more": lambda folder: (folder / "notes.txt").write_bytes(b"x"),
    "a file that no game depends on": lambda folder: patched(
        folder / "evaluation.json", b"{", b"{ "
    ),
    "a link": lambda folder: (folder / "link").symlink_to("result.json"),
}


def patched(path: Path, before: bytes, after: bytes) -> None:
    data = path.read_bytes()
    assert before in data
    path.write_bytes(data.replace(before, after, 1))


@pytest.mark.parametrize("what", ALTERATIONS)
def test_a_row_that_changed_since_it_was_accepted_is_altered(tmp_path, what):
    place = place_of(tmp_path, "scripted")
    accepted(place, "scripted-monk-lite-v1")
    assert place.board().warnings == ()
    ALTERATIONS[what](place.leaderboard / "results/scripted/monk-lite-v1")
    changed = place.row("scripted-monk-lite-v1")
    assert (changed.tier, changed.status, changed.rank) == ("reported", "altered", None)
    assert "altered since" in changed.reason
    (warning,) = place.board().warnings
    assert "scripted/monk-lite-v1: is not as it was accepted" in warning


def test_old_lines_bind_every_file_once_they_are_sealed(tmp_path):
    """A line from before bound three files: the trace and the log's end could go unnoticed."""
    place, id = place_of(tmp_path, "scripted"), "scripted-monk-lite-v1"
    accepted(place, id, files_sha256=None)
    (place.leaderboard / board_log.PIN).unlink()
    folder = place.leaderboard / "results/scripted/monk-lite-v1"
    whole = shutil.copytree(folder, tmp_path / "whole")
    ALTERATIONS["a trace"](folder)
    with pytest.raises(CheckFailed, match="trace 7 is not that of its game"):
        maintaining.seal(place, "now")
    shutil.rmtree(folder)
    shutil.copytree(whole, folder)
    (line,) = maintaining.seal(place, "now")
    assert line.facts == {"line": 0, "files_sha256": whole_digest(folder)}
    assert maintaining.seal(place, "again") == [] and place.row(id).rank == 1
    ALTERATIONS["a trace"](folder)
    assert place.row(id).status == "altered"
    forged = {"line": 0, "files_sha256": whole_digest(folder)}
    board_log.append(place.leaderboard, "seal", id, "forged", forged)
    assert place.row(id).status == "altered"  # the first counts


def test_a_row_whose_folder_is_gone_is_missed(tmp_path):
    place = place_of(tmp_path, "random", "scripted")
    accepted(place, "random-monk-lite-v1")
    accepted(place, "scripted-monk-lite-v1")
    maintaining.remove(place, "scripted-monk-lite-v1", "withdrawn")
    shutil.rmtree(place.leaderboard / "results")
    (warning,) = place.board().warnings
    assert "random-monk-lite-v1: is accepted by the log, and its folder is not there" in warning


def test_altered_rows_end_the_commands_with_1(tmp_path):
    place = place_of(tmp_path, "random")
    accepted(place, "random-monk-lite-v1")
    (place.leaderboard / "results/random/monk-lite-v1/traces/7.xz").write_bytes(b"")
    site = os.fspath(tmp_path / "site")
    for words in (
        ("export", "--root", os.fspath(place.root)),
        ("build", "--out", site, "--results", os.fspath(place.leaderboard), "--workers", "1"),
    ):
        done = run("leaderboard", *words)
        assert done.returncode == 1, done.stderr
        last = done.stderr.splitlines()[-1]
        assert "random/monk-lite-v1: is not as it was accepted, and is shown as altered" in last
    assert 'data-status="altered"' in (tmp_path / "site/index.html").read_text()


def test_a_rescored_row_keeps_what_was_claimed(tmp_path):
    place = place_of(tmp_path, "scripted")
    id = "scripted-monk-lite-v1"
    with pytest.raises(CheckFailed, match="accept it first"):
        maintaining.rescore(place, id, "why", None)
    accepted(place, id)
    with pytest.raises(InputError, match="was not re-run"):
        maintaining.rescore(place, id, "why", None)
    before = place.row(id)
    fresh = dict(before.summary) | {"mean_score": 10.0, "mean_score_ci95": [9.0, 11.0]}
    facts = {"agrees": False, "fresh": fresh, "commitment": ""}
    board_log.append(place.leaderboard, "rerun", id, "they differ", facts)
    flagged = place.row(id)
    assert (flagged.tier, flagged.reason, flagged.summary) == (
        "replayed", "they differ", before.summary
    )  # fmt: skip
    maintaining.rescore(place, id, "as on fresh seeds", None)
    after = place.row(id)
    assert (after.status, after.reason) == ("rescored", "as on fresh seeds")
    assert after.summary["mean_score"] == 10 and after.claimed == before.summary
    maintaining.remove(place, id, "withdrawn")
    maintaining.rescore(place, id, "once more", None)
    gone = place.row(id)  # a removed row does not come back by that
    assert (gone.status, gone.reason, gone.rank) == ("removed", "withdrawn", None)
    accepted(place, id)
    assert place.row(id) == before


def test_summaries_that_are_none_are_refused(tmp_path):
    protocol = get_protocol("smoke-v1")
    good = dict.fromkeys(results.SUMMARY, 1) | {"mean_score_ci95": [0.5, 2]}
    assert claimed_summary({"summary": good}, protocol, tmp_path) == good
    for name, value in (
        ("mean_score", None), ("mean_score", True), ("mean_score", 3), ("mean_score_ci95", [1]),
        ("mean_score_ci95", "ab"), ("episodes", 9), ("episodes", 1.0), ("max_depth", "deep"),
    ):  # fmt: skip
        with pytest.raises(InputError, match="summary"):
            claimed_summary({"summary": good | {name: value}}, protocol, tmp_path)


def test_the_export_has_its_columns_and_no_formulas(tmp_path):
    rows = (
        row("a", 2, 1, 3, contact="=cmd|' /C calc'!A0", licence="MIT"),
        row("b", 1, 0, 2, contact="@SUM(A1)", reason='-2+3 "quoted", with a comma'),
    )
    board = Board(rows, (), ())
    found = list(csv.DictReader(io.StringIO(as_csv(board))))
    assert tuple(found[0]) == COLUMNS
    assert COLUMNS[:6] == ("id", "rank", "agent", "protocol", "tier", "status")
    assert [r["contact"] for r in found] == ["'=cmd|' /C calc'!A0", "'@SUM(A1)"]
    assert found[1]["reason"] == '\'-2+3 "quoted", with a comma'
    assert found[0]["ci95_low"] == "1" and found[0]["params"] == ""
    document = as_json(board)
    assert document["rows"][0]["contact"] == rows[0].contact  # JSON has no formulas
    assert document["head"] == board_log.START


@pytest.mark.slow
@given(st.text())
def test_no_cell_begins_a_formula(text):
    board = Board((row("a", 2, 1, 3, contact=text.replace("\0", "")),), (), ())
    (found,) = csv.DictReader(io.StringIO(as_csv(board), newline=""))
    assert found["contact"].lstrip()[:1] not in ("=", "+", "-", "@") or not found["contact"]


def test_the_board_of_the_repository_can_be_read():
    board = read_board(LEADERBOARD, ROOT / "agents")
    assert {row.agent for row in board.rows} >= {"autoascend", "random", "scripted"}
    assert all(row.tier != "reported" for row in board.rows), "accept what was added"
    expert = next(row for row in board.rows if row.agent == "autoascend")
    assert expert.rank == 1 and expert.normalized == 1
    assert all(reference.source and reference.protocol for reference in board.references)
    assert len(board.references) > 10


def test_the_re_runs_in_the_log_are_those_of_revealed_secrets():
    """Seeds from the revealed secret are those of the games that are there."""
    place = maintaining.Checkout(ROOT)
    log = board_log.read_log(LEADERBOARD)
    runs = {line.id for line in log if line.event == "rerun"}
    assert runs
    for id in runs:
        secret, line = rerun.revealed(log, id)
        commit, accept = rerun.check_order(log[: line.number], id, secret)
        assert commit.number < accept.number < line.number
        protocol = rerun.fresh_protocol(
            place.row(id).protocol, secret, line.facts["digest"], line.facts["games"]
        )
        rows = read_rows(rerun.folder_of(LEADERBOARD, id, protocol.id))
        assert [(r["core"], r["disp"]) for r in rows] == [
            (protocol.game(i).core, protocol.game(i).disp) for i in range(line.facts["games"])
        ]


def test_fresh_games_come_from_secret_submission_and_number():
    import hashlib

    secret, digest = "a" * 64, "b" * 64
    protocol = rerun.fresh_protocol("monk-lite-v1", secret, digest, 4)
    text = hashlib.sha256(f"nhzoo:rerun:{secret}:{digest}:3".encode()).digest()
    game = protocol.game(3)
    assert game.core == int.from_bytes(text[:8], "big") >> 1
    assert game.disp == int.from_bytes(text[8:16], "big") >> 1
    known = get_protocol("monk-lite-v1")
    assert (protocol.character, protocol.step_cap, protocol.no_progress) == (
        known.character, known.step_cap, known.no_progress
    )  # fmt: skip
    others = [
        rerun.fresh_protocol("monk-lite-v1", "c" * 64, digest, 4),
        rerun.fresh_protocol("monk-lite-v1", secret, "c" * 64, 4),
    ]
    assert len({p.id for p in (protocol, *others)}) == 3
    assert len({p.game(3).core for p in (protocol, known, *others)}) == 4
    assert len({p.uniforms(3).random() for p in (protocol, known, *others)}) == 4
    with pytest.raises(InputError, match="no 4"):
        protocol.game(4)


def test_a_re_run_is_committed_to_compared_and_revealed(tmp_path):
    place = place_of(tmp_path, "random")
    id, secret = "random-monk-lite-v1", tmp_path / "secret"
    maintaining.commit(place, secret, "a month")
    assert oct(secret.stat().st_mode)[-3:] == "600"
    with pytest.raises(InputError, match="never written over"):
        maintaining.commit(place, secret, "again")
    drawn = rerun.read_secret(secret)
    with pytest.raises(CheckFailed, match="accept it first"):
        maintaining.run_again(place, id, drawn)
    accepted(place, id)
    with pytest.raises(CheckFailed, match="committed to last"):
        maintaining.run_again(place, id, "0" * 64)
    found, line = maintaining.run_again(place, id, drawn, games=12, workers=1)
    assert line.facts["games"] == 12 and line.facts["fresh"]["episodes"] == 12
    assert place.row(id).tier == "replayed"  # nobody else can check it yet
    with pytest.raises(CheckFailed, match="not revealed"):
        maintaining.check_rerun(place, id)
    with pytest.raises(CheckFailed, match="no commitment"):
        maintaining.reveal(place, "0" * 64, "the month is over")
    maintaining.reveal(place, drawn, "the month is over")
    assert maintaining.check_rerun(place, id, workers=1)["verified"] == 12
    assert place.row(id).tier == ("re-run" if found.agrees else "replayed")
    folder = rerun.folder_of(place.leaderboard, id, line.facts["protocol"])
    path = folder / "episodes.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"score": 0.0', b'"score": 9.0', 1))
    with pytest.raises(CheckFailed, match="is not the re-run"):
        maintaining.check_rerun(place, id, workers=1)
    assert place.row(id).tier == "replayed"
    assert "is not shown as re-run" in place.board().warnings[0]
    other = place_of(tmp_path / "other", "random")  # accepted first, committed to later
    accepted(other, id)
    maintaining.commit(other, tmp_path / "late", "too late")
    with pytest.raises(CheckFailed, match="committed to last"):
        maintaining.run_again(other, id, rerun.read_secret(tmp_path / "late"))


def test_a_forged_line_makes_no_re_run(tmp_path):
    """Lines that follow in the chain, of a re-run that nobody made."""
    place, id = place_of(tmp_path, "random"), "random-monk-lite-v1"
    secret = "a" * 64
    maintaining.commit(place, tmp_path / "secret", "a month")
    drawn = rerun.read_secret(tmp_path / "secret")
    accepted(place, id)
    board = place.board()
    facts = {"agrees": True, "games": 128, "fresh": dict(board.rows[0].summary)}
    facts |= {"digest": digest(board.rows[0].folder), "protocol": "x", "result": "0" * 64}

    def forged(match: str, **more) -> None:
        board_log.append(place.leaderboard, "rerun", id, "forged", facts | more)
        found = place.board()
        assert [row.tier for row in found.rows] == ["replayed"]
        assert not match or match in found.warnings[0]

    forged("")  # of no secret
    forged("", commitment=rerun.commitment(secret))  # of one that is not revealed
    reveal = {"commitment": rerun.commitment(secret), "secret": secret}
    board_log.append(place.leaderboard, "reveal", "", "forged", reveal)
    forged("is not the one committed to last", commitment=rerun.commitment(secret))
    maintaining.reveal(place, drawn, "the month is over")
    true = {"commitment": rerun.commitment(drawn)}
    forged("is not the re-run of line", **true)
    fresh = rerun.fresh_protocol("monk-lite-v1", drawn, facts["digest"], 128)
    true["protocol"] = fresh.id
    forged("is not the re-run of line", **true)
    out = rerun.folder_of(place.leaderboard, id, fresh.id)
    shutil.copytree(board.rows[0].folder, out)  # the submitted games, as if they were fresh
    true["result"] = digest(out)
    forged("its seeds are not those of the revealed secret", **true)
    rows = read_rows(out)
    for i, one in enumerate(rows):
        one |= {"core": fresh.game(i).core, "disp": fresh.game(i).disp}
    files.atomic_write(out / "episodes.jsonl", files.dump_jsonl(rows))
    true["result"] = digest(out)
    forged("do not come to what line", **true | {"fresh": facts["fresh"] | {"mean_score": 9.0}})
    for one in rows:
        one["score"] = 0.0
    files.atomic_write(out / "episodes.jsonl", files.dump_jsonl(rows[:100]))
    true |= {"result": digest(out)}
    forged("has 100 games, the log 128", **true)


def test_a_re_run_tells_chosen_games_from_an_agents_own(tmp_path):
    """The better half of an agent's games against all of them; and honest halves."""
    rows = results.read_episodes(LEADERBOARD / "results/bc-lstm-1m/monk-lite-v1")
    best = sorted(rows, key=lambda r: -r["score"])[:64]
    folder = tmp_path / "chosen"
    files.atomic_write(folder / "episodes.jsonl", files.dump_jsonl(best))
    found = rerun.compare(folder, rows)
    assert found.differs and not found.agrees and found.difference.low > 0
    modest = rerun.compare(LEADERBOARD / "results/bc-lstm-1m/monk-lite-v1", best)
    assert modest.differs and modest.agrees  # the submitted ones are the worse
    files.atomic_write(folder / "episodes.jsonl", files.dump_jsonl(rows[::2]))
    honest = rerun.compare(folder, rows[1::2])
    assert not honest.differs and honest.agrees


def test_the_commands_keep_the_board(tmp_path):
    place = place_of(tmp_path, "scripted")
    accepted(place, "scripted-monk-lite-v1")
    root = ["--root", os.fspath(place.root)]

    def nhzoo(*words: str) -> subprocess.CompletedProcess:
        return run("leaderboard", *words)

    done = nhzoo("export", *root)
    assert done.returncode == 0 and done.stdout.splitlines()[1].startswith(
        "scripted-monk-lite-v1,1,"
    )
    done = nhzoo("remove", "nobody", "--reason", "x", *root)
    assert done.returncode == 2 and "no such row" in done.stderr
    done = nhzoo("remove", "scripted-monk-lite-v1", "--reason", "a test", "--json", *root)
    assert done.returncode == 0 and json.loads(done.stdout)["event"] == "remove"
    shown = json.loads(nhzoo("log", "--json", *root).stdout)
    assert [line["event"] for line in shown["log"]] == ["accept", "remove"]
    assert nhzoo("log", "--head", shown["head"], *root).returncode == 0
    assert nhzoo("log", "--head", "0" * 63 + "1", *root).returncode == 1
    exported = json.loads(nhzoo("export", "--json", *root).stdout)
    assert exported["rows"][0]["status"] == "removed" and exported["head"] == shown["head"]
