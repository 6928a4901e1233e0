"""Packed pictures: what comes out is what went in, trainings learn the same from them, in any number of processes."""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from builders import (
    coco_document,
    make_picture,
    random_boxes,
    random_image,
    voc_xml,
    write_coco,
    write_image,
    write_voc,
)
from typer.testing import CliRunner

from inception_rcnn.data import VOC_CLASSES, AnnotationError, ImageError, Picture, read_image
from inception_rcnn.data.errors import DataWarning, OutputError, SettingError
from inception_rcnn.data.picture import fingerprint
from inception_rcnn.detect.cli.app import app
from inception_rcnn.detect.train.data import read_training_pictures
from inception_rcnn.detect.train.proposal_cache import ProposalCache
from inception_rcnn.detect.train.shards import GROUP_ROWS, Packing, is_packed, pack_pictures, read_pixels, read_shards
from inception_rcnn.proposals import SelectiveSearch

CLASSES = ("cat", "dog", "car")


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    yield lambda done: None


def some_pictures(folder: Path, number: int, seed: int = 0) -> list[Picture]:
    """Pictures with up to three objects, of all kinds of labels."""
    rng, pictures = np.random.default_rng(seed), []
    for i in range(number):
        path = write_image(folder / f"{seed}.{i}.png", random_image(100 * seed + i, 120, 90))
        count = i % 4
        picture = make_picture(
            random_boxes(count, 120, 90, seed=i, smallest=20), rng.integers(0, 3, count), f"{seed}.{i}", path=path,
            size=(120, 90), difficult=[0] if i % 4 == 2 else [], crowd=[2] if i % 4 == 3 else [],
            labelled=(0, 2) if i == 5 else None, exhaustive=i != 5,
        )  # fmt: skip
        pictures.append(dataclasses.replace(picture, classes=CLASSES))
    return pictures


def pack(folder: Path, training: list[Picture], aside: list[Picture], **changes: Any) -> None:
    """Pack pictures without loss, where nothing else is given."""
    settings = {"long_side": 640, "quality": 100}
    settings |= {field.name: changes.pop(field.name) for field in dataclasses.fields(Packing) if field.name in changes}
    pack_pictures(
        folder, training, aside, **{"classes": CLASSES, **changes}, packing=Packing(**settings), progress=progress
    )


read = functools.partial(
    read_training_pictures, split="trainval", tell=lambda text: None, warn=lambda text: None, progress=progress
)


def test_what_comes_out_is_what_went_in(tmp_path: Path) -> None:
    training, aside = some_pictures(tmp_path, 21), some_pictures(tmp_path, 3, seed=1)
    pack(tmp_path / "packed", training, aside, shard_bytes=150_000)
    assert len(list((tmp_path / "packed").iterdir())) > 2
    classes, *parts = read_shards(tmp_path / "packed")
    assert classes == CLASSES
    for before, after in zip((training, aside), parts, strict=True):
        assert [picture.image_id for picture in after] == [picture.image_id for picture in before]
        assert fingerprint(after) == fingerprint(before)
        for old, new in zip(before, after, strict=True):
            np.testing.assert_array_equal(read_pixels(new), read_image(old.path))
            assert (new.path.name, new.classes) == (old.path.name, CLASSES)
            for name in ("boxes", "labels", "difficult", "crowd"):
                assert getattr(new, name).dtype == getattr(old, name).dtype
    with pytest.raises(ImageError, match=r"has 120 x 90 pixels, more than the limit of 99"):
        read_pixels(parts[0][0], 99)


def test_any_program_can_read_the_files(tmp_path: Path) -> None:
    pictures = some_pictures(tmp_path, GROUP_ROWS + 1)
    pack(tmp_path / "packed", pictures, [])
    file = tmp_path / "packed" / "00000.parquet"
    table = pyarrow.parquet.read_table(file)
    assert {"file", "width", "height", "image", "boxes", "labels"} <= set(table.column_names)
    assert table["file"].to_pylist() == [picture.path.name for picture in pictures]
    assert [picture["image"][8:12] for picture in table.to_pylist()] == [b"WEBP"] * len(pictures)
    np.testing.assert_array_equal(table["boxes"][3].as_py(), pictures[3].boxes)
    assert b"classes" in table.schema.metadata
    assert pyarrow.parquet.read_metadata(file).num_row_groups == 2


@pytest.mark.parametrize("image_format", ["webp", "jpeg"])
def test_large_pictures_become_smaller_and_their_boxes_too(tmp_path: Path, image_format: str) -> None:
    pictures = some_pictures(tmp_path, 4)
    pack(tmp_path / "packed", pictures, [], long_side=60, quality=90, image_format=image_format)
    _, packed, _ = read_shards(tmp_path / "packed")
    for old, new in zip(pictures, packed, strict=True):
        assert read_pixels(new).shape == (45, 60, 3)
        assert (new.width, new.height) == (60, 45)
        np.testing.assert_allclose(new.boxes, old.boxes / 2, rtol=1e-6)
        small = read_image(old.path).reshape(45, 2, 60, 2, 3).mean((1, 3))
        assert np.abs(read_pixels(new) - small).mean() < 10


def test_a_packing_goes_on_where_it_stopped(tmp_path: Path) -> None:
    pictures, folder = some_pictures(tmp_path, 12), tmp_path / "packed"
    packed = functools.partial(pack, folder, pictures[:10], pictures[10:], shard_bytes=60_000)
    packed()
    files = sorted(folder.iterdir())
    whole = [file.read_bytes() for file in files]
    assert len(files) > 2
    files[-1].unlink()
    with pytest.raises(AnnotationError, match=r"of 12 pictures are packed there; pack the rest"):
        read_shards(folder)
    before = [file.stat().st_mtime_ns for file in files[:-1]]
    packed()
    assert [file.read_bytes() for file in sorted(folder.iterdir())] == whole
    assert [file.stat().st_mtime_ns for file in files[:-1]] == before
    for changed in ({"quality": 90}, {"long_side": 64}, {"classes": ("cat", "dog", "bus")}):
        with pytest.raises(OutputError, match=r"other settings; name another folder or remove it"):
            packed(**changed)
    with pytest.raises(OutputError, match=r"has other pictures"):
        pack(folder, pictures[:9], [])
    shutil.copy(files[0], files[-1])
    with pytest.raises(AnnotationError, match=r"is not of the same pictures as the files before it"):
        read_shards(folder)
    files[-1].write_bytes(whole[-1][:1000])
    with pytest.raises(AnnotationError, match=r"is no file of packed pictures, or damaged"):
        read_shards(folder)


def test_a_picture_that_cannot_be_read_costs_a_line(tmp_path: Path) -> None:
    pictures, told = some_pictures(tmp_path, 3), list[str]()
    pictures[1].path.write_bytes(b"no picture")
    pack(tmp_path / "packed", pictures, [], tell=told.append)
    assert told[0].startswith(f"passed over: {pictures[1].path}: ")
    assert [picture.image_id for picture in read_shards(tmp_path / "packed")[1]] == ["0.0", "0.2"]
    with pytest.raises(SettingError, match="image_format 'png' is unknown; use webp or jpeg"):
        Packing(640, image_format="png")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="no picture to pack"):
        pack(tmp_path / "empty", [], [])


def test_a_file_that_changes_while_it_is_read_is_told(tmp_path: Path) -> None:
    pack(tmp_path / "packed", some_pictures(tmp_path, 2), [])
    _, (one, two), _ = read_shards(tmp_path / "packed")
    file = tmp_path / "packed" / "00000.parquet"
    data = bytearray(file.read_bytes())
    assert one.packed is not None
    assert two.packed is not None
    data[one.packed.offset + 12 : one.packed.offset + 40] = bytes(28)
    file.write_bytes(data[: two.packed.offset + 9])
    with pytest.raises(ImageError, match=r"0\.0 is damaged; pack"):
        read_pixels(one)
    with pytest.raises(ImageError, match=r"has changed, 0\.1 is not where it was"):
        read_pixels(two)
    file.unlink()
    with pytest.raises(ImageError, match=r"cannot be read \(No such file"):
        read_pixels(one)


def test_proposals_are_packed_along(tmp_path: Path) -> None:
    pictures = some_pictures(tmp_path, GROUP_ROWS + 2)
    pack(tmp_path / "packed", pictures, [], proposer=SelectiveSearch("single"))
    _, packed, _ = read_shards(tmp_path / "packed")
    cache = ProposalCache(tmp_path / "cache", SelectiveSearch("single"), objectness=True)
    cache.fill(packed, workers=1)
    boxes, scores = zip(*map(cache, packed), strict=True)
    assert not list((tmp_path / "cache").iterdir())
    for i, picture in enumerate(pictures):
        found = cache(picture)
        np.testing.assert_array_equal(found[0], boxes[i])
        np.testing.assert_array_equal(found[1], scores[i])
    # Those of another proposer are computed.
    other = ProposalCache(tmp_path / "other", SelectiveSearch("single", limit=3))
    other.fill(packed[:1], workers=1)
    assert len(other(packed[0])[0]) == 3
    assert len(list((tmp_path / "other").iterdir())) == 1


def test_packed_pictures_stand_for_their_folder(tmp_path: Path) -> None:
    voc = write_voc(tmp_path / "voc", {f"{i:06}": voc_xml(("cat", 1, 1, 20, 10)) for i in range(60)}, "trainval")
    for i in range(60):
        write_image(voc / "JPEGImages" / f"{i:06}.jpg", random_image(i, 60, 40), quality=80)
    command = ["pack", "--data", voc, "--output", tmp_path / "packed", "--quality", 100, "--workers", 1]
    result = CliRunner().invoke(app, [*map(str, command)])
    assert result.exit_code == 0, result.output
    plain, packed = read([voc], VOC_CLASSES), read([tmp_path / "packed"], VOC_CLASSES)
    assert is_packed(tmp_path / "packed")
    assert not is_packed(voc)
    assert len(plain[1]) == 5
    assert [*map(fingerprint, plain)] == [*map(fingerprint, packed)]
    with pytest.raises(AnnotationError, match="again in"):
        read([voc, tmp_path / "packed"], VOC_CLASSES)
    # Packed once, they are set aside for ever, with other classes too.
    coco = write_coco(tmp_path / "coco", coco_document({1: "a.jpg"}, {1: "bird"}, [(1, 1, [2, 3, 4, 5])]))
    write_image(coco / "images" / "a.jpg", random_image(99, 60, 40))
    training, aside = read([tmp_path / "packed", coco], ["bird", "cat"])
    assert (len(training), len(aside)) == (56, 5)
    assert {int(picture.labels[0]) for picture in training[:-1]} == {1}
    assert training[0].labelled is None
    assert training[-1].labelled == (0,)


def test_labels_of_other_classes(tmp_path: Path) -> None:
    pack(tmp_path / "packed", some_pictures(tmp_path, 8), [])
    with pytest.warns(DataWarning, match=r"left out \d+ objects? of classes that are not asked for"):
        training, _ = read([tmp_path / "packed"], ["car", "bus", "cat"])
    packed = read_shards(tmp_path / "packed")[1]
    for old, new in zip(packed, training, strict=True):
        kept = old.labels != 1
        np.testing.assert_array_equal(new.labels, np.array([2, -1, 0])[old.labels[kept]])
        np.testing.assert_array_equal(new.boxes, old.boxes[kept])
        assert (new.labelled, new.exhaustive) == ((0, 2), old.exhaustive)
    with pytest.raises(AnnotationError, match=r"did you mean 'Cat'\?\).*; spell them alike"):
        read([tmp_path / "packed"], ["Cat", "dog", "car"])


class Proposals:
    """The same boxes for every picture, which is picklable, other than a lambda."""

    def __call__(self, picture: Picture) -> tuple[np.ndarray, None]:
        return random_boxes(40, picture.width, picture.height), None


def train(pictures: list[Picture], propose: Callable[[Picture], object] = Proposals(), **run: object) -> dict:  # noqa: B008
    """Fine-tune a random network for a few steps, and return its weights."""
    pytest.importorskip("safetensors")
    from random_model import random_network

    from inception_rcnn.detect.train.detector import train_detector
    from inception_rcnn.detect.train.loop import RunSettings
    from inception_rcnn.detect.train.recipes import DetectorRecipe

    network = random_network(1)
    recipe = DetectorRecipe(epochs=1.5, batch=2, regions=8, scales=(1.0, 1.5), long_side=64, learning_rate=0.002)
    finished = train_detector(network, pictures, propose, [], recipe, run=RunSettings(**run))  # type: ignore[arg-type]
    assert finished == ("time_limit" not in run)
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(one: dict, two: dict) -> bool:
    return all(np.array_equal(one[name].numpy(), two[name].numpy()) for name in one)


def test_a_training_learns_the_same_from_them(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pictures = some_pictures(tmp_path, 4)
    pack(tmp_path / "packed", pictures, [])
    _, packed, _ = read_shards(tmp_path / "packed")
    plain = train(pictures)
    assert same(plain, train(packed, readers=1))
    # The checkpoint of a training from files goes on from packed pictures.
    train(pictures, checkpoint=tmp_path / "checkpoint", time_limit=0)
    assert same(plain, train(packed, checkpoint=tmp_path / "checkpoint", resume=True))
    pack(tmp_path / "lossy", pictures, [], quality=50)
    assert not same(plain, train(read_shards(tmp_path / "lossy")[1]))


@pytest.mark.slow
def test_any_number_of_processes_reads_the_same(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pictures = some_pictures(tmp_path, 4)
    pack(tmp_path / "packed", pictures, [])
    _, packed, _ = read_shards(tmp_path / "packed")
    plain = train(pictures)
    assert same(plain, train(packed, readers=3))
    train(packed, readers=2, checkpoint=tmp_path / "checkpoint", time_limit=0)
    assert same(plain, train(pictures, readers=1, checkpoint=tmp_path / "checkpoint", resume=True))


def test_what_goes_wrong_in_a_process_is_told(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pictures = some_pictures(tmp_path, 3)
    with pytest.raises(
        SettingError, match=r"cannot be sent to worker processes \(.*\); make them picklable, or use rea"
    ):
        train(pictures, lambda picture: (random_boxes(4), None), readers=2)
    pictures[1].path.unlink()
    with pytest.raises(ImageError, match=r"1\.png: does not exist"):
        train(pictures, readers=1)


class Deadly:
    """Ends the process, but not this one."""

    def __init__(self) -> None:
        self.parent = os.getpid()

    def __call__(self, picture: Picture) -> tuple[np.ndarray, None]:
        if os.getpid() != self.parent:
            os._exit(1)
        return random_boxes(4), None


@pytest.mark.slow
def test_a_process_that_dies_is_told(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    with pytest.raises(ImageError, match=r"0\.\d\.png: a process ended while it read that"):
        train(some_pictures(tmp_path, 3), Deadly(), readers=2)
