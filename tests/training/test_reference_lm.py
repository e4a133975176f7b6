"""Shortcuts in the training of reference-lm compute what they stand for."""

from random import Random
from types import SimpleNamespace

import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlamaForCausalLM

from tests.closeness import close
from training.reference_lm import measure_drift, packing
from training.reference_lm.decoder import Decoder, Joint
from training.reference_lm.decoder_phase import Reader, accumulate
from training.reference_lm.helpers import group, pair
from training.reference_lm.packing import pack, text_mask
from training.reference_lm.projector import Projector
from training.reference_lm.text import Answers
from training.reference_lm.tower import Tower, telling_patches
from vistrim.reference.lm.scenes import generate_scene


@pytest.fixture(autouse=True)
def _not_compiled():
    """Compiling takes longer than the tests, and needs a compiler."""
    with torch.compiler.set_stance("force_eager"):
        yield


def test_gradients_reach_the_adapter_as_through_the_merged_weights():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    base = LlamaForCausalLM(LlamaConfig(num_hidden_layers=2, vocab_size=50, **sizes))
    decoder = Decoder(base, rank=4, alpha=8)
    for up in decoder.up.values():
        torch.nn.init.normal_(up, std=0.1)
    inputs = torch.randn(2, 7, 32, requires_grad=True)
    positions = torch.arange(7).expand(2, -1)
    parameters = [inputs, *decoder.down.values(), *decoder.up.values()]
    merged = {
        name: torch.baddbmm(stack, decoder.up[key], decoder.down[key], alpha=decoder.scale)
        for (name, stack), key in zip(decoder.stacks.items(), decoder.down, strict=True)
    }
    through_merged = [tuple(map(Joint, layer)) for layer in decoder._joined(merged)]
    outputs = [decoder(inputs, positions, 7, None, weights) for weights in (decoder.weights(), through_merged)]
    assert torch.equal(*outputs)
    direction = torch.randn_like(outputs[0])
    found, expected = (torch.autograd.grad((output * direction).sum(), parameters) for output in outputs)
    for one, other in zip(found, expected, strict=True):
        assert close(one, other)


def test_gradients_accumulated_over_parts_are_those_of_the_whole_batch():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_hidden_layers": 2}
    tower = Tower(CLIPVisionConfig(image_size=42, patch_size=14, **sizes)).eval()
    decoder = Decoder(LlamaForCausalLM(LlamaConfig(vocab_size=50, num_key_value_heads=1, **sizes)), rank=4)
    for up in decoder.up.values():
        torch.nn.init.normal_(up, std=0.1)
    projector = Projector(32, 32)
    reader = Reader(tower, projector, decoder, SimpleNamespace(prefix=[1, 2]))
    packed = pack([[([3, 4], [5, 6])], [([7], [8, 9, 10]), ([3], [4])], [([11, 12, 13], [14])]], 7)
    batch = {name: torch.from_numpy(values) for name, values in packed.items()}
    images, kept = torch.randn(3, 3, 42, 42), torch.tensor([[0, 2, 3], [1, 4, 8], [5, 6, 7]])
    parameters = [*projector.parameters(), *decoder.down.values(), *decoder.up.values()]
    found = []
    for part in (1, 3):
        for parameter in parameters:
            parameter.grad = None
        loss, right = accumulate(reader, images, batch, decoder.merged(), kept, torch.arange(3).split(part))
        found.append([loss, right.float(), *(parameter.grad for parameter in parameters)])
    for one, other in zip(*found, strict=True):
        assert close(one, other)


def test_each_packed_question_is_answered_as_if_asked_alone(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(packing, "BLOCK", 4)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    base = LlamaForCausalLM(LlamaConfig(num_hidden_layers=2, vocab_size=50, **sizes)).eval()
    decoder, context = Decoder(base, rank=4), 5
    questions = [[3, 4, 5, 6, 7, 8, 9, 10, 11, 12], [13, 14], [15, 16, 17, 18], [19]]
    packed = {n: torch.from_numpy(v) for n, v in pack([[(q, [1]) for q in questions]], 20).items()}
    image = torch.randn(1, context, 32)
    embeddings = torch.cat([image, decoder.embed(packed["tokens"])], 1)
    positions = torch.cat([torch.arange(context)[None], context + packed["offsets"]], 1)
    mask = text_mask(packed["segments"], context)
    assert len(mask) == 5
    found = decoder(embeddings, positions, context, mask, decoder.weights())[0, context:]
    for number, question in enumerate(questions, start=1):
        alone = torch.cat([image, decoder.embed(torch.tensor([question]))], 1)
        expected = base.model(inputs_embeds=alone).last_hidden_state[0, context:]
        assert close(found[packed["segments"][0] == number], expected)


def test_the_drift_of_a_model_is_the_mean_divergence_of_its_answer_tokens(monkeypatch):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_hidden_layers": 1}
    base, other = (LlamaForCausalLM(LlamaConfig(vocab_size=words, **sizes)).eval() for words in (50, 51))
    # Far from the base, so that rounding does not matter to the difference of the logarithms.
    other.lm_head.weight.data *= 100
    tokens = torch.randint(50, (3, 6))
    answered = torch.tensor([[0, 1, 1, 1, 1, 1], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1]]).bool()
    monkeypatch.setattr(measure_drift, "own_answers", lambda *args, **kwargs: Answers(tokens, answered))
    assert measure_drift.mean_drift(base, None, base, [], 6, rows=2) == 0
    with torch.no_grad():
        p, q = (model(tokens).logits[answered][:, :50].softmax(-1).double() for model in (base, other))
    expected = (p * (p.log() - q.log())).sum() / answered.sum()
    found = measure_drift.mean_drift(base, None, other, [], 6, rows=2)
    assert close(torch.tensor(found), expected.float())


def test_helpers_name_the_areas_of_all_objects_asked_for():
    asked = 0
    for index in range(60):
        scene = generate_scene("train", index)
        found = group(scene, Random(index))
        number, _, areas = found.answer.partition(": ")
        of = found.prompt.removeprefix("Where are all the ").removesuffix("?").removesuffix(" shapes")
        names = [name for shape in scene.shapes for name in (shape.color, f"{shape.kind}s", f"{shape.kind}es")]
        chosen = [s.area for s in scene.shapes if of in (s.color, f"{s.kind}s", f"{s.kind}es", "shapes")]
        assert (of in names or of == "shapes") == bool(chosen)
        assert int(number) == len(chosen)
        assert areas == ", ".join(chosen)
        two = pair(scene, Random(index))
        if two is not None:
            asked += 1
            first, second = two.answer.split(" and ")
            assert {first, second} <= {shape.area for shape in scene.shapes}
            assert first != second
    assert asked > 50


def test_a_tower_that_sees_every_patch_in_order_sees_the_whole_image():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_hidden_layers": 2}
    tower = Tower(CLIPVisionConfig(image_size=42, patch_size=14, **sizes)).eval()
    pixels = torch.randn(2, 3, 42, 42)
    features, attention = tower(pixels)
    every = torch.arange(9).expand(2, -1)
    for one, other in zip(tower(pixels, every), (features, attention), strict=True):
        assert torch.equal(one, other)
    stock = tower.vision(pixel_values=pixels, output_hidden_states=True).hidden_states[-1]
    assert torch.equal(features, stock)
    some = tower(pixels, every[:, :4])
    assert some[0].shape == (2, 5, 32)
    assert some[1].shape == (2, 4)


def test_patches_on_objects_come_first_then_those_beside_them():
    owners = torch.full((1, 36), -1)
    owners[0, 14] = 3
    beside = {7, 8, 9, 13, 15, 19, 20, 21}
    assert telling_patches(owners, 1).tolist() == [[14]]
    assert set(telling_patches(owners, 9)[0].tolist()) == beside | {14}
    assert len(set(telling_patches(owners, 20)[0].tolist())) == 20
