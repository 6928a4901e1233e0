"""The terminal, as all commands use it: where they print, how they show progress, how they refuse."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

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

# Names of files are printed as they are: neither styled nor broken at the width of a terminal.
console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


class _Speed(ProgressColumn):
    """Items a second since the bar began."""

    def render(self, task: Task) -> Text:
        done = task.completed - task.fields["first"]
        speed = done / task.elapsed if done and task.elapsed else None
        return Text("" if speed is None else f"{speed:.2f}/s" if speed < 10 else f"{speed:.0f}/s")


@contextlib.contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[..., None]]:
    """Yield a function that takes the number of items done, and perhaps a note; the bar appears with its first call."""
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
    """Yield a function that takes bytes had and expected (0 if unknown); the bar appears when it is first called."""
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
