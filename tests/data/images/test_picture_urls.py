"""Pictures at URLs: what is listed, what is read, and how it is told what cannot be."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from builders import noise_image, write_image

from inception_rcnn.data import ImageError, find_images, read_image
from inception_rcnn.data.errors import MissingPackageError, SettingError
from inception_rcnn.data.images.reading import read_stamped
from inception_rcnn.data.images.sources import stamp
from inception_rcnn.data.system.remote import list_stamps

pytest.importorskip("fsspec")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures and other files, as a data set has them."""
    root = tmp_path / "set"
    for seed, name in enumerate(["b.png", "a/2.png", "a/1.PNG", "a c/ü 3.png", ".hidden/4.png"]):
        write_image(root / name, noise_image(seed, 20 + seed, 10))
    (root / "notes.txt").write_text("no picture")
    return root


VISIBLE = ["a/1.PNG", "a/2.png", "a c/ü 3.png", "b.png"]


def test_folders_globs_and_lists_of_s3(folder: Path, s3) -> None:  # type: ignore[no-untyped-def]
    s3.put(folder, "s3://bucket/set")
    passed_over: Counter[str] = Counter()
    listed = [f"s3://bucket/set/{name}" for name in VISIBLE]
    assert find_images("s3://bucket/set", passed_over) == listed == find_images("s3://bucket/set/")
    assert passed_over == {".txt": 1}
    assert find_images("s3://bucket/set/a/*") == ["s3://bucket/set/a/1.PNG", "s3://bucket/set/a/2.png"]
    assert find_images("s3://bucket/**/[a2].png") == ["s3://bucket/set/a/2.png"]
    # What is named is taken, also twice, and not asked for if it is called like a picture.
    named = ["s3://bucket/set/b.png", "s3://bucket/absent.png", "s3://bucket/set", "s3://bucket/set/notes.txt"]
    assert find_images(named) == [named[0], named[1], *listed[:3], named[3]]
    s3.files.pipe_file("bucket/set/list.txt", f"a/2.png\n\n{folder}/b.png\ns3://bucket/set/b.png\n".encode())
    assert find_images("@s3://bucket/set/list.txt") == [
        "s3://bucket/set/a/2.png", folder / "b.png", "s3://bucket/set/b.png",
    ]  # fmt: skip
    for url, name in zip(listed, VISIBLE, strict=True):
        np.testing.assert_array_equal(read_image(url), read_image(folder / name))


def test_a_list_of_s3_has_all_pages(folder: Path, s3, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    s3.put(folder, "s3://bucket/set")
    s3.files.touch("bucket/set/empty folder/")
    monkeypatch.setattr(s3.files, "req_kw", {"MaxKeys": 2})
    stamps = dict(list_stamps("s3://bucket/set/"))
    assert sorted(stamps) == sorted(f"s3://bucket/set/{name}" for name in [*VISIBLE, ".hidden/4.png", "notes.txt"])
    assert all(stamp(url) == known for url, known in stamps.items())
    assert find_images("s3://bucket") == [f"s3://bucket/set/{name}" for name in VISIBLE]
    with s3.forbidding(), pytest.raises(PermissionError):
        list(list_stamps("s3://bucket/set/"))


def test_what_s3_refuses_is_one_line(folder: Path, s3) -> None:  # type: ignore[no-untyped-def]
    s3.put(folder, "s3://bucket/set")
    s3.files.pipe_file("bucket/empty.png", b"")
    for named, reason in {
        "s3://bucket/absent": "s3://bucket/absent: does not exist; check the name",
        "s3://absent/": "s3://absent/: does not exist; check the name",
        "s3://bucket/*.gif": r"s3://bucket/\*.gif: matches no file; check the pattern",
        "@s3://bucket/absent.txt": "s3://bucket/absent.txt: the list cannot be read .does not exist.; check its name",
    }.items():
        with pytest.raises(ImageError, match=f"^{reason}$"):
            find_images(named)
    for named, reason in {
        "s3://bucket/absent.png": "does not exist; check the name",
        "s3://absent/a.png": "does not exist; check the name",
        "s3://bucket/set": "cannot be read .is a folder.",
        "s3://bucket/empty.png": "is empty; copy or download it again",
        "s3://bucket/set/notes.txt": "is not a picture in a known format",
    }.items():
        with pytest.raises(ImageError, match=f"^{named}: {reason}"):
            read_image(named)
    with s3.forbidding():
        with pytest.raises(ImageError, match=r"^s3://bucket/set: cannot be read \(no permission: "):
            find_images("s3://bucket/set")
        with pytest.raises(ImageError, match=r"^s3://bucket/set/b.png: cannot be read \(no permission: "):
            read_image("s3://bucket/set/b.png")


def test_a_file_that_is_too_large_is_not_fetched(s3) -> None:  # type: ignore[no-untyped-def]
    s3.files.pipe_file("bucket/large.png", bytes(2**24 + 900))
    with pytest.raises(ImageError, match=r"has 16778116 bytes or more, the limit is 16778016\); make it smaller"):
        read_image("s3://bucket/large.png", max_pixels=100)


def test_a_changed_object_is_told_from_the_one_before(s3) -> None:  # type: ignore[no-untyped-def]
    url = "s3://bucket/a.png"
    assert stamp(url) == []
    s3.files.pipe_file(url, b"one")
    before = stamp(url)
    assert before
    assert before == stamp(url)
    s3.files.pipe_file(url, b"two")  # as large, in the same second
    assert stamp(url) != before


def test_http(folder: Path, http: tuple[str, Path]) -> None:
    address, served = http
    folder.rename(served / "set")
    root = f"{address}/set"
    assert find_images(f"{root}/a/") == [f"{root}/a/1.PNG", f"{root}/a/2.png"]
    assert len(find_images(f"{root}/")) == 4
    assert find_images(f"{root}/b.png?size=1.jpg") == [f"{root}/b.png?size=1.jpg"]
    image = read_image(served / "set/b.png")
    np.testing.assert_array_equal(read_image(f"{root}/b.png?size=1.jpg"), image)
    known, decoded = read_stamped(f"{root}/b.png")
    np.testing.assert_array_equal(decoded.image, image)
    assert known == stamp(f"{root}/b.png")
    (served / "forbidden.png").touch()
    for name, reason in {
        "absent.png": "does not exist; check the name",
        "forbidden.png": r"cannot be read \(no permission: 403",
        "set/notes.txt": "is not a picture in a known format",
    }.items():
        with pytest.raises(ImageError, match=f"^{address}/{name}: {reason}"):
            read_image(f"{address}/{name}")


def test_a_server_that_does_not_answer() -> None:
    pytest.importorskip("aiohttp")
    with pytest.raises(ImageError, match=r"cannot be read \(Cannot connect to host"):
        read_image("http://127.0.0.1:1/a.png")
    with pytest.raises(ImageError, match=r"cannot be read \(Cannot connect to host"):
        find_images("http://127.0.0.1:1/photos/")


def test_other_protocols(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_images(f"file://{folder}/") == [f"file://{folder}/{name}" for name in VISIBLE]
    np.testing.assert_array_equal(read_image(f"file://{folder}/b.png"), read_image(folder / "b.png"))
    with pytest.raises(SettingError, match=r"^nowhere://a.png: protocol not known: nowhere; "):
        find_images("nowhere://a.png")
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(MissingPackageError, match=r"^gs://bucket/a.png: Please install gcsfs"):
        find_images("gs://bucket/a.png")
