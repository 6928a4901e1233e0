"""Average precision as the PASCAL VOC development kit computes it, to the last detail."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from ..data import Detections, Picture
from ..data.errors import SettingError
from .matching import Matches, match_voc
from .reliability import summarise_reliability


def average_precision(recall: ArrayLike, precision: ArrayLike, metric: Literal["voc07", "voc12"] = "voc07") -> float:
    """Summarise a precision-recall curve as one number.

    Parameters
    ----------
    recall : array_like of float64, shape (D,)
        Recall after each detection, best first; never falling.
    precision : array_like of float64, shape (D,)
        Precision after each detection.
    metric : {"voc07", "voc12"}
        "voc07": the mean of the best precision at a recall of at least 0, 0.1, ..., 1. "voc12", used from VOC
        2010 on: the area under the curve once precision is made to fall monotonically.

    Returns
    -------
    float
        From 0 to 1; 0 without detections.

    Raises
    ------
    SettingError
        If `metric` is neither, the shapes differ, or a number is not finite.

    References
    ----------
    ``VOCevaldet.m`` and ``VOCap.m`` of the VOC 2007 and 2012 development kits.

    Examples
    --------
    >>> average_precision([0.5, 0.5, 1.0], [1.0, 0.5, 2 / 3], metric="voc12")
    0.8333333333333333
    """
    recall, precision = np.asarray(recall, np.float64), np.asarray(precision, np.float64)
    if recall.ndim != 1 or recall.shape != precision.shape:
        raise SettingError(f"recall {recall.shape} and precision {precision.shape} must have one shape (D,)")
    if not (np.isfinite(recall).all() and np.isfinite(precision).all()):
        raise SettingError("recall and precision must be finite numbers")
    # The best precision at this recall or any higher one.
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    if metric == "voc07":
        # Multiples of 0.1 as Octave's 0:0.1:1 has them: 3 * 0.1 is a little above 0.3, so a recall of exactly
        # 3/10 falls short of it. Rounded multiples would change published figures.
        first = np.searchsorted(recall, np.arange(11) * 0.1, side="left")
        return float(np.append(envelope, 0.0)[first].sum() / 11)
    if metric == "voc12":
        return float(np.sum(np.diff(recall, prepend=0.0) * envelope))
    raise SettingError(f"metric must be 'voc07' or 'voc12', not {metric!r}")


def evaluate_voc(
    pictures: Sequence[Picture],
    detections: Mapping[str, Detections],
    classes: Sequence[str] | None = None,
    metric: Literal["voc07", "voc12"] = "voc07",
    iou_threshold: float = 0.5,
) -> dict[str, Any]:
    """Compute the mean average precision of detections by the rules of PASCAL VOC.

    `match_voc` has the rules.

    Parameters
    ----------
    pictures : sequence of Picture
        The annotated pictures; their labels are indices into `classes`.
    detections : mapping of str to Detections
        By ``image_id``. A picture that is not in it has no detections. Their classes are matched by name, and
        classes that are not evaluated are left out. Equal scores keep the order of `pictures`, then that
        of the picture's detections: the official order, if `pictures` is in the order of the split's list.
    classes : sequence of str, or None
        Names of the classes; None for those that the pictures were read with, or VOC's if they do not tell.
    metric : {"voc07", "voc12"}
        How `average_precision` summarises a class.
    iou_threshold : float
        Overlap from which a detection is good enough, 0 to 1.

    Returns
    -------
    dict
        ``"mAP"``: float, the mean over the classes that have objects. ``"per_class"``: name to average
        precision: 0 for a class with objects and no detections; nan, not counted in the mean, for a class
        without objects (other than difficult ones). ``"calibration"``: how often scores are right, see
        `reliability.summarise_reliability`.

    Raises
    ------
    EvaluationError
        If a detection is in a picture that is not among `pictures`, two pictures have the same ``image_id``, or
        pictures were read with other classes than `classes`.
    SettingError
        If `metric` is unknown, `iou_threshold` is not from 0 to 1, or `classes` is not a list of names.

    Warns
    -----
    DataWarning
        If many detections are far outside their pictures, or the detections do not know a class that has objects.

    References
    ----------
    Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010, section 4.2;
    ``VOCevaldet.m`` of the VOC 2007 development kit.

    Examples
    --------
    >>> box, label = np.array([[0, 0, 20, 10]], np.float32), np.array([7])
    >>> picture = Picture("000001", "000001.jpg", 20, 10, box, label, np.array([False]), np.array([False]))
    >>> from inception_rcnn.data import VOC_CLASSES
    >>> found = Detections(box, np.array([0.9], np.float32), label, VOC_CLASSES)
    >>> result = evaluate_voc([picture], {"000001": found})
    >>> result["mAP"], result["per_class"]["cat"], result["per_class"]["dog"]
    (1.0, 1.0, nan)
    """
    if metric not in ("voc07", "voc12"):
        raise SettingError(f"metric must be 'voc07' or 'voc12', not {metric!r}")
    return summarise_matches(match_voc(pictures, detections, classes, iou_threshold), metric)


def summarise_matches(matches: Mapping[str, Matches], metric: Literal["voc07", "voc12"]) -> dict[str, Any]:
    """Compute the results of an evaluation, see `evaluate_voc`, from the outcomes of all detections."""
    per_class = {name: class_average_precision(one, metric) for name, one in matches.items()}
    return {
        "mAP": mean_of_numbers(per_class.values()),
        "per_class": per_class,
        "calibration": summarise_reliability(matches),
    }


def class_average_precision(matches: Matches, metric: Literal["voc07", "voc12"]) -> float:
    """Average precision of one class from 0 to 1, nan if it has no objects; see `average_precision`."""
    precision, recall = matches.precision_recall()
    return average_precision(recall, precision, metric) if matches.positives else float("nan")


def mean_of_numbers(values: Iterable[float]) -> float:
    """Mean of the values that are not nan, nan if there is none."""
    numbers = [value for value in values if not np.isnan(value)]
    return float(np.mean(numbers)) if numbers else float("nan")
