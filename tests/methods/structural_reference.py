"""An independent reference for cuts inside the layers: dense, one sample at a time, all computed and then masked.

Every step computes the whole sequence again. Nothing is left out: what a cut removes is hidden by a mask or multiplied
by zero. No code of the package is used.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Structural:
    """One conversation under structural cuts.

    Attributes
    ----------
    heads : list of list of bool or None
        Active heads per layer.
    gone : set of int
        Visual rows that are removed before layer 0.
    before : callable or None
        Called with this object and the number of a layer that is about to run: may let keys end in it.
    ends : list of dict
        For each layer, of the keys that were removed from it, the first row that no longer sees them.
    received : list of Tensor
        For each layer that has run in this step, ``[rows]``: attention from the last row, mean over heads.
    received_before : list of Tensor
        The same of layer 0 alone, in the step before.
    ahead : Tensor
        The same of the layer that is about to run.
    """

    model: Any
    window: int | None = None
    heads: Any = None
    layer: int | None = None
    ffn: float = 1.0
    normalize: str = "attended"
    gone: set[int] = field(default_factory=set)
    before: Callable[["Structural", int], None] | None = None
    embeddings: Tensor = field(init=False)
    image: list[int] = field(init=False, default_factory=list)
    """For each row the number of its image, or -1."""
    cell: list[int] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.decoder = self.model.get_decoder()
        self.sliding = getattr(self.model.config.text_config, "sliding_window", None)
        self.embeddings = torch.zeros(0, self.model.config.text_config.hidden_size)
        self.ends: list[dict[int, int]] = [{} for _ in self.decoder.layers]
        self.received: list[Tensor] = []

    @property
    def visual(self) -> list[int]:
        """Visual rows that entered the decoder."""
        return [i for i, image in enumerate(self.image) if image >= 0 and i not in self.gone]

    @torch.no_grad()
    def follow(self, ids: list[int], pixels: Tensor, answer: list[int]) -> Tensor:
        """Logits of every step when an answer is read out, ``[steps, vocabulary]``."""
        self.read(ids, pixels)
        steps = [self.logits()]
        for token in answer[:-1]:
            self.read([token], pixels[:0])
            steps.append(self.logits())
        return torch.stack(steps)

    def read(self, ids: list[int], pixels: Tensor) -> None:
        """Append a prompt, or generated tokens."""
        rows = self.model.get_input_embeddings()(torch.tensor(ids))
        places = [i for i, token in enumerate(ids) if token == self.model.config.image_token_id and len(pixels)]
        image, cell = [-1] * len(ids), [-1] * len(ids)
        if places:
            features = torch.stack(list(self.model.get_image_features(pixels, return_dict=True).pooler_output))
            rows = rows.clone()
            rows[places] = features.flatten(0, 1)
            n, first = features.shape[1], max(self.image, default=-1) + 1
            for number, place in enumerate(places):
                image[place], cell[place] = first + number // n, number % n
        self.embeddings = torch.cat([self.embeddings, rows])
        self.image += image
        self.cell += cell

    def _visible(self) -> Tensor:
        image, cell = torch.tensor(self.image), torch.tensor(self.cell)
        row = torch.arange(len(image))
        behind = row[:, None] - row
        seen = behind >= 0
        if self.sliding is not None:
            seen = seen & (behind < self.sliding)
        if self.window is not None:
            side = int(cell.max() ** 0.5) + 1
            down, along = cell // side, cell % side
            apart = torch.maximum((down[:, None] - down).abs(), (along[:, None] - along).abs())
            near = (image[:, None] == image) & (apart <= (self.window - 1) // 2)
            seen = torch.where((image[:, None] >= 0) & (image >= 0), near, seen)
        there = torch.tensor([i not in self.gone for i in range(len(image))])
        return (seen & there) | torch.eye(len(image), dtype=torch.bool)

    def logits(self) -> Tensor:
        """Of the last row."""
        visual = torch.tensor([n >= 0 for n in self.image])
        seen, hidden = self._visible(), self.embeddings
        self.received_before, self.received = self.received[:1], []
        cos, sin = self.decoder.rotary_emb(hidden[None], position_ids=torch.arange(len(hidden))[None])
        for number, module in enumerate(self.decoder.layers):
            arguments = number, module, module.input_layernorm(hidden), cos[0], sin[0], seen, visual
            if self.before is not None:
                self._attention(*arguments)
                self.ahead = self.received.pop()
                self.before(self, number)
            hidden = hidden + self._attention(*arguments)
            mlp, x = module.mlp, module.post_attention_layernorm(hidden)
            inner = mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x)
            kept = torch.arange(inner.shape[1]) < round(self.ffn * inner.shape[1])
            inner = inner.masked_fill(visual[:, None] & ~kept, 0)
            hidden = hidden + mlp.down_proj(inner)
        return self.model.lm_head(self.decoder.norm(hidden[-1]))

    def _attention(
        self, number: int, module: Any, x: Tensor, cos: Tensor, sin: Tensor, seen: Tensor, visual: Tensor
    ) -> Tensor:
        attention = module.self_attn
        size = attention.head_dim
        q, k, v = (p(x).view(len(x), -1, size) for p in (attention.q_proj, attention.k_proj, attention.v_proj))
        q, k = (_rotate(t, cos, sin) for t in (q, k))
        k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
        scores = torch.einsum("ihd,jhd->hij", q, k) / size**0.5
        dropped = self.layer is not None and number >= self.layer
        row = torch.arange(len(x))
        for key, end in self.ends[number].items():
            seen = seen & ~((row >= end)[:, None] & (row == key) & (row[:, None] != key))
        mixed, last = [], []
        for h in range(q.shape[1]):
            active = (self.heads is None or self.heads[number][h]) and not dropped
            hidden_keys = ~seen
            if not active and self.normalize == "attended":
                hidden_keys = hidden_keys | (~visual[:, None] & visual)
            weights = scores[h].masked_fill(hidden_keys, -torch.inf).softmax(-1)
            if not active:
                weights = weights.masked_fill(visual, 0)
            last.append(weights[-1])
            output = weights @ v[:, h]
            if not active:
                output = output.masked_fill(visual[:, None], 0)
            mixed.append(output)
        self.received.append(torch.stack(last).mean(0))
        return attention.o_proj(torch.cat(mixed, -1))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE of ``[rows, heads, d]``."""
    first, second = x.chunk(2, -1)
    return x * cos[:, None] + torch.cat([-second, first], -1) * sin[:, None]
