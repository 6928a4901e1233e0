import json

import pytest

from inception_rcnn.data import COCO_CLASSES, COCO_TO_VOC, VOC_CLASSES


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
