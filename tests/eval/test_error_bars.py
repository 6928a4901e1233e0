"""Draws as weights, against pictures that are drawn for real: renamed copies, and the ordinary evaluators."""

from math import isnan, nan

import numpy as np
import pytest
from builders import CLASSES, Scene, draw_pictures, random_scene
from scipy.stats import binom, kstest, norm

from inception_rcnn.data.errors import SettingError
from inception_rcnn.eval import (
    evaluate_classification,
    evaluate_coco,
    evaluate_ilsvrc,
    evaluate_proposals,
    evaluate_voc,
    match_coco,
    match_ilsvrc,
    match_voc,
)
from inception_rcnn.eval.bootstrap import Bootstrap, mean_over_classes
from inception_rcnn.eval.precision import class_average_precision, weighted_average_precision


@pytest.mark.parametrize("metric", ["voc07", "voc12", "coco"])
@pytest.mark.parametrize("rules", ["voc", "ilsvrc"])
def test_weights_count_as_copies_of_pictures_do(metric: str, rules: str) -> None:
    nothing = 0
    for seed in range(4):
        scene = random_scene(seed)
        pictures = scene[0]
        weights = np.random.default_rng(seed).multinomial(len(pictures), np.full(len(pictures), 1 / len(pictures)), 20)

        def match(scene: Scene) -> dict:
            blacklist = [(one.image_id, "dog") for one in scene[0] if one.image_id.startswith(("001", "004"))]
            return match_voc(*scene, CLASSES) if rules == "voc" else match_ilsvrc(*scene, CLASSES, blacklist)

        fast = {
            name: weighted_average_precision(one, weights.astype(np.int32), metric)
            for name, one in match(scene).items()
        }
        for row, counts in enumerate(weights):
            slow = {
                name: class_average_precision(one, metric) for name, one in match(draw_pictures(scene, counts)).items()
            }
            assert {name: values[row] for name, values in fast.items()} == pytest.approx(slow, abs=1e-12, nan_ok=True)
            nothing += sum(map(isnan, slow.values()))
    assert nothing, "no draw was without a class"


def test_intervals_are_those_of_copied_pictures() -> None:
    scene = random_scene(3)
    result = evaluate_voc(*scene, CLASSES, bootstrap=100, seed=7)
    bootstrap = Bootstrap(len(scene[0]), 100, 7)
    slow = [evaluate_voc(*draw_pictures(scene, counts), CLASSES) for counts in bootstrap.weights]
    intervals = result["intervals"]
    assert intervals["mAP"] == pytest.approx(bootstrap.interval(np.array([one["mAP"] for one in slow])))
    for name in CLASSES:
        values = np.array([one["per_class"][name] for one in slow])
        assert intervals["per_class"][name] == pytest.approx(bootstrap.interval(values), nan_ok=True)
    assert (intervals["level"], intervals["draws"], intervals["seed"]) == (0.95, 100, 7)
    plain = evaluate_voc(*scene, CLASSES)
    assert (result["mAP"], result["per_class"]) == (plain["mAP"], plain["per_class"])
    low, high = result["calibration"]["interval"]
    assert low < result["calibration"]["expected_calibration_error"] < high
    blacklist = [("001", "dog")]
    assert evaluate_ilsvrc(*scene, CLASSES, blacklist, bootstrap=100)["intervals"]["mAP"][0] < 1


def test_intervals_by_the_rules_of_coco() -> None:
    scene = random_scene(5)
    result = evaluate_coco(*scene, classes=CLASSES, bootstrap=100, seed=1)
    bootstrap = Bootstrap(len(scene[0]), 100, 1)
    values = {
        name: np.mean([weighted_average_precision(one, bootstrap.weights, "coco") for one in matches], axis=0)
        for name, matches in match_coco(*scene, CLASSES).items()
    }
    for row in range(0, len(bootstrap.weights), 9):
        slow = evaluate_coco(*draw_pictures(scene, bootstrap.weights[row]), classes=CLASSES)
        assert {name: one[row] for name, one in values.items()} == pytest.approx(
            slow["per_class"], abs=1e-12, nan_ok=True
        )
        assert mean_over_classes(values)[row] == pytest.approx(slow["AP"], abs=1e-12)
    intervals = result["intervals"]
    assert intervals["AP"] == intervals["mAP"] == pytest.approx(bootstrap.interval(mean_over_classes(values)))
    assert intervals["per_class"]["cat"] == pytest.approx(bootstrap.interval(values["cat"]))
    for key in ("AP50", "AP75", "AP_medium"):
        assert intervals[key][0] < result[key] < intervals[key][1]
    assert isnan(intervals["AP_small"][0])
    assert isnan(result["AP_small"])
    with pytest.raises(SettingError, match="pycocotools"):
        evaluate_coco(*scene, classes=CLASSES, engine="faster-coco-eval", bootstrap=100)


def test_intervals_of_proposals_and_of_top_k_errors() -> None:
    scene = random_scene(1, count=12)
    boxes = {name: one.boxes for name, one in scene[1].items()}
    result = evaluate_proposals(scene[0], boxes, (2, 5), CLASSES, bootstrap=100, seed=2)
    bootstrap = Bootstrap(12, 100, 2)
    slow = []
    for counts in bootstrap.weights:
        pictures, found = draw_pictures(scene, counts)
        slow.append(evaluate_proposals(pictures, {name: one.boxes for name, one in found.items()}, (2, 5), CLASSES))
    for key in ("mabo", "recall_at", "ar_at", "mabo_at", "recall", "recall_curve"):
        for one in [None] if key == "mabo" else result[key]:
            values = np.array([row[key] if one is None else row[key][one] for row in slow])
            interval = result["intervals"][key] if one is None else result["intervals"][key][one]
            assert interval == pytest.approx(bootstrap.interval(values)), (key, one)

    rng = np.random.default_rng(0)
    table, labels = rng.random((300, 6)), rng.integers(0, 6, 300)
    found = evaluate_classification(table, labels, list("abcdef"), (1, 3), bootstrap=2000)
    # Of a share the exact interval is known.
    error = found["top_3_error"]
    assert found["intervals"]["top_3_error"] == pytest.approx(
        binom.interval(0.95, 300, error) / np.float64(300), abs=0.01
    )


def test_the_interval_of_a_mean_is_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(3, 2, 2000)
    bootstrap = Bootstrap(2000, 4000)
    means = bootstrap.means(np.arange(2000), values)
    assert means[0] == pytest.approx(values.mean())
    half = norm.ppf(0.975) * values.std() / np.sqrt(2000)
    assert bootstrap.interval(means) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)
    low, high, p_value = bootstrap.difference(means - values.mean() - half)
    assert (low, high) == pytest.approx((-2 * half, 0), abs=0.1 * half)
    assert p_value == pytest.approx(0.05, abs=0.015)


def test_bca_is_that_of_scipy() -> None:
    from scipy.stats import bootstrap as scipy_bootstrap

    values = np.random.default_rng(1).exponential(size=60)
    expected = scipy_bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=0).confidence_interval
    bootstrap = Bootstrap(60, 20_000)
    found = bootstrap.interval(bootstrap.means(np.arange(60), values))
    assert found == pytest.approx((expected.low, expected.high), abs=0.01)


def test_the_p_value_is_that_of_the_interval_that_ends_at_0() -> None:
    values = np.random.default_rng(2).exponential(size=80)
    bootstrap = Bootstrap(80, 5000)
    means = bootstrap.means(np.arange(80), values)
    for low in (0.8, 0.9, 1.1, 1.3):
        level = 1 - bootstrap.difference(means - low)[2]
        assert min(abs(np.array(bootstrap.difference(means, level)[:2]) - low)) < 0.005


def test_p_values_of_equal_means_are_uniform() -> None:
    rng = np.random.default_rng(4)
    p_values = []
    for seed in range(200):
        bootstrap = Bootstrap(60, 200, seed)
        p_values.append(bootstrap.difference(bootstrap.means(np.arange(60), rng.normal(size=60)))[2])
    assert kstest(p_values, "uniform").pvalue > 0.05


def test_what_nothing_can_be_said_of() -> None:
    bootstrap = Bootstrap(5, 100)
    none = np.full(len(bootstrap.weights), nan)
    assert all(map(isnan, (*bootstrap.interval(none), *bootstrap.difference(none))))
    # All objects in one picture.
    assert all(map(isnan, bootstrap.interval(bootstrap.means(np.zeros(3, np.int64), np.ones(3)))))
    same = np.ones(len(bootstrap.weights))
    assert bootstrap.interval(same) == (1, 1)
    assert bootstrap.difference(0 * same) == (0, 0, 1)


def test_the_seed_decides() -> None:
    scene = random_scene(0)
    one, again, other = (
        evaluate_voc(*scene, CLASSES, bootstrap=100, seed=seed)["intervals"]["mAP"] for seed in (1, 1, 2)
    )
    assert one == again != other


@pytest.mark.parametrize(("draws", "seed"), [(99, 0), (0, 0), (2.5, 0), (True, 0), (100, -1)])
def test_numbers_of_draws_that_are_refused(draws: float, seed: int) -> None:
    with pytest.raises(SettingError):
        evaluate_voc(*random_scene(0), CLASSES, bootstrap=draws, seed=seed)  # type: ignore[arg-type]


def test_matches_that_were_made_up_have_no_error_bars() -> None:
    one = match_voc(*random_scene(0), CLASSES)["cat"]
    with pytest.raises(SettingError, match="the class has objects of 0"):
        weighted_average_precision(
            one._replace(positives_per_picture=np.zeros(0, np.int64)), np.ones((1, 8), np.int32), "voc07"
        )
