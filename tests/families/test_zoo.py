"""The tiny models and prompts of all families are what they claim to be, in the untouched models."""

import pytest
import torch

from tests.families.zoo import FAMILIES, Family, Sample, shared
from tests.families.zoo.family import IMAGE, VIDEO
from tests.tiny import generate, logits

TOLERANCE = 1e-4

every_family = pytest.mark.parametrize("name", FAMILIES)


def prompts(family: Family) -> list[Sample]:
    """Different numbers of images, none at all, and videos, alone and between images."""
    chosen = [family.sample(1, 9), family.sample(2, 14, seed=1), family.sample(0, 20, seed=2)]
    if family.has_video:
        chosen += [family.sample(0, 5, seed=3, videos=1), family.sample(2, 7, seed=4, videos=2)]
    return chosen


@every_family
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_padded_batch_equals_its_samples_alone(name, attention):
    family, model = FAMILIES[name], shared(name, attention)
    samples = prompts(family)
    together = logits(generate(model, family.batch(samples), 4))
    alone = torch.cat([logits(generate(model, family.batch([s]), 4)) for s in samples])
    assert together.std() > 0.3
    assert ((together - alone).abs().max() <= TOLERANCE) == (not family.property)


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
                assert (logits(generate(model, changed, 1)) - before).abs().max() > TOLERANCE


@every_family
def test_the_same_seed_gives_the_same_prompt(name):
    family = FAMILIES[name]
    first, again, other = family.sample(2, seed=5), family.sample(2, seed=5), family.sample(2, seed=6)
    assert first.ids == again.ids != other.ids
    assert all(torch.equal(first.media[key], again.media[key]) for key in first.media)
