"""The command line: parse, call the library, print. Heavy imports wait for the command."""

from __future__ import annotations

import signal
import sys
import traceback
from typing import Any

import click

from nhzoo import __version__
from nhzoo.cli import agents, compare, data, evaluate, hub, leaderboard, site, tour, train
from nhzoo.cli.scaling import fit, forecast, sweep
from nhzoo.errors import NhzooError, refusal
from nhzoo.runtime import console


class _Group(click.Group):
    """Click's group with its commands in sections, and with errors left to `main`."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands section by section, one sentence each, in columns of one width."""
        width = max(map(len, self.commands))
        for heading, commands in _SECTIONS.items():
            rows = [
                (str(command.name).ljust(width), command.get_short_help_str(formatter.width))
                for command in commands
            ]
            with formatter.section(heading):
                formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Click takes EOFError for Ctrl-C, and ends with 1 at a broken pipe."""
        try:
            return super().invoke(ctx)
        except (EOFError, OSError, KeyboardInterrupt) as error:
            raise _Passed(error) from error


class _Passed(Exception):
    """`error`, past click."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


@click.group(
    cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="nhzoo")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """A zoo, a benchmark and scaling laws of neural NetHack agents.

    Add --help to any command for its options and an example.
    """


_SECTIONS: dict[str, tuple[click.Command, ...]] = {
    "Everyday": (
        tour.tour,
        agents.list_command,
        agents.info,
        agents.profile,
        evaluate.evaluate,
        evaluate.merge,
        agents.watch,
        tour.demo,
        evaluate.verify,
        compare.compare,
        evaluate.report,
        evaluate.loss,
        agents.doctor,
    ),
    "Data": (data.data,),
    "Training": (train.train, evaluate.tune, sweep.sweep),
    "Scaling": (
        fit.fit_command,
        forecast.forecast_command,
        forecast.grade_command,
        forecast.plot_command,
    ),
    "Hub": (hub.push, hub.pull, hub.card, hub.publish, hub.export),
    "Leaderboard": (leaderboard.submit, leaderboard.leaderboard),
}
for _commands in _SECTIONS.values():
    for _command in _commands:
        cli.add_command(_command)
for _command in (site.build, site.serve):
    leaderboard.leaderboard.add_command(_command)


class _Terminated(BaseException):
    """SIGTERM: leave as after Ctrl-C, cleaning up on the way."""


def _terminated(number: int, frame: Any) -> None:
    raise _Terminated


def main() -> None:
    """Entry point: errors made on purpose become one line and the contract's exit code."""
    console.open_streams()
    signal.signal(signal.SIGTERM, _terminated)
    code = _run("--debug" in sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError as error:
        console.say(f"nhzoo: {_os_line(error)}")
        code = code or 2
    sys.exit(code)


def _run(debug: bool) -> int:
    """The exit code of the command; what went wrong is on stderr."""
    try:
        try:
            return cli.main(standalone_mode=False) or 0
        except _Passed as passed:
            raise passed.error from None
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        return 0
    except click.ClickException as error:
        console.say(f"nhzoo: {error.format_message()} (see nhzoo --help)")
        return 2
    except (KeyboardInterrupt, click.Abort):
        console.say("stopped; the same command resumes")
        return 130
    except _Terminated:
        console.say("terminated; the same command resumes")
        return 128 + signal.SIGTERM
    except NhzooError as error:
        if debug:
            console.say(getattr(error, "trace", "") or traceback.format_exc())
        console.say(f"nhzoo: {error}")
        return error.exit_code
    except OSError as error:
        if debug:
            traceback.print_exc()
        console.say(f"nhzoo: {_os_line(error)}")
        return 2
    except MemoryError:
        console.say("nhzoo: there is not enough memory; give fewer workers, or a smaller batch")
        return 2
    except Exception as error:
        if debug:
            traceback.print_exc()
        reason = str(error).splitlines()[0] if str(error) else "no message"
        console.say(f"nhzoo: {type(error).__name__}: {reason} (a bug? --debug shows where)")
        return 2


def _os_line(error: OSError) -> str:
    """What the system refused, and of which file."""
    what = error.filename if error.filename is not None else type(error).__name__
    return f"{what}: {refusal(error)}"
