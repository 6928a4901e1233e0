"""``inception-rcnn classify``, ``evaluate imagenet``: classes of whole pictures, and how often they are right."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from ...data import ImageError, read_image
from ...data.errors import CommandError, needs_packages
from ...data.formats.imagenet import read_class_labels
from ...data.images.reading import decode_image
from ...data.system.processes import prefetch
from ...eval import evaluate_classification
from ..runs.summary import more_frames_line
from .evaluate import BootstrapDraws, JsonFile, check_outputs, format_interval, write_json
from .options import DEFAULT_MAX_PIXELS, Column, Device, Images, ImagesIn, MaxPixels, Quiet, list_pictures, weight_names
from .terminal import console, download_bar, output, print_problem, progress_bar
from .termination import INTERRUPTED

if TYPE_CHECKING:
    from ...backbone.classifier import Classifier


Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME|FILE",
        autocompletion=weight_names,
        help="Weights; repeat to average.  [default: googlenet-bvlc]",
        show_default=False,
    ),
]


def classify(
    images: Images = None,
    images_in: ImagesIn = None,
    column: Column = None,
    model: Models = None,
    crops: Annotated[int, typer.Option(metavar="1|10|144", help="Crops of a picture to average over.")] = 1,
    top: Annotated[int, typer.Option(min=1, metavar="K", help="The K likeliest classes.")] = 5,
    json_file: JsonFile = None,
    device: Device = "auto",
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
    quiet: Quiet = False,
) -> None:
    """Print the likeliest classes of whole pictures, with probabilities."""
    paths, lines = list_pictures(images, images_in, column)
    check_outputs(json_file)
    classifier = _load_classifier(model or ["googlenet-bvlc"], [crops], device)
    results: list[dict[str, Any]] = []
    failed = more_frames = 0
    try:
        with ThreadPoolExecutor(1) as pool:
            for path, future in prefetch(pool, partial(decode_image, max_pixels=max_pixels), paths, limit=4):
                try:
                    image, repair, more = future.result()
                    probabilities = classifier(image)
                except ImageError as error:
                    print_problem(f"passed over: {error}")
                    results.append({"file": str(path), "error": str(error)})
                    failed += 1
                    continue
                if repair:
                    print_problem(f"warning: {repair}")
                more_frames += more
                best = np.argsort(-probabilities, kind="stable")[:top]
                likeliest = [(classifier.classes[label], float(probabilities[label])) for label in best]
                words = "  ".join(f"{name} {chance:.3f}" for name, chance in likeliest)
                output.print(f"{path}  {words}", soft_wrap=True)
                results.append({"file": str(path), "classes": [{"class": name, "score": p} for name, p in likeliest]})
    except BaseException as error:  # With many crops these results may have taken hours.
        if results:
            write_json(json_file, results)
        if not isinstance(error, KeyboardInterrupt):
            raise
        print_problem(f"interrupted after {len(results)} of {len(paths)} pictures")
        raise typer.Exit(INTERRUPTED) from None
    write_json(json_file, results)
    if more_frames:
        console.print(more_frames_line(more_frames))
    for line in lines:
        console.print(line)
    if failed == len(paths):
        raise typer.Exit(1)


def evaluate_imagenet(
    data: Annotated[Path, typer.Option(metavar="DIR", help="Has val/<class>/ or <class>/ with pictures.")],
    model: Models = None,
    crops: Annotated[
        list[int] | None,
        typer.Option(metavar="1|10|144", help="Crops of a picture; repeat for more rows.  [default: 1]"),
    ] = None,
    bootstrap: BootstrapDraws = None,
    json_file: JsonFile = None,
    device: Device = "auto",
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
) -> None:
    """Top-1 and top-5 error of classifications, by the number of crops and of models."""
    check_outputs(json_file)
    models, numbers = model or ["googlenet-bvlc"], list(dict.fromkeys(crops or [1]))
    members = [_load_classifier([name], numbers, device) for name in models]
    classes = members[0].classes
    if any(member.classes != classes for member in members):
        raise CommandError("the models have different classes; give models that have the same")
    from ...backbone.classifier import cut_crops

    labels = read_class_labels(data, classes)
    # Sums over the first so many models, for each number of crops.
    tables: dict[tuple[int, int], list[NDArray[np.float32]]] = {(n, m): [] for n in numbers for m in range(len(models))}
    known: list[int] = []
    unreadable, interrupted = 0, False
    try:
        with progress_bar("pictures", len(labels)) as report, ThreadPoolExecutor(1) as pool:
            read = partial(read_image, max_pixels=max_pixels)
            for done, (path, future) in enumerate(prefetch(pool, read, labels, limit=4)):
                report(done)
                try:
                    image = future.result()
                except ImageError as error:
                    print_problem(f"passed over: {error}")
                    unreadable += 1
                    continue
                for number in numbers:
                    cut, sums = cut_crops(image, number), np.zeros(len(classes), np.float32)
                    for m, member in enumerate(members):
                        sums = sums + member.score(cut)
                        tables[number, m].append(sums)
                known.append(labels[path])
            report(len(labels))
    except KeyboardInterrupt:  # With many crops these results may have taken hours.
        print_problem(f"interrupted after {len(known)} of {len(labels)} pictures")
        interrupted = True
    if not known:
        if interrupted:
            raise typer.Exit(INTERRUPTED)
        raise CommandError(f"{data}: none of {len(labels)} pictures can be read")
    rows = []
    title = f"{len(known)} of {len(labels)} pictures" if interrupted else f"{len(known)} pictures"
    table = Table("models", "crops", "top-1 error, %", "top-5 error, %", title=title)
    for column in table.columns:
        column.justify = "right"
    for (number, m), probabilities in tables.items():
        result = evaluate_classification(probabilities[: len(known)], known, classes, bootstrap=bootstrap)
        rows.append({"models": models[: m + 1], "crops": number, **result})
        table.add_row(str(m + 1), str(number), *(f"{100 * result[f'top_{k}_error']:.2f}" for k in (1, 5)))
        if bootstrap is not None:
            intervals = (100 * np.array(result["intervals"][f"top_{k}_error"]) for k in (1, 5))
            table.add_row("", "", *(format_interval(one.tolist(), 2) for one in intervals))
    write_json(json_file, {"pictures": len(known), "unreadable": unreadable, "interrupted": interrupted, "rows": rows})
    output.print(table)
    if interrupted:
        raise typer.Exit(INTERRUPTED)


def _load_classifier(models: Sequence[str], crops: Sequence[int], device: str) -> Classifier:
    """Load an ensemble that uses the first number of crops; refuse mistakes before anything is downloaded."""
    with needs_packages("classification", "train"):
        import torch  # noqa: F401 - to say at once what is missing

        from ...backbone.classifier import Classifier, check_crops
    for number in crops:
        check_crops(number)
    with download_bar(", ".join(models)) as report:
        return Classifier.load(*models, crops=crops[0], device=device, report=report)
