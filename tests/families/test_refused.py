"""Models that cannot be trimmed raise an error with the reason."""

import pytest

import vistrim
from tests.families.refused import REFUSED
from tests.families.zoo import FAMILIES


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_class_is_refused(name):
    """Where the config names the class, it alone gives the same reason."""
    case = REFUSED[name]
    with pytest.raises(vistrim.UnsupportedModelError) as refusal:
        vistrim.trim(case.build(), vistrim.FastV())
    if case.architecture is None:
        with pytest.raises(vistrim.UnsupportedModelError) as of_config:
            vistrim.describe_support(case.config())
        assert str(of_config.value) == str(refusal.value)


@pytest.mark.skipif("llama4" not in FAMILIES, reason="this transformers release cannot run it")
def test_llama_4_beyond_what_it_counts_by_positions():
    """Its chunks and scaled queries go by rows: sequences that reach them are refused before any work is done."""
    family = FAMILIES["llama4"]
    model = family.build()
    inputs = family.batch([family.sample(2, 9)])
    tokens = inputs["input_ids"].shape[1]
    with vistrim.trim(model, vistrim.PVTP(1, 2, 0.5)):
        model.generate(**inputs, max_new_tokens=256 - tokens, do_sample=False)
        with pytest.raises(vistrim.UnsupportedGenerationError, match="more than 256 tokens"):
            model.generate(**inputs, max_new_tokens=257 - tokens, do_sample=False)
