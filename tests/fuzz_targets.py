"""What `fuzz.py` fuzzes: the readers, small valid files to begin with, and changes that keep a format's structure.

A target is read in a folder of valid files, see `damage.write_files`, one of which is replaced by the input. Structure
is kept where plain bytes get nowhere: values of JSON, texts of XML and lists, members of archives, chunks of PNG with
their checksums, operations of pickles, columns of Parquet, the header of safetensors.
"""

from __future__ import annotations

import io
import json
import pickletools
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from builders import noise_image
from damage import CLASSES, IDS, NAMES, damage, damage_json
from PIL import Image
from scipy.io import savemat

from inception_rcnn.backbone.weights.caffe import read_caffemodel
from inception_rcnn.backbone.weights.model_file import GRAPHS, RegionModel, read_model, write_model
from inception_rcnn.backbone.weights.published import load_imagenet
from inception_rcnn.data import (
    AnnotationError,
    ImageError,
    find_images_in,
    read_coco,
    read_coco_ids,
    read_coco_results,
    read_detection_entries,
    read_detections,
    read_ilsvrc,
    read_ilsvrc_blacklist,
    read_ilsvrc_list,
    read_ilsvrc_results,
    read_matlab,
    read_meta_det,
    read_proposals,
    read_voc,
    read_voc_results,
)
from inception_rcnn.data.class_measures import ClassMeasure
from inception_rcnn.data.formats.yolo import find_yolo, read_yolo, read_yolo_names
from inception_rcnn.data.images.reading import decode_image
from inception_rcnn.data.score_calibration import ScoreCalibration
from inception_rcnn.proposals.calibration import RankingCalibration
from inception_rcnn.proposals.multibox.file import MultiBoxModel, read_multibox, write_multibox

Random = np.random.Generator
Mutate = Callable[[bytes], bytes]  # of bytes that have no known structure
MAX_PIXELS = 1_000_000  # of a picture to decode; larger ones may take long
NUMBERS = {"000001": 1, "000002": 2}
_PNG = b"\x89PNG\r\n\x1a\n"


class Target(NamedTuple):
    """A reader and the file that it reads.

    Attributes
    ----------
    file : str
        Where the input goes, in a folder of valid files; what is there is a seed.
    read : callable
        Reads the file; is given the folder.
    change : callable
        Changes an input and keeps its structure. Is given the input, random numbers and what changes plain bytes.
    seeds : callable
        More valid files.
    """

    file: str
    read: Callable[[Path], object]
    change: Callable[[bytes, Random, Mutate], bytes]
    seeds: Callable[[], Iterator[bytes]] = lambda: iter(())


# Readers


def _read_picture(root: Path) -> None:
    image = decode_image(root / "picture.tga", MAX_PIXELS).image
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert image.flags.c_contiguous
    assert image.flags.writeable
    assert 0 < image.shape[0] * image.shape[1] <= MAX_PIXELS, "has more pixels than it may have"


def _read_lists(root: Path) -> None:
    read_ilsvrc_list(root / "val.txt")
    read_ilsvrc(root / "ilsvrc", root / "val.txt", CLASSES)


def _read_document(root: Path) -> None:
    for key in ("stem", "image_id", "file_name"):
        read_detections(root / "detections.json", key)  # type: ignore[arg-type]
    read_detection_entries(root / "detections.json")


def _read_table(root: Path) -> None:
    read_detections(root / "detections.parquet")
    read_detection_entries(root / "detections.parquet")


def _yolo(name: str) -> Callable[[Path], object]:
    def read(root: Path) -> None:
        names_file = find_yolo(root / name)
        if names_file is None:
            raise AnnotationError(f"{root / name / 'data.yaml'}: not in YOLO's layout")
        read_yolo(names_file, read_yolo_names(names_file))

    return read


def _read_coco(root: Path) -> None:
    read_coco_ids(root / "instances.json")
    read_coco(root / "instances.json", root, NAMES)


def _read_model(root: Path) -> None:
    model = read_model(root / "model.safetensors")
    assert len(model.trunk_sha256) == 64
    assert model.has_int8 in (True, False)


def _proposals(suffix: str) -> Callable[[Path], object]:
    return lambda root: list(read_proposals(root / f"proposals{suffix}"))


def _members(name: str) -> Callable[[Path], object]:
    def read(root: Path) -> None:
        errors = []
        for member in find_images_in(root / name):
            assert len(str(member)) < len(str(root)) + 700
            try:
                decode_image(member, MAX_PIXELS)
            except ImageError as error:
                errors.append(error)
        if errors:
            raise errors[-1]

    return read


def _imagenet(suffix: str) -> Callable[[Path], object]:
    return lambda root: load_imagenet(root / f"weights{suffix}")


# Seeds


def _pictures() -> Iterator[bytes]:
    """Pictures in all formats, modes and compressions that Pillow can write and read."""
    Image.init()
    picture = Image.fromarray(noise_image(0, 24, 17))
    options: dict[str, list[dict[str, Any]]] = {
        "JPEG": [{"progressive": True}, {"restart_marker_blocks": 2}, {"exif": _exif()}, {"quality": 98}],
        "TIFF": [{"compression": name} for name in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits", "group4")],
        "GIF": [{"save_all": True, "append_images": [picture.transpose(Image.Transpose.ROTATE_180)]}],
        "PNG": [{"save_all": True, "append_images": [picture]}, {"exif": _exif(), "dpi": (72, 72)}],
        "WEBP": [{"lossless": True}, {"exif": _exif()}],
        "TGA": [{"compression": "tga_rle"}],
        "JPEG2000": [{"irreversible": True}, {"no_jp2": True}],
        "DDS": [{"pixel_format": name} for name in ("DXT1", "DXT5", "BC5")],
    }
    for kind in sorted({*Image.SAVE} & {*Image.OPEN}):
        for mode in ("RGB", "1", "L", "P", "RGBA", "LA", "CMYK", "I;16", "I", "F"):
            for more in [{}, *options.get(kind, [])] if mode in ("RGB", "1") else [{}]:
                file = io.BytesIO()
                with suppress(Exception), warnings.catch_warnings():  # a mode that the format does not have
                    warnings.simplefilter("ignore")
                    picture.convert("L" if mode == "I;16" else mode).convert(mode).save(file, kind, **more)
                    yield file.getvalue()
    deep = np.arange(64 * 64 * 3, dtype=np.uint16).reshape(64, 64, 3)
    for suffix in (".png", ".tif", ".jp2"):
        yield bytes(cv2.imencode(suffix, deep)[1])


def _exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


def _matlab_files() -> Iterator[bytes]:
    fields = [("ILSVRC2014_DET_ID", float), ("WNID", object), ("name", object)]
    synsets = np.array([(i, *pair) for i, pair in enumerate(CLASSES.items(), 1)], fields)
    cells = np.empty((1, 2), object)
    cells[0, 0], cells[0, 1] = np.ones((2, 4)), np.array(["ab", "cd"])
    for compressed in (False, True):
        file = io.BytesIO()
        savemat(file, {"synsets": synsets, "cells": cells, "one": {"a": np.int8([1, 2])}}, do_compression=compressed)
        yield file.getvalue()


def _models(folder: Path) -> None:
    """Write a detector, a MultiBox and weights of GoogLeNet with too few layers, all small."""
    weights = {name: np.ones((2, 3), np.float16) for name in ("googlenet.conv1.weight", "first_pass.weight")}
    graphs = {name: b"\x08\x0a" for name in (*GRAPHS["shared"], "head.int8")}
    calibration = ScoreCalibration((1, 2), (0, 0.5), 0.4)
    measures = ClassMeasure(9, False, 0.5, 3), ClassMeasure(0, True, None, 0)
    about = {"calibration": calibration, "measures": measures}
    model = RegionModel(NAMES, 640, True, weights, graphs, "", {"epochs": 1}, **about)
    write_model(folder / "model.safetensors", model)
    priors, head = np.ones((2, 3, 2), np.float32), {"head.weight": np.ones((2, 3), np.float16)}
    multibox = MultiBoxModel(priors, 8, 640, head, b"a", b"", "0" * 64, RankingCalibration(), NAMES, {"epochs": 1})
    write_multibox(folder / "multibox.safetensors", multibox)
    arrays = {"conv1/7x7_s2.weight": np.ones((2, 3), np.float32), "conv1/7x7_s2.bias": np.ones(2, np.float32)}
    np.savez(folder / "weights.npz", **arrays)
    (folder / "weights.caffemodel").write_bytes(caffemodel("conv1/7x7_s2", [*arrays.values()]))


def _varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + _varint(value >> 7)


def caffemodel(name: str, arrays: list[np.ndarray]) -> bytes:
    """NetParameter with one layer: 100 the layer, of it 1 the name and 7 the blobs, of these 5 data and 7 the shape."""

    def block(field: int, data: bytes) -> bytes:
        return _varint(field << 3 | 2) + _varint(len(data)) + data

    blobs = [block(7, block(1, bytes(array.shape))) + block(5, array.tobytes()) for array in arrays]
    return block(100, block(1, name.encode()) + b"".join(block(7, blob) for blob in blobs))


def _small_picture() -> bytes:
    file = io.BytesIO()
    Image.fromarray(noise_image(0, 4, 3)).save(file, "PNG")
    return file.getvalue()


def _tar_files() -> Iterator[bytes]:
    """Tar files of all kinds that tarfile writes, with long names, a link and what is no picture."""
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
            for name in ("a/1.png", "2.json", f"{'d' * 90}/{'n' * 95}.jpg", "ü.png"):
                one = tarfile.TarInfo(name)
                one.size = len(data := _small_picture())
                tar.addfile(one, io.BytesIO(data))
            link = tarfile.TarInfo("link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "a/1.png"
            tar.addfile(link)
        yield file.getvalue()


def _picture_tables() -> Iterator[bytes]:
    data = _small_picture()
    for columns in (
        {"image": [{"bytes": data, "path": f"{i}.png"} for i in range(3)], "n": [1, 2, 3]},
        {"image": [data, None, b""], "file": ["a.png", "a.png", None]},
    ):
        for options in ({}, {"row_group_size": 2, "compression": "zstd", "use_dictionary": False}):
            file = io.BytesIO()
            pq.write_table(pa.table(columns), file, **options)
            yield file.getvalue()


# Changes


def _change_text(data: bytes, rng: Random, mutate: Mutate) -> bytes:
    return damage(data, rng)


def _change_json(data: bytes, rng: Random, mutate: Mutate) -> bytes:
    try:
        return damage_json(data, rng)
    except Exception:  # It is no JSON any more.
        return damage(data, rng)


def _change_bytes(data: bytes, rng: Random, mutate: Mutate) -> bytes:
    return mutate(data)


def _change_picture(data: bytes, rng: Random, mutate: Mutate) -> bytes:
    if not data.startswith(_PNG):
        return mutate(data)
    chunks, at = [], len(_PNG)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks:
        return mutate(data)
    which = rng.integers(len(chunks))
    name, content = chunks[which]
    if name == b"IDAT" and rng.integers(2):
        with suppress(zlib.error):
            content = zlib.decompress(content)
            chunks[which] = name, zlib.compress(mutate(content))
    elif rng.integers(8) == 0:
        chunks.insert(rng.integers(len(chunks)), (name, content))
    else:
        chunks[which] = name, mutate(content)
    parts = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    return _PNG + b"".join(parts)


def _change_archive(data: bytes, rng: Random, mutate: Mutate) -> bytes:
    """Change a member of a .npz: its header, which is text, or its numbers; leave it out, or have it twice."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(one.filename, archive.read(one)) for one in archive.infolist()]
        which = rng.integers(len(members))
        name, content = members[which]
    except Exception:
        return mutate(data)
    way = rng.integers(8)
    if way == 0:
        del members[which]
    elif way == 1:
        members.append((name, content))
    elif way < 6:
        head = damage(content[10:128], rng)
        length = struct.pack("<H", len(head))
        members[which] = name, content[:8] + length + head + content[128:]
    else:
        members[which] = name, mutate(content)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if rng.integers(2) else zipfile.ZIP_STORED) as archive:
        for name, content in members:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of two of the same name
                archive.writestr(name, content)
    return file.getvalue()


def _change_pickle(data: bytes, rng: Random, mutate: Mutate) -> bytes:
    """Leave out, repeat, move or replace operations of a pickle."""
    starts: list[int] = []
    with suppress(Exception):
        starts = [at for _, _, at in pickletools.genops(data) if at is not None]
    if len(starts) < 3:
        return mutate(data)
    parts = [data[start:end] for start, end in zip(starts, [*starts[1:], len(data)], strict=True)]
    for _ in range(rng.integers(1, 4)):
        at, other = rng.integers(0, len(parts), 2)
        way = rng.integers(4)
        if way == 0:
            parts[at] = b""
        elif way == 1:
            parts[at] = parts[other]
        elif way == 2:
            parts.insert(at, parts[other])
        else:
            parts[at] = [b"N", b"(", b"0", b"2", b"]", b"}", b"t", b"K\x03", b"I99999999999\n", b"h\x01"][
                rng.integers(10)
            ]
    return b"".join(parts)


def _change_tar(data: bytes, rng: Random, mutate: Mutate) -> bytes:
    """Change a field of a header and correct its checksum, or leave out, repeat or change a block."""
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    headers = [i for i, one in enumerate(blocks) if one[257:262] == b"ustar"]
    way = rng.integers(6)
    if way == 0 or not headers:
        return mutate(data)
    if way == 1:
        at = rng.integers(len(blocks))
        blocks[at : at + 1] = [blocks[at]] * int(rng.choice([0, 2]))
        return b"".join(blocks)
    at = rng.choice(headers)
    fields = ((0, 100), (124, 136), (124, 136), (156, 157), (157, 257), (263, 265), (345, 500))
    start, end = fields[rng.integers(len(fields))]
    sizes = [b"\xff" * 12, b"\x80" + b"\xff" * 11, b"77777777777\0", b"00000000000\0", b"00000001000\0"]
    kinds = [b"L", b"K", b"x", b"g", b"S", b"1", b"5", b"0", b"7", b"\xff"]
    drawn = {124: sizes, 156: kinds}.get(start)
    new = drawn[rng.integers(len(drawn))] if drawn else mutate(blocks[at][start:end])
    head = blocks[at][:start] + new[: end - start].ljust(end - start, b"\0") + blocks[at][end:]
    total = sum(head[:148]) + 8 * 32 + sum(head[156:])
    blocks[at] = head[:148] + b"%06o\0 " % total + head[156:]
    return b"".join(blocks)


def _columns(rng: Random, rows: int) -> pa.Array:
    """Draw a column of a type that proposals may or may not have."""
    half = rows // 2
    numbers = [rng.choice([0.0, 1.0, -1.0, 1e39, np.nan, 5e8]) for _ in range(rows)]
    drawn = [
        lambda: pa.nulls(rows),
        lambda: pa.array(numbers, pa.float64()),
        lambda: pa.array([None] * half + [1] * (rows - half), pa.int64()),
        lambda: pa.array([2**62] * rows, pa.uint64()),
        lambda: pa.array(["1"] * rows, rng.choice([pa.string(), pa.large_string()])),
        lambda: pa.array([b"\xff"] * rows, pa.binary()),
        lambda: pa.array([True] * rows),
        lambda: pa.array([[[1.0, 2.0, 3.0, 4.0]] * int(rng.integers(3))] * rows),
        lambda: pa.array([[[1.0, 2.0, None, 4.0]]] * rows),
        lambda: pa.array([[[1.0, 2.0, 3.0]]] * rows),
        lambda: pa.array([[[[1.0]], None]] * rows),
        lambda: pa.array([[1.0, None]] * half + [None] * (rows - half), pa.list_(pa.float32())),
        lambda: pa.array([numbers] * rows, pa.large_list(pa.float64())),
        lambda: pa.array([[1.0, 0.5]] * rows, pa.list_(pa.float16(), 2)),
        lambda: pa.array([{"a": 1}] * rows),
        lambda: pa.array(["a"] * rows).dictionary_encode(),
        lambda: pa.array([0] * rows, pa.timestamp("us")),
    ]
    return drawn[rng.integers(len(drawn))]()


def _change_parquet(data: bytes, rng: Random, mutate: Mutate) -> bytes:
    if rng.integers(3) == 0:
        return mutate(data)
    try:
        table = pq.read_table(io.BytesIO(data))
        name = table.column_names[rng.integers(table.num_columns)]
        at = table.column_names.index(name)
        if rng.integers(8) == 0:
            table = table.append_column(name, table.column(name))
        else:
            table = table.set_column(at, name, _columns(rng, table.num_rows))
        file = io.BytesIO()
        pq.write_table(table, file, use_dictionary=bool(rng.integers(2)))
        return file.getvalue()
    except Exception:
        return mutate(data)


def _change_safetensors(data: bytes, rng: Random, mutate: Mutate) -> bytes:
    """Change the JSON in front of the tensors, or the JSON that is a text in it."""
    start = 8 + int.from_bytes(data[:8], "little")
    way = rng.integers(6)
    if way == 0:
        return mutate(data)
    try:
        header = json.loads(data[8:start])
        if way < 5:
            key, text = next(iter(header["__metadata__"].items()))
            header["__metadata__"][key] = _change_json(text.encode(), rng, mutate).decode(errors="replace")
            changed = json.dumps(header).encode()
        else:
            changed = damage_json(data[8:start], rng)
    except Exception:
        return mutate(data)
    return len(changed).to_bytes(8, "little") + changed + data[start:]


def _change_matlab(data: bytes, rng: Random, mutate: Mutate) -> bytes:
    """Change what is behind the header, which only says that it is of MATLAB 5."""
    return data[:128] + mutate(data[128:])


def write_seeds(root: Path) -> None:
    """Write the valid files that `damage.write_files` does not write."""
    _models(root)
    Image.fromarray(noise_image(0, 24, 17)).save(root / "picture.tga")
    root.joinpath("variables.mat").write_bytes(next(_matlab_files()))
    for folder in ("yolo", "yolo-settings"):  # The second has no labels, so that no error is of these.
        for kind in ("images", "labels"):
            (root / folder / kind).mkdir(parents=True)
        Image.fromarray(noise_image(0, 24, 17)).save(root / folder / "images/a.png")
        root.joinpath(folder, "data.yaml").write_text("train: images\nval: images\nnames: [cat, dog]\n")
    root.joinpath("yolo/labels/a.txt").write_text("0 0.5 0.5 0.25 0.5\n1 0.1 0.1 0.9 0.1 0.9 0.9\n")
    root.joinpath("pictures.tar").write_bytes(next(_tar_files()))
    root.joinpath("pictures.parquet").write_bytes(next(_picture_tables()))


TARGETS = {
    "picture": Target("picture.tga", _read_picture, _change_picture, _pictures),
    "voc": Target(f"voc/Annotations/{IDS[0]}.xml", lambda root: read_voc(root / "voc", "test", NAMES), _change_text),
    "voc-split": Target("voc/ImageSets/Main/test.txt", lambda root: read_voc(root / "voc", "test"), _change_text),
    "voc-results": Target(
        "results/comp4_det_test_cat.txt", lambda root: read_voc_results(root / "results", NAMES), _change_text
    ),
    "ilsvrc-list": Target("val.txt", _read_lists, _change_text),
    "ilsvrc-blacklist": Target(
        "blacklist.txt", lambda root: read_ilsvrc_blacklist(root / "blacklist.txt", NUMBERS, CLASSES), _change_text
    ),
    "ilsvrc-results": Target(
        "results.txt", lambda root: read_ilsvrc_results(root / "results.txt", NUMBERS, CLASSES), _change_text
    ),
    "matlab": Target("variables.mat", lambda root: read_matlab(root / "variables.mat"), _change_matlab, _matlab_files),
    "meta-det": Target(
        "meta_det.mat", lambda root: read_meta_det(root / "meta_det.mat"), _change_matlab, _matlab_files
    ),
    "coco": Target("instances.json", _read_coco, _change_json),
    "coco-results": Target(
        "list.json", lambda root: read_coco_results(root / "list.json", root / "instances.json"), _change_json
    ),
    "detections": Target("detections.json", _read_document, _change_json),
    "detections-parquet": Target("detections.parquet", _read_table, _change_parquet),
    "yolo-labels": Target("yolo/labels/a.txt", _yolo("yolo"), _change_text),
    "yolo-settings": Target("yolo-settings/data.yaml", _yolo("yolo-settings"), _change_text),
    "proposals-json": Target("proposals.json", _proposals(".json"), _change_json),
    "proposals-npz": Target("proposals.npz", _proposals(".npz"), _change_archive),
    "proposals-mat": Target("proposals.mat", _proposals(".mat"), _change_matlab),
    "proposals-pkl": Target("proposals.pkl", _proposals(".pkl"), _change_pickle),
    "proposals-parquet": Target("proposals.parquet", _proposals(".parquet"), _change_parquet),
    "pictures-tar": Target("pictures.tar", _members("pictures.tar"), _change_tar, _tar_files),
    "pictures-parquet": Target("pictures.parquet", _members("pictures.parquet"), _change_parquet, _picture_tables),
    "model": Target("model.safetensors", _read_model, _change_safetensors),
    "multibox": Target(
        "multibox.safetensors", lambda root: read_multibox(root / "multibox.safetensors"), _change_safetensors
    ),
    "caffemodel": Target(
        "weights.caffemodel", lambda root: read_caffemodel(root / "weights.caffemodel"), _change_bytes
    ),
    "weights-npz": Target("weights.npz", _imagenet(".npz"), _change_archive),
}
