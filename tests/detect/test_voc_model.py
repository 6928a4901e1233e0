"""The models that come with the package find what anybody sees in two well-known photographs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("safetensors")
skimage_data = pytest.importorskip("skimage.data")

from inception_rcnn.backbone.weights.model_file import read_model, write_model
from inception_rcnn.backbone.weights.published import bundled_models, find_model
from inception_rcnn.data import COCO_CLASSES, VOC_CLASSES, Detections, box_iou
from inception_rcnn.detect import Detector
from inception_rcnn.proposals import MultiBox
from inception_rcnn.proposals.multibox.file import default_multibox, find_multibox, read_multibox

pytestmark = pytest.mark.skipif("voc" not in bundled_models(), reason="the model is not there: train it first")

# Extents as seen by eye, pixels.
CAT = [5, 0, 390, 300]
ASTRONAUT = [20, 15, 370, 512]
CUP, SAUCER = [173, 17, 408, 308], [77, 17, 480, 388]


@pytest.fixture(scope="module", params=["voc", "voc-2007", "voc-2", "voc-crops"])
def voc(request: pytest.FixtureRequest) -> Detector:
    # Crops take a twentieth of a second each.
    return Detector.load(request.param, device="cpu", threads=1, proposals=30 if request.param == "voc-crops" else 100)


def best(found: Detections, name: str, box: list[float]) -> tuple[float, float]:
    """Score of the best detection of a class, and its IoU with a box."""
    of_class = np.flatnonzero(found.labels == VOC_CLASSES.index(name))
    assert len(of_class), f"no {name} among {[found.classes[label] for label in found.labels]}"
    return float(found.scores[of_class[0]]), float(box_iou(found.boxes[of_class[:1]], np.float32([box]))[0, 0])


def test_cat(voc: Detector) -> None:
    found = voc(skimage_data.chelsea())
    score, overlap = best(found, "cat", CAT)
    assert score >= 0.5
    assert overlap >= 0.5
    assert found.classes[found.labels[0]] == "cat"


def test_astronaut(voc: Detector) -> None:
    score, overlap = best(voc(skimage_data.astronaut()), "person", ASTRONAUT)
    assert score >= 0.5
    assert overlap >= 0.5


def test_same_picture_same_detections(voc: Detector) -> None:
    image = skimage_data.chelsea()
    proposed, again = (voc.select_regions(voc.features(image)) for _ in range(2))
    for part, other in zip(proposed, again, strict=True):
        np.testing.assert_array_equal(part, other)
    one, two = (voc.score(voc.features(image), *regions) for regions in (proposed, again))
    np.testing.assert_array_equal(one.boxes, two.boxes)
    np.testing.assert_array_equal(one.scores, two.scores)
    np.testing.assert_array_equal(one.labels, two.labels)


def test_eight_bits_and_a_first_pass_find_the_same() -> None:
    image = skimage_data.chelsea()
    found = {
        (precision, first_pass): Detector.load(
            "voc",
            device="cpu",
            threads=1,
            method="selective-search",
            precision=precision,
            first_pass_regions=first_pass,
        )(image)
        for precision in ("float32", "int8")
        for first_pass in (0, 50)
    }
    score, _ = best(found["float32", 0], "cat", CAT)
    for detections in found.values():
        other, overlap = best(detections, "cat", CAT)
        assert overlap >= 0.5
        assert abs(other - score) < 0.05


@pytest.mark.parametrize(("models", "multibox"), [(["voc-2007"], "voc-2007"), (["voc-2", "voc-2007"], "voc")])
def test_a_model_has_the_multibox_of_its_name(models: list[str], multibox: str) -> None:
    by_name, named = (Detector.load(models, device="cpu", threads=1, **more) for more in ({}, {"multibox": multibox}))
    assert by_name.description == named.description


def test_a_model_of_other_classes_has_the_multibox_of_any_object(tmp_path: Path) -> None:
    settings = {"device": "cpu", "threads": 1}
    voc = read_model(find_model("voc"))
    other = dataclasses.replace(voc, classes=(*VOC_CLASSES[:-1], "mug"))
    write_model(tmp_path / "mugs.safetensors", other)
    by_classes = Detector.load(tmp_path / "mugs.safetensors", **settings)
    named = Detector.load(tmp_path / "mugs.safetensors", multibox="any", **settings)
    assert by_classes.description == named.description
    # Its confidences are of any object, those of `voc` are not.
    assert by_classes.has_objectness
    assert not Detector.load(tmp_path / "mugs.safetensors", multibox="voc", **settings).has_objectness
    assert (default_multibox(VOC_CLASSES[3:5]), default_multibox(COCO_CLASSES)) == ("voc", "any")


def test_the_multibox_of_any_object_finds_what_voc_does_not_name() -> None:
    model = read_multibox(find_multibox("any"))
    assert find_multibox("any").stat().st_size < 4 * 2**20
    assert model.classes == COCO_CLASSES
    assert model.any_object
    assert model.trunk_sha256 == read_model(find_model("voc")).trunk_sha256
    boxes, scores = MultiBox.load("any", device="cpu", threads=1)(skimage_data.coffee())
    assert (box_iou(boxes[:3], np.array([CUP, SAUCER], np.float32)).max(0) >= 0.7).all()
    assert scores[:2].min() > 0.5


@pytest.mark.parametrize("name", ["voc", "voc-2007", "voc-2", "voc-crops"])
def test_files_are_small_say_what_they_are_and_share_a_trunk(name: str) -> None:
    path = find_model(name)
    assert path.stat().st_size < 16 * 2**20
    model = read_model(path)
    assert model.classes == VOC_CLASSES
    assert model.trained
    assert model.has_first_pass
    assert ("crops.int8" if name == "voc-crops" else "head.int8") in model.graphs
    assert model.scoring == ("crops" if name == "voc-crops" else "shared")
    # The members of the ensemble were trained on the trunk of an earlier `voc`.
    has_multibox = name in ("voc", "voc-2007")
    trunk = name if has_multibox else "voc-2"
    assert model.trunk_sha256 == read_model(find_model(trunk)).trunk_sha256
    if has_multibox:
        assert model.trunk_sha256 == read_multibox(find_multibox(name)).trunk_sha256
        assert (model.parts["finer"], model.parts["context"], "trunk.int8" in model.graphs) == (True, True, True)
        assert model.calibration is not None
