"""Ranked boxes as Detectron and Detectron2 read them: a pickled dict of lists. Reading runs no code."""

import pickle
import pickletools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ProposalFileError
from ..proposals import Proposals, take_fields


def pickle_pieces(pictures: Callable[[], Iterator[Proposals]], ids: Sequence[int | str]) -> Iterator[bytes]:
    """Pickle ``{"boxes": [...], "scores": [...], "ids": [...]}`` piece by piece.

    Protocol 2, the newest that Python 2 reads, as Detectron was written for it.
    """
    lists: dict[str, Iterable[object]] = {
        "boxes": (picture.boxes for picture in pictures()),
        "scores": (picture.scores for picture in pictures()),
        "ids": ids,
    }
    yield pickle.PROTO + b"\2" + pickle.EMPTY_DICT + pickle.MARK
    for key, items in lists.items():
        yield opcodes(key) + pickle.EMPTY_LIST + pickle.MARK
        for i, item in enumerate(items, start=1):
            yield opcodes(item)
            if i % 1000 == 0:  # the reader's stack holds what is not in the list yet
                yield pickle.APPENDS + pickle.MARK
        yield pickle.APPENDS
    yield pickle.SETITEMS + pickle.STOP


def opcodes(item: object) -> bytes:
    """Pickle one object without the frame of a file; a later one may overwrite its memory of earlier parts."""
    data = pickle.dumps(item, 2)[2:-1]
    # NumPy 2 knows its old name, NumPy 1 does not know the new one.
    return data.replace(b"cnumpy._core.multiarray\n_reconstruct\n", b"cnumpy.core.multiarray\n_reconstruct\n", 1)


def read_pickle(path: Path) -> Iterator[Proposals]:
    """Yield the ranked boxes of the pictures of a pickle, without running anything in it."""
    with open(path, "rb") as file:
        # A pickle numbers its parts, and reading it makes room for as many as the highest number says.
        size = path.stat().st_size
        for operation, number, _ in pickletools.genops(file):
            if operation.name.endswith("PUT") and number is not None and number > size:
                raise ProposalFileError(f"{path}: claims more parts than it has bytes; refused")
        file.seek(0)
        # latin1 is how the bytes of Python 2 become text.
        document = _Unpickler(file, encoding="latin1").load()
    if not isinstance(document, dict):
        raise ProposalFileError(f"{path}: is not a dict of 'boxes', 'scores' and 'ids'")
    # The names before Detectron's, and those of Detectron2.
    for other, name in (("indexes", "ids"), ("objectness_logits", "scores")):
        if other in document:
            document[name] = document[other]
    mode = document.get("bbox_mode", 0)
    if mode not in (0, 1):
        raise ProposalFileError(f"{path}: bbox_mode is {mode!r}; 0 (x1 y1 x2 y2) or 1 (x y w h) are expected")
    lists = take_fields(path, document, "ids", "boxes", "scores", kind=Sequence, form="a list with an entry a picture")
    if len(set(map(len, lists))) > 1:
        raise ProposalFileError(f"{path}: its lists 'ids', 'boxes' and 'scores' are not equally long")
    for name, boxes, scores in zip(*lists, strict=True):
        if not isinstance(name, (int, float, str)):
            raise ProposalFileError(f"{path}: an id is a {type(name).__name__}, and a number or a text is expected")
        _check_lists(path, boxes)
        _check_lists(path, scores)
        corners = np.asarray(boxes)
        if mode == 1:
            corners = np.concatenate([corners[:, :2], corners[:, :2] + corners[:, 2:]], axis=1)
        yield Proposals(str(name), 0, 0, corners, scores)


def _check_lists(path: Path, values: Any) -> None:
    """Refuse lists that are not of numbers or of boxes: one that holds another many times unfolds to gigabytes."""
    for row in values if isinstance(values, (list, tuple)) else ():
        sides = row.values if isinstance(row, _UnpickledArray) else row
        if isinstance(sides, (list, tuple)):
            is_flat = len(sides) <= 4 and all(isinstance(side, (int, float)) for side in sides)
        else:
            is_flat = np.ndim(sides) <= 1 and np.size(sides) <= 4
        if not is_flat:
            raise ProposalFileError(f"{path}: a list is neither of numbers nor of boxes, four numbers each")


class _Unpickler(pickle.Unpickler):
    """Unpickle numbers, texts, lists, dicts and arrays of numbers, and refuse the rest.

    A pickle is a program that may call whatever it can name. Here the names in it that NumPy's arrays need
    lead to the harmless stand-ins below, also because NumPy's own functions trust what they are given.
    """

    def find_class(self, module: str, name: str) -> Any:
        # New functions every time, since a pickle can also set attributes.
        allowed: dict[str, Any] = {
            "numpy.ndarray": _UnpickledArray,
            "numpy.dtype": _StandIn,
            "numpy.core.multiarray._reconstruct": _UnpickledArray,
            "numpy.core.multiarray.scalar": lambda kind, data: kind.array(data, ()).item(),
            "numpy.core.numeric._frombuffer": lambda data, kind, shape, order: _UnpickledArray(
                kind.array(data, shape, order)
            ),
            "_codecs.encode": lambda text, _: text.encode("latin1"),
            "__builtin__.bytes": lambda: b"",
            "builtins.bytes": lambda: b"",
        }
        # The module's name since NumPy 2.
        name = f"{module}.{name}".replace("numpy._core.", "numpy.core.", 1)
        if name not in allowed:
            raise pickle.UnpicklingError(f"{name} is refused: only numbers, texts and arrays are taken from a pickle")
        return allowed[name]


def _as_text(value: object) -> str:
    # What else there may be, written as a text, can be of any length.
    if not isinstance(value, str):
        raise pickle.UnpicklingError(f"a {type(value).__name__} stands where a type of numbers is expected")
    return value


class _StandIn:
    """The dtype of an array in a pickle."""

    def __init__(self, text: str, *_: object) -> None:
        self.text = _as_text(text)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.text = _as_text(state[1]) + self.text  # byte order

    def array(self, data: bytes | str, shape: Any, order: Any = "C") -> NDArray[Any]:
        if not re.fullmatch(r"[<>=|]?[biuf][1248]", self.text):
            raise pickle.UnpicklingError(f"an array of {self.text!r} is refused: only arrays of numbers are taken")
        return np.ndarray(shape, self.text, data.encode("latin1") if isinstance(data, str) else data, order=order)


class _UnpickledArray:
    """An array in a pickle, which gets its content in a second step."""

    def __init__(self, values: object, *_: object) -> None:
        self.values: Any = values if isinstance(values, np.ndarray) else None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, data = state
        self.values = kind.array(data, shape, "F" if fortran else "C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.values, dtype)
