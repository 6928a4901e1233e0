"""What is in which picture: readers for PASCAL VOC's folders and COCO's JSON, to a list of `Picture`.

ILSVRC's are in `ilsvrc`.
"""

import json
import os
import reprlib
import xml.etree.ElementTree as ElementTree
from array import array
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..boxes import clip_boxes
from ..classes import COCO_TO_VOC, VOC_CLASSES

__all__ = ["AnnotationError", "Picture", "read_coco", "read_coco_ids", "read_voc"]


_LARGEST = float(np.finfo(np.float32).max)


class AnnotationError(ValueError):
    """An annotation file is missing or malformed; the text is one line: which file, what is wrong."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One annotated picture. The pixels stay in the file.

    Attributes
    ----------
    image_id : str
        Name of the picture in its set: the file's name without the suffix.
    path : Path
        The picture file; it need not exist to evaluate detections.
    width, height : int
        Size in pixels.
    boxes : ndarray of float32, shape (N, 4)
        The objects, ``x1 y1 x2 y2`` in pixels, continuous, 0-based.
    labels : ndarray of int64, shape (N,)
        Index of each object's class in the list of classes that the reader was given.
    difficult : ndarray of bool, shape (N,)
        Objects that count neither as hits nor as misses (VOC).
    crowd : ndarray of bool, shape (N,)
        Boxes around many objects at once (COCO).
    labelled : tuple of int or None
        None if every object of every class is boxed. Otherwise the classes that are boxed at all: of the
        other classes there may be unboxed objects.
    exhaustive : bool
        False if even of the classes that are boxed some objects may be unboxed.
    """

    image_id: str
    path: Path
    width: int
    height: int
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    difficult: NDArray[np.bool_]
    crowd: NDArray[np.bool_]
    labelled: tuple[int, ...] | None = None
    exhaustive: bool = True


def read_voc(root: str | Path, split: str, classes: Sequence[str] = VOC_CLASSES) -> list[Picture]:
    """Read one split of a set in the layout of the PASCAL VOC development kit.

    VOC counts pixels from 1 and includes both corners; the boxes come out as ``xmin - 1, ymin - 1, xmax,
    ymax``. They are not clipped: the official evaluation does not clip either.

    Parameters
    ----------
    root : str or Path
        Folder with ``JPEGImages``, ``Annotations`` and ``ImageSets/Main``, such as ``VOCdevkit/VOC2007``.
    split : str
        Name of a list in ``ImageSets/Main``: "train", "val", "trainval", "test".
    classes : sequence of str
        Classes to read; objects of others are left out.

    Returns
    -------
    list of Picture
        In the order of the list, without repetitions. The picture files themselves are not looked at.

    Raises
    ------
    AnnotationError
        If the list or an annotation is missing or malformed. An annotation with a document type declaration
        is refused, since entities in one can unfold without bound.

    References
    ----------
    Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     root = Path(folder)
    ...     (root / "ImageSets/Main").mkdir(parents=True)
    ...     (root / "Annotations").mkdir()
    ...     _ = (root / "ImageSets/Main/val.txt").write_text("000001")
    ...     _ = (root / "Annotations/000001.xml").write_text(
    ...         "<annotation><size><width>20</width><height>10</height></size><object><name>cat</name>"
    ...         "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>20</xmax><ymax>10</ymax></bndbox></object>"
    ...         "</annotation>")
    ...     picture, = read_voc(root, "val")
    >>> picture.image_id, picture.boxes.tolist(), VOC_CLASSES[picture.labels[0]]
    ('000001', [[0.0, 0.0, 20.0, 10.0]], 'cat')
    """
    root = Path(root)
    index = {name: label for label, name in enumerate(classes)}
    listed = root / "ImageSets" / "Main" / f"{split}.txt"
    # Strings, since joining Path objects takes longer than parsing the file.
    return [
        _read_xml(
            os.path.join(root, "Annotations", f"{image_id}.xml"),
            image_id,
            Path(os.path.join(root, "JPEGImages", f"{image_id}.jpg")),
            index,
            listed,
        )
        for image_id in _read_split(listed)
    ]


def _read_split(path: Path) -> Iterable[str]:
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in path.parent.glob("*.txt"))[:20])
        hint = f"splits there: {there}" if there else "is this the root of a VOC set, such as VOCdevkit/VOC2007?"
        raise AnnotationError(f"{path}: there is no such file; {hint}")
    # The lists of one class (cat_train.txt) have a second column, which says whether the class is there.
    return dict.fromkeys(words[0] for _, words in _read_words(path))


def _read_words(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the words of every line that is not empty."""
    try:
        # A byte order mark, as some editors write it, is no part of the first word.
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if words := line.split():
                    yield number, words
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read ({error.strerror}); check its name") from error
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path}: is not a text file in UTF-8; one image id a line is expected") from error


def _read_xml(
    path: str, image_id: str, image: Path, index: Mapping[str, int], listed: Path, smallest: float = 1
) -> Picture:
    """Read an annotation in VOC's form that the file `listed` names.

    `smallest` is the least width and height that a box may have.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    # A ValueError: the name has a zero byte.
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AnnotationError(f"{path}: cannot be read ({reason}); {listed} names it") from error
    # A zero byte is UTF-16 or UTF-32, in which the declaration would not be seen.
    if b"<!DOCTYPE" in data or b"\0" in data:
        raise AnnotationError(f"{path}: has a document type declaration or is not UTF-8; plain XML is expected")
    try:
        document = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise AnnotationError(f"{path}: is not well-formed XML ({error})") from error

    width, height = (int(_number(document, f"size/{side}", path)) for side in ("width", "height"))
    if width <= 0 or height <= 0:
        raise AnnotationError(f"{path}: the size is {width} x {height}; both must be above 0")
    boxes, labels, difficult = [], [], []
    for item in document.iterfind("object"):
        name = (item.findtext("name") or "").strip()
        if not name:
            raise AnnotationError(f"{path}: an object has no <name>")
        if name not in index:
            continue
        x1, y1, x2, y2 = (_number(item, f"bndbox/{side}", path) for side in ("xmin", "ymin", "xmax", "ymax"))
        if min(x2 - x1, y2 - y1) + 1 < smallest:
            raise AnnotationError(f"{path}: the box of a {name} ends before it begins: {x1:g} {y1:g} {x2:g} {y2:g}")
        boxes.append((x1 - 1, y1 - 1, x2, y2))
        labels.append(index[name])
        # Third-party tools leave the flag out.
        difficult.append(item.find("difficult") is not None and _number(item, "difficult", path) != 0)
    return Picture(
        image_id=image_id,
        path=image,
        width=width,
        height=height,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        difficult=np.array(difficult, bool),
        crowd=np.zeros(len(boxes), bool),
    )


def _number(element: ElementTree.Element, tag: str, path: str) -> float:
    text = element.findtext(tag)
    try:
        value = float(text or "")
    except ValueError:
        value = np.nan
    # Also false for nan; further out no picture reaches.
    if not abs(value) < 2**31:
        problem = "is missing" if text is None else f"is {text.strip()[:40]!r}, not a number that a picture can have"
        raise AnnotationError(f"{path}: <{tag.replace('/', '><')}> {problem}")
    return value


def read_coco(
    annotation_file: str | Path,
    image_root: str | Path,
    classes: Sequence[str] = VOC_CLASSES,
    rename: Mapping[str, str] | None = COCO_TO_VOC,
) -> list[Picture]:
    """Read a COCO annotation file.

    Two fields that COCO does not have are understood on each image: ``labelled_classes``, the names of the
    classes that are boxed in it, and ``exhaustive``, false if even of those some objects may be unboxed.

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
        looked at.

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
    return _coco_pictures(_read_json(Path(annotation_file)), annotation_file, image_root, classes, rename)


def _coco_pictures(
    document: Any,
    annotation_file: str | Path,
    image_root: str | Path,
    classes: Sequence[str],
    rename: Mapping[str, str] | None,
) -> list[Picture]:
    """Pictures of a COCO file that was read; see `read_coco`."""
    images, annotations, categories = (
        _records(document, key, annotation_file) for key in ("images", "annotations", "categories")
    )
    index = {name: label for label, name in enumerate(classes)}
    rename = rename or {}
    # -1 for a category that is not asked for, so that one that the file never defines is still noticed.
    label_of = {
        _field(record, "id", "categories", annotation_file): index.get(rename.get(str(name), str(name)), -1)
        for record in categories
        for name in [_field(record, "name", "categories", annotation_file)]
    }
    if max(label_of.values(), default=-1) < 0:
        raise AnnotationError(f"{annotation_file}: none of its categories is among the classes {', '.join(classes)}")
    position = {_field(record, "id", "images", annotation_file): i for i, record in enumerate(images)}
    if len(position) < len(images):
        raise AnnotationError(f"{annotation_file}: two images have the same id")

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
        table, bad = _table(numbers, 4)
        if bad >= 0:
            record = kept[bad]
            raise ValueError("a number in it is not finite, or a side negative")
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        problem = _problem(record, position, label_of)
        raise AnnotationError(f"{annotation_file}: bad annotation {_shown(record)}: {problem}") from error

    # One sort and a cut per picture, where a search per picture would take minutes on COCO's 118,000.
    owners = np.array(owner, np.int64)
    order = np.argsort(owners, kind="stable")
    ends = np.cumsum(np.bincount(owners, minlength=len(images))).tolist()
    label_array, crowd_array = np.array(labels, np.int64), np.array(crowd, bool)
    pictures = []
    for image, start, end in zip(images, [0, *ends], ends, strict=False):
        own = order[start:end]
        objects = table[own], label_array[own], crowd_array[own]
        pictures.append(_coco_picture(image, Path(image_root), *objects, index, rename, annotation_file))
    if len({picture.image_id for picture in pictures}) < len(pictures):
        (twice, _), *_ = Counter(picture.image_id for picture in pictures).most_common(1)
        raise AnnotationError(f"{annotation_file}: two images are called {twice!r}; give every picture its own name")
    return pictures


def read_coco_ids(annotation_file: str | Path) -> dict[str, int]:
    """Read which id a COCO annotation file gives to which picture.

    Parameters
    ----------
    annotation_file : str or Path
        JSON document with ``images``; neither objects nor categories are looked at.

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
    ids: dict[str, int] = {}
    for record in _records(_read_json(Path(annotation_file)), "images", annotation_file):
        name = str(_field(record, "file_name", "images", annotation_file)).replace("\\", "/").rsplit("/", 1)[-1]
        if name in ids:
            raise AnnotationError(f"{annotation_file}: two images are called {name!r}; their ids cannot be told apart")
        ids[name] = _field(record, "id", "images", annotation_file)
    return ids


def _coco_picture(
    record: Mapping[str, Any],
    image_root: Path,
    boxes: NDArray[np.float64],
    labels: NDArray[np.int64],
    crowd: NDArray[np.bool_],
    index: Mapping[str, int],
    rename: Mapping[str, str],
    source: str | Path,
) -> Picture:
    try:
        name, width, height = str(record["file_name"]), int(record["width"]), int(record["height"])
        if not name or not (0 < width < 2**31 and 0 < height < 2**31):
            raise ValueError("no name or no size")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise AnnotationError(
            f"{source}: bad image {_shown(record)}: it needs a file_name, and a width and a height above 0"
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
        image_id=_image_id(name),
        path=image_root / name,
        width=width,
        height=height,
        boxes=clipped[whole],
        labels=labels[whole],
        difficult=np.zeros(int(whole.sum()), bool),
        crowd=crowd[whole],
        labelled=None if exhaustive and len(boxed) == len(index) else tuple(sorted(boxed)),
        exhaustive=bool(exhaustive),
    )


def _image_id(file_name: str) -> str:
    return os.path.splitext(file_name)[0]


def _table(numbers: "array[float]", columns: int, first: int = 0, slack: float = 0) -> tuple[NDArray[np.float64], int]:
    """Rows of numbers, ``x1 y1 x2 y2`` from column `first` on, and the first bad one (-1: there is none).

    Bad is a number that is no finite float32, and a box that ends more than `slack` before it begins.
    """
    table = np.array(numbers).reshape(-1, columns)
    with np.errstate(over="ignore"):  # becomes an infinity
        bad = ~np.isfinite(table.astype(np.float32)).all(axis=1)
    bad |= (table[:, first + 2 : first + 4] < table[:, first : first + 2] - slack).any(axis=1)
    return table, int(bad.argmax()) if bad.any() else -1


def _problem(record: Any, images: Container[Any], categories: Container[Any], scored: bool = False) -> str:
    """Say what is wrong with an annotation of COCO's or, with a score, a detection; "" if nothing is.

    `images` and `categories` are the ids that there are.
    """
    if not isinstance(record, dict):
        return "an object with image_id, category_id and bbox is expected"
    for key, known in (("image_id", images), ("category_id", categories)):
        if key not in record:
            return f"{key!r} is missing"
        if not isinstance(record[key], (int, float, str)):
            return f"{key} is neither a number nor a text"
        if record[key] not in known:
            return f"{key} {_shown(record[key])} is not defined"
    if "bbox" not in record:
        return "'bbox' is missing"
    box = record["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(side, (int, float)) for side in box):
        return "bbox must be [x, y, width, height], four numbers"
    if not all(map(_is_finite, box)) or not _is_finite(box[0] + box[2]) or not _is_finite(box[1] + box[3]):
        return "bbox has a number that is not finite, or too large"
    if min(box[2:]) < 0:
        return "bbox has a negative width or height"
    if not scored:
        return ""
    if "score" not in record:
        return "'score' is missing"
    if not isinstance(record["score"], (int, float)):
        return "score is not a number"
    return "" if _is_finite(record["score"]) else "score is not finite, or too large"


def _is_finite(number: float) -> bool:
    """Tell whether a number is one in float32 too; false for nan."""
    return bool(-_LARGEST <= number <= _LARGEST)


def _shown(record: Any) -> str:
    """Write a record of a document in short, however long or deep it is."""
    short = reprlib.Repr()
    short.maxdict, short.maxstring = 12, 60
    return short.repr(record)[:200]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read ({error.strerror}); check its name") from error
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{path}: is not well-formed JSON ({error})") from error


def _records(document: Any, key: str, source: str | Path) -> list[dict[str, Any]]:
    records = document.get(key) if isinstance(document, dict) else None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise AnnotationError(f"{source}: has no list of objects {key!r}; a COCO annotation file is expected")
    return records


def _field(record: Mapping[str, Any], key: str, kind: str, source: str | Path) -> Any:
    value = record.get(key)
    if not isinstance(value, (int, str)):
        raise AnnotationError(f"{source}: an entry of {kind!r} has no {key!r}: {_shown(record)}")
    return value
