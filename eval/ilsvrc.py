"""Average precision as the development kit of the ILSVRC detection challenge computes it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..data import Detections, Picture
from .matching import match_ilsvrc
from .voc import summarise_matches


def evaluate_ilsvrc(
    pictures: Sequence[Picture],
    detections: Mapping[str, Detections],
    classes: Sequence[str] | Mapping[str, str] | None = None,
    blacklist: Collection[tuple[str, str]] = (),
    bootstrap: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute the mean average precision of detections by the rules of the ILSVRC detection challenge.

    `match_ilsvrc` has the rules; a class is summarised by the area under its curve, as VOC does since 2010.

    Parameters
    ----------
    pictures : sequence of Picture
        The annotated pictures; their labels are indices into `classes`.
    detections : mapping of str to Detections
        By ``image_id``; matched with `classes` by name.
    classes : sequence of str, mapping of str to str, or None
        Names of the classes, or WordNet ids to names as the readers take them; None for those that the pictures were
        read with, or the 200 of the challenge if they do not tell.
    blacklist : collection of (str, str)
        Pairs of ``image_id`` and class that do not count.
    bootstrap, seed : int
        As for `evaluate_voc`.

    Returns
    -------
    dict
        ``"mAP"``: float, the mean over the classes that have objects. ``"per_class"``: name to average
        precision, nan for a class without objects. ``"calibration"``: how often scores are right, see
        `reliability.summarise_reliability`. ``"intervals"``, if there is a `bootstrap`, as of `evaluate_voc`.

    Raises
    ------
    EvaluationError
        If none of the detections' pictures is among `pictures`, two pictures have the same ``image_id``, or
        pictures were read with other classes than `classes`.
    SettingError
        If `classes` is not a list of names, or a number is out of range.

    Warns
    -----
    DataWarning
        If pictures of the detections are not among `pictures` and left out, many detections are far outside their
        pictures, or the detections do not know a class that has objects.

    References
    ----------
    Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015, section 5.4;
    ``eval_detection.m`` of the ILSVRC 2014 development kit.

    Examples
    --------
    >>> import numpy as np
    >>> flags = np.array([False])
    >>> picture = Picture("1", "1.jpg", 99, 99, np.float32([[0, 0, 10, 10]]), np.array([0]), flags, flags)
    >>> found = Detections(np.float32([[0, 0, 15, 15]]), np.float32([0.9]), np.array([0]), ("ant",))
    >>> evaluate_ilsvrc([picture], {"1": found}, ("ant",))["mAP"]
    1.0
    """
    return summarise_matches(match_ilsvrc(pictures, detections, classes, blacklist), "voc12", bootstrap, seed)
