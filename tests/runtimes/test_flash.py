"""FlashAttention: transformers' own code around the kernels runs, and only the kernels are computed on the CPU."""

import pytest
import torch
from transformers.integrations.flash_attention import flash_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, flash_attention_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tests import guides, tiny
from tests.closeness import close
from tests.covering import covering
from tests.engine.test_keep_everything import KeepEverything
from tests.families.depth import slow_beside, slow_unless
from tests.families.later_turns import next_turn
from tests.families.zoo import FAMILIES, Family, shared
from tests.runtimes import flash_kernels
from tests.tiny import generate, logits
from vistrim import (
    SGL,
    ST3,
    VTW,
    YOPO,
    FasterVLM,
    FastV,
    PyramidDrop,
    SparseVLM,
    UnsupportedGenerationError,
    compose,
    trim,
)

HEADS = ((True,) * 4, (False, True, True, False), (False,) * 4, (True, False) * 2)
METHODS = {
    "st3": ST3(1, 1, 0.3, "cosine", 7, 0.1, interval=1),
    "fastv": FastV(2, 0.4),
    "pyramiddrop": PyramidDrop(layers=(1, 2, 3), keep=(0.6, 0.4, 0.2), positions="original"),
    "vtw": VTW(3),
    "sparsevlm": SparseVLM(layers=(0, 2), counts=(6, 2), positions="original"),
    "sparsevlm-plus": SparseVLM(variant="plus", layers=(0, 2), counts=(6, 2)),
}
LLAVA_METHODS = {
    "fastervlm": FasterVLM(5),
    "fastv-renumber": FastV(2, 0.4, "renumber"),
    "pyramiddrop-renumber": PyramidDrop(layers=(1, 2, 3), keep=(0.6, 0.4, 0.2)),
    "sparsevlm-renumber": SparseVLM(layers=(0, 2), counts=(6, 2)),
    "yopo": YOPO(3, HEADS, 3, 0.5),
    "yopo-ffn": YOPO(None, None, None, 0.5),
    "composed": compose(FasterVLM(0.75), YOPO(3, HEADS, None, 0.5), SparseVLM(layers=(1,), counts=(4,))),
}
NAMES = ["llava", "llava_next-sliding", "llava_onevision", "qwen2_5_vl", "qwen3_vl", "gemma3", "internvl"]
CASES = [(name, method) for name in NAMES for method in METHODS] + [("llava", method) for method in LLAVA_METHODS]
# Each family with a method that anneals and one that merges, and each method with one family.
SOME_CASES = [(name, method) for name, method in CASES if name == "llava" or method in ("st3", "sparsevlm")]
# One family of 1-D RoPE, and those whose layers FlashAttention treats in another way than SDPA.
QUICK = ("llava", "llava_next-sliding", "paligemma")
DIFFERENT = ("st3", "sparsevlm", "pyramiddrop-renumber", "yopo", "composed")
"""One of those that cut, anneal, merge, renumber and restrict heads alike."""


def is_quick(case):
    name, method = case
    return name in QUICK and method in DIFFERENT


EACH_OF_SOME = pytest.mark.parametrize(("name", "method"), slow_unless(is_quick, SOME_CASES))
BOTH_WAYS = [("paligemma", method) for method in METHODS]
"""To FlashAttention, whatever PaliGemma reads in one pass looks both ways: to SDPA only the first prompt does."""


@pytest.fixture(autouse=True)
def kernels(monkeypatch):
    with flash_kernels.installed(monkeypatch):
        yield


_models = {}


def flash(name):
    if name not in _models:
        _models[name] = flash_kernels.build(name)
    return _models[name]


def method_called(name):
    return (METHODS | LLAVA_METHODS)[name]


def prompts(family: Family):
    return [family.sample(1, 9), family.sample(2, 14, seed=1), family.sample(0, 20, seed=2)]


def batch(family: Family, samples):
    """FlashAttention knows no blocks of tokens that see each other, so that Gemma 3's images are causal to it."""
    return causal(family, family.batch(samples))


def causal(family: Family, inputs):
    if family.name.startswith("gemma3"):
        inputs["token_type_ids"] = torch.zeros_like(inputs["token_type_ids"])
    return inputs


def both(name, method, work):
    """Results of a workload on the trimmed model with FlashAttention, and with SDPA."""
    found = []
    for model in (flash(name), shared(name)):
        with torch.no_grad(), trim(model, method_called(method)) as run:
            result = work(model)
        found.append((result, run.reports))
    (a, reports), (b, expected) = found
    assert close(a, b)
    assert [report.stages for report in reports] == [report.stages for report in expected]
    assert [report.kv_tokens_per_step for report in reports] == [report.kv_tokens_per_step for report in expected]
    assert [report.kv_bytes for report in reports] == [report.kv_bytes for report in expected]


@pytest.mark.parametrize("name", slow_beside(QUICK, [*NAMES, "paligemma", "paligemma-gemma2"]))
@pytest.mark.parametrize("samples", [slice(1, 2), slice(3)], ids=["one", "padded"])
def test_keeping_everything_changes_no_bit(name, samples):
    family, model = FAMILIES[name], flash(name)
    inputs = family.batch(prompts(family)[samples])
    untouched = generate(model, inputs, 3)
    with trim(model, KeepEverything()):
        output = generate(model, inputs, 3)
    assert torch.equal(logits(untouched), logits(output))


@covering
@pytest.mark.parametrize(("name", "method"), slow_beside(QUICK, CASES + BOTH_WAYS))
@pytest.mark.parametrize("samples", [slice(1, 2), slice(3)], ids=["one", "padded"])
def test_it_equals_sdpa(name, method, samples):
    family = FAMILIES[name]
    inputs = batch(family, prompts(family)[samples])
    both(name, method, lambda model: logits(generate(model, inputs, 3)))


@covering(1)
@EACH_OF_SOME
def test_beams_and_no_cache(name, method):
    family = FAMILIES[name]
    inputs = batch(family, prompts(family)[:2])
    both(name, method, lambda model: generate(model, inputs, 3, num_beams=2, output_scores=True).sequences_scores)
    if not method_called(method).acts_in_decode:
        both(name, method, lambda model: logits(generate(model, inputs, 3, use_cache=False)))


@covering(1)
@EACH_OF_SOME
@pytest.mark.parametrize("images", [0, 1], ids=["text", "new-image"])
def test_two_turns(name, method, images):
    family = FAMILIES[name]
    first, new = family.sample(2, 9, seed=1), family.sample(images, 6, seed=2)
    inputs = batch(family, [first])

    def talk(model):
        output = generate(model, inputs, 3)
        turn = causal(family, next_turn(family, model, inputs, output, [first], [new]))
        return torch.cat([logits(output), logits(generate(model, turn, 3))])

    both(name, method, talk)


@pytest.mark.parametrize(
    ("name", "method"), slow_unless(is_quick, [case for case in CASES if case[0] in ("llava", "qwen2_5_vl")])
)
def test_prompt_lookup(name, method):
    if method_called(method).acts_in_decode:
        method = "fastv"
    inputs = batch(FAMILIES[name], [FAMILIES[name].sample(1, 9)])
    options = {"prompt_lookup_num_tokens": 3, "max_matching_ngram_size": 1}
    both(name, method, lambda model: logits(generate(model, inputs, 8, **options)))


@pytest.mark.parametrize("method", slow_beside(DIFFERENT, METHODS | LLAVA_METHODS))
def test_right_padding_and_holes(method):
    family = FAMILIES["llava"]
    right = family.batch(prompts(family), side="right")
    holes = family.batch([family.sample(2, 14, seed=1)])
    holes["attention_mask"][0, 6:12] = 0

    def last(model):
        found = model(**right).logits
        ends = right["attention_mask"].sum(1) - 1
        return torch.cat([found[torch.arange(3), ends], model(**holes).logits[:, -1]])

    both("llava", method, last)


def test_the_kernel_gets_only_remaining_tokens():
    family, model = FAMILIES["llava"], flash("llava")
    one, other = family.sample(1, 9), family.sample(1, 12)
    flash_kernels.CALLS.clear()
    with trim(model, METHODS["fastv"]) as run:
        generate(model, family.batch([one, other]), 1)
    kept = [counts[1] for counts in run.report.visual_tokens_per_layer]
    assert kept == [16, 16, 6, 6]
    # Behind the calls of the tower; the samples of a padded batch come one by one.
    assert flash_kernels.CALLS[-8:] == [n for visual in kept for n in (one.text + visual, other.text + visual)]


@pytest.fixture
def sdpa(monkeypatch):
    """Calls of SDPA."""
    calls, own = [], ALL_ATTENTION_FUNCTIONS["sdpa"]

    def noting(*args, **kwargs):
        calls.append(args)
        return own(*args, **kwargs)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "sdpa", noting)
    return calls


@pytest.mark.parametrize("window", [8, 16, 24, 200])
def test_windows_count_the_tokens_that_are_gone(window, sdpa):
    """FlashAttention alone would let a token look back over as many tokens as before, but farther."""
    family = FAMILIES["llava_next-sliding"]
    models = [flash_kernels.build("llava_next-sliding"), FAMILIES["llava_next-sliding"].build("sdpa")]
    for model in models:
        model.config.get_text_config().sliding_window = window
    sample = family.sample(2, 14, seed=1)
    inputs, found = family.batch([sample]), []
    for model in models:
        sdpa.clear()
        with trim(model, METHODS["fastv"]) as run:
            found.append(logits(generate(model, inputs, 6)))
        if model is models[0]:
            # In place of the kernel only where it would be wrong: in prefill, behind the cut.
            assert len(sdpa) == (2 if window < len(sample.ids) else 0)
    assert close(found[0], found[1])
    assert run.report.visual_tokens_per_layer[-1][0] < sample.visual


def test_a_window_with_a_soft_cap_is_refused():
    family, model = FAMILIES["paligemma-gemma2"], flash("paligemma-gemma2")
    inputs = family.batch([family.sample(2, 14, seed=1)])
    with trim(model, METHODS["fastv"]):
        with pytest.raises(UnsupportedGenerationError, match=r"sliding window.*'eager'"):
            generate(model, inputs, 2)
        model.config.get_text_config().sliding_window = 200
        try:
            generate(model, inputs, 2)
        finally:
            model.config.get_text_config().sliding_window = 16


def test_packed_sequences_are_refused():
    family, model = FAMILIES["llava"], flash("llava")
    inputs = family.batch([family.sample(1, 9)])
    length = inputs["input_ids"].shape[1]
    del inputs["attention_mask"]
    positions = torch.cat([torch.arange(length - 5), torch.arange(5)])[None]
    lengths = torch.tensor([0, length - 5, length], dtype=torch.int32)
    with torch.no_grad(), trim(model, METHODS["fastv"]):
        with pytest.raises(UnsupportedGenerationError, match=r"packed.*attention_mask"):
            model(**inputs, position_ids=positions)
        with pytest.raises(UnsupportedGenerationError, match=r"packed.*attention_mask"):
            model(**inputs, cu_seq_lens_q=lengths, cu_seq_lens_k=lengths, max_length_q=length, max_length_k=length)
        # One sequence that does not start at zero is none of them.
        model(**inputs, position_ids=torch.arange(3, length + 3)[None])


@pytest.mark.parametrize("kernel", ["flash_attention_3", "flash_attention_4", "kernels-community/some-flash"])
def test_other_flash_kernels(kernel, monkeypatch):
    """Those of the Hub are registered as `transformers.integrations.hub_kernels` registers them."""
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, kernel, flash_attention_forward)
    monkeypatch.setitem(ALL_MASK_ATTENTION_FUNCTIONS._global_mapping, kernel, flash_attention_mask)
    family, model = FAMILIES["llava"], flash_kernels.build("llava", kernel)
    inputs = family.batch(prompts(family))
    found = []
    for m in (model, shared("llava")):
        with trim(m, METHODS["st3"]):
            found.append(logits(generate(m, inputs, 4)))
    assert close(found[0], found[1])


@pytest.mark.parametrize("kernel", ["flex_attention", "paged|eager", "kernels-community/block-sparse"])
def test_kernels_of_other_kinds_are_refused(kernel, monkeypatch):
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "kernels-community/block-sparse", lambda: None)
    family = FAMILIES["llava"]
    model, inputs = flash_kernels.build("llava", kernel), family.batch([family.sample(1, 9)])
    with trim(model, METHODS["fastv"]), pytest.raises(UnsupportedGenerationError, match="set_attn_implementation"):
        generate(model, inputs, 2)


@pytest.mark.parametrize("threshold", [None, 0.0])
def test_a_guide(threshold):
    """The guide listens to FlashAttention, too."""
    inputs = tiny.batch(tiny.RAGGED)
    found = []
    for use in (flash_kernels.use_flash, lambda model: model):
        model, guide = use(tiny.build()), use(guides.build())
        with trim(model, SGL(guide, exit_threshold=threshold)) as run:
            sequences = model.generate(**inputs, max_new_tokens=5, do_sample=False)
        found.append((sequences.tolist(), run.report.stages, torch.tensor(run.report.exit_scores)))
    assert found[0][:2] == found[1][:2]
    assert close(found[0][2], found[1][2])


def test_a_guide_with_a_window_is_refused():
    model, guide = tiny.build(), flash_kernels.use_flash(guides.build("mistral", sliding_window=24))
    with trim(model, SGL(guide)), pytest.raises(UnsupportedGenerationError, match=r"guide.*'sdpa'"):
        generate(model, tiny.batch(tiny.RAGGED), 2)
