"""What annotations and detections both know, compared: the sizes of pictures and the names of classes.

Each contradiction is told in one `DataWarning` with counts. The numbers are computed all the same.
"""

import warnings
from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from ..data.errors import DataWarning

# Detectors that do not clip pass an edge by a little: of 44,382 detections on VOC 2007, 15 % do, and 0.4 % by more than
# a tenth of the side. In pictures of half the size, or turned, a third does.
_BEYOND, _TOLERATED = 0.1, 0.05


def first_names(names: Collection[str], limit: int = 10) -> str:
    """List names for a warning, the first so many."""
    return ", ".join([*names][:limit]) + (", ..." if len(names) > limit else "")


def warn_of_sizes(
    sizes: Mapping[str, tuple[int, int]], annotated: Mapping[str, tuple[int, int]], what: str = "detections"
) -> None:
    """Warn of pictures that have another width and height in the annotations; a side of 0 is not known."""
    both = [(name, size, annotated[name]) for name, size in sizes.items() if name in annotated]
    both = [(name, *two) for name, *two in both if min(map(min, two)) > 0]
    other = [(name, size, expected) for name, size, expected in both if size != expected]
    if other:
        name, (width, height), expected = other[0]
        swapped = sum(size == expected[::-1] for _, size, expected in other)
        warnings.warn(
            f"{len(other)} of {len(both)} pictures have another size in the {what} than in the annotations, such as "
            f"{name!r}: {width} x {height}, annotated {expected[0]} x {expected[1]}; "
            + (f"of {swapped} the two sides are swapped; " if swapped else "")
            + "boxes are compared as they are: were the pictures resized or turned?",
            DataWarning,
            stacklevel=3,
        )


def beyond_edges(boxes: NDArray[np.floating], sizes: NDArray[np.float64]) -> int:
    """Count the boxes (N, 4) that pass an edge of their picture by more than a tenth of its side.

    `sizes` (N, 2) or (2,) are width and height; of a side of 0, which is not known, no box passes an edge.
    """
    slack = np.where(sizes > 0, sizes * np.float32(_BEYOND), np.inf)
    return int(np.count_nonzero(((boxes[:, 2:] > sizes + slack) | (boxes[:, :2] < -slack)).any(axis=1)))


def warn_of_edges(beyond: int, count: int, what: str = "detections") -> None:
    """Warn if more than one in twenty boxes is beyond the edges; see `beyond_edges`."""
    if beyond > _TOLERATED * count:
        warnings.warn(
            f"{beyond} of {count} {what} end far outside their annotated picture; "
            "are they of the same pictures in another size, or turned?",
            DataWarning,
            stacklevel=3,
        )


def warn_of_classes(known: Collection[str], evaluated: Collection[str]) -> None:
    """Warn of evaluated classes, those that have objects, that are not among the detections' classes."""
    absent = [name for name in evaluated if name not in known]
    if absent and known:
        warnings.warn(
            f"{len(absent)} of {len(evaluated)} evaluated classes with objects are not among those of the detections "
            f"and count 0: {first_names(absent)}"
            + (f"; the detections have {first_names(sorted(known))}" if len(absent) == len(evaluated) else ""),
            DataWarning,
            stacklevel=3,
        )
