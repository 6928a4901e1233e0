"""From scores to detections: suppression by hand, ensembles, and what is refused."""

from __future__ import annotations

import dataclasses
import functools
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from builders import random_boxes

pytest.importorskip("safetensors")

from inception_rcnn.backbone.preprocessing import encode_boxes
from inception_rcnn.backbone.regions.features import PictureFeatures
from inception_rcnn.backbone.weights.model_file import RegionModel
from inception_rcnn.backbone.weights.published import bundled_models
from inception_rcnn.data import Proposals, box_iou, write_proposals
from inception_rcnn.data.errors import ModelError, ProposalFileError, SettingError
from inception_rcnn.data.score_calibration import ScoreCalibration
from inception_rcnn.detect import Detector
from inception_rcnn.detect.postprocessing import suppress
from inception_rcnn.detect.settings import DetectorSettings
from inception_rcnn.proposals import SelectiveSearch, merge_proposals

CLASSES = ("cat", "dog")
A, A_MOVED, B = [0, 0, 40, 40], [4, 0, 44, 40], [50, 50, 90, 90]


def boxes(*rows: Sequence[int]) -> np.ndarray:
    return np.array(rows, np.float32)


def probabilities(*rows: list[float]) -> np.ndarray:
    """Rows of class probabilities, background being the rest."""
    table = np.array(rows, np.float32)
    return np.concatenate([1 - table.sum(1, keepdims=True), table], axis=1).astype(np.float32)


def test_a_weaker_overlapping_box_of_the_class_goes() -> None:
    scores = probabilities([0.6, 0.1], [0.7, 0.2], [0.5, 0.01])
    found = suppress(boxes(A, A_MOVED, B), scores, None, (100, 100), CLASSES, DetectorSettings(nms="greedy"))
    assert found.classes == CLASSES
    assert found.labels.tolist() == [0, 0, 1]
    np.testing.assert_allclose(found.scores, [0.7, 0.5, 0.2])
    np.testing.assert_array_equal(found.boxes, boxes(A_MOVED, B, A_MOVED))


def test_classes_do_not_suppress_each_other() -> None:
    found = suppress(
        boxes(A, A_MOVED), probabilities([0.9, 0.0], [0.0, 0.8]), None, (100, 100), CLASSES, DetectorSettings()
    )
    assert found.labels.tolist() == [0, 1]


@pytest.mark.parametrize("nms", ["soft", "greedy"])
@pytest.mark.parametrize(("calibrated", "moved"), [(False, False), (False, True), (True, True)])
def test_only_some_classes_with_the_scores_that_they_have_among_all(nms: str, calibrated: bool, moved: bool) -> None:
    rng = np.random.default_rng(3)
    regions, classes = random_boxes(40, 100, 100, rng, smallest=20), ("a", "b", "c", "d")
    scores = rng.dirichlet(np.ones(5), 40).astype(np.float32)
    deltas = rng.normal(0, 0.1, (40, 4, 4)).astype(np.float32) if moved else None
    calibration = ScoreCalibration((0.5, 1, 2, 1.5), (0, 1, -1, 0), 0.3) if calibrated else None
    found = {
        (only, limit): suppress(
            regions, scores, deltas, (100, 100), classes,
            DetectorSettings(nms=nms, only=only, max_detections=limit, min_score=0.1), calibration=calibration,
        )
        for only in ((), ("d", "b")) for limit in (5, 1000)
    }  # fmt: skip
    every, some = found[(), 1000], found[("d", "b"), 1000]
    expected = every[np.isin(every.labels, [1, 3])]
    assert 5 < len(some) < len(every)
    assert some.classes == classes
    for name in ("boxes", "scores", "labels"):
        np.testing.assert_array_equal(getattr(some, name), getattr(expected, name))
    # The best five of these classes, not those of them among the best five of all.
    np.testing.assert_array_equal(found[("d", "b"), 5].scores, expected.scores[:5])


def test_a_class_that_the_models_do_not_have_is_told() -> None:
    still = np.zeros((1, 2, 4), np.float32)
    settings = DetectorSettings(only=["person", "cats"], first_pass_regions=0)
    with pytest.raises(SettingError, match=r"only 'cats': no such class \(did you mean 'cat'\?\); there are "):
        Detector([Scorer(probabilities([0.8, 0.0]), still)], SEARCH, settings)
    assert settings == DetectorSettings(only=("cats", "person", "cats"), first_pass_regions=0)


def test_a_weaker_overlapping_box_sinks() -> None:
    scores = probabilities([0.6, 0.1], [0.7, 0.2], [0.5, 0.01])
    found = suppress(boxes(A, A_MOVED, B), scores, None, (100, 100), CLASSES, DetectorSettings())
    assert found.labels.tolist() == [0, 0, 1, 0]
    lowered = 0.6 * np.exp(-((36 / 44) ** 2) / 0.4)
    np.testing.assert_allclose(found.scores, [0.7, 0.5, 0.2, lowered], rtol=1e-5)
    np.testing.assert_array_equal(found.boxes, boxes(A_MOVED, B, A_MOVED, A))


def test_a_region_that_is_hardly_an_object_sinks() -> None:
    scores, objectness = probabilities([0.9, 0], [0.8, 0]), np.array([0.001, 0.5], np.float32)
    found = suppress(boxes(A, B), scores, None, (100, 100), CLASSES, DetectorSettings(), objectness)
    np.testing.assert_array_equal(found.boxes, boxes(B, A))
    np.testing.assert_allclose(found.scores, [(0.8**4 * 0.5) ** 0.2, (0.9**4 * 0.001) ** 0.2], rtol=1e-5)
    certain = np.ones(2, np.float32)
    found = suppress(boxes(A, B), scores, None, (100, 100), CLASSES, DetectorSettings(), certain)
    np.testing.assert_allclose(found.scores, [0.9**0.8, 0.8**0.8], rtol=1e-5)


def test_background_and_weak_scores_are_no_detections() -> None:
    found = suppress(
        boxes(A, B), probabilities([0.04, 0.0], [0.049, 0.051]), None, (100, 100), CLASSES, DetectorSettings()
    )
    assert found.labels.tolist() == [1]
    assert (
        len(suppress(boxes(A), probabilities([0.4, 0.4]), None, (100, 100), CLASSES, DetectorSettings(min_score=0.5)))
        == 0
    )


def test_deltas_move_the_box_of_each_class_and_stay_inside() -> None:
    deltas = np.zeros((1, 2, 4), np.float32)
    deltas[0, 0] = [1, 0, 0, 0]  # a tenth of the width
    deltas[0, 1] = [50, 50, 0, 0]
    found = suppress(boxes(A), probabilities([0.5, 0.4]), deltas, (60, 50), CLASSES, DetectorSettings())
    np.testing.assert_allclose(found.boxes[0], [4, 0, 44, 40], rtol=1e-6)
    assert (found.boxes[:, [0, 2]] <= 60).all()
    assert (found.boxes[:, [1, 3]] <= 50).all()
    assert (found.boxes >= 0).all()


def test_a_hundred_at_most_and_best_first() -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 1000, (400, 2)).astype(np.float32)
    scores = rng.uniform(0.1, 0.4, (400, 2)).astype(np.float32)
    found = suppress(
        np.concatenate([corner, corner + 5], axis=1),
        probabilities(*scores.tolist()),
        None,
        (2000, 2000),
        CLASSES,
        DetectorSettings(),
    )
    assert len(found) == 100
    assert (np.diff(found.scores) <= 0).all()
    assert found.scores[0] == scores.max()


def test_no_proposals() -> None:
    for deltas in (None, np.zeros((0, 2, 4), np.float32)):
        found = suppress(
            np.zeros((0, 4), np.float32), np.zeros((0, 3), np.float32), deltas, (9, 9), CLASSES, DetectorSettings()
        )
        assert len(found) == 0
        assert found.boxes.shape == (0, 4)


@pytest.mark.parametrize("nms", ["soft", "greedy"])
@pytest.mark.parametrize("min_score", [0, 0.05, 0.3])
@pytest.mark.parametrize("limit", [5, 1000])
def test_calibrated_scores_against_a_plain_reference(nms: str, min_score: float, limit: int) -> None:
    rng = np.random.default_rng(0)
    regions, scores = random_boxes(60, 100, 100, rng, smallest=10), rng.dirichlet([3, 1, 1], 60).astype(np.float32)
    scores[:3] = [[0, 1, 0], [0, 1, 0], [1, 0, 0]]  # Scores of 0 and 1, and equal ones.
    calibration = ScoreCalibration((0.5, 2), (-1, 1), 0.4)
    settings = DetectorSettings(nms=nms, min_score=min_score, max_detections=limit)
    found = suppress(regions, scores, None, (100, 100), CLASSES, settings, None, calibration)
    # Everything that suppression leaves, each score calibrated by itself; sorted; cut.
    every = DetectorSettings(nms=nms, min_score=0, max_detections=10_000)
    rows = []
    raw = suppress(regions, scores, None, (100, 100), CLASSES, every)
    for box, score, label in zip(raw.boxes.tolist(), raw.scores.tolist(), raw.labels.tolist(), strict=True):
        scale, shift = (0.5, -1) if label == 0 else (2, 1)
        odds = (score / (1 - score)) ** scale * np.exp(shift) if score < 1 else np.inf
        rows.append((np.float32(odds / (1 + odds) if score < 1 else 1), label, box))
    rows = sorted((row for row in rows if row[0] >= np.float32(min_score)), key=lambda row: -row[0])[:limit]
    np.testing.assert_allclose(found.scores, [row[0] for row in rows], rtol=1e-5)
    assert found.labels.tolist() == [row[1] for row in rows]
    np.testing.assert_allclose(found.boxes, np.array([row[2] for row in rows]).reshape(-1, 4))
    assert found.scores.dtype == np.float32
    assert len(found) == min(limit, len(rows))


def test_settings_check_themselves() -> None:
    for wrong, message in (
        ({"nms": "hard"}, "nms 'hard' is unknown; use soft or greedy"),
        ({"min_score": float("nan")}, "min_score must be a number, 0 to 1, not nan"),
        ({"iou_threshold": 1.5}, "iou_threshold must be a number, 0 to 1, not 1.5"),
        ({"proposals": 0}, "proposals must be a whole number, 1 or more, not 0"),
        ({"proposals": 1.5}, "proposals must be a whole number, 1 or more, not 1.5"),
        ({"max_detections": True}, "max_detections must be a whole number, 1 or more, not True"),
        ({"softness": 0}, "softness must be"),
        ({"calibrated": 1}, "calibrated must be True or False, not 1"),
        ({"min_score": "x"}, "min_score must be a number, 0 to 1, not 'x'"),
        ({"only": "cat"}, "only must be a list of names, not one name; write"),
        ({"first_pass_regions": -1}, "first_pass_regions must be a whole number, 0 or more, not -1"),
    ):
        with pytest.raises(SettingError, match=message):
            DetectorSettings(**wrong)


class Scorer:
    """Says the same of every picture."""

    def __init__(
        self,
        scores: np.ndarray,
        deltas: np.ndarray,
        regressing: bool = True,
        classes: tuple[str, ...] = CLASSES,
        calibration: ScoreCalibration | None = None,
    ) -> None:
        weights = {"first_pass.weight": np.zeros(1, np.float16)}
        self.model = RegionModel(classes, 64, regressing, weights, {}, "", {}, calibration=calibration)
        self.outputs = scores, deltas

    def score(self, features: PictureFeatures, proposals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.outputs


SEARCH = SelectiveSearch("single")
ONE_LOOK = DetectorSettings(first_pass_regions=0, second_look=0)


def test_an_ensemble_averages_probabilities_and_deltas() -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    one = Scorer(probabilities([0.8, 0.0]), np.full((1, 2, 4), 0.0, np.float32))
    two = Scorer(probabilities([0.2, 0.6]), np.tile(np.float32([2, 0, 0, 0]), (1, 2, 1)))
    found = Detector([one, two], SEARCH, ONE_LOOK).score(PictureFeatures(image), boxes(A))
    assert found.labels.tolist() == [0, 1]
    np.testing.assert_allclose(found.scores, [0.5, 0.3], rtol=1e-6)
    np.testing.assert_allclose(found.boxes, [A_MOVED, A_MOVED], rtol=1e-6)


def test_an_ensemble_has_the_mean_calibration_if_all_have_one() -> None:
    image, calibrations = np.zeros((60, 80, 3), np.uint8), []
    for scale, shift, threshold in ((1, 0, 0.3), (2, -1, 0.5)):
        calibrations.append(ScoreCalibration((scale, scale), (shift, shift), threshold))
    still = np.zeros((1, 2, 4), np.float32)
    scorers = [Scorer(probabilities([0.8, 0.0]), still, calibration=one) for one in (*calibrations, None)]
    for chosen, settings, mean in (
        (scorers[:1], None, calibrations[0]),
        (scorers[:2], None, ScoreCalibration((1.5, 1.5), (-0.5, -0.5), 0.4)),
        (scorers, None, None),
        (scorers[:2], DetectorSettings(calibrated=False, first_pass_regions=0), None),
    ):
        detector = Detector(chosen, SEARCH, settings)
        assert detector.calibration == mean
        score = np.float32([0.8]) if mean is None else mean(np.float32([0.8]), [0])
        np.testing.assert_allclose(detector.score(PictureFeatures(image), boxes(A)).scores, score, rtol=1e-6)


def test_models_without_box_regression_do_not_dilute_the_others() -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    moving = Scorer(probabilities([0.8, 0.0]), np.tile(np.float32([1, 0, 0, 0]), (1, 2, 1)))
    still = Scorer(probabilities([0.8, 0.0]), np.full((1, 2, 4), 9.0, np.float32), regressing=False)
    np.testing.assert_allclose(
        Detector([moving, still], SEARCH, ONE_LOOK).score(PictureFeatures(image), boxes(A)).boxes, [A_MOVED], rtol=1e-6
    )
    np.testing.assert_allclose(Detector([still], SEARCH).score(PictureFeatures(image), boxes(A)).boxes, [A])


class Approaching(Scorer):
    """Sees an object of class 0 at `target`: the nearer a region is, the surer; its deltas lead half of the way."""

    def __init__(self, target: tuple[float, ...]) -> None:
        super().__init__(probabilities([0.5, 0.0]), np.zeros((1, 2, 4), np.float32))
        self.target, self.looked = np.array([target], np.float32), []

    def score(self, features: PictureFeatures, regions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.looked.append(regions)
        iou = box_iou(regions, self.target)[:, 0]
        deltas = encode_boxes(regions, np.repeat(self.target, len(regions), 0)) / 2
        return probabilities(*([share, 0.0] for share in iou)), np.repeat(deltas[:, None], 2, axis=1)


def test_a_second_look_comes_nearer() -> None:
    image, regions = np.zeros((60, 80, 3), np.uint8), boxes((0, 0, 30, 30), (50, 10, 75, 30), (8, 5, 50, 40))
    target = (10, 10, 50, 40)
    found, looked = {}, {}
    for number in (0, 1, 2):
        scorer = Approaching(target)
        detector = Detector([scorer], SEARCH, DetectorSettings(first_pass_regions=0, second_look=number))
        found[number], looked[number] = detector.score(PictureFeatures(image), regions), scorer.looked
    assert [len(one) for one in looked[0]] == [3]
    assert [len(one) for one in looked[2]] == [3, 2]
    # The best region is moved by its deltas, and looked at there.
    np.testing.assert_allclose(looked[1][1], [[9, 7.5, 50, 40]], atol=0.1)
    overlap = [box_iou(found[number].boxes[:1], np.array([target], np.float32)).item() for number in (0, 1)]
    assert overlap[0] < overlap[1]
    assert found[0].scores[0] < found[1].scores[0]
    assert regions.tolist() == boxes((0, 0, 30, 30), (50, 10, 75, 30), (8, 5, 50, 40)).tolist()


def test_a_second_look_needs_box_regression() -> None:
    scorer = Approaching((10, 10, 50, 40))
    scorer.model = dataclasses.replace(scorer.model, box_regression=False)
    Detector([scorer], SEARCH).score(PictureFeatures(np.zeros((60, 80, 3), np.uint8)), boxes(A))
    assert len(scorer.looked) == 1


class WithFirstPass(Scorer):
    """Also has a first pass, which prefers regions on the right."""

    def __init__(self, *outputs: np.ndarray) -> None:
        super().__init__(*outputs)
        self.model.weights["first_pass.weight"] = np.ones(1, np.float16)

    def first_pass_logits(self, features: PictureFeatures, proposals: np.ndarray) -> np.ndarray:
        return proposals[:, 0]


def test_a_first_pass_keeps_the_order_of_the_proposals() -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    outputs = probabilities([0.8, 0.0]), np.zeros((1, 2, 4), np.float32)
    searched = boxes([5, 0, 30, 30], [30, 0, 60, 30], [0, 0, 20, 20], [20, 0, 50, 30]), np.arange(4.0, 0, -1)
    for number, kept in (
        (2, [30, 20]),
        (3, [5, 30, 20]),
        (4, [5, 30, 0, 20]),
        (9, [5, 30, 0, 20]),
        (0, [5, 30, 0, 20]),
    ):
        detector = Detector(
            [Scorer(*outputs), WithFirstPass(*outputs)], SEARCH, DetectorSettings(first_pass_regions=number)
        )
        found, objectness = detector.select_regions(PictureFeatures(image), searched)
        assert found[:, 0].tolist() == kept
        assert objectness is None
    # The confidences of a MultiBox that learned the classes count too.
    detector = Detector([WithFirstPass(*outputs)], SEARCH, DetectorSettings(first_pass_regions=1))
    detector.has_objectness = True
    surest_first, sure = searched[0][[2, 0, 1, 3]], np.array([0.9999999, 0.1, 0.1, 0.1])
    kept, _ = detector.select_regions(PictureFeatures(image), (surest_first / 10, sure))
    assert kept.tolist() == [[0, 0, 2, 2]]
    with pytest.raises(ModelError, match="has no first pass"):
        Detector([Scorer(*outputs)], SEARCH, DetectorSettings(first_pass_regions=2))


class Halves:
    """A proposer of a user's own: the halves of a picture."""

    settings: ClassVar = {"boxes": "halves"}

    def search(self, image: np.ndarray, name: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        height, width = image.shape[:2]
        rows = boxes([0, 0, width // 2, height], [width // 2, 0, width, height])
        return rows, np.array([2, 1], np.float32)

    def propose(self, features: PictureFeatures, searched: tuple | None = None, name: str | None = None) -> tuple:
        return searched or self.search(features.image)

    def has_objectness(self, classes: tuple[str, ...]) -> bool:
        return False


def test_a_proposer_of_ones_own(detector: Detector, picture: Callable[..., np.ndarray], tmp_path: Path) -> None:
    own = Detector(detector.scorers, Halves())
    image = picture(1, 120, 90)
    regions, objectness = own.select_regions(own.features(image))
    assert regions.tolist() == [[0, 0, 60, 90], [60, 0, 120, 90]]
    assert objectness is None
    assert len(own(image)) > 0
    assert own.description["proposer"] == {"boxes": "halves"}


def test_regions_of_a_file(model_file: Path, picture: Callable[..., np.ndarray], tmp_path: Path) -> None:
    image, search = picture(1), SelectiveSearch("single", limit=40)
    write_proposals(tmp_path / "boxes.npz", [Proposals("a.jpg", image.shape[1], image.shape[0], *search(image))])
    settings = {"device": "cpu", "threads": 1}
    made = Detector.load(model_file, proposals_from=tmp_path / "boxes.npz", **settings)
    found, expected = made(image, "a.jpg"), Detector(made.scorers, search, made.settings)(image)
    assert len(found) > 0
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    np.testing.assert_array_equal(found.scores, expected.scores)
    with pytest.raises(ProposalFileError, match=r"no boxes for 'b.jpg'"):
        made(image, "b.jpg")


def test_ensembles_must_agree_on_classes() -> None:
    outputs = probabilities([0.8, 0.0]), np.zeros((1, 2, 4), np.float32)
    with pytest.raises(ModelError, match="same classes in the same order"):
        Detector([Scorer(*outputs), Scorer(*outputs, classes=CLASSES[::-1])], SEARCH)
    with pytest.raises(ModelError, match="at least one model"):
        Detector([], SEARCH)


def test_two_files_of_one_model_are_that_model(
    model_file: Path, detector: Detector, picture: Callable[..., np.ndarray]
) -> None:
    pair = Detector.load([model_file, str(model_file)], device="cpu", threads=1, method="selective-search")
    pair.proposer = detector.proposer
    assert pair.scorers[0].trunk is pair.scorers[1].trunk
    image = picture(1)
    alone, both = detector(image), pair(image)
    assert len(alone) > 0
    np.testing.assert_array_equal(alone.labels, both.labels)
    np.testing.assert_allclose(alone.scores, both.scores, rtol=1e-6)
    np.testing.assert_allclose(alone.boxes, both.boxes, rtol=1e-5, atol=1e-4)


def test_detections_repeat_and_lie_in_the_picture(detector: Detector, picture: Callable[..., np.ndarray]) -> None:
    image = picture(2, 75, 140)
    found, again = detector(image), detector(image)
    np.testing.assert_array_equal(found.boxes, again.boxes)
    np.testing.assert_array_equal(found.scores, again.scores)
    assert found.boxes.dtype == found.scores.dtype == np.float32
    assert (found.scores >= detector.settings.min_score).all()
    assert (found.boxes.min(0) >= 0).all()
    assert (found.boxes.max(0) <= [75, 140, 75, 140]).all()


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (300, 2), (20, 20)])
def test_tiny_pictures_do_not_break_it(detector: Detector, size: tuple[int, int]) -> None:
    found = detector(np.full((*size, 3), 90, np.uint8))
    assert np.isfinite(found.boxes).all()
    assert (found.boxes <= [size[1], size[0]] * 2).all()


def test_settings_reach_the_search(model_file: Path) -> None:
    settings = {"device": "cpu", "threads": 1, "proposals": 7, "min_score": 0.3, "seed": 5}
    made = Detector.load(model_file, method="selective-search", **settings)
    assert made.proposer == SelectiveSearch("fast", limit=7, seed=5)
    assert made.settings.min_score == 0.3
    with pytest.raises(ValueError, match="method 'x' is unknown; use merged, selective-search or multibox"):
        Detector.load(model_file, method="x")


@pytest.fixture(scope="module")
def multibox_file(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MultiBox with random weights on the random model's trunk."""
    torch = pytest.importorskip("torch")
    from random_model import CLASSES, random_network

    from inception_rcnn.proposals.multibox.file import write_multibox
    from inception_rcnn.proposals.multibox.network import GridHead, to_model

    head = GridHead(np.full((3, 2, 2), 30, np.float32), channels=8)
    with torch.no_grad():
        for output in head.outputs:
            output.weight.normal_(std=0.5, generator=torch.Generator().manual_seed(0))
    path = tmp_path_factory.mktemp("multibox") / "random.safetensors"
    write_multibox(path, to_model(head, random_network(), long_side=128, classes=CLASSES))
    return path


def test_methods_of_proposing(
    model_file: Path, multibox_file: Path, picture: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = picture(3)
    settings = {"multibox": multibox_file, "device": "cpu", "threads": 1, "proposals": 30}
    merged, searched, boxed = (
        Detector.load(model_file, method=method, **settings) for method in ("merged", "selective-search", "multibox")
    )
    proposals, objectness = searched.select_regions(searched.features(image))
    assert len(proposals) <= 30
    assert objectness is None
    np.testing.assert_array_equal(proposals, searched.search(image)[0])
    assert boxed.search(image) is None
    proposals, objectness = boxed.select_regions(boxed.features(image))
    assert (proposals.shape, objectness.shape) == ((30, 4), (30,))
    first = merged.search(image), boxed.proposer.propose(boxed.features(image))
    expected = merge_proposals(*first, boxed.proposer.calibration, limit=30)
    for part, other in zip(merged.select_regions(merged.features(image)), expected, strict=True):
        assert len(part) == 30
        np.testing.assert_array_equal(part, other)
    # What a MultiBox did not learn is background to it, however surely it is an object.
    model = dataclasses.replace(boxed.proposer.model, classes=("cat", "horse"))
    stranger = Detector(boxed.scorers, dataclasses.replace(boxed.proposer, model=model))
    proposals, objectness = stranger.select_regions(stranger.features(image))
    np.testing.assert_array_equal(proposals, boxed.select_regions(boxed.features(image))[0])
    assert objectness is None
    # The picture goes through the trunk once, and what was searched ahead is used.
    looks: list[int] = []
    trunk = merged.scorers[0].trunk
    assert merged.proposer.multibox.trunk is trunk
    run = trunk._forward
    monkeypatch.setattr(trunk, "_forward", lambda array: looks.append(1) or run(array))
    expected = merged(image)
    assert len(looks) == 1
    monkeypatch.setattr(SelectiveSearch, "__call__", lambda *_: pytest.fail("was searched twice"))
    features = merged.features(image)
    found = merged.score(features, *merged.select_regions(features, first[0]))
    np.testing.assert_array_equal(found.boxes, expected.boxes)


def test_a_multibox_on_another_trunk_looks_for_itself(
    model_file: Path, multibox_file: Path, picture: Callable[..., np.ndarray]
) -> None:
    if "voc" not in bundled_models():
        pytest.skip("the model is not there: train it first")
    with pytest.raises(ModelError, match="this MultiBox was trained on another trunk"):
        Detector.load("voc", multibox=multibox_file, device="cpu")
    bundled = Detector.load(model_file, device="cpu", threads=1, proposals=40)
    assert bundled.proposer.multibox.trunk is not bundled.scorers[0].trunk
    assert bundled.select_regions(bundled.features(picture(1)))[0].shape == (40, 4)


def test_a_detector_can_be_sent_to_another_process(
    model_file: Path, multibox_file: Path, picture: Callable[..., np.ndarray]
) -> None:
    detector = Detector.load(model_file, model_file, scales=(1.0, 1.5), device="cpu", threads=1, multibox=multibox_file)
    copy = pickle.loads(pickle.dumps(detector))
    assert len({id(scorer.trunk) for scorer in copy.scorers}) == 1
    assert [scorer.long_side for scorer in copy.scorers] == [scorer.long_side for scorer in detector.scorers]
    ours, theirs = copy(picture(1)), detector(picture(1))
    assert len(ours) > 0
    np.testing.assert_array_equal(ours.scores, theirs.scores)
    np.testing.assert_array_equal(ours.boxes, theirs.boxes)


def test_several_sizes_are_averaged(model_file: Path, picture: Callable[..., np.ndarray]) -> None:
    load = functools.partial(
        Detector.load, model_file, device="cpu", threads=1, method="selective-search", proposals=30, min_score=0.01,
        second_look=0,
    )  # fmt: skip
    both = load(scales=(1, 0.5))
    assert [scorer.long_side for scorer in both.scorers] == [128, 64]
    assert both.scorers[0].trunk is both.scorers[1].trunk
    image = picture(0, 200, 150)
    proposals, _ = both.select_regions(both.features(image))
    features = PictureFeatures(image)
    outputs = [load(scales=(scale,)).scorers[0].score(features, proposals) for scale in (1, 0.5)]
    assert np.abs(outputs[0][0] - outputs[1][0]).max() > 1e-3
    mean = [np.mean(parts, axis=0) for parts in zip(*outputs, strict=True)]
    expected = suppress(proposals, mean[0], mean[1], (200, 150), both.classes, DetectorSettings(min_score=0.01))
    found = both(image)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.01)
    for scales in ((), (0,), (1, 9), None, "1", [None]):
        with pytest.raises(ValueError, match=r"scales must be one or more numbers, 0\.1 to 4"):
            load(scales=scales)


def test_scoring_is_the_models(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="nms 'hard' is unknown; use soft or greedy"):
        Detector.load(model_file, device="cpu", method="selective-search", nms="hard")
    with pytest.raises(ModelError, match="is for scoring shared, not crops"):
        Detector.load(model_file, scoring="crops")
    with pytest.raises(ValueError, match="scoring 'both' is unknown; use shared or crops"):
        Detector.load(model_file, scoring="both")


@pytest.mark.parametrize(
    "models", [[None], [5], [b"voc"], [[]], [["voc", ["voc"]]]], ids=["None", "number", "bytes", "no list", "nested"]
)
def test_models_are_names_or_files(models: list) -> None:
    with pytest.raises(ModelError, match="models are names or files"):
        Detector.load(*models, device="cpu")


@pytest.mark.parametrize("threads", [0, "2", 1.5, True])
def test_threads_are_a_whole_number(threads: object) -> None:
    with pytest.raises(ValueError, match="threads must be a whole number, 1 or more"):
        Detector.load("voc", device="cpu", threads=threads)


def test_a_file_of_proposals_takes_the_place_of_a_method(model_file: Path) -> None:
    with pytest.raises(SettingError, match="proposals_from is used instead of a method"):
        Detector.load(model_file, device="cpu", method="multibox", proposals_from="boxes.npz")
