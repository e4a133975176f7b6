"""What the LLaVA models of vLLM share: sizes of images, and CLIP and SigLIP towers. Only vLLM imports this module."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor
from vllm.config import VllmConfig

from vistrim.core.layout import ImageShape
from vistrim.integrations.vllm.picking import count
from vistrim.integrations.vllm.processing import TrimmedInfo
from vistrim.integrations.vllm.requirements import HAS_CLASS, check_tower, check_whole_tower
from vistrim.integrations.vllm.settings import read_method
from vistrim.integrations.vllm.tower import TowerReader
from vistrim.methods import PerImage


class TrimmedLlavaLikeInfo(TrimmedInfo, ABC):
    """Numbers of tokens of an image, which depend on its size only."""

    @abstractmethod
    def shape(self, width: int, height: int) -> ImageShape:
        """Describe the visual tokens of an image of this size before trimming."""

    def get_num_image_tokens(self, *, image_width: int, image_height: int) -> int:
        """Compute the number of placeholders of an image of this size."""
        return count(self.method, [self.shape(image_width, image_height)])


class TrimmedLlavaLike:
    """Mixin: a model whose images are trimmed by the method in its config.

    Parameters
    ----------
    vllm_config : VllmConfig
        Settings of the engine.
    prefix : str
        Prefix of the names of the weights.

    Raises
    ------
    VistrimError
        If the method is missing or cannot work in vLLM. The message names the fix.
    """

    # Adapters of the tower would be given the number of tokens after trimming.
    supports_tower_connector_lora = False

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        config = vllm_config.model_config.hf_config
        check_tower(config)
        method = read_method(config)
        check_whole_tower(method, vllm_config)
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]
        self.trim_with(method)

    def trim_with(self, method: PerImage) -> None:
        """Trim images by a method from now on."""
        self.trimming, self.tower_reader = method, read_tower(self, method)


def side_of(config: Any) -> int:
    """Compute the number of patches along each side of an input of the tower."""
    return int(config.vision_config.image_size // config.vision_config.patch_size)


def read_tower(model: Any, method: PerImage) -> TowerReader | None:
    """Install hooks on the tower of a model, if the method reads it.

    Parameters
    ----------
    model : nn.Module
        A LLaVA model of vLLM.
    method : PerImage
        The method.

    Returns
    -------
    TowerReader or None
        What reads the tower. None: the method reads nothing, or no image is allowed, so that there is no tower.

    Raises
    ------
    UnsupportedGenerationError
        If the method reads blocks that the tower does not have.
    """
    transformer = getattr(model.vision_tower, "vision_model", None)
    if not method.reads_vision or transformer is None:
        return None
    config = model.config
    blocks = transformer.encoder.layers
    projector = model.multi_modal_projector
    layers = config.vision_feature_layer

    def project(rows: Tensor) -> Tensor:
        return projector(rows.to(transformer.dtype))

    return TowerReader(
        method,
        kernels=[block.self_attn.attn for block in blocks],
        output=transformer.encoder,
        heads=config.vision_config.num_attention_heads,
        has_class=HAS_CLASS[config.vision_config.model_type],
        skip=int(config.vision_feature_select_strategy == "default"),
        project=project if isinstance(layers, int) or len(layers) == 1 else None,
    )
