"""The reference of YOPO equals the authors' way to simulate it: masks and zeros in the stock model, nothing removed."""

import contextlib
from functools import cache

import pytest
import torch

from tests import tiny
from tests.closeness import close
from tests.methods import masked_reference
from tests.methods.dense_reference import Dense
from tests.methods.masked_reference import Reading
from tests.methods.prompts import TEXT_BETWEEN, TEXT_ONLY
from tests.methods.yopo_rules import YOPO

# As the tests that compare YOPO with this reference.
pytestmark = pytest.mark.slow

ANSWER = [17, 99, 5, 140]
HEADS, SIZE, NEURONS = 4, 8, 48
PROMPTS = {"one": tiny.RAGGED[0], "text-between": TEXT_BETWEEN, "text-only": TEXT_ONLY}
STRUCTURES = {
    "nothing": {},
    "self": {"window": 1},
    "window": {"window": 3},
    "wide": {"window": 5},
    "whole-image": {"window": 7},
    "heads": {"share": 0.6},
    "heads-all": {"share": 0.6, "normalize": "all"},
    "no-heads": {"share": 0.0},
    "layer": {"layer": 2},
    "from-the-start": {"layer": 0},
    "ffn": {"ffn": 0.4},
    "together": {"window": 3, "share": 0.5, "layer": 3, "ffn": 0.5},
    "together-all": {"window": 3, "share": 0.5, "layer": 3, "ffn": 0.5, "normalize": "all"},
}


@cache
def model(keys_and_values):
    """With a value for each head, values can be taken from one head alone."""
    return tiny.build(attention="eager", num_key_value_heads=keys_and_values)


def seen(reading, window):
    """Which token attends to which, ``[tokens, tokens]`` bool."""
    if window is None:
        return reading.causal
    length, number = len(reading.embeddings), torch.arange(len(reading.visual))
    image, row, column = (torch.full((length,), -1) for _ in range(3))
    image[reading.visual], row[reading.visual], column[reading.visual] = number // 16, number // 4 % 4, number % 4
    near = image[:, None] == image[None]
    for place in (row, column):
        near &= (place[:, None] - place[None]).abs() * 2 < window
    block = (image[:, None] >= 0) & (image[None] >= 0)
    return (reading.causal & ~block) | (near & block)


def simulated(eager, reading, active, layer=tiny.DEPTH, window=None, ffn=1.0, normalize="attended"):
    """Logits of every step of the answer."""
    visual = torch.zeros(len(reading.embeddings), dtype=torch.bool)
    visual[reading.visual] = True
    own = torch.eye(len(visual)).bool() & visual

    def mask(at):
        if at >= layer:
            return reading.without(reading.visual)
        heads = seen(reading, window).repeat(HEADS, 1, 1)
        if normalize == "attended":
            # What a visual token gets from such a head is zero; here it must only be finite.
            heads[~active[at]] = (heads[~active[at]] & ~visual) | own
        return heads

    with contextlib.ExitStack() as hooks:
        for at, module in enumerate(eager.get_decoder().layers[:layer]):
            idle = (~active[at]).repeat_interleave(SIZE) & visual[None, :, None]
            dropped = (torch.arange(NEURONS) >= int(NEURONS * ffn)) & visual[None, :, None]
            zeroed = {module.mlp.gate_proj: dropped, module.mlp.up_proj: dropped}
            if normalize == "all":
                # As if the weights on visual tokens became zero, with the denominator as it was.
                zeroed[module.self_attn.v_proj] = idle
            for part, where in zeroed.items():
                hook = part.register_forward_hook(lambda m, args, out, where=where: out.masked_fill(where, 0.0))
                hooks.callback(hook.remove)
            hook = module.self_attn.o_proj.register_forward_pre_hook(
                lambda m, args, where=idle: (args[0].masked_fill(where, 0.0),)
            )
            hooks.callback(hook.remove)
        return masked_reference.logits(eager, reading, mask)


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("name", STRUCTURES)
def test_structure(prompt, name):
    options = dict(STRUCTURES[name])
    eager = model(HEADS if options.get("normalize") == "all" else 2)
    active = torch.rand(tiny.DEPTH, HEADS, generator=torch.Generator().manual_seed(4)) < options.pop("share", 1.0)
    reading = Reading.of(eager, prompt, ANSWER)
    expected = simulated(eager, reading, active, **options)
    dense = Dense(eager, YOPO(active.tolist(), **options))
    assert close(dense.follow(prompt.ids, prompt.pixels, ANSWER), expected)
    text, visual = len(reading.embeddings) - len(reading.visual), len(reading.visual)
    left = [visual if layer < options.get("layer", tiny.DEPTH) else 0 for layer in range(tiny.DEPTH)]
    assert dense.kv_lengths == [text + n for n in left]
