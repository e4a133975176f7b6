"""Formats of prompts where there is no chat template, and texts that would be taken for images."""

import pytest
from PIL import Image

from tests.cli.checkpoint import build_processor, save
from tests.cli.invoke import error_line, vistrim
from tests.processors.zoo import CHECKPOINTS
from vistrim.errors import PromptError
from vistrim.prompting import BARE, CHAT_TEMPLATE, LLAVA, UNKNOWN, check_text, format_prompts, prompt_format

IMAGE = Image.new("RGB", (20, 20), "red")


@pytest.fixture(scope="module")
def paligemma():
    return CHECKPOINTS["paligemma"].processor()


@pytest.fixture(scope="module")
def llava_next():
    processor = CHECKPOINTS["llava_next"].processor()
    processor.chat_template = None
    return processor


def test_paligemma_is_given_the_bare_question(paligemma):
    inputs = format_prompts(paligemma, ["what is it", "how many"], [[IMAGE], [IMAGE, IMAGE]])
    own = paligemma(
        images=[[IMAGE], [IMAGE, IMAGE]],
        text=["<image>what is it", "<image><image>how many"],
        return_tensors="pt",
        padding=True,
        padding_side="left",
    )
    assert inputs["input_ids"].tolist() == own["input_ids"].tolist()
    assert "labels" not in inputs


def test_formats_by_processor(paligemma, llava_next):
    assert prompt_format(build_processor()) is CHAT_TEMPLATE
    assert prompt_format(build_processor(chat_template=None)) is LLAVA
    assert prompt_format(paligemma) is BARE
    # Its checkpoints have the formats of several decoders.
    assert prompt_format(llava_next) is UNKNOWN


def test_a_format_that_is_not_known_is_said(monkeypatch, tmp_path, image):
    path = str(save(tmp_path / "model", chat_template=None))
    arguments = ("run", image, "-p", "what is this", "--model", path, "--max-new-tokens", "2", "--json")
    assert "note:" not in vistrim(*arguments).stderr
    monkeypatch.setattr("vistrim.prompting._FORMATS", {})
    result = vistrim(*arguments)
    assert result.exit_code == 0
    assert f"note: prompts are {UNKNOWN.name}" in result.stderr


@pytest.mark.parametrize("token", ["<image_soft_token>", "<start_of_image>", "<end_of_image>"])
def test_every_placeholder_is_refused(token):
    with pytest.raises(PromptError, match=token):
        check_text(CHECKPOINTS["gemma3"].processor(), f"what {token} is this")


def test_words_about_images_are_not(paligemma):
    check_text(paligemma, "Is there an image in this video, or a <video>?")
    with pytest.raises(PromptError, match="<image>"):
        format_prompts(paligemma, ["what <image> is"], [[IMAGE]])


def test_a_placeholder_on_the_command_line(checkpoint, image):
    result = vistrim("run", image, "-p", "what <image>", "--model", checkpoint)
    assert result.exit_code == 2
    assert "<image>, which stands for images" in error_line(result)
