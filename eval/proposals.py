"""How good proposals are before anything is classified: the objects they cover, and how well."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data import Picture, box_iou
from .voc import EvaluationError

__all__ = ["evaluate_proposals"]

_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


def evaluate_proposals(
    pictures: Sequence[Picture],
    proposals: Mapping[str, ArrayLike],
    limits: Sequence[int] = (100, 500, 1000, 2000),
) -> dict[str, Any]:
    """Measure how many objects are covered by ranked proposals, and how tightly.

    Difficult objects and crowds are left out. An object is covered at a threshold if the best overlap that
    any proposal of its picture has with it is equal or above.

    Parameters
    ----------
    pictures : sequence of Picture
        The annotated pictures.
    proposals : mapping of str to array_like of float32, shape (N, 4)
        By ``image_id``, best first, ``x1 y1 x2 y2`` in pixels. A picture that is not in it has no proposals,
        and its objects count as missed.
    limits : sequence of int
        Numbers of proposals per picture for ``"recall_at"`` and ``"mabo_at"``.

    Returns
    -------
    dict
        ``"recall"``: threshold ("0.5", "0.6", ..., "0.9") to the share of objects covered by any proposal.
        ``"mabo"``: mean average best overlap, averaged over the objects of a class, then over the classes
        that have objects. ``"boxes_per_image"``: float. ``"recall_at"``: limit ("100", ...) to the recall at
        IoU 0.5 of the first so many proposals. ``"mabo_at"``: limit to their mean average best overlap.
        Shares are nan if there is no object.

    Raises
    ------
    EvaluationError
        If there are proposals for a picture that is not among `pictures`, or two pictures have the same
        ``image_id``.
    ValueError
        If boxes are not of shape (N, 4).

    References
    ----------
    Uijlings et al., "Selective Search for Object Recognition", IJCV 2013, section 5 (MABO). Hosang et al.,
    "What makes for effective detection proposals?", PAMI 2016 (recall at a number of proposals).

    Examples
    --------
    >>> box, no = np.array([[0, 0, 20, 10]], np.float32), np.array([False])
    >>> picture = Picture("000001", "000001.jpg", 20, 10, box, np.array([7]), no, no)
    >>> result = evaluate_proposals([picture], {"000001": [[0, 0, 10, 5], [0, 0, 20, 6]]}, limits=(1, 2))
    >>> result["recall"]["0.5"], round(result["mabo"], 3), result["recall_at"]
    (1.0, 0.6, {'1': 0.0, '2': 1.0})
    """
    known = {picture.image_id for picture in pictures}
    if len(known) < len(pictures):
        raise EvaluationError(f"{len(pictures) - len(known)} pictures are among the annotations twice")
    unknown = [image_id for image_id in proposals if image_id not in known]
    if unknown:
        raise EvaluationError(
            f"picture {unknown[0]!r} has proposals but no annotations ({len(unknown)} such in all); "
            "evaluate on the pictures that the proposals are of"
        )

    nothing = np.zeros((0, 4), np.float32)
    labels = [np.zeros(0, np.int64)]
    best = [np.zeros((0, len(limits) + 1), np.float32)]
    count = 0
    for picture in pictures:
        boxes = np.asarray(proposals.get(picture.image_id, nothing), np.float32)
        counted = ~(picture.difficult | picture.crowd)
        overlaps = box_iou(picture.boxes[counted], boxes)
        labels.append(picture.labels[counted])
        best.append(np.stack([overlaps[:, :n].max(axis=1, initial=0) for n in (*limits, overlaps.shape[1])], axis=1))
        count += overlaps.shape[1]
    label = np.concatenate(labels)
    *at_limits, everything = np.concatenate(best).T
    return {
        "recall": {str(threshold): _share(everything, threshold) for threshold in _THRESHOLDS},
        "mabo": _mabo(everything, label),
        "boxes_per_image": count / len(pictures) if pictures else float("nan"),
        "recall_at": {str(n): _share(column, 0.5) for n, column in zip(limits, at_limits, strict=True)},
        "mabo_at": {str(n): _mabo(column, label) for n, column in zip(limits, at_limits, strict=True)},
    }


def _share(best: NDArray[np.float32], threshold: float) -> float:
    # In float32, so that an overlap of exactly 6/10 reaches the threshold 0.6.
    return float(np.mean(best >= np.float32(threshold))) if len(best) else float("nan")


def _mabo(best: NDArray[np.float32], label: NDArray[np.int64]) -> float:
    classes = np.unique(label)
    if not len(classes):
        return float("nan")
    return float(np.mean([best[label == one].mean(dtype=np.float64) for one in classes]))
