from random import Random

import pytest
from PIL import Image
from transformers import AutoProcessor, LlavaProcessor

from vistrim.reference.processing import build_processor, chat
from vistrim.reference.scenes import LEVELS, generate_scene
from vistrim.reference.tasks import TASKS, ask


@pytest.fixture(scope="module")
def processor():
    return build_processor()


def prompt(processor, text):
    return processor.apply_chat_template(chat(text), add_generation_prompt=True)


def test_no_task_uses_an_unknown_word_and_answers_round_trip(processor):
    tokenizer = processor.tokenizer
    for index in range(150):
        scene = generate_scene("train", index, LEVELS["full"])
        for task in TASKS:
            question = ask(task, scene, Random(index))
            if question is None:
                continue
            ids = tokenizer(question.prompt).input_ids
            assert task == "description" or tokenizer.unk_token_id not in ids
            answer = tokenizer(question.answer, add_special_tokens=False).input_ids
            assert tokenizer.decode(answer) == question.answer


@pytest.mark.parametrize(
    "text", ["what COLOR is the circle", "What color is the circle?", " What  colour, is the (circles)!\n"]
)
def test_case_punctuation_and_plurals_make_no_difference(processor, text):
    assert processor.tokenizer(text).input_ids == processor.tokenizer("what color is the circle").input_ids


def test_plurals_that_end_in_s(processor):
    assert processor.tokenizer("crosses").input_ids == processor.tokenizer("cross").input_ids


def test_other_words_become_unknown(processor):
    assert processor.tokenizer("zeppelin").input_ids == [processor.tokenizer.unk_token_id]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "LA"])
@pytest.mark.parametrize("size", [(144, 144), (640, 31), (1, 7)])
def test_any_image_becomes_144_visual_tokens(processor, mode, size):
    inputs = processor(images=Image.new(mode, size), text=prompt(processor, "Describe the image."), return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 144, 144)
    assert (inputs["input_ids"] == processor.image_token_id).sum() == 144


def test_the_image_comes_first_wherever_the_message_puts_it(processor):
    turned = [{"role": "user", "content": [{"type": "text", "text": "Describe."}, {"type": "image"}]}]
    assert processor.apply_chat_template(turned, add_generation_prompt=True) == prompt(processor, "Describe.")


def test_batches_are_padded_on_the_left(processor):
    texts = [prompt(processor, t) for t in ("Describe the image.", "What color is the large red shape?")]
    inputs = processor(images=[Image.new("RGB", (9, 9))] * 2, text=texts, padding=True, return_tensors="pt")
    assert inputs["attention_mask"][0, 0] == 0
    assert inputs["input_ids"][0, -1] == inputs["input_ids"][1, -1]


def test_saved_processor_is_the_stock_class_and_equal(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is LlavaProcessor
    image = Image.effect_noise((200, 100), 80)
    for text in ("Where is the star?", "Describe the image."):
        a, b = (p(images=image, text=prompt(p, text), return_tensors="pt") for p in (processor, loaded))
        assert all((a[name] == b[name]).all() for name in a)
