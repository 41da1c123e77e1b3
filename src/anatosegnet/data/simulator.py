"""Simulator of B-mode breast ultrasound with exact lesion masks (the built-in dataset).

Maps of echo level, attenuation and specular amplitude are painted, complex Gaussian scatterers are
convolved with the point spread function and the envelope is log-compressed. Posterior shadow and
enhancement follow from accumulated attenuation. Maps are (H, W) float32, levels dB, lengths mm.
Sources: Wagner et al. 1983, "Statistics of speckle in ultrasound B-scans", IEEE Trans. Sonics
Ultrason. 30:156 (Rayleigh envelope, mean/std = 1.91); Stavros et al. 1995, Radiology 196:123;
ACR BI-RADS ultrasound lexicon. Numbers are tuned by eye beside BUSI and BrEaST, not measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

FloatMap = NDArray[np.float32]
Points = NDArray[np.int32]
TURN = 2.0 * np.pi
MALIGNANT_SHARE = 1.0 / 3.0  # BUSI holds 437 benign and 210 malignant images
NOMINAL_LOSS = 0.80  # dB/mm two-way, what the time-gain compensation assumes
# Columns: skin, subcutaneous fat, gland, retromammary fat, muscle.
BANDS = [
    [-2.0, -9.5, 0.0, -10.5, -11.0],  # echo level in dB relative to the gland
    [1.0, 1.5, 4.0, 2.0, 2.0],  # slow texture in dB
    [1.0, 2.0, 4.5, 4.0, 7.0],  # fibre streaks in dB
    [0.90, 0.76, 0.92, 0.76, 0.92],  # two-way attenuation in dB/mm
    [0.1, 1.0, 0.4, 1.0, 0.5],  # weight of the septa
    [1.8, 1.4, 0.8, 0.9, 1.2],  # specular amplitude of the line on top of the band
]


@dataclass(frozen=True)
class Phantom:
    """One simulated image with its ground truth."""

    image: NDArray[np.uint8]  # (H, W), log-compressed envelope, 0..255
    mask: NDArray[np.uint8]  # (H, W) in {0, 1}, the lesion body; never empty
    label: str  # "benign" or "malignant"
    pixel_size_mm: float  # side of the square pixels


@dataclass
class Scene:
    """The maps while they are painted."""

    rng: np.random.Generator
    pixel: float  # mm
    depth: FloatMap  # (H, 1) mm
    lateral: FloatMap  # (1, W) mm
    level: FloatMap  # (H, W) echo level in dB; the gland's mean is about 0
    attenuation: FloatMap  # (H, W) two-way, dB/mm
    specular: FloatMap  # (H, W) amplitude of coherent echoes, linear; gland scatterers are 1


def label_of(seed: int, index: int) -> str:
    """Return the class of a phantom, "benign" or "malignant", without simulating it."""
    draw = np.random.default_rng([seed, index]).random()
    return "malignant" if draw < MALIGNANT_SHARE else "benign"


def simulate(seed: int, index: int) -> Phantom:
    """Simulate phantom `index` of dataset `seed`, both >= 0: 300..450 x 380..500 pixels."""
    rng, label = np.random.default_rng([seed, index]), label_of(seed, index)
    rng.random()  # the number label_of() used: nothing else may depend on it
    shape = (int(rng.integers(300, 451)), int(rng.integers(380, 501)))
    pixel = round(float(rng.uniform(0.095, 0.105)), 4)
    depth, lateral = (np.arange(size, dtype=np.float32) * np.float32(pixel) for size in shape)
    scene = Scene(rng, pixel, depth[:, None], lateral[None, :], *np.zeros((3, *shape), np.float32))
    borders = _paint_anatomy(scene)
    _paint_distractors(scene, borders)
    mask = _paint_lesion(scene, borders, label == "malignant")
    return Phantom(_form_image(scene), mask, label, pixel)


def form_envelope(white: FloatMap, amplitude: FloatMap, specular: FloatMap, mm: float) -> FloatMap:
    """Image echoes through the point spread function; return the envelope (H, W), >= 0.

    `white` (2, H, W) is Gaussian noise of unit variance, real and imaginary part; `amplitude`
    (H, W) is that of the scatterers, `specular` (H, W) of the interfaces; `mm` is the pixel size.
    """
    depth = np.arange(amplitude.shape[0], dtype=np.float32)[:, None] * np.float32(mm)
    far = np.clip(np.abs(depth - 15.0) / 20.0, 0.0, 1.0)  # 0 at the focus
    axial, near_lateral, far_lateral = (size / mm for size in (0.09, 0.17, 0.32))
    parts = []
    for field in (white[0] * amplitude + specular, white[1] * amplitude):
        near, wide = _blur(field, axial, near_lateral), _blur(field, axial, far_lateral)
        wide *= np.float32(np.sqrt(far_lateral / near_lateral))  # keeps the speckle's power
        parts.append(near + (wide - near) * far)
    unit = np.float32(np.sqrt(2.0 * TURN * axial * near_lateral))
    return np.asarray(unit * cv2.magnitude(parts[0], parts[1]), np.float32)


def _amplitude(level: FloatMap) -> FloatMap:
    """Convert dB to linear amplitude."""
    return np.asarray(cv2.exp(level * np.float32(np.log(10.0) / 20.0)), np.float32)


def _bell(ratio: FloatMap) -> FloatMap:
    """Return exp(-ratio^2), cut off where it is negligible: denormal numbers are slow."""
    return np.asarray(cv2.exp(np.maximum(-ratio * ratio, np.float32(-20.0))), np.float32)


def _blur(values: FloatMap, axial: float, lateral: float) -> FloatMap:
    """Blur with a Gaussian whose standard deviations are in pixels."""
    return np.asarray(cv2.GaussianBlur(values, (0, 0), sigmaX=lateral, sigmaY=axial), np.float32)


def _noise(scene: Scene, axial_mm: float, lateral_mm: float) -> FloatMap:
    """Draw (H, W) smooth noise of about unit variance with the given correlation lengths."""
    extent = np.array(scene.level.shape) * scene.pixel / (axial_mm, lateral_mm)
    size = np.maximum(np.round(extent) + 1.0, 3.0).astype(int)
    coarse = scene.rng.standard_normal(size, dtype=np.float32) / np.float32(0.8)
    return np.asarray(cv2.resize(coarse, scene.level.shape[::-1], interpolation=cv2.INTER_CUBIC))


def _wave(scene: Scene, amplitude_mm: float) -> FloatMap:
    """Draw a wavy line, (1, W) in mm: a sum of sinusoids, the longer the stronger."""
    total = np.zeros_like(scene.lateral)
    for length in (90.0, 40.0, 22.0, 13.0, 8.0):
        size, phase = scene.rng.normal() * (length / 90.0) ** 0.8, scene.rng.uniform(0.0, TURN)
        total += np.float32(size) * np.sin(scene.lateral * np.float32(TURN / length) + phase)
    return np.asarray(total * amplitude_mm, np.float32)


def _line(scene: Scene, implicit: FloatMap, half_mm: float, vertical: bool = False) -> FloatMap:
    """Profile (0..1) of an implicit function's zero line, times cos^2 of its slope (or sin^4)."""
    down = cv2.Sobel(implicit, cv2.CV_32F, 0, 1, ksize=3, scale=0.125) ** 2
    across = cv2.Sobel(implicit, cv2.CV_32F, 1, 0, ksize=3, scale=0.125) ** 2
    squared = down + across + np.float32(1e-9)
    profile = _bell(implicit * np.float32(scene.pixel / half_mm) / np.sqrt(squared))
    return np.asarray(profile * ((across / squared) ** 2 if vertical else down / squared))


def _streaks(scene: Scene, course: FloatMap) -> FloatMap:
    """Draw fibres, (H, W) in 0..3: thin near-horizontal streaks along the course (1, W) in mm."""
    fibres = _noise(scene, 0.34, 5.0) + 0.8 * _noise(scene, 0.25, 1.4)
    sway = course + 0.7 * _noise(scene, 5.0, 12.0)
    rows = (0.8 * scene.depth + 0.1 * scene.depth[-1] + sway) / np.float32(scene.pixel)
    columns = np.repeat(scene.lateral / np.float32(scene.pixel), len(rows), axis=0)
    bent = cv2.remap(fibres, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    patchy = np.clip(0.7 + 0.5 * _noise(scene, 3.0, 6.0), 0.0, 1.5)
    return np.asarray(np.maximum(bent - 0.2, 0.0) * patchy)


def _paint_anatomy(scene: Scene) -> list[FloatMap]:
    """Paint the bands; return the lower borders (1, W) of skin, fat, gland and retromammary fat."""
    rng, room = scene.rng, float(scene.depth[-1, 0])
    density, fibrous = rng.uniform(0.0, 1.0), np.float32(rng.uniform(0.4, 1.2))
    course = _wave(scene, rng.uniform(0.3, 1.4))
    borders = [rng.uniform(1.5, 2.5) + _wave(scene, 0.07)]
    for share, wavy in ((0.34 - 0.24 * density, 1.0), (0.26 + 0.28 * density, 0.7), (0.045, 0.25)):
        thickness = share * (room - 2.0) * rng.uniform(0.8, 1.2) + _wave(scene, wavy)
        borders.append(borders[-1] + np.maximum(thickness + 0.4 * course, np.float32(0.5)))
    rough = 0.4 * _noise(scene, 1.0, 2.2) + 0.5 * _noise(scene, 2.2, 5.0)
    band = np.zeros(scene.level.shape, np.uint8)
    for number, border in enumerate(borders):
        band += scene.depth > border + (rough if number in (1, 2) else 0.0)
    tables = np.array(BANDS[:5], np.float32)
    level, mottle, fibre, loss, septa = (cv2.LUT(band, np.resize(row, 256)) for row in tables)
    streaks = _streaks(scene, -1.2 * course)
    texture = 0.8 * _noise(scene, 1.0, 2.2) + 0.7 * _noise(scene, 3.0, 6.0)
    level = level * rng.uniform(0.6, 1.5) + mottle * texture + fibrous * fibre * streaks
    scene.level[:] = _blur(np.asarray(level, np.float32), 1.2, 2.0)
    scene.attenuation[:] = loss + 0.12 * _noise(scene, 9.0, 6.0)
    scene.specular[:] = fibrous * streaks * _amplitude(scene.level - 12.0)
    # Interfaces are rough, so that their echo comes and goes along the line.
    grain = np.clip(0.5 + 0.5 * _noise(scene, 4.0, 4.0), 0.0, 1.5) * np.abs(_noise(scene, 0.4, 0.9))
    lines = [0.35 + 0.15 * (borders[0] - borders[0].mean()), *borders]
    for line, gain in zip(lines, BANDS[5], strict=True):  # strong lines are the more even ones
        scene.specular += gain * (grain + 0.06 * gain**4) * _bell((scene.depth - line) / 0.14)
    for axial, lateral in ((4.5, 10.0), (2.2, 6.0)):  # Cooper's ligaments, between fat lobules
        septum = septa * _line(scene, _noise(scene, axial, lateral), 0.13)
        scene.specular += 0.7 * grain * septum
        scene.level += 7.0 * septum * np.minimum(grain, 1.0)
        scene.attenuation += 0.6 * septum  # ligaments cast the thin shadows seen in practice
    if rng.random() < 0.3:  # a rib near the bottom: bright arc, then shadow
        across = (scene.lateral - rng.uniform(0.0, scene.lateral[0, -1])) / rng.uniform(6.0, 9.0)
        down = (scene.depth - room - rng.uniform(-1.0, 1.5)) / rng.uniform(3.5, 5.5)
        rib = np.asarray((np.sqrt(across**2 + down**2) - 1.0) * 4.0 + 0.1 * rough, np.float32)
        scene.specular += 2.5 * grain * _line(scene, rib, 0.25)
        _paint_body(scene, rib, 0.2, scene.level, 6.0)
    return borders


def _paint_body(scene: Scene, gap: FloatMap, soft: float, level: FloatMap, loss: float) -> None:
    """Put a body where the signed distance (mm) is negative: its level (dB) and loss (dB/mm)."""
    inside = 1.0 / (1.0 + cv2.exp(np.clip(gap / np.float32(soft), -20.0, 20.0)))
    scene.level += inside * (level - scene.level)
    scene.attenuation += inside * (np.float32(loss) - scene.attenuation)
    scene.specular *= 1.0 - inside


def _paint_distractors(scene: Scene, borders: list[FloatMap]) -> None:
    """Add what is dark but no lesion: fat lobules, ducts, vessels and contact shadows."""
    rng, width = scene.rng, float(scene.lateral[0, -1])
    warp, nearest = 0.3 * _noise(scene, 1.5, 2.5), np.full(scene.level.shape, 9.0, np.float32)
    for kind in rng.choice(["lobule", "lobule", "duct", "vessel"], int(rng.integers(0, 6))):
        x = scene.lateral - rng.uniform(0.0, width)
        z = scene.depth - rng.uniform(borders[1].mean(), borders[2].mean())
        if kind == "duct":
            window = np.clip(1.0 - (x / rng.uniform(3.0, 7.0)) ** 2, -1.0, 1.0)
            distance = np.abs(z - _wave(scene, 0.9)) - rng.uniform(0.3, 0.7) * window
        else:
            wide, high = (0.9, 0.7) if kind == "vessel" else rng.uniform((2.0, 0.8), (5.0, 2.2))
            distance = (np.sqrt((x / wide) ** 2 + (z / high) ** 2) - 1.0 + warp) * high
        nearest = np.minimum(nearest, distance.astype(np.float32))
    _paint_body(scene, nearest, 0.15, rng.uniform(-20.0, -8.0) + 2.0 * warp, 0.75)
    scene.specular += 0.4 * np.abs(warp) * _line(scene, nearest, 0.15)
    for _ in range(int(rng.choice(4, p=[0.4, 0.3, 0.2, 0.1]))):
        away = scene.lateral - np.float32(rng.choice([rng.uniform(0.0, width), 0.0, width]))
        shadow = _bell(away / np.float32(rng.uniform(1.5, 5.0))) * (scene.depth < 2.0)
        scene.attenuation += rng.uniform(1.0, 4.0) * shadow


def _outline(rng: np.random.Generator, malignant: bool, room_mm: float) -> NDArray[np.float64]:
    """Draw a lesion outline around the origin, (N, 2) x and z in mm, for `room_mm` of depth."""
    angle = np.linspace(0.0, TURN, 360, endpoint=False)
    lobes, size, tilt = (7, 0.13, 0.5) if malignant else (int(rng.integers(0, 4)), 0.09, 0.15)
    radius = 1.0 + malignant * rng.uniform(0.0, 0.05) * np.cos(int(rng.integers(9, 16)) * angle)
    for order in range(2, 2 + lobes):
        radius += rng.normal() * size / order**0.5 * np.cos(order * angle + rng.uniform(0.0, TURN))
    for _ in range(malignant * int(rng.integers(3, 9))):  # angular corners
        turn = np.abs((angle - rng.uniform(0.0, TURN) + np.pi) % TURN - np.pi)
        radius += rng.uniform(0.1, 0.35) * np.maximum(1.0 - turn / rng.uniform(0.15, 0.4), 0.0)
    angle += rng.normal() * tilt
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    points -= (points.max(axis=0) + points.min(axis=0)) / 2.0
    ratio = rng.uniform(0.65, 1.1) if malignant else rng.uniform(1.3, 2.2)  # width to height
    longest = rng.uniform(8.0, min(22.0, 0.6 * room_mm)) if malignant else rng.uniform(6.0, 22.0)
    scale = longest / max(ratio, 1.0) / np.ptp(points, axis=0)
    return np.asarray(points * scale * (ratio, 1.0))


def _paint_lesion(scene: Scene, borders: list[FloatMap], malignant: bool) -> NDArray[np.uint8]:
    """Paint the lesion in or near the gland; return its mask, (H, W) uint8 in {0, 1}."""
    rng, room, skin = scene.rng, float(scene.depth[-1, 0]), float(borders[0].max())
    outline = _outline(rng, malignant, room - skin)
    half_width, half_height = np.ptp(outline, axis=0) / 2.0
    x = rng.uniform(half_width + 1.5, float(scene.lateral[0, -1]) - half_width - 1.5)
    top, bottom = (float(border[0, int(x / scene.pixel)]) for border in borders[1:3])
    z = np.clip(rng.uniform(top, bottom), skin + half_height + 1.0, room - half_height - 2.5)
    points = np.round((outline + np.array([x, z])) / scene.pixel).astype(np.int32)
    mask = np.asarray(cv2.fillPoly(np.zeros(scene.level.shape, np.uint8), [points], 1), np.uint8)
    gap = cv2.distanceTransform(1 - mask, 2, 5) - cv2.distanceTransform(mask, 2, 5)
    distance = _blur(np.asarray(gap * scene.pixel, np.float32), 1.0, 1.0)
    around = float(scene.level[(distance > 0.0) & (distance < 3.0)].mean())
    level = min(around - rng.uniform(6.0, 15.0), -8.0)
    if malignant:
        _paint_malignant(scene, distance, points, level)
        return mask
    texture, loss = rng.uniform(0.5, 2.0) * _noise(scene, 1.0, 1.6), rng.uniform(0.2, 0.6)
    if rng.random() < 0.15:  # a cyst
        level, loss = -34.0, 0.0
        texture += 10.0 * _bell((distance + 0.3) / 0.8)  # clutter of the wall leaks inwards
    distance = distance + 0.08 * _noise(scene, 0.8, 1.2)
    _paint_body(scene, distance, rng.uniform(0.1, 0.25), level + texture, loss)
    capsule = np.abs(_noise(scene, 1.0, 1.5)) * _line(scene, distance, 0.13)
    scene.specular += rng.uniform(0.2, 1.2) * capsule
    scene.attenuation += rng.uniform(0.4, 1.8) * _line(scene, distance, 0.3, vertical=True)
    return mask


def _paint_malignant(scene: Scene, distance: FloatMap, points: Points, level: float) -> None:
    """Paint an irregular body with outline `points` (N, 2), halo, spicules, calcifications."""
    rng, canvas = scene.rng, np.full(distance.shape, 128, np.uint8)
    scene.level += rng.uniform(1.0, 7.0) * _bell((distance - 0.8) / rng.uniform(0.6, 1.5))
    for start in points[rng.integers(0, len(points), int(rng.choice([0, 10, 20])))]:
        ray = (start - points.mean(axis=0)) * rng.uniform(0.2, 0.7) + rng.normal(size=2) * 8.0
        grey, end = int(rng.choice([0, 220])), np.round(start + ray).astype(int)
        cv2.line(canvas, start.tolist(), end.tolist(), grey, int(rng.integers(1, 3)), cv2.LINE_AA)
    scene.level += 0.1 * (_blur(canvas.astype(np.float32), 0.8, 0.8) - 128.0)
    loss = rng.uniform(1.4, 2.4) if rng.random() < 0.75 else rng.uniform(0.8, 1.2)
    texture = rng.uniform(1.5, 4.5) * _noise(scene, 1.0, 1.6)
    frayed = distance + 0.15 * _noise(scene, 0.8, 1.0)
    _paint_body(scene, frayed, rng.uniform(0.1, 0.4), level + texture, loss)
    for row, column in rng.permutation(np.argwhere(distance < -0.6))[: int(rng.choice([0, 0, 9]))]:
        scene.specular[row, column : column + 2] += rng.uniform(0.5, 4.0)


def _form_image(scene: Scene) -> NDArray[np.uint8]:
    """Turn the maps into the grey image, (H, W) uint8: attenuation, speckle, log compression."""
    rng, deep = scene.rng, scene.depth / scene.depth[-1, 0]
    loss = np.cumsum(scene.attenuation - NOMINAL_LOSS, axis=0, dtype=np.float32) * scene.pixel
    # The aperture sees round an obstacle, so shadows widen and soften with depth.
    loss = _blur(loss, 0.5, 1.5) * (1.0 - deep) + _blur(loss, 0.5, 9.0) * deep
    loss += rng.uniform(0.1, 0.8) * np.maximum(scene.depth - rng.uniform(2.0, 12.0), 0.0)
    gain = _amplitude(-loss)
    maps = (_amplitude(scene.level) * gain, scene.specular * gain, scene.pixel)
    # Two looks are averaged, as spatial compounding does. White noise mirrored is as good as new.
    white = rng.standard_normal((2, *loss.shape), dtype=np.float32)
    envelope = form_envelope(white, *maps) + form_envelope(white[:, ::-1, ::-1], *maps)
    floor = _amplitude(rng.uniform(-56.0, -48.0) + 0.5 * scene.depth)  # grows with the depth gain
    level = np.asarray(20 * np.log10(np.abs(envelope + floor * white[0, ::-1]) + 1e-6), np.float32)
    level = 0.2 * level + 0.8 * _blur(level, 1.0, 1.3)  # the scanner's speckle reduction
    reach = rng.uniform(52.0, 64.0)  # dynamic range in dB
    grey = np.clip(level / reach + rng.uniform(0.38, 0.48), 0.0, 1.0)
    return np.asarray(np.round(255.0 * grey ** rng.uniform(0.95, 1.15)), np.uint8)
