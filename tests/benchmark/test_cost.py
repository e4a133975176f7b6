"""Cost and memory of the untouched model, from its shape, equal the measured ones if nothing is removed."""

from dataclasses import replace

import pytest

from tests.families.zoo import FAMILIES, shared
from vistrim import trim
from vistrim.architectures import discover
from vistrim.benchmark.cost import trimmed_cost, untouched_cost
from vistrim.benchmark.keep_everything import KeepEverything
from vistrim.benchmark.subject import Subject

NEW = 3


@pytest.mark.parametrize(
    "name", ["llava", "llava_next", "qwen2_5_vl", "internvl", "smolvlm", "mistral3-mistral4", "gemma3"]
)
def test_shape_and_measurement_agree(name):
    family, model = FAMILIES[name], shared(name)
    sample = family.sample()
    subject = Subject(model, family.batch([sample, sample]), sample.visual, sample.text, 11, {})
    method, spec = KeepEverything(), discover(model)
    with trim(model, method) as run:
        model.generate(**subject.inputs, do_sample=False, max_new_tokens=NEW)
    full, asked = untouched_cost(subject, spec, NEW), len(method.prefill_layers(spec.decoder_shape.layers))
    assert asked > 0
    assert trimmed_cost(run.report, method, spec, 11) == replace(full, notation=method.name, stages=asked)
    assert full.step_bytes == 11 + sum(full.kv_bytes[1:]) / 2
