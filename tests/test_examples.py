"""Every example in every docstring of the package, found by walking the folders: a new module cannot be forgotten."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("data", "backbone", "proposals", "eval", "detect")
# The examples there export networks, which takes half a minute.
SLOW = ("backbone.export.graphs",)
# What a room needs beyond the packages that are always there; see pyproject.toml.
OPTIONAL = ("torch", "onnx", "onnxscript", "onnxruntime", "safetensors", "skimage", "ray")


def modules() -> list[str]:
    files = sorted(file for room in ROOMS for file in (ROOT / room).rglob("*.py") if ">>> " in file.read_text())
    return [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in modules()]
)
def test_examples_of_the_documentation(name: str) -> None:
    try:
        module = importlib.import_module(f"inception_rcnn.{name}")
        results = doctest.testmod(module)
    except ImportError as error:
        if (error.name or "").split(".")[0] not in OPTIONAL:
            raise
        pytest.skip(f"{name} needs {error.name}")
    assert results.attempted > 0
    assert results.failed == 0
