"""Detection in any number of pictures: no finished result is lost, and no bad file ends the run.

While the network scores one picture, threads read the next ones and search them for regions, and one thread draws the
last ones. Every finished picture goes into the journal; a run that was interrupted goes on from there.
"""

import contextlib
import hashlib
import itertools
import json
import logging
import os
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal

import numpy as np

from ...data import Detections, atomic_write, write_detections
from ...data.arguments import check_choice, settings_as_json
from ...data.errors import DataWarning, JournalError, OutputError, SettingError
from ...data.formats.by_suffix import read_detection_names
from ...data.images.containers import Members
from ...data.images.reading import MAX_PIXELS
from ...data.images.sources import stamp
from ...data.system.atomic_files import replace_file
from ...data.system.kernels import compile_all
from ...data.system.processes import ProcessDied, prefetch
from ...data.system.remote import local_copy
from ..detector import Detector
from ..drawing import DrawRule, default_draw_score
from .cluster import LOCAL, Stage, check_dot_products, connected, map_cluster
from .destination import Destination
from .failures import FULL_OR_FORBIDDEN, Failure, as_resumable, failure
from .finished import FinishedRun
from .journal import Journal
from .labels import Exports, FoundPicture, export_pictures, export_run
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
)
from .page.detections import write_run_page
from .page.writing import remove_thumbnails
from .stages import (
    MAX_FAILURES_IN_A_ROW,
    PictureOfRun,
    Scored,
    Searched,
    detection_works,
    draw_picture,
    read_and_search,
    score_picture,
)
from .summary import RunSummary, conclude

JOURNAL = "journal"
_log = logging.getLogger(__name__)
MAX_WAITING_DRAWINGS = 4


def detect_batch(
    paths: Iterable[str | Path] | Members,
    output: str | Path,
    detector: Detector,
    *,
    workers: int | None = None,
    cluster: str | None = None,
    max_pixels: int = MAX_PIXELS,
    draw_score: float | None = None,
    format: Literal["json", "parquet", "both"] = "both",
    settings: dict[str, object] | None = None,
    coco_ids: tuple[Mapping[str, int | str], Mapping[str, int | str]] | None = None,
    drawings: bool = True,
    report: bool = True,
    exports: Exports | None = None,
    progress: Callable[[int, str], None] = lambda done, note: None,
    stop: Callable[[], bool] = lambda: False,
) -> RunSummary:
    """Detect objects in many pictures and write the results into a folder.

    Parameters
    ----------
    paths : iterable of str or Path, or Members
        Distinct files, as `find_images` lists them, or pictures in containers, as `find_images_in` lists them.
    output : str or Path
        Made if it does not exist. Or a URL, see `destination`. Gets ``detections.json`` (COCO format) and
        ``detections.parquet`` (a row a picture), see `inception_rcnn.data.write_detections`, ``pictures/`` (drawn),
        ``errors.jsonl`` (a line per file that could not be processed: file, kind, message) and ``run.json``. During the
        run it has a ``journal``. The journal stays if another try may succeed (see `failures.is_retryable`); the same
        call then tries the failed files again. Results of a run with other settings or other pictures are removed.
    detector : Detector
    workers : int, optional
        Threads that read and search; default 1. With `cluster` processes that score; default as many as find room.
    cluster : str, optional
        The cluster that does the work, see `cluster.check_address`. A detector on a CPU has one thread then.
    max_pixels : int
        See `inception_rcnn.data.read_image`.
    draw_score : float, optional
        Weaker detections are written but not drawn. Default `drawing.default_draw_score`. The detector's
        ``hidden_classes`` are not drawn either, unless its settings name classes.
    format : {"json", "parquet", "both"}
        Which files of detections are written. The other one of an earlier run is removed.
    settings : dict, optional
        What the user asked for, for ``run.json``.
    coco_ids : pair of mapping of str to int or str, optional
        Ids of the pictures, by their names below the folder that holds them all, and of the classes, for
        ``detections.json``; see `inception_rcnn.data.write_detections`.
    drawings : bool
        Whether pictures are drawn; drawings take fifty times as much room as all other results.
    report : bool
        Whether ``report.html`` is written, the page of the run; see `page.detections.write_run_page`.
    exports : Exports, optional
        What else is made of the detections that are drawn; see `labels.Exports`.
    progress : callable
        Gets the number of files finished so far, failed ones included, and what takes the most time.
    stop : callable
        Asked before each picture. From True on no more are begun, those in hand are finished, and the run ends.

    Returns
    -------
    RunSummary

    Raises
    ------
    OutputError
        If another run writes into the folder, its ``pictures/`` has files that no run drew, or a folder of `exports`
        cannot be used.
    JournalError
        If a file that is no journal of this version has the journal's place.
    SettingError
        If `paths` is one name, or has a picture in the folder for drawings, `format` is unknown, or the detector has
        several threads and a `cluster` is given.
    ClusterError
        See `cluster.connected`.
    OSError
        If the output cannot be written.
    KeyboardInterrupt
        If `stop` ended the run; the same call goes on from there.
    Exception
        If `MAX_FAILURES_IN_A_ROW` pictures one after the other cannot be scored: the error of the last.
    """
    began = time.perf_counter()
    score = default_draw_score(detector.calibration) if draw_score is None else draw_score
    rule = DrawRule(score, () if detector.settings.only else detector.hidden_classes)
    check_choice("format", format, [*FORMATS])
    placement = detector.scorers[0].placement
    if cluster is not None and placement.device == "cpu" and placement.threads is None:
        raise SettingError("cluster: each worker would take all cores of its machine; load the detector with threads=1")
    files, place = RunFiles(paths), Destination(output)
    output = place.path
    # Other pictures may have the same names below another folder.
    depends_on = [detector.description, rule, package_version(), files.folder]
    wanted = [*depends_on, coco_ids, drawings, report, format]
    results = ("errors.jsonl", "run.json", *FORMATS[format], *([REPORT] if report else []))
    exports = exports or Exports()
    exports.prepare(detector.classes)
    if (before := _finished_before(place, wanted, files, results)) is not None:
        progress(len(files), "")
        if exports:
            _export_finished(place, exports, before, max_pixels)
        return before
    place.begin(output / "errors.jsonl")
    (output / "pictures" if drawings else output).mkdir(parents=True, exist_ok=True)
    pictures = _Pictures(files, drawings)
    _check_output(files, output)
    anew = "that file and the folder pictures beside it"
    with Journal(output / JOURNAL, depends_on, files, columns=6, other_pictures=True, anew=anew) as journal:
        _remove_outdated(output, journal, pictures)
        run = _Run(detector, output, rule, max_pixels, journal, pictures)
        run.summary.resumed = journal.finished
        run.summary.draw_score, run.summary.hidden_classes = rule
        if cluster is None:
            run.detect(workers or 1, progress, stop)
        else:
            run.detect_on_cluster(cluster, workers, progress, stop)
        run.write_results(FORMATS[format], *(coco_ids or (None, None)))
        if exports:
            progress(len(files), "writing crops and labels")
            run.export(exports)
        conclude(run.summary, files, journal, output / "errors.jsonl")
        used: dict[str, object] = {"folder": files.folder, **detector.description}
        if not run.summary.retryable:
            read = (journal.record(i).stamp if journal.offsets[i] else stamp(files.path(i)) for i in range(len(files)))
            used["finished"] = _fingerprint(wanted, files, read)

        def write_record() -> None:
            run.summary.seconds["total"] = time.perf_counter() - began
            _write_record(output / "run.json", run.summary, settings or {}, used)

        write_record()
        place.deliver([output / name for name in ("pictures", "errors.jsonl", *FORMATS[format])])
        if report:
            progress(len(files), "writing the report")
            run.write_page(uploaded=bool(place.url))
            write_record()
        # The last one: where it is, everything is.
        last = [*((THUMBNAILS, REPORT) if report else ()), "run.json"]
        outdated = [output / name for name in RESULT_FILES if name not in FORMATS[format]]
        place.deliver([output / name for name in last], outdated)
        if not run.summary.retryable:
            journal.remove()
            place.remove()
    return run.summary


def _fingerprint(settings: object, files: RunFiles, stamps: Iterable[list[int]]) -> str:
    """Hash all that the results of a finished run depend on: its settings, its pictures, and the state of these."""
    digest = hashlib.sha256(settings_as_json("run", settings).encode())
    for name, known in zip(files, stamps, strict=True):
        digest.update(os.fsencode(f"\0{name}\0{known}"))
    return digest.hexdigest()


def _finished_before(
    place: Destination, settings: object, files: RunFiles, results: Sequence[str]
) -> RunSummary | None:
    """Return the summary of an earlier run that did the same, if its results are there and nothing is to be added."""
    output = place.path
    if (output / JOURNAL).exists():
        return None
    if not place.url and not all((output / name).is_file() for name in results):
        return None
    try:
        record = json.loads(place.read(output / "run.json"))
        summary = RunSummary(**{field.name: record[field.name] for field in fields(RunSummary)})
        if record["finished"] != _fingerprint(settings, files, files.stamps(range(len(files)))):
            return None
    except (OSError, ValueError, TypeError, KeyError):  # None is there, or one of another version or program.
        return None
    summary.resumed, summary.seconds = summary.pictures, {}  # No time was spent.
    return summary


def _export_finished(place: Destination, exports: Exports, before: RunSummary, max_pixels: int) -> None:
    """Make what is asked for of the results of an earlier run; what fails is warned of, and counted."""
    folder = local_copy(place.url, (*RESULT_FILES, "run.json")) if place.url else place.path
    _, failures = export_run(FinishedRun(folder), exports, max_pixels=max_pixels)
    for one in failures:
        warnings.warn(one.line["message"], DataWarning, stacklevel=3)
    before.failed += len(failures)
    before.retryable += sum(one.retryable for one in failures)


class _Pictures:
    """The pictures of a run by their positions, made when they are asked for."""

    def __init__(self, files: RunFiles, drawings: bool) -> None:
        self.files, self.drawings = files, drawings
        if not drawings:
            return
        names = [files.name(i) for i in range(len(files))]
        drawn = zip(names, drawn_names(names), strict=True)
        # Nearly all are drawn under their plain names.
        self.renamed = {i: other for i, (name, other) in enumerate(drawn) if other != plain_name(name)}

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, position: int) -> PictureOfRun:
        name = self.files.name(position)
        drawn = (self.renamed.get(position) or plain_name(name)) if self.drawings else ""
        return PictureOfRun(position, self.files.path(position), self.files[position], name, drawn)


def _check_output(files: RunFiles, output: Path) -> None:
    """Refuse a folder in which pictures, or drawings that no run has made, would be overwritten."""
    if inside := folders_inside(files, output / "pictures") | folders_inside(files, output / THUMBNAILS):
        raise SettingError(f"{min(inside)}: its pictures would be overwritten by drawings; name another output")
    if (old := output / "journal.jsonl").exists():
        raise JournalError(f"{old}: left by a run of version 0.1; finish it with that version, or delete that file")
    ours = any((output / name).exists() for name in (JOURNAL, "run.json", *RESULT_FILES))
    drawings = output / "pictures"
    if not ours and drawings.is_dir() and any(drawings.iterdir()):
        raise OutputError(f"{drawings}: has files that no run drew here; name another output")


def _remove_outdated(output: Path, journal: Journal, pictures: _Pictures) -> None:
    """Remove what earlier runs wrote and this one does not go on from, so that no results of two runs are mixed."""
    before = {journal.record_at(offset).drawn for offset in journal.outdated}
    kept = set()
    # A picture without its drawing is done again. Either it was deleted, or the picture could not be drawn, which is
    # then reported again.
    for i in journal.positions:
        drawn = journal.record(i).drawn
        before.add(drawn)
        there = drawn == pictures[i].drawn and (not drawn or (output / "pictures" / drawn).is_file())
        if there or not pictures.drawings:
            kept.add(drawn)
        else:
            journal.offsets[i] = 0
    _remove_drawings(output, before - kept)
    if journal.finished:
        return
    if (output / "run.json").exists():
        _log.warning("%s: the results of an earlier run are replaced; to keep such, name another output", output)
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
    rule: DrawRule
    max_pixels: int
    journal: Journal
    pictures: _Pictures
    summary: RunSummary = field(default_factory=RunSummary)

    def detect(self, workers: int, progress: Callable[[int, str], None], stop: Callable[[], bool]) -> None:
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
            begun = itertools.takewhile(lambda _: not stop(), todo)
            for picture, future in prefetch(pool, self.search, begun, limit=2 * max(1, workers)):
                start, searched = time.perf_counter(), None
                try:
                    with self.summary.timed("wait for pictures"):
                        searched, ready = future.result()
                    found = score_picture(picture, searched, self.detector, self.summary)
                except Exception as error:  # One file must not end a run over thousands; the line says what happened.
                    self.journal.append_failure(picture.position, failure(picture.path, error))
                    in_a_row += searched is not None
                    if in_a_row == MAX_FAILURES_IN_A_ROW:
                        raise
                else:
                    in_a_row = 0
                    self.summary.add_seconds("wait for scoring", max(0.0, start - ready))
                    with self.summary.timed("wait for drawing"):
                        while len(drawings) > MAX_WAITING_DRAWINGS:
                            drawings.popleft().result()
                    drawings.append(drawer.submit(self.draw, picture, searched, found))
                done += 1
                progress(done, f"slowest: {self.summary.bottleneck}")
            for drawing in drawings:
                drawing.result()
        if done < len(self.pictures):
            raise KeyboardInterrupt

    def detect_on_cluster(
        self, address: str, workers: int | None, progress: Callable[[int, str], None], stop: Callable[[], bool]
    ) -> None:
        """Have the pictures processed by a cluster, until each is in the journal or among the failures."""
        done = self.summary.resumed
        progress(done, "")
        todo = [i for i in range(len(self.pictures)) if not self.journal.offsets[i]]
        placement = self.detector.scorers[0].placement
        on_gpu = placement.device == "cuda"
        works = detection_works(self.detector, self.rule, self.max_pixels, apart=on_gpu)
        stages = [Stage(work) for work in works]
        stages[-1] = stages[-1]._replace(gpus=1) if on_gpu else stages[-1]._replace(cpus=placement.threads or 1)
        items = ((i, self.pictures[i]) for i in todo)
        with ExitStack() as stack:
            if todo and placement.precision == "int8" and address != LOCAL:
                stack.enter_context(connected(address, workers))
                check_dot_products()
            results = stack.enter_context(closing(map_cluster(stages, items, len(todo), address, workers, stop)))
            for done, (i, answer) in enumerate(results, self.summary.resumed + 1):
                if isinstance(answer, ProcessDied):
                    self.journal.append_failure(i, failure(self.pictures.files.path(i), answer))
                else:
                    for stage, seconds in answer.seconds.items():
                        self.summary.add_seconds(stage, seconds)
                    if isinstance(answer.result, Failure):
                        self.journal.append_failure(i, answer.result)
                    else:
                        self.keep(self.pictures[i], answer.result)
                progress(done, "")
        if done < len(self.pictures):
            raise KeyboardInterrupt

    def search(self, picture: PictureOfRun) -> tuple[Searched, float]:
        """Read a picture and do what needs no network; return it with the time when it was finished."""
        return read_and_search(picture, self.detector, self.max_pixels, self.summary), time.perf_counter()

    def draw(self, picture: PictureOfRun, searched: Searched, found: Detections) -> None:
        """Draw a picture and keep its result."""
        self.keep(picture, draw_picture(picture, searched, found, self.rule, self.summary))

    def keep(self, picture: PictureOfRun, scored: Scored) -> None:
        """Save the drawn picture, then add the result to the journal."""
        if scored.failure is not None:
            self.journal.append_failure(picture.position, scored.failure)
        elif picture.drawn:
            target = self.output / "pictures" / picture.drawn
            try:
                replace_file(target, scored.drawing)
            except Exception as error:
                if isinstance(error, OSError) and error.errno in FULL_OR_FORBIDDEN:
                    raise as_resumable(error, target) from error  # It is not in the journal and is done again.
                # It cannot be saved under that name, however often; its detections are good.
                failed = failure(picture.path, error)._replace(retryable=False)
                self.journal.append_failure(picture.position, failed)
        self.journal.append(picture.position, scored.record, scored.table)

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

    def export(self, exports: Exports) -> None:
        """Make what else is asked for of the detections that are drawn."""
        files, positions = self.pictures.files, list(self.journal.positions)
        pictures = (
            FoundPicture(name, files.path(i), width, height, self.rule(found))
            for i, (name, width, height, found) in zip(positions, self.entries(Counter()), strict=True)
        )
        folder = os.path.basename(files.folder.rstrip("/"))
        names = [files.name(i) for i in positions]
        with self.summary.timed("export"):
            for at, error in export_pictures(exports, names, pictures, folder, max_pixels=self.max_pixels):
                position = positions[at]
                self.journal.append_failure(position, failure(files.path(position), error))

    def write_page(self, *, uploaded: bool) -> None:
        """Write the page of the run, which reads run.json."""
        sources = (self.pictures.files.path(i) for i in self.journal.positions)
        entries = self.entries(Counter())
        with self.summary.timed("report"):
            write_run_page(self.output, entries=entries, sources=sources, uploaded=uploaded, max_pixels=self.max_pixels)

    def entries(self, objects: Counter[str]) -> Iterator[tuple[str, int, int, Detections]]:
        """Yield what is written of each finished picture, and count what is drawn."""
        classes = self.detector.classes
        for i in self.journal.positions:
            record, table = self.journal.read(i)
            found = Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64), classes)
            objects.update(self.rule(found).names)
            yield self.pictures.files.name(i), record.width, record.height, found


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
