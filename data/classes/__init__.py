"""Class lists, in the order that gives every class its index.

They stand in text files: a name a line, or a WordNet id, a tab and a name.
"""

from pathlib import Path


def _read_names(file: str) -> tuple[str, ...]:
    return tuple(Path(__file__).with_name(file).read_text(encoding="utf-8").splitlines())


def _read_wordnet_names(file: str) -> dict[str, str]:
    return dict(line.split("\t") for line in _read_names(file))


VOC_CLASSES: tuple[str, ...] = _read_names("voc.txt")
"""The 20 classes of PASCAL VOC, alphabetical; a label is an index into this tuple."""

COCO_CLASSES: tuple[str, ...] = _read_names("coco.txt")
"""The 80 classes of COCO, in the order of their category ids, which have gaps; a label is an index into this tuple."""

COCO_TO_VOC: dict[str, str] = {
    "airplane": "aeroplane",
    "motorcycle": "motorbike",
    "dining table": "diningtable",
    "couch": "sofa",
    "potted plant": "pottedplant",
    "tv": "tvmonitor",
}
"""COCO's names of the six classes that VOC calls otherwise; the other fourteen are spelt alike."""

ILSVRC_DET_CLASSES: dict[str, str] = _read_wordnet_names("ilsvrc_det.txt")
"""The 200 classes of the ILSVRC detection challenge: WordNet id, which its annotations use, to name. In the order of
the development kit's ids, so that the first is its class 1."""

IMAGENET_CLASSES: dict[str, str] = _read_wordnet_names("imagenet.txt")
"""The 1,000 classes of the ILSVRC classification challenge: WordNet id to the first name that WordNet has, in the order
that gives every class its index."""


def _read_class_map(file: str) -> dict[str, dict[str, str]]:
    classes: dict[str, dict[str, str]] = {}
    for line in _read_names(file):
        name, own, other, _ = line.split("\t")
        classes.setdefault(name, {})[own] = other
    return classes


TO_ILSVRC_DET: dict[str, dict[str, str]] = _read_class_map("ilsvrc_det_map.txt")
"""Which of the 200 detection classes other classes are: of each list, "imagenet" (by WordNet id), "coco" and "voc" (by
name), class to WordNet id. Classes that are none of the 200 are left out. Of the table's rows that are marked
"WordNet", ImageNet's class is the detection class or one of its hyponyms in WordNet 3.0; the others were added by
hand."""
