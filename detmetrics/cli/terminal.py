"""What is shown: results on standard output, progress and complaints on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer


def show(result: Any, *, soft_wrap: bool = False) -> None:
    """Print a result, as wide as the terminal, or as the table where the output goes to a file."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 160
    Console(highlight=False, markup=False, emoji=False, width=width).print(result, soft_wrap=soft_wrap)


def complain(message: str) -> None:
    """Say what is wrong."""
    typer.secho("error: ", fg="red", bold=True, err=True, nl=False)
    typer.echo(message, err=True)


class Step:
    """Progress: ``with step("reading x") as advance: … advance(done, total)``."""

    def __init__(self, progress: Any) -> None:
        self.progress = progress

    @contextmanager
    def __call__(self, title: str) -> Iterator[Callable[[int, int], None]]:
        """Show a step while it runs."""
        task = self.progress.add_task(title, total=None)
        yield lambda done, total: self.progress.update(task, completed=done, total=total)
        self.progress.update(task, total=1, completed=1)
        self.progress.remove_task(task)

    @contextmanager
    def several(self) -> Iterator[Callable[[str, int, int], None]]:
        """Show steps that name themselves: ``advance(title, done, total)``."""
        task = self.progress.add_task("", total=None)
        yield lambda title, done, total: self.progress.update(task, description=title, completed=done, total=total)
        self.progress.remove_task(task)

    def say(self, message: str) -> None:
        """Print a line above the progress."""
        self.progress.console.print(message, style="dim", highlight=False, soft_wrap=True)


@contextmanager
def steps() -> Iterator[Step]:
    """Show the progress of what is done within; nothing of it stays."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True, markup=False, emoji=False),
        transient=True,
    ) as progress:
        yield Step(progress)
