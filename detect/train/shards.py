"""Packed pictures: a data set as a few large files of small pictures, for slow disks and fast GPUs.

A packed data set is a folder of Parquet files, the shards, of about 64 MiB each, with a row a picture: its name, its
size, its pixels as WebP or JPEG, its objects. Every program that reads Parquet reads them. Here a training reads the
labels once, and then the pixels of each picture by their place in the file, without Parquet.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from ...data import MAX_PIXELS, AnnotationError, ImageError, Picture, read_image
from ...data.arguments import check_names, check_number, settings_as_json
from ...data.errors import OutputError, SettingError, reason_of
from ...data.images.reading import check_pixel_count
from ...data.picture import PackedImage, fingerprint
from ...data.picture_names import as_text, without_suffix
from ...data.system.atomic_files import atomic_file, only_writer, remove_leftovers
from ...data.system.kernels import compile_all
from ...data.system.processes import ProcessDied, Progress, map_processes
from ...proposals import Proposer
from ...proposals.proposer import propose_boxes
from .recipes import check_setting

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

Proposed: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]
ImageFormat: TypeAlias = Literal["webp", "jpeg"]

# Encoded pixels of a shard; it is in memory until it is written.
SHARD_BYTES = 64 * 2**20
# Pictures of a row group. Proposals are read a row group at a time.
GROUP_ROWS = 8
# From this quality on pictures are packed as WebP without loss.
LOSSLESS = 100


@dataclass(frozen=True)
class Packing:
    """How the pixels of pictures are packed.

    Attributes
    ----------
    long_side : int
        Pixels that the longer side of a picture has at most; none is enlarged.
    quality : int
        1 to 100; with 100 the pixels of WebP stay as they are.
    image_format : {"webp", "jpeg"}
        WebP is smaller; JPEG is read in a third of the time, see ``benchmarks/shards.py``.

    Raises
    ------
    SettingError
        If the format is unknown or a number out of range.
    """

    long_side: int
    quality: int = 90
    image_format: ImageFormat = "webp"

    def __post_init__(self) -> None:
        check_number("long_side", self.long_side, 1, 10_000, whole=True)
        check_number("quality", self.quality, 1, LOSSLESS, whole=True)
        check_setting("image_format", self.image_format, ImageFormat)


class _Row(NamedTuple):
    """A picture, encoded, of which `width` and `height` are the new size; and its proposals, if any."""

    image: bytes
    width: int
    height: int
    proposals: Proposed | None


def encode_picture(image: NDArray[np.uint8], packing: Packing) -> bytes:
    """Encode a picture, resized if it is too large.

    OpenCV writes and reads WebP a little faster than Pillow, see ``benchmarks/shards.py``.

    Parameters
    ----------
    image : ndarray, shape (H, W, 3), uint8
        RGB.
    packing : Packing

    Returns
    -------
    bytes

    Examples
    --------
    >>> image = np.random.default_rng(0).integers(0, 256, (20, 40, 3), np.uint8)
    >>> decode_picture(encode_picture(image, Packing(20, 90, "jpeg"))).shape
    (10, 20, 3)
    >>> bool((decode_picture(encode_picture(image, Packing(99, 100))) == image).all())
    True
    """
    height, width = image.shape[:2]
    scale = packing.long_side / max(height, width)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    if packing.image_format == "jpeg":
        return simplejpeg.encode_jpeg(np.ascontiguousarray(image), packing.quality, colorsubsampling="420")
    # To OpenCV, all above 100 is lossless.
    settings = [cv2.IMWRITE_WEBP_QUALITY, packing.quality if packing.quality < LOSSLESS else LOSSLESS + 1]
    return cv2.imencode(".webp", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), settings)[1].tobytes()


def decode_picture(data: bytes) -> NDArray[np.uint8] | None:
    """Decode what `encode_picture` returns to RGB (H, W, 3); None if it is damaged."""
    if data.startswith(b"\xff\xd8"):
        try:
            return simplejpeg.decode_jpeg(data)
        except ValueError:
            return None
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if image is None else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def picture_bytes(picture: Picture) -> bytes:
    """Read the encoded pixels of a picture, from its own file or from a shard.

    Raises
    ------
    ImageError
        If the shard cannot be read, or was changed.
    OSError
        If its own file cannot be read.
    """
    if picture.packed is None:
        return picture.path.read_bytes()
    shard, _, offset, length = picture.packed
    try:
        with open(shard, "rb") as file:
            file.seek(offset - 4)
            data = file.read(4 + length)
    except OSError as error:
        raise ImageError(f"{shard}: cannot be read ({error.strerror}); check the folder of packed pictures") from error
    # Parquet has the length before the value.
    if data[:4] != length.to_bytes(4, "little") or len(data) != 4 + length:
        raise ImageError(f"{shard}: has changed, {picture.image_id} is not where it was; pack the pictures again")
    return data[4:]


def read_pixels(picture: Picture, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read the pixels of a picture, from its own file or from a shard.

    Parameters
    ----------
    picture : Picture
    max_pixels : int
        See `inception_rcnn.data.read_image`.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        RGB, contiguous and writable.

    Raises
    ------
    ImageError
        If it cannot be read, or has more pixels.
    """
    if picture.packed is None:
        return read_image(picture.path, max_pixels)
    check_pixel_count(f"{picture.packed.file}: {picture.image_id}", picture.width, picture.height, max_pixels)
    image = decode_picture(picture_bytes(picture))
    if image is None or image.shape[:2] != (picture.height, picture.width):
        raise ImageError(f"{picture.packed.file}: {picture.image_id} is damaged; pack the pictures again")
    return image


def is_packed(folder: Path) -> bool:
    """Whether a folder has packed pictures.

    Examples
    --------
    >>> is_packed(Path("VOCdevkit/VOC2007"))
    False
    """
    return _shard_path(folder, 0).is_file()


def pack_pictures(
    folder: Path,
    training: Sequence[Picture],
    validation: Sequence[Picture],
    classes: Sequence[str],
    packing: Packing,
    *,
    proposer: Proposer | None = None,
    workers: int = 1,
    tell: Callable[[str], None] = lambda text: None,
    progress: Progress,
    max_pixels: int = MAX_PIXELS,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write labelled pictures as shards. Shards of the same pictures and settings that are there already stay.

    Parameters
    ----------
    folder : Path
        Made if it does not exist; the folder above must.
    training, validation : sequence of Picture
        To train on, and set aside; see `inception_rcnn.detect.train.data.read_training_pictures`.
    classes : sequence of str
        What their labels are positions in.
    packing : Packing
    proposer : Proposer, optional
        Its boxes are packed too. It must be picklable if `workers` is above 1.
    workers : int
        Processes.
    tell : callable
        Gets a line for each picture that cannot be read and is left out, and for the result.
    progress : callable
        Name and number of the items -> context manager that yields a function; that gets the number of items done.
    max_pixels : int
        See `inception_rcnn.data.read_image`.
    shard_bytes : int
        Encoded pixels after which a shard is full.

    Raises
    ------
    OutputError
        If the folder has shards of other pictures or settings, or another process is packing there.
    SettingError
        If there is no picture.
    """
    classes = check_names("classes", classes)
    pictures = [*training, *validation]
    if not pictures:
        raise SettingError("there is no picture to pack")
    record = {
        "classes": json.dumps(classes), **{name: str(value) for name, value in asdict(packing).items()},
        "pictures": f"{fingerprint(training)} {fingerprint(validation)}",
    }  # fmt: skip
    if proposer is not None:
        record["proposer"] = settings_as_json("proposer", dict(proposer.settings))
    folder.mkdir(exist_ok=True)
    with only_writer(folder / "shards"), progress("packing", len(pictures)) as report:
        number, done = _resume(folder, record)
        report(done)
        compile_all(*getattr(proposer, "kernels", ()))
        work = functools.partial(_pack, packing, proposer, max_pixels)
        packed: list[tuple[Picture, str, _Row]] = []
        first, size = done, 0
        with closing(map_processes(work, pictures[done:], workers)) as results:
            for picture, row in results:
                done += 1
                if isinstance(row, _Row):
                    packed.append((picture, "training" if done <= len(training) else "validation", row))
                    size += len(row.image)
                else:
                    tell(f"passed over: {f'{picture.path}: {row}' if isinstance(row, ProcessDied) else row}")
                if size >= shard_bytes or done == len(pictures):
                    span = {"first": str(first), "end": str(done), "of": str(len(pictures))}
                    _write_shard(_shard_path(folder, number), packed, record | span)
                    packed, first, size, number = [], done, 0, number + 1
                report(done)
    tell(f"{folder}: complete, {number} files of packed pictures")


def _shard_path(folder: Path, number: int) -> Path:
    return folder / f"{number:05}.parquet"


def _resume(folder: Path, record: dict[str, str]) -> tuple[int, int]:
    """Return the numbers of shards and of pictures that are there already; refuse those of other pictures."""
    number = done = 0
    while (path := _shard_path(folder, number)).is_file():
        try:
            there = _read_record(_footer(path), path)
        except AnnotationError as error:
            raise OutputError(f"{error}, or name another folder") from None
        if int(there["first"]) != done or any(there.get(key) != record.get(key) for key in {*record, "proposer"}):
            raise OutputError(
                f"{path}: has other pictures, or was packed with other settings; name another folder or remove it"
            )
        number, done = number + 1, int(there["end"])
    remove_leftovers(path)
    return number, done


def _pack(packing: Packing, proposer: Proposer | None, max_pixels: int, picture: Picture) -> _Row | ImageError:
    """Encode a picture and propose boxes in it; return the error if it cannot be read."""
    try:
        data = encode_picture(read_pixels(picture, max_pixels), packing)
        image = decode_picture(data)
        assert image is not None
        height, width = image.shape[:2]
        # In the pixels that a training sees.
        proposals = None if proposer is None else propose_boxes(proposer, image, picture.path.name)
    except ImageError as error:
        return error
    return _Row(data, width, height, proposals)


def _schema(proposals: bool, record: dict[str, str]) -> pyarrow.Schema:
    import pyarrow as pa

    def several(kind: pyarrow.DataType) -> pyarrow.DataType:
        return pa.list_(pa.field("element", kind, nullable=False))

    boxes = several(pa.list_(pa.field("element", pa.float32(), nullable=False), 4))
    columns = {
        "file": pa.string(), "width": pa.int32(), "height": pa.int32(), "image": pa.binary(),
        "image_bytes": pa.int32(), "split": pa.string(), "exhaustive": pa.bool_(), "boxes": boxes,
        "labels": several(pa.int32()), "difficult": several(pa.bool_()), "crowd": several(pa.bool_()),
        "labelled": several(pa.int32()),
    }  # fmt: skip
    if proposals:
        columns |= {"proposals": boxes, "proposal_scores": several(pa.float32())}
    return pa.schema([pa.field(name, kind, nullable=name == "labelled") for name, kind in columns.items()], record)


def _write_shard(path: Path, rows: Sequence[tuple[Picture, str, _Row]], record: dict[str, str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema("proposer" in record, record)

    def lists(name: str, arrays: Sequence[NDArray[Any]]) -> pyarrow.Array:
        kind = schema.field(name).type
        offsets = pa.array(np.cumsum([0, *map(len, arrays)], dtype=np.int32))
        values: Any = np.concatenate(arrays) if arrays else []
        if pa.types.is_fixed_size_list(kind.value_type):
            flat = pa.array(np.ravel(values), pa.float32())
            return pa.ListArray.from_arrays(
                offsets, pa.FixedSizeListArray.from_arrays(flat, type=kind.value_type), kind
            )
        return pa.ListArray.from_arrays(offsets, pa.array(values, kind.value_type), kind)

    columns: dict[str, Any] = {
        "file": [as_text(picture.image_id + picture.path.suffix) for picture, _, _ in rows],
        "width": [row.width for _, _, row in rows],
        "height": [row.height for _, _, row in rows],
        "image": [row.image for _, _, row in rows],
        "image_bytes": [len(row.image) for _, _, row in rows],
        "split": [split for _, split, _ in rows],
        "exhaustive": [picture.exhaustive for picture, _, _ in rows],
        "boxes": lists("boxes", [_scaled_boxes(picture, row) for picture, _, row in rows]),
        "labels": lists("labels", [picture.labels for picture, _, _ in rows]),
        "difficult": lists("difficult", [picture.difficult for picture, _, _ in rows]),
        "crowd": lists("crowd", [picture.crowd for picture, _, _ in rows]),
        "labelled": [picture.labelled for picture, _, _ in rows],
    }
    if "proposer" in record:
        proposals = [row.proposals for _, _, row in rows if row.proposals is not None]
        columns["proposals"] = lists("proposals", [boxes for boxes, _ in proposals])
        columns["proposal_scores"] = lists("proposal_scores", [scores for _, scores in proposals])
    table = pa.table(
        [c if isinstance(c, pa.Array) else pa.array(c, schema.field(n).type) for n, c in columns.items()], schema=schema
    )
    # A row group's pixels are one page of plain values, uncompressed: so their places can be told, see `read_shards`.
    # Statistics would repeat small pictures in the file's footer.
    compressed = "proposals.list.element.list.element", "proposal_scores.list.element"
    settings: dict[str, Any] = {
        "compression": dict.fromkeys(compressed, "zstd"),
        "use_dictionary": False, "write_statistics": False, "data_page_size": 2**30,
    }  # fmt: skip
    with atomic_file(path) as file, pq.ParquetWriter(file, schema, **settings) as writer:
        writer.write_table(table, row_group_size=GROUP_ROWS)


def _scaled_boxes(picture: Picture, row: _Row) -> NDArray[np.float32]:
    scale = np.array([row.width / picture.width, row.height / picture.height] * 2, np.float32)
    return picture.boxes * scale


def _footer(path: Path) -> pyarrow.parquet.FileMetaData:
    """Read what a shard says of itself."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        raise AnnotationError(
            f"{path}: is no file of packed pictures, or damaged ({reason_of(error)}); pack them again"
        ) from None


_kept_footer = functools.lru_cache(4096)(_footer)


def _read_record(footer: pyarrow.parquet.FileMetaData, path: Path) -> dict[str, str]:
    record = {key.decode(): value.decode() for key, value in (footer.metadata or {}).items() if key != b"ARROW:schema"}
    if not {"classes", "pictures", "first", "end", "of"} <= record.keys():
        raise AnnotationError(f"{path}: is not a file of packed pictures; pack them by inception-rcnn pack")
    return record


def read_shards(folder: Path) -> tuple[tuple[str, ...], list[Picture], list[Picture]]:
    """Read the labels of packed pictures, and where their pixels are.

    Parameters
    ----------
    folder : Path
        Written by `pack_pictures`.

    Returns
    -------
    classes : tuple of str
        Their classes, which the labels are positions in.
    training, validation : list of Picture
        To train on, and set aside. ``path`` is the name that the picture had, in the folder; there is no such file.

    Raises
    ------
    AnnotationError
        If a file is missing, damaged, or of other pictures.
    """
    parts: dict[str, list[Picture]] = {"training": [], "validation": []}
    number = done = 0
    whole: dict[str, str] = {}
    while (path := _shard_path(folder, number)).is_file():
        record = _read_record(_footer(path), path)
        if int(record["first"]) != done or any(record.get(key) != value for key, value in whole.items()):
            raise AnnotationError(f"{path}: is not of the same pictures as the files before it; pack them again")
        whole = {key: record[key] for key in ("classes", "pictures", "of", *(field.name for field in fields(Packing)))}
        number, done = number + 1, int(record["end"])
        for part, picture in _read_rows(folder, path, tuple(json.loads(record["classes"]))):
            parts[part].append(picture)
    if not whole or done != int(whole["of"]):
        have = f"{done} of {whole['of']} pictures are packed" if whole else "no pictures are packed"
        raise AnnotationError(f"{folder}: {have} there; pack the rest by the same command as before")
    return tuple(json.loads(whole["classes"])), parts["training"], parts["validation"]


def _read_rows(folder: Path, path: Path, classes: tuple[str, ...]) -> Iterator[tuple[str, Picture]]:
    """Yield the pictures of a shard, each with the part that it belongs to."""
    import pyarrow.parquet as pq

    footer = _footer(path)
    names = [name for name in _schema(False, {}).names if name != "image"]
    with pq.ParquetFile(path, metadata=footer) as file:
        table = file.read(columns=names).combine_chunks()
    lengths = table["image_bytes"].to_numpy()
    offsets = _value_offsets(footer, lengths)
    flat = {name: table[name].to_pylist() for name in ("file", "width", "height", "split", "exhaustive", "labelled")}
    several = {}
    for name, kind in (("boxes", np.float32), ("labels", np.int64), ("difficult", bool), ("crowd", bool)):
        column = table[name].combine_chunks()
        values = column.flatten().flatten() if name == "boxes" else column.flatten()
        array = values.to_numpy(zero_copy_only=False).astype(kind)  # A copy, which may be written to.
        counts = np.diff(column.offsets.to_numpy())
        several[name] = np.split(array.reshape(-1, 4) if name == "boxes" else array, np.cumsum(counts)[:-1])
    for row, (file_name, width, height, part, exhaustive, labelled) in enumerate(zip(*flat.values(), strict=True)):
        arrays = {name: column[row] for name, column in several.items()}
        yield part, Picture(
            without_suffix(file_name), folder / file_name, width, height, **arrays,
            labelled=None if labelled is None else tuple(labelled), exhaustive=exhaustive, classes=classes,
            packed=PackedImage(path, row, int(offsets[row]), int(lengths[row])),
        )  # fmt: skip


def _value_offsets(footer: pyarrow.parquet.FileMetaData, lengths: NDArray[np.int32]) -> NDArray[np.int64]:
    """Find where the values of the column ``image`` begin in a shard, in bytes.

    A column's part of a row group is a page: a header of unknown length, then each value after the four bytes of its
    length. So the values are counted from the end.
    """
    offsets, row = np.zeros(len(lengths), np.int64), 0
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        columns = (group.column(i) for i in range(group.num_columns))
        column = next(column for column in columns if column.path_in_schema == "image")
        own = slice(row, row + group.num_rows)
        end = column.data_page_offset + column.total_compressed_size
        offsets[own] = end - np.cumsum(lengths[own][::-1].astype(np.int64) + 4)[::-1] + 4
        row += group.num_rows
    return offsets


def has_packed_proposals(packed: PackedImage, settings: str) -> bool:
    """Whether a picture is packed with proposals of a proposer, see `read_packed_proposals`."""
    return _read_record(_kept_footer(packed.file), packed.file).get("proposer") == settings


def read_packed_proposals(packed: PackedImage, settings: str) -> Proposed | None:
    """Read the packed proposals of a picture, best first, if they are those of a proposer.

    Parameters
    ----------
    packed : PackedImage
    settings : str
        The proposer's settings as JSON, see `inception_rcnn.data.arguments.settings_as_json`.

    Returns
    -------
    (ndarray, shape (N, 4), float32; ndarray, shape (N,), float32), or None
        Boxes in pixels of the packed picture, and their scores.
    """
    import pyarrow.parquet as pq

    if not has_packed_proposals(packed, settings):
        return None
    footer = _kept_footer(packed.file)
    group, row = divmod(packed.row, footer.row_group(0).num_rows)
    with pq.ParquetFile(packed.file, metadata=footer) as file:
        table = file.read_row_group(group, columns=["proposals", "proposal_scores"])
    boxes, scores = (table[name][row].values for name in ("proposals", "proposal_scores"))
    return (
        boxes.flatten().to_numpy(zero_copy_only=False).reshape(-1, 4).copy(),
        scores.to_numpy(zero_copy_only=False).copy(),
    )
