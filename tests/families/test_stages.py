"""In every family, each stage of trimming equals the masked reference, and every cache is as planned."""

import pytest

from tests.closeness import close
from tests.families.masked_reference import REFERENCE
from tests.families.matrix import (
    BATCHES,
    CASES,
    STEPS,
    answers,
    each_attention,
    expected,
    follower,
    held_rows,
    padding_that_counts,
    pictures_noted,
    prompts,
    untouched,
)
from tests.families.stock_limits import close_in_a_batch
from tests.families.zoo import FAMILIES, shared
from tests.tiny import generate, logits
from vistrim import trim
from vistrim.engine.releases import CACHE

EVERY_CASE = [
    pytest.param(stage, case, id=f"{stage}-{case}", marks=pytest.mark.cell(stage=stage))
    for stage, cases in CASES.items()
    for case in cases
]


@pytest.mark.parametrize(("stage", "case"), EVERY_CASE)
@pytest.mark.parametrize("batch", BATCHES)
@each_attention
@pytest.mark.parametrize("name", FAMILIES)
def test_a_stage_equals_the_reference(name, attention, batch, stage, case, record_property):
    model, samples = shared(name, attention), prompts(name)[: BATCHES[batch]]
    inputs, stock = FAMILIES[name].batch(samples), untouched(name, attention, batch)
    with trim(model, CASES[stage][case].method) as run, pictures_noted() as noted:
        output = generate(model, inputs, STEPS)
    facts = zip(answers(output, inputs), noted or [()] * len(samples), padding_that_counts(name, samples), strict=True)
    rows = [expected(name, stage, case, b, *of_sample) for b, of_sample in enumerate(facts)]
    for found, of in zip(logits(output), rows, strict=True):
        alone = batch == "one"
        assert close(found, of.logits, REFERENCE) if alone else close_in_a_batch(name, found, of.logits)
    acts = any(n < len(samples[0].ids) + STEPS - 1 for n in rows[0].planned)
    assert acts == bool((logits(output)[0] - stock.logits[0]).abs().max() > 0.01)
    if not acts:
        assert stage == "decode"
        assert any("became longer than the model's sliding window" in warning for warning in run.report.warnings)
        record_property("nothing", "every layer has a sliding window, and one that is full forgets by itself")
    _check_prefill(run.report, samples, rows)
    _check_cache(run.report, output[CACHE].layers, samples, rows, stock, follower(name, CASES[stage][case]))


def _check_prefill(report, samples, rows):
    """Visual tokens are counted as in the prompt, and those were kept that the reference has kept."""
    assert report.visual_tokens == [s.visual for s in samples]
    assert report.visual_tokens_per_layer == [list(map(len, of)) for of in zip(*(r.kept for r in rows), strict=True)]
    kept = [list(range(s.visual)) for s in samples]
    cuts = {stage.layer: stage.kept for stage in report.stages}
    for layer in range(len(rows[0].kept)):
        kept = cuts.get(layer, kept)
        assert kept == [of.kept[layer] for of in rows]


def _check_cache(report, layers, samples, rows, stock, reference):
    """All text and the planned visual tokens are there and nothing else, in no more memory than they need."""
    longest, size = max(len(s.ids) for s in samples), 0
    for at, layer in enumerate(layers):
        held = [held_rows(layer, b, longest - len(s.ids)) for b, s in enumerate(samples)]
        assert held == [of.held[at] for of in rows]
        assert report.kv_tokens_per_layer[at] == list(map(len, held))
        planned = [of.planned[at] for of in rows]
        # A cut takes the padding along, down to the sample that keeps most.
        cut = any(n < len(s.ids) + STEPS - 1 for n, s in zip(planned, samples, strict=True))
        columns = max(planned) if cut else longest + STEPS - 1
        window = reference.window(at)
        columns = columns if window is None else min(columns, window - 1)
        assert layer.keys.shape[-2] == layer.values.shape[-2] == columns
        size += columns * stock.column_bytes[at]
    assert report.kv_bytes == size
    assert report.kv_bytes_full == stock.cache_bytes
