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
    pictures = shape.family.show(visual)
    config = shape.config(2, 64, pictures, 100)
    image = getattr(config, "image_token_id", None) or config.image_token_index
    return make_inputs(config, shape.family, pictures, batch, text, device), image


@pytest.mark.parametrize("text", [2, 7, 64])
@pytest.mark.parametrize("name", SHAPES)
def test_prompts_have_exactly_the_tokens_asked_for(name, text):
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
    ("name", "tokens", "count", "size"),
    [
        ("llava-1.5-7b", 576, 1, (336, 336)),
        ("llava-1.5-7b", 1152, 2, (336, 336)),
        ("llava-1.5-7b", 2304, 4, (336, 336)),
        ("llava-1.5-7b", 144, 1, (168, 168)),
        ("llava-next-7b", 2928, 5, (672, 672)),
        ("llava-next-7b", 2376, 4, (1008, 336)),
        ("qwen2.5-vl-7b", 999, 1, (27 * 28, 37 * 28)),
        ("qwen2.5-vl-7b", 7, 1, (28, 7 * 28)),
        ("internvl3-8b", 3328, 13, (448, 448)),
        ("smolvlm-2b", 81, 1, (384, 384)),
    ],
)
def test_pictures_that_make_the_tokens(name, tokens, count, size):
    pictures = SHAPES[name].family.show(tokens)
    assert (pictures.tokens, pictures.count, (pictures.height, pictures.width)) == (tokens, count, size)


@pytest.mark.parametrize(
    ("name", "tokens", "nearest"),
    [
        ("llava-1.5-7b", 600, "use 576 or 625"),
        ("llava-1.5-7b", 1140, "use 1089 or 1152"),
        ("llava-1.5-7b", 2, "use 1 or 4"),
        ("llava-next-7b", 2880, "use 2376 or 2928"),
        ("llava-next-7b", 5000, "use 2928$"),
        ("qwen2.5-vl-7b", 997, "use 996 or 999"),
        ("internvl3-8b", 100, "use 256$"),
        ("internvl3-8b", 600, "use 512 or 768"),
        ("smolvlm-2b", 100, "use 81 or 162"),
    ],
)
def test_impossible_numbers_name_the_nearest(name, tokens, nearest):
    with pytest.raises(BenchmarkError, match=nearest):
        make_subject(small(name, visual_tokens=tokens))


@pytest.mark.parametrize("name", SHAPES)
def test_named_numbers_are_possible(name):
    family = SHAPES[name].family
    for tokens in (3, 333, 2881):
        try:
            family.show(tokens)
        except BenchmarkError as error:
            named = str(error).rsplit("use ", 1)[1].split(" or ")
            assert [family.show(int(n)).tokens for n in named] == [int(n) for n in named]


def test_a_prompt_needs_words():
    with pytest.raises(BenchmarkError, match="at least 2 text tokens"):
        make_subject(small(text_tokens=1))


@pytest.mark.parametrize("name", ["batch", "new_tokens", "layers", "distinct_layers", "visual_tokens"])
def test_numbers_below_one_are_refused(name):
    with pytest.raises(BenchmarkError, match=f"{name.replace('_', ' ')} must be at least 1"):
        make_subject(small(**{name: 0}))


def test_the_subject_says_what_it_is():
    subject = make_subject(small("llava-next-7b", batch=2, new_tokens=5))
    assert subject.settings == {
        "model": "llava-next-7b",
        "layers": 2,
        "hidden": 64,
        "distinct_layers": 2,
        "batch": 2,
        "visual_tokens": 1752,
        "text_tokens": 20,
        "new_tokens": 5,
        "shape_of": "llava-hf/llava-v1.6-vicuna-7b-hf",
        "pictures": "1 of 336 x 672 pixels: 3 tiles = 1728 patches, and 24 newlines",
        "dtype": "float32",
        "attn": "sdpa",
        "device": "cpu",
    }
