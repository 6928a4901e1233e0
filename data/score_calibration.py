"""The calibration of scores: two numbers a class, which make a score the probability that a detection is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from .arguments import check_number, check_numbers
from .boxes import as_scores
from .detections import as_labels
from .errors import SettingError

# Steeper or flatter functions are thresholds or constants: a broken file, or a fit to nothing.
MIN_SCALE, MAX_SCALE = 1e-3, 1e3
MAX_SHIFT = 1e3
# Means of float32 probabilities may exceed 1 by rounding.
ROUNDING = 1e-6


@dataclass(frozen=True)
class ScoreCalibration:
    """Platt's scaling of each class's scores: ``expit(scale * logit(score) + shift)``.

    Parameters
    ----------
    scales : sequence of float
        Of each class, 0.001 to 1000: above 0, so the order of a class's detections stays.
    shifts : sequence of float
        Of each class, -1000 to 1000.
    threshold : float
        The calibrated score, 0 to 1, from which detections of all classes together have the best F1.

    Raises
    ------
    SettingError
        If a number is out of range, or there are not as many scales as shifts.

    References
    ----------
    Platt, "Probabilistic outputs for support vector machines and comparisons to regularized likelihood methods", 1999.

    Examples
    --------
    >>> calibration = ScoreCalibration(scales=(1, 2), shifts=(0, -1), threshold=0.4)
    >>> calibration(np.float32([0.8, 0.8, 0, 1]), [0, 1, 1, 1]).round(3).tolist()
    [0.800000011920929, 0.8550000190734863, 0.0, 1.0]
    """

    scales: tuple[float, ...]
    shifts: tuple[float, ...]
    threshold: float

    def __post_init__(self) -> None:
        vars(self).update(
            scales=check_numbers("scales", self.scales, MIN_SCALE, MAX_SCALE),
            shifts=check_numbers("shifts", self.shifts, -MAX_SHIFT, MAX_SHIFT),
            threshold=check_number("threshold", self.threshold, 0, 1),
        )
        if len(self.scales) != len(self.shifts):
            raise SettingError(
                f"{len(self.scales)} scales and {len(self.shifts)} shifts do not fit: there is one of each for a class"
            )

    def __call__(self, scores: ArrayLike, labels: ArrayLike) -> NDArray[np.floating[Any]]:
        """Calibrate scores.

        Parameters
        ----------
        scores : array_like of float32 or array of float64, shape (N,)
            0 to 1.
        labels : array_like of int, shape (N,)
            The class of each, from 0.

        Returns
        -------
        ndarray of float32, or of float64 if they were given so, shape (N,)
            0 to 1. Of two scores of a class the higher is not lower than the other; 0 stays 0, and 1 stays 1.

        Raises
        ------
        SettingError
            If the shapes differ, a score is not from 0 to 1, or a label is of no class.
        """
        score_array, label_array = as_scores(scores), as_labels(labels)
        if score_array.ndim != 1 or score_array.shape != label_array.shape:
            raise SettingError(f"scores {score_array.shape} and labels {label_array.shape} must have one shape (N,)")
        if not ((score_array >= 0) & (score_array <= 1 + ROUNDING)).all():
            raise SettingError("scores to calibrate must be numbers, 0 to 1")
        if not ((label_array >= 0) & (label_array < len(self.scales))).all():
            raise SettingError(f"a label is of none of the {len(self.scales)} classes that the calibration is for")
        log_odds = logit(np.minimum(score_array.astype(np.float64), 1))
        scaled = np.array(self.scales, np.float64)[label_array] * log_odds
        return expit(scaled + np.array(self.shifts, np.float64)[label_array]).astype(score_array.dtype)

    def lowest_score(self, calibrated: float) -> float:
        """Return a score that no detection is below whose calibrated float32 score is at least `calibrated`.

        Examples
        --------
        >>> round(ScoreCalibration((1, 2), (0, 1), 0.4).lowest_score(0.05), 3)
        0.05
        """
        # The next lower number, and a millionth less: for what is rounded up.
        log_odds = logit(np.float64(np.nextafter(np.float32(calibrated), np.float32(0))))
        scores = expit((log_odds - np.array(self.shifts, np.float64)) / np.array(self.scales, np.float64))
        return float(scores.min()) * (1 - 1e-6)


def mean_calibration(calibrations: list[ScoreCalibration]) -> ScoreCalibration:
    """Average the numbers of calibrations for the same classes.

    Examples
    --------
    >>> mean_calibration([ScoreCalibration((1,), (0,), 0.3), ScoreCalibration((2,), (-1,), 0.5)])
    ScoreCalibration(scales=(1.5,), shifts=(-0.5,), threshold=0.4)
    """
    scales, shifts = (
        tuple(np.mean([getattr(one, name) for one in calibrations], axis=0).tolist()) for name in ("scales", "shifts")
    )
    return ScoreCalibration(scales, shifts, float(np.mean([one.threshold for one in calibrations])))
