"""Images of every mode reach the model as they look."""

import numpy as np
import pytest
from PIL import Image

from vistrim._utils.image_files import read_images
from vistrim.errors import InputError

RAMP = np.tile(np.arange(256), (8, 1))


def pixels(path) -> np.ndarray:
    (image,) = read_images([path])
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def off_by_one(seen, wanted) -> bool:
    """Whether gray levels, whole numbers, are right but for the rounding of a conversion."""
    return bool(np.isin(seen - wanted, (-1, 0, 1)).all())


def save(image: Image.Image, path, **options):
    image.save(path, **options)
    return path


@pytest.mark.parametrize("byte_order", ["<u2", ">u2"])
@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_sixteen_bits_keep_their_gray_levels(tmp_path, suffix, byte_order):
    image = Image.fromarray((RAMP * 257).astype(byte_order))
    if suffix == "pgm":
        image = image.convert("I")
    seen = pixels(save(image, tmp_path / f"a.{suffix}"))
    assert (seen == RAMP[..., None]).all()


@pytest.mark.parametrize("value", [0, 128, 129, 30000, 65535])
def test_sixteen_bits_are_rounded(tmp_path, value):
    path = save(Image.fromarray(np.full((4, 4), value, np.uint16)), tmp_path / "a.png")
    assert (pixels(path) == round(value / 257)).all()


@pytest.mark.parametrize(("mode", "kind"), [("I", "32-bit"), ("F", "floating-point")])
def test_pixels_without_a_fixed_white_are_refused(tmp_path, mode, kind):
    path = save(Image.fromarray(RAMP.astype(np.uint8)).convert(mode), tmp_path / "a.tiff")
    with pytest.raises(InputError, match=f"{kind} pixels.*8 or 16 bits"):
        read_images([path])


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBX", "RGBA", "LA", "PA", "CMYK", "YCbCr", "LAB"])
def test_opaque_images_look_as_before(tmp_path, mode):
    """A gray and a white half, to within what a color space rounds away."""
    # Of the gray levels in between, 102 is one that the palette has.
    gray = 0 if mode == "1" else 102
    image = Image.new("RGB", (8, 8), (gray,) * 3)
    image.paste((255, 255, 255), (4, 0, 8, 8))
    if mode == "LAB":
        image = in_lab(image)
    elif mode == "PA":
        image = image.convert("P").convert("PA")
    else:
        image = image.convert(mode)
    # Pillow 10.3 cannot read its own TIFF files in YCbCr.
    name, options = ("a.jpg", {"quality": 100, "subsampling": 0}) if mode == "YCbCr" else ("a.tiff", {})
    seen = pixels(save(image, tmp_path / name, **options))
    assert off_by_one(seen[:, :4], gray)
    assert off_by_one(seen[:, 4:], 255)


def in_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.profileToProfile(image, *profiles, outputMode="LAB")


def hidden(mode: str) -> tuple[Image.Image, dict]:
    """An image that is black to the left and transparent to the right, where its hidden color is black too."""
    alpha = Image.new("L", (8, 8), 255)
    alpha.paste(0, (4, 0, 8, 8))
    black = Image.new("RGB", (8, 8))
    if mode in ("LA", "PA", "RGBA"):
        image = (black.convert("P") if mode == "PA" else black).convert(mode)
        image.putalpha(alpha)
        return image, {}
    marked = black.convert("L")
    marked.paste(7, (4, 0, 8, 8))
    if mode == "P":
        image = Image.frombytes("P", marked.size, marked.tobytes())
        image.putpalette([0, 0, 0] * 256)
        return image, {"transparency": 7}
    return marked.convert(mode), {"transparency": 7 if mode == "L" else (7, 7, 7)}


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("LA", "png"), ("RGBA", "png"), ("P", "png"), ("L", "png"), ("RGB", "png"), ("P", "gif"), ("PA", "tiff")],
)
def test_hidden_colors_show_white(tmp_path, mode, suffix):
    image, options = hidden(mode)
    seen = pixels(save(image, tmp_path / f"a.{suffix}", **options))
    assert (seen[:, :4] == 0).all()
    assert (seen[:, 4:] == 255).all()


def test_half_transparent_pixels_are_mixed_with_white(tmp_path):
    path = save(Image.new("RGBA", (4, 4), (0, 0, 0, 128)), tmp_path / "a.png")
    assert (abs(pixels(path) - 127) <= 1).all()
