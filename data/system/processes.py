"""Work on many items in parallel: threads that prefetch, and processes that may die without ending the run."""

import contextlib
import ctypes
import math
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import cv2

from ..errors import print_data_warnings

Item = TypeVar("Item")
# Name and number of items -> context manager that yields a function; that gets the number of items done.
Progress: TypeAlias = Callable[[str, int], contextlib.AbstractContextManager[Callable[[int], None]]]
Result = TypeVar("Result")


class ProcessDied(Exception):
    """The process that worked on an item ended without a result: out of memory, or a crash in a decoder."""


class ProcessStartError(OSError):
    """Worker processes cannot be started; the text says what to do."""


CONTROL_GROUP = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Return the number of CPU cores that this process may use; among processes of torchrun, its share of them.

    Examples
    --------
    >>> usable_cores() >= 1
    True
    """
    # macOS has no affinity.
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # A container may have a share of the machine: version 2 of control groups, or version 1, where -1 is no limit.
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with contextlib.suppress(OSError, ValueError):
            quota, period = map(int, " ".join((CONTROL_GROUP / file).read_text() for file in files).split())
            if quota > 0:
                count = min(count, math.ceil(quota / period))
    with contextlib.suppress(ValueError):
        count //= max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return max(1, count)


def prefetch(
    pool: Executor, work: Callable[[Item], Result], items: Iterable[Item], limit: int
) -> Iterator[tuple[Item, Future[Result]]]:
    """Yield each item with the future of its result, in order, while the pool works on the next items.

    Parameters
    ----------
    pool : Executor
    work : callable
        Item -> result.
    items : iterable
    limit : int
        How many items are under way at a time, at least 1.

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
    work: Callable[[Item], Result], items: Iterable[Item], workers: int, limit: int | None = None
) -> Generator[tuple[Item, Result | ProcessDied], None, None]:
    """Yield each item with its result, in order; a process that dies loses only the item that it worked on.

    Parameters
    ----------
    work : callable
        Item -> result, both picklable. Its exceptions are raised here.
    items : iterable
        Consumed as needed.
    workers : int
        Processes. With 1 the work is done in this process, which a crash then ends.
    limit : int, optional
        How many items are under way at a time; default four a worker.

    Yields
    ------
    item, result or ProcessDied

    Raises
    ------
    ProcessStartError
        If processes cannot be started here.

    Notes
    -----
    When a process dies, its pool loses the results of all items that are under way. These are done again one at a
    time, which shows which of them ends its process. Processes are spawned: a script that calls this needs
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
    pool = _start_pool(workers, work)
    try:
        while True:
            lost: list[Item] = []
            try:
                for item in queue:
                    lost = [item]  # in case that submitting it fails
                    under_way.append((item, _submit(pool, _call, item)))
                    if len(under_way) >= (limit or 4 * workers):
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
                pool = _start_pool(workers, work)
                continue
            yield under_way.popleft()[0], result
    finally:
        pool.shutdown(cancel_futures=True)


def _one_by_one(
    work: Callable[[Item], Result], items: Iterable[tuple[Item, Future[Result]]]
) -> Generator[tuple[Item, Result | ProcessDied], None, None]:
    """Yield the results that are finished, and compute the others, one item at a time in one process."""
    alone: ProcessPoolExecutor | None = None
    try:
        for item, future in items:
            if future.done() and future.exception() is None:
                yield item, future.result()
                continue
            try:
                if alone is None:
                    alone = _start_pool(1, work)
                    _submit(alone, int).result()
            except BrokenProcessPool as error:
                raise ProcessStartError(
                    "processes cannot be started here; run a script from a file and put what it does under "
                    '`if __name__ == "__main__":`, or use workers=1'
                ) from error
            try:
                yield item, _submit(alone, _call, item).result()
            except BrokenProcessPool:
                alone.shutdown()
                alone = None
                yield item, ProcessDied("its process ended; too large for the memory, or a broken decoder")
    finally:
        if alone is not None:
            alone.shutdown()


def _start_pool(count: int, work: Callable[[Any], Any]) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=_start_worker, initargs=(work,))


def _submit(pool: ProcessPoolExecutor, work: Callable[..., Result], *items: Any) -> Future[Result]:
    """Hand work to a pool, which may start a process for it: that begins with SIGTERM blocked, see `_start_worker`.

    If it blocked that by itself, one that came while it starts would end it, and so could one that came to a thread of
    a library that was there before.
    """
    if not hasattr(signal, "sigwaitinfo"):  # on macOS
        return pool.submit(work, *items)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        return pool.submit(work, *items)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_work: Callable[[Any], Any]


def _call(item: Any) -> Any:
    return _work(item)


def _start_worker(work: Callable[[Any], Any]) -> None:
    """Prepare a worker process."""
    # Passed once, not with every item: it may contain a network.
    global _work
    _work = work
    # Ctrl-C ends the parent, which ends its workers. So does SIGTERM, which a scheduler sends to all of them, when the
    # items in hand are finished.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        threading.Thread(target=_end_when_parent_says, daemon=True).start()
    # With its end in one piece: other workers write there too.
    print_data_warnings(lambda text: sys.stderr.write(f"{text}\n"))
    cv2.setNumThreads(1)  # There is one process for each core.
    _keep_freed_memory()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _keep_freed_memory() -> None:
    """Keep the memory of a picture for the next one: pages from the system are zeroed, in a twentieth of the time."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # glibc
        m_trim_threshold, m_mmap_threshold = -1, -3
        mallopt(m_trim_threshold, 256 * 2**20)
        mallopt(m_mmap_threshold, 32 * 2**20)


def _end_when_parent_says() -> None:
    """End this process at SIGTERM from its parent, whose pool sends it when another worker has died."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(1)


def _end_with_parent() -> None:
    # A worker holds both ends of the pipe that brings its work. So it does not notice that its parent was killed,
    # and would wait for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
