"""Class lists, in the order that gives every class its index."""

VOC_CLASSES: tuple[str, ...] = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""The 20 classes of PASCAL VOC, alphabetical; a label is an index into this tuple."""

COCO_TO_VOC: dict[str, str] = {
    "airplane": "aeroplane",
    "motorcycle": "motorbike",
    "dining table": "diningtable",
    "couch": "sofa",
    "potted plant": "pottedplant",
    "tv": "tvmonitor",
}
"""COCO's names of the six classes that VOC calls otherwise; the other fourteen are spelt alike."""
