import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "annotations",
        "boxes",
        "classes",
        "detections",
        "files",
        "ilsvrc",
        "images",
        "kernels",
        "matlab",
        "nms",
        "parallel",
        "proposal_files",
    ],
)
def test_examples_in_the_documentation(module):
    assert doctest.testmod(importlib.import_module(f"inception_rcnn.data.{module}")).failed == 0
