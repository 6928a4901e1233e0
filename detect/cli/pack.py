"""``inception-rcnn pack``: labelled pictures as a few large files that trainings read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, get_args

import typer

from ...data.arguments import check_choice
from ...data.errors import CommandError, needs_packages
from ...data.system.processes import usable_cores
from ...proposals import Proposer, load_proposer
from ..train.data import read_training_pictures
from ..train.recipes import DetectorRecipe
from ..train.shards import LOSSLESS, ImageFormat, Packing, pack_pictures
from .options import DEFAULT_MAX_PIXELS, MaxPixels, derived_option, detector_names, multibox_names
from .terminal import console, progress_bar
from .termination import INTERRUPTED
from .train_options import Classes, Data, Split
from .train_session import proposer_settings, read_classes, usual_multibox

_LONG_SIDE = round(DetectorRecipe.long_side * max(DetectorRecipe.scales))


def pack(
    data: Data,
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="For the files; train takes it as --data.")],
    classes: Classes = None,
    split: Split = "trainval",
    long_side: Annotated[
        int,
        typer.Option(min=32, max=10_000, metavar="N", help="Pixels of the longer side, at most."),
    ] = _LONG_SIDE,
    quality: Annotated[
        int,
        typer.Option(min=1, max=LOSSLESS, metavar="Q", help=f"{LOSSLESS} keeps every pixel of WebP."),
    ] = Packing.quality,
    image_format: Annotated[
        str, typer.Option("--format", metavar="webp|jpeg", help="WebP is smaller, JPEG read faster.")
    ] = Packing.image_format,
    proposals: Annotated[
        str | None,
        typer.Option(metavar="merged|selective-search", help="Pack the regions of train detector --method too."),
    ] = None,
    multibox: Annotated[
        str | None,
        derived_option("NAME|FILE", "A MultiBox.", "voc; any, if VOC lacks a class", autocompletion=multibox_names),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            autocompletion=detector_names,
            help="As of train detector.",
        ),
    ] = None,
    workers: Annotated[int | None, derived_option("N", "Processes.", "the cores", min=1)] = None,
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
) -> None:
    """Pack labelled pictures into a few large files, for trainings on slow disks or fast GPUs."""
    if output.exists() and not output.is_dir():
        raise CommandError(f"--output {output}: is a file; name a folder")
    if not output.parent.is_dir():
        raise OSError(2, "no such folder", str(output.parent))
    packing = Packing(long_side, quality, check_choice("--format", image_format, get_args(ImageFormat)))
    names = read_classes(classes, data, split)
    proposer = None if proposals is None else _load_proposer(proposals, multibox, start, names)
    training, validation = read_training_pictures(
        data, names, split, tell=console.print, warn=console.print, progress=progress_bar, max_pixels=max_pixels
    )
    try:
        pack_pictures(
            output, training, validation, names, packing, proposer=proposer,
            workers=workers or usable_cores(), tell=console.print, progress=progress_bar, max_pixels=max_pixels,
        )  # fmt: skip
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on from here")
        raise typer.Exit(INTERRUPTED) from None


def _load_proposer(method: str, multibox: str | None, start: str | None, classes: Sequence[str]) -> Proposer:
    """Load what `train detector` with the same options proposes regions by."""
    settings = {}
    if check_choice("--proposals", method, ("merged", "selective-search")) == "merged":
        with needs_packages("--proposals merged", "detect", "give --proposals selective-search"):
            from ...backbone.weights.model_file import read_model
            from ...backbone.weights.published import find_model
            from ...proposals.multibox.file import find_multibox, read_multibox

            before = None if start is None else read_model(find_model(start))
            multibox = multibox or usual_multibox(classes, start, before)
            settings = proposer_settings(multibox, read_multibox(find_multibox(multibox)), start, before)
    return load_proposer(method, **settings)
