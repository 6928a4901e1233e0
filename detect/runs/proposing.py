"""Proposals of any number of pictures: resumable, in bounded memory, the same file however it came about.

Every finished picture is appended to a journal beside the output. When all are done, the journal is turned into the
format asked for, in the order of the pictures. A run that was interrupted, at any moment and in any way, goes on from
its journal.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import mmap
import os
import struct
import time
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...data import Proposals, atomic_write, read_image, write_proposals
from ...data.errors import JournalError
from ...data.formats.by_suffix import check_suffix
from ...data.proposals import check_image_ids
from ...data.system.atomic_files import remove_leftovers
from ...data.system.kernels import compile_all
from ...data.system.processes import ProcessDied, map_processes
from ...proposals import Proposer
from ...proposals.proposer import propose_boxes
from .names import error_line, package_version, relative_names, stamp


@dataclass
class ProposeSummary:
    """What a run did.

    Attributes
    ----------
    pictures : int
        Pictures with a result, those of an interrupted run before it included.
    resumed : int
        How many of them an interrupted run had done.
    failed : int
        Files that the errors file names.
    passing : int
        How many of them may do better when they are tried again: they were not there, could not be read, or the memory
        did not suffice.
    boxes : int
        Proposals of all pictures.
    seconds : float
        By the clock.
    """

    pictures: int = 0
    resumed: int = 0
    failed: int = 0
    passing: int = 0
    boxes: int = 0
    seconds: float = 0.0


class _Failed(NamedTuple):
    line: dict[str, str]
    passing: bool


class _Found(NamedTuple):
    stamp: list[int]
    width: int
    height: int
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]


def propose_pictures(
    paths: Sequence[Path],
    output: str | Path,
    proposer: Proposer,
    *,
    workers: int = 1,
    image_ids: Mapping[str, int | str] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> ProposeSummary:
    """Propose boxes for many pictures and write them into one file.

    Parameters
    ----------
    paths : sequence of Path
        Distinct files. They appear in the output in this order, named by their paths below the folder that
        holds them all.
    output : str or Path
        The file; its suffix tells the format, see `inception_rcnn.data.write_proposals`. Beside it stands
        ``<name>.errors.jsonl``, a line per file that could not be processed (file, kind, message), and during
        the run ``<name>.journal``. A file that could not be processed is not in the output; only in ``.mat``
        and ``.pkl``, whose readers go by position, it is there without boxes. If the fault may be a passing one (the
        file is gone, the memory was full), the journal stays, and the same call tries those files again.
    proposer : SelectiveSearch or MultiBox or MergedProposals
        What proposes. A network that works in several processes should have one thread.
    workers : int
        Processes; with more than 1, a script that calls this needs ``if __name__ == "__main__":``.
    image_ids : mapping of str to int or str, optional
        See `inception_rcnn.data.write_proposals`.
    progress : callable
        Gets the number of files finished so far, failed ones included.

    Returns
    -------
    ProposeSummary

    Raises
    ------
    JournalError
        If another run is writing this output, or an interrupted one had other settings or other pictures.
    ProposalFileError
        If the suffix is not known, `image_ids` lacks a picture or has an id twice, or the format cannot hold the
        proposals: then the journal stays, and the same call with another suffix turns it into another format.
    ProcessStartError
        If `workers` is above 1 and processes cannot be started here.
    OSError
        If the output cannot be written.

    Examples
    --------
    >>> import tempfile, skimage
    >>> picture = Path(skimage.__file__).parent / "data" / "chelsea.png"
    >>> from inception_rcnn.proposals import SelectiveSearch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     summary = propose_pictures([picture], Path(folder, "cat.npz"), SelectiveSearch("single", limit=50))
    ...     summary.pictures, summary.boxes, np.load(Path(folder, "cat.npz"))["files"].tolist()
    (1, 50, ['chelsea.png'])
    """
    began = time.perf_counter()
    output = Path(output)
    suffix = check_suffix(output)
    keys = [os.path.abspath(path) for path in paths]
    names = dict(zip(keys, map(_printable, relative_names(paths)), strict=True))
    if image_ids is not None:
        check_image_ids(output, names.values(), image_ids)
    settings = {**proposer.settings, "version": package_version()}
    failures: list[_Failed] = []
    with _Journal(output.with_suffix(".journal"), repr(settings), names) as journal:
        todo = [path for path, key in zip(paths, keys, strict=True) if key not in journal.places]
        resumed = done = len(paths) - len(todo)
        progress(done)
        if todo:
            # Before the processes start, which would all do it.
            compile_all(*getattr(proposer, "kernels", ()))
        # Closed at once when this loop ends early, so that what waits is not done first.
        with closing(map_processes(partial(_propose, proposer), todo, workers)) as results:
            for path, result in results:
                if isinstance(result, _Found):
                    journal.append(os.path.abspath(path), result)
                elif isinstance(result, ProcessDied):
                    reason = "the process that worked on it ended; too large for the memory, or a broken decoder"
                    line = {"file": str(path), "kind": "ProcessDied", "message": f"{path}: {reason}"}
                    failures.append(_Failed(line, passing=True))
                else:
                    failures.append(result)
                done += 1
                progress(done)
        # Read by position, a file without a result must not move the ones behind it.
        by_position = suffix in (".mat", ".pkl")
        kept = keys if by_position else [key for key in keys if key in journal.places]
        remove_leftovers(output)
        metadata = {"inception-rcnn": json.dumps(settings, default=repr)}
        write_proposals(output, _Entries(journal, kept, names), image_ids=image_ids, metadata=metadata)
        atomic_write(
            output.with_suffix(".errors.jsonl"), "".join(json.dumps(failed.line) + "\n" for failed in failures)
        )
        passing = sum(failed.passing for failed in failures)
        if not passing:
            journal.remove()
        counts = [journal.places[key].boxes for key in keys if key in journal.places]
    return ProposeSummary(len(counts), resumed, len(failures), passing, sum(counts), time.perf_counter() - began)


def _printable(name: str) -> str:
    """Name a file as its format can: a name need not be text, but these files hold text."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _propose(proposer: Proposer, path: Path) -> _Found | _Failed:
    try:
        # Before reading: a picture that is replaced meanwhile must not pass for the one that was read.
        before = stamp(path) if path.is_file() else []
        image = read_image(path)
        return _Found(before, image.shape[1], image.shape[0], *propose_boxes(proposer, image, path.name))
    except Exception as error:  # One file must not end a run over thousands; the line says what happened.
        cause = error.__cause__ or error
        # Pillow raises an OSError without a number for bad content.
        system = isinstance(cause, OSError) and cause.errno is not None
        return _Failed(error_line(path, error), system or isinstance(cause, MemoryError) or not path.is_file())


class _Place(NamedTuple):
    """Where a picture's boxes and scores are in the journal."""

    offset: int
    boxes: int
    width: int
    height: int


class _Journal:
    """One file, only ever appended to: a header, then a record a picture.

    A record is a mark, the lengths of its two parts, a checksum over them, and the parts: a line that says which
    picture it is, and its boxes and scores. What an interruption left at the end is cut off; a record that was
    damaged in any way is passed over, and its picture done again.
    """

    HEADER = b"inception-rcnn proposals journal, settings "
    MARK = b"\xf0IRC"
    FRAME = struct.Struct("<4sIII")  # mark, length of the line, length of boxes and scores, checksum

    def __init__(self, path: Path, settings: str, known: Collection[str]) -> None:
        self.path = path
        self.places: dict[str, _Place] = {}
        self.file = open(path, "a+b")  # noqa: SIM115 - closed by __exit__
        try:
            self._begin(self.HEADER + hashlib.sha256(settings.encode()).hexdigest().encode() + b"\n", known)
        except BaseException:
            self.file.close()
            raise

    def _begin(self, header: bytes, known: Collection[str]) -> None:
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalError(
                f"{self.path}: another run is writing there; wait for it, or name another output"
            ) from None
        self.file.seek(0)
        first = self.file.read(len(header))
        if first == header:
            end, others = self._read_records(len(header), known)
            if others and not self.places:
                raise JournalError(
                    f"{self.path}: left by a run over {others} other pictures; finish that one first, name another "
                    "output, or delete that file"
                )
            self.file.truncate(end)
        elif header.startswith(first):  # new, or interrupted at its very beginning
            self.file.truncate(0)
            self.file.write(header)
        elif first.startswith(self.HEADER):
            raise JournalError(
                f"{self.path}: left by a run with other settings or another version; repeat it with those, name "
                "another output, or delete that file to begin anew"
            )
        else:
            raise JournalError(f"{self.path}: is in the way and no journal of this program; name another output")
        self.file.flush()

    def _read_records(self, start: int, known: Collection[str]) -> tuple[int, int]:
        """Fill `places`; return where the last whole record ends, and how many are not of `known` pictures."""
        end, others = start, 0
        with mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            at = data.find(self.MARK, start)
            while at >= 0:
                record = self._record(data, at)
                if record is None:
                    at = data.find(self.MARK, at + 1)
                    continue
                row, place, end = record
                path = Path(row["file"])
                if row["file"] not in known:
                    others += 1
                # A picture that was changed since is done again.
                elif path.is_file() and stamp(path) == row["stamp"]:
                    self.places[row["file"]] = place
                at = data.find(self.MARK, end)
        return end, others

    def _record(self, data: mmap.mmap, at: int) -> tuple[dict[str, Any], _Place, int] | None:
        """Read the record at a place: its line, where its boxes are, where it ends. None if it is not whole."""
        body = at + self.FRAME.size
        if body > len(data):
            return None
        _, line_size, size, checksum = self.FRAME.unpack_from(data, at)
        end = body + line_size + size
        if end > len(data) or zlib.crc32(memoryview(data)[body:end]) != checksum:
            return None
        row = json.loads(data[body : body + line_size])
        return row, _Place(body + line_size, size // 20, row["width"], row["height"]), end

    def append(self, key: str, found: _Found) -> None:
        """Note a finished picture; it outlives this process from here on."""
        body = found.boxes.astype("<f4").tobytes() + found.scores.astype("<f4").tobytes()
        row = {"file": key, "stamp": found.stamp, "width": found.width, "height": found.height}
        line = json.dumps(row).encode()
        frame = self.FRAME.pack(self.MARK, len(line), len(body), zlib.crc32(line + body))
        try:
            start = self.file.seek(0, os.SEEK_END)
            self.file.write(frame + line + body)
            self.file.flush()
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}; the same call goes on from there", str(self.path)) from error
        self.places[key] = _Place(start + len(frame) + len(line), len(found.scores), found.width, found.height)

    def read(self, place: _Place) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Boxes (N, 4) and scores (N,) of a picture."""
        self.file.seek(place.offset)
        values = np.frombuffer(self.file.read(place.boxes * 20), "<f4").astype(np.float32)
        return values[: 4 * place.boxes].reshape(-1, 4), values[4 * place.boxes :]

    def remove(self) -> None:
        """Delete the file, when all that is in it stands elsewhere."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> _Journal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()


class _Entries(Sequence[Proposals]):
    """The journal's pictures in the order of the output, read from the disk one at a time."""

    def __init__(self, journal: _Journal, keys: Sequence[str], names: Mapping[str, str]) -> None:
        self.journal, self.keys, self.names = journal, keys, names

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        key = self.keys[index]
        if key not in self.journal.places:
            return Proposals(self.names[key], 0, 0, np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
        place = self.journal.places[key]
        return Proposals(self.names[key], place.width, place.height, *self.journal.read(place))
