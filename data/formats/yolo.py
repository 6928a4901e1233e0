"""Labels in the form of YOLO's training programs: a text file a picture, a line an object.

A line is ``class x y width height``: the number of the class, and the centre and the size of the box as shares of the
picture's. More numbers are the corners of an outline. The names of the classes stand in ``data.yaml`` (Ultralytics,
Roboflow), in ``classes.txt`` (LabelImg, Label Studio) or in ``obj.names`` (Darknet).
"""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..boxes import clip_boxes
from ..classes.spelling import warn_of_dropped_classes
from ..detections import Detections
from ..errors import AnnotationError, DataWarning, ImageError, first_names, needs_packages, reason_of
from ..images.finding import find_images
from ..images.reading import read_size
from ..picture import Picture
from .faults import raise_faults
from .records import read_lines

_NAME_FILES = ("classes.txt", "obj.names", "labels/classes.txt")
_FORM = "class x y width height"
# Programs round, and some boxes begin a little outside.
_SLACK = 0.01


def find_yolo(folder: Path) -> Path | None:
    """Return the file with the names of the classes, if the folder is in one of YOLO's layouts.

    Examples
    --------
    >>> find_yolo(Path("nowhere")) is None
    True
    """
    settings = [path for path in sorted(folder.glob("*.y*ml")) if path.suffix in (".yaml", ".yml")]
    for path in settings:
        if "names" in _read_settings(path):
            return path
    names_file = next((folder / name for name in _NAME_FILES if (folder / name).is_file()), None)
    if names_file is None or names_file.name == "obj.names" or not any(folder.rglob("*.xml")):
        return names_file
    # A list of classes beside VOC's XML files is no YOLO, unless there are labels of YOLO's too.
    pictures = {path.stem for path in map(Path, find_images(folder))}
    return names_file if any(path.stem in pictures for path in folder.rglob("*.txt")) else None


def read_yolo_names(names_file: Path) -> tuple[str, ...]:
    """Read the names of the classes, in the order of their numbers.

    Parameters
    ----------
    names_file : Path
        See `find_yolo`.

    Raises
    ------
    AnnotationError
        If it is malformed.
    """
    if names_file.suffix not in (".yaml", ".yml"):
        return tuple(text for _, text in read_lines(names_file, "the name of a class"))
    names = _read_settings(names_file).get("names")
    if isinstance(names, dict) and sorted(names) == [*range(len(names))]:
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, (str, int, float)) for name in names) or not names:
        raise AnnotationError(f"{names_file}: names is no list of the names of classes; write them as data.yaml does")
    return tuple(map(str, names))


def read_yolo(
    names_file: Path, classes: Sequence[str], rename: Mapping[str, str] | None = None
) -> tuple[list[Picture], list[Picture], list[Picture]]:
    """Read pictures with labels in YOLO's form.

    Parameters
    ----------
    names_file : Path
        See `find_yolo`. If it is a ``data.yaml``, its ``train``, ``val`` and ``test`` name the pictures: folders, or
        text files that list pictures; a picture without a file of labels has no objects. Else the pictures are those in
        the folder that have a file of labels.
    classes : sequence of str
        Objects of other classes are left out.
    rename : mapping of str to str, optional
        Other names of some classes.

    Returns
    -------
    training, validation, test : list of Picture
        Their files are opened for their sizes. Labels lie beside the picture or, of a picture in a folder ``images``,
        at the same place in the folder ``labels`` beside that.

    Raises
    ------
    AnnotationError
        If files of labels are malformed; all such faults are told in one error.

    Warns
    -----
    DataWarning
        If objects of other classes, or pictures without labels, are left out.

    References
    ----------
    https://docs.ultralytics.com/datasets/detect/
    """
    index = {name: label for label, name in enumerate(classes)}
    index |= {other: index[name] for other, name in (rename or {}).items()}
    names = read_yolo_names(names_file)
    labels = np.array([index.get(name, -1) for name in names], np.int64)
    parts = _find_pictures(names_file)
    if shared := {*parts[0]} & {*parts[1]}:
        named = first_names(sorted(path.name for path in shared))
        what = f"{names_file}: {len(shared)} pictures are under train and under val ({named})"
        if len(shared) < len(parts[1]):
            raise AnnotationError(f"{what}; name each under one of them")
        warnings.warn(f"{what}; they are trained on, and measured on no other", DataWarning, stacklevel=4)
        parts = parts[0], [], parts[2]
    faults: list[str] = []
    counts: Counter[int] = Counter()
    read: list[list[Picture]] = []
    for paths in parts:
        own = []
        for path in paths:
            numbers, table = _read_labels(_label_file(path), len(names), faults)
            counts.update(numbers.tolist())
            try:
                size = read_size(path)
            except ImageError:  # It is told, and passed over, when the pixels are needed.
                size = 0, 0
            boxes, chosen = table * (*size, *size), labels[numbers] >= 0
            image_id = os.path.splitext(os.path.relpath(path, names_file.parent))[0].replace(os.sep, "/")
            no = np.zeros(int(chosen.sum()), bool)
            kept = boxes[chosen].astype(np.float32)
            own.append(Picture(image_id, path, *size, kept, labels[numbers][chosen], no, no, classes=tuple(classes)))
        read.append(own)
    raise_faults(faults, names_file, "correct the labels, or take the picture out of the folder")
    warn_of_dropped_classes(names_file, {names[number]: count for number, count in counts.items()}, index)
    return read[0], read[1], read[2]


def yolo_labels(found: Detections, width: int, height: int) -> str:
    """Write the detections of a picture as its file of labels; there is no place for scores.

    Parameters
    ----------
    found : Detections
    width, height : int
        Of the picture, in pixels.

    Examples
    --------
    >>> found = Detections(np.array([[0, 0, 10, 10]], np.float32), np.ones(1), np.array([1]), ("cat", "dog"))
    >>> print(yolo_labels(found, 20, 10).strip())
    1 0.250000 0.500000 0.500000 1.000000
    """
    shares = clip_boxes(found.boxes, width, height).astype(np.float64) / [width, height, width, height]
    rows = np.concatenate([(shares[:, :2] + shares[:, 2:]) / 2, shares[:, 2:] - shares[:, :2]], axis=1).tolist()
    lines = zip(found.labels.tolist(), rows, strict=True)
    return "".join(f"{label} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for label, (x, y, w, h) in lines)


def yolo_settings(classes: Sequence[str]) -> str:
    r"""Write a ``data.yaml`` for pictures that stand, or will stand, in the folder ``images`` beside it.

    Examples
    --------
    >>> print(yolo_settings(["cat", "dog"]).partition("\ntrain")[2])
    : images
    names:
      0: "cat"
      1: "dog"
    <BLANKLINE>
    """
    # A text of JSON is one of YAML.
    names = "".join(f"  {number}: {json.dumps(name, ensure_ascii=False)}\n" for number, name in enumerate(classes))
    return (
        "# The pictures belong into images/, by the names that their files have in labels/.\n"
        f"# To train, Ultralytics needs val: too: other pictures, to validate on.\ntrain: images\nnames:\n{names}"
    )


def _read_settings(path: Path) -> dict[str, Any]:
    with needs_packages(str(path), "train"):
        import yaml
    try:
        settings = yaml.safe_load(path.read_bytes())
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        reason = getattr(error, "problem", None) or getattr(error, "strerror", None) or reason_of(error)
        raise AnnotationError(f"{path}: cannot be read ({reason}); correct it") from error
    return settings if isinstance(settings, dict) else {}


def _find_pictures(names_file: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """List the pictures to train on, those for validation, and those for a test."""
    folder = names_file.parent
    if names_file.suffix in (".yaml", ".yml"):
        settings = _read_settings(names_file)
        return (
            _named(names_file, settings, "train"),
            _named(names_file, settings, "val"),
            _named(names_file, settings, "test"),
        )
    folder = folder.parent if folder.name == "labels" else folder
    pictures = [Path(path) for path in find_images(folder)]
    labelled = [path for path in pictures if _label_file(path).is_file()]
    if without := [path.name for path in pictures if path not in {*labelled}]:
        text = f"{folder}: {len(without)} pictures have no file of labels and are left out ({first_names(without)})"
        warnings.warn(text, DataWarning, stacklevel=4)
    return labelled, [], []


def _named(path: Path, settings: Mapping[str, Any], part: str) -> list[Path]:
    """List the pictures that an entry of data.yaml names."""
    entries = settings.get(part) or []
    entries = entries if isinstance(entries, list) else [entries]
    # Of names that are too long for the file system, os.path says that there is nothing.
    roots = [path.parent]
    if root := settings.get("path"):
        roots = [one for one in (path.parent / str(root), Path(str(root))) if os.path.isdir(one)] + roots
    found: list[Path] = []
    for entry in entries:
        # Roboflow writes ../train/images, and means train/images.
        names = [entry, entry.removeprefix("../")] if isinstance(entry, str) else []
        place = next((root / name for root in roots for name in names if os.path.exists(root / name)), None)
        if place is None and part == "test":  # Roboflow names one in every export. No training needs it.
            continue
        if place is None:
            raise AnnotationError(
                f"{path}: {part}: there is no {str(entry)[:80]!r} below {roots[0]}; name a folder that is there"
                f"{', or delete that line: some pictures are set aside then' if part == 'val' else ''}"
            )
        found += map(Path, find_images(f"@{place}" if place.suffix == ".txt" else place))
    if part == "train" and not found:
        raise AnnotationError(f"{path}: train: names no pictures; name their folder")
    return found


def _label_file(picture: Path) -> Path:
    """Return where the labels of a picture are."""
    parts = picture.parts
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        labels = Path(*parts[:last], "labels", *parts[last + 1 :]).with_suffix(".txt")
        if labels.is_file():
            return labels
    return picture.with_suffix(".txt")


def _read_labels(path: Path, classes: int, faults: list[str]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Read one file of labels: numbers of classes, and boxes ``x1 y1 x2 y2`` as shares of the picture's size."""
    numbers, boxes = [], []
    for line, text in read_lines(path, _FORM) if path.is_file() else ():
        try:
            number, *values = map(float, text.split())
            outline = np.array(values).reshape(-1, 2)
        except ValueError:
            faults.append(f"{path}, line {line}: {text[:80]!r} is not {_FORM!r}")
            continue
        if not (0 <= number < classes and number == int(number)):
            faults.append(f"{path}, line {line}: there are {classes} classes, numbered from 0, and none {number:g}")
            continue
        if len(outline) < 2 or not (np.abs(outline - 0.5) <= 0.5 + _SLACK).all():
            faults.append(f"{path}, line {line}: {text[:80]!r} is not {_FORM!r} in shares of the picture's size")
            continue
        # Two pairs are a centre and a size, more are an outline.
        ends = (outline[0] - outline[1] / 2, outline[0] + outline[1] / 2) if len(outline) == 2 else outline
        numbers.append(int(number))
        boxes.append(np.concatenate([np.min(ends, axis=0), np.max(ends, axis=0)]))
    return np.array(numbers, np.int64), np.clip(np.array(boxes).reshape(-1, 4), 0, 1)
