"""The tiny models and prompts of all families, checked on the untouched models."""

import pytest
import torch
from transformers.vision_utils import get_vision_window_index

from tests.closeness import close
from tests.families.matrix import each_attention
from tests.families.zoo import FAMILIES, Family, Sample, shared
from tests.families.zoo.family import IMAGE, VIDEO
from tests.tiny import generate, logits

# It tests what the other tests rest on, and no code of the package.
pytestmark = pytest.mark.slow


def window_of(name: str) -> int | None:
    return getattr(FAMILIES[name].config().get_text_config(), "sliding_window", None)


every_family = pytest.mark.parametrize("name", FAMILIES)


def batches(family: Family) -> list[list[Sample]]:
    """Different numbers of images, none at all, and videos, alone and between images."""
    pictures = [family.sample(1, 9), family.sample(2, 14, seed=1), family.sample(0, 20, seed=2)]
    if not family.has_video:
        return [pictures]
    film = family.sample(0, 5, seed=3, videos=1)
    if not family.has_both:
        return [pictures, [film, family.sample(0, 8, seed=4, videos=2), family.sample(0, 20, seed=2)]]
    return [pictures, [*pictures, film, family.sample(2, 7, seed=4, videos=2)]]


def prompts(family: Family) -> list[Sample]:
    return batches(family)[0] + batches(family)[-1][-2:]


@every_family
@each_attention
def test_a_padded_batch_equals_its_samples_alone(name, attention):
    family, model = FAMILIES[name], shared(name, attention)
    for samples in batches(family):
        together = logits(generate(model, family.batch(samples), 4))
        alone = torch.cat([logits(generate(model, family.batch([s]), 4)) for s in samples])
        assert together.std() > 0.1
        # HunyuanOCR numbers the images of a whole batch, and makes positions of these numbers.
        allowed = 1e-3 if name == "hunyuan_vl" else None
        assert close(together, alone, allowed)


@every_family
def test_placeholders_are_as_many_as_features(name):
    family, model = FAMILIES[name], shared(name)
    for sample in prompts(family):
        assert bool(sample.visual) == bool(sample.media)
        for placeholder in {IMAGE, VIDEO} & set(sample.ids):
            fewer = list(sample.ids)
            fewer.remove(placeholder)
            with pytest.raises((ValueError, RuntimeError)):
                generate(model, family.batch([Sample(fewer, sample.media)]), 1)


@every_family
def test_every_image_shows_something_else_and_matters(name):
    family, model = FAMILIES[name], shared(name)
    for sample in prompts(family):
        before = logits(generate(model, family.batch([sample]), 1))
        for key in ("pixel_values", "pixel_values_videos", "pixel_values_images"):
            pixels = sample.media.get(key)
            if pixels is None:
                continue
            pictures = pixels.movedim(family.image_dim, 0)
            assert len(torch.unique(pictures.flatten(1), dim=0)) == len(pictures)
            for at in (0, len(pictures) - 1):
                other = pixels.clone()
                other.movedim(family.image_dim, 0)[at] *= -1
                changed = family.batch([Sample(sample.ids, {**sample.media, key: other})])
                assert not close(logits(generate(model, changed, 1)), before)


@every_family
def test_the_same_seed_gives_the_same_prompt(name):
    family = FAMILIES[name]
    first, again, other = family.sample(2, seed=5), family.sample(2, seed=5), family.sample(2, seed=6)
    assert first.ids == again.ids != other.ids
    assert all(torch.equal(first.media[key], again.media[key]) for key in first.media)


def test_a_sliding_window_matters_unless_it_is_wider_than_the_prompt():
    # In a loop: which families have one is not asked as tests are collected, because their configs take a second.
    windows = {name: window for name in FAMILIES if (window := window_of(name)) is not None}
    for name, window in windows.items():
        family, wide = FAMILIES[name], FAMILIES[name].build()
        wide.config.get_text_config().sliding_window = 10_000
        for sample in prompts(family):
            inputs = family.batch([sample])
            # In PaliGemma 2 the prompt's tokens see all of the prompt, and only the answer looks back over a window.
            difference = (logits(generate(wide, inputs, 2)) - logits(generate(shared(name), inputs, 2))).abs().max()
            assert (difference > 0.01) == (window < len(sample.ids)), name


def test_windows_of_the_qwen2_5_tower_change_the_order_of_tokens():
    family, model = FAMILIES["qwen2_5_vl"], shared("qwen2_5_vl")
    tower = model.model.visual
    grids = torch.cat([family.sample(2, seed=seed).media["image_grid_thw"] for seed in range(6)])
    orders = [
        get_vision_window_index(grid[None], tower.spatial_merge_size, tower.window_size, tower.patch_size)[0]
        for grid in torch.unique(grids, dim=0)
    ]
    assert len(orders) > 2
    assert sum(not torch.equal(order, order.sort().values) for order in orders) >= 2
