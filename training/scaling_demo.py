"""The whole loop of scaling laws in minutes: plan, sweep, fit, forecast, train, grade, a page.

    python training/scaling_demo.py --out build/scaling-demo        (or: make scaling-demo)

Small networks clone a slice of the bundled expert games: a demonstration of the commands, not a
result. Each step is a command of nhzoo, printed before it runs. Run it again to resume.
"""

from __future__ import annotations

import argparse
import base64
import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from nhzoo.data.traces import BUNDLED
from nhzoo.publishing.html import single_file, text
from nhzoo.runtime import files

DATA = "autoascend-monk-v1"
SPACED = {"loss": "Loss against compute", "isoflop": "Profiles", "optimum": "Optimal size and data"}


def slice_games(folder: Path, longest: int, held_out: int) -> None:
    """A trace set of the games with `longest` keys at most, and the shortest ones held out."""
    rows = files.read_jsonl(BUNDLED / DATA / "games.jsonl")
    kept = [row for row in rows if row["split"] == "train" and row["keys"] <= longest]
    others = sorted((row["keys"], i) for i, row in enumerate(rows) if row["split"] == "validation")
    kept += [rows[i] for _, i in others[:held_out]]
    (folder / "keys").mkdir(parents=True, exist_ok=True)
    for row in kept:
        shutil.copy(BUNDLED / DATA / "keys" / f"{row['game']}.xz", folder / "keys")
    files.atomic_write(folder / "games.jsonl", files.dump_jsonl(kept))
    keys = sum(row["keys"] for row in kept)
    print(f"{folder}: {len(kept)} of the {len(rows)} games of {DATA}, {keys:,} keys", flush=True)


def steps(out: Path, options: argparse.Namespace) -> list[list[str]]:
    """The commands of the loop; those whose file is there, and frozen, are left out."""
    plan, table, fit, forecast = (
        str(out / name) for name in ("plan.json", "runs.jsonl", "fit.json", "forecast.json")
    )
    entries, runs, ran = out / "entries", str(out / "runs"), f"{table}:next"
    if options.command:
        trained_by = ["--command", options.command]
        counted, sweep = ["--cost", "6"], ["--jobs", str(options.jobs), *trained_by]
    else:
        trained_by = counted = ["--data", str(out / "games")]
        sweep = ["--jobs", str(options.jobs), "--out", str(entries), *trained_by]
    grid = f"--budgets {options.budgets} --center {options.center} --sizes {options.sizes}"
    lines = {
        f"sweep plan {grid} --step {options.step} --seeds 1 --prefix demo -o {plan}": counted,
        f"sweep run {plan} --ledger {table} --runs {runs}": sweep,
        f"fit {table} --only demo-* -o {fit}": [],
        f"forecast {fit} --flops {options.target} --force -o {forecast}": [],
        f"train next {forecast} --ledger {table} --run {runs} --out {entries / 'next'}": trained_by,
        f"grade {forecast} {ran} -o {out / 'grade.json'}": [],
        f"plot {fit} --forecast {forecast} --run {ran} --out {out / 'figures'}": [],
    }
    frozen = Path(forecast).exists()  # its fit as well, then: what was said stays
    commands = [[*line.split(), *more] for line, more in lines.items()]
    return [words for words in commands if not (frozen and words[0] in ("fit", "forecast"))]


def page(out: Path) -> Path:
    """What was forecast, what came, and the figures, as one file that needs no network."""
    said, grade, fit = (
        files.read_json(out / f"{name}.json", 256 * files.MEGABYTE)
        for name in ("forecast", "grade", "fit")
    )
    loss, method = grade["loss"], next(iter(fit["estimates"]))
    rows = [
        ("parameters", f"{said['params']:,}", _ends(said["params_interval"]), grade["params"]),
        ("samples", f"{said['samples']:,}", _ends(said["samples_interval"]), grade["samples"]),
        ("held-out loss", f"{loss['forecast']:.3f}", _ends(said["loss"]), loss["observed"]),
    ]
    rivals = [
        (name.replace("_", " "), f"{r['forecast']:.3f}", f"{r['error']:+.1%}")
        for name, r in grade["baselines"].items()
    ]
    verdict = "inside" if loss["hit"] else "outside"
    exponent = fit["estimates"][method]["exponent_params"]
    shown = [(out / "figures" / f"{name}.png", title) for name, title in SPACED.items()]
    figures = "".join(
        f'<h2>{title}</h2><figure><img style="max-width:100%;background:#fff" alt="{title}" '
        f'src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"></figure>'
        for path, title in shown
        if path.exists()
    )
    single = single_file()
    content = f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{single["policy"]}">
<title>A scaling law, its forecast, and what came</title><style>{single["style"]}</style></head>
<body><main><h1>A scaling law, its forecast, and what came</h1>
<p class="lead">Laws were fitted to {len(fit["points"]["run"])} small runs: the best size grows as
C^{exponent["value"]:.2f}. A run of {said["extrapolation"]:.1f} times their largest budget was
forecast, the forecast frozen, and that run trained. Its loss came out
{abs(loss["error"]):.1%} from the forecast, {verdict} the interval.</p>
{_table(("", "forecast", f"{said['interval']:.0%} interval", "came"), rows)}
<p class="note">Frozen {text(said["created"])}, SHA-256 {text(said["sha256"][:16])}. Runs this
small and budgets this close together show how the loop works, and nothing more.</p>
<h2>Simpler forecasts of the loss</h2>{_table(("baseline", "loss", "error"), rivals)}
{figures}</main></body></html>
"""
    path = out / "index.html"
    files.atomic_write(path, content.encode())
    return path


def _ends(interval: dict[str, Any]) -> str:
    return f"{interval['low']:,.3g} to {interval['high']:,.3g}"


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    def shown(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.3f}"
        return f"{value:,}" if isinstance(value, int) else str(value)

    cells = ["".join(f"<td>{text(shown(value))}</td>" for value in row) for row in rows]
    return (
        f"<table><thead><tr>{''.join(f'<th>{text(name)}</th>' for name in head)}</tr></thead>"
        f"<tbody>{''.join(f'<tr>{row}</tr>' for row in cells)}</tbody></table>"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the loop; the exit code of the first command that fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/scaling-demo"))
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    parser.add_argument("--command", help="train with this command, as for nhzoo sweep run")
    parser.add_argument("--budgets", default="1e10:3.2e10:3", help="as for nhzoo sweep plan")
    parser.add_argument("--center", default="25000@1e10^0.4", help="as for nhzoo sweep plan")
    parser.add_argument("--sizes", type=int, default=5, help="sizes of each budget")
    parser.add_argument("--step", type=float, default=1.3, help="factor between sizes")
    parser.add_argument("--target", default="8e10", help="budget to forecast and to train")
    parser.add_argument("--longest", type=int, default=24_000, help="keys of the longest game")
    parser.add_argument("--held-out", type=int, default=2, help="games held out")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.command:
        slice_games(options.out / "games", options.longest, options.held_out)
    for words in steps(options.out, options):
        print(f"\n[{time.monotonic() - began:.0f} s] $ nhzoo {shlex.join(words)}", flush=True)
        code = subprocess.run([sys.executable, "-m", "nhzoo", *words]).returncode
        if code:
            print(f"nhzoo {words[0]} ended with {code}; the same command resumes", file=sys.stderr)
            return code
    seconds = time.monotonic() - began
    grade = json.loads((options.out / "grade.json").read_text())
    print(f"\n{page(options.out)}: the forecast and what came, after {seconds:.0f} s")
    print(
        f"loss {grade['loss']['forecast']:.3f} was forecast, {grade['loss']['observed']:.3f} came"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
