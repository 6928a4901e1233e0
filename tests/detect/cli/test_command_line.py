"""The command line: help everywhere, a mistake is one line and exit status 2, an interruption says how to go on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from builders import voc_xml, write_image, write_voc
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO

from inception_rcnn.data import VOC_CLASSES, Detections, read_detections, write_detections
from inception_rcnn.data.errors import OutputError
from inception_rcnn.data.images.reading import DecodedImage, decode_image
from inception_rcnn.data.system.atomic_files import only_writer
from inception_rcnn.detect.cli.app import main
from inception_rcnn.proposals.proposer import Ranked

COMMANDS = [
    [],
    ["detect"],
    ["draw"],
    ["evaluate"],
    ["evaluate", "voc"],
    ["train"],
    ["train", "detector"],
    ["train", "multibox"],
    ["propose"],
    ["pack"],
    ["report"],
]


def run(*arguments: object) -> int:
    """Exit status of a command."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


def mistake(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a mistake ends in."""
    assert run(*arguments) == 2
    written = capsys.readouterr()
    assert written.out == ""
    (line,) = written.err.splitlines()
    assert line.startswith("inception-rcnn: ")
    return line


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """A development kit with one picture of one cat."""
    return write_voc(tmp_path / "VOC2007", {"000001": voc_xml(("cat", 1, 1, 20, 10))})


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_of_every_command(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    assert run(*command, "--help") == 0
    text = capsys.readouterr().out
    assert "Usage: " in text
    assert "--help" in text


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    run("--help")
    text = capsys.readouterr().out
    for name in ("detect", "draw", "propose", "ensemble", "classify", "report", "export", "evaluate", "pack", "train"):
        assert f"\n  {name} " in text


def test_as_a_process_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    command = [sys.executable, "-m", "inception_rcnn.detect.cli.app"]
    done = subprocess.run(
        [*command, "detect", str(tmp_path / "absent.jpg"), "--output", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "absent.jpg: does not exist" in line
    assert not (tmp_path / "out").exists()


def test_no_bar_is_drawn_anew_where_there_is_no_terminal() -> None:
    script = "from inception_rcnn.detect.cli.terminal import progress_bar\nwith progress_bar('pictures', 2) as report:"
    done = subprocess.run(
        [sys.executable, "-c", f"{script} report(1), report(2)"],
        env=os.environ | {"FORCE_COLOR": "1"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    (line,) = done.stderr.splitlines()
    assert line.startswith("pictures")
    assert "\x1b" not in line


def test_mistakes_with_pictures(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    output = tmp_path / "out"
    assert "does not exist" in mistake(capsys, "detect", tmp_path / "absent", "--output", output)
    assert "matches no file" in mistake(capsys, "detect", tmp_path / "*.jpg", "--output", output)
    assert "no pictures there" in mistake(capsys, "detect", tmp_path, "--output", output)
    (tmp_path / "a.mp4").touch()
    assert "has videos (.mp4) and no pictures; make pictures of it" in mistake(
        capsys, "detect", tmp_path, "--output", output
    )
    assert "the list cannot be read" in mistake(capsys, "detect", f"@{tmp_path}/list.txt", "--output", output)
    assert not output.exists()


def test_mistakes_with_models(capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    detect = ["detect", photos, "--output", tmp_path / "out", "--model"]
    assert "nosuch: no such model or file; bundled models: " in mistake(capsys, *detect, "nosuch")
    (tmp_path / "mine.safetensors").touch()
    assert "(did you mean 'mine.safetensors'?)" in mistake(capsys, *detect, tmp_path / "min.safetensors")
    assert "not a safetensors file" in mistake(capsys, *detect, photos / "a.jpg")
    assert not (tmp_path / "out").exists()


def test_mistakes_with_devices_and_outputs(
    capsys: pytest.CaptureFixture[str], photos: Path, model_file: Path, tmp_path: Path
) -> None:
    detect = ["detect", photos, "--model", model_file, "--output"]
    assert "device 'tpu' is unknown" in mistake(capsys, *detect, tmp_path / "out", "--device", "tpu")
    file = tmp_path / "file"
    file.touch()
    assert run(*detect, file, "--device", "cpu") == 2
    assert str(file) in capsys.readouterr().err.splitlines()[-1]


def test_mistakes_with_evaluation(capsys: pytest.CaptureFixture[str], voc: Path, tmp_path: Path) -> None:
    evaluate = ["evaluate", "voc", "--detections", tmp_path, "--devkit"]
    assert "is this the root of a VOC set" in mistake(capsys, *evaluate, tmp_path)
    assert "splits there: test" in mistake(capsys, *evaluate, voc, "--split", "val")
    assert "has no file comp4_det_test_<class>.txt" in mistake(capsys, *evaluate, voc)
    assert "--metric 'coco' is unknown" in mistake(capsys, *evaluate, voc, "--metric", "coco")
    (tmp_path / "detections.json").write_text("{}")
    detections = ["--detections", tmp_path / "detections.json"]
    assert "a COCO document is expected" in mistake(capsys, "evaluate", "voc", "--devkit", voc, *detections)


def test_mistakes_with_options_name_the_option(capsys: pytest.CaptureFixture[str], photos: Path) -> None:
    for arguments, name in [
        (["detect", photos], "--output"),
        (["detect", photos, "--output", "out", "--workers", 0], "--workers"),
        (["detect", photos, "--output", "out", "--min-score", 2], "--min-score"),
        (["detect", photos, "--output", "out", "--nosuch"], "--nosuch"),
        (["train", "detector"], "--data"),
    ]:
        assert run(*arguments) == 2
        written = capsys.readouterr().err
        assert name in written
        assert "Traceback" not in written


def test_evaluate_voc(capsys: pytest.CaptureFixture[str], voc: Path, tmp_path: Path) -> None:
    found = tmp_path / "results"
    found.mkdir()
    (found / "comp4_det_test_cat.txt").write_text("000001 0.9 1 1 20 10\n")
    numbers = tmp_path / "numbers.json"
    assert run("evaluate", "voc", "--devkit", voc, "--detections", found, "--json", numbers) == 0
    assert "1.0000" in capsys.readouterr().out
    result = json.loads(numbers.read_text())
    assert result["mAP"] == 1.0
    assert result["per_class"]["cat"] == 1.0


def test_detect(capsys: pytest.CaptureFixture[str], photos: Path, model_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    (photos / "broken.jpg").touch()
    arguments = ["--model", model_file, "--proposals", 8, "--device", "cpu", "--draw-score", 0.2]
    assert run("detect", photos, "--output", output, *arguments) == 0
    written = capsys.readouterr()
    assert written.out == ""
    assert "5 pictures in " in written.err
    assert "1 file could not be processed, see " in written.err
    assert len(read_detections(output, key="file_name")) == 5
    settings = json.loads((output / "run.json").read_text())["settings"]
    assert settings["model"] == [str(model_file)]
    assert (settings["proposals"], settings["first_pass"], settings["workers"]) == (8, None, 1)
    for option, told in {
        ("--first-pass", 5): "the model has no first pass",
        ("--precision", "int8"): "the model cannot run in 8 bits",
        ("--precision", "float16"): "precision float16 is for a GPU",
        ("--precision", "double"): "precision 'double' is unknown; use float32, float16 or int8",
    }.items():
        assert run("detect", photos, "--output", output, *arguments, *option) == 2
        assert told in capsys.readouterr().err
    assert settings["draw_score"] == 0.2


def test_ids_of_annotations_are_written(
    capsys: pytest.CaptureFixture[str], photos: Path, model_file: Path, tmp_path: Path
) -> None:
    names = ["a.jpg", "b.png", "c.JPG", r"sub\a.jpg", "sub/d.jpeg"]
    images = [{"id": 70 + i, "file_name": name, "width": 200, "height": 90} for i, name in enumerate(names)]
    categories = [{"id": 30 + i, "name": name} for i, name in enumerate(("person", "cat", "dog"))]
    annotations, results = tmp_path / "coco.json", tmp_path / "results.json"
    annotations.write_text(json.dumps({"images": images, "categories": categories, "annotations": []}))
    options = ["--model", model_file, "--proposals", 4, "--device", "cpu", "--min-score", 0]
    ids = ["--annotations", annotations, "--results", results]
    assert run("detect", photos, "--output", tmp_path / "out", *options, *ids) == 0
    document = json.loads((tmp_path / "out/detections.json").read_text())
    assert {image["file_name"]: image["id"] for image in document["images"]} == {
        name.replace("\\", "/"): 70 + i for i, name in enumerate(names)
    }
    named = {category["name"]: category["id"] for category in document["categories"]}
    assert named.items() <= {category["name"]: category["id"] for category in categories}.items()
    assert document["annotations"][0]["segmentation"] == []
    loaded = COCO(annotations).loadRes(str(results)).anns
    fields = ("image_id", "category_id", "bbox", "score")
    assert [[one[key] for key in fields] for one in loaded.values()] == [
        [one[key] for key in fields] for one in document["annotations"]
    ]
    capsys.readouterr()
    for output, also in (("merged.json", []), ("again.json", ["--results", tmp_path / "merged_results.json"])):
        members = [tmp_path / "out", tmp_path / "out", "--output", tmp_path / output, "--annotations", annotations]
        assert run("ensemble", *members, *also) == 0
    merged = json.loads((tmp_path / "merged.json").read_text())
    assert {image["id"] for image in merged["images"]} == set(range(70, 75))
    assert len(COCO(annotations).loadRes(str(tmp_path / "merged_results.json")).anns) == len(merged["annotations"])
    detect = ["detect", photos, "--output", tmp_path / "new", *options]
    capsys.readouterr()
    assert "name them by --annotations" in mistake(capsys, *detect, "--results", results)
    annotations.write_text(json.dumps({"images": images[1:], "categories": categories}))
    assert "has no image called 'a.jpg' (1 such in all)" not in mistake(capsys, *detect, *ids[:2])
    assert not (tmp_path / "new").exists()


def test_results_inside_the_folder_of_pictures(photos: Path, model_file: Path) -> None:
    arguments = [photos, "--output", photos / "out", "--model", model_file, "--proposals", 2, "--device", "cpu"]
    for _ in range(2):
        assert run("detect", *arguments) == 0
        assert len(read_detections(photos / "out", key="file_name")) == 5


def test_crops_are_no_pictures_of_the_next_run(
    capsys: pytest.CaptureFixture[str], photos: Path, model_file: Path, tmp_path: Path
) -> None:
    arguments = [photos, "--output", photos / "out", "--model", model_file, "--proposals", 4, "--device", "cpu"]
    labels = ["--crop", photos / "crops", "--save-yolo", tmp_path / "yolo", "--save-voc", photos, "--draw-score", 0.1]
    for _ in range(2):
        assert run("detect", *arguments, *labels, "--only", "cat", "--only", "dog") == 0
        assert "\nfound at 0.1 or more: " in capsys.readouterr().err
        assert len(read_detections(photos / "out", key="file_name")) == 5
        assert list((photos / "crops" / "sub").glob("a-1-*.jpg"))
    assert (photos / "sub" / "d.xml").is_file()
    assert (tmp_path / "yolo" / "labels" / "sub" / "d.txt").is_file()
    assert json.loads((photos / "out" / "run.json").read_text())["settings"]["only"] == ["cat", "dog"]
    told = "inception-rcnn: only 'cats': no such class (did you mean 'cat'?); there are cat, dog, person"
    assert mistake(capsys, "detect", *arguments, "--only", "cats") == told
    assert "photos: is an input of this command" in mistake(capsys, "detect", *arguments, "--crop", photos)


def test_an_output_is_no_input(capsys: pytest.CaptureFixture[str], photos: Path, model_file: Path, voc: Path) -> None:
    """All commands have this rule: what is written would take the place of what is read."""
    (photos / "list.txt").write_text("a.jpg\n")
    found = photos / "found.json"
    found.write_text("{}")
    for command in (
        ["detect", photos, "--output", photos],
        ["detect", photos / "a.jpg", photos / "sub" / "..", "--output", photos],
        ["propose", photos / "a.jpg", "--output", photos / "found.json", "--annotations", found],
        ["propose", f"@{photos / 'list.txt'}", "--output", photos / "list.txt"],
        ["classify", photos / "a.jpg", "--json", photos / "a.jpg"],
        ["ensemble", found, photos / "sub.json", "--output", found],
        ["export", "--model", model_file, "--output", model_file],
        ["evaluate", "voc", "--devkit", voc, "--detections", found, "--json", found],
        ["train", "detector", "--data", voc, "--start", model_file, "--output", model_file],
        ["train", "multibox", "--data", voc, "--classes", found, "--output", found],
    ):
        assert "is an input of this command; name another output" in mistake(capsys, *command)
    assert found.read_text() == "{}"


def test_an_output_is_no_other_output_no_picture_and_no_file_of_a_folder_that_is_read(
    capsys: pytest.CaptureFixture[str], photos: Path, voc: Path, tmp_path: Path
) -> None:
    found = tmp_path / "found"
    found.mkdir()
    (found / "detections.json").write_text("{}")
    ids = ["--annotations", found / "detections.json"]
    evaluate = ["evaluate", "voc", "--devkit", voc, "--detections", found]
    for text, command in (
        ("is an input of this command", [*evaluate, "--json", found / "detections.json"]),
        ("is an input of this command", ["ensemble", found, found, "--output", found / "detections.json"]),
        ("is a picture", ["classify", photos, "--json", photos / "a.jpg"]),
        ("is a picture", [*evaluate, "--json", photos / "a.jpg"]),
        ("--output and --results are two outputs", ["ensemble", found, "--output", "a", "--results", "./a", *ids]),
        ("is the page of --report", [*evaluate, "--report", found, "--json", found / "report.html"]),
        ("the run itself writes", ["detect", photos, "--output", "new", "--results", "new/detections.json", *ids]),
        ("the run itself writes", ["detect", photos, "--output", "new", "--results", "new/detections.parquet", *ids]),
        (
            "--format 'csv' is unknown; use json, parquet or both",
            ["detect", photos, "--output", "new", "--format", "csv"],
        ),
    ):
        assert text in mistake(capsys, *command)
    assert (found / "detections.json").read_text() == "{}"


def test_a_result_list_may_lie_in_the_folder_of_the_run(
    capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path
) -> None:
    results = ["--results", tmp_path / "new" / "results.json", "--annotations", tmp_path / "none.json"]
    assert "none.json: " in mistake(capsys, "detect", photos, "--output", tmp_path / "new", *results)


def test_one_command_writes_an_output_at_a_time(capsys: pytest.CaptureFixture[str], photos: Path, voc: Path) -> None:
    output = photos / "result.json"
    for command in (
        ["propose", photos, "--output", output],
        ["classify", photos, "--json", output],
        ["ensemble", photos / "a.json", "--output", output],
        ["export", "--output", output],
        ["evaluate", "imagenet", "--data", photos, "--json", output],
        ["evaluate", "voc", "--devkit", voc, "--detections", photos, "--json", output],
        ["train", "detector", "--data", voc, "--output", output],
    ):
        with only_writer(output):
            assert f"{output}: another run is writing there" in mistake(capsys, *command)
    assert not list(photos.glob(".*"))


def test_detect_tries_again(capsys: pytest.CaptureFixture[str], photos: Path, model_file: Path, tmp_path: Path) -> None:
    (photos / "gone.jpg").symlink_to(photos / "nowhere.jpg")
    command = ["detect", photos, "--output", tmp_path / "out", "--model", model_file, "--proposals", 2]
    assert run(*command, "--device", "cpu") == 1
    assert "1 of them may succeed at another try; the same command tries those again" in capsys.readouterr().err
    (photos / "nowhere.jpg").symlink_to(photos / "a.jpg")
    assert run(*command, "--device", "cpu") == 0
    assert "7 pictures (5 of them by an earlier run) in " in capsys.readouterr().err


def test_detect_where_every_file_fails(capsys: pytest.CaptureFixture[str], model_file: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.touch()
    assert run("detect", bad, "--output", tmp_path / "out", "--model", model_file, "--device", "cpu") == 1
    assert "0 pictures" in capsys.readouterr().err


def test_interruption_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str],
    photos: Path,
    model_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*arguments: object, **settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("inception_rcnn.detect.runs.detection.detect_batch", interrupt)
    assert run("detect", photos, "--output", tmp_path / "out", "--model", model_file, "--device", "cpu") == 130
    assert "interrupted after 0 of 5 files; the same command goes on from here" in capsys.readouterr().err


@pytest.mark.parametrize("signals", [1, 2])
def test_sigterm_ends_a_run_and_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], photos: Path, model_file: Path, tmp_path: Path, signals: int
) -> None:
    from inception_rcnn.detect.detector import Detector

    command = ("detect", photos, "--output", tmp_path / "out", "--model", model_file, "--device", "cpu")
    search, searched = Detector.search, []

    def terminated(self: Detector, image: NDArray[np.uint8], name: str | None = None) -> Ranked | None:
        searched.append(name)
        if len(searched) <= signals:
            os.kill(os.getpid(), signal.SIGTERM)
        return search(self, image, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Detector, "search", terminated)
        assert run(*command) == 143
    begun = len(searched)
    assert begun < 5
    assert "stopped by SIGTERM after" in capsys.readouterr().err
    assert run(*command) == 0
    # The second signal interrupts what is in hand.
    finished = f"5 pictures ({begun} of them by an earlier run) in " if signals == 1 else "5 pictures"
    assert finished in capsys.readouterr().err


def test_mistakes_with_training(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    train = ["train", "detector", "--data", tmp_path, "--cache", tmp_path / "cache", "--weights"]
    weights = tmp_path / "net.npz"
    weights.write_bytes(b"nothing")
    output = tmp_path / "a.safetensors"
    assert "no such weights" in mistake(capsys, *train, "nosuch", "--output", output)
    assert "cannot be read as GoogLeNet weights" in mistake(capsys, *train, weights, "--output", output)
    absent = tmp_path / "absent" / "a.safetensors"
    assert "absent: no such folder" in mistake(capsys, *train, weights, "--output", absent)


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The limits that pictures are read with."""
    met: list[float] = []

    def decode(path: Path, max_pixels: float) -> DecodedImage:
        met.append(max_pixels)
        return decode_image(path, max_pixels)

    monkeypatch.setattr("inception_rcnn.data.images.reading.decode_image", decode)
    return met


def test_train_detector_interrupted_and_resumed(
    capsys: pytest.CaptureFixture[str],
    picture: Callable[..., np.ndarray],
    voc: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limits: list[float],
) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from inception_rcnn.backbone.googlenet import GoogLeNet
    from inception_rcnn.backbone.weights.model_file import read_model

    # The export takes ten seconds, and has tests of its own.
    names = ("trunk", "first_pass", "project", "head")
    graphs = dict.fromkeys(names, b"graph")
    monkeypatch.setattr("inception_rcnn.backbone.export.graphs.export_graphs", lambda *network, **parts: dict(graphs))
    monkeypatch.setattr("inception_rcnn.backbone.export.graphs.quantize", lambda graph, weights, inputs, step: b"bytes")
    monkeypatch.setattr(
        "inception_rcnn.backbone.export.graphs.fit_first_pass", lambda network, samples, **settings: None
    )
    state = {name: torch.zeros_like(value) for name, value in GoogLeNet().state_dict().items()}
    monkeypatch.setattr("inception_rcnn.backbone.weights.published.load_imagenet", lambda name, report: (state, False))
    (voc / "JPEGImages").mkdir()
    (voc / "ImageSets" / "Main" / "trainval.txt").write_text("000001\n000002\n")
    for name in ("000001", "000002"):
        Image.fromarray(picture(int(name), 60, 40)).save(voc / "JPEGImages" / f"{name}.jpg")
    annotation = (voc / "Annotations" / "000001.xml").read_text()
    (voc / "Annotations" / "000002.xml").write_text(annotation)
    output, cache = tmp_path / "mine.safetensors", tmp_path / "cache"
    train = ["train", "detector", "--data", voc, "--output", output, "--cache", cache, "--weights", "zeros"]
    train += ["--epochs", 1, "--batch", 1, "--regions", 4, "--workers", 1, "--device", "cpu"]
    train += ["--method", "selective-search"]
    assert run(*train, "--time-limit", 0) == 0
    written = capsys.readouterr().err
    assert "2 pictures to train on, 0 set aside" in written
    assert "a line of progress has:\n  losses: should fall\n" in written
    assert "mAP: from 0 to 1, not measured: no picture is set aside\n" in written
    assert "time is up; the same command with --resume goes on" in written
    assert not output.exists()
    # Another without --resume does not destroy what there is to go on from.
    kept = cache / "mine.detector.checkpoint.safetensors"
    unfinished = kept.read_bytes()
    assert run(*train, "--time-limit", 0) == 0
    assert f"kept as {kept.name}.before" in capsys.readouterr().err.replace("\n", " ")
    assert kept.with_name(f"{kept.name}.before").read_bytes() == unfinished
    limits.clear()
    shutil.rmtree(cache / "proposals")  # so that these are computed from the pictures again
    # Another limit than that of the checkpoint; it holds for every picture that is read.
    assert run(*train, "--resume", "--max-pixels", 2400) == 0
    assert set(limits) == {2400}
    written = capsys.readouterr().err
    assert f"wrote {output}\n" in written
    out = f"out-{output.stem}"
    assert (
        f"to detect:   inception-rcnn detect {voc} --model {output} --method selective-search --output {out}" in written
    )
    assert f"to evaluate: inception-rcnn evaluate voc --devkit {voc} --split test --detections {out}\n" in written
    model = read_model(output)
    assert model.classes == VOC_CLASSES
    assert (model.long_side, model.box_regression) == (640, True)
    assert model.trained["pictures"] == 2
    log = [json.loads(line) for line in (cache / "mine.detector.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == log[-1]["steps"] == 2

    # The trunk of the one, the upper layers of the other.
    for value in state.values():
        value.fill_(1)
    member = tmp_path / "member.safetensors"
    train[train.index(output)] = member
    assert run(*train, "--start", output, "--freeze", "googlenet", "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    for name, value in read_model(member).weights.items():
        if name.startswith("googlenet."):
            assert (value == (1 if name.startswith("googlenet.inception_5") else 0)).all(), name
    assert read_model(member).trained["weights"] == "zeros"

    # Nothing to learn: the same weights and what is fitted to them, written anew.
    train[train.index(member)] = again = tmp_path / "again.safetensors"
    anew = [*train, "--epochs", 0]
    assert run(*anew, "--start", output) == 2
    assert "there is nothing trained to write; name a --start" in capsys.readouterr().err
    at = anew.index("--weights")
    assert run(*anew[:at], *anew[at + 2 :], "--start", output) == 0
    old, new = read_model(output), read_model(again)
    assert (new.trained, new.long_side, sorted(new.graphs)) == (
        old.trained,
        old.long_side,
        sorted([*graphs, "head.int8", "trunk.int8"]),
    )
    for name, value in new.weights.items():
        np.testing.assert_array_equal(value, old.weights[name])

    # Box deltas that all classes share begin as their mean; who goes on from them has such too, or each class its own.
    shared, apart = tmp_path / "shared.safetensors", tmp_path / "apart.safetensors"
    plain = [*anew[:at], *anew[at + 2 :]]
    assert run(*[shared if one == again else one for one in plain], "--start", output, "--class-agnostic") == 0
    expected = old.weights["delta.weight"].astype(np.float32).reshape(20, 4, -1).mean(0)
    np.testing.assert_allclose(read_model(shared).weights["delta.weight"], expected, atol=1e-3)
    assert run(*plain, "--start", shared) == 0
    np.testing.assert_array_equal(read_model(again).weights["delta.bias"], read_model(shared).weights["delta.bias"])
    assert run(*[apart if one == again else one for one in plain], "--start", shared, "--no-class-agnostic") == 0
    assert read_model(apart).weights["delta.bias"].tolist() == [*read_model(shared).weights["delta.bias"]] * 20

    def fail(*arguments: object, **settings: object) -> None:
        raise FloatingPointError("the loss is not finite at step 3 (a.jpg); lower the learning rate")

    monkeypatch.setattr("inception_rcnn.detect.train.detector.train_detector", fail)
    assert run(*train) == 2
    assert "lower the learning rate" in capsys.readouterr().err.splitlines()[-1]


@pytest.fixture
def labelled(picture: Callable[..., np.ndarray], tmp_path: Path) -> Path:
    """A VOC folder of six pictures with two objects each, no two alike."""
    annotations = {}
    for i in range(6):
        write_image(tmp_path / "labelled" / "JPEGImages" / f"{i:06}.jpg", picture(i, 96, 64))
        objects = ((kind, 1 + i, top, 40 + 3 * i, top + 20 + i) for kind, top in (("cat", 2), ("dog", 30)))
        annotations[f"{i:06}"] = voc_xml(*objects, size=(96, 64))
    return write_voc(tmp_path / "labelled", annotations, "trainval")


@pytest.mark.slow
@pytest.mark.parametrize("own_trunk", [False, True])
def test_train_multibox_interrupted_and_resumed(
    capsys: pytest.CaptureFixture[str],
    labelled: Path,
    model_file: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limits: list[float],
    own_trunk: bool,
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from random_model import random_network

    from inception_rcnn.detect.train import data as training_data
    from inception_rcnn.proposals import MultiBox
    from inception_rcnn.proposals.multibox.file import read_multibox

    # Of so few pictures none would be set aside.
    monkeypatch.setattr(training_data, "split_validation", lambda pictures: (pictures[:4], pictures[4:]))
    below = ["--model", model_file]
    if own_trunk:
        state = random_network(3).googlenet.state_dict()
        monkeypatch.setattr(
            "inception_rcnn.backbone.weights.published.load_imagenet", lambda name, report: (state, False)
        )
        below = ["--weights", "random"]
    output, cache = tmp_path / "mine.safetensors", tmp_path / "cache"
    train = ["train", "multibox", "--data", labelled, "--output", output, "--cache", cache, *below]
    train += ["--head", "vector", "--number", 3, "--epochs", 2, "--batch", 2, "--long-side", 96, "--device", "cpu"]
    assert run(*train, "--time-limit", 0) == 0
    written = capsys.readouterr().err
    assert "4 pictures to train on, 2 set aside" in written
    assert "time is up; the same command with --resume goes on" in written
    assert not output.exists()
    limits.clear()
    assert run(*train, "--resume", "--max-pixels", 96 * 64) == 0
    assert set(limits) == {96 * 64}
    written = capsys.readouterr().err.replace("\n", " ")
    assert f"wrote {output}" in written
    assert "% of the first 50" in written
    log = [json.loads(line) for line in (cache / "mine.multibox.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == log[-1]["steps"] == 4
    assert log[-1]["recall_50"] in (0, 0.25, 0.5, 0.75, 1)  # of four objects
    model = read_multibox(output)
    assert (model.long_side, model.priors.shape, bool(model.trunk_graph)) == (96, (3, 4), own_trunk)
    assert model.trained["pictures"] == 4
    again = tmp_path / "again.safetensors"
    train[train.index(output)] = again
    del train[train.index("--head") : train.index("--epochs")]
    assert run(*train, "--start", output) == 0
    assert read_multibox(again).trained["start"] == output.name
    assert read_multibox(again).priors.tolist() == model.priors.tolist()
    multibox = MultiBox.load(output, detector=model_file, device="cpu", threads=1)
    assert 1 <= len(multibox(np.asarray(Image.open(photos / "a.jpg")))[0]) <= 3
    propose = ["propose", photos, "--multibox", output, "--model", model_file, "--workers", 1, "--output"]
    assert run(*propose, tmp_path / "boxes.npz") == 0


@pytest.mark.parametrize("what", ["detector", "multibox"])
def test_pictures_that_are_too_large_to_train_on(
    capsys: pytest.CaptureFixture[str], labelled: Path, model_file: Path, tmp_path: Path, what: str
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    more = {"detector": ["--method", "selective-search", "--start"], "multibox": ["--model"]}[what]
    output = tmp_path / "a.safetensors"
    train = ["train", what, "--data", labelled, "--cache", tmp_path / "cache", "--output", output, *more, model_file]
    assert run(*train, "--device", "cpu", "--max-pixels", 10) == 2
    written = capsys.readouterr().err.replace("\n", " ")
    assert written.count("pixels, more than the limit of 10; make it smaller or raise the limit (--max-pixels)") == 6
    assert "0 pictures to train on" in written


def test_mistakes_with_training_a_multibox(
    capsys: pytest.CaptureFixture[str], labelled: Path, model_file: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    train = ["train", "multibox", "--data", labelled, "--cache", tmp_path / "cache", "--output"]
    output = tmp_path / "a.safetensors"
    assert "head 'tree' is unknown; use grid or vector" in mistake(capsys, *train, output, "--head", "tree")
    assert "nosuch: no such model or file" in mistake(capsys, *train, output, "--model", "nosuch")
    assert "no such weights" in mistake(capsys, *train, output, "--weights", "nosuch")
    assert "absent: no such folder" in mistake(capsys, *train, tmp_path / "absent" / "a.safetensors")
    assert "is a folder; name a file" in mistake(capsys, *train, tmp_path)
    assert "is written as .safetensors; name the file so" in mistake(capsys, *train, tmp_path / "a.pt")
    assert "device 'tpu' is unknown" in mistake(capsys, *train, output, "--device", "tpu")
    assert run(*train, output, "--data", labelled) == 2
    assert "and again in" in capsys.readouterr().err.splitlines()[-1]
    detector = ["train", "detector", "--data", labelled, "--cache", tmp_path / "cache", "--output", output]
    assert "no such weights" in mistake(capsys, *detector, "--start", model_file, "--weights", "x")
    along = [*detector, "--multibox-output"]
    assert "are two outputs; name another" in mistake(capsys, *along, output)
    assert "is a folder; name a file" in mistake(capsys, *along, tmp_path)
    assert "none: no such folder" in mistake(capsys, *along, tmp_path / "none" / "a.safetensors")
    for option in ("scoring", "schedule", "freeze", "optimizer"):
        assert f"{option} 'neither' is unknown; use " in mistake(capsys, *detector, f"--{option}", "neither")
    (tmp_path / "misspelled.txt").write_text("Cat\n")
    assert run(*train, output, "--classes", tmp_path / "misspelled.txt") == 2
    assert "6 of 'cat' (did you mean 'Cat'?)" in capsys.readouterr().err.splitlines()[-1]
    assert "nosuch: no such model or file" in mistake(capsys, *train, output, "--start", "nosuch")
    assert "leave out --head" in mistake(capsys, *train, output, "--start", "voc", "--head", "grid")
    assert run(*train, output, "--model", model_file) == 2
    assert "there are too few objects, or of too few sizes at 128 pixels" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("missing", [("torch", "onnxruntime", "safetensors", "safetensors.numpy"), ("onnxruntime",)])
def test_without_the_packages_of_detection(missing: tuple[str, ...], voc: Path, tmp_path: Path) -> None:
    """Evaluation works in the light installation, and detection says what to install."""
    (tmp_path / "a.jpg").touch()
    code = (
        "import sys\n"
        f"for name in {missing}:\n"
        "    sys.modules[name] = None\n"
        "from inception_rcnn.detect.cli.app import main\n"
        "main(sys.argv[1:])\n"
    )
    for arguments, message in [
        (["evaluate", "voc", "--devkit", tmp_path, "--detections", tmp_path], "is this the root of a VOC set"),
        (["detect", tmp_path / "a.jpg", "--output", tmp_path / "out"], "pip install '.[detect]'"),
    ]:
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2, done.stderr
        (line,) = done.stderr.splitlines()
        assert message in line


def test_what_the_face_of_the_room_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    from inception_rcnn import detect
    from inception_rcnn.data.errors import MissingPackageError

    assert detect.draw_detections.__module__ == "inception_rcnn.detect.drawing"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        detect.nothing  # noqa: B018
    for name in ("inception_rcnn.detect.detector", "inception_rcnn.detect.runs.detection"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    for name in ("Detector", "detect_batch"):
        with pytest.raises(MissingPackageError, match=r"detection needs scipy.special; .* pip install"):
            getattr(detect, name)


@pytest.mark.slow
def test_export(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    output = tmp_path / "model.onnx"
    assert run("export", "--model", "voc-crops", "--output", output) == 0
    assert f"wrote {output}" in capsys.readouterr().err.replace("\n", "")
    onnx.checker.check_model(str(output), full_check=True)
    assert "name a file that ends in .onnx" in mistake(capsys, "export", "--output", tmp_path / "model.pb")
    assert "in a folder that exists" in mistake(capsys, "export", "--output", tmp_path / "absent" / "model.onnx")
    assert "nosuch: no such model or file" in mistake(capsys, "export", "--model", "nosuch", "--output", output)


def test_one_training_writes_a_checkpoint_at_a_time(tmp_path: Path) -> None:
    """The second one leaves the files of the first where they are."""
    pytest.importorskip("torch")
    from inception_rcnn.detect.cli.train_session import prepare_run
    from inception_rcnn.detect.train.process_group import SINGLE_PROCESS

    checkpoint = tmp_path / "mine.detector.checkpoint.safetensors"
    checkpoint.write_bytes(b"of the first")
    with contextlib.ExitStack() as first:
        prepare_run(first, tmp_path, "mine.detector", resume=True, time_limit=None, group=SINGLE_PROCESS)
        with (
            contextlib.ExitStack() as second,
            pytest.raises(OutputError, match=f"{checkpoint}: another run is writing"),
        ):
            prepare_run(second, tmp_path, "mine.detector", resume=False, time_limit=None, group=SINGLE_PROCESS)
        prepare_run(first, tmp_path, "other.detector", resume=False, time_limit=None, group=SINGLE_PROCESS)
    assert checkpoint.read_bytes() == b"of the first"


def test_a_description_that_cannot_be_parsed_is_no_warning_without_a_name(tmp_path: Path) -> None:
    entry = (1, 0x0112, 4, 1, 1 << 16)  # a count that is larger than the file
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHIHI", 8, *entry) + bytes(4)
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg", exif=exif)
    output = ["--output", tmp_path / "a.npz", "--method", "selective-search", "--mode", "single"]
    with warnings.catch_warnings(record=True) as told:
        assert run("propose", tmp_path / "a.jpg", *output, "--workers", 1) == 0
    assert not told


def test_an_ensemble_tells_that_its_members_know_pictures_in_other_sizes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = Detections(np.float32([[0, 0, 9, 9]]), np.float32([0.5]), np.array([0]), ("cat",))
    for name, size in (("one", (40, 30)), ("same", (40, 30)), ("other", (30, 40))):
        write_detections(tmp_path / f"{name}.json", [("a.jpg", *size, found)], ["cat"])
    members = [tmp_path / f"{name}.json" for name in ("one", "same", "other")]
    assert run("ensemble", *members[:2], "--output", tmp_path / "merged.json") == 0
    assert "another size" not in capsys.readouterr().err
    assert run("ensemble", *members, "--output", tmp_path / "merged.json") == 0
    told = capsys.readouterr().err
    assert "1 of 1 pictures have another size" in told
    assert "other.json than in the files before, such as 'a.jpg': 30 x 40, there 40 x 30" in told
    sizes = [(one["width"], one["height"]) for one in json.loads((tmp_path / "merged.json").read_text())["images"]]
    assert sizes == [(40, 30)]
