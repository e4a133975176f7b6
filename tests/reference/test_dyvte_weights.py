"""The shipped routers let the reference model forget its images early, and right."""

from statistics import mean

import pytest

from vistrim import DyVTE, load, trim
from vistrim.prompting import format_prompts
from vistrim.reference.items import items

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def loaded():
    return load("reference")


def test_answers_stay_right_and_images_leave_early(loaded):
    model, processor = loaded
    asked = [item for task in ("color", "kind", "position", "lookup") for item in items(task, "validation", "full", 8)]
    inputs = format_prompts(processor, [item.prompt for item in asked], [[item.image()] for item in asked])
    with trim(model, DyVTE()) as run:
        sequences = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    answers = processor.batch_decode(sequences[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    scores = [item.score(text.strip()) for item, text in zip(asked, answers, strict=True)]
    assert mean(scores) >= 0.9
    exits = run.report.exit_layers
    assert mean(12 if layer is None else layer for layer in exits) < 8
    # The first layers have not read the image yet.
    assert min(12 if layer is None else layer for layer in exits) >= 3
    assert len(set(exits)) > 1


def test_routers_of_another_model_are_refused():
    small, _ = load("reference-small")
    with pytest.raises(ValueError, match="there is none in vistrim/ beside its weights"):
        trim(small, DyVTE())
