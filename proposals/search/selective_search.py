"""Selective search: ranked boxes that may hold an object, of any class, from the picture alone.

Uijlings, van de Sande, Gevers & Smeulders, "Selective Search for Object Recognition", IJCV 104(2), 2013, with the
settings that R-CNN used (Girshick et al., CVPR 2014): the picture is 500 pixels wide, and no box is narrower or lower
than 20. A picture is segmented in several colour spaces at several scales, see `segmentation`. The regions of each
segmentation are merged until one is left, see `grouping`. The boxes of all these hierarchies are ranked together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ...data.arguments import check_choice, check_names, check_number
from ...data.errors import SettingError
from ...data.images.reading import as_rgb, check_image
from ...data.system.kernels import compile_all
from ..proposer import Ranked, check_limit
from . import grouping, regions, segmentation
from .grouping import Hierarchy, describe_regions, group_regions, texture_codes
from .regions import Regions
from .segmentation import PixelGraph, pixel_graph, segment

if TYPE_CHECKING:
    from ...backbone.regions.features import PictureFeatures

Mode = Literal["single", "fast", "quality"]


class Strategy(NamedTuple):
    """A grid of hierarchies: every colour space x every ``k`` x every sum of similarity measures.

    Attributes
    ----------
    spaces : tuple of {"HSV", "Lab", "rgI", "H", "I"}
        Colour spaces, see `convert_colour`.
    ks : tuple of float
        Thresholds of the segmentation, see `segmentation.segment`. Each is also the minimum size of the regions, in
        pixels.
    measures : tuple of str
        Sums of similarities, each some of the letters ``C`` (colour), ``T`` (texture), ``S`` (size) and ``F`` (fill),
        see `grouping.group_regions`.

    Examples
    --------
    >>> grey = Strategy(spaces=("I",), ks=(100, 200), measures=("TSF",))  # two hierarchies
    """

    spaces: tuple[str, ...]
    ks: tuple[float, ...]
    measures: tuple[str, ...]


SPACES = ("HSV", "Lab", "rgI", "H", "I")
# Uijlings et al., IJCV 2013, section 5.1, table 5.
STRATEGIES: dict[str, Strategy] = {
    "single": Strategy(("HSV",), (100,), ("CTSF",)),
    "fast": Strategy(("HSV", "Lab"), (50, 100), ("CTSF", "TSF")),
    "quality": Strategy(SPACES, (50, 100, 150, 300), ("CTSF", "TSF", "F", "S")),
}
KERNELS = (*segmentation.KERNELS, *grouping.KERNELS, *regions.KERNELS)
# Pixels. Pictures are scaled to this width, which k and the minimum side refer to.
WIDTH = 500
# Pixels. Without it a strip one pixel wide would become a picture of 10^8 pixels.
MAX_HEIGHT = 4 * WIDTH


@dataclass(frozen=True)
class SelectiveSearch:
    """Proposes boxes by selective search, with the settings of `selective_search`.

    Parameters
    ----------
    mode : {"single", "fast", "quality"}
        1, 8 or 80 hierarchies.
    superpixel_scale : float
        Factor of k and of the minimum size of the initial regions; 2 gives about half as many boxes.
    seed : int
        Seed of the random part of the ranking.
    limit : int, optional
        Return at most this many boxes, the best.
    min_side : float
        Drop boxes narrower or lower than this, in pixels of the picture scaled to a width of 500 pixels.
    strategies : sequence of Strategy, optional
        The hierarchies to build instead of the mode's.
    threads : int
        Number of hierarchies built at the same time.

    Examples
    --------
    >>> from skimage.data import chelsea
    >>> boxes, scores = SelectiveSearch(mode="single", limit=100)(chelsea())
    >>> boxes.shape, boxes.dtype.name, bool((np.diff(scores) < 0).all())
    ((100, 4), 'float32', True)
    """

    mode: Mode = "fast"
    _: KW_ONLY
    superpixel_scale: float = 1.0
    seed: int = 0
    limit: int | None = None
    min_side: float = 20
    strategies: Sequence[Strategy] | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, [*STRATEGIES])
        vars(self).update(
            superpixel_scale=check_number("superpixel_scale", self.superpixel_scale, 0, 1000, above=True),
            seed=check_number("seed", self.seed, 0, math.inf, whole=True),  # NumPy's own seeds have 128 bits.
            limit=check_limit(self.limit),
            min_side=check_number("min_side", self.min_side, 0),
            threads=check_number("threads", self.threads, 1, whole=True),
        )
        for strategy in self.strategies if self.strategies is not None else [STRATEGIES[self.mode]]:
            if not isinstance(strategy, Strategy) or not all(isinstance(part, tuple) and part for part in strategy):
                raise SettingError(f"a Strategy(spaces, ks, measures) has three tuples, none empty, not {strategy}")
            for space in check_names("spaces", strategy.spaces):
                check_choice("colour space", space, SPACES)
            for k in strategy.ks:
                check_number("k", k, 0, 1e6, above=True)
            measures = check_names("measures", strategy.measures)
            if strange := [letters for letters in measures if not letters or set(letters) - set("CTSF")]:
                raise SettingError(f"measures must be some of the letters C, T, S, F, not {strange[0]!r}")
        if self.strategies is not None and not len(self.strategies):
            raise SettingError("strategies is empty; give at least one, or None for the mode's")

    @property
    def settings(self) -> dict[str, object]:
        """All that the boxes depend on."""
        return {name: value for name, value in vars(self).items() if name != "threads"}

    @property
    def kernels(self) -> tuple[Any, ...]:
        """Compiled functions that a call runs, for `data.system.kernels.compile_all`."""
        return KERNELS

    def __call__(self, image: NDArray[np.uint8]) -> Ranked:
        """Propose boxes (N, 4) and scores (N,) of a picture (H, W, 3) uint8 RGB, best first."""
        ranked = self.regions(image)
        return ranked.boxes, ranked.scores

    def regions(self, image: NDArray[np.uint8]) -> Regions:
        """Propose the same boxes and scores with the segments that they are around.

        Parameters
        ----------
        image : ndarray of uint8, shape (H, W, 3)
            The picture, RGB; see `selective_search`.

        Examples
        --------
        >>> from skimage.data import chelsea
        >>> regions = SelectiveSearch("single", limit=100).regions(chelsea())
        >>> regions.masks([0, 5, 9]).shape
        (3, 300, 451)
        """
        return _search(image, self)

    def search(self, image: NDArray[np.uint8], name: str | None = None) -> Ranked:
        """Propose the boxes; no network is needed. See `Proposer`."""
        return self(image)

    def propose(self, features: PictureFeatures, searched: Ranked | None = None, name: str | None = None) -> Ranked:
        """Return the result of `search`; see `Proposer`."""
        return searched or self(features.image)

    def has_objectness(self, classes: Sequence[str]) -> bool:
        """Return False: the scores are ranks."""
        return False


def selective_search(
    image: NDArray[np.uint8],
    mode: Mode = "fast",
    *,
    superpixel_scale: float = 1.0,
    seed: int = 0,
    limit: int | None = None,
    min_side: float = 20,
    strategies: Sequence[Strategy] | None = None,
    threads: int = 1,
) -> Ranked:
    """Propose boxes that may hold an object, best first.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        The picture, RGB. Greyscale (H, W) or (H, W, 1) and RGBA (H, W, 4), laid on white, are taken too.
    mode : {"single", "fast", "quality"}
        ``single``: HSV, k = 100, one hierarchy. ``fast``: HSV and Lab, k = 50 and 100, two sums of similarities, 8
        hierarchies, as in R-CNN. ``quality``: 5 colour spaces, 4 k, 4 sums of similarities, 80 hierarchies.
    superpixel_scale : float
        Factor of k and of the minimum size of the initial regions; 2 gives about half as many boxes.
    seed : int
        Seed of the random part of the ranking: the same picture and seed give the same boxes in the same order.
    limit : int, optional
        Return at most this many boxes, the best.
    min_side : float
        Boxes narrower or lower than this are dropped. The unit is pixels of the picture *scaled to a width of 500
        pixels*, as in the paper, so 20 is 1/25 of the picture's width. (A picture over four times as high as wide is
        scaled to a height of 2000 pixels.)
    strategies : sequence of Strategy, optional
        The hierarchies to build instead of the mode's; a hierarchy that is in two of them is built once.
    threads : int
        Number of hierarchies built at the same time. The result does not depend on it. Each of ``fast`` needs about
        10 MB of memory.

    Returns
    -------
    boxes : ndarray of float32, shape (N, 4)
        ``x1 y1 x2 y2`` in pixels of `image`, continuous, 0-based, inside the picture; all different. If no box is large
        enough, the whole picture.
    scores : ndarray of float32, shape (N,)
        ``1 / (1 + priority)``, strictly falling, see the notes. A rank, not a probability.

    Raises
    ------
    SettingError
        If the picture is not uint8, is empty or has not 1, 3 or 4 channels, or a setting is out of range.

    Notes
    -----
    The priority of a box is its position in its hierarchy times a random number in [0, 1); boxes are ranked by it,
    lowest first. The position is 1 for the whole picture and grows towards the initial regions. So large regions come
    first, and every hierarchy has boxes among the first.

    The same picture and settings give the same boxes on every run and with any number of threads, on one kind of
    processor. Another kind may round sums of similarities differently, and then merge other regions.

    The first call on a machine compiles the kernels, and logs a line if that takes long. Later calls read them from the
    disk.

    The boxes of the authors' MATLAB code are similar, as far as they published them, for two pictures of VOC 2007. With
    `min_side` 0, four fifths of theirs have a box of ours with an IoU of 0.7 or more, and two fifths one with 0.9.
    ``benchmarks/README.md`` has these figures for OpenCV too. The differences have two causes. The settings of the
    published boxes are not known; ours are half as many again. And colours, texture and smoothing are computed in other
    arithmetic: where two merges are nearly equal, a small difference leads to another hierarchy.

    References
    ----------
    J. R. R. Uijlings, K. E. A. van de Sande, T. Gevers, A. W. M. Smeulders. Selective Search for Object Recognition.
    IJCV 104(2), 2013; section 3, ranking in section 3.3. Settings: R. Girshick et al., CVPR 2014, section 2.1.

    Examples
    --------
    >>> from skimage.data import astronaut
    >>> boxes, scores = selective_search(astronaut(), mode="single", limit=200)
    >>> boxes.shape, scores.shape
    ((200, 4), (200,))
    """
    search = SelectiveSearch(
        mode, superpixel_scale=superpixel_scale, seed=seed, limit=limit, min_side=min_side, strategies=strategies,
        threads=threads,
    )  # fmt: skip
    return search(image)


def _search(image: NDArray[np.uint8], settings: SelectiveSearch) -> Regions:
    """Rank the regions of all hierarchies, see `selective_search`."""
    check_image(image)
    height, width = image.shape[:2]
    # First the size, then the channels: a very large picture is not copied. RGBA is laid on white before, as in files.
    scaled = as_rgb(_scale(as_rgb(image) if image.shape[2:] == (4,) else image))
    rng = np.random.default_rng(settings.seed)

    compile_kernels()
    strategies = settings.strategies or [STRATEGIES[settings.mode]]
    levels = hierarchies(scaled, strategies, settings.superpixel_scale, settings.threads)
    nodes = np.concatenate([level.boxes for level in levels])
    counts = [len(level.boxes) for level in levels]
    priority = np.concatenate([rng.random(count) * np.arange(count, 0, -1) for count in counts])
    wide = np.flatnonzero((nodes[:, 2:] - nodes[:, :2] >= settings.min_side).all(axis=1))
    if len(wide) == 0:  # The whole picture.
        wide = np.array([counts[0] - 1])
        priority[wide] = 1

    order = wide[np.argsort(priority[wide], kind="stable")]
    corners = nodes[order].astype(np.int64)
    key = ((corners[:, 0] * 4096 + corners[:, 1]) * 4096 + corners[:, 2]) * 4096 + corners[:, 3]
    first = np.sort(np.unique(key, return_index=True)[1])[: settings.limit]  # the best of each set of duplicates
    stretch = np.array([width / scaled.shape[1], height / scaled.shape[0]] * 2)
    boxes = np.minimum(corners[first] * stretch, [width, height] * 2).astype(np.float32)
    scores = _strictly_falling(1 / (1 + priority[order][first]))
    ends = np.cumsum(counts)
    level = np.searchsorted(ends, order[first], side="right")
    row = order[first] - (ends - counts)[level]
    return Regions(boxes, scores, (height, width), levels, np.stack([level, row], axis=1).astype(np.int32))


def hierarchies(
    image: NDArray[np.uint8], strategies: Sequence[Strategy], superpixel_scale: float = 1.0, threads: int = 1
) -> list[Hierarchy]:
    """Build the hierarchies of some strategies.

    Common steps run once: smoothing, edges, their order and texture for all ``k`` of a colour space; regions and their
    histograms for all sums of similarities of a ``k``.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        The scaled picture, RGB.
    strategies : sequence of Strategy
        The hierarchies to build.
    superpixel_scale : float
        Factor of k and of the minimum region size.
    threads : int
        Number of hierarchies built at the same time.

    Returns
    -------
    list of Hierarchy
        Those of one colour space and ``k`` share their labels.

    Examples
    --------
    >>> image = np.zeros((20, 30, 3), np.uint8)
    >>> [hierarchy.boxes.tolist() for hierarchy in hierarchies(image, [STRATEGIES["single"]])]
    [[[0, 0, 30, 20]]]
    """
    plan: dict[str, dict[float, dict[str, None]]] = {}  # The inner dicts are sets that keep their order.
    for strategy in strategies:
        for space in strategy.spaces:
            for k in strategy.ks:
                plan.setdefault(space, {}).setdefault(k, {}).update(dict.fromkeys(strategy.measures))

    def prepare(space: str) -> tuple[NDArray[np.uint8], PixelGraph, NDArray[np.uint8]]:
        values = convert_colour(image, space)
        return values, pixel_graph(values), texture_codes(values)

    def build(
        values: NDArray[np.uint8], graph: PixelGraph, codes: NDArray[np.uint8], k: float, sums: Sequence[str]
    ) -> list[Hierarchy]:
        labels, count = segment(graph, k * superpixel_scale, round(k * superpixel_scale))
        regions = describe_regions(labels, count, values, codes)
        return [Hierarchy(labels, *group_regions(regions, labels.size, measures)) for measures in sums]

    if threads == 1:
        levels: list[Hierarchy] = []
        for space, ks in plan.items():
            prepared = prepare(space)
            for k, sums in ks.items():
                levels += build(*prepared, k, tuple(sums))
        return levels
    # Threads are enough: the kernels run without the interpreter's lock.
    with ThreadPoolExecutor(threads) as pool:
        preparing = {space: pool.submit(prepare, space) for space in plan}
        building = [
            pool.submit(build, *preparing[space].result(), k, tuple(sums))
            for space, ks in plan.items()
            for k, sums in ks.items()
        ]
        return [hierarchy for task in building for hierarchy in task.result()]


def convert_colour(image: NDArray[np.uint8], space: str) -> NDArray[np.uint8]:
    """Convert an RGB picture to a colour space of selective search, each channel stretched over 0..255.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        RGB.
    space : {"HSV", "Lab", "rgI", "H", "I"}
        ``rgI`` is normalised red and green (R and G divided by R + G + B, a third for black) and intensity. ``H`` is
        the hue of HSV, ``I`` the intensity. Lab's a and b are stretched: 0..255 are the values that sRGB colours have.

    Returns
    -------
    ndarray of uint8, shape (H, W, C)
        3 channels, or 1 for ``H`` and ``I``.

    References
    ----------
    Uijlings et al., IJCV 2013, section 3.2 (complementary colour spaces).

    Examples
    --------
    >>> magenta = np.array([[[255, 0, 255]]], np.uint8)
    >>> convert_colour(magenta, "HSV")[0, 0].tolist()  # 300 of 360 degrees
    [213, 255, 255]
    """
    if space in ("HSV", "H"):
        hsv = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL), np.uint8)
        return hsv if space == "HSV" else np.ascontiguousarray(hsv[..., :1])
    if space == "Lab":
        return np.asarray(cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2Lab), _LAB_STRETCH), np.uint8)
    total = image.sum(axis=2, keepdims=True, dtype=np.float32)
    if space == "I":
        return np.rint(total / 3).astype(np.uint8)
    if space == "rgI":
        shares = np.where(total == 0, np.float32(1 / 3), image[..., :2] / np.maximum(total, 1))
        return np.rint(np.concatenate([255 * shares, total / 3], axis=2)).astype(np.uint8)
    raise SettingError(f"unknown colour space {space!r}; choose one of {', '.join(SPACES)}")


def _stretch_lab() -> NDArray[np.uint8]:
    # OpenCV stores a + 128 and b + 128, of which sRGB colours have only these values; L is in 0..255 already.
    table = np.empty((256, 1, 3), np.uint8)
    byte = np.arange(256)
    for channel, (low, high) in enumerate([(0, 255), (42, 226), (20, 223)]):
        table[:, 0, channel] = np.clip(np.rint((byte - low) * (255 / (high - low))), 0, 255)
    return table


_LAB_STRETCH = _stretch_lab()


def compile_kernels() -> None:
    """Load the kernels of `selective_search`: compiled on a machine's first call, read from the disk later.

    `selective_search` does this itself. Call it before starting several processes, which would all compile, or before
    measuring time.

    Examples
    --------
    >>> compile_kernels()
    """
    compile_all(*KERNELS)


def _scale(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Scale a picture to the width of 500 pixels."""
    height, width = image.shape[:2]
    factor = min(WIDTH / width, MAX_HEIGHT / height)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)


def _strictly_falling(scores: NDArray[np.float64]) -> NDArray[np.float32]:
    # Rounding to float32 can make neighbours equal. The bits of positive floats, read as integers, have the order of
    # the floats. So the bits are lowered by 1 where needed to make the order strict.
    bits = scores.astype(np.float32).view(np.int32).astype(np.int64)
    step = np.arange(len(bits))
    return (np.minimum.accumulate(bits + step) - step).astype(np.int32).view(np.float32)
