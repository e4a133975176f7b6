"""Several methods at once."""

import pytest
import torch

from tests import tiny
from tests.closeness import close
from tests.covering import covering
from tests.engine.test_against_oracle import follow
from tests.oracle import Oracle, st3_schedule
from vistrim import (
    PVTP,
    ST3,
    VTA,
    VTW,
    FasterVLM,
    FastV,
    Hybrid,
    Pool,
    PyramidDrop,
    Random,
    SparseVLM,
    Uniform,
    VisPruner,
    compose,
    trim,
)
from vistrim.engine.releases import CACHE

N = tiny.TOKENS_PER_IMAGE


def evenly(k):
    def enters(embeddings, visual):
        return embeddings, {int(row[int((i + 0.5) * N / k)]) for row in visual.view(-1, N) for i in range(k)}

    return enters


class EnteredCounts(Oracle):
    """Schedules count from the tokens that entered the decoder."""

    def prefill(self, *args, **kwargs):
        logits = super().prefill(*args, **kwargs)
        self.total = len(self.cache[0])
        return logits


@covering
@pytest.mark.parametrize("samples", [[tiny.sample(2, 9)], tiny.RAGGED, tiny.SAME_LENGTH], ids=["one", "ragged", "same"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("whole", [True, False], ids=["st3", "halves"])
def test_three_stages_equal_the_reference(samples, attention, whole):
    st3 = ST3(2, 2, 0.5, "linear", 8, 0.0, interval=1)
    inner = (st3,) if whole else (PVTP(2, 2, 0.5), VTA("linear", 8, 0.0, interval=1))
    schedule = st3_schedule(2, 2, 0.5, "linear", 8) if whole else None

    def halves(n, layer, t):
        """Annealing counts from the tokens that the cuts left in the layer."""
        left = st3_schedule(2, 2, 0.5)(n, layer, 0)
        return left if t == 0 else st3_schedule(9, 1, 0.0, "linear", 8)(left, layer, t)

    def of_the_entered(n, layer, t):
        """The reference counts the tokens of the prompt in prefill."""
        return (schedule or halves)(n // 2 if t == 0 else n, layer, t)

    model, inputs = tiny.shared("llama", attention), tiny.batch(samples)
    with trim(model, compose(Uniform(0.5), *inner)) as run:
        output = tiny.generate(model, inputs)
    for b, sample in enumerate(samples):
        oracle = EnteredCounts(tiny.shared("llama", "eager"), of_the_entered, enters=evenly(N // 2))
        answer = output.sequences[b, inputs["input_ids"].shape[1] :].tolist()
        assert close(tiny.logits(output)[b], follow(oracle, sample, answer))
        assert [n[b] for n in run.report.kv_tokens_per_layer] == oracle.kv_lengths()


@pytest.mark.parametrize(
    "method",
    [
        compose(Uniform(0.5), PyramidDrop()),
        compose(FasterVLM(8, positions="original"), PyramidDrop((2, 3), (0.5, 0.25))),
        compose(FasterVLM(8, positions="original"), SparseVLM(layers=(0, 2), counts=(5, 2))),
        compose(VisPruner(8), FastV(2, 0.5)),
        compose(Random(0.5), FastV(1, 0.5, "renumber")),
        compose(VisPruner(0.7, positions="original"), VTW(2, "renumber")),
    ],
    ids=str,
)
def test_stages_with_different_positions(method):
    """Tokens after the prompt continue its positions: a cache equals repeating the prompt."""
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    with trim(model, method):
        cached = tiny.generate(model, inputs, 4)
        repeated = tiny.generate(model, inputs, 4, use_cache=False)
        # The second turn starts from another length in every sample.
        more = torch.tensor([[5, 6, 7]] * 3)
        turn = tiny.generate(model, tiny.follow_up(cached, inputs, more), 1)
        alone = tiny.generate(model, inputs, 4)
        by_token = tiny.follow_up(alone, inputs, more)
        for n in range(alone.sequences.shape[1], by_token["input_ids"].shape[1] + 1):
            part = {name: by_token[name][:, :n] for name in ("input_ids", "attention_mask")}
            step = tiny.generate(model, part | {CACHE: by_token[CACHE]}, 1)
    assert torch.equal(cached.sequences, repeated.sequences)
    assert close(tiny.logits(cached), tiny.logits(repeated))
    assert close(tiny.logits(turn)[:, 0], tiny.logits(step)[:, 0])


def test_every_part_acts():
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    method = compose(Pool(4), SparseVLM(layers=(1,), counts=(2,)), VTA("linear", 4, 0.0, interval=1))
    with trim(model, method) as run:
        tiny.generate(model, inputs)
    assert [stage.layer for stage in run.report.stages] == [0, 2]
    images = [s.visual // N for s in tiny.RAGGED]
    assert run.report.visual_tokens_per_layer[0] == [4 * n for n in images]
    # One token is merged from those that go.
    assert run.report.visual_tokens_per_layer[-1] == [2 * n + 1 for n in images]
    assert run.report.kv_tokens_per_layer == [[s.text + 7 for s in tiny.RAGGED]] * tiny.DEPTH
    assert run.report.method == str(method) == f"{Pool(4)}+{method.methods[1]}+{method.methods[2]}"


def test_a_part_that_looks_ahead():
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    with trim(model, compose(Random(0.5), PyramidDrop((2,), (0.5,)))) as run:
        tiny.generate(model, inputs, 2)
    assert run.report.visual_tokens_per_layer[2] == [s.visual // 4 for s in tiny.RAGGED]


def test_hybrid_is_its_three_parts():
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    parts = compose(VisPruner(0.5, positions="original"), PVTP(1, 2, 0.5), VTA("linear", 8, 0.1, 2))
    hybrid = Hybrid(start_layer=1, stride=2, decay="linear", horizon=8, floor=0.1, interval=2)
    outputs = []
    for method in (parts, hybrid):
        with trim(model, method) as run:
            outputs.append(tiny.logits(tiny.generate(model, inputs)))
        assert run.report.visual_tokens_per_layer[0] == [s.visual // 2 for s in tiny.RAGGED]
    assert torch.equal(*outputs)
    assert not Hybrid(decay="constant").acts_in_decode
    for wrong in ({"keep": 0}, {"positions": "new"}, {"drop_per_cut": 1.0}, {"horizon": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Hybrid(**wrong)


def test_stages_may_not_overlap():
    with pytest.raises(ValueError, match="both act in the prefill stage"):
        compose(FastV(), ST3())
    with pytest.raises(ValueError, match="both act in the input stage"):
        compose(Random(), Uniform())
    with pytest.raises(ValueError, match="both act in the decode stage"):
        compose(ST3(), VTA())
    with pytest.raises(ValueError, match="at least two"):
        compose(ST3())
    with pytest.raises(TypeError, match="is no method"):
        compose(ST3(), 3)
    # A constant decay does not act while decoding.
    both = compose(ST3.preset("compact"), VTA())
    assert both.stages == ("prefill", "decode")
    assert not compose(Random(), ST3.preset("compact")).acts_in_decode


def test_the_parts_are_checked_against_the_model():
    with pytest.raises(ValueError, match="layer=9"):
        trim(tiny.shared(), compose(Random(), FastV(9)))


def test_a_composition_that_keeps_everything_changes_no_bit():
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    untouched = tiny.generate(model, inputs)
    with trim(model, compose(Uniform(1.0), PVTP(drop_per_cut=0.0), VTA("linear", 8, floor=1.0, interval=1))):
        output = tiny.generate(model, inputs)
    assert torch.equal(tiny.logits(untouched), tiny.logits(output))
