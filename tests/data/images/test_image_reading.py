import contextlib
import io
import math
import os
import re
import struct
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inception_rcnn.data import ImageError, find_images, read_image
from inception_rcnn.data.errors import SettingError
from inception_rcnn.data.images.reading import as_rgb


@pytest.fixture(scope="module")
def photo():
    """Smooth RGB noise, 37 x 23, which survives JPEG about unchanged."""
    small = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)
    return Image.fromarray(small).resize((37, 23), Image.Resampling.BILINEAR)


def pillow(path):
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_orientation_is_applied(tmp_path, photo, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo{suffix}"
    photo.save(path, exif=exif, lossless=True) if suffix == ".webp" else photo.save(path, exif=exif)
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    expected = Image.open(path).convert("RGB")
    if orientation in turn:
        expected = expected.transpose(turn[orientation])
    image = read_image(path)
    np.testing.assert_array_equal(image, np.asarray(expected))
    assert image.flags.c_contiguous
    assert image.flags.writeable


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_equals_pillow(tmp_path, photo, mode):
    photo.convert(mode).save(tmp_path / "a.jpg")
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg").astype(int), pillow(tmp_path / "a.jpg"), atol=2)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK"])
def test_modes_become_rgb(tmp_path, photo, mode):
    photo.convert(mode).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), np.asarray(photo.convert(mode).convert("RGB")))


def test_16_bit_grey_is_scaled(tmp_path):
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(values).save(tmp_path / name)
        assert read_image(tmp_path / name)[0].tolist() == [[0] * 3, [1] * 3, [128] * 3, [255] * 3]


def test_16_bit_rgb_keeps_the_high_byte(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    pixel = zlib.compress(b"\0" + struct.pack(">HHH", 0x1234, 0x8000, 0xFFFF))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(png)
    assert read_image(tmp_path / "a.png").tolist() == [[[0x12, 0x80, 0xFF]]]


def test_transparency_is_laid_on_white(tmp_path):
    Image.new("RGBA", (1, 1), (200, 0, 0, 0)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").tolist() == [[[255, 255, 255]]]
    Image.new("LA", (1, 1), (100, 255)).save(tmp_path / "b.png")
    assert read_image(tmp_path / "b.png").tolist() == [[[100, 100, 100]]]
    palette = Image.new("P", (1, 1), 3)
    palette.save(tmp_path / "c.gif", transparency=3)
    assert read_image(tmp_path / "c.gif").tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize("order", [np.ascontiguousarray, np.asfortranarray])
def test_an_array_with_alpha_is_what_its_file_is(tmp_path, order):
    rgba = np.random.default_rng(0).integers(0, 256, (40, 50, 4), np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    np.testing.assert_array_equal(as_rgb(order(rgba)), read_image(tmp_path / "a.png"))


def test_something_appended_to_a_jpeg_does_no_harm(tmp_path, photo):
    photo.save(tmp_path / "a.jpg")
    expected = read_image(tmp_path / "a.jpg")
    with open(tmp_path / "a.jpg", "ab") as file:
        file.write(b"camera maker's notes" * 40)
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), expected)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".tif", ".webp", ".bmp"])
def test_no_truncation_escapes(tmp_path, photo, suffix):
    photo.save(tmp_path / f"whole{suffix}")
    data = (tmp_path / f"whole{suffix}").read_bytes()
    whole = read_image(tmp_path / f"whole{suffix}")
    path = tmp_path / f"cut{suffix}"
    for share in (0.01, 0.1, 0.3, 0.5, 0.7, 0.9):
        path.write_bytes(data[: int(len(data) * share)])
        try:
            image = read_image(path)
        except ImageError as error:
            message = str(error)
        else:  # the index of a TIFF may be what was cut off, after all of the pixels
            np.testing.assert_array_equal(image, whole)
            continue
        assert message.startswith(f"{path}: ")
        assert "\n" not in message


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damage_raises_only_image_errors(tmp_path, photo):
    rng = np.random.default_rng(0)
    for suffix in (".jpg", ".png", ".gif", ".tif", ".webp"):
        photo.save(tmp_path / f"whole{suffix}")
        data = np.frombuffer((tmp_path / f"whole{suffix}").read_bytes(), np.uint8)
        for _ in range(40):
            damaged = data.copy()
            damaged[rng.integers(0, len(data), 8)] = rng.integers(0, 256, 8)
            path = tmp_path / f"damaged{suffix}"
            path.write_bytes(damaged.tobytes())
            with contextlib.suppress(ImageError):
                assert read_image(path, max_pixels=1_000_000).shape[2] == 3


def test_each_failure_has_its_line(tmp_path, photo):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not a picture")
    photo.save(tmp_path / "photo.jpg")
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "float.tif")
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, problem in {
        "missing.jpg": "does not exist",
        "empty.jpg": "is empty",
        "text.jpg": "not a picture",
        "pipe.jpg": "not a regular file",
        "float.tif": "floating-point",
        "": "is a folder",
        "n" * 300: "cannot be read",
    }.items():
        with pytest.raises(ImageError, match=problem) as caught:
            read_image(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
    with pytest.raises(ImageError, match="37 x 23 pixels, more than the limit of 850"):
        read_image(tmp_path / "photo.jpg", max_pixels=850)
    assert read_image(tmp_path / "photo.jpg", max_pixels=851).shape == (23, 37, 3)
    for limit in (math.nan, -1, "851", None):
        with pytest.raises(SettingError, match="max_pixels must be a number, 0 or more"):
            read_image(tmp_path / "photo.jpg", max_pixels=limit)


def test_pillows_limit_does_not_contradict_max_pixels(tmp_path, photo, monkeypatch, recwarn):
    photo.save(tmp_path / "photo.png")
    for limit in (500, 100):  # Pillow warns above its limit, and refuses above twice as much.
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert read_image(tmp_path / "photo.png", max_pixels=851).shape == (23, 37, 3)
    assert not recwarn.list


@pytest.fixture
def tree(tmp_path):
    for name in (
        "b/2.jpg",
        "b/10.JPG",
        "b/deep/1.png",
        "a/x[1].jpg",
        "a/notes.txt",
        ".hidden/3.jpg",
        "b/._2.jpg",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def names(found, root):
    return [str(path.relative_to(root)) for path in found]


def test_folders_are_searched_in_order(tree):
    expected = ["a/x[1].jpg", "b/10.JPG", "b/2.jpg", "b/deep/1.png"]
    assert names(find_images(tree), tree) == expected
    assert names(find_images([f"{tree}/b", str(tree)]), tree) == [*expected[1:], expected[0]]


def test_named_files_are_kept_and_repeats_are_not(tree):
    found = find_images([tree / "a/notes.txt", f"{tree}/a/x[1].jpg", f"{tree}/b/../a/x[1].jpg", tree / "a"])
    assert [path.name for path in found] == ["notes.txt", "x[1].jpg"]


def test_globs(tree):
    assert names(find_images(f"{tree}/b/*.jpg"), tree) == ["b/2.jpg"]
    assert names(find_images(f"{tree}/**/*.[pj][np]g"), tree) == ["a/x[1].jpg", "b/2.jpg", "b/deep/1.png"]
    assert names(find_images(f"{tree}/*"), tree) == names(find_images(tree), tree)
    with pytest.raises(ImageError, match="matches no file"):
        find_images(f"{tree}/*.gif")


def test_lists_are_relative_to_themselves(tree, monkeypatch):
    monkeypatch.chdir("/")
    (tree / "list.txt").write_bytes(b"\xef\xbb\xbfb/2.jpg\r\n\r\na\r\n" + f"{tree}/b/10.JPG".encode())
    assert names(find_images(f"@{tree}/list.txt"), tree) == ["b/2.jpg", "a/x[1].jpg", "b/10.JPG"]
    (tree / "list.txt").write_text("b/2.jpg\nb/3.jpg\n")
    with pytest.raises(ImageError, match=r"list.txt, line 2: .*b/3.jpg: does not exist"):
        find_images(f"@{tree}/list.txt")
    with pytest.raises(ImageError, match="list cannot be read"):
        find_images(f"@{tree}/missing.txt")


def test_linked_folders_are_followed_once(tree):
    (tree / "b" / "loop").symlink_to(tree)
    (tree / "c").symlink_to(tree / "a")
    assert {path.name for path in find_images(tree)} == {"x[1].jpg", "10.JPG", "2.jpg", "1.png"}


def test_a_missing_name_is_an_error(tree):
    with pytest.raises(ImageError, match=r"nothing\.jpg: does not exist"):
        find_images([tree, "nothing.jpg"])


def test_a_folder_that_cannot_be_searched_is_listed_with_the_rest(tree, monkeypatch):
    def scandir(path):
        if str(path).endswith("lost+found"):
            raise PermissionError(13, "Permission denied", str(path))
        return list_folder(path)

    list_folder = os.scandir
    (tree / "lost+found").mkdir()
    monkeypatch.setattr(os, "scandir", scandir)
    assert names(find_images(tree), tree)[-1:] == ["lost+found"]
    assert len(find_images(tree)) == 5
    assert len(find_images(f"{tree}/*")) == len(find_images(sorted(tree.glob("[!.]*")))) == 5  # a shell names it too
    with pytest.raises(ImageError, match=r"lost\+found: the folder cannot be searched \(Permission denied\)"):
        read_image(tree / "lost+found")
    with pytest.raises(ImageError, match="cannot be read"):
        find_images(tree / "lost+found")


def test_what_is_passed_over_is_counted_once(tree):
    (tree / "b" / "clip.MP4").touch()
    (tree / "b" / "more.txt").touch()
    (tree / "b" / "raw.NEF").touch()
    passed_over = Counter()
    found = find_images([tree, tree / "b"], passed_over)
    assert passed_over == {".txt": 2, ".mp4": 1}
    assert "raw.NEF" in {path.name for path in found}


@pytest.mark.parametrize("name", ["clip.mp4", "a clip.MOV", "c.avi", "c.mkv", "c.webm"])
def test_how_to_make_pictures_of_a_video(tree, name, monkeypatch):
    monkeypatch.chdir(tree)
    (tree / name).write_bytes(b"\0\0\0\x20ftypisom")
    quoted = f"'{name}'" if " " in name else name
    command = f"mkdir -p frames && ffmpeg -i {quoted} -vf fps=1 frames/%06d.jpg"
    for named in (name, [name, name], [f"*{name[-4:]}"]):
        with pytest.raises(ImageError, match=re.escape(f"{name}: is a video; make pictures of it, ")) as caught:
            find_images(named)
        assert str(caught.value).endswith(command)
    # Among pictures it is one file of many: in a folder it is passed over, and where it is named, its reader tells.
    assert len(find_images(tree)) == 4
    assert len(find_images([tree, name])) == 5
    with pytest.raises(ImageError, match=re.escape(command)):
        read_image(Path(name))
    (tree / name).unlink()
    with pytest.raises(ImageError, match="does not exist"):
        find_images(name)


def test_how_to_make_pictures_of_a_webcam(tree, monkeypatch):
    monkeypatch.chdir(tree)
    command = "mkdir -p frames && ffmpeg -f v4l2 -i /dev/video0 -vf fps=1 frames/%06d.jpg"
    with pytest.raises(ImageError, match=re.escape("0: is a webcam; make pictures of it, ")) as caught:
        find_images("0")
    assert str(caught.value).endswith(command)
    (tree / "0").mkdir()
    (tree / "a" / "x[1].jpg").rename(tree / "0" / "1.jpg")
    assert find_images("0") == [Path("0/1.jpg")]


def test_a_list_from_standard_input_is_relative_to_the_working_folder(tree, monkeypatch):
    monkeypatch.chdir(tree)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"b/2.jpg\na\n")))
    assert [str(path) for path in find_images("@-")] == ["b/2.jpg", "a/x[1].jpg"]
