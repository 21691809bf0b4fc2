"""Damaged and forged submissions, by the thousand: python -m tests.helpers.fuzz_submissions 20000

Every input is a small, true submission that was altered: bytes, JSON values, files, links, keys,
scores; as it is, or sealed again as a forger would, so that all hashes fit. The check may refuse
with InputError or CheckFailed. It may accept only what is as true as before. All else is a finding:
another exception, more than `SECONDS`, a file written outside, an alteration that is accepted.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

from nhzoo import evaluate
from nhzoo.agents.base import RandomAgent
from nhzoo.agents.loading import load
from nhzoo.envs.game import Episode, Game
from nhzoo.envs.protocols import Protocol
from nhzoo.errors import CheckFailed, InputError
from nhzoo.evaluation import results, verification
from nhzoo.leaderboard.checks import check
from nhzoo.leaderboard.claims import candidate_of
from nhzoo.leaderboard.submission import NAME, make_id
from nhzoo.leaderboard.submitting import make
from nhzoo.runtime import files, pool
from tests.conftest import make_entry

SECONDS = 60
FUZZ = Protocol("fuzz-v1", "mon-hum-neu-mal", 3, 60, 40)
PROTOCOLS = {FUZZ.id: FUZZ}
CHUNK = 2_500

EVIL = [
    None, True, False, 0, -1, 1, 3, 1 << 63, 1 << 70, 10**400, 0.5, -0.0, 1e308, 5e-324, "", " ",
    "0", "NaN", "\x00", "\x1b[2J", "\u202e", "\ud800", "\ufeff", "<script>alert(1)</script>",
    "=1+1", "../../outside", "/etc/passwd", "hf://a/b@main", "package.module:make_agent",
    "x" * 5_000, [], {}, [[]], {"a": {}}, [None] * 1_000, "smoke-v1", "monk-v1", "0" * 64, "bc",
    "crashed", "stalled",
]  # fmt: skip
RAW = [b"NaN", b"-Infinity", b"1e999", b"9" * 5_000, b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe"]
ODD_NAMES = [
    "x", ".hidden", "..", "traces/x", "traces/3.xz", "traces/00.xz", "traces/0.xz.bak", "bot.py",
    "entry/bot.py", "entry/model.pkl", "entry/sub/x", "a\nb", "\u202e.xz", "traces/\u0660.xz",
    "result.json~",
]  # fmt: skip

UNABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError)
UNABLE = (*UNABLE, RecursionError, lzma.LZMAError)
"""What altering meets when what came before has left it nothing to work on."""

_game: list[Episode] = []


def in_process(make_task, args, items, workers, slots=1, hang=None, foreign=None):
    """The pool without processes: a fuzzer has no time to start them."""
    task = make_task(*args)
    if isinstance(task, verification.VerifyTask):
        if not _game:
            _game.append(Episode(Game(())))
        task._episode = _game[0]
        yield from ((key, task.work(item)) for key, item in items)
        return
    outer, here = tempfile.tempdir, os.getcwd()
    try:
        with tempfile.TemporaryDirectory() as tempfile.tempdir:  # journals go there, as in a worker
            for key, item in items:
                task.start(key, item)
                over = False
                while not over:
                    for found, result in task.advance(lambda *mark: None):
                        over = over or found is not None
                        yield found, result
    finally:
        tempfile.tempdir = outer
        os.chdir(here)  # NLE had gone to a folder of its own in there


@cache
def base(kind: str) -> Path:
    """A true submission, and beside it a file that nobody may read or write."""
    root = Path(os.environ["FUZZ_ROOT"])
    if kind == "net":
        entry = make_entry(root / "tiny")
        evaluate(load(entry), FUZZ, workers=1, out=root / "net-result")
        return make(
            root / "net-result", root / "base", "me", "MIT", os.fspath(entry), "net",
            protocols=PROTOCOLS,
        )  # fmt: skip
    evaluate(RandomAgent(), FUZZ, workers=1, out=root / "bot-result")
    return make(root / "bot-result", root / "base", "me", "MIT", name="bot", protocols=PROTOCOLS)


def held(path: Path) -> bytes:
    """The bytes of a file that altering has left a small file."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > 1 << 24:
        raise OSError(f"{path} is no small file any more")
    return path.read_bytes()


class Altered:
    """A submission that is being altered."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder, self.chance = folder, chance

    def any_file(self) -> Path:
        found = sorted(p for p in self.folder.rglob("*") if p.is_file() and not p.is_symlink())
        small = [path for path in found if "entry" not in path.parts]
        return self.chance.choice(small if self.chance.random() < 0.85 else found)

    def rows(self) -> list[dict]:
        return [json.loads(x) for x in held(self.folder / "episodes.jsonl").splitlines()]

    def write_rows(self, rows: list) -> None:
        lines = [json.dumps(row) for row in rows]
        (self.folder / "episodes.jsonl").write_text("\n".join(lines) + "\n")

    def flip_bytes(self) -> None:
        path = self.any_file()
        data = bytearray(held(path))
        for _ in range(self.chance.choice([1, 1, 1, 4, 50])):
            at = self.chance.randrange(len(data) + 1)
            way = self.chance.randrange(4)
            if way == 0 and at < len(data):
                data[at] ^= 1 << self.chance.randrange(8)
            elif way == 1:
                data[at:at] = self.chance.randbytes(self.chance.choice([1, 8, 64]))
            elif way == 2:
                del data[at : at + self.chance.choice([1, 8, 64])]
            else:
                data[at : at + 8] = data[: self.chance.randrange(9)]
        path.write_bytes(data)

    def cut(self) -> None:
        path = self.any_file()
        path.write_bytes(held(path)[: self.chance.randrange(path.stat().st_size + 1)])

    def change_json(self) -> None:
        name = self.chance.choice(
            [NAME, NAME, "result.json", "result.json", "evaluation.json", "episodes.jsonl",
             "entry/config.json"]
        )  # fmt: skip
        path = self.folder / name
        if not path.exists():
            path = self.folder / "result.json"
        whole = held(path)
        lines = whole.splitlines() if path.suffix == ".jsonl" else [whole]
        at = self.chance.randrange(len(lines))
        value = json.loads(lines[at])
        holder = value
        while True:
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            if not keys:
                break
            key = self.chance.choice(keys)
            if isinstance(holder[key], (dict, list)) and self.chance.random() < 0.7:
                holder = holder[key]
                continue
            way = self.chance.randrange(6)
            if way == 0:
                del holder[key]
            elif way == 1 and isinstance(holder, dict):
                holder[str(self.chance.choice(EVIL))[:100]] = self.chance.choice(EVIL)
            elif way == 2 and isinstance(holder[key], (int, float)):
                holder[key] += self.chance.choice([-1, 1, 1e-6, 100, -1e-12])
            elif way == 3:
                holder[key] = RAW_MARK
            else:
                holder[key] = self.chance.choice(EVIL)
            break
        text = json.dumps(value, indent=None if name == "episodes.jsonl" else 2).encode()
        text = text.replace(json.dumps(RAW_MARK).encode(), self.chance.choice(RAW))
        lines[at] = text
        path.write_bytes(b"\n".join(lines) + b"\n")

    def repeat_lines(self) -> None:
        rows = self.rows()
        way = self.chance.randrange(4)
        if way == 0:
            rows.append(self.chance.choice(rows))
        elif way == 1:
            rows.pop(self.chance.randrange(len(rows)))
        elif way == 2:
            rows[0] = rows[0] | {"index": self.chance.choice([1, 7, -1, 1 << 40])}
        else:
            rows *= self.chance.choice([2, 100, 3_000])
        self.write_rows(rows)

    def odd_files(self) -> None:
        outside = self.folder.parent / "outside"
        way = self.chance.randrange(8)
        victim = self.any_file()
        if way == 0:
            path = self.folder / self.chance.choice(ODD_NAMES)
            if ".." not in path.parts:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"x")
        elif way == 1:
            victim.unlink()
        elif way == 2:
            victim.unlink()
            victim.symlink_to(self.chance.choice([outside / "secret", "/dev/zero", "x", "."]))
        elif way == 3:
            folder = self.chance.choice([p for p in self.folder.iterdir() if p.is_dir()])
            shutil.move(folder, outside / folder.name)
            folder.symlink_to(outside / folder.name)
        elif way == 4:
            victim.unlink()
            os.mkfifo(victim)
        elif way == 5:
            victim.unlink()
            victim.mkdir()
        elif way == 6:
            with open(victim, "r+b") as file:
                file.truncate(self.chance.choice([1 << 20, 3 << 20, 1 << 33]))
        else:
            path = self.folder / "traces" / f"{self.chance.randrange(3)}.xz"
            path.write_bytes(bomb())

    def press_others(self) -> None:
        """Other keys, with the hashes and counts to match."""
        rows = self.rows()
        row = self.chance.choice(rows)
        path = self.folder / "traces" / f"{row['index']}.xz"
        keys = bytearray(lzma.decompress(held(path)))
        at = self.chance.randrange(len(keys) + 1)
        way = self.chance.randrange(5)
        if way == 0 and at < len(keys):
            keys[at] = self.chance.choice(b"hjklyubns.,i:\x1b\r \x00%~\x04")
        elif way == 1:
            keys[at:at] = bytes(self.chance.choices(b"hjklyubns.", k=self.chance.choice([1, 30])))
        elif way == 2:
            del keys[at:]
        elif way == 3:
            keys = bytearray(self.chance.randbytes(len(keys)))
        else:
            other = self.folder / "traces" / f"{self.chance.randrange(3)}.xz"
            keys = bytearray(lzma.decompress(held(other)))
        path.write_bytes(files.compress_xz(bytes(keys)))
        row |= {"keys": len(keys), "sha256": hashlib.sha256(keys).hexdigest()}
        if self.chance.random() < 0.5:
            row["steps"] += len(keys) - row["keys"]
        if self.chance.random() < 0.3:
            row |= {"end_status": self.chance.choice(results.END_STATUSES), "cause": "agent raised"}
        self.write_rows(rows)

    def claim_more(self) -> None:
        """A better game, in a row that fits its summary."""
        rows = self.rows()
        row = self.chance.choice(rows)
        name = self.chance.choice(
            ["score", "turns", "depth", "max_depth", "experience_level", "progression", "steps",
             "end_status", "cause", "core", "disp", "character", "keys", "sha256", "role"]
        )  # fmt: skip
        if isinstance(row.get(name), (int, float)):
            row[name] += self.chance.choice([1, 10, 0.5, -1, 1e-7, 1 << 62])
        else:
            row[name] = self.chance.choice(
                ["death", "ascended", "stalled", "killed by a newt", "@"]
            )
        if self.chance.random() < 0.3:
            row |= {"end_status": "crashed", "cause": "agent raised", "turns": 0, "keys": 0}
            row |= {"steps": 0, "sha256": hashlib.sha256(b"").hexdigest()}
        self.write_rows(rows)

    def seal(self, summary: bool) -> None:
        """All hashes anew, as a forger would."""
        if summary:
            path = self.folder / "result.json"
            result = json.loads(held(path))
            result["summary"] |= results.summarize(self.rows())
            path.write_text(json.dumps(result))
        path = self.folder / NAME
        value = json.loads(held(path))
        value["files"] = {
            p.relative_to(self.folder).as_posix(): hashlib.sha256(held(p)).hexdigest()
            for p in sorted(self.folder.rglob("*"))
            if p.is_file() and p != path
        }
        if value.get("entry"):
            for name in ("config.json", "model.safetensors"):
                field = "config_sha256" if name == "config.json" else "weights_sha256"
                if f"entry/{name}" in value["files"] and self.chance.random() < 0.8:
                    value["entry"][field] = value["files"][f"entry/{name}"]
        episodes = held(self.folder / "episodes.jsonl")
        value["id"] = make_id(value["agent"], value["protocol"], episodes)
        value["sha256"] = files.content_hash(value)
        path.write_bytes(files.dump_json(value))


RAW_MARK = "raw bytes go here"


@cache
def bomb() -> bytes:
    """A few kB that unpack to 16 MB, eight times what is allowed."""
    return lzma.compress(bytes(16 << 20), format=lzma.FORMAT_XZ)


def alter(folder: Path, number: int) -> str:
    """Alter a submission in place, as `number` says; what was done to it."""
    chance = random.Random(number)
    altered = Altered(folder, chance)
    ways: list[Callable[[], None]] = [
        altered.flip_bytes, altered.cut, altered.change_json, altered.change_json,
        altered.repeat_lines, altered.odd_files, altered.press_others, altered.claim_more,
    ]  # fmt: skip
    done = []
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        way = chance.choice(ways)
        try:
            way()
            done.append(way.__name__)
        except UNABLE:
            done.append(f"({way.__name__})")
    if chance.random() < 0.7:
        try:
            altered.seal(chance.random() < 0.7)
            done.append("seal")
        except UNABLE:
            done.append("(seal)")
    return " ".join(done)


def contents(folder: Path) -> dict[str, bytes | str]:
    """Every file below a folder; links by where they lead."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file():
            size = path.stat().st_size
            found[name] = path.read_bytes() if size < 1 << 24 else f"{size} bytes"
        else:
            found[name] = "no file"
    return found


def games_of(folder: Path) -> tuple[list[dict], list[bytes]]:
    rows = results.read_episodes(folder)
    return rows, [results.read_trace(folder, row["index"]) for row in rows]


def is_true(folder: Path, original: Path) -> str:
    """ "" when what was accepted is as true as the original, else what is not."""
    rows, keys = games_of(folder)
    before, pressed = games_of(original)
    result = json.loads((folder / "result.json").read_bytes())
    if any(
        result["summary"][n] != v
        for n, v in results.summarize(rows).items()
        if n != "iqm_score" and n != "mean_score_ci95" and not isinstance(v, float)
    ):
        return "the summary is not that of the games"
    for row, old, new, was in zip(rows, before, keys, pressed, strict=True):
        given_up = row["end_status"] in ("crashed", "stalled") and row["cause"]
        if new == was and row != old and not given_up:
            return f"game {row['index']} is another one, and has the same keys"
        if new != was and not given_up:  # another game: is it one?
            episode = _game[0]
            episode.start(FUZZ.game(row["index"]), FUZZ.step_cap, FUZZ.no_progress)
            for key in new[len(episode.game.keys) :]:
                if episode.step(key):
                    break
            if (episode.result.score, episode.result.turns) != (row["score"], row["turns"]):
                return f"game {row['index']} does not give what its row says"
    texts: list[str] = []
    for name in (NAME, "result.json"):
        collect(json.loads((folder / name).read_bytes()), texts)
    odd = [text for text in texts if not text.isprintable() or "<" in text]
    return f"{odd[0]!a} was accepted as a text" if odd else ""


def collect(value: object, into: list[str]) -> None:
    """All texts of a JSON value, names included."""
    if isinstance(value, str):
        into.append(value)
    elif isinstance(value, (dict, list)):
        for item in value:
            collect(item, into)
            collect(value[item], into) if isinstance(value, dict) else None


def try_one(number: int, kind: str) -> str:
    """What came of an input: refused, accepted, same; AssertionError for a finding."""
    original = base(kind)
    with tempfile.TemporaryDirectory(dir=os.environ["FUZZ_ROOT"]) as temporary:
        root = Path(temporary)
        folder = root / original.name
        shutil.copytree(original, folder)
        (root / "outside").mkdir()
        (root / "outside" / "secret").write_text('{"a": 1}')
        done = alter(folder, number)
        before = contents(root)
        same = before == contents(root) and contents(folder) == contents(original)
        said = ""
        signal.alarm(SECONDS)  # of this process: a writer that never comes would hold it for ever
        try:
            candidate = candidate_of(folder, PROTOCOLS)
            report = check(candidate, audit="auto" if kind == "net" else None)
            outcome = "accepted" if report.ok else "refused"
        except (InputError, CheckFailed) as error:
            outcome, said = "refused", str(error)
        finally:
            signal.alarm(0)
        assert "\n" not in said, "an error of several lines"
        assert contents(root) == before, "the check wrote something"
        if outcome == "accepted" and same:
            return "same"
        if outcome == "accepted":
            assert "seal" in done.split(), "altered, not sealed again, and accepted"
            untrue = is_true(folder, original)
            assert not untrue, untrue
            if kind == "net":
                assert games_of(folder)[1] == games_of(original)[1], "other keys passed the audit"
        return outcome


def run(first: int, count: int, root: Path) -> tuple[Counter[str], list[str]]:
    """Try inputs `first` to `first` + `count` - 1; outcomes, and findings by number."""
    os.environ["FUZZ_ROOT"] = os.fspath(root)
    outcomes: Counter[str] = Counter()
    findings: list[str] = []
    base("net"), base("bot")
    for number in range(first, first + count):
        kind = "net" if number % 4 == 0 else "bot"
        try:
            outcomes[try_one(number, kind)] += 1
        except BaseException as error:  # whatever it is, it is a finding
            if isinstance(error, KeyboardInterrupt):
                raise
            outcomes["finding"] += 1
            findings.append(f"input {number} ({kind}): {type(error).__name__}: {error}")
    return outcomes, findings


def patch() -> None:
    """Replay and audit in this process."""
    pool.run_tasks = in_process

    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    signal.signal(signal.SIGALRM, late)


def main() -> None:
    """COUNT inputs from FIRST on, in chunks of their own process."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    if len(sys.argv) > 3:  # a chunk
        patch()
        with tempfile.TemporaryDirectory(prefix="nhzoo-fuzz-") as root:
            outcomes, findings = run(first, count, Path(root))
        print(json.dumps([outcomes, findings]))
        return
    total: Counter[str] = Counter()
    for start in range(first, first + count, CHUNK):
        size = min(CHUNK, first + count - start)
        command = [
            sys.executable,
            "-m",
            "tests.helpers.fuzz_submissions",
            str(size),
            str(start),
            "chunk",
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            total["finding"] += 1
            print(f"inputs {start} to {start + size - 1}: ended with code {done.returncode}")
            continue
        outcomes, findings = json.loads(done.stdout.splitlines()[-1])
        total.update(outcomes)
        print(*findings, sep="\n", end="\n" if findings else "")
        print(f"{start + size - first:,} inputs: {dict(total)}", flush=True)
    sys.exit(1 if total["finding"] else 0)


if __name__ == "__main__":
    main()
