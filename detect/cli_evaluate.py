"""``inception-rcnn evaluate``: from files to a table, a JSON document, a report."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from ..data import (
    ILSVRC_DET_CLASSES,
    VOC_CLASSES,
    Detections,
    Picture,
    atomic_write,
    read_coco,
    read_coco_ids,
    read_detections,
    read_ilsvrc,
    read_ilsvrc_blacklist,
    read_ilsvrc_list,
    read_ilsvrc_results,
    read_meta_det,
    read_proposals,
    read_voc,
    read_voc_results,
)
from ..eval import EvaluationError, evaluate_coco, evaluate_ilsvrc, evaluate_proposals, evaluate_voc, write_report
from .terminal import CommandError, console

__all__ = ["evaluate"]

evaluate = typer.Typer(
    help="Measure detections or proposals against annotations.", no_args_is_help=True, rich_markup_mode=None
)
output = Console(highlight=False, markup=False)

Devkit = Annotated[Path, typer.Option(metavar="DIR", help="Folder with Annotations, ImageSets and JPEGImages.")]
Split = Annotated[str, typer.Option(metavar="NAME", help="Image set.")]
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the numbers there.")]
Report = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Also write a page with curves and errors, DIR/report.html.")
]


@evaluate.command()
def voc(
    devkit: Devkit,
    detections: Annotated[
        Path,
        typer.Option(metavar="FILE|DIR", help="detections.json, or a folder of comp4_det_<split>_<class>.txt."),
    ],
    split: Split = "test",
    metric: Annotated[str, typer.Option(metavar="voc07|voc12", help="11-point or area.")] = "voc07",
    json_file: JsonFile = None,
    report: Report = None,
) -> None:
    """Mean average precision by the rules of PASCAL VOC."""
    if metric not in ("voc07", "voc12"):
        raise EvaluationError(f"--metric {metric}: unknown; use voc07 (11-point) or voc12 (area)")
    pictures = read_voc(devkit, split)
    # A folder is either the output of `detect` or the kit's text files.
    text = detections.is_dir() and not (detections / "detections.json").is_file()
    found = read_voc_results(detections, prefix=f"comp4_det_{split}_") if text else read_detections(detections)
    result = evaluate_voc(pictures, found, metric=metric)  # type: ignore[arg-type]
    if not text:
        _tell_missing(pictures, found, VOC_CLASSES, detections)
    _show(result, f"{metric}, {len(pictures)} pictures", json_file)
    _report(report, pictures, found, VOC_CLASSES, metric)


@evaluate.command()
def ilsvrc(
    annotations: Annotated[
        Path, typer.Option(metavar="DIR|FILE", help="Folder of XML files, or a COCO-format JSON document.")
    ],
    detections: Annotated[
        Path, typer.Option(metavar="FILE", help="Lines 'image class score x1 y1 x2 y2', or detections.json.")
    ],
    images: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The kit's list of images and their numbers, such as val.txt.")
    ] = None,
    blacklist: Annotated[Path | None, typer.Option(metavar="FILE", help="The kit's list of image and class.")] = None,
    meta: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The kit's meta_det.mat, for other classes.")
    ] = None,
    pictures_folder: Annotated[
        Path | None, typer.Option("--pictures", metavar="DIR", help="Where the pictures lie, for the report.")
    ] = None,
    json_file: JsonFile = None,
    report: Report = None,
) -> None:
    """Mean average precision by the rules of the ILSVRC detection challenge."""
    classes = ILSVRC_DET_CLASSES if meta is None else read_meta_det(meta)
    names = tuple(classes.values())
    if annotations.suffix.lower() == ".json":
        if images is not None:
            raise CommandError("--images: a COCO-format document has the numbers of its images itself")
        pictures = read_coco(annotations, pictures_folder or annotations.parent, names, rename=None)
        ids = read_coco_ids(annotations)
        numbers = {picture.image_id: ids[picture.path.name] for picture in pictures}
    else:
        pictures = read_ilsvrc(annotations, images, classes, pictures_folder)
        numbers = read_ilsvrc_list(images or annotations)
    text = not detections.is_dir() and detections.suffix.lower() != ".json"
    found = read_ilsvrc_results(detections, numbers, classes) if text else read_detections(detections)
    avoided = set() if blacklist is None else read_ilsvrc_blacklist(blacklist, numbers, classes)
    result = evaluate_ilsvrc(pictures, found, names, avoided)
    if not text:
        _tell_missing(pictures, found, names, detections)
    _show(result, f"ILSVRC, {len(pictures)} pictures", json_file)
    _report(report, pictures, found, names, "ilsvrc", avoided)


@evaluate.command()
def coco(
    annotations: Annotated[Path, typer.Option(metavar="FILE", help="COCO annotations.")],
    detections: Annotated[Path, typer.Option(metavar="FILE", help="A COCO result list, or detections.json.")],
    json_file: JsonFile = None,
) -> None:
    """COCO's twelve numbers less three, and the average precision of every class, by pycocotools."""
    result = evaluate_coco(annotations, detections)
    summary = Table("", "", title="COCO", show_header=False)
    summary.columns[1].justify = "right"
    for name, value in result.items():
        if name != "per_class":
            summary.add_row(name.replace("_", " "), _number(value))
    output.print(summary)
    _show({"mAP": result["AP"], "per_class": result["per_class"]}, "IoU 0.5 to 0.95", None)
    _write_json(json_file, result | {"mAP": result["AP"]})


@evaluate.command()
def proposals(
    devkit: Devkit,
    proposals: Annotated[Path, typer.Option(metavar="FILE", help="What `inception-rcnn propose` wrote.")],
    split: Split = "test",
    json_file: JsonFile = None,
) -> None:
    """Recall, average recall and mean average best overlap of ranked boxes."""
    pictures = read_voc(devkit, split)
    boxes = ((Path(one.file).stem, one.boxes) for one in read_proposals(proposals))
    result = evaluate_proposals(pictures, boxes, classes=VOC_CLASSES)
    table = Table("boxes", "recall at IoU 0.5", "average recall", "MABO", title=f"{len(pictures)} pictures")
    for limit in result["recall_at"]:
        row = (result[key][limit] for key in ("recall_at", "ar_at", "mabo_at"))
        table.add_row(f"first {limit}", *map(_number, row))
    everything = (result["recall"]["0.5"], _mean(result["recall_curve"].values()), result["mabo"])
    table.add_row(f"all ({result['boxes_per_image']:.0f} a picture)", *map(_number, everything))
    for column in table.columns[1:]:
        column.justify = "right"
    output.print(table)
    curve = Table("IoU", *result["recall_curve"], title="recall of all boxes")
    curve.add_row("recall", *(f"{value:.3f}" for value in result["recall_curve"].values()))
    output.print(curve)
    _write_json(json_file, result)


def _mean(values: Collection[float]) -> float:
    return sum(values) / len(values)


def _number(value: float) -> str:
    return "–" if value != value else f"{value:.4f}"


def _tell_missing(
    pictures: Sequence[Picture], found: Mapping[str, Detections], classes: Sequence[str], path: Path
) -> None:
    """Say what is right by the rules, but seldom meant."""
    known = {name for one in found.values() for name in one.classes}
    if known and known.isdisjoint(classes):
        raise EvaluationError(
            f"{path}: none of its classes is evaluated here; it has {', '.join(sorted(known)[:5])} ..."
        )
    missing = sum(picture.image_id not in found for picture in pictures)
    if missing:
        console.print(f"{missing} of {len(pictures)} pictures are not in {path}: their objects count as missed")


def _show(result: Mapping[str, Any], title: str, json_file: Path | None) -> None:
    table = Table("class", "AP", title=title)
    table.columns[1].justify = "right"
    for name, precision in result["per_class"].items():
        table.add_row(name, "–" if precision != precision else f"{precision:.3f}")
    table.add_section()
    table.add_row("mean", _number(result["mAP"]))
    output.print(table)
    _write_json(json_file, result)


def _write_json(path: Path | None, result: Mapping[str, Any]) -> None:
    if path is not None:
        atomic_write(path, json.dumps(_plain(result), indent=2) + "\n")


def _plain(value: Any) -> Any:
    """Replace nan, which JSON does not have, by null."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return None if value != value else value


def _report(
    folder: Path | None,
    pictures: Sequence[Picture],
    found: Mapping[str, Detections],
    classes: Sequence[str],
    metric: str,
    blacklist: Collection[tuple[str, str]] = (),
) -> None:
    if folder is not None:
        rules: Literal["voc07", "voc12", "ilsvrc"] = metric  # type: ignore[assignment]
        page = write_report(folder, pictures, found, classes, metric=rules, blacklist=blacklist)
        console.print(f"report -> {page}")
