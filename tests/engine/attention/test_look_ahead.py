"""A cut that ranks by its own layer projects the keys of that layer once."""

import pytest
import torch
from transformers.models.llama import modeling_llama

from tests import tiny
from tests.closeness import close
from vistrim import PyramidDrop, trim

LAYER = 2
METHOD = PyramidDrop(layers=(LAYER,), keep=(0.25,))


@pytest.fixture
def counted(monkeypatch):
    """A model that counts the rows that the key projection of the layer of the cut gets, if there are any."""
    model, rows = tiny.build(), []
    projection = model.base_model.language_model.layers[LAYER].self_attn.k_proj
    own = projection.forward

    def forward(x):
        if x.shape[1]:
            rows.append(x.shape[1])
        return own(x)

    monkeypatch.setattr(projection, "forward", forward)
    return model, rows


def test_keys_of_the_prompt_are_projected_once(counted):
    model, rows = counted
    inputs = tiny.batch([tiny.sample(text=9)])
    with trim(model, METHOD):
        tiny.generate(model, inputs, 3)
    prompt = inputs["input_ids"].shape[1]
    assert rows == [prompt, 1, 1]
    rows.clear()
    tiny.generate(model, inputs, 3)
    assert rows == [prompt, 1, 1]


@pytest.mark.parametrize("positions", ["renumber", "original"])
def test_reused_keys_give_the_logits_of_projected_ones(positions):
    model, inputs = tiny.build(), tiny.batch(tiny.RAGGED)
    method = PyramidDrop(layers=(LAYER, LAYER + 1), keep=(0.5, 0.25), positions=positions)
    with trim(model, method):
        with torch.no_grad():
            reused = model(**inputs).logits
        projected = model(**inputs).logits
    assert projected.requires_grad
    assert close(reused, projected.detach())


def test_gradients_reach_the_key_projection_from_the_rows_that_stay(counted):
    model, rows = counted
    inputs = tiny.batch([tiny.sample(text=9)])
    with trim(model, METHOD):
        model(**inputs).logits.sum().backward()
    prompt = inputs["input_ids"].shape[1]
    assert rows == [prompt, prompt - 12]
    weight = model.base_model.language_model.layers[LAYER].self_attn.k_proj.weight
    assert weight.grad.abs().sum() > 0


def in_place(rotated):
    """The function to apply RoPE as a fused kernel: it writes into the queries, then into the keys."""

    def rotate(query, key, cos, sin):
        query.copy_(rotated(query, key, cos, sin)[0])
        key.copy_(rotated(query, key, cos, sin)[1])
        return query, key

    return rotate


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_rope_may_be_applied_in_place(monkeypatch, kv_heads):
    model, inputs = tiny.build(num_key_value_heads=kv_heads), tiny.batch(tiny.RAGGED)
    with trim(model, METHOD):
        expected = tiny.logits(tiny.generate(model, inputs, 3))
        monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", in_place(modeling_llama.apply_rotary_pos_emb))
        found = tiny.logits(tiny.generate(model, inputs, 3))
    assert close(found, expected)


def doubled(projection, args, output):
    return output.mul_(2)


def doubled_by_its_input(projection, args, output):
    return output + args[0] @ projection.weight.T


@pytest.mark.parametrize("hook", [doubled, doubled_by_its_input])
def test_other_hooks_of_the_projection_see_all_rows_once(hook):
    model, inputs = tiny.build(), tiny.batch(tiny.RAGGED)
    projection = model.base_model.language_model.layers[LAYER].self_attn.k_proj
    with trim(model, METHOD):
        handle = projection.register_forward_hook(hook)
        hooked = tiny.logits(tiny.generate(model, inputs, 3))
        handle.remove()
        projection.weight.data.mul_(2)
        assert close(hooked, tiny.logits(tiny.generate(model, inputs, 3)))


def test_a_hook_registered_before_the_trim_never_gets_an_empty_input():
    model, rows = tiny.build(), []
    projection = model.base_model.language_model.layers[LAYER].self_attn.k_proj
    projection.register_forward_hook(lambda module, args, output: rows.append(args[0].shape[1]))
    with trim(model, METHOD):
        tiny.generate(model, tiny.batch([tiny.sample(text=9)]), 2)
    assert min(rows) > 0
