"""Images from files, checked."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from vistrim.cli.errors import WrongUsageError

MAX_ASPECT_RATIO = 100
"""An image processor that scales the shorter side up would blow a longer strip up to billions of pixels."""


def read_images(paths: Sequence[Path]) -> list[Image.Image]:
    """Read image files.

    Returns
    -------
    list of PIL.Image.Image
        RGB, turned upright.

    Raises
    ------
    WrongUsageError
        If a file does not exist, is no image, or is damaged, too large or too narrow a strip.
    """
    return [_read_image(path) for path in paths]


def _read_image(path: Path) -> Image.Image:
    if not path.exists():
        raise WrongUsageError(f"there is no image file '{path}': check the path")
    if path.is_dir():
        raise WrongUsageError(f"'{path}' is a directory: give the image files in it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                image = ImageOps.exif_transpose(file).convert("RGB")
    except PermissionError as error:
        raise WrongUsageError(f"'{path}' may not be read: check its permissions") from error
    except UnidentifiedImageError as error:
        raise WrongUsageError(f"'{path}' is not an image: give a PNG, JPEG, WebP or other image file") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        limit = (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise WrongUsageError(f"'{path}' has more than {limit} million pixels: scale it down first") from error
    # Pillow's decoders raise nearly every type of exception for a damaged file.
    except Exception as error:
        raise WrongUsageError(f"'{path}' is damaged or cut short ({error}): fetch or save it again") from error
    if max(image.size) > MAX_ASPECT_RATIO * min(image.size):
        raise WrongUsageError(
            f"'{path}' is a strip of {image.width} x {image.height} pixels: "
            f"crop it until one side is at most {MAX_ASPECT_RATIO} times the other"
        )
    return image
