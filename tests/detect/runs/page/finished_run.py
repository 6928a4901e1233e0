"""Finished runs to make pages of, written without a detector."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from builders import make_detections, random_image, write_image

from inception_rcnn.data import Detections, write_detections

HOSTILE = "<img src=x onerror='window.hacked=1'>"
CLASSES = ("cat", "dog", f"</script><script>window.hacked=1</script>{HOSTILE}")
# Boxes (x1 y1 x2 y2), scores and labels by picture. At 0.5, three boxes in two pictures are shown.
FOUND: Mapping[str, list[tuple[list[float], float, int]]] = {
    "a.jpg": [([10, 10, 60, 50], 0.9, 0), ([30.25, 20.5, 90.125, 80.0625], 0.6, 1), ([5, 5, 20, 20], 0.2, 0)],
    "b 50 % #1?.png": [([0, 0, 40, 40], 0.7, 2), ([50, 40, 100, 80], 0.1, 1)],
    f"sub/{HOSTILE[1:].replace('/', '')}.jpg": [],
    'sub/10 "it\'s".JPG': [([20, 20, 50, 50], 0.3, 0)],
    "sub/9\nnewline.jpg": [],
}


def make_run(
    folder: Path,
    found: Mapping[str, list[tuple[list[float], float, int]]] = FOUND,
    photos: Path | None = None,
    name: str = "detections.parquet",
    draw_score: float = 0.5,
    recorded: Mapping[str, object] | None = None,
) -> Path:
    """Write what a run of detect leaves in a folder, pictures of 120 x 90 pixels included.

    What else is `recorded` in run.json takes the place of what is there.
    """
    photos = photos or folder.parent / "photos"
    entries: list[tuple[str, int, int, Detections]] = []
    for seed, (picture, rows) in enumerate(found.items()):
        if not (photos / picture).exists():
            write_image(photos / picture, random_image(seed))
        boxes, scores, labels = zip(*rows, strict=True) if rows else ((), (), ())
        entries.append((picture, 120, 90, make_detections(boxes, np.float32(scores), labels, CLASSES)))
        target = folder / "pictures" / (picture if picture.lower().endswith(".jpg") else f"{picture}.jpg")
        write_image(target, random_image(seed))
    write_detections(folder / name, entries, CLASSES)
    record = {
        "version": "0.3", "folder": f"{photos}/", "draw_score": draw_score, "pictures": len(found), "boxes": 6,
        "models": [{"device": "cpu", "precision": "float32"}], "detector": {"nms": "soft"},
        "settings": {
            "images": ["photos"], "model": ["voc", "<b>mine</b>"], "min_score": 0.05, "nms": "greedy", "only": ["dog"],
        },
        "seconds": {"read": 1.0, "wait for pictures": 0.5, "total": 4.0},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps({**record, **(recorded or {})}))
    failures = [{"file": str(photos / "bad.jpg"), "kind": "ImageError", "message": f"{HOSTILE}: is empty"}]
    (folder / "errors.jsonl").write_text("".join(json.dumps(one) + "\n" for one in failures))
    return folder
