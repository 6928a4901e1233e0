"""``inception-rcnn classify`` and ``evaluate imagenet``, with a network whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from builders import noise_image, write_image

from inception_rcnn.backbone.classifier import Classifier
from inception_rcnn.backbone.googlenet import GoogLeNet
from inception_rcnn.detect.cli.app import main
from inception_rcnn.detect.train.classifier import first_weights, write_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes; whatever the picture, the second is likeliest and the third next."""
    network = GoogLeNet(3)
    first_weights(network)
    with torch.no_grad():
        network.classifier.weight.zero_()
        network.classifier.bias.copy_(torch.tensor([0.0, 2.0, 1.0]))
    path = tmp_path_factory.mktemp("weights") / "net.npz"
    write_weights(path, network)
    path.with_suffix(".classes.txt").write_text("ant\nbee\ncat\n")
    return path


def run(*arguments: object) -> int:
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def draw(path: Path) -> Path:
    return write_image(path, noise_image(len(path.name), 60, 40))


def test_classify(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = draw(tmp_path / "a.png"), tmp_path / "b.jpg"
    bad.write_bytes(b"no picture")
    document = tmp_path / "found.json"
    arguments = ["classify", tmp_path, "--model", weights, "--device", "cpu", "--top", 2, "--json", document]
    assert run(*arguments) == 0
    out, err = capsys.readouterr()
    assert out == f"{good}  bee 0.665  cat 0.245\n"
    assert f"passed over: {bad}" in err
    first, second = json.loads(document.read_text())
    assert first["file"] == str(good)
    assert [one["class"] for one in first["classes"]] == ["bee", "cat"]
    assert first["classes"][0]["score"] == pytest.approx(0.6652, abs=1e-4)
    assert second["file"] == str(bad)
    assert str(bad) in second["error"]
    # Twice the same network is an ensemble with the same answers, and so are more crops.
    assert run("classify", good, "--model", weights, "--model", weights, "--crops", 10, "--top", 1) == 0
    assert capsys.readouterr().out == f"{good}  bee 0.665\n"
    assert run("classify", bad, "--model", weights) == 1
    capsys.readouterr()
    # Nothing but JSON, and nothing but what failed.
    assert run(*arguments[:-1], "-", "--quiet") == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == [first, second]
    assert err == f"passed over: {second['error']}\n"


def test_evaluate(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("ant/1.png", "bee/2.png", "bee/3.png", "cat/4.png"):
        draw(tmp_path / "val" / name)
    (tmp_path / "val" / "cat" / "broken.jpg").write_bytes(b"no picture")
    document = tmp_path / "errors.json"
    arguments = ["evaluate", "imagenet", "--data", tmp_path, "--model", weights, "--model", weights, "--device", "cpu"]
    assert run(*arguments, "--crops", 1, "--crops", 10, "--json", document) == 0
    out, err = capsys.readouterr()
    assert "passed over" in err
    assert "4 pictures" in out
    written = json.loads(document.read_text())
    assert (written["pictures"], written["unreadable"]) == (4, 1)
    rows = [(row["crops"], len(row["models"]), row["top_1_error"], row["top_5_error"]) for row in written["rows"]]
    assert rows == [(1, 1, 0.5, 0.0), (1, 2, 0.5, 0.0), (10, 1, 0.5, 0.0), (10, 2, 0.5, 0.0)]
    assert written["rows"][0]["per_class"]["bee"] == {"pictures": 2, "top_1_error": 0.0, "top_5_error": 0.0}


def test_what_is_done_is_told_when_it_is_interrupted(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bee/a.png", "bee/b.png", "cat/c.png"):
        draw(tmp_path / "pictures" / name)
    document = tmp_path / "found.json"
    score, calls = Classifier.score, []

    def interrupted(self: Classifier, crops: np.ndarray) -> np.ndarray:
        calls.append(len(crops))
        if len(calls) % 4 == 0:
            raise KeyboardInterrupt
        return score(self, crops)

    monkeypatch.setattr(Classifier, "score", interrupted)
    # The fourth is the second picture's second number of crops.
    arguments = ["--model", weights, "--device", "cpu", "--json", document]
    assert run("evaluate", "imagenet", "--data", tmp_path / "pictures", "--crops", 1, "--crops", 10, *arguments) == 130
    out, err = capsys.readouterr()
    assert "interrupted after 1 of 3 pictures" in err
    assert "1 of 3 pictures" in out
    found = json.loads(document.read_text())
    assert (found["pictures"], found["unreadable"], found["interrupted"]) == (1, 0, True)
    assert [(row["crops"], row["top_1_error"]) for row in found["rows"]] == [(1, 0), (10, 0)]

    calls.extend([0, 0])
    assert run("classify", tmp_path / "pictures", *arguments) == 130
    assert "interrupted after 1 of 3 pictures" in capsys.readouterr().err
    assert len(json.loads(document.read_text())) == 1


def test_mistakes(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = draw(tmp_path / "pictures" / "dog" / "a.png")

    def mistake(*arguments: object) -> str:
        assert run(*arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "matches no file" in mistake("classify", tmp_path / "*.png")
    assert "crops must be one of 1, 10, 144, not 3" in mistake("classify", picture, "--model", weights, "--crops", 3)
    assert "there is no such folder" in mistake("classify", picture, "--json", tmp_path / "no" / "a.json")
    assert "no such weights" in mistake("classify", picture, "--model", "nosuch")
    evaluate = ["evaluate", "imagenet", "--model", weights, "--data"]
    assert "the models have no class of that name" in mistake(*evaluate, tmp_path / "pictures")
    assert "is no folder" in mistake(*evaluate, tmp_path / "absent")
    assert "crops must be one of 1, 10, 144, not 7" in mistake(*evaluate, tmp_path / "pictures", "--crops", 7)
    (tmp_path / "empty").mkdir()
    assert "has no pictures in folders of classes" in mistake(*evaluate, tmp_path / "empty")
