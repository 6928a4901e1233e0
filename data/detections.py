"""What a detector returns for a picture, and the files that detections are kept in.

Two formats: one JSON document in COCO's form (``images``, ``categories``, ``annotations`` with a ``score``),
and the text files that the PASCAL VOC development kit takes, one per class, with pixels counted from 1 and
both corners included. Inside the program boxes are continuous and 0-based; the other conventions begin and
end here.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .classes import VOC_CLASSES
from .files import atomic_write

__all__ = [
    "DetectionError",
    "Detections",
    "read_detections",
    "read_voc_results",
    "write_detections",
    "write_voc_results",
]


class DetectionError(ValueError):
    """A file of detections is missing or malformed; the text is one line: which file, what is wrong."""


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects found in one picture.

    Attributes
    ----------
    boxes : ndarray of float32, shape (N, 4)
        ``x1 y1 x2 y2`` in pixels, continuous, 0-based.
    scores : ndarray of float32, shape (N,)
        Higher is better.
    labels : ndarray of int64, shape (N,)
        Indices into `classes`.
    classes : tuple of str
        Names of the classes.

    Raises
    ------
    ValueError
        If the arrays' shapes do not fit together.

    Examples
    --------
    >>> found = Detections(np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.array([7]), VOC_CLASSES)
    >>> len(found), found.classes[found.labels[0]]
    (1, 'cat')
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        count = len(self.scores)
        if self.boxes.shape != (count, 4) or self.scores.shape != (count,) or self.labels.shape != (count,):
            raise ValueError(
                f"boxes {self.boxes.shape}, scores {self.scores.shape} and labels {self.labels.shape} "
                "do not fit: (N, 4), (N,) and (N,) are expected"
            )

    def __len__(self) -> int:
        """Return the number of detections."""
        return len(self.scores)


def write_detections(
    path: str | Path,
    entries: Iterable[tuple[str, int, int, Detections]],
    classes: Sequence[str],
    image_ids: Mapping[str, int | str] | None = None,
) -> None:
    """Write the detections of many pictures as one COCO document.

    `entries` is consumed picture by picture and the file written on the way, so that a run over a million
    pictures does not gather them in memory. The file appears under its name when it is complete.

    Parameters
    ----------
    path : str or Path
        The file, usually ``detections.json``.
    entries : iterable of (file_name, width, height, Detections)
        The pictures, each with its size in pixels.
    classes : sequence of str
        The classes of the document; category ids are 1-based positions in it. Every class that a `Detections`
        mentions must be among them.
    image_ids : mapping of str to int or str, optional
        The id of each picture by its ``file_name``, for results that are compared with a document that has
        its own. Without it the pictures are counted from 1.

    Raises
    ------
    DetectionError
        If a score or a coordinate is not finite, a label is not one of `classes`, or `image_ids` lacks a
        picture.
    OSError
        If the file cannot be written.

    Notes
    -----
    Numbers have 9 digits: `read_detections` gives back the same float32 scores and, for boxes that begin
    inside the picture, the same float32 boxes.

    References
    ----------
    https://cocodataset.org/#format-data

    Examples
    --------
    >>> import tempfile
    >>> boxes, scores = np.array([[1, 2, 4, 8]], np.float32), np.ones(1, np.float32)
    >>> found = Detections(boxes, scores, np.array([0]), ("cat",))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_detections(f"{folder}/detections.json", [("a.jpg", 20, 10, found)], ("cat",))
    ...     read_detections(f"{folder}/detections.json")["a"].boxes.tolist()
    [[1.0, 2.0, 4.0, 8.0]]
    """
    atomic_write(path, _document(entries, tuple(classes), image_ids))


def _document(
    entries: Iterable[tuple[str, int, int, Detections]],
    classes: tuple[str, ...],
    image_ids: Mapping[str, int | str] | None,
) -> Iterator[bytes]:
    categories = [{"id": i, "name": name} for i, name in enumerate(classes, start=1)]
    yield b'{"categories": ' + json.dumps(categories).encode() + b',\n"annotations": ['
    # Annotations first: they are many and can go straight to the file, the few lines on images wait.
    images: list[str] = []
    count = 0
    for name, width, height, found in entries:
        if image_ids is not None and name not in image_ids:
            raise DetectionError(f"{name}: image_ids has no id for this picture")
        image_id = json.dumps(len(images) + 1 if image_ids is None else image_ids[name])
        size = f'"width": {int(width)}, "height": {int(height)}'
        images.append(f'{{"id": {image_id}, "file_name": {json.dumps(str(name))}, {size}}}')
        lines = []
        for category, score, (x, y, w, h) in _rows(found, classes, name):
            count += 1
            lines.append(
                f'{{"id": {count}, "image_id": {image_id}, "category_id": {category}, '
                f'"bbox": [{x:.9g}, {y:.9g}, {w:.9g}, {h:.9g}], "score": {score:.9g}, '
                f'"area": {w * h:.9g}, "iscrowd": 0}}'
            )
        if lines:
            yield (",\n" if count > len(lines) else "\n").encode() + ",\n".join(lines).encode()
    yield b'\n],\n"images": [\n' + ",\n".join(images).encode() + b"\n]}\n"


def _rows(found: Detections, classes: tuple[str, ...], name: str) -> Iterator[tuple[int, float, list[float]]]:
    """Yield category id, score and ``x y w h`` of every detection."""
    if not (np.isfinite(found.boxes).all() and np.isfinite(found.scores).all()):
        raise DetectionError(f"{name}: a detection has a coordinate or a score that is not a finite number")
    try:
        categories = [classes.index(found.classes[label]) + 1 for label in found.labels]
    except (ValueError, IndexError) as error:
        raise DetectionError(f"{name}: a detection's class is not among the classes to write: {error}") from error
    corners = found.boxes.astype(np.float64)
    sides = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    return zip(categories, found.scores.tolist(), sides.tolist(), strict=True)


def read_detections(path: str | Path, key: Literal["stem", "file_name"] = "stem") -> dict[str, Detections]:
    """Read a document that `write_detections` wrote, or any COCO document whose annotations have a ``score``.

    Parameters
    ----------
    path : str or Path
        The file, or the folder in which it is called ``detections.json``.
    key : {"stem", "file_name"}
        What pictures are called in the result: "stem" is the file's name without folder and suffix, which is
        the image id of VOC and of COCO; "file_name" is the document's own name, for sets with equal names in
        several folders.

    Returns
    -------
    dict of str to Detections
        Every picture of the document in its order, also those without detections. ``classes`` are the
        document's categories in the order of their ids.

    Raises
    ------
    DetectionError
        If the file is missing or malformed, or two pictures have the same key.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_detections(f"{folder}/detections.json", [], ("cat", "dog"))
    ...     read_detections(folder)
    {}
    """
    path = Path(path)
    if path.is_dir():
        path = path / "detections.json"
    return _by_picture(_load(path), key, path)


def _by_picture(document: dict[str, Any], key: Literal["stem", "file_name"], path: Path) -> dict[str, Detections]:
    """Sort the annotations of a document by picture; `path` is for the errors."""
    record: Any = None
    try:
        categories = sorted(document["categories"], key=lambda category: category["id"])
        classes = tuple(str(category["name"]) for category in categories)
        label_of = {category["id"]: label for label, category in enumerate(categories)}
        names: dict[Any, str] = {}
        for record in document["images"]:
            file_name = str(record["file_name"])
            names[record["id"]] = Path(file_name).stem if key == "stem" else file_name
        rows: dict[Any, list[tuple[float, float, float, float, float, int]]] = {name: [] for name in names}
        for record in document["annotations"]:
            x, y, w, h = record["bbox"]
            rows[record["image_id"]].append((x, y, x + w, y + h, record["score"], label_of[record["category_id"]]))
        result = {name: _from_rows(rows[image_id], classes) for image_id, name in names.items()}
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing or not defined" if isinstance(error, KeyError) else str(error)
        where = f" in {str(record)[:200]}" if record is not None else ""
        raise DetectionError(f"{path}: is not a COCO document with scores: {reason}{where}") from error
    if len(result) < len(document["images"]):
        (twice, _), *_ = Counter(names.values()).most_common(1)
        hint = "; read it with key='file_name'" if key == "stem" else ""
        raise DetectionError(f"{path}: two images are called {twice!r} or share an id{hint}")
    return result


def read_voc_results(
    folder: str | Path, classes: Sequence[str] = VOC_CLASSES, prefix: str = "comp4_det_test_"
) -> dict[str, Detections]:
    """Read a folder of VOC result files, one per class, with lines ``image_id score xmin ymin xmax ymax``.

    Parameters
    ----------
    folder : str or Path
        Folder with files ``<prefix><class>.txt``.
    classes : sequence of str
        Classes to look for. A class without a file has no detections.
    prefix : str
        Competition and split: "comp4_det_test_", "comp3_det_val_".

    Returns
    -------
    dict of str to Detections
        By image id; each picture's detections in the order of the files.

    Raises
    ------
    DetectionError
        If the folder has no such file, or a line is malformed.

    References
    ----------
    The PASCAL Visual Object Classes Challenge 2007 Development Kit Documentation, section 6.2.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "comp4_det_test_cat.txt").write_text("000001 0.5 1 1 20 10")
    ...     read_voc_results(folder)["000001"].boxes.tolist()
    [[0.0, 0.0, 20.0, 10.0]]
    """
    folder = Path(folder)
    rows: dict[str, list[tuple[float, float, float, float, float, int]]] = {}
    files = {label: folder / f"{prefix}{name}.txt" for label, name in enumerate(classes)}
    files = {label: path for label, path in files.items() if path.is_file()}
    if not files:
        raise DetectionError(f"{folder}: has no file {prefix}<class>.txt for any of the classes; check the folder")
    for label, path in files.items():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DetectionError(f"{path}: cannot be read ({error})") from error
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                image_id, *fields = line.split()
                score, x1, y1, x2, y2 = map(float, fields)
            except ValueError as error:
                raise DetectionError(
                    f"{path}, line {number}: {line[:80]!r} is not 'image_id score xmin ymin xmax ymax'"
                ) from error
            rows.setdefault(image_id, []).append((x1 - 1, y1 - 1, x2, y2, score, label))
    try:
        return {image_id: _from_rows(found, tuple(classes)) for image_id, found in rows.items()}
    except ValueError as error:
        raise DetectionError(f"{folder}: {error}") from error


def write_voc_results(
    folder: str | Path, detections: Mapping[str, Detections], prefix: str = "comp4_det_test_"
) -> None:
    """Write VOC result files, one for every class, as the development kit takes them.

    Parameters
    ----------
    folder : str or Path
        Where to write ``<prefix><class>.txt``; made if missing.
    detections : mapping of str to Detections
        By image id. All must have the same `classes`.
    prefix : str
        Competition and split.

    Raises
    ------
    DetectionError
        If the pictures' classes differ.
    OSError
        If a file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> boxes, scores = np.array([[0, 0, 20, 10]], np.float32), np.ones(1, np.float32)
    >>> found = Detections(boxes, scores, np.array([0]), ("cat",))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_voc_results(folder, {"000001": found})
    ...     print(Path(folder, "comp4_det_test_cat.txt").read_text().strip())
    000001 1 1.000000 1.000000 20.000000 10.000000
    """
    os.makedirs(folder, exist_ok=True)
    names = {found.classes for found in detections.values()}
    if len(names) > 1:
        raise DetectionError(f"the pictures' detections have {len(names)} different lists of classes, not one")
    classes = names.pop() if names else ()
    lines: list[list[str]] = [[] for _ in classes]
    for image_id, found in detections.items():
        rows = zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
        for label, score, (x1, y1, x2, y2) in rows:
            lines[label].append(f"{image_id} {score:.9g} {x1 + 1:.6f} {y1 + 1:.6f} {x2:.6f} {y2:.6f}\n")
    for name, text in zip(classes, lines, strict=True):
        atomic_write(Path(folder, f"{prefix}{name}.txt"), "".join(text))


def _from_rows(rows: Sequence[tuple[float, float, float, float, float, int]], classes: tuple[str, ...]) -> Detections:
    """Turn rows of ``x1 y1 x2 y2 score label`` into arrays."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    if not np.isfinite(table).all():
        raise ValueError(f"not a finite number in {rows[int(np.flatnonzero(~np.isfinite(table).all(1))[0])][:5]}")
    return Detections(
        boxes=table[:, :4].astype(np.float32),
        scores=table[:, 4].astype(np.float32),
        labels=table[:, 5].astype(np.int64),
        classes=classes,
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise DetectionError(f"{path}: cannot be read ({error.strerror}); check its name") from error
    except (ValueError, RecursionError) as error:
        raise DetectionError(f"{path}: is not well-formed JSON ({error})") from error
    if not isinstance(document, dict) or not all(
        isinstance(document.get(key), list) for key in ("images", "categories", "annotations")
    ):
        raise DetectionError(
            f"{path}: has no lists 'images', 'categories' and 'annotations'; a COCO document is expected"
        )
    return document
