"""Average precision of one class: of its detections, and of as many draws of its pictures as one likes.

A draw is a vector of weights, one for each picture: how often it was drawn. The detections of a class are matched and
sorted once. A detection in a picture of weight 3 then counts as three detections with its score, an object as three
objects, and the precision-recall curve of a draw is a cumulative sum of weights.
"""

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data.arguments import check_choice
from ..data.errors import SettingError
from ..data.system.kernels import kernel
from .matching import HIT, IGNORED, Matches

Metric = Literal["voc07", "voc12", "coco"]

RECALL_LEVELS: dict[Metric, NDArray[np.floating[Any]]] = {
    # Multiples of 0.1 as Octave's 0:0.1:1 has them: 3 * 0.1 is a little above 0.3, so a recall of exactly 3/10 falls
    # short of it. Rounded multiples would change published figures.
    "voc07": np.arange(11) * 0.1,
    "voc12": np.zeros(0),
    "coco": np.linspace(0, 1, 101),
}
"""The recalls at which precision is read, whose mean is the average precision; none for the area under the curve."""


def average_precision(recall: ArrayLike, precision: ArrayLike, metric: Metric = "voc07") -> float:
    """Summarise a precision-recall curve as one number.

    Parameters
    ----------
    recall : array_like of float64, shape (D,)
        Recall after each detection, best first; never falling.
    precision : array_like of float64, shape (D,)
        Precision after each detection.
    metric : {"voc07", "voc12", "coco"}
        "voc07": the mean of the best precision at a recall of at least 0, 0.1, ..., 1. "voc12", used from VOC
        2010 on: the area under the curve once precision is made to fall monotonically. "coco": as "voc07", in steps of
        0.01.

    Returns
    -------
    float
        From 0 to 1; 0 without detections.

    Raises
    ------
    SettingError
        If `metric` is unknown, the shapes differ, or a number is not finite.

    References
    ----------
    ``VOCevaldet.m`` and ``VOCap.m`` of the VOC 2007 and 2012 development kits; ``cocoeval.py`` of pycocotools.

    Examples
    --------
    >>> average_precision([0.5, 0.5, 1.0], [1.0, 0.5, 2 / 3], metric="voc12")
    0.8333333333333333
    """
    check_choice("metric", metric, [*RECALL_LEVELS])
    recall, precision = np.asarray(recall, np.float64), np.asarray(precision, np.float64)
    if recall.ndim != 1 or recall.shape != precision.shape:
        raise SettingError(f"recall {recall.shape} and precision {precision.shape} must have one shape (D,)")
    if not (np.isfinite(recall).all() and np.isfinite(precision).all()):
        raise SettingError("recall and precision must be finite numbers")
    # The best precision at this recall or any higher one.
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    levels = RECALL_LEVELS[metric]
    if not len(levels):
        return float(np.sum(np.diff(recall, prepend=0.0) * envelope))
    first = np.searchsorted(recall, levels, side="left")
    return float(np.append(envelope, 0.0)[first].sum() / len(levels))


def class_average_precision(matches: Matches, metric: Metric) -> float:
    """Average precision of one class from 0 to 1, nan if it has no objects; see `average_precision`."""
    precision, recall = matches.precision_recall()
    return average_precision(recall, precision, metric) if matches.positives else float("nan")


def mean_of_numbers(values: Iterable[float]) -> float:
    """Mean of the values that are not nan, nan if there is none."""
    numbers = [value for value in values if not np.isnan(value)]
    return float(np.mean(numbers)) if numbers else float("nan")


def weighted_average_precision(matches: Matches, weights: NDArray[np.int32], metric: Metric) -> NDArray[np.float64]:
    """Compute the average precision of one class in many draws of the pictures.

    It is what `class_average_precision` is of the drawn pictures, with a copy for each time that one was drawn.

    Parameters
    ----------
    matches : Matches
        The detections of a class, with its objects in each picture.
    weights : ndarray of int32, shape (B, P)
        How often each draw has each picture.
    metric : {"voc07", "voc12", "coco"}
        See `average_precision`.

    Returns
    -------
    ndarray of float64, shape (B,)
        From 0 to 1; nan for a draw without objects of the class.

    Notes
    -----
    Of detections with one score, copies of one follow each other; in copies of a picture they would take turns. A draw
    takes time in proportion to the detections, and no memory.

    Examples
    --------
    >>> score, outcome, none = np.array([0.9, 0.8, 0.7]), np.array([1, 0, 1], np.int8), np.zeros(3, np.int64)
    >>> cat = Matches(np.array([0, 1, 2]), none, score, outcome, none, score, 3, np.array([1, 1, 1]))
    >>> weights = np.array([[1, 1, 1], [2, 0, 1], [0, 3, 0]], np.int32)
    >>> weighted_average_precision(cat, weights, "voc12").round(4).tolist()
    [0.5556, 1.0, 0.0]
    """
    if len(matches.positives_per_picture) != weights.shape[1]:
        raise SettingError(
            f"weights are of {weights.shape[1]} pictures, the class has objects of {len(matches.positives_per_picture)}"
        )
    counted = matches.outcome != IGNORED
    result = np.empty(len(weights))
    _weighted_average_precision(
        np.ascontiguousarray(weights, np.int32),
        matches.picture[counted].astype(np.int32),
        matches.outcome[counted] == HIT,
        matches.positives_per_picture,
        RECALL_LEVELS[metric],
        result,
    )
    return result


@kernel("void(int32[:,::1], int32[::1], boolean[::1], int64[::1], float64[::1], float64[::1])")
def _weighted_average_precision(weights, picture, hit, objects, levels, result):  # type: ignore[no-untyped-def]
    """Go through the curve of each draw from its end, where the best precision at any higher recall is known."""
    for b in range(len(weights)):
        positives, found, count = 0, 0, 0
        for p in range(len(objects)):
            positives += weights[b, p] * objects[p]
        for d in range(len(picture)):
            weight = weights[b, picture[d]]
            count += weight
            found += weight * hit[d]
        best, total, level = 0.0, 0.0, len(levels) - 1
        while level >= 0 and levels[level] > found / positives:
            level -= 1
        for d in range(len(picture) - 1, -1, -1):
            weight = weights[b, picture[d]]
            if hit[d] and weight > 0:
                best = max(best, found / count)
                found -= weight
                total += weight * best if len(levels) == 0 else 0.0
                while level >= 0 and levels[level] > found / positives:
                    total += best
                    level -= 1
            count -= weight
        # Recall 0 is reached before the first hit.
        total += (level + 1) * best
        result[b] = total / (len(levels) if len(levels) else positives) if positives else np.nan
