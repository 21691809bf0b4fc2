"""What the documents say: every command parses and names what is there; figures are recomputed."""

from __future__ import annotations

import ast
import json
import re
import shlex
from fnmatch import fnmatchcase
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from nhzoo.cli.app import cli
from nhzoo.data.traces import open_traces
from nhzoo.envs.protocols import PROTOCOLS
from nhzoo.evaluation.expert import expert_summary
from nhzoo.evaluation.outcomes import breakdown
from nhzoo.evaluation.results import read_result, summarize
from nhzoo.evaluation.statistics import summary_ci95
from nhzoo.policy import features
from nhzoo.policy.config import PREPROCESSING
from nhzoo.training.run_table import read_runs
from tests import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "training").glob("*.md")),
    ROOT / "training" / "recordings" / "README.md",
    *sorted((ROOT / "leaderboard").glob("*.md")),
    *sorted((ROOT / "agents").glob("*.md")),
    *sorted((ROOT / "nhzoo").rglob("README.md")),
]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text() for page in PAGES}
README = TEXTS["README.md"]
RESULTS = ROOT / "leaderboard" / "results"


def fenced(text: str, *languages: str) -> list[str]:
    """The blocks of code of these languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)
    return [block for language, block in found if language in languages]


def lines_of(block: str) -> list[str]:
    """Its commands, continued lines joined, without comments."""
    joined = re.sub(r"\\\n\s*", " ", block)
    return [
        re.sub(r"(^|\s)#.*", "", line).strip().removeprefix("$ ") for line in joined.split("\n")
    ]


def commands_of(text: str) -> list[str]:
    """Every `nhzoo ...` of a page's blocks."""
    found = [line for block in fenced(text, "sh", "console", "bash") for line in lines_of(block)]
    found = [re.sub(r"^torchrun .* -m nhzoo ", "nhzoo ", line) for line in found]
    return [line for line in found if line.startswith("nhzoo ")]


def mentioned(text: str) -> list[str]:
    """Every `nhzoo ...` of a page's sentences and tables, where commands stand for their kind."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return [" ".join(code.split()) for code in re.findall(r"`(nhzoo [^`]+)`", prose)]


def walk(group: click.Group, path: tuple[str, ...] = ()):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from walk(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(walk(cli))


def examples() -> list[tuple[str, str]]:
    found = []
    for path, command in COMMANDS.items():
        text = (command.help or "").partition("Example: ")[2].replace("\b", "")
        name = f"{' '.join(path)} --help"
        text = re.sub(r"\\\n\s*", " ", text).split("\n\n")[0]
        text = re.sub(r"\n\s*(?!\s*nhzoo )", " ", text)  # lines that go on
        found += [(name, line.strip()) for line in text.splitlines() if "nhzoo " in line]
    return found


DOCUMENTED = [(page, line) for page, text in TEXTS.items() for line in commands_of(text)]
DOCUMENTED += examples()
MENTIONED = [(page, line) for page, text in TEXTS.items() for line in mentioned(text)]
MENTIONED += [(page, line) for page, line in DOCUMENTED if "..." in line]


def words_of(line: str) -> list[str]:
    """The words after `nhzoo`, as a shell would give them, without redirection."""
    words = shlex.split(line)
    cut = next((i for i, word in enumerate(words) if word in (">", "|", "&&", ";")), len(words))
    return words[1:cut]


def split(words: list[str]) -> tuple[tuple[str, ...], list[str]] | None:
    """The command's path and its arguments; None where no command has that name."""
    for size in (2, 1):
        if tuple(words[:size]) in COMMANDS:
            return tuple(words[:size]), words[size:]
    return None


def parsed(line: str) -> tuple[tuple[str, ...], dict[str, object]]:
    """The command that a line calls and its options as click reads them."""
    found = split(words_of(line))
    assert found, f"`{line}` is no command"
    path, arguments = found
    context = COMMANDS[path].make_context(" ".join(path), list(arguments))
    return path, context.params


def is_sketch(line: str) -> bool:
    """Whether a line leaves words out: "nhzoo train bc ... --device cuda"."""
    return "..." in words_of(line)


def test_there_are_commands_in_the_documents():
    assert len(DOCUMENTED) > 90 and len(MENTIONED) > 50
    assert {page for page, _ in DOCUMENTED} >= {"README.md", "training/SCALING.md", "fit --help"}


@pytest.mark.parametrize(
    ("page", "line"), DOCUMENTED, ids=[f"{page}: {line}"[:90] for page, line in DOCUMENTED]
)
def test_every_documented_command_parses(page, line):
    if is_sketch(line):
        return
    try:
        parsed(line)
    except click.UsageError as error:
        pytest.fail(f"{page}: {line}: {error.format_message()}")


def test_commands_that_are_mentioned_are_there_with_their_options():
    groups = {path[0] for path in COMMANDS}
    for page, line in MENTIONED:
        words = words_of(line)
        assert words[0] in groups or words[0].startswith("-"), f"{page}: {line}"
        path = split(words)
        known = {name for o in COMMANDS[path[0]].params for name in o.opts} if path else set()
        for word in (word.partition("=")[0] for word in words if word.startswith("--")):
            assert word in known | {"--help", "--version"}, f"{page}: {line} has no {word}"
    every = {name for command in COMMANDS.values() for o in command.params for name in o.opts}
    for page, text in TEXTS.items():
        unknown = set(re.findall(r"`(--[a-z][a-z-]+)", text)) - every - OTHERS
        assert not unknown, f"{page} names {unknown}, which no command has"


OTHERS = {
    "--parts",
    "--max-restarts",
    "--nproc-per-node",
    "--nnodes",
    "--node-rank",
    "--standalone",
}
OTHERS |= {"--rdzv-", "--master-addr", "--help", "--debug", "--parts"}
"""Options of torchrun, of `nhzoo` itself, and of gpu_check.py."""

WRITTEN = {"out", "run", "run_folder", "o", "to", "push_to", "ledger"}
TRACKED = re.compile(r"(training|leaderboard/(results|forecasts)|agents)/[\w./-]+")
OWN = re.compile(r"agents/(mine|next|i|ks|x)\b|/ID\b|\$|leaderboard/site")


@pytest.mark.parametrize(
    ("page", "line"), DOCUMENTED, ids=[f"{page}: {line}"[:90] for page, line in DOCUMENTED]
)
def test_what_documented_commands_read_is_there(page, line):
    if is_sketch(line):
        return
    _, options = parsed(line)
    for name, value in options.items():
        for word in value if isinstance(value, tuple) else (value,):
            text = str(word) if isinstance(word, (str, Path)) else ""
            if name in WRITTEN or not TRACKED.match(text) or OWN.search(text):
                continue
            path, _, run = text.partition(":")
            assert (ROOT / path).exists(), f"{page}: {line} names {path}, which is not there"
            if run:
                assert run in {row.run_id for row in read_runs(ROOT / path)}, f"{page}: {line}"
    table = str(options.get("runs") or options.get("ledger") or "")
    only = options.get("only")
    if only and "$" not in str(only) and TRACKED.match(table):
        ids = {row.run_id for row in read_runs(ROOT / table)}
        assert any(fnmatchcase(one, str(only)) for one in ids), f"{page}: {line} matches no run_id"


AGENT = re.compile(r"\b(?:bc|ks|impala)-lstm-\d+[km](?:-\d+)?\b")


@pytest.mark.parametrize("page", TEXTS)
def test_agents_of_the_documents_are_in_the_zoo(page):
    zoo = {folder.name for folder in (ROOT / "agents").iterdir()}
    zoo |= {row.run_id for row in read_runs(ROOT / "training" / "runs.jsonl")}
    for line in commands_of(TEXTS[page]):
        assert set(AGENT.findall(line)) <= zoo, f"{page}: {line}"


@pytest.mark.parametrize("page", TEXTS)
def test_python_of_the_documents_compiles_and_its_imports_are_there(page):
    for block in fenced(TEXTS[page], "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("nhzoo"):
                module = __import__(str(node.module), fromlist=["*"])
                for name in node.names:
                    assert hasattr(module, name.name), f"{page}: {node.module}.{name.name}"


def test_make_targets_of_the_documents_are_there():
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.M))
    for page, text in TEXTS.items():
        blocks = [line for block in fenced(text, "sh") for line in lines_of(block)]
        for line in [*blocks, *re.findall(r"`(make [^`]+)`", text)]:
            if line.startswith("make "):
                assert line.split()[1] in targets, f"{page}: {line} is no target of the Makefile"


def test_the_readme_leads_to_every_page_by_hand():
    linked = set(re.findall(r"\]\(([^)#\s]+)", README))
    written = {page for page in TEXTS if page not in NOT_LINKED}
    assert written <= linked, f"README.md does not link to {written - linked}"
    assert README.count("\n") < 250


NOT_LINKED = {"README.md", "training/REPORT.in.md"}  # itself, and what REPORT.md is made of
NOT_LINKED |= {"nhzoo/data/bundled/README.md", "training/recordings/README.md"}  # linked further on


@pytest.mark.parametrize("page", TEXTS)
def test_links_of_the_documents_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", TEXTS[page]):
        if not re.match(r"\w+:", target):
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"


# The cheap ones, run


CHEAP = [
    "nhzoo list",
    "nhzoo info bc-lstm-1m",
    "nhzoo data list",
    "nhzoo compare leaderboard/results/bc-lstm-1m/monk-lite-v1 "
    "leaderboard/results/random/monk-lite-v1",
    "nhzoo leaderboard log",
    "nhzoo leaderboard export",
]


def run(line: str, cwd: Path, monkeypatch) -> click.testing.Result:
    for name in ("training", "leaderboard", "agents"):
        if not (cwd / name).exists():
            (cwd / name).symlink_to(ROOT / name)
    monkeypatch.chdir(cwd)
    done = CliRunner().invoke(cli, words_of(line))
    assert done.exit_code == 0, (line, done.output, done.exception)
    return done


@pytest.mark.parametrize("line", CHEAP)
def test_cheap_commands_run(line, tmp_path, monkeypatch):
    assert run(line, tmp_path, monkeypatch).output


# Figures


def table_of(text: str, head: str) -> list[list[str]]:
    """The cells of the rows of the table whose first heading is `head`."""
    lines = text.split("\n")
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {head} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def plain(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def test_the_readmes_agents_are_those_of_the_results():
    rows = table_of(README, "agent")
    names = [re.match(r"`?([\w-]+)", row[0])[1] for row in rows]
    for name, cells in zip(names, rows, strict=True):
        if name == "AutoAscend":
            expert = expert_summary("autoascend-monk-v1")
            low, high = summary_ci95(expert)
            games = int(re.search(r"(\d+) games", cells[0])[1])
            assert games == expert["episodes"]
            assert cells[3] == f"{expert['mean_score']:,.0f} [{low:,.0f}, {high:,.0f}]"
            assert cells[4] == plain(expert["median_score"])
            continue
        summary = summarize(read_result(RESULTS / name / "monk-lite-v1")[2])
        low, high = summary_ci95(summary)
        assert cells[3] == f"{summary['mean_score']:,.1f} [{low:,.1f}, {high:,.1f}]", name
        assert cells[4] == plain(summary["median_score"]), name
        assert cells[5] == f"{100 * summary['mean_progression']:.2f} %", name
        config = ROOT / "agents" / name / "config.json"
        if config.exists():
            training = json.loads(config.read_text())["training"]
            start = (training.get("start") or {}).get("flops") or 0
            assert cells[2] == f"{training['flops'] + start:.1e}".replace("e+", "e"), name
            loss = (training.get("validation") or {}).get("loss")
            assert cells[1] == ("-" if loss is None else f"{loss:.3f}"), name
    here = {path.parent.name for path in RESULTS.glob("*/monk-lite-v1")}
    assert here == set(names) - {"AutoAscend"}
    scores = [float(row[3].split(" ")[0].replace(",", "")) for row in rows[:-1]]
    assert scores == sorted(scores, reverse=True)


def test_the_readmes_score_on_the_whole_protocol_is_the_results():
    summary = summarize(read_result(RESULTS / "bc-lstm-483k" / "monk-v1")[2])
    low, high = summary_ci95(summary)
    said = f"{summary['mean_score']:,.1f} [{low:,.1f}, {high:,.1f}]"
    assert f"`bc-lstm-483k` has {said}" in " ".join(README.split())


def test_the_pages_protocols_are_the_codes():
    rows = {row[0].strip("`"): row for row in table_of(TEXTS["leaderboard/PROTOCOLS.md"], "id")}
    assert set(rows) == set(PROTOCOLS)
    for name, cells in rows.items():
        protocol = PROTOCOLS[name]
        numbers = (protocol.games, protocol.step_cap, protocol.no_progress)
        assert cells[2:5] == [f"{number:,}" for number in numbers], name
        assert protocol.character in cells[1], name
    said = dict(re.findall(r"`([a-z]+(?:-[a-z]+)?-v\d+)` \(([\d,]+) games", README))
    assert said == {name: f"{protocol.games:,}" for name, protocol in PROTOCOLS.items()}


def test_the_pages_datasets_are_the_bundled_ones():
    for cells in table_of(TEXTS["nhzoo/data/README.md"], "dataset"):
        name = re.match(r"`([\w-]+)`", cells[0])[1]
        traces = open_traces(name).traces
        held = [trace for trace in traces if trace.split == "validation"]
        keys = sum(trace.length for trace in held)
        assert cells[1] == f"{len(traces):,}", name
        assert cells[2] == f"{sum(trace.length for trace in traces):,}", name
        assert re.match(r"(\d+) games", cells[3])[1] == str(len(held)), name
        if "keys" in cells[3]:
            assert f"{keys:,} keys" in cells[3], name
        scores = [float(trace.score) for trace in traces if trace.score is not None]
        assert cells[4] == f"{sum(scores) / len(scores):,.0f}", name


def test_the_version_of_the_features_is_the_one_they_state():
    assert f"Preprocessing v{PREPROCESSING}." in (features.__doc__ or "").partition("\n\n")[0]


def test_forecasts_of_the_readme_are_graded():
    """The page says that both were trained and how they came out."""
    folders = sorted((ROOT / "leaderboard" / "forecasts").iterdir())
    assert all((folder / "grade.json").is_file() for folder in folders)
    assert "not yet trained" not in README
    assert f"{['no', 'one', 'two', 'three'][len(folders)]} forecasts frozen" in README


def test_what_is_broken_down_is_all_of_a_result():
    _, _, rows = read_result(RESULTS / "random" / "monk-lite-v1")
    assert sum(role.games for role in breakdown(rows).roles) == len(rows)
