"""The files of the ILSVRC detection challenge (DET): annotations, lists of images, results, blacklist, classes.

The kit names images in its lists and annotations and numbers them in results and in the blacklist; a list of images
(``val.txt``) has both. Classes are WordNet ids in annotations and the blacklist, numbers from 1 in results, and
their English names to us: ``classes`` is everywhere a mapping of WordNet id to name in the order of the numbers.

Boxes are read and written as in VOC, with pixels counted from 1 and both corners included. The kit computes with
``xmax - xmin + 1`` and never says where it counts from (some of its annotations have 0): where annotations and
results agree, as they have to, both are shifted alike and no overlap changes.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from ..classes import ILSVRC_DET_CLASSES
from ..detections import Detections, detection_rows, group_by_picture
from ..errors import AnnotationError, DetectionError, MatlabFileError
from ..picture import Picture
from ..system.atomic_files import atomic_write
from .matlab5 import read_matlab
from .records import read_rows, read_words
from .voc import read_annotation


def read_ilsvrc(
    annotations: str | Path,
    image_list: str | Path | None = None,
    classes: Mapping[str, str] = ILSVRC_DET_CLASSES,
    image_root: str | Path | None = None,
) -> list[Picture]:
    """Read annotations of the ILSVRC detection challenge.

    Parameters
    ----------
    annotations : str or Path
        Folder of XML files, such as ``ILSVRC/Annotations/DET/val``, with sub-folders or without.
    image_list : str or Path, optional
        List of the images to read, one a line, such as ``ImageSets/DET/val.txt``; a second column does not
        matter. Without it all XML files below the folder are read, sorted by name.
    classes : mapping of str to str
        WordNet id to name; labels are positions in it. Objects of other classes are left out.
    image_root : str or Path, optional
        Folder of the pictures. By default where the kit has them: "Data" in place of "Annotations" in the name
        of the annotations' folder.

    Returns
    -------
    list of Picture
        In the order of the list. ``image_id`` is the image's name there, with folders, without a suffix. No
        object is difficult. A box without a pixel (``xmax = xmin - 1``), of which the training set has a few, is
        kept: the kit counts it as an object that nothing can find. The picture files themselves are not
        read.

    Raises
    ------
    AnnotationError
        If the list or an annotation is missing or malformed (training images without objects have none in the
        kit), the list names an image twice, or there is no XML file at all.

    References
    ----------
    Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015; readme.txt of the
    ILSVRC 2015 development kit, section 2.2.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "ILSVRC2012_val_00000001.xml").write_text(
    ...         "<annotation><size><width>20</width><height>10</height></size><object><name>n02219486</name>"
    ...         "<bndbox><xmin>1</xmin><xmax>20</xmax><ymin>1</ymin><ymax>10</ymax></bndbox></object>"
    ...         "</annotation>")
    ...     picture, = read_ilsvrc(folder)
    >>> picture.image_id, picture.boxes.tolist(), list(ILSVRC_DET_CLASSES.values())[picture.labels[0]]
    ('ILSVRC2012_val_00000001', [[0.0, 0.0, 20.0, 10.0]], 'ant')
    """
    annotations = Path(annotations)
    if image_root is None:
        image_root = Path(*("Data" if part == "Annotations" else part for part in annotations.parts))
    listed = annotations if image_list is None else Path(image_list)
    index = {wnid: label for label, wnid in enumerate(classes)}
    names = tuple(classes.values())
    return [
        read_annotation(
            os.path.join(annotations, f"{name}.xml"),
            name,
            Path(os.path.join(image_root, f"{name}.JPEG")),
            index,
            listed,
            names,
            smallest=0,
        )
        for _, name, _ in _listed_images(listed)
    ]


def read_ilsvrc_list(path: str | Path) -> dict[str, int]:
    r"""Read which number every image has in results and in the blacklist.

    Parameters
    ----------
    path : str or Path
        List of images with lines ``name number``, such as ``ImageSets/DET/val.txt``, or only ``name``: then
        they are numbered from 1. Or a folder of XML files, which are numbered from 1, sorted by name.

    Returns
    -------
    dict of str to int
        By name, which is the ``image_id`` of `read_ilsvrc`, in the order of the list.

    Raises
    ------
    AnnotationError
        If the list is missing or malformed, or two images have the same name or number.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "val.txt").write_text("ILSVRC2012_val_00000001 1\nILSVRC2012_val_00000018 18\n")
    ...     read_ilsvrc_list(f"{folder}/val.txt")
    {'ILSVRC2012_val_00000001': 1, 'ILSVRC2012_val_00000018': 18}
    """
    path = Path(path)
    images = list(_listed_images(path))
    counted = not any(text for _, _, text in images)
    numbers: dict[str, int] = {}
    seen: dict[int, str] = {}
    for line, name, text in images:
        number = len(numbers) + 1 if counted else _parse_whole_number(text)
        if number < 0:
            raise AnnotationError(f"{path}, line {line}: {text[:40]!r} after {name[:80]!r} is not an image number")
        other = seen.setdefault(number, name)
        if other != name:
            raise AnnotationError(
                f"{path}, line {line}: {name[:80]!r} has the number {number} of {other[:80]!r}; is this a list of "
                "training images, whose second column is not the image's number?"
            )
        numbers[name] = number
    return numbers


def _listed_images(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line, name and second word, if any, of the images of a list, or of a folder of annotations."""
    if path.is_dir():
        names = sorted(file.relative_to(path).with_suffix("").as_posix() for file in path.rglob("*.xml"))
        if not names:
            raise AnnotationError(f"{path}: there is no XML file in this folder or below")
        yield from ((line, name, "") for line, name in enumerate(names, start=1))
        return
    seen = set()
    for line, (name, *more) in read_words(path):
        if name in seen:
            raise AnnotationError(f"{path}, line {line}: {name[:80]!r} is in the list twice")
        seen.add(name)
        yield line, name, more[0] if more else ""


def _parse_whole_number(text: str) -> int:
    """Read a number from 0 up, also one with a fraction of 0, as numpy writes it; -1 if it is none."""
    try:
        value = float(text)
    except ValueError:
        return -1
    return int(value) if 0 <= value < 2**31 and value % 1 == 0 else -1


def read_ilsvrc_results(
    path: str | Path, numbers: Mapping[str, int], classes: Mapping[str, str] = ILSVRC_DET_CLASSES
) -> dict[str, Detections]:
    r"""Read a file of results with lines ``image_number class_number score xmin ymin xmax ymax``.

    Parameters
    ----------
    path : str or Path
        The file. One without lines has no detections.
    numbers : mapping of str to int
        Number of every image, as `read_ilsvrc_list` gives them.
    classes : mapping of str to str
        WordNet id to name; the first is class 1.

    Returns
    -------
    dict of str to Detections
        By name of the image: those with detections, each with its detections in the order of the file.
        ``classes`` are the names of the classes. Scores are float64.

    Raises
    ------
    DetectionError
        If the file is missing, a line is malformed, has a number that is not finite or a box that ends before it
        begins (``xmax < xmin - 1``), or there is no such image or class.

    References
    ----------
    readme.txt of the ILSVRC 2015 development kit, section 2.4.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "results.txt").write_text("18 3 0.5 1 1 20 10\n")
    ...     found = read_ilsvrc_results(f"{folder}/results.txt", {"ILSVRC2012_val_00000018": 18})
    >>> found["ILSVRC2012_val_00000018"].boxes.tolist()
    [[0.0, 0.0, 20.0, 10.0]]
    """
    path = Path(path)
    form = "image_number class_number score xmin ymin xmax ymax"
    words: dict[str, int] = {}
    owner, table, lines = read_rows(path, form, words)
    name_of = {number: name for name, number in numbers.items()}
    # Different words may be one number, such as 7 and 007.
    position: dict[str, int] = {}
    image = np.zeros(len(words), np.int64)
    for word, i in words.items():
        name = name_of.get(_parse_whole_number(word))
        if name is None:
            raise DetectionError(
                f"{path}, line {lines[owner == i][0]}: there is no image with the number {word[:40]!r} among the "
                f"{len(numbers)} of the list; evaluate with the list that the results were made for"
            )
        image[i] = position.setdefault(name, len(position))
    known = (table[:, 0] >= 1) & (table[:, 0] <= len(classes)) & (table[:, 0] % 1 == 0)
    if not known.all():
        row = int(np.argmin(known))
        raise DetectionError(
            f"{path}, line {lines[row]}: there is no class {table[row, 0]:g}; they are numbered 1 to {len(classes)}"
        )
    labels = table[:, 0].astype(np.int64) - 1
    boxes = table[:, 2:] - [1, 1, 0, 0]
    return group_by_picture(list(position), image[owner], boxes, table[:, 1], labels, tuple(classes.values()))


def write_ilsvrc_results(
    path: str | Path,
    detections: Mapping[str, Detections],
    numbers: Mapping[str, int],
    classes: Mapping[str, str] = ILSVRC_DET_CLASSES,
) -> None:
    """Write a file of results as the development kit and the challenge's server take it.

    Parameters
    ----------
    path : str or Path
        The file. It appears under its name when it is complete.
    detections : mapping of str to Detections
        By name of the image.
    numbers : mapping of str to int
        Number of every image, as `read_ilsvrc_list` gives them.
    classes : mapping of str to str
        WordNet id to name; the first is class 1. Detections are matched with it by name.

    Raises
    ------
    DetectionError
        If an image has no number, a class is not among `classes`, a number is not finite, or a box ends before it
        begins.
    OSError
        If the file cannot be written.

    References
    ----------
    readme.txt of the ILSVRC 2015 development kit, section 2.4.

    Examples
    --------
    >>> import tempfile
    >>> boxes, scores = np.array([[0, 0, 20, 10]], np.float32), np.ones(1, np.float32)
    >>> found = Detections(boxes, scores, np.array([0]), ("ant",))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_ilsvrc_results(f"{folder}/results.txt", {"ILSVRC2012_val_00000018": found},
    ...                          {"ILSVRC2012_val_00000018": 18})
    ...     print(Path(folder, "results.txt").read_text().strip())
    18 3 1 1.000000 1.000000 20.000000 10.000000
    """
    atomic_write(path, _result_lines(detections, numbers, tuple(classes.values())))


def _result_lines(
    detections: Mapping[str, Detections], numbers: Mapping[str, int], names: tuple[str, ...]
) -> Iterator[bytes]:
    for image, found in detections.items():
        if image not in numbers:
            raise DetectionError(f"{image}: this picture has no number in the list of images")
        for number, score, (x, y, w, h) in detection_rows(found, names, image):
            box = f"{x + 1:.6f} {y + 1:.6f} {x + w:.6f} {y + h:.6f}"
            yield f"{numbers[image]} {number} {score} {box}\n".encode()


def read_ilsvrc_blacklist(
    path: str | Path, numbers: Mapping[str, int], classes: Mapping[str, str] = ILSVRC_DET_CLASSES
) -> set[tuple[str, str]]:
    r"""Read which classes do not count in which images, from lines ``image_number WordNet_id``.

    Parameters
    ----------
    path : str or Path
        The file, such as ``ILSVRC2014_det_validation_blacklist.txt``.
    numbers : mapping of str to int
        Number of every image, as `read_ilsvrc_list` gives them. Lines on other images are left out, so that the
        list may be a part of the kit's.
    classes : mapping of str to str
        WordNet id to name.

    Returns
    -------
    set of (str, str)
        Pairs of image and class, both by name, as `evaluate_ilsvrc` takes them.

    Raises
    ------
    AnnotationError
        If the file is missing or a line malformed, or there is no such class.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "blacklist.txt").write_text("18 n02219486\n19 n02219486\n")
    ...     read_ilsvrc_blacklist(f"{folder}/blacklist.txt", {"ILSVRC2012_val_00000018": 18})
    {('ILSVRC2012_val_00000018', 'ant')}
    """
    path = Path(path)
    name_of = {number: name for name, number in numbers.items()}
    pairs = set()
    for line, words in read_words(path):
        number, wnid = (_parse_whole_number(words[0]), words[1]) if len(words) == 2 else (-1, "")
        if number < 0:
            raise AnnotationError(f"{path}, line {line}: {' '.join(words)[:80]!r} is not 'image_number WordNet_id'")
        if wnid not in classes:
            raise AnnotationError(f"{path}, line {line}: {wnid[:80]!r} is not among the {len(classes)} classes")
        if number in name_of:
            pairs.add((name_of[number], classes[wnid]))
    return pairs


def read_meta_det(path: str | Path) -> dict[str, str]:
    """Read the classes of the detection challenge from the development kit's ``meta_det.mat``.

    Parameters
    ----------
    path : str or Path
        The file. Its variable ``synsets`` is an array of structs with fields ``ILSVRC2014_DET_ID`` (the year
        differs), ``WNID`` and ``name``; of these, the kits before 2015 have more than the classes.

    Returns
    -------
    dict of str to str
        WordNet id to name of those with the ids 1 to 200, in the order of the ids: `ILSVRC_DET_CLASSES`, if the
        kit is the challenge's.

    Raises
    ------
    AnnotationError
        If the file is missing, damaged, has no such variable, or the ids of its classes are not 1, 2, 3, ...

    References
    ----------
    readme.txt of the ILSVRC 2015 development kit, section 2.1.1.

    Examples
    --------
    >>> import tempfile
    >>> from scipy.io import savemat
    >>> fields = [("ILSVRC2014_DET_ID", float), ("WNID", object), ("name", object)]
    >>> synsets = np.array([(2, "n02691156", "airplane"), (1, "n02672831", "accordion")], fields)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     savemat(f"{folder}/meta_det.mat", {"synsets": synsets})
    ...     read_meta_det(f"{folder}/meta_det.mat")
    {'n02672831': 'accordion', 'n02691156': 'airplane'}
    """
    try:
        synsets = read_matlab(path).get("synsets")
    except MatlabFileError as error:
        raise AnnotationError(str(error)) from error
    found: dict[int, tuple[str, str]] = {}
    for synset in synsets if isinstance(synsets, list) else []:
        fields = synset if isinstance(synset, dict) else {}
        ids = [value for field, value in fields.items() if re.fullmatch(r"ILSVRC\d{4}_DET_ID", field)]
        wnid, name = fields.get("WNID"), fields.get("name")
        try:
            (number,) = np.array(ids, np.float64).ravel().tolist()
        except (TypeError, ValueError):
            number = np.nan
        if not (number % 1 == 0 and isinstance(wnid, str) and isinstance(name, str)):
            raise AnnotationError(f"{path}: an entry of 'synsets' has no number ILSVRC<year>_DET_ID, WNID and name")
        if 1 <= number <= 200:
            if number in found:
                raise AnnotationError(f"{path}: 'synsets' has the id {number:g} twice")
            found[int(number)] = wnid, name
    classes = dict(found[number] for number in sorted(found))
    if not classes or min(len(classes), len(set(classes.values()))) < max(found):
        raise AnnotationError(f"{path}: has no variable 'synsets' with the ids 1, 2, 3, ..., each of its own class")
    return classes
