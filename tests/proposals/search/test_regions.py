"""The segments behind the boxes: each beside the mask that is put together from its parts, and pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco

from inception_rcnn.data.errors import SettingError
from inception_rcnn.proposals import SelectiveSearch, Strategy, selective_search
from inception_rcnn.proposals.search.regions import Regions


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """Draw a picture of coloured rectangles with noise, of whose regions some have holes and many touch the border."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), rng.integers(0, 256, 3), np.float64)
    for _ in range(12):
        y, x = rng.integers(-height // 3, height), rng.integers(-width // 3, width)
        h, w = rng.integers(8, height), rng.integers(8, width)
        image[max(y, 0) : y + h, max(x, 0) : x + w] = rng.integers(0, 256, 3)
    return np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


def naive_mask(regions: Regions, index: int) -> np.ndarray:
    """Put the mask of a region together from its initial regions, in the scaled picture, and stretch it."""
    level, node = regions.nodes[index]
    labels, boxes, merges = regions.hierarchies[level]
    count = len(boxes) - len(merges)

    def leaves(node: int) -> list[int]:
        return [node] if node < count else [leaf for part in merges[node - count] for leaf in leaves(part)]

    scaled = np.isin(labels, leaves(node))
    y, x = (
        np.floor((np.arange(side) + 0.5) * own / side).astype(int)
        for side, own in zip(regions.shape, labels.shape, strict=True)
    )
    return scaled[np.ix_(y, x)]


def box_around(mask: np.ndarray) -> list[int]:
    y, x = np.nonzero(mask)
    return [x.min(), y.min(), x.max() + 1, y.max() + 1]


@pytest.mark.parametrize("size", [(60, 500), (120, 90), (150, 700)])
@pytest.mark.parametrize("seed", range(3))
def test_every_form_is_that_of_the_mask_of_its_parts(size: tuple[int, int], seed: int) -> None:
    regions = SelectiveSearch("fast", limit=60, min_side=5).regions(picture(*size, seed))
    masks = regions.masks(range(len(regions)))
    assert masks.shape == (len(regions), *size)
    assert masks.dtype == bool
    assert regions.areas.tolist() == masks.sum((1, 2)).tolist()
    labels = np.random.default_rng(seed).integers(0, 4, size)
    assert regions.label_counts(labels).tolist() == [np.bincount(labels[m], minlength=4).tolist() for m in masks]
    for i, mask in enumerate(masks):
        assert (mask == naive_mask(regions, i)).all()
        assert (mask == regions.mask(i)).all()
        encoded = regions.run_lengths(i)
        assert encoded == coco.encode(np.asfortranarray(mask, np.uint8))
        assert coco.area(encoded) == regions.areas[i]


def test_every_mask_is_a_union_of_superpixels() -> None:
    regions = SelectiveSearch("fast", limit=60, min_side=5).regions(picture(120, 500, 0))
    maps = regions.superpixels
    assert len(maps) == 4
    assert {(one.shape, one.dtype.name, int(one.min())) for one in maps} == {((120, 500), "int32", 0)}
    for mask in regions.masks(range(len(regions))):
        sizes = [(np.bincount(one.ravel()), np.bincount(one[mask], minlength=one.max() + 1)) for one in maps]
        assert any(((inside == 0) | (inside == whole)).all() for whole, inside in sizes)


@given(st.integers(40, 120), st.integers(500, 900), st.integers(0, 2**32 - 1))
def test_the_box_around_a_mask_is_the_proposal(height: int, width: int, seed: int) -> None:
    regions = SelectiveSearch("single", seed=seed % 7, limit=100).regions(picture(height, width, seed))
    for i, box in enumerate(regions.boxes):
        # A pixel belongs to a region if its centre does; a side on a centre is the pixel's own.
        assert box_around(regions.mask(i)) == np.ceil(box.astype(np.float64) - 0.5).tolist()


@given(st.integers(40, 120), st.integers(40, 499), st.integers(0, 2**32 - 1))
def test_in_small_pictures_it_lies_in_the_proposal(height: int, width: int, seed: int) -> None:
    regions = SelectiveSearch("single", limit=50).regions(picture(height, width, seed))
    for i, box in enumerate(regions.boxes):
        if regions.areas[i]:
            beyond = (box_around(regions.mask(i)) - box) * [-1, -1, 1, 1]
            assert beyond.max() <= 0.5 + 1e-4


@pytest.mark.parametrize("seed", range(5))
def test_polygons_enclose_the_region_without_its_holes(seed: int) -> None:
    import cv2

    regions = SelectiveSearch("single", limit=40).regions(picture(80, 520, seed))
    for i in range(len(regions)):
        mask = regions.mask(i).astype(np.uint8)
        filled = np.zeros_like(mask)
        cv2.drawContours(filled, cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], -1, 1, cv2.FILLED)
        polygons = [outline.ravel().tolist() for outline in regions.polygons(i)]
        drawn = coco.decode(coco.merge(coco.frPyObjects(polygons, *mask.shape)))
        assert (drawn == filled).all()


@pytest.mark.parametrize("options", [{}, {"limit": 7, "seed": 3}, {"mode": "single", "min_side": 1000}])
def test_boxes_and_scores_are_those_of_the_search(options: dict) -> None:
    image = picture(90, 130, 1)
    regions = SelectiveSearch(**options).regions(image)
    boxes, scores = selective_search(image, **options)
    assert (regions.boxes == boxes).all()
    assert (regions.scores == scores).all()
    assert len(regions) == len(boxes)
    if "min_side" in options:
        assert regions.mask(0).all()


def test_a_picture_of_one_colour_is_one_region() -> None:
    regions = SelectiveSearch("single").regions(np.zeros((30, 40, 3), np.uint8))
    assert regions.mask(0).all()
    assert regions.areas.tolist() == [1200]
    assert regions.run_lengths(0) == coco.encode(np.ones((30, 40), np.uint8, order="F"))
    assert regions.masks([]).shape == (0, 30, 40)


@pytest.mark.parametrize("labels", [np.zeros((3, 4), int), np.zeros((30, 40)), np.full((30, 40), -1)])
def test_labels_that_are_refused(labels: np.ndarray) -> None:
    regions = SelectiveSearch("single").regions(np.zeros((30, 40, 3), np.uint8))
    with pytest.raises(SettingError, match=r"labels must be whole numbers from 0, shape \(30, 40\)"):
        regions.label_counts(labels)


def test_threads_change_nothing() -> None:
    image = picture(90, 130, 2)
    grid = [Strategy(("Lab", "I"), (50, 150), ("CTSF", "S"))]
    one, more = (SelectiveSearch(strategies=grid, threads=threads, limit=50).regions(image) for threads in (1, 3))
    assert (one.nodes == more.nodes).all()
    assert [one.run_lengths(i) for i in range(50)] == [more.run_lengths(i) for i in range(50)]
