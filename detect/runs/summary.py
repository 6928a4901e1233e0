"""What a run over many pictures did: the counts and times of `detect` and `propose`, and their closing lines."""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ...data import atomic_write
from .journal import Journal
from .names import RunFiles

_adding = threading.Lock()


def more_frames_line(count: int) -> str:
    """Say how many files have more frames or pages than the one that was read.

    Examples
    --------
    >>> more_frames_line(3)
    '3 files have more than one frame; the first was read'
    """
    return f"{count} {'file has' if count == 1 else 'files have'} more than one frame; the first was read"


def found_line(objects: Mapping[str, int], score: float) -> str:
    """Say how many detections of at least a score there are of each class, the most frequent first.

    Examples
    --------
    >>> found_line({"cat": 1, "dog": 4, "bird": 1}, 0.4), found_line({}, 0.4)
    ('found at 0.4 or more: dog 4, bird 1, cat 1', 'found at 0.4 or more: nothing')
    """
    counts = sorted(objects.items(), key=lambda item: (-item[1], item[0]))
    return f"found at {score:.3g} or more: " + (", ".join(f"{name} {count}" for name, count in counts) or "nothing")


@dataclass
class RunSummary:
    """What a run did. Every field is a column of ``run.json``.

    Attributes
    ----------
    pictures : int
        Pictures with a result, including those that an interrupted run before it finished.
    resumed : int
        Pictures that an interrupted run had finished.
    failed : int
        Pictures in the errors file: without a result, or with one that cannot be drawn or exported.
    repaired : int
        Pictures in the errors file whose file is damaged, but not their pixels.
    more_frames : int
        Pictures whose file has more than one frame or page. The first was read.
    retryable : int
        Failed pictures that may succeed when the same command is repeated, see `failures.is_retryable`.
    boxes : int
        Boxes written: proposals or detections.
    objects : dict of str to int, or None
        Detections drawn, by class; None for proposals.
    seconds : dict of str to float
        Seconds in each stage, summed over threads; ``total`` by the clock. ``wait for pictures`` is how long the
        network waited for pictures that are read and searched, ``wait for drawing`` how long it waited because too
        many pictures were yet to be drawn, ``wait for scoring`` how long pictures waited for the network. ``report`` is
        the page, ``export`` are crops and labels, by the clock; for them pictures are read again in threads. A GPU
        works on while the next stage begins: some of the time of ``trunk`` is counted where its results are first
        needed.
    draw_score : float, or None
        The score from which detections are drawn; None for proposals.
    hidden_classes : tuple of str
        Classes that are not drawn, see `inception_rcnn.data.class_measures.hidden_classes`.

    Examples
    --------
    >>> summary = RunSummary(pictures=2, boxes=200, seconds={"total": 1.5})
    >>> summary.closing_lines(Path("boxes.npz"))
    ['2 pictures, 100 boxes each in 1.5 s -> boxes.npz']
    """

    pictures: int = 0
    resumed: int = 0
    failed: int = 0
    retryable: int = 0
    boxes: int = 0
    objects: dict[str, int] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    repaired: int = 0
    more_frames: int = 0
    draw_score: float | None = None
    hidden_classes: tuple[str, ...] = ()

    def add_seconds(self, stage: str, seconds: float) -> None:
        """Add to the time of a stage, from any thread."""
        with _adding:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of the ``with`` block to that of a stage, unless it raises."""
        start = time.perf_counter()
        yield
        self.add_seconds(stage, time.perf_counter() - start)

    @property
    def waiting_share(self) -> float:
        """Share of its time, 0 to 1, in which the network waited for pictures."""
        scoring = sum(self.seconds.get(stage, 0.0) for stage in ("trunk", "merge proposals", "score"))
        waiting = self.seconds.get("wait for pictures", 0.0)
        return waiting / (waiting + scoring) if waiting else 0.0

    @property
    def bottleneck(self) -> str:
        """What most of the time is spent on: "neural network", "reading pictures" or "selective search"."""
        # If the network waits for less than a tenth of its time, faster reading can save no more than that.
        if self.waiting_share < 0.1:
            return "neural network"
        slower = self.seconds.get("search", 0.0) > self.seconds.get("read", 0.0)
        return "selective search" if slower else "reading pictures"

    @property
    def should_be_repeated(self) -> bool:
        """Whether the same command may give more results, or no picture has one."""
        return self.retryable > 0 or (self.failed > 0 and not self.pictures)

    def closing_lines(self, output: str | Path, *, idle_cores: bool = False) -> list[str]:
        """Lines that a command prints at the end of a run, before `problem_lines`.

        Parameters
        ----------
        output : str or Path
            The results.
        idle_cores : bool
            Whether there are more cores than workers.

        Returns
        -------
        list of str
        """
        resumed = f" ({self.resumed} of them by an earlier run)" if self.resumed else ""
        mean = f", {self.boxes / self.pictures:.0f} boxes each" if self.pictures and self.objects is None else ""
        plural = "" if self.pictures == 1 else "s"
        if self.seconds:
            lines = [f"{self.pictures} picture{plural}{resumed}{mean} in {self.seconds['total']:.1f} s -> {output}"]
        else:  # An earlier run has done all of it.
            lines = [f"{output}: has the results of the same command; delete its run.json to repeat it"]
        # For the first pictures the network always waits.
        if idle_cores and self.waiting_share > 0.5 and self.pictures - self.resumed >= 10:
            waited = f"the neural network waited {self.waiting_share:.0%} of its time for {self.bottleneck}"
            lines.append(f"{waited}; more --workers would be faster")
        if self.objects is not None and self.draw_score is not None:
            lines.append(found_line(self.objects, self.draw_score))
        if self.hidden_classes:
            are = "class is" if len(self.hidden_classes) == 1 else "classes are"
            lines.append(
                f"{len(self.hidden_classes)} {are} not drawn, as the model finds too little of them: "
                "`inception-rcnn classes MODEL` lists them, --only NAME draws one"
            )
        if self.more_frames:
            lines.append(more_frames_line(self.more_frames))
        return lines

    def problem_lines(self, errors: str | Path) -> list[str]:
        """Lines on what is in the errors file; none if that is empty."""
        lines = []
        if self.repaired:
            are = "file is" if self.repaired == 1 else "files are"
            lines.append(f"{self.repaired} {are} damaged, but not in the pixels, and read, see {errors}")
        if self.failed:
            lines.append(f"{self.failed} file{'s' * (self.failed > 1)} could not be processed, see {errors}")
        if self.retryable:
            lines.append(f"{self.retryable} of them may succeed at another try; the same command tries those again")
        return lines


def conclude(summary: RunSummary, files: RunFiles, journal: Journal, errors: Path) -> None:
    """Write the errors file of a run and count what it did, all but the times and the objects.

    The errors file has a line of JSON for each picture that failed, and then for each that was repaired.

    Parameters
    ----------
    summary : RunSummary
    files : RunFiles
    journal : Journal
        Of the same pictures.
    errors : Path
        The errors file.
    """

    def lines() -> Iterator[dict[str, str]]:
        for failure in journal.failures:
            summary.failed += 1
            summary.retryable += failure.retryable
            yield failure.line
        for picture in journal.positions:
            record = journal.record(picture)
            summary.pictures += 1
            summary.boxes += record.rows
            summary.more_frames += record.more_frames
            if record.repair:
                summary.repaired += 1
                yield {"file": str(files.path(picture)), "kind": "DataWarning", "message": record.repair}

    atomic_write(errors, (f"{json.dumps(line)}\n".encode() for line in lines()))
