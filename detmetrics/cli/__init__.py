"""The command line: one front door; every room is imported only when it is used."""

from __future__ import annotations

import os
import sys
from errno import EDQUOT, ENOSPC
from io import TextIOWrapper
from typing import Annotated

import typer

from detmetrics import __version__, extras
from detmetrics.cli import comparing, making, scoring, serving, training, viewing
from detmetrics.cli.terminal import complain
from detmetrics.errors import DetmetricsError

app = typer.Typer(
    name="detmetrics",
    help="Is this 3D detector better, where, and am I sure?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
# in the order of the help
for command in (
    scoring.evaluate,
    comparing.compare,
    comparing.report,
    scoring.diagnose,
    scoring.worst,
    viewing.view,
    scoring.export,
    making.protocols,
    making.convert,
    making.synth,
    serving.serve,
    serving.submit,
    serving.upload_dataset,
    making.demo,
):
    app.command()(command)
app.add_typer(serving.token)
app.add_typer(training.detector)


@app.callback(invoke_without_command=True)
def _front(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"detmetrics {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line: exit code 2 for bad input, 1 for our own faults, never a traceback."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that has no – shows ? and all the rest
    try:
        app()  # ends the process itself, with 2 on wrong usage
    except BrokenPipeError:  # the reader of a pipe has gone: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except DetmetricsError as error:
        complain(str(error))
        sys.exit(2)
    except OSError as error:
        full = " (make room, then run the same command again)" if error.errno in (ENOSPC, EDQUOT) else ""
        complain(f"{error.filename or 'system'}: {error.strerror or error}{full}")
        sys.exit(2)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and (told := extras.missing(error)):
            complain(str(told))
            sys.exit(2)
        if os.environ.get("DETMETRICS_DEBUG"):
            raise
        complain(
            f"this is a fault of detmetrics, not of your input: {type(error).__name__}: {error} "
            "(set DETMETRICS_DEBUG=1 for the traceback)"
        )
        sys.exit(1)
