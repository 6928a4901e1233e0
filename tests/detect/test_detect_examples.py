from __future__ import annotations

import doctest
import importlib

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("safetensors")


@pytest.mark.parametrize(
    "module", ["augmentation", "batch", "propose", "runs", "detector", "drawing", "training", "training_data"]
)
def test_examples_in_the_documentation(module: str) -> None:
    from inception_rcnn.backbone.weights import bundled_models

    if module == "training":
        pytest.importorskip("torch")
    if module == "detector":
        pytest.importorskip("skimage")
        if "voc" not in bundled_models():
            pytest.skip("the model is not there: train it first")
    assert doctest.testmod(importlib.import_module(f"inception_rcnn.detect.{module}")).failed == 0
