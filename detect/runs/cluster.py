"""Work on many items by the machines of a Ray cluster; a machine or a worker that dies loses nothing.

The items go in chunks to Ray Data (https://docs.ray.io/en/latest/data/data.html), which runs the stages of the work in
processes all over the cluster and brings the results back as they come. What a dead worker had in hand Ray gives to
another one. Which of the items was it that a worker died of? A ledger beside the driver knows: an item that
ends its worker `DEATHS` times is given up, and its neighbours in the chunk are not.

Only this file imports ray, and only when a cluster is asked for.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import pickle
import re
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2

from ...backbone.regions.placement import has_dot_products
from ...data.errors import ClusterError, needs_packages, reason_of
from ...data.system.processes import ProcessDied, usable_cores
from .names import package_version

if TYPE_CHECKING:
    import pyarrow as pa

LOCAL = "local"
# So many workers may die of one item.
DEATHS = 3
# A chunk is done again when its worker dies, and its results come together. A chunk costs Ray some 10 ms.
MAX_CHUNK = 16
# Ray keeps a reference and runs a task for each chunk before the first result: it gets so many items at a time.
WINDOW = 100_000
CHUNKS_PER_WORKER = 8
# A worker that cannot even start says nothing of the items; after so many in a row the cluster cannot do the work.
MAX_FAILED_STARTS = 8
STORE_BYTES = 2**30
SECONDS_TO_CONNECT = 10
# Of Ray; what the user has set stays.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no statistics for its makers
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # its core says of each pool of workers what may happen
}
_ADDRESS = re.compile(r"(auto|local|[^/\s:]+:\d+|\[[0-9a-fA-F:]+\]:\d+)")


class Stage(NamedTuple):
    """One step of the work, and what a worker needs for it.

    Attributes
    ----------
    work : callable
        The item, and what the stage before made of it -> result. Can be pickled. Each worker gets it once.
    cpus, gpus : int
        What one worker reserves.
    """

    work: Callable[..., Any]
    cpus: int = 1
    gpus: int = 0


def check_address(address: str) -> str:
    """Return the address of a cluster; refuse what can be none.

    Parameters
    ----------
    address : str
        ``host:port`` of a Ray head, "auto" for the Ray that runs on this machine, or "local": one is started here, and
        ended with the work.

    Raises
    ------
    ClusterError
        If it is none of these.

    Examples
    --------
    >>> check_address("10.0.0.1:6379")
    '10.0.0.1:6379'
    >>> check_address("photos/")
    Traceback (most recent call last):
    inception_rcnn.data.errors.ClusterError: --cluster photos/: no address; give host:port, auto, or nothing behind it
    """
    if address.startswith("ray://"):
        raise ClusterError(
            f"--cluster {address}: runs cannot go through Ray's client; start the command on a machine of the cluster, "
            "for example by `ray job submit`, with --cluster auto"
        )
    if not _ADDRESS.fullmatch(address):
        raise ClusterError(f"--cluster {address}: no address; give host:port, auto, or nothing behind it")
    return address


@contextlib.contextmanager
def connected(address: str, workers: int | None = None) -> Iterator[None]:
    """Be connected with a cluster; what is started here for it ends with the block. Inside itself it does nothing.

    Parameters
    ----------
    address : str
        See `check_address`.
    workers : int, optional
        Cores of a Ray that is started here; default all that this process may use.

    Raises
    ------
    ClusterError
        If there is no such cluster, or a machine of it has not the version of this package that this process has.
    MissingPackageError
        If ray is not installed.
    """
    check_address(address)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    ray = _import_ray()
    if ray.is_initialized():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    try:
        _silence(ray)
        if address == LOCAL:
            options |= {"num_cpus": workers or usable_cores(), "include_dashboard": False}
            options |= {"object_store_memory": STORE_BYTES}
        else:
            _check_that_it_answers(address)
        with _no_standard_error():  # where Ray says that it will be silent
            ray.init(address, **options)
    except Exception as error:  # Ray has a class for each kind of failure, and for some none.
        if address == LOCAL:
            text = f"--cluster: Ray cannot be started on this machine; is it busy? ({reason_of(error)})"
            raise ClusterError(text) from error
        hint = "start one with `ray start --head`, or give its host:port" if address == "auto" else "check the address"
        raise ClusterError(f"--cluster {address}: no cluster there ({reason_of(error)}); {hint}") from error
    try:
        # Ray ends the process at this signal; here it is what it was before.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
        if address != LOCAL:
            _check_versions(ray)
        yield
    finally:
        ray.shutdown()


def _import_ray() -> Any:
    with needs_packages("--cluster", "cluster"):
        import ray
        import ray.data
    return ray


def _silence(ray: Any) -> None:
    """Keep Ray's messages out of the output of this process; they are in its log files."""
    # Of errors of the cluster it prints 20 lines of log each to standard output, and has no setting for that.
    if hasattr(ray._private.worker, "print_to_stdstream"):
        ray._private.worker.print_to_stdstream = lambda *arguments, **options: None
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


@contextlib.contextmanager
def _no_standard_error() -> Iterator[None]:
    """Drop what code in C++ writes to standard error."""
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


def _check_that_it_answers(address: str) -> None:
    # Ray itself tries for minutes.
    if address != "auto":
        host, _, port = address.rpartition(":")
        with contextlib.closing(socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_CONNECT)):
            pass


def _check_versions(ray: Any) -> None:
    ours = package_version()
    for name, theirs in _ask_machines(ray, package_version):
        if theirs != ours:
            raise ClusterError(
                f"machine {name} of the cluster: has inception-rcnn {theirs}, this one {ours}; install the same"
            )


def _ask_machines(ray: Any, question: Callable[[], Any]) -> Iterator[tuple[str, Any]]:
    """Yield the address of each machine of the cluster, and what a function returns there."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"]]
    ask = ray.remote(num_cpus=0, max_retries=0)(question)
    answers = [
        ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote()
        for node in nodes
    ]
    for node, answer in zip(nodes, answers, strict=True):
        name = node["NodeManagerAddress"]
        try:
            yield name, ray.get(answer)
        except ray.exceptions.NodeDiedError:
            continue
        except (ray.exceptions.RayTaskError, ray.exceptions.RaySystemError) as error:
            reason = "inception-rcnn is not installed there" if "inception_rcnn" in str(error) else reason_of(error)
            text = f"machine {name} of the cluster: {reason}; install version {package_version()} there"
            raise ClusterError(text) from None


def check_dot_products() -> None:
    """Refuse a cluster of which some machines compute in 8 bits with other results than the others.

    Raises
    ------
    ClusterError
        If the processor of a machine has no dot products of 8 bits.
    """
    for name, has_them in _ask_machines(_import_ray(), has_dot_products):
        if not has_them:
            raise ClusterError(
                f"machine {name} of the cluster: its processor has no dot products of 8 bits, and gives other "
                "results in int8; add --precision float32"
            )


def count_gpus() -> int:
    """Return the number of GPUs of the cluster that this process is connected with."""
    return int(_import_ray().cluster_resources().get("GPU", 0))


def map_cluster(
    stages: Sequence[Stage],
    items: Iterable[tuple[int, Any]],
    count: int,
    address: str,
    workers: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Generator[tuple[int, Any], None, None]:
    """Yield the number of each item with its result, as they come from the workers of a cluster.

    Parameters
    ----------
    stages : sequence of Stage
        Each runs in workers of its own: the last one in actors, which live until the end, those before in tasks.
    items : iterable of (int, object)
        The number of an item, and what the first stage gets.
    count : int
        How many there are.
    address : str
        See `check_address`.
    workers : int, optional
        At most so many of the last stage. Default: as many as find room in the cluster.
    stop : callable
        Asked at each result. From True on no more chunks are begun; only those in hand still come.

    Yields
    ------
    int
        The number of the item.
    result of the last stage, or ProcessDied
        The latter if its workers died of it `DEATHS` times.

    Raises
    ------
    ClusterError
        See `connected`; or if no worker can be started.
    Exception
        What a stage raises.
    """
    if not count:
        return
    with connected(address, workers):
        ray = _import_ray()
        ledger = ray.remote(num_cpus=0)(_Ledger).options(scheduling_strategy=_here(ray)).remote()
        stopped, rest = False, iter(items)
        try:
            while not stopped and (window := list(itertools.islice(rest, WINDOW))):
                data = _plan(ray, stages, window, workers, ledger)
                for table in data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
                    for position, result in zip(table["position"].to_pylist(), table["result"], strict=True):
                        yield position, pickle.loads(result.as_buffer())
                    if not stopped and stop():
                        stopped = True
                        ledger.stop.remote()
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.ActorDiedError as error:
            raise ClusterError(f"--cluster {address}: its workers cannot start ({reason_of(error)})") from error


def _plan(ray: Any, stages: Sequence[Stage], items: Sequence[tuple[int, Any]], workers: int | None, ledger: Any) -> Any:
    """Give the items and the stages to Ray Data, which begins when its results are asked for."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    context.max_consecutive_actor_init_deaths = MAX_FAILED_STARTS
    room, last = ray.cluster_resources(), stages[-1]
    most = int(room.get("GPU", 0) // last.gpus if last.gpus else room.get("CPU", 0) // last.cpus)
    size = max(1, min(workers or most, most))
    chunk = max(1, min(MAX_CHUNK, len(items) // (CHUNKS_PER_WORKER * size)))
    data = ray.data.from_arrow(_tables(items, chunk))
    # Whole blocks, which are chunks; for GPUs Ray wants a number.
    whole: dict[str, Any] = {"batch_size": chunk if last.gpus else None, "batch_format": "pyarrow"}
    for number, stage in enumerate(stages):
        given = ray.put(pickle.dumps(stage.work)), number, ledger, os.getcwd(), package_version()
        if stage is not last:
            data = data.map_batches(_call_worker, fn_args=[given], num_cpus=stage.cpus, **whole)
            continue
        # Not of one fixed size: a dead machine's places are free again, and new machines get some.
        pool = ray.data.ActorPoolStrategy(
            min_size=1,
            max_size=workers,
            initial_size=min(size, -(-len(items) // chunk)),
            max_tasks_in_flight_per_actor=2,
        )
        places = {"num_gpus": stage.gpus, "num_cpus": 0} if stage.gpus else {"num_cpus": stage.cpus}
        data = data.map_batches(_Worker, fn_constructor_args=given, compute=pool, **places, **whole)
    return data


def _here(ray: Any) -> Any:
    """Where the driver is: what it needs lives as long as itself."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def _tables(items: Iterable[tuple[int, Any]], size: int) -> list[pa.Table]:
    tables, rest = [], iter(items)
    while chunk := list(itertools.islice(rest, size)):
        positions, contents = zip(*chunk, strict=True)
        tables.append(_table(positions, [pickle.dumps(one) for one in contents]))
    return tables


def _table(positions: Sequence[int], items: Sequence[bytes], results: Sequence[bytes] | None = None) -> pa.Table:
    import pyarrow as pa

    # Large: drawings of a chunk may be more than 2 GB.
    columns = {"position": pa.array(positions, pa.int64()), "item": pa.array(items, pa.large_binary())}
    if results is not None:
        columns["result"] = pa.array(results, pa.large_binary())
    return pa.table(columns)


class _Ledger:
    """What the workers have in hand, so that it is known what they died of; an actor beside the driver.

    The first death in a chunk names no item: items are entered one by one only from the second attempt on, since
    nearly no chunk needs one.
    """

    def __init__(self) -> None:
        self.in_hand: dict[tuple[int, int], int | None] = {}
        self.deaths: Counter[tuple[int, int]] = Counter()
        self.stopped = False

    def stop(self) -> None:
        """Have no more chunks begun."""
        self.stopped = True

    def start(self, stage: int, chunk: int) -> tuple[bool, list[int]] | None:
        """Begin a chunk; tell whether its worker died before, and which items are given up. None: do not begin."""
        if self.stopped and stage == 0:
            return None
        again = (stage, chunk) in self.in_hand
        item = self.in_hand.get((stage, chunk))
        if item is not None:
            self.deaths[stage, item] += 1
        self.in_hand[stage, chunk] = None
        return again, [item for (of, item), deaths in self.deaths.items() if of == stage and deaths >= DEATHS - 1]

    def take(self, stage: int, chunk: int, item: int) -> None:
        """Enter the item of a chunk that a worker begins now."""
        self.in_hand[stage, chunk] = item

    def finish(self, stage: int, chunk: int) -> None:
        """Forget a chunk that is finished."""
        self.in_hand.pop((stage, chunk), None)


@functools.lru_cache(maxsize=1)
def _worker_of_process(given: tuple[Any, ...]) -> _Worker:
    return _Worker(*given)


def _call_worker(table: pa.Table, given: tuple[Any, ...]) -> pa.Table:
    """Work on a chunk in a task; a process that runs several loads what it needs once."""
    return _worker_of_process(given)(table)


class _Worker:
    """A process of a stage, with what it loaded; Ray Data calls it with one chunk after the other."""

    def __init__(self, work: Any, stage: int, ledger: Any, folder: str, version: str) -> None:
        import ray

        self.node = socket.gethostname()
        if package_version() != version:  # a machine that came later
            raise ClusterError(f"machine {self.node}: has inception-rcnn {package_version()}, the driver {version}")
        # Paths may be relative to the folder of the driver.
        os.chdir(folder if os.path.isdir(folder) else "/")
        cv2.setNumThreads(1)
        self.get, self.ledger, self.stage = ray.get, ledger, stage
        # Bytes, and not the object: arrays out of Ray's shared memory could not be written to.
        self.work = pickle.loads(ray.get(work))

    def __call__(self, table: pa.Table) -> pa.Table:
        positions = table["position"].to_pylist()
        if not positions:
            return _table([], [], [])
        items = table["item"].to_pylist()
        given = [(pickle.loads(one.as_buffer()),) for one in table["result"]] if self.stage else [()] * len(items)
        chunk, results = positions[0], []
        started = self.get(self.ledger.start.remote(self.stage, chunk))
        if started is None:
            return _table([], [], [])
        again, given_up = started
        for position, item, before in zip(positions, items, given, strict=True):
            if before and isinstance(before[0], ProcessDied):
                result: Any = before[0]
            elif position in given_up:
                result = ProcessDied(f"its process ended {DEATHS} times; too large for the memory, or a broken decoder")
            else:
                if again:
                    self.get(self.ledger.take.remote(self.stage, chunk, position))
                result = self.work(pickle.loads(item), *before)
            results.append(pickle.dumps(result))
        self.ledger.finish.remote(self.stage, chunk)
        return _table(positions, items, results)
