"""Hidden states of a model when all visual tokens are withdrawn before a layer: one full pass, then the text alone.

This is exact. Layers before the withdrawal do not depend on it, so that the text can continue alone from every layer of
the same pass.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vistrim.core.selection import Selection
from vistrim.engine import ModelSpec
from vistrim.engine.hooks import Call, before
from vistrim.engine.inputs.prompt import Prompt
from vistrim.engine.inputs.prompt_ends import Border
from vistrim.engine.requirements import check_axes
from vistrim.engine.single_pass import read_call, untrimmed, without_labels
from vistrim.engine.tokens.compaction import compact_arguments, compact_hidden
from vistrim.engine.tokens.masks import layer_mask
from vistrim.engine.tokens.positions import Renumbering, lowered_arguments
from vistrim.engine.tokens.token_map import TokenMap
from vistrim.errors import UnsupportedModelError
from vistrim.methods.base.method import Positions


@dataclass
class TextAlone:
    """One forward pass of the untouched model, and continuations with its text alone.

    Attributes
    ----------
    spec : ModelSpec
        The model.
    positions : {"original", "renumber"}
        RoPE positions of the text in the continuations.
    first_layer : int
        First layer before which visual tokens may be withdrawn.
    labels : Tensor or None
        ``[batch, tokens]`` long: labels of the model's forward pass; the prompt ends before the first one.
    prompt : Prompt
        All tokens.
    text : TokenMap
        The tokens that are text.
    last : Tensor
        ``[batch, text, hidden]``: input of the untouched model's output head for the text.
    """

    spec: ModelSpec
    positions: Positions
    first_layer: int
    labels: Tensor | None = None
    prompt: Prompt = field(init=False)
    text: TokenMap = field(init=False)
    last: Tensor = field(init=False)
    _index: Tensor = field(init=False)
    _hidden: list[Tensor] = field(default_factory=list)
    _calls: list[tuple[nn.Module, Call]] = field(default_factory=list)

    def entering(self, layer: int) -> Tensor:
        """Hidden states of the text ``[batch, text, hidden]`` at the input of a layer of the untouched model."""
        return self._hidden[layer - self.first_layer]

    def without_image_from(self, layer: int) -> Tensor:
        """Input of the output head ``[batch, text, hidden]`` for the text that continues alone from a layer on."""
        hidden = self.entering(layer)
        for module, kwargs in self._calls[layer - self.first_layer :]:
            output = module(hidden, **kwargs)
            hidden = output[0] if isinstance(output, tuple) else output
        assert self.spec.norm is not None
        return self.spec.norm(hidden)

    def note_inputs(self, call: Call) -> None:
        """Hook of the base model: read the prompt."""
        self.prompt = read_call(self.spec, call, Border(labels=self.labels))
        if not all(self.prompt.tokens.n_visual):
            raise ValueError("every prompt needs an image: leave out prompts without one")
        self._index, self.text = self.prompt.tokens.keep(self._withdrawal)

    def note_call(self, layer: nn.Module, call: Call) -> None:
        """Hook of a layer: keep its text and the other arguments."""
        others = {name: value for name, value in call.items() if name != "hidden_states"}
        self._hidden.append(compact_hidden(call["hidden_states"], self._index, None))
        self._calls.append((layer, others | self._arguments(call["hidden_states"], others)))

    def note_output(self, hidden: Tensor) -> None:
        """Keep the rows of the text in the untouched model's last hidden states."""
        self.last = compact_hidden(hidden, self._index, None)

    @property
    def _withdrawal(self) -> Selection:
        tokens = self.prompt.tokens
        renumber = self.positions == "renumber"
        return Selection(torch.zeros_like(tokens.visual), (0,) * len(tokens.n_visual), renumber=renumber)

    def _arguments(self, hidden: Tensor, kwargs: Call) -> Call:
        tokens, text, own = self.prompt.tokens, self.text, kwargs["position_ids"]
        rotary = partial(self.spec.rotary, self.first_layer + len(self._calls))
        if self.positions == "renumber":
            after = Renumbering.none(tokens).after(self._withdrawal, tokens, self._index, text, own, 0)
            changed = lowered_arguments(rotary, hidden, own, text.slots, after.lowered, None)
        else:
            changed = compact_arguments(kwargs, text.slots)
        return changed | {"attention_mask": layer_mask(kwargs.get("attention_mask"), text, text, 0, 0)}


@torch.no_grad()
def text_alone(
    model: Any,
    inputs: Mapping[str, Any],
    first_layer: int,
    positions: Positions = "original",
    labels: Tensor | None = None,
) -> TextAlone:
    """Run a model once over prompts with images.

    Parameters
    ----------
    model : PreTrainedModel
        A supported model, not being trimmed.
    inputs : mapping
        Processor output for one or more prompts.
    first_layer : int
        First layer before which visual tokens may be withdrawn, from 1 to the last.
    positions : {"original", "renumber"}
        RoPE positions of the text from there on.
    labels : Tensor, optional
        ``[batch, tokens]`` long: correct answers after the prompts, -100 elsewhere.

    Raises
    ------
    ValueError
        If ``first_layer`` is out of range, a prompt has no image or no token ids, or positions with several axes
        (M-RoPE) are to be renumbered.
    UnsupportedModelError
        If the model is not supported, or is being trimmed.
    """
    spec = untrimmed(model)
    if spec.norm is None:
        raise UnsupportedModelError(f"{spec.name}: vistrim does not know the final norm of its decoder")
    depth = len(spec.layers)
    if not 1 <= first_layer < depth:
        raise ValueError(f"first_layer={first_layer}: must be between 1 and {depth - 1}, the model's last layer")
    if positions == "renumber":
        check_axes("vtw", spec)
    found = TextAlone(spec, positions, first_layer, labels)
    with ExitStack() as undo:
        undo.callback(before(spec.base, found.note_inputs).remove)
        for layer in spec.layers[first_layer:]:
            undo.callback(before(layer, partial(found.note_call, layer)).remove)
        output = spec.base(**without_labels(inputs), use_cache=False)
    found.note_output(output.last_hidden_state)
    return found
