"""One page that shows where a detector stands: curves, kinds of errors, and the worst mistakes as pictures.

Everything is in the page, plotly.js and the pictures included, so that it can be opened, mailed and archived as it is.
"""

from __future__ import annotations

import base64
import errno
import html
import io
import os
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from ...data import VOC_CLASSES, Detections, ImageError, Picture, atomic_write, box_iou, read_image
from ..errors import (
    ERROR_TYPES,
    SIZES,
    FalsePositives,
    false_positive_shares,
    false_positives,
    related_classes,
    size_sensitivity,
)
from ..matching import HIT, IGNORED, Matches, match_ilsvrc, match_voc
from ..proposals import evaluate_proposals
from ..voc import class_average_precision, mean_of_numbers

__all__ = ["write_report"]

_METRICS = {
    "voc07": ("PASCAL VOC 2007, 11-point", "0.5"),
    "voc12": ("PASCAL VOC 2010 and later, area", "0.5"),
    "ilsvrc": ("ILSVRC, area", "0.5, lower for small objects"),
}
_THRESHOLDS = np.arange(50, 100, 5) / 100
_LIMITS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
_CURVE_POINTS = 120
_PICTURE_WIDTH = 420
_JPEG_QUALITY = 80
# No more than this many pictures of one class in a gallery, or frequent classes fill it.
_PER_CLASS = 3
# Names longer than that are cut where there is little room, and broken where there is more.
_SHORT = 28
_LINE = 48
# Readable on white and on black. Twice as many classes, solid and dotted, can be told apart; more are grey.
_PALETTE = (
    "#4c86d8", "#d97b1f", "#3c9d5b", "#d6565f", "#9a6fd0", "#2a9ca6", "#d166a8", "#94952c", "#a5794a", "#7c8596",
)  # fmt: skip


class _Row(NamedTuple):
    """One class's line of the table."""

    name: str
    ap: float
    objects: int
    detections: int
    recall: float
    f1: float
    score: float


class _Card(NamedTuple):
    """One picture of a gallery: what part of it is seen, the pixels, the boxes, the text."""

    label: str
    kind: str
    score: str
    lines: list[str]
    file: str
    view: tuple[float, float, float, float]
    crop: tuple[float, float, float, float]
    pixels: str
    boxes: list[tuple[str, tuple[float, float, float, float]]]


def write_report(
    folder: str | Path,
    pictures: Sequence[Picture],
    detections: Mapping[str, Detections],
    classes: Sequence[str] = VOC_CLASSES,
    *,
    metric: Literal["voc07", "voc12", "ilsvrc"] = "voc07",
    blacklist: Collection[tuple[str, str]] = (),
    similar: Sequence[Collection[str]] | None = None,
    proposals: Mapping[str, ArrayLike] | None = None,
    title: str = "Detection report",
    settings: Mapping[str, str] = {},
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
    classes : sequence of str
        Names of the classes.
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

    Returns
    -------
    Path
        The page: one file of 5 to 8 MB that needs no network and no other file.

    Raises
    ------
    EvaluationError
        If detections or proposals are of a picture that is not among `pictures`, or two pictures have the same
        ``image_id``.
    ValueError
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
    from jinja2 import Environment, FileSystemLoader
    from plotly.offline import get_plotlyjs

    if metric not in _METRICS:
        raise ValueError(f"metric must be one of {', '.join(map(repr, _METRICS))}, not {metric!r}")
    if blacklist and metric != "ilsvrc":
        raise ValueError(f"a blacklist belongs to the metric 'ilsvrc', not to {metric!r}")
    folder = Path(folder)
    there = next(one for one in (folder, *folder.parents) if os.path.lexists(one))
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "not a folder; name one for the report", str(there))
    if metric == "ilsvrc":
        matches = match_ilsvrc(pictures, detections, classes, blacklist)
        pictures = _flag_blacklisted(pictures, classes, blacklist)
    else:
        matches = match_voc(pictures, detections, classes)
    area: Literal["voc07", "voc12"] = "voc07" if metric == "voc07" else "voc12"
    false = false_positives(pictures, detections, matches, similar)
    rows = [_row(name, one, area) for name, one in matches.items()]
    shares = false_positive_shares(matches, false)
    grouped = related_classes(tuple(classes), similar).any()
    kinds = [kind for kind in ERROR_TYPES if grouped or kind != "similar"]
    sizes = size_sensitivity(pictures, matches)
    gallery = 12 if len(classes) <= 50 else 24
    by_overlap, by_number = _boxes(pictures, detections, matches, proposals)
    figures = {
        "curves": _curves(matches),
        "overlap": by_overlap,
        "number": by_number,
        "kinds": _kinds(shares, kinds),
        "gains": _gains(matches, false, rows, area, kinds),
        "sizes": _sizes(sizes),
    }
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    environment.filters["short"] = _short
    # nan is no JSON: better an error here than a page without plots.
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    page = environment.get_template("report.html").render(
        title=title,
        plotly=get_plotlyjs(),
        figures=figures,
        rows=rows,
        facts=_facts(rows, shares["mean"]),
        settings=settings,
        kinds=kinds,
        counts={
            "Metric": _METRICS[metric][0],
            "IoU": _METRICS[metric][1],
            "Pictures": f"{len(pictures):,}",
            "Classes": f"{len(rows):,}",
            "Objects": f"{sum(row.objects for row in rows):,}",
            "Not counted": f"{sum(int((p.difficult | p.crowd).sum()) for p in pictures):,}",
            "Detections": f"{sum(row.detections for row in rows):,}",
        },
        per_class=_PER_CLASS,
        worst=_worst(pictures, detections, matches, false, gallery, metric),
        missed=_missed(pictures, detections, matches, gallery, metric),
    )
    path = folder / "report.html"
    folder.mkdir(parents=True, exist_ok=True)
    # File names are bytes to the system: one that is not UTF-8 has no place in a page.
    atomic_write(path, page.encode("utf-8", "replace"))
    return path


def _flag_blacklisted(
    pictures: Sequence[Picture], classes: Sequence[str], blacklist: Collection[tuple[str, str]]
) -> list[Picture]:
    """Let the pictures' flags say what counts by ILSVRC's rules: every object, except for the blacklisted."""
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


def _row(name: str, matches: Matches, metric: Literal["voc07", "voc12"]) -> _Row:
    counted = matches.outcome != IGNORED
    score = matches.score[counted]
    found = np.cumsum(matches.outcome[counted] == HIT)
    f1, best = float("nan"), float("nan")
    recall = float("nan")
    if matches.positives:
        recall = found[-1] / matches.positives if len(found) else 0.0
        # 2 P R / (P + R), and only where a threshold can lie: after the last of equal scores.
        curve = 2 * found / (np.arange(1, len(found) + 1) + matches.positives)
        curve[:-1][score[1:] == score[:-1]] = 0
        if curve.any():
            f1, best = float(curve.max()), float(score[curve.argmax()])
    ap = class_average_precision(matches, metric)
    return _Row(name, ap, matches.positives, len(matches.outcome), recall, f1, best)


def _facts(rows: Sequence[_Row], kinds: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """Label, value and remark of the headline's figures."""
    measured = sorted((row for row in rows if row.objects), key=lambda row: row.ap)
    mean = mean_of_numbers(row.ap for row in measured)
    found = sum(row.recall * row.objects for row in measured)
    facts = [("mAP", _number(mean), f"mean over {len(measured)} classes" if len(measured) != 1 else "of one class")]
    if measured:
        share = found / sum(row.objects for row in measured)
        facts.append(("Objects found", f"{share:.0%}", "at any score"))
    # None is the best where all are alike, as without any detections.
    if measured and _number(measured[0].ap) != _number(measured[-1].ap):
        facts.append(("Best class", measured[-1].name, f"AP {measured[-1].ap:.3f}"))
        facts.append(("Weakest class", measured[0].name, f"AP {measured[0].ap:.3f}"))
    if not np.isnan(kinds[ERROR_TYPES[0]]):
        worst = max(kinds, key=lambda kind: kinds[kind])
        facts.append(("Most frequent error", worst, f"{kinds[worst]:.0%} of the top false positives"))
    return facts


def _number(value: float, digits: int = 3) -> str:
    return "–" if np.isnan(value) else f"{value:.{digits}f}"


# Figures are plain dictionaries as plotly.js takes them. A colour "var(--name)" is the style sheet's, so that it
# follows the page from light to dark.


def _rounded(values: ArrayLike) -> list[float | None]:
    return [None if np.isnan(value) else round(value, 4) for value in np.asarray(values, np.float64).tolist()]


def _text(name: str) -> str:
    """Escape a name for plotly, which takes some tags in labels as markup."""
    return html.escape(name, quote=False)


def _short(name: str) -> str:
    return name if len(name) <= _SHORT else name[: _SHORT - 1].rstrip() + "…"


def _whole(name: str) -> str:
    """Break a name into lines for a label that plotly shows at the pointer."""
    return "<br>".join(map(_text, textwrap.wrap(name, _LINE)))


def _class_line(label: int, count: int) -> dict[str, Any]:
    """Style of a class's line, the same in every plot."""
    if count == 1:
        return {"color": "var(--accent)", "width": 2.5}
    if count > 2 * len(_PALETTE):
        return {"color": "var(--many)", "width": 1.5}
    dash = "solid" if label < len(_PALETTE) else "dot"
    return {"color": _PALETTE[label % len(_PALETTE)], "width": 1.5, "dash": dash}


def _axis(title: str, **more: Any) -> dict[str, Any]:
    return {"title": {"text": title}, **more}


_UNIT = {"range": [0, 1.02], "tickformat": ".1f", "dtick": 0.2}
_POINT = "precision %{y:.3f}, recall %{x:.3f}"


def _curves(matches: Mapping[str, Matches]) -> dict[str, Any]:
    """Precision against recall of every class, and the mean of these lines."""
    grid = np.linspace(0, 1, 101)
    traces: list[dict[str, Any]] = []
    levels = []
    many = len(matches) > 2 * len(_PALETTE)
    for label, (name, one) in enumerate(matches.items()):
        if not one.positives:
            continue
        precision, recall = one.precision_recall()
        counted = one.outcome != IGNORED
        hits = np.flatnonzero(one.outcome[counted] == HIT)
        # Of the first hit that reaches each recall, as the line is drawn; none where none does.
        levels.append(np.append(precision[hits], 0.0)[np.searchsorted(recall[hits], grid - 1e-9)])
        if len(hits):
            hits = hits[np.unique(np.linspace(0, len(hits) - 1, _CURVE_POINTS).round().astype(int))]
        # Up or down, then level: between the recalls of two hits lies no other.
        begin = hits[:1]
        traces.append(
            {
                "x": [0.0] * len(begin) + _rounded(recall[hits]),
                "y": _rounded(precision[np.concatenate([begin, hits])]),
                "customdata": [float(f"{score:.4g}") for score in one.score[counted][np.concatenate([begin, hits])]],
                "name": _text(_short(name)),
                "text": _whole(name),
                "meta": label,
                "mode": "lines",
                "opacity": 0.6 if many else 0.9,
                "line": {**_class_line(label, len(matches)), "shape": "vh"},
                "hovertemplate": f"{_POINT}<br>score %{{customdata}}<extra>%{{data.text}}</extra>",
            }
        )
    if len(traces) > 1:
        mean = {
            "x": _rounded(grid),
            "y": _rounded(np.mean(levels, axis=0)),
            "name": "<b>mean</b>",
            "mode": "lines",
            "legendrank": 1,
            "line": {"color": "var(--ink)", "width": 3.5},
            "hovertemplate": _POINT,
        }
        traces.append(mean)
    layout = {
        "height": 520,
        "showlegend": len(traces) > 1 and not many,
        "xaxis": _axis("recall", **_UNIT),
        "yaxis": _axis("precision", **_UNIT),
    }
    return {"data": traces, "layout": layout}


def _boxes(
    pictures: Sequence[Picture],
    detections: Mapping[str, Detections],
    matches: Mapping[str, Matches],
    proposals: Mapping[str, ArrayLike] | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Recall against the overlap that is asked for, and against the number of boxes in each picture."""
    best = _best_of_class(pictures, detections, tuple(matches))
    by_overlap, by_number = [], []
    if len(best):
        recall = [np.mean(best >= np.float32(threshold)) for threshold in _THRESHOLDS]
        by_overlap.append(_line(_THRESHOLDS, recall, "right class", "var(--accent)", "IoU %{x:.2f}"))
    ranked = {
        image_id: found.boxes[np.argsort(-found.scores, kind="stable")]
        for image_id, found in detections.items()
        if len(found)
    }
    sources: list[tuple[str, str, Mapping[str, Any], str]] = [("detections", "any class", ranked, "var(--second)")]
    if proposals is not None:
        sources.append(("proposals", "proposals", proposals, "var(--third)"))
    for name, short, boxes, colour in sources:
        most = max((len(one) for one in boxes.values()), default=0)
        limits = [n for n in _LIMITS if n < most] + [most] * (most > 0)
        quality = evaluate_proposals(pictures, boxes, limits)
        if not len(best):
            continue
        by_overlap.append(_line(_THRESHOLDS, [*quality["recall_curve"].values()], short, colour, "IoU %{x:.2f}"))
        for key, what, dash in (("recall_at", "recall at IoU 0.5", "solid"), ("mabo_at", "mean best overlap", "dot")):
            line = _line(limits, [*quality[key].values()], f"{name}: {what}", colour, "%{x} boxes")
            line["line"]["dash"] = dash
            by_number += [line] if limits else []
    overlap = _axis("IoU", tickformat=".1f", dtick=0.1, range=[0.49, 0.96])
    number = _axis("boxes per picture", type="log", tickvals=_LIMITS, ticktext=[f"{n:,}" for n in _LIMITS])
    return (
        {"data": by_overlap, "layout": {"xaxis": overlap, "yaxis": _axis("recall", **_UNIT), "height": 360}},
        {"data": by_number, "layout": {"xaxis": number, "yaxis": _axis("share", **_UNIT), "height": 360}},
    )


def _best_of_class(
    pictures: Sequence[Picture], detections: Mapping[str, Detections], classes: Sequence[str]
) -> NDArray[np.float32]:
    """Best IoU (N,) that a detection of its class has with each object that counts."""
    best = [np.zeros(0, np.float32)]
    names = np.array(classes, object)
    for picture in pictures:
        counted = ~(picture.difficult | picture.crowd)
        found = detections.get(picture.image_id)
        if found is None:
            best.append(np.zeros(counted.sum(), np.float32))
            continue
        overlaps = box_iou(picture.boxes[counted], found.boxes)
        right = names[picture.labels[counted]][:, None] == np.array(found.classes, object)[found.labels]
        best.append(np.where(right, overlaps, 0).max(axis=1, initial=0))
    return np.concatenate(best)


def _line(x: ArrayLike, y: ArrayLike, name: str, colour: str, hover: str) -> dict[str, Any]:
    return {
        "x": _rounded(x),
        "y": _rounded(y),
        "name": name,
        "mode": "lines+markers",
        "line": {"color": colour, "width": 2.5},
        "marker": {"size": 6},
        "cliponaxis": False,
        "hovertemplate": f"{hover}: %{{y:.3f}}",
    }


def _kinds(shares: Mapping[str, Any], kinds: Sequence[str]) -> dict[str, Any]:
    """Kinds of false positives, one bar for each class and one for their mean."""
    measured = {
        label: (name, one)
        for label, (name, one) in enumerate(shares["per_class"].items())
        if not np.isnan(one["background"])
    }
    rows = list(measured.values())
    if len(rows) > 1:
        rows.insert(0, ("mean", shares["mean"]))
    # By number: names may be the same once they are short.
    ticks = [_text(_short(name)) for name, _ in rows]
    if len(rows) > 1:
        ticks[0] = "<b>mean</b>"
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "x": _rounded([row[kind] for _, row in rows]),
            "y": list(range(len(rows))),
            "customdata": [_whole(name) for name, _ in rows],
            "name": kind,
            "meta": [*[-1] * (len(rows) - len(measured)), *measured],
            "marker": {"color": f"var(--{kind})"},
            "hovertemplate": "%{customdata}: %{x:.0%}",
        }
        for kind in kinds
        if rows
    ]
    layout = {
        "barmode": "stack",
        "bargap": 0.3,
        "height": 72 + 25 * len(rows),
        "margin": {"l": 8, "r": 24, "t": 52, "b": 8},
        "showlegend": False,
        "xaxis": {"range": [0, 1], "tickformat": ".0%", "dtick": 0.25, "side": "top"},
        "yaxis": {
            "range": [len(rows) - 0.5, -0.5],
            "tickvals": list(range(len(rows))),
            "ticktext": ticks,
            "automargin": True,
            "showgrid": False,
        },
    }
    return {"data": traces, "layout": layout}


def _gains(
    matches: Mapping[str, Matches],
    false: Mapping[str, FalsePositives],
    rows: Sequence[_Row],
    metric: Literal["voc07", "voc12"],
    kinds: Sequence[str],
) -> dict[str, Any]:
    """Rise of the mAP if a detector made none of one kind of false positives."""
    gains = []
    for kind in map(ERROR_TYPES.index, kinds):
        better = [
            one._replace(outcome=np.where(false[name].kind == kind, IGNORED, one.outcome).astype(np.int8))
            for name, one in matches.items()
        ]
        gains.append(
            mean_of_numbers(
                class_average_precision(one, metric) - row.ap for one, row in zip(better, rows, strict=True)
            )
        )
    gains = [gain for gain in gains if not np.isnan(gain)]
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": _rounded(gains),
        "y": list(kinds),
        "marker": {"color": [f"var(--{kind})" for kind in kinds]},
        "text": [f"+{gain:.3f}" for gain in gains],
        "textposition": "outside",
        "cliponaxis": False,
        "hovertemplate": "%{y}: %{x:+.4f}<extra></extra>",
    }
    layout = {
        "height": 360,
        "bargap": 0.5,
        "showlegend": False,
        "xaxis": {"range": [0, 1.3 * max([*gains, 0.01])], "tickformat": ".3~f", "nticks": 5},
        "yaxis": {"autorange": "reversed", "automargin": True, "showgrid": False},
    }
    return {"data": [trace] if gains else [], "layout": layout}


def _sizes(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Normalised average precision by the size of the objects."""
    rows = [(label, name, row) for label, (name, row) in enumerate(sizes["per_class"].items())]
    traces: list[dict[str, Any]] = [
        {
            "x": list(SIZES),
            "y": _rounded([row[size] for size in SIZES]),
            "name": _text(_short(name)),
            "text": _whole(name),
            "meta": label,
            "mode": "lines+markers",
            "opacity": 0.4 if len(rows) > 1 else 1,
            "line": _class_line(label, len(rows)),
            "marker": {"size": 4},
            "cliponaxis": False,
            "hovertemplate": "%{x}: %{y:.3f}<extra>%{data.text}</extra>",
        }
        for label, name, row in rows
        if not np.isnan(row["all"])
    ]
    if len(traces) > 1:
        mean = _line([], [sizes["mean"][size] for size in SIZES], "<b>mean</b>", "var(--ink)", "%{x}")
        mean.update(x=list(SIZES), marker={"size": 8}, line={"color": "var(--ink)", "width": 3.5})
        overall = {
            "x": list(SIZES),
            "y": [round(sizes["mean"]["all"], 4)] * len(SIZES),
            "name": "all sizes",
            "mode": "lines",
            "line": {"color": "var(--muted)", "width": 1.5, "dash": "dash"},
            "hovertemplate": "%{y:.3f}",
        }
        traces += [overall, mean]
    layout = {
        "height": 360,
        "showlegend": False,
        "xaxis": {"type": "category"},
        "yaxis": _axis("normalised AP", **_UNIT),
    }
    return {"data": traces, "layout": layout}


# Galleries.


def _spread(order: Iterable[int], classes: NDArray[np.int64], count: int) -> list[int]:
    """Choose the first `count` of a ranking, few of any one class."""
    chosen: list[int] = []
    seen: dict[int, int] = {}
    for i in order:
        label = int(classes[i])
        if seen.get(label, 0) < _PER_CLASS:
            seen[label] = seen.get(label, 0) + 1
            chosen.append(int(i))
            if len(chosen) == count:
                break
    return chosen


def _threshold(box: NDArray[np.float32], metric: str) -> float:
    """Overlap that makes a detection of the object a hit, by the rules of `match_voc` or `match_ilsvrc`."""
    if metric != "ilsvrc":
        return 0.5
    width, height = (box[2:].astype(np.float64) - box[:2]).tolist()
    return min(0.5, width * height / ((width + 10) * (height + 10)))


def _worst(
    pictures: Sequence[Picture],
    detections: Mapping[str, Detections],
    matches: Mapping[str, Matches],
    false: Mapping[str, FalsePositives],
    count: int,
    metric: str,
) -> list[_Card]:
    """Show the false positives with the highest scores."""
    names = tuple(matches)
    # Few of a class are shown, so only its first are candidates.
    candidates = [
        (label, row)
        for label, name in enumerate(names)
        for row in np.flatnonzero(false[name].kind >= 0)[:_PER_CLASS].tolist()
    ]
    score = np.array([matches[names[label]].score[row] for label, row in candidates])
    cards = []
    for i in np.argsort(-score, kind="stable")[:count]:
        label, row = candidates[i]
        name = names[label]
        one, mistake = matches[name], false[name]
        picture = pictures[one.picture[row]]
        claim = detections[picture.image_id].boxes[one.detection[row]]
        kind = ERROR_TYPES[mistake.kind[row]]
        overlap = f"IoU {mistake.overlap[row]:.3f}"
        boxes = [("claim", claim)]
        if one.object[row] >= 0:
            boxes.append(("own", picture.boxes[one.object[row]]))
        if kind == "localisation":
            # Good enough for a hit, and yet it is none.
            again = one.overlap[row] >= _threshold(picture.boxes[one.object[row]], metric)
            lines = [f"{overlap} with an object " + ("that has been found before" if again else "of the class")]
        elif kind == "background":
            there = (picture.labels == label).any()
            lines = ["no object of any class here", "the class is elsewhere in the picture" if there else ""]
        else:
            lines = [f"on {_short(names[picture.labels[mistake.object[row]]])}, {overlap}"]
            boxes.append(("foreign", picture.boxes[mistake.object[row]]))
        cards.append(_card(picture, name, kind, f"{one.score[row]:.3f}", lines, boxes))
    return cards


def _missed(
    pictures: Sequence[Picture],
    detections: Mapping[str, Detections],
    matches: Mapping[str, Matches],
    count: int,
    metric: str,
) -> list[_Card]:
    """Show the objects without a hit that fill the largest part of their picture."""
    names = tuple(matches)
    lengths = [len(picture.labels) for picture in pictures]
    start = np.cumsum([0, *lengths])
    owner = np.repeat(np.arange(len(pictures)), lengths)
    labels = np.concatenate([np.zeros(0, np.int64), *(picture.labels for picture in pictures)])
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(picture.boxes for picture in pictures)])
    missed = ~np.concatenate([np.zeros(0, bool), *(picture.difficult | picture.crowd for picture in pictures)])
    for one in matches.values():
        hit = one.outcome == HIT
        missed[start[one.picture[hit]] + one.object[hit]] = False
    size = np.array([picture.width * picture.height for picture in pictures], np.float64)
    share = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / size[owner] if len(boxes) else np.zeros(0)
    rank = np.argsort(-share, kind="stable")
    cards = []
    for i in _spread(rank[missed[rank]], labels, count):
        picture, name = pictures[owner[i]], names[labels[i]]
        shown = [("own", boxes[i])]
        lines = [f"{share[i]:.0%} of the picture"]
        found = detections.get(picture.image_id)
        if found is not None and len(found):
            overlaps = box_iou(boxes[i : i + 1], found.boxes)[0]
            own = np.array([found.classes[label] == name for label in found.labels])
            near = int(np.where(own, overlaps, 0).argmax())
            if own[near] and overlaps[near] >= 0.1:
                shown.append(("claim", found.boxes[near]))
                lines.append(f"best {_short(name)}: IoU {overlaps[near]:.3f}, score {found.scores[near]:.3f}")
            good = np.flatnonzero((overlaps >= np.float32(_threshold(boxes[i], metric))) & ~own)
            if len(good):
                top = good[found.scores[good].argmax()]
                shown.append(("foreign", found.boxes[top]))
                lines.append(f"taken for {_short(found.classes[found.labels[top]])}, score {found.scores[top]:.3f}")
        if len(lines) == 1:
            lines.append("no detection covers it")
        cards.append(_card(picture, name, "", "", lines, shown))
    return cards


def _card(
    picture: Picture,
    label: str,
    kind: str,
    score: str,
    lines: Sequence[str],
    boxes: Sequence[tuple[str, NDArray[np.float32]]],
) -> _Card:
    size = np.array([picture.width, picture.height], np.float64)
    low, high = _view(np.stack([box for _, box in boxes]).astype(np.float64), size)
    inside = np.floor(np.clip(low, 0, size)), np.ceil(np.clip(high, 0, size))
    return _Card(
        label=label,
        kind=kind,
        score=score,
        lines=[line for line in lines if line],
        file=Path(picture.path).name,
        view=_corner_and_size(np.concatenate([low, high])),
        crop=_corner_and_size(np.concatenate(inside)),
        pixels=_pixels(Path(picture.path), np.concatenate([inside[0] / size, inside[1] / size])),
        boxes=[(role, _corner_and_size(box)) for role, box in boxes],
    )


def _view(boxes: NDArray[np.float64], size: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Corners of the part of a picture to show: the boxes with some context, 4 to 3, within the picture if possible."""

    def widen(sides: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.maximum(sides, sides[::-1] * (4 / 3, 3 / 4))

    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    sides = np.minimum(widen(high - low + 2 * max(16, 0.2 * (high - low).max())), widen(size))
    centre = np.where(sides < size, np.clip((low + high) / 2, sides / 2, size - sides / 2), size / 2)
    return centre - sides / 2, centre + sides / 2


def _corner_and_size(box: NDArray[Any]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box.tolist()
    return round(x1, 1), round(y1, 1), round(x2 - x1, 1), round(y2 - y1, 1)


def _pixels(path: Path, part: NDArray[np.float64]) -> str:
    """Part of a picture file (fractions of its sides) as the URL of a small JPEG, or nothing if it cannot be read."""
    try:
        image = read_image(path)
    except ImageError:
        return ""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = (part * (width, height, width, height)).round().astype(int).tolist()
    picture = Image.fromarray(image[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)])
    picture.thumbnail((_PICTURE_WIDTH, _PICTURE_WIDTH))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
