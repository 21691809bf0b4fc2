"""Completion in a shell, by click: commands, options, and names of agents, protocols, datasets."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from click.shell_completion import ShellComplete

from nhzoo.agents.registry import list_agents
from nhzoo.cli.app import cli
from nhzoo.envs.protocols import PROTOCOLS


def completed(words: list[str], incomplete: str) -> dict[str, str | None]:
    shell = ShellComplete(cli, {}, "nhzoo", "_NHZOO_COMPLETE")
    return {item.value: item.help for item in shell.get_completions(words, incomplete)}


AGENTS = {listed.name for listed in list_agents()}
ENTRIES = {listed.name for listed in list_agents() if listed.path}


@pytest.mark.parametrize(
    ("words", "incomplete", "expected"),
    [
        (["watch"], "", AGENTS),
        (["watch"], "bc-lstm-1", {name for name in AGENTS if name.startswith("bc-lstm-1")}),
        (["watch", "random", "--beside"], "scr", {"scripted"}),
        (["evaluate"], "", AGENTS),
        (["info"], "", AGENTS),
        (["profile"], "", AGENTS),
        (["loss", "bc-lstm-1m"], "", AGENTS),
        (["verify", "x", "--audit"], "", AGENTS),
        (["data", "record"], "", AGENTS),
        (["export"], "", ENTRIES),
        (["card"], "", ENTRIES),
        (["evaluate", "random", "--protocol"], "", set(PROTOCOLS)),
        (["evaluate", "random", "--protocol"], "monk", {"monk-lite-v1", "monk-v1"}),
        (["list", "--protocol"], "smoke", {"smoke-v1"}),
        (["demo", "--protocol"], "smoke", {"smoke-v1"}),
        (["train", "bc", "--data"], "autoascend-monk", {"autoascend-monk-v1"}),
        ([], "wat", {"watch"}),
        (["train"], "", {"bc", "impala", "next"}),
        (["watch", "random"], "--epi", {"--episode"}),
    ],
)
def test_words_are_completed(words, incomplete, expected):
    found = set(completed(words, incomplete))
    assert found >= expected
    if words[-1:] != ["--data"]:  # a user may have added datasets
        assert found == expected


def test_completions_say_what_they_are():
    assert completed(["watch"], "random")["random"].startswith("presses one of the 121 keys")
    assert completed(["list", "--protocol"], "smoke")["smoke-v1"] == "8 games, mon-hum-neu-mal"


def test_a_path_is_left_to_the_shell():
    shell = ShellComplete(cli, {}, "nhzoo", "_NHZOO_COMPLETE")
    (item,) = shell.get_completions(["watch"], "agents/bc")
    assert (item.type, item.value) == ("dir", "agents/bc")


def test_bash_asks_and_is_answered():
    """As the script does that `_NHZOO_COMPLETE=bash_source nhzoo` prints."""
    environment = os.environ | {
        "_NHZOO_COMPLETE": "bash_complete",
        "COMP_WORDS": "nhzoo watch rand",
        "COMP_CWORD": "2",
    }
    code = "import sys; sys.argv = ['nhzoo']; from nhzoo.cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.stdout == "plain,random\n", done.stderr
