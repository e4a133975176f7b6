"""Prompts from the command line or standard input, and the model inputs made from them."""

import string
import sys
from collections.abc import Sequence
from typing import Any

import typer
from PIL import Image

from vistrim._utils.memory import is_out_of_memory
from vistrim.cli.error_lines import CommandError, WrongUsageError
from vistrim.errors import PromptError
from vistrim.evaluation.questions import is_unicode
from vistrim.prompting import check_context, check_text, format_prompts
from vistrim.shipped import TRAINED_BY

STDIN = "-"


def read_prompts(prompt: str | None) -> list[str]:
    """Return the given prompt, or every non-empty line of standard input.

    Raises
    ------
    WrongUsageError
        If there is none, or it is empty.
    """
    if prompt is not None and prompt != STDIN:
        if not prompt.strip():
            raise WrongUsageError("the prompt is empty: write a question about the image")
        return [_checked(prompt.strip(), "the prompt", sys.getfilesystemencoding())]
    # In a process started without standard input, it is None.
    if sys.stdin is None or (prompt is None and sys.stdin.isatty()):
        raise WrongUsageError("there is no prompt: give one with -p, or pipe prompts in, one per line")
    try:
        lines = sys.stdin.read().splitlines()
    except UnicodeDecodeError as error:
        raise WrongUsageError(
            f"standard input is not valid {error.encoding}: pipe prompts in, one per line, in that encoding"
        ) from error
    encoding = getattr(sys.stdin, "encoding", None) or "utf-8"
    prompts = [_checked(line.strip(), "a prompt on standard input", encoding) for line in lines if line.strip()]
    if not prompts:
        raise WrongUsageError("standard input has no prompt: give one with -p, or pipe prompts in, one per line")
    return prompts


def _checked(prompt: str, which: str, encoding: str) -> str:
    if not is_unicode(prompt):
        raise WrongUsageError(f"{which} is not valid {encoding}: give it in that encoding")
    return prompt


def note_unknown_words(model: str, processor: Any, prompt: str) -> None:
    """Print on standard error the words of a prompt that are not in the vocabulary of a small model."""
    tokenizer = processor.tokenizer
    if tokenizer.unk_token_id is None:
        return
    words = [word.strip(string.punctuation) for word in prompt.split()]
    unknown = [
        word for word in words if tokenizer.unk_token_id in tokenizer(word, add_special_tokens=False)["input_ids"]
    ]
    if unknown:
        few = f"; {model} knows only questions about drawn shapes" if model in TRAINED_BY else ""
        listed = f"word{'s' * (len(unknown) > 1)} {', '.join(unknown)}"
        typer.echo(f"note: the model does not know the {listed}{few}", err=True)


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
