"""Runs on a Ray cluster: the same results as on one machine, whatever dies meanwhile."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("safetensors")
ray = pytest.importorskip("ray", reason="ray is not installed: pip install '.[cluster]'")
pytest.importorskip("ray.data", reason="ray's data library is not installed: pip install '.[cluster]'")

from builders import random_image, write_image

from inception_rcnn.data import find_images
from inception_rcnn.data.errors import ClusterError, SettingError
from inception_rcnn.detect import Detector, detect_batch
from inception_rcnn.detect.cli.app import _with_address, main
from inception_rcnn.detect.runs import cluster, detection
from inception_rcnn.detect.runs.cluster import DEATHS, Stage, _Ledger, connected, map_cluster
from inception_rcnn.detect.runs.proposing import propose_pictures
from inception_rcnn.detect.runs.stages import detection_works
from inception_rcnn.proposals import SelectiveSearch

SEARCH = SelectiveSearch("single", limit=50)
STORE = 100 * 2**20


def contents(folder: Path) -> dict[str, bytes]:
    """Everything that a run found: all but the times, which the page has too."""
    timed = ("run.json", "report.html")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in timed)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


# What workers do in these tests. They find it by the name of this file, which is on the path of all processes.


@dataclasses.dataclass
class Slow:
    """Work that takes its time, so that a test can come between, and writes down in which process it ran."""

    work: Callable[..., Any]
    seconds: float

    def __call__(self, *given: Any) -> Any:
        time.sleep(self.seconds)
        return self.work(*given)


@dataclasses.dataclass
class Deadly:
    """Work that ends its process, as the system does where memory is short, at some pictures."""

    work: Callable[..., Any]
    name: str
    log: Path

    def __call__(self, picture: Any, *given: Any) -> Any:
        if Path(picture.path).name == self.name:
            with self.log.open("a") as file:
                file.write(f"{os.getpid()}\n")
            os.kill(os.getpid(), signal.SIGKILL)
        return self.work(picture, *given)


def square(number: int, *before: int) -> int:
    if number < 0:
        raise RuntimeError("a bug")
    return number**2 + sum(before)


@pytest.fixture(scope="module", autouse=True)
def path_of_workers() -> Iterator[None]:
    """Let the workers find the package and this file."""
    with pytest.MonkeyPatch.context() as patch:
        folders = [str(Path(__file__).parent), *(folder for folder in sys.path if folder)]
        patch.setenv("PYTHONPATH", os.pathsep.join(folders))
        yield


@pytest.fixture(scope="module")
def here(path_of_workers: None) -> Iterator[None]:
    """A Ray on this machine with two cores and a GPU that is none, for all tests that need no more."""
    ray.init(
        "local", num_cpus=2, num_gpus=1, include_dashboard=False, object_store_memory=STORE,
        log_to_driver=False, logging_level="ERROR",
    )  # fmt: skip
    yield
    ray.shutdown()


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Folder of 24 pictures, one of them broken."""
    for seed in range(24):
        write_image(tmp_path / "many" / f"{seed:02}.jpg", random_image(seed, 100 + seed, 90), quality=95)
    (tmp_path / "many" / "07.jpg").write_bytes(b"not a picture")
    return tmp_path / "many"


def wrap_works(monkeypatch: pytest.MonkeyPatch, wrap: Callable[[Any], Any]) -> None:
    """Have the works of a detection wrapped before they go to the workers."""
    monkeypatch.setattr(
        detection,
        "detection_works",
        lambda *given, **options: [wrap(one) for one in detection_works(*given, **options)],
    )


def test_addresses() -> None:
    assert _with_address(["detect", "a", "--cluster"]) == ["detect", "a", "--cluster", "local"]
    assert _with_address(["detect", "--cluster", "--output", "o"]) == ["detect", "--cluster", "local", "--output", "o"]
    assert _with_address(["detect", "--cluster", "h:1"]) == ["detect", "--cluster", "h:1"]
    assert _with_address(["detect", "--cluster=h:1", "--output"]) == ["detect", "--cluster=h:1", "--output"]
    assert _with_address([]) == []
    for address in ("photos/", "head", "ray://head:10001", "a/b:3"):
        with pytest.raises(ClusterError, match=f"--cluster {address}"):
            cluster.check_address(address)


def test_a_cluster_that_is_not_there_is_one_line(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for address in ("127.0.0.1:1", "auto"):
        arguments = ["--method", "selective-search", "--output", str(tmp_path / "x.npz"), "--cluster", address]
        with pytest.raises(SystemExit) as end:
            main(["propose", str(photos), *arguments])
        assert end.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"inception-rcnn: --cluster {address}: no cluster there (")


def test_without_ray_it_is_said_how_to_install_it(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    arguments = ["--method", "selective-search", "--output", str(tmp_path / "x.npz"), "--cluster"]
    with pytest.raises(SystemExit) as end:
        main(["propose", str(photos), *arguments])
    assert end.value.code == 2
    assert capsys.readouterr().err.endswith(
        "--cluster needs ray; in a clone of the project: pip install '.[cluster]'\n"
    )


def test_a_detector_that_would_take_all_cores_is_refused(photos: Path, tmp_path: Path, model_file: Path) -> None:
    greedy = Detector.load(model_file, device="cpu", method="selective-search", proposals=12)
    with pytest.raises(SettingError, match="threads=1"):
        detect_batch(find_images(photos), tmp_path / "out", greedy, cluster="local")


def test_the_ledger_names_what_workers_died_of_and_none_of_its_neighbours() -> None:
    """A worker takes the items of a chunk in turn and dies of one, and at a random moment by itself."""
    rng = np.random.default_rng(0)
    for deadly in range(5):
        ledger, deaths, finished = _Ledger(), 0, False
        while not finished:
            started = ledger.start(0, 10)
            assert started is not None
            again, given_up = started
            assert again == (deaths > 0)
            for item in range(10, 15):
                if item in given_up:
                    assert item == 10 + deadly
                    continue
                if again:
                    ledger.take(0, 10, item)
                if item == 10 + deadly or (deaths == 1 and rng.random() < 0.2):
                    deaths += 1
                    break
            else:
                finished = True
        ledger.finish(0, 10)
        assert DEATHS <= deaths <= DEATHS + 1
        assert ledger.start(0, 10) == (False, [10 + deadly])
        ledger.stop()
        assert ledger.start(0, 10) is None


@pytest.mark.slow
@pytest.mark.usefixtures("here")
class TestOnThisMachine:
    """What one Ray of two cores shows, started once."""

    def test_results_come_from_stages_in_any_order(self) -> None:
        numbers = [(i, i) for i in range(100)]
        one = dict(map_cluster([Stage(square)], numbers, 100, "local"))
        assert one == {i: i**2 for i in range(100)}
        two = dict(map_cluster([Stage(square), Stage(square, gpus=1)], numbers, 100, "local"))
        assert two == {i: 2 * i**2 for i in range(100)}
        assert list(map_cluster([Stage(square)], [], 0, "local")) == []

    def test_a_bug_is_raised_as_it_is(self) -> None:
        with pytest.raises(RuntimeError, match="a bug"):
            dict(map_cluster([Stage(square)], [(0, -1)], 1, "local"))

    @pytest.mark.parametrize("workers", [1, 2])
    def test_detections_are_those_of_one_process(
        self, many: Path, tmp_path: Path, detector: Detector, workers: int
    ) -> None:
        paths = find_images(many)
        detect_batch(paths, tmp_path / "plain", detector)
        summary = detect_batch(paths, tmp_path / "out", detector, cluster="local", workers=workers)
        assert (summary.pictures, summary.failed, summary.retryable) == (23, 1, 0)
        assert contents(tmp_path / "out") == contents(tmp_path / "plain")

    def test_a_network_apart_from_the_search_finds_the_same(
        self, many: Path, tmp_path: Path, detector: Detector, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As on GPUs: this Ray has one by its own account."""
        paths = find_images(many)
        detect_batch(paths, tmp_path / "plain", detector)
        works = detection_works(detector, 0.4, 10**6, apart=True)
        stages = [Stage(works[0]), Stage(works[1], gpus=1)]
        monkeypatch.setattr(
            detection, "map_cluster", lambda _, items, count, *rest: map_cluster(stages, items, count, *rest)
        )
        detect_batch(paths, tmp_path / "out", detector, cluster="local")
        assert contents(tmp_path / "out") == contents(tmp_path / "plain")

    def test_proposals_are_those_of_one_process(self, many: Path, tmp_path: Path) -> None:
        paths = find_images(many)
        for name, where in (("plain", {}), ("out", {"cluster": "local"})):
            propose_pictures(paths, tmp_path / f"{name}.parquet", SEARCH, **where)
        for end in (".parquet", ".errors.jsonl"):
            assert (tmp_path / f"out{end}").read_bytes() == (tmp_path / f"plain{end}").read_bytes()

    def test_a_picture_that_kills_its_worker_is_one_line_and_its_neighbours_have_results(
        self, many: Path, tmp_path: Path, detector: Detector, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        paths = find_images(many)
        with monkeypatch.context() as patch:
            wrap_works(patch, lambda work: Deadly(work, "05.jpg", tmp_path / "deaths"))
            patch.setattr(cluster, "CHUNKS_PER_WORKER", 2)  # so that it has neighbours
            summary = detect_batch(paths, tmp_path / "out", detector, cluster="local", workers=2)
        assert (summary.pictures, summary.failed, summary.retryable) == (22, 2, 1)
        died, broken = map(json.loads, (tmp_path / "out" / "errors.jsonl").read_text().splitlines())
        assert (Path(died["file"]).name, died["kind"]) == ("05.jpg", "ProcessDied")
        assert "ended 3 times" in died["message"]
        assert Path(broken["file"]).name == "07.jpg"
        assert len((tmp_path / "deaths").read_text().split()) == DEATHS
        # Where it does not kill, the same command does the rest.
        detect_batch(paths, tmp_path / "out", detector)
        detect_batch(paths, tmp_path / "plain", detector)
        assert contents(tmp_path / "out") == contents(tmp_path / "plain")

    def test_a_missing_file_is_named_with_its_machine(self, many: Path, tmp_path: Path) -> None:
        paths = [*find_images(many), many / "absent.jpg"]
        summary = propose_pictures(paths, tmp_path / "x.npz", SEARCH, cluster="local")
        assert (summary.pictures, summary.retryable) == (23, 1)
        last = json.loads((tmp_path / "x.errors.jsonl").read_text().splitlines()[-1])
        assert last["message"].endswith(f"; on machine {os.uname().nodename}")

    def test_a_run_that_is_stopped_finishes_what_is_in_hand(
        self, many: Path, tmp_path: Path, detector: Detector
    ) -> None:
        paths, done = find_images(many), []
        detect_batch(paths, tmp_path / "plain", detector)
        with pytest.raises(KeyboardInterrupt):
            detect_batch(
                paths, tmp_path / "out", detector, cluster="local", workers=1,
                progress=lambda number, note: done.append(number), stop=lambda: done[-1] >= 3,
            )  # fmt: skip
        assert 3 <= done[-1] < 24
        summary = detect_batch(paths, tmp_path / "out", detector)
        assert summary.resumed >= done[-1] - 1
        assert contents(tmp_path / "out") == contents(tmp_path / "plain")

    def test_an_interrupted_run_goes_on_with_or_without_a_cluster(
        self, many: Path, tmp_path: Path, detector: Detector
    ) -> None:
        def stop(done: int, note: str) -> None:
            if done == 10:
                raise KeyboardInterrupt

        paths = find_images(many)
        detect_batch(paths, tmp_path / "plain", detector)
        for first, second in (("local", None), (None, "local")):
            output = tmp_path / f"after {first}"
            with pytest.raises(KeyboardInterrupt):
                detect_batch(paths, output, detector, cluster=first, progress=stop)
            summary = detect_batch(paths, output, detector, cluster=second)
            assert summary.resumed >= 9
            assert contents(output) == contents(tmp_path / "plain")
        assert ray.is_initialized()  # It was there before.


RUN = """
import sys, time
from inception_rcnn.data import find_images
from inception_rcnn.detect import Detector, detect_batch
from inception_rcnn.detect.runs import detection
from inception_rcnn.detect.runs.proposing import propose_pictures
from inception_rcnn.proposals import SelectiveSearch
from pathlib import Path

import test_cluster

task, photos, output, model, cluster, slow = sys.argv[1:]
tell = lambda done, note="": print(done, flush=True)
where = {"cluster": cluster} if cluster else {}
search = SelectiveSearch("single", limit=50)
if task == "detect":
    works = detection.detection_works
    detection.detection_works = lambda *given, **options: [
        test_cluster.Slow(one, float(slow)) for one in works(*given, **options)
    ]
    detector = Detector.load(model, device="cpu", threads=1, method="selective-search", proposals=12)
    detector.proposer = search
    detect_batch(find_images(photos), Path(output), detector, progress=tell, **where)
else:
    propose_pictures(find_images(photos), output, search, progress=tell, **where)
"""


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", RUN, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], done: int) -> None:
    """Wait until so many pictures are finished."""
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= done:
            return
    pytest.fail(f"the run ended before {done} pictures were finished, status {process.wait()}")


@pytest.fixture
def two_nodes() -> Iterator[Any]:
    """A cluster of two machines, both this one, with one core each; the second is yielded too."""
    from ray.cluster_utils import Cluster

    system = {"health_check_period_ms": 1000, "health_check_failure_threshold": 10}
    options = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args={**options, "_system_config": system})
    del options["include_dashboard"]
    yield nodes, nodes.add_node(**options)
    nodes.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("task", ["detect", "propose"])
def test_one_of_two_machines_dies_in_mid_run(
    many: Path, tmp_path: Path, model_file: Path, two_nodes: Any, task: str
) -> None:
    nodes, second = two_nodes
    plain, output = (tmp_path / (name if task == "detect" else f"{name}.parquet") for name in ("plain", "out"))
    assert start(task, many, plain, model_file, "", 0).wait() == 0
    process = start(task, many, output, model_file, nodes.address, 0.3)
    wait_for(process, 4)
    nodes.remove_node(second, allow_graceful=False)
    wait_for(process, 24)
    assert process.wait() == 0
    if task == "detect":
        assert contents(output) == contents(plain)
    else:
        assert output.read_bytes() == plain.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("task", ["detect", "propose"])
def test_a_driver_that_is_killed_loses_nothing(many: Path, tmp_path: Path, model_file: Path, task: str) -> None:
    plain, output = (tmp_path / (name if task == "detect" else f"{name}.parquet") for name in ("plain", "out"))
    assert start(task, many, plain, model_file, "", 0).wait() == 0
    process = start(task, many, output, model_file, "local", 0.2)
    wait_for(process, 5)
    process.kill()
    process.wait()
    journal = (output if task == "detect" else tmp_path) / ("journal" if task == "detect" else "out.journal")
    assert journal.stat().st_size > 100
    process = start(task, many, output, model_file, "local", 0)
    wait_for(process, 24)
    assert process.wait() == 0
    if task == "detect":
        assert contents(output) == contents(plain)
    else:
        assert output.read_bytes() == plain.read_bytes()


@pytest.mark.slow
def test_another_version_on_a_machine_is_refused(two_nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes, _ = two_nodes
    monkeypatch.setattr("inception_rcnn.detect.runs.names.version", lambda name: "9.9")
    refused = pytest.raises(ClusterError, match=r"machine .* of the cluster: has inception-rcnn .*, this one 9\.9")
    with refused, connected(nodes.address):
        pass
    assert not ray.is_initialized()
