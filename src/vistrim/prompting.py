"""Prompts in the format of a model's processor."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from vistrim.errors import PromptError

PADDED = {"padding": True, "padding_side": "left"}
"""Generation needs padding on the left: every prompt ends where its answer begins. Many checkpoints pad right."""

_NAMED_FOR_PICTURES = re.compile(r"ima?ge?|video|vision|frame|patch|audio", re.IGNORECASE)


@dataclass(frozen=True)
class PromptFormat:
    """Format of a prompt with a question and its images.

    Attributes
    ----------
    name : str
        Description for notes and results.
    write : callable or None
        Writes the prompt, given the image placeholders and the question. None: the chat template is used.
    """

    name: str
    write: Callable[[list[str], str], str] | None


CHAT_TEMPLATE = PromptFormat("the processor's chat template", None)
LLAVA = PromptFormat(
    "USER: <images> <question> ASSISTANT:",
    lambda images, question: "USER: " + "".join(f"{image}\n" for image in images) + f"{question} ASSISTANT:",
)
BARE = PromptFormat("the images, then the question alone", lambda images, question: "".join(images) + question)
QUESTION = PromptFormat("the question alone, to which the processor adds the image", lambda images, question: question)
UNKNOWN = PromptFormat(
    f"{BARE.name}, because there is no chat template and the format of the model is not known", BARE.write
)

_FORMATS = {
    "LlavaProcessor": LLAVA,
    "VideoLlavaProcessor": LLAVA,
    "PaliGemmaProcessor": BARE,
    "FuyuProcessor": QUESTION,
}
"""Processor class to prompt format, for checkpoints without a chat template. LLaVA-NeXT's depends on its decoder."""


def prompt_format(processor: Any) -> PromptFormat:
    """Return the format that `format_prompts` uses."""
    if getattr(processor, "chat_template", None):
        return CHAT_TEMPLATE
    return _FORMATS.get(type(processor).__name__, UNKNOWN)


def image_parts(images: Sequence[Image.Image]) -> list[dict[str, Any]]:
    """Make the parts of a message that show images."""
    return [{"type": "image", "image": image} for image in images]


def video_part(frames: Sequence[Image.Image]) -> dict[str, Any]:
    """Make the part of a message that shows a video."""
    return {"type": "video", "video": list(frames)}


def user_turn(prompt: str, shown: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Make the message of a user: images or videos (parts of a message), then the question."""
    return {"role": "user", "content": [*shown, {"type": "text", "text": prompt}]}


def format_prompts(processor: Any, prompts: Sequence[str], images: Sequence[Sequence[Image.Image]]) -> Any:
    """Format each prompt and its images as one user turn, and pad the turns to a batch.

    Parameters
    ----------
    processor : ProcessorMixin
        As returned by `vistrim.load`. For the format see `prompt_format`.
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
        If a prompt contains a special token for images, see `check_text`.
    """
    return format_conversations(
        processor, [[user_turn(prompt, image_parts(shown))] for prompt, shown in zip(prompts, images, strict=True)]
    )


def format_conversations(processor: Any, conversations: Sequence[Sequence[Mapping[str, Any]]], **options: Any) -> Any:
    """Format conversations that wait for an answer, and pad them to a batch.

    Parameters
    ----------
    processor : ProcessorMixin
        As returned by `vistrim.load`. For the format see `prompt_format`.
    conversations : sequence of sequences of mappings
        The messages of each sample, as transformers' chat templates take them: ``{"role": "user", "content": [part,
        ...]}``. A part is ``{"type": "text", "text": str}``, ``{"type": "image", "image": PIL.Image.Image}`` or
        ``{"type": "video", "video": path or list of PIL.Image.Image}``. If frames are given, all of them are used; the
        videos of a batch are all of one kind.
    **options
        Further arguments of the processor, such as ``num_frames``.

    Returns
    -------
    BatchFeature
        Inputs of ``model.generate``, on the CPU.

    Raises
    ------
    PromptError
        If a text contains a special token for images (see `check_text`), there is a video and the processor takes none
        (see `check_videos`), or there is no chat template and a conversation is more than one question about images.
    """
    for part in parts_of(conversations):
        if part["type"] == "text":
            check_text(processor, part["text"])
        elif part["type"] == "video":
            check_videos(processor)
            if isinstance(part["video"], list):
                # Many processors choose among the frames otherwise.
                options["do_sample_frames"] = False
    asked = prompt_format(processor)
    inputs = (
        _by_template(processor, conversations, options)
        if asked.write is None
        else _by_hand(processor, asked.write, conversations, options)
    )
    # Some processors add labels for training (PaliGemma). A prompt has no answer yet.
    inputs.pop("labels", None)
    return inputs


def parts_of(conversations: Sequence[Sequence[Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
    """Return the parts of all messages, in order."""
    return [part for messages in conversations for message in messages for part in message["content"]]


def _by_template(
    processor: Any, conversations: Sequence[Sequence[Mapping[str, Any]]], options: Mapping[str, Any]
) -> Any:
    # transformers modifies its arguments.
    turns = [[{**turn, "content": [dict(part) for part in turn["content"]]} for turn in one] for one in conversations]
    return processor.apply_chat_template(
        turns,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={**PADDED, **options},
    )


def _by_hand(
    processor: Any,
    write: Callable[[list[str], str], str],
    conversations: Sequence[Sequence[Mapping[str, Any]]],
    options: Mapping[str, Any],
) -> Any:
    token = _image_token(processor)
    asked = [_question(messages) for messages in conversations]
    texts = [write([token] * len(shown), prompt) for shown, prompt in asked]
    images = [shown for shown, _ in asked]
    nested = images if any(images) else None
    return processor(images=nested, text=texts, return_tensors="pt", **PADDED, **options)


def _question(messages: Sequence[Mapping[str, Any]]) -> tuple[list[Any], str]:
    """Return the images and the text of a single question about images."""
    parts = parts_of([messages])
    *shown, last = parts or [{"type": ""}]
    kinds = {part["type"] for part in shown}
    if len(messages) != 1 or kinds - {"image"} or last["type"] != "text":
        raise PromptError(
            "this checkpoint has no chat template: ask one question that consists of images and the text behind them, "
            "or add a chat_template.jinja to its folder"
        )
    return [part["image"] for part in shown], last["text"]


def _image_token(processor: Any) -> str:
    """Return the placeholder of an image in the text of a prompt."""
    return getattr(processor, "image_token", "<image>")


def check_text(processor: Any, text: str) -> None:
    """Check that a text contains no special token for images or videos.

    Raises
    ------
    PromptError
        If it contains one. The message names the token.
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
            f"the text contains {max(found, key=len)}, which stands for images or videos in prompts of this model: "
            "remove it"
        )


def check_videos(processor: Any) -> None:
    """Check that prompts for a processor may contain videos.

    Raises
    ------
    PromptError
        If they may not.
    """
    if getattr(processor, "video_processor", None) is None:
        raise PromptError("the processor of this model takes no videos: use a model for videos, or show images instead")
    if prompt_format(processor).write is not None:
        raise PromptError(
            "this checkpoint has no chat template, which videos need: add a chat_template.jinja to its folder"
        )


def check_context(model: Any, inputs: Any, max_new_tokens: int) -> None:
    """Check that the inputs and the answer fit into the context of the model.

    Raises
    ------
    PromptError
        If they do not. The message names the longest answer that fits.
    """
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    length = inputs["input_ids"].shape[1]
    if context is None or length + max_new_tokens <= context:
        return
    fix = "shorten the prompt or use fewer images"
    if length < context:
        fix = f"use --max-new-tokens {context - length}, or {fix}"
    raise PromptError(
        f"prompt and images take {length} tokens and the answer up to {max_new_tokens}, but the context of the "
        f"model is {context} tokens: {fix}"
    )
