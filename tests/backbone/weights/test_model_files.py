"""A model file comes back as it was written; anything else is refused in one line."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("safetensors")

from safetensors.numpy import save

from inception_rcnn.backbone.weights.model_file import FORMAT, RegionModel, read_model, write_model
from inception_rcnn.data.class_measures import ClassMeasure
from inception_rcnn.data.errors import ModelError
from inception_rcnn.data.score_calibration import ScoreCalibration

MODEL = RegionModel(
    classes=("cat", "naïve dog"),
    long_side=576,
    box_regression=False,
    weights={"score.weight": np.arange(6, dtype=np.float16).reshape(2, 3), "score.bias": np.zeros(2, np.float16)},
    graphs={"trunk": b"\x08\x0atrunk", "first_pass": b"first", "project": b"project", "head": b"head\x00"},
    sha256="",
    trained={"epochs": 3.0, "data": ["voc"]},
)
GOOD = {
    "format": FORMAT,
    "classes": ["cat"],
    "long_side": 576,
    "box_regression": True,
    "trained": {},
    "scoring": "shared",
}
TENSORS = {
    "score.bias": np.zeros(2, np.float16),
    **{f"graph.{name}": np.zeros(4, np.uint8) for name in ("trunk", "first_pass", "project", "head")},
}


def header(**change: object) -> dict[str, str]:
    """Metadata of a good file with some entries changed, or left out where None."""
    return {"model": json.dumps({k: v for k, v in {**GOOD, **change}.items() if v is not None})}


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_model(path)
    message = str(caught.value)
    assert str(path) in message
    assert "inception-rcnn train detector" in message
    assert "\n" not in message
    return message


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_model(path, MODEL)
    back = read_model(path)
    assert (back.classes, back.long_side, back.box_regression) == (MODEL.classes, 576, False)
    assert back.graphs == MODEL.graphs
    assert back.trained == MODEL.trained
    assert sorted(back.weights) == sorted(MODEL.weights)
    for name, weight in MODEL.weights.items():
        assert back.weights[name].dtype == np.float16
        np.testing.assert_array_equal(back.weights[name], weight)
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_hash_is_the_files(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_model(path, MODEL)
    assert read_model(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_was_read_can_be_written_again(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    write_model(one, MODEL)
    write_model(two, read_model(one))
    again = read_model(two)
    assert (again.classes, again.trained, again.graphs) == (MODEL.classes, MODEL.trained, MODEL.graphs)


def test_graphs_in_a_file_of_their_own(tmp_path: Path) -> None:
    path, beside = tmp_path / "a.safetensors", tmp_path / "a.graphs.safetensors"
    model = replace(MODEL, weights=MODEL.weights | {"first_pass.weight": np.ones((9, 2, 1, 1), np.float16)})
    write_model(path, model, apart=True)
    weights, first = path.read_bytes(), read_model(path)
    assert (first.graphs, sorted(first.weights)) == (model.graphs, sorted(model.weights))
    # New graphs do not change the file of the weights, but the hash that tells which model it was.
    write_model(path, replace(model, graphs=MODEL.graphs | {"head": b"better"}), apart=True)
    again = read_model(path)
    assert (path.read_bytes(), again.graphs["head"]) == (weights, b"better")
    assert again.sha256 != first.sha256
    # Other weights do not take these graphs.
    graphs = beside.read_bytes()
    write_model(path, MODEL)
    assert not beside.exists()
    beside.write_bytes(graphs)
    with pytest.raises(ModelError, match=r"a\.graphs\.safetensors: belongs to other weights than a\.safetensors"):
        read_model(path)
    beside.write_bytes(b"")
    with pytest.raises(ModelError, match=r"a\.graphs\.safetensors: not a safetensors file"):
        read_model(path)


def test_a_calibration_comes_back(tmp_path: Path) -> None:
    calibration = ScoreCalibration((1 / 3, 2), (-0.1, 1e-7), 0.35)
    one, two = tmp_path / "1", tmp_path / "2"
    write_model(one, dataclasses.replace(MODEL, calibration=calibration))
    assert read_model(one).calibration == calibration
    header = one.read_bytes()[8 : 8 + int.from_bytes(one.read_bytes()[:8], "little")]
    stored = json.loads(json.loads(header)["__metadata__"]["model"])["calibration"]
    assert stored == {"scales": [1 / 3, 2], "shifts": [-0.1, 1e-7], "threshold": 0.35}
    write_model(two, MODEL)
    assert read_model(two).calibration is None
    assert b"calibration" not in two.read_bytes()


@pytest.mark.parametrize(
    ("calibration", "why"),
    [
        ([1, 2], "calibration does not hold scales, shifts and a threshold"),
        ({"scales": [1], "shifts": [0]}, "calibration does not hold scales, shifts and a threshold"),
        ({"scales": [1], "shifts": [0], "threshold": 0.4, "x": 1}, "calibration does not hold"),
        ({"scales": [1, 1], "shifts": [0, 0], "threshold": 0.4}, "calibration is for 2 classes, and there are 1"),
        ({"scales": [-1], "shifts": [0], "threshold": 0.4}, "scales must be"),
        ({"scales": [1], "shifts": [float("nan")], "threshold": 0.4}, "shifts must be"),
        ({"scales": [[1]], "shifts": [0], "threshold": 0.4}, "scales must be"),
        ({"scales": 1, "shifts": [0], "threshold": 0.4}, "scales must be"),
        ({"scales": [1], "shifts": [0], "threshold": "0.4"}, "threshold must be"),
    ],
)
def test_a_broken_calibration(tmp_path: Path, calibration: object, why: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(save(TENSORS, header(calibration=calibration)))
    assert why in refused(path)


def test_measures_come_back(tmp_path: Path) -> None:
    measures = (ClassMeasure(12, False, 1 / 3, 4), ClassMeasure(0, True, None, 0))
    for apart in (False, True):
        write_model(tmp_path / "a.safetensors", dataclasses.replace(MODEL, measures=measures), apart=apart)
        assert read_model(tmp_path / "a.safetensors").measures == measures
    assert b"measures" not in (tmp_path / "a.safetensors").read_bytes()  # They are with the graphs.
    write_model(tmp_path / "a.safetensors", MODEL)
    assert read_model(tmp_path / "a.safetensors").measures is None


@pytest.mark.parametrize(
    ("measures", "why"),
    [
        ({"boxes": 1}, "measures do not hold boxes, taught, value and number of each class"),
        ([1], "measures do not hold"),
        ([{"boxes": 1, "value": 0.5}], "measures do not hold"),
        ([], "there are measures of 0 classes, and 1 classes"),
        ([{"boxes": -1, "taught": False, "value": 0.5, "number": 1}], "boxes must be"),
        ([{"boxes": 1, "taught": "no", "value": 0.5, "number": 1}], "taught"),
        ([{"boxes": 1, "taught": False, "value": float("nan"), "number": 1}], "value must be"),
        ([{"boxes": 1, "taught": False, "value": "0.5", "number": 1}], "value must be"),
        ([{"boxes": 1, "taught": False, "value": 0.5, "number": [1]}], "number must be"),
    ],
)
def test_broken_measures(tmp_path: Path, measures: object, why: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(save(TENSORS, header(measures=measures)))
    assert why in refused(path)


def test_absent_file_and_folder(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "absent")
    assert "cannot be read" in refused(tmp_path)


@pytest.mark.parametrize(
    "data", [b"", b"x", b"PK\x03\x04 a zip", b"\xff" * 64, bytes(64), b"\x08" + bytes(7) + b"[[[[[[[["]
)
def test_other_files(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    assert "not a safetensors file" in refused(path)


@pytest.mark.parametrize("kind", ["F\n16", "F" * 50_000])
def test_what_the_library_quotes_is_one_short_line(tmp_path: Path, kind: str) -> None:
    header = json.dumps({"a": {"dtype": kind, "shape": [], "data_offsets": [0, 0]}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert len(refused(path)) < 600


def test_a_format_of_any_length_is_told_in_short(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(save(TENSORS, metadata=header(format="x" * 50_000)))
    assert len(refused(path)) < 600


def test_truncated_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_model(path, MODEL)
    data = path.read_bytes()
    for end in range(len(data)):
        path.write_bytes(data[:end])
        assert "not a safetensors file" in refused(path)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_random_bytes(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    refused(path)


def test_safetensors_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(save(TENSORS))
    assert "not a region model (format None)" in refused(path)
    path.write_bytes(save(TENSORS, metadata=header(format="inception-rcnn region model 99")))
    assert "not a region model (format 'inception-rcnn region model 99')" in refused(path)


@pytest.mark.parametrize("text", ["", "5", "null", "[]", "{", "[" * 100_000])
def test_headers_that_are_no_description(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(save(TENSORS, metadata={"model": text}))
    assert "not a region model (format None)" in refused(path)


@pytest.mark.parametrize(
    "change",
    [
        {"classes": "cat, dog"},
        {"classes": 5},
        {"classes": []},
        {"classes": [1, 2]},
        {"classes": None},
        {"long_side": "large"},
        {"long_side": -5},
        {"long_side": 100_000_000},
        {"long_side": None},
        {"box_regression": "maybe"},
        {"box_regression": None},
        {"trained": 7},
        {"trained": None},
    ],
    ids=lambda change: "-".join(f"{k}={str(v)[:12]}" for k, v in change.items()),
)
def test_broken_headers(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(save(TENSORS, metadata=header(**change)))
    assert "broken header" in refused(path)


def test_missing_graph(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(save({k: v for k, v in TENSORS.items() if k != "graph.head"}, metadata=header()))
    assert "has no graph head" in refused(path)


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.truncate(600 * 2**20)
    assert "larger than 512 MiB" in refused(path)


def test_header_is_plain_json(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_model(path, MODEL)
    data = path.read_bytes()
    metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    assert json.loads(metadata["model"])["format"] == FORMAT


def test_the_same_model_is_the_same_file(tmp_path: Path) -> None:
    for name in "ab":
        write_model(tmp_path / name, MODEL)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
