"""The masked reference equals the stock model if nothing is hidden, and hides all removed tokens."""

import pytest
import torch

from tests.closeness import close
from tests.families.later_turns import next_turn
from tests.families.masked_reference import REFERENCE, MaskedReference
from tests.families.test_zoo import every_family
from tests.families.zoo import FAMILIES, Family, Sample, shared
from tests.families.zoo.family import IMAGE, VIDEO
from tests.oracle import Oracle, st3_schedule
from tests.tiny import generate, logits

# It tests what the other tests rest on, and no code of the package.
pytestmark = pytest.mark.slow

STEPS = 4
SCHEDULES = {
    "pvtp": {"start": 1, "stride": 2, "ratio": 0.5},
    "vta": {"start": 9, "stride": 1, "ratio": 0.0, "decay": "linear", "horizon": 8},
    "st3": {"start": 1, "stride": 1, "ratio": 0.3, "decay": "cosine", "horizon": 7, "floor": 0.1},
}


def prompts(family: Family) -> list[Sample]:
    chosen = [family.sample(2, 9, seed=1), family.sample(0, 7)]
    return [*chosen, family.sample(int(family.has_both), 6, seed=2, videos=1)] if family.has_video else chosen


def answered(family: Family, model, sample: Sample) -> tuple[list[int], torch.Tensor]:
    """Answers of the stock model, and their logits."""
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
        assert close(follow(reference, answer, sample), expected, REFERENCE)
        assert reference.kv_lengths() == [len(sample.ids) + STEPS - 1] * len(reference.layers)


@every_family
@pytest.mark.parametrize("images", [0, 2])
def test_a_second_turn_equals_stock_generation(name, images):
    """Text, or further images, behind the answer, read by transformers on the cache of the first turn."""
    family, model = FAMILIES[name], shared(name, "eager")
    for sample in (family.sample(1, 9, seed=1), family.sample(0, 9)):
        inputs = family.batch([sample])
        first = generate(model, inputs, STEPS)
        answer = first.sequences[0, len(sample.ids) :].tolist()
        new = family.sample(images, 4, seed=2)
        with torch.no_grad():
            turn = next_turn(family, model, inputs, first, [sample], [new])
        second = generate(model, turn, STEPS)
        reference = MaskedReference(family, model)
        follow(reference, answer, sample)
        # The last token of an answer is read with what comes behind it.
        new = Sample([answer[-1], *new.ids], new.media)
        got = follow(reference, second.sequences[0, -STEPS:].tolist(), new)
        assert close(got, logits(second)[0], REFERENCE)


@every_family
def test_lengths_are_as_planned(name):
    family, model = FAMILIES[name], shared(name, "eager")
    schedule = st3_schedule(**SCHEDULES["st3"])
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
def test_a_cut_keeps_the_tokens_that_the_last_token_attends_to_most(name):
    """By the attentions that transformers returns."""
    family, model = FAMILIES[name], shared(name, "eager")
    for sample in prompts(family):
        with torch.no_grad():
            attentions = model(**family.batch([sample]), output_attentions=True).attentions
        visual = [i for i, token in enumerate(sample.ids) if token in (IMAGE, VIDEO)]
        for layer in (1, 3):
            reference = MaskedReference(family, model, st3_schedule(layer, 9, 0.6))
            reference.prefill(sample)
            received = attentions[layer - 1][0].mean(0)[-1, visual]
            best = received.sort(descending=True, stable=True).indices[: round(0.4 * len(visual))]
            assert reference.cache[layer - 1] == set(visual)
            assert reference.cache[layer] == {visual[i] for i in best}


@every_family
def test_removed_tokens_have_no_influence(name):
    """Neither in the prompt nor later, nor by the tower, nor through layers that add features (DeepStack)."""
    family, model = FAMILIES[name], shared(name, "eager")
    sample = family.sample(2, 9, seed=1, videos=int(family.has_video and family.has_both))
    other = {
        key: -value if value.is_floating_point() and value.dim() > 1 else value for key, value in sample.media.items()
    }
    steps = []
    for media in (sample.media, other):
        reference = MaskedReference(family, model, enters=lambda features, rows: ())
        steps.append(follow(reference, [5, 6, 7], Sample(sample.ids, media)))
        assert reference.kv_lengths() == [sample.text + 2] * len(reference.layers)
    assert close(steps[0], steps[1])


@pytest.mark.parametrize("plan", SCHEDULES)
def test_it_equals_the_other_reference_for_llava(plan):
    schedule = st3_schedule(**SCHEDULES[plan])
    family, model = FAMILIES["llava"], shared("llava", "eager")
    for sample in prompts(family):
        answer, _ = answered(family, model, sample)
        mine, oracle = MaskedReference(family, model, schedule), Oracle(model, schedule)
        expected = follow(oracle, answer, sample.ids, sample.media.get("pixel_values"))
        assert close(follow(mine, answer, sample), expected, REFERENCE)
        assert mine.kv_lengths() == oracle.kv_lengths()
        again = family.sample(1, 5, seed=3)
        expected = oracle.prefill(again.ids, again.media["pixel_values"], protected=range(6, 9))
        assert close(mine.prefill(again, protected=range(6, 9)), expected)
        assert mine.kv_lengths() == oracle.kv_lengths()
