from __future__ import annotations

import doctest
import importlib

import pytest

pytest.importorskip("safetensors")
pytest.importorskip("platformdirs")


@pytest.mark.parametrize("module", ["engine", "googlenet", "preprocessing", "regions", "weights"])
def test_examples_in_the_documentation(module: str) -> None:
    from inception_rcnn.backbone.weights import bundled_models

    if module in ("googlenet", "regions"):
        pytest.importorskip("torch")
    if module == "weights" and "voc" not in bundled_models():
        pytest.skip("the model is not there: train it first")
    assert doctest.testmod(importlib.import_module(f"inception_rcnn.backbone.{module}")).failed == 0
