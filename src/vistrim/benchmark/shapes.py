"""Shapes of known models by name, with the sizes in the ``config.json`` of the checkpoint that each names."""

from vistrim.benchmark.pictures import AnyGrid, AnyRes, Squares, Tiles
from vistrim.benchmark.shape import Shape

_CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}
"""CLIP ViT-L/14-336."""

_VICUNA_7B = {
    "model_type": "llama",
    "vocab_size": 32064,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
_VICUNA_13B = {
    **_VICUNA_7B,
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
    "num_key_value_heads": 40,
}
_QWEN_7B = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-6,
}
_LLAVA = {"image_token_index": 32000, "vision_feature_layer": -2, "vision_feature_select_strategy": "default"}

SHAPES: dict[str, Shape] = {
    "llava-1.5-7b": Shape("llava-hf/llava-1.5-7b-hf", Squares(336, 576), "llava", _VICUNA_7B, _CLIP, _LLAVA),
    "llava-1.5-13b": Shape("llava-hf/llava-1.5-13b-hf", Squares(336, 576), "llava", _VICUNA_13B, _CLIP, _LLAVA),
    "llava-next-7b": Shape(
        "llava-hf/llava-v1.6-vicuna-7b-hf",
        AnyRes(((2, 2), (1, 2), (2, 1), (3, 1), (1, 3))),
        "llava_next",
        _VICUNA_7B,
        _CLIP,
        {**_LLAVA, "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]},
    ),
    "qwen2.5-vl-7b": Shape(
        "Qwen/Qwen2.5-VL-7B-Instruct",
        AnyGrid(usual=27 * 37),
        "qwen2_5_vl",
        {
            **_QWEN_7B,
            "vocab_size": 152064,
            "max_position_embeddings": 128000,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [16, 24, 24]},
        },
        {
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 3584,
            "patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
            "tokens_per_second": 2,
        },
        {},
    ),
    "internvl3-8b": Shape(
        "OpenGVLab/InternVL3-8B-hf",
        Tiles(448, 256, tiles=4 * 3 + 1),
        "internvl",
        {
            **_QWEN_7B,
            "model_type": "qwen2",
            "vocab_size": 151674,
            "max_position_embeddings": 32768,
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1000000.0, "factor": 2.0},
        },
        {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "attention_bias": True,
            "image_size": [448, 448],
            "patch_size": [14, 14],
        },
        {"image_token_id": 151667, "image_seq_length": 256, "tie_word_embeddings": False},
    ),
    "smolvlm-2b": Shape(
        "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
        Tiles(384, 81, tiles=4 * 3 + 1, nested=True),
        "smolvlm",
        {
            "model_type": "llama",
            "vocab_size": 49280,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 24,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 130000.0},
        },
        {
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "image_size": 384,
            "patch_size": 14,
        },
        {"image_token_id": 49190, "scale_factor": 3},
    ),
}
"""Name to shape.

The usual picture of the last three has 1024 x 768 pixels, as their processors take it: Qwen2.5-VL sees 27 x 37 tokens
(sides rounded to 28 pixels); InternVL (at most 12 tiles) and SmolVLM (longest side 1536) cut it into 4 x 3 tiles and
add the whole picture as one more. LLaVA-1.5 sees one square; LLaVA-NeXT is given 672 x 672 pixels, 5 tiles of 576
patches each, and makes a further visual token behind each of the 48 rows of the mosaic.
"""
