"""Checks of arguments that public functions share: one number, one list of names, settings that are kept in files."""

import json
import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np

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


def settings_as_json(what: str, settings: Any) -> str:
    """Return settings as JSON, which is the same in every process; refuse what it does not have.

    Parameters
    ----------
    what : str
        Whose settings they are, for the text.
    settings : object
        Numbers, also those of NumPy, texts, None, and lists and dictionaries of these.

    Raises
    ------
    SettingError
        If it holds something else.

    Examples
    --------
    >>> settings_as_json("proposer", {"limit": np.int64(3), "boxes": (1.5, None)})
    '{"boxes": [1.5, null], "limit": 3}'
    >>> settings_as_json("proposer", {"by": {3}})
    Traceback (most recent call last):
    inception_rcnn.data.errors.SettingError: settings of the proposer hold a set; give numbers, texts, lists or dicts
    """

    def convert(value: Any) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        raise SettingError(f"settings of the {what} hold a {type(value).__name__}; give numbers, texts, lists or dicts")

    return json.dumps(settings, sort_keys=True, default=convert)
