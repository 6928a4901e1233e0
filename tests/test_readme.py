"""The README's commands and examples run as they stand there."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
XML = """<annotation><size><width>451</width><height>300</height><depth>3</depth></size>
<object><name>cat</name><difficult>0</difficult>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>451</xmax><ymax>300</ymax></bndbox></object></annotation>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the README's reader has: a picture of a cat, a folder of photographs, a VOC development kit."""
    from PIL import Image
    from skimage.data import chelsea

    pytest.importorskip("onnxruntime")
    if not (ROOT / "backbone" / "models" / "voc.safetensors").is_file():
        pytest.skip("the bundled model is missing")
    folder = tmp_path_factory.mktemp("readme")
    devkit = folder / "VOCdevkit" / "VOC2007"
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (devkit / name).mkdir(parents=True)
    Image.fromarray(chelsea()).save(folder / "cat.jpg", quality=95)
    (folder / "photos").mkdir()
    shutil.copy(folder / "cat.jpg", folder / "photos" / "000001.jpg")
    shutil.copy(folder / "cat.jpg", devkit / "JPEGImages" / "000001.jpg")
    (devkit / "Annotations" / "000001.xml").write_text(XML)
    (devkit / "ImageSets" / "Main" / "test.txt").write_text("000001\n")
    return folder


def test_the_examples_run_in_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inception_rcnn.data import read_image
    from inception_rcnn.detect.cli import main

    monkeypatch.chdir(folder)
    names: dict[str, object] = {"image": read_image("cat.jpg")}
    ran = 0
    for language, text in BLOCKS:
        if language == "python":
            if "read_detections" in text and not Path("out").exists():
                with pytest.raises(SystemExit) as stop:
                    main(["detect", "photos", "--output", "out"])
                assert stop.value.code == 0
            exec(compile(text, "README.md", "exec"), names)
            ran += 1
    assert ran >= 3
    assert 0 <= names["result"]["mAP"] <= 1  # type: ignore[index]
    boxes = np.asarray(names["boxes"])
    assert boxes.shape[1] == 4


def test_every_command_is_one_that_exists(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from inception_rcnn.detect.cli import main

    commands = [
        shlex.split(line.replace("\\\n", " "))
        for language, text in BLOCKS
        if language == ""
        for line in text.replace("\\\n", " ").splitlines()
        if line.startswith("inception-rcnn ")
    ]
    assert commands
    for words in commands:
        options = [word for word in words[1:] if word.startswith("--")]
        path = [word for word in words[1:3] if word in ("detect", "evaluate", "train", "voc", "detector")]
        with pytest.raises(SystemExit) as stop:
            main([*path, "--help"])
        assert stop.value.code == 0
        page = capsys.readouterr().out
        for option in options:
            assert option in page, f"{' '.join(path)} has no {option}"


def test_make_targets_named_in_the_documents_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    text = README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^make ([a-z]+)", text, re.MULTILINE)) | set(re.findall(r"`make ([a-z]+)", text))
    assert named
    assert named <= targets


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), f"{page}: {target} does not exist"
