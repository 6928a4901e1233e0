"""TIDE: by how much the average precision would rise without the errors of each of six types.

Bolya, Foley, Hays and Hoffman, "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020. Unlike the
shares of `errors.py`, these figures say what an error costs, whatever its score. Numbers are those of the authors'
package ``tidecv``.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data import Detections, Picture
from ..data.arguments import check_number
from .matching import FALSE, HIT, IGNORED, check_detections, check_pictures, evaluated_classes, renumber_labels
from .precision import Metric, average_precision, mean_of_numbers

TIDE_TYPES = ("classification", "localisation", "both", "duplicate", "background", "missed")
"""The types of errors; `tidecv` calls them Cls, Loc, Both, Dupe, Bkg and Miss."""
_CLASSIFICATION, _LOCALISATION, _BOTH, _DUPLICATE, _BACKGROUND, _MISSED = range(len(TIDE_TYPES))


class _Claims(NamedTuple):
    """Detections of one or of all pictures: what each is, and what it would be if its error were put right."""

    label: NDArray[np.int64]
    score: NDArray[np.float64]
    outcome: NDArray[np.int8]
    kind: NDArray[np.int8]  # index into TIDE_TYPES, -1 for a hit
    corrected: NDArray[np.int64]  # the class of which it would be a hit; -1 if it would be gone


class _Objects(NamedTuple):
    """Objects of one or of all pictures, without those that are ignored."""

    label: NDArray[np.int64]
    found: NDArray[np.bool_]
    missed: NDArray[np.bool_]  # nor would one be found if an error were put right


def tide_errors(
    pictures: Sequence[Picture],
    detections: Mapping[str, Detections],
    classes: Sequence[str] | None = None,
    *,
    metric: Metric = "coco",
    iou_threshold: float = 0.5,
    background_threshold: float = 0.1,
) -> dict[str, Any]:
    """Measure what each type of error costs in mean average precision.

    Of a false detection the first type that applies. With f and b the two thresholds:

    - *localisation*: its IoU with an object of its class is from b to f;
    - *classification*: its IoU with an object of another class is f or more;
    - *duplicate*: its IoU with an object of its class is f or more, but a better detection has found that object;
    - *background*: its IoU with every object is b or less;
    - *both*: anything else, such as a loose box of the wrong class.

    *Missed* are the objects that no detection finds, and that none would find if its class or its box were right.

    Errors of a type are put right by making the best detection of a wrong class or with a loose box the hit that it
    would have been, and by removing all others; objects missed need not be found then. The rise of the mean average
    precision is the type's cost. Costs do not add up to what is missing to 1.

    Parameters
    ----------
    pictures : sequence of Picture
        The annotated pictures. Difficult objects and crowds are regions in which detections of their class are ignored,
        if more than half of their area is inside.
    detections : mapping of str to Detections
        By ``image_id``, all of which count; matched with `classes` by name.
    classes : sequence of str, or None
        Names of the classes; None for those that the pictures were read with.
    metric : {"coco", "voc07", "voc12"}
        How a class is summarised; "coco" is that of the paper. See `average_precision`.
    iou_threshold, background_threshold : float
        The thresholds f and b, 0 to 1.

    Returns
    -------
    dict
        ``"mAP"``: that of TIDE's matching, over the classes with objects. ``"gains"``: type to the rise of the mAP, 0
        or more; besides ``"false positives"``, if all of them had lower scores than all hits, and ``"false
        negatives"``, if objects that are not found did not count. ``"counts"``: type to the number of errors.

    Raises
    ------
    EvaluationError
        If two pictures have the same ``image_id``, a label or a number is none, or pictures were read with other
        classes than `classes`.
    SettingError
        If a number is out of range.

    References
    ----------
    Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020, section 2.

    Examples
    --------
    >>> from pathlib import Path
    >>> no = np.array([False, False])
    >>> objects = np.float32([[0, 0, 20, 10], [30, 0, 40, 10]])
    >>> picture = Picture("1", Path("1.jpg"), 40, 20, objects, np.array([0, 1]), no, no)
    >>> boxes = np.float32([[0, 0, 20, 10], [0, 0, 20, 10], [30, 0, 40, 4]])
    >>> found = {"1": Detections(boxes, np.float32([0.9, 0.8, 0.7]), np.array([0, 1, 1]), ("cat", "dog"))}
    >>> result = tide_errors([picture], found, ["cat", "dog"])
    >>> {name: round(gain, 2) for name, gain in result["gains"].items() if gain > 0}
    {'localisation': 0.25}
    """
    check_number("iou_threshold", iou_threshold, 0, 1)
    check_number("background_threshold", background_threshold, 0, 1)
    names = evaluated_classes(pictures, classes, ())
    check_pictures(pictures, names)
    check_detections(detections)
    nothing = Detections.empty(names)
    thresholds = iou_threshold, background_threshold
    if not pictures:
        gains = dict.fromkeys((*TIDE_TYPES, "false positives", "false negatives"), 0.0)
        return {"mAP": math.nan, "gains": gains, "counts": dict.fromkeys(TIDE_TYPES, 0)}
    parts = [_sort_errors(one, detections.get(one.image_id, nothing), names, *thresholds) for one in pictures]
    claims = _Claims(*(np.concatenate(column) for column in zip(*(one for one, _ in parts), strict=True)))
    objects = _Objects(*(np.concatenate(column) for column in zip(*(one for _, one in parts), strict=True)))
    positives = np.bincount(objects.label, minlength=len(names))
    measured = np.flatnonzero(positives)

    def mean_precision(
        label: NDArray[np.int64], score: NDArray[np.float64], hit: NDArray[np.bool_], to_find: NDArray[np.int64]
    ) -> float:
        order = np.argsort(-score, kind="stable")
        label, hit = label[order], hit[order]
        return mean_of_numbers([_precision(hit[label == one], to_find[one], metric) for one in measured])

    listed = claims.outcome != IGNORED
    hit = claims.outcome == HIT
    base = mean_precision(claims.label[listed], claims.score[listed], hit[listed], positives)
    gains = {}
    for kind, name in enumerate(TIDE_TYPES):
        wrong = claims.kind == kind
        becomes = wrong & (claims.corrected >= 0)
        kept = (listed & ~wrong) | becomes
        label = np.where(becomes, claims.corrected, claims.label)
        to_find = positives
        if kind == _MISSED:
            to_find = positives - np.bincount(objects.label[objects.missed], minlength=len(names))
        better = mean_precision(label[kept], claims.score[kept], (hit | becomes)[kept], to_find)
        gains[name] = max(better - base, 0.0)
    ranked = mean_precision(claims.label[listed], hit[listed].astype(np.float64), hit[listed], positives)
    found = np.bincount(objects.label[objects.found], minlength=len(names))
    gains["false positives"] = ranked - base
    gains["false negatives"] = mean_precision(claims.label[listed], claims.score[listed], hit[listed], found) - base
    counts = [int((claims.kind == kind).sum()) for kind in range(_MISSED)] + [int(objects.missed.sum())]
    return {"mAP": base, "gains": gains, "counts": dict(zip(TIDE_TYPES, counts, strict=True))}


def _precision(hit: NDArray[np.bool_], positives: int, metric: Metric) -> float:
    """Average precision of a class's detections, best first; 0 if there is nothing to find."""
    if not positives:
        return 0.0
    found = np.cumsum(hit)
    return average_precision(found / positives, found / np.arange(1, len(hit) + 1), metric)


def _sort_errors(
    picture: Picture, found: Detections, classes: Sequence[str], good: float, background: float
) -> tuple[_Claims, _Objects]:
    """Match a picture's detections, best first, and find the type of each error."""
    ignore = picture.difficult | picture.crowd
    label, regions = picture.labels[~ignore], picture.labels[ignore]
    own = renumber_labels(found, classes)
    rows = np.argsort(-found.scores, kind="stable")
    rows = rows[own[rows] >= 0]
    claimed, score = own[rows], found.scores[rows].astype(np.float64)
    boxes = found.boxes[rows].astype(np.float64)
    overlap, _ = _overlaps(boxes, picture.boxes[~ignore].astype(np.float64))
    same = claimed[:, None] == label
    right, wrong = overlap * same, overlap * ~same

    outcome = np.full(len(rows), FALSE, np.int8)
    taken = np.zeros(len(label), bool)
    free = right.copy()
    for row in np.flatnonzero(right.max(axis=1, initial=0) >= good):
        best = free[row].argmax()
        if free[row, best] >= good:
            outcome[row], taken[best], free[:, best] = HIT, True, 0
    _, inside = _overlaps(boxes, picture.boxes[ignore].astype(np.float64))
    ignored = ((inside > good) & (claimed[:, None] == regions)).any(axis=1)
    outcome[(outcome == FALSE) & ignored] = IGNORED

    kind = np.full(len(rows), -1, np.int8)
    corrected = np.full(len(rows), -1)
    usable = np.zeros(len(label), bool)
    mistakes = np.flatnonzero(outcome != HIT)
    if len(label):
        nearest = np.stack([right.argmax(axis=1), wrong.argmax(axis=1)], axis=1)
        conditions = [
            (right.max(axis=1) >= background) & (right.max(axis=1) <= good),
            wrong.max(axis=1) >= good,
            (right * taken).max(axis=1) >= good,
            overlap.max(axis=1) <= background,
        ]
        kinds = np.select(conditions, [_LOCALISATION, _CLASSIFICATION, _DUPLICATE, _BACKGROUND], _BOTH)
        kind[mistakes] = kinds[mistakes]
        # Best first: the first that would find an object is the one that does.
        for row in mistakes[kinds[mistakes] <= _LOCALISATION]:
            one = nearest[row, 0 if kinds[row] == _LOCALISATION else 1]
            if not (taken[one] or usable[one]):
                corrected[row], usable[one] = label[one], True
    else:
        kind[mistakes] = _BACKGROUND
    return _Claims(claimed, score, outcome, kind, corrected), _Objects(label, taken, ~taken & ~usable)


def _overlaps(
    boxes: NDArray[np.float64], others: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """IoU of each box with each other one, and the share of the box inside it (N, M), in double precision."""
    sides = np.minimum(boxes[:, None, 2:], others[:, 2:]) - np.maximum(boxes[:, None, :2], others[:, :2])
    inter = np.maximum(sides, 0).prod(axis=2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)[:, None]
    union = area + (others[:, 2:] - others[:, :2]).prod(axis=1) - inter
    share = np.divide(inter, area, out=np.zeros_like(inter), where=area > 0)
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0), share
