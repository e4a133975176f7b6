"""Features of images that are inside `inputs_embeds` already."""

import pytest
import torch

from tests import tiny
from tests.families.zoo import FAMILIES, shared
from vistrim import PVTP, ST3, FastV, Uniform, UnsupportedGenerationError, VisPruner, trim

NAMES = ("llava", "qwen2_5_vl", "qwen3_vl", "llava_next", "internvl")


def merge(model, inputs):
    """What the decoder is given instead of ids and images."""
    found = []
    take = lambda module, args, kwargs: found.append(kwargs["inputs_embeds"])  # noqa: E731
    handle = model.get_decoder().register_forward_pre_hook(take, with_kwargs=True)
    with torch.no_grad():
        model(**inputs)
    handle.remove()
    return {"inputs_embeds": found[0], "attention_mask": inputs["attention_mask"]}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("method", [FastV(), Uniform(0.5), ST3(1, 2, 0.5)], ids=str)
def test_trimmed_like_pixels_where_ids_are_given_along(method, attention):
    model, inputs = tiny.shared(attention=attention), tiny.batch(tiny.RAGGED)
    merged = merge(model, inputs)
    with trim(model, method, trace=True) as run:
        for beams in (1, 2):
            expected = tiny.generate(model, inputs, 4, num_beams=beams)
            found = tiny.generate(model, merged | {"input_ids": inputs["input_ids"]}, 4, num_beams=beams)
            wanted, got = run.reports[-2:]
            assert torch.equal(found.sequences, expected.sequences)
            assert got.stages == wanted.stages
            assert got.trace == wanted.trace
            assert got.visual_tokens_per_layer == wanted.visual_tokens_per_layer
            assert got.warnings == wanted.warnings


@pytest.mark.parametrize("name", NAMES)
def test_families(name):
    family, model = FAMILIES[name], shared(name)
    inputs = family.batch([family.sample(2, 9)])
    merged = merge(model, inputs)
    with trim(model, PVTP(1, 2, 0.5)) as run:
        model.generate(**inputs, max_new_tokens=2, do_sample=False)
        model.generate(**merged, input_ids=inputs["input_ids"], max_new_tokens=2, do_sample=False)
    pixels, embeddings = run.reports
    assert embeddings.visual_tokens == pixels.visual_tokens
    assert embeddings.visual_tokens_per_layer == pixels.visual_tokens_per_layer
    assert embeddings.prefill_flops < embeddings.prefill_flops_full


def test_without_ids_it_is_said_that_nothing_could_be_told():
    model, inputs = tiny.shared(), tiny.batch([tiny.sample(1, 9)])
    merged = merge(model, inputs)
    text = {"inputs_embeds": model.get_input_embeddings()(torch.tensor([[5, 6, 7, 8]])).detach()}
    with torch.no_grad(), trim(model, FastV()) as run:
        tiny.generate(model, merged, 2)
        model(**merged)
        # Of text alone it is as true, and it does not claim that there was an image.
        tiny.generate(model, text, 2)
        # Ids of other tokens than those of the embeddings tell nothing either.
        tiny.generate(model, merged | {"input_ids": torch.tensor([[5, 6]])}, 2)
    for report in run.reports:
        assert report.visual_tokens == [0]
        (warning,) = report.warnings
        assert "if it has images, pass `input_ids` with `pixel_values`" in warning


def test_ids_of_text_alone_say_that_there_is_nothing_to_trim():
    model, ids = tiny.shared(), torch.tensor([[5, 6, 7, 8]])
    embeddings = model.get_input_embeddings()(ids).detach()
    with torch.no_grad(), trim(model, FastV()) as run:
        model.generate(input_ids=ids, inputs_embeds=embeddings, max_new_tokens=2, do_sample=False)
        model.generate(input_ids=ids, max_new_tokens=2, do_sample=False)
    assert [report.warnings for report in run.reports] == [
        ["no visual tokens in the prompt: there was nothing to trim"]
    ] * 2


def test_embeddings_with_pixels_are_trimmed_as_before():
    model, sample = tiny.shared(), tiny.sample(1, 9)
    embeddings = model.get_input_embeddings()(torch.tensor([sample.ids])).detach()
    with torch.no_grad(), trim(model, FastV()) as run:
        model.generate(inputs_embeds=embeddings, pixel_values=sample.pixels, max_new_tokens=2, do_sample=False)
    assert run.report.visual_tokens == [16]


def test_methods_that_read_the_tower_name_the_way_out():
    model, inputs = tiny.shared(), tiny.batch([tiny.sample(1, 9)])
    merged = merge(model, inputs)
    with trim(model, VisPruner(0.5)), pytest.raises(UnsupportedGenerationError, match="pass `pixel_values`"):
        model.generate(**merged, input_ids=inputs["input_ids"], max_new_tokens=2)
