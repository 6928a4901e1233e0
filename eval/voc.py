"""Mean average precision as the PASCAL VOC development kit computes it, to the last detail."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ..data import Detections, Picture
from ..data.arguments import check_choice
from .bootstrap import Bootstrap, summarise_draws
from .matching import Matches, count_pictures, match_voc
from .precision import class_average_precision, mean_of_numbers, weighted_average_precision
from .reliability import summarise_reliability


def evaluate_voc(
    pictures: Sequence[Picture],
    detections: Mapping[str, Detections],
    classes: Sequence[str] | None = None,
    metric: Literal["voc07", "voc12"] = "voc07",
    iou_threshold: float = 0.5,
    bootstrap: int | None = None,
    seed: int = 0,
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
    bootstrap : int or None
        How often the pictures are drawn for the intervals, 100 or more; None for no intervals. 1,000 are usual.
    seed : int
        Of the draws.

    Returns
    -------
    dict
        ``"mAP"``: float, the mean over the classes that have objects. ``"per_class"``: name to average
        precision: 0 for a class with objects and no detections; nan, not counted in the mean, for a class
        without objects (other than difficult ones). ``"calibration"``: how often scores are right, see
        `reliability.summarise_reliability`. ``"intervals"``, if there is a `bootstrap`: of 95 %, see
        `bootstrap.summarise_draws`.

    Raises
    ------
    EvaluationError
        If none of the detections' pictures is among `pictures`, two pictures have the same ``image_id``, or
        pictures were read with other classes than `classes`.
    SettingError
        If `metric` is unknown, a number is out of range, or `classes` is not a list of names.

    Warns
    -----
    DataWarning
        If pictures of the detections are not among `pictures` and left out, many detections are far outside their
        pictures, or the detections do not know a class that has objects.

    References
    ----------
    Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010, section 4.2;
    ``VOCevaldet.m`` of the VOC 2007 development kit. Efron and Tibshirani, "An Introduction to the Bootstrap", 1993,
    section 14.3.

    Examples
    --------
    >>> import numpy as np
    >>> box, label = np.array([[0, 0, 20, 10]], np.float32), np.array([7])
    >>> picture = Picture("000001", "000001.jpg", 20, 10, box, label, np.array([False]), np.array([False]))
    >>> from inception_rcnn.data import VOC_CLASSES
    >>> found = Detections(box, np.array([0.9], np.float32), label, VOC_CLASSES)
    >>> result = evaluate_voc([picture], {"000001": found})
    >>> result["mAP"], result["per_class"]["cat"], result["per_class"]["dog"]
    (1.0, 1.0, nan)
    """
    check_choice("metric", metric, ("voc07", "voc12"))
    return summarise_matches(match_voc(pictures, detections, classes, iou_threshold), metric, bootstrap, seed)


def summarise_matches(
    matches: Mapping[str, Matches], metric: Literal["voc07", "voc12"], draws: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Compute the results of an evaluation, see `evaluate_voc`, from the outcomes of all detections."""
    bootstrap = None if draws is None else Bootstrap(count_pictures(matches), draws, seed)
    per_class = {name: class_average_precision(one, metric) for name, one in matches.items()}
    result = {
        "mAP": mean_of_numbers(per_class.values()),
        "per_class": per_class,
        "calibration": summarise_reliability(matches, bootstrap),
    }
    if bootstrap is None:
        return result
    values = {name: weighted_average_precision(one, bootstrap.weights, metric) for name, one in matches.items()}
    return result | {"intervals": summarise_draws(values, bootstrap)}
