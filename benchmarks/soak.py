"""Whether memory grows with the number of pictures: resident memory of `detect` and `propose` over many pictures.

python benchmarks/soak.py [PICTURES] [--pictures 20000] [--first 200] [--markdown]

PICTURES is a folder; without it scikit-image's photographs are taken, made small. They stand under so many names in a
temporary folder, as links. Each run is a process of its own with one worker. So that thousands take minutes, `detect`
has 50 proposals of selective search, no second look, a fifth of the network's usual size and 8-bit numbers, and
`propose` has selective search. The memory is read from /proc (Linux) after the first 200 pictures, when all that is
made once is there, after the last one, and at its end, when the results are written; "most" is the most of these and of
the moments a hundredth of the run apart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pyarrow.parquet  # noqa: F401 - some 40 MiB, which would count as growth: a run loads it to write its results
from tables import show

from inception_rcnn.data import find_images

NAMES = ("chelsea", "astronaut", "motorcycle_left", "coffee", "rocket")


def resident() -> float:
    """Resident memory of this process in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def link(sources: list[Path], folder: Path, count: int) -> None:
    """Fill a folder with so many names of pictures."""
    for i in range(count):
        source = sources[i % len(sources)]
        inside = folder / f"{i // 1000:04d}"
        inside.mkdir(exist_ok=True)
        (inside / f"{i:07d}{source.suffix}").symlink_to(source.resolve())


def shrink(path: Path, folder: Path) -> Path:
    """Write a picture with a longer side of 100 pixels."""
    image = cv2.imread(str(path))
    scale = 100 / max(image.shape[:2])
    made = folder / f"{path.stem}.jpg"
    cv2.imwrite(str(made), cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    return made


def run(task: str, folder: Path, output: Path, first: int) -> dict[str, float]:
    """Run one task in this process; resident memory in MiB, and seconds."""
    paths = find_images(folder)
    count, samples = len(paths), {}
    most = 0.0

    def sample(done: int, note: str = "") -> None:
        nonlocal most
        if done in (first, count) or done % max(1, count // 100) == 0:
            now = resident()
            samples.setdefault(done, now)  # When all are done it is told again, while the results are written.
            most = max(most, now)

    began = time.perf_counter()
    start: Callable[[], object]
    if task == "detect":
        from inception_rcnn.detect import Detector, detect_batch

        little: dict[str, Any] = {"method": "selective-search", "proposals": 50, "second_look": 0}
        little |= {"scales": (0.2,), "precision": "int8"}
        detector = Detector.load("voc", device="cpu", **little)
        start = lambda: detect_batch(paths, output / "out", detector, progress=sample)  # noqa: E731
    else:
        from inception_rcnn.detect.runs.proposing import propose_pictures
        from inception_rcnn.proposals import SelectiveSearch

        proposer = SelectiveSearch("fast")
        start = lambda: propose_pictures(paths, output / "boxes.parquet", proposer, progress=sample)  # noqa: E731
    summary = start()
    end = resident()
    assert summary.pictures == count, summary  # type: ignore[attr-defined]
    seconds = time.perf_counter() - began
    return {"first": samples[first], "last": samples[count], "end": end, "most": max(most, end), "seconds": seconds}


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="?", type=Path, metavar="PICTURES", help="a folder of pictures")
    parser.add_argument("--pictures", type=int, default=20_000, help="how many names")
    parser.add_argument("--first", type=int, default=200, help="after how many memory is measured first")
    parser.add_argument("--task", choices=("detect", "propose"), help=argparse.SUPPRESS)
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    if arguments.task:
        with tempfile.TemporaryDirectory() as output:
            print(json.dumps(run(arguments.task, arguments.sources, Path(output), arguments.first)))
        return
    if not 0 < arguments.first < arguments.pictures:
        parser.error("--first: give a number above 0 and below --pictures")
    if arguments.sources is None:
        import skimage

        samples = Path(skimage.__file__).parent / "data"
        sources = [path for path in sorted(samples.iterdir()) if path.stem in NAMES]
    else:
        sources = find_images(arguments.sources)
    rows = []
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as small:
        if arguments.sources is None:
            sources = [shrink(path, Path(small)) for path in sources]
        link(sources, Path(folder), arguments.pictures)
        for task in ("detect", "propose"):
            command = [sys.executable, __file__, folder, "--task", task, "--first", str(arguments.first)]
            figures = json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
            growth = [f"{100 * (figures[at] / figures['first'] - 1):+.1f}" for at in ("last", "end")]
            memory = [f"{figures[at]:.0f}" for at in ("first", "last", "end", "most")]
            name = (
                "detect --proposals 50 --scale 0.2 --precision int8"
                if task == "detect"
                else "propose --method selective-search"
            )
            rows.append((name, str(arguments.pictures), *memory, *growth, f"{figures['seconds']:.0f}"))
    columns = ("", "pictures", f"{arguments.first}", "last", "end", "most", "last %", "end %", "s")
    show("Resident memory in MiB after some, all and the end, and its growth", columns, rows, arguments.markdown)


if __name__ == "__main__":
    main()
