"""GLM-4.1V and related models: a packed tower. After its norm, a convolution merges 2 x 2 patches."""

from typing import Any

from vistrim.architectures.image_layouts import unknown
from vistrim.architectures.packed import PackedPictures, by_grid, in_squares
from vistrim.architectures.spec import Images
from vistrim.core.costs import VisionShape

TOWERS = ("glm4v_vision", "glm4v_moe_vision", "glm_ocr_vision")


def images(model: Any) -> Images:
    """Describe the processing of images and videos in a GLM-V model."""
    vision, tower = model.config.vision_config, model.base_model.visual
    if vision.model_type not in TOWERS:
        return Images(shapes=unknown)
    pictures = PackedPictures(by_grid(vision.spatial_merge_size), in_squares)
    blocks = tuple(tower.blocks)
    out, inner = vision.out_hidden_size, tower.merger.gate_proj.out_features
    return Images(
        shapes=pictures.shapes,
        tower=pictures.tower(blocks, tower.post_layernorm),
        cost=VisionShape(
            layers=vision.depth,
            hidden=vision.hidden_size,
            # In GLM-4V itself it is not the config's `intermediate_size`.
            intermediate=blocks[0].mlp.gate_proj.out_features,
            tokens=None,
            projector=(vision.hidden_size * vision.spatial_merge_size**2, out, out, inner, out),
            gated=True,
            beside_projector=out * inner,
        ),
    )
