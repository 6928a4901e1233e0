"""Greedy non-maximum suppression: of boxes that overlap, the best one stays. Soft-NMS: the others lose score instead.

The overlap is computed in double precision by a division, which rounds correctly: boxes whose overlap is 3/10
have exactly the overlap 0.3, and stay at a threshold of 0.3.

Boxes and scores may be lists, arrays, or tensors, also on a GPU; the work is done on the CPU.
"""

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arguments import check_choice, check_number
from .boxes import as_scores, find_bad_number, find_problem, kernel_array
from .errors import SettingError
from .system.kernels import kernel


def nms(boxes: ArrayLike, scores: ArrayLike, iou_threshold: float) -> NDArray[np.int64]:
    """Return the indices of the boxes that no better box suppresses.

    Boxes are visited from the best score down. A box is dropped if its IoU with a box already kept is above the
    threshold, and kept if it is equal or below.

    Parameters
    ----------
    boxes : array_like of float32, shape (N, 4)
        ``x1 y1 x2 y2`` in pixels.
    scores : array_like of float32, shape (N,)
        Higher is better; equal scores are visited in the order of the array.
    iou_threshold : float
        IoU, from 0 to 1, above which a box is suppressed.

    Returns
    -------
    ndarray of int64, shape (K,)
        Indices of the boxes kept, best first.

    Raises
    ------
    SettingError
        If the shapes do not fit, a box or score is not finite, a box ends before it begins, or `iou_threshold` is out
        of range.

    References
    ----------
    Girshick et al., "Rich feature hierarchies for accurate object detection and semantic segmentation", CVPR
    2014.

    Examples
    --------
    >>> nms([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10]], [0.8, 0.9, 0.7], iou_threshold=0.5).tolist()
    [1, 2]
    """
    check_number("iou_threshold", iou_threshold, 0, 1)
    box_array, score_array = _box_list(boxes), kernel_array(scores, "scores")
    if score_array.ndim != 1 or box_array.shape != (len(score_array), 4):
        raise SettingError(find_problem(box_array, score_array))
    _check_sound(box_array, score_array)
    ranked, counts = _ranked(score_array[:, None], np.arange(len(score_array)), -np.inf)
    return _rows(_compare(ranked, counts, box_array[:, None], iou_threshold, len(score_array)))


def nms_per_class(
    boxes: ArrayLike, scores: ArrayLike, iou_threshold: float = 0.3, min_score: float = 0.0, limit: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Suppress within every class separately and return the survivors of all classes together.

    Parameters
    ----------
    boxes : array_like of float32, shape (N, 4) or (N, C, 4)
        ``x1 y1 x2 y2`` in pixels: one box for all classes, or one for each.
    scores : array_like of float32, shape (N, C)
        Higher is better; no column for background.
    iou_threshold : float
        IoU, from 0 to 1, above which a box is suppressed.
    min_score : float
        Scores below it are dropped first. The default suits probabilities; scores that can be negative need
        their own, or ``-math.inf`` to drop none.
    limit : int or None
        At most this many detections are returned, the best of all classes; 0 or more.

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
    SettingError
        If the shapes do not fit, a box or score is not finite, a box ends before it begins, the scores are 2**32 or
        more, or a setting is out of range.

    Notes
    -----
    Boxes shared by all classes are compared with each other once, N * N / 2 comparisons whatever the number of
    classes. The result is kept as one bit a pair: suppressing is an "or" of machine words. Score, class and box share
    one integer, so that one sort of integers ranks every class, and another the survivors.

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
    check_number("iou_threshold", iou_threshold, 0, 1)
    _check_selection(min_score, limit)
    box_array, score_array = _class_arrays(boxes, scores)
    shared = box_array.ndim == 2
    rows = np.flatnonzero((score_array >= np.float32(min_score)).any(axis=1))
    ranked, counts = _ranked(score_array, rows, min_score)
    candidates = box_array[rows]
    most = len(rows) if limit is None else limit
    # With few candidates to a class it is less work to compare those.
    if shared and (counts**2).sum() > len(rows) ** 2:
        kept = _look_up(ranked, counts, candidates, iou_threshold, most)
    else:
        kept = _compare(ranked, counts, candidates[:, None] if shared else candidates, iou_threshold, most)
    label, row = np.divmod(_rows(np.sort(kept)[:limit]), max(len(rows), 1))
    row = rows[row]
    return box_array[row] if shared else box_array[row, label], score_array[row, label], label


def soft_nms(
    boxes: ArrayLike,
    scores: ArrayLike,
    method: Literal["gaussian", "linear"] = "gaussian",
    *,
    sigma: float = 0.5,
    iou_threshold: float = 0.3,
    min_score: float = 0.001,
) -> tuple[NDArray[np.int64], NDArray[np.floating[Any]]]:
    """Lower the scores of boxes that overlap a better one, and drop those whose score falls below a minimum.

    The best box is taken, the scores of those that are left are lowered by their overlap with it, and so on with the
    best of those. Where `nms` drops a box, it sinks in the ranking, and an object behind another is not lost.

    Parameters
    ----------
    boxes : array_like of float32, shape (N, 4)
        ``x1 y1 x2 y2`` in pixels.
    scores : array_like of float32 or array of float64, shape (N,)
        Higher is better, 0 or above; of equal scores the first in the array is taken first.
    method : {"gaussian", "linear"}
        "gaussian": a score is multiplied by ``exp(-IoU ** 2 / sigma)``. "linear": by ``1 - IoU`` if the IoU is above
        `iou_threshold`.
    sigma : float
        Width of the Gaussian, above 0; the smaller, the stricter.
    iou_threshold : float
        IoU, from 0 to 1, up to which "linear" lowers nothing.
    min_score : float
        Boxes are dropped once their score is below it, lowered or not.

    Returns
    -------
    indices : ndarray of int64, shape (K,)
        Positions of the boxes, in the order in which they were taken, best first.
    scores : ndarray of float32, or of float64 if they were given so, shape (K,)
        Their lowered scores; never rising.

    Raises
    ------
    SettingError
        If the shapes do not fit, a box or score is not finite, a box ends before it begins, `method` is neither, or
        `sigma`, `iou_threshold` or `min_score` is out of range.

    Notes
    -----
    An IoU equal to the threshold lowers nothing, as it suppresses nothing in `nms`; by the paper's equation, which
    has "at least" for "above", it would.

    References
    ----------
    Bodla et al., "Soft-NMS: improving object detection with one line of code", ICCV 2017, section 3.

    Examples
    --------
    >>> indices, scores = soft_nms([[0, 0, 10, 10], [0, 0, 10, 5], [20, 0, 30, 10]], [0.9, 0.8, 0.7], "linear")
    >>> indices.tolist(), scores.round(3).tolist()
    ([0, 2, 1], [0.8999999761581421, 0.699999988079071, 0.4000000059604645])
    """
    check_choice("method", method, ("gaussian", "linear"))
    check_number("sigma", sigma, 0, above=True)
    check_number("iou_threshold", iou_threshold, 0, 1)
    _check_selection(min_score)
    box_array, score_array = _box_list(boxes), as_scores(scores)
    if problem := find_problem(box_array, score_array):
        raise SettingError(problem)
    kept, _, lowered = _soft(
        box_array[:, None],
        score_array[:, None],
        min_score,
        gaussian=method == "gaussian",
        sigma=sigma,
        iou_threshold=iou_threshold,
    )
    return kept, lowered.astype(score_array.dtype)


def soft_nms_per_class(
    boxes: ArrayLike, scores: ArrayLike, *, sigma: float = 0.5, min_score: float = 0.001, limit: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Run Gaussian `soft_nms` within every class separately and return what is left of all classes together.

    Parameters
    ----------
    boxes : array_like of float32, shape (N, 4) or (N, C, 4)
        ``x1 y1 x2 y2`` in pixels: one box for all classes, or one for each.
    scores : array_like of float32, shape (N, C)
        Higher is better, 0 or above; no column for background.
    sigma, min_score
        See `soft_nms`.
    limit : int or None
        At most this many detections are returned, the best of all classes; 0 or more.

    Returns
    -------
    boxes : ndarray of float32, shape (K, 4)
        Best lowered score first; equal scores in the order of classes, then of `boxes`.
    scores : ndarray of float32, shape (K,)
        Their lowered scores.
    labels : ndarray of int64, shape (K,)
        Their classes, 0-based columns of `scores`.

    Raises
    ------
    SettingError
        If the shapes do not fit, a box or score is not finite, a box ends before it begins, or a setting is out of
        range.

    References
    ----------
    Bodla et al., "Soft-NMS: improving object detection with one line of code", ICCV 2017, section 3.

    Examples
    --------
    >>> boxes, scores, labels = soft_nms_per_class([[0, 0, 10, 10], [0, 0, 10, 8]], [[0.9, 0.1], [0.8, 0.7]])
    >>> labels.tolist(), scores.round(2).tolist()
    ([0, 1, 0, 1], [0.8999999761581421, 0.699999988079071, 0.2199999988079071, 0.029999999329447746])
    """
    check_number("sigma", sigma, 0, above=True)
    _check_selection(min_score, limit)
    box_array, score_array = _class_arrays(boxes, scores)
    each = box_array[:, None] if box_array.ndim == 2 else box_array
    row, label, lowered = _soft(each, score_array, min_score, gaussian=True, sigma=sigma, iou_threshold=0)
    best = np.lexsort((row, label, -lowered))[:limit]
    row, label = row[best], label[best]
    return each[row, np.minimum(label, each.shape[1] - 1)], lowered[best].astype(np.float32), label


def _soft(
    boxes: NDArray[np.float32],
    scores: NDArray[np.floating[Any]],
    min_score: float,
    *,
    gaussian: bool,
    sigma: float,
    iou_threshold: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Rows, labels and lowered scores of what is left of boxes (N, 1 or C, 4), class by class, best first."""
    count, most = len(scores), scores.size
    found = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(count, np.int64)
    lowered = np.empty(most)
    # The minimum in the scores' precision, so that a score of 0.7 reaches a minimum of 0.7.
    limits = float(sigma), float(iou_threshold), float(scores.dtype.type(min_score))
    left = _soften(boxes, scores.astype(np.float64), gaussian, *limits, tuple(np.empty((5, count))), found, lowered)
    return found[0][:left], found[1][:left], lowered[:left]


def _box_list(boxes: ArrayLike) -> NDArray[np.float32]:
    array = kernel_array(boxes)
    return array if array.size else array.reshape(-1, 4)


def _class_arrays(boxes: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return boxes (N, 4) or (N, C, 4) and scores (N, C) as arrays; refuse what is neither."""
    box_array, score_array = kernel_array(boxes), kernel_array(scores, "scores")
    shape = score_array.shape
    if len(shape) != 2 or box_array.shape not in ((shape[0], 4), (*shape, 4)):
        raise SettingError(
            f"boxes {box_array.shape} and scores {shape} do not fit: (N, 4) or (N, C, 4), and (N, C), are expected"
        )
    _check_sound(box_array, score_array)
    return box_array, score_array


def _check_selection(min_score: float, limit: int | None = None) -> None:
    check_number("min_score", min_score, -math.inf)
    check_number("limit", limit, 0, whole=True, optional=True)


def _check_sound(boxes: NDArray[np.float32], scores: NDArray[np.float32]) -> None:
    # The fast form of `find_bad_number`, whose four passes take as long as suppressing ten boxes.
    flat = boxes.reshape(-1)
    if not _are_sound(flat, flat.view(np.int32), scores.reshape(-1).view(np.int32)):
        raise SettingError(find_bad_number(boxes, scores))


@kernel("boolean(float32[::1], int32[::1], int32[::1])")
def _are_sound(boxes, box_bits, score_bits):  # type: ignore[no-untyped-def]
    """Tell whether all numbers are finite, and no box, of four numbers each, ends before it begins."""
    # Without their sign, the bits of infinity are 0x7F800000, and those of nan more. Loops without branches are fast.
    largest = np.int32(0)
    for i in range(len(score_bits)):
        largest = max(largest, score_bits[i] & np.int32(0x7FFFFFFF))
    for i in range(len(box_bits)):
        largest = max(largest, box_bits[i] & np.int32(0x7FFFFFFF))
    turned = np.int32(0)
    for i in range(len(boxes) // 4):
        turned |= np.int32(boxes[4 * i] > boxes[4 * i + 2]) | np.int32(boxes[4 * i + 1] > boxes[4 * i + 3])
    return largest < 0x7F800000 and turned == 0


# Ranking: 64 bits hold what orders a candidate, score, class and row, in this order; smaller is better.

_LOW = 2**32 - 1


def _ranked(
    scores: NDArray[np.float32], rows: NDArray[np.int64], min_score: float
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Rank what reaches the minimum among some rows of the scores (N, C): keys (C, most of a class), counts (C,)."""
    if scores.shape[1] * len(rows) > _LOW:
        raise SettingError(f"{scores.shape[1] * len(rows)} scores are too many for one call; raise the minimum")
    # The minimum in float32, so that a score of 0.7 reaches a minimum of 0.7.
    counts = np.empty(scores.shape[1], np.int64)
    keys = np.empty((len(counts), len(rows)), np.uint64)
    _fill_keys(scores, scores.view(np.int32), rows, np.float32(min_score), keys, counts)
    most = counts.max(initial=0)
    keys = np.ascontiguousarray(keys[:, :most])
    if counts.min(initial=most) < most:  # the largest key fills up what has no candidate
        keys[np.arange(most) >= counts[:, None]] = ~np.uint64(0)
    keys.sort(axis=1)
    return keys, counts


def _compare(
    ranked: NDArray[np.uint64], counts: NDArray[np.int64], boxes: NDArray[np.float32], threshold: float, limit: int
) -> NDArray[np.uint64]:
    """Keys of the boxes (R, 1 or C, 4) that stay, each compared with those that are left."""
    width = ranked.shape[1]
    kept = np.empty(counts.sum(), np.uint64)
    room = np.empty((4, width)), np.empty(width, np.bool_)
    return kept[: _greedy(ranked, counts, boxes, float(threshold), limit, *room, kept)]


def _look_up(
    ranked: NDArray[np.uint64], counts: NDArray[np.int64], boxes: NDArray[np.float32], threshold: float, limit: int
) -> NDArray[np.uint64]:
    """Keys of the boxes (R, 4) that stay, all compared once, and the result kept as one bit a pair."""
    count = len(boxes)
    bits = np.zeros((count, (count + 63) // 64), np.uint64)
    corners = np.ascontiguousarray(boxes.T, np.float64)
    _fill_overlap_bits(corners, float(threshold), np.empty(count, np.bool_), np.empty(count, np.int64), bits)
    kept = np.empty(counts.sum(), np.uint64)
    return kept[: _greedy_bits(ranked, counts, bits, limit, np.empty(bits.shape[1], np.uint64), kept)]


def _rows(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return ``label * R + row`` of some keys."""
    return (keys & np.uint64(_LOW)).astype(np.int64)


@kernel("void(float32[:,::1], int32[:,::1], int64[::1], float32, uint64[:,::1], int64[::1])")
def _fill_keys(scores, bits, rows, min_score, keys, counts):  # type: ignore[no-untyped-def]
    """Put the score, turned round, above ``label * R + row``, of the first counts[label] of each class."""
    for label in range(keys.shape[0]):
        k = 0
        for i in range(len(rows)):
            score = scores[rows[i], label]
            if score >= min_score:
                # Read as integers, floats from 0 up rise, and negative ones fall; -0 equals 0 but has other bits.
                falling = bits[rows[i], label] if score < 0 else ~bits[rows[i], label] & np.int32(0x7FFFFFFF)
                keys[label, k] = np.uint64(np.uint32(falling)) << np.uint64(32) | np.uint64(label * len(rows) + i)
                k += 1
        counts[label] = k


# A function of its own, without branches: so the compiler can vectorise it. By NumPy's rules for division 0 / 0 is nan,
# no overlap. Unsigned, because an index that could be negative would count from the end.
@kernel()
def _strike(corners, k, begin, end, threshold, free):  # type: ignore[no-untyped-def]
    """Clear `free` from begin to end where a box, of corners (4, N), overlaps the k-th by more than the threshold."""
    left, top = corners[0, k], corners[1, k]
    right, bottom = corners[2, k], corners[3, k]
    area = (right - left) * (bottom - top)
    for j in range(np.uintp(begin), np.uintp(end)):
        x1, y1 = corners[0, j], corners[1, j]
        x2, y2 = corners[2, j], corners[3, j]
        width = max(min(right, x2) - max(left, x1), 0.0)
        height = max(min(bottom, y2) - max(top, y1), 0.0)
        inter = width * height
        free[j] &= not inter / (area + (x2 - x1) * (y2 - y1) - inter) > threshold


# Both visit each class's first counts[label] candidates in the order of `ranked`. They write the keys of those that
# nothing kept suppresses into `kept`, at most `limit` a class, and return their number.


@kernel("int64(uint64[:,::1], int64[::1], float32[:,:,::1], float64, int64, float64[:,::1], boolean[::1], uint64[::1])")
def _greedy(ranked, counts, boxes, threshold, limit, corners, free, kept):  # type: ignore[no-untyped-def]
    """Suppress boxes (R, 1 or C, 4) by comparing every kept one with those that are left."""
    total = 0
    for label in range(len(counts)):
        own = label if boxes.shape[1] > 1 else 0
        last, end = counts[label], total + limit
        for k in range(last):
            row = np.int64(ranked[label, k] & np.uint64(_LOW)) - label * len(boxes)
            for i in range(4):
                corners[i, k] = boxes[row, own, i]
            free[k] = True
        for k in range(last):
            if total == end:
                break
            if free[k]:
                kept[total] = ranked[label, k]
                total += 1
                _strike(corners, k, k + 1, last, threshold, free)
    return total


@kernel("int64(uint64[:,::1], int64[::1], uint64[:,::1], int64, uint64[::1], uint64[::1])")
def _greedy_bits(ranked, counts, bits, limit, suppressed, kept):  # type: ignore[no-untyped-def]
    """Do as `_greedy` does, the comparisons looked up."""
    total = 0
    for label in range(len(counts)):
        for word in range(len(suppressed)):
            suppressed[word] = 0
        end = total + limit
        for k in range(counts[label]):
            if total == end:
                break
            i = np.int64(ranked[label, k] & np.uint64(_LOW)) - label * len(bits)
            if not (suppressed[i >> 6] >> np.uint64(i & 63)) & np.uint64(1):
                for word in range(len(suppressed)):
                    suppressed[word] |= bits[i, word]
                kept[total] = ranked[label, k]
                total += 1
    return total


@kernel("void(float64[:,::1], float64, boolean[::1], int64[::1], uint64[:,::1])")
def _fill_overlap_bits(corners, threshold, free, struck, bits):  # type: ignore[no-untyped-def]
    """Enter for every box the boxes that it suppresses into `bits`, which come as zeros."""
    for i in range(corners.shape[1]):
        for j in range(i):
            free[j] = True
        _strike(corners, i, 0, i, threshold, free)
        # Listed first, which needs no branch that could be guessed wrong.
        total = 0
        for j in range(i):
            struck[total] = j
            total += not free[j]
        for k in range(total):
            j = struck[k]
            bits[i, j >> 6] |= np.uint64(1) << np.uint64(j & 63)
            bits[j, i >> 6] |= np.uint64(1) << np.uint64(i & 63)


@kernel(
    "int64(float32[:,:,::1], float64[:,::1], boolean, float64, float64, float64, UniTuple(float64[::1], 5), "
    "UniTuple(int64[::1], 3), float64[::1])"
)
def _soften(boxes, scores, gaussian, sigma, threshold, min_score, own, found, lowered):  # type: ignore[no-untyped-def]
    """Of each class take the best box and lower the scores of the others, as long as there is one.

    Boxes (N, 1 or C, 4), scores (N, C). Fills rows and labels of `found` and `lowered`, in the order in which boxes are
    taken, and returns their number; `own` (N each) and the third of `found` (N) are room for one class.
    """
    x1, y1, x2, y2, score = own
    rows, labels, candidates = found
    total = 0
    for label in range(scores.shape[1]):
        column, left = label if boxes.shape[1] > 1 else 0, 0
        for i in range(len(scores)):
            if scores[i, label] >= min_score:
                candidates[left], score[left] = i, scores[i, label]
                x1[left], y1[left] = boxes[i, column, 0], boxes[i, column, 1]
                x2[left], y2[left] = boxes[i, column, 2], boxes[i, column, 3]
                left += 1
        while left > 0:
            best = 0
            for j in range(1, left):
                if score[j] > score[best]:
                    best = j
            if score[best] < min_score:
                break
            rows[total], labels[total], lowered[total] = candidates[best], label, score[best]
            total += 1
            right, bottom, area = x2[best], y2[best], (x2[best] - x1[best]) * (y2[best] - y1[best])
            a, b = x1[best], y1[best]
            # Those that are left move up by one, so that equal scores keep their order.
            left -= 1
            for j in range(left):
                k = j if j < best else j + 1
                width = min(right, x2[k]) - max(a, x1[k])
                height = min(bottom, y2[k]) - max(b, y1[k])
                factor = 1.0
                if width > 0 and height > 0:
                    inter = width * height
                    iou = inter / (area + (x2[k] - x1[k]) * (y2[k] - y1[k]) - inter)
                    if gaussian:
                        factor = np.exp(-iou * iou / sigma)
                    elif iou > threshold:
                        factor = 1 - iou
                candidates[j], score[j] = candidates[k], score[k] * factor
                x1[j], y1[j], x2[j], y2[j] = x1[k], y1[k], x2[k], y2[k]
    return total


# What `nms` and `soft_nms_per_class` run that is compiled; `nms_per_class` has more for boxes that all classes share.
NMS_KERNELS = (_are_sound, _fill_keys, _greedy)
SOFT_NMS_KERNELS = (_are_sound, _soften)
