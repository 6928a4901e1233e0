"""The page of whole pictures with their likeliest classes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....data import MAX_PIXELS, ImageError
from ....data.errors import OutputError, reason_of
from ....data.images.reading import decode_image
from .writing import Row, address, address_between, link, write_page


def write_classes_page(results: Path, output: Path, *, max_pixels: int = MAX_PIXELS) -> Path:
    """Write a page of pictures with their likeliest classes.

    Parameters
    ----------
    results : Path
        What ``inception-rcnn classify --json`` wrote: a list of ``{"file", "classes": [{"class", "score"}]}``. Names of
        files are relative to the working folder.
    output : Path
        The page.
    max_pixels : int
        See `inception_rcnn.data.read_image`.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    OutputError
        If the file is no such list, or empty.
    OSError
        If it cannot be read, or the page cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     results = Path(folder, "classes.json")
    ...     _ = results.write_text('[{"file": "a.jpg", "classes": [{"class": "tabby", "score": 0.5}]}]')
    ...     write_classes_page(results, Path(folder, "classes.html")).name
    'classes.html'
    """
    answers, failed = _read_answers(results)
    if not answers:
        raise OutputError(f"{results}: has no picture with classes")
    paths = [os.path.abspath(file) for file, _ in answers]
    folder = os.path.join(os.path.commonpath(list(map(os.path.dirname, paths))), "")
    classes = list(dict.fromkeys(name for _, found in answers for name, _ in found))
    label = {name: i for i, name in enumerate(classes)}

    def rows() -> Iterator[Row]:
        for path, (_, found) in zip(paths, answers, strict=True):
            found = sorted(found, key=lambda one: -one[1])
            columns: Mapping[str, NDArray[Any]] = {
                "boxes": np.zeros((len(found), 4), np.float32),
                "scores": np.array([score for _, score in found], np.float32),
                "labels": np.array([label[name] for name, _ in found], np.uint16),
            }
            name = path[len(folder) :]
            yield Row(name, *_size(Path(path), max_pixels), Path(path), [columns], address(name))

    values = {
        "kind": "classes",
        "title": results.name,
        "subtitle": str(results.absolute()),
        "shows": [("all", "all pictures"), ("found", "with such a class"), ("nothing", "without")],
        "sorts": [("run", "as in the file"), ("name", "name"), ("score", "best score")],
        "columns": ("Class", "Probability"),
        "hints": (),
        "reports": [],
        "errors": {"count": len(failed), "lines": [_error(one, output) for one in failed[:1000]]},
        "page": {
            "kind": "classes", "classes": classes, "threshold": 0.0, "fractions": False, "folder": folder,
            "originals": address_between(output, folder), "runs": [{"name": "", "short": "", "drawings": None}],
        },
    }  # fmt: skip
    write_page(output, values, rows(), len(answers), max_pixels=max_pixels)
    return output


def _read_answers(path: Path) -> tuple[list[tuple[str, list[tuple[str, float]]]], list[dict[str, str]]]:
    """Classes with their scores of each file, and the files that have none."""
    answers, failed = [], []
    try:
        for one in json.loads(path.read_bytes()):
            if "error" in one:
                failed.append({"file": str(one["file"]), "message": str(one["error"])})
            else:
                found = [(str(found["class"]), float(found["score"])) for found in one["classes"]]
                answers.append((str(one["file"]), found))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        text = f"{path}: is not what classify --json writes ({reason_of(error)})"
        raise OutputError(text) from None
    return answers, failed


def _error(one: dict[str, str], output: Path) -> dict[str, Any]:
    return {**one, "kind": "ImageError", "address": link(output, one["file"])}


def _size(path: Path, max_pixels: int) -> tuple[int, int]:
    try:
        height, width = decode_image(path, max_pixels).image.shape[:2]
    except ImageError:
        return 4, 3
    return width, height
