"""The newer selectors for the dense reference, from the formulas, with loops. No code of the package is used."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from tests.methods.dense_reference import RENUMBER, Dense, Positions, Row, Rule
from tests.methods.training_free_rules import budget, only, top, visual_rows


def cosine(x: Tensor) -> list[list[float]]:
    """Cosines of rows, in double precision."""
    x = x.double()
    x = x / x.norm(dim=-1, keepdim=True)
    return (x @ x.T).tolist()


def distinct(x: Tensor) -> list[float]:
    """Cen-Prune's distinctiveness."""
    s = cosine(x)
    g = [-sum(s[i][j] for j in range(len(s)) if j != i) / (len(s) - 1) for i in range(len(s))]
    return [(value - min(g)) / (max(g) - min(g)) for value in g]


def centered(x: Tensor) -> Tensor:
    return x.double() - x.double().mean(0)


def max_min(x: Tensor, count: int, center: bool = False) -> list[int]:
    """DivPrune's choice."""
    s, g = cosine(centered(x) if center else x), distinct(x) if center else [1.0] * len(x)
    n = len(s)
    chosen = [max(range(n), key=lambda i: min(1 - s[i][j] for j in range(n) if j != i))]
    while len(chosen) < count:
        left = [i for i in range(n) if i not in chosen]
        chosen.append(max(left, key=lambda i: g[i] * min(1 - s[i][j] for j in chosen)))
    return chosen


def covering(x: Tensor, attention: Sequence[float], count: int, alpha: float) -> list[int]:
    """SCOPE's choice."""
    c, n = cosine(x), len(x)
    covered, chosen = [0.0] * n, []
    while len(chosen) < count:
        left = [j for j in range(n) if j not in chosen]
        gain = {j: sum(max(0.0, c[i][j] - covered[i]) for i in range(n)) * attention[j] ** alpha for j in left}
        chosen.append(max(left, key=gain.__getitem__))
        covered = [max(a, c[i][chosen[-1]]) for i, a in enumerate(covered)]
    return chosen


def largest_volume(kernel: Tensor, count: int) -> list[int]:
    """Greedy MAP of a determinantal point process, by determinants."""
    chosen: list[int] = []
    while len(chosen) < count:
        left = [i for i in range(len(kernel)) if i not in chosen]
        chosen.append(max(left, key=lambda i: float(torch.linalg.det(kernel[[*chosen, i]][:, [*chosen, i]]))))
    return chosen


def by_crops(x: Tensor, attention: Sequence[float], crops: int, count: int, alpha: float = 0.09) -> list[int]:
    """HoloV's choice, with its variance term; the surplus of a full crop is divided among the others by weight."""
    n, s = len(x), cosine(x)
    bounds = [0]
    for c in range(crops):
        bounds.append(bounds[-1] + n // crops + (c < n % crops))
    runs = [list(range(a, b)) for a, b in pairwise(bounds)]
    scores = []
    for run in runs:
        m, variance = len(run), []
        for i in run:
            row = [0.0 if j == i else s[i][j] for j in run]
            mean = sum(row) / max(m - 1, 1)
            variance.append(sum((value - mean) ** 2 for value in row) / max(m - 1, 1))
        a = [1000 * attention[i] for i in run]
        scale = (sum(a) / m) / (sum(variance) / m + 1e-6)
        scores.append(sum(p + alpha * v * scale for p, v in zip(a, variance, strict=True)) / m)
    weights = [score / sum(scores) for score in scores]
    given, active, left = [0.0] * crops, list(range(crops)), float(count)
    while active:
        share = {c: weights[c] * left / sum(weights[d] for d in active) for c in active}
        full = [c for c in active if share[c] >= len(runs[c])]
        if not full:
            given = [share.get(c, given[c]) for c in range(crops)]
            break
        for c in full:
            given[c] = len(runs[c])
            left -= len(runs[c])
            active.remove(c)
    whole = [math.floor(value + 1e-6) for value in given]
    room = [c for c in top(weights, crops) if whole[c] < len(runs[c])]
    for c in room[: count - sum(whole)]:
        whole[c] += 1
    return [run[i] for run, k in zip(runs, whole, strict=True) for i in top([attention[j] for j in run], k)]


def in_windows(attention: Sequence[float], rows: int, columns: int, each: int) -> list[int]:
    """The best of each of 4 x 4 windows."""
    chosen = []
    for r in range(4):
        for c in range(4):
            own = [
                i for i in range(rows * columns) if i // columns * 4 // rows == r and i % columns * 4 // columns == c
            ]
            chosen += [own[i] for i in top([attention[i] for i in own], each)]
    return chosen


def gathered(
    scores: Sequence[float], keys: Tensor, h: Tensor, dominant: int, contextual: int
) -> tuple[list[int], dict[int, Tensor]]:
    """VisionZip's dominant patches, and the merged targets."""
    chosen = sorted(top(scores, dominant))
    rest = [i for i in range(len(scores)) if i not in chosen]
    step = max(1, len(rest) // max(contextual, 1))
    targets = [rest[k * step] for k in range(contextual)]
    unit = keys / keys.norm(dim=-1, keepdim=True)
    members: dict[int, list[int]] = {t: [] for t in targets}
    for i in rest:
        if i not in targets and targets:
            members[max(targets, key=lambda t: float(unit[i] @ unit[t]))].append(i)
    return chosen, {t: h[t] + h[m].mean(0) if m else h[t] for t, m in members.items()}


def around_pivots(
    x: Tensor, keys: Tensor, visual: list[int], text: list[int], wanted: int, pivots: tuple[int, int]
) -> list[int]:
    """DART's choice; ``keys`` is ``[n, ...]``."""
    size = keys.flatten(1).abs().sum(1)
    image = sorted(visual[i] for i in top(size[visual], pivots[0]))
    words = sorted(text[i] for i in top(size[text], pivots[1]))
    unit = x / x.norm(dim=-1, keepdim=True)
    pool = [i for i in visual if i not in image]
    kept = list(image)
    for pivot in image + words:
        nearest_last = sorted(pool, key=lambda i: float(unit[i] @ unit[pivot]))
        kept += nearest_last[: wanted // sum(pivots)]
        pool = [i for i in pool if i not in kept]
    return sorted(kept)


@dataclass
class Chosen(Rule):
    """Before the decoder, a choice among the tokens of each image, or of all together."""

    keep: int | float
    over: str = field(default="image", kw_only=True)
    positions: Positions = field(default=RENUMBER, kw_only=True)

    def before(self, layer: int, rows: list[Row], dense: Dense) -> list[Row]:
        if layer > 0:
            return rows
        stay: set[int] = set()
        for group, images in self.groups(rows, dense):
            count = budget(self.keep if isinstance(self.keep, float) else self.keep * images, len(group))
            stay |= {group[i] for i in self.choose([rows[i] for i in group], count, rows, dense)}
        return only(rows, visual_rows(rows), stay)

    def groups(self, rows: list[Row], dense: Dense) -> list[tuple[list[int], int]]:
        visual, n, images = visual_rows(rows), dense.vision.n, len(dense.vision.features)
        if self.over == "prompt":
            return [(visual, images)]
        return [([i for i in visual if rows[i].visual // n == image], 1) for image in range(images)]

    def choose(self, own: list[Row], count: int, rows: list[Row], dense: Dense) -> list[int]:
        raise NotImplementedError


def embeddings(own: list[Row]) -> Tensor:
    return torch.stack([row.hidden for row in own])


def features(own: list[Row], dense: Dense) -> Tensor:
    return dense.vision.features.flatten(0, 1)[[row.visual for row in own]]


def attention(own: list[Row], dense: Dense, block: int | None = None) -> list[float]:
    vision = dense.vision
    each = [vision.attention(image, vision.block if block is None else block) for image in range(len(vision.features))]
    return torch.cat(each)[[row.visual for row in own]].tolist()


@dataclass
class DivPrune(Chosen):
    center: bool = False

    def choose(self, own: list[Row], count: int, rows: list[Row], dense: Dense) -> list[int]:
        return max_min(embeddings(own), count, self.center)


@dataclass
class SCOPE(Chosen):
    alpha: float = 1.0

    def choose(self, own: list[Row], count: int, rows: list[Row], dense: Dense) -> list[int]:
        return covering(features(own, dense), attention(own, dense), count, self.alpha)


@dataclass
class HoloV(Chosen):
    crops: int = 16

    def choose(self, own: list[Row], count: int, rows: list[Row], dense: Dense) -> list[int]:
        return by_crops(embeddings(own), attention(own, dense), self.crops, count)


@dataclass
class CDPruner(Chosen):
    center: bool = False

    def choose(self, own: list[Row], count: int, rows: list[Row], dense: Dense) -> list[int]:
        x, words = embeddings(own).double(), embeddings(rows[visual_rows(rows)[-1] + 1 :]).double()
        unit = x / x.norm(dim=-1, keepdim=True)
        like = (unit @ (words / words.norm(dim=-1, keepdim=True)).T).mean(1)
        r = (like - like.min() + 1e-6) / (like.max() - like.min())
        if self.center:
            r = r * torch.tensor(distinct(x), dtype=torch.float64)
        s = torch.tensor(cosine(centered(x) if self.center else x), dtype=torch.float64)
        return largest_volume(r[:, None] * s * r, count)


@dataclass
class VisionZip(Rule):
    dominant: int
    contextual: int
    positions: Positions = field(default=RENUMBER, kw_only=True)

    def before(self, layer: int, rows: list[Row], dense: Dense) -> list[Row]:
        if layer > 0:
            return rows
        model, vision, made = dense.model, dense.vision, []
        n, done = vision.n, 0
        for image in range(len(vision.features)):
            own = [i for i in visual_rows(rows) if rows[i].visual // n == image]
            patches = [rows[i].visual % n for i in own]
            has_class = vision.states[vision.block + 1].shape[1] == n + 1
            score = vision.attention(image, vision.block)[patches].tolist()
            keys = vision.keys(dense.model, image)[patches]
            chosen, merged = gathered(
                score, keys, vision.features[image, patches], self.dominant - has_class, self.contextual
            )
            project = model.model.multi_modal_projector
            stands = {i: rows[own[i]] for i in chosen}
            stands |= {i: replace(rows[own[i]], hidden=project(h[None])[0], members=2) for i, h in merged.items()}
            order = [*chosen, *merged]
            if has_class:
                place = min(i for i in range(len(own)) if i not in order)
                state = vision.states[vision.block + 1][image, :1]
                stands[place] = replace(rows[own[place]], hidden=project(state)[0], members=2)
                order = [place, *order]
            if self.positions != RENUMBER:
                order = sorted(order)
            made += rows[done : own[0]] + [stands[i] for i in order]
            done = own[-1] + 1
        return made + rows[done:]


@dataclass
class VScan(Rule):
    keep: int
    layer: int
    left: int
    positions: Positions = field(default=RENUMBER, kw_only=True)

    def before(self, layer: int, rows: list[Row], dense: Dense) -> list[Row]:
        visual = visual_rows(rows)
        images = len(dense.vision.features)
        if layer == self.layer:
            weights, _, _ = dense.attend(layer, rows)
            past = weights.shape[-1] - len(rows)
            score = weights.mean(0)[-1][[past + i for i in visual]]
            return only(rows, visual, {visual[i] for i in top(score, self.left * images)})
        if layer > 0:
            return rows
        stands: dict[int, Row] = {}
        n = dense.vision.n
        side, block = math.isqrt(n), dense.vision.block
        for image in range(images):
            own = visual[image * n : (image + 1) * n]
            shallow, deep = (dense.vision.attention(image, b).tolist() for b in (block * 5 // 22, block))
            local = in_windows(shallow, side, side, self.keep // 2 // 16)
            others = [-1.0 if i in local else value for i, value in enumerate(deep)]
            kept = sorted([*local, *top(others, self.keep - len(local))])
            s = cosine(embeddings([rows[i] for i in own]))
            members = {k: [k] for k in kept}
            for i in range(n):
                if i not in kept:
                    members[max(kept, key=lambda k: s[i][k])].append(i)
            for k, group in members.items():
                mean = embeddings([rows[own[i]] for i in group]).mean(0)
                stands[own[k]] = replace(rows[own[k]], hidden=mean, members=len(group))
        return [stands.get(i, row) for i, row in enumerate(rows) if row.visual is None or i in stands]


@dataclass
class DART(Rule):
    keep: int
    layer: int
    pivots: tuple[int, int]

    def before(self, layer: int, rows: list[Row], dense: Dense) -> list[Row]:
        if layer != self.layer:
            return rows
        visual = visual_rows(rows)
        x = dense.decoder.norm(torch.stack([row.hidden for row in rows])).float()
        keys = torch.stack(dense.keys[layer - 1][-len(rows) :]).float()
        text = list(range(visual[-1] + 1, len(rows)))
        wanted = self.keep * len(dense.vision.features)
        return only(rows, visual, set(around_pivots(x, keys, visual, text, wanted, self.pivots)))


def shrunk(model: Any, pixels: Tensor, rows: int, columns: int) -> Tensor:
    """Projected features of images averaged over areas of equal size; sides are multiples of the smaller ones."""
    size = model.config.vision_config.patch_size
    images, channels, height, width = pixels.shape
    a, b = height // (rows * size), width // (columns * size)
    small = pixels.view(images, channels, rows * size, a, columns * size, b).mean((3, 5))
    seen = model.model.vision_tower(small, output_hidden_states=True, interpolate_pos_encoding=True).hidden_states
    return model.model.multi_modal_projector(seen[model.config.vision_feature_layer][:, 1:])
