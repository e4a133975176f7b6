"""Where visual tokens are drawn: on the image that they came from, cut into tiles or padded to the largest or not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import vistrim
from tests.analysis.test_overlay import trace
from tests.cli.invoke import vistrim as command
from tests.families.zoo import FAMILIES
from tests.processors.zoo import CHECKPOINTS
from vistrim.analysis import regions_of
from vistrim.analysis.pixels import pixels_of
from vistrim.analysis.tiles import Tile, arrange
from vistrim.core.layout import Picture
from vistrim.prompting import format_prompts

LEFT, RIGHT = (200, 30, 30), (30, 30, 200)


def two_colors(width, height):
    """The left half is red and the right half is blue."""
    image = Image.new("RGB", (width, height), LEFT)
    image.paste(RIGHT, (width // 2, 0, width, height))
    return image


def regions(name, images):
    processor = CHECKPOINTS[name].processor()
    inputs = format_prompts(processor, ["what"], [images])
    model = replace(FAMILIES[name], config=CHECKPOINTS[name]._config).build()
    with vistrim.trim(model, vistrim.FastV(1), trace=True) as run, torch.no_grad():
        model(**inputs.to(dtype=model.dtype), logits_to_keep=1)
    return regions_of(processor, inputs, images, run.report.trace), run.report.visual_tokens[0]


@pytest.mark.parametrize("name", ["idefics3", "llava_next"])
@pytest.mark.parametrize("size", [(90, 30), (30, 90)])
def test_tiles_are_put_together(name, size):
    found, tokens = regions(name, [two_colors(*size)])
    overview, tiles = found
    assert (overview.name, tiles.name.split(", ")[0]) == ("image, overview", "image")
    assert "tiles" in tiles.name
    drawn = [*overview.tokens, *tiles.tokens]
    # LLaVA-NeXT's newlines lie nowhere.
    assert len(set(drawn)) == len(drawn) == tokens - (tiles.grid[0] if name == "llava_next" else 0)
    assert (tiles.grid[1] > tiles.grid[0]) == (size[0] > size[1])
    for region in found:
        pixels = np.asarray(region.image).astype(int)
        quarter = region.image.width // 4
        assert (np.abs(pixels[:, :quarter] - LEFT) < 40).all()
        assert (np.abs(pixels[:, -quarter:] - RIGHT) < 40).all()


def test_tiles_of_two_images_say_which():
    found, _ = regions("idefics3", [two_colors(90, 30), two_colors(30, 90)])
    names = ["image 1, overview", "image 1, 1 x 3 tiles", "image 2, overview", "image 2, 3 x 1 tiles"]
    assert [region.name for region in found] == names


def test_tiles_that_fill_no_rectangle_are_not_put_together():
    tiles = [Tile(0, 0.5 * column, 0.5 * row, 0.5, 0.5) for row in range(2) for column in range(2)]
    assert arrange(tiles) == [[0, 1], [2, 3]]
    assert arrange(tiles[:3]) is None


def test_padding_of_the_batch_is_not_drawn():
    """As Pixtral's processor pads: the smaller image is in the upper left corner."""
    pixels, sizes = torch.zeros(2, 3, 16, 24), torch.tensor([[8, 24], [16, 8]])
    for picture, (height, width) in zip(pixels, sizes.tolist(), strict=True):
        picture[:, :height, :width] = 1
    images = [two_colors(24, 8), two_colors(8, 16)]
    given = trace([Picture.of((2, 6)), Picture.of((4, 2))])
    processor = CHECKPOINTS["llava"].processor()
    found = regions_of(processor, {"pixel_values": pixels, "image_sizes": sizes}, images, given)
    assert [region.image.size for region in found] == [(24, 8), (8, 16)]
    assert all(len(region.image.getcolors()) == 1 for region in found)


def test_pictures_by_another_name():
    pixels = torch.zeros(1, 3, 8, 8)
    assert pixels_of({"pixel_values_images": pixels}).shape == pixels.shape
    assert pixels_of({"pixel_values": torch.zeros(1, 5, 3, 8, 8)}).shape == (5, 3, 8, 8)
    assert pixels_of({"pixel_values": torch.zeros(40, 24)}) is None


def test_the_answer_is_printed_though_nothing_can_be_drawn(monkeypatch, checkpoint, image, tmp_path):
    def fail(*_):
        raise KeyError("pixel_values")

    monkeypatch.setattr("vistrim.cli.overlays.regions_of", fail)
    path = tmp_path / "kept.png"
    result = command("run", image, "-p", "what is this", "--model", checkpoint, "--overlay", str(path), "--json")
    assert result.exit_code == 0
    assert '"overlay": null' in result.stdout
    assert "note: no overlay can be drawn for this model ('pixel_values')" in result.stderr
    assert not path.exists()
