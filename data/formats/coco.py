"""COCO's JSON: annotations, results, and ``detections.json``, which is a document of the same form."""

import json
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..boxes import clip_boxes
from ..classes import COCO_TO_VOC, VOC_CLASSES
from ..detections import Detections, detection_rows, group_by_picture
from ..errors import AnnotationError, DetectionError, UserError
from ..picture import Picture
from ..picture_names import stem, without_folders, without_suffix
from ..proposals import Proposals
from ..system.atomic_files import atomic_write
from .records import (
    as_table,
    check_distinct,
    names_by_id,
    read_json,
    record_field,
    record_list,
    record_problem,
    records_by_id,
    shorten_record,
    sorted_ids,
)


def read_coco(
    annotation_file: str | Path,
    image_root: str | Path,
    classes: Sequence[str] = VOC_CLASSES,
    rename: Mapping[str, str] | None = COCO_TO_VOC,
) -> list[Picture]:
    """Read a COCO annotation file.

    An image may have two fields that COCO does not have: ``labelled_classes``, the names of the classes that are
    boxed in it, and ``exhaustive``, false if even of those some objects may be unboxed.

    Parameters
    ----------
    annotation_file : str or Path
        JSON document with ``images``, ``categories`` and ``annotations``.
    image_root : str or Path
        Folder that the images' ``file_name`` is relative to.
    classes : sequence of str
        Classes to read; objects of others are left out.
    rename : mapping of str to str, or None
        The name in `classes` of categories that are called otherwise in the file. None for no renaming.

    Returns
    -------
    list of Picture
        In the order of the file, also pictures without objects. ``image_id`` is ``file_name`` without its
        suffix. Boxes are clipped to the picture (COCO's are rounded, and end a fraction of a pixel outside);
        boxes without any area, of which COCO has a few, are left out. The picture files themselves are not
        read.

    Raises
    ------
    AnnotationError
        If the file is missing or malformed, has none of the classes or a box of negative size, or two images have
        the same id or name.

    References
    ----------
    Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014. https://cocodataset.org/#format-data

    Examples
    --------
    >>> import tempfile
    >>> document = {
    ...     "images": [{"id": 7, "file_name": "a.jpg", "width": 20, "height": 10}],
    ...     "categories": [{"id": 5, "name": "airplane"}],
    ...     "annotations": [{"id": 1, "image_id": 7, "category_id": 5, "bbox": [2, 3, 4, 5], "iscrowd": 0}],
    ... }
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.json").write_text(json.dumps(document))
    ...     picture, = read_coco(f"{folder}/a.json", folder)
    >>> picture.image_id, picture.boxes.tolist(), VOC_CLASSES[picture.labels[0]]
    ('a', [[2.0, 3.0, 6.0, 8.0]], 'aeroplane')
    """
    return coco_pictures(read_json(Path(annotation_file)), annotation_file, image_root, classes, rename)


def coco_pictures(
    document: Any,
    annotation_file: str | Path,
    image_root: str | Path,
    classes: Sequence[str],
    rename: Mapping[str, str] | None,
) -> list[Picture]:
    """Return the pictures of a COCO document that was read from `annotation_file`; see `read_coco`."""
    images, annotations, categories = (
        record_list(document, key, annotation_file) for key in ("images", "annotations", "categories")
    )
    classes = tuple(classes)
    index = {name: label for label, name in enumerate(classes)}
    rename = rename or {}
    # -1 for a category that is not asked for, so that one that the file never defines is still noticed.
    label_of = {
        record_field(record, "id", "categories", annotation_file): index.get(rename.get(str(name), str(name)), -1)
        for record in categories
        for name in [record_field(record, "name", "categories", annotation_file)]
    }
    if max(label_of.values(), default=-1) < 0:
        raise AnnotationError(f"{annotation_file}: none of its categories is among the classes {', '.join(classes)}")
    position = {one: i for i, one in enumerate(records_by_id(document, "images", annotation_file))}

    owner, labels, crowd, kept = [], [], [], []
    numbers = array("d")
    record: Any = None
    try:
        for record in annotations:
            label = label_of[record["category_id"]]
            if label >= 0:
                owner.append(position[record["image_id"]])
                labels.append(label)
                x, y, width, height = record["bbox"]
                numbers.extend((x, y, x + width, y + height))
                crowd.append(bool(record.get("iscrowd", 0)))
                kept.append(record)
        table, bad = as_table(numbers, 4)
        if bad >= 0:
            record = kept[bad]
            raise ValueError("a number in it is not finite, or a side negative")
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        problem = record_problem(record, position, label_of)
        raise AnnotationError(f"{annotation_file}: bad annotation {shorten_record(record)}: {problem}") from error

    # One sort and a cut per picture, where a search per picture would take minutes on COCO's 118,000.
    owners = np.array(owner, np.int64)
    order = np.argsort(owners, kind="stable")
    ends = np.cumsum(np.bincount(owners, minlength=len(images))).tolist()
    label_array, crowd_array = np.array(labels, np.int64), np.array(crowd, bool)
    pictures = []
    for image, start, end in zip(images, [0, *ends], ends, strict=False):
        own = order[start:end]
        objects = table[own], label_array[own], crowd_array[own]
        pictures.append(_coco_picture(image, Path(image_root), *objects, index, rename, annotation_file, classes))
    names = {i: picture.image_id for i, picture in enumerate(pictures)}
    check_distinct(names, "images", annotation_file, form=" without suffix")
    return pictures


def read_coco_ids(annotation_file: str | Path) -> dict[str, int]:
    """Read which id a COCO annotation file gives to which picture.

    Parameters
    ----------
    annotation_file : str or Path
        JSON document with ``images``; neither objects nor categories are read.

    Returns
    -------
    dict of str to int
        By file name, without folders.

    Raises
    ------
    AnnotationError
        If the file is missing or malformed, or two images have the same name.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.json").write_text('{"images": [{"id": 42, "file_name": "val2017/42.jpg"}]}')
    ...     read_coco_ids(f"{folder}/a.json")
    {'42.jpg': 42}
    """
    names = names_by_id(read_json(Path(annotation_file)), "images", annotation_file)
    names = {image_id: without_folders(name) for image_id, name in names.items()}
    check_distinct(names, "images", annotation_file, form=" without folders")
    return {name: image_id for image_id, name in names.items()}


def _coco_picture(
    record: Mapping[str, Any],
    image_root: Path,
    boxes: NDArray[np.float64],
    labels: NDArray[np.int64],
    crowd: NDArray[np.bool_],
    index: Mapping[str, int],
    rename: Mapping[str, str],
    source: str | Path,
    classes: tuple[str, ...],
) -> Picture:
    try:
        name, width, height = str(record["file_name"]), int(record["width"]), int(record["height"])
        if not name or not (0 < width < 2**31 and 0 < height < 2**31):
            raise ValueError("no name or no size")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise AnnotationError(
            f"{source}: bad image {shorten_record(record)}: it needs a file_name, and a width and a height above 0"
        ) from error
    clipped = clip_boxes(boxes, width, height)
    whole = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])

    names = record.get("labelled_classes")
    exhaustive = record.get("exhaustive", True)
    if names is None:
        boxed = set(range(len(index))) if exhaustive else set(labels.tolist())
    elif isinstance(names, list):
        boxed = {index[n] for n in (rename.get(str(n), str(n)) for n in names) if n in index}
    else:
        raise AnnotationError(f"{source}: labelled_classes of {name!r} is not a list of names")
    return Picture(
        image_id=without_suffix(name),
        path=image_root / name,
        width=width,
        height=height,
        boxes=clipped[whole],
        labels=labels[whole],
        difficult=np.zeros(int(whole.sum()), bool),
        crowd=crowd[whole],
        labelled=None if exhaustive and len(boxed) == len(index) else tuple(sorted(boxed)),
        exhaustive=bool(exhaustive),
        classes=classes,
    )


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
    atomic_write(path, _document_pieces(entries, tuple(classes), image_ids))


def _document_pieces(
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
        for category, score, (x, y, w, h) in detection_rows(found, classes, name):
            count += 1
            lines.append(
                f'{{"id": {count}, "image_id": {image_id}, "category_id": {category}, '
                f'"bbox": [{x:.9g}, {y:.9g}, {w:.9g}, {h:.9g}], "score": {score}, '
                f'"area": {w * h:.9g}, "iscrowd": 0}}'
            )
        if lines:
            yield (",\n" if count > len(lines) else "\n").encode() + ",\n".join(lines).encode()
    yield b'\n],\n"images": [\n' + ",\n".join(images).encode() + b"\n]}\n"


def read_detections(path: str | Path, key: Literal["stem", "file_name"] = "stem") -> dict[str, Detections]:
    """Read a document that `write_detections` wrote, or any COCO document whose annotations have a ``score``.

    Parameters
    ----------
    path : str or Path
        The file, or the folder in which it is called ``detections.json``.
    key : {"stem", "file_name"}
        By what names the result has the pictures: "stem" is the file's name without folder and suffix, which is
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
    path = detections_file(path)
    return _by_picture(_load_document(path), key, path)


def detections_file(path: str | Path) -> Path:
    """Return the file of detections that is named, or that is in the folder named."""
    return Path(path, "detections.json") if os.path.isdir(path) else Path(path)


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
    path = detections_file(path)
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
    names = names_by_id(document, "images", path, DetectionError)
    if key == "stem":
        names = {image_id: stem(name) for image_id, name in names.items()}
    form = " without folder and suffix" if key == "stem" else ""
    check_distinct(names, "images", path, DetectionError, form)
    return _detections_of_records(document["annotations"], names, _sorted_classes(document, path, DetectionError), path)


def _sorted_classes(document: Any, path: Path, error: type[UserError]) -> dict[Any, str]:
    """Return the names of a document's categories in the order of their ids."""
    names = names_by_id(document, "categories", path, error)
    check_distinct(names, "categories", path, error)
    return {one: names[one] for one in sorted_ids(names, "categories", path, error)}


def _detections_of_records(
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
        table, bad = as_table(numbers, 5)
        if bad >= 0:
            record = records[bad]
            raise ValueError("a number is not finite, or a side negative")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        problem = record_problem(record, position, label_of, scored=True)
        raise DetectionError(f"{path}: bad detection {shorten_record(record)}: {problem}") from error
    owners, label_array = np.array(owner, np.int64), np.array(labels, np.int64)
    return group_by_picture(
        list(names.values()), owners, table[:, :4], table[:, 4], label_array, tuple(categories.values())
    )


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
    document = read_json(source)
    names = {image_id: without_suffix(name) for image_id, name in names_by_id(document, "images", source).items()}
    check_distinct(names, "images", source, form=" without suffix")
    classes = _sorted_classes(document, source, AnnotationError)
    records = read_json(Path(path), DetectionError)
    if not isinstance(records, list):
        raise DetectionError(f"{path}: is not a list of COCO results; a document with its own images can be read alone")
    return _detections_of_records(records, names, classes, Path(path))


def _load_document(path: Path) -> dict[str, Any]:
    document = read_json(path, DetectionError)
    if isinstance(document, list):
        raise DetectionError(
            f"{path}: is a list of results, not a COCO document: it says nothing of pictures and classes; "
            "read it together with the annotation file that has its ids"
        )
    record_list(document, "annotations", path, DetectionError)
    return document


OBJECT = ("object",)


def proposals_as_detections(picture: Proposals) -> tuple[str, int, int, Detections]:
    """Turn ranked boxes into detections of the one class "object", as `write_detections` takes them."""
    labels = np.zeros(len(picture.scores), np.int64)
    found = Detections(picture.boxes, picture.scores, labels, OBJECT)
    return picture.file, picture.width, picture.height, found


def read_coco_proposals(path: Path) -> Iterator[Proposals]:
    """Yield the ranked boxes of the pictures of a document of detections."""
    for name, width, height, found in read_detection_entries(path):
        yield Proposals(name, width, height, found.boxes, found.scores.astype(np.float32))
