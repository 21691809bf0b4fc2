"""Bots: code of others plays in processes of its own, and whatever it does is one game's end."""

from __future__ import annotations

import fcntl
import gc
import importlib.util
import inspect
import json
import os
import pickle
import resource
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nle import nethack
from nle.env.tasks import NetHackChallenge

from nhzoo import evaluate, verify
from nhzoo.agents import bot_process, bots
from nhzoo.agents.bots import BotAgent, BotSource
from nhzoo.agents.loading import load
from nhzoo.data.traces import open_traces
from nhzoo.envs.protocols import get_protocol
from nhzoo.errors import InputError
from nhzoo.evaluation.playing import PlayTask
from nhzoo.runtime import files
from tests import ROOT
from tests.conftest import read_rows
from tests.helpers.bots.pool import without_processes

SCRIPTED = "tests.helpers.bots.scripted"
FOLDER = ROOT / "tests" / "helpers" / "bots" / "folder"
SHORT = replace(get_protocol("smoke-v1"), step_cap=40)


def bot(function="make_agent", module=SCRIPTED, **options) -> BotAgent:
    options = {"observation_keys": ("blstats", "tty_chars")} | options
    return BotAgent(BotSource(module, function), function, **options)


def play(agent, protocol=SHORT, index=0):
    """One game, in this process as a worker plays it: its result and keys."""
    task = PlayTask(agent, protocol, 1)
    task.start(index, None)
    while True:
        for key, outcome in task.advance(lambda *blame: None):
            if key is not None:
                return outcome


@pytest.fixture
def in_process(monkeypatch):
    without_processes(monkeypatch)


@pytest.fixture(scope="module")
def walked():
    """The walker's game 0."""
    return play(bot())


@pytest.fixture
def children():
    """Says which processes this one has started since the test began."""
    gc.collect()
    before = descendants(os.getpid())
    return lambda: descendants(os.getpid()) - before


def descendants(pid: int) -> set[int]:
    found: set[int] = set()
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in listed.read_text().split():
            found |= {int(child)} | descendants(int(child))
    return found


def running(command: str) -> list[int]:
    pids = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().replace(b"\0", b" ").decode().strip() == command:
                pids.append(int(path.parent.name))
        except OSError:
            continue
    return pids


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def wait_until(condition) -> bool:
    for _ in range(200):
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_the_interface_is_nles():
    default = inspect.signature(NetHackChallenge.__init__).parameters["observation_keys"].default
    assert default == bots.CHALLENGE_KEYS
    assert len(nethack.ACTIONS) == bots.ACTIONS


def test_a_bot_plays_the_same_game_each_time(walked):
    result, keys = walked
    assert (result.end_status, result.steps) == ("step_cap", 40)
    assert len(set(keys[-40:])) > 4
    assert play(bot())[1] == keys
    assert play(bot(), index=1)[1] != keys
    agent = bot()
    play(agent, index=2)
    assert play(agent)[1] == keys  # nothing is left of the game before
    agent.close()


def test_a_bot_may_look_at_nothing():
    assert play(bot("blind", observation_keys=()))[0].steps == 40


def test_a_blocking_player_plays_as_a_bot_does(walked):
    assert play(bot("player"))[1] == walked[1]


def test_what_a_bot_writes_over_prints_or_forks_changes_nothing(walked, capfd):
    with_rude = play(bot("rude"))
    assert with_rude[1] == walked[1]
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "stdout is mine" in captured.err
    assert "so is file 1" in captured.err


def test_nothing_of_a_game_outlives_it(walked, children):
    before = set(running("sleep 1000"))
    agent = bot("rude")
    assert play(agent)[1] == walked[1]
    assert wait_until(lambda: set(running("sleep 1000")) <= before)
    assert wait_until(lambda: len(children()) == 1)  # the template
    (template,) = children()
    agent.close()
    assert gone(template)


def test_a_module_that_starts_threads_is_not_forked(walked, children):
    agent = bot(module="tests.helpers.bots.threads")
    assert play(agent)[1] == walked[1]
    assert agent._template is None
    assert play(agent)[1] == walked[1]
    assert not children()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("raises", "bot raised ValueError: no idea [31mwhat to do what to do "),
        ("exits_python", "bot raised SystemExit: enough"),
        ("huge", "bot returned 500, not an action index from 0 to 120"),
        ("text", "bot returned 'jump', not an action index from 0 to 120"),
        ("exits", "bot's process died (exit code 3)"),
        ("killed", "bot's process died (exit code -9)"),
    ],
)
def test_a_failing_bot_ends_its_game(walked, function, reason):
    agent = bot(function)
    result, keys = play(agent)
    assert (result.end_status, result.steps) == ("crashed", 2)
    assert walked[1].startswith(keys)  # nothing but real keys
    assert result.cause == agent.failure
    assert not agent.timed_out
    if function == "raises":
        assert agent.failure.startswith(reason)
        assert len(agent.failure) == 200
        assert agent.failure.isprintable()
    else:
        assert agent.failure == reason
    # The next game begins with a fresh process.
    assert play(agent)[1] == keys


@pytest.mark.slow
def test_a_bot_that_is_no_bot():
    assert play(bot("unmade"))[0].cause == "bot raised RuntimeError: there is no bot today"
    assert play(bot("thing"))[0].cause == "bot raised TypeError: 3 is not a bot: no reset and act"
    quitter = play(bot("quitter"))[0]
    assert (quitter.cause, quitter.steps) == ("bot stopped before its game was over", 1)
    for module, function in ((SCRIPTED, "nothing"), ("tests.helpers.bots.nowhere", "make_agent")):
        with pytest.raises(InputError, match=r"agent '\w+': (Attribute|ModuleNotFound)Error"):
            play(bot(function, module))


@pytest.mark.slow
def test_time_limits(children):
    agent = bot("sleeps", step_seconds=0.5)
    result, _ = play(agent)
    assert (result.end_status, result.steps) == ("stalled", 2)
    assert result.cause == "bot gave no answer within 0.5 s"
    assert wait_until(lambda: len(children()) == 1)
    agent.close()
    agent = bot("sleeps", step_seconds=100, game_seconds=1)
    result, _ = play(agent)
    assert (result.end_status, result.cause) == ("stalled", "bot took more than 1 s")
    assert agent.timed_out
    # After its failure a game stays ended.
    state = np.array([agent._handle])
    observation = {name: np.zeros((1, 1)) for name in agent.observation_keys}
    assert agent.act(observation, state, np.zeros(1))[0].tolist() == [-1]
    assert bot(game_seconds=2_400).limits == {"step_seconds": 60.0, "game_seconds": 2_400}
    for limits in ({"step_seconds": 0}, {"game_seconds": -1}):
        with pytest.raises(InputError, match="more than 0"):
            bot(**limits)


def test_processes_end_with_the_one_that_started_them():
    """A worker that is killed takes its template with it, and a bot that sleeps."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        play(bot("sleeps", step_seconds=50))
        os._exit(0)
    assert wait_until(lambda: len(descendants(pid)) == 2)
    started = descendants(pid)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert wait_until(lambda: all(gone(child) for child in started))


def test_a_killed_template_costs_only_time(walked):
    agent = bot()
    play(agent, index=1)
    agent._template.process.kill()
    agent._template.process.wait()
    assert play(agent)[1] == walked[1]


def test_a_forgotten_agent_leaves_no_process(children):
    agent = bot()
    play(agent)
    assert children()
    del agent
    gc.collect()
    assert wait_until(lambda: not children())


def test_close_is_called_when_a_game_is_over(tmp_path, monkeypatch):
    marks = tmp_path / "marks"
    monkeypatch.setenv("NHZOO_TEST_MARKS", str(marks))
    agent = bot("closing")
    play(agent)
    play(agent, index=1)
    agent.close()
    assert marks.read_text() == "closed\nclosed\n"


def test_agents_can_be_pickled_and_play_one_game_at_a_time(walked):
    agent = bot()
    play(agent)
    copy = pickle.loads(pickle.dumps(agent))
    assert play(copy)[1] == walked[1]
    assert (copy.name, copy.limits) == (agent.name, agent.limits)
    for batch, handle in ((2, 0), (1, 77)):
        with pytest.raises(ValueError, match="one game at a time"):
            copy.act({}, np.full(batch, handle), np.zeros(batch))


@pytest.mark.slow
def test_bots_are_loaded_by_module_and_by_folder(tmp_path):
    agent = load(f"{SCRIPTED}:make_agent")
    assert isinstance(agent, BotAgent)
    assert (agent.name, agent.observation_keys) == (
        f"{SCRIPTED}:make_agent",
        ("blstats", "tty_chars"),
    )
    assert isinstance(load(f"{SCRIPTED}:player"), BotAgent)
    with pytest.raises(InputError, match="no initial_state"):
        load(f"{SCRIPTED}:thing")
    folder = tmp_path / "mybot"
    shutil.copytree(FOLDER, folder)
    agent = load(folder)
    assert (agent.name, agent.observation_keys) == ("mybot", ("blstats", "glyphs"))
    assert load(folder).revision == agent.revision
    assert play(agent)[0].steps == 40
    (folder / "helper.py").write_text("def direction(blstats, steps): return 1\n")
    assert load(folder).revision != agent.revision
    for code, reason in (
        ("import nothing_of_that_name", "ModuleNotFoundError"),
        ("def make_agent(): return 1 / 0", "raised ZeroDivisionError"),
        ("import os\ndef make_agent(): os._exit(1)", "died when it was made"),
        (
            "class Bot:\n    observation_keys, reset, act = ['smell'], 0, 0\nmake_agent = Bot",
            "NLE has no observation 'smell'",
        ),
    ):
        (folder / "bot.py").write_text(code)
        with pytest.raises(InputError, match=f"agent 'mybot': .*{reason}"):
            load(folder)


@pytest.mark.slow
def test_results_of_bots_are_marked_resumed_and_verified(tmp_path):
    """Four games, of which the protocol's step cap ends each; then failures, which are verified."""
    one, two = tmp_path / "one", tmp_path / "two"
    agent = load(FOLDER)
    evaluate(agent, "smoke-v1", episodes=2, workers=1, out=one)
    evaluate(agent, "smoke-v1", episodes=1, workers=2, out=two)
    evaluate(agent, "smoke-v1", episodes=2, workers=2, out=two)
    assert (one / "episodes.jsonl").read_bytes() == (two / "episodes.jsonl").read_bytes()
    result = json.loads((one / "result.json").read_text())
    assert (result["exempt"], result["batch"]) == (True, 1)
    assert result["limits"] == {"step_seconds": 60.0, "game_seconds": None}
    assert verify(one).ok
    agent.game_seconds = 2_400.0
    with pytest.raises(InputError, match="another limits"):
        evaluate(agent, "smoke-v1", episodes=2, out=one)


@pytest.mark.slow
@pytest.mark.parametrize(("function", "status"), [("sleeps", "stalled"), ("unmade", "crashed")])
def test_failures_are_in_the_result_and_verified(tmp_path, in_process, function, status):
    done = evaluate(bot(function, step_seconds=1), "smoke-v1", 2, 1, out=tmp_path / "out")
    assert [row["end_status"] for row in done.episodes] == [status] * 2
    assert done.result["summary"]["crashed"] == 2 * (status == "crashed")
    report = verify(tmp_path / "out", workers=1)
    assert report.verified == 2 and not report.mismatched, report.reasons
    assert [fault["games"] for fault in report.faults] == [[0, 1]]
    assert report.ok is (status == "stalled")  # crashes alone are no score
    if status == "stalled":  # only who is under a time limit may stop at any time
        result = json.loads((tmp_path / "out" / "result.json").read_text())
        files.atomic_write(
            tmp_path / "out" / "result.json", files.dump_json(result | {"exempt": False})
        )
        assert "goes on after" in verify(tmp_path / "out", workers=1).reasons[0]
    if function != "unmade":
        rows = read_rows(tmp_path / "out")
        rows[1]["score"] += 5
        files.atomic_write(tmp_path / "out" / "episodes.jsonl", files.dump_jsonl(rows))
        assert verify(tmp_path / "out", workers=1).mismatched[-1] == 1


def test_agents_in_process_are_not_exempt(in_process):
    assert evaluate("random", "smoke-v1", episodes=1).result["exempt"] is False


needs_autoascend = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("nethackers", "cv2", "nltk", "toolz")),
    reason="the extra `expert` is not installed",
)


# The first 301 keys of that game when AutoAscend plays it inside the game's process.
@pytest.mark.slow
@needs_autoascend
def test_autoascend_plays():
    """The first steps of a game of the bundled recording, key for key."""
    agent = load("autoascend")
    protocol = replace(get_protocol("monk-v1"), id="data:autoascend-monk-v1", step_cap=300)
    result, keys = play(agent, protocol)
    assert agent.failure is None
    assert (result.end_status, result.steps) == ("step_cap", 300)
    recorded = next(t for t in open_traces("autoascend-monk-v1").traces if t.game == "0")
    assert keys == recorded.keys()[: len(keys)]
    agent.close()


def test_without_the_extra_one_line_says_how_to_get_it(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "nethackers" else real(name)
    )
    with pytest.raises(InputError, match=r"pip install 'nhzoo\[expert\]'"):
        load("autoascend")


def test_commands_come_in_over_any_handle():
    """select() takes those below 1,024 only."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2_048)), hard))
    ours, theirs = socket.socketpair()
    game = subprocess.Popen(["sleep", "1000"])
    try:
        high = fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, 1_200)
        with ours, theirs, socket.socket(fileno=high) as connection:
            ours.send(bot_process.FORK)
            bot_process._await_command(connection, game.pid)
            assert connection.recv(1) == bot_process.FORK
        assert game.poll() is None
    finally:
        game.kill()
        game.wait()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_proc_nothing_is_forked(monkeypatch):
    assert bot_process._is_alone() == (len(os.listdir("/proc/self/task")) == 1)

    def missing(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "listdir", missing)
    assert not bot_process._is_alone()
