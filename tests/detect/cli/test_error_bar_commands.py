"""Intervals, thresholds and comparisons on the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from builders import coco_document, make_detections, random_boxes, voc_xml, write_voc

from inception_rcnn.data import VOC_CLASSES, write_detections, write_proposals
from inception_rcnn.data.proposals import Proposals
from inception_rcnn.detect.cli.app import main

CAT, DOG = (VOC_CLASSES.index(name) for name in ("cat", "dog"))


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([*map(str, arguments)])
    return int(stop.value.code or 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures with a cat and a dog each; `a.json` finds nearly all of both, `b.json` half of them."""
    rng = np.random.default_rng(0)
    boxes = {f"{i:06d}": random_boxes(2, 100, 80, rng, smallest=20).round() for i in range(12)}
    write_voc(
        tmp_path / "VOC2007",
        {
            name: voc_xml(
                *((one, x1 + 1, y1 + 1, x2, y2) for one, (x1, y1, x2, y2) in zip(("cat", "dog"), own, strict=True)),
                size=(100, 80),
            )
            for name, own in boxes.items()
        },
    )
    for file, missed in (("a.json", 0.1), ("b.json", 0.5)):
        entries = []
        for name, own in boxes.items():
            there = rng.random(2) > missed
            found = np.concatenate([own[there], random_boxes(2, 100, 80, rng, smallest=9)])
            labels = np.concatenate([np.array([CAT, DOG])[there], [CAT, CAT]])
            scores = np.concatenate([rng.uniform(0.4, 1, there.sum()), rng.uniform(0.05, 0.95, 2)])
            entries.append((f"{name}.jpg", 100, 80, make_detections(found, scores, labels, VOC_CLASSES)))
        write_detections(tmp_path / file, entries, VOC_CLASSES)
    write_proposals(
        tmp_path / "proposals.npz",
        [Proposals(f"{name}.jpg", 100, 80, own, np.ones(2, np.float32)) for name, own in boxes.items()],
    )
    sides = {
        name: np.concatenate([own[:, :2], own[:, 2:] - own[:, :2]], axis=1).tolist() for name, own in boxes.items()
    }
    document = coco_document(
        {i: f"{name}.jpg" for i, name in enumerate(boxes, start=1)},
        {1: "cat", 2: "dog"},
        [(i, label, box) for i, own in enumerate(sides.values(), start=1) for label, box in enumerate(own, start=1)],
        size=(100, 80),
    )
    (tmp_path / "coco.json").write_text(json.dumps(document))
    return tmp_path


@pytest.mark.parametrize("rules", ["voc", "coco", "ilsvrc"])
def test_intervals(folder: Path, rules: str, capsys: pytest.CaptureFixture[str]) -> None:
    truth = ["--devkit", folder / "VOC2007"] if rules == "voc" else ["--annotations", folder / "coco.json"]
    if rules == "ilsvrc":
        (folder / "classes.txt").write_text("cat\ndog\n")
        truth += ["--classes", folder / "classes.txt"]
    options = [*truth, "--detections", folder / "a.json", "--json", folder / "n.json"]
    assert run("evaluate", rules, *options) == 0
    assert "interval" not in capsys.readouterr().out
    plain = json.loads((folder / "n.json").read_text())
    assert run("evaluate", rules, *options, "--bootstrap", 100) == 0
    printed = capsys.readouterr().out
    result = json.loads((folder / "n.json").read_text())
    low, high = result["intervals"]["per_class"]["cat"]
    assert low < result["per_class"]["cat"] < high
    assert "95 % interval" in printed
    assert f"{low:.3f} to {high:.3f}" in printed
    assert (result["mAP"], result["per_class"]) == (plain["mAP"], plain["per_class"])


def test_intervals_of_proposals(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--devkit", folder / "VOC2007", "--proposals", folder / "proposals.npz", "--json", folder / "n.json"]
    assert run("evaluate", "proposals", *options, "--bootstrap", 100) == 0
    assert json.loads((folder / "n.json").read_text())["intervals"]["recall_at"]["100"] == [1, 1]
    assert "1.000 to 1.000" in capsys.readouterr().out


@pytest.mark.parametrize("rules", ["voc07", "voc12", "coco", "ilsvrc"])
def test_compare(folder: Path, rules: str, capsys: pytest.CaptureFixture[str]) -> None:
    truth = ["--devkit", folder / "VOC2007"] if "voc" in rules else ["--annotations", folder / "coco.json"]
    if rules == "ilsvrc":
        (folder / "classes.txt").write_text("cat\ndog\n")
        truth += ["--classes", folder / "classes.txt"]
    options = [*truth, "--metric", rules, "--bootstrap", 100, "--json", folder / "n.json"]
    assert run("compare", folder / "a.json", folder / "b.json", *options) == 0
    printed = capsys.readouterr().out
    result = json.loads((folder / "n.json").read_text())
    assert (result["A"], result["B"], result["metric"]) == (str(folder / "a.json"), str(folder / "b.json"), rules)
    one = result["difference"]["mAP"]
    assert one["difference"] < 0
    assert "A is better." in printed or "neither is shown to be better." in printed
    assert f"p = {one['p_value']:.3f}" in printed
    assert result["pictures"][0]["image_id"] in printed
    evaluated = ["evaluate", "coco" if rules == "coco" else "ilsvrc" if rules == "ilsvrc" else "voc", *truth]
    if "voc" in rules:
        evaluated += ["--metric", rules]
    assert run(*evaluated, "--detections", folder / "b.json", "--json", folder / "b_alone.json") == 0
    assert result["second"]["mAP"] == pytest.approx(json.loads((folder / "b_alone.json").read_text())["mAP"])


def test_rules_follow_from_the_annotations(folder: Path) -> None:
    both = folder / "a.json", folder / "b.json"
    for truth, metric in (("--devkit", "voc07"), ("--annotations", "coco")):
        place = folder / ("VOC2007" if metric == "voc07" else "coco.json")
        assert run("compare", *both, truth, place, "--bootstrap", 100, "--json", folder / "n.json") == 0
        assert json.loads((folder / "n.json").read_text())["metric"] == metric


def test_a_list_of_coco_results_is_compared(folder: Path) -> None:
    document = json.loads((folder / "a.json").read_text())
    names = {one["id"]: one["name"] for one in document["categories"]}
    files = {one["id"]: one["file_name"] for one in document["images"]}
    truth = json.loads((folder / "coco.json").read_text())
    categories = {one["name"]: one["id"] for one in truth["categories"]}
    images = {one["file_name"]: one["id"] for one in truth["images"]}
    rows = [
        {
            "image_id": images[files[one["image_id"]]],
            "category_id": categories[names[one["category_id"]]],
            "bbox": one["bbox"],
            "score": one["score"],
        }
        for one in document["annotations"]
    ]
    (folder / "list.json").write_text(json.dumps(rows))
    options = ["--annotations", folder / "coco.json", "--bootstrap", 100, "--json", folder / "n.json"]
    assert run("compare", folder / "a.json", folder / "list.json", *options) == 0
    result = json.loads((folder / "n.json").read_text())
    assert result["difference"]["mAP"] == {"difference": 0, "interval": [0, 0], "p_value": 1}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "name the annotations"),
        (["--devkit", "VOC2007", "--annotations", "coco.json"], "name the annotations"),
        (["--devkit", "VOC2007", "--metric", "map"], "--metric 'map' is unknown"),
        (["--devkit", "VOC2007", "--blacklist", "a.json"], "ILSVRC"),
        (["--annotations", "VOC2007", "--metric", "coco"], "JSON document"),
    ],
)
def test_comparisons_that_are_refused(
    folder: Path, options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [str(folder / one) if (folder / one).exists() else one for one in options]
    assert run("compare", folder / "a.json", folder / "b.json", *places) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("rules", ["voc", "coco", "ilsvrc"])
def test_thresholds(folder: Path, rules: str, capsys: pytest.CaptureFixture[str]) -> None:
    truth = ["--devkit", folder / "VOC2007"] if rules == "voc" else ["--annotations", folder / "coco.json"]
    if rules == "ilsvrc":
        (folder / "classes.txt").write_text("cat\ndog\n")
        truth += ["--classes", folder / "classes.txt"]
    options = [*truth, "--detections", folder / "a.json", "--json", folder / "n.json"]
    assert run("evaluate", rules, *options, "--at", "recall=0.5", "--bootstrap", 100) == 0
    printed = capsys.readouterr().out
    result = json.loads((folder / "n.json").read_text())
    together, confusion = result["thresholds"]["together"], result["confusion"]
    assert together["recall"] >= 0.5
    assert together["intervals"]["score"][0] <= together["score"]
    assert f"score of at least {together['score']:.3f}" in printed
    names = confusion["classes"]
    cat = confusion["matrix"][names.index("cat")]
    assert (names[-1], sum(cat)) == ("background", 12)
    assert confusion["min_score"] == together["score"]
    assert run("evaluate", rules, *options, "--at", "score=2") == 0
    assert json.loads((folder / "n.json").read_text())["thresholds"]["together"]["recall"] == 0
    assert run("evaluate", rules, *options, "--at", "0.5") == 2
    assert "--at: " in capsys.readouterr().err


def test_a_page_of_a_comparison(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = folder / "a.json", folder / "b.json"
    options = ["--bootstrap", 100, "--report", folder / "page"]
    assert run("compare", *both, "--devkit", folder / "VOC2007", *options) == 0
    printed = capsys.readouterr().out
    page = (folder / "page" / "report.html").read_text(encoding="utf-8")
    # The sentence at the end of the tables is on the page too.
    assert printed.splitlines()[-1].split(" (95")[0] in page
    for id in ("thresholds", "confusion", "tide", "both", "costs"):
        assert f'class="plot" id="{id}"' in page
    assert "boxes of A: " in page
    assert run("compare", *both, "--annotations", folder / "coco.json", *options) == 2
    assert "pages are by the rules of VOC" in capsys.readouterr().err
