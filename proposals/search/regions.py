"""The segments behind the boxes of selective search: masks, areas, run lengths and polygons of each, on demand.

The hierarchies are kept in a compact form, like the original's ``blobIndIm`` and ``hierarchy``: the labels of the
initial regions of each segmentation, and which two regions each merge joins. The initial regions of a hierarchy are
numbered such that each of its regions is a range of numbers. So a pixel lies in a region if its number lies in the
range, and the run lengths of a region come from the places where numbers change, without its mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ...data.errors import SettingError
from ...data.system.kernels import kernel
from .grouping import Hierarchy


class _Raster(NamedTuple):
    """The initial regions of a segmentation in the pixels of the picture, and where they change down its columns."""

    labels: NDArray[np.int32]  # (H, W)
    changes: NDArray[np.int32]  # places x * H + y, rising, whose label is not that of the place before
    columns: NDArray[np.int64]  # (W + 1,): number of changes before each column
    before: NDArray[np.int32]  # labels on both sides of each change
    after: NDArray[np.int32]


class _Tree(NamedTuple):
    """A hierarchy whose initial regions are numbered such that each region is a range."""

    raster: _Raster
    numbers: NDArray[np.int32]  # (R,), of the initial regions
    spans: NDArray[np.int32]  # (2 * R - 1, 2): of each region the first number, and one past the last
    before: NDArray[np.int32]  # numbers on both sides of each change
    after: NDArray[np.int32]
    corner: int  # number of the initial region at the top left


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions that may hold an object, best first: boxes, scores, and the segments that the boxes are around.

    Masks have the size of the picture. Selective search works on the picture scaled to a width of 500 pixels; a pixel
    belongs to the region that its centre lies in there. If the picture is at least that wide, the box around a mask is
    the proposal's, rounded to whole pixels. In a smaller picture what is thinner than a pixel is lost: the box around a
    mask may be smaller, and a mask may be empty.

    Attributes
    ----------
    boxes : ndarray of float32, shape (N, 4)
        See `selective_search`.
    scores : ndarray of float32, shape (N,)
        See `selective_search`.
    shape : (int, int)
        Height and width of the picture in pixels.
    hierarchies : sequence of Hierarchy
        Where the regions come from, in the scaled picture.
    nodes : ndarray of int32, shape (N, 2)
        Of each region its hierarchy, and its row there. Of regions with the same box only the best is here.

    Examples
    --------
    >>> from inception_rcnn.proposals import SelectiveSearch
    >>> from skimage.data import chelsea
    >>> regions = SelectiveSearch("single", limit=100).regions(chelsea())
    >>> mask = regions.mask(7)
    >>> mask.shape, mask.dtype.name, bool(mask.sum() == regions.areas[7])
    ((300, 451), 'bool', True)
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    shape: tuple[int, int]
    hierarchies: Sequence[Hierarchy]
    nodes: NDArray[np.int32]

    def __len__(self) -> int:
        """Return the number of regions."""
        return len(self.boxes)

    @property
    def superpixels(self) -> list[NDArray[np.int32]]:
        """Label maps (H, W) of the initial regions that hierarchies begin with, one for each segmentation, from 0.

        Examples
        --------
        >>> from inception_rcnn.proposals import SelectiveSearch
        >>> from skimage.data import chelsea
        >>> [(one.shape, int(one.max()) + 1) for one in SelectiveSearch("single").regions(chelsea()).superpixels]
        [((300, 451), 111)]
        """
        return [*{id(tree.raster): tree.raster.labels for tree in self._trees}.values()]

    def mask(self, index: int) -> NDArray[np.bool_]:
        """Draw the mask of a region, shape (H, W)."""
        level, first, end, *_ = self._places[index]
        tree = self._trees[level]
        numbers = tree.numbers[tree.raster.labels]
        return np.asarray((numbers >= first) & (numbers < end))

    def masks(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Draw the masks of some regions, shape (n, H, W)."""
        return np.array([self.mask(index) for index in indices], bool).reshape(-1, *self.shape)

    @cached_property
    def areas(self) -> NDArray[np.int64]:
        """Pixels of each mask, shape (N,)."""
        return self.label_counts(np.zeros(self.shape, np.uint8))[:, 0]

    def label_counts(self, labels: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Count the pixels of each label in each mask, without drawing the masks.

        With the labels of a segmentation by hand, these are the intersections of all regions with all objects.

        Parameters
        ----------
        labels : ndarray of integers, shape (H, W)
            From 0.

        Returns
        -------
        ndarray of int64, shape (N, highest label + 1)

        Raises
        ------
        SettingError
            If the labels have not the shape of the picture, or are no whole numbers from 0.

        Examples
        --------
        >>> from inception_rcnn.proposals import SelectiveSearch
        >>> from skimage.data import chelsea
        >>> regions = SelectiveSearch("single", limit=100).regions(chelsea())
        >>> left_and_right = np.arange(451) // 226 + np.zeros((300, 1), int)
        >>> counts = regions.label_counts(left_and_right)
        >>> counts.shape, bool((counts.sum(axis=1) == regions.areas).all())
        ((100, 2), True)
        """
        labels = np.asarray(labels)
        if labels.shape != self.shape or labels.dtype.kind not in "iu" or labels.min() < 0:
            raise SettingError(
                f"labels must be whole numbers from 0, shape {self.shape}, not {labels.shape} {labels.dtype}"
            )
        count = int(labels.max()) + 1
        counts = np.empty((len(self), count), np.int64)
        for level in np.unique(self.nodes[:, 0]):
            tree, own = self._trees[level], self.nodes[:, 0] == level
            pairs = tree.numbers[tree.raster.labels].astype(np.int64) * count + labels
            single = np.bincount(pairs.ravel(), minlength=len(tree.numbers) * count).reshape(-1, count)
            below = np.concatenate([np.zeros((1, count), np.int64), single.cumsum(axis=0)])
            first, end = tree.spans[self.nodes[own, 1]].T
            counts[own] = below[end] - below[first]
        return counts

    def run_lengths(self, index: int) -> dict[str, Any]:
        """Encode the mask of a region as pycocotools does.

        Returns
        -------
        dict
            ``"size"``: [H, W]; ``"counts"``: bytes, the lengths of runs down the columns, of pixels outside and inside
            in turn, in COCO's compressed form. ``pycocotools.mask.decode`` draws it; JSON takes ``counts.decode()``.

        Examples
        --------
        >>> from pycocotools.mask import decode
        >>> from inception_rcnn.proposals import SelectiveSearch
        >>> from skimage.data import chelsea
        >>> regions = SelectiveSearch("single", limit=100).regions(chelsea())
        >>> bool((decode(regions.run_lengths(7)) == regions.mask(7)).all())
        True
        """
        level, first, end, start, stop = self._places[index]
        tree, (height, width), counts = self._trees[level], self.shape, self._buffer
        length = _encode(
            tree.raster.changes, tree.before, tree.after, start, stop, first, end, first <= tree.corner < end,
            height * width, counts,
        )  # fmt: skip
        return {"size": [height, width], "counts": counts[:length].tobytes()}

    def polygons(self, index: int) -> list[NDArray[np.float32]]:
        """Trace the outlines of a region, without its holes.

        Returns
        -------
        list of ndarray of float32, shape (P, 2)
            For each connected part its corners ``x y`` in pixels, continuous, a quarter of a pixel inside the edges of
            the outermost pixels. ``[outline.ravel().tolist() for outline in ...]`` is COCO's form.
        """
        twice = np.repeat(np.repeat(self.mask(index).astype(np.uint8), 2, axis=0), 2, axis=1)
        outlines, _ = cv2.findContours(twice, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        return [(outline[:, 0] * np.float32(0.5) + np.float32(0.25)).astype(np.float32) for outline in outlines]

    @cached_property
    def _places(self) -> list[list[int]]:
        """Of each region: its tree, its first number, one past its last, its first change, one past its last."""
        places = np.empty((len(self.nodes), 5), np.int64)
        places[:, 0] = self.nodes[:, 0]
        # A region ends where the column right of it begins.
        left = (self.boxes[:, 0].astype(np.int64) - 1).clip(min=0)
        right = (self.boxes[:, 2].astype(np.int64) + 2).clip(max=self.shape[1])
        for level, tree in enumerate(self._trees):
            own = self.nodes[:, 0] == level
            places[own, 1:3] = tree.spans[self.nodes[own, 1]]
            places[own, 3], places[own, 4] = tree.raster.columns[left[own]], tree.raster.columns[right[own]]
        return places.tolist()

    @cached_property
    def _buffer(self) -> NDArray[np.uint8]:
        # A count has at most 31 bits, with its sign 32: 7 bytes of 5 bits.
        return np.empty(7 * (2 + max(len(tree.before) for tree in self._trees)), np.uint8)

    @cached_property
    def _trees(self) -> list[_Tree]:
        rasters: dict[int, _Raster] = {}
        trees = []
        for hierarchy in self.hierarchies:
            of = id(hierarchy.labels)
            if of not in rasters:
                rasters[of] = _rasterise(hierarchy.labels, *self.shape)
            raster, count = rasters[of], len(hierarchy.boxes) - len(hierarchy.merges)
            spans = np.empty((len(hierarchy.boxes), 2), np.int32)
            # They are columns of a wider array, which is another type to a kernel; one row or none would not be.
            _number_leaves(np.ascontiguousarray(hierarchy.merges), count, spans)
            numbers = spans[:count, 0].copy()
            corner = int(numbers[raster.labels[0, 0]])
            trees.append(_Tree(raster, numbers, spans, numbers[raster.before], numbers[raster.after], corner))
        return trees


def _rasterise(labels: NDArray[np.int32], height: int, width: int) -> _Raster:
    """Sample the labels of the scaled picture at the centres of the picture's pixels."""
    # Whole numbers, so that no rounding moves a centre.
    rows = (2 * np.arange(height) + 1) * labels.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * labels.shape[1] // (2 * width)
    if labels.shape != (height, width):
        labels = labels[rows[:, None], columns]
    down = labels.T.ravel()
    changes = np.flatnonzero(down[1:] != down[:-1]) + 1
    starts = np.searchsorted(changes, np.arange(width + 1) * height)
    return _Raster(labels, changes.astype(np.int32), starts, down[changes - 1], down[changes])


@kernel("void(int32[:,::1], int64, int32[:,::1])")
def _number_leaves(merges, count, spans):  # type: ignore[no-untyped-def]
    """Give numbers to the initial regions, from the root down. Until then ``spans[:, 1]`` is how many are below."""
    nodes = len(spans)
    for node in range(count):
        spans[node, 1] = 1
    for node in range(count, nodes):
        spans[node, 1] = spans[merges[node - count, 0], 1] + spans[merges[node - count, 1], 1]
    spans[nodes - 1, 0] = 0
    for node in range(nodes - 1, -1, -1):
        spans[node, 1] += spans[node, 0]
        if node >= count:
            one, other = merges[node - count, 0], merges[node - count, 1]
            spans[one, 0] = spans[node, 0]
            spans[other, 0] = spans[node, 0] + spans[one, 1]


@kernel("int64(int32[::1], int32[::1], int32[::1], int64, int64, int64, int64, boolean, int64, uint8[::1])")
def _encode(changes, before, after, start, stop, first, end, inside, total, counts):  # type: ignore[no-untyped-def]
    """Write run lengths as pycocotools' rleToString does: each less that of two before, 5 bits a byte, lowest first."""
    length = written = 0
    place = two_before = one_before = 0
    # The first run is of pixels outside, and has no length if the first pixel is inside.
    position = 0 if inside else -1
    i = start
    while True:
        if position != 0:
            while i < stop and (first <= before[i] < end) == (first <= after[i] < end):
                i += 1
            position = changes[i] if i < stop else total
            i += 1
        run = position - place
        rest = run - two_before if written > 2 else run
        more = True
        while more:
            byte = rest & 0x1F
            rest >>= 5
            more = rest != -1 if byte & 0x10 else rest != 0
            counts[length] = byte + 48 + (0x20 if more else 0)
            length += 1
        written += 1
        two_before, one_before = one_before, run
        place = position
        if position == 0:
            position = -1
        elif position == total:
            return length


KERNELS = (_number_leaves, _encode)
