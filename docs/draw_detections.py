"""Draw docs/detections.jpg and docs/failures.jpg: what the bundled detector finds in photographs of scikit-image.

Run as ``python docs/draw_detections.py``. For the failures weaker detections are drawn than usual.
"""

from collections.abc import Sequence
from pathlib import Path

import skimage
from PIL import Image

from inception_rcnn.data import read_image
from inception_rcnn.detect import Detector
from inception_rcnn.detect.drawing import DRAW_SCORE, draw_detections

HEIGHT, GAP = 400, 8
PHOTOGRAPHS = Path(skimage.__file__).parent / "data"


def row(detector: Detector, names: Sequence[str], min_score: float) -> Image.Image:
    """Photographs side by side with what is found in them."""
    drawn = []
    for name in names:
        image = read_image(PHOTOGRAPHS / name)
        picture = draw_detections(image, detector(image), min_score)
        drawn.append(picture.resize((round(picture.width * HEIGHT / picture.height), HEIGHT), Image.Resampling.LANCZOS))
    page = Image.new("RGB", (sum(picture.width + GAP for picture in drawn) - GAP, HEIGHT), "white")
    left = 0
    for picture in drawn:
        page.paste(picture, (left, 0))
        left += picture.width + GAP
    return page


if __name__ == "__main__":
    here, voc = Path(__file__).parent, Detector.load("voc", device="cpu")
    row(voc, ["chelsea.png", "astronaut.png"], DRAW_SCORE).save(here / "detections.jpg", quality=90)
    row(voc, ["motorcycle_left.png", "coffee.png", "retina.jpg"], 0.15).save(here / "failures.jpg", quality=85)
