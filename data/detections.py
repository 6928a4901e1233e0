"""What a detector returns for a picture, and the files that detections are kept in.

One JSON document in COCO's form (``images``, ``categories``, ``annotations`` with a ``score``), the list of results
that COCO's tools take, and the text files that the PASCAL VOC development kit takes, one per class, with pixels
counted from 1 and both corners included. Inside the program boxes are continuous and 0-based; the other conventions
begin and end here. ILSVRC's file is in `ilsvrc`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DetectionError, SettingError


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects found in one picture.

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
    ValueError
        If the arrays' shapes do not fit together.

    Examples
    --------
    >>> from inception_rcnn.data import VOC_CLASSES
    >>> found = Detections(np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.array([7]), VOC_CLASSES)
    >>> len(found), found.classes[found.labels[0]]
    (1, 'cat')
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

    def __len__(self) -> int:
        """Return the number of detections."""
        return len(self.scores)


def detection_rows(found: Detections, classes: tuple[str, ...], name: str) -> Iterator[tuple[int, str, list[float]]]:
    """Yield category id, score as text and ``x y w h`` of every detection."""
    check_finite(found, name)
    try:
        categories = [classes.index(found.classes[label]) + 1 for label in found.labels]
    except (ValueError, IndexError) as error:
        raise DetectionError(f"{name}: a detection's class is not among the classes to write: {error}") from error
    corners = found.boxes.astype(np.float64)
    sides = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    return zip(categories, score_texts(found), sides.tolist(), strict=True)


def check_finite(found: Detections, name: str) -> None:
    """Refuse scores and coordinates that are not finite."""
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
    """Sort detections by picture, which keeps their order in each; `owner` is the position of the picture's name."""
    order = np.argsort(owner, kind="stable")
    ends = np.cumsum(np.bincount(owner, minlength=len(names))).tolist()
    box, score, label = boxes[order].astype(np.float32), scores[order], labels[order]
    return {
        name: Detections(box[start:end], score[start:end], label[start:end], classes)
        for name, start, end in zip(names, [0, *ends], ends, strict=False)
    }
