"""LLaVA: CLIP or SigLIP vision tower, MLP projector, Llama, Mistral or Qwen2 decoder."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import LlavaForConditionalGeneration

from vistrim.architectures.spec import ModelSpec, VisionTower
from vistrim.core.costs import DecoderShape, VisionShape
from vistrim.errors import UnsupportedModelError

MODEL_TYPE = "llava"
TEXT_TYPES = ("llama", "mistral", "qwen2")
FEATURE_SETTINGS = ("vision_feature_layer", "vision_feature_select_strategy")
VISION_TYPES = ("clip_vision_model", "siglip_vision_model")


def describe(model: nn.Module) -> ModelSpec:
    """Take a LLaVA model apart.

    Raises
    ------
    UnsupportedModelError
        For the base model without its head, and for other text models or vision towers.
    """
    if not isinstance(model, LlavaForConditionalGeneration):
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot generate: load the model with AutoModelForImageTextToText"
        )
    config = model.config
    text, vision = config.text_config, config.vision_config
    _check_type("text model", text.model_type, TEXT_TYPES)
    _check_type("vision tower", vision.model_type, VISION_TYPES)
    decoder = model.model.language_model
    blocks = tuple(model.model.vision_tower.encoder.layers)
    side = vision.image_size // vision.patch_size
    patches = side * side
    layers = config.vision_feature_layer
    layers = (layers,) if isinstance(layers, int) else tuple(layers)
    has_cls = vision.model_type == "clip_vision_model"
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return ModelSpec(
        name=f"{type(model).__name__} {model.name_or_path}".strip(),
        checkpoint=model.name_or_path,
        base=model.model,
        decoder=decoder,
        layers=tuple(decoder.layers),
        rotary=decoder.rotary_emb,
        norm=decoder.norm,
        embed=model.get_input_embeddings(),
        vision=VisionTower(
            blocks=blocks,
            attentions=tuple(block.self_attn for block in blocks),
            # Hidden states count from the embeddings: number 1 is the output of block 0.
            feature_block=max(range(vision.num_hidden_layers + 1)[layer] for layer in layers) - 1,
            has_cls=has_cls,
            projector=model.model.multi_modal_projector,
            settings={name: getattr(config, name) for name in FEATURE_SETTINGS},
            image_size=vision.image_size,
        ),
        visual_token_ids=(config.image_token_id,),
        grid=(side, side),
        # "default" leaves out the first token, which should be the class token.
        image_tokens=patches + has_cls - (config.vision_feature_select_strategy == "default"),
        image_sizes=image_sizes,
        decoder_shape=DecoderShape(
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            intermediate=text.intermediate_size,
            heads=text.num_attention_heads,
            kv_heads=text.num_key_value_heads,
            head_dim=head_dim,
        ),
        vision_shape=VisionShape(
            layers=vision.num_hidden_layers,
            hidden=vision.hidden_size,
            intermediate=vision.intermediate_size,
            tokens=patches + has_cls,
            projector=(vision.hidden_size * len(layers), text.hidden_size, text.hidden_size),
        ),
    )


def image_sizes(inputs: Mapping[str, Any], visual_tokens: int) -> list[int]:
    """Visual tokens per image: the lengths of the features, or equal parts if the images are still pixels."""
    encoded = inputs.get("mm_encoder_outputs")
    if encoded:
        return [len(features) for features in encoded["image"].pooler_output]
    images = inputs["pixel_values"].shape[0]
    return [visual_tokens // images] * images


def _check_type(part: str, found: str, supported: tuple[str, ...]) -> None:
    if found not in supported:
        raise UnsupportedModelError(
            f"this LLaVA model has a {part} of type {found!r}; supported are {', '.join(supported)}"
        )
