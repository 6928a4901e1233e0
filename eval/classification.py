"""Errors of classifications: how often a picture's class is not among the first guesses."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..data.arguments import check_names, check_number
from ..data.errors import EvaluationError
from .bootstrap import Bootstrap


def evaluate_classification(
    probabilities: ArrayLike,
    labels: ArrayLike,
    classes: Sequence[str],
    guesses: Sequence[int] = (1, 5),
    bootstrap: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure top-k errors, the share of pictures whose class is not among the k most probable.

    Parameters
    ----------
    probabilities : array_like, shape (N, C)
        Of each picture and class; other scores will do if a higher one means a likelier class. Of equal ones the
        first class counts as likelier.
    labels : array_like of int, shape (N,)
        Each picture's class.
    classes : sequence of str
        The C names.
    guesses : sequence of int
        The k, 1 or more.
    bootstrap, seed : int
        As for `evaluate_voc`.

    Returns
    -------
    dict
        ``"top_<k>_error"`` for each k, 0 to 1; ``"per_class"``, ``{name: {"pictures": n, "top_<k>_error": share}}`` of
        the classes that have pictures. ``"intervals"``, if there is a `bootstrap`: ``"top_<k>_error"`` to [low, high]
        of 95 %.

    Raises
    ------
    EvaluationError
        If the shapes do not fit together, there is no picture, a label is none of the classes or a probability is no
        number.
    SettingError
        If `classes` is not a list of names, or a k or another number is out of range.

    References
    ----------
    Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015, section 4.1.

    Examples
    --------
    >>> found = evaluate_classification([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]], [0, 2], ["ant", "bee", "cat"], (1, 2))
    >>> found["top_1_error"], found["top_2_error"], found["per_class"]["cat"]["top_1_error"]
    (0.5, 0.0, 1.0)
    """
    classes = check_names("classes", classes)
    for k in guesses:
        check_number("a number of guesses", k, 1, whole=True)
    table, wanted = np.asarray(probabilities), np.asarray(labels)
    if table.ndim != 2 or table.shape[1] != len(classes) or wanted.shape != table.shape[:1] or not len(table):
        raise EvaluationError(
            f"probabilities of shape {table.shape} and labels of shape {wanted.shape} are not of pictures and "
            f"{len(classes)} classes"
        )
    if not (np.issubdtype(wanted.dtype, np.integer) and ((wanted >= 0) & (wanted < len(classes))).all()):
        raise EvaluationError(f"labels must be whole numbers from 0 to {len(classes) - 1}")
    if np.isnan(table).any():
        raise EvaluationError("a probability is not a number")
    own = table[np.arange(len(table)), wanted][:, None]
    earlier = np.arange(len(classes)) < wanted[:, None]
    place = (table > own).sum(1) + ((table == own) & earlier).sum(1)
    result: dict[str, Any] = {f"top_{k}_error": float((place >= k).mean()) for k in guesses}
    per_class = {}
    for label in np.unique(wanted):
        of_class = place[wanted == label]
        errors = {f"top_{k}_error": float((of_class >= k).mean()) for k in guesses}
        per_class[classes[label]] = {"pictures": len(of_class), **errors}
    result["per_class"] = per_class
    if bootstrap is not None:
        draws, picture = Bootstrap(len(place), bootstrap, seed), np.arange(len(place))
        result["intervals"] = {
            f"top_{k}_error": list(draws.interval(draws.means(picture, place >= k))) for k in guesses
        }  # fmt: skip
    return result
