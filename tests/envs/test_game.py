from __future__ import annotations

import atexit
import gc
import os
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from nle.env.tasks import NetHackChallenge
from nle.nethack.nethack import DLPATH

import nhzoo
from nhzoo.data.traces import frame_hash
from nhzoo.envs.actions import ACTION_KEYS, TTY
from nhzoo.envs.game import Episode, Game, blank
from nhzoo.envs.gym import NetHackEnv
from nhzoo.envs.protocols import GameSpec
from nhzoo.errors import InputError
from tests.conftest import random_keys

SPEC = GameSpec(core=11, disp=12)
ESCAPE = list(ACTION_KEYS).index(27)


def screens(game: Game, spec: GameSpec, keys: bytes) -> list[str]:
    game.start(spec)
    result = [frame_hash(game.observation)]
    for key in keys:
        game.step(key)
        if game.over:
            break
        result.append(frame_hash(game.observation))
    return result


def play(env, actions, seed):
    observation, _ = env.reset(seed=seed)
    seen = [observation["tty_chars"].copy()]
    for action in actions:
        observation, _, terminated, truncated, _ = env.step(action)
        seen.append(observation["tty_chars"].copy())
        if terminated or truncated:
            break
    return np.array(seen)


def test_both_environments_pass_gymnasiums_checker():
    for name in ("nhzoo/Monk-v1", "nhzoo/AllRoles-v1"):
        env = gymnasium.make(name)
        check_env(env.unwrapped, skip_render_check=True)
        env.close()


def test_make_knows_the_environments_without_importing_nhzoo():
    points = __import__("importlib.metadata").metadata.entry_points(group="gymnasium.envs")
    assert "nhzoo:register_envs" in [point.value for point in points]
    nhzoo.register_envs()  # again does no harm


def test_reset_seed_decides_the_game_which_plain_nle_ignores():
    actions = np.random.default_rng(0).integers(0, 8, 60)
    ours = [NetHackEnv() for _ in range(2)]
    first, second = (play(env, actions, seed=3) for env in ours)
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first[0], play(ours[0], actions, seed=4)[0])
    for env in ours:
        env.close()

    plain = [NetHackChallenge(character="mon-hum-neu-mal") for _ in range(4)]
    begun = [env.reset(seed=3)[0]["tty_chars"].copy() for env in plain]
    for env in plain:
        env.close()
    assert any(not np.array_equal(begun[0], other) for other in begun[1:])


def test_the_same_seed_gives_the_same_sequence_of_games():
    env = NetHackEnv()
    games = []
    for _ in range(2):
        env.reset(seed=5)
        env.reset()
        games.append(env.trace[0])
    assert games[0] == games[1]
    assert env.reset(seed=5)[1]["core"] != games[0].core
    env.close()


@pytest.mark.parametrize("character", ["mon-hum-neu-mal", "@"])
def test_a_game_is_fresh_after_many_others_in_the_process(character):
    spec = GameSpec(core=21, disp=22, character=character)
    keys = random_keys(400)
    alone = Game()
    expected = screens(alone, spec, keys)
    alone.close()
    used = Game()
    for number in range(5):  # deaths leave high scores and logs behind, other names another image
        screens(
            used, GameSpec(core=number, disp=0, character="val-hum-law-fem"), b"#quit\ry" + keys
        )
        used.close_out()
    assert screens(used, spec, keys) == expected
    used.close()


def test_the_closing_screen_does_not_show_earlier_games():
    """Plain NLE keeps its record file: the last screen lists the scores of games before."""
    game, last = Game(), []
    for _ in range(2):
        game.start(SPEC)
        for key in b"\x1b#quit\ry":
            game.step(key)
        game.close_out()
        last.append(frame_hash(game.observation))
    game.close()
    assert last[0] == last[1]


def test_level_seed_display_seed_and_core_seed_all_reach_the_game():
    game = Game()
    keys = random_keys(300)
    base = screens(game, GameSpec(core=1, disp=2, lgen=3), keys)
    assert screens(game, GameSpec(core=1, disp=2, lgen=3), keys) == base
    assert screens(game, GameSpec(core=1, disp=2, lgen=4), keys)[0] != base[0]
    assert screens(game, GameSpec(core=9, disp=2, lgen=3), keys) != base
    game.close()


def step_until_end(env):
    """Press Escape until the environment says that it is over."""
    steps, terminated, truncated, info = 0, False, False, {}
    while not (terminated or truncated):
        _, _, terminated, truncated, info = env.step(ESCAPE)
        steps += 1
    return steps, terminated, truncated, info["end_status"]


class _Counting(NetHackChallenge):
    """Plain NLE with a short limit, to show its halved timeout."""

    def __init__(self):
        super().__init__(character="mon-hum-neu-mal", no_progress_timeout=50)


def test_no_progress_counts_once_a_step_and_truncates():
    env = NetHackEnv(no_progress=50)
    env.reset(seed=1)
    assert step_until_end(env) == (50, False, True, "stalled")
    env.close()

    plain = _Counting()
    plain.reset()
    steps, terminated, _, _ = step_until_end(plain)
    plain.close()
    assert steps < 50  # the trap: half
    assert terminated  # and an abort is called a death


def test_the_step_cap_truncates_and_a_quit_terminates():
    env = NetHackEnv(step_cap=7)
    env.reset(seed=1)
    assert step_until_end(env) == (7, False, True, "step_cap")
    env.close()

    env = NetHackEnv()
    env.reset(seed=1)
    for key in b"\x1b#quit\ry":
        _, _, terminated, truncated, info = env.step(list(ACTION_KEYS).index(key))
    assert (terminated, truncated, info["end_status"], info["cause"]) == (
        True,
        False,
        "death",
        "quit",
    )
    opening = env.trace[1].removesuffix(b"\x1b#quit\ry")  # the closing keys are not in it
    assert set(opening) <= {32} and len(opening) < 4
    env.close()


def test_rewards_sum_to_nles_score_reward():
    """Step NLE's own environment through the same game: same seeds, same keys, same score."""
    keys = random_keys(3_000, seed=4)
    env = NetHackEnv()
    env.reset(options={"game": SPEC})
    plain = NetHackChallenge(character=SPEC.character)
    plain.nethack._pynethack.set_initial_seeds(SPEC.core, SPEC.disp, False, None)
    plain.reset()
    total = plain_total = 0.0
    for key in keys:
        action = list(ACTION_KEYS).index(key)
        _, reward, terminated, truncated, _ = env.step(action)
        total += reward
        _, plain_reward, plain_terminated, _, _ = plain.step(action)
        plain_total += plain_reward
        assert terminated == plain_terminated
        if terminated or truncated:
            break
    assert total == plain_total
    env.close()
    plain.close()


def test_observations_are_safe_to_keep():
    env = NetHackEnv()
    observation, _ = env.reset(seed=2)
    kept = {name: array.copy() for name, array in observation.items()}
    for _ in range(30):
        env.step(ESCAPE)
    for name, array in kept.items():
        np.testing.assert_array_equal(observation[name], array)
    env.close()


def test_reset_options():
    env = NetHackEnv()
    env.reset(options={})  # plain NLE: KeyError
    _, info = env.reset(options={"protocol": "monk-v1", "episode": 3})
    spec = nhzoo.get_protocol("monk-v1").game(3)
    assert (info["core"], info["disp"]) == (spec.core, spec.disp)
    with pytest.raises(InputError, match="no game 2000"):
        env.reset(options={"protocol": "monk-v1", "episode": 2000})
    with pytest.raises(InputError, match="unknown protocol"):
        env.reset(options={"protocol": "monk-v9"})
    with pytest.raises(InputError, match="episodes"):
        env.reset(options={"episodes": 1})
    env.close()


def test_the_trace_of_an_env_replays():
    env = NetHackEnv()
    env.reset(seed=8)
    for action in np.random.default_rng(1).integers(0, 121, 200):
        observation, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            break
    spec, keys = env.trace
    game = Game()
    game.start(spec)
    for key in keys:
        game.step(key)
    assert frame_hash(game.observation) == frame_hash(observation)
    game.close()
    env.close()


def test_ubirthday_is_pinned_after_every_reset():
    """Read the C variable back: NLE's own reset leaves the wall clock in it."""
    import ctypes

    game = Game()
    for value in (1_000_000_000, 1_795_387_631):
        game.start(GameSpec(core=1, disp=1, ubirthday=value))
        handle = ctypes.CDLL(game._nle.dlpath)
        assert ctypes.c_long.in_dll(handle, "ubirthday").value == value
        ctypes.CDLL(None).dlclose(ctypes.c_void_p(handle._handle))
    game.close()


def test_games_side_by_side_run_the_same_code_and_are_none_the_worse():
    """The library's code is mapped once for all; what a game writes to is its own."""
    specs = [GameSpec(core=core, disp=5) for core in (31, 32, 31)]
    keys = random_keys(500)
    alone = Game()
    expected = [screens(alone, spec, keys) for spec in specs]
    alone.close()
    arrays = blank(TTY, 3)
    games = [Game(TTY, {name: arrays[name][i] for name in TTY}) for i in range(3)]
    for _ in range(2):
        for game, spec in zip(games, specs, strict=True):
            game.start(spec)
        library = str(Path(DLPATH).resolve())  # maps know no links
        maps = Path("/proc/self/maps").read_text()
        shared = [line for line in maps.splitlines() if library in line]
        assert sum("r-xp" in line for line in shared) == 3
        for key in keys:
            for game in games:
                if not game.over:
                    game.step(key)
        for i, game in enumerate(games):
            assert frame_hash(game.observation) == expected[i][-1]
            assert np.shares_memory(game.observation["tty_chars"], arrays["tty_chars"][i])
    for game in games:
        game.close()


def test_keys_played_in_one_go_and_one_by_one_come_to_the_same():
    keys = random_keys(3_000)
    for spec in (SPEC, GameSpec(core=8, disp=9)):
        results, traces = [], []
        for size in (1, 7, 3_000):
            episode = Episode(Game(()))
            episode.start(spec, 2_000, 300)
            for start in range(0, len(keys), size):
                pressed = episode.play(keys[start : start + size])
                if episode.result.end_status:
                    break
                assert pressed == size
            results.append(episode.result)
            traces.append(bytes(episode.game.keys))
            episode.game.close()
        assert results[0] == results[1] == results[2]
        assert traces[0] == traces[1] == traces[2]


class Panicking(Game):
    """NetHack exits under the third key, without closing screens."""

    def start(self, spec, ttyrec=None):
        super().start(spec, ttyrec)
        bare, self.left = self.press, None

        def press(key):
            if self.left == 0:
                raise RuntimeError("Called step on finished NetHack")
            bare(key)
            self.left = None if self.left is None else self.left - 1

        self.press = press

    @property
    def done(self):
        return self.left == 0 or super().done


def test_a_game_that_ends_without_closing_screens_ends_with_its_key():
    """In the middle of a block of keys only the next key tells."""
    expected = Episode(Game(()))
    expected.start(SPEC, 100, 100)
    expected.play(b"jjk")
    for keys in (b"jjkllll", b"jjk"):
        episode = Episode(Panicking(()))
        episode.start(SPEC, 100, 100)
        episode.game.left = 3
        assert episode.play(keys) == 3
        assert episode.game.keys == expected.game.keys
        assert episode.result == replace(expected.result, end_status="death")
        episode.game.close()
    expected.game.close()


def test_an_episode_starts_where_the_agent_decides():
    for core in range(8):
        episode = Episode(Game(TTY))
        episode.start(GameSpec(core=core, disp=core, character="@"), 10, 10)
        assert episode.game.observation["program_state"][3] == 1
        assert episode.result.turns == 1
        episode.game.close()


def test_render_modes():
    env = gymnasium.make("nhzoo/Monk-v1", render_mode="ansi")
    env.reset(seed=1)
    assert "\033[" in env.render()
    env.close()
    with pytest.raises(InputError, match="render_mode"):
        NetHackEnv(render_mode="pixel")


@pytest.mark.parametrize("action", [-1, 121, 3.7, "3", None, np.array([3, 4])])
def test_what_is_no_action_is_refused_and_the_game_goes_on(action):
    env = NetHackEnv()
    env.reset(seed=1)
    with pytest.raises(InputError, match="action"):
        env.step(action)
    for good in (3, np.int64(3), np.uint8(3), np.array(3)):
        assert env.step(good)[4]["steps"]
    assert env.step(0)[4]["steps"] == 5
    env.close()


def test_nothing_is_played_before_the_first_reset_after_the_end_or_after_close():
    env = NetHackEnv(step_cap=2, render_mode="ansi")
    for use in (lambda: env.step(0), env.render, lambda: env.trace):
        with pytest.raises(InputError, match="call reset first"):
            use()
    env.reset(seed=1)
    env.step(0)
    assert env.step(0)[3]
    with pytest.raises(InputError, match=r"has ended \(step_cap\); call reset first"):
        env.step(0)
    env.reset()
    env.close()
    with pytest.raises(InputError, match="call reset first"):
        env.step(0)
    for wrong in ({"step_cap": 0}, {"no_progress": 2.5}, {"observation_keys": ("glifs",)}):
        with pytest.raises(InputError):
            NetHackEnv(**wrong)
    for options in ({"protocol": "monk-v1", "episode": 3.7}, {"game": (1, 2)}):
        with pytest.raises(InputError, match="reset option"):
            env.reset(options=options)


@pytest.mark.parametrize(
    ("character", "known"),
    [
        ("@", True),
        ("mon-hum-neu-mal", True),
        ("val-dwa-law-fem", True),
        ("wiz", True),
        ("neu-Monk", True),
        ("mon-elf-neu-mal", False),  # no monk is an elf
        ("val-hum-law-mal", False),
        ("ran-orc-neu-mal", False),
        ("hum-neu", False),  # NetHack would draw the role
        ("mon-mon", False),
        ("mo", False),
        ("monkey", False),
        ("", False),
    ],
)
def test_a_character_that_nethack_lacks_is_refused(character, known):
    if known:
        env = NetHackEnv(character=character)
        env.reset(seed=1)
        env.close()
    else:
        with pytest.raises(InputError, match="no such hero"):
            NetHackEnv(character=character)


def test_a_forked_process_leaves_its_parents_game_alone():
    env = NetHackEnv()
    env.reset(seed=1)
    folder = Path(env._episode.game._nle._vardir)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with pytest.raises(InputError, match="in this process"):
                env.step(0)
            env.close()
            env.reset(seed=2)  # a game of its own
            env.step(0)
            env.close()
            del env
            gc.collect()
            atexit._run_exitfuncs()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (folder / "record").exists()
    for action in range(40):
        env.step(action % 8)
    env.reset(seed=3)
    env.close()
    assert not folder.exists()
