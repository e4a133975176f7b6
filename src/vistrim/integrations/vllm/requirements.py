"""Models and engines that a plug-in model needs: checked when vLLM makes the model, before it reads weights."""

from typing import Any

from vistrim.core.layout import ImageShape
from vistrim.errors import UnsupportedModelError
from vistrim.integrations.vllm.settings import ELSEWHERE
from vistrim.methods import PerImage

HAS_CLASS = {"clip_vision_model": True, "siglip_vision_model": False}
"""Whether the first token of a tower is a class token, by type."""

CPU_WORKER = "vllm.v1.worker.cpu_worker.CPUWorker"


def check_tower(config: Any) -> None:
    """Refuse towers of LLaVA that are neither CLIP nor SigLIP.

    Parameters
    ----------
    config : PreTrainedConfig
        Config of the model.

    Raises
    ------
    UnsupportedModelError
        If it is another one. The message names the fix.
    """
    kind = config.vision_config.model_type
    if kind not in HAS_CLASS:
        raise UnsupportedModelError(
            f"the vLLM plug-in of vistrim supports LLaVA with a CLIP or SigLIP tower, not {kind}: serve this model "
            "with `vistrim serve`, which runs it with transformers"
        )


def check_grid(method: PerImage, shape: ImageShape) -> None:
    """Refuse a method that needs a grid of visual tokens, if the images of the model have none.

    Parameters
    ----------
    method : PerImage
        The method.
    shape : ImageShape
        Layout of an image.

    Raises
    ------
    UnsupportedModelError
        If it does. The message names the fix.
    """
    if method.needs_grid and any(picture.grid is None for picture in shape.pictures):
        raise UnsupportedModelError(
            f"{method.name} needs a grid of visual tokens, which the images of this model do not have: use uniform or "
            "random instead"
        )


def check_whole_tower(method: PerImage, vllm_config: Any) -> None:
    """Refuse a method that reads a tower whose heads are distributed over processes.

    Parameters
    ----------
    method : PerImage
        The method.
    vllm_config : VllmConfig
        Settings of the engine.

    Raises
    ------
    UnsupportedModelError
        If they are. The message names the fix.
    """
    if method.reads_vision and vllm_config.parallel_config.tensor_parallel_size > 1:
        raise UnsupportedModelError(
            f"{method.name} reads attention of the vision tower, which tensor parallelism distributes over processes: "
            "use --data-parallel-size, or a method that reads none, such as divprune"
        )


def check_positions(vllm_config: Any) -> None:
    """Refuse engines that do not ask a model for the positions of trimmed images everywhere (M-RoPE).

    Parameters
    ----------
    vllm_config : VllmConfig
        Settings of the engine.

    Raises
    ------
    UnsupportedModelError
        If it is one. The message names the fix.
    """
    parallel = vllm_config.parallel_config
    if parallel.worker_cls == CPU_WORKER:
        raise UnsupportedModelError(
            "vLLM on a CPU does not ask the model for the positions of trimmed images (`recompute_mrope_positions`): "
            f"use a GPU, {ELSEWHERE}"
        )
    if parallel.pipeline_parallel_size > 1 or vllm_config.speculative_config is not None:
        raise UnsupportedModelError(
            "positions of trimmed images are not known to further stages of a pipeline and to draft models: start vLLM "
            f"without pipeline parallelism and speculative decoding, {ELSEWHERE}"
        )
