"""Pictures with proposals in a training loop: boxes follow what transforms do to the picture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from inception_rcnn.data import Proposals, write_proposals
from inception_rcnn.data.errors import ImageError, ProposalFileError, SettingError
from inception_rcnn.proposals import ProposalDataset, SelectiveSearch

torch = pytest.importorskip("torch")
v2 = pytest.importorskip("torchvision.transforms.v2")

SIZE = (80, 60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six black pictures with a white rectangle each, and a file whose second box is around that."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos" / "inner").mkdir(parents=True)
    entries = []
    for i in range(6):
        x, y, w, h = rng.integers((0, 0, 16, 16), (40, 30, 40, 30))
        pixels = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
        pixels[y : y + h, x : x + w] = 255
        name = f"inner/{i}.png" if i % 2 else f"{i}.png"
        cv2.imwrite(str(tmp_path / "photos" / name), pixels)
        boxes = np.float32([[0, 0, *SIZE], [x, y, x + w, y + h], [0, 0, 4, 4]])
        entries.append(Proposals(name, *SIZE, boxes, np.float32([0.9, 0.5, 0.1])))
    write_proposals(tmp_path / "boxes.parquet", entries)
    return tmp_path


def around_white(image: torch.Tensor) -> list[int]:
    """The box of what is white."""
    rows, columns = torch.where(image[0] > 127)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


def test_pictures_and_boxes_of_a_file(folder: Path) -> None:
    dataset = ProposalDataset(folder / "photos", folder / "boxes.parquet")
    assert len(dataset) == 6
    assert [dataset[i][1]["file"] for i in (0, 1, -1)] == ["0.png", "inner/1.png", "inner/5.png"]
    with pytest.raises(IndexError):
        dataset[6]
    for image, target in (dataset[i] for i in range(6)):
        assert (image.shape, image.dtype) == ((3, SIZE[1], SIZE[0]), torch.uint8)
        assert target["boxes"][1].int().tolist() == around_white(image)
        assert target["boxes"].dtype == target["scores"].dtype == torch.float32
    assert len(ProposalDataset(folder / "photos", folder / "boxes.parquet", limit=2)[0][1]["scores"]) == 2


@pytest.mark.parametrize(
    "transform",
    [
        v2.RandomHorizontalFlip(1),
        v2.RandomVerticalFlip(1),
        v2.Resize((120, 160)),
        v2.Compose([v2.RandomResizedCrop((96, 96), scale=(0.5, 1)), v2.RandomHorizontalFlip(0.5)]),
        v2.RandomCrop((40, 40)),
        v2.Pad(9),
    ],
)
def test_boxes_follow_what_is_done_to_the_picture(folder: Path, transform: object) -> None:
    torch.manual_seed(0)
    dataset = ProposalDataset(folder / "photos", folder / "boxes.parquet", transform)
    seen = 0
    for image, target in [dataset[i] for i in range(6)] * 3:
        boxes, scores = target["boxes"], target["scores"]
        height, width = image.shape[-2:]
        assert boxes.canvas_size == (height, width)
        assert len(boxes) == len(scores)
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([width, height] * 2)).all()
        assert ((boxes[:, 2:] - boxes[:, :2]) >= 1).all()
        if 0.5 in scores and image.max() == 255:
            seen += 1
            (box,) = boxes[scores == 0.5]
            # Resizing blurs an edge by a pixel or two.
            assert np.abs(np.array(around_white(image)) - box.numpy()).max() <= 2
    assert seen >= 6


def test_a_loader_with_workers_and_a_proposer(folder: Path) -> None:
    dataset = ProposalDataset(folder / "photos", SelectiveSearch("single"), limit=5)
    assert dataset.files == sorted(dataset.files)
    loader = torch.utils.data.DataLoader(dataset, batch_size=3, num_workers=1, collate_fn=lambda batch: batch)
    batches = list(loader)
    assert [len(batch) for batch in batches] == [3, 3]
    image, target = batches[1][0]
    expected = SelectiveSearch("single", limit=5)(np.ascontiguousarray(image.numpy().transpose(1, 2, 0)))
    np.testing.assert_array_equal(target["boxes"], expected[0])
    np.testing.assert_array_equal(target["scores"], expected[1])


def test_mistakes(folder: Path) -> None:
    with pytest.raises(ProposalFileError, match=r"its picture '0\.png' is not in .*name the folder that `propose`"):
        ProposalDataset(folder, folder / "boxes.parquet")
    with pytest.raises(ProposalFileError):
        ProposalDataset(folder / "photos", folder / "none.parquet")
    (folder / "empty").mkdir()
    with pytest.raises(ImageError):
        ProposalDataset(folder / "empty", SelectiveSearch("single"))
    dataset = ProposalDataset(
        folder / "photos", folder / "boxes.parquet", lambda image, target: (image, target | {"boxes": [1]})
    )
    with pytest.raises(SettingError, match=r"use those of torchvision\.transforms\.v2"):
        dataset[0]
    (folder / "photos" / "0.png").write_bytes(b"no picture")
    with pytest.raises(ImageError):
        dataset[0]
