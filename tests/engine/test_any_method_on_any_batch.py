"""Random methods on random conversations equal the independent computation."""

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests import tiny
from tests.closeness import close
from tests.engine.test_against_oracle import follow
from tests.oracle import st3_oracle
from vistrim import ST3, trim

schedules = st.fixed_dictionaries(
    {
        "start": st.integers(1, tiny.DEPTH - 1),
        "stride": st.integers(1, 3),
        "ratio": st.sampled_from([0.0, 0.2, 0.5, 0.9]),
        "decay": st.sampled_from(["constant", "linear", "cosine", "exponential"]),
        "horizon": st.integers(1, 9),
        "floor": st.sampled_from([0.0, 0.1, 0.5, (0.9, 0.1, 0.5, 0.0, 0.3)]),
        "interval": st.integers(1, 4),
        "decode_rows": st.sampled_from(["token", "answer", "prompt"]),
        "spread": st.sampled_from([0.0, 0.0, 0.4, 1.0]),
    }
)
prompts = st.tuples(st.integers(0, 2), st.integers(4, 20))
# Shrinking would take longer than reading the example that failed.
few = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
many = settings(few, max_examples=150)


def check(schedule, first, second, attention):
    """Two turns of a batch, against the oracle."""
    # A follow-up has the same number of images in every sample or none, as its placeholders are not padded.
    samples = [tiny.sample(*p) for p in first]
    if not any(s.visual for s in samples):
        samples[0] = tiny.sample(1, 9)
    more = [tiny.sample(second[0], second[1], seed=10 + b) for b in range(len(samples))]
    model, inputs = tiny.shared("llama", attention), tiny.batch(samples)
    method = ST3(
        schedule["start"], schedule["stride"], schedule["ratio"], schedule["decay"], schedule["horizon"],
        schedule["floor"], schedule["interval"], schedule["decode_rows"], schedule["spread"],
    )  # fmt: skip
    with trim(model, method) as run:
        one = tiny.generate(model, inputs, 6)
        pixels = torch.cat([s.pixels for s in more]) if second[0] else None
        turn = tiny.follow_up(one, inputs, torch.tensor([s.ids for s in more]), pixels)
        two = tiny.generate(model, turn, 6)
    for b, sample in enumerate(samples):
        oracle = st3_oracle(tiny.shared("llama", "eager"), schedule)
        answer = one.sequences[b, inputs["input_ids"].shape[1] :].tolist()
        expected = follow(oracle, sample, answer)
        assert close(tiny.logits(one)[b], expected)
        assert [n[b] for n in run.reports[0].kv_tokens_per_layer] == oracle.kv_lengths()
        next_answer = two.sequences[b, turn["input_ids"].shape[1] :].tolist()
        expected = follow(oracle, tiny.Sample(answer[-1:] + more[b].ids, more[b].pixels), next_answer)
        assert close(tiny.logits(two)[b], expected)
        assert [n[b] for n in run.report.kv_tokens_per_layer] == oracle.kv_lengths()


@few
@given(schedules, st.lists(prompts, min_size=1, max_size=3), prompts, st.sampled_from(["sdpa", "eager"]))
def test_a_few(schedule, first, second, attention):
    check(schedule, first, second, attention)


@pytest.mark.slow
@many
@given(schedules, st.lists(prompts, min_size=1, max_size=3), prompts, st.sampled_from(["sdpa", "eager"]))
def test_many(schedule, first, second, attention):
    check(schedule, first, second, attention)
