"""Checks that the readers of JSON and text share.

Each takes the class of the error that it raises: what is an `AnnotationError` in a file of annotations is a
`DetectionError` in a file of detections.
"""

from __future__ import annotations

import json
import re
import reprlib
from array import array
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import AnnotationError, DetectionError, UserError
from .faults import raise_faults

Error = type[UserError]
# What ends a line of a message, or a name of a file; a tab may part words.
_CONTROL = re.compile("[\0-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_LARGEST = float(np.finfo(np.float32).max)


def read_words(path: Path, form: str = "image_id", error: Error = AnnotationError) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the words of every line that is not empty; `form` says what is expected in a line."""
    return ((number, line.split()) for number, line in read_lines(path, form, error))


def read_lines(path: Path, form: str = "image_id", error: Error = AnnotationError) -> Iterator[tuple[int, str]]:
    """Yield the number and the text, without spaces around it, of every line that is not empty."""
    try:
        # A byte order mark, as some editors write it, is no part of the first word.
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if text := line.strip():
                    if bad := _CONTROL.search(text):
                        raise error(
                            f"{path}, line {number}: has the control character {bad[0]!r}; lines {form!r} are expected"
                        )
                    yield number, text
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror}); check its name") from problem
    except UnicodeDecodeError as problem:
        raise error(f"{path}: is not a text file in UTF-8; lines {form!r} are expected") from problem


def read_rows(
    path: Path, form: str, names: dict[str, int], error: Error = DetectionError
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Read lines of a word and numbers, the last four of them a box.

    Returns for every line the position of its word in `names`, which grows, its numbers, and the line's number.
    `form` says what is expected in a line.
    """
    columns = len(form.split()) - 1
    owner, numbers, lines = array("q"), array("d"), array("q")
    spaced = form.startswith("image_id ")
    for line, (word, *fields) in read_words(path, form, error):
        if spaced and len(fields) > columns:  # a picture's name may have spaces, a number has none
            word, fields = " ".join([word, *fields[:-columns]]), fields[-columns:]
        try:
            if len(fields) != columns:
                raise ValueError("another number of fields")
            numbers.extend(map(float, fields))
        except ValueError:
            raise error(f"{path}, line {line}: {' '.join([word, *fields])[:80]!r} is not {form!r}") from None
        owner.append(names.setdefault(word, len(names)))
        lines.append(line)
    # Both corners are included: a box of no width ends a pixel before it begins, or so when it is rounded.
    table, bad = as_table(numbers, columns, first=columns - 4, slack=1 + 1e-4)
    if bad >= 0:
        row = table[bad]
        begun = (row[-2:] >= row[-4:-2] - 1).all() or not np.isfinite(row).all()
        problem = "not a finite number, or too large a one," if begun else "a box that ends before it begins"
        raise error(f"{path}, line {lines[bad]}: {problem} in {row.tolist()}")
    return np.array(owner, np.int64), table, np.array(lines, np.int64)


def as_table(numbers: array[float], columns: int, first: int = 0, slack: float = 0) -> tuple[NDArray[np.float64], int]:
    """Rows of numbers, ``x1 y1 x2 y2`` from column `first` on, and the first bad one (-1: there is none).

    Bad is a number that is no finite float32, and a box that ends more than `slack` before it begins.
    """
    table = np.array(numbers).reshape(-1, columns)
    with np.errstate(over="ignore"):  # becomes an infinity
        bad = ~np.isfinite(table.astype(np.float32)).all(axis=1)
    bad |= (table[:, first + 2 : first + 4] < table[:, first : first + 2] - slack).any(axis=1)
    return table, int(bad.argmax()) if bad.any() else -1


def record_problem(record: Any, images: Container[Any], categories: Container[Any], scored: bool = False) -> str:
    """Say what is wrong with an annotation of COCO's or, with a score, a detection, and the value; "" if nothing is.

    `images` and `categories` are the ids that there are.
    """
    if not isinstance(record, dict):
        return "an object with image_id, category_id and bbox is expected"
    for key, known in (("image_id", images), ("category_id", categories)):
        if key not in record:
            return f"{key!r} is missing"
        value = record[key]
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            return f"{key} is neither a number nor a text: {shorten_record(value)}"
        if value not in known:
            return f"{key} {shorten_record(value)} is not defined"
    return _box_problem(record) or (_score_problem(record) if scored else _area_problem(record))


def _box_problem(record: Mapping[str, Any]) -> str:
    if "bbox" not in record:
        return "'bbox' is missing"
    box = record["bbox"]
    problem = ""
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        problem = "bbox must be [x, y, width, height], four numbers"
    # First each number: the sum of a float and an integer that is none raises an error.
    elif not (all(map(is_finite_number, box)) and all(map(is_finite_number, (box[0] + box[2], box[1] + box[3])))):
        problem = "bbox has a number that is not finite, or too large"
    elif min(box[2:]) < 0:
        problem = "bbox has a negative width or height"
    return problem and f"{problem}: {shorten_record(box)}"


def _score_problem(record: Mapping[str, Any]) -> str:
    if "score" not in record:
        return "'score' is missing"
    if not _is_number(record["score"]):
        return f"score is not a number: {shorten_record(record['score'])}"
    return "" if is_finite_number(record["score"]) else "score is not finite, or too large"


def _area_problem(record: Mapping[str, Any]) -> str:
    area, crowd = record.get("area"), record.get("iscrowd", 0)
    if area is not None and not (_is_number(area) and is_finite_number(area) and area >= 0):
        return f"area is not a finite number, 0 or above: {shorten_record(area)} (without an area, the box's is taken)"
    if not isinstance(crowd, (int, float)) or crowd not in (0, 1):
        return f"iscrowd is neither 0 nor 1: {shorten_record(crowd)}"
    return ""


def _is_number(value: Any) -> bool:
    # To Python true and false are whole numbers.
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def number_array(values: Sequence[Any]) -> NDArray[np.float64]:
    """Numbers of a JSON document as an array; a ValueError if something else is among them, or no finite float32."""
    if not set(map(type, values)) <= {int, float}:
        raise ValueError("something is not a number")
    array = np.array(values, np.float64)
    with np.errstate(over="ignore"):  # becomes an infinity
        if not np.isfinite(array.astype(np.float32)).all():
            raise ValueError("a number is not finite, or too large")
    return array


def record_boxes(records: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    """Boxes ``x1 y1 x2 y2`` (N, 4) of COCO's records; an error if something is wrong, see `record_problem`."""
    boxes = [record["bbox"] for record in records]
    if not (set(map(type, boxes)) <= {list} and set(map(len, boxes)) <= {4}):
        raise ValueError("a box has not four sides")
    table = number_array(list(chain.from_iterable(boxes))).reshape(-1, 4)
    if (table[:, 2:] < 0).any():
        raise ValueError("a side is negative")
    table[:, 2:] += table[:, :2]
    if not is_finite_number(float(np.abs(table).max(initial=0))):
        raise ValueError("a box is too large")
    return table


def record_positions(records: Sequence[Mapping[str, Any]], key: str, position: Mapping[Any, int]) -> NDArray[np.int64]:
    """Positions (N,) of the ids that records have under a key; an error if something is wrong, see `record_problem`."""
    ids = [record[key] for record in records]
    if bool in set(map(type, ids)):
        raise ValueError("an id is true or false")
    return np.array([position[one] for one in ids], np.int64)


def raise_bad_records(
    bad: Sequence[tuple[Any, str]], kind: str, source: str | Path, error: Error = AnnotationError
) -> None:
    """Raise one error for all bad records of a document, given with their problems; do nothing if there is none."""
    if len(bad) == 1:
        record, problem = bad[0]
        raise error(f"{source}: bad {kind} {shorten_record(record)}: {problem}")
    faults = [f"{kind} {_name_record(record)}: {problem}" for record, problem in bad]
    raise_faults(faults, source, f"correct each {kind}, or leave it out", error)


def _name_record(record: Any) -> str:
    return shorten_record(record["id"] if isinstance(record, dict) and "id" in record else record)[:100]


def check_annotation_ids(records: Sequence[Mapping[str, Any]], source: str | Path, error: Error) -> None:
    """Refuse annotations of which two have the same id, as if their files had been joined; some may have none."""
    ids = [one for record in records if isinstance(one := record.get("id"), (int, float, str))]
    if extra := len(ids) - len(set(ids)):
        (most, _), *_ = Counter(ids).most_common(1)
        raise error(
            f"{source}: {extra} of its annotations have the id of another, such as {shorten_record(most)}; is an "
            "object there twice? Give each its own id"
        )


def is_whole_number(value: Any, low: int = 0) -> bool:
    """Tell whether a value is a whole number from `low` to what 32 bits hold, also one written 1.0."""
    return _is_number(value) and low <= value < 2**31 and value % 1 == 0


def is_finite_number(number: float) -> bool:
    """Tell whether a number is one in float32 too; false for nan."""
    return bool(-_LARGEST <= number <= _LARGEST)


def shorten_record(record: Any) -> str:
    """Write a record of a document in short, however long or deep it is."""
    short = reprlib.Repr()
    short.maxdict, short.maxstring = 12, 60
    return short.repr(record)[:200]


def read_json(path: Path, error: Error = AnnotationError) -> Any:
    """Read a JSON document."""
    try:
        return json.loads(path.read_bytes())
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror}); check its name") from problem
    except (ValueError, RecursionError) as problem:
        raise error(f"{path}: is not well-formed JSON ({problem})") from problem


def record_list(document: Any, key: str, source: str | Path, error: Error = AnnotationError) -> list[dict[str, Any]]:
    """Return the list of records that a document has under a key; `source` is the document's file, for the errors."""
    records = document.get(key) if isinstance(document, dict) else None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise error(f"{source}: has no list of objects {key!r}; a COCO document is expected")
    return records


def record_field(
    record: Mapping[str, Any], key: str, kind: str, source: str | Path, error: Error = AnnotationError
) -> Any:
    """Return a field of a record, which must be a whole number or a text."""
    value = record.get(key)
    if value is None:
        raise error(f"{source}: an entry of {kind!r} has no {key!r}: {shorten_record(record)}")
    if isinstance(value, float) and value.is_integer():  # as MATLAB and pandas write whole numbers
        return int(value)
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise error(
            f"{source}: {key!r} of an entry of {kind!r} is {shorten_record(value)}, neither a whole number nor a "
            f"text: {shorten_record(record)}"
        )
    return value


def records_by_id(
    document: Any, kind: str, source: str | Path, error: Error = AnnotationError
) -> dict[Any, dict[str, Any]]:
    """Return the images or categories of a document by their ids, no two of which may be the same."""
    found: dict[Any, dict[str, Any]] = {}
    for record in record_list(document, kind, source, error):
        one = record_field(record, "id", kind, source, error)
        if one in found:
            raise error(f"{source}: two of its {kind} have the id {shorten_record(one)}; give each its own")
        found[one] = record
    return found


def names_by_id(
    document: Any, kind: Literal["images", "categories"], source: str | Path, error: Error = AnnotationError
) -> dict[Any, str]:
    """Return the names of the images or categories of a document by their ids."""
    key = "file_name" if kind == "images" else "name"
    records = records_by_id(document, kind, source, error)
    return {one: str(record_field(record, key, kind, source, error)) for one, record in records.items()}


def check_distinct(
    names: Mapping[Any, str], kind: str, source: str | Path, error: Error = AnnotationError, form: str = ""
) -> None:
    """Refuse names of which two are the same; `form` says in what form they are compared."""
    (most, times), *_ = [*Counter(names.values()).most_common(1), ("", 0)]
    if times > 1:
        raise error(f"{source}: two of its {kind} are called {most[:80]!r}{form}; give each its own name")


def sorted_ids(ids: Mapping[Any, Any], kind: str, source: str | Path, error: Error = AnnotationError) -> list[Any]:
    """Sort the ids of images or categories, which must be all numbers or all texts."""
    if len({isinstance(one, str) for one in ids}) > 1:
        raise error(f"{source}: the ids of its {kind} are numbers as well as texts; use one of the two")
    return sorted(ids)
