"""Calibration of a merged ranking: the gain that is expected of a box by its rank or confidence, and its fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from ..data import box_iou
from ..data.errors import UserError
from .proposer import Ranked

# IoU thresholds that average recall is over, as COCO's. A box that covers an object more closely gains more of them.
THRESHOLDS = tuple(0.5 + 0.05 * step for step in range(10))


class RankingCalibration(NamedTuple):
    """The gain in average recall that is expected of a box in a merged ranking, as two logistic functions.

    Attributes
    ----------
    confidence : (float, float)
        Of MultiBox's boxes: ``expit(a + b * logit(confidence))``.
    rank : (float, float)
        Of selective search's boxes: ``expit(a + b * log(rank))``, ranks from 1.
    """

    confidence: tuple[float, float] = (0.0, 1.0)
    rank: tuple[float, float] = (-1.0, -1.0)

    @classmethod
    def checked(cls, numbers: Any) -> RankingCalibration:
        """Make a calibration of the numbers in a file.

        Raises
        ------
        ValueError
            If they are not two pairs of finite numbers, or a lower confidence or a later rank would have more gain.
        """
        if np.shape(numbers) != (2, 2) or not np.isfinite(np.array(numbers, np.float64)).all():
            raise ValueError(f"the calibration is {numbers!r}, not two pairs of numbers")
        (a, b), (c, d) = numbers
        if b <= 0 or d >= 0:
            raise ValueError(f"the calibration is {numbers!r}, which would reverse a ranking")
        return cls((float(a), float(b)), (float(c), float(d)))


def expected_gain(
    search_boxes: Ranked, multibox_boxes: Ranked, calibration: RankingCalibration
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the expected gains of selective search's boxes (N,) and of MultiBox's (M,), in their order."""
    ranks = np.log(np.arange(1, len(search_boxes[0]) + 1))
    (a, b), (c, d) = calibration
    return expit(c + d * ranks), expit(a + b * _log_odds(multibox_boxes[1]))


def _log_odds(confidences: ArrayLike) -> NDArray[np.float64]:
    """Compute the logarithms of the odds; finite also for confidences of 0 and 1."""
    return np.asarray(logit(np.clip(np.asarray(confidences, np.float64), 1e-6, 1 - 1e-6)))


def fit_calibration(
    objects: Sequence[NDArray[np.float32]],
    search_boxes: Sequence[Ranked],
    multibox_boxes: Sequence[Ranked],
    *,
    rounds: int = 10,
) -> RankingCalibration:
    """Fit the calibration on pictures that MultiBox was not trained on.

    The gain of a box depends on the boxes ranked before it, and so on the calibration itself. Therefore each round has
    two steps. First the boxes are ranked by the calibration so far. The gain of a box is the share of the thresholds
    0.5, 0.55, ..., 0.95 at which it is the first to cover an object. Then both functions are fitted to these gains by
    maximum likelihood.

    Parameters
    ----------
    objects : sequence of ndarray, shape (G, 4), float32
        Boxes of the objects in each picture.
    search_boxes, multibox_boxes : sequence of (ndarray (N, 4), ndarray (N,))
        Boxes and scores of selective search and of MultiBox in each picture, best first.
    rounds : int
        Number of rounds.

    Returns
    -------
    RankingCalibration

    Raises
    ------
    UserError
        If there are no pictures, or no box covers an object.

    Examples
    --------
    >>> boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], np.float32)
    >>> search_boxes, multibox_boxes = (boxes[:2], np.array([0.5, 0.4])), (boxes, np.array([0.3, 0.2, 0.1]))
    >>> calibration = fit_calibration([boxes[[0, 2]], boxes[:2]], [search_boxes] * 2, [multibox_boxes] * 2)
    >>> calibration.confidence[1] > 0 > calibration.rank[1]
    True
    """
    if not objects:
        raise UserError("there are no pictures to fit the calibration on; give some")
    covers = [
        box_iou(np.concatenate([a[0], b[0]]), truth) >= np.array(THRESHOLDS, np.float32)[:, None, None]
        for truth, a, b in zip(objects, search_boxes, multibox_boxes, strict=True)
    ]
    ranks = np.concatenate([np.log(np.arange(1, len(boxes) + 1)) for boxes, _ in search_boxes])
    odds = np.concatenate([_log_odds(scores) for _, scores in multibox_boxes])
    calibration = RankingCalibration()
    for _ in range(rounds):
        gains: tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]] = ([], [])
        for hits, a, b in zip(covers, search_boxes, multibox_boxes, strict=True):
            order = np.argsort(-np.concatenate(expected_gain(a, b, calibration)), kind="stable")
            ranked = hits[:, order]
            gain = np.zeros(len(order))
            if len(order):
                np.add.at(gain, order[ranked.argmax(1)[ranked.any(1)]], 1 / len(THRESHOLDS))
            gains[0].append(gain[: len(a[0])])
            gains[1].append(gain[len(a[0]) :])
        of_ranks, of_odds = (np.minimum(np.concatenate(parts), 1) for parts in gains)
        if not of_ranks.any() and not of_odds.any():
            raise UserError("no box covers an object; give more pictures")
        calibration = RankingCalibration(_fit_logistic(odds, of_odds, 1), _fit_logistic(ranks, of_ranks, -1))
    return calibration


def _fit_logistic(x: NDArray[np.float64], shares: NDArray[np.float64], sign: int) -> tuple[float, float]:
    """Fit ``expit(a + b x)`` to shares by maximum likelihood: a, and b of the given sign.

    A weak prior draws b to plus or minus 1. Without it b would be infinite where a threshold separates hits and misses.
    """

    def cost(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        slope = math.exp(values[1])
        z = values[0] + sign * slope * x
        error = expit(z) - shares
        loss = np.logaddexp(0, z).sum() - (z * shares).sum() + 0.5 * values[1] ** 2
        return loss, np.array([error.sum(), (error * x).sum() * sign * slope + values[1]])

    if not shares.any():  # The other method's boxes cover all objects that are covered.
        return float(_log_odds(0)), float(sign)
    from scipy.optimize import minimize  # Its import takes 0.2 s, which only a fit needs.

    start = np.array([_log_odds(shares.mean()), 0.0])
    a, b = minimize(cost, start, jac=True, method="L-BFGS-B").x
    return float(a), float(sign * math.exp(b))
