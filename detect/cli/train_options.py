"""Options of the commands of ``train``: those that they share, and those of the recipes."""

import inspect
import math
import re
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from ..train.recipes import Recipe, allowed_values

Data = Annotated[
    list[Path],
    typer.Option(metavar="DIR", help="Labelled pictures, in any layout of docs/training.md; repeat for more."),
]
Classes = Annotated[
    str | None,
    typer.Option(
        metavar="voc|coco|ilsvrc|FILE",
        help="What to learn; a file has a name a line.  [default: voc, or the classes of a labelling tool's folder]",
        show_default=False,
    ),
]
Output = Annotated[Path, typer.Option(metavar="FILE", help="The model, .safetensors.")]
Split = Annotated[str, typer.Option(metavar="NAME", help="Which pictures of folders in VOC layout.")]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where the network runs.")]
Cache = Annotated[Path, typer.Option(metavar="DIR", help="For proposals, checkpoints and curves.")]
TimeLimit = Annotated[float | None, typer.Option(metavar="MINUTES", help="Save and stop after that long.")]
Resume = Annotated[bool, typer.Option(help="Go on from the checkpoint in the cache.")]


def recipe_option(recipe: type[Recipe], field: str, more: str = "", instead: str = "") -> Any:
    """Make the option of a hyper-parameter, with the help, the choices and the range of the recipe's field.

    Parameters
    ----------
    recipe : type
    field : str
        Name of the field.
    more : str
        Added to the help.
    instead : str
        The default if there is one, before the recipe's: "that of --start".
    """
    choices, (low, high) = allowed_values(get_type_hints(recipe, include_extras=True)[field])
    described = re.search(rf"^{field} : .*\n((?: {{4}}.*\n?)+)", inspect.getdoc(recipe) or "", re.MULTILINE)
    default = f"  [default: {instead}, or {getattr(recipe, field)}]" if instead else ""
    text = " ".join([*(described[1].split() if described else ()), more])
    text = text.rstrip() + default
    if choices == (True, False):
        return typer.Option(help=text)
    if choices:
        # The recipe refuses what is none of them; typer knows no Literal before 0.19.
        return typer.Option(metavar="|".join(map(str, choices)), parser=str, help=text)
    metavar = "N" if get_type_hints(recipe)[field] in (int, int | None) else "X"
    return typer.Option(metavar=metavar, min=low, max=None if high == math.inf else high, help=text)
