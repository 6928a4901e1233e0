"""Reading a ``.caffemodel``: the fields of Caffe's protocol buffers that hold weights."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...data.errors import ModelError, reason_of
from .model_file import MAX_BYTES

# Numbers of fields in caffe.proto. Layers have an old form, V1LayerParameter, and a new one. For each: the field of the
# layers in NetParameter -> (field of the name, field of the blobs).
_LAYER_FIELDS = {2: (4, 6), 100: (1, 7)}
_SHAPE, _DATA, _LEGACY_DIMENSIONS = 7, 5, (1, 2, 3, 4)


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Read a number of variable length: its value, and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number and the value of each field of a message; fields that are not numbers as their bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"unknown wire type {kind}")
        if at + size > len(data):
            raise ValueError("it ends early")
        yield key >> 3, data[at : at + size]
        at += size


def _blob(data: memoryview) -> NDArray[np.float32]:
    """Read the array of a BlobProto."""
    legacy = dict.fromkeys(_LEGACY_DIMENSIONS, 1)
    shape: list[int] | None = None
    values: list[memoryview] = []
    for field, value in _fields(data):
        if field == _DATA and isinstance(value, memoryview):
            values.append(value)
        elif field == _SHAPE and isinstance(value, memoryview):
            shape = []
            for _, dimension in _fields(value):
                if isinstance(dimension, int):
                    shape.append(dimension)
                else:  # packed
                    at = 0
                    while at < len(dimension):
                        number, at = _varint(dimension, at)
                        shape.append(number)
        elif field in legacy and isinstance(value, int):
            legacy[field] = value
    array = np.frombuffer(b"".join(values), dtype="<f4")
    if shape is None:
        shape = list(legacy.values())
    return array.reshape(shape)


def read_caffemodel(path: str | Path) -> dict[str, NDArray[np.float32]]:
    """Read the weights out of a Caffe model.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    dict of str to ndarray
        ``<layer>.weight`` and ``<layer>.bias``, float32. Convolutions have shape (out, in, height, width), inner
        products (out, in), biases (out,).

    Raises
    ------
    ModelError
        If the file is not a Caffe model.

    References
    ----------
    ``caffe.proto`` of BVLC Caffe: NetParameter, LayerParameter, V1LayerParameter, BlobProto.
    """
    path = Path(path)
    if path.stat().st_size > MAX_BYTES:
        raise ModelError(f"{path}: larger than {MAX_BYTES >> 20} MiB, so not GoogLeNet's weights")
    arrays: dict[str, NDArray[np.float32]] = {}
    try:
        for number, layer in _fields(memoryview(path.read_bytes())):
            if number not in _LAYER_FIELDS or not isinstance(layer, memoryview):
                continue
            name_field, blob_field = _LAYER_FIELDS[number]
            name, blobs = "", []
            for field, value in _fields(layer):
                if field == name_field and isinstance(value, memoryview):
                    name = bytes(value).decode()
                elif field == blob_field and isinstance(value, memoryview):
                    blobs.append(_blob(value))
            if len(blobs) == 2:
                weight, bias = blobs
                # The old form pads every shape to four dimensions in front.
                if weight.ndim == 4 and weight.shape[:2] == (1, 1):
                    weight = weight[0, 0]
                arrays[f"{name}.weight"], arrays[f"{name}.bias"] = weight, bias.reshape(-1)
    except (ValueError, IndexError, OverflowError) as error:
        raise ModelError(
            f"{path}: not a Caffe model ({reason_of(error)}); give BVLC's bvlc_googlenet.caffemodel"
        ) from None
    if not arrays:
        raise ModelError(f"{path}: a Caffe model without weights; give BVLC's bvlc_googlenet.caffemodel")
    return arrays
