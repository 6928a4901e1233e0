"""A run over any number of pictures: nothing finished is lost, and no bad file ends it.

While the network scores one picture, threads read the next ones and propose their regions. Every finished picture is
appended to a journal; a run that was interrupted goes on from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...data import Detections, ImageError, atomic_write, read_image, write_detections
from ...data.system.kernels import compile_all
from ...data.system.processes import prefetch
from ...proposals.proposer import Ranked
from ..detector import Detector
from ..drawing import DRAW_SCORE, draw_detections
from .names import FULL_OR_FORBIDDEN, error_line, package_version, relative_names, stamp

JOURNAL = "journal.jsonl"
# So many pictures one after the other that cannot be scored are no fault of theirs: a GPU that is gone, or a bug.
HOPELESS = 10


@dataclass
class RunSummary:
    """What a run did.

    Attributes
    ----------
    pictures : int
        Pictures with a result, those of an interrupted run before it included.
    resumed : int
        How many of them an interrupted run had done.
    failed : int
        Files that ``errors.jsonl`` names: without a result, or with one that cannot be drawn.
    passing : int
        How many of them may do better when they are tried again, as when the memory was full.
    objects : dict of str to int
        Detections drawn, by class.
    seconds : dict of str to float
        Seconds spent in each stage, summed over threads; ``total`` by the clock. ``wait for pictures`` is how long
        scoring stood still because none was read and searched, ``wait for drawing`` because too many were yet to be
        drawn, ``wait for scoring`` how long pictures that were read and searched stood in line. A GPU works on while
        the next stage begins: part of what it does in ``look`` is counted where its results are first needed.
    """

    pictures: int = 0
    resumed: int = 0
    failed: int = 0
    passing: int = 0
    objects: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def add_seconds(self, stage: str, seconds: float) -> None:
        """Add to the time that a stage took."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    @property
    def standing_still(self) -> float:
        """Share of its time in which scoring waited for pictures: near 0 it is the slower side, near 1 the faster."""
        scoring = sum(self.seconds.get(stage, 0.0) for stage in ("look", "merge proposals", "score"))
        waiting = self.seconds.get("wait for pictures", 0.0)
        return waiting / (waiting + scoring) if waiting else 0.0


class _Searched(NamedTuple):
    stamp: list[int]
    image: NDArray[np.uint8]
    searched: Ranked | None
    read_seconds: float
    search_seconds: float
    ready: float  # when, by the clock


def _search(detector: Detector, path: Path, name: str) -> _Searched:
    start = time.perf_counter()
    # Before reading: a picture that is replaced meanwhile must not pass for the one that was read.
    found = stamp(path) if path.is_file() else []
    image = read_image(path)
    read = time.perf_counter()
    searched = detector.search(image, name)
    ready = time.perf_counter()
    return _Searched(found, image, searched, read - start, ready - read, ready)


def _score(detector: Detector, searched: _Searched, name: str, summary: RunSummary) -> Detections:
    start = time.perf_counter()
    features = detector.features(searched.image)
    looked = time.perf_counter()
    proposals, objectness = detector.select_regions(features, searched.searched, name)
    proposed = time.perf_counter()
    found = detector.score(features, proposals, objectness)
    summary.add_seconds("look", looked - start)
    summary.add_seconds("merge proposals", proposed - looked)
    summary.add_seconds("score", time.perf_counter() - proposed)
    return found


def _read_journal(path: Path) -> tuple[str, dict[str, dict]]:
    """Tell an interrupted run's settings, and its finished pictures by name."""
    settings, done = "", {}
    # The interruption hit the last line; what comes before it is whole.
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError), path.open(encoding="utf-8") as lines:
        settings = str(json.loads(next(lines, "{}"))["settings"])
        for line in lines:
            row = json.loads(line)
            done[str(row["file"])] = row
    return settings, done


def _settings_hash(detector: Detector, draw_score: float, folder: str) -> str:
    state = [detector.description, draw_score, package_version(), folder]
    return hashlib.sha256(json.dumps(state, default=repr).encode()).hexdigest()


def detect_batch(
    paths: Sequence[Path],
    output: Path,
    detector: Detector,
    *,
    workers: int = 1,
    draw_score: float = DRAW_SCORE,
    settings: dict[str, object] | None = None,
    progress: Callable[[int, str], None] = lambda done, note: None,
) -> RunSummary:
    """Detect objects in many pictures and write the results into a folder.

    Parameters
    ----------
    paths : sequence of Path
        Distinct files.
    output : Path
        Made if it does not exist. Gets ``detections.json`` (COCO format), ``pictures/`` (drawn), ``errors.jsonl``
        (a line per file that could not be processed: file, kind, message) and ``run.json``. If the fault may be a
        passing one, the journal stays, and the same call tries those files again.
    detector : Detector
    workers : int
        Threads that read and propose.
    draw_score : float
        Weaker detections are written to ``detections.json`` but not drawn.
    settings : dict, optional
        What the user asked for, for ``run.json``.
    progress : callable
        Gets the number of files finished so far, failed ones included, and a word on which side waits.

    Returns
    -------
    RunSummary

    Raises
    ------
    OSError
        If the output cannot be written.
    Exception
        If ten pictures one after the other cannot be scored: what the tenth said.
    """
    began = time.perf_counter()
    (output / "pictures").mkdir(parents=True, exist_ok=True)
    summary = RunSummary()
    names = relative_names(paths)
    journal_path = output / JOURNAL
    # Other pictures may have the same names below another folder: the journal is about one folder's.
    folder = os.path.abspath(paths[0])[: -len(names[0])] if names else ""
    key = _settings_hash(detector, draw_score, folder)
    known = dict(zip(names, paths, strict=True))
    settings_before, before = _read_journal(journal_path)
    rows = {
        name: row
        for name, row in before.items()
        if settings_before == key
        and name in known and known[name].is_file() and row.get("stamp") == stamp(known[name])
    }  # fmt: skip
    _remove_drawings(output, [row["drawn"] for name, row in before.items() if name not in rows and "drawn" in row])
    if not rows:
        _remove_results(output)
    summary.resumed = len(rows)
    errors: list[dict[str, str]] = []
    in_a_row = 0
    # Rewritten rather than appended to: the interruption may have left half a line.
    header = [{"settings": key}, *rows.values()]
    atomic_write(journal_path, "".join(json.dumps(row) + "\n" for row in header))
    todo = [(name, path) for name, path in known.items() if name not in rows]
    done = len(rows)
    progress(done, "")
    if todo:
        compile_all(*detector.kernels)  # Or the first picture would count what is done once on a machine.

    def collect(path: Path, task: Future[float]) -> None:
        try:
            summary.add_seconds("draw", task.result())
        except Exception as error:
            if getattr(error, "errno", None) in FULL_OR_FORBIDDEN:
                raise
            # No picture in that size or under that name can be saved; its detections are in the journal.
            errors.append(error_line(path, error))

    # The journal is closed last: on the way out, the drawer still notes what was scored.
    with (
        journal_path.open("a", encoding="utf-8") as journal,
        ThreadPoolExecutor(max(1, workers), thread_name_prefix="search") as pool,
        ThreadPoolExecutor(1, thread_name_prefix="draw") as drawer,
    ):
        drawing: deque[tuple[Path, Future[float]]] = deque()
        ahead = prefetch(pool, lambda item: _search(detector, item[1], item[0]), todo, limit=2 * max(1, workers))
        for (name, path), future in ahead:
            start = time.perf_counter()
            searched = None
            try:
                searched = future.result()
                summary.add_seconds("wait for pictures", time.perf_counter() - start)
                found = _score(detector, searched, name, summary)
            except Exception as error:  # One file must not end a run over thousands; the line says what happened.
                errors.append(error_line(path, error))
                summary.passing += not isinstance(error, ImageError | OSError)
                in_a_row += searched is not None
                if in_a_row == HOPELESS:
                    raise
            else:
                in_a_row = 0
                summary.add_seconds("wait for scoring", max(0.0, start - searched.ready))
                summary.add_seconds("read", searched.read_seconds)
                summary.add_seconds("search", searched.search_seconds)
                height, width = searched.image.shape[:2]
                drawn = _drawn_name(name, known)
                rows[name] = _row(name, drawn, searched.stamp, width, height, found)
                scored = time.perf_counter()
                while len(drawing) > 4:
                    collect(*drawing.popleft())
                summary.add_seconds("wait for drawing", time.perf_counter() - scored)
                target = output / "pictures" / drawn
                task = drawer.submit(_draw, searched.image, found, target, draw_score, journal, rows[name])
                drawing.append((path, task))
            done += 1
            progress(done, f"scoring waits {summary.standing_still:.0%}")
        for path, task in drawing:
            collect(path, task)
    summary.pictures, summary.failed = len(rows), len(errors)
    summary.seconds["total"] = time.perf_counter() - began
    _write_results(
        output, [rows[name] for name in names if name in rows], errors, detector, draw_score, summary, settings, folder
    )
    if not summary.passing:
        journal_path.unlink(missing_ok=True)
    return summary


def _write_results(
    output: Path,
    rows: Sequence[dict],
    errors: Sequence[dict[str, str]],
    detector: Detector,
    draw_score: float,
    summary: RunSummary,
    settings: dict[str, object] | None,
    folder: str,
) -> None:
    """Write detections.json, errors.jsonl and run.json, and count the objects in the summary."""
    classes = detector.classes
    write_detections(output / "detections.json", (_entry(row, classes) for row in rows), classes)
    atomic_write(output / "errors.jsonl", "".join(json.dumps(error) + "\n" for error in errors))
    drawn = Counter(
        classes[label]
        for row in rows
        for label, score in zip(row["labels"], row["scores"], strict=True)
        if score >= draw_score
    )
    summary.objects = dict(sorted(drawn.items()))
    record = {
        "version": package_version(),
        "settings": settings or {},
        "folder": folder,
        **detector.description,
        **asdict(summary),
        "seconds": {stage: round(seconds, 3) for stage, seconds in summary.seconds.items()},
    }
    atomic_write(output / "run.json", json.dumps(record, indent=2, default=repr) + "\n")


def _draw(
    image: NDArray[np.uint8], found: Detections, target: Path, draw_score: float, journal: IO[str], row: dict
) -> float:
    """Save the drawn picture, then note the result in the journal."""
    start = time.perf_counter()
    # One thread draws, so one name will do; a suffix could make the picture's own name too long.
    part = target.with_name(".part")
    try:
        encoded = io.BytesIO()  # Pillow does not notice when a file's last bytes find no room.
        draw_detections(image, found, draw_score).save(encoded, format="JPEG", quality=90)
        target.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(encoded.getvalue())
        part.replace(target)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL_OR_FORBIDDEN:  # Not noted: the picture is done again.
            text = f"{error.strerror}; the same command goes on from here"
            raise OSError(error.errno, text, str(target)) from error
        _note(journal, row)
        raise
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    _note(journal, row)
    return time.perf_counter() - start


def _note(journal: IO[str], row: dict) -> None:
    journal.write(json.dumps(row) + "\n")
    journal.flush()


def _drawn_name(name: str, names: Collection[str]) -> str:
    """Where a picture is drawn below ``pictures/``: under its own name, as a JPEG."""
    if name.lower().endswith(".jpg"):
        return name
    return f"{name}.drawn.jpg" if f"{name}.jpg" in names else f"{name}.jpg"


def _remove_drawings(output: Path, drawn: Iterable[str]) -> None:
    for name in drawn:
        if not os.path.isabs(name) and ".." not in Path(name).parts:
            with contextlib.suppress(OSError, ValueError):
                (output / "pictures" / name).unlink(missing_ok=True)


def _remove_results(output: Path) -> None:
    """Remove what an earlier run wrote, so that results of two runs never stand side by side."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        names = {image["file_name"] for image in json.loads((output / "detections.json").read_bytes())["images"]}
        _remove_drawings(output, [_drawn_name(name, names) for name in names])
    for name in ("detections.json", "errors.jsonl", "run.json"):
        (output / name).unlink(missing_ok=True)


def _row(name: str, drawn: str, stamp: list[int], width: int, height: int, found: Detections) -> dict:
    return {
        "file": name, "drawn": drawn, "stamp": stamp, "width": width, "height": height, "boxes": found.boxes.tolist(),
        "scores": found.scores.tolist(), "labels": found.labels.tolist(),
    }  # fmt: skip


def _entry(row: dict, classes: tuple[str, ...]) -> tuple[str, int, int, Detections]:
    found = Detections(
        np.asarray(row["boxes"], np.float32).reshape(-1, 4),
        np.asarray(row["scores"], np.float32),
        np.asarray(row["labels"], np.int64),
        classes,
    )
    return row["file"], row["width"], row["height"], found
