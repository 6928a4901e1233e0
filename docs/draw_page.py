"""Draw docs/report.webp: the page of a run over photographs of scikit-image, in a browser.

Run as ``python docs/draw_page.py``; it needs Chromium and chromedriver. Weaker detections are shown than usual.
"""

import io
import shutil
import tempfile
import time
from pathlib import Path

import skimage
from PIL import Image
from selenium import webdriver

from inception_rcnn.detect import Detector, detect_batch

NAMES = (
    "chelsea.png", "astronaut.png", "coffee.png", "camera.png", "rocket.jpg", "hubble_deep_field.jpg",
)  # fmt: skip
WIDTH, HEIGHT = 1040, 520


def photograph(page: Path) -> Image.Image:
    """Return what a window of the browser shows of a page."""
    options = webdriver.ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "hide-scrollbars", "disable-background-networking"):
        options.add_argument(f"--{flag}")
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        metrics = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1.5, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get(page.as_uri())
        browser.execute_script("document.querySelector('.about').remove()")  # the name of a temporary folder
        time.sleep(1)
        return Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    finally:
        browser.quit()


if __name__ == "__main__":
    photographs = Path(skimage.__file__).parent / "data"
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "photographs")
        detect_batch([photographs / name for name in NAMES], output, Detector.load("voc", device="cpu"), draw_score=0.2)
        photograph(output / "report.html").save(Path(__file__).parent / "report.webp", quality=82, method=6)
