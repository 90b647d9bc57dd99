"""Pictures of products: what may be uploaded, and the thumbnails made of it."""

import io
import struct
import warnings
from typing import IO

from PIL import Image, ImageOps

# Pillow would read many more, some by programs of long ago.
FORMATS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif"}
MOST_BYTES = 10 * 1024 * 1024
# What a few kilobytes can claim to be: each pixel costs four bytes once it is decoded.
MOST_PIXELS = 40_000_000
# Widths of the thumbnails: a card, a card on a dense screen or the product's page, and that on a dense screen.
WIDTHS = (400, 800, 1200)
SHAPE = 3 / 4
# What Pillow raises, each from a broken file of some kind.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error)


class Unusable(Exception):
    """The picture cannot be shown; the message says why, for a person."""


def check(file: IO[bytes], size: int) -> str:
    """Return the file's ending for its true format, whatever its name says; raises `Unusable`.

    Reads the header only: whether all the rest is there shows when thumbnails are made.
    """
    if size > MOST_BYTES:
        raise Unusable(f"The picture is larger than {MOST_BYTES // 1024**2} MB.")
    with _open(file) as image:
        kind = FORMATS[str(image.format)]
    file.seek(0)
    return kind


def thumbnails(file: IO[bytes]) -> dict[int, bytes]:
    """Return the WebP file of each width: upright, and with nothing of what the camera wrote; raises `Unusable`."""
    with _open(file) as image:
        try:
            # A JPEG is decoded at a fraction of its size, others are cut down before they are copied.
            image.draft("RGB", (WIDTHS[-1], WIDTHS[-1]))
            plain = _plain(image)
            upright = ImageOps.exif_transpose(plain.reduce(max(1, min(plain.size) // WIDTHS[-1])))
        except BROKEN as error:
            raise Unusable("The picture is broken or cut off.") from error
    return {width: _webp(upright, width) for width in WIDTHS}


def _open(file: IO[bytes]) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # Pillow warns of many pixels at a number of its own.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(file, formats=list(FORMATS))
    except Image.DecompressionBombError:
        raise Unusable(_too_many()) from None
    except BROKEN as error:
        raise Unusable("This is no JPEG, PNG, WebP or GIF picture.") from error
    if image.width * image.height > MOST_PIXELS:
        image.close()
        raise Unusable(_too_many())
    return image


def _too_many() -> str:
    return f"The picture has more than {MOST_PIXELS // 1_000_000} million pixels."


def _plain(image: Image.Image) -> Image.Image:
    """Return the first frame in eight-bit colours, transparent where it was."""
    if image.mode.startswith("I"):
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _webp(image: Image.Image, width: int) -> bytes:
    target = io.BytesIO()
    fitted = ImageOps.fit(image, (width, round(width * SHAPE)))
    fitted.save(target, "WEBP", quality=82, icc_profile=b"", exif=b"")
    return target.getvalue()
