"""Error bars: how far a figure would be another one on other pictures of the same kind.

The pictures are drawn with replacement, as many as there are, many times over; the figure is computed for each draw. No
picture is matched again: a draw is a vector of weights, see `weighted_average_precision`. From the spread of the draws
follow bias-corrected and accelerated intervals, BCa, and for the difference of two detectors percentiles and a p-value.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from ..data.arguments import check_number

LEVEL = 0.95
"""The probability with which an interval is meant to contain the figure of all pictures of the kind."""

# Groups of pictures that are left out in turn, for the acceleration. 200 give it to 0.003.
_GROUPS = 200


class Bootstrap:
    """Draws of pictures, the same for all that is computed from them.

    Parameters
    ----------
    pictures : int
        How many there are to draw from.
    draws : int
        How often as many are drawn, 100 or more; 1,000 give the ends of an interval to about a tenth of its width.
    seed : int
        0 or more. The same seed draws the same pictures.

    Attributes
    ----------
    weights : ndarray of int32, shape (1 + G + draws, P)
        How often each picture counts: all of them once; all but one of G groups; each draw. What is computed for these
        rows, `interval` and `difference` take.

    Raises
    ------
    SettingError
        If a number is out of range.

    References
    ----------
    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993: sections 13.3
    (percentiles) and 14.3 (BCa).

    Examples
    --------
    >>> bootstrap = Bootstrap(pictures=400, draws=1000)
    >>> right = np.arange(400) % 4 > 0  # Three in four.
    >>> low, high = bootstrap.interval(bootstrap.means(np.arange(400), right))
    >>> round(float(low), 2), round(float(high), 2)
    (0.7, 0.79)
    """

    def __init__(self, pictures: int, draws: int, seed: int = 0) -> None:
        pictures = check_number("pictures", pictures, 1, whole=True)
        self.draws: int = check_number("bootstrap", draws, 100, whole=True)
        self.seed: int = check_number("seed", seed, 0, whole=True)
        groups = min(pictures, _GROUPS)
        self.weights = np.ones((1 + groups + self.draws, pictures), np.int32)
        for group in range(groups):
            self.weights[1 + group, group::groups] = 0
        rng = np.random.default_rng(self.seed)
        for row in self.weights[-self.draws :]:
            row[:] = np.bincount(rng.integers(0, pictures, pictures), minlength=pictures)

    def means(self, picture: NDArray[np.int64], values: NDArray[Any]) -> NDArray[np.float64]:
        """Return the mean of what pictures have, such as objects, for each row of the weights.

        Parameters
        ----------
        picture : ndarray of int64, shape (N,)
            The position of the picture that has each of them.
        values : ndarray, shape (N,)
            Numbers or truth values.

        Returns
        -------
        ndarray of float64, shape (1 + G + draws,)
            nan for a row that has none of them.
        """
        length = self.weights.shape[1]
        sums = np.bincount(picture, values, length), np.bincount(picture, minlength=length)
        total, count = (self.weights @ np.stack(sums, axis=1)).T
        with np.errstate(invalid="ignore"):
            return np.asarray(total / count)

    def interval(self, values: NDArray[np.float64], level: float = LEVEL) -> tuple[float, float]:
        """Return the BCa interval of a figure.

        Parameters
        ----------
        values : ndarray of float64, shape (1 + G + draws,)
            The figure for each row of `weights`. Draws for which it is nan do not count.
        level : float
            Above 0 and below 1.

        Returns
        -------
        low, high : float
            nan where the figure is nan, or is so when one of the groups is left out: what follows from one picture
            alone has no interval.
        """
        bias, acceleration, draws = self._spread(values)
        if not len(draws):
            return float("nan"), float("nan")
        z = bias + ndtri(np.array([1 - level, 1 + level]) / 2)
        low, high = np.quantile(draws, ndtr(bias + z / (1 - acceleration * z)))
        return float(low), float(high)

    def difference(self, values: NDArray[np.float64], level: float = LEVEL) -> tuple[float, float, float]:
        """Return the percentile interval of a difference of two figures, and its two-sided p-value.

        What makes average precision on few pictures too high cancels in a difference. Percentiles are then nearer to
        their level than BCa intervals (`benchmarks/error_bars.py`), and agree with the p-value: it is 1 minus the level
        of the interval that ends at 0.

        Parameters
        ----------
        values : ndarray of float64, shape (1 + G + draws,)
            The difference for each row of `weights`.
        level : float
            Above 0 and below 1.

        Returns
        -------
        low, high, p_value : float
            nan as for `interval`. The p-value is from 1 / draws to 1.
        """
        low, high = self.percentiles(values, level)
        share = _share_below(self._spread(values)[2], 0.0)
        return low, high, low if np.isnan(low) else 2 * min(share, 1 - share)

    def percentiles(self, values: NDArray[np.float64], level: float = LEVEL) -> tuple[float, float]:
        """Return the percentile interval of a figure: the middle of its draws, without a correction; see `interval`."""
        draws = self._spread(values)[2]
        if not len(draws):
            return float("nan"), float("nan")
        low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def _spread(self, values: NDArray[np.float64]) -> tuple[float, float, NDArray[np.float64]]:
        """Bias correction, acceleration, and the values of the draws, none of them where nothing can be said."""
        left_out, draws = values[1 : -self.draws], values[-self.draws :]
        draws = draws[~np.isnan(draws)]
        if np.isnan(values[0]) or np.isnan(left_out).any() or not len(draws):
            return 0.0, 0.0, draws[:0]
        influence = left_out.mean() - left_out
        square = float((influence**2).sum())
        acceleration = float((influence**3).sum()) / (6 * square**1.5) if square > 0 else 0.0
        return float(ndtri(_share_below(draws, values[0]))), acceleration, draws


def _share_below(draws: NDArray[np.float64], value: float) -> float:
    """Share of the draws below a value, of equal ones half; neither 0 nor 1."""
    return float(((draws < value).sum() + 0.5 * (draws == value).sum() + 0.5) / (len(draws) + 1))


def summarise_draws(values: Mapping[str, NDArray[np.float64]], bootstrap: Bootstrap) -> dict[str, Any]:
    """Compute the intervals of the mean average precision and of each class.

    A draw that has no object of a class has no average precision of it: the mean of that draw is the one of the other
    classes, and the class's interval is the one of the other draws.

    Parameters
    ----------
    values : mapping of str to ndarray of float64, shape (1 + G + draws,)
        By class, the average precision for each row of the weights.
    bootstrap : Bootstrap

    Returns
    -------
    dict
        ``"mAP"``: [low, high]; ``"per_class"``: name to [low, high]; ``"level"``, ``"draws"``, ``"seed"``.
    """
    return {
        "mAP": list(bootstrap.interval(mean_over_classes(values))),
        "per_class": {name: list(bootstrap.interval(one)) for name, one in values.items()},
        "level": LEVEL,
        "draws": bootstrap.draws,
        "seed": bootstrap.seed,
    }


def mean_over_classes(values: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Mean of the classes' values (R,) that are not nan, for each row of the weights; nan where there is none."""
    table = np.array([*values.values()])
    there = ~np.isnan(table)
    with np.errstate(invalid="ignore"):
        return np.where(there, table, 0).sum(axis=0) / there.sum(axis=0)
