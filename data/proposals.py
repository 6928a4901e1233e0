"""The ranked boxes of a picture, and the checks that their files share.

The files themselves are in `formats`; `formats.by_suffix` chooses among them.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .boxes import find_problem
from .errors import ProposalFileError, UserError
from .picture_names import picture_name, without_folders


class Proposals(NamedTuple):
    """The ranked boxes of one picture.

    Attributes
    ----------
    file : str
        Name of the picture, such as "train/000005.jpg", with forward slashes. From a ``.mat`` or ``.pkl``
        file: the picture's id in it.
    width, height : int
        Size in pixels; 0 where the format does not tell (``.mat``, ``.pkl``).
    boxes : ndarray of float32, shape (N, 4)
        ``x1 y1 x2 y2`` in pixels, continuous, 0-based, best first.
    scores : ndarray of float32, shape (N,)
        Higher is better; they never rise.
    masks : sequence of bytes, optional
        The region that each box is around, as ``counts`` of COCO's compressed run lengths, see
        `inception_rcnn.proposals.search.regions.Regions.run_lengths`. None where boxes have no regions.

    Examples
    --------
    >>> Proposals("a.jpg", 20, 10, np.zeros((0, 4), np.float32), np.zeros(0, np.float32)).file
    'a.jpg'
    """

    file: str
    width: int
    height: int
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    masks: Sequence[bytes] | None = None


def check_entry(path: Path, entry: Proposals) -> Proposals:
    """Return the entry with plain float32 arrays that fit together and are finite."""
    with np.errstate(over="ignore"):  # becomes an infinity, which is refused below
        # One score may come as a number; this makes an array of it.
        boxes, scores = (np.ascontiguousarray(array, np.float32) for array in (entry.boxes, entry.scores))
    entry = Proposals(str(entry.file), int(entry.width), int(entry.height), boxes, scores, entry.masks)
    if not (0 <= entry.width < 2**31 and 0 <= entry.height < 2**31):
        problem = f"the picture's size is {entry.width} x {entry.height}"
    elif any("\ud800" <= letter <= "\udfff" for letter in entry.file):
        problem = "the name of the picture is not valid Unicode; rename it"
    elif entry.masks is not None and len(entry.masks) != len(scores):
        problem = f"has {len(entry.masks)} masks for {len(scores)} boxes"
    else:
        problem = find_problem(boxes, scores)
    if problem:
        raise ProposalFileError(f"{path}: {entry.file!r}: {problem}")
    return entry


def check_mask_suffix(path: str | Path) -> None:
    """Refuse a proposal file whose format has no place for masks.

    Raises
    ------
    ProposalFileError
        If its suffix is neither ``.parquet`` nor ``.json``.

    Examples
    --------
    >>> check_mask_suffix("p.json")
    """
    if Path(path).suffix.lower() not in (".parquet", ".json"):
        raise ProposalFileError(f"{path}: only .parquet and .json have a place for masks; name the file so")


def checked_entries(path: Path, entries: Sequence[Proposals]) -> Iterator[Proposals]:
    """Yield the entries to write, one at a time."""
    masked = False
    for i in range(len(entries)):
        entry = check_entry(path, entries[i])
        masked = masked if i else entry.masks is not None
        if masked:
            check_mask_suffix(path)
        if (entry.masks is not None) != masked:
            raise ProposalFileError(f"{path}: {entry.file!r}: masks are for all pictures or for none")
        # The readers of these formats rank by score.
        if (entry.scores[1:] > entry.scores[:-1]).any():
            raise ProposalFileError(f"{path}: {entry.file!r}: its scores rise; boxes are expected best first")
        yield entry


def survey_entries(path: Path, entries: Sequence[Proposals]) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the pictures and, a row each, their width, height and number of boxes."""
    files: list[str] = []
    table = np.zeros((len(entries), 3), np.int64)
    for entry in checked_entries(path, entries):
        table[len(files)] = entry.width, entry.height, len(entry.scores)
        files.append(entry.file)
    (most, times), *_ = [*Counter(files).most_common(1), ("", 0)]
    if times > 1:
        raise ProposalFileError(f"{path}: two pictures are called {most!r}; make them distinct")
    return files, table


def check_image_ids(path: str | Path, files: Iterable[str], image_ids: Mapping[str, int | str]) -> dict[str, int | str]:
    """Return the ids that `write_proposals` needs, before the work of computing its entries.

    Parameters
    ----------
    path : str or Path
        The file to write, for the errors.
    files : iterable of str
        Names of the pictures.
    image_ids : mapping of str to int or str
        Ids by name.

    Returns
    -------
    dict of str to int or str
        Of these pictures, in their order.

    Raises
    ------
    ProposalFileError
        If a picture has no id, or two have the same.

    Examples
    --------
    >>> check_image_ids("p.pkl", ["b.jpg"], {"a.jpg": 1, "b.jpg": 2})
    {'b.jpg': 2}
    """
    ids: dict[str, int | str] = {}
    owner: dict[int | str, str] = {}
    for file in files:
        if file not in image_ids:
            raise ProposalFileError(
                f"{path}: image_ids has no id for {file!r}; with no image id it cannot be written: add it or leave "
                "image_ids out"
            )
        chosen = image_ids[file]
        ids[file] = chosen if isinstance(chosen, str) else int(chosen)  # NumPy's integers are no JSON
        other = owner.setdefault(ids[file], file)
        if other != file:
            raise ProposalFileError(
                f"{path}: two pictures have the id {ids[file]!r}, {other!r} and {file!r}; "
                "no two may have the same image id"
            )
    return ids


def name_as_number(name: str) -> int | None:
    """Return the whole number that public files have as the id of a picture; None if its name is none.

    Examples
    --------
    >>> name_as_number("VOC2007/000012.jpg"), name_as_number("2008_000001"), name_as_number("cat.1.jpg")
    (12, 2008000001, None)
    """
    text = without_folders(picture_name(name))
    return int(text) if len(text) < 20 and re.fullmatch(r"[0-9]+(_[0-9]+)*", text) else None


def names_of_ids(image_ids: Iterable[str]) -> dict[str, str]:
    """Return which picture an id in a file of proposals means: its name, or its whole number if it alone has that.

    Examples
    --------
    >>> names_of_ids(["000012", "07", "7"])
    {'12': '000012', '000012': '000012', '07': '07', '7': '7'}
    """
    names = {name: name for name in image_ids}
    numbers = {name: str(number) for name in names if (number := name_as_number(name)) is not None}
    count = Counter(numbers.values())
    return {number: name for name, number in numbers.items() if count[number] == 1} | names


def numbers_of_names(path: str | Path, files: Sequence[str]) -> dict[str, int | str]:
    """Return the ids of pictures that are whole numbers, for `write_proposals`.

    Raises
    ------
    ProposalFileError
        If a name is none, or two are the same; `path` is the file to write.
    """
    numbers = {file: number for file in files if (number := name_as_number(file)) is not None}
    if odd := [file for file in files if file not in numbers]:
        raise ProposalFileError(
            f"{path}: {odd[0]!r} is no whole number ({len(odd)} such in all), and whole numbers are asked for as ids"
        )
    return check_image_ids(path, files, numbers)


def take_fields(
    path: Path,
    holder: Mapping[str, Any],
    *names: str,
    kind: type = object,
    form: str = "",
    error: type[UserError] = ProposalFileError,
) -> list[Any]:
    """Return the named fields of a file; refuse a file that lacks one, or has none of the `kind`, in words `form`."""
    for name in names:
        if name not in holder:
            there = " ".join(", ".join(map(str, holder)).split())[:200] or "nothing"
            raise error(f"{path}: has no {name!r}, which is expected beside {names}; there is: {there}")
        if not isinstance(holder[name], kind):
            raise error(f"{path}: {name!r} is {describe(holder[name])}, and {form} is expected")
    return [holder[name] for name in names]


def describe(value: Any) -> str:
    """Say what a field of a file is that is not what was expected."""
    if isinstance(value, np.ndarray):
        return f"an array {value.shape} of {value.dtype}"
    return "nothing that can be read" if value is None else f"a {type(value).__name__}"
