"""Compiled functions, in one place what is the same for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

__all__ = ["kernel"]


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function with numba: without holding the interpreter's lock, once per machine where that can be.

    Parameters
    ----------
    **options
        Of ``numba.njit``.

    Returns
    -------
    callable
        A decorator.

    Examples
    --------
    >>> @kernel(fastmath=True)
    ... def add(a, b):
    ...     return a + b
    >>> add(1, 2)
    3
    """

    def compiled(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(function, nogil=True, cache=True, **options)
        except RuntimeError:
            # In a container without a folder to write to there is no place for compiled code: once per process then.
            return numba.njit(function, nogil=True, **options)

    return compiled
