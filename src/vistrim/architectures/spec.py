"""Description of a model for the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vistrim.core.costs import DecoderShape, VisionShape
from vistrim.core.layout import Grid, ImageShape
from vistrim.core.model_facts import ModelFacts


class ReadShapes(Protocol):
    """Finds the layout of the visual tokens of images or videos."""

    def __call__(self, modality: str, arguments: Mapping[str, Any], lengths: Sequence[int]) -> list[ImageShape]:
        """Find the layouts for one call of the image encoder.

        Parameters
        ----------
        modality : str
            "image" or "video".
        arguments : mapping
            Arguments of the base model's ``get_image_features`` or ``get_video_features``, by name. Empty if the
            features were computed elsewhere.
        lengths : sequence of int
            Visual tokens of each entry of the features.
        """


class Arrange(Protocol):
    """Maps values of the tokens of a vision tower to the visual tokens computed from them."""

    def __call__(self, parts: Sequence[Tensor], modality: str, arguments: Mapping[str, Any]) -> Tensor:
        """Map the values of one call of the image encoder.

        Parameters
        ----------
        parts : sequence of Tensor
            Values of each call of the tower or its attention, ``[inputs, tokens]`` or ``[inputs, tokens, width]``,
            where inputs are images, tiles or frames. For a packed tower, ``[1, tokens]`` or ``[1, tokens, width]``, in
            the order of the sequence.
        modality : str
            "image" or "video".
        arguments : mapping
            Arguments of the base model's ``get_image_features`` or ``get_video_features``, by name.

        Returns
        -------
        Tensor
            ``[visual tokens]`` or ``[visual tokens, width]``, in the order of the prompts. The mean if several tower
            tokens are merged into one visual token. NaN for visual tokens without a source (between rows of tiles).
        """


class ReadSizes(Protocol):
    """Finds the lengths of the images, tiles or frames in a packed sequence of a vision tower."""

    def __call__(self, modality: str, arguments: Mapping[str, Any]) -> list[int]:
        """Return the lengths in tokens, in the order of the sequence. The parameters are those of `Arrange`."""


@dataclass(frozen=True)
class VisionTower:
    """Modules of a vision tower that the engine observes.

    Attributes
    ----------
    blocks : tuple of nn.Module
        Blocks of the tower. Each returns hidden states ``[images, tokens, width]``.
    attentions : tuple of nn.Module
        Attention module of each block, which calls the attention interface.
    feature_block : int
        The block whose output becomes the visual tokens (the deepest if there are several). -1: the embeddings.
    has_cls : bool
        Whether the first token is a class token.
    features : nn.Module
        The module whose (first) output ``[images, tokens, width]`` becomes the visual tokens: the feature block, the
        norm after it, or the whole tower.
    arrange : Arrange
        Map from tower tokens to visual tokens.
    settings : mapping of str to object
        Values in the config, by name, that determine the feature block and that a call may override.
    for_videos : VisionTower or None
        A separate tower for videos, of the same structure.
    packed : ReadSizes or None
        For a tower with all images, tiles or frames in one sequence: their lengths. Its attention may be called for
        all of them together, for each of them, or for windows. None: each has its own row.
    """

    blocks: tuple[nn.Module, ...]
    attentions: tuple[nn.Module, ...]
    feature_block: int
    has_cls: bool
    features: nn.Module
    arrange: Arrange
    settings: Mapping[str, Any]
    for_videos: VisionTower | None = None
    packed: ReadSizes | None = None


@dataclass(frozen=True)
class Images:
    """Processing of images and videos before the decoder.

    Attributes
    ----------
    shapes : ReadShapes
        Layout of the visual tokens.
    grid : tuple of int or None
        Rows and columns of the visual tokens of an image, tile or frame, if all have the same grid.
    tokens : int or None
        Visual tokens of an image, tile or frame by the config, if all have the same number.
    pixels : int or None
        Height and width of an image, tile or frame in pixels, if all have the same size.
    tower : VisionTower or None
        The vision tower. None: the map from its patches to visual tokens is not known.
    cost : VisionShape or None
        Sizes for the cost figures. None: not known.
    stays : mapping of str to str
        For each modality whose features the model itself may drop: the name of the argument of the base model that
        marks the features that stay, ``[features]`` bool.
    parts_unknown : bool
        Whether an image may really be a tile of a larger one, which the model is not told.
    """

    shapes: ReadShapes
    grid: Grid | None = None
    tokens: int | None = None
    pixels: int | None = None
    tower: VisionTower | None = None
    cost: VisionShape | None = None
    stays: Mapping[str, str] = field(default_factory=dict)
    parts_unknown: bool = False


Rotary = Callable[[int, Tensor, Tensor], Any]
"""Computes the RoPE tables of a layer, given its number, hidden states ``[batch, rows, hidden]`` (for dtype and device)
and position ids ``[batch, rows]``."""


@dataclass(frozen=True)
class ModelSpec:
    """The parts of a multimodal model.

    Attributes
    ----------
    name : str
        Class and checkpoint, for reports.
    checkpoint : str
        Source of the weights: a folder, a Hugging Face id, or empty.
    base : nn.Module
        The module that receives ``input_ids`` and image features and calls the decoder.
    decoder : nn.Module
        The text model whose forward pass runs the decoder layers.
    layers : tuple of nn.Module
        The decoder layers. Each has a ``self_attn`` that calls the attention interface.
    rotary : Rotary
        Computes RoPE tables for tokens with new positions.
    rope_axes : int
        Number of axes of a RoPE position: 1, or 3 (time, row, column) for M-RoPE.
    norm : nn.Module or None
        The norm after the last layer, if it has its usual name.
    embed : nn.Embedding
        The word embeddings.
    images : Images
        Processing of images and videos.
    visual_token_ids : mapping of str to int
        Placeholder id in ``input_ids`` of each modality: "image", "video".
    decoder_shape : DecoderShape
        Sizes for the cost figures.
    longest : int or None
        Sequence length beyond which attention depends on row indices instead of positions. None: never.
    """

    name: str
    checkpoint: str
    base: nn.Module
    decoder: nn.Module
    layers: tuple[nn.Module, ...]
    rotary: Rotary
    rope_axes: int
    norm: nn.Module | None
    embed: nn.Embedding
    images: Images
    visual_token_ids: Mapping[str, int]
    decoder_shape: DecoderShape
    longest: int | None = None

    @property
    def facts(self) -> ModelFacts:
        """Facts about the model that methods may use."""
        folder = Path(self.checkpoint)
        return ModelFacts(
            name=folder.name,
            folder=folder if self.checkpoint and folder.is_dir() else None,
            decoder=self.decoder_shape,
            grid=self.images.grid,
            rope_axes=self.rope_axes,
            device=str(self.device),
            dtype=self.dtype,
        )

    @property
    def model_type(self) -> str:
        """Model type in transformers."""
        return self.base.config.model_type  # type: ignore[union-attr, return-value]

    @property
    def device(self) -> torch.device:
        """Device of the model's inputs."""
        device = self.embed.weight.device
        if device.type != "meta":
            return device
        # Offloaded: accelerate moves the weights to the execution device only while they are used.
        hook = getattr(self.embed, "_hf_hook", None)
        places = [getattr(one, "execution_device", None) for one in getattr(hook, "hooks", [hook])]
        return next((torch.device(place) for place in places if place is not None), device)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the embeddings, and of keys and values."""
        return self.embed.weight.dtype

    @property
    def attentions(self) -> list[Any]:
        """The attention module of each decoder layer."""
        return [layer.self_attn for layer in self.layers]
