"""Which failures are worth another try: one rule for detections and proposals."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from inception_rcnn.data import ImageError, find_images
from inception_rcnn.data.errors import ProposalFileError
from inception_rcnn.data.images.reading import DecodedImage, read_stamped
from inception_rcnn.data.system.processes import ProcessDied
from inception_rcnn.detect import Detector, detect_batch
from inception_rcnn.detect.runs.proposing import propose_pictures
from inception_rcnn.detect.runs.summary import RunSummary
from inception_rcnn.proposals import SelectiveSearch

pytest.importorskip("onnxruntime")
pytest.importorskip("safetensors")


def caused_by(cause: Exception) -> ImageError:
    """What `read_image` raises for a cause."""
    error = ImageError("b.png: cannot be read")
    error.__cause__ = cause
    return error


RAISED = {
    "input and output": (caused_by(OSError(errno.EIO, "Input/output error")), True),
    "permissions": (caused_by(PermissionError(errno.EACCES, "Permission denied")), True),
    "memory of the decoder": (caused_by(MemoryError()), True),
    "memory": (MemoryError(), True),
    "GPU": (RuntimeError("device lost"), True),
    "bug": (ValueError("operands could not be broadcast"), True),
    "process": (ProcessDied("killed"), True),
    "Pillow's complaint": (caused_by(OSError("image file is truncated")), False),
    "decoder's complaint": (caused_by(SyntaxError("broken PNG file")), False),
    "too large": (ImageError("b.png: has too many pixels"), False),
    "no boxes of it": (ProposalFileError("boxes.npz: has no picture b.png"), False),
}


@pytest.fixture(params=["detect", "propose"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Path], tuple[RunSummary, Path, Path]]:
    """Run over a folder of pictures; its summary, its journal and its errors file."""
    output = tmp_path / "out"
    if request.param == "detect":
        detector: Detector = request.getfixturevalue("detector")
        return lambda folder: (
            detect_batch(find_images(folder), output, detector), output / "journal", output / "errors.jsonl",
        )  # fmt: skip
    search = SelectiveSearch("single", limit=5)
    return lambda folder: (
        propose_pictures(find_images(folder), output.with_suffix(".npz"), search),
        output.with_suffix(".journal"), output.with_suffix(".errors.jsonl"),
    )  # fmt: skip


@pytest.mark.parametrize("case", RAISED)
def test_what_is_tried_again(
    run: Callable[[Path], tuple[RunSummary, Path, Path]], photos: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    from inception_rcnn.detect.runs import stages

    error, retryable = RAISED[case]

    def failing(path: Path, max_pixels: int) -> tuple[list[int], DecodedImage]:
        if path.name == "b.png":
            raise error
        return read_stamped(path, max_pixels)

    with monkeypatch.context() as patch:
        patch.setattr(stages, "read_stamped", failing)
        summary, journal, errors = run(photos)
    assert (summary.pictures, summary.failed, summary.retryable) == (4, 1, int(retryable))
    (line,) = map(json.loads, errors.read_text().splitlines())
    assert (line["file"], line["kind"]) == (str(photos / "b.png"), type(error).__name__)
    assert journal.exists() == summary.should_be_repeated == retryable
    # The next run does only what failed; where nothing can succeed at another try, it begins anew when it is told to.
    (journal.parent / "run.json").unlink(missing_ok=True)
    summary, journal, errors = run(photos)
    assert (summary.pictures, summary.failed, summary.resumed) == (5, 0, 4 if retryable else 0)
    assert not journal.exists()
    assert errors.read_bytes() == b""


def test_content_is_not_tried_again_and_what_is_gone_is(
    run: Callable[[Path], tuple[RunSummary, Path, Path]], photos: Path
) -> None:
    (photos / "text.jpg").write_text("no picture")
    (photos / "gone.jpg").symlink_to(photos / "nowhere.jpg")
    summary, _, errors = run(photos)
    assert (summary.pictures, summary.failed, summary.retryable) == (5, 2, 1)
    assert [Path(json.loads(line)["file"]).name for line in errors.read_text().splitlines()] == ["gone.jpg", "text.jpg"]
    (photos / "nowhere.jpg").symlink_to(photos / "a.jpg")
    summary, journal, _ = run(photos)
    assert (summary.pictures, summary.failed, summary.resumed) == (7, 1, 5)
    assert not journal.exists()
