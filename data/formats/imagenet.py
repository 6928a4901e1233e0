"""Pictures in a folder for each class, as ImageNet has them."""

from collections.abc import Sequence
from pathlib import Path

from ..arguments import check_names
from ..classes import IMAGENET_CLASSES
from ..classes.spelling import similar_classes, suggestion
from ..errors import AnnotationError
from ..images.finding import find_images
from .faults import raise_faults

Sample = tuple[Path, int]


def read_class_folders(folder: Path) -> tuple[list[Sample], list[Sample], tuple[str, ...]]:
    """List the pictures of a folder with one folder for each class.

    Parameters
    ----------
    folder : Path
        Has ``train/<class>/<picture>``, or ``<class>/<picture>`` itself; and ``val/<class>/<picture>`` if there are
        pictures to validate on.

    Returns
    -------
    training, validation : list of (Path, int)
        Pictures and their 0-based classes.
    classes : tuple of str
        The names of the folders, sorted.

    Raises
    ------
    AnnotationError
        If the folder is laid out in another way.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("train/cat/1.jpg", "train/ant/2.jpg", "val/cat/3.jpg"):
    ...         Path(folder, name).parent.mkdir(parents=True)
    ...         Path(folder, name).touch()
    ...     training, validation, classes = read_class_folders(Path(folder))
    >>> [(path.name, label) for path, label in training], len(validation), classes
    ([('2.jpg', 0), ('1.jpg', 1)], 1, ('ant', 'cat'))
    """
    root = _class_root(folder, "train")
    names = [name for name in _subfolders(root) if root != folder or name != "val"]
    if len(names) < 2:
        raise AnnotationError(
            f"{root}: has {len(names)} folders of classes, and 2 are the least; lay the pictures out as "
            "train/<class>/<picture>, or <class>/<picture>"
        )
    training = _list_pictures(root, names)
    validation: list[Sample] = []
    if (folder / "val").is_dir():
        inside = _subfolders(folder / "val")
        if not inside:
            raise AnnotationError(
                f"{folder / 'val'}: has no folders of classes; move its pictures to val/<class>/, or remove it"
            )
        unknown = sorted(set(inside) - set(names))
        raise_faults(
            [f"{folder / 'val' / name}: there is no such class in {root}{_meant(name, names)}" for name in unknown],
            folder / "val",
            "remove it, or name it as there",
        )
        labels = {name: label for label, name in enumerate(names)}
        validation = [(path, labels[inside[label]]) for path, label in _list_pictures(folder / "val", inside)]
    return training, validation, tuple(names)


def read_class_labels(folder: Path, classes: Sequence[str]) -> dict[Path, int]:
    """List the pictures of a folder with one folder for each class, with their labels among classes that are known.

    Parameters
    ----------
    folder : Path
        Has ``val/<class>/<picture>``, or ``<class>/<picture>`` itself; not every class needs a folder.
    classes : sequence of str
        The names that folders may have. If they are `IMAGENET_CLASSES`, folders may also have their WordNet ids.

    Returns
    -------
    dict of Path to int
        Index of each picture's class, sorted by folder.

    Raises
    ------
    AnnotationError
        If there is no picture, or a folder has the name of no class.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Path(folder, "val/cat").mkdir(parents=True)
    ...     Path(folder, "val/cat/1.jpg").touch()
    ...     list(read_class_labels(Path(folder), ["ant", "cat"]).values())
    [1]
    """
    classes = check_names("classes", classes)
    root = _class_root(folder, "val")
    index = {name: label for label, name in enumerate(classes)}
    if classes == tuple(IMAGENET_CLASSES.values()):
        index |= {wnid: label for label, wnid in enumerate(IMAGENET_CLASSES)}
    names = _subfolders(root)
    unknown = [name for name in names if name not in index]
    raise_faults(
        [f"{root / name}: the models have no class of that name{_meant(name, classes)}" for name in unknown],
        root,
        "name it as they do, or remove it",
    )
    labels = {Path(path): index[name] for name in names for path in find_images(root / name)}
    if not labels:
        raise AnnotationError(f"{root}: has no pictures in folders of classes; lay them out as <class>/<picture>")
    return labels


def _meant(name: str, classes: Sequence[str]) -> str:
    return suggestion(name, similar_classes([name], classes))


def _class_root(folder: Path, split: str) -> Path:
    """Return the folder that has the folders of classes: that of the split, if there is one."""
    root = folder / split if (folder / split).is_dir() else folder
    if not root.is_dir():
        raise AnnotationError(f"{folder}: is no folder; name one that has a folder for each class")
    return root


def _subfolders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _list_pictures(root: Path, names: Sequence[str]) -> list[Sample]:
    paths = [find_images(root / name) for name in names]
    empty = [f"{root / name}: has no pictures" for name, own in zip(names, paths, strict=True) if not own]
    raise_faults(empty, root, "put some there, or remove it")
    return [(Path(path), label) for label, own in enumerate(paths) for path in own]
