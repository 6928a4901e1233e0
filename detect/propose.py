"""Proposals of any number of pictures: resumable, in bounded memory, the same file however it came about.

Every finished picture is appended to a journal beside the output. When all are done, the journal is turned into the
format asked for, in the order of the pictures. A run that was interrupted, at any moment and in any way, goes on from
its journal.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data import Proposals, atomic_write, read_image, write_proposals
from ..data.parallel import ProcessDied, map_processes
from ..proposals import SelectiveSearch, compile_kernels
from .runs import error_line, package_version, relative_names, stamp

__all__ = ["JournalError", "ProposeSummary", "propose_batch"]


class JournalError(ValueError):
    """The journal beside the output cannot be gone on from; the text says why and what to do."""


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
    boxes : int
        Proposals of all pictures.
    seconds : float
        By the clock.
    """

    pictures: int = 0
    resumed: int = 0
    failed: int = 0
    boxes: int = 0
    seconds: float = 0.0


class _Found(NamedTuple):
    stamp: list[int]
    width: int
    height: int
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]


def propose_batch(
    paths: Sequence[Path],
    output: Path,
    search: SelectiveSearch,
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
    output : Path
        The file; its suffix tells the format, see `inception_rcnn.data.write_proposals`. Beside it stands
        ``<name>.errors.jsonl``, a line per file that could not be processed (file, kind, message), and during
        the run ``<name>.journal``. A file that could not be processed is not in the output; only in a
        ``.mat``, whose readers go by position, it has a row without boxes.
    search : SelectiveSearch
        What proposes.
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
        If another run is writing this output, or an interrupted one had other settings.
    ProposalFileError
        If the format cannot hold the proposals. The journal stays: the same call with another suffix turns it
        into another format.
    OSError
        If the output cannot be written.

    Examples
    --------
    >>> import tempfile, skimage
    >>> picture = Path(skimage.__file__).parent / "data" / "chelsea.png"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     summary = propose_batch([picture], Path(folder, "cat.npz"), SelectiveSearch("single", limit=50))
    ...     summary.pictures, summary.boxes, np.load(Path(folder, "cat.npz"))["files"].tolist()
    (1, 50, ['chelsea.png'])
    """
    began = time.perf_counter()
    keys = [os.path.abspath(path) for path in paths]
    settings = {name: value for name, value in vars(search).items() if name != "threads"}
    settings |= {"version": package_version()}
    errors: dict[str, dict[str, str]] = {}
    with _Journal(output.with_suffix(".journal"), repr(settings)) as journal:
        todo = [path for path, key in zip(paths, keys, strict=True) if not journal.has(key)]
        resumed = done = len(paths) - len(todo)
        progress(done)
        if todo:
            compile_kernels()  # Before the processes start, which would all do it.
        for path, result in map_processes(partial(_propose, search), todo, workers):
            if isinstance(result, _Found):
                journal.append(os.path.abspath(path), result)
            elif isinstance(result, ProcessDied):
                message = f"{path}: the process that worked on it ended; too large for the memory, or a broken decoder"
                errors[str(path)] = {"file": str(path), "kind": "ProcessDied", "message": message}
            else:
                errors[str(path)] = result
            done += 1
            progress(done)
        # Read by position, a file without a result must not move the ones behind it.
        kept = keys if output.suffix.lower() == ".mat" else [key for key in keys if key in journal.places]
        names = dict(zip(keys, relative_names(paths), strict=True))
        entries = _Entries(journal, kept, names)
        metadata = {"inception-rcnn": json.dumps(settings, default=repr)}
        write_proposals(output, entries, image_ids=image_ids, metadata=metadata)
        atomic_write(
            output.with_suffix(".errors.jsonl"), "".join(json.dumps(error) + "\n" for error in errors.values())
        )
        journal.remove()
    found = [journal.places[key].boxes for key in keys if key in journal.places]
    return ProposeSummary(len(found), resumed, len(errors), sum(found), time.perf_counter() - began)


def _propose(search: SelectiveSearch, path: Path) -> _Found | dict[str, str]:
    try:
        # Before reading: a picture that is replaced meanwhile must not pass for the one that was read.
        before = stamp(path) if path.is_file() else []
        image = read_image(path)
        return _Found(before, image.shape[1], image.shape[0], *search(image))
    except Exception as error:  # One file must not end a run over thousands; the line says what happened.
        return error_line(path, error)


class _Place(NamedTuple):
    """Where a picture's boxes and scores are in the journal."""

    offset: int
    boxes: int
    width: int
    height: int


class _Journal:
    """One file, only ever appended to: a line on the settings, then per picture a line and its boxes and scores.

    A run that was killed leaves at most the last record incomplete; it is cut off. The checksum finds what a
    power failure left of blocks that never reached the disk.
    """

    def __init__(self, path: Path, settings: str) -> None:
        self.path = path
        self.places: dict[str, _Place] = {}
        self.file = open(path, "a+b")  # noqa: SIM115 - closed by __exit__
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.file.close()
            raise JournalError(f"{path}: another run is writing there; wait for it, or name another output") from None
        header = json.dumps({"settings": hashlib.sha256(settings.encode()).hexdigest()}).encode() + b"\n"
        self.file.seek(0)
        first = self.file.readline()
        if first.endswith(b"\n") and first != header:
            self.file.close()
            raise JournalError(
                f"{path}: left by a run with other settings or another version; repeat it with those, "
                "or delete that file to begin anew"
            )
        end = self._read_records() if first == header else 0
        self.file.truncate(end)
        if not end:
            self.file.write(header)
        self.file.flush()

    def _read_records(self) -> int:
        """Fill `places`; return where the last whole record ends."""
        end = self.file.tell()
        while line := self.file.readline():
            try:
                row = json.loads(line)
                body = self.file.read(row["count"] * 20)
                whole = zlib.crc32(body) == row["crc"] and self.file.read(1) == b"\n"
            except (ValueError, KeyError, TypeError):
                break
            if not whole:
                break
            path = Path(row["file"])
            # A picture that was changed since is done again.
            if path.is_file() and stamp(path) == row["stamp"]:
                offset = self.file.tell() - 1 - len(body)
                self.places[row["file"]] = _Place(offset, row["count"], row["width"], row["height"])
            end = self.file.tell()
        return end

    def has(self, key: str) -> bool:
        """Whether the picture at this absolute path is done."""
        return key in self.places

    def append(self, key: str, found: _Found) -> None:
        """Note a finished picture; it outlives this process from here on."""
        body = found.boxes.astype("<f4").tobytes() + found.scores.astype("<f4").tobytes()
        row = {
            "file": key, "stamp": found.stamp, "width": found.width, "height": found.height,
            "count": len(found.scores), "crc": zlib.crc32(body),
        }  # fmt: skip
        line = json.dumps(row).encode() + b"\n"
        end = self.file.seek(0, os.SEEK_END)
        self.file.write(line + body + b"\n")
        self.file.flush()
        self.places[key] = _Place(end + len(line), len(found.scores), found.width, found.height)

    def read(self, place: _Place) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Boxes (N, 4) and scores (N,) of a picture."""
        self.file.seek(place.offset)
        values = np.frombuffer(self.file.read(place.boxes * 20), "<f4").astype(np.float32)
        return values[: 4 * place.boxes].reshape(-1, 4), values[4 * place.boxes :]

    def remove(self) -> None:
        self.path.unlink()

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

    def __iter__(self) -> Iterator[Proposals]:
        return (self[index] for index in range(len(self)))
