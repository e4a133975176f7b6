"""Several samples in one row: each as if it were alone, or refused."""

import pytest
import torch

from tests import tiny
from tests.closeness import close
from tests.families.zoo import FAMILIES, shared
from vistrim import (
    PVTP,
    FastV,
    PyramidDrop,
    SparseVLM,
    Uniform,
    UnsupportedGenerationError,
    VisPruner,
    compose,
    trim,
)

NAMES = ("llava", "gemma3", "qwen2_5_vl", "qwen3_vl", "glm4v")
RIGHT = {
    "keep everything": FastV(keep=1.0),
    "uniform": Uniform(0.5),
    "vispruner": VisPruner(0.5, positions="original"),
    "renumbered": VisPruner(0.5, positions="renumber"),
}
REFUSED = {
    "fastv": FastV(),
    "pvtp": PVTP(),
    "pyramiddrop": PyramidDrop((1, 2, 3)),
    "sparsevlm": SparseVLM(layers=(1, 2, 3), counts=(0.5, 0.4, 0.3)),
    "composed": compose(Uniform(0.5), FastV()),
}


def positions_of(model, inputs):
    """Inputs of the decoder, with the axis of the text first if there are several."""
    found = []
    take = lambda module, args, kwargs: found.append(kwargs["position_ids"])  # noqa: E731
    handle = model.get_decoder().register_forward_pre_hook(take, with_kwargs=True)
    model(**inputs, use_cache=False)
    handle.remove()
    (positions,) = found
    text = torch.arange(inputs["input_ids"].shape[1])[None]
    if positions is None or positions.dim() == 2:
        return text
    return torch.cat([text[None], positions[-3:]])


def pack(name, model):
    """Two samples in one row, and each by itself."""
    family = FAMILIES[name]
    samples = [family.sample(1, 9), family.sample(1, 7, seed=3)]
    alone = [family.batch([sample]) for sample in samples]
    for inputs in alone:
        del inputs["attention_mask"]
    positions = torch.cat([positions_of(model, inputs) for inputs in alone], -1)
    along = {"input_ids": 1, "mm_token_type_ids": 1, "token_type_ids": 1}
    row = {key: torch.cat([inputs[key] for inputs in alone], along.get(key, 0)) for key in alone[0]}
    return row | {"position_ids": positions, "use_cache": False}, alone


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_families(name, attention):
    model = shared(name, attention)
    row, alone = pack(name, model)
    with trim(model, Uniform(0.5)):
        expected = torch.cat([model(**inputs, use_cache=False).logits for inputs in alone], 1)
        found = model(**row).logits
    left = (expected != 0).any(-1)
    assert close(found[left], expected[left])
    with trim(model, FastV()), pytest.raises(UnsupportedGenerationError, match=r"packed into one.*padded batch"):
        model(**row)


@pytest.mark.parametrize("method", RIGHT)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_methods_that_go_by_images(attention, method):
    model = tiny.shared(attention=attention)
    row, alone = pack_tiny()
    with trim(model, RIGHT[method]) as run:
        expected = torch.cat([model(**inputs, use_cache=False).logits for inputs in alone], 1)
        found = model(**row).logits
    assert run.report.visual_tokens == [32]
    assert close(found, expected)


@pytest.mark.parametrize("method", REFUSED)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_methods_that_take_a_row_for_one_sample(attention, method):
    model = tiny.shared(attention=attention)
    row, alone = pack_tiny()
    with trim(model, REFUSED[method]) as run:
        with pytest.raises(UnsupportedGenerationError, match="packed into one"):
            model(**row)
        model(**alone[0])
    assert len(run.reports) == 1


def pack_tiny():
    samples = [tiny.sample(1, 9), tiny.sample(1, 7, seed=3)]
    alone = [{"input_ids": torch.tensor([s.ids]), "pixel_values": s.pixels} for s in samples]
    row = {
        "input_ids": torch.cat([inputs["input_ids"] for inputs in alone], 1),
        "pixel_values": torch.cat([s.pixels for s in samples]),
        "position_ids": torch.cat([torch.arange(len(s.ids)) for s in samples])[None],
    }
    return row | {"use_cache": False}, alone


@torch.no_grad()
def test_three_axes_that_begin_again():
    """Transformers does not even keep such samples apart."""
    model = shared("qwen2_5_vl")
    row, _ = pack("qwen2_5_vl", model)
    row["position_ids"] = row["position_ids"][1:]
    with trim(model, FastV()), pytest.raises(UnsupportedGenerationError, match="packed into one"):
        model(**row)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_rows_that_are_not_packed(name, attention):
    family, model = FAMILIES[name], shared(name, attention)
    one = family.batch([family.sample(2, 9)])
    padded = family.batch([family.sample(1, 9), family.sample(2, 6, seed=1)])
    with trim(model, FastV()) as run:
        for inputs in (one, padded, family.batch([family.sample(1, 9), family.sample(1, 6)], "right")):
            model(**inputs, use_cache=False)
        # Positions of the caller's, also with a gap, which a cache keeps transformers from taking for a border.
        own = {k: v for k, v in one.items() if k != "attention_mask"}
        positions = positions_of(model, own)
        model(**own, position_ids=positions, use_cache=False)
        later = positions + (torch.arange(positions.shape[-1]) > 2)
        if name != "gemma3":
            # Gemma 3 makes its masks before there is a cache.
            model(**own, position_ids=later, use_cache=True)
        model.generate(**padded, max_new_tokens=2, do_sample=False)
        model.generate(**padded, max_new_tokens=2, do_sample=False, num_beams=2)
    assert len(run.reports) >= 6
