"""Reliability against a plain reference; thresholds by trying all of them; calibrations of known scores."""

import json
from math import isnan, nan

import numpy as np
import pytest
from builders import make_detections, make_picture
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from inception_rcnn.data.errors import EvaluationError, SettingError
from inception_rcnn.eval import match_voc
from inception_rcnn.eval.matching import FALSE, HIT, IGNORED, Matches
from inception_rcnn.eval.reliability import (
    best_f1,
    best_threshold,
    fit_score_calibration,
    reliability,
    summarise_reliability,
)


def as_matches(rows: list[tuple[float, int]], missed: int = 0) -> Matches:
    """Matches of scores and outcomes, and so many objects more than there are hits."""
    rows = sorted(rows, key=lambda row: -row[0])
    score, outcome = np.array([row[0] for row in rows], np.float64), np.array([row[1] for row in rows], np.int8)
    whole = np.zeros(len(rows), np.int64)
    return Matches(whole, whole, score, outcome, whole, np.zeros(len(rows)), int((outcome == HIT).sum()) + missed)


def random_matches(count: int, scale: float, shift: float, seed: int, low: float = 0.01) -> Matches:
    """Detections whose scores are right with the probability ``expit(scale * logit(score) + shift)``."""
    rng = np.random.default_rng(seed)
    score = rng.uniform(low, 0.99, count)
    hit = rng.random(count) < expit(scale * logit(score) + shift)
    return as_matches([*zip(score.tolist(), hit.astype(int).tolist(), strict=True)], missed=count // 20)


# Scores on the edges of bins too, and equal ones.
SCORES = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.05, 0.1, 0.2, 0.3, 0.6, 0.7, 1.0]))
CLASS = st.builds(
    as_matches, st.lists(st.tuples(SCORES, st.sampled_from([HIT, FALSE, IGNORED])), max_size=40), st.integers(0, 5)
)
CLASSES = st.lists(CLASS, min_size=1, max_size=3).map(lambda every: {f"class {i}": one for i, one in enumerate(every)})


def reference(rows: list[tuple[float, int]], bins: int, min_score: float) -> tuple[list[tuple], float]:
    """Bin by bin, as Guo et al. write it: count, mean score and share right of each; the error."""
    rows = [(score, outcome) for score, outcome in rows if outcome != IGNORED and score >= min_score]
    table, error = [], 0.0
    for i in range(bins):
        own = [(s, o) for s, o in rows if (i / bins < s or (i == 0 and s == 0)) and s <= (i + 1) / bins]
        if own:
            mean, right = sum(s for s, _ in own) / len(own), sum(o == HIT for _, o in own) / len(own)
            error += len(own) / len(rows) * abs(mean - right)
            table.append((len(own), mean, right))
        else:
            table.append((0, nan, nan))
    return table, error if rows else nan


@given(CLASSES, st.integers(1, 20), st.sampled_from([0, 0.05, 0.5]))
def test_bins_and_error_against_a_plain_reference(matches, bins, min_score):
    together, per_class = reliability(matches, bins, min_score)
    rows = {name: [*zip(one.score.tolist(), one.outcome.tolist(), strict=True)] for name, one in matches.items()}
    assert per_class.keys() == matches.keys()
    for diagram, own in (
        (together, [row for every in rows.values() for row in every]),
        *((per_class[name], rows[name]) for name in rows),
    ):
        table, error = reference(own, bins, min_score)
        np.testing.assert_allclose(np.column_stack(diagram[1:]), np.array(table, float), atol=1e-12)
        np.testing.assert_allclose(diagram.expected_calibration_error, error, atol=1e-12)
        np.testing.assert_array_equal(diagram.edges, [i / bins for i in range(bins + 1)])


@given(CLASSES)
def test_the_best_threshold_is_the_best_of_all(matches):
    def f1(every, threshold):
        above = [one.outcome[one.score >= threshold] for one in every]
        found, false = (sum(int((outcome == kind).sum()) for outcome in above) for kind in (HIT, FALSE))
        return 2 * found / (found + false + sum(one.positives for one in every))

    together, per_class = best_threshold(matches)
    for best, every in ((together, [*matches.values()]), *((per_class[name], [matches[name]]) for name in matches)):
        scores = {score for one in every for score, o in zip(one.score, one.outcome, strict=True) if o != IGNORED}
        hits = any((one.outcome == HIT).any() for one in every)
        assert isnan(best.f1) == isnan(best.score) == (not hits)
        if hits:
            assert best.f1 == pytest.approx(max(f1(every, score) for score in scores))
            assert best.f1 == pytest.approx(f1(every, best.score))


def test_no_threshold_lies_between_equal_scores():
    matches = as_matches([(0.9, HIT), (0.8, HIT), (0.8, FALSE), (0.3, IGNORED), (0.2, FALSE)], missed=1)
    assert best_f1(matches) == (pytest.approx(2 * 2 / (3 + 3)), 0.8)


def test_what_counts_is_what_match_voc_says():
    boxes = [[0, 0, 20, 20], [0, 0, 20, 20], [40, 0, 60, 20], [80, 0, 99, 20]]
    picture = make_picture([boxes[0], boxes[2]], [0, 0], difficult=[1])
    found = {"a": make_detections(boxes, [0.95, 0.75, 0.85, 0.55])}
    together, per_class = reliability(match_voc([picture], found, ("cat", "dog", "car")))
    # A hit, its duplicate, one of a difficult object, which does not count, and one of nothing.
    assert together.counts.tolist() == [0, 0, 0, 0, 0, 1, 0, 1, 0, 1]
    assert together.shares_right[[5, 7, 9]].tolist() == [0, 0, 1]
    assert together.expected_calibration_error == pytest.approx((0.55 + 0.75 + 0.05) / 3)
    assert isnan(per_class["dog"].expected_calibration_error)


@pytest.mark.parametrize(("scale", "shift"), [(0.6, -1.0), (1.0, 0.0), (1.8, 0.7)])
def test_known_numbers_are_recovered(scale, shift):
    matches = {"cat": random_matches(40_000, scale, shift, 0), "dog": random_matches(40_000, scale / 2, shift - 1, 1)}
    fitted = fit_score_calibration(matches)
    np.testing.assert_allclose(fitted.scales, [scale, scale / 2], atol=0.04)
    np.testing.assert_allclose(fitted.shifts, [shift, shift - 1], atol=0.06)
    assert fit_score_calibration(matches) == fitted
    calibrated = {
        name: one._replace(score=fitted(one.score, np.full(len(one.score), label)))
        for label, (name, one) in enumerate(matches.items())
    }
    for diagram in reliability(calibrated)[1].values():
        assert diagram.expected_calibration_error < 0.015
    assert fitted.threshold == pytest.approx(best_threshold(calibrated)[0].score, abs=1e-6)


def test_the_fit_is_where_the_slope_is_zero():
    matches = {"cat": random_matches(300, 0.7, 0.5, 0), "dog": random_matches(50, 2, -1, 1)}
    fitted = fit_score_calibration(matches, shrinkage=4)
    shared = []
    for one, scale, shift in zip(matches.values(), fitted.scales, fitted.shifts, strict=True):
        x = logit(one.score)
        error = expit(scale * x + shift) - (one.outcome == HIT)
        # At the minimum the pull of the shared numbers equals that of the detections.
        shared.append(np.array([scale, shift]) + np.array([error @ x, error.sum()]) / 4)
    np.testing.assert_allclose(shared[0], shared[1], atol=1e-4)


def test_few_detections_get_the_shared_numbers():
    many, few = random_matches(20_000, 0.6, -1, 0), as_matches([(0.9, HIT)])
    fitted = fit_score_calibration({"many": many, "few": few, "none": as_matches([])})
    # One detection moves a number by less than what it lacks, times its coefficient, by the shrinkage of 10.
    np.testing.assert_allclose(fitted.scales, fitted.scales[0], atol=0.1)
    np.testing.assert_allclose(fitted.shifts, fitted.shifts[0], atol=0.1)
    assert fitted.scales[2] == pytest.approx(fitted.scales[0], abs=0.001)


def test_scores_that_separate_or_mislead_still_have_a_calibration():
    separate = as_matches([(0.9, HIT)] * 20 + [(0.1, FALSE)] * 20)
    misleading = as_matches([(0.9, FALSE)] * 2000 + [(0.1, HIT)] * 2000)
    for shrinkage in (0, 10):
        fitted = fit_score_calibration({"a": separate, "b": misleading}, shrinkage=shrinkage)
        assert min(fitted.scales) > 0
        assert fitted(np.float32([0.9]), [0]) > fitted(np.float32([0.1]), [0])
    assert fitted(np.float32([0.2, 0.8]), [1, 1]) == pytest.approx([0.5, 0.5], abs=0.05)


def test_the_order_of_detections_stays():
    matches = random_matches(500, 0.3, -2, 3)
    fitted = fit_score_calibration({"cat": matches})
    assert (np.diff(fitted(matches.score.astype(np.float32), np.zeros(500, int))) <= 0).all()


def test_what_cannot_be_measured_or_fitted():
    good = {"cat": as_matches([(0.9, HIT)])}
    for scores in ([1.5], [-0.5]):
        bad = {"cat": as_matches([(scores[0], HIT)])}
        for function in (reliability, fit_score_calibration):
            with pytest.raises(EvaluationError, match="scores are not from 0 to 1"):
                function(bad)
        assert summarise_reliability(bad) is None
    for wrong in ({"bins": 0}, {"bins": 1.5}, {"min_score": nan}, {"min_score": 2}):
        with pytest.raises(SettingError, match=f"{next(iter(wrong))} must be"):
            reliability(good, **wrong)
    for wrong in ({"shrinkage": -1}, {"min_score": 2}):
        with pytest.raises(SettingError, match=f"{next(iter(wrong))} must be"):
            fit_score_calibration(good, **wrong)
    for none in ({}, {"cat": as_matches([], 3)}, {"cat": as_matches([(0.9, FALSE), (0.8, IGNORED)])}):
        with pytest.raises(EvaluationError, match="no detection is right; give more pictures"):
            fit_score_calibration(none)
        assert isnan(best_threshold(none)[0].score)
    assert isnan(reliability({})[0].expected_calibration_error)


def test_the_summary_is_json():
    summary = summarise_reliability({"cat": as_matches([(0.9, HIT), (0.85, FALSE), (0.01, FALSE)])})
    assert summary is not None
    assert summary["expected_calibration_error"] == pytest.approx(0.375)
    assert [one["count"] for one in summary["bins"]] == [0] * 8 + [2, 0]
    assert summary["bins"][8]["above"] == 0.8
    assert summary["bins"][8]["share_right"] == 0.5
    assert summary["per_class"] == {"cat": pytest.approx(0.375)}
    json.dumps(summary)
