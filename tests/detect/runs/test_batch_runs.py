"""Runs over many pictures: bad files, interruptions, names, and what the results folder holds."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("safetensors")

import pyarrow.parquet
from PIL import Image

from inception_rcnn.backbone.regions.features import PictureFeatures
from inception_rcnn.data import find_images, read_detection_entries, read_detections
from inception_rcnn.data.class_measures import ClassMeasure
from inception_rcnn.data.errors import JournalError, OutputError
from inception_rcnn.data.score_calibration import ScoreCalibration
from inception_rcnn.detect import Detector, detect_batch
from inception_rcnn.detect.cli.app import main
from inception_rcnn.detect.runs.detection import JOURNAL, MAX_FAILURES_IN_A_ROW
from inception_rcnn.detect.runs.finished import FinishedRun
from inception_rcnn.detect.runs.labels import Exports, export_run
from inception_rcnn.detect.runs.names import drawn_names, relative_names

NAMES = ["a.jpg", "b.png", "c.JPG", "sub/a.jpg", "sub/d.jpeg"]


def contents(folder: Path) -> dict[str, bytes]:
    """Everything that a run found: all but the times, which the page has too."""
    timed = ("run.json", "report.html")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in timed)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def count_scored(detector: Detector) -> list[tuple[int, ...]]:
    """Sizes of the pictures that the detector scores from now on."""
    scored: list[tuple[int, ...]] = []
    score = detector.score

    def counting(view: PictureFeatures, *proposed: np.ndarray) -> object:
        scored.append(view.image.shape)
        return score(view, *proposed)

    detector.score = counting  # type: ignore[method-assign, assignment]
    return scored


def stop_after(number: int) -> Callable[[int, str], None]:
    def progress(done: int, note: str) -> None:
        if done == number:
            raise KeyboardInterrupt

    return progress


def test_results_folder(photos: Path, tmp_path: Path, detector: Detector) -> None:
    paths, output = find_images(photos), tmp_path / "deep" / "out"
    progress: list[int] = []
    summary = detect_batch(
        paths, output, detector, settings={"asked": "naïvely"}, progress=lambda done, note: progress.append(done)
    )
    assert sorted(path.name for path in output.iterdir()) == [
        "detections.json",
        "detections.parquet",
        "errors.jsonl",
        "pictures",
        "report.html",
        "run.json",
    ]
    assert progress == [0, 1, 2, 3, 4, 5, 5]
    assert (summary.pictures, summary.failed, summary.resumed) == (5, 0, 0)
    assert (output / "errors.jsonl").read_bytes() == b""

    document = json.loads((output / "detections.json").read_text())
    assert [image["file_name"] for image in document["images"]] == NAMES
    assert [(image["width"], image["height"]) for image in document["images"]] == [(100 + 10 * i, 90) for i in range(5)]
    assert [category["name"] for category in document["categories"]] == list(detector.classes)
    sizes = {image["id"]: (image["width"], image["height"]) for image in document["images"]}
    assert document["annotations"]
    for annotation in document["annotations"]:
        x, y, w, h = annotation["bbox"]
        width, height = sizes[annotation["image_id"]]
        assert x >= 0 <= y
        assert x + w <= width + 1e-3
        assert y + h <= height + 1e-3
        assert annotation["score"] >= detector.settings.min_score

    found = read_detections(output, key="file_name")
    expected = detector(np.asarray(Image.open(photos / "b.png")))
    np.testing.assert_array_equal(found["b.png"].scores.astype(np.float32), expected.scores)
    np.testing.assert_allclose(found["b.png"].boxes, expected.boxes, rtol=1e-6, atol=1e-4)

    drawn = ["a.jpg", "b.png.jpg", "c.JPG", "sub/a.jpg", "sub/d.jpeg.jpg"]
    assert sorted(name for name in contents(output) if name.startswith("pictures/")) == [
        f"pictures/{name}" for name in drawn
    ]
    for name, drawing in zip(NAMES, drawn, strict=True):
        with Image.open(photos / name) as original, Image.open(output / "pictures" / drawing) as picture:
            assert picture.format == "JPEG"
            assert picture.size == original.size


def test_what_is_drawn_by_default(photos: Path, tmp_path: Path, detector: Detector) -> None:
    paths, (scorer,) = find_images(photos), detector.scorers
    detect_batch(paths, tmp_path / "plain", detector)
    assert json.loads((tmp_path / "plain" / "run.json").read_text())["draw_score"] == 0.4
    numbers = (1.5,) * len(detector.classes), (1,) * len(detector.classes)
    scorer.model = dataclasses.replace(scorer.model, calibration=ScoreCalibration(*numbers, 0.27))
    summary = detect_batch(paths, tmp_path / "calibrated", detector)
    assert json.loads((tmp_path / "calibrated" / "run.json").read_text())["draw_score"] == 0.27
    found = read_detections(tmp_path / "calibrated", key="file_name").values()
    assert sum(summary.objects.values()) == sum(int((one.scores >= np.float32(0.27)).sum()) for one in found)
    assert all((one.scores >= np.float32(0.05)).all() for one in found)


def test_classes_that_the_model_does_not_find_well_enough_are_not_drawn(
    photos: Path, tmp_path: Path, detector: Detector
) -> None:
    paths, (scorer,) = find_images(photos), detector.scorers
    all_drawn = detect_batch(paths, tmp_path / "all", detector)
    assert all_drawn.objects is not None
    hidden, *others = all_drawn.objects
    assert others
    measures = [ClassMeasure(0, True, 0.1 if name == hidden else 0.5, 9) for name in detector.classes]
    scorer.model = dataclasses.replace(scorer.model, measures=tuple(measures))
    summary = detect_batch(paths, tmp_path / "out", detector)
    assert summary.objects == {name: all_drawn.objects[name] for name in others}
    assert json.loads((tmp_path / "out" / "run.json").read_text())["hidden_classes"] == [hidden]
    assert any("1 class is not drawn" in line for line in summary.closing_lines("out"))
    # They are written all the same, and drawn where the class is asked for.
    boxes = [read_detections(tmp_path / name, key="file_name")["b.png"].boxes.tolist() for name in ("all", "out")]
    assert boxes[0] == boxes[1]
    weaker = detect_batch(paths, tmp_path / "score", detector, draw_score=0.1)
    assert weaker.objects.keys() >= {*others}
    assert hidden not in weaker.objects
    named = Detector(detector.scorers, detector.proposer, dataclasses.replace(detector.settings, only=(hidden,)))
    assert detect_batch(paths, tmp_path / "only", named).objects.keys() == {hidden}
    finished = FinishedRun(tmp_path / "out")
    assert export_run(finished, Exports(yolo=tmp_path / "1"))[0].objects == summary.objects
    assert export_run(finished, Exports(yolo=tmp_path / "2"), only=[hidden])[0].objects.keys() == {hidden}
    assert export_run(finished, Exports(yolo=tmp_path / "3"), draw_score=0.1)[0].objects == weaker.objects


def test_the_page_of_a_run(photos: Path, tmp_path: Path, detector: Detector) -> None:
    paths, output = find_images(photos), tmp_path / "out"

    def stop_at_the_report(done: int, note: str) -> None:
        if note == "writing the report":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        detect_batch(paths, output, detector, progress=stop_at_the_report)
    assert not (output / "report.html").exists()
    assert len(read_detections(output, "file_name")) == 5
    # The same call goes on from there.
    assert detect_batch(paths, output, detector).resumed == 5
    page = (output / "report.html").read_text()
    assert all(json.dumps(name) in page for name in NAMES)
    assert detect_batch(paths, output, detector, report=False).pictures == 5
    assert not (output / "report.html").exists()


def test_only_some_classes(
    photos: Path, tmp_path: Path, detector: Detector, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, output, settings = find_images(photos), tmp_path / "out", detector.settings
    detect_batch(paths, tmp_path / "all", detector, draw_score=0.2)
    detector.settings = dataclasses.replace(settings, only=["dog"])
    with pytest.raises(KeyboardInterrupt):
        detect_batch(paths, output, detector, draw_score=0.2, progress=stop_after(3))
    # It is one of the settings with which alone a run goes on.
    detector.settings = dataclasses.replace(settings, only=["cat"])
    with pytest.raises(JournalError, match="left by a run with other settings"):
        detect_batch(paths, output, detector, draw_score=0.2)
    shutil.rmtree(output)
    summary = detect_batch(paths, output, detector, draw_score=0.2)
    assert set(summary.objects) == {"cat"}
    assert json.loads((output / "run.json").read_text())["detector"]["only"] == ["cat"]
    every = read_detections(tmp_path / "all", key="file_name")
    for name in ("detections.json", "detections.parquet"):
        for picture, found in read_detections(output / name, key="file_name").items():
            expected = every[picture][every[picture].labels == found.classes.index("cat")]
            assert found.classes == detector.classes
            np.testing.assert_array_equal(found.scores.astype(np.float32), expected.scores.astype(np.float32))
    # What is drawn is what `draw --only` draws of all detections.
    with pytest.raises(SystemExit):
        main(["draw", str(tmp_path / "all"), "--only", "cat", "--output", str(tmp_path / "drawn")])
    drawn = {path.relative_to(tmp_path / "drawn"): path.read_bytes() for path in (tmp_path / "drawn").rglob("*.*")}
    assert len(drawn) == 5
    assert all((output / "pictures" / name).read_bytes() == data for name, data in drawn.items())
    assert any((tmp_path / "all" / "pictures" / name).read_bytes() != data for name, data in drawn.items())


def test_crops_and_labels_of_a_run(photos: Path, tmp_path: Path, detector: Detector) -> None:
    paths, output = find_images(photos), tmp_path / "out"
    exports = Exports(crops=tmp_path / "crops", yolo=tmp_path / "yolo", voc=photos)

    def stop_at_the_labels(done: int, note: str) -> None:
        if note == "writing crops and labels":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        detect_batch(paths, output, detector, draw_score=0.2, exports=exports, progress=stop_at_the_labels)
    summary = detect_batch(paths, output, detector, draw_score=0.2, exports=exports)
    assert (summary.pictures, summary.resumed, summary.failed) == (5, 5, 0)
    assert len(list((tmp_path / "crops").rglob("*.jpg"))) == sum(summary.objects.values()) > 0
    assert sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.xml")) == [
        "a.xml", "b.xml", "c.xml", "sub/a.xml", "sub/d.xml"
    ]  # fmt: skip
    lines = [line for path in (tmp_path / "yolo" / "labels").rglob("*.txt") for line in path.read_text().splitlines()]
    assert len(lines) == sum(summary.objects.values()) + len(detector.classes)
    # `draw` makes the same of the finished run.
    again = Exports(tmp_path / "drawn", tmp_path / "again", voc=tmp_path / "voc")
    export_run(FinishedRun(output), again)
    assert contents(tmp_path / "again") == contents(tmp_path / "crops")
    assert contents(tmp_path / "drawn") == contents(output / "pictures")
    assert contents(tmp_path / "voc") == {
        name: data for name, data in contents(photos).items() if name.endswith(".xml")
    }


def test_crops_and_labels_of_a_run_that_is_finished(photos: Path, tmp_path: Path, detector: Detector) -> None:
    paths, output, exports = find_images(photos), tmp_path / "out", Exports(crops=tmp_path / "crops")
    objects = detect_batch(paths, output, detector, draw_score=0.2).objects
    scored = count_scored(detector)
    assert detect_batch(paths, output, detector, draw_score=0.2, exports=exports).objects == objects
    assert len(list((tmp_path / "crops").rglob("*.jpg"))) == sum(objects.values()) > 0
    assert scored == []


def test_a_picture_that_cannot_be_cut_is_noted(photos: Path, tmp_path: Path, detector: Detector) -> None:
    paths, exports = find_images(photos), Exports(crops=tmp_path / "crops")

    def remove(done: int, note: str) -> None:
        if note == "writing crops and labels" and (photos / "b.png").exists():
            (photos / "b.png").rename(tmp_path / "b.png")

    summary = detect_batch(paths, tmp_path / "out", detector, draw_score=0.1, exports=exports, progress=remove)
    assert (summary.pictures, summary.failed, summary.retryable) == (5, 1, 1)
    assert "b.png: does not exist" in (tmp_path / "out" / "errors.jsonl").read_text()
    assert len(read_detections(tmp_path / "out", "file_name")) == 5
    (tmp_path / "b.png").rename(photos / "b.png")
    summary = detect_batch(paths, tmp_path / "out", detector, draw_score=0.1, exports=exports)
    assert (summary.resumed, summary.failed) == (5, 0)
    assert len(list((tmp_path / "crops").rglob("*.jpg"))) == sum(summary.objects.values())


def test_run_json_tells_what_was_done(photos: Path, tmp_path: Path, detector: Detector) -> None:
    summary = detect_batch(find_images(photos), tmp_path / "out", detector, draw_score=0.3, settings={"workers": 1})
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["settings"] == {"workers": 1}
    model = detector.scorers[0].model
    assert run["models"] == [
        {
            "sha256": model.sha256,
            "long_side": 128,
            "device": "cpu",
            "engine": "onnxruntime",
            "precision": "float32",
            "classes": 3,
        }
    ]
    assert isinstance(run["version"], str)
    assert (run["pictures"], run["resumed"], run["failed"]) == (5, 0, 0)
    assert set(run["seconds"]) == {
        "read", "search", "wait for pictures", "wait for scoring", "trunk", "merge proposals", "score",
        "wait for drawing", "draw", "report", "total",
    }  # fmt: skip
    assert all(seconds >= 0 for seconds in run["seconds"].values())
    found = read_detections(tmp_path / "out", key="file_name").values()
    counts = {name: 0 for name in detector.classes}
    for picture in found:
        for label in picture.labels[picture.scores >= np.float32(0.3)]:
            counts[detector.classes[label]] += 1
    assert run["objects"] == summary.objects == {name: n for name, n in sorted(counts.items()) if n}
    assert sum(counts.values()) > 0


def test_bad_files_are_noted_and_the_run_goes_on(photos: Path, tmp_path: Path, detector: Detector) -> None:
    whole = (photos / "a.jpg").read_bytes()
    (photos / "aa truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "empty.jpg").touch()
    (photos / "text.jpg").write_text("no picture")
    paths = [*find_images(photos), photos / "absent.jpg"]
    progress: list[int] = []
    summary = detect_batch(paths, tmp_path / "out", detector, progress=lambda done, note: progress.append(done))
    assert (summary.pictures, summary.failed) == (5, 4)
    assert progress[-1] == 9
    errors = [json.loads(line) for line in (tmp_path / "out" / "errors.jsonl").read_text().splitlines()]
    assert [Path(error["file"]).name for error in errors] == [
        "aa truncated.jpg",
        "empty.jpg",
        "text.jpg",
        "absent.jpg",
    ]
    for error, reason in zip(errors, ["truncated", "is empty", "is not a picture", "does not exist"], strict=True):
        assert set(error) == {"file", "kind", "message"}
        assert error["kind"] == "ImageError"
        assert reason in error["message"]
        assert error["file"] in error["message"]
    assert list(read_detections(tmp_path / "out", key="file_name")) == NAMES
    assert json.loads((tmp_path / "out" / "run.json").read_text())["failed"] == 4


def test_a_picture_that_cannot_be_scored_is_noted_and_tried_again(
    photos: Path, tmp_path: Path, detector: Detector
) -> None:
    paths, output = find_images(photos), tmp_path / "out"
    detect_batch(paths, tmp_path / "whole", detector)
    score = detector.score

    def failing(view: PictureFeatures, *proposed: np.ndarray) -> object:
        if view.image.shape[1] == 110:
            raise RuntimeError("out of memory")
        return score(view, *proposed)

    detector.score = failing  # type: ignore[method-assign, assignment]
    summary = detect_batch(paths, output, detector)
    assert (summary.pictures, summary.failed, summary.retryable) == (4, 1, 1)
    error = json.loads((output / "errors.jsonl").read_text())
    assert (Path(error["file"]).name, error["kind"]) == ("b.png", "RuntimeError")
    assert error["message"].endswith("b.png: out of memory")
    assert list(read_detections(output, key="file_name")) == [name for name in NAMES if name != "b.png"]
    detector.score = score  # type: ignore[method-assign]
    summary = detect_batch(paths, output, detector)
    assert (summary.pictures, summary.failed, summary.resumed) == (5, 0, 4)
    assert contents(output) == contents(tmp_path / "whole")


def test_a_network_that_scores_nothing_ends_the_run(photos: Path, tmp_path: Path, detector: Detector) -> None:
    for i in range(8):
        shutil.copy(photos / "b.png", photos / f"copy {i}.png")
    paths, score, scored = find_images(photos), detector.score, []

    def failing(view: PictureFeatures, *proposed: np.ndarray) -> object:
        scored.append(view)
        if len(scored) > 2:
            raise RuntimeError(f"device lost {len(scored)}")
        return score(view, *proposed)

    detector.score = failing  # type: ignore[method-assign, assignment]
    with pytest.raises(RuntimeError, match=f"device lost {2 + MAX_FAILURES_IN_A_ROW}"):
        detect_batch(paths, tmp_path / "out", detector)
    detector.score = score  # type: ignore[method-assign]
    summary = detect_batch(paths, tmp_path / "out", detector)
    assert (summary.pictures, summary.resumed, summary.failed) == (13, 2, 0)


def test_workers_do_not_change_the_result(photos: Path, tmp_path: Path, detector: Detector) -> None:
    (photos / "broken.jpg").touch()
    for workers in (1, 3):
        detect_batch(find_images(photos), tmp_path / str(workers), detector, workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "3")


def test_interrupted_and_resumed_is_uninterrupted(photos: Path, tmp_path: Path, detector: Detector) -> None:
    (photos / "broken.jpg").touch()
    paths = find_images(photos)  # a.jpg b.png broken.jpg c.JPG ...
    detect_batch(paths, tmp_path / "whole", detector)
    output = tmp_path / "halves"
    with pytest.raises(KeyboardInterrupt):
        detect_batch(paths, output, detector, progress=stop_after(2))
    assert not (output / "detections.json").exists()
    # The interruption hit the middle of a record.
    with (output / JOURNAL).open("ab") as journal:
        journal.write((output / JOURNAL).read_bytes()[-40:-3])
    scored = count_scored(detector)
    progress: list[int] = []
    summary = detect_batch(paths, output, detector, progress=lambda done, note: progress.append(done))
    assert progress == [2, 3, 4, 5, 6, 6]
    assert [shape[1] for shape in scored] == [120, 130, 140]
    assert (summary.pictures, summary.resumed, summary.failed) == (5, 2, 1)
    assert contents(output) == contents(tmp_path / "whole")
    assert json.loads((output / "run.json").read_text())["resumed"] == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_is_stopped_finishes_what_is_in_hand(
    photos: Path, tmp_path: Path, detector: Detector, workers: int
) -> None:
    paths, output, asked = find_images(photos), tmp_path / "out", []
    with pytest.raises(KeyboardInterrupt):
        detect_batch(paths, output, detector, workers=workers, stop=lambda: asked.append(0) or len(asked) > 3)
    assert (output / JOURNAL).read_bytes().count(b"\xf0IRC") == 3
    assert not (output / "detections.json").exists()
    assert detect_batch(paths, output, detector).resumed == 3
    detect_batch(paths, tmp_path / "whole", detector)
    assert contents(output) == contents(tmp_path / "whole")


@pytest.mark.slow
def test_killed_at_any_moment_the_results_are_the_same(
    photos: Path, model_file: Path, tmp_path: Path, detector: Detector
) -> None:
    script = (
        "import dataclasses, os, signal, sys, time\n"
        "from pathlib import Path\n"
        "from inception_rcnn.data import find_images\n"
        "from inception_rcnn.detect import Detector, detect_batch\n"
        "photos, output, model, after = sys.argv[1:]\n"
        "def progress(done, note):\n"
        "    if done == int(after):\n"
        "        while Path(output, 'journal').read_bytes().count(b'\\xf0IRC') < done - 1:\n"
        "            time.sleep(0.01)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "detector = Detector.load(model, device='cpu', threads=1, method='selective-search', proposals=12)\n"
        "detector.proposer = dataclasses.replace(detector.proposer, mode='single')\n"
        "detect_batch(find_images(photos), Path(output), detector, progress=progress)\n"
    )
    detect_batch(find_images(photos), tmp_path / "whole", detector)
    output, resumed = tmp_path / "out", []
    for after in (3, 5):
        arguments = [photos, output, model_file, after]
        done = subprocess.run([sys.executable, "-c", script, *map(str, arguments)], check=False)
        assert done.returncode == -signal.SIGKILL
        assert not (output / "detections.json").exists()
        resumed.append((output / JOURNAL).read_bytes().count(b"\xf0IRC"))
    assert 2 <= resumed[0] <= 3
    assert 4 <= resumed[1] <= 5
    summary = detect_batch(find_images(photos), output, detector)
    assert (summary.pictures, summary.failed, summary.resumed) == (5, 0, resumed[1])
    assert contents(output) == contents(tmp_path / "whole")


def test_a_run_without_drawings(photos: Path, tmp_path: Path, detector: Detector) -> None:
    paths, output = find_images(photos), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        detect_batch(paths, output, detector, drawings=False, progress=stop_after(2))
    assert detect_batch(paths, output, detector, drawings=False).resumed == 2
    assert not (output / "pictures").exists()
    detect_batch(paths, tmp_path / "drawn", detector)
    assert (output / "detections.json").read_bytes() == (tmp_path / "drawn" / "detections.json").read_bytes()
    # What was done without drawings is done again if they are asked for.
    (output / "run.json").unlink()
    with pytest.raises(KeyboardInterrupt):
        detect_batch(paths, output, detector, drawings=False, progress=stop_after(2))
    assert detect_batch(paths, output, detector).resumed == 0
    assert contents(output) == contents(tmp_path / "drawn")
    # Drawings can be given up in the middle, as on a disk that is full.
    (output / "run.json").unlink()
    with pytest.raises(KeyboardInterrupt):
        detect_batch(paths, output, detector, progress=stop_after(3))
    assert detect_batch(paths, output, detector, drawings=False).resumed >= 2


def test_a_finished_run_is_not_done_again(
    photos: Path, tmp_path: Path, detector: Detector, caplog: pytest.LogCaptureFixture
) -> None:
    paths, output = find_images(photos)[:2], tmp_path / "out"
    first = detect_batch(paths, output, detector)
    before = contents(output)
    scored = count_scored(detector)
    again = detect_batch(paths, output, detector, workers=2)
    assert (again.pictures, again.resumed, again.objects) == (2, 2, first.objects)
    assert "has the results of the same command" in again.closing_lines(output)[0]
    assert scored == []
    assert contents(output) == before
    assert caplog.messages == []
    # If a result is missing, a picture has changed, or something else is wanted, all are done.
    (output / "detections.json").unlink()
    assert detect_batch(paths, output, detector).resumed == 0
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(paths[0])
    assert detect_batch(paths, output, detector).resumed == 0
    assert detect_batch(paths, output, detector, draw_score=0.9).resumed == 0
    assert detect_batch(paths[:1], output, detector, draw_score=0.9).resumed == 0
    assert len(scored) == 7
    assert ["the results of an earlier run are replaced" in line for line in caplog.messages] == [True] * 4


def test_a_run_that_goes_on_with_other_settings_is_refused(photos: Path, tmp_path: Path, detector: Detector) -> None:
    paths = find_images(photos)
    with pytest.raises(KeyboardInterrupt):
        detect_batch(paths, tmp_path / "out", detector, progress=stop_after(2))
    detector.settings = dataclasses.replace(detector.settings, min_score=0.2)
    with pytest.raises(JournalError, match="with other settings"):
        detect_batch(paths, tmp_path / "out", detector)
    (tmp_path / "out" / "journal").unlink()
    shutil.rmtree(tmp_path / "out" / "pictures")
    summary = detect_batch(paths, tmp_path / "out", detector)
    assert summary.resumed == 0
    found = read_detections(tmp_path / "out", key="file_name")
    assert all((picture.scores >= np.float32(0.2)).all() for picture in found.values())


def test_other_pictures_of_the_same_names_are_not_taken_for_done(
    photos: Path, tmp_path: Path, detector: Detector
) -> None:
    with pytest.raises(KeyboardInterrupt):
        detect_batch(find_images(photos), tmp_path / "out", detector, progress=stop_after(2))
    others = tmp_path / "others"
    shutil.copytree(photos, others)
    with pytest.raises(JournalError, match="with other settings"):
        detect_batch(find_images(others), tmp_path / "out", detector)


def test_what_stands_in_the_journals_place_is_left_alone(photos: Path, tmp_path: Path, detector: Detector) -> None:
    output = tmp_path / "out"
    output.mkdir()
    for text in ("\0\0\0", "my notes\n" * 100):
        (output / JOURNAL).write_text(text)
        with pytest.raises(JournalError, match="no journal of this program"):
            detect_batch(find_images(photos)[:1], output, detector)
        assert (output / JOURNAL).read_text() == text
    (output / JOURNAL).unlink()
    (output / "journal.jsonl").write_text('{"settings": "00"}\n')
    with pytest.raises(JournalError, match=r"version 0\.1; finish it with that version, or delete that file"):
        detect_batch(find_images(photos)[:1], output, detector)


def test_two_runs_into_one_folder_are_refused(photos: Path, tmp_path: Path, detector: Detector) -> None:
    def start_another(done: int, note: str) -> None:
        if done == 1:
            with pytest.raises(OutputError, match="another run is writing there"):
                detect_batch(paths, tmp_path / "out", detector)

    paths = find_images(photos)
    assert detect_batch(paths, tmp_path / "out", detector, progress=start_another).pictures == 5
    assert len(read_detections(tmp_path / "out", key="file_name")) == 5


@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_record_costs_only_its_detections(
    photos: Path, tmp_path: Path, detector: Detector, seed: int
) -> None:
    paths, output = find_images(photos), tmp_path / "out"
    detect_batch(paths, tmp_path / "whole", detector)
    with pytest.raises(KeyboardInterrupt):
        detect_batch(paths, output, detector, progress=stop_after(4))
    content = bytearray((output / JOURNAL).read_bytes())
    content[random.Random(seed).randrange(120, len(content))] ^= 1
    (output / JOURNAL).write_bytes(content)
    assert detect_batch(paths, output, detector).resumed == 3
    assert contents(output) == contents(tmp_path / "whole")


def test_a_picture_whose_drawing_was_deleted_is_done_again(photos: Path, tmp_path: Path, detector: Detector) -> None:
    paths, output = find_images(photos), tmp_path / "out"
    detect_batch(paths, tmp_path / "whole", detector)
    with pytest.raises(KeyboardInterrupt):
        detect_batch(paths, output, detector, progress=stop_after(3))
    (output / "pictures" / "a.jpg").unlink()
    assert detect_batch(paths, output, detector).resumed == 2
    assert contents(output) == contents(tmp_path / "whole")


def test_a_new_picture_does_not_take_the_place_of_a_drawing(photos: Path, tmp_path: Path, detector: Detector) -> None:
    output = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        detect_batch(find_images(photos), output, detector, progress=stop_after(2))
    # b.png was drawn under this name.
    shutil.copy(photos / "a.jpg", photos / "b.png.jpg")
    detect_batch(find_images(photos), tmp_path / "whole", detector)
    assert detect_batch(find_images(photos), output, detector).resumed == 1
    assert contents(output) == contents(tmp_path / "whole")


def entries_of(path: Path) -> list[tuple]:
    """What a file of detections has, in numbers that are the same in both formats."""
    return [
        (name, width, height, found.classes, found.scores.astype(np.float32).tolist(), found.labels.tolist())
        for name, width, height, found in read_detection_entries(path)
    ]


def test_both_formats_have_the_same_detections(photos: Path, tmp_path: Path, detector: Detector) -> None:
    detect_batch(find_images(photos), tmp_path, detector)
    document, table = tmp_path / "detections.json", tmp_path / "detections.parquet"
    assert entries_of(document) == entries_of(table)
    for one, other in zip(read_detection_entries(document), read_detection_entries(table), strict=True):
        np.testing.assert_allclose(one[3].boxes, other[3].boxes, rtol=1e-6)
    metadata = pyarrow.parquet.read_schema(table).metadata
    settings = json.loads(metadata[b"inception-rcnn"])
    assert json.loads(metadata[b"classes"]) == list(detector.classes)
    assert settings.pop("version") == json.loads((tmp_path / "run.json").read_text())["version"]
    assert settings == json.loads(json.dumps(detector.description))


@pytest.mark.parametrize(("format", "other"), [("json", "parquet"), ("parquet", "json")])
def test_the_other_format_needs_no_other_detection(
    photos: Path, tmp_path: Path, detector: Detector, format: str, other: str
) -> None:
    (photos / "gone.jpg").symlink_to(photos / "nowhere.jpg")
    paths, output = find_images(photos), tmp_path / "out"
    detect_batch(paths, tmp_path / "whole", detector)
    summary = detect_batch(paths, output, detector, format=format)  # type: ignore[arg-type]
    assert summary.retryable == 1  # the journal stays
    assert sorted(path.stem for path in output.glob("detections.*")) == ["detections"]
    assert len(read_detections(output, "file_name")) == 5
    scored = count_scored(detector)
    again = detect_batch(paths, output, detector, format=other)  # type: ignore[arg-type]
    assert (again.resumed, again.boxes, again.objects) == (5, summary.boxes, summary.objects)
    assert not (output / f"detections.{format}").exists()
    assert not scored
    name = f"detections.{other}"
    assert (output / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_run_leaves_no_file_of_an_earlier_run_in_another_format(
    photos: Path, tmp_path: Path, detector: Detector
) -> None:
    paths, output = find_images(photos), tmp_path / "out"
    detect_batch(paths, output, detector, format="parquet")
    assert not (output / "detections.json").exists()
    detect_batch(paths[:1], output, detector, format="json")
    assert not (output / "detections.parquet").exists()
    # Its drawings were found by the names in the Parquet file.
    assert [path.name for path in (output / "pictures").rglob("*") if path.is_file()] == ["a.jpg"]
    with pytest.raises(ValueError, match="format 'csv' is unknown; use json, parquet or both"):
        detect_batch(paths, output, detector, format="csv")  # type: ignore[arg-type]


def test_no_pictures(tmp_path: Path, detector: Detector) -> None:
    assert detect_batch([], tmp_path / "out", detector).pictures == 0
    assert read_detections(tmp_path / "out") == {}


def test_a_drawing_that_cannot_be_saved_is_noted(photos: Path, tmp_path: Path, detector: Detector) -> None:
    # JPEG ends at 65,535 pixels.
    wide = photos / "wide.png"
    Image.fromarray(np.zeros((24, 66_000, 3), np.uint8)).save(wide)
    output = tmp_path / "out"
    summary = detect_batch(find_images(photos), output, detector)
    assert (summary.pictures, summary.failed) == (6, 1)
    assert "wide.png" in read_detections(output, key="file_name")
    (line,) = (output / "errors.jsonl").read_text().splitlines()
    assert json.loads(line)["file"] == str(wide)
    assert not list((output / "pictures").rglob(".part"))
    # The line is written again when a run goes on.
    (output / "run.json").unlink()
    with pytest.raises(KeyboardInterrupt):
        detect_batch(find_images(photos), output, detector, progress=stop_after(6))
    summary = detect_batch(find_images(photos), output, detector)
    assert (summary.pictures, summary.failed, summary.resumed) == (6, 1, 5)


def test_a_drawing_that_fails_in_another_way_is_noted_and_not_tried_for_ever(
    photos: Path, tmp_path: Path, detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise ValueError("cannot draw that")

    monkeypatch.setattr("inception_rcnn.detect.runs.stages.draw_detections", broken)
    summary = detect_batch(find_images(photos), tmp_path / "out", detector)
    assert (summary.pictures, summary.failed, summary.retryable) == (5, 5, 0)
    assert not (tmp_path / "out" / JOURNAL).exists()
    assert list(read_detections(tmp_path / "out", key="file_name")) == NAMES


def test_a_full_disk_ends_the_run(
    photos: Path, tmp_path: Path, detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("inception_rcnn.detect.runs.detection.replace_file", full)
    with pytest.raises(OSError, match="No space"):
        detect_batch(find_images(photos), tmp_path / "out", detector)


def test_what_a_full_disk_kept_from_being_drawn_is_done_again(
    photos: Path, tmp_path: Path, detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, output = find_images(photos), tmp_path / "out"
    detect_batch(paths, tmp_path / "whole", detector)
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if sum(drawn.suffix.lower() == ".jpg" for drawn in (output / "pictures").rglob("*")) >= 2:
            write(path, data[:100])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left on device; the same command goes on"):
            detect_batch(paths, output, detector)
    summary = detect_batch(paths, output, detector)
    assert (summary.pictures, summary.resumed, summary.failed) == (5, 2, 0)
    assert contents(output) == contents(tmp_path / "whole")


def test_a_picture_that_changed_is_not_taken_for_done(photos: Path, tmp_path: Path, detector: Detector) -> None:
    paths, output = find_images(photos), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        detect_batch(paths, output, detector, progress=stop_after(3))
    Image.fromarray(np.zeros((70, 71, 3), np.uint8)).save(paths[0])
    scored = count_scored(detector)
    detect_batch(paths, output, detector)
    assert (70, 71, 3) in scored
    document = json.loads((output / "detections.json").read_text())
    assert {"width": 71, "height": 70}.items() <= document["images"][0].items()


def test_a_picture_that_vanishes_while_it_is_scored_is_no_matter(
    photos: Path, tmp_path: Path, detector: Detector
) -> None:
    paths = find_images(photos)
    score = detector.score

    def vanishing(view: PictureFeatures, *proposed: np.ndarray) -> object:
        paths[0].unlink(missing_ok=True)
        return score(view, *proposed)

    detector.score = vanishing  # type: ignore[method-assign, assignment]
    summary = detect_batch(paths, tmp_path / "out", detector)
    assert (summary.pictures, summary.failed) == (5, 0)


def test_results_of_two_runs_never_stand_side_by_side(photos: Path, tmp_path: Path, detector: Detector) -> None:
    paths, output = find_images(photos), tmp_path / "out"
    detect_batch(paths, output, detector)
    (output / "pictures" / "mine.txt").write_text("not the run's")
    detect_batch(paths[:1], output, detector)
    drawn = sorted(path.name for path in (output / "pictures").rglob("*") if path.is_file())
    assert drawn == ["a.jpg", "mine.txt"]
    # Nor those of a run that only began.
    with pytest.raises(KeyboardInterrupt):
        detect_batch(paths, output, detector, progress=stop_after(3))
    detect_batch(paths[2:], output, detector)
    drawn = sorted(path.name for path in (output / "pictures").rglob("*") if path.is_file())
    assert drawn == ["a.jpg", "c.JPG", "d.jpeg.jpg", "mine.txt"]
    # Nor of a picture that is not there any more when the run goes on.
    (output / "run.json").unlink()
    with pytest.raises(KeyboardInterrupt):
        detect_batch(paths, output, detector, progress=stop_after(3))
    paths[1].unlink()
    detect_batch([*paths[:1], *paths[2:]], output, detector)
    drawn = sorted(path.name for path in (output / "pictures").rglob("*") if path.is_file())
    assert drawn == ["a.jpg", "a.jpg", "c.JPG", "d.jpeg.jpg", "mine.txt"]


def test_drawings_of_like_names_do_not_collide(photos: Path, tmp_path: Path, detector: Detector) -> None:
    shutil.copy(photos / "a.jpg", photos / "b.png.jpg")
    paths, output = find_images(photos), tmp_path / "out"
    detect_batch(paths, output, detector)
    assert len([path for path in (output / "pictures").rglob("*") if path.is_file()]) == len(paths)


@pytest.mark.parametrize(
    ("names", "drawn"),
    [
        (["a.png", "b.JPG", "s/c.jpeg"], ["a.png.jpg", "b.JPG", "s/c.jpeg.jpg"]),
        (["a.png", "a.png.jpg"], ["a.png.drawn.jpg", "a.png.jpg"]),
        (["a.png", "a.png.jpg", "a.png.drawn.jpg"], ["a.png.drawn1.jpg", "a.png.jpg", "a.png.drawn.jpg"]),
        (["a.png", "A.PNG.jpg"], ["a.png.drawn.jpg", "A.PNG.jpg"]),  # one file, where case does not count
        (["a.jpg", "A.jpg"], ["a.jpg", "A.jpg.drawn.jpg"]),
        (["\u00e4.jpg", "a\u0308.jpg"], ["\u00e4.jpg", "a\u0308.jpg.drawn.jpg"]),  # composed and decomposed
        (["a.png", "a.png.jpg/b.jpg"], ["a.png.drawn.jpg", "a.png.jpg/b.jpg"]),  # a folder of that name
    ],
)
def test_every_picture_is_drawn_into_a_file_of_its_own(names: list[str], drawn: list[str]) -> None:
    assert drawn_names(names) == drawn


def test_pictures_of_somebody_else_are_not_overwritten(photos: Path, tmp_path: Path, detector: Detector) -> None:
    theirs = tmp_path / "out" / "pictures" / "a.jpg"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    with pytest.raises(OutputError, match="pictures: has files that no run drew here; name another output"):
        detect_batch(find_images(photos), tmp_path / "out", detector)
    assert theirs.read_bytes() == b"theirs"


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no such names")
def test_names_that_are_not_utf_8(photos: Path, tmp_path: Path, detector: Detector) -> None:
    good, bad = photos / os.fsdecode(b"g\xff.jpg"), photos / os.fsdecode(b"b\xff.jpg")
    try:
        shutil.copy(photos / "a.jpg", good)
    except OSError:
        pytest.skip("the file system has no such names")
    bad.touch()
    summary = detect_batch([good, bad], tmp_path / "out", detector, settings={"images": [str(good)]})
    assert (summary.pictures, summary.failed) == (1, 1)
    assert list(read_detections(tmp_path / "out", key="file_name")) == [good.name]
    assert json.loads((tmp_path / "out" / "errors.jsonl").read_text())["file"] == str(bad)


def test_names_as_long_as_they_may_be(photos: Path, tmp_path: Path, detector: Detector) -> None:
    long = photos / f"{'n' * 251}.jpg"
    try:
        shutil.copy(photos / "a.jpg", long)
    except OSError:
        pytest.skip("the file system has no such names")
    assert detect_batch([long], tmp_path / "out", detector).pictures == 1
    assert (tmp_path / "out" / "pictures" / long.name).is_file()


def test_relative_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert relative_names([]) == []
    assert relative_names([Path("/x/y/1.jpg")]) == ["1.jpg"]
    assert relative_names([Path("/x/1.jpg"), Path("/y/1.jpg")]) == ["x/1.jpg", "y/1.jpg"]
    assert relative_names([Path("/x/ab/1.jpg"), Path("/x/abc/1.jpg")]) == ["ab/1.jpg", "abc/1.jpg"]
    monkeypatch.chdir(tmp_path)
    assert relative_names([Path("1.jpg"), tmp_path / "sub" / "2.jpg"]) == ["1.jpg", "sub/2.jpg"]


def test_no_name_leads_out_of_the_results_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    names = relative_names([Path("1.jpg"), Path("../there/1.jpg"), Path("./../here/2.jpg")])
    assert names == ["here/1.jpg", "there/1.jpg", "here/2.jpg"]


def test_drawings_never_take_the_place_of_pictures(photos: Path, tmp_path: Path, detector: Detector) -> None:
    (tmp_path / "own").mkdir()
    shutil.copytree(photos, tmp_path / "own" / "pictures")
    (tmp_path / "own" / "mine").symlink_to("pictures")
    before = {path: path.read_bytes() for path in (tmp_path / "own" / "pictures").rglob("*.*")}
    with pytest.raises(ValueError, match="would be overwritten by drawings; name another output"):
        detect_batch(find_images(tmp_path / "own" / "mine"), tmp_path / "own", detector)
    assert {path: path.read_bytes() for path in (tmp_path / "own" / "pictures").rglob("*.*")} == before
