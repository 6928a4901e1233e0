"""Boxes as Parquet, a row a picture: ranked boxes, and detections, which have labels too."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ..arguments import check_names
from ..detections import Detections, check_finite
from ..errors import DetectionError, ProposalFileError, SettingError, UserError, reason_of
from ..picture_names import as_text
from ..proposals import Proposals, take_fields
from .records import check_distinct

if TYPE_CHECKING:
    import pyarrow


ROW_GROUP_BYTES = 8 * 2**20  # what is gathered in memory before it goes to a Parquet file
MAX_CLASSES = 2**15
_CLASSES = "classes"  # where the metadata of detections has the names of their classes, a list in JSON


def _arrow_schema(*, labels: bool = False, masks: bool = False) -> pyarrow.Schema:
    # Boxes of a fixed size and not lists of any: on the disk they are the same, but pyarrow, pandas and polars
    # then know, and check, that a box has four numbers. Nothing may be null, which saves a bit a number.
    import pyarrow as pa

    number = pa.field("element", pa.float32(), nullable=False)
    box = pa.field("element", pa.list_(number, 4), nullable=False)
    columns = {
        "file": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
        "boxes": pa.list_(box),
        "scores": pa.list_(number),
    }
    if labels:
        columns["labels"] = pa.list_(pa.field("element", pa.int16(), nullable=False))
    if masks:
        columns["masks"] = pa.list_(pa.field("element", pa.binary(), nullable=False))
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns.items()])


def write_parquet(file: BinaryIO, pictures: Iterator[Proposals], metadata: Mapping[str, str] | None) -> None:
    """Write the ranked boxes of pictures as they come, a row group at a time; masks if the first picture has them."""
    first = list(itertools.islice(pictures, 1))
    masks = any(picture.masks is not None for picture in first)
    rows = (picture if masks else picture[:5] for picture in itertools.chain(first, pictures))
    _write_rows(file, rows, _arrow_schema(masks=masks), metadata or {})


def write_detections_parquet(
    file: BinaryIO,
    entries: Iterable[tuple[str, int, int, Detections]],
    classes: Sequence[str],
    metadata: Mapping[str, str] | None,
) -> None:
    """Write the detections of pictures as they come, a row group at a time; the metadata gets their classes."""
    if len(classes) > MAX_CLASSES:
        raise DetectionError(f"{len(classes)} classes are too many for Parquet; {MAX_CLASSES} is the limit")
    label_of = {name: label for label, name in enumerate(classes)}
    metadata = {**(metadata or {}), _CLASSES: json.dumps(list(classes))}
    rows = (_detection_row(*entry, label_of) for entry in entries)
    _write_rows(file, rows, _arrow_schema(labels=True), metadata)


def _detection_row(name: str, width: int, height: int, found: Detections, label_of: Mapping[str, int]) -> tuple:
    check_finite(found, name)
    table = np.array([label_of.get(one, -1) for one in found.classes], np.int16)
    labels = table[found.labels] if len(found) else np.zeros(0, np.int16)
    if (labels < 0).any():
        absent = found.names[int(labels.argmin())]
        raise DetectionError(f"{name}: a detection's class, {absent!r}, is not among the classes to write")
    try:
        text = as_text(name)
    except UnicodeEncodeError:
        raise DetectionError(f"{name!r}: the name of the picture is not valid Unicode; rename it") from None
    return text, int(width), int(height), found.boxes, found.scores.astype(np.float32), labels


def _write_rows(
    file: BinaryIO, rows: Iterable[Sequence[Any]], schema: pyarrow.Schema, metadata: Mapping[str, str]
) -> None:
    import pyarrow.parquet as pq

    schema = schema.with_metadata(dict(metadata))
    # Dictionaries, Parquet's own compression of repeated values, make files of boxes larger under zstd.
    with pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=False) as writer:
        group: list[Sequence[Any]] = []
        size = 0
        for row in rows:
            group.append(row)
            size += 64 + sum(one.nbytes if isinstance(one, np.ndarray) else sum(map(len, one)) for one in row[3:])
            if size >= ROW_GROUP_BYTES:
                writer.write_table(_arrow_table(group, schema))
                group, size = [], 0
        if group:
            writer.write_table(_arrow_table(group, schema))


def _arrow_table(group: Sequence[Sequence[Any]], schema: pyarrow.Schema) -> pyarrow.Table:
    import pyarrow as pa

    columns = list(zip(*group, strict=True))
    arrays = [pa.array(values, field.type) for values, field in zip(columns[:3], schema, strict=False)]
    offsets = pa.array(np.cumsum([0, *map(len, columns[3])], dtype=np.int32))
    for values, field in zip(columns[3:], list(schema)[3:], strict=True):
        if field.name == "masks":
            numbers = pa.array(itertools.chain.from_iterable(values), pa.binary())
        else:
            numbers = pa.array(np.concatenate(values).ravel())
        if field.name == "boxes":
            numbers = pa.FixedSizeListArray.from_arrays(numbers, type=field.type.value_type)
        arrays.append(pa.ListArray.from_arrays(offsets, numbers, type=field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def read_parquet(path: Path) -> Iterator[Proposals]:
    """Yield the ranked boxes of the pictures, and their masks if there are, a row group at a time."""
    import pyarrow.parquet as pq

    schema = _arrow_schema(masks="masks" in pq.read_schema(path).names)
    return (Proposals(*row) for row in _read_rows(path, schema, ProposalFileError))


def read_detections_parquet(path: Path) -> Iterator[tuple[str, int, int, Detections]]:
    """Yield the detections of the pictures with their names and sizes, a row group at a time."""
    import pyarrow.parquet as pq

    try:
        if not path.is_file():
            raise DetectionError(f"{path}: cannot be read (there is no such file); check its name")
        classes = _read_classes(path, pq.read_schema(path).metadata or {})
        for name, width, height, boxes, scores, labels in _read_rows(path, _arrow_schema(labels=True), DetectionError):
            if min(width, height) < 0:
                raise DetectionError(f"{path}: the size of {name!r} is {width} x {height}, not two whole numbers")
            try:
                found = Detections(boxes, scores, labels, classes)
            except SettingError as error:
                raise DetectionError(f"{path}: {name!r}: {error}") from None
            yield name, width, height, found
    except DetectionError:
        raise
    except Exception as error:  # A damaged file can raise nearly anything.
        text = f"{path}: is not a Parquet file of detections, or damaged ({reason_of(error)})"
        raise DetectionError(text) from error


def _read_classes(path: Path, metadata: Mapping[bytes, bytes]) -> tuple[str, ...]:
    if _CLASSES.encode() not in metadata:
        there = b", ".join(metadata).decode(errors="replace")[:200] or "nothing"
        raise DetectionError(f"{path}: its metadata has no {_CLASSES!r}, the names of its classes; there is: {there}")
    try:
        names = json.loads(metadata[_CLASSES.encode()])
        if not isinstance(names, list):
            raise ValueError("no list")
        classes = check_names(_CLASSES, names)
    except (ValueError, RecursionError) as error:
        text = f"{path}: {_CLASSES!r} of its metadata is no list of names in JSON ({reason_of(error)})"
        raise DetectionError(text) from None
    check_distinct(dict(enumerate(classes)), _CLASSES, path, DetectionError)
    return classes


def read_names_parquet(path: Path) -> list[str]:
    """Names of the pictures of a file; nothing else is read."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, pre_buffer=False) as file:
        return [name for batch in file.iter_batches(columns=["file"]) for name in batch.column(0).to_pylist()]


def _read_rows(path: Path, schema: pyarrow.Schema, refusal: type[UserError]) -> Iterator[tuple]:
    """Yield the columns of `schema`, a picture at a time; `refusal` is the error of a file that has others."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Buffered beforehand, the whole file would stay in memory.
    with pq.ParquetFile(path, pre_buffer=False) as file:
        take_fields(path, dict.fromkeys(file.schema_arrow.names), *schema.names, error=refusal)
        for batch in file.iter_batches(batch_size=64, columns=schema.names):
            # Other programs' double numbers and lists of any length become ours, or it is an error.
            try:
                table = pa.Table.from_batches([batch]).select(schema.names).cast(schema)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
                there = ", ".join(f"{one.name} {one.type}" for one in batch.schema)
                reason = f"its columns {there} do not fit ({reason_of(error)})"
                raise refusal(f"{path}: {reason}") from error
            for name, width, height, boxes, *others in zip(*table.columns, strict=True):
                yield (
                    name.as_py(),
                    width.as_py(),
                    height.as_py(),
                    boxes.values.flatten().to_numpy(zero_copy_only=False).reshape(-1, 4),
                    *(
                        one.as_py()
                        if pa.types.is_binary(one.type.value_type)
                        else one.values.to_numpy(zero_copy_only=False)
                        for one in others
                    ),
                )
