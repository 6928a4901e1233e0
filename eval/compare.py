"""Two detectors on the same pictures: whether one is better, by how much, where, and at which kinds of errors."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..data import ILSVRC_DET_CLASSES, VOC_CLASSES, Detections, Picture, box_iou
from ..data.arguments import check_choice
from ..data.errors import SettingError
from .bootstrap import LEVEL, Bootstrap, mean_over_classes
from .coco import match_coco
from .matching import HIT, IGNORED, Matches, evaluated_classes, match_ilsvrc, match_voc, renumber_labels
from .precision import Metric, mean_of_numbers, weighted_average_precision
from .thresholds import evaluate_thresholds
from .tide import tide_errors

Rules = Literal["voc07", "voc12", "ilsvrc", "coco"]
RULES: tuple[Rules, ...] = ("voc07", "voc12", "ilsvrc", "coco")
RULE_NAMES: dict[str, str] = {
    "voc07": "VOC 2007, 11 points, IoU 0.5",
    "voc12": "VOC 2010 and later, area, IoU 0.5",
    "ilsvrc": "ILSVRC",
    "coco": "COCO",
}
SIGNIFICANT = 0.05
"""A difference is called one if its p-value is lower."""
# The pictures named where the detectors differ most.
_PICTURES = 20
# Rows of weights at a time: 100 MB for a class in 25,000 pictures.
_ROWS = 1000


def compare_detectors(
    pictures: Sequence[Picture],
    first: Mapping[str, Detections],
    second: Mapping[str, Detections],
    classes: Sequence[str] | None = None,
    *,
    metric: Rules = "voc07",
    blacklist: Collection[tuple[str, str]] = (),
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare two detectors on the same pictures, with intervals and p-values of the differences.

    Differences are of the second less the first. In each draw of the pictures both detectors are evaluated, so that a
    difficult picture counts for both, and the difference has a smaller spread than either figure.

    Parameters
    ----------
    pictures : sequence of Picture
        The annotated pictures.
    first, second : mapping of str to Detections
        By ``image_id``, as the evaluators take them; their scores need not be alike.
    classes : sequence of str, or None
        Names of the classes; None for those that the pictures were read with, or else VOC's or ILSVRC's.
    metric : {"voc07", "voc12", "ilsvrc", "coco"}
        The rules: `evaluate_voc` with one of its metrics, `evaluate_ilsvrc`, or the AP of `evaluate_coco`.
    blacklist : collection of (str, str)
        For "ilsvrc"; see `match_ilsvrc`.
    bootstrap, seed : int
        As for `evaluate_voc`.

    Returns
    -------
    dict
        ``"first"``, ``"second"``: ``"mAP"``, ``"per_class"``; ``"threshold"``, the score of the best F1 of all
        classes together, and their ``"precision"``, ``"recall"`` and ``"f1"`` there; ``"detections"``, how many have
        that score or a higher one; ``"agreeing"``, how many of these have a box of the other detector,
        of the same class and among those above its threshold, at an IoU of 0.5 or more, and ``"agreeing_iou"``, the
        mean IoU with it; ``"not_counted"``, how many of them are on difficult objects; ``"total"``, how many detections
        there are at any score, ``"most_per_picture"``, of one picture, and ``"lowest_score"``; ``"errors"``, see
        `tide_errors`.

        ``"same_length"``: if one has longer lists, the ``"boxes"`` of a picture that the other has at most, and the mAP
        of the ``"first"`` and the ``"second"`` with so many; else None. Longer lists have more recall.

        ``"difference"``: ``"mAP"`` and ``"per_class"``, each a dict of ``"difference"``, its ``"interval"`` of 95 % and
        its ``"p_value"``. Those of the classes are corrected for their number (Holm).

        ``"objects"``: how many are found by ``"both"``, only the ``"first"``, only the ``"second"``, and ``"neither"``,
        each at its threshold. ``"pictures"``: the 20 that decide most, as dicts of ``"image_id"`` and ``"effect"``: by
        how much the difference of the mAPs is higher with the picture than without it. For "voc07" these are of areas
        under the curves: of 11 points one may jump with whatever picture is left out.

        ``"metric"``, ``"level"``, ``"draws"``, ``"seed"``.

    Raises
    ------
    EvaluationError
        As the evaluators do.
    SettingError
        If `metric` is unknown, a number is out of range, or a blacklist is given for other rules.

    References
    ----------
    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3. Holm, "A simple sequentially
    rejective multiple test procedure", Scandinavian Journal of Statistics, 1979.

    Examples
    --------
    >>> from pathlib import Path
    >>> box, cat, no = np.float32([[0, 0, 20, 10]]), np.array([0]), np.array([False])
    >>> pictures = [Picture(str(i), Path(f"{i}.jpg"), 40, 20, box, cat, no, no) for i in range(50)]
    >>> all_found = {one.image_id: Detections(box, np.float32([0.9]), cat, ("cat",)) for one in pictures}
    >>> half_found = dict([*all_found.items()][:25])
    >>> result = compare_detectors(pictures, half_found, all_found, ("cat",), metric="voc12")
    >>> result["difference"]["mAP"]["difference"], result["difference"]["mAP"]["p_value"] < 0.01, result["objects"]
    (0.5, True, {'both': 25, 'first': 0, 'second': 25, 'neither': 0})
    """
    check_choice("metric", metric, RULES)
    if blacklist and metric != "ilsvrc":
        raise SettingError(f"a blacklist belongs to the metric 'ilsvrc', not to {metric!r}")
    names = evaluated_classes(pictures, classes, ILSVRC_DET_CLASSES.values() if metric == "ilsvrc" else VOC_CLASSES)
    draws = Bootstrap(len(pictures), bootstrap, seed)
    matches = [_match(pictures, found, names, metric, blacklist) for found in (first, second)]
    values = [
        {name: _precisions(one, draws.weights, metric) for name, one in of_detector.items()} for of_detector in matches
    ]
    means = [mean_over_classes(of_detector) for of_detector in values]
    per_class = {name: _difference(draws, values[1][name] - values[0][name]) for name in names}
    corrected = holm([one["p_value"] for one in per_class.values()])
    for one, p_value in zip(per_class.values(), corrected, strict=True):
        one["p_value"] = p_value
    effects = _effects(matches, metric)
    order = np.argsort(-np.abs(effects), kind="stable")[:_PICTURES]
    # At IoU 0.5, whatever the rules.
    at_half = [{name: one[0] for name, one in of_detector.items()} for of_detector in matches]
    best = [evaluate_thresholds(of_detector)["together"] for of_detector in at_half]
    thresholds = [one["score"] for one in best]
    chosen = [
        _choose(pictures, found, names, threshold)
        for found, threshold in zip((first, second), thresholds, strict=True)
    ]  # fmt: skip
    summaries = [
        {
            "mAP": float(means[i][0]),
            "per_class": {name: float(one[0]) for name, one in values[i].items()},
            "threshold": thresholds[i],
            **{figure: best[i][figure] for figure in ("precision", "recall", "f1")},
            **_agreement(chosen[i], chosen[1 - i]),
            "not_counted": sum(
                int(((one.outcome == IGNORED) & (one.score >= thresholds[i])).sum()) for one in at_half[i].values()
            ),
            **_extent(pictures, found),
            "errors": tide_errors(pictures, found, names),
        }
        for i, found in enumerate((first, second))
    ]
    return {
        "first": summaries[0],
        "second": summaries[1],
        "difference": {"mAP": _difference(draws, means[1] - means[0]), "per_class": per_class},
        "same_length": _same_length(pictures, (first, second), summaries, names, metric, blacklist),
        "objects": _found_objects(at_half, thresholds),
        "pictures": [
            {"image_id": pictures[i].image_id, "effect": float(effects[i])} for i in order if effects[i] != 0
        ],
        "metric": metric,
        "level": LEVEL,
        "draws": draws.draws,
        "seed": draws.seed,
    }  # fmt: skip


def describe_comparison(result: Mapping[str, Any], pictures: int) -> str:
    """Say in a few sentences what `compare_detectors` found: A is the first detector, B the second.

    Examples
    --------
    >>> figures = {"mAP": 0.5}, {"mAP": 0.52}
    >>> one = {"difference": 0.02, "interval": [-0.01, 0.05], "p_value": 0.2}
    >>> result = {"first": figures[0], "second": figures[1], "difference": {"mAP": one, "per_class": {"cat": one}}}
    >>> print(describe_comparison(result, 800))
    On these 800 pictures neither is shown to be better. mAP: A 50.00, B 52.00; B leads by 2.00 points (95 % interval -1.00 to 5.00, p = 0.200). By class, none is shown to differ.
    """  # noqa: E501
    one = result["difference"]["mAP"]
    leads = one["difference"] >= 0
    low, high = sorted(100 * (end if leads else -end) for end in one["interval"])
    first, second = (100 * result[key]["mAP"] for key in ("first", "second"))
    better = "B" if leads else "A"
    text = f"On these {pictures} pictures neither is shown to be better."
    if one["p_value"] < SIGNIFICANT:
        text = f"{better} is better."
    points = f"{100 * abs(one['difference']):.2f} points"
    gap = f"no difference, {points}" if points == "0.00 points" else f"{better} leads by {points}"
    text += (
        f" mAP: A {first:.2f}, B {second:.2f}; {gap} (95 % interval {low:.2f} to {high:.2f}, p = {one['p_value']:.3f})."
    )
    if same := result.get("same_length"):
        text += (
            f" With at most {same['boxes']} boxes a picture of both: A {100 * same['first']:.2f}, "
            f"B {100 * same['second']:.2f}."
        )
    classes = result["difference"]["per_class"]
    told, shown = [], 0
    for label, sign in (("A", -1), ("B", 1)):
        names = [name for name, own in classes.items() if own["p_value"] < SIGNIFICANT and own["difference"] * sign > 0]
        shown += len(names)
        told += [f"{label} is shown to be better at {', '.join(names)}"] * bool(names)
    left = sum(not np.isnan(own["p_value"]) for own in classes.values()) - shown
    undecided = f"; undecided: {left}" * bool(left)
    return f"{text} By class, {' and '.join(told) + undecided if told else 'none is shown to differ'}."


def describe_test(result: Mapping[str, Any]) -> str:
    """Say what the intervals and p-values of `compare_detectors` are.

    Examples
    --------
    >>> print(describe_test({"draws": 1000, "seed": 0}))
    Paired bootstrap over the pictures, 1,000 draws, seed 0: percentile intervals of 95 %, two-sided p-values, none of which can be below 0.001. The p-values of classes are corrected for their number (Holm), the intervals are not: one can exclude 0 although the corrected p-value exceeds 0.05.
    """  # noqa: E501
    least = 1 / (result["draws"] + 1)
    return (
        f"Paired bootstrap over the pictures, {result['draws']:,} draws, seed {result['seed']}: percentile intervals "
        f"of 95 %, two-sided p-values, none of which can be below {least:.3f}. The p-values of classes are corrected "
        "for their number (Holm), the intervals are not: one can exclude 0 although the corrected p-value exceeds 0.05."
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number, so that the smallest is below 0.05 in one of twenty cases if none is true.

    Those that are nan stay so, and do not count.

    References
    ----------
    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics, 1979.

    Examples
    --------
    >>> holm([0.03, 0.01, float("nan"), 0.5])
    [0.06, 0.03, nan, 0.5]
    """
    given = np.asarray(p_values, np.float64)
    order = np.argsort(given)[: int((~np.isnan(given)).sum())]  # nan is last
    corrected = given.copy()
    corrected[order] = np.maximum.accumulate(given[order] * np.arange(len(order), 0, -1)).clip(max=1)
    return [float(one) for one in corrected]


def _summary(metric: Rules) -> Metric:
    return "voc12" if metric == "ilsvrc" else metric


def _match(
    pictures: Sequence[Picture],
    found: Mapping[str, Detections],
    classes: Sequence[str],
    metric: Rules,
    blacklist: Collection[tuple[str, str]],
) -> dict[str, list[Matches]]:
    """Match by the rules: one list of matches for each class, of several IoUs for COCO's, the first of which is 0.5."""
    if metric == "coco":
        return match_coco(pictures, found, classes)
    if metric == "ilsvrc":
        matches = match_ilsvrc(pictures, found, classes, blacklist)
    else:
        matches = match_voc(pictures, found, classes)
    return {name: [one] for name, one in matches.items()}


def _precisions(matches: Sequence[Matches], weights: NDArray[np.int32], metric: Rules) -> NDArray[np.float64]:
    every = [weighted_average_precision(one, weights, _summary(metric)) for one in matches]
    return np.asarray(np.mean(every, axis=0))


def _difference(draws: Bootstrap, values: NDArray[np.float64]) -> dict[str, Any]:
    low, high, p_value = draws.difference(values)
    return {"difference": float(values[0]), "interval": [low, high], "p_value": p_value}


def _effects(matches: Sequence[Mapping[str, Sequence[Matches]]], metric: Rules) -> NDArray[np.float64]:
    """By how much the difference of the mAPs is higher with each picture (P,) than without it."""
    metric = "voc12" if metric == "voc07" else metric
    first, second = (
        mean_over_classes({name: _without_each(one, metric) for name, one in of_detector.items()})
        for of_detector in matches
    )
    difference = second - first
    return np.nan_to_num(difference[0] - difference[1:])


def _without_each(matches: Sequence[Matches], metric: Rules) -> NDArray[np.float64]:
    """Average precision of a class (1 + P,) on all pictures, and without each of them."""
    positives = matches[0].positives_per_picture
    # Others change nothing.
    own = np.union1d(matches[0].picture, np.flatnonzero(positives))
    matches = [
        one._replace(picture=np.searchsorted(own, one.picture), positives_per_picture=positives[own]) for one in matches
    ]
    result = np.full(1 + len(positives), _precisions(matches, np.ones((1, len(own)), np.int32), metric)[0])
    for start in range(0, len(own), _ROWS):
        rows = own[start : start + _ROWS]
        weights = np.ones((len(rows), len(own)), np.int32)
        weights[np.arange(len(rows)), start + np.arange(len(rows))] = 0
        result[1 + rows] = _precisions(matches, weights, metric)
    return result


def _choose(
    pictures: Sequence[Picture], found: Mapping[str, Detections], classes: Sequence[str], threshold: float
) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Boxes and labels of each picture's detections of known classes from a score on."""
    chosen, nothing = [], Detections.empty(classes)
    for picture in pictures:
        one = found.get(picture.image_id, nothing)
        labels = renumber_labels(one, classes)
        kept = (one.scores >= threshold) & (labels >= 0)
        chosen.append((one.boxes[kept], labels[kept]))
    return chosen


def _extent(pictures: Sequence[Picture], found: Mapping[str, Detections]) -> dict[str, Any]:
    """Count a detector's detections, whatever their classes; a list that ends early has a curve that does."""
    scores = [found[one.image_id].scores for one in pictures if one.image_id in found]
    lowest = min((float(one.min()) for one in scores if len(one)), default=float("nan"))
    counts = [len(one) for one in scores]
    return {"total": sum(counts), "most_per_picture": max(counts, default=0), "lowest_score": lowest}


def _same_length(
    pictures: Sequence[Picture],
    found: Sequence[Mapping[str, Detections]],
    summaries: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
    metric: Rules,
    blacklist: Collection[tuple[str, str]],
) -> dict[str, Any] | None:
    """Evaluate the longer lists cut to the length of the others, if they are not as long."""
    lengths = [own["most_per_picture"] for own in summaries]
    most, longer = min(lengths), int(np.argmax(lengths))
    if most == max(lengths) or not most:
        return None
    best = {name: one[np.argsort(-one.scores, kind="stable")[:most]] for name, one in found[longer].items()}
    matches, whole = _match(pictures, best, classes, metric, blacklist), np.ones((1, len(pictures)), np.int32)
    maps = [own["mAP"] for own in summaries]
    maps[longer] = mean_of_numbers(float(_precisions(own, whole, metric)[0]) for own in matches.values())
    return {"boxes": most, "first": maps[0], "second": maps[1]}


def _agreement(
    own: Sequence[tuple[NDArray[np.float32], NDArray[np.int64]]],
    others: Sequence[tuple[NDArray[np.float32], NDArray[np.int64]]],
) -> dict[str, Any]:
    """Count detections, and those of which the other detector has a box of the same class."""
    best = np.concatenate(
        [np.zeros(0)]
        + [
            (box_iou(boxes, other_boxes) * (labels[:, None] == other_labels)).max(axis=1, initial=0)
            for (boxes, labels), (other_boxes, other_labels) in zip(own, others, strict=True)
        ]
    )
    agreeing = best >= 0.5
    mean = float(best[agreeing].mean()) if agreeing.any() else float("nan")
    return {"detections": len(best), "agreeing": int(agreeing.sum()), "agreeing_iou": mean}


def _found_objects(matches: Sequence[Mapping[str, Matches]], thresholds: Sequence[float]) -> dict[str, int]:
    """Count the objects that both detectors find, one of them, or none."""
    found = []
    for of_detector, threshold in zip(matches, thresholds, strict=True):
        objects = set()
        for name, one in of_detector.items():
            own = (one.outcome == HIT) & (one.score >= threshold)
            objects |= {(name, *pair) for pair in zip(one.picture[own].tolist(), one.object[own].tolist(), strict=True)}
        found.append(objects)
    first, second = found
    total = sum(one.positives for one in matches[0].values())
    return {
        "both": len(first & second),
        "first": len(first - second),
        "second": len(second - first),
        "neither": total - len(first | second),
    }
