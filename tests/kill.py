"""Runs that are killed again and again give what an uninterrupted run gives, byte for byte.

    python tests/kill.py [--pictures 1000] [--kills 10] [--seed 0] [--cluster] [--task detect]

Small pictures, one of twenty broken, in twenty ways. `detect` and `propose` run over them once without interruption and
once killed by SIGKILL at random moments and started again. All that they write is compared, but for the times in
run.json; every broken file must be in the errors file once. --cluster runs both on a Ray cluster of this machine; what
they are compared with is a run without.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from builders import random_image, write_image
from PIL import Image

from inception_rcnn.backbone.weights.model_file import write_model

EVERY = 20  # Of so many pictures one is broken.


def _encoded(format: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(random_image(1)).save(file, format=format, **options)
    return file.getvalue()


def _png(width: int, height: int, depth: int = 8) -> bytes:
    """A PNG whose header promises any size, and whose pixels are those of one row."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


def _tiff(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, format="TIFF")
    return file.getvalue()


def _middle_removed(data: bytes) -> bytes:
    return data[: len(data) // 3] + bytes(64) + data[2 * len(data) // 3 :]


# Name of a kind -> what such a file holds.
BROKEN: dict[str, bytes] = {
    "empty.jpg": b"",
    "text.jpg": b"no picture\n",
    "page.jpg": b"<!DOCTYPE html><html><title>404 Not Found</title></html>",
    "random.png": random.Random(0).randbytes(5000),
    "cut.jpg": _encoded("JPEG")[:1500],
    "cut.png": _encoded("PNG")[:9000],
    "cut.webp": _encoded("WEBP", lossless=True)[:2000],
    "cut.bmp": _encoded("BMP")[:9000],
    "cut.gif": _encoded("GIF")[:800],
    "cut.tif": _encoded("TIFF")[:9000],
    "cut.jp2": _encoded("JPEG2000")[:300],
    "header.jpg": _encoded("JPEG")[:20],
    "header.png": _encoded("PNG")[:20],
    "hole.jpg": _middle_removed(_encoded("JPEG", quality=95)),
    "hole.png": _middle_removed(_encoded("PNG")),
    "huge.png": _png(60_000, 60_000),
    "flat.png": _png(0, 10),
    "row.png": _png(100, 100),
    "float.tif": _tiff(np.zeros((9, 9), np.float32)),
    "archive.jpg": b"PK\x03\x04" + bytes(300),
}


def make_pictures(folder: Path, count: int) -> set[str]:
    """Fill a folder with pictures and broken files, in two folders; the paths of the broken ones."""
    broken, kinds = set(), list(BROKEN)
    for i in range(count):
        inside = folder / f"{2 * i // count}"
        inside.mkdir(parents=True, exist_ok=True)
        if i % EVERY == EVERY // 2:
            kind = kinds[i // EVERY % len(kinds)]
            path = inside / f"{i:06d}-{kind}"
            path.write_bytes(BROKEN[kind])
            broken.add(str(path))
        else:
            write_image(inside / f"{i:06d}.jpg", random_image(i, 60 + i % 50, 50 + i % 40))
    return broken


def contents(folder: Path) -> dict[str, bytes]:
    """All that a run wrote, but the times."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in ("run.json", "report.html"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def run_killed(command: list[str], journal: Path, moments: list[int], wait: Callable[[], float]) -> list[int]:
    """Run a command until it ends by itself, killed whenever its journal has so many bytes; the sizes then."""
    sizes = []
    for moment in [*moments, sys.maxsize]:
        told = tempfile.TemporaryFile()  # noqa: SIM115 - what Ray leaves behind may write to it for longer
        run = subprocess.Popen(command, stderr=told, start_new_session=True)
        while run.poll() is None:
            size = journal.stat().st_size if journal.exists() else 0
            if size >= moment:
                time.sleep(wait())
                run.send_signal(signal.SIGKILL)
                if run.wait() == -signal.SIGKILL:
                    sizes.append(size)
            time.sleep(0.005)
        told.seek(0)
        assert run.returncode in (0, -signal.SIGKILL), f"{command}: status {run.returncode}\n{told.read().decode()}"
        if run.returncode == 0:
            break
    return sizes


def run_whole(command: list[str], journal: Path) -> int:
    """Run a command and return how large its journal became."""
    largest = 0
    run = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while run.poll() is None:
        largest = max(largest, journal.stat().st_size if journal.exists() else 0)
        time.sleep(0.02)
    assert run.returncode == 0, f"exit status {run.returncode}: {command}"
    return largest


def main() -> None:
    """Compare, and print a line a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cluster", action="store_true")
    parser.add_argument("--task", choices=("detect", "propose"), help="only this command")
    arguments = parser.parse_args()
    from random_model import random_model

    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        model = root / "random.safetensors"
        write_model(model, random_model())
        broken = make_pictures(root / "photos", arguments.pictures)
        search = ["--method", "selective-search"]
        tasks = {
            "detect": ("out", "out/journal", "out/errors.jsonl", ["--model", model, "--proposals", "12", *search]),
            "propose": ("a.parquet", "a.journal", "a.errors.jsonl", ["--mode", "single", "--workers", "2", *search]),
        }
        for task, (output, journal, errors, options) in tasks.items():
            if arguments.task not in (None, task):
                continue
            whole, killed = root / f"{task}-whole", root / f"{task}-killed"
            whole.mkdir()
            killed.mkdir()
            program = [sys.executable, "-m", "inception_rcnn.detect.cli.app", task, root / "photos", *options]
            size = run_whole([*map(str, program), "--output", str(whole / output)], whole / journal)
            moments = sorted(draw.randrange(size) for _ in range(arguments.kills))
            command = [*map(str, program), "--output", str(killed / output)]
            command += ["--cluster"] if arguments.cluster else []
            sizes = run_killed(command, killed / journal, moments, lambda: draw.random() / 20)
            told = [json.loads(line)["file"] for line in (killed / errors).read_text().splitlines()]
            assert sorted(told) == sorted(broken), f"{task}: not every broken file is told once"
            assert contents(whole) == contents(killed), f"{task}: the results differ"
            at = ", ".join(f"{100 * one / size:.0f}" for one in sizes)
            print(
                f"{task}{' --cluster' if arguments.cluster else ''}: {arguments.pictures} pictures, {len(broken)} "
                f"broken; killed {len(sizes)} times, when {at} % were done; all equal",
                flush=True,
            )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
