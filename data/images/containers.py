"""Pictures inside Parquet files and tar files: where each of them lies, and its bytes.

A million small files are slow to list and to open, on a disk as in a bucket. Data sets are handed round as some hundred
larger files: Parquet, as Hugging Face's ``datasets`` and our own packed pictures, and tar, as webdataset reads.
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
import posixpath
import re
import tarfile
import threading
import time
from array import array
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError, MissingPackageError, SettingError, UserError, reason_of
from ..system.processes import prefetch
from ..system.remote import is_url, open_url, read_range, stamp_url, told_of, url_suffix
from .finding import IMAGE_SUFFIXES, find_files

if TYPE_CHECKING:
    import pyarrow

CONTAINER_SUFFIXES = frozenset({".parquet", ".tar"})
_COMPRESSED = frozenset({".tgz", ".gz", ".bz2", ".xz", ".zst"})
_INDEXED = 4  # files at a time; each has a buffer of up to 50 MB at a URL
_PAUSES = (1, 5)  # seconds before a file at a URL is tried again
_BATCH_BYTES, _KEPT_BYTES = 4 * 2**20, 32 * 2**20  # of encoded pictures in memory, of one Parquet file
MAX_NAME = 500  # letters; the last ones of a longer name are kept
# What a damaged file raises besides its reader's own errors. All others are of reading it, wherever it is.
_OF_DAMAGE = (ArithmeticError, LookupError, TypeError, ValueError)
_CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029]")
_IMAGE, _NAME = "image", "file"  # the columns of our own packed pictures


@dataclass(frozen=True)
class Member:
    """Where a picture lies in a Parquet file or a tar file. It can be pickled.

    Attributes
    ----------
    container : str
        Path or URL of the file.
    name : str
        What the picture is called in it; no two of a file have the same.
    stamp : tuple of int
        Tells a picture that has changed: size of the file in bytes, its time or a hash of its version, the position.
    position : int
        Of a Parquet file the row, of a tar file the first byte; -1 if this stands for a file of which nothing is known.
    size : int
        Bytes in a tar file.
    column : str
        Column of the Parquet file, as the user named it; "" for the usual ones.
    problem : str
        What is wrong with the file from here on, of the position -1; "" if that shows when it is read.
    data : bytes, optional
        The bytes, if they were read before.
    """

    container: str
    name: str
    stamp: tuple[int, ...]
    position: int
    size: int = 0
    column: str = ""
    problem: str = ""
    data: bytes | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.container}::{self.name}" if self.name else self.container

    def read(self, max_bytes: int) -> bytes:
        """Read the encoded picture.

        Raises
        ------
        OSError
            If the file cannot be read, or the picture has more bytes than the limit.
        ImageError
            If the file is damaged.
        """
        if self.position < 0:
            if self.problem:
                raise ImageError(f"{self}: {self.problem}")
            _index(self.container, self.column)  # says again what is wrong
            reason = "could not be read when the pictures were listed; the same command does them"
            raise OSError(errno.EAGAIN, reason, str(self))
        is_tar = _kind(self.container) == ".tar"
        if is_tar and self.size > max_bytes:
            raise _too_large(self, self.size, max_bytes)
        data: bytes | None = self.data
        if data is None and is_tar:
            data = _read_part(self.container, self.position, self.size)
            if len(data) < self.size:
                raise ImageError(f"{self}: the tar file ends before the picture does; copy or download it again")
        elif data is None:
            data = _read_row(self)
        if len(data) > max_bytes:
            raise _too_large(self, len(data), max_bytes)
        return data

    def loaded(self, max_bytes: int) -> Member:
        """Return the same with its bytes, of a row of a Parquet file, which is read from front to back; else itself.

        Of several processes that each take some of the pictures, every one would read the whole file.
        """
        if self.position < 0 or _kind(self.container) == ".tar":
            return self
        try:
            return replace(self, data=self.read(max_bytes))
        except (OSError, ImageError):
            return self  # Who reads it will say what is wrong.


class Members(Sequence[Member]):
    """The pictures in some files, as `find_images_in` lists them.

    In memory are their names, as bytes, and of tar files sixteen bytes a picture; a `Member` is made when it is asked
    for.
    """

    folder: str
    """The folder that holds all of the files, with a slash at its end."""

    def __init__(self, indices: Sequence[_Index]) -> None:
        self._indices = indices
        self._ends = np.cumsum([len(one.names) for one in indices], dtype=np.int64)
        files = [one.container if is_url(one.container) else os.path.abspath(one.container) for one in indices]
        self.folder = common_folder({file.rpartition("/")[0] for file in files})
        self._files = [inner_path(file[len(self.folder) :]) for file in files]
        # Rows that are only counted, and names that several files have, are parted by the names of the files.
        seen = {name for one in indices for name in one.names}
        unnamed = sum(len(one.names) > 0 and not one.names[len(one.names) - 1] for one in indices)
        self._is_parted = len(indices) > 1 and len(seen - {""}) < len(self) - unnamed

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        file, own = self._find(index)
        return self._indices[file].member(own)

    def name(self, index: int) -> str:
        """Name of a picture, which no other has."""
        file, own = self._find(index)
        if not (name := self._indices[file].names[own]):
            return self._files[file]
        return f"{self._files[file]}/{name}" if self._is_parted else name

    def _find(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        file = int(np.searchsorted(self._ends, index, side="right"))
        return file, int(index - (self._ends[file - 1] if file else 0))


def find_images_in(paths: str | Path | Iterable[str | Path], column: str | None = None) -> Members:
    """List the pictures in Parquet files and tar files.

    Parameters
    ----------
    paths : str, Path or iterable of them
        Files, folders (all ``.parquet`` and ``.tar`` below), globs, ``@list.txt`` and URLs, see `find_images`. A name
        that ends in ``.tar`` is a tar file, uncompressed; every other is Parquet.
    column : str, optional
        Column of the Parquet files with the encoded pictures: binary, or a struct with ``bytes`` and ``path``, as of
        Hugging Face's ``datasets``. Default ``image``, or the only such column.

    Returns
    -------
    Members
        A sequence, in the order of the files and in them. In Parquet a picture is called as the column ``file`` says,
        or the struct's ``path``, or by its row, counted from 0; in tar by its path. What is not a picture in a tar file
        is passed over. Where two pictures have one name, their files' names stand before it. A file that cannot be read
        is listed itself, and its reader says what is wrong.

    Raises
    ------
    ImageError
        If something named does not exist, or the only file cannot be read.
    SettingError
        If there is no such column, or several columns may be meant.

    References
    ----------
    https://github.com/webdataset/webdataset
    https://huggingface.co/docs/datasets/image_load

    Examples
    --------
    >>> import tempfile, pyarrow, pyarrow.parquet
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = pyarrow.table({"image": [b"pixels", b"others"], "file": ["a.jpg", "b.jpg"]})
    ...     pyarrow.parquet.write_table(table, f"{folder}/set.parquet")
    ...     members = find_images_in(folder)
    ...     len(members), members.name(1), members[1].read(max_bytes=1000)
    (2, 'b.jpg', b'others')
    """
    files = [str(one) for one in find_files(paths, CONTAINER_SUFFIXES)]
    if not files:
        raise ImageError(f"{paths}: no .parquet or .tar files there; name files that hold pictures")
    indices = []
    index = functools.partial(_index_patiently, column=column or "")
    with ThreadPoolExecutor(_INDEXED) as pool:
        for container, future in prefetch(pool, index, files, limit=2 * _INDEXED):
            try:
                indices.append(future.result())
            except (ImageError, OSError) as error:
                if isinstance(error, MissingPackageError):
                    raise
                if len(files) == 1:
                    told = error if isinstance(error, ImageError) else _unreadable(container, error)
                    raise told from error
                indices.append(_Index(container, column or "", (0,), Names([""])))
    return Members(indices)


class Names(Sequence[str]):
    """Texts, kept as bytes one after the other.

    Examples
    --------
    >>> list(Names(["a", "", "bc"]))
    ['a', '', 'bc']
    """

    def __init__(self, names: Iterable[str]) -> None:
        data, ends = bytearray(), array("Q")
        for name in names:
            data += os.fsencode(name)
            ends.append(len(data))
        self._data, self._ends = bytes(data), ends

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return os.fsdecode(self._data[self._ends[index - 1] if index else 0 : self._ends[index]])


@dataclass(frozen=True)
class _Index:
    """Where the pictures of one file lie: by their rows, or in a tar file. An empty name stands for a problem."""

    container: str
    column: str
    stamp: tuple[int, ...]
    names: Names
    starts: NDArray[np.int64] | None = None
    sizes: NDArray[np.int64] | None = None
    problem: str = ""

    def member(self, own: int) -> Member:
        name = self.names[own]
        if not name:
            return Member(self.container, "", self.stamp, -1, column=self.column, problem=self.problem)
        if self.starts is None or self.sizes is None:
            return Member(self.container, name, (*self.stamp, own), own, column=self.column)
        start, size = int(self.starts[own]), int(self.sizes[own])
        return Member(self.container, name, (*self.stamp, start), start, size)


def _kind(container: str) -> str:
    return url_suffix(container) if is_url(container) else os.path.splitext(container)[1].lower()


def _open(container: str) -> BinaryIO:
    return open_url(container) if is_url(container) else open(container, "rb")


def _stamp(container: str) -> tuple[int, ...]:
    if is_url(container):
        return tuple(stamp_url(container))
    status = os.stat(container)
    return status.st_size, status.st_mtime_ns


def _unreadable(container: str, error: OSError) -> ImageError:
    reason = error.strerror or reason_of(error)
    return ImageError(f"{container}: cannot be read ({reason}); check its name and permissions")


def _too_large(member: Member, size: int, max_bytes: int) -> OSError:
    return OSError(errno.EFBIG, f"has {size} bytes, the limit is {max_bytes}", str(member))


def _read_part(container: str, start: int, size: int) -> bytes:
    if is_url(container):
        return read_range(container, start, size)
    with open(container, "rb") as file:
        file.seek(start)
        return file.read(size)


def _index_patiently(container: str, column: str) -> _Index:
    """List the pictures of a file; one elsewhere that cannot be read is tried again, since it has many pictures."""
    for pause in _PAUSES if is_url(container) else ():
        try:
            return _index(container, column)
        except (FileNotFoundError, PermissionError):
            raise
        except OSError:
            time.sleep(pause)
    return _index(container, column)


def _index(container: str, column: str) -> _Index:
    """List the pictures of a file.

    Raises
    ------
    OSError, ImageError, SettingError
    """
    stamp = _stamp(container)
    if _kind(container) in _COMPRESSED:
        raise ImageError(f"{container}: is compressed, so that no picture can be found alone; decompress it first")
    with told_of(container), _open(container) as file:
        return (_index_tar if _kind(container) == ".tar" else _index_parquet)(file, container, column, stamp)


def distinct_names(names: Iterable[str | None]) -> Names:
    """Make names that can be paths below a folder, no two the same; None and "" become the position.

    Examples
    --------
    >>> list(distinct_names(["a/1.jpg", None, "../../b.jpg"]))
    ['a/1.jpg', '1', '_/_/b.jpg']
    >>> list(distinct_names(["image.jpg", "image.jpg"]))
    ['0/image.jpg', '1/image.jpg']
    """
    inner = [inner_path(name) if name else str(row) for row, name in enumerate(names)]
    if len(set(inner)) < len(inner):
        inner = [f"{row}/{name}" for row, name in enumerate(inner)]
    return Names(inner)


def common_folder(folders: Collection[str]) -> str:
    """Folder that holds some folders, paths or URLs, with a slash at its end; "" if there is none.

    Examples
    --------
    >>> common_folder(["s3://bucket/a", "s3://bucket/b"]), common_folder(["/a"]), common_folder(["/a", "s3://bucket"])
    ('s3://bucket/', '/a/', '')
    """
    parts = [folder.rstrip("/").split("/") for folder in folders]
    common = [same[0] for same in itertools.takewhile(lambda same: len({*same}) == 1, zip(*parts, strict=False))]
    return "/".join(common) + "/" if common else ""


def inner_path(name: str) -> str:
    """Return a name as a path that does not lead out of its folder, of one line.

    Examples
    --------
    >>> inner_path("./a/../1.jpg"), inner_path("https://host//1.jpg")
    ('a/_/1.jpg', 'https/host/_/1.jpg')
    """
    plain = _CONTROL.sub("_", name.replace("\\", "/").replace("://", "/"))[-MAX_NAME:]
    parts = plain.removeprefix("./").lstrip("/").split("/")
    return "/".join("_" if part in ("", ".", "..") else part for part in parts)


# Tar


def _index_tar(file: BinaryIO, container: str, column: str, stamp: tuple[int, ...]) -> _Index:
    starts, sizes, names = array("q"), array("q"), []
    problem = ""
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (one := tar.next()) is not None:
                if one.size < 0:
                    raise ValueError("a file of negative size")  # It would be followed back, without end.
                tar.members = []  # type: ignore[attr-defined]  # It would keep a kilobyte of each.
                base = posixpath.basename(one.name)
                is_picture = posixpath.splitext(base)[1].lower() in IMAGE_SUFFIXES and not base.startswith(".")
                if one.isreg() and not one.issparse() and is_picture:
                    starts.append(one.offset_data)
                    sizes.append(one.size)
                    names.append(one.name)
            # To tarfile a header that is damaged is the end.
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise tarfile.ReadError("a header is damaged")
    except (tarfile.TarError, *_OF_DAMAGE) as error:
        problem = f"is no tar file from some place on, or damaged ({reason_of(error)}); copy or download it again"
        if not names:
            raise ImageError(f"{container}: {problem}") from error
    listed = distinct_names(names)
    return _Index(
        container,
        column,
        stamp,
        Names([*listed, ""]) if problem else listed,
        np.array(starts),
        np.array(sizes),
        problem,
    )


# Parquet


def _index_parquet(file: BinaryIO, container: str, column: str, stamp: tuple[int, ...]) -> _Index:
    import pyarrow.parquet as pq

    with _told_of_parquet(container), pq.ParquetFile(file, pre_buffer=False) as table:
        _, leaf = _leaves(container, table.schema_arrow, column)
        if not leaf:
            return _Index(container, column, stamp, distinct_names(itertools.repeat(None, table.metadata.num_rows)))
        batches = table.iter_batches(batch_size=65536, columns=[leaf])
        return _Index(container, column, stamp, distinct_names(name for one in batches for name in _values(one, leaf)))


@contextmanager
def _told_of_parquet(name: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # Of damage Arrow raises an OSError without a number too.
        is_damage = isinstance(error, (pa.ArrowException, *_OF_DAMAGE)) or (type(error) is OSError and not error.errno)
        if not is_damage and (isinstance(error, OSError) or is_url(name)):
            raise
        text = f"is not Parquet, or damaged ({reason_of(error)}); copy or download it again"
        raise ImageError(f"{name}: {text}") from error


def _leaves(container: str, schema: pyarrow.Schema, asked: str) -> tuple[str, str]:
    """Return the columns of the bytes and of the names, which may be fields of a struct; "" if there are no names."""
    import pyarrow as pa

    def leaf_of(one: pyarrow.Field) -> str:
        if pa.types.is_struct(one.type) and one.type.get_field_index("bytes") >= 0:
            return f"{one.name}.bytes" if _is_bytes(one.type.field("bytes").type) else ""
        return one.name if _is_bytes(one.type) else ""

    found = {one.name: leaf for one in schema if (leaf := leaf_of(one))}
    names = " ".join(", ".join(f"{one.name} {one.type}" for one in schema).split())[:400]
    if asked and asked not in found:
        text = f"has no column {asked!r} with bytes of pictures" if asked not in schema.names else (
            f"its column {asked!r} does not have bytes, nor a struct of bytes and path"
        )  # fmt: skip
        raise SettingError(f"{container}: {text}; there is: {names}")
    chosen = asked or (_IMAGE if _IMAGE in found else next(iter(found)) if len(found) == 1 else "")
    if not chosen:
        text = "name the column with the pictures (--column)" if found else "no column has bytes of pictures"
        raise SettingError(f"{container}: {text}; there is: {names}")
    struct = schema.field(chosen).type
    if _NAME in schema.names and _is_text(schema.field(_NAME).type):
        return found[chosen], _NAME
    if found[chosen] != chosen and struct.get_field_index("path") >= 0 and _is_text(struct.field("path").type):
        return found[chosen], f"{chosen}.path"
    return found[chosen], ""


def _is_bytes(kind: pyarrow.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_text(kind: pyarrow.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _values(batch: pyarrow.RecordBatch, leaf: str) -> list[Any]:
    column = batch.column(0)
    return (column.flatten()[0] if "." in leaf and column.type.num_fields else column).to_pylist()


class _Rows:
    """The encoded pictures of one Parquet file, read from front to back; the last ones are kept."""

    def __init__(self, container: str, column: str, stamp: tuple[int, ...]) -> None:
        import pyarrow.parquet as pq

        # A buffer of a megabyte a column; else a whole row group would be in memory, which may be a whole file.
        source = open_url(container) if is_url(container) else container
        self.file = pq.ParquetFile(source, pre_buffer=False, buffer_size=2**20)
        self.leaf, _ = _leaves(container, self.file.schema_arrow, column)
        footer = self.file.metadata
        self.ends = np.cumsum([footer.row_group(i).num_rows for i in range(footer.num_row_groups)], dtype=np.int64)
        self.batches: Iterator[pyarrow.RecordBatch] = iter(())
        self.group, self.next = -1, 0
        self.kept: deque[tuple[int, list[bytes | None], int]] = deque()  # first row, rows, bytes
        self.lock = threading.Lock()

    def read(self, row: int) -> bytes | None:
        """Read a row. One that lies before those that are kept is read again from the start of its row group."""
        with self.lock:
            while True:
                for first, rows, _ in self.kept:
                    if first <= row < first + len(rows):
                        return rows[row - first]
                group = int(np.searchsorted(self.ends, row, side="right"))
                if group == len(self.ends):
                    raise ValueError(f"it has no row {row}")
                if group != self.group or row < self.next:
                    self._start(group)
                self._advance()

    def _start(self, group: int) -> None:
        self.group, self.next = group, int(self.ends[group - 1]) if group else 0
        footer = self.file.metadata.row_group(group)
        count = max(1, _BATCH_BYTES * footer.num_rows // max(1, footer.total_byte_size))
        columns = {"columns": [self.leaf], "batch_size": int(min(count, 64))}
        self.batches = self.file.iter_batches(row_groups=[group], **columns)

    def _advance(self) -> None:
        try:
            rows = _values(next(self.batches), self.leaf)
        except StopIteration:
            self.group = -1
            raise ValueError("a row group ends early") from None
        except BaseException:
            self.group = -1  # The next one begins anew.
            raise
        self.kept.append((self.next, rows, sum(len(one) for one in rows if one is not None)))
        self.next += len(rows)
        while len(self.kept) > 2 and sum(size for *_, size in self.kept) > _KEPT_BYTES:
            self.kept.popleft()


_rows_of = functools.lru_cache(4)(_Rows)  # By the stamp too: a file that was replaced is another one.


def _read_row(member: Member) -> bytes:
    with told_of(member.container), _told_of_parquet(str(member)):
        data = _rows_of(member.container, member.column, member.stamp[:-1]).read(member.position)
        if data is None:
            raise ImageError(f"{member}: the row has no bytes of a picture")
        return data
