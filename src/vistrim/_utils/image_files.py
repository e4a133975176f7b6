"""Images from files, checked."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from vistrim.errors import InputError

MAX_ASPECT_RATIO = 100
"""An image processor that scales the shorter side up would blow a longer strip up to billions of pixels."""

SIXTEEN_BITS = ("PNG", "PPM")
"""Formats whose gray pixels have 16 bits where Pillow, some releases of it at least, unpacks them into 32."""


def read_images(paths: Sequence[Path]) -> list[Image.Image]:
    """Read image files.

    Returns
    -------
    list of PIL.Image.Image
        RGB, 8 bits per channel, turned upright; 16-bit gray is scaled down, and what is transparent shows white.

    Raises
    ------
    InputError
        If a file does not exist, is no image, is damaged, too large or too narrow a strip, or has pixels of which it is
        not known how bright they are.
    """
    return [_read_image(path) for path in paths]


def _read_image(path: Path) -> Image.Image:
    if not path.exists():
        raise InputError(f"there is no image file '{path}': check the path")
    if path.is_dir():
        raise InputError(f"'{path}' is a directory: give the image files in it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                _check_depth(path, file)
                image = to_rgb(ImageOps.exif_transpose(file))
    except InputError:
        raise
    except PermissionError as error:
        raise InputError(f"'{path}' may not be read: check its permissions") from error
    except UnidentifiedImageError as error:
        raise InputError(f"'{path}' is not an image: give a PNG, JPEG, WebP or other image file") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        limit = (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise InputError(f"'{path}' has more than {limit} million pixels: scale it down first") from error
    # Pillow's decoders raise nearly every type of exception for a damaged file.
    except Exception as error:
        raise InputError(f"'{path}' is damaged or cut short ({error}): fetch or save it again") from error
    if max(image.size) > MAX_ASPECT_RATIO * min(image.size):
        raise InputError(
            f"'{path}' is a strip of {image.width} x {image.height} pixels: "
            f"crop it until one side is at most {MAX_ASPECT_RATIO} times the other"
        )
    return image


def _check_depth(path: Path, file: Image.Image) -> None:
    """Refuse pixels that have no fixed white: it may be 1.0, 255, 4095 or what is brightest."""
    if file.mode == "F" or (file.mode == "I" and file.format not in SIXTEEN_BITS):
        kind = "floating-point" if file.mode == "F" else "32-bit"
        raise InputError(
            f"'{path}' has {kind} pixels, for which no value is known to be white: scale it to 8 or 16 bits per channel"
        )


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode of up to 16 bits to RGB, over a white ground where it is transparent.

    Pixels that are fully transparent have arbitrary colors, which are not to be seen.
    """
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow itself clips at 255.
        image = image.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L")
    if not image.has_transparency_data:
        return image.convert("RGB")
    colors = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), colors).convert("RGB")
