"""The search for the heads that look at images equals its definition on whole attention maps."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import vistrim
from tests import tiny
from tests.closeness import close
from vistrim import YOPO, UnsupportedModelError, trim
from vistrim.calibration.attention_ratios import attention_ratios
from vistrim.calibration.yopo_heads import calibrate_heads, threshold_for, vote
from vistrim.engine.attention import interception

PROMPTS = [tiny.batch(tiny.RAGGED), tiny.batch([tiny.sample(2, 7)])]
SAMPLES = [*tiny.RAGGED, tiny.sample(2, 7)]


@torch.no_grad()
def by_maps(sample):
    maps = tiny.shared("llama", "eager")(**tiny.batch([sample]), output_attentions=True).attentions
    visual = torch.tensor(sample.ids) == tiny.IMAGE
    asks = torch.arange(len(visual)) > visual.nonzero().max()
    rows = torch.stack([layer[0][:, asks] for layer in maps])
    return rows[..., visual].sum((2, 3)) / rows[..., ~visual].sum((2, 3))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_ratios_equal_those_of_attention_maps(attention, side):
    found = attention_ratios(tiny.shared("llama", attention), tiny.batch(tiny.RAGGED, side))
    expected = torch.stack([by_maps(sample) for sample in tiny.RAGGED])
    assert close(found, expected)


def test_a_head_is_active_if_more_than_two_fifths_vote_for_it():
    ratios = torch.stack([by_maps(sample) for sample in SAMPLES])
    threshold = ratios.median().item()
    found = calibrate_heads(tiny.shared(), PROMPTS, threshold=threshold)
    expected = (ratios > threshold).float().mean(0) > 0.4
    expected[:2] = True
    assert torch.equal(found.active, expected)
    assert found.threshold == threshold
    assert 0.4 < found.share < 1


@given(st.integers(1, 12), st.integers(3, 6), st.integers(1, 5), st.floats(0.01, 1), st.integers(0, 99))
def test_the_threshold_reaches_the_share(prompts, layers, heads, keep, seed):
    ratios = torch.rand(prompts, layers, heads, generator=torch.Generator().manual_seed(seed))
    wanted = int(layers * heads * keep + 0.5)
    if wanted < 2 * heads:
        with pytest.raises(ValueError, match="must be between"):
            threshold_for(ratios, keep)
        return
    active = vote(ratios, threshold_for(ratios, keep))
    assert active.sum() == wanted
    assert active[:2].all()


def test_a_saved_mask_is_the_method_s(tmp_path):
    model, path = tiny.build(), tmp_path / "heads.safetensors"
    model.name_or_path = "owner/tiny"
    found = calibrate_heads(model, PROMPTS, keep=0.6)
    assert found.active.sum() == 12
    found.save(path, model)
    mask = tuple(map(tuple, found.active.tolist()))
    inputs, logits = tiny.batch(tiny.RAGGED), []
    for heads in (str(path), mask):
        with trim(model, YOPO(heads=heads)) as run:
            logits.append(tiny.logits(tiny.generate(model, inputs, 3)))
        assert run.report.prefill_flops < run.report.prefill_flops_full
    assert torch.equal(*logits)


def test_the_shipped_mask_fits_the_reference_model():
    model, _ = vistrim.load("reference", device="cpu")
    fitted = YOPO(heads="auto").fitted(vistrim.trim(model, YOPO())._engine.spec.facts)
    assert [all(row) for row in fitted.heads[:2]] == [True, True]
    assert sum(map(sum, fitted.heads)) == 36


def test_the_model_is_left_as_it_was():
    model = tiny.shared()
    with pytest.raises(ValueError, match="do not match"):
        attention_ratios(model, dict(PROMPTS[0], pixel_values=PROMPTS[0]["pixel_values"][:1]))
    assert not any(interception.is_installed(layer.self_attn) for layer in model.get_decoder().layers)
    assert not model.model._forward_pre_hooks
    with trim(model, YOPO()), pytest.raises(UnsupportedModelError, match="leave that context"):
        attention_ratios(model, PROMPTS[0])


def test_bad_input():
    model = tiny.shared()
    for settings in ({}, {"threshold": 0.1, "keep": 0.5}):
        with pytest.raises(ValueError, match="either threshold or keep"):
            calibrate_heads(model, PROMPTS, **settings)
    with pytest.raises(ValueError, match="no prompts"):
        calibrate_heads(model, [], keep=0.5)
    with pytest.raises(TypeError, match=r"write \[inputs\]"):
        calibrate_heads(model, PROMPTS[0], keep=0.5)
    with pytest.raises(ValueError, match=r"between 0\.40"):
        calibrate_heads(model, PROMPTS, keep=0.3)
    image_last = tiny.Sample([1, 5, *[tiny.IMAGE] * tiny.TOKENS_PER_IMAGE], tiny.sample().pixels)
    for sample in (tiny.sample(0, 9), image_last):
        with pytest.raises(ValueError, match="an image and text after it"):
            calibrate_heads(model, [tiny.batch([sample])], keep=0.5)
