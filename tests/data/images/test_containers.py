"""Pictures in Parquet and tar files: all are listed under names of their own, and each is read as it is."""

from __future__ import annotations

import io
import os
import pickle
import random
import re
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from socket import gethostname
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import make_picture, noise_image, write_image
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from inception_rcnn.data import ImageError, find_images_in, read_image
from inception_rcnn.data.errors import SettingError
from inception_rcnn.data.images.containers import Members, distinct_names
from inception_rcnn.data.images.sources import absolute_name, stamp
from inception_rcnn.detect.runs.failures import Failure, is_retryable
from inception_rcnn.detect.runs.stages import PictureOfRun, SearchWork
from inception_rcnn.detect.train.shards import Packing, pack_pictures, read_pixels, read_shards

LIMIT = 10**6


def encoded(seed: int, width: int = 12) -> bytes:
    file = io.BytesIO()
    Image.fromarray(noise_image(seed, width, 10)).save(file, "PNG")
    return file.getvalue()


PICTURES = [encoded(seed, 10 + seed) for seed in range(23)]


def write_table(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)
    return path


def write_tar(path: Path, members: list[tuple[str, bytes]], kind: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=kind) as tar:
        for name, data in members:
            one = tarfile.TarInfo(name)
            one.size = len(data)
            tar.addfile(one, io.BytesIO(data))
    return path


def names_of(members: Members) -> list[str]:
    return [members.name(i) for i in range(len(members))]


def contents(members: Members) -> list[bytes]:
    return [one.read(LIMIT) for one in members]


STRUCT = pa.struct({"bytes": pa.binary(), "path": pa.string()})
COLUMNS: dict[str, Callable[[], dict[str, Any]]] = {
    "bytes": lambda: {"image": PICTURES, "n": range(23)},
    "large bytes": lambda: {"photo": pa.array(PICTURES, pa.large_binary()), "n": range(23)},
    "struct": lambda: {"image": pa.array([{"bytes": one, "path": None} for one in PICTURES], STRUCT)},
    "other binary": lambda: {"mask": [b""] * 23, "image": PICTURES},
}


@pytest.mark.parametrize("options", [{}, {"row_group_size": 4}, {"use_dictionary": False, "compression": "zstd"}])
@pytest.mark.parametrize("columns", COLUMNS)
def test_rows_without_names_are_counted(tmp_path: Path, columns: str, options: dict[str, Any]) -> None:
    path = write_table(tmp_path / "set.parquet", {key: [*one] for key, one in COLUMNS[columns]().items()}, **options)
    members = find_images_in(path)
    assert names_of(members) == [str(i) for i in range(23)]
    assert contents(members) == PICTURES
    assert str(members[3]) == f"{path}::3"
    np.testing.assert_array_equal(read_image(members[3]), noise_image(3, 13, 10))


def test_names_of_rows(tmp_path: Path) -> None:
    rows = [{"bytes": one, "path": f"cats/{i}.png"} for i, one in enumerate(PICTURES[:3])]
    struct = write_table(tmp_path / "a.parquet", {"image": rows})
    assert names_of(find_images_in(struct)) == ["cats/0.png", "cats/1.png", "cats/2.png"]
    # As our own packed pictures, and the first name that is one.
    named = write_table(tmp_path / "b.parquet", {"file": ["x.jpg", None, "../y.jpg"], "image": PICTURES[:3]})
    assert names_of(find_images_in(named)) == ["x.jpg", "1", "_/y.jpg"]
    alike = write_table(tmp_path / "c.parquet", {"file": ["x.jpg"] * 3, "image": PICTURES[:3]})
    assert names_of(find_images_in(alike)) == ["0/x.jpg", "1/x.jpg", "2/x.jpg"]
    both = write_table(tmp_path / "d.parquet", {"image": PICTURES[:2], "mask": PICTURES[2:4]})
    assert contents(find_images_in(both, "mask")) == PICTURES[2:4]


def test_names_of_several_files_are_parted_where_they_must_be(tmp_path: Path) -> None:
    write_table(tmp_path / "set" / "a.parquet", {"file": ["1.png", "2.png"], "image": PICTURES[:2]})
    write_table(tmp_path / "set" / "b.parquet", {"file": ["3.png"], "image": PICTURES[2:3]})
    members = find_images_in(tmp_path / "set")
    assert names_of(members) == ["1.png", "2.png", "3.png"]
    assert members.folder == f"{tmp_path}/set/"
    write_tar(tmp_path / "set" / "c.tar", [("1.png", PICTURES[3])])
    write_tar(tmp_path / "set" / "b.tar", [("4.png", PICTURES[4])])
    members = find_images_in(tmp_path / "set")
    expected = ["a.parquet/1.png", "a.parquet/2.png", "b.parquet/3.png", "b.tar/4.png", "c.tar/1.png"]
    assert names_of(members) == expected
    assert contents(members) == [*PICTURES[:3], PICTURES[4], PICTURES[3]]
    # A picture's own name does not depend on the other files: a run goes on when some are added.
    assert str(members[4]) == f"{tmp_path}/set/c.tar::1.png"


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_pictures_of_a_tar_file(tmp_path: Path, kind: int) -> None:
    long, accented = f"{'d' * 90}/{'n' * 95}.JPG", "ü/1.png"
    members = [
        (long, PICTURES[0]), ("a/1.png", PICTURES[1]), ("a/1.json", b"{}"), ("a/._1.png", b"Apple"),
        (accented, PICTURES[2]), ("2.seg.png", PICTURES[3]), ("empty.png", b""),
    ]  # fmt: skip
    path = write_tar(tmp_path / "set.tar", members, kind)
    with tarfile.open(path, "a", format=kind) as tar:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "a/1.png"
        tar.addfile(link)
    found = find_images_in(path)
    assert names_of(found) == [long, "a/1.png", accented, "2.seg.png", "empty.png"]
    assert contents(found) == [*PICTURES[:4], b""]


def test_shards_of_webdataset(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.ShardWriter(f"{tmp_path}/shard-%04d.tar", maxcount=10, verbose=0) as writer:
        for i, data in enumerate(PICTURES):
            writer.write({"__key__": f"{i:05d}", "png": data, "cls": 1, "json": {"i": i}})
    members = find_images_in(f"{tmp_path}/shard-*.tar")
    assert names_of(members) == [f"{i:05d}.png" for i in range(23)]
    assert contents(members) == PICTURES


def test_packed_pictures_are_read_as_they_are(tmp_path: Path) -> None:
    pictures = [
        make_picture([[1, 1, 9, 9]], image_id=str(i), path=write_image(tmp_path / f"{i}.png", noise_image(i, 40, 30)))
        for i in range(20)
    ]
    pack_pictures(
        tmp_path / "packed", pictures, [], ["a"], Packing(64), progress=lambda *_: nullcontext(lambda done: None)
    )
    _, packed, _ = read_shards(tmp_path / "packed")
    members = find_images_in(tmp_path / "packed")
    assert names_of(members) == [f"{i}.png" for i in range(20)]
    for one, member in zip(packed, members, strict=True):
        np.testing.assert_array_equal(read_image(member), read_pixels(one))


@pytest.mark.parametrize("groups", [5, 23])
def test_rows_are_read_in_any_order_by_threads_and_elsewhere(tmp_path: Path, groups: int) -> None:
    path = write_table(tmp_path / "set.parquet", {"image": PICTURES}, row_group_size=groups)
    members = find_images_in(path)
    order = random.Random(0).choices(range(23), k=100)
    assert [members[i].read(LIMIT) for i in order] == [PICTURES[i] for i in order]
    with ThreadPoolExecutor(8) as pool:
        assert [*pool.map(lambda i: members[i].read(LIMIT), order)] == [PICTURES[i] for i in order]
    assert pickle.loads(pickle.dumps(members[7])).read(LIMIT) == PICTURES[7]
    loaded = members[7].loaded(LIMIT)
    os.remove(path)
    assert loaded.read(LIMIT) == PICTURES[7]


def test_a_picture_is_known_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(tmp_path / "set.tar", [("a.png", PICTURES[0])])
    monkeypatch.chdir(tmp_path)
    (member,) = find_images_in("set.tar")
    assert str(member) == "set.tar::a.png"
    assert absolute_name(member) == f"{tmp_path}/set.tar::a.png"


def test_a_changed_file_changes_all_stamps(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "set.tar", [("a.png", PICTURES[0]), ("b.png", PICTURES[1])])
    before = [stamp(one) for one in find_images_in(path)]
    assert before[0] != before[1]
    assert before == [stamp(one) for one in find_images_in(path)]
    os.utime(path, ns=(1, 1))
    assert not any(stamp(one) in before for one in find_images_in(path))


def test_rows_without_a_picture_have_an_error_each(tmp_path: Path) -> None:
    rows = [{"bytes": PICTURES[0], "path": "a.png"}, {"bytes": None, "path": "/elsewhere/b.png"}, None]
    members = find_images_in(write_table(tmp_path / "set.parquet", {"image": pa.array(rows, STRUCT)}))
    assert names_of(members) == ["a.png", "elsewhere/b.png", "2"]
    assert members[0].read(LIMIT) == PICTURES[0]
    for i in (1, 2):
        with pytest.raises(ImageError, match=f"{members.name(i)}: the row has no bytes of a picture$"):
            read_image(members[i])


def test_a_picture_that_is_too_large(tmp_path: Path) -> None:
    table = write_table(tmp_path / "set.parquet", {"image": [bytes(2**24 + 900), PICTURES[0]]})
    tar = write_tar(tmp_path / "set.tar", [("a.png", bytes(2**24 + 900)), ("b.png", PICTURES[0])])
    for path in (table, tar):
        members = find_images_in(path)
        with pytest.raises(ImageError, match=r"has 16778116 bytes, the limit is 16778016\); make it smaller"):
            read_image(members[0], max_pixels=100)
        assert members[1].read(LIMIT) == PICTURES[0]


REFUSED: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "absent.parquet": (lambda path: None, ImageError, "absent.parquet: does not exist"),
    "text.parquet": (lambda path: path.write_text("no"), ImageError, "text.parquet: is not Parquet, or damaged"),
    "text.tar": (lambda path: path.write_text("no" * 600), ImageError, "text.tar: is no tar file from some place on"),
    "set.tar.gz": (lambda path: path.touch(), ImageError, "set.tar.gz: is compressed"),
    "n.parquet": (
        lambda path: write_table(path, {"n": [1]}), SettingError, "no column has bytes of pictures; there is: n int64",
    ),
    "two.parquet": (
        lambda path: write_table(path, {"a": [b""], "b": [b""]}), SettingError, "name the column with the pictures",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_one_line(tmp_path: Path, name: str) -> None:
    write, error, reason = REFUSED[name]
    write(tmp_path / name)
    with pytest.raises(error, match=reason) as raised:
        find_images_in(tmp_path / name)
    assert "\n" not in str(raised.value)


def test_columns_that_are_no_pictures(tmp_path: Path) -> None:
    path = write_table(tmp_path / "set.parquet", {"image": [b""], "n": [1]})
    with pytest.raises(SettingError, match="has no column 'absent' with bytes of pictures; there is: image binary, n"):
        find_images_in(path, "absent")
    with pytest.raises(SettingError, match="its column 'n' does not have bytes, nor a struct of bytes and path"):
        find_images_in(path, "n")


def test_damaged_files_do_not_hide_the_others(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("a.png", PICTURES[0])])
    whole = write_tar(tmp_path / "b.tar", [(f"b{i}.png", PICTURES[i]) for i in range(3)]).read_bytes()
    (tmp_path / "b.tar").write_bytes(whole[:1024] + b"\x01" * 512 + whole[1536:])  # the second header
    (tmp_path / "c.parquet").write_bytes(b"PAR1")
    members = find_images_in(tmp_path)
    assert names_of(members) == ["a.png", "b0.png", "b.tar", "c.parquet"]
    assert members[0].read(LIMIT) == members[1].read(LIMIT) == PICTURES[0]
    for i, reason in {
        2: "b.tar: is no tar file from some place on",
        3: "c.parquet: is not Parquet, or damaged",
    }.items():
        with pytest.raises(ImageError, match=f"^{re.escape(str(tmp_path))}/{reason}"):
            read_image(members[i])


def test_a_tar_file_that_was_cut(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "set.tar", [("a.png", PICTURES[0]), ("b.png", PICTURES[1])])
    path.write_bytes(path.read_bytes()[: find_images_in(path)[1].position + 100])
    members = find_images_in(path)
    assert members[0].read(LIMIT) == PICTURES[0]
    with pytest.raises(ImageError, match=r"b.png: the tar file ends before the picture does"):
        members[1].read(LIMIT)
    with pytest.raises(ImageError, match=r"set.tar: is no tar file from some place on"):
        members[2].read(LIMIT)


def test_a_damaged_row_group_is_an_error_of_its_rows(tmp_path: Path) -> None:
    path = write_table(tmp_path / "set.parquet", {"image": PICTURES}, row_group_size=10, compression="zstd")
    data = bytearray(path.read_bytes())
    chunk = pq.read_metadata(path).row_group(1).column(0)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + chunk.total_compressed_size] = os.urandom(chunk.total_compressed_size)
    path.write_bytes(data)
    read = []
    for member in find_images_in(path):
        try:
            read.append(member.read(LIMIT))
        except ImageError as error:
            read.append(str(error).partition(": ")[2][:26].encode())
    assert read == [*PICTURES[:10], *[b"is not Parquet, or damaged"] * 10, *PICTURES[20:]]


@given(st.lists(st.none() | st.text(max_size=20)))
def test_names_are_distinct_paths_below_a_folder(names: list[str | None]) -> None:
    given_names = [name.encode(errors="replace").decode() if name is not None else None for name in names]
    made = [*distinct_names(given_names)]
    assert len(set(made)) == len(made) == len(names)
    for name in made:
        parts = name.split("/")
        assert not {"", ".", ".."} & {*parts}
        assert "\0" not in name


def test_containers_in_a_bucket(tmp_path: Path, s3) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "set"
    write_table(folder / "a.parquet", {"image": PICTURES[:20]}, row_group_size=6)
    write_tar(folder / "b.tar", [(f"{i}.png", PICTURES[i]) for i in (20, 21, 22)])
    s3.put(folder, "s3://bucket/set")
    members = find_images_in("s3://bucket/set/")
    assert contents(members) == PICTURES
    assert str(members[20]) == "s3://bucket/set/b.tar::20.png"
    assert (members.name(0), members.name(20), members.folder) == ("0", "20.png", "s3://bucket/set/")
    with pytest.raises(ImageError, match=r"s3://bucket/set/absent.tar: cannot be read .does not exist."):
        find_images_in("s3://bucket/set/absent.tar")
    with s3.forbidding(), pytest.raises(ImageError, match=r"cannot be read .no permission") as raised:
        read_image(members[21])
    assert isinstance(raised.value.__cause__, OSError)


class Timeout(Exception):
    """As that of botocore: no OSError."""


class Network:
    """Opens local files by their URLs; some reads fail."""

    def __init__(self) -> None:
        self.failing: list[bool] = []  # of the next reads; then none fails
        self.down = ""  # a URL that cannot be read at all

    def open(self, url: str) -> io.BytesIO:
        network = self

        class File(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                if url == network.down or (network.failing and network.failing.pop(0)):
                    raise Timeout("Read timeout on endpoint URL")
                return super().read(size)

        return File(Path(url.removeprefix("file://")).read_bytes())


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    network = Network()
    monkeypatch.setattr("inception_rcnn.data.images.containers.open_url", network.open)
    monkeypatch.setattr("inception_rcnn.data.images.containers._PAUSES", (0, 0))
    return network


@pytest.mark.parametrize("name", ["a.parquet", "a.tar"])
def test_a_network_that_fails_is_no_damage(tmp_path: Path, network: Network, name: str) -> None:
    write_tar(tmp_path / "other.tar", [("x.png", PICTURES[0])])
    if name == "a.tar":
        write_tar(tmp_path / name, [(f"{i}.png", one) for i, one in enumerate(PICTURES)])
    else:
        write_table(tmp_path / name, {"image": PICTURES})
    urls = [f"file://{tmp_path}/{name}", f"file://{tmp_path}/other.tar"]
    network.failing = [True]
    assert len(find_images_in(urls[0])) == 23
    # Down while the files are listed, and after that no more: the same command does the pictures.
    network.down = urls[0]
    members = find_images_in(urls)
    assert names_of(members) == [name, "x.png"]
    for down in (True, False):
        network.down = urls[0] if down else ""
        with pytest.raises(ImageError, match="Read timeout" if down else "the same command does them$") as raised:
            read_image(members[0])
        assert is_retryable(members[0], raised.value)


def test_a_row_that_the_network_did_not_bring_is_tried_again(tmp_path: Path, network: Network) -> None:
    path = write_table(tmp_path / "a.parquet", {"image": PICTURES}, row_group_size=5)
    members = find_images_in(f"file://{path}")
    members[0].read(LIMIT)
    network.failing = [True]
    with pytest.raises(ImageError, match=r"a.parquet::10: cannot be read .Read timeout") as raised:
        read_image(members[10])
    assert is_retryable(members[10], raised.value)
    assert contents(members) == PICTURES


def test_the_machine_is_named_only_where_a_container_is_missing(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("bad.png", b"no picture"), ("good.png", PICTURES[0])])
    members = find_images_in(path)
    work = SearchWork(None, 10**6, elsewhere=True)
    pictures = [PictureOfRun(i, one, str(one), one.name, "") for i, one in enumerate(members)]
    failed = work(pictures[0]).result
    assert isinstance(failed, Failure)
    assert not failed.retryable
    assert "on machine" not in failed.line["message"]
    path.unlink()
    failed = work(pictures[1]).result
    assert isinstance(failed, Failure)
    assert failed.retryable
    assert f"a.tar::good.png: does not exist; check the name; on machine {gethostname()}" in failed.line["message"]
