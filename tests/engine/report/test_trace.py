"""The trace agrees with the caches, and changes no output."""

import json

import pytest
import torch

from tests import guides, tiny
from tests.families.zoo import FAMILIES, shared
from tests.methods.every_method import built
from vistrim import SGL, ST3, VTA, Pool, Trace, Uniform, UnsupportedGenerationError, compose, trim
from vistrim.engine.releases import CACHE
from vistrim.engine.report.trace import from_runs, to_runs

METHODS = (
    *map(built, ("pool", "quecc", "sgl", "sparsevlm", "st3", "vtw", "yopo")),
    compose(Uniform(0.5), ST3(1, 2, 0.3, horizon=8, floor=0.0, interval=1)),
)
BATCH = [*tiny.RAGGED, tiny.sample(0, 7)]
ANNEALED = ST3(1, 2, 0.3, horizon=8, floor=0.0, interval=1)


def visual_slots(cache):
    """Per layer and sample: slots of the visual tokens that are stored."""
    maps = [layer.columns() for layer in cache.layers]
    return [
        [sorted(own[flags].tolist()) for own, flags in zip(tokens.slots, tokens.visual, strict=True)] for tokens in maps
    ]


def check(report, output=None, first=None, slides=False):
    """Compare a trace with the counts of its report, and with the cache at the end."""
    trace = report.trace
    assert (trace.layers, trace.steps) == (len(report.visual_tokens_per_layer), len(report.kv_tokens_per_step) - 1)
    for b, sample in enumerate(trace.samples):
        n = sample.visual_tokens
        assert n == report.visual_tokens[b]
        own = range(sample.earlier, sample.earlier + n)
        placed = [token for group in sample.groups for token in group.tokens]
        assert sorted(placed) == list(own)
        cells = [(p.image, p.part, p.number, p.row, p.column) for p in (trace.place(b, t) for t in own) if not p.reason]
        assert len(set(cells)) == len(cells)
        assert [len(trace.processed(b, layer)) for layer in range(trace.layers)] == [
            counts[b] for counts in report.visual_tokens_per_layer
        ]
        if not slides:
            text = report.prompt_tokens[b] - n
            held = [
                sum(len(trace.kept(b, layer, t)) + text + t for layer in range(trace.layers))
                for t in range(trace.steps + 1)
            ]
            assert held == [step[b] for step in report.kv_tokens_per_step]
    if output is not None:
        for layer, slots in enumerate(visual_slots(output[CACHE])):
            kept = [trace.kept(b, layer, trace.steps) for b in range(len(trace.samples))]
            assert slots == [[first[b][n] for n in own] for b, own in enumerate(kept)]
    assert Trace.from_dict(json.loads(report.to_json())["trace"]) == trace


def places(inputs, token=tiny.IMAGE):
    return [(row == token).nonzero().flatten().tolist() for row in inputs["input_ids"]]


def test_the_trace_equals_the_caches_and_changes_no_answer():
    model, inputs = tiny.shared(), tiny.batch(BATCH)
    for method in METHODS:
        with trim(model, method) as plain:
            expected = tiny.generate(model, inputs, 4)
        with trim(model, method, trace=True) as run:
            output = tiny.generate(model, inputs, 4)
        assert plain.report.trace is None
        assert torch.equal(tiny.logits(output), tiny.logits(expected))
        check(run.report, output, places(inputs))
        assert run.report.trace.samples[3].groups == ()


@pytest.mark.parametrize("name", ["qwen2_5_vl", "llava_next", "idefics3", "gemma3"])
def test_families(name):
    family, model = FAMILIES[name], shared(name)
    inputs = family.batch([family.sample(2, 9), family.sample(1, 6, seed=1), family.sample(0, 5)])
    with torch.no_grad(), trim(model, ANNEALED, trace=True) as run:
        output = tiny.generate(model, inputs, 4)
        model(**inputs)
        model(**inputs, use_cache=False)
    whole, bare, uncached = run.reports
    check(whole, output, places(inputs), slides=name == "gemma3")
    check(bare, slides=name == "gemma3")
    assert [sample.prefill for sample in bare.trace.samples] == [sample.prefill for sample in uncached.trace.samples]
    two = whole.trace.samples[0].groups
    assert {group.image for group in two} == ({0, 1} if name in ("qwen2_5_vl", "llava_next") else {None})
    assert any(group.grid for group in two)


def test_frames_of_videos():
    family, model = FAMILIES["qwen2_vl"], shared("qwen2_vl")
    inputs = family.batch([family.sample(0, 6, videos=1)])
    with torch.no_grad(), trim(model, ANNEALED, trace=True) as run:
        model.generate(**inputs, max_new_tokens=3, do_sample=False)
    check(run.report)
    groups = run.report.trace.samples[0].groups
    assert {(group.modality, group.part) for group in groups} == {("video", "frame")}
    assert [group.number for group in groups] == list(range(len(groups)))


def test_evicted_keys_are_those_that_the_trace_names():
    """In decode alone: the cache has the untouched model's keys of the prompt tokens that are held."""
    model, sample = tiny.shared(), tiny.sample(2, 9)
    inputs, new = tiny.batch([sample]), torch.tensor([[5]])
    visual = places(inputs)[0]
    with torch.no_grad():
        untouched = model(**inputs, use_cache=True)[CACHE]
        with trim(model, VTA("linear", 4, 0.0, interval=1), trace=True) as run:
            cache = model(**inputs, use_cache=True)[CACHE]
            for step in range(1, 4):
                model(input_ids=new, **{CACHE: cache})
                for layer in range(tiny.DEPTH):
                    gone = set(visual) - {visual[n] for n in run.report.trace.kept(0, layer, step)}
                    left = [slot for slot in range(len(sample.ids)) if slot not in gone]
                    cached = cache.layers[layer]
                    stored = cached.keys[:, :, :-step]
                    if cached.order is not None:
                        stored = stored[:, :, cached.order[0]]
                    assert torch.equal(stored, untouched.layers[layer].keys[:, :, left])


def test_a_later_turn_goes_on_with_the_tokens_of_the_earlier_one():
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    with trim(model, ANNEALED, trace=True) as run:
        first = tiny.generate(model, inputs, 3)
        before = visual_slots(first[CACHE])
        image = tiny.sample(1, 5, seed=7)
        ids = torch.tensor([image.ids] * 3)
        turn = tiny.follow_up(first, inputs, ids, torch.cat([image.pixels] * 3))
        second = tiny.generate(model, turn, 3)
    trace = run.report.trace
    own = [[slot for slot in slots if slot >= first.sequences.shape[1]] for slots in places(turn)]
    assert [sample.visual_tokens for sample in trace.samples] == [16] * 3
    for b, sample in enumerate(trace.samples):
        earlier = sorted({slot for layer in before for slot in layer[b]})
        assert sample.earlier == len(earlier) > 0
        slots = [*earlier, *own[b]]
        for layer in range(tiny.DEPTH):
            assert [slots[n] for n in trace.kept(b, layer, trace.steps)] == visual_slots(second[CACHE])[layer][b]
            kept = [slots[n] for n in trace.kept(b, layer) if n < sample.earlier]
            assert kept == before[layer][b]
        assert "earlier turn" in trace.place(b, 0).reason
        assert trace.place(b, sample.earlier).column == 0


def test_beams_have_a_row_each():
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    with trim(model, ANNEALED, trace=True) as run:
        tiny.generate(model, inputs, 6, num_beams=3)
    assert len(run.report.trace.samples) == 9
    check(run.report)


def test_tokens_that_stand_for_several():
    model, inputs = tiny.shared(), tiny.batch([tiny.sample(2, 9)])
    with trim(model, Pool(4), trace=True) as run:
        tiny.generate(model, inputs, 2)
    pooled = run.report.trace.stands_for(0, 4)
    assert pooled[0] == (0, 1, 4, 5)
    assert sorted(n for tokens in pooled.values() for n in tokens) == list(range(32))
    for name in ("quecc", "sparsevlm"):
        with trim(model, built(name), trace=True) as run:
            tiny.generate(model, inputs, 2)
        for stage in run.report.stages:
            found = run.report.trace.stands_for(0, stage.layer)
            assert sorted(found) == stage.merged[0]
            if name == "quecc":
                assert set(found.values()) == {None}
            else:
                assert all(token in tokens and len(tokens) > 1 for token, tokens in found.items())


def test_the_last_token_of_a_prompt_is_missing_on_its_grid():
    model, image = tiny.shared(), tiny.sample(1, 9)
    ids = torch.tensor([[tiny.BOS, 5, *[tiny.IMAGE] * 16]])
    with trim(model, ANNEALED, trace=True) as run:
        tiny.generate(model, {"input_ids": ids, "pixel_values": image.pixels}, 2)
    (group,) = run.report.trace.samples[0].groups
    assert (group.grid, group.cells, group.tokens) == ((4, 4), tuple(range(15)), tuple(range(15)))


def test_a_sample_that_a_guide_has_answered():
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    with trim(model, SGL(guides.shared(), exit_threshold=0.0), trace=True) as run:
        model.generate(**inputs, max_new_tokens=3, do_sample=False)
    trace = run.report.trace
    assert [sample.visual_tokens for sample in trace.samples] == [16, 32, 16]
    assert trace.kept(1, 0) == ()
    assert "guide" in trace.place(1, 31).reason


def test_bad_questions_and_a_batch_that_grows():
    model, inputs = tiny.shared(), tiny.batch([tiny.sample(1, 9)])
    with torch.no_grad(), trim(model, ANNEALED, trace=True) as run:
        cache = model(**inputs, use_cache=True)[CACHE]
        cache.batch_repeat_interleave(2)
        with pytest.raises(UnsupportedGenerationError, match="leave out trace=True"):
            model(input_ids=torch.tensor([[5], [6]]), **{CACHE: cache})
    trace = run.report.trace
    for ask, said in (
        (lambda: trace.kept(1, 0), "1 samples"),
        (lambda: trace.kept(0, 5), "5 layers"),
        (lambda: trace.kept(0, 0, 9), "steps 0"),
        (lambda: trace.place(0, 16), "16 visual tokens"),
    ):
        with pytest.raises(IndexError, match=said):
            ask()


def test_runs():
    for numbers in ((), (4,), (4, 5, 6, 9), (9, 1, 2)):
        assert from_runs(json.loads(json.dumps(to_runs(numbers)))) == numbers
    assert to_runs((4, 5, 6, 9)) == [[4, 7], 9]
