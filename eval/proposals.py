"""How good proposals are before anything is classified: the objects they cover, and how well."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data import Picture
from ..data.arguments import check_number
from ..data.boxes import kernel_array
from ..data.errors import EvaluationError, SettingError
from ..data.system.kernels import kernel
from .agreement import passes_edge, warn_of_edges, warn_of_pictures
from .bootstrap import Bootstrap, mean_over_classes
from .matching import evaluated_classes, pair_iou

# Boxes of a picture that are compared with its edges: all would take a fiftieth of the time.
_COMPARED = 100

# As decimal literals: 0.5 + 2 * 0.05 is not 0.6, and an overlap of exactly 6/10 has to reach that.
_THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)

# COCO's sizes of objects, as areas in pixels, both ends included: of 32 x 32 pixels an object is small and medium.
SIZES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
_LEVELS = np.array(_THRESHOLDS)
_NEVER = np.iinfo(np.int64).max


def evaluate_proposals(
    pictures: Sequence[Picture],
    proposals: Mapping[str, ArrayLike] | Iterable[tuple[str, ArrayLike]],
    limits: Sequence[int] = (100, 500, 1000, 2000),
    classes: Sequence[str] | None = None,
    bootstrap: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure how many objects are covered by ranked proposals, and how tightly.

    Difficult objects and crowds are left out. An object is covered at a threshold if the best overlap that
    any proposal of its picture has with it is equal or above.

    Parameters
    ----------
    pictures : sequence of Picture
        The annotated pictures.
    proposals : mapping of str to array_like of float32, shape (N, 4), or iterable of (str, array_like)
        By ``image_id``, best first, ``x1 y1 x2 y2`` in pixels. A picture that is not in it has no proposals,
        and its objects count as missed. Of an iterable, such as one over a file that is read on the way, one
        picture's proposals are in memory at a time.
    limits : sequence of int
        Numbers of proposals per picture for ``"recall_at"``, ``"ar_at"`` and ``"mabo_at"``, 0 or more.
    classes : sequence of str, or None
        Names of the labels in `pictures`, for ``"abo"``; None for those that the pictures were read with, if they tell.
    bootstrap, seed : int
        As for `evaluate_voc`.

    Returns
    -------
    dict
        ``"recall"``: threshold ("0.5", "0.6", ..., "0.9") to the share of objects covered by any proposal;
        ``"recall_curve"``: the same in steps of 0.05 ("0.50", "0.55", ..., "0.95"). ``"mabo"``: mean average best
        overlap, averaged over the objects of a class, then over the classes that have objects; ``"abo"``, only
        where the names of classes are known: class to its average best overlap, nan without objects.
        ``"boxes_per_image"``: float.
        ``"recall_at"``: limit ("100", ...) to the recall at IoU 0.5 of the first so many proposals, also called
        coverage; ``"ar_at"``: limit to their average recall; ``"mabo_at"``: limit to their mean average best
        overlap. ``"coco_ar_at"``: limit to COCO's average recall, a dict of ``"all"``, ``"small"``, ``"medium"`` and
        ``"large"``; ``"recall_at_by_size"``: limit to the recall at IoU 0.5 of these objects. Shares are nan if there
        is no object. ``"intervals"``, if there is a `bootstrap`: the same keys, but
        for ``"boxes_per_image"`` and ``"abo"``, with [low, high] of 95 % in place of each number.

    Raises
    ------
    EvaluationError
        If none of the proposals' pictures is among `pictures`, two pictures or two entries of
        `proposals` have the same ``image_id``, or pictures were read with other classes than `classes`.
    SettingError
        If boxes are not of shape (N, 4) or not finite, a label has no name in `classes`, or a limit or
        another number is out of range.

    Warns
    -----
    DataWarning
        If pictures of the proposals are not among `pictures` and left out, or many proposals are far outside theirs.

    Notes
    -----
    Average recall is the mean of the recalls at IoU 0.5, 0.55, ..., 0.95 over all objects whatever their class. A box
    may cover several objects, as in Hosang et al., who define average recall as twice the area under the recall curve
    between 0.5 and 1; that is a little less, since at 1 there is next to no recall.

    COCO's average recall is another: at each threshold a box counts for one object only, the one that it overlaps most
    of those that no better box has. It is what pycocotools computes without categories (``useCats = 0``), with the
    boxes' order for the scores. That is less where objects lie close together. Sizes are those of objects' boxes: small
    up to 32 x 32 pixels, medium up to 96 x 96. An object of another size neither takes a box nor counts.

    References
    ----------
    Uijlings et al., "Selective Search for Object Recognition", IJCV 2013, section 5 (MABO). Hosang et al.,
    "What makes for effective detection proposals?", PAMI 2016 (recall at a number of proposals, average recall).
    pycocotools, ``cocoeval.py`` (COCO's average recall).

    Examples
    --------
    >>> box, no = np.array([[0, 0, 20, 10]], np.float32), np.array([False])
    >>> picture = Picture("000001", "000001.jpg", 20, 10, box, np.array([7]), no, no)
    >>> result = evaluate_proposals([picture], {"000001": [[0, 0, 10, 5], [0, 0, 20, 6]]}, limits=(1, 2))
    >>> result["recall"]["0.5"], round(result["mabo"], 3), result["recall_at"], result["ar_at"]
    (1.0, 0.6, {'1': 0.0, '2': 1.0}, {'1': 0.0, '2': 0.3})
    """
    if isinstance(proposals, (str, os.PathLike)):
        raise SettingError(f"proposals must be a dict of picture id to boxes, not the name {str(proposals)!r}")
    if not isinstance(limits, Iterable):
        raise SettingError(f"limits must be a list of whole numbers, not {limits!r}")
    for limit in limits:
        check_number("a limit", limit, 0, whole=True)
    names = evaluated_classes(pictures, classes, ())
    position = {picture.image_id: i for i, picture in enumerate(pictures)}
    if len(position) < len(pictures):
        raise EvaluationError(f"{len(pictures) - len(position)} pictures are among the annotations twice")
    counted = [~(picture.difficult | picture.crowd) for picture in pictures]
    objects = [picture.boxes[own].astype(np.float64) for picture, own in zip(pictures, counted, strict=True)]
    label = np.concatenate([np.zeros(0, np.int64), *(p.labels[own] for p, own in zip(pictures, counted, strict=True))])
    if names and len(label) and label.max() >= len(names):
        raise SettingError(f"an object has label {label.max()}, but there are {len(names)} names of classes")

    # The best overlap of every object with the first so many proposals of its picture, the smallest number first.
    steps = np.unique(np.array(limits, np.int64))
    best = np.zeros((len(label), len(steps) + 1))
    start = np.cumsum([0, *map(len, objects)])
    areas = np.concatenate([np.zeros(0), *((one[:, 2] - one[:, 0]) * (one[:, 3] - one[:, 1]) for one in objects)])
    of_size = np.array([(low <= areas) & (areas <= high) for low, high in SIZES.values()])
    # By how many boxes COCO's matching has found each object, for each size and threshold.
    found_by = np.full((len(areas), len(SIZES), len(_THRESHOLDS)), _NEVER)
    seen = np.zeros(len(pictures), bool)
    total = compared = beyond = 0
    others: list[str] = []
    for image_id, boxes in proposals.items() if isinstance(proposals, Mapping) else proposals:
        i = position.get(image_id, -1)
        if i < 0:
            others.append(image_id)
            continue
        if seen[i]:
            raise EvaluationError(f"picture {image_id!r} is among the proposals twice")
        seen[i] = True
        array = _check_boxes(image_id, boxes)
        total += len(array)
        compared += min(len(array), _COMPARED)
        own = slice(start[i], start[i + 1])
        first = min(len(array), int(steps[-1]) if len(steps) else 0)
        room = len(objects[i]) * first
        near = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room)
        outside, pairs = _best_overlaps(
            objects[i], array, steps, best[own], pictures[i].width, pictures[i].height, first, *near
        )
        beyond += outside
        _match_once(*(column[:pairs] for column in near), _LEVELS, np.ascontiguousarray(of_size[:, own]), found_by[own])

    if others and not seen.any():
        raise EvaluationError(
            f"picture {others[0]!r} has proposals but no annotations ({len(others)} such in all, and no others); "
            "evaluate on the pictures that the proposals are of"
        )
    warn_of_pictures(others, "the proposals")
    warn_of_edges(beyond, compared, f"proposals, the first {_COMPARED} of each picture,")

    columns = {int(n): best[:, np.searchsorted(steps, n)] for n in limits}
    result = _figures(best[:, -1], columns, _mean, _average_recall, lambda c: _mabo(c, label))
    result |= _by_size(columns, found_by, of_size, lambda values, _: _mean(values))
    result["boxes_per_image"] = total / len(pictures) if pictures else float("nan")
    if names:
        result["abo"] = {name: _mean(best[label == i, -1]) for i, name in enumerate(names)}
    if bootstrap is not None:
        owner = np.repeat(np.arange(len(pictures)), [len(one) for one in objects])
        draws = Bootstrap(len(pictures), bootstrap, seed)
        result["intervals"] = _intervals(best[:, -1], columns, label, owner, draws)
        result["intervals"] |= _by_size(
            columns, found_by, of_size,
            lambda values, chosen: list(draws.interval(draws.means(owner[chosen], values))),
        )  # fmt: skip
    return result


def _check_boxes(image_id: str, boxes: ArrayLike) -> NDArray[np.float32]:
    """Return a picture's proposals as an array (N, 4) for kernels."""
    array = kernel_array(boxes)
    array = array if array.size else array.reshape(0, 4)
    if array.ndim != 2 or array.shape[1] != 4:
        raise SettingError(f"picture {image_id!r}: proposals must have shape (N, 4), not {array.shape}")
    if not np.isfinite(array).all():
        raise SettingError(f"picture {image_id!r}: a coordinate of a proposal is not a finite number")
    return array


def _figures(
    everything: NDArray[np.float64],
    columns: Mapping[int, NDArray[np.float64]],
    share: Callable[[NDArray[np.bool_]], Any],
    average_recall: Callable[[NDArray[np.float64]], Any],
    mabo: Callable[[NDArray[np.float64]], Any],
) -> dict[str, Any]:
    """Compute what there is to say of the objects' best overlaps, with all boxes and with the first so many."""
    curve = [share(everything >= threshold) for threshold in _THRESHOLDS]
    return {
        "recall": {str(t): one for t, one in zip(_THRESHOLDS[::2], curve[::2], strict=True)},
        "recall_curve": {f"{t:.2f}": one for t, one in zip(_THRESHOLDS, curve, strict=True)},
        "mabo": mabo(everything),
        "recall_at": {str(n): share(column >= 0.5) for n, column in columns.items()},
        "ar_at": {str(n): average_recall(column) for n, column in columns.items()},
        "mabo_at": {str(n): mabo(column) for n, column in columns.items()},
    }


def _by_size(
    columns: Mapping[int, NDArray[np.float64]],
    found_by: NDArray[np.int64],
    of_size: NDArray[np.bool_],
    mean: Callable[[NDArray[Any], NDArray[np.bool_]], Any],
) -> dict[str, Any]:
    """Compute recall and COCO's average recall of the objects of each size; `mean` gets numbers, and whose they are."""

    def of_each(values: NDArray[Any]) -> dict[str, Any]:  # (objects, sizes)
        return {size: mean(values[own, k], own) for k, (size, own) in enumerate(zip(SIZES, of_size, strict=True))}

    return {
        "recall_at_by_size": {
            str(n): of_each(np.repeat(column[:, None] >= 0.5, len(SIZES), axis=1)) for n, column in columns.items()
        },
        "coco_ar_at": {str(n): of_each((found_by < n).mean(axis=2)) for n in columns},
    }


def _intervals(
    everything: NDArray[np.float64],
    columns: Mapping[int, NDArray[np.float64]],
    label: NDArray[np.int64],
    owner: NDArray[np.int64],
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    """Compute the intervals of the figures; `owner` is the picture of each object."""

    def of_mean(values: NDArray[Any]) -> list[float]:
        return list(bootstrap.interval(bootstrap.means(owner, values)))

    def of_mabo(column: NDArray[np.float64]) -> list[float]:
        values = {str(one): bootstrap.means(owner[label == one], column[label == one]) for one in np.unique(label)}
        return list(bootstrap.interval(mean_over_classes(values)))

    def of_average_recall(column: NDArray[np.float64]) -> list[float]:
        return of_mean((column[:, None] >= _LEVELS).mean(axis=1))

    return _figures(everything, columns, of_mean, of_average_recall, of_mabo)


def _average_recall(best: NDArray[np.float64]) -> float:
    return float(np.mean([_mean(best >= threshold) for threshold in _THRESHOLDS]))


def _mabo(best: NDArray[np.float64], label: NDArray[np.int64]) -> float:
    return _mean(np.array([best[label == one].mean() for one in np.unique(label)]))


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else float("nan")


@kernel(
    "UniTuple(int64, 2)(float64[:,::1], float32[:,::1], int64[::1], float64[:,::1], int64, int64, int64, int64[::1], "
    "int64[::1], float64[::1])"
)
def _best_overlaps(  # type: ignore[no-untyped-def]
    objects, boxes, limits, best, width, height, first, box_of, object_of, overlap_of
):
    """Fill `best` (objects, limits + 1), zeros: with the first limits[k] boxes, limits rising, and last with all.

    The last three arrays get the pairs of the first so many boxes and the objects that overlap by half, by boxes.
    Returns how many of the first boxes pass an edge of the picture, and how many pairs there are.
    """
    k, pairs, everything = 0, 0, len(limits)
    for b in range(len(boxes) + 1):
        while k < everything and (limits[k] <= b or b == len(boxes)):
            for i in range(len(objects)):
                best[i, k] = best[i, everything]
            k += 1
        if b == len(boxes):
            break
        for i in range(len(objects)):
            overlap = pair_iou(objects, i, boxes, b)
            best[i, everything] = max(best[i, everything], overlap)
            if overlap >= 0.5 and b < first:
                box_of[pairs], object_of[pairs], overlap_of[pairs] = b, i, overlap
                pairs += 1
    beyond = 0
    for b in range(min(len(boxes), _COMPARED)):
        beyond += passes_edge(boxes, b, width, height)
    return beyond, pairs


@kernel("void(int64[::1], int64[::1], float64[::1], float64[::1], boolean[:,::1], int64[:,:,::1])")
def _match_once(box_of, object_of, overlap_of, thresholds, of_size, found):  # type: ignore[no-untyped-def]
    """Fill `found` (objects, sizes, thresholds) with the number of the box that takes the object, best boxes first.

    A box takes one object only. `found` must be above all numbers of boxes at the start.
    """
    for size in range(len(of_size)):
        for t in range(len(thresholds)):
            at = 0
            while at < len(box_of):
                box, most, taken = box_of[at], thresholds[t], -1
                while at < len(box_of) and box_of[at] == box:
                    i = object_of[at]
                    # Of equal overlaps the last, as in pycocotools.
                    if of_size[size, i] and overlap_of[at] >= most and found[i, size, t] > box:
                        most, taken = overlap_of[at], i
                    at += 1
                if taken >= 0:
                    found[taken, size, t] = box
