"""Positions with a time, a row and a column (M-RoPE), and features between layers (DeepStack), under trimming."""

from contextlib import contextmanager

import pytest
import torch

from tests.closeness import close
from tests.covering import covering
from tests.families.vision.packed_reference import batches, encoded, pictures, visual_tokens
from tests.families.vision.told_reference import read
from tests.families.zoo import FAMILIES, shared
from tests.families.zoo.family import DEPTH
from tests.methods.training_free_rules import top
from tests.tiny import generate, logits
from vistrim import (
    PVTP,
    VTCCLS,
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
from vistrim.calibration.vtw import search_layer

STEPS = 3
NAMES = ("qwen2_5_vl", "qwen3_vl")
both_models = pytest.mark.parametrize("name", NAMES)


def layer_by_layer(stages, sample: int, n: int) -> list[set[int]]:
    """Visual tokens that each layer has."""
    kept = [set(range(n))] * DEPTH
    for stage in stages:
        kept = [*kept[: stage.layer], *[set(stage.kept[sample])] * (DEPTH - stage.layer)]
    return kept


METHODS = {
    "uniform": Uniform(0.5),
    "random": Random(0.5, seed=1),
    "fastv": FastV(2, 0.5),
    "pyramiddrop": PyramidDrop((1, 2, 3), (0.75, 0.5, 0.25), "original"),
    "sparsevlm": SparseVLM(variant="plus", layers=(0, 1), counts=(0.6, 0.3)),
    "vtw": VTW(2),
    "vispruner": VisPruner(0.5, 0.5, "original"),
    "hybrid": Hybrid(0.5, start_layer=2, stride=1, drop_per_cut=0.5, horizon=8, interval=1),
    "composed": compose(FasterVLM(0.75, "original"), PVTP(1, 1, 0.3)),
}


@covering(1)
@both_models
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("method", METHODS)
def test_equals_the_stock_model_with_the_same_tokens(method, attention, name):
    """In padded batches with several images, videos and without any."""
    family, model = FAMILIES[name], shared(name, attention)
    # What anneals while decoding is followed up to the first token.
    steps = 1 if method == "hybrid" else STEPS
    for samples in batches(name):
        inputs = family.batch(samples)
        with trim(model, METHODS[method]) as run:
            output = generate(model, inputs, STEPS)
        assert torch.isfinite(logits(output)).all()
        for b, sample in enumerate(samples):
            kept = layer_by_layer(run.report.stages, b, sample.visual)
            assert [len(layer) for layer in kept] == [n[b] for n in run.report.visual_tokens_per_layer]
            assert len(kept[-1]) < sample.visual or not sample.visual
            answer = output.sequences[b, inputs["input_ids"].shape[1] :].tolist()[:steps]
            expected, _ = read(family, shared(name, "eager"), sample, kept, answer)
            assert close(logits(output)[b, :steps], expected)


@both_models
@pytest.mark.parametrize("method", ["fastv", "pyramiddrop"])
def test_rankings_use_attention_with_these_positions(method, name):
    family, model, asked = FAMILIES[name], shared(name), METHODS[method]
    for samples in batches(name):
        with trim(model, asked) as run:
            generate(model, family.batch(samples), 1)
        for b, sample in enumerate(samples):
            n, kept = sample.visual, [set(range(sample.visual))] * DEPTH
            for stage in run.report.stages:
                # The layer before the cut ranks, or the layer that is about to run on what is there now.
                ranking = stage.layer - 1 if method == "fastv" else stage.layer
                _, attentions = read(family, shared(name, "eager"), sample, kept, [5])
                among = sorted(kept[stage.layer])
                share = 0.5 if method == "fastv" else asked.keep[asked.layers.index(stage.layer)]
                count = round(n * share) if method == "fastv" else int(n * share)
                best = {among[i] for i in top(attentions[ranking][among], count)}
                assert set(stage.kept[b]) == best
                kept = [*kept[: stage.layer], *[best] * (DEPTH - stage.layer)]


@both_models
def test_merged_tokens_behind_the_image(name):
    """SparseVLM's clusters keep their centers' positions and run on."""
    family, model = FAMILIES[name], shared(name)
    method = SparseVLM(layers=(0, 2), counts=(0.5, 0.3), positions="original")
    for samples in batches(name):
        with trim(model, method) as run:
            together = generate(model, family.batch(samples), STEPS)
            alone = [generate(model, family.batch([sample]), STEPS) for sample in samples]
        assert torch.isfinite(logits(together)).all()
        for b, sample in enumerate(samples):
            assert close(logits(together)[b], logits(alone[b])[0])
            counts = [layer[b] for layer in run.reports[0].visual_tokens_per_layer]
            if sample.visual:
                kept = [int(sample.visual * share + 0.5) for share in (0.5, 0.3)]
                assert kept[0] < counts[1] == counts[2] < sample.visual
                assert kept[1] < counts[3] < counts[2]


@contextmanager
def averaged(name, batch, visual):
    """The stock model on one sample, with every visual token as the mean of those of its picture."""
    found = encoded(name, batch)
    calls = []

    def average(module, args, output):
        modality = sorted({m for m, _ in visual})[len(calls)]
        calls.append(modality)
        own = [found[m].picture[i] for m, i in sorted(visual) if m == modality]
        assert len(own) == len(output.pooler_output)
        for features in (output.pooler_output, *(getattr(output, "deepstack_features", None) or ())):
            for picture in set(own):
                members = [i for i, of in enumerate(own) if of == picture]
                features[members] = features[members].mean(0)
        return output

    handle = shared(name, "eager").base_model.visual.register_forward_hook(average)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl", "qwen3_omni_moe_thinker"])
def test_a_pooled_token_is_also_the_mean_of_deepstack_features(name):
    family, model = FAMILIES[name], shared(name)
    for at, samples in enumerate(batches(name)):
        inputs = family.batch(samples)
        with trim(model, Pool(0.001)) as run:
            output = generate(model, inputs, STEPS)
        for b, visual in enumerate(visual_tokens(name, samples)):
            kept = set(run.report.stages[0].kept[b])
            assert len(kept) == len(pictures(encoded(name, at), visual))
            if not visual:
                continue
            answer = output.sequences[b, inputs["input_ids"].shape[1] :].tolist()
            with averaged(name, at, visual):
                expected, _ = read(family, shared(name, "eager"), samples[b], [kept] * DEPTH, answer)
            assert close(logits(output)[b], expected)


@pytest.mark.parametrize(
    ("method", "culprit"),
    [
        (FasterVLM(), "fastervlm"),
        (VTCCLS(first_layer=0), "vtc-cls"),
        (PyramidDrop((1, 2, 3)), "pyramiddrop"),
        (FastV(2, positions="renumber"), "fastv"),
        (VTW(2, positions="renumber"), "vtw"),
        (SparseVLM(layers=(0, 1, 2)), "sparsevlm"),
        (Hybrid(positions="renumber", start_layer=2), "vispruner"),
        (compose(Uniform(0.5), FastV(2, positions="renumber")), "fastv"),
    ],
    ids=str,
)
def test_consecutive_positions_are_refused_with_the_fix(method, culprit):
    with pytest.raises(ValueError, match=rf'^{culprit} .*positions="original".*{culprit}:positions=original'):
        trim(shared("qwen2_5_vl"), method)


@both_models
def test_a_search_measures_the_effect_of_a_removal(name):
    family, model = FAMILIES[name], shared(name)
    inputs = family.batch([family.sample(2, 9, seed=1), family.sample(1, 5, videos=1)])
    found = search_layer(model, [inputs], threshold=99.0, first_layer=1).divergences
    untouched = logits(generate(model, inputs, 1))[:, 0].log_softmax(-1)
    for layer in range(1, DEPTH):
        with trim(model, VTW(layer)):
            withdrawn = logits(generate(model, inputs, 1))[:, 0].log_softmax(-1)
        divergence = (withdrawn.exp() * (withdrawn - untouched)).sum(-1).mean()
        assert close(found[layer], divergence)
    with pytest.raises(ValueError, match='positions="original"'):
        search_layer(model, [inputs], first_layer=1, positions="renumber")
