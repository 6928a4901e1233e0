"""The scripts from a development kit to its table, on tiny kits in the exact layout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from builders import noise_image
from PIL import Image

from inception_rcnn.data import ILSVRC_DET_CLASSES

SCRIPTS = Path(__file__).resolve().parents[1] / "benchmarks"
ANT, ZEBRA = "n02219486", "n02391049"
OBJECT = """<object><name>{name}</name>
<bndbox><xmin>8</xmin><xmax>60</xmax><ymin>8</ymin><ymax>40</ymax></bndbox></object>"""


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """The ILSVRC DET kit with four pictures for validation and two for training."""
    root = tmp_path / "ILSVRC"
    names = [f"val/ILSVRC2012_val_{i:08}" for i in range(1, 5)] + [f"train/ILSVRC2013_train/{ANT}/{ANT}_1"]
    for i, name in enumerate(names):
        annotation, picture = root / f"Annotations/DET/{name}.xml", root / f"Data/DET/{name}.JPEG"
        for path in (annotation, picture):
            path.parent.mkdir(parents=True, exist_ok=True)
        size = "<size><width>80</width><height>60</height><depth>3</depth></size>"
        box = OBJECT.format(name=ZEBRA if i % 2 else ANT)
        annotation.write_text(f"<annotation><filename>{annotation.stem}</filename>{size}{box}</annotation>")
        Image.fromarray(noise_image(i, 80, 60)).save(picture, "JPEG")
    lists = root / "ImageSets/DET"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("".join(f"ILSVRC2012_val_{i:08} {i}\n" for i in range(1, 5)))
    for number in range(1, 201):
        (lists / f"train_{number}.txt").write_text(f"ILSVRC2013_train/{ANT}/{ANT}_1 {1 if number == 3 else -1}\n")
    return root


def start(script: str, *arguments: object, command: str, folder: Path, **environment: str) -> str:
    """Run a script where ``inception-rcnn`` is a command of ours; return what it printed."""
    shim = folder / "bin" / "inception-rcnn"
    shim.parent.mkdir(exist_ok=True)
    shim.write_text(f"#!/bin/sh\n{command}\n")
    shim.chmod(0o755)
    path = os.pathsep.join([str(shim.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["sh", SCRIPTS / script, *map(str, arguments)], cwd=folder, env={**os.environ, "PATH": path, **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_from_the_ilsvrc_kit_to_its_table(kit: Path, tmp_path: Path) -> None:
    for package in ("torch", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    from random_model import random_network

    from inception_rcnn.backbone.export.graphs import to_model
    from inception_rcnn.backbone.weights.model_file import write_model

    model, classes = tmp_path / "m.safetensors", tuple(ILSVRC_DET_CLASSES.values())
    write_model(model, to_model(random_network(classes=200, class_agnostic=True), classes, long_side=128))
    command = f'exec "{sys.executable}" -m inception_rcnn.detect.cli.app "$@"'
    options = ["--method", "selective-search", "--device", "cpu"]
    printed = start("ilsvrc_det.sh", kit, model, "val", "out", *options, command=command, folder=tmp_path)
    assert "mean" in printed
    result = json.loads((tmp_path / "out/ilsvrc.json").read_text())
    assert 0 <= result["mAP"] <= 1
    assert len(result["per_class"]) == 200
    measured = {name for name, value in result["per_class"].items() if value is not None and not np.isnan(value)}
    assert measured == {ILSVRC_DET_CLASSES[ANT], ILSVRC_DET_CLASSES[ZEBRA]}
    assert (tmp_path / "out/report.html").is_file()


def test_a_model_of_the_ilsvrc_kit_is_trained_first(kit: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    told = tmp_path / "told.txt"
    # Notes what it is called with, and writes what --output names if that is a model.
    command = f"""echo "$@" >> "{told}"
while test $# -gt 1; do case $1-$2 in --output-*.safetensors) : > "$2" ;; esac; shift; done"""
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "TRAIN": "1"}
    start("ilsvrc_det.sh", kit, "m.safetensors", command=command, folder=tmp_path, **environment)
    halves = [(kit / f"ImageSets/DET/val{half}.txt").read_text().split() for half in (1, 2)]
    assert sorted(halves[0][::2] + halves[1][::2]) == [f"ILSVRC2012_val_{i:08}" for i in range(1, 5)]
    steps = [line.split()[:3] for line in told.read_text().splitlines()]
    assert [" ".join(step) for step in steps] == [
        "train detector --data", "train multibox --data", "train detector --data",
        "detect @out/ilsvrc/pictures.txt --model", "evaluate ilsvrc --annotations",
    ]  # fmt: skip
    assert len((tmp_path / "out/ilsvrc/pictures.txt").read_text().split()) == len(halves[1]) // 2
    # What is there is not trained again, and an interrupted step goes on.
    told.unlink()
    (tmp_path / "m.safetensors").unlink()
    (tmp_path / "out/ilsvrc/cache").mkdir()
    (tmp_path / "out/ilsvrc/cache/m.detector.checkpoint.safetensors").touch()
    start("ilsvrc_det.sh", kit, "m.safetensors", command=command, folder=tmp_path, **environment)
    first, *others = told.read_text().splitlines()
    assert first.startswith("train detector")
    assert first.endswith("--resume")
    assert [line.split()[0] for line in others] == ["detect", "evaluate"]


def test_the_ilsvrc_script_says_what_it_takes(tmp_path: Path) -> None:
    for arguments in ([], ["ILSVRC"], ["ILSVRC", ""]):
        done = subprocess.run(
            ["sh", SCRIPTS / "ilsvrc_det.sh", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert done.stderr.startswith("From the ILSVRC detection set to the table")
