"""Boxes of selective search and MultiBox in one ranking, of which any number of first boxes can be used.

The GoogLeNet team added 200 MultiBox boxes to those of selective search with superpixels twice as large (Szegedy et
al., "Going Deeper with Convolutions", CVPR 2015, section 8). They scored all boxes, so the order did not matter. Here
it does. MultiBox gives confidences and selective search ranks; both are converted to the gain in average recall that is
expected of a box, see `calibration`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..data.arguments import as_array, check_choice, check_number
from ..data.boxes import as_boxes, find_problem
from ..data.errors import SettingError
from ..data.nms import NMS_KERNELS, nms
from ..data.system.kernels import compiling
from .calibration import RankingCalibration, expected_gain
from .proposer import Ranked, check_limit
from .search.selective_search import Mode, SelectiveSearch

if TYPE_CHECKING:
    from ..backbone.regions.features import PictureFeatures
    from ..backbone.regions.scorer import Trunk
    from .multibox.proposer import MultiBox


# Boxes that overlap a better one by more are dropped: a detector gives both nearly the same score, and box regression
# moves them by more than they differ.
NEAR_DUPLICATE = 0.9


def merge_proposals(
    selective_search: Ranked,
    multibox: Ranked,
    calibration: RankingCalibration,
    *,
    limit: int | None = None,
    iou_threshold: float = NEAR_DUPLICATE,
) -> Ranked:
    """Merge the boxes of selective search and MultiBox into one ranking.

    Parameters
    ----------
    selective_search : (ndarray (N, 4), ndarray (N,))
        Boxes and scores, best first; only the order of the scores is used. The GoogLeNet team's were those of
        ``SelectiveSearch("fast", superpixel_scale=2)``.
    multibox : (ndarray (M, 4), ndarray (M,))
        Boxes and confidences, best first.
    calibration : RankingCalibration
        That of the MultiBox, ``MultiBox.calibration``.
    limit : int, optional
        Return at most this many boxes, the best.
    iou_threshold : float
        A box is dropped that overlaps a better one by more; 1 drops none.

    Raises
    ------
    SettingError
        If boxes and scores do not fit together, a number is not finite, or `limit` or `iou_threshold` is out of range.

    Returns
    -------
    boxes : ndarray, shape (K, 4), float32
        x1 y1 x2 y2, best first.
    scores : ndarray, shape (K,), float32
        Expected gain in average recall, falling: at how large a share of the IoU thresholds 0.5, 0.55, ..., 0.95 the
        box is expected to cover an object that no box before it covers.

    Examples
    --------
    >>> search_boxes = np.array([[0, 0, 90, 60], [0, 0, 30, 30]], np.float32), np.array([0.5, 0.1], np.float32)
    >>> multibox_boxes = np.array([[0, 0, 31, 30], [50, 20, 80, 60]], np.float32), np.array([0.9, 0.2], np.float32)
    >>> boxes, scores = merge_proposals(search_boxes, multibox_boxes, RankingCalibration())
    >>> boxes.tolist()
    [[0.0, 0.0, 31.0, 30.0], [0.0, 0.0, 90.0, 60.0], [50.0, 20.0, 80.0, 60.0]]
    >>> scores.round(2).tolist()
    [0.8999999761581421, 0.27000001072883606, 0.20000000298023224]
    """
    check_limit(limit)
    one, two = ((as_boxes(boxes), as_array("scores", scores)) for boxes, scores in (selective_search, multibox))
    if problem := find_problem(*one) or find_problem(*two):
        raise SettingError(problem)
    boxes = np.concatenate([one[0], two[0]])
    scores = np.concatenate(expected_gain(one, two, calibration))
    kept = nms(boxes, scores, iou_threshold)[:limit]
    return boxes[kept], scores[kept].astype(np.float32)


METHODS = ("merged", "selective-search", "multibox")


@dataclass(frozen=True)
class MergedProposals:
    """Proposes the merged boxes of selective search and MultiBox; see `merge_proposals`.

    Parameters
    ----------
    selective_search : SelectiveSearch
    multibox : MultiBox
    limit : int, optional
        Return at most this many boxes, the best.
    iou_threshold : float
        A box is dropped that overlaps a better one by more.

    Examples
    --------
    >>> from skimage.data import chelsea
    >>> boxes, scores = MergedProposals.load(limit=300)(chelsea())
    >>> boxes.shape, boxes.dtype.name, bool((np.diff(scores) <= 0).all())
    ((300, 4), 'float32', True)
    """

    selective_search: SelectiveSearch
    multibox: MultiBox
    _: KW_ONLY
    limit: int | None = None
    iou_threshold: float = NEAR_DUPLICATE

    # Calibrations are fitted to the ranks of this one.
    SEARCH: ClassVar[SelectiveSearch] = SelectiveSearch("fast", superpixel_scale=2.0)

    def __post_init__(self) -> None:
        threshold = check_number("iou_threshold", self.iou_threshold, 0, 1)
        vars(self).update(limit=check_limit(self.limit), iou_threshold=threshold)

    @classmethod
    def load(cls, name_or_file: str | Path = "voc", *, limit: int | None = None, **settings: Any) -> MergedProposals:
        """Load a trained MultiBox, and merge its boxes with those of the default selective search.

        Parameters
        ----------
        name_or_file : str or Path
            A bundled head, or a file that ``inception-rcnn train multibox`` wrote.
        limit : int, optional
            See the class.
        **settings
            Other arguments of `MultiBox.load`, such as ``detector``, ``device`` and ``threads``.

        Raises
        ------
        ModelError
            If there is no such head or detector, or they do not belong together.
        DeviceError
            If the device is not there.
        """
        from .multibox.proposer import MultiBox

        return cls(cls.SEARCH, MultiBox.load(name_or_file, **settings), limit=limit)

    @property
    def settings(self) -> dict[str, Any]:
        """All that the boxes depend on."""
        parts = {"search": self.selective_search.settings, "multibox": self.multibox.settings}
        return parts | {"limit": self.limit, "iou_threshold": self.iou_threshold}

    @property
    def kernels(self) -> tuple[Any, ...]:
        """Compiled functions that a call runs, for `data.system.kernels.compile_all`."""
        return (*self.selective_search.kernels, *self.multibox.kernels)

    def __call__(self, image: NDArray[np.uint8]) -> Ranked:
        """Propose boxes (N, 4) and scores (N,) of a picture (H, W, 3) uint8 RGB, best first."""
        return self._merge(self.selective_search(image), self.multibox(image))

    def search(self, image: NDArray[np.uint8], name: str | None = None) -> Ranked:
        """Run selective search; see `Proposer`."""
        return self.selective_search(image)

    def propose(self, features: PictureFeatures, searched: Ranked | None = None, name: str | None = None) -> Ranked:
        """Merge the result of `search` with MultiBox's boxes; see `Proposer`."""
        return self._merge(searched or self.search(features.image), self.multibox.propose(features))

    def has_objectness(self, classes: Sequence[str]) -> bool:
        """Tell whether MultiBox learned all of `classes`, or any object; then expected gains serve as probabilities."""
        return self.multibox.has_objectness(classes)

    def _merge(self, search_boxes: Ranked, multibox_boxes: Ranked) -> Ranked:
        return merge_proposals(
            search_boxes, multibox_boxes, self.multibox.calibration, limit=self.limit, iou_threshold=self.iou_threshold
        )


def load_proposer(
    method: str = "merged",
    *,
    limit: int | None = None,
    mode: Mode = "fast",
    superpixel_scale: float | None = None,
    min_side: float = 20,
    seed: int = 0,
    multibox: str | Path = "voc",
    detector: str | Path = "voc",
    device: str = "auto",
    threads: int | None = None,
    engine: str | None = None,
    precision: str | None = None,
    loaded_trunks: Sequence[Trunk] = (),
) -> SelectiveSearch | MultiBox | MergedProposals:
    """Load a proposer by the name of its method.

    Parameters
    ----------
    method : {"merged", "selective-search", "multibox"}
    limit : int, optional
        Return at most this many boxes, the best. The default is 200 for "multibox", else all boxes.
    mode, superpixel_scale, min_side, seed
        See `SelectiveSearch`; `superpixel_scale` is 2 by default for "merged".
    multibox : str or Path
        A bundled head, or a file that ``inception-rcnn train multibox`` wrote.
    detector, loaded_trunks
        See `multibox.proposer.load_head`.
    device, threads, engine, precision
        See `backbone.regions.placement.choose_placement`.

    Raises
    ------
    SettingError
        If the method is unknown or a setting of selective search is out of range.
    ModelError
        If there is no such MultiBox, or it does not belong to the detector.

    Examples
    --------
    >>> load_proposer("selective-search", limit=100).limit
    100
    """
    check_choice("method", method, METHODS)
    check_limit(limit)
    scale = superpixel_scale if superpixel_scale is not None else 2.0 if method == "merged" else 1.0
    first = limit if method == "selective-search" else None
    search = SelectiveSearch(mode, superpixel_scale=scale, min_side=min_side, seed=seed, limit=first)
    if method == "selective-search":
        return search
    from ..backbone.regions.placement import choose_placement
    from .multibox.proposer import MultiBox, load_head

    # Kernels are compiled in a thread meanwhile: on a new machine, compiling and loading take seconds each.
    with compiling(*(search.kernels if method == "merged" else ()), *NMS_KERNELS):
        placement = choose_placement(device, threads=threads, engine=engine, precision=precision)
        parts = load_head(multibox, placement, detector=detector, loaded_trunks=loaded_trunks)
    if method == "multibox":
        return MultiBox(*parts, limit=200 if limit is None else limit)
    return MergedProposals(search, MultiBox(*parts), limit=limit)
