"""The protocol of proposers, for detector and runs. A proposer needs nothing else of this package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..data.arguments import as_array, check_number
from ..data.boxes import as_boxes, find_problem
from ..data.errors import SettingError

if TYPE_CHECKING:
    from ..backbone.regions.features import PictureFeatures

# Boxes (N, 4) and scores (N,), best first.
Ranked: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]


class Proposer(Protocol):
    """Proposes boxes that may hold an object.

    `SelectiveSearch`, `MultiBox`, `MergedProposals` and `FileProposals` are proposers; any object with these members is
    one. An attribute ``kernels`` is optional: what to compile before the first picture. Boxes are ``x1 y1 x2 y2`` in
    pixels of the picture, best first. Scores never rise from one box to the next.
    """

    @property
    def settings(self) -> dict[str, Any]:
        """All that the boxes depend on, as JSON can hold it; of a file or of weights the hash.

        An interrupted run goes on only with the same settings, and cached boxes are used only with the same settings.
        """

    def search(self, image: NDArray[np.uint8], name: str | None = None) -> Ranked | None:
        """Propose boxes as far as no network is needed. Threads run this for the next pictures meanwhile.

        Parameters
        ----------
        image : ndarray, shape (H, W, 3), uint8
            RGB.
        name : str, optional
            The picture's name in a run: its path below the folder that holds all pictures.

        Returns
        -------
        (ndarray, shape (N, 4), float32; ndarray, shape (N,), float32), or None
            Passed to `propose`. None if there is nothing to compute ahead.
        """

    def propose(self, features: PictureFeatures, searched: Ranked | None = None, name: str | None = None) -> Ranked:
        """Propose the boxes of a picture.

        Parameters
        ----------
        features : PictureFeatures
            ``features.image`` is the picture, ``features.of(trunk, long_side)`` are its features by a trunk.
        searched : tuple, optional
            The result of `search` for this picture, if it has run.
        name : str, optional
            See `search`.

        Returns
        -------
        boxes : ndarray, shape (N, 4), float32
        scores : ndarray, shape (N,), float32
        """

    def has_objectness(self, classes: Sequence[str]) -> bool:
        """Tell whether the scores are probabilities of an object, for objects of all of `classes`.

        If so, the scores of detections depend on them.
        """


def propose_boxes(
    proposer: Proposer, image: NDArray[np.uint8], name: str | None = None, searched: Ranked | None = None
) -> Ranked:
    """Propose boxes of one picture with any proposer: image (H, W, 3) uint8 RGB -> boxes (N, 4), scores (N,).

    It is not searched again if the result of `Proposer.search` is given.
    """
    from ..backbone.regions.features import PictureFeatures

    features = PictureFeatures(image)
    searched = proposer.search(features.image, name) if searched is None else searched
    return check_ranked(proposer.propose(features, searched, name))


def check_ranked(ranked: Ranked) -> Ranked:
    """Return the boxes and scores of a proposer as float32 arrays; refuse what no ranking can be.

    Raises
    ------
    SettingError
        If they are not (N, 4) and (N,), a number is not finite, a box ends before it begins, or the scores rise.

    Examples
    --------
    >>> check_ranked(([[0, 0, 9, 9], [3, 3, 5, 5]], [1, 2]))
    Traceback (most recent call last):
    inception_rcnn.data.errors.SettingError: the proposer's answer: the scores rise; boxes are expected best first
    """
    boxes, scores = as_boxes(ranked[0]), as_array("scores", ranked[1], np.float32)
    problem = find_problem(boxes, scores)
    if not problem and (scores[1:] > scores[:-1]).any():
        problem = "the scores rise; boxes are expected best first"
    if problem:
        raise SettingError(f"the proposer's answer: {problem}")
    return boxes, scores


def check_limit(limit: int | None) -> int | None:
    """Return a largest number of boxes, 1 or more, or None for all; refuse what is neither.

    Examples
    --------
    >>> check_limit(0)
    Traceback (most recent call last):
    inception_rcnn.data.errors.SettingError: limit must be a whole number, 1 or more, or None, not 0
    """
    return check_number("limit", limit, 1, whole=True, optional=True)
