"""The tables that the benchmarks print, for a terminal or as Markdown."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

__all__ = ["show"]


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool) -> None:
    """Print one table, unless it is empty; the first column is text, the others are numbers."""
    if not rows:
        return
    if markdown:
        print(f"{title}:\n")
        for cells in (columns, ["---"] + ["---:"] * (len(columns) - 1), *rows):
            print("| " + " | ".join(cells) + " |")
        print()
        return
    table = Table(*columns, title=title)
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for cells in rows:
        table.add_row(*cells)
    Console(highlight=False).print(table)
