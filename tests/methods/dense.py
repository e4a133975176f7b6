"""An independent reference for the training-free methods: dense, slow, one sample at a time, from the formulas.

A sample is a list of rows, each one token with its hidden state. A removed token is physically gone from the list, so
that nothing but the order of the rows hides one token from another; attention is written out with all its weights.
No code of the package is used.
"""

import math
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
    """What the vision tower did with a sample's images.

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
    """

    attentions: Sequence[Tensor]
    features: Tensor
    embeddings: Tensor
    block: int

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
        return cls(seen.attentions, features, embeddings, at - 1)

    @property
    def n(self) -> int:
        """Visual tokens per image."""
        return self.features.shape[1]

    def attention(self, image: int, block: int) -> Tensor:
        """Attention that the class token (or, where there is none, the mean patch) pays to each patch, ``[N]``."""
        weights = self.attentions[block][image].float().mean(0)
        has_class_token = weights.shape[-1] == self.n + 1
        return weights[0, 1:] if has_class_token else weights.mean(0)


def top(score: Sequence[float] | Tensor, k: int) -> list[int]:
    """The k largest, largest first; among equals the earlier one."""
    values = score.tolist() if isinstance(score, Tensor) else list(score)
    return sorted(range(len(values)), key=lambda i: (-values[i], i))[: max(k, 0)]


def budget(keep: int | float, n: int) -> int:
    """Tokens of n: a number, or a share rounded half up and at least one."""
    return min(n, keep) if isinstance(keep, int) else max(1, math.floor(n * keep + 0.5))


@dataclass
class Rule:
    """A method: which rows stay before a layer. The base class keeps all."""

    positions: Positions = field(default=ORIGINAL, kw_only=True)

    def before(self, layer: int, rows: list[Row], dense: "Dense") -> list[Row]:
        """Rows that enter ``layer`` of those that left the layer before, in their order."""
        return rows


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
        self.visual_tokens = len(images)
        if pixels is not None and len(pixels):
            self.vision = Vision.of(self.model, pixels)
            for number, (i, embedding) in enumerate(zip(images, self.vision.embeddings.flatten(0, 1), strict=True)):
                rows[i] = Row(embedding, rows[i].place, number)
        self.kept, self.merged = [], []
        for layer in range(len(self.decoder.layers)):
            if images:
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
        past = len(self.keys[layer])
        for i in range(len(rows)):
            logits[:, i, past + i + 1 :] = -torch.inf
        return logits.softmax(-1), k, v

    def _run(self, layer: int, rows: list[Row]) -> list[Row]:
        module = self.decoder.layers[layer]
        weights, k, v = self.attend(layer, rows)
        self.places = [*self.places[:layer], self.place(layer, rows)]
        self.keys[layer] += list(k)
        self.values[layer] += list(v)
        self.weights = [*self.weights[:layer], weights]
        values = torch.stack(self.values[layer])
        values = values.repeat_interleave(len(weights) // values.shape[1], 1)
        mixed = torch.einsum("hij,jhd->ihd", weights, values).flatten(1)
        hidden = torch.stack([row.hidden for row in rows]) + module.self_attn.o_proj(mixed)
        hidden = hidden + module.mlp(module.post_attention_layernorm(hidden))
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


def visual_rows(rows: list[Row]) -> list[int]:
    """Where the visual tokens stand."""
    return [i for i, row in enumerate(rows) if row.visual is not None]


def only(rows: list[Row], visual: list[int], stay: set[int]) -> list[Row]:
    """Rows without the visual ones that do not stay."""
    return [row for i, row in enumerate(rows) if i not in visual or i in stay]


@dataclass
class PerImage(Rule):
    """Before the LLM, a choice within each image."""

    positions: Positions = field(default=RENUMBER, kw_only=True)

    def before(self, layer: int, rows: list[Row], dense: Dense) -> list[Row]:
        if layer > 0:
            return rows
        vision = dense.vision
        stay = {
            image * vision.n + patch for image in range(len(vision.features)) for patch in self.choose(vision, image)
        }
        return [row for row in rows if row.visual is None or row.visual in stay]

    def choose(self, vision: Vision, image: int) -> list[int]:
        """Patches of an image that stay."""
        raise NotImplementedError


@dataclass
class FasterVLM(PerImage):
    keep: int | float

    def choose(self, vision: Vision, image: int) -> list[int]:
        return top(vision.attention(image, vision.block), budget(self.keep, vision.n))


@dataclass
class VTCCLS(PerImage):
    keep: int | float
    first_layer: int

    def choose(self, vision: Vision, image: int) -> list[int]:
        score = sum(vision.attention(image, block) for block in range(self.first_layer, vision.block + 1))
        return top(score, budget(self.keep, vision.n))


@dataclass
class VisPruner(PerImage):
    keep: int | float
    important_ratio: float

    def choose(self, vision: Vision, image: int) -> list[int]:
        keep = budget(self.keep, vision.n)
        n_important = int(keep * self.important_ratio)
        n_diverse = keep - n_important
        order = top(vision.attention(image, vision.block), vision.n)
        important, rest = order[:n_important], order[n_important:]
        if n_diverse == 0:
            return important
        x = vision.features[image].float()
        x = x / x.norm(dim=-1, keepdim=True)
        while len(rest) > n_diverse:
            a, b = rest[0::2], rest[1::2]
            nearest = [max(float(x[i] @ x[j]) for j in b) for i in a]
            similar_first = top(nearest, len(a))
            remove = min(8, len(rest) - n_diverse, len(a))
            rest = [a[i] for i in similar_first[remove:]] + b
        return important + rest


@dataclass
class FastV(Rule):
    layer: int
    ratio: float

    def before(self, layer: int, rows: list[Row], dense: Dense) -> list[Row]:
        if layer != self.layer:
            return rows
        visual = visual_rows(rows)
        past = dense.weights[layer - 1].shape[-1] - len(rows)
        score = dense.weights[layer - 1].mean(0)[-1][[past + i for i in visual]]
        stay = {visual[i] for i in top(score, round(len(visual) * (1 - self.ratio)))}
        return only(rows, visual, stay)


@dataclass
class PyramidDrop(Rule):
    layers: Sequence[int]
    keep: Sequence[float]
    positions: Positions = field(default=RENUMBER, kw_only=True)

    def before(self, layer: int, rows: list[Row], dense: Dense) -> list[Row]:
        if layer not in self.layers:
            return rows
        visual = visual_rows(rows)
        # The layer that is about to run, on rows that are not cut yet.
        weights, _, _ = dense.attend(layer, rows)
        past = weights.shape[-1] - len(rows)
        score = weights.mean(0)[-1][[past + i for i in visual]]
        keep = int(dense.visual_tokens * self.keep[list(self.layers).index(layer)])
        return only(rows, visual, {visual[i] for i in top(score, keep)})


@dataclass
class VTW(Rule):
    layer: int

    def before(self, layer: int, rows: list[Row], dense: Dense) -> list[Row]:
        return [row for row in rows if row.visual is None] if layer == self.layer else rows


@dataclass
class SparseVLM(Rule):
    layers: Sequence[int]
    counts: Sequence[int | float] = ()
    variant: Literal["1.5", "1.0", "plus"] = "1.5"
    rank: tuple[float, float] = (0.0, 0.0)
    """Variant 1.0: scale and bias of the number of tokens as a function of the rank."""

    def before(self, layer: int, rows: list[Row], dense: Dense) -> list[Row]:
        if layer - 1 not in self.layers:
            return rows
        visual = visual_rows(rows)
        past = dense.weights[layer - 1].shape[-1] - len(rows)
        raters = self._raters(rows, dense)
        block = dense.weights[layer - 1][:, raters][:, :, [past + i for i in visual]]
        if self.variant == "plus":
            block = self._without_distance(block, raters, visual, layer - 1, dense)
        score = block.mean((0, 1))
        k = self._count(layer - 1, block, dense)
        left_alone = len(visual) if self.variant == "plus" else len(visual) - 1
        if k >= left_alone:
            return rows
        order = top(score, len(visual))
        kept, deleted = [visual[i] for i in order[:k]], [visual[i] for i in order[k:]]
        if self.variant == "plus":
            return only(rows, visual, set(kept))
        merged = self._recycle(deleted, rows)
        last = visual[-1]
        before, behind = only(rows[: last + 1], visual, set(kept)), rows[last + 1 :]
        return before + merged + behind

    def _count(self, layer: int, block: Tensor, dense: Dense) -> int:
        if self.variant == "1.0":
            scale, bias = self.rank
            return int(scale * int(torch.linalg.matrix_rank(block.mean(0).float())) + bias)
        count = self.counts[list(self.layers).index(layer)]
        if isinstance(count, int):
            return count * len(dense.vision.features)
        return math.floor(count * len(visual_rows(dense.entered)) + 0.5)

    @staticmethod
    def _raters(rows: list[Row], dense: Dense) -> list[int]:
        """Rows of the text that the image concerns most, by the embeddings that enter layer 0."""
        visual = visual_rows(dense.entered)
        text = dense.entered[visual[-1] + 1 :]
        v = torch.stack([dense.entered[i].hidden for i in visual]).float()
        q = torch.stack([row.hidden for row in text]).float()
        relevance = (v @ q.T).softmax(1).mean(0)
        chosen = [row.place for row, r in zip(text, relevance, strict=True) if r > relevance.mean()]
        chosen = chosen or [row.place for row in text]
        return [i for i, row in enumerate(rows) if row.visual is None and row.place in chosen]

    @staticmethod
    def _without_distance(block: Tensor, raters: list[int], visual: list[int], layer: int, dense: Dense) -> Tensor:
        """Weights over what RoPE alone would give, of the heads that look at the image most."""
        size = dense.decoder.layers[layer].self_attn.head_dim
        theta = dense.decoder.rotary_emb.inv_freq.float()
        places = dense.places[layer]
        distance = (places[raters][:, None] - places[visual][None]).float()
        g = 2 / size**0.5 * (distance[..., None] * theta).cos().sum(-1)
        g = g.clamp(min=0.1 * 2 / size**0.5 * len(theta))
        block = block / g
        return block[top(block.sum((1, 2)), 14)]

    @staticmethod
    def _recycle(deleted: list[int], rows: list[Row]) -> list[Row]:
        """Cluster the best deleted rows (given best first) and return the mean of each cluster."""
        deleted = deleted[: int(0.3 * len(deleted)) + 1]
        recycled = [rows[i] for i in deleted]
        clusters = len(recycled) // 10 + 1
        x = torch.stack([row.hidden for row in recycled]).double()
        # Not from inner products, by which a token would not be at distance zero from itself.
        d = (x[:, None] - x[None]).norm(dim=-1) / x.shape[-1] ** 0.5
        density = (-d.sort(1).values[:, :clusters].square().mean(1)).exp().tolist()
        depth = []
        for i, rho in enumerate(density):
            denser = [float(d[i, j]) for j in range(len(recycled)) if density[j] > rho]
            depth.append(min(denser) if denser else float(d.max()))
        centres = top([rho * delta for rho, delta in zip(density, depth, strict=True)], clusters)
        members: dict[int, list[int]] = {centre: [] for centre in centres}
        for i in range(len(recycled)):
            # The centres come with the largest product first, and min() takes the first of equals.
            members[i if i in centres else min(centres, key=lambda c: float(d[i, c]))].append(i)
        return [
            replace(
                recycled[centre],
                hidden=torch.stack([recycled[i].hidden for i in members[centre]]).mean(0),
                members=sum(recycled[i].members for i in members[centre]),
            )
            # In the order in which the centres stood: one that was merged before stands behind the raster already.
            for centre in sorted(centres, key=lambda c: deleted[c])
        ]
