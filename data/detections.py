"""The detections of a picture, and the checks and conversions that their files share.

The files themselves are in `formats`: `coco`, `voc` and `ilsvrc`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arguments import as_array, check_names
from .boxes import as_boxes, as_scores, corners_to_sides, find_problem
from .errors import DetectionError, SettingError


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects found in one picture.

    An index chooses some of them, as it does in NumPy: a mask, a slice, or an array of positions. A single position
    gives one detection. A loop gives the box, the score and the name of each.

    Attributes
    ----------
    boxes : ndarray of float32, shape (N, 4)
        ``x1 y1 x2 y2`` in pixels, continuous, 0-based; ``x1 <= x2`` and ``y1 <= y2``.
    scores : ndarray of float32 or float64, shape (N,)
        Higher is better. A detector's are float32. Those of a file of results are float64, so that they rank as the
        file's do.
    labels : ndarray of int64, shape (N,)
        Indices into `classes`, 0 or more.
    classes : tuple of str
        Names of the classes.

    Raises
    ------
    SettingError
        If the shapes do not fit together, a number is not finite, a box ends before it begins, a label is no index
        into `classes`, or `classes` is not a list of names.

    Notes
    -----
    Lists, tensors and arrays of other types are converted. Arrays of the types above are not copied. All is checked
    once: choosing some detections checks nothing again.

    Examples
    --------
    >>> from inception_rcnn.data import VOC_CLASSES
    >>> found = Detections(np.zeros((3, 4), np.float32), np.float32([0.9, 0.8, 0.3]), np.array([7, 7, 11]), VOC_CLASSES)
    >>> found
    Detections(3: 2 cat, 1 dog; best: cat 0.900, cat 0.800, dog 0.300)
    >>> found[found.scores > 0.5].names
    ['cat', 'cat']
    >>> for box, score, name in found[:2]:
    ...     print(name, score.round(2), box)
    cat 0.9 [0. 0. 0. 0.]
    cat 0.8 [0. 0. 0. 0.]
    >>> len(Detections.empty(VOC_CLASSES))
    0
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.floating[Any]]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        names = self.classes.values() if isinstance(self.classes, Mapping) else self.classes
        vars(self).update(
            boxes=as_boxes(self.boxes),
            scores=as_scores(self.scores),
            labels=as_labels(self.labels),
            classes=check_names("classes", names),
        )
        if problem := find_detection_problem(self):
            raise SettingError(problem)

    @classmethod
    def empty(cls, classes: Sequence[str]) -> Detections:
        """Return the detections of a picture in which nothing was found."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), classes)  # type: ignore

    @property
    def names(self) -> list[str]:
        """The name of each detection's class."""
        return [self.classes[label] for label in self.labels]

    def __len__(self) -> int:
        """Return the number of detections."""
        return len(self.scores)

    def __iter__(self) -> Iterator[tuple[NDArray[np.float32], np.floating[Any], str]]:
        """Yield the box (4,), the score and the name of the class of each detection."""
        return zip(self.boxes, self.scores, self.names, strict=True)

    def __getitem__(self, index: Any) -> Detections:
        """Choose some detections: by a mask, a slice, positions or one position; ``...`` is all of them.

        Raises
        ------
        SettingError
            If the index is something else, such as None or ``True``.
        IndexError
            If a position is not there, or a mask has another length.
        """
        rows = index[0] if isinstance(index, tuple) and len(index) == 1 else index  # as `numpy.where` returns it
        if rows is Ellipsis:
            rows = slice(None)
        elif not isinstance(rows, slice):
            given, rows = rows, as_array("an index", rows)
            if rows.size == 0 and rows.dtype != bool:  # An empty list has no type.
                rows = rows.astype(np.int64)
            if rows.ndim == 0 and rows.dtype != bool:
                rows = rows[None]
            if rows.ndim != 1 or rows.dtype.kind not in "biu" or isinstance(given, tuple):
                raise SettingError(f"an index of detections is a mask, a slice, positions or a position, not {index!r}")
        return checked_detections(self.boxes[rows], self.scores[rows], self.labels[rows], self.classes)

    def __repr__(self) -> str:
        """Count the classes, the most frequent five, and name the best three detections."""
        counts = ", ".join(f"{count} {name}" for name, count in Counter(self.names).most_common(5))
        best = self[np.argsort(-self.scores, kind="stable")[:3]]
        top = ", ".join(f"{name} {score:.3f}" for name, score in zip(best.names, best.scores, strict=True))
        return f"Detections({len(self)}" + (f": {counts}; best: {top})" if len(self) else ")")


def checked_detections(
    boxes: NDArray[np.float32],
    scores: NDArray[np.floating[Any]],
    labels: NDArray[np.int64],
    classes: tuple[str, ...],
) -> Detections:
    """Make detections of arrays that have been checked, in a tenth of the time."""
    made = object.__new__(Detections)
    vars(made).update(boxes=boxes, scores=scores, labels=labels, classes=classes)
    return made


def find_detection_problem(found: Detections) -> str:
    """Say what keeps detections from being those of a picture; "" if nothing.

    Whoever writes or evaluates them asks again: the arrays may have been changed in place.
    """
    if problem := find_problem(found.boxes, found.scores):
        return problem
    if found.labels.shape != found.scores.shape:
        return f"{len(found.scores)} scores and labels {found.labels.shape} do not fit: as many are expected"
    # Unsigned, negative numbers are large ones.
    if len(found.labels) and found.labels.view(np.uint64).max() >= len(found.classes):
        odd = found.labels[found.labels.view(np.uint64) >= len(found.classes)][0]
        return f"a label is {odd}, which is no index into its {len(found.classes)} classes"
    return ""


def as_labels(values: ArrayLike) -> NDArray[np.int64]:
    """Return class labels as an array of int64; refuse fractions and truth values."""
    array = as_array("labels", values)
    if array.size and array.dtype.kind not in "iu":
        raise SettingError(f"labels must be whole numbers, not {array.dtype.name}")
    return array.astype(np.int64, copy=False)


def detection_rows(found: Detections, classes: tuple[str, ...], name: str) -> Iterator[tuple[int, str, list[float]]]:
    """Yield category id (from 1), score as text and ``x y w h`` of every detection of the picture `name`."""
    check_finite(found, name)
    try:
        categories = [classes.index(one) + 1 for one in found.names]
    except ValueError:
        absent = next(one for one in found.names if one not in classes)
        raise DetectionError(f"{name}: a detection's class, {absent!r}, is not among the classes to write") from None
    return zip(categories, score_texts(found), corners_to_sides(found.boxes).tolist(), strict=True)


def check_finite(found: Detections, name: str) -> None:
    """Refuse detections that were changed to what none can be."""
    if problem := find_detection_problem(found):
        raise DetectionError(f"{name}: {problem}")


def score_texts(found: Detections) -> list[str]:
    """Write scores with as many digits as bring back the same number of their type."""
    if found.scores.dtype == np.float64:
        return list(map(repr, found.scores.tolist()))
    return [f"{score:.9g}" for score in found.scores.tolist()]


def group_by_picture(
    names: Sequence[str],
    owner: NDArray[np.int64],
    boxes: NDArray[np.float64],
    scores: NDArray[np.float64],
    labels: NDArray[np.int64],
    classes: tuple[str, ...],
) -> dict[str, Detections]:
    """Sort detections by picture, each in their order; `owner` is the position of the picture's name in `names`."""
    order = np.argsort(owner, kind="stable")
    ends = np.cumsum(np.bincount(owner, minlength=len(names))).tolist()
    box = boxes[order].astype(np.float32)
    # In VOC's files a box of no width ends a pixel before it begins, or a little more when it is rounded.
    np.maximum(box[:, 2:], box[:, :2], out=box[:, 2:])
    found = Detections(box, scores[order], labels[order], classes)
    return {name: found[start:end] for name, start, end in zip(names, [0, *ends], ends, strict=False)}
