"""Average precision as the PASCAL VOC development kit computes it, to the last detail.

The kit counts pixels from 1 and includes both corners, so the width of a box is ``xmax - xmin + 1``. Our
boxes are continuous, ``x1 = xmin - 1`` and ``x2 = xmax``, and their width ``x2 - x1`` is that same number, as
is the width of every intersection: the plain continuous overlap *is* the kit's inclusive one, and nothing has
to be converted.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data import VOC_CLASSES, Detections, Picture
from ..data.kernels import kernel

__all__ = ["EvaluationError", "average_precision", "evaluate_voc"]

_HIT, _FALSE, _IGNORED = 1, 0, -1


class EvaluationError(ValueError):
    """Detections and annotations do not belong together; the text is one line that says how."""


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
    ValueError
        If `metric` is neither, or the shapes differ.

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
        raise ValueError(f"recall {recall.shape} and precision {precision.shape} must have one shape (D,)")
    # The best precision at this recall or any higher one.
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    if metric == "voc07":
        # Multiples of 0.1 as Octave's 0:0.1:1 has them: 3 * 0.1 is a little above 0.3, so a recall of exactly
        # 3/10 falls short of it. Rounded multiples would change published figures.
        first = np.searchsorted(recall, np.arange(11) * 0.1, side="left")
        return float(np.append(envelope, 0.0)[first].sum() / 11)
    if metric == "voc12":
        return float(np.sum(np.diff(recall, prepend=0.0) * envelope))
    raise ValueError(f"metric must be 'voc07' or 'voc12', not {metric!r}")


def evaluate_voc(
    pictures: Sequence[Picture],
    detections: Mapping[str, Detections],
    classes: Sequence[str] = VOC_CLASSES,
    metric: Literal["voc07", "voc12"] = "voc07",
    iou: float = 0.5,
) -> dict[str, Any]:
    """Compute the mean average precision of detections by the rules of PASCAL VOC.

    The detections of a class are taken from the best score down, over all pictures. Each is compared with the
    object of its class that it overlaps most, and with no other. If that overlap is below `iou`, the
    detection is false; if the object is difficult, the detection is left out; if the object has been found
    before, the detection is false; otherwise it is a hit. Objects marked as a crowd are treated as difficult
    ones.

    Parameters
    ----------
    pictures : sequence of Picture
        The annotated pictures; their labels are indices into `classes`.
    detections : mapping of str to Detections
        By ``image_id``. A picture that is not in it has no detections. Their classes are matched by name, and
        classes that are not evaluated are left out. Equal scores keep the order of `pictures`, then that
        of the picture's detections: the official order, if `pictures` is in the order of the split's list.
    classes : sequence of str
        Names of the classes.
    metric : {"voc07", "voc12"}
        How `average_precision` summarises a class.
    iou : float
        Overlap from which a detection is good enough.

    Returns
    -------
    dict
        ``"mAP"``: float, the mean over the classes that have objects. ``"per_class"``: name to average
        precision: 0 for a class with objects and no detections; nan, not counted in the mean, for a class
        without objects (other than difficult ones).

    Raises
    ------
    EvaluationError
        If a detection is in a picture that is not among `pictures`, or two pictures have the same
        ``image_id``.
    ValueError
        If `metric` is unknown.

    References
    ----------
    Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010, section 4.2;
    ``VOCevaldet.m`` of the VOC 2007 development kit.

    Examples
    --------
    >>> box, label = np.array([[0, 0, 20, 10]], np.float32), np.array([7])
    >>> picture = Picture("000001", "000001.jpg", 20, 10, box, label, np.array([False]), np.array([False]))
    >>> found = Detections(box, np.array([0.9], np.float32), label, VOC_CLASSES)
    >>> result = evaluate_voc([picture], {"000001": found})
    >>> result["mAP"], result["per_class"]["cat"], result["per_class"]["dog"]
    (1.0, 1.0, nan)
    """
    position = {picture.image_id: i for i, picture in enumerate(pictures)}
    if len(position) < len(pictures):
        twice = next(p.image_id for i, p in enumerate(pictures) if position[p.image_id] != i)
        raise EvaluationError(f"picture {twice!r} is among the annotations twice; give every picture once")
    unknown = [image_id for image_id, found in detections.items() if len(found) and image_id not in position]
    if unknown:
        raise EvaluationError(
            f"picture {unknown[0]!r} has detections but no annotations ({len(unknown)} such in all); "
            "evaluate on the pictures that were detected on"
        )

    objects = _Table(
        images=[np.full(len(p.labels), i) for i, p in enumerate(pictures)],
        labels=[p.labels for p in pictures],
        boxes=[p.boxes for p in pictures],
        values=[p.difficult | p.crowd for p in pictures],
    )
    found = [(i, detections[p.image_id]) for i, p in enumerate(pictures) if p.image_id in detections]
    claims = _Table(
        images=[np.full(len(d), i) for i, d in found],
        labels=[_renumber(d, classes) for _, d in found],
        boxes=[d.boxes for _, d in found],
        values=[d.scores for _, d in found],
    )
    per_class = {}
    for label, name in enumerate(classes):
        image, box, difficult = objects.of(label)
        claim_image, claim_box, score = claims.of(label)
        order = np.argsort(-score, kind="stable")
        # Objects lie picture by picture, so those of picture i are start[i] : start[i + 1].
        start = np.searchsorted(image, np.arange(len(pictures) + 1))
        outcome = _match(claim_box[order], claim_image[order], box, start, difficult.astype(bool), iou)
        per_class[name] = _class_precision(outcome, int((difficult == 0).sum()), metric)
    counted = [value for value in per_class.values() if not np.isnan(value)]
    return {"mAP": float(np.mean(counted)) if counted else float("nan"), "per_class": per_class}


class _Table:
    """Boxes of many pictures in one table, to be had class by class."""

    def __init__(
        self,
        images: list[NDArray[np.int64]],
        labels: list[NDArray[np.int64]],
        boxes: list[NDArray[np.float32]],
        values: Sequence[NDArray[np.float32] | NDArray[np.bool_]],
    ) -> None:
        labels_ = np.concatenate([np.zeros(0, np.int64), *labels])
        # Stable, so that within a class the pictures and their boxes keep their order.
        order = np.argsort(labels_, kind="stable")
        self.labels = labels_[order]
        self.images = np.concatenate([np.zeros(0, np.int64), *images])[order]
        self.boxes = np.concatenate([np.zeros((0, 4)), *boxes])[order]
        self.values = np.concatenate([np.zeros(0), *values])[order]

    def of(self, label: int) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        start, end = np.searchsorted(self.labels, [label, label + 1])
        return self.images[start:end], self.boxes[start:end], self.values[start:end]


def _renumber(found: Detections, classes: Sequence[str]) -> NDArray[np.int64]:
    """Return the labels as indices into `classes`, -1 for a class that is not among them."""
    if found.classes == tuple(classes):
        return found.labels
    index = {name: label for label, name in enumerate(classes)}
    return np.array([index.get(name, -1) for name in found.classes], np.int64)[found.labels]


def _class_precision(outcome: NDArray[np.int8], positives: int, metric: Literal["voc07", "voc12"]) -> float:
    if positives == 0:
        return float("nan")
    hits = outcome[outcome != _IGNORED] == _HIT
    found = np.cumsum(hits)
    return average_precision(found / positives, found / np.arange(1, len(hits) + 1), metric)


@kernel()
def _match(boxes, image, object_boxes, start, difficult, threshold):  # type: ignore[no-untyped-def]
    """Tell hits from false detections; all of one class, detections best first."""
    outcome = np.empty(len(boxes), np.int8)
    taken = np.zeros(len(object_boxes), np.bool_)
    for d in range(len(boxes)):
        x1, y1, x2, y2 = boxes[d]
        best, best_overlap = -1, -np.inf
        for j in range(start[image[d]], start[image[d] + 1]):
            u1, v1, u2, v2 = object_boxes[j]
            width = min(x2, u2) - max(x1, u1)
            height = min(y2, v2) - max(y1, v1)
            if width > 0 and height > 0:
                inter = width * height
                overlap = inter / ((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - inter)
                if overlap > best_overlap:
                    best, best_overlap = j, overlap
        if best_overlap < threshold:
            outcome[d] = _FALSE
        elif difficult[best]:
            outcome[d] = _IGNORED
        elif taken[best]:
            outcome[d] = _FALSE
        else:
            outcome[d] = _HIT
            taken[best] = True
    return outcome
