"""Ranked boxes as Fast R-CNN reads them: a ``.mat`` file with cells of boxes."""

import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import ProposalFileError
from ..proposals import Proposals, describe, take_fields
from .matlab5 import read_matlab

MAT_VARIABLE_BYTES = 2**31  # MATLAB's limit for a variable in a file of version 5


class _Cell:
    """A cell whose content is made when scipy writes it, so that only one is in memory."""

    __slots__ = ("content", "i")

    def __init__(self, content: Callable[[int], NDArray[Any]], i: int) -> None:
        self.content = content
        self.i = i

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.content(self.i)


def check_mat_size(path: Path, table: NDArray[np.int64]) -> None:
    """Refuse boxes that are too many for a variable of MATLAB 5."""
    # Of a cell: 56 bytes of headers and 4 double numbers a box.
    size = 56 * len(table) + 32 * int(table[:, 2].sum())
    if size >= MAT_VARIABLE_BYTES:
        raise ProposalFileError(
            f"{path}: {size} bytes of boxes are more than a .mat file can hold ({MAT_VARIABLE_BYTES}); "
            "write .parquet, or fewer boxes or pictures"
        )


def write_mat(file: BinaryIO, count: int, boxes_of: Callable[[int], NDArray[np.float32]], ids: Sequence[str]) -> None:
    """Write the boxes of `count` pictures, which are asked for one at a time."""
    import scipy.io

    def to_matlab(i: int) -> NDArray[np.float64]:
        corners = np.rint(boxes_of(i).astype(np.float64))
        first = corners[:, 1::-1] + 1
        return np.concatenate([first, np.maximum(corners[:, :1:-1], first)], axis=1)

    boxes, images = np.empty((1, count), object), np.empty((count, 1), object)
    for i in range(count):
        boxes[0, i], images[i, 0] = _Cell(to_matlab, i), _Cell(lambda i: np.array(ids[i]), i)
    # savemat writes a header with the time of day, but only at the beginning of a file.
    file.write(struct.pack("=116s8xHH", b"MATLAB 5.0 MAT-file, proposals".ljust(116), 0x0100, 0x4D49))
    scipy.io.savemat(file, {"boxes": boxes, "images": images})


def read_mat(path: Path) -> Iterator[Proposals]:
    """Yield the ranked boxes of the pictures of a ``.mat`` file."""
    form = "a cell array with an element a picture"
    boxes, images = take_fields(path, read_matlab(path), "boxes", "images", kind=list, form=form)
    if len(boxes) != len(images):
        raise ProposalFileError(f"{path}: the cells 'boxes' ({len(boxes)}) and 'images' ({len(images)}) do not fit")
    for image, array in zip(images, boxes, strict=True):
        # y1 x1 y2 x2, from 1, both included. MATLAB's empty array is 0 x 0.
        corners: Any = array if isinstance(array, np.ndarray) else np.zeros(1)
        if corners.size and (corners.ndim != 2 or corners.shape[1] != 4):
            raise ProposalFileError(f"{path}: the boxes of {str(image)[:80]!r} are {describe(array)}, not (N, 4)")
        corners = corners.astype(np.float64)
        corners = (corners if corners.size else np.zeros((0, 4)))[:, (1, 0, 3, 2)] - [1, 1, 0, 0]
        scores = (1 / np.arange(1, len(corners) + 1)).astype(np.float32)
        yield Proposals(str(image), 0, 0, corners, scores)
