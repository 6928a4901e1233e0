"""Training pictures: folders in VOC, COCO or ILSVRC layout, and which pictures are set aside for validation."""

import filecmp
import hashlib
import os
import stat
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...data import (
    COCO_CLASSES,
    COCO_TO_VOC,
    ILSVRC_DET_CLASSES,
    MAX_PIXELS,
    VOC_CLASSES,
    AnnotationError,
    ImageError,
    Picture,
    atomic_write,
    find_images,
    read_ilsvrc,
    read_image,
    read_voc,
)
from ...data.arguments import check_names
from ...data.classes.reading import read_class_list
from ...data.classes.spelling import MisspeltClassWarning, labels_in, warn_of_dropped_classes
from ...data.errors import SettingError, first_names
from ...data.formats.coco import coco_pictures, read_coco_classes
from ...data.formats.faults import raise_faults
from ...data.formats.records import read_json, read_lines
from ...data.formats.voc import AnnotationReader, read_voc_class_names
from ...data.picture_names import PictureFolder
from ...data.system.processes import Progress, prefetch, usable_cores
from .layouts import LAYOUTS, ToolFolder, read_tool_classes, read_tool_folder
from .shards import is_packed, read_shards

MIN_TO_SET_ASIDE = 60


@contextmanager
def _refuse_misspelt_classes() -> Iterator[None]:
    """Raise what evaluations only warn of: left out, these objects would be learnt as background."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", MisspeltClassWarning)
        try:
            yield
        except MisspeltClassWarning as warning:
            raise AnnotationError(f"{warning}; spell them alike, in labels and --classes, or learn both") from None


def check_folder(folder: Path) -> None:
    """Raise AnnotationError if there is no such folder."""
    if not folder.is_dir():
        problem = "is a file; name the folder that it is in, or the one above" if folder.exists() else "does not exist"
        raise AnnotationError(f"{folder}: {problem}")


@_refuse_misspelt_classes()
def read_labelled_folder(folder: Path, classes: Sequence[str], split: str = "trainval") -> list[Picture]:
    """Read the labelled pictures of a folder for training: VOC, COCO, ILSVRC DET, or as a labelling tool writes it.

    Parameters
    ----------
    folder : Path
        VOC: has ``ImageSets/Main/<split>.txt``. COCO: has ``annotations.json`` or
        ``annotations/instances_*train*.json``, and ``images/`` or ``train2017/``. ILSVRC DET: has
        ``ImageSets/DET``, ``Annotations/DET`` and ``Data/DET``, or a folder ``ILSVRC`` that has them. Labelling tools:
        see `inception_rcnn.detect.train.layouts.read_tool_folder`.
    classes : sequence of str
        Objects of other classes are left out. The six classes that VOC and COCO name differently can have either name,
        whatever the layout; classes of ILSVRC can be WordNet ids.
    split : str
        Which pictures of a folder in VOC layout.

    Returns
    -------
    list of Picture
        Where a data set does not have all of the classes, ``labelled`` lists those that it has. ILSVRC: see Notes.

    Raises
    ------
    AnnotationError
        If the folder is in none of the layouts, or an annotation is missing or malformed; if a picture is in two files
        of annotations; if objects would be left out whose class is to learn in another spelling.

    Warns
    -----
    DataWarning
        If objects of other classes are left out.

    Notes
    -----
    Of ILSVRC these are R-CNN's "val1 + train1000". First, half of the validation pictures, whose labels are exhaustive:
    those of R-CNN's list ``ImageSets/DET/val1.txt`` if it exists, else the first of `balanced_halves`. Second, training
    pictures of each class that have 1000 objects of it together, or all pictures of the class. In these not every
    object is boxed (``exhaustive`` is False); ``labelled`` lists the classes whose lists (``train_<number>.txt``) name
    the picture as positive.

    References
    ----------
    Girshick, Donahue, Darrell, Malik, "Rich feature hierarchies for accurate object detection and semantic
    segmentation", CVPR 2014; arXiv 1311.2524v5, sections 4.1 and 4.3.
    """
    classes = check_names("classes", classes)
    check_folder(folder)
    if (root := _ilsvrc_root(folder)) is not None:
        return _read_ilsvrc_val(root, classes, "val1") + _read_ilsvrc_train(root, classes)
    spellings = _other_spellings(classes)
    if (folder / "ImageSets" / "Main" / f"{split}.txt").is_file():
        labels = np.array([*range(len(classes)), *(classes.index(name) for name in spellings.values())])
        pictures = [
            replace(picture, labels=labels[picture.labels], classes=classes)
            for picture in read_voc(folder, split, [*classes, *spellings])
        ]
        # VOC has no list of its classes: those of the challenge, and in a set of somebody's own those that occur.
        occurring = {classes[label] for picture in pictures for label in picture.labels}
        challenge = {spellings.get(name, name) for name in (*VOC_CLASSES, *COCO_TO_VOC)}
        return _mark_unboxed(pictures, classes, challenge if occurring <= challenge else occurring)
    roots = [root for root in (folder / "images", folder / "train2017") if root.is_dir()]
    pictures = []
    sources: dict[Path, Path] = {}
    for file in _coco_files(folder):
        if roots:
            document = read_json(file)  # once: COCO's is large
            read = coco_pictures(document, file, roots[0], classes, spellings)
            names = {record["id"]: str(record["name"]) for record in document["categories"]}
            objects = Counter(names[record["category_id"]] for record in document["annotations"])
            warn_of_dropped_classes(file, objects, [*classes, *spellings])
            named = set(names.values())
            boxed = named | {spellings[name] for name in named & spellings.keys()}
            pictures += _mark_unboxed(read, classes, boxed)
            if twice := [picture for picture in read if picture.path in sources]:
                raise AnnotationError(
                    f"{file}: {len(twice)} of its pictures are in {sources[twice[0].path]} too "
                    f"({first_names([picture.image_id for picture in twice])}); keep the one file that is meant"
                )
            sources |= {picture.path: file for picture in read}
    if not pictures and (found := _read_tool_folder(folder, classes)) is not None:
        pictures = found.training
    if not pictures:
        raise AnnotationError(
            f"{folder}: neither VOC layout (ImageSets/Main/{split}.txt) nor COCO layout (annotations.json or "
            "annotations/instances_*train*.json, with images/) nor ILSVRC layout (ImageSets/DET) nor that of a "
            f"labelling tool: {LAYOUTS}; name a folder that has one of them"
        )
    return pictures


def _read_tool_folder(folder: Path, classes: Sequence[str]) -> ToolFolder | None:
    """Read a folder of a labelling tool; None if it is that of a data set, or of nothing that is known."""
    names = ("ImageSets", "annotations.json", "annotations/instances_*train*.json")
    if any(True for name in names for _ in folder.glob(name)):
        return None
    found = read_tool_folder(folder, classes, _other_spellings(classes))
    if found is None:
        return None
    training, validation, test = (_mark_unboxed(part, classes, found.boxed) for part in found[:3])
    return ToolFolder(training, validation, test, found.boxed)


@_refuse_misspelt_classes()
def read_validation(folder: Path, classes: Sequence[str]) -> list[Picture]:
    """Read the validation pictures of a folder, if its layout has any.

    Parameters
    ----------
    folder : Path
        As of `read_labelled_folder`.
    classes : sequence of str
        As of `read_labelled_folder`.

    Returns
    -------
    list of Picture
        ILSVRC DET: val2, the half of the validation pictures that `read_labelled_folder` does not return. Labelling
        tools: those in ``valid``, or that are named ``val``. Others: none; `split_validation` sets some aside.

    Raises
    ------
    AnnotationError
        If an annotation is missing or malformed.

    References
    ----------
    Girshick et al., arXiv 1311.2524v5, section 4.1.

    Examples
    --------
    >>> read_validation(Path("VOCdevkit/VOC2007"), VOC_CLASSES)
    []
    """
    classes = check_names("classes", classes)
    root = _ilsvrc_root(folder)
    if root is not None:
        return _read_ilsvrc_val(root, classes, "val2")
    found = _read_tool_folder(folder, classes)
    return [] if found is None else found.validation


@_refuse_misspelt_classes()
def read_test(folder: Path, classes: Sequence[str]) -> list[Picture]:
    """Read the pictures of a labelling tool's folder that are for a test: those in ``test``, or that are named so.

    Parameters
    ----------
    folder, classes
        As of `read_labelled_folder`.

    Raises
    ------
    AnnotationError
        If an annotation is missing or malformed.
    """
    found = _read_tool_folder(folder, check_names("classes", classes))
    return [] if found is None else found.test


def annotated_classes(folder: Path) -> tuple[str, ...]:
    """List the classes that a folder in COCO's or a labelling tool's layout has, also those without objects.

    Raises
    ------
    AnnotationError
        If the folder is in none of these layouts, or labels are malformed.
    """
    files = _coco_files(folder)
    names = read_coco_classes(files) if files else read_tool_classes(folder)
    if names is None:
        raise AnnotationError(
            f"{folder}: neither VOC layout (ImageSets/Main) nor COCO layout nor that of a labelling tool: {LAYOUTS}; "
            "name a folder that has one of them"
        )
    return names


def classes_to_learn(folders: Sequence[Path], split: str = "trainval") -> tuple[str, ...]:
    """Choose the classes that a training learns where none are named.

    They are those of the folders, if all are of labelling tools, or have none of VOC's classes; else VOC's.

    Parameters
    ----------
    folders : sequence of Path
        See `read_labelled_folder`.
    split : str
        Which pictures of a folder in VOC layout.

    Returns
    -------
    tuple of str
        In the order of ``classes.txt``, where a folder has that file. VOC's if a folder cannot be read.
    """
    own: dict[str, None] = {}
    known = False
    for folder in folders:
        lists, names_file = folder / "ImageSets" / "Main" / f"{split}.txt", folder / "classes.txt"
        if not folder.is_dir() or _ilsvrc_root(folder) is not None:
            return VOC_CLASSES
        try:
            if is_packed(folder):
                names = read_shards(folder)[0]
            elif names_file.is_file():
                names = read_class_list(str(names_file))
            elif lists.is_file():
                names = read_voc_class_names(folder, split)
            else:
                names = annotated_classes(folder)
        except AnnotationError:  # It is told when the labels are read.
            return VOC_CLASSES
        own |= dict.fromkeys(names)
        of_tool = not (is_packed(folder) or lists.is_file() or _coco_files(folder))
        known |= not of_tool and not {*VOC_CLASSES, *COCO_TO_VOC}.isdisjoint(names)
    return VOC_CLASSES if known or not own else tuple(own)


def _coco_files(folder: Path) -> list[Path]:
    """List the annotations of a folder in COCO layout."""
    files = [folder / "annotations.json", *sorted(folder.glob("annotations/instances_*train*.json"))]
    return [file for file in files if file.is_file()]


def _other_spellings(classes: Sequence[str]) -> dict[str, str]:
    """Map the other names that VOC or COCO have for some of the classes to the names in `classes`.

    If all are ILSVRC's, by name or WordNet id, so are VOC's and COCO's classes that are one of them.
    """
    pairs = [*COCO_TO_VOC.items(), *((voc, coco) for coco, voc in COCO_TO_VOC.items())]
    if {*ILSVRC_DET_CLASSES, *ILSVRC_DET_CLASSES.values()}.issuperset(classes):
        known = [*COCO_CLASSES, *VOC_CLASSES]
        labels = labels_in(known, classes).tolist()
        pairs = [(name, classes[label]) for name, label in zip(known, labels, strict=True) if label >= 0]
    return {other: name for other, name in pairs if name in classes and other not in classes}


def _mark_unboxed(pictures: list[Picture], classes: Sequence[str], boxed: Iterable[str]) -> list[Picture]:
    """Set ``labelled`` of pictures in which all objects of the classes `boxed` are boxed, and no others."""
    names = set(boxed)
    labelled = tuple(label for label, name in enumerate(classes) if name in names)
    if len(labelled) == len(classes):
        return pictures
    return [replace(picture, labelled=labelled) if picture.labelled is None else picture for picture in pictures]


@_refuse_misspelt_classes()
def _read_packed(folder: Path, classes: Sequence[str]) -> tuple[list[Picture], list[Picture]]:
    """Read packed pictures, to train on and set aside, with the labels of some classes as `read_labelled_folder`."""
    packed, *parts = read_shards(folder)
    if packed == classes:
        return parts[0], parts[1]
    index = {name: label for label, name in enumerate(classes)}
    index |= {other: index[name] for other, name in _other_spellings(classes).items()}
    labels = np.array([index.get(name, -1) for name in packed], np.int64)
    objects = Counter(packed[label] for part in parts for picture in part for label in picture.labels.tolist())
    warn_of_dropped_classes(folder, objects, index)
    everything = {*range(len(classes))}

    def relabel(picture: Picture) -> Picture:
        own = labels[picture.labels]
        arrays = {name: getattr(picture, name)[own >= 0] for name in ("boxes", "difficult", "crowd")}
        boxed = {*labels[[*picture.labelled]].tolist()} - {-1} if picture.labelled is not None else everything
        whole = boxed == everything and picture.exhaustive
        labelled = None if picture.labelled is None or whole else tuple(sorted(boxed))
        return replace(picture, labels=own[own >= 0], labelled=labelled, classes=tuple(classes), **arrays)

    names = [classes[label] for label in labels if label >= 0]
    training, validation = (_mark_unboxed([relabel(picture) for picture in part], classes, names) for part in parts)
    return training, validation


def _ilsvrc_root(folder: Path) -> Path | None:
    return next((root for root in (folder, folder / "ILSVRC") if (root / "ImageSets" / "DET").is_dir()), None)


def _ilsvrc_ids(root: Path, classes: Sequence[str]) -> dict[str, str]:
    """Map WordNet ids to the names of the classes, in their order; a class that ILSVRC lacks is its own id."""
    ids = {name: wnid for wnid, name in ILSVRC_DET_CLASSES.items()}
    ids |= {name: ids[other] for other, name in _other_spellings(classes).items() if other in ids and name not in ids}
    wanted = {ids.get(name, name): name for name in classes}
    if len(wanted) < len(classes):
        twice = next(name for name in classes if name not in wanted.values())
        raise AnnotationError(f"{root}: the class {twice!r} is given twice, by WordNet id and by name; give it once")
    if wanted.keys().isdisjoint(ILSVRC_DET_CLASSES):
        raise AnnotationError(f"{root}: none of its 200 classes is among the {len(classes)} to learn; choose others")
    return wanted


def _visible(picture: Picture) -> Picture:
    """Leave out boxes without area, of which ILSVRC has a few."""
    seen = (picture.boxes[:, 2:] > picture.boxes[:, :2]).all(1)
    names = ("boxes", "labels", "difficult", "crowd")
    return picture if seen.all() else replace(picture, **{name: getattr(picture, name)[seen] for name in names})


def _read_ilsvrc_val(root: Path, classes: Sequence[str], half: str) -> list[Picture]:
    wanted = _ilsvrc_ids(root, classes)
    lists, annotations, images = root / "ImageSets" / "DET", root / "Annotations/DET/val", root / "Data/DET/val"
    if any((lists / name).exists() for name in ("val1.txt", "val2.txt")):
        pictures = read_ilsvrc(annotations, lists / f"{half}.txt", wanted, images)
    else:
        # Halves of all 200 classes, so that they are the same whichever classes are learned.
        everything = read_ilsvrc(annotations, lists / "val.txt", image_root=images)
        first, second = balanced_halves(everything, len(ILSVRC_DET_CLASSES))
        chosen = {picture.image_id for picture in (first if half == "val1" else second)}
        pictures = read_ilsvrc(annotations, lists / "val.txt", wanted, images)
        pictures = [picture for picture in pictures if picture.image_id in chosen]
    boxed = [name for wnid, name in wanted.items() if wnid in ILSVRC_DET_CLASSES]
    return _mark_unboxed([_visible(picture) for picture in pictures], classes, boxed)


def _read_ilsvrc_train(root: Path, classes: Sequence[str], limit: int = 1000) -> list[Picture]:
    """Read positive pictures of every class that have `limit` objects of it together, or all: R-CNN's train_N."""
    wanted = _ilsvrc_ids(root, classes)
    index = {wnid: label for label, wnid in enumerate(wanted)}
    images = PictureFolder(root / "Data/DET/train")
    reader = AnnotationReader(index, tuple(wanted.values()), images, ".JPEG", smallest=0)
    annotations = root / "Annotations/DET/train"
    numbers = {wnid: number for number, wnid in enumerate(ILSVRC_DET_CLASSES, start=1)}
    lists = {wnid: root / f"ImageSets/DET/train_{numbers[wnid]}.txt" for wnid in index if wnid in numbers}
    positives: dict[str, list[str]] = {wnid: [] for wnid in lists}
    labelled: dict[str, set[int]] = {}
    faults = []
    for wnid, listed in lists.items():
        for line, text in read_lines(listed):
            name, *flag = text.rsplit(maxsplit=1)
            if flag not in (["1"], ["0"], ["-1"]):
                faults.append(f"{listed}, line {line}: {text[:80]!r} is not a picture's name and 1, 0 or -1")
            elif flag == ["1"]:
                positives[wnid].append(name)
                labelled.setdefault(name, set()).add(index[wnid])
    raise_faults(faults, root, "take the lists from the kit")
    pictures: dict[str, Picture] = {}
    for wnid, listed in lists.items():
        found = 0
        # Drawn, since the lists are sorted by source; with a seed of the class, whatever other classes are learned.
        for i in np.random.default_rng(numbers[wnid]).permutation(len(positives[wnid])):
            name = positives[wnid][i]
            if name not in pictures:
                picture = _visible(reader.read(os.path.join(annotations, f"{name}.xml"), name, listed))
                pictures[name] = replace(picture, labelled=tuple(sorted(labelled[name])), exhaustive=False)
            found += int((pictures[name].labels == index[wnid]).sum())
            if found >= limit:
                break
    reader.check(annotations)
    warn_of_dropped_classes(annotations, reader.dropped, index)
    return list(pictures.values())


def balanced_halves(pictures: Sequence[Picture], classes: int, *, seed: int = 0) -> tuple[list[Picture], list[Picture]]:
    """Split pictures into two halves with about as many pictures, and as many objects of every class.

    Pictures with objects of rare classes are assigned first, each to the half that has fewer of its classes. Then
    pictures, in random order, change sides as long as that lowers the sum of the fourth powers of the relative
    imbalances ``|a - b| / (a + b)``; the power makes the largest one count most.

    Parameters
    ----------
    pictures : sequence of Picture
    classes : int
        Number of classes.
    seed : int
        Of the random order.

    Returns
    -------
    first, second : list of Picture
        In the order of `pictures`.

    Notes
    -----
    R-CNN's split of the ILSVRC 2013 validation set has a largest relative imbalance of about 11 % and a median of 4 %.
    Its lists are published as ``val1.txt`` and ``val2.txt``; use them to compare figures with R-CNN's.

    References
    ----------
    Girshick et al., arXiv 1311.2524v5, section 4.1.

    Examples
    --------
    >>> no = np.array([False])
    >>> cats_and_dogs = [
    ...     Picture(name, Path("absent.jpg"), 9, 9, np.array([[0, 0, 9, 9]], np.float32), np.array([label]), no, no)
    ...     for name, label in (("cat 1", 0), ("cat 2", 0), ("dog 1", 1), ("dog 2", 1))
    ... ]
    >>> [len({picture.labels[0] for picture in half}) for half in balanced_halves(cats_and_dogs, 2)]
    [2, 2]
    """
    counts = np.ones((len(pictures), classes + 1))  # The last column counts pictures.
    for row, picture in zip(counts, pictures, strict=True):
        row[:classes] = np.bincount(picture.labels, minlength=classes)
    totals = np.maximum(counts.sum(0), 1)
    shares = counts / totals
    rarest = np.where(counts > 0, totals, np.inf).min(1)
    rng = np.random.default_rng(seed)
    side, imbalance = np.zeros(len(pictures)), np.zeros(classes + 1)
    for i in np.lexsort((rng.random(len(pictures)), rarest)):
        side[i] = -1 if shares[i] @ imbalance > 0 else 1
        imbalance += side[i] * shares[i]

    def cost(imbalance: NDArray[np.float64]) -> float:
        squares = imbalance * imbalance
        return float(squares @ squares)

    changed = True
    while changed:
        changed = False
        for i in rng.permutation(len(pictures)):
            after = imbalance - 2 * side[i] * shares[i]
            # Without the margin, rounding could let a picture change sides for ever.
            if cost(after) < cost(imbalance) * (1 - 1e-9):
                imbalance, side[i], changed = after, -side[i], True
    first = [picture for picture, own in zip(pictures, side, strict=True) if own > 0]
    second = [picture for picture, own in zip(pictures, side, strict=True) if own < 0]
    return first, second


def split_validation(pictures: Sequence[Picture], one_in: int = 30) -> tuple[list[Picture], list[Picture]]:
    """Set aside one picture in `one_in` for validation, by a hash of its name.

    Every object of the classes that a folder boxes must be boxed in such a picture. Of fewer than 60 pictures none is
    set aside: one or two tell nothing, and would be missed in the training. They are the same on every machine,
    whatever other pictures there are, and whatever classes are learned.

    Returns
    -------
    training, validation : list of Picture
    """
    training: list[Picture] = []
    validation: list[Picture] = []
    if len(pictures) < MIN_TO_SET_ASIDE:
        return [*pictures], []
    for picture in pictures:
        digest = hashlib.sha256(picture.image_id.encode()).digest()
        aside = picture.exhaustive and int.from_bytes(digest[:4], "big") % one_in == 0
        (validation if aside else training).append(picture)
    return training, validation


def read_folder(folder: Path, classes: Sequence[str], split: str = "trainval") -> tuple[list[Picture], list[Picture]]:
    """Read the pictures of one folder that a training learns from, and those that it sets aside.

    Parameters
    ----------
    folder, classes, split
        As of `read_training_pictures`.

    Returns
    -------
    training, validation : list of Picture
        If the layout has validation pictures, these; else those of `split_validation`.

    Raises
    ------
    AnnotationError
        As `read_labelled_folder`.
    """
    if is_packed(folder):
        return _read_packed(folder, classes)
    pictures, kept = read_labelled_folder(folder, classes, split), read_validation(folder, classes)
    return (pictures, kept) if kept else split_validation(pictures)


def read_training_pictures(
    folders: Sequence[Path],
    classes: Sequence[str],
    split: str,
    *,
    tell: Callable[[str], None],
    warn: Callable[[str], None],
    progress: Progress,
    max_pixels: int = MAX_PIXELS,
    unlabelled: Sequence[Path] = (),
) -> tuple[list[Picture], list[Picture]]:
    """Read the pictures to train on and those set aside, and check them all before the training.

    Parameters
    ----------
    folders : sequence of Path
        See `read_labelled_folder`; or of packed pictures, see `inception_rcnn.detect.train.shards`, which were checked
        and set aside when they were packed.
    classes : sequence of str
        As of `read_labelled_folder`.
    split : str
        Which pictures of a folder in VOC layout.
    tell : callable
        Gets lines with the numbers of objects and pictures, and one for classes without an object.
    warn : callable
        Gets a line for each picture that cannot be read and is passed over.
    progress : callable
        Name and number of the items -> context manager that yields a function; that gets the number of items done.
    max_pixels : int
        See `inception_rcnn.data.read_image`.
    unlabelled : sequence of Path
        Folders of more pictures to train on, in which nothing is boxed; for a teacher.

    Returns
    -------
    training, validation : list of Picture

    Raises
    ------
    AnnotationError
        If pictures are missing or given twice, all in one error: by name, as a file, or with the same contents in two
        folders. If pictures are of another size than their labels say; no object is of the classes; or the class of an
        object is to learn in another spelling.

    Warns
    -----
    DataWarning
        If objects of other classes are left out.
    """
    classes = check_names("classes", classes)
    if isinstance(folders, (str, Path)):
        raise SettingError(f"folders must be a list of folders, not one; write [{str(folders)!r}]")
    training: list[Picture] = []
    validation: list[Picture] = []
    by_folder = []
    for folder in folders:
        own = read_folder(folder, classes, split)
        by_folder.append((folder, [*own[0], *own[1]]))
        training += own[0]
        validation += [picture for picture in own[1] if picture.exhaustive]  # Of the others no figure is right.
    for folder in unlabelled:
        by_folder.append((folder, read_unlabelled(folder, classes)))
        training += by_folder[-1][1]
    _check_distinct_files(by_folder)
    sizes = _check_files([*training, *validation], warn, progress, max_pixels)
    training, validation = (
        [
            picture if picture.width else replace(picture, width=size[0], height=size[1])
            for picture in some
            if (size := sizes.get(picture.image_id)) is not None
        ]
        for some in (training, validation)
    )
    counts = Counter(label for picture in training for label in picture.labels.tolist())
    if training and not counts:
        raise AnnotationError(
            f"none of {len(training)} pictures has an object of {first_names(classes)}; --classes FILE names the "
            f"classes as the labels do{_names_there(folders)}"
        )
    if counts:
        tell(f"objects: {first_names([f'{classes[label]} {count}' for label, count in counts.most_common()], 20)}")
    if absent := [name for label, name in enumerate(classes) if label not in counts]:
        tell(f"no object to learn from: {first_names(absent)}")
    if training and all(picture.labelled is not None for picture in training):
        tell("no picture is labelled for all of the classes, so there is little background to learn from")
    names = f" ({', '.join(picture.image_id for picture in validation)})" if 0 < len(validation) <= 3 else ""
    tell(f"{len(training)} pictures to train on, {len(validation)} set aside{names}")
    return training, validation


def read_unlabelled(folder: Path, classes: Sequence[str]) -> list[Picture]:
    """Read the pictures of a folder in which nothing is boxed: of no class it is known where its objects are.

    Raises
    ------
    AnnotationError
        If there are none.

    Examples
    --------
    >>> read_unlabelled(Path("absent"), ("zebra",))
    Traceback (most recent call last):
    inception_rcnn.data.errors.AnnotationError: absent: has no pictures
    """
    paths = [] if not folder.is_dir() else [Path(path) for path in find_images(folder)]
    if not paths:
        raise AnnotationError(f"{folder}: has no pictures")
    nothing, flags = np.zeros((0, 4), np.float32), np.zeros(0, bool)
    return [
        Picture(
            path.as_posix(), path, 0, 0, nothing, np.zeros(0, np.int64), flags,
            flags, labelled=(), classes=tuple(classes),
        )
        for path in paths
    ]  # fmt: skip


def _names_there(folders: Sequence[Path]) -> str:
    """Name the classes that are labelled in folders, in brackets, as far as the layout tells them."""
    names: dict[str, None] = {}
    for folder in folders:
        with suppress(AnnotationError):
            names |= dict.fromkeys(annotated_classes(folder))
    return f" ({first_names([*names])})" if names else ""


def _check_distinct_files(by_folder: Sequence[tuple[Path, list[Picture]]]) -> None:
    """Check that every picture is there, and given once: by name, by file, and by what is in files of two folders."""
    seen: dict[Hashable, tuple[Path, Path]] = {}
    twice: dict[tuple[Path, Path], list[str]] = {}
    faults = []
    for folder, pictures in by_folder:
        for picture in pictures:
            file: Hashable = picture.packed
            part = None
            if picture.packed is None:
                try:
                    status = picture.path.stat()
                    if not stat.S_ISREG(status.st_mode):
                        raise OSError("a folder")
                    part = _middle(picture.path, status.st_size) if len(by_folder) > 1 else None
                except (OSError, ValueError):  # a ValueError: the name has a zero byte
                    faults.append(f"{picture.path}: there is no such picture, but {folder} has labels for it")
                    continue
                # A link, or another path, leads to the same file.
                file = status.st_dev, status.st_ino
            other = seen.get(picture.image_id) or seen.get(file)
            if other is None and part is not None and (like := seen.get(part)) is not None and like[0] != folder:
                other = like if filecmp.cmp(like[1], picture.path, shallow=False) else None
            if other is not None:
                twice.setdefault((other[0], folder), []).append(repr(picture.image_id))
            for key in (picture.image_id, file, part):
                seen.setdefault(key, (folder, picture.path))
    faults += [
        f"picture {first_names(names)} is in {other} and again in {folder}; give it once, or another name to another "
        "picture"
        for (other, folder), names in twice.items()
    ]
    raise_faults(faults, "the pictures to train on")


def _middle(path: Path, size: int) -> tuple[int, bytes]:
    """Return what tells most pictures apart, without reading them whole: the size, and 4 KiB in the middle, hashed."""
    with path.open("rb") as file:
        file.seek(max(size // 2 - 2048, 0))
        return size, hashlib.blake2b(file.read(4096), digest_size=16).digest()


def _check_files(
    pictures: Sequence[Picture],
    warn: Callable[[str], None],
    progress: Progress,
    max_pixels: int,
) -> dict[str, tuple[int, int]]:
    """Read every picture once, so that faults show before the training; return the sizes of those that can be read.

    Packed ones were read when they were packed.
    """
    sizes = {picture.image_id: (picture.width, picture.height) for picture in pictures if picture.packed is not None}
    pictures, mistaken = [picture for picture in pictures if picture.packed is None], []

    def read_size(picture: Picture) -> tuple[int, int] | ImageError:
        try:
            height, width = read_image(picture.path, max_pixels).shape[:2]
        except ImageError as error:
            return error
        return width, height

    cores = usable_cores()
    with progress("pictures", len(pictures)) as report, ThreadPoolExecutor(cores) as pool:
        for done, (picture, future) in enumerate(prefetch(pool, read_size, pictures, limit=2 * cores), start=1):
            size, labelled = future.result(), (picture.width, picture.height)
            if isinstance(size, ImageError):
                warn(f"passed over: {size}")
            elif picture.width and size != labelled:
                text = "{} x {} pixels, its labels are for {} x {}".format(*size, *labelled)
                mistaken.append(f"{picture.path}: is {text}")
            else:
                sizes[picture.image_id] = size
            report(done)
    advice = "a camera's rotation is applied before the labels; correct the labels, or save the picture upright"
    raise_faults(mistaken, "the pictures to train on", advice)
    return sizes


def write_ilsvrc_halves(folder: str | Path) -> None:
    """Write the lists of the halves of ILSVRC DET's val that training uses, ``val1.txt`` and ``val2.txt``.

    Parameters
    ----------
    folder : str or Path
        ILSVRC DET, see `read_labelled_folder`. Lists that are there already, R-CNN's for example, stay as they are.

    Raises
    ------
    AnnotationError
        If the folder is not in that layout.
    """
    root = _ilsvrc_root(Path(folder))
    if root is None:
        raise AnnotationError(f"{folder}: has no ImageSets/DET; name the folder of ILSVRC's detection set")
    lists = root / "ImageSets" / "DET"
    if (lists / "val1.txt").exists() or (lists / "val2.txt").exists():
        return
    classes = tuple(ILSVRC_DET_CLASSES)
    halves = [{picture.image_id for picture in _read_ilsvrc_val(root, classes, half)} for half in ("val1", "val2")]
    # With the numbers of the kit's lines, by which results and the blacklist name a picture.
    lines = (lists / "val.txt").read_text().splitlines()
    for number, half in enumerate(halves, start=1):
        text = "".join(f"{line}\n" for line in lines if line.split() and line.split()[0] in half)
        atomic_write(lists / f"val{number}.txt", text)
