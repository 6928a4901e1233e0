from __future__ import annotations

import doctest
import importlib

import pytest

pytest.importorskip("safetensors")


@pytest.mark.parametrize(
    "module",
    [
        "classification",
        "engine",
        pytest.param("export", marks=pytest.mark.slow),
        "googlenet",
        "preprocessing",
        "region_features",
        "regions",
        "torch_engine",
        "weights",
    ],
)
def test_examples_in_the_documentation(module: str) -> None:
    from inception_rcnn.backbone.weights import bundled_models

    if module in ("export", "googlenet", "regions", "torch_engine"):
        pytest.importorskip("torch")
    if module == "export":
        pytest.importorskip("onnxscript")
    if module in ("engine", "export", "torch_engine", "weights") and "voc" not in bundled_models():
        pytest.skip("the model is not there: train it first")
    assert doctest.testmod(importlib.import_module(f"inception_rcnn.backbone.{module}")).failed == 0
