"""The box convention, and the operations that everybody needs.

A box is ``x1 y1 x2 y2`` in pixels, continuous and 0-based: the pixel in column ``c`` covers ``[c, c + 1)``. So a box
that covers a whole picture is ``(0, 0, width, height)``, and a box's area is ``(x2 - x1) * (y2 - y1)``. Boxes are
``float32`` arrays of shape (N, 4), also when N is 0.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arguments import as_array, check_number
from .errors import SettingError


def box_iou(a: ArrayLike, b: ArrayLike) -> NDArray[np.float32]:
    """Return the intersection over union of every box of one list with every box of another.

    Parameters
    ----------
    a : array_like of float32, shape (N, 4)
        Boxes, ``x1 y1 x2 y2`` in pixels.
    b : array_like of float32, shape (M, 4)
        Boxes to compare them with.

    Returns
    -------
    ndarray of float32, shape (N, M)
        Overlaps from 0 to 1; 0 where both boxes are empty.

    Raises
    ------
    SettingError
        If an array is not of shape (N, 4), or a coordinate is not a finite number.

    References
    ----------
    Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010, section 4.2.

    Examples
    --------
    >>> box_iou([[0, 0, 2, 2]], [[0, 0, 2, 1], [5, 5, 6, 6]]).tolist()
    [[0.5, 0.0]]
    """
    a, b = _box_list(a), _box_list(b)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise SettingError("boxes must be finite numbers")
    sides = np.minimum(a[:, None, 2:], b[:, 2:])
    sides -= np.maximum(a[:, None, :2], b[:, :2])
    np.maximum(sides, 0, out=sides)
    inter = sides[..., 0] * sides[..., 1]
    union = _area(a)[:, None] + _area(b) - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def clip_boxes(boxes: ArrayLike, width: float, height: float) -> NDArray[np.float32]:
    """Return boxes cut off at the border of their picture.

    Parameters
    ----------
    boxes : array_like of float32, shape (N, 4)
        Boxes, ``x1 y1 x2 y2`` in pixels.
    width, height : float
        Size of the picture in pixels.

    Returns
    -------
    ndarray of float32, shape (N, 4)
        A new array; a box that lay outside has no area left.

    Raises
    ------
    SettingError
        If the array is not of shape (N, 4), or the picture's size is no size.

    Examples
    --------
    >>> clip_boxes([[-5, 2, 30, 8]], width=20, height=10).tolist()
    [[0.0, 2.0, 20.0, 8.0]]
    """
    check_number("width", width, 0)
    check_number("height", height, 0)
    limits = np.array([width, height, width, height], np.float32)
    return np.clip(_box_list(boxes), np.float32(0), limits)


def corners_to_sides(boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return boxes ``x1 y1 x2 y2`` as ``x y width height``, as COCO has them, in double precision.

    Examples
    --------
    >>> corners_to_sides(np.float32([[1, 2, 4, 8]])).tolist()
    [[1.0, 2.0, 3.0, 6.0]]
    """
    corners = boxes.astype(np.float64)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def kernel_array(values: ArrayLike, name: str = "boxes") -> NDArray[np.float32]:
    """Return numbers as compiled kernels take them: float32, contiguous, and writable, though no kernel writes.

    Examples
    --------
    >>> kernel_array([[0, 0, 2, 2]]).dtype.name
    'float32'
    """
    array = as_array(name, values, np.float32)
    # A read-only array, or one that is not aligned, is another type to a kernel.
    return array if array.flags.carray else np.require(array, np.float32, ["C", "A", "W"])


def as_boxes(boxes: ArrayLike) -> NDArray[np.float32]:
    """Return boxes as float32; an empty list is no boxes, of shape (0, 4)."""
    array = as_array("boxes", boxes, np.float32)
    return array if array.size else array.reshape(-1, 4)


def as_scores(scores: ArrayLike) -> NDArray[np.floating[Any]]:
    """Return scores as float32, unless they are an array of float64 already."""
    if isinstance(scores, (list, tuple)):
        return as_array("scores", scores, np.float32)
    array = as_array("scores", scores)
    return array if array.dtype == np.float64 else as_array("scores", array, np.float32)


def find_problem(boxes: NDArray[Any], scores: NDArray[Any]) -> str:
    """Say what keeps boxes and scores from being those of a picture, (N, 4) and (N,); "" if nothing.

    Examples
    --------
    >>> find_problem(np.float32([[5, 0, 4, 9]]), np.float32([1]))
    'a box ends before it begins'
    """
    return find_misfit(boxes, scores) or find_bad_number(boxes, scores)


def find_misfit(boxes: NDArray[Any], scores: NDArray[Any]) -> str:
    """Do the part of `find_problem` that looks at shapes."""
    if scores.ndim != 1 or boxes.shape != (len(scores), 4):
        return f"boxes {boxes.shape} and scores {scores.shape} do not fit: (N, 4) and (N,) are expected"
    return ""


def find_bad_number(boxes: NDArray[Any], scores: NDArray[Any]) -> str:
    """Do the part of `find_problem` that holds for any number of axes: boxes (..., 4), scores (...)."""
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        return "a coordinate or a score is not a finite number"
    return "a box ends before it begins" if (boxes[..., 2:] < boxes[..., :2]).any() else ""


def _box_list(boxes: ArrayLike) -> NDArray[np.float32]:
    array = as_boxes(boxes)
    if array.ndim != 2 or array.shape[1] != 4:
        raise SettingError(f"boxes must have shape (N, 4), not {array.shape}")
    return array


def _area(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
