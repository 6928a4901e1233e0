"""How much a command prints, and where: --quiet, --json -, colours, and what is logged for users of Python."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from builders import voc_xml, write_voc

from inception_rcnn.detect.cli.app import main
from inception_rcnn.detect.cli.terminal import chosen_output


def run(*arguments: object) -> int:
    """Exit status of a command."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """A development kit with one picture of one cat, and what was found in it."""
    root = write_voc(tmp_path / "VOC2007", {"000001": voc_xml(("cat", 1, 1, 20, 10))})
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "comp4_det_test_cat.txt").write_text("000001 0.9 1 1 20 10\n")
    return root


def test_a_quiet_detection_prints_what_failed_only(
    capsys: pytest.CaptureFixture[str], photos: Path, model_file: Path, tmp_path: Path
) -> None:
    command = ["detect", photos, "--output", tmp_path / "out", "--model", model_file, "--proposals", 2, "--quiet"]
    command += ["--device", "cpu"]
    assert run(*command) == 0
    assert capsys.readouterr() == ("", "")
    assert (tmp_path / "out" / "detections.json").is_file()
    (photos / "broken.jpg").touch()
    assert run(*command) == 0
    written = capsys.readouterr()
    assert written.out == ""
    first, second = written.err.splitlines()
    assert first == f"1 file could not be processed, see {tmp_path / 'out'}/errors.jsonl"
    assert second.startswith(f"  {photos / 'broken.jpg'}: is empty")
    assert run(*command, "--nms", "sotf") == 2
    assert capsys.readouterr().err == (
        "inception-rcnn: nms 'sotf' is unknown (did you mean 'soft'?); use soft or greedy\n"
    )
    # The next command is not quiet.
    assert run(*command[:-3], "--device", "cpu") == 0
    assert len(capsys.readouterr().err.splitlines()) > 1


def test_quiet_proposals(capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path) -> None:
    options = ["--method", "selective-search", "--mode", "single", "--workers", 1, "--quiet"]
    assert run("propose", photos, "--output", tmp_path / "boxes.npz", *options) == 0
    assert capsys.readouterr() == ("", "")


def test_quiet_logs_errors_only() -> None:
    log = logging.getLogger("inception_rcnn.data.system.kernels")
    assert log.isEnabledFor(logging.WARNING)
    with chosen_output({"quiet": True}):
        assert not log.isEnabledFor(logging.WARNING)
        assert log.isEnabledFor(logging.ERROR)
    assert log.isEnabledFor(logging.WARNING)


def test_json_to_standard_output_is_all_that_is_there(capsys: pytest.CaptureFixture[str], voc: Path) -> None:
    found = voc.parent / "found"
    annotations = {
        "images": [{"id": 1, "file_name": "000001.jpg", "width": 20, "height": 10}],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [0, 0, 20, 10], "area": 200, "iscrowd": 0}],
    }
    (voc.parent / "coco.json").write_text(json.dumps(annotations))
    results = [{"image_id": 1, "category_id": 3, "bbox": [0, 0, 20, 10], "score": 0.9}]
    (voc.parent / "results.json").write_text(json.dumps(results))
    coco = ["--annotations", voc.parent / "coco.json"]
    for command, key in (
        (["evaluate", "voc", "--devkit", voc, "--detections", found, "--at", "f1"], "mAP"),
        (["evaluate", "voc", "--devkit", voc, "--detections", found, "--report", voc.parent / "page"], "per_class"),
        (["evaluate", "coco", *coco, "--detections", voc.parent / "results.json"], "mAP"),
        (["compare", found, found, "--devkit", voc, "--bootstrap", 100], "difference"),
        (["compare", *[voc.parent / "results.json"] * 2, *coco, "--bootstrap", 100], "difference"),
        (["info"], "version"),
    ):
        assert run(*command, "--json", "-") == 0
        assert key in json.loads(capsys.readouterr().out)
    assert not Path("-").exists()
    # The next command prints its table again.
    assert run("evaluate", "voc", "--devkit", voc, "--detections", found) == 0
    assert "cat" in capsys.readouterr().out


def test_pycocotools_prints_nothing_beside_the_json(voc: Path) -> None:
    """It writes to the file descriptor of standard output if it writes at all."""
    (voc.parent / "coco.json").write_text(
        json.dumps({"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [{"id": 1, "name": "cat"}],
                    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81}]})
    )  # fmt: skip
    (voc.parent / "found.json").write_text("[]")
    command = ["evaluate", "coco", "--annotations", "coco.json", "--detections", "found.json", "--json", "-"]
    done = subprocess.run(
        [sys.executable, "-m", "inception_rcnn.detect.cli.app", *command],
        cwd=voc.parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["mAP"] == 0


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}, {"NO_COLOR": "1", "FORCE_COLOR": "1"}])
@pytest.mark.parametrize(
    ("command", "status"), [("info", 0), ("detect absent.jpg --output out", 2), ("detect --help", 0)]
)
def test_a_pipe_has_no_colours(command: str, status: int, variables: dict[str, str], tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    done = subprocess.run(
        [sys.executable, "-m", "inception_rcnn.detect.cli.app", *command.split()],
        cwd=tmp_path, env=environment | variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == status
    assert "\x1b" not in done.stdout + done.stderr


def test_a_terminal_has_colours_but_with_no_color(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    shown = {}
    for variables in ({}, {"NO_COLOR": "1"}):
        environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "inception_rcnn.detect.cli.app", "detect", "absent.jpg", "--output", "out"]
        subprocess.run(
            command, cwd=tmp_path, env=environment | variables | {"TERM": "xterm-256color"}, stderr=theirs, check=False
        )
        shown[len(variables)] = os.read(ours, 10_000).decode()
        os.close(ours)
        os.close(theirs)
    assert "\x1b[31m" in shown[0]
    assert "\x1b" not in shown[1]
    assert "absent.jpg: does not exist" in shown[0].replace("\r\n", "")


def test_a_library_prints_nothing_and_logs_under_its_name(tmp_path: Path) -> None:
    """The notice of compiling is a record that a program can show, send elsewhere or leave out."""
    script = """
import logging, sys
from inception_rcnn.data.system import kernels
kernels.NOTICE_AFTER = 0.0
logging.getLogger("inception_rcnn").addHandler(logging.FileHandler("log"))
logging.getLogger("inception_rcnn").propagate = False
import numpy as np
from inception_rcnn.proposals import selective_search
selective_search(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True,
        env=os.environ | {"INCEPTION_RCNN_CACHE": str(tmp_path / "cache"), "NUMBA_CACHE_DIR": ""},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("", "")
    assert "compiling" in (tmp_path / "log").read_text()
