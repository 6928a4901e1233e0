"""What a cluster costs: `detect` by one process, and by Ray with 1 and 2 workers on this machine.

python benchmarks/cluster.py [PICTURES] [--pictures 500] [--few 20] [--markdown]

PICTURES is a folder; without it scikit-image's photographs are taken, 320 pixels wide. They stand under so many names
in a temporary folder, as links. The settings are such that a picture is little work. Each run is a process of its own,
with one thread for the network. The processor's time is that of all its processes, Ray's own too (/proc, Linux). "Ray's
share" is what of it is not the work on pictures, which the workers measure, as a part of that work. Every run is done
with few pictures and with all: the difference of both is what the further pictures cost, without the start of anything.
"start" is what remains.
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
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soak import NAMES, link
from tables import show

from inception_rcnn.data import find_images

if TYPE_CHECKING:
    from inception_rcnn.detect.runs.stages import Timed

SETTINGS: dict[str, Any] = {"method": "multibox", "proposals": 50, "second_look": 0, "scales": (0.5,)}


def processor_seconds() -> float:
    """Return the processor's time of this process and all below it, those that ended included, in seconds."""
    parents, seconds = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # It has ended.
            parents[int(folder.name)] = int(fields[1])
            seconds[int(folder.name)] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def is_below(process: int) -> bool:
        while process != os.getpid():
            if process not in parents:
                return False
            process = parents[process]
        return True

    return sum(spent for process, spent in seconds.items() if is_below(process))


class Measured:
    """The work of a worker, with the processor's time that it takes."""

    def __init__(self, work: Callable[..., Timed]) -> None:
        self.work = work

    def __call__(self, *given: Any) -> Timed:
        """Work on a picture."""
        began = time.thread_time()
        answer = self.work(*given)
        answer.seconds["processor"] = time.thread_time() - began
        return answer


def run(folder: Path, count: int, workers: int) -> tuple[float, float, float]:
    """Detect in pictures, by so many workers of Ray or, with 0, in this process.

    Returns
    -------
    float, float, float
        Seconds by the clock, of the processor, and of the processor for the work itself, which only workers measure.
    """
    import cluster  # this file, under the name by which the workers find it

    from inception_rcnn.detect import Detector, detect_batch
    from inception_rcnn.detect.runs import detection
    from inception_rcnn.detect.runs.cluster import LOCAL, connected

    divide = detection.detection_works
    detection.detection_works = lambda *given, **options: [cluster.Measured(one) for one in divide(*given, **options)]

    paths = find_images(folder)[:count]
    began = time.perf_counter()
    address = LOCAL if workers else None
    with tempfile.TemporaryDirectory() as output, connected(LOCAL, workers) if workers else nullcontext():
        detector = Detector.load("voc", device="cpu", threads=1, **SETTINGS)
        summary = detect_batch(paths, Path(output), detector, workers=workers or 1, cluster=address)
        assert summary.pictures == count, summary
        work = summary.seconds.get("processor", 0.0)
        return time.perf_counter() - began, processor_seconds(), work


def write_samples(folder: Path) -> list[Path]:
    """Write scikit-image's photographs, 320 pixels wide."""
    import skimage
    from PIL import Image

    samples = []
    for path in sorted((Path(skimage.__file__).parent / "data").iterdir()):
        if path.stem in NAMES:
            image = Image.open(path).convert("RGB")
            samples.append(folder / f"{path.stem}.jpg")
            image.resize((320, 320 * image.height // image.width)).save(samples[-1], quality=90)
    return samples


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="?", type=Path, metavar="PICTURES", help="a folder of pictures")
    parser.add_argument("--pictures", type=int, default=500, help="how many names")
    parser.add_argument("--few", type=int, default=20, help="how many in the run that tells what the start costs")
    parser.add_argument("--task", type=int, nargs=2, metavar=("WORKERS", "COUNT"), help=argparse.SUPPRESS)
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    if arguments.task:
        workers, count = arguments.task
        print(json.dumps(run(arguments.sources, count, workers)))
        return
    if not 0 < arguments.few < arguments.pictures:
        parser.error("--few: give a number above 0 and below --pictures")
    rows = []
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as samples:
        sources = find_images(arguments.sources) if arguments.sources else write_samples(Path(samples))
        link(sources, Path(folder), arguments.pictures)
        for workers in (0, 1, 2):
            figures = []
            for count in (arguments.few, arguments.pictures):
                command = [sys.executable, __file__, folder, "--task", str(workers), str(count)]
                folders = f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
                environment = os.environ | {"PYTHONPATH": folders}
                output = subprocess.check_output(command, text=True, env=environment)
                figures.append(json.loads(output.splitlines()[-1]))
                print(f"{workers} workers, {count} pictures: {figures[-1]}", file=sys.stderr)
            further = arguments.pictures - arguments.few
            clock, processor, work = ((whole - few) / further for few, whole in zip(*figures, strict=True))
            start = [few - arguments.few * each for few, each in zip(figures[0], (clock, processor), strict=False)]
            name = f"Ray, {workers} worker{'s' * (workers > 1)}" if workers else "one process"
            share = f"{100 * (processor / work - 1):.1f}" if workers else ""
            rows.append((name, f"{1 / clock:.2f}", f"{processor:.3f}", share, *(f"{one:.1f}" for one in start)))
    columns = ("", "pictures/s", "CPU s a picture", "Ray's share %", "start s", "start CPU s")
    settings = " ".join(f"{name} {value}" for name, value in SETTINGS.items())
    title = f"detect with {settings}: {arguments.pictures} pictures"
    show(title, columns, rows, arguments.markdown)


if __name__ == "__main__":
    main()
