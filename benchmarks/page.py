"""How long the page of a run takes to write and to open, and how fast its slider is, with made-up results.

python benchmarks/page.py [--pictures 500 --pictures 100000] [--boxes 8] [--side 500] [--markdown]

The pictures are a few random ones under many names, as links. "write" is CPU milliseconds of writing the page, for a
picture; decoding and making the small pictures are most of it. "memory" is by how much that raised the peak. "open" is
what headless Chromium takes from the address to the end of the first drawing of the gallery: the CPU time of the page's
main thread (scripts, style, layout, painting), and the time by the clock, which other programs make longer. "step" is
the same for a step of the slider, of 100 steps from 0 to 1 the mean CPU time and the median of scripts and layout by
the clock; in the order of the run, then by the number of boxes, in which pictures change places when the slider rests.
For 30 steps a second there are 33 ms. "scroll" is the CPU time for 1,000 pixels. Needs Chromium and chromedriver.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from tables import show

from inception_rcnn.data import VOC_CLASSES, Detections, write_detections
from inception_rcnn.detect.runs.page.detections import write_run_page

STEPS = """
const slider = document.getElementById("level");
document.getElementById("sort").value = arguments[0];
document.getElementById("sort").dispatchEvent(new Event("change"));
const times = [];
window.times = undefined;
function step(i) {
  if (i > 100) { window.times = times; return; }
  slider.value = i / 100;
  const began = performance.now();
  slider.dispatchEvent(new Event("input"));
  document.body.offsetHeight;  // layout is part of it
  times.push(performance.now() - began);
  requestAnimationFrame(() => step(i + 1));
}
step(0);
"""
SCROLLS = """
const times = [];
window.times = undefined;
function step(i) {
  if (i >= 50) { window.times = times; return; }
  scrollTo(0, 1000 * i);
  const began = performance.now();
  render(false);
  document.body.offsetHeight;
  times.push(performance.now() - began);
  requestAnimationFrame(() => step(i + 1));
}
step(0);
"""


def make_run(folder: Path, pictures: int, boxes: int, side: int) -> None:
    """Write a folder as a run leaves it: so many pictures with random boxes, on average `boxes` each."""
    rng = np.random.default_rng(0)
    width, height = side, side * 3 // 4
    sources = []
    (folder / "photos").mkdir(parents=True)
    for i in range(10):
        rough = rng.integers(0, 256, (12, 16, 3), np.uint8)
        path = folder / f"source{i}.jpg"
        cv2.imwrite(str(path), cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC))
        sources.append(path.resolve())
    names = [f"{i // 1000:04d}/{i:07d}.jpg" for i in range(pictures)]
    for i, name in enumerate(names):
        (folder / "photos" / name).parent.mkdir(exist_ok=True)
        (folder / "photos" / name).symlink_to(sources[i % len(sources)])

    def entries() -> Iterator[tuple[str, int, int, Detections]]:
        for name in names:
            count = rng.poisson(boxes)
            corners = rng.uniform(0, (width, height), (count, 2, 2))
            table = np.concatenate([corners.min(1), corners.max(1)], axis=1).astype(np.float32)
            scores = np.maximum(0.05, rng.beta(0.6, 1.2, count)).astype(np.float32)
            labels = np.minimum(19, rng.geometric(0.2, count) - 1)
            yield name, width, height, Detections(table, scores, labels, VOC_CLASSES)

    write_detections(folder / "detections.parquet", entries(), VOC_CLASSES)
    (folder / "run.json").write_text(json.dumps({"folder": f"{folder.resolve()}/photos/", "draw_score": 0.4}))


def open_page(page: Path, profile: str) -> dict[str, float]:
    """Open a page in a browser; return seconds, milliseconds and megabytes."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    for flag in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run",
        "disable-background-networking", "window-size=1400,1000", "enable-precise-memory-info",
        f"user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        browser.set_script_timeout(300)
        browser.get("about:blank")
        browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
        began = time.perf_counter()
        browser.get(page.resolve().as_uri())
        browser.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[arguments.length - 1]))")
        seconds = time.perf_counter() - began

        def used() -> float:
            metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
            return 1000 * next(one["value"] for one in metrics if one["name"] == "TaskDuration")

        figures = {"open": seconds, "open used": used() / 1000}

        def measured(script: str, *words: str) -> tuple[float, float]:
            before = used()
            browser.execute_script(script, *words)
            while (times := browser.execute_script("return window.times")) is None:
                time.sleep(0.5)
            return (used() - before) / len(times), float(np.median(times))

        for sort in ("run", "count"):
            figures[sort], figures[f"{sort} clock"] = measured(STEPS, sort)
        figures["scroll"], _ = measured(SCROLLS)
        figures["heap"] = browser.execute_script("return performance.memory.usedJSHeapSize") / 1e6
    finally:
        browser.quit()
    return figures


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, action="append", help="how many; repeat for more rows")
    parser.add_argument("--boxes", type=int, default=8, help="boxes of a picture, on average")
    parser.add_argument("--side", type=int, default=500, help="pixels of the longer side of the pictures")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    rows = []
    for pictures in arguments.pictures or [500, 1000]:
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as profile:
            run = Path(folder, "run")
            make_run(run, pictures, arguments.boxes, arguments.side)
            before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
            page = write_run_page(run)
            seconds = time.process_time() - began
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            figures = open_page(page, profile)
            size = page.stat().st_size / 1e6
        steps = [f"{figures[name]:.1f}" for name in ("run", "run clock", "count", "count clock", "scroll")]
        rows.append(
            (f"{pictures:,}", f"{1000 * seconds / pictures:.1f}", f"{grown:.0f}", f"{size:.1f}",
             f"{figures['open used']:.2f}", f"{figures['open']:.2f}", *steps, f"{figures['heap']:.0f}")
        )  # fmt: skip
    columns = (
        "pictures", "write, ms each", "memory, MiB", "page, MB", "open, CPU s", "clock", "step, ms", "clock",
        "step by count, ms", "clock", "scroll, ms", "heap, MB",
    )  # fmt: skip
    show("The page of a run", columns, rows, arguments.markdown)


if __name__ == "__main__":
    main()
