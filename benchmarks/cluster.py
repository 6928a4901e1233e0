"""What a cluster costs: `detect` by one process, and by Ray with 1 and 2 workers on this machine.

python benchmarks/cluster.py [PICTURES] [--pictures 500] [--few 20] [--markdown]

PICTURES is a folder; without it scikit-image's photographs are taken, 320 pixels wide. They stand under so many names
in a temporary folder, as links. The settings are such that a picture is little work. Each run is a process of its own,
with one thread for the network. The processor's time is that of all its processes, Ray's own too (/proc, Linux); "more"
is by how much it is above that of one process. Every run is done with few pictures and with all: the difference of both
is what the further pictures cost, without the start of anything. "start" is what remains.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from soak import NAMES, link
from tables import show

from inception_rcnn.data import find_images

SETTINGS: dict[str, Any] = {"method": "multibox", "proposals": 50, "second_look": 0, "scales": (0.5,)}


class Processor(threading.Thread):
    """The processor's time of this process and all below it, those that ended included, in seconds.

    It is looked at ten times a second: what a process that ended had used is in nobody's counters if its parent did not
    wait for it.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.used: dict[tuple[int, str], float] = {}
        self.start()

    def run(self) -> None:
        """Look until the process ends."""
        while True:
            self.look()
            time.sleep(0.1)

    def look(self) -> None:
        """Note what each process has used."""
        parents, used = {}, {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    fields = (folder / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue  # It has ended.
                process = int(folder.name)
                parents[process] = int(fields[1])
                used[process, fields[19]] = sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
        below = {os.getpid()}
        while more := {process for process, parent in parents.items() if parent in below} - below:
            below |= more
        self.used |= {(process, start): spent for (process, start), spent in used.items() if process in below}

    def seconds(self) -> float:
        """Return what all have used until now."""
        self.look()
        return sum(self.used.values())


def run(folder: Path, count: int, workers: int) -> tuple[float, float]:
    """Detect in pictures, by so many workers of Ray or, with 0, in this process.

    Returns
    -------
    float, float
        Seconds by the clock, and of the processor.
    """
    from inception_rcnn.detect import Detector, detect_batch
    from inception_rcnn.detect.runs.cluster import LOCAL, connected

    processor = Processor()
    paths = find_images(folder)[:count]
    began = time.perf_counter()
    address = LOCAL if workers else None
    with tempfile.TemporaryDirectory() as output, connected(LOCAL, workers) if workers else nullcontext():
        detector = Detector.load("voc", device="cpu", threads=1, **SETTINGS)
        summary = detect_batch(paths, Path(output), detector, workers=workers or 1, cluster=address)
        assert summary.pictures == count, summary
        return time.perf_counter() - began, processor.seconds()


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
    rows, alone = [], 0.0
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as samples:
        sources = find_images(arguments.sources) if arguments.sources else write_samples(Path(samples))
        link(sources, Path(folder), arguments.pictures)
        for workers in (0, 1, 2):
            figures = []
            for count in (arguments.few, arguments.pictures):
                command = [sys.executable, __file__, folder, "--task", str(workers), str(count)]
                output = subprocess.check_output(command, text=True)
                figures.append(json.loads(output.splitlines()[-1]))
                print(f"{workers} workers, {count} pictures: {figures[-1]}", file=sys.stderr)
            further = arguments.pictures - arguments.few
            clock, processor = each = [(whole - few) / further for few, whole in zip(*figures, strict=True)]
            start = [few - arguments.few * one for few, one in zip(figures[0], each, strict=True)]
            name = f"Ray, {workers} worker{'s' * (workers > 1)}" if workers else "one process"
            alone = processor if workers == 0 else alone
            more = f"{100 * (processor / alone - 1):+.1f}" if workers else ""
            rows.append((name, f"{1 / clock:.2f}", f"{processor:.3f}", more, *(f"{one:.1f}" for one in start)))
    columns = ("", "pictures/s", "CPU s a picture", "more %", "start s", "start CPU s")
    settings = " ".join(f"{name} {value}" for name, value in SETTINGS.items())
    title = f"detect with {settings}: {arguments.pictures} pictures"
    show(title, columns, rows, arguments.markdown)


if __name__ == "__main__":
    main()
