"""``inception-rcnn detect``: objects in pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ...data import ImageError, find_images
from ...data.errors import CommandError, needs_packages
from ...data.system.processes import usable_cores
from .options import Images, Method, MultiBoxName
from .terminal import console, progress_bar


def detect(
    images: Images,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the results.")],
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME|FILE", help="A model; repeat for an ensemble.  [default: voc]", show_default=False),
    ] = None,
    scoring: Annotated[
        str | None,
        typer.Option(
            metavar="shared|crops",
            help="Regions of one pass over the picture, or each region through the whole network: much slower.  "
            "[default: the model's]",
            show_default=False,
        ),
    ] = None,
    scale: Annotated[
        list[float] | None,
        typer.Option(
            metavar="S",
            help="Size of pictures, times the model's; repeat to average the scores of several.  [default: 1]",
            show_default=False,
        ),
    ] = None,
    proposals: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Regions looked at in each picture.  [default: 100, of selective search alone 1000]",
            show_default=False,
        ),
    ] = None,
    first_pass: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="If there are more, score only the N that look best at a first glance; 0: all.  [default: 200]",
            show_default=False,
        ),
    ] = None,
    method: Method = "merged",
    multibox: MultiBoxName = "voc",
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where the network runs.")] = "auto",
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="float32|float16|int8",
            help="What it computes in; on a CPU int8 scores regions in less than half the time.  "
            "[default: float16 on a GPU, float32 on a CPU]",
            show_default=False,
        ),
    ] = None,
    min_score: Annotated[float, typer.Option(min=0, max=1, metavar="S", help="Weaker ones are dropped.")] = 0.05,
    draw_score: Annotated[float, typer.Option(min=0, max=1, metavar="S", help="Weaker ones are not drawn.")] = 0.4,
    nms: Annotated[
        str,
        typer.Option(metavar="soft|greedy", help="Lower the scores of what overlaps a better one, or drop it."),
    ] = "soft",
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Threads that read pictures and propose.  [default: 1, with a GPU one a core]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Find objects in pictures; write detections.json, drawn pictures, errors.jsonl and run.json."""
    with needs_packages("detection", "detect"):
        from ..detector import Detector
        from ..runs.detection import detect_batch

    # An earlier run's drawn pictures, where the results lie inside the folder of pictures, are no input.
    results = output.absolute() / "pictures"
    paths = [path for path in find_images(images) if not path.absolute().is_relative_to(results)]
    if not paths:
        raise ImageError(f"{' '.join(images)}: no pictures there; name files, folders or globs of pictures")
    names, scales = model or ["voc"], tuple(scale or (1.0,))
    detector = Detector.load(
        *names, scoring=scoring, scales=scales, device=device, method=method, multibox=multibox,
        precision=precision, proposals=proposals, first_pass_regions=first_pass, min_score=min_score, nms=nms,
    )  # fmt: skip
    if workers is None:
        workers = 1 if detector.scorers[0].placement.device == "cpu" else usable_cores()
    try:
        (output / "pictures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"{output}: cannot be the output folder ({error.strerror}); name another") from None
    settings: dict[str, Any] = {
        "images": images, "model": names, "scoring": scoring, "scales": scales, "proposals": proposals,
        "first_pass": first_pass, "method": method, "multibox": multibox, "device": device,
        "precision": precision, "min_score": min_score, "draw_score": draw_score, "nms": nms, "workers": workers,
    }  # fmt: skip
    try:
        with progress_bar("detect", len(paths)) as report:
            summary = detect_batch(
                paths,
                output,
                detector,
                workers=workers,
                draw_score=draw_score,
                settings=settings,
                progress=report,
            )
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on from here")
        raise typer.Exit(130) from None
    resumed = f" ({summary.resumed} of them by an earlier, interrupted run)" if summary.resumed else ""
    console.print(f"{summary.pictures} pictures{resumed} in {summary.seconds['total']:.1f} s -> {output}")
    few = summary.pictures - summary.resumed < 10  # Nothing is ahead of the first ones.
    if summary.standing_still > 0.5 and workers < usable_cores() and not few:
        console.print(
            f"scoring waited {summary.standing_still:.0%} of its time for pictures: more --workers would be faster"
        )
    if summary.objects:
        counts = sorted(summary.objects.items(), key=lambda item: (-item[1], item[0]))
        console.print("found: " + ", ".join(f"{name} {count}" for name, count in counts))
    if summary.failed:
        console.print(f"{summary.failed} files could not be processed, see {output / 'errors.jsonl'}")
        if summary.passing:
            console.print(f"{summary.passing} of them may have been bad luck; the same command tries those again")
        if summary.passing or not summary.pictures:
            raise typer.Exit(1)
