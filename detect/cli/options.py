"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Images = Annotated[
    list[str],
    typer.Argument(metavar="IMAGES...", help="Files, folders (searched recursively), globs, @list.txt."),
]


Method = Annotated[str, typer.Option(metavar="merged|selective-search|multibox", help="Where the regions come from.")]


MultiBoxName = Annotated[str, typer.Option(metavar="NAME|FILE", help="A MultiBox.")]
