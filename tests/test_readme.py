"""The commands and examples of the README and the pages under docs/ run as they stand there."""

import json
import re
import shlex
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import make_detections, voc_xml, write_image, write_voc

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of the code blocks of a page."""
    return re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[list[str]]:
    """Words of every call of the command line on a page."""
    lines = (line for language, block in blocks(text) if language in ("", "sh")
             for line in block.replace("\\\n", " ").splitlines())  # fmt: skip
    return [shlex.split(line)[1:] for line in lines if line.startswith("inception-rcnn ")]


def whole_picture(name: str) -> str:
    """Annotation of the picture of the cat: one object, as large as the picture."""
    return voc_xml((name, 1, 1, 451, 300), size=(451, 300))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the README's reader has: a picture of a cat, a folder of photographs, a VOC development kit."""
    from skimage.data import chelsea

    pytest.importorskip("onnxruntime")
    if not (ROOT / "backbone" / "models" / "voc.safetensors").is_file():
        pytest.skip("the bundled model is missing")
    folder = tmp_path_factory.mktemp("readme")
    write_voc(folder / "VOCdevkit" / "VOC2007", {"000001": whole_picture("cat")})
    write_image(folder / "cat.jpg", chelsea(), quality=95)
    for copy in ("photos/000001.jpg", "docs/photographs/dog.jpg", "VOCdevkit/VOC2007/JPEGImages/000001.jpg"):
        (folder / copy).parent.mkdir(parents=True)
        shutil.copy(folder / "cat.jpg", folder / copy)
    return folder


def test_the_examples_run_in_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inception_rcnn.detect.cli.app import main

    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    ran = 0
    for language, text in blocks(README):
        if language == "python":
            if "read_detections" in text and not Path("out").exists():
                with pytest.raises(SystemExit) as stop:
                    main(["detect", "photos", "--output", "out"])
                assert stop.value.code == 0
            exec(compile(text, "README.md", "exec"), names)
            ran += 1
    assert ran == 4
    assert np.shape(names["boxes"]) == (500, 4)
    # The cat fills the picture, and is what is found most surely.
    assert names["result"]["mAP"] == names["result"]["per_class"]["cat"] == 1  # type: ignore[index]


def test_evaluation_page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inception_rcnn.data import VOC_CLASSES, write_detections

    monkeypatch.chdir(folder)
    Path("out").mkdir(exist_ok=True)
    found = make_detections([[0, 0, 451, 300]], labels=[VOC_CLASSES.index("cat")], classes=VOC_CLASSES)
    write_detections("out/detections.json", [("000001.jpg", 451, 300, found)], VOC_CLASSES)
    for folder_ in ("ILSVRC/ImageSets/DET", "ILSVRC/Annotations/DET/val"):
        Path(folder_).mkdir(parents=True, exist_ok=True)
    Path("ILSVRC/ImageSets/DET/val.txt").write_text("ILSVRC2012_val_00000001 1\n")
    Path("ILSVRC/Annotations/DET/val/ILSVRC2012_val_00000001.xml").write_text(whole_picture("n02219486"))
    Path("results.txt").write_text("1 3 0.9 1 1 451 300\n")
    Path("blacklist.txt").write_text("")
    names: dict[str, object] = {}
    page = blocks((ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8"))
    for language, text in page:
        if language == "python" and "import torch" not in text:
            exec(compile(text, "docs/evaluation.md", "exec"), names)
    assert names["result"]["mAP"] == 1  # type: ignore[index]
    assert names["recall"].tolist() == [1]  # type: ignore[attr-defined]
    assert names["loop_result"]["per_class"]["cat"] == 1  # type: ignore[index]
    assert names["confusion"].sum() == 1  # type: ignore[attr-defined]
    pytest.importorskip("torchvision")
    for language, text in page:
        if language == "python" and "import torch" in text:
            exec(compile(text, "docs/evaluation.md", "exec"), names)
    assert 0 <= names["average_precision"] < 1  # type: ignore[operator]


@pytest.mark.parametrize("package", ["numpy", "torch", "supervision", "fiftyone", "detectron2", "datasets"])
def test_interoperability_page(package: str) -> None:
    pytest.importorskip(package)
    names: dict[str, Any] = {}
    ran = 0
    for language, text in blocks((ROOT / "docs" / "interoperability.md").read_text(encoding="utf-8")):
        imported = set(re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE))
        beside = {"torch"} if package == "detectron2" else set()
        if language == "python" and imported <= {"numpy", "inception_rcnn", package, *beside}:
            exec(compile(text, "docs/interoperability.md", "exec"), names)
            ran += 1
    assert names["found"].names == ["cat"]
    assert names["sides"].tolist() == [[48, 40, 304, 240]]
    assert ran >= (1 if package == "numpy" else 2)
    box = [48, 40, 352, 280]
    if package == "torch":
        assert {name: values.tolist() for name, values in names["prediction"].items()} == {
            "boxes": [box], "scores": [pytest.approx(0.9)], "labels": [8]
        }  # fmt: skip
    elif package == "supervision":
        assert names["annotated"].xyxy.tolist() == [box]
        assert names["annotated"]["class_name"].tolist() == ["cat"]
    elif package == "fiftyone":
        (one,) = names["sample_field"].detections
        assert (one.label, one.bounding_box) == ("cat", pytest.approx([48 / 451, 40 / 300, 304 / 451, 240 / 300]))
    elif package == "detectron2":
        assert names["instances"].pred_boxes.tensor.tolist() == [box]
    elif package == "datasets":
        assert names["rows"][0]["objects"]["bbox"] == [[48, 40, 304, 240]]


def test_proposals_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from skimage.data import chelsea

    from inception_rcnn.detect.cli.app import main

    monkeypatch.chdir(tmp_path)
    for name in ("cat.jpg", "photos/cat.jpg", "coco/val2017/000000000042.jpg"):
        write_image(Path(name), chelsea())
    Path("train.txt").write_text("photos/cat.jpg\n")
    Path("coco/annotations").mkdir()
    images = [{"id": 42, "file_name": "000000000042.jpg"}]
    Path("coco/annotations/instances_val2017.json").write_text(json.dumps({"images": images}))
    page = (ROOT / "docs" / "proposals.md").read_text(encoding="utf-8")
    pytest.importorskip("onnxruntime")
    for words in commands(page):
        if "mine.safetensors" in words:  # training takes hours
            continue
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 0
        assert Path(words[words.index("--output") + 1]).exists()
    names: dict[str, object] = {}
    for language, text in blocks(page):
        if language == "python" and ("import torch" not in text or find_spec("torch")):
            exec(compile(text, "docs/proposals.md", "exec"), names)
            if "ProposalDataset" in text:
                assert names["picture"].shape == (3, 448, 448)  # type: ignore[attr-defined]
                assert names["target"]["boxes"].shape[1] == 4  # type: ignore[index]
    assert names["picture"].file == "cat.jpg"  # type: ignore[attr-defined]
    found = names["found"]
    assert found.classes[found.labels[0]] == "cat"  # type: ignore[attr-defined]
    pytest.importorskip("torch")
    for language, text in blocks(page):
        if language == "python" and "import torch" in text:
            exec(compile(text, "docs/proposals.md", "exec"), names)
            image, boxes = names["Proposed"]([Path("photos/cat.jpg")])[0]  # type: ignore[operator]
            assert image.shape == chelsea().shape
            assert boxes.shape == (1000, 4)


@pytest.mark.slow
def test_onnx_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from skimage.data import astronaut

    pytest.importorskip("onnxscript")
    from inception_rcnn.data import read_image
    from inception_rcnn.detect import Detector
    from inception_rcnn.detect.cli.app import main

    monkeypatch.chdir(tmp_path)
    # More is found in it than in the cat's.
    write_image(Path("cat.jpg"), astronaut(), quality=95)
    page = (ROOT / "docs" / "onnx.md").read_text(encoding="utf-8")
    for words in commands(page):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 0
    ((_, script),) = [block for block in blocks(page) if block[0] == "python"]
    names: dict[str, list] = {}
    exec(compile(script, "docs/onnx.md", "exec"), names)
    expected = Detector.load("voc", nms="greedy", device="cpu", precision="float32", second_look=0, calibrated=False)(
        read_image("cat.jpg")
    )
    found = sorted(names["found"], key=lambda one: one[0], reverse=True)
    assert len(found) == len(expected) >= 2
    assert [name for _, name, _ in found] == [expected.classes[label] for label in expected.labels]
    np.testing.assert_allclose([score for score, _, _ in found], expected.scores, atol=1e-4)
    np.testing.assert_allclose([box for _, _, box in found], expected.boxes, atol=0.05)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_one_that_exists(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    from inception_rcnn.detect.cli.app import main

    for words in commands((ROOT / page).read_text(encoding="utf-8")):
        options = [word for word in words if word.startswith("--")]
        path = words[:2] if words[0] in ("evaluate", "train") else words[:1]
        with pytest.raises(SystemExit) as stop:
            main([*path, "--help"])
        assert stop.value.code == 0
        offered = re.findall(r"--[\w-]+", capsys.readouterr().out)
        for option in options:
            assert option.partition("=")[0] in offered, f"{' '.join(path)} has no {option}"


def test_make_targets_named_in_the_documents_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    text = README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^make ([a-z-]+)", text, re.MULTILINE)) | set(re.findall(r"`make ([a-z-]+)", text))
    assert named
    assert named <= targets


@pytest.mark.parametrize("page", [*PAGES, "benchmarks/README.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert ((ROOT / page).parent / target).exists(), f"{page}: {target} does not exist"
