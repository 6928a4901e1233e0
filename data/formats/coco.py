"""COCO's JSON: annotations, results, and ``detections.json``, which is a document of the same form."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..arguments import check_names
from ..boxes import clip_boxes, corners_to_sides
from ..classes import COCO_TO_VOC, VOC_CLASSES
from ..classes.spelling import similar_classes, suggestion, warn_of_dropped_classes
from ..detections import Detections, detection_rows, group_by_picture
from ..errors import AnnotationError, DetectionError, UserError
from ..picture import Picture
from ..picture_names import forward_slashes, match_picture_names, stem, without_folders, without_suffix
from ..proposals import Proposals
from ..system.atomic_files import atomic_write
from .records import (
    check_annotation_ids,
    check_distinct,
    is_whole_number,
    names_by_id,
    number_array,
    raise_bad_records,
    read_json,
    record_boxes,
    record_list,
    record_positions,
    record_problem,
    records_by_id,
    shorten_record,
    sorted_ids,
)

# A picture's name, width, height, detections, and their masks as COCO's compressed run lengths.
_Entry: TypeAlias = tuple[str, int, int, Detections, Sequence[bytes] | None]


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
        Classes to read; objects of others are left out, and may be malformed.
    rename : mapping of str to str, or None
        The name in `classes` of categories that are called otherwise in the file. None for no renaming.

    Returns
    -------
    list of Picture
        In the order of the file, also pictures without objects. ``image_id`` is ``file_name`` with forward slashes and
        without its suffix. ``path`` is ``file_name`` in `image_root`; or, if it is not there, what follows the name of
        `image_root` in ``file_name``, such as "1.png" of "images/1.png" in a folder "images". Boxes are clipped to the
        picture (COCO's are rounded, and end a fraction of a pixel outside); boxes without any area, of which COCO has a
        few, are left out. The picture files themselves are not read.

    Raises
    ------
    AnnotationError
        If the file is missing or malformed, has none of the classes, two images have the same id or name, or two
        annotations the same id. Malformed is also a text or a truth value where a number is expected, a box of negative
        size, a size of a picture that is no whole number above 0, an ``area`` that is negative or not finite (a missing
        one is no fault), and an ``iscrowd`` that is neither 0 nor 1. All such images or annotations are counted, and
        the first ten named.
    SettingError
        If `classes` is one name.

    Warns
    -----
    DataWarning
        If objects are left out whose class is not asked for; names that differ only in spelling are told first.

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
    document = read_json(Path(annotation_file))
    pictures = coco_pictures(document, annotation_file, image_root, classes, rename)
    names = names_by_id(document, "categories", annotation_file)
    counts = Counter(record["category_id"] for record in document["annotations"])
    dropped = {name: counts[one] for one, name in names.items()}
    warn_of_dropped_classes(annotation_file, dropped, _taken_names(classes, rename or {}))
    return pictures


def coco_pictures(
    document: Any,
    annotation_file: str | Path,
    image_root: str | Path,
    classes: Sequence[str],
    rename: Mapping[str, str] | None,
) -> list[Picture]:
    """Return the pictures of a COCO document that was read from `annotation_file`; see `read_coco`."""
    images, annotations = (record_list(document, key, annotation_file) for key in ("images", "annotations"))
    classes = check_names("classes", classes)
    index = {name: label for label, name in enumerate(classes)}
    rename = rename or {}
    categories = names_by_id(document, "categories", annotation_file)
    # -1 for a category that is not asked for, so that one that the file never defines is still noticed.
    label_of = {one: index.get(name, index.get(rename.get(name, name), -1)) for one, name in categories.items()}
    if max(label_of.values(), default=-1) < 0:
        near = similar_classes(categories.values(), _taken_names(classes, rename))
        there = [repr(name) + suggestion(name, near) for name in list(categories.values())[:10]]
        raise AnnotationError(
            f"{annotation_file}: none of its categories is among the classes {', '.join(classes)}; "
            f"it has {', '.join(there) or 'none'}; a file of class names, one a line, chooses others"
        )
    position = {one: i for i, one in enumerate(records_by_id(document, "images", annotation_file))}
    bad = [(image, problem) for image in images if (problem := _image_problem(image))]
    raise_bad_records(bad, "image", annotation_file)
    check_annotation_ids(annotations, annotation_file, AnnotationError)

    try:
        labels = record_positions(annotations, "category_id", label_of)
        kept = [annotations[i] for i in np.flatnonzero(labels >= 0)]
        labels, owners, table = labels[labels >= 0], record_positions(kept, "image_id", position), record_boxes(kept)
        areas = number_array([area for record in kept if (area := record.get("area")) is not None])
        crowd = [record.get("iscrowd", 0) for record in kept]
        if (areas < 0).any() or not all(map({0, 1}.__contains__, crowd)):
            raise ValueError("an area is negative, or iscrowd neither 0 nor 1")
    except (KeyError, TypeError, ValueError, OverflowError):
        wrong = ((record, record_problem(record, position, label_of)) for record in annotations)
        # Of a category that is defined and not asked for, nothing is needed.
        needed = [(record, problem) for record, problem in wrong if problem and _label(record, label_of) >= 0]
        raise_bad_records(needed, "annotation", annotation_file)
        raise

    # One sort and a cut per picture, where a search per picture would take minutes on COCO's 118,000.
    order = np.argsort(owners, kind="stable")
    ends = np.cumsum(np.bincount(owners, minlength=len(images))).tolist()
    crowds, root = np.array(crowd, bool), Path(image_root)
    pictures = []
    for image, start, end in zip(images, [0, *ends], ends, strict=False):
        own = order[start:end]
        objects = table[own], labels[own], crowds[own]
        pictures.append(_coco_picture(image, root, *objects, index, rename, classes))
    names = {i: picture.image_id for i, picture in enumerate(pictures)}
    check_distinct(names, "images", annotation_file, form=" without suffix")
    return pictures


def read_coco_classes(files: Iterable[str | Path]) -> tuple[str, ...]:
    """List the categories of annotations, each once, in their order.

    Roboflow puts one before the others that is their supercategory. It has the project's name and no object, and is
    left out.

    Raises
    ------
    AnnotationError
        If a file is malformed.
    """
    names: dict[str, None] = {}
    for file in files:
        document = read_json(Path(file))
        named = names_by_id(document, "categories", file)
        groups = [record.get("supercategory") for record in document["categories"]]
        for k, (one, name) in enumerate(named.items()):
            others = groups[:k] + groups[k + 1 :]
            if not others or any(group != name for group in others) or _has_objects(document, one):
                names[name] = None
    return tuple(names)


def _has_objects(document: Any, category: Any) -> bool:
    """Tell whether a category has annotations, which need not be checked yet."""
    annotations = document.get("annotations")
    records = annotations if isinstance(annotations, list) else []
    return any(isinstance(record, dict) and record.get("category_id") == category for record in records)


def _taken_names(classes: Sequence[str], rename: Mapping[str, str]) -> list[str]:
    """Return all names of categories that `read_coco` takes for one of the classes."""
    return [*classes, *(name for name, own in rename.items() if own in classes)]


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


def coco_ids(
    annotation_file: str | Path,
    pictures: Sequence[str],
    classes: Sequence[str] = (),
    *,
    rename: Mapping[str, str] = COCO_TO_VOC,
    suffixes: bool = True,
) -> tuple[dict[str, int | str], dict[str, int | str]]:
    """Ids that a COCO annotation file gives to pictures and classes.

    Parameters
    ----------
    annotation_file : str or Path
        JSON document with ``images`` and, if there are classes, ``categories``.
    pictures : sequence of str
        Names of pictures: a picture of the same name is meant or, if there is none, the one of the same name without
        folders.
    classes : sequence of str
        Names of classes, as the file or `rename` has them.
    rename : mapping of str to str
        What the file's categories may also be called.
    suffixes : bool
        Whether the pictures are named with their suffixes.

    Returns
    -------
    dict of str to int or str
        Id of each picture.
    dict of str to int or str
        Id of each class.

    Raises
    ------
    AnnotationError
        If the file is missing or malformed, has no image or no category of a name, several images that may be meant,
        or one image for two pictures.
    """
    document = read_json(Path(annotation_file))
    files = names_by_id(document, "images", annotation_file)
    known = {one: forward_slashes(name if suffixes else without_suffix(name)) for one, name in files.items()}
    check_distinct(known, "images", annotation_file)
    id_of = {name: one for one, name in known.items()}
    meant = match_picture_names(pictures, id_of)
    if unknown := [name for name, found in meant.items() if not found]:
        raise AnnotationError(f"{annotation_file}: has no image called {unknown[0]!r} ({len(unknown)} such in all)")
    owner: dict[str, str] = {}
    for name, found in meant.items():
        if len(found) > 1:
            raise AnnotationError(
                f"{annotation_file}: {name!r} may be {found[0]!r} or {found[1]!r}; name pictures as the file does"
            )
        if (other := owner.setdefault(found[0], name)) != name:
            raise AnnotationError(f"{annotation_file}: has one image, {found[0]!r}, for {other!r} and {name!r}")
    images = {name: id_of[found[0]] for name, found in meant.items()}
    if not classes:
        return images, {}
    categories = {name: one for one, name in names_by_id(document, "categories", annotation_file).items()}
    categories = {rename.get(name, name): one for name, one in categories.items()} | categories
    if absent := [name for name in classes if name not in categories]:
        raise AnnotationError(
            f"{annotation_file}: has no category for {len(absent)} classes of the detections: {', '.join(absent[:10])}"
        )
    return images, {name: categories[name] for name in classes}


def _label(record: Mapping[str, Any], label_of: Mapping[Any, int]) -> int:
    """Return the label of an annotation that may be malformed; 0 if its category is not defined."""
    category = record.get("category_id")
    return label_of.get(category, 0) if type(category) in (int, float, str) else 0


def _image_problem(record: Mapping[str, Any]) -> str:
    """Say what is wrong with an image of an annotation file; "" if nothing is."""
    for key in ("file_name", "width", "height"):
        if key not in record:
            return f"{key!r} is missing"
    if not isinstance(record["file_name"], str) or not record["file_name"]:
        return f"file_name is not a name: {shorten_record(record['file_name'])}"
    for key in ("width", "height"):
        if not is_whole_number(record[key], 1):
            return f"{key} is not a whole number above 0: {shorten_record(record[key])}"
    names, exhaustive = record.get("labelled_classes"), record.get("exhaustive", True)
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        return f"labelled_classes is not a list of names: {shorten_record(names)}"
    return "" if isinstance(exhaustive, bool) else f"exhaustive is not true or false: {shorten_record(exhaustive)}"


def _picture_path(root: Path, name: str) -> Path:
    """Return the path of a picture, also of one whose name begins with the folder that `root` is itself."""
    path = root / name
    _, own, rest = f"/{name}".partition(f"/{root.name}/")
    # Looked for only if it may be the case: it takes longer than all else.
    return root / rest if own and root.name and not path.is_file() and (root / rest).is_file() else path


def _coco_picture(
    record: Mapping[str, Any],
    image_root: Path,
    boxes: NDArray[np.float64],
    labels: NDArray[np.int64],
    crowd: NDArray[np.bool_],
    index: Mapping[str, int],
    rename: Mapping[str, str],
    classes: tuple[str, ...],
) -> Picture:
    name, width, height = forward_slashes(record["file_name"]), int(record["width"]), int(record["height"])
    clipped = clip_boxes(boxes, width, height)
    whole = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])

    names, exhaustive = record.get("labelled_classes"), record.get("exhaustive", True)
    if names is None:
        boxed = set(range(len(index))) if exhaustive else set(labels.tolist())
    else:
        boxed = {index[n] for n in (n if n in index else rename.get(n, n) for n in names) if n in index}
    return Picture(
        image_id=without_suffix(name),
        path=_picture_path(image_root, name),
        width=width,
        height=height,
        boxes=clipped[whole],
        labels=labels[whole],
        difficult=np.zeros(int(whole.sum()), bool),
        crowd=crowd[whole],
        labelled=None if exhaustive and len(boxed) == len(index) else tuple(sorted(boxed)),
        exhaustive=exhaustive,
        classes=classes,
    )


_IMAGES = b'"images": [\n'  # The line after which each line is about an image.


def write_coco_detections(
    path: Path,
    entries: Iterable[tuple[str, int, int, Detections]],
    classes: tuple[str, ...],
    image_ids: Mapping[str, int | str] | None,
    category_ids: Mapping[str, int | str] | None,
) -> None:
    """Write the detections of pictures, as they come, as one COCO document."""
    _write_document(path, ((*entry, None) for entry in entries), classes, image_ids, category_ids)


def _write_document(
    path: Path,
    entries: Iterable[_Entry],
    classes: tuple[str, ...],
    image_ids: Mapping[str, int | str] | None,
    category_ids: Mapping[str, int | str] | None,
) -> None:
    # Annotations first: they are many and can go straight to the file, the lines on images wait. Those of many
    # pictures wait in a file beside it: elsewhere it might be in memory.
    with SpooledTemporaryFile(2**20, dir=str(path.parent)) as images:
        atomic_write(path, _document_pieces(entries, classes, image_ids, category_ids, images))


def _document_pieces(
    entries: Iterable[_Entry],
    classes: tuple[str, ...],
    image_ids: Mapping[str, int | str] | None,
    category_ids: Mapping[str, int | str] | None,
    images: IO[bytes],
) -> Iterator[bytes]:
    ids = category_ids or {name: i for i, name in enumerate(classes, start=1)}
    if missing := [name for name in classes if name not in ids]:
        raise DetectionError(f"category_ids has no id for {missing[0]!r}")
    categories = [{"id": ids[name], "name": name} for name in classes]
    id_texts = [json.dumps(ids[name]) for name in classes]
    yield b'{"categories": ' + json.dumps(categories).encode() + b',\n"annotations": ['
    count = 0
    for number, (name, width, height, found, masks) in enumerate(entries, start=1):
        if image_ids is not None and name not in image_ids:
            raise DetectionError(f"{name}: image_ids has no id for this picture")
        image_id = json.dumps(number if image_ids is None else image_ids[name])
        size = f'"width": {int(width)}, "height": {int(height)}'
        line = f'{{"id": {image_id}, "file_name": {json.dumps(str(name))}, {size}}}'
        images.write((",\n" if number > 1 else "").encode() + line.encode())
        lines = []
        rows = detection_rows(found, classes, name)
        for (category, score, (x, y, w, h)), own in zip(rows, _segments(found, width, height, masks), strict=True):
            count += 1
            lines.append(
                f'{{"id": {count}, "image_id": {image_id}, "category_id": {id_texts[category - 1]}, '
                f'"bbox": [{x:.9g}, {y:.9g}, {w:.9g}, {h:.9g}], "score": {score}, '
                f'{own}, "iscrowd": 0}}'
            )
        if lines:
            yield (",\n" if count > len(lines) else "\n").encode() + ",\n".join(lines).encode()
    yield b"\n],\n" + _IMAGES
    images.seek(0)
    yield from iter(lambda: images.read(2**20), b"")
    yield b"\n]}\n"


def _segments(found: Detections, width: int, height: int, masks: Sequence[bytes] | None) -> Iterator[str]:
    """Write the area and the segmentation of every detection: of its box, or of its mask."""
    if masks is None:
        for _, _, w, h in corners_to_sides(found.boxes).tolist():
            yield f'"area": {w * h:.9g}, "segmentation": []'
        return
    from pycocotools import mask

    areas = mask.area([{"size": [height, width], "counts": counts} for counts in masks])
    for area, counts in zip(areas, masks, strict=True):
        segment = {"size": [height, width], "counts": counts.decode("ascii")}
        yield f'"area": {area}, "segmentation": {json.dumps(segment)}'


def read_coco_names(path: Path) -> list[str]:
    """Names of the pictures of a document; of one that `write_coco_detections` wrote nothing else is in memory."""
    with open(path, "rb") as file:
        if any(line == _IMAGES for line in file):
            return [json.loads(line.rstrip(b",\n"))["file_name"] for line in file if line.startswith(b"{")]
        file.seek(0)
        return [image["file_name"] for image in json.load(file)["images"]]


def read_coco_detections(path: Path, key: str) -> dict[str, Detections]:
    """Read the detections of a document by the names of its pictures in the form `key` of `NAME_FORMS`."""
    return _by_picture(_load_document(path), key, path)


def read_coco_entries(path: Path) -> list[tuple[str, int, int, Detections]]:
    """Read the detections of a document with the names and sizes of its pictures."""
    return _entries_of(_load_document(path), path)


def _entries_of(document: dict[str, Any], path: Path) -> list[tuple[str, int, int, Detections]]:
    found = _by_picture(document, "file_name", path)
    entries = []
    for record, (name, one) in zip(document["images"], found.items(), strict=True):
        width, height = record.get("width", 0), record.get("height", 0)
        if not (is_whole_number(width) and is_whole_number(height)):
            sides = f"{shorten_record(width)} x {shorten_record(height)}"
            raise DetectionError(f"{path}: the size of {name!r} is {sides[:90]}, not two whole numbers")
        entries.append((name, int(width), int(height), one))
    return entries


# What a picture is called without, and how that is taken away.
NAME_FORMS: dict[str, tuple[str, Callable[[str], str]]] = {
    "stem": (" without folder and suffix", stem),
    "image_id": (" without suffix", lambda name: without_suffix(forward_slashes(name))),
    "file_name": ("", forward_slashes),
}


def _by_picture(document: dict[str, Any], key: str, path: Path) -> dict[str, Detections]:
    """Sort the annotations of a document by picture; `path` is for the errors."""
    form, shorten = NAME_FORMS[key]
    names = {one: shorten(name) for one, name in names_by_id(document, "images", path, DetectionError).items()}
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
    try:
        owners, labels = (
            record_positions(records, "image_id", position),
            record_positions(records, "category_id", label_of),
        )
        boxes, scores = record_boxes(records), number_array([record["score"] for record in records])
    except (KeyError, TypeError, ValueError, OverflowError):
        wrong = ((record, record_problem(record, position, label_of, scored=True)) for record in records)
        raise_bad_records([one for one in wrong if one[1]], "detection", path, DetectionError)
        raise
    return group_by_picture(list(names.values()), owners, boxes, scores, labels, tuple(categories.values()))


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
    names = {
        one: without_suffix(forward_slashes(name)) for one, name in names_by_id(document, "images", source).items()
    }
    check_distinct(names, "images", source, form=" without suffix")
    classes = _sorted_classes(document, source, AnnotationError)
    records = read_json(Path(path), DetectionError)
    if not isinstance(records, list):
        raise DetectionError(f"{path}: is not a list of COCO results; a document with its own images can be read alone")
    return _detections_of_records(records, names, classes, Path(path))


def write_coco_results(
    path: str | Path,
    detections: Mapping[str, Detections],
    annotation_file: str | Path,
    rename: Mapping[str, str] = COCO_TO_VOC,
) -> None:
    """Write a plain list of COCO results, as pycocotools and COCO's server take it.

    Parameters
    ----------
    path : str or Path
        The file. It appears under its name when it is complete.
    detections : mapping of str to Detections
        By name of the picture without suffix, the ``image_id`` of `read_coco`; without folders too, if need be.
    annotation_file : str or Path
        JSON document whose ``images`` and ``categories`` have the ids.
    rename : mapping of str to str
        What the file's categories may also be called.

    Raises
    ------
    AnnotationError
        If the annotation file is missing or malformed, or lacks a picture or a class.
    DetectionError
        If a number is not finite, or a box ends before it begins.
    OSError
        If the file cannot be written.

    References
    ----------
    https://cocodataset.org/#format-results

    Examples
    --------
    >>> import tempfile
    >>> images = {"images": [{"id": 7, "file_name": "a.jpg"}], "categories": [{"id": 5, "name": "airplane"}]}
    >>> found = Detections(np.float32([[2, 3, 6, 8]]), np.float32([0.5]), np.array([0]), ("aeroplane",))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "instances.json").write_text(json.dumps(images))
    ...     write_coco_results(f"{folder}/results.json", {"a": found}, f"{folder}/instances.json")
    ...     json.loads(Path(folder, "results.json").read_text())
    [{'image_id': 7, 'category_id': 5, 'bbox': [2, 3, 4, 5], 'score': 0.5}]
    """
    classes = tuple(dict.fromkeys(name for one in detections.values() for name in one.classes))
    images, categories = coco_ids(annotation_file, list(detections), classes, rename=rename, suffixes=False)
    lines = (
        f'{{"image_id": {json.dumps(images[name])}, "category_id": {json.dumps(categories[classes[category - 1]])}, '
        f'"bbox": [{x:.9g}, {y:.9g}, {w:.9g}, {h:.9g}], "score": {score}}}'
        for name, found in detections.items()
        for category, score, (x, y, w, h) in detection_rows(found, classes, name)
    )
    atomic_write(path, chain([b"["], _joined(lines), [b"]\n"]))


def _joined(lines: Iterable[str]) -> Iterator[bytes]:
    for i, line in enumerate(lines):
        yield (",\n" if i else "").encode() + line.encode()


def _load_document(path: Path) -> dict[str, Any]:
    document = read_json(path, DetectionError)
    if isinstance(document, list):
        raise DetectionError(
            f"{path}: is a list of results, not a COCO document: it says nothing of pictures and classes; "
            "read it together with the annotation file that has its ids"
        )
    record_list(document, "annotations", path, DetectionError)
    return document


_OBJECT = ("object",)


def write_coco_proposals(path: Path, pictures: Iterable[Proposals], image_ids: Mapping[str, int | str] | None) -> None:
    """Write ranked boxes, and their masks, as detections of the one class "object", see `write_coco_detections`."""
    entries = (
        (
            one.file,
            one.width,
            one.height,
            Detections(one.boxes, one.scores, np.zeros(len(one.scores), int), _OBJECT),
            one.masks,
        )
        for one in pictures
    )
    _write_document(path, entries, _OBJECT, image_ids, None)


def read_coco_proposals(path: Path) -> Iterator[Proposals]:
    """Yield the ranked boxes of the pictures of a document of detections, and their masks if all have one."""
    document = _load_document(path)
    entries = _entries_of(document, path)
    masks: dict[Any, list[bytes]] = {image["id"]: [] for image in document["images"]}
    for record in document["annotations"]:
        segment = record.get("segmentation")
        if isinstance(segment, dict) and isinstance(segment.get("counts"), str):
            masks[record["image_id"]].append(segment["counts"].encode("ascii"))
    masked = 0 < sum(map(len, masks.values())) == len(document["annotations"])
    for (name, width, height, found), own in zip(entries, masks.values(), strict=True):
        yield Proposals(name, width, height, found.boxes, found.scores.astype(np.float32), own if masked else None)
