"""Draw docs/detections.jpg and docs/failures.jpg: what the bundled detector finds in photographs.

Run as ``python docs/draw_detections.py``. The first has what `detect` draws by default, of docs/photographs; for the
failures, of scikit-image's photographs, weaker detections are drawn.
"""

from collections.abc import Sequence
from pathlib import Path

import skimage
from PIL import Image

from inception_rcnn.data import read_image
from inception_rcnn.detect import Detector
from inception_rcnn.detect.drawing import default_draw_score, draw_detections

HEIGHT, GAP = 400, 8
HERE, SAMPLES = Path(__file__).parent, Path(skimage.__file__).parent / "data"


def row(detector: Detector, photographs: Sequence[Path], min_score: float) -> Image.Image:
    """Photographs side by side with what is found in them."""
    drawn = []
    for path in photographs:
        image = read_image(path)
        picture = draw_detections(image, detector(image), min_score)
        drawn.append(picture.resize((round(picture.width * HEIGHT / picture.height), HEIGHT), Image.Resampling.LANCZOS))
    page = Image.new("RGB", (sum(picture.width + GAP for picture in drawn) - GAP, HEIGHT), "white")
    left = 0
    for picture in drawn:
        page.paste(picture, (left, 0))
        left += picture.width + GAP
    return page


if __name__ == "__main__":
    voc = Detector.load("voc", device="cpu")
    found = [HERE / "photographs" / name for name in ("dog.jpg", "eagle.jpg")]
    row(voc, found, default_draw_score(voc.calibration)).save(HERE / "detections.jpg", quality=88)
    failed = [SAMPLES / name for name in ("motorcycle_left.png", "coffee.png", "retina.jpg")]
    row(voc, failed, 0.15).save(HERE / "failures.jpg", quality=85)
