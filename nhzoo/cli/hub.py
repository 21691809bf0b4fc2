"""Commands about the hub and other systems: `push`, `pull`, `card`, `publish`, `export`."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nhzoo.cli.options import AS_JSON, ENTRY, FOLDER
from nhzoo.errors import InputError
from nhzoo.hub.repos import parse
from nhzoo.runtime import console

if TYPE_CHECKING:
    from nhzoo.hub.upload import Plan, Pushed
    from nhzoo.publishing.records import Relationship

RESULTS = click.option(
    "--results",
    "played",
    type=FOLDER,
    multiple=True,
    help="Result folder of the entry. Repeatable.",
)


@click.command()
@click.argument("what")
@click.option("--repo", help="ORG/NAME (default: your name and the folder's).")
@RESULTS
@click.option(
    "--pr", "pull_request", is_flag=True, help="Open a pull request instead of committing."
)
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--dry-run", is_flag=True, help="Show the files, sizes and card; send nothing.")
@AS_JSON
def push(
    what: str,
    repo: str | None,
    played: tuple[Path, ...],
    pull_request: bool,
    private: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Publish an entry, dataset, result or site on the hub.

    The push is one commit. WHAT is the name of an entry, or a folder. The card is written from the
    facts of the entry. Files that the hub already has are not sent again.

    \b
    Example: nhzoo push agents/mine --results results/mine --dry-run
    """
    from nhzoo.hub import upload
    from nhzoo.hub.errors import NotThere
    from nhzoo.publishing import bundle

    folder = _folder(what)
    owner = "you" if dry_run and repo is None and not _logged_in() else None
    plan = bundle.gather(folder, repo, played, console.say, owner)
    if not dry_run:
        pushed = upload.push(plan, pull_request, private)
        _show_pushed(pushed, as_json)
        return
    if owner is None:
        with contextlib.suppress(NotThere):  # the rest can be shown all the same
            plan = upload.compare(plan)
    if as_json:
        card = plan.files["README.md"]
        document = plan.as_json() | {"card": _text(card), "dry_run": True}
        console.print_json(document)
        return
    _show_plan(plan)
    console.show(_text(plan.files["README.md"]))
    console.say("nothing was sent (--dry-run)")


@click.command()
@click.argument("name")
@click.option("--dataset", is_flag=True, help="NAME is a dataset.")
@click.option(
    "--out", type=FOLDER, help="Also copy it to this new folder, where you may change it."
)
@AS_JSON
def pull(name: str, dataset: bool, out: Path | None, as_json: bool) -> None:
    """Fetch an entry or a dataset from the hub and check it.

    Give NAME, ORG/NAME or hf://..., with @revision if you need one. It then loads without the
    network.

    \b
    Example: nhzoo pull nhzoo/bc-lstm-1m@main
    """
    from nhzoo.agents import registry
    from nhzoo.hub import download

    with console.LiveProgress(f"pull {name}", "bytes") as bar:
        if dataset or "datasets/" in name:
            pulled = download.pull_dataset(name, bar.update)
        else:
            pulled = registry.pull_entry(name, bar.update)
            registry.load_pulled(pulled)
    if out is not None:
        download.copy_to(pulled, out)
    if as_json:
        console.print_json(
            {
                "source": str(pulled.ref),
                "revision": pulled.ref.revision,
                "folder": str(out or pulled.folder),
                "files": pulled.requested,
                "left_out": pulled.left_out,
            }
        )
        return
    console.show(f"{pulled.ref} is in {out or pulled.folder}")
    if pulled.left_out:
        console.say(f"left on the hub, none of nhzoo's: {pulled.left_out} file(s)")


@click.command()
@click.argument("entry", type=ENTRY)
@click.option("--repo", help="Repository ORG/NAME that the card is for.")
@RESULTS
@click.option("--write", is_flag=True, help="Write the card to the entry's README.md.")
def card(entry: str, repo: str | None, played: tuple[Path, ...], write: bool) -> None:
    """Write the model card of an entry from its facts and results.

    \b
    Example: nhzoo card bc-lstm-1m --results leaderboard/results/bc-lstm-1m/monk-lite-v1
    """
    from nhzoo.publishing import card_facts, cards

    folder, repo = _folder(entry), repo and parse(repo).repo
    if write:
        cards.write_card(folder, repo, played)
        console.show(f"{folder / 'README.md'} is written")
    else:
        console.show(cards.model_card(card_facts.read_facts(folder, repo, played)).rstrip())


@click.command()
@click.argument("root", type=FOLDER, default=".")
@click.option("--org", help="Organisation on the hub (default: the zoo's).")
@click.option("--yes", is_flag=True, help="Publish. Without it, only show what would change.")
@AS_JSON
def publish(root: Path, org: str | None, yes: bool, as_json: bool) -> None:
    """Publish a whole checkout to the organisation on the hub.

    That is its entries, datasets, results and site. Without --yes, it only shows what would change.

    \b
    Example: nhzoo publish . --yes
    """
    from nhzoo.hub import upload
    from nhzoo.publishing import bundle

    found = bundle.everything(root, org, console.say)
    done: list[Plan | Pushed] = []
    for gather in found:
        plan = upload.compare(gather())
        if yes and not plan.is_done:
            pushed = upload.push(plan)
            done.append(pushed)
        else:
            done.append(plan)
        if not as_json:
            console.show(bundle.line(done[-1]))
    if as_json:
        rows = [bundle.as_json(each) for each in done]
        console.print_json({"done": yes, "repositories": rows})
    elif not yes:
        console.say("nothing was sent; --yes does it")


def _folder(what: str) -> Path:
    """An entry or bundled dataset by name, or any folder."""
    from nhzoo.agents import registry
    from nhzoo.data.traces import BUNDLED, bundled_names

    found = registry.find(what)
    if found is None and Path(what).is_dir():
        found = Path(what)
    if found is None and what in bundled_names():
        found = BUNDLED / what
    if found is None:
        raise InputError(f"no entry or folder {what!r}; `nhzoo list` shows the entries")
    return found


def _logged_in() -> bool:
    from huggingface_hub import get_token

    return get_token() is not None


def _text(data: Path | bytes) -> str:
    return (data if isinstance(data, bytes) else data.read_bytes()).decode("utf-8", "replace")


def _show_plan(plan: Plan) -> None:
    def state(path: str) -> str:
        if not plan.exists:
            return "new" if plan.exists is False else "?"
        return "new" if path in plan.added else "changed" if path in plan.changed else "same"

    rows = [(path, plan.size(path), state(path)) for path in plan.files]
    rows += [(path, 0, "removed") for path in plan.removed]
    console.print_table((str(plan.ref.at(None)), "bytes", "on the hub"), rows)


def _show_pushed(pushed: Pushed, as_json: bool) -> None:
    if as_json:
        console.print_json(
            pushed.plan.as_json()
            | {
                "source": str(pushed.ref),
                "url": pushed.url,
                "made": pushed.made,
                "pull_request": pushed.pull_request,
            }
        )
        return
    plan = pushed.plan
    if pushed.pull_request:
        verb = "opened" if pushed.made else "open already"
        console.show(f"{plan.ref.repo}: pull request {verb}: {pushed.pull_request}")
    elif not pushed.made:
        console.show(f"{pushed.ref}: the hub has all {len(plan.files)} files; nothing was sent")
    else:
        counts = f"{len(plan.added)} new, {len(plan.changed)} changed, {len(plan.removed)} removed"
        console.show(f"{pushed.ref}: one commit ({counts}): {pushed.url}")


@click.command()
@click.argument("source", type=ENTRY)
@click.option(
    "--as",
    "system",
    required=True,
    type=click.Choice(["nethackers", "every-eval-ever", "minari", "parquet"]),
    help="What to write; see above.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder or file to write."
)
@click.option("--games", type=click.IntRange(1), help="minari: only the first N games.")
@click.option("--split", help="minari: only this split (train, validation).")
@click.option(
    "--evaluator", default="unknown", help="every-eval-ever: the organisation that evaluated."
)
@click.option(
    "--relationship",
    type=click.Choice(["first_party", "third_party", "collaborative", "other"]),
    default="other",
    show_default=True,
    help="every-eval-ever: what it is to the agent's author.",
)
@AS_JSON
def export(
    source: str,
    system: str,
    out: Path,
    games: int | None,
    split: str | None,
    evaluator: str,
    relationship: Relationship,
    as_json: bool,
) -> None:
    """Write an entry, a result, traces or runs for another system.

    \b
    nethackers       an entry as a bot: code that loads it, and the entry itself
    every-eval-ever  a result folder as one JSON record of that schema
    minari           a trace set or a result's games as a Minari dataset
    parquet          the games of a result, or a table of runs, as Parquet

    \b
    Example: nhzoo export bc-lstm-1m --as nethackers --out build/bot
             nhzoo export results/mine --as every-eval-ever --out build/mine.json
             nhzoo export autoascend-monk-v1 --as minari --games 5 --out build/minari
             nhzoo export training/runs.jsonl --as parquet --out build/runs.parquet
    """
    written: dict[str, Any]
    if system == "nethackers":
        from nhzoo.agents.export import export_bot

        written = {"folder": str(out), "files": export_bot(source, system, out)}
        said = f"{source} is a bot of {system} in {out}; its README.md says how to play it"
    elif system == "every-eval-ever":
        from nhzoo.publishing.records import evaluation_record
        from nhzoo.runtime import files

        record = evaluation_record(Path(source), evaluator, relationship)
        files.atomic_write(out, files.dump_json(record))
        written = {"file": str(out), "evaluation_id": record["evaluation_id"]}
        said = f"{out}: a record of Every Eval Ever, schema {record['schema_version']}"
    elif system == "minari":
        from nhzoo.data.minari_export import export_minari

        with console.LiveProgress(f"export {source}", "steps") as bar:
            found = export_minari(source, out, games, split, bar.update)
        written = asdict(found) | {"root": str(found.root)}
        said = (
            f"{found.games:,} games, {found.steps:,} steps. To read them, set "
            f"MINARI_DATASETS_PATH={found.root} and call minari.load_dataset({found.name!r})"
        )
    else:
        rows = _table(Path(source))
        from nhzoo.publishing.records import write_parquet

        write_parquet(rows, out)
        written = {"file": str(out), "rows": len(rows)}
        said = f"{out}: {len(rows):,} rows; pandas.read_parquet reads it"
    if as_json:
        console.print_json({"system": system, **written})
    else:
        console.show(said)


def _table(source: Path) -> list[dict[str, Any]]:
    """The rows of a result folder or of a table of runs."""
    from nhzoo.publishing.records import game_rows

    if source.is_dir():
        return game_rows(source)
    from nhzoo.training.run_table import read_runs

    return [asdict(row) for row in read_runs(source)]
