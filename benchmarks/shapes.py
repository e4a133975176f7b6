"""LLaVA models of real shape with random weights, made on the fly."""

import argparse

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

IMAGE_TOKEN = 32000


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options for the shape of decoder and prompt; LLaVA-1.5-7B's by default."""
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--visual-tokens", type=int, default=576)
    parser.add_argument("--text-tokens", type=int, default=64)


def llava_7b_config(layers: int, hidden: int) -> LlavaConfig:
    """LLaVA-1.5-7B (layers 32, hidden 4096), or the same proportions at another depth and width."""
    scale = hidden / 4096
    text = LlamaConfig(
        vocab_size=32064,
        hidden_size=hidden,
        intermediate_size=int(11008 * scale) // 16 * 16,
        num_hidden_layers=layers,
        num_attention_heads=max(1, int(32 * scale)),
        max_position_embeddings=4096,
    )
    # The vision tower is never run: its output is made up. One layer keeps it small.
    vision = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=1,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
    )
    return LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE_TOKEN)


def build(config: LlavaConfig, dtype: torch.dtype, distinct_layers: int) -> LlavaForConditionalGeneration:
    """Make the model with random weights.

    Parameters
    ----------
    config : LlavaConfig
        The shape.
    dtype : torch.dtype
        Of the weights.
    distinct_layers : int
        Decoder layers with weights of their own; the others use the same tensors again, in turn. Every layer still
        computes everything, and a layer's weights exceed any processor cache, so that only memory changes.
    """
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    layers = model.model.language_model.layers
    generator = torch.Generator().manual_seed(0)
    for i, layer in enumerate(layers):
        if i < distinct_layers:
            _materialise(layer, dtype, generator)
        else:
            layer.load_state_dict(layers[i % distinct_layers].state_dict(), assign=True)
    rotary = model.model.language_model.rotary_emb
    for module in (model.lm_head, model.model.language_model.embed_tokens, model.model.language_model.norm):
        _materialise(module, dtype, generator)
    model.model.language_model.rotary_emb = type(rotary)(config=config.text_config)
    return model.eval()


def _materialise(module: nn.Module, dtype: torch.dtype, generator: torch.Generator) -> None:
    module.to_empty(device="cpu").to(dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 1:
                parameter.fill_(1.0)
            else:
                parameter.normal_(std=parameter.shape[-1] ** -0.5, generator=generator)


def prompt(visual: int, text: int) -> Tensor:
    """Token ids ``[1, visual + text]`` with the image in front of most of the text, as in LLaVA's template."""
    words = torch.arange(10, 10 + text)
    return torch.cat([words[:35], torch.full((visual,), IMAGE_TOKEN), words[35:]])[None]
