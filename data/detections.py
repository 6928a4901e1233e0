"""What a detector returns for a picture, and the files that detections are kept in.

One JSON document in COCO's form (``images``, ``categories``, ``annotations`` with a ``score``), the list of results
that COCO's tools take, and the text files that the PASCAL VOC development kit takes, one per class, with pixels
counted from 1 and both corners included. Inside the program boxes are continuous and 0-based; the other conventions
begin and end here. ILSVRC's file is in `ilsvrc`.
"""

import json
import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .classes import VOC_CLASSES
from .formats.voc import AnnotationError, _field, _image_id, _problem, _read_json, _records, _shown, _table
from .system.atomic_files import atomic_write

__all__ = [
    "DetectionError",
    "Detections",
    "read_coco_results",
    "read_detection_entries",
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
    scores : ndarray of float32 or float64, shape (N,)
        Higher is better. A detector's are float32; read from a file of results they are float64, so that they rank
        as the file's do.
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
    scores: NDArray[np.floating[Any]]
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
        If a score or a coordinate is not finite, a box ends before it begins, a label is not one of `classes`, or
        `image_ids` lacks a picture.
    OSError
        If the file cannot be written.

    Notes
    -----
    Numbers have 9 digits, float64 scores as many as they need: `read_detections` gives back the same float64 scores
    or, rounded to float32, the same float32 scores, and the same float32 boxes where they begin inside the picture.

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
                f'"bbox": [{x:.9g}, {y:.9g}, {w:.9g}, {h:.9g}], "score": {score}, '
                f'"area": {w * h:.9g}, "iscrowd": 0}}'
            )
        if lines:
            yield (",\n" if count > len(lines) else "\n").encode() + ",\n".join(lines).encode()
    yield b'\n],\n"images": [\n' + ",\n".join(images).encode() + b"\n]}\n"


def _rows(found: Detections, classes: tuple[str, ...], name: str) -> Iterator[tuple[int, str, list[float]]]:
    """Yield category id, score as text and ``x y w h`` of every detection."""
    _check_numbers(found, name)
    try:
        categories = [classes.index(found.classes[label]) + 1 for label in found.labels]
    except (ValueError, IndexError) as error:
        raise DetectionError(f"{name}: a detection's class is not among the classes to write: {error}") from error
    corners = found.boxes.astype(np.float64)
    sides = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    return zip(categories, _score_texts(found), sides.tolist(), strict=True)


def _check_numbers(found: Detections, name: str) -> None:
    if not (np.isfinite(found.boxes).all() and np.isfinite(found.scores).all()):
        raise DetectionError(f"{name}: a detection has a coordinate or a score that is not a finite number")
    if (found.boxes[:, 2:] < found.boxes[:, :2]).any():
        raise DetectionError(f"{name}: a detection's box ends before it begins")


def _score_texts(found: Detections) -> list[str]:
    """Write scores with as many digits as bring back the same number of their type."""
    if found.scores.dtype == np.float64:
        return list(map(repr, found.scores.tolist()))
    return [f"{score:.9g}" for score in found.scores.tolist()]


def read_detections(path: str | Path, key: Literal["stem", "file_name"] = "stem") -> dict[str, Detections]:
    """Read a document that `write_detections` wrote, or any COCO document whose annotations have a ``score``.

    Parameters
    ----------
    path : str or Path
        The file, or the folder in which it is called ``detections.json``.
    key : {"stem", "file_name"}
        What pictures are called in the result: "stem" is the file's name without folder and suffix, which is
        the image id of VOC; "file_name" is the document's own name, for sets with equal names in several folders.
        The image ids of `read_coco` and `read_ilsvrc` have folders but no suffix, and are "stem" only where the
        pictures are in none.

    Returns
    -------
    dict of str to Detections
        Every picture of the document in its order, also those without detections. ``classes`` are the
        document's categories in the order of their ids. Scores are float64.

    Raises
    ------
    DetectionError
        If the file is missing or malformed, has a number that is not finite or a box of negative size, two pictures
        have the same id or are called the same (two of equal "stem" can still be read by "file_name"), two
        categories have the same id or name, or it is a plain list of results, for which there is
        `read_coco_results`.

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
    return _by_picture(_load_document(path), key, path)


def read_detection_entries(path: str | Path) -> list[tuple[str, int, int, Detections]]:
    """Read what `write_detections` was given: the pictures of a document with their names and sizes.

    Parameters
    ----------
    path : str or Path
        The file, or the folder in which it is called ``detections.json``.

    Returns
    -------
    list of (file_name, width, height, Detections)
        In the order of the document. A size that it does not tell is 0.

    Raises
    ------
    DetectionError
        If the file is missing or malformed, or two pictures have the same name.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_detections(f"{folder}/detections.json", [], ("cat", "dog"))
    ...     read_detection_entries(folder)
    []
    """
    path = Path(path)
    if path.is_dir():
        path = path / "detections.json"
    document = _load_document(path)
    found = _by_picture(document, "file_name", path)
    entries = []
    for record in document["images"]:
        name, width, height = str(record["file_name"]), record.get("width", 0), record.get("height", 0)
        if not all(isinstance(side, int) and 0 <= side < 2**31 for side in (width, height)):
            raise DetectionError(
                f"{path}: the size of {name!r} is {str(width)[:40]} x {str(height)[:40]}, not two numbers"
            )
        entries.append((name, width, height, found[name]))
    return entries


def _by_picture(document: dict[str, Any], key: Literal["stem", "file_name"], path: Path) -> dict[str, Detections]:
    """Sort the annotations of a document by picture; `path` is for the errors."""
    try:
        names, categories = _names(document, "images", path), _names(document, "categories", path)
        if key == "stem":
            names = {image_id: Path(name).stem for image_id, name in names.items()}
        _check_distinct(names, "images", path, " without folder and suffix" if key == "stem" else "")
        classes = _sorted_classes(categories, path)
    except AnnotationError as error:
        raise DetectionError(str(error)) from error
    return _from_records(document["annotations"], names, classes, path)


def _names(document: Any, kind: Literal["images", "categories"], path: Path) -> dict[Any, str]:
    """Names of the images or categories of a document by their ids."""
    names: dict[Any, str] = {}
    for record in _records(document, kind, path):
        one = _field(record, "id", kind, path)
        if one in names:
            raise AnnotationError(f"{path}: two of its {kind} have the id {_shown(one)}; give each its own")
        names[one] = str(_field(record, "file_name" if kind == "images" else "name", kind, path))
    return names


def _check_distinct(names: Mapping[Any, str], kind: str, path: Path, form: str = "") -> None:
    (most, times), *_ = [*Counter(names.values()).most_common(1), ("", 0)]
    if times > 1:
        raise AnnotationError(f"{path}: two of its {kind} are called {most[:80]!r}{form}; give each its own name")


def _sorted_classes(categories: Mapping[Any, str], path: Path) -> dict[Any, str]:
    """Return the categories in the order of their ids."""
    _check_distinct(categories, "categories", path)
    if len({isinstance(one, str) for one in categories}) > 1:
        raise AnnotationError(f"{path}: the ids of its categories are numbers as well as texts; use one of the two")
    return {one: categories[one] for one in sorted(categories)}


def _from_records(
    records: list[Any], names: Mapping[Any, str], categories: Mapping[Any, str], path: Path
) -> dict[str, Detections]:
    """Sort COCO's records by picture: `names` and `categories` are what their ids mean, `path` is for the errors."""
    label_of = {category: label for label, category in enumerate(categories)}
    position = {image_id: i for i, image_id in enumerate(names)}
    owner, labels = [], []
    numbers = array("d")
    record: Any = None
    try:
        for record in records:
            owner.append(position[record["image_id"]])
            labels.append(label_of[record["category_id"]])
            x, y, w, h = record["bbox"]
            numbers.extend((x, y, x + w, y + h, record["score"]))
        table, bad = _table(numbers, 5)
        if bad >= 0:
            record = records[bad]
            raise ValueError("a number is not finite, or a side negative")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        problem = _problem(record, position, label_of, scored=True)
        raise DetectionError(f"{path}: bad detection {_shown(record)}: {problem}") from error
    owners, label_array = np.array(owner, np.int64), np.array(labels, np.int64)
    return _group(list(names.values()), owners, table[:, :4], table[:, 4], label_array, tuple(categories.values()))


def read_coco_results(path: str | Path, annotation_file: str | Path) -> dict[str, Detections]:
    """Read a plain list of COCO results, which has neither the pictures' names nor those of the classes.

    Parameters
    ----------
    path : str or Path
        JSON list of ``{"image_id", "category_id", "bbox", "score"}``; more fields do not matter.
    annotation_file : str or Path
        JSON document whose ``images`` and ``categories`` have the ids that the list uses.

    Returns
    -------
    dict of str to Detections
        By ``image_id`` of `read_coco`: every picture of the annotation file in its order, also those without
        detections. ``classes`` are the file's categories in the order of their ids, by the file's own names. Scores
        are float64.

    Raises
    ------
    DetectionError
        If the list is missing or malformed, has a number that is not finite or a box of negative size, or an id
        that the annotation file does not have.
    AnnotationError
        If the annotation file is missing or malformed, or two of its images or categories have the same id or name.

    References
    ----------
    https://cocodataset.org/#format-results

    Examples
    --------
    >>> import tempfile
    >>> images = {"images": [{"id": 7, "file_name": "a.jpg"}], "categories": [{"id": 5, "name": "cat"}]}
    >>> results = [{"image_id": 7, "category_id": 5, "bbox": [2, 3, 4, 5], "score": 0.5}]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "instances.json").write_text(json.dumps(images))
    ...     _ = Path(folder, "results.json").write_text(json.dumps(results))
    ...     found = read_coco_results(f"{folder}/results.json", f"{folder}/instances.json")
    >>> found["a"].boxes.tolist(), found["a"].classes
    ([[2.0, 3.0, 6.0, 8.0]], ('cat',))
    """
    source = Path(annotation_file)
    document = _read_json(source)
    names, categories = _names(document, "images", source), _names(document, "categories", source)
    names = {image_id: _image_id(file_name) for image_id, file_name in names.items()}
    _check_distinct(names, "images", source, " without suffix")
    classes = _sorted_classes(categories, source)
    records = _load(Path(path))
    if not isinstance(records, list):
        raise DetectionError(f"{path}: is not a list of COCO results; a document with its own images can be read alone")
    return _from_records(records, names, classes, Path(path))


def read_voc_results(
    folder: str | Path, classes: Sequence[str] = VOC_CLASSES, prefix: str = "comp4_det_test_"
) -> dict[str, Detections]:
    """Read a folder of VOC result files, one per class, with lines ``image_id score xmin ymin xmax ymax``.

    Parameters
    ----------
    folder : str or Path
        Folder with files ``<prefix><class>.txt``.
    classes : sequence of str
        Classes to look for. A class without a file, or with an empty one, has no detections.
    prefix : str
        Competition and split: "comp4_det_test_", "comp3_det_val_".

    Returns
    -------
    dict of str to Detections
        By image id; each picture's detections in the order of the files. Scores are float64.

    Raises
    ------
    DetectionError
        If the folder has no such file, or a line is malformed, has a number that is not finite or a box that ends
        before it begins (``xmax < xmin - 1``).

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
    files = {label: folder / f"{prefix}{name}.txt" for label, name in enumerate(classes)}
    files = {label: path for label, path in files.items() if path.is_file()}
    if not files:
        raise DetectionError(f"{folder}: has no file {prefix}<class>.txt for any of the classes; check the folder")
    names: dict[str, int] = {}
    tables, owners, labels = [np.zeros((0, 5))], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for label, path in files.items():
        owner, table, _ = _read_rows(path, "image_id score xmin ymin xmax ymax", names)
        tables.append(table)
        owners.append(owner)
        labels.append(np.full(len(table), label))
    table = np.concatenate(tables)
    boxes = table[:, 1:] - [1, 1, 0, 0]
    return _group(list(names), np.concatenate(owners), boxes, table[:, 0], np.concatenate(labels), tuple(classes))


def _read_rows(
    path: Path, form: str, names: dict[str, int]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Read lines of a word and numbers, the last four of them a box.

    Returns for every line the position of its word in `names`, which grows, its numbers, and the line's number.
    `form` says what is expected.
    """
    columns = len(form.split()) - 1
    owner, numbers, lines = array("q"), array("d"), array("q")
    try:
        # A byte order mark, as some editors write it, is no part of the first word.
        with open(path, encoding="utf-8-sig") as file:
            for line_number, line in enumerate(file, start=1):
                word, *fields = line.split() or [""]
                if not word:
                    continue
                try:
                    numbers.extend(map(float, fields))
                except ValueError:
                    fields = []
                if len(fields) != columns:
                    raise DetectionError(f"{path}, line {line_number}: {line.strip()[:80]!r} is not {form!r}")
                owner.append(names.setdefault(word, len(names)))
                lines.append(line_number)
    except OSError as error:
        raise DetectionError(f"{path}: cannot be read ({error.strerror}); check its name") from error
    except UnicodeDecodeError as error:
        raise DetectionError(f"{path}: is not a text file in UTF-8; lines {form!r} are expected") from error
    # Both corners are included: a box of no width ends a pixel before it begins, or so when it is rounded.
    table, bad = _table(numbers, columns, first=columns - 4, slack=1 + 1e-4)
    if bad >= 0:
        row = table[bad]
        begun = (row[-2:] >= row[-4:-2] - 1).all() or not np.isfinite(row).all()
        problem = "not a finite number, or too large a one," if begun else "a box that ends before it begins"
        raise DetectionError(f"{path}, line {lines[bad]}: {problem} in {row.tolist()}")
    return np.array(owner, np.int64), table, np.array(lines, np.int64)


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
        If the pictures' classes differ, a score or a coordinate is not finite, or a box ends before it begins.
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
        _check_numbers(found, image_id)
        rows = zip(found.labels.tolist(), _score_texts(found), found.boxes.tolist(), strict=True)
        for label, score, (x1, y1, x2, y2) in rows:
            lines[label].append(f"{image_id} {score} {x1 + 1:.6f} {y1 + 1:.6f} {x2:.6f} {y2:.6f}\n")
    for name, text in zip(classes, lines, strict=True):
        atomic_write(Path(folder, f"{prefix}{name}.txt"), "".join(text))


def _group(
    names: Sequence[str],
    owner: NDArray[np.int64],
    boxes: NDArray[np.float64],
    scores: NDArray[np.float64],
    labels: NDArray[np.int64],
    classes: tuple[str, ...],
) -> dict[str, Detections]:
    """Sort detections by picture, which keeps their order in each; `owner` is the position of the picture's name."""
    order = np.argsort(owner, kind="stable")
    ends = np.cumsum(np.bincount(owner, minlength=len(names))).tolist()
    box, score, label = boxes[order].astype(np.float32), scores[order], labels[order]
    return {
        name: Detections(box[start:end], score[start:end], label[start:end], classes)
        for name, start, end in zip(names, [0, *ends], ends, strict=False)
    }


def _load_document(path: Path) -> dict[str, Any]:
    document = _load(path)
    if isinstance(document, list):
        raise DetectionError(
            f"{path}: is a list of results, not a COCO document: it says nothing of pictures and classes; "
            "read it together with the annotation file that has its ids"
        )
    if not isinstance(document, dict) or not all(
        isinstance(document.get(key), list) for key in ("images", "categories", "annotations")
    ):
        raise DetectionError(
            f"{path}: has no lists 'images', 'categories' and 'annotations'; a COCO document is expected"
        )
    return document


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DetectionError(f"{path}: cannot be read ({error.strerror}); check its name") from error
    except (ValueError, RecursionError) as error:
        raise DetectionError(f"{path}: is not well-formed JSON ({error})") from error
