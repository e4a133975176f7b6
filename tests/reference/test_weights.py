"""The shipped model: loads as stock classes, answers, ends, and needs its image."""

from statistics import mean

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

from vistrim.evaluation.answering import answer
from vistrim.evaluation.items import with_images
from vistrim.reference.items import items
from vistrim.reference.processing import build_processor, chat
from vistrim.reference.tasks import SHORT_TASKS
from vistrim.shipped import TRAINED_BY, weights_path

LEVEL = "several"
PER_TASK = 5


@pytest.fixture(scope="module")
def reference():
    path = weights_path("reference")
    # bf16, as shipped, is several times slower than fp32 on CPUs without bf16 units.
    model = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32)
    return model, AutoProcessor.from_pretrained(path)


def test_stock_classes_in_bf16_with_the_promised_shape(reference):
    model, processor = reference
    assert type(model) is LlavaForConditionalGeneration
    assert type(processor) is LlavaProcessor
    assert {value.dtype for value in load_file(weights_path("reference") / "model.safetensors").values()} == {
        torch.bfloat16
    }
    assert model.config.text_config.num_hidden_layers >= 12
    assert model.config.vision_config.model_type == "clip_vision_model"
    side = model.config.vision_config.image_size // model.config.vision_config.patch_size
    assert side**2 >= 144


def test_shipped_processor_is_the_one_that_the_code_builds(reference):
    built, shipped = build_processor(), reference[1]
    assert shipped.tokenizer.get_vocab() == built.tokenizer.get_vocab()
    assert shipped.chat_template == built.chat_template
    assert shipped.image_processor.to_dict() == built.image_processor.to_dict()


def accuracy(model, processor, tasks, number, images="own"):
    """Mean score over the tasks, untouched model."""
    scores = []
    for task in tasks:
        asked = with_images(items(task, "test", LEVEL, number), images)
        given = answer(model, processor, asked, None, max_new_tokens=160)
        scores += [item.score(g.answer) for g, item in zip(given, asked, strict=True)]
    return mean(scores)


def test_answers_are_right_and_depend_on_the_image(reference):
    assert accuracy(*reference, SHORT_TASKS, PER_TASK) >= 0.85
    assert accuracy(*reference, SHORT_TASKS, 3, "black") <= 0.45
    assert accuracy(*reference, SHORT_TASKS, 3, "wrong") <= 0.5


@pytest.mark.slow
def test_easy_vqa_is_answered(reference):
    assert accuracy(*reference, ["easy-vqa"], 50) >= 0.93
    assert accuracy(*reference, ["easy-vqa"], 20, "black") <= 0.8


def test_descriptions_name_most_facts_and_end(reference):
    asked = items("description", "test", LEVEL, 4)
    given = answer(*reference, asked, None, max_new_tokens=160)
    assert mean(item.score(g.answer) for g, item in zip(given, asked, strict=True)) >= 0.85
    assert max(g.new_tokens for g in given) < 160


def test_small_model_shares_the_vocabulary_and_answers(reference):
    path = weights_path("reference-small")
    small = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(path)
    assert processor.tokenizer.get_vocab() == reference[1].tokenizer.get_vocab()
    assert 3 * small.num_parameters() <= reference[0].num_parameters()
    assert accuracy(small, processor, SHORT_TASKS, 3) >= 0.65


@pytest.mark.parametrize("prompt", ["What color is the shape?", "zeppelin"])
def test_generation_ends_by_eos(reference, prompt):
    model, processor = reference
    text = processor.apply_chat_template(chat(prompt), add_generation_prompt=True)
    image = items("color", "test", LEVEL, 1)[0].image()
    inputs = processor(images=image, text=text, return_tensors="pt")
    tokens = model.generate(**inputs, max_new_tokens=200, do_sample=False)
    assert tokens[0, -1] == model.generation_config.eos_token_id


def test_a_batch_gives_the_answers_of_single_runs(reference):
    asked = [item for task in ("color", "lookup", "relation") for item in items(task, "test", LEVEL, 2)]
    together = [given.answer for given in answer(*reference, asked, None, 8)]
    assert together == [answer(*reference, [item], None, 8)[0].answer for item in asked]


def test_errors_for_unknown_and_missing_weights_name_the_fix(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="reference"):
        weights_path("refrence")
    monkeypatch.setattr("vistrim.shipped._WEIGHTS", tmp_path)
    for name in TRAINED_BY:
        with pytest.raises(FileNotFoundError, match=r"training\.reference\.train"):
            weights_path(name)
