"""Pictures as networks get to see them in training: labels stay on their objects, sizes are those asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from builders import make_picture, random_boxes

from inception_rcnn.data import Picture
from inception_rcnn.detect.train.augmentation import augment

OBJECTS = [[20, 20, 60, 60], [100, 40, 180, 140], [30, 90, 70, 150]]


def scene(seed: int) -> tuple[np.ndarray, Picture, np.ndarray]:
    """Three rectangles, each bright in a channel of its own, the first difficult; a crowd everywhere; 60 proposals."""
    boxes = np.array([*OBJECTS, [0, 0, 200, 160]], np.float32)
    image = np.zeros((160, 200, 3), np.uint8)
    for channel, (x1, y1, x2, y2) in enumerate(OBJECTS):
        image[y1:y2, x1:x2, channel] = 120
    picture = make_picture(boxes, [0, 1, 2, 1], difficult=[0], crowd=[3], labelled=(0, 1, 2))
    return image, picture, random_boxes(60, seed=seed)


@pytest.mark.parametrize("long_sides", [None, (128, 320)])
@pytest.mark.parametrize("seed", range(40))
def test_labels_stay_on_their_objects(seed: int, long_sides: Sequence[int] | None) -> None:
    image, before, proposals = scene(seed)
    made, picture, boxes = augment(image, before, proposals, np.random.default_rng(seed), long_sides)
    assert made.shape == (picture.height, picture.width, 3)
    assert made.dtype == np.uint8
    if long_sides is None:
        assert 80 <= picture.height <= 160
        assert 100 <= picture.width <= 200
    else:
        assert max(made.shape) in long_sides
        assert all(side % 32 == 0 for side in made.shape[:2])
    for some in (picture.boxes, boxes):
        assert some.dtype == np.float32
        assert (some >= -1e-3).all()
        assert (some <= np.array([picture.width, picture.height] * 2) + 1e-3).all()
    assert len(boxes) <= len(proposals)
    assert (picture.image_id, picture.labelled) == ("a", (0, 1, 2))
    # The crowd is never lost; of the others at least one has its middle inside.
    assert picture.crowd.tolist() == [False] * (len(picture.boxes) - 1) + [True]
    assert len(picture.boxes) > 1
    for box, label in zip(picture.boxes[:-1], picture.labels[:-1], strict=True):
        x1, y1, x2, y2 = np.round(box + np.array([1, 1, -1, -1])).astype(int)
        inside = made[y1:y2, x1:x2].astype(int)
        # Exposure is the same for all channels, so that the object's stands out by as much in all of its pixels.
        assert (inside.argmax(2) == label).all()
        assert (inside.max(2) - inside.min(2) > 60).all()


def test_what_is_cut_is_no_longer_whole() -> None:
    kinds = {"whole": 0, "difficult": 0, "sliver": 0, "gone": 0, "mirrored": 0}
    for seed in range(900):
        image, before, proposals = scene(seed)
        _, picture, boxes = augment(image, before, proposals, np.random.default_rng(seed))
        sides = picture.boxes[:-1, 2:] - picture.boxes[:-1, :2]
        for label in range(3):
            whole = np.subtract(OBJECTS[label][2:], OBJECTS[label][:2])
            at = np.flatnonzero(picture.labels[:-1] == label)
            share = float(sides[at].prod(1).sum() / whole.prod())
            assert picture.difficult[at].tolist() == [label == 0 or share < 0.6] * len(at)
            kinds["whole"] += share == 1
            kinds["difficult"] += bool(len(at)) and label > 0 and share < 0.6
            kinds["sliver"] += 0 < share < 0.2
            kinds["gone"] += not len(at)
        kinds["mirrored"] += len(boxes) == 60 and not np.array_equal(boxes, proposals)
        # A box of which less than half is left is dropped.
        assert len(boxes) >= 1
    assert all(count > 10 for count in kinds.values()), kinds


def test_a_picture_without_objects() -> None:
    image, picture, proposals = scene(0)
    none = np.zeros(0, bool)
    empty = dataclasses.replace(picture, boxes=picture.boxes[:0], labels=picture.labels[:0], difficult=none, crowd=none)
    for seed in range(20):
        made, bare, boxes = augment(image, empty, proposals[:0], np.random.default_rng(seed), [64])
        assert max(made.shape) == 64
        assert (len(bare.boxes), boxes.shape) == (0, (0, 4))


def test_the_same_seed_gives_the_same_picture() -> None:
    one, two = (augment(*scene(1), np.random.default_rng(5), [96, 160]) for _ in range(2))
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[2], two[2])
