"""Vision transformers that encode each image, tile or frame separately, on a square grid of patches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from vistrim.architectures.spec import Arrange, VisionTower
from vistrim.core.costs import VisionShape


@dataclass(frozen=True)
class _Make:
    """Names of the parts of a kind of tower. ``output`` is the module whose first output is the last hidden state."""

    blocks: str
    attention: str
    output: str = ""
    has_cls: bool = False
    gated: bool = False


_SIGLIP = _Make("encoder.layers", "self_attn")
_MAKES = {
    "clip_vision_model": _Make("encoder.layers", "self_attn", has_cls=True),
    "siglip_vision_model": _SIGLIP,
    "idefics3_vision": _SIGLIP,
    "smolvlm_vision": _SIGLIP,
    "janus_vision_model": _SIGLIP,
    "internvl_vision": _Make("encoder.layer", "attention", has_cls=True),
    "qianfan_ocr_vision": _Make("layers", "attention", has_cls=True),
    "ovis2_vision": _Make("transformer.encoder.layers", "attention", "transformer", gated=True),
}


@dataclass(frozen=True)
class ViT:
    """The parts of a vision tower.

    Attributes
    ----------
    blocks, attentions : tuple of nn.Module
        As in `VisionTower`.
    output : nn.Module
        The module whose first output is the last hidden state of the tower.
    side : int
        Patches along each side of an image, tile or frame, by the config.
    patch, pixels : int
        Pixels along each side of a patch, and of an image, tile or frame, by the config.
    hidden, intermediate : int
        Widths of the hidden states and of the feed-forward networks.
    has_cls : bool
        Whether the first token is a class token.
    gated : bool
        Whether the feed-forward networks have three matrices.
    """

    blocks: tuple[nn.Module, ...]
    attentions: tuple[nn.Module, ...]
    output: nn.Module
    side: int
    patch: int
    pixels: int
    hidden: int
    intermediate: int
    has_cls: bool
    gated: bool

    @property
    def tokens(self) -> int:
        """Tower tokens of an image, tile or frame, by the config."""
        return self.side**2 + self.has_cls

    @property
    def last(self) -> int:
        """Number of the last block."""
        return len(self.blocks) - 1

    def tower(self, arrange: Arrange, block: int | None, settings: Mapping[str, Any] | None = None) -> VisionTower:
        """Describe the tower if the output of ``block`` becomes the visual tokens; None: the last hidden state."""
        at = self.last if block is None else block
        return VisionTower(
            blocks=self.blocks,
            attentions=self.attentions,
            feature_block=at,
            has_cls=self.has_cls,
            features=self.output if block is None else self.blocks[at],
            arrange=arrange,
            settings=settings or {},
        )

    def cost(self, projector: tuple[int, ...], gated_projector: bool = False) -> VisionShape:
        """Return the sizes for the cost figures, with the given projector."""
        return VisionShape(
            layers=len(self.blocks),
            hidden=self.hidden,
            intermediate=self.intermediate,
            tokens=self.tokens,
            projector=projector,
            gated=self.gated,
            gated_projector=gated_projector,
        )


def take_apart(tower: Any) -> ViT | None:
    """Find the parts of a vision tower, or return None if its kind is not known."""
    config: Any = getattr(tower, "config", None)
    make = _MAKES.get(getattr(config, "model_type", ""))
    if make is None:
        return None
    pixels, patch = _along_a_side(config.image_size), _along_a_side(config.patch_size)
    if pixels is None or patch is None:
        return None
    blocks = tuple(tower.get_submodule(make.blocks))
    intermediate = getattr(config, "intermediate_size", None) or int(config.hidden_size * config.mlp_ratio)
    return ViT(
        blocks=blocks,
        attentions=tuple(getattr(block, make.attention) for block in blocks),
        output=tower.get_submodule(make.output),
        side=pixels // patch,
        patch=patch,
        pixels=pixels,
        hidden=config.hidden_size,
        intermediate=intermediate,
        has_cls=make.has_cls,
        gated=make.gated,
    )


def _along_a_side(size: Any) -> int | None:
    """Return the side of a square given by one or two numbers, or None if it is not a square."""
    if isinstance(size, int):
        return size
    return size[0] if len(size) == 2 and size[0] == size[1] else None
