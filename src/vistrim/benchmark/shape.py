"""The sizes of a model, and its config at real or scaled size."""

from dataclasses import dataclass
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from vistrim.benchmark.pictures import Family, Pictures
from vistrim.errors import BenchmarkError

MIN_TOWER_DEPTH = 2


@dataclass(frozen=True)
class Shape:
    """Sizes of a model, as in its ``config.json``.

    Attributes
    ----------
    source : str
        Hugging Face id of the checkpoint with these sizes.
    family : Family
        How it takes pictures.
    model_type : str
        transformers' name for its architecture.
    text, vision : dict
        Configs of decoder and vision tower.
    whole : dict
        The config around them.
    """

    source: str
    family: Family
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
        """Width of the real model."""
        return self.text["hidden_size"]

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.hidden // self.text["num_attention_heads"]

    def config(self, layers: int | None, hidden: int | None, pictures: Pictures, length: int) -> PreTrainedConfig:
        """The model's config at real or scaled size.

        The tower's depth goes down with the decoder's (at least 2 blocks), and its width with the decoder's width, so
        that the phases keep their proportions. Heads keep their width: there are fewer. Embeddings and output head
        keep the vocabulary.

        Parameters
        ----------
        layers, hidden : int or None
            Depth and width of the decoder; None: real.
        pictures : Pictures
            What is shown.
        length : int
            Tokens of the prompt and its answer, which the decoder has to have room for.

        Raises
        ------
        BenchmarkError
            If there is no decoder of this depth or width.
        """
        layers, hidden = layers or self.layers, hidden or self.hidden
        self._check(hidden)
        text = {**self.text, **self._narrowed_decoder(hidden), "num_hidden_layers": layers}
        text["max_position_embeddings"] = max(length, text["max_position_embeddings"])
        vision = {**self.vision, **_narrowed_tower(self.vision, hidden / self.hidden), **pictures.tower}
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
        # Narrower than a head: one narrow head.
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
