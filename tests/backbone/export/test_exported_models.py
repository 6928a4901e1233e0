"""A model as one ONNX graph, run by ONNX Runtime alone, gives what torch gives."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from builders import random_boxes
from random_model import CLASSES, random_network, real_export_common

from inception_rcnn.backbone.export.graphs import export_graphs, export_whole, to_model
from inception_rcnn.backbone.regions.torch_engine import torch_network
from inception_rcnn.backbone.weights.model_file import RegionModel

pytestmark = pytest.mark.slow


def run(session: onnxruntime.InferenceSession, **inputs: np.ndarray) -> list[np.ndarray]:
    return session.run(["probabilities", "deltas"], inputs)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).normal(0, 60, shape).astype(np.float32)


def test_shared_scoring(region_model: RegionModel) -> None:
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
    model = to_model(random_network(), CLASSES, long_side=128, scoring="crops")
    session = onnxruntime.InferenceSession(export_whole(model), providers=["CPUExecutionProvider"])
    network = torch_network(model.weights, len(CLASSES), "cpu")
    for count in (1, 5):
        crops = noise(count, 3, 224, 224)
        with torch.inference_mode():
            logits, deltas = network.score_crops(network.trunk(torch.from_numpy(crops)))
        found = run(session, picture=crops)
        np.testing.assert_allclose(found[0], logits.softmax(1).numpy(), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(found[1], deltas.numpy(), rtol=1e-3, atol=1e-4)


def test_graphs_are_those_of_every_network_of_as_many_classes(region_model: RegionModel) -> None:
    """Structure alone is exported: of a network in which no weight is zero or equal to another."""
    graphs = {name: real_export_common(name) for name in ("trunk", "first_pass", "project")}
    graphs["head"] = export_graphs(len(CLASSES))["head"]
    assert {name: graph for name, graph in graphs.items() if graph != region_model.graphs[name]} == {}
    external = {
        tensor.name
        for graph in graphs.values()
        for tensor in onnx.load_from_string(graph).graph.initializer
        if tensor.external_data
    }
    assert external == set(region_model.weights)
