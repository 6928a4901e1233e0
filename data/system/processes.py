"""Many items at the same time: threads that work ahead, processes that may die."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

import cv2

Item = TypeVar("Item")
Result = TypeVar("Result")


class ProcessDied(Exception):
    """The process that worked on an item ended without a result: killed for its memory, or crashed in a decoder."""


class ProcessStartError(OSError):
    """No process can be started to work in; the text says what to do."""


def usable_cores() -> int:
    """Return the number of CPU cores that this process may use: of those that torchrun gives a machine, its share.

    Examples
    --------
    >>> usable_cores() >= 1
    True
    """
    # macOS has no affinity.
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # A container's share of the machine, if it has one.
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        count = min(count, math.ceil(int(quota) / int(period)))
    with contextlib.suppress(ValueError):
        count //= max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return max(1, count)


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
) -> Generator[tuple[Item, Result | ProcessDied], None, None]:
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

    Raises
    ------
    ProcessStartError
        If processes cannot be started here.

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
    if multiprocessing.current_process().daemon:
        raise ProcessStartError("a daemon, such as another pool's worker, may not start processes; use workers=1")

    queue = iter(items)
    under_way: deque[tuple[Item, Future[Result]]] = deque()
    pool = _processes(workers, work)
    try:
        while True:
            lost: list[Item] = []
            try:
                for item in queue:
                    lost = [item]  # if the pool takes it no more
                    under_way.append((item, pool.submit(_call, item)))
                    if len(under_way) >= 4 * workers:
                        break
                lost = []
                if not under_way:
                    return
                result = under_way[0][1].result()
            except BrokenProcessPool:
                pool.shutdown()
                again = [*under_way, *((item, Future[Result]()) for item in lost)]
                under_way.clear()
                yield from _one_by_one(work, again)
                pool = _processes(workers, work)
                continue
            yield under_way.popleft()[0], result
    finally:
        pool.shutdown(cancel_futures=True)


def _one_by_one(
    work: Callable[[Item], Result], items: Iterable[tuple[Item, Future[Result]]]
) -> Generator[tuple[Item, Result | ProcessDied], None, None]:
    """Yield the results that are there, and those of the other items, each alone in a process."""
    alone: ProcessPoolExecutor | None = None
    try:
        for item, future in items:
            if future.done() and future.exception() is None:
                yield item, future.result()
                continue
            try:
                if alone is None:
                    alone = _processes(1, work)
                    alone.submit(int).result()
            except BrokenProcessPool as error:
                raise ProcessStartError(
                    "processes cannot be started here; run a script from a file and put what it does under "
                    '`if __name__ == "__main__":`, or use workers=1'
                ) from error
            try:
                yield item, alone.submit(_call, item).result()
            except BrokenProcessPool as error:
                alone.shutdown()
                alone = None
                yield item, ProcessDied(str(error))
    finally:
        if alone is not None:
            alone.shutdown()


def _processes(count: int, work: Callable[[Any], Any]) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(work,))


_work: Callable[[Any], Any]


def _call(item: Any) -> Any:
    return _work(item)


def _begin(work: Callable[[Any], Any]) -> None:
    """Begin a worker process."""
    # Handed over once, not with every item: it may carry a network.
    global _work
    _work = work
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
