"""Many items at the same time: threads that work ahead, processes that may die."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import cv2

__all__ = ["ProcessDied", "map_processes", "prefetch", "usable_cores"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class ProcessDied(Exception):
    """The process that worked on an item ended without a result: killed for its memory, or crashed in a decoder."""


def usable_cores() -> int:
    """Return the number of CPU cores that this process may use.

    Examples
    --------
    >>> usable_cores() >= 1
    True
    """
    # macOS has no affinity.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prefetch(
    pool: Executor, work: Callable[[Item], Result], items: Iterable[Item], limit: int
) -> Iterator[tuple[Item, Future[Result]]]:
    """Yield every item with the future of its result, in order, while the next ones are worked on.

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


def map_processes(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[tuple[Item, Result | ProcessDied]]:
    """Yield every item with its result, in order; a process that dies costs only the item it worked on.

    Parameters
    ----------
    work : callable
        Item -> result, both picklable; what it raises is raised here.
    items : iterable
        Taken as they are needed: a few per worker wait at a time.
    workers : int
        Processes. With 1 the work is done in this process, where a crash is everyone's.

    Yields
    ------
    item, result or ProcessDied

    Notes
    -----
    A process that dies takes the results of all others with it. So what was under way is done again one item
    at a time, which shows the one it was. Processes are spawned: a script that calls this needs the usual
    ``if __name__ == "__main__":``.

    Examples
    --------
    >>> list(map_processes(abs, [-1, 2], workers=1))
    [(-1, 1), (2, 2)]
    """
    if workers == 1:
        for item in items:
            yield item, work(item)
        return

    def processes(count: int) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=_begin)

    queue = iter(items)
    under_way: deque[tuple[Item, Future[Result]]] = deque()
    retry: deque[Item] = deque()
    pool = processes(workers)
    try:
        while True:
            while retry:
                item = retry.popleft()
                with processes(1) as alone:
                    try:
                        result: Result | ProcessDied = alone.submit(work, item).result()
                    except BrokenProcessPool as error:
                        result = ProcessDied(str(error))
                yield item, result
            try:
                for item in queue:
                    retry.append(item)  # Only until it is under way: submitting to a broken pool fails.
                    under_way.append((item, pool.submit(work, item)))
                    retry.pop()
                    if len(under_way) >= 4 * workers:
                        break
                if not under_way:
                    return
                result = under_way[0][1].result()
            except BrokenProcessPool:
                pool.shutdown()
                retry.extendleft(item for item, _ in reversed(under_way))
                under_way.clear()
                pool = processes(workers)
                continue
            yield under_way.popleft()[0], result
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Begin a worker process."""
    # Ctrl-C is for the process that people see; it ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)  # One process a core is already as many as there are cores.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A worker waits for work on a pipe that it also holds the other end of, so that it would outlive a parent
    # that was killed, for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
