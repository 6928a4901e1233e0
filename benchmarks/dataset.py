"""Pictures a second of a training loop's data set: pictures alone, with proposals of a file, and augmented.

One process, one thread. All three read the same files, in the same order, in turn. The proposals are random boxes.

    python benchmarks/dataset.py VOCdevkit/VOC2007/JPEGImages [--pictures 200] [--boxes 1000] [--markdown]
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

# Before numpy and torch are imported: their thread pools are made once.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from tables import show
from torchvision.transforms import v2

from inception_rcnn.data import Proposals, find_images, read_image, write_proposals
from inception_rcnn.proposals import ProposalDataset


class Pictures:
    """Pictures alone."""

    def __init__(self, folder: Path, files: list[str]) -> None:
        self.folder, self.files = folder, files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(read_image(self.folder / self.files[index]))


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--boxes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    files = [path.relative_to(options.folder).as_posix() for path in find_images(options.folder)[: options.pictures]]
    entries = []
    for file in files:
        height, width = read_image(options.folder / file).shape[:2]
        ends = np.sort(rng.random((options.boxes, 2, 2)), axis=1).reshape(-1, 4) * [width, height, width, height]
        entries.append(Proposals(file, width, height, ends.astype(np.float32), np.linspace(1, 0, options.boxes)))
    with tempfile.TemporaryDirectory() as folder:
        write_proposals(f"{folder}/boxes.parquet", entries)
        boxes = f"{folder}/boxes.parquet"
        augment = v2.Compose([v2.RandomResizedCrop((448, 448), scale=(0.4, 1)), v2.RandomHorizontalFlip()])
        sets = {
            "pictures alone": Pictures(options.folder, files),
            f"with {options.boxes} boxes of a file": ProposalDataset(options.folder, boxes),
            "with boxes, cropped to 448 x 448 and flipped": ProposalDataset(options.folder, boxes, augment),
        }
    seconds: dict[str, list[float]] = {name: [] for name in sets}
    for _ in range(options.rounds):
        for name, dataset in sets.items():
            begin = time.process_time()
            for _ in torch.utils.data.DataLoader(dataset, batch_size=None):  # type: ignore[arg-type, var-annotated]
                pass
            seconds[name].append(time.process_time() - begin)
    show(
        f"{len(files)} pictures, one core",
        ["data set", "pictures a CPU second", "CPU ms a picture"],
        [
            [name, f"{len(files) / statistics.median(one):.0f}", f"{1000 * statistics.median(one) / len(files):.2f}"]
            for name, one in seconds.items()
        ],
        options.markdown,
    )


if __name__ == "__main__":
    main()
