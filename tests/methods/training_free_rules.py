"""The training-free methods for the dense reference, from the formulas. No code of the package is used."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from tests.methods.dense_reference import RENUMBER, Dense, Positions, Row, Rule, Vision


def top(score: Sequence[float] | Tensor, k: int) -> list[int]:
    """The k largest, largest first; among equals the earlier one."""
    values = score.tolist() if isinstance(score, Tensor) else list(score)
    return sorted(range(len(values)), key=lambda i: (-values[i], i))[: max(k, 0)]


def budget(keep: int | float, n: int) -> int:
    """Tokens of n: a number, or a share rounded half up and at least one."""
    return min(n, keep) if isinstance(keep, int) else max(1, math.floor(n * keep + 0.5))


def visual_rows(rows: list[Row]) -> list[int]:
    """Where the visual tokens stand."""
    return [i for i, row in enumerate(rows) if row.visual is not None]


def only(rows: list[Row], visual: list[int], stay: set[int]) -> list[Row]:
    """Rows without the visual ones that do not stay."""
    return [row for i, row in enumerate(rows) if i not in visual or i in stay]


@dataclass
class PerImage(Rule):
    """Before the decoder, a choice within each image."""

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
    important: float

    def choose(self, vision: Vision, image: int) -> list[int]:
        keep = budget(self.keep, vision.n)
        n_important = int(keep * self.important)
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
    keep: float

    def before(self, layer: int, rows: list[Row], dense: Dense) -> list[Row]:
        if layer != self.layer:
            return rows
        visual = visual_rows(rows)
        past = dense.weights[layer - 1].shape[-1] - len(rows)
        score = dense.weights[layer - 1].mean(0)[-1][[past + i for i in visual]]
        stay = {visual[i] for i in top(score, round(len(visual) * self.keep))}
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
        centers = top([rho * delta for rho, delta in zip(density, depth, strict=True)], clusters)
        members: dict[int, list[int]] = {center: [] for center in centers}
        for i in range(len(recycled)):
            # The centers come with the largest product first, and min() takes the first of equals.
            members[i if i in centers else min(centers, key=lambda c: float(d[i, c]))].append(i)
        return [
            replace(
                recycled[center],
                hidden=torch.stack([recycled[i].hidden for i in members[center]]).mean(0),
                members=sum(recycled[i].members for i in members[center]),
            )
            # In the order in which the centers stood: one that was merged before stands behind the raster already.
            for center in sorted(centers, key=lambda c: deleted[c])
        ]
