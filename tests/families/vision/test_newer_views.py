"""Tower data for the newer selectors agree with the decoder's inputs in each family, and budgets are kept."""

import pytest
import torch

from tests.closeness import close
from tests.families.matrix import prompts
from tests.families.zoo import FAMILIES, shared
from tests.tiny import generate, logits
from vistrim import DART, CDPruner, DivPrune, Downsample, UnsupportedModelError, VisionZip, trim
from vistrim.methods.base.per_image import PerImage

PROJECTED = (
    "llava",
    "llava_next",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("llava_next_video", "video_llava")),
)


@pytest.mark.parametrize("name", PROJECTED)
def test_the_projector_makes_embeddings_of_features(name, monkeypatch):
    seen = []
    select = PerImage.select_input
    monkeypatch.setattr(
        PerImage, "select_input", lambda method, tokens: (seen.append(tokens), select(method, tokens))[1]
    )
    model = shared(name)
    with trim(model, VisionZip(3, 2)):
        generate(model, FAMILIES[name].batch(prompts(name)[:2]), 1)
    (tokens,) = seen
    vision = tokens.vision
    patches = tokens.visual & (vision.source >= 0)
    rows = vision.source[patches]
    kept = ~vision.features[rows].isnan().any(1)
    made = vision.project(vision.features[rows][kept])
    assert close(made, tokens.embeddings[patches][kept])
    # Queries and keys are of the same tokens; the class token is that of their picture.
    (keys,) = vision.keys.values()
    assert torch.equal(keys[rows].isnan().any(1), ~kept)
    if name != "llava":
        return
    assert vision.class_states[rows].unique(dim=0).shape[0] == 3


@pytest.mark.parametrize("name", [pytest.param("qwen2_5_vl", marks=pytest.mark.slow), "qwen3_vl"])
def test_a_sample_alone_equals_the_same_in_a_batch_under_mrope(name):
    """Also with replaced tokens, and features between layers."""
    model, samples = shared(name), prompts(name)
    for method in (
        VisionZip(0.3, 0.2, positions="original"),
        CDPruner(0.4, center=True, positions="original"),
        DART(0.6, 1, 1, 1),
    ):
        with trim(model, method) as run:
            together = generate(model, FAMILIES[name].batch(samples), 2)
            counts = run.report.visual_tokens_per_layer
            for b, sample in enumerate(samples):
                alone = generate(model, FAMILIES[name].batch([sample]), 2)
                assert close(logits(together)[b], logits(alone)[0])
                assert [layer[b] for layer in counts] == [layer[0] for layer in run.report.visual_tokens_per_layer]


def test_numbers_count_per_tile_per_image_or_per_image_of_a_prompt():
    """One image of five tiles, and two images."""
    name = "llava_next"
    model, samples = shared(name), prompts(name)[:2]
    left = {}
    for over in ("tile", "image", "prompt"):
        with trim(model, DivPrune(3, over=over)) as run:
            generate(model, FAMILIES[name].batch(samples), 1)
        left[over] = run.report.visual_tokens_per_layer[0]
    assert left["image"] == left["prompt"] == [3, 6]
    assert left["tile"][1] > 6


def test_downsample_names_the_processor_where_it_chooses_the_grid():
    for name, option in (("qwen2_5_vl", "max_pixels"), ("llava_next", "image_grid_pinpoints")):
        with pytest.raises(UnsupportedModelError, match=f"ask its processor for smaller images .*{option}"):
            trim(shared(name), Downsample(0.25))
