"""Configs and initialization of the reference models: stock LLaVA classes of small sizes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from vistrim.reference.processing import GRID, IMAGE, IMAGE_SIZE, PATCH_SIZE


@dataclass(frozen=True)
class Size:
    """Widths and depths of one reference model."""

    width: int
    heads: int
    feed_forward: int
    layers: int
    tower_width: int
    tower_layers: int


SIZES = {
    "base": Size(width=128, heads=4, feed_forward=256, layers=12, tower_width=128, tower_layers=4),
    "small": Size(width=96, heads=3, feed_forward=192, layers=4, tower_width=96, tower_layers=3),
}


def build_model(size: Size, tokenizer: PreTrainedTokenizerFast) -> LlavaForConditionalGeneration:
    """Build an untrained model.

    Parameters
    ----------
    size : Size
        Sizes of the model.
    tokenizer : PreTrainedTokenizerFast
        Provides the vocabulary and the ids of the special tokens.

    Returns
    -------
    LlavaForConditionalGeneration
        In float32 on the CPU, initialized from torch's global random state.
    """
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=size.tower_width,
            intermediate_size=2 * size.tower_width,
            num_hidden_layers=size.tower_layers,
            num_attention_heads=size.tower_width // 32,
            image_size=IMAGE_SIZE,
            patch_size=PATCH_SIZE,
            hidden_act="gelu",
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.width,
            intermediate_size=size.feed_forward,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.heads,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=GRID * GRID,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    _initialize(model)
    model.generation_config.bos_token_id = tokenizer.bos_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def _initialize(model: LlavaForConditionalGeneration) -> None:
    """Use the standard deviation 1/sqrt(inputs), divided by sqrt(2 x layers) for residual outputs.

    The usual 0.02 is suited to wide models. Here it would keep attention uniform for hundreds of steps.
    """
    decoder = model.model.language_model
    tower = model.model.vision_tower
    for part, layers in ((decoder, decoder.config.num_hidden_layers), (tower, tower.config.num_hidden_layers)):
        for name, module in part.named_modules():
            if isinstance(module, nn.Linear):
                writes = name.endswith(("o_proj", "out_proj", "down_proj", "fc2"))
                scale = (2 * layers) ** -0.5 if writes else 1.0
                nn.init.normal_(module.weight, std=scale * module.in_features**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    nn.init.normal_(decoder.embed_tokens.weight, std=decoder.config.hidden_size**-0.5)
    projector = model.model.multi_modal_projector
    for projection, scale in ((projector.linear_1, 1.0), (projector.linear_2, 0.1)):
        nn.init.normal_(projection.weight, std=scale * projection.in_features**-0.5)
        nn.init.zeros_(projection.bias)


def _silence(layer: nn.Module) -> None:
    """Set the residual outputs of a decoder layer to zero."""
    for name in ("self_attn.o_proj.weight", "mlp.down_proj.weight"):
        layer.get_parameter(name).zero_()


def deepen(model: LlavaForConditionalGeneration, trained_layers: int) -> None:
    """Replace every decoder layer from ``trained_layers`` on by a silent copy of a trained one, in place.

    The copies have the same attention but no residual output. The model computes the same function as its first layers,
    and training continues with all layers.
    """
    layers = model.model.language_model.layers
    with torch.no_grad():
        for index in range(trained_layers, len(layers)):
            layers[index].load_state_dict(layers[index % trained_layers].state_dict())
            _silence(layers[index])


def raise_layers(model: LlavaForConditionalGeneration, lead: int) -> None:
    """Move every decoder layer up by ``lead``, in place. Silent copies of the first layer are inserted below.

    The last ``lead`` layers are dropped. In large models, the middle layers read the image and the first layers hardly
    do. A small decoder trained from the bottom reads it entirely in its first layer.
    """
    layers = model.model.language_model.layers
    with torch.no_grad():
        for index in reversed(range(lead, len(layers))):
            layers[index].load_state_dict(layers[index - lead].state_dict())
        for index in range(lead):
            layers[index].load_state_dict(layers[lead].state_dict())
            _silence(layers[index])
