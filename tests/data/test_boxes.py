import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inception_rcnn.data import box_iou, clip_boxes
from inception_rcnn.data.errors import SettingError

side = st.integers(0, 50)
box = st.tuples(side, side, side, side).map(lambda b: (b[0], b[1], b[0] + b[2] + 1, b[1] + b[3] + 1))
boxes = st.lists(box, max_size=8)


@given(boxes, boxes)
def test_iou_counts_pixels(a, b):
    result = box_iou(a, b)
    assert result.shape == (len(a), len(b))
    assert result.dtype == np.float32
    for i, first in enumerate(a):
        for j, second in enumerate(b):
            grids = np.zeros((2, 110, 110), bool)
            for grid, (x1, y1, x2, y2) in zip(grids, (first, second), strict=True):
                grid[y1:y2, x1:x2] = True
            assert result[i, j] == np.float32((grids[0] & grids[1]).sum() / (grids[0] | grids[1]).sum())


def test_iou_of_empty_boxes_is_zero():
    assert box_iou([[3, 3, 3, 3]], [[3, 3, 3, 3], [0, 0, 9, 9]]).tolist() == [[0.0, 0.0]]


def test_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(N, 4\)"):
        box_iou(np.zeros((2, 5)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"\(N, 4\)"):
        clip_boxes([0, 0, 1, 1], 9, 9)
    for bad in (np.nan, np.inf, "1"):
        with pytest.raises(SettingError, match="boxes must be"):
            box_iou([[0, 0, 1, 1]], [[0, 0, 1, bad]])


@pytest.mark.parametrize("size", [np.nan, np.inf, -1, "9", True, None])
def test_a_size_that_no_picture_has_is_refused(size):
    with pytest.raises(SettingError, match="width must be a number, 0 or more"):
        clip_boxes([[0, 0, 1, 1]], size, 9)
    with pytest.raises(SettingError, match="height must be a number, 0 or more"):
        clip_boxes([[0, 0, 1, 1]], 9, size)


def test_tensors_are_clipped():
    torch = pytest.importorskip("torch")
    boxes = torch.tensor([[-3.0, -4, 200, 300]], requires_grad=True)
    assert clip_boxes(boxes, 100, 50).tolist() == clip_boxes(boxes.bfloat16(), 100, 50).tolist() == [[0, 0, 100, 50]]


def test_clip_returns_a_new_array_inside_the_picture():
    boxes = np.array([[-3, -4, 200, 300], [150, 5, 160, 6]], np.float32)
    clipped = clip_boxes(boxes, width=100, height=50)
    assert clipped.tolist() == [[0, 0, 100, 50], [100, 5, 100, 6]]
    assert boxes[0, 0] == -3
    assert clip_boxes(np.zeros((0, 4), np.float32), 1, 1).shape == (0, 4)
