"""YOPO: structural cuts of the computation for visual tokens, the same for every image and question."""

from dataclasses import dataclass, replace
from typing import Literal

import torch

from vistrim.core.model_facts import ModelFacts
from vistrim.core.selection import Selection
from vistrim.core.structure import LayerStructure
from vistrim.methods.base.artifacts import load_part
from vistrim.methods.base.checks import check_layer
from vistrim.methods.base.method import Method
from vistrim.methods.base.parameter_text import write_value
from vistrim.methods.base.registry import register
from vistrim.methods.base.stage_inputs import LayerTokens

HEADS = "heads"
"""Name of the mask in its file: ``[layers, heads]``, True (or 1) for active heads."""
AUTO = "auto"
CALIBRATION = "vistrim calibrate yopo"

HeadMask = tuple[tuple[bool, ...], ...]


@register
@dataclass(frozen=True)
class YOPO(Method):
    r"""Cut attention, heads, layers and neurons for visual tokens, independent of the sample.

    There are four cuts, all off by default. The parts that are cut are not computed:

    * *Neighbor-aware attention*: in prefill, in every layer, a visual token attends to the text before it and to the
      visual tokens of its own image that are at most ``window // 2`` rows and columns away on the image's grid,
      including later ones. Text attends as before.
    * *Heads*: in an inactive head, text attends only to text, in prefill and while decoding. Visual tokens have no
      query, key and value there and receive no output from it.
    * *Layer drop*: layers from ``layer`` on run without visual tokens.
    * *Sparse feed-forward*: visual tokens use only the first share ``ffn`` of each layer's neurons.

    Parameters
    ----------
    window : int, optional
        Side of the window in grid cells, odd and at least 1. The authors use 5 of 24. None: attention is not cut.
    heads : str or tuple of tuple of bool, optional
        File with the active heads, made by ``vistrim calibrate yopo``; "auto" for ``vistrim/yopo.safetensors`` in the
        model's folder; or the mask ``[layers][heads]``. None: all heads are active.
    layer : int, optional
        First layer (0-based, at least 1) without visual tokens. The authors use 16 of 32 for LLaVA-1.5-7B and 20 of 40
        for 13B. None: no layer is dropped.
    ffn : float
        Share of the neurons, above 0 and at most 1. The authors use 1/2 in fine-tuned models.
    normalize : {"attended", "all"}
        Tokens over which the attention of text is normalized in inactive heads. "attended": only the text. "all": also
        the visual tokens, whose values are omitted. The authors' code uses "all", and their checkpoints were fine-tuned
        with it. It saves less, because it needs the keys.

    Raises
    ------
    ValueError
        If a parameter is out of range, or the heads are those of another model.

    Notes
    -----
    Source: arXiv 2410.06169 and github.com/ZhangAIPI/YOPO_MLLM_Pruning at f0783f4, which only simulates the cuts with
    masks. Without fine-tuning, the cuts reduce accuracy. The authors fine-tune LLaVA with all cuts. Of other models,
    without fine-tuning, they cut only heads, windows and layers.

    Deviations. Inactive heads are renormalized unless ``normalize`` is "all". Layer drop always renormalizes, because
    the tokens are removed. The authors still compute them for the softmax, so ``layer`` and "all" exclude each other.
    The authors support one image. Here, with a window, visual tokens do not attend to other images. If tokens were
    removed before, the window refers to the original grid, and a merged token has the place of the token that it was
    merged into. A sliding window of the model limits the text that a visual token attends to, not its neighbors. A
    visual token that the engine never removes, because its logits are needed, counts as text.

    The cuts apply only to visual tokens. An image that was cached before the model was trimmed counts as text. Tokens
    that another method of a composition removes in prefill are not part of any softmax, even with "all".

    The KV cache stays rectangular. It stores zeros for the visual tokens of inactive heads.
    """

    name = "yopo"
    summary = "Cuts attention windows, heads, layers and neurons for visual tokens, the same for every sample"
    stages = ("structure", "prefill")
    needs = "nothing (heads: a mask from `vistrim calibrate yopo`)"
    kv_cache = "full below the layer drop, none from it on"
    source = "arXiv 2410.06169"
    ranks_by = "nothing"
    counts_images = False

    unbudgeted = "it has four independent cuts: set window, heads, layer and ffn"

    window: int | None = None
    heads: str | HeadMask | None = None
    layer: int | None = None
    ffn: float = 1.0
    normalize: Literal["attended", "all"] = "attended"

    def __post_init__(self) -> None:
        window, layer = self.window, self.layer
        if window is not None and (type(window) is not int or window < 1 or window % 2 == 0):
            raise ValueError(f"window={window}: must be an odd whole number such as 5, or none")
        if layer is not None and (type(layer) is not int or layer < 1):
            raise ValueError(f"layer={layer}: must be a whole number, at least 1, or none")
        if not (self.heads is None or isinstance(self.heads, str) or _is_mask(self.heads)):
            raise ValueError("heads: must be a file, auto, or a tuple with a tuple of True and False per layer")
        if not 0 < self.ffn <= 1:
            raise ValueError(f"ffn={self.ffn}: must be a share of the neurons, above 0 and at most 1")
        if self.normalize not in ("attended", "all"):
            raise ValueError(f"normalize={self.normalize!r}: must be attended or all")
        if self.normalize == "all" and layer is not None:
            raise ValueError(
                f"normalize=all with layer={layer}: visual tokens that were removed from a layer cannot count in its "
                "softmax: use normalize=attended, or no layer drop (layer=none)"
            )

    def __str__(self) -> str:
        """Return the notation. A mask is abbreviated to its number of active heads."""
        if self.heads is None or isinstance(self.heads, str):
            return super().__str__()
        flags = [flag for row in self.heads for flag in row]
        return super().__str__().replace(write_value(self.heads), f"{sum(flags)} of {len(flags)}")

    @property
    def acting_stages(self) -> tuple[str, ...]:
        """``structure`` if there are cuts inside the layers, ``prefill`` if layers are dropped."""
        inside = self.window is not None or self.heads is not None or self.ffn < 1
        return ("structure",) * inside + ("prefill",) * (self.layer is not None)

    def fitted(self, model: ModelFacts) -> Method:
        """Load the heads, and check that the mask and the layer match the model."""
        if self.layer is not None:
            check_layer("layer", self.layer, model.decoder.layers)
        heads = self.heads
        if heads is None:
            return self
        if isinstance(heads, str):
            part = load_part(None if heads == AUTO else heads, self.name, model, f"`{CALIBRATION}`")
            if HEADS not in part.tensors or part.tensors[HEADS].dim() != 2:
                raise ValueError(f"the file of heads={heads} holds no mask: make a new one with `{CALIBRATION}`")
            heads = tuple(tuple(map(bool, row)) for row in part.tensors[HEADS].tolist())
        sizes = {len(row) for row in heads}
        if len(heads) != model.decoder.layers or sizes != {model.decoder.heads}:
            raise ValueError(
                f"the mask is for {len(heads)} layers with {'/'.join(map(str, sorted(sizes)))} heads, but the model "
                f"has {model.decoder.layers} with {model.decoder.heads}: make a mask for it with `{CALIBRATION}`"
            )
        return replace(self, heads=heads)

    def structure(self, model: ModelFacts) -> tuple[LayerStructure, ...]:
        """Return the cuts of each layer."""
        depth = model.decoder.layers
        last = depth if self.layer is None else self.layer
        whole = (True,) * model.decoder.heads
        masks = (whole,) * depth if self.heads is None or isinstance(self.heads, str) else self.heads
        cut = tuple(
            LayerStructure(self.window, None if all(mask) else tuple(mask), self.ffn, self.normalize == "attended")
            for mask in masks[:last]
        )
        return cut + (LayerStructure(),) * (depth - last)

    def prefill_layers(self, depth: int) -> tuple[int, ...]:
        """Return the layer from which on there are no visual tokens."""
        return () if self.layer is None else (self.layer,)

    def prefill_count(self, layer: int, initial: int, held: int, images: int, depth: int) -> int:
        """Return 0."""
        return 0

    def select_prefill(self, layer: int, tokens: LayerTokens) -> Selection:
        """Keep no visual token."""
        return Selection(torch.zeros_like(tokens.visual), (0,) * len(tokens.held))


def _is_mask(heads: object) -> bool:
    return isinstance(heads, tuple) and all(
        isinstance(row, tuple) and row and all(type(flag) is bool for flag in row) for row in heads
    )
