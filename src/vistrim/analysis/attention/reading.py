"""Attention of the untouched model, layer by layer, in one forward pass over prompts and answers."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vistrim.analysis.attention.measures import overlap, top
from vistrim.analysis.attention.own_answers import OwnAnswers
from vistrim.core.query_text import text_behind_images
from vistrim.core.schedules import budget
from vistrim.core.scores import AttentionRows
from vistrim.engine.inputs.prompt import Prompt
from vistrim.engine.inputs.query_rows import QueryRows
from vistrim.engine.single_pass import read_rows

ROWS = ("last", "question")
"""Query rows that rank: the last prompt token, or all text of the prompt after the last image (that token included)."""


@dataclass
class Reading:
    """Attention of the untouched model, mean over heads; layers in order, all float32 and on the CPU.

    A step is a query row: 0 is the last prompt token, t the t-th token of the answer. Values of steps beyond the end of
    an answer are undefined.

    Attributes
    ----------
    visual : Tensor
        ``[batch, tokens]`` bool.
    top_tokens : tuple of int
        Number of visual tokens in the top, per sample.
    question_on_visual : list of Tensor
        ``[batch]``: attention of the question on visual tokens, mean over its rows.
    steps_on_visual : list of Tensor
        ``[batch, steps]``: the same of each step.
    received : dict of str to list of Tensor
        By rows (`ROWS`): attention received ``[batch, tokens]``, mean over these rows.
    contributed : dict of str to list of Tensor
        The same with each weight times the norm of the head's value.
    kept_from_step, kept_from_prompt : list of Tensor
        ``[batch, steps]``: share of the top visual tokens that were in the top at the previous step, and at step 0.
    kept_from_layer : list of Tensor
        ``[batch, steps]``: share that were in the top of the previous layer; NaN in layer 0.
    """

    visual: Tensor = field(init=False)
    top_tokens: tuple[int, ...] = field(init=False)
    question_on_visual: list[Tensor] = field(default_factory=list)
    steps_on_visual: list[Tensor] = field(default_factory=list)
    received: dict[str, list[Tensor]] = field(default_factory=lambda: {rows: [] for rows in ROWS})
    contributed: dict[str, list[Tensor]] = field(default_factory=lambda: {rows: [] for rows in ROWS})
    kept_from_step: list[Tensor] = field(default_factory=list)
    kept_from_prompt: list[Tensor] = field(default_factory=list)
    kept_from_layer: list[Tensor] = field(default_factory=list)


def read_attention(model: Any, own: OwnAnswers, share: float) -> tuple[Reading, Tensor]:
    """Read the attention of the question's rows and of every step.

    Only these rows exist, for one layer at a time; the attention map of all rows is never computed.

    Parameters
    ----------
    model : PreTrainedModel
        A supported model, not being trimmed.
    own : OwnAnswers
        Prompts and answers.
    share : float
        Share of the visual tokens that is called the top.

    Returns
    -------
    reading : Reading
    logits : Tensor
        ``[batch, n, vocabulary]``: the untouched model's predictions for the answers.

    Raises
    ------
    ValueError
        If a prompt has no visual token.
    UnsupportedModelError, UnsupportedGenerationError
        See `vistrim.engine.single_pass.read_rows`.
    """
    reader = _Reader(own, share)
    arguments = own.arguments()
    kept = arguments.pop("logits_to_keep")
    del arguments["use_cache"]
    output = read_rows(model, arguments, reader.choose, reader.read, logits_to_keep=kept)
    return reader.found, own.predicted(output)


@dataclass
class _Reader:
    own: OwnAnswers
    share: float
    found: Reading = field(default_factory=Reading)
    _before: Tensor | None = None

    def choose(self, prompt: Prompt) -> QueryRows:
        tokens, own = prompt.tokens, self.own
        if not all(tokens.n_visual):
            raise ValueError("every prompt needs an image: leave out prompts without one")
        place = torch.arange(tokens.width, device=tokens.visual.device)
        self.found.visual = tokens.visual.cpu()
        self.found.top_tokens = tuple(budget(self.share, n) for n in tokens.n_visual)
        question = text_behind_images(tokens.visual, tokens.valid & (place < own.prompt))
        return QueryRows.of(question | (tokens.valid & (place >= own.prompt - 1)), tokens, prompt)

    def read(self, layer: int, rows: AttentionRows, value: Tensor) -> None:
        norms = value.float().norm(dim=-1)
        norms = norms.repeat_interleave(rows.query.shape[1] // norms.shape[1], 1)
        weights, contributions = [], []
        for block, _ in rows.blocks():
            weights.append(block.mean(1).cpu())
            contributions.append((torch.einsum("bhrt,bht->brt", block, norms) / norms.shape[1]).cpu())
        self._note(torch.cat(weights, 1), torch.cat(contributions, 1), rows)

    def _note(self, weights: Tensor, contributions: Tensor, rows: AttentionRows) -> None:
        found, lengths = self.found, self.own.lengths.cpu()
        samples, n = torch.arange(len(lengths))[:, None], self.own.tokens.shape[1]
        # Rows are right-aligned: those of the question, the last of which is step 0, then the other steps.
        first = (weights.shape[1] - lengths)[:, None]
        steps = (first + torch.arange(n)).clamp(max=weights.shape[1] - 1)
        question = torch.arange(weights.shape[1]) <= first
        if rows.counted is not None:
            question &= rows.counted.cpu()
        count = question.sum(1)[:, None]
        for into, given in ((found.received, weights), (found.contributed, contributions)):
            into["last"].append(given[samples, first][:, 0])
            into["question"].append((given * question[..., None]).sum(1) / count)
        of_steps = weights[samples, steps]
        visual = found.visual
        found.question_on_visual.append((found.received["question"][-1] * visual).sum(-1))
        found.steps_on_visual.append((of_steps * visual[:, None]).sum(-1))
        best = top(of_steps, visual, found.top_tokens)
        found.kept_from_step.append(overlap(best, torch.cat([best[:, :1], best[:, :-1]], 1)))
        found.kept_from_prompt.append(overlap(best, best[:, :1]))
        before = self._before
        found.kept_from_layer.append(torch.full(steps.shape, torch.nan) if before is None else overlap(best, before))
        self._before = best
