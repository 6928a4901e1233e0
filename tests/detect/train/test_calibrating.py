"""The calibration of a detector is fitted on pictures set aside: which of them count, and what comes out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import make_picture, write_image

pytest.importorskip("torch")
pytest.importorskip("safetensors")

from inception_rcnn.backbone.regions.features import PictureFeatures
from inception_rcnn.backbone.weights.model_file import RegionModel
from inception_rcnn.data import Picture
from inception_rcnn.data.errors import EvaluationError, ImageError
from inception_rcnn.data.score_calibration import ScoreCalibration
from inception_rcnn.detect import Detector
from inception_rcnn.detect.settings import DetectorSettings
from inception_rcnn.detect.train.validation import match_set_aside
from inception_rcnn.eval.reliability import fit_score_calibration

CLASSES = ("cat", "dog")
BOXES = np.array([[0, 0, 20, 20], [30, 0, 50, 20]], np.float32)


class TwoBoxes:
    """Proposes the same two boxes in every picture."""

    settings: dict[str, object] = {}  # noqa: RUF012

    def search(self, image: np.ndarray, name: str | None = None) -> None:
        return None

    def propose(self, features: PictureFeatures, searched: object = None, name: str | None = None) -> tuple:
        assert name is not None
        assert name.endswith(".png")
        return BOXES, np.ones(2, np.float32)

    def has_objectness(self, classes: tuple[str, ...]) -> bool:
        return False


class Grey:
    """Gives the first box the score of a cat that the picture's grey says, and the second one of 0.02."""

    def __init__(self, calibration: ScoreCalibration | None = None) -> None:
        weights = {"first_pass.weight": np.zeros(1, np.float16)}
        self.model = RegionModel(CLASSES, 64, False, weights, {}, "", {}, calibration=calibration)
        self.trunk, self.long_side = None, 64
        self.model = replace(self.model, scoring="crops")

    def score(self, features: PictureFeatures, proposals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        grey = features.image[0, 0, 0] / 255
        return np.float32([[1 - grey, grey, 0], [0.98, 0.02, 0]]), np.zeros((2, 2, 4), np.float32)


def calibrate_scores(detector: Detector, pictures: list[Picture]) -> ScoreCalibration:
    return fit_score_calibration(match_set_aside(detector, pictures))


def detector(calibration: ScoreCalibration | None = None) -> Detector:
    return Detector([Grey(calibration)], TwoBoxes(), DetectorSettings(first_pass_regions=0))  # type: ignore[list-item]


@pytest.fixture
def pictures(tmp_path: Path) -> list[Picture]:
    """A hundred pictures with scores near 0.5, 0.6, 0.7 and 0.8: in every second one the first box has a cat."""
    made = []
    for i in range(100):
        path = write_image(tmp_path / f"{i:02}.png", np.full((40, 60, 3), 128 + 25 * (i // 2 % 4), np.uint8))
        made.append(make_picture(BOXES[: i % 2], image_id=f"{i:02}", path=path, size=(60, 40)))
    return made


def test_scores_become_what_is_right(pictures: list[Picture]) -> None:
    calibration = calibrate_scores(detector(), pictures)
    assert len(calibration.scales) == 2
    # Half of the detections with such scores are right, and none with 0.02.
    greys = np.float32([128, 153, 178, 203]) / 255
    assert calibration(greys, [0, 0, 0, 0]).mean() == pytest.approx(0.5, abs=0.05)
    assert calibration(np.float32([0.02]), [0]) < 0.1
    assert 0.3 < calibration.threshold < 0.6


def test_a_calibration_that_it_has_is_not_used(pictures: list[Picture]) -> None:
    calibrated = detector(ScoreCalibration((3, 3), (-9, -9), 0.5))
    assert calibrate_scores(calibrated, pictures) == calibrate_scores(detector(), pictures)
    assert calibrated.settings.calibrated


def test_pictures_in_which_objects_may_be_unlabelled_are_left_out(pictures: list[Picture]) -> None:
    # Scores of cats in a picture where cats are not boxed, and in one where some may be unboxed.
    partly = [replace(pictures[0], image_id="x", labelled=(1,)), replace(pictures[0], image_id="y", exhaustive=False)]
    assert calibrate_scores(detector(), [*pictures, *partly]) == calibrate_scores(detector(), pictures)
    with pytest.raises(EvaluationError, match="no detection is right; give more pictures"):
        calibrate_scores(detector(), partly)


def test_pictures_of_other_classes_and_absent_ones_are_refused(pictures: list[Picture]) -> None:
    with pytest.raises(EvaluationError, match="pictures were read with 1 classes"):
        calibrate_scores(detector(), [replace(pictures[1], classes=("robot",))])
    with pytest.raises(ImageError, match="does not exist"):
        calibrate_scores(detector(), [replace(pictures[1], path=Path("absent.png"))])
