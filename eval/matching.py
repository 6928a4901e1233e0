"""Detections to hits and false detections, by the rules of VOC and of ILSVRC; average precision follows from them.

Both kits count pixels from 1 and include both corners, so the width of a box is ``xmax - xmin + 1``. Our boxes
are continuous, ``x1 = xmin - 1`` and ``x2 = xmax``. Their width ``x2 - x1`` is that same number, as is the width of
every intersection. So the continuous overlap is the kits' inclusive one, and nothing has to be converted.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data import ILSVRC_DET_CLASSES, IMAGE_SUFFIXES, VOC_CLASSES, Detections, Picture
from ..data.arguments import check_names, check_number
from ..data.boxes import find_bad_number
from ..data.detections import find_detection_problem
from ..data.errors import EvaluationError, SettingError, first_names
from ..data.system.kernels import kernel
from .agreement import count_beyond_edges, warn_of_classes, warn_of_edges, warn_of_pictures

HIT, FALSE, IGNORED = 1, 0, -1


class Matches(NamedTuple):
    """The detections of one class in all pictures, best first, with the outcome of each.

    Attributes
    ----------
    picture : ndarray of int64, shape (D,)
        Position of each detection's picture in the list of pictures.
    detection : ndarray of int64, shape (D,)
        Position of the detection among those of its picture.
    score : ndarray of float64, shape (D,)
        Never rising.
    outcome : ndarray of int8, shape (D,)
        `HIT` (1), `FALSE` (0) or `IGNORED` (-1).
    object : ndarray of int64, shape (D,)
        Position, among its picture's objects, of the object of this class that the detection was compared with; -1
        if it touches none.
    overlap : ndarray of float64, shape (D,)
        IoU with that object, 0 if there is none.
    positives : int
        Objects to be found.
    positives_per_picture : ndarray of int64, shape (P,)
        Objects to be found in each picture, which error bars need; see `bootstrap.py`. Matches that are made up may
        leave it out.
    """

    picture: NDArray[np.int64]
    detection: NDArray[np.int64]
    score: NDArray[np.float64]
    outcome: NDArray[np.int8]
    object: NDArray[np.int64]
    overlap: NDArray[np.float64]
    positives: int
    positives_per_picture: NDArray[np.int64] = np.zeros(0, np.int64)

    def precision_recall(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Precision and recall (C,) after each detection that counts; recall is nan without positives."""
        hits = self.outcome[self.outcome != IGNORED] == HIT
        found = np.cumsum(hits)
        with np.errstate(invalid="ignore", divide="ignore"):
            return found / np.arange(1, len(hits) + 1), found / np.float64(self.positives)


def match_voc(
    pictures: Sequence[Picture],
    detections: Mapping[str, Detections],
    classes: Sequence[str] | None = None,
    iou_threshold: float = 0.5,
) -> dict[str, Matches]:
    """Match detections with objects, class by class, by the rules of PASCAL VOC.

    The detections of a class are taken from the best score down, over all pictures. Each is compared with the
    object of its class that it overlaps most, and with no other. If that overlap is below `iou_threshold`,
    the detection is false; if the object is difficult, the detection is left out; if the object has been found before,
    the detection is false; otherwise it is a hit. Objects marked as a crowd are treated as difficult ones.

    Parameters
    ----------
    pictures : sequence of Picture
        The annotated pictures; their labels are indices into `classes`.
    detections : mapping of str to Detections
        By ``image_id``. A picture that is not in it has no detections. Their classes are matched by name, and
        classes that are not evaluated are left out. Equal scores keep the order of `pictures`, then that
        of the picture's detections; the kit takes them in the order of the lines of its result file, which is the same
        if those are sorted by picture.
    classes : sequence of str, or None
        Names of the classes; None for those that the pictures were read with, or VOC's if they do not tell.
    iou_threshold : float
        Overlap from which a detection is good enough, 0 to 1.

    Returns
    -------
    dict of str to Matches
        By class, every one of `classes`.

    Raises
    ------
    EvaluationError
        If none of the detections' pictures is among `pictures`, two pictures have the same ``image_id``, a
        number is not finite, a label is out of range, or pictures were read with other classes than `classes`.
    SettingError
        If `iou_threshold` is not from 0 to 1, or `classes` is not a list of names.

    Warns
    -----
    DataWarning
        If pictures of the detections are not among `pictures` and left out, many detections are far outside their
        pictures, or the detections do not know a class that has objects.

    References
    ----------
    Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010, section 4.2;
    ``VOCevaldet.m`` of the VOC 2007 development kit.

    Examples
    --------
    >>> box, label = np.array([[0, 0, 20, 10]], np.float32), np.array([7])
    >>> picture = Picture("000001", "000001.jpg", 20, 10, box, label, np.array([False]), np.array([False]))
    >>> found = Detections(box, np.array([0.9], np.float32), label, VOC_CLASSES)
    >>> match_voc([picture], {"000001": found})["cat"].outcome.tolist()
    [1]
    """
    check_number("iou_threshold", iou_threshold, 0, 1)
    classes = evaluated_classes(pictures, classes, VOC_CLASSES)
    flags = np.concatenate([np.zeros(0, bool), *(p.difficult | p.crowd for p in pictures)])
    first = np.cumsum([0, *(len(p.labels) for p in pictures)])
    result = {}
    for name, objects, claims in _by_class(pictures, detections, classes):
        difficult = flags[first[objects.picture] + objects.place]
        boxes = claims.boxes, claims.picture, objects.boxes, objects.start
        matched = _unmatched(claims, objects)
        _match_voc(*boxes, difficult, float(iou_threshold), *matched)
        result[name] = _matches(claims, objects, *matched[:3], ~difficult)
    return result


def match_ilsvrc(
    pictures: Sequence[Picture],
    detections: Mapping[str, Detections],
    classes: Sequence[str] | Mapping[str, str] | None = None,
    blacklist: Collection[tuple[str, str]] = (),
) -> dict[str, Matches]:
    """Match detections with objects, class by class, by the rules of the ILSVRC detection challenge.

    The detections of a class are taken from the best score down. Each takes, of the objects of its class that
    are still free and that it overlaps by at least the object's own threshold, the one that it overlaps most;
    if there is none, it is false. The threshold of an object of w x h pixels is
    ``min(0.5, w * h / ((w + 10) * (h + 10)))``. It is lower than 0.5 only for objects under about 25 x 25 pixels. So a
    box may be 5 pixels off on every side.

    Parameters
    ----------
    pictures : sequence of Picture
        The annotated pictures; their labels are indices into `classes`. Difficult objects are ordinary ones
        here.
    detections : mapping of str to Detections
        As for `match_voc`.
    classes : sequence of str, mapping of str to str, or None
        Names of the classes, or WordNet ids to names as the readers take them; None for those that the pictures were
        read with, or the 200 of the challenge if they do not tell.
    blacklist : collection of (str, str)
        Pairs of ``image_id`` and class that were not annotated with care: the picture's detections of that class are
        left out, and its objects need not be found.

    Returns
    -------
    dict of str to Matches
        By class, every one of `classes`.

    Raises
    ------
    EvaluationError
        As for `match_voc`.
    SettingError
        If `classes` is not a list of names.

    Warns
    -----
    DataWarning
        As for `match_voc`.

    References
    ----------
    Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015, section 5.4;
    ``eval_detection.m`` of the ILSVRC 2014 development kit.

    Examples
    --------
    >>> flags = np.array([False])
    >>> picture = Picture("1", "1.jpg", 99, 99, np.float32([[0, 0, 10, 10]]), np.array([0]), flags, flags)
    >>> found = Detections(np.float32([[0, 0, 15, 15]]), np.float32([0.9]), np.array([0]), ("ant",))
    >>> match_ilsvrc([picture], {"1": found}, ("ant",))["ant"].outcome.tolist()  # IoU 0.44, above 0.25
    [1]
    """
    classes = evaluated_classes(
        pictures, classes.values() if isinstance(classes, Mapping) else classes, ILSVRC_DET_CLASSES.values()
    )
    avoided: dict[str, set[str]] = {}
    for image_id, name in blacklist:
        avoided.setdefault(name, set()).add(image_id)
    result = {}
    for name, objects, claims in _by_class(pictures, detections, classes):
        skipped = np.array([p.image_id in avoided.get(name, ()) for p in pictures], bool)
        outcome, row, overlap, taken = _unmatched(claims, objects)
        boxes = claims.boxes, claims.picture, objects.boxes, objects.start
        _match_ilsvrc(*boxes, ilsvrc_thresholds(objects.boxes), outcome, row, overlap, taken)
        outcome[skipped[claims.picture]] = IGNORED
        result[name] = _matches(claims, objects, outcome, row, overlap, ~skipped[objects.picture])
    return result


def evaluated_classes(
    pictures: Sequence[Picture], classes: Iterable[str] | None, otherwise: Iterable[str]
) -> tuple[str, ...]:
    """Return the classes to evaluate: those given, else those that the pictures were read with, else `otherwise`.

    Raises
    ------
    EvaluationError
        If pictures were read with other classes: their labels are positions in another list.
    SettingError
        If `classes` is not a list of names, or `pictures` is the name of a file or folder.
    """
    if isinstance(pictures, (str, os.PathLike)):
        raise SettingError(f"pictures must be a list of Picture, as read_voc returns, not the name {str(pictures)!r}")
    # By identity first: the pictures of a set have one tuple.
    own = {id(picture.classes): picture.classes for picture in pictures}.values()
    lists = list(dict.fromkeys(tuple(one) for one in own if one is not None))
    if classes is not None:
        lists = list(dict.fromkeys([*lists, check_names("classes", classes)]))
    if len(lists) > 1:
        one, other = lists[0], lists[-1]
        raise EvaluationError(
            f"pictures were read with {len(one)} classes ({first_names(one, 3)}), which their labels number, "
            + ("others with" if classes is None else "and to be evaluated are")
            + f" {len(other)} ({first_names(other, 3)}); use the same list, in the same order"
        )
    return lists[0] if lists else tuple(otherwise)


def count_pictures(matches: Mapping[str, Matches]) -> int:
    """Return the number of pictures that were matched; 0 without classes."""
    return max((len(one.positives_per_picture) for one in matches.values()), default=0)


def pool_matches(matches: Sequence[Matches]) -> Matches:
    """Join the detections of several classes as those of one, best first."""
    nothing, scores, outcomes = np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int8)
    every = [Matches(nothing, nothing, scores, outcomes, nothing, scores, 0), *matches]
    order = np.argsort(-np.concatenate([one.score for one in every]), kind="stable")
    picture, detection, score, outcome, place, overlap = (
        np.concatenate(column)[order] for column in zip(*(one[:6] for one in every), strict=True)
    )
    positives = sum(one.positives for one in matches)
    per_picture = np.sum([one.positives_per_picture for one in matches], axis=0, dtype=np.int64, initial=0)
    return Matches(picture, detection, score, outcome, place, overlap, positives, np.atleast_1d(per_picture))


def check_pictures(pictures: Sequence[Picture], classes: Sequence[str]) -> None:
    """Refuse classes or pictures that are there twice, and labels that are not among the classes."""
    if len(set(classes)) < len(classes):
        raise EvaluationError("a class is named twice among those to evaluate")
    names = [picture.image_id for picture in pictures]
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise EvaluationError(f"picture {twice!r} is among the annotations twice; give it once")
    labels = np.concatenate([np.zeros(0, np.int64), *(picture.labels for picture in pictures)])
    if not ((labels >= 0) & (labels < len(classes))).all():
        odd = next(
            picture.image_id
            for picture in pictures
            if not ((picture.labels >= 0) & (picture.labels < len(classes))).all()
        )
        raise EvaluationError(
            f"picture {odd!r} has an object of a class that is not evaluated; "
            "give the classes that the annotations were read with"
        )


def class_names(detections: Mapping[str, Detections]) -> dict[str, None]:
    """Return the names of the detections' classes, each once, in their order."""
    lists = {id(one.classes): one.classes for one in detections.values()}
    return dict.fromkeys(name for names in lists.values() for name in names)


def check_detections(detections: Mapping[str, Detections]) -> None:
    """Refuse what is no mapping to detections, and detections that were changed in place to what none can be."""
    if not isinstance(detections, Mapping):
        raise SettingError(
            "detections must be a dict of picture id to Detections, as read_detections returns, not "
            + type(detections).__name__
        )
    every = list(detections.values())
    # All are looked at together, which is faster.
    if every and all(isinstance(one, Detections) for one in every):
        labels = np.concatenate([one.labels for one in every])
        limits = np.repeat([len(one.classes) for one in every], [len(one) for one in every])
        boxes, scores = np.concatenate([one.boxes for one in every]), np.concatenate([one.scores for one in every])
        if not find_bad_number(boxes, scores) and ((labels >= 0) & (labels < limits)).all():
            return
    for image_id, one in detections.items():
        if not isinstance(one, Detections):
            raise SettingError(f"picture {image_id!r}: there must be Detections, not {type(one).__name__}")
        if problem := find_detection_problem(one):
            raise EvaluationError(f"picture {image_id!r}: {problem}")


def ilsvrc_thresholds(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the IoU (N,) from which a detection of each object is good enough; see `match_ilsvrc`."""
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    return np.minimum(0.5, width * height / ((width + 10) * (height + 10)))


class _Boxes(NamedTuple):
    """Boxes of one class in many pictures: their picture, their position in it, where each picture's begin."""

    boxes: NDArray[np.float64]
    picture: NDArray[np.int64]
    place: NDArray[np.int64]
    start: NDArray[np.int64]
    score: NDArray[np.float64]


def _by_class(
    pictures: Sequence[Picture], detections: Mapping[str, Detections], classes: Sequence[str]
) -> list[tuple[str, _Boxes, _Boxes]]:
    """Every class with its objects, picture by picture, and its detections, best first."""
    classes = check_names("classes", classes)
    check_pictures(pictures, classes)
    check_detections(detections)
    known = {picture.image_id for picture in pictures}
    unknown = [image_id for image_id, found in detections.items() if len(found) and image_id not in known]
    if unknown and known.isdisjoint(detections):
        hint = "evaluate on the pictures that were detected on"
        if Path(unknown[0]).suffix.lower() in IMAGE_SUFFIXES:
            hint = "the ids of pictures have no suffix"
        raise EvaluationError(
            f"picture {unknown[0]!r} has detections but no annotations ({len(unknown)} such in all); {hint}"
        )
    warn_of_pictures(unknown)
    nothing = Detections.empty(classes)
    found = [detections.get(picture.image_id, nothing) for picture in pictures]
    objects = _split([p.boxes for p in pictures], [p.labels for p in pictures], None, len(classes))
    claims = _split(
        [d.boxes for d in found], [renumber_labels(d, classes) for d in found], [d.scores for d in found], len(classes)
    )
    sizes = np.array([[p.width for p in pictures], [p.height for p in pictures]], np.float64).T.copy()
    beyond = sum(count_beyond_edges(one.boxes, one.picture, sizes) for one in claims)
    warn_of_edges(beyond, sum(len(one.boxes) for one in claims))
    warn_of_classes(
        class_names(detections), [name for name, one in zip(classes, objects, strict=True) if len(one.boxes)]
    )
    return list(zip(classes, objects, claims, strict=True))


def _split(
    boxes: Sequence[NDArray[np.float32]],
    labels: Sequence[NDArray[np.int64]],
    scores: Sequence[NDArray[np.float32]] | None,
    count: int,
) -> list[_Boxes]:
    """Sort the boxes of all pictures into classes, and those with scores best first."""
    label = np.concatenate([np.zeros(0, np.int64), *labels])
    lengths = np.array([len(one) for one in labels], np.int64)
    picture = np.repeat(np.arange(len(lengths)), lengths)
    index = np.arange(len(label)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    box = np.concatenate([np.zeros((0, 4)), *boxes])
    score = np.zeros(len(label)) if scores is None else np.concatenate([np.zeros(0), *scores])
    # Stable, so that within a class the pictures and their boxes keep their order.
    order = np.argsort(label, kind="stable")
    bounds = np.searchsorted(label[order], np.arange(count + 1))
    result = []
    for first, last in pairwise(bounds):
        rows = order[first:last]
        if scores is not None:
            rows = rows[np.argsort(-score[rows], kind="stable")]
        start = np.searchsorted(picture[rows], np.arange(len(lengths) + 1)) if scores is None else np.zeros(0, np.int64)
        result.append(_Boxes(box[rows], picture[rows], index[rows], start, score[rows]))
    return result


def renumber_labels(found: Detections, classes: Sequence[str]) -> NDArray[np.int64]:
    """Return the labels as indices into `classes`, -1 for a class that is not among them."""
    if found.classes == tuple(classes):
        return found.labels
    index = {name: label for label, name in enumerate(classes)}
    return np.array([index.get(name, -1) for name in found.classes], np.int64)[found.labels]


def _unmatched(
    claims: _Boxes, objects: _Boxes
) -> tuple[NDArray[np.int8], NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
    """Arrays for each detection's outcome, object and overlap, and for which objects are taken, as before matching."""
    count = len(claims.boxes)
    return np.empty(count, np.int8), np.full(count, -1), np.zeros(count), np.zeros(len(objects.boxes), np.bool_)


def _matches(
    claims: _Boxes,
    objects: _Boxes,
    outcome: NDArray[np.int8],
    row: NDArray[np.int64],
    overlap: NDArray[np.float64],
    counted: NDArray[np.bool_],
) -> Matches:
    index = np.where(row < 0, -1, np.append(objects.place, -1)[row])
    positives = np.bincount(objects.picture[counted], minlength=len(objects.start) - 1)
    return Matches(
        claims.picture, claims.place, claims.score, outcome, index, overlap, int(counted.sum()), positives
    )  # fmt: skip


# Suppression (data/nms.py) and fusion (ensemble.py) compute the IoU in their own loops: with this kernel they took 4 %
# longer, matching and `evaluate_proposals` no longer than before.
@kernel()
def pair_iou(boxes, i, others, j):  # type: ignore[no-untyped-def]
    """IoU of boxes[i] and others[j], for other kernels; 0 if they have no area in common."""
    x1, y1, x2, y2 = boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3]
    # In double precision from the start, where an overlap of 6/10 is exactly the number 0.6.
    a, b, c, d = np.float64(others[j, 0]), np.float64(others[j, 1]), np.float64(others[j, 2]), np.float64(others[j, 3])
    width, height = min(x2, c) - max(x1, a), min(y2, d) - max(y1, b)
    if width <= 0 or height <= 0:
        return 0.0
    inter = width * height
    return inter / ((x2 - x1) * (y2 - y1) + (c - a) * (d - b) - inter)


# Both take detections of one class, best first, and the objects of that class, those of picture i being
# start[i] : start[i + 1]. They fill each detection's outcome, its object (-1 before) and its overlap with it (0
# before); `taken` says which objects are (none before).


@kernel(
    "void(float64[:,::1], int64[::1], float64[:,::1], int64[::1], boolean[::1], float64, int8[::1], int64[::1], "
    "float64[::1], boolean[::1])"
)
def _match_voc(  # type: ignore[no-untyped-def]
    boxes, picture, object_boxes, start, difficult, threshold, outcome, row, overlaps, taken
):
    for d in range(len(boxes)):
        for j in range(start[picture[d]], start[picture[d] + 1]):
            overlap = pair_iou(boxes, d, object_boxes, j)
            if overlap > overlaps[d]:
                row[d], overlaps[d] = j, overlap
        if row[d] < 0 or overlaps[d] < threshold:
            outcome[d] = FALSE
        elif difficult[row[d]]:
            outcome[d] = IGNORED
        elif taken[row[d]]:
            outcome[d] = FALSE
        else:
            outcome[d] = HIT
            taken[row[d]] = True


@kernel(
    "void(float64[:,::1], int64[::1], float64[:,::1], int64[::1], float64[::1], int8[::1], int64[::1], float64[::1], "
    "boolean[::1])"
)
def _match_ilsvrc(  # type: ignore[no-untyped-def]
    boxes, picture, object_boxes, start, threshold, outcome, row, overlaps, taken
):
    for d in range(len(boxes)):
        free, free_overlap = -1, 0.0
        for j in range(start[picture[d]], start[picture[d] + 1]):
            overlap = pair_iou(boxes, d, object_boxes, j)
            if overlap > overlaps[d]:
                row[d], overlaps[d] = j, overlap
            if not taken[j] and overlap >= threshold[j] and overlap > free_overlap:
                free, free_overlap = j, overlap
        outcome[d] = HIT if free >= 0 else FALSE
        if free >= 0:
            taken[free] = True
            row[d], overlaps[d] = free, free_overlap
