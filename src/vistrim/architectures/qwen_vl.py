"""Qwen-VL 2 to 3 and related models: a packed tower, after which an MLP merges 2 x 2 patches.

Version 2.5 has window attention in most blocks and orders tokens window by window. Version 3 also merges the outputs of
earlier blocks (DeepStack).
"""

from typing import Any

from vistrim.architectures.image_layouts import unknown
from vistrim.architectures.packed import PackedPictures, by_grid, in_squares, in_windows
from vistrim.architectures.spec import Images
from vistrim.core.costs import VisionShape

GATED = ("qwen2_5_vl_vision", "qwen2_5_omni_vision_encoder", "exaone4_5_vision")
"""Towers with window attention and a gated feed-forward network."""
PLAIN = (
    "qwen2_vl_vision",
    "qwen3_vl_vision",
    "qwen3_vl_moe_vision",
    "qwen3_omni_moe_vision_encoder",
    "cohere_compass_vision",
)


def images(model: Any) -> Images:
    """Describe the processing of images and videos in a model with such a tower."""
    vision, base = model.config.vision_config, model.base_model
    if vision.model_type not in (*GATED, *PLAIN):
        return Images(shapes=unknown)
    tower = base.visual if hasattr(base, "visual") else base.vision_model
    side = _window(vision)
    pictures = PackedPictures(by_grid(vision.spatial_merge_size), in_windows(side) if side else in_squares)
    blocks = tuple(tower.blocks)
    return Images(
        shapes=pictures.shapes,
        tower=pictures.tower(blocks, blocks[-1]),
        cost=_cost(vision, base),
    )


def _window(vision: Any) -> int:
    """Return the side of the windows in visual tokens, 0 without windows."""
    return vision.window_size // vision.spatial_merge_size // vision.patch_size if vision.model_type in GATED else 0


def _cost(vision: Any, base: Any) -> VisionShape | None:
    if getattr(vision, "num_key_value_heads", vision.num_heads) != vision.num_heads:
        return None
    if vision.model_type == "qwen2_vl_vision":
        # Here the hidden size is that of the decoder.
        hidden, intermediate, out = vision.embed_dim, int(vision.embed_dim * vision.mlp_ratio), vision.hidden_size
    else:
        hidden, intermediate, out = vision.hidden_size, vision.intermediate_size, vision.out_hidden_size
    merged = hidden * vision.spatial_merge_size**2
    # HyperCLOVA X has an additional matrix after the merger.
    behind = (base.projector.out_features,) if hasattr(base, "projector") else ()
    whole = set(getattr(vision, "fullatt_block_indexes", range(vision.depth)))
    return VisionShape(
        layers=vision.depth,
        hidden=hidden,
        intermediate=intermediate,
        tokens=None,
        projector=(merged, merged, out, *behind),
        gated=vision.model_type in GATED,
        windowed=len(set(range(vision.depth)) - whole),
        window=_window(vision),
        beside_projector=len(getattr(vision, "deepstack_visual_indexes", ())) * (merged * merged + merged * out),
    )
