"""A tiny guide model for the tiny models, and its results by brute force: one sample at a time, all attention."""

import math
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from tests import tiny
from tests.methods.dense_reference import Dense, Row, Rule
from tests.methods.training_free_rules import top

SETTINGS = {"num_hidden_layers": 3, "hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 3}


def build(text: str = "llama", attention: str = "sdpa", seed: int = 7, **extra):
    """A fresh guide: fewer layers, fewer and narrower heads."""
    return tiny.build(text, attention, seed=seed, **SETTINGS | {"num_key_value_heads": 1} | extra)


@cache
def shared(text: str = "llama", attention: str = "sdpa"):
    """One guide for many tests, which must leave it as it is."""
    return build(text, attention)


@dataclass
class Ranked(Rule):
    """Before one layer, the visual tokens with the best of given scores stay."""

    layer: int
    kept: int
    scores: Tensor = field(default_factory=lambda: torch.empty(0))

    def before(self, layer: int, rows: list[Row], dense: Dense) -> list[Row]:
        if layer != self.layer:
            return rows
        stay = set(top(self.scores, self.kept))
        return [row for row in rows if row.visual is None or row.visual in stay]


@torch.no_grad()
def greedy(guide, sample: tiny.Sample, new_tokens: int, ends: tuple[int, ...] = ()) -> list[int]:
    """The guide's answer, its end included; everything is computed again for each token."""
    answer: list[int] = []
    while len(answer) < new_tokens and not (answer and answer[-1] in ends):
        answer.append(int(read(guide, sample, answer)[0][0, -1].argmax()))
    return answer


@torch.no_grad()
def read(guide, sample: tiny.Sample, answer: list[int], **options):
    """One forward pass over prompt and answer; all tokens of the answer count as text."""
    embeddings = guide.get_input_embeddings()(torch.tensor(sample.ids + answer))
    if len(sample.pixels):
        features = guide.get_image_features(sample.pixels, return_dict=True).pooler_output
        embeddings[[i for i, token in enumerate(sample.ids) if token == tiny.IMAGE]] = torch.cat(list(features))
    hidden = guide.get_decoder()(inputs_embeds=embeddings[None], use_cache=False, **options)
    return guide.lm_head(hidden.last_hidden_state), hidden.attentions


def received(guide, sample: tiny.Sample, answer: list[int]) -> Tensor:
    """Attention that each prompt token of a sample receives, ``[tokens]``, on a guide with eager attention."""
    _, attentions = read(guide, sample, answer[:-1], output_attentions=True)
    last = max((i for i, token in enumerate(sample.ids) if token == tiny.IMAGE), default=-1)
    first = min(last + 1, len(sample.ids) - 1)
    return sum(weights[0, :, first:, : len(sample.ids)].double().sum((0, 1)) for weights in attentions)


def visual_scores(guide, sample: tiny.Sample, answer: list[int]) -> Tensor:
    """That of the visual tokens alone."""
    return received(guide, sample, answer)[torch.tensor(sample.ids) == tiny.IMAGE]


def exit_score(guide, sample: tiny.Sample, answer: list[int]) -> float:
    """S of an answer, on a guide with eager attention."""
    scores = visual_scores(guide, sample, answer)
    few = Ranked(0, max(1, math.floor(0.05 * len(scores))), scores)

    def probabilities(rule: Rule) -> list[float]:
        logits = Dense(guide, rule).follow(sample.ids, sample.pixels, answer)
        return [float(p[token]) for p, token in zip(logits.double().softmax(-1), answer, strict=True)]

    confidence = math.prod(probabilities(Rule())) ** (1 / len(answer))
    return (confidence + math.prod(probabilities(few))) / 2
