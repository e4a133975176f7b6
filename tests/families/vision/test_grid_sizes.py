"""What is said of such towers without running them, their cost, other sizes of pictures, and what is refused."""

from dataclasses import replace

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from tests.closeness import close
from tests.families.vision.eager_towers import call, observe
from tests.families.vision.known_towers import HANDS
from tests.families.vision.patch_maps import mosaic, square
from tests.families.vision.setting_variants import family, model
from tests.families.vision.test_grid_methods import best, kept_rows
from tests.families.vision.test_grid_towers import Spy, encoded, every_family, samples, some_in_every_run
from tests.families.zoo.family import IMAGE, TEXT, clip, siglip
from tests.tiny import generate, logits
from vistrim import FasterVLM, Pool, Uniform, UnsupportedGenerationError, UnsupportedModelError, VisPruner, trim
from vistrim.architectures.families import images_of
from vistrim.core.costs import vision_flops
from vistrim.engine.inputs.encodings import feature_lengths


@every_family
def test_the_config_is_enough(name):
    known = images_of(model(name))
    with torch.device("meta"):
        empty = transformers.AutoModelForImageTextToText.from_config(family(name).config())
    assert (empty_images := images_of(empty)).tower.feature_block == known.tower.feature_block == HANDS[name].block
    assert empty_images.cost == known.cost
    assert (empty_images.grid, empty_images.tokens, empty_images.pixels) == (known.grid, known.tokens, known.pixels)


@every_family
def test_grid_and_tokens_are_those_of_every_picture(name):
    known, inputs = images_of(model(name)), family(name).batch(samples(name))
    images = [image for modality in HANDS[name].shown(inputs).values() for image in modality]
    pictures = {(image.grids[p], n) for image in images for p, n in enumerate(image.counts)}
    if known.grid is None:
        assert len(pictures) > 1
    else:
        ((grid, tokens),) = pictures
        assert known.tokens == tokens
        # With the class token among its tokens, a picture has a grid that they do not fill.
        assert grid == (known.grid if known.grid[0] * known.grid[1] == tokens else None)
        assert known.pixels == inputs["pixel_values"].shape[-1]


def counted_flops(stock, inputs, modality: str) -> int:
    """FLOPs of an encoding, as torch counts them, without patch embeddings."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call(stock, inputs, modality)
    counts = counter.get_flop_counts()
    counted = sum(flops for kind, flops in counts["Global"].items() if "convolution" not in str(kind))
    # What makes one vector of an image, for other uses of the tower.
    return counted - sum(sum(of.values()) for part, of in counts.items() if part.endswith("Model.head"))


@some_in_every_run
def test_flops_equal_a_count_of_the_matrix_products(name):
    inputs, stock = family(name).batch(samples(name)), model(name, "eager")
    images, total = images_of(stock), 0
    for modality, output, arguments in encoded(name, inputs):
        counted = counted_flops(stock, inputs, modality)
        found = images.shapes(modality, arguments, feature_lengths(output))
        flops = vision_flops(images.cost, [picture for image in found for picture in image.pictures])
        if name == "ovis2":
            # The embeddings of the 5 words that stand around images are multiplied by zeros.
            counted -= 2 * 5 * TEXT["hidden_size"] * sum(feature_lengths(output))
        assert flops == counted
        total += flops
    with trim(model(name), Uniform(0.5)) as run:
        generate(model(name), inputs, 1)
    assert run.report.vision_flops == total > 0


@pytest.mark.parametrize("name", ["internvl", "idefics3", "smolvlm"])
def test_pictures_of_another_size_than_the_config_s(name):
    """8 x 8 patches where the config says 6 x 6: 16 tokens each."""
    hand, tiles, side = HANDS[name], 3, 32
    ids = torch.tensor([[1, 3, 4, *[IMAGE] * (16 * tiles), 5, 6, 7]])
    pixels = torch.randn(tiles, 3, side, side, generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    inputs["pixel_values"] = pixels if name == "internvl" else pixels[None]
    larger = replace(hand, shown=lambda media: {"image": [square(8, 2, before=int(hand.has_cls))] * tiles})
    seen = observe(larger, model(name, "eager"), inputs)
    with trim(model(name), FasterVLM(0.5, positions="original")) as run:
        generate(model(name), inputs, 1)
    (pictures,) = seen.batch(ids.tolist())
    assert [place.grid for place in pictures] == [(4, 4)] * tiles
    assert [3 + i for i in run.report.stages[0].kept[0]] == kept_rows(seen, pictures, best(0.5))
    with trim(model(name), Pool(0.25)) as run:
        generate(model(name), inputs, 1)
    assert run.report.visual_tokens_per_layer[0] == [4 * tiles]
    assert run.report.vision_flops == counted_flops(model(name, "eager"), inputs, "image")


@pytest.mark.parametrize("name", ["idefics3", "smolvlm"])
def test_padding_of_a_picture_asks_for_nothing(name):
    """Rows of the attention at patches that are only padding do not count, and such patches receive nothing."""
    of, stock = family(name), model(name, "eager")
    inputs = of.batch([of.sample(2, 9, seed=1), of.sample(1, 6)])
    inputs["pixel_attention_mask"][0, 0, 16:] = 0
    inputs["pixel_attention_mask"][0, 1, :, 10:] = 0
    weights = []
    attention = stock.base_model.vision_model.encoder.layers[1].self_attn
    handle = attention.register_forward_hook(lambda module, args, output: weights.append(output[1]))
    with torch.no_grad():
        call(stock, inputs, "image")
    handle.remove()
    real = torch.ones(len(weights[0]), 6, 6, dtype=torch.bool)
    real[0, 4:] = False
    # The third column of patches, of which a half is padding, is seen.
    real[1, :, 3:] = False
    expected = []
    for picture, rows in zip(weights[0].mean(1), real.flatten(1), strict=True):
        expected.append(square(6, 2).of(picture[rows].mean(0)))
        assert (picture[rows].mean(0)[~rows] == 0).all()
    Spy.saw.clear()
    with trim(model(name), Spy()):
        generate(model(name), inputs, 1)
    vision = Spy.saw[0].vision
    assert close(vision.attention[1], torch.cat(expected))


def test_an_image_of_which_only_newlines_are_left():
    """120 pixels high and one wide: no patch is left of its two tiles, but a newline for each of three rows."""
    stock = model("llava_next")
    ids = torch.tensor([[1, 3, 4, *[IMAGE] * (9 + 3), 5, 6, 7]])
    pixels = torch.randn(1, 3, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}
    inputs["image_sizes"] = torch.tensor([[120, 1]])
    for method in (FasterVLM(10, positions="original"), Uniform(10)):
        with trim(stock, method) as run:
            generate(stock, inputs, 1)
        assert run.report.visual_tokens_per_layer[0] == [10]
    with trim(stock, Pool(4)), pytest.raises(ValueError, match="uniform or random"):
        generate(stock, inputs, 1)


@pytest.mark.parametrize(("most", "shrunk"), [(1, (2, 4)), (2, None), (9, None)])
def test_onevision_shrinks_by_what_the_call_says(most, shrunk):
    """3 x 6 patches are twice the 9 of one tile: then both sides are divided by the root of 2, and rounded down."""
    inputs = {"pixel_values": torch.randn(1, 3, 3, 12, 12), "image_sizes": torch.tensor([[12, 24]])}
    inputs |= {"vision_aspect_ratio": f"anyres_max_{most}", "batch_num_images": torch.tensor([1])}
    expected = mosaic((1, 2), range(3), range(6), side=3, shrunk=shrunk)
    stock = model("llava_onevision")
    with torch.no_grad():
        lengths = feature_lengths(call(stock, inputs, "image"))
    (found,) = images_of(stock).shapes("image", inputs, lengths)
    assert lengths == [found.tokens] == [len(expected.owner)]
    assert found.picture_of.tolist() == list(expected.owner)
    assert tuple(picture.grid for picture in found.pictures) == expected.grids
    ones = torch.eye(27).unflatten(0, (3, 9))
    arranged = images_of(stock).tower.arrange([ones], "image", inputs)
    assert close(arranged, expected.weights)


@pytest.mark.parametrize("name", ["llava_onevision", "llava_next_video", "gemma3", "internvl"])
def test_half_precision(name):
    of, stock = family(name), family(name).build().to(torch.bfloat16)
    inputs = of.batch([of.sample(1, 9), of.sample(0, 5, seed=3, videos=int(of.has_video))])
    inputs |= {n: value.bfloat16() for n, value in inputs.items() if n.startswith("pixel_values")}
    with trim(stock, VisPruner(0.5, positions="original")) as run:
        output = generate(stock, inputs, 2)
    assert logits(output).isfinite().all()
    assert 0 < run.report.visual_tokens_per_layer[0][0] < run.report.visual_tokens[0]


@some_in_every_run
def test_features_made_elsewhere_are_still_dealt_to_prompts(name):
    """Without its size, an image of several tiles is one picture; the tower cannot be read any more."""
    of, stock = family(name), model(name)
    inputs = of.batch([of.sample(2, 14, seed=1), of.sample(0, 20, seed=2), of.sample(1, 9)])
    images = HANDS[name].shown(inputs)["image"]
    rest = {n: value for n, value in inputs.items() if n in ("input_ids", "attention_mask", "token_type_ids")}
    with torch.no_grad():
        rest["mm_encoder_outputs"] = {"image": call(stock, inputs, "image")}
        with trim(stock, Uniform(4)) as run:
            stock(**rest)
        kept = run.report.visual_tokens_per_layer[0]
        assert kept[1] == 0
        assert sum(kept) == sum(min(4, len(image.owner)) for image in images)
        with trim(stock, FasterVLM(4)), pytest.raises(UnsupportedGenerationError, match="pixel_values"):
            stock(**rest)


@pytest.mark.parametrize("name", ["idefics2", "got_ocr2", "fast_vlm", "deepseek_vl_hybrid"])
def test_towers_without_a_patch_for_each_token_are_refused(name):
    of, stock = family(name), model(name)
    with pytest.raises(UnsupportedModelError, match="fastv"), trim(stock, FasterVLM(4)):
        pass
    prompts = [of.sample(1, 9), of.sample(2, 14, seed=1), of.sample(0, 20, seed=2)]
    inputs = of.batch(prompts)
    per_picture = {"idefics2": 7, "got_ocr2": 4, "fast_vlm": 16, "deepseek_vl_hybrid": 16}[name]
    with trim(stock, Uniform(3)) as run:
        generate(stock, inputs, 1)
    assert run.report.visual_tokens_per_layer[0] == [3 * prompt.visual // per_picture for prompt in prompts]
    assert run.report.vision_flops is None


LLAVAS = [transformers.LlavaConfig, transformers.LlavaNextConfig, transformers.LlavaOnevisionConfig]
LLAVAS += [transformers.LlavaNextVideoConfig, transformers.VideoLlavaConfig, transformers.VipLlavaConfig]
OTHERS = [transformers.InternVLConfig, transformers.AyaVisionConfig, transformers.Cohere2VisionConfig]
OTHERS += [transformers.Gemma3Config, transformers.PaliGemmaConfig, transformers.DeepseekVLConfig]


@pytest.mark.parametrize("config_class", [*LLAVAS, *OTHERS], ids=lambda c: c.__name__)
def test_an_unknown_tower_is_no_error(config_class):
    vision = {**clip(), "model_type": "dinov2"}
    decoders = {"Gemma3Config": "gemma3_text", "PaliGemmaConfig": "gemma"}
    text = {**TEXT, "model_type": decoders.get(config_class.__name__, "llama")}
    with torch.device("meta"):
        config = config_class(vision_config=vision, text_config=text)
        config.vision_config.projection_dim = 32
        unknown = transformers.AutoModelForImageTextToText.from_config(config)
    images = images_of(unknown)
    assert images.tower is None
    assert images.cost is None
    assert [image.tokens for image in images.shapes("image", {}, [7, 5])] == [7, 5]


@pytest.mark.parametrize("config_class", LLAVAS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("layer", [-9, 9, []])
def test_a_layer_that_the_tower_does_not_have_is_no_error(config_class, layer):
    with torch.device("meta"):
        config = config_class(vision_config=siglip(), text_config={**TEXT, "model_type": "llama"})
        model = transformers.AutoModelForImageTextToText.from_config(config)
    model.config.vision_feature_layer = layer
    assert images_of(model).tower is None


@pytest.mark.parametrize("name", ["llava_next", "llava_onevision", "video_llava", "internvl", "aya_vision"])
def test_another_feature_layer_in_a_call_is_refused(name):
    of = family(name)
    inputs = of.batch([of.sample(1, 9)])
    with trim(model(name), FasterVLM(4)), pytest.raises(UnsupportedGenerationError, match="vision_feature_layer"):
        generate(model(name), {**inputs, "vision_feature_layer": 1}, 1)
