"""Lossless JPEG of 8 bits (ITU-T T.81, process 14) as pydicom asks a decoder for it.

pydicom knows only decoders of it that are GPL, or large; libjpeg-turbo, which Pillow brings, reads
it since version 3.
"""

import io
from typing import Any

from PIL import Image, features

from anatosegnet.data.decoding.whole import SCAN, Damaged, segments

FRAME = 0xC3
SYNTAXES = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
DECODER_DEPENDENCIES = dict.fromkeys(SYNTAXES, ("pillow",))  # that of a plugin of pydicom
# Adobe's segment: three components are RGB, that is, given as they are stored
AS_STORED = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0"
APPLICATION = range(0xE0, 0xF0)


def is_available(uid: str) -> bool:
    """Whether frames of a transfer syntax can be decoded."""
    version = features.version("libjpeg_turbo") or "0"
    return uid in SYNTAXES and int(version.split(".")[0]) >= 3


def register(decoder: Any) -> None:
    """Make pydicom's decoder of a transfer syntax use this module."""
    if decoder.UID in SYNTAXES and "anatosegnet" not in decoder.available_plugins:
        decoder.add_plugin("anatosegnet", (__name__, decode_frame.__name__))


def decode_frame(source: bytes, _: Any) -> bytes:
    """The samples of a frame that `as_stored` gave, one byte each, components interleaved."""
    with Image.open(io.BytesIO(source), formats=("JPEG",)) as image:
        return image.tobytes()


def as_stored(data: bytes) -> bytes:
    """A JPEG picture without what says how its colours are meant: its DICOM header says that.

    Raises:
        Damaged: Its segments are wrong, or its samples are of more than 8 bits.
    """
    if not data.startswith(b"\xff\xd8"):
        return data  # no JPEG; that is said of every kind in one place
    parts, at = [data[:2], AS_STORED], 2
    for marker, content, end in segments(data):
        if marker == SCAN:
            break
        if marker == FRAME and content[:1] != b"\x08":
            raise Damaged("its lossless JPEG is of more than the 8 bits that are read")
        if marker not in APPLICATION:
            parts.append(data[at:end])
        at = end
    return b"".join([*parts, data[at:]])
