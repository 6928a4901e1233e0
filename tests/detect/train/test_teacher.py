"""A classifier as teacher: which classes it knows, what it says of regions, and that a detector learns it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from builders import make_picture, random_boxes
from PIL import Image
from random_model import random_model, random_network

from inception_rcnn.backbone.googlenet import GoogLeNet
from inception_rcnn.backbone.regions.network import roi_align
from inception_rcnn.data import ILSVRC_DET_CLASSES, IMAGENET_CLASSES, TO_ILSVRC_DET, Picture
from inception_rcnn.data.errors import CheckpointError, ModelError, SettingError
from inception_rcnn.detect.train.augmentation import augment
from inception_rcnn.detect.train.detector import detection_loss, soften, train_detector
from inception_rcnn.detect.train.first_weights import first_detector
from inception_rcnn.detect.train.loop import RunSettings
from inception_rcnn.detect.train.recipes import DetectorRecipe
from inception_rcnn.detect.train.sampling import sample_regions, without_parts
from inception_rcnn.detect.train.teacher import Teacher, taught_classes
from inception_rcnn.proposals.multibox.network import GridHead

# The network of the tests has three classes.
CLASSES = ["horse", "zebra", "lion"]
OBJECTS = [[20, 20, 90, 80], [100, 30, 160, 150]]


@functools.cache
def classifier() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return GoogLeNet(1000).state_dict()


class Certain(Teacher):
    """Says "zebra" of every region."""

    def __init__(self) -> None:
        super().__init__(classifier(), CLASSES, "cpu")

    def reader(self, picture: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda boxes: torch.tensor([[0.0, 1.0, 0.0]]).expand(len(boxes), -1)


def test_every_class_of_the_challenge_has_a_teacher() -> None:
    columns = taught_classes([*ILSVRC_DET_CLASSES.values()])
    assert columns.shape == (1000,)
    assert set(columns.tolist()) == {-1, *range(200)}
    assert (columns >= 0).sum() == len(TO_ILSVRC_DET["imagenet"])
    np.testing.assert_array_equal(taught_classes([*ILSVRC_DET_CLASSES]), columns)
    order = [*IMAGENET_CLASSES]
    assert taught_classes(CLASSES)[order.index("n02391049")] == 1  # zebra


def test_probabilities_are_sums_of_the_classifiers() -> None:
    teacher = Teacher(classifier(), CLASSES, "cpu")
    picture = torch.randn(1, 3, 128, 160, generator=torch.Generator().manual_seed(0)) * 50
    boxes = torch.from_numpy(random_boxes(7, seed=1)).clamp(max=120)
    found = teacher.reader(picture)(boxes)
    network = GoogLeNet(1000).eval()
    network.load_state_dict(classifier())
    with torch.no_grad():
        top = network.top(roi_align(network.trunk(picture), boxes)).mean((2, 3))
        every = network.classifier(top).softmax(1)
    columns = taught_classes(CLASSES)
    for i in range(len(CLASSES)):
        torch.testing.assert_close(found[:, i], every[:, columns == i].sum(1), rtol=1e-4, atol=1e-7)
    assert not found.requires_grad


def test_a_classifier_of_other_classes_is_no_teacher() -> None:
    with pytest.raises(ModelError, match="knows ImageNet's 1000 classes, not 10"):
        Teacher(GoogLeNet(10).state_dict(), CLASSES, "cpu")
    with pytest.raises(SettingError, match="knows none of the classes"):
        Teacher(classifier(), ["my cup", "my pen"], "cpu")


def test_scores_begin_as_the_teachers_where_the_upper_layers_are_its_own() -> None:
    state, names = classifier(), ("zebra", "my cup", "dog")
    recipe, boxes = DetectorRecipe(finer=False, context=False), torch.tensor([[4.0, 4.0, 90.0, 70.0]])
    network = first_detector(names, None, state, recipe, Teacher(state, names, "cpu")).eval()
    picture = 50 * torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    layer = torch.nn.Linear(1024, 1000)
    layer.load_state_dict({name: state[f"classifier.{name}"] for name in ("weight", "bias")})
    with torch.no_grad():
        logits, _ = network(picture, boxes)
        top = network.googlenet.top(roi_align(network.trunk(picture), boxes))
        # The nine parts weigh the same.
        every = layer(torch.nn.functional.avg_pool2d(top, 3, 2).mean((2, 3)))[0]
    for label in (0, 2):
        wanted = every[taught_classes(names) == label].mean() - every.mean()
        assert logits[0, 1 + label].item() == pytest.approx(wanted.item(), rel=1e-3, abs=1e-3)
    # What the teacher does not know, and what is in no picture of its own, begins as ever.
    plain = first_detector(names, None, state, recipe)
    assert torch.equal(network.score.weight[[0, 2]], plain.score.weight[[0, 2]])
    # So do all where the upper layers are a detector's.
    start = random_model()
    taught, untaught = (first_detector(names, start, None, recipe, one) for one in (Teacher(state, names, "cpu"), None))
    assert torch.equal(taught.score.weight, untaught.score.weight)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_labelled_elsewhere_is_not_taught(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(50, 5, generator=generator).softmax(1)
    objectness = torch.rand(50, generator=generator)
    unlabelled = torch.rand(50, 5, generator=generator) > 0.5
    shares = soften(probabilities, objectness, unlabelled)
    torch.testing.assert_close(shares.sum(1), torch.ones(50))
    assert (shares >= 0).all()
    assert (shares[:, 1:][~unlabelled] == 0).all()
    assert (shares[:, 0] >= 1 - objectness - 1e-6).all()


def test_loss_of_shares_by_hand() -> None:
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 0, 1, 2, 3, 0])
    shares = torch.rand(6, 4, generator=torch.Generator().manual_seed(1)).softmax(1)
    loss, _ = detection_loss(logits, torch.zeros(6, 3, 4), labels, torch.zeros(6, 4), shares)
    wanted = 0.0
    for row, label, share in zip(logits.tolist(), labels.tolist(), shares.tolist(), strict=True):
        log_sum = np.log(np.sum(np.exp(row)))
        targets = share if label == 0 else np.eye(4)[label]
        wanted -= sum(target * (value - log_sum) for target, value in zip(targets, row, strict=True))
    assert loss.item() == pytest.approx(wanted / 6, rel=1e-5)


def test_what_may_be_an_object_is_drawn_first() -> None:
    picture = dataclasses.replace(make_picture(OBJECTS, [0, 2]), labelled=(0, 2))
    proposals = random_boxes(400, seed=3)
    objectness = np.where(np.arange(400) % 4 == 0, 0.9, 0.01).astype(np.float32)
    drawn = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        regions = sample_regions(picture, proposals, rng, number=40, foreground=0.25, objectness=objectness)
        easy = regions.boxes[(regions.labels == 0) & (regions.overlaps < 0.1)]
        drawn += [objectness[(proposals == box).all(1)][0] for box in easy]
        # Those around known objects have nothing to teach, and parts of likelier boxes less.
        some = {0.0, *np.float32([0.9, 0.01]), *np.float32([0.01]) * (1 - np.float32([0.9]))}
        assert set(np.unique(regions.objectness)) <= some
    assert len(drawn) > 100
    assert np.mean(np.array(drawn) > 0.5) > 0.9


@pytest.mark.parametrize("seed", range(5))
def test_parts_of_likelier_boxes(seed: int) -> None:
    boxes = random_boxes(40, seed=seed)
    objectness = np.random.default_rng(seed).random(40).astype(np.float32)
    expected = []
    for i, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        most = 0.0
        for j, (u1, v1, u2, v2) in enumerate(boxes.tolist()):
            common = max(0.0, min(x2, u2) - max(x1, u1)) * max(0.0, min(y2, v2) - max(y1, v1))
            own, other = (x2 - x1) * (y2 - y1), (u2 - u1) * (v2 - v1)
            if objectness[j] > objectness[i] and common >= 0.8 * own and common < 0.5 * (own + other - common):
                most = max(most, float(objectness[j]))
        expected.append(objectness[i] * (1 - most))
    np.testing.assert_allclose(without_parts(boxes, objectness), expected, rtol=1e-5)
    assert without_parts(boxes[:0], objectness[:0]).shape == (0,)


@pytest.mark.parametrize("seed", range(20))
def test_objectness_stays_with_its_box(seed: int) -> None:
    picture = make_picture(OBJECTS, [0, 2])
    boxes = random_boxes(60, seed=seed)
    image = np.zeros((160, 200, 3), np.uint8)
    numbered = np.column_stack([boxes, np.arange(60, dtype=np.float32)])
    for sides in (None, [96, 160]):
        _, _, alone = augment(image, picture, boxes, np.random.default_rng(seed), sides)
        _, _, found = augment(image, picture, numbered, np.random.default_rng(seed), sides)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found[:, :4], alone)
        # Each is still the objectness of its box: their order stays.
        assert (np.diff(found[:, 4]) > 0).all()


@pytest.fixture
def pictures(tmp_path: Path, picture: Callable[..., np.ndarray]) -> list[Picture]:
    made = []
    for seed in range(2):
        path = tmp_path / f"{seed}.png"
        Image.fromarray(picture(seed, 200, 160)).save(path)
        one = make_picture(OBJECTS, [0, 2], path=path)
        made.append(dataclasses.replace(one, image_id=str(seed), labelled=(0, 2)))
    return made


def train(pictures: list[Picture], teacher: Teacher | None, **changes: object) -> dict[str, torch.Tensor]:
    network = random_network(1)
    objectness = np.full(40, 0.8, np.float32) if changes.pop("objectness", True) else None
    run = {name: changes.pop(name) for name in ("checkpoint", "resume", "time_limit") if name in changes}
    multibox = changes.pop("multibox", None)
    proposals = None if multibox is not None else lambda picture: (random_boxes(40), objectness)
    settings = {"epochs": 2.0, "batch": 1, "regions": 8, "scales": (1.0,), "long_side": 64, "learning_rate": 0.01}
    train_detector(
        network, pictures, proposals, (), DetectorRecipe(**(settings | changes)),  # type: ignore[arg-type]
        multibox=multibox, teacher=teacher, run=RunSettings(**run),  # type: ignore[arg-type]
    )  # fmt: skip
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_a_class_without_boxes_is_learned_from_the_teacher(pictures: list[Picture]) -> None:
    # Trained much the same but for what the background is said to be.
    taught, untaught = train(pictures, Certain(), averaging=0.0), train(pictures, None, averaging=0.0)
    zebra, background = 2, 0
    with_teacher, without = (state["score.bias"] - state["score.bias"][background] for state in (taught, untaught))
    assert with_teacher[zebra] > without[zebra]


def test_a_taught_training_goes_on_where_it_stopped(pictures: list[Picture], tmp_path: Path) -> None:
    whole = train(pictures, Certain())
    path = tmp_path / "checkpoint"
    for _ in range(5):
        pieces = train(pictures, Certain(), checkpoint=path, resume=True, time_limit=0)
    for name, value in whole.items():
        assert torch.equal(pieces[name], value), name
    train(pictures, Certain(), checkpoint=path, time_limit=0)
    with pytest.raises(CheckpointError):
        train(pictures, None, checkpoint=path, resume=True)


def test_a_multibox_that_learns_along_gives_the_objectness(pictures: list[Picture]) -> None:
    head = GridHead(np.full((2, 1, 2), 30, np.float32), channels=4)
    state = train(pictures, Certain(), multibox=head, optimizer="adamw", learning_rate=0.001)
    assert all(torch.isfinite(value).all() for value in state.values())


def test_pictures_without_labels_teach_no_multibox(pictures: list[Picture]) -> None:
    nothing = make_picture([], path=pictures[0].path, labelled=())
    head, fresh = (GridHead(np.full((2, 1, 2), 30, np.float32), channels=4) for _ in range(2))
    before = random_network(1).state_dict()
    state = train([nothing], Certain(), multibox=head, averaging=0.0)
    assert not torch.equal(state["score.weight"], before["score.weight"])
    # All but what weight decay takes off.
    for name, value in head.state_dict().items():
        torch.testing.assert_close(value, fresh.state_dict()[name], rtol=1e-3, atol=1e-6)
    # Those with labels do.
    train(pictures[:1], Certain(), multibox=head, averaging=0.0)
    moved = (head.state_dict()["reduce.weight"] - fresh.state_dict()["reduce.weight"]).abs().max()
    assert moved > 1e-5


def test_what_a_teacher_needs(pictures: list[Picture]) -> None:
    with pytest.raises(SettingError, match="needs the objectness of regions; use the MultiBox any"):
        train(pictures, Certain(), objectness=False)
    with pytest.raises(SettingError, match="use scoring shared, or no teacher"):
        train(pictures, Certain(), scoring="crops")
