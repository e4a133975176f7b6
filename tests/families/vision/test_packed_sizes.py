"""Packed towers: grids and patches as seen by eye, and the FLOPs of encoding."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.families.depth import WHOLE, slow_beside
from tests.families.vision.packed_reference import TOWERS, batches, encode, features_of, pictures, visual_tokens
from tests.families.zoo import FAMILIES, shared
from tests.tiny import generate
from vistrim import Pool, Uniform, trim
from vistrim.architectures import discover
from vistrim.architectures.packed import Patches, in_rows, in_squares, in_windows
from vistrim.core.costs import VisionShape, vision_flops
from vistrim.core.layout import ImageShape, Picture, left_of

IMAGES = torch.tensor([[1, 4, 6], [1, 8, 4]])
FILMS = torch.tensor([[3, 4, 6]])
SHAPES = {
    "qwen2_5_vl": ("image", {"image_grid_thw": IMAGES}, [[(2, 3)], [(4, 2)]]),
    "qwen3_vl": ("video", {"video_grid_thw": FILMS}, [[(2, 3)] * 3]),
    "glm4v": ("video", {"video_grid_thw": FILMS}, [[(2, 3)] * 3]),
    "paddleocr_vl": ("image", {"image_grid_thw": IMAGES}, [[(2, 3)], [(4, 2)]]),
    "video_llama_3": (
        "video",
        {"video_grid_thw": torch.tensor([[2, 4, 6], [1, 4, 6]]), "video_merge_sizes": torch.tensor([2, 1])},
        [[(2, 3), (2, 3)], [(4, 6)]],
    ),
    # 5 x 7 patches, of which the last row and the last column fill no square.
    "mistral3": ("image", {"image_sizes": torch.tensor([[20, 28], [16, 8]])}, [[(2, 3)], [(2, 1)]]),
    "lighton_ocr": ("image", {"image_sizes": [(16, 16), (8, 24)]}, [[(2, 2)], [(1, 3)]]),
    "llava-pixtral": ("image", {"image_sizes": torch.tensor([[20, 28]])}, [[(5, 7)]]),
}


@pytest.mark.parametrize("name", SHAPES)
def test_grids(name):
    modality, arguments, grids = SHAPES[name]
    shapes = discover(shared(name)).images.shapes(modality, arguments, [])
    assert [[picture.grid for picture in shape.pictures] for shape in shapes] == grids
    assert all(picture.tokens == picture.grid[0] * picture.grid[1] for shape in shapes for picture in shape.pictures)


def test_images_without_sizes_are_as_large_as_they_are_given():
    shapes = discover(shared("llava-pixtral")).images.shapes("image", {"pixel_values": torch.zeros(2, 3, 8, 12)}, [12])
    assert [shape.pictures[0].grid for shape in shapes] == [(2, 3), (2, 3)]


def test_rows_of_an_image_of_hunyuan_have_a_newline_and_the_image_a_frame():
    (shape,) = discover(shared("hunyuan_vl")).images.shapes("image", {"image_grid_thw": torch.tensor([[1, 4, 6]])}, [])
    assert shape.pictures == (Picture(2 * (3 + 1) + 2, projected=6, patches=24),)


def test_sources_by_hand():
    patches = Patches(frames=2, rows=2, columns=5, merge=2)
    assert in_rows(patches).tolist() == [[0, 1, 5, 6], [2, 3, 7, 8], [10, 11, 15, 16], [12, 13, 17, 18]]
    assert in_squares(Patches(1, 2, 4, 2)).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    # Visual tokens 0 1 2 / 3 4 5 are in the tower as 0 1 3 4 | 2 5.
    windows = in_windows(2)(Patches(1, 4, 6, 2))
    assert (windows[:, 0] // 4).tolist() == [0, 1, 4, 2, 3, 5]


def test_left_of_a_compressed_video():
    frames = ImageShape((Picture.of((1, 2)), Picture.of((1, 2)), Picture.of((1, 2))))
    whole, part = left_of([frames, frames], torch.tensor([1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1]).bool())
    assert whole == frames
    assert part.pictures == (Picture.of((1, 2)), Picture(0), Picture(1))


PIXELS = ("patch_embed", "patch_embedding", "patch_conv")
"""What turns pixels into patches, which does not count."""


@pytest.mark.parametrize("name", slow_beside(WHOLE, TOWERS))
def test_flops_equal_a_count_of_the_matrix_products(name):
    """Counted by torch while the untouched model encodes."""
    family, model = FAMILIES[name], shared(name)
    for samples in batches(name):
        inputs = family.batch(samples)
        with trim(model, Uniform(0.5)) as run:
            generate(model, inputs, 1)
        if name in ("exaone4_5", "ernie4_5_vl_moe"):
            # Fewer heads of keys than of queries; pictures of two frames.
            assert run.report.vision_flops is None
            continue
        with torch.no_grad(), FlopCounterMode(display=False, depth=9) as counter:
            for modality, pixels in (("image", "pixel_values"), ("video", "pixel_values_videos")):
                if pixels in inputs:
                    features_of(name, modality, inputs)
        counts = {module: sum(count.values()) for module, count in counter.get_flop_counts().items()}
        counted = counts["Global"] - sum(n for module, n in counts.items() if module.endswith(PIXELS))
        # The learned tokens of HunyuanOCR's images go through one of the projector's matrices.
        assert run.report.vision_flops == pytest.approx(counted, rel=0.05 if name == "hunyuan_vl" else 1e-9)


def test_windows_that_are_cut_off():
    """3 x 5 visual tokens in windows of 2 x 2, by hand: 2 of them of 4 tokens, 2 of 2 and so on."""
    shape = VisionShape(3, 8, 16, None, (32, 4), windowed=2, window=2)
    picture = Picture.of((3, 5), patches=60)
    sizes = [4, 4, 2, 2, 2, 1]
    pairs = 60 * 60 + 2 * sum((4 * n) ** 2 for n in sizes)
    matrices = 3 * 60 * (4 * 8 * 8 + 2 * 8 * 16) + 15 * 32 * 4
    assert vision_flops(shape, [picture]) == 2 * (matrices + 2 * pairs * 8)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "mistral3", "video_llama_3"])
def test_pool_averages_each_picture_over_a_grid(name):
    """Its tokens are those nearest the centres of the grid's cells."""
    family, model = FAMILIES[name], shared(name)
    samples = [family.sample(2, 9, seed=1), family.sample(1, 5)]
    with trim(model, Pool(1)) as run:
        output = generate(model, family.batch(samples), 1)
    for b, visual in enumerate(visual_tokens(name, samples)):
        found = encode(name, samples)
        kept = set()
        for own in pictures(found, visual):
            rows, columns = found["image"].grids[found["image"].picture[visual[own[0]][1]]]
            kept.add(own[(rows - 1) // 2 * columns + (columns - 1) // 2])
        assert set(run.report.stages[0].kept[b]) == kept
    assert torch.isfinite(output.logits[0]).all()
