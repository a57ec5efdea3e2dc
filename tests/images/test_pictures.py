"""Kinds of pictures that people complained about in public: each is read, kept and written as its kind demands."""

from __future__ import annotations

import io
import itertools
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from qartsr.errors import QartsrError
from qartsr.images import (
    Picture,
    as_image,
    check_target,
    decode_image,
    encode_like,
    read_image,
    read_rgb,
    target_name,
    write_image,
)
from qartsr.images.exif import PREFIX, described, orientation
from qartsr.images.icc import profile_of
from qartsr.images.png import SIGNATURE, encode, packed, parse, with_chunks

RNG = np.random.default_rng(0)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6">a</d></x:xmpmeta>'
LOSSLESS, ALL = ("png", "tif", "webp"), ("png", "jpg", "webp", "tif", "avif")


def noise(*shape: int, wide: bool = False) -> np.ndarray[Any, Any]:
    return RNG.integers(0, 65536 if wide else 256, shape).astype(np.uint16 if wide else np.uint8)


def exif(turn: int = 1, **more: Any) -> Image.Exif:
    made = Image.Exif()
    made[0x0112], made[0x8298], made[0x0132] = turn, "(c) somebody", "2020:01:02 03:04:05"
    made.get_ifd(0x8769)[0xA002] = 8
    return made


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_go_out_and_come_back(channels: int, suffix: str, tmp_path: Path) -> None:
    wide = noise(37, 29, channels, wide=True)
    picture = as_image(wide)
    assert write_image(tmp_path / f"a.{suffix}", picture) == ()
    again = read_image(tmp_path / f"a.{suffix}")
    grey = channels < 3 and again.mode == "RGBA"  # TIFF: grey with alpha is written as colour
    assert again.wide is not None
    np.testing.assert_array_equal(again.wide[..., [0, 3]] if grey else again.wide, wide)
    np.testing.assert_array_equal(np.asarray(narrow(again.wide)), np.asarray(again).reshape(again.wide.shape))
    for other in ("jpg", "webp", "avif"):
        if channels in (1, 3) or other != "jpg":
            assert "16 bits" in write_image(tmp_path / f"a.{other}", picture)[0]


def narrow(wide: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return ((wide.astype(np.uint32) + 128) // 257).astype(np.uint8)


def test_an_independent_decoder_agrees(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    wide = noise(9, 11, 3, wide=True)
    for suffix in ("png", "tif"):
        write_image(tmp_path / f"a.{suffix}", as_image(wide))
        theirs = cv2.imread(str(tmp_path / f"a.{suffix}"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(theirs[..., ::-1], wide)
        cv2.imwrite(str(tmp_path / f"b.{suffix}"), wide[..., ::-1])
        ours = read_image(tmp_path / f"b.{suffix}").wide
        np.testing.assert_array_equal(ours, wide)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sixteen_bit_key_is_transparency(channels: int) -> None:
    wide = noise(6, 7, channels, wide=True)
    wide[2, 3] = key = [12345, 1, 65535][:channels]
    data = with_chunks(encode(wide), [(b"tRNS", struct.pack(f">{channels}H", *key))])
    picture = decode_image(data, "x")
    assert picture.mode == ("LA", "", "RGBA")[channels - 1] and picture.wide is not None
    expected = np.full((6, 7), 65535)
    expected[2, 3] = 0
    np.testing.assert_array_equal(picture.wide[..., -1], expected)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_grey_key_of_few_bits_is_transparency(bits: int) -> None:
    """The key counts in the file's own levels, which decoders spread over 0 to 255."""
    levels = np.arange(8, dtype=np.uint8)[None] & ((1 << bits) - 1)
    rows = b"\0" + np.packbits(((levels[..., None] >> np.arange(bits)[::-1]) & 1).astype(np.uint8)).tobytes()
    header = struct.pack(">IIBBBBB", 8, 1, bits, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"tRNS", struct.pack(">H", 1)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    picture = decode_image(SIGNATURE + b"".join(packed(*chunk) for chunk in chunks), "x")
    alpha = np.asarray(picture.getchannel("A"))
    np.testing.assert_array_equal(alpha == 0, levels == 1)


@pytest.mark.parametrize("suffix", ALL)
def test_metadata_go_along_through_every_format(suffix: str, tmp_path: Path) -> None:
    source = saved(tmp_path / "in.jpg", Image.fromarray(noise(8, 12, 3)), exif=exif(6), icc_profile=PROFILE, xmp=XMP,
                   dpi=(300, 300))  # fmt: skip
    picture = read_image(source)
    assert picture.size == (8, 12) and picture.notes == ()
    target = tmp_path / f"out.{suffix}"
    assert write_image(target, picture) == ()
    again = read_image(target)
    assert again.size == (8, 12) and again.info["icc_profile"] == PROFILE
    assert again.info["xmp"] == XMP.replace(b'"6"', b'"1"')
    kept = Image.Exif()
    kept.load(again.info["exif"])
    assert (kept[0x8298], kept[0x0132], kept.get(0x0112, 1)) == ("(c) somebody", "2020:01:02 03:04:05", 1)
    if suffix in ("png", "jpg", "tif"):
        assert again.info["dpi"] == pytest.approx((300, 300), abs=0.01)
    write_image(target, picture, strip=True)
    assert not set(read_image(target).info) & {"icc_profile", "exif", "xmp", "dpi", "png"}


@pytest.mark.parametrize("suffix", ALL)
def test_comments_and_iptc_go_along_or_are_named(suffix: str) -> None:
    """IIM: dataset 2:05, the title (IPTC Information Interchange Model 4.2, section 1.5)."""
    iptc = b"\x1c\x02\x05\x00\x09Our title"
    block = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc
    segment, file = b"\xff\xed" + struct.pack(">H", len(block) + 2) + block, io.BytesIO()
    Image.fromarray(noise(8, 12, 3)).save(file, "JPEG", comment="où est-ce".encode(), extra=segment)
    data, notes = encode_like(f".{suffix}", decode_image(file.getvalue(), "in"))
    again = decode_image(data, "out")
    assert (again.info.get("iptc") == iptc) is (suffix in ("jpg", "tif")) is not any("IPTC" in note for note in notes)
    told = "où est-ce".encode() in data
    assert told is (suffix in ("jpg", "tif", "png")) is not any("comment" in note for note in notes)
    assert Image.open(io.BytesIO(data)).size == (12, 8)
    bare, notes = encode_like(f".{suffix}", again, strip=True)
    assert notes == () and b"Our title" not in bare and "où".encode() not in bare


def test_a_thumbnail_is_dropped_and_oddities_stay() -> None:
    """A rational of -1/0, which Pillow cannot write, and a thumbnail of 40 bytes at the end."""
    entries = [(0x0112, 3, 1, struct.pack("<HH", 6, 0)), (0x9204, 10, 1, struct.pack("<I", 38))]
    first = struct.pack("<H", 2) + b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    second = struct.pack("<H", 2) + struct.pack("<HHII", 0x0201, 4, 1, 76) + struct.pack("<HHII", 0x0202, 4, 1, 40)
    block = b"II*\0" + struct.pack("<I", 8) + first + struct.pack("<I", 46) + struct.pack("<ii", -1, 0) + second
    block += struct.pack("<I", 0) + b"T" * 40
    assert len(block) == 116 and orientation(block) == 6
    mended = described(PREFIX + block, upright=True)
    assert mended.startswith(PREFIX) and orientation(mended) == 1
    assert b"T" not in mended and struct.pack("<ii", -1, 0) in mended
    assert struct.unpack_from("<I", mended, 6 + 8 + 26)[0] == 0
    image = io.BytesIO()
    Image.fromarray(noise(4, 6, 3)).save(image, "JPEG", exif=PREFIX + block)
    picture = decode_image(image.getvalue(), "x")
    assert picture.size == (4, 6) and picture.notes == ()


def test_the_size_that_exif_names_is_the_new_one() -> None:
    block = exif().tobytes()
    again = Image.Exif()
    again.load(described(block, (70_000, 5)))
    assert again.get_ifd(0x8769)[0xA002] == 70_000


def test_what_is_no_pixel_decides_over_none(tmp_path: Path) -> None:
    plain = io.BytesIO()
    pixels = noise(5, 6, 3)
    Image.fromarray(pixels).save(plain, "PNG")
    bomb = zlib.compress(bytes(2 << 20))
    chunks = {
        "text": (b"zTXt", b"workflow\0\0" + bomb),
        "itxt": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb[:-9]),
        "profile": (b"iCCP", b"x\0\0" + zlib.compress(bytes(2 << 20))),
        "broken profile": (b"iCCP", b"no end"),
        "exif": (b"eXIf", b"garbage!"),
        "pHYs": (b"pHYs", b"1"),
        "gAMA": (b"gAMA", b""),
        "cICP": (b"cICP", b"\1\2\3\4"),
    }
    costs = {"itxt": "XMP", "broken profile": "ICC", "exif": "EXIF"}
    for name, chunk in chunks.items():
        picture = decode_image(with_chunks(plain.getvalue(), [chunk]), name)
        np.testing.assert_array_equal(np.asarray(picture), pixels)
        assert len(picture.notes) == (name in costs), (name, picture.notes)
        assert name not in costs or costs[name] in picture.notes[0]
    damaged = with_chunks(plain.getvalue(), [(b"gAMA", b"\0\1\0\0")]).replace(b"gAMA\0\1", b"gAMA\0\2")
    assert "checksum" in decode_image(damaged, "x").notes[0]
    for odd in (b"", b"\0", bytes(7)):  # as libpng does: a transparency that cannot be is none
        picture = decode_image(with_chunks(plain.getvalue(), [(b"tRNS", odd)]), "x")
        assert "checksum" in picture.notes[0] and picture.mode == "RGB"
    for bad in (b"garbage", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff"):
        jpeg = io.BytesIO()
        Image.fromarray(pixels).save(jpeg, "JPEG", exif=PREFIX + bad)
        assert "EXIF" in decode_image(jpeg.getvalue(), "x").notes[0]
    short = jpeg.getvalue()[:2] + b"\xff\xee\0\x07Adobe" + jpeg.getvalue()[2:]
    assert "metadata" in decode_image(short, "x").notes[0]


def test_chunks_that_change_the_look_are_kept_in_png_and_named_elsewhere(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    chunks = ((b"gAMA", struct.pack(">I", 100000)), (b"cICP", b"\x0c\x0d\0\1"), (b"cHRM", bytes(range(32))))
    for chunk in chunks:
        info.add(*chunk)
    info.add_text("Title", "a title")
    picture = read_image(saved(tmp_path / "a.png", Image.fromarray(noise(4, 4, 3)), pnginfo=info))
    assert write_image(tmp_path / "b.png", picture) == ()
    assert set(chunks) <= set(parse((tmp_path / "b.png").read_bytes()).others)
    with Image.open(tmp_path / "b.png") as opened:
        assert opened.info["gamma"] == 1.0 and opened.text["Title"] == "a title"  # type: ignore[attr-defined]
    assert "gAMA" in write_image(tmp_path / "b.jpg", picture)[0]


@pytest.mark.parametrize("name", ["a.tif", "a.bmp", "a.gif", "a.avif", "a.jfif", "a.jpe", "a.PNG"])
def test_formats_are_known_by_their_content(name: str, tmp_path: Path) -> None:
    pixels = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    kind = {"jfif": "JPEG", "jpe": "JPEG", "tif": "TIFF"}.get(name[2:].lower(), name[2:].upper())
    Image.fromarray(pixels).save(tmp_path / name, kind)
    assert np.abs(np.asarray(read_image(tmp_path / name).convert("RGB")).astype(int) - pixels).max() < 6
    (tmp_path / name).rename(tmp_path / "other.png")
    assert read_rgb(tmp_path / "other.png").size == (16, 16)
    assert target_name(name) == ("a.png" if name in ("a.bmp", "a.gif") else name)


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "PNG", "TIFF", "AVIF"])
def test_several_pictures_in_one_are_refused_at_every_door(kind: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(noise(8, 8, 3)) for _ in range(2)]
    frames[0].save(tmp_path / "a", kind, save_all=True, append_images=frames[1:])
    doors: list[Any] = [read_image, read_rgb, lambda path: as_image(str(path))]
    for door in doors:
        with pytest.raises(QartsrError, match=r"is animated|has 2 pages"):
            door(tmp_path / "a")
    with Image.open(tmp_path / "a") as opened, pytest.raises(QartsrError, match="is animated"):
        as_image(opened)


def test_pillow_images_that_cannot_be_loaded(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg"):
        Image.fromarray(noise(64, 64, 3)).save(tmp_path / name)
        with Image.open(tmp_path / name) as whole:
            assert np.asarray(as_image(whole)).shape == (64, 64, 3)
        closed = Image.open(tmp_path / name)
        closed.close()
        data = (tmp_path / name).read_bytes()
        cut = Image.open(io.BytesIO(data[: len(data) // 2]))
        for image in (closed, cut):
            with pytest.raises(QartsrError, match="check that"):
                as_image(image)


def test_a_pillow_image_brings_what_its_file_has(tmp_path: Path) -> None:
    wide = noise(5, 4, 3, wide=True)
    write_image(tmp_path / "a.png", as_image(wide))
    with Image.open(tmp_path / "a.png") as opened:
        np.testing.assert_array_equal(as_image(opened).wide, wide)
    saved(tmp_path / "b.jpg", Image.fromarray(noise(4, 8, 3)), exif=exif(6), icc_profile=PROFILE)
    with Image.open(tmp_path / "b.jpg") as opened:
        picture = as_image(opened)
    assert picture.size == (8, 4) and orientation(picture.info["exif"]) == 6, "pixels and orientation as they were"
    picture.save(tmp_path / "c.png")
    assert read_image(tmp_path / "c.png").size == (4, 8)


def test_saving_as_pillow_does(tmp_path: Path) -> None:
    picture = Picture.of(Image.fromarray(noise(4, 4, 3)), {"icc_profile": PROFILE})
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=10)
    with Image.open(buffer) as opened:
        assert opened.format == "JPEG" and opened.info["icc_profile"] == PROFILE
    picture.save(tmp_path / "a.bmp")
    picture.save(str(tmp_path / "a.tiff"))
    assert read_image(tmp_path / "a.bmp").size == read_image(tmp_path / "a.tiff").size == (4, 4)
    drawn = as_image(noise(4, 4, 3, wide=True))
    drawn.paste((1, 2, 3), (0, 0, 4, 4))
    drawn.save(tmp_path / "d.png")
    assert read_image(tmp_path / "d.png").getpixel((0, 0)) == (1, 2, 3)


def test_opaque_alpha_is_no_obstacle_and_long_names_are_told_before_work(tmp_path: Path) -> None:
    image = Image.fromarray(np.dstack([noise(4, 4, 3), np.full((4, 4), 255, np.uint8)]))
    write_image(tmp_path / "a.jpg", image)
    assert read_image(tmp_path / "a.jpg").mode == "RGB"
    name = "图" * 83 + ".png"
    write_image(tmp_path / name, image)
    assert len(os.fsencode(name)) == 253 and read_image(tmp_path / name).size == (4, 4)
    with pytest.raises(QartsrError, match="more than 255 bytes; choose a shorter"):
        check_target(tmp_path / ("图" * 85 + ".png"), image)


def test_pictures_are_not_refused_for_pillows_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for name in ("a.png", "a.tif", "a.jpg", "a.webp"):
        saved(tmp_path / name, Image.fromarray(noise(30, 30, 3)))
        assert read_image(tmp_path / name).size == (30, 30)
        with pytest.raises(QartsrError, match=r"pixels, more than the [0-9,]+ allowed; allow more with --max-pixels"):
            read_image(tmp_path / name, max_pixels=899)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg"])
def test_orientation_is_applied_once(turn: int, name: str, tmp_path: Path) -> None:
    corner = np.zeros((16, 24), np.uint8)
    corner[:8, :12] = 255
    source = saved(tmp_path / name, Image.fromarray(corner), exif=exif(turn))
    picture = read_image(source)
    assert picture.size == ((24, 16) if turn < 5 else (16, 24)) and orientation(picture.info["exif"]) == 1
    wide = as_image(corner.astype(np.uint16) * 257)
    wide.info["exif"] = exif(turn).tobytes()
    wide.save(tmp_path / "wide.png")
    again = read_image(tmp_path / "wide.png")
    assert again.wide is not None
    left, top = turn in (1, 4, 5, 8), turn in (1, 2, 5, 6)
    for pixels in (np.asarray(picture), np.asarray(again), again.wide[..., 0] // 257):
        seen = pixels[0 if top else -1, 0 if left else -1]
        assert seen > 250 and (pixels > 128).mean() == 0.25


CASES = Path(os.environ.get("QARTSR_FIXTURES", Path(__file__).parents[3] / "shared" / "fixtures")).parent / "cases"


@pytest.mark.skipif(not CASES.is_dir(), reason=f"the collected cases are not at {CASES}; set QARTSR_FIXTURES")
def test_collected_cases(tmp_path: Path) -> None:
    for path in sorted((CASES / "images").iterdir()):
        if path.name == "anim.webp":
            continue
        picture = read_image(path)
        assert (picture.wide is not None) == ("16" in path.name)
        write_image(tmp_path / "out.png", picture)
        np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "out.png")), np.asarray(picture))


@pytest.mark.parametrize("end", ["jpg", "webp", "tif", "avif"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_gamma_becomes_a_profile_where_it_has_no_other_place(end: str, mode: str, tmp_path: Path) -> None:
    """Linear 128 is 188 on a screen, whatever the format."""
    buffer = io.BytesIO()
    Image.new(mode, (8, 8), 128 if mode == "L" else (128,) * 3).save(buffer, "PNG")
    (tmp_path / "a.png").write_bytes(with_chunks(buffer.getvalue(), [(b"gAMA", struct.pack(">I", 100000))]))
    assert write_image(tmp_path / f"b.{end}", read_image(tmp_path / "a.png")) == ()
    with Image.open(tmp_path / f"b.{end}") as made:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(made.info["icc_profile"]))
        seen = ImageCms.profileToProfile(made, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert all(abs(value - 188) <= 2 for value in seen.getpixel((4, 4)))


def test_primaries_are_those_of_display_p3() -> None:
    """Against colour's own figures: P3's red in XYZ under D50 (Apple's Display P3 profile: 0.5151, 0.2412, -0.0011)."""
    points = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
    chunk = (b"cHRM", struct.pack(">8I", *(round(value * 1e5) for value in points)))
    made = profile_of([chunk], grey=False)
    assert made is not None
    place = struct.unpack(">I", made[made.index(b"rXYZ", 128) + 4 : made.index(b"rXYZ", 128) + 8])[0]
    red = [value / 65536 for value in struct.unpack(">3i", made[place + 8 : place + 20])]
    assert red == pytest.approx([0.5151, 0.2412, -0.0011], abs=6e-4)


def _claimed(width: int, height: int, rows: int, colour: int, bits: int, interlaced: int) -> bytes:
    """A PNG file that says ``height`` and holds ``rows``."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    palette = packed(b"PLTE", bytes(6)) if colour == 3 else b""
    body = zlib.compress(bytes(rows * (1 + (width * samples * bits + 7) // 8)))
    parts = (packed(b"IHDR", header), palette, packed(b"IDAT", body), packed(b"IEND", b""))
    return SIGNATURE + b"".join(parts)


@pytest.mark.parametrize("interlaced", [0, 1])
@pytest.mark.parametrize(("colour", "bits"), [(0, 1), (0, 16), (2, 8), (2, 16), (3, 4), (4, 8), (6, 16)])
def test_a_png_file_holds_what_it_claims(colour: int, bits: int, interlaced: int) -> None:
    """107 bytes may claim 88 million pixels; one row that is missing is noticed as well."""
    for width, height, rows in ((9400, 9400, 1), (33, 17, 16)):
        with pytest.raises(QartsrError, match="rows are missing"):
            decode_image(_claimed(width, height, rows, colour, bits, interlaced), "x.png")
    if not interlaced:
        assert decode_image(_claimed(33, 17, 17, colour, bits, 0), "x.png").size == (33, 17)


def test_pixels_that_are_there_are_enough_at_every_size(tmp_path: Path) -> None:
    for width, height in itertools.product((1, 2, 3, 5, 8, 9, 17), repeat=2):
        for mode in ("1", "L", "LA", "RGB", "RGBA", "P"):
            buffer = io.BytesIO()
            Image.new(mode, (width, height)).save(buffer, "PNG")
            assert decode_image(buffer.getvalue(), "x.png").size == (width, height)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_or_gif_file_cannot_claim_anything(progressive: bool) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (1600, 1600)).save(buffer, "JPEG", quality=1, progressive=progressive, optimize=True)
    assert decode_image(buffer.getvalue(), "x.jpg").size == (1600, 1600), "the emptiest there is"
    small = io.BytesIO()
    Image.new("RGB", (16, 16)).save(small, "JPEG", progressive=progressive)
    data = bytearray(small.getvalue())
    place = data.index(b"\xff\xc2" if progressive else b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", 9400, 9400)
    with pytest.raises(QartsrError, match="cannot hold 9400 x 9400 pixels"):
        decode_image(bytes(data), "x.jpg")
    dot = io.BytesIO()
    Image.new("P", (4, 4)).save(dot, "GIF")
    canvas = dot.getvalue()[:6] + struct.pack("<HH", 9400, 9400) + dot.getvalue()[10:]
    with pytest.raises(QartsrError, match="next to empty"):
        decode_image(canvas, "x.gif")
