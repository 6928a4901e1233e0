"""The loss of MultiBox: priors are matched to objects, then residuals and confidences are compared with the match."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from ...backbone.preprocessing import encode_boxes
from ...data import Picture, box_iou
from .network import GridHead, VectorHead
from .priors import place_priors

# Weight of the location term (Erhan et al., section 4.1). The paper's locations are shares of the picture; ours are box
# deltas, see `backbone.preprocessing.encode_boxes`. With both, the location and confidence terms have a similar size.
ALPHA = 0.3

# Background whose overlap (IoU) with every object is below this is far from all of them.
FAR = 0.1


class MatchedPriors(NamedTuple):
    """Targets of the predictions for a picture.

    Attributes
    ----------
    matched : ndarray, shape (P,), bool
        The prior is matched to an object.
    weights : ndarray, shape (P,), float32
        How much the prior's confidence counts in the loss.
    residuals : ndarray, shape (P, 4), float32
        Box deltas from the prior to its object; zero where no object is matched.
    """

    matched: NDArray[np.bool_]
    weights: NDArray[np.float32]
    residuals: NDArray[np.float32]


def match_objects(cost: NDArray[np.floating]) -> NDArray[np.int64]:
    """Match every object to a different prediction so that the sum of the costs is least.

    Parameters
    ----------
    cost : ndarray, shape (P, N), floating
        Cost of matching prediction p to object n.

    Returns
    -------
    ndarray, shape (P,), int64
        The object of each prediction, or -1. Some objects get none if there are more objects than predictions.

    References
    ----------
    Erhan et al., CVPR 2014, section 3.1, equation 4.

    Examples
    --------
    >>> match_objects(np.array([[0.1, 0.2], [0.3, 0.9], [0.8, 0.7]])).tolist()  # the largest cost is avoided
    [1, 0, -1]
    """
    matched = np.full(len(cost), -1, np.int64)
    rows, columns = linear_sum_assignment(cost)
    matched[rows] = columns
    return matched


def away_from(boxes: NDArray[np.float32], doubtful: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Tell which boxes are away from difficult objects and crowds: the others can be neither object nor background.

    Parameters
    ----------
    boxes : ndarray, shape (N, 4), float32
    doubtful : ndarray, shape (M, 4), float32
        Difficult objects and crowds.

    Returns
    -------
    ndarray, shape (N,), bool
        False if the IoU with one of them is 0.3 or more, or half of the box lies in it.

    Examples
    --------
    >>> crowd = np.array([[0, 0, 100, 100]], np.float32)
    >>> away_from(np.array([[10, 10, 20, 20], [0, 0, 100, 400], [0, 95, 100, 400]], np.float32), crowd).tolist()
    [False, True, True]
    """
    if not len(doubtful):
        return np.ones(len(boxes), bool)
    low = np.maximum(boxes[:, None, :2], doubtful[:, :2])
    high = np.minimum(boxes[:, None, 2:], doubtful[:, 2:])
    inside = np.clip(high - low, 0, None).prod(2) / (boxes[:, 2:] - boxes[:, :2]).prod(1)[:, None]
    return (inside < 0.5).all(1) & (box_iou(boxes, doubtful) < 0.3).all(1)


def set_targets(
    priors: NDArray[np.float32],
    objects: NDArray[np.float32],
    doubtful: NDArray[np.float32],
    *,
    exhaustive: bool = True,
    far_background: float = 1.0,
    predicted: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
) -> MatchedPriors:
    """Match priors to objects, and decide how much each confidence counts in the loss.

    With `predicted`, every object gets one prior, and every other prior is background, as published.

    Without it, every object that a prior touches gets one, all pairs together of the largest sum of overlaps; and
    every prior that overlaps an object by at least half is matched too, as in the Faster R-CNN that followed. With tens
    of thousands of priors, of which neighbours look at nearly the same pixels, one match an object would have the
    network learn to tell them apart and little else.

    Parameters
    ----------
    priors : ndarray, shape (P, 4), float32
        See `priors.place_priors`.
    objects : ndarray, shape (N, 4), float32
        Boxes of the objects, in the same pixels.
    doubtful : ndarray, shape (M, 4), float32
        Difficult objects and crowds: priors that are not `away_from` them count neither way.
    exhaustive : bool
        False where objects may be unlabelled: then no prior counts as background.
    far_background : float
        Weight of background that overlaps every object by less than `FAR`.
    predicted : (ndarray (P, 4), ndarray (P,)), optional
        Residuals and logits, for a matching by the cost of what the network predicts, location and confidence (Erhan
        et al., equation 3), instead of by the priors' overlap.

    Returns
    -------
    MatchedPriors

    References
    ----------
    Erhan et al., CVPR 2014, sections 3.1 (by predictions) and 3.2 (by priors).

    Examples
    --------
    >>> priors = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 5], [0, 0, 10, 4], [50, 50, 60, 60]], np.float32)
    >>> targets = set_targets(priors, priors[:1], np.zeros((0, 4), np.float32))
    >>> targets.matched.tolist(), targets.weights.tolist()
    ([True, True, True, False, False], [1.0, 1.0, 1.0, 0.0, 1.0])
    """
    matched = np.full(len(priors), -1, np.int64)
    weights = np.full(len(priors), far_background if exhaustive else 0, np.float32)
    residuals = np.zeros((len(priors), 4), np.float32)
    if len(objects):
        overlap = box_iou(priors, objects)
        best, nearest = overlap.max(1), overlap.argmax(1)
        if exhaustive:
            weights[best >= FAR] = 1
        matched = match_objects(1 - overlap if predicted is None else _costs(priors, objects, *predicted))
        if predicted is None:
            # Of an object that no prior touches nothing can be learned.
            matched[(matched >= 0) & (overlap[np.arange(len(priors)), matched] == 0)] = -1
            matched = np.where((matched < 0) & (best >= 0.5), nearest, matched)
            weights[best >= 0.4] = 0
    weights[~away_from(priors, doubtful)] = 0
    own = matched >= 0
    weights[own] = 1
    if own.any():
        residuals[own] = encode_boxes(priors[own], objects[matched[own]])
    return MatchedPriors(own, weights, residuals)


def _costs(
    priors: NDArray[np.float32],
    objects: NDArray[np.float32],
    residuals: NDArray[np.float32],
    logits: NDArray[np.float32],
) -> NDArray[np.float64]:
    """Compute the costs (P, N) of matching predictions to objects: alpha / 2 ||l - g||^2 - log c + log(1 - c)."""
    columns = [ALPHA / 2 * ((residuals - encode_boxes(priors, box[None])) ** 2).sum(1) for box in objects]
    return np.stack(columns, axis=1).astype(np.float64) - logits[:, None]  # log(c / (1 - c)) is the logit


def multibox_loss(
    residuals: Tensor, logits: Tensor, targets: Tensor, matched: Tensor, weights: Tensor, *, alpha: float = ALPHA
) -> tuple[Tensor, Tensor]:
    """Compute the location and the confidence loss, each a sum over predictions.

    The location loss is ``alpha / 2 * ||l - g||^2`` of the matched predictions. The confidence loss is ``-log c`` of
    the matched and ``-log(1 - c)`` of the other predictions, each times its weight. Divide both by the number of
    matched predictions.

    Parameters
    ----------
    residuals : Tensor, shape (..., 4)
        l, the predicted box deltas of the priors.
    logits : Tensor, shape (...)
        Logits of the confidences c.
    targets : Tensor, shape (..., 4)
        g, see `MatchedPriors`.
    matched : Tensor, shape (...), bool
    weights : Tensor, shape (...)
        See `MatchedPriors`.
    alpha : float
        Weight of the location.

    Returns
    -------
    location, confidence : Tensor
        Scalars.

    References
    ----------
    Erhan et al., CVPR 2014, section 3.1, equations 1 to 3.

    Examples
    --------
    >>> matched = torch.tensor([True, False])
    >>> location, confidence = multibox_loss(
    ...     torch.ones(2, 4), torch.zeros(2), torch.zeros(2, 4), matched, torch.ones(2)
    ... )
    >>> round(location.item(), 4), round(confidence.item(), 4)  # 0.3 / 2 * 4, 2 log 2
    (0.6, 1.3863)
    """
    location = alpha / 2 * ((residuals - targets)[matched] ** 2).sum()
    each = F.binary_cross_entropy_with_logits(logits, matched.to(logits.dtype), reduction="none")
    counted = weights > 0
    return location, (weights[counted] * each[counted]).sum()


def picture_loss(
    head: GridHead | VectorHead,
    features: Tensor,
    picture: Picture,
    outputs: tuple[Tensor, Tensor] | None = None,
    *,
    far_background: float = 1.0,
) -> tuple[Tensor, Tensor, int]:
    """Location and confidence loss of what a head says of a picture, as sums, and how many predictions are matched.

    The priors of a `GridHead` are matched by their overlap, many to an object; the boxes of a `VectorHead` by what is
    predicted, one to an object. See `set_targets`.

    Parameters
    ----------
    head : GridHead or VectorHead
    features : Tensor, shape (1, 832, h, w)
        The trunk's features of the picture.
    picture : Picture
        Its labels, in the pixels that the trunk saw. Difficult objects and crowds count neither way.
    outputs : (Tensor (1, P, 4), Tensor (1, P)), optional
        The head's outputs for the features, if they are computed already.
    far_background : float
        See `set_targets`.

    Returns
    -------
    location, confidence : Tensor
        Scalars, sums over predictions; NaN if an output of the head is not finite. To be divided by the number of
        matched predictions in all pictures of a step.
    matched : int
        Number of matched predictions.

    Examples
    --------
    >>> from pathlib import Path
    >>> box, no = np.array([[8, 8, 56, 56]], np.float32), np.array([False])
    >>> head = GridHead(np.full((2, 1, 2), 40, np.float32), channels=4)
    >>> picture = Picture("a", Path("a.jpg"), 64, 64, box, np.array([7]), no, no)
    >>> picture_loss(head, torch.zeros(1, 832, 4, 4), picture)[2]
    7
    """
    residuals, logits = (output[0].float() for output in outputs or head(features))
    if not (residuals.isfinite().all() and logits.isfinite().all()):
        return residuals.sum() * torch.nan, logits.sum() * torch.nan, 0
    size = (picture.width, picture.height)
    # Annotated boxes may end outside the picture or have no area; box deltas need sides above 0.
    boxes = np.clip(picture.boxes, 0, np.array([*size, *size], np.float32))
    doubtful = picture.difficult | picture.crowd
    real = ((boxes[:, 2:] - boxes[:, :2]) >= 2).all(1)
    predicted = None
    if isinstance(head, VectorHead):
        predicted = residuals.detach().cpu().numpy(), logits.detach().cpu().numpy()
    targets = set_targets(
        place_priors(head.priors, (features.shape[2], features.shape[3]), size),
        boxes[real & ~doubtful],
        boxes[real & doubtful],
        exhaustive=picture.labelled is None,
        far_background=far_background,
        predicted=predicted,
    )
    matched, weights, wanted = (torch.from_numpy(array).to(logits.device) for array in targets)
    return *multibox_loss(residuals, logits, wanted, matched, weights), int(targets.matched.sum())
