"""``inception-rcnn propose``: ranked boxes that may hold an object."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ...data import ImageError, find_images, read_coco_ids
from ...data.errors import CommandError, needs_packages
from ...data.system.processes import usable_cores
from .options import Images, Method, MultiBoxName
from .terminal import console, progress_bar


def propose(
    images: Images,
    output: Annotated[Path, typer.Option(metavar="FILE", help="Ends in .parquet, .json, .mat, .pkl or .npz.")],
    method: Method = "merged",
    mode: Annotated[str, typer.Option(metavar="single|fast|quality", help="1, 8 or 80 hierarchies.")] = "fast",
    superpixel_scale: Annotated[
        float | None,
        typer.Option(metavar="S", help="2 gives half as many boxes.  [default: 2 if merged, 1]", show_default=False),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="The best N boxes of a picture.")] = None,
    multibox: MultiBoxName = "voc",
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="The detector on whose trunk a MultiBox of a file stands."),
    ] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where the network runs.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Of the random part of the ranking.")] = 0,
    annotations: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="COCO annotations whose image ids .json and .pkl shall have."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes.  [default: the cores]", show_default=False)
    ] = None,
) -> None:
    """Write ranked boxes that may hold an object, of many pictures, into one file."""
    from ...proposals import load_proposer
    from ..runs.names import relative_names
    from ..runs.proposing import propose_pictures

    if output.is_dir() or not output.parent.is_dir():
        raise CommandError(f"--output {output}: name a file in a folder that exists")
    if annotations is not None and output.suffix.lower() not in (".json", ".pkl"):
        raise CommandError(f"--annotations: only .json and .pkl have image ids, {output.name} has none")
    paths = find_images(images)
    if not paths:
        raise ImageError(f"{' '.join(images)}: no pictures there; name files, folders or globs of pictures")
    if model is not None and multibox == "voc":
        raise CommandError(f"--model {model}: the bundled MultiBox has its detector; name --multibox FILE too")
    workers = min(workers or usable_cores(), len(paths))
    settings: dict[str, Any] = {"mode": mode, "superpixel_scale": superpixel_scale, "limit": limit, "seed": seed}
    with needs_packages(f"--method {method}", "detect", "give --method selective-search"):
        if method != "selective-search":
            from ...backbone.regions.placement import choose_device

            # Processes would share a GPU badly; there one does the work.
            device = choose_device(device)
            workers = 1 if device == "cuda" else workers
            settings |= {"multibox": multibox, "detector": model or "voc", "device": device}
            settings |= {"threads": 1 if workers > 1 else None}
        proposer = load_proposer(method, **settings)
    image_ids = None
    if annotations is not None:
        ids = read_coco_ids(annotations)
        names = relative_names(paths)
        image_ids = {name: ids[Path(name).name] for name in names if Path(name).name in ids}
        if unknown := [name for name in names if name not in image_ids]:
            raise CommandError(f"{annotations}: has no image called {unknown[0]!r} ({len(unknown)} such in all)")
    try:
        with progress_bar("propose", len(paths)) as report:
            summary = propose_pictures(
                paths,
                output,
                proposer,
                workers=workers,
                image_ids=image_ids,
                progress=report,
            )
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on from here")
        raise typer.Exit(130) from None
    resumed = f" ({summary.resumed} of them by an earlier, interrupted run)" if summary.resumed else ""
    mean = f", {summary.boxes / summary.pictures:.0f} boxes each" if summary.pictures else ""
    console.print(f"{summary.pictures} pictures{resumed}{mean} in {summary.seconds:.1f} s -> {output}")
    if summary.failed:
        console.print(f"{summary.failed} files could not be processed, see {output.with_suffix('.errors.jsonl')}")
        if summary.passing:
            console.print(f"{summary.passing} of them may have been bad luck; the same command tries those again")
        if summary.passing or not summary.pictures:
            raise typer.Exit(1)
