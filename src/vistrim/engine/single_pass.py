"""A single forward pass of an untouched model, watched: its prompts, and the attention of a few rows in every layer."""

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
"""Says which rows of the prompts are read."""
ReadLayer = Callable[[int, AttentionRows, Tensor], None]
"""Receives, layer by layer, its number, the rows, and its values ``[batch, kv_heads, tokens, head_dim]``."""


def untrimmed(model: Any) -> ModelSpec:
    """Take a model apart that is not being trimmed.

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
    """Arguments of a forward pass, without the labels that some processors make for trainers."""
    return {name: value for name, value in inputs.items() if name != "labels"}


def read_call(spec: ModelSpec, call: Call, border: Border) -> Prompt:
    """Read the prompts off a call of the base model.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    call : dict
        Arguments of the base model's forward pass by name, without earlier turns.
    border : Border
        What tells where prompts end.

    Raises
    ------
    ValueError
        If there are no token ids.
    """
    ids = call.get("input_ids")
    if ids is None:
        raise ValueError("the prompts have no `input_ids`: give what the processor returns")
    found = read_inputs(spec, call, border)
    return read_prompt(found, ids.shape[0], past=0, length=ids.shape[1], device=ids.device)


@torch.no_grad()
def read_rows(
    model: Any, inputs: Mapping[str, Any], choose: ChooseRows, read: ReadLayer, logits_to_keep: int = 1
) -> Any:
    """Run a model once, and read some rows of its attention layer by layer; no attention map exists.

    Parameters
    ----------
    model : PreTrainedModel
        A supported model, not being trimmed.
    inputs : mapping
        What a processor makes of one or more prompts; answers may stand behind them.
    choose : callable
        Asked once, before the first layer.
    read : callable
        Told of each layer when it has run.
    logits_to_keep : int
        Logits at so many places at the end. The first of several is that of the last prompt token.

    Returns
    -------
    ModelOutput
        Of the model.

    Raises
    ------
    ValueError
        If a prompt has no token ids.
    UnsupportedModelError
        If the model is not supported, is being trimmed, or shares its heads with other processes.
    UnsupportedGenerationError
        If its FlashAttention knows more than its masks tell.
    """
    spec = untrimmed(model)
    if find_group(without_adapter(model)) is not None:
        raise UnsupportedModelError(
            "the attention of a model whose heads are spread over several processes cannot be read as a whole: load it "
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
    """Follows one forward pass."""

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
