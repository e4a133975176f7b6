import pytest
from PIL import Image

from vistrim._utils.image_files import read_images
from vistrim.errors import InputError


def refusal(path) -> str:
    with pytest.raises(InputError) as error:
        read_images([path])
    return str(error.value)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "CMYK"])
def test_any_colour_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / "a.tiff"
    Image.new(mode, (9, 5)).save(path)
    (image,) = read_images([path])
    assert (image.mode, image.size) == ("RGB", (9, 5))


def test_photos_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (9, 5)).save(tmp_path / "a.jpg", exif=exif)
    assert read_images([tmp_path / "a.jpg"])[0].size == (5, 9)


def test_missing_file(tmp_path):
    assert "there is no image file" in refusal(tmp_path / "none.png")


def test_directory(tmp_path):
    assert "is a directory" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x00" * 999])
def test_no_image(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    assert "is not an image" in refusal(path)


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "webp", "bmp", "tiff"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_files_never_pass_or_crash(tmp_path, kind, share):
    path = tmp_path / f"a.{kind}"
    Image.effect_noise((64, 64), 90).convert("RGB").save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "is damaged or cut short" in refusal(path) or "is not an image" in refusal(path)


@pytest.mark.parametrize("times", [1.5, 3])
def test_decompression_bombs(tmp_path, monkeypatch, times):
    """Pillow warns from its limit on, and raises from twice its limit on: both are refused."""
    path = tmp_path / "bomb.png"
    Image.new("1", (2000, 1000)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(2_000_000 / times))
    assert "million pixels: scale it down" in refusal(path)


def test_a_long_strip_would_be_blown_up(tmp_path):
    Image.new("RGB", (1, 101)).save(tmp_path / "a.png")
    assert "strip of 1 x 101 pixels" in refusal(tmp_path / "a.png")
    Image.new("RGB", (1, 100)).save(tmp_path / "b.png")
    assert read_images([tmp_path / "b.png"])[0].size == (1, 100)
