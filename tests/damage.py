"""One small valid file of every kind that the evaluators take, and ways to damage it."""

import json
import re

import numpy as np
import scipy.io
from builders import coco_document, make_detections

from inception_rcnn.data import (
    PROPOSAL_SUFFIXES,
    Proposals,
    write_detections,
    write_ilsvrc_results,
    write_proposals,
    write_voc_results,
)

CLASSES = {"n02121808": "cat", "n02084071": "dog"}
NAMES = tuple(CLASSES.values())
IDS = ("000001", "000002")

XML = """<annotation>
\t<filename>000001</filename>
\t<size><width>50</width><height>40</height><depth>3</depth></size>
\t<object>
\t\t<name>{cat}</name>
\t\t<difficult>0</difficult>
\t\t<bndbox><xmin>1</xmin><xmax>20</xmax><ymin>1</ymin><ymax>10</ymax></bndbox>
\t</object>
\t<object>
\t\t<name>{dog}</name>
\t\t<bndbox><xmin>5</xmin><ymin>6</ymin><xmax>30</xmax><ymax>35</ymax></bndbox>
\t</object>
</annotation>
"""

COCO = coco_document(
    {1: f"{IDS[0]}.jpg", 2: f"{IDS[1]}.jpg"},
    {1: NAMES[0], 2: NAMES[1]},
    [(1, 1, [0, 0, 20, 10]), (2, 2, [4.5, 5, 26, 30])],
    size=(50, 40),
)
COCO["annotations"][1]["iscrowd"] = 1

RESULTS = [
    {"image_id": 1, "category_id": 1, "bbox": [0, 0, 20, 10], "score": 0.9},
    {"image_id": 2, "category_id": 2, "bbox": [4.5, 5, 26, 30], "score": 0.25},
]


def found():
    return make_detections([[0, 0, 20, 10], [4, 5, 30, 35]], [0.9, 0.25], [0, 1], NAMES)


def write_files(root):
    """Write one small valid file of every kind; the pictures are not there."""
    for folder in ("voc/Annotations", "voc/ImageSets/Main", "ilsvrc", "results"):
        (root / folder).mkdir(parents=True)
    for name in IDS:
        (root / f"voc/Annotations/{name}.xml").write_text(XML.format(cat="cat", dog="dog"))
        (root / f"ilsvrc/{name}.xml").write_text(XML.format(cat="n02121808", dog="n02084071"))
    (root / "voc/ImageSets/Main/test.txt").write_text("000001  1\n000002 -1\n")
    (root / "val.txt").write_text("000001 1\n000002 2\n")
    (root / "blacklist.txt").write_text("1 n02084071\n2 n02121808\n")
    (root / "instances.json").write_text(json.dumps(COCO))
    (root / "list.json").write_text(json.dumps(RESULTS))
    write_detections(root / "detections.json", [(f"{name}.jpg", 50, 40, found()) for name in IDS], NAMES)
    write_detections(root / "detections.parquet", [(f"{name}.jpg", 50, 40, found()) for name in IDS], NAMES)
    write_voc_results(root / "results", {name: found() for name in IDS})
    write_ilsvrc_results(root / "results.txt", {name: found() for name in IDS}, {"000001": 1, "000002": 2}, CLASSES)
    fields = [("ILSVRC2014_DET_ID", float), ("WNID", object), ("name", object), ("description", object)]
    synsets = [(i, wnid, name, "a pet") for i, (wnid, name) in enumerate(CLASSES.items(), 1)]
    scipy.io.savemat(root / "meta_det.mat", {"synsets": np.array(synsets, fields)}, do_compression=True)
    entries = [Proposals(f"{name}.jpg", 50, 40, found().boxes, found().scores) for name in IDS]
    for suffix in PROPOSAL_SUFFIXES:
        write_proposals(root / f"proposals{suffix}", entries)


NASTY = [
    b"nan",
    b"-inf",
    b"1e39",
    b"1e400",
    b"-1",
    b"0",
    b"999999999999999999999",
    b"9" * 400,
    b"0x10",
    b"one",
    b"",
    b"1e-320",
    b"1_0",
    "٣".encode(),
    b"\xff",
    b"\0",
    b"null",
    b"[]",
    b"{}",
    b'"5"',
    b"True",
    b"n02121808",
    b"3",
]
VALUES = [
    None,
    True,
    -1,
    0,
    1.5,
    2,
    10**400,
    1e39,
    float("nan"),
    float("-inf"),
    "",
    "a\nb",
    "\ud800",
    "1234",
    "x" * 5000,
    [],
    [1, 2, 3, 4],
    [[1]],
    ["1", "2", "3", "4"],
    {},
    {"id": 1},
]
JUNK = [
    b"\0\xff\xfe",
    b"\n\n",
    b"\r",
    b"\xef\xbb\xbf",
    b"[" * 3000,
    b'{"a":' * 3000,
    b"<a>" * 3000,
    b"<!DOCTYPE a>",
    b" 7 ",
    b"\x0b\x1c\x85",
    "\u2028".encode(),
    b"&#0;",
    b"-->",
    b"%s%n",
]


def damage(data, rng):
    """Change bytes, numbers, lines or tags in a file of any kind."""
    way = rng.integers(11)
    at, to = sorted(rng.integers(0, len(data) + 1, 2).tolist())
    numbers = list(re.finditer(rb"-?\d+(\.\d+)?", data))
    tags = list(re.finditer(rb"</?\w+>", data))
    lines = data.splitlines(keepends=True)
    if way == 0:
        return data[:at]
    if way == 1:
        changed = bytearray(data)
        for i in rng.integers(0, len(data), rng.integers(1, 9)):
            changed[i] = rng.integers(256)
        return bytes(changed)
    if way == 2:
        return data[:at] + JUNK[rng.integers(len(JUNK))] + data[at:]
    if way == 3:
        return data[:at] + data[to:]
    if way == 4:
        return data[:at] + data[at:to] * 2 + data[to:]
    if way == 5:
        rng.shuffle(lines)
        return b"".join(lines[: len(lines) - rng.integers(2)])
    if way == 6:
        return b"".join(line * (1 + rng.integers(2)) for line in lines)
    if way == 7 and tags:
        tag = tags[rng.integers(len(tags))]
        return data[: tag.start()] + data[tag.end() :]
    if way == 8:
        return [b"", b"\n", b"\0" * 200, b"[]", b"{}", b"null", b"1", b"<a/>"][rng.integers(8)]
    if numbers:
        number = numbers[rng.integers(len(numbers))]
        return data[: number.start()] + NASTY[rng.integers(len(NASTY))] + data[number.end() :]
    return data[::-1]


def damage_json(data, rng):
    """Replace, remove or repeat a value somewhere in a JSON document."""
    document = json.loads(data)
    places = []

    def walk(node):
        keys = node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        for key in keys:
            places.append((node, key))
            walk(node[key])

    walk(document)
    node, key = places[rng.integers(len(places))]
    way = rng.integers(4)
    if way == 0:
        del node[key]
    elif way == 1 and isinstance(node, list):
        node.append(node[key])
    elif way == 2:
        deep = node[key]
        for _ in range(int(rng.integers(1, 900))):
            deep = [deep]
        node[key] = deep
    else:
        node[key] = VALUES[rng.integers(len(VALUES))]
    return json.dumps(document).encode()
