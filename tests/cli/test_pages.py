"""Every block of code of every page is run, in order, at the size of a test.

Each command runs in a folder that looks like a checkout: `SMALLER` makes it small, and `LEFT_OUT`
names the few that cannot run here, each with the test that runs the same command elsewhere. A
command that is in neither is run as it stands, so that one added to a page is run as well.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nhzoo.cli.app import cli
from tests import ROOT
from tests.cli.test_documentation import TEXTS, lines_of
from tests.helpers.commands import run

LEFT_OUT = {
    # What made the environment that this test runs in.
    r"make setup|\. \.venv/bin/activate": "Makefile",
    r"make format|make lint": "Makefile",
    # Who is logged in to the hub, and what is fetched from it or sent there: with a hub of tests.
    r"hf auth login": "tests/helpers/hub.py",
    r"nhzoo pull ": "tests/hub/test_download.py",
    r"nhzoo push ": "tests/hub/test_upload.py",
    r"nhzoo list --remote": "tests/hub/test_download.py",
    r"nhzoo submit .*--to hub": "tests/leaderboard/test_submissions.py",
    r"nhzoo train bc --data hf://": "tests/hub/test_download.py",
    # What a machine with a GPU needs, and what it runs.
    r"make gpu-bundle|python3 training/gpu_check.py": "tests/training/test_gpu_check.py",
    # Hours of the expert, or all games of many agents.
    r"nhzoo data record autoascend": "tests/evaluation/test_recording.py",
    r"nhzoo sweep measure": "tests/scaling/sweeps/test_running.py",
    # Whole games of many samplings.
    r"nhzoo tune ": "tests/evaluation/test_tuning.py",
    # Many trainings one after the other.
    r"nhzoo sweep run plan.json": "tests/scaling/sweeps/test_commands.py",
    r"nhzoo sweep plan --budgets 1e8": "tests/scaling/sweeps/test_commands.py",
    r"nhzoo .*own-": "tests/scaling/sweeps/test_commands.py",
    r"nhzoo fit runs.jsonl --only 'sweep-": "tests/scaling/sweeps/test_commands.py",
    r"nhzoo train next forecast.json": "tests/scaling/test_forecasting.py",
    r"nhzoo grade forecast.json runs": "tests/scaling/test_forecasting.py",
    r"make scaling-demo": "tests/scaling/test_demo.py",
    # Tables of arms, and of cells at several learning rates, that are nobody's here.
    r"nhzoo fit runs.csv --by": "tests/scaling/test_arms.py",
    r"nhzoo fit runs.jsonl --optimum": "tests/scaling/sweeps/test_rates.py",
    r"nhzoo sweep rates": "tests/scaling/sweeps/test_rates.py",
    r"nhzoo sweep plan .*--optimum": "tests/scaling/sweeps/test_rates.py",
    # Several processes and machines.
    r"torchrun": "tests/training/test_distributed.py",
    # The maintainer's, of rows that are named ID.
    r"nhzoo leaderboard (accept|remove|rescore)": "tests/leaderboard/test_board.py",
    r"nhzoo leaderboard (commit|rerun|reveal)": "tests/leaderboard/test_board.py",
    r"nhzoo tour": "tests/cli/test_commands.py",
    # Shells that may not be here.
    r'eval "\$\(_NHZOO_COMPLETE=zsh|_NHZOO_COMPLETE=fish': "tests/cli/test_completion.py",
}

SMALLER = [
    (r"nhzoo/autoascend-monk-v1", "nhzoo/small-v0"),
    (r"autoascend-(monk|allroles)-v1(?!\S)|autoascend-(monk|allroles)-v1(?=\")", "{small}"),
    (r"(evaluate agents/mine) --protocol monk-lite-v1", r"\1 --protocol smoke-v1 --episodes 8"),
    (r"leaderboard/results/scripted/monk-lite-v1", "results/other"),
    (r"--protocol monk-lite-v1 --out", "--protocol smoke-v1 --episodes 1 --out"),
    (r"--protocol smoke-v1 --out", "--protocol smoke-v1 --episodes 1 --out"),
    (r"(nhzoo watch \S+)", r"\1 --max-steps 3 --speed 0"),
    (r"submissions/mine-\S+", "{submission}"),
    (r"--params 100000 --flops 1e12", "--params 20000 --flops 1e8 --data {small}"),
    (r"--params 100000 --steps 5e6 --actors 2", "--params 20000 --steps 400 --actors 1"),
    (r"--steps 5e6 --actors 2", "--steps 400 --actors 1"),
    (r"(nhzoo fit \S+(?: --only \S+)?)", r"\1 --resamples 50 --holdout 1"),
    (r"--episodes 4 --held-out", "--episodes 2 --held-out"),
    (r"episodes=4, workers=2", "episodes=1, workers=1"),
    (r"streams=64, batch=8", "streams=2, batch=2"),
    (r"\$PYTHON|(?<=')python (?=training/)", f"{sys.executable} "),
]
"""What is done in a test's time: patterns of a line and what takes their place."""

BLOCKS = {
    page: re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S) for page, text in TEXTS.items()
}
PAGES = [page for page, blocks in BLOCKS.items() if blocks]


def left_out(line: str) -> bool:
    return any(re.match(pattern, line) for pattern in LEFT_OUT)


@pytest.fixture
def checkout(shared_entry, small_set, tmp_path, monkeypatch) -> Path:
    """A folder with an agent `mine` and a result of it, and what pages read of a checkout."""
    for name in ("training", "leaderboard", "nhzoo"):
        (tmp_path / name).symlink_to(ROOT / name)
    agents = tmp_path / "agents"
    agents.mkdir()
    (agents / "mine").symlink_to(shared_entry)
    monkeypatch.setenv("NHZOO_AGENTS", str(agents))
    monkeypatch.setenv("NHZOO_DATA", str(tmp_path / "data-folder"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


class Session:
    """Runs what a page says, in one folder."""

    def __init__(self, folder: Path, small: Path) -> None:
        self.folder, self.small, self.ran = folder, small, 0

    def smaller(self, text: str) -> str:
        for pattern, instead in SMALLER:
            text = re.sub(pattern, instead.replace("{small}", str(self.small)), text)
        if "{submission}" in text:
            (found,) = self.folder.glob("submissions/*")
            text = text.replace("{submission}", str(found.relative_to(self.folder)))
        return text

    def shell(self, block: str) -> None:
        """The lines of a block; a loop as a whole."""
        lines = [line for line in lines_of(block) if line]
        if any(line.startswith(("for ", "eval ")) for line in lines):
            kept = [line for line in lines if not left_out(line)]
            self._call(["bash", "-ec", self.smaller("\n".join(kept))])
            return
        for line in lines:
            if left_out(line) or "..." in shlex.split(line):
                continue
            words = shlex.split(self.smaller(line))
            assert words[0] == "nhzoo", f"{line}: neither run nor left out"
            done = run(*words[1:], cwd=self.folder)
            # A check may say no of so small a thing: that is an answer.
            assert done.returncode in (0, 1), (line, words, done.stdout[-800:], done.stderr[-800:])
            assert "Traceback" not in done.stderr, (line, done.stderr)
            if done.returncode:
                assert words[1] in ANSWERS, (line, words, done.stdout[-800:], done.stderr[-800:])
            self.ran += 1

    def python(self, block: str) -> None:
        said = self._call([sys.executable, "-c", self.smaller(block)])
        assert "nhzoo.verify(" not in block or said.endswith("\nTrue\n")

    def _call(self, command: list[str]) -> str:
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, (command[-1], done.stdout[-800:], done.stderr[-800:])
        self.ran += 1
        return done.stdout


ANSWERS = {"compare", "leaderboard", "forecast", "grade"}
"""Commands that may end with 1 here: a submission of an untrained agent, a forecast refused."""


def before(session: Session, page: str) -> None:
    """What a page takes for granted: it says so in its words."""
    if page == "README.md":
        for agent, name, games in (("random", "other", 1), ("mine", "mine", 8)):
            words = (agent, "--protocol", "smoke-v1", "--episodes", games)
            done = run("evaluate", *words, "--out", f"results/{name}", cwd=session.folder)
            assert done.returncode == 0, done.stderr
        words = ("training/runs.jsonl", "--only", "iso1*", "--resamples", 50, "-o", "fit.json")
        assert run("fit", *words, cwd=session.folder).returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_runs(page, checkout, small_set):
    session = Session(checkout, small_set)
    before(session, page)
    for language, block in BLOCKS[page]:
        if language in ("sh", "console", "bash"):
            session.shell(block)
        elif language == "python":
            if not re.search(r'load\("hf://', block):  # tests/hub/test_download.py
                session.python(block)
        elif language == "json":
            assert isinstance(json.loads(block), dict)
        else:
            assert language in ("", "text"), f"{page}: a block of {language!r} is not run"


def test_what_is_left_out_is_run_elsewhere():
    """Each pattern meets a line of a page, and the file that runs such a command is there."""
    lines = [
        line
        for blocks in BLOCKS.values()
        for language, block in blocks
        if language in ("sh", "console", "bash")
        for line in lines_of(block)
    ]
    for pattern, where in LEFT_OUT.items():
        assert (ROOT / where).is_file(), where
        assert any(re.match(pattern, line) for line in lines), f"{pattern}: no page says so"


def test_most_of_the_commands_that_there_are_run():
    run_here = {
        line.split()[1]
        for blocks in BLOCKS.values()
        for language, block in blocks
        if language == "sh"
        for line in lines_of(block)
        if line.startswith("nhzoo ") and not left_out(line)
    }
    shown = {"evaluate", "verify", "compare", "report", "train", "fit", "forecast", "grade"}
    assert run_here >= shown | {"data", "export", "submit", "leaderboard", "sweep", "info", "list"}
    assert run_here <= set(cli.commands)
