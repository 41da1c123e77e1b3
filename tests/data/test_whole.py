"""Pictures that are cut are refused, those that are whole are not; and all are read upright."""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from anatosegnet.data.case import CaseError, read_image, read_mask

RNG = np.random.default_rng(3)
SCENE = cv2.resize(RNG.integers(0, 256, (9, 12, 3), np.uint8), (150, 110))
SCENE = np.clip(SCENE + RNG.normal(0, 6, SCENE.shape), 0, 255).astype(np.uint8)


def saved(kind: str, pixels: np.ndarray = SCENE, **options: object) -> bytes:
    """A file by Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def by_opencv(pixels: np.ndarray, *settings: int) -> bytes:
    """A JPEG file by OpenCV."""
    return cv2.imencode(".jpg", pixels, settings)[1].tobytes()


def jpegs() -> dict[str, bytes]:
    """JPEG files of many kinds."""
    grey = SCENE[..., 0]
    files = {
        f"quality {quality}, subsampling {way}, progressive {steps}": saved(
            "JPEG", quality=quality, subsampling=way, progressive=steps
        )
        for quality in (5, 75, 100) for way in (0, 1, 2) for steps in (False, True)
    }  # fmt: skip
    return files | {
        "grey": saved("JPEG", grey),
        "grey, progressive": saved("JPEG", grey, progressive=True),
        "optimised": saved("JPEG", optimize=True),
        "restarts": saved("JPEG", restart_marker_blocks=3),
        "restarts of lines": saved("JPEG", restart_marker_rows=1),
        "restarts, grey": saved("JPEG", grey, restart_marker_blocks=5),
        "restarts, progressive": saved("JPEG", restart_marker_blocks=3, progressive=True),
        "one colour": saved("JPEG", np.full_like(SCENE, 128)),
        "one colour, progressive": saved("JPEG", np.full_like(SCENE, 128), progressive=True),
        "one pixel": saved("JPEG", SCENE[:1, :1]),
        "OpenCV": by_opencv(SCENE),
        "OpenCV, restarts": by_opencv(grey, cv2.IMWRITE_JPEG_RST_INTERVAL, 4),
        "OpenCV, progressive": by_opencv(SCENE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        "tags and a preview": saved("JPEG", exif=preview()),
    }


def preview() -> bytes:
    """EXIF tags with a JPEG file inside, as cameras write them."""
    exif = Image.Exif()
    exif[0x010E] = "x"
    return exif.tobytes() + saved("JPEG", SCENE[:16, :16])


JPEGS = jpegs()


@pytest.mark.parametrize("what", JPEGS)
def test_cut_jpegs_are_refused(tmp_path: Path, what: str) -> None:
    """Breaks if a JPEG that was cut, and closed with an end marker, has a grey lower half."""
    data, path = JPEGS[what], tmp_path / "a.jpg"
    path.write_bytes(data)
    whole = read_image(path)
    expected = np.asarray(Image.open(path).convert("RGB"))
    assert np.abs(whole.astype(int) - expected).max() <= 2
    start = data.index(b"\xff\xda", data.rindex(b"\xff\xdb"))  # after the last table
    for cut in np.linspace(start + 14, len(data) - 3, 25).astype(int):
        path.write_bytes(data[:cut] + b"\xff\xd9")
        try:
            same = (read_image(path) == whole).all()
        except CaseError as error:
            assert "cannot be decoded" in str(error)
        else:  # nothing but padding was lost, or bits of the very last block
            assert same or cut > len(data) - 6


def test_a_jpeg_without_its_last_scans_is_refused(tmp_path: Path) -> None:
    """Breaks if the coarse part of a progressive picture passes for the whole."""
    data = JPEGS["quality 75, subsampling 2, progressive True"]
    last = data.rindex(b"\xff\xda")
    (tmp_path / "a.jpg").write_bytes(data[: data.rindex(b"\xff\xc4", 0, last)] + b"\xff\xd9")
    with pytest.raises(CaseError, match="its last scans are missing"):
        read_image(tmp_path / "a.jpg")


def tiled_tiff(pixels: np.ndarray, compression: int, orientation: int = 1) -> bytes:
    """A TIFF file of 32 × 32 tiles: 1 as they are, 8 deflated."""
    height, width = pixels.shape
    padded = np.pad(pixels, ((0, -height % 32), (0, -width % 32)))
    tiles = [
        padded[y : y + 32, x : x + 32].tobytes()
        for y in range(0, padded.shape[0], 32) for x in range(0, padded.shape[1], 32)
    ]  # fmt: skip
    packed = tiles if compression == 1 else [zlib.compress(tile) for tile in tiles]
    lengths = [len(tile) for tile in packed]
    starts = [8 + sum(lengths[:number]) for number in range(len(packed))]
    arrays = 8 + sum(lengths)
    entries = [
        (256, width), (257, height), (258, 8), (259, compression), (262, 1), (274, orientation),
        (277, 1), (322, 32), (323, 32), (324, arrays), (325, arrays + 4 * len(packed)),
    ]  # fmt: skip
    listed = struct.pack(f"<{2 * len(packed)}I", *starts, *lengths)
    directory = struct.pack("<H", len(entries))
    for tag, value in entries:
        directory += struct.pack("<HHII", tag, 4, len(packed) if tag in (324, 325) else 1, value)
    at = arrays + len(listed)
    return b"II*\0" + struct.pack("<I", at) + b"".join(packed) + listed + directory + bytes(4)


def tiffs() -> dict[str, bytes]:
    """TIFF files of many kinds."""
    grey = SCENE[..., 0]
    mask = (grey > 120).astype(np.uint8) * 255
    files = {
        f"{compression}, {name}": saved("TIFF", pixels, compression=compression, strip_size=2000)
        for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
        for name, pixels in {"grey": grey, "colour": SCENE, "mask": mask}.items()
    }
    for code in (1, 5, 8, 32773):
        settings = [cv2.IMWRITE_TIFF_COMPRESSION, code, cv2.IMWRITE_TIFF_ROWSPERSTRIP, 7]
        for name, pixels in {"grey": grey, "16 bits": grey.astype(np.uint16) * 257}.items():
            encoded = cv2.imencode(".tif", pixels, settings)[1]
            files[f"OpenCV {code}, {name}"] = encoded.tobytes()
    return files | {"tiles": tiled_tiff(grey, 1), "deflated tiles": tiled_tiff(grey, 8)}


TIFFS = tiffs()


def pieces(data: bytes) -> Iterator[tuple[int, int]]:
    """Where the strips or tiles of a TIFF file lie: start and length."""
    with Image.open(io.BytesIO(data)) as image:
        tags = image.tag_v2
    starts, lengths = (tags.get(a) or tags[b] for a, b in ((273, 324), (279, 325)))
    yield from zip(starts, lengths, strict=True)


@pytest.mark.parametrize("what", TIFFS)
def test_cut_tiffs_are_refused(tmp_path: Path, what: str) -> None:
    """Breaks if a strip or tile that was cut is painted black or grey in silence."""
    data, path = TIFFS[what], tmp_path / "a.tif"
    path.write_bytes(data)
    expected = np.asarray(Image.open(path))
    if expected.dtype == np.uint16:
        expected = (expected // 257).astype(np.uint8)
    whole = read_image(path)
    assert np.abs(whole.astype(int) - np.atleast_3d(expected)).max() <= 4
    for start, length in list(pieces(data))[:: 3 if "tiles" not in what else 1]:
        for share in (0.1, 0.5, 0.9):
            cut = start + int(length * share)
            path.write_bytes(data[:cut] + bytes(start + length - cut) + data[start + length :])
            if what.startswith(("OpenCV 1,", "tiles")):
                continue  # zeros are pixels like any other there
            try:
                assert (read_image(path) == whole).all()
            except CaseError as error:
                assert "cannot be decoded" in str(error)
    for cut in (len(data) // 2, len(data) - 300):
        path.write_bytes(data[:cut])
        with pytest.raises(CaseError, match=r"cannot be decoded|holds 2 pictures"):
            read_image(path)


def test_a_tiff_without_its_colours_is_refused(tmp_path: Path) -> None:
    """Breaks if the palette of a cut file is taken for black, or made up."""
    buffer = io.BytesIO()
    Image.fromarray(SCENE).convert("P").save(buffer, "TIFF", compression="packbits")
    (tmp_path / "a.tif").write_bytes(buffer.getvalue())
    assert read_image(tmp_path / "a.tif").any()
    (tmp_path / "a.tif").write_bytes(buffer.getvalue()[:-1400])
    with pytest.raises(CaseError, match="its directory cannot be read"):
        read_image(tmp_path / "a.tif")


def test_damaged_tiffs_say_nothing_of_their_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Breaks if a library's words stand on stderr beside the line about the file."""
    for what in (
        "tiff_lzw, grey",
        "tiff_adobe_deflate, colour",
        "OpenCV 5, 16 bits",
        "OpenCV 8, grey",
    ):
        data = TIFFS[what]
        start, length = next(pieces(data))
        cut, end = start + length // 2, start + length
        (tmp_path / "a.tif").write_bytes(data[:cut] + bytes(end - cut) + data[end:])
        with pytest.raises(CaseError):
            read_image(tmp_path / "a.tif")
    assert capfd.readouterr() == ("", "")


def test_cut_bmps_are_refused(tmp_path: Path) -> None:
    """Breaks if the rest of a short BMP file is black."""
    data = saved("BMP")
    for cut in range(40, len(data) - 1, 1999):
        (tmp_path / "a.bmp").write_bytes(data[:cut])
        with pytest.raises(CaseError, match="cannot be decoded"):
            read_image(tmp_path / "a.bmp")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "LZW", "16 bits", "tiles"])
def test_pictures_are_read_as_they_are_shown(tmp_path: Path, kind: str, orientation: int) -> None:
    """Breaks if an orientation tag is passed over: the picture lies on its side, or its mask."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    grey = SCENE[..., 0]
    files = {
        "JPEG": lambda pixels: saved("JPEG", pixels, exif=exif.tobytes(), quality=100),
        "PNG": lambda pixels: saved("PNG", pixels, exif=exif.tobytes()),
        "TIFF": lambda pixels: saved("TIFF", pixels, tiffinfo={274: orientation}),
        "LZW": lambda pixels: saved(
            "TIFF", pixels, tiffinfo={274: orientation}, compression="tiff_lzw"
        ),
        "16 bits": lambda pixels: saved(
            "TIFF", pixels.astype(np.uint16) * 257, tiffinfo={274: orientation}
        ),
        "tiles": lambda pixels: tiled_tiff(pixels, 8, orientation),
    }
    path, upright = tmp_path / "a.png", Image.fromarray(grey)
    upright.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(upright))
    path.write_bytes(files[kind](grey))
    assert read_image(path).shape == (*expected.shape, 3)
    assert np.abs(read_image(path)[..., 0].astype(int) - expected).max() <= 3
    mask = np.zeros_like(grey)
    mask[10:30, 90:140] = 255
    path.write_bytes(files[kind](mask))
    upright = Image.fromarray(mask)
    upright.getexif()[0x0112] = orientation
    assert (read_mask(path) == np.asarray(ImageOps.exif_transpose(upright)) // 255).all()
