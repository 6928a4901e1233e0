"""Which classes to learn or to evaluate: a list by name, or a file's."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ..errors import AnnotationError, did_you_mean, first_names
from ..formats.coco import read_coco_classes
from ..formats.yolo import read_yolo_names
from . import COCO_CLASSES, ILSVRC_DET_CLASSES, VOC_CLASSES


def read_class_list(name_or_file: str) -> tuple[str, ...]:
    r"""Read which classes to learn.

    Parameters
    ----------
    name_or_file : str
        "voc": the 20 of PASCAL VOC. "coco": the 80 of COCO. "ilsvrc": the 200 of the ILSVRC detection challenge. Or
        a text file with one name a line, a ``data.yaml`` of YOLO, or a JSON file of COCO, whose categories are meant.

    Returns
    -------
    tuple of str
        A label is an index into it.

    Raises
    ------
    AnnotationError
        If there is no such list or file, it has no name, one twice, or ``__background__``.

    Examples
    --------
    >>> [len(read_class_list(name)) for name in ("voc", "coco", "ilsvrc")]
    [20, 80, 200]
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "mine.txt").write_text("cat\ntraffic light\n")
    ...     read_class_list(f"{folder}/mine.txt")
    ('cat', 'traffic light')
    """
    known = {"voc": VOC_CLASSES, "coco": COCO_CLASSES, "ilsvrc": tuple(ILSVRC_DET_CLASSES.values())}
    if name_or_file in known:
        return known[name_or_file]
    if name_or_file.endswith((".yaml", ".yml")) and Path(name_or_file).is_file():
        lines = [*read_yolo_names(Path(name_or_file))]
    elif name_or_file.lower().endswith(".json") and Path(name_or_file).is_file():
        lines = [*read_coco_classes([name_or_file])]
    else:
        lines = _read_class_lines(name_or_file, known)
    names = [name for line in lines if (name := " ".join(line.split()))]
    if not names:
        raise AnnotationError(f"{name_or_file}: is empty; give the names of the classes, one a line")
    if long := [name for name in names if len(name) > 200]:
        raise AnnotationError(f"{name_or_file}: {long[0][:40]!r}... is no name of a class; give them one a line")
    if "__background__" in names:
        raise AnnotationError(
            f"{name_or_file}: has '__background__', which other programs call what is no object; remove that line"
        )
    if len(set(names)) < len(names):
        twice = [repr(name[:80]) for name, count in Counter(names).items() if count > 1]
        raise AnnotationError(f"{name_or_file}: has the class {first_names(twice, 10)} twice; remove one of its lines")
    return tuple(names)


def _read_class_lines(name_or_file: str, known: Iterable[str]) -> list[str]:
    try:
        return Path(name_or_file).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise AnnotationError(
            f"classes {name_or_file}: neither voc, coco nor ilsvrc, nor a file that can be read ({error.strerror})"
            f"{did_you_mean(name_or_file, known)}; give one of these, or a text file with one name a line"
        ) from error
    except ValueError as error:  # Not UTF-8, or a name with a zero byte.
        raise AnnotationError(f"{name_or_file}: is not a text file in UTF-8; give one with one name a line") from error
