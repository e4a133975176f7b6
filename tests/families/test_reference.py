"""The masked reference is the stock model when nothing is hidden, and hides all of what it should."""

import pytest
import torch

from tests import tiny
from tests.families.reference import MaskedReference
from tests.families.test_zoo import TOLERANCE, every_family
from tests.families.zoo import FAMILIES, Family, Sample, shared
from tests.oracle import Oracle, st3_schedule
from tests.tiny import generate, logits

STEPS = 4
SCHEDULES = {
    "pvtp": {"start": 1, "stride": 2, "ratio": 0.5},
    "vta": {"start": 9, "stride": 1, "ratio": 0.0, "decay": "linear", "horizon": 8},
    "st3": {"start": 1, "stride": 1, "ratio": 0.3, "decay": "cosine", "horizon": 7, "floor": 0.1},
}


def prompts(family: Family) -> list[Sample]:
    chosen = [family.sample(2, 9, seed=1), family.sample(0, 7)]
    return [*chosen, family.sample(1, 6, seed=2, videos=1)] if family.has_video else chosen


def answered(family: Family, model, sample: Sample) -> tuple[list[int], torch.Tensor]:
    """What the stock model answers, and its logits."""
    output = generate(model, family.batch([sample]), STEPS)
    return output.sequences[0, len(sample.ids) :].tolist(), logits(output)[0]


def follow(reference: MaskedReference | Oracle, answer: list[int], *prompt) -> torch.Tensor:
    """Logits of every step when the given answer is read out."""
    return torch.stack([reference.prefill(*prompt), *(reference.decode(token) for token in answer[:-1])])


@every_family
def test_keeping_all_equals_stock_generation(name):
    family, model = FAMILIES[name], shared(name, "eager")
    for sample in prompts(family):
        answer, expected = answered(family, model, sample)
        reference = MaskedReference(family, model)
        assert (follow(reference, answer, sample) - expected).abs().max() <= TOLERANCE
        assert reference.kv_lengths() == [len(sample.ids) + STEPS - 1] * len(reference.layers)


@every_family
def test_a_second_turn_equals_stock_generation(name):
    """Text behind the answer, read by transformers on the cache of the first turn."""
    family, model = FAMILIES[name], shared(name, "eager")
    sample, more = family.sample(1, 9, seed=1), [5, 6, 7]
    inputs = family.batch([sample])
    first = generate(model, inputs, STEPS)
    answer = first.sequences[0, len(sample.ids) :].tolist()
    turn = tiny.follow_up(first, inputs, torch.tensor([more]))
    second = generate(model, {**turn, **(family.derive(turn["input_ids"]) if family.derive else {})}, STEPS)
    reference = MaskedReference(family, model)
    follow(reference, answer, sample)
    got = follow(reference, second.sequences[0, -STEPS:].tolist(), Sample([answer[-1], *more]))
    assert (got - logits(second)[0]).abs().max() <= TOLERANCE


@every_family
def test_further_images_equal_the_conversation_as_one_prompt(name):
    family, model = FAMILIES[name], shared(name, "eager")
    turns = [family.sample(1, 5, seed=1), family.sample(0, 4), family.sample(2, 6, seed=2)]
    reference = MaskedReference(family, model)
    for turn in turns:
        last = reference.prefill(turn)
    inputs = family.batch([family.joined(turns)])
    assert (last - logits(generate(model, inputs, 1))[0, 0]).abs().max() <= TOLERANCE


@every_family
@pytest.mark.parametrize("plan", SCHEDULES)
def test_lengths_are_as_planned(name, plan):
    family, model = FAMILIES[name], shared(name, "eager")
    schedule = st3_schedule(**SCHEDULES[plan])
    for sample in prompts(family):
        reference, untouched = MaskedReference(family, model, schedule), MaskedReference(family, model)
        kept, planned = sample.visual, []
        for layer in range(len(reference.layers)):
            kept = min(kept, schedule(sample.visual, layer, 0)) if layer else kept
            planned.append(kept)
        changed = (reference.prefill(sample) - untouched.prefill(sample)).abs().max() > 0.01
        assert changed == (planned[-1] < sample.visual)
        assert reference.kv_lengths() == [sample.text + n for n in planned]
        for step in range(1, STEPS):
            changed = (reference.decode(5) - untouched.decode(5)).abs().max() > 0.01
            for layer, n in enumerate(planned):
                window = reference.window(layer)
                if window is None or reference.length < window:
                    planned[layer] = min(n, schedule(sample.visual, layer, step))
            assert changed == (planned[-1] < sample.visual)
            assert reference.kv_lengths() == [sample.text + step + n for n in planned]


@every_family
def test_what_does_not_enter_has_no_influence(name):
    """Neither in the prompt nor later, nor by the tower, nor through layers that add features (DeepStack)."""
    family, model = FAMILIES[name], shared(name, "eager")
    sample = family.sample(2, 9, seed=1, videos=int(family.has_video))
    other = {
        key: -value if value.is_floating_point() and value.dim() > 1 else value for key, value in sample.media.items()
    }
    steps = []
    for media in (sample.media, other):
        reference = MaskedReference(family, model, enters=lambda features, rows: ())
        steps.append(follow(reference, [5, 6, 7], Sample(sample.ids, media)))
        assert reference.kv_lengths() == [sample.text + 2] * len(reference.layers)
    assert (steps[0] - steps[1]).abs().max() <= 1e-5


@pytest.mark.parametrize("plan", SCHEDULES)
def test_it_equals_the_other_reference_for_llava(plan):
    schedule = st3_schedule(**SCHEDULES[plan])
    family, model = FAMILIES["llava"], shared("llava", "eager")
    for sample in prompts(family):
        answer, _ = answered(family, model, sample)
        mine, oracle = MaskedReference(family, model, schedule), Oracle(model, schedule)
        expected = follow(oracle, answer, sample.ids, sample.media.get("pixel_values"))
        assert (follow(mine, answer, sample) - expected).abs().max() <= 1e-5
        assert mine.kv_lengths() == oracle.kv_lengths()
        again = family.sample(1, 5, seed=3)
        expected = oracle.prefill(again.ids, again.media["pixel_values"], protected=range(6, 9))
        assert (mine.prefill(again, protected=range(6, 9)) - expected).abs().max() <= 1e-5
        assert mine.kv_lengths() == oracle.kv_lengths()
