"""What training reads: folders in two layouts, a stable split, proposals computed once."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inception_rcnn.data import VOC_CLASSES, AnnotationError, Picture
from inception_rcnn.detect.training_data import ProposalCache, read_labelled_folder, split_validation
from inception_rcnn.proposals import SelectiveSearch

NOTHING = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0, bool)


def named(name: str, labelled: tuple[int, ...] | None = None, path: Path = Path("absent.jpg")) -> Picture:
    return Picture(name, path, 60, 40, *NOTHING, labelled)


def test_split_is_by_name_alone() -> None:
    pictures = [named(f"{number:06}") for number in range(3000)]
    training, validation = split_validation(pictures)
    assert len(training) + len(validation) == 3000
    assert 70 < len(validation) < 130
    # These names forever: figures of models trained years apart stay comparable.
    assert [picture.image_id for picture in validation[:3]] == ["000000", "000010", "000040"]
    again = split_validation(reversed(pictures[:1000]))[1]
    aside = {picture.image_id for picture in validation}
    assert {picture.image_id for picture in again} == {name for name in aside if int(name) < 1000}


def test_pictures_that_are_not_labelled_exhaustively_only_train() -> None:
    training, validation = split_validation([named(str(number), labelled=(3,)) for number in range(500)])
    assert (len(training), len(validation)) == (500, 0)


def test_both_layouts(tmp_path: Path) -> None:
    voc, coco = tmp_path / "voc", tmp_path / "coco"
    for folder in (voc / "ImageSets" / "Main", voc / "Annotations", coco / "images"):
        folder.mkdir(parents=True)
    (voc / "ImageSets" / "Main" / "trainval.txt").write_text("000005\n")
    (voc / "Annotations" / "000005.xml").write_text(
        "<annotation><size><width>60</width><height>40</height></size><object><name>cat</name><bndbox>"
        "<xmin>1</xmin><ymin>1</ymin><xmax>20</xmax><ymax>10</ymax></bndbox></object></annotation>"
    )
    (coco / "annotations.json").write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "a.jpg", "width": 60, "height": 40}],
                "categories": [{"id": 9, "name": "couch"}],
                "annotations": [{"id": 1, "image_id": 1, "category_id": 9, "bbox": [2, 3, 4, 5], "iscrowd": 0}],
            }
        )
    )
    (one,) = read_labelled_folder(voc, VOC_CLASSES)
    assert (one.image_id, one.boxes.tolist(), one.labels.tolist()) == ("000005", [[0, 0, 20, 10]], [7])
    (two,) = read_labelled_folder(coco, VOC_CLASSES)
    assert (two.path, two.boxes.tolist()) == (coco / "images" / "a.jpg", [[2, 3, 6, 8]])
    assert VOC_CLASSES[two.labels[0]] == "sofa"


def test_other_folders_are_named(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(AnnotationError, match="neither VOC layout") as caught:
            read_labelled_folder(folder, VOC_CLASSES)
        assert str(caught.value).startswith(f"{folder}:")


@pytest.fixture
def cache(tmp_path: Path) -> ProposalCache:
    return ProposalCache(tmp_path / "cache" / "proposals", SelectiveSearch("single"))


def must_not_search(image: np.ndarray) -> None:
    raise AssertionError("searched again")


def test_proposals_are_computed_once(
    cache: ProposalCache, tmp_path: Path, picture: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture(0)).save(path)
    one = named("a", path=path)
    expected, _ = cache.proposer(picture(0))
    first = cache(one)
    np.testing.assert_array_equal(first, expected)
    assert first.dtype == np.float32
    assert len(list(cache.folder.iterdir())) == 1
    monkeypatch.setattr(cache, "proposer", must_not_search)
    np.testing.assert_array_equal(cache(one), expected)
    cache.fill([one], workers=1)  # nothing is missing
    # A changed picture is another picture; so are other settings.
    os.utime(path, ns=(1, 1))
    with pytest.raises(AssertionError, match="searched again"):
        cache(one)
    other = ProposalCache(cache.folder, SelectiveSearch("single", superpixel_scale=2.0))
    assert len(other(one)) > 0
    assert len(list(cache.folder.iterdir())) == 2


def test_fill_computes_in_processes(
    cache: ProposalCache, tmp_path: Path, picture: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = []
    for seed in range(3):
        path = tmp_path / f"{seed}.png"
        Image.fromarray(picture(seed)).save(path)
        pictures.append(dataclasses.replace(named(str(seed)), path=path))
    done: list[int] = []
    first = cache(pictures[0])
    cache.fill(pictures, workers=1, report=done.append)
    assert done == [1, 2, 3]
    monkeypatch.setattr(cache, "proposer", must_not_search)
    np.testing.assert_array_equal(cache(pictures[0]), first)
    assert all(len(cache(one)) > 0 for one in pictures)
