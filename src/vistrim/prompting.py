"""Prompts as a model's own processor formats them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from vistrim.errors import PromptError

#: Generation needs every prompt to end where its answer begins; many checkpoints pad on the right.
_PADDED = {"padding": True, "padding_side": "left"}

_NAMED_FOR_PICTURES = re.compile(r"ima?ge?|video|vision|frame|patch|audio", re.IGNORECASE)


@dataclass(frozen=True)
class PromptFormat:
    """How a question and its images become the text of a prompt.

    Attributes
    ----------
    name : str
        In words, for notes and results.
    is_own : bool
        Whether the model was trained on it; False: nobody knows.
    write : callable or None
        Makes the text of the images' placeholders and the question; None: the processor's chat template does.
    """

    name: str
    is_own: bool
    write: Callable[[list[str], str], str] | None


CHAT_TEMPLATE = PromptFormat("the processor's chat template", True, None)
LLAVA = PromptFormat(
    "USER: <images> <question> ASSISTANT:",
    True,
    lambda images, question: "USER: " + "".join(f"{image}\n" for image in images) + f"{question} ASSISTANT:",
)
BARE = PromptFormat("the images, then the bare question", True, lambda images, question: "".join(images) + question)
QUESTION = PromptFormat(
    "the bare question, to which the processor adds the image", True, lambda images, question: question
)
UNKNOWN = PromptFormat(
    f"{BARE.name}, as there is no chat template and the model's own format is not known", False, BARE.write
)

_FORMATS = {
    "LlavaProcessor": LLAVA,
    "VideoLlavaProcessor": LLAVA,
    "PaliGemmaProcessor": BARE,
    "FuyuProcessor": QUESTION,
}
"""Processor class to the format of its checkpoints without a chat template. LLaVA-NeXT's differs with its decoder."""


def prompt_format(processor: Any) -> PromptFormat:
    """The format in which `format_prompts` asks."""
    if getattr(processor, "chat_template", None):
        return CHAT_TEMPLATE
    return _FORMATS.get(type(processor).__name__, UNKNOWN)


def format_prompts(processor: Any, prompts: Sequence[str], images: Sequence[Sequence[Image.Image]]) -> Any:
    """Put each prompt and its images into one user turn, and the turns into one padded batch.

    Parameters
    ----------
    processor : ProcessorMixin
        As `vistrim.load` returns it. `prompt_format` says what becomes of prompts.
    prompts : sequence of str
        One per sample.
    images : sequence of sequences of PIL.Image.Image
        The images of each sample.

    Returns
    -------
    BatchFeature
        Inputs of ``model.generate``, on the CPU.

    Raises
    ------
    PromptError
        See `check_text`.
    """
    for prompt in prompts:
        check_text(processor, prompt)
    asked = prompt_format(processor)
    inputs = (
        _by_template(processor, prompts, images)
        if asked.write is None
        else _by_hand(processor, asked.write, prompts, images)
    )
    # Some processors add them for trainers (PaliGemma); a prompt has no right answer yet.
    inputs.pop("labels", None)
    return inputs


def _by_template(processor: Any, prompts: Sequence[str], images: Sequence[Sequence[Image.Image]]) -> Any:
    turns = [
        [
            {
                "role": "user",
                "content": [
                    *({"type": "image", "image": image} for image in shown),
                    {"type": "text", "text": prompt},
                ],
            }
        ]
        for prompt, shown in zip(prompts, images, strict=True)
    ]
    return processor.apply_chat_template(
        turns,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        # transformers writes into what it is given.
        processor_kwargs=dict(_PADDED),
    )


def _by_hand(
    processor: Any,
    write: Callable[[list[str], str], str],
    prompts: Sequence[str],
    images: Sequence[Sequence[Image.Image]],
) -> Any:
    token = _image_token(processor)
    texts = [write([token] * len(shown), prompt) for prompt, shown in zip(prompts, images, strict=True)]
    nested = [list(shown) for shown in images] if any(images) else None
    return processor(images=nested, text=texts, return_tensors="pt", **_PADDED)


def _image_token(processor: Any) -> str:
    """The token that stands for an image in a prompt's text."""
    return getattr(processor, "image_token", "<image>")


def check_text(processor: Any, text: str) -> None:
    """Refuse a text with a token that stands for an image or a video, or for a part or border of one.

    Raises
    ------
    PromptError
        Names the token.
    """
    added = processor.tokenizer.get_added_vocab()
    tokens = {token for token in added if _NAMED_FOR_PICTURES.search(token) and not token.isalnum()}
    names = ("image_token", "video_token", "audio_token")
    tokens |= {
        str(token)
        for part in (processor, processor.tokenizer)
        for name in names
        if (token := getattr(part, name, None))
    }
    found = [token for token in tokens | {_image_token(processor)} if token in text]
    if found:
        raise PromptError(
            f"the text contains {max(found, key=len)}, which stands for images or videos in this model's prompts: "
            "leave it out"
        )


def check_context(model: Any, inputs: Any, max_new_tokens: int) -> None:
    """Refuse inputs that, with the answer, outgrow the model's context.

    Raises
    ------
    PromptError
        With the longest answer that fits.
    """
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    length = inputs["input_ids"].shape[1]
    if context is None or length + max_new_tokens <= context:
        return
    fix = "shorten the prompt or give fewer images"
    if length < context:
        fix = f"use --max-new-tokens {context - length}, or {fix}"
    raise PromptError(
        f"prompt and images take {length} tokens and the answer up to {max_new_tokens}, but the model's "
        f"context is {context}: {fix}"
    )
