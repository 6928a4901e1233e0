"""Regions, what describes them, and the grouping that merges them until one is left.

Uijlings, van de Sande, Gevers & Smeulders, "Selective Search for Object Recognition", IJCV 104(2), 2013,
section 3. A region carries its size, its tight box and two histograms; those of a merged region follow from
those of its parts, so the picture is read once, to describe the initial regions, and never again.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ..data.kernels import kernel
from .segmentation import find_root

COLOUR_BINS = 25  # per channel
TEXTURE_BINS = 10  # per direction and channel
# Responses of a unit-sum Gaussian derivative filter, sigma 1, to a picture in 0..255. A full black-to-white
# step gives 255 / sqrt(2 pi) = 102, but natural edges are far weaker; stronger ones fall into the last bin.
TEXTURE_RANGE = 102.0
_CODES = 2 * TEXTURE_BINS - 1  # signed bins of one orientation: -9..9


class Regions(NamedTuple):
    """The initial regions of one picture.

    Attributes
    ----------
    size : ndarray of int32, shape (R,)
        Pixels of each region.
    box : ndarray of int32, shape (R, 4)
        Tight boxes ``x1 y1 x2 y2``, pixels, 0-based, ``x2`` and ``y2`` one past the last pixel.
    colour : ndarray of float32, shape (R, 25 * C)
        Colour histograms, each with sum 1.
    texture : ndarray of float32, shape (R, 80 * C)
        Histograms of the gradient in 8 directions, each with sum 1.
    pairs : ndarray of int32, shape (E, 2)
        Regions that touch, each pair once with the smaller number first, in ascending order.
    """

    size: NDArray[np.int32]
    box: NDArray[np.int32]
    colour: NDArray[np.float32]
    texture: NDArray[np.float32]
    pairs: NDArray[np.int32]


def texture_codes(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Gaussian derivatives (sigma 1) of every channel in 8 directions, as histogram bins.

    A direction and its opposite are the positive and negative part of one orientation, and at most one of
    them is not in bin 0; so a pixel needs 4 codes a channel, not 8.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, C)
        The picture, at most 3 channels, 0..255.

    Returns
    -------
    ndarray of uint8, shape (H, W, 4 * C)
        For channel ``c`` and orientation ``o`` (0, 45, 90, 135 degrees): ``(4 * c + o) * 19 + 9 + bin``, with
        the signed bin in -9..9.

    References
    ----------
    Uijlings et al., IJCV 2013, section 3.2.

    Examples
    --------
    >>> ramp = np.tile(np.arange(0, 250, 25, dtype=np.uint8), (9, 1))[..., None]
    >>> texture_codes(ramp)[4, 5].tolist()  # 25 grey levels a pixel to the right, none downwards
    [11, 29, 47, 65]
    """
    height, width, channels = image.shape
    reach = np.arange(-4, 5)
    smooth = np.exp(-(reach**2) / 2.0)
    smooth /= smooth.sum()
    derive = (reach * smooth).astype(np.float32)
    smooth = smooth.astype(np.float32)
    dx = cv2.sepFilter2D(image, cv2.CV_32F, derive, smooth, borderType=cv2.BORDER_REPLICATE)
    dy = cv2.sepFilter2D(image, cv2.CV_32F, smooth, derive, borderType=cv2.BORDER_REPLICATE)
    codes = _steer(dx.reshape(-1, channels), dy.reshape(-1, channels), np.float32(TEXTURE_BINS / TEXTURE_RANGE))
    return codes.reshape(height, width, 4 * channels)


def describe_regions(
    labels: NDArray[np.int32], count: int, image: NDArray[np.uint8], codes: NDArray[np.uint8]
) -> Regions:
    """Size, box, histograms and neighbours of every region, in one pass over the pixels.

    Parameters
    ----------
    labels : ndarray of int32, shape (H, W)
        The region of every pixel, 0..count - 1, from `segment`.
    count : int
        The number of regions.
    image : ndarray of uint8, shape (H, W, C)
        The picture whose colours are counted, 0..255.
    codes : ndarray of uint8, shape (H, W, 4 * C)
        Its texture, from `texture_codes`.

    Returns
    -------
    Regions
        What `group_regions` takes, once for every similarity.

    References
    ----------
    Uijlings et al., IJCV 2013, section 3.2.

    Examples
    --------
    >>> image = np.zeros((4, 6, 1), np.uint8)
    >>> image[:, 3:] = 200
    >>> labels = (image[..., 0] > 100).astype(np.int32)
    >>> regions = describe_regions(labels, 2, image, texture_codes(image))
    >>> regions.size.tolist(), regions.box.tolist(), regions.pairs.tolist()
    ([12, 12], [[0, 0, 3, 4], [3, 0, 6, 4]], [[0, 1]])
    """
    size, box, colour, texture, keys = _describe(labels, count, image, codes)
    keys = np.sort(keys)
    pairs = np.stack([keys // count, keys % count], axis=1).astype(np.int32)
    return Regions(size, box, colour, texture, pairs)


def group_regions(
    regions: Regions, picture_size: int, measures: str = "CTSF"
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Merge the most similar pair of neighbours again and again until one region is left.

    The similarity is the plain sum of the measures in use: C, intersection of the colour histograms; T, of
    the texture histograms; S, small regions first; F, how well the two fill the box around both. Of equally
    similar pairs the one that comes first in ``regions.pairs`` is merged; a pair of merged regions stands
    where the first of the pairs it came from stood.

    Parameters
    ----------
    regions : Regions
        The initial regions; left as they are.
    picture_size : int
        Pixels of the picture, the unit of S and F.
    measures : str
        Some of the letters ``C``, ``T``, ``S``, ``F``.

    Returns
    -------
    boxes : ndarray of int32, shape (2 * R - 1, 4)
        Box of every node: the R initial regions, then the merged ones in the order of merging, the root last.
        Fewer rows if the regions are not connected.
    merges : ndarray of int32, shape (R - 1, 2)
        The two nodes that each merged one was made of, smaller number first.

    References
    ----------
    Uijlings et al., IJCV 2013, section 3.1 (Algorithm 1) and 3.2 (equations 2 to 6).

    Examples
    --------
    >>> image = np.zeros((4, 9, 1), np.uint8)
    >>> image[:, 3:], image[:, 6:] = 100, 101
    >>> labels = np.repeat([[0, 1, 2]], 3, axis=1).repeat(4, axis=0).astype(np.int32)
    >>> regions = describe_regions(labels, 3, image, texture_codes(image))
    >>> boxes, merges = group_regions(regions, labels.size, "C")
    >>> merges.tolist(), boxes[-1].tolist()
    ([[1, 2], [0, 3]], [0, 0, 9, 4])
    """
    return _group(
        regions.size.copy(),
        regions.box,
        regions.colour.copy() if "C" in measures else regions.colour[:, :0],
        regions.texture.copy() if "T" in measures else regions.texture[:, :0],
        regions.pairs.reshape(-1),
        np.float32(1 / picture_size),
        "S" in measures,
        "F" in measures,
    )


@kernel(error_model="numpy")
def _steer(dx, dy, scale):  # type: ignore[no-untyped-def]
    pixels, channels = dx.shape
    codes = np.empty((pixels, 4 * channels), np.uint8)
    diagonal = np.float32(np.sqrt(0.5))
    top = np.float32(TEXTURE_BINS - 0.5)
    for p in range(pixels):
        for c in range(channels):
            x = dx[p, c] * scale
            y = dy[p, c] * scale
            base = 4 * c * _CODES + TEXTURE_BINS - 1
            codes[p, 4 * c] = base + np.int32(min(max(x, -top), top))
            codes[p, 4 * c + 1] = base + _CODES + np.int32(min(max((x + y) * diagonal, -top), top))
            codes[p, 4 * c + 2] = base + 2 * _CODES + np.int32(min(max(y, -top), top))
            codes[p, 4 * c + 3] = base + 3 * _CODES + np.int32(min(max((y - x) * diagonal, -top), top))
    return codes


@kernel(error_model="numpy")
def _describe(labels, count, image, codes):  # type: ignore[no-untyped-def]
    height, width, channels = image.shape
    orientations = 4 * channels
    size = np.zeros(count, np.int32)
    box = np.empty((count, 4), np.int32)
    box[:, 0] = width
    box[:, 1] = height
    box[:, 2:] = 0
    colour_count = np.zeros((count, COLOUR_BINS * channels), np.int32)
    texture_count = np.zeros((count, _CODES * orientations), np.int32)
    # Open-addressed set of touching pairs: boundaries are long, distinct pairs few.
    capacity = 1024
    while capacity < 16 * count:
        capacity *= 2
    slots = np.full(capacity, -1, np.int64)
    n_pairs = 0
    for y in range(height):
        for x in range(width):
            region = labels[y, x]
            size[region] += 1
            if x < box[region, 0]:
                box[region, 0] = x
            if y < box[region, 1]:
                box[region, 1] = y
            if x + 1 > box[region, 2]:
                box[region, 2] = x + 1
            box[region, 3] = y + 1
            for c in range(channels):
                colour_count[region, c * COLOUR_BINS + ((np.int32(image[y, x, c]) * COLOUR_BINS) >> 8)] += 1
            for o in range(orientations):
                texture_count[region, codes[y, x, o]] += 1
            for direction in range(4):
                nx = x + (1 if direction == 0 else direction - 2)
                ny = y + (1 if direction > 0 else 0)
                if nx < 0 or nx >= width or ny >= height:
                    continue
                other = labels[ny, nx]
                if other == region:
                    continue
                key = np.int64(min(region, other)) * count + max(region, other)
                slot = (key * 0x9E3779B1 >> 7) & (capacity - 1)
                while slots[slot] != key:
                    if slots[slot] < 0:
                        slots[slot] = key
                        n_pairs += 1
                    else:
                        slot = (slot + 1) & (capacity - 1)

    colour = np.empty((count, COLOUR_BINS * channels), np.float32)
    texture = np.zeros((count, 2 * TEXTURE_BINS * orientations), np.float32)
    for region in range(count):
        share = np.float32(1) / np.float32(size[region] * channels)
        for i in range(COLOUR_BINS * channels):
            colour[region, i] = colour_count[region, i] * share
        share = np.float32(1) / np.float32(size[region] * 2 * orientations)
        for o in range(orientations):
            centre = o * _CODES + TEXTURE_BINS - 1
            for sign in range(2):
                row = (2 * o + sign) * TEXTURE_BINS
                rest = size[region]
                for i in range(1, TEXTURE_BINS):
                    n = texture_count[region, centre + i if sign == 0 else centre - i]
                    texture[region, row + i] = n * share
                    rest -= n
                texture[region, row] = rest * share
    pairs = np.empty(n_pairs, np.int64)
    n_pairs = 0
    for key in slots:
        if key >= 0:
            pairs[n_pairs] = key
            n_pairs += 1
    return size, box, colour, texture, pairs


@kernel(fastmath=True)
def _intersection(a, b):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for i in range(len(a)):
        total += min(a[i], b[i])
    return total


@kernel(error_model="numpy")
def _similarity(a, b, size, box, colour, texture, unit, use_size, use_fill):  # type: ignore[no-untyped-def]
    total = _intersection(colour[a], colour[b]) + _intersection(texture[a], texture[b])
    both = np.float32(size[a] + size[b])
    if use_size:
        total += np.float32(1) - both * unit
    if use_fill:
        w = max(box[a, 2], box[b, 2]) - min(box[a, 0], box[b, 0])
        h = max(box[a, 3], box[b, 3]) - min(box[a, 1], box[b, 1])
        total += np.float32(1) - (np.float32(w * h) - both) * unit
    return total


# The heap holds pairs by number, the most similar on top; `place` says where each pair stands (-1: no more),
# so that a similarity can change in place and the heap never grows.


@kernel()
def _before(similarity, p, q):  # type: ignore[no-untyped-def]
    return similarity[p] > similarity[q] or (similarity[p] == similarity[q] and p < q)


@kernel()
def _settle(heap, place, n, i, similarity):  # type: ignore[no-untyped-def]
    pair = heap[i]
    while i > 0 and _before(similarity, pair, heap[(i - 1) >> 1]):
        heap[i] = heap[(i - 1) >> 1]
        place[heap[i]] = i
        i = (i - 1) >> 1
    while 2 * i + 1 < n:
        child = 2 * i + 1
        if child + 1 < n and _before(similarity, heap[child + 1], heap[child]):
            child += 1
        if not _before(similarity, heap[child], pair):
            break
        heap[i] = heap[child]
        place[heap[i]] = i
        i = child
    heap[i] = pair
    place[pair] = i


@kernel()
def _remove(heap, place, n, pair, similarity):  # type: ignore[no-untyped-def]
    i = place[pair]
    place[pair] = -1
    n -= 1
    if i < n:
        heap[i] = heap[n]
        place[heap[i]] = i
        _settle(heap, place, n, i, similarity)
    return n


@kernel(error_model="numpy")
def _group(size, box, colour, texture, ends, unit, use_size, use_fill):  # type: ignore[no-untyped-def]
    count = len(size)
    n_pairs = len(ends) // 2
    boxes = np.empty((2 * count - 1, 4), np.int32)
    boxes[:count] = box
    box = box.copy()
    merges = np.empty((count - 1, 2), np.int32)
    n_merges = 0

    # A region's neighbours are a linked list of half-pairs: half h belongs to region ends[h], the region on
    # the other side is the one that has swallowed ends[h ^ 1], and the pair is h >> 1. Lists of merged
    # regions are joined, so nothing is allocated while merging.
    head = np.full(count, -1, np.int32)
    following = np.empty(2 * n_pairs, np.int32)
    for half in range(2 * n_pairs - 1, -1, -1):
        following[half] = head[ends[half]]
        head[ends[half]] = half

    similarity = np.empty(n_pairs, np.float32)
    for pair in range(n_pairs):
        similarity[pair] = _similarity(
            ends[2 * pair], ends[2 * pair + 1], size, box, colour, texture, unit, use_size, use_fill
        )
    heap = np.arange(n_pairs).astype(np.int32)
    place = heap.copy()
    n = n_pairs
    for i in range(n_pairs):
        _settle(heap, place, i + 1, i, similarity)

    parent = np.arange(count).astype(np.int32)
    node = parent.copy()
    seen = np.full(count, -1, np.int32)  # the merge in which a neighbour was last met, and across which pair
    across = np.empty(count, np.int32)
    while n > 0:
        best = heap[0]
        a = find_root(parent, ends[2 * best])
        b = find_root(parent, ends[2 * best + 1])
        n = _remove(heap, place, n, best, similarity)

        merges[n_merges, 0] = min(node[a], node[b])
        merges[n_merges, 1] = max(node[a], node[b])
        whole = np.float32(size[a] + size[b])
        share_a = np.float32(size[a]) / whole
        share_b = np.float32(size[b]) / whole
        for i in range(colour.shape[1]):
            colour[a, i] = share_a * colour[a, i] + share_b * colour[b, i]
        for i in range(texture.shape[1]):
            texture[a, i] = share_a * texture[a, i] + share_b * texture[b, i]
        size[a] += size[b]
        box[a, 0] = min(box[a, 0], box[b, 0])
        box[a, 1] = min(box[a, 1], box[b, 1])
        box[a, 2] = max(box[a, 2], box[b, 2])
        box[a, 3] = max(box[a, 3], box[b, 3])
        boxes[count + n_merges] = box[a]
        parent[b] = a
        node[a] = count + n_merges

        joined = np.int32(-1)
        for start in (head[a], head[b]):
            half = start
            while half >= 0:
                following_half = following[half]
                pair = half >> 1
                if place[pair] >= 0:
                    other = find_root(parent, ends[half ^ 1])
                    following[half] = joined
                    joined = half
                    if seen[other] == n_merges:  # a neighbour of both: one pair is left, the first
                        n = _remove(heap, place, n, max(pair, across[other]), similarity)
                        across[other] = min(pair, across[other])
                    else:
                        seen[other] = n_merges
                        across[other] = pair
                half = following_half
        head[a] = joined
        half = joined
        while half >= 0:
            pair = half >> 1
            if place[pair] >= 0:
                other = find_root(parent, ends[half ^ 1])
                similarity[pair] = _similarity(a, other, size, box, colour, texture, unit, use_size, use_fill)
                _settle(heap, place, n, place[pair], similarity)
            half = following[half]
        n_merges += 1
    return boxes[: count + n_merges], merges[:n_merges]
