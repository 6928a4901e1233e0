"""Working ahead: the next items are prepared in threads while this one is used, and never more than a few."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

__all__ = ["prefetch"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(
    pool: Executor, work: Callable[[Item], Result], items: Iterable[Item], limit: int
) -> Iterator[tuple[Item, Future[Result]]]:
    """Yield every item with the future of its result, in order.

    Parameters
    ----------
    pool : Executor
    work : callable
        Item -> result.
    items : iterable
    limit : int
        At most so many items are worked on or wait at a time, at least 1.

    Yields
    ------
    item, Future

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor(2) as pool:
    ...     [(item, future.result()) for item, future in prefetch(pool, abs, [-1, -2, 3], limit=2)]
    [(-1, 1), (-2, 2), (3, 3)]
    """
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    for item in items:
        waiting.append((item, pool.submit(work, item)))
        if len(waiting) >= limit:
            yield waiting.popleft()
    yield from waiting
