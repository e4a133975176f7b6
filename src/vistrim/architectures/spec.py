"""What the engine needs to know about a model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from vistrim.core.costs import DecoderShape, VisionShape
from vistrim.methods.views import ModelFacts


class ImageSizes(Protocol):
    """Tells how many visual tokens each image of a forward pass has, in prompt order."""

    def __call__(self, inputs: Mapping[str, Any], visual_tokens: int) -> list[int]:
        """Read it off the keyword arguments of the base model's forward pass."""


@dataclass(frozen=True)
class VisionTower:
    """Where the encoding of images can be watched.

    Attributes
    ----------
    blocks : tuple of nn.Module
        Each returns hidden states ``[images, tokens, width]``.
    attentions : tuple of nn.Module
        The attention module of each block; it calls the attention interface.
    feature_block : int
        The block whose output the decoder gets to see (the deepest, if there are several); -1: the embeddings.
    has_cls : bool
        Whether the first token is a class token.
    projector : nn.Module
        Receives the features ``[images, tokens, width]``, one for each visual token.
    settings : mapping of str to object
        Values in the config, by name, that a call may override and with them the feature block.
    image_size : int
        Height and width of an image, in pixels.
    """

    blocks: tuple[nn.Module, ...]
    attentions: tuple[nn.Module, ...]
    feature_block: int
    has_cls: bool
    projector: nn.Module
    settings: Mapping[str, Any]
    image_size: int


@dataclass(frozen=True)
class ModelSpec:
    """A multimodal model, taken apart.

    Attributes
    ----------
    name : str
        Class and checkpoint, for reports.
    checkpoint : str
        Where the weights came from: a folder, a Hugging Face id, or nothing.
    base : nn.Module
        The module that receives ``input_ids`` and image features and calls the decoder.
    decoder : nn.Module
        The text model whose forward pass runs the decoder layers.
    layers : tuple of nn.Module
        The decoder layers; each has a ``self_attn`` that calls the attention interface.
    rotary : nn.Module
        Makes the RoPE tables of hidden states at given position ids.
    norm : nn.Module
        The normalisation behind the last layer.
    embed : nn.Embedding
        The word embeddings.
    vision : VisionTower
        The vision tower.
    visual_token_ids : tuple of int
        Placeholder ids in ``input_ids``.
    grid : tuple of int
        Rows and columns of one image's visual tokens.
    image_tokens : int
        Visual tokens of one image, by the config.
    image_sizes : ImageSizes
        Visual tokens per image of a forward pass.
    decoder_shape, vision_shape
        Sizes for the cost figures.
    """

    name: str
    checkpoint: str
    base: nn.Module
    decoder: nn.Module
    layers: tuple[nn.Module, ...]
    rotary: nn.Module
    norm: nn.Module
    embed: nn.Embedding
    vision: VisionTower
    visual_token_ids: tuple[int, ...]
    grid: tuple[int, int]
    image_tokens: int
    image_sizes: ImageSizes
    decoder_shape: DecoderShape
    vision_shape: VisionShape

    @property
    def facts(self) -> ModelFacts:
        """What methods may know."""
        folder = Path(self.checkpoint)
        return ModelFacts(
            name=folder.name,
            folder=folder if self.checkpoint and folder.is_dir() else None,
            decoder=self.decoder_shape,
            grid=self.grid,
            device=str(self.device),
            dtype=self.dtype,
        )

    @property
    def device(self) -> torch.device:
        """Where the model takes its inputs."""
        return self.embed.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the embeddings, and of keys and values."""
        return self.embed.weight.dtype

    @property
    def attentions(self) -> list[Any]:
        """The attention module of each decoder layer."""
        return [layer.self_attn for layer in self.layers]
