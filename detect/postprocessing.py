"""Scores and box deltas of regions to detections: average, weigh with objectness, regress, suppress, calibrate."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..backbone.preprocessing import decode_boxes
from ..data import Detections, clip_boxes
from ..data.classes.spelling import find_labels
from ..data.nms import nms_per_class, soft_nms_per_class
from ..data.score_calibration import ScoreCalibration
from .settings import DetectorSettings


def suppress(
    proposals: NDArray[np.float32],
    probabilities: NDArray[np.float32],
    deltas: NDArray[np.float32] | None,
    size: tuple[int, int],
    classes: tuple[str, ...],
    settings: DetectorSettings,
    objectness: NDArray[np.float32] | None = None,
    calibration: ScoreCalibration | None = None,
) -> Detections:
    """Turn the scores of a picture's proposals into detections.

    The proposal network and the region network both estimate the probability that there is an object of a class just
    there, ``P(object) * P(class | object)`` (Zhou et al.). The region network hardly tells a part of an object, or two
    together, from the whole; the proposal network learned that. The score is their weighted geometric mean.

    Parameters
    ----------
    proposals : ndarray, shape (N, 4), float32
        In pixels of the picture.
    probabilities : ndarray, shape (N, 1 + C), float32
        Column 0 is background.
    deltas : ndarray, shape (N, C, 4), float32, or None
        Box deltas of each class; None leaves the proposals as they are.
    size : (int, int)
        Width and height of the picture, in pixels.
    classes : tuple of str
        The C names.
    settings : DetectorSettings
        ``min_score``, ``max_detections``, ``objectness_weight``, ``only``, and how to suppress.
    objectness : ndarray, shape (N,), float32, optional
        Probability, 0 to 1, that there is an object just there, whatever its class. Without it the probabilities are
        the scores.
    calibration : ScoreCalibration, optional
        Of the C classes. It is applied to what suppression leaves of the scores; ``min_score`` and ``max_detections``
        hold for calibrated scores.

    Returns
    -------
    Detections
        Best first.

    References
    ----------
    Girshick et al., "Rich feature hierarchies", CVPR 2014, section 2.2; Bodla et al., "Soft-NMS", ICCV 2017; Zhou et
    al., "Probabilistic two-stage detection", arXiv 2103.07461, section 4.

    Examples
    --------
    >>> boxes = np.array([[0, 0, 50, 50], [1, 0, 50, 50]], np.float32)
    >>> scores = np.array([[0.1, 0.9], [0.2, 0.8]], np.float32)
    >>> suppress(boxes, scores, None, (60, 60), ("cat",), DetectorSettings()).scores.round(2).tolist()
    [0.8999999761581421, 0.07000000029802322]
    """
    boxes, scores = proposals, weigh_scores(probabilities, objectness, settings)
    if deltas is not None:
        boxes = clip_boxes(decode_boxes(proposals, deltas).reshape(-1, 4), *size).reshape(deltas.shape)
    chosen = find_labels(settings.only, classes) if settings.only else None
    if chosen is not None:  # Classes do not suppress each other, so the others are left out at once.
        scores = np.take(scores, chosen, axis=1)
        boxes = boxes if deltas is None else np.take(boxes, chosen, axis=1)
    min_score = settings.min_score
    limit: int | None = settings.max_detections
    if calibration is not None:
        # The best of the picture are known only when the classes, each calibrated in its own way, are in one ranking.
        min_score, limit = calibration.lowest_score(settings.min_score), None
    # On the CPU, wherever the scores come from: a millisecond's work, hardly more than launching it would take.
    if settings.nms == "soft":
        kept, scores, labels = soft_nms_per_class(
            boxes, scores, sigma=settings.softness, min_score=min_score, limit=limit
        )
    else:
        kept, scores, labels = nms_per_class(boxes, scores, settings.iou_threshold, min_score=min_score, limit=limit)
    if chosen is not None:
        labels = chosen[labels]
    if calibration is not None:
        scores = calibration(scores, labels).astype(np.float32)
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] >= np.float32(settings.min_score)][: settings.max_detections]
        kept, scores, labels = kept[order], scores[order], labels[order]
    return Detections(kept, scores, labels, classes)


def weigh_scores(
    probabilities: NDArray[np.float32], objectness: NDArray[np.float32] | None, settings: DetectorSettings
) -> NDArray[np.float32]:
    """Weigh probabilities (N, 1 + C) with the proposals' objectness (N,), see `suppress`: scores (N, C)."""
    scores = probabilities[:, 1:]
    if objectness is None:
        return scores
    weight = settings.objectness_weight
    return scores ** (1 - weight) * objectness[:, None] ** weight


def refine_best(
    proposals: NDArray[np.float32],
    probabilities: NDArray[np.float32],
    deltas: NDArray[np.float32],
    size: tuple[int, int],
    settings: DetectorSettings,
    objectness: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Choose the regions for a second look, and move each by the box deltas of its best class.

    Parameters
    ----------
    proposals, probabilities, deltas, size, objectness
        As for `suppress`.
    settings : DetectorSettings
        ``second_look``, the number of regions, and ``objectness_weight``.

    Returns
    -------
    chosen : ndarray, shape (K,), intp
        Indices of the regions with the highest scores.
    boxes : ndarray, shape (K, 4), float32
        Where to look: in pixels of the picture, none narrower or lower than a pixel.

    References
    ----------
    Gidaris and Komodakis, "Object detection via a multi-region and semantic segmentation-aware CNN model", ICCV 2015,
    section 5.

    Examples
    --------
    >>> boxes = np.array([[0, 0, 50, 50], [1, 0, 50, 50]], np.float32)
    >>> scores = np.array([[0.3, 0.7], [0.2, 0.8]], np.float32)
    >>> refine_best(boxes, scores, np.ones((2, 1, 4), np.float32), (60, 60), DetectorSettings(second_look=1))[0]
    array([1])
    """
    scores = weigh_scores(probabilities, objectness, settings)
    chosen = np.sort(np.argsort(-scores.max(1), kind="stable")[: settings.second_look])
    boxes = clip_boxes(move_by_best(proposals[chosen], scores[chosen], deltas[chosen]), *size)
    large = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(1)
    return chosen[large], boxes[large]


def move_by_best(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], deltas: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Move boxes (N, 4) by their deltas (N, C, 4) of the class with the highest score (N, C), for a second look.

    Examples
    --------
    >>> box, deltas = np.array([[0, 0, 10, 10]], np.float32), np.array([[[0, 0, 0, 0], [1, 0, 0, 0]]], np.float32)
    >>> move_by_best(box, np.array([[0.2, 0.8]], np.float32), deltas).tolist()
    [[1.0, 0.0, 11.0, 10.0]]
    """
    best = deltas[np.arange(len(boxes)), scores.argmax(1)]
    return decode_boxes(boxes, best[:, None])[:, 0]


def average_scores(
    outputs: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]], regressing: Sequence[bool]
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Average the outputs of several models for the same regions.

    Parameters
    ----------
    outputs : sequence of (ndarray, shape (N, 1 + C), float32; ndarray, shape (N, C, 4), float32)
        Probabilities and box deltas of each model.
    regressing : sequence of bool
        Whether a model's box deltas were trained; others are left out.

    Returns
    -------
    probabilities : ndarray, shape (N, 1 + C), float32
    deltas : ndarray, shape (N, C, 4), float32, or None
        None if no model's were trained.

    Examples
    --------
    >>> one = np.array([[0.2, 0.8]], np.float32), np.ones((1, 1, 4), np.float32)
    >>> average_scores([one, one], [False, False])[1] is None
    True
    """
    probabilities = np.asarray(np.mean([probability for probability, _ in outputs], axis=0), np.float32)
    trained = [deltas for (_, deltas), counts in zip(outputs, regressing, strict=True) if counts]
    return probabilities, np.asarray(np.mean(trained, axis=0), np.float32) if trained else None
