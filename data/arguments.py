"""Checks of arguments that public functions share: numbers, lists of names, arrays, settings kept in files."""

import json
import math
import sys
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .errors import SettingError, UserError, did_you_mean

_MAX = sys.float_info.max
_MAX_WHOLE = 2**63 - 1  # Compiled code takes 64 bits.


def check_number(
    name: str,
    value: Any,
    low: float = -_MAX,
    high: float | None = None,
    *,
    whole: bool = False,
    above: bool = False,
    optional: bool = False,
) -> Any:
    """Return a number from `low` to `high` as Python's own; refuse all else. nan is in no range.

    Parameters
    ----------
    name : str
        What the number is called, for the text.
    value : object
        NumPy's numbers are numbers; texts, arrays, ``True`` and ``False`` are none.
    low, high : float
        The range, both ends included. By default all finite numbers; of whole numbers those that fit 64 bits.
    whole : bool
        Whether it must be an integer.
    above : bool
        Whether `low` itself is refused.
    optional : bool
        Whether None is allowed.

    Returns
    -------
    int, float or None

    Raises
    ------
    SettingError
        If it is something else.

    Examples
    --------
    >>> check_number("limit", -1, low=0, whole=True)
    Traceback (most recent call last):
    inception_rcnn.data.errors.SettingError: limit must be a whole number, 0 or more, not -1
    >>> check_number("limit", np.int64(3), low=0, whole=True)
    3
    """
    if value is None and optional:
        return None
    top = high if high is not None else _MAX_WHOLE if whole else _MAX
    if isinstance(value, Integral if whole else Real) and not isinstance(value, bool):
        number = int(value) if isinstance(value, Integral) else float(value)
        if low <= number <= top and not (above and number == low):
            return number
    kind = "a whole number" if whole else "a number"
    raise SettingError(f"{name} must be {kind}{_range(low, high, above)}{', or None' * optional}, not {value!r}")


def check_numbers(name: str, values: Any, low: float = -_MAX, high: float | None = None) -> tuple[float, ...]:
    """Return a list of one or more numbers, each from `low` to `high`, as a tuple.

    Raises
    ------
    SettingError
        If it is no list, there is none in it, or one is refused by `check_number`.

    Examples
    --------
    >>> check_numbers("scales", [0.5, 1])
    (0.5, 1)
    """
    try:
        if isinstance(values, (list, tuple, np.ndarray)) and len(values):
            return tuple(check_number(name, number, low, high) for number in values)
    except (SettingError, TypeError):  # a TypeError: an array without axes has no length
        pass
    raise SettingError(f"{name} must be one or more numbers{_range(low, high)}, not {values!r}")


def _range(low: float, high: float | None, above: bool = False) -> str:
    """Write a range for a message; nothing for a bound that is no more than finite."""
    least = "" if low in (-_MAX, -math.inf) else f", above {low:g}" if above else f", {low:g} or more"
    if high in (None, math.inf):
        return least
    return f", {low:g} to {high:g}" if least and not above else f"{least}, at most {high:g}"


def check_choice(name: str, value: Any, choices: Sequence[Any], error: type[UserError] = SettingError) -> Any:
    """Return a text, or a truth value, that is one of the choices.

    Raises
    ------
    SettingError
        Or another `error`, if it is none of them.

    Examples
    --------
    >>> check_choice("nms", "softt", ["soft", "greedy"])
    Traceback (most recent call last):
    inception_rcnn.data.errors.SettingError: nms 'softt' is unknown (did you mean 'soft'?); use soft or greedy
    """
    if isinstance(value, (str, bool)) and value in choices:
        return value
    *others, last = map(str, choices)
    meant = did_you_mean(value, [*others, last]) if isinstance(value, str) else ""
    raise error(f"{name} {value!r} is unknown{meant}; use {', '.join(others)} or {last}")


def check_names(name: str, value: Iterable[str]) -> tuple[str, ...]:
    """Return a list of names as a tuple; refuse one string, which Python takes for a list of letters.

    Raises
    ------
    SettingError
        If it is a string or a set, which has no order, or holds something else than strings.

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
    if isinstance(value, (set, frozenset)) or not isinstance(value, Iterable):
        raise SettingError(f"{name} must be a list of names, not {type(value).__name__}")
    names = tuple(value)
    for kind in set(map(type, names)):  # One look at each type: lists of a thousand names are checked often.
        if not issubclass(kind, str):
            raise SettingError(f"{name} must be a list of names, not of {kind.__name__}")
    return names


def as_array(name: str, values: ArrayLike, dtype: DTypeLike | None = None) -> NDArray[Any]:
    """Return numbers as an array of NumPy, which is not copied if it is one of that type already.

    Parameters
    ----------
    name : str
        What the numbers are called, for the text.
    values : array_like
        Also a tensor of torch that is on a GPU, requires a gradient or is in bfloat16, and an array of CuPy.
    dtype : data type, optional
        Default that of the values.

    Raises
    ------
    SettingError
        If they are no numbers, or lists of different lengths.

    Examples
    --------
    >>> as_array("boxes", [[0, 0, 2, 2]], np.float32).dtype.name
    'float32'
    """
    try:
        array = values if isinstance(values, np.ndarray) else np.asarray(_on_cpu(values))
        if array.dtype.kind not in "SUc":
            return np.asarray(array, dtype)
        problem: object = f"they are {array.dtype.name}"
    except (TypeError, ValueError, RuntimeError) as error:
        problem = error
    raise SettingError(f"{name} must be an array of numbers: {problem}")


def _on_cpu(values: Any) -> Any:
    """Return what NumPy can read of a tensor; anything else as it is."""
    if hasattr(values, "detach"):  # torch
        values = values.detach().cpu()
        # NumPy has no bfloat16.
        return values.float() if values.is_floating_point() and values.element_size() < 4 else values
    return values.get() if hasattr(values, "__cuda_array_interface__") else values  # CuPy


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
