"""How much each attention head of a model looks at images, compared with text."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vistrim.calibration.single_pass import read_call, untrimmed, without_labels
from vistrim.core.query_text import text_behind_images
from vistrim.core.scores import AttentionRows, Softmax
from vistrim.core.selection import gather_rows
from vistrim.engine import ModelSpec
from vistrim.engine.attention import interception
from vistrim.engine.hooks import Call, before
from vistrim.engine.inputs.query_rows import QueryRows
from vistrim.engine.tokens.masks import visible_to_rows


@torch.no_grad()
def attention_ratios(model: Any, inputs: Mapping[str, Any]) -> Tensor:
    """Attention of the text behind the images to visual tokens, over that to text.

    Parameters
    ----------
    model : PreTrainedModel
        A supported model, not being trimmed.
    inputs : mapping
        What a processor makes of one or more prompts.

    Returns
    -------
    Tensor
        ``[batch, layers, heads]`` float32, on the CPU.

    Raises
    ------
    ValueError
        If a prompt has no image, no text behind it, or no token ids.
    UnsupportedModelError
        If the model is not supported, or is being trimmed.
    """
    spec = untrimmed(model)
    watcher = _Watcher(spec)
    handle = before(spec.base, watcher.note_inputs)
    for number, attention in enumerate(spec.attentions):
        interception.install(attention, partial(interception.Interception, partial(watcher.read, number)))
    try:
        model(**without_labels(inputs), use_cache=False, logits_to_keep=1)
    finally:
        handle.remove()
        for attention in spec.attentions:
            interception.remove(attention)
    return torch.stack([watcher.ratios[number] for number in range(len(spec.layers))], 1)


@dataclass
class _Watcher:
    """Follows one forward pass."""

    spec: ModelSpec
    visual: Tensor = field(init=False)
    asking: QueryRows = field(init=False)
    ratios: dict[int, Tensor] = field(default_factory=dict)

    def note_inputs(self, call: Call) -> None:
        prompt = read_call(self.spec, call)
        tokens, image = prompt.tokens, prompt.inputs.visual
        self.visual = torch.zeros_like(tokens.valid) if image is None else image & tokens.valid
        behind = text_behind_images(self.visual, tokens.valid)
        if not self.visual.any(1).all() or not behind.any(1).all():
            raise ValueError("every prompt needs an image and text behind it: leave the others out")
        self.asking = QueryRows.of(behind, tokens, prompt)

    def read(self, layer: int, query: Tensor, key: Tensor, mask: Tensor | None, softmax: Softmax) -> None:
        rows = self.asking.slots
        seen = visible_to_rows(mask, rows.to(key.device), query.shape[2], key.shape[2])
        asking = AttentionRows(
            gather_rows(query, rows, 0, 2), key, seen, softmax, key.shape[2], rows, self.asking.counted
        )
        visual = self.visual.to(key.device)[:, None, None]
        image = text = torch.zeros((), device=key.device)
        for weights, _ in asking.blocks():
            image = image + (weights * visual).sum((2, 3))
            text = text + (weights * ~visual).sum((2, 3))
        self.ratios[layer] = (image / text).cpu()
