"""Ranked boxes in the very files that some training programs read: mmdetection, SoCo, ORL and DETReg."""

import json
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..arguments import check_choice
from ..errors import ProposalFileError
from ..picture_names import without_folders
from ..proposals import Proposals, checked_entries
from ..system.atomic_files import atomic_file, atomic_write
from .detectron_pickle import opcodes

Program: TypeAlias = Literal["mmdetection", "mmdetection2", "soco", "orl", "detreg"]
# What the name of the file ends in; DETReg reads a folder.
SUFFIXES: dict[Program, str] = {
    "mmdetection": ".pkl", "mmdetection2": ".pkl", "soco": ".json", "orl": ".json", "detreg": ""
}  # fmt: skip
# A picture that could not be read has no boxes there. DETReg searches such a picture itself.
LISTS_ALL: frozenset[Program] = frozenset({"mmdetection", "mmdetection2", "soco", "orl"})


def write_for_program(program: Program, path: str | Path, entries: Sequence[Proposals]) -> None:
    """Write the proposals of many pictures as a program reads them.

    ============  =========================================================================================
    mmdetection   A pickled dict: last folder and name of a picture, "train2017/000000000009.jpg" ->
                  ``{"bboxes": (N, 4), "scores": (N,)}``, float32.
    mmdetection2  Version 2 of it: a pickled list of arrays (N, 5) float32 ``x1 y1 x2 y2 score``, in the
                  order of the data set.
    soco          JSON: name of a picture up to its first dot -> ``[x, y, w, h]`` of each box, whole pixels.
    orl           JSON: ``{"bbox": [...]}``, of each picture in the order of the data set ``[x, y, w, h]``
                  of each box, whole pixels.
    detreg        A folder with a NumPy file for each picture, ``<name up to its first dot>.npy``, (N, 4)
                  float32 ``x1 y1 x2 y2``.
    ============  =========================================================================================

    Parameters
    ----------
    program : str
    path : str or Path
        The file, or the folder of ``detreg``, which is made. A file appears under its name when it is complete.
    entries : sequence of Proposals
        The pictures, each best first; see `inception_rcnn.data.write_proposals`. For mmdetection their names have
        a folder.

    Raises
    ------
    SettingError
        If the program is unknown.
    ProposalFileError
        If an entry is malformed, two pictures would have the same name, or a picture for ORL has no box.
    OSError
        If something cannot be written.

    References
    ----------
    mmdet/datasets/base_det_dataset.py and, of version 2, mmdet/datasets/custom.py, with LoadProposals of both,
    https://github.com/open-mmlab/mmdetection; contrast/data/dataset.py and props_utils.py,
    https://github.com/hologerry/SoCo; openselfsup/datasets/correspondence.py, https://github.com/Jiahao000/ORL;
    datasets/selfdet.py, https://github.com/amirbar/DETReg

    Examples
    --------
    >>> import tempfile
    >>> box, score = np.array([[1, 2, 4, 8]], np.float32), np.ones(1, np.float32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_for_program("soco", f"{folder}/soco.json", [Proposals("n01/n01_5.JPEG", 20, 10, box, score)])
    ...     json.loads(Path(folder, "soco.json").read_text())
    {'n01_5': [[1, 2, 3, 6]]}
    """
    path = Path(path)
    check_choice("program", program, tuple(SUFFIXES))
    if program == "mmdetection":
        atomic_write(path, _pickled_dict(path, entries))
    elif program == "mmdetection2":
        atomic_write(path, _pickled_list(path, entries))
    elif program == "soco":
        atomic_write(path, _soco(path, entries))
    elif program == "orl":
        atomic_write(path, _orl(path, entries))
    else:
        path.mkdir(parents=True, exist_ok=True)
        for name, picture in _named(path, entries, _to_first_dot):
            with atomic_file(path / f"{name}.npy") as file:
                np.save(file, picture.boxes)


def check_program_path(program: Program, path: str | Path) -> None:
    """Refuse a path that `write_for_program` cannot write the file of a program to.

    Raises
    ------
    SettingError
        If the program is unknown.
    ProposalFileError
        If its suffix is another one, or a file has the place of a folder.

    Examples
    --------
    >>> check_program_path("soco", "boxes.json")
    """
    path, suffix = Path(path), SUFFIXES[check_choice("program", program, tuple(SUFFIXES))]
    if not suffix and path.is_file():
        raise ProposalFileError(f"{path}: {program} reads a folder of files, and this is a file; name a folder")
    if suffix and path.suffix.lower() != suffix:
        raise ProposalFileError(f"{path}: {program} reads a {suffix}; name the file so")


def _pickled_dict(path: Path, entries: Sequence[Proposals]) -> Iterator[bytes]:
    yield pickle.PROTO + b"\2" + pickle.EMPTY_DICT
    for name, picture in _named(path, entries, _last_folder):
        yield opcodes(name) + opcodes({"bboxes": picture.boxes, "scores": picture.scores}) + pickle.SETITEM
    yield pickle.STOP


def _pickled_list(path: Path, entries: Sequence[Proposals]) -> Iterator[bytes]:
    yield pickle.PROTO + b"\2" + pickle.EMPTY_LIST
    for picture in checked_entries(path, entries):
        yield opcodes(np.column_stack([picture.boxes, picture.scores])) + pickle.APPEND
    yield pickle.STOP


def _soco(path: Path, entries: Sequence[Proposals]) -> Iterator[bytes]:
    for number, (name, picture) in enumerate(_named(path, entries, _to_first_dot)):
        boxes = json.dumps(_whole_pixels(picture).tolist())
        yield f"{',' if number else '{'}\n{json.dumps(name)}: {boxes}".encode()
    yield b"\n}\n" if len(entries) else b"{}\n"


def _orl(path: Path, entries: Sequence[Proposals]) -> Iterator[bytes]:
    yield b'{"bbox": ['
    for number, picture in enumerate(checked_entries(path, entries)):
        if not len(picture.boxes):
            raise ProposalFileError(f"{path}: {picture.file!r} has no box, and ORL needs one; leave the picture out")
        yield f"{',' if number else ''}\n{json.dumps(_whole_pixels(picture).tolist())}".encode()
    yield b"\n]}\n"


def _to_first_dot(file: str) -> str:
    return without_folders(file).split(".")[0]


def _last_folder(file: str) -> str:
    return "/".join(file.split("/")[-2:])


def _named(path: Path, entries: Sequence[Proposals], shorten: Callable[[str], str]) -> Iterator[tuple[str, Proposals]]:
    """Yield the pictures with the names by which a program looks for them."""
    owners: dict[str, str] = {}
    for picture in checked_entries(path, entries):
        name = shorten(picture.file)
        if (other := owners.setdefault(name, picture.file)) != picture.file:
            raise ProposalFileError(
                f"{path}: {other!r} and {picture.file!r} would both be {name!r}; rename one, or write two files"
            )
        yield name, picture


def _whole_pixels(picture: Proposals) -> NDArray[np.int64]:
    """Round boxes to whole pixels ``x y w h``, of which each keeps one or more."""
    corners = np.rint(picture.boxes).astype(np.int64)
    if picture.width and picture.height:
        corners[:, :2] = np.minimum(corners[:, :2], [picture.width - 1, picture.height - 1])
    return np.column_stack([corners[:, :2], np.maximum(corners[:, 2:] - corners[:, :2], 1)])
