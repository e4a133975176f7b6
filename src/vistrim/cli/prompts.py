"""Prompts from the command line or standard input, and the model inputs made from them."""

import sys
from collections.abc import Sequence
from typing import Any

from PIL import Image

from vistrim.cli.error_lines import CommandError, WrongUsageError
from vistrim.errors import PromptError
from vistrim.evaluation.questions import is_unicode
from vistrim.loading import is_out_of_memory
from vistrim.prompting import check_context, check_text, format_prompts

STDIN = "-"


def read_prompts(prompt: str | None) -> list[str]:
    """Take the prompt that was given, or every non-empty line of standard input.

    Raises
    ------
    WrongUsageError
        If there is none, or it is empty.
    """
    if prompt is not None and prompt != STDIN:
        if not prompt.strip():
            raise WrongUsageError("the prompt is empty: say what you want to know about the image")
        return [_checked(prompt.strip(), "the prompt", sys.getfilesystemencoding())]
    # A process started without standard input has None there.
    if sys.stdin is None or (prompt is None and sys.stdin.isatty()):
        raise WrongUsageError("there is no prompt: give one with -p, or pipe prompts in, one per line")
    try:
        lines = sys.stdin.read().splitlines()
    except UnicodeDecodeError as error:
        raise WrongUsageError(
            f"standard input is no text in {error.encoding}: pipe prompts in, one per line, in that encoding"
        ) from error
    encoding = getattr(sys.stdin, "encoding", None) or "utf-8"
    prompts = [_checked(line.strip(), "a prompt on standard input", encoding) for line in lines if line.strip()]
    if not prompts:
        raise WrongUsageError("standard input holds no prompt: give one with -p, or pipe prompts in, one per line")
    return prompts


def _checked(prompt: str, which: str, encoding: str) -> str:
    if not is_unicode(prompt):
        raise WrongUsageError(f"{which} is no text in {encoding}: give it in that encoding")
    return prompt


def unknown_words(processor: Any, prompt: str) -> list[str]:
    """Words of the prompt that a model with a small vocabulary cannot read."""
    tokenizer = processor.tokenizer
    if tokenizer.unk_token_id is None:
        return []
    return [
        word
        for word in prompt.split()
        if tokenizer.unk_token_id in tokenizer(word, add_special_tokens=False)["input_ids"]
    ]


def build_inputs(model: Any, processor: Any, images: Sequence[Image.Image], prompt: str, max_new_tokens: int) -> Any:
    """Put all images and the prompt into one user turn.

    Returns
    -------
    BatchFeature
        Inputs of ``model.generate`` for one sample, on the model's device and in its dtype.

    Raises
    ------
    WrongUsageError
        If the prompt contains a placeholder for images or videos.
    CommandError
        If the processor cannot format them.
    PromptError
        If the inputs and the answer do not fit into the model's context.
    """
    try:
        check_text(processor, prompt)
    except PromptError as error:
        raise WrongUsageError(str(error)) from error
    try:
        inputs = format_prompts(processor, [prompt], [images])
    # Chat templates and processors are the checkpoint's own and fail in many ways.
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise CommandError(f"the model's processor cannot format the prompt ({error}): check its files") from error
    check_context(model, inputs, max_new_tokens)
    return inputs.to(model.device, dtype=model.dtype)
