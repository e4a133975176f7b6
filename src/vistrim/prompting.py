"""Prompts as a model's own processor formats them."""

from collections.abc import Sequence
from typing import Any

from PIL import Image

from vistrim.errors import PromptError

#: Generation needs every prompt to end where its answer begins; many checkpoints pad on the right.
_PADDED = {"padding": True, "padding_side": "left"}


def format_prompts(processor: Any, prompts: Sequence[str], images: Sequence[Sequence[Image.Image]]) -> Any:
    """Put each prompt and its images into one user turn, and the turns into one padded batch.

    Parameters
    ----------
    processor : ProcessorMixin
        As `vistrim.load` returns it. Without a chat template, LLaVA's plain "USER: ... ASSISTANT:" is used.
    prompts : sequence of str
        One per sample.
    images : sequence of sequences of PIL.Image.Image
        The images of each sample.

    Returns
    -------
    BatchFeature
        Inputs of ``model.generate``, on the CPU.
    """
    if getattr(processor, "chat_template", None):
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
    texts = [
        "USER: " + f"{image_token(processor)}\n" * len(shown) + f"{prompt} ASSISTANT:"
        for prompt, shown in zip(prompts, images, strict=True)
    ]
    flat = [image for shown in images for image in shown]
    return processor(images=flat, text=texts, return_tensors="pt", **_PADDED)


def image_token(processor: Any) -> str:
    """The token that stands for an image in a prompt's text."""
    return getattr(processor, "image_token", "<image>")


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
