"""Model families in which each square of patches becomes a visual token, by pixel shuffle, pooling or one to one."""

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
    """InternVL and Qianfan-OCR: pixel shuffle after a tower with a class token; images have tiles, videos frames."""
    config, vit = model.config, take_apart(model.base_model.vision_tower)
    features = None if vit is None else selected_features(config, len(vit.blocks))
    if vit is None or features is None or features.layers > 1 or features.skip != vit.has_cls:
        return UNKNOWN
    cell = int(1 / config.downsample_ratio)
    text = config.text_config.hidden_size
    # The last layer is followed by its norm only if it is given as -1.
    block = None if config.vision_feature_layer == -1 else features.block
    return _squares(
        vit,
        cell,
        vit.cost((vit.hidden * cell**2, text, text)),
        block=block,
        settings=features.settings,
        # Its position embeddings adapt to the size of the image.
        shapes=of_squares(vit.pixels, vit.patch, cell, before=1),
    )


def aya_vision(model: Any) -> Images:
    """Aya Vision: tiles, pixel shuffle and a gated projector."""
    config, vit = model.config, take_apart(model.base_model.vision_tower)
    features = None if vit is None else selected_features(config, len(vit.blocks))
    if vit is None or features is None or features.layers > 1 or features.skip != vit.has_cls:
        return UNKNOWN
    cell, text = config.downsample_factor, config.text_config.hidden_size
    widths = (vit.hidden * cell**2, getattr(config, "alignment_intermediate_size", text), text)
    cost = vit.cost(widths, gated_projector=True)
    return _squares(vit, cell, cost, block=features.block, settings=features.settings)


def cohere2_vision(model: Any) -> Images:
    """Command A Vision: as Aya Vision, with the last hidden state of the tower."""
    config, vit = model.config, take_apart(model.base_model.vision_tower)
    if vit is None or vit.has_cls:
        return UNKNOWN
    cell, text = config.downsample_factor, config.text_config.hidden_size
    widths = (vit.hidden * cell**2, config.alignment_intermediate_size, text)
    return _squares(vit, cell, vit.cost(widths, gated_projector=True))


def gemma3(model: Any) -> Images:
    """Gemma 3: the last hidden state, pooled to a fixed number of tokens along each side."""
    config, vit = model.config, take_apart(model.base_model.vision_tower)
    cell = vit.side // int(config.mm_tokens_per_image**0.5) if vit is not None else 0
    if vit is None or vit.has_cls or cell == 0:
        return UNKNOWN
    return _squares(vit, cell, vit.cost((vit.hidden, config.text_config.hidden_size)))


def paligemma(model: Any) -> Images:
    """PaliGemma: a linear layer after the last hidden state."""
    vit = take_apart(model.base_model.vision_tower)
    if vit is None or vit.has_cls:
        return UNKNOWN
    return _squares(vit, 1, vit.cost((vit.hidden, model.config.vision_config.projection_dim)))


def deepseek_vl(model: Any) -> Images:
    """DeepSeek-VL (1.3B): an MLP after the last hidden state."""
    vit = take_apart(model.base_model.vision_model)
    if vit is None or vit.has_cls:
        return UNKNOWN
    text = model.config.text_config.hidden_size
    return _squares(vit, 1, vit.cost((vit.hidden, text, text)))


def janus(model: Any) -> Images:
    """Janus: an MLP after the last hidden state of the tower for image understanding."""
    config, vit = model.config.vision_config, take_apart(model.base_model.vision_model)
    if vit is None:
        return UNKNOWN
    return _squares(vit, 1, vit.cost((vit.hidden, *[config.projection_dim] * config.depth)))


def ovis2(model: Any) -> Images:
    """Ovis 2: adjacent patches become a mixture of words of a visual vocabulary."""
    vit = take_apart(model.base_model.vision_tower)
    if vit is None:
        return UNKNOWN
    vision = model.config.vision_config
    # The words for image delimiters are multiplied by zeros, which is not counted.
    cell, words = vision.hidden_stride, vision.vocab_size - vision.num_visual_indicator_tokens
    cost = vit.cost((vit.hidden * cell**2, words, model.config.hidden_size))
    return _squares(vit, cell, cost)


def idefics3(model: Any) -> Images:
    """Idefics 3 and SmolVLM: pixel shuffle. An entry of the features has all tiles or frames of a prompt."""
    config, vit = model.config, take_apart(model.base_model.vision_model)
    if vit is None:
        return UNKNOWN
    cell = config.scale_factor
    cost = vit.cost((vit.hidden * cell**2, config.text_config.hidden_size))
    # Its position embeddings adapt to the size of the image.
    return _squares(vit, cell, cost, shapes=of_squares(vit.pixels, vit.patch, cell))


def idefics2(model: Any) -> Images:
    """Idefics 2: a perceiver resamples each image with a fixed number of queries, so no patch becomes a token."""
    latents = model.config.perceiver_config.resampler_n_latents
    return Images(shapes=of_latents(latents), tokens=latents)


def without_tower(model: Any) -> Images:
    """GOT-OCR 2.0, FastVLM, Perception LM, DeepSeek-VL 7B: square grids of tokens that do not map to tower patches."""
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
    """Build the description.

    Parameters
    ----------
    vit : ViT
        The tower.
    cell : int
        Patches along each side of the square that becomes a visual token.
    cost : VisionShape
        Sizes for the cost figures.
    block : int or None
        The block whose output is used. None: the last hidden state of the tower.
    settings : mapping of str to object, optional
        As in `VisionTower`.
    shapes : ReadShapes, optional
        Layout of the visual tokens, if sizes other than that in the config occur.
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
