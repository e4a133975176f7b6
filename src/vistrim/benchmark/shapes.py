"""Shapes of known models by name, with the sizes from the ``config.json`` of a checkpoint of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vistrim.benchmark.images import Images
from vistrim.errors import BenchmarkError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

MIN_TOWER_DEPTH = 2


@dataclass(frozen=True)
class Shape:
    """Sizes of a model, as in its ``config.json``.

    Attributes
    ----------
    source : str
        Hugging Face id of the checkpoint with these sizes.
    images : Images
        The images of its prompts.
    model_type : str
        transformers' name for its architecture.
    text, vision : dict
        Configs of decoder and vision tower.
    whole : dict
        The config around them.
    """

    source: str
    images: Images
    model_type: str
    text: dict[str, Any]
    vision: dict[str, Any]
    whole: dict[str, Any]

    @property
    def layers(self) -> int:
        """Decoder layers of the real model."""
        return self.text["num_hidden_layers"]

    @property
    def hidden(self) -> int:
        """Hidden size of the real model."""
        return self.text["hidden_size"]

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.hidden // self.text["num_attention_heads"]

    def config(self, layers: int | None, hidden: int | None, length: int) -> PreTrainedConfig:
        """The model's config at real or scaled size.

        Depth and width of the vision tower shrink with those of the decoder (to at least 2 blocks), so that the phases
        keep their proportions. Heads keep their width, and their number shrinks. Embeddings and output head keep the
        vocabulary.

        Parameters
        ----------
        layers, hidden : int or None
            Depth and width of the decoder; None: those of the real model.
        length : int
            Tokens of the prompt and its answer, for which the decoder needs positions.

        Raises
        ------
        BenchmarkError
            If a decoder of this width is not possible.
        """
        # Imported late: the names of shapes are in a command's help.
        from transformers import AutoConfig

        layers, hidden = layers or self.layers, hidden or self.hidden
        self._check(hidden)
        text = {**self.text, **self._narrowed_decoder(hidden), "num_hidden_layers": layers}
        text["max_position_embeddings"] = max(length, text["max_position_embeddings"])
        vision = {**self.vision, **_narrowed_tower(self.vision, hidden / self.hidden)}
        depth = "depth" if "depth" in vision else "num_hidden_layers"
        vision[depth] = max(MIN_TOWER_DEPTH, round(vision[depth] * layers / self.layers))
        if "fullatt_block_indexes" in vision:
            kept = {block for block in vision["fullatt_block_indexes"] if block < vision[depth]}
            vision["fullatt_block_indexes"] = sorted(kept | {vision[depth] - 1})
        if "out_hidden_size" in vision:
            vision["out_hidden_size"] = hidden
        return AutoConfig.for_model(self.model_type, text_config=text, vision_config=vision, **self.whole)

    def _check(self, hidden: int) -> None:
        if hidden >= self.head_dim and hidden % self.head_dim:
            below = hidden // self.head_dim * self.head_dim
            raise BenchmarkError(
                f"a hidden size of {hidden} is not made of whole heads of {self.head_dim}: use {below} or "
                f"{below + self.head_dim}"
            )
        if hidden < self.head_dim and (hidden < 16 or hidden % 16):
            below = max(16, hidden // 16 * 16)
            raise BenchmarkError(f"a single head cannot be {hidden} wide: use a multiple of 16, such as {below}")

    def _narrowed_decoder(self, hidden: int) -> dict[str, Any]:
        # A decoder narrower than a head has one narrow head.
        heads = max(1, hidden // self.head_dim)
        full_heads = self.text["num_attention_heads"]
        most = max(1, heads * self.text["num_key_value_heads"] // full_heads)
        sizes: dict[str, Any] = {
            "hidden_size": hidden,
            "intermediate_size": _multiple(self.text["intermediate_size"] * hidden / self.hidden, 16),
            "num_attention_heads": heads,
            "num_key_value_heads": next(n for n in range(most, 0, -1) if heads % n == 0),
        }
        rope = self.text["rope_parameters"]
        if "mrope_section" in rope:
            section = [n * hidden // heads // self.head_dim for n in rope["mrope_section"]]
            sizes["rope_parameters"] = {**rope, "mrope_section": section}
        return sizes


def _narrowed_tower(vision: dict[str, Any], scale: float) -> dict[str, Any]:
    if scale == 1:
        return {}
    heads = "num_heads" if "num_heads" in vision else "num_attention_heads"
    count = max(1, round(vision[heads] * scale))
    hidden = count * vision["hidden_size"] // vision[heads]
    intermediate = _multiple(vision["intermediate_size"] * hidden / vision["hidden_size"], 4)
    return {heads: count, "hidden_size": hidden, "intermediate_size": intermediate}


def _multiple(value: float, of: int) -> int:
    return max(of, round(value / of) * of)


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
    "llava-1.5-7b": Shape(
        "llava-hf/llava-1.5-7b-hf", Images(576, (3, 336, 336), 336, 336), "llava", _VICUNA_7B, _CLIP, _LLAVA
    ),
    "llava-1.5-13b": Shape(
        "llava-hf/llava-1.5-13b-hf", Images(576, (3, 336, 336), 336, 336), "llava", _VICUNA_13B, _CLIP, _LLAVA
    ),
    "llava-next-7b": Shape(
        "llava-hf/llava-v1.6-vicuna-7b-hf",
        Images(2880 + 48, (5, 3, 336, 336), 672, 672, beside={"image_sizes": (672, 672)}),
        "llava_next",
        _VICUNA_7B,
        _CLIP,
        {**_LLAVA, "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]},
    ),
    "qwen2.5-vl-7b": Shape(
        "Qwen/Qwen2.5-VL-7B-Instruct",
        Images(27 * 37, (54 * 74, 1176), 54 * 14, 74 * 14, beside={"image_grid_thw": (1, 54, 74)}, packed=True),
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
        Images(256, (3, 448, 448), 448, 448, usual=4 * 3 + 1),
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
        Images(81, (3, 384, 384), 384, 384, usual=4 * 3 + 1, nested=True),
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

The default image of the last three has 1024 x 768 pixels. Their processors turn it into 27 x 37 tokens in Qwen2.5-VL
(sides rounded to 28 pixels), and into 4 x 3 tiles and an overview in InternVL (at most 12 tiles) and SmolVLM (longest
side 1536). LLaVA-1.5 resizes it to one square. LLaVA-NeXT gets 672 x 672 pixels, in 5 tiles of 576 patches each, and
adds a visual token after each of the 48 rows of the mosaic.
"""
