"""Families that make a visual token of each square of patches: by pixel shuffle, by pooling, or of a single patch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vistrim.architectures.arrangements import mean_of_squares
from vistrim.architectures.feature_layers import selected_features
from vistrim.architectures.image_layouts import of_latents, of_one_grid, of_squares, one_square_each, unknown
from vistrim.architectures.spec import Images, ReadShapes
from vistrim.architectures.vit import ViT, take_apart
from vistrim.core.costs import VisionShape

UNKNOWN = Images(shapes=unknown)


def internvl(model: Any) -> Images:
    """InternVL and Qianfan-OCR: pixel shuffle behind a tower with a class token; tiles and frames are pictures."""
    config, vit = model.config, take_apart(model.base_model.vision_tower)
    features = None if vit is None else selected_features(config, len(vit.blocks))
    if vit is None or features is None or features.layers > 1 or features.skip != vit.has_cls:
        return UNKNOWN
    cell = int(1 / config.downsample_ratio)
    text = config.text_config.hidden_size
    # Only as -1 does the last layer come with its norm.
    block = None if config.vision_feature_layer == -1 else features.block
    return _squares(
        vit,
        cell,
        vit.cost((vit.hidden * cell**2, text, text)),
        block=block,
        settings=features.settings,
        # Its position embeddings follow the size of the pixels.
        shapes=of_squares(vit.pixels, vit.patch, cell, before=1),
    )


def aya_vision(model: Any) -> Images:
    """Aya Vision: pixel shuffle and a gated projector; tiles are pictures."""
    config, vit = model.config, take_apart(model.base_model.vision_tower)
    features = None if vit is None else selected_features(config, len(vit.blocks))
    if vit is None or features is None or features.layers > 1 or features.skip != vit.has_cls:
        return UNKNOWN
    cell, text = config.downsample_factor, config.text_config.hidden_size
    widths = (vit.hidden * cell**2, getattr(config, "alignment_intermediate_size", text), text)
    cost = vit.cost(widths, gated_projector=True)
    return _squares(vit, cell, cost, block=features.block, settings=features.settings)


def cohere2_vision(model: Any) -> Images:
    """Command A Vision: as Aya Vision, of the tower's last hidden state."""
    config, vit = model.config, take_apart(model.base_model.vision_tower)
    if vit is None or vit.has_cls:
        return UNKNOWN
    cell, text = config.downsample_factor, config.text_config.hidden_size
    widths = (vit.hidden * cell**2, config.alignment_intermediate_size, text)
    return _squares(vit, cell, vit.cost(widths, gated_projector=True))


def gemma3(model: Any) -> Images:
    """Gemma 3: the last hidden state, pooled to so many tokens along each side."""
    config, vit = model.config, take_apart(model.base_model.vision_tower)
    cell = vit.side // int(config.mm_tokens_per_image**0.5) if vit is not None else 0
    if vit is None or vit.has_cls or cell == 0:
        return UNKNOWN
    return _squares(vit, cell, vit.cost((vit.hidden, config.text_config.hidden_size)))


def paligemma(model: Any) -> Images:
    """PaliGemma: one linear layer behind the last hidden state."""
    vit = take_apart(model.base_model.vision_tower)
    if vit is None or vit.has_cls:
        return UNKNOWN
    return _squares(vit, 1, vit.cost((vit.hidden, model.config.vision_config.projection_dim)))


def deepseek_vl(model: Any) -> Images:
    """DeepSeek-VL (1.3B): an MLP behind the last hidden state."""
    vit = take_apart(model.base_model.vision_model)
    if vit is None or vit.has_cls:
        return UNKNOWN
    text = model.config.text_config.hidden_size
    return _squares(vit, 1, vit.cost((vit.hidden, text, text)))


def janus(model: Any) -> Images:
    """Janus: an MLP behind the last hidden state of the tower that reads images."""
    config, vit = model.config.vision_config, take_apart(model.base_model.vision_model)
    if vit is None:
        return UNKNOWN
    return _squares(vit, 1, vit.cost((vit.hidden, *[config.projection_dim] * config.depth)))


def ovis2(model: Any) -> Images:
    """Ovis 2: neighbors side by side become a mixture of words of a visual vocabulary."""
    vit = take_apart(model.base_model.vision_tower)
    if vit is None:
        return UNKNOWN
    vision = model.config.vision_config
    # Words for what stands around images are multiplied by zeros, which is not counted.
    cell, words = vision.hidden_stride, vision.vocab_size - vision.num_visual_indicator_tokens
    cost = vit.cost((vit.hidden * cell**2, words, model.config.hidden_size))
    return _squares(vit, cell, cost)


def idefics3(model: Any) -> Images:
    """Idefics 3 and SmolVLM: pixel shuffle; an entry of the features has all tiles, or frames, of a prompt."""
    config, vit = model.config, take_apart(model.base_model.vision_model)
    if vit is None:
        return UNKNOWN
    cell = config.scale_factor
    cost = vit.cost((vit.hidden * cell**2, config.text_config.hidden_size))
    # Its position embeddings follow the size of the pixels.
    return _squares(vit, cell, cost, shapes=of_squares(vit.pixels, vit.patch, cell))


def idefics2(model: Any) -> Images:
    """Idefics 2: a perceiver reads each image with so many queries, and no patch becomes a token."""
    latents = model.config.perceiver_config.resampler_n_latents
    return Images(shapes=of_latents(latents), tokens=latents)


def without_tower(model: Any) -> Images:
    """GOT-OCR 2.0, FastVLM, Perception LM, DeepSeek-VL 7B: squares of tokens, which mix or hide the tower's patches."""
    return Images(shapes=one_square_each)


def _squares(
    vit: ViT,
    cell: int,
    cost: VisionShape,
    *,
    block: int | None = None,
    settings: Mapping[str, Any] | None = None,
    shapes: ReadShapes | None = None,
) -> Images:
    """Put together what there is to say.

    Parameters
    ----------
    vit : ViT
        The tower.
    cell : int
        Patches along each side of what becomes a visual token.
    cost : VisionShape
        Sizes for the cost figures.
    block : int or None
        Whose output is used; None: the tower's last hidden state.
    settings : mapping of str to object, optional
        As in `VisionTower`.
    shapes : ReadShapes, optional
        How the visual tokens lie, where not all pictures have the size in the config.
    """
    side = vit.side // cell
    grid = (side, side)
    return Images(
        shapes=shapes or of_one_grid(grid),
        grid=grid,
        tokens=side**2,
        pixels=vit.pixels,
        tower=vit.tower(mean_of_squares(cell, int(vit.has_cls)), block, settings),
        cost=cost,
    )
