"""The tiny models answer in stock transformers, alone and in a padded batch."""

import pytest
import torch

from tests.families.zoo import FAMILIES, shared

NAMES = sorted(FAMILIES)


@torch.no_grad()
def _answer(model, inputs):
    return model.generate(**inputs, max_new_tokens=2, do_sample=False, output_logits=True, return_dict_in_generate=True)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", NAMES)
def test_samples_and_batches_are_answered(name, attention):
    family, model = FAMILIES[name], shared(name, attention)
    few, many = family.sample(1, 9), family.sample(2, 14, seed=1)
    for samples in ([few], [many, few, family.sample(1, 5, seed=2)]):
        inputs = family.batch(samples)
        output = _answer(model, inputs)
        assert output.sequences.shape == (len(samples), inputs["input_ids"].shape[1] + 2)
        assert all(torch.isfinite(step).any() and not step.isnan().any() for step in output.logits)


@pytest.mark.parametrize("name", NAMES)
def test_images_change_the_answer(name):
    family, model = FAMILIES[name], shared(name)
    inputs = family.batch([family.sample(1, 9)])
    pixels = next(key for key in inputs if key.startswith("pixel_values") and inputs[key].is_floating_point())
    # Roughly, so that the words of a codebook change as well.
    other = inputs | {pixels: inputs[pixels].flip(-1) * 3}
    assert not torch.equal(_answer(model, inputs).logits[0], _answer(model, other).logits[0])


@pytest.mark.parametrize("name", [name for name in NAMES if FAMILIES[name].has_video])
def test_videos_beside_images_are_answered(name):
    family, model = FAMILIES[name], shared(name)
    inputs = family.batch([family.sample(1, 9, videos=1), family.sample(0, 4, videos=1), family.sample(1, 7)])
    assert not _answer(model, inputs).logits[0].isnan().any()
