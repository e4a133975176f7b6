"""The shipped model: loads as stock classes, answers, ends, and needs its image."""

from statistics import mean

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

from vistrim.reference import NAMES, weights_path
from vistrim.reference.evaluation import answer, evaluate, facts_f1, items, pictures, score
from vistrim.reference.processing import build_processor, chat
from vistrim.reference.scenes import LEVELS
from vistrim.reference.tasks import SHORT_TASKS

SCENES = LEVELS["several"]
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


def test_answers_are_right_and_depend_on_the_image(reference):
    own = mean(evaluate(*reference, "test", SCENES, PER_TASK, SHORT_TASKS).values())
    black = mean(evaluate(*reference, "test", SCENES, 3, SHORT_TASKS, images="black").values())
    assert own >= 0.85
    assert black <= 0.45


def test_descriptions_name_most_facts_and_end(reference):
    model, processor = reference
    asked = items("test", "description", 4, SCENES)
    given = answer(model, processor, pictures(asked), [item.question.prompt for item in asked])
    assert mean(facts_f1(g, item.question.answer) for g, item in zip(given, asked, strict=True)) >= 0.85
    assert max(len(g.split()) for g in given) < 160


def test_small_model_shares_the_vocabulary_and_answers(reference):
    path = weights_path("reference-small")
    small = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(path)
    assert processor.tokenizer.get_vocab() == reference[1].tokenizer.get_vocab()
    assert 3 * small.num_parameters() <= reference[0].num_parameters()
    assert mean(evaluate(small, processor, "test", SCENES, 3, SHORT_TASKS).values()) >= 0.65


@pytest.mark.parametrize("prompt", ["Describe the image.", "What color is the shape?", "zeppelin"])
def test_generation_ends_by_eos(reference, prompt):
    model, processor = reference
    text = processor.apply_chat_template(chat(prompt), add_generation_prompt=True)
    image = pictures(items("test", "color", 1, SCENES))[0]
    inputs = processor(images=image, text=text, return_tensors="pt")
    tokens = model.generate(**inputs, max_new_tokens=200, do_sample=False)
    assert tokens[0, -1] == model.generation_config.eos_token_id


def test_a_batch_gives_the_answers_of_single_runs(reference):
    model, processor = reference
    asked = [item for task in ("color", "lookup", "relation") for item in items("test", task, 2, SCENES)]
    prompts = [item.question.prompt for item in asked]
    together = answer(model, processor, pictures(asked), prompts)
    alone = [answer(model, processor, [p], [q])[0] for p, q in zip(pictures(asked), prompts, strict=True)]
    assert together == alone


def test_wrong_pictures_belong_to_other_items():
    asked = items("test", "color", 3, SCENES)
    own, wrong = pictures(asked), pictures(asked, "wrong")
    assert [w.tobytes() for w in wrong] == [own[-1].tobytes(), own[0].tobytes(), own[1].tobytes()]
    assert pictures(asked, "black")[0].tobytes() == Image.new("RGB", (144, 144)).tobytes()


def test_scores():
    clause = "at the top left a small red star with the letter k"
    other = "at the top right a large blue cross with the letter h"
    assert score("color", " red ", "red") == 1
    assert score("color", "blue", "red") == 0
    assert facts_f1(f"{clause} and {other}", f"{clause} and {other}") == 1
    assert facts_f1(clause, f"{clause} and {other}") == pytest.approx(2 / 3)
    assert facts_f1(clause.replace("red", "blue"), clause) == pytest.approx(3 / 4)
    assert facts_f1("no no no", clause) == 0


def test_unknown_and_missing_weights_say_what_to_do(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="reference"):
        weights_path("refrence")
    monkeypatch.setattr("vistrim.reference._WEIGHTS", tmp_path)
    for name in NAMES:
        with pytest.raises(FileNotFoundError, match=r"vistrim\.reference\.train"):
            weights_path(name)
