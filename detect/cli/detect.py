"""``inception-rcnn detect``: objects in pictures."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ...data import read_detections, write_coco_results
from ...data.arguments import check_choice
from ...data.errors import CommandError, needs_packages
from ...data.formats.coco import coco_ids
from ...data.picture_names import without_suffix
from ...data.system.processes import usable_cores
from ...data.system.remote import is_url, local_copy
from ..drawing import DRAW_SCORE
from ..runs.names import FORMATS, THUMBNAILS
from ..settings import DetectorSettings
from .options import (
    DEFAULT_MAX_PIXELS,
    Annotations,
    Cluster,
    Column,
    Crops,
    Device,
    Images,
    ImagesIn,
    MaxPixels,
    Method,
    NoDrawings,
    Only,
    Quiet,
    ResultList,
    SaveVoc,
    SaveYolo,
    check_result_list,
    derived_option,
    detector_names,
    list_pictures,
    multibox_names,
    placement_on,
)
from .terminal import show_run


def detect(
    output: Annotated[str, typer.Option(metavar="DIR", help="Folder for the results, or its URL.")],
    images: Images = None,
    images_in: ImagesIn = None,
    column: Column = None,
    model: Annotated[
        list[str] | None,
        derived_option("NAME|FILE", "A model; repeat for an ensemble.", "voc", autocompletion=detector_names),
    ] = None,
    scoring: Annotated[
        str | None,
        derived_option("shared|crops", "One pass over the picture, or one a region.", "the model's"),
    ] = None,
    scale: Annotated[
        list[float] | None,
        derived_option("S", "Size of pictures, times the model's; repeat to average.", "1"),
    ] = None,
    proposals: Annotated[
        int | None,
        derived_option(
            "N",
            "Proposals of a picture.",
            f"{DetectorSettings.proposals}; without MultiBox {DetectorSettings.search_proposals}",
            min=1,
        ),
    ] = None,
    first_pass: Annotated[
        int | None,
        derived_option(
            "N",
            "Of more, score the N best of a first pass; 0: all.",
            str(DetectorSettings.first_pass_regions),
            min=0,
        ),
    ] = None,
    second_look: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Correct the N best boxes and score them again."),
    ] = DetectorSettings.second_look,
    method: Method = "merged",
    multibox: Annotated[
        str | None,
        derived_option("NAME|FILE", "A MultiBox.", "of the model's name, voc, or any", autocompletion=multibox_names),
    ] = None,
    proposals_from: Annotated[
        Path | None,
        typer.Option(
            parser=local_copy,
            metavar="FILE",
            help="Score the regions of this file of proposals instead.",
        ),
    ] = None,
    device: Device = "auto",
    precision: Annotated[
        str | None,
        derived_option(
            "float32|float16|int8",
            "Numbers of the network.",
            "float16 on a GPU, int8 on a CPU with dot products of 8 bits, else float32",
        ),
    ] = None,
    min_score: Annotated[
        float, typer.Option(min=0, max=1, metavar="S", help="Weaker ones are dropped.")
    ] = DetectorSettings.min_score,
    draw_score: Annotated[
        float | None,
        derived_option(
            "S",
            "Weaker ones are not drawn.",
            f"that of the best F1, or {DRAW_SCORE}",
            min=0,
            max=1,
        ),
    ] = None,
    nms: Annotated[
        str,
        typer.Option(metavar="soft|greedy", help="Lower the scores of overlapping boxes, or drop them."),
    ] = DetectorSettings.nms,
    only: Only = None,
    format: Annotated[
        str, typer.Option(metavar="json|parquet|both", help="detections.json, detections.parquet or both.")
    ] = "both",
    annotations: Annotations = None,
    results: ResultList = None,
    crop: Crops = None,
    save_yolo: SaveYolo = None,
    save_voc: SaveVoc = None,
    no_drawings: NoDrawings = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Leave out report.html, the page of the run.")] = False,
    workers: Annotated[
        int | None,
        derived_option(
            "N",
            "Threads that read and search; on a cluster, workers.",
            "1; with a GPU one a core; on a cluster as many as fit",
            min=1,
        ),
    ] = None,
    cluster: Cluster = None,
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
    quiet: Quiet = False,
) -> None:
    """Find objects in pictures; write the detections, drawn pictures, a page, errors.jsonl and run.json."""
    with needs_packages("detection", "detect"):
        from ..detector import Detector
        from ..runs.cluster import connected
        from ..runs.detection import detect_batch
        from ..runs.labels import Exports
        from ..runs.names import relative_names

    place = output.rstrip("/") if is_url(output) else Path(output)
    check_result_list(results, annotations, place if isinstance(place, Path) else None)
    chosen = check_choice("--format", format, tuple(FORMATS))
    # The results may lie inside the folder of pictures: what an earlier run wrote is no input.
    earlier: list[str | Path] = [f"{place}/pictures", f"{place}/{THUMBNAILS}", *([] if crop is None else [crop])]
    paths, lines = list_pictures(images, images_in, column, *earlier)
    names, scales = model or ["voc"], tuple(scale or (1.0,))
    if proposals_from is not None and method != "merged":
        raise CommandError(
            f"--method {method}: --proposals-from {proposals_from} is used instead of a method; name one"
        )
    load = partial(
        Detector.load, *names, scoring=scoring, scales=scales, method=method, multibox=multibox,
        proposals_from=proposals_from, precision=precision, proposals=proposals, first_pass_regions=first_pass,
        second_look=second_look, min_score=min_score, nms=nms, only=only or (),
    )  # fmt: skip
    with connected(cluster, workers) if cluster else nullcontext():
        detector = load(**placement_on(device, cluster))
        ids = None
        if annotations is not None:
            names_in_run = relative_names(paths)
            ids = coco_ids(annotations, names_in_run, detector.classes)
            if results is not None:
                coco_ids(annotations, [without_suffix(name) for name in names_in_run], suffixes=False)
        if workers is None and cluster is None:
            workers = 1 if detector.scorers[0].placement.device == "cpu" else usable_cores()
        if isinstance(place, Path):
            try:
                place.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise CommandError(f"{output}: cannot be the output folder ({error.strerror}); name another") from None
        settings: dict[str, object] = {
            "images": images, "images_in": images_in, "column": column, "model": names, "scoring": scoring,
            "scales": scales, "proposals": proposals,
            "first_pass": first_pass, "second_look": second_look, "method": method, "multibox": multibox,
            "proposals_from": proposals_from,
            "device": device, "precision": precision, "min_score": min_score, "draw_score": draw_score, "nms": nms,
            "only": only,
            "workers": workers, "cluster": cluster, "max_pixels": max_pixels, "annotations": annotations,
            "format": format,
        }  # fmt: skip
        run = partial(
            detect_batch, paths, place, detector, workers=workers, cluster=cluster, max_pixels=max_pixels,
            draw_score=draw_score, format=chosen, settings=settings, coco_ids=ids, drawings=not no_drawings,
            report=not no_report, exports=Exports(crops=crop, yolo=save_yolo, voc=save_voc),
        )  # fmt: skip
        idle_cores = workers is not None and cluster is None and workers < usable_cores()
        show_run(run, "detect", len(paths), place, f"{place}/errors.jsonl", lines=lines, idle_cores=idle_cores)
        if results is not None and annotations is not None:
            write_coco_results(results, read_detections(place, "image_id"), annotations)
