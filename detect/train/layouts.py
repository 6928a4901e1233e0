"""Folders as labelling tools write them: LabelImg, CVAT, Roboflow, Label Studio, and YOLO's training programs."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ...data import Picture, find_images
from ...data.classes.spelling import warn_of_dropped_classes
from ...data.errors import DataWarning, first_names
from ...data.formats.coco import coco_pictures, read_coco_classes
from ...data.formats.records import read_json
from ...data.formats.voc import AnnotationReader, read_xml_class_names
from ...data.formats.yolo import find_yolo, read_yolo, read_yolo_names
from ...data.picture_names import PictureFolder, forward_slashes, stem, without_suffix

# Roboflow's, Label Studio's; CVAT's are annotations/instances_<subset>.json.
_COCO_FILES = ("_annotations.coco.json", "result.json")
LAYOUTS = "LabelImg (.xml), CVAT and Label Studio (COCO), Roboflow (COCO, VOC), YOLO (data.yaml, classes.txt)"


class ToolFolder(NamedTuple):
    """What a folder of a labelling tool holds.

    Attributes
    ----------
    training, validation, test : list of Picture
    boxed : collection of str
        Names of the classes whose objects are boxed.
    """

    training: list[Picture]
    validation: list[Picture]
    test: list[Picture]
    boxed: Collection[str]


def read_tool_folder(folder: Path, classes: Sequence[str], rename: Mapping[str, str]) -> ToolFolder | None:
    """Read the labelled pictures of a folder as a labelling tool writes it.

    Parameters
    ----------
    folder : Path
        One of: ``annotations/instances_<subset>.json`` with ``images/`` (CVAT's COCO, whose subsets called val and test
        are not trained on); ``result.json`` with ``images/`` (Label Studio's COCO); ``_annotations.coco.json`` beside
        its pictures (Roboflow); ``data.yaml``, ``classes.txt`` or ``obj.names`` (YOLO, see
        `inception_rcnn.data.formats.yolo`); XML files as VOC's, beside their pictures or in another folder (LabelImg);
        or ``train`` with one of these, and ``valid`` or ``val``, and ``test`` (Roboflow).
    classes : sequence of str
        Objects of other classes are left out.
    rename : mapping of str to str
        Other names of some classes.

    Returns
    -------
    ToolFolder or None
        None if it is none of these.

    Raises
    ------
    AnnotationError
        If labels are malformed, or their pictures are missing.

    Warns
    -----
    DataWarning
        If objects of other classes, or pictures without labels, are left out.
    """
    if files := _coco_files(folder):
        return _read_coco(folder, files, classes, rename)
    if (names_file := find_yolo(folder)) is not None:
        return ToolFolder(*read_yolo(names_file, classes, rename), read_yolo_names(names_file))
    if (part := folder / "train").is_dir() and (first := read_tool_folder(part, classes, rename)) is not None:
        aside, test = (_read_part(folder, names, classes, rename) for names in (("valid", "val"), ("test",)))
        return ToolFolder(_below(part, first.training), aside, test, first.boxed)
    if files := sorted(path for path in folder.rglob("*.xml") if path.is_file()):
        return _read_xml(folder, files, classes, rename)
    return None


def read_tool_classes(folder: Path) -> tuple[str, ...] | None:
    """List the classes of a folder as `read_tool_folder` reads it, also those without objects; None if it is none.

    Raises
    ------
    AnnotationError
        If labels are malformed.
    """
    if files := _coco_files(folder):
        return read_coco_classes(files)
    if (names_file := find_yolo(folder)) is not None:
        return read_yolo_names(names_file)
    if (folder / "train").is_dir() and (found := read_tool_classes(folder / "train")) is not None:
        return found
    if files := sorted(path for path in folder.rglob("*.xml") if path.is_file()):
        return read_xml_class_names(files, folder)
    return None


def _read_part(folder: Path, names: Sequence[str], classes: Sequence[str], rename: Mapping[str, str]) -> list[Picture]:
    """Read the pictures of the first folder that there is."""
    part = next((folder / name for name in names if (folder / name).is_dir()), None)
    found = None if part is None else read_tool_folder(part, classes, rename)
    return [] if part is None or found is None else _below(part, found.training)


def _below(part: Path, pictures: list[Picture]) -> list[Picture]:
    return [replace(picture, image_id=f"{part.name}/{picture.image_id}") for picture in pictures]


def _coco_files(folder: Path) -> list[Path]:
    files = [path for path in (folder / name for name in _COCO_FILES) if path.is_file()]
    return files or sorted(folder.glob("annotations/instances_*.json"))


def _read_coco(folder: Path, files: Iterable[Path], classes: Sequence[str], rename: Mapping[str, str]) -> ToolFolder:
    parts: dict[str, list[Picture]] = {"train": [], "val": [], "test": []}
    boxed: set[str] = set()
    for file in files:
        subset = file.stem.removeprefix("instances_")
        part = next((name for name in ("val", "test") if name in subset.lower()), "train")
        document = read_json(file)
        root = _picture_root(document, [folder / "images" / subset, folder / "images", folder])
        parts[part] += coco_pictures(document, file, root, classes, rename)
        names = {record["id"]: str(record["name"]) for record in document["categories"]}
        boxed.update(names.values())
        counts = Counter(names[record["category_id"]] for record in document["annotations"])
        warn_of_dropped_classes(file, counts, [*classes, *rename])
    return ToolFolder(parts["train"], parts["val"], parts["test"], boxed)


def _picture_root(document: Any, roots: Sequence[Path]) -> Path:
    """Return the folder in which the pictures of a COCO document are."""
    images = document.get("images") if isinstance(document, dict) else None
    names = [image.get("file_name") for image in images[:1]] if isinstance(images, list) else []
    for root in roots:
        if any(isinstance(name, str) and (root / forward_slashes(name)).is_file() for name in names):
            return root
    return next(root for root in (*roots[1:], roots[0]) if root.is_dir())


def _read_xml(folder: Path, files: Iterable[Path], classes: Sequence[str], rename: Mapping[str, str]) -> ToolFolder:
    """Read XML files as VOC's whose pictures are somewhere in the folder."""
    index = {name: label for label, name in enumerate(classes)}
    index |= {other: index[name] for other, name in rename.items()}
    reader = AnnotationReader(index, tuple(classes), PictureFolder(folder))
    pictures = sorted({without_suffix(Path(path).relative_to(folder).as_posix()) for path in find_images(folder)})
    by_stem: dict[str, list[str]] = {}
    for name in pictures:
        by_stem.setdefault(stem(f"{name}.jpg"), []).append(name)
    read: dict[str, Picture] = {}
    for file in files:
        beside = without_suffix(file.relative_to(folder).as_posix())
        named = [beside] if beside in pictures else by_stem.get(file.stem, [])
        if len(named) != 1:
            what = f"may belong to {first_names(named)}" if named else "there is no picture of that name"
            reader.faults.append(f"{file}: {what} in {folder}; put both beside each other")
        elif named[0] in read:
            reader.faults.append(f"{file}: {named[0]} has other labels too; keep one file of labels for each picture")
        else:
            read[named[0]] = reader.read(os.fspath(file), named[0], folder)
    reader.check(folder)
    warn_of_dropped_classes(folder, reader.dropped, index)
    if without := [name for name in pictures if name not in read]:
        text = f"{folder}: {len(without)} pictures have no file of labels and are left out ({first_names(without)})"
        warnings.warn(text, DataWarning, stacklevel=4)
    occurring = {classes[label] for picture in read.values() for label in picture.labels}
    return ToolFolder(list(read.values()), [], [], occurring)
