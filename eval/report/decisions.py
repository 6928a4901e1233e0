"""What the report says of the score to use, of confusions, of the types of errors, and of another detector."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...data import Detections, Picture
from ..compare import SIGNIFICANT, describe_comparison, describe_test
from ..confusion import confusion_matrix
from ..matching import Matches, pool_matches
from ..thresholds import Target, choose_threshold, threshold_curve
from ..tide import TIDE_TYPES, tide_errors
from .charts import UNIT_AXIS, escape_text, precision_recall_chart, rounded, shorten_name, wrap_name
from .mistakes import Card, picture_card

_POINTS = 200
_CARDS = 12
# So many rows of confusions have their shares written in.
_WRITTEN = 25
_TIDE_LAYOUT = {
    "height": 360,
    "bargap": 0.5,
    "showlegend": False,
    "yaxis": {"autorange": "reversed", "automargin": True, "showgrid": False},
}


class Comparison(NamedTuple):
    """Another detector's detections of the same pictures, and what `compare_detectors` says of it and of one's own.

    The other is the first of the two, A; the report is of the second, B.
    """

    other: Mapping[str, Detections]
    result: Mapping[str, Any]


def decision_charts(
    pictures: Sequence[Picture],
    detections: Mapping[str, Detections],
    matches: Mapping[str, Matches],
    chosen: Mapping[str, Any] | None = None,
) -> tuple[dict[str, dict[str, Any]], float]:
    """Make the charts "thresholds", "confusion" and "tide"; also return the score of the best F1, or nan.

    With `chosen`, what `evaluate_thresholds` returned, the score is the one that was chosen there.
    """
    together = pool_matches([*matches.values()])
    curve = threshold_curve(together)
    score, reason = choose_threshold(curve, Target("f1")), "best F1"
    if chosen is not None:
        score, reason = chosen["together"]["score"], chosen["at"]
    return {
        "thresholds": _threshold_chart(curve, score, reason),
        "confusion": _confusion_chart(pictures, detections, tuple(matches), score),
        "tide": _tide_chart(tide_errors(pictures, detections, tuple(matches))),
    }, score


def _threshold_chart(curve: Any, score: float, reason: str) -> dict[str, Any]:
    # Evenly in scores and in detections, most of which have low scores; with the best F1.
    number = len(curve.score)
    low, high = (float(curve.score[-1]), float(curve.score[0])) if number else (0.0, 1.0)
    by_score = number - np.searchsorted(curve.score[::-1], np.linspace(low, high, _POINTS), side="left")
    by_rank = np.linspace(0, max(number - 1, 0), _POINTS).round().astype(np.int64)
    best = curve.f1.argmax() if number else 0
    points = np.unique(np.concatenate([by_rank, by_score.clip(0, max(number - 1, 0)), [best]]))[:number]
    columns = ("precision", curve.precision, "var(--accent)"), ("recall", curve.recall, "var(--second)"), (
        "F1", curve.f1, "var(--ink)",
    )  # fmt: skip
    traces: list[dict[str, Any]] = [
        {
            "x": rounded(curve.score[points]),
            "y": rounded(values[points]),
            "name": name,
            "mode": "lines",
            "line": {"color": colour, "width": 2.5},
            "hovertemplate": f"{name} %{{y:.3f}} from a score of %{{x:.3f}}<extra></extra>",
        }
        for name, values, colour in columns
    ]
    if not np.isnan(score):
        line = {"color": "var(--muted)", "width": 1.5, "dash": "dash"}
        marked = {"mode": "lines", "line": line, "hoverinfo": "skip", "name": f"{reason}, {score:.3f}"}
        traces.append({"x": rounded([score, score]), "y": [0, 1], **marked})
    layout = {
        "height": 360,
        "xaxis": {"title": {"text": "score"}},
        "yaxis": UNIT_AXIS,
    }
    return {"data": traces if not np.isnan(score) else [], "layout": layout}


def _confusion_chart(
    pictures: Sequence[Picture], detections: Mapping[str, Detections], classes: Sequence[str], score: float
) -> dict[str, Any]:
    """Shares of each class's objects by what they are detected as; the last row are shares of the false boxes."""
    names = (*classes, "background")
    layout: dict[str, Any] = {
        "height": 140 + max(18 * len(names), 160),
        "xaxis": {"title": {"text": "detected as"}, "tickangle": -45, "showgrid": False},
        "yaxis": {"title": {"text": "object"}, "autorange": "reversed", "showgrid": False},
        "showlegend": False,
    }
    if np.isnan(score):
        return {"data": [], "layout": layout}
    matrix = confusion_matrix(pictures, detections, classes, min_score=score)
    total = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, total, out=np.zeros(matrix.shape), where=total > 0)
    places = list(range(len(names)))
    for axis, own in (("yaxis", "background"), ("xaxis", "missed")):
        ticks = [escape_text(shorten_name(name)) for name in (*classes, own)]
        layout[axis] |= {"tickvals": places, "ticktext": ticks}
    # Shares that can be read where they are few enough.
    written = [[f"{100 * share:.0f}" if share >= 0.02 else "" for share in row] for row in shares]
    texts = [
        [
            f"{wrap_name(one)} as {wrap_name(other)}: {matrix[i, j]:,} of {total[i, 0]:,}"
            for j, other in enumerate((*classes, "missed"))
        ]
        for i, one in enumerate(names)
    ]
    trace = {
        "type": "heatmap",
        "z": [rounded(row) for row in shares],
        "x": places,
        "y": places,
        "customdata": texts,
        "hovertemplate": "%{customdata}<extra></extra>",
        **({"text": written, "texttemplate": "%{text}"} if len(names) <= _WRITTEN else {}),
        "colorscale": [[0, "rgba(76,134,216,0)"], [1, "rgba(76,134,216,1)"]],
        "zmin": 0,
        "zmax": 1,
        "colorbar": {"tickformat": ".0%", "thickness": 12, "outlinewidth": 0, "dtick": 0.25},
        "xgap": 1,
        "ygap": 1,
    }
    return {"data": [trace], "layout": layout}


def _tide_chart(errors: Mapping[str, Any]) -> dict[str, Any]:
    measured = not np.isnan(errors["mAP"])
    trace = _tide_trace(errors, "var(--bar)")
    high = 1.3 * max([*trace["x"], 0.01]) if measured else 1
    xaxis = {"range": [0, high], "tickformat": ".3~f", "nticks": 5}
    return {"data": [trace] if measured else [], "layout": {**_TIDE_LAYOUT, "xaxis": xaxis}}


def _tide_trace(errors: Mapping[str, Any], colour: str) -> dict[str, Any]:
    gains = [errors["gains"][name] for name in TIDE_TYPES]
    return {
        "type": "bar",
        "orientation": "h",
        "x": rounded(gains),
        "y": list(TIDE_TYPES),
        "marker": {"color": colour},
        "text": [f"+{gain:.3f}" for gain in gains],
        "textposition": "outside",
        "cliponaxis": False,
        "hovertemplate": "%{y}: %{x:+.4f}<extra></extra>",
    }


def comparison_parts(
    pictures: Sequence[Picture],
    detections: Mapping[str, Detections],
    comparison: Comparison | None,
    max_pixels: int,
) -> dict[str, Any]:
    """Return what the page says of another detector: the comparison, its result in words, and the deciding pictures."""
    if comparison is None:
        return {"comparison": None}
    cards = _comparison_cards(pictures, detections, comparison, max_pixels)
    words = describe_comparison(comparison.result, len(pictures))
    return {
        "comparison": comparison, "compared": words, "test": describe_test(comparison.result), "deciding": cards,
        "significant": SIGNIFICANT,
    }  # fmt: skip


def comparison_charts(
    result: Mapping[str, Any], other: Mapping[str, Matches], own: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Make the charts "both" and "costs": mean curves of precision and recall, and TIDE's costs, of A and of B.

    `own` is the chart of B's curves.
    """
    curves, bars = [], []
    sides = (
        ("A", "first", precision_recall_chart(other), "var(--second)"),
        ("B", "second", own, "var(--accent)"),
    )
    for label, key, chart, colour in sides:
        line = {"color": colour, "width": 2.5}
        hover = f"{label}: precision %{{y:.3f}}, recall %{{x:.3f}}<extra></extra>"
        # The mean is the last; a single class has no other.
        for trace in chart["data"][-1:]:
            points = {"x": trace["x"], "y": trace["y"], "name": label, "mode": "lines", "line": line}
            curves.append({**points, "hovertemplate": hover})
        trace = _tide_trace(result[key]["errors"], colour)
        bars.append({**trace, "name": label, "hovertemplate": f"{label}, %{{y}}: %{{x:+.4f}}<extra></extra>"})
    layout = {"height": 400, "xaxis": {"title": {"text": "recall"}, **UNIT_AXIS}}
    layout["yaxis"] = {"title": {"text": "precision"}, **UNIT_AXIS}
    most = max([0.01, *(gain for bar in bars for gain in bar["x"])])
    costs = {**_TIDE_LAYOUT, "height": 400, "showlegend": True, "barmode": "group", "bargap": 0.3}
    costs["xaxis"] = {"range": [0, 1.3 * most], "tickformat": ".3~f", "nticks": 5}
    costs["legend"] = {"traceorder": "normal"}
    return {"both": {"data": curves, "layout": layout}, "costs": {"data": bars, "layout": costs}}


def _comparison_cards(
    pictures: Sequence[Picture], detections: Mapping[str, Detections], comparison: Comparison, max_pixels: int
) -> list[Card]:
    """Make cards of the pictures that decide most between two detectors, with the boxes of both."""
    by_name = {picture.image_id: picture for picture in pictures}
    cards = []
    for one in comparison.result["pictures"][:_CARDS]:
        picture = by_name[one["image_id"]]
        boxes = [("own", box) for box in picture.boxes[~(picture.difficult | picture.crowd)]]
        numbers = []
        for role, found, key in (("first", comparison.other, "first"), ("second", detections, "second")):
            own = found.get(picture.image_id)
            chosen = [] if own is None else [*own.boxes[own.scores >= comparison.result[key]["threshold"]]]
            boxes += [(role, box) for box in chosen]
            numbers.append(len(chosen))
        if boxes:
            better = "B better" if one["effect"] > 0 else "A better"
            effect = f"{100 * one['effect']:+.2f} points of B − A".replace("-", "−")
            lines = [effect, f"boxes of A: {numbers[0]}, of B: {numbers[1]}"]
            cards.append(picture_card(picture, better, "", "", lines, boxes, max_pixels))
    return cards
