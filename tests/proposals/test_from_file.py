"""Boxes that somebody computed before: found by the picture's name, clipped, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from inception_rcnn.data import Proposals, write_proposals
from inception_rcnn.data.errors import ProposalFileError, SettingError
from inception_rcnn.data.picture_names import as_text
from inception_rcnn.proposals import FileProposals
from inception_rcnn.proposals.proposer import check_ranked, propose_boxes

BOXES = np.array([[0, 0, 20, 10], [3, 3, 9, 9], [5, 2, 18, 8]], np.float32)
SCORES = np.array([0.9, 0.5, 0.1], np.float32)
IMAGE = np.zeros((10, 20, 3), np.uint8)


def entry(name: str, boxes: np.ndarray = BOXES, size: tuple[int, int] = (20, 10)) -> Proposals:
    return Proposals(name, *size, boxes, SCORES[: len(boxes)])


@pytest.mark.parametrize("suffix", ["parquet", "json", "mat", "pkl", "npz"])
def test_every_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"boxes.{suffix}"
    write_proposals(path, [entry("train/000005.jpg"), entry("train/000007.jpg", BOXES[1:2])])
    proposer = FileProposals.load(path)
    for name in ("000005.jpg", "train/000005.jpg", "elsewhere/000005.png"):
        boxes, scores = propose_boxes(proposer, IMAGE, name)
        np.testing.assert_array_equal(boxes, BOXES)
        assert (np.diff(scores) < 0).all()
    assert len(proposer(IMAGE, "000007.jpg")[0]) == 1
    assert not proposer.has_objectness(("cat",))
    assert FileProposals.load(path).settings == proposer.settings
    assert FileProposals.load(path, limit=2).settings != proposer.settings
    np.testing.assert_array_equal(FileProposals.load(path, limit=2)(IMAGE, "000005.jpg")[0], BOXES[:2])


def test_whole_numbers_as_ids_mean_names_with_zeros(tmp_path: Path) -> None:
    path = tmp_path / "boxes.pkl"
    names = ["000012.jpg", "2008_000001.jpg", "cat.jpg"]
    ids = {"000012.jpg": 12, "2008_000001.jpg": 2008000001, "cat.jpg": "7"}
    write_proposals(path, [entry(name, BOXES[: 3 - i]) for i, name in enumerate(names)], image_ids=ids)
    proposer = FileProposals.load(path)
    asked = ("VOC2007/000012.jpg", "12.png", "2008_000001.jpg")
    assert [len(proposer(IMAGE, name)[0]) for name in asked] == [3, 3, 2]
    for name in ("000013.jpg", "a12.jpg", "0_12_3.jpg"):
        with pytest.raises(ProposalFileError, match=f"no boxes for '{name}'"):
            proposer(IMAGE, name)
    # A file that has the name means it; a name with a suffix is no number.
    write_proposals(
        path, [entry("12.jpg"), entry("000012.jpg", BOXES[:1])], image_ids={"12.jpg": 12, "000012.jpg": "000012"}
    )
    assert len(FileProposals.load(path)(IMAGE, "000012.jpg")[0]) == 1
    write_proposals(tmp_path / "boxes.npz", [entry("12.jpg")])
    with pytest.raises(ProposalFileError, match="no boxes"):
        FileProposals.load(tmp_path / "boxes.npz")(IMAGE, "000012.jpg")


def test_folders_tell_pictures_of_one_name_apart(tmp_path: Path) -> None:
    path = tmp_path / "boxes.npz"
    write_proposals(path, [entry("a/1.jpg"), entry("b/1.jpg", BOXES[:1])])
    proposer = FileProposals.load(path)
    assert [len(proposer(IMAGE, name)[0]) for name in ("a/1.jpg", "b/1.png", "b\\1.png")] == [3, 1, 1]
    with pytest.raises(ProposalFileError, match=r"several names that may be '1.jpg', such as 'a/1.jpg' and 'b/1.jpg'"):
        proposer(IMAGE, "1.jpg")


def test_boxes_are_clipped_to_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "boxes.npz"
    outside = np.array([[-5, -5, 30, 30], [25, 2, 30, 8], [2, 2, 8, 8]], np.float32)
    write_proposals(path, [entry("1.jpg", outside, (0, 0))])
    boxes, scores = FileProposals.load(path)(IMAGE, "1.jpg")
    assert boxes.tolist() == [[0, 0, 20, 10], [2, 2, 8, 8]]
    np.testing.assert_array_equal(scores, SCORES[[0, 2]])


def test_what_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "boxes.npz"
    write_proposals(path, [entry("1.jpg")])
    proposer = FileProposals.load(path)
    with pytest.raises(ProposalFileError, match=r"boxes.npz: has no boxes for '2.jpg'"):
        proposer(IMAGE, "2.jpg")
    with pytest.raises(ProposalFileError, match=r"at 20 x 10 pixels, and the picture '1.jpg' has 10 x 20"):
        proposer(IMAGE.transpose(1, 0, 2), "1.jpg")
    with pytest.raises(ProposalFileError, match="give the name"):
        proposer(IMAGE)
    with pytest.raises(SettingError, match="limit"):
        FileProposals.load(path, limit=0)
    with pytest.raises(ProposalFileError, match="no such file"):
        FileProposals.load(tmp_path / "absent.npz")


@pytest.mark.parametrize("suffix", ["mat", "pkl", "parquet"])
def test_names_with_dots_stay_whole(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"boxes.{suffix}"
    write_proposals(path, [entry("IMG.1.jpg"), entry("IMG.2.jpg", BOXES[:1])])
    proposer = FileProposals.load(path)
    assert [len(proposer(IMAGE, name)[0]) for name in ("IMG.1.jpg", "photos/IMG.2.jpg")] == [3, 1]
    with pytest.raises(ProposalFileError, match=r"no boxes for 'IMG.jpg'"):
        proposer(IMAGE, "IMG.jpg")


def test_a_suffix_tells_pictures_apart_where_nothing_else_does(tmp_path: Path) -> None:
    path = tmp_path / "boxes.npz"
    write_proposals(path, [entry("a.jpg"), entry("a.png", BOXES[:1])])
    assert [len(FileProposals.load(path)(IMAGE, name)[0]) for name in ("a.jpg", "a.png")] == [3, 1]


@pytest.mark.parametrize(
    ("boxes", "scores", "message"),
    [
        ([[0, 0, 9]], [1], r"boxes \(1, 3\) and scores \(1,\) do not fit"),
        ([[0, 0, 9, 9]], [1, 2], "do not fit"),
        ([[0, 0, 9, np.nan]], [1], "not a finite number"),
        ([[9, 0, 0, 9]], [1], "ends before it begins"),
        ([[0, 0, 9, 9], [0, 0, 5, 5]], [1, 2], "scores rise"),
    ],
)
def test_the_answer_of_a_proposer_is_checked(boxes: list, scores: list, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        check_ranked((boxes, scores))


def test_lists_become_arrays() -> None:
    boxes, scores = check_ranked(([[0, 0, 9, 9]], [1]))
    assert (boxes.dtype, scores.dtype) == (np.float32, np.float32)


def test_a_name_that_is_no_text_is_found(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\xfe.jpg")
    write_proposals(tmp_path / "a.json", [entry(as_text(name))])
    proposer = FileProposals.load(tmp_path / "a.json")
    assert len(proposer(np.zeros((10, 20, 3), np.uint8), name)[0]) == len(BOXES)
