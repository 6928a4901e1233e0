"""``inception-rcnn export``: one ONNX model of a detector."""

from pathlib import Path
from typing import Annotated

import typer

from ...data import atomic_write
from ...data.errors import CommandError, needs_packages
from .options import detector_names
from .terminal import console


def export(
    output: Annotated[Path, typer.Option(metavar="FILE", help="Ends in .onnx.")],
    model: Annotated[str, typer.Option(metavar="NAME|FILE", autocompletion=detector_names, help="A detector.")] = "voc",
) -> None:
    """Write a detector as one ONNX model that other programs can run: picture and boxes in, probabilities out."""
    if output.suffix.lower() != ".onnx" or not output.parent.is_dir():
        raise CommandError(f"--output {output}: name a file that ends in .onnx, in a folder that exists")
    with needs_packages("export", "train"):
        from ...backbone.export.graphs import export_whole
        from ...backbone.weights.model_file import read_model
        from ...backbone.weights.published import find_model
    atomic_write(output, export_whole(read_model(find_model(model))))
    console.print(f"wrote {output}")
