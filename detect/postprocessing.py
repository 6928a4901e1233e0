"""Scores and box deltas of regions to detections."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..backbone.preprocessing import decode_boxes
from ..data import Detections, clip_boxes
from ..data.errors import SettingError
from ..data.nms import nms_per_class, soft_nms_per_class

# Of the logarithms of a score's two parts; chosen with the softness on pictures set aside from training.
OBJECTNESS = 1 / 3
# Gaussian soft-NMS: boxes with an IoU of 0.5 lose 46 % of their score.
SOFTNESS = 0.4
NMS = ("soft", "greedy")
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
    objectness: NDArray[np.float32] | None = None,
    min_score: float = 0.05,
    nms: str = "soft",
) -> Detections:
    """Turn the scores of a picture's proposals into detections.

    What the proposal network thinks of a box and what the region network thinks of it are two opinions of one chance,
    that there is an object of a class just there: ``P(object) * P(class | object)`` (Zhou et al.). The region network
    hardly tells a part of an object, or two together, from the whole; the proposal network learned that. The score is
    their weighted geometric mean.

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
    objectness : ndarray, shape (N,), float32, optional
        The chance, 0 to 1, that there is an object just there, whatever its class. Without it the probabilities are
        the scores.
    min_score : float
        Weaker detections are dropped.
    nms : {"soft", "greedy"}
        Lower the scores of boxes that overlap a better one of their class (Bodla et al.), or drop them if the IoU is
        above 0.3 as R-CNN does.

    Returns
    -------
    Detections
        Best first, 100 at most.

    Raises
    ------
    ValueError
        If `nms` is unknown.

    References
    ----------
    Girshick et al., "Rich feature hierarchies", CVPR 2014, section 2.2; Bodla et al., "Soft-NMS", ICCV 2017; Zhou et
    al., "Probabilistic two-stage detection", arXiv 2103.07461, section 4.

    Examples
    --------
    >>> boxes = np.array([[0, 0, 50, 50], [1, 0, 50, 50]], np.float32)
    >>> found = suppress(boxes, np.array([[0.1, 0.9], [0.2, 0.8]], np.float32), None, 60, 60, ("cat",))
    >>> found.scores.round(2).tolist()
    [0.8999999761581421, 0.07000000029802322]
    """
    boxes, scores = proposals, probabilities[:, 1:]
    if objectness is not None:
        scores = scores ** (1 - OBJECTNESS) * objectness[:, None] ** OBJECTNESS
    if deltas is not None:
        boxes = clip_boxes(decode_boxes(proposals, deltas).reshape(-1, 4), width, height).reshape(deltas.shape)
    # On the CPU, wherever the scores come from: a millisecond's work, hardly more than launching it would take.
    if nms == "soft":
        kept, scores, labels = soft_nms_per_class(
            boxes, scores, sigma=SOFTNESS, min_score=min_score, limit=MOST_PER_PICTURE
        )
    elif nms == "greedy":
        kept, scores, labels = nms_per_class(boxes, scores, min_score=min_score, limit=MOST_PER_PICTURE)
    else:
        raise SettingError(f"nms {nms!r} is unknown; use {' or '.join(NMS)}")
    return Detections(kept, scores, labels, classes)


def average_scores(
    outputs: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]], regressing: Sequence[bool]
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Average what several models say of the same regions.

    Parameters
    ----------
    outputs : sequence of (ndarray, shape (N, 1 + C), float32; ndarray, shape (N, C, 4), float32)
        Probabilities and box deltas of each model.
    regressing : sequence of bool
        Whose box deltas were trained; the others' are left out.

    Returns
    -------
    probabilities : ndarray, shape (N, 1 + C), float32
    deltas : ndarray, shape (N, C, 4), float32, or None
        None if nobody's were trained.

    Examples
    --------
    >>> one = np.array([[0.2, 0.8]], np.float32), np.ones((1, 1, 4), np.float32)
    >>> average_scores([one, one], [False, False])[1] is None
    True
    """
    probabilities = np.asarray(np.mean([probability for probability, _ in outputs], axis=0), np.float32)
    trained = [deltas for (_, deltas), counts in zip(outputs, regressing, strict=True) if counts]
    return probabilities, np.asarray(np.mean(trained, axis=0), np.float32) if trained else None
