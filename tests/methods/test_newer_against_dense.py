"""The newer selectors equal an independent computation with the removed tokens physically gone."""

import pytest
import torch

from tests import tiny
from tests.closeness import close
from tests.methods import newer_rules
from tests.methods.dense_reference import ORIGINAL, RENUMBER
from tests.methods.prompts import TEXT_BETWEEN, TEXT_ONLY
from tests.methods.test_against_dense import run, two_turns
from vistrim import DART, SCOPE, Blind, CDPruner, DivPrune, Downsample, HoloV, VisionZip, VScan, trim

CASES = {
    "divprune": (DivPrune(5), newer_rules.DivPrune(5)),
    "divprune-prompt": (DivPrune(5, over="prompt"), newer_rules.DivPrune(5, over="prompt")),
    "divprune-center": (
        DivPrune(0.4, center=True, positions=ORIGINAL),
        newer_rules.DivPrune(0.4, center=True, positions=ORIGINAL),
    ),
    "scope": (SCOPE(6), newer_rules.SCOPE(6)),
    "scope-cover": (
        SCOPE(0.5, alpha=0.0, over="prompt", positions=ORIGINAL),
        newer_rules.SCOPE(0.5, alpha=0.0, over="prompt", positions=ORIGINAL),
    ),
    "holov": (HoloV(7, crops=5), newer_rules.HoloV(7, crops=5)),
    "holov-overflow": (HoloV(14, crops=3, over="prompt"), newer_rules.HoloV(14, crops=3, over="prompt")),
    "cdpruner": (CDPruner(5), newer_rules.CDPruner(5)),
    "cdpruner-center": (
        CDPruner(4, center=True, positions=ORIGINAL),
        newer_rules.CDPruner(4, center=True, positions=ORIGINAL),
    ),
    "visionzip": (VisionZip(5, 3), newer_rules.VisionZip(5, 3)),
    "visionzip-original": (
        VisionZip(4, 4, positions=ORIGINAL),
        newer_rules.VisionZip(4, 4, positions=ORIGINAL),
    ),
    "visionzip-dominant": (VisionZip(6, 0), newer_rules.VisionZip(6, 0)),
    "dart": (DART(9, 2, 2, 2), newer_rules.DART(9, 2, (2, 2))),
    "dart-image": (DART(10, 1, 3, 0, RENUMBER), newer_rules.DART(10, 1, (3, 0), positions=RENUMBER)),
    "vscan": (VScan(8, None, 4), newer_rules.VScan(8, 3, 4)),
    "vscan-original": (VScan(6, 2, 3, ORIGINAL), newer_rules.VScan(6, 2, 3, positions=ORIGINAL)),
}
SAMPLES = [*tiny.RAGGED[:2], TEXT_BETWEEN, TEXT_ONLY]


@pytest.mark.parametrize("name", CASES)
def test_equals_the_reference(name):
    method, rule = CASES[name]
    run(tiny.shared(), method, SAMPLES, rule, tiny.shared("llama", "eager"))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_equals_the_reference_in_a_second_turn(name):
    two_turns(*CASES[name])


@pytest.mark.parametrize("name", ["visionzip", "scope", "vscan-original"])
def test_vision_tower_without_class_token(name):
    siglip = "siglip_vision_model"
    method, rule = CASES[name]
    run(tiny.shared(vision=siglip), method, SAMPLES[1:3], rule, tiny.shared("llama", "eager", siglip))


@pytest.fixture(scope="module")
def large_tower():
    """Models with 64 patches, whose features come out of the third of four blocks, and a prompt of two images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiny._VISION, "num_hidden_layers", 4)
        patch.setitem(tiny._VISION, "patch_size", 2)
        patch.setattr(tiny, "TOKENS_PER_IMAGE", 64)
        return tiny.build(), tiny.build(attention="eager"), [tiny.sample(2, 9)]


@pytest.mark.parametrize(
    ("method", "rule"),
    [
        (VScan(35, 2, 12), newer_rules.VScan(35, 2, 12)),
        (VisionZip(), newer_rules.VisionZip(54, 10)),
        (VisionZip(9, 6), newer_rules.VisionZip(9, 6)),
        (HoloV(20), newer_rules.HoloV(20)),
        (DART(24), newer_rules.DART(24, 2, (4, 4))),
    ],
)
def test_larger_vision_tower(method, rule, large_tower):
    sdpa, eager, samples = large_tower
    if method == VisionZip():
        # 64 tokens of 64 stay as they are.
        with trim(sdpa, method) as trimmed:
            tiny.generate(sdpa, tiny.batch(samples), 1)
        assert trimmed.report.stages == []
        return
    run(sdpa, method, samples, rule, eager)


def stock_answer(model, parts, positions, steps):
    """Logits of a greedy answer of the stock model to embeddings ``[tokens, hidden]`` at given positions."""
    rows, places = torch.cat(parts)[None], torch.as_tensor(positions)[None]
    found = []
    with torch.no_grad():
        for _ in range(steps):
            # With a mask, gaps between positions are not taken for borders of packed samples.
            everything = torch.ones_like(places)
            output = model(inputs_embeds=rows, attention_mask=everything, position_ids=places, use_cache=False)
            found.append(output.logits[0, -1])
            rows = torch.cat([rows, model.get_input_embeddings()(found[-1].argmax())[None, None]], 1)
            places = torch.cat([places, places[:, -1:] + 1], 1)
    return torch.stack(found)


@pytest.mark.parametrize("positions", [RENUMBER, ORIGINAL])
def test_a_smaller_image_equals_the_stock_model_on_it(positions):
    """In the place of the whole one, as if there had been as few placeholders."""
    model, samples = tiny.shared(), [tiny.sample(1, 9), tiny.sample(2, 14, seed=1)]
    inputs = tiny.batch(samples)
    with trim(model, Downsample(5, positions)) as run_:
        output = tiny.generate(model, inputs, 3)
    assert run_.report.visual_tokens_per_layer[-1] == [4, 8]
    for b, sample in enumerate(samples):
        with torch.no_grad():
            features = newer_rules.shrunk(model, sample.pixels, 2, 2)
            parts, places = [], []
            words = model.get_input_embeddings()(torch.tensor(sample.ids))
        visual = [i for i, token in enumerate(sample.ids) if token == tiny.IMAGE]
        for i in range(len(sample.ids)):
            if i not in visual:
                parts.append(words[i : i + 1])
            elif visual.index(i) % 16 < 4:
                number = visual.index(i)
                parts.append(features[number // 16, number % 16][None])
            else:
                continue
            places.append(i)
        places = list(range(len(parts))) if positions == RENUMBER else places
        assert close(tiny.logits(output)[b], stock_answer(model, parts, places, 3))


def test_blind_is_the_language_model_alone():
    model, sample = tiny.shared(), tiny.RAGGED[1]
    with trim(model, Blind()) as run_:
        output = tiny.generate(model, tiny.batch(tiny.RAGGED), 3)
    assert run_.report.visual_tokens_per_layer == [[0, 0, 0]] * tiny.DEPTH
    text = [i for i, token in enumerate(sample.ids) if token != tiny.IMAGE]
    words = model.get_input_embeddings()(torch.tensor(sample.ids)).detach()[text]
    assert close(tiny.logits(output)[1], stock_answer(model, [words], text, 3))
