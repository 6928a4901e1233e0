"""The terminal, as all commands use it: where they print, how they show progress, how a run over pictures ends."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from rich.table import Column
from rich.text import Text

from ..runs.destination import Destination
from . import termination

if TYPE_CHECKING:
    from ..runs.summary import RunSummary

SECONDS_BETWEEN_LINES = 60
SHOWN_ERRORS = 3
# Columns from which a progress line has room for the time passed, and for what is slowest.
WIDE = 110
PACKAGE = __name__.partition(".")[0]
# Names of files are printed as they are: neither styled nor broken at the width of a terminal.
# FORCE_COLOR, which notebooks and services set, does not make a pipe a terminal on which a bar can be drawn anew.
console = Console(
    stderr=True, highlight=False, markup=False, soft_wrap=True, force_terminal=None if sys.stderr.isatty() else False
)
output = Console(highlight=False, markup=False)


@contextlib.contextmanager
def chosen_output(options: Mapping[str, Any]) -> Iterator[None]:
    """Print less in the block where a command's options say so.

    With ``--quiet`` the console shows neither progress nor notices, and only `print_problem` prints. With ``--json -``
    standard output has the JSON document and nothing else.
    """
    log = logging.getLogger(PACKAGE)
    before = log.level
    console.quiet = bool(options.get("quiet"))
    output.quiet = str(options.get("json_file")) == "-"
    log.setLevel(logging.ERROR if console.quiet else before)
    try:
        yield
    finally:
        console.quiet = output.quiet = False
        log.setLevel(before)


def print_problem(text: str, style: str | None = None) -> None:
    """Print a line that is no notice: an error, a warning, a picture that is passed over."""
    quiet, console.quiet = console.quiet, False
    console.print(text, style=style)
    console.quiet = quiet


def replace_what_cannot_be_shown() -> None:
    """Have "?" printed for what the encoding of the output does not have, where Python would stop with an error.

    Standard error does the like by itself. Where Python lets names of files that are not UTF-8 through, it still does.
    """
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper) and (out.encoding, out.errors) != ("utf-8", "surrogateescape"):
        out.reconfigure(errors="replace")


class _Speed(ProgressColumn):
    """Pictures a second since the bar appeared."""

    def render(self, task: Task) -> Text:
        done = task.completed - task.fields["first"]
        speed = done / task.elapsed if done and task.elapsed else None
        return Text("" if speed is None else f"{speed:.{2 if speed < 10 else 0}f} pictures/s")


@contextlib.contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[..., None]]:
    """Yield a function that takes the number of pictures done and, optionally, a note; its first call shows the bar.

    Where there is no terminal, a line is printed every `SECONDS_BETWEEN_LINES`.
    """
    whole, wide = Column(no_wrap=True), console.width >= WIDE
    speed, left = _Speed(table_column=whole), TimeRemainingColumn(table_column=whole)
    columns = (
        TextColumn(what, table_column=whole),
        BarColumn(40 if wide else 12),
        MofNCompleteColumn(table_column=whole),
    )
    times = *((TimeElapsedColumn(), TextColumn("passed,")) if wide else ()), left, TextColumn("left")
    what_for = (TextColumn("{task.fields[note]}"),) if wide else ()
    bar = Progress(*columns, speed, *times, *what_for, console=console, disable=console.quiet)
    told = time.monotonic()

    def report(done: int, note: str = "") -> None:
        if not bar.tasks:
            bar.start()
            bar.add_task(what, total=total, completed=done, first=done, note=note)
        task = bar.tasks[0]
        bar.update(task.id, completed=done, note=note)
        nonlocal told
        if not console.is_terminal and time.monotonic() - told >= SECONDS_BETWEEN_LINES and not task.finished:
            told = time.monotonic()
            remaining = f"{left.render(task)} left" if task.time_remaining else ""
            parts = f"{what}: {done} of {total}", str(speed.render(task)), remaining, note
            console.print(", ".join(part for part in parts if part))

    try:
        yield report
    finally:
        if bar.tasks:
            bar.stop()


@contextlib.contextmanager
def download_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that takes bytes loaded and bytes expected (0: unknown); its first call shows the bar."""
    columns = TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    bar = Progress(*columns, console=console, disable=console.quiet)

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


def _few_errors(failed: int, errors: Path) -> list[str]:
    """Say what was wrong with files, if they are few; their lines come first in the file of errors."""
    if failed > SHOWN_ERRORS or not errors.is_file():
        return []
    with errors.open(encoding="utf-8") as file:
        return [f"  {json.loads(line)['message']}" for line in itertools.islice(file, failed)]


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
    """Call `run` under a progress bar and print what it did, see `RunSummary.closing_lines`; then `lines`.

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
        print_problem(f"{ended} after {finished} of {total} files; the same command goes on from here")
        raise typer.Exit(termination.INTERRUPTED) from None
    for line in summary.closing_lines(output, idle_cores=idle_cores):
        console.print(line)
    for line in (*summary.problem_lines(errors), *_few_errors(summary.failed, Path(errors))):
        print_problem(line)
    for line in lines:
        console.print(line)
    if summary.should_be_repeated:
        raise typer.Exit(1)
