"""DICOM ultrasound as pixels and millimetres, of every colour and storage; and hostile ones."""

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("pydicom")
from pydicom import uid
from pydicom.encaps import encapsulate
from scripts.fuzzing.dicoms import content_of, jpeg, lossless_jpeg

from anatosegnet.data import dicom as reading
from anatosegnet.data.case import CaseError
from anatosegnet.data.dicom import Dicom, is_dicom, region_of
from anatosegnet.errors import UserError
from tests.dicoms import (
    SECRETS,
    colour_picture,
    dicom,
    grey_picture,
    of_jpeg,
    region,
    write_dicom,
)

LOSSLESS = (
    uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian, uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless,
    uid.JPEGLosslessSV1, uid.JPEGLossless,
)  # fmt: skip


def read(path: Path) -> list[np.ndarray]:
    """All frames; the first error is raised."""
    found = []
    for picture in Dicom(path).pictures():
        if isinstance(picture, CaseError):
            raise picture
        found.append(picture)
    return found


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.name[:25])
@pytest.mark.parametrize("kind", ["MONOCHROME2", "MONOCHROME1", "RGB"])
def test_what_is_stored_is_what_is_read(
    kind: str, syntax: uid.UID, count: int, tmp_path: Path
) -> None:
    """Breaks if a way of storing loses a frame, a bit, or takes black for white."""
    make = colour_picture if kind == "RGB" else grey_picture
    size = (47, 61)  # odd: frames of an odd number of bytes
    frames = [make(seed, size) for seed in range(count)]
    path = write_dicom(tmp_path / "a.dcm", frames, kind, syntax)
    found = read(path)
    assert len(found) == count
    for picture, frame in zip(found, frames, strict=True):
        expected = frame if frame.ndim == 3 else cv2.cvtColor(frame, cv2.COLOR_GRAY2RGB)
        np.testing.assert_array_equal(
            picture, 255 - expected if kind == "MONOCHROME1" else expected
        )


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("kind", ["MONOCHROME2", "YBR_FULL", "YBR_FULL_422", "RGB"])
def test_jpeg(kind: str, count: int, tmp_path: Path) -> None:
    """Breaks if the colours of a JPEG are taken for others, as where YCbCr is shown as RGB."""
    make = grey_picture if kind == "MONOCHROME2" else colour_picture
    frames = [make(seed) for seed in range(count)]
    path = write_dicom(tmp_path / "a", frames, kind, uid.JPEGBaseline8Bit)
    for picture, frame in zip(read(path), frames, strict=True):
        expected = frame if frame.ndim == 3 else cv2.cvtColor(frame, cv2.COLOR_GRAY2RGB)
        assert np.abs(picture.astype(int) - expected).mean() < 4


@pytest.mark.parametrize(
    "kind, names",
    [
        *((kind, names) for kind in ("RGB", "YBR_FULL") for names in (b"\1\2\3", b"\0\1\2")),
        ("RGB", b"RGB"),  # with YBR_FULL pydicom believes these names
    ],
)
@pytest.mark.parametrize("extra", [b"", b"\xff\xe0\0\x10JFIF\0\1\2\0\0\1\0\1\0\0"])
def test_colours_of_lossless_jpeg(kind: str, names: bytes, extra: bytes, tmp_path: Path) -> None:
    """Breaks if what a JPEG says of its colours is believed before what the DICOM header says."""
    rgb = colour_picture()
    stored = cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]] if kind != "RGB" else rgb
    found = dicom([rgb], kind, uid.JPEGLossless)
    found.PixelData = encapsulate([lossless_jpeg(stored, extra, names)])
    path = tmp_path / "a.dcm"
    path.write_bytes(content_of(found))
    assert np.abs(read(path)[0].astype(int) - rgb).max() <= 3 * (kind != "RGB")


@pytest.mark.parametrize("syntax", [uid.JPEG2000, uid.JPEGLSNearLossless])
def test_lossy(syntax: str, tmp_path: Path) -> None:
    """Breaks if the lossy kinds of JPEG 2000 and JPEG-LS are not read."""
    frame = colour_picture()
    found = dicom([frame], "RGB")
    options: dict[str, Any] = {"j2k_psnr": [40]} if syntax == uid.JPEG2000 else {"jls_error": 2}
    found.compress(syntax, generate_instance_uid=False, **options)
    path = tmp_path / "a.dcm"
    path.write_bytes(content_of(found))
    assert np.abs(read(path)[0].astype(int) - frame).mean() < 4


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless])
def test_ybr_full(syntax: str, tmp_path: Path) -> None:
    """Breaks if stored YCbCr is not turned into RGB."""
    rgb = colour_picture()
    ycrcb = cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    path = write_dicom(tmp_path / "a.dcm", [ycrcb], "YBR_FULL", syntax)
    assert np.abs(read(path)[0].astype(int) - rgb).max() <= 3


def test_ybr_full_422(tmp_path: Path) -> None:
    """Breaks if the halved colours of uncompressed YBR_FULL_422 are not read, of each frame."""
    frames = []
    for seed in range(3):
        ycrcb = cv2.cvtColor(colour_picture(seed), cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
        ycrcb[:, 1::2, 1:] = ycrcb[:, ::2, 1:]
        frames.append(ycrcb)
    stored = b"".join(
        np.stack([f[:, ::2, 0], f[:, 1::2, 0], f[:, ::2, 1], f[:, ::2, 2]], -1).tobytes()
        for f in frames
    )
    path = tmp_path / "a.dcm"
    content = dicom(frames, "YBR_FULL_422")
    content.PixelData = stored
    path.write_bytes(content_of(content))
    for picture, frame in zip(read(path), frames, strict=True):
        expected = cv2.cvtColor(frame[..., [0, 2, 1]], cv2.COLOR_YCrCb2RGB)
        assert np.abs(picture.astype(int) - expected).max() <= 3


@pytest.mark.parametrize("bits", [8, 16])
def test_palette(bits: int, tmp_path: Path) -> None:
    """Breaks if numbers of colours are taken for grey levels."""
    numbers = grey_picture()
    table = np.arange(256, dtype=np.uint16)
    scale, dtype = (1, np.uint8) if bits == 8 else (257, np.uint16)
    tables = {
        "Red": (table * scale).astype(dtype),
        "Green": ((255 - table) * scale).astype(dtype),
        "Blue": (np.roll(table, 50) * scale).astype(dtype),
    }
    other: dict[str, Any] = {}
    for colour, values in tables.items():
        other[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        other[f"{colour}PaletteColorLookupTableData"] = values.tobytes()
    path = write_dicom(tmp_path / "a.dcm", [numbers], "PALETTE COLOR", **other)
    expected = np.stack([(tables[c] // scale)[numbers] for c in tables], -1)
    np.testing.assert_array_equal(read(path)[0], expected)


@pytest.mark.parametrize(
    ("dtype", "syntax", "other"),
    [
        (np.uint16, uid.ExplicitVRLittleEndian, {"BitsStored": 12}),
        (np.uint16, uid.ExplicitVRBigEndian, {"BitsStored": 12}),
        (np.uint16, uid.JPEG2000Lossless, {"BitsStored": 12}),
        (np.uint16, uid.JPEGLSLossless, {"BitsStored": 12}),
        (np.uint16, uid.RLELossless, {}),
        (np.int16, uid.ExplicitVRLittleEndian, {"WindowCenter": 0, "WindowWidth": 4096}),
        (np.uint16, uid.ExplicitVRLittleEndian,
         {"RescaleSlope": 2, "RescaleIntercept": -4096, "WindowCenter": ["0", "7"],
          "WindowWidth": [8192, 3]}),
    ],
)  # fmt: skip
def test_deep_grey(dtype: type, syntax: str, other: dict[str, Any], tmp_path: Path) -> None:
    """Breaks if 12 bits in 16 are shown nearly black, or a window or the rescaling is not used."""
    grey = grey_picture()
    stored = (grey.astype(np.int32) * 4095 // 255 - (2048 if dtype == np.int16 else 0)).astype(
        dtype
    )
    path = write_dicom(tmp_path / "a.dcm", [stored], syntax=syntax, **other)
    assert np.abs(read(path)[0][..., 0].astype(int) - grey).max() <= 1


def test_a_window_of_8_bits_that_changes_nothing_changes_nothing(tmp_path: Path) -> None:
    """Breaks if the common 128/256 shifts grey levels."""
    grey = grey_picture()
    path = write_dicom(tmp_path / "a", [grey], WindowCenter="128", WindowWidth="256")
    np.testing.assert_array_equal(read(path)[0][..., 1], grey)


def test_regions(tmp_path: Path) -> None:
    """Breaks if a lesion is measured by the scale of another part of the picture, or of none."""
    regions = [
        region(0, 10, 29, 47, (0.01, 0.02)),
        region(30, 10, 59, 47, (-0.03, 0.03)),
        region(0, 0, 59, 9, PhysicalUnitsXDirection=0),
        region(0, 0, 59, 47, RegionDataType=2),
        region(0, 0, 59, 47, RegionSpatialFormat=2),
        region(0, 0, 59, 47, (float("nan"), 0.1)),
        region(0, 0, 59, 47, (1e300, 1e300)),
        region(50, 40, 3, 2),
    ]
    path = write_dicom(tmp_path / "a.dcm", [grey_picture()], regions=regions)
    found = Dicom(path).regions
    assert [one.spacing for one in found] == [(0.1, 0.2), (0.3, 0.3)]
    lesion = np.zeros((48, 60), bool)
    lesion[20:30, 5:15] = True
    assert region_of(lesion, found) == found[0]
    assert found[0].rows.start == 10
    assert region_of(np.roll(lesion, 30, 1), found) == found[1]
    assert region_of(np.roll(lesion, 20, 1), found) is None  # in both
    assert not Dicom(write_dicom(tmp_path / "b.dcm", [grey_picture()])).regions


def test_dicom_is_known_without_its_suffix(tmp_path: Path) -> None:
    """Breaks if files as scanners write them, without a suffix, are passed over."""
    assert is_dicom(write_dicom(tmp_path / "IM_0001", [grey_picture()]))
    (tmp_path / "b").write_bytes(b"x" * 200)
    assert not is_dicom(tmp_path / "b")
    assert not is_dicom(tmp_path)


def hostile() -> dict[str, tuple[bytes, str]]:
    """Files that lie, and a part of what must be said of them."""
    grey = grey_picture()
    whole = content_of(dicom([grey]))
    small = dicom([grey], syntax=uid.JPEGBaseline8Bit)

    def changed(found: Any = None, **other: Any) -> bytes:
        found = dicom([grey]) if found is None else found
        for name, value in other.items():
            setattr(found, name, value)
        return content_of(found)

    def frames(content: bytes, syntax: str, **other: Any) -> bytes:
        found = dicom([grey], syntax=uid.JPEGBaseline8Bit, **other)
        found.PixelData = encapsulate([content])
        found["PixelData"].is_undefined_length = True
        found.file_meta.TransferSyntaxUID = uid.UID(syntax)
        return content_of(found)

    still = jpeg(grey, **of_jpeg("MONOCHROME2"))
    lossless = lossless_jpeg(grey)
    bomb = bytearray(still)
    at = bomb.index(b"\xff\xc0")
    bomb[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    j2k = dicom([grey], syntax=uid.JPEG2000Lossless)
    start = j2k.PixelData.index(b"\xff\x4f\xff\x51")
    large = bytearray(j2k.PixelData[start:])
    large[8:16] = struct.pack(">2I", 2**31 - 1, 2**31 - 1)
    tiles = bytearray(j2k.PixelData[start:])
    tiles[24:32] = struct.pack(">2I", 1, 1)
    rle = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x00" * 2**20
    deflated = content_of(dicom([grey], syntax=uid.DeflatedExplicitVRLittleEndian))
    deflated = deflated[: 144 + struct.unpack_from("<I", deflated, 140)[0]]
    stream = zlib.compressobj(9, wbits=-15)
    unfolding = stream.compress(bytes(2**22)) + stream.flush()
    return {
        "empty": (b"", "zero bytes"),
        "no DICOM": (b"x" * 1000, "no DICOM file"),
        "only magic": (bytes(128) + b"DICM", "transfer syntax"),
        "cut": (whole[: len(whole) // 2], ""),
        "huge": (changed(Rows=65535, Columns=65535), "65535×65535"),
        "no rows": (changed(Rows=0), "0 pixels"),
        "many frames": (changed(NumberOfFrames=10**9), "claims to hold 1000000000"),
        "negative frames": (changed(NumberOfFrames=-3), "-3"),
        "more frames than data": (changed(NumberOfFrames=9000), "missing"),
        "more frames than compressed": (changed(small, NumberOfFrames=9), ""),
        "taller": (changed(Rows=60), "missing"),
        "odd bits": (changed(BitsAllocated=7), "bits"),
        "odd colours": (changed(PhotometricInterpretation="CMYK"), "colours"),
        "odd samples": (changed(SamplesPerPixel=2), "colours"),
        "palette without": (changed(PhotometricInterpretation="PALETTE COLOR"), "damaged"),
        "no pixels": (content_of_without(dicom([grey]), "PixelData"), "no picture"),
        "jpeg bomb": (frames(bytes(bomb), uid.JPEGBaseline8Bit), "another size"),
        "jpeg cut": (frames(still[:300] + b"\xff\xd9", uid.JPEGBaseline8Bit), "missing"),
        "jpeg of text": (frames(b"hello" * 30, uid.JPEGBaseline8Bit), "another kind"),
        "j2k bomb": (frames(bytes(large), uid.JPEG2000), "another size"),
        "j2k tiles": (frames(bytes(tiles), uid.JPEG2000), "tiles"),
        "j2k cut": (frames(bytes(large[:60]), uid.JPEG2000), ""),
        "jls bomb": (frames(bytes(bomb).replace(b"\xff\xc0", b"\xff\xf7"), uid.JPEGLSLossless),
                     "another size"),
        "rle bomb": (frames(rle, uid.RLELossless), "longer than"),
        "unknown storage": (frames(b"ab", "1.2.840.10008.1.2.4.100"), "not read"),
        "lossless jpeg cut": (
            frames(lossless[:-300] + b"\xff\xd9", uid.JPEGLosslessSV1), "missing",
        ),
        "lossless jpeg bomb": (
            frames(bytes(bomb).replace(b"\xff\xc0", b"\xff\xc3"), uid.JPEGLossless), "another size",
        ),
        "lossless jpeg of 16 bits": (
            frames(lossless_jpeg(grey.astype(np.uint16)), uid.JPEGLossless), "8 bits",
        ),
        "lossless jpeg of text": (frames(b"hello" * 30, uid.JPEGLosslessSV1), "another kind"),
        "deflate bomb": (deflated + unfolding, "unfolds beyond measure"),
        "deflate cut": (deflated + unfolding[:-20], "end of its compressed data"),
        "nested": (nested(whole), ""),
    }  # fmt: skip


def content_of_without(found: Any, name: str) -> bytes:
    """A file without an element."""
    delattr(found, name)
    return content_of(found)


def nested(whole: bytes) -> bytes:
    """Sequences within sequences, 30,000 deep, where the regions stand."""
    begin = b"\x18\x00\x11\x60SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    at = whole.index(b"\x28\x00\x02\x00")
    return whole[:at] + begin * 30_000 + whole[at:]


@pytest.mark.parametrize("name", hostile())
def test_a_hostile_file_is_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """Breaks if a lying file is a traceback, a hang, all memory, or tells of the patient."""
    monkeypatch.setattr(reading, "MOST_INFLATED", 2**20)
    content, told = hostile()[name]
    path = tmp_path / "a.dcm"
    path.write_bytes(content)
    with pytest.raises(CaseError) as found:
        read(path)
    line = str(found.value)
    assert line.startswith(str(path)) and "\n" not in line
    assert told in line
    said = line + "".join(capfd.readouterr())
    assert not [secret for secret in SECRETS if secret in said]


def test_a_damaged_frame_does_not_take_the_others(tmp_path: Path) -> None:
    """Breaks if a cine is lost for one frame of it."""
    frames = [grey_picture(seed) for seed in range(3)]
    found = dicom(frames, syntax=uid.JPEGBaseline8Bit)
    pictures = [jpeg(frame, **of_jpeg("")) for frame in frames]
    found.PixelData = encapsulate([pictures[0], pictures[1][:200], pictures[2]])
    path = tmp_path / "a.dcm"
    path.write_bytes(content_of(found))
    kinds = [type(picture) for picture in Dicom(path).pictures()]
    assert kinds == [np.ndarray, CaseError, np.ndarray]
    told = [str(one) for one in Dicom(path).pictures() if isinstance(one, CaseError)]
    assert "frame 2" in told[0]


def test_the_patient_is_never_held(tmp_path: Path) -> None:
    """Breaks if elements beyond the pixels and their scale are kept of a file."""
    path = write_dicom(tmp_path / "a.dcm", [grey_picture()], regions=[region(0, 0, 9, 9)])
    assert not [secret for secret in SECRETS if secret in str(Dicom(path).header)]


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Breaks if an installation without pydicom ends in a traceback."""
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    monkeypatch.setitem(__import__("sys").modules, "pydicom.config", None)
    with pytest.raises(UserError, match=r"anatosegnet\[dicom\]"):
        reading.require_pydicom()
