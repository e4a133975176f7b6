"""Video-LLaVA: separate towers for images and for the frames of videos, which keep their class token."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from vistrim.architectures.arrangements import one_to_one
from vistrim.architectures.feature_layers import selected_features
from vistrim.architectures.image_layouts import of_one_grid, unknown
from vistrim.architectures.spec import Images
from vistrim.architectures.vit import take_apart


def images(model: Any) -> Images:
    """Describe the processing of images and videos in a Video-LLaVA model."""
    vit, film = take_apart(model.base_model.image_tower), take_apart(model.base_model.video_tower)
    features = None if vit is None else selected_features(model.config, len(vit.blocks))
    if vit is None or film is None or features is None:
        return Images(shapes=unknown)
    skip = {"image": features.skip, "video": 0}

    def arrange(parts: Sequence[Tensor], modality: str, arguments: Mapping[str, Any]) -> Tensor:
        return one_to_one(skip[modality])(parts, modality, arguments)

    text = model.config.text_config.hidden_size
    tower = vit.tower(arrange, features.block, features.settings)
    return Images(
        # With their class token, the tokens of frames form no grid.
        shapes=of_one_grid((vit.side, vit.side)),
        pixels=vit.pixels,
        tower=replace(tower, for_videos=film.tower(arrange, features.block)),
        cost=vit.cost((vit.hidden * features.layers, text, text)),
    )
