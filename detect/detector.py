"""A picture in, named boxes out: propose, score, regress, suppress."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..backbone.engine import RegionScorer
from ..backbone.model_file import ModelError, read_model
from ..backbone.preprocessing import decode_boxes
from ..backbone.weights import find_model
from ..data import Detections, clip_boxes
from ..eval import nms_per_class
from ..proposals import SelectiveSearch

__all__ = ["Detector", "suppress"]

# ILSVRC and COCO both stop counting at a hundred; more only makes files large.
MOST_PER_PICTURE = 100


def suppress(
    proposals: NDArray[np.float32],
    probabilities: NDArray[np.float32],
    deltas: NDArray[np.float32] | None,
    width: int,
    height: int,
    classes: tuple[str, ...],
    *,
    min_score: float = 0.05,
    threshold: float = 0.3,
) -> Detections:
    """Turn the scores of a picture's proposals into detections.

    Parameters
    ----------
    proposals : ndarray, shape (N, 4), float32
        In pixels of the picture.
    probabilities : ndarray, shape (N, 1 + C), float32
        Column 0 is background.
    deltas : ndarray, shape (N, C, 4), float32, or None
        Box deltas of each class; None leaves the proposals as they are.
    width, height : int
        Of the picture, in pixels.
    classes : tuple of str
        The C names.
    min_score : float
        Weaker detections are dropped.
    threshold : float
        A box that overlaps a better one of its class by more than this IoU is dropped.

    Returns
    -------
    Detections
        Best first, 100 at most.

    References
    ----------
    Girshick et al., "Rich feature hierarchies", CVPR 2014, section 2.2.

    Examples
    --------
    >>> boxes = np.array([[0, 0, 50, 50], [1, 0, 50, 50]], np.float32)
    >>> found = suppress(boxes, np.array([[0.1, 0.9], [0.5, 0.5]], np.float32), None, 60, 60, ("cat",))
    >>> found.scores.tolist()
    [0.8999999761581421]
    """
    boxes = proposals
    if deltas is not None:
        boxes = clip_boxes(decode_boxes(proposals, deltas).reshape(-1, 4), width, height).reshape(deltas.shape)
    kept, scores, labels = nms_per_class(
        boxes, probabilities[:, 1:], threshold, min_score=min_score, limit=MOST_PER_PICTURE
    )
    return Detections(kept, scores, labels, classes)


class Detector:
    """Finds the objects in a picture.

    Parameters
    ----------
    scorers : sequence of RegionScorer
        Several form an ensemble: they score the same proposals and their outputs are averaged.
    proposals : int
        How many regions to score, best proposals first.
    superpixel_scale : float
        Of `SelectiveSearch`; the GoogLeNet team doubled it.
    min_score : float
        Weaker detections are dropped.
    seed : int
        Of `SelectiveSearch`.

    Raises
    ------
    ModelError
        If the scorers' classes differ.

    References
    ----------
    Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, section 8.

    Examples
    --------
    >>> from skimage.data import chelsea
    >>> found = Detector.load("voc")(chelsea())
    >>> found.classes[found.labels[0]]
    'cat'
    """

    def __init__(
        self,
        scorers: Sequence[RegionScorer],
        *,
        proposals: int = 1000,
        superpixel_scale: float = 1.0,
        min_score: float = 0.05,
        seed: int = 0,
    ) -> None:
        if not scorers:
            raise ModelError("a detector needs at least one model")
        if len({scorer.model.classes for scorer in scorers}) > 1:
            raise ModelError("the models of an ensemble must have the same classes in the same order")
        self.scorers = list(scorers)
        self.classes = scorers[0].model.classes
        self.min_score = min_score
        self.search = SelectiveSearch(mode="fast", superpixel_scale=superpixel_scale, seed=seed, limit=proposals)

    @classmethod
    def load(
        cls,
        *models: str | Path,
        device: str = "auto",
        threads: int | None = None,
        proposals: int = 1000,
        min_score: float = 0.05,
        seed: int = 0,
    ) -> Detector:
        """Make a detector from models' names or files.

        Parameters
        ----------
        *models : str or Path
            ``"voc"``, or files that ``inception-rcnn train detector`` wrote; default ``"voc"``.
        device : {"auto", "cpu", "cuda"}
        threads : int, optional
            CPU threads of the network; default all.
        proposals, min_score, seed
            See the class.

        Returns
        -------
        Detector

        Raises
        ------
        ModelError
            If a model is not found or cannot be read.
        DeviceError
            If the device is not there.
        """
        scorers = [
            RegionScorer(read_model(find_model(name)), device=device, threads=threads) for name in models or ("voc",)
        ]
        return cls(scorers, proposals=proposals, min_score=min_score, seed=seed)

    def propose(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Regions worth scoring: image (H, W, 3) uint8 RGB -> boxes (N, 4) float32, best first."""
        return self.search(image)[0]

    def score(self, image: NDArray[np.uint8], proposals: NDArray[np.float32]) -> Detections:
        """Score regions of a picture and keep the best of overlapping ones.

        Parameters
        ----------
        image : ndarray, shape (H, W, 3), uint8
            RGB.
        proposals : ndarray, shape (N, 4), float32
            In pixels of `image`.

        Returns
        -------
        Detections
        """
        outputs = [scorer(image, proposals) for scorer in self.scorers]
        probabilities = np.asarray(np.mean([probability for probability, _ in outputs], axis=0), np.float32)
        regressing = [d for (_, d), scorer in zip(outputs, self.scorers, strict=True) if scorer.model.box_regression]
        deltas = np.asarray(np.mean(regressing, axis=0), np.float32) if regressing else None
        height, width = image.shape[:2]
        return suppress(proposals, probabilities, deltas, width, height, self.classes, min_score=self.min_score)

    def __call__(self, image: NDArray[np.uint8]) -> Detections:
        """Find the objects in a picture: image (H, W, 3) uint8 RGB -> Detections, best first."""
        return self.score(image, self.propose(image))
