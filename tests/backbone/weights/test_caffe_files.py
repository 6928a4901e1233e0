"""Caffe models written here, field by field, are read; damaged ones end in one line."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("safetensors")

from inception_rcnn.backbone.weights.caffe import read_caffemodel
from inception_rcnn.data.errors import ModelError


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def block(field: int, data: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(data)) + data


def blob(array: np.ndarray, *, legacy: bool = False, packed: bool = True) -> bytes:
    """BlobProto: 1..4 the four old dimensions, 5 the data, 7 the shape."""
    values = array.astype("<f4").ravel()
    data = block(5, values.tobytes())
    if not packed:
        data = b"".join(varint(5 << 3 | 5) + struct.pack("<f", value) for value in values)
    if legacy:
        sides = (1,) * (4 - array.ndim) + array.shape
        return b"".join(number(i, side) for i, side in enumerate(sides, 1)) + data
    shape = b"".join(varint(side) for side in array.shape)
    dimensions = block(1, shape) if packed else b"".join(number(1, side) for side in array.shape)
    return block(7, dimensions) + data


def network(layers: dict[str, list[np.ndarray]], *, old: bool = False, packed: bool = True) -> bytes:
    """NetParameter: 1 the name, 100 the layers (name 1, type 2, blobs 7) or 2 the old ones (name 4, blobs 6)."""
    out = block(1, b"GoogleNet")
    for name, arrays in layers.items():
        blobs = [blob(array, legacy=old, packed=packed) for array in arrays]
        if old:
            layer = block(4, name.encode()) + number(5, 4) + b"".join(block(6, b) for b in blobs)
        else:
            layer = block(1, name.encode()) + block(2, b"Convolution") + b"".join(block(7, b) for b in blobs)
        out += block(2 if old else 100, layer)
    return out


@pytest.fixture
def layers() -> dict[str, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    shapes = {
        "data": [],
        "conv1/7x7_s2": [(4, 3, 7, 7), (4,)],
        "inception_3a/1x1": [(5, 4, 1, 1), (5,)],
        "one/channel": [(1, 4, 3, 3), (1,)],
        "loss3/classifier": [(300, 5), (300,)],
    }
    return {name: [rng.standard_normal(shape).astype(np.float32) for shape in pair] for name, pair in shapes.items()}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_weights_come_back(tmp_path: Path, layers: dict[str, list[np.ndarray]], old: bool, packed: bool) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(network(layers, old=old, packed=packed))
    arrays = read_caffemodel(path)
    expected = {name: pair for name, pair in layers.items() if pair}
    assert sorted(arrays) == sorted(f"{name}.{kind}" for name in expected for kind in ("weight", "bias"))
    for name, (weight, bias) in expected.items():
        np.testing.assert_array_equal(arrays[f"{name}.weight"], weight)
        np.testing.assert_array_equal(arrays[f"{name}.bias"], bias)
        assert arrays[f"{name}.weight"].dtype == np.float32


BROKEN = {
    "empty": (b"", "without weights"),
    "text": (b"this is not a model at all", "not a Caffe model|without weights"),
    "no layers": (network({}), "without weights"),
    "wrong size": (network({"a": [np.zeros((2, 2))]})[:-3], "not a Caffe model"),
    "endless number": (b"\xff" * 40, "more than 64 bits"),
    "group": (b"\x0b", "unknown wire type 3"),
    "shape and data differ": (
        block(100, block(1, b"a") + block(7, block(7, block(1, b"\x05")) + block(5, bytes(8)))),
        "not a Caffe model",
    ),
    "negative side": (
        block(100, block(1, b"a") + block(7, block(7, number(1, 2**64 - 1)) + block(5, bytes(8)))),
        "not a Caffe model",
    ),
    "half a float": (block(100, block(7, block(5, bytes(3)))), "not a Caffe model"),
    "name is no text": (block(100, block(1, b"\xff\xfe")), "not a Caffe model"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_are_named(tmp_path: Path, kind: str) -> None:
    data, message = BROKEN[kind]
    path = tmp_path / "net.caffemodel"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=message) as caught:
        read_caffemodel(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_cut_anywhere_are_refused_or_shorter(tmp_path: Path, layers: dict[str, list[np.ndarray]]) -> None:
    data = network(layers)
    path = tmp_path / "net.caffemodel"
    path.write_bytes(data)
    whole = len(read_caffemodel(path))
    for end in range(0, len(data), max(1, len(data) // 200)):
        path.write_bytes(data[:end])
        try:
            assert len(read_caffemodel(path)) < whole
        except ModelError:
            continue


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=60))
def test_random_bytes_never_crash_the_reader(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(block(100, data))
    message = f"{path}: "
    try:
        assert all(array.dtype == np.float32 for array in read_caffemodel(path).values())
    except ModelError as error:
        message = str(error)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    with path.open("wb") as file:
        file.truncate(600 * 2**20)
    with pytest.raises(ModelError, match="larger than 512 MiB"):
        read_caffemodel(path)
