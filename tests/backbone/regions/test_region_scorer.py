"""ONNX Runtime and torch run the same numbers; devices and models that do not fit are named."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("safetensors")

from builders import noise_image, random_boxes

from inception_rcnn.backbone.preprocessing import prepare_picture
from inception_rcnn.backbone.regions.onnx_engine import CHUNK
from inception_rcnn.backbone.regions.placement import choose_device, choose_placement
from inception_rcnn.backbone.regions.scorer import RegionScorer
from inception_rcnn.backbone.weights.model_file import RegionModel, read_model, write_model
from inception_rcnn.data.errors import DeviceError, ModelError


@pytest.fixture(scope="module")
def scorer(region_model: RegionModel) -> RegionScorer:
    return RegionScorer(region_model, choose_placement("cpu", threads=1))


@pytest.mark.parametrize(
    ("height", "width", "count"),
    [(90, 120, 5), (200, 77, 1), (128, 128, CHUNK + 6), (31, 300, 2 * CHUNK), (1, 1, 2), (5, 400, 3)],
)
def test_onnx_runtime_gives_what_torch_gives(
    scorer: RegionScorer, region_model: RegionModel, height: int, width: int, count: int
) -> None:
    torch = pytest.importorskip("torch")
    from inception_rcnn.backbone.regions.network import RegionNetwork

    network = RegionNetwork(len(region_model.classes)).eval()
    network.load_state_dict({name: torch.from_numpy(w.astype(np.float32)) for name, w in region_model.weights.items()})
    image, boxes = noise_image(0, width, height), random_boxes(count, width, height)
    array, scale = prepare_picture(image, region_model.long_side)
    with torch.inference_mode():
        logits, deltas = network(torch.from_numpy(array), torch.from_numpy(boxes * np.float32(scale)))
    probabilities, found = scorer(image, boxes)
    assert probabilities.shape == (count, 4)
    assert found.shape == (count, 3, 4)
    assert probabilities.dtype == found.dtype == np.float32
    np.testing.assert_allclose(probabilities, logits.softmax(1).numpy(), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found, deltas.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("count", [1, CHUNK + 6])
def test_torchs_engine_gives_what_onnx_runtime_gives(
    scorer: RegionScorer, region_model: RegionModel, count: int
) -> None:
    pytest.importorskip("torch")
    image, boxes = noise_image(0, 120, 90), random_boxes(count, 120, 90)
    found = RegionScorer(region_model, choose_placement("cpu", engine="torch"))(image, boxes)
    for ours, theirs in zip(found, scorer(image, boxes), strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_box_deltas_that_all_classes_share(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from random_model import CLASSES, random_network

    from inception_rcnn.backbone.export.graphs import to_model

    image, boxes = noise_image(0, 120, 90), random_boxes(7, 120, 90)
    write_model(tmp_path / "m.safetensors", to_model(random_network(class_agnostic=True), CLASSES, long_side=128))
    model = read_model(tmp_path / "m.safetensors")
    assert model.weights["delta.weight"].shape[0] == 4
    (scores, deltas), theirs = (
        RegionScorer(model, choose_placement("cpu", engine=engine, threads=1))(image, boxes)
        for engine in ("onnxruntime", "torch")
    )
    assert deltas.shape == (7, 3, 4)
    assert (deltas == deltas[:, :1]).all()
    np.testing.assert_allclose(scores, theirs[0], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(deltas, theirs[1], rtol=1e-3, atol=1e-4)


def test_a_gpu_gives_what_the_cpu_gives(scorer: RegionScorer, region_model: RegionModel) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    image, boxes = noise_image(0, 120, 90), random_boxes(CHUNK + 6, 120, 90)
    probabilities, deltas = RegionScorer(region_model, choose_placement("cuda"))(image, boxes)
    expected, expected_deltas = scorer(image, boxes)
    np.testing.assert_allclose(probabilities, expected, atol=0.02)
    np.testing.assert_allclose(deltas, expected_deltas, atol=0.05 * np.abs(expected_deltas).max())


def test_weights_that_do_not_fit_torchs_network(region_model: RegionModel) -> None:
    pytest.importorskip("torch")
    with pytest.raises(ModelError, match="weights do not fit the network"):
        RegionScorer(dataclasses.replace(region_model, weights={}), choose_placement("cpu", engine="torch"))


def test_outputs_are_worth_comparing(scorer: RegionScorer) -> None:
    probabilities, deltas = scorer(noise_image(0, 120, 90), random_boxes(40, 120, 90))
    assert probabilities.std(axis=0).min() > 1e-3
    assert deltas.std(axis=0).min() > 1e-3
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)


def test_no_boxes(scorer: RegionScorer) -> None:
    probabilities, deltas = scorer(noise_image(0, 60, 50), np.zeros((0, 4), np.float32))
    assert (probabilities.shape, deltas.shape) == ((0, 4), (0, 3, 4))
    assert probabilities.dtype == deltas.dtype == np.float32


def test_a_box_alone_scores_as_among_others(scorer: RegionScorer) -> None:
    image, boxes = noise_image(0, 90, 120), random_boxes(CHUNK + 3, 90, 120)
    together = scorer(image, boxes)
    alone = scorer(image, boxes[CHUNK + 1 :][:1])
    for whole, single in zip(together, alone, strict=True):
        np.testing.assert_allclose(whole[CHUNK + 1], single[0], rtol=1e-3, atol=1e-5)


def test_boxes_of_other_types_and_layouts(scorer: RegionScorer) -> None:
    image, boxes = noise_image(0, 80, 60), random_boxes(6, 80, 60)
    expected, _ = scorer(image, boxes)
    np.testing.assert_array_equal(scorer(image, np.asfortranarray(boxes))[0], expected)
    np.testing.assert_array_equal(scorer(image, boxes.astype(np.float64))[0], expected)


def test_scoring_repeats(scorer: RegionScorer, region_model: RegionModel) -> None:
    image, boxes = noise_image(0, 80, 60), random_boxes(6, 80, 60)
    other = RegionScorer(region_model, choose_placement("cpu", threads=2))
    np.testing.assert_array_equal(scorer(image, boxes)[0], scorer(image, boxes)[0])
    np.testing.assert_allclose(other(image, boxes)[0], scorer(image, boxes)[0], rtol=1e-4, atol=1e-6)


def test_model_file_holds_no_paths_of_the_machine_that_exported(region_model: RegionModel) -> None:
    import inception_rcnn.backbone.export.graphs as export

    for graph in region_model.graphs.values():
        assert len(graph) < 200_000
        assert b"site-packages" not in graph
        assert str(export.__file__).rpartition("/")[0].encode() not in graph


@pytest.mark.parametrize(
    "change",
    [
        {"trunk": b"no graph"},
        {"head": b""},
        {"weights": {}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_models_that_cannot_run_are_refused(region_model: RegionModel, change: dict) -> None:
    replaced = change if "weights" in change else {"graphs": region_model.graphs | change}
    with pytest.raises(ModelError, match="graph cannot be run") as caught:
        RegionScorer(dataclasses.replace(region_model, **replaced), choose_placement("cpu", threads=1))
    assert "\n" not in str(caught.value)


def test_a_weight_of_another_shape_is_refused(region_model: RegionModel) -> None:
    weights = {**region_model.weights, "score.weight": np.zeros((7, 9216), np.float16)}
    with pytest.raises(ModelError, match="graph cannot be run"):
        RegionScorer(dataclasses.replace(region_model, weights=weights), choose_placement("cpu", threads=1))


def test_devices() -> None:
    assert choose_device("cpu") == "cpu"
    assert choose_device() in ("cpu", "cuda")
    with pytest.raises(DeviceError, match=r"'tpu' is unknown \(did you mean 'cpu'\?\); use auto, cpu or cuda"):
        choose_device("tpu")


def test_cuda_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    with pytest.raises(DeviceError, match=r"torch finds no GPU.*or use --device cpu"):
        choose_device("cuda")


def test_cuda_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert choose_device("auto") == "cpu"
    with pytest.raises(DeviceError, match=r"pip install '.\[train\]'"):
        choose_device("cuda")


@pytest.mark.parametrize(
    "module", ["regions.scorer", "weights.model_file", "preprocessing", "weights.published", "weights.caffe"]
)
def test_scoring_on_a_cpu_imports_no_torch(module: str) -> None:
    code = f"import sys, inception_rcnn.backbone.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_where_there_is_no_gpu_driver_auto_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from inception_rcnn.backbone.regions import placement\n"
        "placement.has_gpu_driver = lambda: False\n"
        "assert placement.choose_placement() == placement.Placement()\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
