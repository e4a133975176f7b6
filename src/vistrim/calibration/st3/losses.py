"""What a method loses on the calibration prompts; every figure is saved, and an interrupted search resumes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from vistrim._utils.store import Store
from vistrim.analysis.attention.own_answers import next_token_divergence
from vistrim.calibration.st3.prompts import Batch
from vistrim.methods.base.method import Method
from vistrim.trimming import trim


@dataclass(frozen=True)
class Loss:
    """Distance from the untouched model's predictions while its own answers are read.

    For each answer the mean over its tokens, then the mean over the answers of a group of tasks, then over the groups.

    Attributes
    ----------
    lost : float
        ``1 - exp(-divergence)`` of each token: where the untouched model is certain, the probability that its token
        loses. It is bounded, so that a few answers do not decide.
    divergence : float
        KL divergence of the next-token distribution in nats.
    kept : float
        Share of the answers of which every token is still the most likely one.
    """

    lost: float
    divergence: float
    kept: float


class Losses(Store[Loss]):
    """Losses of methods, by prompt.

    Parameters
    ----------
    model : PreTrainedModel
        The model.
    batches : sequence of Batch
        The prompts.
    path : Path or None
        File in which every figure is saved. None keeps them in memory.
    settings : mapping
        Settings that all figures share.
    advance : callable
        Called with a number of prompts that were just processed, or known from the file.

    Raises
    ------
    ResumeError
        See `vistrim._utils.store.Store`.
    """

    def __init__(
        self,
        model: Any,
        batches: Sequence[Batch],
        path: Path | None,
        settings: Mapping[str, Any],
        advance: Callable[[int], None] = lambda prompts: None,
    ) -> None:
        self._model, self._batches, self._advance = model, batches, advance
        super().__init__(path, settings, ("method", "item"), _decoded)

    def __call__(self, method: Method, rung: int) -> Loss:
        """Loss of a method on the prompts of a rung and all rungs before it."""
        groups: dict[str, list[Loss]] = defaultdict(list)
        for batch in self._batches:
            if batch.rung <= rung:
                keys = [(str(method), item.id) for item in batch.items]
                if any(key not in self.rows for key in keys):
                    self.put(self._measured(method, batch))
                self._advance(len(keys))
                for item, key in zip(batch.items, keys, strict=True):
                    groups[item.task.group].append(self.rows[key])
        return _mean([_mean(losses) for losses in groups.values()])

    @torch.no_grad()
    def _measured(self, method: Method, batch: Batch) -> list[dict[str, Any]]:
        with trim(self._model, method, reports=1):
            if method.acts_in_decode:
                logits = step_by_step(self._model, batch)
            else:
                logits = batch.own.predicted(self._model(**batch.own.arguments()))
        divergence, same = next_token_divergence(batch.logits.to(logits.device), logits)
        rows = []
        for sample, (item, n) in enumerate(zip(batch.items, batch.own.lengths.tolist(), strict=True)):
            own = divergence[sample, :n].double()
            rows.append(
                {
                    "method": str(method),
                    "item": item.id,
                    "lost": (1 - (-own).exp()).mean().item(),
                    "divergence": own.mean().item(),
                    "kept": float(same[sample, :n].all()),
                }
            )
        return rows


def step_by_step(model: Any, batch: Batch) -> Tensor:
    """Predictions for the own answers ``[batch, n, vocabulary]`` when these are read one token at a time.

    Tokens are removed in this way only while decoding.
    """
    steps = batch.own.tokens.shape[1]
    output = model.generate(
        **batch.inputs,
        max_new_tokens=steps,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        logits_processor=LogitsProcessorList([_Given(batch.own.tokens, batch.own.prompt)]),
        output_logits=True,
        return_dict_in_generate=True,
    )
    return torch.stack(output.logits, 1)


class _Given(LogitsProcessor):
    """Allows only the next token of given answers."""

    def __init__(self, tokens: Tensor, prompt: int) -> None:
        self._tokens, self._prompt = tokens, prompt

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        wanted = self._tokens[:, input_ids.shape[1] - self._prompt, None]
        return torch.full_like(scores, -torch.inf).scatter(1, wanted, 0.0)  # type: ignore[return-value]


def _mean(losses: Sequence[Loss]) -> Loss:
    return Loss(
        mean(loss.lost for loss in losses),
        mean(loss.divergence for loss in losses),
        mean(loss.kept for loss in losses),
    )


def _decoded(row: dict[str, Any]) -> Loss:
    return Loss(row["lost"], row["divergence"], row["kept"])
