"""The files of the PASCAL VOC development kit: annotations in XML, and results in a text file for each class.

VOC counts pixels from 1 and includes both corners. Its annotations' form is ILSVRC's too, see `ilsvrc`.
"""

import os
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..arguments import check_names
from ..classes import VOC_CLASSES
from ..classes.spelling import warn_of_dropped_classes
from ..detections import Detections, check_finite, group_by_picture, score_texts
from ..errors import AnnotationError, DetectionError, ImageError, did_you_mean
from ..picture import Picture
from ..picture_names import PictureFolder, as_text
from ..system.atomic_files import atomic_write
from .faults import raise_faults
from .records import read_lines, read_rows


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
        In the order of the list, without repetitions. The picture files themselves are not read. Their suffix is that
        of ``<filename>`` if there is such a file, else that of the file that is there; ``.jpg`` if there is none. A
        size that the annotation does not say, or says to be 0, is 0 x 0.

    Raises
    ------
    AnnotationError
        If the list or an annotation is missing or malformed, or a picture's name means several files; all such faults
        are told in one error. An annotation with a document type declaration is refused, since entities in one can
        unfold without bound.

    Warns
    -----
    DataWarning
        If objects are left out; a `MisspeltClassWarning` if their class is asked for in another spelling.

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
    classes = check_names("classes", classes)
    root = Path(root)
    listed = root / "ImageSets" / "Main" / f"{split}.txt"
    index = {name: label for label, name in enumerate(classes)}
    reader = AnnotationReader(index, classes, PictureFolder(root / "JPEGImages"))
    # Strings, since joining Path objects takes longer than parsing the file.
    folder = os.path.join(root, "Annotations")
    pictures = [
        reader.read(os.path.join(folder, f"{image_id}.xml"), image_id, listed) for image_id in _read_split(listed)
    ]
    reader.check(listed)
    warn_of_dropped_classes(listed, reader.dropped, classes)
    return pictures


def _read_split(path: Path) -> Iterable[str]:
    if not path.is_file():
        there = sorted(file.stem for file in path.parent.glob("*.txt"))
        hint = "is this the root of a VOC set, such as VOCdevkit/VOC2007?"
        if there:
            hint = f"splits there: {', '.join(there[:20])}{did_you_mean(path.stem, there)}"
        raise AnnotationError(f"{path}: there is no such file; {hint}")
    annotations = os.path.join(path.parents[2], "Annotations")
    names: dict[str, None] = {}
    for _, line in read_lines(path):
        # The lists of one class (cat_train.txt) have a second column, which says whether the class is there; but the
        # last word may also be a part of the name.
        name, *more = line.rsplit(maxsplit=1)
        flagged = more in (["-1"], ["0"], ["1"]) and not os.path.exists(os.path.join(annotations, f"{line}.xml"))
        names[name if flagged else line] = None
    return names


_FLAGS = {"": False, "0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


class AnnotationReader:
    """Reads annotations in VOC's form, and collects what is wrong with them and what is left out.

    Parameters
    ----------
    index : mapping of str to int
        The labels of the names that the annotations use.
    classes : tuple of str
        The names of the labels.
    images : PictureFolder
        The pictures.
    suffix : str
        Of a picture that is not there.
    smallest : float
        The least width and height that a box may have.

    Attributes
    ----------
    faults : list of str
    dropped : Counter of str
        Number of objects by name that are left out.
    """

    def __init__(
        self,
        index: Mapping[str, int],
        classes: tuple[str, ...],
        images: PictureFolder,
        suffix: str = ".jpg",
        smallest: float = 1,
    ) -> None:
        self.index, self.classes, self.images, self.suffix, self.smallest = index, classes, images, suffix, smallest
        self.faults: list[str] = []
        self.dropped: Counter[str] = Counter()

    def read(self, path: str, image_id: str, listed: Path) -> Picture:
        """Read one annotation, that the file `listed` names; of a faulty one, what can be read of it."""
        boxes: list[tuple[float, ...]] = []
        labels, difficult = [], []
        size, image = (0, 0), ""
        try:
            document = _read_xml(path, listed)
            image = self.images.path(image_id, (document.findtext("filename") or "").strip(), self.suffix)
            size = _parse_size(document, path)
        except (AnnotationError, ImageError) as error:
            self.faults.append(str(error))
            document = ElementTree.Element("annotation")
        for item in document.iterfind("object"):
            name = (item.findtext("name") or "").strip()
            if name not in self.index:
                if name:
                    self.dropped[name] += 1
                else:
                    self.faults.append(f"{path}: an object has no <name>")
                continue
            try:
                box, flag = self._parse_box(item, name, path), _parse_flag(item, "difficult", path)
            except AnnotationError as error:
                self.faults.append(str(error))
                continue
            boxes.append(box)
            labels.append(self.index[name])
            difficult.append(flag)
        return Picture(
            image_id=image_id,
            path=Path(image),
            width=size[0],
            height=size[1],
            boxes=np.array(boxes, np.float32).reshape(-1, 4),
            labels=np.array(labels, np.int64),
            difficult=np.array(difficult, bool),
            crowd=np.zeros(len(boxes), bool),
            classes=self.classes,
        )

    def check(self, listed: Path) -> None:
        """Raise one error for all faults."""
        raise_faults(self.faults, listed, "correct it, or take the picture out of the list")

    def _parse_box(self, item: ElementTree.Element, name: str, path: str) -> tuple[float, ...]:
        # Found once: a path of tags takes several times as long.
        boxes = item.findall("bndbox")
        if len(boxes) > 1:
            raise AnnotationError(f"{path}: a {name} has {len(boxes)} boxes; give each box an <object> of its own")
        box = boxes[0] if boxes else None
        x1, y1, x2, y2 = (_parse_number(box, side, path, "bndbox") for side in ("xmin", "ymin", "xmax", "ymax"))
        if min(x2 - x1, y2 - y1) + 1 < self.smallest:
            raise AnnotationError(f"{path}: the box of a {name} ends before it begins: {x1:g} {y1:g} {x2:g} {y2:g}")
        return x1 - 1, y1 - 1, x2, y2


def _read_xml(path: str, listed: Path) -> ElementTree.Element:
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
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise AnnotationError(f"{path}: is not well-formed XML ({error})") from error


def _parse_size(document: ElementTree.Element, path: str) -> tuple[int, int]:
    """Return width and height; 0 x 0 if the annotation does not say both, as 0 or nothing does not."""
    size = document.find("size")
    if size is None or not (size.findtext("width", "").strip() and size.findtext("height", "").strip()):
        return 0, 0
    width, height = (_parse_number(size, side, path, "size") for side in ("width", "height"))
    if min(width, height) < 0 or width % 1 or height % 1:
        raise AnnotationError(f"{path}: the size is {width:g} x {height:g}, not two whole numbers; it may be left out")
    return (int(width), int(height)) if width and height else (0, 0)


def _parse_flag(element: ElementTree.Element, tag: str, path: str) -> bool:
    # Third-party tools leave the flag out.
    text = (element.findtext(tag) or "").strip()
    flag = _FLAGS.get(text.lower())
    if flag is None:
        raise AnnotationError(f"{path}: <{tag}> is {text[:40]!r}, not 0, 1, false or true")
    return flag


def _parse_number(element: ElementTree.Element | None, tag: str, path: str, parent: str) -> float:
    text = None if element is None else element.findtext(tag)
    try:
        value = float(text or "")
    except ValueError:
        value = np.nan
    # Also false for nan; further out no picture reaches. Python would take 1_0 for 10.
    if not -(2**31) < value < 2**31 or "_" in (text or ""):
        problem = "is missing" if text is None else f"is {text.strip()[:40]!r}, not a number that a picture can have"
        raise AnnotationError(f"{path}: <{parent}><{tag}> {problem}")
    return value


# What XML cannot hold.
_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def voc_annotation(found: Detections, file: str, folder: str, width: int, height: int) -> str:
    """Write the detections of a picture as an annotation in VOC's form, with the fields that LabelImg writes.

    Parameters
    ----------
    found : Detections
        There is no place for their scores. Corners are rounded to whole pixels inside the picture; every box has one.
    file, folder : str
        Name of the picture's file, and of the folder that it is in.
    width, height : int
        Of the picture, in pixels.

    Returns
    -------
    str
        The XML file.

    References
    ----------
    https://github.com/HumanSignal/labelImg/blob/master/libs/pascal_voc_io.py

    Examples
    --------
    >>> found = Detections(np.array([[0, 0, 20, 10]], np.float32), np.ones(1), np.array([0]), ("cat",))
    >>> voc_annotation(found, "a.jpg", "photos", 20, 10).split()[-5:-3]
    ['<xmax>20</xmax>', '<ymax>10</ymax>']
    """
    size = np.array([width, height])
    corners = np.rint(found.boxes.astype(np.float64)).astype(np.int64)
    first = np.clip(corners[:, :2] + 1, 1, size)
    last = np.clip(corners[:, 2:], first, size)
    cut = (first == 1).any(axis=1) | (last == size).any(axis=1)

    def add(parent: ElementTree.Element, **fields: object) -> ElementTree.Element:
        for tag, value in fields.items():
            parent.append(element := ElementTree.Element(tag))
            element.text = _NOT_XML.sub("?", as_text(str(value)))
        return parent

    root = add(ElementTree.Element("annotation"), folder=folder, filename=file)
    add(ElementTree.SubElement(root, "source"), database="Unknown")
    add(ElementTree.SubElement(root, "size"), width=width, height=height, depth=3)
    add(root, segmented=0)
    for name, (xmin, ymin), (xmax, ymax), truncated in zip(found.names, first, last, cut, strict=True):
        item = ElementTree.SubElement(root, "object")
        add(item, name=name, pose="Unspecified", truncated=int(truncated), difficult=0)
        add(ElementTree.SubElement(item, "bndbox"), xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax)
    ElementTree.indent(root, "\t")
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def voc_result_files(folder: str | Path, prefix: str = "comp4_det_test_") -> dict[str, Path]:
    """Find the result files of a folder, by class: ``<prefix><class>.txt``, or such names with a salt in them.

    py-faster-rcnn and its successors write ``comp4_<salt>_det_test_<class>.txt``, so that the runs of several people do
    not overwrite each other.

    Raises
    ------
    DetectionError
        If there are only files with salts, and of several.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Path(folder, "comp4_0d6d_det_test_cat.txt").touch()
    ...     [(name, path.name) for name, path in voc_result_files(folder).items()]
    [('cat', 'comp4_0d6d_det_test_cat.txt')]
    """
    competition, _, rest = prefix.partition("_")
    form = re.compile(rf"{re.escape(competition)}_(?:([^_]+)_)?{re.escape(rest)}(.+)\.txt")
    by_salt: dict[str, dict[str, Path]] = {}
    for path in sorted(Path(folder).iterdir()) if os.path.isdir(folder) else ():
        if match := form.fullmatch(path.name):
            by_salt.setdefault(match[1] or "", {})[match[2]] = path
    if "" in by_salt or len(by_salt) < 2:
        return by_salt.get("", next(iter(by_salt.values()), {}))
    runs = ", ".join(f"{competition}_{salt}_{rest}" for salt in list(by_salt)[:10])
    raise DetectionError(f"{folder}: has the results of {len(by_salt)} runs ({runs}); give each its own folder")


def read_voc_results(
    folder: str | Path, classes: Sequence[str] = VOC_CLASSES, prefix: str = "comp4_det_test_"
) -> dict[str, Detections]:
    """Read a folder of VOC result files, one per class, with lines ``image_id score xmin ymin xmax ymax``.

    Parameters
    ----------
    folder : str or Path
        Folder with files as `voc_result_files` finds them.
    classes : sequence of str
        Classes to look for. A class without a file, or with an empty one, has no detections.
    prefix : str
        Competition and split: ``"comp4_det_test_"``, ``"comp3_det_val_"``.

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
    classes = check_names("classes", classes)
    there = voc_result_files(folder, prefix)
    files = {label: there[name] for label, name in enumerate(classes) if name in there}
    if not files:
        raise DetectionError(f"{folder}: has no file {prefix}<class>.txt for any of the classes; check the folder")
    warn_of_dropped_classes(folder, Counter(there.keys()), classes, "file")
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


def read_voc_class_names(root: str | Path, split: str) -> tuple[str, ...]:
    """Read what classes the objects of a split have, sorted by name.

    Raises
    ------
    AnnotationError
        If an annotation cannot be read.
    """
    listed = Path(root, "ImageSets", "Main", f"{split}.txt")
    files = (os.path.join(root, "Annotations", f"{image_id}.xml") for image_id in _read_split(listed))
    return read_xml_class_names(files, listed)


def read_xml_class_names(files: Iterable[str | Path], listed: Path) -> tuple[str, ...]:
    """Read what classes the objects of annotations have, sorted by name; `listed` is what names the files.

    Raises
    ------
    AnnotationError
        If an annotation cannot be read.
    """
    names: set[str] = set()
    for file in files:
        document = _read_xml(os.fspath(file), listed)
        names.update((item.findtext("name") or "").strip() for item in document.iterfind("object"))
    return tuple(sorted(names - {""}))
