"""What a run tells of files that it read, repaired or refused."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from inception_rcnn.data import find_images
from inception_rcnn.data.errors import SettingError
from inception_rcnn.detect.runs.proposing import propose_pictures


class WholePicture:
    """Proposes the whole picture."""

    def __init__(self):
        self.settings = {}

    def search(self, image, name):
        height, width = image.shape[:2]
        return np.array([[0, 0, width, height]], np.float32), np.ones(1, np.float32)

    def propose(self, features, searched, name):
        return searched

    def has_objectness(self, classes):
        return False

    def __call__(self, image, name=None):
        return self.search(image, name)


def test_repairs_and_further_frames_are_told_also_after_an_interruption(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8))
    picture.save(photos / "pages.tif", save_all=True, append_images=[picture])
    picture.save(photos / "cut.jpg")
    (photos / "cut.jpg").write_bytes((photos / "cut.jpg").read_bytes()[:-2])
    picture.resize((50, 40)).save(photos / "large.png")
    paths = [*find_images(photos), tmp_path / ("n" * 300 + ".jpg")]

    def interrupt(done):
        if done == 3:
            raise KeyboardInterrupt

    output = tmp_path / "boxes.npz"
    with pytest.raises(KeyboardInterrupt):
        propose_pictures(paths, output, WholePicture(), max_pixels=1200, progress=interrupt)
    summary = propose_pictures(paths, output, WholePicture(), max_pixels=1200)
    assert summary.resumed > 0
    assert (summary.pictures, summary.failed, summary.retryable) == (2, 2, 0)
    assert (summary.repaired, summary.more_frames) == (1, 1)
    told = [json.loads(line) for line in output.with_suffix(".errors.jsonl").read_text().splitlines()]
    lines = {os.path.basename(line["file"]): line for line in told}
    assert lines["cut.jpg"]["kind"] == "DataWarning"
    assert lines["cut.jpg"]["message"].startswith(f"{photos}/cut.jpg: its end mark is missing")
    assert "more than the limit of 1200" in lines["large.png"]["message"]
    assert set(lines) == {"cut.jpg", "large.png", paths[-1].name}
    assert "1 file has more than one frame; the first was read" in summary.closing_lines(output)


@pytest.mark.parametrize("kind", [str, lambda folder: folder])
def test_one_name_is_not_a_list_of_pictures(tmp_path, kind):
    with pytest.raises(SettingError, match="give a list of files, as find_images"):
        propose_pictures(kind(tmp_path), tmp_path / "boxes.npz", WholePicture())
