"""The limit of `read_image` reaches every place of a training that reads pictures, and changes nothing else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from builders import make_picture
from PIL import Image

pytest.importorskip("torch")

from inception_rcnn.backbone.regions.network import RegionNetwork
from inception_rcnn.data import ImageError, Picture
from inception_rcnn.detect.train.classifier import ClassifierTask
from inception_rcnn.detect.train.data import _check_files
from inception_rcnn.detect.train.detector import DetectorTask
from inception_rcnn.detect.train.loop import RunSettings
from inception_rcnn.detect.train.multibox import MultiBoxTask, calibrate
from inception_rcnn.detect.train.proposal_cache import ProposalCache
from inception_rcnn.detect.train.recipes import ClassifierRecipe, DetectorRecipe, MultiBoxRecipe
from inception_rcnn.proposals import SelectiveSearch
from inception_rcnn.proposals.multibox.network import GridHead

TOO_LARGE = r"has 60 x 40 pixels, more than the limit of 2399; .* raise the limit \(--max-pixels\)"


@pytest.fixture
def large(tmp_path: Path) -> Picture:
    """A picture of 2400 pixels with an object."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(tmp_path / "a.png")
    return make_picture([[5, 5, 30, 30]], path=tmp_path / "a.png", size=(60, 40))


def whole(picture: Picture) -> tuple[np.ndarray, None]:
    return np.array([[0, 0, 60, 40]], np.float32), None


def detector(picture: Picture, run: RunSettings) -> DetectorTask:
    recipe = DetectorRecipe(regions=4, long_side=64)
    return DetectorTask(RegionNetwork(1), [picture], whole, [picture], recipe, None, run)


def multibox(picture: Picture, run: RunSettings) -> MultiBoxTask:
    head = GridHead(np.full((2, 1, 2), 40, np.float32), channels=4)
    return MultiBoxTask(head, RegionNetwork(1), [picture], [picture], MultiBoxRecipe(long_side=64), run)


@pytest.mark.parametrize("make", [detector, multibox])
def test_steps_and_validation(make: Callable[[Picture, RunSettings], DetectorTask | MultiBoxTask], large: Picture):
    low, high = (make(large, RunSettings(max_pixels=limit)) for limit in (2399, 2400))
    for work in (lambda task: task.load(task.items[0], np.random.default_rng(0)), lambda task: task.validate({})):
        with pytest.raises(ImageError, match=TOO_LARGE):
            work(low)
        work(high)
    # What a checkpoint must have been made with.
    assert {**low.settings, "start": 0, "head": 0, "trunk": 0} == {**high.settings, "start": 0, "head": 0, "trunk": 0}


def test_steps_and_validation_of_a_classifier(large: Picture) -> None:
    for limit, unreadable in ((2399, 1), (2400, 0)):
        samples, recipe, told = [(large.path, 0)], ClassifierRecipe(size=64), list[str]()
        network = RegionNetwork(1).googlenet
        network.forward = lambda x: x.mean((2, 3))  # type: ignore[method-assign]
        task = ClassifierTask(network, samples, samples, recipe, RunSettings(max_pixels=limit), told.append)
        assert isinstance(task.load(task.items[0], np.random.default_rng(0))[0], ImageError) == unreadable
        row: dict[str, float] = {"unreadable": 0}
        task.validate(row)
        assert (row["unreadable"], len(told)) == (unreadable, unreadable)
        assert "max_pixels" not in task.settings


def test_the_check_before_a_training(large: Picture) -> None:
    @contextmanager
    def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
        yield lambda done: None

    told: list[str] = []
    assert _check_files([large], told.append, progress, 2400) == {large.image_id: (60, 40)}
    assert told == []
    assert _check_files([large], told.append, progress, 2399) == {}
    assert "passed over" in told[0]


def test_proposals_and_calibration(large: Picture, tmp_path: Path) -> None:
    low, high = (
        ProposalCache(tmp_path / "cache", SelectiveSearch("single"), max_pixels=limit) for limit in (2399, 2400)
    )
    with pytest.raises(ImageError, match=TOO_LARGE):
        low(large)
    boxes, _ = high(large)
    np.testing.assert_array_equal(low(large)[0], boxes)  # The limit is none of the settings that name a file.
    found = {large.image_id: (boxes, np.ones(len(boxes), np.float32))}
    with pytest.raises(ImageError, match=TOO_LARGE):
        calibrate([large], found, 2399)
