"""A corpus of damaged and odd inputs: each is read rightly, or named in one line.

Never a traceback, a wait without end, a word of a library on stderr, or a case lost in silence.
"""

import io
import os
import shutil
import socket
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from anatosegnet.data.case import read_image
from anatosegnet.data.datasets.breast_lesions_usg import BreastLesionsUSGSource
from anatosegnet.data.datasets.folder import FolderSource
from anatosegnet.data.preparation.audit import Audit, audit
from anatosegnet.data.prepared import look_for_data
from anatosegnet.data.source import Found
from anatosegnet.data.split import FilesSplit
from anatosegnet.errors import UserError
from tests.conftest import grey_image, square_mask, write_png
from tests.data.test_breast_lesions_usg import breast, write_sheet  # noqa: F401 (a fixture)
from tests.preparing import found, prepared

SIZE = (200, 220)
RGB = np.random.default_rng(5).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
SMOOTH = cv2.resize(RGB[:8, :8], SIZE[::-1], interpolation=cv2.INTER_CUBIC)
GREY = RGB[..., 0]


def saved(kind: str, pixels: np.ndarray = RGB, mode: str | None = None, **options: object) -> bytes:
    """An image file as bytes."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def by_opencv(suffix: str, pixels: np.ndarray) -> bytes:
    """An image file of a kind that Pillow does not write."""
    return cv2.imencode(suffix, pixels)[1].tobytes()


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def png(width: int, height: int, rows: int) -> bytes:
    """A grey PNG file that claims a size and holds some black rows."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    content = zlib.compress(bytes((min(width, 1000) + 1) * rows))
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def frames(kind: str) -> bytes:
    """Three pictures in one file."""
    others = [Image.fromarray(np.roll(RGB, 50 * step, 0)) for step in (1, 2)]
    return saved(kind, save_all=True, append_images=others)


def flipped(data: bytes, at: float) -> bytes:
    """A file with a byte changed."""
    position = int(len(data) * at)
    return data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]


def with_value(value: float, dtype: type = np.float32) -> bytes:
    """A TIFF file of 0.5 but for one pixel."""
    pixels = np.full(SIZE, 0.5 if dtype == np.float32 else 7, dtype)
    pixels[3, 3] = value
    return by_opencv(".tiff", pixels)


PNG, JPEG, TIFF, BMP = saved("PNG"), saved("JPEG"), saved("TIFF"), saved("BMP")
DAMAGED = "cannot be decoded"

# name of the file, its bytes, and what its line says
BROKEN: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.png", b"", "zero bytes"),
    "text": ("a.png", b"hello", DAMAGED),
    "web page": ("a.jpg", b"<html>log in</html>", DAMAGED),
    "signature only": ("a.png", b"\x89PNG\r\n\x1a\n", DAMAGED),
    "byte of the pixels flipped": ("a.png", flipped(PNG, 0.5), DAMAGED),
    "byte of the header flipped": ("a.png", flipped(PNG[:33], 0.6) + PNG[33:], DAMAGED),
    "too few rows": ("a.png", png(50, 50, 1), DAMAGED),
    "no width": ("a.png", png(0, 50, 1), DAMAGED),
    "no pixels": ("a.png", PNG[:33] + PNG[-12:], DAMAGED),
    "bomb of 10 gigapixels": ("a.png", png(100_000, 100_000, 1), "million pixels"),
    "bomb of 900 megapixels": ("a.png", png(30_000, 30_000, 1), "million pixels"),
    "bomb of 100 megapixels": ("a.png", png(10_000, 10_000, 1), "10000×10000 pixels"),
    "as wide as can be": ("a.png", png(2**31 - 1, 1, 1), "million pixels"),
    "half a JPEG": ("a.jpg", JPEG[: len(JPEG) // 2], "end of the file is missing"),
    "JPEG without its end": ("a.jpg", JPEG[:-2], "end of the file is missing"),
    "header of a JPEG": ("a.jpg", JPEG[:100], DAMAGED),
    "half a TIFF": ("a.tif", TIFF[: len(TIFF) // 2], DAMAGED),
    "TIFF without its end": ("a.tif", TIFF[:-100], DAMAGED),
    "half a compressed TIFF": (
        "a.tif", (lzw := saved("TIFF", compression="tiff_lzw"))[: len(lzw) // 2], DAMAGED),
    "half a BMP": ("a.bmp", BMP[: len(BMP) // 2], DAMAGED),
    "NaN": ("a.tiff", with_value(np.nan), "not numbers"),
    "infinity": ("a.tiff", with_value(np.inf), "not numbers"),
    "floats out of range": ("a.tiff", with_value(300.0), "unknown range"),
    "32-bit integers": ("a.tiff", with_value(9, np.int32), "unknown range"),
    "animated PNG": ("a.png", frames("PNG"), "3 pictures"),
    "animated GIF": ("a.png", frames("GIF"), "3 pictures"),
    "pages": ("a.tif", frames("TIFF"), "3 pictures"),
    "CMYK TIFF": ("a.tif", saved("TIFF", mode="CMYK"), "CMYK"),
    "GIF": ("a.gif", saved("GIF"), r"\.gif is not read; convert"),
    "WebP": ("a.webp", saved("WEBP"), r"\.webp is not read; convert"),
    "DICOM": ("a.dcm", bytes(128) + b"DICM", r"\.dcm is not read; convert"),
    "NumPy": ("a.npy", b"\x93NUMPY", r"\.npy is not read; convert"),
    "no suffix": ("a", PNG, "picture without suffix is not read"),
    "unknown suffix": ("a.picture", PNG, r"\.picture is not read"),
    "line break in the name": ("a\nb.png", PNG, r"a\\nb\.png: rename it"),
    "name that is no text": ("a\udcff.png", PNG, r"a\\udcff\.png: rename it"),
}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with one good case."""
    write_png(tmp_path / "images" / "good.png", grey_image())
    write_png(tmp_path / "labels" / "good.png", square_mask())
    return tmp_path


def put(root: Path, name: str, content: bytes, part: str = "images") -> None:
    """Write a file, and the fitting mask (or image) of the same stem."""
    (root / part / name).write_bytes(content)
    other, stem = "labels" if part == "images" else "images", Path(name).stem
    pixels = square_mask(SIZE) if part == "images" else GREY
    (root / other / f"{stem}.png").write_bytes(by_opencv(".png", pixels))


def look(root: Path, **settings: object) -> Audit:
    """Read everything, as prepare does."""
    data, problems = look_for_data(FolderSource(str(root)), "folder", **settings)
    return audit(data, problems, str(root))


def assert_named(result: Audit, complaint: str) -> None:
    """The bad case, and it alone, is named with what is wrong, each time in one line."""
    assert [record.case.name for record in result.records] == ["good"]
    assert all("\n" not in problem and "Traceback" not in problem for problem in result.problems)
    with pytest.raises(AssertionError, match=complaint):
        raise AssertionError("; ".join(result.problems))


@pytest.mark.parametrize("what", BROKEN)
def test_broken_images_are_named(root: Path, what: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Breaks if a broken image is read in part, lost in silence, or makes a library talk."""
    name, content, complaint = BROKEN[what]
    put(root, name, content)
    assert_named(look(root), complaint)
    if what != "too few rows":  # libpng cannot be kept from saying so too
        assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("what", [key for key in BROKEN if BROKEN[key][2] in (DAMAGED, "NaN")])
def test_broken_masks_are_named(root: Path, what: str) -> None:
    """Breaks if a broken mask becomes an empty one."""
    name, content, complaint = BROKEN[what]
    put(root, name, content, part="labels")
    assert_named(look(root), complaint)


def boundaries(data: bytes) -> Iterator[int]:
    """Where the chunks of a PNG file begin and end, and a place inside each."""
    at = 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        yield from (at, at + 4, at + 8, at + 8 + length // 2, at + 8 + length)
        at += length + 12


def test_png_cut_at_every_chunk(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Breaks if a cut PNG file is read as a picture whose rest is black."""
    cuts = sorted({*boundaries(PNG), len(PNG) - 1})
    assert len(cuts) > 20
    for part in ("images", "labels"):
        for cut in cuts:
            (tmp_path / part).mkdir(exist_ok=True)
            (tmp_path / part / f"cut_{cut}.png").write_bytes(PNG[:cut])
    result = look(tmp_path)
    assert result.records == []
    assert len(result.problems) == len(cuts)
    assert all(DAMAGED in problem and "\n" not in problem for problem in result.problems)
    assert capfd.readouterr() == ("", "")


def odd_images() -> dict[str, tuple[str, bytes, np.ndarray, int]]:
    """Name of the file, its bytes, the pixels it shows, and the difference allowed."""
    three = np.dstack([GREY] * 3)
    bits = np.dstack([(GREY > 127).astype(np.uint8) * 255] * 3)
    palette = Image.fromarray(RGB).convert("P", palette=Image.Palette.ADAPTIVE)
    buffer = io.BytesIO()
    palette.save(buffer, "PNG")
    smooth = np.asarray(Image.open(io.BytesIO(jpeg := saved("JPEG", SMOOTH))).convert("RGB"))
    cmyk = saved("JPEG", SMOOTH, "CMYK", quality=95)
    inks = np.asarray(Image.open(io.BytesIO(cmyk)).convert("RGB"))
    gif = saved("GIF")
    few = np.asarray(Image.open(io.BytesIO(gif)).convert("RGB"))
    deep = RGB.astype(np.uint16) * 257
    return {
        "JPEG called PNG": ("a.png", jpeg, smooth, 4),
        "PNG called JPEG": ("a.jpg", PNG, RGB, 0),
        "GIF called PNG": ("a.png", gif, few, 0),
        "WebP called PNG": ("a.png", saved("WEBP", lossless=True), RGB, 0),
        "suffix in capitals": ("a.PNG", PNG, RGB, 0),
        "junk behind the end": ("a.png", PNG + b"junk", RGB, 0),
        "JPEG with zeros behind": ("a.jpg", jpeg + bytes(64), smooth, 4),
        "progressive JPEG": ("a.jpg", saved("JPEG", SMOOTH, progressive=True), smooth, 4),
        "CMYK JPEG": ("a.jpg", cmyk, inks, 4),
        "16-bit grey": ("a.png", by_opencv(".png", GREY.astype(np.uint16) * 257), three, 0),
        "16-bit colour TIFF": ("a.tif", by_opencv(".tif", deep[..., ::-1]), RGB, 0),
        "floats of 0 to 1": ("a.tif", by_opencv(".tif", GREY.astype(np.float32) / 255), three, 1),
        "colour floats": ("a.tif", by_opencv(".tif", RGB[..., ::-1].astype("f4") / 255), RGB, 1),
        "1-bit": ("a.png", saved("PNG", bits[..., 0] > 0), bits, 0),
        "palette": ("a.png", buffer.getvalue(), np.asarray(palette.convert("RGB")), 0),
        "grey with transparency": ("a.png", saved("PNG", GREY, "LA"), three, 0),
        "letters of the world": ("ä ö é 乳房 (1).png", PNG, RGB, 0),
        "long name": (f"{'a' * 240}.png", PNG, RGB, 0),
        "quotes and commas": ('"a", b; c|d.png', PNG, RGB, 0),
        "compressed TIFF": ("a.tif", saved("TIFF", compression="tiff_lzw"), RGB, 0),
    }  # fmt: skip


ODD_IMAGES = odd_images()


@pytest.mark.parametrize("what", ODD_IMAGES)
def test_odd_images_are_read_rightly(
    root: Path, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Breaks if an unusual but whole file is refused, or read with other pixels."""
    name, content, pixels, tolerance = ODD_IMAGES[what]
    put(root, name, content)
    result = look(root)
    assert result.problems == []
    (record,) = [record for record in result.records if record.case.name != "good"]
    assert record.case.image is not None
    read = read_image(record.case.image)
    assert np.abs(read.astype(int) - pixels).max() <= tolerance
    assert record.lesion == 100
    assert capfd.readouterr() == ("", "")


def loop(path: Path) -> None:
    """A link to itself."""
    path.symlink_to(path)


def bind(path: Path) -> None:
    """A socket of this name; paths to sockets must be short."""
    with socket.socket(socket.AF_UNIX) as made, tempfile.TemporaryDirectory() as short:
        made.bind(f"{short}/s")
        os.replace(f"{short}/s", path)


def terabyte(path: Path) -> None:
    """A file of zeros that takes no room."""
    with path.open("wb") as file:
        file.truncate(2**40)


SPECIAL: dict[str, tuple[Callable[[Path], object], str]] = {
    "link to itself": (loop, "symbolic links"),
    "link to nothing": (lambda path: path.symlink_to("nowhere"), "No such file"),
    "folder": (Path.mkdir, "it is a folder"),
    "pipe": (os.mkfifo, "it is a pipe"),
    "socket": (bind, "it is a socket"),
    "device that never ends": (lambda path: path.symlink_to("/dev/zero"), "it is a device"),
    "terabyte": (terabyte, "it has more than"),
}


@pytest.mark.parametrize("part", ["images", "labels"])
@pytest.mark.parametrize("what", SPECIAL)
def test_what_only_looks_like_a_file(root: Path, what: str, part: str) -> None:
    """Breaks if a pipe is waited for, or a link that leads nowhere gives a traceback."""
    make, complaint = SPECIAL[what]
    put(root, "a.png", PNG)
    (root / part / "a.png").unlink()
    make(root / part / "a.png")
    assert_named(look(root), complaint)


@pytest.mark.parametrize("what", ["pipe", "link to itself", "link to nothing"])
def test_special_files_without_a_suffix_do_no_harm(root: Path, what: str) -> None:
    """Breaks if looking for forgotten pictures waits for a pipe."""
    SPECIAL[what][0](root / "images" / "pipe")
    assert look(root).problems == []


def test_folders_that_are_links_to_themselves(root: Path) -> None:
    """Breaks if a looped folder gives a traceback."""
    shutil.rmtree(root / "labels")
    loop(root / "labels")
    with pytest.raises(UserError, match=r"no folder .*labels"):
        look(root)


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder that a user without rights may enter; the test runs as that user."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        for name in ("good", "a"):
            for part, pixels in (("images", grey_image()), ("labels", square_mask())):
                write_png(folder / part / f"{name}.png", pixels)
        yield folder
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        shutil.rmtree(folder)


def become_nobody() -> None:
    """Root may read everything: give that up until the test ends."""
    if os.getuid() == 0:
        os.seteuid(65534)


def test_a_file_that_may_not_be_read(as_nobody: Path) -> None:
    """Breaks if one forbidden file gives a traceback."""
    (as_nobody / "images" / "a.png").chmod(0)
    become_nobody()
    assert_named(look(as_nobody), r"a\.png: cannot be read \(Permission denied\)")


def test_a_folder_that_may_not_be_read(as_nobody: Path) -> None:
    """Breaks if a forbidden folder gives a traceback, or counts as empty."""
    (as_nobody / "labels").chmod(0)
    become_nobody()
    with pytest.raises(UserError, match=r"labels cannot be read \(Permission denied\)"):
        look(as_nobody)
    os.seteuid(os.getuid())
    (as_nobody / "labels").chmod(0o755)


MISFITS: dict[str, tuple[np.ndarray, str]] = {
    "one row less": (square_mask((SIZE[0] - 1, SIZE[1])), "the mask is 220×199"),
    "sides swapped": (square_mask(SIZE[::-1]), "the mask is 200×220"),
    "half the size": (square_mask((SIZE[0] // 2, SIZE[1] // 2)), "the mask is 110×100"),
    "empty": (np.zeros(SIZE, np.uint8), "the mask is empty"),
    "wholly transparent": (np.zeros((*SIZE, 4), np.uint8), "the mask is empty"),
}


@pytest.mark.parametrize("what", MISFITS)
def test_masks_that_do_not_fit(root: Path, what: str) -> None:
    """Breaks if a mask of another size is resized, or an empty one trains as a lesion."""
    mask, complaint = MISFITS[what]
    put(root, "a.png", PNG)
    write_png(root / "labels" / "a.png", mask)
    assert_named(look(root), complaint)


TABLES: dict[str, tuple[str, str]] = {
    "no id": ("name,class\ngood,benign\na,benign\n", "no column id; its columns are name, class"),
    "a quote without end": (
        '"id,class\ngood,benign\na,' + "b" * 99,
        r"are id,class good,benign a,b{17}…$",
    ),
    "empty table": ("", "has no column id: its first line is empty"),
    "semicolons": ("id;class\ngood;benign\n", "separated by semicolons; save it with commas"),
    "tabs": ("id\tclass\ngood\tbenign\n", "separated by tabs; save it with commas"),
    "a cell without end": ("id,note\ngood," + "x" * 200_000 + "\n", "field larger than"),
    "no text": ("id\ngood\n".encode("utf-16").decode("latin-1"), "no text in UTF-8"),
    "unknown class": ("id,class\ngood,benign\na,cyst\n", "class of a is 'cyst'"),
    "unknown fold": ("id,fold\ngood,1\na,first\n", "fold of a is 'first'"),
    "no pixel size": ("id,pixel_size_mm\ngood,0.1\na,nan\n", "pixel_size_mm of a is 'nan'"),
    "case many times": ("id\ngood\na\na\na\n", "1 problem .*\n.*lists a twice$"),
    "case not there": ("id\ngood\na\nb\n", "b has no image"),
    "case not listed": ("id\ngood\n", "is not in .*cases.csv"),
}


@pytest.mark.parametrize("what", TABLES)
def test_damaged_tables(root: Path, what: str) -> None:
    """Breaks if a wrong table is half believed."""
    text, complaint = TABLES[what]
    put(root, "a.png", PNG)
    (root / "cases.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=complaint) as caught:
        found(FolderSource(str(root)))
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("table", ["cases.csv", "duplicates.csv"])
@pytest.mark.parametrize("what", SPECIAL)
def test_tables_that_only_look_like_files(root: Path, table: str, what: str) -> None:
    """Breaks if a table that is a pipe or a device is waited for, or passed over."""
    put(root, "a.png", PNG)
    SPECIAL[what][0](root / table)
    with pytest.raises(UserError, match=SPECIAL[what][1]) as caught:
        prepared(FolderSource(str(root)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("what", ["pipe", "device that never ends"])
def test_spreadsheets_and_lists_that_only_look_like_files(
    breast: Path,  # noqa: F811
    what: str,
) -> None:
    """Breaks if a spreadsheet, or a list of a split, that is no file is waited for."""
    sheet = next(breast.glob("*.xlsx"))
    sheet.unlink()
    SPECIAL[what][0](sheet)
    with pytest.raises(UserError, match=rf"cannot be read \({SPECIAL[what][1]}\)"):
        found(BreastLesionsUSGSource(str(breast)))
    with pytest.raises(UserError, match=rf"cannot be read \({SPECIAL[what][1]}\)"):
        FilesSplit(str(sheet), str(sheet))([])


def test_a_spreadsheet_that_explodes(breast: Path) -> None:  # noqa: F811
    """Breaks if a small spreadsheet may take all memory."""
    sheet = next(breast.glob("*.xlsx"))
    with zipfile.ZipFile(sheet, "a", zipfile.ZIP_DEFLATED) as parts:
        parts.writestr("xl/media/huge.xml", bytes(2**28))
    with pytest.raises(UserError, match=r"would unpack to 26\d MB"):
        found(BreastLesionsUSGSource(str(breast)))


@pytest.mark.parametrize("cell", ["../../x.png", "/etc/hostname", "a/../../x.png", "..", "b\\c"])
@pytest.mark.parametrize("column", [1, 2])
def test_names_that_lead_out_of_the_folder(
    breast: Path,  # noqa: F811
    cell: str,
    column: int,
) -> None:
    """Breaks if a spreadsheet may name files elsewhere."""
    row = [1, "case001.png", "case001_tumor.png", None, 0.01, "benign"]
    row[column] = cell if column == 1 else f"case001_tumor.png&{cell}"
    write_sheet(breast, [tuple(row)])
    data, problems = look_for_data(BreastLesionsUSGSource(str(breast)), "b")
    assert not data.cases
    assert f"names {cell!r}, which is no file of" in problems[0]


def test_names_of_cases_are_parts_of_paths(root: Path) -> None:
    """Breaks if a source may name a case, or a dataset, so that it is written elsewhere."""

    class Elsewhere(FolderSource):
        def find_cases(self) -> Found:
            return Found([replace(c, name=f"../{c.name}") for c in super().find_cases().cases])

    with pytest.raises(UserError, match=r"must be a name|must not hold"):
        found(Elsewhere(str(root)))
    for name in ("../../victim", "/tmp/x", "..", "", "a/b"):
        with pytest.raises(UserError, match=r"data\.name="):
            found(FolderSource(str(root)), name=name)


@pytest.mark.parametrize(
    "column", ["Image_filename", "Mask_tumor_filename", "Pixel_size", "Classification"]
)
def test_spreadsheet_without_a_column(breast: Path, column: str) -> None:  # noqa: F811
    """Breaks if a spreadsheet of another edition gives a traceback."""
    write_sheet(breast, [], drop=column)
    with pytest.raises(UserError, match=rf"\.xlsx has no column {column}") as caught:
        found(BreastLesionsUSGSource(str(breast)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"CaseID,Image_filename\n1,a.png\n", PNG])
def test_spreadsheet_that_is_none(breast: Path, content: bytes) -> None:  # noqa: F811
    """Breaks if a damaged spreadsheet gives a traceback."""
    next(breast.glob("*.xlsx")).write_bytes(content)
    with pytest.raises(UserError, match=r"\.xlsx cannot be read") as caught:
        found(BreastLesionsUSGSource(str(breast)))
    assert "\n" not in str(caught.value)


def test_spreadsheet_with_wrong_cells(breast: Path) -> None:  # noqa: F811
    """Breaks if an unknown class trains under its own name, or NaN becomes a size in mm."""
    rows = [
        (1, "case001.png", "case001_tumor.png", None, "nan", "BENIGN"),
        (2, "case002.png", "case002_tumor.png&case002_tumor2.png", None, -1, "malign"),
        (3, "case003.png", None, None, 0.01, "normal"),
    ]
    write_sheet(breast, rows)
    with pytest.raises(UserError, match="2 problems") as caught:
        found(BreastLesionsUSGSource(str(breast)))
    assert "Classification of it is 'malign'" in str(caught.value)
    assert "case002.png: the spreadsheet gives its Pixel_size as '-1'" in str(caught.value)


def test_the_corpus_is_large_enough() -> None:
    """Breaks if the corpus shrinks below what was promised."""
    assert len(BROKEN) + len(ODD_IMAGES) + len(SPECIAL) + len(MISFITS) + len(TABLES) >= 60
