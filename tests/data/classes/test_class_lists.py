import json
import os
from pathlib import Path

import pytest

from inception_rcnn.data import (
    COCO_CLASSES,
    COCO_TO_VOC,
    ILSVRC_DET_CLASSES,
    IMAGENET_CLASSES,
    TO_ILSVRC_DET,
    VOC_CLASSES,
    classes,
)

MAP = Path(classes.__file__).with_name("ilsvrc_det_map.txt")


def test_the_classes_of_coco():
    assert len(COCO_CLASSES) == len(set(COCO_CLASSES)) == 80
    assert (COCO_CLASSES[0], COCO_CLASSES[4], COCO_CLASSES[-1]) == ("person", "airplane", "toothbrush")
    # VOC's are among them, under their names or others.
    assert {COCO_TO_VOC.get(name, name) for name in COCO_CLASSES} >= set(VOC_CLASSES)
    assert set(COCO_TO_VOC) <= set(COCO_CLASSES)
    assert set(COCO_TO_VOC.values()).isdisjoint(COCO_CLASSES)


def test_the_classes_are_in_the_order_of_coco(shared):
    file = shared / "data/coco/annotations/instances_train.json"
    if not file.is_file():
        pytest.skip("no annotations of COCO in the folder of reference data")
    categories = json.loads(file.read_bytes())["categories"]
    assert tuple(record["name"] for record in sorted(categories, key=lambda record: record["id"])) == COCO_CLASSES


def test_classes_of_other_lists_stand_for_detection_classes():
    imagenet, coco, voc = (TO_ILSVRC_DET[name] for name in ("imagenet", "coco", "voc"))
    assert list(imagenet) == [one for one in IMAGENET_CLASSES if one in imagenet]
    assert list(coco) == [one for one in COCO_CLASSES if one in coco]
    assert list(voc) == [one for one in VOC_CLASSES if one in voc]
    assert set(imagenet.values()) == set(ILSVRC_DET_CLASSES) >= {*coco.values(), *voc.values()}
    assert sum(one == other for one, other in imagenet.items()) == 150
    # VOC's classes are those of COCO that have their names.
    assert voc == {COCO_TO_VOC.get(name, name): one for name, one in coco.items() if COCO_TO_VOC.get(name, name) in voc}
    assert ILSVRC_DET_CLASSES[coco["couch"]] == "sofa"
    assert not {"bottle", "truck"} & {*coco, *voc}


def test_imagenet_classes_are_mapped_by_wordnet():
    folder = os.environ.get("INCEPTION_RCNN_WORDNET")
    if folder is None:
        pytest.skip("INCEPTION_RCNN_WORDNET does not name the dict folder of WordNet 3.0")
    above: dict[str, list[str]] = {}
    for line in Path(folder, "data.noun").read_text(encoding="utf-8").splitlines():
        if not line.startswith("  "):
            fields = line.split(" | ")[0].split()
            pointers = fields[5 + 2 * int(fields[3], 16) :]
            above[fields[0]] = [
                one for kind, one in zip(pointers[::4], pointers[1::4], strict=False) if kind in ("@", "@i")
            ]

    def detection_classes(synset: str) -> set[str]:
        found = {f"n{synset}"} & set(ILSVRC_DET_CLASSES)
        return found.union(*(detection_classes(one) for one in above[synset]))

    rows = [line.split("\t") for line in MAP.read_text(encoding="utf-8").splitlines()]
    known = {one: {other} for name, one, other, source in rows if name == "imagenet" and source == "WordNet"}
    assert known == {one: found for one in IMAGENET_CLASSES if (found := detection_classes(one[1:]))}
    assert len(known) == 483
