import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from builders import coco_document, make_detections, voc_xml, write_voc
from rich.console import Console

from inception_rcnn.data import (
    ILSVRC_DET_CLASSES,
    VOC_CLASSES,
    Proposals,
    read_detections,
    write_detections,
    write_ilsvrc_results,
    write_proposals,
    write_voc_results,
)
from inception_rcnn.detect.cli.app import main

BOX = np.array([[10, 10, 60, 60], [0, 0, 9, 9]], np.float32)
SCORES = np.array([0.9, 0.8], np.float32)


def run(*arguments):
    try:
        main([*map(str, arguments)])
    except SystemExit as end:
        return end.code or 0
    return 0


def refused(capsys, *arguments):
    """The one line that a refused command prints, after warnings."""
    capsys.readouterr()
    assert run(*arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
    (error,) = lines
    return error


def xml(name):
    return voc_xml((name, 11, 11, 60, 60), size=(100, 80))


def found(name, classes):
    return make_detections(BOX, SCORES, [classes.index(name)] * 2, classes)


@pytest.fixture
def devkit(tmp_path):
    """One picture with a cat, a detection that fits, one that does not."""
    root = write_voc(tmp_path / "VOC2007", {"000001": xml("cat")})
    detections = {"000001": found("cat", VOC_CLASSES)}
    write_detections(tmp_path / "detections.json", [("000001.jpg", 100, 80, detections["000001"])], VOC_CLASSES)
    write_voc_results(tmp_path / "results", detections)
    return root


@pytest.fixture
def imagenet(tmp_path):
    """Two pictures of the detection challenge, numbered 7 and 8, with an ant each; the ants are found."""
    root = tmp_path / "ILSVRC"
    (root / "Annotations/DET/val").mkdir(parents=True)
    names = ["ILSVRC2012_val_00000007", "ILSVRC2012_val_00000008"]
    for name in names:
        (root / "Annotations/DET/val" / f"{name}.xml").write_text(xml("n02219486"))
    (root / "val.txt").write_text(f"{names[0]} 7\n{names[1]} 8\n")
    detections = {names[0]: found("ant", tuple(ILSVRC_DET_CLASSES.values()))}
    write_ilsvrc_results(root / "results.txt", detections, {names[0]: 7, names[1]: 8})
    (root / "blacklist.txt").write_text("8 n02219486\n")
    return root


@pytest.mark.parametrize("source", ["detections.json", "results", "."])
@pytest.mark.parametrize("metric", ["voc07", "voc12"])
def test_voc(devkit, tmp_path, source, metric, capsys):
    options = ["--metric", metric, "--json", tmp_path / "n.json"]
    assert run("evaluate", "voc", "--devkit", devkit, "--detections", tmp_path / source, *options) == 0
    numbers = json.loads((tmp_path / "n.json").read_text())
    assert numbers["mAP"] == numbers["per_class"]["cat"] == 1
    assert numbers["per_class"]["dog"] is None
    bins = numbers["calibration"]["bins"]
    gaps = [one["count"] * abs(one["mean_score"] - one["share_right"]) for one in bins if one["count"]]
    assert numbers["calibration"]["expected_calibration_error"] == pytest.approx(sum(gaps) / 2)
    assert sum(one["count"] for one in bins) == 2
    assert bins[0] == {"above": 0, "up_to": 0.1, "count": 0, "mean_score": None, "share_right": None}
    assert "1.0000" in capsys.readouterr().out


def test_voc_report(devkit, tmp_path, capsys):
    options = ["--detections", tmp_path / "detections.json", "--report", tmp_path / "report"]
    assert run("evaluate", "voc", "--devkit", devkit, *options) == 0
    assert "report.html" in capsys.readouterr().err
    assert "<html" in (tmp_path / "report/report.html").read_text()[:500]


def test_detections_of_other_classes_are_no_zero(devkit, tmp_path, capsys):
    write_detections(tmp_path / "o.json", [("000001.jpg", 100, 80, found("ant", ("ant", "bee")))], ("ant", "bee"))
    error = refused(capsys, "evaluate", "voc", "--devkit", devkit, "--detections", tmp_path / "o.json")
    assert "none of its classes is evaluated here; it has ant, bee" in error


def test_what_is_seldom_meant_is_told(devkit, tmp_path, capsys):
    some = found("cat", ("cat", "unicorn"))
    write_detections(tmp_path / "o.json", [("000001.jpg", 100, 80, some)], ("cat", "unicorn"))
    (devkit / "ImageSets/Main/two.txt").write_text("000001\n000002\n")
    (devkit / "Annotations/000002.xml").write_text(xml("dog"))
    assert run("evaluate", "voc", "--devkit", devkit, "--split", "two", "--detections", tmp_path / "o.json") == 0
    error = capsys.readouterr().err
    assert "1 of 2 pictures are not in" in error
    assert "warning: 1 of 2 evaluated classes with objects are not among those of the detections" in error
    assert "count 0: dog" in error
    assert "1 classes in" in error
    assert "unicorn" in error
    for path in (tmp_path / "results").iterdir():
        path.rename(path.with_name(path.name.replace("test", "two")))
    options = ["--split", "two", "--detections", tmp_path / "results"]
    assert run("evaluate", "voc", "--devkit", devkit, *options) == 0
    assert capsys.readouterr().err == ""
    (tmp_path / "results" / "comp4_det_two_dog.txt").unlink()
    assert run("evaluate", "voc", "--devkit", devkit, *options) == 0
    assert "1 of 2 evaluated classes with objects are not among those" in capsys.readouterr().err


def test_cocos_names_of_vocs_classes(devkit, tmp_path):
    (devkit / "Annotations/000001.xml").write_text(xml("sofa"))
    write_detections(tmp_path / "o.json", [("x/000001.jpg", 100, 80, found("couch", ("couch", "tv")))], ("couch", "tv"))
    options = ["--detections", tmp_path / "o.json", "--json", tmp_path / "n.json"]
    assert run("evaluate", "voc", "--devkit", devkit, *options) == 0
    assert json.loads((tmp_path / "n.json").read_text())["mAP"] == 1


def test_annotations_without_a_known_class(devkit, imagenet, tmp_path, capsys):
    (devkit / "Annotations/000001.xml").write_text(xml("Cat"))
    detections = ["--detections", tmp_path / "detections.json"]
    assert run("evaluate", "voc", "--devkit", devkit, *detections) == 2
    told, error = capsys.readouterr().err.splitlines()
    assert "none of VOC's classes is in" in told
    assert "none of its classes is evaluated here; it has aeroplane" in error
    assert "and evaluated are Cat" in error
    assert "do the annotations call them otherwise" in refused(
        capsys, "evaluate", "voc", "--devkit", devkit, *detections, "--classes", "voc"
    )
    (devkit / "Annotations/000001.xml").write_text(voc_xml(size=(100, 80)))
    assert "do the annotations call them otherwise" in refused(
        capsys, "evaluate", "voc", "--devkit", devkit, *detections
    )
    (devkit / "ImageSets/Main/none.txt").write_text("")
    write_detections(tmp_path / "none.json", [], VOC_CLASSES)
    detections = ["--detections", tmp_path / "none.json"]
    assert "no pictures" in refused(capsys, "evaluate", "voc", "--devkit", devkit, "--split", "none", *detections)


@pytest.fixture
def own(tmp_path):
    """A set in VOC layout with a pet and a robot, and a detector of the two that finds the pet."""
    root = write_voc(tmp_path / "mine", {"a": xml("pet"), "b": xml("robot")}, "val")
    (tmp_path / "classes.txt").write_text("robot\npet\n")
    entries = [("a.jpg", 100, 80, found("pet", ("robot", "pet"))), ("b.jpg", 100, 80, found("pet", ("robot", "pet")))]
    write_detections(tmp_path / "own.json", entries, ("robot", "pet"))
    return ["--devkit", root, "--split", "val"]


def test_own_classes_need_no_option(own, tmp_path, capsys):
    options = [*own, "--detections", tmp_path / "own.json", "--json", tmp_path / "n.json"]
    assert run("evaluate", "voc", *options, "--report", tmp_path / "report") == 0
    assert json.loads((tmp_path / "n.json").read_text())["per_class"] == {"pet": 1, "robot": 0}
    assert "its own are evaluated: pet, robot" in capsys.readouterr().err
    (tmp_path / "one.txt").write_text("pet")
    assert run("evaluate", "voc", *options, "--classes", tmp_path / "one.txt") == 0
    assert json.loads((tmp_path / "n.json").read_text())["per_class"] == {"pet": 1}
    assert "1 classes in" in capsys.readouterr().err
    (tmp_path / "none.txt").write_text("alien")
    assert "none of its classes is evaluated" in refused(
        capsys, "evaluate", "voc", *options, "--classes", tmp_path / "none.txt"
    )


def test_own_classes_of_result_files(own, tmp_path):
    write_voc_results(tmp_path / "texts", read_detections(tmp_path / "own.json"), "comp4_det_val_")
    options = ["--detections", tmp_path / "texts", "--json", tmp_path / "n.json"]
    assert run("evaluate", "voc", *own, *options) == 0
    assert json.loads((tmp_path / "n.json").read_text())["per_class"] == {"pet": 1, "robot": 0}


def test_own_classes_of_proposals(own, tmp_path):
    entries = [Proposals(f"{name}.jpg", 100, 80, BOX, SCORES) for name in ("a", "b")]
    write_proposals(tmp_path / "p.npz", entries)
    options = [*own, "--proposals", tmp_path / "p.npz", "--json", tmp_path / "n.json"]
    assert run("evaluate", "proposals", *options) == 0
    assert json.loads((tmp_path / "n.json").read_text())["abo"] == {"pet": 1, "robot": 1}
    assert run("evaluate", "proposals", *options, "--classes", tmp_path / "classes.txt") == 0
    assert list(json.loads((tmp_path / "n.json").read_text())["abo"]) == ["robot", "pet"]


def test_own_classes_by_the_other_rules(own, tmp_path, capsys):
    options = ["--json", tmp_path / "n.json", "--detections", tmp_path / "own.json"]
    annotations = ["--annotations", own[1] / "Annotations"]
    assert run("evaluate", "ilsvrc", *annotations, *options, "--classes", tmp_path / "classes.txt") == 0
    assert json.loads((tmp_path / "n.json").read_text())["per_class"] == {"robot": 0, "pet": 1}
    (own[1] / "Annotations/a.xml").write_text(xml("n00000001"))
    (tmp_path / "ids.txt").write_text("n00000002\trobot\nn00000001\tpet\n")
    assert run("evaluate", "ilsvrc", *annotations, *options, "--classes", tmp_path / "ids.txt") == 0
    assert json.loads((tmp_path / "n.json").read_text())["per_class"] == {"robot": None, "pet": 1}
    capsys.readouterr()
    more = ["--classes", "ilsvrc", "--meta", "m.mat"]
    assert "give one of the two" in refused(capsys, "evaluate", "ilsvrc", *annotations, *options, *more)

    truth = coco_document(
        {1: "a.jpg", 2: "b.jpg"}, {1: "pet", 2: "robot"}, [(1, 1, [10, 10, 50, 50]), (2, 2, [0, 0, 9, 9])], (100, 80)
    )
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    annotations = ["--annotations", tmp_path / "truth.json"]
    (tmp_path / "one.txt").write_text("robot")
    assert run("evaluate", "coco", *annotations, *options, "--classes", tmp_path / "one.txt") == 0
    assert list(json.loads((tmp_path / "n.json").read_text())["per_class"]) == ["robot"]
    capsys.readouterr()
    assert "give one of the two" in refused(
        capsys, "evaluate", "coco", *annotations, *options, "--known", "--classes", "voc"
    )


def test_pictures_in_folders(imagenet, tmp_path):
    classes = tuple(ILSVRC_DET_CLASSES.values())
    folder = imagenet / "Annotations/DET"
    names = [f"val/{path.stem}.JPEG" for path in sorted((folder / "val").iterdir())]
    for stripped in (False, True):
        entries = [(name.split("/")[-1] if stripped else name, 100, 80, found("ant", classes)) for name in names]
        write_detections(tmp_path / "d.json", entries, classes)
        options = ["--detections", tmp_path / "d.json", "--json", tmp_path / "n.json"]
        assert run("evaluate", "ilsvrc", "--annotations", folder, *options) == 0
        assert json.loads((tmp_path / "n.json").read_text())["mAP"] == 1


def test_result_lists_with_the_ids_of_annotations(devkit, tmp_path):
    truth = coco_document({7: "000001.jpg"}, {3: "cat"}, [(7, 3, [10, 10, 50, 50])], size=(100, 80))
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    results = [{"image_id": 7, "category_id": 3, "bbox": [10, 10, 50, 50], "score": 0.9}]
    (tmp_path / "results.json").write_text(json.dumps(results))
    options = [
        "--detections",
        tmp_path / "results.json",
        "--ids",
        tmp_path / "truth.json",
        "--json",
        tmp_path / "n.json",
    ]
    assert run("evaluate", "voc", "--devkit", devkit, *options) == 0
    assert json.loads((tmp_path / "n.json").read_text())["mAP"] == 1


def test_ilsvrc(imagenet, tmp_path, capsys):
    options = ["--annotations", imagenet / "Annotations/DET/val", "--detections", imagenet / "results.txt"]
    options += ["--images", imagenet / "val.txt", "--json", tmp_path / "n.json"]
    assert run("evaluate", "ilsvrc", *options) == 0
    assert json.loads((tmp_path / "n.json").read_text())["per_class"]["ant"] == 0.5
    more = ["--blacklist", imagenet / "blacklist.txt", "--report", tmp_path / "report"]
    assert run("evaluate", "ilsvrc", *options, *more) == 0
    numbers = json.loads((tmp_path / "n.json").read_text())
    assert numbers["mAP"] == 1
    assert sum(one["count"] for one in numbers["calibration"]["bins"]) == 2
    assert (tmp_path / "report/report.html").is_file()


def test_the_limit_of_the_pictures_in_a_report(devkit, imagenet, tmp_path, monkeypatch):
    limits = []
    monkeypatch.setattr(
        "inception_rcnn.detect.cli.evaluate.write_report", lambda *_, max_pixels, **__: limits.append(max_pixels)
    )
    voc = ["voc", "--devkit", devkit, "--detections", tmp_path / "detections.json"]
    ilsvrc = ["ilsvrc", "--annotations", imagenet / "Annotations/DET/val", "--images", imagenet / "val.txt"]
    ilsvrc += ["--detections", imagenet / "results.txt"]
    for limit, options in ((10, voc), (20, ilsvrc)):
        assert run("evaluate", *options, "--report", tmp_path / "report", "--max-pixels", limit) == 0
    assert limits == [10, 20]


def test_equal_scores_of_ilsvrc_are_in_the_order_of_the_numbers(imagenet, tmp_path):
    lines = (imagenet / "val.txt").read_text().splitlines(keepends=True)
    (imagenet / "val.txt").write_text("".join(lines[::-1]))
    (imagenet / "results.txt").write_text("8 3 0.5 1 1 5 5\n7 3 0.5 11 11 60 60\n")  # the second finds its ant
    options = ["--annotations", imagenet / "Annotations/DET/val", "--images", imagenet / "val.txt"]
    options += ["--detections", imagenet / "results.txt", "--json", tmp_path / "n.json"]
    assert run("evaluate", "ilsvrc", *options) == 0
    assert json.loads((tmp_path / "n.json").read_text())["mAP"] == 0.5


def test_ilsvrc_with_a_coco_document(imagenet, tmp_path):
    names = list(ILSVRC_DET_CLASSES.values())
    truth = {7: "ILSVRC2012_val_00000007.JPEG"}, {3: "ant"}, [(7, 3, [10, 10, 50, 50])]
    document = coco_document(*truth, size=(100, 80))
    (tmp_path / "truth.json").write_text(json.dumps(document))
    assert names.index("ant") == 2
    options = ["--detections", imagenet / "results.txt", "--json", tmp_path / "n.json"]
    assert run("evaluate", "ilsvrc", "--annotations", tmp_path / "truth.json", *options) == 0
    assert json.loads((tmp_path / "n.json").read_text())["mAP"] == 1


@pytest.mark.slow
def test_the_ilsvrc_rules_on_real_detections(shared, tmp_path):
    """The development kit's own figures, through the command: VOC's pictures and classes stand for ILSVRC's."""
    reference = shared / "reference" / "voc07_detections"
    with tarfile.open(reference / "devkit_test_annotations.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / "xml"
    folder.mkdir()
    listed = []
    for path in sorted((tmp_path / "VOC2007" / "Annotations").iterdir()):
        text = path.read_text()
        for number, name in enumerate(VOC_CLASSES, start=1):
            text = text.replace(f"<name>{name}</name>", f"<name>n{number:08}</name>")
        (folder / path.name).write_text(text)
        listed.append(f"{path.stem} {int(path.stem)}\n")
    (tmp_path / "list.txt").write_text("".join(listed))
    import scipy.io

    ids = [(number, f"n{number:08}", name) for number, name in enumerate(VOC_CLASSES, start=1)]
    synsets = np.array(ids, [("ILSVRC2014_DET_ID", object), ("WNID", object), ("name", object)])
    scipy.io.savemat(tmp_path / "meta_det.mat", {"synsets": synsets})
    options = ["--annotations", folder, "--images", tmp_path / "list.txt", "--meta", tmp_path / "meta_det.mat"]
    options += ["--detections", reference / "ilsvrc_predictions.txt", "--json", tmp_path / "n.json"]
    expected = json.loads((reference / "expected_ap.json").read_text())
    for key, more in (("ilsvrc", []), ("ilsvrc_blacklist", ["--blacklist", reference / "ilsvrc_blacklist.txt"])):
        assert run("evaluate", "ilsvrc", *options, *more) == 0
        numbers = json.loads((tmp_path / "n.json").read_text())["per_class"]
        for name, values in expected.items():
            assert numbers[name] == pytest.approx(values[key], abs=1e-6)


def test_coco(tmp_path, capsys):
    truth = coco_document({7: "a.jpg"}, {17: "cat"}, [(7, 17, [10, 10, 50, 50])], size=(100, 80), area=2500)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    results = [{"image_id": 7, "category_id": 17, "bbox": [10, 10, 50, 50], "score": 0.9}]
    (tmp_path / "results.json").write_text(json.dumps(results))
    write_detections(tmp_path / "detections.json", [("a.jpg", 100, 80, found("cat", ("cat",)))], ("cat",))
    for source in ("results.json", "detections.json"):
        options = ["--annotations", tmp_path / "truth.json", "--json", tmp_path / "n.json"]
        assert run("evaluate", "coco", *options, "--detections", tmp_path / source) == 0
        numbers = json.loads((tmp_path / "n.json").read_text())
        assert numbers["AP"] == numbers["mAP"] == numbers["per_class"]["cat"] == pytest.approx(1)
        assert numbers["AP_small"] is None
    assert "AP50" in capsys.readouterr().out
    truth["categories"].append({"id": 18, "name": "dog"})
    truth["annotations"].append({**truth["annotations"][0], "id": 2, "category_id": 18})
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    for known, expected in (([], 0.5), (["--known"], 1)):
        assert run("evaluate", "coco", *options, "--detections", tmp_path / "detections.json", *known) == 0
        assert json.loads((tmp_path / "n.json").read_text())["mAP"] == pytest.approx(expected)
    assert "1 of 2 evaluated classes with objects are not among" in capsys.readouterr().err


def test_parquet_is_read_as_the_document_is(devkit, imagenet, tmp_path, capsys):
    truth = coco_document({7: "000001.jpg"}, {3: "cat"}, [(7, 3, [10, 10, 50, 50])], size=(100, 80))
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    ant = [("ILSVRC2012_val_00000007.JPEG", 100, 80, found("ant", ("ant",)))]
    rows = {"cat": [("000001.jpg", 100, 80, found("cat", ("cat",)))], "ant": ant}
    numbers = {}
    for suffix in ("json", "parquet"):
        for name, entries in rows.items():
            folder = tmp_path / suffix / name
            folder.mkdir(parents=True)
            write_detections(folder / f"detections.{suffix}", entries, entries[0][3].classes)
        cat, ants = tmp_path / suffix / "cat", tmp_path / suffix / "ant"
        both = tmp_path / suffix / f"both.{suffix}"
        assert run("ensemble", cat, cat / f"detections.{suffix}", "--output", both) == 0
        for rules, source, *options in (
            ("voc", cat, "--devkit", devkit),
            ("voc", cat / f"detections.{suffix}", "--devkit", devkit),
            ("voc", both, "--devkit", devkit),
            ("coco", cat, "--annotations", tmp_path / "truth.json", "--known"),
            ("ilsvrc", ants, "--annotations", imagenet / "Annotations/DET/val"),
            ("ilsvrc", ants / f"detections.{suffix}", "--annotations", imagenet / "Annotations/DET/val"),
        ):
            assert run("evaluate", rules, *options, "--detections", source, "--json", tmp_path / "n.json") == 0
            numbers.setdefault(suffix, []).append(json.loads((tmp_path / "n.json").read_text())["mAP"])
    assert numbers["json"] == numbers["parquet"]
    assert max(numbers["json"]) == pytest.approx(1)
    # No Parquet file, in one line.
    broken = tmp_path / "parquet/cat/detections.parquet"
    broken.write_text("{}")
    for command in (
        ["evaluate", "voc", "--devkit", devkit, "--detections", broken.parent],
        ["evaluate", "coco", "--annotations", tmp_path / "truth.json", "--detections", broken],
        ["evaluate", "ilsvrc", "--annotations", imagenet / "Annotations/DET/val", "--detections", broken],
        ["ensemble", broken, "--output", tmp_path / "m.json"],
    ):
        assert f"{broken}: is not a Parquet file of detections" in refused(capsys, *command)


@pytest.mark.parametrize("suffix", ["parquet", "mat", "pkl", "json", "npz"])
def test_proposals(devkit, tmp_path, suffix, capsys):
    path = tmp_path / f"p.{suffix}"
    write_proposals(path, [Proposals("JPEGImages/000001.jpg", 100, 80, BOX, SCORES)])
    options = ["--devkit", devkit, "--proposals", path, "--json", tmp_path / "n.json"]
    assert run("evaluate", "proposals", *options) == 0
    numbers = json.loads((tmp_path / "n.json").read_text())
    assert (numbers["recall"]["0.5"], numbers["mabo"], numbers["boxes_per_image"]) == (1, 1, 2)
    assert "first 100" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "known"), [("000001", True), ("1", True), ("0001", False), ("IMG.1", False)])
def test_ids_of_proposals_are_names_or_whole_numbers(devkit, tmp_path, name, known, capsys):
    entry = Proposals("JPEGImages/000001.jpg", 100, 80, BOX, SCORES)
    write_proposals(tmp_path / "p.pkl", [entry], image_ids={entry.file: name})
    status = run("evaluate", "proposals", "--devkit", devkit, "--proposals", tmp_path / "p.pkl")
    assert status == (0 if known else 2)
    assert known or repr(name) in capsys.readouterr().err  # whole: no suffix is cut off


@pytest.mark.parametrize("method", ["wbf", "nms", "soft-nms"])
def test_ensemble(devkit, tmp_path, method):
    members = [tmp_path / "detections.json"] * 2
    assert run("ensemble", *members, "--method", method, "--output", tmp_path / "merged.json") == 0
    merged = read_detections(tmp_path / "merged.json")["000001"]
    assert merged.boxes[0].tolist() == BOX[0].tolist()
    assert merged.scores[0] == pytest.approx(0.9)
    document = json.loads((tmp_path / "merged.json").read_text())
    assert [(image["width"], image["height"]) for image in document["images"]] == [(100, 80)]
    options = ["--detections", tmp_path / "merged.json", "--json", tmp_path / "n.json"]
    assert run("evaluate", "voc", "--devkit", devkit, *options) == 0
    assert json.loads((tmp_path / "n.json").read_text())["mAP"] == 1


def test_mistakes_end_in_one_line(devkit, imagenet, tmp_path, capsys):
    detections = tmp_path / "detections.json"
    for arguments, message in [
        (["evaluate", "voc", "--devkit", tmp_path, "--detections", detections], "test.txt"),
        (["evaluate", "voc", "--devkit", devkit, "--detections", tmp_path / "no.json"], "no.json"),
        (["evaluate", "voc", "--devkit", devkit, "--detections", detections, "--metric", "voc99"], "voc99"),
        (["evaluate", "ilsvrc", "--annotations", imagenet, "--detections", detections], "no annotations"),
        (["evaluate", "ilsvrc", "--annotations", imagenet, "--detections", imagenet / "results.txt"], "--images"),
        (
            ["evaluate", "voc", "--devkit", devkit, "--detections", tmp_path / "results/comp4_det_test_cat.txt"],
            "folder",
        ),
        (["evaluate", "voc", "--devkit", devkit, "--detections", detections, "--report", detections], "is a file"),
        (["evaluate", "voc", "--devkit", devkit, "--detections", detections, "--json", "no/x.json"], "no such folder"),
        (["ensemble", detections, "--output", tmp_path / "m.json", "--weight", "nan"], "--weight"),
        (["evaluate", "coco", "--annotations", detections, "--detections", Path("no.json")], "no.json"),
        (["evaluate", "proposals", "--devkit", devkit, "--proposals", tmp_path / "p.csv"], "must end in"),
        (["ensemble", detections, detections, "--output", tmp_path / "m.json", "--weight", "1"], "--weight"),
        (["ensemble", detections, "--output", tmp_path / "m.json", "--method", "mean"], "mean"),
        (["ensemble", detections, "--output", tmp_path / "nowhere" / "m.json"], "m.json"),
    ]:
        assert message in refused(capsys, *arguments)


def test_damaged_files_end_in_one_line(devkit, imagenet, tmp_path, capsys):
    """The readers' own tests have many more; here the way from a damaged file to the terminal."""
    rng = np.random.default_rng(0)
    labelled = imagenet / "Annotations/DET/val"
    listed = ["--images", imagenet / "val.txt", "--detections", imagenet / "results.txt"]
    targets = {
        tmp_path / "detections.json": ["voc", "--devkit", devkit, "--detections", tmp_path / "detections.json"],
        tmp_path / "results/comp4_det_test_cat.txt": ["voc", "--devkit", devkit, "--detections", tmp_path / "results"],
        devkit / "Annotations/000001.xml": ["voc", "--devkit", devkit, "--detections", tmp_path / "results"],
        imagenet / "results.txt": ["ilsvrc", "--annotations", labelled, *listed],
        imagenet / "val.txt": ["ilsvrc", "--annotations", labelled, *listed],
    }
    refusals = 0
    for path, arguments in targets.items():
        whole = path.read_bytes()
        for _ in range(15):
            damaged = bytearray(whole)
            for _ in range(rng.integers(1, 4)):
                at = int(rng.integers(len(damaged)))
                damaged[at : at + int(rng.integers(1, 20))] = rng.bytes(int(rng.integers(0, 6)))
                damaged = damaged or bytearray(b" ")
            path.write_bytes(damaged)
            capsys.readouterr()
            code = run("evaluate", *arguments)
            assert code in (0, 2)
            if code == 2:
                refusals += 1
                assert len(capsys.readouterr().err.splitlines()) == 1
        path.write_bytes(whole)
    assert refusals > 35


def test_another_size_than_annotated_is_told(devkit, imagenet, tmp_path, capsys):
    """Detections and proposals in pictures of half the size, and in turned ones, by every evaluator."""
    truth = coco_document({7: "000001.jpg"}, {3: "cat"}, [(7, 3, [10, 10, 50, 50])], size=(100, 80))
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    stem = "ILSVRC2012_val_00000007"
    for size, turned in (((50, 40), ""), ((80, 100), "of 1 the two sides are swapped")):
        expected = f"{size[0]} x {size[1]}, annotated 100 x 80; {turned}"
        write_detections(tmp_path / "d.json", [("000001.jpg", *size, found("cat", ("cat",)))], ("cat",))
        write_detections(tmp_path / "i.json", [(f"{stem}.JPEG", *size, found("ant", ("ant",)))], ("ant",))
        write_proposals(tmp_path / "p.parquet", [Proposals("000001.jpg", *size, BOX, SCORES)])
        for arguments in (
            ["voc", "--devkit", devkit, "--detections", tmp_path / "d.json"],
            ["coco", "--annotations", tmp_path / "truth.json", "--detections", tmp_path / "d.json"],
            ["ilsvrc", "--annotations", imagenet / "Annotations/DET/val", "--detections", tmp_path / "i.json"],
            ["proposals", "--devkit", devkit, "--proposals", tmp_path / "p.parquet"],
        ):
            capsys.readouterr()
            assert run("evaluate", *arguments) == 0
            (line,) = [line for line in capsys.readouterr().err.splitlines() if "another size" in line]
            assert "warning: 1 of 1 pictures have another size" in line
            assert expected in line
    # What has no sizes has edges.
    write_voc_results(tmp_path / "large", {"000001": make_detections(2 * BOX, SCORES, [7, 7], VOC_CLASSES)})
    write_proposals(tmp_path / "p.mat", [Proposals("000001.jpg", 0, 0, 2 * BOX, SCORES)])
    result = {"image_id": 7, "category_id": 3, "bbox": [20, 20, 100, 100], "score": 0.9}
    (tmp_path / "results.json").write_text(json.dumps([result]))
    for arguments, which in (
        (["voc", "--devkit", devkit, "--detections", tmp_path / "large"], "1 of 2 detections"),
        (["coco", "--annotations", tmp_path / "truth.json", "--detections", tmp_path / "results.json"], "1 of 1 det"),
        (["proposals", "--devkit", devkit, "--proposals", tmp_path / "p.mat"], "1 of 2 proposals"),
    ):
        capsys.readouterr()
        assert run("evaluate", *arguments) == 0
        assert f"warning: {which}" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "utf-8"])
def test_any_terminal_shows_the_table(own, tmp_path, monkeypatch, encoding):
    (own[1] / "Annotations/b.xml").write_text(xml("猫–é"))
    shown = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(shown, encoding))
    options = [*own, "--detections", tmp_path / "own.json", "--json", tmp_path / "n.json"]
    assert run("evaluate", "voc", *options) == 0
    sys.stdout.flush()
    name = "猫–é".encode(encoding, "replace").decode(encoding)
    assert name in shown.getvalue().decode(encoding)
    assert json.loads((tmp_path / "n.json").read_text())["per_class"] == {"pet": 1, "猫–é": 0}


class Full(io.StringIO):
    """A terminal, or a file that output is sent to, that cannot be written to."""

    def write(self, text):
        raise OSError(28, "No space left on device")


def test_results_are_written_before_they_are_shown(devkit, imagenet, tmp_path, monkeypatch):
    truth = coco_document({7: "000001.jpg"}, {3: "cat"}, [(7, 3, [10, 10, 50, 50])], size=(100, 80))
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    write_proposals(tmp_path / "p.npz", [Proposals("000001.jpg", 100, 80, BOX, SCORES)])
    detections = ["--detections", tmp_path / "detections.json"]
    ants = ["--images", imagenet / "val.txt", "--detections", imagenet / "results.txt"]
    monkeypatch.setattr("sys.stdout", Full())
    # A console of its own: it keeps what it could not write, for the next command of this process.
    monkeypatch.setattr("inception_rcnn.detect.cli.evaluate.output", Console())
    for name, arguments in (
        ("voc", ["--devkit", devkit, *detections, "--report", tmp_path / "report"]),
        ("coco", ["--annotations", tmp_path / "truth.json", *detections]),
        ("ilsvrc", ["--annotations", imagenet / "Annotations/DET/val", *ants]),
        ("proposals", ["--devkit", devkit, "--proposals", tmp_path / "p.npz"]),
    ):
        assert run("evaluate", name, *arguments, "--json", tmp_path / f"{name}.json") == 2
        assert json.loads((tmp_path / f"{name}.json").read_text())
    assert (tmp_path / "report/report.html").is_file()
