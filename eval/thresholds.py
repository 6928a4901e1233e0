"""The score from which to use detections: precision, recall and F1 over the score, and how stable a choice is."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from ..data.errors import SettingError, did_you_mean
from .bootstrap import LEVEL, Bootstrap
from .matching import HIT, IGNORED, Matches, pool_matches

_CURVE_POINTS = 101
_TAIL = (1 - LEVEL) / 2


class ThresholdCurve(NamedTuple):
    """What detections have if those from a score on are used, from the highest score to the lowest, each score once.

    Attributes
    ----------
    score : ndarray of float64, shape (T,)
        Falling.
    precision, recall, f1 : ndarray of float64, shape (T,)
        Of the detections with this score or a higher one; recall and F1 are nan without objects to be found.
    """

    score: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]


def threshold_curve(matches: Matches, weights: NDArray[np.int32] | None = None) -> ThresholdCurve:
    """Compute precision, recall and F1 over the score.

    Parameters
    ----------
    matches : Matches
        The detections of one class, or of several as `pool_matches` joins them.
    weights : ndarray of int32, shape (P,), optional
        How often each picture counts.

    Returns
    -------
    ThresholdCurve

    Examples
    --------
    >>> none = np.zeros(3, np.int64)
    >>> cat = Matches(none, none, np.array([0.9, 0.8, 0.7]), np.array([1, 0, 1], np.int8), none, np.zeros(3), 2)
    >>> curve = threshold_curve(cat)
    >>> curve.precision.round(2).tolist(), curve.recall.tolist(), curve.f1.round(2).tolist()
    ([1.0, 0.5, 0.67], [0.5, 0.5, 1.0], [0.67, 0.5, 0.8])
    """
    counted = matches.outcome != IGNORED
    score, hit = matches.score[counted], matches.outcome[counted] == HIT
    if weights is None:
        count, found, positives = np.arange(1, len(hit) + 1), np.cumsum(hit), matches.positives
    else:
        weight = weights[matches.picture[counted]]
        count, found = np.cumsum(weight), np.cumsum(weight * hit)
        positives = int(weights @ matches.positives_per_picture)
    # A threshold can lie after the last of equal scores only, and after a detection that counts.
    last = np.append(score[1:] != score[:-1], True)[: len(score)] & (count > 0)
    score, count, found = score[last], count[last], found[last]
    if not positives:
        nothing = np.full(len(score), np.nan)
        return ThresholdCurve(score, found / count, nothing, nothing)
    return ThresholdCurve(score, found / count, found / positives, 2 * found / (count + positives))


_FIGURES = ("precision", "recall", "score")


class Target(NamedTuple):
    """What a threshold is chosen by: "f1", "precision", "recall" or "score", and the value wanted of the last three."""

    figure: str
    value: float = float("nan")


def parse_target(text: str) -> Target:
    """Read what a threshold is chosen by: ``f1``, ``precision=0.9``, ``recall=0.8`` or ``score=0.5``.

    Raises
    ------
    SettingError
        If it is something else, or a precision or recall is not above 0 and at most 1.

    Examples
    --------
    >>> parse_target("precision=0.9")
    Target(figure='precision', value=0.9)
    """
    figure, equals, number = text.partition("=")
    if text == "f1":
        return Target("f1")
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    fits = np.isfinite(value) if figure == "score" else 0 < value <= 1
    if figure not in _FIGURES or not equals or not fits:
        meant = "" if figure in _FIGURES else did_you_mean(figure, ["f1", *_FIGURES])
        raise SettingError(
            f"thresholds are chosen at f1, precision=0.9, recall=0.8, score=0.5 or such, not {text!r}{meant}"
        )
    return Target(figure, value)


def choose_threshold(curve: ThresholdCurve, target: Target) -> float:
    """Choose the score from which to use detections.

    For "f1" the one with the best F1, the highest of such scores. For a precision the lowest from which detections have
    it, and so the best recall. For a recall the highest, and so about the best precision. A score is that score.

    Returns
    -------
    float
        nan if no score reaches the target.

    Examples
    --------
    >>> none = np.zeros(3, np.int64)
    >>> cat = Matches(none, none, np.array([0.9, 0.8, 0.7]), np.array([1, 0, 1], np.int8), none, np.zeros(3), 2)
    >>> curve = threshold_curve(cat)
    >>> [choose_threshold(curve, parse_target(one)) for one in ("f1", "precision=0.6", "recall=0.5", "precision=0.1")]
    [0.7, 0.7, 0.9, 0.7]
    """
    if target.figure == "score":
        return target.value
    if target.figure == "f1":
        best = bool(len(curve.f1)) and curve.f1.max() > 0
        return float(curve.score[curve.f1.argmax()]) if best else float("nan")
    values = getattr(curve, target.figure)
    reached = np.flatnonzero(values >= target.value)
    if not len(reached):
        return float("nan")
    return float(curve.score[reached[-1 if target.figure == "precision" else 0]])


def evaluate_thresholds(
    matches: Mapping[str, Matches], at: str = "f1", bootstrap: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Choose thresholds, for all classes together and for each, and measure what detections have there.

    Parameters
    ----------
    matches : mapping of str to Matches
        By class, as `match_voc` and `match_ilsvrc` return them, or those at one IoU of `match_coco`.
    at : str
        ``"f1"``: the score with the best F1; ``"precision=0.9"``: the lowest score from which detections have this
        precision; ``"recall=0.8"``: the highest with this recall; ``"score=0.5"``: that score.
    bootstrap, seed : int
        As for `evaluate_voc`.

    Returns
    -------
    dict
        ``"at"``; ``"together"``, a dict of ``"score"``, ``"precision"``, ``"recall"``, ``"f1"``, numbers that are nan
        where no score reaches the target; ``"per_class"``, name to such a dict; ``"curve"``, with lists of the same
        four names, at up to 101 scores, for all classes together.

        If there is a `bootstrap`, each dict has ``"intervals"`` with [low, high] of 95 %. Those of precision, recall
        and F1 say what this score would give on other pictures. That of the score says what would have been chosen
        on them. Where all draws have the same precision or recall, as with four detections that are right, the
        bootstrap says nothing, and the interval is that of a binomial share (Clopper and Pearson).

    Raises
    ------
    SettingError
        If `at` or a number is out of range.

    Notes
    -----
    A precision that was reached on the pictures that the score was chosen on is a little too good. Measure it on others
    with ``"score=..."``.

    References
    ----------
    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 and 14. Clopper and Pearson, "The use of
    confidence or fiducial limits", Biometrika 1934.

    Examples
    --------
    >>> none = np.zeros(3, np.int64)
    >>> cat = Matches(none, none, np.array([0.9, 0.8, 0.7]), np.array([1, 0, 1], np.int8), none, np.zeros(3), 2)
    >>> result = evaluate_thresholds({"cat": cat}, at="recall=1")
    >>> {name: round(value, 2) for name, value in result["per_class"]["cat"].items()}
    {'score': 0.7, 'precision': 0.67, 'recall': 1.0, 'f1': 0.8}
    """
    target = parse_target(at)
    together = pool_matches([*matches.values()])
    draws = None if bootstrap is None else Bootstrap(len(together.positives_per_picture), bootstrap, seed)
    curve = threshold_curve(together)
    points = np.unique(np.linspace(0, max(len(curve.score) - 1, 0), _CURVE_POINTS).round().astype(np.int64))
    points = points[: len(curve.score)]
    return {
        "at": at,
        "together": _measure(together, target, draws),
        "per_class": {name: _measure(one, target, draws) for name, one in matches.items()},
        "curve": {name: values[points].tolist() for name, values in curve._asdict().items()},
    }


def _measure(matches: Matches, target: Target, draws: Bootstrap | None) -> dict[str, Any]:
    """Choose a threshold and tell what detections have from it on."""
    curve = threshold_curve(matches)
    score = choose_threshold(curve, target)
    # In the order of the curve, the last that is used.
    used = int(np.searchsorted(-curve.score, -score, side="right")) - 1
    nothing = 0.0 if matches.positives and not np.isnan(score) else float("nan")
    values = [float("nan"), nothing, nothing]
    if used >= 0 and not np.isnan(score):
        values = [float(column[used]) for column in curve[1:]]
    result: dict[str, Any] = dict(zip(("score", "precision", "recall", "f1"), (score, *values), strict=True))
    if draws is None:
        return result
    if np.isnan(score):
        return result | {"intervals": {name: [float("nan")] * 2 for name in result}}
    rows = (matches.outcome != IGNORED) & (matches.score >= score)
    length = draws.weights.shape[1]
    sums = np.stack(
        [
            np.bincount(matches.picture[rows & (matches.outcome == HIT)], minlength=length),
            np.bincount(matches.picture[rows], minlength=length),
            matches.positives_per_picture,
        ],
        axis=1,
    )
    found, count, positives = (draws.weights @ sums).T.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = found / count, found / positives, np.where(positives > 0, 2 * found / (count + positives), np.nan)
    chosen = (
        [score, score]
        if target.figure == "score"
        else draws.percentiles(np.array([choose_threshold(threshold_curve(matches, w), target) for w in draws.weights]))
    )
    precision, recall, f1 = (list(draws.interval(one)) for one in drawn)
    hits, claimed, objects = sums.sum(0).tolist()
    if precision[0] == precision[1]:
        precision = _binomial_interval(hits, claimed)
    if recall[0] == recall[1]:
        recall = _binomial_interval(hits, objects)
    if f1[0] == f1[1]:
        f1 = [2 * p * r / (p + r) if p + r else 0.0 for p, r in zip(precision, recall, strict=True)]
    return result | {"intervals": {"score": list(chosen), "precision": precision, "recall": recall, "f1": f1}}


def _binomial_interval(successes: int, trials: int) -> list[float]:
    """Compute the interval of a share from counts alone."""
    low = float(betaincinv(successes, trials - successes + 1, _TAIL)) if successes else 0.0
    high = float(betaincinv(successes + 1, trials - successes, 1 - _TAIL)) if successes < trials else 1.0
    return [low, high]
