"""The charts of the report.

Each is a dictionary with the ``data`` and ``layout`` of a figure, as plotly.js takes it. A colour "var(--name)" is the
style sheet's, so that it follows the page from light to dark.
"""

import html
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...data import Detections, Picture, box_iou
from ..errors import ERROR_TYPES, SIZES, FalsePositives
from ..matching import HIT, IGNORED, Matches
from ..precision import class_average_precision, mean_of_numbers
from ..proposals import evaluate_proposals

_THRESHOLDS = np.arange(50, 100, 5) / 100
_LIMITS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
_CURVE_POINTS = 120
UNIT_AXIS = {"range": [0, 1.02], "tickformat": ".1f", "dtick": 0.2}  # of an axis from 0 to 1
_POINT = "precision %{y:.3f}, recall %{x:.3f}"
# Letters. Longer names are cut where there is little room, and broken where there is more.
_SHORT = 28
_LINE = 48
# Readable on white and on black. Twice as many classes, solid and dotted, can be told apart; more are grey.
_PALETTE = (
    "#4c86d8", "#d97b1f", "#3c9d5b", "#d6565f", "#9a6fd0", "#2a9ca6", "#d166a8", "#94952c", "#a5794a", "#7c8596",
)  # fmt: skip


def rounded(values: ArrayLike) -> list[float | None]:
    """Round numbers for the page; nan, which JSON does not have, becomes null."""
    return [None if np.isnan(value) else round(value, 4) for value in np.asarray(values, np.float64).tolist()]


def escape_text(name: str) -> str:
    """Escape a name for plotly, which takes some tags in labels as markup."""
    return html.escape(name, quote=False)


def shorten_name(name: str) -> str:
    """Cut a long name where there is little room."""
    return name if len(name) <= _SHORT else name[: _SHORT - 1].rstrip() + "…"


def wrap_name(name: str) -> str:
    """Break a name into lines for a label that plotly shows at the pointer."""
    return "<br>".join(map(escape_text, textwrap.wrap(name, _LINE)))


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


def precision_recall_chart(matches: Mapping[str, Matches]) -> dict[str, Any]:
    """Precision against recall: a line for each class, and their mean."""
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
                "x": [0.0] * len(begin) + rounded(recall[hits]),
                "y": rounded(precision[np.concatenate([begin, hits])]),
                "customdata": [float(f"{score:.4g}") for score in one.score[counted][np.concatenate([begin, hits])]],
                "name": escape_text(shorten_name(name)),
                "text": wrap_name(name),
                "meta": label,
                "mode": "lines",
                "opacity": 0.6 if many else 0.9,
                "line": {**_class_line(label, len(matches)), "shape": "vh"},
                "hovertemplate": f"{_POINT}<br>score %{{customdata}}<extra>%{{data.text}}</extra>",
            }
        )
    if len(traces) > 1:
        mean = {
            "x": rounded(grid),
            "y": rounded(np.mean(levels, axis=0)),
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
        "xaxis": _axis("recall", **UNIT_AXIS),
        "yaxis": _axis("precision", **UNIT_AXIS),
    }
    return {"data": traces, "layout": layout}


def reliability_charts(calibration: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Share of right detections against the score, beside what a calibrated score has; detections in each bin.

    `calibration` is what `reliability.summarise_reliability` returns. The charts are "calibration" and "scores".
    """
    bins = [] if calibration is None else calibration["bins"]
    counts = np.array([one["count"] for one in bins], np.int64)
    scores, shares = (np.array([one[name] for one in bins]) for name in ("mean_score", "share_right"))
    right = np.rint(np.nan_to_num(shares * counts)).astype(np.int64)
    texts = [
        f"scores {one['above']:.2g} to {one['up_to']:.2g}: "
        + (
            f"mean {one['mean_score']:.3f}, right {one['share_right']:.3f}<br>{hits:,} of {one['count']:,} detections"
            if one["count"]
            else "no detections"
        )
        for one, hits in zip(bins, right.tolist(), strict=True)
    ]
    hover = {"text": texts, "hovertemplate": "%{text}<extra></extra>"}
    middles = rounded([(one["above"] + one["up_to"]) / 2 for one in bins])
    bars = {"type": "bar", "x": middles, "textposition": "none", **hover}
    ideal = {
        "x": [0, 1],
        "y": [0, 1],
        "name": "calibrated",
        "mode": "lines",
        "line": {"color": "var(--muted)", "width": 1.5, "dash": "dash"},
        "hoverinfo": "skip",
    }
    by_score = [
        {**bars, "y": rounded(shares), "marker": {"color": "var(--bar)"}, "showlegend": False},
        ideal,
        # Where the scores of a bin are, which is not its middle.
        {**_line_trace(scores, shares, "measured", "var(--accent)", ""), **hover},
    ]
    in_bins = [
        {**bars, "y": right.tolist(), "name": "right", "marker": {"color": "var(--accent)"}},
        {**bars, "y": (counts - right).tolist(), "name": "false", "marker": {"color": "var(--many)"}},
    ]
    score = _axis("score", **UNIT_AXIS | {"range": [0, 1]})
    layout = {"xaxis": score, "height": 360, "bargap": 0.04, "barmode": "stack"}
    return {
        "calibration": {
            "data": by_score if counts.any() else [],
            "layout": {**layout, "yaxis": _axis("share right", **UNIT_AXIS)},
        },
        "scores": {"data": in_bins if counts.any() else [], "layout": {**layout, "yaxis": _axis("detections")}},
    }


def proposal_charts(
    pictures: Sequence[Picture],
    detections: Mapping[str, Detections],
    matches: Mapping[str, Matches],
    proposals: Mapping[str, ArrayLike] | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Recall against the IoU threshold, and against the number of boxes in each picture."""
    best = _best_of_class(pictures, detections, tuple(matches))
    by_overlap, by_number = [], []
    if len(best):
        recall = [np.mean(best >= np.float32(threshold)) for threshold in _THRESHOLDS]
        by_overlap.append(_line_trace(_THRESHOLDS, recall, "right class", "var(--accent)", "IoU %{x:.2f}"))
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
        by_overlap.append(_line_trace(_THRESHOLDS, [*quality["recall_curve"].values()], short, colour, "IoU %{x:.2f}"))
        for key, what, dash in (("recall_at", "recall at IoU 0.5", "solid"), ("mabo_at", "mean best overlap", "dot")):
            line = _line_trace(limits, [*quality[key].values()], f"{name}: {what}", colour, "%{x} boxes")
            line["line"]["dash"] = dash
            by_number += [line] if limits else []
    overlap = _axis("IoU", tickformat=".1f", dtick=0.1, range=[0.49, 0.96])
    number = _axis("boxes per picture", type="log", tickvals=_LIMITS, ticktext=[f"{n:,}" for n in _LIMITS])
    return (
        {"data": by_overlap, "layout": {"xaxis": overlap, "yaxis": _axis("recall", **UNIT_AXIS), "height": 360}},
        {"data": by_number, "layout": {"xaxis": number, "yaxis": _axis("share", **UNIT_AXIS), "height": 360}},
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


def _line_trace(x: ArrayLike, y: ArrayLike, name: str, colour: str, hover: str) -> dict[str, Any]:
    return {
        "x": rounded(x),
        "y": rounded(y),
        "name": name,
        "mode": "lines+markers",
        "line": {"color": colour, "width": 2.5},
        "marker": {"size": 6},
        "cliponaxis": False,
        "hovertemplate": f"{hover}: %{{y:.3f}}",
    }


def error_chart(
    shares: Mapping[str, Any], counts: Mapping[str, NDArray[np.int64]], kinds: Sequence[str]
) -> dict[str, Any]:
    """Shares of the kinds of false positives, with their counts: a bar for each class, and one for their mean."""
    measured = {
        label: (name, one)
        for label, (name, one) in enumerate(shares["per_class"].items())
        if not np.isnan(one["background"])
    }
    rows = list(measured.values())
    if len(rows) > 1:
        rows.insert(0, ("mean", shares["mean"]))
    # By number: names may be the same once they are short.
    ticks = [escape_text(shorten_name(name)) for name, _ in rows]
    if len(rows) > 1:
        ticks[0] = "<b>mean</b>"
    means = len(rows) - len(measured)
    numbers = [counts[name] for name, _ in measured.values()]
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "x": rounded([row[kind] for _, row in rows]),
            "y": list(range(len(rows))),
            "customdata": [wrap_name(name) for name, _ in rows],
            # A share of 100 % may be one box.
            "text": [""] * means + [str(one[ERROR_TYPES.index(kind)] or "") for one in numbers],
            "hovertext": [""] * means + [f", {one[ERROR_TYPES.index(kind)]} of {one.sum()}" for one in numbers],
            "textposition": "inside",
            "insidetextanchor": "middle",
            "textangle": 0,
            "constraintext": "none",
            "name": kind,
            "meta": [*[-1] * means, *measured],
            "marker": {"color": f"var(--{kind})"},
            "hovertemplate": "%{customdata}: %{x:.0%}%{hovertext}",
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


def gain_chart(
    matches: Mapping[str, Matches],
    false: Mapping[str, FalsePositives],
    precisions: Sequence[float],
    metric: Literal["voc07", "voc12"],
    kinds: Sequence[str],
) -> dict[str, Any]:
    """Rise of the mAP without the false positives of each kind; `precisions` are the classes' average precisions."""
    gains = []
    for kind in map(ERROR_TYPES.index, kinds):
        better = [
            one._replace(outcome=np.where(false[name].kind == kind, IGNORED, one.outcome).astype(np.int8))
            for name, one in matches.items()
        ]
        differences = (class_average_precision(one, metric) - ap for one, ap in zip(better, precisions, strict=True))
        gains.append(mean_of_numbers(differences))
    gains = [gain for gain in gains if not np.isnan(gain)]
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": rounded(gains),
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


def size_chart(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Normalised average precision by the size of objects: a line for each class, and their mean."""
    rows = [(label, name, row) for label, (name, row) in enumerate(sizes["per_class"].items())]
    traces: list[dict[str, Any]] = [
        {
            "x": list(SIZES),
            "y": rounded([row[size] for size in SIZES]),
            "name": escape_text(shorten_name(name)),
            "text": wrap_name(name),
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
        mean = _line_trace([], [sizes["mean"][size] for size in SIZES], "<b>mean</b>", "var(--ink)", "%{x}")
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
        "yaxis": _axis("normalised AP", **UNIT_AXIS),
    }
    return {"data": traces, "layout": layout}
