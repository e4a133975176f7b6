"""Prompts of items: their validation for a model, and its inputs."""

from collections.abc import Sequence
from typing import Any

from vistrim.errors import InputError, PromptError
from vistrim.evaluation.items import Item
from vistrim.evaluation.questions import is_video
from vistrim.prompting import check_text, check_videos, format_conversations, user_turn


def check_prompts(items: Sequence[Item], processor: Any) -> None:
    """Refuse questions that the processor cannot format, and placeholders for images or videos in answers.

    Raises
    ------
    InputError
        If there is one; the message names the question.
    """
    for item in items:
        try:
            check_text(processor, f"{item.prompt}\n{item.right}")
        except PromptError as error:
            raise InputError(f"the question {item.id} or its answer: {error}") from error
        try:
            if is_video(item):
                check_videos(processor)
        except PromptError as error:
            raise InputError(f"the question {item.id} is about a video, but {error}") from error


def format_items(processor: Any, items: Sequence[Item]) -> Any:
    """Format each item as one user turn, and pad the turns to a batch.

    Parameters
    ----------
    processor : ProcessorMixin
        As returned by `vistrim.load`.
    items : sequence of Item
        Items, whose images are drawn or read.

    Returns
    -------
    BatchFeature
        Inputs of ``model.generate``, on the CPU.

    Raises
    ------
    InputError
        If an image cannot be read.
    PromptError
        If a prompt contains a special token for images, or a video for which the processor has no use.
    """
    return format_conversations(processor, [[user_turn(item.prompt, item.shown())] for item in items])
