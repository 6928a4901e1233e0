"""A model as one ONNX graph, run by ONNX Runtime alone, gives what torch gives."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from builders import random_boxes
from onnx.reference import ReferenceEvaluator
from random_model import CLASSES, random_network, real_export_common

from inception_rcnn.backbone.export.graphs import export_graphs, export_whole, to_model
from inception_rcnn.backbone.export.quantization import with_weights
from inception_rcnn.backbone.regions.torch_engine import torch_network
from inception_rcnn.backbone.weights.model_file import RegionModel

pytestmark = pytest.mark.slow


def run(session: onnxruntime.InferenceSession, **inputs: np.ndarray) -> list[np.ndarray]:
    return session.run(["probabilities", "deltas"], inputs)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).normal(0, 60, shape).astype(np.float32)


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_shared_scoring(region_model: RegionModel, class_agnostic: bool) -> None:
    if class_agnostic:
        region_model = to_model(random_network(class_agnostic=True), CLASSES, long_side=128)
    session = onnxruntime.InferenceSession(export_whole(region_model), providers=["CPUExecutionProvider"])
    about = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert about == {"classes": list(CLASSES), "long_side": 128, "scoring": "shared", "box_regression": True}
    network = torch_network(region_model.weights, len(CLASSES), "cpu")
    for height, width, count in ((96, 128, 1), (64, 200, 7), (150, 90, 130)):
        boxes = random_boxes(count, width, height, seed=count)
        picture = noise(1, 3, height, width)
        with torch.inference_mode():
            logits, deltas = network(torch.from_numpy(picture), torch.from_numpy(boxes))
        found = run(session, picture=picture, boxes=boxes)
        np.testing.assert_allclose(found[0], logits.softmax(1).numpy(), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(found[1], deltas.numpy(), rtol=1e-3, atol=1e-4)


def test_crops() -> None:
    model = to_model(random_network(parts=False), CLASSES, long_side=128, scoring="crops")
    session = onnxruntime.InferenceSession(export_whole(model), providers=["CPUExecutionProvider"])
    network = torch_network(model.weights, len(CLASSES), "cpu")
    for count in (1, 5):
        crops = noise(count, 3, 224, 224)
        with torch.inference_mode():
            logits, deltas, _ = network.score_crops(network.trunk(torch.from_numpy(crops)))
        found = run(session, picture=crops)
        np.testing.assert_allclose(found[0], logits.softmax(1).numpy(), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(found[1], deltas.numpy(), rtol=1e-3, atol=1e-4)


def dimensions(model: onnx.ModelProto) -> dict[str, list[str | int]]:
    values = (*model.graph.input, *model.graph.output)
    return {value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in values}


@pytest.mark.parametrize(("scoring", "classes"), [("shared", 1), ("shared", 3), ("crops", 3)])
def test_export_is_in_opset_17_with_named_dimensions(scoring: str, classes: int) -> None:
    network = random_network(classes=classes)
    whole = onnx.load_from_string(export_whole(to_model(network, CLASSES[:classes], long_side=128, scoring=scoring)))
    onnx.checker.check_model(whole, full_check=True)
    onnx.shape_inference.infer_shapes(whole, strict_mode=True, data_prop=True)
    # ONNX Runtime 1.12, the first with opset 17, reads up to version 8 of the file.
    assert [(entry.domain, entry.version) for entry in whole.opset_import] == [("", 17)]
    assert whole.ir_version == 8
    inputs = {"picture": ["regions", 3, 224, 224]}
    if scoring == "shared":
        inputs = {"picture": [1, 3, "height", "width"], "boxes": ["regions", 4]}
    outputs = {"probabilities": ["regions", 1 + classes], "deltas": ["regions", classes, 4]}
    assert dimensions(whole) == inputs | outputs


def test_zero_regions(region_model: RegionModel) -> None:
    crops = to_model(random_network(parts=False), CLASSES, long_side=128, scoring="crops")
    boxes, pictures = np.zeros((0, 4), np.float32), np.zeros((0, 3, 224, 224), np.float32)
    for model, inputs in (
        (region_model, {"picture": noise(1, 3, 64, 96), "boxes": boxes}),
        (crops, {"picture": pictures}),
    ):
        session = onnxruntime.InferenceSession(export_whole(model), providers=["CPUExecutionProvider"])
        found = run(session, **inputs)
        assert [array.shape for array in found] == [(0, 1 + len(CLASSES)), (0, len(CLASSES), 4)]
        assert {array.dtype for array in found} == {np.dtype(np.float32)}


def test_no_layer_gets_zero_regions(region_model: RegionModel) -> None:
    """Programs such as OpenVINO refuse a pooling of nothing: one region is computed and left out."""
    whole = onnx.load_from_string(export_whole(region_model))
    pools = [node.output[0] for node in whole.graph.node if node.op_type in ("MaxPool", "Conv", "Gemm", "Reshape")]
    whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in pools)
    session = onnxruntime.InferenceSession(whole.SerializeToString(), providers=["CPUExecutionProvider"])
    computed = session.run(pools, {"picture": noise(1, 3, 64, 96), "boxes": np.zeros((0, 4), np.float32)})
    assert [name for name, array in zip(pools, computed, strict=True) if array.size == 0] == []


@pytest.mark.parametrize("count", [0, 2])
def test_onnx_reference_evaluator(region_model: RegionModel, count: int) -> None:
    whole = export_whole(region_model)
    inputs = {"picture": noise(1, 3, 32, 48), "boxes": random_boxes(2, 48, 32, seed=2)[:count]}
    expected = run(onnxruntime.InferenceSession(whole, providers=["CPUExecutionProvider"]), **inputs)
    found = ReferenceEvaluator(onnx.load_from_string(whole)).run(None, inputs)
    assert [array.shape for array in found] == [(count, 1 + len(CLASSES)), (count, len(CLASSES), 4)]
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-3, atol=1e-4)


def test_a_model_with_8_bits_is_exported_in_float32(region_model: RegionModel) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)
    samples = [(picture, random_boxes(40, 90, 60, seed=0))]
    model = to_model(random_network(), CLASSES, long_side=128, samples=samples)
    quantized = with_weights(model.graphs["head.int8"], model.weights)
    onnx.checker.check_model(quantized, full_check=True)
    whole = onnx.load_from_string(export_whole(model))
    assert {node.op_type for node in whole.graph.node}.isdisjoint({"QuantizeLinear", "DequantizeLinear"})
    assert [node.op_type for node in whole.graph.node] == [
        node.op_type for node in onnx.load_from_string(export_whole(region_model)).graph.node
    ]


def test_graphs_of_the_model_before_are_taken_where_they_are_the_same() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)
    samples = [(picture, random_boxes(40, 90, 60, seed=0))]
    before = to_model(random_network(), CLASSES, long_side=128, samples=samples)
    marked = replace(before, graphs={name: b"kept" for name in before.graphs})
    same = to_model(random_network(classes=2), CLASSES[:2], long_side=128, samples=samples, before=marked)
    kept = {name for name, graph in same.graphs.items() if graph == b"kept"}
    assert kept == {"trunk", "first_pass", "project", "trunk.int8"}
    # Of a trunk with other weights 8 bits have other ranges.
    other = to_model(random_network(1), CLASSES, long_side=128, samples=samples, before=before)
    assert other.graphs["trunk.int8"] != before.graphs["trunk.int8"]
    without = to_model(random_network(parts=False), CLASSES, long_side=128, before=marked)
    assert b"kept" not in without.graphs.values()


def test_graphs_are_those_of_every_network_of_as_many_classes(region_model: RegionModel) -> None:
    """Structure alone is exported: of a network in which no weight is zero or equal to another."""
    graphs = {name: real_export_common(name) for name in ("trunk", "first_pass")}
    graphs["project"] = real_export_common("project", finer=True)
    graphs["head"] = export_graphs(len(CLASSES))["head"]
    assert {name: graph for name, graph in graphs.items() if graph != region_model.graphs[name]} == {}
    external = {
        tensor.name
        for graph in graphs.values()
        for tensor in onnx.load_from_string(graph).graph.initializer
        if tensor.external_data
    }
    assert external == set(region_model.weights)
