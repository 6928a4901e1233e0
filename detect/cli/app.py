"""The command ``inception-rcnn``: one function per subcommand, each a thin door to a room."""

from __future__ import annotations

import contextlib
import signal
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image

from ...data import (
    VOC_CLASSES,
    AnnotationError,
    DetectionError,
    ImageError,
    ProposalFileError,
    atomic_write,
    find_images,
    read_coco_ids,
    read_detection_entries,
    write_detections,
)
from ...data.errors import CommandError, JournalError
from ...data.system.processes import usable_cores
from ...eval import EvaluationError, merge_detections
from .classify import classify, evaluate_imagenet
from .evaluate import evaluate
from .terminal import console, progress_bar
from .train import train

app = typer.Typer(
    help="R-CNN style object detection with selective search and GoogLeNet.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
evaluate.command("imagenet")(evaluate_imagenet)
app.add_typer(evaluate, name="evaluate")
app.add_typer(train, name="train")


Images = Annotated[
    list[str],
    typer.Argument(metavar="IMAGES...", help="Files, folders (searched recursively), globs, @list.txt."),
]
Method = Annotated[str, typer.Option(metavar="merged|selective-search|multibox", help="Where the regions come from.")]
MultiBoxName = Annotated[str, typer.Option(metavar="NAME|FILE", help="A MultiBox.")]


@app.command()
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
    try:
        from ..detector import Detector
        from ..runs.detection import detect_batch
    except ImportError as error:
        raise CommandError(
            f"detection needs {error.name}; in a clone of the project: pip install '.[detect]'"
        ) from None

    # An earlier run's drawn pictures, where the results lie inside the folder of pictures, are no input.
    results = output.absolute() / "pictures"
    paths = [path for path in find_images(images) if not path.absolute().is_relative_to(results)]
    if not paths:
        raise ImageError(f"{' '.join(images)}: no pictures there; name files, folders or globs of pictures")
    names, scales = model or ["voc"], tuple(scale or (1.0,))
    try:
        detector = Detector.load(
            *names, scoring=scoring, scales=scales, device=device, method=method, multibox=multibox,
            precision=precision, proposals=proposals, first_pass=first_pass, min_score=min_score, nms=nms,
        )  # fmt: skip
    except ValueError as error:
        raise CommandError(str(error)) from None
    if workers is None:
        workers = 1 if detector.scorers[0].device == "cpu" else usable_cores()
    try:
        (output / "pictures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"{output}: cannot be the output folder ({error.strerror}); name another") from None
    settings: dict[str, Any] = {
        "images": images, "model": names, "scoring": scoring, "scales": scales, "proposals": detector.proposer.limit,
        "first_pass": detector.first_pass, "method": method, "multibox": multibox, "device": device,
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


@app.command()
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
    from ..runs.proposing import propose_batch

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
    if method != "selective-search":
        settings |= {"multibox": multibox, "trunk": model or "voc", "device": device}
    try:
        if method != "selective-search":
            from ...backbone.regions.placement import choose_device

            # Processes would share a GPU badly; there one does the work.
            workers = 1 if choose_device(device) == "cuda" else workers
            settings["threads"] = 1 if workers > 1 else None
        proposer = load_proposer(method, **settings)
    except ImportError as error:
        raise CommandError(
            f"--method {method} needs {error.name}; in a clone of the project: pip install '.[detect]', or give "
            "--method selective-search"
        ) from None
    except ValueError as error:
        raise CommandError(str(error)) from None
    image_ids = None
    if annotations is not None:
        ids = read_coco_ids(annotations)
        names = relative_names(paths)
        image_ids = {name: ids[Path(name).name] for name in names if Path(name).name in ids}
        if unknown := [name for name in names if name not in image_ids]:
            raise CommandError(f"{annotations}: has no image called {unknown[0]!r} ({len(unknown)} such in all)")
    try:
        with progress_bar("propose", len(paths)) as report:
            summary = propose_batch(
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


@app.command()
def ensemble(
    members: Annotated[list[Path], typer.Argument(metavar="FILES...", help="Each model's detections.json.")],
    output: Annotated[Path, typer.Option(metavar="FILE", help="The merged detections, .json.")],
    method: Annotated[str, typer.Option(metavar="wbf|nms|soft-nms", help="Fuse boxes or suppress them.")] = "wbf",
    iou: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Overlap above which boxes are one object.  [default: wbf 0.55, nms 0.3, soft-nms Gaussian]",
            show_default=False,
        ),
    ] = None,
    weight: Annotated[
        list[float] | None, typer.Option(metavar="W", help="A member's weight; repeat, in their order.")
    ] = None,
) -> None:
    """Merge what several models found in the same pictures."""
    if method not in ("wbf", "nms", "soft-nms"):
        raise CommandError(f"--method {method}: unknown; use wbf, nms or soft-nms")
    if weight and (len(weight) != len(members) or not all(0 < one < float("inf") for one in weight)):
        raise CommandError(f"--weight: give {len(members)} numbers above 0, one for each member in their order")
    documents = [read_detection_entries(path) for path in members]
    sizes = {name: (width, height) for entries in documents for name, width, height, _ in entries}
    detections = [{name: found for name, _, _, found in entries} for entries in documents]
    try:
        merged = merge_detections(detections, method, iou=iou, weights=weight)  # type: ignore[arg-type]
    except EvaluationError as error:
        raise CommandError(f"{', '.join(map(str, members))}: {error}") from None
    partly = sum(not all(name in one for one in detections) for name in merged)
    if partly:
        console.print(
            f"{partly} of {len(merged)} pictures are not in every file: there, some models count as finding nothing"
        )
    classes = next((found.classes for found in merged.values()), VOC_CLASSES)
    write_detections(output, ((name, *sizes[name], found) for name, found in merged.items()), classes)
    before = sum(len(found) for entries in documents for _, _, _, found in entries)
    console.print(
        f"{before} detections of {len(members)} models in {len(merged)} pictures, merged into "
        f"{sum(map(len, merged.values()))} -> {output}"
    )


app.command()(classify)


@app.command()
def export(
    output: Annotated[Path, typer.Option(metavar="FILE", help="Ends in .onnx.")],
    model: Annotated[str, typer.Option(metavar="NAME|FILE", help="A detector.")] = "voc",
) -> None:
    """Write a detector as one ONNX model that other programs can run: picture and boxes in, probabilities out."""
    if output.suffix.lower() != ".onnx" or not output.parent.is_dir():
        raise CommandError(f"--output {output}: name a file that ends in .onnx, in a folder that exists")
    try:
        from ...backbone.export.graphs import export_whole
        from ...backbone.weights.model_file import read_model
        from ...backbone.weights.published import find_model
    except ImportError as error:
        raise CommandError(f"export needs {error.name}; in a clone of the project: pip install '.[train]'") from None
    atomic_write(output, export_whole(read_model(find_model(model))))
    console.print(f"wrote {output}")


# What a user can get wrong; anything else is a bug and shows its traceback.
def _user_errors() -> list[type[Exception]]:
    errors: list[type[Exception]] = [
        ImageError,
        AnnotationError,
        DetectionError,
        ProposalFileError,
        JournalError,
        EvaluationError,
    ]
    errors += [CommandError, OSError]
    with contextlib.suppress(ImportError):  # Without the packages that detection needs nobody raised these.
        from ...data.errors import DeviceError, ModelError

        errors += [DeviceError, ModelError]
    return errors


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a user's mistake ends in one line and exit status 2."""
    with contextlib.suppress(ValueError):  # What a cluster or a container sends before it kills is Ctrl-C to us.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `read_image` has its own limit.
    try:
        app(arguments, standalone_mode=True)
    except Exception as error:
        if not isinstance(error, tuple(_user_errors())):
            raise
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        console.print(f"inception-rcnn: {text}", style="red")
        sys.exit(2)


if __name__ == "__main__":
    main()
