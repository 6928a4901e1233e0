"""The page of a file of proposals: the first so many boxes of each picture, and which objects they cover."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ....data import MAX_PIXELS, ImageError, Picture, box_iou, read_proposals
from ....data.errors import OutputError
from ....data.images.reading import decode_image
from ....data.picture_names import PictureFolder, match_picture_names, picture_name
from .writing import Row, address, address_between, write_page

# Of the boxes of all pictures together: what a browser holds, and a page of 1,000 pictures has room for.
_MOST_BOXES = 3_000_000
_COVERED = 0.5  # IoU
_KEY = "Green: objects that the first boxes cover (IoU 0.5); red: missed. The curve is the share that is covered."


def write_proposals_page(
    proposals: Path,
    images: Path,
    output: Path,
    pictures: Sequence[Picture] | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
) -> Path:
    """Write a page of the first boxes of each picture, with their recall if the pictures are annotated.

    Parameters
    ----------
    proposals : Path
        See `inception_rcnn.data.read_proposals`.
    images : Path
        The folder of the pictures.
    output : Path
        The page.
    pictures : sequence of Picture, optional
        The annotated pictures. An object is covered by a box with an IoU of 0.5 or more; difficult objects and crowds
        do not count. Then only pictures that are annotated are on the page.
    max_pixels : int
        See `inception_rcnn.data.read_image`.

    Returns
    -------
    Path
        The page. Of very many pictures it has only the first boxes, and says so.

    Raises
    ------
    ProposalFileError
        If the file of proposals is missing or damaged.
    OutputError
        If it has none of the pictures.
    OSError
        If the page cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from inception_rcnn.data import Proposals, write_proposals
    >>> one = Proposals("a.jpg", 20, 10, np.float32([[1, 2, 4, 8]]), np.float32([1]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_proposals(f"{folder}/boxes.npz", [one])
    ...     write_proposals_page(Path(folder, "boxes.npz"), Path(folder), Path(folder, "boxes.html")).name
    'boxes.html'
    """
    counts = {one.file: len(one.scores) for one in read_proposals(proposals)}
    annotated: Mapping[str, Picture] | None = None
    if pictures is not None:
        by_id = {one.image_id: one for one in pictures}
        meant = match_picture_names(map(picture_name, counts), by_id)
        annotated = {name: by_id[ids[0]] for name in counts if len(ids := meant[picture_name(name)]) == 1}
        counts = {name: count for name, count in counts.items() if name in annotated}
    if not counts:
        raise OutputError(
            f"{proposals}: has none of the annotated pictures; are these of another set?"
            if pictures
            else f"{proposals}: has no pictures"
        )
    limit = max(10, _MOST_BOXES // len(counts))
    cut = max(counts.values()) > limit
    folder = PictureFolder(images)

    def rows() -> Iterator[Row]:
        for one in read_proposals(proposals):
            if one.file not in counts:
                continue
            path = _picture_path(folder, images, one.file)
            width, height = (one.width, one.height) if one.width and one.height else _size(path, one.boxes, max_pixels)
            columns: list[Mapping[str, NDArray[Any]]] = [{"boxes": _fractions(one.boxes[:limit], width, height)}]
            if annotated is not None:
                columns.append(_objects(annotated[one.file], one.boxes, width, height))
            yield Row(one.file, width, height, path, columns, address(os.path.relpath(path, images)))

    both = annotated is not None
    values = {
        "kind": "proposals",
        "title": proposals.name,
        "subtitle": str(proposals.absolute()),
        "shows": [("all", "all pictures"), *([("missed", "with missed objects")] if both else [])],
        "sorts": [*([("missed", "most missed objects")] if both else []), ("run", "as in the file"), ("name", "name")],
        "columns": ("First covered by", "So far", "x1 y1 x2 y2") if both else (),
        "hints": [
            *([_KEY] if both else []),
            *([f"The page has the first {limit:,} boxes of each picture."] if cut else []),
        ],
        "reports": [],
        "errors": {"count": 0, "lines": []},
        "page": {
            "kind": "proposals", "classes": [], "threshold": 0, "fractions": True, "folder": "",
            "originals": address_between(output, images),
            "runs": [{"name": "", "short": "", "drawings": None}] * (2 if both else 1),
        },
    }  # fmt: skip
    write_page(output, values, rows(), len(counts), max_pixels=max_pixels)
    return output


def _picture_path(folder: PictureFolder, images: Path, name: str) -> Path:
    if (images / name).is_file():
        return images / name
    found = folder.find(picture_name(name))
    return images / (found[0] if found else name)


def _size(path: Path, boxes: NDArray[np.float32], max_pixels: int) -> tuple[int, int]:
    """Width and height of a picture whose file of proposals does not say them; how far boxes reach if it is gone."""
    try:
        height, width = decode_image(path, max_pixels).image.shape[:2]
    except ImageError:
        width, height = np.ceil(boxes.max(axis=0, initial=1)[2:]).astype(int).tolist()
    return width, height


def _fractions(boxes: ArrayLike, width: int, height: int) -> NDArray[np.uint16]:
    """Boxes as fractions of the picture's sides, 65,535 for 1: they are many, and are only looked at."""
    sides = np.array([width, height, width, height], np.float64)
    return np.clip(np.rint(np.asarray(boxes, np.float64) / sides * 65535), 0, 65535).astype(np.uint16)


def _objects(picture: Picture, boxes: NDArray[np.float32], width: int, height: int) -> dict[str, NDArray[Any]]:
    """Columns of the objects that count: their boxes, and how many proposals it takes to cover each, 0: never."""
    own = picture.boxes[~(picture.difficult | picture.crowd)]
    covers = box_iou(own, boxes) >= np.float32(_COVERED)
    ranks = np.where(covers.any(axis=1), covers.argmax(axis=1) + 1, 0) if boxes.size else np.zeros(len(own))
    return {"boxes": _fractions(own, width, height), "ranks": ranks.astype(np.uint32)}
