"""``inception-rcnn propose``: ranked boxes that may hold an object."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ...data.arguments import check_choice
from ...data.errors import CommandError, needs_packages
from ...data.formats.by_suffix import check_suffix
from ...data.formats.coco import coco_ids
from ...data.formats.programs import SUFFIXES, Program, check_program_path
from ...data.proposals import numbers_of_names
from ...data.system.processes import usable_cores
from ...data.system.remote import is_url
from .options import (
    DEFAULT_MAX_PIXELS,
    Cluster,
    Column,
    Device,
    Images,
    ImagesIn,
    MaxPixels,
    Method,
    MultiBoxName,
    Quiet,
    derived_option,
    detector_names,
    list_pictures,
    multibox_names,
    placement_on,
)
from .terminal import show_run

if TYPE_CHECKING:
    from ...proposals import Proposer

# Detectron2 (detectron2/data/build.py) has the names of VOC's pictures as ids. NVlabs/wetectron looks a name up as a
# whole number (wetectron/data/datasets/voc.py). ppengtang/pcl.pytorch has the numbers of Detectron's lists of VOC
# (lib/datasets/json_dataset.py).
_PICKLES = ("detectron2", "wetectron", "pcl")
_PROGRAMS = (*_PICKLES, *SUFFIXES)


def propose(
    output: Annotated[
        str, typer.Option(metavar="FILE", help="A .parquet, .json, .mat, .pkl or .npz; a path or a URL.")
    ],
    images: Images = None,
    images_in: ImagesIn = None,
    column: Column = None,
    method: Method = "merged",
    mode: Annotated[str, typer.Option(metavar="single|fast|quality", help="1, 8 or 80 hierarchies.")] = "fast",
    superpixel_scale: Annotated[
        float | None, derived_option("S", "2 gives half as many boxes.", "2 if merged, 1")
    ] = None,
    min_side: Annotated[
        int, typer.Option(min=0, metavar="N", help="Smaller regions are left out; pixels of a picture 500 wide.")
    ] = 20,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="The best N boxes of a picture.")] = None,
    multibox: MultiBoxName = "voc",
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            autocompletion=detector_names,
            help="The detector that a MultiBox file stands on.",
        ),
    ] = None,
    device: Device = "auto",
    masks: Annotated[
        bool, typer.Option("--masks", help="Write each box's region too, as COCO's run lengths; .parquet and .json.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random part of the ranking.")] = 0,
    annotations: Annotated[
        Path | None, typer.Option(metavar="FILE", help="COCO annotations that have the image ids for .json and .pkl.")
    ] = None,
    program: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="PROGRAM",
            help=f"Write the file that it reads: {', '.join(_PROGRAMS)}.",
        ),
    ] = None,
    workers: Annotated[int | None, derived_option("N", "Processes.", "the cores; of a cluster, all", min=1)] = None,
    cluster: Cluster = None,
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
    quiet: Quiet = False,
) -> None:
    """Write ranked boxes that may hold an object, of many pictures, into one file."""
    from ..runs.cluster import connected
    from ..runs.names import relative_names
    from ..runs.proposing import propose_pictures

    path = Path(output)
    other = _check_file(output, program, method, annotations, masks=masks)
    paths, lines = list_pictures(images, images_in, column)
    if model is not None and multibox in multibox_names():
        raise CommandError(f"--model {model}: the MultiBox {multibox} has its detector; name --multibox FILE too")
    settings: dict[str, Any] = {
        "mode": mode, "superpixel_scale": superpixel_scale, "min_side": min_side, "limit": limit, "seed": seed,
    }  # fmt: skip
    network = {"multibox": multibox, "detector": model or "voc", "device": device}
    with connected(cluster, workers) if cluster else nullcontext():
        proposer, workers = _load(method, settings, network, workers, len(paths), cluster)
        image_ids: Mapping[str, int | str] | None = None
        if annotations is not None:
            image_ids, _ = coco_ids(annotations, relative_names(paths))
        elif program in ("wetectron", "pcl"):
            image_ids = numbers_of_names(path, relative_names(paths))
        run = partial(
            propose_pictures, paths, output, proposer, workers=workers, cluster=cluster, max_pixels=max_pixels,
            image_ids=image_ids, masks=masks, program=other,
        )  # fmt: skip
        errors = f"{output[: len(output) - len(path.suffix)]}.errors.jsonl"
        show_run(run, "propose", len(paths), output, errors, lines=lines)


def _check_file(
    output: str, program: str | None, method: str, annotations: Path | None, *, masks: bool
) -> Program | None:
    """Refuse an output or options that do not go together; return a program that has a file of its own."""
    path = Path(output)
    if not is_url(output) and ((path.is_dir() and program != "detreg") or not path.parent.is_dir()):
        raise CommandError(f"--output {output}: name a file in a folder that exists")
    other = None if program is None or check_choice("--for", program, _PROGRAMS) in _PICKLES else cast(Program, program)
    if other is None:
        check_suffix(path)
    else:
        check_program_path(other, path)
    if masks and method != "selective-search":
        raise CommandError(f"--masks: the boxes of --method {method} have no regions; give --method selective-search")
    if masks and other is not None:
        raise CommandError(f"--for {program} and --masks: {program} reads no masks; leave one out")
    if annotations is not None and path.suffix.lower() not in (".json", ".pkl"):
        raise CommandError(f"--annotations: only .json and .pkl have image ids, {path.name} has none")
    if program in _PICKLES and path.suffix.lower() != ".pkl":
        raise CommandError(f"--for {program}: it reads a .pkl; name the file so")
    if program is not None and annotations is not None:
        raise CommandError(f"--for {program} and --annotations: each says which ids to write; leave one out")
    return other


def _load(
    method: str,
    settings: dict[str, Any],
    network: dict[str, Any],
    workers: int | None,
    pictures: int,
    cluster: str | None,
) -> tuple[Proposer, int | None]:
    """Load a proposer; return it with the number of processes that suits it."""
    from ...proposals import load_proposer

    if cluster is None:
        workers = min(workers or usable_cores(), pictures)
    if method == "selective-search":
        return load_proposer(method, **settings), workers
    with needs_packages(f"--method {method}", "detect", "give --method selective-search"):
        from ...backbone.regions.placement import choose_device

        if cluster is not None:
            return load_proposer(method, **settings, **network | placement_on(network["device"], cluster)), workers
        # Processes would share a GPU badly; there one does the work.
        workers = 1 if choose_device(network["device"]) == "cuda" else workers
        return load_proposer(method, **settings, **network, threads=1 if workers != 1 else None), workers
