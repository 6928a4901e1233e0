"""Pictures in one folder for each class, as ImageNet has them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import AnnotationError
from ..images.finding import find_images

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
    if not folder.is_dir():
        raise AnnotationError(f"{folder}: is no folder; name one that has a folder for each class")
    root = folder / "train" if (folder / "train").is_dir() else folder
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
        if unknown := sorted(set(inside) - set(names)):
            raise AnnotationError(
                f"{folder / 'val' / unknown[0]}: there is no such class in {root}; remove it, or name it as there"
            )
        labels = {name: label for label, name in enumerate(names)}
        validation = [(path, labels[inside[label]]) for path, label in _list_pictures(folder / "val", inside)]
    return training, validation, tuple(names)


def _subfolders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _list_pictures(root: Path, names: Sequence[str]) -> list[Sample]:
    samples: list[Sample] = []
    for label, name in enumerate(names):
        paths = find_images(root / name)
        if not paths:
            raise AnnotationError(f"{root / name}: has no pictures; put some there, or remove it")
        samples += [(path, label) for path in paths]
    return samples
