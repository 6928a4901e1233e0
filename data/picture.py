"""One picture with its labelled objects."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Picture:
    """One annotated picture. The pixels stay in the file.

    Attributes
    ----------
    image_id : str
        Name of the picture in its set: the file's name without the suffix.
    path : Path
        The picture file; it need not exist to evaluate detections.
    width, height : int
        Size in pixels; 0 x 0 if it is not known until the file is read.
    boxes : ndarray of float32, shape (N, 4)
        The objects, ``x1 y1 x2 y2`` in pixels, continuous, 0-based.
    labels : ndarray of int64, shape (N,)
        Index of each object's class in the list of classes that the reader was given.
    difficult : ndarray of bool, shape (N,)
        Objects that count neither as hits nor as misses (VOC).
    crowd : ndarray of bool, shape (N,)
        Boxes around many objects at once (COCO).
    labelled : tuple of int or None
        None if every object of every class is boxed. Otherwise the classes that are boxed at all: of the
        other classes there may be unboxed objects.
    exhaustive : bool
        False if even of the classes that are boxed some objects may be unboxed.
    classes : tuple of str or None
        The names that `labels` and `labelled` are positions in, one tuple for all pictures of a set; None if they are
        not known.
    """

    image_id: str
    path: Path
    width: int
    height: int
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    difficult: NDArray[np.bool_]
    crowd: NDArray[np.bool_]
    labelled: tuple[int, ...] | None = None
    exhaustive: bool = True
    classes: tuple[str, ...] | None = None
