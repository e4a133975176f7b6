"""The training-free methods equal an independent computation with the removed tokens physically gone."""

from functools import cache

import pytest
import torch

from tests import tiny
from tests.closeness import close
from tests.covering import covering
from tests.families.depth import slow_beside, slow_unless
from tests.methods import training_free_rules
from tests.methods.dense_reference import ORIGINAL, RENUMBER, Dense, Rule
from tests.methods.prompts import kernels_and_prompts
from vistrim import VTCCLS, VTW, FasterVLM, FastV, PyramidDrop, SparseVLM, VisPruner, trim

# The methods act in the prefill; the second token shows what their cache is worth.
NEW_TOKENS = 2
BOTH = (ORIGINAL, RENUMBER)

BEFORE_LLM = {
    "fastervlm": (FasterVLM(5), training_free_rules.FasterVLM(5)),
    "fastervlm-one": (FasterVLM(0.01), training_free_rules.FasterVLM(1)),
    # 2.4 and 4.5 tokens, which round to 2 and 5.
    "fastervlm-share": (FasterVLM(0.15), training_free_rules.FasterVLM(0.15)),
    "fastervlm-half": (
        FasterVLM(0.28125, positions=ORIGINAL),
        training_free_rules.FasterVLM(0.28125, positions=ORIGINAL),
    ),
    "fastervlm-least": (FasterVLM(0.001), training_free_rules.FasterVLM(0.001)),
    "vtc-cls": (VTCCLS(7, 0), training_free_rules.VTCCLS(7, 0)),
    "vtc-cls-original": (VTCCLS(0.3, 0, positions=ORIGINAL), training_free_rules.VTCCLS(0.3, 0, positions=ORIGINAL)),
    # Rests of 12 to 16 tokens: one round or several, of even and of odd length.
    "vispruner": (VisPruner(8, 0.5), training_free_rules.VisPruner(8, 0.5)),
    "vispruner-odd": (VisPruner(7, 0.5), training_free_rules.VisPruner(7, 0.5)),
    "vispruner-two-rounds": (VisPruner(5, 0.2), training_free_rules.VisPruner(5, 0.2)),
    "vispruner-to-one": (VisPruner(0.01, 0.0), training_free_rules.VisPruner(1, 0.0)),
    "vispruner-diverse": (
        VisPruner(6, 0.0, positions=ORIGINAL),
        training_free_rules.VisPruner(6, 0.0, positions=ORIGINAL),
    ),
    "vispruner-share": (VisPruner(0.7, 0.75), training_free_rules.VisPruner(0.7, 0.75)),
    "vispruner-important": (VisPruner(3, 1.0), training_free_rules.VisPruner(3, 1.0)),
}
IN_LLM = {
    f"{name}-{positions}": (method(*arguments, positions=positions), rule(*arguments, positions=positions))
    for positions in BOTH
    for name, method, rule, arguments in [
        ("fastv", FastV, training_free_rules.FastV, (2, 0.5)),
        # 2.5 of 16 tokens: rounded to the even number.
        ("fastv-even", FastV, training_free_rules.FastV, (1, 0.15625)),
        ("fastv-late", FastV, training_free_rules.FastV, (4, 0.6)),
        ("fastv-none-left", FastV, training_free_rules.FastV, (3, 0.01)),
        ("pyramiddrop", PyramidDrop, training_free_rules.PyramidDrop, ((1, 2, 3), (0.5, 0.25, 0.125))),
        # 9.6, 4.8 and 1.6 of 16 tokens, all rounded down.
        ("pyramiddrop-odd", PyramidDrop, training_free_rules.PyramidDrop, ((1, 3, 4), (0.6, 0.3, 0.1))),
        ("pyramiddrop-two", PyramidDrop, training_free_rules.PyramidDrop, ((2, 4), (0.35, 0.2))),
        ("vtw", VTW, training_free_rules.VTW, (2,)),
        ("vtw-late", VTW, training_free_rules.VTW, (4,)),
    ]
}
OTHER_POSITIONS = {*list(IN_LLM)[1:9:2], *list(IN_LLM)[9:18:2]}
"""Every run has each of these choices with one kind of positions, and each method with both."""
IN_LLM["pyramiddrop-defaults"] = (PyramidDrop(), training_free_rules.PyramidDrop((1, 2, 3), (0.5, 0.25, 0.125)))
RANK = {192: (13.5, 0.0), 128: (9.0, 6.0), 64: (0.8, 0.0)}


def sparse(variant, layers, counts, positions, budget=192):
    """SparseVLM and its rule."""
    method = SparseVLM(mean_keep=budget, variant=variant, layers=layers, counts=counts, positions=positions)
    default = ORIGINAL if variant == "plus" else RENUMBER
    return method, training_free_rules.SparseVLM(
        layers, counts or (), variant, RANK[budget], positions=positions or default
    )


SPARSE = {
    "1.5": sparse("1.5", (0, 2), (9, 4), None),
    "1.5-original": sparse("1.5", (0, 2), (9, 4), ORIGINAL),
    "1.5-shares": sparse("1.5", (1, 2, 3), (0.4, 0.28, 0.1), RENUMBER),
    "1.5-shares-original": sparse("1.5", (0, 1, 3), (0.6, 0.4, 0.2), ORIGINAL),
    # The first layer's 15 of 16 tokens, and the third's 7 of 8, are left alone.
    "1.5-left-alone": sparse("1.5", (0, 1, 2), (15, 7, 7), None),
    "1.0-64": sparse("1.0", (0, 2), None, None, 64),
    "1.0-64-original": sparse("1.0", (1, 3), None, ORIGINAL, 64),
    "1.0-128": sparse("1.0", (0, 2), None, None, 128),
    "plus": sparse("plus", (0, 2), (9, 4), None),
    "plus-renumber": sparse("plus", (0, 2), (15, 0.3), RENUMBER),
}
CASES = BEFORE_LLM | IN_LLM | {f"sparsevlm-{name}": case for name, case in SPARSE.items()}
SAMPLES = {
    "one": [tiny.sample(2, 9)],
    "ragged": tiny.RAGGED,
    "same-length": tiny.SAME_LENGTH,
    "text-only": [tiny.sample(1, 4), tiny.sample(0, 30)],
}


def answers(output, inputs):
    return [row[inputs["input_ids"].shape[1] :].tolist() for row in output.sequences]


def assert_equal(output, inputs, report, prompts, oracles):
    """Logits of every step, lengths of the caches, and which tokens were kept and merged."""
    for b, (prompt, oracle, answer) in enumerate(zip(prompts, oracles, answers(output, inputs), strict=True)):
        expected = oracle.follow(prompt.ids, prompt.pixels, answer)
        assert_stages(report, b, oracle)
        assert [n[b] for n in report.kv_tokens_per_layer] == oracle.kv_lengths
        assert close(tiny.logits(output)[b], expected)
    cuts = {layer for oracle in oracles for layer in oracle.cuts}
    assert [stage.layer for stage in report.stages] == sorted(cuts)


def assert_stages(report, b, oracle):
    for stage in report.stages:
        assert sorted(stage.kept[b]) == sorted(oracle.kept[stage.layer])
        assert sorted(stage.merged[b]) == sorted(oracle.merged[stage.layer])


def run(model, method, samples, rule, oracle_model, new_tokens=NEW_TOKENS):
    """A batch against its samples alone; its report, and theirs."""
    inputs = tiny.batch(samples)
    with trim(model, method) as trimmed:
        output = tiny.generate(model, inputs, new_tokens)
    alone = [Dense(oracle_model, rule) for _ in samples]
    assert_equal(output, inputs, trimmed.report, samples, alone)
    return trimmed.report, alone


@covering(1)
@pytest.mark.parametrize(("attention", "samples"), kernels_and_prompts(SAMPLES))
@pytest.mark.parametrize("name", slow_unless(lambda name: name not in OTHER_POSITIONS, CASES))
def test_equals_the_reference(name, samples, attention):
    method, rule = CASES[name]
    run(tiny.shared("llama", attention), method, SAMPLES[samples], rule, tiny.shared("llama", "eager"))


@covering(1)
@pytest.mark.parametrize("text", ["mistral", "qwen2"])
@pytest.mark.parametrize(
    "name", ["fastervlm", "vispruner", "fastv-original", "pyramiddrop-renumber", "vtw-original", "sparsevlm-1.5"]
)
def test_other_decoders(name, text):
    method, rule = CASES[name]
    run(tiny.shared(text), method, tiny.RAGGED, rule, tiny.shared(text, "eager"))


@covering(1)
@pytest.mark.parametrize("name", ["fastervlm", "fastervlm-half", "vispruner", "vispruner-odd", "vispruner-diverse"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_vision_tower_without_class_token(name, attention):
    method, rule = CASES[name]
    siglip = "siglip_vision_model"
    oracle_model = tiny.shared("llama", "eager", siglip)
    run(tiny.shared("llama", attention, siglip), method, tiny.RAGGED, rule, oracle_model)


@pytest.fixture(scope="module")
def large_tower():
    """Models with sdpa and with eager attention, and prompts: 64 patches, features out of the third of four blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiny._VISION, "num_hidden_layers", 4)
        patch.setitem(tiny._VISION, "patch_size", 2)
        patch.setattr(tiny, "TOKENS_PER_IMAGE", 64)
        return tiny.build(), tiny.build(attention="eager"), [tiny.sample(2, 9), tiny.sample(1, 12)]


@pytest.mark.parametrize(
    ("method", "rule"),
    [
        (FasterVLM(6), training_free_rules.FasterVLM(6)),
        (VTCCLS(6, 0), training_free_rules.VTCCLS(6, 0)),
        (VTCCLS(6, 1), training_free_rules.VTCCLS(6, 1)),
        (VTCCLS(6, 2), training_free_rules.FasterVLM(6)),
        # Only with more than 16 tokens to choose from, a round leaves some that were compared, in their new order.
        (VisPruner(20, 0.5), training_free_rules.VisPruner(20, 0.5)),
        (VisPruner(9, 0.75), training_free_rules.VisPruner(9, 0.75)),
        (VisPruner(31, 0.0), training_free_rules.VisPruner(31, 0.0)),
    ],
)
def test_larger_vision_tower(method, rule, large_tower):
    sdpa, eager, samples = large_tower
    run(sdpa, method, samples, rule, eager, new_tokens=2)


MANY_IMAGES = [tiny.sample(4, 12, seed=5), tiny.sample(6, 8, seed=6)]


@covering(1)
@pytest.mark.parametrize("positions", BOTH)
@pytest.mark.parametrize("counts", [(12, 5), (8, 1), (0.3, 3)])
@pytest.mark.parametrize("attention", ["sdpa", pytest.param("eager", marks=pytest.mark.slow)])
def test_several_clusters(counts, positions, attention):
    """Two or three clusters at a time, and tokens merged before among them, also as centers behind later tokens."""
    method, rule = sparse("1.5", (0, 2), counts, positions)
    run(tiny.shared("llama", attention), method, MANY_IMAGES, rule, tiny.shared("llama", "eager"))


@pytest.mark.parametrize("positions", BOTH)
def test_priority_heads(positions):
    """Of 16 heads, two do not vote."""
    sdpa, eager = (tiny.build(attention=a, num_attention_heads=16, num_key_value_heads=4) for a in ("sdpa", "eager"))
    method, rule = sparse("plus", (1, 3), (8, 3), positions)
    run(sdpa, method, MANY_IMAGES, rule, eager)


@pytest.fixture(scope="module")
def deep_models():
    """Models with as many layers as the defaults ask for, and 64 patches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiny._VISION, "num_hidden_layers", 20)
        patch.setitem(tiny._VISION, "patch_size", 2)
        patch.setattr(tiny, "TOKENS_PER_IMAGE", 64)
        models = [tiny.build(attention=attention, num_hidden_layers=21) for attention in ("sdpa", "eager")]
        return *models, [tiny.sample(1, 9)]


@pytest.mark.parametrize(
    ("method", "rule"),
    [
        (FasterVLM(), training_free_rules.FasterVLM(144)),
        (VTCCLS(20), training_free_rules.VTCCLS(20, 16)),
        (VisPruner(20), training_free_rules.VisPruner(20, 0.5)),
        (FastV(), training_free_rules.FastV(2, 0.5)),
        (PyramidDrop(), training_free_rules.PyramidDrop((5, 10, 15), (0.5, 0.25, 0.125))),
        (VTW(), training_free_rules.VTW(16)),
        (SparseVLM(64), training_free_rules.SparseVLM((2, 6, 15), (66, 30, 17), positions=RENUMBER)),
        (SparseVLM(96), training_free_rules.SparseVLM((2, 6, 15), (238, 48, 26), positions=RENUMBER)),
        (SparseVLM(128), training_free_rules.SparseVLM((2, 6, 15), (303, 110, 36), positions=RENUMBER)),
        (SparseVLM(), training_free_rules.SparseVLM((2, 6, 15), (300, 200, 110), positions=RENUMBER)),
        (
            SparseVLM(64, "1.0"),
            training_free_rules.SparseVLM((2, 6, 15, 19), (), "1.0", (0.8, 0.0), positions=RENUMBER),
        ),
        (
            SparseVLM(128, "1.0"),
            training_free_rules.SparseVLM((2, 6, 15, 19), (), "1.0", (9.0, 6.0), positions=RENUMBER),
        ),
        (
            SparseVLM(192, "1.0"),
            training_free_rules.SparseVLM((2, 6, 15, 19), (), "1.0", (13.5, 0.0), positions=RENUMBER),
        ),
        (SparseVLM(64, "plus"), training_free_rules.SparseVLM((2, 6, 15), (66, 34, 20), "plus")),
        (SparseVLM(96, "plus"), training_free_rules.SparseVLM((2, 6, 15), (246, 54, 28), "plus")),
        (SparseVLM(128, "plus"), training_free_rules.SparseVLM((2, 6, 15), (238, 108, 60), "plus")),
    ],
)
def test_defaults(method, rule, deep_models):
    sdpa, eager, samples = deep_models
    # The defaults are layers and numbers of the prefill.
    run(sdpa, method, samples, rule, eager, new_tokens=1)


SECOND_TURNS = (
    "fastervlm",
    "vispruner-odd",
    "fastv-original",
    "pyramiddrop-renumber",
    "pyramiddrop-original",
    "vtw-original",
    "vtw-renumber",
    *(f"sparsevlm-{name}" for name in SPARSE),
)
ONE_OF_EACH = ("fastervlm", "vispruner-odd", "fastv-original", "pyramiddrop-renumber", "vtw-renumber", "sparsevlm-1.5")


@pytest.mark.parametrize("name", slow_beside(ONE_OF_EACH, SECOND_TURNS))
def test_second_turn_with_a_new_image(name):
    two_turns(*CASES[name])


def two_turns(method, rule):
    """Two samples that are both shown another image."""
    model, samples = tiny.shared(), tiny.RAGGED[:2]
    inputs = tiny.batch(samples)
    more = [tiny.sample(1, 7, seed=20 + b) for b in range(len(samples))]
    with trim(model, method) as trimmed:
        first = tiny.generate(model, inputs, NEW_TOKENS)
        turn = tiny.follow_up(first, inputs, torch.tensor([s.ids for s in more]), torch.cat([s.pixels for s in more]))
        second = tiny.generate(model, turn, NEW_TOKENS)
    alone = [Dense(tiny.shared("llama", "eager"), rule) for _ in samples]
    assert_equal(first, inputs, trimmed.reports[0], samples, alone)
    # The last token of the first answer was returned, but never read: it is read with the new prompt.
    unread = [answer[-1:] for answer in answers(first, inputs)]
    prompts = [tiny.Sample(u + s.ids, s.pixels) for u, s in zip(unread, more, strict=True)]
    assert_equal(second, turn, trimmed.reports[1], prompts, alone)


@pytest.mark.parametrize("name", ["fastervlm", "pyramiddrop-renumber", "sparsevlm-1.5"])
def test_beams_keep_the_tokens_of_a_greedy_search(name):
    method, _ = CASES[name]
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    with trim(model, method) as trimmed:
        tiny.generate(model, inputs, NEW_TOKENS)
        tiny.generate(model, inputs, NEW_TOKENS, num_beams=2)
    greedy, beams = trimmed.reports
    assert [s.layer for s in greedy.stages] == [s.layer for s in beams.stages]
    for a, b in zip(greedy.stages, beams.stages, strict=True):
        assert b.kept == [kept for kept in a.kept for _ in range(2)]
        assert b.merged == [merged for merged in a.merged for _ in range(2)]


@covering(1)
@pytest.mark.parametrize("keep", [2, 5, 0.4])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_one_choice_under_three_names(keep, attention):
    """VisPruner of important tokens alone, and VTC-CLS of the feature block alone, are FasterVLM."""
    model, inputs = tiny.shared("llama", attention), tiny.batch(tiny.RAGGED)
    outputs, stages = [], []
    for method in (FasterVLM(keep), VisPruner(keep, 1.0), VTCCLS(keep, 0)):
        with trim(model, method) as trimmed:
            outputs.append(tiny.logits(tiny.generate(model, inputs, NEW_TOKENS)))
        stages.append(trimmed.report.stages)
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])
    assert stages[0] == stages[1] == stages[2]


ONE_IMAGE_EACH = tiny.batch(tiny.RAGGED[:1] * 2 + tiny.RAGGED[2:])


@cache
def untouched_logits(attention):
    return tiny.logits(tiny.generate(tiny.shared("llama", attention), ONE_IMAGE_EACH, NEW_TOKENS))


@covering
@pytest.mark.parametrize("positions", BOTH)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        (FasterVLM, {"keep": 1.0}),
        (FasterVLM, {"keep": 16}),
        (FasterVLM, {"keep": 99}),
        (VTCCLS, {"keep": 1.0, "first_layer": 0}),
        (VisPruner, {"keep": 1.0}),
        (VisPruner, {"keep": 16, "important": 0.0}),
        (FastV, {"keep": 1.0}),
        (PyramidDrop, {"keep": (1.0, 1.0, 1.0)}),
        (SparseVLM, {"layers": (0, 2), "counts": (1.0, 1.0)}),
        (SparseVLM, {"layers": (0, 2), "counts": (16, 15)}),
        (SparseVLM, {"layers": (0, 2), "counts": (1.0, 16), "variant": "plus"}),
    ],
)
def test_nothing_removed_is_bit_identical(method, options, positions, attention):
    model = tiny.shared("llama", attention)
    with trim(model, method(**options, positions=positions)) as trimmed:
        output = tiny.generate(model, ONE_IMAGE_EACH, NEW_TOKENS)
    assert torch.equal(untouched_logits(attention), tiny.logits(output))
    assert trimmed.report.stages == []


def test_the_reference_without_a_cut_is_the_model():
    model = tiny.shared("llama", "eager")
    for sample in [*tiny.RAGGED, tiny.sample(0, 30)]:
        inputs = tiny.batch([sample])
        output = tiny.generate(model, inputs, NEW_TOKENS)
        for positions in BOTH:
            oracle = Dense(model, Rule(positions=positions))
            expected = oracle.follow(sample.ids, sample.pixels, answers(output, inputs)[0])
            assert close(tiny.logits(output)[0], expected)
