"""Checks of arguments that public functions share: one number, one list of names."""

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

from .errors import SettingError


def check_number(name: str, value: Any, low: float = -math.inf, high: float = math.inf, *, whole: bool = False) -> None:
    """Refuse a value that is not a number from `low` to `high`; nan is in no range.

    Parameters
    ----------
    name : str
        What the number is called, for the text.
    value : object
    low, high : float
        The range, both ends included.
    whole : bool
        Whether it must be an integer; ``True`` and ``False`` are none.

    Raises
    ------
    SettingError
        If it is something else.

    Examples
    --------
    >>> check_number("limit", -1, low=0, whole=True)
    Traceback (most recent call last):
    inception_rcnn.data.errors.SettingError: limit must be a whole number, 0 or more, not -1
    """
    if isinstance(value, Integral if whole else Real) and not isinstance(value, bool) and low <= value <= high:
        return
    kind = "a whole number" if whole else "a number"
    if math.isfinite(low) and math.isfinite(high):
        kind += f", {low:g} to {high:g}"
    elif math.isfinite(low) or math.isfinite(high):
        kind += f", {low:g} or more" if math.isfinite(low) else f", at most {high:g}"
    raise SettingError(f"{name} must be {kind}, not {value!r}")


def check_names(name: str, value: Iterable[str]) -> tuple[str, ...]:
    """Return a list of names as a tuple; refuse one string, which Python takes for a list of letters.

    Raises
    ------
    SettingError
        If it is a string, or holds something else than strings.

    Examples
    --------
    >>> check_names("classes", ["cat", "dog"])
    ('cat', 'dog')
    >>> check_names("classes", "cat")
    Traceback (most recent call last):
    inception_rcnn.data.errors.SettingError: classes must be a list of names, not one name; write ['cat']
    """
    if isinstance(value, (str, bytes)):
        raise SettingError(f"{name} must be a list of names, not one name; write [{value!r}]")
    names = tuple(value)
    for one in names:
        if not isinstance(one, str):
            raise SettingError(f"{name} must be a list of names, not of {type(one).__name__}")
    return names
