import pytest
import torch

from tests.benchmark.small_shapes import VISUAL, small
from vistrim.benchmark.inputs import make_inputs
from vistrim.benchmark.making import make_subject
from vistrim.benchmark.shapes import SHAPES
from vistrim.errors import BenchmarkError

CPU = torch.device("cpu")


def inputs_of(name, visual, text=20, batch=2, device=CPU):
    shape = SHAPES[name]
    config = shape.config(2, 64, 100)
    image = getattr(config, "image_token_id", None) or config.image_token_index
    return make_inputs(config, shape.images, shape.images.count(visual), batch, text, device), image


@pytest.mark.parametrize("text", [2, 7, 64])
@pytest.mark.parametrize("name", SHAPES)
def test_prompts_have_exactly_the_requested_tokens(name, text):
    inputs, image = inputs_of(name, VISUAL[name], text)
    ids = inputs["input_ids"]
    visual = ids == image
    assert visual.sum(1).tolist() == [VISUAL[name]] * 2
    assert (~visual).sum(1).tolist() == [text] * 2
    assert (inputs["attention_mask"] == 1).all()
    assert inputs["attention_mask"].shape == ids.shape
    assert ids[0].equal(ids[1])
    first, last = visual[0].nonzero()[0].item(), visual[0].nonzero()[-1].item()
    assert 0 < first <= ids.shape[1] - 1 - last


@pytest.mark.parametrize("name", SHAPES)
def test_samples_differ_in_pixels_and_are_the_same_every_time(name):
    inputs, _ = inputs_of(name, VISUAL[name])
    again, _ = inputs_of(name, VISUAL[name])
    one, other = inputs["pixel_values"].chunk(2)
    assert not one.equal(other)
    assert all(tensor.equal(again[key]) for key, tensor in inputs.items())


@pytest.mark.parametrize("name", SHAPES)
def test_prompts_without_storage_have_the_same_sizes(name):
    real, _ = inputs_of(name, VISUAL[name])
    empty, _ = inputs_of(name, VISUAL[name], device=torch.device("meta"))
    assert {key: (t.shape, t.dtype) for key, t in real.items()} == {key: (t.shape, t.dtype) for key, t in empty.items()}
    assert all(tensor.device.type == "meta" for tensor in empty.values())


@pytest.mark.parametrize(
    ("name", "tokens", "sizes"),
    [
        ("llava-1.5-7b", None, (2, 3, 336, 336)),
        ("llava-1.5-7b", 2304, (8, 3, 336, 336)),
        ("llava-next-7b", None, (2, 5, 3, 336, 336)),
        ("llava-next-7b", 5856, (4, 5, 3, 336, 336)),
        ("qwen2.5-vl-7b", None, (2 * 54 * 74, 1176)),
        ("internvl3-8b", None, (26, 3, 448, 448)),
        ("internvl3-8b", 1280, (10, 3, 448, 448)),
        ("smolvlm-2b", 405, (2, 5, 3, 384, 384)),
    ],
)
def test_images_that_make_the_tokens(name, tokens, sizes):
    images = SHAPES[name].images
    assert images.inputs(images.count(tokens), 2, torch.zeros)["pixel_values"].shape == sizes


@pytest.mark.parametrize(
    ("name", "tokens", "nearest"),
    [
        ("llava-1.5-7b", 600, "use 576 or 1152"),
        ("llava-next-7b", 100, "use 2928$"),
        ("qwen2.5-vl-7b", 997, "use 999$"),
        ("internvl3-8b", 600, "use 512 or 768"),
        ("smolvlm-2b", 100, "use 81 or 162"),
    ],
)
def test_impossible_numbers_name_the_nearest(name, tokens, nearest):
    with pytest.raises(BenchmarkError, match=nearest):
        make_subject(small(name, visual_tokens=tokens))


def test_a_prompt_needs_words():
    with pytest.raises(BenchmarkError, match="at least 2 text tokens"):
        make_subject(small(text_tokens=1))


@pytest.mark.parametrize("name", ["batch", "new_tokens", "layers", "distinct_layers", "visual_tokens"])
def test_numbers_below_one_are_refused(name):
    with pytest.raises(BenchmarkError, match=f"{name.replace('_', ' ')} must be at least 1"):
        make_subject(small(**{name: 0}))


def test_the_description_of_the_subject():
    subject = make_subject(small("llava-next-7b", batch=2, new_tokens=5))
    assert subject.settings == {
        "model": "llava-next-7b",
        "layers": 2,
        "hidden": 64,
        "distinct_layers": 2,
        "batch": 2,
        "visual_tokens": 2928,
        "text_tokens": 20,
        "new_tokens": 5,
        "shape_of": "llava-hf/llava-v1.6-vicuna-7b-hf",
        "images": "1 of 672 x 672 pixels",
        "dtype": "float32",
        "attn": "sdpa",
        "device": "cpu",
    }
