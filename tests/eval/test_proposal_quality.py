from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inception_rcnn.data import Picture
from inception_rcnn.eval import EvaluationError, evaluate_proposals


def picture(boxes, image_id="a", labels=None, ignored=()):
    count = len(boxes)
    flags = np.isin(np.arange(count), ignored)
    return Picture(
        image_id=image_id,
        path=Path(f"{image_id}.jpg"),
        width=100,
        height=100,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels if labels is not None else [0] * count, np.int64),
        difficult=flags,
        crowd=np.zeros(count, bool),
    )


A, B = (0, 0, 10, 10), (50, 50, 60, 60)


def test_recall_and_overlap():
    pictures = [picture([A, B], labels=[0, 1]), picture([A], "b")]
    result = evaluate_proposals(pictures, {"a": [(0, 0, 10, 6), B], "b": [(0, 0, 10, 4)]}, limits=(1, 5))
    third = pytest.approx(1 / 3)
    assert result["recall"] == {
        "0.5": pytest.approx(2 / 3),
        "0.6": pytest.approx(2 / 3),
        "0.7": third,
        "0.8": third,
        "0.9": third,
    }
    assert result["mabo"] == pytest.approx(((0.6 + 0.4) / 2 + 1) / 2)
    assert result["boxes_per_image"] == 1.5
    assert result["recall_at"] == {"1": third, "5": pytest.approx(2 / 3)}
    assert result["mabo_at"] == {"1": pytest.approx(0.25), "5": pytest.approx(result["mabo"])}


def test_overlaps_equal_to_a_threshold_count():
    for height, threshold in ((5, "0.5"), (6, "0.6"), (7, "0.7"), (8, "0.8"), (9, "0.9")):
        assert evaluate_proposals([picture([A])], {"a": [(0, 0, 10, height)]})["recall"][threshold] == 1


def test_difficult_objects_are_left_out():
    assert evaluate_proposals([picture([A, B], ignored=[1])], {"a": [A]})["recall"]["0.5"] == 1


def test_pictures_without_proposals_count_as_missed():
    result = evaluate_proposals([picture([A]), picture([A], "b")], {"a": [A]})
    assert (result["recall"]["0.5"], result["mabo"], result["boxes_per_image"]) == (0.5, 0.5, 0.5)


def test_nothing_to_cover_gives_nan():
    result = evaluate_proposals([picture([])], {"a": [A]})
    assert np.isnan([result["recall"]["0.5"], result["mabo"], result["recall_at"]["100"]]).all()


def test_proposals_for_an_unknown_picture_are_refused():
    with pytest.raises(EvaluationError, match="'b' has proposals but no annotations"):
        evaluate_proposals([picture([A])], {"b": [A]})
    with pytest.raises(EvaluationError, match="twice"):
        evaluate_proposals([picture([A]), picture([A])], {})


@given(st.integers(0, 2**32 - 1))
def test_more_proposals_never_cover_less(seed):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 90, (2, 30, 2))
    boxes = np.concatenate([corners.min(axis=0), corners.max(axis=0)], axis=1)
    result = evaluate_proposals([picture(boxes[:5], labels=rng.integers(0, 3, 5))], {"a": boxes[5:]}, (1, 5, 25))
    for at in (result["recall_at"], result["mabo_at"]):
        assert list(at.values()) == sorted(at.values())
    assert list(result["recall"].values()) == sorted(result["recall"].values(), reverse=True)
    assert result["mabo_at"]["25"] == result["mabo"]
    assert evaluate_proposals([picture(boxes[:5])], {"a": boxes[:5]})["mabo"] == 1
