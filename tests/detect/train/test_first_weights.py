"""What a training takes over from the detector of --start."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from random_model import CLASSES, random_model, random_network

from inception_rcnn.backbone.export.graphs import to_model
from inception_rcnn.backbone.regions.network import RegionNetwork
from inception_rcnn.detect.train.first_weights import first_detector
from inception_rcnn.detect.train.recipes import DetectorRecipe


def first(names: tuple[str, ...], *, shared: bool = False, before: RegionNetwork | None = None) -> RegionNetwork:
    start = random_model() if before is None else to_model(before, CLASSES, long_side=128)
    return first_detector(names, start, None, DetectorRecipe(class_agnostic=shared), tell=print).eval()


def outputs(network: RegionNetwork) -> tuple[np.ndarray, np.ndarray]:
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor([[4.0, 4.0, 90.0, 70.0], [10.0, 20.0, 50.0, 90.0]])
    with torch.inference_mode():
        logits, deltas = network(50 * torch.randn(1, 3, 96, 128, generator=generator), boxes)
    return logits.numpy(), deltas.numpy()


def test_classes_in_another_order_keep_their_scores_and_deltas() -> None:
    logits, deltas = outputs(first(CLASSES))
    turned, other = outputs(first(CLASSES[::-1]))
    np.testing.assert_allclose(turned[:, [0, 3, 2, 1]], logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(other[:, ::-1], deltas, rtol=1e-5, atol=1e-5)


def test_the_layers_below_go_on_with_other_classes(capsys: pytest.CaptureFixture[str]) -> None:
    network, start = first(("mug", "cup")), random_model().weights
    assert "has other classes: their scores are learned" in capsys.readouterr().out
    for name, value in network.state_dict().items():
        # Finer features too: they belong to no class.
        if not name.startswith(("score.", "context.", "delta.")):
            np.testing.assert_array_equal(value.numpy(), start[name].astype(np.float32), err_msg=name)
    assert not network.state_dict()["context.weight"].any()


def test_classes_that_the_start_knows_keep_their_scores_and_deltas(capsys: pytest.CaptureFixture[str]) -> None:
    logits, deltas = outputs(first(CLASSES))
    # A domestic cat, a class without boxes before, and a person; ILSVRC's names.
    names = ("n02121808", "zebra", "person")
    network = first(names)
    assert "the scores of 1 of 3 are learned from nothing" in capsys.readouterr().out
    some, moved = outputs(network)
    np.testing.assert_allclose(some[:, [0, 1, 3]], logits[:, [0, 1, 3]], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(moved[:, [0, 2]], deltas[:, [0, 2]], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(moved[:, 1], deltas.mean(1), rtol=1e-5, atol=1e-5)


def test_deltas_that_all_classes_share_go_on_with_any_classes() -> None:
    start = random_network(class_agnostic=True)
    shared = start.state_dict()["delta.bias"].half().float()
    for names in (CLASSES, ("mug", "cat", "hat", "cup")):
        assert torch.equal(first(names, shared=True, before=start).delta.bias, shared)
        assert torch.equal(first(names, before=start).delta.bias, shared.repeat(len(names)))
    mean = random_network().state_dict()["delta.bias"].half().float().unflatten(0, (-1, 4)).mean(0)
    assert torch.allclose(first(("mug",), shared=True).delta.bias, mean)
