"""`gymnasium.make_vec("nhzoo/Monk-v1")`: Gymnasium's contract, every game named, workers killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics

import nhzoo
from nhzoo.envs import vector
from nhzoo.envs.actions import ACTION_KEYS
from nhzoo.envs.vector import NetHackVectorEnv
from nhzoo.errors import InputError, NhzooError, Notice
from nhzoo.runtime.children import Child
from nhzoo.runtime.processes import wait_for_end
from tests import ROOT

QUIT = [list(ACTION_KEYS).index(key) for key in b"\x1b#quit\ry"]
SEARCH = list(ACTION_KEYS).index(ord("s"))


def made(envs: int, **options) -> NetHackVectorEnv:
    return NetHackVectorEnv(envs, observation_keys=("tty_chars", "blstats"), **options)


def quit_games(env, *rows: int):
    """Quit the games of `rows`, and search in the others; the last step's answer."""
    for key in QUIT:
        actions = np.full(env.num_envs, SEARCH)
        actions[list(rows)] = key
        answer = env.step(actions)
    return answer


def same(ours, theirs) -> bool:
    """Equal, but for the two infos that only ours has."""
    if isinstance(ours, dict):
        ours = {k: v for k, v in ours.items() if k.removeprefix("_") not in ("protocol", "game")}
        if ours.keys() != theirs.keys():
            return False
        return all(same(ours[name], theirs[name]) for name in ours)
    if isinstance(theirs, np.ndarray) and theirs.dtype == object:
        return all(same(*pair) for pair in zip(ours, theirs, strict=True))
    return data_equivalence(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
@pytest.mark.parametrize("name", ["nhzoo/Monk-v1", "nhzoo/AllRoles-v1"])
def test_it_does_what_gymnasiums_sync_vector_env_does(name, mode):
    """The same bytes of observations, rewards, flags and infos, over games that end."""
    ours = gymnasium.make_vec(name, num_envs=3, step_cap=9, workers=2, autoreset_mode=mode)
    theirs = gymnasium.make_vec(
        name,
        num_envs=3,
        step_cap=9,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": mode},
        disable_env_checker=True,
    )
    assert isinstance(ours, NetHackVectorEnv)
    assert ours.metadata["autoreset_mode"] is AutoresetMode(mode)
    for space in ("observation", "action", "single_observation", "single_action"):
        assert getattr(ours, f"{space}_space") == getattr(theirs, f"{space}_space")
    with closing(ours), closing(theirs):
        seen, told = ours.reset(seed=5)
        assert seen in ours.observation_space
        assert all(map(same, (seen, told), theirs.reset(seed=5)))
        assert ours.np_random_seed == theirs.np_random_seed == (5, 6, 7)
        draw = np.random.default_rng(0)
        ended = 0
        for step in range(24):
            actions = draw.integers(0, 8, 3)
            actions[1] = [*QUIT, 0, 1][step % 9]
            answer = ours.step(actions)
            assert all(map(same, answer, theirs.step(actions)))
            ended += answer[2].sum() + 100 * answer[3].sum()
        assert ended % 100 > 1 and ended > 300
        assert all(map(same, ours.reset(), theirs.reset()))


@pytest.mark.slow
def test_a_seed_decides_every_game_of_each_sub_environment():
    single = gymnasium.make("nhzoo/Monk-v1")
    with closing(made(3, workers=2)) as env, closing(single):
        seen, infos = env.reset(seed=40)
        again = env.reset(seed=[40, None, 42])
        assert infos["game"].tolist() == [0, 0, 0] and again[1]["game"].tolist() == [0, 1, 0]
        np.testing.assert_array_equal(seen["tty_chars"][[0, 2]], again[0]["tty_chars"][[0, 2]])
        assert infos["protocol"].tolist() == [None] * 3
        quit_games(env, 2)
        begun, _, _, _, infos = env.step([SEARCH] * 3)
        for seed, row, game in ((40, 0, 0), (41, 1, 1), (42, 2, 1)):
            observation, info = single.reset(seed=seed)
            for _ in range(game):
                observation, info = single.reset()
            assert (infos["core"][row], infos["disp"][row]) == (info["core"], info["disp"])
            assert infos["game"][row] == game
        np.testing.assert_array_equal(begun["tty_chars"][2], observation["tty_chars"])


@pytest.mark.slow
def test_a_protocols_games_are_played_in_order_and_infos_name_each():
    protocol = nhzoo.get_protocol("smoke-v1")
    with closing(made(3)) as env:
        _, infos = env.reset(options={"protocol": "smoke-v1", "episode": 6})
        assert infos["game"].tolist() == [6, 7, 0] and set(infos["protocol"]) == {"smoke-v1"}
        assert infos["core"].tolist() == [protocol.game(n).core for n in (6, 7, 0)]
        _, rewards, terminated, _, infos = quit_games(env, 1)
        assert terminated.tolist() == [False, True, False] and rewards.dtype == np.float64
        assert infos["end_status"].tolist() == [None, "death", None]
        assert infos["game"].tolist() == [6, 7, 0]
        _, _, terminated, _, infos = env.step([SEARCH] * 3)
        assert infos["game"].tolist() == [6, 1, 0] and not terminated.any()
        quit_games(env, 0, 2)
        infos = env.step([SEARCH] * 3)[4]
        assert infos["game"].tolist() == [2, 1, 3]
        assert infos["steps"].tolist() == [0, len(QUIT) + 1, 0]
        assert infos["core"].tolist() == [protocol.game(n).core for n in (2, 1, 3)]
        _, infos = env.reset()
        assert infos["protocol"].tolist() == [None] * 3


@pytest.mark.slow
def test_without_autoreset_the_games_of_a_mask_are_begun():
    with closing(made(2, autoreset_mode=AutoresetMode.DISABLED, render_mode="ansi")) as env:
        with pytest.raises(InputError, match="reset all first"):
            env.reset(options={"reset_mask": np.array([True, False])})
        env.reset(options={"protocol": "monk-lite-v1", "episode": 3})
        seen, _, terminated, _, infos = quit_games(env, 0)
        with pytest.raises(InputError, match="sub-environment 0 has ended"):
            env.step([0, 0])
        kept, infos = env.reset(options={"reset_mask": terminated})
        assert infos["game"].tolist() == [5, 4]
        np.testing.assert_array_equal(kept["tty_chars"][1], seen["tty_chars"][1])
        assert not np.array_equal(kept["tty_chars"][0], seen["tty_chars"][0])
        screens = env.render()
        assert len(screens) == 2
        assert all("Agent the Candidate" in re.sub(r"\x1b\[[\d;]*m", "", s) for s in screens)


@pytest.mark.slow
def test_wrappers_of_gymnasium_and_its_spec():
    made = gymnasium.make_vec(
        "nhzoo/Monk-v1", num_envs=2, step_cap=3, observation_keys=("blstats",), copy=False
    )
    again = gymnasium.make_vec(made.spec)
    again.close()
    assert (again.num_envs, again.unwrapped._game) == (2, made.unwrapped._game)
    with closing(RecordEpisodeStatistics(made)) as env:
        env.reset(seed=1)
        for _ in range(3):
            *_, infos = env.step(env.action_space.sample())
        assert infos["episode"]["l"].tolist() == [3, 3]
        assert infos["end_status"].tolist() == ["step_cap"] * 2
        *_, infos = DictInfoToList(made).step(env.action_space.sample())
        assert [(info["game"], info["steps"]) for info in infos] == [(1, 0)] * 2
    assert env.unwrapped.closed
    with pytest.raises(InputError, match="is closed"):
        made.reset()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"num_envs": 0}, "num_envs 0"),
        ({"workers": 3}, "workers 3"),
        ({"autoreset_mode": "Never"}, "NextStep, SameStep, Disabled"),
        ({"render_mode": "human"}, "ansi alone"),
        ({"character": "mon-elf"}, "no such hero"),
        ({"observation_keys": ("smell",)}, "no observation 'smell'"),
    ],
)
def test_what_cannot_be_made_is_refused_before_a_process_is_started(wrong, said, monkeypatch):
    monkeypatch.setattr(vector, "Child", None)
    with pytest.raises(InputError, match=said):
        NetHackVectorEnv(**{"num_envs": 2} | wrong)


@pytest.mark.slow
def test_what_cannot_be_done_is_refused_and_the_games_go_on():
    with closing(made(2)) as env:
        with pytest.raises(InputError, match="call reset first"):
            env.step([0, 0])
        for options, said in (
            ({"seed": 1}, "known are"),
            ({"episode": 1}, "needs the option protocol"),
            ({"protocol": "monk-v9"}, "unknown protocol"),
            ({"protocol": "smoke-v1", "episode": 8}, "no game 8"),
            ({"reset_mask": np.array([1, 0])}, r"bool \[2\]"),
        ):
            with pytest.raises(InputError, match=said):
                env.reset(options=options)
        with pytest.raises(InputError, match="2 of them"):
            env.reset(seed=[1])
        env.reset(seed=1)
        for actions, said in (([0], r"\[2\]"), ([0.0, 1.0], "whole"), ([0, 121], "action 121")):
            with pytest.raises(InputError, match=said):
                env.step(actions)
        assert env.step([SEARCH, SEARCH])[4]["steps"].tolist() == [1, 1]


def pid_of(env, worker: int) -> int:
    return env._workers[worker].child.pid


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_its_games_end_as_truncated_and_begin_again():
    with closing(made(4, workers=2)) as env:
        first, infos = env.reset(options={"protocol": "smoke-v1", "episode": 2})
        before = env.step([SEARCH] * 4)
        killed = pid_of(env, 1)
        os.kill(killed, signal.SIGKILL)
        assert wait_for_end(killed, 10)
        with pytest.warns(Notice, match=rf"process {killed}.* SIGKILL: its 2 games end as trunc"):
            seen, rewards, terminated, truncated, lost = env.step([SEARCH] * 4)
        assert truncated.tolist() == [False, False, True, True] and not terminated.any()
        assert lost["end_status"].tolist() == [None, None, "crashed", "crashed"]
        assert lost["cause"][2] == "its process was killed by SIGKILL" and not rewards.any()
        assert lost["steps"].tolist() == [2, 2, 1, 1]
        assert lost["game"].tolist() == [2, 3, 4, 5]
        np.testing.assert_array_equal(seen["tty_chars"][2:], before[0]["tty_chars"][2:])
        seen, _, _, truncated, again = env.step([SEARCH] * 4)
        assert not truncated.any() and again["end_status"].tolist() == [None] * 4
        assert again["steps"].tolist() == [3, 3, 0, 0]
        assert again["core"].tolist() == infos["core"].tolist()
        np.testing.assert_array_equal(seen["tty_chars"][2:], first["tty_chars"][2:])
        # NLE itself ends the process in game 5: that is not begun again.
        env._arrays["in_hand"][1] = 3
        os.kill(pid_of(env, 1), signal.SIGSEGV)
        assert wait_for_end(pid_of(env, 1), 10)
        with pytest.warns(Notice, match="SIGSEGV"):
            env.step([SEARCH] * 4)
        assert env.step([SEARCH] * 4)[4]["game"].tolist() == [2, 3, 4, 6]


@pytest.mark.slow
def test_nothing_waits_for_a_stopped_worker_nor_for_ever_new_ones(monkeypatch):
    with closing(made(2, workers=2, autoreset_mode="SameStep")) as env:
        _, infos = env.reset(seed=1)
        os.kill(pid_of(env, 0), signal.SIGSTOP)
        monkeypatch.setattr(vector, "_HANG_SECONDS", 1.0)
        monkeypatch.setattr(vector, "_LOOK", 0.1)
        with pytest.warns(Notice, match="said nothing for 1 s"):
            _, _, _, truncated, after = env.step([SEARCH] * 2)
        assert truncated.tolist() == [True, False]
        assert after["final_info"]["end_status"].tolist()[0] == "crashed"
        assert after["core"].tolist() == infos["core"].tolist()
        assert after["steps"].tolist() == [0, 1]
        monkeypatch.setattr(vector, "_HANG_SECONDS", 300.0)
        monkeypatch.setattr(vector, "_MOST_DEATHS", 1)
        monkeypatch.setattr(env, "_spawn", lambda *_: Child(lambda *_: os._exit(3), ()))
        os.kill(pid_of(env, 1), signal.SIGKILL)
        with pytest.raises(NhzooError, match=r"2 worker processes ended.* with exit code 3"):
            env.reset()
        with pytest.raises(InputError, match="call reset first"):
            env.step([SEARCH] * 2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::nhzoo.errors.Notice")
@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_no_game_of_a_protocol_is_lost_or_played_twice_when_workers_are_killed(mode):
    protocol = replace(nhzoo.get_protocol("smoke-v1"), id="short-v0", games=1_000, step_cap=12)
    draw, ended, kills = np.random.default_rng(0), [], 0
    with closing(made(4, workers=2, autoreset_mode=mode)) as env:
        env.reset(options={"protocol": protocol})
        for step in range(120):
            if step % 20 == 10:  # somewhere in the step, or just after it
                killed = pid_of(env, kills % 2)
                timer = threading.Timer(draw.uniform(0, 0.002), os.kill, (killed, signal.SIGKILL))
                timer.start()
                kills += 1
            _, rewards, terminated, truncated, infos = env.step(draw.integers(0, 8, 4))
            if step % 20 == 10:
                timer.join()
                assert wait_for_end(killed, 10)
            told = infos.get("final_info", infos)
            for row in np.flatnonzero(terminated | truncated):
                if told["end_status"][row] == "crashed":
                    assert truncated[row] and rewards[row] == 0
                else:
                    ended.append(int(told["game"][row]))
            assert len(set(infos["game"].tolist())) == 4
    assert kills == 6 and len(ended) > 20
    assert len(ended) == len(set(ended))
    assert set(range(max(ended))) - set(ended) <= set(infos["game"].tolist())  # not ended yet


SCRIPT = """
import sys
import gymnasium
import nhzoo
if __name__ == "__main__":
    env = gymnasium.make_vec("nhzoo/Monk-v1", num_envs=4, workers=2)
    env.reset(seed=1)
    print(*(worker.child.pid for worker in env.unwrapped._workers), flush=True)
    if sys.stdin.readline() == "close\\n":
        env.close()
        print("closed", flush=True)
        sys.stdin.readline()
    while True:
        env.step(env.action_space.sample())
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["close", "kill"])
def test_nothing_is_left_after_close_or_when_the_parent_is_killed(how, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    (tmp_path / "main.py").write_text(SCRIPT)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, tmp_path / "main.py"]
    with subprocess.Popen(command, env=environment, **pipes) as process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        process.stdin.write(f"{how}\n")
        process.stdin.flush()
        if how == "close":
            assert process.stdout.readline() == "closed\n"
            assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
            assert not list(tmp_path.glob("nhzoo-*/*/*"))
        process.kill()
    assert all(wait_for_end(pid, 10) for pid in pids)
    until = time.monotonic() + 10
    while list(tmp_path.glob("nhzoo-*/*")):
        assert time.monotonic() < until
        time.sleep(0.02)
