"""The pictures of the report: the worst mistakes, and the objects that were missed."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...data import Detections, ImageError, Picture, box_iou, read_image
from ..errors import ERROR_TYPES, FalsePositives
from ..matching import HIT, Matches, ilsvrc_thresholds
from .charts import shorten_name

_PICTURE_WIDTH = 420  # pixels
_JPEG_QUALITY = 80
# More pictures of one class in a gallery, and frequent classes fill it.
PICTURES_PER_CLASS = 3


class Card(NamedTuple):
    """One picture of a gallery: its text, the part of the picture that is seen, that part's pixels, the boxes in it."""

    label: str
    kind: str
    score: str
    lines: list[str]
    file: str
    view: tuple[float, float, float, float]
    crop: tuple[float, float, float, float]
    pixels: str
    boxes: list[tuple[str, tuple[float, float, float, float]]]


def _spread(order: Iterable[int], classes: NDArray[np.int64], count: int) -> list[int]:
    """Choose the first `count` of a ranking, few of any one class."""
    chosen: list[int] = []
    seen: dict[int, int] = {}
    for i in order:
        label = int(classes[i])
        if seen.get(label, 0) < PICTURES_PER_CLASS:
            seen[label] = seen.get(label, 0) + 1
            chosen.append(int(i))
            if len(chosen) == count:
                break
    return chosen


def _iou_threshold(box: NDArray[np.float32], metric: str) -> float:
    """Overlap that makes a detection of the object a hit, by the rules of `match_voc` or `match_ilsvrc`."""
    if metric != "ilsvrc":
        return 0.5
    return float(ilsvrc_thresholds(box[None].astype(np.float64))[0])


def worst_mistakes(
    pictures: Sequence[Picture],
    detections: Mapping[str, Detections],
    matches: Mapping[str, Matches],
    false: Mapping[str, FalsePositives],
    count: int,
    metric: str,
    max_pixels: int,
) -> list[Card]:
    """Make cards of the false positives with the highest scores."""
    names = tuple(matches)
    # Few of a class are shown, so only its first are candidates.
    candidates = [
        (label, row)
        for label, name in enumerate(names)
        for row in np.flatnonzero(false[name].kind >= 0)[:PICTURES_PER_CLASS].tolist()
    ]
    score = np.array([matches[names[label]].score[row] for label, row in candidates])
    cards = []
    for i in np.argsort(-score, kind="stable")[:count]:
        label, row = candidates[i]
        name = names[label]
        one, mistake = matches[name], false[name]
        picture = pictures[one.picture[row]]
        claim = detections[picture.image_id].boxes[one.detection[row]]
        kind = ERROR_TYPES[mistake.kind[row]]
        overlap = f"IoU {mistake.overlap[row]:.3f}"
        boxes = [("claim", claim)]
        if one.object[row] >= 0:
            boxes.append(("own", picture.boxes[one.object[row]]))
        if kind == "localisation":
            # Good enough for a hit, and yet it is none.
            again = one.overlap[row] >= _iou_threshold(picture.boxes[one.object[row]], metric)
            lines = [f"{overlap} with an object " + ("that has been found before" if again else "of the class")]
        elif kind == "background":
            there = (picture.labels == label).any()
            lines = ["no object of any class here", "the class is elsewhere in the picture" if there else ""]
        else:
            lines = [f"on {shorten_name(names[picture.labels[mistake.object[row]]])}, {overlap}"]
            boxes.append(("foreign", picture.boxes[mistake.object[row]]))
        cards.append(picture_card(picture, name, kind, f"{one.score[row]:.3f}", lines, boxes, max_pixels))
    return cards


def missed_objects(
    pictures: Sequence[Picture],
    detections: Mapping[str, Detections],
    matches: Mapping[str, Matches],
    count: int,
    metric: str,
    max_pixels: int,
) -> list[Card]:
    """Make cards of the objects without a hit that fill the largest part of their picture."""
    names = tuple(matches)
    lengths = [len(picture.labels) for picture in pictures]
    start = np.cumsum([0, *lengths])
    owner = np.repeat(np.arange(len(pictures)), lengths)
    labels = np.concatenate([np.zeros(0, np.int64), *(picture.labels for picture in pictures)])
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(picture.boxes for picture in pictures)])
    missed = ~np.concatenate([np.zeros(0, bool), *(picture.difficult | picture.crowd for picture in pictures)])
    for one in matches.values():
        hit = one.outcome == HIT
        missed[start[one.picture[hit]] + one.object[hit]] = False
    sides = [_known_size(picture, max_pixels) if len(picture.labels) else (1, 1) for picture in pictures]
    size = np.array([width * height for width, height in sides], np.float64)
    share = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / size[owner] if len(boxes) else np.zeros(0)
    rank = np.argsort(-share, kind="stable")
    cards = []
    for i in _spread(rank[missed[rank]], labels, count):
        picture, name = pictures[owner[i]], names[labels[i]]
        shown = [("own", boxes[i])]
        lines = [f"{share[i]:.0%} of the picture"]
        found = detections.get(picture.image_id)
        if found is not None and len(found):
            overlaps = box_iou(boxes[i : i + 1], found.boxes)[0]
            own = np.array([found.classes[label] == name for label in found.labels])
            near = int(np.where(own, overlaps, 0).argmax())
            if own[near] and overlaps[near] >= 0.1:
                shown.append(("claim", found.boxes[near]))
                lines.append(f"best {shorten_name(name)}: IoU {overlaps[near]:.3f}, score {found.scores[near]:.3f}")
                if overlaps[near] >= np.float32(_iou_threshold(boxes[i], metric)):
                    lines.append("it counts for another object")
            good = np.flatnonzero((overlaps >= np.float32(_iou_threshold(boxes[i], metric))) & ~own)
            if len(good):
                top = good[found.scores[good].argmax()]
                shown.append(("foreign", found.boxes[top]))
                other = shorten_name(found.classes[found.labels[top]])
                lines.append(f"best of another class: {other}, score {found.scores[top]:.3f}")
        if len(lines) == 1:
            lines.append("no detection covers it")
        cards.append(picture_card(picture, name, "", "", lines, shown, max_pixels))
    return cards


def _known_size(picture: Picture, max_pixels: int) -> tuple[float, float]:
    """Return width and height: of the file where the annotation does not say them, else how far the objects reach."""
    if picture.width and picture.height:
        return picture.width, picture.height
    try:
        height, width = read_image(picture.path, max_pixels).shape[:2]
    except ImageError:
        width, height = np.maximum(picture.boxes.max(0, initial=1)[2:], 1).tolist()
    return width, height


def picture_card(
    picture: Picture,
    label: str,
    kind: str,
    score: str,
    lines: Sequence[str],
    boxes: Sequence[tuple[str, NDArray[np.float32]]],
    max_pixels: int,
) -> Card:
    """Make a card of the part of a picture that has some boxes, each of a role of the style sheet."""
    size = np.array(_known_size(picture, max_pixels), np.float64)
    low, high = _cut_around(np.stack([box for _, box in boxes]).astype(np.float64), size)
    inside = np.floor(np.clip(low, 0, size)), np.ceil(np.clip(high, 0, size))
    return Card(
        label=label,
        kind=kind,
        score=score,
        lines=[line for line in lines if line],
        file=Path(picture.path).name,
        view=_corner_and_size(np.concatenate([low, high])),
        crop=_corner_and_size(np.concatenate(inside)),
        pixels=_embed_pixels(Path(picture.path), np.concatenate([inside[0] / size, inside[1] / size]), max_pixels),
        boxes=[(role, _corner_and_size(box)) for role, box in boxes],
    )


def _cut_around(
    boxes: NDArray[np.float64], size: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Corners of the part of a picture to show: the boxes with some context, 4 to 3, within the picture if possible."""

    def widen(sides: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.maximum(sides, sides[::-1] * (4 / 3, 3 / 4))

    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    sides = np.minimum(widen(high - low + 2 * max(16, 0.2 * (high - low).max())), widen(size))
    centre = np.where(sides < size, np.clip((low + high) / 2, sides / 2, size - sides / 2), size / 2)
    return centre - sides / 2, centre + sides / 2


def _corner_and_size(box: NDArray[Any]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box.tolist()
    return round(x1, 1), round(y1, 1), round(x2 - x1, 1), round(y2 - y1, 1)


def _embed_pixels(path: Path, part: NDArray[np.float64], max_pixels: int) -> str:
    """Part of a picture file (fractions of its sides) as the URL of a small JPEG, or nothing if it cannot be read."""
    try:
        image = read_image(path, max_pixels)
    except ImageError:
        return ""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = (part * (width, height, width, height)).round().astype(int).tolist()
    picture = Image.fromarray(image[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)])
    picture.thumbnail((_PICTURE_WIDTH, _PICTURE_WIDTH))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
