"""The tables of docs/pictures.md: what is read, what is refused, what is repaired. Every file is made here."""

import io
import re
import struct
import sys
import types
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from inception_rcnn.data import ImageError, read_image
from inception_rcnn.data.errors import DataWarning
from inception_rcnn.data.images.reading import decode_image

RAMP = np.linspace(0, 65535, 200).round().astype(np.uint16).reshape(10, 20)
EIGHT_BITS = ((RAMP.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


@pytest.fixture(scope="module")
def photo():
    """Smooth RGB noise, 160 x 120, with a light lower right corner."""
    small = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    small[-1, -1] = 220
    return Image.fromarray(small).resize((160, 120), Image.Resampling.BILINEAR)


def jpeg(photo, **options):
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def tiff(values, bits, photometric=1, sample_format=1, data=None):
    """A grey TIFF without compression."""
    height, width = values.shape
    data = values.tobytes() if data is None else data
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 0, 277: 1, 278: height, 279: len(data)}
    tags[339] = sample_format
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def packed_12_bits(values):
    pairs = values.reshape(-1, 2).astype(int)
    return b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in pairs)


def chunk(name, data, checksum=None):
    checksum = zlib.crc32(name + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)


def png(rows, width, depth, kind, *others):
    header = struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(others) + pixels + chunk(b"IEND", b"")


def jp2(values, bits=16):
    """A JPEG 2000 file without loss; OpenCV only writes 16 bits, so that of fewer the header is changed."""
    shift = 2**15 - 2 ** (bits - 1)  # the encoder subtracts half of the range
    data = bytearray(cv2.imencode(".jp2", values + np.uint16(shift), [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])[1])
    channels = 1 if values.ndim == 2 else values.shape[2]
    size = data.index(b"\xff\x4f\xff\x51")
    for channel in range(channels):
        data[size + 42 + 3 * channel] = bits - 1
    box = data.index(b"ihdr")
    data[box + 14] = bits - 1
    return bytes(data)


GREY_PNG = (np.array([0, 100, 200, 255], np.uint16) * 257).astype(">u2")
COLOUR_PNG = np.repeat(GREY_PNG, 3)
NEARLY_WHITE = np.repeat(np.linspace(64935, 65535, 64).astype(np.uint16)[:, None, None], 3, axis=2).repeat(64, axis=1)
DEEP = {
    "grey of 16 bits": (".tif", tiff(RAMP, 16), EIGHT_BITS),
    "grey of 16 bits, white is zero": (".tif", tiff(RAMP, 16, photometric=0), 255 - EIGHT_BITS),
    "grey of 8 bits, white is zero": (".tif", tiff(EIGHT_BITS, 8, photometric=0), 255 - EIGHT_BITS),
    "grey of 12 bits": (
        ".tif",
        tiff(RAMP, 12, data=packed_12_bits(RAMP >> 4)),
        (((RAMP >> 4).astype(int) * 255 + 2047) // 4095).astype(np.uint8),
    ),
    "PGM up to 1023": (
        ".pgm",
        b"P5 20 10 1023\n" + (RAMP >> 6).astype(">u2").tobytes(),
        np.round((RAMP >> 6) * (255 / 1023)).astype(np.uint8),
    ),
    "PNG, 16 bits, transparent black": (
        ".png",
        png([GREY_PNG.tobytes()], 4, 16, 0, chunk(b"tRNS", struct.pack(">H", 0))),
        np.array([[255, 100, 200, 255]], np.uint8),
    ),
    "PNG, 16 bits a channel, one colour transparent": (
        ".png",
        png([COLOUR_PNG.tobytes()], 4, 16, 2, chunk(b"tRNS", struct.pack(">HHH", *[25700] * 3))),
        np.array([[0, 255, 200, 255]], np.uint8),
    ),
    "PNG, 16 bits a channel, a colour with the same high bytes": (
        ".png",
        png([COLOUR_PNG.tobytes()], 4, 16, 2, chunk(b"tRNS", struct.pack(">HHH", *[25701] * 3))),
        np.array([[0, 100, 200, 255]], np.uint8),
    ),
    "PNG, 4 bits, one grey transparent": (
        ".png",
        png([bytes([0x0A, 0x5F])], 4, 4, 0, chunk(b"tRNS", struct.pack(">H", 10))),
        np.array([[0, 255, 85, 255]], np.uint8),
    ),
    "PNG, 1 bit, white transparent": (
        ".png",
        png([bytes([0xA0])], 4, 1, 0, chunk(b"tRNS", struct.pack(">H", 0))),
        np.array([[255, 255, 255, 255]], np.uint8),
    ),
    "JPEG 2000, grey of 16 bits": (".jp2", jp2(NEARLY_WHITE[..., 0]), NEARLY_WHITE[..., 0] / 257),
    "JPEG 2000, 16 bits a channel": (".jp2", jp2(NEARLY_WHITE), NEARLY_WHITE[..., 0] / 256),
    "JPEG 2000, 12 bits a channel": (".jp2", jp2(NEARLY_WHITE >> 4, 12), NEARLY_WHITE[..., 0] / 256),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_pictures_show_what_they_are(tmp_path, name):
    suffix, data, expected = DEEP[name]
    (tmp_path / f"a{suffix}").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_image(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(image, np.repeat(expected[..., None].astype(float), 3, axis=2), atol=1)
    assert image[..., 0].min() == pytest.approx(expected.min(), abs=1)


@pytest.mark.parametrize("top", [255, 2**15 - 1])
@pytest.mark.parametrize(
    ("dtype", "sample_format", "problem"),
    [
        ("<u4", 1, "32 bits"),
        ("<i4", 2, "signed"),
        ("<i2", 2, "signed"),
        ("<i1", 2, "signed"),
        ("<f4", 3, "floating-point"),
    ],
)
def test_pixels_without_black_and_white_are_refused_whatever_their_values(tmp_path, top, dtype, sample_format, problem):
    top = min(top, 127) if dtype == "<i1" else top
    values = (RAMP.astype(float) / 65535 * top).astype(dtype)
    (tmp_path / "a.tif").write_bytes(tiff(values, 8 * values.itemsize, sample_format=sample_format))
    with pytest.raises(ImageError, match=problem):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_a_signed_jpeg_2000_is_refused_as_signed(tmp_path, mode):
    picture = Image.fromarray(EIGHT_BITS).convert(mode) if mode != "I;16" else Image.fromarray(RAMP)
    picture.save(tmp_path / "a.jp2", signed=True)
    with pytest.raises(ImageError, match=r"a\.jp2: has signed pixels"):
        read_image(tmp_path / "a.jp2")


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_tiff_whose_channels_are_apart_is_read_or_refused(tmp_path, compression):
    tifffile = pytest.importorskip("tifffile")
    planes = np.stack([RAMP, RAMP[::-1], RAMP // 2])
    options = {"photometric": "rgb", "planarconfig": "separate", "compression": compression}
    tifffile.imwrite(tmp_path / "a.tif", planes, **options)
    if compression is None:
        with pytest.raises(ImageError, match=r"a\.tif: has channels of 16 bits, one after the other"):
            read_image(tmp_path / "a.tif")
    else:
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), np.moveaxis(planes >> 8, 0, 2))
    one = planes[:1]  # of one channel it does not matter
    tifffile.imwrite(tmp_path / "c.tif", one, photometric="minisblack", extratags=[(284, 3, 1, 2, True)])
    np.testing.assert_allclose(read_image(tmp_path / "c.tif")[..., 0], EIGHT_BITS, atol=1)
    tifffile.imwrite(tmp_path / "b.tif", (planes >> 8).astype(np.uint8), **options)
    np.testing.assert_array_equal(read_image(tmp_path / "b.tif"), np.moveaxis(planes >> 8, 0, 2))


def test_a_tiff_that_is_not_read_is_called_tiff(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(RAMP, 14))
    with pytest.raises(ImageError, match=r"a\.tif: is TIFF of a kind that is not read"):
        read_image(tmp_path / "a.tif")


def exif(order, kind, orientation=6):
    value = struct.pack(order + "HH", orientation, 0) if kind == 3 else struct.pack(order + "I", orientation)
    start = b"II*\0" if order == "<" else b"MM\0*"
    return b"Exif\0\0" + start + struct.pack(order + "IHHHI", 8, 1, 0x112, kind, 1) + value + bytes(4)


XMP = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


@pytest.mark.parametrize(
    "segment", [exif("<", 3), exif("<", 4), exif(">", 3), exif(">", 4), XMP], ids=["II", "IIL", "MM", "MML", "XMP"]
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_orientation_of_a_jpeg_is_applied_however_it_is_stored(tmp_path, photo, segment, mode):
    data = jpeg(photo.convert(mode))
    (tmp_path / "plain.jpg").write_bytes(data)
    segment = b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment
    (tmp_path / "turned.jpg").write_bytes(data[:2] + segment + data[2:])
    turned = np.rot90(read_image(tmp_path / "plain.jpg"), -1)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.jpg"), turned)


@pytest.mark.parametrize("lost", [1, 2])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_end_mark_is_read(tmp_path, photo, lost, mode, progressive):
    data = jpeg(photo.convert(mode), progressive=progressive)
    (tmp_path / "whole.jpg").write_bytes(data)
    (tmp_path / "cut.jpg").write_bytes(data[:-lost])
    with pytest.warns(DataWarning, match=r"cut\.jpg: its end mark is missing; all of its pixels are there"):
        image = read_image(tmp_path / "cut.jpg")
    np.testing.assert_array_equal(image, read_image(tmp_path / "whole.jpg"))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("end", [b"\xff\xd9", b"\xff\xd9" + b"appended" * 100, b""], ids=["mark", "appended", "none"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_cut_jpeg_is_refused_also_with_an_end_mark(tmp_path, photo, share, end, mode):
    data = jpeg(photo.convert(mode))
    start = data.rindex(b"\xff\xda")
    (tmp_path / "cut.jpg").write_bytes(data[: int(start + share * (len(data) - start))].rstrip(b"\xff") + end)
    with pytest.raises(ImageError, match=r"cut\.jpg: is (damaged or )?truncated"):
        read_image(tmp_path / "cut.jpg")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("options", [{"subsampling": 0}, {"restart_marker_rows": 1}, {"progressive": True}], ids=str)
def test_a_jpeg_that_ends_in_zeros_in_place_of_pixels_is_refused(tmp_path, share, options):
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8))
    data = jpeg(photo, **options)
    (tmp_path / "cut.jpg").write_bytes(data[: int(share * len(data))].ljust(len(data), b"\0"))
    with pytest.raises(ImageError, match="truncated"):
        read_image(tmp_path / "cut.jpg")


@pytest.mark.parametrize("end", [b"", b"\xff\xd9"])
@pytest.mark.parametrize("mark", range(0, 7, 3))
def test_a_jpeg_that_was_cut_at_a_restart_mark_is_refused(tmp_path, photo, mark, end):
    data = jpeg(photo, restart_marker_rows=1)
    marks = [match.start() for match in re.finditer(rb"\xff[\xd0-\xd7]", data)]
    for length in (marks[mark], marks[mark] + 2):
        (tmp_path / "cut.jpg").write_bytes(data[:length] + end)
        with pytest.raises(ImageError, match="truncated"):
            read_image(tmp_path / "cut.jpg")


BOGUS_TABLE, UNKNOWN_VERSION = b"\xff\xc4\0\x04\x77\x77", 9


@pytest.mark.parametrize("inserted", [b"\xff\xd8", BOGUS_TABLE, b"\xff\x02"], ids=["second start", "table", "unknown"])
def test_a_jpeg_with_another_segment_in_its_data_is_refused(tmp_path, photo, inserted):
    data = jpeg(photo)
    half = (data.index(b"\xff\xda") + len(data)) // 2
    (tmp_path / "a.jpg").write_bytes(data[:half].rstrip(b"\xff") + inserted + data[half:])
    with pytest.raises(ImageError, match="damaged or truncated"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("end", [b"", b"\xff\xd9"])
@pytest.mark.parametrize("kind", ["version", "scan"])
def test_a_warning_does_not_hide_that_a_jpeg_was_cut(tmp_path, photo, kind, end):
    data = bytearray(jpeg(photo))
    scan = data.index(b"\xff\xda")
    if kind == "version":
        data[11] = UNKNOWN_VERSION
    else:
        data[scan + 12] = 62  # the last coefficient, always 63 in a file that is not progressive
    (tmp_path / "whole.jpg").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "whole.jpg").shape == (120, 160, 3)
    (tmp_path / "cut.jpg").write_bytes(data[: (scan + len(data)) // 2].rstrip(b"\xff") + end)
    with pytest.raises(ImageError, match="truncated"):
        read_image(tmp_path / "cut.jpg")


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("behind", [b"mdat\xff\xc2\xff\xda" * 100, b"cut"], ids=["video", "cut picture"])
def test_a_jpeg_is_read_whatever_stands_behind_its_end_mark(tmp_path, photo, progressive, behind):
    data = jpeg(photo, progressive=progressive)
    (tmp_path / "whole.jpg").write_bytes(data)
    cut = jpeg(photo, progressive=True)[:1500]
    (tmp_path / "more.jpg").write_bytes(data + (cut if behind == b"cut" else behind))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_image(tmp_path / "more.jpg")
    np.testing.assert_array_equal(image, read_image(tmp_path / "whole.jpg"))


def test_a_comment_with_marks_in_it_does_not_make_a_jpeg_truncated(tmp_path, photo):
    data = jpeg(photo, progressive=True)
    scan = data.index(b"\xff\xda")
    (tmp_path / "a.jpg").write_bytes(data[:scan] + b"\xff\xfe\0\x08\xff\xda\xff\xc2\xff\xda" + data[scan:])
    assert read_image(tmp_path / "a.jpg").shape == (120, 160, 3)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_bytes_between_the_pixels_of_a_jpeg_are_told_with_its_name(tmp_path, photo, mode, capfd):
    data = jpeg(photo.convert(mode))
    (tmp_path / "whole.jpg").write_bytes(data)
    (tmp_path / "a.jpg").write_bytes(data[:-2] + bytes(range(1, 41)) + data[-2:])
    with pytest.warns(DataWarning, match=r"a\.jpg: is damaged between .* \(.* extraneous bytes before marker 0xd9\)"):
        image = read_image(tmp_path / "a.jpg")
    np.testing.assert_array_equal(image, read_image(tmp_path / "whole.jpg"))
    assert capfd.readouterr().err == ""


def test_a_jpeg_that_lacks_bytes_in_the_middle_is_refused(tmp_path, photo, capfd):
    data = jpeg(photo)
    half = len(data) - 1500
    (tmp_path / "a.jpg").write_bytes(data[:half] + data[half + 400 :])
    with pytest.raises(ImageError, match=r"a\.jpg: is damaged or truncated \(Corrupt JPEG data: "):
        read_image(tmp_path / "a.jpg")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"restart_marker_blocks": 4}, {"progressive": True}])
def test_a_jpeg_whose_end_was_never_written_is_refused(tmp_path, photo, options):
    """As downloads that keep room leave it: zeros, which decode to pixels."""
    data = jpeg(photo, **options)
    part = len(data) // 3
    (tmp_path / "cut.jpg").write_bytes(data[:-part] + bytes(part + 256))
    with pytest.raises(ImageError, match=r"cut\.jpg: is (damaged or )?truncated"):
        read_image(tmp_path / "cut.jpg")
    (tmp_path / "whole.jpg").write_bytes(data + bytes(1000))
    assert read_image(tmp_path / "whole.jpg").shape == (120, 160, 3)


@pytest.mark.parametrize("cut", [60, None])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_damaged_header_is_told_as_such(tmp_path, photo, suffix, cut):
    photo.save(tmp_path / f"a.{suffix}")
    data = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"a.{suffix}").write_bytes(data[:cut] if cut else data[:18] + b"\xff" + data[19:20])
    with pytest.raises(ImageError, match=r"header is damaged|is damaged or truncated"):
        read_image(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_a_progressive_jpeg_without_its_last_passes_is_refused(tmp_path, photo, share):
    data = jpeg(photo, progressive=True)
    (tmp_path / "whole.jpg").write_bytes(data)
    assert read_image(tmp_path / "whole.jpg").shape == (120, 160, 3)
    scans = [match.start() for match in re.finditer(rb"\xff\xda", data)]
    (tmp_path / "cut.jpg").write_bytes(data[: scans[int(share * len(scans))] + 100] + b"\xff\xd9")
    with pytest.raises(ImageError, match=r"is (damaged or )?truncated"):
        read_image(tmp_path / "cut.jpg")


def test_a_progressive_jpeg_of_endless_passes_is_refused(tmp_path, photo):
    data = jpeg(photo, progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    (tmp_path / "a.jpg").write_bytes(data[:-2] + 200 * last + data[-2:])
    with pytest.raises(ImageError, match=r"a\.jpg: is a progressive JPEG of 2\d\d passes, over 100"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_whole_jpeg_that_ends_in_grey_is_read(tmp_path, mode):
    colour = {"RGB": (128,) * 3, "L": 128, "CMYK": (128,) * 4}[mode]
    Image.new(mode, (70, 50), colour).save(tmp_path / "grey.jpg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.ptp(read_image(tmp_path / "grey.jpg")) <= 1


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "iCCP", "bad tEXt", "bad tEXt at the end"])
def test_a_png_is_read_whatever_its_texts_are(tmp_path, photo, kind):
    info, options = PngImagePlugin.PngInfo(), {}
    large = "inception " * 200_000
    if kind == "iTXt":
        info.add_itxt("Comment", large, zip=True)
    elif kind == "iCCP":
        options["icc_profile"] = large.encode()
    else:
        info.add_text("Comment", large if kind == "zTXt" else "a", zip=kind == "zTXt")
    photo.save(tmp_path / "a.png", pnginfo=info, **options)
    if kind.startswith("bad"):
        data = (tmp_path / "a.png").read_bytes()
        at = data.index(b"tEXt") + 4 + struct.unpack(">I", data[data.index(b"tEXt") - 4 :][:4])[0]
        data = data[:at] + b"\0\0\0\0" + data[at + 4 :]
        if kind.endswith("end"):
            begin, end = data.index(b"tEXt") - 4, at + 4
            data = data[:begin] + data[end:-12] + data[begin:end] + data[-12:]
        (tmp_path / "a.png").write_bytes(data)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.asarray(photo))
    assert all(f"{tmp_path}/a.png: a text or a colour profile" in str(one.message) for one in told)
    assert told or kind == "bad tEXt at the end"


def test_a_png_with_damaged_pixels_is_refused_also_with_a_damaged_text(tmp_path, photo):
    photo.save(tmp_path / "a.png", optimize=False)
    data = bytearray((tmp_path / "a.png").read_bytes())
    at = data.index(b"IDAT") + 40
    data[at : at + 20] = bytes(20)
    data[33:33] = chunk(b"tEXt", b"a\0b", checksum=0)
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ImageError, match="damaged"):
        read_image(tmp_path / "a.png")


def test_max_pixels_counts_above_pillows_limit_too(tmp_path, monkeypatch):
    Image.new("L", (200, 100)).save(tmp_path / "a.png")
    Image.new("L", (200, 100)).save(tmp_path / "a.gif")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for name in ("a.png", "a.gif"):
        with pytest.raises(ImageError, match="raise the limit"):
            read_image(tmp_path / name, max_pixels=19_999)
    assert read_image(tmp_path / "a.png", max_pixels=20_000).shape == (100, 200, 3)


def test_raw_files_are_refused_although_their_thumbnail_can_be_read(tmp_path, photo):
    photo.save(tmp_path / "a.tif")
    (tmp_path / "a.tif").rename(tmp_path / "a.NEF")
    with pytest.raises(ImageError, match=r"a\.NEF: is a camera's raw file.*JPEG"):
        read_image(tmp_path / "a.NEF")


def test_tga_is_read_and_is_not_seen_in_other_files(tmp_path, photo):
    photo.save(tmp_path / "a.tga")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tga"), np.asarray(photo))
    (tmp_path / "a.tga").rename(tmp_path / "a.dat")
    with pytest.raises(ImageError, match="not a picture in a known format"):
        read_image(tmp_path / "a.dat")


@pytest.mark.parametrize(
    ("name", "data", "advice"),
    [
        ("a.jxl", b"\xff\x0a" + bytes(40), "JPEG XL.*convert it"),
        ("a.jxl", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "JPEG XL.*convert it"),
        ("a.heic", b"\0\0\0\x18ftypheic" + bytes(40), r"HEIC.*pip install '\.\[heif\]'"),
    ],
)
def test_pictures_of_other_formats_are_told_what_to_do(tmp_path, monkeypatch, name, data, advice):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ImageError, match=advice):
        read_image(tmp_path / name)


def test_heic_is_read_where_pillow_heif_is_installed(tmp_path, monkeypatch):
    def open_fake(file, name):
        picture = Image.new("RGB", (4, 3), "red")
        picture.format = "HEIF"
        return picture

    def register():
        Image.register_open("HEIF", open_fake, lambda prefix: prefix[4:12] == b"ftypheic")

    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setitem(sys.modules, "pillow_heif", types.SimpleNamespace(register_heif_opener=register))
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    assert read_image(tmp_path / "a.heic").shape == (3, 4, 3)


@pytest.mark.parametrize("suffix", ["tif", "gif", "webp", "png", "mpo"])
def test_more_frames_than_the_first_are_noticed(tmp_path, photo, suffix):
    first = photo.convert("P") if suffix == "gif" else photo
    second = first.transpose(Image.Transpose.ROTATE_180)
    options = {"lossless": True} if suffix == "webp" else {}
    first.save(tmp_path / f"one.{'jpg' if suffix == 'mpo' else suffix}", **options)
    first.save(tmp_path / f"two.{suffix}", save_all=True, append_images=[second], **options)
    one = decode_image(tmp_path / f"one.{'jpg' if suffix == 'mpo' else suffix}")
    two = decode_image(tmp_path / f"two.{suffix}")
    assert (one.more_frames, two.more_frames) == (False, True)
    np.testing.assert_array_equal(two.image, one.image)
