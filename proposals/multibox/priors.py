"""The priors of MultiBox: their boxes on a picture, and their sizes by clustering of training boxes."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...backbone.regions.roi_align import FIRST_CENTRE, STRIDE
from ...data import box_iou
from ...data.errors import UserError

# Pixels. The centre of a trunk's cell lies so far beyond the middle of its 16 pixels, see `roi_align`.
SHIFT = FIRST_CENTRE - STRIDE / 2
# Pixels between the cells of the finest grid; each next grid is twice as coarse.
FINEST_STRIDE = 8


def place_priors(priors: NDArray[np.float32], cells: tuple[int, int], size: tuple[float, float]) -> NDArray[np.float32]:
    """Compute the boxes of priors on a picture, in the order of the network's outputs.

    Parameters
    ----------
    priors : ndarray, shape (L, A, 2) or (K, 4), float32
        With three axes they are widths and heights in pixels. Each cell of grid l has A priors; the cells of grid l are
        ``8 * 2 ** l`` pixels apart. With two axes they are boxes, as shares of the picture's width and height.
    cells : (int, int)
        Rows and columns of the trunk's features of the picture.
    size : (float, float)
        Width and height of the resized picture in pixels.

    Returns
    -------
    ndarray, shape (P, 4), float32
        x1 y1 x2 y2 in pixels of the resized picture. Grids follow each other, the finest first; cells row by row; in a
        cell the order is that of `priors`.

    Examples
    --------
    >>> sides = np.array([[[10, 20]], [[40, 40]]], np.float32)
    >>> boxes = place_priors(sides, (1, 2), (32, 16))  # 2 x 4 cells 8 pixels apart, 1 x 2 cells 16 pixels apart
    >>> len(boxes), boxes[0].tolist(), boxes[-1].tolist()
    (10, [5.5, 0.5, 15.5, 20.5], [10.5, -5.5, 50.5, 34.5])
    """
    priors = np.asarray(priors, np.float32)
    if priors.ndim == 2:
        return priors * np.array([*size, *size], np.float32)
    rows, columns = 2 * cells[0], 2 * cells[1]
    placed = []
    for level, sides in enumerate(priors):
        stride = FINEST_STRIDE * 2**level
        y, x = (np.arange(count, dtype=np.float32) * stride + stride / 2 + SHIFT for count in (rows, columns))
        centres = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 1, 2)
        placed.append(np.concatenate([centres - sides / 2, centres + sides / 2], axis=-1).reshape(-1, 4))
        rows, columns = (rows + 1) // 2, (columns + 1) // 2
    return np.concatenate(placed).astype(np.float32)


def cluster_boxes(boxes: ArrayLike, clusters: int, *, seed: int = 0, steps: int = 50) -> NDArray[np.float32]:
    """Cluster boxes by k-means with the distance 1 - IoU.

    Parameters
    ----------
    boxes : array_like, shape (N, 4), float32
        x1 y1 x2 y2 in any unit. With x1 = y1 = 0, widths and heights are clustered.
    clusters : int
        Number of clusters.
    seed : int
        Of the random choice of the first centres, by k-means++: boxes far from the others are chosen more often.
    steps : int
        Largest number of rounds.

    Returns
    -------
    ndarray, shape (clusters, 4), float32
        Means of the clusters, the smallest area first.

    Raises
    ------
    UserError
        If there are fewer different boxes than clusters.

    References
    ----------
    Erhan et al., CVPR 2014, section 3.2 (priors); Redmon & Farhadi, "YOLO9000", CVPR 2017, section 2 (the distance).

    Examples
    --------
    >>> cluster_boxes([[0, 0, 10, 10], [0, 0, 12, 12], [0, 0, 50, 20], [0, 0, 54, 20]], 2).tolist()
    [[0.0, 0.0, 11.0, 11.0], [0.0, 0.0, 52.0, 20.0]]
    """
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    if len(np.unique(boxes, axis=0)) < clusters:
        raise UserError(f"{clusters} clusters of {len(np.unique(boxes, axis=0))} different boxes; give more boxes")
    rng = np.random.default_rng(seed)
    centres = boxes[rng.integers(len(boxes), size=1)]
    while len(centres) < clusters:
        distance = np.maximum(1 - box_iou(boxes, centres).max(1).astype(np.float64), 0) ** 2
        distance[(boxes[:, None] == centres).all(2).any(1)] = 0
        centres = np.concatenate([centres, boxes[rng.choice(len(boxes), 1, p=distance / distance.sum())]])
    nearest = np.full(len(boxes), -1)
    for _ in range(steps):
        before, nearest = nearest, box_iou(boxes, centres).argmax(1)
        if (before == nearest).all():
            break
        for i in np.unique(nearest):
            centres[i] = boxes[nearest == i].mean(0)
    return centres[np.argsort((centres[:, 2:] - centres[:, :2]).prod(1), kind="stable")]


def cluster_sides(boxes: NDArray[np.float32], *, levels: int = 5, each: int = 5, seed: int = 0) -> NDArray[np.float32]:
    """Cluster training boxes to the widths and heights of the priors of every grid.

    A grid whose cells are s pixels apart is for boxes whose root of the area is 2.5 s to 5 s. Then some prior overlaps
    a box at any place by about half. The finest grid is also for smaller boxes, the coarsest for larger ones. The boxes
    of each grid are clustered alone: together, nearly all clusters would be of the many small objects.

    Parameters
    ----------
    boxes : ndarray, shape (N, 4), float32
        Training boxes in pixels of the resized pictures.
    levels : int
        Number of grids.
    each : int
        Number of priors of a cell.
    seed : int
        See `cluster_boxes`.

    Returns
    -------
    ndarray, shape (levels, each, 2), float32
        Widths and heights in pixels.

    Raises
    ------
    UserError
        If a grid has fewer different boxes than priors.

    Examples
    --------
    >>> corners = np.random.default_rng(0).uniform(8, 600, (400, 2)).astype(np.float32)
    >>> cluster_sides(np.concatenate([np.zeros_like(corners), corners], axis=1), each=3).shape
    (5, 3, 2)
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    size = np.sqrt(np.maximum(sides, 0).prod(1))
    level = np.floor(np.log2(np.maximum(size, 1e-6) / (2.5 * FINEST_STRIDE))).clip(0, levels - 1)
    anchored = np.concatenate([np.zeros_like(sides), sides], axis=1)
    return np.stack([cluster_boxes(anchored[level == i], each, seed=seed)[:, 2:] for i in range(levels)])
