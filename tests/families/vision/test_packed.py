"""Packed towers: what becomes of patches, what methods get to see of them, and what they keep."""

from dataclasses import dataclass, field

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tests.closeness import close
from tests.covering import covering
from tests.families.depth import WHOLE, slow_beside
from tests.families.masked_reference import MaskedReference
from tests.families.test_masked_reference import follow
from tests.families.vision.packed_reference import TOWERS, Encoded, batches, encoded, pictures, visual_tokens
from tests.families.zoo import FAMILIES, shared
from tests.methods.training_free_rules import VisPruner as VisPrunerRule
from tests.methods.training_free_rules import budget, top
from tests.tiny import generate, logits
from vistrim import VTCCLS, FasterVLM, Uniform, VisPruner, trim
from vistrim.architectures import discover
from vistrim.methods.base.per_image import PerImage

LESS_EXACT = {"hunyuan_vl": 1e-3}
"""Where stock batches differ from their samples by more than that: 4e-4."""
every_tower = pytest.mark.parametrize("name", TOWERS)
some_in_every_run = pytest.mark.parametrize("name", slow_beside(WHOLE, TOWERS))


@dataclass(frozen=True)
class Look(PerImage):
    """Keeps all, and what it was shown."""

    name, summary, source = "look", "", ""
    reads_vision = True
    shown: list = field(default_factory=list)

    def vision_blocks(self, feature_block):
        return tuple(range(feature_block + 1))

    def choose(self, image):
        raise NotImplementedError

    def select_input(self, tokens):
        self.shown.append(tokens)


def looked(name, samples, attention, **options):
    """What a method is shown."""
    method, family = Look(), FAMILIES[name]
    with trim(shared(name, attention), method):
        generate(shared(name, attention), family.batch(samples), 1, **options)
    return method.shown[0]


def equal(a, b):
    return close(a, b)


@covering(1)
@some_in_every_run
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_methods_see_what_the_untouched_tower_computes(name, attention):
    for at, samples in enumerate(batches(name)):
        found, tokens = encoded(name, at), looked(name, samples, attention)
        for b, visual in enumerate(visual_tokens(name, samples)):
            source = tokens.vision.source[b][tokens.vision.source[b] >= 0]
            assert len(source) == len(visual) == sum(tokens.images[b])
            for block, received in tokens.vision.attention.items():
                expected = torch.tensor([found[m].received[block][i] for m, i in visual])
                assert equal(received[source], expected)
            if visual:
                expected = torch.stack([found[m].features[i] for m, i in visual])
                assert equal(tokens.vision.features[source], expected)


@some_in_every_run
def test_pictures_are_images_and_frames_with_their_grids(name):
    for at, samples in enumerate(batches(name)):
        found, tokens = encoded(name, at), looked(name, samples, "sdpa")
        for b, visual in enumerate(visual_tokens(name, samples)):
            # To the package, images come before videos.
            places = sorted(pictures(found, visual), key=lambda own: visual[own[0]])
            assert tokens.images[b] == tuple(map(len, places))
            numbers = tokens.image_of[b][tokens.visual[b]].tolist()
            assert numbers == [next(i for i, own in enumerate(places) if p in own) for p in range(len(visual))]
            for own, grid in zip(places, tokens.grids[b], strict=True):
                modality, number = visual[own[0]]
                rows, columns = found[modality].grids[found[modality].picture[number]]
                assert grid == ((rows, columns) if len(own) == rows * columns else None)


def kernel_for_packed_sequences(module, query, key, value, attention_mask, scaling, **kwargs):
    """As flash attention does it: without a mask, told where the pictures end (or, for one picture, nothing)."""
    assert attention_mask is None
    ends = kwargs.get("cu_seq_lens_q")
    sizes = [query.shape[2]] if ends is None else ends.diff().tolist()
    pieces = zip(*(x.split(sizes, 2) for x in (query, key, value)), strict=True)
    output = [scaled_dot_product_attention(*piece, scale=scaling, enable_gqa=True) for piece in pieces]
    return torch.cat(output, 2).transpose(1, 2), None


@pytest.mark.parametrize("name", ["qwen2_5_vl", "mistral3", "llava-pixtral"])
def test_kernels_that_take_all_pictures_at_once_are_read_picture_by_picture(name, monkeypatch):
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "flash_in_tests", kernel_for_packed_sequences)
    model = FAMILIES[name].build()
    model.config.vision_config._attn_implementation_internal = "flash_in_tests"
    first = model.base_model.get_submodule(TOWERS[name].blocks)[0]
    assert getattr(first, TOWERS[name].attention).config is model.config.vision_config
    for at, samples in enumerate(batches(name)):
        found, method = encoded(name, at), Look()
        with trim(model, method):
            generate(model, FAMILIES[name].batch(samples), 1)
        tokens = method.shown[0]
        for b, visual in enumerate(visual_tokens(name, samples)):
            source = tokens.vision.source[b][tokens.vision.source[b] >= 0]
            for block, received in tokens.vision.attention.items():
                assert equal(received[source], torch.tensor([found[m].received[block][i] for m, i in visual]))


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl", "glm4v", "mistral3", "hunyuan_vl"])
def test_beams_see_the_images_of_their_sample(name):
    # transformers itself does not repeat the videos of GLM.
    samples = batches(name)[0 if name == "glm4v" else -1]
    plain, beams = looked(name, samples, "sdpa"), looked(name, samples, "sdpa", num_beams=3)
    for b in range(len(samples)):
        for copy in range(3):
            assert torch.equal(plain.vision.source[b], beams.vision.source[3 * b + copy])
            assert plain.images[b] == beams.images[3 * b + copy]
    for block, received in plain.vision.attention.items():
        assert equal(received, beams.vision.attention[block])


@dataclass
class OnePicture:
    """What the rules want to know of an image."""

    n: int
    block: int
    received: list[torch.Tensor]
    features: torch.Tensor

    def attention(self, image: int, block: int) -> torch.Tensor:
        return self.received[block]


def faster_vlm(seen: OnePicture) -> list[int]:
    return top(seen.received[-1], budget(0.5, seen.n))


def vtc_cls(seen: OnePicture) -> list[int]:
    return top(sum(seen.received), budget(3, seen.n))


def vis_pruner(seen: OnePicture) -> list[int]:
    return VisPrunerRule(0.75, 0.5).choose(seen, 0)


def uniform(seen: OnePicture) -> list[int]:
    kept = budget(0.5, seen.n)
    return [int((i + 0.5) * seen.n / kept) for i in range(kept)]


METHODS = {
    "fastervlm": (FasterVLM(0.5, "original"), faster_vlm),
    "vtc-cls": (VTCCLS(3, 0, "original"), vtc_cls),
    "vispruner": (VisPruner(0.75, 0.5, "original"), vis_pruner),
    "uniform": (Uniform(0.5), uniform),
}


DIFFERENT = (
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "glm4v",
    "mistral3",
    "llava-pixtral",
    "paddleocr_vl",
    "video_llama_3",
    "hunyuan_vl",
)
"""One of each kind of tower."""


def kept_by_rule(rule, found: dict[str, Encoded], visual) -> set[int]:
    """Places of a sample's visual tokens that stay."""
    kept = set()
    for own in pictures(found, visual):
        tokens = [visual[place] for place in own]
        received = [
            torch.stack([found[m].received[block][i] for m, i in tokens]).nan_to_num(nan=-torch.inf)
            for block in range(len(found[tokens[0][0]].received))
        ]
        features = torch.stack([found[m].features[i] for m, i in tokens])
        # What shows nothing goes first, and takes no part in likeness.
        shows = [i for i, score in enumerate(received[-1].tolist()) if score > -torch.inf]
        if rule is vis_pruner and len(shows) < len(own):
            kept |= {own[i] for i in _among(rule, received, features, shows, len(own))}
        else:
            seen = OnePicture(len(own), len(received) - 1, received, features[None])
            kept |= {own[i] for i in rule(seen)}
    return kept


def _among(rule, received, features, shows, n):
    """The rule on tokens that show something, with the budget of all."""
    wanted = budget(0.75, n)
    if wanted >= len(shows):
        return shows + [i for i in range(n) if i not in shows][: wanted - len(shows)]
    few = OnePicture(len(shows), len(received) - 1, [r[shows] for r in received], features[None, shows])
    return [shows[i] for i in VisPrunerRule(wanted, 0.5).choose(few, 0)]


@covering(1)
@pytest.mark.parametrize(
    ("name", "method"),
    slow_beside(
        WHOLE, [(name, method) for name in TOWERS for method in METHODS if method == "fastervlm" or name in DIFFERENT]
    ),
)
def test_methods_keep_what_their_rule_says_of_each_picture(name, method):
    """And the answer is that of the stock model in which the others are hidden."""
    family, model, (trimmer, rule) = FAMILIES[name], shared(name), METHODS[method]
    for at, samples in enumerate(batches(name)):
        inputs, found = family.batch(samples), encoded(name, at)
        with trim(model, trimmer) as run:
            output = generate(model, inputs, 2)
        kept = run.report.stages[0].kept
        for b, (sample, visual) in enumerate(zip(samples, visual_tokens(name, samples), strict=True)):
            expected = kept_by_rule(rule, found, visual)
            assert set(kept[b]) == expected
            assert len(expected) < len(visual) or not visual
            reference = MaskedReference(
                family,
                shared(name, "eager"),
                enters=lambda features, rows, stay=expected: [int(rows[i]) for i in stay],
            )
            answer = output.sequences[b, inputs["input_ids"].shape[1] :].tolist()
            assert close(logits(output)[b], follow(reference, answer, sample), LESS_EXACT.get(name))
            assert [layer[b] for layer in run.report.kv_tokens_per_layer] == reference.kv_lengths()


@some_in_every_run
def test_keeping_everything_changes_no_bit(name):
    family, model = FAMILIES[name], shared(name)
    for samples in batches(name):
        inputs = family.batch(samples)
        untouched = generate(model, inputs, 3)
        for method in (FasterVLM(1.0, "original"), Uniform(999)):
            with trim(model, method):
                output = generate(model, inputs, 3)
            assert torch.equal(logits(untouched), logits(output))


@every_tower
def test_a_model_without_weights_is_taken_apart(name):
    """On the meta device, by its config alone."""
    import transformers

    with torch.device("meta"):
        model = transformers.AutoModelForImageTextToText.from_config(FAMILIES[name].config())
    images = discover(model).images
    assert images.tower is not None
    assert len(images.tower.blocks) == len(images.tower.attentions) == images.tower.feature_block + 1
    unknown = images.shapes("image", {}, [7, 5])
    assert [shape.tokens for shape in unknown] == [7, 5]
