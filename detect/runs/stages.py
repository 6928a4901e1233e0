"""What a detection does with one picture of a run, stage by stage: read, search, score, draw.

The run on one machine calls the stages from its threads, a cluster from its workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...data import Detections
from ...data.images.reading import DecodedImage, read_stamped
from ...data.images.sources import Source
from ...proposals import Proposer, SelectiveSearch
from ...proposals.proposer import Ranked
from ..drawing import DrawRule, as_jpeg, draw_detections
from .failures import Failure, failure, name_machine
from .journal import Record
from .summary import RunSummary

if TYPE_CHECKING:
    from ..detector import Detector

# If so many pictures one after the other cannot be scored, the pictures are not the reason: the GPU is lost, or a bug.
MAX_FAILURES_IN_A_ROW = 10


class PictureOfRun(NamedTuple):
    """A picture of a run.

    Attributes
    ----------
    position : int
        Among the pictures of the run.
    path : Path, str or Member
        As it was given.
    key : str
        Absolute path: the picture in the journal.
    name : str
        Path below the folder of all pictures: the picture in the files of detections.
    drawn : str
        Where it is drawn below ``pictures/``; "" if it is not to be drawn.
    """

    position: int
    path: Source
    key: str
    name: str
    drawn: str


class Searched(NamedTuple):
    """A picture that was read, and the result of `Detector.search`, None if that is still to do."""

    stamp: list[int]
    decoded: DecodedImage
    regions: Ranked | None


class Scored(NamedTuple):
    """What comes of a picture.

    Attributes
    ----------
    record : Record
    table : ndarray, shape (N, 6), float32
        x1, y1, x2, y2, score, label.
    drawing : bytes
        A JPEG file; empty if the picture is not or cannot be drawn.
    failure : Failure or None
        Why it cannot be drawn.
    """

    record: Record
    table: NDArray[np.float32]
    drawing: bytes
    failure: Failure | None


def read_and_search(
    picture: PictureOfRun, search: Detector | Proposer | None, max_pixels: int, summary: RunSummary
) -> Searched:
    """Read a picture and do what needs no network; the times are added to the summary."""
    with summary.timed("read"):
        stamp, decoded = read_stamped(picture.path, max_pixels)
    if search is None:
        return Searched(stamp, decoded, None)
    with summary.timed("search"):
        return Searched(stamp, decoded, search.search(decoded.image, picture.name))


def score_picture(picture: PictureOfRun, searched: Searched, detector: Detector, summary: RunSummary) -> Detections:
    """Do what needs the network."""
    image = searched.decoded.image
    with summary.timed("trunk"):
        features = detector.features(image)
    with summary.timed("merge proposals"):
        proposals, objectness = detector.select_regions(features, searched.regions, picture.name)
    with summary.timed("score"):
        return detector.score(features, proposals, objectness)


def draw_picture(
    picture: PictureOfRun, searched: Searched, found: Detections, rule: DrawRule, summary: RunSummary
) -> Scored:
    """Draw the detections, and put together what is kept of the picture."""
    image, repair, more_frames = searched.decoded
    drawing, problem = b"", None
    try:
        if picture.drawn:
            with summary.timed("draw"):
                drawing = as_jpeg(draw_detections(image, rule(found), rule.score))
    except Exception as error:  # It cannot be drawn in that size, however often; its detections are good.
        problem = failure(picture.path, error)._replace(retryable=False)
    height, width = image.shape[:2]
    table = np.column_stack([found.boxes, found.scores, found.labels]).astype(np.float32)
    record = Record(picture.key, searched.stamp, width, height, picture.drawn, repair, more_frames)
    return Scored(record, table, drawing, problem)


class Timed(NamedTuple):
    """What a worker made of a picture, and the seconds of its stages."""

    result: Searched | Scored | Failure
    seconds: dict[str, float]


@dataclass
class SearchWork:
    """The stages without a network, for a worker: picture -> `Searched` or `Failure`.

    Parameters
    ----------
    search : Detector, Proposer or None
        What searches. None leaves that to the worker that has the network.
    max_pixels : int
    elsewhere : bool
        Whether the worker may be on another machine, which the error about a missing file then names.
    """

    search: Detector | Proposer | None
    max_pixels: int
    elsewhere: bool = False

    def __call__(self, picture: PictureOfRun) -> Timed:
        """Read and search a picture."""
        summary = RunSummary()
        try:
            return Timed(read_and_search(picture, self.search, self.max_pixels, summary), summary.seconds)
        except Exception as error:  # One file must not end a run over thousands; the line says what happened.
            failed = failure(picture.path, error)
            return Timed(name_machine(failed, picture.path) if self.elsewhere else failed, summary.seconds)


@dataclass
class ScoreWork:
    """The other stages, for a worker: picture and what `SearchWork` made of it -> `Scored` or `Failure`.

    Parameters
    ----------
    detector : Detector
    rule : DrawRule
    """

    detector: Detector
    rule: DrawRule
    in_a_row: int = field(default=0, init=False)

    def __call__(self, picture: PictureOfRun, given: Timed) -> Timed:
        """Score and draw a picture.

        Raises
        ------
        Exception
            If `MAX_FAILURES_IN_A_ROW` pictures one after the other cannot be scored: the error of the last.
        """
        searched, summary = given.result, RunSummary(seconds=given.seconds)
        if not isinstance(searched, Searched):
            return given
        try:
            found = score_picture(picture, searched, self.detector, summary)
        except Exception as error:
            self.in_a_row += 1
            if self.in_a_row == MAX_FAILURES_IN_A_ROW:
                raise
            return Timed(failure(picture.path, error), summary.seconds)
        self.in_a_row = 0
        return Timed(draw_picture(picture, searched, found, self.rule, summary), summary.seconds)


@dataclass
class DetectWork:
    """All stages, for a worker that has all: picture -> `Scored` or `Failure`."""

    first: SearchWork
    second: ScoreWork

    def __call__(self, picture: PictureOfRun) -> Timed:
        """Detect objects in a picture."""
        return self.second(picture, self.first(picture))


def detection_works(
    detector: Detector, rule: DrawRule, max_pixels: int, *, apart: bool
) -> Sequence[SearchWork | ScoreWork | DetectWork]:
    """Divide a detection among workers.

    Parameters
    ----------
    detector : Detector
    rule : DrawRule
        Which detections are drawn.
    max_pixels : int
    apart : bool
        Whether the network has workers of its own. The others then load none: they search only if selective search
        does.
    """
    scoring = ScoreWork(detector, rule)
    if not apart:
        return [DetectWork(SearchWork(detector, max_pixels, elsewhere=True), scoring)]
    return [SearchWork(search_alone(detector.proposer), max_pixels, elsewhere=True), scoring]


def search_alone(proposer: Proposer) -> SelectiveSearch | None:
    """Return what a proposer searches with and needs no network for; None if that is not selective search."""
    return proposer if isinstance(proposer, SelectiveSearch) else getattr(proposer, "selective_search", None)
