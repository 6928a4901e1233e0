"""Reading MATLAB's files of version 5 without trusting them.

scipy's reader does not check the lengths that a file claims, and a damaged file can end the whole program. Here every
length is checked against the bytes that are there.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MatlabFileError, reason_of

MAX_RATIO = 100  # arrays of numbers and texts are not compressed as far as this

_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_COMPRESSED, _ARRAY = 15, 14


def read_matlab(path: str | Path) -> dict[str, Any]:
    """Read the variables of a MATLAB file of version 5, which is what MATLAB writes unless told ``-v7.3``.

    Parameters
    ----------
    path : str or Path
        The file, usually ``.mat``; compressed or not, of either byte order.

    Returns
    -------
    dict
        By name: an array of numbers as a read-only ndarray of the same shape, of the type that it is stored as
        (MATLAB stores whole numbers as bytes where they fit); a text as a str, one of several rows as a list of
        them; a cell array as a list; an array of structs, also a single struct, as a list of dicts. Lists are in
        MATLAB's order, the first dimension fastest. What else there may be (sparse and complex arrays, objects,
        functions) is None.

    Raises
    ------
    MatlabFileError
        If the file is missing, damaged, of another version, or would unpack to over 100 times its size.

    References
    ----------
    "MAT-File Format", The MathWorks,
    https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf

    Examples
    --------
    >>> import tempfile
    >>> from scipy.io import savemat
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     savemat(f"{folder}/a.mat", {"sizes": [[1, 2]], "ant": {"id": 3, "name": "ant"}})
    ...     variables = read_matlab(f"{folder}/a.mat")
    >>> variables["sizes"].tolist(), variables["ant"][0]["name"]
    ([[1, 2]], 'ant')
    """
    path = Path(path)
    try:
        data = memoryview(path.read_bytes())
    except OSError as error:
        raise MatlabFileError(f"{path}: cannot be read ({error.strerror}); check its name") from error
    order = {b"\0\1IM": "<", b"\1\0MI": ">"}.get(bytes(data[124:128]))
    if order is None:
        raise MatlabFileError(f"{path}: is not a file of MATLAB 5; if it is from MATLAB, save it there with '-v7'")
    try:
        return dict(_variable(array, order) for array in _arrays(data[128:], order, MAX_RATIO * len(data)))
    # A damaged file can raise nearly anything: struct.error, ValueError, MemoryError, ...
    except Exception as error:
        raise MatlabFileError(f"{path}: is not a sound file of MATLAB 5 ({reason_of(error)})") from error


def _arrays(data: memoryview, order: str, room: int) -> Iterator[memoryview]:
    """Yield the arrays of the top level, unpacked to no more than `room` bytes together."""
    for kind, content in _elements(data, order):
        if kind == _COMPRESSED:
            inflater = zlib.decompressobj()
            inflated = memoryview(inflater.decompress(content, room))
            room -= len(inflated)
            if inflater.unconsumed_tail or room <= 0:
                raise ValueError(f"it would unpack to over {MAX_RATIO} times its size; refused")
            kind, content = next(_elements(inflated, order), (0, content))
        if kind != _ARRAY:
            raise ValueError(f"an element of type {kind} stands where a variable is expected")
        yield content


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Yield type and content of the data elements in `data`."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        start, after = at + 8, at + 8 + size + (-size % 8 if kind != _COMPRESSED else 0)
        if kind > 0xFFFF:  # at most four bytes, packed together with their tag
            kind, size, start, after = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        if start + size > min(after, len(data)):
            raise ValueError("an element is longer than what it is in")
        yield kind, data[start : start + size]
        at = after


def _variable(data: memoryview, order: str) -> tuple[str, Any]:
    _, _, (_, name), *_ = _elements(data, order)
    return str(name, "latin1"), _value(data, order)


def _value(data: memoryview, order: str) -> Any:
    if not data:  # what MATLAB writes for an element of a cell that was never set
        return np.zeros((0, 0))
    (_, head), (_, dimensions), _, *parts = _elements(data, order)
    flags = struct.unpack_from(f"{order}I", head)[0]
    kind, is_complex = flags & 0xFF, flags & 0x800
    if kind not in (1, 2, 4, *range(6, 16)) or is_complex:
        return None
    shape = tuple(np.frombuffer(dimensions, f"{order}i4").tolist())
    if kind == 1:
        return [_value(content, order) for _, content in _as_many(parts, math.prod(shape))]
    if kind == 2:
        return _structs(parts, math.prod(shape), order)
    stored, content = parts[0]
    if kind == 4:
        return _decode_text(content, stored, shape, order)
    return np.ndarray(shape, f"{order}{_NUMBERS[stored]}", content, order="F")


def _structs(parts: list[tuple[int, memoryview]], count: int, order: str) -> list[dict[str, Any]]:
    (_, width), (_, letters), *values = parts
    (length,) = struct.unpack(f"{order}i", width)
    names = [str(letters[i : i + length], "latin1").split("\0")[0] for i in range(0, len(letters), length)]
    # Structs without fields take no bytes, so a file could claim any number of them; one stands for all.
    count = count if names else min(count, 1)
    fields = iter(_as_many(values, count * len(names)))
    return [{name: _value(next(fields)[1], order) for name in names} for _ in range(count)]


def _decode_text(content: memoryview, stored: int, shape: tuple[int, ...], order: str) -> str | list[str]:
    wide = {"<": "le", ">": "be"}[order]
    encodings = {4: f"utf-16-{wide}", 16: "utf-8", 17: f"utf-16-{wide}", 18: f"utf-32-{wide}"}
    text = str(content, encodings.get(stored, "latin1"))
    rows = shape[0]
    return [text[i::rows] for i in range(rows)] if rows > 1 and math.prod(shape) == len(text) else text


def _as_many(parts: list[tuple[int, memoryview]], count: int) -> list[tuple[int, memoryview]]:
    if len(parts) != count:
        raise ValueError(f"{len(parts)} elements are not the {count} that an array claims to have")
    return parts
