"""How often scores are right: reliability diagrams, the threshold of the best F1, and the fit of a calibration.

A score is calibrated if of the detections with a score of 0.8 eight in ten are right. Everything here follows from the
outcomes that `match_voc` and `match_ilsvrc` return: a hit is right, a false detection is not, and one that is ignored
does not count.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from ..data.arguments import check_number
from ..data.errors import EvaluationError
from ..data.score_calibration import MAX_SCALE, MAX_SHIFT, MIN_SCALE, ROUNDING, ScoreCalibration
from .bootstrap import Bootstrap
from .matching import HIT, IGNORED, Matches, pool_matches
from .thresholds import Target, choose_threshold, threshold_curve

BINS = 10
# Most detections of a run have lower scores, and few of these are right: they would hide the error of the others.
MIN_SCORE = 0.05


class ReliabilityDiagram(NamedTuple):
    """Detections by score, in B bins of equal width.

    Attributes
    ----------
    edges : ndarray of float64, shape (B + 1,)
        0, 1 / B, ..., 1. Bin ``i`` has the scores above ``edges[i]``, up to and including ``edges[i + 1]``; the first
        also has the scores of 0.
    counts : ndarray of int64, shape (B,)
        Detections in each bin.
    mean_scores : ndarray of float64, shape (B,)
        Mean of their scores, nan in an empty bin.
    shares_right : ndarray of float64, shape (B,)
        Share of hits among them, 0 to 1, nan in an empty bin.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    mean_scores: NDArray[np.float64]
    shares_right: NDArray[np.float64]

    @property
    def expected_calibration_error(self) -> float:
        """Mean over the detections of what separates their bin's mean score from its share right; nan without any."""
        there = self.counts > 0
        gaps = np.abs(self.mean_scores - self.shares_right)[there]
        return float(np.average(gaps, weights=self.counts[there])) if there.any() else float("nan")


class BestF1(NamedTuple):
    """The best F1, and the score from which detections have it; both nan where there is no hit."""

    f1: float
    score: float


def has_probabilities(matches: Mapping[str, Matches]) -> bool:
    """Tell whether all scores are from 0 to 1."""
    return all(bool(((one.score >= 0) & (one.score <= 1 + ROUNDING)).all()) for one in matches.values())


def reliability(
    matches: Mapping[str, Matches], bins: int = BINS, min_score: float = MIN_SCORE
) -> tuple[ReliabilityDiagram, dict[str, ReliabilityDiagram]]:
    """Compute the reliability diagram of detections, of all classes together and of each.

    Those detections count whose score is at least `min_score`, but for those that are `IGNORED`. Right are the hits. A
    second detection of an object is false, and so is every detection of a class that has no objects.

    Parameters
    ----------
    matches : mapping of str to Matches
        By class, as `match_voc` and `match_ilsvrc` return them; scores from 0 to 1.
    bins : int
        Number of bins between 0 and 1, of equal width.
    min_score : float
        0 to 1. The error is a mean over the detections: the more of low scores there are, the more these decide.

    Returns
    -------
    together : ReliabilityDiagram
    per_class : dict of str to ReliabilityDiagram

    Raises
    ------
    EvaluationError
        If a score is not from 0 to 1.
    SettingError
        If `bins` or `min_score` is out of range.

    References
    ----------
    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 2.

    Examples
    --------
    >>> none = np.zeros(4, np.int64)
    >>> outcome = np.array([HIT, HIT, 0, IGNORED], np.int8)
    >>> cat = Matches(none, none, np.array([0.9, 0.8, 0.7, 0.6]), outcome, none, np.zeros(4), 2)
    >>> together, per_class = reliability({"cat": cat}, bins=2)
    >>> together.counts.tolist(), together.mean_scores.round(2).tolist(), together.shares_right.round(2).tolist()
    ([0, 3], [nan, 0.8], [nan, 0.67])
    >>> round(together.expected_calibration_error, 3)
    0.133
    """
    bins, min_score = check_number("bins", bins, 1, 10_000, whole=True), check_number("min_score", min_score, 0, 1)
    _check_probabilities(matches)
    pairs = {name: _counted(one, min_score) for name, one in matches.items()}
    return _diagram(_join(list(pairs.values())), bins), {name: _diagram(pair, bins) for name, pair in pairs.items()}


def summarise_reliability(matches: Mapping[str, Matches], bootstrap: Bootstrap | None = None) -> dict[str, Any] | None:
    """Compute what results of an evaluation say of the scores' reliability, by the defaults of `reliability`.

    Returns
    -------
    dict, or None if the scores are not from 0 to 1
        ``"expected_calibration_error"``: float, 0 to 1, nan if no detection counts. ``"min_score"``: float.
        ``"bins"``: a dict for each bin, with ``"above"``, ``"up_to"``, ``"count"``, ``"mean_score"`` and
        ``"share_right"``. ``"per_class"``: the error of each class. If there is a `bootstrap`: ``"interval"`` of 95 %
        of the error, and of the share right in each bin.
    """
    if not has_probabilities(matches):
        return None
    together, per_class = reliability(matches)
    columns = together.edges[:-1], together.edges[1:], together.counts, together.mean_scores, together.shares_right
    names = "above", "up_to", "count", "mean_score", "share_right"
    result: dict[str, Any] = {
        "expected_calibration_error": together.expected_calibration_error,
        "min_score": MIN_SCORE,
        "bins": [
            dict(zip(names, row, strict=True))
            for row in zip(*(column.tolist() for column in columns), strict=True)
        ],
        "per_class": {name: one.expected_calibration_error for name, one in per_class.items()},
    }  # fmt: skip
    if bootstrap is not None:
        error, shares = _draw_diagrams(pool_matches([*matches.values()]), bootstrap)
        result["interval"] = list(bootstrap.interval(error))
        for one, share in zip(result["bins"], shares, strict=True):
            one["interval"] = list(bootstrap.interval(share))
    return result


def _draw_diagrams(matches: Matches, bootstrap: Bootstrap) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Compute the calibration error, and the share right in each bin, for each row of the weights."""
    counted = (matches.outcome != IGNORED) & (matches.score >= MIN_SCORE)
    score, hit, picture = matches.score[counted], matches.outcome[counted] == HIT, matches.picture[counted]
    bins = _bins(score, BINS)
    length = bootstrap.weights.shape[1]
    count, total, found = (
        bootstrap.weights
        @ np.bincount(picture * BINS + bins, values, length * BINS).reshape(length, BINS)
        for values in (np.ones(len(bins)), score, hit)
    )  # fmt: skip
    with np.errstate(invalid="ignore"):
        return np.abs(total - found).sum(axis=1) / count.sum(axis=1), list((found / count).T)


def best_f1(matches: Matches) -> BestF1:
    """Return the best F1 of a class's detections and the score from which they have it.

    F1 is the harmonic mean of precision and recall.

    Examples
    --------
    >>> none = np.zeros(3, np.int64)
    >>> outcome = np.array([HIT, HIT, 0], np.int8)
    >>> best_f1(Matches(none, none, np.array([0.9, 0.8, 0.7]), outcome, none, np.zeros(3), 3))
    BestF1(f1=0.8, score=0.8)
    """
    curve = threshold_curve(matches)
    score = choose_threshold(curve, Target("f1"))
    return BestF1(float("nan") if np.isnan(score) else float(curve.f1.max()), score)


def best_threshold(matches: Mapping[str, Matches]) -> tuple[BestF1, dict[str, BestF1]]:
    """Return the best F1 of all classes' detections together, at one threshold, and of each class at its own.

    Parameters
    ----------
    matches : mapping of str to Matches
        By class, as `match_voc` and `match_ilsvrc` return them.

    Returns
    -------
    together : BestF1
        Detections of classes without objects are false.
    per_class : dict of str to BestF1

    Examples
    --------
    >>> none = np.zeros(2, np.int64)
    >>> cat = Matches(none, none, np.array([0.9, 0.5]), np.array([HIT, 0], np.int8), none, np.zeros(2), 1)
    >>> together, per_class = best_threshold({"cat": cat, "dog": cat._replace(score=np.array([0.4, 0.3]))})
    >>> together.score, per_class["cat"].score, per_class["dog"].score
    (0.4, 0.9, 0.4)
    """
    return best_f1(pool_matches([*matches.values()])), {name: best_f1(one) for name, one in matches.items()}


def fit_score_calibration(
    matches: Mapping[str, Matches], *, min_score: float = 0.0, shrinkage: float = 10.0
) -> ScoreCalibration:
    """Fit the calibration of a detector's scores by maximum likelihood.

    First one scale and one shift are fitted to the detections of all classes, then those of each class to its own. What
    keeps the numbers of a class near the shared ones is a penalty, half of `shrinkage` times the square of each
    difference: a class with few detections gets the shared ones, one with thousands its own. The shared ones are kept
    near 1 and 0, which change nothing, in the same way.

    Parameters
    ----------
    matches : mapping of str to Matches
        By class, in the order of the labels; of exhaustively labelled pictures that the detector did not learn from.
    min_score : float
        Detections count as for `reliability`; by default all that are not `IGNORED`.
    shrinkage : float
        Weight of the penalty, 0 or more.

    Returns
    -------
    ScoreCalibration

    Raises
    ------
    EvaluationError
        If no detection is a hit, or a score is not from 0 to 1.
    SettingError
        If `min_score` or `shrinkage` is out of range.

    References
    ----------
    Platt, "Probabilistic outputs for support vector machines and comparisons to regularized likelihood methods", 1999.

    Examples
    --------
    >>> score, none = np.linspace(0.99, 0.01, 99), np.zeros(99, np.int64)
    >>> outcome = (np.arange(99) % 3 == 1).astype(np.int8)  # One in three, whatever the score.
    >>> cat = Matches(none, none, score, outcome, none, np.zeros(99), 40)
    >>> fit_score_calibration({"cat": cat}, shrinkage=0.01)([0.1, 0.9], [0, 0]).round(1).tolist()
    [0.30000001192092896, 0.30000001192092896]
    """
    # The shrinkage: on 248 pictures of VOC 2007 that the bundled detector did not learn from, in five folds, 10 and 30
    # had the best likelihood, and 3 and 10 the smallest calibration error, a quarter of the uncalibrated one.
    check_number("min_score", min_score, 0, 1)
    check_number("shrinkage", shrinkage, 0)
    _check_probabilities(matches)
    pairs = [_counted(one, min_score) for one in matches.values()]
    if not any(hit.any() for _, hit in pairs):
        raise EvaluationError("no detection is right; give more pictures")
    shared = _fit_logistic(*_join(pairs), (1.0, 0.0), shrinkage)
    scales, shifts = zip(*(_fit_logistic(*pair, shared, shrinkage) for pair in pairs), strict=True)
    fitted = ScoreCalibration(scales, shifts, 0.0)
    # In float32, as detectors have scores: so a detection at the threshold is one of those that it was chosen by.
    calibrated = [
        one._replace(score=fitted(one.score.astype(np.float32), np.full(len(one.score), label)).astype(np.float64))
        for label, one in enumerate(matches.values())
    ]
    return ScoreCalibration(scales, shifts, best_f1(pool_matches(calibrated)).score)


def _fit_logistic(
    score: NDArray[np.float64], hit: NDArray[np.bool_], towards: tuple[float, float], strength: float
) -> tuple[float, float]:
    """Fit ``expit(a * logit(score) + b)`` to hits by maximum likelihood, penalised by the distance `towards` a, b."""
    from scipy.optimize import minimize  # Its import takes 0.2 s, which only a fit needs.

    x = logit(score.clip(1e-6, 1 - 1e-6))

    def cost(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z, away = values[0] * x + values[1], values - towards
        error = expit(z) - hit
        loss = np.logaddexp(0, z).sum() - z[hit].sum() + 0.5 * strength * (away @ away)
        return loss, np.array([error @ x, error.sum()]) + strength * away

    bounds = [(MIN_SCALE, MAX_SCALE), (-MAX_SHIFT, MAX_SHIFT)]
    # It is convex: there is one minimum.
    options = {"ftol": 1e-13, "gtol": 1e-7, "maxiter": 1000}
    a, b = minimize(cost, np.array(towards), jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    return float(a), float(b)


def _check_probabilities(matches: Mapping[str, Matches]) -> None:
    if not has_probabilities(matches):
        raise EvaluationError("scores are not from 0 to 1, so how often they are right cannot be compared with them")


def _counted(matches: Matches, min_score: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores of the detections that count, and whether each is a hit."""
    counted = (matches.outcome != IGNORED) & (matches.score >= min_score)
    return matches.score[counted], matches.outcome[counted] == HIT


def _join(
    pairs: list[tuple[NDArray[np.float64], NDArray[np.bool_]]],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    scores, hits = [np.zeros(0), *(pair[0] for pair in pairs)], [np.zeros(0, bool), *(pair[1] for pair in pairs)]
    return np.concatenate(scores), np.concatenate(hits)


def _bins(score: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Bin of each score; see `ReliabilityDiagram`."""
    return (np.searchsorted(np.arange(bins + 1) / bins, score, side="left") - 1).clip(0, bins - 1)


def _diagram(pair: tuple[NDArray[np.float64], NDArray[np.bool_]], bins: int) -> ReliabilityDiagram:
    score, hit = pair
    edges = np.arange(bins + 1) / bins
    position = _bins(score, bins)
    count = np.bincount(position, minlength=bins)
    with np.errstate(invalid="ignore"):
        sums = (np.bincount(position, weights=values, minlength=bins) / count for values in (score, hit))
        return ReliabilityDiagram(edges, count, *sums)
