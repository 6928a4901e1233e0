"""The parts of the training loop: the order of the pictures, the learning rate, checkpoints of earlier versions."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from inception_rcnn.data.errors import CheckpointError
from inception_rcnn.detect.train.checkpoint import load_checkpoint, save_checkpoint
from inception_rcnn.detect.train.loop import Order, Schedule
from inception_rcnn.detect.train.recipes import MultiBoxRecipe


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(1, 7), st.data())
def test_steps_take_the_epochs_one_after_the_other(lengths: list[int], batch: int, data: st.DataObject) -> None:
    shown = data.draw(st.integers(0, sum(lengths)))
    epochs = [np.random.default_rng(i).permutation(length) for i, length in enumerate(lengths)]
    order = Order(lambda epoch: epochs[epoch], lengths, shown, batch)
    assert order.steps == shown // batch
    taken = [index for step in range(order.steps) for index in order.pictures(step).tolist()]
    assert taken == np.concatenate(epochs)[: order.steps * batch].tolist()
    assert order.epoch_ends == {end // batch for end in np.cumsum(lengths).tolist()} | {order.steps}


def test_every_picture_once_an_epoch() -> None:
    order = Order.shuffled(12, MultiBoxRecipe(epochs=2.5, batch=4, seed=3))
    assert (order.steps, order.epoch_ends) == (7, {3, 6, 7, 9})
    first, second = (np.concatenate([order.pictures(step) for step in steps]) for steps in (range(3), range(3, 6)))
    assert sorted(first) == sorted(second) == list(range(12))
    assert first.tolist() != second.tolist()


def test_the_learning_rate_rises_and_falls() -> None:
    schedule = Schedule(0.1, 5000)
    assert schedule.rate(0) == pytest.approx(0.1 / 200)
    assert schedule.rate(199) == schedule.rate(200) == pytest.approx(0.1)
    assert schedule.rate(2600) == pytest.approx(0.1 * 0.505)
    assert schedule.rate(4999) == pytest.approx(0.001, rel=0.01)
    # Of a short training a tenth, or nothing, is warm-up.
    assert Schedule(0.1, 50).rate(0) == pytest.approx(0.02)
    assert Schedule(0.1, 9).rate(0) == pytest.approx(0.1)
    assert all(math.isfinite(Schedule(0.1, 1, decay).rate(0)) for decay in ("cosine", "step"))


def test_a_checkpoint_that_lacks_a_setting_was_made_with_its_default(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    path, settings = tmp_path / "checkpoint", {"batch": 4, "scales": (0.5, 1.0), "dropout": 0.4}
    save_checkpoint(path, network, optimizer, 7, settings)
    assert load_checkpoint(path, network, optimizer, settings, {}) == 7
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    older = {name: value for name, value in json.loads(metadata["settings"]).items() if name != "dropout"}
    save_file(load_file(path), path, metadata | {"settings": json.dumps(older)})
    assert load_checkpoint(path, network, optimizer, settings, {"dropout": 0.4}) == 7
    with pytest.raises(CheckpointError, match=r"other settings \(dropout 0.4 and not 0.5\)"):
        load_checkpoint(path, network, optimizer, settings | {"dropout": 0.5}, {"dropout": 0.4})
