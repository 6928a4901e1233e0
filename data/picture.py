"""One picture with its labelled objects."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class PackedImage(NamedTuple):
    """Place of a picture's encoded pixels in a file that holds many pictures.

    Attributes
    ----------
    file : Path
    row : int
        Which of its pictures it is, from 0.
    offset, length : int
        Of the encoded pixels, in bytes.
    """

    file: Path
    row: int
    offset: int
    length: int


@dataclass(frozen=True, eq=False)
class Picture:
    """One annotated picture. The pixels stay in the file.

    Attributes
    ----------
    image_id : str
        Name of the picture in its set: the file's name without the suffix.
    path : Path
        The picture file; it need not exist to evaluate detections, nor if the picture is packed.
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
    packed : PackedImage or None
        Where the pixels are, if not in a file of their own.
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
    packed: PackedImage | None = None


def fingerprint(pictures: Sequence[Picture]) -> str:
    """Hash the pictures' names, order and labels."""
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(
            f"{picture.image_id} {picture.width} {picture.height} {picture.labelled} {picture.exhaustive}\n".encode()
        )
        for array in (picture.boxes, picture.labels, picture.difficult, picture.crowd):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
