"""Several detectors' detections as one: weighted box fusion, or suppression of them all together."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data import Detections
from ..data.arguments import as_array, check_choice, check_number
from ..data.boxes import as_boxes, as_scores, find_bad_number
from ..data.detections import as_labels
from ..data.errors import EvaluationError, SettingError
from ..data.nms import nms, soft_nms
from ..data.system.kernels import kernel
from .matching import renumber_labels


def weighted_box_fusion(
    boxes_list: Sequence[ArrayLike],
    scores_list: Sequence[ArrayLike],
    labels_list: Sequence[ArrayLike],
    *,
    iou_threshold: float = 0.55,
    weights: ArrayLike | None = None,
    min_score: float = 0.0,
) -> tuple[NDArray[np.float32], NDArray[np.floating[Any]], NDArray[np.int64]]:
    """Fuse the boxes that several members of an ensemble found in one picture.

    The boxes of all members are visited from the best score down. Each joins the cluster of its class whose fused box
    it overlaps most, if by more than `iou_threshold`. Otherwise it begins a cluster. A fused box is the mean of the
    cluster's boxes, weighted by their scores: ``x1 = sum(s * x1) / sum(s)``. Its score is the mean of theirs times
    ``min(T, N) / N``, T being the number of boxes in the cluster and N the number of members: the score of what only
    one member found is lowered.

    Parameters
    ----------
    boxes_list : sequence of N array_like of float32, shape (M_i, 4)
        Each member's boxes, ``x1 y1 x2 y2`` in pixels.
    scores_list : sequence of N array_like of float32 or arrays of float64, shape (M_i,)
        Their scores, 0 or above, comparable from member to member.
    labels_list : sequence of N array_like of int64, shape (M_i,)
        Their classes.
    iou_threshold : float
        Overlap above which a box joins a cluster, from 0 to 1.
    weights : array_like of float64, shape (N,), or None
        What each member's scores are multiplied by before all else, above 0; None for 1. The score becomes ``mean *
        min(T, N) / sum(weights)``, so that only their proportions matter.
    min_score : float
        A member's boxes with a score below it are left out.

    Returns
    -------
    boxes : ndarray of float32, shape (K, 4)
        The fused boxes, best first; of equal scores, the smaller label first, then the older cluster.
    scores : ndarray of float32, or of float64 if a member's are, shape (K,)
        Their scores. With unequal weights several boxes of one heavy member can bring more than 1.
    labels : ndarray of int64, shape (K,)
        Their classes.

    Raises
    ------
    SettingError
        If the lists, shapes or weights do not fit together, a number is not finite, a score is negative, a box ends
        before it begins, or `iou_threshold` or `min_score` is out of range.

    Notes
    -----
    Equal scores are visited in the order of the members, then of their boxes. Of equal overlaps the older cluster
    is joined. The paper has no weights; the formula with them is that of its authors' program. That program swaps the
    corners of a box that ends before it begins. Here it is refused, because boxes given as ``x y width height`` are the
    usual cause.

    References
    ----------
    Solovyev, Wang and Gabruseva, "Weighted boxes fusion: ensembling boxes from different object detection models",
    Image and Vision Computing, 2021, section 3; https://github.com/ZFTurbo/Weighted-Boxes-Fusion.

    Examples
    --------
    >>> boxes, scores, labels = weighted_box_fusion(
    ...     [[[0, 0, 10, 10]], [[0, 0, 10, 14], [50, 50, 60, 60]]], [[0.75], [0.25, 0.5]], [[3], [3, 3]]
    ... )
    >>> boxes.tolist(), scores.tolist(), labels.tolist()
    ([[0.0, 0.0, 10.0, 11.0], [50.0, 50.0, 60.0, 60.0]], [0.5, 0.25], [3, 3])
    """
    check_number("iou_threshold", iou_threshold, 0, 1)
    check_number("min_score", min_score, -math.inf)
    boxes, scores, labels, member = _gather(boxes_list, scores_list, labels_list)
    weight = _weights(weights, len(boxes_list))
    kept = np.flatnonzero(scores >= scores.dtype.type(min_score))
    weighted = scores[kept].astype(np.float64) * weight[member[kept]]
    # Class by class, each from its best score down; the sorts are stable.
    order = np.lexsort((-weighted, labels[kept]))
    most = len(order)
    fused, sums, total = np.empty((most, 4)), np.zeros((most, 4)), np.zeros(most)
    count, label = np.zeros(most, np.int64), np.empty(most, np.int64)
    boxes = boxes[kept[order]].astype(np.float64)
    found = _fuse(boxes, weighted[order], labels[kept[order]], float(iou_threshold), fused, sums, total, count, label)
    fused, total, count, label = fused[:found], total[:found], count[:found], label[:found]
    score = total / count * np.minimum(count, len(weight)) / weight.sum()
    best = np.argsort(-score, kind="stable")
    return fused[best].astype(np.float32), score[best].astype(scores.dtype), label[best]


def merge_detections(
    members: Sequence[Mapping[str, Detections]],
    method: Literal["wbf", "nms", "soft-nms"] = "wbf",
    *,
    iou_threshold: float | None = None,
    weights: ArrayLike | None = None,
) -> dict[str, Detections]:
    """Merge what several detectors found in the same pictures.

    Parameters
    ----------
    members : sequence of mapping of str to Detections
        Each detector's detections by ``image_id``, with scores of 0 or more. A picture that is missing in one is a
        picture in which it found nothing, which with "wbf" lowers the scores of what the others found there. All must
        know the same classes; their order may differ.
    method : {"wbf", "nms", "soft-nms"}
        "wbf": `weighted_box_fusion`. "nms": all boxes of a class together, the best of those that overlap stays
        (`nms`). "soft-nms": all boxes of a class together, those that overlap a better one with a lower score
        (`soft_nms`), without those whose score is below 0.001 in the end.
    iou_threshold : float or None
        Overlap, from 0 to 1, above which boxes count as one object; None is 0.55 for "wbf" and 0.3 for "nms". With
        "soft-nms" None is the Gaussian form, which has no such threshold, and a number the linear form with it.
    weights : array_like of float64, shape (N,), or None
        How much each member counts, above 0; only their proportions matter. For "nms" and "soft-nms" a member's
        scores are multiplied by its weight over the largest one.

    Returns
    -------
    dict of str to Detections
        By ``image_id``, every picture of any member in the order in which they come up, each best first, with the
        first member's classes. Scores are float64 if those of a member's picture are.

    Raises
    ------
    EvaluationError
        If there is no member, two do not have the same classes, no picture is in two of them, or a score is negative.
    SettingError
        If `method` is unknown, `iou_threshold` out of range, or the weights do not fit.

    References
    ----------
    Solovyev, Wang and Gabruseva, "Weighted boxes fusion: ensembling boxes from different object detection models",
    Image and Vision Computing, 2021. Bodla et al., "Soft-NMS", ICCV 2017.

    Examples
    --------
    >>> box = np.array([[0, 0, 10, 10]], np.float32)
    >>> one = Detections(box, np.float32([0.75]), np.array([0]), ("cat", "dog"))
    >>> other = Detections(box, np.float32([0.25]), np.array([1]), ("dog", "cat"))
    >>> merged = merge_detections([{"a": one}, {"a": other}])["a"]
    >>> merged.scores.tolist(), merged.classes[merged.labels[0]]
    ([0.5], 'cat')
    """
    check_choice("method", method, ("wbf", "nms", "soft-nms"))
    if not members:
        raise EvaluationError("there is nothing to merge; give the detections of at least one detector")
    check_number("iou_threshold", iou_threshold, 0, 1, optional=True)
    if wrong := [member for member in members if not isinstance(member, Mapping)]:
        raise SettingError(
            "members must be a list of dicts of picture id to Detections, as read_detections returns, not of "
            + type(wrong[0]).__name__
        )
    weight = _weights(weights, len(members))
    classes = _common_classes(members)
    _check_shared(members)
    nothing = Detections.empty(classes)
    result = {}
    for image_id in dict.fromkeys(image_id for member in members for image_id in member):
        found = [member.get(image_id, nothing) for member in members]
        lists = (
            [one.boxes for one in found],
            [one.scores for one in found],
            [renumber_labels(one, classes) for one in found],
        )
        try:
            if method == "wbf":
                threshold = 0.55 if iou_threshold is None else iou_threshold
                merged = weighted_box_fusion(*lists, iou_threshold=threshold, weights=weight)
            else:
                merged = _suppress(*lists, weight / weight.max(), iou_threshold, soft=method == "soft-nms")
            result[image_id] = Detections(*merged, classes)
        except SettingError as error:  # The settings are checked: it is the detections.
            raise EvaluationError(f"picture {image_id!r}: {error}") from error
    return result


def _suppress(
    boxes_list: Sequence[ArrayLike],
    scores_list: Sequence[ArrayLike],
    labels_list: Sequence[ArrayLike],
    weight: NDArray[np.float64],
    iou_threshold: float | None,
    soft: bool,
) -> tuple[NDArray[np.float32], NDArray[np.floating[Any]], NDArray[np.int64]]:
    """Suppress all members' boxes class by class, and rank what is left."""
    boxes, scores, labels, member = _gather(boxes_list, scores_list, labels_list)
    scores = (scores * weight[member]).astype(scores.dtype)
    indices, left = [np.zeros(0, np.int64)], [scores[:0]]
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        # `nms` compares float32: scores that are equal there stay in the order in which they come.
        own = own[np.argsort(-scores[own], kind="stable")]
        if not soft:
            kept = nms(boxes[own], scores[own], 0.3 if iou_threshold is None else iou_threshold)
            lowered = scores[own[kept]]
        elif iou_threshold is None:
            kept, lowered = soft_nms(boxes[own], scores[own])
        else:
            kept, lowered = soft_nms(boxes[own], scores[own], "linear", iou_threshold=iou_threshold)
        indices.append(own[kept])
        left.append(lowered)
    index, score = np.concatenate(indices), np.concatenate(left)
    best = np.argsort(-score, kind="stable")
    return boxes[index[best]], score[best], labels[index[best]]


def _common_classes(members: Sequence[Mapping[str, Detections]]) -> tuple[str, ...]:
    """Return the first list of classes there is, after a look at whether all others have the same names."""
    classes: tuple[str, ...] | None = None
    # Usually all pictures of a member share one list, which is compared once.
    for number, different in enumerate((dict.fromkeys(d.classes for d in m.values()) for m in members), start=1):
        for other in different:
            classes = other if classes is None else classes
            if sorted(other) != sorted(classes):
                odd = sorted(set(other) ^ set(classes))
                raise EvaluationError(
                    f"detections of member {number} have other classes than the first: "
                    f"{', '.join(odd[:5]) or 'a name twice'}"
                    f"{', ...' if len(odd) > 5 else ''}; all must know the same classes"
                )
    return classes or ()


def _check_shared(members: Sequence[Mapping[str, Detections]]) -> None:
    """Raise an error if no picture is in two members."""
    filled = [member for member in members if member]
    if len(filled) > 1 and sum(map(len, filled)) == len(set().union(*filled)):
        names = " and ".join(repr(next(iter(member))) for member in filled[:2])
        raise EvaluationError(
            f"no picture is in two of the members: they have {names}, for example; are the file names the same?"
        )


def _weights(weights: ArrayLike | None, count: int) -> NDArray[np.float64]:
    weight = np.ones(count) if weights is None else as_array("weights", weights, np.float64)
    if weight.shape != (count,) or not (weight > 0).all() or not np.isfinite(weight.sum()):
        raise SettingError(
            f"weights must be {count} finite numbers above 0, one for each member in their order, such as 1 for all; "
            f"they are {weight.tolist()}"
        )
    return weight


def _gather(
    boxes_list: Sequence[ArrayLike], scores_list: Sequence[ArrayLike], labels_list: Sequence[ArrayLike]
) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """All members' boxes (M, 4), scores, labels and the number of their member (M,)."""
    if not len(boxes_list) == len(scores_list) == len(labels_list):
        lengths = f"{len(boxes_list)}, {len(scores_list)} and {len(labels_list)}"
        raise SettingError(f"the lists of boxes, scores and labels are of {lengths} members, not of the same")
    boxes, labels = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.int64)]
    scores: list[NDArray[Any]] = [np.zeros(0, np.float32)]  # together they are float64 if one of them is
    for one_boxes, one_scores, one_labels in zip(boxes_list, scores_list, labels_list, strict=True):
        score, label = as_scores(one_scores), as_labels(one_labels)
        box = as_boxes(one_boxes)
        if score.ndim != 1 or box.shape != (len(score), 4) or label.shape != score.shape:
            raise SettingError(
                f"member {len(boxes)}: boxes {box.shape}, scores {score.shape} and labels {label.shape} do not fit: "
                "(M, 4), (M,) and (M,) are expected"
            )
        boxes.append(box)
        scores.append(score)
        labels.append(label)
    member = np.repeat(np.arange(len(boxes_list)), [len(score) for score in scores[1:]])
    all_boxes, all_scores = np.concatenate(boxes), np.concatenate(scores)
    if find_bad_number(all_boxes, all_scores) or all_scores.min(initial=0) < 0:
        for number, (box, score) in enumerate(zip(boxes[1:], scores[1:], strict=True), start=1):
            problem = find_bad_number(box, score)
            if not problem and (score < 0).any():
                problem = f"a score is {score.min():g}; only scores of 0 or more can be merged"
            if problem:
                raise SettingError(f"member {number}: {problem}")
    return all_boxes, all_scores, np.concatenate(labels), member


@kernel(
    "int64(float64[:,::1], float64[::1], int64[::1], float64, float64[:,::1], float64[:,::1], float64[::1], "
    "int64[::1], int64[::1])"
)
def _fuse(boxes, scores, labels, threshold, fused, sums, total, count, label):  # type: ignore[no-untyped-def]
    """Cluster boxes that come sorted by label and score, and return the number of clusters.

    Fills for each cluster: its box; `sums`, its members' boxes weighted by score; the `total` of their scores and the
    `count` of members (these three come as zeros); its label.
    """
    first = clusters = 0
    for i in range(len(boxes)):
        if i > 0 and labels[i] != labels[i - 1]:
            first = clusters
        x1, y1, x2, y2 = boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3]
        best, best_overlap = clusters, threshold
        for k in range(first, clusters):
            width = min(x2, fused[k, 2]) - max(x1, fused[k, 0])
            height = min(y2, fused[k, 3]) - max(y1, fused[k, 1])
            if width <= 0 or height <= 0:
                continue
            inter = width * height
            area = (fused[k, 2] - fused[k, 0]) * (fused[k, 3] - fused[k, 1])
            overlap = inter / ((x2 - x1) * (y2 - y1) + area - inter)
            if overlap > best_overlap:
                best, best_overlap = k, overlap
        if best == clusters:
            clusters += 1
            label[best] = labels[i]
        total[best] += scores[i]
        count[best] += 1
        for corner in range(4):
            sums[best, corner] += scores[i] * boxes[i, corner]
            # A cluster of one is that box itself, unrounded; one of zeros has no mean, and stays where it began.
            if count[best] == 1:
                fused[best, corner] = boxes[i, corner]
            elif total[best] > 0:
                fused[best, corner] = sums[best, corner] / total[best]
    return clusters
