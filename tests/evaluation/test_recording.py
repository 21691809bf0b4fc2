"""Recording: agents' games become trace sets, with the same bytes whatever happens meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from nhzoo.data.stats import statistics
from nhzoo.data.traces import Diverged, open_traces, replay
from nhzoo.envs.game import Episode, Game
from nhzoo.envs.protocols import GameSpec, get_protocol, seeds_of
from nhzoo.errors import InputError
from nhzoo.evaluation import recording
from nhzoo.evaluation.playing import LOOPED
from nhzoo.evaluation.recording import record
from tests import ROOT
from tests.agents.test_bots import FOLDER, bot
from tests.conftest import make_entry
from tests.helpers.bots.pool import without_processes

SHORT = replace(get_protocol("allroles-v1"), step_cap=1_200)


def contents(folder: Path) -> dict[str, bytes]:
    """Everything in a set, hidden files too."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture
def in_process(monkeypatch):
    without_processes(monkeypatch)


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "games.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """Six games of the bot in a folder, by one worker without interruption."""
    folder = tmp_path_factory.mktemp("sets") / "walks"
    report = record(FOLDER, SHORT, 6, folder, workers=1, held_out=0.75)
    assert (report.games, report.played, report.without_keys) == (6, 6, [])
    return folder


def test_a_recording_is_a_trace_set(recorded):
    traces = open_traces(recorded)
    rows = rows_of(recorded)
    assert [trace.game for trace in traces.traces] == list("012345")
    assert sorted(contents(recorded)) == ["games.jsonl", *(f"keys/{i}.xz" for i in range(6))]
    game = Game()
    for index, (trace, row) in enumerate(zip(traces.traces, rows, strict=True)):
        core, disp = seeds_of(f"nhzoo:data:walks:{index}")
        assert row["seeds"] == {"core": core, "disp": disp, "reseed": False, "lgen": None}
        assert (row["character"], row["playername"]) == ("@", "Agent-@")
        assert (row["fix_moon_phase"], row["ubirthday"]) == (True, 1_000_000_000)
        assert sum(1 for _ in replay(trace, game)) == row["keys"] == trace.length
        assert len(row["frame_hashes"]) == -(-trace.length // 1_000) > 0
        assert row["env_steps"] <= row["keys"]
        assert (trace.role, trace.end_status) == (row["role"], row["end_status"])
        assert row["agent"].startswith("folder@")
        assert row["protocol"] == "allroles-v1"
    assert "step_cap" in {row["end_status"] for row in rows}
    assert {row["split"] for row in rows} == {"train", "validation"}


def test_what_replaying_checks(recorded):
    trace = next(t for t in open_traces(recorded).traces if t.end_status == "step_cap")
    game = Game()
    for other, reason in (
        (replace(trace, score=trace.score + 100), "score"),
        (replace(trace, end_status=None), "went on"),
        (replace(trace, end_status="death"), "went on"),
        (replace(trace, frame_hashes=("0" * 16, *trace.frame_hashes[1:])), "before key 0"),
    ):
        with pytest.raises(Diverged, match=reason):
            list(replay(other, game))
    expert = min(open_traces("autoascend-monk-v1").traces, key=lambda trace: trace.length)
    with pytest.raises(Diverged, match="is over, recorded as step_cap"):
        list(replay(replace(expert, end_status="step_cap"), game))


@pytest.mark.slow
def test_workers_and_going_on_do_not_matter(recorded, tmp_path):
    folder = tmp_path / "walks"
    assert record(FOLDER, SHORT, 2, folder, workers=2, held_out=0.75).played == 2
    before = (folder / "games.jsonl").stat().st_mtime_ns
    for fewer in (2, 1):
        assert record(FOLDER, SHORT, fewer, folder, held_out=0.75).played == 0
    assert (folder / "games.jsonl").stat().st_mtime_ns == before
    stages = []
    report = record(
        FOLDER,
        SHORT,
        6,
        folder,
        workers=2,
        held_out=0.75,
        progress=lambda *metrics: stages.append(metrics),
    )
    assert (report.games, report.played) == (6, 4)
    assert [stage for stage, _ in stages][:: len(stages) - 1] == ["play", "replay"]
    assert contents(folder) == contents(recorded)


@pytest.mark.slow
def test_a_network_records_the_same_with_any_number_of_workers(tmp_path):
    entry = make_entry(tmp_path / "tiny-agent")
    short = replace(SHORT, step_cap=60)
    sets = [tmp_path / "one" / "set", tmp_path / "two" / "set"]
    for workers, folder in enumerate(sets, 1):
        record(entry, short, 3, folder, workers=workers)
    assert contents(sets[0]) == contents(sets[1])
    assert rows_of(sets[0])[0]["agent"].startswith("tiny-agent@")


COMMAND = """
import sys
from tests.evaluation.test_recording import FOLDER, SMALL, record
if __name__ == "__main__":
    record(FOLDER, SMALL, 5, sys.argv[1], workers=2)
"""
SMALL = replace(SHORT, step_cap=400)
MOMENTS = (
    lambda folder: (folder / ".recording" / "recording.json").exists(),
    lambda folder: len(list(folder.glob(".recording/games/traces/[0-9]*.xz"))) >= 2,
    lambda folder: len(list(folder.glob(".recording/replayed/[0-9]*.json"))) >= 2,
    lambda folder: len(list(folder.glob("keys/[0-9]*.xz"))) >= 2,
)


@pytest.mark.slow
def test_killed_at_any_moment_and_run_again_it_is_byte_identical(tmp_path, in_process):
    """At each moment a worker is killed (if there is one), then the whole recording."""
    record(FOLDER, SMALL, 5, tmp_path / "whole" / "set")
    script, folder = tmp_path / "record.py", tmp_path / "killed" / "set"
    script.write_text(COMMAND)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    kills = 0
    for moment in MOMENTS:
        process = subprocess.Popen([sys.executable, script, folder], env=environment)
        while not moment(folder) and process.poll() is None:
            time.sleep(0.005)
        for pid in workers_of(process.pid)[:1]:
            os.kill(pid, signal.SIGKILL)
            kills += 1
        time.sleep(0.05)
        process.kill()
        process.wait()
    for left in (".games.jsonl.abc.tmp", "keys/.4.xz.abc.tmp"):  # as such a kill may leave them
        (folder / left).touch()
    subprocess.run([sys.executable, script, folder], env=environment, check=True)
    assert kills
    assert contents(folder) == contents(tmp_path / "whole" / "set")


def workers_of(pid: int) -> list[int]:
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


@pytest.mark.slow
def test_a_kill_between_the_last_steps_loses_and_repeats_nothing(
    recorded, tmp_path, monkeypatch, in_process
):
    """Stopped before games.jsonl is written, and before the unfinished folder is removed."""
    folder = tmp_path / "walks"
    for function in ("_line", "_remove_work"):
        with monkeypatch.context() as patch:
            patch.setattr(f"nhzoo.evaluation.recording.{function}", _interrupt)
            with pytest.raises(KeyboardInterrupt):
                record(FOLDER, SHORT, 6, folder, held_out=0.75)
        assert (folder / ".recording" / "recording.json").exists()
        # Nothing is left to be played or replayed.
        monkeypatch.setattr("nhzoo.evaluation.evaluator.PlayTask", None)
        monkeypatch.setattr("nhzoo.evaluation.recording.HashTask", None)
    copy = tmp_path / "copy" / "walks"
    shutil.copytree(folder / ".recording", copy / ".recording")
    with pytest.raises(InputError, match="unfinished recording with another held_out"):
        record(FOLDER, SHORT, 6, copy, held_out=0.3)
    assert record(FOLDER, SHORT, 6, folder, held_out=0.75).played == 0
    assert contents(folder) == contents(recorded)


def _interrupt(*args):
    raise KeyboardInterrupt


def test_unfinished_games_are_kept_when_fewer_are_asked_for(tmp_path, monkeypatch, in_process):
    folder, short = tmp_path / "set", replace(SHORT, step_cap=20)
    record(bot(), short, 1, folder)
    with monkeypatch.context() as patch:
        patch.setattr("nhzoo.evaluation.recording._line", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            record(bot(), short, 3, folder)
    assert record(bot(), short, 1, folder).games == 1
    assert (folder / ".recording" / "games" / "episodes.jsonl").read_bytes().count(b"\n") == 2
    assert record(bot(), short, 3, folder).games == 3
    assert not (folder / ".recording").exists()


def test_recording_adds_to_a_set_of_other_origin(small_set, tmp_path, in_process):
    folder = tmp_path / "small"
    shutil.copytree(small_set, folder)
    with pytest.raises(InputError, match="the set holds another game 0"):
        record(bot(), SHORT, 1, folder)
    text = (folder / "games.jsonl").read_text()
    renamed = "".join(
        line.replace('"game": ', '"game":  100', 1) + "\n" for line in text.splitlines()
    )
    (folder / "games.jsonl").write_text(renamed)
    for path in (folder / "keys").iterdir():
        path.rename(path.with_name(f"100{path.name}"))
    before = contents(folder)
    record(bot(), replace(SHORT, step_cap=20), 2, folder)
    after = contents(folder)
    assert after["games.jsonl"].startswith(before.pop("games.jsonl"))
    assert {name: after[name] for name in before} == before
    assert [t.game for t in open_traces(folder).traces] == [
        "1000",
        "1001",
        "1002",
        "1003",
        "0",
        "1",
    ]


def test_another_agent_or_protocol_is_refused(recorded):
    before = contents(recorded)
    with pytest.raises(InputError, match="by another agent"):
        record("random", SHORT, 7, recorded)
    with pytest.raises(InputError, match="by another protocol"):
        record(FOLDER, "monk-v1", 7, recorded)
    for options in ({"episodes": 0}, {"held_out": 1.5}, {"name": "../up"}, {"protocol": "monk"}):
        with pytest.raises(InputError):
            record(
                **{"agent": "random", "protocol": SHORT, "episodes": 7} | options, folder=recorded
            )
    assert contents(recorded) == before


@pytest.mark.slow
def test_games_may_be_stopped_early_and_say_so(recorded, tmp_path, in_process):
    """A set has games with a limit of their own beside games without; all are told apart."""
    folder = tmp_path / "walks"
    shutil.copytree(recorded, folder)
    before = rows_of(folder)
    report = record(FOLDER, SHORT, 9, folder, workers=1, held_out=0.75, max_steps=40)
    rows = rows_of(folder)
    assert rows[:6] == before
    assert [row.get("max_steps") for row in rows] == [None] * 6 + [40] * 3
    assert max(row["env_steps"] for row in rows[6:]) == 40
    assert all(row["end_status"] == "step_cap" for row in rows[6:] if row["env_steps"] == 40)
    assert report.capped == sum(row["env_steps"] == 40 for row in rows[6:]) > 0
    whole = [row["env_score"] for row in before]
    assert report.mean_score == sum(whole) / len(whole)

    traces = open_traces(folder).traces
    assert [trace.max_steps for trace in traces] == [row.get("max_steps") for row in rows]
    assert [trace.capped for trace in traces[:6]] == [False] * 6  # by the protocol, if at all
    assert sum(1 for _ in replay(traces[-1], Game())) == traces[-1].length
    assert statistics(folder, workers=1).capped == report.capped
    again = contents(folder)
    record(FOLDER, SHORT, 9, folder, workers=1, held_out=0.75, max_steps=40)
    record(FOLDER, SHORT, 9, folder, workers=1, held_out=0.75)
    assert contents(folder) == again


@pytest.mark.slow
def test_limits_that_do_not_go_together_are_refused(recorded, tmp_path, monkeypatch, in_process):
    folder = tmp_path / "walks"
    shutil.copytree(recorded, folder)
    for steps in (0, SHORT.step_cap, 1 << 40):
        with pytest.raises(InputError, match=r"max_steps .*give 1 to 1,199, or none"):
            record(FOLDER, SHORT, 7, folder, held_out=0.75, max_steps=steps)
    (folder / "keys" / "2.xz").unlink()
    with pytest.raises(InputError, match=r"game 2 are lost, .* without --max-steps"):
        record(FOLDER, SHORT, 7, folder, held_out=0.75, max_steps=40)
    record(FOLDER, SHORT, 6, folder, workers=1, held_out=0.75)
    assert contents(folder) == contents(recorded)

    with monkeypatch.context() as patch:
        patch.setattr(recording, "_replayed", interrupted)
        with pytest.raises(KeyboardInterrupt):
            record(FOLDER, SHORT, 7, folder, workers=1, held_out=0.75, max_steps=40)
    for steps in (None, 41):
        with pytest.raises(InputError, match="unfinished recording with another max_steps"):
            record(FOLDER, SHORT, 7, folder, held_out=0.75, max_steps=steps)
    record(FOLDER, SHORT, 7, folder, workers=1, held_out=0.75, max_steps=40)
    assert rows_of(folder)[6]["max_steps"] == 40


@pytest.mark.slow
def test_games_in_a_loop_may_be_stopped_and_are_counted(tmp_path, in_process):
    """To and fro on two squares is one. The game goes as it would, and ends sooner."""
    limits = replace(SHORT, step_cap=300, character="mon-hum-neu-mal")
    report = record(bot("pacer"), limits, 3, tmp_path / "paces", workers=1, max_loop=50)
    rows = rows_of(tmp_path / "paces")
    ends = {(row["end_status"], row["death"]) for row in rows}
    assert ends == {("stalled", LOOPED)} and report.looped == 3
    assert all(50 < row["env_steps"] < 300 and row["max_loop"] == 50 for row in rows)
    assert (report.broken, report.failures, report.mean_score) == (0, {}, None)
    for trace in open_traces(tmp_path / "paces").traces:
        assert sum(1 for _ in replay(trace, Game())) == trace.length
        assert trace.limited and not trace.capped

    whole = record(bot("pacer"), limits, 3, tmp_path / "whole", name="paces", workers=1)
    assert whole.looped == 0 and all("max_loop" not in row for row in rows_of(tmp_path / "whole"))
    for index, row in enumerate(rows):
        keys = [open_traces(tmp_path / n).traces[index].keys() for n in ("paces", "whole")]
        assert keys[1].startswith(keys[0])
        squares = where(open_traces(tmp_path / "whole").traces[index])[: row["env_steps"]]
        assert len(set(squares[-50:])) <= 3
    for most in (0, 9, 300):
        with pytest.raises(InputError, match=r"max_loop .*give 10 to 299, or none"):
            record(bot("pacer"), limits, 4, tmp_path / "paces", max_loop=most)


def where(trace) -> list[tuple[int, int]]:
    """The hero's square after each of the agent's keys."""
    game, seen = Game(("blstats",)), []
    Episode(game).start(trace.spec, 1, 1)
    for key in trace.keys()[len(game.keys) :]:
        game.step(key)
        seen.append(tuple(game.observation["blstats"][:2]))
    return seen


def interrupted(*args):
    raise KeyboardInterrupt


def test_another_version_of_the_agent_is_refused(tmp_path, monkeypatch, in_process):
    """Finished or not, a recording is of one version."""

    def version(revision: str):
        agent = bot()
        agent.revision = revision
        return agent

    folder, limits = tmp_path / "set", replace(SHORT, step_cap=30)
    record(version("0.37.3"), limits, 1, folder, workers=1)
    with pytest.raises(InputError, match=r"another agent \('\S+@0\.37\.3', now '\S+@0\.38'\)"):
        record(version("0.38"), limits, 2, folder)
    with monkeypatch.context() as patch:
        patch.setattr(recording, "_replayed", interrupted)
        with pytest.raises(KeyboardInterrupt):
            record(version("0.37.3"), limits, 1, tmp_path / "new", workers=1)
    with pytest.raises(InputError, match="unfinished recording with another agent"):
        record(version("0.38"), limits, 1, tmp_path / "new")


def test_broken_games_are_recorded_up_to_the_failure(tmp_path, in_process):
    report = record(bot("huge"), SHORT, 2, tmp_path / "set")
    assert report.broken == len(rows_of(tmp_path / "set")) == 2
    for trace in open_traces(tmp_path / "set").traces:
        assert trace.end_status == "crashed"
        assert sum(1 for _ in replay(trace, Game())) == trace.length


def test_the_split_is_the_names_alone(recorded, tmp_path, in_process):
    splits = [row["split"] for row in rows_of(recorded)]
    other = tmp_path / "elsewhere"
    record(bot(), replace(SHORT, step_cap=5), 6, other, name="walks", held_out=0.75)
    assert [row["split"] for row in rows_of(other)] == splits


@pytest.mark.parametrize(
    ("character", "role"),
    [
        ("arc-hum-law", "Arc"),
        ("bar-orc-cha", "Bar"),
        ("cav-hum-law-fem", "Cav"),
        ("hea-gno-neu", "Hea"),
        ("kni-hum-law", "Kni"),
        ("mon-hum-neu", "Mon"),
        ("pri-hum-neu-fem", "Pri"),
        ("rog-orc-cha", "Rog"),
        ("ran-gno-neu", "Ran"),
        ("sam-hum-law", "Sam"),
        ("tou-hum-neu", "Tou"),
        ("val-dwa-law", "Val"),
        ("wiz-elf-cha", "Wiz"),
    ],
)
def test_roles_are_read_from_the_game(character, role):
    game = Game(("glyphs",))
    Episode(game).start(GameSpec(5, 6, character=character), 1, 1)
    assert game.role == role
