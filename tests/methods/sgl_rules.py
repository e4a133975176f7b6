"""SGL for the dense reference, from the formulas. No code of the package is used."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests import tiny
from tests.methods.dense_reference import Dense, Row, Rule
from tests.methods.training_free_rules import only, top, visual_rows


@dataclass
class KeepFrom(Rule):
    """From a layer on, only these visual tokens are left."""

    layer: int
    stay: Collection[int]

    def before(self, layer: int, rows: list[Row], dense: Dense) -> list[Row]:
        if layer != self.layer:
            return rows
        visual = visual_rows(rows)
        return only(rows, visual, {i for i in visual if rows[i].visual in self.stay})


@dataclass
class Guidance:
    """Results of the guide model for one prompt.

    Attributes
    ----------
    answer : list of int
        Greedy, with the token that ends it, if it was reached.
    importance : Tensor
        ``[N]``: attention that each visual token receives, summed over layers, heads and queries. The queries are the
        text of the prompt behind the last visual token and the answer's tokens, as far as they were read by the guide
        to write the next one.
    confidence : float
        Geometric mean of the probabilities of the answer's tokens.
    consistency : float
        Probability of the whole answer when the guide sees a twentieth of the visual tokens.
    """

    answer: list[int]
    importance: Tensor
    confidence: float
    consistency: float

    @property
    def score(self) -> float:
        return (self.confidence + self.consistency) / 2


def ask(guide: Any, prompt: tiny.Sample, new_tokens: int, ends: Collection[int] = ()) -> Guidance:
    """Let the guide, a model with eager attention, answer a prompt."""
    dense = Dense(guide)
    logits = dense.prefill(prompt.ids, prompt.pixels)
    rows = dense.entered
    visual = visual_rows(rows)
    question = range(visual[-1] + 1, len(rows)) if visual else range(len(rows))
    importance = _received(dense, list(question), visual)
    answer: list[int] = []
    probabilities: list[float] = []
    while True:
        answer.append(int(logits.argmax()))
        probabilities.append(float(logits.float().softmax(-1).max()))
        if answer[-1] in ends or len(answer) == new_tokens:
            break
        logits = dense.decode(answer[-1])
        importance += _received(dense, [0], visual)
    few = top(importance, max(1, math.floor(len(visual) * 0.05)))
    again = Dense(guide, KeepFrom(0, few)).follow(prompt.ids, prompt.pixels, answer).float().softmax(-1)
    return Guidance(
        answer,
        importance,
        math.prod(probabilities) ** (1 / len(answer)),
        math.prod(float(again[step, token]) for step, token in enumerate(answer)),
    )


def sgl(guidance: Guidance, depth: int, layer_fraction: float, keep_share: float) -> Rule:
    """The rule of a sample."""
    keep = math.floor(len(guidance.importance) * keep_share)
    return KeepFrom(math.floor(depth * layer_fraction), top(guidance.importance, keep))


def _received(dense: Dense, queries: list[int], visual: list[int]) -> Tensor:
    """Sum over layers, heads and queries of the pass that was run last."""
    total = torch.zeros(len(visual))
    for weights in dense.weights:
        for query in queries:
            total += weights[:, query][:, visual].sum(0)
    return total
