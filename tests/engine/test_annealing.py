"""What ranks while decoding: the current token, the answer so far, or the question; evenly spaced tokens; floors."""

import pytest
import torch

from tests import tiny
from tests.closeness import close
from tests.engine.test_against_oracle import follow
from tests.engine.test_any_method_on_any_batch import check
from tests.engine.test_keep_everything import KeepEverything
from tests.oracle import st3_oracle
from vistrim import PVTP, ST3, VTA, Uniform, compose, trim
from vistrim.engine.releases import CACHE

BASE = {"start": 1, "stride": 2, "ratio": 0.3, "decay": "linear", "horizon": 8, "floor": 0.1, "interval": 1}
VARIANTS = {
    "answer": BASE | {"decode_rows": "answer", "spread": 0.0},
    "answer, not at every step": BASE | {"decode_rows": "answer", "spread": 0.0, "interval": 3},
    "question, half spaced": BASE | {"decode_rows": "prompt", "spread": 0.5},
    "floors": BASE | {"decode_rows": "token", "spread": 0.3, "floor": (1.0, 0.5, 0.0, 0.25, 0.1)},
}


def built(settings):
    return ST3(*settings.values())


@pytest.mark.parametrize("name", VARIANTS)
def test_two_turns_of_a_batch_equal_the_independent_computation(name):
    """A padded batch and one without padding; the second turn has an image of its own, or text only."""
    check(VARIANTS[name], [(1, 9), (2, 14)], (1, 5), "sdpa")
    check(VARIANTS[name], [(2, 6), (0, 39)], (0, 5), "eager")


def test_beams_and_several_answers_carry_their_own_rankings():
    model, samples = tiny.shared(), tiny.RAGGED[:2]
    inputs = tiny.batch(samples)
    for settings in (VARIANTS["answer"], VARIANTS["question, half spaced"]):
        with trim(model, built(settings)):
            beams = tiny.generate(model, inputs, 6, num_beams=2, output_scores=True, length_penalty=0.0)
            torch.manual_seed(5)
            drawn = tiny.generate(model, inputs, 6, do_sample=True, num_return_sequences=2)
        for output, copies in ((beams, 1), (drawn, 2)):
            for row, answer in enumerate(output.sequences[:, inputs["input_ids"].shape[1] :].tolist()):
                oracle = st3_oracle(tiny.shared("llama", "eager"), settings)
                logits = follow(oracle, samples[row // copies], answer)
                if copies > 1:
                    assert close(tiny.logits(output)[row], logits)
                else:
                    score = logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum()
                    assert close(output.sequences_scores[row], score)


def test_keeping_everything_changes_no_bit():
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    untouched = tiny.generate(model, inputs, 5)
    for rows in ("answer", "prompt"):
        method = type("Keep", (KeepEverything,), {"evicts_by": rows})()
        for kept in (method, VTA(floor=1.0, decode_rows=rows, spread=0.5)):
            with trim(model, kept):
                output = tiny.generate(model, inputs, 5)
            assert torch.equal(tiny.logits(untouched), tiny.logits(output))


def test_numbers_count_the_tokens_before_the_input_stage():
    """The evenly spaced tokens are those of the image, of which the input stage let the middle of each pair in."""
    model, samples = tiny.shared(), tiny.RAGGED
    method = compose(Uniform(0.5), VTA("linear", 4, 0.5, spread=1.0, interval=1))
    with trim(model, method, trace=True) as run:
        tiny.generate(model, tiny.batch(samples), 5)
    golden = (5**0.5 - 1) / 2
    for b, sample in enumerate(samples):
        entered = [n for n in range(sample.visual) if n % 2]
        expected = sorted(sorted(entered, key=lambda n: n * golden % 1)[: len(entered) // 2])
        assert all(list(run.report.trace.kept(b, layer, 4)) == expected for layer in range(tiny.DEPTH))


def test_a_cache_of_another_method_is_continued():
    """The first token after it is a prompt of its own, from which on tokens are ranked."""
    model, sample = tiny.shared(), tiny.sample(1, 9)
    for rows in ("token", "answer", "prompt"):
        with torch.no_grad():
            with trim(model, PVTP(1, 2, 0.5)):
                output = model(**tiny.batch([sample]), use_cache=True)
            cache = output[CACHE]
            with trim(model, VTA("linear", 4, 0.0, decode_rows=rows, interval=1)):
                for _ in range(4):
                    output = model(input_ids=torch.tensor([[7]]), **{CACHE: cache})
        assert output.logits.isfinite().all()
        left = [sum(layer.tokens.n_visual) for layer in cache.layers]
        assert left == [4] * tiny.DEPTH
