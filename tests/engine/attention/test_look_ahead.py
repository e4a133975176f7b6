"""A cut that ranks by its own layer projects the keys of that layer once."""

import pytest
import torch

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
