"""Ranked boxes as a NumPy archive."""

import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import ProposalFileError
from ..proposals import Proposals, describe, take_fields

MAX_RATIO = 100  # arrays of boxes are not compressed as far as this


def write_npz(
    file: BinaryIO, pictures: Callable[[], Iterator[Proposals]], files: Sequence[str], table: NDArray[np.int64]
) -> None:
    """Write an archive as ``np.savez`` does, but piece by piece and without the time of day."""
    offsets = np.concatenate([[0], np.cumsum(table[:, 2])])
    text = f"<U{max(map(len, files), default=1) or 1}"
    names = (np.array(files[i : i + 1000], text) for i in range(0, len(files), 1000))
    arrays: list[tuple[str, str, tuple[int, ...], Iterable[NDArray[Any]]]] = [
        ("files", text, (len(files),), names),
        ("sizes", "<i4", (len(files), 2), [table[:, :2]]),
        ("offsets", "<i8", (len(files) + 1,), [offsets]),
        ("boxes", "<f4", (int(offsets[-1]), 4), (picture.boxes for picture in pictures())),
        ("scores", "<f4", (int(offsets[-1]),), (picture.scores for picture in pictures())),
    ]
    with zipfile.ZipFile(file, "w") as archive:
        for name, kind, shape, pieces in arrays:
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, {"descr": kind, "fortran_order": False, "shape": shape})
                for piece in pieces:
                    member.write(piece.astype(kind).tobytes())


def read_npz(path: Path) -> Iterator[Proposals]:
    """Yield the ranked boxes of the pictures of an archive."""
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > MAX_RATIO * path.stat().st_size:
        raise ProposalFileError(f"{path}: would unpack to {size} bytes, over {MAX_RATIO} times its size; refused")
    with np.load(path, allow_pickle=False) as arrays:
        names = ("files", "sizes", "offsets", "boxes", "scores")
        files, sizes, offsets, boxes, scores = fields = take_fields(path, arrays, *names)
    for name, array, dimensions in zip(names, fields, (1, 2, 1, 2, 1), strict=True):
        if array.ndim != dimensions:
            raise ProposalFileError(f"{path}: {name!r} is {describe(array)}, and {dimensions} dimensions are expected")
    cuts = offsets.tolist()
    if (
        len(cuts) != len(files) + 1
        or sizes.shape != (len(files), 2)
        or cuts != sorted(cuts)
        or (cuts[0], cuts[-1], len(scores)) != (0, len(boxes), len(boxes))
    ):
        raise ProposalFileError(f"{path}: its arrays 'files', 'sizes', 'offsets', 'boxes' and 'scores' do not fit")
    for file, (width, height), start, end in zip(files.tolist(), sizes.tolist(), cuts[:-1], cuts[1:], strict=True):
        yield Proposals(file, width, height, boxes[start:end], scores[start:end])
