"""What a proposer is: the protocol that detector and runs ask for. Nothing of ours is needed to fulfil it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..data.errors import SettingError

if TYPE_CHECKING:
    from ..backbone.regions.features import PictureFeatures

Ranked: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]


class Proposer(Protocol):
    """Proposes boxes that may hold an object: `SelectiveSearch`, `MultiBox`, both merged, boxes of a file, or yours.

    Boxes are ``x1 y1 x2 y2`` in pixels of the picture, (N, 4) float32, best first; scores are (N,) float32 and never
    rise.
    """

    @property
    def settings(self) -> dict[str, Any]:
        """All that the boxes depend on: an interrupted run goes on, and cached boxes are used, only if it is the same.

        Of a file its hash, of a network that of its weights.
        """

    def search(self, image: NDArray[np.uint8], name: str | None = None) -> Ranked | None:
        """Do the part of the work that needs no network; threads run it ahead of the network.

        Parameters
        ----------
        image : ndarray, shape (H, W, 3), uint8
            RGB.
        name : str, optional
            The picture's name in a run: its path below the folder that holds all pictures.

        Returns
        -------
        (ndarray, shape (N, 4), float32; ndarray, shape (N,), float32), or None
            For `propose`. None if there is nothing to do ahead.
        """

    def propose(self, features: PictureFeatures, searched: Ranked | None = None, name: str | None = None) -> Ranked:
        """Propose boxes.

        Parameters
        ----------
        features : PictureFeatures
            The picture is ``features.image``; ``features.of(trunk, long_side)`` are a trunk's features of it.
        searched : tuple, optional
            The result of `search` for this picture, if that ran already.
        name : str, optional
            See `search`.

        Returns
        -------
        boxes : ndarray, shape (N, 4), float32
        scores : ndarray, shape (N,), float32
        """

    def has_objectness(self, classes: Sequence[str]) -> bool:
        """Tell whether the scores are the probability that there is an object, if it is of one of `classes`.

        Then they count in the scores of detections.
        """


def propose_boxes(proposer: Proposer, image: NDArray[np.uint8], name: str | None = None) -> Ranked:
    """Propose boxes of one picture by any proposer: image (H, W, 3) uint8 RGB -> boxes (N, 4), scores (N,)."""
    from ..backbone.regions.features import PictureFeatures

    return proposer.propose(PictureFeatures(image), proposer.search(image, name), name)


def check_ranking(limit: int | None, iou_threshold: float) -> None:
    """Refuse a number of boxes or a threshold of suppression that is out of range.

    Examples
    --------
    >>> check_ranking(0, 0.5)
    Traceback (most recent call last):
    inception_rcnn.data.errors.SettingError: limit must be at least 1 or None, not 0
    """
    if limit is not None and limit < 1:
        raise SettingError(f"limit must be at least 1 or None, not {limit}")
    if not 0 <= iou_threshold <= 1:
        raise SettingError(f"iou_threshold must be 0 to 1, not {iou_threshold}")
