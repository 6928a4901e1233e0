"""``inception-rcnn evaluate``: files of detections or proposals to tables, a JSON document, a report."""

import contextlib
import json
import os
import re
import sys
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from ...data import (
    COCO_TO_VOC,
    ILSVRC_DET_CLASSES,
    VOC_CLASSES,
    DetectionError,
    Detections,
    Picture,
    atomic_write,
    read_coco,
    read_coco_ids,
    read_coco_results,
    read_detection_entries,
    read_ilsvrc,
    read_ilsvrc_blacklist,
    read_ilsvrc_list,
    read_ilsvrc_results,
    read_meta_det,
    read_proposals,
    read_voc,
    read_voc_results,
)
from ...data.arguments import check_choice
from ...data.classes.reading import read_class_list
from ...data.classes.spelling import similar_classes, suggestion
from ...data.errors import CommandError, SettingError, first_names
from ...data.formats.by_suffix import detections_file
from ...data.formats.records import names_by_id, read_json
from ...data.formats.voc import read_voc_class_names, voc_result_files
from ...data.picture_names import match_picture_names, picture_name, without_folders, without_suffix
from ...data.proposals import names_of_ids
from ...data.system.remote import local_copy
from ...eval import (
    EvaluationError,
    Matches,
    confusion_matrix,
    evaluate_coco,
    evaluate_ilsvrc,
    evaluate_proposals,
    evaluate_thresholds,
    evaluate_voc,
    match_coco,
    match_ilsvrc,
    match_voc,
    write_report,
)
from ...eval.agreement import warn_of_sizes
from ...eval.matching import class_names
from ...eval.proposals import SIZES
from ...eval.thresholds import parse_target
from ..runs.names import package_version
from ..train.data import annotated_classes, read_folder, read_test, read_validation
from ..train.shards import is_packed
from .examples import examples
from .options import DEFAULT_MAX_PIXELS, MaxPixels, detections_copy
from .terminal import console, output

evaluate = typer.Typer(
    help="Measure detections or proposals against annotations.", epilog=examples("evaluate"), no_args_is_help=True,
    rich_markup_mode=None,
)  # fmt: skip
# Detections, the classes that they know, and whether their file lists no empty pictures.
Found = tuple[dict[str, Detections], Collection[str], bool]
_INTERVAL = ("95 % interval",)
_CONFUSIONS = 10  # shown

Devkit = Annotated[Path, typer.Option(metavar="DIR", help="VOC's kit, or any layout of docs/training.md.")]
Split = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Image set; of other layouts train, val, trainval or test.  [default: test, else val, else all]",
        show_default=False,
    ),
]
JsonFile = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Also write the results there; -: print them and nothing else."),
]
Ids = Annotated[
    Path | None, typer.Option(metavar="FILE", help="COCO annotations, if --detections is a COCO result list.")
]
OwnClasses = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="voc|coco|ilsvrc|FILE",
        help="Names, one a line.  [default: classes.txt there, voc, or the annotated]",
        show_default=False,
    ),
]
BootstrapDraws = Annotated[
    int | None,
    typer.Option("--bootstrap", min=100, metavar="N", help="Also 95 % intervals, of N draws of the pictures; 1000."),
]
At = Annotated[
    str | None,
    typer.Option(
        metavar="f1|precision=P|recall=R|score=S",
        help="Also the score to use, of the best F1 or for a precision or recall.",
    ),
]
Report = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Also write a page with curves and errors, DIR/report.html.")
]


@evaluate.command(epilog=examples("evaluate voc"))
def voc(
    devkit: Devkit,
    detections: Annotated[
        Path,
        typer.Option(
            parser=detections_copy,
            metavar="FILE|DIR",
            help="What detect wrote, or comp4_det_<split>_<class>.txt.",
        ),
    ],
    split: Split = None,
    metric: Annotated[str, typer.Option(metavar="voc07|voc12", help="11-point or area.")] = "voc07",
    classes: OwnClasses = None,
    ids: Ids = None,
    bootstrap: BootstrapDraws = None,
    at: At = None,
    json_file: JsonFile = None,
    report: Report = None,
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
) -> None:
    """Mean average precision by the rules of PASCAL VOC."""
    rules = check_choice("--metric", metric, ("voc07", "voc12"))
    check_outputs(json_file, report)
    check_target(at)
    pictures, names, split = read_voc_pictures(devkit, split, classes)
    found, known, text = read_voc_detections(detections, split, names, pictures, ids)
    check_classes(names, known, detections)
    with naming_file(detections):
        result = evaluate_voc(pictures, found, names, rules, bootstrap=bootstrap)
    check_result(result, f"{devkit}, {split}", pictures)
    print_missing(pictures, None if text else found, names, known, detections)
    if at is not None:
        _add_thresholds(result, match_voc(pictures, found, names), pictures, found, at, bootstrap)
    write_json(json_file, result)
    title = f"{devkit.resolve().name}, {split}"
    _write_report(report, title, detections, pictures, found, names, rules, result, max_pixels)
    _print_per_class(result, f"{metric}, {len(pictures)} pictures")
    _print_thresholds(result)


@evaluate.command(epilog=examples("evaluate ilsvrc"))
def ilsvrc(
    annotations: Annotated[
        Path, typer.Option(metavar="DIR|FILE", help="Folder of XML files, or a COCO-format JSON document.")
    ],
    detections: Annotated[
        Path,
        typer.Option(
            parser=detections_copy,
            metavar="FILE",
            help="What detect wrote, or ILSVRC's lines.",
        ),
    ],
    images: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The kit's list of images and their numbers, such as val.txt.")
    ] = None,
    blacklist: Annotated[Path | None, typer.Option(metavar="FILE", help="The kit's list of image and class.")] = None,
    meta: Annotated[Path | None, typer.Option(metavar="FILE", help="The kit's meta_det.mat: other classes.")] = None,
    classes: Annotated[
        str | None,
        typer.Option(metavar="ilsvrc|FILE", help="Instead of --meta: lines 'name' or 'n01234567 name'."),
    ] = None,
    pictures_folder: Annotated[
        Path | None, typer.Option("--pictures", metavar="DIR", help="Where the pictures lie, for the report.")
    ] = None,
    ids: Ids = None,
    bootstrap: BootstrapDraws = None,
    at: At = None,
    json_file: JsonFile = None,
    report: Report = None,
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
) -> None:
    """Mean average precision by the rules of the ILSVRC detection challenge."""
    check_outputs(json_file, report)
    check_target(at)
    if meta is not None and classes is not None:
        raise CommandError("--meta and --classes: give one of the two")
    name_of = read_names_by_id(classes) if meta is None else read_meta_det(meta)
    names = tuple(name_of.values())
    text = is_ilsvrc_list(detections)
    pictures, numbers = read_ilsvrc_pictures(
        annotations, images, name_of, pictures_folder, text or blacklist is not None
    )
    found = (
        read_ilsvrc_results(detections, numbers, name_of)
        if text
        else read_picture_detections(detections, ids, pictures)
    )
    avoided = set() if blacklist is None else read_ilsvrc_blacklist(blacklist, numbers, name_of)
    known = class_names(found)
    check_classes(names, known, detections)
    with naming_file(detections):
        result = evaluate_ilsvrc(pictures, found, names, avoided, bootstrap)
    check_result(result, f"{annotations}", pictures)
    print_missing(pictures, None if text else found, names, known, detections)
    if at is not None:
        _add_thresholds(result, match_ilsvrc(pictures, found, names, avoided), pictures, found, at, bootstrap)
    write_json(json_file, result)
    title = annotations.resolve().stem
    _write_report(report, title, detections, pictures, found, names, "ilsvrc", result, max_pixels, avoided)
    _print_per_class(result, f"ILSVRC, {len(pictures)} pictures")
    _print_thresholds(result)


@evaluate.command(epilog=examples("evaluate coco"))
def coco(
    annotations: Annotated[Path, typer.Option(metavar="FILE", help="COCO annotations.")],
    detections: Annotated[
        Path,
        typer.Option(
            parser=detections_copy, metavar="FILE|DIR", help="A COCO result list, detections.json or .parquet."
        ),
    ],
    known: Annotated[bool, typer.Option("--known", help="Only the categories that the detector knows.")] = False,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="voc|coco|FILE",
            help="Only these categories; names, one a line.  [default: all]",
            show_default=False,
        ),
    ] = None,
    bootstrap: BootstrapDraws = None,
    at: At = None,
    json_file: JsonFile = None,
) -> None:
    """Average precision and recall by the rules of COCO, counted by pycocotools."""
    check_outputs(json_file)
    check_target(at)
    names: Sequence[str] | None = None
    if known and classes is not None:
        raise CommandError("--known and --classes: give one of the two")
    if classes is not None:
        names = read_class_list(classes)
    elif known:
        with contextlib.suppress(DetectionError):  # A list of results, or a fault that evaluate_coco names.
            names = sorted(class_names({name: found for name, _, _, found in read_detection_entries(detections)}))
        if not names:
            raise CommandError(f"--known: {detections} does not say which classes its detector knows")
    result = evaluate_coco(annotations, detections, classes=names, bootstrap=bootstrap)
    if at is not None:
        pictures, evaluated, (found, *_) = read_coco_files(annotations, names, None, [detections])
        matches = {name: one[0] for name, one in match_coco(pictures, found[0], evaluated).items()}
        _add_thresholds(result, matches, pictures, found[0], at, bootstrap)
    write_json(json_file, result)
    intervals = result.get("intervals", {})
    summary = make_table("", "", *_INTERVAL[: bool(intervals)], title="COCO", show_header=bool(intervals))
    for name, value in result.items():
        if isinstance(value, float) and name != "mAP":
            cells = [format_interval(intervals.get(name))] if intervals else []
            summary.add_row(name.replace("_", " "), _format_metric(value), *cells)
    output.print(summary)
    _print_per_class(result, "IoU 0.5 to 0.95")
    _print_thresholds(result)


@evaluate.command(epilog=examples("evaluate proposals"))
def proposals(
    devkit: Devkit,
    proposals: Annotated[
        Path, typer.Option(parser=local_copy, metavar="FILE", help="What `inception-rcnn propose` wrote.")
    ],
    split: Split = None,
    classes: OwnClasses = None,
    bootstrap: BootstrapDraws = None,
    json_file: JsonFile = None,
) -> None:
    """Recall, average recall and mean average best overlap of ranked boxes."""
    check_outputs(json_file)
    pictures, names, _ = read_voc_pictures(devkit, split, classes)
    sizes: dict[str, tuple[int, int]] = {}
    # Other layouts than VOC's have folders in the names of pictures.
    meant = {without_folders(picture.image_id): picture.image_id for picture in pictures}
    meant |= names_of_ids(picture.image_id for picture in pictures)

    def boxes() -> Iterator[tuple[str, Any]]:
        for one in read_proposals(proposals):
            name = without_folders(picture_name(one.file))
            name = meant.get(name, name)
            sizes[name] = one.width, one.height
            yield name, one.boxes

    with naming_file(proposals):
        result = evaluate_proposals(pictures, boxes(), classes=names, bootstrap=bootstrap)
    warn_of_sizes(sizes, {picture.image_id: (picture.width, picture.height) for picture in pictures}, "the proposals")
    missing = sum(picture.image_id not in sizes for picture in pictures)
    if missing:
        console.print(f"{missing} of {len(pictures)} pictures are not in {proposals}: their objects count as missed")
    write_json(json_file, result)
    table = make_table("boxes", "recall at IoU 0.5", "average recall", "MABO", title=f"{len(pictures)} pictures")
    intervals = result.get("intervals")
    for limit in result["recall_at"]:
        keys = ("recall_at", "ar_at", "mabo_at")
        table.add_row(f"first {limit}", *(_format_metric(result[key][limit]) for key in keys))
        if intervals:
            table.add_row("", *(format_interval(intervals[key][limit]) for key in keys))
    curve = result["recall_curve"]
    everything = (result["recall"]["0.5"], sum(curve.values()) / len(curve), result["mabo"])
    table.add_row(f"all ({result['boxes_per_image']:.0f} a picture)", *map(_format_metric, everything))
    if intervals:
        row = (intervals["recall"]["0.5"], None, intervals["mabo"])
        table.add_row("", *map(format_interval, row))
    steps = make_table("IoU", "recall of all boxes")
    for step, value in curve.items():
        steps.add_row(step, _format_metric(value))
    by_size = make_table("boxes", *SIZES, title="COCO's average recall: a box counts for one object")
    for limit, own in result["coco_ar_at"].items():
        by_size.add_row(f"first {limit}", *(_format_metric(own[size]) for size in SIZES))
        if intervals:
            by_size.add_row("", *(format_interval(intervals["coco_ar_at"][limit][size]) for size in SIZES))
    for one in (table, steps, by_size):
        output.print(one)


@contextlib.contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Put the name of a file before the text of an error."""
    try:
        yield
    except EvaluationError as error:
        raise EvaluationError(f"{path}: {error}") from None


def check_outputs(json_file: Path | None, report: Path | None = None) -> None:
    """Refuse before the work what could not be written after it."""
    if json_file is not None and not json_file.parent.is_dir():
        raise CommandError(f"--json {json_file}: there is no such folder")
    if json_file is not None and json_file.is_dir():
        raise CommandError(f"--json {json_file}: is a folder; name a file")
    if report is not None and report.exists() and not report.is_dir():
        raise CommandError(f"--report {report}: is a file; name a folder")
    page = None if report is None else os.path.abspath(report / "report.html")
    if json_file is not None and os.path.abspath(json_file) == page:
        raise CommandError(f"--json {json_file}: is the page of --report; name another")


def read_voc_pictures(
    devkit: Path, split: str | None, classes: str | None
) -> tuple[list[Picture], tuple[str, ...], str]:
    """Read the pictures of a split and the classes to evaluate; return the split's name too.

    The classes are `classes`; else those of the set's ``classes.txt``; else VOC's, or the set's own if it has none of
    these. A set in another layout than VOC's has the splits of a training, ``train``, ``val`` (set aside) and
    ``trainval``, and maybe ``test``, which is the default; if there is none, its own ``val`` is, else all pictures.
    """
    own = devkit / "classes.txt"
    source = classes or (str(own) if own.is_file() else None)
    names = None if source is None else read_class_list(source)
    lists = devkit / "ImageSets" / "Main"
    sets_aside = split == "val" and not (lists / "val.txt").is_file() and (lists / "trainval.txt").is_file()
    # Also where a set is one folder below, which is a mistake that `read_voc` explains.
    if any(True for name in ("ImageSets", "*/ImageSets") for _ in devkit.glob(name)) and not sets_aside:
        split = split or "test"
        pictures, names = _read_voc_split(devkit, split) if names is None else (read_voc(devkit, split, names), names)
        return pictures, names, split
    if is_packed(devkit):
        raise CommandError(f"{devkit}: has packed pictures; name the folder that they were packed from")
    if names is None:
        names = read_voc_class_names(devkit, "trainval") if sets_aside else annotated_classes(devkit)
    if split in (None, "test") and (test := read_test(devkit, names)):
        if split is None:
            console.print(f"on the {_count(test)} of test in {devkit}")
        return test, names, "test"
    if split is None and (own_val := read_validation(devkit, names)):
        # The others are what a training learned from.
        console.print(f"on the {_count(own_val)} of val in {devkit}; --split trainval has all")
        return own_val, names, "val"
    training, aside = read_folder(devkit, names)
    parts = {"train": training, "val": aside, "trainval": [*training, *aside]}
    if split is None:
        console.print(f"on all {_count(parts['trainval'])} of {devkit}")
        return parts["trainval"], names, "all"
    pictures = parts[check_choice("--split", split, [*parts])]
    if not pictures:
        raise CommandError(
            f"{devkit}: of its {len(training) + len(aside)} pictures, none is in --split {split}; use --split trainval"
        )
    return pictures, names, split


def _count(pictures: Sequence[Picture]) -> str:
    return f"{len(pictures)} picture{'s' * (len(pictures) != 1)}"


def _read_voc_split(devkit: Path, split: str) -> tuple[list[Picture], tuple[str, ...]]:
    """Read the pictures of a split with VOC's classes, or the set's own if it has none of these."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        pictures = read_voc(devkit, split)
    if not any(len(picture.labels) for picture in pictures) and (own := read_voc_class_names(devkit, split)):
        console.print(f"none of VOC's classes is in {devkit}, {split}; its own are evaluated: {first_names(own, 10)}")
        return read_voc(devkit, split, own), own
    for one in told:
        warnings.warn(one.message, one.category, stacklevel=2)
    return pictures, VOC_CLASSES


def read_voc_detections(
    path: Path, split: str, names: tuple[str, ...], pictures: Sequence[Picture], ids: Path | None = None
) -> Found:
    """Read the detections of a VOC set, the classes that they know, and whether they are VOC's text files."""
    prefix = f"comp4_det_{split}_"
    texts = set(voc_result_files(path, prefix))
    if path.suffix.lower() == ".txt":
        raise CommandError(f"{path}: name the folder that has such a file for every class")
    ours = detections_file(path)
    if texts and ours.exists():
        raise CommandError(f"{path}: has {prefix}*.txt and {ours.name}; name that file, or move it")
    text = bool(texts) or (path.is_dir() and not ours.exists())
    if text:
        # Only those that have a file: the others are not known to the detector.
        found = read_voc_results(path, [name for name in names if name in texts] or names, prefix)
    else:
        found = read_picture_detections(path, ids, pictures)
        found = {name: replace(one, classes=rename_classes(one.classes, names)) for name, one in found.items()}
    return found, texts if text else class_names(found), text


def is_ilsvrc_list(path: Path) -> bool:
    """Tell a list of ILSVRC's lines from a document."""
    return not path.is_dir() and path.suffix.lower() not in (".json", ".parquet")


def read_ilsvrc_pictures(
    annotations: Path, images: Path | None, name_of: Mapping[str, str], folder: Path | None, numbered: bool
) -> tuple[list[Picture], dict[str, int]]:
    """Read the pictures of ILSVRC and their numbers; `numbered` says whether another file has these."""
    if annotations.suffix.lower() == ".json":
        if images is not None:
            raise CommandError("--images: a COCO-format document has the numbers of its images itself")
        pictures = read_coco(annotations, folder or annotations.parent, tuple(name_of.values()), rename=None)
        by_name = read_coco_ids(annotations)
        numbers = {picture.image_id: by_name.get(picture.path.name, -1) for picture in pictures}
    else:
        if images is None and numbered:
            raise CommandError("--images: name the kit's list, such as val.txt; it says which number is which image")
        pictures = read_ilsvrc(annotations, images, name_of, folder)
        numbers = read_ilsvrc_list(images or annotations)
    if all(isinstance(number, int) for number in numbers.values()):
        pictures.sort(key=lambda picture: numbers[picture.image_id])  # The kit's order of equal scores.
    return pictures, numbers


def is_json(path: Path | None) -> bool:
    """Tell a JSON document by its name."""
    return path is not None and path.suffix.lower() == ".json"


def read_coco_files(
    annotations: Path, classes: Sequence[str] | None, ids: Path | None, paths: Sequence[Path]
) -> tuple[list[Picture], tuple[str, ...], list[Found]]:
    """Read pictures of COCO, all their categories or the classes named, and the detections of each file."""
    if not is_json(annotations):
        raise CommandError(f"--annotations {annotations}: must be a JSON document for these rules")
    if classes is None:
        document = read_json(annotations, EvaluationError)
        names = tuple(names_by_id(document, "categories", str(annotations), EvaluationError).values())
    else:
        names = tuple(classes)
    pictures = read_coco(annotations, annotations.parent, names)
    found: list[Found] = []
    for path in paths:
        text = _is_result_list(path)
        one = read_picture_detections(path, (ids or annotations) if text else None, pictures)
        one = {name: replace(boxes, classes=rename_classes(boxes.classes, names)) for name, boxes in one.items()}
        found.append((one, class_names(one), text))
    return pictures, names, found


def _is_result_list(path: Path) -> bool:
    """Tell a COCO result list, which has ids only, from a document."""
    if not (is_json(path) and path.is_file()):
        return False
    with path.open("rb") as file:
        return file.read(100).lstrip()[:1] == b"["


def read_names_by_id(classes: str | None) -> dict[str, str]:
    """Return what annotations call the classes, to their names: WordNet ids, or where a file has none, the names."""
    if classes in (None, "ilsvrc"):
        return ILSVRC_DET_CLASSES
    lines = read_class_list(classes)
    parted = [line.split(" ", 1) if re.match(r"n\d{8} ", line) else (line, line) for line in lines]
    return {wnid: name for wnid, name in parted}


def rename_classes(classes: tuple[str, ...], evaluated: Collection[str]) -> tuple[str, ...]:
    """Rename classes from COCO's names to VOC's or back, where the other is evaluated and not there too."""
    pairs = [*COCO_TO_VOC.items(), *((voc, name) for name, voc in COCO_TO_VOC.items())]
    other = {name: one for name, one in pairs if one in evaluated and name not in evaluated}
    return tuple(other.get(name, name) if other.get(name) not in classes else name for name in classes)


def read_picture_detections(path: Path, ids: Path | None, pictures: Sequence[Picture]) -> dict[str, Detections]:
    """Read detections by the ids of the annotated pictures."""
    if ids is not None:
        return read_coco_results(path, ids)
    entries = read_detection_entries(path)
    named = [(file_name, without_suffix(file_name), one) for file_name, _, _, one in entries]
    meant = match_picture_names((name for _, name, _ in named), (picture.image_id for picture in pictures))
    found: dict[str, Detections] = {}
    for file_name, name, one in named:
        image_id, *others = meant[name] or [without_folders(name)]
        if others:
            raise EvaluationError(f"{path}: {file_name!r} may be {image_id!r} or {others[0]!r}; keep the folders")
        if image_id in found:
            raise EvaluationError(f"{path}: two of its pictures are {image_id!r} of the annotations")
        found[image_id] = one
    warn_of_sizes(
        {name: (width, height) for name, (_, width, height, _) in zip(found, entries, strict=True)},
        {picture.image_id: (picture.width, picture.height) for picture in pictures},
    )
    return found


def check_result(result: Mapping[str, Any], annotations: str, pictures: Sequence[Picture]) -> None:
    """Refuse a result that is of nothing."""
    if not pictures:
        raise EvaluationError(f"{annotations}: there are no pictures to evaluate on")
    if result["mAP"] != result["mAP"]:
        raise EvaluationError(
            f"{annotations}: {len(pictures)} pictures, and no object of any of the classes that are evaluated; "
            "do the annotations call them otherwise?"
        )


def check_classes(classes: Sequence[str], known: Collection[str], path: Path) -> None:
    """Refuse detections of other classes altogether; `known` is empty if the file does not tell its classes."""
    if known and not set(known) & set(classes):
        raise EvaluationError(
            f"{path}: none of its classes is evaluated here; it has {first_names(sorted(known), 10)}, and "
            f"evaluated are {first_names(classes, 10)}; name annotations of its classes, or other --classes"
        )


def print_missing(
    pictures: Sequence[Picture],
    found: Mapping[str, Detections] | None,
    classes: Sequence[str],
    known: Collection[str],
    path: Path,
) -> None:
    """Print which pictures and classes do not count; `found` is None for files that list no empty pictures."""
    missing = sum(picture.image_id not in found for picture in pictures) if found is not None else 0
    if missing:
        console.print(f"{missing} of {len(pictures)} pictures are not in {path}: their objects count as missed")
    other = sorted(set(known) - set(classes))
    if other:
        near = similar_classes(other, classes)
        names = ", ".join(name + suggestion(name, near) for name in other)
        console.print(f"{len(other)} classes in {path} are not evaluated: {names}")


def _format_metric(value: float) -> str:
    return "-" if value != value else f"{value:.4f}"


def make_table(*columns: str, title: str | None = None, show_header: bool = True) -> Table:
    """Make a table of numbers: all columns but the first are aligned to the right."""
    table = Table(*columns, title=title, show_header=show_header)
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def format_interval(interval: Sequence[float] | None, digits: int = 3) -> str:
    """Write an interval; a dash for none."""
    if interval is None or interval[0] != interval[0]:
        return "-"
    return f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}"


def _print_per_class(result: Mapping[str, Any], title: str) -> None:
    intervals = result.get("intervals")
    table = make_table("class", "AP", *_INTERVAL[: bool(intervals)], title=title)
    for name, precision in result["per_class"].items():
        cells = [format_interval(intervals["per_class"][name])] if intervals else []
        table.add_row(name, "-" if precision != precision else f"{precision:.3f}", *cells)
    table.add_section()
    table.add_row("mean", _format_metric(result["mAP"]), *([format_interval(intervals["mAP"])] if intervals else []))
    output.print(table)


def check_target(at: str | None) -> None:
    """Refuse before the work what thresholds cannot be chosen by."""
    try:
        parse_target(at or "f1")
    except SettingError as error:
        raise CommandError(f"--at: {error}") from None


def _add_thresholds(
    result: dict[str, Any],
    matches: Mapping[str, Matches],
    pictures: Sequence[Picture],
    found: Mapping[str, Detections],
    at: str,
    bootstrap: int | None,
) -> None:
    """Add thresholds to the results, and the confusion matrix from the one of all classes on."""
    result["thresholds"] = evaluate_thresholds(matches, at, bootstrap)
    score = result["thresholds"]["together"]["score"]
    if score == score:
        matrix = confusion_matrix(pictures, found, [*matches], min_score=score)
        result["confusion"] = {"classes": [*matches, "background"], "min_score": score, "matrix": matrix.tolist()}


def _print_thresholds(result: Mapping[str, Any]) -> None:
    """Print thresholds, and what objects are taken for, if they were asked for."""
    if "thresholds" not in result:
        return
    thresholds = result["thresholds"]
    columns = ("score", "precision", "recall", "f1")
    table = make_table("class", *columns[:3], "F1", title=f"Scores to use, at {thresholds['at']}")
    for name, one in [*thresholds["per_class"].items(), ("all together", thresholds["together"])]:
        if one is thresholds["together"]:
            table.add_section()
        table.add_row(name, *("-" if one[key] != one[key] else f"{one[key]:.3f}" for key in columns))
        if "intervals" in one:
            table.add_row("", *(format_interval(one["intervals"][key], 2) for key in columns))
    output.print(table)
    if "confusion" not in result:
        output.print("No score reaches that for all classes together.")
        return
    names, matrix = result["confusion"]["classes"], np.array(result["confusion"]["matrix"])
    title = f"Objects and detections with a score of at least {result['confusion']['min_score']:.3f}"
    table = make_table("class", "objects", "found", "taken for another", "missed", "on background", title=title)
    for i, name in enumerate(names[:-1]):
        counts = matrix[i].sum(), matrix[i, i], matrix[i, :-1].sum() - matrix[i, i], matrix[i, -1], matrix[-1, i]
        table.add_row(name, *map(str, counts))
    output.print(table)
    wrong = matrix[:-1, :-1] * ~np.eye(len(names) - 1, dtype=bool)
    table = make_table("object", "taken for", "times", title="Most frequent confusions")
    for place in np.argsort(-wrong, axis=None, kind="stable")[:_CONFUSIONS]:
        one, other = divmod(int(place), len(wrong))
        if wrong[one, other]:
            table.add_row(names[one], names[other], str(wrong[one, other]))
    if table.rows:
        output.print(table)


def write_json(path: Path | None, result: Any) -> None:
    """Write a result as JSON, if a file is named; "-" is standard output."""
    text = json.dumps(_nan_to_null(result), indent=2) + "\n"
    if str(path) == "-":
        sys.stdout.write(text)
    elif path is not None:
        atomic_write(path, text)


def _nan_to_null(value: Any) -> Any:
    """Replace nan, which JSON does not have, by null."""
    if isinstance(value, Mapping):
        return {key: _nan_to_null(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_nan_to_null(one) for one in value]
    return None if value != value else value


def _write_report(
    folder: Path | None,
    title: str,
    path: Path,
    pictures: Sequence[Picture],
    found: Mapping[str, Detections],
    classes: Sequence[str],
    metric: Any,
    result: Mapping[str, Any],
    max_pixels: int,
    blacklist: Collection[tuple[str, str]] = (),
) -> None:
    if folder is not None:
        page = write_report(
            folder,
            pictures,
            found,
            classes,
            metric=metric,
            blacklist=blacklist,
            title=title,
            settings={"Detections": str(path), "Version": package_version()},
            result=result,
            max_pixels=max_pixels,
        )
        console.print(f"report -> {page}")
