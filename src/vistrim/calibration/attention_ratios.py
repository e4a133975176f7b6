"""Ratio of each attention head's attention to images and to text."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vistrim.core.query_text import text_behind_images
from vistrim.core.scores import AttentionRows
from vistrim.engine.inputs.prompt import Prompt
from vistrim.engine.inputs.query_rows import QueryRows
from vistrim.engine.single_pass import read_rows


def attention_ratios(model: Any, inputs: Mapping[str, Any]) -> Tensor:
    """Attention of the text after the images to visual tokens, divided by its attention to text.

    Parameters
    ----------
    model : PreTrainedModel
        A supported model, not being trimmed.
    inputs : mapping
        Processor output for one or more prompts.

    Returns
    -------
    Tensor
        ``[batch, layers, heads]`` float32, on the CPU.

    Raises
    ------
    ValueError
        If a prompt has no image, no text after it, or no token ids.
    UnsupportedModelError
        If the model is not supported, or is being trimmed.
    """
    ratios: list[Tensor] = []
    visual = torch.empty(0)

    def choose(prompt: Prompt) -> QueryRows:
        nonlocal visual
        tokens, image = prompt.tokens, prompt.inputs.visual
        visual = torch.zeros_like(tokens.valid) if image is None else image & tokens.valid
        question = text_behind_images(visual, tokens.valid)
        if not visual.any(1).all() or not question.any(1).all():
            raise ValueError("every prompt needs an image and text after it: leave out other prompts")
        return QueryRows.of(question, tokens, prompt)

    def read(layer: int, rows: AttentionRows, value: Tensor) -> None:
        on_image = visual.to(value.device)[:, None, None]
        image = text = torch.zeros((), device=value.device)
        for weights, _ in rows.blocks():
            image = image + (weights * on_image).sum((2, 3))
            text = text + (weights * ~on_image).sum((2, 3))
        ratios.append((image / text).cpu())

    read_rows(model, inputs, choose, read)
    return torch.stack(ratios, 1)
