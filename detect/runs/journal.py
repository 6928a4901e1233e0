"""The journal of a run: one record for every finished picture, kept on the disk until the results are written.

It is one file beside the output, and it only grows: a header with a hash of the run's settings, then the records. A
record is a mark, the lengths of its two parts, a checksum of both, and the parts: a line of JSON about the picture, and
a table of its boxes, behind which more may stand. A run that was killed at any moment goes on from its journal. An
incomplete end is cut off. A damaged record is passed over, and its picture is processed again.

A failure has a record too, with another mark, so that failures take no memory either. The next run does not read it: it
tries that picture again.

In memory there are sixteen bytes a picture: where its records begin.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
import threading
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...data.arguments import settings_as_json
from ...data.errors import ImageError, JournalError
from ...data.system.atomic_files import open_locked
from ...data.system.remote import is_url
from .failures import Failure, as_resumable
from .names import RunFiles

# The number is that of the format: records of another one are not read.
_HEADER = b"inception-rcnn journal 1, settings "
_MARK, _FAILED = b"\xf0IRC", b"\xf0IRF"
# So many pictures at URLs that cannot be had, one after the other, are no accident of single ones.
MAX_UNREACHABLE = 100
_FRAME = struct.Struct("<4sIII")  # mark, length of the line, length of the table, checksum of both


class Record(NamedTuple):
    """A finished picture.

    Attributes
    ----------
    file : str
        Absolute path, URL, or name in a container: see `names.RunFiles`.
    stamp : list of int
        See `data.images.sources.stamp`, from before the picture was read.
    width, height : int
        Size in pixels.
    drawn : str
        Where it is drawn below the folder of drawings; "" if it is not drawn.
    repair : str
        What is damaged in the file, see `data.images.reading.DecodedImage`; "" if nothing is.
    more_frames : bool
        Whether the file has more frames or pages than the one that was read.
    more : int
        Bytes that stand behind the table, see `Journal.append`.
    rows : int
        How many boxes it has. It is read off its table, whatever is given to `Journal.append`.
    """

    file: str
    stamp: list[int]
    width: int
    height: int
    drawn: str = ""
    repair: str = ""
    more_frames: bool = False
    more: int = 0
    rows: int = 0


class Journal:
    """The finished pictures of a run, in a file that is locked as long as it is open.

    Parameters
    ----------
    path : Path
        The file. It is made if it does not exist.
    settings : object
        What the results depend on, see `data.arguments.settings_as_json`.
    pictures : RunFiles
        The run's pictures. From here on a picture is its position among them.
    columns : int
        Numbers per box in the tables: x1, y1, x2, y2, score, and what else a run keeps.
    other_pictures : bool
        Accept a journal of other pictures. Their records are then `outdated`, and the caller removes their results.
    anew : str
        What must be deleted to begin anew, for errors.

    Attributes
    ----------
    offsets : ndarray of int64, shape (P,)
        Where the record of each picture begins in the file, in bytes; 0 of a picture that is not finished. Whoever sets
        it to 0 has the picture forgotten.
    failed : ndarray of int64, shape (P,)
        The same of the failures of this run.
    outdated : list of int
        Where the records of pictures begin that do not belong to this run, or have changed since.

    Raises
    ------
    OutputError
        If another run has locked the file.
    JournalError
        If it is no journal, or has finished pictures of other settings, or only of other pictures and `other_pictures`
        is false.

    Examples
    --------
    >>> import tempfile
    >>> from inception_rcnn.data.images.sources import stamp
    >>> folder = tempfile.TemporaryDirectory()
    >>> path, picture = Path(folder.name, "journal"), Path(folder.name, "a.jpg")
    >>> _ = picture.write_bytes(b"pixels")
    >>> with Journal(path, {"limit": 1}, RunFiles([picture]), columns=5) as journal:
    ...     journal.append(0, Record(str(picture), stamp(picture), 20, 10), np.ones((1, 5), np.float32))
    >>> with Journal(path, {"limit": 1}, RunFiles([picture]), columns=5) as journal:
    ...     record, table = journal.read(0)
    >>> record.width, record.rows, table.tolist()
    (20, 1, [[1.0, 1.0, 1.0, 1.0, 1.0]])
    >>> folder.cleanup()
    """

    def __init__(
        self,
        path: Path,
        settings: object,
        pictures: RunFiles,
        columns: int,
        *,
        other_pictures: bool = False,
        anew: str = "that file",
    ) -> None:
        digest = hashlib.sha256(settings_as_json("run", settings).encode()).hexdigest()
        self.header = _HEADER + digest.encode() + b"\n"
        self.path, self.columns, self.anew = path, columns, anew
        self.offsets, self.failed = np.zeros((2, len(pictures)), np.int64)
        self.appending = threading.Lock()
        self.outdated: list[int] = []
        self.unreachable = 0
        self.file = open_locked(path)
        try:
            self._resume(pictures, other_pictures)
        except BaseException:
            self.file.close()
            raise

    def _resume(self, pictures: RunFiles, other_pictures: bool) -> None:
        self.file.seek(0)
        first = self.file.read(len(self.header))
        if first == self.header:
            self._read_records(pictures, other_pictures)
        # New, or killed at its very beginning, or of other settings and without a result.
        elif self.header.startswith(first) or (first.startswith(_HEADER) and not any(self._whole_records())):
            self.clear()
        elif first.startswith(b"inception-rcnn "):
            raise JournalError(
                f"{self.path}: left by a run with other settings, on another device or of another version; repeat it "
                f"with those, name another output, or delete {self.anew} to begin anew"
            )
        else:
            raise JournalError(f"{self.path}: is in the way and no journal of this program; name another output")

    def _read_records(self, pictures: RunFiles, other_pictures: bool) -> None:
        end, others = len(self.header), 0
        position = {file: i for i, file in enumerate(pictures)}
        matched: deque[tuple[int, int, list[int]]] = deque()

        def match() -> Iterator[int]:
            nonlocal end, others
            for start, end, record in self._whole_records():  # noqa: B007 - where the file is cut off
                i = position.get(record.file, -1)
                others += i < 0
                if i >= 0 and record.stamp:
                    matched.append((start, i, record.stamp))
                    yield i
                else:
                    self.outdated.append(start)

        for now in pictures.stamps(match()):
            start, i, before = matched.popleft()
            if before == now:
                self.offsets[i] = start
            else:
                self.outdated.append(start)
        if others and not self.finished and not other_pictures:
            raise JournalError(
                f"{self.path}: left by a run over {others} other pictures; finish that one first, name another "
                f"output, or delete {self.anew}"
            )
        self.file.truncate(end)

    def _whole_records(self) -> Iterator[tuple[int, int, Record]]:
        """Yield begin, end and content of what is neither damaged nor incomplete, in the order of the file."""
        with mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            at = data.find(_MARK, len(self.header))
            while at >= 0:
                line = at + _FRAME.size
                if line > len(data):
                    return
                _, line_size, table_size, checksum = _FRAME.unpack_from(data, at)
                table, end = line + line_size, line + line_size + table_size
                # Views, and not copies: a length that is damaged may be that of nearly the whole file.
                with memoryview(data) as view, view[line:end] as content:
                    whole = end <= len(data) and zlib.crc32(content) == checksum
                if whole:
                    yield at, end, self._record(data[line:table], table_size)
                at = data.find(_MARK, end if whole else at + 1)

    def _record(self, line: bytes, table_size: int) -> Record:
        record = Record(*json.loads(line))
        return record._replace(rows=(table_size - record.more) // (4 * self.columns))

    @property
    def finished(self) -> int:
        """Number of finished pictures."""
        return int(np.count_nonzero(self.offsets))

    @property
    def positions(self) -> Iterator[int]:
        """Finished pictures, in their order."""
        return map(int, np.flatnonzero(self.offsets))

    def append(self, picture: int, record: Record, table: NDArray[np.float32], more: bytes = b"") -> None:
        """Add a finished picture. From here on its result survives the end of this process.

        Parameters
        ----------
        picture : int
        record : Record
        table : ndarray, shape (N, columns), float32
        more : bytes
            What else is kept of the picture.

        Raises
        ------
        OSError
            If the file cannot be written; the text says that the run can go on.
        """
        assert table.shape[1:] == (self.columns,), table.shape
        self.unreachable = 0
        line = json.dumps(record._replace(more=len(more))[:-1]).encode()
        self.offsets[picture] = self._append(_MARK, line, table.astype("<f4").tobytes() + more)

    def append_failure(self, picture: int, failure: Failure) -> None:
        """Add a picture that could not be processed in this run.

        Raises
        ------
        OSError
            See `append`.
        ImageError
            If `MAX_UNREACHABLE` pictures at URLs one after the other could not be had: a network is down, or
            credentials have expired.
        """
        self.failed[picture] = self._append(_FAILED, json.dumps(failure).encode())
        self.unreachable = self.unreachable + 1 if failure.retryable and is_url(failure.line["file"]) else 0
        if self.unreachable == MAX_UNREACHABLE:
            text = f"so ended {MAX_UNREACHABLE} pictures one after the other; the same command goes on from there"
            raise ImageError(f"{failure.line['message']}; {text}")

    def _append(self, mark: bytes, line: bytes, table: bytes = b"") -> int:
        frame = _FRAME.pack(mark, len(line), len(table), zlib.crc32(line + table))
        try:
            with self.appending:
                start = self.file.seek(0, os.SEEK_END)
                self.file.write(frame + line + table)
                self.file.flush()
        except OSError as error:
            raise as_resumable(error, self.path) from error
        return start

    @property
    def failures(self) -> Iterator[Failure]:
        """What failed in this run, in the order of the pictures."""
        for offset in self.failed[self.failed > 0]:
            yield Failure(*json.loads(self._line_at(offset)[0]))

    def record_at(self, offset: int) -> Record:
        """Record that begins there."""
        return self._record(*self._line_at(offset))

    def _line_at(self, offset: int) -> tuple[bytes, int]:
        """Line of a record, and the length of the table that is read next."""
        self.file.seek(offset)
        _, line_size, table_size, _ = _FRAME.unpack(self.file.read(_FRAME.size))
        return self.file.read(line_size), table_size

    def record(self, picture: int) -> Record:
        """Record of a finished picture."""
        return self.record_at(self.offsets[picture])

    def read(self, picture: int) -> tuple[Record, NDArray[np.float32]]:
        """Record and table of a finished picture: shape (N, columns), float32."""
        record = self.record(picture)
        data = self.file.read(record.rows * 4 * self.columns)
        return record, np.frombuffer(data, "<f4").astype(np.float32).reshape(-1, self.columns)

    def read_more(self, picture: int) -> bytes:
        """Return what was appended with the table of a finished picture."""
        record = self.record(picture)
        self.file.seek(record.rows * 4 * self.columns, os.SEEK_CUR)
        return self.file.read(record.more)

    def clear(self) -> None:
        """Remove all records: the run begins anew."""
        self.offsets[:] = 0
        self.outdated = []
        self.file.truncate(0)
        self.file.write(self.header)
        self.file.flush()

    def remove(self) -> None:
        """Delete the file, once the results are written."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self.file.close()
        except OSError:
            # What could not be written, on a full disk for example, has been told, and closing tries it again.
            if exception[0] is None:
                raise
