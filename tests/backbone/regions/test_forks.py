"""A child made by fork (a data loader's worker, a web server's) goes on with what its parent has used."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from builders import noise_image

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="children are made by fork on Linux"),
    # What Python says of forks beside threads is what is tested here.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def in_child(work: Callable[[], Any]) -> Any:
    """What a function returns in a forked child; a child that hangs is killed."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(work()))
    child.start()
    sender.close()  # So that a child that fails is heard of at once.
    try:
        assert receiver.poll(60), "the child gives no answer"
        return receiver.recv()
    finally:
        child.kill()
        child.join()


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """More than one thread, without which nothing would hang, whatever the tests are run with."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("engine", ["onnxruntime", "torch"])
def test_a_scorer_that_was_used_before(engine: str, region_model: Any) -> None:
    from inception_rcnn.backbone.regions.placement import choose_placement
    from inception_rcnn.backbone.regions.scorer import RegionScorer

    image = noise_image(0, 160, 120)
    boxes = np.array([[0, 0, 60, 90], [20, 10, 150, 110]], np.float32)
    scorer = RegionScorer(region_model, choose_placement("cpu", engine=engine, threads=2))
    probabilities, deltas = scorer(image, boxes)
    again = in_child(lambda: scorer(image, boxes))
    # Sums may be in another order, with another number of threads.
    np.testing.assert_allclose(again[0], probabilities, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(again[1], deltas, rtol=1e-3, atol=1e-4)


def test_a_classifier_that_was_used_before() -> None:
    pytest.importorskip("torch")
    from inception_rcnn.backbone.classifier import Classifier
    from inception_rcnn.backbone.googlenet import GoogLeNet

    classifier = Classifier([GoogLeNet(classes=3)], ("cat", "dog", "person"), device="cpu")
    image = noise_image(0, 224, 224)
    probabilities = classifier(image)
    np.testing.assert_allclose(in_child(lambda: classifier(image)), probabilities, rtol=1e-4, atol=1e-6)


def test_proposals_that_were_searched_before() -> None:
    from inception_rcnn.proposals import SelectiveSearch

    image = np.zeros((60, 80, 3), np.uint8)
    image[20:50, 30:60] = 200
    search = SelectiveSearch("fast", threads=2)
    boxes, _ = search(image)
    np.testing.assert_array_equal(in_child(lambda: search(image)[0]), boxes)
