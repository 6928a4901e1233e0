"""``inception-rcnn compare``: two files of detections of the same pictures to differences, intervals and p-values."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ...data import Picture, read_ilsvrc_blacklist, read_ilsvrc_results
from ...data.arguments import check_choice
from ...data.classes.reading import read_class_list
from ...data.errors import CommandError, EvaluationError
from ...eval import compare_detectors, write_report
from ...eval.compare import RULE_NAMES, RULES, Rules, describe_comparison, describe_test
from ...eval.matching import class_names
from ...eval.report.decisions import Comparison
from ..runs.names import package_version
from .evaluate import (
    Found,
    Ids,
    JsonFile,
    Report,
    Split,
    check_classes,
    check_outputs,
    format_interval,
    is_ilsvrc_list,
    is_json,
    make_table,
    print_missing,
    read_coco_files,
    read_ilsvrc_pictures,
    read_names_by_id,
    read_picture_detections,
    read_voc_detections,
    read_voc_pictures,
    write_json,
)
from .options import DEFAULT_MAX_PIXELS, MaxPixels
from .terminal import console, output

_SHOWN_PICTURES = 10
_OBJECTS = (
    ("objects found by both", "both"),
    ("objects found by A only", "first"),
    ("objects found by B only", "second"),
    ("objects found by neither", "neither"),
)
_LABELS = (("A", "first"), ("B", "second"))


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="Detections, in any file that `evaluate` reads.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Detections of the same pictures.")],
    devkit: Annotated[
        Path | None, typer.Option(metavar="DIR", help="VOC's kit, or any layout of docs/training.md.")
    ] = None,
    split: Split = None,
    annotations: Annotated[
        Path | None, typer.Option(metavar="FILE|DIR", help="Instead of --devkit: COCO's JSON, or ILSVRC's XML files.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="FILE", help="ILSVRC's list of images, such as val.txt.")
    ] = None,
    blacklist: Annotated[Path | None, typer.Option(metavar="FILE", help="ILSVRC's list of image and class.")] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="voc07|voc12|ilsvrc|coco",
            help="The rules.  [default: voc07, coco or ilsvrc, as the annotations]",
            show_default=False,
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(metavar="voc|coco|ilsvrc|FILE", help="As for `evaluate` by these rules.", show_default=False),
    ] = None,
    ids: Ids = None,
    bootstrap: Annotated[int, typer.Option(min=100, metavar="N", help="Draws of the pictures, for intervals.")] = 1000,
    json_file: JsonFile = None,
    report: Report = None,
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
) -> None:
    """Tell whether one of two detectors is better, by how much, and where they differ."""
    check_outputs(json_file, report)
    if (devkit is None) == (annotations is None):
        raise CommandError("compare: name the annotations, by --devkit or by --annotations")
    given = "voc07" if devkit is not None else "coco" if is_json(annotations) else "ilsvrc"
    rules: Rules = check_choice("--metric", metric or given, RULES)
    if rules != "ilsvrc" and not (images is None and blacklist is None):
        raise CommandError("--images and --blacklist: are for the rules of ILSVRC, --metric ilsvrc")
    if rules == "coco" and report is not None:
        raise CommandError("--report: pages are by the rules of VOC and ILSVRC; name those by --metric")
    avoided: Collection[tuple[str, str]] = ()
    names: Sequence[str]
    if devkit is not None:
        pictures, names, split = read_voc_pictures(devkit, split, classes)
        found = [read_voc_detections(path, split, names, pictures, ids) for path in (first, second)]
    elif rules == "ilsvrc":
        pictures, names, found, avoided = _read_ilsvrc(annotations, images, blacklist, classes, ids, (first, second))
    else:
        assert annotations is not None
        chosen = None if classes is None else read_class_list(classes)
        pictures, names, found = read_coco_files(annotations, chosen, ids, (first, second))
    for path, (one, known, text) in zip((first, second), found, strict=True):
        check_classes(names, known, path)
        print_missing(pictures, None if text else one, names, known, path)
    if not pictures:
        raise EvaluationError(f"{devkit or annotations}: there are no pictures to evaluate on")
    result = compare_detectors(
        pictures, found[0][0], found[1][0], names, metric=rules, blacklist=avoided, bootstrap=bootstrap
    )
    if result["first"]["mAP"] != result["first"]["mAP"]:
        raise EvaluationError(f"{devkit or annotations}: no object of any of the classes that are evaluated")
    write_json(json_file, {"A": str(first), "B": str(second), "pictures_compared": len(pictures), **result})
    if report is not None and rules != "coco":
        page = write_report(
            report,
            pictures,
            found[1][0],
            names,
            metric=rules,
            blacklist=avoided,
            **_describe_page(first, second, devkit or annotations),
            comparison=Comparison(found[0][0], result),
            max_pixels=max_pixels,
        )
        console.print(f"report -> {page}")
    _print_comparison(result, first, second, len(pictures))


def _read_ilsvrc(
    annotations: Path | None,
    images: Path | None,
    blacklist: Path | None,
    classes: str | None,
    ids: Path | None,
    paths: Sequence[Path],
) -> tuple[list[Picture], tuple[str, ...], list[Found], Collection[tuple[str, str]]]:
    assert annotations is not None
    name_of = read_names_by_id(classes)
    numbered = blacklist is not None or any(map(is_ilsvrc_list, paths))
    pictures, numbers = read_ilsvrc_pictures(annotations, images, name_of, None, numbered)
    found: list[Found] = []
    for path in paths:
        text = is_ilsvrc_list(path)
        one = read_ilsvrc_results(path, numbers, name_of) if text else read_picture_detections(path, ids, pictures)
        found.append((one, class_names(one), text))
    avoided = set() if blacklist is None else read_ilsvrc_blacklist(blacklist, numbers, name_of)
    return pictures, tuple(name_of.values()), found, avoided


def _describe_page(first: Path, second: Path, truth: Path | None) -> dict[str, Any]:
    settings = {"A": str(first), "B": str(second), "Pictures of": str(truth), "Version": package_version()}
    return {"title": f"{_name(first)} against {_name(second)}", "settings": settings}


def _name(path: Path) -> str:
    """Name a detector by its file, or by the folder of a run."""
    return path.resolve().parent.name if path.stem == "detections" else path.resolve().stem


def _print_comparison(result: Mapping[str, Any], first: Path, second: Path, pictures: int) -> None:
    for (label, key), path in zip(_LABELS, (first, second), strict=True):
        own = result[key]
        extent = f"{own['total'] / pictures:.1f} boxes a picture, {own['most_per_picture']} at most"
        output.print(f"{label}: {path}: {extent}, scores from {_number(own['lowest_score'])}", soft_wrap=True)
    difference = result["difference"]
    table = make_table(
        "class", "A", "B", "B - A", "95 % interval", "p (Holm)",
        title=f"AP by the rules of {RULE_NAMES[result['metric']]}, {pictures} pictures",
    )  # fmt: skip
    for name, one in difference["per_class"].items():
        table.add_row(
            name,
            *(_number(result[key]["per_class"][name]) for key in ("first", "second")),
            _number(one["difference"], "+"),
            format_interval(one["interval"]),
            _number(one["p_value"]),
        )
    table.add_section()
    one = difference["mAP"]
    means = (_number(result[key]["mAP"]) for key in ("first", "second"))
    table.add_row(
        "mean", *means, _number(one["difference"], "+"), format_interval(one["interval"]), _number(one["p_value"])
    )
    output.print(table)

    before = ", ".join(f"{label} {_number(result[key]['errors']['mAP'])}" for label, key in _LABELS)
    errors = make_table(f"what errors cost in mAP (TIDE; COCO's AP at IoU 0.5, {before})", "A", "B")
    for name in result["first"]["errors"]["gains"]:
        errors.add_row(name, *(_number(result[key]["errors"]["gains"][name]) for key in ("first", "second")))
    output.print(errors)
    scores = ", ".join(f"{label} {_number(result[key]['threshold'])}" for label, key in _LABELS)
    output.print(
        f"At each detector's score of the best F1 on these pictures ({scores}); on others expect a little less:",
        soft_wrap=True,
    )
    objects = make_table("", "", show_header=False)
    for name, key in _OBJECTS:
        objects.add_row(name, str(result["objects"][key]))
    for name in ("precision", "recall", "f1"):
        values = ", ".join(f"{label} {_number(result[key][name])}" for label, key in _LABELS)
        objects.add_row("F1" if name == "f1" else name, values)
    for label, key in _LABELS:
        own = result[key]
        other = "B" if label == "A" else "A"
        objects.add_row(f"boxes of {label}", str(own["detections"]))
        objects.add_row("  on difficult objects, not counted", str(own["not_counted"]))
        objects.add_row(f"  with a box of {other} of the same class, IoU 0.5 or more", str(own["agreeing"]))
    output.print(objects)
    where = make_table(
        "picture",
        "better there",
        "points of B - A",
        title="The pictures with the largest effect on B - A",
    )
    for picture in result["pictures"][:_SHOWN_PICTURES]:
        better = "B" if picture["effect"] > 0 else "A"
        where.add_row(picture["image_id"], better, f"{100 * picture['effect']:+.2f}")
    if result["pictures"]:
        output.print(where)
    output.print(describe_test(result), soft_wrap=True)
    output.print(describe_comparison(result, pictures), soft_wrap=True)


def _number(value: float, sign: str = "") -> str:
    return "-" if value != value else f"{value:{sign}.3f}"
