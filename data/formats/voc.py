"""The files of the PASCAL VOC development kit: annotations in XML, and results in a text file for each class.

VOC counts pixels from 1 and includes both corners. Its annotations' form is ILSVRC's too, see `ilsvrc`.
"""

import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..classes import VOC_CLASSES
from ..detections import Detections, check_finite, group_by_picture, score_texts
from ..errors import AnnotationError, DetectionError
from ..picture import Picture
from ..system.atomic_files import atomic_write
from .records import read_rows, read_words


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
        In the order of the list, without repetitions. The picture files themselves are not read.

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
    classes = tuple(classes)
    index = {name: label for label, name in enumerate(classes)}
    listed = root / "ImageSets" / "Main" / f"{split}.txt"
    # Strings, since joining Path objects takes longer than parsing the file.
    return [
        read_annotation(
            os.path.join(root, "Annotations", f"{image_id}.xml"),
            image_id,
            Path(os.path.join(root, "JPEGImages", f"{image_id}.jpg")),
            index,
            listed,
            classes,
        )
        for image_id in _read_split(listed)
    ]


def _read_split(path: Path) -> Iterable[str]:
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in path.parent.glob("*.txt"))[:20])
        hint = f"splits there: {there}" if there else "is this the root of a VOC set, such as VOCdevkit/VOC2007?"
        raise AnnotationError(f"{path}: there is no such file; {hint}")
    # The lists of one class (cat_train.txt) have a second column, which says whether the class is there.
    return dict.fromkeys(words[0] for _, words in read_words(path))


def read_annotation(
    path: str,
    image_id: str,
    image: Path,
    index: Mapping[str, int],
    listed: Path,
    classes: tuple[str, ...],
    smallest: float = 1,
) -> Picture:
    """Read an annotation in VOC's form that the file `listed` names.

    `index` has the labels of the names that the annotation uses, `classes` the names of the labels. `smallest` is the
    least width and height that a box may have.
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

    width, height = (int(_parse_coordinate(document, f"size/{side}", path)) for side in ("width", "height"))
    if width <= 0 or height <= 0:
        raise AnnotationError(f"{path}: the size is {width} x {height}; both must be above 0")
    boxes, labels, difficult = [], [], []
    for item in document.iterfind("object"):
        name = (item.findtext("name") or "").strip()
        if not name:
            raise AnnotationError(f"{path}: an object has no <name>")
        if name not in index:
            continue
        x1, y1, x2, y2 = (_parse_coordinate(item, f"bndbox/{side}", path) for side in ("xmin", "ymin", "xmax", "ymax"))
        if min(x2 - x1, y2 - y1) + 1 < smallest:
            raise AnnotationError(f"{path}: the box of a {name} ends before it begins: {x1:g} {y1:g} {x2:g} {y2:g}")
        boxes.append((x1 - 1, y1 - 1, x2, y2))
        labels.append(index[name])
        # Third-party tools leave the flag out.
        difficult.append(item.find("difficult") is not None and _parse_coordinate(item, "difficult", path) != 0)
    return Picture(
        image_id=image_id,
        path=image,
        width=width,
        height=height,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        difficult=np.array(difficult, bool),
        crowd=np.zeros(len(boxes), bool),
        classes=classes,
    )


def _parse_coordinate(element: ElementTree.Element, tag: str, path: str) -> float:
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
        owner, table, _ = read_rows(path, "image_id score xmin ymin xmax ymax", names)
        tables.append(table)
        owners.append(owner)
        labels.append(np.full(len(table), label))
    table = np.concatenate(tables)
    boxes = table[:, 1:] - [1, 1, 0, 0]
    return group_by_picture(
        list(names), np.concatenate(owners), boxes, table[:, 0], np.concatenate(labels), tuple(classes)
    )


def write_voc_results(
    folder: str | Path, detections: Mapping[str, Detections], prefix: str = "comp4_det_test_"
) -> None:
    """Write VOC result files, one for every class, as the development kit takes them.

    Parameters
    ----------
    folder : str or Path
        Where to write ``<prefix><class>.txt``; made if missing.
    detections : mapping of str to Detections
        By image id. All must have the same `classes`. Lines are sorted by image id, each picture's detections in their
        order: the kit takes equal scores in the order of the lines, and its image sets are sorted.
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
    for image_id, found in sorted(detections.items()):
        check_finite(found, image_id)
        rows = zip(found.labels.tolist(), score_texts(found), found.boxes.tolist(), strict=True)
        for label, score, (x1, y1, x2, y2) in rows:
            lines[label].append(f"{image_id} {score} {x1 + 1:.6f} {y1 + 1:.6f} {x2:.6f} {y2:.6f}\n")
    for name, text in zip(classes, lines, strict=True):
        atomic_write(Path(folder, f"{prefix}{name}.txt"), "".join(text))
