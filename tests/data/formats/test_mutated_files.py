"""Every file that the evaluators take, damaged in many ways: it is read, or refused in one line that names it."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from damage import NAMES, damage, damage_json, write_files

from inception_rcnn.data import (
    PROPOSAL_SUFFIXES,
    AnnotationError,
    DetectionError,
    ProposalFileError,
    read_coco,
    read_coco_results,
    read_detections,
    read_ilsvrc,
    read_ilsvrc_blacklist,
    read_ilsvrc_list,
    read_ilsvrc_results,
    read_meta_det,
    read_proposals,
    read_voc,
    read_voc_results,
)
from inception_rcnn.data.errors import DataWarning
from inception_rcnn.eval import EvaluationError, evaluate_coco, evaluate_ilsvrc, evaluate_proposals, evaluate_voc

MUTATIONS = 60


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("files")
    write_files(root)
    return root


class Kind(NamedTuple):
    file: str
    read: Callable[[Path], dict]
    other: str = ""  # where the two contradict each other, this one may be named


def voc(root):
    pictures = read_voc(root / "voc", "test", NAMES)
    return evaluate_voc(pictures, read_voc_results(root / "results", NAMES), NAMES)


def coco(root):
    pictures = read_coco(root / "instances.json", root, NAMES)
    return evaluate_voc(pictures, read_detections(root / "detections.json"), NAMES)


def parquet(root):
    pictures = read_coco(root / "instances.json", root, NAMES)
    return evaluate_voc(pictures, read_detections(root / "detections.parquet"), NAMES)


def parquet_official(root):
    return evaluate_coco(root / "instances.json", root / "detections.parquet")


def coco_list(root):
    pictures = read_coco(root / "instances.json", root, NAMES)
    return evaluate_voc(pictures, read_coco_results(root / "list.json", root / "instances.json"), NAMES)


def coco_official(root):
    return evaluate_coco(root / "instances.json", root / "detections.json")


def coco_official_list(root):
    return evaluate_coco(root / "instances.json", root / "list.json")


def ilsvrc(root):
    classes = read_meta_det(root / "meta_det.mat")
    numbers = read_ilsvrc_list(root / "val.txt")
    pictures = read_ilsvrc(root / "ilsvrc", root / "val.txt", classes)
    results = read_ilsvrc_results(root / "results.txt", numbers, classes)
    blacklist = read_ilsvrc_blacklist(root / "blacklist.txt", numbers, classes)
    return evaluate_ilsvrc(pictures, results, tuple(classes.values()), blacklist)


def proposals(suffix):
    def read(root):
        pictures = read_coco(root / "instances.json", root, NAMES)
        boxes = {Path(one.file).stem: one.boxes for one in read_proposals(root / f"proposals{suffix}")}
        return evaluate_proposals(pictures, boxes)

    return read


KINDS = [
    Kind("voc/Annotations/000001.xml", voc),
    Kind("voc/ImageSets/Main/test.txt", voc),
    Kind("results/comp4_det_test_cat.txt", voc),
    Kind("detections.json", coco),
    Kind("instances.json", coco_list, "list.json"),
    Kind("list.json", coco_list),
    Kind("detections.json", coco_official, "instances.json"),
    Kind("instances.json", coco_official, "detections.json"),
    Kind("instances.json", coco_official_list, "list.json"),
    Kind("list.json", coco_official_list),
    Kind("results.txt", ilsvrc),
    Kind("ilsvrc/000002.xml", ilsvrc),
    Kind("blacklist.txt", ilsvrc),
    Kind("val.txt", ilsvrc, "results.txt"),
    Kind("meta_det.mat", ilsvrc, "results.txt"),
    *(Kind(f"proposals{suffix}", proposals(suffix)) for suffix in PROPOSAL_SUFFIXES),
    Kind("detections.parquet", parquet),
    Kind("detections.parquet", parquet_official, "instances.json"),
]


def test_the_files_are_sound(root):
    for kind in KINDS:
        result = kind.read(root)
        assert result.get("mAP", 1) > 0.4


@pytest.mark.parametrize("kind", KINDS, ids=[f"{kind.file}-{kind.read.__name__}" for kind in KINDS])
def test_damaged_files_are_read_or_refused_in_one_line(root, kind):
    path = root / kind.file
    whole = path.read_bytes()
    rng = np.random.default_rng(KINDS.index(kind))
    refused = 0
    try:
        for i in range(MUTATIONS):
            data = damage_json(whole, rng) if path.suffix == ".json" and i % 2 else damage(whole, rng)
            path.write_bytes(data)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                warnings.simplefilter("ignore", DataWarning)
                try:
                    kind.read(root)
                    continue
                except EvaluationError as error:
                    message = f"{path}: {error}"  # it knows of pictures, not of files
                except (AnnotationError, DetectionError, ProposalFileError) as error:
                    message = str(error)
            refused += 1
            assert len(message.splitlines()) == 1, message
            assert any(str(root / file) in message for file in (kind.file, kind.other) if file), message
            message.encode()
    finally:
        path.write_bytes(whole)
    # Neither is everything taken nor everything refused.
    assert refused > MUTATIONS // 4
