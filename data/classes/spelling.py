"""Names of classes that are spelt otherwise than those asked for, and the warning of objects that are left out."""

import re
import unicodedata
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataWarning, SettingError, did_you_mean, first_names
from . import COCO_TO_VOC, ILSVRC_DET_CLASSES, TO_ILSVRC_DET

_WORDNET_IDS = {name: wnid for wnid, name in ILSVRC_DET_CLASSES.items()}


class MisspeltClassWarning(DataWarning):
    """Objects are left out whose class is asked for in another spelling; a training refuses this."""


def find_labels(names: Iterable[str], classes: Sequence[str], setting: str = "only") -> NDArray[np.int64]:
    """Return the labels of classes that the user names, in the order of the classes.

    Parameters
    ----------
    names : iterable of str
    classes : sequence of str
        The classes that there are.
    setting : str
        Where the user names them, for the text.

    Raises
    ------
    SettingError
        If there is no such class.

    Examples
    --------
    >>> find_labels(["dog", "cat"], ["cat", "cow", "dog"]).tolist()
    [0, 2]
    >>> find_labels(["dgo"], ["cat", "dog"])
    Traceback (most recent call last):
    inception_rcnn.data.errors.SettingError: only 'dgo': no such class (did you mean 'dog'?); there are cat, dog
    """
    label_of = {name: label for label, name in enumerate(classes)}
    for name in names:
        if name not in label_of:
            parts = [part.strip() for part in name.split(",")]
            several = len(parts) > 1 and label_of.keys() >= set(parts)
            one_by_one = " ".join(f"--{setting} {part}" for part in parts)
            meant = f" (name several so: {one_by_one})" if several else did_you_mean(name, classes)
            raise SettingError(f"{setting} {name[:40]!r}: no such class{meant}; there are {first_names(classes, 20)}")
    return np.array(sorted(label_of[name] for name in names), np.int64)


def labels_in(names: Iterable[str], classes: Sequence[str]) -> NDArray[np.int64]:
    """Find classes in another list, where VOC, COCO or ILSVRC may call them otherwise.

    Parameters
    ----------
    names : iterable of str
        Names, or WordNet ids of ILSVRC's detection classes.
    classes : sequence of str
        The other list.

    Returns
    -------
    ndarray, shape (number of names,), int64
        Indices into `classes`; -1 where it has no such class.

    Examples
    --------
    >>> labels_in(["airplane", "tie", "zebra"], ["zebra", "aeroplane"]).tolist()
    [1, -1, 0]
    >>> labels_in(["tie", "n02374451"], ["horse"]).tolist()
    [-1, 0]
    """
    label_of = {name: label for label, name in reversed([*enumerate(classes)])}
    meaning = {meant: label_of[name] for name in reversed(classes) for meant in _meanings(name)}
    found = ([label_of.get(name), *(meaning.get(meant) for meant in _meanings(name))] for name in names)
    return np.array([next((label for label in labels if label is not None), -1) for labels in found], np.int64)


def _meanings(name: str) -> list[str]:
    """List what a name is elsewhere: in VOC's spelling, and the WordNet id of ILSVRC's class."""
    spelt = COCO_TO_VOC.get(name, name)
    ids = (name, _WORDNET_IDS.get(name), TO_ILSVRC_DET["coco"].get(name), TO_ILSVRC_DET["voc"].get(name))
    return [spelt, *(wnid for wnid in ids if wnid in ILSVRC_DET_CLASSES)]


def similar_classes(names: Iterable[str], classes: Iterable[str]) -> dict[str, str]:
    """Find names that differ from a class in case, spaces, underscores, hyphens or a plural's ending only.

    Parameters
    ----------
    names : iterable of str
    classes : iterable of str
        The classes asked for, in every spelling that is taken.

    Returns
    -------
    dict of str to str
        By name, the class that may be meant; names that are classes, or like none, are left out.

    Examples
    --------
    >>> similar_classes(["Cat", "potted-plants", "cat", "zebra"], ["cat", "potted plant"])
    {'Cat': 'cat', 'potted-plants': 'potted plant'}
    """
    exact = tuple(classes)
    known: dict[str, str] = {}
    for name in exact:
        for form in _forms(name):
            known.setdefault(form, name)
    # One of two forms must be a whole name: "bus" and "buy" have no common plural.
    whole = {_plain(name): name for name in reversed(exact)}
    found = {}
    for name in dict.fromkeys(names):
        plain = _plain(name)
        match = known.get(plain) or next((whole[form] for form in _forms(name) if form in whole), None)
        if match is not None and name not in exact:
            found[name] = match
    return found


def _plain(name: str) -> str:
    # Composed first: two files may write the same accented letter in two ways.
    name = unicodedata.normalize("NFKC", name).casefold()
    return re.sub(r"[\s_-]+", "", name) or name


def _forms(name: str) -> list[str]:
    """Return a name in its plain form, and what it is if it is a plural."""
    plain = _plain(name)
    endings = (("ies", "y"), ("es", ""), ("s", ""))
    cut = [plain.removesuffix(end) + more for end, more in endings if plain.endswith(end)]
    return [plain, *(form for form in cut if len(form) > 1)]


def suggestion(name: str, near: Mapping[str, str]) -> str:
    """Ask, behind the name of a class, whether a similar one is meant; "" if there is none in `near`.

    Examples
    --------
    >>> suggestion("Cat", similar_classes(["Cat"], ["cat"]))
    " (did you mean 'cat'?)"
    """
    return did_you_mean(near[name], [near[name]]) if name in near else ""


def dropped_classes_text(counts: Mapping[str, int], classes: Iterable[str], what: str = "object") -> str:
    """Say how many objects are left out since their classes are not asked for, near misses first.

    Parameters
    ----------
    counts : mapping of str to int
        Number of objects by the name of their class; names that are among `classes` do not matter.
    classes : iterable of str
        The classes asked for, in every spelling that is taken.
    what : str
        What is counted, in the singular.

    Returns
    -------
    str
        With ten names at the most; "" if nothing is left out.

    Examples
    --------
    >>> dropped_classes_text({"cat": 9, "zebra": 7, "Dog": 1}, ["cat", "dog"])
    "left out 8 objects of classes that are not asked for: 1 of 'Dog' (did you mean 'dog'?), 7 of 'zebra'"
    """
    classes = tuple(classes)
    dropped = {name: count for name, count in counts.items() if count and name not in classes}
    if not dropped:
        return ""
    near = similar_classes(dropped, classes)
    names = sorted(dropped, key=lambda name: (name not in near, -dropped[name], name))
    parts = [f"{dropped[name]} of {name[:40]!r}{suggestion(name, near)}" for name in names[:10]]
    more = f" and {len(names) - 10} more classes" if len(names) > 10 else ""
    total = sum(dropped.values())
    noun = what if total == 1 else f"{what}s"
    return f"left out {total} {noun} of classes that are not asked for: {', '.join(parts)}{more}"


def warn_of_dropped_classes(
    source: str | Path, counts: Mapping[str, int], classes: Iterable[str], what: str = "object"
) -> None:
    """Warn once of all objects that a reader leaves out; to be called by the public reader, of whose caller it tells.

    Parameters
    ----------
    source : str or Path
        What was read.
    counts, classes, what
        As of `dropped_classes_text`.

    Warns
    -----
    DataWarning
        If something is left out; a `MisspeltClassWarning` if a class is asked for in another spelling.
    """
    classes = tuple(classes)
    if text := dropped_classes_text(counts, classes, what):
        kind = MisspeltClassWarning if similar_classes(counts, classes) else DataWarning
        warnings.warn(f"{source}: {text}", kind, stacklevel=3)
