import struct
import zlib

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from inception_rcnn.data import MatlabFileError, read_matlab


def cell(*contents):
    array = np.empty(len(contents), object)
    array[:] = contents
    return array


@pytest.fixture
def saved(tmp_path):
    def save(variables, **options):
        scipy.io.savemat(tmp_path / "a.mat", variables, **options)
        return tmp_path / "a.mat"

    return save


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_arrays_of_numbers(saved, kind, compressed):
    array = (np.arange(24).reshape(2, 3, 4) * 5).astype(kind)
    variables = {"deep": array, "row": array[0, 0], "empty": np.zeros((0, 3), kind), "one": array[1, 2, 3]}
    found = read_matlab(saved(variables, do_compression=compressed))
    assert list(found) == list(variables)
    for name, value in scipy.io.loadmat(saved(variables)).items():
        if not name.startswith("__"):
            assert found[name].dtype == kind
            np.testing.assert_array_equal(found[name], value)
    assert not found["deep"].flags.writeable


def test_texts(saved):
    found = read_matlab(saved({"a": "plain", "b": "grün ★ 𝄞", "c": "", "d": ["one", "three"]}))
    assert found == {"a": "plain", "b": "grün ★ 𝄞", "c": "", "d": ["one  ", "three"]}


def test_cells_and_structs(saved):
    fields = [("id", float), ("name", object), ("more", object)]
    several = np.array([(i, name, cell(1, "x")) for i, name in enumerate("abc")], fields).reshape(1, 3)
    found = read_matlab(
        saved({"several": several, "one": {"deep": {"deeper": "text"}}, "none": several[:, :0], "cells": cell("a", 2)})
    )
    assert [(s["id"].item(), s["name"], s["more"][0].item(), s["more"][1]) for s in found["several"]] == [
        (0, "a", 1, "x"),
        (1, "b", 1, "x"),
        (2, "c", 1, "x"),
    ]
    assert found["one"] == [{"deep": [{"deeper": "text"}]}]
    assert found["none"] == []
    assert (found["cells"][0], found["cells"][1].item()) == ("a", 2)


def test_lists_are_in_the_order_of_matlab(saved):
    grid = np.empty((2, 2), object)
    grid[:] = [["11", "12"], ["21", "22"]]
    assert read_matlab(saved({"a": grid}))["a"] == ["11", "21", "12", "22"]


def test_what_is_not_understood_is_none(saved):
    variables = {"a": np.array([1 + 2j]), "b": scipy.sparse.csc_matrix(np.eye(3)), "c": cell(1j, "text"), "d": "text"}
    assert read_matlab(saved(variables)) == {"a": None, "b": None, "c": [None, "text"], "d": "text"}


def element(kind, data, order=">"):
    if len(data) <= 4:
        head = (len(data), kind) if order == ">" else (kind, len(data))
        return struct.pack(f"{order}HH", *head) + data.ljust(4, b"\0")
    return struct.pack(f"{order}II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def matrix(kind, shape, name, *contents, order=">"):
    head = element(6, struct.pack(f"{order}II", kind, 0), order)
    return element(
        14,
        b"".join(
            (head, element(5, struct.pack(f"{order}{len(shape)}i", *shape), order), element(1, name, order), *contents)
        ),
        order,
    )


def mat(*variables, order=">"):
    return b"MATLAB 5.0 MAT-file".ljust(124) + {">": b"\1\0MI", "<": b"\0\1IM"}[order] + b"".join(variables)


@pytest.mark.parametrize("order", ["<", ">"])
def test_either_byte_order(tmp_path, order):
    wide = {"<": "le", ">": "be"}[order]
    synset = [
        element(5, struct.pack(f"{order}i", 8), order),
        element(1, b"id\0\0\0\0\0\0name\0\0\0\0", order),
        matrix(6, (1, 1), b"", element(2, b"\7", order), order=order),
        matrix(4, (1, 3), b"", element(4, "aé5".encode(f"utf-16-{wide}"), order), order=order),
        element(14, b"", order),
        matrix(4, (1, 1), b"", element(16, b"b", order), order=order),
    ]
    numbers = matrix(6, (1, 2), b"n", element(9, struct.pack(f"{order}2d", 0.5, 2), order), order=order)
    (tmp_path / "a.mat").write_bytes(mat(matrix(2, (1, 2), b"s", *synset, order=order), numbers, order=order))
    found = read_matlab(tmp_path / "a.mat")
    first, second = found["s"]
    assert (first["id"].item(), first["name"], second["id"].shape, second["name"]) == (7, "aé5", (0, 0), "b")
    assert found["n"].tolist() == [[0.5, 2]]
    assert scipy.io.loadmat(tmp_path / "a.mat")["n"].tolist() == [[0.5, 2]]


def nested(depth):
    data = b""
    for _ in range(depth):
        data = matrix(1, (1, 1), b"", data)
    return data


NUMBERS = element(9, struct.pack(">d", 1))
NO_FIELDS = (element(5, struct.pack(">i", 1)), element(1, b""))


@pytest.mark.parametrize(
    "variable",
    [
        matrix(6, (2**31 - 1, 2**31 - 1), b"a", NUMBERS),
        matrix(6, (-1, 1), b"a", NUMBERS),
        matrix(6, (1, 2), b"a", NUMBERS),
        matrix(6, (1, 1), b"a", element(99, b"12345678")),
        matrix(6, (1, 1), b"a"),
        matrix(1, (2**31 - 1, 1), b"a"),
        matrix(1, (1, 1), b"a", nested(1), nested(1)),
        matrix(2, (1, 1), b"a", element(5, struct.pack(">i", 0)), element(1, b"id")),
        matrix(2, (1, 2), b"a", element(5, struct.pack(">i", 2)), element(1, b"id"), nested(1)),
        matrix(4, (1, 2), b"a", element(4, b"123")),
        matrix(1, (1, 1), b"a", nested(3000)),
        element(9, b"12345678"),
        element(14, b"12345678"),
        struct.pack(">II", 14, 2**31),
        b"\0\0\0",
        struct.pack(">II", 15, 4) + b"1234",
        struct.pack(">II", 15, 8) + zlib.compress(b""),
    ],
)
def test_claims_that_do_not_hold_are_refused(tmp_path, variable):
    path = tmp_path / "a.mat"
    path.write_bytes(mat(variable))
    with pytest.raises(MatlabFileError, match="not a sound file of MATLAB 5") as caught:
        read_matlab(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_structs_without_fields_are_not_counted(tmp_path):
    (tmp_path / "a.mat").write_bytes(
        mat(matrix(2, (2**31 - 1, 1), b"many", *NO_FIELDS), matrix(2, (0, 0), b"none", *NO_FIELDS))
    )
    assert read_matlab(tmp_path / "a.mat") == {"many": [{}], "none": []}


def test_files_that_unfold_are_refused(saved, tmp_path):
    with pytest.raises(MatlabFileError, match="over 100 times its size; refused"):
        read_matlab(saved({"a": np.zeros(10**6)}, do_compression=True))
    # Also if no variable does it alone.
    variable = zlib.compress(matrix(6, (1, 1000), b"a", element(9, bytes(8000))))
    once = struct.pack(">II", 15, len(variable)) + variable
    (tmp_path / "a.mat").write_bytes(mat(once))
    assert read_matlab(tmp_path / "a.mat")["a"].size == 1000
    (tmp_path / "a.mat").write_bytes(mat(*[once] * 500))
    with pytest.raises(MatlabFileError, match="over 100 times its size; refused"):
        read_matlab(tmp_path / "a.mat")


def test_other_files_are_named(tmp_path):
    path = tmp_path / "a.mat"
    with pytest.raises(MatlabFileError, match=r"a\.mat: cannot be read"):
        read_matlab(path)
    for data in (b"", b"hello", b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + b"\0" * 384 + b"\x89HDF"):
        path.write_bytes(data)
        with pytest.raises(MatlabFileError, match=r"a\.mat: is not a file of MATLAB 5.*'-v7'"):
            read_matlab(path)
    path.write_bytes(mat())
    assert read_matlab(path) == {}


@given(st.integers(0, 2**32 - 1))
def test_damaged_files_are_read_or_refused(tmp_path_factory, seed):
    path = tmp_path_factory.mktemp("mat") / "a.mat"
    rng = np.random.default_rng(seed)
    synsets = np.array([(i, "n0", cell(1, "b")) for i in range(2)], [("id", float), ("name", object), ("more", object)])
    scipy.io.savemat(path, {"synsets": synsets, "texts": ["ab", "cd"]}, do_compression=bool(seed % 2))
    data = bytearray(path.read_bytes())
    for _ in range(rng.integers(1, 4)):
        data[rng.integers(124, len(data))] = rng.choice([0, 1, 14, 15, 127, 255, rng.integers(256)])
    path.write_bytes(data[: len(data) - rng.integers(9)])
    message = f"{path}: "
    try:
        read_matlab(path)
    except MatlabFileError as error:
        message = str(error)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1
