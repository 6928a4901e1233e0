"""The detections of a picture, and the checks and conversions that their files share.

The files themselves are in `formats`: `coco`, `voc` and `ilsvrc`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .boxes import corners_to_sides
from .errors import DetectionError, SettingError


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects found in one picture.

    An index chooses some of them, as it does in NumPy: a mask, a slice, an array of positions, or a single position,
    which gives one detection.

    Attributes
    ----------
    boxes : ndarray of float32, shape (N, 4)
        ``x1 y1 x2 y2`` in pixels, continuous, 0-based.
    scores : ndarray of float32 or float64, shape (N,)
        Higher is better. A detector's are float32; read from a file of results they are float64, so that they rank
        as the file's do.
    labels : ndarray of int64, shape (N,)
        Indices into `classes`.
    classes : tuple of str
        Names of the classes.

    Raises
    ------
    SettingError
        If the arrays' shapes do not fit together.

    Examples
    --------
    >>> from inception_rcnn.data import VOC_CLASSES
    >>> found = Detections(np.zeros((3, 4), np.float32), np.float32([0.9, 0.8, 0.3]), np.array([7, 7, 11]), VOC_CLASSES)
    >>> found
    Detections(3: 2 cat, 1 dog; best: cat 0.900, cat 0.800, dog 0.300)
    >>> found[found.scores > 0.5].names
    ['cat', 'cat']
    >>> len(Detections.empty(VOC_CLASSES))
    0
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.floating[Any]]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        count = len(self.scores)
        if self.boxes.shape != (count, 4) or self.scores.shape != (count,) or self.labels.shape != (count,):
            raise SettingError(
                f"boxes {self.boxes.shape}, scores {self.scores.shape} and labels {self.labels.shape} "
                "do not fit: (N, 4), (N,) and (N,) are expected"
            )

    @classmethod
    def empty(cls, classes: Sequence[str]) -> Detections:
        """Return the detections of a picture in which nothing was found."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), tuple(classes))

    @property
    def names(self) -> list[str]:
        """The name of each detection's class."""
        return [self.classes[label] for label in self.labels]

    def __len__(self) -> int:
        """Return the number of detections."""
        return len(self.scores)

    def __getitem__(self, index: Any) -> Detections:
        """Choose some detections: by a mask, a slice or positions."""
        index = np.atleast_1d(index) if np.ndim(index) == 0 and not isinstance(index, slice) else index
        return Detections(self.boxes[index], self.scores[index], self.labels[index], self.classes)

    def __repr__(self) -> str:
        """Count the classes, the most frequent five, and name the best three detections."""
        counts = ", ".join(f"{count} {name}" for name, count in Counter(self.names).most_common(5))
        best = self[np.argsort(-self.scores, kind="stable")[:3]]
        top = ", ".join(f"{name} {score:.3f}" for name, score in zip(best.names, best.scores, strict=True))
        return f"Detections({len(self)}" + (f": {counts}; best: {top})" if len(self) else ")")


def detection_rows(found: Detections, classes: tuple[str, ...], name: str) -> Iterator[tuple[int, str, list[float]]]:
    """Yield category id (from 1), score as text and ``x y w h`` of every detection of the picture `name`."""
    check_finite(found, name)
    try:
        categories = [classes.index(name) + 1 for name in found.names]
    except (ValueError, IndexError) as error:
        raise DetectionError(f"{name}: a detection's class is not among the classes to write: {error}") from error
    return zip(categories, score_texts(found), corners_to_sides(found.boxes).tolist(), strict=True)


def check_finite(found: Detections, name: str) -> None:
    """Refuse scores and coordinates that are not finite, and boxes that end before they begin."""
    if not (np.isfinite(found.boxes).all() and np.isfinite(found.scores).all()):
        raise DetectionError(f"{name}: a detection has a coordinate or a score that is not a finite number")
    if (found.boxes[:, 2:] < found.boxes[:, :2]).any():
        raise DetectionError(f"{name}: a detection's box ends before it begins")


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
    box, score, label = boxes[order].astype(np.float32), scores[order], labels[order]
    return {
        name: Detections(box[start:end], score[start:end], label[start:end], classes)
        for name, start, end in zip(names, [0, *ends], ends, strict=False)
    }
