"""Calibration prompts with the untouched model's own answers, in rungs that grow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from vistrim.analysis.attention.own_answers import OwnAnswers, own_answers
from vistrim.engine.single_pass import untrimmed
from vistrim.evaluation.item_prompts import format_items
from vistrim.evaluation.items import Item
from vistrim.methods.base.sample_sizes import SampleSizes
from vistrim.prompt_sizes import prompt_sizes
from vistrim.prompting import check_context


@dataclass(frozen=True)
class Batch:
    """Prompts of one group of tasks, in one batch.

    Attributes
    ----------
    items : list of Item
        The questions.
    rung : int
        First rung that has them.
    inputs : mapping
        Output of the processor.
    own : OwnAnswers
        The untouched model's answers.
    logits : Tensor
        ``[batch, n, vocabulary]``: its predictions for them, on the CPU.
    sizes : list of (SampleSizes, int)
        Sizes of each prompt, and tokens of its answer.
    """

    items: list[Item]
    rung: int
    inputs: Mapping[str, Any]
    own: OwnAnswers
    logits: Tensor
    sizes: list[tuple[SampleSizes, int]]


def balanced(items: Sequence[Item], most: int) -> dict[str, list[Item]]:
    """Choose up to ``most`` items of each group of tasks, evenly over its tasks.

    Returns
    -------
    dict of str to list of Item
        By group. The first items of a list are balanced, too.
    """
    tasks: dict[str, dict[str, list[Item]]] = {}
    for item in items:
        tasks.setdefault(item.task.group, {}).setdefault(item.task.name, []).append(item)
    return {
        group: [item for row in zip_longest(*of_task.values()) for item in row if item is not None][:most]
        for group, of_task in tasks.items()
    }


def rung_sizes(most: int, rungs: int) -> list[int]:
    """Items per group in each rung: each has twice as many as the one before, the last one all."""
    return [max(1, most >> (rungs - 1 - rung)) for rung in range(rungs)]


@torch.no_grad()
def read_prompts(
    model: Any, processor: Any, groups: Mapping[str, list[Item]], rungs: int, batch_size: int, max_new_tokens: int
) -> Iterator[Batch]:
    """Let the untouched model answer all prompts.

    Parameters
    ----------
    model, processor
        As `vistrim.load` returns them. The model must not be trimmed at the time.
    groups : mapping of str to list of Item
        See `balanced`.
    rungs : int
        Number of rungs.
    batch_size : int
        Prompts per batch.
    max_new_tokens : int
        Longest answer.

    Raises
    ------
    UnsupportedModelError
        If the model is not supported, or is being trimmed.
    PromptError
        If prompt and answer do not fit into the model's context.
    """
    spec = untrimmed(model)
    for items in groups.values():
        done = 0
        for rung, end in enumerate(rung_sizes(len(items), rungs)):
            for start in range(done, end, batch_size):
                batch = items[start : min(end, start + batch_size)]
                inputs = format_items(processor, batch)
                check_context(model, inputs, max_new_tokens)
                sizes = prompt_sizes(spec, inputs, max_new_tokens)
                inputs = inputs.to(model.device, dtype=model.dtype)
                own = own_answers(model, inputs, max_new_tokens)
                logits = own.predicted(model(**own.arguments())).cpu()
                lengths = own.lengths.tolist()
                yield Batch(batch, rung, inputs, own, logits, list(zip(sizes, lengths, strict=True)))
            done = max(done, end)


def sizes_of(batches: Sequence[Batch]) -> Counter[tuple[SampleSizes, int]]:
    """Count the prompts by their sizes and the lengths of their answers."""
    return Counter(size for batch in batches for size in batch.sizes)
