"""Hierarchical grouping: initial regions are described, and merged until one is left.

Uijlings, van de Sande, Gevers & Smeulders, "Selective Search for Object Recognition", IJCV 104(2), 2013, section 3. A
region has a size, a tight box and two histograms. Those of a merged region are computed from those of its parts, so the
pixels are read only once, for the initial regions.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ...data.system.kernels import kernel
from .segmentation import find_root

COLOUR_BINS = 25  # per channel
TEXTURE_BINS = 10  # per direction and channel
# Grey levels a pixel: the largest response of a unit-sum Gaussian derivative filter, sigma 1. A full step from black to
# white gives 255 / sqrt(2 pi) = 102. Larger responses fall into the last bin.
TEXTURE_RANGE = 102.0
_CODES = 2 * TEXTURE_BINS - 1  # signed bins of one orientation: -9..9
_PAIR = 2**32 - 1
_TOP, _DIAGONAL = np.float32(TEXTURE_BINS - 0.5), np.float32(np.sqrt(0.5))
_ONE = np.float32(1)


class SegmentGraph(NamedTuple):
    """The initial regions of a picture, and which of them touch.

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
        Numbers of the regions that touch; each pair once, the smaller number first, in ascending order.
    """

    size: NDArray[np.int32]
    box: NDArray[np.int32]
    colour: NDArray[np.float32]
    texture: NDArray[np.float32]
    pairs: NDArray[np.int32]


class Hierarchy(NamedTuple):
    """All regions of a segmentation, from the initial ones to the whole picture.

    Attributes
    ----------
    labels : ndarray of int32, shape (H, W)
        Number of the initial region of each pixel, from 0.
    boxes : ndarray of int32, shape (2 * R - 1, 4)
        Tight boxes, pixels, 0-based, ends exclusive: of the initial regions, then of the merged ones, the whole last.
    merges : ndarray of int32, shape (R - 1, 2)
        Rows in `boxes` of the two parts of each merged region.
    """

    labels: NDArray[np.int32]
    boxes: NDArray[np.int32]
    merges: NDArray[np.int32]


def texture_codes(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Compute the Gaussian derivatives (sigma 1) of every channel in 8 directions, as histogram bins.

    Two opposite directions are the positive and the negative part of one orientation, and at most one of them is not in
    bin 0. So a pixel needs 4 codes for each channel, not 8.

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
    codes = np.empty((height, width, 4 * channels), np.uint8)
    _bin_directions(
        dx.reshape(-1, channels),
        dy.reshape(-1, channels),
        np.float32(TEXTURE_BINS / TEXTURE_RANGE),
        codes.reshape(-1, 4 * channels),
    )
    return codes


def describe_regions(
    labels: NDArray[np.int32], count: int, image: NDArray[np.uint8], codes: NDArray[np.uint8]
) -> SegmentGraph:
    """Compute the size, box, histograms and neighbours of every region, in one pass over the pixels.

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
    SegmentGraph
        Used by `group_regions` for every sum of similarities.

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
    height, width, channels = image.shape
    size = np.zeros(count, np.int32)
    box = np.tile(np.array([width, height, 0, 0], np.int32), (count, 1))
    colours = np.zeros((count, COLOUR_BINS * channels), np.int32)
    textures = np.zeros((count, _CODES * 4 * channels), np.int32)
    # A hash set with open addressing: pixels at boundaries are many, pairs of regions few.
    slots = np.full(max(1024, 1 << (16 * count - 1).bit_length()), -1, np.int64)
    colour = np.empty(colours.shape, np.float32)
    texture = np.empty((count, 2 * TEXTURE_BINS * 4 * channels), np.float32)
    _fill_descriptions(labels, image, codes, size, box, (colours, textures), colour, texture, slots)
    keys = np.sort(slots[slots >= 0])
    pairs = np.stack([keys // count, keys % count], axis=1).astype(np.int32)
    return SegmentGraph(size, box, colour, texture, pairs)


def group_regions(
    regions: SegmentGraph, picture_size: int, measures: str = "CTSF"
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Merge the most similar pair of neighbours again and again, until one region is left.

    The similarity is the sum of some measures. C is the intersection of the colour histograms, T that of the texture
    histograms. S is larger for smaller regions. F is larger the better two regions fill the box around both. Of equally
    similar pairs the first in ``regions.pairs`` is merged; a pair with a merged region has the position of the first
    pair that it replaces.

    Parameters
    ----------
    regions : SegmentGraph
        The initial regions; they are not changed.
    picture_size : int
        Pixels of the picture, the unit of S and F.
    measures : str
        Some of the letters ``C``, ``T``, ``S``, ``F``.

    Returns
    -------
    boxes : ndarray of int32, shape (2 * R - 1, 4)
        Boxes: of the R initial regions, then of the merged ones in the order of merging, the root last. Fewer rows if
        the regions are not connected.
    merges : ndarray of int32, shape (R - 1, 2)
        Row numbers in `boxes` of the two parts of each merged region, the smaller first.

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
    count, n_pairs = len(regions.size), len(regions.pairs)
    colour = regions.colour if "C" in measures else regions.colour[:, :0]
    texture = regions.texture if "T" in measures else regions.texture[:, :0]
    numbers, pair_numbers, none = np.arange(count, dtype=np.int32), np.arange(n_pairs), np.full(count, -1, np.int32)
    nodes = np.empty((count - 1, 6), np.int32)
    n_merges = _group(
        regions.size.copy(),
        regions.box.copy(),
        np.concatenate([colour, texture], axis=1),
        colour.shape[1],
        regions.pairs.reshape(-1).astype(np.uint64),
        np.float32(1 / picture_size),
        "S" in measures,
        "F" in measures,
        (none, numbers, numbers.copy(), none.copy(), none.copy()),
        (np.empty(2 * n_pairs, np.int64), np.empty_like(pair_numbers), pair_numbers),
        nodes,
    )
    return np.concatenate([regions.box, nodes[:n_merges, :4]]), nodes[:n_merges, 4:]


@kernel()
def _signed_bin(response):  # type: ignore[no-untyped-def]
    """Round a response in bins towards zero, at most to the last bin."""
    return np.int32(min(max(response, -_TOP), _TOP))


@kernel("void(float32[:,::1], float32[:,::1], float32, uint8[:,::1])")
def _bin_directions(dx, dy, scale, codes):  # type: ignore[no-untyped-def]
    """Fill `codes` by the derivatives of each pixel and channel."""
    pixels, channels = dx.shape
    for p in range(pixels):
        for c in range(channels):
            x = dx[p, c] * scale
            y = dy[p, c] * scale
            base = 4 * c * _CODES + TEXTURE_BINS - 1
            codes[p, 4 * c] = base + _signed_bin(x)
            codes[p, 4 * c + 1] = base + _CODES + _signed_bin((x + y) * _DIAGONAL)
            codes[p, 4 * c + 2] = base + 2 * _CODES + _signed_bin(y)
            codes[p, 4 * c + 3] = base + 3 * _CODES + _signed_bin((y - x) * _DIAGONAL)


@kernel(
    "void(int32[:,::1], uint8[:,:,::1], uint8[:,:,::1], int32[::1], int32[:,::1], UniTuple(int32[:,::1], 2), "
    "float32[:,::1], float32[:,::1], int64[::1])"
)
def _fill_descriptions(labels, image, codes, size, box, counts, colour, texture, slots):  # type: ignore[no-untyped-def]
    """Fill the sizes, boxes and histograms of the regions, and enter the pairs that touch into `slots`.

    `counts`, of colours and textures, must be zeros; `slots` is a hash set and must be empty, all -1.
    """
    colours, textures = counts
    height, width, channels = np.uintp(image.shape[0]), np.uintp(image.shape[1]), np.uintp(image.shape[2])
    bins, orientations, count = np.uintp(COLOUR_BINS), np.uintp(4) * channels, np.uintp(len(size))
    mask, last = np.uintp(len(slots) - 1), np.int64(-1)
    for y in range(height):
        for x in range(width):
            region = np.uintp(labels[y, x])
            size[region] += 1
            box[region, 0] = min(box[region, 0], np.int32(x))
            box[region, 1] = min(box[region, 1], np.int32(y))
            box[region, 2] = max(box[region, 2], np.int32(x + np.uintp(1)))
            box[region, 3] = np.int32(y + np.uintp(1))
            for c in range(channels):
                colours[region, c * bins + (np.uintp(image[y, x, c]) * bins >> np.uintp(8))] += 1
            for o in range(orientations):
                textures[region, np.uintp(codes[y, x, o])] += 1
            for direction in range(4):
                # Two columns right of the neighbour, since left of the first column would be below 0.
                nx = x + np.uintp(3 if direction == 0 else direction)
                ny = y + np.uintp(1 if direction > 0 else 0)
                if nx < 2 or nx >= width + np.uintp(2) or ny >= height:
                    continue
                other = np.uintp(labels[ny, nx - np.uintp(2)])
                if other == region:
                    continue
                key = np.int64(min(region, other) * count + max(region, other))
                if key == last:
                    continue
                last = key
                slot = np.uintp(key * 0x9E3779B1 >> 7) & mask
                while slots[slot] != key:
                    if slots[slot] < 0:
                        slots[slot] = key
                    else:
                        slot = (slot + np.uintp(1)) & mask

    for region in range(count):
        share = _ONE / (np.float32(size[region]) * np.float32(channels))
        for i in range(np.uintp(colour.shape[1])):
            colour[region, i] = np.float32(colours[region, i]) * share
        share = _ONE / (np.float32(size[region]) * np.float32(2 * orientations))
        for direction in range(8 * channels):
            centre = (direction >> 1) * _CODES + TEXTURE_BINS - 1
            sign = 1 - 2 * (direction & 1)
            rest = size[region]
            for i in range(1, TEXTURE_BINS):
                n = textures[region, centre + sign * i]
                texture[region, direction * TEXTURE_BINS + i] = n * share
                rest -= n
            texture[region, direction * TEXTURE_BINS] = rest * share


@kernel(fastmath=True)
def _intersection(histograms, a, b, begin, end):  # type: ignore[no-untyped-def]
    """Intersection of two regions' histograms, between two of their columns."""
    total = np.float32(0)
    for i in range(np.uintp(begin), np.uintp(end)):
        total += min(histograms[a, i], histograms[b, i])
    return total


@kernel()
def _merge_key(pair, a, b, size, box, histograms, colours, unit, use_size, use_fill):  # type: ignore[no-untyped-def]
    """Compute the key of a pair; the smallest key is merged first. It has the similarity above the pair's number."""
    similarity = np.float32(0)
    begin, end = np.int64(0), colours
    while begin < histograms.shape[1]:
        similarity += _intersection(histograms, a, b, begin, end)
        begin, end = end, histograms.shape[1]
    both = np.float32(size[a] + size[b])
    if use_size:
        similarity += _ONE - both * unit
    if use_fill:
        w = max(box[a, 2], box[b, 2]) - min(box[a, 0], box[b, 0])
        h = max(box[a, 3], box[b, 3]) - min(box[a, 1], box[b, 1])
        similarity += _ONE - (np.float32(w * h) - both) * unit
    # The bits of floats from 0 up, read as integers, have the order of the floats.
    return np.int64(0x7FFFFFFF - np.float32(similarity).view(np.int32)) << 32 | pair


# The heap holds the keys of pairs. `place` is each pair's index in the heap, -1 for pairs that were removed. With it a
# pair's key can be replaced, and the heap never grows.


@kernel()
def _sift(heap, place, n, i):  # type: ignore[no-untyped-def]
    """Move the key at index i of a heap of n keys up or down to its place."""
    key = heap[i]
    while i > 0 and key < heap[(i - 1) >> 1]:
        heap[i] = heap[(i - 1) >> 1]
        place[heap[i] & _PAIR] = i
        i = (i - 1) >> 1
    while 2 * i + 1 < n:
        child = 2 * i + 1
        if child + 1 < n and heap[child + 1] < heap[child]:
            child += 1
        if key < heap[child]:
            break
        heap[i] = heap[child]
        place[heap[i] & _PAIR] = i
        i = child
    heap[i] = key
    place[key & _PAIR] = i


@kernel()
def _remove(heap, place, n, pair):  # type: ignore[no-untyped-def]
    """Take a pair out of the heap and return how many are left."""
    i = place[pair]
    place[pair] = -1
    n -= 1
    if i < n:
        heap[i] = heap[n]
        _sift(heap, place, n, i)
    return n


@kernel(
    "int64(int32[::1], int32[:,::1], float32[:,::1], int64, uint64[::1], float32, boolean, boolean, "
    "UniTuple(int32[::1], 5), UniTuple(int64[::1], 3), int32[:,::1])"
)
def _group(  # type: ignore[no-untyped-def]
    size, box, histograms, colours, ends, unit, use_size, use_fill, of_regions, of_pairs, nodes
):
    """Merge until no pair is left. Fill a row of `nodes` for each merge, box and two parts; return their number."""
    head, parent, node, seen, across = of_regions
    following, heap, place = of_pairs
    n_merges = 0

    # A region's neighbours are a linked list of half-pairs. Half h belongs to region ends[h], and its pair is h >> 1.
    # Its neighbour is the region that ends[h ^ 1] is part of by now. When two regions are merged, their lists are
    # joined, so that nothing is allocated.
    for half in range(len(ends) - 1, -1, -1):
        following[half] = head[ends[half]]
        head[ends[half]] = half

    n = len(heap)
    for pair in range(n):
        heap[pair] = _merge_key(
            pair, ends[2 * pair], ends[2 * pair + 1], size, box, histograms, colours, unit, use_size, use_fill
        )
        _sift(heap, place, pair + 1, pair)

    while n > 0:
        best = heap[0] & _PAIR
        a = find_root(parent, ends[2 * best])
        b = find_root(parent, ends[2 * best + 1])
        n = _remove(heap, place, n, best)

        share_a = np.float32(size[a]) / np.float32(size[a] + size[b])
        share_b = np.float32(size[b]) / np.float32(size[a] + size[b])
        for i in range(np.uintp(histograms.shape[1])):
            histograms[a, i] = share_a * histograms[a, i] + share_b * histograms[b, i]
        size[a] += size[b]
        box[a, 0] = min(box[a, 0], box[b, 0])
        box[a, 1] = min(box[a, 1], box[b, 1])
        box[a, 2] = max(box[a, 2], box[b, 2])
        box[a, 3] = max(box[a, 3], box[b, 3])
        for i in range(4):
            nodes[n_merges, i] = box[a, i]
        nodes[n_merges, 4] = min(node[a], node[b])
        nodes[n_merges, 5] = max(node[a], node[b])
        parent[b] = a
        node[a] = len(size) + n_merges

        joined = -1
        half = head[a]
        rest = head[b]
        while half >= 0 or rest >= 0:
            if half < 0:
                half, rest = rest, half
            following_half = following[half]
            pair = half >> 1
            if place[pair] >= 0:
                other = find_root(parent, ends[half ^ 1])
                following[half] = joined
                joined = half
                later = pair
                if seen[other] != n_merges:  # The first pair with this neighbour in this merge.
                    seen[other] = n_merges
                    across[other] = pair
                else:  # A neighbour of both regions: of its two pairs the first stays.
                    if pair < across[other]:
                        later = across[other]
                        across[other] = pair
                    n = _remove(heap, place, n, later)
            half = following_half
        head[a] = joined
        half = joined
        while half >= 0:
            pair = half >> 1
            if place[pair] >= 0:
                other = find_root(parent, ends[half ^ 1])
                heap[place[pair]] = _merge_key(pair, a, other, size, box, histograms, colours, unit, use_size, use_fill)
                _sift(heap, place, n, place[pair])
            half = following[half]
        n_merges += 1
    return n_merges


KERNELS = (_bin_directions, _fill_descriptions, _group)
