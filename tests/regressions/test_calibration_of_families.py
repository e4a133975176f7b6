"""Calibration in families whose processors give more for each token than ids and mask, or that are called otherwise."""

from types import SimpleNamespace

import pytest
import torch

from tests import tiny
from tests.closeness import close
from tests.families.zoo import FAMILIES, shared
from vistrim.calibration.attention_ratios import attention_ratios
from vistrim.calibration.dyvte_exits import check_ends
from vistrim.calibration.dyvte_routers import LEAST_SAMPLES, check_samples
from vistrim.calibration.text_alone import text_alone
from vistrim.engine.inputs.appended_text import with_text_behind

NAMES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v", "gemma3", "paligemma", "ernie4_5_vl_moe", "llava_next")
NEW = 4


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_answers_behind_prompts_are_read_as_they_are_generated(name):
    family, model = FAMILIES[name], shared(name)
    inputs = family.batch([family.sample(1, 9), family.sample(2, 5, seed=1)])
    inputs.pop("labels", None)
    generated = tiny.generate(model, inputs, NEW)
    width = inputs["input_ids"].shape[1]
    ids = generated.sequences[:, width:]
    extended = with_text_behind(model, inputs, ids, torch.ones_like(ids, dtype=torch.bool))
    assert all(value.shape[1] == width + NEW for key, value in extended.items() if value.shape[:2] == (len(ids), width))
    read = model(**extended).logits[:, width - 1 : -1]
    assert close(read, tiny.logits(generated))


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_text_alone_begins_with_the_untouched_model(name):
    family, model = FAMILIES[name], shared(name)
    inputs = family.batch([family.sample(1, 9), family.sample(2, 5, seed=1)])
    found = text_alone(model, inputs, 1)
    without = {key: value for key, value in inputs.items() if key != "labels"}
    last = model(**without).logits[:, -1]
    assert torch.equal(model.get_output_embeddings()(found.last)[:, -1].argmax(-1), last.argmax(-1))
    assert found.without_image_from(1).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_heads_are_measured(name):
    family, model = FAMILIES[name], shared(name)
    inputs = family.batch([family.sample(1, 9), family.sample(2, 5, seed=1)])
    ratios = attention_ratios(model, inputs)
    assert ratios.isfinite().all()
    assert (ratios > 0).all()


def test_unusable_questions_are_refused_before_any_measurement():
    with pytest.raises(ValueError, match="too few"):
        check_samples(LEAST_SAMPLES - 1)
    with pytest.raises(ValueError, match="no end-of-sequence token"):
        check_ends(SimpleNamespace(eos_token=None))
