"""Pictures of products: what may be uploaded, and the thumbnails made of it."""

import contextlib
import io
import struct
import warnings
from typing import IO

from pi_heif import register_heif_opener
from PIL import Image, ImageCms, ImageOps

# Pillow would read many more, some by programs of long ago.
FORMATS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "AVIF": "avif", "HEIF": "heic"}
READABLE = "JPEG, PNG, WebP, GIF, AVIF or HEIC"
MAX_BYTES = 10 * 1024 * 1024
# A telephone's 48 million are 48.8. A few kilobytes can claim as many, and each costs four bytes once it is decoded, in
# WebP four times as many: a worker's child takes up to 500 MB.
MAX_PIXELS = dict.fromkeys(FORMATS, 52_000_000) | {"WEBP": 26_000_000}
# Of a strip, only a little is shown, and Pillow takes eight bytes for each of its lines, too.
MAX_SIDE = 20_000
# Widths of the thumbnails: a card, a card on a dense screen or the product's page, and that on a dense screen.
WIDTHS = (400, 800, 1200)
SHAPE = 3 / 4
# What Pillow raises, each from a broken file of some kind.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, RuntimeError, struct.error)
SRGB = ImageCms.createProfile("sRGB")

register_heif_opener(thumbnails=False)


class Unusable(Exception):
    """The picture cannot be used; the message says why."""


def check(file: IO[bytes], size: int) -> str:
    """Return the file's ending for its true format, whatever its name says; raises `Unusable`.

    Reads the header only: whether all the rest is there shows when thumbnails are made.
    """
    if size > MAX_BYTES:
        raise Unusable(f"The picture is larger than {MAX_BYTES // 1024**2} MB.")
    with _open(file) as image:
        kind = FORMATS[_format(image)]
    file.seek(0)
    return kind


def thumbnails(file: IO[bytes]) -> dict[int, bytes]:
    """Return the WebP file of each width: upright, and with nothing of what the camera wrote; raises `Unusable`."""
    with _open(file) as image:
        try:
            # A JPEG is decoded at a fraction of its size, others are cut down before they are copied.
            image.draft("RGB", (WIDTHS[-1], WIDTHS[-1]))
            upright = ImageOps.exif_transpose(_in_srgb(_small(image), image.info.get("icc_profile")))
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
        raise Unusable(_too_many(max(MAX_PIXELS.values()))) from None
    except BROKEN as error:
        raise Unusable(f"This is no {READABLE} picture.") from error
    if image.width * image.height > (most := MAX_PIXELS[_format(image)]):
        image.close()
        raise Unusable(_too_many(most))
    if max(image.size) > MAX_SIDE:
        image.close()
        raise Unusable(f"The picture is wider or higher than {MAX_SIDE:,} pixels.")
    return image


def _format(image: Image.Image) -> str:
    # A JPEG with further pictures behind the first, such as telephones add for bright screens.
    return "JPEG" if image.format == "MPO" else str(image.format)


def _too_many(most: int) -> str:
    return f"The picture has more than {most // 1_000_000} million pixels."


def _small(image: Image.Image) -> Image.Image:
    """Return the first frame, no larger than is needed, in the colours of its profile and transparent where it was."""
    if image.mode.startswith("I"):
        return _reduced(image.convert("I")).point(lambda value: value * (1 / 256)).convert("L")
    if image.mode in ("CMYK", "L") and not image.has_transparency_data:
        return _reduced(image)
    # To convert what has the mode already would be a second copy of all of it.
    return _reduced(image if image.mode == _mode(image) else image.convert(_mode(image)))


def _reduced(image: Image.Image) -> Image.Image:
    return image.reduce(max(1, min(image.size) // WIDTHS[-1]))


def _mode(image: Image.Image) -> str:
    return "RGBA" if image.has_transparency_data else "RGB"


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert the colours by the profile that came with them: the thumbnails carry none, which means sRGB."""
    mode = _mode(image)
    if profile:
        # A broken profile, or one of another kind of colours, says nothing.
        with contextlib.suppress(ImageCms.PyCMSError, *BROKEN):
            meant = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            image = ImageCms.profileToProfile(image, meant, SRGB, outputMode=mode) or image
    return image.convert(mode)


def _webp(image: Image.Image, width: int) -> bytes:
    target = io.BytesIO()
    fitted = ImageOps.fit(image, (width, round(width * SHAPE)))
    fitted.save(target, "WEBP", quality=82, icc_profile=b"", exif=b"")
    return target.getvalue()
