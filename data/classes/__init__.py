"""Class lists, in the order that gives every class its index.

They stand in text files: a name a line, or a WordNet id, a tab and a name.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ..errors import AnnotationError, did_you_mean, first_names


def _read_names(file: str) -> tuple[str, ...]:
    return tuple(Path(__file__).with_name(file).read_text(encoding="utf-8").splitlines())


def _read_wordnet_names(file: str) -> dict[str, str]:
    return dict(line.split("\t") for line in _read_names(file))


VOC_CLASSES: tuple[str, ...] = _read_names("voc.txt")
"""The 20 classes of PASCAL VOC, alphabetical; a label is an index into this tuple."""

COCO_CLASSES: tuple[str, ...] = _read_names("coco.txt")
"""The 80 classes of COCO, in the order of their category ids, which have gaps; a label is an index into this tuple."""

COCO_TO_VOC: dict[str, str] = {
    "airplane": "aeroplane",
    "motorcycle": "motorbike",
    "dining table": "diningtable",
    "couch": "sofa",
    "potted plant": "pottedplant",
    "tv": "tvmonitor",
}
"""COCO's names of the six classes that VOC calls otherwise; the other fourteen are spelt alike."""

ILSVRC_DET_CLASSES: dict[str, str] = _read_wordnet_names("ilsvrc_det.txt")
"""The 200 classes of the ILSVRC detection challenge: WordNet id, which its annotations use, to name. In the order of
the development kit's ids, so that the first is its class 1."""

IMAGENET_CLASSES: dict[str, str] = _read_wordnet_names("imagenet.txt")
"""The 1,000 classes of the ILSVRC classification challenge: WordNet id to the first name that WordNet has, in the order
that gives every class its index."""


def _read_class_map(file: str) -> dict[str, dict[str, str]]:
    classes: dict[str, dict[str, str]] = {}
    for line in _read_names(file):
        name, own, other, _ = line.split("\t")
        classes.setdefault(name, {})[own] = other
    return classes


TO_ILSVRC_DET: dict[str, dict[str, str]] = _read_class_map("ilsvrc_det_map.txt")
"""Which of the 200 detection classes other classes are: of each list, "imagenet" (by WordNet id), "coco" and "voc" (by
name), class to WordNet id. Classes that are none of the 200 are left out. Of the table's rows that are marked
"WordNet", ImageNet's class is the detection class or one of its hyponyms in WordNet 3.0; the others were added by
hand."""


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
        from ..formats.yolo import read_yolo_names  # It needs the classes of this module.

        lines = [*read_yolo_names(Path(name_or_file))]
    elif name_or_file.lower().endswith(".json") and Path(name_or_file).is_file():
        from ..formats.coco import read_coco_classes  # It too.

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
