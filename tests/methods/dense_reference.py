"""An independent reference for the training-free methods: dense, slow, one sample at a time, from the formulas.

A sample is a list of rows, each one token with its hidden state. A removed token is physically gone from the list, so
that nothing but the order of the rows hides one token from another; attention is written out with all its weights.
No code of the package is used.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

Positions = Literal["original", "renumber"]
ORIGINAL: Positions = "original"
RENUMBER: Positions = "renumber"


@dataclass
class Row:
    """One token.

    Attributes
    ----------
    hidden : Tensor
        What enters the next layer, ``[D]``.
    place : int
        Position in the conversation as if nothing had been trimmed.
    visual : int or None
        Number among the visual tokens of this prompt; None for text.
    members : int
        Tokens it stands for: more than one after a merge.
    """

    hidden: Tensor
    place: int
    visual: int | None = None
    members: int = 1


@dataclass
class Vision:
    """Data of the vision tower for a sample's images.

    Attributes
    ----------
    attentions : sequence of Tensor
        Per block, after the softmax, ``[images, heads, tokens, tokens]``.
    features : Tensor
        What the projector reads, ``[images, N, width]``.
    embeddings : Tensor
        What the projector makes of it, ``[images, N, D]``.
    block : int
        The block whose output the features are.
    states : sequence of Tensor
        What enters each block, and what leaves the last, ``[images, tokens, width]``.
    """

    attentions: Sequence[Tensor]
    features: Tensor
    embeddings: Tensor
    block: int
    states: Sequence[Tensor]

    @classmethod
    def of(cls, model: Any, pixels: Tensor) -> "Vision":
        seen = model.model.vision_tower(pixels, output_attentions=True, output_hidden_states=True)
        states = seen.hidden_states
        at = model.config.vision_feature_layer % len(states)
        features = states[at]
        if model.config.vision_feature_select_strategy == "default":
            features = features[:, 1:]
        embeddings = torch.stack(list(model.get_image_features(pixels, return_dict=True).pooler_output))
        # The first of the hidden states enters block 0.
        return cls(seen.attentions, features, embeddings, at - 1, states)

    @property
    def n(self) -> int:
        """Visual tokens per image."""
        return self.features.shape[1]

    def keys(self, model: Any, image: int) -> Tensor:
        """Keys of each patch in the feature block, mean over heads, ``[N, d]``."""
        block = model.model.vision_tower.encoder.layers[self.block]
        heads = block.self_attn.k_proj(block.layer_norm1(self.states[self.block][image]))
        return heads.unflatten(-1, (block.self_attn.num_heads, -1)).float().mean(1)[-self.n :]

    def attention(self, image: int, block: int) -> Tensor:
        """Attention that the class token (or, where there is none, the mean patch) pays to each patch, ``[N]``."""
        weights = self.attentions[block][image].float().mean(0)
        has_class_token = weights.shape[-1] == self.n + 1
        return weights[0, 1:] if has_class_token else weights.mean(0)


@dataclass
class Rule:
    """A method: the rows that stay before a layer, and changes of the layer. The base class changes nothing."""

    positions: Positions = field(default=ORIGINAL, kw_only=True)

    def before(self, layer: int, rows: list[Row], dense: "Dense") -> list[Row]:
        """Rows that enter ``layer`` of those that left the layer before, in their order."""
        return rows

    def weights(self, layer: int, logits: Tensor, queries: list[Row], keys: list[Row]) -> Tensor:
        """Attention ``[heads, queries, keys]`` of ``layer``; the queries are the last of the keys."""
        later = torch.ones(len(queries), len(keys), dtype=torch.bool).triu(len(keys) - len(queries) + 1)
        return logits.masked_fill(later, -torch.inf).softmax(-1)

    def feed_forward(self, module: Any, x: Tensor, rows: list[Row]) -> Tensor:
        """Output of a layer's FFN for the normalized states ``[rows, D]``."""
        return module.mlp(x)


@dataclass
class Dense:
    """One conversation under a rule, on a model with eager attention.

    Attributes
    ----------
    vision : Vision or None
        Of the prompt that was read last.
    entered : list of Row
        What entered the decoder, at layer 0.
    weights : list of Tensor
        Attention of each layer that ran in this pass, ``[heads, rows, keys]``.
    places : list of Tensor
        RoPE positions of the rows of each layer that ran in this pass, ``[rows]``.
    kept, merged : list of set of int
        Per layer: visual tokens that it ran on in the prefill, and those of them that stand for several.
    """

    model: Any
    rule: Rule = field(default_factory=Rule)
    vision: Vision | None = field(init=False, default=None)
    entered: list[Row] = field(init=False, default_factory=list)
    weights: list[Tensor] = field(init=False, default_factory=list)
    places: list[Tensor] = field(init=False, default_factory=list)
    kept: list[set[int]] = field(init=False, default_factory=list)
    merged: list[set[int]] = field(init=False, default_factory=list)
    visual_tokens: int = field(init=False, default=0)
    length: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.decoder = self.model.get_decoder()
        self.keys: list[list[Tensor]] = [[] for _ in self.decoder.layers]
        self.values: list[list[Tensor]] = [[] for _ in self.decoder.layers]
        self.stored: list[list[Row]] = [[] for _ in self.decoder.layers]

    @property
    def kv_lengths(self) -> list[int]:
        """Tokens that each layer's cache should hold."""
        return [len(keys) for keys in self.keys]

    @property
    def cuts(self) -> list[int]:
        """Layers before which visual tokens were removed from the prompt."""
        before = [self.visual_tokens, *map(len, self.kept)]
        return [layer for layer, kept in enumerate(self.kept) if len(kept) < before[layer]]

    @torch.no_grad()
    def prefill(self, ids: list[int], pixels: Tensor | None) -> Tensor:
        """Read a prompt, or a further turn, and return the logits of its last token."""
        rows = self._embed(ids)
        self.vision = None
        images = [i for i, token in enumerate(ids) if token == self.model.config.image_token_id]
        if pixels is not None and len(pixels):
            self.vision = Vision.of(self.model, pixels)
            for number, (i, embedding) in enumerate(zip(images, self.vision.embeddings.flatten(0, 1), strict=True)):
                # The last token of a prompt gives its logits and is never removed: to a method it is text.
                rows[i] = Row(embedding, rows[i].place, number if i < len(ids) - 1 else None)
        self.visual_tokens = sum(row.visual is not None for row in rows)
        self.kept, self.merged = [], []
        for layer in range(len(self.decoder.layers)):
            if self.visual_tokens:
                rows = self.rule.before(layer, rows, self)
            if layer == 0:
                self.entered = rows
            self.kept.append({row.visual for row in rows if row.visual is not None})
            self.merged.append({row.visual for row in rows if row.visual is not None and row.members > 1})
            rows = self._run(layer, rows)
        return self._logits(rows)

    @torch.no_grad()
    def decode(self, token: int) -> Tensor:
        """Read one generated token and return the logits of the next."""
        rows = self._embed([token])
        for layer in range(len(self.decoder.layers)):
            rows = self._run(layer, rows)
        return self._logits(rows)

    def follow(self, ids: list[int], pixels: Tensor | None, answer: list[int]) -> Tensor:
        """Logits of every step when the given answer is read out, ``[steps, vocabulary]``."""
        steps = [self.prefill(ids, pixels)]
        return torch.stack(steps + [self.decode(token) for token in answer[:-1]])

    def place(self, layer: int, rows: list[Row]) -> Tensor:
        """RoPE positions of rows at a layer that has not stored them yet."""
        if self.rule.positions == ORIGINAL:
            return torch.tensor([row.place for row in rows])
        # Behind all that this layer has stored, without gaps.
        return len(self.keys[layer]) + torch.arange(len(rows))

    def attend(self, layer: int, rows: list[Row]) -> tuple[Tensor, Tensor, Tensor]:
        """Attention of a layer over its cache and these rows: weights, and keys and values of the rows."""
        module = self.decoder.layers[layer]
        attention, size = module.self_attn, module.self_attn.head_dim
        hidden = torch.stack([row.hidden for row in rows])
        x = module.input_layernorm(hidden)
        q, k, v = (proj(x).view(len(rows), -1, size) for proj in (attention.q_proj, attention.k_proj, attention.v_proj))
        cos, sin = self.decoder.rotary_emb(hidden, position_ids=self.place(layer, rows)[None])
        q, k = _rotate(q, cos[0], sin[0]), _rotate(k, cos[0], sin[0])
        keys = torch.stack([*self.keys[layer], *k])
        groups = q.shape[1] // keys.shape[1]
        logits = torch.einsum("ihd,jhd->hij", q, keys.repeat_interleave(groups, 1)).float() / size**0.5
        return self.rule.weights(layer, logits, rows, [*self.stored[layer], *rows]), k, v

    def _run(self, layer: int, rows: list[Row]) -> list[Row]:
        module = self.decoder.layers[layer]
        weights, k, v = self.attend(layer, rows)
        self.places = [*self.places[:layer], self.place(layer, rows)]
        self.keys[layer] += list(k)
        self.values[layer] += list(v)
        self.stored[layer] += rows
        self.weights = [*self.weights[:layer], weights]
        values = torch.stack(self.values[layer])
        values = values.repeat_interleave(len(weights) // values.shape[1], 1)
        mixed = torch.einsum("hij,jhd->ihd", weights, values).flatten(1)
        hidden = torch.stack([row.hidden for row in rows]) + module.self_attn.o_proj(mixed)
        hidden = hidden + self.rule.feed_forward(module, module.post_attention_layernorm(hidden), rows)
        return [replace(row, hidden=h) for row, h in zip(rows, hidden, strict=True)]

    def _embed(self, ids: list[int]) -> list[Row]:
        embeddings = self.model.get_input_embeddings()(torch.tensor(ids))
        rows = [Row(h, self.length + i) for i, h in enumerate(embeddings)]
        self.length += len(ids)
        return rows

    def _logits(self, rows: list[Row]) -> Tensor:
        return self.model.lm_head(self.decoder.norm(rows[-1].hidden))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE of ``[rows, heads, d]``: the first half of the features is paired with the second."""
    first, second = x.chunk(2, -1)
    return x * cos[:, None] + torch.cat([-second, first], -1) * sin[:, None]
