"""Draw docs/proposals.jpg: the regions that selective search begins with, and its first 100 and 1,000 boxes.

And docs/masks.jpg: regions of two photographs, the first 1,500 of each, that overlap most with boxes drawn by hand.

Run as ``python docs/draw_proposals.py``.
"""

import colorsys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from skimage.data import astronaut

from inception_rcnn.data import box_iou, read_image
from inception_rcnn.proposals import SelectiveSearch, selective_search
from inception_rcnn.proposals.search.segmentation import pixel_graph, segment
from inception_rcnn.proposals.search.selective_search import convert_colour

GAP = 8
HEIGHT = 400


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


def paint_masks(name: str, objects: list[list[int]]) -> Image.Image:
    """Paint the regions whose boxes fit best to some boxes, each in its colour, and draw their outlines."""
    image = read_image(Path(__file__).parent / "photographs" / name)
    regions = SelectiveSearch("quality", limit=1500).regions(image)
    painted = 0.35 * image.mean(axis=2, keepdims=True).repeat(3, axis=2)
    best = box_iou(np.float32(objects), regions.boxes).argmax(axis=1)
    for i, index in enumerate(best):
        colour = 255 * np.array(colorsys.hsv_to_rgb(0.14 + 0.3 * i, 0.85, 1.0))
        mask = regions.mask(index)
        painted[mask] = 0.55 * image[mask] + 0.45 * colour
    picture = Image.fromarray(painted.astype(np.uint8))
    for i, index in enumerate(best):
        colour = tuple(round(255 * c) for c in colorsys.hsv_to_rgb(0.14 + 0.3 * i, 0.85, 1.0))
        for outline in regions.polygons(index):
            ImageDraw.Draw(picture).polygon([tuple(point) for point in outline.tolist()], outline=colour)
    return picture.resize((round(HEIGHT * picture.width / picture.height), HEIGHT))


def side_by_side(panels: list[Image.Image], name: str) -> None:
    """Write pictures of one height as one."""
    sheet = Image.new("RGB", (sum(one.width + GAP for one in panels) - GAP, panels[0].height), "white")
    left = 0
    for panel in panels:
        sheet.paste(panel, (left, 0))
        left += panel.width + GAP
    sheet.save(Path(__file__).with_name(name), quality=88)


def main() -> None:
    """Draw both."""
    image = astronaut()
    panels = [paint_regions(image), draw_boxes(image, 100, 190), draw_boxes(image, 1000, 70)]
    side_by_side(panels, "proposals.jpg")
    dog = paint_masks("dog.jpg", [[130, 220, 310, 540], [465, 75, 690, 172], [117, 124, 570, 428]])
    side_by_side([dog, paint_masks("eagle.jpg", [[113, 98, 625, 425]])], "masks.jpg")


if __name__ == "__main__":
    main()
