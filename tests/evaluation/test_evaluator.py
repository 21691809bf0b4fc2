"""Evaluation and verification on real games, with a debug-size network."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from nhzoo import evaluate, verify
from nhzoo.agents.base import RandomAgent, cumulative
from nhzoo.agents.loading import load
from nhzoo.envs.actions import ACTION_KEYS
from nhzoo.envs.game import Episode, EpisodeResult, Game
from nhzoo.envs.protocols import PROTOCOLS, get_protocol
from nhzoo.errors import InputError
from nhzoo.evaluation import results
from nhzoo.evaluation.auditing import TOLERANCE, audit
from nhzoo.evaluation.playing import _one_by_one
from nhzoo.evaluation.progression import progression
from nhzoo.evaluation.results import merge
from nhzoo.evaluation.statistics import iqm, mean_ci95
from nhzoo.policy import arithmetic
from nhzoo.policy.inference import choose
from nhzoo.runtime import files
from tests.conftest import make_entry, read_rows
from tests.helpers import by_hand, commands
from tests.helpers.saboteurs import Hanger, Killer, Raiser, Vandal

NHZOO = (sys.executable, "-m", "nhzoo")


def evaluate_command(entry: Path, out: Path) -> list[str]:
    """The evaluation of `played`, with two workers, from the command line."""
    options = ["--protocol", "smoke-v1", "--episodes", "4", "--batch", "4", "--workers", "2"]
    return [*NHZOO, "evaluate", os.fspath(entry), *options, "--out", os.fspath(out)]


def contents(folder: Path) -> dict[str, bytes]:
    """What has to be the same: the games and their traces."""
    paths = [folder / "episodes.jsonl", *sorted((folder / "traces").iterdir())]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def played(shared_entry, tmp_path_factory) -> Path:
    """Four games of the debug-size agent, by one worker without interruption."""
    folder = tmp_path_factory.mktemp("results") / "one"
    evaluate(shared_entry, "smoke-v1", episodes=4, workers=1, out=folder, batch=4)
    return folder


def test_protocol_seeds_are_the_contracts():
    for protocol in PROTOCOLS.values():
        for index in (0, 3, protocol.games - 1):
            digest = hashlib.sha256(f"nhzoo:{protocol.id}:{index}".encode()).digest()
            spec = protocol.game(index)
            assert spec.core == int.from_bytes(digest[:8], "big") >> 1
            assert spec.disp == int.from_bytes(digest[8:16], "big") >> 1
            assert (spec.lgen, spec.ubirthday) == (None, 1_000_000_000)
            assert spec.character == protocol.character
        with pytest.raises(InputError):
            protocol.game(protocol.games)


def test_uniforms_are_the_contracts():
    digest = hashlib.sha256(b"nhzoo:monk-v1:3:actions").digest()
    philox = np.random.Philox(key=int.from_bytes(digest[:16], "big"))
    expected = np.random.Generator(philox).random(100)
    stream = get_protocol("monk-v1").uniforms(3)
    assert [stream.random() for _ in range(100)] == expected.tolist()


def test_uniforms_drawn_in_blocks_are_those_drawn_singly():
    single, ahead, block = (get_protocol("monk-v1").uniforms(3) for _ in range(3))
    expected = [single.random() for _ in range(2_000)]
    assert list(islice(_one_by_one(ahead), 2_000)) == expected
    filled = np.zeros(250)
    assert [u for _ in range(8) for u in block.random(out=filled).tolist()] == expected


def test_a_result_folder_is_the_contracts(played):
    result = json.loads((played / "result.json").read_text())
    rows = read_rows(played)
    assert [row["index"] for row in rows] == [0, 1, 2, 3]
    assert result["protocol"] == "smoke-v1"
    assert result["agent"] == "tiny-agent"
    assert len(result["weights_sha256"]) == 64
    for name in [
        "episodes",
        "mean_score",
        "mean_score_ci95",
        "median_score",
        "iqm_score",
        "std_score",
        "mean_progression",
        "mean_turns",
        "mean_steps",
        "mean_depth",
        "max_depth",
        "mean_experience_level",
        "ascensions",
        "crashed",
        "voided",
        "faults",
        "env_steps_per_second",
    ]:
        assert name in result["summary"]
    for row in rows:
        for name in [
            "index",
            "core",
            "disp",
            "character",
            "score",
            "steps",
            "turns",
            "depth",
            "max_depth",
            "experience_level",
            "end_status",
            "cause",
            "keys",
            "sha256",
        ]:
            assert name in row
        keys = results.read_trace(played, row["index"])
        assert hashlib.sha256(keys).hexdigest() == row["sha256"]
        assert len(keys) == row["keys"] >= row["steps"]
        assert set(keys) <= set(ACTION_KEYS.tolist())


@pytest.mark.slow
def test_workers_batch_order_and_resuming_do_not_matter(shared_entry, played, tmp_path):
    """A network's games are the same bytes, also when a run is resumed with another batch."""
    two = tmp_path / "two"
    evaluate(shared_entry, "smoke-v1", episodes=2, workers=2, out=two, batch=5)
    identity = files.read_json(two / "evaluation.json")
    assert identity["numerics"] == arithmetic.NUMERICS
    identity["cpu_capability"] = "another make's"
    files.atomic_write(two / "evaluation.json", files.dump_json(identity))
    evaluate(shared_entry, "smoke-v1", episodes=4, workers=1, out=two, batch=64)
    assert contents(two) == contents(played)


@pytest.mark.slow
def test_killed_half_way_and_resumed_it_is_byte_identical(shared_entry, played, tmp_path):
    folder = tmp_path / "killed"
    command = evaluate_command(shared_entry, folder)
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    log = folder / "episodes.jsonl"
    while not (log.exists() and log.read_bytes().count(b"\n") >= 1):
        time.sleep(0.01)
        assert process.poll() is None
    process.kill()
    process.wait()
    assert not (folder / "result.json").exists()
    with open(log, "ab") as file:
        file.write(b'{"index": 3, "core": 12')  # a line that the kill cut short
    done = commands.run(*command[len(NHZOO) :])
    assert done.returncode == 0, done.stderr
    assert contents(folder) == contents(played)
    assert verify(folder).ok


@pytest.mark.slow
def test_a_killed_worker_costs_nothing_but_time(shared_entry, played, tmp_path):
    folder = tmp_path / "worker-killed"
    command = evaluate_command(shared_entry, folder)
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    killed = 0
    while process.poll() is None and killed < 3:
        for children in Path(f"/proc/{process.pid}/task").glob("*/children"):
            for pid in children.read_text().split():
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"spawn_main" in line:
                    time.sleep(0.5)
                    with contextlib.suppress(ProcessLookupError):  # it had just finished
                        os.kill(int(pid), signal.SIGKILL)
                        killed += 1
                    break
        time.sleep(0.2)
    assert process.wait() == 0
    assert killed
    assert contents(folder) == contents(played)


def test_verify_reproduces_every_game(played):
    report = verify(played, workers=2)
    assert report.ok
    assert (report.episodes, report.verified, report.mismatched) == (4, 4, [])


def change_row(folder, index, **changes):
    rows = read_rows(folder)
    rows[index].update(changes)
    files.atomic_write(folder / "episodes.jsonl", files.dump_jsonl(rows))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"score": 12_345.0}, "score is 12345.0"),
        ({"turns": 99_999}, "turns"),
        ({"max_depth": 40}, "max_depth"),
        ({"experience_level": 30}, "experience_level"),
        ({"progression": 0.9}, "progression"),
        ({"end_status": "ascended"}, "end_status"),
        ({"core": 1}, "core"),
        ({"sha256": "0" * 64}, "sha256"),
        ({"keys": 1}, "keys"),
        ({"steps": 1}, "steps"),
        ({"end_status": "crashed", "score": 1_000_003.0}, "score is 1000003.0"),
    ],
)
def test_altered_games_are_caught_and_named(played, tmp_path, changes, reason):
    folder = tmp_path / "altered"
    shutil.copytree(played, folder)
    change_row(folder, 2, **changes)
    report = verify(folder, workers=1)
    assert report.mismatched == [2]
    assert reason in report.reasons[2]


def test_altered_traces_are_caught_and_named(played, tmp_path):
    folder = tmp_path / "altered"
    shutil.copytree(played, folder)
    keys = results.read_trace(folder, 1)
    results.write_trace(folder, 1, keys[:-5])
    results.write_trace(folder, 0, results.read_trace(folder, 0) + b"jjj")
    path = results.trace_path(folder, 3)
    path.write_bytes(path.read_bytes()[:-7])
    results.trace_path(folder, 2).unlink()
    report = verify(folder, workers=2)
    assert report.mismatched == [0, 1, 2, 3]
    assert "ends at key" in report.reasons[0]
    assert "goes on after" in report.reasons[1]
    assert "no such file" in report.reasons[2]
    assert "truncated" in report.reasons[3]


def test_an_altered_summary_is_caught(played, tmp_path):
    folder = tmp_path / "altered"
    shutil.copytree(played, folder)
    result = json.loads((folder / "result.json").read_text())
    result["summary"]["mean_score"] += 1
    (folder / "result.json").write_text(json.dumps(result))
    report = verify(folder)
    assert not report.ok
    assert report.problems == [
        f"result.json: mean_score is {result['summary']['mean_score']!r}, "
        f"its games give {result['summary']['mean_score'] - 1!r}"
    ]


def test_leaving_games_out_is_a_problem(played, tmp_path):
    folder = tmp_path / "picked"
    shutil.copytree(played, folder)
    rows = [row for row in read_rows(folder) if row["index"] != 1]
    files.atomic_write(folder / "episodes.jsonl", files.dump_jsonl(rows))
    result = json.loads((folder / "result.json").read_text())
    result["summary"] |= results.summarize(rows)
    (folder / "result.json").write_text(json.dumps(result))
    report = verify(folder)
    assert not report.ok
    assert report.problems == ["the games are not 0 to 2: some were left out"]


@pytest.mark.slow
def test_a_trace_that_a_kill_damaged_is_played_again(shared_entry, played, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(played, folder)
    path = results.trace_path(folder, 1)
    path.write_bytes(path.read_bytes()[:-9])
    results.trace_path(folder, 2).unlink()
    (folder / ".evaluation.json.abc.tmp").touch()
    (folder / "traces" / ".3.xz.abc.tmp").touch()
    evaluate(shared_entry, "smoke-v1", episodes=4, workers=2, out=folder, batch=4)
    assert contents(folder) == contents(played)


@pytest.mark.slow
def test_half_a_line_is_dropped_at_the_end_and_named_elsewhere(shared_entry, played, tmp_path):
    folder = tmp_path / "half"
    shutil.copytree(played, folder)
    log = folder / "episodes.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:3]) + lines[3][:40])
    with pytest.raises(InputError, match=r"episodes\.jsonl, line 4: not valid JSON"):
        verify(folder)
    evaluate(shared_entry, "smoke-v1", episodes=4, workers=1, out=folder, batch=4)
    assert contents(folder) == contents(played)
    log.write_bytes(lines[0] + lines[1][:40] + b"\n" + lines[2])
    with pytest.raises(InputError, match=r"episodes\.jsonl, line 2: not valid JSON"):
        evaluate(shared_entry, "smoke-v1", episodes=4, workers=1, out=folder, batch=4)


@pytest.mark.slow
def test_logits_that_are_not_finite_end_the_game(shared_entry):
    agent = load(shared_entry)
    for parameter in agent.entry.policy.parameters():
        parameter.mul_(1e30)
    done = evaluate(agent, "smoke-v1", episodes=2, workers=1, batch=2)
    assert [row["end_status"] for row in done.episodes] == ["crashed", "crashed"]
    assert done.episodes[0]["cause"] == "agent raised ValueError: the agent's logits are not finite"


def test_results_of_something_else_are_refused(shared_entry, played, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(played, folder)
    with pytest.raises(InputError, match="another agent"):
        evaluate("random", "smoke-v1", episodes=4, out=folder, batch=4)
    with pytest.raises(InputError, match="another protocol"):
        evaluate(shared_entry, "monk-lite-v1", episodes=4, out=folder, batch=4)
    identity = files.read_json(folder / "evaluation.json")
    older = {name: value for name, value in identity.items() if name != "numerics"}
    files.atomic_write(folder / "evaluation.json", files.dump_json(older))
    with pytest.raises(InputError, match=r"another numerics \(None, now 'fma-chain-1'\)"):
        evaluate(shared_entry, "smoke-v1", episodes=4, out=folder, batch=4)
    files.atomic_write(folder / "evaluation.json", files.dump_json(identity))
    foreign = tmp_path / "foreign"  # who knows what its arithmetic depends on
    evaluate(RandomAgent(), "smoke-v1", episodes=1, workers=1, out=foreign, batch=4)
    with pytest.raises(InputError, match="another batch"):
        evaluate(RandomAgent(), "smoke-v1", episodes=1, workers=1, out=foreign, batch=5)
    other = make_entry(tmp_path / "tiny-agent", seed=9)
    with pytest.raises(InputError, match="another revision"):
        evaluate(other, "smoke-v1", episodes=4, out=folder, batch=4)
    patient = tmp_path / "patient" / shared_entry.name
    shutil.copytree(shared_entry, patient)
    config = files.read_json(patient / "config.json")
    config["sampling"]["patience"] = 9
    files.atomic_write(patient / "config.json", files.dump_json(config))
    with pytest.raises(InputError, match=r"another patience \(None, now 9\)"):
        evaluate(patient, "smoke-v1", episodes=4, out=folder, batch=4)
    identity = files.read_json(folder / "evaluation.json")
    identity["versions"]["nle"] = "1.2.0"
    files.atomic_write(folder / "evaluation.json", files.dump_json(identity))
    with pytest.raises(InputError, match=r"another versions\.nle \('1\.2\.0', now '1\.3\.0'\)"):
        evaluate(shared_entry, "smoke-v1", episodes=4, out=folder, batch=4)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        evaluate(shared_entry, "smoke-v1", episodes=1, out=tmp_path / "full")


@pytest.mark.parametrize(
    "options",
    [
        {"protocol": "monk-v0"},
        {"protocol": "smoke-v1", "episodes": 0},
        {"protocol": "smoke-v1", "episodes": 9},
        {"protocol": "smoke-v1", "workers": 0},
        {"protocol": "smoke-v1", "batch": 0},
    ],
)
def test_options_that_cannot_be(options):
    with pytest.raises(InputError):
        evaluate("random", **options)


class Stuck:
    """An agent from outside that can be pickled: it presses Escape forever."""

    name, revision, observation_keys = "stuck", None, ("blstats",)

    def initial_state(self, batch):
        return {"steps": np.zeros(batch, np.int64)}

    def act(self, observation, state, uniform):
        assert observation["blstats"].shape == (len(uniform), 27)
        state["steps"] += 1
        return np.full(len(uniform), list(ACTION_KEYS).index(27)), state


@pytest.mark.slow
def test_an_agent_object_plays_and_stalls():
    done = evaluate(Stuck(), "monk-v1", episodes=2, workers=1, batch=2)
    assert [row["end_status"] for row in done.episodes] == ["stalled", "stalled"]
    assert [row["steps"] for row in done.episodes] == [1000, 1000]


class Seeing(RandomAgent):
    """Presses what RandomAgent does, one step in every game at a time; spoils what it was shown."""

    observation_keys, blind = ("blstats", "tty_chars", "program_state"), False

    def act(self, observation, state, uniform):
        for array in observation.values():
            array[:] = 77
        actions, state = super().act(observation, state, uniform)
        uniform[:] = 0.5
        return actions, state


@pytest.mark.slow
def test_a_random_agents_games_depend_neither_on_the_batch_nor_on_how_they_are_asked_for():
    games = [
        evaluate(agent, "smoke-v1", episodes=3, workers=1, batch=batch).episodes
        for agent, batch in ((RandomAgent(), 1), (RandomAgent(), 3), (Seeing(), 2))
    ]
    assert games[0] == games[1] == games[2]


@pytest.mark.slow
def test_the_random_agent_chooses_as_equal_logits_do():
    uniform = np.random.default_rng(0).random(100_000)
    edges = np.arange(121) / 121
    uniform = np.concatenate([uniform, edges, np.nextafter(edges, 1), [np.nextafter(1, 0)]])
    chosen, _ = RandomAgent().act({}, None, uniform)
    assert (chosen == choose(np.zeros((len(uniform), 121)), uniform, 1.0)).all()


def test_workers_do_without_what_their_agents_do_not_need():
    code = (
        "import sys, nhzoo.evaluation.playing, nhzoo.evaluation.verification\n"
        "assert not {'torch', 'numba', 'scipy.stats'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_damaged_result_folders_are_named(played, tmp_path):
    with pytest.raises(InputError, match="no such result folder"):
        verify(tmp_path / "nothing")
    folder = tmp_path / "bad"
    for name, text, reason in (
        ("result.json", "{", "not valid JSON"),
        ("result.json", '{"schema_version": 7}', "schema version"),
        ("episodes.jsonl", "", "lists no game"),
        ("episodes.jsonl", '{"index": 0}\n', "field 'core'"),
        ("episodes.jsonl", "nonsense\n", "line 1"),
    ):
        shutil.copytree(played, folder)
        (folder / name).write_text(text)
        with pytest.raises(InputError, match=reason):
            verify(folder)
        shutil.rmtree(folder)
    shutil.copytree(played, folder)
    rows = read_rows(folder)
    files.atomic_write(folder / "episodes.jsonl", files.dump_jsonl([*rows, rows[0]]))
    with pytest.raises(InputError, match="game 0 is listed twice"):
        verify(folder)
    change = [*rows[:3], rows[3] | {"index": 77}]
    files.atomic_write(folder / "episodes.jsonl", files.dump_jsonl(change))
    with pytest.raises(InputError, match="no game 77"):
        verify(folder)


def test_progression_keeps_the_best_level():
    drained = EpisodeResult(
        max_depth=3, experience_level=1, max_experience_level=9, end_status="death"
    )
    row = results.episode_row(get_protocol("smoke-v1"), 0, drained, b"")
    assert row["progression"] == progression(3, 9)
    assert row["experience_level"] == 1


def test_intervals_cover_the_mean_of_heavy_tails():
    """Of samples like NetHack's scores, 95 % intervals should hold the mean about that often."""
    random = np.random.default_rng(0)
    true_mean = np.exp(0.5)
    held = 0
    for _ in range(100):
        low, high = mean_ci95(np.exp(random.normal(size=100)))
        held += low <= true_mean <= high
    assert 86 <= held <= 100


def test_statistics_of_small_samples():
    assert mean_ci95([5.0]) is None
    assert mean_ci95([2.0, 2.0, 2.0]) is None
    low, high = mean_ci95([0.0, 10.0, 20.0, 30.0])  # Student's t: 3.182 standard errors of 6.455
    assert (low, high) == pytest.approx((15 - 20.542, 15 + 20.542), abs=0.01)
    low, high = mean_ci95([0.0, 10.0, 20.0, 30.0, 40.0])
    assert 0 <= low < 20 < high <= 40
    assert mean_ci95([0.0, 1.0, 5.0]) == mean_ci95([0.0, 1.0, 5.0])
    assert iqm([0, 1, 2, 100]) == 1.5
    with pytest.raises(ValueError, match="no values"):
        mean_ci95([])


@pytest.mark.slow
def test_a_game_that_kills_nle_is_kept_as_what_it_had_scored(tmp_path):
    whole = evaluate(RandomAgent(), "smoke-v1", episodes=3, workers=2, batch=2).episodes
    keys_of_game = whole[1]["keys"]
    assert keys_of_game > 120
    out = tmp_path / "out"
    done = evaluate(Killer(at=100), "smoke-v1", episodes=3, workers=2, batch=2, out=out)
    killed = done.episodes[1]
    assert killed["end_status"] == "crashed"
    assert killed["cause"] == "NLE ended its process with exit code 1"
    assert killed["keys"] == 100
    assert killed["steps"] == 100 and killed["turns"] >= 1 and killed["depth"] == 1
    assert done.result["summary"]["crashed"] == 1
    for index in (0, 2):
        assert done.episodes[index] == whole[index]
    assert verify(out).ok
    started = evaluate(Killer(at=0), "smoke-v1", episodes=3, workers=1, out=tmp_path / "start")
    assert (started.episodes[1]["keys"], started.episodes[1]["score"]) == (0, 0)
    assert verify(tmp_path / "start").ok


@pytest.mark.parametrize("answer", [None, 500])
def test_an_agents_failure_ends_the_game_in_which_it_happens_and_no_other(answer):
    whole = evaluate(RandomAgent(), "smoke-v1", episodes=4, workers=1, batch=4).episodes
    done = evaluate(Raiser(answer), "smoke-v1", episodes=4, workers=1, batch=4)
    failed = done.episodes[2]
    assert (failed["end_status"], failed["steps"]) == ("crashed", 39)
    reason = "RuntimeError: out of ideas" if answer is None else "ValueError: it chose 500"
    assert failed["cause"].startswith(f"agent raised {reason}")
    for index in (0, 1, 3):
        assert done.episodes[index] == whole[index]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (0, "agent gave no answer within 5 s"),
        (7, "agent ended its process with exit code 7"),
    ],
)
def test_an_agent_that_does_not_come_back_ends_the_game_in_which_it_does_not(code, cause, tmp_path):
    whole = evaluate(RandomAgent(), "smoke-v1", episodes=4, workers=1, batch=4).episodes
    out = tmp_path / "out"
    done = evaluate(Hanger(code), "smoke-v1", 4, 1, out, batch=4, agent_seconds=5)
    failed = done.episodes[2]
    assert (failed["end_status"], failed["steps"], failed["cause"]) == ("crashed", 39, cause)
    assert failed["turns"] > 1
    for index in (0, 1, 3):
        assert done.episodes[index] == whole[index]
    assert verify(out, 1).ok


def test_an_agent_that_writes_over_what_it_is_given_changes_nothing():
    whole = evaluate(RandomAgent(), "smoke-v1", episodes=4, workers=1, batch=4).episodes
    assert evaluate(Vandal(), "smoke-v1", episodes=4, workers=1, batch=4).episodes == whole


@pytest.mark.slow
def test_shards_merge_into_what_one_evaluation_gives(shared_entry, played, tmp_path):
    parts = [tmp_path / str(i) for i in range(2)]
    for i, part in enumerate(parts):
        evaluate(shared_entry, "smoke-v1", 4, 1, part, batch=4, shard=f"{i}/2")
        assert verify(part).ok
    merged = merge(parts, tmp_path / "all")
    assert contents(tmp_path / "all") == contents(played)
    before = files.read_json(played / "result.json")["summary"]
    assert merged["summary"] | {"env_steps_per_second": 0} == before | {"env_steps_per_second": 0}
    assert verify(tmp_path / "all").ok
    with pytest.raises(InputError, match="is not empty"):
        merge(parts, tmp_path / "all")
    with pytest.raises(InputError, match="shard '4/4'"):
        evaluate(shared_entry, "smoke-v1", 4, 1, shard="4/4")
    other = tmp_path / "other"
    evaluate(RandomAgent(), "smoke-v1", 1, 1, other, batch=4)
    with pytest.raises(InputError, match="is of another agent"):
        merge([parts[0], other], tmp_path / "x")
    row = files.read_jsonl(parts[1] / "episodes.jsonl")[0]
    (parts[1] / "traces" / f"{row['index']}.xz").write_bytes(files.compress_xz(b"hhh"))
    with pytest.raises(InputError, match="is not the one that was played"):
        merge(parts, tmp_path / "y")


@pytest.mark.slow
def test_an_incomplete_shard_is_noticed(shared_entry, tmp_path):
    out = tmp_path / "part"
    evaluate(shared_entry, "smoke-v1", 6, 1, out, batch=4, shard="0/2")
    rows = read_rows(out)
    result = files.read_json(out / "result.json")
    files.atomic_write(out / "episodes.jsonl", files.dump_jsonl([rows[0], rows[2]]))
    summary = results.summarize([rows[0], rows[2]])
    files.atomic_write(out / "result.json", files.dump_json(result | {"summary": summary}))
    assert "those of its shard 0/2: some were left out" in verify(out).problems[0]


def test_verifying_can_stop_at_the_first_wrong_game(played, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(played, folder)
    for index in range(4):
        path = folder / "traces" / f"{index}.xz"
        path.write_bytes(path.read_bytes()[:-4])
    assert len(verify(folder, workers=1).mismatched) == 4
    assert len(verify(folder, workers=1, stop_at_first=True).mismatched) == 1


@pytest.mark.slow
def test_the_audit_knows_an_agents_own_games_from_anothers(shared_entry, played, tmp_path):
    own = audit(played, shared_entry)
    assert own.ok and own.keys == sum(row["steps"] for row in read_rows(played))
    assert (own.exact, own.matched, own.near) == (True, own.keys, 0)
    # Another network's games, handed in under this network's name.
    other = make_entry(tmp_path / "other", seed=5)
    forged = tmp_path / "forged"
    evaluate(other, "smoke-v1", 2, 1, forged, batch=4)
    assert audit(forged, shared_entry, 1).problems == [
        "the result is of other weights than those of tiny-agent"
    ]
    result = files.read_json(forged / "result.json")
    claimed = files.read_json(played / "result.json")["weights_sha256"]
    files.atomic_write(
        forged / "result.json", files.dump_json(result | {"weights_sha256": claimed})
    )
    found = audit(forged, shared_entry, 1)
    assert not found.ok and not found.problems
    assert set(found.wrong) == {0, 1}
    assert min(found.wrong.values()) < 50  # at once, not at the end


def hand_in(
    folder: Path, played: Path, result: EpisodeResult, keys: bytes, games: int = 4, **claims: str
) -> None:
    """The first games of `played`, but for game 0, which is another one; all fits together."""
    shutil.copytree(played, folder)
    rows = read_rows(folder)[:games]
    rows[0] = results.episode_row(get_protocol("smoke-v1"), 0, result, keys)
    results.write_trace(folder, 0, keys)
    files.atomic_write(folder / "episodes.jsonl", files.dump_jsonl(rows))
    claimed = files.read_json(folder / "result.json") | claims
    claimed["summary"] |= results.summarize(rows)
    files.atomic_write(folder / "result.json", files.dump_json(claimed))


@pytest.mark.slow
def test_the_best_of_several_tries_is_no_agents_game(shared_entry, played, tmp_path):
    """Playing with other luck gives a game that replays, and that this agent does not play."""
    agent = load(shared_entry)
    protocol = get_protocol("smoke-v1")
    lucky = replace(protocol, id="smoke-v1-again")
    spec = protocol.game(0)
    object.__setattr__(lucky, "game", lambda index: spec)  # the protocol's dungeon, other uniforms
    episode = Episode(Game(agent.observation_keys))
    episode.start(spec, protocol.step_cap, protocol.no_progress)
    state, stream, over = agent.initial_state(1), lucky.uniforms(0), False
    while not over:
        seen = {name: episode.game.observation[name][None] for name in agent.observation_keys}
        actions, state = agent.act(seen, state, np.array([stream.random()]))
        over = episode.step(int(ACTION_KEYS[actions[0]]))
    folder = tmp_path / "picked"
    hand_in(folder, played, episode.result, bytes(episode.game.keys))
    assert verify(folder).ok  # it is a game of NetHack's
    found = audit(folder, shared_entry, 1)
    assert list(found.wrong) == [0]


@pytest.mark.slow
def test_one_key_chosen_beside_a_boundary_is_found(shared_entry, played, tmp_path):
    """Whoever may choose among keys whose uniforms lie near a boundary has many tries for free."""
    agent, protocol = load(shared_entry), get_protocol("smoke-v1")
    episode = Episode(Game(agent.observation_keys))
    episode.start(protocol.game(0), protocol.step_cap, protocol.no_progress)
    state, stream, over = agent.initial_state(1), protocol.uniforms(0), False
    chosen = 0
    while not over:
        seen = {name: episode.game.observation[name][None] for name in agent.observation_keys}
        uniform = np.array([stream.random()])
        actions, state = agent.act(seen, state, uniform)
        if not chosen:
            sums = cumulative(agent.last_logits, agent.entry.sampling.temperature)[0]
            others = [a for a in (actions[0] - 1, actions[0] + 1) if 0 <= a < len(sums)]
            bounds = {a: sums[min(a, actions[0])] for a in others}
            near = [a for a in others if abs(bounds[a] - uniform[0]) < TOLERANCE / 2]
            if near:
                actions[0], chosen = near[0], episode.result.steps + 1
                agent.press(state, 0, int(ACTION_KEYS[near[0]]))
        over = episode.step(int(ACTION_KEYS[actions[0]]))
    assert chosen
    folder = tmp_path / "picked"
    hand_in(folder, played, episode.result, bytes(episode.game.keys))
    assert verify(folder).ok
    found = audit(folder, shared_entry, 1)
    assert (found.ok, found.exact, found.wrong) == (False, True, {0: chosen})
    # Results from before numerics were named keep the tolerance; none of them is audited anew.
    result = files.read_json(folder / "result.json")
    del result["numerics"]
    files.atomic_write(folder / "result.json", files.dump_json(result))
    found = audit(folder, shared_entry, 1)
    assert (found.ok, found.exact, found.near) == (True, False, 1)
    files.atomic_write(folder / "result.json", files.dump_json(result | {"numerics": "x-2"}))
    with pytest.raises(InputError, match="its numerics are 'x-2'; this version of nhzoo computes"):
        audit(folder, shared_entry, 1)


@pytest.mark.slow
def test_a_game_played_by_hand_is_no_networks_game(shared_entry, played, tmp_path):
    """Handed in among a network's own games, and by itself in the name of a trained one."""
    protocol = get_protocol("smoke-v1")
    episode = Episode(Game(()))
    episode.start(protocol.game(0), protocol.step_cap, protocol.no_progress)
    assert episode.play(by_hand.KEYS) == len(by_hand.KEYS)
    result, keys = episode.result, bytes(episode.game.keys)
    episode.game.close()
    assert (result.score, result.max_depth, result.cause) == (72.0, 2, "quit")
    among, alone, trained = tmp_path / "among", tmp_path / "alone", load("bc-lstm-1m")
    hand_in(among, played, result, keys)
    name = {"agent": trained.name, "revision": trained.revision, "weights_sha256": trained.revision}
    hand_in(alone, played, result, keys, games=1, **name)
    for folder, agent in ((among, shared_entry), (alone, "bc-lstm-1m")):
        assert verify(folder).ok
        found = audit(folder, agent, 1)
        assert not found.ok and not found.problems
        assert list(found.wrong) == [0]
        assert found.wrong[0] < 20
    done = commands.run("verify", alone, "--audit", "bc-lstm-1m", "--workers", 1)
    assert done.returncode == 1
    assert "game 0: bc-lstm-1m presses another key at its step" in done.stderr


def test_a_role_that_is_drawn_is_in_its_row_and_verified(played, tmp_path):
    out = tmp_path / "out"
    done = evaluate("random", "allroles-v1", episodes=2, workers=1, out=out)
    assert done.result["batch"] == 16
    game = Game(("glyphs",))
    for row in done.episodes:
        Episode(game).start(get_protocol("allroles-v1").game(row["index"]), 1, 1)
        assert row["role"] == game.role
    assert verify(out, 1).ok
    change_row(out, 1, role="Wiz" if done.episodes[1]["role"] != "Wiz" else "Mon")
    report = verify(out, 1)
    assert report.mismatched == [1]
    assert report.reasons[1].startswith("role is '")
    assert not any("role" in row for row in read_rows(played))
