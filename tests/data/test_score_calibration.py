"""Calibration of scores: order, ends and precision stay; settings that cannot be are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inception_rcnn.data.errors import SettingError
from inception_rcnn.data.score_calibration import ScoreCalibration, mean_calibration

SCALES = st.floats(1e-3, 1e3)
SHIFTS = st.floats(-20, 20)
SCORES = st.floats(0, 1, width=32)


@given(SCALES, SHIFTS, st.lists(SCORES, min_size=1, max_size=30))
def test_the_order_and_the_ends_stay(scale, shift, scores):
    sorted_scores = np.sort(np.array([0, 1, *scores], np.float32))
    made = ScoreCalibration((scale,), (shift,), 0.5)(sorted_scores, np.zeros(len(sorted_scores), int))
    assert made.dtype == np.float32
    assert (made[0], made[-1]) == (0, 1)
    assert (np.diff(made) >= 0).all()


@given(st.lists(st.tuples(SCALES, SHIFTS), min_size=1, max_size=4), SCORES, st.lists(SCORES, max_size=30))
def test_no_score_below_the_lowest_reaches_the_minimum(pairs, minimum, scores):
    scales, shifts = zip(*pairs, strict=True)
    calibration = ScoreCalibration(scales, shifts, 0.5)
    lowest = np.float32(calibration.lowest_score(minimum))
    for label in range(len(pairs)):
        # Also the numbers right at the bound.
        near = [lowest, np.nextafter(lowest, np.float32(0)), np.nextafter(lowest, np.float32(1))]
        given_scores = np.array([*scores, *near], np.float32).clip(0, 1)
        kept = calibration(given_scores, np.full(len(given_scores), label)) >= np.float32(minimum)
        assert (given_scores[kept] >= lowest).all()


def test_each_class_has_its_own_numbers():
    calibration = ScoreCalibration((1, 2), (0, -1), 0.4)
    made = calibration(np.array([0.3, 0.3, 0.8]), np.array([0, 1, 1]))
    odds = np.array([0.3 / 0.7, (0.3 / 0.7) ** 2 / np.e, 4**2 / np.e])
    assert made.dtype == np.float64
    np.testing.assert_allclose(made, odds / (1 + odds))
    assert calibration([], []).shape == (0,)


def test_a_rounding_above_one_is_one():
    assert ScoreCalibration((2,), (-1,), 0.4)(np.float32([1 + 1e-7]), [0]) == 1


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.5], [1], "a label is of none of the 1 classes"),
        ([0.5], [-1], "a label is of none of the 1 classes"),
        ([0.5], [0, 0], r"scores \(1,\) and labels \(2,\) must have one shape"),
        ([1.5], [0], "scores to calibrate must be numbers, 0 to 1"),
        ([-0.1], [0], "scores to calibrate must be numbers, 0 to 1"),
        ([np.nan], [0], "scores to calibrate must be numbers, 0 to 1"),
    ],
)
def test_what_cannot_be_calibrated(scores, labels, message):
    with pytest.raises(SettingError, match=message):
        ScoreCalibration((1,), (0,), 0.4)(scores, labels)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (((0,), (0,), 0.4), "scales must be one or more numbers, 0.001 to 1000"),
        (((-1,), (0,), 0.4), "scales must be one or more numbers"),
        (((np.nan,), (0,), 0.4), "scales must be one or more numbers"),
        (((), (), 0.4), "scales must be one or more numbers"),
        ((("1",), (0,), 0.4), "scales must be one or more numbers"),
        (((1,), (np.inf,), 0.4), "shifts must be one or more numbers"),
        (((1, 1), (0,), 0.4), "2 scales and 1 shifts do not fit"),
        (((1,), (0,), 1.5), "threshold must be a number, 0 to 1, not 1.5"),
        (((1,), (0,), None), "threshold must be a number, 0 to 1, not None"),
    ],
)
def test_a_calibration_checks_itself(numbers, message):
    with pytest.raises(SettingError, match=message):
        ScoreCalibration(*numbers)


def test_lists_and_arrays_make_the_same_calibration():
    one = ScoreCalibration([1, 2.5], np.array([0.0, 1.0]), np.float64(0.25))
    assert one == ScoreCalibration((1, 2.5), (0, 1), 0.25)
    assert hash(one) == hash(ScoreCalibration((1, 2.5), (0, 1), 0.25))


def test_a_mean():
    a, b = ScoreCalibration((1, 2), (0, 1), 0.2), ScoreCalibration((3, 4), (2, -1), 0.4)
    mean = mean_calibration([a, b])
    assert (mean.scales, mean.shifts, mean.threshold) == ((2, 3), (1, 0), pytest.approx(0.3))
    assert mean_calibration([a]) == a
