"""Images of requests: checked before they are decoded, and decoded to RGB."""

import base64
import binascii
import io
import re
from collections.abc import Callable

from PIL import Image, ImageOps

from vistrim._utils.image_files import MAX_ASPECT_RATIO, to_rgb
from vistrim.serving.errors import RequestError
from vistrim.serving.limits import Limits

FORMATS = ("PNG", "JPEG", "WEBP")
SCANS = 64
"""Most scans of a progressive JPEG file. Each scan takes as long as decoding the whole image once."""
_START_OF_SCAN = b"\xff\xda"
_DATA_URL = re.compile(r"data:image/[a-z0-9.+-]{1,32};base64,", re.IGNORECASE)


class ImageReader:
    """Reads the images of one request, within the limits for all of them together.

    Parameters
    ----------
    limits : Limits
        The limits of the server.
    fetch : callable
        Downloads the image of a URL.
    """

    def __init__(self, limits: Limits, fetch: Callable[[str, Limits], bytes]) -> None:
        self._limits, self._fetch = limits, fetch
        self._read = self._pixels = 0

    def read(self, url: str) -> Image.Image:
        """Read the next image.

        Parameters
        ----------
        url : str
            ``data:image/png;base64,...``, or a URL of an allowed host.

        Returns
        -------
        PIL.Image.Image
            RGB, in upright orientation.

        Raises
        ------
        RequestError
            If the image is not allowed, damaged or beyond a limit.
        """
        self._read += 1
        if self._read > self._limits.images:
            raise self._wrong(f"more than {self._limits.images} images", "send fewer images", "too_many_images")
        data = self._decode_base64(url) if url[:5].lower() == "data:" else self._fetch(url, self._limits)
        return self._decode(data)

    def _decode_base64(self, url: str) -> bytes:
        head = _DATA_URL.match(url)
        if head is None:
            raise self._wrong("no base64 image", "write data:image/png;base64, and the data")
        try:
            return base64.b64decode(url[head.end() :], validate=True)
        except (binascii.Error, ValueError):
            raise self._wrong("invalid base64", "encode the file as standard base64 without line breaks") from None

    def _decode(self, data: bytes) -> Image.Image:
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as file:
                # The header is read now, and the pixels are decoded by the conversion.
                self._check_size(*file.size)
                if file.format == "JPEG" and data.count(_START_OF_SCAN) > SCANS:
                    raise self._wrong(f"more than {SCANS} scans", "save it as a baseline JPEG", "image_too_large")
                return to_rgb(ImageOps.exif_transpose(file))
        except (RequestError, MemoryError):
            raise
        except Image.DecompressionBombError:
            raise self._too_large() from None
        # Pillow's decoders raise almost any exception type for damaged files.
        except Exception:
            raise self._wrong("no intact PNG, JPEG or WebP file", "send one of these formats") from None

    def _check_size(self, width: int, height: int) -> None:
        self._pixels += width * height
        if self._pixels > self._limits.pixels:
            raise self._too_large()
        if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
            raise self._wrong(f"a strip of {width} x {height} pixels", "crop it", "image_too_narrow")

    def _too_large(self) -> RequestError:
        most = self._limits.pixels
        return self._wrong(f"the images have more than {most} pixels together", "scale it down", "image_too_large")

    def _wrong(self, what: str, fix: str, code: str = "invalid_image") -> RequestError:
        return RequestError(f"image {self._read} is refused ({what}): {fix}", code=code, param="messages")
