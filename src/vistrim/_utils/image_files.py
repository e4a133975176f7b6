"""Reading and checking of image files."""

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from vistrim.errors import InputError

MAX_ASPECT_RATIO = 100
"""Largest ratio of sides. Image processors that upscale the shorter side would make longer strips huge."""

SIXTEEN_BITS = ("PNG", "PPM")
"""Formats with 16-bit gray pixels, which some releases of Pillow read as 32-bit."""


@dataclass(frozen=True)
class Encoded:
    """An image file that is not on disk, such as one in a table.

    Attributes
    ----------
    name : str
        Name for messages.
    read : callable
        Returns the bytes of the file.
    """

    name: str
    read: Callable[[], bytes]

    def __str__(self) -> str:
        return self.name


Source = Path | Encoded
"""An image file."""


def read_images(sources: Sequence[Source]) -> list[Image.Image]:
    """Read image files.

    Returns
    -------
    list of PIL.Image.Image
        RGB with 8 bits per channel, in upright orientation. 16-bit gray is scaled down, and transparent areas are
        white.

    Raises
    ------
    InputError
        If a file does not exist, is not an image, is damaged, too large or too narrow, or has no defined white value.
    """
    return [decode_image(read_bytes(source), str(source)) for source in sources]


def read_bytes(source: Source) -> bytes:
    """Read the bytes of an image file.

    Raises
    ------
    InputError
        If it does not exist or cannot be read.
    """
    if isinstance(source, Encoded):
        return source.read()
    if not source.exists():
        raise InputError(f"there is no image file '{source}': check the path")
    if source.is_dir():
        raise InputError(f"'{source}' is a directory: give the image files in it")
    try:
        return source.read_bytes()
    except OSError as error:
        raise InputError(f"'{source}' cannot be read ({error.strerror}): check its permissions") from error


def decode_image(content: bytes, path: str) -> Image.Image:
    """Decode the bytes of an image file, named ``path`` in messages; see `read_images`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as file:
                _check_depth(path, file)
                image = to_rgb(ImageOps.exif_transpose(file))
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"'{path}' is not an image: give a PNG, JPEG, WebP or other image file") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        limit = (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise InputError(f"'{path}' has more than {limit} million pixels: scale it down first") from error
    # Pillow's decoders raise almost any exception type for damaged files.
    except Exception as error:
        raise InputError(f"'{path}' is damaged or incomplete ({error}): download or save it again") from error
    if max(image.size) > MAX_ASPECT_RATIO * min(image.size):
        raise InputError(
            f"'{path}' is a strip of {image.width} x {image.height} pixels: "
            f"crop it so that one side is at most {MAX_ASPECT_RATIO} times the other"
        )
    return image


def _check_depth(path: str, file: Image.Image) -> None:
    """Refuse pixel formats without a defined white value, which may be 1.0, 255, 4095 or the maximum."""
    if file.mode == "F" or (file.mode == "I" and file.format not in SIXTEEN_BITS):
        kind = "floating-point" if file.mode == "F" else "32-bit"
        raise InputError(
            f"'{path}' has {kind} pixels, which have no defined white value: convert it to 8 or 16 bits per channel"
        )


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode with up to 16 bits to RGB, on a white background.

    Fully transparent pixels have arbitrary colors, which must not become visible.
    """
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow itself clips values at 255.
        image = image.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L")
    if not image.has_transparency_data:
        return image.convert("RGB")
    colors = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), colors).convert("RGB")
