"""Reading images and masks of every kind met in the field."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from anatosegnet.data.case import Case, CaseError, read_case, read_image, read_mask
from tests.conftest import grey_image, square_mask, write_png

GREY = grey_image()
RGB = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
MASK = square_mask() > 0


def save(path: Path, pixels: np.ndarray, mode: str | None = None) -> Path:
    """Save with Pillow, optionally converted to a mode."""
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)
    return path


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".tif", ".tiff", ".bmp"])
def test_grey_and_colour_images(tmp_path: Path, suffix: str) -> None:
    """Breaks if channels are swapped, or a lossless format changes a pixel."""
    assert (read_image(save(tmp_path / f"grey{suffix}", GREY)) == GREY[..., None]).all()
    assert (read_image(save(tmp_path / f"rgb{suffix}", RGB)) == RGB).all()


def test_jpeg(tmp_path: Path) -> None:
    """Breaks if JPEG colours are swapped."""
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 200
    for suffix in (".jpg", ".jpeg"):
        read = read_image(save(tmp_path / f"red{suffix}", red))
        assert np.abs(read.astype(int) - red).max() < 10


@pytest.mark.parametrize("mode", ["1", "P", "L", "LA", "RGBA"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    """Breaks if a 1-bit, palette or transparent image is read as something else."""
    expected = Image.fromarray(RGB).convert(mode)
    path = tmp_path / "image.png"
    expected.save(path)
    assert (read_image(path) == np.asarray(expected.convert("RGB"))).all()


@pytest.mark.parametrize("top", [1023, 4095, 65535])
def test_16_bit_images_use_their_own_depth(tmp_path: Path, top: int) -> None:
    """Breaks if a 10- or 12-bit image in a 16-bit file comes out almost black."""
    pixels = np.linspace(0, top, 2000).reshape(40, 50).astype(np.uint16)
    read = read_image(write_png(tmp_path / "deep.png", pixels))
    assert read.dtype == np.uint8
    expected = np.rint(pixels * (255 / top))
    assert (read == expected[..., None]).all()


def test_16_bit_colours_are_not_judged_by_their_transparency(tmp_path: Path) -> None:
    """Breaks if an opaque 12-bit image comes out almost black, or 8 bits in 16 do."""
    opaque = np.dstack([RGB[..., ::-1].astype(np.uint16) * 16, np.full((40, 50), 65535, np.uint16)])
    read = read_image(write_png(tmp_path / "rgba.png", opaque))
    assert np.abs(read.astype(int) - RGB).max() <= 1
    shallow = read_image(write_png(tmp_path / "shallow.png", GREY.astype(np.uint16)))
    assert (shallow == GREY[..., None]).all()


def test_float_tiff(tmp_path: Path) -> None:
    """Breaks if floats in 0..1 are truncated to black, or NaN goes through."""
    pixels = np.linspace(0, 1, 2000, dtype=np.float32).reshape(40, 50)
    assert read_image(write_png(tmp_path / "float.tiff", pixels)).max() == 255
    with pytest.raises(CaseError, match="range"):
        read_image(write_png(tmp_path / "large.tiff", pixels * 300))
    pixels[3, 3] = np.nan
    with pytest.raises(CaseError, match="not numbers"):
        read_image(write_png(tmp_path / "nan.tiff", pixels))


def coloured(colour: tuple[int, ...]) -> np.ndarray:
    """The square in a colour on black."""
    pixels = np.zeros((40, 50, len(colour)), np.uint8)
    pixels[MASK] = colour
    return pixels


def transparent() -> np.ndarray:
    """White everywhere, opaque on the square only."""
    return np.dstack([np.full((40, 50, 3), 255, np.uint8), MASK.astype(np.uint8) * 255])


@pytest.mark.parametrize(
    "pixels",
    [
        MASK.astype(np.uint8),
        MASK.astype(np.uint8) * 255,
        MASK.astype(np.uint8) * 3,
        MASK.astype(np.uint16) * 65535,
        MASK,
        coloured((255, 0, 0)),
        coloured((0, 128, 0)),
        coloured((255, 255, 255, 255)),
        np.dstack([coloured((1, 1, 1)), np.full((40, 50), 255, np.uint8)]),
        transparent(),
    ],
    ids=["01", "0255", "label3", "16bit", "1bit", "red", "green", "rgba", "01alpha", "alpha"],
)
def test_masks_become_zero_and_one(tmp_path: Path, pixels: np.ndarray) -> None:
    """Breaks if a convention of masks is misread, as empty or as full."""
    mask = read_mask(save(tmp_path / "mask.png", pixels))
    assert mask.dtype == np.uint8
    assert (mask == MASK).all()


def test_palette_mask(tmp_path: Path) -> None:
    """Breaks if palette indices are taken for brightness."""
    image = Image.fromarray(MASK.astype(np.uint8) * 2).convert("P")
    image = Image.fromarray(np.asarray(image), "P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 160, 0])
    image.save(tmp_path / "mask.png")
    assert (read_mask(tmp_path / "mask.png") == MASK).all()


def test_anti_aliased_mask_keeps_its_area(tmp_path: Path) -> None:
    """Breaks if a soft border is counted whole, or lost."""
    disc = np.zeros((100, 100), np.uint8)
    cv2.circle(disc, (50, 50), 30, 255, -1, lineType=cv2.LINE_AA)
    area = read_mask(write_png(tmp_path / "disc.png", disc)).sum()
    assert area == pytest.approx(disc.sum() / 255, rel=0.01)


def test_anti_aliased_transparency_keeps_the_area(tmp_path: Path) -> None:
    """Breaks if a mask drawn in a transparent layer grows by its soft border."""
    disc = np.zeros((100, 100), np.uint8)
    cv2.circle(disc, (50, 50), 30, 255, -1, lineType=cv2.LINE_AA)
    disc = cv2.GaussianBlur(disc, (0, 0), 2)
    pixels = np.dstack([np.full((100, 100, 3), 255, np.uint8), disc])
    area = read_mask(save(tmp_path / "disc.png", pixels)).sum()
    assert area == pytest.approx(disc.sum() / 255, rel=0.02)


def painted(*values: float, dtype: type = np.uint8) -> np.ndarray:
    """A disc of the first value, a smaller one of the second, and so on, on 0."""
    pixels = np.zeros((90, 110), np.float64)
    for number, value in enumerate(values):
        cv2.circle(pixels, (50, 45), 40 - 10 * number, value, -1)
    return pixels.astype(dtype)


def rimmed(lesion: float, rim: float) -> np.ndarray:
    """A disc with a border of one pixel that means "ignore"."""
    pixels = painted(lesion)
    cv2.circle(pixels, (50, 45), 40, rim, 1)
    return pixels


ODD_MASKS = {
    "VOC": (rimmed(1, 255), "0, 1, 255"),
    "VOC's colours": (rimmed(128, 224), "0, 128, 224"),
    "three levels": (painted(100, 255), "0, 100, 255"),
    "four levels": (painted(85, 170, 255), "0, 85, 170, 255"),
    "labels and ignore": (painted(1, 2, 255), "0, 1, 2, 255"),
    "nowhere dark": (painted(60) + 100, "100, 160"),
    "deep": (painted(1, 65535, dtype=np.uint16), "0, 1, 65535"),
    "deep levels": (painted(20000, 65535, dtype=np.uint16), "0, 20000, 65535"),
    "floats": (painted(0.3, 1, dtype=np.float32), "0, 0.3, 1"),
    "colours of three kinds": (
        np.dstack([painted(0, 255), painted(90, 0), painted(0, 0)]), "0, 90, 255"),
    "transparency": (
        np.dstack([np.full((90, 110, 3), 255, np.uint8), painted(100, 255)]), "transparency"),
    "45 labels": (
        np.repeat(np.repeat(np.arange(45, dtype=np.uint8).reshape(5, 9), 20, 0), 20, 1), "and "),
    "a photograph": (
        np.clip(np.random.default_rng(0).normal(120, 40, (90, 110)), 0, 255).astype(np.uint8),
        "as in a photograph"),
}  # fmt: skip


@pytest.mark.parametrize("what", ODD_MASKS)
def test_masks_of_other_values_are_named(tmp_path: Path, what: str) -> None:
    """Breaks if a mask of several values loses the lesion, or keeps what is none, in silence."""
    pixels, values = ODD_MASKS[what]
    path = write_png(tmp_path / ("a.tiff" if pixels.dtype == np.float32 else "a.png"), pixels)
    with pytest.raises(CaseError, match="a mask has two values, or labels below 32") as caught:
        read_mask(path)
    assert values in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("quality", [1, 10, 30, 60, 90, 95, 98, 99, 100])
@pytest.mark.parametrize("sigma", [0, 1, 4])
def test_smooth_and_compressed_masks_are_masks(tmp_path: Path, quality: int, sigma: float) -> None:
    """Breaks if slopes, or what JPEG does around a border, are taken for other values."""
    disc = painted(255)
    soft = cv2.GaussianBlur(disc, (0, 0), sigma) if sigma else disc
    encoded = cv2.imencode(".jpg", soft, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    (tmp_path / "a.jpg").write_bytes(encoded.tobytes())
    pixels = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
    kinds = [tmp_path / "a.jpg", write_png(tmp_path / "a.png", pixels)]
    for factor in (0.7, 2, 3.3):
        for way in (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA):
            other = cv2.resize(soft, None, fx=factor, fy=factor, interpolation=way)
            kinds.append(write_png(tmp_path / f"{factor}_{way}.png", other))
            deep = other.astype(np.uint16) * 257
            kinds.append(write_png(tmp_path / f"{factor}_{way}_deep.png", deep))
    for path in kinds:
        mask = read_mask(path)
        scale = mask.shape[0] / disc.shape[0]
        assert mask.sum() / scale**2 == pytest.approx(np.count_nonzero(disc), rel=0.06)


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".bmp", ".png"])
def test_masks_in_every_format(tmp_path: Path, suffix: str) -> None:
    """Breaks if what JPEG does to a border leaves specks, or a format is not read."""
    mask = cv2.resize(square_mask(), (200, 160), interpolation=cv2.INTER_NEAREST)
    read = read_mask(write_png(tmp_path / f"mask{suffix}", mask))
    assert (read == (mask > 0)).all()


def test_masks_are_merged(tmp_path: Path) -> None:
    """Breaks if only the first mask of an image counts."""
    image = write_png(tmp_path / "a.png", GREY)
    parts = [write_png(tmp_path / f"m{at}.png", square_mask(at=at)) for at in (5, 20)]
    _, mask = read_case(Case("a", image, tuple(parts), "benign"))
    assert mask.sum() == 200
    assert set(np.unique(mask)) == {0, 1}


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n junk", b"hello"])
def test_bad_files_are_named(tmp_path: Path, content: bytes) -> None:
    """Breaks if a damaged file gives a traceback, or no file name."""
    path = tmp_path / "bäd image.png"
    path.write_bytes(content)
    with pytest.raises(CaseError, match="bäd image") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def test_truncated_png_is_not_half_an_image(tmp_path: Path) -> None:
    """Breaks if a cut file is read as an image with a black rest."""
    path = write_png(tmp_path / "cut.png", RGB)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(CaseError, match=r"cut\.png"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".bmp"])
def test_other_cut_files_are_refused(tmp_path: Path, suffix: str) -> None:
    """Breaks if OpenCV fills the rest of a cut file with grey, as some versions do."""
    path = write_png(tmp_path / f"cut{suffix}", RGB)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CaseError, match="cannot be decoded"):
        read_image(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    """Breaks if a path that cannot be opened gives a traceback."""
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(CaseError, match="cannot be read"):
            read_image(path)


def test_sizes_and_empty_masks(tmp_path: Path) -> None:
    """Breaks if a mask of another size is resized, or an empty one passes as a tumour."""
    image = write_png(tmp_path / "a.png", GREY)
    small = write_png(tmp_path / "small.png", square_mask((39, 50)))
    with pytest.raises(CaseError, match=r"50×39.*50×40"):
        read_case(Case("a", image, (small,), "benign"))
    empty = write_png(tmp_path / "empty.png", np.zeros((40, 50), np.uint8))
    with pytest.raises(CaseError, match="malignant"):
        read_case(Case("a", image, (empty,), "malignant"))
    assert read_case(Case("a", image, (), "normal"))[1].sum() == 0
    lesion = write_png(tmp_path / "lesion.png", square_mask())
    with pytest.raises(CaseError, match="shows a lesion"):
        read_case(Case("a", image, (empty, lesion), "normal"))


def test_original_busi_files(real_data: Path) -> None:
    """Breaks if one of the odd modes of the real release is misread."""
    originals = sorted((real_data / "busi_raw_samples").rglob("*.png"))
    assert len(originals) == 76
    for path in originals:
        copy = real_data / path.relative_to(real_data / "busi_raw_samples")
        if "_mask" in path.name:
            assert read_mask(path).any() == ("normal" not in path.name)
            assert (read_mask(path) == read_mask(copy)).all()
        else:
            image = read_image(path)
            if (image[..., :1] == image).all():
                assert (image == read_image(copy)).all()
