"""The command line: thin, documented, one line for every error, JSON alone on stdout."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click
import click.testing
import pytest

import nhzoo
from nhzoo.cli.app import cli
from tests import ROOT
from tests.conftest import read_rows
from tests.helpers.commands import run

README = (ROOT / "README.md").read_text()
PAGE = (ROOT / "nhzoo" / "cli" / "README.md").read_text()


def commands(group=cli, path=()):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands())


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_is_documented_and_has_an_example(path):
    command = COMMANDS[path]
    example = re.search(r"Example: (nhzoo .*)", command.help or "")
    assert example, "no example in its help"
    words = example.group(1).split()[1:]
    assert tuple(words[: len(path)]) == path
    assert f"`nhzoo {' '.join(path)}" in PAGE
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"{option.opts} has no help"


def test_help_shows_every_command_once_in_its_section_with_a_whole_sentence():
    text = click.testing.CliRunner().invoke(cli, ["--help"], terminal_width=80).output
    sections = re.split(r"^(\w+):\n", text.partition("Everyday:")[2], flags=re.M)
    assert sections[1::2] == ["Data", "Training", "Scaling", "Hub", "Leaderboard"]
    shown = re.findall(r"^  (\w+) +(\S.*)$", "".join(sections[::2]), re.M)
    assert sorted(name for name, _ in shown) == sorted(cli.commands)
    assert len({text.index(f"  {line}\n") for line in (words for _, words in shown)}) == len(shown)
    for name, words in shown:
        assert (cli.commands[name].help or "").startswith(words), name


def test_help_of_groups_has_whole_sentences():
    for group in (command for command in cli.commands.values() if isinstance(command, click.Group)):
        text = click.testing.CliRunner().invoke(group, ["--help"], terminal_width=80).output
        assert "..." not in text.partition("Commands:")[2], text


def test_the_readme_names_no_command_or_option_that_is_not_there():
    known = {" ".join(path) for path in COMMANDS} | {path[0] for path in COMMANDS if len(path) > 1}
    for line in re.findall(r"^(?:\$ )?nhzoo (.*)$", README, re.M):
        words = line.split("#")[0].split()
        path = next((tuple(words[:n]) for n in (2, 1) if tuple(words[:n]) in COMMANDS), None)
        assert path, f"README: nhzoo {line} is none of {sorted(known)}"
        options = {name for option in COMMANDS[path].params for name in option.opts}
        for word in words:
            if word.startswith("--"):
                assert word in options, f"README: nhzoo {line} has no option {word}"


def test_public_names_are_there_and_documented():
    assert sorted(nhzoo.__all__) == sorted(dir(nhzoo))
    for name in nhzoo.__all__:
        assert getattr(nhzoo, name).__doc__ or name == "PROTOCOLS"
    with pytest.raises(AttributeError):
        nhzoo.nothing  # noqa: B018


def test_help_and_list_answer_at_once_without_torch():
    for arguments in (["--help"], ["list"]):
        code = (
            f"import sys; sys.argv = ['nhzoo', *{arguments!r}]\n"
            "import nhzoo.cli.app\n"
            "try: nhzoo.cli.app.main()\n"
            "except SystemExit as e: assert not e.code\n"
            "heavy = {'torch', 'nle', 'numba', 'scipy', 'huggingface_hub', 'pydantic', 'jinja2'}\n"
            "assert not heavy & set(sys.modules)"
        )
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        assert time.monotonic() - began < 10  # a hang, not a speed; what counts is asserted above


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 0, "Usage"),
        (("bogus",), 2, "No such command"),
        (("evaluate",), 2, "Missing argument"),
        (("evaluate", "random", "--out", "x"), 2, "--protocol"),
        (("evaluate", "random", "--protocol", "nope", "--out", "x"), 2, "unknown protocol"),
        (("evaluate", "no-agent", "--protocol", "smoke-v1", "--out", "x"), 2, "no agent"),
        (
            ("evaluate", "random", "--protocol", "smoke-v1", "--episodes", "0", "--out", "x"),
            2,
            "8 games",
        ),
        (
            ("evaluate", "random", "--protocol", "smoke-v1", "--episodes", "9", "--out", "x"),
            2,
            "smoke-v1 has 8 games; 9 were asked for",
        ),
        (("verify", "nowhere"), 2, "no such result folder"),
        (("info", "nobody"), 2, "is no entry"),
        (("export", "nobody", "--as", "nethackers", "--out", "x"), 2, "is no entry"),
        (("export", "random", "--as", "nethackers", "--out", "x"), 2, "is code"),
        (("export", "bc-lstm-100k", "--as", "minihack", "--out", "x"), 2, "is not one of"),
        (("loss", "random", "--data", "nowhere"), 2, "no dataset"),
        (("loss", "random", "--data", "autoascend-monk-v1", "--split", "x"), 2, "no usable game"),
        (("loss", "random", "--data", "nowhere", "--plot", "loss.jpg"), 2, "svg, .png or .pdf"),
        (("train", "bc", "--params", "5", "--flops", "1", "--run", "r", "--out", "o"), 2, "10,000"),
        (("train", "bc", "--params", "20000", "--run", "r", "--out", "o"), 2, "budget"),
        (("watch", "random", "--episode", "99"), 2, "no game 99"),
        (("data", "stats", "nowhere"), 2, "no dataset"),
        (("data", "add", "nowhere"), 2, "no such folder"),
        (("data", "pack", "autoascend-monk-v1", "--with", "glifs"), 2, "unknown frame field"),
        (
            ("data", "record", "random", "--protocol", "x", "--episodes", "1", "--out", "r"),
            2,
            "unk",
        ),
        (
            ("data", "record", "random", "--protocol", "smoke-v1", "--episodes", "0", "--out", "r"),
            2,
            "episodes can be recorded",
        ),
    ],
)
def test_errors_are_one_line_with_the_contracts_exit_code(arguments, code, says, tmp_path):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert says in done.stderr + done.stdout
    if code:
        assert done.stdout == ""
        assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_evaluate_verify_and_loss_give_json_alone(shared_entry, small_set, tmp_path):
    out = tmp_path / "result"
    done = run(
        "evaluate", shared_entry, "--protocol", "smoke-v1", "--episodes", 2, "--json", "--out", out
    )
    result = json.loads(done.stdout)
    share, (monks,) = result.pop("normalized"), result.pop("roles")
    assert result == json.loads((out / "result.json").read_text())
    mean = result["summary"]["mean_score"]
    assert share["ratio"]["estimate"] == pytest.approx(mean / share["expert_mean"]["estimate"])
    assert (monks["role"], monks["games"], monks["normalized"]) == ("Mon", 2, share)
    checked = json.loads(run("verify", out, "--json").stdout)
    assert (checked["episodes"], checked["verified"], checked["mismatched"]) == (2, 2, [])
    measured = json.loads(run("loss", shared_entry, "--data", small_set, "--json").stdout)
    assert {"loss", "accuracy", "frames", "games"} <= set(measured)
    assert measured["games"] == 4
    assert measured["early"]["loss"] == measured["loss"]  # games of 600 steps
    figure = tmp_path / "loss.svg"
    both = (shared_entry, "random", "--data", small_set, "--by-step", "--plot", figure)
    agents = json.loads(run("loss", *both, "--json").stdout)["agents"]
    assert [agent["agent"] for agent in agents] == [str(shared_entry), "random"]
    assert agents[0]["loss"] == measured["loss"]
    assert [(part["from"], part["to"]) for part in agents[0]["by_step"]] == [(0, 1000)]
    assert {"question", "loss", "accuracy"} <= set(agents[0]["by_question"][0])
    assert "step of the game" in figure.read_text()
    assert "other questions" in run("loss", *both).stdout
    trace = next((out / "traces").iterdir())
    trace.write_bytes(trace.read_bytes()[:-4])
    failed = run("verify", out, "--json")
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["mismatched"] == [0]
    assert "Traceback" not in failed.stderr


@pytest.mark.slow
def test_evaluating_all_roles_gives_a_table_of_them(tmp_path):
    arguments = ("evaluate", "random", "--protocol", "allroles-v1", "--episodes", 4)
    shown = run(*arguments, "--out", tmp_path / "out")
    lines = [line.split("\t") for line in shown.stdout.splitlines()]
    assert lines[0][4] == "of AutoAscend's"
    assert lines[1][4] == "-"  # of several roles there is no share
    assert lines[2][0] == "role"
    roles = {row["role"] for row in read_rows(tmp_path / "out")}
    assert {line[0] for line in lines[3:]} == roles
    assert len(roles) > 1
    found = json.loads(run(*arguments, "--json", "--out", tmp_path / "out").stdout)
    assert {row["role"] for row in found["roles"]} == roles
    for row in found["roles"]:
        assert "50 are needed" in row["normalized"]["reason"] or row["role"] == "Mon"
    assert found["normalized"]["ratio"] is None


@pytest.mark.parametrize(
    "command", [("list",), ("data", "list"), ("doctor",), ("info",)], ids=" ".join
)
def test_reports_have_json_and_tables(command, shared_entry):
    more = (shared_entry,) if command == ("info",) else ()
    done = run(*command, *more, "--json")
    assert isinstance(json.loads(done.stdout), dict)
    assert run(*command, *more).stdout


@pytest.mark.slow
def test_results_are_compared_sharded_merged_audited_and_shown(shared_entry, tmp_path):
    parts = [tmp_path / "part-0", tmp_path / "part-1"]
    for i, part in enumerate(parts):
        shard = ("--shard", f"{i}/2", "--episodes", 2, "--workers", 1, "--out", part)
        assert run("evaluate", shared_entry, "--protocol", "smoke-v1", *shard).returncode == 0
    whole = tmp_path / "whole"
    merged = json.loads(run("merge", *parts, "--out", whole, "--json").stdout)
    assert merged["summary"]["episodes"] == 2
    assert merged["batch"] == 64  # a network's, unless told otherwise
    checked = json.loads(run("verify", whole, "--audit", shared_entry, "--json").stdout)
    assert checked["ok"] and checked["audit"]["share"] == 1.0
    refused = run("verify", whole, "--audit", "bc-lstm-100k", "--workers", 1)
    assert refused.returncode == 1
    assert "not the games that bc-lstm-100k plays" in refused.stderr
    same = json.loads(run("compare", whole, whole, "--json").stdout)
    assert same["difference"]["mean"] == {"estimate": 0.0, "low": None, "high": None}
    assert "not settled" in run("compare", whole, whole).stdout
    assert run("report", whole, "--game", 1, "--workers", 1).returncode == 0
    assert "<html" in (whole / "report.html").read_text()


@pytest.mark.slow
def test_recorded_games_are_packed_exported_named_and_looked_at(
    shared_entry, tmp_path, monkeypatch
):
    monkeypatch.setenv("NHZOO_DATA", str(tmp_path / "data"))
    out, packed = tmp_path / "games", tmp_path / "frames"
    limits = ("--protocol", "smoke-v1", "--episodes", 3, "--workers", 2)
    done = run(
        "data", "record", shared_entry, *limits, "--out", out, "--ttyrecs", tmp_path / "t", "--json"
    )
    assert done.returncode == 0, done.stderr
    recorded = json.loads(done.stdout)
    assert (recorded["games"], recorded["ttyrecs"]["written"]) == (3, 3)
    found = json.loads(run("data", "pack", out, "--export", packed, "--json").stdout)
    assert (found["games"], found["frames"], found["refused"]) == (3, recorded["keys"], {})
    assert json.loads(run("data", "add", packed, "--name", "mine", "--json").stdout)["games"] == 3
    assert json.loads(run("data", "add", tmp_path / "t", "--json").stdout)["kind"] == "nld-aa"
    named = {row["name"] for row in json.loads(run("data", "list", "--json").stdout)["datasets"]}
    assert {"mine", "t", "autoascend-monk-v1"} <= named
    kept = json.loads(run("data", "stats", out, "--json").stdout)
    assert (kept["games"], kept["keys"]) == (3, recorded["keys"])
    done = run("data", "stats", "t", "--json")
    assert done.returncode == 0, done.stderr
    by_ttyrec = json.loads(done.stdout)
    assert by_ttyrec["games"] == 3
    assert by_ttyrec["scores"]["mean"] >= 0
    measured = json.loads(run("loss", shared_entry, "--data", "mine", "--json").stdout)
    assert measured["games"] == 3
    assert measured["frames"] + measured["unscored"] == recorded["keys"]
    shown = run("data", "stats", "mine")
    assert shown.returncode == 0
    assert "3 games" in shown.stdout


@pytest.mark.slow
def test_a_game_that_diverges_is_refused_in_a_line_and_the_rest_is_packed(small_set, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(small_set, folder)
    rows = [json.loads(line) for line in (folder / "games.jsonl").read_text().splitlines()]
    rows[1]["frame_hashes"] = ["0123456789abcdef"]
    (folder / "games.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    done = run("data", "pack", folder, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["games"] == 3
    assert "refused 1: game 1: the screen before key 0 differs" in done.stderr


def test_watch_draws_the_game(shared_entry):
    pyte = pytest.importorskip("pyte")
    done = run("watch", shared_entry, "--speed", "0", "--max-steps", "1")
    assert done.returncode == 0
    screen = pyte.Screen(80, 26)
    pyte.Stream(screen).feed(done.stdout.replace("\n", "\r\n"))
    shown = "\n".join(screen.display)
    assert "Dlvl:1" in shown
    assert "tiny-agent · smoke-v1 game 0" in shown
    assert "after 1 steps" in done.stderr


def test_watch_shows_two_agents_on_one_game_and_marks_where_they_part(shared_entry):
    pyte = pytest.importorskip("pyte")
    arguments = ("watch", "random", "--beside", shared_entry, "--episode", "3", "--speed", "0")
    done = run(*arguments, "--max-steps", "40")
    assert done.returncode == 0, done.stderr
    screen = pyte.Screen(170, 30)
    pyte.Stream(screen).feed(done.stdout.replace("\n", "\r\n"))
    shown = screen.display
    assert shown[0].startswith("random  step 39") and "tiny-agent  step 39" in shown[0][80:]
    dungeon = [line for line in shown if "Dlvl:1" in line[:80] and "Dlvl:1" in line[82:]]
    assert dungeon, shown
    said = re.search(r"smoke-v1 game 3: first difference at step (\d+): random (\S+)", shown[25])
    assert said, shown[25]
    assert f"their keys differ from step {said[1]} on" in done.stderr
    # The first one plays as it does alone.
    alone = run("watch", "random", "--episode", "3", "--speed", "0", "--max-steps", said[1])
    plain = pyte.Screen(80, 26)
    pyte.Stream(plain).feed(alone.stdout.replace("\n", "\r\n"))
    assert f"key {said[2]}" in plain.display[24]


def test_an_agent_beside_itself_does_not_differ(shared_entry):
    done = run("watch", shared_entry, "--beside", shared_entry, "--speed", "0", "--max-steps", "5")
    assert "the same keys so far" in done.stdout
    assert "their keys are the same" in done.stderr


@pytest.mark.slow
def test_the_tour_ends_with_a_verified_score_and_a_page(shared_entry, tmp_path):
    done = run("tour", shared_entry, "--out", tmp_path / "tour", "--workers", "2")
    assert done.returncode == 0, done.stderr
    page = tmp_path / "tour" / "result" / "report.html"
    assert "tiny-agent" in page.read_text()
    assert "8 of 8 games came to the same score" in done.stdout
    keys = re.search(r"([\d,]+) of ([\d,]+) keys are its own", done.stdout)
    assert keys and keys[1] == keys[2]
    for command in re.findall(r"^   \$ nhzoo (.*)$", done.stdout, re.M):
        words = command.split()
        cli.commands[words[0]].make_context(words[0], words[1:])
    again = run("tour", shared_entry, "--out", tmp_path / "tour", "--workers", "2")
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_the_demo_shows_an_agent_and_its_score_beside_baselines(shared_entry, tmp_path):
    """On a terminal it plays while the games are played; without one, or in CI, it does not."""
    out = tmp_path / "demo"
    words = ("demo", shared_entry, "--episodes", "2", "--watch", "2", "--out", out)
    plain = run(*words)
    assert plain.returncode == 0, plain.stderr
    assert "Dlvl:" not in plain.stdout
    rows = {line.split("\t")[0]: line.split("\t") for line in plain.stdout.splitlines()}
    assert rows["tiny-agent"][1] == rows["random"][1] == "2"
    assert "AutoAscend (reference)" in rows and "nhzoo watch" in plain.stdout
    if not shutil.which("script"):
        return
    shutil.rmtree(out)
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    command = shlex.join([sys.executable, "-m", "nhzoo", *map(str, words)])
    script = ["script", "-qec", f"stty cols 100 rows 40; {command}", "/dev/null"]
    done = subprocess.run(script, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-500:]
    assert "Dlvl:" in done.stdout and "That was the beginning of game 0" in done.stdout
    assert (out / "tiny-agent" / "result.json").is_file()


@pytest.mark.slow
def test_training_from_the_command_line_gives_a_loadable_agent(small_set, tmp_path):
    arguments = (
        "train",
        "bc",
        "--data",
        small_set,
        "--params",
        20_000,
        "--flops",
        2e8,
        "--batch",
        2,
    )
    arguments += (
        "--time",
        8,
        "--streams",
        2,
        "--run",
        tmp_path / "run",
        "--out",
        tmp_path / "agent",
    )
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert {"run_id", "params", "samples", "flops", "loss"} <= set(row)
    assert row["flops"] <= 2e8
    assert row["validation"] is None
    assert run("info", tmp_path / "agent", "--json").returncode == 0


def test_no_disk_is_one_line():
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "nhzoo", "list"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 24 kB, and a function that makes it larger."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o")
    if subprocess.run([*mount, "size=24k", "none", folder], capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    yield folder, lambda: subprocess.run([*mount, "remount,size=9m", "none", folder], check=True)
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_what_is_finished_is_kept(small_disk):
    disk, enlarge = small_disk
    out = disk / "result"
    command = ("evaluate", "random", "--protocol", "smoke-v1", "--workers", 1, "--out", out)
    full = run(*command)
    assert full.returncode == 2
    last = full.stderr.splitlines()[-1]  # after lines of progress, should it be slow
    assert re.fullmatch(rf"nhzoo: {out}/\S+: No space left on device; make room there, .*", last)
    assert "Traceback" not in full.stderr
    kept = read_rows(out)
    assert 0 < len(kept) < 8
    assert not (out / "result.json").exists()
    enlarge()
    again = run(*command)
    assert again.returncode == 0, again.stderr
    assert all(row in read_rows(out) for row in kept)
    assert json.loads(run("verify", out, "--json").stdout)["ok"]


def test_a_folder_of_another_agents_games_is_one_line(tmp_path):
    out = tmp_path / "out"
    command = ("--protocol", "smoke-v1", "--episodes", 1, "--workers", 1, "--out", out)
    assert run("evaluate", "random", *command).returncode == 0
    refused = run("evaluate", "scripted", *command)
    assert refused.returncode == 2
    assert refused.stderr == (
        f"nhzoo: {out}: holds a result with another agent ('random', now 'scripted'); "
        "give another --out\n"
    )


def test_train_options_have_the_librarys_defaults():
    from dataclasses import fields

    from nhzoo.training.config import BCConfig

    defaults = {field.name: field.default for field in fields(BCConfig)}
    for option in COMMANDS["train", "bc"].params:
        if option.name in defaults and option.name not in ("data", "params", "flops", "minutes"):
            assert option.default == defaults[option.name], option.name
