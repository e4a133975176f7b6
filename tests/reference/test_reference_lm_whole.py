"""``reference-lm`` itself, if its language model and its weights are installed."""

import importlib.metadata
from statistics import mean

import pytest
from transformers import AutoTokenizer

import vistrim
from vistrim import LoadError, reference_lm
from vistrim.evaluation.answering import answer
from vistrim.evaluation.items import with_images
from vistrim.methods.base.notation import as_method
from vistrim.reference.lm.items import items
from vistrim.reference.tasks import SHORT_TASKS

try:
    importlib.metadata.distribution(reference_lm.BASE_DISTRIBUTION)
except importlib.metadata.PackageNotFoundError:
    pytest.skip(f"needs {reference_lm.BASE_DISTRIBUTION}: {reference_lm.INSTALL[0]}", allow_module_level=True)

PER_TASK = 2


@pytest.fixture(scope="module")
def loaded():
    try:
        reference_lm.trained_parts()
    except LoadError as error:
        pytest.skip(str(error))
    return vistrim.load("reference-lm", device="cpu")


def accuracy(model, processor, tasks, images="own", method=None):
    scores = []
    for task in tasks:
        asked = with_images(items(task, "test", "full", PER_TASK), images)
        given = answer(model, processor, asked, method, max_new_tokens=48)
        scores += [item.score(g.answer) for g, item in zip(given, asked, strict=True)]
    return mean(scores)


def test_the_language_model_is_the_one_that_it_was_trained_on():
    assert reference_lm.find_base().name == reference_lm.BASE_FILE


@pytest.mark.slow
def test_text_is_formatted_and_read_as_smollm2_does():
    path = reference_lm.find_base()
    model, tokenizer = reference_lm.read_base(path)
    own = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    asked = {"role": "user", "content": "What is the capital of France?\nAnswer in 1 word."}
    for turns in ([asked], [{"role": "system", "content": "Be brief."}, asked]):
        text = own.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        assert tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False) == text
        assert tokenizer(text)["input_ids"] == own(text)["input_ids"]
    assert tokenizer.convert_tokens_to_ids(reference_lm.IMAGE) == model.config.vocab_size == len(own)


@pytest.mark.slow
def test_it_answers_questions_about_images_and_needs_the_image(loaded):
    assert accuracy(*loaded, SHORT_TASKS) >= 0.7
    assert accuracy(*loaded, SHORT_TASKS, "black") <= 0.45


@pytest.mark.slow
def test_sentences_untouched_and_trimmed(loaded):
    assert accuracy(*loaded, ["color-sentence", "portrait-sentence"]) >= 0.7
    fitted = as_method("st3:schedule=auto")
    assert accuracy(*loaded, ["color-sentence", "portrait-sentence"], method=fitted) >= 0.6


@pytest.mark.slow
def test_it_still_answers_without_an_image(loaded):
    model, processor = loaded
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    tokens = model.generate(**inputs, max_new_tokens=16, do_sample=False)
    assert "Paris" in processor.decode(tokens[0, inputs["input_ids"].shape[1] :])
