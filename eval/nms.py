"""Greedy non-maximum suppression: of boxes that overlap, the best one stays.

The overlap is computed in double precision by a division, which rounds correctly: boxes whose overlap is 3/10
have exactly the overlap 0.3, and stay at a threshold of 0.3.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data.kernels import kernel

__all__ = ["nms", "nms_per_class"]


def nms(boxes: ArrayLike, scores: ArrayLike, threshold: float) -> NDArray[np.int64]:
    """Return the boxes that are not suppressed by a better one.

    Boxes are visited from the best score down; one is dropped if its IoU with a box already kept is above the
    threshold, and kept if it is equal or below.

    Parameters
    ----------
    boxes : array_like of float32, shape (N, 4)
        ``x1 y1 x2 y2`` in pixels.
    scores : array_like of float32, shape (N,)
        Higher is better; equal scores are visited in the order of the array.
    threshold : float
        IoU above which a box is suppressed.

    Returns
    -------
    ndarray of int64, shape (K,)
        Indices of the boxes kept, best first.

    Raises
    ------
    ValueError
        If the shapes do not fit, or a box or score is not finite.

    References
    ----------
    Girshick et al., "Rich feature hierarchies for accurate object detection and semantic segmentation", CVPR
    2014.

    Examples
    --------
    >>> nms([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10]], [0.8, 0.9, 0.7], threshold=0.5).tolist()
    [1, 2]
    """
    score_array = _finite(scores, "scores")
    box_array = _finite(boxes, "boxes").reshape(-1, 4)
    if score_array.ndim != 1 or len(box_array) != len(score_array):
        raise ValueError(f"boxes {np.shape(boxes)} and scores {score_array.shape} do not fit: (N, 4) and (N,)")
    return _greedy(box_array, np.argsort(-score_array, kind="stable"), float(threshold))


def nms_per_class(
    boxes: ArrayLike,
    scores: ArrayLike,
    threshold: float = 0.3,
    min_score: float = 0.0,
    limit: int | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Suppress within every class separately and return the survivors of all classes together.

    Parameters
    ----------
    boxes : array_like of float32, shape (N, 4) or (N, C, 4)
        ``x1 y1 x2 y2`` in pixels: one box for all classes, or one for each.
    scores : array_like of float32, shape (N, C)
        Higher is better; no column for background.
    threshold : float
        IoU above which a box is suppressed.
    min_score : float
        Scores below it are dropped first. The default suits probabilities; scores that can be negative need
        their own.
    limit : int or None
        At most this many detections are returned, the best of all classes.

    Returns
    -------
    boxes : ndarray of float32, shape (K, 4)
        The survivors, best score first; equal scores in the order of classes, then of `boxes`.
    scores : ndarray of float32, shape (K,)
        Their scores.
    labels : ndarray of int64, shape (K,)
        Their classes, 0-based columns of `scores`.

    Raises
    ------
    ValueError
        If the shapes do not fit, or a box or score is not finite.

    Notes
    -----
    Boxes shared by all classes are compared with each other once, N * N / 2 comparisons whatever the number
    of classes; the result is kept as one bit a pair, so that suppressing is an "or" of machine words.

    References
    ----------
    Girshick et al., "Rich feature hierarchies for accurate object detection and semantic segmentation", CVPR
    2014.

    Examples
    --------
    >>> boxes, scores, labels = nms_per_class([[0, 0, 10, 10], [1, 0, 11, 10]], [[0.9, 0.1], [0.8, 0.7]])
    >>> boxes[:, 0].tolist(), labels.tolist()
    ([0.0, 1.0], [0, 1])
    """
    score_array = _finite(scores, "scores")
    box_array = _finite(boxes, "boxes")
    shared = box_array.ndim == 2
    expected = (*score_array.shape[: 1 if shared else 2], 4)
    if score_array.ndim != 2 or box_array.shape != expected:
        raise ValueError(
            f"boxes {box_array.shape} and scores {score_array.shape} do not fit: "
            "(N, 4) or (N, C, 4), and (N, C), are expected"
        )
    # In float32, so that a score of 0.7 reaches a minimum of 0.7.
    wanted = score_array >= np.float32(min_score)
    rows = np.flatnonzero(wanted.any(axis=1))
    # With few candidates to a class it is less work to compare those.
    worthwhile = shared and (wanted.sum(axis=0) ** 2).sum() > len(rows) ** 2
    bits = _overlap_bits(box_array[rows], float(threshold)) if worthwhile else None

    indices, labels = [], []
    for label in range(score_array.shape[1]):
        # Positions in `rows`, best first.
        order = np.flatnonzero(wanted[rows, label])
        order = order[np.argsort(-score_array[rows[order], label], kind="stable")]
        if bits is not None:
            kept = rows[_greedy_bits(bits, order)]
        else:
            own = box_array if shared else np.ascontiguousarray(box_array[:, label])
            kept = _greedy(own, rows[order], float(threshold))
        indices.append(np.sort(kept))
        labels.append(np.full(len(kept), label, np.int64))

    index = np.concatenate([np.zeros(0, np.int64), *indices])
    label_array = np.concatenate([np.zeros(0, np.int64), *labels])
    best = np.argsort(-score_array[index, label_array], kind="stable")[:limit]
    index, label_array = index[best], label_array[best]
    chosen = box_array[index] if shared else box_array[index, label_array]
    return chosen.astype(np.float32), score_array[index, label_array].astype(np.float32), label_array


def _finite(values: ArrayLike, name: str) -> NDArray[np.float64]:
    # Float32 first: what callers hand over is float32, and a list must give what the array would.
    array = np.ascontiguousarray(np.asarray(values, np.float32), np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite numbers")
    return array


@kernel()
def _iou(a, b):  # type: ignore[no-untyped-def]
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    inter = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return inter / union


@kernel()
def _greedy(boxes, order, threshold):  # type: ignore[no-untyped-def]
    """Visit the boxes in the given order and return those that no kept one suppresses."""
    kept = np.empty(len(order), np.int64)
    count = 0
    for i in order:
        free = True
        for k in range(count):
            if _iou(boxes[i], boxes[kept[k]]) > threshold:
                free = False
                break
        if free:
            kept[count] = i
            count += 1
    return kept[:count].copy()


# Under NumPy's rules for division 0 / 0 is nan, no overlap, and no test for it stops the compiler from
# vectorising.
@kernel(error_model="numpy")
def _overlap_bits(boxes, threshold):  # type: ignore[no-untyped-def]
    """Return for every box the set of boxes that it suppresses, 64 to a word."""
    count = len(boxes)
    x1, y1, x2, y2 = boxes[:, 0].copy(), boxes[:, 1].copy(), boxes[:, 2].copy(), boxes[:, 3].copy()
    area = (x2 - x1) * (y2 - y1)
    overlaps = np.zeros(count, np.bool_)
    bits = np.zeros((count, (count + 63) // 64), np.uint64)
    for i in range(count):
        for j in range(i):
            width = max(min(x2[i], x2[j]) - max(x1[i], x1[j]), 0.0)
            height = max(min(y2[i], y2[j]) - max(y1[i], y1[j]), 0.0)
            inter = width * height
            overlaps[j] = inter / (area[i] + area[j] - inter) > threshold
        for j in range(i):
            if overlaps[j]:
                bits[i, j >> 6] |= np.uint64(1) << np.uint64(j & 63)
                bits[j, i >> 6] |= np.uint64(1) << np.uint64(i & 63)
    return bits


@kernel()
def _greedy_bits(bits, order):  # type: ignore[no-untyped-def]
    """Do as `_greedy` does, the comparisons looked up."""
    suppressed = np.zeros(bits.shape[1], np.uint64)
    kept = np.empty(len(order), np.int64)
    count = 0
    for i in order:
        if not (suppressed[i >> 6] >> np.uint64(i & 63)) & np.uint64(1):
            suppressed |= bits[i]
            kept[count] = i
            count += 1
    return kept[:count].copy()
