"""Commands about agents: `list`, `info`, `profile`, `doctor`, `watch`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from nhzoo.cli.options import AGENT, AS_JSON, PROTOCOL
from nhzoo.errors import CheckFailed, InputError
from nhzoo.runtime import console

if TYPE_CHECKING:
    from nhzoo.publishing.listing import Order


@click.command("list")
@click.option("--remote", is_flag=True, help="List the entries on the hub instead.")
@click.option("--owner", help="With --remote: only of this user or organisation.")
@click.option(
    "--protocol",
    type=PROTOCOL,
    default="monk-lite-v1",
    show_default=True,
    help="Show, and rank by, scores of this protocol.",
)
@click.option(
    "--sort",
    type=click.Choice(["score", "loss", "size", "name"]),
    default="score",
    show_default=True,
    help="Best first: the highest score, or the smallest loss or size.",
)
@AS_JSON
def list_command(
    remote: bool, owner: str | None, protocol: str, sort: Order, as_json: bool
) -> None:
    """List the agents that load by name, best first, or those on the hub.

    The mean score with its 95 % interval, the held-out loss in nats a key, the parameters, and
    where an agent is from: bundled, code, hub, or a folder of $NHZOO_AGENTS. Scores are those of
    its card. --json has those of every protocol.

    \b
    Example: nhzoo list --protocol monk-v1
    """
    if remote:
        _list_remote(owner, as_json)
        return
    if owner:
        raise InputError("--owner goes with --remote")
    from nhzoo.publishing.listing import ranked

    agents = ranked(protocol, sort)
    if as_json:
        console.print_json({"agents": [agent.as_json() for agent in agents]})
        return
    rows = []
    for agent in agents:
        score = agent.scores.get(protocol)
        rows.append(
            (
                agent.name,
                f"{score.mean:,.1f}" if score else None,
                f"[{score.low:,.0f}, {score.high:,.0f}]"
                if score and score.low is not None and score.high is not None
                else None,
                protocol if score else None,
                agent.loss,
                agent.params,
                agent.where,
                agent.description,
            )
        )
    head = "name", "score", "95 %", "protocol", "loss", "parameters", "from", "what it is"
    console.print_table(head, rows, ("loss", "from", "what it is"))


def _list_remote(owner: str | None, as_json: bool) -> None:
    from nhzoo.hub.client import list_entries

    found = list_entries(owner)
    if as_json:
        console.print_json({"entries": [asdict(entry) for entry in found]})
        return
    rows = [(f"hf://{e.repo}", e.params, e.downloads, e.modified) for e in found]
    console.print_table(("entry", "parameters", "downloads", "changed"), rows)


@click.command()
@click.argument("agent", type=AGENT)
@AS_JSON
def info(agent: str, as_json: bool) -> None:
    """Show what is known of an agent, and the commands that reproduce it.

    Sizes, training, scores and held-out loss as its files say; weights are not loaded.

    \b
    Example: nhzoo info bc-lstm-1m
    """
    from nhzoo.publishing.facts import facts_of

    found = facts_of(agent)
    if as_json:
        console.print_json(found.as_json())
        return
    console.print_groups(found.groups, found.commands)


@click.command()
@click.argument("agent", type=AGENT)
@click.option(
    "--protocol",
    type=PROTOCOL,
    default="monk-lite-v1",
    show_default=True,
    help="Whose games to play.",
)
@click.option(
    "--batch",
    "batches",
    type=click.IntRange(1),
    multiple=True,
    help="Games side by side. Repeatable (default: 1, 4, 16 and 64).",
)
@click.option(
    "--steps",
    type=click.IntRange(1),
    default=300,
    show_default=True,
    help="Steps of every game to time, after a tenth as many.",
)
@AS_JSON
def profile(agent: str, protocol: str, batches: tuple[int, ...], steps: int, as_json: bool) -> None:
    """Measure the time of an agent's step, its memory, and its speed beside raw NLE.

    For each batch size: half of the steps took at most p50, all but 1 % at most p99; steps a second
    of one worker, and of NLE alone with the same keys in the same process; memory of that process.

    \b
    Example: nhzoo profile bc-lstm-1m --batch 1 --batch 64
    """
    from nhzoo.evaluation.profiling import profile as run

    with console.LiveProgress(f"profile {agent}", "batch sizes") as bar:
        found = run(agent, protocol, batches or None, steps, bar.update)
    if as_json:
        console.print_json(found.as_json())
        return
    console.print_table(
        ("batch", "p50 ms", "p99 ms", "steps/s", "raw NLE", "share %", "memory MB"),
        [
            (
                b.batch,
                f"{b.p50_ms:.2f}",
                f"{b.p99_ms:.2f}",
                f"{b.steps_per_second:,.0f}",
                f"{b.raw_steps_per_second:,.0f}",
                f"{100 * b.share:.1f}",
                f"{b.memory_mb:,.0f}",
            )
            for b in found.batches
        ],
    )
    console.show(f"{found.agent} on {found.cpu}, {found.cores} cores, load {found.load:.1f}")


@click.command()
@AS_JSON
def doctor(as_json: bool) -> None:
    """Check what this machine has and lacks for nhzoo.

    \b
    Example: nhzoo doctor
    """
    from nhzoo.cli.doctor import examine

    findings = examine()
    if as_json:
        console.print_json(
            {"ok": all(f.ok for f in findings), "checks": [asdict(f) for f in findings]}
        )
    else:
        rows = [("ok" if f.ok else "WRONG", f.check, f.detail) for f in findings]
        console.print_table(("", "check", "detail"), rows)
    if not all(finding.ok for finding in findings):
        raise CheckFailed("something that nhzoo needs is missing or too old; see above")


@click.command()
@click.argument("agent", type=AGENT)
@click.option(
    "--protocol", type=PROTOCOL, default="smoke-v1", show_default=True, help="Protocol of the game."
)
@click.option("--episode", default=0, show_default=True, help="Number of the game in the protocol.")
@click.option("--beside", type=AGENT, help="Show this agent on the same game, side by side.")
@click.option("--speed", default=8.0, show_default=True, help="Steps per second; 0 does not wait.")
@click.option("--max-steps", type=click.IntRange(1), help="Stop after this many steps.")
def watch(
    agent: str,
    protocol: str,
    episode: int,
    beside: str | None,
    speed: float,
    max_steps: int | None,
) -> None:
    """Watch an agent play in this terminal, in colour.

    With --beside, two agents play the same game, and the first step at which their keys differ is
    marked. That takes 162 columns, or 52 lines. Ctrl-C stops.

    \b
    Example: nhzoo watch bc-lstm-1m --episode 3
             nhzoo watch bc-lstm-1m --beside scripted --episode 3
    """
    from nhzoo.agents.loading import load
    from nhzoo.cli.watch import watch as play
    from nhzoo.cli.watch import watch_beside
    from nhzoo.envs.protocols import get_protocol

    about = get_protocol(protocol)
    if beside is None:
        results = [play(load(agent), about, episode, speed, max_steps)]
    else:
        agents = load(agent), load(beside)
        both, differs = watch_beside(agents, about, episode, speed, max_steps)
        results = list(both)
    for name, result in zip((agent, beside), results, strict=False):
        end = f"{result.end_status or 'stopped'} {result.cause}"
        who = f"{name}: " if beside else ""
        console.say(f"{who}{end}: score {result.score:,.0f} after {result.steps:,} steps")
    if beside is not None:
        where = f"differ from step {differs.step:,} on" if differs else "are the same"
        console.say(f"their keys {where}")
