"""Half precision, inference mode, recomputed layers, threads and copied caches, in several families."""

import copy
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
import torch

from tests.closeness import close
from tests.covering import covering
from tests.engine.test_keep_everything import KeepEverything
from tests.families.depth import slow_beside
from tests.families.later_turns import next_turn
from tests.families.zoo import FAMILIES, shared
from tests.tiny import generate, logits
from vistrim import ST3, PyramidDrop, SparseVLM, trim
from vistrim.engine.releases import CACHE

NAMES = ["llava", "qwen2_5_vl", "qwen3_vl", "gemma3", "internvl"]
EVERY_FAMILY = pytest.mark.parametrize("name", slow_beside(["llava", "qwen2_5_vl"], NAMES))
METHODS = {
    "st3": ST3(1, 1, 0.3, "cosine", 7, 0.1, interval=1),
    "pyramiddrop": PyramidDrop(layers=(1, 2, 3), keep=(0.6, 0.4, 0.2), positions="original"),
    "sparsevlm": SparseVLM(layers=(0, 2), counts=(6, 2), positions="original"),
}


def prompts(family):
    return [family.sample(1, 9), family.sample(2, 14, seed=1), family.sample(0, 20, seed=2)]


@covering(1)
@EVERY_FAMILY
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(name, dtype):
    family, model = FAMILIES[name], FAMILIES[name].build().to(dtype)
    inputs = {k: v.to(dtype) if v.is_floating_point() else v for k, v in family.batch(prompts(family)).items()}
    untouched = generate(model, inputs, 4)
    with trim(model, KeepEverything()):
        output = generate(model, inputs, 4)
    assert torch.equal(logits(untouched), logits(output))
    for method in METHODS.values():
        with trim(model, method) as run:
            found = logits(generate(model, inputs, 4))
        assert found.isfinite().all()
        assert run.report.kv_bytes < run.report.kv_bytes_full


@covering(1)
@EVERY_FAMILY
@pytest.mark.parametrize("method", METHODS)
def test_inference_mode(name, method):
    family, model = FAMILIES[name], shared(name)
    sample, new = family.sample(1, 9), family.sample(1, 6, seed=3)
    inputs, found = family.batch([sample]), []
    for mode in (torch.no_grad, torch.inference_mode):
        with mode(), trim(model, METHODS[method]):
            first = generate(model, inputs, 4)
            second = generate(model, next_turn(family, model, inputs, first, [sample], [new]), 4)
            bare = model(**inputs).logits
        found.append(torch.cat([logits(first).flatten(), logits(second).flatten(), bare.flatten()]))
    assert torch.equal(*found)


@covering(1)
@EVERY_FAMILY
@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputed_layers_give_the_same_gradients(name, reentrant):
    """Gradient checkpointing runs layers again in the backward pass, when their inputs are long forgotten."""
    family = FAMILIES[name]
    inputs = family.batch([family.sample(1, 12), family.sample(2, 15, seed=1)])
    labels = inputs["input_ids"].clone()
    labels[:, :-5] = -100
    inputs["labels"] = labels
    found = []
    for recomputes in (False, True):
        model = family.build().train()
        if recomputes:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model.enable_input_require_grads()
        with trim(model, METHODS["sparsevlm"]) as run:
            loss = model(**inputs, use_cache=False).loss
            loss.backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        found.append((loss.detach(), gradients, run.report.stages))
    (loss, gradients, stages), (again, recomputed, same) = found
    assert close(again, loss)
    assert stages == same != []
    assert gradients.keys() == recomputed.keys() != set()
    for name, gradient in gradients.items():
        assert close(gradient, recomputed[name]), name


@covering(1)
@EVERY_FAMILY
@pytest.mark.parametrize("method", METHODS)
def test_threads_generate_at_the_same_time(name, method):
    """Qwen-VL notes on the model where the places of a prompt end; `generate` carries them along."""
    family, model = FAMILIES[name], shared(name)
    samples = [family.sample(1 + i % 2, 6 + 2 * i, seed=i) for i in range(4)]

    def work(sample):
        return logits(generate(model, family.batch([sample]), 4))

    with trim(model, METHODS[method]):
        alone = [work(sample) for sample in samples]
        for _ in range(2):
            with ThreadPoolExecutor(4) as pool:
                together = list(pool.map(work, samples))
            for a, b in zip(alone, together, strict=True):
                assert torch.equal(a, b)


@covering(1)
@EVERY_FAMILY
@pytest.mark.parametrize("method", METHODS)
def test_a_copied_cache_goes_its_own_way(name, method):
    family, model = FAMILIES[name], shared(name)
    sample = family.sample(2, 9, seed=1)
    news = [family.sample(0, 4, seed=5), family.sample(0, 7, seed=6)]
    inputs = family.batch([sample])

    def turn(first, new):
        return logits(generate(model, next_turn(family, model, inputs, first, [sample], [new]), 4))

    with torch.no_grad(), trim(model, METHODS[method]):
        expected = [turn(generate(model, inputs, 4), new) for new in news]
        first = generate(model, inputs, 4)
        other = copy.deepcopy(first)
        assert torch.equal(turn(first, news[0]), expected[0])
        assert torch.equal(turn(other, news[1]), expected[1])
        lengths = [[layer.get_seq_length() for layer in o[CACHE].layers] for o in (first, other)]
    assert lengths[0] != lengths[1]


@covering(1)
@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("method", [None, *METHODS])
def test_conversations_that_take_turns(name, method):
    """A later turn without images counts on from where the model has noted that places end: it has to be put back."""
    family, model = FAMILIES[name], FAMILIES[name].build()
    samples, new = [family.sample(1, 9), family.sample(2, 9, seed=4)], family.sample(0, 5, seed=3)
    inputs = [family.batch([sample]) for sample in samples]

    def second(first, i):
        return logits(generate(model, next_turn(family, model, inputs[i], first, [samples[i]], [new]), 4))

    with trim(model, METHODS[method]) if method is not None else nullcontext():
        alone = [second(generate(model, inputs[i], 4), i) for i in range(2)]
        firsts, ends = [], []
        for i in range(2):
            firsts.append(generate(model, inputs[i], 4))
            ends.append(model.base_model.rope_deltas)
        assert not torch.equal(*ends)
        for i in range(2):
            model.base_model.rope_deltas = ends[i]
            assert torch.equal(second(firsts[i], i), alone[i])
