"""``inception-rcnn ensemble``: the detections of several models, merged."""

from pathlib import Path
from typing import Annotated

import typer

from ...data import VOC_CLASSES, read_detection_entries, write_coco_results, write_detections
from ...data.arguments import check_choice
from ...data.errors import CommandError
from ...data.formats.coco import coco_ids
from ...data.picture_names import without_suffix
from ...eval import EvaluationError, merge_detections
from ...eval.agreement import warn_of_sizes
from .options import Annotations, ResultList, check_result_list, derived_option, detections_copy
from .terminal import console


def ensemble(
    members: Annotated[
        list[Path],
        typer.Argument(
            parser=detections_copy,
            metavar="FILES...",
            help="Each model's detections; paths or URLs.",
        ),
    ],
    output: Annotated[Path, typer.Option(metavar="FILE", help="The merged detections, .json or .parquet.")],
    method: Annotated[str, typer.Option(metavar="wbf|nms|soft-nms", help="Fuse boxes or suppress them.")] = "wbf",
    iou: Annotated[
        float | None,
        derived_option("IOU", "Overlap of boxes of one object.", "wbf 0.55, nms 0.3, soft-nms Gaussian", min=0, max=1),
    ] = None,
    weight: Annotated[
        list[float] | None, typer.Option(metavar="W", help="A member's weight; repeat, in their order.")
    ] = None,
    annotations: Annotations = None,
    results: ResultList = None,
) -> None:
    """Merge the detections of several models in the same pictures."""
    check_result_list(results, annotations)
    chosen = check_choice("--method", method, ("wbf", "nms", "soft-nms"))
    if weight and (len(weight) != len(members) or not all(0 < one < float("inf") for one in weight)):
        raise CommandError(f"--weight: give {len(members)} numbers above 0, one for each member in their order")
    documents = [read_detection_entries(path) for path in members]
    sizes: dict[str, tuple[int, int]] = {}
    for path, entries in zip(members, documents, strict=True):
        own = {name: (width, height) for name, width, height, _ in entries}
        warn_of_sizes(own, sizes, str(path), "the files before")
        sizes = own | sizes
    detections = [{name: found for name, _, _, found in entries} for entries in documents]
    try:
        merged = merge_detections(detections, chosen, iou_threshold=iou, weights=weight)
    except EvaluationError as error:
        raise CommandError(f"{', '.join(map(str, members))}: {error}") from None
    incomplete = sum(not all(name in one for one in detections) for name in merged)
    if incomplete:
        console.print(
            f"{incomplete} of {len(merged)} pictures are not in every file: a model without one counts as finding "
            "nothing there"
        )
    classes = next((found.classes for found in merged.values()), VOC_CLASSES)
    ids = (None, None) if annotations is None else coco_ids(annotations, list(merged), classes)
    write_detections(output, ((name, *sizes[name], found) for name, found in merged.items()), classes, *ids)
    if results is not None and annotations is not None:
        write_coco_results(results, {without_suffix(name): found for name, found in merged.items()}, annotations)
    before = sum(len(found) for entries in documents for _, _, _, found in entries)
    console.print(
        f"{before} detections of {len(members)} models in {len(merged)} pictures, merged into "
        f"{sum(map(len, merged.values()))} -> {output}"
    )
