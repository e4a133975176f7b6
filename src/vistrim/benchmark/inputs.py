"""Prompts of so many tokens for models with random weights: ids and pixels, as the family's processor gives them."""

from typing import Any

import torch
from torch import Tensor

from vistrim.benchmark.pictures import Pictures
from vistrim.engine import ModelSpec
from vistrim.errors import BenchmarkError

FIRST_WORD, WORDS = 1000, 20_000
"""Ids of ordinary words in every vocabulary: special tokens lie outside."""
MIN_TEXT = 2
"""A token in front of the pictures, and one behind them."""


def visual_tokens(spec: ModelSpec, ids: Tensor) -> int:
    """Visual tokens of the first of the prompts ``[batch, tokens]``."""
    return int(torch.isin(ids[0], torch.tensor([*spec.visual_token_ids.values()], device=ids.device)).sum())


def make_inputs(
    config: Any,
    pictures: Pictures,
    count: int,
    batch: int,
    text_tokens: int,
    device: torch.device,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Make what ``generate`` needs for a batch of prompts with the same words and different pixels.

    A quarter of the words is in front of the pictures. Nothing else is around or between them: the tokens that some
    families put there are among the words.

    Parameters
    ----------
    config : PreTrainedConfig
        Names the placeholder.
    pictures : Pictures
        What prompts show.
    count : int
        How many of them each sample shows.
    batch, text_tokens : int
        Samples, and words of each.
    device : torch.device
        Where the tensors will be. On the meta device they have sizes and no storage.
    seed : int
        Of the pixels.

    Raises
    ------
    BenchmarkError
        If there are too few words.
    """
    if text_tokens < MIN_TEXT:
        raise BenchmarkError(f"a prompt needs words around its pictures: use at least {MIN_TEXT} text tokens")
    image = getattr(config, "image_token_id", None) or config.image_token_index
    words = FIRST_WORD + torch.arange(text_tokens) % WORDS
    front = max(1, text_tokens // 4)
    ids = torch.cat([words[:front], torch.full((count * pictures.tokens,), image), words[front:]]).repeat(batch, 1)
    generator = torch.Generator().manual_seed(seed)

    def draw(*sizes: int) -> Tensor:
        if device.type == "meta":
            return torch.empty(sizes, device=device)
        return torch.randn(sizes, generator=generator)

    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **pictures.inputs(count, batch, draw)}
    if "image_grid_thw" in inputs:
        # M-RoPE finds pictures by it.
        inputs["mm_token_type_ids"] = (ids == image).long()
    return {name: tensor.to(device) for name, tensor in inputs.items()}
