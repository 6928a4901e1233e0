"""`inception-rcnn train detector` with a teacher: from its options to what `classes` tells of the model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from builders import voc_xml, write_image, write_voc

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from inception_rcnn.backbone.googlenet import GoogLeNet
from inception_rcnn.detect.cli.app import main

XML = (
    "<annotation><filename>{0}</filename><size><width>96</width><height>64</height></size><object><name>{1}</name>"
    "<bndbox><xmin>1</xmin><xmax>60</xmax><ymin>1</ymin><ymax>50</ymax></bndbox></object></annotation>"
)


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


@pytest.mark.slow
def test_from_a_teacher_to_measured_classes(
    picture: Callable[..., np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.manual_seed(0)
    state = GoogLeNet(1000).state_dict()
    # The teacher's first: to be patched, its module is imported, with the real function in it.
    for module in ("detect.train.teacher", "backbone.weights.published"):
        monkeypatch.setattr(f"inception_rcnn.{module}.load_imagenet", lambda name, report: (state, False))
    voc, more, shown = tmp_path / "voc", tmp_path / "more", tmp_path / "ILSVRC2012"
    (shown / "Annotations").mkdir(parents=True)
    for i in range(6):
        write_image(voc / "JPEGImages" / f"{i:06}.jpg", picture(i, 96, 64))
        write_image(more / f"{i:06}.JPEG", picture(20 + i, 96, 64))
    write_voc(voc, {f"{i:06}": voc_xml(("cat", 1, 2, 40, 30), size=(96, 64)) for i in range(6)}, "trainval")
    # Three zebras with odd numbers, of which the training learns from one, and a cat, which has boxes.
    for name, wnid in (("more1", "n02391049"), ("v3", "n02391049"), ("v5", "n02391049"), ("v7", "n02123045")):
        write_image(shown / f"{name}.JPEG", picture(40, 96, 64))
        (shown / "Annotations" / f"{name}.xml").write_text(XML.format(name, wnid))
    write_image(more / "more1.jpg", picture(41, 96, 64))
    (tmp_path / "names.txt").write_text("domestic cat\nzebra\n")
    model = tmp_path / "taught.safetensors"
    train = ["train", "detector", "--data", voc, "--classes", tmp_path / "names.txt", "--start", "voc", "--freeze"]
    train += ["trunk", "--long-side", 128, "--batch", 2, "--regions", 4, "--device", "cpu", "--workers", 1]
    train += ["--cache", tmp_path / "cache", "--output", model, "--epochs", 1]
    assert run(*train, "--unlabelled", more) == 2
    assert "only a teacher can tell what is in such pictures" in capsys.readouterr().err
    taught = ["--teacher", "bvlc", "--multibox", "any"]
    assert run(*train, *taught, "--unlabelled", more, "--localisation", tmp_path / "absent") == 2
    assert "absent: has no folder Annotations" in capsys.readouterr().err
    assert run(*train, *taught, "--unlabelled", more, "--localisation", shown) == 0
    written = " ".join(capsys.readouterr().err.split())
    assert "the scores of 1 of 2 are learned from nothing" in written
    assert "13 pictures to train on, 0 set aside" in written
    assert "1 picture is left out, as the training learns from them" in written
    assert "of 2 pictures localised; classes: 1" in written
    assert run("classes", model, "--json", "-") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["domestic cat"] == {"boxes": 6, "taught": False, "value": None, "number": 0, "drawn": True}
    assert (told["zebra"]["boxes"], told["zebra"]["taught"], told["zebra"]["number"]) == (0, True, 2)
    # Written anew, and nothing is measured: what is known stays.
    again = [*train[: train.index("--output")], "--output", tmp_path / "again.safetensors", "--epochs", 0]
    again[again.index("voc")] = model  # of --start
    assert run(*again, "--multibox", "any") == 0
    capsys.readouterr()
    assert run("classes", tmp_path / "again.safetensors", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out) == told
