"""Leaving the context restores the model exactly in every case."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn

from tests import tiny
from tests.closeness import close
from vistrim import PVTP, ST3, VTA, UnsupportedGenerationError, UnsupportedModelError, trim
from vistrim.engine.cache.layers import TrimmableLayer
from vistrim.engine.releases import CACHE


def fingerprint(model: nn.Module):
    """Everything that an engine could leave behind: attributes, hooks, classes, configs."""
    found = {}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if key in ("_parameters", "_buffers", "_modules"):
                continue
            found[name, key] = dict(value) if "hooks" in key and isinstance(value, dict) else id(value)
        found[name, "class"] = type(module)
    found["config"] = model.config.to_json_string(use_diff=False)
    return found


def used_model():
    """A model that has generated: transformers installs hooks of its own at the first forward pass."""
    model, inputs = tiny.build(), tiny.batch(tiny.RAGGED)
    tiny.generate(model, inputs, 2)
    return model, inputs


def test_leaving_restores_the_model():
    model, inputs = used_model()
    untouched, before = tiny.generate(model, inputs), fingerprint(model)
    with trim(model, ST3()):
        tiny.generate(model, inputs)
        assert fingerprint(model) != before
    assert fingerprint(model) == before
    assert torch.equal(tiny.logits(tiny.generate(model, inputs)), tiny.logits(untouched))


def test_an_error_inside_leaves_nothing_behind():
    model, inputs = used_model()
    before = fingerprint(model)

    def fail(module, args):
        raise RuntimeError("in the middle")

    run = trim(model, PVTP(1, 2, 0.5))
    handle = model.get_decoder().layers[3].register_forward_pre_hook(fail)
    with run, pytest.raises(RuntimeError, match="in the middle"):
        tiny.generate(model, inputs)
    handle.remove()
    assert fingerprint(model) == before
    assert run.reports == []


def test_the_model_works_again_after_an_error_inside():
    model, inputs = tiny.build(), tiny.batch(tiny.RAGGED)
    with trim(model, PVTP(1, 2, 0.5)):
        expected = tiny.generate(model, inputs)
        broken = dict(inputs, pixel_values=inputs["pixel_values"][:1])
        with pytest.raises(ValueError, match="do not match"):
            tiny.generate(model, broken)
        assert torch.equal(tiny.logits(tiny.generate(model, inputs)), tiny.logits(expected))


def test_a_failed_prompt_does_not_leak_into_the_next_call():
    model, inputs = tiny.build(), tiny.batch([tiny.sample(1, 9)])
    with torch.no_grad(), trim(model, PVTP(1, 2, 0.5)) as run:
        with pytest.raises(ValueError, match="do not match"):
            model(**dict(inputs, pixel_values=inputs["pixel_values"].repeat(2, 1, 1, 1)))
        model.get_decoder()(inputs_embeds=torch.randn(1, 26, 32))
    assert run.report.visual_tokens == [0]
    assert run.report.prefill_flops == run.report.prefill_flops_full


def test_attach_and_detach():
    model, inputs = used_model()
    before = fingerprint(model)
    handle = trim(model, PVTP(1, 2, 0.5)).attach()
    assert handle.model is model
    tiny.generate(model, inputs)
    assert handle.report.prefill_flops < handle.report.prefill_flops_full
    handle.detach()
    assert fingerprint(model) == before
    handle.detach()
    with handle:
        tiny.generate(model, inputs)
    assert len(handle.reports) == 2


def test_nesting_is_an_error_and_does_no_harm():
    model, inputs = used_model()
    before = fingerprint(model)
    with trim(model, PVTP(1, 2, 0.5)):
        with pytest.raises(UnsupportedModelError, match="already being trimmed"), trim(model, ST3()):
            pass
        tiny.generate(model, inputs)
    assert fingerprint(model) == before


def test_an_instance_override_of_generate_survives():
    model = tiny.build()
    own = model.generate
    model.generate = own
    with trim(model, ST3()):
        assert model.generate is not own
    assert vars(model)["generate"] is own


def test_no_report_before_the_first_generation():
    with trim(tiny.build(), ST3()) as run, pytest.raises(RuntimeError, match="generate"):
        _ = run.report


def test_a_trimmed_cache_cannot_be_used_without_the_method():
    model, inputs = tiny.shared(), tiny.batch([tiny.sample(1, 9)])
    with trim(model, PVTP(1, 2, 0.5)):
        output = tiny.generate(model, inputs)
    with pytest.raises(UnsupportedGenerationError, match=r"vistrim\.trim"):
        tiny.generate(model, tiny.follow_up(output, inputs, torch.tensor([[5, 6]])))


def test_an_untrimmed_cache_can_be_used_without_the_method():
    model, inputs = tiny.shared(), tiny.batch([tiny.sample(1, 9)])
    turns = []
    for method in (None, PVTP(drop_per_cut=0.0)):
        if method:
            with trim(model, method):
                first = tiny.generate(model, inputs)
        else:
            first = tiny.generate(model, inputs)
        turns.append(tiny.generate(model, tiny.follow_up(first, inputs, torch.tensor([[5, 6]]))))
    assert torch.equal(tiny.logits(turns[0]), tiny.logits(turns[1]))


def test_a_cache_made_without_the_method_can_be_continued_with_it():
    model, inputs = tiny.shared(), tiny.batch([tiny.sample(1, 9)])
    first = tiny.generate(model, inputs)
    turn = tiny.follow_up(first, inputs, torch.tensor([[5, 6]]))
    expected = tiny.generate(model, copy.deepcopy(turn))
    with trim(model, ST3()):
        output = tiny.generate(model, turn)
    # What was cached before is not known to be visual, so it stays.
    assert torch.equal(tiny.logits(output), tiny.logits(expected))


def test_copies_and_pickles_of_a_cache_go_on_independently():
    model, inputs, method = (
        tiny.shared(),
        tiny.batch([tiny.sample(1, 9)]),
        ST3(1, 2, 0.3, horizon=8, floor=0.0, interval=1),
    )
    more = torch.tensor([[5, 6]])
    with trim(model, method):
        first = tiny.generate(model, inputs)
        kept = copy.deepcopy(first), pickle.loads(pickle.dumps(first[CACHE]))
        expected = tiny.generate(model, tiny.follow_up(first, inputs, more))
        again = tiny.generate(model, tiny.follow_up(kept[0], inputs, more))
        kept[0][CACHE] = kept[1]
        pickled = tiny.generate(model, tiny.follow_up(kept[0], inputs, more))
    assert torch.equal(tiny.logits(expected), tiny.logits(again))
    assert torch.equal(tiny.logits(expected), tiny.logits(pickled))


def test_reset_cache_starts_anew():
    model, inputs, method = (
        tiny.shared(),
        tiny.batch([tiny.sample(1, 9)]),
        ST3(1, 2, 0.3, horizon=8, floor=0.0, interval=1),
    )
    with trim(model, method):
        first = tiny.generate(model, inputs)
        cache = first[CACHE]
        cache.reset()
        assert all(type(layer) is TrimmableLayer and layer.get_seq_length() == 0 for layer in cache.layers)
        again = tiny.generate(model, inputs, **{CACHE: cache})
    assert torch.equal(tiny.logits(first), tiny.logits(again))


def test_batch_operations_on_a_trimmed_cache():
    """Contrastive-style repeats and selections keep the bookkeeping in step."""
    model, method = tiny.shared(), PVTP(1, 2, 0.5)
    samples = tiny.RAGGED
    inputs = tiny.batch(samples)
    token = torch.tensor([[7], [8], [9]])
    with torch.no_grad(), trim(model, method):
        prefilled = model(**inputs, use_cache=True)
        cache = prefilled[CACHE]
        mask = torch.cat([inputs["attention_mask"], torch.ones(3, 1, dtype=torch.long)], 1)
        place = mask.sum(1, keepdim=True) - 1

        def step(cache, rows):
            return model(
                input_ids=token[rows],
                attention_mask=mask[rows],
                position_ids=place[rows],
                **{CACHE: cache},
            ).logits[:, -1]

        expected = step(copy.deepcopy(cache), [0, 1, 2])
        chosen = copy.deepcopy(cache)
        chosen.batch_select_indices(torch.tensor([2, 0]))
        assert close(step(chosen, [2, 0]), expected[[2, 0]])
        cache.batch_repeat_interleave(2)
        rows = [0, 0, 1, 1, 2, 2]
        assert close(step(cache, rows), expected[rows])


def test_no_reference_to_a_cache_is_kept():
    model, inputs = tiny.shared(), tiny.batch([tiny.sample(1, 9)])
    with trim(model, ST3()) as run:
        output = tiny.generate(model, inputs)
        alive = weakref.ref(output[CACHE].layers[0].keys)
        del output
        gc.collect()
        assert alive() is None
        assert run.report.kv_bytes > 0


def test_cache_of_a_shared_prefix_takes_another_image():
    """Untrimmed tokens may be cropped, including images; the records follow."""
    model, method = tiny.shared(), VTA("linear", 4, 0.0, interval=1)
    first, second = tiny.sample(1, 9), tiny.sample(1, 9, seed=4)
    prefix = first.ids[:4]
    other = tiny.Sample(prefix + second.ids[4:], second.pixels)
    with torch.no_grad(), trim(model, method) as run:
        expected = tiny.generate(model, tiny.batch([other]), 4)
        cache = model(**tiny.batch([first]), use_cache=True)[CACHE]
        cache.crop(len(prefix) - len(first.ids))
        output = tiny.generate(model, tiny.batch([other]), 4, **{CACHE: cache})
    assert close(tiny.logits(output), tiny.logits(expected))
    assert run.reports[-1].kv_tokens_per_layer == run.reports[0].kv_tokens_per_layer


def test_key_press_in_a_forward_pass_leaves_nothing_behind():
    model, inputs = tiny.build(), tiny.batch([tiny.sample(1, 9)])

    def interrupt(module, args):
        raise KeyboardInterrupt

    with torch.no_grad(), trim(model, PVTP(1, 2, 0.5)) as run:
        handle = model.get_decoder().layers[3].register_forward_pre_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            tiny.generate(model, inputs)
        handle.remove()
        model.get_decoder()(inputs_embeds=torch.randn(1, 26, 32))
    assert [report.visual_tokens for report in run.reports] == [[0]]


def test_model_run_from_inside_a_generation_has_its_own_report():
    model, inputs = tiny.shared(), tiny.batch([tiny.sample(1, 9)])

    def ask_aside(ids, scores):
        with torch.no_grad():
            model(input_ids=torch.tensor([[5, 6, 7]]), use_cache=True)
        return scores

    with trim(model, ST3(1, 2, 0.3, horizon=8, interval=1)) as run:
        expected = tiny.generate(model, inputs, 4)
        output = tiny.generate(model, inputs, 4, logits_processor=[ask_aside])
    assert torch.equal(tiny.logits(output), tiny.logits(expected))
    own = [report for report in run.reports if report.visual_tokens != [0]]
    assert [report.kv_tokens_per_layer for report in own] == [own[0].kv_tokens_per_layer] * 2
