"""Ranked boxes as Parquet: a row a picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from ..errors import ProposalFileError
from ..proposals import Proposals, take_fields

if TYPE_CHECKING:
    import pyarrow


ROW_GROUP_BYTES = 32 * 2**20  # what is gathered in memory before it goes to a Parquet file


def _arrow_schema() -> pyarrow.Schema:
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
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns.items()])


def write_parquet(file: BinaryIO, pictures: Iterable[Proposals], metadata: Mapping[str, str] | None) -> None:
    """Write pictures as they come, a row group at a time."""
    import pyarrow.parquet as pq

    schema = _arrow_schema().with_metadata(dict(metadata or {}))
    # Dictionaries, Parquet's own compression of repeated values, make files of boxes larger under zstd.
    with pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=False) as writer:
        group: list[Proposals] = []
        size = 0
        for picture in pictures:
            group.append(picture)
            size += 64 + picture.boxes.nbytes + picture.scores.nbytes
            if size >= ROW_GROUP_BYTES:
                writer.write_table(_arrow_table(group, schema))
                group, size = [], 0
        if group:
            writer.write_table(_arrow_table(group, schema))


def _arrow_table(group: Sequence[Proposals], schema: pyarrow.Schema) -> pyarrow.Table:
    import pyarrow as pa

    files, widths, heights, boxes, scores = zip(*group, strict=True)
    kind = schema.field("boxes").type
    offsets = pa.array(np.cumsum([0, *map(len, scores)], dtype=np.int32))
    numbers = pa.array(np.concatenate(boxes).ravel())
    columns = [
        pa.array(files, pa.string()),
        pa.array(widths, pa.int32()),
        pa.array(heights, pa.int32()),
        pa.ListArray.from_arrays(offsets, pa.FixedSizeListArray.from_arrays(numbers, type=kind.value_type), type=kind),
        pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(scores)), type=schema.field("scores").type),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def read_parquet(path: Path) -> Iterator[Proposals]:
    """Yield the ranked boxes of the pictures, a row group at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _arrow_schema()
    # Buffered beforehand, the whole file would stay in memory.
    with pq.ParquetFile(path, pre_buffer=False) as file:
        take_fields(path, dict.fromkeys(file.schema_arrow.names), *schema.names)
        for batch in file.iter_batches(batch_size=64, columns=schema.names):
            # Other programs' double numbers and lists of any length become ours, or it is an error.
            try:
                table = pa.Table.from_batches([batch]).select(schema.names).cast(schema)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
                there = ", ".join(f"{one.name} {one.type}" for one in batch.schema)
                reason = f"its columns {there} do not fit ({' '.join(str(error).split())[:200]})"
                raise ProposalFileError(f"{path}: {reason}") from error
            for name, width, height, boxes, scores in zip(*table.columns, strict=True):
                yield Proposals(
                    name.as_py(),
                    width.as_py(),
                    height.as_py(),
                    boxes.values.flatten().to_numpy(zero_copy_only=False).reshape(-1, 4),
                    scores.values.to_numpy(zero_copy_only=False),
                )
