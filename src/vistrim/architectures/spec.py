"""What the engine needs to know about a model."""

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
    """Tells how the visual tokens of images or videos lie."""

    def __call__(self, modality: str, arguments: Mapping[str, Any], lengths: Sequence[int]) -> list[ImageShape]:
        """Read it off one encoding.

        Parameters
        ----------
        modality : str
            "image" or "video".
        arguments : mapping
            Those of the base model's ``get_image_features`` or ``get_video_features``, by name; empty if the features
            were made elsewhere.
        lengths : sequence of int
            Visual tokens of each entry of the features.
        """


class Arrange(Protocol):
    """Brings what a vision tower computed for its own tokens to the visual tokens that are made of them."""

    def __call__(self, parts: Sequence[Tensor], modality: str, arguments: Mapping[str, Any]) -> Tensor:
        """Arrange the values of one encoding.

        Parameters
        ----------
        parts : sequence of Tensor
            Of each call of the tower (or of its attention): ``[pictures, tokens]`` or ``[pictures, tokens, width]``.
            Of a packed tower they are ``[1, tokens]`` or ``[1, tokens, width]``, one behind the other the whole
            sequence.
        modality : str
            "image" or "video".
        arguments : mapping
            Those of the base model's ``get_image_features`` or ``get_video_features``, by name.

        Returns
        -------
        Tensor
            ``[visual tokens]`` or ``[visual tokens, width]``, in the order of the prompts. Where several tokens of the
            tower are merged into one, their mean; NaN where a visual token is made of none (between rows of tiles).
        """


class ReadSizes(Protocol):
    """Tells how long the pictures are that a vision tower has in one sequence."""

    def __call__(self, modality: str, arguments: Mapping[str, Any]) -> list[int]:
        """Tokens of each picture in the tower, in its order; the parameters are those of `Arrange`."""


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
    features : nn.Module
        Its output (the first, of several) ``[images, tokens, width]`` becomes the visual tokens: the feature block, the
        norm behind it, or the whole tower.
    arrange : Arrange
        From the tower's tokens to visual tokens.
    settings : mapping of str to object
        Values in the config, by name, that a call may override and with them the feature block.
    for_videos : VisionTower or None
        The tower that sees videos, where that is another one, of the same make.
    packed : ReadSizes or None
        For a tower that has all pictures in one sequence: where each ends. Its attention may be called for all of them
        at once, for each picture, or for windows of it. None: each picture has a row of its own.
    project : nn.Module or None
        The projector, where a visual token is what it makes of one row of ``features`` as arranged; None: it is given
        several of them, or something else happens on the way.
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
    project: nn.Module | None = None


@dataclass(frozen=True)
class Images:
    """What becomes of images and videos on their way into the decoder.

    Attributes
    ----------
    shapes : ReadShapes
        How their visual tokens lie.
    grid : tuple of int or None
        Rows and columns of the visual tokens of a picture, where all pictures have the same.
    tokens : int or None
        Visual tokens of a picture, by the config, where all pictures have the same.
    pixels : int or None
        Height and width of a picture, where all pictures have the same.
    tower : VisionTower or None
        The vision tower; None: how its patches become visual tokens is not known.
    cost : VisionShape or None
        Sizes for the cost figures; None: not known.
    stays : mapping of str to str
        For each modality of which the model itself may leave features out: the argument of its base model that says
        which stay, ``[features]`` bool.
    interpolates : bool
        Whether each patch of an image becomes a visual token, and ``get_image_features`` takes
        ``interpolate_pos_encoding`` for images of another size.
    smaller : str
        The processor's option for smaller images, where they have several sizes.
    """

    shapes: ReadShapes
    grid: Grid | None = None
    tokens: int | None = None
    pixels: int | None = None
    tower: VisionTower | None = None
    cost: VisionShape | None = None
    stays: Mapping[str, str] = field(default_factory=dict)
    interpolates: bool = False
    smaller: str = "its `size`"


Rotary = Callable[[int, Tensor, Tensor], Any]
"""Makes the RoPE tables of a layer, given its number, hidden states ``[batch, rows, hidden]`` for their type and
device, and position ids ``[batch, rows]``."""


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
    rotary : Rotary
        RoPE of tokens that get other positions than their own.
    rope_axes : int
        1, or 3 for M-RoPE, whose positions have a time, a row and a column.
    norm : nn.Module or None
        The normalisation behind the last layer, where it has its usual name.
    embed : nn.Embedding
        The word embeddings.
    images : Images
        Images and videos.
    visual_token_ids : mapping of str to int
        Placeholder id in ``input_ids`` for each modality: "image", "video".
    decoder_shape : DecoderShape
        Sizes for the cost figures.
    longest : int or None
        Tokens of a sequence beyond which the decoder counts rows instead of positions; None: it never does.
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
        """What methods may know."""
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
        """By the name that transformers has for it."""
        return self.base.config.model_type  # type: ignore[union-attr, return-value]

    @property
    def device(self) -> torch.device:
        """Where the model takes its inputs."""
        device = self.embed.weight.device
        if device.type != "meta":
            return device
        # Offloaded: accelerate brings the weights to where they are used, and only for that time.
        hook = getattr(self.embed, "_hf_hook", None)
        places = [getattr(one, "execution_device", None) for one in getattr(hook, "hooks", [hook])]
        return next((torch.device(place) for place in places if place is not None), device)

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the embeddings, and of keys and values."""
        return self.embed.weight.dtype

    @property
    def attentions(self) -> list[Any]:
        """The attention module of each decoder layer."""
        return [layer.self_attn for layer in self.layers]
