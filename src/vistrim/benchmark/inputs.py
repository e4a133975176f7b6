"""Prompts of a given length for models with random weights: ids and pixels as the family's processor returns them."""

from typing import Any

import torch
from torch import Tensor

from vistrim.benchmark.images import Images
from vistrim.engine import ModelSpec
from vistrim.errors import BenchmarkError

FIRST_WORD, WORDS = 1000, 20_000
"""Ids of ordinary words in every vocabulary; special tokens have other ids."""
MIN_TEXT = 2
"""A token before the images, and one after them."""


def visual_tokens(spec: ModelSpec, ids: Tensor) -> int:
    """Visual tokens of the first of the prompts ``[batch, tokens]``."""
    return int(torch.isin(ids[0], torch.tensor([*spec.visual_token_ids.values()], device=ids.device)).sum())


def make_inputs(
    config: Any,
    images: Images,
    count: int,
    batch: int,
    text_tokens: int,
    device: torch.device,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Make the arguments of ``generate`` for a batch of prompts with the same words and different pixels.

    A quarter of the words comes before the images. There are no separators around or between images; the tokens that
    some families put there are counted among the words.

    Parameters
    ----------
    config : PreTrainedConfig
        Config of the model; it has the id of the placeholder.
    images : Images
        Images of the prompts.
    count : int
        Number of images in each sample.
    batch, text_tokens : int
        Number of samples, and of words in each.
    device : torch.device
        Device of the tensors. On the meta device they have sizes and no storage.
    seed : int
        Seed of the pixels.

    Raises
    ------
    BenchmarkError
        If there are too few words.
    """
    if text_tokens < MIN_TEXT:
        raise BenchmarkError(f"a prompt needs words around its images: use at least {MIN_TEXT} text tokens")
    image = getattr(config, "image_token_id", None) or config.image_token_index
    words = FIRST_WORD + torch.arange(text_tokens) % WORDS
    front = max(1, text_tokens // 4)
    ids = torch.cat([words[:front], torch.full((count * images.tokens,), image), words[front:]]).repeat(batch, 1)
    generator = torch.Generator().manual_seed(seed)

    def draw(*sizes: int) -> Tensor:
        if device.type == "meta":
            return torch.empty(sizes, device=device)
        return torch.randn(sizes, generator=generator)

    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **images.inputs(count, batch, draw)}
    if "image_grid_thw" in inputs:
        # M-RoPE needs it to find images.
        inputs["mm_token_type_ids"] = (ids == image).long()
    return {name: tensor.to(device) for name, tensor in inputs.items()}
