"""Discovery of the structure of a model, and of whether it can be trimmed."""

import inspect
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.generation import GenerationMixin

from vistrim.architectures.decoder import find_decoder, longest, rope_axes, rotary_of
from vistrim.architectures.families import CANNOT, VIDEOS_IN_PLACES_OF_IMAGES, images_of
from vistrim.architectures.sizes import decoder_shape
from vistrim.architectures.spec import ModelSpec
from vistrim.errors import UnsupportedModelError
from vistrim.shipped import shown_name

MODALITIES = ("image", "video")


def discover(model: nn.Module) -> ModelSpec:
    """Find the parts of a model, or refuse it.

    Raises
    ------
    UnsupportedModelError
        If tokens cannot be removed inside the model. The message states the reason and the fix.
    """
    _check_kind(model)
    whole: Any = model
    for kind in type(model).__mro__:
        if kind.__name__ in CANNOT:
            raise UnsupportedModelError(f"{type(model).__name__} {CANNOT[kind.__name__]}")
    visual_token_ids = _visual_token_ids(whole)
    decoder = find_decoder(whole)
    return ModelSpec(
        name=f"{type(model).__name__} {shown_name(whole.name_or_path)}".strip(),
        checkpoint=whole.name_or_path,
        base=whole.base_model,
        decoder=decoder,
        layers=tuple(decoder.layers),
        rotary=rotary_of(decoder),
        rope_axes=rope_axes(decoder.config),
        norm=getattr(decoder, "norm", None),
        embed=whole.get_input_embeddings(),
        images=images_of(whole),
        visual_token_ids=visual_token_ids,
        decoder_shape=decoder_shape(decoder),
        longest=longest(decoder.config),
    )


def is_compiled(module: nn.Module) -> bool:
    """Whether a module, or only its forward pass, was compiled with torch.compile."""
    own = vars(module)
    whole = own.get("_compiled_call_impl") is not None or "_orig_mod" in own["_modules"]
    return whole or hasattr(own.get("forward"), "_torchdynamo_orig_callable")


def _check_kind(model: nn.Module) -> None:
    name = type(model).__name__
    if any(map(is_compiled, model.modules())):
        raise UnsupportedModelError(
            "the model was compiled with torch.compile, whose graphs cannot follow changing token counts: "
            "pass the model as it was before compiling"
        )
    if hasattr(model, "get_base_model"):
        raise UnsupportedModelError(f"{name} is a wrapper: pass its get_base_model()")
    if not isinstance(model, PreTrainedModel):
        raise UnsupportedModelError(f"{name} is not a model of transformers: load one with vistrim.load")
    if not isinstance(model, GenerationMixin):
        raise UnsupportedModelError(f"{name} cannot generate: load the model with AutoModelForImageTextToText")
    if model.config.is_encoder_decoder:
        raise UnsupportedModelError(
            f"{name} is an encoder-decoder model: it attends to the image by cross-attention, so there are no visual "
            "tokens in the decoder to trim"
        )


def _visual_token_ids(model: Any) -> dict[str, int]:
    """Find the placeholder id of each modality that the model encodes."""
    found = {}
    for modality in MODALITIES:
        token = getattr(model.config, f"{modality}_token_id", None)
        if token is not None and _encodes(model.base_model, modality):
            found[modality] = token
    if not found:
        raise UnsupportedModelError(
            f"{type(model).__name__} has no placeholder tokens for images in its prompts (it takes only text, or "
            "attends to images by cross-attention or a few queries): there are no visual tokens to trim"
        )
    if "video" in found and model.config.model_type in VIDEOS_IN_PLACES_OF_IMAGES:
        found["video"] = found["image"]
    return found


def _encodes(base: Any, modality: str) -> bool:
    # Perception LM encodes videos with its image encoder.
    takes_videos = modality == "video" and "pixel_values_videos" in inspect.signature(type(base).forward).parameters
    return hasattr(base, f"get_{modality}_features") or (takes_videos and hasattr(base, "get_image_features"))
