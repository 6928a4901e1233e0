"""Pictures as the network wants them, and box deltas there and back."""

from __future__ import annotations

import numpy as np
import pytest
from builders import noise_image
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from inception_rcnn.backbone.preprocessing import MEAN_BGR, decode_boxes, encode_boxes, prepare_picture

POSITIONS = st.floats(-1000, 1000, width=32)
SIDES = st.floats(8, 1000, width=32)


def boxes(draw: st.DrawFn, count: int) -> np.ndarray:
    corner = draw(npst.arrays(np.float32, (count, 2), elements=POSITIONS))
    return np.concatenate([corner, corner + draw(npst.arrays(np.float32, (count, 2), elements=SIDES))], axis=1)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    count = draw(st.integers(0, 5))
    return boxes(draw, count), boxes(draw, count)


@given(pairs())
def test_decoding_undoes_encoding(pair: tuple[np.ndarray, np.ndarray]) -> None:
    start, target = pair
    # A side that grows more than 62-fold is cut, see below.
    near = ((target[:, 2:] - target[:, :2]) / (start[:, 2:] - start[:, :2]) < 60).all(1)
    start, target = start[near], target[near]
    deltas = encode_boxes(start, target)
    assert deltas.dtype == np.float32
    back = decode_boxes(start, deltas[:, None])
    assert back.dtype == np.float32
    assert back.shape == (len(start), 1, 4)
    np.testing.assert_allclose(back[:, 0], target, rtol=1e-3, atol=0.05)


def test_deltas_have_fast_rcnns_scale() -> None:
    start = np.array([[0, 0, 10, 20]], np.float32)
    target = np.array([[1, 2, 1 + 10 * np.exp(0.2), 2 + 20]], np.float32)
    dx = (target[0, 0] + target[0, 2] - 10) / 2 / 10 / 0.1
    np.testing.assert_allclose(encode_boxes(start, target), [[dx, 1, 1, 0]], rtol=1e-5, atol=1e-6)


def test_every_class_has_its_own_deltas() -> None:
    start = np.array([[0, 0, 10, 10], [5, 5, 25, 45]], np.float32)
    deltas = np.zeros((2, 3, 4), np.float32)
    deltas[1, 2] = [1, 0, 0, 0]
    found = decode_boxes(start, deltas)
    np.testing.assert_array_equal(found[:, :2], np.repeat(start[:, None], 2, axis=1))
    np.testing.assert_allclose(found[1, 2], [7, 5, 27, 45], rtol=1e-6)


def test_wild_deltas_stay_finite() -> None:
    found = decode_boxes(np.array([[0, 0, 16, 16]], np.float32), np.full((1, 1, 4), 1e6, np.float32))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[..., 2:] - found[..., :2], 1000, rtol=0.05)


def test_picture_becomes_bgr_minus_mean() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[:] = (10, 20, 30)
    array, scale = prepare_picture(image, 60)
    assert scale == 1.0
    assert array.shape == (1, 3, 40, 60)
    assert array.dtype == np.float32
    assert array.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(array[0, :, 7, 9], np.array([30, 20, 10], np.float32) - MEAN_BGR)
    assert MEAN_BGR.tolist() == [104, 117, 123]


def test_picture_keeps_its_place_and_shape() -> None:
    image = np.zeros((50, 100, 3), np.uint8)
    image[:, 50:] = 255
    array, scale = prepare_picture(image, 400)
    assert array.shape == (1, 3, 200, 400)
    assert scale == 4.0
    blue = array[0, 0, 100] + MEAN_BGR[0]
    assert blue[:190].max() == 0
    assert blue[210:].min() == 255
    smaller, scale = prepare_picture(image, 64)
    assert smaller.shape == (1, 3, 32, 64)
    assert scale == pytest.approx(0.64)


def test_same_picture_same_size_is_left_alone() -> None:
    image = noise_image(0, 48, 64)
    array, _ = prepare_picture(image, 64)
    np.testing.assert_array_equal(array[0].transpose(1, 2, 0)[..., ::-1] + MEAN_BGR[::-1], image)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 3), (3000, 2)])
def test_tiny_pictures_are_padded_by_their_border(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 200, np.uint8)
    array, scale = prepare_picture(image, 128)
    assert min(array.shape[2:]) >= 32
    assert max(array.shape[2:]) == 128
    assert scale == 128 / max(size)
    np.testing.assert_array_equal(array[0, 2], 200 - MEAN_BGR[2])
