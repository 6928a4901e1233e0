import doctest
import importlib

import pytest


@pytest.mark.parametrize("module", ["coco", "ensemble", "ilsvrc", "matching", "proposals", "voc"])
def test_examples_in_the_documentation(module):
    assert doctest.testmod(importlib.import_module(f"inception_rcnn.eval.{module}")).failed == 0
