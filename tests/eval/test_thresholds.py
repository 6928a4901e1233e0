"""Thresholds by trying all of them, on pictures drawn for real; confusion matrices by hand and beside supervision's."""

from math import isnan, nan

import numpy as np
import pytest
from builders import CLASSES, draw_pictures, make_detections, make_picture, random_scene
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from test_reliability import CLASS

from inception_rcnn.data.errors import SettingError
from inception_rcnn.eval import confusion_matrix, evaluate_thresholds, match_coco, match_voc
from inception_rcnn.eval.bootstrap import Bootstrap
from inception_rcnn.eval.matching import HIT, IGNORED, Matches
from inception_rcnn.eval.thresholds import choose_threshold, parse_target, threshold_curve

TARGETS = ("f1", "precision=0.5", "precision=1", "recall=0.5", "recall=1", "score=0.3")

A, B, FAR = [0, 0, 20, 10], [40, 0, 60, 10], [150, 100, 170, 110]


def figures_at(matches: Matches, score: float) -> tuple[float, float, float]:
    """Precision, recall and F1 of the detections with a score, counted one by one."""
    used = [o == HIT for s, o in zip(matches.score, matches.outcome, strict=True) if s >= score and o != IGNORED]
    precision = sum(used) / len(used) if used else nan
    recall = sum(used) / matches.positives if matches.positives else nan
    f1 = 2 * sum(used) / (len(used) + matches.positives) if matches.positives else nan
    return precision, recall, f1


def naive_choice(matches: Matches, at: str) -> float:
    """Try every score."""
    figure, _, value = at.partition("=")
    if figure == "score":
        return float(value)
    scores = sorted({s for s, o in zip(matches.score.tolist(), matches.outcome, strict=True) if o != IGNORED})
    names = ("precision", "recall", "f1")
    rows = {score: dict(zip(names, figures_at(matches, score), strict=True)) for score in scores}
    if figure == "f1":
        best = max((row["f1"] for row in rows.values()), default=nan)
        return max(score for score, row in rows.items() if row["f1"] == best) if best > 0 else nan
    good = [score for score, row in rows.items() if row[figure] >= float(value)]
    return (min(good) if figure == "precision" else max(good)) if good else nan


@given(CLASS, st.sampled_from(TARGETS))
def test_thresholds_are_those_of_trying_all(matches: Matches, at: str) -> None:
    curve = threshold_curve(matches)
    assert (np.diff(curve.score) < 0).all()
    for score, *figures in zip(*curve, strict=True):
        assert figures == pytest.approx(figures_at(matches, score), nan_ok=True)
    assert choose_threshold(curve, parse_target(at)) == pytest.approx(naive_choice(matches, at), abs=0, nan_ok=True)


@pytest.mark.parametrize("at", TARGETS)
def test_what_is_measured(at: str) -> None:
    matches = match_voc(*random_scene(4), CLASSES)
    result = evaluate_thresholds(matches, at)
    for name, one in matches.items():
        own = result["per_class"][name]
        assert own["score"] == pytest.approx(naive_choice(one, at), nan_ok=True)
        expected = (nan,) * 3 if isnan(own["score"]) else figures_at(one, own["score"])
        assert (own["precision"], own["recall"], own["f1"]) == pytest.approx(expected, nan_ok=True)
    assert len(set(map(len, result["curve"].values()))) == 1
    assert result["curve"]["recall"] == sorted(result["curve"]["recall"])


@pytest.mark.parametrize("at", ["f1", "precision=0.3", "score=0.5"])
def test_intervals_are_those_of_pictures_drawn_for_real(at: str) -> None:
    scene = random_scene(4)
    bootstrap = Bootstrap(len(scene[0]), 100, 5)
    own = evaluate_thresholds(match_voc(*scene, CLASSES), at, bootstrap=100, seed=5)["per_class"]["cat"]
    slow = [match_voc(*draw_pictures(scene, counts), CLASSES)["cat"] for counts in bootstrap.weights]
    if at != "score=0.5":
        scores = np.array([choose_threshold(threshold_curve(one), parse_target(at)) for one in slow])
        assert own["intervals"]["score"] == pytest.approx(bootstrap.percentiles(scores), nan_ok=True)
    drawn = np.array([figures_at(one, own["score"]) for one in slow]).T
    compared = 0
    for name, values in zip(("precision", "recall", "f1"), drawn, strict=True):
        low, high = bootstrap.interval(values)
        if low != high:
            assert own["intervals"][name] == pytest.approx((low, high), nan_ok=True)
            compared += 1
    assert compared


def test_four_of_four_is_no_certainty() -> None:
    pictures = [make_picture([A, B], [0, 0], str(i)) for i in range(2)]
    found = {str(i): make_detections([A, B], [0.9, 0.8], [0, 0], CLASSES) for i in range(2)}
    own = evaluate_thresholds(match_voc(pictures, found, CLASSES), "precision=0.9", bootstrap=100)["per_class"]["cat"]
    assert own["precision"] == own["recall"] == own["f1"] == 1
    low, high = binomtest(4, 4).proportion_ci(0.95, "exact")
    for name in ("precision", "recall", "f1"):
        assert own["intervals"][name] == pytest.approx((low, high))
    assert low < 0.5
    # Nothing right: the other end.
    wrong = {str(i): make_detections([FAR], [0.9], [0], CLASSES) for i in range(2)}
    own = evaluate_thresholds(match_voc(pictures, wrong, CLASSES), "score=0.5", bootstrap=100)["per_class"]["cat"]
    assert own["intervals"]["precision"] == pytest.approx(binomtest(0, 2).proportion_ci(0.95, "exact"))
    assert own["intervals"]["recall"] == pytest.approx(binomtest(0, 4).proportion_ci(0.95, "exact"))


def test_by_the_rules_of_coco() -> None:
    scene = random_scene(4)
    matches = {name: one[0] for name, one in match_coco(*scene, CLASSES).items()}
    result = evaluate_thresholds(matches, "recall=0.5", bootstrap=100)
    assert result["together"]["recall"] >= 0.5


@pytest.mark.parametrize("at", ["", "F1", "f1=0.5", "precision", "precision=0", "recall=1.5", "score=nan", "0.5"])
def test_targets_that_are_refused(at: str) -> None:
    with pytest.raises(SettingError, match="chosen at"):
        parse_target(at)


def confusion(objects: list, labels: list, boxes: list, claimed: list, **flags: list) -> dict[tuple[int, int], int]:
    found = {"a": make_detections(boxes, np.linspace(0.9, 0.6, len(boxes)), claimed)}
    matrix = confusion_matrix([make_picture(objects, labels, **flags)], found, CLASSES, min_score=0.5)
    assert matrix.shape == (4, 4)
    return {(int(i), int(j)): int(matrix[i, j]) for i, j in zip(*np.nonzero(matrix), strict=True)}


def test_confusion_by_hand() -> None:
    cat, dog, none = 0, 1, 3
    assert confusion([A, B], [cat, dog], [A], [cat]) == {(cat, cat): 1, (dog, none): 1}
    assert confusion([A], [cat], [A], [dog]) == {(cat, dog): 1}
    # The right class comes before the larger overlap and the higher score.
    assert confusion([A], [cat], [A, [0, 0, 20, 9]], [dog, cat]) == {(cat, cat): 1, (none, dog): 1}
    assert confusion([A], [cat], [FAR], [cat]) == {(cat, none): 1, (none, cat): 1}
    # Exactly half is enough.
    assert confusion([A], [cat], [[0, 0, 20, 5]], [cat]) == {(cat, cat): 1}
    assert confusion([A], [cat], [A], [cat], difficult=[0]) == {}
    assert confusion([A, B], [cat, cat], [[0, 0, 20, 9], B], [dog, cat], crowd=[0]) == {(cat, cat): 1}


@pytest.mark.parametrize("seed", range(3))
def test_sums_are_objects_and_detections(seed: int) -> None:
    pictures, found = random_scene(seed, 20)
    matrix = confusion_matrix(pictures, found, CLASSES, min_score=0.4)
    objects = np.concatenate([one.labels[~one.difficult] for one in pictures])
    assert matrix[:-1].sum(axis=1).tolist() == np.bincount(objects, minlength=3).tolist()
    assert matrix[:, :-1].sum() <= sum((one.scores >= 0.4).sum() for one in found.values())


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_supervision(seed: int) -> None:
    supervision = pytest.importorskip("supervision")
    pictures, found = random_scene(seed, 30)
    # It has no difficult objects, and an overlap has to be above its threshold.
    pictures = [make_picture(one.boxes, one.labels, one.image_id) for one in pictures]
    outputs = [found[one.image_id] for one in pictures]
    theirs = supervision.ConfusionMatrix.from_tensors(
        [np.column_stack([one.boxes, one.labels, one.scores]) for one in outputs],
        [np.column_stack([one.boxes, one.labels]) for one in pictures],
        list(CLASSES),
        conf_threshold=0.4,
    )
    assert confusion_matrix(pictures, found, CLASSES, min_score=0.4).tolist() == theirs.matrix.astype(int).tolist()
