"""The untouched model at full length, with tokens hidden layer by layer by the attention mask.

An implementation of trimming that has nothing in common with the engine's: all tokens run through all layers of the
stock model, in one pass over the prompt and its answer without a cache, and a mask hides a removed token from every
query that came after its removal. Positions, masks and whatever else a family does are transformers' own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from vistrim.engine import ModelSpec

Hidden = Sequence[Sequence[frozenset[int]]]
"""For each forward pass of a generation (the first is the prefill) and each layer: the places that were hidden."""

MASKED_KERNELS = ("eager", "sdpa")
"""Attention kernels that take any mask."""


def hide_nothing(steps: int, depth: int) -> Hidden:
    """What the untouched model hides."""
    return [[frozenset[int]()] * depth] * steps


@torch.no_grad()
def masked_logits(model: Any, spec: ModelSpec, inputs: Mapping[str, Any], answer: Tensor, hidden: Hidden) -> Tensor:
    """Logits of every step of an answer.

    Parameters
    ----------
    model : PreTrainedModel
        Not being trimmed.
    spec : ModelSpec
        What `vistrim.engine.describe` found in it.
    inputs : mapping
        One sample without padding.
    answer : Tensor
        ``[steps]`` long: the generated tokens; the last one is not read any more.
    hidden : Hidden
        What is hidden from the prompt's rows, and from the row of each token that is read.

    Returns
    -------
    Tensor
        ``[steps, vocabulary]``.
    """
    steps, prompt = len(answer), inputs["input_ids"].shape[1]
    whole = _with_answer(inputs, answer[:-1])
    options: dict[str, Any] = {"use_cache": False}
    if "logits_to_keep" in inspect.signature(type(model).forward).parameters:
        options["logits_to_keep"] = steps
    with _left_as_it_was(spec):
        # What prompt rows see is asked without the answer: some families look ahead within a prompt.
        stock = _Masks(prompt)
        with _before_layers(spec, stock.note):
            model(**inputs, **options)
        masks = _Masks(prompt + steps - 1)

        def hide(layer: int, arguments: dict[str, Any], states: Tensor) -> None:
            rows = masks.note(layer, arguments, states)
            passes = tuple(one[layer] for one in hidden)
            arguments["attention_mask"] = masks.additive(stock.of_layer[layer], rows, passes, states)

        with _before_layers(spec, hide):
            logits: Tensor = model(**whole, **options).logits
    return logits[0, -steps:]


class _Masks:
    """Which token sees which, by the stock model's own masks and by what is hidden."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.of_layer: list[Tensor] = []
        self._seen: dict[int | None, tuple[Tensor | None, Tensor]] = {}
        self._made: dict[Any, Tensor] = {}

    def note(self, layer: int, arguments: Mapping[str, Any], states: Tensor) -> Tensor:
        """Read off a layer's arguments what each row sees, ``[tokens, tokens]`` bool."""
        mask = arguments.get("attention_mask")
        key = None if mask is None else id(mask)
        if key not in self._seen:
            causal = torch.ones(self.length, self.length, dtype=torch.bool, device=states.device).tril()
            # The mask is kept along: another one in its memory would have its id.
            self._seen[key] = mask, causal if mask is None else _visible(mask)[0, 0].to(states.device)
        seen = self._seen[key][1]
        self.of_layer.append(seen)
        return seen

    def additive(self, prompt: Tensor, rows: Tensor, passes: tuple[frozenset[int], ...], states: Tensor) -> Tensor:
        """Mask of a layer; layers that see the same share it."""
        key = id(prompt), id(rows), passes, states.device
        if key not in self._made:
            length = len(prompt)
            seen = rows.tril()
            seen[:length, :length] = prompt
            seen[:length, list(passes[0])] = False
            for step, gone in enumerate(passes[1:]):
                seen[length + step, list(gone)] = False
            # A removed token computes on for nobody; its row must only be finite.
            seen.fill_diagonal_(True)
            lowest = torch.finfo(states.dtype).min
            mask = torch.zeros(seen.shape, dtype=states.dtype, device=states.device)
            self._made[key] = mask.masked_fill(~seen, lowest)[None, None]
        return self._made[key]


def _visible(mask: Tensor) -> Tensor:
    return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2


def _with_answer(inputs: Mapping[str, Any], tokens: Tensor) -> dict[str, Any]:
    """Inputs with text behind the prompt, in everything that has an entry for each token."""
    shape, whole = inputs["input_ids"].shape, dict(inputs)
    for name, value in inputs.items():
        if isinstance(value, Tensor) and value.shape == shape:
            # Text has type 0 in all families.
            added = value.new_full((1, len(tokens)), int(name == "attention_mask"))
            whole[name] = torch.cat([value, tokens[None].to(value) if name == "input_ids" else added], 1)
    return whole


@contextmanager
def _before_layers(spec: ModelSpec, note: Callable[[int, dict[str, Any], Tensor], Any]) -> Iterator[None]:
    """Show each layer's arguments to a function, which may change them."""

    def hook(layer: int) -> Callable[..., Any]:
        def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
            changed = dict(kwargs)
            note(layer, changed, args[0] if args else kwargs["hidden_states"])
            return args, changed

        return before

    handles = [
        layer.register_forward_pre_hook(hook(number), with_kwargs=True) for number, layer in enumerate(spec.layers)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _left_as_it_was(spec: ModelSpec) -> Iterator[None]:
    """Take a kernel that masks can tell what to see, and keep what models with M-RoPE note of their last prompt."""
    config: Any = spec.decoder.config
    base: Any = spec.base
    kernel, deltas = config._attn_implementation, getattr(base, "rope_deltas", None)
    if kernel not in MASKED_KERNELS:
        config._attn_implementation = "sdpa" if getattr(spec.decoder, "_supports_sdpa", False) else "eager"
    try:
        yield
    finally:
        if kernel not in MASKED_KERNELS:
            config._attn_implementation = kernel
        if hasattr(base, "rope_deltas"):
            base.rope_deltas = deltas
