"""What a machine that has compiled nothing yet waits for: the first proposals, the first detection, kernel by kernel.

python benchmarks/cold_start.py [--runs 3] [--markdown]

Each task runs in a process of its own, first with an empty folder for compiled code, then with the one that it filled.
CPU seconds are the whole process's, imports and the work itself included; what compiling takes is the difference. The
picture is scikit-image's "chelsea". By kernel: CPU seconds of numba's own events, what is compiled for a kernel (its
helpers, numba's library) counted with it. Kernels that are compiled while models load share the interpreter with that,
so their seconds are taken from the tasks that only search, and for the others from a process that loads nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from tables import show

LOAD = "from skimage.data import chelsea\nimage = chelsea()\n"
SEARCH = LOAD + "from inception_rcnn.proposals import SelectiveSearch\nSelectiveSearch({!r})(image)"
DETECT = LOAD + "from inception_rcnn.detect import Detector\nDetector.load('voc', device='cpu')(image)"
COMMAND = """
import os, sys, tempfile, skimage
from inception_rcnn.detect.cli.app import main
folder = os.path.join(os.path.dirname(skimage.__file__), "data")
images = [os.path.join(folder, name + ".png") for name in ("chelsea", "astronaut", "motorcycle_left")]
sys.stderr = open(os.devnull, "w")
with tempfile.TemporaryDirectory() as output:
    main(["detect", *images, "--output", output, "--device", "cpu"])
"""
TASKS = {
    'SelectiveSearch("single")': SEARCH.format("single"),
    'SelectiveSearch("fast")': SEARCH.format("fast"),
    'Detector.load("voc")(image)': DETECT,
    "inception-rcnn detect, 3 pictures": COMMAND,
}
# Prints what each top kernel took, as JSON, in a process that compiles and does nothing else.
KERNELS = """
import json, time
from numba.core import event
import numba
numba.njit(lambda: 0)()  # numba's own first steps, which no kernel is to be charged with
from inception_rcnn.data.system.kernels import compile_all
from inception_rcnn.data.nms import NMS_KERNELS, SOFT_NMS_KERNELS
from inception_rcnn.backbone.regions.roi_align import KERNELS as REGION_KERNELS
from inception_rcnn.proposals import SelectiveSearch
spent = {}
for kernel in (*SelectiveSearch().kernels, *NMS_KERNELS, *SOFT_NMS_KERNELS, *REGION_KERNELS):
    began = time.process_time()
    compile_all(kernel)
    function = kernel.py_func
    spent[function.__module__.rpartition(".")[2] + "." + function.__name__] = time.process_time() - began
print(json.dumps(spent))
"""


def measure(code: str, folder: str) -> tuple[float, float, str]:
    """CPU and clock seconds of a process, and what it printed."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": folder, "OMP_NUM_THREADS": "1"}
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
    )
    after, ended = os.times(), time.perf_counter()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return spent, ended - began, done.stdout.decode()


def main() -> None:
    """Measure, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="of which the median is printed")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    rows = []
    for name, code in TASKS.items():
        seconds: list[list[float]] = [[], [], [], []]
        for _ in range(arguments.runs):
            with tempfile.TemporaryDirectory() as folder:
                for column, (cpu, clock, _) in zip((0, 2), (measure(code, folder), measure(code, folder)), strict=True):
                    seconds[column].append(cpu)
                    seconds[column + 1].append(clock)
        rows.append((name, *(f"{statistics.median(column):.2f}" for column in seconds)))
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    columns = ("task", "empty: CPU s", "by the clock", "filled: CPU s", "by the clock")
    show("First calls", columns, rows, arguments.markdown)

    kernels: list[dict[str, float]] = []
    for _ in range(arguments.runs):
        with tempfile.TemporaryDirectory() as folder:
            kernels.append(json.loads(measure(KERNELS, folder)[2]))
    spent = {name: statistics.median(run[name] for run in kernels) for name in kernels[0]}
    rows = [(name, f"{value:.2f}") for name, value in sorted(spent.items(), key=lambda item: -item[1])]
    rows.append(("all", f"{sum(spent.values()):.2f}"))
    show("Compiling", ("kernel", "CPU s"), rows, arguments.markdown)


if __name__ == "__main__":
    main()
