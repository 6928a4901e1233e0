"""RoIAlign on a CPU, without torch: each region's features, read out of the picture's.

The average in a bin needs about 12 of a picture's 1,000 cells. `regions.network.roi_align`, for training and GPUs, is a
matrix product, in which nearly all factors are zero: on a CPU it takes half the time of the layers that come after it.
"""

import numpy as np
from numpy.typing import NDArray

from ...data.boxes import kernel_array
from ...data.errors import SettingError
from ...data.system.kernels import kernel
from ..preprocessing import CONTEXT

# Cells of a region's features in each direction.
BINS = 7
# Weights (9, 7, 7) of a region's bins in its nine parts: averages of 3x3 bins, two bins apart from each other.
PARTS = np.zeros((9, BINS, BINS), np.float32)
for _part in range(9):
    PARTS[_part, 2 * (_part // 3) :, 2 * (_part % 3) :][:3, :3] = 1 / 9
TRUNK_CHANNELS = 832
# The finer features, see `regions.network.RegionNetwork`: channels of inception 3b, channels of the features that are
# computed from it, stride in pixels.
FINE_INPUTS, FINE_CHANNELS, FINE_STRIDE = 480, 128, 8.0
# Stride of the trunk's output, in pixels. Cell i has its centre at 16 i + 14.5 and not at the usual 16 i + 8, because
# three poolings of stride 2 have no padding. With 16 i + 8, small objects would be read half a cell beside their place.
# With two poolings the centre is at 8 i + 6.5: the first is 1.5 pixels less than the stride.
STRIDE, CENTRE_SHIFT = 16.0, 1.5
FIRST_CENTRE = STRIDE - CENTRE_SHIFT


@kernel()
def _weigh_cells(low, high, cells, stride, first, count, weights):  # type: ignore[no-untyped-def]
    """Fill, for each bin along one axis, its first cell, its number of cells, and their weights."""
    length = (high - low) * CONTEXT
    begin = (low + high - length) / 2
    for b in range(BINS):
        for at in range(cells + 1):
            weights[b, at] = 0
        for s in range(2):
            position = (begin + length * ((2 * b + s + 0.5) / (2 * BINS)) - (stride - CENTRE_SHIFT)) / stride
            # Written so that NaN is moved to the border too, and nothing outside the array is read.
            position = position if position > 0.0 else 0.0
            position = position if position < cells - 1.0 else cells - 1.0
            cell = np.int64(position)
            if s == 0:
                first[b] = cell
            share = position - cell
            at = cell - first[b]
            weights[b, at] += 0.5 * (1 - share)
            count[b] = at + 1
            if cell + 1 < cells:
                weights[b, at + 1] += 0.5 * share
                count[b] = at + 2


@kernel(
    "void(float32[:,:,::1], float32[:,::1], float64, UniTuple(int64[::1], 4), float32[:,::1], float32[:,::1], "
    "float32[:,:,:,::1])",
    fastmath=True,
)
def _read_bins(features, boxes, stride, cells, across, down, regions):  # type: ignore[no-untyped-def]
    """Fill `regions`; `cells` (7 each), `across` (7, width + 1) and `down` (7, height + 1) are memory to work in."""
    left, top, columns, rows = cells
    height, width, channels = features.shape
    for n in range(len(boxes)):
        _weigh_cells(boxes[n, 0], boxes[n, 2], width, stride, left, columns, across)
        _weigh_cells(boxes[n, 1], boxes[n, 3], height, stride, top, rows, down)
        for i in range(BINS):
            for j in range(BINS):
                for c in range(channels):
                    regions[n, i, j, c] = 0
                for y in range(top[i], top[i] + rows[i]):
                    for x in range(left[j], left[j] + columns[j]):
                        weight = down[i, y - top[i]] * across[j, x - left[j]]
                        if weight > 0:
                            for c in range(channels):
                                regions[n, i, j, c] += weight * features[y, x, c]


KERNELS = (_read_bins,)


def read_regions(
    features: NDArray[np.float32],
    boxes: NDArray[np.float32],
    out: NDArray[np.float32] | None = None,
    *,
    stride: float = STRIDE,
) -> NDArray[np.float32]:
    """Read a 7x7 grid of bilinear samples (2x2 a bin) out of the trunk's features for each box.

    Parameters
    ----------
    features : ndarray, shape (h, w, C), float32
        Features of one picture.
    boxes : ndarray, shape (N, 4), float32
        x1 y1 x2 y2 in pixels of the picture that the features were computed from. Each is enlarged by the context of
        R-CNN's crops, see `preprocessing.CONTEXT`.
    out : ndarray, shape (M, 7, 7, C), float32, optional
        Array to write into, M >= N; its first N rows are returned. A new array would cost as much time as filling it.
    stride : float
        Pixels of a cell of the features.

    Returns
    -------
    ndarray, shape (N, 7, 7, C), float32

    Raises
    ------
    SettingError
        If `out` has another shape.

    References
    ----------
    He et al., "Mask R-CNN", ICCV 2017, section 3.

    Examples
    --------
    >>> read_regions(np.ones((10, 12, 8), np.float32), np.array([[8, 8, 100, 60]], np.float32)).shape
    (1, 7, 7, 8)
    """
    if out is None:
        out = np.empty((len(boxes), BINS, BINS, features.shape[2]), np.float32)
    regions = out[: len(boxes)]
    if regions.shape != (len(boxes), BINS, BINS, features.shape[2]):
        raise SettingError(f"out must hold {len(boxes)} x 7 x 7 x {features.shape[2]} numbers, not {out.shape}")
    height, width = features.shape[:2]
    cells = tuple(np.empty((4, BINS), np.int64))
    room = np.empty((BINS, width + 1), np.float32), np.empty((BINS, height + 1), np.float32)
    _read_bins(kernel_array(features), kernel_array(boxes), stride, cells, *room, regions)
    return regions


def read_first_pass(parts: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Read the first pass's score of each box out of its maps, see `regions.network.RegionNetwork.first_pass_logits`.

    Parameters
    ----------
    parts : ndarray, shape (h, w, 9), float32
        The first pass's maps of a picture, one for each part of a region.
    boxes : ndarray, shape (N, 4), float32
        As for `read_regions`.

    Returns
    -------
    ndarray, shape (N,), float32
        Only their order has a meaning.

    Examples
    --------
    >>> read_first_pass(np.ones((10, 12, 9), np.float32), np.array([[8, 8, 100, 60]], np.float32))
    array([9.], dtype=float32)
    """
    return np.einsum("nyxp,pyx->n", read_regions(parts, boxes), PARTS, optimize=True)
