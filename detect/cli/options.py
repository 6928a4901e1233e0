"""Options that several commands share, and the pictures that IMAGES stands for."""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from ...data import MAX_PIXELS, ImageError, find_images, find_images_in
from ...data.errors import CommandError
from ...data.images.containers import Members
from ...data.images.finding import VIDEO_SUFFIXES, how_to_read_video
from ...data.system.remote import is_url, local_copy
from ..runs.names import RESULT_FILES, RUN_FILES, folders_inside


def detections_copy(name: str) -> Path:
    """Path of detections, of those at a URL a copy: what `typer` makes of an option's text."""
    return local_copy(name, RESULT_FILES)


def offer(words: Iterable[str]) -> Callable[[], list[str]]:
    """Make what `typer` takes to complete a word: a function without arguments that returns all words."""
    words = [*words]

    def complete() -> list[str]:
        return words

    return complete


def detector_names() -> list[str]:
    """Names of the bundled detectors, for completion; none if the packages of detection are not installed."""
    with suppress(ImportError):
        from ...backbone.weights.published import bundled_models

        return bundled_models()
    return []


def multibox_names() -> list[str]:
    """Names of the bundled MultiBoxes, as `detector_names`."""
    with suppress(ImportError):
        from ...proposals.multibox.file import bundled_multiboxes

        return bundled_multiboxes()
    return []


def weight_names() -> list[str]:
    """Names of the published weights of GoogLeNet, as `detector_names`."""
    with suppress(ImportError):
        from ...backbone.weights.published import PUBLISHED

        return [*PUBLISHED]
    return []


Images = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="IMAGES...",
        help="Files, folders, globs, URLs of these, @list.txt; @- is a list from standard input.",
        show_default=False,
    ),
]
ImagesIn = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE",
        help="Parquet or .tar files that hold pictures, instead of IMAGES.",
    ),
]
Column = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Its column with the pictures.  [default: image, or the only one]",
        show_default=False,
    ),
]  # fmt: skip
MaxPixels = Annotated[int, typer.Option(min=1, metavar="N", help="Larger pictures are not read.")]
DEFAULT_MAX_PIXELS = MAX_PIXELS
# `terminal.chosen_output` acts on it, for all commands that have it.
Quiet = Annotated[bool, typer.Option("--quiet", help="Print neither progress nor a summary, only errors and warnings.")]
Method = Annotated[str, typer.Option(metavar="merged|selective-search|multibox", help="Where the regions come from.")]
MultiBoxName = Annotated[str, typer.Option(metavar="NAME|FILE", help="A MultiBox.", autocompletion=multibox_names)]


Annotations = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="COCO annotations with the ids to write."),
]
ResultList = Annotated[
    Path | None,
    typer.Option("--results", metavar="FILE", help="Also write a COCO result list there, with ids of --annotations."),
]


def check_result_list(results: Path | None, annotations: Path | None, folder: Path | None = None) -> None:
    """Refuse before the work what --results could not write after it; `folder` is one that the command will make."""
    if results is not None and annotations is None:
        raise CommandError("--results: a list of results has the ids of COCO annotations; name them by --annotations")
    if results is None:
        return
    inside = folder is not None and os.path.abspath(results.parent) == os.path.abspath(folder)
    if results.is_dir() or not (inside or results.parent.is_dir()):
        raise CommandError(f"--results {results}: name a file in a folder that exists")
    if inside and results.name in RUN_FILES:
        raise CommandError(f"--results {results}: is a file that the run itself writes; name another")


Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="[ADDRESS]",
        help="Have a Ray cluster do the work: host:port, auto (that of this machine), or no address (a new one here).",
    ),
]
NoDrawings = Annotated[bool, typer.Option("--no-drawings", help="Leave out the drawn pictures.")]


def _local_folder(name: str) -> Path:
    if is_url(name):
        raise CommandError(f"{name}: is written to this machine only; name a folder of it")
    return Path(name)


def _folder_option(text: str) -> Any:
    return typer.Option(metavar="DIR", parser=_local_folder, help=text)


# What else is made of the detections that are drawn.
Crops = Annotated[Path | None, _folder_option("Save each detection that is drawn as a picture, cut from its original.")]
SaveYolo = Annotated[Path | None, _folder_option("Write what is drawn as labels in YOLO's form, without scores.")]
SaveVoc = Annotated[Path | None, _folder_option("Write what is drawn as labels in VOC's form, as LabelImg does.")]
Only = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CLASS",
        help="Keep detections of this class only; repeat for more classes.  [default: all]",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where the network runs.")]


def placement_on(device: str, cluster: str | None) -> dict[str, Any]:
    """Choose device and threads of a network, as `Detector.load` takes them; a cluster is connected already."""
    if cluster is None:
        return {"device": device}
    from ...backbone.regions.placement import choose_device
    from ..runs.cluster import count_gpus

    if device == "cpu" or (device == "auto" and not count_gpus()):
        return {"device": "cpu", "threads": 1}
    if not count_gpus():
        raise CommandError(f"--device {device}: no machine of the cluster has a GPU; use --device cpu")
    if choose_device("auto") != "cuda":
        raise CommandError(
            f"--device {device}: the cluster has GPUs, and this machine has none to load the model on; start the "
            "command on one with a GPU, or use --device cpu"
        )
    return {"device": "cuda"}


def derived_option(metavar: str, text: str, default: str, **settings: Any) -> Any:
    """Make an option whose default follows from other things, in words; its value is None."""
    return typer.Option(metavar=metavar, help=f"{text}  [default: {default}]", show_default=False, **settings)


def list_pictures(
    images: list[str] | None, images_in: list[str] | None, column: str | None, *results: str | Path
) -> tuple[list[str] | Members, list[str]]:
    """List the pictures that IMAGES or --images-in stands for, but none in the folders of `results`; refuse none.

    Returns
    -------
    paths : list of str, or Members
    lines : list of str
        One line, for the end of the command, that counts the files that were passed over in folders; or none.

    Raises
    ------
    ImageError
        If something named does not exist, or there is no picture.
    """
    if bool(images) == bool(images_in):
        raise CommandError("name pictures (IMAGES), or files that hold pictures (--images-in), one of the two")
    if images_in:
        if not len(members := find_images_in(images_in, column)):
            raise ImageError(f"{' '.join(images_in)}: no pictures there; name other files")
        return members, []
    assert images
    if column is not None:
        raise CommandError(f"--column {column}: is for --images-in; leave it out")
    passed_over: Counter[str] = Counter()
    paths = list(map(str, find_images(images, passed_over)))
    for folder in results:
        if is_url(folder):
            paths = [path for path in paths if not path.startswith(f"{folder}/")]
            continue
        # Also through links: a drawing must not take the place of a picture.
        drawings = folders_inside(paths, Path(folder))
        paths = [path for path in paths if os.path.dirname(path) not in drawings]
    counts = sorted(passed_over.items(), key=lambda item: (-item[1], item[0]))
    listed = ", ".join(f"{suffix or 'no suffix'} {count}" for suffix, count in counts[:10])
    lines = [f"passed over, not known as pictures: {listed}{', ...' if len(counts) > 10 else ''}"] if counts else []
    if not paths:
        if videos := sorted(passed_over.keys() & VIDEO_SUFFIXES):
            how = how_to_read_video(f"VIDEO{videos[0]}").partition("; ")[2]
            text = f"has videos ({', '.join(videos)}) and no pictures; {how}"
            raise ImageError(f"{' '.join(images)}: {text}")
        hint = "".join(f" ({line})" for line in lines)
        raise ImageError(f"{' '.join(images)}: no pictures there{hint}; name files, folders or globs of pictures")
    return paths, lines
