"""What annotations and detections both know, compared: which pictures, their sizes and the names of classes.

Each contradiction is told in one `DataWarning` with counts. The numbers are computed all the same.
"""

import warnings
from collections.abc import Collection, Mapping

from ..data.classes.spelling import similar_classes
from ..data.errors import DataWarning, first_names
from ..data.system.kernels import kernel

# Detectors that do not clip pass an edge by a little: of 44,382 detections on VOC 2007, 15 % do, and 0.4 % by more than
# a tenth of the side. In pictures of half the size 81 % do so, in turned ones 29 %.
_BEYOND, _TOLERATED = 0.1, 0.05


def warn_of_pictures(others: Collection[str], what: str = "the detections") -> None:
    """Warn of pictures that are not among the annotations."""
    if others:
        pictures = "1 picture is" if len(others) == 1 else f"{len(others)} pictures are"
        warnings.warn(
            f"{pictures} in {what} and not annotated, and left out: {first_names(sorted(others))}",
            DataWarning,
            stacklevel=3,
        )


def warn_of_sizes(
    sizes: Mapping[str, tuple[int, int]],
    annotated: Mapping[str, tuple[int, int]],
    what: str = "the detections",
    than: str = "the annotations",
) -> None:
    """Warn of pictures that have another width and height in the annotations; a side of 0 is not known."""
    both = [(name, size, annotated[name]) for name, size in sizes.items() if name in annotated]
    both = [one for one in both if min(*one[1], *one[2]) > 0]
    other = [one for one in both if one[1] != one[2]]
    if other:
        name, (width, height), expected = other[0]
        known = "annotated" if than == "the annotations" else "there"
        swapped = sum(size == expected[::-1] for _, size, expected in other)
        warnings.warn(
            f"{len(other)} of {len(both)} pictures have another size in {what} than in {than}, such as {name!r}: "
            f"{width} x {height}, {known} {expected[0]} x {expected[1]}; "
            + (f"of {swapped} the two sides are swapped; " if swapped else "")
            + "boxes are compared as they are: were the pictures resized or turned?",
            DataWarning,
            stacklevel=3,
        )


@kernel()
def passes_edge(boxes, i, width, height):  # type: ignore[no-untyped-def]
    """Whether boxes[i] passes an edge of its picture by over a tenth of the side, for other kernels; a 0 is unknown."""
    x, y = width * _BEYOND, height * _BEYOND
    return (width > 0 and (boxes[i, 0] < -x or boxes[i, 2] > width + x)) or (
        height > 0 and (boxes[i, 1] < -y or boxes[i, 3] > height + y)
    )


@kernel("int64(float64[:,::1], int64[::1], float64[:,::1])")
def count_beyond_edges(boxes, picture, sizes):  # type: ignore[no-untyped-def]
    """Count the boxes (N, 4) that pass an edge; `sizes` are the width and height of the pictures, by position."""
    count = 0
    for i in range(len(boxes)):
        count += passes_edge(boxes, i, sizes[picture[i], 0], sizes[picture[i], 1])
    return count


def warn_of_edges(beyond: int, count: int, what: str = "detections") -> None:
    """Warn if more than one in twenty boxes is beyond the edges; see `passes_edge`."""
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
        meant = {name: f" (is that {one}?)" for one, name in similar_classes(known, absent).items()}
        warnings.warn(
            f"{len(absent)} of {len(evaluated)} evaluated classes with objects are not among those of the detections "
            f"and count 0: {first_names([name + meant.get(name, '') for name in absent], 10)}"
            + (f"; the detections have {first_names(sorted(known), 10)}" if len(absent) == len(evaluated) else ""),
            DataWarning,
            stacklevel=3,
        )
