"""Detection in any number of pictures: no finished result is lost, and no bad file ends the run.

While the network scores one picture, threads read the next ones and search them for regions, and one thread draws the
last ones. Every finished picture goes into the journal; a run that was interrupted goes on from there.
"""

import contextlib
import io
import json
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...data import Detections, atomic_write, write_detections
from ...data.errors import JournalError, OutputError, SettingError
from ...data.formats.by_suffix import read_detection_names
from ...data.images.reading import MAX_PIXELS, DecodedImage
from ...data.system.kernels import compile_all
from ...data.system.processes import prefetch
from ...proposals.proposer import Ranked
from ..detector import Detector
from ..drawing import default_draw_score, draw_detections
from .failures import FULL_OR_FORBIDDEN, Failure, as_resumable, failure
from .journal import Journal, Record
from .names import (
    FORMATS,
    REPORT,
    RESULT_FILES,
    THUMBNAILS,
    RunFiles,
    drawn_names,
    folders_inside,
    package_version,
    plain_name,
    read_stamped,
)
from .page.detections import write_run_page
from .page.writing import remove_thumbnails
from .summary import RunSummary, conclude

JOURNAL = "journal"
# If so many pictures one after the other cannot be scored, the pictures are not the reason: the GPU is lost, or a bug.
MAX_FAILURES_IN_A_ROW = 10
MAX_WAITING_DRAWINGS = 4


class _Picture(NamedTuple):
    position: int
    path: Path
    key: str  # absolute path: the picture in the journal
    name: str  # path below the folder of all pictures: the picture in detections.json
    drawn: str  # where it is drawn below pictures/


class _Searched(NamedTuple):
    stamp: list[int]
    decoded: DecodedImage
    regions: Ranked | None
    ready: float  # time when it was finished, by time.perf_counter


def detect_batch(
    paths: Iterable[str | Path],
    output: Path,
    detector: Detector,
    *,
    workers: int = 1,
    max_pixels: int = MAX_PIXELS,
    draw_score: float | None = None,
    format: Literal["json", "parquet", "both"] = "both",
    settings: dict[str, object] | None = None,
    coco_ids: tuple[Mapping[str, int | str], Mapping[str, int | str]] | None = None,
    report: bool = True,
    progress: Callable[[int, str], None] = lambda done, note: None,
) -> RunSummary:
    """Detect objects in many pictures and write the results into a folder.

    Parameters
    ----------
    paths : iterable of str or Path
        Distinct files, as `find_images` lists them.
    output : Path
        Made if it does not exist. Gets ``detections.json`` (COCO format) and ``detections.parquet`` (a row a picture),
        see `inception_rcnn.data.write_detections`, ``pictures/`` (drawn), ``errors.jsonl`` (a line per file that could
        not be processed: file, kind, message) and ``run.json``. During the run it has a ``journal``. The journal stays
        if another try may succeed (see `failures.is_retryable`); the same call then tries the failed files again.
        Results of a run with other settings or other pictures are removed.
    detector : Detector
    workers : int
        Threads that read and search.
    max_pixels : int
        See `inception_rcnn.data.read_image`.
    draw_score : float, optional
        Weaker detections are written but not drawn. Default `drawing.default_draw_score`.
    format : {"json", "parquet", "both"}
        Which files of detections are written. The other one of an earlier run is removed.
    settings : dict, optional
        What the user asked for, for ``run.json``.
    coco_ids : pair of mapping of str to int or str, optional
        Ids of the pictures, by their names below the folder that holds them all, and of the classes, for
        ``detections.json``; see `inception_rcnn.data.write_detections`.
    report : bool
        Whether ``report.html`` is written, the page of the run; see `page.detections.write_run_page`.
    progress : callable
        Gets the number of files finished so far, failed ones included, and `RunSummary.bottleneck`.

    Returns
    -------
    RunSummary

    Raises
    ------
    OutputError
        If another run writes into the folder, or its ``pictures/`` has files that no run drew.
    JournalError
        If a file that is no journal of this version has the journal's place.
    SettingError
        If `paths` is one name, or has a picture in the folder for drawings, or `format` is unknown.
    OSError
        If the output cannot be written.
    Exception
        If `MAX_FAILURES_IN_A_ROW` pictures one after the other cannot be scored: the error of the last.
    """
    began = time.perf_counter()
    if draw_score is None:
        draw_score = default_draw_score(detector.calibration)
    if format not in FORMATS:
        raise SettingError(f"format must be one of {', '.join(FORMATS)}, not {format!r}")
    files = RunFiles(paths)
    (output / "pictures").mkdir(parents=True, exist_ok=True)
    pictures = _Pictures(files)
    if drawings := folders_inside(files, output / "pictures") | folders_inside(files, output / THUMBNAILS):
        raise SettingError(f"{min(drawings)}: its pictures would be overwritten by drawings; name another output")
    _check_drawings(output)
    if (old := output / "journal.jsonl").exists():
        raise JournalError(f"{old}: left by a run of version 0.1; finish it with that version, or delete that file")
    # Other pictures may have the same names below another folder.
    depends_on = [detector.description, draw_score, package_version(), files.folder]
    with Journal(output / JOURNAL, depends_on, files, columns=6, may_restart=True) as journal:
        _remove_outdated(output, journal, pictures)
        run = _Run(detector, output, draw_score, max_pixels, journal, pictures)
        run.summary.resumed = journal.finished
        run.detect(workers, progress)
        run.write_results(FORMATS[format], *(coco_ids or (None, None)))
        failures = [one for _, one in sorted(run.failures.items())]
        conclude(run.summary, files, journal, failures, output / "errors.jsonl")
        used = {"folder": files.folder, "draw_score": draw_score, **detector.description}

        def write_record() -> None:
            run.summary.seconds["total"] = time.perf_counter() - began
            _write_record(output / "run.json", run.summary, settings or {}, used)

        write_record()
        if report:
            progress(len(files), "writing the report")
            with run.summary.timed("report"):
                write_run_page(output, entries=run.entries(Counter()), max_pixels=max_pixels)
            write_record()
        if not run.summary.retryable:
            journal.remove()
    return run.summary


class _Pictures:
    """The pictures of a run by their positions, made when they are asked for."""

    def __init__(self, files: RunFiles) -> None:
        self.files = files
        names = [files.name(i) for i in range(len(files))]
        drawn = zip(names, drawn_names(names), strict=True)
        # Nearly all are drawn under their plain names.
        self.renamed = {i: other for i, (name, other) in enumerate(drawn) if other != plain_name(name)}

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, position: int) -> _Picture:
        name = self.files.name(position)
        drawn = self.renamed.get(position) or plain_name(name)
        return _Picture(position, self.files.path(position), self.files[position], name, drawn)


def _check_drawings(output: Path) -> None:
    """Refuse a folder of drawings that no run has made: what is in it would be overwritten."""
    ours = any((output / name).exists() for name in (JOURNAL, "journal.jsonl", "run.json", *RESULT_FILES))
    if not ours and any((output / "pictures").iterdir()):
        raise OutputError(f"{output / 'pictures'}: has files that no run drew here; name another output")


def _remove_outdated(output: Path, journal: Journal, pictures: _Pictures) -> None:
    """Remove what earlier runs wrote and this one does not go on from, so that no results of two runs are mixed."""
    before = {journal.record_at(offset).drawn for offset in journal.outdated}
    kept = set()
    # A picture without its drawing is done again. Either it was deleted, or the picture could not be drawn, which is
    # then reported again.
    for i in journal.positions:
        drawn = journal.record(i).drawn
        before.add(drawn)
        if drawn == pictures[i].drawn and (output / "pictures" / drawn).is_file():
            kept.add(drawn)
        else:
            journal.offsets[i] = 0
    _remove_drawings(output, before - kept)
    if journal.finished:
        return
    for path in (output / name for name in RESULT_FILES):
        if path.exists():
            with contextlib.suppress(Exception):  # A damaged file raises nearly anything, and is removed too.
                _remove_drawings(output, drawn_names(read_detection_names(path)))
    for name in (*RESULT_FILES, "errors.jsonl", "run.json", REPORT):
        (output / name).unlink(missing_ok=True)
    remove_thumbnails(output / THUMBNAILS)
    journal.clear()


def _remove_drawings(output: Path, drawn: Iterable[str]) -> None:
    for name in drawn:
        if not os.path.isabs(name) and ".." not in Path(name).parts:
            with contextlib.suppress(OSError, ValueError):
                (output / "pictures" / name).unlink(missing_ok=True)


@dataclass
class _Run:
    """What the threads of a run share: one that scores, one that draws, `workers` that read and search."""

    detector: Detector
    output: Path
    draw_score: float
    max_pixels: int
    journal: Journal
    pictures: _Pictures
    summary: RunSummary = field(default_factory=RunSummary)
    failures: dict[int, Failure] = field(default_factory=dict)  # by _Picture.position

    def detect(self, workers: int, progress: Callable[[int, str], None]) -> None:
        """Process the pictures, until each is in the journal or among the failures."""
        done, in_a_row = self.summary.resumed, 0
        drawings: deque[Future[None]] = deque()
        progress(done, "")
        todo = (self.pictures[i] for i in range(len(self.pictures)) if not self.journal.offsets[i])
        if done < len(self.pictures):
            compile_all(*self.detector.kernels)  # Otherwise this time would count as the first picture's.
        # On the way out, the thread that draws still adds to the journal what was scored.
        with (
            ThreadPoolExecutor(max(1, workers), thread_name_prefix="search") as pool,
            ThreadPoolExecutor(1, thread_name_prefix="draw") as drawer,
        ):
            for picture, future in prefetch(pool, self.search, todo, limit=2 * max(1, workers)):
                start, searched = time.perf_counter(), None
                try:
                    with self.summary.timed("wait for pictures"):
                        searched = future.result()
                    found = self.score(picture, searched)
                except Exception as error:  # One file must not end a run over thousands; the line says what happened.
                    self.failures[picture.position] = failure(picture.path, error)
                    in_a_row += searched is not None
                    if in_a_row == MAX_FAILURES_IN_A_ROW:
                        raise
                else:
                    in_a_row = 0
                    self.summary.add_seconds("wait for scoring", max(0.0, start - searched.ready))
                    with self.summary.timed("wait for drawing"):
                        while len(drawings) > MAX_WAITING_DRAWINGS:
                            drawings.popleft().result()
                    drawings.append(drawer.submit(self.draw, picture, searched, found))
                done += 1
                progress(done, self.summary.bottleneck)
            for drawing in drawings:
                drawing.result()

    def search(self, picture: _Picture) -> _Searched:
        """Read a picture and do what needs no network."""
        with self.summary.timed("read"):
            stamp, decoded = read_stamped(picture.path, self.max_pixels)
        with self.summary.timed("search"):
            regions = self.detector.search(decoded.image, picture.name)
        return _Searched(stamp, decoded, regions, time.perf_counter())

    def score(self, picture: _Picture, searched: _Searched) -> Detections:
        """Do what needs the network."""
        with self.summary.timed("trunk"):
            features = self.detector.features(searched.decoded.image)
        with self.summary.timed("merge proposals"):
            proposals, objectness = self.detector.select_regions(features, searched.regions, picture.name)
        with self.summary.timed("score"):
            return self.detector.score(features, proposals, objectness)

    def draw(self, picture: _Picture, searched: _Searched, found: Detections) -> None:
        """Save the drawn picture, then add the result to the journal."""
        target = self.output / "pictures" / picture.drawn
        try:
            with self.summary.timed("draw"):
                _save_drawing(searched.decoded.image, found, self.draw_score, target)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in FULL_OR_FORBIDDEN:
                raise as_resumable(error, target) from error  # The picture is not in the journal and is done again.
            # It cannot be saved in that size or under that name, however often; its detections are good.
            self.failures[picture.position] = failure(picture.path, error)._replace(retryable=False)
        image, repair, more_frames = searched.decoded
        height, width = image.shape[:2]
        table = np.column_stack([found.boxes, found.scores, found.labels]).astype(np.float32)
        record = Record(picture.key, searched.stamp, width, height, picture.drawn, repair, more_frames)
        self.journal.append(picture.position, record, table)

    def write_results(
        self,
        names: Sequence[str],
        image_ids: Mapping[str, int | str] | None,
        category_ids: Mapping[str, int | str] | None,
    ) -> None:
        """Write the files of detections in the order of the pictures, and count the objects that are drawn."""
        # Of two files the second goes first: a run that is killed meanwhile leaves none beside another run's.
        for name in {*RESULT_FILES} - {names[0]}:
            (self.output / name).unlink(missing_ok=True)
        settings = {**self.detector.description, "version": package_version()}
        metadata = {"inception-rcnn": json.dumps(settings, default=np.generic.item)}
        for name in names:
            objects: Counter[str] = Counter()
            entries = self.entries(objects)
            path, classes = self.output / name, self.detector.classes
            write_detections(path, entries, classes, image_ids, category_ids, metadata=metadata)
            self.summary.objects = dict(sorted(objects.items()))

    def entries(self, objects: Counter[str]) -> Iterator[tuple[str, int, int, Detections]]:
        """Yield what is written of each finished picture, and count what is drawn."""
        classes = self.detector.classes
        for i in self.journal.positions:
            record, table = self.journal.read(i)
            found = Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64), classes)
            objects.update(classes[label] for label in found.labels[found.scores >= self.draw_score])
            yield self.pictures.files.name(i), record.width, record.height, found


def _save_drawing(image: NDArray[np.uint8], found: Detections, draw_score: float, target: Path) -> None:
    # One thread draws, so one name will do; a suffix could make the picture's own name too long.
    part = target.with_name(".part")
    try:
        encoded = io.BytesIO()  # Pillow does not notice when a file's last bytes find no room.
        draw_detections(image, found, draw_score).save(encoded, format="JPEG", quality=90)
        target.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(encoded.getvalue())
        part.replace(target)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _write_record(path: Path, summary: RunSummary, settings: Mapping[str, object], used: Mapping[str, object]) -> None:
    """Write run.json: what was asked for, what was used, and what became of it."""
    record = {
        "version": package_version(),
        "settings": settings,
        **used,
        **asdict(summary),
        "seconds": {stage: round(seconds, 3) for stage, seconds in summary.seconds.items()},
    }
    atomic_write(path, json.dumps(record, indent=2, default=str) + "\n")
