"""Pictures with detections drawn onto them: boxes, class names and scores."""

import colorsys
import io
import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..data import Detections
from ..data.arguments import check_number
from ..data.score_calibration import ScoreCalibration

# Of scores that are not calibrated. Above the score with the best F1 on the pictures set aside from training (0.28):
# drawn boxes should be right.
DRAW_SCORE = 0.4
GOLDEN_RATIO = 0.6180339887


class DrawRule(NamedTuple):
    """Which detections are drawn: those with at least a score, but none of some classes.

    Examples
    --------
    >>> boxes = np.float32([[0, 0, 8, 8]] * 3)
    >>> found = Detections(boxes, [0.9, 0.6, 0.2], [0, 1, 1], ("cup", "zebra"))
    >>> DrawRule(0.5)(found).names, DrawRule(0.5, ("cup",))(found).names
    (['cup', 'zebra'], ['zebra'])
    """

    score: float
    hidden: tuple[str, ...] = ()

    def __call__(self, found: Detections) -> Detections:
        """Return the detections that are drawn."""
        # In float32, as a run has scores: in JSON they have decimals.
        drawn = found.scores.astype(np.float32) >= np.float32(self.score)
        if self.hidden:
            drawn &= ~np.isin(found.labels, [i for i, name in enumerate(found.classes) if name in self.hidden])
        return found[drawn]


def default_draw_score(calibration: ScoreCalibration | None) -> float:
    """Return the score from which detections are drawn: that of the best F1 if it is known, else `DRAW_SCORE`.

    Examples
    --------
    >>> default_draw_score(ScoreCalibration((1,), (0,), threshold=0.45)), default_draw_score(None)
    (0.45, 0.4)
    """
    return DRAW_SCORE if calibration is None else calibration.threshold


def class_colour(label: int) -> tuple[int, int, int]:
    """Colour of a class: neighbouring labels differ much in hue, and all are dark enough for white text.

    Parameters
    ----------
    label : int

    Returns
    -------
    tuple of int
        Red, green, blue, 0..255.

    Examples
    --------
    >>> class_colour(0)
    (204, 20, 67)
    """
    hue = (0.958 + label * GOLDEN_RATIO) % 1.0
    # At the same value, yellow to cyan look lighter than the other hues.
    value = 0.60 if 0.1 < hue < 0.54 else 0.80
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.9, value)
    return round(red * 255), round(green * 255), round(blue * 255)


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def as_jpeg(image: Image.Image, quality: int = 90) -> bytes:
    r"""Encode a picture, by default as drawn pictures are; in memory, where a full disk cannot cut it off unnoticed.

    Examples
    --------
    >>> as_jpeg(Image.new("RGB", (8, 8)))[:2]
    b'\xff\xd8'
    """
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=quality)
    return file.getvalue()


def draw_detections(image: NDArray[np.uint8], detections: Detections, min_score: float = DRAW_SCORE) -> Image.Image:
    """Draw boxes, class names and scores onto a copy of a picture.

    Parameters
    ----------
    image : ndarray, shape (H, W, 3), uint8
        RGB.
    detections : Detections
    min_score : float
        Detections with lower scores are not drawn.

    Returns
    -------
    PIL.Image.Image
        RGB, of the same size.

    Raises
    ------
    SettingError
        If `min_score` is no number.

    Examples
    --------
    >>> from inception_rcnn.data import Detections
    >>> none = Detections.empty(("cat",))
    >>> draw_detections(np.zeros((20, 30, 3), np.uint8), none).size
    (30, 20)
    """
    check_number("min_score", min_score, -math.inf)
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    unit = max(picture.size) / 500
    line = max(2, round(2 * unit))
    font = _font(max(11, round(13 * unit)))
    shown = [i for i in np.argsort(detections.scores, kind="stable") if detections.scores[i] >= min_score]
    for i in shown:
        x1, y1, x2, y2 = detections.boxes[i].tolist()
        # The last pixel of a box that ends at x2 is x2 - 1.
        corners = (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1))
        draw.rectangle(corners, outline=class_colour(int(detections.labels[i])), width=line)
    # Labels last, the best first: no box may cross the label of a detection with a higher score.
    taken: list[tuple[float, float, float, float]] = []
    for i in reversed(shown):
        x1, y1, _, y2 = detections.boxes[i].tolist()
        text = f"{detections.classes[detections.labels[i]]} {detections.scores[i]:.2f}"
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        pad = line
        width, height = right - left + 2 * pad, bottom - top + 2 * pad
        x = min(max(0, x1), max(0, picture.width - width))
        # The first free place of three: above the box, inside at its upper edge, inside at its lower edge.
        places = [y for y in (y1 - height, y1, y2 - height) if 0 <= y <= picture.height - height] or [0]
        free = [y for y in places if not any(_overlap((x, y, x + width, y + height), other) for other in taken)]
        y = (free or places)[0]
        taken.append((x, y, x + width, y + height))
        draw.rectangle((x, y, x + width, y + height), fill=class_colour(int(detections.labels[i])))
        draw.text((x + pad - left, y + pad - top), text, fill="white", font=font)
    return picture


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
