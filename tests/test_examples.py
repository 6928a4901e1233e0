"""Every example in every docstring of the package, found by walking the folders: a new module cannot be forgotten."""

import doctest
import importlib
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("data", "backbone", "proposals", "eval", "detect")
# The examples there export networks, which takes half a minute.
SLOW = ("backbone.export.graphs",)
# What a room needs beyond the packages that are always there; see pyproject.toml.
OPTIONAL = ("torch", "onnx", "onnxscript", "onnxruntime", "safetensors", "skimage", "ray")


def find_examples() -> dict[str, int]:
    """Number of examples in each module that has any."""
    found = {}
    for file in sorted(file for room in ROOMS for file in (ROOT / room).rglob("*.py")):
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found[name] = sum(line.lstrip().startswith(">>> ") for line in file.read_text(encoding="utf-8").splitlines())
    return {name: number for name, number in found.items() if number}


EXAMPLES = find_examples()


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_examples(room: str) -> None:
    assert sum(number for name, number in EXAMPLES.items() if name.split(".")[0] == room) > 0


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in EXAMPLES]
)
def test_examples_of_the_documentation(name: str) -> None:
    try:
        module = importlib.import_module(f"inception_rcnn.{name}")
    except ImportError as error:
        package = (error.name or "").split(".")[0]
        # A package that is there, and does not have what is imported from it, is a fault.
        if package not in OPTIONAL or importlib.util.find_spec(package):
            raise
        pytest.skip(f"{name} needs {package}")
    results = doctest.testmod(module)
    # doctest does not look into all that a docstring may stand on, as compiled functions.
    assert results.attempted == EXAMPLES[name]
    assert results.failed == 0
