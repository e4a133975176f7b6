from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil

from vistrim import Trace
from vistrim.analysis import draw_overlay, draw_trace, image_as_seen
from vistrim.analysis.overlay import GAP, MAX_COLUMNS, PANEL
from vistrim.core.layout import ImageShape, Picture
from vistrim.engine.report.token_groups import token_groups
from vistrim.engine.report.trace import PrefillStage, SampleTrace

RED = (220, 30, 30)


def trace(pictures, *stages):
    n = sum(picture.tokens for picture in pictures)
    groups = token_groups("image", [ImageShape((picture,)) for picture in pictures], range(n))
    prefill = {0: tuple(range(n))} | dict(stages)
    stages = tuple(PrefillStage(layer, tuple(kept)) for layer, kept in prefill.items())
    return Trace(4, 0, (SampleTrace(n, 0, tuple(groups), stages, ((),) * 4),))


SQUARE = Picture.of((4, 4))


def panels(sheet: Image.Image, rows: int, columns: int, count: int) -> list[np.ndarray]:
    """Cut one row of panels out of a sheet."""
    cell = round(PANEL / max(rows, columns))
    width, height = columns * cell, rows * cell
    top = sheet.height - GAP - height
    lefts = [GAP + i * (width + GAP) for i in range(count)]
    return [np.asarray(sheet.crop((left, top, left + width, top + height))) for left in lefts]


def centre(panel: np.ndarray, grid: tuple[int, int], token: int) -> tuple[int, ...]:
    cell = panel.shape[0] // grid[0]
    row, column = divmod(token, grid[1])
    return tuple(panel[row * cell + cell // 2, column * cell + cell // 2].tolist())


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("rescale", [True, False])
def test_the_image_is_what_went_into_the_processor(normalise, rescale):
    image = Image.effect_noise((16, 16), 80).convert("RGB")
    processor = CLIPImageProcessorPil(do_resize=False, do_center_crop=False, do_normalize=normalise, do_rescale=rescale)
    pixels = processor(image, return_tensors="pt")["pixel_values"][0]
    assert np.array_equal(np.asarray(image_as_seen(pixels, processor)), np.asarray(image))


def test_half_precision_pixels():
    image = Image.effect_noise((16, 16), 80).convert("RGB")
    processor = CLIPImageProcessorPil(do_resize=False, do_center_crop=False)
    pixels = processor(image, return_tensors="pt")["pixel_values"][0].bfloat16()
    difference = np.asarray(image_as_seen(pixels, processor)).astype(int) - np.asarray(image).astype(int)
    assert np.abs(difference).max() <= 2


@pytest.mark.parametrize("shape", [(16, 16), (1, 16, 16), (1, 3, 16, 16)])
def test_other_tensors_are_refused(shape):
    with pytest.raises(ValueError, match="are no image"):
        image_as_seen(torch.zeros(shape), CLIPImageProcessorPil())


@pytest.mark.parametrize("grid", [(4, 4), (12, 12), (3, 5)])
@pytest.mark.parametrize("color", [RED, (0, 0, 0), (255, 255, 255), (128, 128, 128)])
def test_kept_patches_stay_and_dropped_ones_do_not(grid, color):
    n = grid[0] * grid[1]
    kept = [0, 2, n - 1]
    image = Image.new("RGB", (grid[1] * 14, grid[0] * 14), color)
    original, stage = panels(draw_overlay(image, grid, [("stage", kept)]), *grid, 2)
    assert {centre(original, grid, token) for token in range(n)} == {color}
    for token in range(n):
        shown = centre(stage, grid, token)
        if token in kept:
            assert shown == color
        else:
            assert max(abs(a - b) for a, b in zip(shown, color, strict=True)) > 40
            assert max(shown) - min(shown) < 12


def test_many_panels_wrap_into_rows():
    image = Image.new("RGB", (48, 48), RED)
    few = draw_overlay(image, (4, 4), [("s", [0])] * (MAX_COLUMNS - 1))
    many = draw_overlay(image, (4, 4), [("s", [0])] * MAX_COLUMNS)
    assert many.width < few.width
    assert many.height > 1.8 * few.height


def test_titles_of_narrow_panels_do_not_overlap():
    narrow = draw_overlay(Image.new("RGB", (8, 96)), (24, 2), [("from layer 10: 12 of 48", [0])])
    assert narrow.width > 300


@pytest.mark.parametrize("token", [-1, 16])
def test_a_token_outside_of_the_grid(token):
    with pytest.raises(ValueError, match="outside of the 4 x 4 grid"):
        draw_overlay(Image.new("RGB", (16, 16)), (4, 4), [("stage", [token])])


def test_the_tokens_of_several_images_are_told_apart():
    images = [Image.new("RGB", (16, 16), RED), Image.new("RGB", (16, 16), "blue")]
    sheet = draw_trace(trace([SQUARE] * 2, (1, [0, 5, 16, 31]), (3, [5, 16])), images)
    first = draw_overlay(
        images[0],
        (4, 4),
        [("from layer 1: 2 of 16", [0, 5]), ("from layer 3: 1 of 16", [5])],
        "image 1: 16 tokens",
    )
    second = draw_overlay(
        images[1],
        (4, 4),
        [("from layer 1: 2 of 16", [0, 15]), ("from layer 3: 1 of 16", [0])],
        "image 2: 16 tokens",
    )
    assert sheet.crop((0, 0, *first.size)).tobytes() == first.tobytes()
    assert sheet.crop((0, first.height, second.width, sheet.height)).tobytes() == second.tobytes()


def test_a_stage_that_drops_nothing_of_an_image_has_no_panel():
    image = Image.new("RGB", (16, 16), RED)
    everything = list(range(16))
    drawn = draw_trace(trace([SQUARE], (0, everything), (2, [3, 4]), (3, [3, 4])), [image])
    expected = draw_overlay(image, (4, 4), [("from layer 2: 2 of 16", [3, 4])], "image: 16 tokens")
    assert drawn.tobytes() == expected.tobytes()


def test_tokens_dropped_before_the_decoder():
    image = Image.new("RGB", (16, 16), RED)
    drawn = draw_trace(trace([SQUARE], (0, [3, 4])), [image])
    expected = draw_overlay(image, (4, 4), [("before layer 0: 2 of 16", [3, 4])], "image: 16 tokens")
    assert drawn.tobytes() == expected.tobytes()


def test_images_of_several_sizes():
    images = [Image.new("RGB", (16, 16), RED), Image.new("RGB", (24, 8), "blue")]
    sheet = draw_trace(trace([SQUARE, Picture.of((2, 6))], (1, [3, 16, 27])), images)
    second = draw_overlay(images[1], (2, 6), [("from layer 1: 2 of 12", [0, 11])], "image 2: 12 tokens")
    assert sheet.crop((0, sheet.height - second.height, second.width, sheet.height)).tobytes() == second.tobytes()


def test_tokens_that_are_no_grid_are_refused():
    with pytest.raises(ValueError, match="17 visual tokens do not form one grid for each of 1 images"):
        draw_trace(trace([Picture(17)]), [Image.new("RGB", (16, 16))])


def test_a_token_that_cannot_be_removed_counts_as_kept():
    image = Image.new("RGB", (16, 16), RED)
    whole = trace([SQUARE], (1, [3]))
    groups = token_groups("image", [ImageShape((SQUARE,))], [*range(15), None])
    drawn = draw_trace(Trace(4, 0, (replace(whole.samples[0], groups=tuple(groups)),)), [image])
    expected = draw_overlay(image, (4, 4), [("from layer 1: 2 of 16", [3, 15])], "image: 16 tokens")
    assert drawn.tobytes() == expected.tobytes()
