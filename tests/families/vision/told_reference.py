"""The stock model when it is told which visual tokens each layer still has. No code of the package is used.

A prompt and its answer are read in one pass of transformers' own eager attention over all tokens, so that places,
DeepStack and everything else are its own; a mask hides from all rows what a layer no longer has.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tests.families.zoo import Family, Sample
from tests.families.zoo.family import IMAGE, VIDEO


def visual_rows(sample: Sample) -> list[int]:
    """Where the placeholders of a prompt stand."""
    return [row for row, token in enumerate(sample.ids) if token in (IMAGE, VIDEO)]


@torch.no_grad()
def read(
    family: Family, model: Any, sample: Sample, kept: Sequence[set[int]], answer: Sequence[int]
) -> tuple[Tensor, list[Tensor]]:
    """Read out an answer.

    Parameters
    ----------
    kept : sequence of set of int
        For each layer: which of the prompt's visual tokens it has, by their number.

    Returns
    -------
    logits : Tensor
        ``[steps, vocabulary]``.
    attentions : list of Tensor
        Of each layer, what the last prompt token pays to each visual token, mean over heads.
    """
    rows, last = visual_rows(sample), len(sample.ids) - 1
    more = list(answer[:-1])
    inputs = family.batch([replace(sample, ids=[*sample.ids, *more], later=len(more))])
    attentions: list[Tensor] = []

    def hide(gone: list[int]) -> Any:
        def before(layer: Any, args: Any, kwargs: Any) -> Any:
            length = (args[0] if args else kwargs["hidden_states"]).shape[1]
            seen = torch.ones(length, length, dtype=torch.bool).tril()
            seen[:, gone] = False
            # The row of a removed token is only to be finite.
            seen.fill_diagonal_(True)
            mask = torch.zeros(1, 1, length, length).masked_fill(~seen, torch.finfo(torch.float32).min)
            return args, {**kwargs, "attention_mask": mask}

        return before

    def note(attention: Any, args: Any, output: Any) -> None:
        attentions.append(output[1][0].float().mean(0)[last, rows])

    handles = []
    for layer, numbers in zip(model.get_decoder().layers, kept, strict=True):
        gone = [row for number, row in enumerate(rows) if number not in numbers]
        handles.append(layer.register_forward_pre_hook(hide(gone), with_kwargs=True))
        handles.append(layer.self_attn.register_forward_hook(note))
    try:
        logits = model(**inputs, use_cache=False).logits[0, last:]
    finally:
        for handle in handles:
            handle.remove()
    return logits, attentions
