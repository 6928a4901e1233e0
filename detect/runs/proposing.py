"""Proposals of any number of pictures: resumable, in bounded memory, the same file whatever happened on the way.

Every finished picture goes into a journal beside the output. When all are finished, the journal is turned into the
format asked for, in the order of the pictures. A run that was interrupted, at any moment and in any way, goes on from
its journal.
"""

import json
import pickle
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import takewhile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...data import Proposals, write_proposals
from ...data.errors import SettingError, reason_of
from ...data.formats.by_suffix import check_suffix
from ...data.images.containers import Members
from ...data.images.reading import MAX_PIXELS, loaded, read_stamped
from ...data.images.sources import Source, absolute_name
from ...data.picture_names import as_text
from ...data.proposals import check_image_ids
from ...data.system.atomic_files import remove_leftovers
from ...data.system.kernels import compile_all
from ...data.system.processes import ProcessDied, map_processes
from ...proposals import Proposer
from ...proposals.proposer import propose_boxes
from .destination import Destination
from .failures import Failure, failure
from .journal import Journal, Record
from .names import RunFiles, package_version
from .summary import RunSummary, conclude


def propose_pictures(
    paths: Iterable[str | Path] | Members,
    output: str | Path,
    proposer: Proposer,
    *,
    workers: int = 1,
    max_pixels: int = MAX_PIXELS,
    image_ids: Mapping[str, int | str] | None = None,
    progress: Callable[[int], None] = lambda done: None,
    stop: Callable[[], bool] = lambda: False,
) -> RunSummary:
    """Propose boxes for many pictures and write them into one file.

    Parameters
    ----------
    paths : iterable of str or Path, or Members
        Distinct files, as `find_images` lists them, or pictures in containers, as `find_images_in` lists them.
        They appear in the output in this order, named by their paths below the folder that holds them all.
    output : str or Path
        The file, or a URL, see `destination`; its suffix tells the format, see `inception_rcnn.data.write_proposals`.
        Beside it stands ``<name>.errors.jsonl``, a line per file that could not be processed (file, kind, message), and
        during the run ``<name>.journal``. A file that could not be processed is not in the output; only in ``.mat`` and
        ``.pkl``, whose readers go by position, it is there without boxes. The journal stays if another try may succeed
        (see `failures.is_retryable`); the same call then tries the failed files again.
    proposer : Proposer
        Can be pickled, if `workers` is above 1. A network that works in several processes should have one thread.
    workers : int
        Processes; with more than 1, a script that calls this needs ``if __name__ == "__main__":``.
    max_pixels : int
        See `inception_rcnn.data.read_image`.
    image_ids : mapping of str to int or str, optional
        See `inception_rcnn.data.write_proposals`.
    progress : callable
        Gets the number of files finished so far, failed ones included.
    stop : callable
        Asked before each picture. From True on no more are begun, those in hand are finished, and the run ends.

    Returns
    -------
    RunSummary

    Raises
    ------
    OutputError
        If another run is writing this output.
    JournalError
        If an interrupted run had other settings or other pictures.
    SettingError
        If `paths` is one name, the proposer's settings hold what JSON does not have, or it cannot be sent to processes.
    ProposalFileError
        If the suffix is not known, `image_ids` lacks a picture or has an id twice, or the format cannot hold the
        proposals: then the journal stays, and the same call with another suffix turns it into another format.
    ProcessStartError
        If `workers` is above 1 and processes cannot be started here.
    OSError
        If the output cannot be written.
    KeyboardInterrupt
        If `stop` ended the run; the same call goes on from there.

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
    files, place = RunFiles(paths), Destination(output)
    output, errors = place.path, place.path.with_suffix(".errors.jsonl")
    suffix = check_suffix(output)
    if image_ids is not None:
        check_image_ids(output, (_name(files, i) for i in range(len(files))), image_ids)
    settings = {**proposer.settings, "version": package_version()}
    place.begin(errors)
    with Journal(output.with_suffix(".journal"), settings, files, columns=5) as journal:
        summary = RunSummary(resumed=journal.finished)
        _propose_all(proposer, files, journal, workers, max_pixels, progress, stop)
        remove_leftovers(output)
        # .mat and .pkl are read by position: there a file without a result must not move the ones behind it.
        kept = np.arange(len(files)) if suffix in (".mat", ".pkl") else np.flatnonzero(journal.offsets)
        metadata = {"inception-rcnn": json.dumps(settings, default=np.generic.item)}
        write_proposals(output, _Entries(journal, files, kept), image_ids=image_ids, metadata=metadata)
        conclude(summary, files, journal, errors)
        place.deliver([errors, output])
        if not summary.retryable:
            journal.remove()
            place.remove()
    summary.add_seconds("total", time.perf_counter() - began)
    return summary


def _propose_all(
    proposer: Proposer,
    files: RunFiles,
    journal: Journal,
    workers: int,
    max_pixels: int,
    progress: Callable[[int], None],
    stop: Callable[[], bool],
) -> None:
    """Add the boxes of pictures to the journal, or why they have none."""
    done = resumed = journal.finished
    progress(resumed)
    todo = ((i, files.path(i), _name(files, i)) for i in range(len(files)) if not journal.offsets[i])
    if workers > 1:
        todo = ((i, loaded(path, max_pixels), name) for i, path, name in todo)
    if resumed < len(files):
        compile_all(*getattr(proposer, "kernels", ()))  # Otherwise each process would do it.
    if workers > 1:
        try:
            pickle.dumps(proposer)
        except Exception as error:  # Whatever an object of somebody else does when it is pickled.
            reason = reason_of(error)
            text = f"the proposer cannot be sent to worker processes ({reason}); make it picklable, or use workers=1"
            raise SettingError(text) from error
    # When this loop ends early, what waits is not worked on first.
    begun = takewhile(lambda _: not stop(), todo)
    with closing(map_processes(partial(_propose, proposer, max_pixels), begun, workers)) as results:
        for done, ((i, path, _), result) in enumerate(results, resumed + 1):
            if isinstance(result, ProcessDied):
                result = failure(path, result)
            if isinstance(result, Failure):
                journal.append_failure(i, result)
            else:
                journal.append(i, *result)
            progress(done)
    if done < len(files):
        raise KeyboardInterrupt


def _propose(
    proposer: Proposer, max_pixels: int, picture: tuple[int, Source, str]
) -> tuple[Record, NDArray[np.float32]] | Failure:
    """Read a picture and propose boxes for it, in a worker process."""
    _, path, name = picture
    try:
        stamp, (image, repair, more_frames) = read_stamped(path, max_pixels)
        boxes, scores = propose_boxes(proposer, image, name)
        height, width = image.shape[:2]
        record = Record(absolute_name(path), stamp, width, height, repair=repair, more_frames=more_frames)
        return record, np.column_stack([boxes, scores])
    except Exception as error:  # One file must not end a run over thousands; the line says what happened.
        return failure(path, error)


def _name(files: RunFiles, picture: int) -> str:
    return as_text(files.name(picture))


class _Entries(Sequence[Proposals]):
    """Pictures of a journal in the order of the output, read from the disk one at a time."""

    def __init__(self, journal: Journal, files: RunFiles, pictures: NDArray[np.int64]) -> None:
        self.journal, self.files, self.pictures = journal, files, pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        picture = self.pictures[index]
        name = _name(self.files, picture)
        if not self.journal.offsets[picture]:
            return Proposals(name, 0, 0, np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
        record, table = self.journal.read(picture)
        return Proposals(name, record.width, record.height, table[:, :4], table[:, 4])
