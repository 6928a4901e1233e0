"""The journal and what a run keeps: a few bytes a picture."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inception_rcnn.data import ImageError, read_proposals
from inception_rcnn.data.images.sources import stamp
from inception_rcnn.detect.runs.failures import Failure
from inception_rcnn.detect.runs.journal import Journal, Record
from inception_rcnn.detect.runs.names import RunFiles
from inception_rcnn.detect.runs.proposing import propose_pictures


def measured(work: Callable[[], object]) -> int:
    """Bytes that Python's objects take more after some work than before."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = work()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before + 0 * id(kept)
    finally:
        tracemalloc.stop()


def test_a_finished_picture_takes_no_memory(tmp_path: Path) -> None:
    names, table = [f"/photos/{i}.jpg" for i in range(5000)], np.ones((3, 5), np.float32)
    with Journal(tmp_path / "journal", {}, RunFiles(names), columns=5) as journal:

        def fill() -> None:
            for i, name in enumerate(names):
                journal.append(i, Record(name, [i, i], 20, 10), table * i)

        assert measured(fill) < 20_000
        assert journal.finished == len(list(journal.positions)) == 5000
        record, read = journal.read(4321)
        assert record == Record(names[4321], [4321, 4321], 20, 10, rows=3)
        np.testing.assert_array_equal(read, table * 4321)


def test_records_are_found_again_whatever_the_order(tmp_path: Path) -> None:
    names = [str(tmp_path / f"{i}.jpg") for i in range(6)]
    for i, name in enumerate(names):
        Path(name).write_bytes(b"x" * i)
    with Journal(tmp_path / "journal", {}, RunFiles(names), columns=5) as journal:
        for i in (3, 1, 4):
            journal.append(i, Record(names[i], stamp(Path(names[i])), i, 10), np.full((i, 5), i, np.float32))
    Path(names[3]).unlink()
    with Journal(tmp_path / "journal", {}, RunFiles(names[::-1]), columns=5) as journal:
        assert list(journal.positions) == [1, 4]
        assert [journal.record(i).width for i in journal.positions] == [4, 1]
        assert [journal.record_at(offset).width for offset in journal.outdated] == [3]
        assert journal.read(1)[1].shape == (4, 5)
        journal.clear()
        assert (journal.finished, journal.outdated) == (0, [])


def test_of_a_file_one_string_is_kept(tmp_path: Path) -> None:
    given = [f"{tmp_path}/{i:04d}.jpg" for i in range(4000)]
    # At any one of these Python may enlarge its own table of strings.
    assert min(measured(lambda: RunFiles(given)) for _ in range(3)) < 4000 * 150


class Corner:
    """Proposes the same box in every picture."""

    def __init__(self) -> None:
        self.settings: dict[str, object] = {}

    def search(self, image: np.ndarray, name: str | None) -> tuple[np.ndarray, np.ndarray]:
        return np.array([[0, 0, 4, 4]], np.float32), np.ones(1, np.float32)

    def propose(self, features: object, searched: object, name: str | None) -> object:
        return searched

    def has_objectness(self, classes: object) -> bool:
        return False

    def __call__(self, image: np.ndarray, name: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        return self.search(image, name)


def test_many_pictures_that_cannot_be_reached_end_a_run(tmp_path: Path) -> None:
    files = RunFiles([f"https://host.invalid/{i}.jpg" for i in range(400)] + ["https://host.invalid/wide.jpg"])
    gone = [
        Failure({"file": files[i], "kind": "ImageError", "message": f"{files[i]}: timeout"}, True) for i in range(400)
    ]
    with Journal(tmp_path / "journal", {}, files, columns=5) as journal:
        for i in range(99):
            journal.append_failure(i, gone[i])
        # One that is at fault itself shows that pictures can be reached, as a result does.
        journal.append_failure(400, gone[0]._replace(retryable=False))
        for i in range(99, 198):
            journal.append_failure(i, gone[i])
        journal.append(399, Record(files[399], [1], 8, 8), np.zeros((0, 5), np.float32))
        for i in range(198, 297):
            journal.append_failure(i, gone[i])
        with pytest.raises(ImageError, match=r"297\.jpg: timeout; so ended 100 pictures"):
            journal.append_failure(297, gone[297])
        assert len(list(journal.failures)) == 299


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_what_a_full_disk_says_is_not_said_again_by_closing(tmp_path: Path) -> None:
    files = RunFiles([tmp_path / "a.jpg"])

    def write() -> None:
        with Journal(tmp_path / "journal", {}, files, columns=5) as journal:
            journal.file.close()
            journal.file = open("/dev/full", "r+b")  # noqa: SIM115 - it is closed by the block
            journal.append(0, Record(files[0], [1], 8, 8), np.zeros((0, 5), np.float32))

    with pytest.raises(OSError, match="goes on from there"):
        write()


def test_memory_does_not_grow_with_the_pictures(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "one.png")
    for i in range(1200):
        (tmp_path / "photos" / f"{i:04d}.png").symlink_to(tmp_path / "one.png")
    paths, sizes = sorted((tmp_path / "photos").iterdir()), {}

    def sample(done: int) -> None:
        if done in (200, 1200):
            gc.collect()  # also Python's lists of free tuples
            sizes[done] = tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        propose_pictures(paths, tmp_path / "boxes.parquet", Corner(), progress=sample)  # type: ignore[arg-type]
    finally:
        tracemalloc.stop()
    assert sizes[1200] - sizes[200] < 50_000
    assert sum(1 for _ in read_proposals(tmp_path / "boxes.parquet")) == 1200
