"""The terminal, as all commands use it: where they print, how they show progress, how a run over pictures ends."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from ..runs.destination import Destination
from . import termination

if TYPE_CHECKING:
    from ..runs.summary import RunSummary

# Names of files are printed as they are: neither styled nor broken at the width of a terminal.
# FORCE_COLOR, which notebooks and services set, does not make a pipe a terminal on which a bar can be drawn anew.
console = Console(
    stderr=True, highlight=False, markup=False, soft_wrap=True, force_terminal=None if sys.stderr.isatty() else False
)
output = Console(highlight=False, markup=False, soft_wrap=True)


def replace_what_cannot_be_shown() -> None:
    """Have "?" printed for what the encoding of the output does not have, where Python would stop with an error.

    Standard error does the like by itself. Where Python lets names of files that are not UTF-8 through, it still does.
    """
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper) and (out.encoding, out.errors) != ("utf-8", "surrogateescape"):
        out.reconfigure(errors="replace")


class _Speed(ProgressColumn):
    """Items a second since the bar appeared."""

    def render(self, task: Task) -> Text:
        done = task.completed - task.fields["first"]
        speed = done / task.elapsed if done and task.elapsed else None
        return Text("" if speed is None else f"{speed:.2f}/s" if speed < 10 else f"{speed:.0f}/s")


@contextlib.contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[..., None]]:
    """Yield a function that takes the number of items done and, optionally, a note; its first call shows the bar."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), _Speed(), TimeElapsedColumn())
    end = TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}")
    bar = Progress(*columns, *end, console=console)

    def report(done: int, note: str = "") -> None:
        if not bar.tasks:
            bar.start()
            bar.add_task(what, total=total, completed=done, first=done, note=note)
        bar.update(bar.tasks[0].id, completed=done, note=note)

    try:
        yield report
    finally:
        if bar.tasks:
            bar.stop()


@contextlib.contextmanager
def download_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that takes bytes loaded and bytes expected (0: unknown); its first call shows the bar."""
    bar = Progress(TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=console)

    def report(done: int, total: int) -> None:
        if not bar.tasks:
            bar.start()
            bar.add_task(what)
        bar.update(bar.tasks[0].id, completed=done, total=total or None)

    try:
        yield report
    finally:
        if bar.tasks:
            bar.stop()


def show_run(
    run: Callable[..., RunSummary],
    what: str,
    total: int,
    output: str | Path,
    errors: str | Path,
    *,
    lines: Sequence[str] = (),
    idle_cores: bool = False,
) -> None:
    """Call `run` under a progress bar and print what it did, then `lines`; see `RunSummary.closing_lines`.

    After SIGTERM the run finishes the pictures in hand, and ends.

    Raises
    ------
    typer.Exit
        With 130 if the run was interrupted, with 1 if it should be repeated or no picture has a result.
    """
    if folder := Destination(output).folder:
        console.print(f"results are gathered in {folder} and uploaded to {output} at the end")
    finished = 0

    def progress(done: int, note: str = "") -> None:
        nonlocal finished
        finished = done
        report(done, note)

    try:
        with progress_bar(what, total) as report, termination.awaited():
            summary = run(progress=progress, stop=termination.received)
    except KeyboardInterrupt:
        ended = "stopped by SIGTERM" if termination.received() else "interrupted"
        console.print(f"{ended} after {finished} of {total} files; the same command goes on from here")
        raise typer.Exit(termination.INTERRUPTED) from None
    for line in summary.closing_lines(output, errors, idle_cores=idle_cores) + list(lines):
        console.print(line)
    if summary.should_be_repeated:
        raise typer.Exit(1)
