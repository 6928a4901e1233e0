"""Proposals of any number of pictures: resumable, in bounded memory, the same file whatever happened on the way.

Every finished picture goes into a journal beside the output. When all are finished, the journal is turned into the
format asked for, in the order of the pictures. A run that was interrupted, at any moment and in any way, goes on from
its journal.
"""

import json
import pickle
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...data import Proposals, write_proposals
from ...data.errors import SettingError, reason_of
from ...data.formats.by_suffix import check_suffix
from ...data.formats.programs import LISTS_ALL, Program, check_program_path, write_for_program
from ...data.images.containers import Members
from ...data.images.reading import MAX_PIXELS, loaded
from ...data.picture_names import as_text
from ...data.proposals import check_image_ids, check_mask_suffix
from ...data.system.atomic_files import remove_leftovers
from ...data.system.kernels import compile_all
from ...data.system.processes import ProcessDied, map_processes
from ...proposals import Proposer, SelectiveSearch
from ...proposals.proposer import propose_boxes
from ...proposals.search.regions import KERNELS as MASK_KERNELS
from .cluster import Stage, map_cluster
from .destination import Destination
from .failures import Failure, failure
from .journal import Journal, Record
from .names import RunFiles, package_version
from .stages import PictureOfRun, Searched, SearchWork, Timed, search_alone
from .summary import RunSummary, conclude


class _Proposed(NamedTuple):
    """The boxes and scores (N, 5) of a picture, and the run lengths of their masks, one a line."""

    record: Record
    table: NDArray[np.float32]
    masks: bytes = b""


def propose_pictures(
    paths: Iterable[str | Path] | Members,
    output: str | Path,
    proposer: Proposer,
    *,
    workers: int | None = None,
    cluster: str | None = None,
    max_pixels: int = MAX_PIXELS,
    image_ids: Mapping[str, int | str] | None = None,
    masks: bool = False,
    program: Program | None = None,
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
        Can be pickled, if `workers` is above 1 or there is a `cluster`. A network that works in several processes
        should have one thread.
    workers : int, optional
        Processes; with more than 1, a script that calls this needs ``if __name__ == "__main__":``. Default 1; with
        `cluster` as many as find room.
    cluster : str, optional
        The cluster that does the work, see `cluster.check_address`.
    max_pixels : int
        See `inception_rcnn.data.read_image`.
    image_ids : mapping of str to int or str, optional
        See `inception_rcnn.data.write_proposals`.
    masks : bool
        Whether the regions behind the boxes are written too, see `inception_rcnn.data.Proposals`. The proposer is a
        `SelectiveSearch` then, the file ``.parquet`` or ``.json``.
    program : {"mmdetection", "mmdetection2", "soco", "orl", "detreg"}, optional
        The file is that which the program reads, see `inception_rcnn.data.formats.programs.write_for_program`.
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
        If `paths` is one name, the proposer's settings hold what JSON does not have, it cannot be sent to processes, or
        it has no masks.
    ProposalFileError
        If the suffix is not known or has no place for masks, `image_ids` lacks a picture or has an id twice, or the
        format cannot hold the proposals: then the journal stays, and the same call with another suffix turns it
        into another format.
    ClusterError
        See `cluster.connected`.
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
    if program is not None:
        check_program_path(program, output)
    suffix = check_suffix(output) if program is None else ""
    if masks:
        check_mask_suffix(output)
        if not isinstance(proposer, SelectiveSearch):
            raise SettingError("masks: only the boxes of selective search have regions; use a SelectiveSearch")
    if image_ids is not None:
        check_image_ids(output, (_name(files, i) for i in range(len(files))), image_ids)
    settings = {**proposer.settings, **({"masks": True} if masks else {}), "version": package_version()}
    place.begin(errors)
    with Journal(output.with_suffix(".journal"), settings, files, columns=5) as journal:
        summary = RunSummary(resumed=journal.finished)
        _propose_all(proposer, files, journal, workers, cluster, max_pixels, masks, progress, stop)
        remove_leftovers(output)
        # .mat and .pkl are read by position: there a file without a result must not move the ones behind it.
        lists_all = suffix in (".mat", ".pkl") or program in LISTS_ALL
        kept = np.arange(len(files)) if lists_all else np.flatnonzero(journal.offsets)
        entries = _Entries(journal, files, kept, masks, files.folder if program == "mmdetection" else "")
        if program is not None:
            write_for_program(program, output, entries)
        else:
            metadata = {"inception-rcnn": json.dumps(settings, default=np.generic.item)}
            write_proposals(output, entries, image_ids=image_ids, metadata=metadata)
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
    workers: int | None,
    cluster: str | None,
    max_pixels: int,
    masks: bool,
    progress: Callable[[int], None],
    stop: Callable[[], bool],
) -> None:
    """Add the boxes of pictures to the journal, or why they have none."""
    done = resumed = journal.finished
    progress(resumed)
    todo = (i for i in range(len(files)) if not journal.offsets[i])
    pictures = (PictureOfRun(i, files.path(i), files[i], _name(files, i), "") for i in todo)
    if (workers or 1) > 1 or cluster is not None:
        try:
            pickle.dumps(proposer)
        except Exception as error:  # Whatever an object of somebody else does when it is pickled.
            reason = reason_of(error)
            text = f"the proposer cannot be sent to worker processes ({reason}); make it picklable, or use workers=1"
            raise SettingError(text) from error
    results: Generator[tuple[int, _Proposed | Failure | ProcessDied], None, None]
    if cluster is None:
        if resumed < len(files):
            # Otherwise each process would do it.
            compile_all(*getattr(proposer, "kernels", ()), *(MASK_KERNELS if masks else ()))
        work = partial(_propose, proposer, max_pixels, masks=masks)
        begun: Iterator[PictureOfRun] = takewhile(lambda _: not stop(), pictures)
        if (workers or 1) > 1:
            begun = (picture._replace(path=loaded(picture.path, max_pixels)) for picture in begun)
        answers = map_processes(work, begun, workers or 1)
        results = ((picture.position, result) for picture, result in answers)
    else:
        items = ((picture.position, picture) for picture in pictures)
        results = map_cluster(_stages(proposer, max_pixels, masks), items, len(files) - resumed, cluster, workers, stop)
    # When this loop ends early, what waits is not worked on first.
    with closing(results):
        for done, (i, result) in enumerate(results, resumed + 1):
            if isinstance(result, ProcessDied):
                result = failure(files.path(i), result)
            if isinstance(result, Failure):
                journal.append_failure(i, result)
            else:
                journal.append(i, *result)
            progress(done)
            if cluster is not None and stop():
                break
    if done < len(files):
        raise KeyboardInterrupt


def _stages(proposer: Proposer, max_pixels: int, masks: bool) -> list[Stage]:
    """Divide the work among the workers of a cluster: a network on a GPU has workers of its own."""
    trunk = getattr(getattr(proposer, "multibox", proposer), "trunk", None)
    if trunk is None or trunk.placement.device == "cpu":
        return [Stage(partial(_propose, proposer, max_pixels, masks=masks, elsewhere=True))]
    search = SearchWork(search_alone(proposer), max_pixels, elsewhere=True)
    return [Stage(search), Stage(partial(_rank, proposer), gpus=1)]


def _propose(
    proposer: Proposer, max_pixels: int, picture: PictureOfRun, *, masks: bool = False, elsewhere: bool = False
) -> _Proposed | Failure:
    """Read a picture and propose boxes for it, in a worker process."""
    # The search of a run returns boxes only; with masks, all is done in the second step.
    return _rank(proposer, picture, SearchWork(None if masks else proposer, max_pixels, elsewhere)(picture), masks)


def _rank(proposer: Proposer, picture: PictureOfRun, given: Timed, masks: bool = False) -> _Proposed | Failure:
    """Propose the boxes of a picture that was read and searched, if it was."""
    searched = given.result
    if not isinstance(searched, Searched):
        assert isinstance(searched, Failure)
        return searched
    try:
        image, repair, more_frames = searched.decoded
        height, width = image.shape[:2]
        record = Record(picture.key, searched.stamp, width, height, repair=repair, more_frames=more_frames)
        if masks:
            assert isinstance(proposer, SelectiveSearch)
            regions = proposer.regions(image)
            lengths = b"\n".join(regions.run_lengths(i)["counts"] for i in range(len(regions)))
            return _Proposed(record, np.column_stack([regions.boxes, regions.scores]), lengths)
        boxes, scores = propose_boxes(proposer, image, picture.name, searched.regions)
        return _Proposed(record, np.column_stack([boxes, scores]))
    except Exception as error:  # One file must not end a run over thousands; the line says what happened.
        return failure(picture.path, error)


def _name(files: RunFiles, picture: int) -> str:
    return as_text(files.name(picture))


class _Entries(Sequence[Proposals]):
    """Pictures of a journal in the order of the output, read from the disk one at a time."""

    def __init__(
        self, journal: Journal, files: RunFiles, pictures: NDArray[np.int64], masks: bool, prefix: str
    ) -> None:
        self.journal, self.files, self.pictures, self.masks, self.prefix = journal, files, pictures, masks, prefix

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        picture = self.pictures[index]
        name = self.prefix + _name(self.files, picture)
        if not self.journal.offsets[picture]:
            return Proposals(name, 0, 0, np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
        record, table = self.journal.read(picture)
        lengths = self.journal.read_more(picture).splitlines() if self.masks else None
        return Proposals(name, record.width, record.height, table[:, :4], table[:, 4], lengths)
