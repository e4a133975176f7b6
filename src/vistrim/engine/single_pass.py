"""A forward pass of an untouched model that reads its prompts and a few attention rows of every layer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vistrim.core.scores import AttentionRows, Softmax
from vistrim.core.selection import gather_rows
from vistrim.engine import ModelSpec, describe
from vistrim.engine.attention import interception
from vistrim.engine.attention.flash import check_readable
from vistrim.engine.attention.tensor_parallel import find_group
from vistrim.engine.hooks import Call, Hooks, before
from vistrim.engine.inputs.prompt import Prompt, read_inputs, read_prompt
from vistrim.engine.inputs.prompt_ends import Border
from vistrim.engine.inputs.query_rows import QueryRows
from vistrim.engine.tokens.masks import visible_to_rows
from vistrim.engine.wrappers import without_adapter
from vistrim.errors import UnsupportedModelError

ChooseRows = Callable[[Prompt], QueryRows]
"""Selects the rows of the prompts to read."""
ReadLayer = Callable[[int, AttentionRows, Tensor], None]
"""Receives the number of each layer, its attention rows, and its values ``[batch, kv_heads, tokens, head_dim]``."""


def untrimmed(model: Any) -> ModelSpec:
    """Describe a model that is not being trimmed.

    Raises
    ------
    UnsupportedModelError
        If the model is not supported, or is being trimmed.
    """
    spec = describe(without_adapter(model))
    if interception.is_installed(spec.attentions[0]):
        raise UnsupportedModelError("this model is being trimmed: leave that context first")
    return spec


def without_labels(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Remove the labels that some processors add for training."""
    return {name: value for name, value in inputs.items() if name != "labels"}


def read_call(spec: ModelSpec, call: Call, border: Border) -> Prompt:
    """Read the prompts from a call of the base model.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    call : dict
        Arguments of the base model's forward pass by name, without earlier turns.
    border : Border
        Information on the ends of the prompts.

    Raises
    ------
    ValueError
        If the call has no token ids.
    """
    ids = call.get("input_ids")
    if ids is None:
        raise ValueError("the prompts have no `input_ids`: pass the output of the processor")
    found = read_inputs(spec, call, border)
    return read_prompt(found, ids.shape[0], past=0, length=ids.shape[1], device=ids.device)


@torch.no_grad()
def read_rows(
    model: Any, inputs: Mapping[str, Any], choose: ChooseRows, read: ReadLayer, logits_to_keep: int = 1
) -> Any:
    """Run a model once and read some attention rows of each layer, without computing attention maps.

    Parameters
    ----------
    model : PreTrainedModel
        A supported model, not being trimmed.
    inputs : mapping
        Output of the processor for one or more prompts, which may be followed by answers.
    choose : callable
        Called once, before the first layer.
    read : callable
        Called after each layer.
    logits_to_keep : int
        Number of logits at the end of the sequence. If it is above 1, the first belongs to the last prompt token.

    Returns
    -------
    ModelOutput
        Output of the model.

    Raises
    ------
    ValueError
        If a prompt has no token ids.
    UnsupportedModelError
        If the model is not supported, is being trimmed, or has its heads distributed over processes.
    UnsupportedGenerationError
        If its FlashAttention is not determined by its masks.
    """
    spec = untrimmed(model)
    if find_group(without_adapter(model)) is not None:
        raise UnsupportedModelError(
            "vistrim cannot read the attention of a model whose heads are distributed over several processes: load it "
            "without tensor parallelism"
        )
    check_readable(spec.decoder)
    watcher = _Watcher(spec, choose, read, Border(kept=logits_to_keep))
    hooks = Hooks()
    try:
        hooks.keep(before(spec.base, watcher.note_inputs))
        for number, attention in enumerate(spec.attentions):
            interception.install(attention, partial(watcher.intercept, number))
            hooks.undo_with(partial(interception.remove, attention))
        return model(**without_labels(inputs), use_cache=False, logits_to_keep=logits_to_keep)
    finally:
        hooks.remove()


@dataclass
class _Watcher:
    """Hooks of one forward pass."""

    spec: ModelSpec
    choose: ChooseRows
    read: ReadLayer
    border: Border
    asking: QueryRows = field(init=False)

    def note_inputs(self, call: Call) -> None:
        self.asking = self.choose(read_call(self.spec, call, self.border))

    def intercept(self, layer: int) -> interception.Interception:
        return interception.Interception(read_values=partial(self._read, layer))

    def _read(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, softmax: Softmax
    ) -> None:
        rows, counted = self.asking.slots.to(key.device), self.asking.counted
        seen = visible_to_rows(mask, rows, query.shape[2], key.shape[2])
        counted = counted.to(key.device) if counted is not None else None
        asked = gather_rows(query, rows, 0, 2)
        self.read(layer, AttentionRows(asked, key, seen.to(key.device), softmax, key.shape[2], rows, counted), value)
