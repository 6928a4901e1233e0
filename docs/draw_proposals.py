"""Draw docs/proposals.jpg: the regions that selective search begins with, and its first 100 and 1,000 boxes.

Run as ``python docs/draw_proposals.py``.
"""

import colorsys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from skimage.data import astronaut

from inception_rcnn.proposals import selective_search
from inception_rcnn.proposals.search.segmentation import pixel_graph, segment
from inception_rcnn.proposals.search.selective_search import convert_colour

GAP = 8


def paint_regions(image: np.ndarray) -> Image.Image:
    """Every initial region of one hierarchy (HSV, k = 100) in its mean colour."""
    labels, count = segment(pixel_graph(convert_colour(image, "HSV")), 100, 100)
    sums = np.stack([np.bincount(labels.ravel(), image[..., c].ravel(), count) for c in range(3)], axis=1)
    means = (sums / np.bincount(labels.ravel(), minlength=count)[:, None]).astype(np.uint8)
    painted = means[labels]
    edges = np.zeros(labels.shape, bool)
    edges[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edges[1:] |= labels[1:] != labels[:-1]
    painted[edges] = painted[edges] // 2
    return Image.fromarray(painted)


def draw_boxes(image: np.ndarray, count: int, opacity: int) -> Image.Image:
    """Draw the first boxes on a dark grey picture, the best in yellow, the last in blue."""
    picture = Image.fromarray(image).convert("L").point(lambda grey: 15 + 0.45 * grey).convert("RGBA")
    boxes, _ = selective_search(image, limit=count)
    for rank in range(len(boxes) - 1, -1, -1):
        share = rank / len(boxes)
        colour = colorsys.hsv_to_rgb(0.14 + 0.46 * share, 0.85, 1.0)
        layer = Image.new("RGBA", picture.size)
        outline = (*(round(255 * c) for c in colour), opacity)
        ImageDraw.Draw(layer).rectangle([*(float(v) for v in boxes[rank] - [0, 0, 1, 1])], outline=outline)
        picture.alpha_composite(layer)
    return picture.convert("RGB")


def main() -> None:
    """Draw three panels side by side."""
    image = astronaut()
    panels = [paint_regions(image), draw_boxes(image, 100, 190), draw_boxes(image, 1000, 70)]
    width, height = panels[0].size
    sheet = Image.new("RGB", (3 * width + 2 * GAP, height), "white")
    for i, panel in enumerate(panels):
        sheet.paste(panel, (i * (width + GAP), 0))
    sheet.save(Path(__file__).with_name("proposals.jpg"), quality=88)


if __name__ == "__main__":
    main()
