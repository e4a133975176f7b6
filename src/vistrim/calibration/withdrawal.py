"""What a model's next token loses when all visual tokens leave before a layer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vistrim.architectures import ModelSpec, discover
from vistrim.core.selection import Selection, gather_rows
from vistrim.engine import tap
from vistrim.engine.compaction import compact_arguments, compact_hidden
from vistrim.engine.forward import Call
from vistrim.engine.masks import layer_mask
from vistrim.engine.positions import Renumbering, lowered_arguments
from vistrim.engine.prompt import Prompt, read_inputs, read_prompt
from vistrim.engine.queries import QueryRows
from vistrim.engine.tokens import TokenMap
from vistrim.errors import UnsupportedModelError
from vistrim.methods.base import Positions


@torch.no_grad()
def withdrawal_divergences(
    model: Any, inputs: Mapping[str, Any], first_layer: int, positions: Positions = "original"
) -> Tensor:
    r"""Divergence of the next-token distribution when all visual tokens are withdrawn before each layer.

    One full forward pass keeps the text's hidden states at the input of every layer; from each of them the text runs on
    alone. This is exact: what happens before the withdrawal does not depend on it.

    Parameters
    ----------
    model : PreTrainedModel
        A supported model, not being trimmed.
    inputs : mapping
        What a processor makes of one or more prompts.
    first_layer : int
        First layer to withdraw before, from 1 to the last.
    positions : {"original", "renumber"}
        RoPE positions of the text from there on.

    Returns
    -------
    Tensor
        ``[batch, layers - first_layer]`` float32: :math:`KL(P_k \| P)` in nats for :math:`k` from ``first_layer`` on.

    Raises
    ------
    ValueError
        If ``first_layer`` is out of range, or a prompt has no image or no token ids.
    UnsupportedModelError
        If the model is not supported, or is being trimmed.
    """
    spec = discover(model)
    if tap.is_installed(spec.attentions[0]):
        raise UnsupportedModelError("this model is being trimmed: leave that context first")
    depth = len(spec.layers)
    if not 1 <= first_layer < depth:
        raise ValueError(f"first_layer={first_layer}: must be between 1 and {depth - 1}, the model's last layer")
    watcher = _Watcher(spec, positions == "renumber")
    handles = [spec.base.register_forward_pre_hook(watcher.note_inputs, with_kwargs=True)]
    handles += [
        layer.register_forward_pre_hook(watcher.note_call, with_kwargs=True) for layer in spec.layers[first_layer:]
    ]
    try:
        output = model(**inputs, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    head = model.get_output_embeddings()
    full = gather_rows(output.logits, watcher.prompt.ranking[:, None], 0, 1)[:, 0].float().log_softmax(-1)
    divergences = []
    for start in range(depth - first_layer):
        withdrawn = head(watcher.text_alone(start)).float().log_softmax(-1)
        divergences.append((withdrawn.exp() * (withdrawn - full)).sum(-1))
    return torch.stack(divergences, 1)


@dataclass
class _Watcher:
    """Keeps the text at the input of each watched layer of one forward pass, and the layers' other arguments."""

    spec: ModelSpec
    renumber: bool
    prompt: Prompt = field(init=False)
    text: TokenMap = field(init=False)
    index: Tensor = field(init=False)
    hidden: list[Tensor] = field(default_factory=list)
    calls: list[tuple[nn.Module, Call]] = field(default_factory=list)

    def note_inputs(self, module: nn.Module, args: tuple[Any, ...], kwargs: Call) -> None:
        ids = kwargs.get("input_ids")
        if ids is None:
            raise ValueError("the prompts have no `input_ids`: give what the processor returns")
        found = read_inputs(self.spec, kwargs, None, 0)
        self.prompt = read_prompt(found, ids.shape[0], past=0, length=ids.shape[1], device=ids.device)
        if not all(self.prompt.tokens.n_visual):
            raise ValueError("a prompt without an image tells nothing about visual tokens: leave it out")
        self.index, self.text = self.prompt.tokens.keep(self._withdrawal)

    def note_call(self, layer: nn.Module, args: tuple[Any, ...], kwargs: Call) -> None:
        self.hidden.append(compact_hidden(args[0], self.index, None))
        self.calls.append((layer, kwargs | self._arguments(args[0], kwargs)))

    def text_alone(self, start: int) -> Tensor:
        """Last hidden state ``[batch, hidden]`` of each prompt whose text runs alone from a watched layer on."""
        hidden = self.hidden[start]
        for layer, kwargs in self.calls[start:]:
            hidden = layer(hidden, **kwargs)
        last = QueryRows.last_of(self.prompt).among(self.text)
        return gather_rows(self.spec.norm(hidden), last, 0, 1)[:, 0]

    @property
    def _withdrawal(self) -> Selection:
        tokens = self.prompt.tokens
        return Selection(torch.zeros_like(tokens.visual), (0,) * len(tokens.n_visual), renumber=self.renumber)

    def _arguments(self, hidden: Tensor, kwargs: Call) -> Call:
        tokens, text, own = self.prompt.tokens, self.text, kwargs["position_ids"]
        if self.renumber:
            after = Renumbering.none(tokens).after(self._withdrawal, tokens, self.index, text, own, 0)
            changed = lowered_arguments(self.spec.rotary, hidden, own, text.slots, after.lowered, None)
        else:
            changed = compact_arguments(kwargs["position_embeddings"], own, text.slots)
        return changed | {"attention_mask": layer_mask(kwargs.get("attention_mask"), text, text, 0, 0)}
