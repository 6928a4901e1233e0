"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from ...data.errors import CommandError

Images = Annotated[
    list[str],
    typer.Argument(metavar="IMAGES...", help="Files, folders (searched recursively), globs, @list.txt."),
]


Method = Annotated[str, typer.Option(metavar="merged|selective-search|multibox", help="Where the regions come from.")]


MultiBoxName = Annotated[str, typer.Option(metavar="NAME|FILE", help="A MultiBox.")]


def check_choice(option: str, value: str, choices: Sequence[str]) -> Any:
    """Return the value of an option, which must be one of the choices: what a function's ``Literal`` argument takes."""
    if value not in choices:
        raise CommandError(f"{option} {value}: unknown; use {', '.join(choices[:-1])} or {choices[-1]}")
    return value
