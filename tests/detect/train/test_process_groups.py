"""Processes that train together, by torchrun: they learn what one does, disagree at once, and end without threads."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from builders import make_picture, random_boxes, write_image
from random_model import random_network
from test_training import OBJECTS
from test_training_classifier import Small, draw_folder
from test_training_classifier import train as train_classifier
from test_training_multibox import SIDES, draw

from inception_rcnn.data.errors import CheckpointError
from inception_rcnn.detect.train import device as training_device
from inception_rcnn.detect.train.detector import train_detector
from inception_rcnn.detect.train.loop import RunSettings
from inception_rcnn.detect.train.multibox import train_multibox
from inception_rcnn.detect.train.process_group import SINGLE_PROCESS, ProcessGroup
from inception_rcnn.detect.train.recipes import DetectorRecipe, MultiBoxRecipe
from inception_rcnn.proposals.multibox.network import GridHead

Learned = dict[str, Any]


def learn_detector(folder: Path, group: ProcessGroup) -> Learned:
    """Train a detector on four pictures."""
    pictures = []
    for i in range(4):
        noise = np.random.default_rng(i).integers(0, 256, (16, 20, 3), dtype=np.uint8)
        path = write_image(folder / f"{i}.png", noise.repeat(10, 0).repeat(10, 1))
        # The last has no region to learn from: a process may have nothing to add.
        boxes, labels, more = (OBJECTS, [0, 1, 2], {}) if i < 3 else ([], [], {"labelled": (0,), "exhaustive": False})
        pictures.append(dataclasses.replace(make_picture(boxes, labels, path=path, **more), image_id=str(i)))
    network, rows = random_network(1), []
    recipe = DetectorRecipe(epochs=1.0, batch=2, regions=8, learning_rate=0.001, scales=(1.0,), long_side=64)
    run = RunSettings(group=group, checkpoint=folder / "checkpoint", report=rows.append)
    assert train_detector(network, pictures, lambda picture: (random_boxes(40), None), [], recipe, run=run)
    return {"weights": network.state_dict(), "rows": rows}


def learn_multibox(folder: Path, group: ProcessGroup) -> Learned:
    """Train a MultiBox on five pictures."""
    pictures = [draw(folder / f"{seed}.png", seed) for seed in range(5)]
    head, rows = GridHead(SIDES, channels=4), []
    recipe = MultiBoxRecipe(epochs=2.0, batch=2, scales=(2 / 3, 1.0), long_side=96)
    run = RunSettings(group=group, checkpoint=folder / "checkpoint", report=rows.append)
    assert train_multibox(head, random_network(1), pictures, [], recipe, run)
    return {"weights": head.state_dict(), "rows": rows}


def learn_classifier(folder: Path, group: ProcessGroup) -> Learned:
    """Train without what is not the same in any number of processes: dropout, and the rounding of bfloat16."""
    (draw_folder(folder) / "train" / "red" / "1.JPEG").write_bytes(b"")
    made, told = Small(), list[str]()
    made.dropout.p = 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_device, "bfloat16_is_faster", lambda device: False)
        finished, rows = train_classifier(
            made, folder / "data", epochs=3.0, learning_rate=0.3, group=group, warn=told.append
        )
    assert finished
    return {"weights": made.state_dict(), "rows": rows, "told": told}


def disagree(folder: Path, group: ProcessGroup) -> str:
    """Begin a training of as many pictures more as the rank says; what the refusal says."""
    pictures = [draw(folder / f"{seed}.png", seed) for seed in range(4 + group.rank)]
    recipe = MultiBoxRecipe(epochs=1.0, batch=2, scales=(1.0,), long_side=64)
    run = RunSettings(group=group, checkpoint=folder / "checkpoint")
    try:
        train_multibox(GridHead(SIDES, channels=4), random_network(1), pictures, [], recipe, run)
    except CheckpointError as error:
        return str(error)
    return ""


LEARN: dict[str, Callable[[Path, ProcessGroup], Learned]] = {
    "detector": learn_detector,
    "multibox": learn_multibox,
    "classifier": learn_classifier,
}


def leave(group: ProcessGroup) -> str:
    """End the group as a process does at its end; the names of the threads that remain."""
    import atexit

    import torch.distributed.nn  # noqa: F401 - as a training imports it
    from torch import distributed

    group.agree(group.rank)
    atexit.unregister(distributed.destroy_process_group)
    distributed.destroy_process_group()
    return " ".join(path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm"))


SCRIPT = """
import sys
from pathlib import Path
import torch
from test_process_groups import LEARN, disagree, leave
from inception_rcnn.detect.train.process_group import join_process_group
folder, group = Path(sys.argv[1]), join_process_group("cpu")

def own(name):
    made = folder / name / str(group.rank)
    made.mkdir(parents=True)
    return made

results = {name: learn(own(name), group) for name, learn in LEARN.items()}
results |= {"refusal": disagree(own("apart"), group), "threads": leave(group)}
torch.save(results, folder / f"{group.rank}.pt")
"""


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes has to say."""
    folder = tmp_path_factory.mktemp("together")
    (folder / "script.py").write_text(SCRIPT)
    tests = Path(__file__).parents[2]
    paths = str(tests / "detect" / "train"), str(tests), os.environ.get("PYTHONPATH")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(folder / "script.py"), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARN)
def test_two_processes_learn_what_one_does(tmp_path: Path, together: list[dict[str, Any]], name: str) -> None:
    alone = LEARN[name](tmp_path, SINGLE_PROCESS)
    first, second = (one[name] for one in together)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if name == "detector" else {"rtol": 1e-5, "atol": 1e-7}
    for weight, value in alone["weights"].items():
        torch.testing.assert_close(first["weights"][weight], value, **tolerance)
        assert torch.equal(first["weights"][weight], second["weights"][weight])
    # Only the first reports.
    assert first["rows"]
    assert not second["rows"]


@pytest.mark.slow
def test_pictures_that_cannot_be_read_are_told_by_the_process_that_has_them(
    tmp_path: Path, together: list[dict[str, Any]]
) -> None:
    alone = learn_classifier(tmp_path, SINGLE_PROCESS)
    first, second = (one["classifier"] for one in together)
    same = ("step", "unreadable", "training_error", "top_1_error")
    assert [[row[key] for key in same] for row in alone["rows"]] == [
        [row[key] for key in same] for row in first["rows"]
    ]
    assert sum(row["unreadable"] for row in alone["rows"]) == 3
    assert {Path(line).name for line in alone["told"]} == {Path(line).name for line in first["told"] + second["told"]}


@pytest.mark.slow
def test_processes_that_disagree_end_at_once(together: list[dict[str, Any]]) -> None:
    for one in together:
        assert "not all processes have the same checkpoint and settings" in one["refusal"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are named under /proc on Linux only")
def test_the_threads_of_a_group_end_with_it(together: list[dict[str, Any]]) -> None:
    for one in together:
        assert "python" in one["threads"]
        assert "gloo" not in one["threads"]
