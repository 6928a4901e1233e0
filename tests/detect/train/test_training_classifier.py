"""Training the classifier: what a crop may be, what is learned from, and that an interruption changes nothing."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from builders import noise_image, write_image
from typer.testing import CliRunner

from inception_rcnn.backbone.googlenet import GoogLeNet, state_from_caffe, state_to_caffe
from inception_rcnn.backbone.regions.network import RegionNetwork
from inception_rcnn.backbone.weights.published import load_imagenet
from inception_rcnn.data import AnnotationError
from inception_rcnn.data.errors import CheckpointError
from inception_rcnn.data.formats.imagenet import read_class_folders
from inception_rcnn.detect.train import loop as training_loop
from inception_rcnn.detect.train.classifier import (
    adopt_weights,
    augment_crop,
    classifier_loss,
    draw_patch,
    first_weights,
    train_classifier,
    write_weights,
)
from inception_rcnn.detect.train.loop import RunSettings
from inception_rcnn.detect.train.recipes import ClassifierRecipe
from inception_rcnn.detect.train.validation import crops_to_input, measure_errors


def draw(path: Path, colour: tuple[int, int, int], width: int = 80, height: int = 60) -> Path:
    """Write a picture that is mostly of one colour."""
    noise = np.random.default_rng(len(str(path.name))).normal(0, 20, (height, width, 3))
    return write_image(path, np.clip(noise + colour, 0, 255).astype(np.uint8))


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that wait for each other on a busy machine take many times as long as one."""
    monkeypatch.setattr(training_loop, "usable_cores", lambda: 1)


def draw_folder(folder: Path) -> Path:
    """Draw three red and three blue pictures, and one each to validate on."""
    for name, colour in {"blue": (30, 30, 200), "red": (200, 30, 30)}.items():
        for number in range(3):
            draw(folder / "data" / "train" / name / f"{number}.JPEG", colour)
        draw(folder / "data" / "val" / name / "9.png", colour)
    return folder / "data"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return draw_folder(tmp_path)


def network(classes: int = 2, *, auxiliary: bool = False) -> GoogLeNet:
    made = GoogLeNet(classes, auxiliary=auxiliary)
    first_weights(made)
    return made


class Small(torch.nn.Module):
    """A network of 14 weights with dropout, for what does not depend on the network."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = torch.nn.Dropout(0.4)
        self.classifier = torch.nn.Linear(3, 2)
        with torch.no_grad():
            self.classifier.weight.copy_(torch.arange(6).view(2, 3) / 1000)
            self.classifier.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.dropout(x.mean((2, 3)) / 100))


@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 2**32 - 1))
def test_a_patch_lies_inside_and_keeps_to_its_bounds(height: int, width: int, seed: int) -> None:
    x, y, w, h = draw_patch(height, width, np.random.default_rng(seed))
    assert 0 <= x <= x + w <= width
    assert 0 <= y <= y + h <= height
    assert min(w, h) > 0
    # To half a pixel of rounding.
    assert (w - 0.5) / (h + 0.5) <= 4 / 3
    assert (h - 0.5) / (w + 0.5) <= 4 / 3
    # In a picture of up to three times its other side half of the drawn areas and more fit.
    if max(height, width) <= 2 * min(height, width):
        assert (w + 0.5) * (h + 0.5) >= 0.08 * height * width


def test_patches_are_of_all_sizes() -> None:
    rng = np.random.default_rng(0)
    patches = np.array([draw_patch(300, 400, rng) for _ in range(2000)])
    area = patches[:, 2] * patches[:, 3] / (300 * 400)
    aspect = patches[:, 2] / patches[:, 3]
    assert area.min() < 0.1
    assert area.max() > 0.95
    assert aspect.min() < 0.78
    assert aspect.max() > 1.3
    assert patches[:, 0].max() > 200
    assert patches[:, 0].min() == patches[:, 1].min() == 0


def test_a_crop_is_the_same_for_the_same_seed_and_no_other() -> None:
    image = noise_image(0, 70, 50)
    before = image.copy()
    one, same, other = (augment_crop(image, np.random.default_rng(seed), 32) for seed in (1, 1, 2))
    assert one.shape == (32, 32, 3)
    assert one.dtype == np.uint8
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert np.array_equal(image, before)
    assert augment_crop(image[:1, :1], np.random.default_rng(0), 8).shape == (8, 8, 3)


def test_every_second_crop_is_mirrored_and_light_and_colour_change() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, :, 0], image[:, :, 1] = np.linspace(60, 180, 40).astype(np.uint8), 90
    crops = np.array([augment_crop(image, np.random.default_rng(seed), 16) for seed in range(200)], np.float32)
    red = crops[..., 0].mean(1)
    assert 70 < (red[:, 0] > red[:, -1]).sum() < 130
    assert crops.mean((1, 2, 3)).std() > 10
    # Contrast of red with green, which the picture's own position changes less than the factors do.
    assert np.ptp(crops[..., 1].mean((1, 2))) > 60


def test_the_published_networks_input() -> None:
    crop = np.zeros((8, 8, 3), np.uint8)
    crop[:, :, 0] = 255
    inputs = crops_to_input([crop, crop], "cpu")
    assert inputs.shape == (2, 3, 8, 8)
    assert inputs[0, :, 0, 0].tolist() == [-104, -117, 255 - 123]
    assert inputs.is_contiguous(memory_format=torch.channels_last)


def test_losses_of_auxiliary_classifiers_weigh_three_tenths() -> None:
    labels = torch.tensor([0, 1])
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    by_hand = math.log(1 + math.exp(-2)) + math.log(2)
    assert classifier_loss(logits, labels, 0.3).item() == pytest.approx(by_hand)
    both = classifier_loss((logits, torch.zeros(2, 2), -logits), labels, 0.3).item()
    assert both == pytest.approx(by_hand + 0.3 * 2 * math.log(2) + 0.3 * (math.log(1 + math.exp(2)) + math.log(2)))


def test_folders_of_classes(folder: Path, tmp_path: Path) -> None:
    training, validation, classes = read_class_folders(folder)
    assert classes == ("blue", "red")
    assert [(path.parent.name, path.name, label) for path, label in training[::3]] == [
        ("blue", "0.JPEG", 0),
        ("red", "0.JPEG", 1),
    ]
    assert [(path.parent.name, label) for path, label in validation] == [("blue", 0), ("red", 1)]
    # Without train/ the classes are there themselves; what is no picture is none.
    (folder / "train").rename(tmp_path / "flat")
    (tmp_path / "flat" / "labels.txt").write_text("x")
    (tmp_path / "flat" / "red" / "notes.txt").write_text("x")
    again, none, classes = read_class_folders(tmp_path / "flat")
    assert (len(again), none, classes) == (6, [], ("blue", "red"))
    (folder / "val").rename(tmp_path / "flat" / "val")
    assert len(read_class_folders(tmp_path / "flat")[1]) == 2
    # A class that nobody validates keeps its number.
    (tmp_path / "flat" / "val" / "blue" / "9.png").unlink()
    (tmp_path / "flat" / "val" / "blue").rmdir()
    assert [label for _, label in read_class_folders(tmp_path / "flat")[1]] == [1]


def test_other_layouts_are_refused(folder: Path, tmp_path: Path) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(AnnotationError) as caught:
            read_class_folders(path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "nosuch: is no folder" in refused(tmp_path / "nosuch")
    assert "red: has 0 folders of classes" in refused(folder / "train" / "red")
    (folder / "train" / "zebra").mkdir()
    assert "zebra: has no pictures; put some there, or remove it" in refused(folder)
    (folder / "train" / "zebra").rmdir()
    draw(folder / "val" / "zebra" / "1.png", (0, 0, 0))
    assert "zebra: there is no such class in" in refused(folder)
    draw(folder / "val" / "Red" / "1.png", (0, 0, 0))
    told = refused(folder)
    assert "val: 2 faults: " in told
    assert "(did you mean 'red'?); " in told
    for path in sorted((folder / "val").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    draw(folder / "val" / "1.png", (0, 0, 0))
    assert "val: has no folders of classes; move its pictures" in refused(folder)


def train(model: torch.nn.Module, folder: Path, **changes: object) -> tuple[bool, list[dict[str, float]]]:
    rows: list[dict[str, float]] = []
    training, validation, _ = read_class_folders(folder)
    run = {name: changes.pop(name) for name in ("group", "checkpoint", "resume", "time_limit") if name in changes}
    others = {"warn": changes.pop("warn")} if "warn" in changes else {}
    validation = changes.pop("validation", validation)  # type: ignore[assignment]
    recipe = ClassifierRecipe(**({"epochs": 1.0, "batch": 2, "size": 32} | changes))  # type: ignore[arg-type]
    settings = RunSettings(report=rows.append, **run)  # type: ignore[arg-type]
    return train_classifier(model, training, validation, recipe, run=settings, **others), rows  # type: ignore[arg-type]


def test_red_and_blue_are_told_apart(folder: Path) -> None:
    finished, rows = train(Small(), folder, epochs=40.0, batch=6, learning_rate=0.5, weight_decay=0.0)
    assert finished
    assert [row["step"] for row in rows] == list(range(1, 41))
    assert rows[-1]["loss"] < 0.75 * rows[0]["loss"]
    assert (rows[-1]["top_1_error"], rows[-1]["top_5_error"], rows[-1]["unreadable"]) == (0, 0, 0)


def test_the_paper_s_schedule_and_the_cosine(folder: Path) -> None:
    rates = {}
    for schedule in ("step", "cosine"):
        _, rows = train(Small(), folder, epochs=17.0, batch=6, learning_rate=0.1, schedule=schedule)
        rates[schedule] = [row["learning_rate"] for row in rows]
    assert rates["step"] == pytest.approx([0.1] * 8 + [0.096] * 8 + [0.09216])
    assert rates["cosine"][0] == pytest.approx(0.1)
    assert rates["cosine"][-1] < 0.003
    with pytest.raises(ValueError, match="schedule 'x' is unknown"):
        train(Small(), folder, schedule="x")


def test_interrupted_and_resumed_is_uninterrupted(folder: Path, tmp_path: Path) -> None:
    def run(**changes: object) -> tuple[bool, dict[str, torch.Tensor]]:
        made = network(auxiliary=True)
        before = torch.random.get_rng_state()
        finished, _ = train(made, folder, epochs=2 / 3, validation=(), size=224, **changes)
        assert torch.equal(torch.random.get_rng_state(), before)
        return finished, made.state_dict()

    finished, whole = run()
    assert finished
    checkpoint = tmp_path / "run.checkpoint"
    torch.manual_seed(1)  # Draws of somebody else are not to matter.
    runs = 0
    finished = False
    while not finished:
        finished, pieces = run(checkpoint=checkpoint, resume=True, time_limit=0)
        runs += 1
    assert runs == 2
    for name, value in whole.items():
        assert torch.equal(pieces[name], value), name
    assert all(not torch.equal(value, whole[name]) for name, value in network(auxiliary=True).state_dict().items())
    with pytest.raises(CheckpointError, match=r"learning_rate 0.01 and not 0.1"):
        run(checkpoint=checkpoint, resume=True, learning_rate=0.1)


def test_dropout_is_drawn_anew_in_every_step_and_for_every_seed(folder: Path) -> None:
    states = []
    for seed in (0, 0, 1):
        made = Small()
        train(made, folder, seed=seed)
        states.append(made.classifier.weight.detach().clone())
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_a_picture_that_cannot_be_read_is_passed_over_and_told(folder: Path) -> None:
    broken, absent = folder / "train" / "red" / "1.JPEG", folder / "val" / "red" / "9.png"
    broken.write_bytes(broken.read_bytes()[:200])
    absent.write_bytes(b"")
    told: list[str] = []
    finished, rows = train(Small(), folder, epochs=3.0, warn=told.append)
    assert finished
    assert sum(row["unreadable"] for row in rows) == 3 + 3
    assert all(row["top_1_error"] in (0, 1) for row in rows)
    assert sorted(text.split(": ")[0] for text in told) == sorted(map(str, (broken, absent)))


def test_a_step_without_a_picture_changes_nothing(folder: Path) -> None:
    for path in folder.rglob("*.*"):
        path.write_bytes(b"")
    made = Small()
    finished, rows = train(made, folder)
    assert finished
    assert torch.equal(made.classifier.weight, Small().classifier.weight)
    assert rows[-1]["unreadable"] == 8
    assert "top_1_error" not in rows[-1]


def test_errors_are_of_the_first_and_of_the_first_five(folder: Path) -> None:
    class Fixed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.arange(7.0).expand(len(x), 7)

    path = folder / "train" / "red" / "0.JPEG"
    found = measure_errors(Fixed(), [(path, label) for label in (6, 2, 1, 0)], batch=3, size=32)
    assert found == {"top_1_error": 0.75, "top_5_error": 0.5, "unreadable": 0}


def test_a_loss_that_is_not_finite_ends_the_run(folder: Path) -> None:
    made = Small()
    made.classifier.bias.data.fill_(math.nan)
    with pytest.raises(FloatingPointError, match=r"not finite at step 0 \(\d.JPEG, \d.JPEG\); lower the learning rate"):
        train(made, folder)
    with pytest.raises(CheckpointError, match="6 pictures give no step of 8"):
        train(Small(), folder, batch=8)


def test_caffes_names_there_and_back() -> None:
    state = network(11, auxiliary=True).state_dict()
    back = state_from_caffe(state_to_caffe(state))
    assert list(back) == list(state)
    assert all(torch.equal(back[name], value) for name, value in state.items())
    with pytest.raises(ValueError, match=r"'conv1.norm.weight' is not a layer that BVLC's GoogLeNet has"):
        state_to_caffe(GoogLeNet(batch_norm=True).state_dict())


@pytest.mark.parametrize("classes", [3, 1000])
def test_weights_of_any_classes_are_read_as_imagenets(classes: int, tmp_path: Path) -> None:
    made = network(classes, auxiliary=True).eval()
    write_weights(tmp_path / "net.npz", made)
    state, batch_norm = load_imagenet(tmp_path / "net.npz")
    assert not batch_norm
    read = GoogLeNet(classes).eval()
    read.load_state_dict(state)
    crop = torch.from_numpy(np.random.default_rng(0).normal(0, 60, (1, 3, 64, 64)).astype(np.float32))
    with torch.no_grad():
        torch.testing.assert_close(read(crop), made(crop))
    detector = RegionNetwork(20)
    detector.googlenet.load_state_dict({name: state[name] for name in detector.googlenet.state_dict()})
    # What somebody goes on from: everything, but for classes that are not the same.
    assert adopt_weights(network(classes), state) == []
    assert adopt_weights(network(7), state) == ["classifier"]


def test_the_command(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    from inception_rcnn.detect.cli.train import train as command

    broken = folder / "train" / "red" / "2.JPEG"
    broken.write_bytes(b"")
    output, cache = tmp_path / "net.npz", tmp_path / "cache"
    arguments = ["classifier", "--data", folder, "--output", output, "--cache", cache, "--device", "cpu"]
    arguments += ["--epochs", 1, "--batch", 3, "--schedule", "step"]

    def run(*more: object) -> str:
        result = CliRunner().invoke(command, [str(argument) for argument in (*arguments, *more)])
        assert result.exit_code == 0, result.output
        return result.output

    written = run("--time-limit", 0)
    assert "6 pictures of 2 classes to train on, 2 to validate on" in written
    assert "time is up" in written
    assert not output.exists()
    written = run("--resume")
    assert "step 2  of 2  epoch 1.00" in written
    assert "top-1 error" in written
    assert f"wrote {output}" in written
    assert (tmp_path / "net.classes.txt").read_text() == "blue\nred\n"
    rows = [json.loads(line) for line in (cache / "net.classifier.jsonl").read_text().splitlines()]
    assert sum(row["unreadable"] for row in rows) == 1
    state, batch_norm = load_imagenet(output)
    assert not batch_norm
    assert not torch.equal(state["conv1.conv.weight"], network().conv1.conv.weight)

    shutil.copy(output, start := tmp_path / "start.npz")
    written = run("--weights", start, "--no-auxiliary", "--time-limit", 0, "--max-pixels", 10)
    assert "learned anew" not in written
    assert "more than the limit of 10" in written.replace("\n", " ")


def test_mistakes_with_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxscript")
    from inception_rcnn.detect.cli.app import main

    def mistake(*more: object) -> str:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in ("train", "classifier", "--cache", tmp_path / "cache", *more)])
        assert caught.value.code == 2
        return capsys.readouterr().err

    output = tmp_path / "net.npz"
    assert "is written as .npz" in mistake("--data", folder, "--output", tmp_path / "net.safetensors")
    assert "schedule 'x' is unknown; use cosine or step" in mistake(
        "--data", folder, "--output", output, "--schedule", "x"
    )
    assert "nosuch: is no folder" in mistake("--data", tmp_path / "nosuch", "--output", output)
    assert "no such weights" in mistake("--data", folder, "--output", output, "--weights", "nosuch")
    assert "6 pictures give no step of 32" in mistake("--data", folder, "--output", output, "--epochs", 5)
