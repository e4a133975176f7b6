"""YOPO for the dense reference, from the formulas. No code of the package is used."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import silu

from tests.methods.dense_reference import Dense, Row, Rule


@dataclass
class YOPO(Rule):
    """Fixed cuts in what is computed for visual tokens.

    Attributes
    ----------
    active : sequence of sequence of bool, or None
        Per layer and head (of queries): whether text may attend to visual tokens, and these get anything at all.
    window : int or None
        Rows and columns (an odd number) of the neighbourhood that a visual token attends to in its image.
    layer : int or None
        First layer without visual tokens.
    ffn : float
        Share of the FFN's neurons, counted from the first, that visual tokens use.
    normalise : {"attended", "all"}
        Whether the softmax of text in an inactive head is over the text, or over all.
    patches, columns : int
        Visual tokens of an image, and of one row of it.
    """

    active: Sequence[Sequence[bool]] | None = None
    window: int | None = None
    layer: int | None = None
    ffn: float = 1.0
    normalise: Literal["attended", "all"] = "attended"
    patches: int = 16
    columns: int = 4

    def before(self, layer: int, rows: list[Row], dense: Dense) -> list[Row]:
        return [row for row in rows if row.visual is None] if layer == self.layer else rows

    def weights(self, layer: int, logits: Tensor, queries: list[Row], keys: list[Row]) -> Tensor:
        seen = torch.zeros(len(queries), len(keys), dtype=torch.bool)
        past = len(keys) - len(queries)
        for i, query in enumerate(queries):
            if self.window is None or query.visual is None:
                seen[i, : past + i + 1] = True
                continue
            for j, key in enumerate(keys):
                seen[i, j] = self._sees(query, key, past + i - j, key_is_old=j < past)
        weights = logits.masked_fill(~seen, -torch.inf).softmax(-1)
        if self.active is None:
            return weights
        text = torch.tensor([key.visual is None for key in keys])
        visual_queries = [i for i, query in enumerate(queries) if query.visual is not None]
        for head, active in enumerate(self.active[layer]):
            if active:
                continue
            if self.normalise == "attended":
                weights[head] = logits[head].masked_fill(~(seen & text), -torch.inf).softmax(-1)
            weights[head][:, ~text] = 0.0
            weights[head][visual_queries] = 0.0
        return weights

    def _sees(self, query: Row, key: Row, distance: int, key_is_old: bool) -> bool:
        """Whether a visual token within a window sees another token."""
        if key.visual is None:
            return distance > 0
        # Numbers start again with each prompt.
        if key_is_old or query.visual // self.patches != key.visual // self.patches:
            return False
        radius = (self.window - 1) // 2
        down = query.visual % self.patches // self.columns - key.visual % self.patches // self.columns
        right = query.visual % self.columns - key.visual % self.columns
        return max(abs(down), abs(right)) <= radius

    def feed_forward(self, module: Any, x: Tensor, rows: list[Row]) -> Tensor:
        mlp = module.mlp
        out = mlp(x)
        n = math.floor(self.ffn * mlp.gate_proj.out_features)
        for i, row in enumerate(rows):
            if row.visual is not None:
                inner = silu(mlp.gate_proj.weight[:n] @ x[i]) * (mlp.up_proj.weight[:n] @ x[i])
                out[i] = mlp.down_proj.weight[:, :n] @ inner
        return out
