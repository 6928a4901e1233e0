"""What a detector takes for what: objects and detections by class, with background for what has no partner."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..data import VOC_CLASSES, Detections, Picture, box_iou
from ..data.arguments import check_number
from .matching import check_detections, check_pictures, evaluated_classes, renumber_labels


def confusion_matrix(
    pictures: Sequence[Picture],
    detections: Mapping[str, Detections],
    classes: Sequence[str] | None = None,
    *,
    min_score: float,
    iou_threshold: float = 0.5,
) -> NDArray[np.int64]:
    """Count which class objects are detected as.

    In each picture detections and objects become pairs, each in one pair at most, if they overlap by `iou_threshold` or
    more: first those of the same class, then the others; the larger overlap first. Objects without a partner are
    missed, detections without one are on the background. Difficult objects and crowds need no partner, and a detection
    that has none but overlaps one of these is left out.

    Parameters
    ----------
    pictures : sequence of Picture
        The annotated pictures.
    detections : mapping of str to Detections
        By ``image_id``; matched with `classes` by name.
    classes : sequence of str, or None
        Names of the C classes; None for those that the pictures were read with, or VOC's if they do not tell.
    min_score : float
        Detections with lower scores do not count.
    iou_threshold : float
        Above 0, at most 1.

    Returns
    -------
    ndarray of int64, shape (C + 1, C + 1)
        A row is the class of objects, a column what they are detected as. The last row is the background: detections
        of what is no object. The last column is what was missed. The last number is 0.

    Raises
    ------
    EvaluationError
        If two pictures have the same ``image_id``, a label or a number is none, or pictures were read with other
        classes than `classes`.
    SettingError
        If a number is out of range.

    Examples
    --------
    >>> from pathlib import Path
    >>> no = np.array([False, False])
    >>> objects = np.float32([[0, 0, 20, 10], [30, 0, 40, 10]])
    >>> picture = Picture("1", Path("1.jpg"), 40, 20, objects, np.array([0, 1]), no, no)
    >>> boxes = np.float32([[0, 0, 20, 10], [0, 10, 9, 20]])
    >>> found = {"1": Detections(boxes, np.float32([0.9, 0.8]), np.array([1, 0]), ("cat", "dog"))}
    >>> confusion_matrix([picture], found, ["cat", "dog"], min_score=0.5).tolist()
    [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    """
    check_number("min_score", min_score)
    check_number("iou_threshold", iou_threshold, 0, 1, above=True)
    names = evaluated_classes(pictures, classes, VOC_CLASSES)
    check_pictures(pictures, names)
    check_detections(detections)
    size, nothing = len(names) + 1, Detections.empty(names)
    matrix = np.zeros((size, size), np.int64)
    for picture in pictures:
        found = detections.get(picture.image_id, nothing)
        labels = renumber_labels(found, names)
        kept = (found.scores >= min_score) & (labels >= 0)
        _count_pairs(picture, found.boxes[kept], labels[kept], np.float32(iou_threshold), matrix)
    return matrix


def _count_pairs(
    picture: Picture,
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    iou_threshold: np.float32,
    matrix: NDArray[np.int64],
) -> None:
    """Add the pairs of one picture, its missed objects and its detections on the background."""
    ordinary = ~(picture.difficult | picture.crowd)
    overlaps = box_iou(boxes, picture.boxes)
    claims, objects = np.nonzero((overlaps >= iou_threshold) & ordinary)
    other = labels[claims] != picture.labels[objects]
    order = np.lexsort((-overlaps[claims, objects], other))
    free_claim, free_object = np.ones(len(boxes), bool), ordinary.copy()
    for claim, one in zip(claims[order].tolist(), objects[order].tolist(), strict=True):
        if free_claim[claim] and free_object[one]:
            free_claim[claim] = free_object[one] = False
            matrix[picture.labels[one], labels[claim]] += 1
    np.add.at(matrix[:, -1], picture.labels[free_object], 1)
    free_claim &= ~((overlaps >= iou_threshold) & ~ordinary).any(axis=1)
    np.add.at(matrix[-1], labels[free_claim], 1)
