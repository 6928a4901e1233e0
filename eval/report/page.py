"""The report: one page with a detector's figures, curves, kinds of errors, and worst mistakes as pictures.

Everything is in the page, plotly.js and the pictures included, so that it can be opened, mailed and archived as it is.
"""

import errno
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...data import MAX_PIXELS, VOC_CLASSES, Detections, Picture, atomic_write
from ...data.arguments import check_choice
from ...data.errors import SettingError
from ..errors import (
    ERROR_TYPES,
    count_false_positives,
    false_positive_shares,
    false_positives,
    related_classes,
    size_sensitivity,
)
from ..matching import HIT, Matches, evaluated_classes, match_ilsvrc, match_voc
from ..precision import class_average_precision, mean_of_numbers
from ..reliability import best_f1, summarise_reliability
from .charts import (
    error_chart,
    gain_chart,
    precision_recall_chart,
    proposal_charts,
    reliability_charts,
    size_chart,
)
from .decisions import Comparison, comparison_charts, comparison_parts, decision_charts
from .mistakes import PICTURES_PER_CLASS, missed_objects, worst_mistakes
from .template import page_environment

_METRICS = {
    "voc07": ("PASCAL VOC 2007, 11-point", "0.5"),
    "voc12": ("PASCAL VOC 2010 and later, area", "0.5"),
    "ilsvrc": ("ILSVRC, area", "0.5, lower for small objects"),
}


class ClassRow(NamedTuple):
    """A line of the table: average precision, counts, objects found at any score, best F1 and the score of it."""

    name: str
    ap: float
    objects: int
    detections: int
    found: int
    recall: float
    f1: float
    score: float


def format_number(value: float, digits: int = 3) -> str:
    """Write a number as the page shows it; a dash for nan."""
    return "–" if np.isnan(value) else f"{value:.{digits}f}".replace("-", "−")


def write_report(
    folder: str | Path,
    pictures: Sequence[Picture],
    detections: Mapping[str, Detections],
    classes: Sequence[str] | None = None,
    *,
    metric: Literal["voc07", "voc12", "ilsvrc"] = "voc07",
    blacklist: Collection[tuple[str, str]] = (),
    similar: Sequence[Collection[str]] | None = None,
    proposals: Mapping[str, ArrayLike] | None = None,
    title: str = "Detection report",
    settings: Mapping[str, str] = {},
    result: Mapping[str, Any] | None = None,
    comparison: Comparison | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Path:
    """Write a page with the results of a detector: numbers, curves, an analysis of its errors, its worst mistakes.

    Parameters
    ----------
    folder : str or Path
        Where to write ``report.html``; made if missing.
    pictures : sequence of Picture
        The annotated pictures; their labels are indices into `classes`. Only the picture files of the mistakes shown
        are read; one that cannot be is shown as a grey card.
    detections : mapping of str to Detections
        By ``image_id``; a picture that is not in it has no detections. Matched with `classes` by name.
    classes : sequence of str, or None
        Names of the classes; None for those that the pictures were read with, or VOC's if they do not tell.
    metric : {"voc07", "voc12", "ilsvrc"}
        The rules: those of `evaluate_voc` with its two ways to summarise a class, or those of `evaluate_ilsvrc`.
    blacklist : collection of (str, str)
        Pairs of ``image_id`` and class that do not count, for "ilsvrc".
    similar : sequence of collections of str, optional
        Groups of similar classes; see `false_positives`.
    proposals : mapping of str to array_like of float32, shape (N, 4), optional
        By ``image_id``, best first, ``x1 y1 x2 y2`` in pixels: the boxes that the detections were chosen from.
    title : str
        The page's heading.
    settings : mapping of str to str
        What was evaluated, shown below the heading, such as ``{"Detections": "out/detections.json", "Set": "VOC2007,
        test"}``. The page has no date unless it is given here: the same input gives the same page.
    result : mapping, optional
        What `evaluate_voc` or `evaluate_ilsvrc` returned for the same: its ``"intervals"`` are shown. With
        ``"thresholds"``, what `evaluate_thresholds` returned, the score chosen there takes the place of the best F1's.
    comparison : Comparison or None
        Another detector that these detections are compared with.
    max_pixels : int
        See `inception_rcnn.data.read_image`; a larger picture is one that cannot be read.

    Returns
    -------
    Path
        The page: one file of 5 to 8 MB that needs no network and no other file.

    Raises
    ------
    EvaluationError
        If no picture of the detections or proposals is among `pictures`, two pictures have the same
        ``image_id``, or pictures were read with other classes than `classes`.
    SettingError
        If `metric` is unknown, a blacklist is given for another metric than "ilsvrc", or a group of similar classes
        names one that is not among `classes`.
    OSError
        If the page cannot be written; if `folder` is a file, before anything is computed.

    References
    ----------
    Hoiem et al., "Diagnosing Error in Object Detectors", ECCV 2012 (kinds of false positives, sizes of objects).
    Hosang et al., "What makes for effective detection proposals?", PAMI 2016 (recall against overlap and number).

    Examples
    --------
    >>> import tempfile
    >>> box, label, no = np.float32([[0, 0, 20, 10]]), np.array([7]), np.array([False])
    >>> picture = Picture("000001", Path("000001.jpg"), 20, 10, box, label, no, no)
    >>> found = Detections(box, np.float32([0.9]), label, VOC_CLASSES)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write_report(folder, [picture], {"000001": found})
    ...     page.name, "mAP" in page.read_text(encoding="utf-8")
    ('report.html', True)
    """
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    check_choice("metric", metric, [*_METRICS])
    if blacklist and metric != "ilsvrc":
        raise SettingError(f"a blacklist belongs to the metric 'ilsvrc', not to {metric!r}")
    classes = evaluated_classes(pictures, classes, VOC_CLASSES)
    folder = Path(folder)
    _check_folder(folder)
    compared = [] if comparison is None else [comparison.other]
    if metric == "ilsvrc":
        matches, *others = (match_ilsvrc(pictures, one, classes, blacklist) for one in (detections, *compared))
        pictures = _flag_blacklisted(pictures, classes, blacklist)
    else:
        matches, *others = (match_voc(pictures, one, classes) for one in (detections, *compared))
    area: Literal["voc07", "voc12"] = "voc07" if metric == "voc07" else "voc12"
    false = false_positives(pictures, detections, matches, similar)
    rows = [_class_row(name, one, area) for name, one in matches.items()]
    shares, counts = false_positive_shares(matches, false), count_false_positives(matches, false)
    grouped = related_classes(tuple(classes), similar).any()
    kinds = [kind for kind in ERROR_TYPES if grouped or kind != "similar"]
    sizes = size_sensitivity(pictures, matches)
    gallery = 12 if len(classes) <= 50 else 24
    by_overlap, by_number = proposal_charts(pictures, detections, matches, proposals)
    calibration = summarise_reliability(matches)
    intervals = (result or {}).get("intervals") or {"per_class": {}}
    chosen = (result or {}).get("thresholds")
    decisions, best_score = decision_charts(pictures, detections, matches, chosen)
    figures = {
        "curves": precision_recall_chart(matches),
        **reliability_charts(calibration),
        "overlap": by_overlap,
        "number": by_number,
        "kinds": error_chart(shares, counts, kinds),
        "gains": gain_chart(matches, false, [row.ap for row in rows], area, kinds),
        "sizes": size_chart(sizes),
        **decisions,
    }
    if comparison is not None:
        figures |= comparison_charts(comparison.result, others[0], figures["curves"])
    page = _template().render(
        title=title,
        plotly=Markup(get_plotlyjs()),
        figures=figures,
        rows=rows,
        facts=_headline_facts(rows, shares["mean"], sum(counts.values()), intervals.get("mAP")),
        intervals=intervals["per_class"],
        chosen=chosen,
        settings=settings,
        calibration=calibration,
        kinds=kinds,
        counts={
            "Metric": _METRICS[metric][0],
            "IoU": _METRICS[metric][1],
            "Pictures": f"{len(pictures):,}",
            "Classes": f"{len(rows):,}",
            "Objects": f"{sum(row.objects for row in rows):,}",
            "Difficult, not counted": f"{sum(int((p.difficult | p.crowd).sum()) for p in pictures):,}",
            "Detections": f"{sum(row.detections for row in rows):,}",
        },
        best_score=best_score,
        **comparison_parts(pictures, detections, comparison, max_pixels),
        per_class=PICTURES_PER_CLASS,
        worst=worst_mistakes(pictures, detections, matches, false, gallery, metric, max_pixels),
        missed=missed_objects(pictures, detections, matches, gallery, metric, max_pixels),
    )
    path = folder / "report.html"
    folder.mkdir(parents=True, exist_ok=True)
    # File names are bytes to the system: one that is not UTF-8 has no place in a page.
    atomic_write(path, page.encode("utf-8", "replace"))
    return path


def _template() -> Any:
    """Read the page's template."""
    environment = page_environment()
    environment.filters["number"] = format_number
    environment.filters["interval"] = _format_interval
    return environment.get_template("report.html")


def _format_interval(ends: Sequence[float] | None) -> str:
    """Write the ends of an interval; nothing for none."""
    return "" if ends is None or np.isnan(ends).any() else " to ".join(map(format_number, ends))


def _check_folder(folder: Path) -> None:
    """Refuse before the work a folder that could not be made after it."""
    there = next(one for one in (folder, *folder.parents) if os.path.lexists(one))
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "not a folder; name one for the report", str(there))


def _flag_blacklisted(
    pictures: Sequence[Picture], classes: Sequence[str], blacklist: Collection[tuple[str, str]]
) -> list[Picture]:
    """Flag as difficult the objects that do not count by ILSVRC's rules, the blacklisted, and no others."""
    label = {name: i for i, name in enumerate(classes)}
    avoided: dict[str, list[int]] = {}
    for image_id, name in blacklist:
        avoided.setdefault(image_id, []).append(label.get(name, -1))
    return [
        replace(
            picture,
            difficult=np.isin(picture.labels, avoided.get(picture.image_id, [])),
            crowd=np.zeros(len(picture.labels), bool),
        )
        for picture in pictures
    ]


def _class_row(name: str, matches: Matches, metric: Literal["voc07", "voc12"]) -> ClassRow:
    """Average precision, counts, and the best F1 of a class with the score that reaches it."""
    found, objects = int((matches.outcome == HIT).sum()), matches.positives
    recall = found / objects if objects else float("nan")
    ap = class_average_precision(matches, metric)
    return ClassRow(name, ap, objects, len(matches.outcome), found, recall, *best_f1(matches))


def _headline_facts(
    rows: Sequence[ClassRow],
    kinds: Mapping[str, float],
    counts: NDArray[np.int64] | int,
    interval: Sequence[float] | None,
) -> list[tuple[str, str, str]]:
    """Label, value and remark of each figure at the head of the page; `counts` are of all classes, by kind."""
    measured = sorted((row for row in rows if row.objects), key=lambda row: row.ap)
    mean = mean_of_numbers(row.ap for row in measured)
    found = sum(row.found for row in measured)
    of = f"mean over {len(measured)} classes" if len(measured) != 1 else "of one class"
    width = f"; 95 % interval {ends}" if (ends := _format_interval(interval)) else ""
    facts = [("mAP", format_number(mean), of + width)]
    if measured:
        objects = sum(row.objects for row in measured)
        facts.append(("Objects found", f"{found / objects:.0%}", f"{found:,} of {objects:,}, at any score"))
    # None is the best where all are alike, as without any detections.
    if measured and format_number(measured[0].ap) != format_number(measured[-1].ap):
        facts.append(("Best class", measured[-1].name, f"AP {measured[-1].ap:.3f}"))
        facts.append(("Weakest class", measured[0].name, f"AP {measured[0].ap:.3f}"))
    if not np.isnan(kinds[ERROR_TYPES[0]]):
        worst = max(kinds, key=lambda kind: kinds[kind])
        of_kind = np.asarray(counts)
        number, total = of_kind[ERROR_TYPES.index(worst)], of_kind.sum()
        remark = f"{kinds[worst]:.0%} of the top false positives ({number:,})"
        if len(measured) > 1:
            together = f"{number / total:.0%} of all classes' ({number:,})"
            remark = f"{kinds[worst]:.0%} of a class's top false positives on average, {together}"
        facts.append(("Most frequent error", worst, remark))
    return facts
