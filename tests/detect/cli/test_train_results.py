"""What a training says at its end: average precision on few or many pictures, and what to do next."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from builders import make_picture
from typer.main import get_command

pytest.importorskip("torch")

from inception_rcnn.data import Detections
from inception_rcnn.detect.cli.app import app
from inception_rcnn.detect.cli.train import (
    _find_unlearned,
    _folder_of,
    _print_next_commands,
    _print_precision,
)
from inception_rcnn.eval import match_voc


@pytest.mark.parametrize(("pictures", "few"), [(4, True), (20, False)])
def test_the_precision_of_every_class_is_told_with_the_number_of_pictures(
    pictures: int, few: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    box = np.float32([[0, 0, 20, 10]])
    found = {"a": Detections(box, np.float32([0.9]), np.array([0]), ("cat", "dog"))}
    _print_precision(match_voc([make_picture(box, image_id="a")], found, ("cat", "dog")), pictures)
    *table, last = capsys.readouterr().err.splitlines()
    assert last == f"mAP 1.000 on {pictures} pictures set aside" + "; of so few it says little" * few
    rows = [line.replace("│", " ").split() for line in table]
    assert ["cat", "1", "1.000"] in rows
    assert ["dog", "0", "-"] in rows


@pytest.mark.parametrize(
    ("lists", "split", "set_aside", "expected"),
    [
        (("trainval", "test"), "trainval", 5, ("mine", "test")),
        (("train", "val"), "train", 5, ("mine", "val")),
        (("trainval", "val"), "trainval", 5, ("others", "trainval")),  # It learned from val.
        (("trainval",), "trainval", 5, ("mine", "val")),
        (("trainval",), "trainval", 0, ("others", "trainval")),
        (("mine",), "mine", 5, ("others", "trainval")),
        ((), "trainval", 5, ("mine", "val")),
        ((), "trainval", 0, ("others", "trainval")),
    ],
)
def test_pictures_that_it_did_not_learn_from(
    tmp_path: Path, lists: tuple[str, ...], split: str, set_aside: int, expected: tuple[str, str]
) -> None:
    folder = tmp_path / "mine"
    for name in lists:
        (folder / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (folder / "ImageSets" / "Main" / f"{name}.txt").touch()
    found, part = _find_unlearned(folder, split, set_aside)
    assert (found.name, part) == expected


def test_of_ilsvrc_and_of_packed_pictures_others_are_to_be_named(tmp_path: Path) -> None:
    (tmp_path / "a" / "ILSVRC" / "ImageSets" / "DET").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "00000.parquet").touch()
    for name in ("a", "b"):
        assert _find_unlearned(tmp_path / name, "trainval", 5) == (Path("others"), "trainval")


def test_pictures_set_aside_have_a_folder_if_they_are_alone_in_it() -> None:
    one, two, other = (
        make_picture([], image_id=name, path=Path("mine", name)) for name in ("val/1.jpg", "val/2.jpg", "train/3.jpg")
    )
    below = make_picture([], image_id="4", path=Path("mine/val/more/4.jpg"))
    assert _folder_of([one, two], [other]) == Path("mine/val")
    for aside, trained in (([one, other], []), ([one], [two]), ([one, two], [below]), ([], [other])):
        assert _folder_of(aside, trained) is None


def test_the_next_commands_are_such(capsys: pytest.CaptureFixture[str]) -> None:
    _print_next_commands(Path("my model.safetensors"), " --multibox b.safetensors", Path("mine"), "val", "mine.txt")
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["to detect", "to evaluate"]
    commands = get_command(app).commands  # type: ignore[attr-defined]
    program, name, *arguments = shlex.split(lines[0].partition(": ")[2])
    context = commands[name].make_context(name, arguments)
    assert (program, context.params["model"]) == ("inception-rcnn", ["my model.safetensors"])
    assert context.params["output"] == "out-my model"
    _, name, rules, *arguments = shlex.split(lines[1].partition(": ")[2])
    context = commands[name].commands[rules].make_context(name, arguments)
    assert context.params["classes"] == "mine.txt"
    assert context.params["detections"] == Path("out-my model")
    _print_next_commands(Path("m.safetensors"), "", Path("mine"), "val", None, Path("mine/images/val"))
    assert "inception-rcnn detect mine/images/val --model" in capsys.readouterr().err
