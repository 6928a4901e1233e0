import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inception_rcnn.data import box_iou, clip_boxes

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


def test_clip_returns_a_new_array_inside_the_picture():
    boxes = np.array([[-3, -4, 200, 300], [150, 5, 160, 6]], np.float32)
    clipped = clip_boxes(boxes, width=100, height=50)
    assert clipped.tolist() == [[0, 0, 100, 50], [100, 5, 100, 6]]
    assert boxes[0, 0] == -3
    assert clip_boxes(np.zeros((0, 4), np.float32), 1, 1).shape == (0, 4)
