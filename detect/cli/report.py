"""``inception-rcnn report``: finished results as pages to look at."""

from pathlib import Path
from typing import Annotated

import typer

from ...data import Picture, read_coco, read_voc
from ...data.errors import CommandError
from ...data.formats.by_suffix import PROPOSAL_SUFFIXES
from ...data.formats.records import names_by_id, read_json
from ...data.formats.voc import read_voc_class_names
from ..runs.names import REPORT
from .options import DEFAULT_MAX_PIXELS, MaxPixels, derived_option
from .terminal import console

_NAMED = 10  # pictures that the command prints


def report(
    finished: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULTS...",
            help="One or two folders of detect, a file of proposals, or one of classify --json.",
        ),
    ],
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder of the pictures, for a file of proposals.")
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(metavar="FILE|DIR", help="COCO annotations or a VOC kit, for what is covered."),
    ] = None,
    split: Annotated[str, typer.Option(metavar="NAME", help="Image set of the development kit.")] = "test",
    output: Annotated[
        Path | None,
        derived_option("FILE.html", "The page.", "beside the results; of two here"),
    ] = None,
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
) -> None:
    """Write a page of pictures with what was found in them, or of two runs side by side."""
    from ..runs.page.classes import write_classes_page
    from ..runs.page.detections import write_comparison_page, write_run_page
    from ..runs.page.proposals import write_proposals_page

    if output is not None and (output.suffix.lower() != ".html" or not output.absolute().parent.is_dir()):
        raise CommandError(f"--output {output}: name a file *.html in a folder that exists")
    first = finished[0]
    if missing := [one for one in finished if not one.exists()]:
        raise CommandError(f"{missing[0]}: does not exist; check its name")
    is_file = first.is_file()
    if len(finished) > (1 if is_file else 2) or any(one.is_file() != is_file for one in finished):
        raise CommandError("name one folder of a run, two of them, or one file of proposals or classes")
    if not is_file and (images or annotations):
        raise CommandError("--images and --annotations: are for a file of proposals")
    if len(finished) == 2:
        page = output or Path(REPORT)
        differences, left_out = write_comparison_page(first, finished[1], page, max_pixels=max_pixels)
        for one in differences[:_NAMED]:
            console.print(
                f"{one.weight:.2f}  {one.name}  only {first}: {one.first_only}, only {finished[1]}: {one.second_only}"
            )
        console.print(
            f"{len(differences)} picture{' differs' if len(differences) == 1 else 's differ'}"
            + (f", the first {_NAMED} above" if len(differences) > _NAMED else "")
        )
        if left_out:
            console.print(f"{left_out} pictures are in only one of the two runs, and not on the page")
    elif not is_file:
        page = write_run_page(first, output, max_pixels=max_pixels)
    elif first.suffix.lower() == ".json" and _is_list(first):
        page = write_classes_page(first, output or first.with_suffix(".html"), max_pixels=max_pixels)
    elif first.suffix.lower() in PROPOSAL_SUFFIXES:
        if images is None:
            raise CommandError(f"{first}: name the folder of its pictures by --images")
        page = output or first.with_suffix(".html")
        pictures = None if annotations is None else _read_annotations(annotations, images, split)
        write_proposals_page(first, images, page, pictures, max_pixels=max_pixels)
    else:
        raise CommandError(f"{first}: is no file of proposals or classes; a run of detect is named by its folder")
    console.print(f"report -> {page}")


def _is_list(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(64).lstrip()[:1] == b"["


def _read_annotations(path: Path, images: Path, split: str) -> list[Picture]:
    """Read the objects of all classes that are annotated."""
    if path.is_dir():
        return read_voc(path, split, read_voc_class_names(path, split))
    categories = names_by_id(read_json(path), "categories", path)
    return read_coco(path, images, list(dict.fromkeys(categories.values())), rename=None)
