"""Costs of answers, beside each answer in lmms-eval's samples and as means beside its scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from lmms_eval.api.instance import TokenCounts

from vistrim.evaluation.records import Answer
from vistrim.integrations.lmms.likelihood import Likelihood


@dataclass
class Costs(TokenCounts):
    """Costs of one request, as if it had been alone in its batch.

    Attributes
    ----------
    visual_tokens : int
        Visual tokens in the prompt.
    visual_tokens_per_layer : float
        Visual tokens per layer in prefill, mean over layers.
    prefill_flops, prefill_flops_full : float
        FLOPs of decoder and method in prefill, and of the untrimmed decoder.
    kv_share : float or None
        KV bytes divided by those of the untrimmed model, mean over steps. None without decoding.
    """

    visual_tokens: int = 0
    visual_tokens_per_layer: float = 0.0
    prefill_flops: float = 0.0
    prefill_flops_full: float = 0.0
    kv_share: float | None = None

    @staticmethod
    def of_answer(answer: Answer) -> Costs:
        """Costs of an answer."""
        return Costs(
            input_tokens=answer.prompt_tokens,
            output_tokens=answer.new_tokens,
            visual_tokens=answer.visual_tokens,
            visual_tokens_per_layer=answer.average_tokens,
            prefill_flops=answer.prefill_flops + answer.method_flops,
            prefill_flops_full=answer.prefill_flops_full,
            kv_share=answer.kv_mean,
        )

    @staticmethod
    def of_likelihood(found: Likelihood) -> Costs:
        """Costs of scoring a given answer."""
        return Costs(
            input_tokens=found.prompt_tokens,
            output_tokens=found.answer_tokens,
            visual_tokens=found.visual_tokens,
            visual_tokens_per_layer=found.average_tokens,
            prefill_flops=found.flops,
            prefill_flops_full=found.flops_full,
        )

    def to_dict(self) -> dict[str, Any]:
        """Values for the file of samples."""
        return {name: value for name, value in vars(self).items() if value is not None}


def means(costs: Sequence[Costs]) -> dict[str, float]:
    """Mean costs of requests.

    Parameters
    ----------
    costs : sequence of Costs
        At least one.

    Returns
    -------
    dict of str to float
        ``visual_tokens`` and ``visual_tokens_per_layer``; ``prefill_flops_share`` of all requests together; and
        ``kv_share``, if there was decoding.
    """
    full = sum(one.prefill_flops_full for one in costs)
    held = [one.kv_share for one in costs if one.kv_share is not None]
    found = {
        "visual_tokens": mean(one.visual_tokens for one in costs),
        "visual_tokens_per_layer": mean(one.visual_tokens_per_layer for one in costs),
        "prefill_flops_share": sum(one.prefill_flops for one in costs) / full,
    }
    return {name: float(value) for name, value in found.items()} | ({"kv_share": mean(held)} if held else {})


def means_by_task(costs: Sequence[tuple[str, Costs]]) -> dict[str, float]:
    """Mean costs of all requests, and with several tasks also of each, as ``kv_share[TASK]``."""
    tasks = list(dict.fromkeys(task for task, _ in costs))
    found = means([one for _, one in costs])
    if len(tasks) > 1:
        for task in tasks:
            own = means([one for name, one in costs if name == task])
            found |= {f"{figure}[{task}]": value for figure, value in own.items()}
    return found
