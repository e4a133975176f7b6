"""QueCC equals the stock model on a prompt that really has so few image tokens: the compressed embeddings."""

from pathlib import Path

import pytest
import torch

import vistrim
from tests import tiny
from tests.closeness import close
from tests.methods.quecc_weights import GRID, HEADS, compressed, random_part
from vistrim import QueCC, UnsupportedGenerationError, UnsupportedModelError, compose, trim
from vistrim.core.compressor import recorded_blocks
from vistrim.engine.engine import Engine


def question_of(sample):
    """Ids of the text behind the last image."""
    return sample.ids[max(i for i, t in enumerate(sample.ids) if t == tiny.IMAGE) + 1 :]


@torch.no_grad()
def short_prompt(model, sample, path, question=None):
    """Embeddings ``[tokens, hidden]`` of the prompt with only the compressed tokens of each image."""
    seen = model.model.vision_tower(sample.pixels, output_hidden_states=True).hidden_states
    cls = model.config.vision_feature_select_strategy == "default"
    patches = [state[:, 1:] if cls else state for state in seen]
    features = patches[model.config.vision_feature_layer]
    states = torch.cat([patches[block + 1] for block in recorded_blocks(len(seen) - 1)], -1)
    embed, decoder = model.get_input_embeddings(), model.model.language_model
    asked = torch.tensor([question if question is not None else question_of(sample)])
    e = decoder(inputs_embeds=embed(asked)).last_hidden_state[0, -1]
    rows, images = [], 0
    for place, token in enumerate(sample.ids):
        if token != tiny.IMAGE:
            rows.append(embed(torch.tensor([token])))
        elif sample.ids[:place].count(tiny.IMAGE) % tiny.TOKENS_PER_IMAGE == 0:
            rows.append(compressed(path, features[images], states[images], e, GRID, HEADS))
            images += 1
    return torch.cat(rows)


@torch.no_grad()
def read_out(model, sample, path, answer):
    """Logits of every step of an answer, by the stock model on the short prompt."""
    prompt = short_prompt(model, sample, path)
    words = model.get_input_embeddings()(torch.tensor(answer[:-1], dtype=torch.long))
    logits = model(inputs_embeds=torch.cat([prompt, words])[None]).logits[0]
    return logits[len(prompt) - 1 :]


def answers(output, inputs):
    return output.sequences[:, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("stride", [2, 4])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("samples", [tiny.RAGGED, tiny.SAME_LENGTH], ids=["ragged", "same"])
def test_generation_is_that_of_the_stock_model_with_so_few_placeholders(samples, attention, stride):
    model, path = tiny.shared("llama", attention), random_part(stride)
    inputs = tiny.batch(samples)
    with trim(model, QueCC(path)) as run:
        output = tiny.generate(model, inputs, 4)
    for b, sample in enumerate(samples):
        expected = read_out(model, sample, path, answers(output, inputs)[b])
        assert close(tiny.logits(output)[b], expected)
    per_image = (GRID // stride) ** 2
    assert run.report.visual_tokens == [s.visual for s in samples]
    for layer in run.report.visual_tokens_per_layer:
        assert layer == [len(s.pixels) * per_image for s in samples]
    assert run.report.stages[0].kept == run.report.stages[0].merged


@pytest.mark.parametrize("text", tiny.TEXTS)
@pytest.mark.parametrize("vision", ["clip_vision_model", "siglip_vision_model"])
def test_every_family(text, vision):
    model, path, sample = tiny.shared(text, "sdpa", vision), random_part(), tiny.RAGGED[1]
    inputs = tiny.batch([sample])
    with trim(model, QueCC(path)):
        output = tiny.generate(model, inputs, 4)
    expected = read_out(model, sample, path, answers(output, inputs)[0])
    assert close(tiny.logits(output)[0], expected)


@torch.no_grad()
def test_right_padding_and_a_bare_forward_pass():
    model, path = tiny.shared(), random_part()
    inputs = tiny.batch(tiny.RAGGED, side="right")
    with trim(model, QueCC(path)):
        output = model(**inputs, output_hidden_states=True)
    for b, sample in enumerate(tiny.RAGGED):
        expected = read_out(model, sample, path, [0])[0]
        assert close(output.logits[b, len(sample.ids) - 1], expected)
    # The question's own pass leaves no trace in what is recorded of the prompt's.
    assert len(output.hidden_states) == tiny.DEPTH + 1
    shortened = max(s.text + 4 * len(s.pixels) for s in tiny.RAGGED)
    assert {state.shape[1] for state in output.hidden_states[:-1]} == {shortened}


@pytest.mark.parametrize(
    "options",
    [{"use_cache": False}, {"do_sample": True, "num_return_sequences": 3}, {"num_beams": 3}],
    ids=["no cache", "several answers", "beams"],
)
def test_every_way_to_generate(options):
    model, path = tiny.shared(), random_part()
    samples = tiny.RAGGED[:2]
    inputs = tiny.batch(samples)
    torch.manual_seed(3)
    with trim(model, QueCC(path)):
        output = tiny.generate(model, inputs, 4, output_scores=True, **options)
    copies = options.get("num_return_sequences", 1)
    for row, answer in enumerate(answers(output, inputs)):
        expected = read_out(model, samples[row // copies], path, answer)
        if "num_beams" in options:
            score = expected.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).mean()
            assert close(output.sequences_scores[row], score)
        else:
            assert close(tiny.logits(output)[row], expected)


def test_the_question_matters_and_text_in_front_of_the_image_does_not():
    path, model = random_part(), tiny.shared()
    sample = tiny.sample(1, 9)
    other_question = tiny.Sample([*sample.ids[:-1], sample.ids[-1] + 1], sample.pixels)
    other_start = tiny.Sample([sample.ids[0] + 1, *sample.ids[1:]], sample.pixels)
    made = [kept_rows(model, path, s) for s in (sample, other_question, other_start)]
    assert (made[0] - made[1]).abs().max() > 0.05
    assert torch.equal(made[0], made[2])


@torch.no_grad()
def kept_rows(model, path, sample, method=QueCC):
    """Inputs of layer 0 at the compressed tokens of the image."""
    entered = []
    with trim(model, method(path)) as run:
        hook = model.model.language_model.layers[0].register_forward_pre_hook(lambda m, args: entered.append(args[0]))
        model(**tiny.batch([sample]))
        hook.remove()
    ids = torch.tensor(sample.ids)
    kept = run.report.stages[0].kept[0]
    here = torch.cat([(ids == tiny.IMAGE).nonzero()[kept, 0], (ids != tiny.IMAGE).nonzero()[:, 0]]).sort().values
    return entered[-1][0][ids[here] == tiny.IMAGE]


@torch.no_grad()
def test_text_enters_as_it_was():
    model, path, sample = tiny.shared(), random_part(), tiny.RAGGED[1]
    entered = []
    with trim(model, QueCC(path)):
        hook = model.model.language_model.layers[0].register_forward_pre_hook(lambda m, args: entered.append(args[0]))
        model(**tiny.batch([sample]))
        hook.remove()
    words = model.get_input_embeddings()(torch.tensor([t for t in sample.ids if t != tiny.IMAGE]))
    expected = short_prompt(model, sample, path)
    is_word = (expected[:, None] == words[None]).all(-1).any(1)
    assert is_word.sum() == len(words)
    # The question alone runs through the layer too.
    assert len(entered) == 2
    assert torch.equal(entered[-1][0][is_word], words)
    assert close(entered[-1][0], expected)


@torch.no_grad()
@pytest.mark.parametrize("front", [5, 0])
def test_a_prompt_that_ends_with_its_image(front):
    """The text in front is the question then; without any the last token."""
    model, path = tiny.shared(), random_part()
    ids = [tiny.BOS, 7, 8, 9, 10][:front] + [tiny.IMAGE] * tiny.TOKENS_PER_IMAGE
    sample = tiny.Sample(ids, tiny.sample().pixels)
    question = ids[:front] or [tiny.IMAGE]
    with trim(model, QueCC(path)) as run:
        logits = model(**tiny.batch([sample])).logits[0, -1]
    if front:
        expected = model(inputs_embeds=short_prompt(model, sample, path, question)[None]).logits[0, -1]
        assert close(logits, expected)
    assert run.report.visual_tokens_per_layer[0] == [3]


def test_a_new_image_in_a_later_turn_is_compressed_for_the_new_question():
    model, path = tiny.shared(), random_part()
    first, second = tiny.sample(1, 9), tiny.sample(1, 6, seed=5)
    inputs = tiny.batch([first])
    with trim(model, QueCC(path)):
        output = tiny.generate(model, inputs, 4)
        turn = tiny.follow_up(output, inputs, torch.tensor([second.ids]), second.pixels)
        later = tiny.generate(model, turn, 4)
    said = answers(output, inputs)[0]
    answer = later.sequences[0, turn["input_ids"].shape[1] :].tolist()
    words = model.get_input_embeddings()
    with torch.no_grad():
        prompt = torch.cat(
            [short_prompt(model, first, path), words(torch.tensor(said)), short_prompt(model, second, path)]
        )
        given = torch.cat([prompt, words(torch.tensor(answer[:-1]))])
        expected = model(inputs_embeds=given[None]).logits[0, len(prompt) - 1 :]
    assert close(tiny.logits(later)[0], expected)


def test_original_positions_are_those_of_each_blocks_last_patch():
    model, path, sample = tiny.shared(), random_part(), tiny.sample(1, 9)
    with torch.no_grad(), trim(model, QueCC(path, "original")) as run:
        logits = model(**tiny.batch([sample])).logits[0, -1]
    kept = run.report.stages[0].kept[0]
    assert kept == [5, 7, 13, 15]
    first = sample.ids.index(tiny.IMAGE)
    places = [*range(first), *(first + k for k in kept), *range(first + tiny.TOKENS_PER_IMAGE, len(sample.ids))]
    with torch.no_grad():
        embeddings = short_prompt(model, sample, path)[None]
        mask = torch.ones(1, len(places))
        expected = model(
            inputs_embeds=embeddings, position_ids=torch.tensor([places]), attention_mask=mask, use_cache=True
        )
    assert close(logits, expected.logits[0, -1])


@torch.no_grad()
def test_recorded_states_are_the_towers_hidden_states():
    model, sample = tiny.shared(), tiny.RAGGED[1]
    engine = Engine(model, QueCC(random_part()))
    seen = []
    select = type(engine.method).select_input
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(engine.method), "select_input", lambda self, t: seen.append(t) or select(self, t))
        engine.attach()
        model(**tiny.batch([sample]))
        engine.detach()
    expected = model.model.vision_tower(sample.pixels, output_hidden_states=True).hidden_states
    states = seen[0].vision.states
    assert set(states) == {0, 1}
    for block, found in states.items():
        assert torch.equal(found, expected[block + 1][:, 1:].flatten(0, 1))


def test_flops_count_the_question_and_the_compressor():
    model, path = tiny.shared(), random_part()
    samples = tiny.RAGGED
    with trim(model, QueCC(path)) as run:
        tiny.generate(model, tiny.batch(samples), 2)
    text = model.config.text_config
    head = text.hidden_size // text.num_attention_heads
    matrices = 2 * text.hidden_size**2 + 2 * text.hidden_size * text.num_key_value_heads * head
    matrices += 3 * text.hidden_size * text.intermediate_size
    counted = []
    for sample in samples:
        n = len(question_of(sample))
        asked = tiny.DEPTH * n * 2 * (matrices + 2 * n * text.hidden_size)
        counted.append(run.report.method_flops[samples.index(sample)] - asked)
    # What is left is the same for every image.
    assert [count / len(s.pixels) for count, s in zip(counted, samples, strict=True)] == [counted[0]] * len(samples)
    assert counted[0] > 0


def test_composes_with_methods_inside_the_decoder():
    model, path = tiny.shared(), random_part()
    inputs = tiny.batch(tiny.RAGGED)
    with trim(model, compose(QueCC(path), vistrim.VTW(3))) as run:
        tiny.generate(model, inputs, 4)
    assert run.report.visual_tokens_per_layer[0] == [4, 8, 4]
    assert run.report.visual_tokens_per_layer[3] == [0, 0, 0]
    assert all(run.report.method_flops)


def test_the_context_leaves_nothing_behind():
    model, inputs = tiny.shared(), tiny.batch(tiny.RAGGED)
    before = tiny.logits(tiny.generate(model, inputs, 4))
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    with trim(model, QueCC(random_part())):
        tiny.generate(model, inputs, 2)
    assert torch.equal(tiny.logits(tiny.generate(model, inputs, 4)), before)
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()] == hooks


def test_prompts_without_images_read_no_question():
    model = tiny.shared()
    inputs = {"input_ids": torch.tensor([[1, 5, 6, 7]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    before = tiny.logits(tiny.generate(model, inputs, 4))
    with trim(model, QueCC(random_part())) as run:
        assert torch.equal(tiny.logits(tiny.generate(model, inputs, 4)), before)
    assert run.report.method_flops == [0]


def test_a_sample_without_an_image_beside_one_with():
    model, path = tiny.shared(), random_part()
    plain, asked = tiny.sample(0, 7), tiny.sample(1, 9)
    expected = tiny.logits(tiny.generate(model, tiny.batch([plain]), 4))[0]
    with trim(model, QueCC(path)) as run:
        together = tiny.generate(model, tiny.batch([plain, asked]), 4)
        tiny.generate(model, tiny.batch([asked]), 4)
    assert close(tiny.logits(together)[0], expected)
    answer = answers(together, {"input_ids": torch.zeros(1, len(asked.ids))})[1]
    assert close(tiny.logits(together)[1], read_out(model, asked, path, answer))
    assert run.reports[0].method_flops == [0, *run.reports[1].method_flops]


def test_images_of_other_sizes_are_refused():
    """Here the class token is a visual token too."""
    model, sample = tiny.build(), tiny.sample()
    model.config.vision_feature_select_strategy = "full"
    ids = [*sample.ids[:4], tiny.IMAGE, *sample.ids[4:]]
    with torch.no_grad(), trim(model, QueCC(random_part())), pytest.raises(UnsupportedModelError, match="16 visual"):
        model(**tiny.batch([tiny.Sample(ids, sample.pixels)]))


def test_threads_do_not_mix():
    model, path = tiny.shared(), random_part()
    alone = {}
    with trim(model, QueCC(path)):
        for sample in tiny.RAGGED:
            alone[len(sample.ids)] = tiny.logits(tiny.generate(model, tiny.batch([sample]), 4))
        together = tiny.in_threads(lambda s: tiny.logits(tiny.generate(model, tiny.batch([s]), 4)), tiny.RAGGED)
    for sample, logits in zip(tiny.RAGGED, together, strict=True):
        assert torch.equal(logits, alone[len(sample.ids)])


def test_images_that_were_encoded_before_are_refused():
    model, sample = tiny.shared(), tiny.sample()
    with torch.no_grad(), trim(model, QueCC(random_part())):
        encoded = {"image": model.get_image_features(sample.pixels, return_dict=True)}
    inputs = tiny.batch([sample])
    del inputs["pixel_values"]
    with (
        torch.no_grad(),
        trim(model, QueCC(random_part())),
        pytest.raises(UnsupportedGenerationError, match="pixel_values"),
    ):
        model(**inputs, mm_encoder_outputs=encoded)


def test_missing_weights_name_the_command():
    with pytest.raises(ValueError, match=r"training\.reference\.train_quecc .* in the source tree"):
        Engine(tiny.shared(), QueCC())
    with pytest.raises(ValueError, match="no file"):
        Engine(tiny.shared(), QueCC("/nowhere/quecc.safetensors"))


def test_a_compressor_for_another_model_is_refused():
    other = tiny.build(num_hidden_layers=3)
    with pytest.raises(ValueError, match="made for a model with 5 layers"):
        Engine(other, QueCC(random_part()))


def test_bad_positions_are_refused():
    with pytest.raises(ValueError, match="positions"):
        QueCC(positions="new")
    assert str(QueCC()) == "quecc:compressor=None,positions=renumber"
    assert Path(random_part()).name == "quecc.safetensors"
